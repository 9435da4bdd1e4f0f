//! Reading tasks, for people: the list, and one with its timeline. No function here writes.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::read::{events, shown};
use super::session::{Tx, args, clean, number, tidy, transact};
use super::{Postgres, answer, archive, delivery};
use crate::store::Error;
use crate::store::model::{FileRow, text};
use crate::store::timeline::{FileTimes, Parts, StopRow, timeline};
use crate::store::view::{
    ArchiveRow, EventFilter, Listed, Page, TASK_EVENTS, TaskDetail, TaskFilter, TaskRow, answers_to, page, task_row_columns,
};
use crate::task::File;

impl Postgres {
    pub(in crate::store) async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        let filter = TaskFilter { source: tidy(filter.source.as_deref()), state: tidy(filter.state.as_deref()) };
        transact!(self.sessions(), Read, |tx| tasks(&tx, &filter, &page))
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

fn task_row(row: &Row) -> (i64, TaskRow) {
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

/// What a list of tasks is narrowed to, and its order; what a registration ping names is none.
macro_rules! narrowed {
    ($state:literal) => {
        concat!(
            " FROM tasks WHERE ",
            $state,
            " AND seq < $1 AND ($2::text IS NULL OR source = $2) AND NOT coalesce((SELECT ping FROM events WHERE events.seq = \
             (SELECT max(event) FROM task_events WHERE task = tasks.seq)), false) ORDER BY seq DESC LIMIT $3"
        )
    };
}

async fn tasks(tx: &Tx, filter: &TaskFilter, at: &Page) -> Result<Listed<TaskRow>, Error> {
    // What is open or stuck is found by that: it may be few among many.
    let sql = match filter.state.as_deref() {
        Some("open") => concat!(
            "SELECT ",
            task_row_columns!(),
            question!(),
            narrowed!(
                "deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL AND $4::text <> ''"
            )
        ),
        Some("waiting" | "failed") => {
            concat!("SELECT ", task_row_columns!(), question!(), narrowed!("state IN ('waiting', 'failed') AND state = $4"))
        }
        _ => concat!("SELECT ", task_row_columns!(), question!(), narrowed!("($4::text IS NULL OR state = $4)")),
    };
    let rows = tx.rows(sql, args![at.cursor.unwrap_or(i64::MAX), filter.source, number(at.limit + 1), filter.state]).await?;
    Ok(page(rows.iter().map(task_row).collect(), at.limit))
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
    let events = events(tx, &of_task, &Page { limit: TASK_EVENTS, cursor: None }).await?.data;
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
