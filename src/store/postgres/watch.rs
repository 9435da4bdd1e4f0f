//! What somebody should know of as long as it holds: what it is, and which event tells of it.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::session::{Tx, args, clean, column, known, number, tidy, transact};
use crate::event::Watch;
use crate::store::Error;
use crate::store::model::{Condition, Look, Queue, Watched, text};
use crate::store::view::{Listed, NEWEST, Page, Span, WatchRow, watch_row_columns};
use crate::store::watch::{condition_columns, narrowed, watched_columns};

impl Postgres {
    pub(in crate::store) async fn unnoticed(
        &self,
        look: Look,
        name: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Condition>, Error> {
        transact!(self.work(), Read, |tx| unnoticed(&tx, look, name, known(before), limit))
    }

    pub(in crate::store) async fn over(
        &self,
        look: Look,
        name: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        transact!(self.work(), Read, |tx| over(&tx, look, name, known(before), limit))
    }

    pub(in crate::store) async fn noticed(&self, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
        transact!(self.work(), Read, |tx| noticed(&tx, watch, of))
    }

    pub(in crate::store) async fn notice(
        &self,
        watch: Watch,
        conditions: Vec<(Condition, Uuid)>,
        now: Timestamp,
    ) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| notice(&tx, watch, &conditions, now))
    }

    pub(in crate::store) async fn clear(&self, rows: Vec<(i64, Uuid)>, now: Timestamp) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| clear(&tx, &rows, now))
    }

    pub(in crate::store) async fn untold(&self, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
        transact!(self.work(), Read, |tx| untold(&tx, watch, of))
    }

    pub(in crate::store) async fn told(&self, events: Vec<Uuid>) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| told(&tx, &events))
    }

    pub(in crate::store) async fn unwatch(&self, watch: Watch, of: &Queue) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| unwatch(&tx, watch, of))
    }

    pub(in crate::store) async fn webhooks(&self, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
        transact!(self.work(), Read, |tx| webhooks(&tx, source, known(after)))
    }

    pub(in crate::store) async fn lost(&self, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
        transact!(self.work(), Read, |tx| lost(&tx, source, known(after)))
    }

    pub(in crate::store) async fn note_active(&self, source: &str, tasks: Vec<(String, Timestamp)>) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| note_active(&tx, source, &tasks))
    }

    pub(in crate::store) async fn watches(&self, source: Option<String>, page: Page) -> Result<Listed<WatchRow>, Error> {
        transact!(self.sessions(), Read, |tx| watches(&tx, source.as_deref(), &page))
    }

    pub(in crate::store) async fn watching(&self) -> Result<Vec<(String, i64)>, Error> {
        transact!(self.sessions(), Read, |tx| watching(&tx))
    }
}

/// Tasks of the source `$1` at work of which nothing was heard since `$2`. One that is known only by what may have been its end is not
/// at work; and of one of which an event is not done with, something was heard.
macro_rules! silent {
    () => {
        "(SELECT task_id AS key, source, task_id, NULL::text AS destination, since, '{}' AS detail FROM (SELECT source, task_id, \
         greatest(first_seen_at, active_at, (SELECT max(given_at) FROM answers WHERE answers.source = tasks.source \
         AND answers.task_id = tasks.task_id), (SELECT max(received_at) FROM task_events \
         JOIN events ON events.seq = task_events.event WHERE task_events.task = tasks.seq AND verification <> 'watch')) AS since \
         FROM tasks WHERE source = $1 AND deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) \
         AND state IS DISTINCT FROM 'waiting' AND (proof IN ('created', 'tracked') OR (proof IS NOT NULL AND EXISTS \
         (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq))) \
         AND NOT EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = tasks.seq) \
         AND (state IS NOT NULL OR NOT EXISTS (SELECT 1 FROM task_events JOIN events ON events.seq = task_events.event \
         WHERE task_events.task = tasks.seq AND verification <> 'watch' AND type NOT IN ('task_created', 'task_progress') \
         AND type NOT LIKE '%.started'))) AS heard WHERE since <= $2)"
    };
}

/// Tasks of the source `$1` that wait for an answer since `$2`, and were not seen at work after they asked.
macro_rules! waiting {
    () => {
        "(SELECT task_id AS key, source, task_id, NULL::text AS destination, since, '{}' AS detail FROM (SELECT source, task_id, active_at, \
         coalesce((SELECT coalesce(at, claimed_at) FROM stops WHERE stops.source = tasks.source AND stops.task_id = tasks.task_id \
         AND stops.state = 'waiting' ORDER BY claimed_at DESC LIMIT 1), fetched_at) AS since FROM tasks WHERE source = $1 \
         AND deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND state = 'waiting') AS asking \
         WHERE since <= $2 AND (active_at IS NULL OR active_at <= since))"
    };
}

/// Events of the source `$1`, received by `$2`, that were given up on.
macro_rules! dead_events {
    () => {
        "(SELECT events.id::text AS key, source, task_id, NULL::text AS destination, received_at AS since, \
         json_build_object('event', events.id, 'reason', open_events.reason)::text AS detail FROM open_events JOIN events \
         ON events.seq = open_events.event WHERE open_events.state = 'dead' AND source = $1 AND received_at <= $2 \
         AND verification <> 'watch')"
    };
}

/// Of each lane of the destination `$1` its first delivery that waits since `$2`; of many lanes, of those that wait longest: they are found
/// in an index, so that a crowd that waits does not keep this from being told.
macro_rules! undelivered {
    () => {
        "(SELECT destination || ':' || lane AS key, source, task_id, destination, created_at AS since, \
         json_build_object('event', events.id, 'delivery', deliveries.id)::text AS detail \
         FROM deliveries JOIN events ON events.seq = deliveries.event \
         WHERE created_at <= $2 AND deliveries.seq IN (SELECT (SELECT min(waits.seq) FROM deliveries AS waits JOIN events \
         ON events.seq = waits.event WHERE waits.state = 'pending' AND waits.destination = $1 AND waits.lane = heads.lane \
         AND verification <> 'watch') FROM (SELECT lane, min(seq) AS head FROM deliveries WHERE state = 'pending' AND destination = $1 \
         GROUP BY lane ORDER BY head LIMIT 2000) AS heads))"
    };
}

/// Deliveries to the destination `$1`, made by `$2`, that were given up on.
macro_rules! dead_deliveries {
    () => {
        "(SELECT deliveries.id::text AS key, source, task_id, destination, coalesce(ended_at, created_at) AS since, \
         json_build_object('event', events.id, 'delivery', deliveries.id, 'reason', reason)::text AS detail FROM deliveries \
         JOIN events ON events.seq = deliveries.event WHERE state = 'dead' AND destination = $1 AND created_at <= $2 \
         AND verification <> 'watch')"
    };
}

macro_rules! unnoticed {
    () => {
        " AS holding WHERE NOT EXISTS (SELECT 1 FROM watches WHERE watches.type = $3 AND watches.source = holding.source \
         AND watches.key = holding.key) ORDER BY since, key LIMIT $4"
    };
}

macro_rules! of_source {
    () => {
        " FROM watches \
         WHERE type = $3 AND source = $1 AND destination IS NULL AND cleared_at IS NULL AND key NOT IN (SELECT key FROM "
    };
}

macro_rules! of_destination {
    () => {
        " FROM watches \
         WHERE type = $3 AND destination = $1 AND cleared_at IS NULL AND key NOT IN (SELECT key FROM "
    };
}

macro_rules! in_order {
    () => {
        " AS holding) ORDER BY since, key LIMIT $4"
    };
}

async fn unnoticed(tx: &Tx, look: Look, name: &str, before: Timestamp, limit: usize) -> Result<Vec<Condition>, Error> {
    let sql = match look {
        Look::TaskSilent => concat!("SELECT ", condition_columns!(), " FROM ", silent!(), unnoticed!()),
        Look::TaskWaiting => concat!("SELECT ", condition_columns!(), " FROM ", waiting!(), unnoticed!()),
        Look::DeadEvent => concat!("SELECT ", condition_columns!(), " FROM ", dead_events!(), unnoticed!()),
        Look::NotDelivered => concat!("SELECT ", condition_columns!(), " FROM ", undelivered!(), unnoticed!()),
        Look::DeadDelivery => concat!("SELECT ", condition_columns!(), " FROM ", dead_deliveries!(), unnoticed!()),
    };
    let rows = tx.rows(sql, args![name, before, look.watch().as_str(), number(limit)]).await?;
    Ok(rows.iter().map(condition).collect())
}

async fn over(tx: &Tx, look: Look, name: &str, before: Timestamp, limit: usize) -> Result<Vec<Watched>, Error> {
    let sql = match look {
        Look::TaskSilent => concat!("SELECT ", watched_columns!(), of_source!(), silent!(), in_order!()),
        Look::TaskWaiting => concat!("SELECT ", watched_columns!(), of_source!(), waiting!(), in_order!()),
        Look::DeadEvent => concat!("SELECT ", watched_columns!(), of_source!(), dead_events!(), in_order!()),
        Look::NotDelivered => concat!("SELECT ", watched_columns!(), of_destination!(), undelivered!(), in_order!()),
        Look::DeadDelivery => concat!("SELECT ", watched_columns!(), of_destination!(), dead_deliveries!(), in_order!()),
    };
    let rows = tx.rows(sql, args![name, before, look.watch().as_str(), number(limit)]).await?;
    Ok(rows.iter().map(watched).collect())
}

fn condition(row: &Row) -> Condition {
    Condition {
        key: row.get(0),
        source: row.get(1),
        task_id: row.get(2),
        destination: row.get(3),
        since: row.get(4),
        detail: serde_json::from_str(row.get(5)).unwrap_or_default(),
    }
}

fn watched(row: &Row) -> Watched {
    let (seq, raised_at, cleared_at, event) = (row.get(6), row.get(7), row.get(8), row.get(9));
    Watched { condition: condition(row), seq, raised_at, cleared_at, event }
}

async fn noticed(tx: &Tx, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
    let (source, destination) = narrowed(of);
    let rows = tx
        .rows(
            concat!(
                "SELECT ",
                watched_columns!(),
                " FROM watches \
             WHERE type = $1 AND ($2::text IS NULL OR source = $2) AND destination IS NOT DISTINCT FROM $3 \
             AND cleared_at IS NULL ORDER BY seq"
            ),
            args![watch.as_str(), source, destination],
        )
        .await?;
    Ok(rows.iter().map(watched).collect())
}

async fn notice(tx: &Tx, watch: Watch, conditions: &[(Condition, Uuid)], now: Timestamp) -> Result<(), Error> {
    tx.run(
        "INSERT INTO watches (type, source, key, task_id, destination, since, detail, raised_at, event) \
         SELECT $1, source, key, task_id, destination, since, detail, $2, event \
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[], $9::uuid[]) \
         AS held (source, key, task_id, destination, since, detail, event) ORDER BY source, key \
         ON CONFLICT (type, source, key) DO NOTHING",
        args![
            watch.as_str(),
            now,
            column(conditions, |(condition, _)| condition.source.as_str()),
            column(conditions, |(condition, _)| clean(&condition.key).into_owned()),
            column(conditions, |(condition, _)| tidy(condition.task_id.as_deref())),
            column(conditions, |(condition, _)| condition.destination.clone()),
            column(conditions, |(condition, _)| condition.since),
            column(conditions, |(condition, _)| condition.detail.to_string()),
            column(conditions, |(_, event)| *event),
        ],
    )
    .await
    .map(drop)
}

async fn clear(tx: &Tx, rows: &[(i64, Uuid)], now: Timestamp) -> Result<(), Error> {
    let (rows, events): (Vec<i64>, Vec<Uuid>) = rows.iter().copied().unzip();
    tx.run(
        "UPDATE watches SET cleared_at = $3, event = over.event, told = false FROM unnest($1::bigint[], $2::uuid[]) \
         AS over (seq, event) WHERE watches.seq = over.seq AND cleared_at IS NULL AND told",
        args![rows, events, now],
    )
    .await
    .map(drop)
}

async fn untold(tx: &Tx, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
    let (source, destination) = narrowed(of);
    let rows = tx
        .rows(
            concat!(
                "SELECT ",
                watched_columns!(),
                " FROM watches \
             WHERE NOT told AND type = $1 AND ($2::text IS NULL OR source = $2) AND destination IS NOT DISTINCT FROM $3 \
             ORDER BY since, key"
            ),
            args![watch.as_str(), source, destination],
        )
        .await?;
    Ok(rows.iter().map(watched).collect())
}

async fn told(tx: &Tx, events: &[Uuid]) -> Result<(), Error> {
    let events = events.to_vec();
    tx.run("DELETE FROM watches WHERE NOT told AND cleared_at IS NOT NULL AND event = ANY($1)", args![events]).await?;
    tx.run("UPDATE watches SET told = true WHERE NOT told AND event = ANY($1)", args![events]).await.map(drop)
}

async fn unwatch(tx: &Tx, watch: Watch, of: &Queue) -> Result<(), Error> {
    let (source, destination) = narrowed(of);
    tx.run(
        "DELETE FROM watches WHERE type = $1 AND ($2::text IS NULL OR source = $2) AND destination IS NOT DISTINCT FROM $3",
        args![watch.as_str(), source, destination],
    )
    .await
    .map(drop)
}

async fn webhooks(tx: &Tx, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
    let rows = tx
        .rows(
            "SELECT received_at FROM events WHERE seq > (SELECT coalesce(max(seq), 0) FROM events) - $3 AND source = $1 \
             AND received_at > $2 AND verification NOT IN ('api', 'watch') AND NOT ping ORDER BY received_at",
            args![source, after, NEWEST],
        )
        .await?;
    Ok(column(&rows, |row| row.get(0)))
}

async fn lost(tx: &Tx, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
    let rows = tx
        .rows(
            "SELECT claimed_at FROM stops WHERE claimed_at > $2 AND source = $1 AND recovered AND state IN ('finished', 'waiting') \
             ORDER BY claimed_at LIMIT $3",
            args![source, after, NEWEST],
        )
        .await?;
    Ok(column(&rows, |row| row.get(0)))
}

async fn note_active(tx: &Tx, source: &str, tasks: &[(String, Timestamp)]) -> Result<(), Error> {
    tx.run(
        "UPDATE tasks SET active_at = seen.at FROM unnest($2::text[], $3::timestamptz[]) AS seen (task_id, at) \
         WHERE tasks.task_id = seen.task_id AND tasks.source = $1 AND (active_at IS NULL OR active_at < seen.at)",
        args![source, column(tasks, |(task_id, _)| clean(task_id).into_owned()), column(tasks, |(_, at)| *at)],
    )
    .await
    .map(drop)
}

async fn watches(tx: &Tx, source: Option<&str>, at: &Page) -> Result<Listed<WatchRow>, Error> {
    let sql = concat!(
        "SELECT ",
        watch_row_columns!(),
        " FROM watches WHERE seq < $1 AND ($2::text IS NULL OR source = $2) AND cleared_at IS NULL ORDER BY seq DESC LIMIT $3"
    );
    let rows = tx.rows(sql, args![at.cursor.unwrap_or(i64::MAX), source, number(at.limit + 1)]).await?;
    let row = |row: &Row| {
        let watch = WatchRow {
            kind: row.get(1),
            source: row.get(2),
            task_id: row.get(3),
            destination: row.get(4),
            since: text(row.get(5)),
            raised_at: text(row.get(6)),
            detail: serde_json::from_str(row.get(7)).unwrap_or_default(),
            event: row.get::<_, Uuid>(8).to_string(),
        };
        (row.get(0), watch)
    };
    Ok(Span::back(at).page(rows.iter().map(row).collect()))
}

async fn watching(tx: &Tx) -> Result<Vec<(String, i64)>, Error> {
    let rows = tx.rows("SELECT type, count(*) FROM watches WHERE cleared_at IS NULL GROUP BY type", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
