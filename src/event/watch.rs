//! What taskhook makes events of by itself: that something is not as it should be.

/// A kind of watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Nothing was heard of a task at work for too long.
    TaskSilent,
    /// A task waits for an answer for too long.
    TaskWaiting,
    /// What is for a destination has not reached it for too long.
    NotDelivered,
    /// Work was given up on.
    DeadLetter,
    /// No webhook comes of what happens.
    SourceSilent,
    /// The tasks of a source have cost so much of what they should cost in a day.
    Budget,
}

impl Watch {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::TaskSilent, Self::TaskWaiting, Self::NotDelivered, Self::DeadLetter, Self::SourceSilent, Self::Budget];

    /// The type of its events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskSilent => "watch.task_silent",
            Self::TaskWaiting => "watch.task_waiting",
            Self::NotDelivered => "watch.not_delivered",
            Self::DeadLetter => "watch.dead_letter",
            Self::SourceSilent => "watch.source_silent",
            Self::Budget => "watch.budget",
        }
    }
}
