//! Reading, for people: lists and single rows. No function here writes.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Value, json};

use super::again::narrowing;
use super::append::body;
use crate::store::Error;
use crate::store::model::Like;
use crate::store::view::{
    AttemptRow, Backlog, BacklogRow, DeliveryRow, EventDetail, EventFilter, EventRow, Listed, Page, TASK_EVENTS,
    event_row_columns, page, payload,
};

/// What a list of events is narrowed to, and its order.
macro_rules! narrowed {
    () => {
        " WHERE seq < ?1 AND (?2 IS NULL OR source = ?2) AND (?3 IS NULL OR type = ?3) AND (?4 IS NULL OR task_id = ?4) \
         AND (?5 IS NULL OR state = ?5) ORDER BY seq DESC LIMIT ?6"
    };
}

fn event_row(row: &Row<'_>) -> rusqlite::Result<(i64, EventRow)> {
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

pub(super) fn events(connection: &Connection, filter: &EventFilter, at: &Page) -> Result<Listed<EventRow>, Error> {
    // What is stuck is found by its state, and the events of a task from its newest on: neither may mean to look at every event.
    let stuck = matches!(filter.state.as_deref(), Some("quarantined" | "dead"));
    let sql = match filter {
        EventFilter { task_id: Some(_), .. } => concat!(
            "WITH of_task (event) AS (SELECT event FROM tasks JOIN task_events ON task_events.task = tasks.seq \
             WHERE tasks.task_id = ?4 AND (?2 IS NULL OR tasks.source = ?2) \
             UNION ALL SELECT seq FROM events WHERE seq > (SELECT taken FROM intake)) SELECT ",
            event_row_columns!(),
            " FROM of_task JOIN standing ON seq = of_task.event",
            narrowed!()
        ),
        _ if stuck => concat!(
            "WITH stuck (event) AS (SELECT event FROM open_events WHERE state IN ('quarantined', 'dead') AND state = ?5) SELECT ",
            event_row_columns!(),
            " FROM stuck JOIN standing ON seq = stuck.event",
            narrowed!()
        ),
        _ => concat!("SELECT ", event_row_columns!(), " FROM standing", narrowed!()),
    };
    let rows = connection
        .prepare_cached(sql)?
        .query_map(
            params![at.cursor.unwrap_or(i64::MAX), filter.source, filter.kind, filter.task_id, filter.state, at.limit + 1],
            event_row,
        )?
        .collect::<Result<_, _>>()?;
    Ok(page(rows, at.limit))
}

pub(super) fn event(connection: &Connection, id: &str) -> Result<Option<EventDetail>, Error> {
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
    Ok(Some(EventDetail {
        payload,
        body_base64,
        work,
        deliveries: deliveries_where(connection, "deliveries.event = ?1", seq, i64::MAX, TASK_EVENTS)?
            .into_iter()
            .map(|(_, row)| row)
            .collect(),
        ..detail
    }))
}

/// The ids that begin with `start`, at most `limit`.
pub(super) fn event_ids(connection: &Connection, start: &str, limit: usize) -> Result<Vec<String>, Error> {
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

pub(super) fn deliveries(connection: &Connection, like: &Like, at: &Page) -> Result<Listed<DeliveryRow>, Error> {
    let rows = deliveries_where(
        connection,
        "(?1 ->> 'state' IS NULL OR deliveries.state = ?1 ->> 'state') \
         AND (?1 ->> 'destination' IS NULL OR destination = ?1 ->> 'destination') \
         AND (?1 ->> 'route' IS NULL OR route = ?1 ->> 'route') AND (?1 ->> 'source' IS NULL OR source = ?1 ->> 'source') \
         AND (?1 ->> 'type' IS NULL OR type = ?1 ->> 'type') AND (?1 ->> 'task' IS NULL OR task_id = ?1 ->> 'task') \
         AND (?1 ->> 'since' IS NULL OR received_at >= ?1 ->> 'since') \
         AND (?1 ->> 'until' IS NULL OR received_at < ?1 ->> 'until')",
        narrowing(like)?,
        at.cursor.unwrap_or(i64::MAX),
        at.limit + 1,
    )?;
    Ok(page(rows, at.limit))
}

pub(super) fn delivery(connection: &Connection, id: &str) -> Result<Option<DeliveryRow>, Error> {
    let found = deliveries_where(connection, "deliveries.id = ?1", id, i64::MAX, 1)?;
    Ok(found.into_iter().next().map(|(_, row)| row))
}

/// The newest deliveries of events of a task.
pub(super) fn deliveries_of_task(connection: &Connection, task: i64) -> Result<Vec<DeliveryRow>, Error> {
    let rows = deliveries_where(
        connection,
        "deliveries.event IN (SELECT event FROM task_events WHERE task = ?1)",
        task,
        i64::MAX,
        TASK_EVENTS,
    )?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Deliveries under a condition on `?1`, which is constant text of this file.
fn deliveries_where(
    connection: &Connection,
    condition: &'static str,
    value: impl rusqlite::ToSql,
    before: i64,
    limit: usize,
) -> Result<Vec<(i64, DeliveryRow)>, Error> {
    let mut rows: Vec<(i64, DeliveryRow)> = connection
        .prepare_cached(&format!(
            "SELECT deliveries.seq, deliveries.id, events.id, events.type, events.source, events.task_id, destination, route, \
             deliveries.state, deliveries.reason, out_of_order, deliveries.created_at, ended_at, jobs.due_at, replay, \
             (SELECT earlier.id FROM deliveries AS earlier WHERE earlier.event = deliveries.event \
             AND earlier.destination = deliveries.destination AND earlier.replay < deliveries.replay \
             ORDER BY earlier.replay DESC LIMIT 1) \
             FROM deliveries JOIN events ON events.seq = deliveries.event \
             LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq \
             WHERE {condition} AND deliveries.seq < ?2 ORDER BY deliveries.seq DESC LIMIT ?3"
        ))?
        .query_map(params![value, before, limit], |row| {
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
        })?
        .collect::<Result<_, _>>()?;
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

pub(super) fn verification_keys(connection: &Connection, source: &str) -> Result<Vec<(String, Timestamp)>, Error> {
    let rows: Vec<(String, String)> = connection
        .prepare_cached("SELECT pem, loaded_at FROM verification_keys WHERE source = ?1")?
        .query_map([source], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter_map(|(pem, at)| Some((pem, at.parse().ok()?))).collect())
}

pub(super) fn backlog(connection: &Connection) -> Result<Backlog, Error> {
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
        + count("SELECT count(DISTINCT event) FROM deliveries WHERE state = 'pending'")?;
    let quarantined = count("SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'quarantined'")?;
    let dead = count("SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'dead'")?
        + count("SELECT count(*) FROM deliveries WHERE state = 'dead'")?;
    Ok(Backlog { jobs, events, quarantined, dead })
}
