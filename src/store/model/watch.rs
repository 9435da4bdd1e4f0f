//! What somebody should know of as long as it holds.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::event::Watch;

/// What the store is looked through for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Tasks of a source of which nothing was heard.
    TaskSilent,
    /// Tasks of a source that wait for an answer.
    TaskWaiting,
    /// Events of a source that were given up on.
    DeadEvent,
    /// Deliveries to a destination that wait.
    NotDelivered,
    /// Deliveries to a destination that were given up on.
    DeadDelivery,
}

impl Look {
    /// What it is a watch of.
    #[must_use]
    pub fn watch(self) -> Watch {
        match self {
            Self::TaskSilent => Watch::TaskSilent,
            Self::TaskWaiting => Watch::TaskWaiting,
            Self::DeadEvent | Self::DeadDelivery => Watch::DeadLetter,
            Self::NotDelivered => Watch::NotDelivered,
        }
    }
}

/// Something that holds, and that somebody should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it is about, within its watch and source.
    pub key: String,
    /// The source.
    pub source: String,
    /// The task, where it is about one.
    pub task_id: Option<String>,
    /// The destination that is in trouble, where one is.
    pub destination: Option<String>,
    /// Since when it has held.
    pub since: Timestamp,
    /// What more is known: a JSON object.
    pub detail: Value,
}

/// A condition that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The row.
    pub seq: i64,
    /// What holds, or held.
    pub condition: Condition,
    /// When it was noticed.
    pub raised_at: Timestamp,
    /// When it was noticed that it does not hold any more.
    pub cleared_at: Option<Timestamp>,
    /// The id of the newest event that tells of it, alone or with others.
    pub event: Uuid,
}
