//! What somebody should know of as long as it holds: what it is, and which event tells of it.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::Sqlite;
use super::append::id;
use crate::event::Watch;
use crate::store::Error;
use crate::store::model::{Condition, Look, Queue, Watched, text};
use crate::store::view::{Listed, NEWEST, Page, Span, WatchRow, watch_row_columns};
use crate::store::watch::{condition_columns, narrowed, watched_columns};

impl Sqlite {
    pub(in crate::store) async fn unnoticed(
        &self,
        look: Look,
        name: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Condition>, Error> {
        let name = name.to_owned();
        self.read(move |connection| unnoticed(connection, look, &name, before, limit)).await
    }

    pub(in crate::store) async fn over(
        &self,
        look: Look,
        name: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        let name = name.to_owned();
        self.read(move |connection| over(connection, look, &name, before, limit)).await
    }

    pub(in crate::store) async fn noticed(&self, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
        let of = of.clone();
        self.read(move |connection| noticed(connection, watch, &of)).await
    }

    pub(in crate::store) async fn notice(
        &self,
        watch: Watch,
        conditions: Vec<(Condition, Uuid)>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |connection| notice(connection, watch, &conditions, now)).await
    }

    pub(in crate::store) async fn clear(&self, rows: Vec<(i64, Uuid)>, now: Timestamp) -> Result<(), Error> {
        self.write(move |connection| clear(connection, &rows, now)).await
    }

    pub(in crate::store) async fn untold(&self, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
        let of = of.clone();
        self.read(move |connection| untold(connection, watch, &of)).await
    }

    pub(in crate::store) async fn told(&self, events: Vec<Uuid>) -> Result<(), Error> {
        self.write(move |connection| told(connection, &events)).await
    }

    pub(in crate::store) async fn unwatch(&self, watch: Watch, of: &Queue) -> Result<(), Error> {
        let of = of.clone();
        self.write(move |connection| unwatch(connection, watch, &of)).await
    }

    pub(in crate::store) async fn webhooks(&self, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
        let source = source.to_owned();
        self.read(move |connection| webhooks(connection, &source, after)).await
    }

    pub(in crate::store) async fn lost(&self, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
        let source = source.to_owned();
        self.read(move |connection| lost(connection, &source, after)).await
    }

    pub(in crate::store) async fn note_active(&self, source: &str, tasks: Vec<(String, Timestamp)>) -> Result<(), Error> {
        let source = source.to_owned();
        self.write(move |connection| note_active(connection, &source, &tasks)).await
    }

    pub(in crate::store) async fn watches(&self, source: Option<String>, page: Page) -> Result<Listed<WatchRow>, Error> {
        self.read(move |connection| watches(connection, source.as_deref(), &page)).await
    }

    pub(in crate::store) async fn watching(&self) -> Result<Vec<(String, i64)>, Error> {
        self.read(watching).await
    }
}

/// Tasks of the source `?1` at work of which nothing was heard since `?2`. One that is known only by what may have been its end is not
/// at work; and of one of which an event is not done with, something was heard.
macro_rules! silent {
    () => {
        "(SELECT task_id AS key, source, task_id, NULL AS destination, since, '{}' AS detail FROM (SELECT source, task_id, \
         max(first_seen_at, coalesce(active_at, ''), coalesce((SELECT max(given_at) FROM answers \
         WHERE answers.source = tasks.source AND answers.task_id = tasks.task_id), ''), coalesce((SELECT max(received_at) FROM task_events \
         JOIN events ON events.seq = task_events.event WHERE task_events.task = tasks.seq AND verification <> 'watch'), '')) AS since \
         FROM tasks WHERE source = ?1 AND deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) \
         AND coalesce(state, '') <> 'waiting' AND (proof IN ('created', 'tracked') OR (proof IS NOT NULL AND EXISTS \
         (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq))) \
         AND NOT EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = tasks.seq) \
         AND (state IS NOT NULL OR NOT EXISTS (SELECT 1 FROM task_events JOIN events ON events.seq = task_events.event \
         WHERE task_events.task = tasks.seq AND verification <> 'watch' AND type NOT IN ('task_created', 'task_progress') \
         AND type NOT LIKE '%.started'))) WHERE since <= ?2)"
    };
}

/// Tasks of the source `?1` that wait for an answer since `?2`, and were not seen at work after they asked.
macro_rules! waiting {
    () => {
        "(SELECT task_id AS key, source, task_id, NULL AS destination, since, '{}' AS detail FROM (SELECT source, task_id, active_at, \
         coalesce((SELECT coalesce(at, claimed_at) FROM stops WHERE stops.source = tasks.source AND stops.task_id = tasks.task_id \
         AND stops.state = 'waiting' ORDER BY claimed_at DESC LIMIT 1), fetched_at) AS since FROM tasks WHERE source = ?1 \
         AND deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND state = 'waiting') \
         WHERE since <= ?2 AND (active_at IS NULL OR active_at <= since))"
    };
}

/// Events of the source `?1`, received by `?2`, that were given up on.
macro_rules! dead_events {
    () => {
        "(SELECT events.id AS key, source, task_id, NULL AS destination, received_at AS since, \
         json_object('event', events.id, 'reason', open_events.reason) AS detail FROM open_events JOIN events \
         ON events.seq = open_events.event WHERE open_events.state = 'dead' AND source = ?1 AND received_at <= ?2 \
         AND verification <> 'watch')"
    };
}

/// Of each lane of the destination `?1` its first delivery that waits since `?2`; of many lanes, of those that wait longest: they are found
/// in an index, so that a crowd that waits does not keep this from being told.
macro_rules! undelivered {
    () => {
        "(SELECT destination || ':' || lane AS key, source, task_id, destination, created_at AS since, \
         json_object('event', events.id, 'delivery', deliveries.id) AS detail FROM deliveries JOIN events ON events.seq = deliveries.event \
         WHERE created_at <= ?2 AND deliveries.seq IN (SELECT (SELECT min(waits.seq) FROM deliveries AS waits JOIN events \
         ON events.seq = waits.event WHERE waits.state = 'pending' AND waits.destination = ?1 AND waits.lane = heads.lane \
         AND verification <> 'watch') FROM (SELECT lane, min(seq) AS head FROM deliveries WHERE state = 'pending' AND destination = ?1 \
         GROUP BY lane ORDER BY head LIMIT 2000) AS heads))"
    };
}

/// Deliveries to the destination `?1`, made by `?2`, that were given up on.
macro_rules! dead_deliveries {
    () => {
        "(SELECT deliveries.id AS key, source, task_id, destination, coalesce(ended_at, created_at) AS since, \
         json_object('event', events.id, 'delivery', deliveries.id, 'reason', reason) AS detail FROM deliveries \
         JOIN events ON events.seq = deliveries.event WHERE state = 'dead' AND destination = ?1 AND created_at <= ?2 \
         AND verification <> 'watch')"
    };
}

macro_rules! unnoticed {
    () => {
        " AS holding WHERE NOT EXISTS (SELECT 1 FROM watches WHERE watches.type = ?3 AND watches.source = holding.source \
         AND watches.key = holding.key) ORDER BY since, key LIMIT ?4"
    };
}

macro_rules! of_source {
    () => {
        " FROM watches \
         WHERE type = ?3 AND source = ?1 AND destination IS NULL AND cleared_at IS NULL AND key NOT IN (SELECT key FROM "
    };
}

macro_rules! of_destination {
    () => {
        " FROM watches \
         WHERE type = ?3 AND destination = ?1 AND cleared_at IS NULL AND key NOT IN (SELECT key FROM "
    };
}

macro_rules! in_order {
    () => {
        " AS holding) ORDER BY since, key LIMIT ?4"
    };
}

fn unnoticed(connection: &Connection, look: Look, name: &str, before: Timestamp, limit: usize) -> Result<Vec<Condition>, Error> {
    let mut statement = match look {
        Look::TaskSilent => {
            connection.prepare_cached(concat!("SELECT ", condition_columns!(), " FROM ", silent!(), unnoticed!()))
        }
        Look::TaskWaiting => {
            connection.prepare_cached(concat!("SELECT ", condition_columns!(), " FROM ", waiting!(), unnoticed!()))
        }
        Look::DeadEvent => {
            connection.prepare_cached(concat!("SELECT ", condition_columns!(), " FROM ", dead_events!(), unnoticed!()))
        }
        Look::NotDelivered => {
            connection.prepare_cached(concat!("SELECT ", condition_columns!(), " FROM ", undelivered!(), unnoticed!()))
        }
        Look::DeadDelivery => {
            connection.prepare_cached(concat!("SELECT ", condition_columns!(), " FROM ", dead_deliveries!(), unnoticed!()))
        }
    }?;
    Ok(statement.query_map(params![name, text(before), look.watch().as_str(), limit], condition)?.collect::<Result<_, _>>()?)
}

fn over(connection: &Connection, look: Look, name: &str, before: Timestamp, limit: usize) -> Result<Vec<Watched>, Error> {
    let mut statement = match look {
        Look::TaskSilent => {
            connection.prepare_cached(concat!("SELECT ", watched_columns!(), of_source!(), silent!(), in_order!()))
        }
        Look::TaskWaiting => {
            connection.prepare_cached(concat!("SELECT ", watched_columns!(), of_source!(), waiting!(), in_order!()))
        }
        Look::DeadEvent => {
            connection.prepare_cached(concat!("SELECT ", watched_columns!(), of_source!(), dead_events!(), in_order!()))
        }
        Look::NotDelivered => {
            connection.prepare_cached(concat!("SELECT ", watched_columns!(), of_destination!(), undelivered!(), in_order!()))
        }
        Look::DeadDelivery => {
            connection.prepare_cached(concat!("SELECT ", watched_columns!(), of_destination!(), dead_deliveries!(), in_order!()))
        }
    }?;
    Ok(statement.query_map(params![name, text(before), look.watch().as_str(), limit], watched)?.collect::<Result<_, _>>()?)
}

fn condition(row: &Row<'_>) -> rusqlite::Result<Condition> {
    let detail: String = row.get(5)?;
    Ok(Condition {
        key: row.get(0)?,
        source: row.get(1)?,
        task_id: row.get(2)?,
        destination: row.get(3)?,
        since: time(row, 4)?.unwrap_or_default(),
        detail: serde_json::from_str(&detail).unwrap_or_default(),
    })
}

fn watched(row: &Row<'_>) -> rusqlite::Result<Watched> {
    Ok(Watched {
        condition: condition(row)?,
        seq: row.get(6)?,
        raised_at: time(row, 7)?.unwrap_or_default(),
        cleared_at: time(row, 8)?,
        event: id(row.get_ref(9)?)?,
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|at| at.parse().ok()))
}

fn noticed(connection: &Connection, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
    let (source, destination) = narrowed(of);
    Ok(connection
        .prepare_cached(concat!(
            "SELECT ",
            watched_columns!(),
            " FROM watches \
             WHERE type = ?1 AND (?2 IS NULL OR source = ?2) AND destination IS ?3 AND cleared_at IS NULL ORDER BY seq"
        ))?
        .query_map(params![watch.as_str(), source, destination], watched)?
        .collect::<Result<_, _>>()?)
}

fn notice(connection: &Connection, watch: Watch, conditions: &[(Condition, Uuid)], now: Timestamp) -> Result<(), Error> {
    for (condition, event) in conditions {
        let Condition { key, source, task_id, destination, since, detail } = condition;
        connection
            .prepare_cached(
                "INSERT INTO watches (type, source, key, task_id, destination, since, detail, raised_at, event) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (type, source, key) DO NOTHING",
            )?
            .execute(params![
                watch.as_str(),
                source,
                key,
                task_id,
                destination,
                text(*since),
                detail.to_string(),
                text(now),
                event.to_string()
            ])?;
    }
    Ok(())
}

fn clear(connection: &Connection, rows: &[(i64, Uuid)], now: Timestamp) -> Result<(), Error> {
    for (row, event) in rows {
        connection
            .prepare_cached(
                "UPDATE watches SET cleared_at = ?2, event = ?3, told = 0 WHERE seq = ?1 AND cleared_at IS NULL AND told = 1",
            )?
            .execute(params![row, text(now), event.to_string()])?;
    }
    Ok(())
}

fn untold(connection: &Connection, watch: Watch, of: &Queue) -> Result<Vec<Watched>, Error> {
    let (source, destination) = narrowed(of);
    Ok(connection
        .prepare_cached(concat!(
            "SELECT ",
            watched_columns!(),
            " FROM watches \
             WHERE told = 0 AND type = ?1 AND (?2 IS NULL OR source = ?2) AND destination IS ?3 ORDER BY since, key"
        ))?
        .query_map(params![watch.as_str(), source, destination], watched)?
        .collect::<Result<_, _>>()?)
}

fn told(connection: &Connection, events: &[Uuid]) -> Result<(), Error> {
    let events: Value = events.iter().map(Uuid::to_string).collect();
    let events = events.to_string();
    connection
        .prepare_cached(
            "DELETE FROM watches WHERE told = 0 AND cleared_at IS NOT NULL AND event IN (SELECT value FROM json_each(?1))",
        )?
        .execute([&events])?;
    connection
        .prepare_cached("UPDATE watches SET told = 1 WHERE told = 0 AND event IN (SELECT value FROM json_each(?1))")?
        .execute([&events])?;
    Ok(())
}

fn unwatch(connection: &Connection, watch: Watch, of: &Queue) -> Result<(), Error> {
    let (source, destination) = narrowed(of);
    connection
        .prepare_cached("DELETE FROM watches WHERE type = ?1 AND (?2 IS NULL OR source = ?2) AND destination IS ?3")?
        .execute(params![watch.as_str(), source, destination])?;
    Ok(())
}

fn webhooks(connection: &Connection, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
    let times: Vec<Option<Timestamp>> = connection
        .prepare_cached(
            "SELECT received_at FROM events WHERE seq > (SELECT coalesce(max(seq), 0) FROM events) - ?3 AND source = ?1 \
             AND received_at > ?2 AND verification NOT IN ('api', 'watch') AND ping = 0 ORDER BY received_at",
        )?
        .query_map(params![source, text(after), NEWEST], |row| time(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(times.into_iter().flatten().collect())
}

fn lost(connection: &Connection, source: &str, after: Timestamp) -> Result<Vec<Timestamp>, Error> {
    let times: Vec<Option<Timestamp>> = connection
        .prepare_cached(
            "SELECT claimed_at FROM stops WHERE claimed_at > ?2 AND source = ?1 AND recovered AND state IN ('finished', 'waiting') \
             ORDER BY claimed_at LIMIT ?3",
        )?
        .query_map(params![source, text(after), NEWEST], |row| time(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(times.into_iter().flatten().collect())
}

fn note_active(connection: &Connection, source: &str, tasks: &[(String, Timestamp)]) -> Result<(), Error> {
    for (task_id, at) in tasks {
        connection
            .prepare_cached(
                "UPDATE tasks SET active_at = ?3 WHERE task_id = ?2 AND source = ?1 AND (active_at IS NULL OR active_at < ?3)",
            )?
            .execute(params![source, task_id, text(*at)])?;
    }
    Ok(())
}

fn watches(connection: &Connection, source: Option<&str>, at: &Page) -> Result<Listed<WatchRow>, Error> {
    let rows = connection
        .prepare_cached(concat!(
            "SELECT ",
            watch_row_columns!(),
            " FROM watches WHERE seq < ?1 AND (?2 IS NULL OR source = ?2) AND cleared_at IS NULL ORDER BY seq DESC LIMIT ?3"
        ))?
        .query_map(params![at.cursor.unwrap_or(i64::MAX), source, at.limit + 1], |row| {
            let detail: String = row.get(7)?;
            Ok((
                row.get(0)?,
                WatchRow {
                    kind: row.get(1)?,
                    source: row.get(2)?,
                    task_id: row.get(3)?,
                    destination: row.get(4)?,
                    since: row.get(5)?,
                    raised_at: row.get(6)?,
                    detail: serde_json::from_str(&detail).unwrap_or_default(),
                    event: row.get(8)?,
                },
            ))
        })?
        .collect::<Result<_, _>>()?;
    Ok(Span::back(at).page(rows))
}

fn watching(connection: &Connection) -> Result<Vec<(String, i64)>, Error> {
    Ok(connection
        .prepare_cached("SELECT type, count(*) FROM watches WHERE cleared_at IS NULL GROUP BY type")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}
