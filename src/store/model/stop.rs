//! What is kept of the stops of tasks: which event told of which.

use jiff::Timestamp;
use uuid::Uuid;

use crate::task::State;

/// The most webhooks of a task that are looked through for one that told of a stop.
pub const UNCLAIMED: usize = 50;

/// A stop of a task that an event told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// See [`crate::task::Stop::anchor`].
    pub anchor: String,
    /// Where the task stood then.
    pub state: State,
    /// When that was, by the provider's clock.
    pub at: Option<Timestamp>,
    /// The event.
    pub event: Uuid,
    /// Whether no webhook told it, but we found it.
    pub recovered: bool,
}

/// How far a source was reconciled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// What stopped before is left alone.
    pub since: Timestamp,
    /// When the list of tasks was read last.
    pub read_at: Option<Timestamp>,
    /// When it was last read back to the horizon.
    pub compared_at: Option<Timestamp>,
}

/// What is known of a task that was listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acquainted {
    /// Up to which time of the provider every stop of it is accounted for.
    pub looked_at: Option<Timestamp>,
    /// Whether an event of it is being worked on: that may tell of what is missing.
    pub busy: bool,
    /// Whether a person had it erased.
    pub erased: bool,
}

/// A task that may still be at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTask {
    /// The provider's id.
    pub task_id: String,
    /// Its title, where it is known.
    pub title: Option<String>,
    /// Its page, where it is known.
    pub url: Option<String>,
    /// When it was first heard of.
    pub first_seen_at: Timestamp,
    /// When it was last asked for by itself.
    pub polled_at: Option<Timestamp>,
}
