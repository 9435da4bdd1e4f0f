//! Deliveries and their order.
//!
//! What must hold: within a lane (one destination, one task) deliveries go in the order in which they were made, and only the
//! first that is pending has a due job; its end, whichever, makes the next one due. A delivery with an order wait does not wait
//! longer than that: then it goes, marked `out_of_order` before anything of it was sent.
//!
//! A dead letter has left its lane. Tried again by hand, it joins it at its old place: before all that were made later, but not
//! while one of them is being sent, whose attempt it waits for. Who had the turn then gives it up, and waits for no longer
//! than its order wait anew. It is not marked when it goes after that, if something of it was sent before: what is sent
//! of a delivery is the same each time.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::id;
use crate::clock::{after, millis};
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
    let (blocked, restored): (bool, bool) = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries WHERE destination = ?1 AND lane = ?2 AND state = 'pending'), \
             EXISTS (SELECT 1 FROM restored_events WHERE event = ?3)",
        )?
        .query_row(params![delivery.destination, lane, event], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let made = connection
        .prepare_cached(
            "INSERT INTO deliveries (id, event, destination, route, lane, state, out_of_order, created_at, order_wait_ms, replay) \
             VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?7, ?8, coalesce((SELECT replay FROM replays WHERE event = ?2), 0)) \
             ON CONFLICT (event, destination, replay) DO NOTHING RETURNING seq",
        )?
        .query_row(
            params![
                delivery.id.to_string(),
                event,
                delivery.destination,
                delivery.route,
                lane,
                delivery.out_of_order,
                at,
                delivery.order_wait.map(millis),
            ],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    let Some(seq) = made else { return Ok(()) };
    connection
        .prepare_cached("INSERT INTO delivery_bodies (delivery, body) VALUES (?1, ?2)")?
        .execute(params![seq, delivery.body])?;
    // What an event makes that was open in a backup may have been made, and sent, before the restore.
    if restored {
        connection
            .prepare_cached(
                "INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
                 SELECT ?1, 0, ?3, ?3, 'unknown', detail FROM restored_events WHERE event = ?2",
            )?
            .execute(params![seq, event, at])?;
    }
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

/// What a delivery sends. One that waited long enough for its turn is marked, unless something of it was sent before.
pub(super) fn outgoing(connection: &Connection, delivery: i64, overdue_in_lane: bool) -> Result<Outgoing, Error> {
    let unsent =
        "UPDATE deliveries SET out_of_order = 1 WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM attempts WHERE delivery = ?1)";
    if overdue_in_lane && connection.prepare_cached(unsent)?.execute([delivery])? > 0 {
        connection
            .prepare_cached(
                "UPDATE delivery_bodies SET body = json_set(body, '$.out_of_order', json('true')) WHERE delivery = ?1",
            )?
            .execute([delivery])?;
    }
    Ok(connection
        .prepare_cached(
            "SELECT deliveries.id, body, jobs.attempt - first_attempt + 1, EXISTS (SELECT 1 FROM attempts \
             WHERE delivery = seq AND outcome = 'unknown' AND attempts.attempt >= iif(first_attempt = 1, 0, first_attempt)), \
             coalesce((SELECT events.id FROM events WHERE events.seq = deliveries.event), deliveries.id), replay \
             FROM deliveries JOIN delivery_bodies ON delivery_bodies.delivery = seq \
             JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = seq WHERE seq = ?1",
        )?
        .query_row([delivery], |row| {
            Ok(Outgoing {
                id: id(row.get_ref(0)?)?,
                event: id(row.get_ref(4)?)?,
                replay: row.get(5)?,
                body: row.get(1)?,
                tries: row.get(2)?,
                after_unknown: row.get(3)?,
            })
        })?)
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
    give_turn(connection, &destination, lane, at)
}

/// The first of a lane that is pending, but for `except`.
pub(super) fn first(connection: &Connection, destination: &str, lane: i64, except: Option<i64>) -> Result<Option<i64>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT seq FROM deliveries WHERE destination = ?1 AND lane = ?2 AND state = 'pending' AND seq IS NOT ?3 \
             ORDER BY seq LIMIT 1",
        )?
        .query_row(params![destination, lane, except], |row| row.get(0))
        .optional()?)
}

/// Makes the first of a lane due, unless it is already or waits for an attempt that is on its way.
fn give_turn(connection: &Connection, destination: &str, lane: i64, at: &str) -> Result<(), Error> {
    let Some(next) = first(connection, destination, lane, None)? else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) VALUES (?1, ?2, ?3, 'due', ?4, ?4) \
             ON CONFLICT (kind, subject) DO UPDATE SET state = 'due', due_at = excluded.due_at, behind = NULL \
             WHERE state = 'waiting' AND NOT EXISTS (SELECT 1 FROM jobs AS other JOIN deliveries ON deliveries.seq = other.subject \
             WHERE other.kind = 'deliver' AND other.subject = jobs.behind AND other.state = 'leased' \
             AND deliveries.state = 'pending')",
        )?
        .execute(params![JobKind::Deliver.as_str(), destination, next, at])?;
    Ok(())
}

/// Lets those go first that joined the lane before `delivery` while an attempt of it was on its way; that has ended, and the
/// delivery has not.
pub(super) fn step_back(connection: &Connection, delivery: i64, now: Timestamp) -> Result<(), Error> {
    let (destination, lane): (String, i64) = connection
        .prepare_cached("SELECT destination, lane FROM deliveries WHERE seq = ?1")?
        .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if first(connection, &destination, lane, None)?.is_none_or(|first| first >= delivery) {
        return Ok(());
    }
    give_up_turn(connection, delivery, now)?;
    give_turn(connection, &destination, lane, &text(now))
}

/// Lets a delivery whose job is due wait in its lane again, unless it goes out of order anyway.
fn give_up_turn(connection: &Connection, delivery: i64, now: Timestamp) -> Result<(), Error> {
    let order_wait: Option<Option<u64>> = connection
        .prepare_cached("SELECT order_wait_ms FROM deliveries WHERE seq = ?1 AND out_of_order = 0")?
        .query_row([delivery], |row| row.get(0))
        .optional()?;
    let Some(order_wait) = order_wait else { return Ok(()) };
    connection
        .prepare_cached(
            "UPDATE jobs SET state = 'waiting', due_at = max(due_at, ?2) WHERE kind = 'deliver' AND subject = ?1 AND state = 'due'",
        )?
        .execute(params![delivery, order_wait.map(|wait| text(after(now, Duration::from_millis(wait))))])?;
    Ok(())
}

/// Lets a dead letter join its lane again, and says after which delivery it goes, if it does not go now. Its attempts are counted
/// on, and its ladder begins anew; an attempt 0, which a restore made, counts as the first.
pub(super) fn join(connection: &Connection, delivery: i64, now: Timestamp) -> Result<Option<i64>, Error> {
    let (destination, lane, order_wait): (String, i64, Option<u64>) = connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'pending', reason = NULL, ended_at = NULL WHERE seq = ?1 \
             RETURNING destination, lane, order_wait_ms",
        )?
        .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let first = first(connection, &destination, lane, Some(delivery))?;
    let mut due_at = Some(text(now));
    let behind = match first {
        Some(first) if first < delivery => {
            due_at = order_wait.map(|wait| text(after(now, Duration::from_millis(wait))));
            Some(first)
        }
        Some(first) => {
            let sent = on_its_way(connection, first)?;
            match sent {
                Some(_) => due_at = None,
                None => give_up_turn(connection, first, now)?,
            }
            sent
        }
        None => None,
    };
    let state = if behind.is_some() { "waiting" } else { "due" };
    connection
        .prepare_cached(
            "INSERT INTO jobs (kind, queue, subject, state, due_at, behind, attempt, first_attempt, created_at) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, last, last + 1, ?7 \
             FROM (SELECT coalesce(max(max(attempt), 1), 0) AS last FROM attempts WHERE delivery = ?3)",
        )?
        .execute(params![JobKind::Deliver.as_str(), destination, delivery, state, due_at, behind, text(now)])?;
    Ok(behind)
}

/// The delivery that is being sent where `first` is the first of its lane: itself, or the one that it waits for.
fn on_its_way(connection: &Connection, first: i64) -> Result<Option<i64>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT subject FROM jobs WHERE kind = 'deliver' AND state = 'leased' \
             AND subject IN (?1, (SELECT behind FROM jobs WHERE kind = 'deliver' AND subject = ?1))",
        )?
        .query_row([first], |row| row.get(0))
        .optional()?)
}
