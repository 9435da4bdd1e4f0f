//! One delivery: what is sent, what an answer means, and how often a destination is asked.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::retry::LADDER;
use taskhook::signature::standard_webhooks::{self, Secret};
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorded, Recorder, Reply};
use crate::work::{pass, setup, start};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLDER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// One delivery to `crm` that is due.
async fn offered(harness: &Harness) {
    let task = harness.manus.create_task(KEY, Plan::hang());
    harness.manus.step(&task).await;
}

/// The only delivery, as the admin API shows it.
async fn only(harness: &Harness) -> Value {
    let mut rows = harness.list("deliveries").await;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// How its attempts ended.
fn outcomes(delivery: &Value) -> Vec<String> {
    let attempts = delivery["attempts"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt["outcome"].as_str().expect("an outcome").to_owned()).collect()
}

fn verifies(sent: &Recorded, secret: &str) -> bool {
    let timestamp = sent.header("webhook-timestamp").parse().expect("seconds");
    let secrets = [Secret::parse(secret).expect("a secret")];
    standard_webhooks::verify(&secrets, sent.header("webhook-id"), timestamp, &sent.body, sent.header("webhook-signature"))
}

#[tokio::test]
async fn every_attempt_is_signed_anew_over_the_same_body_and_id() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, &format!("secret = [\"{SECRET}\", \"{OLDER}\"]"))).await;
    crm.answer_next([Reply::Status(500), Reply::Status(404), Reply::Status(200)]);
    offered(&harness).await;
    harness.drain().await;
    harness.advance(Duration::from_mins(1)).await;
    harness.advance(Duration::from_mins(1)).await;
    let sent = crm.recorded();
    assert_eq!(sent.len(), 3);
    for one in &sent {
        assert!(verifies(one, SECRET) && verifies(one, OLDER));
        assert!(!verifies(one, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
        assert_eq!((one.header("webhook-id"), &one.body), (sent[0].header("webhook-id"), &sent[0].body));
        assert_eq!((one.header("content-type"), one.path.as_str()), ("application/json", "/hook"));
    }
    assert!(sent[0].header("webhook-timestamp") < sent[2].header("webhook-timestamp"));
    let delivery = only(&harness).await;
    assert_eq!((&delivery["id"], &delivery["state"]), (&json!(sent[0].header("webhook-id")), &json!("delivered")));
    assert_eq!(outcomes(&delivery), ["failed", "failed", "delivered"]);
    assert_eq!(delivery["attempts"][2]["detail"], "200 OK");
}

#[tokio::test]
async fn every_status_has_its_verdict() {
    let ends = |status| matches!(status, 400 | 410 | 413 | 422);
    for status in [200, 201, 204, 301, 302, 307, 400, 401, 403, 404, 408, 409, 410, 413, 422, 425, 429, 500, 502, 503, 504] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        let elsewhere = Recorder::start().await;
        crm.answer_next([Reply::With(status, vec![("location", elsewhere.url())])]);
        offered(&harness).await;
        harness.work_until(crm.received(1)).await;
        harness.drain().await;
        harness.advance(Duration::from_secs(1)).await;
        let (state, outcome, sent) = match status {
            200..300 => ("delivered", vec!["delivered"], 1),
            status if ends(status) => ("dead", vec!["failed"], 1),
            _ => ("delivered", vec!["failed", "delivered"], 2),
        };
        let delivery = only(&harness).await;
        assert_eq!(
            (delivery["state"].as_str(), outcomes(&delivery)),
            (Some(state), outcome.iter().map(ToString::to_string).collect()),
            "{status}"
        );
        assert_eq!((crm.recorded().len(), elsewhere.recorded().len()), (sent, 0), "{status}");
        if state == "dead" {
            assert!(delivery["reason"].as_str().expect("a reason").starts_with(&status.to_string()), "{delivery}");
        }
    }
}

#[tokio::test]
async fn both_forms_of_retry_after_are_honoured() {
    for after in ["90", "Thu, 15 Jan 2026 12:01:30 GMT"] {
        for status in [429, 503] {
            let crm = Recorder::start().await;
            let mut harness = start(setup(&crm, "")).await;
            crm.answer_next([Reply::With(status, vec![("retry-after", after.to_owned())])]);
            offered(&harness).await;
            harness.drain().await;
            harness.advance(Duration::from_secs(89)).await;
            assert_eq!(crm.recorded().len(), 1, "{after}");
            assert_eq!(only(&harness).await["due_at"], "2026-01-15T12:01:30.000Z");
            harness.advance(Duration::from_secs(1)).await;
            assert_eq!(crm.recorded().len(), 2, "{after}");
        }
    }
}

#[tokio::test]
async fn a_delivery_that_never_succeeds_is_a_dead_letter_with_all_its_reasons() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer(Reply::Status(500));
    offered(&harness).await;
    harness.drain().await;
    for rung in LADDER {
        // Five minutes are the longest that a breaker may be open beyond that.
        harness.advance(rung).await;
        harness.advance(Duration::from_mins(5)).await;
    }
    let delivery = only(&harness).await;
    assert_eq!((&delivery["state"], crm.recorded().len()), (&json!("dead"), 11));
    assert_eq!(delivery["reason"], "given up after 11 attempts, the last: 500 Internal Server Error");
    assert_eq!(outcomes(&delivery), ["failed"; 11]);
    let attempts = delivery["attempts"].as_array().expect("attempts");
    assert!(attempts.iter().all(|attempt| attempt["detail"] == "500 Internal Server Error"), "{attempts:?}");
    assert_eq!(harness.admin("/api/v1/stats").await["dead"], 1);
    harness.advance(Duration::from_hours(48)).await;
    assert_eq!(crm.recorded().len(), 11);
}

#[tokio::test]
async fn a_ladder_of_its_own_is_a_destination_s_right() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "ladder = [\"1s\", \"2s\"]")).await;
    crm.answer(Reply::Status(500));
    offered(&harness).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    harness.advance(Duration::from_secs(2)).await;
    assert_eq!(only(&harness).await["state"], "dead");
    assert_eq!(crm.recorded().len(), 3);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_of_unknown_outcome_and_sent_again() {
    for reply in [Reply::Never, Reply::Cut] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "timeout = \"300ms\"")).await;
        crm.answer_next([reply]);
        offered(&harness).await;
        harness.drain().await;
        harness.advance(Duration::from_secs(1)).await;
        let delivery = only(&harness).await;
        assert_eq!((outcomes(&delivery), crm.recorded().len()), (vec!["unknown".to_owned(), "delivered".to_owned()], 2));
        let sent = crm.recorded();
        assert_eq!((sent[0].header("webhook-id"), &sent[0].body), (sent[1].header("webhook-id"), &sent[1].body));
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_held_where_the_configuration_says_so() {
    for reply in [Reply::Never, Reply::Cut] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "timeout = \"300ms\"\non_unknown = \"hold\"")).await;
        crm.answer_next([reply]);
        offered(&harness).await;
        harness.drain().await;
        harness.advance(Duration::from_hours(24)).await;
        let delivery = only(&harness).await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("dead"), vec!["unknown".to_owned()]));
        assert!(delivery["reason"].as_str().expect("a reason").starts_with("held: "), "{delivery}");
        assert_eq!(crm.recorded().len(), 1);
    }
}

#[tokio::test]
async fn a_destination_that_fails_five_times_is_left_alone_until_a_probe_succeeds() {
    let crm = Recorder::start().await;
    let mut harness =
        start(setup(&crm, "concurrency = 1\nladder = [\"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\"]")).await;
    crm.answer(Reply::Status(500));
    for _ in 0..20 {
        offered(&harness).await;
    }
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 5, "it opens after five failures in a row");
    harness.advance(Duration::from_secs(2)).await;
    assert_eq!(crm.recorded().len(), 5, "it is open for 2.5 to 5 s");
    let ready = harness.admin("/readyz").await;
    assert_eq!((&ready["status"], &ready["reasons"][0]["part"]), (&json!("degraded"), &json!("destination crm")));
    harness.advance(Duration::from_secs(3)).await;
    assert_eq!(crm.recorded().len(), 6, "one goes as a probe");
    crm.answer(Reply::Status(200));
    harness.advance(Duration::from_secs(10)).await;
    assert_eq!(harness.list("deliveries?state=pending").await.len(), 0, "the first that arrives closes it");
    assert_eq!(crm.recorded().len(), 6 + 20);
    assert_eq!(harness.admin("/readyz").await["status"], "ready");
}

#[tokio::test]
async fn a_rate_is_kept_in_every_minute() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "rate = 30")).await;
    // A rest before saves nothing up.
    pass(&mut harness, 30, Duration::from_secs(10), |_| ()).await;
    for _ in 0..80 {
        offered(&harness).await;
    }
    let sent = pass(&mut harness, 240, Duration::from_secs(1), |_| crm.recorded().len()).await;
    let most = (0..sent.len()).map(|at| sent[at] - at.checked_sub(60).map_or(0, |start| sent[start])).max();
    assert!(most <= Some(30), "{most:?} in a minute");
    assert_eq!(sent.last(), Some(&80));
    assert!(sent[180] >= 78, "{} after three minutes", sent[180]);
}
