//! An event: one accepted webhook request, provider-neutral.
//!
//! Two shapes. [`Facts`] is what an event says, read from its body by its provider; it is the `event` member of the envelope.
//! [`NewEvent`] is what the store keeps: the exact bytes and headers as they came, and what the receiver decided about them.
//! What identifies an event is read once, at its receipt, from the whole request. The rest of the facts is read again from the kept
//! bytes whenever it is needed, so a better reader later also reads old events better.

mod watch;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use self::watch::Watch;
use crate::task::Question;

/// Our word for a type, or a shape, that we do not know. The provider's own word is then in [`Facts::provider_type`].
pub const UNKNOWN: &str = "unknown";
/// The first announcement of a task (Manus: `task_created`).
pub const TASK_CREATED: &str = "task_created";
/// A step of a running task (Manus, v1 only: `task_progress`).
pub const TASK_PROGRESS: &str = "task_progress";
/// A task that ended a turn: finished, or wants an answer (Manus: `task_stopped`).
pub const TASK_STOPPED: &str = "task_stopped";
/// A task that failed, which no webhook of Manus tells: ours, see [`Verification::Api`].
pub const TASK_FAILED: &str = "task_failed";

/// How a request proved where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// A signature that was checked and is good.
    Signature,
    /// A value that was agreed with the sender, in a header.
    Authorization,
    /// No request told it: the provider's API did, asked with our own key.
    Api,
    /// Nobody told it: taskhook noticed it by itself. See [`Watch`].
    Watch,
    /// Nothing was checked: the source says `verify = "none"`.
    None,
}

impl Verification {
    /// The word in the store, the API and the envelope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Authorization => "authorization",
            Self::Api => "api",
            Self::Watch => "watch",
            Self::None => "none",
        }
    }

    /// The value that [`Verification::as_str`] wrote; whatever else is nothing that was checked.
    #[must_use]
    pub fn of(word: &str) -> Self {
        [Self::Signature, Self::Authorization, Self::Api, Self::Watch]
            .into_iter()
            .find(|one| one.as_str() == word)
            .unwrap_or(Self::None)
    }
}

/// What an event says: the `event` member of the envelope, where the raw body stands as `payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The provider's id of the event, or `sha256:` and the hex digest of the raw body where it has none.
    pub event_id: String,
    /// The provider's word where we know it, else [`UNKNOWN`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The provider's word as it came.
    pub provider_type: Option<String>,
    /// The provider's id of the task.
    pub task_id: Option<String>,
    /// The task's title.
    pub title: Option<String>,
    /// The task's page.
    pub url: Option<String>,
    /// What the agent says.
    pub message: Option<String>,
    /// Why a task stopped: `finish` or `ask` (Manus); of what was recovered also `error` or `user`.
    pub stop_reason: Option<String>,
    /// Files that the event names.
    pub attachments: Vec<Attachment>,
    /// The kind of a progress step, such as `plan_update`.
    pub progress: Option<String>,
    /// What the task asks, where the event tells.
    pub question: Option<Question>,
    /// The answer in the form that was asked for, with `success`, `value` and `error` (Manus v2).
    pub structured_output: Option<Value>,
}

/// A file that an event names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name, as the provider gives it: third-party text.
    pub name: String,
    /// Where the provider keeps it, for a while.
    pub url: Option<String>,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
}

/// An accepted request, ready to be kept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Our id (UUID v7): the one that the sender is answered with.
    pub id: Uuid,
    /// The configured source that it came in on.
    pub source: String,
    /// The source's provider.
    pub provider: &'static str,
    /// When it was received.
    pub received_at: Timestamp,
    /// How it was verified.
    pub verification: Verification,
    /// The path and query that it was sent to, a path token replaced by `[redacted]`.
    pub target: String,
    /// The headers, names in lower case, values of one name together in the order they came; credentials replaced by `[redacted]`.
    pub headers: Vec<(String, String)>,
    /// The exact bytes.
    pub body: Bytes,
    /// See [`Facts::kind`].
    pub kind: String,
    /// See [`Facts::provider_type`].
    pub provider_type: Option<String>,
    /// See [`Facts::event_id`].
    pub event_id: String,
    /// See [`Facts::task_id`].
    pub task_id: Option<String>,
    /// The provider's test request at registration: kept, never worked on.
    pub ping: bool,
    /// Whether the same id with other content is an event of its own (Manus), not a repeat.
    pub collides: bool,
    /// What is to be done with it first.
    pub first: First,
}

/// The first stage of a new event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Prove that its task is ours; then fetch or route it.
    Prove,
    /// Nothing proves that it is ours: show it, and never dispatch it unless it is released by hand.
    Quarantine,
    /// Nothing: it is kept to be looked at.
    Keep,
}

/// The key under which an event is accepted once: 16 bytes of SHA-256. No part of it is a clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key of `event_id` on `source`.
    #[must_use]
    pub fn of(source: &str, event_id: &str) -> Self {
        Self::hash(&[source.as_bytes(), event_id.as_bytes()])
    }

    /// The key of a collision: the same id, told apart by its content.
    #[must_use]
    pub fn of_collision(source: &str, event_id: &str, content: &[u8; 32]) -> Self {
        Self::hash(&[source.as_bytes(), event_id.as_bytes(), content])
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&digest(&SHA256, &text).as_ref()[..16]);
        Self(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", hex(&self.0))
    }
}

/// The digest of what `body` says, for telling a repeat from a collision: JSON values are compared, not bytes, and every
/// `http(s)` URL inside a string is cut at `?` or `#`, since links are signed anew on every send. What is not JSON is its bytes.
#[must_use]
pub fn content_digest(body: &[u8]) -> [u8; 32] {
    let mut text = Vec::with_capacity(body.len() + 1);
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        text.push(b'j');
        canonical(&value, &mut text);
    } else {
        text.push(b'b');
        text.extend_from_slice(body);
    }
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, &text).as_ref());
    out
}

/// One text for each JSON value: keys sorted, links cut.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in members {
                out.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                out.push(b':');
                canonical(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::String(text) => out.extend_from_slice(Value::from(cut_links(text)).to_string().as_bytes()),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.extend_from_slice(value.to_string().as_bytes()),
    }
}

/// `text` with the query and fragment of every link in it left out. A link ends where prose or Markdown would end it.
fn cut_links(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'<>)]}`|\\".contains(c);
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = ["http://", "https://"].iter().filter_map(|scheme| lower[at..].find(scheme)).min() {
        let start = at + found;
        let end = text[start..].find(ends).map_or(text.len(), |length| start + length);
        let link = &text[start..end];
        out.push_str(&text[at..start]);
        out.push_str(&link[..link.find(['?', '#']).unwrap_or(link.len())]);
        at = end;
    }
    out.push_str(&text[at..]);
    out
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Whether a task may have this id: providers' are short words. One that cannot be shown or stored as a name is none.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=512).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The id of an event whose provider gave none.
#[must_use]
pub fn body_id(body: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, body).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_is_values_not_bytes() {
        assert_eq!(content_digest(br#"{"a":1,"b":[true]}"#), content_digest(b"{ \"b\" : [true], \"a\": 1 }"));
        assert_ne!(content_digest(br#"{"a":1}"#), content_digest(br#"{"a":"1"}"#));
        assert_ne!(content_digest(br#"[["a"],"b"]"#), content_digest(br#"[["a","b"]]"#));
        assert_ne!(content_digest(b"not json"), content_digest(b"not  json"));
    }

    #[test]
    fn a_link_signed_anew_is_the_same_content() {
        for (one, two) in [
            ("https://cdn.example/a.md?Policy=1", "https://cdn.example/a.md?Policy=2&Signature=x"),
            (
                "see [a](https://cdn.example/a?x=1) and https://b.example/#now.",
                "see [a](https://cdn.example/a?x=2) and https://b.example/#then",
            ),
            ("HTTPS://cdn.example/a?1 rest", "HTTPS://cdn.example/a?2 rest"),
        ] {
            let body = |text: &str| serde_json::json!({"detail": {"attachments": [text]}}).to_string();
            assert_eq!(content_digest(body(one).as_bytes()), content_digest(body(two).as_bytes()), "{one}");
        }
        assert_ne!(content_digest(br#""https://a.example/1?x""#), content_digest(br#""https://a.example/2?x""#));
        assert_ne!(content_digest(br#""what? a""#), content_digest(br#""what? b""#));
        assert_ne!(content_digest(br#""https://a.example/?x b""#), content_digest(br#""https://a.example/?x c""#));
    }

    #[test]
    fn keys_keep_their_parts_apart() {
        assert_ne!(Key::of("ab", "c"), Key::of("a", "bc"));
        assert_ne!(Key::of("a", "b"), Key::of_collision("a", "b", &[0; 32]));
    }

    proptest! {
        #[test]
        fn cutting_links_takes_any_text(text in ".*") {
            let once = cut_links(&text);
            prop_assert!(once.len() <= text.len());
        }

        #[test]
        fn any_bytes_have_a_digest(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(content_digest(&body), content_digest(&body));
        }
    }
}
