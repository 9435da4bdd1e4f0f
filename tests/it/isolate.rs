//! A destination that does not work has no hold over another, and costs nothing while it is left alone.

use std::time::Duration;

use serde_json::json;
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorder, Reply, Setup};
use crate::work::{setup, start, stopped};

/// A program that believes anyone, and hands everything to `slow` and `crm`.
async fn both(slow: &Recorder, keys: &str, crm: &Recorder) -> Harness {
    Setup::new()
        .config("[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n")
        .config(&slow.section("slow", keys))
        .config(&crm.section("crm", ""))
        .config("[[routes]]\nto = [\"slow\", \"crm\"]\n")
        .start()
        .await
}

#[tokio::test]
async fn whatever_one_destination_does_the_other_gets_everything_at_once() {
    let asked_to_wait = Reply::With(429, vec![("retry-after", "3600".to_owned())]);
    for (keys, reply, most) in [
        // It takes every place that it has, and gives none back.
        ("concurrency = 8\ntimeout = \"60s\"", Reply::Never, 8),
        ("concurrency = 64\ntimeout = \"60s\"", Reply::Never, 64),
        // It is left alone after a few.
        ("concurrency = 2", Reply::Status(503), 12),
        ("concurrency = 2", asked_to_wait, 12),
        ("rate = 6", Reply::Status(200), 1),
    ] {
        let (slow, crm) = (Recorder::start().await, Recorder::start().await);
        slow.answer(reply.clone());
        let mut harness = both(&slow, keys, &crm).await;
        for number in 0..100 {
            harness.accept(&stopped(&format!("e{number}"), &format!("t{number}"))).await;
        }
        harness.work_until(crm.received(100)).await;
        assert!(slow.recorded().len() <= most, "{keys}, {reply:?}: {}", slow.recorded().len());
        assert_eq!(crm.recorded().len(), 100, "{keys}, {reply:?}");
        harness.expect_leftover();
    }
}

#[tokio::test]
async fn while_a_destination_is_left_alone_nothing_is_spent_and_one_goes_to_see() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer(Reply::Status(503));
    for _ in 0..40 {
        let task = harness.manus.create_task(KEY, Plan::hang());
        harness.manus.step(&task).await;
    }
    harness.drain().await;
    // Those on their way when it opened; `concurrency` is 8.
    let spent = crm.recorded().len();
    assert!((5..=12).contains(&spent), "{spent}");
    let attempts = async |harness: &Harness| {
        let rows = harness.list("deliveries?limit=100").await;
        rows.iter().map(|row| row["attempts"].as_array().expect("attempts").len()).sum::<usize>()
    };
    for _ in 0..20 {
        harness.advance(Duration::from_millis(100)).await;
    }
    assert_eq!((crm.recorded().len(), attempts(&harness).await), (spent, spent), "it is open for 2.5 s at the least");
    for probe in 1..=6 {
        // The longest that it can be open now; each time it is asked once, however much waits.
        harness.advance(Duration::from_secs(5 << probe).min(Duration::from_mins(5))).await;
        assert_eq!((crm.recorded().len(), attempts(&harness).await), (spent + probe, spent + probe), "probe {probe}");
        assert_eq!(harness.admin("/readyz").await["reasons"][0]["part"], "destination crm");
    }
    // A probe that nobody answers holds one place, and nothing goes beside it.
    crm.answer(Reply::Never);
    harness.clock.advance(jiff::SignedDuration::from_mins(5));
    let seen = crm.recorded().len();
    harness.work_until(crm.received(seen + 1)).await;
    let in_flight = harness.list("deliveries?limit=100").await;
    let started = in_flight
        .iter()
        .filter(|row| row["attempts"].as_array().expect("attempts").iter().any(|one| one["outcome"] == "started"));
    assert_eq!((started.count(), crm.recorded().len()), (1, seen + 1));
    harness.expect_leftover();
}

#[tokio::test]
async fn a_destination_that_asks_for_too_long_a_rest_is_asked_again_after_an_hour() {
    for after in ["86400", "Fri, 16 Jan 2026 12:00:00 GMT"] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        crm.answer_next([Reply::With(429, vec![("retry-after", after.to_owned())])]);
        let task = harness.manus.create_task(KEY, Plan::hang());
        harness.manus.step(&task).await;
        harness.drain().await;
        harness.advance(Duration::from_secs(3599)).await;
        assert_eq!(crm.recorded().len(), 1, "{after}");
        harness.advance(Duration::from_secs(1)).await;
        assert_eq!(crm.recorded().len(), 2, "{after}");
        assert_eq!(harness.list("deliveries").await[0]["state"], json!("delivered"));
    }
}
