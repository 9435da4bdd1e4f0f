//! Tasks that a person told us to expect.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::work;
use crate::store::Error;
use crate::store::model::{Proof, Tracked, text};

/// Writes down that a task of `source` is to be expected, and ours; what was known of it before stands.
pub(super) fn track(connection: &Connection, source: &str, task: &Tracked, now: Timestamp) -> Result<(), Error> {
    let proof = Proof { task_id: task.task_id.clone(), how: "tracked", title: None, url: None };
    work::prove(connection, source, &proof, &text(now))?;
    connection
        .prepare_cached(
            "UPDATE tasks SET kind = coalesce(kind, ?3), locator = coalesce(locator, ?4) WHERE source = ?1 AND task_id = ?2",
        )?
        .execute(params![source, task.task_id, task.kind, task.locator])?;
    Ok(())
}
