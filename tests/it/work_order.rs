//! Deliveries of a task go out in the order in which its events were accepted, and nothing holds up what it has no business with.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorder, Reply, closed_address};
use crate::work::{run, setup, start, types};

/// Says no until an hour has passed.
fn in_an_hour() -> Reply {
    Reply::With(503, vec![("retry-after", "3600".to_owned())])
}

async fn sent(harness: &mut Harness, plan: Plan) -> String {
    let task = harness.manus.create_task(KEY, plan);
    run(harness, &task).await;
    harness.drain().await;
    task
}

/// What `crm` got, as pairs of an event's type and whether it is marked.
fn marks(crm: &Recorder) -> Vec<(String, bool)> {
    let marked = |body: &Value| body["out_of_order"].as_bool().expect("a mark");
    types(crm).into_iter().zip(crm.bodies().iter().map(marked)).collect()
}

#[tokio::test]
async fn events_of_a_task_go_out_in_order_of_acceptance() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    sent(&mut harness, Plan::ask("Which one?").with_progress(["One", "Two", "Three"])).await;
    let progress = crm.bodies().iter().map(|body| body["event"]["message"].clone()).collect::<Vec<_>>();
    assert_eq!(types(&crm), ["task_created", "task_progress", "task_progress", "task_progress", "task_stopped"]);
    assert_eq!(progress[1..], [json!("One"), json!("Two"), json!("Three"), json!("Which one?")]);
}

#[tokio::test]
async fn a_stop_waits_five_minutes_for_what_is_before_it_and_then_goes_marked() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer_next([in_an_hour()]);
    sent(&mut harness, Plan::finish("Done.").with_progress(["One"])).await;
    harness.advance(Duration::from_secs(299)).await;
    assert_eq!(types(&crm), ["task_created"]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(marks(&crm)[1..], [("task_stopped".to_owned(), true)]);
    // What came in its order is not marked, and nothing comes twice.
    harness.advance(Duration::from_hours(1)).await;
    assert_eq!(marks(&crm)[2..], [("task_created".to_owned(), false), ("task_progress".to_owned(), false)]);
    let rows = harness.list("deliveries").await;
    assert_eq!(rows.iter().filter(|row| row["out_of_order"] == true).count(), 1);
}

#[tokio::test]
async fn a_dead_letter_frees_the_lane() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer_next([Reply::Status(400)]);
    sent(&mut harness, Plan::finish("Done.").with_progress(["One"])).await;
    let unmarked = |kind: &str| (kind.to_owned(), false);
    assert_eq!(marks(&crm), [unmarked("task_created"), unmarked("task_progress"), unmarked("task_stopped")]);
    assert_eq!(harness.list("deliveries?state=dead").await.len(), 1);
}

#[tokio::test]
async fn one_task_does_not_wait_for_another() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer_next([in_an_hour()]);
    let stuck = sent(&mut harness, Plan::finish("Stuck.")).await;
    let other = sent(&mut harness, Plan::finish("Free.")).await;
    let tasks: Vec<_> = crm.bodies().iter().map(|body| body["event"]["task_id"].clone()).collect();
    assert_eq!(tasks, [json!(stuck), json!(other), json!(other)]);
    harness.expect_leftover();
}

#[tokio::test]
async fn one_destination_does_not_wait_for_another_that_is_down() {
    let crm = Recorder::start().await;
    let (_held, nobody) = closed_address();
    let down = format!("[destinations.down]\nkind = \"http\"\nurl = \"http://{nobody}/hook\"\n");
    let routes = "[[routes]]\nto = [\"down\", \"crm\"]\n";
    let mut harness = start(setup(&crm, "").config(&down).config(routes)).await;
    for _ in 0..20 {
        sent(&mut harness, Plan::finish("Done.")).await;
    }
    assert_eq!(crm.recorded().len(), 40);
    let pending = harness.list("deliveries?state=pending").await;
    assert!(pending.iter().all(|row| row["destination"] == "down"), "{pending:?}");
    assert_eq!(pending.len(), 40);
    harness.expect_leftover();
}

#[tokio::test]
async fn one_destination_does_not_wait_for_another_that_never_answers() {
    let (crm, mute) = (Recorder::start().await, Recorder::start().await);
    mute.answer(Reply::Never);
    let routes = "[[routes]]\nto = [\"mute\", \"crm\"]\n";
    let mut harness = start(setup(&crm, "").config(&mute.section("mute", "concurrency = 2")).config(routes)).await;
    for _ in 0..5 {
        let _ = harness.manus.create_task(KEY, Plan::finish("Done."));
    }
    harness.manus.finish_all().await;
    harness.work_until(crm.received(10)).await;
    assert!(mute.recorded().len() <= 2, "{} at once", mute.recorded().len());
    harness.expect_leftover();
}

#[tokio::test]
async fn two_stops_of_one_task_are_two_deliveries() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = sent(&mut harness, Plan::ask("Which one?")).await;
    let answer = reply(&harness, &task).await;
    assert_eq!(answer, 200);
    run(&harness, &task).await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_stopped", "task_stopped"]);
    let bodies = crm.bodies();
    let states: Vec<_> =
        bodies[1..].iter().map(|body| (body["event"]["stop_reason"].clone(), body["task"]["state"].clone())).collect();
    assert_eq!(states, [(json!("ask"), json!("waiting")), (json!("finish"), json!("finished"))]);
    let ids: std::collections::BTreeSet<_> = crm.recorded().iter().map(|sent| sent.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 3);
}

/// Answers the task's question at the provider; the status.
async fn reply(harness: &Harness, task_id: &str) -> u16 {
    let client = taskhook::http::client(Duration::from_secs(5));
    let body = json!({"task_id": task_id, "message": {"content": "The first."}});
    let request =
        client.post(format!("{}/v2/task.sendMessage", harness.manus.base_url())).header("x-manus-api-key", KEY).json(&body);
    crate::harness::status(&crate::harness::send(request).await)
}
