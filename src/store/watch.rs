//! What watching needs of the store.
//!
//! What must hold: of a condition there is one row, whoever notices it first; what is told of it, and by which event, is decided in the
//! transaction that writes the row, so that whoever tells it, and however often, makes one event.

use jiff::Timestamp;
use uuid::Uuid;

use super::model::{Condition, Look, Queue, Watched};
use super::view::{Listed, Page, WatchRow};
use super::{Error, Store, forward};
use crate::event::Watch;

/// The columns that a [`Condition`] is made of.
macro_rules! condition_columns {
    () => {
        "key, source, task_id, destination, since, detail"
    };
}
pub(super) use condition_columns;

/// The columns that a [`Watched`] is made of, those of its condition first.
macro_rules! watched_columns {
    () => {
        "key, source, task_id, destination, since, detail, seq, raised_at, cleared_at, event"
    };
}
pub(super) use watched_columns;

/// The source and the destination that rows are narrowed to: a source stands for what is about no destination.
pub(super) fn narrowed(of: &Queue) -> (Option<&str>, Option<&str>) {
    match of {
        Queue::Source(name) => (Some(name), None),
        Queue::Destination(name) => (None, Some(name)),
    }
}

impl Store {
    /// What holds since `before`, of the source or the destination `name`, and was not noticed yet: at most `limit`, the oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn unnoticed(&self, look: Look, name: &str, before: Timestamp, limit: usize) -> Result<Vec<Condition>, Error> {
        forward!(self.unnoticed(look, name, before, limit))
    }

    /// What was noticed of `name` and does not hold any more: at most `limit`, the oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn over(&self, look: Look, name: &str, before: Timestamp, limit: usize) -> Result<Vec<Watched>, Error> {
        forward!(self.over(look, name, before, limit))
    }

    /// What was noticed of a source, or of a destination, and has not ended.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn noticed(&self, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
        forward!(self.noticed(watch, of))
    }

    /// Writes down what was noticed, each with the event that is to tell of it. What was noticed before stays as it is.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn notice(&self, watch: Watch, conditions: Vec<(Condition, Uuid)>, now: Timestamp) -> Result<(), Error> {
        forward!(self.notice(watch, conditions, now))
    }

    /// Writes down what does not hold any more, by its row, each with the event that is to tell of it.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn clear(&self, rows: Vec<(i64, Uuid)>, now: Timestamp) -> Result<(), Error> {
        forward!(self.clear(rows, now))
    }

    /// What was written down of a source, or of a destination, and no event tells of yet.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn untold(&self, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
        forward!(self.untold(watch, of))
    }

    /// These events are kept. What has ended is forgotten with that.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn told(&self, events: Vec<Uuid>) -> Result<(), Error> {
        forward!(self.told(events))
    }

    /// Forgets what was noticed of a source, or of a destination: nobody watches for it any more.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn unwatch(&self, watch: Watch, of: &Queue) -> Result<(), Error> {
        forward!(self.unwatch(watch, of))
    }

    /// When webhooks of `source` came since `after`, the oldest first, as far as they are among the newest events.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn webhooks(&self, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
        forward!(self.webhooks(source, after))
    }

    /// When stops of `source` were found since `after` of which webhooks should have told and did not, the oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn lost(&self, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
        forward!(self.lost(source, after))
    }

    /// Notes that tasks of `source` were at work at these times of the provider, as far as they are known.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn note_active(&self, source: &str, tasks: Vec<(String, Timestamp)>) -> Result<(), Error> {
        forward!(self.note_active(source, tasks))
    }

    /// What holds and was noticed, the newest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn watches(&self, source: Option<String>, page: Page) -> Result<Listed<WatchRow>, Error> {
        forward!(self.watches(source, page))
    }

    /// How many conditions hold that were noticed, by type.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn watching(&self) -> Result<Vec<(String, i64)>, Error> {
        forward!(self.watching())
    }
}
