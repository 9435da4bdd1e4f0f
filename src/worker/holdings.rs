//! Which sources and destinations are this process's to work for, where several share the store.
//!
//! What must hold:
//! - A limit is counted in one process at a time, and whoever counts next begins with nothing left: so in no minute there is more than
//!   allowed, whichever process made how much of it.
//! - A source is handed over when no call of its work is under way, a destination at once: how many deliveries others still have in
//!   hand is told, and counts.
//! - What is known of a destination that somebody else asks now (a breaker that is open, that it is degraded) is forgotten.

use std::collections::HashMap;
use std::time::Duration;

use super::{Worker, deliver, prove, watch};
use crate::store;
use crate::store::model::{Bundle, Held, JobKind, Queue};

/// How often it is asked for.
const HOLD_EVERY: Duration = Duration::from_secs(1);

/// What this process holds, as the store last said.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// The clock's running time.
    asked_at: Option<Duration>,
    held: HashMap<Queue, Held>,
}

impl Holdings {
    /// Whether jobs of this queue may be claimed.
    pub(super) fn has(&self, queue: &Queue) -> bool {
        self.held.contains_key(queue)
    }

    /// How many deliveries to this destination others have in hand; `None` if none may be claimed.
    pub(super) fn elsewhere(&self, destination: &str) -> Option<usize> {
        self.held.get(&Queue::Destination(destination.to_owned())).map(|held| held.elsewhere)
    }
}

impl Worker {
    /// Asks which queues are this process's, when it is time.
    pub(super) async fn hold(&mut self) -> Result<(), store::Error> {
        let now = self.environment.clock.elapsed();
        if self.holdings.asked_at.is_some_and(|at| now.saturating_sub(at) < HOLD_EVERY) {
            return Ok(());
        }
        let bundles = self.bundles();
        let held = self.environment.store.hold(bundles.clone()).await?;
        let held: HashMap<Queue, Held> = held.into_iter().map(|held| (held.queue.clone(), held)).collect();
        let before = std::mem::take(&mut self.holdings.held);
        let (mut gained, mut lost) = (Vec::new(), Vec::new());
        for queue in bundles.iter().flat_map(|bundle| &bundle.queues) {
            match (before.get(queue), held.get(queue)) {
                (Some(before), Some(now)) if before.term == now.term => {}
                (None, None) if self.holdings.asked_at.is_some() => {}
                (before, Some(now)) => {
                    self.begin(now);
                    if before.is_none() {
                        gained.push(queue.name());
                    }
                }
                (before, None) => {
                    self.leave(queue);
                    if before.is_some() {
                        lost.push(queue.name());
                    }
                }
            }
        }
        if self.environment.store.replica().is_some() && !(gained.is_empty() && lost.is_empty()) {
            tracing::info!(
                gained = gained.join(", "),
                lost = lost.join(", "),
                "this replica works for {} of {} sources and destinations",
                held.len(),
                bundles.iter().map(|bundle| bundle.queues.len()).sum::<usize>()
            );
        }
        self.holdings = Holdings { asked_at: Some(now), held };
        Ok(())
    }

    /// What has limits of its own: each destination, and the sources of each account.
    fn bundles(&self) -> Vec<Bundle> {
        let mut accounts: Vec<(*const _, Bundle)> = Vec::new();
        for (name, source) in &self.environment.sources {
            let (account, queue) = (std::ptr::from_ref(source.budget()), Queue::Source(name.clone()));
            let busy = self.is_busy(name);
            match accounts.iter_mut().find(|(known, _)| *known == account) {
                Some((_, bundle)) => {
                    bundle.queues.push(queue);
                    bundle.busy |= busy;
                }
                None => accounts.push((account, Bundle { queues: vec![queue], busy })),
            }
        }
        let destinations = self.environment.destinations.keys().map(|name| Queue::Destination(name.clone()));
        let sources = accounts.into_iter().map(|(_, bundle)| bundle);
        sources.chain(destinations.map(|queue| Bundle { queues: vec![queue], busy: false })).collect()
    }

    /// Whether work for a source is under way that calls its provider. Files do not count, which may take long: who saves them asks for
    /// each call that it makes, and is told that there is none.
    fn is_busy(&self, source: &str) -> bool {
        let calls = |kind, asks| kind == JobKind::Fetch || (kind == JobKind::Prove && asks);
        self.slots.values().any(|slot| slot.queue == source && calls(slot.kind, slot.asks))
    }

    /// Begins to count the limits of a queue.
    fn begin(&mut self, held: &Held) {
        match &held.queue {
            Queue::Source(name) => {
                if let Some(source) = self.environment.sources.get(name) {
                    source.budget().open(held.rested);
                }
            }
            Queue::Destination(name) => {
                self.breakers.remove(name);
                if let Some(pace) = self.paces.get_mut(name).filter(|_| !held.rested) {
                    pace.empty();
                }
            }
        }
    }

    /// Somebody else counts the limits of a queue.
    fn leave(&mut self, queue: &Queue) {
        match queue {
            Queue::Source(name) => {
                if let Some(source) = self.environment.sources.get(name) {
                    source.budget().close();
                    self.environment.health.recover(&prove::part(source));
                    self.environment.health.recover(&watch::part(name));
                }
            }
            Queue::Destination(name) => {
                self.breakers.remove(name);
                self.environment.health.recover(&deliver::part(name));
            }
        }
    }

    /// Lets others have what this process holds; but, as long as work is under way, not what it uses.
    pub(super) async fn let_go(&self, under_way: bool) {
        let bundles = self.bundles().into_iter().filter(|bundle| under_way && bundle.busy);
        let kept = bundles.flat_map(|bundle| bundle.queues).filter(|queue| self.holdings.has(queue)).collect();
        if let Err(error) = self.environment.store.let_go(kept).await {
            tracing::warn!(error = %error, "other replicas are not told of the stop, and find out within seconds: {error}");
        }
    }
}
