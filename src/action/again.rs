//! Sending again: deliveries tried again or discarded, events replayed, destinations paused.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Actions, Error};
use crate::store;
use crate::store::model::{Act, Discarded, Like, Replayed, Retried, Select};
use crate::telemetry::logged;

/// The most rows that one call acts on: whoever means more goes on where it ended.
pub const MANY: usize = 1000;
/// The most times that one call looks for rows: as many that are not meant may lie between.
const LOOKS: usize = 200;

/// A wish about many rows.
#[derive(Clone, Debug)]
pub struct Many {
    /// What is done to them.
    pub act: Act,
    /// What they are like.
    pub like: Like,
    /// Whether they are only counted.
    pub dry_run: bool,
    /// At most this many; [`MANY`] is the most.
    pub limit: usize,
    /// The row behind which to begin.
    pub after: i64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Done {
    /// Whether they were only counted.
    pub dry_run: bool,
    /// How many were meant.
    pub matched: usize,
    /// To how many it was done; the others changed meanwhile.
    pub done: usize,
    /// Where to go on; `null` where no more are meant.
    pub next_cursor: Option<String>,
}

/// A destination, and whether it works.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DestinationRow {
    /// Its name.
    pub name: String,
    /// Its kind; `null` where it is not in the configuration any more.
    pub kind: Option<&'static str>,
    /// `ok`, `paused` or `degraded`.
    pub state: &'static str,
    /// Why it is degraded.
    pub reason: Option<String>,
    /// Since when it is paused.
    #[schema(format = DateTime)]
    pub paused_at: Option<String>,
    /// How many deliveries are to be sent to it.
    pub pending: i64,
    /// How many were given up on.
    pub dead: i64,
}

/// The part of `/readyz` that a paused destination is.
fn pause_of(destination: &str) -> String {
    format!("destination {destination} (paused)")
}

impl Actions {
    /// Tries a delivery again: the same one, its next attempt. Returns the delivery that it goes after, if it does not go now.
    ///
    /// # Errors
    /// [`Error::NoDelivery`], [`Error::InFlight`] and [`Error::NotRetryable`].
    pub async fn retry(&self, delivery: &str) -> Result<Option<String>, Error> {
        let behind = match self.store.retry_delivery(delivery, self.clock.now()).await? {
            Retried::Due => None,
            Retried::Behind(other) => Some(other),
            Retried::InFlight => return Err(Error::InFlight),
            Retried::Not(state) => return Err(Error::NotRetryable(state)),
            Retried::Unknown => return Err(Error::NoDelivery(delivery.to_owned())),
        };
        tracing::info!(delivery = logged(delivery), "a delivery is tried again by hand");
        self.wake.notify_one();
        Ok(behind)
    }

    /// Gives a delivery up for good; it is kept.
    ///
    /// # Errors
    /// [`Error::NoDelivery`], [`Error::InFlight`] and [`Error::NotDiscardable`].
    pub async fn discard(&self, delivery: &str) -> Result<(), Error> {
        match self.store.discard_delivery(delivery, self.clock.now()).await? {
            Discarded::Yes => {}
            Discarded::InFlight => return Err(Error::InFlight),
            Discarded::Not(state) => return Err(Error::NotDiscardable(state)),
            Discarded::Unknown => return Err(Error::NoDelivery(delivery.to_owned())),
        }
        tracing::info!(delivery = logged(delivery), "a delivery was discarded by hand");
        self.wake.notify_one();
        Ok(())
    }

    /// Lets an event go its way again, by the routes of now, to new deliveries; says the number of the replay. One that is still on
    /// its way is not begun a second time.
    ///
    /// # Errors
    /// [`Error::NoEvent`] and [`Error::NotReplayable`].
    pub async fn replay(&self, event: &str) -> Result<u32, Error> {
        match self.store.replay_event(event, self.clock.now()).await? {
            Replayed::Yes(number) => {
                tracing::info!(event = logged(event), replay = number, "an event is replayed by hand");
                self.wake.notify_one();
                Ok(number)
            }
            Replayed::Already(number) => Ok(number),
            Replayed::Not(state) => Err(Error::NotReplayable(state)),
            Replayed::Unknown => Err(Error::NoEvent(event.to_owned())),
        }
    }

    /// Does the same to many rows, those that were made first before the others, a few in each transaction.
    ///
    /// # Errors
    /// [`Error::NoFilter`]; [`Error::Store`] half-way through, when those before are done.
    pub async fn many(&self, many: &Many) -> Result<Done, Error> {
        if many.like == Like::default() {
            return Err(Error::NoFilter);
        }
        let limit = many.limit.min(MANY);
        let mut done = Done { dry_run: many.dry_run, ..Done::default() };
        let mut next = Some(many.after);
        for _ in 0..LOOKS {
            let Some(after) = next else { break };
            let select = match many.act {
                Act::Replay => Select::Events(many.like.clone()),
                Act::Retry | Act::Discard => Select::Deliveries(many.like.clone()),
            };
            let mut found = self.store.matching(select, after).await?;
            let room = limit - done.matched;
            if found.rows.len() > room {
                found.rows.truncate(room);
                found.next = found.rows.last().copied().or(Some(after));
            }
            done.matched += found.rows.len();
            next = found.next;
            if !many.dry_run && !found.rows.is_empty() {
                done.done += self.store.act(many.act, found.rows, self.clock.now()).await?;
                self.wake.notify_one();
            }
            if done.matched == limit {
                break;
            }
        }
        if done.done > 0 {
            tracing::info!(act = ?many.act, count = done.done, "done by hand to many");
        }
        done.next_cursor = next.map(|row| row.to_string());
        Ok(done)
    }

    /// Says of every destination that is paused that it is: before anything else does.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn tell_paused(&self) -> Result<(), store::Error> {
        for (name, since) in self.store.paused().await? {
            self.tell_pause(&name, &since);
        }
        Ok(())
    }

    fn tell_pause(&self, name: &str, since: &str) {
        let reason = format!("paused by hand since {since}: its deliveries wait for `taskhook destinations resume {name}`");
        self.health.degrade(&pause_of(name), reason);
    }

    /// Lets nothing be sent to a destination, also after a restart; says since when.
    ///
    /// # Errors
    /// [`Error::NoDestination`].
    pub async fn pause(&self, name: &str) -> Result<String, Error> {
        self.destination(name)?;
        let since = self.store.pause(name, self.clock.now()).await?;
        self.tell_pause(name, &since);
        Ok(since)
    }

    /// Lets a destination be sent to again; says whether it was paused.
    ///
    /// # Errors
    /// [`Error::NoDestination`].
    pub async fn resume(&self, name: &str) -> Result<bool, Error> {
        let was_paused = self.store.resume(name, self.clock.now()).await?;
        if !was_paused {
            self.destination(name)?;
        }
        self.health.recover(&pause_of(name));
        self.wake.notify_one();
        Ok(was_paused)
    }

    fn destination(&self, name: &str) -> Result<(), Error> {
        if self.destinations.contains_key(name) {
            return Ok(());
        }
        let known = self.destinations.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Err(Error::NoDestination { name: name.to_owned(), known })
    }

    /// Every destination: those of the configuration, and those that something still waits for.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn destinations(&self) -> Result<Vec<DestinationRow>, Error> {
        let row = |name: &str, kind| DestinationRow {
            name: name.to_owned(),
            kind,
            state: "ok",
            reason: None,
            paused_at: None,
            pending: 0,
            dead: 0,
        };
        let configured = self.destinations.iter().map(|(name, kind)| (name.clone(), row(name, Some(*kind))));
        let mut rows: BTreeMap<String, DestinationRow> = configured.collect();
        for counts in self.store.destination_counts().await? {
            let name = counts.destination;
            let row = rows.entry(name.clone()).or_insert_with(|| row(&name, None));
            (row.pending, row.dead) = (counts.pending, counts.dead);
        }
        for reason in self.health.reasons() {
            let name = reason.part.strip_prefix("destination ");
            if let Some(row) = name.and_then(|name| rows.get_mut(name)) {
                (row.state, row.reason) = ("degraded", Some(reason.reason));
            }
        }
        for (name, since) in self.store.paused().await? {
            let row = rows.entry(name.clone()).or_insert_with(|| row(&name, None));
            (row.state, row.paused_at) = ("paused", Some(since));
        }
        Ok(rows.into_values().collect())
    }
}
