//! Deliveries and their order.
//!
//! What must hold: within a lane (one destination, one task) deliveries go in the order in which they were made, and only the
//! first that is pending has a due job; its end, whichever, makes the next one due. A delivery with an order wait does not wait
//! longer than that: then it goes, marked `out_of_order` before anything of it was sent.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::id;
use crate::clock::after;
use crate::store::Error;
use crate::store::model::{JobKind, NewDelivery, Outgoing, text};

/// Makes a delivery, and its job if it is the first of its lane or waits for its turn only so long.
pub(super) fn add(
    connection: &Connection,
    event: i64,
    lane: i64,
    delivery: &NewDelivery,
    at: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let blocked: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM deliveries WHERE destination = ?1 AND lane = ?2 AND state = 'pending')")?
        .query_row(params![delivery.destination, lane], |row| row.get(0))?;
    let made = connection
        .prepare_cached(
            "INSERT INTO deliveries (id, event, destination, route, lane, state, out_of_order, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?7) ON CONFLICT (event, destination, replay) DO NOTHING RETURNING seq",
        )?
        .query_row(
            params![delivery.id.to_string(), event, delivery.destination, delivery.route, lane, delivery.out_of_order, at],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    let Some(seq) = made else { return Ok(()) };
    connection
        .prepare_cached("INSERT INTO delivery_bodies (delivery, body) VALUES (?1, ?2)")?
        .execute(params![seq, delivery.body])?;
    // What an event makes that was open in a backup may have been made, and sent, before the restore.
    connection
        .prepare_cached(
            "INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
             SELECT ?1, 0, ?3, ?3, 'unknown', detail FROM restored_events WHERE event = ?2",
        )?
        .execute(params![seq, event, at])?;
    let (state, due_at) = match (blocked, delivery.order_wait) {
        (false, _) => ("due", at.to_owned()),
        (true, Some(wait)) => ("waiting", text(after(now, wait))),
        // Its turn makes its job.
        (true, None) => return Ok(()),
    };
    connection
        .prepare_cached("INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![JobKind::Deliver.as_str(), delivery.destination, seq, state, due_at, at])?;
    Ok(())
}

/// What a delivery sends. One that waited long enough for its turn is marked.
pub(super) fn outgoing(connection: &Connection, delivery: i64, overdue_in_lane: bool) -> Result<Outgoing, Error> {
    if overdue_in_lane {
        connection.prepare_cached("UPDATE deliveries SET out_of_order = 1 WHERE seq = ?1")?.execute([delivery])?;
        connection
            .prepare_cached(
                "UPDATE delivery_bodies SET body = json_set(body, '$.out_of_order', json('true')) WHERE delivery = ?1",
            )?
            .execute([delivery])?;
    }
    Ok(connection
        .prepare_cached(
            "SELECT id, body, EXISTS (SELECT 1 FROM attempts WHERE delivery = seq AND outcome = 'unknown') \
             FROM deliveries JOIN delivery_bodies ON delivery_bodies.delivery = seq WHERE seq = ?1",
        )?
        .query_row([delivery], |row| Ok(Outgoing { id: id(row.get_ref(0)?)?, body: row.get(1)?, after_unknown: row.get(2)? }))?)
}

/// Records how the attempt that `job` leases ended.
pub(super) fn end_attempt(connection: &Connection, job: i64, outcome: &str, detail: Option<&str>, at: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
             SELECT subject, attempt, started_at, ?2, ?3, ?4 FROM jobs WHERE id = ?1",
        )?
        .execute(params![job, at, outcome, detail])?;
    Ok(())
}

/// Ends a delivery and gives its lane to the next one.
pub(super) fn end(connection: &Connection, delivery: i64, state: &str, reason: Option<&str>, at: &str) -> Result<(), Error> {
    let (destination, lane): (String, i64) = connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, reason = ?3, ended_at = ?4 WHERE seq = ?1 RETURNING destination, lane",
        )?
        .query_row(params![delivery, state, reason, at], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let next: Option<i64> = connection
        .prepare_cached(
            "SELECT seq FROM deliveries WHERE destination = ?1 AND lane = ?2 AND state = 'pending' ORDER BY seq LIMIT 1",
        )?
        .query_row(params![destination, lane], |row| row.get(0))
        .optional()?;
    if let Some(next) = next {
        connection
            .prepare_cached(
                "INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) VALUES (?1, ?2, ?3, 'due', ?4, ?4) \
                 ON CONFLICT (kind, subject) DO UPDATE SET state = 'due', due_at = excluded.due_at WHERE state = 'waiting'",
            )?
            .execute(params![JobKind::Deliver.as_str(), destination, next, at])?;
    }
    Ok(())
}
