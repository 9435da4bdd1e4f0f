//! Rows that plain SQL puts into a store, as many as a bench wants, in steps.
//!
//! What must hold: the store has been opened before, so that its tables are there, and nothing else works on it meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::params;

use super::super::{Error, Result};
use super::ground::{Place, failed};
use super::progress::Counter;
use crate::clock::rfc3339;

/// Rows that one transaction makes.
const STEP: u32 = 50_000;
/// How long another one may hold the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// What makes rows: of the numbers ?1 to ?2, with the time ?3 and a number ?4 of the bench's own; the first three and the fourth are in
/// each statement, for PostgreSQL as `$1` to `$4`.
pub(super) struct Rows {
    pub(super) sqlite: &'static [&'static str],
    pub(super) postgres: &'static [&'static str],
    /// The tables that they are in.
    pub(super) tables: &'static [&'static str],
}

/// Makes so many rows, at that time, with that number of the bench's own.
pub(super) async fn fill(place: &Place, rows: &Rows, (all, now, own): (u32, Timestamp, u32), made: &Counter) -> Result {
    let steps = (0..all).step_by(STEP as usize).map(|from| (from + 1, (from + STEP).min(all)));
    let Some(server) = place.server() else {
        let (file, made) = (place.store.url.expose().trim_start_matches("sqlite://").to_owned(), made.clone());
        let (steps, at, statements) = (steps.collect::<Vec<_>>(), rfc3339(now), rows.sqlite);
        let filling = tokio::task::spawn_blocking(move || -> rusqlite::Result<()> {
            let connection = rusqlite::Connection::open(file)?;
            connection.busy_timeout(PATIENCE)?;
            connection.execute_batch("PRAGMA foreign_keys = OFF")?;
            for (from, to) in steps {
                connection.execute_batch("BEGIN IMMEDIATE")?;
                for sql in statements {
                    connection.execute(sql, params![from, to, at, own])?;
                }
                connection.execute_batch("COMMIT")?;
                made.add((to - from + 1).into());
            }
            // As the store does it by itself a little later.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        let filled = filling.await.map_err(|error| Error::failed(format!("cannot make rows: {error}")))?;
        return Ok(filled.map_err(|error| Error::failed(format!("cannot make rows: {error}")))?);
    };
    let session = server.connect().await?;
    session.batch_execute(&format!("SET search_path = {}", place.store.schema)).await.map_err(failed)?;
    for (from, to) in steps {
        for sql in rows.postgres {
            let [first, last, own] = [from, to, own].map(i64::from);
            session.execute(*sql, &[&first, &last, &now, &own]).await.map_err(failed)?;
        }
        made.add((to - from + 1).into());
    }
    // As the database does it by itself a little later. A checkpoint is not for everyone to ask for.
    for table in rows.tables {
        session.batch_execute(&format!("VACUUM ANALYZE {table}")).await.map_err(failed)?;
    }
    drop(session.batch_execute("CHECKPOINT").await);
    Ok(())
}
