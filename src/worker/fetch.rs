//! Fetching a task that stopped, once for all its events that wait, and handing them on in the order they came.
//!
//! What must hold: a paid result is never kept back for ever. What cannot be fetched within `fetch_patience` goes out as its
//! webhook told it, marked `task.complete = false`, and so does what the provider does not show within [`SHOWN_WITHIN`]; background jobs
//! hold it for at most `background_wait`; and what stands behind such a one waits for at most `order_wait`, then goes first, marked
//! `out_of_order`.

use std::time::Duration;

use jiff::Timestamp;

use super::entry::Entry;
use super::lease::{end, task_work};
use super::prove::{complain, part};
use super::turns::{Turn, Turns};
use super::{Environment, dispatch};
use crate::clock;
use crate::event::Facts;
use crate::provider::{ApiError, Source, Use};
use crate::retry::LADDER;
use crate::store::model::{Claim, Finish, Job, JobKind, Lease, Move, Setback, Stage, StoredEvent, TaskNews};
use crate::task::Fetched;
use crate::telemetry::logged;
use crate::telemetry::trace::here;

/// How often a task with background jobs is looked at again.
const BACKGROUND_EVERY: Duration = Duration::from_secs(30);
/// How long a stop is waited for that the provider does not show yet: its API may lag behind its webhooks.
const SHOWN_WITHIN: Duration = Duration::from_mins(2);
/// How often it is looked for.
const SHOWN_EVERY: Duration = Duration::from_secs(15);
/// The least time that a fetch gets once it has begun.
const FETCH_TIME: Duration = Duration::from_secs(30);

/// Does `job`.
pub(super) async fn run(environment: &Environment, source: &Source, job: Job) {
    let (lease, made_at) = (job.lease, job.created_at);
    let Some((Some(task_id), known, waiting)) = task_work(job.work) else { return };
    let entry = Entry::new(known.archiving);
    let Some(last) = waiting.iter().rfind(|event| source.ends(&event.kind)) else {
        here().outcome("not_needed");
        return hand_on(environment, source, lease, TaskNews::default(), None, entry, waiting).await;
    };
    let patience = clock::after(made_at, source.fetch_patience());
    let begun = tokio::select! {
        // In this order: what is overdue still gets a call that is free, and waits for none.
        biased;
        () = source.budget().take(Use::Fetch) => true,
        () = environment.clock.sleep_until(patience) => false,
    };
    if !begun {
        tracing::warn!(
            source = source.name(),
            task = logged(&task_id),
            "`requests_per_minute` left no call for the task in time; its events go out incomplete"
        );
        here().outcome("incomplete");
        return hand_on(environment, source, lease, TaskNews::default(), None, entry, waiting).await;
    }
    let (now, last) = (environment.clock.now(), dispatch::kept(last));
    let fetched = tokio::select! {
        fetched = source.fetch(&task_id, &last) => fetched,
        () = environment.clock.sleep_until(patience.max(clock::after(now, FETCH_TIME))) => {
            let reason = "it took too long".to_owned();
            Err(ApiError::Unavailable { call: "fetch", reason, after: None, arrived: false })
        }
    };
    match fetched {
        Ok(fetched) => {
            here().outcome("fetched");
            environment.health.recover(&part(source));
            let claims = match source.reconcile() {
                Some(_) => environment.store.claims(source.name(), &task_id).await.map(Some),
                None => Ok(None),
            };
            let claims = match claims {
                Ok(claims) => claims,
                Err(error) => {
                    tracing::warn!(source = source.name(), task = logged(&task_id), error = %error, "whose the stops of a task are cannot be read, will try again: {error}");
                    let setback = Setback { reason: error.to_string(), ..Setback::default() };
                    let due = clock::after(now, LADDER[0]);
                    end(environment, JobKind::Fetch, || environment.store.retry(lease, now, due, setback.clone())).await;
                    return;
                }
            };
            let news = TaskNews { fetched: Some(Box::new(fetched)), ..TaskNews::default() };
            hand_on(environment, source, lease, news, claims, entry, waiting).await;
        }
        Err(ApiError::NotFound { .. }) => {
            here().outcome("gone");
            tracing::info!(
                source = source.name(),
                task = logged(&task_id),
                "the task is gone; its events go out as their webhooks told them"
            );
            let news = TaskNews { deleted: true, ..TaskNews::default() };
            hand_on(environment, source, lease, news, None, entry, waiting).await;
        }
        Err(error) if error.degrades() => {
            here().fail(error.kind());
            let wait = complain(environment, source, lease.attempt, &error);
            let now = environment.clock.now();
            if now >= patience {
                here().outcome("incomplete");
                tracing::warn!(
                    source = source.name(),
                    task = logged(&task_id),
                    "the task could not be fetched in time; its events go out incomplete"
                );
                return hand_on(environment, source, lease, TaskNews::default(), None, entry, waiting).await;
            }
            here().outcome("again");
            let setback = Setback { reason: error.to_string(), ..Setback::default() };
            let due = clock::after(now, wait).min(patience);
            end(environment, JobKind::Fetch, || environment.store.retry(lease, now, due, setback.clone())).await;
        }
        Err(error) => {
            here().outcome("dead");
            here().fail(error.kind());
            for event in &waiting {
                tracing::error!(
                    source = source.name(), event = %event.id, task = logged(&task_id),
                    "a dead letter: the task cannot be fetched: {}", logged(&error)
                );
            }
            let setback = Setback { reason: error.to_string(), ..Setback::default() };
            let now = environment.clock.now();
            end(environment, JobKind::Fetch, || environment.store.bury(lease, now, setback.clone())).await;
        }
    }
}

/// Hands the events on that need not wait, and ends the job.
async fn hand_on(
    environment: &Environment,
    source: &Source,
    lease: Lease,
    mut news: TaskNews,
    claims: Option<Vec<Claim>>,
    mut entry: Entry,
    waiting: Vec<StoredEvent>,
) {
    let now = environment.clock.now();
    let fetched = news.fetched.as_deref();
    let mut turns = claims.zip(fetched).map(|(claims, fetched)| Turns::new(source, &fetched.task.id, fetched, claims));
    let mut moves = Vec::new();
    // While something is held: when to look again.
    let mut again_at: Option<Timestamp> = None;
    for event in waiting {
        let stopped = source.ends(&event.kind);
        let facts = stopped.then(|| source.tell(&dispatch::kept(&event)));
        let turn = turns.as_mut().zip(facts.as_ref()).map(|(turns, facts)| turns.of(&event, facts));
        let held_until = clock::after(event.received_at, source.background_wait());
        let shown_until = clock::after(event.received_at, SHOWN_WITHIN);
        let behind_until = clock::after(event.received_at, source.order_wait());
        let newest = matches!(turn, None | Some(Turn::Newest));
        if newest && now < held_until && facts.as_ref().is_some_and(|facts| works_on(facts, fetched)) {
            let next = again_at.unwrap_or_else(|| clock::after(now, BACKGROUND_EVERY));
            again_at = Some(next.min(held_until));
        } else if matches!(turn, Some(Turn::NotShown { .. })) && now < shown_until {
            let next = clock::after(now, SHOWN_EVERY);
            again_at = Some(again_at.map_or(next, |again| again.min(next)).min(shown_until));
        } else if matches!(turn, Some(Turn::Told)) {
            tracing::info!(source = source.name(), task = event.task_id.as_ref().map(logged), event = %event.id, "another event told of this stop");
            moves.push(Move { event: event.seq, to: Stage::Done(Vec::new()) });
        } else if let Some(next) = again_at
            && now < behind_until
        {
            // It stays behind the one that is held.
            again_at = Some(next.min(behind_until));
        } else {
            let task = match (&turn, fetched) {
                _ if !stopped => dispatch::Known::NotAsked,
                (Some(Turn::Earlier(turn)), _) => dispatch::Known::Fetched(turn),
                (None | Some(Turn::Newest), Some(fetched)) => dispatch::Known::Fetched(fetched),
                _ => dispatch::Known::FromWebhook,
            };
            let may_repeat = matches!(turn, Some(Turn::NotShown { doubtful: true }));
            let place = dispatch::Place { out_of_order: again_at.is_some(), may_repeat };
            let to = entry.next(environment, source, &event, task, place);
            moves.push(Move { event: event.seq, to });
        }
    }
    let claims = turns.as_ref().map(|turns| turns.claims().to_vec()).unwrap_or_default();
    let all = turns.is_some_and(|turns| turns.all_are_claimed());
    news.looked_at = fetched.and_then(|fetched| fetched.task.updated_at).filter(|_| all);
    if again_at.is_some() {
        here().set("taskhook.looks_again", true);
    }
    let finish = Finish { moves, again_at, claims, files: entry.files(), task: news, ..Finish::default() };
    end(environment, JobKind::Fetch, || environment.store.finish(lease, now, finish.clone())).await;
}

/// Whether the turn that an event of these facts ends goes on in the background. A question is never held back: it waits for a person.
fn works_on(facts: &Facts, fetched: Option<&Fetched>) -> bool {
    fetched.is_some_and(|fetched| fetched.task.background) && facts.stop_reason.as_deref() != Some("ask")
}
