//! The store: what is kept, and what is still to be done about it.
//!
//! The contract, the same for every database. Each verb is one short transaction, and time is an argument.
//!
//! - [`Store::append`] returns after the event *and* what its work begins with are committed and synced, and not before. An
//!   event is accepted once per [`crate::event::Key`]; the store decides that inside the insert, whoever else is inserting.
//! - What was appended is work from the next [`Store::claim`] on, whichever jobs that asks for.
//! - A job is a row with a lease. [`Store::claim`] sets it, counts the attempt, and records a delivery's attempt as *started*
//!   before anything can be sent. Every end ([`Store::finish`], [`Store::retry`], [`Store::bury`]) is fenced by (job, attempt): it
//!   returns false, and changes nothing, where the lease is no longer held.
//! - A job that takes long keeps what it has done so far with [`Store::progress`], fenced in the same way. A file that is to be
//!   archived, and an event that waits for its files, always have a job.
//! - A lease that runs out ([`Store::expire`]) closes its attempt as *unknown*, and the job is due again. In SQLite a lease belongs to
//!   the running process: it cannot run out while that lives, and is void when the next one starts. No clock is involved.
//!   In PostgreSQL it belongs to a replica, and runs out when that was not seen for five seconds, by the database's clock.
//! - Where several processes share the store, one of them holds each source and each destination ([`Store::hold`]), and nobody else can
//!   claim their jobs: so what limits them is counted in one place.
//! - What a person asks for goes the usual way. [`Store::retry_delivery`] makes the *same* delivery due: the next attempt, the same id
//!   and content, the ladder begun anew; a dead letter joins its lane again at its old place, and never goes while another of the
//!   lane is being sent. [`Store::replay_event`] makes *new* deliveries with the next replay number, and only after the event has passed the
//!   proof of its task as any other does. [`Store::discard_delivery`] ends a delivery and keeps it. What is being sent is left
//!   alone. By filter, rows are found with [`Store::matching`] and done with [`Store::act`], a few at a time.
//! - A question of a task has one answer that stands ([`Store::begin_answer`]), decided by the database in the insert; nothing is sent before.
//! - Nothing is claimed for a destination that is paused ([`Store::pause`]), whoever claims, until [`Store::resume`].
//! - Nothing is deleted that is not done with. What is given up on is a dead letter, and stays. What is done with goes by age or size,
//!   in small steps ([`upkeep`]), and what a person wants erased goes.
//! - An I/O error ends the store ([`Store::failed`]), and with it the process: nothing is known then about what the disk holds.
//!
//! One test suite (`tests/it/store.rs`) holds every implementation to this.

mod again;
mod answer;
pub mod care;
mod census;
mod config;
mod copy;
mod error;
pub mod idempotency;
mod live;
pub mod model;
mod postgres;
mod read;
mod reconcile;
mod series;
mod shared;
mod spending;
mod sqlite;
mod timeline;
pub mod upkeep;
pub mod view;
mod watch;

use std::time::Duration;

use jiff::Timestamp;

pub use self::census::{COUNTED, SourceCounts};
pub use self::config::{Config, SECRETS};
pub use self::error::{Error, unwritable};
pub use self::live::{Changes, Reach, Topic};
use self::model::{
    Appended, Capacity, Claimed, FileRow, Finish, Lease, NewRejection, Progress, Proof, Released, Setback, StoredEvent, Tracked,
    Waiting,
};
pub use self::series::{Due, Sample, Span};
pub use self::spending::{Amounts, Spent};
pub use self::timeline::QUESTION;
use self::view::Totals;
use crate::clock::Clock;
use crate::event::NewEvent;
use crate::task::Fetched;

/// Why an event is quarantined that names no task.
const HOMELESS: &str = "it names no task, so nothing can prove that it is ours";

/// The store, in one of the databases that we speak to.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file on this machine.
    Sqlite(sqlite::Sqlite),
    /// A PostgreSQL, which replicas may share.
    Postgres(postgres::Postgres),
}

/// Hands a verb to the database that the store is in.
macro_rules! forward {
    ($self:ident.$verb:ident($($argument:expr),*)) => {
        match $self {
            Self::Sqlite(store) => store.$verb($($argument),*).await,
            // In a box: a transaction in hand is large, and nobody should carry it who waits.
            Self::Postgres(store) => Box::pin(store.$verb($($argument),*)).await,
        }
    };
}

use forward;

impl Store {
    /// Opens the store for writing, and makes it if it is not there.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Open`] and [`Error::Locked`], with what the user can do.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self, Error> {
        if config.is_shared() {
            return postgres::Postgres::open(config, clock).await.map(Self::Postgres);
        }
        sqlite::Sqlite::open(config, clock).await.map(Self::Sqlite)
    }

    /// The id of a store that may be open in another process, read without disturbing it.
    ///
    /// # Errors
    /// [`Error::Url`] and [`Error::Open`].
    pub fn peek_instance_id(config: &Config) -> Result<String, Error> {
        if config.is_shared() { postgres::peek_instance_id(config) } else { sqlite::peek_instance_id(config) }
    }

    /// What a store holds that may be open in another process, read without disturbing it.
    ///
    /// # Errors
    /// [`Error::Url`] and [`Error::Open`].
    pub fn peek_totals(config: &Config) -> Result<Totals, Error> {
        if config.is_shared() { postgres::peek_totals(config) } else { sqlite::peek_totals(config) }
    }

    /// Where the store is, for messages: a file, or a server without a user or a password.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Sqlite(store) => store.path().display().to_string(),
            Self::Postgres(store) => store.place().to_owned(),
        }
    }

    /// The id of this store, told on `/healthz`.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        match self {
            Self::Sqlite(store) => store.instance_id(),
            Self::Postgres(store) => store.instance_id(),
        }
    }

    /// Waits until the store has failed for good, and says why.
    pub async fn failed(&self) -> Error {
        forward!(self.failed())
    }

    /// Waits until the last handle is dropped, what it left to write is written, and another process may open the store. The future is no
    /// handle. On a PostgreSQL, which others may have open as well, there is nothing to wait for.
    pub fn closed(&self) -> impl Future<Output = ()> + use<> {
        let closed = match self {
            Self::Sqlite(store) => Some(store.closed()),
            Self::Postgres(_) => None,
        };
        async move {
            if let Some(closed) = closed {
                closed.await;
            }
        }
    }

    /// Keeps an event, once.
    ///
    /// # Errors
    /// [`Error::QueueFull`] and [`Error::Full`] at once; others when the commit failed. After an error the event may still be kept.
    pub async fn append(&self, event: NewEvent) -> Result<Appended, Error> {
        forward!(self.append(event))
    }

    /// Whether an event could be kept now.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), Error> {
        forward!(self.check())
    }

    /// Leases due jobs to the caller.
    ///
    /// # Errors
    /// When the commit failed; then nothing is leased.
    pub async fn claim(&self, capacities: Vec<Capacity>, now: Timestamp) -> Result<Claimed, Error> {
        forward!(self.claim(capacities, now))
    }

    /// Extends a lease; false where it is no longer held.
    ///
    /// # Errors
    /// When the store could not be asked.
    pub async fn renew(&self, lease: Lease) -> Result<bool, Error> {
        forward!(self.renew(lease))
    }

    /// Ends a job that did its work, and makes the jobs that follow; false where the lease is no longer held.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn finish(&self, lease: Lease, now: Timestamp, finish: Finish) -> Result<bool, Error> {
        forward!(self.finish(lease, now, finish))
    }

    /// Keeps what an archive job has done so far; false, and nothing is kept, where the lease is no longer held.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn progress(&self, lease: Lease, now: Timestamp, progress: Progress) -> Result<bool, Error> {
        forward!(self.progress(lease, now, progress))
    }

    /// Closes a failed attempt; the job is due again at `due`. False where the lease is no longer held.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn retry(&self, lease: Lease, now: Timestamp, due: Timestamp, setback: Setback) -> Result<bool, Error> {
        forward!(self.retry(lease, now, due, setback))
    }

    /// Closes a failed attempt and gives the work up: a dead letter. False where the lease is no longer held.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn bury(&self, lease: Lease, now: Timestamp, setback: Setback) -> Result<bool, Error> {
        forward!(self.bury(lease, now, setback))
    }

    /// Gives jobs back that were claimed and not begun.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn hand_back(&self, leases: Vec<Lease>, now: Timestamp) -> Result<(), Error> {
        forward!(self.hand_back(leases, now))
    }

    /// Ends the leases that have run out; says how many.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        forward!(self.expire(now))
    }

    /// Brings what is due later forward, since wall time went back: by so much, or, at a start, by as much as the store was last
    /// written to after `now`. Says by how much, and how many jobs that changed; `None` if time did not go back.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn clock_went_back(&self, by: Option<Duration>, now: Timestamp) -> Result<Option<(Duration, usize)>, Error> {
        forward!(self.clock_went_back(by, now))
    }

    /// Writes down that tasks of `source` are ours.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn record_proofs(&self, source: &str, proofs: Vec<Proof>, now: Timestamp) -> Result<(), Error> {
        forward!(self.record_proofs(source, proofs, now))
    }

    /// Writes down that a task of `source` is to be expected, on a person's word: it is ours, and of this kind.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn track(&self, source: &str, task: Tracked, now: Timestamp) -> Result<(), Error> {
        forward!(self.track(source, task, now))
    }

    /// Lets an event out of quarantine, on a person's word.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn release(&self, event: &str, now: Timestamp) -> Result<Released, Error> {
        forward!(self.release(event, now))
    }

    /// The verification keys of `source` as last saved, in PEM, with the time they were loaded.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn verification_keys(&self, source: &str) -> Result<Vec<(String, Timestamp)>, Error> {
        forward!(self.verification_keys(source))
    }

    /// Saves the verification keys of `source` in the place of the earlier ones.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn save_verification_keys(&self, source: &str, keys: Vec<String>, now: Timestamp) -> Result<(), Error> {
        forward!(self.save_verification_keys(source, keys, now))
    }

    /// The files of the subject of an archive job.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn files(&self, subject: i64) -> Result<Vec<FileRow>, Error> {
        forward!(self.files(subject))
    }

    /// The events of the subject of an archive job that wait for files, the first in the order of acceptance.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn waiting_for_files(&self, subject: i64) -> Result<Vec<Waiting>, Error> {
        forward!(self.waiting_for_files(subject))
    }

    /// An event, by [`model::StoredEvent::seq`].
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn stored_event(&self, seq: i64) -> Result<Option<StoredEvent>, Error> {
        forward!(self.stored_event(seq))
    }

    /// A task and its files as last fetched, without the raw answers.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn fetched(&self, source: &str, task_id: &str) -> Result<Option<Fetched>, Error> {
        forward!(self.fetched(source, task_id))
    }

    /// The key `name` that this store made for itself, for ever the same; `candidate` becomes it where there is none yet.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn own_key(&self, name: &'static str, candidate: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, Error> {
        forward!(self.own_key(name, candidate, now))
    }

    /// Adds rejections to their ring, and drops the oldest over its bounds.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn record_rejections(&self, rejections: Vec<NewRejection>) -> Result<(), Error> {
        forward!(self.record_rejections(rejections))
    }
}
