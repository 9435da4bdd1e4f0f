//! Reading tasks, for people: the list, and one with its timeline. No function here writes.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::place::List;
use super::read::{events, shown};
use super::session::{Tx, args, clean, known, number, tidy, transact};
use super::{Postgres, answer, archive, delivery, search};
use crate::store::Error;
use crate::store::model::{FileRow, text};
use crate::store::timeline::{FileTimes, Parts, StopRow, timeline};
use crate::store::view::{
    ArchiveRow, EventFilter, Listed, Page, Span, TASK_EVENTS, TaskDetail, TaskFilter, TaskRow, answers_to, task_row_columns,
};
use crate::task::File;

impl Postgres {
    pub(in crate::store) async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        let filter = tidied(&filter);
        transact!(self.sessions(), Read, |tx| listed(&tx, &filter, &page, None))
    }

    pub(in crate::store) async fn tasks_after(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        let filter = tidied(&filter);
        let settled = Some(List::Tasks.settled(self.sessions(), page.cursor).await?);
        transact!(self.sessions(), Read, |tx| listed(&tx, &filter, &page, settled))
    }

    pub(in crate::store) async fn task(&self, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Error> {
        let (source, task_id) = (clean(source), clean(task_id));
        transact!(self.sessions(), Read, |tx| task(&tx, &source, &task_id))
    }
}

/// What a task asked last, while it waits. Of JSON with a NUL in it PostgreSQL reads no text: then it is left out.
macro_rules! question {
    () => {
        ", CASE WHEN state = 'waiting' THEN (SELECT CASE WHEN strpos(task, '\\u0000') = 0 THEN task::json #>> '{question,text}' END \
         FROM fetched_tasks WHERE task_seq = seq) END"
    };
}
pub(super) use question;

pub(super) fn task_row(row: &Row) -> (i64, TaskRow) {
    let task = TaskRow {
        source: row.get(1),
        task_id: row.get(2),
        proof: row.get(3),
        proven_at: shown(row, 4),
        deleted_at: shown(row, 5),
        state: row.get(6),
        title: row.get(7),
        url: row.get(8),
        stop_reason: row.get(9),
        credits: row.get(10),
        first_seen_at: text(row.get::<_, Timestamp>(11)),
        fetched_at: shown(row, 12),
        kind: row.get(13),
        question: row.get(14),
    };
    (row.get(0), task)
}

/// What a list of tasks is narrowed to; what a registration ping names is none.
macro_rules! tasks_alike {
    () => {
        " ($2::text IS NULL OR source = $2) AND ($4::timestamptz IS NULL OR first_seen_at >= $4) AND ($5::timestamptz IS NULL OR first_seen_at < $5) \
         AND NOT coalesce((SELECT ping FROM events WHERE events.seq = (SELECT max(event) FROM task_events WHERE task = tasks.seq)), false)"
    };
}
pub(super) use tasks_alike;

/// The same in a part of the list, and in its order.
macro_rules! narrowed {
    ($order:literal) => {
        concat!(" AND seq > $6 AND seq < $1 AND", tasks_alike!(), " ORDER BY seq ", $order, " LIMIT $7")
    };
}

macro_rules! open {
    ($order:literal) => {
        concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            " FROM tasks WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL \
             AND $3::text <> ''",
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
            " FROM tasks WHERE state IN ('waiting', 'failed') AND state = $3",
            narrowed!($order)
        )
    };
}

macro_rules! any {
    ($order:literal) => {
        concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            " FROM tasks WHERE ($3::text IS NULL OR state = $3)",
            narrowed!($order)
        )
    };
}

/// A filter as the database takes it.
fn tidied(filter: &TaskFilter) -> TaskFilter {
    let [source, state, text] = [&filter.source, &filter.state, &filter.text].map(|text| tidy(text.as_deref()));
    TaskFilter { source, state, since: filter.since.map(known), until: filter.until.map(known), text }
}

async fn listed(tx: &Tx, filter: &TaskFilter, page: &Page, settled: Option<i64>) -> Result<Listed<TaskRow>, Error> {
    let span = List::Tasks.span(tx, page, settled, (filter.since, filter.until)).await?;
    match &filter.text {
        Some(text) => search::tasks(tx, filter, &span, text).await,
        None => tasks(tx, filter, &span).await,
    }
}

async fn tasks(tx: &Tx, filter: &TaskFilter, span: &Span) -> Result<Listed<TaskRow>, Error> {
    // What is open or stuck is found by that: it may be few among many.
    let sql = match (filter.state.as_deref(), span.is_forth()) {
        (Some("open"), false) => open!("DESC"),
        (Some("open"), true) => open!("ASC"),
        (Some("waiting" | "failed"), false) => stuck!("DESC"),
        (Some("waiting" | "failed"), true) => stuck!("ASC"),
        (_, false) => any!("DESC"),
        (_, true) => any!("ASC"),
    };
    let TaskFilter { source, state, since, until, .. } = filter;
    let rows = tx.rows(sql, args![span.below, *source, *state, *since, *until, span.above, number(span.rows())]).await?;
    Ok(span.page(rows.iter().map(task_row).collect()))
}

async fn task(tx: &Tx, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Error> {
    let sql = concat!(
        "SELECT ",
        task_row_columns!(),
        question!(),
        ", task, files, raw, anchor, coalesce(fetches, '{}') \
         FROM tasks LEFT JOIN fetched_tasks ON task_seq = seq WHERE task_id = $2 AND source = $1"
    );
    let Some(found) = tx.maybe(sql, args![source, task_id]).await? else { return Ok(None) };
    let json = |column| found.get::<_, Option<&str>>(column).and_then(|text| serde_json::from_str(text).ok());
    let files: Option<Vec<File>> = found.get::<_, Option<&str>>(16).and_then(|text| serde_json::from_str(text).ok());
    let (task, raw, anchor) = (json(15), json(17), found.get::<_, Option<String>>(18));
    let (seq, row) = task_row(&found);
    let of_task = EventFilter { source: Some(source.to_owned()), task_id: Some(task_id.to_owned()), ..EventFilter::default() };
    let events = events(tx, &of_task, &Span::back(&Page { limit: TASK_EVENTS, cursor: None })).await?.data;
    let rows = archive::files(tx, seq).await?;
    let files = files.map(|mut files| {
        FileRow::tell(&mut files, &rows);
        files
    });
    let archive = rows.into_iter().map(ArchiveRow::from).collect();
    let answers = answer::answers(tx, source, task_id).await?;
    let timeline = timeline(Parts {
        row: &row,
        task: task.as_ref(),
        anchor: anchor.as_deref(),
        fetches: found.get(19),
        events: &events,
        stops: stops(tx, source, task_id).await?,
        answers: &answers,
        files: file_times(tx, seq).await?,
        deliveries: delivery::of_task(tx, seq).await?,
    });
    let answers_to = answers_to(task.as_ref(), anchor);
    Ok(Some(TaskDetail { row, task, files, raw, archive, events, answers_to, answers, timeline }))
}

async fn stops(tx: &Tx, source: &str, task_id: &str) -> Result<Vec<StopRow>, Error> {
    let sql = "SELECT anchor, state, at, event, recovered, claimed_at FROM stops WHERE source = $1 AND task_id = $2 \
               ORDER BY claimed_at DESC, anchor LIMIT $3";
    let rows = tx.rows(sql, args![source, task_id, number(TASK_EVENTS)]).await?;
    let stop = |row: &Row| StopRow {
        anchor: row.get(0),
        state: row.get(1),
        at: shown(row, 2),
        event: row.get::<_, Uuid>(3).to_string(),
        recovered: row.get(4),
        claimed_at: text(row.get::<_, Timestamp>(5)),
    };
    Ok(rows.iter().map(stop).collect())
}

async fn file_times(tx: &Tx, task: i64) -> Result<Vec<FileTimes>, Error> {
    let sql = "SELECT name, status, first_seen_at, ended_at FROM files WHERE subject = $1 ORDER BY seq DESC LIMIT $2";
    let rows = tx.rows(sql, args![task, number(TASK_EVENTS)]).await?;
    let times = |row: &Row| FileTimes {
        name: row.get(0),
        status: row.get(1),
        first_seen_at: text(row.get::<_, Timestamp>(2)),
        ended_at: shown(row, 3),
    };
    Ok(rows.iter().map(times).collect())
}
