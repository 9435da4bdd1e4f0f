//! What the tests of single destinations share: a program that believes anyone and hands everything to one destination, `it`.

use serde_json::{Value, json};

use crate::harness::{Harness, Setup, send, status};

/// A source that believes anyone, and a route to the destination `it`.
const OPEN: &str = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n[[routes]]\nto = [\"it\"]\n";

/// A program whose only destination is `it`, with this section.
pub(crate) fn setup(section: &str) -> Setup {
    Setup::new().config(OPEN).config(&format!("[destinations.it]\n{section}\n"))
}

/// The same, started.
pub(crate) async fn start(section: &str) -> Harness {
    setup(section).start().await
}

/// A result whose title and message are these.
pub(crate) fn result(number: usize, title: &str, message: &str) -> Value {
    json!({"event_id": format!("e{number}"), "event_type": "task_stopped", "task_detail": {"task_id": format!("t{number}"),
        "task_title": title, "task_url": "https://manus.im/app/t1", "message": message, "stop_reason": "finish"}})
}

/// Receives `event`; our id of it.
pub(crate) async fn offer(harness: &Harness, event: &Value) -> String {
    let answer = send(harness.post("/webhooks/open").body(event.to_string())).await;
    assert_eq!(status(&answer), 200);
    crate::harness::json(&answer)["id"].as_str().expect("an id").to_owned()
}

/// One result, received.
pub(crate) async fn offer_one(harness: &Harness) -> String {
    offer(harness, &result(1, "What is 2 + 2?", "**4**")).await
}

/// The only delivery, as the admin API shows it.
pub(crate) async fn only(harness: &Harness) -> Value {
    let mut rows = harness.list("deliveries").await;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// How its attempts ended.
pub(crate) fn outcomes(delivery: &Value) -> Vec<&str> {
    let attempts = delivery["attempts"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt["outcome"].as_str().expect("an outcome")).collect()
}

/// What its last attempt met.
pub(crate) fn detail(delivery: &Value) -> &str {
    delivery["attempts"]
        .as_array()
        .and_then(|attempts| attempts.last())
        .and_then(|attempt| attempt["detail"].as_str())
        .unwrap_or_default()
}

/// The reasons that the program gives for being degraded.
pub(crate) async fn reasons(harness: &Harness) -> Vec<String> {
    let ready = harness.admin("/readyz").await;
    let reasons = ready["reasons"].as_array().cloned().unwrap_or_default();
    reasons
        .iter()
        .map(|reason| format!("{}: {}", reason["part"].as_str().unwrap_or("?"), reason["reason"].as_str().unwrap_or("?")))
        .collect()
}

/// The most that came within a minute, of totals that were taken every second.
pub(crate) fn busiest_minute(totals: &[usize]) -> usize {
    (60..totals.len()).map(|at| totals[at] - totals[at - 60]).max().unwrap_or_default()
}
