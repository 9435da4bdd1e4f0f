//! Locks of subjects: advisory, until the transaction ends.
//!
//! Two subjects may share a lock (their numbers are hashed): then one waits for the other, and nothing else follows. The first half
//! of a lock's number is of the schema, so that two stores in one database do not wait for each other.

use super::session::{Tx, args};
use crate::store::Error;
use crate::store::model::Lease;

/// Takes the locks of subjects that a query finds, in their order.
macro_rules! take {
    ($found:literal) => {
        concat!(
            "SELECT pg_advisory_xact_lock(hashtext(current_schema()), lock) FROM (SELECT DISTINCT hashint8(subject) AS lock FROM (",
            $found,
            ") AS found (subject) ORDER BY lock) AS locks"
        )
    };
}

/// Waits until nobody else works on `subject`.
pub(super) async fn subject(tx: &Tx, subject: i64) -> Result<(), Error> {
    subjects(tx, vec![subject]).await
}

/// Waits until nobody else works on any of `subjects`.
pub(super) async fn subjects(tx: &Tx, subjects: Vec<i64>) -> Result<(), Error> {
    tx.run(take!("SELECT unnest($1::bigint[])"), args![subjects]).await.map(drop)
}

/// Waits until nobody else works on what the jobs of `leases` are about: a task, an event that names none, or a lane.
pub(super) async fn leased(tx: &Tx, leases: &[Lease]) -> Result<(), Error> {
    let jobs: Vec<i64> = leases.iter().map(|lease| lease.job).collect();
    let sql = take!(
        "SELECT coalesce(lane, jobs.subject) FROM jobs LEFT JOIN deliveries ON kind = 'deliver' AND deliveries.seq = jobs.subject \
         WHERE jobs.id = ANY($1)"
    );
    tx.run(sql, args![jobs]).await.map(drop)
}

/// Waits until nobody else works on the lanes of `deliveries`.
pub(super) async fn lanes(tx: &Tx, deliveries: Vec<i64>) -> Result<(), Error> {
    tx.run(take!("SELECT lane FROM deliveries WHERE seq = ANY($1)"), args![deliveries]).await.map(drop)
}

/// Waits until nobody else works on what `events` are about.
pub(super) async fn events(tx: &Tx, events: Vec<i64>) -> Result<(), Error> {
    tx.run(take!("SELECT subject FROM standing WHERE seq = ANY($1)"), args![events]).await.map(drop)
}
