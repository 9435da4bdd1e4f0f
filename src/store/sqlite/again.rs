//! What a person asks for: trying deliveries again, discarding them, replaying events, pausing destinations.
//!
//! What must hold: nothing here starts work beside the usual way. A delivery that is tried again is the same row with the next
//! attempt, in its place in its lane; an event that is replayed proves its task like any other before it goes on. What is meant by a
//! filter is looked for by a reader, a stretch of rows at a time, and done by the writer in steps of a few rows: each looks at
//! the row anew, so that nothing is done twice or to what has changed meanwhile.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::add_job;
use super::{Sqlite, lane, work};
use crate::clock::after;
use crate::store::Error;
use crate::store::model::{Act, Discarded, JobKind, Like, Matching, Replayed, Retried, STEP, Select, text};
use crate::store::view::DestinationCounts;

/// How many rows a reader looks at in one go, however few of them are meant.
const STRETCH: i64 = 10_000;

impl Sqlite {
    pub(in crate::store) async fn retry_delivery(&self, id: &str, now: Timestamp) -> Result<Retried, Error> {
        let id = id.to_owned();
        self.write(move |connection| {
            let Some(row) = delivery(connection, &id)? else { return Ok(Retried::Unknown) };
            retry(connection, row, now)
        })
        .await
    }

    pub(in crate::store) async fn event_seq(&self, id: &str) -> Result<Option<i64>, Error> {
        let id = id.to_owned();
        self.read(move |connection| event(connection, &id)).await
    }

    pub(in crate::store) async fn discard_delivery(&self, id: &str, now: Timestamp) -> Result<Discarded, Error> {
        let id = id.to_owned();
        self.write(move |connection| {
            let Some(row) = delivery(connection, &id)? else { return Ok(Discarded::Unknown) };
            discard(connection, row, now)
        })
        .await
    }

    pub(in crate::store) async fn replay_event(&self, id: &str, now: Timestamp) -> Result<Replayed, Error> {
        let id = id.to_owned();
        self.write_caught_up(now, move |connection, _| {
            let Some(row) = event(connection, &id)? else { return Ok(Replayed::Unknown) };
            replay(connection, row, now)
        })
        .await
    }

    pub(in crate::store) async fn matching(&self, select: Select, after: i64) -> Result<Matching, Error> {
        self.read(move |connection| matching(connection, &select, after)).await
    }

    pub(in crate::store) async fn act(&self, act: Act, rows: Vec<i64>, now: Timestamp) -> Result<usize, Error> {
        match act {
            Act::Replay => self.write_caught_up(now, move |connection, _| do_to(connection, act, &rows, now)).await,
            Act::Retry | Act::Discard => self.write(move |connection| do_to(connection, act, &rows, now)).await,
        }
    }

    pub(in crate::store) async fn pause(&self, destination: &str, now: Timestamp) -> Result<String, Error> {
        let destination = destination.to_owned();
        self.write(move |connection| pause(connection, &destination, now)).await
    }

    pub(in crate::store) async fn resume(&self, destination: &str, now: Timestamp) -> Result<bool, Error> {
        let name = destination.to_owned();
        if !self.read(move |connection| is_paused(connection, &name)).await? {
            return Ok(false);
        }
        let mut after = 0;
        loop {
            let name = destination.to_owned();
            let jobs = self.read(move |connection| impatient(connection, &name, after)).await?;
            let Some(last) = jobs.last() else { break };
            after = *last;
            self.write(move |connection| wait_anew(connection, &jobs, now)).await?;
        }
        let destination = destination.to_owned();
        self.write(move |connection| resume(connection, &destination)).await
    }

    pub(in crate::store) async fn paused(&self) -> Result<Vec<(String, String)>, Error> {
        self.read(paused).await
    }

    pub(in crate::store) async fn destination_counts(&self) -> Result<Vec<DestinationCounts>, Error> {
        self.read(counts).await
    }

    pub(in crate::store) async fn delivery_ids(&self, start: &str, limit: usize) -> Result<Vec<String>, Error> {
        let start = start.to_owned();
        self.read(move |connection| delivery_ids(connection, &start, limit)).await
    }
}

/// Whether nothing may be sent to `destination`.
pub(super) fn is_paused(connection: &Connection, destination: &str) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM paused WHERE destination = ?1)")?
        .query_row([destination], |row| row.get(0))?)
}

/// Does `act` to rows; says to how many.
fn do_to(connection: &Connection, act: Act, rows: &[i64], now: Timestamp) -> Result<usize, Error> {
    let mut done = 0;
    for row in rows {
        done += usize::from(match act {
            Act::Retry => matches!(retry(connection, *row, now)?, Retried::Due | Retried::Behind(_)),
            Act::Discard => discard(connection, *row, now)? == Discarded::Yes,
            Act::Replay => matches!(replay(connection, *row, now)?, Replayed::Yes(_)),
        });
    }
    Ok(done)
}

/// The row of the delivery `id`.
fn delivery(connection: &Connection, id: &str) -> Result<Option<i64>, Error> {
    Ok(connection.prepare_cached("SELECT seq FROM deliveries WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?)
}

/// The row of the event `id`.
fn event(connection: &Connection, id: &str) -> Result<Option<i64>, Error> {
    Ok(connection.prepare_cached("SELECT seq FROM events WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?)
}

/// State of a delivery and of its job, if it has one.
fn stands(connection: &Connection, delivery: i64) -> Result<Option<(String, Option<String>)>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT deliveries.state, jobs.state FROM deliveries \
             LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq WHERE deliveries.seq = ?1",
        )?
        .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// Tries a delivery again: a dead letter joins its lane again, and one that backs off is due now.
fn retry(connection: &Connection, delivery: i64, now: Timestamp) -> Result<Retried, Error> {
    let Some((state, job)) = stands(connection, delivery)? else { return Ok(Retried::Unknown) };
    let behind = match (state.as_str(), job.as_deref()) {
        ("dead", _) => lane::join(connection, delivery, now)?,
        ("pending", Some("leased")) => return Ok(Retried::InFlight),
        ("pending", Some("due")) => {
            connection
                .prepare_cached(
                    "UPDATE jobs SET due_at = min(due_at, ?2), first_attempt = attempt + 1 WHERE kind = 'deliver' AND subject = ?1",
                )?
                .execute(params![delivery, text(now)])?;
            None
        }
        ("pending", _) => before(connection, delivery)?,
        _ => return Ok(Retried::Not(state)),
    };
    let Some(behind) = behind else { return Ok(Retried::Due) };
    let id = connection.prepare_cached("SELECT id FROM deliveries WHERE seq = ?1")?.query_row([behind], |row| row.get(0))?;
    Ok(Retried::Behind(id))
}

/// The delivery that one waits for which waits for its turn.
fn before(connection: &Connection, delivery: i64) -> Result<Option<i64>, Error> {
    let (destination, lane, behind): (String, i64, Option<i64>) = connection
        .prepare_cached(
            "SELECT destination, lane, behind FROM deliveries \
             LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq WHERE deliveries.seq = ?1",
        )?
        .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(lane::first(connection, &destination, lane, Some(delivery))?.filter(|first| *first < delivery).or(behind))
}

/// Gives a delivery up for good. It is kept, and frees its lane.
fn discard(connection: &Connection, delivery: i64, now: Timestamp) -> Result<Discarded, Error> {
    let Some((state, job)) = stands(connection, delivery)? else { return Ok(Discarded::Unknown) };
    match (state.as_str(), job.as_deref()) {
        ("dead", _) => {
            // Why it was dead is still to be seen.
            connection
                .prepare_cached("UPDATE deliveries SET state = 'discarded', ended_at = ?2 WHERE seq = ?1")?
                .execute(params![delivery, text(now)])?;
        }
        ("pending", Some("leased")) => return Ok(Discarded::InFlight),
        ("pending", _) => {
            connection.prepare_cached("DELETE FROM jobs WHERE kind = 'deliver' AND subject = ?1")?.execute([delivery])?;
            lane::end(connection, delivery, "discarded", None, &text(now))?;
        }
        _ => return Ok(Discarded::Not(state)),
    }
    Ok(Discarded::Yes)
}

/// Lets an event go its way again, from the proof of its task on. It must be taken in, also one that is only to be kept.
fn replay(connection: &Connection, event: i64, now: Timestamp) -> Result<Replayed, Error> {
    let found: Option<(String, i64, bool, String, Option<u32>, bool)> = connection
        .prepare_cached(
            "SELECT source, subject, ping, state, replay, released_at IS NOT NULL \
             FROM standing LEFT JOIN replays ON replays.event = seq WHERE seq = ?1",
        )?
        .query_row([event], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))
        .optional()?;
    let Some((source, subject, ping, state, replay, released)) = found else { return Ok(Replayed::Unknown) };
    match state.as_str() {
        _ if ping => return Ok(Replayed::Not("ping".to_owned())),
        "done" | "kept" => {
            connection
                .prepare_cached("INSERT INTO open_events (subject, event, state) VALUES (?1, ?2, 'proving')")?
                .execute([subject, event])?;
        }
        "dead" => {
            connection
                .prepare_cached(
                    "UPDATE open_events SET state = 'proving', reason = NULL, reasons = NULL WHERE subject = ?1 AND event = ?2",
                )?
                .execute([subject, event])?;
        }
        "quarantined" => return Ok(Replayed::Not(state)),
        _ => return Ok(replay.map_or(Replayed::Not(state), Replayed::Already)),
    }
    let at = text(now);
    let number = connection
        .prepare_cached(
            "INSERT INTO replays (event, replay, asked_at) VALUES (?1, 1, ?2) \
             ON CONFLICT (event) DO UPDATE SET replay = replay + 1, asked_at = excluded.asked_at RETURNING replay",
        )?
        .query_row(params![event, at], |row| row.get(0))?;
    add_job(connection, JobKind::Prove.as_str(), &source, subject, &at)?;
    if released {
        work::hurry(connection, subject, &at)?;
    }
    Ok(Replayed::Yes(number))
}

/// What deliveries are narrowed to, beside their state; `?1` is what [`narrowing`] makes.
macro_rules! narrowed {
    () => {
        " AND (?1 ->> 'destination' IS NULL OR deliveries.destination = ?1 ->> 'destination') \
         AND (?1 ->> 'route' IS NULL OR deliveries.route = ?1 ->> 'route') \
         AND (?1 ->> 'source' IS NULL OR events.source = ?1 ->> 'source') AND (?1 ->> 'type' IS NULL OR events.type = ?1 ->> 'type') \
         AND (?1 ->> 'task' IS NULL OR events.task_id = ?1 ->> 'task') \
         AND (?1 ->> 'since' IS NULL OR deliveries.created_at >= ?1 ->> 'since') \
         AND (?1 ->> 'until' IS NULL OR deliveries.created_at < ?1 ->> 'until')"
    };
}

/// Some of the rows that `select` means, behind row `after`.
fn matching(connection: &Connection, select: &Select, after: i64) -> Result<Matching, Error> {
    let (like, newest, sql) = match select {
        Select::Events(like) => (
            like,
            "SELECT max(seq) FROM events",
            "SELECT seq FROM standing WHERE seq > ?2 AND seq <= ?3 AND NOT ping \
             AND (?1 ->> 'source' IS NULL OR source = ?1 ->> 'source') AND (?1 ->> 'type' IS NULL OR type = ?1 ->> 'type') \
             AND (?1 ->> 'task' IS NULL OR task_id = ?1 ->> 'task') \
             AND (?1 ->> 'since' IS NULL OR received_at >= ?1 ->> 'since') \
             AND (?1 ->> 'until' IS NULL OR received_at < ?1 ->> 'until') \
             AND iif(?1 ->> 'state' IS NULL, state IN ('done', 'dead'), state = ?1 ->> 'state') ORDER BY seq LIMIT ?4",
        ),
        Select::Deliveries(like) => (
            like,
            "SELECT max(seq) FROM deliveries",
            match like.state.as_deref() {
                // By the index of what is dead.
                None | Some("dead") => concat!(
                    "SELECT deliveries.seq FROM deliveries JOIN events ON events.seq = deliveries.event \
                     WHERE deliveries.seq > ?2 AND deliveries.seq <= ?3 AND deliveries.state = 'dead'",
                    narrowed!(),
                    " ORDER BY deliveries.seq LIMIT ?4"
                ),
                Some(_) => concat!(
                    "SELECT deliveries.seq FROM deliveries JOIN events ON events.seq = deliveries.event \
                     WHERE deliveries.seq > ?2 AND deliveries.seq <= ?3 AND deliveries.state = ?1 ->> 'state'",
                    narrowed!(),
                    " ORDER BY deliveries.seq LIMIT ?4"
                ),
            },
        ),
    };
    let newest: i64 = connection.prepare_cached(newest)?.query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0)))?;
    let stretch = after.saturating_add(STRETCH);
    let rows: Vec<i64> = connection
        .prepare_cached(sql)?
        .query_map(params![narrowing(like)?, after, stretch, STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let reached = if rows.len() < STEP { stretch } else { rows.last().copied().unwrap_or(stretch) };
    Ok(Matching { rows, next: (reached < newest).then_some(reached) })
}

/// `like` as the statements take it: one value, so that their text is constant.
fn narrowing(like: &Like) -> Result<String, Error> {
    serde_json::to_string(like).map_err(|error| Error::Database(error.to_string()))
}

/// Lets nothing be sent to `destination`; says since when.
fn pause(connection: &Connection, destination: &str, now: Timestamp) -> Result<String, Error> {
    connection
        .prepare_cached("INSERT INTO paused (destination, since) VALUES (?1, ?2) ON CONFLICT (destination) DO NOTHING")?
        .execute(params![destination, text(now)])?;
    Ok(connection
        .prepare_cached("SELECT since FROM paused WHERE destination = ?1")?
        .query_row([destination], |row| row.get(0))?)
}

/// Some deliveries to `destination` that wait for their turn only so long, by their jobs, behind job `after`.
fn impatient(connection: &Connection, destination: &str, after: i64) -> Result<Vec<i64>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT id FROM jobs WHERE id > ?2 AND kind = 'deliver' AND queue = ?1 AND state = 'waiting' AND due_at IS NOT NULL \
             ORDER BY id LIMIT ?3",
        )?
        .query_map(params![destination, after, STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// Lets the patience of deliveries begin anew: while their destination was paused, nothing before them could go.
fn wait_anew(connection: &Connection, jobs: &[i64], now: Timestamp) -> Result<(), Error> {
    for job in jobs {
        let wait: Option<u64> = connection
            .prepare_cached("SELECT order_wait_ms FROM jobs JOIN deliveries ON deliveries.seq = jobs.subject WHERE jobs.id = ?1")?
            .query_row([job], |row| row.get(0))
            .optional()?
            .flatten();
        let Some(wait) = wait else { continue };
        let until = text(after(now, std::time::Duration::from_millis(wait)));
        connection
            .prepare_cached("UPDATE jobs SET due_at = max(due_at, ?2) WHERE id = ?1 AND state = 'waiting'")?
            .execute(params![job, until])?;
    }
    Ok(())
}

/// Lets `destination` be sent to again; says whether it was paused.
fn resume(connection: &Connection, destination: &str) -> Result<bool, Error> {
    Ok(connection.prepare_cached("DELETE FROM paused WHERE destination = ?1")?.execute([destination])? > 0)
}

/// The destinations that are paused, and since when.
fn paused(connection: &Connection) -> Result<Vec<(String, String)>, Error> {
    Ok(connection
        .prepare_cached("SELECT destination, since FROM paused ORDER BY destination")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}

/// How many deliveries wait for each destination, and how many were given up on.
fn counts(connection: &Connection) -> Result<Vec<DestinationCounts>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT destination, sum(pending), sum(dead) FROM \
             (SELECT destination, count(*) AS pending, 0 AS dead FROM deliveries INDEXED BY deliveries_pending WHERE state = 'pending' GROUP BY destination \
             UNION ALL SELECT destination, 0, count(*) FROM deliveries INDEXED BY deliveries_dead WHERE state = 'dead' GROUP BY destination) \
             GROUP BY destination ORDER BY destination",
        )?
        .query_map([], |row| Ok(DestinationCounts { destination: row.get(0)?, pending: row.get(1)?, dead: row.get(2)? }))?
        .collect::<Result<_, _>>()?)
}

/// The ids of deliveries that begin with `start`, at most `limit`.
fn delivery_ids(connection: &Connection, start: &str, limit: usize) -> Result<Vec<String>, Error> {
    Ok(connection
        .prepare_cached("SELECT id FROM deliveries WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT ?2")?
        .query_map(params![start, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}
