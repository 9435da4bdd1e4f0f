//! Erasing a task: nothing that can be read stays of it.
//!
//! What must hold: pages and rows are overwritten as they are freed; nothing of the task is in hand while it goes; and what must stay
//! (that its events were known) says nothing about it.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::forget::{self, Keep};
use super::idempotency;
use super::keys::Keys;
use crate::event::hex;
use crate::store::Error;
use crate::store::model::text;
use crate::store::upkeep::{Erased, Holding};

/// Events that go in one transaction.
const PART: usize = 500;

fn task(connection: &Connection, source: &str, task_id: &str) -> Result<Option<i64>, Error> {
    Ok(connection
        .prepare_cached("SELECT seq FROM tasks WHERE task_id = ?2 AND source = ?1")?
        .query_row([source, task_id], |row| row.get(0))
        .optional()?)
}

pub(super) fn holding(connection: &Connection, source: &str, task_id: &str) -> Result<Option<Holding>, Error> {
    let Some(task) = task(connection, source, task_id)? else { return Ok(None) };
    let (events, deliveries) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum((SELECT count(*) FROM deliveries WHERE deliveries.event = task_events.event)), 0) \
             FROM task_events WHERE task = ?1",
        )?
        .query_row([task], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let files =
        connection.prepare_cached("SELECT count(*) FROM files WHERE subject = ?1")?.query_row([task], |row| row.get(0))?;
    let rejections = connection
        .prepare_cached(
            "SELECT count(*) FROM rejections WHERE source = ?1 AND (instr(CAST(body AS BLOB), CAST(?2 AS BLOB)) > 0 \
             OR instr(headers, ?2) > 0 OR instr(target, ?2) > 0 OR instr(coalesce(explanation, ''), ?2) > 0)",
        )?
        .query_row([source, task_id], |row| row.get(0))?;
    Ok(Some(Holding { events, deliveries, files, rejections }))
}

pub(super) fn erase(
    connection: &Connection,
    keys: &mut Keys,
    source: &str,
    task_id: &str,
    now: Timestamp,
) -> Result<Erased, Error> {
    let Some(task) = task(connection, source, task_id)? else { return Ok(Erased::Unknown) };
    let busy: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'leased' AND kind <> 'deliver' AND subject = ?1) \
             OR EXISTS (SELECT 1 FROM jobs JOIN deliveries ON deliveries.seq = jobs.subject \
             WHERE jobs.state = 'leased' AND kind = 'deliver' AND lane = ?1)",
        )?
        .query_row([task], |row| row.get(0))?;
    if busy || !keys.can_forget() {
        return Ok(Erased::Busy);
    }
    overwrite(connection, "ON")?;
    let erased = part(connection, keys, source, task_id, task, &text(now));
    overwrite(connection, "FAST")?;
    erased
}

fn part(connection: &Connection, keys: &mut Keys, source: &str, task_id: &str, task: i64, at: &str) -> Result<Erased, Error> {
    // Between two parts nobody may begin anything.
    connection
        .prepare_cached(
            "DELETE FROM jobs WHERE (kind IN ('prove', 'fetch', 'archive') AND subject = ?1) OR (kind = 'deliver' \
             AND subject IN (SELECT seq FROM deliveries WHERE lane = ?1 AND state = 'pending'))",
        )?
        .execute([task])?;
    let events: Vec<i64> = connection
        .prepare_cached("SELECT event FROM task_events WHERE task = ?1 LIMIT ?2")?
        .query_map(params![task, PART], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for event in &events {
        forget::event(connection, keys, *event, Keep::Key, at)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO erased_tasks (source, task_id, erased_at, events) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (source, task_id) DO UPDATE SET erased_at = excluded.erased_at, events = events + excluded.events",
        )?
        .execute(params![source, hex(digest(&SHA256, task_id.as_bytes()).as_ref()), at, events.len()])?;
    connection.prepare_cached("INSERT OR REPLACE INTO store (name, value) VALUES ('traces', ?1)")?.execute([at])?;
    if events.len() == PART {
        return Ok(Erased::Part);
    }
    connection
        .prepare_cached(
            "DELETE FROM rejections WHERE source = ?1 AND (instr(CAST(body AS BLOB), CAST(?2 AS BLOB)) > 0 \
             OR instr(headers, ?2) > 0 OR instr(target, ?2) > 0 OR instr(coalesce(explanation, ''), ?2) > 0)",
        )?
        .execute([source, task_id])?;
    connection.prepare_cached("DELETE FROM stops WHERE source = ?1 AND task_id = ?2")?.execute([source, task_id])?;
    connection.prepare_cached("DELETE FROM watches WHERE source = ?1 AND task_id = ?2")?.execute([source, task_id])?;
    idempotency::empty(connection, source, task_id)?;
    forget::task(connection, task, at)?;
    Ok(Erased::Yes)
}

/// How what is deleted is overwritten: `ON`, also pages that are freed whole; `FAST`, as far as it costs no page more.
fn overwrite(connection: &Connection, how: &str) -> Result<(), Error> {
    Ok(connection.pragma_update_and_check(None, "secure_delete", how, |_| Ok(()))?)
}

pub(super) fn has_traces(connection: &Connection) -> Result<bool, Error> {
    Ok(connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM store WHERE name = 'traces')")?.query_row([], |row| row.get(0))?)
}
