//! What answering tasks needs of the store.
//!
//! What must hold: of all who answer one question, in whatever process, one is told to send; and what may have been sent is never taken
//! for not sent.

use jiff::Timestamp;
use uuid::Uuid;

use super::model::{NewAnswer, Outcome};
use super::view::AnswerRow;
use super::{Error, Store, forward};

impl Store {
    /// Writes down that an answer is about to be sent; or says which one to the same question stands already, and changes nothing.
    ///
    /// # Errors
    /// When the commit failed: then it must not be sent.
    pub async fn begin_answer(&self, answer: NewAnswer, now: Timestamp) -> Result<Option<AnswerRow>, Error> {
        forward!(self.begin_answer(answer, now))
    }

    /// Writes down what became of an answer, and `reason`, why.
    ///
    /// # Errors
    /// When the commit failed: then nobody knows, which [`Store::doubt_answers`] says later.
    pub async fn end_answer(&self, id: Uuid, outcome: Outcome, reason: Option<String>, now: Timestamp) -> Result<(), Error> {
        forward!(self.end_answer(id, outcome, reason, now))
    }

    /// Says of answers that were begun before `before`, and never ended, that nobody knows: whoever sent them is gone.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn doubt_answers(&self, before: Timestamp, now: Timestamp) -> Result<(), Error> {
        forward!(self.doubt_answers(before, now))
    }
}
