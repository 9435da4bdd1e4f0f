//! Jobs: claimed with a fence, ended only by whoever holds it.
//!
//! Every function here is one short transaction, run by the writer. A job is a row only while there is work; what became of it
//! stands on its event or its delivery.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::add_job;
use super::{archive, lane, reconcile, spending};
use crate::store::Error;
use crate::store::model::{FETCHES, Finish, JobKind, Lease, Move, Proof, Released, Setback, Stage, TaskNews, text};
use crate::store::spending::tokens;
use crate::task::Fetched;

/// The kind, queue and subject of the job that `lease` holds; `None` if it holds it no more.
pub(super) fn held(connection: &Connection, lease: Lease) -> Result<Option<(String, String, i64)>, Error> {
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
        lane::end_attempt(connection, lease.job, "delivered", finish.detail.as_deref(), &at)?;
        lane::end(connection, subject, "delivered", None, &at)?;
        return delete_job(connection, lease);
    }
    if kind == JobKind::Archive.as_str() {
        return archive::finish(connection, lease, now, finish);
    }
    learn(connection, subject, &finish.task, &at)?;
    for step in &finish.moves {
        take_step(connection, &queue, subject, step, now)?;
    }
    reconcile::claim(connection, subject, &finish.claims, &at)?;
    archive::register(connection, &queue, subject, &finish.files, true, &at)?;
    if !still_waiting(connection, subject, stage_of(&kind))? {
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
            "INSERT OR REPLACE INTO jobs (kind, queue, subject, settled, state, due_at, created_at) SELECT kind, queue, subject, \
             CASE WHEN EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = jobs.subject AND proof IS NOT NULL) THEN 1 \
             ELSE EXISTS (SELECT 1 FROM open_events JOIN events ON events.seq = open_events.event \
             WHERE open_events.subject = jobs.subject AND open_events.state = 'proving' AND released_at IS NOT NULL) END, \
             'due', ?2, ?2 FROM jobs WHERE id = ?1",
        )?
        .execute(params![lease.job, due_at])?;
    Ok(true)
}

/// Takes an event of the job of `queue` and `subject` where it goes.
pub(super) fn take_step(connection: &Connection, queue: &str, subject: i64, step: &Move, now: Timestamp) -> Result<(), Error> {
    let at = text(now);
    match &step.to {
        Stage::Fetch => {
            move_event(connection, subject, step.event, "fetching", None)?;
            add_job(connection, JobKind::Fetch.as_str(), queue, subject, &at)
        }
        Stage::Archive { told, out_of_order, may_repeat } => {
            let event = archive::Entry { event: step.event, told: *told, out_of_order: *out_of_order, may_repeat: *may_repeat };
            archive::enter(connection, queue, subject, &event, &at)
        }
        Stage::Quarantine(reason) => move_event(connection, subject, step.event, "quarantined", Some(reason)),
        Stage::Dead(reason) => move_event(connection, subject, step.event, "dead", Some(reason)),
        Stage::Done(deliveries) => {
            connection
                .prepare_cached("DELETE FROM open_events WHERE subject = ?1 AND event = ?2")?
                .execute([subject, step.event])?;
            deliveries.iter().try_for_each(|delivery| lane::add(connection, step.event, subject, delivery, &at, now))
        }
    }
}

/// The state of the events that wait for a job of this kind.
fn stage_of(kind: &str) -> &'static str {
    if kind == JobKind::Prove.as_str() { "proving" } else { "fetching" }
}

fn still_waiting(connection: &Connection, subject: i64, state: &str) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM open_events WHERE subject = ?1 AND state = ?2)")?
        .query_row(params![subject, state], |row| row.get(0))?)
}

pub(super) fn delete_job(connection: &Connection, lease: Lease) -> Result<bool, Error> {
    connection.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([lease.job])?;
    Ok(true)
}

pub(super) fn move_event(
    connection: &Connection,
    subject: i64,
    event: i64,
    state: &str,
    reason: Option<&str>,
) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE open_events SET state = ?3, reason = ?4 WHERE subject = ?1 AND event = ?2")?
        .execute(params![subject, event, state, reason])?;
    Ok(())
}

/// Writes down what was learnt of a task. Of an event that names none nothing is ever learnt.
pub(super) fn learn(connection: &Connection, task: i64, news: &TaskNews, at: &str) -> Result<(), Error> {
    if let Some(how) = news.proof {
        connection
            .prepare_cached("UPDATE tasks SET proof = ?2, proven_at = ?3 WHERE seq = ?1 AND proof IS NULL")?
            .execute(params![task, how, at])?;
        hurry(connection, task, at)?;
    }
    if news.refused || news.probed {
        connection
            .prepare_cached(
                "UPDATE tasks SET refused_at = coalesce(refused_at, iif(?3, ?2, NULL)), probes = probes + ?4 WHERE seq = ?1",
            )?
            .execute(params![task, at, news.refused, news.probed])?;
    }
    if news.deleted {
        connection
            .prepare_cached("UPDATE tasks SET deleted_at = coalesce(deleted_at, ?2) WHERE seq = ?1 AND proof IS NOT NULL")?
            .execute(params![task, at])?;
    }
    if let Some(fetched) = &news.fetched {
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Database(error.to_string()));
        let Fetched { task: told, files, raw, stands_at, .. } = &**fetched;
        let looked_at = news.looked_at.map(text);
        spending::add(connection, task, told, at)?;
        let usage = &told.usage;
        connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, title = coalesce(?3, title), url = coalesce(?4, url), stop_reason = ?5, \
                 credits = coalesce(?6, credits), fetched_at = ?7, \
                 looked_at = max(coalesce(looked_at, ?8), coalesce(?8, looked_at)), input_tokens = coalesce(?9, input_tokens), \
                 output_tokens = coalesce(?10, output_tokens), compute_seconds = coalesce(?11, compute_seconds), \
                 cost_usd = coalesce(?12, cost_usd) WHERE seq = ?1",
            )?
            .execute(params![
                task,
                told.state.as_str(),
                told.title,
                told.url,
                told.stop_reason,
                told.credits,
                at,
                looked_at,
                tokens(usage.input_tokens),
                tokens(usage.output_tokens),
                usage.compute_seconds,
                usage.cost_usd,
            ])?;
        connection
            .prepare_cached(
                "INSERT INTO fetched_tasks (task_seq, task, files, raw, anchor, fetches) VALUES (?1, ?2, ?3, ?4, ?5, json_array(?6)) \
                 ON CONFLICT (task_seq) DO UPDATE SET task = excluded.task, files = excluded.files, raw = excluded.raw, \
                 anchor = excluded.anchor, fetches = json_insert(iif(json_array_length(fetches) < ?7, fetches, \
                 json_remove(fetches, '$[0]')), '$[#]', ?6)",
            )?
            .execute(params![
                task,
                json(serde_json::to_string(told))?,
                json(serde_json::to_string(files))?,
                raw,
                stands_at,
                format!("{at} {}", told.state),
                FETCHES
            ])?;
    }
    Ok(())
}

/// Writes down a proof; the first one stands.
pub(super) fn prove(connection: &Connection, source: &str, proof: &Proof, at: &str) -> Result<(), Error> {
    let task: Option<i64> = connection
        .prepare_cached(
            "INSERT INTO tasks (source, task_id, proof, proven_at, title, url, first_seen_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?4) \
             ON CONFLICT (task_id, source) DO UPDATE SET proof = excluded.proof, proven_at = excluded.proven_at, \
             title = coalesce(excluded.title, title), url = coalesce(excluded.url, url) WHERE proof IS NULL RETURNING seq",
        )?
        .query_row(params![source, proof.task_id, proof.how, at, proof.title, proof.url], |row| row.get(0))
        .optional()?;
    task.map_or(Ok(()), |task| hurry(connection, task, at))
}

/// What waited for the proof of a task, or for a person's word, need not wait for its next turn.
pub(super) fn hurry(connection: &Connection, subject: i64, at: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE jobs SET settled = 1, due_at = CASE WHEN state = 'due' THEN min(due_at, ?2) ELSE due_at END \
             WHERE kind = 'prove' AND subject = ?1",
        )?
        .execute(params![subject, at])?;
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
    let Some((kind, _, subject)) = held(connection, lease)? else { return Ok(false) };
    close_failed(connection, &kind, subject, lease, now, setback)?;
    // A reason for each attempt, the newest twenty: work that is never given up on must not grow for ever.
    connection
        .prepare_cached(
            "UPDATE jobs SET state = 'due', due_at = ?2, reasons = json_insert( \
             CASE WHEN json_array_length(reasons) >= 20 THEN json_remove(reasons, '$[0]') ELSE reasons END, '$[#]', ?3) WHERE id = ?1",
        )?
        .execute(params![lease.job, text(due), setback.reason])?;
    if kind == JobKind::Deliver.as_str() {
        lane::step_back(connection, subject, now)?;
    }
    Ok(true)
}

/// Closes an attempt that failed, and gives the work up: a dead letter, with all its reasons.
pub(super) fn bury(connection: &Connection, lease: Lease, now: Timestamp, setback: &Setback) -> Result<bool, Error> {
    let Some((kind, _, subject)) = held(connection, lease)? else { return Ok(false) };
    close_failed(connection, &kind, subject, lease, now, setback)?;
    if kind == JobKind::Deliver.as_str() {
        lane::end(connection, subject, "dead", Some(&setback.reason), &text(now))?;
    } else if kind == JobKind::Archive.as_str() {
        archive::bury(connection, lease, subject, &setback.reason, &text(now))?;
    } else {
        connection
            .prepare_cached(
                "UPDATE open_events SET state = 'dead', reason = ?3, \
                 reasons = (SELECT json_insert(jobs.reasons, '$[#]', ?3) FROM jobs WHERE jobs.id = ?4) \
                 WHERE subject = ?1 AND state = ?2",
            )?
            .execute(params![subject, stage_of(&kind), setback.reason, lease.job])?;
    }
    delete_job(connection, lease)
}

fn close_failed(
    connection: &Connection,
    kind: &str,
    subject: i64,
    lease: Lease,
    now: Timestamp,
    setback: &Setback,
) -> Result<(), Error> {
    let at = text(now);
    if kind == JobKind::Deliver.as_str() {
        if setback.unsent {
            return Ok(());
        }
        let outcome = if setback.unknown { "unknown" } else { "failed" };
        let detail = setback.detail.as_ref().unwrap_or(&setback.reason);
        return lane::end_attempt(connection, lease.job, outcome, Some(detail), &at);
    }
    learn(connection, subject, &setback.task, &at)
}

/// Gives jobs back that were claimed and not begun: as if they had never been claimed.
pub(super) fn hand_back(connection: &Connection, leases: &[Lease], now: Timestamp) -> Result<(), Error> {
    for lease in leases {
        let Some((kind, _, subject)) = held(connection, *lease)? else { continue };
        // A new row, for the same reason as in [`begin_anew`].
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO jobs \
                 (kind, queue, subject, settled, state, due_at, attempt, first_attempt, reasons, created_at) \
                 SELECT kind, queue, subject, settled, 'due', ?2, attempt - 1, first_attempt, reasons, created_at \
                 FROM jobs WHERE id = ?1",
            )?
            .execute(params![lease.job, text(now)])?;
        if kind == JobKind::Deliver.as_str() {
            lane::step_back(connection, subject, now)?;
        }
    }
    Ok(())
}

/// Voids every lease, at start: whoever held them is gone. What was being sent then has an unknown outcome.
pub(super) fn expire(connection: &Connection, now: Timestamp) -> Result<usize, Error> {
    let leased: Vec<(i64, String, i64)> = connection
        .prepare_cached("SELECT id, kind, subject FROM jobs WHERE state = 'leased'")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (job, kind, _) in &leased {
        if kind == JobKind::Deliver.as_str() {
            let detail = "taskhook ended before the answer came";
            lane::end_attempt(connection, *job, "unknown", Some(detail), &text(now))?;
        }
    }
    connection.prepare_cached("UPDATE jobs SET state = 'due', due_at = ?1 WHERE state = 'leased'")?.execute([text(now)])?;
    for (_, _, delivery) in leased.iter().filter(|(_, kind, _)| kind == JobKind::Deliver.as_str()) {
        lane::step_back(connection, *delivery, now)?;
    }
    Ok(leased.len())
}

/// Lets an event out of quarantine, on a person's word.
pub(super) fn release(connection: &Connection, event: &str, now: Timestamp) -> Result<Released, Error> {
    let row: Option<(i64, String, i64, String)> = connection
        .prepare_cached("SELECT seq, source, subject, state FROM standing WHERE id = ?1")?
        .query_row([event], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let (seq, source, subject) = match row {
        None => return Ok(Released::Unknown),
        Some((seq, source, subject, state)) if state == "quarantined" => (seq, source, subject),
        Some((.., state)) => return Ok(Released::Not(state)),
    };
    connection
        .prepare_cached("UPDATE open_events SET state = 'proving', reason = NULL WHERE subject = ?1 AND event = ?2")?
        .execute([subject, seq])?;
    connection.prepare_cached("UPDATE events SET released_at = ?2 WHERE seq = ?1")?.execute(params![seq, text(now)])?;
    add_job(connection, JobKind::Prove.as_str(), &source, subject, &text(now))?;
    hurry(connection, subject, &text(now))?;
    Ok(Released::Yes)
}
