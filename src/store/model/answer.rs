//! What people answer to tasks.

use uuid::Uuid;

/// How a task is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// In words.
    Reply,
    /// By confirming.
    Confirm,
    /// By stopping it.
    Stop,
}

impl AnswerKind {
    /// The word in the store and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Confirm => "confirm",
            Self::Stop => "stop",
        }
    }
}

/// An answer that is about to be sent.
#[derive(Clone, Debug)]
pub struct NewAnswer {
    /// Our id.
    pub id: Uuid,
    /// The source.
    pub source: String,
    /// The provider's task.
    pub task_id: String,
    /// What it is.
    pub kind: AnswerKind,
    /// What it answers: the provider's id of what waits, else the stop that the task stands at; `None` where it is stopped.
    pub question: Option<String>,
    /// Who gives it, by their own word.
    pub by: String,
    /// What is said, or the input of a confirmation as JSON.
    pub content: Option<String>,
    /// Whether it takes the place of one of which nobody knows whether it arrived.
    pub again: bool,
}

/// What became of an answer that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Sent,
    /// The provider took it for a refusal: the task waits on.
    Declined,
    /// The provider did not take it.
    Refused,
    /// Nobody knows: the provider's answer was lost.
    Unknown,
}

impl Outcome {
    /// The word in the store and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Declined => "declined",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    /// Whether no other answer is given to the same question.
    #[must_use]
    pub fn stands(self) -> bool {
        matches!(self, Self::Sent | Self::Unknown)
    }
}
