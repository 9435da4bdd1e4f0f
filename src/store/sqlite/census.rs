//! How much there is of what, by source.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{Sqlite, series};
use crate::store::Error;
use crate::store::census::SourceCounts;
use crate::store::model::text;
use crate::store::view::NEWEST;

impl Sqlite {
    pub(in crate::store) async fn source_counts(&self) -> Result<Vec<SourceCounts>, Error> {
        self.read(source_counts).await
    }

    pub(in crate::store) async fn accepted(&self, since: Timestamp, now: Timestamp) -> Result<Vec<(String, i64)>, Error> {
        self.read(move |connection| accepted(connection, &text(since), &text(now))).await
    }
}

fn source_counts(connection: &Connection) -> Result<Vec<SourceCounts>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT source, max(heard), coalesce(sum(open), 0), coalesce(sum(waiting), 0) FROM (\
             SELECT source, max(received_at) AS heard, NULL AS open, NULL AS waiting FROM events \
             WHERE seq > (SELECT coalesce(max(seq), 0) FROM events) - ?1 AND verification NOT IN ('api', 'watch') AND ping = 0 \
             GROUP BY source UNION ALL \
             SELECT source, NULL, count(*), count(*) FILTER (WHERE state = 'waiting') FROM tasks INDEXED BY tasks_open \
             WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL GROUP BY source) \
             GROUP BY source ORDER BY source",
        )?
        .query_map([NEWEST], |row| {
            let heard: Option<String> = row.get(1)?;
            let last_webhook_at = heard.and_then(|at| at.parse().ok());
            Ok(SourceCounts { source: row.get(0)?, last_webhook_at, open: row.get(2)?, waiting: row.get(3)? })
        })?
        .collect::<Result<_, _>>()?)
}

fn accepted(connection: &Connection, since: &str, now: &str) -> Result<Vec<(String, i64)>, Error> {
    let before = series::newest(connection, since, 0, now)?;
    Ok(connection
        .prepare_cached("SELECT source, count(*) FROM events WHERE seq > ?1 GROUP BY source ORDER BY source")?
        .query_map(params![before], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}
