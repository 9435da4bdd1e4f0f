//! What is wrong with a store: whether SQLite finds it sound, and whether its rows fit together.
//!
//! What must hold: nothing is written, and each look is one read, so that what a running process does meanwhile is never taken for a
//! fault.

use std::path::Path;

use rusqlite::{Connection, params};

use super::open;
use crate::store::Error;
use crate::store::care::{Finding, Progress, Tell};

/// The most lines of SQLite's own check that are told, and the most rows of one fault that are named.
const EXAMPLES: usize = 5;

/// What must not be: each in words, and the rows that are so.
const FAULTS: &[(&str, &str)] = &[
    (
        "an event waits and nobody would come back for it: it has no job",
        "SELECT event FROM open_events WHERE state IN ('proving', 'fetching', 'archiving') AND NOT EXISTS (SELECT 1 FROM jobs \
         WHERE jobs.subject = open_events.subject AND jobs.kind = CASE open_events.state WHEN 'proving' THEN 'prove' \
         WHEN 'fetching' THEN 'fetch' ELSE 'archive' END)",
    ),
    (
        "an event is in a state that this program does not know",
        "SELECT event FROM open_events WHERE state NOT IN ('proving', 'fetching', 'archiving', 'quarantined', 'dead')",
    ),
    (
        "what is open is no event that is kept",
        "SELECT event FROM open_events WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = open_events.event)",
    ),
    (
        "an event waits for files, and it is not written down since when",
        "SELECT event FROM open_events WHERE state = 'archiving' \
         AND NOT EXISTS (SELECT 1 FROM archiving WHERE archiving.event = open_events.event)",
    ),
    (
        "an event is told to wait for files, and does not",
        "SELECT event FROM archiving WHERE NOT EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = archiving.subject \
         AND open_events.event = archiving.event AND open_events.state = 'archiving')",
    ),
    (
        "a delivery is the first of its lane and has no job",
        "SELECT id FROM deliveries WHERE state = 'pending' AND NOT EXISTS (SELECT 1 FROM deliveries AS earlier \
         WHERE earlier.destination = deliveries.destination AND earlier.lane = deliveries.lane AND earlier.state = 'pending' \
         AND earlier.seq < deliveries.seq) \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.kind = 'deliver' AND jobs.subject = deliveries.seq)",
    ),
    (
        "a delivery has no content",
        "SELECT id FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM delivery_bodies WHERE delivery = deliveries.seq)",
    ),
    (
        "a delivery is of no event that is kept",
        "SELECT id FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = deliveries.event)",
    ),
    (
        "the content of a delivery is left, and the delivery is not",
        "SELECT delivery FROM delivery_bodies WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = delivery)",
    ),
    (
        "an attempt is left, and its delivery is not",
        "SELECT DISTINCT delivery FROM attempts WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = delivery)",
    ),
    (
        "a job is about a delivery that is not pending, or not there",
        "SELECT id FROM jobs WHERE kind = 'deliver' \
         AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = jobs.subject AND deliveries.state = 'pending')",
    ),
    (
        "a job is about a task, or an event without one, that is not there",
        "SELECT id FROM jobs WHERE kind <> 'deliver' AND CASE WHEN subject > 0 \
         THEN NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = jobs.subject) \
         ELSE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = -jobs.subject) END",
    ),
    (
        "a key belongs to no event that is kept",
        "SELECT event FROM (SELECT event FROM event_keys UNION SELECT event FROM new_keys) AS keys \
         WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = keys.event)",
    ),
    (
        "an event was taken in and is not among those of its task",
        "SELECT id FROM events JOIN tasks ON tasks.task_id = events.task_id AND tasks.source = events.source \
         WHERE events.seq <= (SELECT taken FROM intake) AND NOT EXISTS (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq AND task_events.event = events.seq)",
    ),
    (
        "a file waits to be saved and nobody would come back for it: it has no job",
        "SELECT subject FROM files WHERE status = 'pending' \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.kind = 'archive' AND jobs.subject = files.subject)",
    ),
    (
        "a file is saved, and it is not written down under which digest",
        "SELECT seq FROM files WHERE status = 'archived' AND sha256 IS NULL",
    ),
    (
        "a file is of a task, or an event without one, that is not there",
        "SELECT seq FROM files WHERE CASE WHEN subject > 0 \
         THEN NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = files.subject) \
         ELSE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = -files.subject) END",
    ),
    (
        "a fetched task is left, and its task is not",
        "SELECT task_seq FROM fetched_tasks WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = task_seq)",
    ),
];

pub(in crate::store) fn check(store: &Path, quick: bool, tell: Tell<'_>) -> Result<Vec<Finding>, Error> {
    let connection = open::open_read_only(store)?;
    tell(Progress { what: "asking SQLite", done: 0, total: 0 });
    let mut findings = Vec::new();
    let complaints = pragma(&connection, quick).map_err(|error| open::refused(store, &error))?;
    if !complaints.is_empty() {
        let problem = "the file is damaged: restore a backup (`taskhook store restore`)".to_owned();
        let count = i64::try_from(complaints.len()).unwrap_or(i64::MAX);
        findings.push(Finding { problem, count, examples: complaints.into_iter().take(EXAMPLES).collect() });
        // Its rows cannot be believed.
        return Ok(findings);
    }
    let total = FAULTS.len() as u64;
    for (done, (problem, sql)) in (0..).zip(FAULTS) {
        tell(Progress { what: "looking at the rows", done, total });
        let (count, examples) = rows(&connection, sql)?;
        if count > 0 {
            findings.push(Finding { problem: (*problem).to_owned(), count, examples });
        }
    }
    Ok(findings)
}

/// What SQLite finds wrong, a line each.
fn pragma(connection: &Connection, quick: bool) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(if quick { "PRAGMA quick_check(20)" } else { "PRAGMA integrity_check(20)" })?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// How many rows `sql` finds, and the first of them.
fn rows(connection: &Connection, sql: &str) -> Result<(i64, Vec<String>), Error> {
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let (mut count, mut examples) = (0, Vec::new());
    while let Some(row) = found.next()? {
        count += 1;
        if examples.len() < EXAMPLES {
            examples.push(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                other => other.as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok((count, examples))
}

/// Digests and sizes of the contents that must be in the archive, those after `after`.
pub(in crate::store) fn archived(store: &Path, after: &str, limit: usize) -> Result<Vec<(String, Option<u64>)>, Error> {
    let connection = open::open_read_only(store)?;
    let mut statement = connection.prepare(
        "SELECT sha256, max(size_bytes) FROM files WHERE sha256 IS NOT NULL AND sha256 > ?1 AND status = 'archived' \
         GROUP BY sha256 ORDER BY sha256 LIMIT ?2",
    )?;
    let found = statement.query_map(params![after, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}
