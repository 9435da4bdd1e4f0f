//! Which event told of which stop of a task, and how far sources are reconciled.
//!
//! What must hold: a stop is one event's. Who claims it first keeps it; claims of a task are made by its one fetch job.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Value, json};

use super::Sqlite;
use super::claim::stored;
use crate::event::hex;
use crate::store::Error;
use crate::store::model::{Acquainted, Claim, Looked, Open, OpenTask, Reconciled, Shown, StoredEvent, UNCLAIMED, text};
use crate::task::State;

impl Sqlite {
    pub(in crate::store) async fn claims(&self, source: &str, task_id: &str) -> Result<Vec<Claim>, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.read(move |connection| claims(connection, &source, &task_id)).await
    }

    pub(in crate::store) async fn claim_stop(
        &self,
        source: &str,
        task_id: &str,
        told: Claim,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.write(move |connection| claim_one(connection, &source, &task_id, &told, now)).await
    }

    pub(in crate::store) async fn unclaimed(
        &self,
        source: &str,
        task_id: &str,
        kinds: &[&str],
    ) -> Result<Vec<StoredEvent>, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        self.read(move |connection| unclaimed(connection, &source, &task_id, &kinds)).await
    }

    pub(in crate::store) async fn raw(&self, source: &str, task_id: &str) -> Result<Option<String>, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.read(move |connection| raw(connection, &source, &task_id)).await
    }

    pub(in crate::store) async fn reconciled(&self, source: &str, since: Timestamp) -> Result<Reconciled, Error> {
        let source = source.to_owned();
        self.write(move |connection| reconciled(connection, &source, since)).await
    }

    pub(in crate::store) async fn note_read(&self, source: &str, at: Timestamp, whole: bool) -> Result<(), Error> {
        let source = source.to_owned();
        self.write(move |connection| note_read(connection, &source, at, whole)).await
    }

    pub(in crate::store) async fn acquainted(&self, source: &str, task_ids: Vec<String>) -> Result<Vec<Acquainted>, Error> {
        let source = source.to_owned();
        self.read(move |connection| task_ids.iter().map(|id| acquainted(connection, &source, id)).collect()).await
    }

    pub(in crate::store) async fn show(&self, source: &str, tasks: Vec<Shown>, now: Timestamp) -> Result<(), Error> {
        let source = source.to_owned();
        self.write(move |connection| show(connection, &source, &tasks, now)).await
    }

    pub(in crate::store) async fn looked(&self, source: &str, task_id: &str, seen: Looked) -> Result<(), Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.write(move |connection| looked(connection, &source, &task_id, &seen)).await
    }

    pub(in crate::store) async fn open_tasks(&self, source: &str, which: Open) -> Result<Vec<OpenTask>, Error> {
        let source = source.to_owned();
        self.read(move |connection| open_tasks(connection, &source, which)).await
    }

    pub(in crate::store) async fn forget_stops(&self, before: Timestamp) -> Result<(), Error> {
        self.write(move |connection| {
            connection.prepare_cached("DELETE FROM stops WHERE claimed_at < ?1")?.execute([text(before)])?;
            connection.prepare_cached("DELETE FROM answers WHERE given_at < ?1")?.execute([text(before)])?;
            Ok(())
        })
        .await
    }
}

/// Writes down which events told of which stops of `task`. A stop that is claimed stays whose it is.
pub(super) fn claim(connection: &Connection, task: i64, claims: &[Claim], at: &str) -> Result<(), Error> {
    for claim in claims {
        connection
            .prepare_cached(
                "INSERT INTO stops (source, task_id, anchor, state, at, event, recovered, claimed_at) \
                 SELECT source, task_id, ?2, ?3, ?4, ?5, ?6, ?7 FROM tasks WHERE seq = ?1 \
                 ON CONFLICT (source, task_id, anchor) DO NOTHING",
            )?
            .execute(params![
                task,
                claim.anchor,
                claim.state.as_str(),
                claim.at.map(text),
                claim.event.to_string(),
                claim.recovered,
                at
            ])?;
    }
    Ok(())
}

fn claim_one(connection: &Connection, source: &str, task_id: &str, told: &Claim, at: Timestamp) -> Result<(), Error> {
    let task: Option<i64> = connection
        .prepare_cached("SELECT seq FROM tasks WHERE source = ?1 AND task_id = ?2")?
        .query_row([source, task_id], |row| row.get(0))
        .optional()?;
    task.map_or(Ok(()), |task| claim(connection, task, std::slice::from_ref(told), &text(at)))
}

fn unclaimed(connection: &Connection, source: &str, task_id: &str, kinds: &[String]) -> Result<Vec<StoredEvent>, Error> {
    let kinds = serde_json::to_string(kinds).map_err(|error| Error::Database(error.to_string()))?;
    let events: Vec<i64> = connection
        .prepare_cached(
            "SELECT events.seq FROM tasks JOIN task_events ON task_events.task = tasks.seq JOIN events ON events.seq = task_events.event \
             WHERE tasks.source = ?1 AND tasks.task_id = ?2 AND events.type IN (SELECT value FROM json_each(?3)) \
             AND verification <> 'api' AND NOT EXISTS (SELECT 1 FROM stops WHERE stops.event = events.id) \
             AND EXISTS (SELECT 1 FROM deliveries WHERE deliveries.event = events.seq) \
             ORDER BY events.seq DESC LIMIT ?4",
        )?
        .query_map(params![source, task_id, kinds, UNCLAIMED], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    events.into_iter().rev().filter_map(|event| stored(connection, event).transpose()).collect()
}

fn claims(connection: &Connection, source: &str, task_id: &str) -> Result<Vec<Claim>, Error> {
    let claim = |row: &Row<'_>| {
        Ok(Claim {
            anchor: row.get(0)?,
            state: row.get_ref(1)?.as_str()?.parse().unwrap_or(State::Unknown),
            at: time(row, 2)?,
            event: row.get_ref(3)?.as_str()?.parse().unwrap_or_default(),
            recovered: row.get(4)?,
        })
    };
    Ok(connection
        .prepare_cached(
            "SELECT anchor, state, at, event, recovered FROM stops WHERE source = ?1 AND task_id = ?2 ORDER BY claimed_at, anchor",
        )?
        .query_map([source, task_id], claim)?
        .collect::<Result<_, _>>()?)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|at| at.parse().ok()))
}

fn raw(connection: &Connection, source: &str, task_id: &str) -> Result<Option<String>, Error> {
    Ok(connection
        .prepare_cached("SELECT raw FROM tasks JOIN fetched_tasks ON task_seq = seq WHERE source = ?1 AND task_id = ?2")?
        .query_row([source, task_id], |row| row.get(0))
        .optional()?
        .flatten())
}

fn reconciled(connection: &Connection, source: &str, since: Timestamp) -> Result<Reconciled, Error> {
    connection
        .prepare_cached("INSERT INTO reconciled (source, since) VALUES (?1, ?2) ON CONFLICT (source) DO NOTHING")?
        .execute(params![source, text(since)])?;
    let of = |row: &Row<'_>| {
        Ok(Reconciled { since: time(row, 0)?.unwrap_or(since), read_at: time(row, 1)?, compared_at: time(row, 2)? })
    };
    Ok(connection
        .prepare_cached("SELECT since, read_at, compared_at FROM reconciled WHERE source = ?1")?
        .query_row([source], of)?)
}

/// Leaves alone what stopped before `since`, of every source that was reconciled.
pub(super) fn begin_anew(connection: &Connection, since: Timestamp) -> Result<(), Error> {
    connection.prepare_cached("UPDATE reconciled SET since = ?1, read_at = NULL, compared_at = NULL")?.execute([text(since)])?;
    Ok(())
}

fn note_read(connection: &Connection, source: &str, at: Timestamp, whole: bool) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE reconciled SET read_at = ?2, compared_at = iif(?3, ?2, compared_at) WHERE source = ?1")?
        .execute(params![source, text(at), whole])?;
    Ok(())
}

fn acquainted(connection: &Connection, source: &str, task_id: &str) -> Result<Acquainted, Error> {
    let of = |row: &Row<'_>| Ok(Acquainted { looked_at: time(row, 0)?, busy: row.get(1)?, erased: row.get(2)? });
    Ok(connection
        .prepare_cached(
            "SELECT (SELECT looked_at FROM tasks WHERE task_id = ?2 AND source = ?1), \
             EXISTS (SELECT 1 FROM tasks JOIN open_events ON open_events.subject = tasks.seq WHERE task_id = ?2 AND source = ?1 \
             AND open_events.state IN ('proving', 'fetching', 'archiving')) \
             OR EXISTS (SELECT 1 FROM events WHERE seq > (SELECT taken FROM intake) AND task_id = ?2 AND source = ?1), \
             EXISTS (SELECT 1 FROM erased_tasks WHERE source = ?1 AND task_id = ?3)",
        )?
        .query_row(params![source, task_id, erased(task_id)], of)?)
}

/// What is kept of the id of a task that was erased.
fn erased(task_id: &str) -> String {
    hex(digest(&SHA256, task_id.as_bytes()).as_ref())
}

/// The oldest first, so that the newest is above it in the list.
fn show(connection: &Connection, source: &str, tasks: &[Shown], now: Timestamp) -> Result<(), Error> {
    let row = |task: &Shown| {
        let state = task.state.as_str();
        json!({"id": task.task_id, "erased": erased(&task.task_id), "state": state, "title": task.title, "url": task.url})
    };
    let rows = Value::from(tasks.iter().rev().map(row).collect::<Vec<_>>()).to_string();
    connection
        .prepare_cached(
            "INSERT INTO tasks (source, task_id, proof, proven_at, state, title, url, first_seen_at) \
             SELECT ?1, value ->> 'id', 'listed', ?3, value ->> 'state', value ->> 'title', value ->> 'url', ?3 FROM json_each(?2) \
             WHERE NOT EXISTS (SELECT 1 FROM erased_tasks WHERE source = ?1 AND task_id = value ->> 'erased') ORDER BY key \
             ON CONFLICT (task_id, source) DO UPDATE SET state = excluded.state, title = coalesce(excluded.title, title), \
             url = coalesce(excluded.url, url) WHERE proof = 'listed' AND fetched_at IS NULL AND state IS NOT excluded.state \
             AND NOT EXISTS (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq)",
        )?
        .execute(params![source, rows, text(now)])?;
    Ok(())
}

fn looked(connection: &Connection, source: &str, task_id: &str, seen: &Looked) -> Result<(), Error> {
    let Looked { updated_at, polled, ended_at, state } = seen;
    connection
        .prepare_cached(
            "UPDATE tasks SET looked_at = max(coalesce(looked_at, ?3), coalesce(?3, looked_at)), polled_at = coalesce(?4, polled_at), \
             ended_at = coalesce(ended_at, ?5), state = coalesce(?6, state) WHERE source = ?1 AND task_id = ?2",
        )?
        .execute(params![
            source,
            task_id,
            updated_at.map(text),
            polled.map(text),
            ended_at.map(text),
            state.map(State::as_str)
        ])?;
    Ok(())
}

fn open_tasks(connection: &Connection, source: &str, which: Open) -> Result<Vec<OpenTask>, Error> {
    let open = |row: &Row<'_>| {
        Ok(OpenTask {
            task_id: row.get(0)?,
            title: row.get(1)?,
            url: row.get(2)?,
            first_seen_at: time(row, 3)?.unwrap_or_default(),
            polled_at: time(row, 4)?,
            kind: row.get(5)?,
            locator: row.get(6)?,
            ended_at: time(row, 7)?,
        })
    };
    Ok(connection
        .prepare_cached(
            "SELECT task_id, title, url, first_seen_at, polled_at, coalesce(kind, (SELECT type FROM task_events \
             JOIN events ON events.seq = task_events.event WHERE task_events.task = tasks.seq AND type <> 'unknown' \
             ORDER BY event DESC LIMIT 1)), locator, ended_at FROM tasks WHERE source = ?1 AND deleted_at IS NULL \
             AND (state IS NULL OR state IN ('running', 'waiting')) AND first_seen_at > ?3 AND (proof IN ('created', 'tracked') \
             OR ((proof IS NOT NULL OR NOT ?4) AND EXISTS (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq))) \
             ORDER BY polled_at NULLS FIRST LIMIT ?2",
        )?
        .query_map(params![source, which.limit, text(which.since), which.proven], open)?
        .collect::<Result<_, _>>()?)
}
