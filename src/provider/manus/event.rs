//! Reading a Manus webhook.
//!
//! What must hold: any bytes can be read; an event of a known type that names its task is known, everything else is `unknown`
//! and keeps Manus's own word. Fields are looked for where real events have them (inside `task_detail` or `progress_detail`)
//! and then where the tables of the v1 pages put them (at the top).

use serde_json::{Value, json};

use super::convert::{count, file, items, member, stop_reason, strings, text};
use crate::event::{Attachment, Facts, TASK_CREATED, TASK_FAILED, TASK_PROGRESS, TASK_STOPPED, UNKNOWN, body_id};
use crate::provider::{Lost, Recovered};
use crate::task::{Question, QuestionKind, State};

/// The task that Manus names in its test request at registration.
pub const PING_TASK: &str = "test_task_id";

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// The `event` member of the envelope.
    pub facts: Facts,
    /// Whether it is the test request at registration.
    pub ping: bool,
}

/// Reads `body`.
#[must_use]
pub fn read(body: &[u8]) -> Heard {
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
        Some(TASK_FAILED) if task_id.is_some() => TASK_FAILED,
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
    Heard { facts, ping }
}

/// The event that a webhook should have been, or could not be since there is none for a failure; `None` for what is no stop.
pub(super) fn recovered(lost: &Lost<'_>) -> Option<Recovered> {
    let Lost { listed: task, stop, event_id, may_repeat, .. } = lost;
    let reason = stop_reason(stop.state)?;
    let kind = if stop.state == State::Failed { TASK_FAILED } else { TASK_STOPPED };
    let detail = json!({
        "task_id": task.task_id, "task_title": task.title, "task_url": task.url, "message": stop.text, "stop_reason": reason,
    });
    Some(Recovered {
        kind,
        body: json!({"event_id": event_id, "event_type": kind, "task_detail": detail, "may_repeat": may_repeat}).to_string(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sample(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/manus/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn read_json(value: &Value) -> Heard {
        read(value.to_string().as_bytes())
    }

    #[test]
    fn a_stop_is_read_whole() {
        let Heard { facts, ping } = read(&sample("task_stopped_attachments.json"));
        assert!(!ping);
        insta::assert_json_snapshot!(facts, @r#"
        {
          "event_id": "task_stopped_task_abc123",
          "type": "task_stopped",
          "provider_type": "task_stopped",
          "task_id": "task_abc123",
          "title": "Generate quarterly report",
          "url": "https://manus.im/app/task_abc123",
          "message": "I've completed the report...",
          "stop_reason": "finish",
          "attachments": [
            {
              "name": "report.pdf",
              "url": "https://s3.amazonaws.com/...",
              "size_bytes": 2048576
            }
          ],
          "progress": null,
          "question": null,
          "structured_output": null
        }
        "#);
    }

    #[test]
    fn every_sample_is_known() {
        for (name, kind, stop_reason) in [
            ("task_created.json", TASK_CREATED, None),
            ("task_progress.json", TASK_PROGRESS, None),
            ("task_stopped_ask.json", TASK_STOPPED, Some("ask")),
            ("task_stopped_finish.json", TASK_STOPPED, Some("finish")),
            ("task_stopped_structured.json", TASK_STOPPED, Some("finish")),
        ] {
            let facts = read(&sample(name)).facts;
            assert_eq!(facts.kind, kind, "{name}");
            assert_eq!(facts.provider_type.as_deref(), Some(kind), "{name}");
            assert_eq!(facts.stop_reason.as_deref(), stop_reason, "{name}");
            assert!(facts.event_id.starts_with(kind), "{name}");
            assert!(facts.task_id.is_some(), "{name}");
        }
        let progress = read(&sample("task_progress.json")).facts;
        assert_eq!(progress.progress.as_deref(), Some("plan_update"));
        assert_eq!(progress.message.as_deref(), Some("Looking up opening hours"));
        let structured = read(&sample("task_stopped_structured.json")).facts;
        assert_eq!(structured.structured_output, Some(json!({"success": true, "value": {"capital": "Paris"}, "error": null})));
    }

    #[test]
    fn one_id_may_come_with_two_contents() {
        let events: Vec<Value> = serde_json::from_slice(&sample("event_id_reused.json")).unwrap();
        let read: Vec<_> = events.iter().map(|event| read_json(event).facts).collect();
        assert_eq!(read[0].event_id, read[1].event_id);
        assert_ne!(read[0].kind, read[1].kind);
    }

    #[test]
    fn flat_fields_are_read_where_no_nested_ones_are() {
        let event = json!({"event_id": "e", "event_type": "task_stopped", "task_id": "flat", "task_title": "T",
            "message": "m", "stop_reason": "finish", "attachments": [{"file_name": "a", "url": "https://x.example/a", "size_bytes": "7"}]});
        let facts = read_json(&event).facts;
        assert_eq!(facts.task_id.as_deref(), Some("flat"));
        assert_eq!(facts.title.as_deref(), Some("T"));
        assert_eq!(facts.attachments[0].size_bytes, Some(7));
        let both = json!({"event_type": "task_created", "task_id": "flat", "task_detail": {"task_id": "nested"}});
        assert_eq!(read_json(&both).facts.task_id.as_deref(), Some("nested"));
    }

    #[test]
    fn what_is_not_known_keeps_its_word() {
        let facts = read_json(&json!({"event_id": "e1", "event_type": "task_paused", "task_detail": {"task_id": "t"}})).facts;
        assert_eq!(facts.kind, UNKNOWN);
        assert_eq!(facts.provider_type.as_deref(), Some("task_paused"));
        assert_eq!((facts.event_id.as_str(), facts.task_id.as_deref()), ("e1", Some("t")));
        // A type that we know in a shape that we do not.
        let facts = read_json(&json!({"event_id": "e1", "event_type": "task_stopped", "task_detail": []})).facts;
        assert_eq!((facts.kind.as_str(), facts.provider_type.as_deref()), (UNKNOWN, Some("task_stopped")));
    }

    #[test]
    fn an_event_without_a_text_as_id_is_named_by_its_body() {
        for event in
            [json!({}), json!({"event_id": 7}), json!({"event_id": ""}), json!({"event_id": null}), json!([1]), json!("x")]
        {
            let body = event.to_string();
            assert_eq!(read(body.as_bytes()).facts.event_id, body_id(body.as_bytes()));
        }
        let reading = read(b"not json");
        assert_eq!((reading.facts.kind.as_str(), reading.ping), (UNKNOWN, false));
        assert_eq!(reading.facts.event_id, body_id(b"not json"));
        assert_eq!(read(b"").facts.kind, UNKNOWN);
    }

    #[test]
    fn the_registration_ping_is_told_by_its_task() {
        let ping = json!({"event_id": "e", "event_type": "task_created", "task_detail": {"task_id": "test_task_id"}});
        assert!(read_json(&ping).ping);
        assert!(!read_json(&json!({"event_type": "task_created", "task_id": "test_task_id"})).ping);
    }

    #[test]
    fn answers_to_choose_from_make_a_question() {
        let event = json!({"event_id": "e", "event_type": "task_stopped", "task_detail": {"task_id": "t", "message": "A or B?",
            "stop_reason": "ask", "question_expectation": {"options": ["A", {"label": "B"}, 3]}}});
        let question = read_json(&event).facts.question.unwrap();
        assert_eq!(question.text.as_deref(), Some("A or B?"));
        assert_eq!(question.options, ["A", "B"]);
        assert_eq!(read(&sample("task_stopped_ask.json")).facts.question, None);
    }

    /// JSON with our names in it, so that every branch is met.
    fn any_event() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(json!("task_stopped")),
            Just(json!("https://x.example/a?b")),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let name = prop_oneof![
                Just("event_id"),
                Just("event_type"),
                Just("task_detail"),
                Just("progress_detail"),
                Just("task_id"),
                Just("attachments"),
                Just("url"),
                Just("size_bytes"),
                Just("question_expectation"),
                Just("options"),
                Just("structured_output"),
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(name.prop_map(str::to_owned), inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let reading = read(&body);
            prop_assert!(!reading.facts.event_id.is_empty());
        }

        #[test]
        fn any_json_can_be_read(event in any_event()) {
            let facts = read_json(&event).facts;
            prop_assert!(!facts.event_id.is_empty());
            prop_assert!(facts.kind == UNKNOWN || facts.task_id.is_some());
        }
    }
}
