//! The envelope: what a destination gets, and what `when` may name.
//!
//! What must hold: members are written in the order of these structs and none is ever left out (not known is `null`, none is
//! `[]`), so that whoever reads one envelope has seen the shape of all. The names that an expression may use are taken from
//! [`Envelope::sample`], which is one of these structs serialised: they cannot differ.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;
use crate::event::{self, Attachment, Facts, Verification};
use crate::task::{self, File, FileStatus, Message, Question, QuestionKind, Task, Usage};
use crate::template::Schema;

/// Where any name is allowed: this JSON is the provider's or the user's own.
const FREE: &[&str] = &[
    "event.payload",
    "event.structured_output",
    "event.question.input_schema",
    "task.structured_output",
    "task.question.input_schema",
];

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let value = |envelope: &Envelope| serde_json::to_value(envelope).expect("an envelope is JSON");
    let full = Envelope::sample();
    let mut unfetched = full.clone();
    unfetched.event.facts =
        Facts { event_id: full.event.facts.event_id.clone(), kind: full.event.facts.kind.clone(), ..Facts::default() };
    unfetched.event.valid = None;
    unfetched.task = None;
    unfetched.files.clear();
    unfetched.collision_of = None;
    let bare = Envelope {
        task: Some(Task { id: "a task of which nothing is known".to_owned(), ..Task::default() }),
        ..unfetched.clone()
    };
    Schema::new(&value(&full), &[value(&unfetched), value(&bare)], FREE)
});

/// An event with everything that is known of its task and its files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a document: each is a member that readers test by itself")]
pub struct Envelope {
    /// Our id of the event.
    pub id: Uuid,
    /// The provider's word where we know it, else `unknown`; or one of ours: `task_failed`, `watch.*`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The configured source that it came in on.
    pub source: String,
    /// That source's provider.
    pub provider: String,
    /// When it was received.
    #[serde(serialize_with = "rfc3339")]
    pub received_at: Timestamp,
    /// How it was verified.
    pub verification: Verification,
    /// Whether no webhook told of it: we found it by asking.
    pub recovered: bool,
    /// Whether a person sent it again.
    pub replayed: bool,
    /// Whether the destination may have got it before: an earlier attempt has an unknown outcome.
    pub may_repeat: bool,
    /// Whether it goes out before an earlier event of its task.
    pub out_of_order: bool,
    /// Our id of the event that came before with the same id and other content.
    pub collision_of: Option<Uuid>,
    /// What the event says.
    pub event: Event,
    /// The task as last fetched; `null` only where none was.
    pub task: Option<Task>,
    /// The task's files.
    pub files: Vec<File>,
}

/// What the event says, and its body.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Read from the body by the provider.
    #[serde(flatten)]
    pub facts: Facts,
    /// Whether the body fits the JSON Schema of its source; `null` where the source has none.
    pub valid: Option<bool>,
    /// The request body as JSON; a string if it is not JSON.
    pub payload: Value,
}

impl Envelope {
    /// The destination that a watch event tells of, which therefore never gets it.
    #[must_use]
    pub fn in_trouble(&self) -> Option<&str> {
        self.event.payload["destination"].as_str().filter(|_| self.verification == Verification::Watch)
    }

    /// The names that expressions may use.
    #[must_use]
    pub fn schema() -> &'static Schema {
        &SCHEMA
    }

    /// An envelope in which everything is known: the source of [`Envelope::schema`], and something to try a destination with.
    #[must_use]
    pub fn sample() -> Self {
        let task_id = "9rP8DLRXVC9fkKBKEELXkg".to_owned();
        let text = |text: &str| Some(text.to_owned());
        let page = text("https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg");
        let file_url = text("https://files.example.com/answer.md");
        let message_id = text("l3jxHYsaaIOUKP25D0sN7A");
        let question = Some(Question {
            kind: QuestionKind::Action,
            text: text("Publish the answer?"),
            options: vec!["Yes".to_owned(), "No".to_owned()],
            action: text("deployAction"),
            event_id: text("d5GkQ1"),
            input_schema: Some(json!({"type": "object"})),
        });
        let structured_output = Some(json!({"success": true, "value": {"answer": 4}, "error": null}));
        let payload = json!({
            "event_id": "task_stopped_9rP8DLRXVC9fkKBKEELXkg_1763507100",
            "event_type": event::TASK_STOPPED,
            "task_detail": {"task_id": task_id, "task_title": "What is 2 + 2?", "message": "Done!", "stop_reason": "finish"},
        });
        let facts = Facts {
            event_id: "task_stopped_9rP8DLRXVC9fkKBKEELXkg_1763507100".to_owned(),
            kind: event::TASK_STOPPED.to_owned(),
            provider_type: text(event::TASK_STOPPED),
            task_id: Some(task_id.clone()),
            title: text("What is 2 + 2?"),
            url: page.clone(),
            message: text("Done!"),
            stop_reason: text("finish"),
            attachments: vec![Attachment { name: "answer.md".to_owned(), url: file_url.clone(), size_bytes: Some(7) }],
            progress: text("plan_update"),
            question: question.clone(),
            structured_output: structured_output.clone(),
        };
        let task = Task {
            id: task_id,
            title: text("What is 2 + 2?"),
            url: page,
            state: task::State::Finished,
            stop_reason: text("finish"),
            model: text("manus-1.5-agent"),
            created_at: at("2025-11-18T23:04:31Z"),
            updated_at: at("2025-11-18T23:05:00Z"),
            credits: Some(22.0),
            usage: Usage { input_tokens: Some(900), output_tokens: Some(100), compute_seconds: Some(29.5), cost_usd: Some(0.25) },
            complete: true,
            background: false,
            question,
            structured_output,
            error: text("the first try had no network"),
            messages: vec![Message {
                id: message_id.clone(),
                role: "assistant".to_owned(),
                created_at: at("2025-11-18T23:04:59Z"),
                text: "Done! The answer is **4**".to_owned(),
                files: vec![0],
            }],
            messages_omitted: 0,
        };
        let file = File {
            name: "answer.md".to_owned(),
            content_type: text("text/markdown"),
            size_bytes: Some(7),
            sha256: text("d6b681bfce7155d44721afb79c296ef4f0fa80a9dd6b43c5cf74dd0f64c85512"),
            link: text("https://hooks.example.com/files/answer.md"),
            provider_url: file_url,
            status: FileStatus::Archived,
            message_id,
        };
        Self {
            id: Uuid::from_u128(0x019a_9936_de14_7c3a_9d52_0f6c_1e8b_4a77),
            kind: facts.kind.clone(),
            source: "manus".to_owned(),
            provider: "manus".to_owned(),
            received_at: at("2025-11-18T23:05:01.204Z").unwrap_or_default(),
            verification: Verification::Signature,
            recovered: false,
            replayed: false,
            may_repeat: false,
            out_of_order: false,
            collision_of: Some(Uuid::from_u128(0x019a_9936_de14_7c3a_9d52_0f6c_1e8b_4a76)),
            event: Event { facts, valid: Some(true), payload },
            task: Some(task),
            files: vec![file],
        }
    }
}

fn at(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

fn rfc3339<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&clock::rfc3339(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Context, Expression};

    /// Every member of `value` that tells nothing of its shape.
    fn unknown(value: &Value, path: &str, out: &mut Vec<String>) {
        if FREE.contains(&path) && !value.is_null() {
            return;
        }
        match value {
            Value::Null => out.push(path.to_owned()),
            Value::Array(items) if items.is_empty() => out.push(path.to_owned()),
            Value::Array(items) => unknown(&items[0], path, out),
            Value::Object(members) => {
                for (name, value) in members {
                    unknown(value, format!("{path}.{name}").trim_start_matches('.'), out);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn skeleton(value: &Value) -> Value {
        match value {
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), skeleton(value))).collect(),
            _ => Value::Null,
        }
    }

    #[test]
    fn the_sample_knows_everything() {
        let mut out = Vec::new();
        unknown(&serde_json::to_value(Envelope::sample()).unwrap(), "", &mut out);
        assert_eq!(out, [""; 0]);
    }

    #[test]
    fn members_are_written_in_the_documented_order() {
        let mut envelope = Envelope::sample();
        envelope.collision_of = None;
        insta::assert_snapshot!(serde_json::to_string_pretty(&envelope).unwrap(), @r#"
        {
          "id": "019a9936-de14-7c3a-9d52-0f6c1e8b4a77",
          "type": "task_stopped",
          "source": "manus",
          "provider": "manus",
          "received_at": "2025-11-18T23:05:01.204Z",
          "verification": "signature",
          "recovered": false,
          "replayed": false,
          "may_repeat": false,
          "out_of_order": false,
          "collision_of": null,
          "event": {
            "event_id": "task_stopped_9rP8DLRXVC9fkKBKEELXkg_1763507100",
            "type": "task_stopped",
            "provider_type": "task_stopped",
            "task_id": "9rP8DLRXVC9fkKBKEELXkg",
            "title": "What is 2 + 2?",
            "url": "https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg",
            "message": "Done!",
            "stop_reason": "finish",
            "attachments": [
              {
                "name": "answer.md",
                "url": "https://files.example.com/answer.md",
                "size_bytes": 7
              }
            ],
            "progress": "plan_update",
            "question": {
              "kind": "action",
              "text": "Publish the answer?",
              "options": [
                "Yes",
                "No"
              ],
              "action": "deployAction",
              "event_id": "d5GkQ1",
              "input_schema": {
                "type": "object"
              }
            },
            "structured_output": {
              "error": null,
              "success": true,
              "value": {
                "answer": 4
              }
            },
            "valid": true,
            "payload": {
              "event_id": "task_stopped_9rP8DLRXVC9fkKBKEELXkg_1763507100",
              "event_type": "task_stopped",
              "task_detail": {
                "message": "Done!",
                "stop_reason": "finish",
                "task_id": "9rP8DLRXVC9fkKBKEELXkg",
                "task_title": "What is 2 + 2?"
              }
            }
          },
          "task": {
            "id": "9rP8DLRXVC9fkKBKEELXkg",
            "title": "What is 2 + 2?",
            "url": "https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg",
            "state": "finished",
            "stop_reason": "finish",
            "model": "manus-1.5-agent",
            "created_at": "2025-11-18T23:04:31.000Z",
            "updated_at": "2025-11-18T23:05:00.000Z",
            "credits": 22,
            "usage": {
              "input_tokens": 900,
              "output_tokens": 100,
              "compute_seconds": 29.5,
              "cost_usd": 0.25
            },
            "complete": true,
            "background": false,
            "question": {
              "kind": "action",
              "text": "Publish the answer?",
              "options": [
                "Yes",
                "No"
              ],
              "action": "deployAction",
              "event_id": "d5GkQ1",
              "input_schema": {
                "type": "object"
              }
            },
            "structured_output": {
              "error": null,
              "success": true,
              "value": {
                "answer": 4
              }
            },
            "error": "the first try had no network",
            "messages": [
              {
                "id": "l3jxHYsaaIOUKP25D0sN7A",
                "role": "assistant",
                "created_at": "2025-11-18T23:04:59.000Z",
                "text": "Done! The answer is **4**",
                "files": [
                  0
                ]
              }
            ],
            "messages_omitted": 0
          },
          "files": [
            {
              "name": "answer.md",
              "content_type": "text/markdown",
              "size_bytes": 7,
              "sha256": "d6b681bfce7155d44721afb79c296ef4f0fa80a9dd6b43c5cf74dd0f64c85512",
              "link": "https://hooks.example.com/files/answer.md",
              "provider_url": "https://files.example.com/answer.md",
              "status": "archived",
              "message_id": "l3jxHYsaaIOUKP25D0sN7A"
            }
          ]
        }
        "#);
    }

    #[test]
    fn what_is_not_known_is_null_and_no_member_is_left_out() {
        let mut envelope = Envelope::sample();
        envelope.event.facts = Facts::default();
        envelope.event.valid = None;
        envelope.event.payload = json!("not JSON");
        envelope.task = Some(Task::default());
        envelope.files.clear();
        let (bare, full) = (serde_json::to_value(&envelope).unwrap(), serde_json::to_value(Envelope::sample()).unwrap());
        for member in ["event", "task"] {
            let (bare, full) = (&bare[member], &full[member]);
            let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(bare), names(full));
        }
        assert_eq!(skeleton(&bare)["task"]["usage"], skeleton(&full)["task"]["usage"]);
        insta::assert_snapshot!(serde_json::to_string(&envelope).unwrap(), @r#"{"id":"019a9936-de14-7c3a-9d52-0f6c1e8b4a77","type":"task_stopped","source":"manus","provider":"manus","received_at":"2025-11-18T23:05:01.204Z","verification":"signature","recovered":false,"replayed":false,"may_repeat":false,"out_of_order":false,"collision_of":"019a9936-de14-7c3a-9d52-0f6c1e8b4a76","event":{"event_id":"","type":"","provider_type":null,"task_id":null,"title":null,"url":null,"message":null,"stop_reason":null,"attachments":[],"progress":null,"question":null,"structured_output":null,"valid":null,"payload":"not JSON"},"task":{"id":"","title":null,"url":null,"state":"unknown","stop_reason":null,"model":null,"created_at":null,"updated_at":null,"credits":null,"usage":{"input_tokens":null,"output_tokens":null,"compute_seconds":null,"cost_usd":null},"complete":false,"background":false,"question":null,"structured_output":null,"error":null,"messages":[],"messages_omitted":0},"files":[]}"#);
    }

    #[test]
    fn the_names_of_the_envelope_are_known_to_expressions() {
        for (source, holds) in [
            (r#"event.type == "task_stopped" and event.stop_reason == "finish""#, true),
            (r#"type == event.type and source == "manus" and not recovered"#, true),
            ("task.credits > 20 and task.usage.compute_seconds > 29", true),
            (r#"event.payload.task_detail.message == "Done!""#, true),
            ("task.structured_output.value.answer == 4", true),
            (r#"files | selectattr("status", "eq", "failed") | list"#, false),
            ("event.question.input_schema.properties.x", false),
        ] {
            let expression = Expression::condition(source, Envelope::schema()).unwrap();
            assert_eq!(expression.holds(&Context::of(&Envelope::sample())), Ok(holds), "{source}");
        }
    }
}
