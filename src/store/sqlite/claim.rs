//! Claiming jobs that are due, with what they work on.

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::append::{body, id};
use super::{again, intake, lane};
use crate::event::Verification;
use crate::store::Error;
use crate::store::model::{Capacity, Claimed, Job, JobKind, Known, Lease, StoredEvent, Which, Work, text};

/// The most events that one job works on at once; the rest come in its next turn. Small, since all of them are moved on in one
/// transaction, which events that arrive meanwhile wait for.
const WAITING: usize = 20;

/// Takes in events that were kept; then leases due jobs, as many as there is capacity for, and loads what they work on.
pub(super) fn claim(connection: &Connection, capacities: &[Capacity], now: Timestamp) -> Result<Claimed, Error> {
    let more = intake::take_in(connection, now)?.is_some();
    let (mut claimed, at) = (Claimed { more, ..Claimed::default() }, text(now));
    for capacity in capacities.iter().filter(|capacity| capacity.limit > 0) {
        if capacity.kind == JobKind::Deliver && again::is_paused(connection, &capacity.queue)? {
            continue;
        }
        let due = due_jobs(connection, capacity, &at)?;
        for (job, subject, attempt, overdue_in_lane, created_at) in due {
            connection
                .prepare_cached("UPDATE jobs SET state = 'leased', due_at = NULL, attempt = ?2, started_at = ?3 WHERE id = ?1")?
                .execute(params![job, attempt, at])?;
            let work = match capacity.kind {
                JobKind::Deliver => Work::Delivery(lane::outgoing(connection, subject, overdue_in_lane)?),
                JobKind::Prove => task_work(connection, subject, "proving")?,
                JobKind::Fetch => task_work(connection, subject, "fetching")?,
                JobKind::Archive => Work::Files { task_id: task_id(connection, subject)?, subject },
            };
            let lease = Lease { job, attempt };
            claimed.jobs.push(Job { lease, kind: capacity.kind, queue: capacity.queue.clone(), created_at, work });
        }
        let next = next_due(connection, capacity)?;
        claimed.next_due = [claimed.next_due, next].into_iter().flatten().min();
    }
    Ok(claimed)
}

type DueJob = (i64, i64, u32, bool, Timestamp);

fn due_jobs(connection: &Connection, capacity: &Capacity, now: &str) -> Result<Vec<DueJob>, Error> {
    let mut statement = connection.prepare_cached(match capacity.which {
        Which::Any => {
            "SELECT id, subject, attempt + 1, jobs.state = 'waiting', created_at FROM jobs \
             WHERE kind = ?1 AND queue = ?2 AND due_at <= ?3 ORDER BY due_at, id LIMIT ?4"
        }
        Which::Settled => {
            "SELECT id, subject, attempt + 1, jobs.state = 'waiting', created_at FROM jobs \
             WHERE kind = ?1 AND queue = ?2 AND due_at <= ?3 AND settled = 1 ORDER BY due_at, id LIMIT ?4"
        }
        Which::Unsettled => {
            "SELECT id, subject, attempt + 1, jobs.state = 'waiting', created_at FROM jobs INDEXED BY jobs_unsettled \
             WHERE kind = 'prove' AND kind = ?1 AND queue = ?2 AND due_at <= ?3 AND settled = 0 ORDER BY due_at, id LIMIT ?4"
        }
    })?;
    let rows = statement.query_map(params![capacity.kind.as_str(), capacity.queue, now, capacity.limit], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, time(row, 4)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When the next of these jobs is due. Settled ones never wait, so there is no time to tell.
fn next_due(connection: &Connection, capacity: &Capacity) -> Result<Option<Timestamp>, Error> {
    let sql = match capacity.which {
        Which::Any => "SELECT min(due_at) FROM jobs WHERE kind = ?1 AND queue = ?2 AND due_at IS NOT NULL",
        Which::Settled => return Ok(None),
        Which::Unsettled => {
            "SELECT min(due_at) FROM jobs INDEXED BY jobs_unsettled \
             WHERE kind = 'prove' AND kind = ?1 AND queue = ?2 AND due_at IS NOT NULL AND settled = 0"
        }
    };
    let next: Option<Option<String>> = connection
        .prepare_cached(sql)?
        .query_row(params![capacity.kind.as_str(), capacity.queue], |row| row.get(0))
        .optional()?;
    Ok(next.flatten().and_then(|next| next.parse().ok()))
}

fn task_work(connection: &Connection, subject: i64, state: &str) -> Result<Work, Error> {
    let waiting = connection
        .prepare_cached(concat!(
            "SELECT ",
            event_columns!(),
            " FROM open_events JOIN events ON events.seq = open_events.event \
             WHERE subject = ?1 AND state = ?2 ORDER BY open_events.event LIMIT ?3"
        ))?
        .query_map(params![subject, state, WAITING], stored_event)?
        .collect::<Result<_, _>>()?;
    let task = connection
        .prepare_cached(
            "SELECT task_id, proof, refused_at, probes, \
             EXISTS (SELECT 1 FROM open_events WHERE subject = tasks.seq AND open_events.state = 'fetching'), \
             EXISTS (SELECT 1 FROM open_events WHERE subject = tasks.seq AND open_events.state = 'archiving'), \
             fetched_at IS NOT NULL FROM tasks WHERE seq = ?1",
        )?
        .query_row([subject], |row| {
            let refused_at: Option<String> = row.get(2)?;
            let refused_at = refused_at.and_then(|at| at.parse().ok());
            Ok((
                row.get(0)?,
                Known {
                    proof: row.get(1)?,
                    refused_at,
                    probes: row.get(3)?,
                    fetching: row.get(4)?,
                    archiving: row.get(5)?,
                    fetched: row.get(6)?,
                },
            ))
        })
        .optional()?;
    let (task_id, known) = task.unwrap_or_default();
    Ok(Work::Task { task_id, known, waiting })
}

/// The provider's id of the task that `subject` is; `None` if it is an event.
fn task_id(connection: &Connection, subject: i64) -> Result<Option<String>, Error> {
    Ok(connection
        .prepare_cached("SELECT task_id FROM tasks WHERE seq = ?1")?
        .query_row([subject], |row| row.get(0))
        .optional()?)
}

/// The event `seq`.
pub(super) fn stored(connection: &Connection, seq: i64) -> Result<Option<StoredEvent>, Error> {
    Ok(connection
        .prepare_cached(concat!("SELECT ", event_columns!(), " FROM events WHERE seq = ?1"))?
        .query_row([seq], stored_event)
        .optional()?)
}

/// The columns of `events` that [`stored_event`] reads.
macro_rules! event_columns {
    () => {
        "seq, id, source, provider, type, task_id, received_at, verification, collision_of, released_at IS NOT NULL, body, \
         event_id, provider_type, coalesce((SELECT replay FROM replays WHERE replays.event = events.seq), 0)"
    };
}
use event_columns;

fn stored_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        seq: row.get(0)?,
        id: id(row.get_ref(1)?)?,
        source: row.get(2)?,
        provider: row.get(3)?,
        kind: row.get(4)?,
        task_id: row.get(5)?,
        received_at: time(row, 6)?,
        verification: Verification::of(row.get_ref(7)?.as_str()?),
        collision_of: if row.get_ref(8)? == ValueRef::Null { None } else { Some(id(row.get_ref(8)?)?) },
        released: row.get(9)?,
        body: body(row.get(10)?),
        event_id: row.get(11)?,
        provider_type: row.get(12)?,
        replay: row.get(13)?,
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text = row.get_ref(column)?;
    text.as_str()?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, text.data_type(), Box::<jiff::Error>::new(error)))
}
