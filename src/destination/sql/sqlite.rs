//! SQLite: a file on this machine, opened for each statement. It is not made where it is missing: it would have no table.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags};
use serde_json::Value;

use super::Unready;
use super::bind::to_sqlite;
use crate::destination::MAX_EXCERPT;
use crate::retry::Failure;
use crate::text::one_line;

pub(super) struct Sqlite {
    path: PathBuf,
    timeout: Duration,
}

impl Sqlite {
    pub(super) fn new(path: &str, timeout: Duration) -> Self {
        Self { path: path.into(), timeout }
    }

    pub(super) async fn prepare(&self, statement: &str, count: usize) -> Result<(), Unready> {
        let statement = statement.to_owned();
        let prepared = self.run(move |connection| {
            let prepared = connection.prepare(&statement)?;
            Ok(prepared.parameter_count() == count)
        });
        match prepared.await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Unready::refused("it has a value that is no `:name`")),
            Ok(Err(error)) if passes(&error) => Err(Unready::Down(told(&error))),
            Ok(Err(error)) => Err(Unready::refused(told(&error))),
            Err(reason) => Err(Unready::Down(reason)),
        }
    }

    pub(super) async fn execute(&self, statement: &str, values: Vec<Value>) -> Result<u64, Failure> {
        let statement = statement.to_owned();
        let executed = self.run(move |connection| {
            let mut statement = connection.prepare(&statement)?;
            for (number, value) in (1..).zip(values) {
                statement.raw_bind_parameter(number, to_sqlite(value))?;
            }
            // A statement may return rows, which nobody reads.
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            drop(rows);
            drop(statement);
            Ok(connection.changes())
        });
        match tokio::time::timeout(self.timeout, executed).await {
            Ok(Ok(Ok(rows))) => Ok(rows),
            Ok(Ok(Err(error))) => {
                let mends = matches!(code(&error), Some(ErrorCode::Unknown | ErrorCode::SchemaChanged));
                Err(if passes(&error) || mends { Failure::retry(told(&error)) } else { Failure::give_up(told(&error)) })
            }
            Ok(Err(reason)) => Err(Failure::retry(reason)),
            // The thread goes on, and may end well.
            Err(_) => Err(Failure::retry(format!("not done within {} s", self.timeout.as_secs_f64())).with_unknown_outcome()),
        }
    }

    /// Runs `work` on a connection, on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<Result<T, Error>, String> {
        let (path, wait) = (self.path.clone(), self.timeout.mul_f64(0.75));
        let running = tokio::task::spawn_blocking(move || {
            let connection =
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(wait)?;
            work(&connection)
        });
        running.await.map_err(|_| "interrupted".to_owned())
    }
}

fn code(error: &Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// Whether it is about the file and not about the statement or its values.
fn passes(error: &Error) -> bool {
    matches!(
        code(error),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// SQLite's words name tables, columns and constraints, and no values; rusqlite would add the statement.
fn told(error: &Error) -> String {
    let text = match error {
        Error::SqliteFailure(code, message) => message.clone().unwrap_or_else(|| code.to_string()),
        Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    one_line(&text, MAX_EXCERPT)
}
