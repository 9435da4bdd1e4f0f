//! Where in a list a page begins and ends: by cursors, and by times, which are looked for among the places.

use jiff::Timestamp;
use rusqlite::Connection;

use super::Sqlite;
use crate::store::model::text;
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

/// Which way a page goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// The newest first.
    Back,
    /// The oldest first. Rows come in the order of their places, so the newest is the last that can come. If the newest were erased, their places
    /// are given anew: whoever has seen them goes on from the newest that is left.
    Forth,
}

/// Those that [`Topic::ALL`](crate::store::Topic::ALL) begins with, in its order.
const LISTS: [List; 4] = [List::Events, List::Tasks, List::Deliveries, List::Rejections];

impl Sqlite {
    pub(in crate::store) async fn reach(&self) -> Result<Reach, Error> {
        self.read(|connection| {
            let mut reach = Reach::default();
            for (list, reach) in LISTS.into_iter().zip(&mut reach) {
                *reach = Some(list.newest(connection)?);
            }
            Ok(reach)
        })
        .await
    }
}

impl List {
    /// The place of the newest row.
    fn newest(self, connection: &Connection) -> Result<i64, Error> {
        let sql = match self {
            Self::Events => "SELECT coalesce(max(seq), 0) FROM events",
            Self::Deliveries => "SELECT coalesce(max(seq), 0) FROM deliveries",
            Self::Tasks => "SELECT coalesce(max(seq), 0) FROM tasks",
            Self::Rejections => "SELECT coalesce(max(id), 0) FROM rejections",
        };
        Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// The place of the first row that is not older than `at`, found by halves.
    fn first(self, connection: &Connection, at: Timestamp) -> Result<i64, Error> {
        macro_rules! first {
            ($table:literal, $time:literal) => {
                concat!(
                    "WITH RECURSIVE look (low, high) AS (SELECT (SELECT min(seq) FROM ",
                    $table,
                    "), (SELECT max(seq) FROM ",
                    $table,
                    ") + 1 UNION ALL SELECT iif((SELECT ",
                    $time,
                    " FROM ",
                    $table,
                    " WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1) < ?1, (low + high) / 2 + 1, low), iif((SELECT ",
                    $time,
                    " FROM ",
                    $table,
                    " WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1) < ?1, high, (low + high) / 2) \
                     FROM look WHERE low < high) SELECT coalesce(min(low), 0) FROM look WHERE low >= high"
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
        Ok(connection.prepare_cached(sql)?.query_row([text(at)], |row| row.get(0))?)
    }

    /// The part of the list that `page` asks for, no longer than what came from `since` to `until` may be.
    pub(super) fn span(
        self,
        connection: &Connection,
        way: Way,
        page: &Page,
        (since, until): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Span, Error> {
        let mut span = match way {
            Way::Back => Span::back(page),
            Way::Forth => Span::forth(page, self.newest(connection)?),
        };
        if matches!(self, Self::Rejections) {
            return Ok(span);
        }
        let places = |[one, other]: [Timestamp; 2]| -> Result<_, Error> {
            Ok([self.first(connection, one)?, self.first(connection, other)?])
        };
        if let Some(since) = since {
            span.begin(places(Span::beginning(since))?);
        }
        if let Some(until) = until {
            span.end(places(Span::ending(until))?);
        }
        Ok(span)
    }
}
