//! Looking for text. No function here writes.

use std::collections::HashSet;

use rusqlite::{Connection, Row, params};

use super::read::{event_row, events_alike};
use super::task::{question, task_row, tasks_alike};
use crate::store::Error;
use crate::store::model::text;
use crate::store::view::{
    EventFilter, EventRow, FOUND, Listed, Needle, PORTION, SEARCHED, Span, TaskFilter, TaskRow, event_row_columns,
    task_row_columns,
};

/// Events in which, or in whose tasks, `wanted` is found.
pub(super) fn events(
    connection: &Connection,
    filter: &EventFilter,
    span: &Span,
    wanted: &str,
) -> Result<Listed<EventRow>, Error> {
    let needle = Needle::new(wanted);
    let tasks = tasks_with(connection, &needle)?;
    let of_tasks = events_of(connection, &list(&tasks)?, span)?;
    // A page that ends where these do is told to go on there.
    let end = (of_tasks.len() == FOUND).then(|| of_tasks.last().copied()).flatten();
    let mut places = events_with(connection, &needle, true)?;
    places.extend(of_tasks);
    span.sort(&mut places);
    if let Some(end) = end {
        places.retain(|place| if span.is_forth() { *place <= end } else { *place >= end });
    }
    let EventFilter { source, kind, task_id, state, since, until, .. } = filter;
    let (since, until) = (since.map(text), until.map(text));
    let mut statement = connection.prepare_cached(concat!(
        "WITH found (place, number) AS (SELECT value, key FROM json_each(?1)) SELECT ",
        event_row_columns!(),
        " FROM found CROSS JOIN standing ON seq = place WHERE",
        events_alike!(),
        " ORDER BY number"
    ))?;
    let mut rows = Vec::new();
    for portion in places.chunks(PORTION) {
        let found = statement.query_map(params![list(portion)?, source, kind, task_id, state, since, until], event_row)?;
        rows.extend(found.collect::<Result<Vec<_>, _>>()?);
        if rows.len() > span.limit {
            break;
        }
    }
    Ok(span.page_up_to(rows, end))
}

/// Tasks in which, or in whose events, `wanted` is found.
pub(super) fn tasks(connection: &Connection, filter: &TaskFilter, span: &Span, wanted: &str) -> Result<Listed<TaskRow>, Error> {
    let needle = Needle::new(wanted);
    let mut places = tasks_with(connection, &needle)?;
    places.extend(tasks_of(connection, &list(&events_with(connection, &needle, false)?)?)?);
    span.sort(&mut places);
    let (since, until) = (filter.since.map(text), filter.until.map(text));
    let mut statement = connection.prepare_cached(concat!(
        "WITH found (place, number) AS (SELECT value, key FROM json_each(?1)) SELECT ",
        task_row_columns!(),
        question!(),
        " FROM found CROSS JOIN tasks ON seq = place WHERE (?3 IS NULL OR state = ?3 OR (?3 = 'open' \
         AND deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL)) AND",
        tasks_alike!(),
        " ORDER BY number"
    ))?;
    let mut rows = Vec::new();
    for portion in places.chunks(PORTION) {
        let found = statement.query_map(params![list(portion)?, filter.source, filter.state, since, until], task_row)?;
        rows.extend(found.collect::<Result<Vec<_>, _>>()?);
        if rows.len() > span.limit {
            break;
        }
    }
    Ok(span.page(rows))
}

/// Places as a statement takes them.
fn list(places: &[i64]) -> Result<String, Error> {
    serde_json::to_string(places).map_err(|error| Error::Database(error.to_string()))
}

fn word<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Option<&'a str>> {
    Ok(row.get_ref(column)?.as_str_or_null()?)
}

/// Those of the newest tasks whose title or id holds `needle`.
fn tasks_with(connection: &Connection, needle: &Needle) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached("SELECT seq, task_id, title FROM tasks ORDER BY seq DESC LIMIT ?1")?;
    let (mut rows, mut found) = (statement.query([SEARCHED])?, Vec::new());
    while let Some(row) = rows.next()? {
        if needle.is_in(&[word(row, 1)?, word(row, 2)?]) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

/// Those of the newest events of which an id holds `needle`; with `of_task`, that of its task as well.
fn events_with(connection: &Connection, needle: &Needle, of_task: bool) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached("SELECT seq, id, event_id, task_id FROM events ORDER BY seq DESC LIMIT ?1")?;
    let (mut rows, mut found) = (statement.query([SEARCHED])?, Vec::new());
    while let Some(row) = rows.next()? {
        let task_id = word(row, 3)?.filter(|_| of_task);
        if needle.is_in(&[word(row, 1)?, word(row, 2)?, task_id]) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

/// The events of `tasks` that come first in `span`.
fn events_of(connection: &Connection, tasks: &str, span: &Span) -> Result<Vec<i64>, Error> {
    let sql = if span.is_forth() {
        "SELECT event FROM task_events WHERE task IN (SELECT value FROM json_each(?1)) AND event > ?2 AND event < ?3 \
         ORDER BY event LIMIT ?4"
    } else {
        "SELECT event FROM task_events WHERE task IN (SELECT value FROM json_each(?1)) AND event > ?2 AND event < ?3 \
         ORDER BY event DESC LIMIT ?4"
    };
    Ok(connection
        .prepare_cached(sql)?
        .query_map(params![tasks, span.above, span.below, FOUND], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// The tasks of `events`.
fn tasks_of(connection: &Connection, events: &str) -> Result<HashSet<i64>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT tasks.seq FROM json_each(?1) CROSS JOIN events ON events.seq = json_each.value \
             JOIN tasks ON tasks.task_id = events.task_id AND tasks.source = events.source",
        )?
        .query_map([events], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}
