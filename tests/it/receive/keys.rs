//! The provider's key: missing, old, changed, and a clock that is wrong.

use futures_util::future::{join, join_all};
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, Faults, WrongAnswer};

use super::*;

/// Both versions' paths of the key hold this.
const KEY_CALLS: &str = "ublic";
const MINUTE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// How often the key was asked for; a refresh asks both versions of the API.
fn key_calls(harness: &Harness) -> usize {
    harness.calls().iter().filter(|path| path.contains(KEY_CALLS)).count()
}

fn down() -> Faults {
    Faults {
        api: vec![ApiFault::on("", Times::Always, WrongAnswer::Refuse { status: 503, retry_after: None })],
        ..Faults::default()
    }
}

async fn readyz(harness: &Harness) -> u16 {
    status(&send(harness.request(reqwest::Method::GET, "/readyz")).await)
}

async fn answered(request: reqwest::RequestBuilder) -> (u16, Option<String>) {
    let answer = send(request).await;
    if status(&answer) == 503 {
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    (status(&answer), (status(&answer) != 200).then(|| code(&answer)))
}

fn signed(harness: &Harness, event_id: &str) -> reqwest::RequestBuilder {
    harness.signed("/webhooks/manus", stopped(event_id, "t1").to_string())
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[tokio::test]
async fn without_a_key_the_sender_is_asked_to_come_again() {
    let mut harness = Setup::new().without_keys().prepare().await;
    harness.manus.set_faults(down());
    harness.start().await;
    assert_eq!(readyz(&harness).await, 503);
    for event_id in ["e1", "e2"] {
        assert_eq!(answered(signed(&harness, event_id)).await, refused(503, "key_unavailable"));
    }
    assert_eq!(key_calls(&harness), 2, "once a minute, of both versions");
    assert_eq!(answered(harness.post("/webhooks/manus").body("{}")).await, refused(401, "signature_missing"));
    harness.manus.set_faults(Faults::default());
    harness.clock.advance(MINUTE);
    assert_eq!(answered(signed(&harness, "e1")).await, (200, None));
    assert_eq!((readyz(&harness).await, key_calls(&harness)), (200, 4));
    harness.expect_leftover();
}

#[tokio::test]
async fn a_source_that_verifies_nothing_keeps_the_program_ready() {
    let harness = Setup::new().config(OPEN).without_keys().start().await;
    assert_eq!(readyz(&harness).await, 200);
}

#[tokio::test]
async fn the_first_event_loads_the_key_where_nobody_did() {
    let mut harness = Setup::new().without_keys().start().await;
    assert_eq!(key_calls(&harness), 0);
    assert_eq!(answered(signed(&harness, "e1")).await, (200, None));
    harness.expect_leftover();
}

#[tokio::test]
async fn what_comes_while_the_key_is_first_loaded_waits_for_it() {
    for _ in 0..5 {
        let mut harness = Setup::new().without_keys().by_itself().start().await;
        let answers = join_all((0..20).map(|number| answered(signed(&harness, &format!("e{number}"))))).await;
        assert!(answers.iter().all(|answer| *answer == (200, None)), "{answers:?}");
        assert_eq!(key_calls(&harness), 2, "one load for all");
        harness.expect_leftover();
    }
}

#[tokio::test]
async fn a_loaded_key_outlives_a_restart_and_the_provider() {
    let mut harness = Harness::new().await;
    harness.leave_keys();
    harness.stop().await;
    harness.manus.set_faults(down());
    harness.clock.advance(MINUTE * 60 * 24 * 30);
    harness.start().await;
    assert_eq!(readyz(&harness).await, 200);
    assert_eq!(answered(signed(&harness, "e1")).await, (200, None));
    harness.expect_leftover();
}

#[tokio::test]
async fn a_new_key_is_fetched_once_for_all_who_wait() {
    let mut harness = Harness::new().await;
    harness.manus.rotate_key();
    let before = key_calls(&harness);
    // The key is too young to be doubted.
    assert_eq!(answered(signed(&harness, "e0")).await, refused(401, "signature_invalid"));
    harness.clock.advance(MINUTE);
    let answers = join_all((0..50).map(|number| answered(signed(&harness, &format!("e{number}"))))).await;
    assert!(answers.iter().all(|answer| *answer == (200, None)), "{answers:?}");
    assert_eq!(key_calls(&harness), before + 2);
    harness.restart().await;
    assert_eq!(answered(signed(&harness, "e50")).await, (200, None));
    harness.expect_leftover();
}

/// Waits until the key was asked for so often.
async fn until_asked(harness: &Harness, calls: usize) {
    within("the calls for the key", async {
        while key_calls(harness) < calls {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_key_is_loaded_at_the_start_and_every_hour() {
    let harness = Setup::new().without_keys().by_itself().start().await;
    until_asked(&harness, 2).await;
    within("the key", async {
        while readyz(&harness).await != 200 {
            // The answer of the store is remembered for a second.
            harness.clock.advance(jiff::SignedDuration::from_secs(1));
        }
    })
    .await;
    harness.clock.advance(MINUTE * 60);
    until_asked(&harness, 4).await;
}

#[tokio::test]
async fn a_place_that_does_not_answer_keeps_its_key_trusted() {
    let mut harness = Harness::new().await;
    harness.clock.advance(MINUTE);
    let [old, older] = ["e1", "e2"].map(|event_id| signed(&harness, event_id));
    harness.manus.rotate_key();
    let refuse = WrongAnswer::Refuse { status: 503, retry_after: None };
    harness.manus.set_faults(Faults { api: vec![ApiFault::on("/v1/", Times::Always, refuse)], ..Faults::default() });
    assert_eq!(answered(signed(&harness, "e0")).await, (200, None));
    assert_eq!(answered(old).await, (200, None), "the other version may still sign with it");
    harness.manus.set_faults(Faults::default());
    harness.clock.advance(MINUTE);
    harness.app().keys.load("manus").await.unwrap();
    assert_eq!(answered(older).await, refused(401, "signature_invalid"));
    harness.expect_leftover();
}

#[tokio::test]
async fn forgeries_do_not_make_us_call_more_than_once_a_minute() {
    let harness = Harness::new().await;
    let before = key_calls(&harness);
    for _ in 0..5 {
        harness.clock.advance(MINUTE / 2);
        let answers = join_all((0..20).map(|_| answered(forged(&harness, "{}")))).await;
        assert!(answers.iter().all(|answer| *answer == refused(401, "signature_invalid")), "{answers:?}");
    }
    assert_eq!(key_calls(&harness), before + 4, "after 60 s and after 120 s");
}

#[tokio::test]
async fn an_old_key_that_cannot_be_refreshed_decides_nothing_against_the_sender() {
    let mut harness = Harness::new().await;
    harness.manus.set_faults(down());
    harness.clock.advance(MINUTE * 60);
    assert_eq!(answered(forged(&harness, "{}")).await, refused(401, "signature_invalid"), "an hour is not too old");
    harness.clock.advance(MINUTE);
    assert_eq!(answered(forged(&harness, "{}")).await, refused(503, "key_unavailable"));
    assert_eq!(answered(signed(&harness, "e1")).await, (200, None));
    harness.manus.set_faults(Faults::default());
    harness.clock.advance(MINUTE);
    assert_eq!(answered(forged(&harness, "{}")).await, refused(401, "signature_invalid"));
    harness.expect_leftover();
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_our_trouble() {
    for offset in [600, -600] {
        let mut harness = Setup::new().without_keys().prepare().await;
        harness.manus.set_faults(Faults { date_offset_seconds: offset, ..Faults::default() });
        harness.start().await;
        let event = stopped("e1", "t1").to_string();
        let then = harness.clock.now().as_second() + offset;
        let headers = harness.manus.sign(&harness.url("/webhooks/manus"), event.as_bytes(), then);
        let sent = || harness.post("/webhooks/manus").headers(headers.clone()).body(event.clone());
        assert_eq!(answered(sent()).await, refused(503, "timestamp_stale"), "{offset}");
        assert_eq!(answered(forged(&harness, "{}")).await, refused(401, "signature_invalid"));
        // Set right, it is accepted.
        harness.manus.set_faults(Faults::default());
        harness.clock.advance(jiff::SignedDuration::from_secs(offset));
        assert_eq!(answered(sent()).await, (200, None), "{offset}");
        harness.expect_leftover();
    }
}

#[tokio::test]
async fn a_clock_that_goes_wrong_later_is_noticed() {
    for offset in [600, -600] {
        let harness = Harness::new().await;
        harness.clock.advance(MINUTE);
        harness.manus.set_faults(Faults { date_offset_seconds: -offset, ..Faults::default() });
        let event = stopped("e1", "t1").to_string();
        let headers = harness.manus.sign(&harness.url("/webhooks/manus"), event.as_bytes(), harness.clock.now().as_second());
        harness.clock.advance(jiff::SignedDuration::from_secs(offset));
        let sent = harness.post("/webhooks/manus").headers(headers).body(event);
        assert_eq!(answered(sent).await, refused(503, "timestamp_stale"), "{offset}");
    }
}

#[tokio::test]
async fn what_is_stale_by_a_right_clock_is_refused() {
    let harness = Harness::new().await;
    let event = stopped("e1", "t1").to_string();
    let headers = harness.manus.sign(&harness.url("/webhooks/manus"), event.as_bytes(), harness.clock.now().as_second());
    harness.clock.advance(MINUTE * 10);
    let sent = harness.post("/webhooks/manus").headers(headers).body(event);
    assert_eq!(answered(sent).await, refused(401, "timestamp_stale"));
}

#[tokio::test]
async fn who_hangs_up_does_not_spoil_the_refresh_for_others() {
    let mut harness = Harness::new().await;
    harness.manus.rotate_key();
    harness.clock.advance(MINUTE);
    let slow = ApiFault { only: Some(KEY_CALLS.into()), times: Times::Next(2), slow_ms: 60_000, answer: None };
    harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
    let mut wire = Wire::open(harness.public()).await;
    let now = harness.clock.now().as_second();
    wire.send(format!(
        "POST /webhooks/manus HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX-Webhook-Signature: {}\r\nX-Webhook-Timestamp: {now}\r\n\r\n{{}}",
        FORGED.as_str()
    ))
    .await;
    within("the refresh that the forgery asked for", async {
        while harness.manus.faults().api[0].times != Times::Next(0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(wire);
    let genuine = answered(signed(&harness, "e1"));
    let (answer, ()) = join(genuine, async {
        // Until the server has seen that the forger is gone.
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
        harness.clock.advance(MINUTE);
    })
    .await;
    assert_eq!(answer, (200, None));
    harness.expect_leftover();
}
