//! Erasing a task: no row says anything of it any more.
//!
//! What must hold: nothing of the task is in hand while it goes; and what must stay (that its events were known) says nothing about
//! it. What the server itself still holds of deleted rows, until vacuum and use come by, is the operator's: see `upkeep`.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::forget::{self, Keep};
use super::session::{Tx, args, number};
use super::{idempotency, intake, lock};
use crate::event::hex;
use crate::store::Error;
use crate::store::upkeep::{Erased, Holding};

/// Events that go in one transaction.
const PART: usize = 500;

async fn task(tx: &Tx, source: &str, task_id: &str) -> Result<Option<i64>, Error> {
    let sql = "SELECT seq FROM tasks WHERE task_id = $2 AND source = $1";
    Ok(tx.maybe(sql, args![source, task_id]).await?.map(|row| row.get(0)))
}

/// Of a rejection, whether it names `$2`.
macro_rules! names_it {
    () => {
        " FROM rejections WHERE source = $1 AND (position(convert_to($2, 'UTF8') IN body) > 0 OR strpos(headers, $2) > 0 \
         OR strpos(target, $2) > 0 OR strpos(coalesce(explanation, ''), $2) > 0)"
    };
}

pub(super) async fn holding(tx: &Tx, source: &str, task_id: &str) -> Result<Option<Holding>, Error> {
    let Some(task) = task(tx, source, task_id).await? else { return Ok(None) };
    let row = tx
        .row(
            "SELECT (SELECT count(*) FROM task_events WHERE task = $1), (SELECT count(*) FROM task_events JOIN deliveries \
             ON deliveries.event = task_events.event WHERE task = $1), (SELECT count(*) FROM files WHERE subject = $1)",
            args![task],
        )
        .await?;
    let rejections = tx.row(concat!("SELECT count(*)", names_it!()), args![source, task_id]).await?.get(0);
    Ok(Some(Holding { events: row.get(0), deliveries: row.get(1), files: row.get(2), rejections }))
}

pub(super) async fn erase(tx: &Tx, source: &str, task_id: &str, now: Timestamp) -> Result<Erased, Error> {
    // What came of it a moment ago goes as well.
    intake::catch_up(tx, now).await?;
    let Some(task) = task(tx, source, task_id).await? else { return Ok(Erased::Unknown) };
    lock::subject(tx, task).await?;
    // The jobs stay as they are until they are gone: nobody may begin anything. They are found without a look at their own table beside
    // the one that waits, which would be at how they were before it.
    let sql = "SELECT deliveries.seq FROM task_events JOIN deliveries ON deliveries.event = task_events.event WHERE task = $1";
    let deliveries: Vec<i64> = tx.rows(sql, args![task]).await?.iter().map(|row| row.get(0)).collect();
    let jobs = tx
        .rows(
            "SELECT id, state FROM jobs WHERE (kind IN ('prove', 'fetch', 'archive') AND subject = $1) \
             OR (kind = 'deliver' AND subject = ANY($2)) ORDER BY id FOR UPDATE",
            args![task, deliveries],
        )
        .await?;
    if jobs.iter().any(|row| row.get::<_, &str>(1) == "leased") {
        return Ok(Erased::Busy);
    }
    let jobs: Vec<i64> = jobs.iter().map(|row| row.get(0)).collect();
    tx.run("DELETE FROM jobs WHERE id = ANY($1)", args![jobs]).await?;
    let events = tx.rows("SELECT event FROM task_events WHERE task = $1 LIMIT $2", args![task, number(PART)]).await?;
    let events: Vec<i64> = events.iter().map(|row| row.get(0)).collect();
    forget::events(tx, &events, Keep::Keys, now).await?;
    tx.run(
        "INSERT INTO erased_tasks (source, task_id, erased_at, events) VALUES ($1, $2, $3, $4) ON CONFLICT (source, task_id) \
         DO UPDATE SET erased_at = excluded.erased_at, events = erased_tasks.events + excluded.events",
        args![source, hex(digest(&SHA256, task_id.as_bytes()).as_ref()), now, number(events.len())],
    )
    .await?;
    if events.len() == PART {
        return Ok(Erased::Part);
    }
    tx.run(concat!("DELETE", names_it!()), args![source, task_id]).await?;
    tx.run("DELETE FROM stops WHERE source = $1 AND task_id = $2", args![source, task_id]).await?;
    tx.run("DELETE FROM watches WHERE source = $1 AND task_id = $2", args![source, task_id]).await?;
    idempotency::empty(tx, source, task_id).await?;
    forget::tasks(tx, &[task], now).await?;
    Ok(Erased::Yes)
}
