//! Receiving, from outside: what a sender is answered, and what is kept of it.

mod addresses;
mod answers;
mod content;
mod disk;
mod keys;
mod limits;
mod once;
mod rejections;
mod vectors;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::harness::{Harness, Recorder, Setup, Wire, code, json, send, status, within};

/// The source `open` believes anyone and asks nobody.
const OPEN: &str = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";

/// A stop, as Manus announces it.
fn stopped(event_id: &str, task_id: &str) -> Value {
    json!({"event_id": event_id, "event_type": "task_stopped", "task_detail": {
        "task_id": task_id, "task_title": "What is 2 + 2?", "task_url": format!("https://manus.im/app/{task_id}"),
        "message": "4", "stop_reason": "finish"}})
}

/// A signature of the right form by somebody else.
static FORGED: LazyLock<String> = LazyLock::new(|| BASE64_STANDARD.encode([b'*'; 256]));

/// A request whose signature is well formed and wrong.
fn forged(harness: &Harness, body: &str) -> reqwest::RequestBuilder {
    let now = harness.clock.now().as_second().to_string();
    harness
        .post("/webhooks/manus")
        .header("x-webhook-signature", FORGED.as_str())
        .header("x-webhook-timestamp", now)
        .body(body.to_owned())
}
