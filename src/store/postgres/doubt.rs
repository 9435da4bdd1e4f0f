//! What this replica holds, and what it may hold without knowing.
//!
//! What must hold: a claim whose commit was not answered may have been made, or may be made still, when the database reads it. Nobody
//! works on what it took, and nobody else may, since its holder lives. So for as long as that may come, it is looked for and handed back.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::Postgres;
use super::session::{Tx, args, transact};
use super::work;
use crate::clock::Clock;
use crate::store::Error;
use crate::store::model::{Claimed, Lease};

/// How long a claim that failed is looked for, after the last one that did: longer than the server lets a transaction stand.
const DOUBT: Duration = Duration::from_secs(30);

/// The leases that claims gave.
#[derive(Debug)]
pub(super) struct InHand {
    clock: Clock,
    /// One claim at a time: whoever compares sees none that is committed and not told of.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    leases: HashSet<Lease>,
    /// Until when a claim that failed may turn out to have been made.
    doubt_until: Option<Duration>,
}

impl InHand {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, turn: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    /// Held while a claim is made.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns how a claim ended.
    pub(super) fn claimed(&self, claimed: &Result<Claimed, Error>) {
        let mut state = self.state();
        match claimed {
            Ok(claimed) => state.leases.extend(claimed.jobs.iter().map(|job| job.lease)),
            Err(_) => state.doubt_until = Some(self.clock.elapsed().saturating_add(DOUBT)),
        }
    }

    /// These have ended, or are somebody else's.
    pub(super) fn ended(&self, leases: &[Lease]) {
        let mut state = self.state();
        for lease in leases {
            state.leases.remove(lease);
        }
    }

    /// Whether there may be leases that nobody knows of.
    fn is_in_doubt(&self) -> bool {
        self.state().doubt_until.is_some_and(|until| self.clock.elapsed() < until)
    }

    /// Those of `leases`, which are all that this replica has, that no claim gave.
    fn unknown(&self, leases: Vec<Lease>) -> Vec<Lease> {
        let mut state = self.state();
        // What was taken away from this replica is forgotten.
        let all: HashSet<_> = leases.iter().copied().collect();
        state.leases.retain(|lease| all.contains(lease));
        leases.into_iter().filter(|lease| !state.leases.contains(lease)).collect()
    }
}

impl Postgres {
    /// Hands back what failed claims took all the same; says how much.
    pub(super) async fn hand_back_unknown(&self, now: Timestamp) -> Result<usize, Error> {
        if !self.shared.in_hand.is_in_doubt() {
            return Ok(0);
        }
        let leases = transact!(self.sessions(), Read, |tx| held(&tx, self.shared.me))?;
        let unknown = self.shared.in_hand.unknown(leases);
        if !unknown.is_empty() {
            transact!(self.sessions(), Write, |tx| work::hand_back(&tx, &unknown, now))?;
        }
        Ok(unknown.len())
    }
}

/// All leases of the replica `me`.
async fn held(tx: &Tx, me: Uuid) -> Result<Vec<Lease>, Error> {
    let rows = tx.rows("SELECT id, attempt FROM jobs WHERE state = 'leased' AND holder = $1", args![me]).await?;
    Ok(work::leases_of(&rows))
}
