//! Nothing foreign: what proves a task ours, and what becomes of one that nothing proves.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorder, json, status};
use crate::work::{OTHER, calls, created, run, setup, start, stopped, types};

const NOT_VISIBLE: &str = "not visible to this API key, attempt 1, quarantined at 2026-01-15T12:15:00.000Z";

async fn proof(harness: &Harness, task_id: &str) -> Value {
    harness.admin(&format!("/api/v1/tasks/manus/{task_id}")).await["proof"].take()
}

/// The states of all events, newest first.
async fn states(harness: &Harness) -> Vec<String> {
    let events = harness.list("events").await;
    events.iter().map(|event| event["state"].as_str().expect("a state").to_owned()).collect()
}

#[tokio::test]
async fn one_list_proves_many_tasks() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let tasks: Vec<_> = (0..20).map(|_| harness.manus.create_task(KEY, Plan::finish("Done."))).collect();
    harness.manus.finish_all().await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 40);
    assert_eq!((calls(&harness, "task.list?"), calls(&harness, "task.detail")), (1, 20));
    assert_eq!(proof(&harness, &tasks[0]).await, "listed");
}

#[tokio::test]
async fn a_task_that_was_created_here_needs_no_proof() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let answer = harness.admin_post("/api/v1/tasks", &json!({"prompt": "What is 2 + 2?"})).await;
    let created = json(&answer);
    assert_eq!((status(&answer), &created["source"]), (201, &json!("manus")), "{created}");
    let task = created["task_id"].as_str().expect("an id").to_owned();
    harness.manus.finish_all().await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_progress", "task_progress", "task_stopped"]);
    assert_eq!(calls(&harness, "task.list?"), 0);
    assert_eq!(proof(&harness, &task).await, "created");
}

#[tokio::test]
async fn a_private_task_that_our_key_reads_is_ours_though_no_list_shows_it() {
    for (version, how) in [("v2", "private"), ("v1", "readable")] {
        let crm = Recorder::start().await;
        let version = format!("[sources.manus]\napi_version = \"{version}\"");
        let mut harness = start(setup(&crm, "").config(&version)).await;
        let task = harness.manus.create_task(KEY, Plan { hidden: true, ..Plan::finish("Done.") });
        run(&harness, &task).await;
        harness.drain().await;
        assert_eq!((types(&crm).len(), proof(&harness, &task).await), (2, json!(how)));
    }
}

#[tokio::test]
async fn a_foreign_task_is_shown_and_quarantined_and_nothing_of_it_goes_out() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(OTHER, Plan::finish("Not yours."));
    run(&harness, &task).await;
    harness.drain().await;
    let newest = harness.list("events").await.remove(0);
    let event = harness.event(newest["id"].as_str().expect("an id")).await;
    assert_eq!((&event["state"], &event["work"]["reasons"][0]), (&json!("proving"), &json!(NOT_VISIBLE)));
    assert_eq!(harness.admin("/readyz").await["status"], "ready", "a stranger's event says nothing about our source");

    for _ in 0..14 {
        harness.advance(Duration::from_mins(1)).await;
    }
    harness.advance(Duration::from_secs(59)).await;
    assert_eq!(states(&harness).await, ["proving", "proving"]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(states(&harness).await, ["quarantined", "quarantined"]);
    let event = harness.event(newest["id"].as_str().expect("an id")).await;
    assert_eq!(event["reason"], "the task is not visible to the API key of `manus`, so nothing proves that it is ours");
    let probes = calls(&harness, "task.detail");
    assert!(probes <= 3, "{probes} probes");

    // What comes later needs no second trial.
    let later = harness.deliver(&stopped("later", &task)).await;
    harness.drain().await;
    assert_eq!(harness.event(json(&later)["id"].as_str().expect("an id")).await["state"], "quarantined");
    assert_eq!((calls(&harness, "task.detail"), crm.recorded().len()), (probes, 0));
}

#[tokio::test]
async fn a_release_lets_exactly_that_event_go() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let one = harness.accept(&created("e1", "foreign")).await;
    let two = harness.accept(&stopped("e2", "foreign")).await;
    harness.drain().await;
    let early = harness.admin_post(&format!("/api/v1/events/{two}/release"), &json!({})).await;
    assert_eq!(status(&early), 409, "it is not in quarantine yet");
    harness.advance(Duration::from_mins(15)).await;
    let answer = harness.admin_post(&format!("/api/v1/events/{two}/release"), &json!({})).await;
    assert_eq!(status(&answer), 200);
    harness.drain().await;
    let bodies = crm.bodies();
    assert_eq!((bodies.len(), &bodies[0]["id"]), (1, &json!(two)));
    assert_eq!(
        (&bodies[0]["task"]["complete"], &bodies[0]["event"]["message"]),
        (&json!(false), &json!("As the webhook tells it."))
    );
    assert_eq!(harness.event(&one).await["state"], "quarantined");
    assert_eq!(proof(&harness, "foreign").await, Value::Null, "a release proves nothing of what comes later");
}

#[tokio::test]
async fn a_task_that_another_account_shares_is_no_proof() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(OTHER, Plan::finish("For all to see.").visible_to("public"));
    run(&harness, &task).await;
    harness.drain().await;
    assert_eq!(states(&harness).await, ["proving", "proving"]);
    harness.advance(Duration::from_mins(15)).await;
    assert_eq!((states(&harness).await, crm.recorded().len()), (vec!["quarantined".to_owned(); 2], 0));
    let reason = harness.list("events").await[0]["reason"].clone();
    assert!(reason.as_str().expect("a reason").contains("sources.manus.ownership = \"visible\""), "{reason}");
}

#[tokio::test]
async fn what_is_shared_counts_as_ours_where_the_configuration_says_so() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").config("[sources.manus]\nownership = \"visible\"")).await;
    let task = harness.manus.create_task(OTHER, Plan::finish("For all to see.").visible_to("public"));
    run(&harness, &task).await;
    harness.drain().await;
    assert_eq!((types(&crm).len(), proof(&harness, &task).await), (2, json!("visible")));
}

#[tokio::test]
async fn a_proof_is_kept_over_a_restart_and_over_the_deletion_of_the_task() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    harness.manus.step(&task).await;
    harness.drain().await;
    harness.restart().await;
    harness.manus.step(&task).await;
    harness.manus.delete_task(&task);
    harness.drain().await;
    assert_eq!((types(&crm), calls(&harness, "task.list?")), (vec!["task_created".to_owned(), "task_stopped".to_owned()], 1));
}

#[tokio::test]
async fn a_task_that_appears_in_the_list_late_goes_out_with_all_its_events() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    // Our key cannot see it at first: as if the provider's list lagged behind its webhooks.
    let hidden = taskhook::simulator::manus::ApiFault::on(
        "task.list",
        taskhook::simulator::Times::Next(2),
        taskhook::simulator::manus::WrongAnswer::Refuse { status: 404, retry_after: None },
    );
    harness.manus.set_faults(taskhook::simulator::manus::Faults { api: vec![hidden], ..Default::default() });
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    run(&harness, &task).await;
    harness.drain().await;
    for _ in 0..3 {
        harness.advance(Duration::from_secs(30)).await;
    }
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
}
