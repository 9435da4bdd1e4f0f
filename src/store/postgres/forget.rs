//! Deleting: the one place for each table that says how a row of it goes, whoever wants it gone.
//!
//! All of it is done under the locks of what the rows are about.

use jiff::Timestamp;

use super::session::{Tx, args};
use crate::store::Error;

/// What becomes of the keys of events that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// They go as well: the same event could be accepted again.
    Nothing,
    /// They stay, so that a repeat is still known.
    Keys,
}

/// Deletes events, which were taken in, and all that hangs on them but their tasks. Says which tasks those are.
pub(super) async fn events(tx: &Tx, events: &[i64], keep: Keep, at: Timestamp) -> Result<Vec<i64>, Error> {
    let events = events.to_vec();
    if events.is_empty() {
        return Ok(Vec::new());
    }
    if keep == Keep::Keys {
        tx.run(
            "INSERT INTO erased_keys (key, event, erased_at) SELECT key, id, $2 FROM events WHERE seq = ANY($1) \
             ON CONFLICT (key) DO UPDATE SET event = excluded.event, erased_at = excluded.erased_at",
            args![events, at],
        )
        .await?;
        // What goes by itself is done with, and waits for nothing.
        tx.run("DELETE FROM archiving WHERE event = ANY($1)", args![events]).await?;
    }
    deliveries(tx, &events).await?;
    let notes = "WITH again AS (DELETE FROM replays WHERE event = ANY($1)) DELETE FROM restored_events WHERE event = ANY($1)";
    tx.run(notes, args![events]).await?;
    let subjects = tx.rows("SELECT seq, subject FROM standing WHERE seq = ANY($1)", args![events]).await?;
    let subjects: Vec<i64> = subjects.iter().map(|row| row.get(1)).collect();
    tx.run("DELETE FROM open_events WHERE subject = ANY($1) AND event = ANY($2)", args![subjects, events]).await?;
    let tasks: Vec<i64> = subjects.iter().copied().filter(|subject| *subject > 0).collect();
    tx.run("DELETE FROM task_events WHERE task = ANY($1) AND event = ANY($2)", args![tasks, events]).await?;
    let homeless: Vec<i64> = subjects.iter().copied().filter(|subject| *subject < 0).collect();
    work(tx, homeless, at).await?;
    tx.run("DELETE FROM events WHERE seq = ANY($1)", args![events]).await?;
    Ok(tasks)
}

/// Deletes tasks, of which no event is left, and all that hangs on them.
pub(super) async fn tasks(tx: &Tx, tasks: &[i64], at: Timestamp) -> Result<(), Error> {
    let tasks = tasks.to_vec();
    work(tx, tasks.clone(), at).await?;
    tx.run("DELETE FROM fetched_tasks WHERE task_seq = ANY($1)", args![tasks]).await?;
    let sql = "DELETE FROM answers USING tasks WHERE tasks.seq = ANY($1) AND answers.source = tasks.source \
               AND answers.task_id = tasks.task_id";
    tx.run(sql, args![tasks]).await?;
    tx.run("DELETE FROM tasks WHERE seq = ANY($1)", args![tasks]).await?;
    Ok(())
}

/// Deletes the deliveries of events.
async fn deliveries(tx: &Tx, events: &[i64]) -> Result<(), Error> {
    let deliveries = tx.rows("SELECT seq FROM deliveries WHERE event = ANY($1)", args![events.to_vec()]).await?;
    let deliveries: Vec<i64> = deliveries.iter().map(|row| row.get(0)).collect();
    if deliveries.is_empty() {
        return Ok(());
    }
    tx.run(
        "WITH work AS (DELETE FROM jobs WHERE kind = 'deliver' AND subject = ANY($1)), \
         tries AS (DELETE FROM attempts WHERE delivery = ANY($1)), \
         contents AS (DELETE FROM delivery_bodies WHERE delivery = ANY($1)) \
         DELETE FROM deliveries WHERE seq = ANY($1)",
        args![deliveries],
    )
    .await?;
    Ok(())
}

/// Deletes the files and the jobs of subjects. Contents that no other row names are noted: the archive is not ours to write to.
async fn work(tx: &Tx, subjects: Vec<i64>, at: Timestamp) -> Result<(), Error> {
    if subjects.is_empty() {
        return Ok(());
    }
    tx.run(
        "INSERT INTO unwanted_files (sha256, since) SELECT DISTINCT sha256, $2::timestamptz FROM files \
         WHERE subject = ANY($1) AND sha256 IS NOT NULL ORDER BY sha256 ON CONFLICT (sha256) DO NOTHING",
        args![subjects, at],
    )
    .await?;
    tx.run("DELETE FROM files WHERE subject = ANY($1)", args![subjects]).await?;
    tx.run("DELETE FROM jobs WHERE kind IN ('prove', 'fetch', 'archive') AND subject = ANY($1)", args![subjects]).await?;
    Ok(())
}
