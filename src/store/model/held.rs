//! Who claims the jobs of what, where several processes share a store.

use super::JobKind;

/// What has limits of its own: a source has the calls of its account, a destination its rate, its order and its breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// A source: its tasks are proven and fetched, and their files saved.
    Source(String),
    /// A destination.
    Destination(String),
}

impl Queue {
    /// Where a job of this kind waits that calls `name`.
    #[must_use]
    pub fn of(kind: JobKind, name: &str) -> Self {
        match kind {
            JobKind::Prove | JobKind::Fetch | JobKind::Archive => Self::Source(name.to_owned()),
            JobKind::Deliver => Self::Destination(name.to_owned()),
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Source(name) | Self::Destination(name) => name,
        }
    }

    /// The word in the store.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Destination(_) => "destination",
        }
    }
}

/// Queues that share their limits, and so are held by one: a destination, or the sources of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The queues, in their order.
    pub queues: Vec<Queue>,
    /// Whether work is under way that uses their limits: then they are not handed over yet.
    pub busy: bool,
}

/// A queue whose jobs are the caller's to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The queue.
    pub queue: Queue,
    /// How often it has changed hands: another number means that somebody else had it in between.
    pub term: i64,
    /// Whether nobody has used its limits within the last minute.
    pub rested: bool,
    /// How many jobs of it others still hold, from before it changed hands.
    pub elsewhere: usize,
}
