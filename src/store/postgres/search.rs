//! Looking for text. No function here writes.

use super::read::{event_row, events_alike};
use super::session::{Tx, args, number};
use super::task::{question, task_row, tasks_alike};
use crate::store::Error;
use crate::store::view::{
    EventFilter, EventRow, FOUND, Listed, Needle, PORTION, SEARCHED, Span, TaskFilter, TaskRow, event_row_columns,
    task_row_columns,
};

/// Events in which, or in whose tasks, `wanted` is found.
pub(super) async fn events(tx: &Tx, filter: &EventFilter, span: &Span, wanted: &str) -> Result<Listed<EventRow>, Error> {
    let needle = Needle::new(wanted);
    let of_tasks = events_of(tx, tasks_with(tx, &needle).await?, span).await?;
    // A page that ends where these do is told to go on there.
    let end = (of_tasks.len() == FOUND).then(|| of_tasks.last().copied()).flatten();
    let mut places = events_with(tx, &needle, true).await?;
    places.extend(of_tasks);
    span.sort(&mut places);
    if let Some(end) = end {
        places.retain(|place| if span.is_forth() { *place <= end } else { *place >= end });
    }
    let EventFilter { source, kind, task_id, state, since, until, .. } = filter;
    let sql = concat!(
        "SELECT ",
        event_row_columns!(),
        " FROM unnest($1::bigint[]) WITH ORDINALITY AS found (place, number) \
         CROSS JOIN LATERAL (SELECT * FROM standing WHERE standing.seq = found.place OFFSET 0) AS standing WHERE",
        events_alike!(),
        " ORDER BY number"
    );
    let mut rows = Vec::new();
    for portion in places.chunks(PORTION) {
        let found = tx.rows(sql, args![portion.to_vec(), *source, *kind, *task_id, *state, *since, *until]).await?;
        rows.extend(found.iter().map(event_row));
        if rows.len() > span.limit {
            break;
        }
    }
    Ok(span.page_up_to(rows, end))
}

/// Tasks in which, or in whose events, `wanted` is found.
pub(super) async fn tasks(tx: &Tx, filter: &TaskFilter, span: &Span, wanted: &str) -> Result<Listed<TaskRow>, Error> {
    let needle = Needle::new(wanted);
    let mut places = tasks_with(tx, &needle).await?;
    places.extend(tasks_of(tx, events_with(tx, &needle, false).await?).await?);
    span.sort(&mut places);
    let TaskFilter { source, state, since, until, .. } = filter;
    let sql = concat!(
        "SELECT ",
        task_row_columns!(),
        question!(),
        " FROM unnest($1::bigint[]) WITH ORDINALITY AS found (place, number) JOIN tasks ON seq = place \
         WHERE ($3::text IS NULL OR state = $3 OR ($3 = 'open' AND deleted_at IS NULL \
         AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL)) AND",
        tasks_alike!(),
        " ORDER BY number"
    );
    let mut rows = Vec::new();
    for portion in places.chunks(PORTION) {
        let found = tx.rows(sql, args![portion.to_vec(), *source, *state, *since, *until]).await?;
        rows.extend(found.iter().map(task_row));
        if rows.len() > span.limit {
            break;
        }
    }
    Ok(span.page(rows))
}

/// Those of the newest tasks whose title or id holds `needle`.
async fn tasks_with(tx: &Tx, needle: &Needle) -> Result<Vec<i64>, Error> {
    let rows = tx.rows("SELECT seq, task_id, title FROM tasks ORDER BY seq DESC LIMIT $1", args![number(SEARCHED)]).await?;
    let found = rows.iter().filter(|row| needle.is_in(&[row.get(1), row.get(2)]));
    Ok(found.map(|row| row.get(0)).collect())
}

/// Those of the newest events of which an id holds `needle`; with `of_task`, that of its task as well.
async fn events_with(tx: &Tx, needle: &Needle, of_task: bool) -> Result<Vec<i64>, Error> {
    let sql = "SELECT seq, id::text, event_id, CASE WHEN $2 THEN task_id END FROM events ORDER BY seq DESC LIMIT $1";
    let rows = tx.rows(sql, args![number(SEARCHED), of_task]).await?;
    let found = rows.iter().filter(|row| needle.is_in(&[row.get(1), row.get(2), row.get(3)]));
    Ok(found.map(|row| row.get(0)).collect())
}

/// The events of `tasks` that come first in `span`.
async fn events_of(tx: &Tx, tasks: Vec<i64>, span: &Span) -> Result<Vec<i64>, Error> {
    let sql = if span.is_forth() {
        "SELECT event FROM task_events WHERE task = ANY($1) AND event > $2 AND event < $3 ORDER BY event LIMIT $4"
    } else {
        "SELECT event FROM task_events WHERE task = ANY($1) AND event > $2 AND event < $3 ORDER BY event DESC LIMIT $4"
    };
    Ok(tx.rows(sql, args![tasks, span.above, span.below, number(FOUND)]).await?.iter().map(|row| row.get(0)).collect())
}

/// The tasks of `events`.
async fn tasks_of(tx: &Tx, events: Vec<i64>) -> Result<Vec<i64>, Error> {
    let sql = "SELECT DISTINCT tasks.seq FROM events JOIN tasks ON tasks.task_id = events.task_id AND tasks.source = events.source \
               WHERE events.seq = ANY($1)";
    Ok(tx.rows(sql, args![events]).await?.iter().map(|row| row.get(0)).collect())
}
