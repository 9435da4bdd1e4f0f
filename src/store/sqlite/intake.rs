//! Intake: what follows from events that were kept, made for many at once.
//!
//! Keeping an event writes its row and its key, and no more: its sender waits. Its task, its place among the open events and the job
//! that starts its work are made here, a moment later, task by task: so the pages that they stand on are touched once for many.
//!
//! What must hold: an event is taken in once, in the order of acceptance; `intake.taken` moves in the transaction that does it. An
//! event above it is as safe as any, since its row is all that is needed: how many stand there is only a matter of how late results are.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::add_job;
use crate::store::Error;
use crate::store::model::{JobKind, text};

/// The most events that are taken in at once: senders wait for no longer transaction.
const TURN: usize = 64;

/// What events are about: the task of a source, or an event that names none.
#[derive(PartialEq, Eq, Hash)]
enum Subject {
    Task(String),
    Event(i64),
}

/// An event that is to be taken in.
struct New {
    seq: i64,
    received_at: String,
    /// Nothing is to be done with it.
    kept: bool,
}

/// Takes in the oldest events that are not, at most [`TURN`]; says how far it came where more may be left.
pub(super) fn take_in(connection: &Connection, now: Timestamp) -> Result<Option<i64>, Error> {
    let mut rows = connection.prepare_cached(
        "SELECT seq, source, task_id, received_at, kept FROM events \
         WHERE seq > (SELECT taken FROM intake) ORDER BY seq LIMIT ?1",
    )?;
    let mut rows = rows.query([TURN])?;
    let now = text(now);
    // In the order of their first events: so their jobs are in the order of acceptance as well.
    let mut subjects: Vec<(String, Subject, Vec<New>)> = Vec::new();
    let mut places: HashMap<(String, Subject), usize> = HashMap::new();
    let (mut newest, mut count) = (None, 0);
    while let Some(row) = rows.next()? {
        let mut new = New { seq: row.get(0)?, received_at: row.get(3)?, kept: row.get(4)? };
        // Its work is due at once, also where the clock was set back since.
        if new.received_at > now {
            new.received_at.clone_from(&now);
        }
        (newest, count) = (Some(new.seq), count + 1);
        let (source, task_id): (String, Option<String>) = (row.get(1)?, row.get(2)?);
        let subject = |task_id: Option<String>| task_id.map_or(Subject::Event(new.seq), Subject::Task);
        let place = *places.entry((source.clone(), subject(task_id.clone()))).or_insert_with(|| {
            subjects.push((source, subject(task_id), Vec::new()));
            subjects.len() - 1
        });
        subjects[place].2.push(new);
    }
    let Some(newest) = newest else { return Ok(None) };
    for (source, subject, events) in subjects {
        let subject = match subject {
            Subject::Task(task_id) => task(connection, &source, &task_id, &events)?,
            Subject::Event(seq) => -seq,
        };
        work_on(connection, &source, subject, &events)?;
    }
    connection.prepare_cached("UPDATE intake SET taken = ?1")?.execute([newest])?;
    Ok((count == TURN).then_some(newest))
}

/// The newest event.
pub(super) fn newest(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM events")?.query_row([], |row| row.get(0))?)
}

/// Takes in all that is there. Whoever shares the thread with senders lets turns go before, so that little is left.
pub(super) fn catch_up(connection: &Connection, now: Timestamp) -> Result<(), Error> {
    while take_in(connection, now)?.is_some() {}
    Ok(())
}

/// The row of a task, made if this is the first that we hear of it, with `events` of it.
fn task(connection: &Connection, source: &str, task_id: &str, events: &[New]) -> Result<i64, Error> {
    let known = connection
        .prepare_cached("SELECT seq FROM tasks WHERE task_id = ?1 AND source = ?2")?
        .query_row([task_id, source], |row| row.get(0))
        .optional()?;
    let task = match known {
        Some(task) => task,
        None => connection
            .prepare_cached("INSERT INTO tasks (source, task_id, first_seen_at) VALUES (?1, ?2, ?3)")?
            .insert(params![source, task_id, events.first().map(|first| &first.received_at)])?,
    };
    let mut insert = connection.prepare_cached("INSERT INTO task_events (task, event) VALUES (?1, ?2)")?;
    for event in events {
        insert.execute([task, event.seq])?;
    }
    Ok(task)
}

/// Makes the job of a subject that has events to be worked on.
fn work_on(connection: &Connection, source: &str, subject: i64, events: &[New]) -> Result<(), Error> {
    // One that stands there already was put into quarantine when it came, or was released since.
    let mut insert = connection.prepare_cached(
        "INSERT INTO open_events (subject, event, state) VALUES (?1, ?2, 'proving') ON CONFLICT (subject, event) DO NOTHING",
    )?;
    let mut first = None;
    for event in events.iter().filter(|event| !event.kept) {
        if insert.execute([subject, event.seq])? > 0 {
            first = first.or(Some(event));
        }
    }
    match first {
        Some(event) => add_job(connection, JobKind::Prove.as_str(), source, subject, &event.received_at),
        None => Ok(()),
    }
}
