//! What a person does to a store as a whole: back it up, restore it, copy it elsewhere, check it, measure it.
//!
//! What must hold: backing up, checking and measuring write nothing to the store, and work beside the process that does; a restore
//! works only where there is none, and leaves one whole store wherever it is cut off.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

pub use super::copy::{Copied, CopiedTable};
pub use super::sqlite::restore::Restore;
use super::{Config, Error, postgres, sqlite};

/// How far a long piece of work has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is being done, such as `copying`.
    pub what: &'static str,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all; 0 where nobody knows.
    pub total: u64,
}

/// Who is told of it.
pub type Tell<'a> = &'a mut dyn FnMut(Progress);

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackedUp {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Events in it.
    pub events: i64,
    /// The moment that it shows.
    pub at: String,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The store.
    pub store: PathBuf,
    /// The moment that the backup shows.
    pub backup_of: String,
    /// Events in it.
    pub events: i64,
    /// Deliveries that were pending in it: each may have been sent since, and got an attempt of outcome unknown.
    pub pending_deliveries: usize,
    /// Events that were not handed on yet in it: what they make gets such an attempt as well.
    pub open_events: usize,
    /// Where the store that was there before lies now.
    pub put_aside: Option<PathBuf>,
}

/// A database server that has a store, or can have one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Where it is.
    pub place: String,
    /// Its version.
    pub version: String,
    /// The schema that the tables stand in, or will.
    pub schema: String,
    /// Whether the store is there.
    pub exists: bool,
}

/// Something that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, in words.
    pub problem: String,
    /// How often.
    pub count: i64,
    /// Some of the rows.
    pub examples: Vec<String>,
}

/// What a store holds, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Where it is: the file, or the server.
    #[serde(rename = "file")]
    pub place: String,
    /// The size of the file, or of all tables on the server.
    pub file_bytes: u64,
    /// The size of its log, which a server has for all that it keeps.
    pub log_bytes: Option<u64>,
    /// Pages of the file that hold nothing, in bytes: they are used again.
    pub free_bytes: Option<u64>,
    /// Whether the file gives free pages back.
    pub shrinks: Option<bool>,
    /// The schema.
    pub schema: String,
    /// Since when there is this store.
    pub created_at: Option<String>,
    /// When it was last restored from a backup.
    pub restored_at: Option<String>,
    /// When its oldest event was received.
    pub oldest_event: Option<String>,
    /// When its newest event was received.
    pub newest_event: Option<String>,
    /// Events by state.
    pub events: Vec<Count>,
    /// Deliveries by state.
    pub deliveries: Vec<Count>,
    /// Bytes of the file that are in use, for one event.
    pub bytes_per_event: Option<u64>,
    /// What retention has removed since the store was made.
    pub removed: Vec<Count>,
    /// Tables, the largest first.
    pub tables: Vec<Table>,
}

/// A number with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The name.
    pub name: String,
    /// The number.
    pub count: i64,
}

/// A table, its indexes included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: i64,
    /// Its pages, in bytes.
    pub bytes: u64,
}

/// The file that the store is in; a server has tools of its own for what is done to files here.
fn its_file(config: &Config) -> Result<PathBuf, Error> {
    if config.is_shared() {
        return Err(postgres::care::no_file(config));
    }
    sqlite::file(config)
}

/// Copies the store into `file`, as it is at one moment, beside the process that writes to it.
///
/// # Errors
/// [`Error::Url`] and [`Error::Open`] where there is no store to copy, [`Error::Server`] where it is in no file; [`Error::File`] where
/// the copy cannot be written, or is not the store. Then nothing is left of it.
pub fn backup(config: &Config, file: &Path, overwrite: bool, now: Timestamp, tell: Tell<'_>) -> Result<BackedUp, Error> {
    sqlite::backup::backup(&its_file(config)?, file, overwrite, now, tell)
}

/// Begins to put the backup `file` in the place of the store: takes the lock, and looks at the backup. The rest is done step by step.
///
/// # Errors
/// [`Error::Locked`] where a process has the store open, [`Error::Server`] where it is in no file; [`Error::File`] and [`Error::Open`]
/// where the backup cannot be used.
pub fn restore(config: &Config, file: &Path, now: Timestamp, tell: Tell<'_>) -> Result<Restore, Error> {
    Restore::begin(&its_file(config)?, file, now, tell)
}

/// Looks at the database server that `config` names, and writes nothing.
///
/// # Errors
/// [`Error::Url`] and [`Error::Server`] where no store can be there.
pub async fn look(config: &Config) -> Result<Server, Error> {
    postgres::look::look(config).await
}

/// Copies the store in the SQLite file that `from` names into the PostgreSQL that `to` names, while no taskhook runs on either.
///
/// # Errors
/// [`Error::Locked`] where a process has the file open, [`Error::Open`] where it cannot be read, [`Error::Server`] where the target
/// has a store already or the copy was broken off. Then the target is as it was; the file always is.
pub async fn copy(from: &Config, to: &Config, now: Timestamp, tell: Tell<'_>) -> Result<Copied, Error> {
    super::copy::copy(from, to, now, tell).await
}

/// Looks for what is wrong with the store; `quick` passes over what only a look at every index shows.
///
/// # Errors
/// [`Error::Url`] and [`Error::Open`] where it cannot be looked at.
pub fn check(config: &Config, quick: bool, tell: Tell<'_>) -> Result<Vec<Finding>, Error> {
    if config.is_shared() {
        return postgres::care::check(config, tell);
    }
    sqlite::check::check(&sqlite::file(config)?, quick, tell)
}

/// The contents that the archive must have: each its SHA-256 and its size, after `after`, in order, at most `limit`.
///
/// # Errors
/// [`Error::Url`] and [`Error::Open`] where the store cannot be read.
pub fn archived(config: &Config, after: &str, limit: usize) -> Result<Vec<(String, Option<u64>)>, Error> {
    if config.is_shared() {
        return postgres::care::archived(config, after, limit);
    }
    sqlite::check::archived(&sqlite::file(config)?, after, limit)
}

/// Measures the store.
///
/// # Errors
/// [`Error::Url`] and [`Error::Open`] where it cannot be read.
pub fn stats(config: &Config, tell: Tell<'_>) -> Result<Stats, Error> {
    if config.is_shared() {
        return postgres::care::stats(config, tell);
    }
    sqlite::stats::stats(&sqlite::file(config)?, tell)
}
