//! Finding stops that no webhook told: what a source says of it, and what a provider must be able to tell for it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Listed;

/// `[sources.NAME.reconcile]`: how stops are found that no webhook told. It is always on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// How often the list of tasks is read.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How long a webhook may take: a younger stop is left to it.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How far back tasks are compared that stopped before, once an hour.
    #[serde(with = "humantime_serde")]
    pub horizon: Duration,
    /// At the first start: how old a stop may be that is handed on all the same. What is older is left alone.
    #[serde(with = "humantime_serde")]
    pub backfill: Duration,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(2),
            grace: Duration::from_mins(1),
            horizon: Duration::from_hours(7 * 24),
            backfill: Duration::ZERO,
        }
    }
}

/// The shortest `interval`: each reading of the list is a call.
const LEAST_INTERVAL: Duration = Duration::from_secs(10);

/// The longest `horizon`: half of the least time that stops are remembered.
const MOST_HORIZON: Duration = Duration::from_hours(30 * 24);

impl Reconcile {
    /// All that is wrong, each in a line that begins with its key.
    pub(super) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.interval < LEAST_INTERVAL {
            wrong
                .push("`reconcile.interval` must be at least 10 seconds (\"10s\"): each reading is a call of the API".to_owned());
        }
        if self.horizon > MOST_HORIZON {
            let reason = "must be at most 30 days (\"30d\"): what was handed on before is not remembered for ever";
            wrong.push(format!("`reconcile.horizon` {reason}"));
        }
        if self.horizon < self.interval {
            wrong.push("`reconcile.horizon` must not be shorter than `reconcile.interval`".to_owned());
        }
        wrong
    }
}

/// A page of a list of tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct ListPage {
    /// Its tasks, the newest first.
    pub tasks: Vec<Listed>,
    /// Down to which time it reaches, of those that the list is ordered by.
    pub reaches: Option<Timestamp>,
    /// What the next page is asked for by, if there is one.
    pub next: Option<String>,
}

/// An event that we make of a stop that no webhook told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its type.
    pub kind: &'static str,
    /// Its body, which reads as a webhook's does.
    pub body: String,
}
