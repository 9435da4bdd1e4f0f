//! Jobs: ended only by whoever holds them.
//!
//! Every function here is part of one short transaction, under the locks of what its jobs are about. A job is a row only while there
//! is work; what became of it stands on its event or its delivery.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::beat::{is_seen, may_judge};
use super::claim::attempt;
use super::session::{Tx, args, clean, number, tidy};
use super::{archive, lane, lock};
use crate::store::Error;
use crate::store::model::{Finish, JobKind, Lease, Move, Proof, Released, Setback, Stage, TaskNews};
use crate::task::Fetched;

/// The most leases that are ended in one transaction.
const STEP: usize = 100;

/// The kind, queue and subject of the job that `lease` holds; `None` if it holds it no more.
pub(super) async fn held(tx: &Tx, lease: Lease) -> Result<Option<(String, String, i64)>, Error> {
    let sql = "SELECT kind, queue, subject FROM jobs WHERE id = $1 AND attempt = $2 AND state = 'leased' FOR UPDATE";
    let row = tx.maybe(sql, args![lease.job, i64::from(lease.attempt)]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}

/// Whether `lease` still holds. It holds as long as its replica lives, so there is nothing to extend.
pub(super) async fn renew(tx: &Tx, lease: Lease) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM jobs WHERE id = $1 AND attempt = $2 AND state = 'leased'";
    Ok(tx.maybe(sql, args![lease.job, i64::from(lease.attempt)]).await?.is_some())
}

/// Ends a job that did its work, and starts what follows from it.
pub(super) async fn finish(tx: &Tx, lease: Lease, now: Timestamp, finish: &Finish) -> Result<bool, Error> {
    lock::leased(tx, &[lease]).await?;
    let Some((kind, queue, subject)) = held(tx, lease).await? else { return Ok(false) };
    if kind == JobKind::Deliver.as_str() {
        lane::end_attempt(tx, lease.job, "delivered", finish.detail.as_deref(), now).await?;
        lane::end(tx, subject, "delivered", None, now).await?;
        return delete_job(tx, lease).await;
    }
    if kind == JobKind::Archive.as_str() {
        return archive::finish(tx, lease, now, finish).await;
    }
    learn(tx, subject, &finish.task, now).await?;
    for step in &finish.moves {
        take_step(tx, &queue, subject, step, now).await?;
    }
    archive::register(tx, &queue, subject, &finish.files, true, now).await?;
    let waiting = "SELECT EXISTS (SELECT 1 FROM open_events WHERE subject = $1 AND state = $2)";
    if !tx.row(waiting, args![subject, stage_of(&kind)]).await?.get::<_, bool>(0) {
        return delete_job(tx, lease).await;
    }
    // Either they are held on purpose until `again_at`, or they came while this job ran: then it is their turn now. Patience
    // with the provider begins anew, since it answered.
    begin_anew(tx, lease, finish.again_at.unwrap_or(now)).await
}

/// Makes a job due at `due_at` with its attempts to begin anew. It gets a new number: one that was used once must never open the
/// fence again.
pub(super) async fn begin_anew(tx: &Tx, lease: Lease, due_at: Timestamp) -> Result<bool, Error> {
    tx.run(
        "UPDATE jobs SET id = DEFAULT, state = 'due', due_at = $2, created_at = $2, attempt = 0, first_attempt = 1, started_at = NULL, \
         holder = NULL, behind = NULL, reasons = '{}', settled = EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = jobs.subject \
         AND proof IS NOT NULL) OR EXISTS (SELECT 1 FROM open_events JOIN events ON events.seq = open_events.event \
         WHERE open_events.subject = jobs.subject AND open_events.state = 'proving' AND released_at IS NOT NULL) WHERE id = $1",
        args![lease.job, due_at],
    )
    .await?;
    Ok(true)
}

/// Takes an event of the job of `queue` and `subject` where it goes.
pub(super) async fn take_step(tx: &Tx, queue: &str, subject: i64, step: &Move, now: Timestamp) -> Result<(), Error> {
    match &step.to {
        Stage::Fetch => {
            move_event(tx, subject, step.event, "fetching", None).await?;
            add_job(tx, JobKind::Fetch.as_str(), queue, subject, now).await
        }
        Stage::Archive { told, out_of_order } => {
            archive::enter(tx, queue, subject, (step.event, *told, *out_of_order), now).await
        }
        Stage::Quarantine(reason) => move_event(tx, subject, step.event, "quarantined", Some(reason)).await,
        Stage::Dead(reason) => move_event(tx, subject, step.event, "dead", Some(reason)).await,
        Stage::Done(deliveries) => {
            tx.run("DELETE FROM open_events WHERE subject = $1 AND event = $2", args![subject, step.event]).await?;
            for delivery in deliveries {
                lane::add(tx, step.event, subject, delivery, now).await?;
            }
            Ok(())
        }
    }
}

/// Makes a job due now, unless there is one for the same subject. One that only waits to look again is hurried; one that is
/// running will find at its end that more came, and one that backs off after a failure keeps its time.
pub(super) async fn add_job(tx: &Tx, kind: &str, queue: &str, subject: i64, now: Timestamp) -> Result<(), Error> {
    tx.run(
        "INSERT INTO jobs (kind, queue, subject, settled, state, due_at, created_at) VALUES ($1, $2, $3, \
         EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = $3 AND proof IS NOT NULL), 'due', $4, $4) \
         ON CONFLICT (kind, subject) DO UPDATE SET due_at = excluded.due_at \
         WHERE jobs.state = 'due' AND jobs.attempt = 0 AND jobs.due_at > excluded.due_at",
        args![kind, queue, subject, now],
    )
    .await?;
    Ok(())
}

/// The state of the events that wait for a job of this kind.
fn stage_of(kind: &str) -> &'static str {
    if kind == JobKind::Prove.as_str() { "proving" } else { "fetching" }
}

pub(super) async fn delete_job(tx: &Tx, lease: Lease) -> Result<bool, Error> {
    tx.run("DELETE FROM jobs WHERE id = $1", args![lease.job]).await?;
    Ok(true)
}

pub(super) async fn move_event(tx: &Tx, subject: i64, event: i64, state: &str, reason: Option<&str>) -> Result<(), Error> {
    let sql = "UPDATE open_events SET state = $3, reason = $4 WHERE subject = $1 AND event = $2";
    tx.run(sql, args![subject, event, state, tidy(reason)]).await?;
    Ok(())
}

/// Writes down what was learnt of a task. Of an event that names none nothing is ever learnt.
pub(super) async fn learn(tx: &Tx, task: i64, news: &TaskNews, at: Timestamp) -> Result<(), Error> {
    if let Some(how) = news.proof {
        tx.run("UPDATE tasks SET proof = $2, proven_at = $3 WHERE seq = $1 AND proof IS NULL", args![task, how, at]).await?;
        hurry(tx, task, at).await?;
    }
    if news.refused || news.probed {
        tx.run(
            "UPDATE tasks SET refused_at = coalesce(refused_at, CASE WHEN $3 THEN $2::timestamptz END), probes = probes + $4 WHERE seq = $1",
            args![task, at, news.refused, i64::from(news.probed)],
        )
        .await?;
    }
    if news.deleted {
        tx.run("UPDATE tasks SET deleted_at = coalesce(deleted_at, $2) WHERE seq = $1 AND proof IS NOT NULL", args![task, at])
            .await?;
    }
    if let Some(fetched) = &news.fetched {
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Database(error.to_string()));
        let Fetched { task: told, files, raw } = &**fetched;
        let (title, url, stop) = (told.title.as_deref(), told.url.as_deref(), told.stop_reason.as_deref());
        tx.run(
            "UPDATE tasks SET state = $2, title = coalesce($3, title), url = coalesce($4, url), stop_reason = $5, \
             credits = coalesce($6, credits), fetched_at = $7 WHERE seq = $1",
            args![task, told.state.as_str(), tidy(title), tidy(url), tidy(stop), told.credits, at],
        )
        .await?;
        tx.run(
            "INSERT INTO fetched_tasks (task_seq, task, files, raw) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (task_seq) DO UPDATE SET task = excluded.task, files = excluded.files, raw = excluded.raw",
            args![task, json(serde_json::to_string(told))?, json(serde_json::to_string(files))?, raw],
        )
        .await?;
    }
    Ok(())
}

/// Writes down proofs; the first one of a task stands.
pub(super) async fn prove(tx: &Tx, source: &str, proofs: &[Proof], at: Timestamp) -> Result<(), Error> {
    let mut proofs: Vec<_> = proofs.iter().collect();
    // In one order for all, since each locks the row of its task.
    proofs.sort_by(|one, other| one.task_id.cmp(&other.task_id));
    let ids: Vec<String> = proofs.iter().map(|proof| clean(&proof.task_id).into_owned()).collect();
    let how: Vec<&str> = proofs.iter().map(|proof| proof.how).collect();
    let titles: Vec<Option<String>> = proofs.iter().map(|proof| tidy(proof.title.as_deref())).collect();
    let urls: Vec<Option<String>> = proofs.iter().map(|proof| tidy(proof.url.as_deref())).collect();
    tx.run(
        "INSERT INTO tasks (source, task_id, first_seen_at) SELECT $1, task_id, $3 FROM unnest($2::text[]) AS proof (task_id) \
         ON CONFLICT (task_id, source) DO NOTHING",
        args![source, ids, at],
    )
    .await?;
    let sql = "SELECT seq FROM tasks WHERE source = $1 AND task_id = ANY($2) AND proof IS NULL";
    let tasks: Vec<i64> = tx.rows(sql, args![source, ids]).await?.iter().map(|row| row.get(0)).collect();
    if tasks.is_empty() {
        return Ok(());
    }
    lock::subjects(tx, tasks).await?;
    tx.run(
        "WITH proven AS (UPDATE tasks SET proof = proof.how, proven_at = $6, title = coalesce(proof.title, tasks.title), \
         url = coalesce(proof.url, tasks.url) FROM (SELECT DISTINCT ON (task_id) * FROM unnest($2::text[], $3::text[], \
         $4::text[], $5::text[]) \
         AS proof (task_id, how, title, url)) AS proof \
         WHERE tasks.task_id = proof.task_id AND tasks.source = $1 AND tasks.proof IS NULL RETURNING seq) \
         UPDATE jobs SET settled = true, due_at = CASE WHEN state = 'due' THEN least(due_at, $6) ELSE due_at END \
         FROM proven WHERE kind = 'prove' AND subject = proven.seq",
        args![source, ids, how, titles, urls, at],
    )
    .await?;
    Ok(())
}

/// What waited for the proof of a task, or for a person's word, need not wait for its next turn.
pub(super) async fn hurry(tx: &Tx, subject: i64, at: Timestamp) -> Result<(), Error> {
    tx.run(
        "UPDATE jobs SET settled = true, due_at = CASE WHEN state = 'due' THEN least(due_at, $2) ELSE due_at END \
         WHERE kind = 'prove' AND subject = $1",
        args![subject, at],
    )
    .await?;
    Ok(())
}

/// Closes an attempt that failed; the job is due again at `due`.
pub(super) async fn retry(tx: &Tx, lease: Lease, now: Timestamp, due: Timestamp, setback: &Setback) -> Result<bool, Error> {
    lock::leased(tx, &[lease]).await?;
    let Some((kind, _, subject)) = held(tx, lease).await? else { return Ok(false) };
    close_failed(tx, &kind, subject, lease, now, setback).await?;
    // A reason for each attempt, the newest twenty: work that is never given up on must not grow for ever.
    tx.run(
        "UPDATE jobs SET state = 'due', due_at = $2, holder = NULL, \
         reasons = (CASE WHEN cardinality(reasons) >= 20 THEN reasons[2:] ELSE reasons END) || $3 WHERE id = $1",
        args![lease.job, due, vec![clean(&setback.reason).into_owned()]],
    )
    .await?;
    if kind == JobKind::Deliver.as_str() {
        lane::step_back(tx, subject, now).await?;
    }
    Ok(true)
}

/// Closes an attempt that failed, and gives the work up: a dead letter, with all its reasons.
pub(super) async fn bury(tx: &Tx, lease: Lease, now: Timestamp, setback: &Setback) -> Result<bool, Error> {
    lock::leased(tx, &[lease]).await?;
    let Some((kind, _, subject)) = held(tx, lease).await? else { return Ok(false) };
    close_failed(tx, &kind, subject, lease, now, setback).await?;
    let reason = clean(&setback.reason).into_owned();
    if kind == JobKind::Deliver.as_str() {
        lane::end(tx, subject, "dead", Some(&reason), now).await?;
    } else if kind == JobKind::Archive.as_str() {
        archive::bury(tx, lease, subject, &reason, now).await?;
    } else {
        tx.run(
            "UPDATE open_events SET state = 'dead', reason = $3, reasons = (SELECT jobs.reasons FROM jobs WHERE jobs.id = $4) || $5 \
             WHERE subject = $1 AND state = $2",
            args![subject, stage_of(&kind), reason, lease.job, vec![reason.clone()]],
        )
        .await?;
    }
    delete_job(tx, lease).await
}

async fn close_failed(tx: &Tx, kind: &str, subject: i64, lease: Lease, now: Timestamp, setback: &Setback) -> Result<(), Error> {
    if kind == JobKind::Deliver.as_str() {
        if setback.unsent {
            return Ok(());
        }
        let outcome = if setback.unknown { "unknown" } else { "failed" };
        let detail = setback.detail.as_ref().unwrap_or(&setback.reason);
        return lane::end_attempt(tx, lease.job, outcome, Some(detail), now).await;
    }
    learn(tx, subject, &setback.task, now).await
}

/// Gives jobs back that were claimed and not begun: as if they had never been claimed.
pub(super) async fn hand_back(tx: &Tx, leases: &[Lease], now: Timestamp) -> Result<(), Error> {
    lock::leased(tx, leases).await?;
    for lease in leases {
        let Some((kind, _, subject)) = held(tx, *lease).await? else { continue };
        // A new number, for the same reason as in [`begin_anew`].
        let sql = "UPDATE jobs SET id = DEFAULT, state = 'due', due_at = $2, attempt = attempt - 1, started_at = NULL, holder = NULL \
                   WHERE id = $1";
        tx.run(sql, args![lease.job, now]).await?;
        if kind == JobKind::Deliver.as_str() {
            lane::step_back(tx, subject, now).await?;
        }
    }
    Ok(())
}

/// Ends some leases of replicas that are gone: what they were sending has an unknown outcome. Says how many, and whether that is all.
pub(super) async fn expire(tx: &Tx, me: Uuid, now: Timestamp) -> Result<(usize, bool), Error> {
    let rows = tx
        .rows(
            concat!(
                "SELECT id, attempt FROM jobs WHERE state = 'leased' AND holder IS DISTINCT FROM $1 \
                 AND NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = jobs.holder AND ",
                is_seen!(),
                ") AND ",
                may_judge!("$1"),
                " ORDER BY id LIMIT $2"
            ),
            args![me, number(STEP)],
        )
        .await?;
    let leases = leases(&rows);
    if leases.is_empty() {
        return Ok((0, true));
    }
    Ok((end_leases(tx, &leases, now).await?, leases.len() < STEP))
}

/// The leases that rows tell of by their job and its attempt.
pub(super) fn leases(rows: &[Row]) -> Vec<Lease> {
    rows.iter().map(|row| Lease { job: row.get(0), attempt: attempt(row.get(1)) }).collect()
}

/// Ends leases that nobody holds any more; says how many.
pub(super) async fn end_leases(tx: &Tx, leases: &[Lease], now: Timestamp) -> Result<usize, Error> {
    lock::leased(tx, leases).await?;
    let mut ended = 0;
    for lease in leases {
        let Some((kind, _, subject)) = held(tx, *lease).await? else { continue };
        ended += 1;
        if kind == JobKind::Deliver.as_str() {
            lane::end_attempt(tx, lease.job, "unknown", Some("taskhook ended before the answer came"), now).await?;
        }
        tx.run("UPDATE jobs SET state = 'due', due_at = $2, holder = NULL WHERE id = $1", args![lease.job, now]).await?;
        if kind == JobKind::Deliver.as_str() {
            lane::step_back(tx, subject, now).await?;
        }
    }
    Ok(ended)
}

/// Lets an event out of quarantine, on a person's word.
pub(super) async fn release(tx: &Tx, event: Uuid, now: Timestamp) -> Result<Released, Error> {
    let sql = "SELECT seq FROM events WHERE id = $1";
    let Some(row) = tx.maybe(sql, args![event]).await? else { return Ok(Released::Unknown) };
    let seq: i64 = row.get(0);
    lock::events(tx, vec![seq]).await?;
    let sql = "SELECT source, subject, state FROM standing WHERE seq = $1";
    let Some(row) = tx.maybe(sql, args![seq]).await? else { return Ok(Released::Unknown) };
    let (source, subject, state): (&str, i64, String) = (row.get(0), row.get(1), row.get(2));
    if state != "quarantined" {
        return Ok(Released::Not(state));
    }
    move_event(tx, subject, seq, "proving", None).await?;
    tx.run("UPDATE events SET released_at = $2 WHERE seq = $1", args![seq, now]).await?;
    add_job(tx, JobKind::Prove.as_str(), source, subject, now).await?;
    hurry(tx, subject, now).await?;
    Ok(Released::Yes)
}
