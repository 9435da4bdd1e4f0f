//! What tasks cost, by source.

use jiff::Timestamp;

use super::Postgres;
use super::session::{Tx, args, column, known, transact};
use crate::store::Error;
use crate::store::spending::counts_at;
use crate::task::Fetched;

impl Postgres {
    pub(in crate::store) async fn spending(
        &self,
        source: Option<&str>,
        from: Timestamp,
    ) -> Result<Vec<(String, Timestamp, f64)>, Error> {
        transact!(self.sessions(), Read, |tx| spending(&tx, source, known(from)))
    }

    pub(in crate::store) async fn spent_ever(&self) -> Result<Vec<(String, f64)>, Error> {
        transact!(self.sessions(), Read, |tx| spent_ever(&tx))
    }
}

/// Adds what is new of the credits of tasks, before they are kept with them; each of them once, and locked.
pub(super) async fn add(tx: &Tx, fetched: &[(i64, &Fetched, Option<Timestamp>)], at: Timestamp) -> Result<(), Error> {
    let told: Vec<_> = fetched.iter().filter_map(|(task, told, _)| Some((*task, &told.task, told.task.credits?))).collect();
    if told.is_empty() {
        return Ok(());
    }
    tx.run(
        "INSERT INTO spending (source, at, credits) SELECT source, told.at, sum(told.credits - coalesce(tasks.credits, 0)) \
         FROM unnest($1::bigint[], $2::timestamptz[], $3::float8[]) AS told (task, at, credits) JOIN tasks ON tasks.seq = told.task \
         WHERE told.credits > coalesce(tasks.credits, 0) GROUP BY source, told.at ORDER BY source, told.at \
         ON CONFLICT (source, at) DO UPDATE SET credits = spending.credits + excluded.credits",
        args![
            column(&told, |(task, ..)| *task),
            column(&told, |(_, task, _)| counts_at(task, at)),
            column(&told, |(.., credits)| *credits)
        ],
    )
    .await
    .map(drop)
}

async fn spending(tx: &Tx, source: Option<&str>, from: Timestamp) -> Result<Vec<(String, Timestamp, f64)>, Error> {
    let sql = "SELECT source, at, credits FROM spending WHERE ($1::text IS NULL OR source = $1) AND at >= $2";
    let rows = tx.rows(sql, args![source, from]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn spent_ever(tx: &Tx) -> Result<Vec<(String, f64)>, Error> {
    let rows = tx.rows("SELECT source, sum(credits) FROM spending GROUP BY source", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
