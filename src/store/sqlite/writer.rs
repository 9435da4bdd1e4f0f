//! The one thread that writes.
//!
//! It owns the write connection, takes everything that waits in a bounded channel (at most [`BATCH`] writes or
//! [`BATCH_BYTES`]), does it in one transaction, and answers all the waiters after the commit: one sync serves them all, and
//! a batch is as large as what came while the last one was being synced. No timer is involved.
//!
//! What must hold:
//! - No answer before its commit.
//! - One bad write does not take its neighbours with it: a batch that fails is rolled back and done again write by write. So a
//!   write is a function that may run twice, and only its last run counts.
//! - Whoever finds the lock free finds the last write done: the lock is the thread's, and outlives its connection.
//! - After an I/O error nothing is known about what the disk holds (a failed fsync may drop the dirty pages and report success
//!   the next time), so the thread stops, and the process with it. A full disk is not such an error: it heals.

use std::fs::File;
use std::path::Path;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::Error;

/// The most writes that may wait.
pub(crate) const QUEUE: usize = 4096;
/// The most writes in one transaction.
const BATCH: usize = 512;
/// The most bytes in one transaction.
const BATCH_BYTES: usize = 8 << 20;
/// The write-ahead log is checkpointed here, in pages of 4 KiB: rarely enough that hot pages are written once for many commits.
const CHECKPOINT_PAGES: u32 = 4096;

/// A handle on the writing thread; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Write>>,
    failed: watch::Receiver<Option<Error>>,
}

/// A write that waits, with whoever waits for it.
trait Write: Send {
    /// Does it; may be called again after a rollback.
    fn run(&mut self, connection: &Connection) -> Result<(), Error>;
    /// Tells the waiter, once the commit is known to have held or failed.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
    /// About how many bytes it writes.
    fn bytes(&self) -> usize;
}

struct Waiting<T, F> {
    work: F,
    bytes: usize,
    done: Option<Result<T, Error>>,
    waiter: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: FnMut(&Connection) -> Result<T, Error> + Send> Write for Waiting<T, F> {
    fn run(&mut self, connection: &Connection) -> Result<(), Error> {
        let done = (self.work)(connection);
        let verdict = done.as_ref().map(drop).map_err(Clone::clone);
        self.done = Some(done);
        verdict
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let answer = match (committed, self.done) {
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(Error::Unavailable("the write was not run".into())),
            (Err(error), _) => Err(error),
        };
        // A waiter that has gone (a request that timed out) has no use for the answer; the write stands all the same.
        let _ = self.waiter.send(answer);
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Writer {
    /// Starts the thread on `connection`, with the `lock` that says that we are the one process that writes. It ends when the last
    /// handle is dropped and what waits is written, or on an I/O error.
    pub(super) fn start(connection: Connection, lock: File, path: &Path) -> Result<Self, Error> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (fail, failed) = watch::channel(None);
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                run(&connection, waiting, &fail);
                drop(connection);
                drop(lock);
            })
            .map_err(|error| Error::Unavailable(format!("cannot start a thread to write {}: {error}", path.display())))?;
        Ok(Self { queue, failed })
    }

    /// Does `work` in a transaction, waiting for a place in the queue.
    pub(super) async fn write<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (waiter, answer) = oneshot::channel();
        let write = Box::new(Waiting { work, bytes, done: None, waiter });
        self.queue.send(write).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    /// The same, but a full queue is an error at once: whoever is answered can come again.
    pub(super) async fn try_write<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (waiter, answer) = oneshot::channel();
        let write = Box::new(Waiting { work, bytes, done: None, waiter });
        self.queue.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull,
            mpsc::error::TrySendError::Closed(_) => self.gone(),
        })?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Returns when the thread has stopped for an error, and which.
    pub(super) async fn failed(&self) -> Error {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(|| self.gone()),
            // The thread ended without an error, since its last handle went; nobody can be waiting then but us.
            Err(_) => std::future::pending().await,
        }
    }

    fn gone(&self) -> Error {
        self.failed.borrow().clone().unwrap_or_else(|| Error::Unavailable("it is closed".into()))
    }
}

fn run(connection: &Connection, mut waiting: mpsc::Receiver<Box<dyn Write>>, fail: &watch::Sender<Option<Error>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = waiting.blocking_recv() {
        let mut bytes = first.bytes();
        batch.push(first);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.bytes();
            batch.push(next);
        }
        match commit(connection, &mut batch) {
            Ok(()) => batch.drain(..).for_each(|write| write.answer(Ok(()))),
            Err(error) if batch.len() == 1 => {
                let fatal = is_fatal(&error);
                batch.drain(..).for_each(|write| write.answer(Err(error.clone())));
                if fatal {
                    return stop(error, fail);
                }
            }
            Err(error) if is_fatal(&error) => {
                batch.drain(..).for_each(|write| write.answer(Err(error.clone())));
                return stop(error, fail);
            }
            Err(_) => {
                for mut write in batch.drain(..) {
                    let committed = commit(connection, std::slice::from_mut(&mut write));
                    let fatal = committed.as_ref().err().filter(|error| is_fatal(error)).cloned();
                    write.answer(committed);
                    if let Some(error) = fatal {
                        return stop(error, fail);
                    }
                }
            }
        }
    }
}

/// Runs `batch` in one transaction; on any error nothing of it holds.
fn commit(connection: &Connection, batch: &mut [Box<dyn Write>]) -> Result<(), Error> {
    let run = |batch: &mut [Box<dyn Write>]| -> Result<(), Error> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for write in batch {
            write.run(connection)?;
        }
        Ok(connection.prepare_cached("COMMIT")?.execute([]).map(drop)?)
    };
    let result = run(batch);
    if result.is_err() && !connection.is_autocommit() {
        // SQLite has rolled back by itself after most errors; where it has not, this does. If even that fails, the next
        // BEGIN says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Disk(_))
}

fn stop(error: Error, fail: &watch::Sender<Option<Error>>) {
    tracing::error!(error = %error, "the store cannot be trusted any more: {error}");
    fail.send_replace(Some(error));
}
