//! What goes wrong on request.

use super::*;

async fn event(world: &World, id: &str) -> usize {
    world.manus.emit(KEY, json!({"event_id": id, "event_type": "task_created", "task_detail": {"task_id": "t"}})).await.len()
}

#[tokio::test]
async fn events_are_dropped_doubled_and_held_back() {
    let world = World::registered().await;
    world.manus.set_faults(Faults {
        drop: Times::Next(1),
        duplicate: Times::Next(1),
        reorder: Times::Next(1),
        ..Faults::default()
    });
    for (id, sent) in [("dropped", 0), ("held", 0), ("doubled", 3), ("plain", 1)] {
        assert_eq!(event(&world, id).await, sent, "{id}");
    }
    assert_eq!(world.receiver.members("event_id"), ["doubled", "doubled", "held", "plain"]);
    let dropped = &world.manus.deliveries()[0];
    assert_eq!((dropped.event_id.as_str(), dropped.attempt, dropped.status), ("dropped", 0, None));
    assert_eq!(world.manus.faults(), Faults::default());
}

#[tokio::test]
async fn a_held_event_goes_out_when_nothing_else_comes() {
    let world = World::registered().await;
    world.manus.set_faults(Faults { reorder: Times::Always, ..Faults::default() });
    let _ = world.manus.create_task(KEY, Plan::finish("x"));
    assert_eq!(world.manus.finish_all().await.len(), 2);
    assert_eq!(world.receiver.members("event_type"), ["task_created", "task_stopped"]);

    let world = World::with(|options| options.drive = Drive::Clock).await;
    world.manus.register(KEY, &world.receiver.url);
    world.manus.set_faults(Faults { reorder: Times::Next(1), ..Faults::default() });
    let _ = world.manus.create_task(KEY, Plan::finish("x"));
    world.manus.idle().await;
    assert_eq!(world.receiver.members("event_type"), ["task_stopped", "task_created"]);
}

#[tokio::test]
async fn an_id_is_reused_for_other_content() {
    let world = World::registered().await;
    world.manus.set_faults(Faults { reuse_id: Times::Next(1), ..Faults::default() });
    let task = world.manus.create_task(KEY, Plan::finish("x"));
    world.manus.finish_all().await;
    let ids = world.receiver.members("event_id");
    assert_eq!(ids[0], ids[1]);
    assert_eq!(world.receiver.members("event_type"), ["task_created", "task_stopped"]);

    world.manus.set_faults(Faults { same_second: true, ..Faults::default() });
    world.receiver.forget();
    for text in ["a", "b"] {
        world.clock.advance(jiff::SignedDuration::from_secs(9));
        world.post("/v2/task.sendMessage", json!({"task_id": task, "message": {"content": text}})).await;
        world.manus.finish_all().await;
    }
    let seen = world.receiver.seen();
    assert_eq!(seen[0].json()["event_id"], seen[1].json()["event_id"]);
    assert_ne!(seen[0].json()["task_detail"]["message"], seen[1].json()["task_detail"]["message"]);
}

#[tokio::test]
async fn a_foreign_event_is_genuine_but_of_a_task_that_our_key_cannot_read() {
    let world = World::registered().await;
    world.manus.set_faults(Faults { foreign: Times::Next(1), ..Faults::default() });
    event(&world, "ours").await;
    let foreign = &world.receiver.seen()[0];
    assert!(world.genuine(foreign, &world.receiver.url));
    assert_eq!(foreign.json()["event_type"], "task_stopped");
    let task = foreign.json()["task_detail"]["task_id"].as_str().unwrap().to_owned();
    assert_eq!(world.get(&format!("/v2/task.detail?task_id={task}")).await.0, 404);
    assert_eq!(world.receiver.members("event_id")[1], "ours");
}

#[tokio::test]
async fn signatures_go_wrong_in_each_way() {
    let world = World::registered().await;
    let other = "https://elsewhere.example/hook".to_owned();
    for (faults, url, timestamp) in [
        (Faults { bad_signature: Times::Next(1), ..Faults::default() }, None, 0),
        (Faults { double_hash: Times::Next(1), ..Faults::default() }, None, 0),
        (Faults { http_for_https: Times::Next(1), ..Faults::default() }, Some(world.receiver.url.replace("http", "https")), 0),
        (Faults { sign_for_url: Some(other.clone()), ..Faults::default() }, Some(other), 0),
        (Faults { stale_seconds: 301, ..Faults::default() }, Some(world.receiver.url.clone()), -301),
        (Faults { clock_offset_seconds: 600, ..Faults::default() }, Some(world.receiver.url.clone()), 600),
    ] {
        world.receiver.forget();
        world.manus.set_faults(faults.clone());
        event(&world, "e").await;
        let seen = &world.receiver.seen()[0];
        assert_eq!(world.genuine(seen, &world.receiver.url), url.as_deref() == Some(&world.receiver.url), "{faults:?}");
        assert!(url.is_none_or(|url| world.genuine(seen, &url)), "{faults:?}");
        assert_eq!(seen.header("x-webhook-timestamp"), (1_763_507_100 + timestamp).to_string(), "{faults:?}");
    }
}

#[tokio::test]
async fn the_api_fails_as_told_over_http() {
    let world = World::new().await;
    let set = async |faults: Value| world.post("/_simulator/faults", faults).await.0;
    let refuse = json!({"api": [{"only": "task.list", "times": 2, "answer": {"refuse": {"status": 429, "retry_after": "2"}}}]});
    assert_eq!(set(refuse).await, 200);
    assert_eq!(world.get("/v2/webhook.list").await.0, 200);
    let request = world.client.get(format!("{}/v2/task.list", world.manus.base_url())).header("x-manus-api-key", KEY);
    let answer = world.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("2")));
    assert_eq!(world.get("/v2/task.list").await.0, 429);
    assert_eq!(world.get("/v2/task.list").await.0, 200);
    assert_eq!(set(json!({"nonsense": 1})).await, 400);
    assert_eq!(set(json!({"refused_keys": [KEY]})).await, 200);
    assert_eq!(world.get("/v2/task.list").await.0, 401);
    assert_eq!(world.get("/_simulator/faults").await.1["refused_keys"], json!([KEY]));
    assert_eq!(set(json!({})).await, 200);
    assert_eq!(world.get("/v2/task.list").await.0, 200);
    assert_eq!(world.get("/_simulator/requests").await.1.as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn an_answer_may_be_nonsense_after_the_call_was_done() {
    let world = World::with(|options| options.limits = None).await;
    let create = async |answer: WrongAnswer| {
        world.manus.set_faults(Faults { api: vec![ApiFault::on("task.create", Times::Always, answer)], ..Faults::default() });
        let url = format!("{}/v2/task.create", world.manus.base_url());
        let request = world.client.post(url).header("x-manus-api-key", KEY).json(&json!({"message": {"content": "x"}}));
        http::send(request, Duration::from_secs(10), 1 << 20).await
    };
    assert!(create(WrongAnswer::Html).await.unwrap().body.starts_with(b"<!doctype html>"));
    assert_eq!(create(WrongAnswer::Empty).await.unwrap().body.len(), 0);
    assert!(matches!(create(WrongAnswer::Huge).await, Err(http::Error::TooLarge(_))));
    assert!(matches!(create(WrongAnswer::Half).await, Err(http::Error::Broken(_))));
    assert!(matches!(create(WrongAnswer::Lost).await, Err(http::Error::Broken(_))));
    assert_eq!(create(WrongAnswer::Refuse { status: 503, retry_after: None }).await.unwrap().status, 503);
    world.manus.set_faults(Faults::default());
    assert_eq!(world.get("/v2/task.list").await.1["data"].as_array().unwrap().len(), 5, "all but the refused one were made");
}

#[tokio::test]
async fn half_an_answer_really_arrives() {
    let world = World::new().await;
    world
        .manus
        .set_faults(Faults { api: vec![ApiFault::on("task.list", Times::Always, WrongAnswer::Half)], ..Faults::default() });
    let request = world.client.get(format!("{}/v2/task.list", world.manus.base_url())).header("x-manus-api-key", KEY);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.chunk().await.unwrap().unwrap().is_empty());
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn a_slow_answer_waits_for_the_clock() {
    let world = World::new().await;
    world.manus.set_faults(serde_json::from_value(json!({"api": [{"slow_ms": 5000}]})).unwrap());
    let call = world.get("/v2/task.list");
    tokio::pin!(call);
    let status = loop {
        tokio::select! {
            biased;
            answered = &mut call => break answered.0,
            () = tokio::task::yield_now() => world.clock.advance(jiff::SignedDuration::from_millis(1)),
        }
    };
    assert_eq!(status, 200);
    assert!(world.clock.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn the_date_is_the_clocks_unless_it_is_wrong() {
    let world = World::new().await;
    let date = async || {
        let request = world.client.get(format!("{}/v2/webhook.publicKey", world.manus.base_url()));
        world.send(request.header("x-manus-api-key", KEY)).await.header("date").unwrap().to_owned()
    };
    assert_eq!(date().await, "Tue, 18 Nov 2025 23:05:00 GMT");
    world.manus.set_faults(Faults { date_offset_seconds: 600, ..Faults::default() });
    assert_eq!(date().await, "Tue, 18 Nov 2025 23:15:00 GMT");
}

#[tokio::test]
async fn what_happened_is_shown_only_after_the_lag() {
    let world = World::registered().await;
    let task = world.manus.create_task(KEY, Plan::finish("Done."));
    world.clock.advance(jiff::SignedDuration::from_secs(60));
    world.manus.set_faults(Faults { lag_seconds: 30, ..Faults::default() });
    world.manus.finish_all().await;
    assert!(world.receiver.members("event_type").contains(&"task_stopped".to_owned()), "webhooks tell it at once");
    let seen = async || {
        let detail = world.get(&format!("/v2/task.detail?task_id={task}")).await.1["task"]["status"].clone();
        let list = world.get("/v2/task.list").await.1["data"][0]["status"].clone();
        let messages = world.get(&format!("/v2/task.listMessages?task_id={task}")).await.1["messages"].as_array().unwrap().len();
        let v1 = world.get(&format!("/v1/tasks/{task}")).await.1["status"].clone();
        (detail, list, messages, v1)
    };
    let early = seen().await;
    world.clock.advance(jiff::SignedDuration::from_secs(29));
    assert_eq!(seen().await, early);
    assert_eq!((&early.0, &early.1, &early.3), (&json!("running"), &json!("running"), &json!("running")));
    world.clock.advance(jiff::SignedDuration::from_secs(1));
    let late = seen().await;
    assert_eq!((&late.0, &late.1, &late.3), (&json!("stopped"), &json!("stopped"), &json!("completed")));
    assert!(late.2 > early.2, "{late:?}");
}
