//! Work survives: whatever ends the program, the next start goes on. And what matches nothing is kept.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorder, Reply, json, status};
use crate::work::{calls, came, run, setup, start, stopped, types};

async fn offered(harness: &Harness) -> String {
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    run(harness, &task).await;
    task
}

/// Outcome and detail of every attempt of the oldest delivery.
async fn attempts(harness: &Harness) -> Vec<(Value, Value)> {
    let oldest = harness.list("deliveries").await.pop().expect("a delivery");
    let attempts = oldest["attempts"].as_array().expect("attempts").clone();
    attempts.into_iter().map(|mut attempt| (attempt["outcome"].take(), attempt["detail"].take())).collect()
}

#[tokio::test]
async fn a_delivery_in_flight_at_a_crash_is_of_unknown_outcome_and_sent_once_more() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer(Reply::Never);
    offered(&harness).await;
    harness.work_until(crm.received(1)).await;
    harness.crash();
    crm.answer(Reply::Status(200));
    harness.start().await;
    let expected = (json!("unknown"), json!("taskhook ended before the answer came"));
    assert_eq!(attempts(&harness).await, std::slice::from_ref(&expected));
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_created", "task_stopped"]);
    assert_eq!(attempts(&harness).await, [expected, (json!("delivered"), json!("200 OK"))]);
    let sent = crm.recorded();
    assert_eq!((sent[0].header("webhook-id"), &sent[0].body), (sent[1].header("webhook-id"), &sent[1].body));
    harness.advance(Duration::from_hours(1)).await;
    assert_eq!(crm.recorded().len(), 3);
}

#[tokio::test]
async fn a_delivery_in_flight_at_a_crash_is_held_where_the_configuration_says_so() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "on_unknown = \"hold\"")).await;
    crm.answer_next([Reply::Never]);
    offered(&harness).await;
    harness.work_until(crm.received(1)).await;
    harness.crash();
    harness.start().await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
    assert_eq!(attempts(&harness).await.len(), 1, "what was not sent is no attempt");
    let dead = harness.list("deliveries?state=dead").await;
    assert!(dead[0]["reason"].as_str().expect("a reason").starts_with("held: "), "{dead:?}");
}

#[tokio::test]
async fn events_that_were_kept_before_a_crash_are_all_worked_on_after_it() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    for _ in 0..5 {
        offered(&harness).await;
    }
    harness.crash();
    harness.start().await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 10);
}

#[tokio::test]
async fn a_crash_at_any_call_of_the_provider_loses_nothing() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    for call in ["task.list?", "task.detail", "task.listMessages"] {
        let before = calls(&harness, call);
        crm.take();
        offered(&harness).await;
        let manus = harness.manus.clone();
        let mut happenings = manus.happenings();
        let called = async {
            while crate::work::calls_of(&manus, call) == before {
                happenings.recv().await.expect("the simulator runs");
            }
        };
        harness.work_until(called).await;
        harness.crash();
        harness.start().await;
        harness.drain().await;
        // What was on its way at that moment comes again, under its id.
        assert_eq!(came(&crm), ["task_created", "task_stopped"], "{call}");
        assert_eq!(crm.bodies().last().expect("a stop")["task"]["complete"], true, "{call}");
    }
}

#[tokio::test]
async fn a_stop_in_order_lets_what_is_in_hand_end() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    for _ in 0..30 {
        let _ = harness.manus.create_task(KEY, Plan::finish("Done."));
    }
    harness.manus.finish_all().await;
    harness.run_worker(Duration::from_secs(8), crm.received(7)).await;
    harness.restart().await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 60);
    let rows = harness.list("deliveries?limit=100").await;
    let outcomes: Vec<_> = rows.iter().map(|row| row["attempts"].as_array().expect("attempts").clone()).collect();
    assert!(outcomes.iter().all(|attempts| attempts.len() == 1 && attempts[0]["outcome"] == "delivered"), "{outcomes:?}");
}

#[tokio::test]
async fn what_cannot_end_in_time_at_a_stop_is_handed_back() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer_next([Reply::Never]);
    offered(&harness).await;
    harness.run_worker(Duration::ZERO, crm.received(1)).await;
    assert_eq!(attempts(&harness).await, [(json!("unknown"), json!("taskhook was stopped before the answer came"))]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(types(&crm), ["task_created", "task_created", "task_stopped"]);
}

#[tokio::test]
async fn a_when_that_fails_on_an_event_makes_a_dead_letter() {
    let crm = Recorder::start().await;
    let routes = "[[routes]]\nto = [\"crm\"]\nwhen = 'event.payload.task_detail.message + 1 > 0'\n";
    let mut harness = start(setup(&crm, "").config(routes)).await;
    let task = harness.manus.create_task(KEY, Plan::hang());
    harness.manus.step(&task).await;
    harness.accept(&stopped("e1", &task)).await;
    harness.drain().await;
    harness.advance(Duration::from_mins(2)).await;
    let dead = harness.list("events?state=dead").await;
    let stop = dead.iter().find(|event| event["type"] == "task_stopped").expect("the stop is dead");
    assert!(stop["reason"].as_str().expect("a reason").starts_with("route_error: route `#1`: `when` fails"), "{stop}");
    assert_eq!(crm.recorded().len(), 0);
    assert_eq!(harness.admin("/api/v1/stats").await["dead"], dead.len());
}

#[tokio::test]
async fn an_event_that_matches_no_route_is_kept_and_shown() {
    let crm = Recorder::start().await;
    let routes = "[[routes]]\nto = [\"crm\"]\nwhen = 'event.stop_reason == \"ask\"'\n";
    let mut harness = start(setup(&crm, "").config(routes)).await;
    offered(&harness).await;
    harness.drain().await;
    let events = harness.list("events").await;
    assert!(events.len() == 2 && events.iter().all(|event| event["state"] == "done"), "{events:?}");
    assert_eq!(harness.event(events[0]["id"].as_str().expect("an id")).await["deliveries"], json!([]));
}

#[tokio::test]
async fn an_unknown_type_goes_only_where_a_route_says_unknown() {
    let (crm, odd) = (Recorder::start().await, Recorder::start().await);
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::hang());
    let event = |id: &str| json!({"event_id": id, "event_type": "task_paused", "task_detail": {"task_id": task}});
    let kept = harness.accept(&event("e1")).await;
    harness.drain().await;
    assert_eq!((&harness.event(&kept).await["state"], crm.recorded().len()), (&json!("kept"), 0));

    let routes = "[[routes]]\nto = [\"crm\"]\n[[routes]]\nto = [\"odd\"]\nunknown = true\n";
    harness.reconfigure(&format!("{}{routes}", odd.section("odd", "")));
    harness.restart().await;
    harness.accept(&event("e2")).await;
    harness.drain().await;
    let bodies = odd.bodies();
    assert_eq!((bodies.len(), crm.recorded().len()), (1, 0));
    assert_eq!((&bodies[0]["type"], &bodies[0]["event"]["provider_type"]), (&json!("unknown"), &json!("task_paused")));
    assert_eq!(bodies[0]["event"]["payload"], event("e2"));
}

#[tokio::test]
async fn a_collision_is_an_event_of_its_own_that_names_the_first() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    let first = harness.accept(&stopped("e1", &task)).await;
    let mut other = stopped("e1", &task);
    other["task_detail"]["message"] = json!("Something else.");
    let second = harness.accept(&other).await;
    let again = harness.deliver(&other).await;
    assert_eq!((status(&again), json(&again)), (200, json!({"status": "duplicate", "id": second})));
    harness.drain().await;
    // Neither is merged with the other. The task has no stop for either: that is waited for.
    assert_eq!(crm.recorded().len(), 0);
    harness.advance(Duration::from_mins(2)).await;
    let collisions: Vec<_> = crm.bodies().into_iter().map(|mut body| body["collision_of"].take()).collect();
    assert_eq!(collisions, [Value::Null, json!(first)]);
    assert_eq!(harness.event(&second).await["collision_of"], json!(first));
}

#[tokio::test]
async fn deliveries_to_a_destination_that_is_no_longer_configured_wait_for_it() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer(Reply::Status(503));
    offered(&harness).await;
    harness.drain().await;
    harness.unconfigure("destinations", "crm");
    harness.restart().await;
    crm.take();
    crm.answer(Reply::Status(200));
    harness.advance(Duration::from_hours(2)).await;
    assert_eq!((crm.recorded().len(), harness.list("deliveries?state=pending").await.len()), (0, 2));
    harness.reconfigure(&crm.section("crm", ""));
    harness.restart().await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
}
