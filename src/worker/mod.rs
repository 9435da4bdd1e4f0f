//! The worker: claims jobs that are due, does them, and writes down how each ended.
//!
//! One loop claims, and each job runs as a task of its own. What must hold:
//! - Only what can be started now is claimed: a place is free, and the destination's breaker lets it through. So a destination
//!   that is down holds no place of another, and spends no attempts; and events of proven tasks do not stand behind strangers'.
//! - Of replicas that share a store, one claims what a source or a destination has to do, and counts its limits: see `holdings.rs`.
//! - The wake-up is armed before the store is asked, so that a job made in between is not slept over; a timer catches what
//!   becomes due, and a poll behind both catches what neither told.
//! - Every claimed job ends in the store, as finished, due again, or a dead letter; one whose code panicked is due later. A
//!   store that does not take the end now is asked again; one that has failed ends the process, and the next start voids the lease.
//! - At a stop nothing more is claimed, what runs may end, and what cannot end in time is handed back: a delivery that may have
//!   arrived as one of unknown outcome.

mod archive;
mod breaker;
mod deliver;
mod dispatch;
mod entry;
mod fetch;
mod holdings;
mod jump;
mod lease;
mod pace;
mod places;
mod prove;
mod reconcile;
mod registration;
mod trace;
mod try_out;
mod turns;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, Notify};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::breaker::Breaker;
pub use self::dispatch::{Known, Place, envelope, task_of};
use self::pace::Pace;
pub use self::watch::{Config as WatchConfig, Limit};
use crate::archive::Archive;
use crate::clock::{self, Clock};
use crate::destination::Destination;
use crate::provider::Source;
use crate::public_url::PublicUrls;
use crate::retry::{self, LADDER};
use crate::route::Routes;
use crate::setting::Zone;
use crate::store::model::{Claimed, Job, JobKind, Lease, Setback};
use crate::store::{self, Store};
use crate::telemetry::trace::{Tracer, within};
use crate::telemetry::{Health, logged};

/// How long the worker waits after the store failed it.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What jobs work with, and nothing else.
#[derive(Debug)]
pub struct Environment {
    /// Where jobs come from and their ends go.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// The configured sources, by name.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// Where events may come, without a slash at the end: what providers have registered is compared with these.
    pub public_urls: PublicUrls,
    /// The configured destinations, by name.
    pub destinations: BTreeMap<String, Destination>,
    /// Where results go.
    pub routes: Routes,
    /// Where files are saved.
    pub archive: Archive,
    /// Where a part that does not work says so.
    pub health: Health,
    /// Rung by whoever makes jobs.
    pub wake: Arc<Notify>,
    /// What is watched for.
    pub watch: WatchConfig,
    /// Where days begin.
    pub time_zone: Zone,
    /// Where spans begin.
    pub tracer: Tracer,
}

/// The worker. One per process.
#[derive(Debug)]
pub struct Worker {
    environment: Arc<Environment>,
    proving: BTreeMap<String, Arc<Mutex<prove::Listing>>>,
    breakers: HashMap<String, Breaker>,
    paces: HashMap<String, Pace>,
    holdings: holdings::Holdings,
    jump: jump::Jump,
    /// When each source is reconciled next; `None` if it is not done here. In a box, as the other: what holds a worker is large.
    rounds: Option<Box<reconcile::Agenda>>,
    /// When what is not as it should be is looked for next; `None` if it is not done here.
    watches: Option<Box<watch::Rounds>>,
    running: JoinSet<()>,
    slots: HashMap<Id, Slot>,
    /// How deliveries went; at most one message for each that runs.
    outcomes: (UnboundedSender<Judged>, UnboundedReceiver<Judged>),
}

/// A destination's name, and how a delivery to it went.
type Judged = (String, deliver::Outcome);

/// A running task, and the jobs that it holds.
#[derive(Debug)]
struct Slot {
    kind: JobKind,
    queue: String,
    /// Whether it asks the provider whether tasks are ours.
    asks: bool,
    /// Whether it looks for stops that no webhook told; then it holds no job.
    reconciles: bool,
    /// Whether it looks for what is not as it should be; then it holds none either.
    watches: bool,
    leases: Vec<Lease>,
}

impl Worker {
    /// A worker that has not begun.
    #[must_use]
    pub fn new(environment: Arc<Environment>) -> Self {
        let paces = environment
            .destinations
            .iter()
            .filter_map(|(name, destination)| Some((name.clone(), Pace::new(&environment.clock, destination.rate()?))))
            .collect();
        let proving = environment.sources.keys().map(|name| (name.clone(), Arc::default())).collect();
        Self {
            environment,
            proving,
            breakers: HashMap::new(),
            paces,
            holdings: holdings::Holdings::default(),
            jump: jump::Jump::default(),
            rounds: None,
            watches: None,
            running: JoinSet::new(),
            slots: HashMap::new(),
            outcomes: unbounded_channel(),
        }
    }

    /// The same, which also looks for stops that no webhook told.
    #[must_use]
    pub fn reconciling(mut self) -> Self {
        self.rounds = Some(Box::default());
        self
    }

    /// The same, which also looks for what is not as it should be.
    #[must_use]
    pub fn watching(mut self) -> Self {
        self.watches = Some(Box::default());
        self
    }

    /// Works until `stop`; then ends what runs, for at most `drain`, and hands the rest back.
    pub async fn run(mut self, stop: CancellationToken, drain: Duration) {
        let environment = Arc::clone(&self.environment);
        while !stop.is_cancelled() {
            let mut woken = pin!(environment.wake.notified());
            woken.as_mut().enable();
            let next = match self.claim().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot claim jobs, will ask again: {error}");
                    environment.clock.now().checked_add(STORE_PAUSE).ok()
                }
            };
            let poll = clock::after(environment.clock.now(), environment.store.poll());
            let alarm = environment.clock.sleep_until(next.map_or(poll, |next| next.min(poll)));
            tokio::select! {
                () = stop.cancelled() => {}
                () = woken => {}
                () = environment.store.rung() => {}
                () = alarm => {}
                Some(ended) = self.running.join_next_with_id() => self.settle(ended).await,
            }
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.settle(ended).await;
            }
        }
        self.drain_or_hand_back(drain).await;
    }

    /// Works until nothing runs and nothing is due now. For whoever moves time by hand.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn run_due(&mut self) -> Result<(), store::Error> {
        let environment = Arc::clone(&self.environment);
        loop {
            let mut woken = pin!(environment.wake.notified());
            woken.as_mut().enable();
            self.claim().await?;
            tokio::select! {
                ended = self.running.join_next_with_id() => match ended {
                    Some(ended) => self.settle(ended).await,
                    None => return Ok(()),
                },
                () = woken => {}
            }
        }
    }

    /// Claims what can be started now and starts it. Returns when to ask again, where that is known.
    async fn claim(&mut self) -> Result<Option<jiff::Timestamp>, store::Error> {
        let environment = Arc::clone(&self.environment);
        self.jump.follow(&environment).await?;
        self.hold().await?;
        self.reconcile();
        self.watch();
        let capacities = self.capacities();
        if capacities.is_empty() {
            return Ok(self.alarm());
        }
        let Claimed { jobs, next_due, more } = environment.store.claim(capacities, environment.clock.now()).await?;
        if more {
            environment.wake.notify_one();
        }
        let mut proving: BTreeMap<String, Vec<Job>> = BTreeMap::new();
        for job in jobs {
            match job.kind {
                JobKind::Prove => proving.entry(job.queue.clone()).or_default().push(job),
                JobKind::Fetch => {
                    let Some(source) = environment.sources.get(&job.queue).cloned() else { continue };
                    self.start(false, vec![job], |environment, mut jobs| async move {
                        while let Some(job) = jobs.pop() {
                            within(trace::of_job(&environment, &job), fetch::run(&environment, &source, job)).await;
                        }
                    });
                }
                JobKind::Archive => {
                    let Some(source) = environment.sources.get(&job.queue).cloned() else { continue };
                    self.start(false, vec![job], |environment, mut jobs| async move {
                        while let Some(job) = jobs.pop() {
                            archive::run(&environment, &source, job).await;
                        }
                    });
                }
                JobKind::Deliver => {
                    if let Some(pace) = self.paces.get_mut(&job.queue) {
                        pace.spend();
                    }
                    let (outcomes, name) = (self.outcomes.0.clone(), job.queue.clone());
                    self.start(false, vec![job], |environment, mut jobs| async move {
                        while let Some(job) = jobs.pop() {
                            let outcome = deliver::run(&environment, job).await;
                            // The receiver lives as long as the worker that awaits this task.
                            let _ = outcomes.send((name.clone(), outcome));
                        }
                    });
                }
            }
        }
        for (name, jobs) in proving {
            let Some(source) = environment.sources.get(&name).cloned() else { continue };
            let listing = Arc::clone(&self.proving[&name]);
            // What is known already must not wait behind calls for what is not.
            let (known, unknown): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| prove::is_settled(&source, job));
            for (jobs, listing) in [(known, None), (unknown, Some(listing))] {
                if jobs.is_empty() {
                    continue;
                }
                let source = Arc::clone(&source);
                let asks = listing.is_some();
                self.start(asks, jobs, |environment, jobs| async move { prove::run(&environment, &source, listing, jobs).await });
            }
        }
        Ok([next_due, self.alarm()].into_iter().flatten().min())
    }

    /// Runs `work` on `jobs` as a task.
    fn start<W, F>(&mut self, asks: bool, jobs: Vec<Job>, work: W)
    where
        W: FnOnce(Arc<Environment>, Vec<Job>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(first) = jobs.first() else { return };
        let leases = jobs.iter().map(|job| job.lease).collect();
        let slot = Slot { kind: first.kind, queue: first.queue.clone(), asks, reconciles: false, watches: false, leases };
        let environment = Arc::clone(&self.environment);
        let leases = slot.leases.clone();
        let work = work(Arc::clone(&environment), jobs);
        let task = self.running.spawn(async move {
            tokio::select! {
                () = work => {}
                // Somebody else holds the work now: what this task would still do is theirs to do.
                () = lease::lost(&environment, &leases) => {}
            }
        });
        self.slots.insert(task.id(), slot);
    }

    /// Frees the place of a task that ended.
    async fn settle(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(slot) = self.slots.remove(&id) else { return };
        if panicked {
            tracing::error!(job.kind = slot.kind.as_str(), job.queue = %slot.queue, "a job panicked, will try it again: this is a bug");
            self.put_off(&slot).await;
        }
        while let Ok((name, outcome)) = self.outcomes.1.try_recv() {
            self.judge(&name, outcome);
        }
    }

    /// Tells a destination's breaker and health how a delivery went.
    fn judge(&mut self, name: &str, outcome: deliver::Outcome) {
        let (now, health) = (self.environment.clock.elapsed(), &self.environment.health);
        let breaker = self.breakers.entry(name.to_owned()).or_default();
        let part = deliver::part(name);
        match outcome {
            deliver::Outcome::Answered => {
                if breaker.answered() {
                    tracing::info!(destination = name, "the destination `{name}` answers again");
                }
                health.recover(&part);
            }
            deliver::Outcome::Failed(reason) => {
                if let Some(open) = breaker.failed(now) {
                    let (wait_ms, seconds, why) = (clock::millis(open), open.as_secs(), logged(&reason));
                    let told = format!("the destination `{name}` fails ({why}); it is asked again in {seconds} s");
                    tracing::warn!(destination = name, wait_ms, "{told}");
                    health.degrade(&part, &reason);
                }
            }
            deliver::Outcome::Broken(reason) => health.degrade(&part, &reason),
            deliver::Outcome::None => {}
        }
    }

    /// After a stop: lets what runs end for at most `drain`, then hands the rest back.
    async fn drain_or_hand_back(mut self, drain: Duration) {
        self.let_go(true).await;
        self.end_in_time(drain).await;
        self.let_go(false).await;
    }

    /// Waits for what runs, for at most `drain`; what does not end by then is ended, and given up.
    async fn end_in_time(&mut self, drain: Duration) {
        let clock = self.environment.clock.clone();
        let mut deadline = pin!(clock.sleep(drain));
        loop {
            tokio::select! {
                ended = self.running.join_next_with_id() => match ended {
                    Some(ended) => self.settle(ended).await,
                    None => return,
                },
                () = &mut deadline => break,
            }
        }
        self.running.abort_all();
        while let Some(ended) = self.running.join_next_with_id().await {
            match ended {
                Err(error) if error.is_cancelled() => {
                    if let Some(slot) = self.slots.remove(&error.id()) {
                        self.give_up_leases(&slot, "taskhook was stopped before the answer came").await;
                    }
                }
                ended => self.settle(ended).await,
            }
        }
    }

    /// Makes the jobs of a task that panicked due again, later each time: what panics once will do so again.
    async fn put_off(&self, slot: &Slot) {
        let Environment { store, clock, .. } = &*self.environment;
        let (delivers, now) = (slot.kind == JobKind::Deliver, clock.now());
        for lease in &slot.leases {
            let reason = "taskhook failed while at work on it (a bug)".to_owned();
            let setback = Setback { reason, unknown: delivers, ..Setback::default() };
            let result = match retry::wait(&LADDER, lease.attempt, None) {
                None if delivers => store.bury(*lease, now, setback).await,
                wait => {
                    let due = clock::after(now, wait.unwrap_or(LADDER[LADDER.len() - 1]).max(LADDER[0]));
                    store.retry(*lease, now, due, setback).await
                }
            };
            if let Err(error) = result {
                tracing::warn!(error = %error, "cannot hand a job back, the next start will find it: {error}");
            }
        }
    }

    /// Makes the jobs of a task that did not end due again.
    async fn give_up_leases(&self, slot: &Slot, reason: &str) {
        let Environment { store, clock, .. } = &*self.environment;
        let result = if slot.kind == JobKind::Deliver {
            let mut result = Ok(());
            for lease in &slot.leases {
                let setback = Setback { reason: reason.to_owned(), unknown: true, ..Setback::default() };
                let due = clock::after(clock.now(), STORE_PAUSE);
                result = result.and(store.retry(*lease, clock.now(), due, setback).await.map(drop));
            }
            result
        } else {
            store.hand_back(slot.leases.clone(), clock.now()).await
        };
        if let Err(error) = result {
            tracing::warn!(error = %error, "cannot hand a job back, the next start will find it: {error}");
        }
    }
}
