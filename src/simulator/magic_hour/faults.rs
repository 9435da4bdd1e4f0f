//! What is to go wrong, and how often. Set with [`MagicHour::set_faults`](super::MagicHour::set_faults), or over HTTP, see [`FAULTS`].

use serde::{Deserialize, Serialize};

use super::{ApiFault, Times};

/// How to set faults over HTTP, for people.
pub const FAULTS: &str = r#"POST /_simulator/faults with a JSON object replaces all faults; {} clears them; GET shows what is left of them.
N is a number (the next so many) or true (always).
Events, one at a time:
  "drop": N            never sent
  "duplicate": N       sent twice
  "reorder": N         held back until after the account's next event
Requests that carry them:
  "wrong_secret": N    signed with another secret
  "decoded_secret": N  signed with the secret's Base64 part, decoded, as some libraries read `whsec_`
  "reserialised": N    signed as compact JSON and sent with spaces, as a known test script does
  "stale_seconds": S   the signed timestamp is so much older; while set
API, the first that matches a call:
  "api": [{"only": "projects", "times": N, "slow_ms": M, "answer": A}]
  `only` is a part of path and query (absent: every call); A is absent (only slow), "html", "half", "huge" (10 MiB), "empty",
  "lost" (done, but the connection closes without an answer), {"refuse": {"status": 429, "retry_after": "2"}} (not done), or
  {"redirect": "https://..."} (not done). Files are calls as well: "only": "/files/"
While set:
  "refused_keys": ["mhk_..."]   "links_expired": true
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
    /// Requests that are signed with another secret.
    pub wrong_secret: Times,
    /// Requests that are signed with what the secret decodes to.
    pub decoded_secret: Times,
    /// Requests that are signed over other white space than is sent.
    pub reserialised: Times,
    /// How much older than now the signed timestamp is, in seconds; may be negative.
    pub stale_seconds: i64,
    /// What goes wrong with API calls; the first that matches a call strikes.
    pub api: Vec<ApiFault>,
    /// Keys that are refused with 401 although their account exists.
    pub refused_keys: Vec<String>,
    /// Every link to a file is answered 403.
    pub links_expired: bool,
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
