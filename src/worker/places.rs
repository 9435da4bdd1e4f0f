//! What can be started now: of the sources and destinations that this process holds, the places that are free, and whether they may be
//! asked.

use std::collections::HashMap;
use std::sync::Arc;

use super::Worker;
use crate::clock;
use crate::store::model::{Capacity, JobKind, Queue, Which};

/// Prove jobs at once for a source, of those that need no call: each waits for two commits, so on a slow disk they must be many.
const PROVE_PLACES: usize = 32;
/// Tasks at once for a source that must be asked for: a list answers for all of them.
const ASK_PLACES: usize = 64;
/// Tasks to prove, and tasks to fetch, that are claimed in one go for a source, each with its events: senders wait for no longer
/// transaction. The next claim follows as soon as one ends or another comes.
const TASK_CLAIM: usize = 8;
/// Deliveries to a destination that are claimed in one go, for the same reason.
const DELIVER_CLAIM: usize = 16;
/// Fetches at once for a source: beside its calls, each waits for two commits. No more, since each holds a conversation.
const FETCH_PLACES: usize = 16;
/// Tasks at once for a source whose files are archived. Many: how many files are on their way is limited elsewhere, and whoever has
/// no place cannot hand on the events that have waited long enough.
const ARCHIVE_PLACES: usize = 256;

impl Worker {
    /// How much of each kind can be started now.
    pub(super) fn capacities(&self) -> Vec<Capacity> {
        let (environment, now) = (Arc::clone(&self.environment), self.environment.clock.elapsed());
        let mut used: HashMap<(JobKind, bool, &str), usize> = HashMap::new();
        for slot in self.slots.values() {
            *used.entry((slot.kind, slot.asks, slot.queue.as_str())).or_default() += slot.leases.len();
        }
        let held = |kind, asks, queue: &str| used.get(&(kind, asks, queue)).copied().unwrap_or_default();
        let in_flight = |kind, queue: &str| held(kind, false, queue);
        let mut capacities = Vec::new();
        let mut add = |kind, which, queue: &str, limit| {
            if limit > 0 {
                capacities.push(Capacity { kind, queue: queue.to_owned(), which, limit });
            }
        };
        for (name, source) in &environment.sources {
            if !self.holdings.has(&Queue::Source(name.clone())) {
                continue;
            }
            let places = FETCH_PLACES.saturating_sub(in_flight(JobKind::Fetch, name)).min(TASK_CLAIM);
            add(JobKind::Fetch, Which::Any, name, places);
            add(JobKind::Archive, Which::Any, name, ARCHIVE_PLACES.saturating_sub(in_flight(JobKind::Archive, name)));
            let places = PROVE_PLACES.saturating_sub(in_flight(JobKind::Prove, name)).min(TASK_CLAIM);
            if !source.needs_proof() {
                add(JobKind::Prove, Which::Any, name, places);
                continue;
            }
            // Whoever asks the provider may have to wait for its answer, so those have places of their own, one batch at a time.
            add(JobKind::Prove, Which::Settled, name, places);
            let asking = held(JobKind::Prove, true, name) > 0;
            add(JobKind::Prove, Which::Unsettled, name, if asking { 0 } else { ASK_PLACES });
        }
        for (name, destination) in &environment.destinations {
            // What others still have in hand, from before it was ours, counts as well.
            let Some(elsewhere) = self.holdings.elsewhere(name) else { continue };
            let in_flight = in_flight(JobKind::Deliver, name) + elsewhere;
            let free = destination.concurrency().saturating_sub(in_flight);
            let allowed = self.breakers.get(name).map_or(free, |breaker| breaker.allows(free, in_flight, now));
            let allowed = self.paces.get(name).map_or(allowed, |pace| pace.allows(allowed));
            add(JobKind::Deliver, Which::Any, name, allowed.min(DELIVER_CLAIM));
        }
        capacities
    }

    /// When the first destination that may not be asked now may be asked again, or the next round of reconciliation or of watching is due.
    pub(super) fn alarm(&self) -> Option<jiff::Timestamp> {
        let (now, wall) = (self.environment.clock.elapsed(), self.environment.clock.now());
        let breakers = self.breakers.values().filter_map(|breaker| breaker.opens_at(now));
        let paces = self.paces.values().filter_map(|pace| pace.again_in().map(|wait| now + wait));
        let held = |name: &&String| self.holdings.has(&Queue::Source((*name).clone()));
        let rounds =
            self.rounds.iter().flat_map(|rounds| rounds.0.iter()).filter(|(name, _)| held(name)).map(|(_, next)| next.round);
        breakers
            .chain(paces)
            .chain(rounds)
            .chain(self.next_watch())
            .min()
            .map(|until| clock::after(wall, until.saturating_sub(now)))
    }
}
