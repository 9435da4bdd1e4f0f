//! Deleting: the one place for each table that says how a row of it goes, whoever wants it gone.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::body;
use super::keys::Keys;
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

/// Deletes the event `seq`, which was taken in, and all that hangs on it but its task. Says which task that is. Only while keys can be
/// forgotten ([`Keys::can_forget`]).
pub(super) fn event(connection: &Connection, keys: &mut Keys, seq: i64, keep: Keep, at: &str) -> Result<Option<i64>, Error> {
    type Row = (String, String, String, i64, Option<String>);
    let row: Option<Row> = connection
        .prepare_cached("SELECT id, source, event_id, subject, collision_of FROM standing WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    let Some((id, source, event_id, subject, collision_of)) = row else { return Ok(None) };
    let of_it = if collision_of.is_none() {
        Key::of(&source, &event_id)
    } else {
        let kept: SqlValue =
            connection.prepare_cached("SELECT body FROM events WHERE seq = ?1")?.query_row([seq], |row| row.get(0))?;
        Key::of_collision(&source, &event_id, &content_digest(&body(kept)))
    };
    keys.forget(connection, of_it)?;
    if keep == Keep::Key {
        connection
            .prepare_cached("INSERT OR REPLACE INTO erased_keys (key, event, erased_at) VALUES (?1, ?2, ?3)")?
            .execute(params![of_it.0.as_slice(), id, at])?;
    }
    deliveries(connection, seq)?;
    connection.prepare_cached("DELETE FROM open_events WHERE subject = ?1 AND event = ?2")?.execute([subject, seq])?;
    connection.prepare_cached("DELETE FROM archiving WHERE event = ?1")?.execute([seq])?;
    connection.prepare_cached("DELETE FROM replays WHERE event = ?1")?.execute([seq])?;
    connection.prepare_cached("DELETE FROM restored_events WHERE event = ?1")?.execute([seq])?;
    let task = (subject > 0).then_some(subject);
    match task {
        Some(task) => {
            connection.prepare_cached("DELETE FROM task_events WHERE task = ?1 AND event = ?2")?.execute([task, seq])?;
        }
        None => work(connection, subject, at)?,
    }
    connection.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
    // The next event may get the place of the newest one: it must stand above the mark.
    connection
        .prepare_cached("UPDATE intake SET taken = (SELECT coalesce(max(seq), 0) FROM events) WHERE taken = ?1")?
        .execute([seq])?;
    Ok(task)
}

/// Deletes the task `seq`, of which no event is left, and all that hangs on it.
pub(super) fn task(connection: &Connection, seq: i64, at: &str) -> Result<(), Error> {
    work(connection, seq, at)?;
    connection.prepare_cached("DELETE FROM fetched_tasks WHERE task_seq = ?1")?.execute([seq])?;
    connection
        .prepare_cached("DELETE FROM answers WHERE (source, task_id) = (SELECT source, task_id FROM tasks WHERE seq = ?1)")?
        .execute([seq])?;
    connection.prepare_cached("DELETE FROM tasks WHERE seq = ?1")?.execute([seq])?;
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
