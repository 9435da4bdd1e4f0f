//! A copy of the store at one moment, made beside the process that writes to it.
//!
//! What must hold: the copy is one snapshot, since all of it is read in one transaction; it appears under its name only when it is
//! whole, looked at and synced; and whatever breaks, nothing of it is left and the store is as it was.
//!
//! The transaction is read-only and takes nothing from the writer but this: the log cannot begin anew while it lasts. So the copy
//! is made page by page, the fastest there is, and looked at only afterwards. It is synced as it grows, or one sync at its end would
//! hold up those of the store on the same disk.

use std::fs::{self, File};
use std::path::Path;

use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, params};

use super::open;
use crate::store::Error;
use crate::store::care::{BackedUp, Progress, Tell};
use crate::store::model::text;

/// Pages that are copied at once.
const STEP: i32 = 256;
/// Steps between two syncs.
const SYNC_EVERY: u64 = 64;
/// The size of a page.
const PAGE: u64 = 4096;

pub(in crate::store) fn backup(
    store: &Path,
    to: &Path,
    overwrite: bool,
    now: Timestamp,
    tell: Tell<'_>,
) -> Result<BackedUp, Error> {
    let source = open::open_read_only(store)?;
    let instance = open::instance_id(&source)?;
    target(store, to, overwrite)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let unwritable = |error: &std::io::Error| file_error(to, error);
    let partial = tempfile::Builder::new()
        .prefix(&format!("{name}.partial-"))
        .tempfile_in(open::folder(to))
        .map_err(|error| unwritable(&error))?;
    let failed = |error: &rusqlite::Error| database_error(to, error);
    copy(&source, partial.path(), partial.as_file(), tell).map_err(|error| match error {
        Trouble::Io(error) => unwritable(&error),
        Trouble::Database(error) => failed(&error),
    })?;
    drop(source);
    let mark = || -> rusqlite::Result<()> {
        let copied = Connection::open(partial.path())?;
        copied.execute("INSERT OR REPLACE INTO store (name, value) VALUES ('backup_at', ?1)", [text(now)])?;
        copied.close().map_err(|(_, error)| error)
    };
    mark().map_err(|error| failed(&error))?;
    partial.as_file().sync_all().map_err(|error| unwritable(&error))?;
    tell(Progress { what: "checking the copy", done: 0, total: 0 });
    let events = verify(partial.path(), to, &instance, true)?;
    let bytes = partial.as_file().metadata().map_err(|error| unwritable(&error))?.len();
    if overwrite {
        partial.persist(to).map_err(|error| unwritable(&error.error))?;
    } else {
        partial.persist_noclobber(to).map_err(|error| unwritable(&error.error))?;
    }
    sync_folder(to).map_err(|error| unwritable(&error))?;
    Ok(BackedUp { file: to.to_owned(), bytes, events, at: text(now) })
}

/// Whether `to` may become a backup of `store`.
fn target(store: &Path, to: &Path, overwrite: bool) -> Result<(), Error> {
    let refuse =
        |problem: &str, hint: &str| Err(Error::File { path: to.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() });
    if to.is_dir() {
        return refuse("it is a folder", "name a file in it");
    }
    if same_file(store, to) {
        return refuse("it is the store itself", "name another file");
    }
    if to.exists() && !overwrite {
        return refuse("it is there already", "name another file, or pass `--overwrite`");
    }
    Ok(())
}

/// Whether both are one file, whatever they are called.
pub(super) fn same_file(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Why a copy was not made.
pub(super) enum Trouble {
    Io(std::io::Error),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Copies what `source` shows at one moment into the file at `to`, of which `file` is open: a database without a log, whole.
pub(super) fn copy(source: &Connection, to: &Path, file: &File, tell: Tell<'_>) -> Result<(), Trouble> {
    let mut target = Connection::open(to)?;
    // Nobody else knows of it yet, and what is left of one that failed is deleted.
    target.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    source.execute_batch("BEGIN")?;
    // The snapshot is taken as something is read. Without it each step would take one of its own, and begin from the first page again
    // whenever a page was written meanwhile: beside a busy store it would never end.
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    {
        let backup = Backup::new(source, &mut target)?;
        let mut steps = 0;
        loop {
            let more = backup.step(STEP)?;
            let progress = backup.progress();
            let pages = |count: i32| u64::try_from(count).unwrap_or_default() * PAGE;
            let total = pages(progress.pagecount);
            tell(Progress { what: "copying", done: total - pages(progress.remaining).min(total), total });
            match more {
                StepResult::Done => break,
                StepResult::More => {}
                // The snapshot is ours already, and so is the copy.
                _ => return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(5), None).into()),
            }
            steps += 1;
            if steps % SYNC_EVERY == 0 {
                file.sync_data().map_err(Trouble::Io)?;
            }
        }
    }
    source.execute_batch("COMMIT")?;
    // One file, which can be read where nothing can be written.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    target.close().map_err(|(_, error)| error.into())
}

/// Looks at the database at `path`, which is or will be called `name`: is it a store of ours, of this `instance`, and whole? Says
/// how many events it holds.
pub(super) fn verify(path: &Path, name: &Path, instance: &str, quick: bool) -> Result<i64, Error> {
    let refuse = |problem: String| Error::File {
        path: name.to_owned(),
        problem,
        hint: "use another backup; nothing was changed".to_owned(),
    };
    let unreadable = |error: rusqlite::Error| refuse(format!("it is damaged ({error})"));
    let connection = open::open_read_only(path).map_err(|error| match error {
        Error::Open { problem, hint, .. } => Error::File { path: name.to_owned(), problem, hint },
        error => error,
    })?;
    let sql = if quick { "PRAGMA quick_check(1)" } else { "PRAGMA integrity_check(1)" };
    let sound: String = connection.query_row(sql, [], |row| row.get(0)).map_err(unreadable)?;
    if sound != "ok" {
        return Err(refuse(format!("it is damaged: {sound}")));
    }
    let found = open::instance_id(&connection).map_err(unreadable)?;
    if !instance.is_empty() && found != instance {
        return Err(refuse("it is another store".to_owned()));
    }
    connection.query_row("SELECT count(*) FROM events", params![], |row| row.get(0)).map_err(unreadable)
}

/// Makes the names in the folder of `path` last.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(open::folder(path))?.sync_all()
}

/// `error` of the disk that `path` is on.
pub(super) fn file_error(path: &Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind::{AlreadyExists, FileTooLarge, QuotaExceeded, StorageFull};
    let hint = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => "make room on its disk, or name a file on another one".to_owned(),
        AlreadyExists => "name another file, or pass `--overwrite`".to_owned(),
        _ => "name a file in a folder that this process can write to".to_owned(),
    };
    Error::File { path: path.to_owned(), problem: error.to_string(), hint }
}

/// `error` of the copy at `path`.
pub(super) fn database_error(path: &Path, error: &rusqlite::Error) -> Error {
    let hint = "make room on its disk, or name a file on another one".to_owned();
    Error::File { path: path.to_owned(), problem: format!("the copy could not be written: {error}"), hint }
}
