//! The store in a PostgreSQL, which any number of replicas may share.
//!
//! What must hold, beside the contract:
//! - Nothing of one transaction is left in the process: what a replica knows and the others must know stands in the database.
//! - Whatever is done to a subject (a task, or an event that names none) is done under its lock, taken before anything is read: so of
//!   two replicas that work on one, each sees all that the other did. Claiming needs no lock: it takes rows that nobody holds.
//! - Locks are taken in one order: subjects by their number, then rows.
//! - The database may be away, at any moment and for any time: then everything fails at once, nothing is held for later, and all
//!   goes on when it is back.

mod again;
mod answer;
mod append;
mod archive;
mod beat;
mod bell;
pub(super) mod care;
mod census;
mod changes;
mod claim;
mod clock;
mod connection;
pub(super) mod copy;
mod crowd;
mod deletion;
mod delivery;
mod doubt;
mod end;
mod erase;
mod forget;
mod hold;
mod idempotency;
mod intake;
mod lane;
mod lock;
pub(super) mod look;
mod open;
mod pause;
mod place;
mod read;
mod reconcile;
mod rejection;
mod retention;
mod search;
mod series;
mod session;
mod share;
mod spending;
mod task;
mod track;
mod upkeep;
mod verbs;
mod watch;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use self::append::Appender;
use self::bell::Bell;
use self::crowd::Crowd;
use self::doubt::InHand;
use self::end::Ender;
use self::session::Sessions;
pub(super) use self::session::clean;
use super::view::Totals;
use super::{Config, Error};
use crate::clock::{Clock, millis};
use crate::postgres;

/// Connections that a replica needs beside those for work: one keeps events, one says that the replica lives.
const OTHERS: usize = 2;

/// How often leases of replicas that are gone are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// A store in a PostgreSQL; clones share it.
#[derive(Clone, Debug)]
pub struct Postgres {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: String,
    instance_id: String,
    /// This replica, until its process ends.
    me: Uuid,
    sessions: Sessions,
    /// The same, for work: it waits while senders crowd.
    work: Sessions,
    appender: Appender,
    ender: Ender,
    bell: Bell,
    in_hand: InHand,
    /// When leases of replicas that are gone are looked for next.
    expire_at: Timer,
    /// What runs beside; the store has failed when one of them ends.
    parts: Mutex<JoinSet<&'static str>>,
}

/// What is done now and then, whoever comes by.
#[derive(Debug)]
struct Timer {
    clock: Clock,
    /// Milliseconds of running time.
    at: AtomicU64,
}

impl Timer {
    fn new(clock: Clock) -> Self {
        Self { clock, at: AtomicU64::new(0) }
    }

    /// Whether it is time; then it is not for [`EXPIRE_EVERY`].
    fn is_due(&self) -> bool {
        let now = millis(self.clock.elapsed());
        let at = self.at.load(Ordering::Relaxed);
        now >= at && self.at.compare_exchange(at, now + millis(EXPIRE_EVERY), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Where a configuration leads.
pub(super) struct Way {
    place: String,
    schema: String,
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
}

impl Way {
    /// To the database that `url` names.
    fn of(url: &str, schema: &str, key: &str) -> Result<Self, Error> {
        let told = |problem: String| Error::Url { url: "postgres://…".to_owned(), problem: format!("{problem} (`{key}`)") };
        let address = postgres::parse(url).map_err(told)?;
        let tls =
            postgres::tls(address.root_certificates.as_deref()).map_err(|problem| told(format!("`sslrootcert`: {problem}")))?;
        let place = postgres::place(&address.config);
        Ok(Self { place, schema: schema.to_owned(), config: address.config, tls: MakeRustlsConnect::new(tls) })
    }

    /// For what is asked for.
    fn main(config: &Config) -> Result<Self, Error> {
        Self::of(config.url.expose(), &config.schema, "store.url")
    }

    /// For what needs one session: migrations, and a copy.
    fn direct(config: &Config) -> Result<Self, Error> {
        match &config.listen_url {
            Some(url) => Self::of(url.expose(), &config.schema, "store.listen_url"),
            None => Self::main(config),
        }
    }

    fn sessions(&self, most: usize) -> Result<Sessions, Error> {
        Sessions::new(&self.config, &self.tls, &self.schema, most)
    }
}

/// Runs `work` to its end, whoever calls.
pub(super) fn block_on<T: Send>(work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
    let unavailable = |error: std::io::Error| Error::Unavailable(error.to_string());
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
            runtime.block_on(work)
        };
        scope.spawn(run).join().unwrap_or_else(|_| Err(Error::Unavailable("a thread ended (a bug)".to_owned())))
    })
}

/// Reads the instance id of the store that `config` names.
pub(super) fn peek_instance_id(config: &Config) -> Result<String, Error> {
    let way = Way::main(config)?;
    block_on(async { open::peek(&way).await.map(|(_, instance_id)| instance_id) })
}

/// Counts what the store holds that `config` names.
pub(super) fn peek_totals(config: &Config) -> Result<Totals, Error> {
    let way = Way::main(config)?;
    block_on(async { care::totals(&open::peek(&way).await?.0).await })
}

impl Postgres {
    pub(super) async fn open(config: &Config, clock: Clock) -> Result<Self, Error> {
        let (way, direct) = (Way::main(config)?, Way::direct(config)?);
        let instance_id = open::open(&direct, clock.now()).await?;
        let me = Uuid::now_v7();
        let mut parts = JoinSet::new();
        let others = OTHERS + usize::from(config.listen_url.is_some());
        let sessions = way.sessions(config.max_connections.saturating_sub(others).max(1))?;
        // It shares out the machine's time, which nobody can set.
        let crowd = Crowd::new(Clock::system());
        let work = sessions.behind(crowd.clone());
        let ender = Ender::start(work.clone(), &mut parts);
        let appender = Appender::start(way.sessions(1)?, crowd, clock.clone(), &mut parts);
        beat::start(way.sessions(1)?, me, appender.reach(), &mut parts).await?;
        let direct = config.listen_url.is_some().then_some(direct);
        let bell = Bell::hang(sessions.clone(), direct, &instance_id, me, &mut parts);
        let shared = Shared {
            place: way.place,
            instance_id,
            me,
            sessions,
            work,
            appender,
            ender,
            bell,
            in_hand: InHand::new(clock.clone()),
            expire_at: Timer::new(clock),
            parts: Mutex::new(parts),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn place(&self) -> &str {
        &self.shared.place
    }

    pub(super) fn instance_id(&self) -> &str {
        &self.shared.instance_id
    }

    pub(super) fn replica(&self) -> Uuid {
        self.shared.me
    }

    pub(super) async fn rung(&self) {
        self.shared.bell.heard().await;
    }

    fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    fn work(&self) -> &Sessions {
        &self.shared.work
    }

    /// A database that is away is no failure: it comes back. Only a part of the program that ended is.
    pub(super) async fn failed(&self) -> Error {
        let ended = self.shared.parts.lock().await.join_next().await;
        Error::Unavailable(format!("{} ended (a bug)", ended.and_then(Result::ok).unwrap_or("a part of it")))
    }
}
