//! The store's verbs for what a person asks: retry, discard, replay, pause.

use jiff::Timestamp;

use super::model::{Act, Discarded, Matching, Replayed, Retried, Select};
use super::view::{DeliveryRow, DestinationCounts};
use super::{Error, Store, forward};

impl Store {
    /// Tries a delivery again, on a person's word.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn retry_delivery(&self, id: &str, now: Timestamp) -> Result<Retried, Error> {
        forward!(self.retry_delivery(id, now))
    }

    /// Gives a delivery up for good, on a person's word: it is kept as `discarded`, and no longer counts as a dead letter.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn discard_delivery(&self, id: &str, now: Timestamp) -> Result<Discarded, Error> {
        forward!(self.discard_delivery(id, now))
    }

    /// Lets an event go its way again, on a person's word.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn replay_event(&self, id: &str, now: Timestamp) -> Result<Replayed, Error> {
        forward!(self.replay_event(id, now))
    }

    /// Some of the rows that are meant, in the order in which they were made, behind row `after`.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn matching(&self, select: Select, after: i64) -> Result<Matching, Error> {
        forward!(self.matching(select, after))
    }

    /// Does `act` to `rows`, at most [`super::model::STEP`] at a time; says to how many. One that has changed meanwhile is left out.
    ///
    /// # Errors
    /// When the commit failed; then nothing was done.
    pub async fn act(&self, act: Act, rows: Vec<i64>, now: Timestamp) -> Result<usize, Error> {
        forward!(self.act(act, rows, now))
    }

    /// Lets nothing be sent to a destination; says since when. What is being sent ends.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn pause(&self, destination: &str, now: Timestamp) -> Result<String, Error> {
        forward!(self.pause(destination, now))
    }

    /// Lets a destination be sent to again; says whether it was paused. What waits for what is before it in its lane waits anew.
    ///
    /// # Errors
    /// When a commit failed; then it is still paused.
    pub async fn resume(&self, destination: &str, now: Timestamp) -> Result<bool, Error> {
        forward!(self.resume(destination, now))
    }

    /// The row of the event `id`, as [`Store::stored_event`] takes it.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn event_seq(&self, id: &str) -> Result<Option<i64>, Error> {
        forward!(self.event_seq(id))
    }

    /// The destinations that are paused, and since when.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn paused(&self) -> Result<Vec<(String, String)>, Error> {
        forward!(self.paused())
    }

    /// How many deliveries wait for each destination, and how many are dead; one without either is not there.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn destination_counts(&self) -> Result<Vec<DestinationCounts>, Error> {
        forward!(self.destination_counts())
    }

    /// One delivery, by its id.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn delivery(&self, id: &str) -> Result<Option<DeliveryRow>, Error> {
        forward!(self.delivery(id))
    }

    /// The ids of deliveries that begin with `start`, in order, at most `limit`.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn delivery_ids(&self, start: &str, limit: usize) -> Result<Vec<String>, Error> {
        forward!(self.delivery_ids(start, limit))
    }
}
