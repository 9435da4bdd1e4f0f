//! Tasks that a person told us to expect.

use jiff::Timestamp;

use super::session::{Tx, args, clean, transact};
use super::{Postgres, work};
use crate::store::Error;
use crate::store::model::{Proof, Tracked};

impl Postgres {
    pub(in crate::store) async fn track(&self, source: &str, task: Tracked, now: Timestamp) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| track(&tx, source, &task, now))
    }
}

/// Writes down that a task of `source` is to be expected, and ours; what was known of it before stands.
async fn track(tx: &Tx, source: &str, task: &Tracked, now: Timestamp) -> Result<(), Error> {
    let proof = Proof { task_id: clean(&task.task_id).into_owned(), how: "tracked", title: None, url: None };
    work::prove(tx, source, std::slice::from_ref(&proof), now).await?;
    tx.run(
        "UPDATE tasks SET kind = coalesce(kind, $3), locator = coalesce(locator, $4) WHERE source = $1 AND task_id = $2",
        args![source, proof.task_id, &*clean(&task.kind), task.locator],
    )
    .await
    .map(drop)
}
