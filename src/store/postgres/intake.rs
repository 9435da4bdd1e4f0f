//! Intake: what follows from events that were kept, made for many at once.
//!
//! What must hold: an event is taken in once, in the order of acceptance; its row of `intake` goes in the transaction that does it.
//! One replica takes in at a time, or the second event of a task could become work before the first.

use jiff::Timestamp;

use super::lock;
use super::session::{Tx, args, number};
use crate::store::Error;

/// The most events that are taken in at once.
const TURN: usize = 256;

/// Takes in the oldest events that are not, at most [`TURN`], unless another replica is at it; says whether more may be left.
pub(super) async fn take_in(tx: &Tx, now: Timestamp) -> Result<bool, Error> {
    // What waits is looked at first, since it is mostly nothing.
    let ours = "SELECT EXISTS (SELECT 1 FROM intake) AND pg_try_advisory_xact_lock(hashtext('taskhook intake'), hashtext(current_schema()))";
    if !tx.row(ours, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    Ok(turn(tx, now).await? == TURN)
}

/// Waits until no replica takes anything in; none does until this transaction ends.
pub(super) async fn hold(tx: &Tx) -> Result<(), Error> {
    let sql = "SELECT pg_advisory_xact_lock(hashtext('taskhook intake'), hashtext(current_schema()))";
    tx.run(sql, &[]).await.map(drop)
}

/// Takes in all that is there.
pub(super) async fn catch_up(tx: &Tx, now: Timestamp) -> Result<(), Error> {
    hold(tx).await?;
    while turn(tx, now).await? == TURN {}
    Ok(())
}

/// Takes in the oldest events; says how many.
async fn turn(tx: &Tx, now: Timestamp) -> Result<usize, Error> {
    let taken = tx
        .rows(
            "DELETE FROM intake WHERE event IN (SELECT event FROM intake ORDER BY event LIMIT $1) RETURNING event",
            args![number(TURN)],
        )
        .await?;
    if taken.is_empty() {
        return Ok(0);
    }
    let events: Vec<i64> = taken.iter().map(|row| row.get(0)).collect();
    // In the order of their first events, so that lists of tasks are in the order of acceptance as well.
    tx.run(
        "INSERT INTO tasks (source, task_id, first_seen_at) SELECT source, task_id, least(min(received_at), $2) FROM events \
         WHERE seq = ANY($1) AND task_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.task_id = events.task_id \
         AND tasks.source = events.source) GROUP BY source, task_id ORDER BY min(seq) ON CONFLICT (task_id, source) DO NOTHING",
        args![events, now],
    )
    .await?;
    lock::events(tx, events.clone()).await?;
    // One that stands among the open ones already was put into quarantine when it came, or was released since. Its work is due at
    // once, also where the clock was set back since.
    tx.run(
        "WITH new AS MATERIALIZED (SELECT events.seq, events.source, kept, least(received_at, $2) AS at, tasks.seq AS task, \
         coalesce(tasks.seq, -events.seq) AS subject, tasks.proof IS NOT NULL AS settled FROM events LEFT JOIN tasks \
         ON tasks.task_id = events.task_id AND tasks.source = events.source WHERE events.seq = ANY($1)), \
         of_task AS (INSERT INTO task_events (task, event) SELECT task, seq FROM new WHERE task IS NOT NULL), \
         open AS (INSERT INTO open_events (subject, event, state) SELECT subject, seq, 'proving' FROM new WHERE NOT kept ORDER BY subject, seq \
         ON CONFLICT (subject, event) DO NOTHING RETURNING subject, event) \
         INSERT INTO jobs (kind, queue, subject, settled, state, due_at, created_at) \
         SELECT 'prove', new.source, new.subject, bool_or(new.settled), 'due', min(new.at), min(new.at) FROM open \
         JOIN new ON new.seq = open.event GROUP BY new.source, new.subject ORDER BY min(new.seq) \
         ON CONFLICT (kind, subject) DO UPDATE SET due_at = excluded.due_at \
         WHERE jobs.state = 'due' AND jobs.attempt = 0 AND jobs.due_at > excluded.due_at",
        args![events, now],
    )
    .await?;
    Ok(taken.len())
}
