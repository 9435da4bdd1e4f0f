//! The harness itself: what it says it does, it does.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use taskhook::app::Error;
use taskhook::simulator::manus::Plan;
use taskhook::store::model::JobKind;

use super::*;

/// A program whose events all go to `destination`, believed from anyone, and one of them received.
async fn with_one_event(destination: &str) -> Harness {
    let open = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n[[routes]]\nto = [\"crm\"]\n";
    let harness = Harness::with(&format!("{open}{destination}")).await;
    let event =
        json!({"event_id": "e1", "event_type": "task_stopped", "task_detail": {"task_id": "t1", "stop_reason": "finish"}});
    assert_eq!(status(&send(harness.post("/webhooks/open").body(event.to_string())).await), 200);
    harness
}

/// How the attempts at the one delivery ended.
async fn outcomes(harness: &Harness) -> Vec<String> {
    let delivery = harness.list("deliveries").await.remove(0);
    let attempts = delivery["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
#[should_panic(expected = "the test leaves work behind")]
async fn work_left_behind_fails_a_test() {
    let crm = Recorder::start().await;
    with_one_event(&crm.section("crm", "")).await;
}

#[tokio::test]
async fn a_whole_task_goes_through() {
    let crm = Recorder::start().await;
    let toml = format!("{}[[routes]]\nto = [\"crm\"]\n", crm.section("crm", ""));
    let mut harness = Setup::new().config(&toml).simulator(|options| options.limits = None).start().await;
    harness.manus.register(KEY, &harness.url("/webhooks/manus"));
    let made = harness.admin_post("/api/v1/tasks", &json!({"source": "manus", "prompt": "What is 2 + 2?"})).await;
    assert_eq!(status(&made), 201);
    let _ = harness.manus.create_task(KEY, Plan::finish("5"));
    assert!(harness.manus.finish_all().await.iter().all(taskhook::simulator::manus::Delivery::delivered));
    harness.drain().await;
    let results: Vec<_> = crm.bodies().into_iter().filter(|body| body["type"] == "task_stopped").collect();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|body| body["task"]["complete"] == true), "{results:?}");
}

#[tokio::test]
async fn what_was_on_its_way_at_a_crash_goes_again() {
    let crm = Recorder::start().await;
    let mut harness = with_one_event(&crm.section("crm", "")).await;
    crm.answer(Reply::Never);
    harness.work_until(crm.received(1)).await;
    harness.crash();
    crm.answer(Reply::Status(204));
    harness.start().await;
    harness.drain().await;
    assert_eq!(outcomes(&harness).await, ["unknown", "delivered"]);
    let [first, second] = crm.take().try_into().unwrap();
    assert_eq!((first.header("webhook-id"), &first.body), (second.header("webhook-id"), &second.body));
    assert_eq!(second.path, "/hook");
    assert_eq!(crm.recorded().len(), 0);
}

#[tokio::test]
async fn destinations_answer_as_they_are_told() {
    let crm = Recorder::start().await;
    let mut harness = with_one_event(&crm.section("crm", "")).await;
    crm.answer_next([Reply::Status(500), Reply::With(429, vec![("retry-after", "7".into())]), Reply::Cut]);
    harness.drain().await;
    for _ in 0..3 {
        harness.advance(Duration::from_mins(5)).await;
    }
    assert_eq!(outcomes(&harness).await, ["failed", "failed", "unknown", "delivered"]);
}

#[tokio::test]
async fn nobody_listens_at_a_closed_address() {
    let (_socket, address) = closed_address();
    let mut harness = with_one_event(&format!("[destinations.crm]\nkind = \"http\"\nurl = \"http://{address}/\"\n")).await;
    harness.drain().await;
    assert_eq!((outcomes(&harness).await, harness.jobs(JobKind::Deliver).await), (vec!["failed".to_owned()], 1));
    harness.expect_leftover();
}

#[tokio::test]
async fn a_program_that_must_not_start_says_why() {
    let setup = Setup::new().config("[sources.manus]\npublic_key_file = \"{folder}/missing.pem\"\n");
    let error = refusal(setup).await;
    assert!(matches!(error, Error::Source { .. }) && error.to_string().contains("missing.pem"), "{error}");
}

#[tokio::test]
async fn ports_outlive_a_restart() {
    let mut harness = Harness::new().await;
    for _ in 0..3 {
        harness.crash();
        harness.start().await;
        assert_eq!(status(&send(harness.request(Method::GET, "/healthz")).await), 200);
        harness.restart().await;
        assert_eq!(status(&send(harness.request(Method::GET, "/healthz")).await), 200);
    }
}
