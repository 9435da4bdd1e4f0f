//! The keys under which events were accepted, as the writing thread knows them.
//!
//! A key is 16 scattered bytes, so in an index of many keys every event would touch a page of its own, and pages are what a commit
//! costs. So the key of a new event is appended to a log (`new_keys`), which this mirrors in memory; when [`GENERATION`] have
//! gathered they are merged into the index (`event_keys`) in its own order, a few with each commit, many to a page.
//!
//! What must hold:
//! - A key is in the log or in the index from the commit of its event on, and in both while it is merged; it leaves the log only
//!   after it is in the index. So a crash at any moment loses none, and what is merged twice is merged once.
//! - What is remembered here is what is committed: a transaction that is rolled back takes its keys along.
//! - Only the writing thread accepts events, and the store's lock makes it the only one, so what it knows decides.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::event::Key;
use crate::store::Error;

/// So many keys are merged at once. More to a page of the index make that cheaper; all of the log is read at a start.
const GENERATION: usize = 32 << 10;
/// Keys that are merged for each event that comes: the log is empty again before the next generation is full.
const PACE: usize = 3;

/// What is known of the log, and of its merge into the index.
#[derive(Debug)]
pub(super) struct Keys {
    /// The keys of the log.
    new: HashMap<Key, i64>,
    /// Those that this transaction added, and those that it took away.
    added: Vec<Key>,
    taken_away: Vec<(Key, i64)>,
    merge: Option<Merge>,
    /// [`GENERATION`].
    generation: usize,
}

/// A generation on its way into the index.
#[derive(Debug)]
struct Merge {
    /// In the order of the index.
    keys: Vec<(Key, i64)>,
    /// The newest event of it.
    newest: i64,
    /// How far it is, and how far it was when this transaction began.
    now: Step,
    before: Step,
}

/// How far a merge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many keys are in the index.
    Inserted(usize),
    /// All are in the index, and the log is being emptied of them.
    Cutting,
    /// The log holds none of them.
    Done,
}

impl Keys {
    /// Reads the log. One that has gathered is merged at once: kills that come again and again would let it grow else.
    pub(super) fn load(connection: &Connection) -> Result<Self, Error> {
        Self::with_generation(connection, GENERATION)
    }

    fn with_generation(connection: &Connection, generation: usize) -> Result<Self, Error> {
        let new = connection
            .prepare("SELECT key, event FROM new_keys")?
            .query_map([], |row| Ok((Key(row.get(0)?), row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut keys = Self { new, added: Vec::new(), taken_away: Vec::new(), merge: None, generation };
        if keys.new.len() >= generation {
            let transaction = connection.unchecked_transaction()?;
            while keys.merge.as_ref().is_none_or(|merge| merge.now != Step::Done) {
                keys.merge(connection, generation)?;
            }
            transaction.commit()?;
            keys.commit();
        }
        Ok(keys)
    }

    /// The event that was accepted under `key`.
    pub(super) fn holder(&self, connection: &Connection, key: Key) -> Result<Option<i64>, Error> {
        if let Some(event) = self.new.get(&key) {
            return Ok(Some(*event));
        }
        Ok(connection
            .prepare_cached("SELECT event FROM event_keys WHERE key = ?1")?
            .query_row([key.0.as_slice()], |row| row.get(0))
            .optional()?)
    }

    /// Writes down that `event` was accepted under `key`.
    pub(super) fn add(&mut self, connection: &Connection, key: Key, event: i64) -> Result<(), Error> {
        connection
            .prepare_cached("INSERT INTO new_keys (event, key) VALUES (?1, ?2)")?
            .execute(params![event, key.0.as_slice()])?;
        self.new.insert(key, event);
        self.added.push(key);
        Ok(())
    }

    /// Whether a key may be forgotten now: not while keys are merged, which would bring it back.
    pub(super) fn can_forget(&self) -> bool {
        self.merge.is_none()
    }

    /// Forgets `key`, wherever it stands: the same event could be accepted again.
    pub(super) fn forget(&mut self, connection: &Connection, key: Key) -> Result<(), Error> {
        if let Some(event) = self.new.remove(&key) {
            self.taken_away.push((key, event));
            connection.prepare_cached("DELETE FROM new_keys WHERE event = ?1")?.execute([event])?;
        }
        connection.prepare_cached("DELETE FROM event_keys WHERE key = ?1")?.execute([key.0.as_slice()])?;
        Ok(())
    }

    /// Merges a little, in a transaction that kept so many events.
    pub(super) fn merge(&mut self, connection: &Connection, events: usize) -> Result<(), Error> {
        if self.merge.is_none() && self.new.len() >= self.generation {
            let mut keys: Vec<_> = self.new.iter().map(|(key, event)| (*key, *event)).collect();
            keys.sort_unstable_by_key(|(key, _)| key.0);
            let newest = keys.iter().map(|(_, event)| *event).max().unwrap_or_default();
            self.merge = Some(Merge { keys, newest, now: Step::Inserted(0), before: Step::Inserted(0) });
        }
        match &mut self.merge {
            Some(merge) => merge.go_on(connection, events * PACE),
            None => Ok(()),
        }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.added.clear();
        self.taken_away.clear();
        if let Some(merge) = &mut self.merge {
            merge.before = merge.now;
        }
    }

    /// It is committed.
    pub(super) fn commit(&mut self) {
        self.added.clear();
        self.taken_away.clear();
        if let Some(merge) = self.merge.take_if(|merge| merge.now == Step::Done) {
            for (key, _) in merge.keys {
                self.new.remove(&key);
            }
        }
    }

    /// Nothing of it holds.
    pub(super) fn roll_back(&mut self) {
        self.new.extend(self.taken_away.drain(..));
        for key in self.added.drain(..) {
            self.new.remove(&key);
        }
        // A generation that was begun in it may hold keys that are none.
        if let Some(merge) = &mut self.merge {
            merge.now = merge.before;
        }
        self.merge.take_if(|merge| merge.now == Step::Inserted(0));
    }
}

impl Merge {
    /// Takes at most `most` keys further.
    fn go_on(&mut self, connection: &Connection, most: usize) -> Result<(), Error> {
        match self.now {
            Step::Inserted(from) => {
                let to = (from + most).min(self.keys.len());
                let mut insert = connection
                    .prepare_cached("INSERT INTO event_keys (key, event) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING")?;
                for (key, event) in &self.keys[from..to] {
                    insert.execute(params![key.0.as_slice(), event])?;
                }
                self.now = if to == self.keys.len() { Step::Cutting } else { Step::Inserted(to) };
            }
            Step::Cutting => {
                let cut = connection
                    .prepare_cached(
                        "DELETE FROM new_keys WHERE event IN \
                         (SELECT event FROM new_keys WHERE event <= ?1 ORDER BY event LIMIT ?2)",
                    )?
                    .execute(params![self.newest, most])?;
                if cut < most {
                    self.now = Step::Done;
                }
            }
            Step::Done => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = "CREATE TABLE event_keys (key BLOB PRIMARY KEY, event INTEGER NOT NULL) STRICT, WITHOUT ROWID; \
         CREATE TABLE new_keys (event INTEGER PRIMARY KEY, key BLOB NOT NULL) STRICT";

    fn key(number: i64) -> Key {
        Key::of("test", &number.to_string())
    }

    /// How a transaction ends.
    #[derive(Clone, Copy, Debug)]
    enum End {
        Commit,
        RollBack,
        /// It is committed, and the process starts anew.
        Restart,
        /// It is not, and the process starts anew.
        Crash,
    }

    proptest! {
        #[test]
        fn a_key_is_known_from_its_commit_on_however_transactions_end(
            transactions in prop::collection::vec(
                (1..9_usize, prop_oneof![6 => Just(End::Commit), 2 => Just(End::RollBack), 1 => Just(End::Restart), 1 => Just(End::Crash)]),
                1..80,
            )
        ) {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(SCHEMA).unwrap();
            let load = || Keys::with_generation(&connection, 16).unwrap();
            let (mut keys, mut kept, mut next) = (load(), Vec::new(), 1);
            for (count, end) in transactions {
                keys.begin();
                connection.execute_batch("BEGIN").unwrap();
                let first = next;
                for _ in 0..count {
                    prop_assert_eq!(keys.holder(&connection, key(next)).unwrap(), None);
                    keys.add(&connection, key(next), next).unwrap();
                    prop_assert_eq!(keys.holder(&connection, key(next)).unwrap(), Some(next));
                    next += 1;
                }
                keys.merge(&connection, count).unwrap();
                if matches!(end, End::Commit | End::Restart) {
                    connection.execute_batch("COMMIT").unwrap();
                    keys.commit();
                    kept.extend(first..next);
                } else {
                    connection.execute_batch("ROLLBACK").unwrap();
                    keys.roll_back();
                    // As events get their numbers again after a rollback.
                    next = first;
                }
                if matches!(end, End::Restart | End::Crash) {
                    keys = load();
                }
                prop_assert!(keys.new.len() < 16 * 4, "the log stays short: {}", keys.new.len());
            }
            for number in &kept {
                prop_assert_eq!(keys.holder(&connection, key(*number)).unwrap(), Some(*number));
            }
            prop_assert_eq!(keys.holder(&connection, key(next)).unwrap(), None);
        }
    }

    #[test]
    fn merged_keys_leave_the_log_and_the_memory() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let mut keys = Keys::with_generation(&connection, 16).unwrap();
        for event in 1..=100 {
            keys.begin();
            keys.add(&connection, key(event), event).unwrap();
            keys.merge(&connection, 1).unwrap();
            keys.commit();
        }
        let count = |table: &str| {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, usize>(0)).unwrap()
        };
        assert!(count("event_keys") >= 64, "{}", count("event_keys"));
        assert_eq!(count("new_keys"), keys.new.len());
    }
}
