//! The store in one SQLite file: one thread writes ([`writer`]), a few connections read.

mod again;
mod answer;
mod append;
mod archive;
pub(super) mod backup;
mod census;
mod changes;
pub(super) mod check;
mod checkpoint;
mod claim;
mod clock;
pub(super) mod copy;
mod delivery;
mod erase;
mod forget;
mod idempotency;
mod inspect;
mod intake;
mod keys;
mod lane;
mod measure;
mod open;
mod place;
mod read;
mod reconcile;
mod rejection;
pub(super) mod restore;
mod retention;
mod search;
mod series;
mod spending;
pub(super) mod stats;
mod task;
mod track;
mod upkeep;
mod watch;
mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_sqlite::{Hook, HookError, Pool, Runtime};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use self::changes::Changes;
use self::keys::Keys;
pub(super) use self::measure::peek_totals;
use self::writer::Writer;
use super::model::{
    Appended, Capacity, Claimed, FileRow, Finish, Lease, NewRejection, Progress, Proof, Released, Setback, StoredEvent, Tracked,
    Waiting, text,
};
use super::{Config, Error};
use crate::clock::{Clock, millis};
use crate::event::NewEvent;
use crate::task::Fetched;
use crate::telemetry::name;

/// Connections that read.
const READERS: usize = 4;
/// The longest a reader may keep its snapshot: a longer one would keep the log from being checkpointed.
const READ_TIME: Duration = Duration::from_secs(1);
/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// A store in a SQLite file; clones share it.
#[derive(Clone, Debug)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    instance_id: String,
    clock: Clock,
    min_free_bytes: u64,
    free: Free,
    writer: Writer,
    changes: Changes,
    readers: Pool,
}

/// The free space as last seen.
#[derive(Debug, Default)]
struct Free {
    bytes: AtomicU64,
    /// Milliseconds of the clock's running time when to look again.
    look_at: AtomicU64,
}

/// The file that `config` names.
pub(super) fn file(config: &Config) -> Result<PathBuf, Error> {
    open::path(config.url.expose())
}

/// Reads the instance id from a store that another process may have open.
pub(super) fn peek_instance_id(config: &Config) -> Result<String, Error> {
    let connection = open::open_read_only(&open::path(config.url.expose())?)?;
    Ok(open::instance_id(&connection)?)
}

impl Sqlite {
    pub(super) async fn open(config: &Config, clock: Clock) -> Result<Self, Error> {
        let path = open::path(config.url.expose())?;
        let (at, now) = (path.clone(), clock.now());
        let opened = tokio::task::spawn_blocking(move || open::open(&at, now))
            .await
            .map_err(|error| Error::Unavailable(error.to_string()))??;
        let changes = Changes::of(&opened.connection)?;
        let writer = Writer::start(opened.connection, opened.lock, &path, clock.clone(), changes.clone())?;
        let readers = readers(&path)?;
        let shared = Shared {
            path,
            instance_id: opened.instance_id,
            clock,
            min_free_bytes: config.min_free_bytes.0,
            free: Free::default(),
            writer,
            changes,
            readers,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.shared.path.clone()
    }

    pub(super) fn changes(&self) -> crate::store::Changes {
        self.shared.changes.counts()
    }

    pub(super) fn instance_id(&self) -> &str {
        &self.shared.instance_id
    }

    pub(super) async fn failed(&self) -> Error {
        self.shared.writer.failed().await
    }

    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        self.shared.writer.closed()
    }

    /// Does `work` in a transaction.
    async fn write<T, F>(&self, mut work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.shared.writer.write(move |connection, _| work(connection)).await
    }

    /// Does `work` in a transaction, with everything taken in that was kept before it: first in turns that senders do not notice, then
    /// what has come meanwhile.
    async fn write_caught_up<T, F>(&self, now: Timestamp, mut work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection, &mut Keys) -> Result<T, Error> + Send + 'static,
    {
        let newest = self.read(intake::newest).await?;
        while self.write(move |connection| intake::take_in(connection, now)).await?.is_some_and(|taken| taken < newest) {}
        let work = move |connection: &Connection, keys: &mut Keys| {
            intake::catch_up(connection, now)?;
            work(connection, keys)
        };
        self.shared.writer.write(work).await
    }

    /// Runs `work` on a reading connection.
    async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let unavailable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
        let connection = self.shared.readers.get().await.map_err(|error| unavailable(&error))?;
        let clock = self.shared.clock.clone();
        connection
            .interact(move |connection| {
                let deadline = clock.elapsed() + READ_TIME;
                connection.progress_handler(4096, Some(move || clock.elapsed() > deadline))?;
                let transaction = connection.transaction()?;
                work(&transaction)
            })
            .await
            .map_err(|error| unavailable(&error))?
    }

    fn ensure_space(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let now = millis(shared.clock.elapsed());
        if now >= shared.free.look_at.load(Ordering::Relaxed) {
            let folder = shared.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Where it cannot be known, the commit itself will tell.
            let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            shared.free.bytes.store(free, Ordering::Relaxed);
            shared.free.look_at.store(now + millis(SPACE_EVERY), Ordering::Relaxed);
            metrics::gauge!(name::STORE_FREE_BYTES).set(free as f64);
        }
        let free = shared.free.bytes.load(Ordering::Relaxed);
        if free < shared.min_free_bytes {
            return Err(Error::Full(format!("{free} bytes are free, `store.min_free_bytes` is {}", shared.min_free_bytes)));
        }
        Ok(())
    }

    pub(super) async fn append(&self, event: NewEvent) -> Result<Appended, Error> {
        self.ensure_space()?;
        let headers = serde_json::to_string(&event.headers).map_err(|error| Error::Database(error.to_string()))?;
        let bytes = event.body.len() + headers.len();
        self.shared.writer.keep(bytes, move |connection, keys| append::append(connection, keys, &event, &headers)).await
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        self.ensure_space()?;
        // Something new: what stays as it is, SQLite does not write.
        let now = text(self.shared.clock.now());
        self.write(move |connection| {
            connection.prepare_cached("INSERT OR REPLACE INTO store (name, value) VALUES ('checked_at', ?1)")?.execute([&now])?;
            Ok(())
        })
        .await
    }

    pub(super) async fn claim(&self, capacities: Vec<Capacity>, now: Timestamp) -> Result<Claimed, Error> {
        self.write(move |connection| claim::claim(connection, &capacities, now)).await
    }

    pub(super) async fn renew(&self, lease: Lease) -> Result<bool, Error> {
        self.read(move |connection| work::renew(connection, lease)).await
    }

    pub(super) async fn finish(&self, lease: Lease, now: Timestamp, finish: Finish) -> Result<bool, Error> {
        self.write(move |connection| work::finish(connection, lease, now, &finish)).await
    }

    pub(super) async fn progress(&self, lease: Lease, now: Timestamp, progress: Progress) -> Result<bool, Error> {
        self.write(move |connection| archive::progress(connection, lease, now, &progress)).await
    }

    pub(super) async fn retry(&self, lease: Lease, now: Timestamp, due: Timestamp, setback: Setback) -> Result<bool, Error> {
        self.write(move |connection| work::retry(connection, lease, now, due, &setback)).await
    }

    pub(super) async fn bury(&self, lease: Lease, now: Timestamp, setback: Setback) -> Result<bool, Error> {
        self.write(move |connection| work::bury(connection, lease, now, &setback)).await
    }

    pub(super) async fn hand_back(&self, leases: Vec<Lease>, now: Timestamp) -> Result<(), Error> {
        self.write(move |connection| work::hand_back(connection, &leases, now)).await
    }

    pub(super) async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        self.write(move |connection| work::expire(connection, now)).await
    }

    pub(super) async fn clock_went_back(&self, by: Option<Duration>, now: Timestamp) -> Result<Option<(Duration, usize)>, Error> {
        self.write(move |connection| clock::went_back(connection, by, now)).await
    }

    pub(super) async fn record_proofs(&self, source: &str, proofs: Vec<Proof>, now: Timestamp) -> Result<(), Error> {
        let source = source.to_owned();
        self.write(move |connection| proofs.iter().try_for_each(|proof| work::prove(connection, &source, proof, &text(now))))
            .await
    }

    pub(super) async fn track(&self, source: &str, task: Tracked, now: Timestamp) -> Result<(), Error> {
        let source = source.to_owned();
        self.write(move |connection| track::track(connection, &source, &task, now)).await
    }

    pub(super) async fn release(&self, event: &str, now: Timestamp) -> Result<Released, Error> {
        let event = event.to_owned();
        self.write(move |connection| work::release(connection, &event, now)).await
    }

    pub(super) async fn verification_keys(&self, source: &str) -> Result<Vec<(String, Timestamp)>, Error> {
        let source = source.to_owned();
        self.read(move |connection| read::verification_keys(connection, &source)).await
    }

    pub(super) async fn save_verification_keys(&self, source: &str, keys: Vec<String>, now: Timestamp) -> Result<(), Error> {
        let source = source.to_owned();
        self.write(move |connection| {
            connection.prepare_cached("DELETE FROM verification_keys WHERE source = ?1")?.execute([&source])?;
            for pem in &keys {
                connection
                    .prepare_cached("INSERT INTO verification_keys (source, pem, loaded_at) VALUES (?1, ?2, ?3)")?
                    .execute(params![source, pem, text(now)])?;
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn files(&self, subject: i64) -> Result<Vec<FileRow>, Error> {
        self.read(move |connection| archive::files(connection, subject)).await
    }

    pub(super) async fn waiting_for_files(&self, subject: i64) -> Result<Vec<Waiting>, Error> {
        self.read(move |connection| archive::waiting(connection, subject)).await
    }

    pub(super) async fn stored_event(&self, seq: i64) -> Result<Option<StoredEvent>, Error> {
        self.read(move |connection| claim::stored(connection, seq)).await
    }

    pub(super) async fn fetched(&self, source: &str, task_id: &str) -> Result<Option<Fetched>, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.read(move |connection| archive::fetched(connection, &source, &task_id)).await
    }

    pub(super) async fn own_key(&self, name: &'static str, candidate: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, Error> {
        self.write(move |connection| archive::own_key(connection, name, &candidate, now)).await
    }

    pub(super) async fn record_rejections(&self, rejections: Vec<NewRejection>) -> Result<(), Error> {
        self.write(move |connection| rejection::record(connection, &rejections)).await
    }
}

/// A pool of connections that cannot write.
fn readers(path: &Path) -> Result<Pool, Error> {
    let unavailable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
    let mut config = deadpool_sqlite::Config::new(path);
    config.pool = Some(deadpool_sqlite::PoolConfig::new(READERS));
    config
        .builder(Runtime::Tokio1)
        .map_err(|error| unavailable(&error))?
        .post_create(Hook::async_fn(|connection, _| {
            Box::pin(async move {
                connection
                    .interact(|connection| {
                        connection.busy_timeout(READ_TIME)?;
                        connection.pragma_update(None, "query_only", true)
                    })
                    .await
                    .map_err(|error| HookError::message(error.to_string()))?
                    .map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|error| unavailable(&error))
}
