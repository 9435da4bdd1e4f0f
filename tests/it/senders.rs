//! Senders that verify by a secret of ours, from outside: every scheme through the same front door, and what must not come in.

mod addresses;
mod bad;
mod schema;
mod schemes;

use serde_json::json;

use crate::harness::{Harness, Recorder, Setup, code, json, send, status};

use schemes::{Scheme, schemes};

/// An event that has everything that any scheme reads, under this id.
fn body(id: &str) -> Vec<u8> {
    let kind = "video.completed";
    json!({"id": id, "event_id": id, "run_id": id, "status": "done", "type": kind, "event": {"type": kind}, "payload": {"id": id}})
        .to_string()
        .into_bytes()
}

/// A program with a source for each scheme, which knows the first two keys of it.
async fn all() -> Harness {
    with("").await
}

/// The same, with this laid over its configuration.
async fn with(toml: &str) -> Harness {
    let sections: Vec<_> = schemes().iter().map(|scheme| scheme.section(&[0, 1])).collect();
    // Megabytes go through the store here, and the disk may be busy with other tests.
    let patient = "[server]\ncommit_timeout = \"30s\"\n";
    Setup::new().config(patient).config(&sections.join("")).config(toml).start().await
}

/// A request of `scheme` with `headers`.
fn request(harness: &Harness, scheme: &Scheme, headers: &[(&str, String)], body: Vec<u8>) -> reqwest::RequestBuilder {
    let mut request = harness.post(&format!("/webhooks/{}", scheme.name)).body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request
}

/// What the sender is told: the status, and `accepted`, `duplicate` or the code of a problem.
async fn told(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = send(request).await;
    let word = if status(&answer) == 200 { json(&answer)["status"].as_str().expect("a word").to_owned() } else { code(&answer) };
    (status(&answer), word)
}

fn is(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}

/// Seconds since 1970, by the harness's clock.
fn now(harness: &Harness) -> i64 {
    harness.clock.now().as_second()
}
