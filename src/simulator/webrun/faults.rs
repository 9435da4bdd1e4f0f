//! What is to go wrong, and how often. Set with [`WebRun::set_faults`](super::WebRun::set_faults), or over HTTP, see [`FAULTS`].

use serde::{Deserialize, Serialize};

use super::{ApiFault, Times};

/// How to set faults over HTTP, for people.
pub const FAULTS: &str = r#"POST /_simulator/faults with a JSON object replaces all faults; {} clears them; GET shows what is left of them.
N is a number (the next so many) or true (always).
Webhooks, one at a time:
  "drop": N            never sent
  "duplicate": N       sent twice
  "reorder": N         held back until after the next webhook of any task
  "wrong_auth": N      sent with another Authorization value
  "no_auth": N         sent without one
API, the first that matches a call:
  "api": [{"only": "/task/", "times": N, "slow_ms": M, "answer": A}]
  `only` is a part of path and query (absent: every call); A is absent (only slow), "html", "half", "huge" (10 MiB), "empty",
  "lost" (done, but the connection closes without an answer), {"refuse": {"status": 429, "retry_after": "2"}} (not done), or
  {"redirect": "https://..."} (not done). Files are calls as well: "only": "/files/"
While set:
  "refused_keys": ["enig_..."]   "links_expired": true
  "clock_offset_seconds": S (everything the simulator says about time)
Also: GET /_simulator/requests, GET /_simulator/deliveries: what was called, what was sent."#;

/// What is to go wrong. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Webhooks that are never sent.
    pub drop: Times,
    /// Webhooks that are sent twice.
    pub duplicate: Times,
    /// Webhooks that are held back until after the next one (or until nothing is left to do).
    pub reorder: Times,
    /// Requests with another `Authorization` value.
    pub wrong_auth: Times,
    /// Requests without an `Authorization` value.
    pub no_auth: Times,
    /// What goes wrong with API calls; the first that matches a call strikes.
    pub api: Vec<ApiFault>,
    /// Keys that are refused with 401 although their account exists.
    pub refused_keys: Vec<String>,
    /// Every link to a file is answered 403.
    pub links_expired: bool,
    /// Added to everything that the simulator says about time, in seconds.
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
