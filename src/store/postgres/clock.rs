//! What becomes of due times when wall time jumps back.
//!
//! Replicas have clocks of their own, and a due time does not say by whose it was written. So one whose clock jumped brings all of it
//! forward, also what others wrote whose clocks did not: that is tried sooner than it was meant to be, once, where a result that is
//! paid for would else be kept back. For the same reason no harm is done where several clocks jump at once.
//!
//! A start can only compare its clock with what was written last. It does so if no other replica lives: those that do know how late
//! it is, and who starts with another time than theirs has missed no jump.
//!
//! There may be a million jobs: it is done in short steps, and no row is locked for longer than one of them. Nothing is decided by
//! the state of a job, so its subject's lock is not taken.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::Postgres;
use super::beat::is_seen;
use super::session::{Tx, args, number, transact};
use crate::clock::{millis, since};
use crate::store::Error;

/// The least difference that is a jump.
const JUMP: Duration = Duration::from_secs(1);
/// The most jobs that are changed in one transaction.
const STEP: usize = 1000;

impl Postgres {
    pub(in crate::store) async fn clock_went_back(
        &self,
        by: Option<Duration>,
        now: Timestamp,
    ) -> Result<Option<(Duration, usize)>, Error> {
        let by = if let Some(by) = by {
            by
        } else {
            let last = transact!(self.sessions(), Read, |tx| last_written(&tx, self.shared.me))?;
            since(now, last.unwrap_or(now))
        };
        if by < JUMP {
            return Ok(None);
        }
        // What is made from here on is due by the new time.
        let newest = transact!(self.sessions(), Read, |tx| newest(&tx))?;
        let (mut behind, mut brought) = (0, 0);
        loop {
            let step = transact!(self.sessions(), Write, |tx| bring(&tx, (behind, newest), by, now))?;
            let Some((reached, jobs)) = step else { return Ok(Some((by, brought))) };
            behind = reached;
            brought += jobs;
        }
    }
}

/// How late it was, as far as the store knows; `None` if another replica than this one lives.
async fn last_written(tx: &Tx, me: Uuid) -> Result<Option<Timestamp>, Error> {
    let row = tx
        .row(
            concat!(
                "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM replicas WHERE id <> $1 AND ",
                is_seen!(),
                ") THEN greatest((SELECT max(started_at) FROM jobs), (SELECT received_at FROM events ORDER BY seq DESC LIMIT 1)) END"
            ),
            args![me],
        )
        .await?;
    Ok(row.get(0))
}

/// The newest job.
async fn newest(tx: &Tx) -> Result<i64, Error> {
    Ok(tx.row("SELECT coalesce(max(id), 0) FROM jobs", &[]).await?.get(0))
}

/// Brings forward what is due after `now`, and what was made after it, whose patience would else begin in the future: some jobs
/// behind the first of `jobs`, up to the last. Says how far it came, and how many are due sooner; `None` at the end.
async fn bring(tx: &Tx, jobs: (i64, i64), by: Duration, now: Timestamp) -> Result<Option<(i64, usize)>, Error> {
    let rows = tx
        .rows(
            "WITH late AS MATERIALIZED (SELECT id, coalesce(due_at > $3, false) AS waits, created_at > $3 AS young FROM jobs \
             WHERE id > $1 AND id <= $2 AND (due_at > $3 OR created_at > $3) ORDER BY id LIMIT $5 FOR UPDATE) \
             UPDATE jobs SET due_at = CASE WHEN waits THEN due_at - $4 * interval '1 millisecond' ELSE due_at END, \
             created_at = CASE WHEN young THEN created_at - $4 * interval '1 millisecond' ELSE created_at END \
             FROM late WHERE jobs.id = late.id RETURNING jobs.id, waits",
            args![jobs.0, jobs.1, now, number(millis(by)), number(STEP)],
        )
        .await?;
    let reached = rows.iter().map(|row| row.get::<_, i64>(0)).max();
    let due_sooner = rows.iter().filter(|row| row.get(1)).count();
    Ok(reached.map(|reached| (reached, due_sooner)))
}
