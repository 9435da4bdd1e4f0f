//! Jobs: claimed with a fence, ended only by whoever holds it.
//!
//! Every function here is one short transaction, run by the writer. A job is a row only while there is work; what became of it
//! stands on its event or its delivery.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::append::{add_job, id};
use super::{archive, lane};
use crate::clock::after;
use crate::store::Error;
use crate::store::model::{
    self, EVENT_SUBJECT, Finish, JobKind, Lease, Move, Outgoing, Proof, Released, Setback, Stage, TaskNews, text,
};

/// The kind, queue and subject of the job that `lease` holds; `None` if it holds it no more.
pub(super) fn held(connection: &Connection, lease: Lease) -> Result<Option<(String, String, String)>, Error> {
    Ok(connection
        .prepare_cached("SELECT kind, queue, subject FROM jobs WHERE id = ?1 AND attempt = ?2 AND state = 'leased'")?
        .query_row(params![lease.job, lease.attempt], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?)
}

/// Whether `lease` still holds. Here a lease belongs to the process, which is alive, so there is nothing to extend.
pub(super) fn renew(connection: &Connection, lease: Lease) -> Result<bool, Error> {
    Ok(held(connection, lease)?.is_some())
}

/// Ends a job that did its work, and starts what follows from it.
pub(super) fn finish(connection: &Connection, lease: Lease, now: Timestamp, finish: &Finish) -> Result<bool, Error> {
    let Some((kind, queue, subject)) = held(connection, lease)? else { return Ok(false) };
    let at = text(now);
    if kind == JobKind::Deliver.as_str() {
        lane::end_attempt(connection, &subject, lease.attempt, "delivered", finish.detail.as_deref(), &at)?;
        lane::end(connection, &subject, "delivered", None, &at)?;
        return delete_job(connection, lease);
    }
    if kind == JobKind::Archive.as_str() {
        return archive::finish(connection, lease, now, finish);
    }
    let task_id = (!subject.starts_with(EVENT_SUBJECT)).then_some(subject.as_str());
    if let Some(task_id) = task_id {
        learn(connection, &queue, task_id, &finish.task, &at)?;
    }
    for step in &finish.moves {
        take_step(connection, &queue, &subject, step, now)?;
    }
    archive::register(connection, &queue, &subject, &finish.files, true, &at)?;
    let waits = stage_of(&kind);
    if !still_waiting(connection, &queue, task_id, waits)? {
        return delete_job(connection, lease);
    }
    // Either they are held on purpose until `again_at`, or they came while this job ran: then it is their turn now. Patience
    // with the provider begins anew, since it answered.
    begin_anew(connection, lease, &finish.again_at.map_or(at, text))
}

/// Makes a job due at `due_at` with its attempts to begin anew. A new row: a number that was used once must never open the fence
/// again.
pub(super) fn begin_anew(connection: &Connection, lease: Lease, due_at: &str) -> Result<bool, Error> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO jobs (kind, queue, subject, state, due_at, created_at) \
             SELECT kind, queue, subject, 'due', ?2, ?2 FROM jobs WHERE id = ?1",
        )?
        .execute(params![lease.job, due_at])?;
    Ok(true)
}

/// Takes an event of the job of `queue` and `subject` where it goes.
pub(super) fn take_step(connection: &Connection, queue: &str, subject: &str, step: &Move, now: Timestamp) -> Result<(), Error> {
    let at = text(now);
    match &step.to {
        Stage::Fetch => {
            move_event(connection, step.event, "fetching", None)?;
            add_job(connection, JobKind::Fetch.as_str(), queue, subject, &at)
        }
        Stage::Archive { told, out_of_order } => {
            let event = (step.event, *told, *out_of_order);
            archive::enter(connection, queue, subject, event, &at)
        }
        Stage::Quarantine(reason) => move_event(connection, step.event, "quarantined", Some(reason)),
        Stage::Dead(reason) => move_event(connection, step.event, "dead", Some(reason)),
        Stage::Done(deliveries) => {
            let lane = connection
                .prepare_cached("UPDATE events SET state = 'done', reason = NULL WHERE seq = ?1 RETURNING source, task_id, id")?
                .query_row([step.event], |row| {
                    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                    let task_id = row.get_ref(1)?.as_str_or_null()?;
                    Ok(model::lane(text(0)?, task_id, text(2)?))
                })?;
            for delivery in deliveries {
                lane::add(connection, step.event, &lane, delivery, &at, now)?;
            }
            Ok(())
        }
    }
}

/// The state of the events that wait for a job of this kind.
fn stage_of(kind: &str) -> &'static str {
    if kind == JobKind::Prove.as_str() { "proving" } else { "fetching" }
}

pub(super) fn still_waiting(connection: &Connection, source: &str, task_id: Option<&str>, state: &str) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM events WHERE source = ?1 AND task_id = ?2 AND state IN ('proving', 'fetching') AND state = ?3)",
        )?
        .query_row(params![source, task_id, state], |row| row.get(0))?)
}

pub(super) fn delete_job(connection: &Connection, lease: Lease) -> Result<bool, Error> {
    connection.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([lease.job])?;
    Ok(true)
}

pub(super) fn move_event(connection: &Connection, event: i64, state: &str, reason: Option<&str>) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE events SET state = ?2, reason = ?3 WHERE seq = ?1")?
        .execute(params![event, state, reason])?;
    Ok(())
}

/// Writes down what was learnt of a task.
pub(super) fn learn(connection: &Connection, source: &str, task_id: &str, news: &TaskNews, at: &str) -> Result<(), Error> {
    if let Some(how) = news.proof {
        prove(connection, source, &Proof { task_id: task_id.to_owned(), how, title: None, url: None }, at)?;
    }
    if news.refused || news.probed {
        connection
            .prepare_cached(
                "INSERT INTO tasks (source, task_id, refused_at, probes, first_seen_at) VALUES (?1, ?2, iif(?4, ?3, NULL), ?5, ?3) \
                 ON CONFLICT (source, task_id) DO UPDATE SET \
                 refused_at = coalesce(refused_at, excluded.refused_at), probes = probes + excluded.probes",
            )?
            .execute(params![source, task_id, at, news.refused, news.probed])?;
    }
    if news.deleted {
        connection
            .prepare_cached(
                "UPDATE tasks SET deleted_at = coalesce(deleted_at, ?3) WHERE source = ?1 AND task_id = ?2 AND proof IS NOT NULL",
            )?
            .execute(params![source, task_id, at])?;
    }
    if let Some(fetched) = &news.fetched {
        let task = &fetched.task;
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Database(error.to_string()));
        connection
            .prepare_cached(
                "INSERT INTO tasks (source, task_id, state, title, url, stop_reason, credits, first_seen_at, fetched_at, task, files, raw) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?11) \
                 ON CONFLICT (source, task_id) DO UPDATE SET state = excluded.state, title = coalesce(excluded.title, title), \
                 url = coalesce(excluded.url, url), stop_reason = excluded.stop_reason, credits = coalesce(excluded.credits, credits), \
                 fetched_at = excluded.fetched_at, task = excluded.task, files = excluded.files, raw = excluded.raw",
            )?
            .execute(params![
                source,
                task_id,
                task.state.as_str(),
                task.title,
                task.url,
                task.stop_reason,
                task.credits,
                at,
                json(serde_json::to_string(task))?,
                json(serde_json::to_string(&fetched.files))?,
                fetched.raw,
            ])?;
    }
    Ok(())
}

/// Writes down a proof; the first one stands.
pub(super) fn prove(connection: &Connection, source: &str, proof: &Proof, at: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO tasks (source, task_id, proof, proven_at, title, url, first_seen_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?4) \
             ON CONFLICT (source, task_id) DO UPDATE SET proof = excluded.proof, proven_at = excluded.proven_at, \
             title = coalesce(excluded.title, title), url = coalesce(excluded.url, url) WHERE proof IS NULL",
        )?
        .execute(params![source, proof.task_id, proof.how, at, proof.title, proof.url])?;
    // What waited for this need not wait for its next turn.
    connection
        .prepare_cached(
            "UPDATE jobs SET due_at = ?3 WHERE kind = 'prove' AND queue = ?1 AND subject = ?2 AND state = 'due' AND due_at > ?3",
        )?
        .execute(params![source, proof.task_id, at])?;
    Ok(())
}

/// Closes an attempt that failed; the job is due again at `due`.
pub(super) fn retry(
    connection: &Connection,
    lease: Lease,
    now: Timestamp,
    due: Timestamp,
    setback: &Setback,
) -> Result<bool, Error> {
    let Some((kind, queue, subject)) = held(connection, lease)? else { return Ok(false) };
    close_failed(connection, &kind, &queue, &subject, lease, now, setback)?;
    // A reason for each attempt, the newest twenty: work that is never given up on must not grow for ever.
    connection
        .prepare_cached(
            "UPDATE jobs SET state = 'due', due_at = ?2, reasons = json_insert( \
             CASE WHEN json_array_length(reasons) >= 20 THEN json_remove(reasons, '$[0]') ELSE reasons END, '$[#]', ?3) WHERE id = ?1",
        )?
        .execute(params![lease.job, text(due), setback.reason])?;
    Ok(true)
}

/// Closes an attempt that failed, and gives the work up: a dead letter, with all its reasons.
pub(super) fn bury(connection: &Connection, lease: Lease, now: Timestamp, setback: &Setback) -> Result<bool, Error> {
    let Some((kind, queue, subject)) = held(connection, lease)? else { return Ok(false) };
    close_failed(connection, &kind, &queue, &subject, lease, now, setback)?;
    if kind == JobKind::Deliver.as_str() {
        lane::end(connection, &subject, "dead", Some(&setback.reason), &text(now))?;
    } else if kind == JobKind::Archive.as_str() {
        archive::bury(connection, lease, &queue, &subject, &setback.reason, &text(now))?;
    } else {
        let state = stage_of(&kind);
        let event = subject.strip_prefix(EVENT_SUBJECT);
        connection
            .prepare_cached(
                "UPDATE events SET state = 'dead', reason = ?4, \
                 reasons = (SELECT json_insert(jobs.reasons, '$[#]', ?4) FROM jobs WHERE jobs.id = ?6) \
                 WHERE state IN ('proving', 'fetching') AND state = ?3 AND source = ?1 AND (task_id = ?2 OR id = ?5)",
            )?
            .execute(params![queue, subject, state, setback.reason, event, lease.job])?;
    }
    delete_job(connection, lease)
}

fn close_failed(
    connection: &Connection,
    kind: &str,
    queue: &str,
    subject: &str,
    lease: Lease,
    now: Timestamp,
    setback: &Setback,
) -> Result<(), Error> {
    let at = text(now);
    if kind == JobKind::Deliver.as_str() {
        if setback.unsent {
            return lane::forget_attempt(connection, subject, lease.attempt);
        }
        let outcome = if setback.unknown { "unknown" } else { "failed" };
        return lane::end_attempt(
            connection,
            subject,
            lease.attempt,
            outcome,
            Some(setback.detail.as_ref().unwrap_or(&setback.reason)),
            &at,
        );
    }
    learn(connection, queue, subject, &setback.task, &at)
}

/// Gives jobs back that were claimed and not begun: as if they had never been claimed.
pub(super) fn hand_back(connection: &Connection, leases: &[Lease], now: Timestamp) -> Result<(), Error> {
    for lease in leases {
        let Some((kind, _, subject)) = held(connection, *lease)? else { continue };
        if kind == JobKind::Deliver.as_str() {
            lane::forget_attempt(connection, &subject, lease.attempt)?;
        }
        // A new row, for the same reason as in [`begin_anew`].
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO jobs (kind, queue, subject, state, due_at, attempt, reasons, created_at) \
                 SELECT kind, queue, subject, 'due', ?2, attempt - 1, reasons, created_at FROM jobs WHERE id = ?1",
            )?
            .execute(params![lease.job, text(now)])?;
    }
    Ok(())
}

/// Voids every lease, at start: whoever held them is gone. What was being sent then has an unknown outcome.
pub(super) fn expire(connection: &Connection, now: Timestamp) -> Result<usize, Error> {
    let leased: Vec<(String, String, u32)> = connection
        .prepare_cached("SELECT kind, subject, attempt FROM jobs WHERE state = 'leased'")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (kind, subject, attempt) in &leased {
        if kind == JobKind::Deliver.as_str() {
            let detail = "taskhook ended before the answer came";
            lane::end_attempt(connection, subject, *attempt, "unknown", Some(detail), &text(now))?;
        }
    }
    connection.prepare_cached("UPDATE jobs SET state = 'due', due_at = ?1 WHERE state = 'leased'")?.execute([text(now)])?;
    Ok(leased.len())
}

/// Lets an event out of quarantine, on a person's word.
pub(super) fn release(connection: &Connection, event: &str, now: Timestamp) -> Result<Released, Error> {
    let row: Option<(String, String, Option<String>)> = connection
        .prepare_cached("SELECT state, source, task_id FROM events WHERE id = ?1")?
        .query_row([event], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((state, source, task_id)) = row else { return Ok(Released::Unknown) };
    if state != "quarantined" {
        return Ok(Released::Not(state));
    }
    connection
        .prepare_cached("UPDATE events SET state = 'proving', reason = NULL, released_at = ?2 WHERE id = ?1")?
        .execute(params![event, text(now)])?;
    let subject = task_id.unwrap_or_else(|| format!("{EVENT_SUBJECT}{event}"));
    add_job(connection, JobKind::Prove.as_str(), &source, &subject, &text(now))?;
    Ok(Released::Yes)
}

/// When an order wait that starts now ends.
pub(super) fn order_deadline(now: Timestamp, wait: std::time::Duration) -> String {
    text(after(now, wait))
}

/// What [`lane::start_attempt`] returns, read from a row of id, body and whether an attempt ended as unknown.
pub(super) fn outgoing(row: &Row<'_>) -> rusqlite::Result<Outgoing> {
    Ok(Outgoing { id: id(row.get_ref(0)?)?, body: row.get(1)?, after_unknown: row.get(2)? })
}
