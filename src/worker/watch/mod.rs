//! Watching: what is not as it should be becomes an event, and one more when it is well again.
//!
//! Once a minute the store is looked through for what has lasted too long. Who holds a source looks after its tasks, its events and
//! its webhooks; who holds a destination looks after its deliveries.
//!
//! What must hold:
//! - Each condition is told once, and its end once, whatever dies in between and whoever looks: what is to be told is written down first,
//!   with the id of its event, and an event of that id is made once.
//! - Many at once are told in few events: [`MOST`] by themselves, the rest in one.
//! - Nothing is watched of what watching makes: a watch event that waits or is given up on makes no other.

mod config;
mod tell;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

pub use self::config::{Config, Limit};
pub(super) use self::tell::{facts, stage};
use super::{Environment, Slot, Worker, trace};
use crate::clock;
use crate::event::Watch;
use crate::provider::{Source, Switch};
use crate::store;
use crate::store::model::{Appended, Condition, JobKind, Look, Queue, Watched};
use crate::task::plain;
use crate::telemetry::logged;
use crate::telemetry::trace::Tracer;

/// How often it is looked.
const EVERY: Duration = Duration::from_mins(1);
/// The most that are told by themselves in a round, of one type and of one source or destination; and the most ends.
const MOST: usize = 5;
/// The most that are noticed in a round, of one type and of one source or destination.
const ROWS: usize = 1000;
/// How far back webhooks of a source are looked at, to know what is usual.
const WEEK: Duration = Duration::from_hours(7 * 24);
/// The least time without webhooks that is too long, however often they come.
const LEAST_GAP: Duration = Duration::from_hours(1);
/// What of a budget is told, in percent.
const SHARES: [u8; 2] = [80, 100];
/// Behind every time that is in a store.
const EVER: Duration = Duration::from_hours(24 * 365 * 100);

/// When each source and each destination is looked at next, by the clock's running time.
#[derive(Debug, Default)]
pub(super) struct Rounds(HashMap<Queue, Duration>);

impl Worker {
    /// Begins the round that is due.
    pub(super) fn watch(&mut self) {
        let (environment, now) = (Arc::clone(&self.environment), self.environment.clock.elapsed());
        if self.is_watching() {
            return;
        }
        let Some(Rounds(next)) = self.watches.as_deref_mut() else { return };
        let sources = environment.sources.keys().map(|name| Queue::Source(name.clone()));
        let destinations = environment.destinations.keys().map(|name| Queue::Destination(name.clone()));
        let is_due = |of: &Queue| self.holdings.has(of) && next.get(of).is_none_or(|at| *at <= now);
        let due: Vec<Queue> = sources.chain(destinations).filter(is_due).collect();
        if due.is_empty() {
            return;
        }
        next.extend(due.iter().map(|of| (of.clone(), now + EVERY)));
        let slot = Slot {
            kind: JobKind::Prove,
            queue: String::new(),
            asks: false,
            reconciles: false,
            watches: true,
            leases: Vec::new(),
        };
        let task = self.running.spawn(async move {
            for of in due {
                if let Err(error) = (Round { environment: &environment, of: &of }).run().await {
                    tracing::warn!(part = of.name(), error = %error, "what is not as it should be is looked for later: {error}");
                }
            }
        });
        self.slots.insert(task.id(), slot);
    }

    fn is_watching(&self) -> bool {
        self.slots.values().any(|slot| slot.watches)
    }

    /// When the next round is due, by the clock's running time; `None` while one is under way, whose end is waited for anyway.
    pub(super) fn next_watch(&self) -> Option<Duration> {
        let Rounds(next) = self.watches.as_deref().filter(|_| !self.is_watching())?;
        next.iter().filter(|(of, _)| self.holdings.has(of)).map(|(_, at)| *at).min()
    }
}

/// The part whose health the webhooks of a source are.
pub(super) fn part(source: &str) -> String {
    format!("webhooks of {source}")
}

/// A round of a source or a destination. What it could not do, the next one does.
struct Round<'a> {
    environment: &'a Environment,
    of: &'a Queue,
}

impl Round<'_> {
    async fn run(&self) -> Result<(), store::Error> {
        let config = &self.environment.watch;
        let if_on = |switch| (switch == Switch::On).then_some(Duration::ZERO);
        match self.of {
            Queue::Source(name) => {
                self.look(Look::TaskSilent, config.task_silent.0).await?;
                self.look(Look::TaskWaiting, config.task_waiting.0).await?;
                self.look(Look::DeadEvent, if_on(config.dead_letter)).await?;
                match self.environment.sources.get(name) {
                    Some(source) => {
                        self.listen(source).await?;
                        self.count(source).await
                    }
                    None => Ok(()),
                }
            }
            Queue::Destination(_) => {
                self.look(Look::NotDelivered, config.not_delivered.0).await?;
                self.look(Look::DeadDelivery, if_on(config.dead_letter)).await
            }
        }
    }

    /// Notices what has lasted for `limit` and what has ended of it, and tells it.
    async fn look(&self, look: Look, limit: Option<Duration>) -> Result<(), store::Error> {
        let (store, now, name) = (&self.environment.store, self.environment.clock.now(), self.of.name());
        let watch = look.watch();
        let Some(limit) = limit else { return self.forget(watch).await };
        self.tell(watch).await?;
        // What was given up on has been so at once, whatever the clock says.
        let before = if limit.is_zero() { clock::after(now, EVER) } else { clock::before(now, limit) };
        let over = store.over(look, name, before, ROWS).await?;
        let held = store.unnoticed(look, name, before, ROWS).await?;
        self.write_down(watch, over, held, now).await
    }

    /// Notices that no webhooks come of a source though its tasks stop, for longer than is usual, or that they come again.
    async fn listen(&self, source: &Source) -> Result<(), store::Error> {
        let Environment { store, clock, health, watch, .. } = self.environment;
        let part = part(source.name());
        if watch.source_silent == Switch::Off || source.reconcile().is_none() {
            health.recover(&part);
            return self.forget(Watch::SourceSilent).await;
        }
        self.tell(Watch::SourceSilent).await?;
        let (now, name) = (clock.now(), source.name());
        let week = clock::before(now, WEEK);
        let lost = store.lost(name, week).await?;
        // Where nothing was lost, it does not matter what is usual.
        let webhooks = if lost.is_empty() { Vec::new() } else { store.webhooks(name, week).await? };
        let missed = missed(source.name(), &lost, &webhooks, now);
        match &missed {
            Some(missed) => health.degrade(&part, tell::silence(missed)),
            None => health.recover(&part),
        }
        let noticed = store.noticed(Watch::SourceSilent, self.of).await?;
        let (over, held) = match missed {
            Some(_) if !noticed.is_empty() => return Ok(()),
            Some(missed) => (Vec::new(), vec![missed]),
            None => (noticed, Vec::new()),
        };
        self.write_down(Watch::SourceSilent, over, held, now).await
    }

    /// Notices that the tasks of a source cost so much of what they should cost in a day, or that another day has begun.
    async fn count(&self, source: &Source) -> Result<(), store::Error> {
        let Environment { store, clock, time_zone, watch, .. } = self.environment;
        let Some(budget) = source.credits_per_day().filter(|_| watch.budget == Switch::On) else {
            return self.forget(Watch::Budget).await;
        };
        self.tell(Watch::Budget).await?;
        let now = clock.now();
        let day = time_zone.day(now);
        let spent = store.spent(Some(source.name()), 1, time_zone, now).await?;
        let credits = spent.iter().filter(|spent| spent.day == day).map(|spent| spent.amounts.credits).sum::<f64>();
        let reached = SHARES.into_iter().filter(|percent| credits * 100.0 >= budget * f64::from(*percent));
        let holds: Vec<_> = reached
            .map(|percent| Condition {
                key: format!("{day}:{percent}"),
                source: source.name().to_owned(),
                task_id: None,
                destination: None,
                since: now,
                detail: json!({"day": day.to_string(), "percent": percent, "credits": plain(credits), "budget": plain(budget)}),
            })
            .collect();
        let noticed = store.noticed(Watch::Budget, self.of).await?;
        let known = |condition: &Condition| noticed.iter().any(|row| row.condition.key == condition.key);
        let held = holds.iter().filter(|condition| !known(condition)).cloned().collect();
        let over = noticed.iter().filter(|row| !holds.iter().any(|one| one.key == row.condition.key)).cloned().collect();
        self.write_down(Watch::Budget, over, held, now).await
    }

    /// Writes down what has ended and what holds, each with the event that tells of it; then tells it.
    async fn write_down(
        &self,
        watch: Watch,
        over: Vec<Watched>,
        held: Vec<Condition>,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let store = &self.environment.store;
        if over.is_empty() && held.is_empty() {
            return Ok(());
        }
        if !over.is_empty() {
            store.clear(with_events(over.into_iter().map(|row| row.seq)), now).await?;
        }
        if !held.is_empty() {
            store.notice(watch, with_events(held), now).await?;
        }
        self.tell(watch).await
    }

    /// Makes the events of what is written down and not told.
    async fn tell(&self, watch: Watch) -> Result<(), store::Error> {
        let Environment { store, sources, clock, wake, .. } = self.environment;
        let mut events: Vec<(Uuid, Vec<Watched>)> = Vec::new();
        for row in store.untold(watch, self.of).await? {
            match events.iter_mut().find(|(event, _)| *event == row.event) {
                Some((_, rows)) => rows.push(row),
                None => events.push((row.event, vec![row])),
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        for (_, rows) in &events {
            // What came of a source that is no more in the configuration has nobody who could work on it.
            let Some((first, source)) = rows.first().and_then(|row| Some((row, sources.get(&row.condition.source)?))) else {
                continue;
            };
            let event = tell::event(watch, source, first, rows.len(), clock.now());
            tracing::info!(
                source = source.name(), destination = first.condition.destination, task = event.task_id.as_ref().map(logged), event = %event.id,
                "{}: {}", watch.as_str(), if first.cleared_at.is_some() { "cleared" } else { "raised" }
            );
            let (id, task_id) = (event.id, event.task_id.clone());
            if matches!(store.append(event).await?, Appended::New(_)) {
                let span = trace::begin(self.environment, "watch", id, watch.as_str(), source, task_id.as_deref());
                span.set("taskhook.watch.state", if first.cleared_at.is_some() { "cleared" } else { "raised" });
                span.set_some("taskhook.destination", first.condition.destination.as_deref());
                // What it tells of has a trace of its own.
                if let Some(of) = first.condition.detail["event"].as_str().and_then(|event| event.parse().ok()) {
                    span.link(Tracer::root_of(of));
                }
            }
        }
        store.told(events.into_iter().map(|(event, _)| event).collect()).await?;
        wake.notify_one();
        Ok(())
    }

    /// Nobody watches for it.
    async fn forget(&self, watch: Watch) -> Result<(), store::Error> {
        if self.environment.store.noticed(watch, self.of).await?.is_empty() {
            return Ok(());
        }
        self.environment.store.unwatch(watch, self.of).await
    }
}

/// Gives each of the first an event of its own, and the rest one together.
fn with_events<T>(all: impl IntoIterator<Item = T>) -> Vec<(T, Uuid)> {
    let rest = Uuid::now_v7();
    all.into_iter().enumerate().map(|(number, one)| (one, if number < MOST { Uuid::now_v7() } else { rest })).collect()
}

/// That stops were `lost` since the last of the `webhooks`, which is longer ago than is usual.
fn missed(source: &str, lost: &[Timestamp], webhooks: &[Timestamp], now: Timestamp) -> Option<Condition> {
    let newest = webhooks.last().copied();
    let lost: Vec<_> = lost.iter().filter(|at| newest.is_none_or(|newest| **at > newest)).collect();
    let since = newest.or(lost.first().map(|at| **at))?;
    if lost.is_empty() || clock::since(since, now) < usual_gap(webhooks) {
        return None;
    }
    Some(Condition {
        key: String::new(),
        source: source.to_owned(),
        task_id: None,
        destination: None,
        since,
        detail: json!({"stops": lost.len()}),
    })
}

/// The time between two webhooks that nineteen of twenty keep to, and no less than [`LEAST_GAP`].
fn usual_gap(webhooks: &[Timestamp]) -> Duration {
    let mut gaps: Vec<_> = webhooks.windows(2).map(|pair| clock::since(pair[0], pair[1])).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() * 19 / 20).copied().unwrap_or_default().max(LEAST_GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_763_507_100 + 60 * minutes).unwrap()
    }

    #[test]
    fn what_is_usual_is_learnt_and_never_less_than_an_hour() {
        assert_eq!(usual_gap(&[]), LEAST_GAP);
        assert_eq!(usual_gap(&[at(0), at(5), at(7)]), LEAST_GAP);
        let daily: Vec<_> = (0..7).map(|day| at(day * 24 * 60)).collect();
        assert_eq!(usual_gap(&daily), Duration::from_hours(24));
        // A night in a week of webhooks every ten minutes.
        let busy: Vec<_> = (0..100).map(|number| at(number * 10 + if number > 50 { 600 } else { 0 })).collect();
        assert_eq!(usual_gap(&busy), LEAST_GAP);
    }

    #[test]
    fn silence_is_only_what_was_lost_in() {
        let missed = |lost: &[Timestamp], webhooks: &[Timestamp], now| missed("manus", lost, webhooks, now);
        assert_eq!(missed(&[], &[at(0)], at(9_000)), None);
        assert_eq!(missed(&[at(1)], &[at(0), at(2)], at(9_000)), None, "they came again");
        assert_eq!(missed(&[at(3)], &[at(0), at(2)], at(61)), None, "not yet");
        let silent = missed(&[at(1), at(3), at(4)], &[at(0), at(2)], at(62)).unwrap();
        assert_eq!((silent.since, &silent.detail), (at(2), &json!({"stops": 2})));
        let never = missed(&[at(1)], &[], at(61)).unwrap();
        assert_eq!(never.since, at(1));
    }

    #[test]
    fn many_are_told_in_few_events() {
        let mut events: Vec<_> = with_events(0..MOST + 12).into_iter().map(|(_, event)| event).collect();
        events.dedup();
        assert_eq!(events.len(), MOST + 1);
        assert_eq!(with_events(0..MOST).len(), MOST);
    }
}
