//! What is to go wrong, and how often. Set with [`Manus::set_faults`](super::Manus::set_faults), or over HTTP, see [`FAULTS`].

use serde::{Deserialize, Serialize};

use super::{ApiFault, Times};

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
  "lag_seconds": N (what happens is in lists, details and messages so much later)
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
    /// What happens to a task is shown by the API so many seconds later; webhooks tell it at once.
    pub lag_seconds: u64,
    /// Keys that are refused with 401 although their account exists.
    pub refused_keys: Vec<String>,
    /// Every link to a file is answered 403.
    pub links_expired: bool,
    /// Added to the `Date` header, in seconds.
    pub date_offset_seconds: i64,
    /// Added to everything that the simulator says about time, `Date` and signatures included, in seconds.
    pub clock_offset_seconds: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_fault_and_nothing_else() {
        let all = serde_json::to_value(Faults::default()).unwrap();
        for name in all.as_object().unwrap().keys() {
            assert!(FAULTS.contains(&format!("\"{name}\"")), "{name}");
        }
        assert!(serde_json::from_str::<Faults>(r#"{"duplicates": 1}"#).is_err());
    }
}
