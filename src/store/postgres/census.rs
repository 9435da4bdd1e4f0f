//! How much there is of what, by source.

use jiff::Timestamp;

use super::session::{Tx, args, known, transact};
use super::{Postgres, series};
use crate::store::Error;
use crate::store::census::SourceCounts;
use crate::store::view::NEWEST;

impl Postgres {
    pub(in crate::store) async fn source_counts(&self) -> Result<Vec<SourceCounts>, Error> {
        transact!(self.sessions(), Read, |tx| source_counts(&tx))
    }

    pub(in crate::store) async fn accepted(&self, since: Timestamp, now: Timestamp) -> Result<Vec<(String, i64)>, Error> {
        transact!(self.sessions(), Read, |tx| accepted(&tx, known(since), now))
    }
}

async fn source_counts(tx: &Tx) -> Result<Vec<SourceCounts>, Error> {
    let sql = "SELECT source, max(heard), coalesce(sum(open), 0)::bigint, coalesce(sum(waiting), 0)::bigint FROM (\
               SELECT source, max(received_at) AS heard, NULL::bigint AS open, NULL::bigint AS waiting FROM events \
               WHERE seq > (SELECT coalesce(max(seq), 0) FROM events) - $1 AND verification NOT IN ('api', 'watch') AND NOT ping \
               GROUP BY source UNION ALL \
               SELECT source, NULL, count(*), count(*) FILTER (WHERE state = 'waiting') FROM tasks \
               WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting')) AND proof IS NOT NULL GROUP BY source) AS counts \
               GROUP BY source ORDER BY source";
    let rows = tx.rows(sql, args![NEWEST]).await?;
    let counts = rows.iter().map(|row| SourceCounts {
        source: row.get(0),
        last_webhook_at: row.get(1),
        open: row.get(2),
        waiting: row.get(3),
    });
    Ok(counts.collect())
}

async fn accepted(tx: &Tx, since: Timestamp, now: Timestamp) -> Result<Vec<(String, i64)>, Error> {
    let before = series::newest(tx, since, 0, now).await?;
    let sql = "SELECT source, count(*) FROM events WHERE seq > $1 GROUP BY source ORDER BY source";
    Ok(tx.rows(sql, args![before]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}
