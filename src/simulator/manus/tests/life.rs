//! What tasks do, and what webhooks tell of it.

use super::*;

#[tokio::test]
async fn a_task_is_created_runs_and_finishes_and_each_is_told_with_a_genuine_signature() {
    let world = World::registered().await;
    let task = world.manus.create_task(KEY, Plan::finish("4").titled("2 + 2").with_progress(["Thinking"]));
    assert_eq!(world.manus.step(&task).await.unwrap()[0].status, Some(200));
    assert_eq!(world.manus.step(&task).await.unwrap().len(), 1);
    assert_eq!(world.get(&format!("/v2/task.detail?task_id={task}")).await.1["task"]["status"], "running");
    assert_eq!(world.manus.step(&task).await.unwrap().len(), 1);
    assert!(world.manus.step(&task).await.is_none());
    assert_eq!(world.receiver.members("event_type"), ["task_created", "task_progress", "task_stopped"]);
    for seen in world.receiver.seen() {
        assert!(world.genuine(&seen, &world.receiver.url));
        assert!(!world.genuine(&seen, "http://elsewhere.example/"));
        assert_eq!(seen.header("x-webhook-timestamp"), "1763507100");
    }
    let stopped = world.receiver.seen()[2].json();
    assert_eq!(
        stopped,
        json!({
            "event_id": format!("task_stopped_{task}_1763507100"),
            "event_type": "task_stopped",
            "task_detail": {
                "task_id": task, "task_title": "2 + 2", "task_url": format!("https://manus.im/app/{task}"),
                "message": "4", "attachments": [], "stop_reason": "finish",
            },
        })
    );
    assert_eq!(task.len(), 22);
}

#[tokio::test]
async fn a_question_is_answered_with_a_message_and_the_task_stops_again_under_another_id() {
    let world = World::registered().await;
    let (_, made) = world.post("/v2/task.create", json!({"message": {"content": "please ask"}})).await;
    let task = made["task_id"].as_str().unwrap();
    world.manus.finish_all().await;
    let asked = world.receiver.seen().last().unwrap().json();
    assert_eq!(asked["task_detail"]["stop_reason"], "ask");
    assert_eq!(asked["task_detail"]["question_expectation"]["options"], json!(["A", "B"]));
    let (_, listed) = world.get(&format!("/v2/task.listMessages?task_id={task}&limit=1")).await;
    let update = &listed["messages"][0]["status_update"];
    assert_eq!(update["agent_status"], "waiting");
    assert_eq!(update["status_detail"]["waiting_for_event_type"], "messageAskUser");
    let event_id = &update["status_detail"]["waiting_for_event_id"];
    let (status, refused) = world.post("/v2/task.confirmAction", json!({"task_id": task, "event_id": event_id})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("invalid_argument")));

    let (status, _) = world.post("/v2/task.sendMessage", json!({"task_id": task, "message": {"content": "A"}})).await;
    assert_eq!(status, 200);
    world.manus.finish_all().await;
    let finished = world.receiver.seen().last().unwrap().json();
    assert_eq!(finished["task_detail"]["stop_reason"], "finish");
    assert_ne!(finished["event_id"], asked["event_id"]);
}

#[tokio::test]
async fn v1_goes_on_with_a_task_by_its_id() {
    let world = World::registered().await;
    let ask = json!({"prompt": "ask", "agentProfile": "manus-1.6"});
    let task = world.post("/v1/tasks", ask).await.1["task_id"].as_str().unwrap().to_owned();
    world.manus.finish_all().await;
    let (_, waiting) = world.get(&format!("/v1/tasks/{task}")).await;
    assert_eq!(waiting["status"], "pending");
    let (status, again) = world.post("/v1/tasks", json!({"prompt": "B", "agentProfile": "lite", "taskId": task})).await;
    assert_eq!((status, again["task_id"].as_str()), (200, Some(task.as_str())));
    world.manus.finish_all().await;
    let (_, done) = world.get(&format!("/v1/tasks/{task}")).await;
    assert_eq!(done["status"], "completed");
    let said: Vec<_> = done["output"].as_array().unwrap().iter().map(|message| &message["content"][0]["text"]).collect();
    let question = "Which one shall it be, A or B?";
    assert_eq!(said, ["ask", "Step 1 of 2", "Step 2 of 2", question, "B", "Thank you: done."]);
}

#[tokio::test]
async fn an_action_waits_until_it_is_accepted() {
    let world = World::registered().await;
    let task = world.manus.create_task(KEY, Plan::confirm("deployAction", "Publish?"));
    world.manus.finish_all().await;
    assert_eq!(world.receiver.seen()[1].json()["task_detail"]["stop_reason"], "ask");
    let (_, listed) = world.get(&format!("/v2/task.listMessages?task_id={task}")).await;
    let detail = &listed["messages"][0]["status_update"]["status_detail"];
    assert_eq!(detail["waiting_for_event_type"], "deployAction");
    assert_eq!(detail["confirm_input_schema"]["type"], "object");
    let confirm = async |event: &Value, accept: bool| {
        world.post("/v2/task.confirmAction", json!({"task_id": task, "event_id": event, "input": {"accept": accept}})).await
    };
    assert_eq!(confirm(&json!("another"), true).await.0, 400);
    let event = &detail["waiting_for_event_id"];
    assert_eq!(confirm(event, false).await.1["confirmed"], false);
    assert!(world.manus.step(&task).await.is_none());
    assert_eq!(confirm(event, true).await.1["confirmed"], true);
    world.manus.finish_all().await;
    assert_eq!(world.receiver.members("event_type"), ["task_created", "task_stopped", "task_stopped"]);
    assert_eq!(confirm(event, true).await.0, 400);
}

#[tokio::test]
async fn failures_and_stops_are_not_told() {
    let world = World::registered().await;
    let failed = world.manus.create_task(KEY, Plan::fail("no browser"));
    let stopped = world.manus.create_task(KEY, Plan::hang());
    let by_hand = world.manus.create_task(KEY, Plan::new([Turn::new(End::UserStop)]));
    world.manus.finish_all().await;
    assert_eq!(world.post("/v2/task.stop", json!({"task_id": stopped})).await.0, 200);
    assert_eq!(world.receiver.members("event_type"), ["task_created"; 3]);
    let (_, v2) = world.get(&format!("/v2/task.detail?task_id={failed}")).await;
    let (_, v1) = world.get(&format!("/v1/tasks/{failed}")).await;
    assert_eq!((&v2["task"]["status"], &v1["status"], &v1["error"]), (&json!("error"), &json!("failed"), &json!("no browser")));
    for task in [stopped, by_hand] {
        let (_, listed) = world.get(&format!("/v2/task.listMessages?task_id={task}&order=asc")).await;
        let types: Vec<_> = listed["messages"].as_array().unwrap().iter().map(|entry| &entry["type"]).collect();
        assert_eq!(types, ["user_message", "status_update", "user_stop", "status_update"]);
    }
}

#[tokio::test]
async fn background_jobs_are_seen_to_run_for_as_many_looks_as_planned() {
    let world = World::new().await;
    let task = world.manus.create_task(KEY, Plan::finish("x").with_background(2));
    let look =
        async || world.get(&format!("/v2/task.detail?task_id={task}")).await.1["task"]["has_running_background_jobs"].clone();
    assert_eq!(look().await, false);
    world.manus.finish_all().await;
    assert_eq!([look().await, look().await, look().await], [true, true, false]);
}

#[tokio::test]
async fn files_stand_behind_links_that_differ_and_expire() {
    let world = World::registered().await;
    let plan =
        Plan::finish("see the file").with_file("a b/ü.md", "text/markdown", "hello").with_structured_output(&json!({"n": 1}));
    let task = world.manus.create_task(KEY, plan);
    world.manus.finish_all().await;
    let told = world.receiver.seen()[1].json();
    let attachment = &told["task_detail"]["attachments"][0];
    assert_eq!((&attachment["file_name"], &attachment["size_bytes"]), (&json!("a b/ü.md"), &json!(5)));
    assert_eq!(told["task_detail"]["structured_output"], json!({"success": true, "value": {"n": 1}, "error": null}));
    let (_, v2) = world.get(&format!("/v2/task.listMessages?task_id={task}&order=asc")).await;
    let shown = &v2["messages"][2]["assistant_message"]["attachments"][0];
    let (_, v1) = world.get(&format!("/v1/tasks/{task}")).await;
    let output = &v1["output"][1]["content"][1];
    assert_eq!((&output["type"], &output["mimeType"]), (&json!("output_file"), &json!("text/markdown")));
    let links = [&attachment["url"], &shown["url"], &output["fileUrl"]].map(|link| link.as_str().unwrap());
    assert_ne!(links[0], links[1]);
    assert_eq!(links[0].split('?').next(), links[1].split('?').next());
    for link in links {
        let answer = world.send(world.client.get(link)).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"hello"[..]), "{link}");
        assert_eq!(answer.header("content-type"), Some("text/markdown"));
    }
    let forged = links[0].replace("Expires=1", "Expires=2");
    assert_eq!(world.send(world.client.get(forged)).await.status, 403);
    world.clock.advance(jiff::SignedDuration::from_secs(3601));
    assert_eq!(world.send(world.client.get(links[0])).await.status, 403);
}

#[tokio::test]
async fn by_the_clock_steps_come_when_they_are_due_and_in_order() {
    let world = World::with(|options| options.drive = Drive::Clock).await;
    world.manus.register(KEY, &world.receiver.url);
    world.manus.idle().await;
    let mut happenings = world.manus.happenings();
    let steps = ["a", "b"];
    let task = world.manus.create_task(KEY, Plan::finish("x").with_progress(steps).paced(Duration::from_secs(1)));
    for expected in ["task_created", "task_progress", "task_progress", "task_stopped"] {
        world.clock.advance(jiff::SignedDuration::from_secs(1));
        let Ok(Happening::Sent(delivery)) = happenings.recv().await else { panic!("nothing was sent") };
        assert_eq!((delivery.event_type.as_str(), delivery.task_id.as_str()), (expected, task.as_str()));
    }
    world.manus.idle().await;

    // With no delay at all, many tasks: each in its own order.
    world.receiver.forget();
    for _ in 0..20 {
        let _ = world.manus.create_task(KEY, Plan::finish("x").with_progress(steps));
    }
    world.manus.idle().await;
    let mut by_task: std::collections::HashMap<String, Vec<String>> = std::collections::HashMap::new();
    for event in world.receiver.seen().iter().map(Seen::json) {
        let detail = event.get("task_detail").unwrap_or(&event["progress_detail"]);
        let kind = event["event_type"].as_str().unwrap().to_owned();
        by_task.entry(detail["task_id"].as_str().unwrap().to_owned()).or_default().push(kind);
    }
    assert_eq!(by_task.len(), 20);
    assert!(by_task.values().all(|types| types == &["task_created", "task_progress", "task_progress", "task_stopped"]));
    world.stop.cancel();
    world.manus.stopped().await;
}

#[tokio::test]
async fn nothing_is_sent_again_unless_asked_for() {
    for (retries, attempts) in [(0, vec![1, 1]), (2, vec![1, 2, 3, 1, 2, 3])] {
        let world = World::with(|options| options.retries = retries).await;
        world.manus.register(KEY, &world.receiver.url);
        world.receiver.answer(503);
        let _ = world.manus.create_task(KEY, Plan::finish("x"));
        let last = world.manus.finish_all().await;
        assert!(last.iter().all(|delivery| delivery.status == Some(503) && !delivery.delivered()));
        assert_eq!(world.manus.deliveries().iter().map(|delivery| delivery.attempt).collect::<Vec<_>>(), attempts);
    }
}

#[tokio::test]
async fn a_new_key_signs_from_then_on() {
    let world = World::registered().await;
    let old = world.manus.public_key_pem();
    world.manus.rotate_key();
    world.manus.emit(KEY, json!({"event_id": "e", "event_type": "brand_new"})).await;
    let seen = &world.receiver.seen()[0];
    assert!(world.genuine(seen, &world.receiver.url));
    assert!(!genuine(&old, seen, &world.receiver.url));
    let (_, answer) = world.get("/v2/webhook.publicKey").await;
    assert_eq!(answer["public_key"], world.manus.public_key_pem());
    assert_eq!(world.get("/v1/webhook/public_key").await.1["public_key"], answer["public_key"]);
}

#[tokio::test]
async fn a_test_may_send_its_own_genuine_request() {
    let world = World::new().await;
    let body = bytes::Bytes::from_static(b"not even JSON");
    let headers = world.manus.sign("https://hooks.example.com/x", &body, 1_763_507_100);
    let seen = Seen { target: String::new(), headers, body };
    assert!(world.genuine(&seen, "https://hooks.example.com/x"));
    let now: Timestamp = world.clock.now();
    assert_eq!(now.as_second(), 1_763_507_100);
}
