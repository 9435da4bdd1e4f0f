//! What finding lost stops needs of the store.

use jiff::Timestamp;

use super::model::{Acquainted, Claim, Looked, Open, OpenTask, Reconciled, Shown, StoredEvent};
use super::{Error, Store, forward};

impl Store {
    /// The stops of a task that events told of.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn claims(&self, source: &str, task_id: &str) -> Result<Vec<Claim>, Error> {
        forward!(self.claims(source, task_id))
    }

    /// Writes down that an event told of a stop of a task, unless another one did.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn claim_stop(&self, source: &str, task_id: &str, claim: Claim, now: Timestamp) -> Result<(), Error> {
        forward!(self.claim_stop(source, task_id, claim, now))
    }

    /// Webhooks of a task, of these types, that were handed on and of which none is known to tell of a stop: the newest ones, in the order of
    /// acceptance. One that was taken for what another event told, and so handed on to nobody, stands for no stop.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn unclaimed(&self, source: &str, task_id: &str, kinds: &[&str]) -> Result<Vec<StoredEvent>, Error> {
        forward!(self.unclaimed(source, task_id, kinds))
    }

    /// The provider's answers that a task was last read from, as one JSON text.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn raw(&self, source: &str, task_id: &str) -> Result<Option<String>, Error> {
        forward!(self.raw(source, task_id))
    }

    /// How far `source` is reconciled. Of one that never was, what stopped before `since` is left alone from now on.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn reconciled(&self, source: &str, since: Timestamp) -> Result<Reconciled, Error> {
        forward!(self.reconciled(source, since))
    }

    /// Notes that the list of tasks of `source` was read as of `at`, and whether back to the horizon.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn note_read(&self, source: &str, at: Timestamp, whole: bool) -> Result<(), Error> {
        forward!(self.note_read(source, at, whole))
    }

    /// What is known of tasks that were listed, in their order.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn acquainted(&self, source: &str, task_ids: Vec<String>) -> Result<Vec<Acquainted>, Error> {
        forward!(self.acquainted(source, task_ids))
    }

    /// Shows tasks that stopped, the newest first, as their provider's list tells them: they are ours. What is known of one by its events, or
    /// was fetched, stands; one that was erased stays so.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn show(&self, source: &str, tasks: Vec<Shown>, now: Timestamp) -> Result<(), Error> {
        forward!(self.show(source, tasks, now))
    }

    /// Notes what was seen of a task when its stops were read.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn looked(&self, source: &str, task_id: &str, seen: Looked) -> Result<(), Error> {
        forward!(self.looked(source, task_id, seen))
    }

    /// Tasks of `source` that are ours and may still be at work, those first that were not asked for by themselves for longest.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn open_tasks(&self, source: &str, which: Open) -> Result<Vec<OpenTask>, Error> {
        forward!(self.open_tasks(source, which))
    }

    /// Forgets stops that were told of before `before`, and answers that were given before.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn forget_stops(&self, before: Timestamp) -> Result<(), Error> {
        forward!(self.forget_stops(before))
    }
}
