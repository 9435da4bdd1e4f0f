//! Reading tasks, for people: the list, and one with its timeline. No function here writes.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;

use super::{answer, archive, read};
use crate::store::Error;
use crate::store::model::FileRow;
use crate::store::timeline::{FileTimes, Parts, StopRow, timeline};
use crate::store::view::{
    ArchiveRow, EventFilter, Listed, Page, TASK_EVENTS, TaskDetail, TaskFilter, TaskRow, answers_to, page, task_row_columns,
};
use crate::task::File;

/// What a task asked last, while it waits.
macro_rules! question {
    () => {
        ", CASE WHEN state = 'waiting' THEN (SELECT task ->> '$.question.text' FROM fetched_tasks WHERE task_seq = seq) END"
    };
}

fn task_row(row: &Row<'_>) -> rusqlite::Result<(i64, TaskRow)> {
    Ok((
        row.get(0)?,
        TaskRow {
            source: row.get(1)?,
            task_id: row.get(2)?,
            proof: row.get(3)?,
            proven_at: row.get(4)?,
            deleted_at: row.get(5)?,
            state: row.get(6)?,
            title: row.get(7)?,
            url: row.get(8)?,
            stop_reason: row.get(9)?,
            credits: row.get(10)?,
            first_seen_at: row.get(11)?,
            fetched_at: row.get(12)?,
            kind: row.get(13)?,
            question: row.get(14)?,
        },
    ))
}

/// What a list of tasks is narrowed to, and its order; what a registration ping names is none.
macro_rules! narrowed {
    ($state:literal) => {
        concat!(
            $state,
            " AND seq < ?1 AND (?2 IS NULL OR source = ?2) AND NOT EXISTS (SELECT 1 FROM events WHERE ping AND events.seq = \
             (SELECT max(event) FROM task_events WHERE task = tasks.seq)) ORDER BY seq DESC LIMIT ?3"
        )
    };
}

pub(super) fn tasks(connection: &Connection, filter: &TaskFilter, at: &Page) -> Result<Listed<TaskRow>, Error> {
    // What is open or stuck is found by that: it may be few among many.
    let sql = match filter.state.as_deref() {
        Some("open") => concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            " FROM tasks INDEXED BY tasks_open",
            narrowed!(
                " WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL AND ?4 <> ''"
            )
        ),
        Some("waiting" | "failed") => concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            " FROM tasks INDEXED BY tasks_stuck",
            narrowed!(" WHERE state IN ('waiting', 'failed') AND state = ?4")
        ),
        _ => concat!("SELECT ", task_row_columns!(), question!(), " FROM tasks", narrowed!(" WHERE (?4 IS NULL OR state = ?4)")),
    };
    let rows = connection
        .prepare_cached(sql)?
        .query_map(params![at.cursor.unwrap_or(i64::MAX), filter.source, at.limit + 1, filter.state], task_row)?
        .collect::<Result<_, _>>()?;
    Ok(page(rows, at.limit))
}

pub(super) fn task(connection: &Connection, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Error> {
    let found = connection
        .prepare_cached(concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            ", task, files, raw, anchor, coalesce(fetches, '[]') \
             FROM tasks LEFT JOIN fetched_tasks ON task_seq = seq WHERE task_id = ?2 AND source = ?1"
        ))?
        .query_row(params![source, task_id], |row| {
            let json = |column| -> rusqlite::Result<Option<Value>> {
                let text: Option<String> = row.get(column)?;
                Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
            };
            let files: Option<String> = row.get(16)?;
            let files = files.and_then(|text| serde_json::from_str(&text).ok());
            let fetches: String = row.get(19)?;
            let (seq, task) = task_row(row)?;
            let rest: (Option<String>, Vec<String>) = (row.get(18)?, serde_json::from_str(&fetches).unwrap_or_default());
            Ok((seq, task, json(15)?, files, json(17)?, rest))
        })
        .optional()?;
    let Some((seq, row, task, files, raw, (anchor, fetches))) = found else { return Ok(None) };
    let of_task = EventFilter { source: Some(source.to_owned()), task_id: Some(task_id.to_owned()), ..EventFilter::default() };
    let events = read::events(connection, &of_task, &Page { limit: TASK_EVENTS, cursor: None })?.data;
    let rows = archive::files(connection, seq)?;
    let files = files.map(|mut files: Vec<File>| {
        FileRow::tell(&mut files, &rows);
        files
    });
    let archive = rows.into_iter().map(ArchiveRow::from).collect();
    let answers = answer::answers(connection, source, task_id)?;
    let timeline = timeline(Parts {
        row: &row,
        task: task.as_ref(),
        anchor: anchor.as_deref(),
        fetches,
        events: &events,
        stops: stops(connection, source, task_id)?,
        answers: &answers,
        files: file_times(connection, seq)?,
        deliveries: read::deliveries_of_task(connection, seq)?,
    });
    let answers_to = answers_to(task.as_ref(), anchor);
    Ok(Some(TaskDetail { row, task, files, raw, archive, events, answers_to, answers, timeline }))
}

fn stops(connection: &Connection, source: &str, task_id: &str) -> Result<Vec<StopRow>, Error> {
    let stop = |row: &Row<'_>| {
        Ok(StopRow {
            anchor: row.get(0)?,
            state: row.get(1)?,
            at: row.get(2)?,
            event: row.get(3)?,
            recovered: row.get(4)?,
            claimed_at: row.get(5)?,
        })
    };
    Ok(connection
        .prepare_cached(
            "SELECT anchor, state, at, event, recovered, claimed_at FROM stops WHERE source = ?1 AND task_id = ?2 \
             ORDER BY claimed_at DESC, anchor LIMIT ?3",
        )?
        .query_map(params![source, task_id, TASK_EVENTS], stop)?
        .collect::<Result<_, _>>()?)
}

fn file_times(connection: &Connection, task: i64) -> Result<Vec<FileTimes>, Error> {
    let times = |row: &Row<'_>| {
        Ok(FileTimes { name: row.get(0)?, status: row.get(1)?, first_seen_at: row.get(2)?, ended_at: row.get(3)? })
    };
    Ok(connection
        .prepare_cached("SELECT name, status, first_seen_at, ended_at FROM files WHERE subject = ?1 ORDER BY seq DESC LIMIT ?2")?
        .query_map(params![task, TASK_EVENTS], times)?
        .collect::<Result<_, _>>()?)
}
