//! What breaks around the program, made to break: disks, files, clocks, providers, senders. Nothing that was answered 200 is lost.
//!
//! Where a process has to end, to be killed or to meet a disk of its own, the built program runs as one ([`program::Program`]); a small
//! disk is a tmpfs in a mount namespace ([`disk::Disk`]), and a disk that fails is a library that is preloaded into the program
//! (`shim.c`). What `src/docs/durability.md` says of each fault is held here.
#![cfg(target_os = "linux")]

mod clock;
mod connections;
pub(crate) mod disk;
mod files;
mod overload;
pub(crate) mod program;
mod provider;
mod readers;
mod row;
mod sync;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::http::{self, Answer};

use program::{Faults, Program, Setting};

use crate::harness::{Recorder, code, status, within};

/// A stop, as Manus announces it, with so many bytes of filling.
fn stopped(event_id: &str, filling: usize) -> Value {
    json!({"event_id": event_id, "event_type": "task_stopped", "filling": "x".repeat(filling), "task_detail": {
        "task_id": format!("task-{event_id}"), "task_title": "A title", "message": "Done.", "stop_reason": "finish"}})
}

/// Sends `event`; `None` if the connection broke before an answer.
async fn sent(client: &reqwest::Client, program: &Program, event: &Value) -> Option<Answer> {
    let request = client.post(program.url("/webhooks/open")).body(event.to_string());
    http::send(request, Duration::from_secs(20), 1 << 20).await.ok()
}

/// Sends `event` until it is answered 200, as a sender does that comes again.
async fn accepted(client: &reqwest::Client, program: &Program, event: &Value) {
    within("an event is accepted", async {
        while sent(client, program, event).await.is_none_or(|answer| status(&answer) != 200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Whether the program has kept `event`: it is then a duplicate.
async fn is_kept(client: &reqwest::Client, program: &Program, event: &Value) -> bool {
    let answer = sent(client, program, event).await.expect("it answers");
    assert_eq!(status(&answer), 200, "{}", event["event_id"]);
    crate::harness::json(&answer)["status"] == "duplicate"
}

/// 503 with the time to come again, and this code.
pub(crate) fn come_again(answer: &Answer, expected: &str) {
    assert_eq!((status(answer), code(answer).as_str(), answer.header("retry-after")), (503, expected, Some("5")));
}

/// The event ids of what came to `crm`, each once.
fn arrived(crm: &Recorder) -> BTreeSet<String> {
    crm.bodies().iter().map(|body| body["event"]["event_id"].as_str().expect("an id").to_owned()).collect()
}

/// Waits until all of `events` have come to `crm`.
async fn all_arrive(crm: &Recorder, events: &[Value]) {
    let all: BTreeSet<String> = events.iter().map(|event| event["event_id"].as_str().expect("an id").to_owned()).collect();
    within("what was accepted arrives", async {
        while !arrived(crm).is_superset(&all) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
