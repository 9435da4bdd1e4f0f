//! What tasks cost and used, by source.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::Postgres;
use super::session::{Tx, args, column, known, transact};
use crate::store::Error;
use crate::store::spending::{Amounts, counts_at, tells, tokens};
use crate::task::Fetched;

impl Postgres {
    pub(in crate::store) async fn spending(
        &self,
        source: Option<&str>,
        from: Timestamp,
    ) -> Result<Vec<(String, Timestamp, Amounts)>, Error> {
        transact!(self.sessions(), Read, |tx| spending(&tx, source, known(from)))
    }

    pub(in crate::store) async fn spent_ever(&self) -> Result<Vec<(String, Amounts)>, Error> {
        transact!(self.sessions(), Read, |tx| spent_ever(&tx))
    }
}

/// Adds what is new of the cost of tasks, before that is kept with them; each of them once, and locked.
pub(super) async fn add(tx: &Tx, fetched: &[(i64, &Fetched, Option<Timestamp>)], at: Timestamp) -> Result<(), Error> {
    let told: Vec<_> = fetched.iter().map(|(task, told, _)| (*task, &told.task)).filter(|(_, told)| tells(told)).collect();
    if told.is_empty() {
        return Ok(());
    }
    tx.run(
        "INSERT INTO spending (source, at, credits, input_tokens, output_tokens, compute_seconds, cost_usd) \
             SELECT source, told.at, coalesce(sum(told.credits - coalesce(tasks.credits, 0)), 0), \
             coalesce(sum(told.input_tokens - coalesce(tasks.input_tokens, 0)), 0)::bigint, \
             coalesce(sum(told.output_tokens - coalesce(tasks.output_tokens, 0)), 0)::bigint, \
             coalesce(sum(told.compute_seconds - coalesce(tasks.compute_seconds, 0)), 0), \
             coalesce(sum(told.cost_usd - coalesce(tasks.cost_usd, 0)), 0) \
             FROM unnest($1::bigint[], $2::float8[], $3::bigint[], $4::bigint[], $5::float8[], $6::float8[], $7::timestamptz[]) \
             AS told (task, credits, input_tokens, output_tokens, compute_seconds, cost_usd, at) JOIN tasks ON tasks.seq = told.task WHERE (tasks.credits, tasks.input_tokens, tasks.output_tokens, \
             tasks.compute_seconds, tasks.cost_usd) IS DISTINCT FROM (coalesce(told.credits, tasks.credits), \
             coalesce(told.input_tokens, tasks.input_tokens), coalesce(told.output_tokens, tasks.output_tokens), \
             coalesce(told.compute_seconds, tasks.compute_seconds), coalesce(told.cost_usd, tasks.cost_usd)) \
             GROUP BY source, told.at ORDER BY source, told.at \
             ON CONFLICT (source, at) DO UPDATE SET credits = spending.credits + excluded.credits, \
             input_tokens = spending.input_tokens + excluded.input_tokens, \
             output_tokens = spending.output_tokens + excluded.output_tokens, \
             compute_seconds = spending.compute_seconds + excluded.compute_seconds, cost_usd = spending.cost_usd + excluded.cost_usd",
        args![
            column(&told, |(task, _)| *task),
            column(&told, |(_, task)| task.credits),
            column(&told, |(_, task)| tokens(task.usage.input_tokens)),
            column(&told, |(_, task)| tokens(task.usage.output_tokens)),
            column(&told, |(_, task)| task.usage.compute_seconds),
            column(&told, |(_, task)| task.usage.cost_usd),
            column(&told, |(_, task)| counts_at(task, at)),
        ],
    )
    .await
    .map(drop)
}

fn amounts(row: &Row, first: usize) -> Amounts {
    Amounts {
        credits: row.get(first),
        input_tokens: row.get(first + 1),
        output_tokens: row.get(first + 2),
        compute_seconds: row.get(first + 3),
        cost_usd: row.get(first + 4),
    }
}

async fn spending(tx: &Tx, source: Option<&str>, from: Timestamp) -> Result<Vec<(String, Timestamp, Amounts)>, Error> {
    let sql = "SELECT source, at, credits, input_tokens, output_tokens, compute_seconds, cost_usd FROM spending \
               WHERE ($1::text IS NULL OR source = $1) AND at >= $2";
    let rows = tx.rows(sql, args![source, from]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), amounts(row, 2))).collect())
}

async fn spent_ever(tx: &Tx) -> Result<Vec<(String, Amounts)>, Error> {
    let sql = "SELECT source, sum(credits), sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(compute_seconds), sum(cost_usd) \
               FROM spending GROUP BY source";
    let rows = tx.rows(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), amounts(row, 1))).collect())
}
