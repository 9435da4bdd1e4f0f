//! What becomes of due times when wall time jumps back.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use crate::clock::since;
use crate::store::Error;
use crate::store::model::text;

/// The least difference that is a jump.
const JUMP: Duration = Duration::from_secs(1);

/// Brings forward what is due after `now`, and what was made after it, whose patience would else begin in the future.
pub(super) fn went_back(
    connection: &Connection,
    by: Option<Duration>,
    now: Timestamp,
) -> Result<Option<(Duration, usize)>, Error> {
    let by = match by {
        Some(by) => by,
        None => since(now, last_written(connection)?.unwrap_or(now)),
    };
    if by < JUMP {
        return Ok(None);
    }
    let back = format!("-{}.{:03} seconds", by.as_secs(), by.subsec_millis());
    let made = "UPDATE jobs SET created_at = strftime('%Y-%m-%dT%H:%M:%fZ', created_at, ?2) WHERE created_at > ?1";
    let due = "UPDATE jobs SET due_at = strftime('%Y-%m-%dT%H:%M:%fZ', due_at, ?2) WHERE due_at > ?1";
    connection.prepare_cached(made)?.execute(params![text(now), back])?;
    Ok(Some((by, connection.prepare_cached(due)?.execute(params![text(now), back])?)))
}

/// How late it was, as far as the store knows.
fn last_written(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    let newest: Option<String> = connection.query_row(
        "SELECT max(at) FROM (SELECT max(started_at) AS at FROM jobs UNION ALL \
         SELECT received_at FROM (SELECT received_at FROM events ORDER BY seq DESC LIMIT 1))",
        [],
        |row| row.get(0),
    )?;
    Ok(newest.and_then(|newest| newest.parse().ok()))
}
