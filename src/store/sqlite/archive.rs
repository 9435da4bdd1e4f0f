//! Files on their way into the archive, and the events that wait for them.
//!
//! What must hold: an event in the state `archiving` has a row in `archiving` and its subject a job, and so has a file that is
//! `pending`: one that nobody would come back for would be lost in silence. A row of `files` is never deleted here.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::append::add_job;
use super::claim::stored;
use super::work::{begin_anew, delete_job, held, learn, move_event, take_step};
use crate::store::Error;
use crate::store::model::{FileRow, Finish, JobKind, Lease, NewFile, Progress, TURN_EVENTS, Told, Waiting, text};
use crate::task::{Fetched, File, FileStatus, Task};

/// An event that waits for files: how its task is known, whether it goes before something that came earlier, and may repeat another.
pub(super) struct Entry {
    pub(super) event: i64,
    pub(super) told: Told,
    pub(super) out_of_order: bool,
    pub(super) may_repeat: bool,
}

/// Lets an event wait for files.
pub(super) fn enter(connection: &Connection, source: &str, subject: i64, entry: &Entry, at: &str) -> Result<(), Error> {
    move_event(connection, subject, entry.event, "archiving", None)?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO archiving (event, subject, told, since, out_of_order, may_repeat) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![entry.event, subject, entry.told.as_str(), at, entry.out_of_order, entry.may_repeat])?;
    add_job(connection, JobKind::Archive.as_str(), source, subject, at)
}

/// Writes down the files of a subject, with their newest links. To `revive` is to try again at once what failed before, or backs
/// off: its new link may be good. What ended otherwise stays as it is.
pub(super) fn register(
    connection: &Connection,
    source: &str,
    subject: i64,
    files: &[NewFile],
    revive: bool,
    at: &str,
) -> Result<(), Error> {
    for file in files {
        let (status, due_at) = match &file.refused {
            Some(_) => (FileStatus::Failed, None),
            None => (FileStatus::Pending, Some(at)),
        };
        connection
            .prepare_cached(
                "INSERT INTO files (subject, key, name, url, content_type, size_bytes, status, reason, due_at, first_seen_at, event) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?12) ON CONFLICT (subject, key) DO UPDATE SET \
                 url = excluded.url, event = excluded.event, status = excluded.status, reason = excluded.reason, \
                 due_at = iif(?11, excluded.due_at, due_at), ended_at = NULL, attempts = iif(status = 'pending', attempts, 0), \
                 dead_links = iif(status = 'pending', dead_links, 0) \
                 WHERE status = 'pending' OR (?11 AND status IN ('failed', 'skipped'))",
            )?
            .execute(params![
                subject,
                file.key,
                file.name,
                file.url,
                file.content_type,
                file.size_bytes,
                status.as_str(),
                file.refused,
                due_at,
                at,
                revive,
                file.event,
            ])?;
    }
    if files.iter().any(|file| file.refused.is_none()) {
        add_job(connection, JobKind::Archive.as_str(), source, subject, at)?;
    }
    Ok(())
}

/// Keeps what a job has done so far; it goes on.
pub(super) fn progress(connection: &Connection, lease: Lease, now: Timestamp, progress: &Progress) -> Result<bool, Error> {
    let Some((_, source, subject)) = held(connection, lease)? else { return Ok(false) };
    let at = text(now);
    register(connection, &source, subject, &progress.renewed, false, &at)?;
    for file in &progress.files {
        let ended_at = (file.status != FileStatus::Pending).then_some(&at);
        connection
            .prepare_cached(
                "UPDATE files SET status = ?3, reason = ?4, sha256 = ?5, size_bytes = coalesce(?6, size_bytes), \
                 content_type = coalesce(content_type, ?7), attempts = ?8, due_at = ?9, ended_at = ?10, dead_links = ?11 \
                 WHERE subject = ?1 AND key = ?2",
            )?
            .execute(params![
                subject,
                file.key,
                file.status.as_str(),
                file.reason,
                file.sha256,
                file.size_bytes,
                file.content_type,
                file.attempts,
                file.due_at.map(text),
                ended_at,
                file.dead_links,
            ])?;
    }
    learn(connection, subject, &progress.task, &at)?;
    for step in &progress.moves {
        connection.prepare_cached("DELETE FROM archiving WHERE event = ?1")?.execute([step.event])?;
        take_step(connection, &source, subject, step, now)?;
    }
    Ok(true)
}

/// Ends a turn: the job is gone if nothing is left to do, else due when its worker said, or at once if something came meanwhile.
pub(super) fn finish(connection: &Connection, lease: Lease, now: Timestamp, finish: &Finish) -> Result<bool, Error> {
    let Some((_, _, subject)) = held(connection, lease)? else { return Ok(false) };
    let (newest, due_at): (Option<i64>, Option<String>) = connection
        .prepare_cached(
            "SELECT (SELECT max(event) FROM archiving WHERE subject = ?1), \
             (SELECT min(coalesce(due_at, ?2)) FROM files WHERE subject = ?1 AND status = 'pending')",
        )?
        .query_row(params![subject, text(now)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if newest.is_none() && due_at.is_none() {
        return delete_job(connection, lease);
    }
    let came_meanwhile = (newest > finish.seen).then_some(now);
    let due_at = [came_meanwhile.map(text), finish.again_at.map(text), due_at].into_iter().flatten().min();
    let due_at = due_at.unwrap_or_default().max(text(now));
    begin_anew(connection, lease, &due_at)
}

/// Gives up on a subject: its events are dead letters, its files have failed.
pub(super) fn bury(connection: &Connection, lease: Lease, subject: i64, reason: &str, at: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE open_events SET state = 'dead', reason = ?2, \
             reasons = (SELECT json_insert(jobs.reasons, '$[#]', ?2) FROM jobs WHERE jobs.id = ?3) \
             WHERE subject = ?1 AND state = 'archiving'",
        )?
        .execute(params![subject, reason, lease.job])?;
    connection.prepare_cached("DELETE FROM archiving WHERE subject = ?1")?.execute([subject])?;
    connection
        .prepare_cached(
            "UPDATE files SET status = 'failed', reason = ?2, ended_at = ?3 WHERE subject = ?1 AND status = 'pending'",
        )?
        .execute(params![subject, reason, at])?;
    Ok(())
}

/// The files of a subject, in the order in which they were first told.
pub(super) fn files(connection: &Connection, subject: i64) -> Result<Vec<FileRow>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT key, name, url, content_type, size_bytes, sha256, status, reason, attempts, due_at, dead_links, event FROM files \
             WHERE subject = ?1 ORDER BY seq",
        )?
        .query_map([subject], file_row)?
        .collect::<Result<_, _>>()?)
}

fn file_row(row: &Row<'_>) -> rusqlite::Result<FileRow> {
    let due_at: Option<String> = row.get(9)?;
    Ok(FileRow {
        key: row.get(0)?,
        name: row.get(1)?,
        url: row.get(2)?,
        content_type: row.get(3)?,
        size_bytes: row.get(4)?,
        sha256: row.get(5)?,
        // A word of a later program: nobody here knows what to do with it.
        status: row.get_ref(6)?.as_str()?.parse().unwrap_or(FileStatus::Skipped),
        reason: row.get(7)?,
        attempts: row.get(8)?,
        due_at: due_at.and_then(|at| at.parse().ok()),
        dead_links: row.get(10)?,
        event: row.get(11)?,
    })
}

/// The events of a subject that wait, the first [`TURN_EVENTS`] in the order of acceptance.
pub(super) fn waiting(connection: &Connection, subject: i64) -> Result<Vec<Waiting>, Error> {
    type Waits = (i64, String, String, bool, bool, Option<String>);
    let rows: Vec<Waits> = connection
        .prepare_cached(
            "SELECT event, told, since, out_of_order, may_repeat, (SELECT anchor FROM events JOIN stops ON stops.event = events.id \
             WHERE events.seq = archiving.event LIMIT 1) FROM archiving WHERE subject = ?1 ORDER BY event LIMIT ?2",
        )?
        .query_map(params![subject, TURN_EVENTS], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut waiting = Vec::with_capacity(rows.len());
    for (event, told, since, out_of_order, may_repeat, anchor) in rows {
        let Some(event) = stored(connection, event)? else { continue };
        let since = since.parse().unwrap_or(event.received_at);
        let told = told.parse().unwrap_or(Told::Webhook);
        waiting.push(Waiting { event, told, since, out_of_order, may_repeat, anchor });
    }
    Ok(waiting)
}

/// A task and its files as last fetched.
pub(super) fn fetched(connection: &Connection, source: &str, task_id: &str) -> Result<Option<Fetched>, Error> {
    let found: Option<(Option<String>, Option<String>, Option<String>)> = connection
        .prepare_cached(
            "SELECT task, files, anchor FROM tasks JOIN fetched_tasks ON task_seq = seq WHERE source = ?1 AND task_id = ?2",
        )?
        .query_row(params![source, task_id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((Some(task), files, stands_at)) = found else { return Ok(None) };
    let (Ok(task), Ok(files)) =
        (serde_json::from_str::<Task>(&task), serde_json::from_str::<Vec<File>>(files.as_deref().unwrap_or("[]")))
    else {
        return Ok(None);
    };
    Ok(Some(Fetched { task, files, stands_at, ..Fetched::default() }))
}

/// The key `name` of our own; `candidate` if there is none yet.
pub(super) fn own_key(connection: &Connection, name: &str, candidate: &[u8], now: Timestamp) -> Result<Vec<u8>, Error> {
    connection
        .prepare_cached("INSERT INTO own_keys (name, key, made_at) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING")?
        .execute(params![name, candidate, text(now)])?;
    Ok(connection.prepare_cached("SELECT key FROM own_keys WHERE name = ?1")?.query_row([name], |row| row.get(0))?)
}
