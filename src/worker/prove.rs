//! Proving that a task is ours, before anything of it is handed on.
//!
//! Manus signs for all its customers with one key, and anyone may register our URL in their account. So a genuine event is ours
//! only if our own API key says so. Three things say so, asked in this order since the first costs one call for many tasks: it
//! was created through us, it is in our list of tasks, or our key can read it and it is private. The proof is kept.
//!
//! What must hold:
//! - Only *not found* speaks against a task. A refused key, a limit, an outage or nonsense degrade the source, and the work waits.
//! - Strangers cannot spend our budget: calls are made only while the proving share has some left, nobody waits for it in a
//!   place that others need, a task is asked for by id three times at the most, and a list is shared by all who wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::entry::Entry;
use super::lease::{end, task_work};
use super::{Environment, dispatch, trace, watch};
use crate::clock;
use crate::event::Verification;
use crate::provider::{ApiError, Listed, Probe, Source, Use};
use crate::retry::{self, LADDER};
use crate::store::model::{Finish, Job, JobKind, Known, Lease, Move, Proof, Setback, Stage, StoredEvent, TaskNews, Work};
use crate::task::Fetched;
use crate::telemetry::logged;
use crate::telemetry::trace::{here, within};

/// How often a task may be asked for by its id.
const PROBES: u32 = 3;
/// How long after the first the second probe waits.
const SECOND_PROBE: Duration = Duration::from_mins(1);
/// The longest wait for a provider that does not answer as it should: such work is never given up on, and is to go on soon after
/// the provider does. What waits shares its lists and its budget, so this costs little.
const WAIT_MAX: Duration = Duration::from_mins(10);
/// Why an event without a task is quarantined.
const NO_TASK: &str = "it names no task, so nothing can prove that it is ours";

/// The newest tasks of an account, as last read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    read_at: Option<Timestamp>,
    tasks: BTreeMap<String, Listed>,
}

/// Whether nothing need be asked: the task is proven, or nothing has to be proven.
pub(super) fn is_settled(source: &Source, job: &Job) -> bool {
    match &job.work {
        Work::Task { known, waiting, .. } => {
            // One that a person released goes on by itself, and so does one of our own; those of its task that were not come back for their turn.
            let goes = |event: &StoredEvent| event.released || event.verification == Verification::Watch;
            known.proof.is_some() || !source.needs_proof() || waiting.iter().any(goes)
        }
        Work::Files { .. } | Work::Delivery(_) => true,
    }
}

/// Does `jobs`, all of one source; with a `listing` those whose tasks are not known, which need calls.
pub(super) async fn run(environment: &Environment, source: &Source, listing: Option<Arc<Mutex<Listing>>>, jobs: Vec<Job>) {
    let Some(listing) = listing else {
        // Side by side, so that their ends share commits.
        let ends = jobs.into_iter().map(|job| {
            let (span, lease) = (trace::of_job(environment, &job), job.lease);
            within(span, async move {
                let Some((task_id, known, waiting)) = task_work(job.work) else { return };
                go_on(environment, source, lease, task_id.as_deref(), None, &known, waiting).await;
            })
        });
        futures_util::future::join_all(ends).await;
        return;
    };
    let mut listing = listing.lock().await;
    let heard = jobs.iter().filter_map(heard_at).max();
    let spans: Vec<_> = jobs.iter().map(|job| trace::of_job(environment, job)).collect();
    // The list is read for all of them.
    let first = spans.iter().find(|span| span.is_taken()).cloned().unwrap_or_default();
    let mut stuck = within(first, refresh(environment, source, &mut listing, heard)).await.err();
    let mut ends = Vec::new();
    for (job, span) in jobs.into_iter().zip(spans) {
        let lease = job.lease;
        let Some((task_id, known, waiting)) = task_work(job.work) else { continue };
        let Some(task_id) = task_id else {
            within(span, no_task(environment, lease, &waiting)).await;
            continue;
        };
        if listing.tasks.contains_key(&task_id) {
            within(span, go_on(environment, source, lease, Some(&task_id), Some("listed"), &known, waiting)).await;
        } else if stuck.is_some() {
            ends.push((lease, span));
        } else if let Err(wait) = within(span.clone(), ask(environment, source, lease, &task_id, &known, waiting)).await {
            if matches!(wait, Wait::Provider(ApiError::Nonsense { .. })) {
                within(span, wait_for(environment, source, lease, &wait)).await;
                continue;
            }
            // The next one would be told the same.
            stuck = Some(wait);
            ends.push((lease, span));
        }
    }
    let Some(wait) = stuck else { return };
    // Side by side, so that a flood shares commits.
    let ends = ends.into_iter().map(|(lease, span)| within(span, wait_for(environment, source, lease, &wait)));
    futures_util::future::join_all(ends).await;
}

fn heard_at(job: &Job) -> Option<Timestamp> {
    match &job.work {
        Work::Task { waiting, .. } => waiting.iter().map(|event| event.received_at).max(),
        Work::Files { .. } | Work::Delivery(_) => None,
    }
}

/// Why a call was not made, or not answered.
enum Wait {
    /// The proving share is used up for so long.
    Budget(Duration),
    /// The provider did not answer as it should.
    Provider(ApiError),
}

/// Reads the list anew, unless it was read after the youngest of the events was received: a task is older than its events, so it
/// would have been in it.
async fn refresh(
    environment: &Environment,
    source: &Source,
    listing: &mut Listing,
    heard: Option<Timestamp>,
) -> Result<(), Wait> {
    // One that was read in what is now the future tells nothing: the clock was set back.
    let now = environment.clock.now();
    if listing.read_at.is_some_and(|read_at| read_at <= now && Some(read_at) > heard) {
        return Ok(());
    }
    source.budget().try_take(Use::Prove).map_err(Wait::Budget)?;
    let read_at = now;
    let tasks = source.recent_tasks().await.map_err(Wait::Provider)?;
    environment.health.recover(&part(source));
    let proofs = tasks
        .iter()
        .filter(|task| !listing.tasks.contains_key(&task.task_id))
        .map(|task| Proof { task_id: task.task_id.clone(), how: "listed", title: task.title.clone(), url: task.url.clone() })
        .collect::<Vec<_>>();
    if !proofs.is_empty()
        && let Err(error) = environment.store.record_proofs(source.name(), proofs, read_at).await
    {
        tracing::warn!(source = source.name(), error = %error, "the list of tasks was not kept, it will be read again: {error}");
    }
    *listing = Listing { read_at: Some(read_at), tasks: tasks.into_iter().map(|task| (task.task_id.clone(), task)).collect() };
    Ok(())
}

/// An event that names no task, kept while nothing had to be proven, under a configuration that asks for proof.
async fn no_task(environment: &Environment, lease: Lease, waiting: &[StoredEvent]) {
    here().outcome("quarantined");
    let quarantined = |event: &StoredEvent| Move { event: event.seq, to: Stage::Quarantine(NO_TASK.to_owned()) };
    let finish = Finish { moves: waiting.iter().map(quarantined).collect(), ..Finish::default() };
    let now = environment.clock.now();
    end(environment, JobKind::Prove, || environment.store.finish(lease, now, finish.clone())).await;
}

/// Asks for a task that is in no list. An error says why it could not be asked, and leaves the job as it was.
async fn ask(
    environment: &Environment,
    source: &Source,
    lease: Lease,
    task_id: &str,
    known: &Known,
    waiting: Vec<StoredEvent>,
) -> Result<(), Wait> {
    let now = environment.clock.now();
    let deadline = known.refused_at.map(|first| clock::after(first, source.quarantine_after()));
    let overdue = deadline.is_some_and(|deadline| now >= deadline);
    let probe = match known.probes {
        0 => true,
        1 => overdue || known.refused_at.is_none_or(|first| now >= clock::after(first, SECOND_PROBE)),
        asked => overdue && asked < PROBES,
    };
    if !probe {
        refuse(environment, source, lease, task_id, known, Said::Nothing, waiting).await;
        return Ok(());
    }
    source.budget().try_take(Use::Prove).map_err(Wait::Budget)?;
    let answer = source.probe(task_id).await;
    if !answer.as_ref().is_err_and(ApiError::degrades) {
        environment.health.recover(&part(source));
    }
    match answer {
        Ok(Probe::Ours { how }) => go_on(environment, source, lease, Some(task_id), Some(how), known, waiting).await,
        // Shared tasks can be read by others' keys as well as by ours: that proves nothing.
        Ok(Probe::Visible) => refuse(environment, source, lease, task_id, known, Said::Shared, waiting).await,
        Err(ApiError::NotFound { .. }) => refuse(environment, source, lease, task_id, known, Said::NotFound, waiting).await,
        Err(error) if error.degrades() => return Err(Wait::Provider(error)),
        Err(error) => {
            here().outcome("dead");
            here().fail(error.kind());
            for event in &waiting {
                tracing::error!(
                    source = source.name(), event = %event.id, task = logged(task_id),
                    "a dead letter: nothing can be asked about the task: {}", logged(&error)
                );
            }
            let setback = Setback { reason: error.to_string(), ..Setback::default() };
            end(environment, JobKind::Prove, || environment.store.bury(lease, now, setback.clone())).await;
        }
    }
    Ok(())
}

/// What a probe said of a task that is not proven ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// There was none this time.
    Nothing,
    /// Our key cannot see it.
    NotFound,
    /// Our key can see it, and so may others'.
    Shared,
}

/// Nothing proves the task ours so far: look again, until it is quarantined.
async fn refuse(
    environment: &Environment,
    source: &Source,
    lease: Lease,
    task_id: &str,
    known: &Known,
    said: Said,
    waiting: Vec<StoredEvent>,
) {
    let now = environment.clock.now();
    let deadline = clock::after(known.refused_at.unwrap_or(now), source.quarantine_after());
    let probed = said != Said::Nothing;
    let news = TaskNews { refused: true, probed, ..TaskNews::default() };
    let name = source.name();
    if now >= deadline && known.probes + u32::from(probed) > 0 {
        let reason = match said {
            Said::Shared => format!(
                "the task is shared, so that the API key of `{name}` can see it proves nothing; if whatever is shared with you is \
                 yours, set `sources.{name}.ownership = \"visible\"`"
            ),
            _ => format!("the task is not visible to the API key of `{name}`, so nothing proves that it is ours"),
        };
        tracing::warn!(
            source = name,
            task = logged(task_id),
            "quarantined {} event(s): {reason}; if the task is yours, check `sources.{name}.api_key`, then `taskhook events release ID`",
            waiting.len()
        );
        here().outcome("quarantined");
        let moves = waiting.iter().map(|event| Move { event: event.seq, to: Stage::Quarantine(reason.clone()) }).collect();
        let finish = Finish { task: news, moves, ..Finish::default() };
        end(environment, JobKind::Prove, || environment.store.finish(lease, now, finish.clone())).await;
        return;
    }
    here().outcome("not_visible");
    let rung = retry::wait(&LADDER, lease.attempt, None).unwrap_or(LADDER[LADDER.len() - 1]);
    let due = clock::after(now, rung.max(LADDER[0])).min(deadline);
    let what = if said == Said::Shared { "shared and not proven ours" } else { "not visible to this API key" };
    let reason = format!("{what}, attempt {}, quarantined at {}", lease.attempt, clock::rfc3339(deadline));
    if known.refused_at.is_none() {
        tracing::warn!(
            source = name,
            task = logged(task_id),
            "an event of a task that is {reason}: is `sources.{name}.api_key` of the account that sends it?"
        );
    } else {
        tracing::info!(source = name, task = logged(task_id), "a task is {reason}");
    }
    let setback = Setback { reason, task: news, ..Setback::default() };
    end(environment, JobKind::Prove, || environment.store.retry(lease, now, due, setback.clone())).await;
}

/// The call could not be made or was not answered: the work waits.
async fn wait_for(environment: &Environment, source: &Source, lease: Lease, wait: &Wait) {
    let now = environment.clock.now();
    here().outcome("again");
    if let Wait::Provider(error) = wait {
        here().fail(error.kind());
    }
    let (reason, after) = match wait {
        // The store keeps whole milliseconds: one more, so as not to ask just before the time, again and again.
        Wait::Budget(after) => {
            let wait = *after + Duration::from_millis(1);
            ("waits for the share of `requests_per_minute` that proving may use".to_owned(), wait)
        }
        Wait::Provider(error) => (error.to_string(), complain(environment, source, lease.attempt, error)),
    };
    let setback = Setback { reason, ..Setback::default() };
    let due = clock::after(now, after);
    end(environment, JobKind::Prove, || environment.store.retry(lease, now, due, setback.clone())).await;
}

/// Says that a source's API does not answer as it should, and how long to wait.
pub(super) fn complain(environment: &Environment, source: &Source, attempt: u32, error: &ApiError) -> Duration {
    let failure = error.failure();
    let asked = match failure.verdict {
        retry::Verdict::Retry { after } => after,
        retry::Verdict::GiveUp => None,
    };
    // Whichever call it was that met a key which is refused, it is one reason, and said once.
    let reason = match error {
        ApiError::Refused { status: 401, .. } => {
            let key = format!("`sources.{}.api_key`", source.name());
            format!("the provider refuses the API key (401): correct {key}, then run `taskhook check`")
        }
        _ => failure.reason,
    };
    environment.health.degrade(&part(source), reason);
    let rung = retry::wait(&LADDER, attempt, None).unwrap_or(WAIT_MAX).clamp(LADDER[0], WAIT_MAX);
    rung.max(asked.unwrap_or_default())
}

/// The name of a source in `/readyz`.
pub(super) fn part(source: &Source) -> String {
    format!("source {}", source.name())
}

/// The task is ours, or need not be: its events go on.
async fn go_on(
    environment: &Environment,
    source: &Source,
    lease: Lease,
    task_id: Option<&str>,
    proof: Option<&'static str>,
    known: &Known,
    waiting: Vec<StoredEvent>,
) {
    // Order of acceptance: what comes after a stop that is still to be fetched waits behind it.
    let mut behind = known.fetching;
    let mut entry = Entry::new(known.archiving);
    here().outcome(if source.needs_proof() { "ours" } else { "not_needed" });
    here().set_some("taskhook.proof", proof.or(known.proof.as_deref()));
    let ours = proof.is_some() || known.proof.is_some() || !source.needs_proof();
    // What is replayed tells of its task what was known before, and may be older than what is known now.
    let news = |event: &&StoredEvent| (ours || event.released) && (event.replay == 0 || !known.fetched);
    let fetched = task_id.and_then(|_| told(source, waiting.iter().filter(news)));
    let (own, told): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|event| event.verification == Verification::Watch);
    let mut moves = Vec::with_capacity(own.len() + told.len());
    for event in own {
        moves.push(Move { event: event.seq, to: watch::stage(environment, source, &event).await });
    }
    moves.extend(told.into_iter().filter(|event| ours || event.released).map(|event| {
        let asks = source.fetches() && task_id.is_some() && source.ends(&event.kind);
        if asks && event.replay > 0 && known.fetched {
            return Move { event: event.seq, to: entry.again() };
        }
        behind |= asks;
        let to = if behind {
            Stage::Fetch
        } else {
            entry.next(environment, source, &event, dispatch::Known::NotAsked, dispatch::Place::default())
        };
        Move { event: event.seq, to }
    }));
    let task = TaskNews { proof, fetched, ..TaskNews::default() };
    let finish = Finish { task, moves, files: entry.files(), ..Finish::default() };
    let now = environment.clock.now();
    end(environment, JobKind::Prove, || environment.store.finish(lease, now, finish.clone())).await;
}

/// The task as the last of `events` that ended it tells it, where nothing is fetched.
fn told<'a>(source: &Source, events: impl DoubleEndedIterator<Item = &'a StoredEvent>) -> Option<Box<Fetched>> {
    if source.fetches() {
        return None;
    }
    events.rev().filter(|event| source.ends(&event.kind)).find_map(|event| source.told(&dispatch::kept(event))).map(Box::new)
}
