//! Receiving, from outside.

use serde_json::json;

use crate::harness::Harness;

fn stopped(event_id: &str, task_id: &str) -> serde_json::Value {
    json!({"event_id": event_id, "event_type": "task_stopped", "task_detail": {"task_id": task_id, "task_title": "T",
        "task_url": "https://manus.im/app/t", "message": "Done", "stop_reason": "finish"}})
}

#[tokio::test]
async fn an_event_is_kept_over_a_crash() {
    let mut harness = Harness::new().await;
    let id = harness.accept(&stopped("e1", "t1")).await;
    harness.crash();
    harness.start().await;
    assert_eq!(harness.event(&id).await["state"], "proving");
    let again = harness.deliver(&stopped("e1", "t1")).await;
    assert_eq!(crate::harness::json(&again), json!({"status": "duplicate", "id": id}));
    harness.expect_leftover();
}
