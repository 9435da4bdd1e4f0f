//! What is removed from the store: what retention says, and what a person wants erased.
//!
//! What must hold: only what is done with goes by age or size, or what nobody let out of quarantine ([`Store::done_events`] says what that is, and [`Store::remove_events`]
//! looks again); every verb is one short transaction of bounded rows; a file of the archive goes in two steps, so that a crash between
//! them leaves a note and no loss.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Store, forward};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
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

/// Of an event in `standing`, whether nothing needs it: no delivery that is pending or dead, no file that waits to be asked for by it,
/// no other event that is told apart from it by its content.
macro_rules! needless {
    () => {
        "NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.event = standing.seq \
         AND deliveries.state NOT IN ('delivered', 'discarded')) \
         AND NOT EXISTS (SELECT 1 FROM files WHERE files.subject = standing.subject \
         AND files.status = 'pending' AND files.event = standing.seq) \
         AND NOT EXISTS (SELECT 1 FROM events AS other WHERE other.collision_of = standing.id)"
    };
}
pub(super) use needless;

/// Of a row of `tasks`, whether it has no event and no work.
macro_rules! is_bare {
    () => {
        "NOT EXISTS (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq) \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.kind IN ('prove', 'fetch', 'archive') AND jobs.subject = tasks.seq) \
         AND NOT EXISTS (SELECT 1 FROM files WHERE files.subject = tasks.seq AND files.status = 'pending')"
    };
}
pub(super) use is_bare;

/// Rows that are looked at in one read.
pub(super) const PAGE: usize = 200;

/// What of a page of `rows` (place, time, whether it may go, bytes) may go, and whether to go on. A time that is still to come was
/// written by a clock that was wrong: it says nothing about the rows behind it.
pub(super) fn page<T: PartialOrd>(rows: &[(i64, T, bool, u64)], before: &T, now: &T) -> Candidates {
    let may_go = rows.iter().filter(|(_, _, may_go, _)| *may_go).map(|(seq, _, _, bytes)| (*seq, *bytes)).collect();
    let older = rows.iter().any(|(_, at, ..)| at < before || at > now);
    let next = rows.last().filter(|_| older && rows.len() == PAGE).map(|(seq, ..)| *seq);
    Candidates { rows: may_go, next }
}

impl Store {
    /// Of the events after `after`, in the order of acceptance, those that were received before `before` and that are done with: each
    /// was only kept, or all its deliveries were delivered or discarded, and nothing else needs it.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn done_events(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        forward!(self.done_events(after, before, now))
    }

    /// Removes those of `events` that are still done with, with all that hangs on them, and the tasks that no event is left of.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn remove_events(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        forward!(self.remove_events(events, now))
    }

    /// Events in quarantine that were received before `before`, or are older than the newest `most` of them: some of them, the oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn quarantined(&self, before: Timestamp, most: usize) -> Result<Candidates, Error> {
        forward!(self.quarantined(before, most))
    }

    /// Removes those of `events` that are still in quarantine, with all that hangs on them, and the tasks that no event is left of. Their
    /// keys stay, so that a repeat is not kept again.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn remove_quarantined(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        forward!(self.remove_quarantined(events, now))
    }

    /// Of the tasks after `after`, those that were first seen before `before`, have no event and no work, and that nobody expects.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn bare_tasks(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        forward!(self.bare_tasks(after, before, now))
    }

    /// Removes those of `tasks` that are still bare.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn remove_tasks(&self, tasks: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        forward!(self.remove_tasks(tasks, now))
    }

    /// Contents of the archive that a row named which is gone, those after `after`, in order.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn unwanted_files(&self, after: &str) -> Result<Vec<String>, Error> {
        forward!(self.unwanted_files(after))
    }

    /// Whether the content `sha256` may be deleted now: no row names it, and none will until [`Store::settle_file`] says that it is
    /// `deleted`; nobody else is deleting it.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn may_delete(&self, sha256: &str) -> Result<bool, Error> {
        forward!(self.may_delete(sha256))
    }

    /// How often contents were deleted by anybody, as of now: see [`model::Progress::deletions`](super::model::Progress::deletions).
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn deletions(&self) -> Result<i64, Error> {
        forward!(self.deletions())
    }

    /// Forgets that the content `sha256` is unwanted: it is `deleted`, or wanted again. False where it is not forgotten, since somebody
    /// else is deleting it.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn settle_file(&self, sha256: &str, deleted: bool) -> Result<bool, Error> {
        forward!(self.settle_file(sha256, deleted))
    }

    /// Forgets the keys of events that were erased before `before`.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn forget_erased(&self, before: Timestamp) -> Result<(), Error> {
        forward!(self.forget_erased(before))
    }

    /// How large it is.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn space(&self) -> Result<Space, Error> {
        forward!(self.space())
    }

    /// Gives at most so many free pages back to the disk.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn shrink(&self, pages: u32) -> Result<(), Error> {
        forward!(self.shrink(pages))
    }

    /// What is held of a task; `None` if it is not known.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn holding(&self, source: &str, task_id: &str) -> Result<Option<Holding>, Error> {
        forward!(self.holding(source, task_id))
    }

    /// Erases a task: all that is kept of it, or the first part of that. What stays is the keys of its events, so that a repeat is not
    /// kept again, and the digest of its id.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn erase(&self, source: &str, task_id: &str, now: Timestamp) -> Result<Erased, Error> {
        forward!(self.erase(source, task_id, now))
    }

    /// Whether something was erased of which free pages or the log may still hold a trace.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn has_traces(&self) -> Result<bool, Error> {
        forward!(self.has_traces())
    }

    /// Empties the log into the file and cuts it, so that no trace of what was erased is left; false where a reader keeps it. To be
    /// called when no page is free.
    ///
    /// # Errors
    /// When it could not be done.
    pub async fn clear_traces(&self) -> Result<bool, Error> {
        forward!(self.clear_traces())
    }
}
