//! A backup in the place of the store.
//!
//! What must hold:
//! - No process has the store open: the lock is ours from the first look to the end.
//! - Wherever this is cut off, what lies under the store's name is one whole store, the old one or the new: the new one is made
//!   under another name, and takes the place of the old one by a rename. A log of the old one never meets the new one: SQLite would
//!   copy its pages into it. So the old log goes into the old file first, or beside it where that file is damaged.
//! - The old store is put aside, not deleted.
//! - A restore cannot know what was handed on after the backup. So everything that may have been gets an attempt of outcome
//!   unknown *before* the new store can be opened: the destination's `on_unknown` then decides, as after a crash.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::backup::{Trouble, copy, database_error, file_error, same_file, sync_folder, verify};
use super::{intake, open, reconcile};
use crate::store::Error;
use crate::store::care::{Progress, Restored, Tell};
use crate::store::model::text;

/// What SQLite keeps beside a file.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A restore that has begun. Each [`Restore::step`] is one change on the disk; after any of them it can be cut off.
#[derive(Debug)]
pub struct Restore {
    store: PathBuf,
    backup: PathBuf,
    /// The store to be.
    coming: PathBuf,
    now: Timestamp,
    /// What stopped before is left alone.
    since: Timestamp,
    next: Step,
    done: Restored,
    _lock: File,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Copy,
    Prepare,
    FoldLog,
    PutAside,
    ClearLog,
    Replace,
    Nothing,
}

impl Restore {
    pub(in crate::store) fn begin(store: &Path, backup: &Path, now: Timestamp, tell: Tell<'_>) -> Result<Self, Error> {
        let lock = open::hold(store)?;
        let refuse = |problem: &str, hint: &str| {
            Err(Error::File { path: backup.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() })
        };
        if !backup.is_file() {
            return refuse("it is no file", "name a file that `taskhook store backup` made");
        }
        if same_file(store, backup) {
            return refuse("it is the store itself", "name a backup of it");
        }
        tell(Progress { what: "checking the backup", done: 0, total: 0 });
        let events = verify(backup, backup, "", false)?;
        let coming = beside(store, ".restoring");
        let done = Restored { store: store.to_owned(), events, ..Restored::default() };
        let (store, backup) = (store.to_owned(), backup.to_owned());
        let restore = Self { store, backup, coming, now, since: now, next: Step::Copy, done, _lock: lock };
        // What a restore that was killed left.
        restore.discard();
        Ok(restore)
    }

    /// The same; stops that no webhook told are handed on if they came after `since`. Else it is those after the restore: what came between
    /// the backup and now, the store that is replaced may have handed on.
    #[must_use]
    pub fn redelivering_since(mut self, since: Timestamp) -> Self {
        self.since = since;
        self
    }

    /// Does the next step; false when there is none.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Open`], with the old store in its place.
    pub fn step(&mut self, tell: Tell<'_>) -> Result<bool, Error> {
        self.next = match self.next {
            Step::Copy => {
                self.copy(tell)?;
                Step::Prepare
            }
            Step::Prepare => {
                self.prepare()?;
                Step::FoldLog
            }
            Step::FoldLog => {
                self.fold_log()?;
                Step::PutAside
            }
            Step::PutAside => {
                self.put_aside()?;
                Step::ClearLog
            }
            Step::ClearLog => {
                self.clear_log()?;
                Step::Replace
            }
            Step::Replace => {
                let failed = |error: std::io::Error| file_error(&self.store, &error);
                fs::rename(&self.coming, &self.store).map_err(failed)?;
                sync_folder(&self.store).map_err(failed)?;
                Step::Nothing
            }
            Step::Nothing => return Ok(false),
        };
        Ok(self.next != Step::Nothing)
    }

    /// What was done.
    #[must_use]
    pub fn done(&self) -> &Restored {
        &self.done
    }

    fn copy(&self, tell: Tell<'_>) -> Result<(), Error> {
        let failed = |error: std::io::Error| file_error(&self.coming, &error);
        let source = open::open_read_only(&self.backup)?;
        // As open to others as the store that it replaces, or to nobody.
        let file = File::options().read(true).write(true).create_new(true).open(&self.coming).map_err(failed)?;
        let mode = fs::metadata(&self.store).map_or_else(|_| private(), |old| old.permissions());
        file.set_permissions(mode).map_err(failed)?;
        copy(&source, &self.coming, &file, tell).map_err(|error| match error {
            Trouble::Io(error) => failed(error),
            Trouble::Database(error) => database_error(&self.coming, &error),
        })
    }

    /// Brings the copy to this program's schema, writes down what may have been handed on, and syncs it.
    fn prepare(&mut self) -> Result<(), Error> {
        let wrap = |error: rusqlite::Error| database_error(&self.coming, &error);
        let mut connection = Connection::open(&self.coming).map_err(wrap)?;
        connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = FULL").map_err(wrap)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(wrap)?;
        open::migrate(&mut connection, &self.coming, self.now)?;
        let at: Option<String> = connection
            .query_row("SELECT value FROM store WHERE name = 'backup_at'", [], |row| row.get(0))
            .optional()
            .map_err(wrap)?;
        // A copy that was made by other means: its newest event tells best.
        let newest = || connection.query_row("SELECT max(received_at) FROM events", [], |row| row.get::<_, Option<String>>(0));
        let at = match at {
            Some(at) => at,
            None => newest().map_err(wrap)?.unwrap_or_else(|| "an unknown time".to_owned()),
        };
        let transaction = connection.transaction().map_err(wrap)?;
        intake::catch_up(&transaction, self.now)?;
        let detail = format!("restored from a backup of {at}: it may have been sent since");
        reconcile::begin_anew(&transaction, self.since)?;
        let marked = doubt(&transaction, &detail, self.now).map_err(wrap)?;
        transaction.commit().map_err(wrap)?;
        connection.close().map_err(|(_, error)| wrap(error))?;
        (self.done.pending_deliveries, self.done.open_events) = marked;
        self.done.backup_of = at;
        let failed = |error: std::io::Error| file_error(&self.coming, &error);
        File::open(&self.coming).and_then(|file| file.sync_all()).map_err(failed)?;
        sync_folder(&self.coming).map_err(failed)
    }

    /// Copies the log of the old store into its file; then SQLite itself removes it. A file that is damaged keeps its log.
    fn fold_log(&self) -> Result<(), Error> {
        if !self.store.exists() || !beside(&self.store, "-wal").exists() {
            return Ok(());
        }
        let fold = || -> rusqlite::Result<bool> {
            let connection = Connection::open(&self.store)?;
            let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))?;
            connection.close().map_err(|(_, error)| error)?;
            Ok(busy)
        };
        match fold() {
            Ok(true) => Err(Error::Open {
                path: self.store.clone(),
                problem: "another program reads it".to_owned(),
                hint: "close it (a SQLite shell, `taskhook store backup`), and restore again; nothing was changed".to_owned(),
            }),
            Ok(false) | Err(_) => Ok(()),
        }
    }

    /// Gives the old store a second name, under which it stays.
    fn put_aside(&mut self) -> Result<(), Error> {
        if !self.store.exists() {
            return Ok(());
        }
        let failed = |error: std::io::Error| file_error(&self.store, &error);
        let stamp: String = text(self.now).chars().filter(char::is_ascii_alphanumeric).collect();
        let aside = (0..1000)
            .map(|number: u32| if number == 0 { stamp.clone() } else { format!("{stamp}-{number}") })
            .map(|stamp| beside(&self.store, &format!(".before-restore-{stamp}")))
            .find(|aside| !aside.exists())
            .unwrap_or_default();
        if fs::hard_link(&self.store, &aside).is_err() {
            // A file system without links: a copy, which counts only once it is on the disk.
            fs::copy(&self.store, &aside).map_err(failed)?;
            File::open(&aside).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        sync_folder(&self.store).map_err(failed)?;
        self.done.put_aside = Some(aside);
        Ok(())
    }

    /// Leaves nothing beside the old file that the new one could be taken to belong to.
    fn clear_log(&self) -> Result<(), Error> {
        let failed = |error: std::io::Error| file_error(&self.store, &error);
        for suffix in BESIDE {
            let left = beside(&self.store, suffix);
            let Ok(meta) = fs::metadata(&left) else { continue };
            match &self.done.put_aside {
                Some(aside) if meta.len() > 0 && suffix != "-shm" => fs::rename(&left, beside(aside, suffix)).map_err(failed)?,
                _ => fs::remove_file(&left).map_err(failed)?,
            }
        }
        sync_folder(&self.store).map_err(failed)
    }

    /// Removes the copy.
    fn discard(&self) {
        let names = BESIDE.into_iter().map(|suffix| beside(&self.coming, suffix)).chain([self.coming.clone()]);
        names.for_each(|name| drop(fs::remove_file(name)));
    }
}

impl Drop for Restore {
    /// A restore that failed leaves no copy behind.
    fn drop(&mut self) {
        if self.next != Step::Nothing {
            self.discard();
        }
    }
}

/// Writes down of everything in the copy that is not done with that it may have been sent. Says of how many deliveries, and of how
/// many events that made none yet.
fn doubt(connection: &Connection, detail: &str, now: Timestamp) -> rusqlite::Result<(usize, usize)> {
    let at = text(now);
    // What has a job takes the next number of an attempt; what waits for its turn has had none, so 0 is free, or was used so before.
    let pending = connection.execute(
        "INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
         SELECT deliveries.seq, CASE WHEN jobs.id IS NULL THEN 0 WHEN jobs.state = 'leased' THEN jobs.attempt \
         ELSE 1 + max(jobs.attempt, coalesce((SELECT max(attempt) FROM attempts WHERE delivery = deliveries.seq), 0)) END, \
         coalesce(iif(jobs.state = 'leased', jobs.started_at, NULL), ?2), ?2, 'unknown', ?1 \
         FROM deliveries LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq \
         WHERE deliveries.state = 'pending' \
         ON CONFLICT (delivery, attempt) DO UPDATE SET ended_at = excluded.ended_at, detail = excluded.detail",
        params![detail, at],
    )?;
    connection.execute(
        "UPDATE jobs SET attempt = coalesce((SELECT max(attempts.attempt) FROM attempts WHERE delivery = jobs.subject), attempt), \
         due_at = CASE WHEN state = 'leased' THEN ?1 ELSE due_at END, state = CASE WHEN state = 'leased' THEN 'due' ELSE state END \
         WHERE kind = 'deliver'",
        params![at],
    )?;
    let open = connection
        .execute("INSERT OR REPLACE INTO restored_events (event, detail) SELECT event, ?1 FROM open_events", params![detail])?;
    connection.execute("DELETE FROM store WHERE name = 'backup_at'", [])?;
    connection.execute("INSERT OR REPLACE INTO store (name, value) VALUES ('restored_at', ?1)", [at])?;
    Ok((pending, open))
}

/// The name of `path` with `suffix`, in the same folder.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Nobody but the user who runs this.
fn private() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o600)
}
