//! The verbs of upkeep, each one transaction.
//!
//! What rows leave behind (in free space, in the log, in backups of the server) is the server's: it is overwritten as vacuum and use
//! come by. So there are no traces here that we could clear, and nothing to be given back to a disk.

use jiff::Timestamp;

use super::session::{clean, known, transact};
use super::{Postgres, deletion, erase, retention};
use crate::store::Error;
use crate::store::upkeep::{Candidates, Erased, Holding, Removed, Space};

impl Postgres {
    pub(in crate::store) async fn done_events(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        transact!(self.sessions(), Read, |tx| retention::done_events(&tx, after, known(before), now))
    }

    pub(in crate::store) async fn remove_events(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        transact!(self.sessions(), Write, |tx| retention::remove_events(&tx, &events, now))
    }

    pub(in crate::store) async fn quarantined(&self, before: Timestamp, most: usize) -> Result<Candidates, Error> {
        transact!(self.sessions(), Read, |tx| retention::quarantined(&tx, known(before), most))
    }

    pub(in crate::store) async fn remove_quarantined(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        transact!(self.sessions(), Write, |tx| retention::remove_quarantined(&tx, &events, now))
    }

    pub(in crate::store) async fn bare_tasks(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        transact!(self.sessions(), Read, |tx| retention::bare_tasks(&tx, after, known(before), now))
    }

    pub(in crate::store) async fn remove_tasks(&self, tasks: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        transact!(self.sessions(), Write, |tx| retention::remove_tasks(&tx, &tasks, now))
    }

    pub(in crate::store) async fn unwanted_files(&self, after: &str) -> Result<Vec<String>, Error> {
        transact!(self.sessions(), Read, |tx| retention::unwanted_files(&tx, after))
    }

    pub(in crate::store) async fn may_delete(&self, sha256: &str) -> Result<bool, Error> {
        transact!(self.sessions(), Write, |tx| deletion::begin(&tx, self.shared.me, sha256))
    }

    pub(in crate::store) async fn deletions(&self) -> Result<i64, Error> {
        transact!(self.work(), Read, |tx| deletion::count(&tx))
    }

    pub(in crate::store) async fn settle_file(&self, sha256: &str, deleted: bool) -> Result<bool, Error> {
        transact!(self.sessions(), Write, |tx| deletion::settle(&tx, sha256, deleted))
    }

    pub(in crate::store) async fn forget_erased(&self, before: Timestamp) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| retention::forget_erased(&tx, known(before)))
    }

    pub(in crate::store) async fn space(&self) -> Result<Space, Error> {
        transact!(self.sessions(), Read, |tx| retention::space(&tx))
    }

    /// Nothing to be done: see the head of this file.
    pub(in crate::store) async fn shrink(&self, _pages: u32) -> Result<(), Error> {
        std::future::ready(Ok(())).await
    }

    pub(in crate::store) async fn holding(&self, source: &str, task_id: &str) -> Result<Option<Holding>, Error> {
        let (source, task_id) = (clean(source), clean(task_id));
        transact!(self.sessions(), Read, |tx| erase::holding(&tx, &source, &task_id))
    }

    pub(in crate::store) async fn erase(&self, source: &str, task_id: &str, now: Timestamp) -> Result<Erased, Error> {
        let (source, task_id) = (clean(source), clean(task_id));
        self.take_in_most(now).await?;
        transact!(self.sessions(), Write, |tx| erase::erase(&tx, &source, &task_id, now))
    }

    pub(in crate::store) async fn has_traces(&self) -> Result<bool, Error> {
        std::future::ready(Ok(false)).await
    }

    pub(in crate::store) async fn clear_traces(&self) -> Result<bool, Error> {
        std::future::ready(Ok(true)).await
    }
}
