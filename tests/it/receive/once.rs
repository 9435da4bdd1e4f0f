//! An event is accepted once, whoever sends it how often.

use futures_util::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_senders_at_once_one_is_accepted() {
    let mut harness = Harness::new().await;
    let event = stopped("e1", "t1");
    let answers = join_all((0..64).map(|_| harness.deliver(&event))).await;
    assert!(answers.iter().all(|answer| status(answer) == 200));
    let bodies: Vec<_> = answers.iter().map(json).collect();
    let count = |word: &str| bodies.iter().filter(|body| body["status"] == word).count();
    assert_eq!((count("accepted"), count("duplicate")), (1, 63));
    assert!(bodies.iter().all(|body| body["id"] == bodies[0]["id"]));
    assert_eq!(harness.list("events").await[0]["repeats"], 63);
    harness.expect_leftover();
}

#[tokio::test]
async fn a_repeat_is_known_after_a_restart_and_after_a_crash() {
    let mut harness = Harness::new().await;
    let event = stopped("e1", "t1");
    let id = harness.accept(&event).await;
    harness.restart().await;
    assert_eq!(json(&harness.deliver(&event).await), json!({"status": "duplicate", "id": id}));
    harness.crash();
    harness.start().await;
    assert_eq!(json(&harness.deliver(&event).await), json!({"status": "duplicate", "id": id}));
    harness.expect_leftover();
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let mut harness = Harness::new().await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.insert(0, harness.accept(&stopped(&format!("e{number}"), "t1")).await);
    }
    harness.crash();
    harness.start().await;
    let kept: Vec<_> = harness.list("events").await.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kept, ids);
    harness.expect_leftover();
}

#[tokio::test]
async fn an_id_reused_for_other_content_is_an_event_of_its_own_and_worked_on() {
    let mut harness = Harness::with(&format!("{OPEN}[destinations.log]\nkind = \"log\"\ninclude = \"envelope\"\n")).await;
    let bodies: Vec<Value> = serde_json::from_str(include_str!("../../data/manus/event_id_reused.json")).unwrap();
    let mut ids = Vec::new();
    for body in &bodies {
        let answer = send(harness.post("/webhooks/open").body(body.to_string())).await;
        assert_eq!((status(&answer), &json(&answer)["status"]), (200, &json!("accepted")));
        ids.push(json(&answer)["id"].clone());
    }
    harness.drain().await;
    let lines: Vec<Value> = harness.log.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["type"].clone(), line["collision_of"].clone())).collect();
    assert_eq!(told, [(json!("task_created"), json!(null)), (json!("task_stopped"), ids[0].clone())]);
    let again = send(harness.post("/webhooks/open").body(bodies[1].to_string())).await;
    assert_eq!(json(&again), json!({"status": "duplicate", "id": ids[1]}));
}

#[tokio::test]
async fn links_signed_anew_do_not_make_an_event_new() {
    let mut harness = Harness::new().await;
    let signed = |signature: &str| {
        let mut event = stopped("e1", "t1");
        event["task_detail"]["message"] = format!("See https://files.example.com/a.md?sig={signature} now").into();
        event["task_detail"]["attachments"] = json!([{"url": format!("https://files.example.com/a.md?sig={signature}")}]);
        event
    };
    let id = harness.accept(&signed("one")).await;
    assert_eq!(json(&harness.deliver(&signed("two")).await), json!({"status": "duplicate", "id": id}));
    harness.expect_leftover();
}
