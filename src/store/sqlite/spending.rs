//! What tasks cost, by source.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Sqlite;
use crate::store::Error;
use crate::store::model::text;
use crate::store::spending::counts_at;
use crate::task::Task;

impl Sqlite {
    pub(in crate::store) async fn spending(
        &self,
        source: Option<&str>,
        from: Timestamp,
    ) -> Result<Vec<(String, Timestamp, f64)>, Error> {
        let source = source.map(str::to_owned);
        self.read(move |connection| spending(connection, source.as_deref(), from)).await
    }

    pub(in crate::store) async fn spent_ever(&self) -> Result<Vec<(String, f64)>, Error> {
        self.read(spent_ever).await
    }
}

/// Adds what is new of the credits of a task, before they are kept with it.
pub(super) fn add(connection: &Connection, task: i64, told: &Task, at: &str) -> Result<(), Error> {
    let Some(credits) = told.credits else { return Ok(()) };
    let at = text(counts_at(told, at.parse().unwrap_or_default()));
    connection
        .prepare_cached(
            "INSERT INTO spending (source, at, credits) SELECT source, ?2, ?3 - coalesce(credits, 0) FROM tasks \
             WHERE seq = ?1 AND ?3 > coalesce(credits, 0) ON CONFLICT (source, at) DO UPDATE SET credits = credits + excluded.credits",
        )?
        .execute(params![task, at, credits])?;
    Ok(())
}

fn spending(connection: &Connection, source: Option<&str>, from: Timestamp) -> Result<Vec<(String, Timestamp, f64)>, Error> {
    let rows: Vec<(String, String, f64)> = connection
        .prepare_cached("SELECT source, at, credits FROM spending WHERE (?1 IS NULL OR source = ?1) AND at >= ?2")?
        .query_map(params![source, text(from)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter_map(|(source, at, credits)| Some((source, at.parse().ok()?, credits))).collect())
}

fn spent_ever(connection: &Connection) -> Result<Vec<(String, f64)>, Error> {
    Ok(connection
        .prepare_cached("SELECT source, sum(credits) FROM spending GROUP BY source")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}
