//! Reading, for people: lists and single rows. No function here writes.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Value, json};

use super::append::body;
use super::place::{List, Way};
use super::{Sqlite, delivery, search};
use crate::store::Error;
use crate::store::model::text;
use crate::store::view::{
    Backlog, BacklogRow, EventDetail, EventFilter, EventRow, Listed, Page, Span, event_row_columns, payload,
};

impl Sqlite {
    pub(in crate::store) async fn events(&self, filter: EventFilter, page: Page) -> Result<Listed<EventRow>, Error> {
        self.read(move |connection| listed(connection, &filter, &page, Way::Back)).await
    }

    pub(in crate::store) async fn events_after(&self, filter: EventFilter, page: Page) -> Result<Listed<EventRow>, Error> {
        self.read(move |connection| listed(connection, &filter, &page, Way::Forth)).await
    }

    pub(in crate::store) async fn event(&self, id: &str) -> Result<Option<EventDetail>, Error> {
        let id = id.to_owned();
        self.read(move |connection| event(connection, &id)).await
    }

    pub(in crate::store) async fn event_ids(&self, start: &str, limit: usize) -> Result<Vec<String>, Error> {
        let start = start.to_owned();
        self.read(move |connection| event_ids(connection, &start, limit)).await
    }

    pub(in crate::store) async fn backlog(&self) -> Result<Backlog, Error> {
        // Metrics are asked for with it: the free space is told as it is, whether or not anything is written.
        let _ = self.ensure_space();
        self.read(backlog).await
    }
}

/// Of events that are joined with `standing`, those that a list is narrowed to.
macro_rules! events_alike {
    () => {
        " (?2 IS NULL OR source = ?2) AND (?3 IS NULL OR type = ?3) AND (?4 IS NULL OR task_id = ?4) AND (?5 IS NULL OR state = ?5) \
         AND (?6 IS NULL OR received_at >= ?6) AND (?7 IS NULL OR received_at < ?7)"
    };
}
pub(super) use events_alike;

/// The same in a part of the list, and in its order.
macro_rules! narrowed {
    ($order:literal) => {
        concat!(" WHERE seq > ?8 AND seq < ?1 AND", events_alike!(), " ORDER BY seq ", $order, " LIMIT ?9")
    };
}

/// Events of a task, or of tasks with this id: from their newest on, and with those that are not taken in. Each half says by itself which part
/// of the list it is of: of two bounds on one column, only one is looked for by the index.
macro_rules! of_task {
    ($order:literal) => {
        concat!(
            "WITH of_task (event) AS (SELECT event FROM tasks JOIN task_events ON task_events.task = tasks.seq \
             WHERE tasks.task_id = ?4 AND (?2 IS NULL OR tasks.source = ?2) AND event > ?8 AND event < ?1 \
             UNION ALL SELECT seq FROM events WHERE seq > max(?8, (SELECT taken FROM intake)) AND seq < ?1) SELECT ",
            event_row_columns!(),
            " FROM of_task CROSS JOIN standing ON seq = of_task.event WHERE",
            events_alike!(),
            " ORDER BY of_task.event ",
            $order,
            " LIMIT ?9"
        )
    };
}

/// What is stuck is found by its state.
macro_rules! stuck {
    ($order:literal) => {
        concat!(
            "WITH stuck (event) AS (SELECT event FROM open_events WHERE state IN ('quarantined', 'dead') AND state = ?5) SELECT ",
            event_row_columns!(),
            " FROM stuck CROSS JOIN standing ON seq = stuck.event",
            narrowed!($order)
        )
    };
}

pub(super) fn event_row(row: &Row<'_>) -> rusqlite::Result<(i64, EventRow)> {
    Ok((
        row.get(0)?,
        EventRow {
            id: row.get(1)?,
            source: row.get(2)?,
            provider: row.get(3)?,
            kind: row.get(4)?,
            provider_type: row.get(5)?,
            event_id: row.get(6)?,
            task_id: row.get(7)?,
            received_at: row.get(8)?,
            verification: row.get(9)?,
            state: row.get(10)?,
            reason: row.get(11)?,
            ping: row.get(12)?,
            collision_of: row.get(13)?,
            repeats: row.get(14)?,
        },
    ))
}

fn listed(connection: &Connection, filter: &EventFilter, page: &Page, way: Way) -> Result<Listed<EventRow>, Error> {
    let span = List::Events.span(connection, way, page, (filter.since, filter.until))?;
    match &filter.text {
        Some(text) => search::events(connection, filter, &span, text),
        None => events(connection, filter, &span),
    }
}

pub(super) fn events(connection: &Connection, filter: &EventFilter, span: &Span) -> Result<Listed<EventRow>, Error> {
    // What is stuck is found by its state, and the events of a task from its newest on: neither may mean to look at every event.
    let is_stuck = matches!(filter.state.as_deref(), Some("quarantined" | "dead"));
    let sql = match (filter, span.is_forth()) {
        (EventFilter { task_id: Some(_), .. }, false) => of_task!("DESC"),
        (EventFilter { task_id: Some(_), .. }, true) => of_task!("ASC"),
        (_, false) if is_stuck => stuck!("DESC"),
        (_, true) if is_stuck => stuck!("ASC"),
        (_, false) => concat!("SELECT ", event_row_columns!(), " FROM standing", narrowed!("DESC")),
        (_, true) => concat!("SELECT ", event_row_columns!(), " FROM standing", narrowed!("ASC")),
    };
    let EventFilter { source, kind, task_id, state, since, until, .. } = filter;
    let (since, until) = (since.map(text), until.map(text));
    let rows = connection
        .prepare_cached(sql)?
        .query_map(params![span.below, source, kind, task_id, state, since, until, span.above, span.rows()], event_row)?
        .collect::<Result<_, _>>()?;
    Ok(span.page(rows))
}

fn event(connection: &Connection, id: &str) -> Result<Option<EventDetail>, Error> {
    let found = connection
        .prepare_cached(concat!(
            "SELECT ",
            event_row_columns!(),
            ", released_at, last_repeat_at, target, headers, body, coalesce(reasons, '[]'), subject, coalesce(replay, 0), asked_at \
             FROM standing LEFT JOIN replays ON replays.event = seq WHERE id = ?1"
        ))?
        .query_row([id], |row| {
            let (seq, event) = event_row(row)?;
            let (headers, reasons): (String, String) = (row.get(18)?, row.get(20)?);
            let subject = row.get(21)?;
            let detail = EventDetail {
                row: event,
                released_at: row.get(15)?,
                replays: row.get(22)?,
                replayed_at: row.get(23)?,
                last_repeat_at: row.get(16)?,
                target: row.get(17)?,
                headers: serde_json::from_str(&headers).unwrap_or_default(),
                reasons: serde_json::from_str(&reasons).unwrap_or_default(),
                payload: Value::Null,
                body_base64: None,
                work: None,
                deliveries: Vec::new(),
            };
            Ok((seq, detail, body(row.get(19)?), subject))
        })
        .optional()?;
    let Some((seq, detail, body, subject)) = found else { return Ok(None) };
    let (payload, body_base64) = payload(&body);
    let work = work(connection, &detail.row.state, subject)?;
    Ok(Some(EventDetail { payload, body_base64, work, deliveries: delivery::of_event(connection, seq)?, ..detail }))
}

/// The ids that begin with `start`, at most `limit`.
fn event_ids(connection: &Connection, start: &str, limit: usize) -> Result<Vec<String>, Error> {
    Ok(connection
        .prepare_cached("SELECT id FROM events WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT ?2")?
        .query_map(params![start, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// What is still to be done for an event before it is dispatched.
fn work(connection: &Connection, state: &str, subject: Option<i64>) -> Result<Option<Value>, Error> {
    let kind = match state {
        "proving" => "prove",
        "fetching" => "fetch",
        "archiving" => "archive",
        _ => return Ok(None),
    };
    Ok(connection
        .prepare_cached("SELECT attempt, due_at, reasons FROM jobs WHERE kind = ?1 AND subject = ?2")?
        .query_row(params![kind, subject], |row| {
            let reasons: String = row.get(2)?;
            let reasons: Value = serde_json::from_str(&reasons).unwrap_or_default();
            Ok(json!({"kind": kind, "attempt": row.get::<_, u32>(0)?, "due_at": row.get::<_, Option<String>>(1)?, "reasons": reasons}))
        })
        .optional()?)
}

pub(super) fn verification_keys(connection: &Connection, source: &str) -> Result<Vec<(String, Timestamp)>, Error> {
    let rows: Vec<(String, String)> = connection
        .prepare_cached("SELECT pem, loaded_at FROM verification_keys WHERE source = ?1")?
        .query_map([source], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter_map(|(pem, at)| Some((pem, at.parse().ok()?))).collect())
}

fn backlog(connection: &Connection) -> Result<Backlog, Error> {
    let jobs = connection
        // What is not taken in yet will be proven.
        .prepare_cached(
            "SELECT kind, queue, count(*), min(created_at) FROM (SELECT kind, queue, created_at FROM jobs UNION ALL \
             SELECT 'prove', source, min(received_at) FROM events WHERE seq > (SELECT taken FROM intake) AND NOT kept \
             AND (task_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM open_events WHERE subject = -seq AND event = seq)) \
             GROUP BY source, coalesce(task_id, seq)) GROUP BY kind, queue",
        )?
        .query_map([], |row| Ok(BacklogRow { kind: row.get(0)?, queue: row.get(1)?, count: row.get(2)?, oldest: row.get(3)? }))?
        .collect::<Result<_, _>>()?;
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let events = count("SELECT count(*) FROM open_events WHERE state NOT IN ('quarantined', 'dead')")?
        + count("SELECT count(*) FROM events WHERE seq > (SELECT taken FROM intake) AND NOT kept")?
        + count("SELECT count(DISTINCT event) FROM deliveries INDEXED BY deliveries_pending WHERE state = 'pending'")?;
    let quarantined = count("SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'quarantined'")?;
    let dead = count("SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'dead'")?
        + count("SELECT count(*) FROM deliveries INDEXED BY deliveries_dead WHERE state = 'dead'")?;
    Ok(Backlog { jobs, events, quarantined, dead })
}
