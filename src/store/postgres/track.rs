//! Tasks that a person told us to expect.

use jiff::Timestamp;

use super::session::{Tx, args, clean, transact};
use super::{Postgres, work};
use crate::store::Error;
use crate::store::model::Proof;

impl Postgres {
    pub(in crate::store) async fn track(&self, source: &str, task_id: &str, kind: &str, now: Timestamp) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| track(&tx, source, task_id, kind, now))
    }
}

/// Writes down that a task of `source` is to be expected, and ours; an earlier proof, or kind, stands.
async fn track(tx: &Tx, source: &str, task_id: &str, kind: &str, now: Timestamp) -> Result<(), Error> {
    let proof = Proof { task_id: clean(task_id).into_owned(), how: "tracked", title: None, url: None };
    work::prove(tx, source, std::slice::from_ref(&proof), now).await?;
    tx.run(
        "UPDATE tasks SET kind = $3 WHERE source = $1 AND task_id = $2 AND kind IS NULL",
        args![source, proof.task_id, &*clean(kind)],
    )
    .await
    .map(drop)
}
