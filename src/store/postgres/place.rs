//! Where in a list a page begins and ends: by cursors, by times, which are looked for among the places, and by what is settled.
//!
//! What must hold: who reads a list forth sees each row once. Places are given when a row is inserted, and rows are seen when their
//! transactions are committed, in another order. So a list is read forth no further than to a place below which nothing can come any
//! more. A transaction that inserts holds a lock on the table before it asks for a place, until it has ended: whoever holds none has
//! ended, or its places are newer than the newest row that was seen before.

use std::time::Duration;

use jiff::Timestamp;

use super::Postgres;
use super::session::{Sessions, Tx, args, known, transact};
use crate::store::view::{Page, Span};
use crate::store::{Error, Reach};

/// A list that has pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum List {
    Events,
    Deliveries,
    Tasks,
    Rejections,
}

/// How long transactions that are on their way are waited for at first, twice as long each time after,
const SHORTLY: Duration = Duration::from_millis(2);
/// and in all: then a list that is read forth ends where it began.
const PATIENCE: Duration = Duration::from_millis(500);

impl Postgres {
    pub(in crate::store) async fn reach(&self) -> Result<Reach, Error> {
        transact!(self.sessions(), Read, |tx| reach(&tx))
    }
}

/// The lists that [`Topic::ALL`](crate::store::Topic::ALL) begins with, in its order, in one statement: it is asked for all the time.
async fn reach(tx: &Tx) -> Result<Reach, Error> {
    let sql = "WITH held AS MATERIALIZED (SELECT DISTINCT relation FROM pg_locks WHERE mode = 'RowExclusiveLock' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) \
               SELECT newest, NOT EXISTS (SELECT FROM held WHERE relation = list::regclass) FROM (VALUES \
               (1, 'events', (SELECT coalesce(max(seq), 0) FROM events)), (2, 'tasks', (SELECT coalesce(max(seq), 0) FROM tasks)), \
               (3, 'deliveries', (SELECT coalesce(max(seq), 0) FROM deliveries)), \
               (4, 'rejections', (SELECT coalesce(max(id), 0) FROM rejections))) AS lists (number, list, newest) ORDER BY number";
    let mut reach = Reach::default();
    for (row, reach) in tx.rows(sql, args![]).await?.iter().zip(&mut reach) {
        let (newest, is_settled): (i64, bool) = (row.get(0), row.get(1));
        *reach = is_settled.then_some(newest);
    }
    Ok(reach)
}

impl List {
    /// Of a transaction that has inserted, or may, its number; and the newest row, as it was seen before.
    fn under_way(self) -> &'static str {
        match self {
            Self::Events => {
                "SELECT (SELECT coalesce(max(seq), 0) FROM events), ARRAY(SELECT DISTINCT virtualtransaction FROM pg_locks WHERE \
                 relation = 'events'::regclass AND mode = 'RowExclusiveLock' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
            }
            Self::Deliveries => {
                "SELECT (SELECT coalesce(max(seq), 0) FROM deliveries), ARRAY(SELECT DISTINCT virtualtransaction FROM pg_locks WHERE \
                 relation = 'deliveries'::regclass AND mode = 'RowExclusiveLock' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
            }
            Self::Tasks => {
                "SELECT (SELECT coalesce(max(seq), 0) FROM tasks), ARRAY(SELECT DISTINCT virtualtransaction FROM pg_locks WHERE \
                 relation = 'tasks'::regclass AND mode = 'RowExclusiveLock' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
            }
            Self::Rejections => {
                "SELECT (SELECT coalesce(max(id), 0) FROM rejections), ARRAY(SELECT DISTINCT virtualtransaction FROM pg_locks WHERE \
                 relation = 'rejections'::regclass AND mode = 'RowExclusiveLock' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
            }
        }
    }

    /// The place of the newest row below which nothing can come any more, if it is newer than `cursor`. It is no older than the newest row of
    /// now, unless transactions take too long.
    pub(super) async fn settled(self, sessions: &Sessions, cursor: Option<i64>) -> Result<i64, Error> {
        let cursor = cursor.unwrap_or(0);
        let (newest, mut holders): (i64, Vec<String>) = transact!(sessions, Read, |tx| self.look(&tx))?;
        let (mut wait, mut waited) = (SHORTLY, Duration::ZERO);
        // Where nothing is newer, nothing is held back.
        while newest > cursor && !holders.is_empty() {
            if waited > PATIENCE {
                return Ok(cursor);
            }
            tokio::time::sleep(wait).await;
            (wait, waited) = (wait * 2, waited + wait);
            // Those that have begun since are given newer places.
            let (_, now) = transact!(sessions, Read, |tx| self.look(&tx))?;
            holders.retain(|holder| now.contains(holder));
        }
        Ok(newest)
    }

    async fn look(self, tx: &Tx) -> Result<(i64, Vec<String>), Error> {
        let row = tx.row(self.under_way(), &[]).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// The place of the first row that is not older than `at`, found by halves.
    async fn first(self, tx: &Tx, at: Timestamp) -> Result<i64, Error> {
        macro_rules! first {
            ($table:literal, $time:literal) => {
                concat!(
                    "WITH RECURSIVE look (low, high) AS (SELECT (SELECT min(seq) FROM ",
                    $table,
                    "), (SELECT max(seq) FROM ",
                    $table,
                    ") + 1 UNION ALL SELECT CASE WHEN at < $1 THEN middle + 1 ELSE low END, CASE WHEN at < $1 THEN high ELSE middle END \
                     FROM look CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle, (SELECT ",
                    $time,
                    " FROM ",
                    $table,
                    " WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1) AS at) AS found WHERE low < high) \
                     SELECT coalesce(min(low), 0) FROM look WHERE low >= high"
                )
            };
        }
        let sql = match self {
            Self::Events => first!("events", "received_at"),
            Self::Deliveries => first!("deliveries", "created_at"),
            Self::Tasks => first!("tasks", "first_seen_at"),
            // They are few.
            Self::Rejections => return Ok(0),
        };
        Ok(tx.row(sql, args![at]).await?.get(0))
    }

    /// The part of the list that `page` asks for: the newest first, or, where `settled` says how far, the oldest. It is no longer than what came
    /// from `since` to `until` may be.
    pub(super) async fn span(
        self,
        tx: &Tx,
        page: &Page,
        settled: Option<i64>,
        (since, until): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Span, Error> {
        let mut span = match settled {
            None => Span::back(page),
            Some(settled) => Span::forth(page, settled),
        };
        if matches!(self, Self::Rejections) {
            return Ok(span);
        }
        if let Some(since) = since {
            let [early, exact] = Span::beginning(since).map(known);
            span.begin([self.first(tx, early).await?, self.first(tx, exact).await?]);
        }
        if let Some(until) = until {
            let [exact, late] = Span::ending(until).map(known);
            span.end([self.first(tx, exact).await?, self.first(tx, late).await?]);
        }
        Ok(span)
    }
}
