//! Erasing a task, and deleting the files that no row names any more.
//!
//! What must hold: a content of the archive is deleted only while nothing is between its place there and the row that names it, and
//! after the store said that no row does. The note that it is unwanted goes last: a crash leaves it, and the next pass does it again.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Actions, Error};
use crate::archive::{self, Archive};
use crate::store::upkeep::{Erased, Holding};
use crate::store::{self, Store};
use crate::text::one_line;

/// Free pages that are given back at once.
const PAGES: u32 = 64;
/// How often that is done before the rest is left to upkeep.
const STEPS: u32 = 64;
/// The most parts of a task that are erased in one call.
const PARTS: u32 = 100;

/// What was erased, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    /// The source.
    pub source: String,
    /// The provider's id.
    pub task_id: String,
    /// What there was of it.
    #[serde(flatten)]
    pub held: Holding,
    /// Whether it is gone, or was only counted.
    pub erased: bool,
    /// Whether nothing of it can be found in the store's files and the archive any more. If not, the rest goes within minutes.
    pub cleared: bool,
}

impl Actions {
    /// Erases all that is kept of a task, whatever state it is in; with `dry_run` it is only counted. The source need not be configured
    /// any more.
    ///
    /// # Errors
    /// [`Error::NoTask`] and [`Error::Busy`].
    pub async fn erase(&self, source: &str, task_id: &str, dry_run: bool) -> Result<Report, Error> {
        let none = || Error::NoTask(one_line(task_id, 80));
        let held = self.store.holding(source, task_id).await?.ok_or_else(none)?;
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        if dry_run {
            return Ok(Report { source, task_id, held, erased: false, cleared: false });
        }
        let mut parts = 0;
        loop {
            match self.store.erase(&source, &task_id, self.clock.now()).await? {
                Erased::Unknown if parts == 0 => return Err(none()),
                Erased::Yes | Erased::Unknown => break,
                Erased::Part if parts < PARTS => parts += 1,
                Erased::Busy | Erased::Part => return Err(Error::Busy),
            }
        }
        tracing::info!(source, events = held.events, "a task was erased, on a person's word");
        let files = match &self.archive {
            Some(archive) => delete_unwanted(&self.store, archive).await,
            None => Ok(true),
        };
        let cleared = files.is_ok_and(|all| all) && clear(&self.store).await.unwrap_or(false);
        Ok(Report { source, task_id, held, erased: true, cleared })
    }
}

/// Gives free pages back and cuts the log, so that no trace of what was erased is left; false where it takes longer.
///
/// # Errors
/// When the store failed; then it is to be done later.
pub async fn clear(store: &Store) -> Result<bool, store::Error> {
    for _ in 0..STEPS {
        let free = store.space().await?.free;
        if free == 0 {
            break;
        }
        store.shrink(PAGES).await?;
        if store.space().await?.free >= free {
            // This file gives none back: what was freed while erasing was overwritten.
            break;
        }
    }
    store.clear_traces().await
}

/// Deletes from the archive what no row names any more; false where something is left for another time.
///
/// # Errors
/// When the store failed.
pub async fn delete_unwanted(store: &Store, archive: &Archive) -> Result<bool, store::Error> {
    let (mut after, mut all) = (String::new(), true);
    loop {
        let page = store.unwanted_files(&after).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after.clone_from(last);
        for sha256 in &page {
            // Something is being saved: it may be this.
            let Some(alone) = archive.alone() else {
                all = false;
                continue;
            };
            let deletes = store.may_delete(sha256).await?;
            if deletes {
                match archive.delete(&alone, sha256).await {
                    Ok(()) | Err(archive::Error::Off) => {}
                    Err(error) => {
                        tracing::warn!(error = %error, "a file that nothing names any more was not deleted, will try again: {error}");
                        return Ok(false);
                    }
                }
            }
            all &= store.settle_file(sha256, deletes).await?;
        }
    }
}
