//! Whether the database is there, and whether the others see that this replica lives.
//!
//! What must hold: a replica that lives says so every [`BEAT`] by the database's clock; one that was not seen for five seconds
//! ([`is_seen`]) is gone, and its leases have run out. Only who was seen all that time itself may say so of another: after an outage of the database nobody was.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use super::session::{Sessions, Tx, args, transact};
use crate::clock::{Clock, millis};
use crate::store::Error;

/// How often a replica says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// What takes longer to keep is a database that does not answer.
const STALL: Duration = Duration::from_secs(1);

/// Of a row of `replicas`, whether it was seen lately enough to live.
macro_rules! is_seen {
    () => {
        "seen_at > clock_timestamp() - interval '5 seconds'"
    };
}
pub(super) use is_seen;

/// Whether the replica `$me` may take others for gone: it was seen itself for as long as they were not.
macro_rules! may_judge {
    ($me:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM replicas WHERE id = ",
            $me,
            " AND since < clock_timestamp() - interval '5 seconds' AND seen_at > clock_timestamp() - interval '3 seconds')"
        )
    };
}
pub(super) use may_judge;

/// Whether the database can be reached, as whoever asked it last found.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    clock: Clock,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Milliseconds of running time since when whoever keeps events waits for an answer, and one more; 0 where none is.
    asked_at: AtomicU64,
    /// The same of what says that this replica lives: so the silence is noticed where nobody sends anything.
    beat_at: AtomicU64,
    /// When an answer came last.
    heard_at: AtomicU64,
    /// Why it cannot be reached.
    away: Mutex<Option<String>>,
    /// Whether there was no room for the last event that was new.
    full: AtomicBool,
}

impl Reach {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// An error while the database is away, or does not answer.
    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(reason) = &*self.state.away.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::Unreachable(reason.clone()));
        }
        let asked_at = self.state.asked_at.load(Ordering::Relaxed);
        // A beat that waits means nothing while events are kept.
        let beat_at = match self.state.beat_at.load(Ordering::Relaxed) {
            0 => 0,
            beat_at => beat_at.max(self.state.heard_at.load(Ordering::Relaxed)),
        };
        let now = millis(self.clock.elapsed());
        let waited = |since: u64| if since > 0 { now.saturating_sub(since - 1) } else { 0 };
        let waited = waited(asked_at).max(waited(beat_at));
        if waited > millis(STALL) {
            return Err(Error::Unreachable(format!("it has not answered for {waited} ms")));
        }
        Ok(())
    }

    /// Waits for what keeps events, and learns from it.
    pub(super) fn asking<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> impl Future<Output = Result<T, Error>> {
        self.wait(&self.state.asked_at, asked)
    }

    async fn wait<T>(&self, since: &AtomicU64, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        since.store(millis(self.clock.elapsed()) + 1, Ordering::Relaxed);
        let answered = asked.await;
        since.store(0, Ordering::Relaxed);
        if answered.is_ok() {
            self.state.heard_at.store(millis(self.clock.elapsed()) + 1, Ordering::Relaxed);
        }
        self.learn(answered.as_ref().err());
        answered
    }

    fn learn(&self, error: Option<&Error>) {
        let away = match error {
            Some(Error::Unreachable(reason)) => Some(reason.clone()),
            _ => None,
        };
        let mut known = self.state.away.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &away) {
            (None, Some(reason)) => tracing::error!("the database cannot be reached, senders are asked to come again: {reason}"),
            (Some(_), None) => tracing::info!("the database can be reached again"),
            _ => {}
        }
        *known = away;
    }

    /// Whether there was no room for the last event that was new.
    pub(super) fn is_full(&self) -> bool {
        self.state.full.load(Ordering::Relaxed)
    }

    /// Learns from an event that was not kept whether there is no room.
    pub(super) fn heard_no(&self, error: &Error) {
        let Error::Full(reason) = error else { return };
        if !self.state.full.swap(true, Ordering::Relaxed) {
            tracing::error!("the database's disk is full, senders are asked to come again: {reason}");
        }
    }

    /// Learns that there is room.
    pub(super) fn has_room(&self) {
        if self.state.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the database's disk has room again");
        }
    }
}

/// Tells the others that this replica lives, before it does anything else, and from then on.
pub(super) async fn start(sessions: Sessions, me: Uuid, reach: Reach, parts: &mut JoinSet<&'static str>) -> Result<(), Error> {
    beat(&sessions, me).await?;
    transact!(sessions, Write, |tx| sweep(&tx))?;
    parts.spawn(async move {
        loop {
            tokio::time::sleep(BEAT).await;
            // What came of it, `reach` has learnt.
            let _ = reach.wait(&reach.state.beat_at, beat(&sessions, me)).await;
        }
    });
    Ok(())
}

async fn beat(sessions: &Sessions, me: Uuid) -> Result<(), Error> {
    transact!(sessions, Write, |tx| beat_in(&tx, me))
}

async fn beat_in(tx: &Tx, me: Uuid) -> Result<(), Error> {
    tx.run(
        "INSERT INTO replicas (id, since, seen_at) VALUES ($1, clock_timestamp(), clock_timestamp()) ON CONFLICT (id) DO UPDATE SET \
         since = CASE WHEN replicas.seen_at < clock_timestamp() - interval '3 seconds' THEN clock_timestamp() ELSE replicas.since END, \
         seen_at = clock_timestamp()",
        args![me],
    )
    .await
    .map(drop)
}

/// Deletes the rows of those that are long gone, and hold nothing any more.
async fn sweep(tx: &Tx) -> Result<(), Error> {
    tx.run(
        "DELETE FROM replicas WHERE seen_at < clock_timestamp() - interval '1 hour' \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'leased' AND holder = replicas.id)",
        &[],
    )
    .await
    .map(drop)
}
