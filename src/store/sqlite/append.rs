//! Keeping an event, once. Its row is all that its work needs to begin: see [`super::intake`].

use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use uuid::Uuid;

use super::keys::Keys;
use crate::event::{First, Key, NewEvent, content_digest};
use crate::store::model::{Appended, text};
use crate::store::{Error, HOMELESS};

/// Bytes as a person can read them: text where they are UTF-8, else a blob.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl ToSql for Body<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match std::str::from_utf8(self.0) {
            Ok(text) => ValueRef::Text(text.as_bytes()),
            Err(_) => ValueRef::Blob(self.0),
        }))
    }
}

/// Reads what [`Body`] wrote.
pub(super) fn body(value: SqlValue) -> bytes::Bytes {
    match value {
        SqlValue::Text(text) => text.into_bytes().into(),
        SqlValue::Blob(bytes) => bytes.into(),
        // No other type is ever written there.
        SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => bytes::Bytes::new(),
    }
}

/// Inserts `event` unless its key is known.
pub(super) fn append(connection: &Connection, keys: &mut Keys, event: &NewEvent, headers: &str) -> Result<Appended, Error> {
    let key = Key::of(&event.source, &event.event_id);
    let Some(first) = keys.holder(connection, key)? else {
        if let Some(id) = erased(connection, key)? {
            return Ok(Appended::Duplicate(id));
        }
        let seq = insert(connection, event, headers, None)?;
        keys.add(connection, key, seq)?;
        return Ok(Appended::New(event.id));
    };
    if !event.collides {
        return repeat(connection, event, first);
    }
    let (first_id, kept): (Uuid, SqlValue) = connection
        .prepare_cached("SELECT id, body FROM events WHERE seq = ?1")?
        .query_row([first], |row| Ok((id(row.get_ref(0)?)?, row.get(1)?)))?;
    let kept = body(kept);
    let content = if kept == event.body { None } else { Some(content_digest(&event.body)) };
    let Some(content) = content.filter(|content| *content != content_digest(&kept)) else {
        return repeat(connection, event, first);
    };
    let key = Key::of_collision(&event.source, &event.event_id, &content);
    if let Some(earlier) = keys.holder(connection, key)? {
        return repeat(connection, event, earlier);
    }
    if let Some(id) = erased(connection, key)? {
        return Ok(Appended::Duplicate(id));
    }
    let seq = insert(connection, event, headers, Some(first_id))?;
    keys.add(connection, key, seq)?;
    Ok(Appended::Collision(event.id))
}

/// The id of the event that was accepted under `key` and erased: nothing else is known of it, so any content is a repeat.
fn erased(connection: &Connection, key: Key) -> Result<Option<Uuid>, Error> {
    Ok(connection
        .prepare_cached("SELECT event FROM erased_keys WHERE key = ?1")?
        .query_row([key.0.as_slice()], |row| id(row.get_ref(0)?))
        .optional()?)
}

fn repeat(connection: &Connection, event: &NewEvent, first: i64) -> Result<Appended, Error> {
    let id = connection
        .prepare_cached("UPDATE events SET repeats = repeats + 1, last_repeat_at = ?2 WHERE seq = ?1 RETURNING id")?
        .query_row(params![first, text(event.received_at)], |row| id(row.get_ref(0)?))?;
    Ok(Appended::Duplicate(id))
}

fn insert(connection: &Connection, event: &NewEvent, headers: &str, collision_of: Option<Uuid>) -> Result<i64, Error> {
    let mut buffer = Uuid::encode_buffer();
    let seq: i64 = connection
        .prepare_cached(
            "INSERT INTO events (id, source, provider, type, provider_type, event_id, task_id, \
             received_at, verification, kept, ping, collision_of, target, headers, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .insert(params![
            &*event.id.hyphenated().encode_lower(&mut buffer),
            event.source,
            event.provider,
            event.kind,
            event.provider_type,
            event.event_id,
            event.task_id,
            text(event.received_at),
            event.verification.as_str(),
            event.first == First::Keep,
            event.ping,
            collision_of.map(|id| id.to_string()),
            event.target,
            headers,
            Body(&event.body),
        ])?;
    if event.first == First::Quarantine {
        connection
            .prepare_cached("INSERT INTO open_events (subject, event, state, reason) VALUES (?1, ?2, 'quarantined', ?3)")?
            .execute(params![-seq, seq, HOMELESS])?;
    }
    Ok(seq)
}

/// Makes a job due now, unless there is one for the same subject. One that only waits to look again is hurried; one that is
/// running will find at its end that more came, and one that backs off after a failure keeps its time.
pub(super) fn add_job(connection: &Connection, kind: &str, queue: &str, subject: i64, now: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO jobs (kind, queue, subject, settled, state, due_at, created_at) VALUES (?1, ?2, ?3, \
             EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = ?3 AND proof IS NOT NULL), 'due', ?4, ?4) \
             ON CONFLICT (kind, subject) DO UPDATE SET due_at = excluded.due_at \
             WHERE state = 'due' AND attempt = 0 AND due_at > excluded.due_at",
        )?
        .execute(params![kind, queue, subject, now])?;
    Ok(())
}

/// Reads an id.
pub(super) fn id(value: ValueRef<'_>) -> rusqlite::Result<Uuid> {
    let text = value.as_str()?;
    Uuid::parse_str(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, value.data_type(), Box::new(error)))
}
