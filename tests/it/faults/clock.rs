//! Wall time that jumps an hour either way. Signatures that are out of the window then are in `receive/keys.rs`.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, Faults, Plan};

use super::{Duration, Recorder};
use crate::harness::{Harness, KEY, Reply};
use crate::work::{calls, every_call, refuse, run, setup, start, types};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A task of ours, of which everything was sent.
async fn offered(harness: &Harness) -> String {
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    run(harness, &task).await;
    task
}

/// How often each delivery came.
fn times(crm: &Recorder) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for recorded in crm.recorded() {
        *times.entry(recorded.header("webhook-id").to_owned()).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn work_that_is_due_waits_for_no_clock_that_jumps() {
    for jump in [HOUR, -HOUR] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        offered(&harness).await;
        harness.drain().await;
        // Accepted, and nothing of it done yet.
        for _ in 0..3 {
            offered(&harness).await;
        }
        harness.clock.advance(jump);
        harness.drain().await;
        assert_eq!(types(&crm).len(), 8, "{jump}");
        // The keys, the proofs, the signatures: all of it goes on.
        offered(&harness).await;
        harness.drain().await;
        assert_eq!(types(&crm).len(), 10, "{jump}");
        assert!(times(&crm).values().all(|times| *times == 1), "{jump}: nothing comes twice");
        assert_eq!(harness.admin("/api/v1/stats").await["dead"], 0, "{jump}");
    }
}

#[tokio::test]
async fn a_retry_comes_when_it_was_meant_to_and_not_an_hour_later() {
    for restart in [false, true] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        crm.answer_next([Reply::Status(503)]);
        offered(&harness).await;
        harness.drain().await;
        assert_eq!(types(&crm), ["task_created"], "{restart}");
        harness.clock.advance(-HOUR);
        if restart {
            harness.restart().await;
        }
        harness.drain().await;
        assert_eq!(types(&crm).len(), 1, "{restart}: nor is it sooner");
        harness.advance(Duration::from_secs(2)).await;
        assert_eq!(types(&crm), ["task_created", "task_created", "task_stopped"], "{restart}");
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_fetched_is_held_for_two_minutes_whatever_the_wall_says() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    harness.manus.step(&task).await;
    harness.drain().await;
    harness.manus.set_faults(every_call(refuse(503)));
    run(&harness, &task).await;
    harness.drain().await;
    harness.clock.advance(-HOUR);
    for _ in 0..12 {
        assert_eq!(types(&crm), ["task_created"]);
        harness.advance(Duration::from_secs(10)).await;
    }
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
    assert_eq!(crm.bodies()[1]["task"]["complete"], false);
}

#[tokio::test]
async fn what_is_in_hand_at_a_jump_ends_as_if_there_had_been_none() {
    for jump in [HOUR, -HOUR] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        let slow = ApiFault { only: Some("task.detail".to_owned()), times: Times::Always, slow_ms: 10_000, answer: None };
        let task = harness.manus.create_task(KEY, Plan::finish("Done."));
        harness.manus.step(&task).await;
        harness.drain().await;
        harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
        run(&harness, &task).await;
        let (clock, store, other) = (harness.clock.clone(), harness.store().clone(), crm.clone());
        let jumping = async move {
            // Commits and turns enough for the call to be on its way when the clock jumps. The lease is the process's, and holds.
            for _ in 0..10 {
                store.check().await.expect("the store takes writes");
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
            clock.advance(jump);
            // In steps, each with turns enough for the answer and what follows from it.
            while other.recorded().len() < 2 {
                for _ in 0..500 {
                    tokio::task::yield_now().await;
                }
                clock.advance(SignedDuration::from_secs(1));
            }
        };
        harness.run_worker(Duration::from_secs(8), jumping).await;
        harness.drain().await;
        assert_eq!(types(&crm), ["task_created", "task_stopped"], "{jump}");
        assert_eq!(calls(&harness, "task.detail"), 1, "{jump}");
        if jump == -HOUR {
            assert_eq!(crm.bodies()[1]["task"]["complete"], true);
        }
        for row in harness.list("deliveries").await {
            let attempts = row["attempts"].as_array().expect("attempts");
            assert!(attempts.len() == 1 && attempts[0]["outcome"] == "delivered", "{jump}: {row}");
        }
    }
}
