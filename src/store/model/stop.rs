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

/// What was seen of a task when its stops were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Every stop is accounted for that its provider showed as of this time of its own.
    pub updated_at: Option<Timestamp>,
    /// When it was asked for by itself.
    pub polled: Option<Timestamp>,
    /// It has ended, and was seen to at this time; the first such time stays.
    pub ended_at: Option<Timestamp>,
    /// Where it stands, if its end is accounted for.
    pub state: Option<State>,
}

/// Which tasks that may still be at work are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whether a task must be proven ours; else one counts that told of itself.
    pub proven: bool,
    /// Those that were first heard of later than this.
    pub since: Timestamp,
    /// The most of them.
    pub limit: usize,
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
    /// What it is, in the provider's word: its kind where that was told, else the type of its newest event.
    pub kind: Option<String>,
    /// What else must be known to ask for it. A credential.
    pub locator: Option<String>,
    /// When it was first seen to have ended, where the provider does not tell when it did.
    pub ended_at: Option<Timestamp>,
}

/// A task that stopped, as its provider's list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The provider's id.
    pub task_id: String,
    /// Where it stands.
    pub state: State,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
}
