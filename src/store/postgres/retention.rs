//! What may go, by age and by size.
//!
//! Pages that rows leave are used again after the server's vacuum has been there; giving them back to the disk is the operator's affair.
//! So a table stays as large as it once was, and its size says nothing of how much goes: see [`space`].

use jiff::Timestamp;

use super::forget::{self, Keep};
use super::session::{Tx, args, number};
use super::{intake, lock};
use crate::store::Error;
use crate::store::upkeep::{Candidates, PAGE, Removed, Space, is_bare, needless, page};

/// Notes of unwanted contents that are read at once.
const FILES: usize = 100;

/// Of an event, whether it is done with and nothing needs it.
macro_rules! is_done {
    () => {
        concat!(
            "state IN ('done', 'kept') AND NOT EXISTS (SELECT 1 FROM intake WHERE intake.event = standing.seq) AND ",
            needless!()
        )
    };
}

/// Of an event, whether it is in quarantine and nothing else needs it.
macro_rules! is_foreign {
    () => {
        concat!("state = 'quarantined' AND ", needless!())
    };
}

/// Events in quarantine that were received before `before`, or are older than the newest `most` of them: the first ones.
pub(super) async fn quarantined(tx: &Tx, before: Timestamp, most: usize) -> Result<Candidates, Error> {
    let sql = concat!(
        "WITH stuck AS MATERIALIZED (SELECT event FROM open_events WHERE state = 'quarantined') \
         SELECT stuck.event, bytes FROM stuck CROSS JOIN LATERAL (SELECT received_at, \
         (octet_length(headers) + octet_length(body))::bigint AS bytes, ",
        is_foreign!(),
        " AS foreign_to_us FROM standing WHERE standing.seq = stuck.event OFFSET 0) AS looked_at \
         WHERE (received_at < $1 OR stuck.event <= (SELECT event FROM stuck ORDER BY event DESC LIMIT 1 OFFSET $2)) \
         AND foreign_to_us ORDER BY stuck.event LIMIT $3"
    );
    let rows = tx.rows(sql, args![before, number(most), number(PAGE)]).await?;
    Ok(Candidates { rows: rows.iter().map(|row| (row.get(0), bytes(row.get(1)))).collect(), next: None })
}

/// A page of events after `after`. Each is looked at by itself (which is what the OFFSET is for), or all that is pending would be.
pub(super) async fn done_events(tx: &Tx, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
    let sql = concat!(
        "SELECT page.seq, received_at, received_at < $2 AND done, bytes FROM (SELECT seq FROM events WHERE seq > $1 ORDER BY seq LIMIT $3) \
         AS page CROSS JOIN LATERAL (SELECT received_at, (octet_length(headers) + octet_length(body))::bigint AS bytes, ",
        is_done!(),
        " AS done FROM standing WHERE standing.seq = page.seq OFFSET 0) AS looked_at ORDER BY page.seq"
    );
    let rows = tx.rows(sql, args![after, before, number(PAGE)]).await?;
    let rows: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), bytes(row.get(3)))).collect();
    Ok(page(&rows, &before, &now))
}

fn bytes(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// Removes those of `events` that are done with, and their tasks where no event is left.
pub(super) async fn remove_events(tx: &Tx, events: &[i64], now: Timestamp) -> Result<Removed, Error> {
    let still = concat!(
        "SELECT wanted.seq FROM unnest($1::bigint[]) AS wanted (seq) CROSS JOIN LATERAL (SELECT ",
        is_done!(),
        " AS done FROM standing WHERE standing.seq = wanted.seq OFFSET 0) AS looked_at WHERE done"
    );
    remove(tx, events, still, Keep::Nothing, now).await
}

/// Removes those of `events` that are in quarantine, and their tasks where no event is left. Their keys stay: a repeat is not kept again.
pub(super) async fn remove_quarantined(tx: &Tx, events: &[i64], now: Timestamp) -> Result<Removed, Error> {
    let still = concat!(
        "SELECT wanted.seq FROM unnest($1::bigint[]) AS wanted (seq) CROSS JOIN LATERAL (SELECT ",
        is_foreign!(),
        " AS foreign_to_us FROM standing WHERE standing.seq = wanted.seq OFFSET 0) AS looked_at WHERE foreign_to_us"
    );
    remove(tx, events, still, Keep::Keys, now).await
}

/// Removes those of `events` that are `still` what they were found to be.
async fn remove(tx: &Tx, events: &[i64], still: &'static str, keep: Keep, now: Timestamp) -> Result<Removed, Error> {
    // A task that no event is left of may be about to get one.
    intake::hold(tx).await?;
    lock::events(tx, events.to_vec()).await?;
    // Nobody may find one meanwhile that something new is told apart from.
    let held = "SELECT seq FROM events WHERE seq = ANY($1) ORDER BY seq FOR UPDATE";
    tx.run(held, args![events.to_vec()]).await?;
    let gone: Vec<i64> = tx.rows(still, args![events.to_vec()]).await?.iter().map(|row| row.get(0)).collect();
    let tasks = forget::events(tx, &gone, keep, now).await?;
    let removed = Removed { events: gone.len() as u64, tasks: remove_bare(tx, tasks, now).await?, files: 0 };
    count(tx, removed).await?;
    Ok(removed)
}

/// Removes those of `tasks` that are bare; says how many. Their locks are held.
async fn remove_bare(tx: &Tx, tasks: Vec<i64>, now: Timestamp) -> Result<u64, Error> {
    let bare = concat!(
        "SELECT seq FROM tasks CROSS JOIN LATERAL (SELECT ",
        is_bare!(),
        " AS bare OFFSET 0) AS looked_at WHERE seq = ANY($1) AND bare"
    );
    let bare: Vec<i64> = tx.rows(bare, args![tasks]).await?.iter().map(|row| row.get(0)).collect();
    forget::tasks(tx, &bare, now).await?;
    Ok(bare.len() as u64)
}

/// A page of tasks after `after`: those that have never had an event, and are not expected.
pub(super) async fn bare_tasks(tx: &Tx, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
    let sql = concat!(
        "SELECT seq, first_seen_at, first_seen_at < $2 AND coalesce(proof, '') NOT IN ('created', 'tracked') AND bare \
         FROM (SELECT * FROM tasks WHERE seq > $1 ORDER BY seq LIMIT $3) AS tasks CROSS JOIN LATERAL (SELECT ",
        is_bare!(),
        " AS bare OFFSET 0) AS looked_at ORDER BY seq"
    );
    let rows = tx.rows(sql, args![after, before, number(PAGE)]).await?;
    let rows: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), 0)).collect();
    Ok(page(&rows, &before, &now))
}

pub(super) async fn remove_tasks(tx: &Tx, tasks: &[i64], now: Timestamp) -> Result<Removed, Error> {
    intake::hold(tx).await?;
    lock::subjects(tx, tasks.to_vec()).await?;
    let removed = Removed { tasks: remove_bare(tx, tasks.to_vec(), now).await?, ..Removed::default() };
    count(tx, removed).await?;
    Ok(removed)
}

/// Adds to what was removed since the store was made.
pub(super) async fn count(tx: &Tx, removed: Removed) -> Result<(), Error> {
    let Removed { events, tasks, files } = removed;
    for (name, more) in [("removed_events", events), ("removed_tasks", tasks), ("removed_files", files)] {
        if more > 0 {
            tx.run(
                "INSERT INTO store (name, value) VALUES ($1, $2) \
                 ON CONFLICT (name) DO UPDATE SET value = (store.value::bigint + excluded.value::bigint)::text",
                args![name, more.to_string()],
            )
            .await?;
        }
    }
    Ok(())
}

pub(super) async fn unwanted_files(tx: &Tx, after: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT sha256 FROM unwanted_files WHERE sha256 > $1 ORDER BY sha256 LIMIT $2";
    Ok(tx.rows(sql, args![after, number(FILES)]).await?.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn forget_erased(tx: &Tx, before: Timestamp) -> Result<(), Error> {
    tx.run("DELETE FROM erased_keys WHERE erased_at < $1", args![before]).await.map(drop)
}

/// About how many bytes hold something, as some pages tell of each table that grows: always the same ones, so that less is told after
/// something has gone. Of a table whose rows fill a third of it, a third of its indexes is counted as well.
pub(super) async fn space(tx: &Tx) -> Result<Space, Error> {
    let sql = "WITH size AS MATERIALIZED (SELECT relname::text AS name, pg_total_relation_size(oid) AS whole, pg_table_size(oid) AS rows, \
               least(100, 100 * 200.0 / greatest(1, pg_relation_size(oid) / current_setting('block_size')::bigint)) AS share \
               FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'), \
               seen (name, live) AS (SELECT 'events', sum(150 + pg_column_size(headers) + pg_column_size(body)) \
               FROM events TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'events')) REPEATABLE (1) \
               UNION ALL SELECT 'delivery_bodies', sum(40 + pg_column_size(body)) \
               FROM delivery_bodies TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'delivery_bodies')) REPEATABLE (1) \
               UNION ALL SELECT 'fetched_tasks', sum(40 + pg_column_size(task) + pg_column_size(files) + pg_column_size(raw)) \
               FROM fetched_tasks TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'fetched_tasks')) REPEATABLE (1) \
               UNION ALL SELECT 'attempts', sum(60 + coalesce(pg_column_size(detail), 0)) \
               FROM attempts TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'attempts')) REPEATABLE (1) \
               UNION ALL SELECT 'deliveries', sum(4 + pg_column_size(deliveries)) \
               FROM deliveries TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'deliveries')) REPEATABLE (1) \
               UNION ALL SELECT 'files', sum(4 + pg_column_size(files)) \
               FROM files TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'files')) REPEATABLE (1) \
               UNION ALL SELECT 'tasks', sum(4 + pg_column_size(tasks)) \
               FROM tasks TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'tasks')) REPEATABLE (1) \
               UNION ALL SELECT 'task_events', 44 * count(*) \
               FROM task_events TABLESAMPLE SYSTEM ((SELECT share FROM size WHERE name = 'task_events')) REPEATABLE (1)) \
               SELECT coalesce(sum(whole * CASE WHEN seen.name IS NULL THEN 1 \
               ELSE least(1, coalesce(live, 0) * 100 / share / greatest(1, size.rows)) END), 0)::bigint \
               FROM size LEFT JOIN seen ON seen.name = size.name";
    Ok(Space { file: bytes(tx.row(sql, &[]).await?.get(0)), free: 0 })
}
