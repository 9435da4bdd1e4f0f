//! Opening the database file: where it may lie, who holds it, and which schema it has.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use uuid::Uuid;

use super::inspect::inspect;
use crate::store::Error;
use crate::store::model::text;

/// The migrations, in order. A release's migrations only add, so that the program before it still runs on the new schema.
pub(super) const MIGRATIONS: [&str; 11] = [
    include_str!("schema/0001_first.sql"),
    include_str!("schema/0002_files.sql"),
    include_str!("schema/0003_again.sql"),
    include_str!("schema/0004_upkeep.sql"),
    include_str!("schema/0005_stops.sql"),
    include_str!("schema/0006_answers.sql"),
    include_str!("schema/0007_watches.sql"),
    include_str!("schema/0008_expected.sql"),
    include_str!("schema/0009_usage.sql"),
    include_str!("schema/0010_samples.sql"),
    include_str!("schema/0011_posts.sql"),
];
/// The oldest schema whose program can work on what [`MIGRATIONS`] make.
const OLDEST_SCHEMA: usize = 1;
/// Marks a SQLite file as ours (`PRAGMA application_id`): the letters `task`.
const APPLICATION_ID: i32 = 0x7461_736b;

/// A store that is open for writing: the lock is held as long as this lives.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) lock: File,
    pub(super) instance_id: String,
}

/// The file that `sqlite://…` names; relative to the working directory.
pub(super) fn path(url: &str) -> Result<PathBuf, Error> {
    let problem = |problem: &str| Error::Url { url: url.to_owned(), problem: problem.to_owned() };
    // Of another kind of URL only that is shown: it may hold a password.
    let path = url.strip_prefix("sqlite://").ok_or_else(|| {
        let kind = url.split_once("://").map_or("…".to_owned(), |(kind, _)| format!("{kind}://…"));
        Error::Url { url: kind, problem: "it names no SQLite file".to_owned() }
    })?;
    if path.is_empty() || path.ends_with('/') {
        return Err(problem("it names no file"));
    }
    if path.contains(['?', '#', '%']) {
        return Err(problem("options and escapes are not understood"));
    }
    Ok(PathBuf::from(path))
}

/// Opens `path` for writing, making it if need be, and brings it to this program's schema.
pub(super) fn open(path: &Path, now: Timestamp) -> Result<Opened, Error> {
    let lock = hold(path)?;
    let wrap = |error: rusqlite::Error| refused(path, &error);
    if path.is_dir() {
        return Err(Error::Open {
            path: path.to_owned(),
            problem: "it is a folder".into(),
            hint: "set `store.url` to a file in it".into(),
        });
    }
    inspect(path)?;
    let mut connection = Connection::open(path).map_err(wrap)?;
    if schema(&connection, path)?.is_none() {
        // Before anything is written: later it would take a rewrite of the whole file.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(wrap)?;
    }
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(wrap)?;
    connection.execute_batch(PRAGMAS).map_err(wrap)?;
    // Plans must not depend on bound values: where one might (an index with a condition), SQLite would plan anew for every value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(wrap)?;
    connection.set_prepared_statement_cache_capacity(128);
    migrate(&mut connection, path, now)?;
    // So that the log tells of which store it is: what stays as it is, SQLite does not write. A full disk heals, and is told later.
    let sql = "INSERT OR REPLACE INTO store (name, value) VALUES ('opened_at', ?1)";
    let told = connection.execute(sql, [text(now)]);
    told.map(drop).or_else(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Ok(()),
        _ => Err(wrap(error)),
    })?;
    let instance_id = instance_id(&connection).map_err(wrap)?;
    Ok(Opened { connection, lock, instance_id })
}

/// Takes the lock of the store at `path`, in a folder that is made if need be.
pub(super) fn hold(path: &Path) -> Result<File, Error> {
    let folder = folder(path);
    fs::create_dir_all(folder).map_err(|error| unwritable(path, folder, &error))?;
    // Asked, since files that are there already may let themselves be written to in a folder that takes no new ones.
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| unwritable(path, folder, &error.into()))?;
    place(path, folder)?;
    lock(path, folder)
}

/// The folder that `path` lies in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `FULL` syncs the log at every commit. `fullfsync` makes macOS's disks do what others do on fsync. The page cache grows to
/// 16 MiB at the most, in the writer alone: what it lacks the system has, and SQLite looks through all of it when it commits. `secure_delete = FAST` clears what is deleted within a page that is written anyway.
const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA fullfsync = ON;
    PRAGMA checkpoint_fullfsync = ON;
    PRAGMA foreign_keys = OFF;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA secure_delete = FAST;
";

/// Opens `path` to read only; it must be a store of a schema that this program knows.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, Error> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| refused(path, &error))?;
    known_file(&connection, path)?;
    if schema(&connection, path)?.is_none() {
        return Err(foreign(path));
    }
    Ok(connection)
}

/// The id of this store, told on `/healthz`.
pub(super) fn instance_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT value FROM store WHERE name = 'instance_id'", [], |row| row.get(0))
}

pub(super) fn migrate(connection: &mut Connection, path: &Path, now: Timestamp) -> Result<(), Error> {
    let wrap = |error: rusqlite::Error| refused(path, &error);
    let schema = schema(connection, path)?;
    let from = schema.unwrap_or(0);
    if from >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(wrap)?;
    for migration in &MIGRATIONS[from..] {
        transaction.execute_batch(migration).map_err(wrap)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(wrap)?;
    let set = |name: &str, value: &str| {
        transaction.execute("INSERT OR REPLACE INTO store (name, value) VALUES (?1, ?2)", params![name, value]).map(drop)
    };
    set("schema", &MIGRATIONS.len().to_string()).map_err(wrap)?;
    set("oldest_schema", &OLDEST_SCHEMA.to_string()).map_err(wrap)?;
    if schema.is_none() {
        set("instance_id", &Uuid::now_v7().to_string()).map_err(wrap)?;
        set("created_at", &text(now)).map_err(wrap)?;
    }
    transaction.commit().map_err(wrap)
}

/// The file's schema; `None` if it is new. A schema that no longer serves this program is an error, and nothing is touched.
pub(super) fn schema(connection: &Connection, path: &Path) -> Result<Option<usize>, Error> {
    let wrap = |error: rusqlite::Error| refused(path, &error);
    let exists: bool =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'store'", [], |row| row.get(0)).map_err(wrap)?;
    if !exists {
        return Ok(None);
    }
    let number = |name: &str| -> Result<usize, Error> {
        let value: Option<String> =
            connection.query_row("SELECT value FROM store WHERE name = ?1", [name], |row| row.get(0)).optional().map_err(wrap)?;
        value.and_then(|value| value.parse().ok()).ok_or_else(|| foreign(path))
    };
    let oldest = number("oldest_schema")?;
    if oldest > MIGRATIONS.len() {
        return Err(Error::Open {
            path: path.to_owned(),
            problem: format!("it was made by a newer taskhook (schema {oldest} or later; this one knows {})", MIGRATIONS.len()),
            hint: "run that newer version; nothing was changed".into(),
        });
    }
    number("schema").map(Some)
}

/// Refuses a SQLite file that somebody else made, before anything is written to it.
pub(super) fn known_file(connection: &Connection, path: &Path) -> Result<(), Error> {
    let wrap = |error: rusqlite::Error| refused(path, &error);
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(wrap)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(wrap)?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) { Ok(()) } else { Err(foreign(path)) }
}

fn foreign(path: &Path) -> Error {
    Error::Open {
        path: path.to_owned(),
        problem: "it is a SQLite database, but not a taskhook store".into(),
        hint: "set `store.url` to a file of taskhook's own; nothing was changed".into(),
    }
}

/// Takes the lock beside the file: one process writes.
fn lock(path: &Path, folder: &Path) -> Result<File, Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock_path = folder.join(name);
    let lock = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|error| unwritable(path, folder, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unwritable(path, folder, &error)),
    }
}

/// The same for a file in a folder that can be written.
pub(super) fn unwritable_file(path: &Path, error: &io::Error) -> Error {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hint = crate::store::unwritable(folder, error, "store.url");
    Error::Open { path: path.to_owned(), problem: format!("cannot write to it: {error}"), hint }
}

fn unwritable(path: &Path, folder: &Path, error: &io::Error) -> Error {
    let hint = crate::store::unwritable(folder, error, "store.url");
    Error::Open { path: path.to_owned(), problem: format!("cannot write to {}: {error}", folder.display()), hint }
}

pub(super) fn refused(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};
    let folder = path.parent().unwrap_or(Path::new("."));
    match error.sqlite_error_code() {
        Some(CannotOpen | PermissionDenied | ReadOnly) if path.exists() => {
            unwritable(path, folder, &io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))
        }
        Some(CannotOpen) => Error::Open {
            path: path.to_owned(),
            problem: "it does not exist".into(),
            hint: "start `taskhook serve` once, which makes it, or set `store.url`".into(),
        },
        Some(NotADatabase | DatabaseCorrupt) => Error::Open {
            path: path.to_owned(),
            problem: format!("it is damaged, or no SQLite database ({error})"),
            hint: "move it away and restore a backup; nothing was changed".into(),
        },
        _ => Error::Open { path: path.to_owned(), problem: error.to_string(), hint: "see the message of SQLite above".into() },
    }
}

/// Refuses file systems on which SQLite's locks or syncs cannot be trusted, and warns of those that do not last.
#[cfg(target_os = "linux")]
fn place(path: &Path, folder: &Path) -> Result<(), Error> {
    // Magic numbers of statfs(2).
    const NETWORK: [(i64, &str); 8] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "Ceph"),
        (0x0bd0_0bd0, "Lustre"),
        (0x5346_414f, "AFS"),
    ];
    const PASSING: [(i64, &str); 2] = [(0x794c_7630, "an overlay (a container's own layer)"), (0x0102_1994, "tmpfs (memory)")];
    let kind = rustix::fs::statfs(folder).map(|stat| stat.f_type & 0xffff_ffff).unwrap_or_default();
    if let Some((_, name)) = NETWORK.iter().find(|(magic, _)| *magic == kind) {
        return Err(Error::Open {
            path: path.to_owned(),
            problem: format!("{} is on {name}, where a sync promises nothing", folder.display()),
            hint: "set `store.url` to a file on a disk of this machine".into(),
        });
    }
    if let Some((_, name)) = PASSING.iter().find(|(magic, _)| *magic == kind) {
        tracing::warn!(path = %path.display(), "the store is on {name}: what it keeps is gone when that goes; mount a volume");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn place(_path: &Path, _folder: &Path) -> Result<(), Error> {
    Ok(())
}
