//! Tasks that a person told us to expect.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::work;
use crate::store::Error;
use crate::store::model::{Proof, text};

/// Writes down that a task of `source` is to be expected, and ours; an earlier proof, or kind, stands.
pub(super) fn track(connection: &Connection, source: &str, task_id: &str, kind: &str, now: Timestamp) -> Result<(), Error> {
    let proof = Proof { task_id: task_id.to_owned(), how: "tracked", title: None, url: None };
    work::prove(connection, source, &proof, &text(now))?;
    connection
        .prepare_cached("UPDATE tasks SET kind = ?3 WHERE source = ?1 AND task_id = ?2 AND kind IS NULL")?
        .execute(params![source, task_id, kind])?;
    Ok(())
}
