//! Looking at a store before it is opened for writing.
//!
//! What must hold: a store that is refused is left as it was, to the byte, the log and its index beside it included. SQLite itself
//! would copy the log into the file when the last connection closes, take any log that lies beside for the right one, and begin one
//! that it cannot read anew. So what is looked at here is opened without the log where there is none to read, and otherwise with its
//! index in this process's memory, and without a checkpoint at the end.
//!
//! A store of up to [`WHOLE_BYTES`] is read whole. Of a larger one that would take too long at a start: it is checked by
//! `taskhook store check`, and damage that a write meets ends the process.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::open::{instance_id, known_file, refused, schema, unwritable_file};
use crate::store::Error;

/// The largest store that is read whole at a start: that takes some 20 ms.
const WHOLE_BYTES: u64 = 16 << 20;
/// How a file of SQLite begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The length of the header of a log.
const LOG_HEADER: usize = 32;

/// Refuses a store at `path` that cannot be used, and touches nothing. The caller holds its lock.
pub(super) fn inspect(path: &Path) -> Result<(), Error> {
    let length = |path: &Path| fs::metadata(path).map_or(0, |about| about.len());
    let log = beside(path, "-wal");
    // What SQLite may not write to it opens all the same, to read only.
    for file in [path, &log, &beside(path, "-shm")] {
        if let Err(error) = File::options().write(true).open(file)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(unwritable_file(file, &error));
        }
    }
    match (length(path), length(&log)) {
        (0, 0) => Ok(()),
        (0, _) => Err(Error::Open {
            path: path.to_owned(),
            problem: format!("there is a log beside it, {}, and no store that it is of", log.display()),
            hint: "put the store back that the log is of, or move the log away; nothing was changed".into(),
        }),
        (_, 0) => {
            file_header(path)?;
            look(&without_log(path)?, path)
        }
        _ => {
            file_header(path)?;
            log_header(path, &log)?;
            let connection = with_log(path)?;
            same_store(&connection, path, &log)?;
            look(&connection, path)
        }
    }
}

/// What can be wrong with what `connection` sees.
fn look(connection: &Connection, path: &Path) -> Result<(), Error> {
    let wrap = |error: rusqlite::Error| refused(path, &error);
    known_file(connection, path)?;
    schema(connection, path)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).map_err(wrap);
    if number("page_count")?.saturating_mul(number("page_size")?) <= WHOLE_BYTES {
        let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrap)?;
        if said != "ok" {
            return Err(damaged(path, &format!("it is damaged ({})", said.trim())));
        }
    }
    Ok(())
}

fn damaged(path: &Path, problem: &str) -> Error {
    Error::Open {
        path: path.to_owned(),
        problem: problem.to_owned(),
        hint: "move it away, with what lies beside it, and restore a backup; nothing was changed".into(),
    }
}

/// Refuses a file that does not begin as one of SQLite does, even where the log holds that page anew.
fn file_header(path: &Path) -> Result<(), Error> {
    let mut begins = Vec::with_capacity(MAGIC.len());
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut begins));
    read.map_err(|error| unwritable_file(path, &error))?;
    if begins == MAGIC { Ok(()) } else { Err(damaged(path, "it is damaged, or no SQLite database")) }
}

/// A connection that sees the file alone, takes no lock and makes no file.
fn without_log(path: &Path) -> Result<Connection, Error> {
    let wrap = |error: rusqlite::Error| refused(path, &error);
    let absolute = std::path::absolute(path).map_err(|error| unwritable_file(path, &error))?;
    let Ok(mut url) = url::Url::from_file_path(absolute) else {
        return Err(damaged(path, "its path cannot be written as an address"));
    };
    url.set_query(Some("immutable=1"));
    Connection::open_with_flags(url.as_str(), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI).map_err(wrap)
}

/// A connection that sees the file and the log beside it. If somebody else reads the store now, its index is there already.
fn with_log(path: &Path) -> Result<Connection, Error> {
    let open = |mode: &str| -> rusqlite::Result<Connection> {
        // SQLite keeps the index of the log in memory only for who may lock the file, which takes leave to write.
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "locking_mode", mode)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match open("exclusive") {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => open("normal"),
        opened => opened,
    }
    .map_err(|error| refused(path, &error))
}

/// Refuses a log that SQLite would take for an empty one and begin anew: nothing of it could be read ever after. One whose header
/// is all zeros was never written to: the machine stopped before anything in it was synced.
fn log_header(path: &Path, log: &Path) -> Result<(), Error> {
    let mut header = Vec::with_capacity(LOG_HEADER);
    match File::open(log).and_then(|file| file.take(LOG_HEADER as u64).read_to_end(&mut header)) {
        Ok(_) => {}
        // Whoever still read the store has closed it: SQLite copies the log into the file then, and deletes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unwritable_file(path, &error)),
    }
    if header.len() < LOG_HEADER || header.iter().all(|byte| *byte == 0) || is_log_header(&header) {
        return Ok(());
    }
    Err(damaged(path, &format!("the log beside it, {}, is damaged, or no log", log.display())))
}

/// Whether `header` is one of a log: its first number says so, and in which order of bytes the sums at its end are made.
fn is_log_header(header: &[u8]) -> bool {
    let word = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).unwrap_or_default();
    let read: fn([u8; 4]) -> u32 = match u32::from_be_bytes(word(0)) {
        0x377f_0682 => u32::from_le_bytes,
        0x377f_0683 => u32::from_be_bytes,
        _ => return false,
    };
    let (mut first, mut second) = (0u32, 0u32);
    for at in (0..24).step_by(8) {
        first = first.wrapping_add(read(word(at))).wrapping_add(second);
        second = second.wrapping_add(read(word(at + 4))).wrapping_add(first);
    }
    (first, second) == (u32::from_be_bytes(word(24)), u32::from_be_bytes(word(28)))
}

/// Refuses a log of another store. Where the file alone says nothing, as before its first checkpoint, there is nothing to compare.
fn same_store(both: &Connection, path: &Path, log: &Path) -> Result<(), Error> {
    let Ok(alone) = without_log(path).and_then(|connection| Ok(instance_id(&connection)?)) else { return Ok(()) };
    if instance_id(both).is_ok_and(|id| id == alone) {
        return Ok(());
    }
    Err(Error::Open {
        path: path.to_owned(),
        problem: format!("the log beside it, {}, is of another store, or one of the two is damaged", log.display()),
        hint:
            "put the store back that the log is of; or, if this file is a backup that was put here, move the log and the `-shm` \
               beside it away; nothing was changed"
                .into(),
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
