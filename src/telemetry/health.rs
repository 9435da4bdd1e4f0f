//! What does not work now, by part. Being degraded never stops events from being accepted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::metric::name;
use crate::clock::Clock;

/// The parts that are degraded; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    clock: Clock,
    parts: Arc<Mutex<BTreeMap<String, Reason>>>,
}

/// Why a part is degraded: an item of `reasons` in `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The part, such as `source manus` or `destination crm`.
    pub part: String,
    /// What is wrong with it, for people: no secret, no URL with a token.
    pub reason: String,
    /// Since when it has not worked, however often the reason changed.
    pub since: Timestamp,
}

impl Health {
    /// All well.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, parts: Arc::default() }
    }

    /// `part` does not work, because of `reason`. Logged when that is news.
    pub fn degrade(&self, part: &str, reason: impl Into<String>) {
        let reason = reason.into();
        let now = self.clock.now();
        let mut parts = self.parts();
        if let Some(known) = parts.get_mut(part) {
            if known.reason != reason {
                tracing::warn!(part, reason, "still degraded, for another reason");
                known.reason = reason;
            }
            return;
        }
        tracing::warn!(part, reason, "degraded");
        parts.insert(part.to_owned(), Reason { part: part.to_owned(), reason, since: now });
        metrics::gauge!(name::DEGRADED, "part" => part.to_owned()).set(1.0);
    }

    /// `part` works (again).
    pub fn recover(&self, part: &str) {
        if self.parts().remove(part).is_some() {
            tracing::info!(part, "works again");
            metrics::gauge!(name::DEGRADED, "part" => part.to_owned()).set(0.0);
        }
    }

    /// What is degraded now, by name of the part; empty when all is well.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        self.parts().values().cloned().collect()
    }

    /// A panic elsewhere leaves the map whole, since each change is one insert or one remove.
    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Reason>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_part_is_degraded_since_it_first_failed_until_it_recovers() {
        let at: Timestamp = "2025-11-18T23:05:01Z".parse().unwrap();
        let clock = Clock::manual(at);
        let health = Health::new(clock.clone());
        health.degrade("source manus", "401 Unauthorized");
        clock.advance(SignedDuration::from_secs(60));
        health.clone().degrade("source manus", "503 Service Unavailable");
        let reason = Reason { part: "source manus".to_owned(), reason: "503 Service Unavailable".to_owned(), since: at };
        assert_eq!(health.reasons(), [reason]);
        health.recover("source manus");
        health.recover("source manus");
        assert_eq!(health.reasons(), []);
    }
}
