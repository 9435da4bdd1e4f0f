//! Deliveries and their order.
//!
//! What must hold: within a lane (one destination, one task) deliveries go in the order in which they were made, and only the
//! first that is pending has a due job; its end, whichever, makes the next one due. A delivery with an order wait does not wait
//! longer than that: then it goes, marked `out_of_order` before anything of it was sent.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::work::{order_deadline, outgoing};
use crate::store::Error;
use crate::store::model::{JobKind, NewDelivery, Outgoing, text};

/// Makes a delivery and its job.
pub(super) fn add(
    connection: &Connection,
    event: i64,
    lane: &str,
    delivery: &NewDelivery,
    at: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let blocked: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM deliveries WHERE destination = ?1 AND lane = ?2 AND state = 'pending')")?
        .query_row(params![delivery.destination, lane], |row| row.get(0))?;
    let id = delivery.id.to_string();
    let made = connection
        .prepare_cached(
            "INSERT INTO deliveries (id, event, destination, route, lane, state, out_of_order, body, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?7, ?8) ON CONFLICT (event, destination, replay) DO NOTHING",
        )?
        .execute(params![id, event, delivery.destination, delivery.route, lane, delivery.out_of_order, delivery.body, at])?;
    if made == 0 {
        return Ok(());
    }
    let (state, due_at) = match (blocked, delivery.order_wait) {
        (false, _) => ("due", Some(at.to_owned())),
        (true, wait) => ("waiting", wait.map(|wait| order_deadline(now, wait))),
    };
    connection
        .prepare_cached("INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![JobKind::Deliver.as_str(), delivery.destination, id, state, due_at, at])?;
    Ok(())
}

/// Records an attempt as started, and loads what it sends. One that waited long enough for its turn is marked.
pub(super) fn start_attempt(
    connection: &Connection,
    delivery: &str,
    attempt: u32,
    overdue_in_lane: bool,
    now: Timestamp,
) -> Result<Outgoing, Error> {
    if overdue_in_lane {
        connection
            .prepare_cached(
                "UPDATE deliveries SET out_of_order = 1, body = json_set(body, '$.out_of_order', json('true')) WHERE id = ?1",
            )?
            .execute([delivery])?;
    }
    let (seq, outgoing) = connection
        .prepare_cached(
            "SELECT id, body, EXISTS (SELECT 1 FROM attempts WHERE delivery = seq AND outcome = 'unknown'), seq \
             FROM deliveries WHERE id = ?1",
        )?
        .query_row([delivery], |row| Ok((row.get::<_, i64>(3)?, outgoing(row)?)))?;
    connection
        .prepare_cached("INSERT INTO attempts (delivery, attempt, started_at, outcome) VALUES (?1, ?2, ?3, 'started')")?
        .execute(params![seq, attempt, text(now)])?;
    Ok(outgoing)
}

/// Closes an attempt.
pub(super) fn end_attempt(
    connection: &Connection,
    delivery: &str,
    attempt: u32,
    outcome: &str,
    detail: Option<&str>,
    at: &str,
) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE attempts SET ended_at = ?3, outcome = ?4, detail = ?5 \
             WHERE delivery = (SELECT seq FROM deliveries WHERE id = ?1) AND attempt = ?2",
        )?
        .execute(params![delivery, attempt, at, outcome, detail])?;
    Ok(())
}

/// Removes an attempt of which nothing was sent.
pub(super) fn forget_attempt(connection: &Connection, delivery: &str, attempt: u32) -> Result<(), Error> {
    connection
        .prepare_cached("DELETE FROM attempts WHERE delivery = (SELECT seq FROM deliveries WHERE id = ?1) AND attempt = ?2")?
        .execute(params![delivery, attempt])?;
    Ok(())
}

/// Ends a delivery and gives its lane to the next one.
pub(super) fn end(connection: &Connection, delivery: &str, state: &str, reason: Option<&str>, at: &str) -> Result<(), Error> {
    let (destination, lane): (String, String) = connection
        .prepare_cached("UPDATE deliveries SET state = ?2, reason = ?3, ended_at = ?4 WHERE id = ?1 RETURNING destination, lane")?
        .query_row(params![delivery, state, reason, at], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let next: Option<String> = connection
        .prepare_cached(
            "SELECT id FROM deliveries WHERE destination = ?1 AND lane = ?2 AND state = 'pending' ORDER BY seq LIMIT 1",
        )?
        .query_row(params![destination, lane], |row| row.get(0))
        .optional()?;
    if let Some(next) = next {
        connection
            .prepare_cached(
                "UPDATE jobs SET state = 'due', due_at = ?4 WHERE kind = ?1 AND queue = ?2 AND subject = ?3 AND state = 'waiting'",
            )?
            .execute(params![JobKind::Deliver.as_str(), destination, next, at])?;
    }
    Ok(())
}
