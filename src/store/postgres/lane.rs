//! Deliveries and their order.
//!
//! What must hold: within a lane (one destination, one task) deliveries go in the order in which they were made, and only the
//! first that is pending has a due job; its end, whichever, makes the next one due. A delivery with an order wait does not wait
//! longer than that: then it goes, marked `out_of_order` before anything of it was sent.
//!
//! A dead letter has left its lane. Tried again by hand, it joins it at its old place: before all that were made later, but not
//! while one of them is being sent, whose attempt it waits for. Who had the turn then gives it up, and waits for no longer
//! than its order wait anew. It is not marked when it goes after that, if something of it was sent before.
//!
//! All of it is done under the lock of the lane; only a claim takes a job without it, so a job's row is locked before its state decides.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::claim::attempt;
use super::session::{Tx, args, column, number, tidy};
use crate::clock::{after, millis};
use crate::store::Error;
use crate::store::model::{NewDelivery, Outgoing, mark_out_of_order};

/// Makes deliveries, each of an event in a lane, and the job of each that is the first of its lane or waits for its turn only so long.
pub(super) async fn add(tx: &Tx, deliveries: &[(i64, i64, &NewDelivery)], now: Timestamp) -> Result<(), Error> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let (events, lanes): (Vec<i64>, Vec<i64>) = deliveries.iter().map(|(event, lane, _)| (*event, *lane)).unzip();
    // Their attempt 0: what an event makes that was open in a backup may have been made, and sent, before the restore.
    tx.run(
        "WITH offered AS MATERIALIZED (SELECT nextval('deliveries_seq_seq') AS seq, offer.* FROM unnest($1::uuid[], $2::bigint[], \
         $3::text[], $4::text[], $5::bigint[], $6::boolean[], $7::bigint[], $8::text[], $9::timestamptz[]) \
         AS offer (id, event, destination, route, lane, out_of_order, order_wait_ms, body, waits_until)), \
         made AS (INSERT INTO deliveries (seq, id, event, destination, route, lane, state, out_of_order, created_at, order_wait_ms, replay) \
         SELECT seq, id, event, destination, route, lane, 'pending', out_of_order, $10, order_wait_ms, \
         coalesce((SELECT replay FROM replays WHERE replays.event = offered.event), 0) FROM offered ORDER BY seq \
         ON CONFLICT (event, destination, replay) DO NOTHING RETURNING seq), \
         new AS MATERIALIZED (SELECT offered.*, row_number() OVER (PARTITION BY destination, lane ORDER BY seq) > 1 \
         OR EXISTS (SELECT 1 FROM deliveries AS earlier WHERE earlier.destination = offered.destination \
         AND earlier.lane = offered.lane AND earlier.state = 'pending') AS blocked FROM offered JOIN made USING (seq)), \
         content AS (INSERT INTO delivery_bodies (delivery, body) SELECT seq, body FROM new), \
         restored AS (INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
         SELECT seq, 0, $10, $10, 'unknown', detail FROM new JOIN restored_events ON restored_events.event = new.event) \
         INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) \
         SELECT 'deliver', destination, seq, CASE WHEN blocked THEN 'waiting' ELSE 'due' END, \
         CASE WHEN blocked THEN waits_until ELSE $10 END, $10 FROM new WHERE NOT blocked OR waits_until IS NOT NULL ORDER BY seq",
        args![
            column(deliveries, |(.., delivery)| delivery.id),
            events,
            column(deliveries, |(.., delivery)| delivery.destination.as_str()),
            column(deliveries, |(.., delivery)| delivery.route.as_str()),
            lanes,
            column(deliveries, |(.., delivery)| delivery.out_of_order),
            column(deliveries, |(.., delivery)| delivery.order_wait.map(|wait| number(millis(wait)))),
            column(deliveries, |(.., delivery)| delivery.body.as_str()),
            column(deliveries, |(.., delivery)| delivery.order_wait.map(|wait| after(now, wait))),
            now,
        ],
    )
    .await
    .map(drop)
}

/// What deliveries send, by their rows. Those that waited long enough for their turn are marked, unless something was sent before.
pub(super) async fn outgoing(tx: &Tx, deliveries: Vec<i64>, overdue: Vec<i64>) -> Result<HashMap<i64, Outgoing>, Error> {
    if deliveries.is_empty() {
        return Ok(HashMap::new());
    }
    if !overdue.is_empty() {
        let unsent = tx
            .rows(
                "UPDATE deliveries SET out_of_order = true WHERE seq = ANY($1) \
                 AND NOT EXISTS (SELECT 1 FROM attempts WHERE delivery = seq) \
                 RETURNING seq, (SELECT body FROM delivery_bodies WHERE delivery = seq)",
                args![overdue],
            )
            .await?;
        for row in unsent {
            let (delivery, body): (i64, Option<&str>) = (row.get(0), row.get(1));
            let marked = mark_out_of_order(body.unwrap_or_default());
            tx.run("UPDATE delivery_bodies SET body = $2 WHERE delivery = $1", args![delivery, marked]).await?;
        }
    }
    let rows = tx
        .rows(
            "SELECT seq, deliveries.id, body, jobs.attempt - first_attempt + 1, EXISTS (SELECT 1 FROM attempts WHERE delivery = seq \
             AND outcome = 'unknown' AND attempts.attempt >= CASE WHEN first_attempt = 1 THEN 0 ELSE first_attempt END), \
             coalesce((SELECT events.id FROM events WHERE events.seq = deliveries.event), deliveries.id), replay \
             FROM deliveries JOIN delivery_bodies ON delivery_bodies.delivery = seq \
             JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = seq WHERE seq = ANY($1)",
            args![deliveries],
        )
        .await?;
    let outgoing = |row: &tokio_postgres::Row| {
        let outgoing = Outgoing {
            id: row.get(1),
            event: row.get(5),
            replay: attempt(row.get(6)),
            body: row.get(2),
            tries: attempt(row.get(3)),
            after_unknown: row.get(4),
        };
        (row.get(0), outgoing)
    };
    Ok(rows.iter().map(outgoing).collect())
}

/// How the attempt that `job` leases ended.
pub(super) struct Attempt<'a> {
    pub(super) job: i64,
    pub(super) outcome: &'static str,
    pub(super) detail: Option<&'a str>,
}

/// Records how attempts ended.
pub(super) async fn end_attempts(tx: &Tx, attempts: &[Attempt<'_>], at: Timestamp) -> Result<(), Error> {
    let (jobs, outcomes): (Vec<i64>, Vec<&str>) = attempts.iter().map(|attempt| (attempt.job, attempt.outcome)).unzip();
    let details: Vec<Option<String>> = attempts.iter().map(|attempt| tidy(attempt.detail)).collect();
    tx.run(
        "INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
         SELECT subject, attempt, started_at, $4, outcome, detail FROM unnest($1::bigint[], $2::text[], $3::text[]) \
         AS ended (job, outcome, detail) JOIN jobs ON jobs.id = ended.job",
        args![jobs, outcomes, details, at],
    )
    .await
    .map(drop)
}

/// Ends deliveries and gives their lanes to the next ones.
pub(super) async fn end(tx: &Tx, deliveries: Vec<i64>, state: &str, reason: Option<&str>, at: Timestamp) -> Result<(), Error> {
    let rows = tx
        .rows(
            "UPDATE deliveries SET state = $2, reason = $3, ended_at = $4 WHERE seq = ANY($1) RETURNING destination, lane",
            args![deliveries, state, reason, at],
        )
        .await?;
    give_turns(tx, rows.iter().map(|row| (row.get(0), row.get(1))).collect(), at).await
}

/// The first of a lane that is pending, but for `except`.
pub(super) async fn first(tx: &Tx, destination: &str, lane: i64, except: Option<i64>) -> Result<Option<i64>, Error> {
    let first = tx
        .maybe(
            "SELECT seq FROM deliveries WHERE destination = $1 AND lane = $2 AND state = 'pending' AND seq IS DISTINCT FROM $3 \
             ORDER BY seq LIMIT 1",
            args![destination, lane, except],
        )
        .await?;
    Ok(first.map(|row| row.get(0)))
}

/// Makes the first of each lane due, unless it is already or waits for an attempt that is on its way.
async fn give_turns(tx: &Tx, lanes: BTreeSet<(&str, i64)>, at: Timestamp) -> Result<(), Error> {
    let (destinations, lanes): (Vec<&str>, Vec<i64>) = lanes.into_iter().unzip();
    tx.run(
        "INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) SELECT 'deliver', ended.destination, first.seq, 'due', $3, $3 \
         FROM unnest($1::text[], $2::bigint[]) AS ended (destination, lane) CROSS JOIN LATERAL (SELECT seq FROM deliveries \
         WHERE deliveries.destination = ended.destination AND deliveries.lane = ended.lane AND state = 'pending' ORDER BY seq LIMIT 1) AS first \
         ON CONFLICT (kind, subject) DO UPDATE SET state = 'due', due_at = excluded.due_at, behind = NULL \
         WHERE jobs.state = 'waiting' AND NOT EXISTS (SELECT 1 FROM jobs AS other JOIN deliveries ON deliveries.seq = other.subject \
         WHERE other.kind = 'deliver' AND other.subject = jobs.behind AND other.state = 'leased' AND deliveries.state = 'pending')",
        args![destinations, lanes, at],
    )
    .await
    .map(drop)
}

/// Lets those go first that joined the lane before `delivery` while an attempt of it was on its way; that has ended, and the
/// delivery has not.
pub(super) async fn step_back(tx: &Tx, delivery: i64, now: Timestamp) -> Result<(), Error> {
    let row = tx.row("SELECT destination, lane FROM deliveries WHERE seq = $1", args![delivery]).await?;
    let (destination, lane): (&str, i64) = (row.get(0), row.get(1));
    if first(tx, destination, lane, None).await?.is_none_or(|first| first >= delivery) {
        return Ok(());
    }
    give_up_turn(tx, delivery, now).await?;
    give_turns(tx, BTreeSet::from([(destination, lane)]), now).await
}

/// Lets a delivery whose job is due wait in its lane again, unless it goes out of order anyway.
async fn give_up_turn(tx: &Tx, delivery: i64, now: Timestamp) -> Result<(), Error> {
    let sql = "SELECT order_wait_ms FROM deliveries WHERE seq = $1 AND NOT out_of_order";
    let Some(row) = tx.maybe(sql, args![delivery]).await? else { return Ok(()) };
    let until = wait_until(row.get(0), now);
    tx.run(
        "UPDATE jobs SET state = 'waiting', due_at = CASE WHEN $2::timestamptz IS NULL THEN NULL ELSE greatest(due_at, $2) END \
         WHERE kind = 'deliver' AND subject = $1 AND state = 'due'",
        args![delivery, until],
    )
    .await?;
    Ok(())
}

/// Until when one waits for its turn that waits so many milliseconds; for ever where that is not said.
fn wait_until(order_wait_ms: Option<i64>, now: Timestamp) -> Option<Timestamp> {
    order_wait_ms.map(|wait| after(now, Duration::from_millis(u64::try_from(wait).unwrap_or_default())))
}

/// Lets a dead letter join its lane again, and says after which delivery it goes, if it does not go now. Its attempts are counted
/// on, and its ladder begins anew; an attempt 0, which a restore made, counts as the first.
pub(super) async fn join(tx: &Tx, delivery: i64, now: Timestamp) -> Result<Option<i64>, Error> {
    let row = tx
        .row(
            "UPDATE deliveries SET state = 'pending', reason = NULL, ended_at = NULL WHERE seq = $1 \
             RETURNING destination, lane, order_wait_ms",
            args![delivery],
        )
        .await?;
    let destination: &str = row.get(0);
    let first = first(tx, destination, row.get(1), Some(delivery)).await?;
    let mut due_at = Some(now);
    let behind = match first {
        Some(first) if first < delivery => {
            due_at = wait_until(row.get(2), now);
            Some(first)
        }
        Some(first) => {
            let sent = on_its_way(tx, first).await?;
            match sent {
                Some(_) => due_at = None,
                None => give_up_turn(tx, first, now).await?,
            }
            sent
        }
        None => None,
    };
    let state = if behind.is_some() { "waiting" } else { "due" };
    tx.run(
        "INSERT INTO jobs (kind, queue, subject, state, due_at, behind, attempt, first_attempt, created_at) \
         SELECT 'deliver', $1, $2, $3, $4, $5, last, last + 1, $6 FROM \
         (SELECT coalesce(greatest(max(attempt), CASE WHEN count(*) > 0 THEN 1 END), 0) AS last FROM attempts WHERE delivery = $2) AS made",
        args![destination, delivery, state, due_at, behind, now],
    )
    .await?;
    Ok(behind)
}

/// The delivery that is being sent where `first` is the first of its lane: itself, or the one that it waits for. Their jobs stay as
/// they are until this transaction ends.
async fn on_its_way(tx: &Tx, first: i64) -> Result<Option<i64>, Error> {
    let rows = tx
        .rows(
            "SELECT subject, state FROM jobs WHERE kind = 'deliver' \
             AND subject IN ($1, (SELECT behind FROM jobs WHERE kind = 'deliver' AND subject = $1)) ORDER BY id FOR UPDATE",
            args![first],
        )
        .await?;
    Ok(rows.iter().find(|row| row.get::<_, &str>(1) == "leased").map(|row| row.get(0)))
}
