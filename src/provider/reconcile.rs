//! Finding stops that no webhook told: what a source says of it, and what a provider must be able to tell for it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Listed;
use crate::task::Stop;

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

    /// The same, as whoever looks for stops reads it.
    pub(super) fn rounds(&self) -> Rounds {
        let Self { interval, grace, horizon, backfill } = *self;
        Rounds { interval, grace, horizon, backfill, after: Duration::ZERO }
    }
}

/// `[sources.NAME.reconcile]` of a provider whose tasks cannot be listed: those that are known are asked for one by one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Polls {
    /// How long after it was first heard of a task is first asked for; as long as its provider's take, if nothing is said.
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
    /// How often it is looked which tasks are to be asked for, and the least time between two times that one is.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How long a webhook may take: a younger end is left to it.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How long after it was first heard of a task is asked for at all.
    #[serde(with = "humantime_serde")]
    pub horizon: Duration,
}

impl Default for Polls {
    fn default() -> Self {
        let Reconcile { interval, grace, horizon, .. } = Reconcile::default();
        Self { after: None, interval, grace, horizon }
    }
}

impl Polls {
    /// The same, of a provider whose tasks are first asked for `after` so long.
    pub(super) fn after(after: Duration) -> Self {
        Self { after: Some(after), ..Self::default() }
    }

    /// All that is wrong, each in a line that begins with its key.
    pub(super) fn check(&self) -> Vec<String> {
        let Self { after, interval, grace, horizon } = *self;
        let mut wrong = Reconcile { interval, grace, horizon, backfill: Duration::ZERO }.check();
        if after.is_some_and(|after| horizon <= after) {
            wrong.push("`reconcile.horizon` must be longer than `reconcile.after`: else nothing is ever asked for".to_owned());
        }
        wrong
    }

    /// The same, as whoever looks for stops reads it.
    pub(super) fn rounds(&self, usual: Duration) -> Rounds {
        let Self { after, interval, grace, horizon } = *self;
        Rounds { interval, grace, horizon, backfill: Duration::ZERO, after: after.unwrap_or(usual) }
    }
}

/// How stops of a source are found that no webhook told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// How often there is a round.
    pub interval: Duration,
    /// How long a stop is left to its webhook.
    pub grace: Duration,
    /// How far back tasks are compared; of those that cannot be listed, how old one may be that is asked for.
    pub horizon: Duration,
    /// At the first start: how old a stop may be that is handed on all the same.
    pub backfill: Duration,
    /// How old a task must be to be asked for by itself.
    pub after: Duration,
}

/// A task that is asked for by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The provider's id.
    pub task_id: String,
    /// What it is, in the provider's word: its kind where that was told, else the type of its newest event.
    pub kind: Option<String>,
    /// What else must be known to ask for it, where that is more than its id. A credential: it is shown to nobody.
    pub locator: Option<String>,
}

/// A stop that no webhook told.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    /// Its task, as a list shows it.
    pub listed: &'a Listed,
    /// Its task, where it was asked for by itself.
    pub expected: Option<&'a Expected>,
    /// The answer that showed it, where its task was asked for by itself.
    pub raw: &'a str,
    /// The stop.
    pub stop: &'a Stop,
    /// The id of the event.
    pub event_id: &'a str,
    /// Whether a webhook may have told of it.
    pub may_repeat: bool,
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
