//! Destinations that nothing is sent to, until a person says so.
//!
//! What must hold: who waited for its turn while its destination was paused has waited for nothing. Before anything is sent again
//! its patience begins anew: a few at a time, while nothing is claimed.

use std::time::Duration;

use jiff::Timestamp;

use super::session::{Tx, args, number, transact};
use super::{Postgres, lock};
use crate::clock::after;
use crate::store::Error;
use crate::store::model::{STEP, text};

impl Postgres {
    pub(in crate::store) async fn pause(&self, destination: &str, now: Timestamp) -> Result<String, Error> {
        transact!(self.sessions(), Write, |tx| pause(&tx, destination, now))
    }

    pub(in crate::store) async fn resume(&self, destination: &str, now: Timestamp) -> Result<bool, Error> {
        if !transact!(self.sessions(), Read, |tx| is_paused(&tx, destination))? {
            return Ok(false);
        }
        let mut place = None;
        loop {
            place = transact!(self.sessions(), Write, |tx| wait_anew(&tx, destination, place, now))?;
            if place.is_none() {
                break;
            }
        }
        self.and_ring(transact!(self.sessions(), Write, |tx| resume(&tx, destination)))
    }

    pub(in crate::store) async fn paused(&self) -> Result<Vec<(String, String)>, Error> {
        transact!(self.sessions(), Read, |tx| paused(&tx))
    }
}

/// Lets nothing be sent to `destination`; says since when.
async fn pause(tx: &Tx, destination: &str, now: Timestamp) -> Result<String, Error> {
    // An update that changes nothing: it says what stands there, whoever else asks for the same.
    let row = tx
        .row(
            "INSERT INTO paused (destination, since) VALUES ($1, $2) \
             ON CONFLICT (destination) DO UPDATE SET since = paused.since RETURNING since",
            args![destination, now],
        )
        .await?;
    Ok(text(row.get(0)))
}

async fn is_paused(tx: &Tx, destination: &str) -> Result<bool, Error> {
    Ok(tx.row("SELECT EXISTS (SELECT 1 FROM paused WHERE destination = $1)", args![destination]).await?.get(0))
}

/// Lets the patience of some deliveries begin anew that wait for their turn only so long, and are due behind `place`: while their
/// destination was paused, nothing before them could go. Says how far it came; `None` at the end.
async fn wait_anew(
    tx: &Tx,
    destination: &str,
    place: Option<(Timestamp, i64)>,
    now: Timestamp,
) -> Result<Option<(Timestamp, i64)>, Error> {
    let found = tx
        .rows(
            "SELECT due_at, jobs.id, deliveries.seq, order_wait_ms FROM jobs JOIN deliveries ON deliveries.seq = jobs.subject \
             WHERE kind = 'deliver' AND queue = $1 AND jobs.state = 'waiting' AND due_at IS NOT NULL \
             AND ($2::timestamptz IS NULL OR (due_at, jobs.id) > ($2, $3)) ORDER BY due_at, jobs.id LIMIT $4",
            args![destination, place.map(|(due_at, _)| due_at), place.map(|(_, job)| job), number(STEP)],
        )
        .await?;
    let Some(last) = found.last() else { return Ok(None) };
    lock::lanes(tx, found.iter().map(|row| row.get(2)).collect()).await?;
    let (mut jobs, mut untils) = (Vec::new(), Vec::new());
    for row in &found {
        let Some(wait) = row.get::<_, Option<i64>>(3) else { continue };
        jobs.push(row.get::<_, i64>(1));
        untils.push(after(now, Duration::from_millis(wait.try_into().unwrap_or_default())));
    }
    tx.run(
        "UPDATE jobs SET due_at = greatest(due_at, until) FROM unnest($1::bigint[], $2::timestamptz[]) AS anew (job, until) \
         WHERE jobs.id = job AND state = 'waiting' AND due_at IS NOT NULL",
        args![jobs, untils],
    )
    .await?;
    Ok(Some((last.get(0), last.get(1))))
}

/// Lets `destination` be sent to again; says whether it was paused.
async fn resume(tx: &Tx, destination: &str) -> Result<bool, Error> {
    Ok(tx.run("DELETE FROM paused WHERE destination = $1", args![destination]).await? > 0)
}

/// The destinations that are paused, and since when.
async fn paused(tx: &Tx) -> Result<Vec<(String, String)>, Error> {
    let rows = tx.rows("SELECT destination, since FROM paused ORDER BY destination COLLATE \"C\"", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), text(row.get(1)))).collect())
}
