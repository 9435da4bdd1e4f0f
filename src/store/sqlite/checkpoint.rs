//! Checkpoints: what the log holds goes into the file, beside the thread that writes.
//!
//! SQLite copies pages from the log into the file while others append to the log, but the log begins anew only when a write finds
//! all of it copied. So a second thread copies, pass after pass, each shorter than the one before, until little is left; that
//! little is copied by the writing thread between two batches. A sender then waits for a few pages, and not for thousands.
//!
//! What must hold: the log stays bounded, whatever comes: beyond [`BOUND_PAGES`] the writing thread copies all of it. Only a reader
//! that keeps its snapshot holds that up, and readers have a second. A pass that fails for an I/O error ends the store, as a commit
//! would; a full disk is no such error, and the next pass tries again.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::store::Error;

/// The log is copied from this length on, in pages of 4 KiB: rarely enough that hot pages are written once for many commits.
const PAGES: u32 = 4096;
/// How much longer it must have grown until the next pass.
const GROWTH: u32 = 1024;
/// What the writing thread copies by itself, to let the log begin anew.
const REST: u32 = 256;
/// From this length on the writing thread does it all.
const BOUND_PAGES: u32 = 4 * PAGES;

thread_local! {
    /// The length of the log after the last commit of this thread, in pages.
    static LOG_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// What both threads know.
#[derive(Debug, Default)]
struct Shared {
    /// The length of the log, in pages.
    pages: AtomicU32,
    /// Whether little is left to be copied.
    nearly: AtomicBool,
}

/// The thread that copies, as the writing thread holds it.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The length at which to ask next.
    ask_at: u32,
}

impl Checkpointer {
    /// Starts it for the file at `path`, which `writer` writes to. `fail` is told of an error that ends the store.
    pub(super) fn start(writer: &Connection, path: &Path, fail: impl Fn(Error) + Send + 'static) -> Result<Self, Error> {
        // The hook takes the place of SQLite's own checkpoints, which would run inside of a commit.
        writer.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(u32::try_from(pages).unwrap_or_default());
            Ok(())
        }));
        let connection = Connection::open(path)?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA checkpoint_fullfsync = ON")?;
        let shared = Arc::new(Shared::default());
        let (ask, asked) = sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || run(&connection, &asked, &theirs, &fail))
            .map_err(|error| {
                Error::Unavailable(format!("cannot start a thread for checkpoints of {}: {error}", path.display()))
            })?;
        Ok(Self { shared, ask: Some(ask), thread: Some(thread), ask_at: PAGES })
    }

    /// Looks after the log between two batches.
    pub(super) fn tend(&mut self, writer: &Connection) -> Result<(), Error> {
        let pages = LOG_PAGES.get();
        self.shared.pages.store(pages, Ordering::Relaxed);
        if self.shared.nearly.swap(false, Ordering::Relaxed) || pages >= BOUND_PAGES {
            self.ask_at = PAGES;
            return pass(writer).map(drop);
        }
        if pages < PAGES {
            self.ask_at = PAGES;
        } else if pages >= self.ask_at
            && let Some(ask) = &self.ask
        {
            self.ask_at = pages + GROWTH;
            // One that is asked already will see all of it.
            let _ = ask.try_send(());
        }
        Ok(())
    }
}

impl Drop for Checkpointer {
    /// Ends the thread: whoever finds the store's lock free must find nobody at its file.
    fn drop(&mut self) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            // It panics only by a bug, which its message has told.
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, asked: &Receiver<()>, shared: &Shared, fail: &impl Fn(Error)) {
    while asked.recv().is_ok() {
        // Each pass is shorter than the one before unless the log grows as fast as the disk takes it: then the bound holds.
        for _ in 0..4 {
            let copied = match pass(connection) {
                Ok(copied) => copied,
                Err(error) if error.is_fatal() => return fail(error),
                Err(error) => {
                    tracing::warn!(error = %error, "the log of the store could not be copied into its file, will try again: {error}");
                    break;
                }
            };
            if shared.pages.load(Ordering::Relaxed).saturating_sub(copied) <= REST {
                shared.nearly.store(true, Ordering::Relaxed);
                break;
            }
        }
    }
}

/// Copies what can be copied without waiting for anybody; says how many pages of the log are in the file now.
fn pass(connection: &Connection) -> Result<u32, Error> {
    // -1 where there is nothing to copy.
    let copied: i64 = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |row| row.get(2))?;
    Ok(u32::try_from(copied).unwrap_or_default())
}
