//! What is to go wrong, and how often. Set with [`Manus::set_faults`](super::Manus::set_faults), or over HTTP, see [`FAULTS`].

use serde::{Deserialize, Serialize};

use super::super::Times;

/// How to set faults over HTTP, for people.
pub const FAULTS: &str = r#"POST /_simulator/faults with a JSON object replaces all faults; {} clears them; GET shows what is left of them.
N is a number (the next so many) or true (always).
Events, one at a time:
  "drop": N            never sent
  "duplicate": N       sent twice
  "reorder": N         held back until after the account's next event
  "reuse_id": N        bears the event_id of the account's event before it, with its own content
  "same_second": true  event ids bear the second of the task's last event of that type, so that they may collide
  "foreign": N         before it, a genuinely signed event of another account's task
Requests that carry them:
  "bad_signature": N   "double_hash": N (as old samples had it)   "http_for_https": N (the signed URL has the other scheme)
  "sign_for_url": "https://..." (while set)   "stale_seconds": S (the signed timestamp is so much older; while set)
API, the first that matches a call:
  "api": [{"only": "task.detail", "times": N, "slow_ms": M, "answer": A}]
  `only` is a part of path and query (absent: every call); A is absent (only slow), "html", "half", "huge" (10 MiB), "empty",
  "lost" (done, but the connection closes without an answer), {"refuse": {"status": 429, "retry_after": "2"}} (not done), or
  {"redirect": "https://..."} (not done). Files are calls as well: "only": "/files/"
While set:
  "refused_keys": ["sk-..."]   "links_expired": true   "date_offset_seconds": S (the Date header alone)
  "clock_offset_seconds": S (everything the simulator says about time, signatures included)
Also: GET /_simulator/requests, GET /_simulator/deliveries: what was called, what was sent."#;

/// What is to go wrong. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Events that are never sent.
    pub drop: Times,
    /// Events that are sent twice, with links signed anew.
    pub duplicate: Times,
    /// Events that are held back until after the account's next event (or until nothing is left to do).
    pub reorder: Times,
    /// Events that bear the `event_id` of the account's event before them.
    pub reuse_id: Times,
    /// Event ids bear the second of the task's last event of that type. Without it, ids of one task never repeat.
    pub same_second: bool,
    /// Events that are preceded by a genuinely signed `task_stopped` of a task of another account.
    pub foreign: Times,
    /// Requests whose signature is spoilt.
    pub bad_signature: Times,
    /// Requests signed over the digest of the signed string, as the documentation's samples once had it.
    pub double_hash: Times,
    /// Requests signed for `http://` where the webhook is `https://`, and the other way round.
    pub http_for_https: Times,
    /// The URL that requests are signed for, in place of the webhook's.
    pub sign_for_url: Option<String>,
    /// How much older than now the signed timestamp is, in seconds; may be negative.
    pub stale_seconds: i64,
    /// What goes wrong with API calls; the first that matches a call strikes.
    pub api: Vec<ApiFault>,
    /// Keys that are refused with 401 although their account exists.
    pub refused_keys: Vec<String>,
    /// Every link to a file is answered 403.
    pub links_expired: bool,
    /// Added to the `Date` header, in seconds.
    pub date_offset_seconds: i64,
    /// Added to everything that the simulator says about time, `Date` and signatures included, in seconds.
    pub clock_offset_seconds: i64,
}

/// What goes wrong with an API call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiFault {
    /// A part of the path and query; `None`: every call.
    #[serde(default)]
    pub only: Option<String>,
    /// How often.
    #[serde(default = "always")]
    pub times: Times,
    /// The wait before anything is done, in milliseconds on the simulator's clock.
    #[serde(default)]
    pub slow_ms: u64,
    /// What is answered.
    #[serde(default)]
    pub answer: Option<WrongAnswer>,
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongAnswer {
    /// The call is refused, and nothing is done.
    Refuse {
        /// The status, such as 503.
        status: u16,
        /// The `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The call is sent elsewhere, and nothing is done.
    Redirect(String),
    /// A page in HTML, as a proxy in between would answer; the call is done.
    Html,
    /// The first half of the answer, then the connection breaks; the call is done.
    Half,
    /// An answer of more than 10 MiB; the call is done.
    Huge,
    /// A body of no bytes; the call is done.
    Empty,
    /// The connection closes without an answer; the call is done.
    Lost,
}

fn always() -> Times {
    Times::Always
}

impl ApiFault {
    /// A fault that strikes every call whose path and query contain `only`.
    #[must_use]
    pub fn on(only: impl Into<String>, times: Times, answer: WrongAnswer) -> Self {
        Self { only: Some(only.into()), times, slow_ms: 0, answer: Some(answer) }
    }
}

impl Faults {
    /// The fault that strikes a call of `target` (path and query); counts it down.
    pub(super) fn for_call(&mut self, target: &str) -> Option<ApiFault> {
        let fault = self
            .api
            .iter_mut()
            .find(|fault| fault.times != Times::NEVER && fault.only.as_deref().is_none_or(|part| target.contains(part)))?;
        fault.times.strikes().then(|| fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_that_matches_and_is_left_strikes() {
        let mut faults: Faults = serde_json::from_str(
            r#"{"api": [{"only": "task.detail", "times": 1, "answer": {"refuse": {"status": 503}}}, {"answer": "html"}]}"#,
        )
        .unwrap();
        let mut answer = |target| faults.for_call(target).and_then(|fault| fault.answer);
        assert_eq!(answer("/v2/task.list"), Some(WrongAnswer::Html));
        assert!(matches!(answer("/v2/task.detail?task_id=x"), Some(WrongAnswer::Refuse { status: 503, .. })));
        assert_eq!(answer("/v2/task.detail?task_id=x"), Some(WrongAnswer::Html));
    }

    #[test]
    fn the_help_names_every_fault_and_nothing_else() {
        let all = serde_json::to_value(Faults::default()).unwrap();
        for name in all.as_object().unwrap().keys() {
            assert!(FAULTS.contains(&format!("\"{name}\"")), "{name}");
        }
        assert!(serde_json::from_str::<Faults>(r#"{"duplicates": 1}"#).is_err());
    }
}
