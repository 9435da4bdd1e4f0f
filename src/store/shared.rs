//! The part of the contract that is about processes which share a store: who claims what, and how one wakes another.

use std::time::Duration;

use uuid::Uuid;

use super::model::{Bundle, Held, Queue};
use super::{Error, Store};

impl Store {
    /// Which of the processes that share the store this one is; `None` where only one can have it open.
    #[must_use]
    pub fn replica(&self) -> Option<Uuid> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(store) => Some(store.replica()),
        }
    }

    /// How often work is asked for even if nobody rang: others may make jobs, and leases of those that are gone run out.
    #[must_use]
    pub fn poll(&self) -> Duration {
        match self {
            Self::Sqlite(_) => Duration::from_secs(30),
            Self::Postgres(_) => Duration::from_secs(1),
        }
    }

    /// Waits until another process that shares the store says that there is work. Some of what it says may be missed.
    pub async fn rung(&self) {
        match self {
            Self::Sqlite(_) => std::future::pending().await,
            Self::Postgres(store) => store.rung().await,
        }
    }

    /// Says which queues of `bundles`, all that the caller knows, are its to claim from. To be asked every second: what nobody holds is
    /// taken, each process that works gets its share, and what another one waits for is handed over once it is not busy.
    ///
    /// # Errors
    /// When the store could not be asked; then nothing is known to have changed.
    pub async fn hold(&self, bundles: Vec<Bundle>) -> Result<Vec<Held>, Error> {
        match self {
            // Nobody else can have it open.
            Self::Sqlite(_) => {
                let held = |queue| Held { queue, term: 0, rested: true, elsewhere: 0 };
                Ok(bundles.into_iter().flat_map(|bundle| bundle.queues).map(held).collect())
            }
            Self::Postgres(store) => Box::pin(store.hold(bundles)).await,
        }
    }

    /// Takes part in the work no longer: all queues but `kept` are anybody's from now on.
    ///
    /// # Errors
    /// When the commit failed; then others take them when this process is not seen any more.
    pub async fn let_go(&self, kept: Vec<Queue>) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => Box::pin(store.let_go(kept)).await,
        }
    }
}
