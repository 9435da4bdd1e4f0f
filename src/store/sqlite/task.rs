//! Reading tasks, for people: the list, and one with its timeline. No function here writes.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;

use super::place::{List, Way};
use super::{Sqlite, answer, archive, delivery, read, search};
use crate::store::Error;
use crate::store::model::{FileRow, text};
use crate::store::timeline::{FileTimes, Parts, StopRow, timeline};
use crate::store::view::{
    ArchiveRow, EventFilter, Listed, Page, Span, TASK_EVENTS, TaskDetail, TaskFilter, TaskRow, answers_to, task_row_columns,
};
use crate::task::File;

impl Sqlite {
    pub(in crate::store) async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        self.read(move |connection| listed(connection, &filter, &page, Way::Back)).await
    }

    pub(in crate::store) async fn tasks_after(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        self.read(move |connection| listed(connection, &filter, &page, Way::Forth)).await
    }

    pub(in crate::store) async fn task(&self, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.read(move |connection| task(connection, &source, &task_id)).await
    }
}

/// What a task asked last, while it waits.
macro_rules! question {
    () => {
        ", CASE WHEN state = 'waiting' THEN (SELECT task ->> '$.question.text' FROM fetched_tasks WHERE task_seq = seq) END"
    };
}
pub(super) use question;

pub(super) fn task_row(row: &Row<'_>) -> rusqlite::Result<(i64, TaskRow)> {
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

/// What a list of tasks is narrowed to; what a registration ping names is none.
macro_rules! tasks_alike {
    () => {
        " (?2 IS NULL OR source = ?2) AND (?4 IS NULL OR first_seen_at >= ?4) AND (?5 IS NULL OR first_seen_at < ?5) \
         AND NOT EXISTS (SELECT 1 FROM events WHERE ping AND events.seq = (SELECT max(event) FROM task_events WHERE task = tasks.seq))"
    };
}
pub(super) use tasks_alike;

/// The same in a part of the list, and in its order.
macro_rules! narrowed {
    ($order:literal) => {
        concat!(" AND seq > ?6 AND seq < ?1 AND", tasks_alike!(), " ORDER BY seq ", $order, " LIMIT ?7")
    };
}

macro_rules! open {
    ($order:literal) => {
        concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            " FROM tasks INDEXED BY tasks_open WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) \
             AND proof IS NOT NULL AND ?3 <> ''",
            narrowed!($order)
        )
    };
}

macro_rules! stuck {
    ($order:literal) => {
        concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            " FROM tasks INDEXED BY tasks_stuck WHERE state IN ('waiting', 'failed') AND state = ?3",
            narrowed!($order)
        )
    };
}

macro_rules! any {
    ($order:literal) => {
        concat!("SELECT ", task_row_columns!(), question!(), " FROM tasks WHERE (?3 IS NULL OR state = ?3)", narrowed!($order))
    };
}

fn listed(connection: &Connection, filter: &TaskFilter, page: &Page, way: Way) -> Result<Listed<TaskRow>, Error> {
    let span = List::Tasks.span(connection, way, page, (filter.since, filter.until))?;
    match &filter.text {
        Some(text) => search::tasks(connection, filter, &span, text),
        None => tasks(connection, filter, &span),
    }
}

fn tasks(connection: &Connection, filter: &TaskFilter, span: &Span) -> Result<Listed<TaskRow>, Error> {
    // What is open or stuck is found by that: it may be few among many.
    let sql = match (filter.state.as_deref(), span.is_forth()) {
        (Some("open"), false) => open!("DESC"),
        (Some("open"), true) => open!("ASC"),
        (Some("waiting" | "failed"), false) => stuck!("DESC"),
        (Some("waiting" | "failed"), true) => stuck!("ASC"),
        (_, false) => any!("DESC"),
        (_, true) => any!("ASC"),
    };
    let (since, until) = (filter.since.map(text), filter.until.map(text));
    let rows = connection
        .prepare_cached(sql)?
        .query_map(params![span.below, filter.source, filter.state, since, until, span.above, span.rows()], task_row)?
        .collect::<Result<_, _>>()?;
    Ok(span.page(rows))
}

fn task(connection: &Connection, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Error> {
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
    let events = read::events(connection, &of_task, &Span::back(&Page { limit: TASK_EVENTS, cursor: None }))?.data;
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
        deliveries: delivery::of_task(connection, seq)?,
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
