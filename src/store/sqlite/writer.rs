//! The one thread that writes.
//!
//! It owns the write connection, takes everything that waits in a bounded channel (at most [`BATCH`] writes or
//! [`BATCH_BYTES`]), does it in one transaction, and answers all the waiters after the commit: one sync serves them all, and
//! a batch is as large as what came while the last one was being synced. No event waits for a timer.
//!
//! Events go first. While senders crowd, everything else has a share of the time ([`WORK_SHARE`]) and is done in their commits, so
//! that an overload makes results late and not senders wait; nor does work stand still.
//!
//! What must hold:
//! - No answer before its commit.
//! - One bad write does not take its neighbours with it: a batch that fails is rolled back and done again write by write. So a
//!   write is a function that may run twice, and only its last run counts.
//! - Whoever finds the lock free finds the last write done: the lock is the thread's, and outlives its connection.
//! - After an I/O error nothing is known about what the disk holds (a failed fsync may drop the dirty pages and report success
//!   the next time), so the thread stops, and the process with it. A full disk is not such an error: it heals.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::SignedDuration;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::changes::Changes;
use super::checkpoint::Checkpointer;
use super::keys::Keys;
use crate::clock::Clock;
use crate::store::Error;

/// The most writes that may wait.
pub(crate) const QUEUE: usize = 4096;
/// The most writes in one transaction.
const BATCH: usize = 512;
/// The most bytes of events in one transaction.
const BATCH_BYTES: usize = 8 << 20;
/// So many events in a commit are a crowd: more come than can be kept at once.
const CROWD: usize = 8;
/// A crowd has gone when no event came for so long.
const LULL: Duration = Duration::from_millis(1);
/// While events wait, one part in so many of the time is for other work.
const WORK_SHARE: u32 = 8;
/// The most time that other work may have saved up.
const WORK_SAVED: SignedDuration = SignedDuration::from_millis(1);

/// A handle on the writing thread; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Write>>,
    failed: watch::Receiver<Option<Error>>,
}

/// A write that waits, with whoever waits for it.
trait Write: Send {
    /// Does it; may be called again after a rollback.
    fn run(&mut self, connection: &Connection, keys: &mut Keys) -> Result<(), Error>;
    /// Tells the waiter, once the commit is known to have held or failed.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
    /// Whether it keeps an event, for which a sender waits.
    fn is_event(&self) -> bool;
    /// About how many bytes an event writes.
    fn bytes(&self) -> usize;
}

struct Waiting<T, F> {
    work: F,
    /// For an event, about how many bytes it writes.
    event_bytes: Option<usize>,
    done: Option<Result<T, Error>>,
    waiter: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: FnMut(&Connection, &mut Keys) -> Result<T, Error> + Send> Write for Waiting<T, F> {
    fn run(&mut self, connection: &Connection, keys: &mut Keys) -> Result<(), Error> {
        let done = (self.work)(connection, keys);
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

    fn is_event(&self) -> bool {
        self.event_bytes.is_some()
    }

    fn bytes(&self) -> usize {
        self.event_bytes.unwrap_or_default()
    }
}

impl Writer {
    /// Starts the thread on `connection`, with the `lock` that says that we are the one process that writes. It ends when the last
    /// handle is dropped and what waits is written, or on an I/O error.
    pub(super) fn start(connection: Connection, lock: File, path: &Path, clock: Clock, changes: Changes) -> Result<Self, Error> {
        let mut keys = Keys::load(&connection)?;
        let (queue, channel) = mpsc::channel(QUEUE);
        let (fail, failed) = watch::channel(None);
        let fail = Arc::new(fail);
        let failing = Arc::clone(&fail);
        let checkpointer = Checkpointer::start(&connection, path, move |error| stop(error, &failing))?;
        let no_thread =
            |error: std::io::Error| Error::Unavailable(format!("cannot start a thread to write {}: {error}", path.display()));
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(no_thread)?;
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let share = Share { clock, saved: SignedDuration::ZERO, counted: Duration::ZERO };
                let queue = Queue { channel, events: VecDeque::new(), work: VecDeque::new(), share, crowd: 0, timer };
                run(&connection, &mut keys, queue, checkpointer, &changes, &fail);
                if fail.borrow().is_some() {
                    // What the disk holds is not known: nothing more is copied into the file. It has stopped for a better reason
                    // than that this cannot be set.
                    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
                }
                drop(connection);
                drop(lock);
            })
            .map_err(no_thread)?;
        Ok(Self { queue, failed })
    }

    /// Does `work` in a transaction, waiting for a place in the queue.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection, &mut Keys) -> Result<T, Error> + Send + 'static,
    {
        let (waiter, answer) = oneshot::channel();
        let write = Box::new(Waiting { work, event_bytes: None, done: None, waiter });
        self.queue.send(write).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Keeps an event of about so many `bytes`. It goes before all other work, and a full queue is an error at once: its sender
    /// waits for the answer, and can come again.
    pub(super) async fn keep<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection, &mut Keys) -> Result<T, Error> + Send + 'static,
    {
        let (waiter, answer) = oneshot::channel();
        let write = Box::new(Waiting { work, event_bytes: Some(bytes), done: None, waiter });
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
            // It ended, and not for want of handles, since this is one: it panicked.
            Err(_) => self.gone(),
        }
    }

    /// Returns when the thread has ended and let go of the file, which it does once the last handle is dropped; this is none.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut failed = self.failed.clone();
        async move { while failed.changed().await.is_ok() {} }
    }

    fn gone(&self) -> Error {
        self.failed.borrow().clone().unwrap_or_else(|| Error::Unavailable("the thread that writes has ended".into()))
    }
}

/// What waits, and how it is put into batches.
struct Queue {
    channel: mpsc::Receiver<Box<dyn Write>>,
    events: VecDeque<Box<dyn Write>>,
    work: VecDeque<Box<dyn Write>>,
    share: Share,
    /// The most events that one of the last commits kept, less an eighth for each since.
    crowd: usize,
    /// Wakes the thread where it waits for a time.
    timer: Runtime,
}

/// The time that other work has while events come.
struct Share {
    clock: Clock,
    /// What is left of it. A piece of work may take more; then the next one waits until that is made up for.
    saved: SignedDuration,
    /// Up to when it was reckoned, on the clock's running time.
    counted: Duration,
}

impl Share {
    /// Whether there is time for a piece of work.
    fn has_time(&mut self) -> bool {
        let now = self.clock.elapsed();
        self.saved = (self.saved + signed(now.saturating_sub(self.counted) / WORK_SHARE)).min(WORK_SAVED);
        self.counted = now;
        self.saved.is_positive()
    }

    /// Does a piece of work, and reckons with what it took; says how long that was.
    fn spend(&mut self, work: impl FnOnce() -> Result<(), Error>) -> Result<Duration, Error> {
        let begun = self.clock.elapsed();
        work()?;
        let took = self.clock.elapsed().saturating_sub(begun);
        self.saved -= signed(took);
        Ok(took)
    }

    /// Reckons with the part of a commit that work has in it: `work` of all that was run took so long, `all` of it so long.
    fn spend_commit(&mut self, commit: Duration, work: Duration, all: Duration) {
        if !work.is_zero() {
            self.saved -= signed(commit.mul_f64((work.as_secs_f64() / all.as_secs_f64().max(1e-9)).min(1.0)));
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Queue {
    /// Waits until something waits; false at the end.
    fn fill(&mut self) -> bool {
        if self.events.is_empty() && self.work.is_empty() {
            let Some(first) = self.channel.blocking_recv() else { return false };
            self.sort(first);
        }
        while self.events.len() < BATCH {
            let Ok(next) = self.channel.try_recv() else { break };
            self.sort(next);
        }
        // The next of a crowd is on its way: other work goes along in its commit.
        if self.events.is_empty() && self.crowd >= CROWD {
            self.wait_for_event();
        }
        true
    }

    /// Waits until an event waits, for as long as a lull takes; then the crowd has gone.
    fn wait_for_event(&mut self) {
        let Self { channel, events, work, timer, crowd, .. } = self;
        let next = async {
            while let Some(next) = channel.recv().await {
                if next.is_event() {
                    events.push_back(next);
                    return;
                }
                work.push_back(next);
            }
        };
        if timer.block_on(async { timeout(LULL, next).await }).is_err() {
            *crowd = 0;
        }
    }

    fn sort(&mut self, write: Box<dyn Write>) {
        if write.is_event() { self.events.push_back(write) } else { self.work.push_back(write) }
    }

    /// Runs a batch of what waits in one transaction: the events, then as much work as there is time for. On any error nothing of
    /// `batch` holds.
    fn commit(&mut self, connection: &Connection, keys: &mut Keys, batch: &mut Vec<Box<dyn Write>>) -> Result<(), Error> {
        let clock = self.share.clock.clone();
        let (begun, mut worked, mut ran) = (clock.elapsed(), Duration::ZERO, Duration::ZERO);
        in_transaction(connection, keys, |keys| {
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && batch.len() < BATCH
                && let Some(event) = self.events.pop_front()
            {
                bytes += event.bytes();
                batch.push(event);
                batch.last_mut().map_or(Ok(()), |event| event.run(connection, keys))?;
            }
            let events = batch.len();
            self.crowd = events.max(self.crowd - self.crowd.div_ceil(8));
            if events > 0 {
                keys.merge(connection, events)?;
            }
            while batch.len() < BATCH
                && !self.work.is_empty()
                && (events == 0 || self.share.has_time())
                && let Some(work) = self.work.pop_front()
            {
                batch.push(work);
                let mut run = || batch.last_mut().map_or(Ok(()), |work| work.run(connection, keys));
                // Where no event waits, time is nobody's.
                if events > 0 { worked += self.share.spend(run)? } else { run()? }
            }
            ran = clock.elapsed().saturating_sub(begun);
            Ok(())
        })?;
        self.share.spend_commit(clock.elapsed().saturating_sub(begun + ran), worked, ran);
        Ok(())
    }
}

fn run(
    connection: &Connection,
    keys: &mut Keys,
    mut queue: Queue,
    mut checkpointer: Checkpointer,
    changes: &Changes,
    fail: &watch::Sender<Option<Error>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.fill() && fail.borrow().is_none() {
        let Err(error) = queue.commit(connection, keys, &mut batch) else {
            changes.count();
            batch.drain(..).for_each(|write| write.answer(Ok(())));
            match checkpointer.tend(connection) {
                Err(error) if error.is_fatal() => return stop(error, fail),
                // A full disk, say: the log is longer for it, and the next commit tells.
                Err(error) => tracing::warn!(error = %error, "the log of the store could not be copied into its file: {error}"),
                Ok(()) => {}
            }
            continue;
        };
        let mut failure = error.is_fatal().then(|| error.clone());
        let alone = batch.len() == 1;
        for mut write in batch.drain(..) {
            let committed = match &failure {
                Some(failure) => Err(failure.clone()),
                None if alone => Err(error.clone()),
                None => in_transaction(connection, keys, |keys| write.run(connection, keys)),
            };
            failure = failure.or_else(|| committed.as_ref().err().filter(|error| error.is_fatal()).cloned());
            changes.count();
            write.answer(committed);
        }
        if let Some(failure) = failure {
            return stop(failure, fail);
        }
    }
}

/// Runs `work` in a transaction of its own; on any error nothing of it holds.
fn in_transaction(
    connection: &Connection,
    keys: &mut Keys,
    work: impl FnOnce(&mut Keys) -> Result<(), Error>,
) -> Result<(), Error> {
    keys.begin();
    let run = |keys: &mut Keys| -> Result<(), Error> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        work(keys)?;
        Ok(connection.prepare_cached("COMMIT")?.execute([]).map(drop)?)
    };
    let result = run(keys);
    if result.is_ok() {
        keys.commit();
        return result;
    }
    keys.roll_back();
    if !connection.is_autocommit() {
        // SQLite has rolled back by itself after most errors; where it has not, this does. If even that fails, the next
        // BEGIN says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

fn stop(error: Error, fail: &watch::Sender<Option<Error>>) {
    tracing::error!(error = %error, "the store cannot be trusted any more: {error}");
    fail.send_replace(Some(error));
}
