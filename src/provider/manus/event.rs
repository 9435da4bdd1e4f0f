//! Reading a Manus webhook.
//!
//! What must hold: any bytes can be read; an event of a known type that names its task is known, everything else is `unknown`
//! and keeps Manus's own word. Fields are looked for where real events have them (inside `task_detail` or `progress_detail`)
//! and then where the tables of the v1 pages put them (at the top).

use serde_json::Value;

use super::convert::{count, file, items, member, strings, text};
use crate::event::{Attachment, Facts, TASK_CREATED, TASK_PROGRESS, TASK_STOPPED, UNKNOWN, body_id};
use crate::provider::Reading;
use crate::task::{Question, QuestionKind};

/// The task that Manus names in its test request at registration.
pub const PING_TASK: &str = "test_task_id";

/// Reads `body`.
#[must_use]
pub fn read(body: &[u8]) -> Reading {
    let event = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object).unwrap_or_default();
    // An id that is no text, or none, would be the same for all such events.
    let event_id = match event.get("event_id") {
        Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
        _ => body_id(body),
    };
    let provider_type = text(&event, &["event_type"]);
    let places = Places::of(&event);
    let task_id = places.text(&["task_id"]);
    let kind = match provider_type.as_deref() {
        Some(TASK_CREATED) if task_id.is_some() => TASK_CREATED,
        Some(TASK_PROGRESS) if task_id.is_some() => TASK_PROGRESS,
        Some(TASK_STOPPED) if task_id.is_some() => TASK_STOPPED,
        _ => UNKNOWN,
    };
    let message = places.text(&["message"]);
    let facts = Facts {
        event_id,
        kind: kind.to_owned(),
        provider_type,
        title: places.text(&["task_title", "title"]),
        url: places.text(&["task_url"]),
        stop_reason: places.text(&["stop_reason"]),
        attachments: places.list("attachments").iter().filter_map(attachment).collect(),
        progress: places.text(&["progress_type"]),
        question: places.member("question_expectation").map(|expected| question(expected, message.as_deref())),
        structured_output: places.member("structured_output").cloned(),
        task_id,
        message,
    };
    let ping = event.get("task_detail").and_then(|detail| detail.get("task_id")).and_then(Value::as_str) == Some(PING_TASK);
    Reading { facts, ping }
}

/// Where a field may be, the likeliest place first.
struct Places<'a>([&'a Value; 3]);

impl<'a> Places<'a> {
    fn of(event: &'a Value) -> Self {
        let place = |name: &str| event.get(name).unwrap_or(&Value::Null);
        Self([place("task_detail"), place("progress_detail"), event])
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        self.0.iter().find_map(|place| text(place, names))
    }

    fn member(&self, name: &str) -> Option<&'a Value> {
        self.0.iter().find_map(|place| member(place, &[name]))
    }

    fn list(&self, name: &str) -> &'a [Value] {
        self.0.iter().map(|place| items(place, name)).find(|items| !items.is_empty()).unwrap_or_default()
    }
}

fn attachment(of: &Value) -> Option<Attachment> {
    let file = file(of, None)?;
    Some(Attachment { name: file.name, url: file.provider_url, size_bytes: count(of, "size_bytes") })
}

/// Two integrators saw this in events that ask; it tells the answers to choose from, and that words are wanted.
fn question(expected: &Value, message: Option<&str>) -> Question {
    Question {
        kind: QuestionKind::Message,
        text: message.map(ToOwned::to_owned),
        options: strings(expected, "options"),
        ..Question::default()
    }
}
