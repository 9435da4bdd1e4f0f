//! Finding stops that no webhook told: a lost webhook, or one that there never is, since a task failed or was stopped by hand.
//!
//! In rounds, the list of tasks is read back to where the last round began, and once an hour back to the horizon; tasks that may be at work
//! and are not in it are asked for one by one, the older the rarer. Of what changed since its stops were last accounted for, the stops
//! are read, and each that nobody told becomes an event, which goes the usual way.
//!
//! What must hold:
//! - What stopped before the source's first start ([`Reconciled::since`]) is left alone.
//! - A stop is left to its webhook for `grace`, and a task of which an event is being worked on to that.
//! - A webhook that was heard and went out without its stop, since the provider did not answer or did not show it, is that stop's if it says
//!   the same; if one of its kind says something else, what is recovered is marked `may_repeat`.
//! - The event of a stop has one id, so it is made once, whatever dies in between; and it claims its stop like any other.
//! - Whoever matters more has the account's calls first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::prove::{complain, part};
use super::{Environment, Slot, Worker, dispatch, turns};
use crate::clock;
use crate::event::{First, NewEvent, TASK_FAILED, TASK_STOPPED, Verification};
use crate::provider::{ApiError, Listed, Reconcile, Source, Use};
use crate::store;
use crate::store::model::{Appended, Claim, JobKind, Proof, Queue, Reconciled, StoredEvent};
use crate::task::{State, Stop};
use crate::telemetry::name as metric;

/// The most pages of the list in a round, of 100 tasks each.
const PAGES: usize = 100;
/// How often the list is read back to the horizon.
const COMPARE_EVERY: Duration = Duration::from_hours(1);
/// How much of what was read before is read again: lists lag.
const OVERLAP: Duration = Duration::from_mins(10);
/// The most tasks that are asked for by themselves in a round.
const POLLS: usize = 50;
/// The longest between two times that an open task is asked for by itself.
const POLL_MOST: Duration = Duration::from_hours(6);

/// When each source is reconciled next, by the clock's running time.
#[derive(Debug, Default)]
pub(super) struct Rounds(pub(super) HashMap<String, Duration>);

/// Why a round ended early.
enum Trouble {
    Provider(ApiError),
    Store(store::Error),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Self::Provider(error)
    }
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Worker {
    /// Begins the rounds that are due.
    pub(super) fn reconcile(&mut self) {
        let (environment, now) = (Arc::clone(&self.environment), self.environment.clock.elapsed());
        let Some(Rounds(rounds)) = self.rounds.as_deref_mut() else { return };
        for (name, source) in &environment.sources {
            let Some(config) = source.reconcile() else { continue };
            let under_way = self.slots.values().any(|slot| slot.reconciles && slot.queue == *name);
            if under_way || !self.holdings.has(&Queue::Source(name.clone())) || rounds.get(name).is_some_and(|at| *at > now) {
                continue;
            }
            rounds.insert(name.clone(), now + config.interval);
            let (environment, source) = (Arc::clone(&environment), Arc::clone(source));
            let task = self.running.spawn(async move { run(&environment, &source).await });
            let slot = Slot {
                kind: JobKind::Prove,
                queue: name.clone(),
                asks: true,
                reconciles: true,
                watches: false,
                leases: Vec::new(),
            };
            self.slots.insert(task.id(), slot);
        }
    }
}

/// A round. What it could not do, the next one does.
async fn run(environment: &Environment, source: &Source) {
    let Some(config) = source.reconcile() else { return };
    match (Round { environment, source, config }).run().await {
        Ok(()) => environment.health.recover(&part(source)),
        Err(Trouble::Provider(error)) => {
            complain(environment, source, 1, &error);
        }
        Err(Trouble::Store(error)) => {
            tracing::warn!(source = source.name(), error = %error, "stops that no webhook told are looked for later: {error}");
        }
    }
}

struct Round<'a> {
    environment: &'a Environment,
    source: &'a Source,
    config: &'a Reconcile,
}

impl Round<'_> {
    async fn run(&self) -> Result<(), Trouble> {
        let (store, name, now) = (&self.environment.store, self.source.name(), self.environment.clock.now());
        let known = store.reconciled(name, clock::before(now, self.config.backfill)).await?;
        let whole = known.compared_at.is_none_or(|at| at > now || now >= clock::after(at, COMPARE_EVERY));
        let back_to = match known.read_at {
            // The first time: what is older stopped before, or goes on later, which an hourly comparison finds.
            None => known.since,
            Some(_) if whole => clock::before(now, self.config.horizon),
            Some(read_at) => clock::before(read_at, OVERLAP),
        };
        let (mut seen, mut cursor) = (BTreeSet::new(), None);
        for _ in 0..PAGES {
            self.source.budget().take(Use::Reconcile).await;
            let page = self.source.tasks(cursor.as_deref()).await?;
            self.compare(&page.tasks, &known).await?;
            seen.extend(page.tasks.into_iter().map(|task| task.task_id));
            cursor = page.next.filter(|_| page.reaches.is_none_or(|reaches| reaches > back_to));
            if cursor.is_none() {
                break;
            }
        }
        store.note_read(name, now, whole).await?;
        self.poll(&seen, &known).await
    }

    /// What stopped later than this may be recovered.
    fn from(&self, known: &Reconciled, now: Timestamp) -> Timestamp {
        clock::before(now, self.config.horizon).max(known.since)
    }

    /// Notes which of listed tasks are at work, and looks at those that stand at a stop which may be nobody's.
    async fn compare(&self, tasks: &[Listed], known: &Reconciled) -> Result<(), Trouble> {
        let now = self.environment.clock.now();
        let from = self.from(known, now);
        let at_work = tasks.iter().filter(|task| task.state == State::Running);
        let active: Vec<_> = at_work.map(|task| (task.task_id.clone(), task.updated_at.unwrap_or(now))).collect();
        if !active.is_empty() {
            self.environment.store.note_active(self.source.name(), active).await?;
        }
        let changed = |task: &&Listed| {
            let stopped = !matches!(task.state, State::Running | State::Unknown);
            let at = task.updated_at.unwrap_or(now);
            stopped && at > from && clock::after(at, self.config.grace) <= now
        };
        self.look_at(tasks.iter().filter(changed).cloned().collect(), known, None).await
    }

    /// Looks at those of `tasks` of which more may be known now, and that nothing is being done about.
    async fn look_at(&self, tasks: Vec<Listed>, known: &Reconciled, polled: Option<Timestamp>) -> Result<(), Trouble> {
        if tasks.is_empty() {
            return Ok(());
        }
        let ids = tasks.iter().map(|task| task.task_id.clone()).collect();
        let acquainted = self.environment.store.acquainted(self.source.name(), ids).await?;
        for (task, with) in tasks.iter().zip(acquainted) {
            let looked_at = with.looked_at.is_some_and(|at| task.updated_at.is_some_and(|updated_at| at >= updated_at));
            if !looked_at && !with.busy && !with.erased {
                self.look(task, known, polled).await?;
            }
        }
        Ok(())
    }

    /// Looks at tasks that may be at work, and were in no list.
    async fn poll(&self, seen: &BTreeSet<String>, known: &Reconciled) -> Result<(), Trouble> {
        let (store, now) = (&self.environment.store, self.environment.clock.now());
        let open = store.open_tasks(self.source.name(), 4 * POLLS).await?;
        let due = open.into_iter().filter(|task| !seen.contains(&task.task_id)).filter(|task| {
            let age = clock::since(task.first_seen_at, now);
            let pause = (age / 10).clamp(self.config.interval, POLL_MOST.max(self.config.interval));
            task.polled_at.is_none_or(|at| at > now || clock::after(at, pause) <= now)
        });
        let listed = due.take(POLLS).map(|task| Listed {
            task_id: task.task_id,
            state: State::Unknown,
            background: false,
            title: task.title,
            url: task.url,
            created_at: None,
            updated_at: None,
        });
        self.look_at(listed.collect(), known, Some(now)).await
    }

    /// Reads the stops of a task, and makes events of those that nobody told.
    async fn look(&self, task: &Listed, known: &Reconciled, polled: Option<Timestamp>) -> Result<(), Trouble> {
        let (store, name) = (&self.environment.store, self.source.name());
        self.source.budget().take(Use::Reconcile).await;
        let stops = match self.source.stops(&task.task_id).await {
            Ok(stops) => stops,
            // It was deleted, or is not ours to see.
            Err(ApiError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let (title, url) = (task.title.clone(), task.url.clone());
        let proof = Proof { task_id: task.task_id.clone(), how: "listed", title, url };
        let now = self.environment.clock.now();
        store.record_proofs(name, vec![proof], now).await?;
        // Read behind the stops: a webhook that claimed one meanwhile is seen.
        let claims = store.claims(name, &task.task_id).await?;
        let from = self.from(known, now);
        let at = |stop: &Stop| stop.at.or(task.updated_at).unwrap_or(now);
        let nobodys = stops.iter().filter(|stop| !claims.iter().any(|claim| claim.anchor == stop.anchor));
        let (old, young): (Vec<_>, Vec<_>) = nobodys.partition(|stop| clock::after(at(stop), self.config.grace) <= now);
        let lost: Vec<_> = old.into_iter().filter(|stop| at(stop) > from).collect();
        if !lost.is_empty() {
            let mut heard = store.unclaimed(name, &task.task_id, &[TASK_STOPPED, TASK_FAILED]).await?;
            for stop in lost {
                self.recover(task, stop, at(stop), &mut heard).await?;
            }
        }
        Ok(store.looked(name, &task.task_id, task.updated_at.filter(|_| young.is_empty()), polled).await?)
    }

    /// Makes the event of a stop; unless one of the webhooks that were `heard` (the first of them first), and went out without their stop,
    /// told of it. One that came before the stop cannot have.
    async fn recover(&self, task: &Listed, stop: &Stop, at: Timestamp, heard: &mut Vec<StoredEvent>) -> Result<(), Trouble> {
        let (environment, source) = (self.environment, self.source);
        let facts = |event: &StoredEvent| source.tell(&dispatch::kept(event));
        let may_tell = |event: &StoredEvent| turns::may_tell_of(event, at) && turns::state(&facts(event)) == Some(stop.state);
        if let Some(known) = heard.iter().position(|event| may_tell(event) && turns::say_the_same(&facts(event), stop)) {
            let event = heard.remove(known);
            let claim = Claim { anchor: stop.anchor.clone(), state: stop.state, at: stop.at, event: event.id, recovered: false };
            return Ok(environment.store.claim_stop(source.name(), &task.task_id, claim, environment.clock.now()).await?);
        }
        let may_repeat = heard.iter().any(may_tell);
        let event_id = turns::event_id(&task.task_id, &stop.anchor);
        let Some(made) = source.recovered(task, stop, &event_id, may_repeat) else { return Ok(()) };
        let event = NewEvent {
            id: Uuid::now_v7(),
            source: source.name().to_owned(),
            provider: source.provider(),
            received_at: environment.clock.now(),
            verification: Verification::Api,
            target: String::new(),
            headers: Vec::new(),
            body: Bytes::from(made.body),
            kind: made.kind.to_owned(),
            provider_type: Some(made.kind.to_owned()),
            event_id,
            task_id: Some(task.task_id.clone()),
            ping: false,
            collides: false,
            first: First::Prove,
        };
        if let Appended::New(id) = environment.store.append(event).await? {
            metrics::counter!(metric::RECOVERED, "source" => source.name().to_owned()).increment(1);
            tracing::warn!(
                source = source.name(), task_id = ?task.task_id, event = %id,
                "a stop that no webhook told was recovered: the task is {}", stop.state
            );
            environment.wake.notify_one();
        }
        Ok(())
    }
}
