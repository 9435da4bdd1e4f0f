//! What tasks cost and used, by source.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::Sqlite;
use crate::store::Error;
use crate::store::model::text;
use crate::store::spending::{Amounts, counts_at, tells, tokens};
use crate::task::Task;

impl Sqlite {
    pub(in crate::store) async fn spending(
        &self,
        source: Option<&str>,
        from: Timestamp,
    ) -> Result<Vec<(String, Timestamp, Amounts)>, Error> {
        let source = source.map(str::to_owned);
        self.read(move |connection| spending(connection, source.as_deref(), from)).await
    }

    pub(in crate::store) async fn spent_ever(&self) -> Result<Vec<(String, Amounts)>, Error> {
        self.read(spent_ever).await
    }
}

/// Adds what is new of the cost of a task, before that is kept with it.
pub(super) fn add(connection: &Connection, task: i64, told: &Task, at: &str) -> Result<(), Error> {
    if !tells(told) {
        return Ok(());
    }
    let quarter = text(counts_at(told, at.parse().unwrap_or_default()));
    let usage = &told.usage;
    let (read, written) = (tokens(usage.input_tokens), tokens(usage.output_tokens));
    connection
        .prepare_cached(
            "INSERT INTO spending (source, at, credits, input_tokens, output_tokens, compute_seconds, cost_usd) \
             SELECT source, ?2, coalesce(?3 - coalesce(credits, 0), 0), coalesce(?4 - coalesce(input_tokens, 0), 0), \
             coalesce(?5 - coalesce(output_tokens, 0), 0), coalesce(?6 - coalesce(compute_seconds, 0), 0), \
             coalesce(?7 - coalesce(cost_usd, 0), 0) FROM tasks WHERE seq = ?1 AND (credits, input_tokens, output_tokens, \
             compute_seconds, cost_usd) IS NOT (coalesce(?3, credits), coalesce(?4, input_tokens), coalesce(?5, output_tokens), \
             coalesce(?6, compute_seconds), coalesce(?7, cost_usd)) \
             ON CONFLICT (source, at) DO UPDATE SET credits = credits + excluded.credits, \
             input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens, \
             compute_seconds = compute_seconds + excluded.compute_seconds, cost_usd = cost_usd + excluded.cost_usd",
        )?
        .execute(params![task, quarter, told.credits, read, written, usage.compute_seconds, usage.cost_usd])?;
    Ok(())
}

fn amounts(row: &Row<'_>, first: usize) -> rusqlite::Result<Amounts> {
    Ok(Amounts {
        credits: row.get(first)?,
        input_tokens: row.get(first + 1)?,
        output_tokens: row.get(first + 2)?,
        compute_seconds: row.get(first + 3)?,
        cost_usd: row.get(first + 4)?,
    })
}

fn spending(connection: &Connection, source: Option<&str>, from: Timestamp) -> Result<Vec<(String, Timestamp, Amounts)>, Error> {
    let rows: Vec<(String, String, Amounts)> = connection
        .prepare_cached(
            "SELECT source, at, credits, input_tokens, output_tokens, compute_seconds, cost_usd FROM spending \
             WHERE (?1 IS NULL OR source = ?1) AND at >= ?2",
        )?
        .query_map(params![source, text(from)], |row| Ok((row.get(0)?, row.get(1)?, amounts(row, 2)?)))?
        .collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter_map(|(source, at, amounts)| Some((source, at.parse().ok()?, amounts))).collect())
}

fn spent_ever(connection: &Connection) -> Result<Vec<(String, Amounts)>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT source, sum(credits), sum(input_tokens), sum(output_tokens), sum(compute_seconds), sum(cost_usd) FROM spending \
             GROUP BY source",
        )?
        .query_map([], |row| Ok((row.get(0)?, amounts(row, 1)?)))?
        .collect::<Result<_, _>>()?)
}
