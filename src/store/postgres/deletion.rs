//! Contents that are deleted from the archive while other replicas save files into it.
//!
//! What must hold: a content that a row names is there. So nobody deletes what a row names, and no row names what somebody is deleting,
//! or what may have been deleted since it was saved: whoever saves says how many deletions had begun or ended before, and all of them are
//! counted. Which of the two comes first, a lock decides.

use jiff::Timestamp;
use uuid::Uuid;

use super::retention;
use super::session::{Tx, args};
use crate::clock::after;
use crate::store::Error;
use crate::store::model::FileRow;
use crate::store::upkeep::Removed;
use crate::task::FileStatus;

/// When a file is saved anew whose content was being deleted.
const AGAIN: std::time::Duration = std::time::Duration::from_mins(1);

/// A deletion that began so long ago has ended, or whoever began it: it takes seconds.
macro_rules! is_under_way {
    () => {
        "deleting_since > clock_timestamp() - interval '10 minutes'"
    };
}

/// How many deletions have begun or ended.
pub(super) async fn count(tx: &Tx) -> Result<i64, Error> {
    let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM file_deletions";
    Ok(tx.row(sql, &[]).await?.get(0))
}

/// Begins to delete a content for `me`, unless a row names it or somebody else is at it. What failed is begun again.
pub(super) async fn begin(tx: &Tx, me: Uuid, sha256: &str) -> Result<bool, Error> {
    let lock = "SELECT pg_advisory_xact_lock(hashtext('taskhook deletions'), hashtext(current_schema()))";
    tx.run(lock, &[]).await?;
    let begun = tx
        .maybe(
            concat!(
                "UPDATE unwanted_files SET deleting_since = clock_timestamp(), deleting_by = $2 WHERE sha256 = $1 \
                 AND NOT EXISTS (SELECT 1 FROM files WHERE files.sha256 = $1 AND files.sha256 IS NOT NULL) AND (deleting_by = $2 OR (",
                is_under_way!(),
                ") IS NOT TRUE) RETURNING nextval('file_deletions')"
            ),
            args![sha256, me],
        )
        .await?;
    Ok(begun.is_some())
}

/// Ends it: the content is `deleted`, or was wanted. False where somebody else is at it.
pub(super) async fn settle(tx: &Tx, sha256: &str, deleted: bool) -> Result<bool, Error> {
    if deleted {
        tx.run("SELECT nextval('file_deletions') FROM unwanted_files WHERE sha256 = $1", args![sha256]).await?;
    }
    let sql = concat!("DELETE FROM unwanted_files WHERE sha256 = $1 AND ($2 OR (", is_under_way!(), ") IS NOT TRUE)");
    tx.run(sql, args![sha256, deleted]).await?;
    retention::count(tx, Removed { files: deleted.into(), ..Removed::default() }).await?;
    Ok(!tx.row("SELECT EXISTS (SELECT 1 FROM unwanted_files WHERE sha256 = $1)", args![sha256]).await?.get::<_, bool>(0))
}

/// Files as they stand: what was saved, before which there had been so many `deletions`, is to be saved anew where its content may have
/// been deleted since. None is until this transaction ends.
pub(super) async fn safe(tx: &Tx, mut files: Vec<FileRow>, deletions: i64, now: Timestamp) -> Result<Vec<FileRow>, Error> {
    let mut saved: Vec<&mut FileRow> = files.iter_mut().filter(|file| file.status == FileStatus::Archived).collect();
    if saved.is_empty() {
        return Ok(files);
    }
    let lock = "SELECT pg_advisory_xact_lock_shared(hashtext('taskhook deletions'), hashtext(current_schema()))";
    tx.run(lock, &[]).await?;
    let contents: Vec<Option<String>> = saved.iter().map(|file| file.sha256.clone()).collect();
    let sql = concat!("SELECT 1 FROM unwanted_files WHERE sha256 = ANY($1) AND ", is_under_way!());
    // In this order: what ends in between has been counted.
    if !tx.rows(sql, args![contents]).await?.is_empty() || count(tx).await? != deletions {
        for file in &mut saved {
            file.status = FileStatus::Pending;
            file.reason = Some("its content was deleted from the archive while it was saved".to_owned());
            (file.sha256, file.due_at) = (None, Some(after(now, AGAIN)));
        }
    }
    Ok(files)
}
