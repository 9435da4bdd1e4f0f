//! What comes in is kept as it came, whatever it is, and credentials are not.

use taskhook::event::body_id;

use super::*;

#[tokio::test]
async fn what_is_not_understood_is_kept_as_unknown() {
    let mut harness = Harness::new().await;
    for body in [
        "",
        "not json",
        "\"text\"",
        "[]",
        "null",
        "{",
        "{}",
        r#"{"event_type": "task_paused", "event_id": "e1", "task_detail": {"task_id": "t1"}}"#,
        r#"{"event_type": "task_stopped", "event_id": "e2"}"#,
        r#"{"event_type": 7, "event_id": "e3", "task_detail": {"task_id": "t1"}}"#,
        r#"{"event_type": "task_stopped", "event_id": "e4", "task_detail": {"task_id": null}}"#,
        r#"{"event_type": "task_stopped", "event_id": "e5", "task_detail": []}"#,
        &"[".repeat(100_000),
    ] {
        let answer = send(harness.signed("/webhooks/manus", body)).await;
        assert_eq!((status(&answer), &json(&answer)["status"]), (200, &json!("accepted")), "{body}");
        let event = harness.list("events").await.remove(0);
        assert_eq!((&event["type"], &event["state"]), (&json!("unknown"), &json!("kept")), "{body}");
        let kept = harness.event(event["id"].as_str().unwrap()).await;
        assert_eq!(kept["payload"], serde_json::from_str(body).unwrap_or_else(|_| json!(body)));
    }
    harness.drain().await;
    assert_eq!(harness.log.lines(), [""; 0]);
    assert!(harness.calls().iter().all(|path| path.contains("ublic")), "nothing but the key is asked for");
    let known = harness.list("events?type=unknown&limit=500").await;
    let word = |event_id: &str| known.iter().find(|event| event["event_id"] == event_id).unwrap()["provider_type"].clone();
    assert_eq!((word("e1"), word("e2"), word("e3")), (json!("task_paused"), json!("task_stopped"), json!("7")));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept() {
    let harness = Harness::new().await;
    let answer = send(harness.signed("/webhooks/manus", vec![0xff, 0x00, b'{'])).await;
    let kept = harness.event(json(&answer)["id"].as_str().unwrap()).await;
    assert_eq!((&kept["body_base64"], &kept["payload"]), (&json!("/wB7"), &json!(null)));
    let again = send(harness.signed("/webhooks/manus", vec![0xff, 0x00, b'{'])).await;
    assert_eq!(json(&again)["status"], "duplicate");
}

#[tokio::test]
async fn an_event_without_an_id_is_known_by_its_bytes() {
    let mut harness = Harness::new().await;
    for event_id in [json!(null), json!(7), json!(""), json!("  "), json!({"id": "x"})] {
        let mut event = stopped("", "t1");
        event["event_id"] = event_id;
        let id = harness.accept(&event).await;
        let kept = harness.event(&id).await;
        assert_eq!(kept["event_id"], body_id(event.to_string().as_bytes()));
        assert_eq!(json(&harness.deliver(&event).await), json!({"status": "duplicate", "id": id}));
    }
    harness.expect_leftover();
}

#[tokio::test]
async fn the_ping_of_the_registration_is_kept_and_never_worked_on() {
    let mut harness = Harness::with("[[routes]]\nto = [\"log\"]\nunknown = true\n").await;
    let sent = harness.manus.register_with_ping(crate::harness::KEY, &harness.url("/webhooks/manus")).await;
    assert_eq!(sent.status, Some(200));
    let before = harness.calls();
    harness.drain().await;
    let event = harness.list("events").await.remove(0);
    assert_eq!((&event["ping"], &event["state"], &event["task_id"]), (&json!(true), &json!("kept"), &json!("test_task_id")));
    assert_eq!((harness.log.lines().len(), harness.calls()), (0, before));
}

#[tokio::test]
async fn fields_at_the_top_and_numbers_as_text_are_read() {
    let crm = Recorder::start().await;
    let toml = format!("{OPEN}{}[[routes]]\nto = [\"crm\"]\n", crm.section("crm", ""));
    let mut harness = Harness::with(&toml).await;
    let flat = json!({"event_id": "e1", "event_type": "task_stopped", "task_id": "t1", "task_title": "T", "message": "Done",
        "stop_reason": "finish", "attachments": [{"file_name": "a.md", "url": "https://files.example.com/a.md", "size_bytes": "12"}]});
    assert_eq!(status(&send(harness.post("/webhooks/open").body(flat.to_string())).await), 200);
    harness.drain().await;
    let sent = crm.bodies().remove(0);
    assert_eq!((&sent["type"], &sent["verification"], &sent["task"]), (&json!("task_stopped"), &json!("none"), &json!(null)));
    let event = &sent["event"];
    assert_eq!((&event["task_id"], &event["title"], &event["stop_reason"]), (&json!("t1"), &json!("T"), &json!("finish")));
    assert_eq!(event["attachments"], json!([{"name": "a.md", "url": "https://files.example.com/a.md", "size_bytes": 12}]));
    assert_eq!(event["payload"], flat);
}

#[tokio::test]
async fn unsigned_test_requests_are_accepted_and_shown() {
    let mut harness = Harness::with(OPEN).await;
    for (body, kind, provider_type, task_id) in [
        (
            r#"{"event_type": "message_ended","payload": {"id": "test-task-123","status": "completed"}}"#,
            json!("unknown"),
            json!("message_ended"),
            json!(null),
        ),
        (
            r#"{"event_type":"task_stopped","event_id":"test_event_123","task_detail":{"task_id":"test_task","task_title":"Test Task","stop_reason":"finish","message":"Test complete"}}"#,
            json!("task_stopped"),
            json!("task_stopped"),
            json!("test_task"),
        ),
    ] {
        let answer = send(harness.post("/webhooks/open").header("content-type", "text/plain").body(body)).await;
        assert_eq!((status(&answer), &json(&answer)["status"]), (200, &json!("accepted")));
        harness.drain().await;
        let shown = harness.list("events").await.remove(0);
        assert_eq!((&shown["type"], &shown["provider_type"], &shown["task_id"]), (&kind, &provider_type, &task_id));
        let whole = harness.event(shown["id"].as_str().unwrap()).await;
        assert_eq!(whole["payload"], serde_json::from_str::<Value>(body).unwrap());
    }
    let lines = harness.log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("Test complete"), "{lines:?}");
}

#[tokio::test]
async fn credentials_are_not_kept() {
    let harness = Harness::with(OPEN).await;
    let mut request = harness.post("/webhooks/open").body(stopped("e1", "t1").to_string()).header("x-other", "kept");
    let names = ["authorization", "proxy-authorization", "cookie", "api_key", "x-api-key", "x-manus-api-key"];
    for name in names {
        request = request.header(name, "credential-0815");
    }
    let answer = send(request).await;
    let kept = harness.event(json(&answer)["id"].as_str().unwrap()).await;
    let headers: Vec<(String, String)> = serde_json::from_value(kept["headers"].clone()).unwrap();
    let value = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
    for name in names {
        assert_eq!(value(name), Some("[redacted]"), "{name}");
    }
    assert_eq!(value("x-other"), Some("kept"));
    assert!(!kept.to_string().contains("0815"));
    drop_leftover(harness);
}

/// Ends a test that was only about receiving.
fn drop_leftover(mut harness: Harness) {
    harness.expect_leftover();
}
