//! Samples: what is counted for them, and their rows.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use crate::store::Error;
use crate::store::model::text;
use crate::store::series::{BACK, Counts, Due, Mark, SPREAD, Sample, Span, Undone, lasted};

impl Sqlite {
    pub(in crate::store) async fn samples(&self, span: Span, since: Timestamp, until: Timestamp) -> Result<Vec<Sample>, Error> {
        self.read(move |connection| samples(connection, span, &text(since), &text(until))).await
    }

    pub(in crate::store) async fn mark(&self, begin: Timestamp) -> Result<Option<Mark>, Error> {
        self.read(move |connection| mark(connection, &text(begin))).await
    }

    pub(in crate::store) async fn count(
        &self,
        begin: Timestamp,
        end: Timestamp,
        since: Option<i64>,
        now: Timestamp,
    ) -> Result<Counts, Error> {
        self.read(move |connection| count(connection, &text(begin), &text(end), since, &text(now))).await
    }

    pub(in crate::store) async fn undone(&self) -> Result<Undone, Error> {
        self.read(undone).await
    }

    pub(in crate::store) async fn due(&self, now: Timestamp) -> Result<Vec<Due>, Error> {
        self.read(move |connection| due(connection, &text(now))).await
    }

    pub(in crate::store) async fn times(&self, begin: Timestamp, end: Timestamp, share: i64) -> Result<Vec<i64>, Error> {
        self.read(move |connection| times(connection, &text(begin), &text(end), share)).await
    }

    pub(in crate::store) async fn keep_sample(
        &self,
        sample: Sample,
        mark: Option<Mark>,
        before: Timestamp,
        after: Timestamp,
    ) -> Result<bool, Error> {
        self.write(move |connection| keep(connection, &sample, mark, &text(before), &text(after))).await
    }
}

/// A time in a column.
fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(row.get_ref(column)?.as_str()?.parse().unwrap_or_default())
}

fn samples(connection: &Connection, span: Span, since: &str, until: &str) -> Result<Vec<Sample>, Error> {
    let sample = |row: &Row<'_>| {
        Ok(Sample {
            at: time(row, 0)?,
            span,
            events: row.get(1)?,
            rejections: row.get(2)?,
            recovered: row.get(3)?,
            delivered: row.get(4)?,
            failed: row.get(5)?,
            dead: row.get(6)?,
            backlog: row.get(7)?,
            oldest_seconds: row.get(8)?,
            median_ms: row.get(9)?,
            p95_ms: row.get(10)?,
            credits: row.get(11)?,
        })
    };
    Ok(connection
        .prepare_cached(
            "SELECT at, events, rejections, recovered, delivered, failed, dead, backlog, oldest_seconds, median_ms, p95_ms, credits \
             FROM samples WHERE span = ?1 AND at >= ?2 AND at < ?3 ORDER BY at",
        )?
        .query_map(params![span.seconds(), since, until], sample)?
        .collect::<Result<_, _>>()?)
}

fn mark(connection: &Connection, begin: &str) -> Result<Option<Mark>, Error> {
    Ok(connection
        .prepare_cached("SELECT at, newest, credits_ever FROM samples WHERE span = 60 AND at <= ?1 ORDER BY at DESC LIMIT 1")?
        .query_row([begin], |row| Ok(Mark { at: time(row, 0)?, newest: row.get(1)?, credits: row.get(2)? }))
        .optional()?)
}

/// The newest events behind `?2`, of which so many are gone through at most.
macro_rules! newest_events {
    () => {
        "(SELECT seq, received_at FROM events WHERE seq > ?2 ORDER BY seq DESC LIMIT ?4)"
    };
}

/// The newest event behind `since` that was accepted before `at`; what is of a time to come was accepted before as well, by a clock that
/// was wrong.
pub(super) fn newest(connection: &Connection, at: &str, since: i64, now: &str) -> Result<i64, Error> {
    Ok(connection
        .prepare_cached(concat!(
            "SELECT coalesce((SELECT seq FROM ",
            newest_events!(),
            " WHERE received_at < ?1 OR received_at > ?3 LIMIT 1), (SELECT min(seq) - 1 FROM ",
            newest_events!(),
            "), ?2)"
        ))?
        .query_row(params![at, since, now, BACK], |row| row.get(0))?)
}

fn count(connection: &Connection, begin: &str, end: &str, since: Option<i64>, now: &str) -> Result<Counts, Error> {
    let since = since.map_or_else(|| newest(connection, begin, 0, now), Ok)?;
    let newest = newest(connection, end, since, now)?;
    let number = |sql: &str| connection.prepare_cached(sql)?.query_row([begin, end], |row| row.get::<_, i64>(0));
    Ok(Counts {
        newest,
        // Places are given without a gap. What was removed since was accepted all the same.
        events: (newest - since).max(0),
        rejections: number("SELECT count(*) FROM rejections WHERE received_at >= ?1 AND received_at < ?2")?,
        recovered: number("SELECT count(*) FROM stops WHERE claimed_at >= ?1 AND claimed_at < ?2 AND recovered")?,
        delivered: number("SELECT count(*) FROM deliveries WHERE state = 'delivered' AND ended_at >= ?1 AND ended_at < ?2")?,
        // The attempt 0 stands for what may have been sent before a restore.
        failed: number(
            "SELECT count(*) FROM attempts WHERE outcome <> 'delivered' AND ended_at >= ?1 AND ended_at < ?2 AND attempt > 0",
        )?,
        credits: connection
            .prepare_cached("SELECT coalesce(sum(credits), 0.0) FROM spending")?
            .query_row([], |row| row.get(0))?,
    })
}

fn undone(connection: &Connection) -> Result<Undone, Error> {
    let number = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let dead = number("SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'dead'")?
        + number("SELECT count(*) FROM deliveries WHERE state = 'dead'")?;
    let backlog = number(
        "SELECT (SELECT count(*) FROM jobs) + max(0, coalesce((SELECT max(seq) FROM events), 0) - (SELECT taken FROM intake))",
    )?;
    Ok(Undone { dead, backlog })
}

fn due(connection: &Connection, now: &str) -> Result<Vec<Due>, Error> {
    // What is not taken in yet is due to be proven.
    Ok(connection
        .prepare_cached(
            "SELECT kind, min(due_at) FROM (SELECT kind, due_at FROM jobs WHERE due_at IS NOT NULL AND due_at <= ?1 \
             AND NOT (kind = 'deliver' AND queue IN (SELECT destination FROM paused)) \
             UNION ALL SELECT * FROM (SELECT 'prove', received_at FROM events WHERE seq > (SELECT taken FROM intake) AND NOT kept \
             ORDER BY seq LIMIT 1)) GROUP BY kind ORDER BY kind",
        )?
        .query_map([now], |row| Ok(Due { kind: row.get(0)?, since: time(row, 1)? }))?
        .collect::<Result<_, _>>()?)
}

fn times(connection: &Connection, begin: &str, end: &str, share: i64) -> Result<Vec<i64>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT received_at, ended_at FROM deliveries JOIN events ON events.seq = deliveries.event \
             WHERE state = 'delivered' AND ended_at >= ?1 AND ended_at < ?2 AND (deliveries.seq * 7919) % ?4 < ?3 AND replay = 0",
        )?
        .query_map(params![begin, end, share, SPREAD], |row| Ok(lasted(time(row, 0)?, time(row, 1)?)))?
        .collect::<Result<_, _>>()?)
}

fn keep(connection: &Connection, sample: &Sample, mark: Option<Mark>, before: &str, after: &str) -> Result<bool, Error> {
    connection.prepare_cached("DELETE FROM samples WHERE span = ?1 AND (at < ?2 OR at > ?3)")?.execute(params![
        sample.span.seconds(),
        before,
        after
    ])?;
    let kept = connection
        .prepare_cached(
            "INSERT INTO samples (span, at, events, rejections, recovered, delivered, failed, dead, backlog, oldest_seconds, median_ms, \
             p95_ms, credits, newest, credits_ever) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
             ON CONFLICT (span, at) DO NOTHING",
        )?
        .execute(params![
            sample.span.seconds(),
            text(sample.at),
            sample.events,
            sample.rejections,
            sample.recovered,
            sample.delivered,
            sample.failed,
            sample.dead,
            sample.backlog,
            sample.oldest_seconds,
            sample.median_ms,
            sample.p95_ms,
            sample.credits,
            mark.map(|mark| mark.newest),
            mark.map(|mark| mark.credits),
        ])?;
    Ok(kept > 0)
}
