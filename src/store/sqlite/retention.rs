//! What may go, by age and by size, and the pages that it leaves.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::forget::{self, Keep};
use super::keys::Keys;
use crate::store::Error;
use crate::store::model::text;
use crate::store::upkeep::{Candidates, PAGE, Removed, Space, is_bare, needless, page};

/// Notes of unwanted contents that are read at once.
const FILES: usize = 100;

/// Of an event, whether it is done with and nothing needs it.
macro_rules! is_done {
    () => {
        concat!("state IN ('done', 'kept') AND seq <= (SELECT taken FROM intake) AND ", needless!())
    };
}

/// Of an event, whether it is in quarantine and nothing else needs it.
macro_rules! is_foreign {
    () => {
        concat!("standing.state = 'quarantined' AND ", needless!())
    };
}

/// Events in quarantine that were received before `before`, or are older than the newest `most` of them: the first ones.
pub(super) fn quarantined(connection: &Connection, before: &str, most: usize) -> Result<Candidates, Error> {
    let mut statement = connection.prepare_cached(concat!(
        "WITH stuck (event) AS MATERIALIZED (SELECT event FROM open_events WHERE state = 'quarantined') \
         SELECT seq, octet_length(headers) + octet_length(body) FROM stuck JOIN standing ON standing.seq = stuck.event \
         WHERE (received_at < ?1 OR seq <= (SELECT event FROM stuck ORDER BY event DESC LIMIT 1 OFFSET ?2)) AND ",
        is_foreign!(),
        " ORDER BY seq LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![before, most, PAGE], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Candidates { rows: rows.collect::<Result<_, _>>()?, next: None })
}

/// A page of events after `after`.
pub(super) fn done_events(connection: &Connection, after: i64, before: &str, now: &str) -> Result<Candidates, Error> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT seq, received_at, received_at < ?2 AND ",
        is_done!(),
        ", octet_length(headers) + octet_length(body) FROM standing WHERE seq > ?1 ORDER BY seq LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![after, before, PAGE], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, u64>(3)?))
    })?;
    Ok(page(&rows.collect::<Result<Vec<_>, _>>()?, &before.to_owned(), &now.to_owned()))
}

/// Removes those of `events` that are done with, and their tasks where no event is left.
pub(super) fn remove_events(connection: &Connection, keys: &mut Keys, events: &[i64], now: Timestamp) -> Result<Removed, Error> {
    let is = concat!("SELECT 1 FROM standing WHERE seq = ?1 AND ", is_done!());
    remove(connection, keys, events, is, Keep::Nothing, now)
}

/// Removes those of `events` that are in quarantine, and their tasks where no event is left. Their keys stay: a repeat is not kept again.
pub(super) fn remove_quarantined(
    connection: &Connection,
    keys: &mut Keys,
    events: &[i64],
    now: Timestamp,
) -> Result<Removed, Error> {
    let is = concat!("SELECT 1 FROM standing WHERE seq = ?1 AND ", is_foreign!());
    remove(connection, keys, events, is, Keep::Key, now)
}

fn remove(
    connection: &Connection,
    keys: &mut Keys,
    events: &[i64],
    is: &str,
    keep: Keep,
    now: Timestamp,
) -> Result<Removed, Error> {
    let (mut removed, at) = (Removed::default(), text(now));
    if !keys.can_forget() {
        // In the next run, then: keys are merged only while many events come.
        return Ok(removed);
    }
    for event in events {
        let still = connection.prepare_cached(is)?.query_row([event], |_| Ok(())).optional()?;
        if still.is_none() {
            continue;
        }
        let task = forget::event(connection, keys, *event, keep, &at)?;
        removed.events += 1;
        if let Some(task) = task {
            removed.tasks += remove_task(connection, task, &at)?;
        }
    }
    count(connection, removed)?;
    Ok(removed)
}

/// Removes `task` if it is bare; says how many that are.
fn remove_task(connection: &Connection, task: i64, at: &str) -> Result<u64, Error> {
    let bare = connection
        .prepare_cached(concat!("SELECT 1 FROM tasks WHERE seq = ?1 AND ", is_bare!()))?
        .query_row([task], |_| Ok(()))
        .optional()?;
    if bare.is_none() {
        return Ok(0);
    }
    forget::task(connection, task, at)?;
    Ok(1)
}

/// A page of tasks after `after`: those that have never had an event, and are not expected.
pub(super) fn bare_tasks(connection: &Connection, after: i64, before: &str, now: &str) -> Result<Candidates, Error> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT seq, first_seen_at, first_seen_at < ?2 AND coalesce(proof, '') NOT IN ('created', 'tracked') AND ",
        is_bare!(),
        " FROM tasks WHERE seq > ?1 ORDER BY seq LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![after, before, PAGE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, 0)))?;
    Ok(page(&rows.collect::<Result<Vec<_>, _>>()?, &before.to_owned(), &now.to_owned()))
}

pub(super) fn remove_tasks(connection: &Connection, tasks: &[i64], now: Timestamp) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    for task in tasks {
        removed.tasks += remove_task(connection, *task, &text(now))?;
    }
    count(connection, removed)?;
    Ok(removed)
}

/// Adds to what was removed since the store was made.
fn count(connection: &Connection, removed: Removed) -> Result<(), Error> {
    let Removed { events, tasks, files } = removed;
    for (name, more) in [("removed_events", events), ("removed_tasks", tasks), ("removed_files", files)] {
        if more > 0 {
            connection
                .prepare_cached(
                    "INSERT INTO store (name, value) VALUES (?1, ?2) \
                     ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + CAST(excluded.value AS INTEGER)",
                )?
                .execute(params![name, more.to_string()])?;
        }
    }
    Ok(())
}

pub(super) fn unwanted_files(connection: &Connection, after: &str) -> Result<Vec<String>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT sha256 FROM unwanted_files WHERE sha256 > ?1 ORDER BY sha256 LIMIT ?2")?;
    let rows = statement.query_map(params![after, FILES], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn is_wanted(connection: &Connection, sha256: &str) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM files WHERE sha256 = ?1 AND sha256 IS NOT NULL)")?
        .query_row([sha256], |row| row.get(0))?)
}

pub(super) fn settle_file(connection: &Connection, sha256: &str, deleted: bool) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM unwanted_files WHERE sha256 = ?1")?.execute([sha256])?;
    count(connection, Removed { files: deleted.into(), ..Removed::default() })
}

pub(super) fn forget_erased(connection: &Connection, before: Timestamp) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM erased_keys WHERE erased_at < ?1")?.execute([text(before)])?;
    Ok(())
}

pub(super) fn space(connection: &Connection) -> Result<Space, Error> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
    let page = number("PRAGMA page_size")?;
    Ok(Space { file: number("PRAGMA page_count")? * page, free: number("PRAGMA freelist_count")? * page })
}

/// Moves what lies at the end of the file into free pages, and cuts the end off. Each page is a row of the answer: to be done, they
/// must be read.
pub(super) fn shrink(connection: &Connection, pages: u32) -> Result<(), Error> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
