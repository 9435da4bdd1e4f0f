//! Reading deliveries, for people: with their attempts, and of which event. No function here writes.

use rusqlite::{Connection, Params, Row, params};

use super::Sqlite;
use super::place::{List, Way};
use crate::store::Error;
use crate::store::model::{Like, text};
use crate::store::view::{AttemptRow, DeliveryRow, Listed, Page, TASK_EVENTS};

impl Sqlite {
    pub(in crate::store) async fn deliveries(&self, like: Like, page: Page) -> Result<Listed<DeliveryRow>, Error> {
        self.read(move |connection| deliveries(connection, &like, &page, Way::Back)).await
    }

    pub(in crate::store) async fn deliveries_after(&self, like: Like, page: Page) -> Result<Listed<DeliveryRow>, Error> {
        self.read(move |connection| deliveries(connection, &like, &page, Way::Forth)).await
    }

    pub(in crate::store) async fn delivery(&self, id: &str) -> Result<Option<DeliveryRow>, Error> {
        let id = id.to_owned();
        self.read(move |connection| Ok(found(connection, OF_ID, [id])?.pop().map(|(_, row)| row))).await
    }
}

/// What is told of a delivery, and of what.
macro_rules! delivery_columns {
    () => {
        "deliveries.seq, deliveries.id, events.id, events.type, events.source, events.task_id, destination, route, \
         deliveries.state, deliveries.reason, out_of_order, deliveries.created_at, ended_at, jobs.due_at, replay, \
         (SELECT earlier.id FROM deliveries AS earlier WHERE earlier.event = deliveries.event \
         AND earlier.destination = deliveries.destination AND earlier.replay < deliveries.replay \
         ORDER BY earlier.replay DESC LIMIT 1) \
         FROM deliveries JOIN events ON events.seq = deliveries.event \
         LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq"
    };
}

/// What a list of deliveries is narrowed to, and its order.
macro_rules! alike {
    ($order:literal) => {
        concat!(
            " (?1 IS NULL OR deliveries.state = ?1) AND (?2 IS NULL OR destination = ?2) AND (?3 IS NULL OR route = ?3) \
             AND (?4 IS NULL OR source = ?4) AND (?5 IS NULL OR type = ?5) AND (?6 IS NULL OR task_id = ?6) \
             AND (?7 IS NULL OR deliveries.created_at >= ?7) AND (?8 IS NULL OR deliveries.created_at < ?8) \
             AND deliveries.seq > ?9 AND deliveries.seq < ?10 ORDER BY deliveries.seq ",
            $order,
            " LIMIT ?11"
        )
    };
}

/// Those of a task are found by it.
macro_rules! of_its_task {
    () => {
        " WHERE deliveries.event IN (SELECT task_events.event FROM tasks JOIN task_events ON task_events.task = tasks.seq \
         WHERE tasks.task_id = ?6) AND"
    };
}

const OF_EVENT: &str =
    concat!("SELECT ", delivery_columns!(), " WHERE deliveries.event = ?1 ORDER BY deliveries.seq DESC LIMIT ?2");
const OF_TASK: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " WHERE deliveries.event IN (SELECT event FROM task_events WHERE task = ?1) ORDER BY deliveries.seq DESC LIMIT ?2"
);
const OF_ID: &str = concat!("SELECT ", delivery_columns!(), " WHERE deliveries.id = ?1");

/// The newest deliveries of an event.
pub(super) fn of_event(connection: &Connection, event: i64) -> Result<Vec<DeliveryRow>, Error> {
    Ok(found(connection, OF_EVENT, params![event, TASK_EVENTS])?.into_iter().map(|(_, row)| row).collect())
}

/// The newest deliveries of events of a task.
pub(super) fn of_task(connection: &Connection, task: i64) -> Result<Vec<DeliveryRow>, Error> {
    Ok(found(connection, OF_TASK, params![task, TASK_EVENTS])?.into_iter().map(|(_, row)| row).collect())
}

fn deliveries(connection: &Connection, like: &Like, page: &Page, way: Way) -> Result<Listed<DeliveryRow>, Error> {
    let Like { source, kind, task, state, since, until, destination, route } = like;
    let span = List::Deliveries.span(connection, way, page, (*since, *until))?;
    let sql = match (task, span.is_forth()) {
        (None, false) => concat!("SELECT ", delivery_columns!(), " WHERE", alike!("DESC")),
        (None, true) => concat!("SELECT ", delivery_columns!(), " WHERE", alike!("ASC")),
        (Some(_), false) => concat!("SELECT ", delivery_columns!(), of_its_task!(), alike!("DESC")),
        (Some(_), true) => concat!("SELECT ", delivery_columns!(), of_its_task!(), alike!("ASC")),
    };
    let (since, until) = (since.map(text), until.map(text));
    let values = params![state, destination, route, source, kind, task, since, until, span.above, span.below, span.rows()];
    Ok(span.page(found(connection, sql, values)?))
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<(i64, DeliveryRow)> {
    let delivery = DeliveryRow {
        id: row.get(1)?,
        event: row.get(2)?,
        kind: row.get(3)?,
        source: row.get(4)?,
        task_id: row.get(5)?,
        destination: row.get(6)?,
        route: row.get(7)?,
        state: row.get(8)?,
        reason: row.get(9)?,
        out_of_order: row.get(10)?,
        created_at: row.get(11)?,
        ended_at: row.get(12)?,
        due_at: row.get(13)?,
        replay: row.get(14)?,
        replay_of: row.get(15)?,
        attempts: Vec::new(),
    };
    Ok((row.get(0)?, delivery))
}

/// The deliveries that a statement finds, which is one of the above.
fn found(connection: &Connection, sql: &'static str, values: impl Params) -> Result<Vec<(i64, DeliveryRow)>, Error> {
    let mut rows: Vec<(i64, DeliveryRow)> =
        connection.prepare_cached(sql)?.query_map(values, delivery)?.collect::<Result<_, _>>()?;
    let mut attempts = connection.prepare_cached(
        "SELECT attempt, started_at, ended_at, outcome, detail FROM attempts WHERE delivery = ?1 UNION ALL \
         SELECT attempt, started_at, NULL, 'started', NULL FROM jobs WHERE kind = 'deliver' AND subject = ?1 AND state = 'leased' \
         ORDER BY attempt",
    )?;
    for (seq, delivery) in &mut rows {
        delivery.attempts = attempts
            .query_map([*seq], |row| {
                Ok(AttemptRow {
                    attempt: row.get(0)?,
                    started_at: row.get(1)?,
                    ended_at: row.get(2)?,
                    outcome: row.get(3)?,
                    detail: row.get(4)?,
                })
            })?
            .collect::<Result<_, _>>()?;
    }
    Ok(rows)
}
