//! Ends of jobs, written for many at once: what waits while one transaction is made goes into the next.
//!
//! What must hold:
//! - A job is ended by whoever holds it, and what follows from its end stands in the same commit.
//! - Of jobs about one subject that end together, one comes after the other, as if each had a transaction of its own.
//! - One end that is refused does not take the others with it: then each is written by itself.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::lane::Attempt;
use super::session::{Sessions, Tx, args, clean, transact};
use super::work::{Held, begin_anew, delete_job, held, learn, stage_of, take_steps};
use super::{Postgres, archive, lane, lock, reconcile};
use crate::store::Error;
use crate::store::model::{Finish, JobKind, Lease, Setback};

/// The most ends that may wait.
const QUEUE: usize = 1024;
/// The most ends in one transaction.
const BATCH: usize = 128;

/// How a job ended.
pub(super) enum How {
    /// It did its work, or what it can for now.
    Finished(Finish),
    /// It failed: it is due again, or given up on.
    Failed { due: Option<Timestamp>, setback: Setback },
}

/// An end that waits to be written.
struct End {
    lease: Lease,
    now: Timestamp,
    how: How,
    answer: oneshot::Sender<Result<bool, Error>>,
}

/// The way to the part that writes ends.
#[derive(Debug)]
pub(super) struct Ender {
    queue: mpsc::Sender<End>,
}

impl Ender {
    /// Starts the part that writes ends on a connection of `sessions`.
    pub(super) fn start(sessions: Sessions, parts: &mut JoinSet<&'static str>) -> Self {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        parts.spawn(async move {
            let mut ends = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut ends, BATCH).await > 0 {
                // In a box: what a batch needs is large.
                Box::pin(write(&sessions, std::mem::take(&mut ends))).await;
            }
            "the part that ends jobs"
        });
        Self { queue }
    }
}

impl Postgres {
    /// Ends the job that `lease` holds; false if it holds it no more.
    pub(super) async fn end(&self, lease: Lease, now: Timestamp, how: How) -> Result<bool, Error> {
        let stopped = || Error::Unavailable("it is shutting down".to_owned());
        let (answer, answered) = oneshot::channel();
        self.shared.ender.queue.send(End { lease, now, how, answer }).await.map_err(|_| stopped())?;
        let ended = answered.await.unwrap_or_else(|_| Err(stopped()))?;
        self.shared.in_hand.ended(&[lease]);
        Ok(ended)
    }
}

/// Writes all of it, or each by itself, and answers each.
async fn write(sessions: &Sessions, ends: Vec<End>) {
    // Whoever asked may have given up.
    let answer = |end: End, written: Result<bool, Error>| drop(end.answer.send(written));
    match transact!(sessions, Work, |tx| end_all(&tx, &ends)) {
        Ok(held) => ends.into_iter().zip(held).for_each(|(end, held)| answer(end, Ok(held))),
        Err(Error::Refused(_) | Error::Database(_)) if ends.len() > 1 => {
            for end in ends {
                Box::pin(write(sessions, vec![end])).await;
            }
        }
        Err(error) => ends.into_iter().for_each(|end| answer(end, Err(error.clone()))),
    }
}

/// Ends jobs; says of each whether it was held.
async fn end_all(tx: &Tx, ends: &[End]) -> Result<Vec<bool>, Error> {
    let leases: Vec<Lease> = ends.iter().map(|end| end.lease).collect();
    let Some(now) = ends.iter().map(|end| end.now).max() else { return Ok(Vec::new()) };
    lock::leased(tx, &leases).await?;
    let mut jobs: HashMap<Lease, Held> = held(tx, &leases).await?.into_iter().collect();
    let jobs: Vec<_> = leases.iter().map(|lease| jobs.remove(lease)).collect();
    let mut rest: Vec<(&End, &Held)> = ends.iter().zip(&jobs).filter_map(|(end, job)| Some((end, job.as_ref()?))).collect();
    while !rest.is_empty() {
        let mut subjects = HashSet::new();
        let (turn, later) = rest.into_iter().partition(|(_, job)| subjects.insert((is_delivery(job), job.subject)));
        Box::pin(end_some(tx, turn, now)).await?;
        rest = later;
    }
    Ok(jobs.iter().map(Option::is_some).collect())
}

fn is_delivery(job: &Held) -> bool {
    job.kind == JobKind::Deliver.as_str()
}

/// Ends jobs that are held, each about another subject.
async fn end_some(tx: &Tx, turn: Vec<(&End, &Held)>, now: Timestamp) -> Result<(), Error> {
    let (mut delivered, mut finished) = (Vec::new(), Vec::new());
    for (End { lease, how, .. }, job) in turn {
        match how {
            How::Finished(finish) if is_delivery(job) => delivered.push((*lease, job, finish)),
            How::Finished(finish) if job.kind == JobKind::Archive.as_str() => {
                archive::finish(tx, *lease, job.subject, now, finish).await?;
            }
            How::Finished(finish) => finished.push((*lease, job, finish)),
            How::Failed { due: Some(due), setback } => retry(tx, *lease, job, now, *due, setback).await?,
            How::Failed { due: None, setback } => bury(tx, *lease, job, now, setback).await?,
        }
    }
    end_deliveries(tx, &delivered, now).await?;
    finish(tx, &finished, now).await
}

/// A job that did its work.
type Done<'a> = (Lease, &'a Held, &'a Finish);

/// Ends deliveries that arrived.
async fn end_deliveries(tx: &Tx, delivered: &[Done<'_>], now: Timestamp) -> Result<(), Error> {
    if delivered.is_empty() {
        return Ok(());
    }
    let mut attempts = Vec::with_capacity(delivered.len());
    for (lease, _, finish) in delivered {
        attempts.push(Attempt { job: lease.job, outcome: "delivered", detail: finish.detail.as_deref() });
    }
    lane::end_attempts(tx, &attempts, now).await?;
    lane::end(tx, delivered.iter().map(|(_, job, _)| job.subject).collect(), "delivered", None, now).await?;
    let jobs: Vec<i64> = delivered.iter().map(|(lease, ..)| lease.job).collect();
    tx.run("DELETE FROM jobs WHERE id = ANY($1)", args![jobs]).await.map(drop)
}

/// Ends jobs on tasks, and starts what follows from them.
async fn finish(tx: &Tx, finished: &[Done<'_>], now: Timestamp) -> Result<(), Error> {
    if finished.is_empty() {
        return Ok(());
    }
    learn(tx, &finished.iter().map(|(_, job, finish)| (job.subject, &finish.task)).collect::<Vec<_>>(), now).await?;
    let steps =
        finished.iter().flat_map(|(_, job, finish)| finish.moves.iter().map(|step| (job.queue.as_str(), job.subject, step)));
    take_steps(tx, &steps.collect::<Vec<_>>(), now).await?;
    let claims = finished.iter().flat_map(|(_, job, finish)| finish.claims.iter().map(|claim| (job.subject, claim)));
    reconcile::claim(tx, &claims.collect::<Vec<_>>(), now).await?;
    for (_, job, finish) in finished {
        archive::register(tx, &job.queue, job.subject, &finish.files, true, now).await?;
    }
    let jobs: Vec<i64> = finished.iter().map(|(lease, ..)| lease.job).collect();
    let (subjects, states): (Vec<i64>, Vec<&str>) = finished.iter().map(|(_, job, _)| (job.subject, stage_of(&job.kind))).unzip();
    let gone = tx
        .rows(
            // Looked up one by one: what was planned while few events were open may go through all of them.
            "DELETE FROM jobs USING unnest($1::bigint[], $2::bigint[], $3::text[]) AS ended (job, subject, state) WHERE jobs.id = ended.job \
             AND NOT EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = ended.subject AND open_events.state = ended.state \
             OFFSET 0) RETURNING jobs.id",
            args![jobs, subjects, states],
        )
        .await?;
    let gone: HashSet<i64> = gone.iter().map(|row| row.get(0)).collect();
    for (lease, _, finish) in finished.iter().filter(|(lease, ..)| !gone.contains(&lease.job)) {
        // Either events are held on purpose until `again_at`, or they came while this job ran: then it is their turn now. Patience
        // with the provider begins anew, since it answered.
        begin_anew(tx, *lease, finish.again_at.unwrap_or(now)).await?;
    }
    Ok(())
}

/// Closes an attempt that failed; the job is due again at `due`.
async fn retry(tx: &Tx, lease: Lease, job: &Held, now: Timestamp, due: Timestamp, setback: &Setback) -> Result<(), Error> {
    close_failed(tx, lease, job, now, setback).await?;
    // A reason for each attempt, the newest twenty: work that is never given up on must not grow for ever.
    tx.run(
        "UPDATE jobs SET state = 'due', due_at = $2, holder = NULL, \
         reasons = (CASE WHEN cardinality(reasons) >= 20 THEN reasons[2:] ELSE reasons END) || $3 WHERE id = $1",
        args![lease.job, due, vec![clean(&setback.reason).into_owned()]],
    )
    .await?;
    if is_delivery(job) { lane::step_back(tx, job.subject, now).await } else { Ok(()) }
}

/// Closes an attempt that failed, and gives the work up: a dead letter, with all its reasons.
async fn bury(tx: &Tx, lease: Lease, job: &Held, now: Timestamp, setback: &Setback) -> Result<(), Error> {
    close_failed(tx, lease, job, now, setback).await?;
    let reason = clean(&setback.reason).into_owned();
    if is_delivery(job) {
        lane::end(tx, vec![job.subject], "dead", Some(&reason), now).await?;
    } else if job.kind == JobKind::Archive.as_str() {
        archive::bury(tx, lease, job.subject, &reason, now).await?;
    } else {
        tx.run(
            "UPDATE open_events SET state = 'dead', reason = $3, reasons = (SELECT jobs.reasons FROM jobs WHERE jobs.id = $4) || $5 \
             WHERE subject = $1 AND state = $2",
            args![job.subject, stage_of(&job.kind), reason, lease.job, vec![reason.clone()]],
        )
        .await?;
    }
    delete_job(tx, lease).await
}

async fn close_failed(tx: &Tx, lease: Lease, job: &Held, now: Timestamp, setback: &Setback) -> Result<(), Error> {
    if !is_delivery(job) {
        return learn(tx, &[(job.subject, &setback.task)], now).await;
    }
    if setback.unsent {
        return Ok(());
    }
    let outcome = if setback.unknown { "unknown" } else { "failed" };
    let detail = Some(setback.detail.as_ref().unwrap_or(&setback.reason).as_str());
    lane::end_attempts(tx, &[Attempt { job: lease.job, outcome, detail }], now).await
}
