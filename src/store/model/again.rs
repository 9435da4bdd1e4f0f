//! What a person asks of the store: to try deliveries again, to discard them, to replay events.

use jiff::Timestamp;
use serde::Serialize;

use crate::clock;

/// The most rows that are found, or acted on, in one step: senders wait for no longer transaction.
pub const STEP: usize = 50;

/// What is done to rows, one by one or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Deliveries are tried again.
    Retry,
    /// Deliveries are given up on for good.
    Discard,
    /// Events go through the routes again.
    Replay,
}

/// What rows are like that are meant. Every member narrows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Like {
    /// The event's source.
    pub source: Option<String>,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The event's task.
    pub task: Option<String>,
    /// The state, of the event or of the delivery.
    pub state: Option<String>,
    /// The event was received, or the delivery made, then or later.
    #[serde(with = "clock::optional")]
    pub since: Option<Timestamp>,
    /// The event was received, or the delivery made, before then.
    #[serde(with = "clock::optional")]
    pub until: Option<Timestamp>,
    /// The delivery's destination.
    pub destination: Option<String>,
    /// The route that chose it.
    pub route: Option<String>,
}

/// Which rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// Events that can be replayed: those that are done with or given up on, and where that state is asked for, those only kept.
    Events(Like),
    /// Deliveries; where no state is asked for, those that are dead.
    Deliveries(Like),
}

/// Some of the rows that were meant, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// The rows, at most [`STEP`].
    pub rows: Vec<i64>,
    /// Where to go on; `None` at the end.
    pub next: Option<i64>,
}

/// What came of a wish to try a delivery again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is due now.
    Due,
    /// It goes after this delivery of its lane.
    Behind(String),
    /// It is being sent right now.
    InFlight,
    /// It is in this state, which nothing leads out of.
    Not(String),
    /// There is no such delivery.
    Unknown,
}

/// What came of a wish to discard a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// It is discarded.
    Yes,
    /// It is being sent right now.
    InFlight,
    /// It is in this state, which nothing leads out of.
    Not(String),
    /// There is no such delivery.
    Unknown,
}

/// What came of a wish to replay an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It goes its way again: this is the number of the replay.
    Yes(u32),
    /// This replay of it is still on its way: there is no second one.
    Already(u32),
    /// It is in this state; `ping` is the provider's test request.
    Not(String),
    /// There is no such event.
    Unknown,
}
