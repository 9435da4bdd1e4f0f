//! Samples: what is counted for them, and their rows, of which each replica may make the next.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::Postgres;
use super::session::{Tx, args, known, transact};
use crate::store::Error;
use crate::store::series::{BACK, Counts, Due, Mark, SPREAD, Sample, Span, Undone, lasted};

/// A time to come that the database knows.
const LAST: Timestamp = Timestamp::constant(253_370_764_800, 0);

impl Postgres {
    pub(in crate::store) async fn samples(&self, span: Span, since: Timestamp, until: Timestamp) -> Result<Vec<Sample>, Error> {
        transact!(self.sessions(), Read, |tx| samples(&tx, span, known(since), until.min(LAST)))
    }

    pub(in crate::store) async fn mark(&self, begin: Timestamp) -> Result<Option<Mark>, Error> {
        transact!(self.sessions(), Read, |tx| mark(&tx, known(begin)))
    }

    pub(in crate::store) async fn count(
        &self,
        begin: Timestamp,
        end: Timestamp,
        since: Option<i64>,
        now: Timestamp,
    ) -> Result<Counts, Error> {
        transact!(self.sessions(), Read, |tx| count(&tx, known(begin), known(end), since, now))
    }

    pub(in crate::store) async fn undone(&self) -> Result<Undone, Error> {
        transact!(self.sessions(), Read, |tx| undone(&tx))
    }

    pub(in crate::store) async fn due(&self, now: Timestamp) -> Result<Vec<Due>, Error> {
        transact!(self.sessions(), Read, |tx| due(&tx, now))
    }

    pub(in crate::store) async fn times(&self, begin: Timestamp, end: Timestamp, share: i64) -> Result<Vec<i64>, Error> {
        transact!(self.sessions(), Read, |tx| times(&tx, known(begin), known(end), share))
    }

    pub(in crate::store) async fn keep_sample(
        &self,
        sample: Sample,
        mark: Option<Mark>,
        before: Timestamp,
        after: Timestamp,
    ) -> Result<bool, Error> {
        transact!(self.sessions(), Write, |tx| keep(&tx, &sample, mark, known(before), after.min(LAST)))
    }
}

async fn samples(tx: &Tx, span: Span, since: Timestamp, until: Timestamp) -> Result<Vec<Sample>, Error> {
    let sql = "SELECT at, events, rejections, recovered, delivered, failed, dead, backlog, oldest_seconds, median_ms, p95_ms, credits \
               FROM samples WHERE span = $1 AND at >= $2 AND at < $3 ORDER BY at";
    let sample = |row: &Row| Sample {
        at: row.get(0),
        span,
        events: row.get(1),
        rejections: row.get(2),
        recovered: row.get(3),
        delivered: row.get(4),
        failed: row.get(5),
        dead: row.get(6),
        backlog: row.get(7),
        oldest_seconds: row.get(8),
        median_ms: row.get(9),
        p95_ms: row.get(10),
        credits: row.get(11),
    };
    Ok(tx.rows(sql, args![span.seconds(), since, until]).await?.iter().map(sample).collect())
}

async fn mark(tx: &Tx, begin: Timestamp) -> Result<Option<Mark>, Error> {
    let sql = "SELECT at, newest, credits_ever FROM samples WHERE span = 60 AND at <= $1 ORDER BY at DESC LIMIT 1";
    let row = tx.maybe(sql, args![begin]).await?;
    Ok(row.map(|row| Mark { at: row.get(0), newest: row.get(1), credits: row.get(2) }))
}

/// The newest events behind `$2`, of which so many are gone through at most.
macro_rules! newest_events {
    () => {
        "(SELECT seq, received_at FROM events WHERE seq > $2 ORDER BY seq DESC LIMIT $4) AS newest"
    };
}

/// The newest event behind `since` that was accepted before `at`; what is of a time to come was accepted before as well, by a clock that
/// was wrong.
pub(super) async fn newest(tx: &Tx, at: Timestamp, since: i64, now: Timestamp) -> Result<i64, Error> {
    let sql = concat!(
        "SELECT coalesce((SELECT seq FROM ",
        newest_events!(),
        " WHERE received_at < $1 OR received_at > $3 LIMIT 1), (SELECT min(seq) - 1 FROM ",
        newest_events!(),
        "), $2::bigint)"
    );
    Ok(tx.row(sql, args![at, since, now, BACK]).await?.get(0))
}

async fn count(tx: &Tx, begin: Timestamp, end: Timestamp, since: Option<i64>, now: Timestamp) -> Result<Counts, Error> {
    let since = match since {
        Some(since) => since,
        None => newest(tx, begin, 0, now).await?,
    };
    let newest = newest(tx, end, since, now).await?;
    // Places are given before it is known whether an event is new: some are nobody's. The attempt 0 stands for what may have been sent
    // before a restore.
    let sql = "SELECT (SELECT count(*) FROM events WHERE seq > $3 AND seq <= $4), \
               (SELECT count(*) FROM rejections WHERE received_at >= $1 AND received_at < $2), \
               (SELECT count(*) FROM stops WHERE claimed_at >= $1 AND claimed_at < $2 AND recovered), \
               (SELECT count(*) FROM deliveries WHERE state = 'delivered' AND ended_at >= $1 AND ended_at < $2), \
               (SELECT count(*) FROM attempts WHERE outcome <> 'delivered' AND ended_at >= $1 AND ended_at < $2 AND attempt > 0), \
               (SELECT coalesce(sum(credits), 0.0) FROM spending)";
    let row = tx.row(sql, args![begin, end, since, newest]).await?;
    Ok(Counts {
        newest,
        events: row.get(0),
        rejections: row.get(1),
        recovered: row.get(2),
        delivered: row.get(3),
        failed: row.get(4),
        credits: row.get(5),
    })
}

async fn undone(tx: &Tx) -> Result<Undone, Error> {
    let sql = "SELECT (SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'dead') \
               + (SELECT count(*) FROM deliveries WHERE state = 'dead'), \
               (SELECT count(*) FROM jobs) + (SELECT count(*) FROM intake)";
    let row = tx.row(sql, &[]).await?;
    Ok(Undone { dead: row.get(0), backlog: row.get(1) })
}

async fn due(tx: &Tx, now: Timestamp) -> Result<Vec<Due>, Error> {
    // What is not taken in yet is due to be proven.
    let due = tx
        .rows(
            "SELECT kind, min(due_at) FROM (SELECT kind, due_at FROM jobs WHERE due_at IS NOT NULL AND due_at <= $1 \
             AND NOT (kind = 'deliver' AND queue IN (SELECT destination FROM paused)) \
             UNION ALL (SELECT 'prove', received_at FROM intake JOIN events ON events.seq = intake.event WHERE NOT kept \
             ORDER BY intake.event LIMIT 1)) AS due GROUP BY kind ORDER BY kind",
            args![now],
        )
        .await?;
    Ok(due.iter().map(|row| Due { kind: row.get(0), since: row.get(1) }).collect())
}

async fn times(tx: &Tx, begin: Timestamp, end: Timestamp, share: i64) -> Result<Vec<i64>, Error> {
    let sql = "SELECT received_at, ended_at FROM deliveries JOIN events ON events.seq = deliveries.event \
               WHERE state = 'delivered' AND ended_at >= $1 AND ended_at < $2 AND (deliveries.seq * 7919) % $4 < $3 AND replay = 0";
    Ok(tx.rows(sql, args![begin, end, share, SPREAD]).await?.iter().map(|row| lasted(row.get(0), row.get(1))).collect())
}

async fn keep(tx: &Tx, sample: &Sample, mark: Option<Mark>, before: Timestamp, after: Timestamp) -> Result<bool, Error> {
    let sql = "DELETE FROM samples WHERE span = $1 AND (at < $2 OR at > $3)";
    tx.run(sql, args![sample.span.seconds(), before, after]).await?;
    let kept = tx
        .run(
            "INSERT INTO samples (span, at, events, rejections, recovered, delivered, failed, dead, backlog, oldest_seconds, median_ms, \
             p95_ms, credits, newest, credits_ever) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT (span, at) DO NOTHING",
            args![
                sample.span.seconds(),
                sample.at,
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
            ],
        )
        .await?;
    Ok(kept > 0)
}
