//! A provider that does not answer says nothing about whose a task is: the work waits. And strangers cannot make it wait.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, Faults, Plan, WrongAnswer};

use crate::harness::{Harness, KEY, Recorder};
use crate::work::{calls, created, every_call, pass, refuse, run, setup, start, stopped, types};

/// The reason for which the source is degraded, which `/readyz` tells with status 200.
async fn degraded(harness: &Harness) -> String {
    let ready = harness.admin("/readyz").await;
    assert_eq!((&ready["status"], &ready["reasons"][0]["part"]), (&json!("degraded"), &json!("source manus")), "{ready}");
    ready["reasons"][0]["reason"].as_str().expect("a reason").to_owned()
}

async fn waits_until_it_recovers(answer: WrongAnswer, expected: &str, hours: u64) {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    harness.manus.set_faults(every_call(answer));
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    run(&harness, &task).await;
    harness.drain().await;
    for _ in 0..hours {
        harness.advance(Duration::from_hours(1)).await;
    }
    let reason = degraded(&harness).await;
    assert!(reason.contains(expected), "{expected}: {reason}");
    let events = harness.list("events").await;
    assert!(events.iter().all(|event| event["state"] == "proving"), "{expected}: {events:?}");
    assert_eq!(crm.recorded().len(), 0, "{expected}");
    harness.manus.set_faults(Faults::default());
    harness.advance(Duration::from_mins(10)).await;
    assert_eq!(types(&crm), ["task_created", "task_stopped"], "{expected}");
    assert_eq!(crm.bodies()[1]["task"]["complete"], true);
    assert_eq!(harness.admin("/readyz").await["status"], "ready", "{expected}");
}

#[tokio::test]
async fn a_refused_key_quarantines_nothing() {
    for status in [401, 402, 403] {
        waits_until_it_recovers(refuse(status), &status.to_string(), 25).await;
    }
}

#[tokio::test]
async fn a_limit_or_an_outage_quarantines_nothing() {
    waits_until_it_recovers(WrongAnswer::Refuse { status: 429, retry_after: Some("120".to_owned()) }, "429", 25).await;
    waits_until_it_recovers(refuse(500), "500", 25).await;
    waits_until_it_recovers(refuse(503), "503", 25).await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_quarantines_nothing() {
    waits_until_it_recovers(WrongAnswer::Html, "not JSON", 25).await;
    waits_until_it_recovers(WrongAnswer::Half, "connection broke", 25).await;
    waits_until_it_recovers(WrongAnswer::Empty, "makes no sense", 25).await;
    waits_until_it_recovers(WrongAnswer::Lost, "connection broke", 25).await;
    waits_until_it_recovers(WrongAnswer::Huge, "larger", 2).await;
}

#[tokio::test]
async fn a_probe_that_is_not_answered_does_not_count_towards_quarantine() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let detail = |answer| Faults { api: vec![ApiFault::on("task.detail", Times::Always, answer)], ..Faults::default() };
    for answer in [WrongAnswer::Html, refuse(403), refuse(503)] {
        harness.manus.set_faults(detail(answer));
        let task = harness.manus.create_task(KEY, Plan { hidden: true, ..Plan::finish("Done.") });
        run(&harness, &task).await;
        harness.drain().await;
        for _ in 0..25 {
            harness.advance(Duration::from_hours(1)).await;
        }
        assert_eq!(harness.list("events").await[0]["state"], "proving");
        harness.manus.set_faults(Faults::default());
        harness.advance(Duration::from_mins(10)).await;
        assert_eq!(crm.take().len(), 2);
    }
}

#[tokio::test]
async fn a_task_that_nothing_can_be_asked_about_is_a_dead_letter() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    harness.manus.set_faults(Faults { api: vec![ApiFault::on("task.detail", Times::Always, refuse(400))], ..Faults::default() });
    let id = harness.accept(&stopped("e1", "odd")).await;
    harness.drain().await;
    let event = harness.event(&id).await;
    assert_eq!(event["state"], "dead");
    assert!(event["reason"].as_str().expect("a reason").contains("task.detail: 400"), "{}", event["reason"]);
}

#[tokio::test]
async fn a_key_that_is_revoked_and_restored_while_running_loses_nothing() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let known = harness.manus.create_task(KEY, Plan::finish("Known."));
    harness.manus.step(&known).await;
    harness.drain().await;
    harness.manus.set_faults(Faults { refused_keys: vec![KEY.to_owned()], ..Faults::default() });
    let fresh = harness.manus.create_task(KEY, Plan::finish("Fresh."));
    run(&harness, &known).await;
    run(&harness, &fresh).await;
    harness.drain().await;
    assert!(degraded(&harness).await.contains("401"));
    // The proven one goes out as its webhook told it; of the other one nothing is known.
    harness.advance(Duration::from_mins(2)).await;
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
    assert_eq!(crm.bodies()[1]["task"]["complete"], false);
    harness.manus.set_faults(Faults::default());
    harness.advance(Duration::from_mins(10)).await;
    assert_eq!(types(&crm)[2..], ["task_created", "task_stopped"]);
    assert_eq!(crm.bodies()[3]["task"]["complete"], true);
    assert_eq!(harness.admin("/readyz").await["status"], "ready");
}

#[tokio::test]
async fn a_flood_of_foreign_events_takes_at_most_a_fifth_of_the_budget() {
    let crm = Recorder::start().await;
    let budget = "[sources.manus]\nrequests_per_minute = 60\n";
    let mut harness = start(setup(&crm, "").config(budget)).await;
    harness.expect_leftover();
    let events: Vec<_> = (0..500).map(|n| stopped(&format!("e{n}"), &format!("foreign{n}"))).collect();
    join_all(events.iter().map(|event| harness.accept(event))).await;
    let manus = harness.manus.clone();
    let before = manus.requests().len();
    let made = pass(&mut harness, 150, Duration::from_secs(1), |_| manus.requests().len() - before).await;
    let most = (0..made.len()).map(|at| made[at] - at.checked_sub(60).map_or(0, |start| made[start])).max();
    assert!(most <= Some(12), "{most:?} calls in a minute");
    assert!(made.last() >= Some(&20), "{:?} calls in all", made.last());
    assert_eq!(crm.recorded().len(), 0);
}

#[tokio::test]
async fn events_of_a_proven_task_do_not_stand_behind_a_flood_of_foreign_ones() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    harness.expect_leftover();
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    harness.manus.step(&task).await;
    harness.drain().await;
    // The list takes long, so that whoever asks for it is in the way of whoever waits behind.
    let slow = ApiFault { only: Some("task.list?".to_owned()), times: Times::Always, slow_ms: 3_600_000, answer: None };
    harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
    let events: Vec<_> = (0..500).map(|n| created(&format!("e{n}"), &format!("foreign{n}"))).collect();
    join_all(events.iter().map(|event| harness.accept(event))).await;
    run(&harness, &task).await;
    harness.work_until(crm.received(2)).await;
    assert_eq!((types(&crm)[1].as_str(), calls(&harness, "task.list?")), ("task_stopped", 1));
}
