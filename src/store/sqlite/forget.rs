//! Deleting: the one place for each table that says how a row of it goes, whoever wants it gone.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::body;
use crate::event::{Key, content_digest};
use crate::store::Error;

/// What becomes of the key of an event that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It goes as well: the same event could be accepted again.
    Nothing,
    /// It stays, so that a repeat is still known.
    Key,
}

/// Deletes the event `seq` and all that hangs on it but its task. Says which task that is.
pub(super) fn event(connection: &Connection, seq: i64, keep: Keep, at: &str) -> Result<Option<i64>, Error> {
    type Row = (String, String, String, Option<i64>, Option<i64>, Option<String>);
    let row: Option<Row> = connection
        .prepare_cached("SELECT id, source, event_id, task, previous, collision_of FROM events WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))
        .optional()?;
    let Some((id, source, event_id, task, previous, collision_of)) = row else { return Ok(None) };
    let of_it = if collision_of.is_none() {
        Key::of(&source, &event_id)
    } else {
        let kept: SqlValue =
            connection.prepare_cached("SELECT body FROM events WHERE seq = ?1")?.query_row([seq], |row| row.get(0))?;
        Key::of_collision(&source, &event_id, &content_digest(&body(kept)))
    };
    key(connection, of_it)?;
    if keep == Keep::Key {
        connection
            .prepare_cached("INSERT OR REPLACE INTO erased_keys (key, event, erased_at) VALUES (?1, ?2, ?3)")?
            .execute(params![of_it.0.as_slice(), id, at])?;
    }
    deliveries(connection, seq)?;
    let subject = task.unwrap_or(-seq);
    connection.prepare_cached("DELETE FROM open_events WHERE subject = ?1 AND event = ?2")?.execute([subject, seq])?;
    connection.prepare_cached("DELETE FROM archiving WHERE event = ?1")?.execute([seq])?;
    connection.prepare_cached("DELETE FROM restored_events WHERE event = ?1")?.execute([seq])?;
    match task {
        Some(task) => unlink(connection, task, seq, previous)?,
        None => work(connection, subject, at)?,
    }
    connection.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
    Ok(task)
}

/// Deletes the task `seq`, of which no event is left, and all that hangs on it.
pub(super) fn task(connection: &Connection, seq: i64, at: &str) -> Result<(), Error> {
    work(connection, seq, at)?;
    connection.prepare_cached("DELETE FROM fetched_tasks WHERE task_seq = ?1")?.execute([seq])?;
    connection.prepare_cached("DELETE FROM tasks WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

/// Deletes a key.
fn key(connection: &Connection, key: Key) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM event_keys WHERE key = ?1")?.execute([key.0.as_slice()])?;
    Ok(())
}

/// Deletes the deliveries of an event.
fn deliveries(connection: &Connection, event: i64) -> Result<(), Error> {
    let deliveries: Vec<i64> = connection
        .prepare_cached("SELECT seq FROM deliveries WHERE event = ?1")?
        .query_map([event], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for delivery in deliveries {
        connection.prepare_cached("DELETE FROM jobs WHERE kind = 'deliver' AND subject = ?1")?.execute([delivery])?;
        connection.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([delivery])?;
        connection.prepare_cached("DELETE FROM delivery_bodies WHERE delivery = ?1")?.execute([delivery])?;
        connection.prepare_cached("DELETE FROM deliveries WHERE seq = ?1")?.execute([delivery])?;
    }
    Ok(())
}

/// Deletes the files and the jobs of a subject. Contents that no other row names are noted: the archive is not ours to write to.
fn work(connection: &Connection, subject: i64, at: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO unwanted_files (sha256, since) \
             SELECT sha256, ?2 FROM files WHERE subject = ?1 AND sha256 IS NOT NULL",
        )?
        .execute(params![subject, at])?;
    connection.prepare_cached("DELETE FROM files WHERE subject = ?1")?.execute([subject])?;
    for kind in ["prove", "fetch", "archive"] {
        connection.prepare_cached("DELETE FROM jobs WHERE kind = ?1 AND subject = ?2")?.execute(params![kind, subject])?;
    }
    Ok(())
}

/// Takes an event out of the events of its task. What came before it mostly went before it: then there is nothing to tie together.
fn unlink(connection: &Connection, task: i64, event: i64, previous: Option<i64>) -> Result<(), Error> {
    let previous: Option<i64> =
        connection.prepare_cached("SELECT seq FROM events WHERE seq = ?1")?.query_row([previous], |row| row.get(0)).optional()?;
    let newest = connection
        .prepare_cached("UPDATE tasks SET newest_event = ?3 WHERE seq = ?1 AND newest_event = ?2")?
        .execute(params![task, event, previous])?;
    if newest > 0 || previous.is_none() {
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE events SET previous = ?3 WHERE seq = (WITH RECURSIVE of_task (event) AS (SELECT newest_event FROM tasks \
             WHERE seq = ?1 UNION ALL SELECT previous FROM of_task JOIN events ON events.seq = of_task.event \
             WHERE previous IS NOT NULL) SELECT event FROM of_task JOIN events AS later ON later.seq = of_task.event \
             WHERE later.previous = ?2)",
        )?
        .execute(params![task, event, previous])?;
    Ok(())
}
