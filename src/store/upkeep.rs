//! What is removed from the store: what retention says, and what a person wants erased.
//!
//! What must hold: only what is done with goes by age or size ([`Store::done_events`] says what that is, and [`Store::remove_events`]
//! looks again); every verb is one short transaction of bounded rows; a file of the archive goes in two steps, so that a crash between
//! them leaves a note and no loss.

use jiff::Timestamp;
use serde::Serialize;

use super::{Error, Store};

/// Rows that may be removed, out of a page of all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Each with about the bytes that it takes.
    pub rows: Vec<(i64, u64)>,
    /// Where to go on; `None` where no later row can be old enough.
    pub next: Option<i64>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Events.
    pub events: u64,
    /// Tasks that no event was left of.
    pub tasks: u64,
    /// Contents of the archive.
    pub files: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.tasks += other.tasks;
        self.files += other.files;
    }
}

/// The size of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Of the file, in bytes; its log is not counted.
    pub file: u64,
    /// Of its pages that hold nothing.
    pub free: u64,
}

impl Space {
    /// Bytes that hold something.
    #[must_use]
    pub fn live(self) -> u64 {
        self.file.saturating_sub(self.free)
    }
}

/// What the store holds of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Its events.
    pub events: i64,
    /// Their deliveries.
    pub deliveries: i64,
    /// Its files.
    pub files: i64,
    /// Rejected requests that mention its id.
    pub rejections: i64,
}

/// What became of a wish to erase a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erased {
    /// There is no such task.
    Unknown,
    /// Something of it is being done at this moment.
    Busy,
    /// A part of it is gone; ask again.
    Part,
    /// It is gone.
    Yes,
}

impl Store {
    /// Of the events after `after`, in the order of acceptance, those that were received before `before` and that are done with: each
    /// was only kept, or all its deliveries were delivered or discarded, and nothing else needs it.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn done_events(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        let Self::Sqlite(store) = self;
        store.done_events(after, before, now).await
    }

    /// Removes those of `events` that are still done with, with all that hangs on them, and the tasks that no event is left of.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn remove_events(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        let Self::Sqlite(store) = self;
        store.remove_events(events, now).await
    }

    /// Of the tasks after `after`, those that were first seen before `before`, have no event and no work, and that nobody expects.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn bare_tasks(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        let Self::Sqlite(store) = self;
        store.bare_tasks(after, before, now).await
    }

    /// Removes those of `tasks` that are still bare.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn remove_tasks(&self, tasks: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        let Self::Sqlite(store) = self;
        store.remove_tasks(tasks, now).await
    }

    /// Contents of the archive that a row named which is gone, those after `after`, in order.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn unwanted_files(&self, after: &str) -> Result<Vec<String>, Error> {
        let Self::Sqlite(store) = self;
        store.unwanted_files(after).await
    }

    /// Whether a row names the content `sha256`.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn is_wanted(&self, sha256: &str) -> Result<bool, Error> {
        let Self::Sqlite(store) = self;
        store.is_wanted(sha256).await
    }

    /// Forgets that the content `sha256` is unwanted: it is `deleted`, or wanted again.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn settle_file(&self, sha256: &str, deleted: bool) -> Result<(), Error> {
        let Self::Sqlite(store) = self;
        store.settle_file(sha256, deleted).await
    }

    /// Forgets the keys of events that were erased before `before`.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn forget_erased(&self, before: Timestamp) -> Result<(), Error> {
        let Self::Sqlite(store) = self;
        store.forget_erased(before).await
    }

    /// How large it is.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn space(&self) -> Result<Space, Error> {
        let Self::Sqlite(store) = self;
        store.space().await
    }

    /// Gives at most so many free pages back to the disk.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn shrink(&self, pages: u32) -> Result<(), Error> {
        let Self::Sqlite(store) = self;
        store.shrink(pages).await
    }

    /// What is held of a task; `None` if it is not known.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn holding(&self, source: &str, task_id: &str) -> Result<Option<Holding>, Error> {
        let Self::Sqlite(store) = self;
        store.holding(source, task_id).await
    }

    /// Erases a task: all that is kept of it, or the first part of that. What stays is the keys of its events, so that a repeat is not
    /// kept again, and the digest of its id.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn erase(&self, source: &str, task_id: &str, now: Timestamp) -> Result<Erased, Error> {
        let Self::Sqlite(store) = self;
        store.erase(source, task_id, now).await
    }

    /// Whether something was erased of which free pages or the log may still hold a trace.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn has_traces(&self) -> Result<bool, Error> {
        let Self::Sqlite(store) = self;
        store.has_traces().await
    }

    /// Empties the log into the file and cuts it, so that no trace of what was erased is left; false where a reader keeps it. To be
    /// called when no page is free.
    ///
    /// # Errors
    /// When it could not be done.
    pub async fn clear_traces(&self) -> Result<bool, Error> {
        let Self::Sqlite(store) = self;
        store.clear_traces().await
    }
}
