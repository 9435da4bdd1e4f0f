//! What commits change, counted by topic: for who looks on, so that nothing has to be asked for while nothing changes.
//!
//! What must hold: what is counted is committed, so whoever asks afterwards sees it. SQLite tells of rows before their commit; they are noted
//! then, and counted behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rusqlite::Connection;

use crate::store::Error;
use crate::store::live::{TOPICS, topics_of};

/// The counts of a store, from one start of the program to its end; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Topics of rows that were written since the last commit, a bit each. One thread writes.
    noted: AtomicU8,
    counts: [AtomicU64; TOPICS],
}

impl Changes {
    /// Counts what `writer` writes.
    pub(super) fn of(writer: &Connection) -> Result<Self, Error> {
        let changes = Self::default();
        let noting = Arc::clone(&changes.0);
        writer.update_hook(Some(move |_, _: &str, table: &str, _| {
            noting.noted.fetch_or(topics_of(table), Ordering::Relaxed);
        }))?;
        Ok(changes)
    }

    /// Counts what was written since the last time: the commit has held.
    pub(super) fn count(&self) {
        let noted = self.0.noted.swap(0, Ordering::Relaxed);
        for (topic, count) in self.0.counts.iter().enumerate() {
            if noted >> topic & 1 == 1 {
                count.fetch_add(1, Ordering::Release);
            }
        }
    }

    pub(super) fn counts(&self) -> [u64; TOPICS] {
        std::array::from_fn(|topic| self.0.counts[topic].load(Ordering::Acquire))
    }
}
