//! Finding stops that no webhook told: a lost webhook, or one that there never is, since a task failed or was stopped by hand.
//!
//! In rounds, the list of tasks is read back to where the last round began, and at first and once an hour back to the horizon; tasks that may
//! be at work and are not in it are asked for one by one, the older the rarer. Of what changed since its stops were last accounted for, the
//! stops are read, and each that nobody told becomes an event, which goes the usual way. Where a provider has no list, asking one by one is
//! all there is.
//!
//! What must hold:
//! - What stopped before the source's first start ([`Reconciled::since`]) is shown, and else left alone. Where nobody tells when a task
//!   ended, one that was known before may have been handed on: it is marked `may_repeat`.
//! - A stop is left to its webhook for `grace`, and a task of which an event is being worked on to that.
//! - A webhook that was heard and went out without its stop, since the provider did not answer or did not show it, is that stop's if it says
//!   the same; if one of its kind says something else, what is recovered is marked `may_repeat`.
//! - The event of a stop has one id, so it is made once, whatever dies in between; and it claims its stop like any other.
//! - Whoever matters more has the account's calls first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::prove::{complain, part};
use super::{Environment, Slot, Worker, dispatch, registration, trace, turns};
use crate::clock;
use crate::event::{First, NewEvent, Verification};
use crate::provider::{ApiError, Expected, Listed, Lost, Rounds, Source, Use};
use crate::store;
use crate::store::model::{Appended, Claim, JobKind, Looked, Open, OpenTask, Proof, Queue, Reconciled, Shown, StoredEvent};
use crate::task::{State, Stop};
use crate::telemetry::{logged, name as metric};

/// The most pages of the list in a round, of 100 tasks each.
const PAGES: usize = 100;
/// How often the list is read back to the horizon, and what is registered compared.
const COMPARE_EVERY: Duration = Duration::from_hours(1);
/// How much of what was read before is read again: lists lag.
const OVERLAP: Duration = Duration::from_mins(10);
/// The most tasks that are asked for by themselves in a round, beside a list and without one.
const POLLS: (usize, usize) = (50, 200);
/// The most open tasks that are looked through for those.
const OPEN: usize = 1000;
/// The longest between two times that an open task is asked for by itself.
const POLL_MOST: Duration = Duration::from_hours(6);

/// What comes next for each source.
#[derive(Debug, Default)]
pub(super) struct Agenda(pub(super) HashMap<String, Next>);

/// What comes next for a source, by the clock's running time.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// The next round.
    pub(super) round: Duration,
    /// When what is registered is compared again.
    pub(super) compare: Duration,
    /// Whether it was, since that was due.
    pub(super) compared: Arc<AtomicBool>,
}

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
        let Some(Agenda(rounds)) = self.rounds.as_deref_mut() else { return };
        for (name, source) in &environment.sources {
            let Some(config) = source.reconcile() else { continue };
            let under_way = self.slots.values().any(|slot| slot.reconciles && slot.queue == *name);
            if under_way
                || !self.holdings.has(&Queue::Source(name.clone()))
                || rounds.get(name).is_some_and(|next| next.round > now)
            {
                continue;
            }
            let next = rounds.entry(name.clone()).or_insert_with(|| registration::begin(now));
            next.round = now + config.interval;
            let compared = Arc::clone(&next.compared);
            if now >= next.compare {
                next.compare = now + COMPARE_EVERY;
                compared.store(false, Ordering::SeqCst);
            }
            let (environment, source) = (Arc::clone(&environment), Arc::clone(source));
            let task = self.running.spawn(async move {
                run(&environment, &source).await;
                if source.registers() && !compared.load(Ordering::SeqCst) {
                    compared.store(registration::compare(&environment, &source).await, Ordering::SeqCst);
                }
            });
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
    config: Rounds,
}

/// A task whose stops are read.
struct Look<'a> {
    listed: &'a Listed,
    /// Where it is asked for by itself.
    open: Option<&'a OpenTask>,
}

/// What its provider shows of it.
struct Seen {
    stops: Vec<Stop>,
    /// Of one that was asked for by itself.
    raw: String,
    state: Option<State>,
}

impl Round<'_> {
    async fn run(&self) -> Result<(), Trouble> {
        let (store, name, now) = (&self.environment.store, self.source.name(), self.environment.clock.now());
        let known = store.reconciled(name, clock::before(now, self.config.backfill)).await?;
        if !self.source.lists() {
            return self.poll(&BTreeSet::new(), &known).await;
        }
        let whole = known.compared_at.is_none_or(|at| at > now || now >= clock::after(at, COMPARE_EVERY));
        let back_to = match known.read_at {
            Some(read_at) if !whole => clock::before(read_at, OVERLAP),
            _ => clock::before(now, self.config.horizon),
        };
        let (mut seen, mut pages) = (BTreeSet::new(), Vec::new());
        let read = self.read(back_to, &known, &mut seen, &mut pages).await;
        // The oldest page first: what is newest is to be above in the list of tasks.
        for page in pages.into_iter().rev() {
            store.show(name, page, now).await?;
        }
        read?;
        store.note_read(name, now, whole).await?;
        self.poll(&seen, &known).await
    }

    /// Reads the list back to a time, and looks at what it shows. `seen` are the tasks that were in it; `pages` those of each page that stopped.
    async fn read(
        &self,
        back_to: Timestamp,
        known: &Reconciled,
        seen: &mut BTreeSet<String>,
        pages: &mut Vec<Vec<Shown>>,
    ) -> Result<(), Trouble> {
        let mut cursor = None;
        let horizon = clock::before(self.environment.clock.now(), self.config.horizon);
        for _ in 0..PAGES {
            self.source.budget().take(Use::Reconcile).await;
            let page = self.source.tasks(cursor.as_deref()).await?;
            let first = page.tasks.iter().filter(|task| seen.insert(task.task_id.clone()));
            let within = first.filter(|task| stopped(task) && task.updated_at.is_none_or(|at| at >= horizon));
            pages.push(within.map(shown).collect());
            self.compare(&page.tasks, known).await?;
            cursor = page.next.filter(|_| page.reaches.is_none_or(|reaches| reaches > back_to));
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
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
            let at = task.updated_at.unwrap_or(now);
            stopped(task) && at > from && clock::after(at, self.config.grace) <= now
        };
        let looks = tasks.iter().filter(changed).map(|listed| Look { listed, open: None });
        self.look_at(looks.collect(), known).await
    }

    /// Looks at those tasks of which more may be known now, and that nothing is being done about.
    async fn look_at(&self, looks: Vec<Look<'_>>, known: &Reconciled) -> Result<(), Trouble> {
        if looks.is_empty() {
            return Ok(());
        }
        let ids = looks.iter().map(|look| look.listed.task_id.clone()).collect();
        let acquainted = self.environment.store.acquainted(self.source.name(), ids).await?;
        let mut wrong = None;
        for (look, with) in looks.iter().zip(acquainted) {
            let looked_at = with.looked_at.is_some_and(|at| look.listed.updated_at.is_some_and(|updated_at| at >= updated_at));
            if looked_at || with.busy || with.erased {
                continue;
            }
            match self.look(look, known).await {
                // What is wrong with the answer about one keeps none of the others waiting.
                Err(Trouble::Provider(error)) if matches!(error, ApiError::Nonsense { .. }) || !error.degrades() => {
                    if look.open.is_some() {
                        let looked = Looked { polled: Some(self.environment.clock.now()), ..Looked::default() };
                        self.environment.store.looked(self.source.name(), &look.listed.task_id, looked).await?;
                    }
                    wrong = Some(error);
                }
                ended => ended?,
            }
        }
        wrong.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Looks at tasks that may be at work, and were in no list.
    async fn poll(&self, seen: &BTreeSet<String>, known: &Reconciled) -> Result<(), Trouble> {
        let (store, now, lists) = (&self.environment.store, self.environment.clock.now(), self.source.lists());
        let since = if lists { Timestamp::UNIX_EPOCH } else { clock::before(now, self.config.horizon) };
        let open = store.open_tasks(self.source.name(), Open { proven: self.source.needs_proof(), since, limit: OPEN }).await?;
        let due = open.into_iter().filter(|task| !seen.contains(&task.task_id) && self.is_due(task, now));
        let most = if lists { POLLS.0 } else { POLLS.1 };
        let due: Vec<_> = due.take(most).map(|task| (listed(&task), task)).collect();
        let looks = due.iter().map(|(listed, task)| Look { listed, open: Some(task) });
        self.look_at(looks.collect(), known).await
    }

    /// Whether a task is to be asked for by itself now: the older, the rarer; and one whose end was seen, once that is older than `grace`.
    fn is_due(&self, task: &OpenTask, now: Timestamp) -> bool {
        if let Some(left) = task.ended_at.map(|ended_at| clock::after(ended_at, self.config.grace))
            && task.polled_at.is_some_and(|at| at < left)
        {
            return left <= now || task.ended_at > Some(now);
        }
        let age = clock::since(task.first_seen_at, now);
        let pause = (age / 10).clamp(self.config.interval, POLL_MOST.max(self.config.interval));
        match task.polled_at {
            Some(at) => at > now || clock::after(at, pause) <= now,
            None => age >= self.config.after || task.first_seen_at > now,
        }
    }

    /// Asks for the stops of a task.
    async fn ask(&self, look: &Look<'_>) -> Result<Seen, ApiError> {
        let nothing = || Seen { stops: Vec::new(), raw: String::new(), state: None };
        self.source.budget().take(Use::Reconcile).await;
        let asked = match look.open {
            Some(open) if !self.source.lists() => self.source.ask(&expected(open)).await.map(|fetched| Seen {
                state: fetched.stands_at.map(|_| fetched.task.state),
                stops: fetched.stops,
                raw: fetched.raw,
            }),
            _ => self.source.stops(&look.listed.task_id).await.map(|stops| Seen { stops, ..nothing() }),
        };
        match asked {
            // It was deleted, or is not ours to see; or nobody told enough of it to ask.
            Err(ApiError::NotFound { .. } | ApiError::Unsupported { .. }) => Ok(nothing()),
            asked => asked,
        }
    }

    /// Reads the stops of a task, and makes events of those that nobody told.
    async fn look(&self, look: &Look<'_>, known: &Reconciled) -> Result<(), Trouble> {
        let (store, name, task) = (&self.environment.store, self.source.name(), look.listed);
        let seen = self.ask(look).await?;
        let now = self.environment.clock.now();
        if self.source.needs_proof() {
            let (title, url) = (task.title.clone(), task.url.clone());
            let proof = Proof { task_id: task.task_id.clone(), how: "listed", title, url };
            store.record_proofs(name, vec![proof], now).await?;
        }
        // Read behind the stops: a webhook that claimed one meanwhile is seen.
        let claims = store.claims(name, &task.task_id).await?;
        let from = self.from(known, now);
        // Where nobody tells when it ended, that is when it was first seen.
        let seen_at = look.open.and_then(|open| open.ended_at).or(task.updated_at).unwrap_or(now);
        let at = |stop: &Stop| stop.at.unwrap_or(seen_at);
        let nobodys = seen.stops.iter().filter(|stop| !claims.iter().any(|claim| claim.anchor == stop.anchor));
        let (old, young): (Vec<_>, Vec<_>) = nobodys.partition(|stop| clock::after(at(stop), self.config.grace) <= now);
        let lost: Vec<_> = old.into_iter().filter(|stop| at(stop) > from).collect();
        if !lost.is_empty() {
            let mut heard = store.unclaimed(name, &task.task_id, self.source.ending()).await?;
            for stop in lost {
                // It may have ended before a restore, and have been handed on.
                let before = look.open.is_some_and(|open| open.first_seen_at < known.since);
                let doubtful = stop.at.is_none() && !self.source.lists() && before;
                self.recover(look, &seen, stop, at(stop), doubtful, &mut heard).await?;
            }
        }
        let looked = Looked {
            updated_at: task.updated_at.filter(|_| young.is_empty()),
            polled: look.open.map(|_| now),
            ended_at: (!young.is_empty() && !self.source.lists()).then_some(seen_at),
            state: seen.state.filter(|_| young.is_empty()),
        };
        Ok(store.looked(name, &task.task_id, looked).await?)
    }

    /// Makes the event of a stop; unless one of the webhooks that were `heard` (the first of them first), and went out without their stop,
    /// told of it. One that came before the stop cannot have.
    async fn recover(
        &self,
        look: &Look<'_>,
        seen: &Seen,
        stop: &Stop,
        at: Timestamp,
        doubtful: bool,
        heard: &mut Vec<StoredEvent>,
    ) -> Result<(), Trouble> {
        let (environment, source, task) = (self.environment, self.source, look.listed);
        let facts = |event: &StoredEvent| source.tell(&dispatch::kept(event));
        // Of what ends once, no event came before the end; when that was may not be known.
        let in_time = |event: &StoredEvent| !source.lists() || turns::may_tell_of(event, at);
        let may_tell = |event: &StoredEvent| in_time(event) && turns::state(&facts(event)) == Some(stop.state);
        if let Some(known) = heard.iter().position(|event| may_tell(event) && turns::say_the_same(source, &facts(event), stop)) {
            let event = heard.remove(known);
            let claim = Claim { anchor: stop.anchor.clone(), state: stop.state, at: stop.at, event: event.id, recovered: false };
            return Ok(environment.store.claim_stop(source.name(), &task.task_id, claim, environment.clock.now()).await?);
        }
        let may_repeat = doubtful || heard.iter().any(may_tell);
        let event_id = turns::event_id(&task.task_id, &stop.anchor);
        let expected = look.open.map(expected);
        let (expected, raw, event_id_of) = (expected.as_ref(), seen.raw.as_str(), event_id.as_str());
        let lost = Lost { listed: task, expected, raw, stop, event_id: event_id_of, may_repeat };
        let Some(made) = source.recovered(&lost) else { return Ok(()) };
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
            trace::begin(environment, "recover", id, made.kind, source, Some(&task.task_id));
            metrics::counter!(metric::RECOVERED, "source" => source.name().to_owned()).increment(1);
            tracing::warn!(
                source = source.name(), task = logged(&task.task_id), event = %id,
                "a stop that no webhook told was recovered: the task is {}", stop.state
            );
            environment.wake.notify_one();
        }
        Ok(())
    }
}

/// Whether a listed task stands at a stop.
fn stopped(task: &Listed) -> bool {
    !matches!(task.state, State::Running | State::Unknown)
}

fn shown(task: &Listed) -> Shown {
    Shown { task_id: task.task_id.clone(), state: task.state, title: task.title.clone(), url: task.url.clone() }
}

/// An open task as a list would show it.
fn listed(task: &OpenTask) -> Listed {
    Listed {
        task_id: task.task_id.clone(),
        state: State::Unknown,
        background: false,
        title: task.title.clone(),
        url: task.url.clone(),
        created_at: None,
        updated_at: None,
    }
}

fn expected(task: &OpenTask) -> Expected {
    Expected { task_id: task.task_id.clone(), kind: task.kind.clone(), locator: task.locator.clone() }
}
