//! Why the store did not do what was asked.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// Why the store did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// More waits to be written than `QUEUE` holds.
    #[error("the store's queue is full")]
    QueueFull,
    /// The disk is full, or has less than `store.min_free_bytes` left.
    #[error("the store's disk is full: {0}")]
    Full(String),
    /// The store did not answer, or is shutting down.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The database said no.
    #[error("the store failed: {0}")]
    Database(String),
    /// The database does not take what a row holds; another row may be taken.
    #[error("the store refuses a row: {0}")]
    Refused(String),
    /// Another transaction was in the way. It is tried again, and nobody outside the store sees this.
    #[error("another transaction was in the way: {0}")]
    Again(String),
    /// The database server cannot be reached, or does not answer. It is asked again.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The disk did not keep what it was given; nothing that follows can be trusted, so the process ends.
    #[error("the store's disk failed while syncing: {0}")]
    Disk(String),
    /// `store.url` is not one that we can use.
    #[error("`store.url` is `{url}`: {problem}")]
    Url {
        /// As configured, without a password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store cannot be opened; `hint` says what to do.
    #[error("cannot open the store {path}: {problem}", path = path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the user can do.
        hint: String,
    },
    /// The store on a server cannot be used; `hint` says what to do.
    #[error("cannot use the store {place}: {problem}")]
    Server {
        /// The server and the database.
        place: String,
        /// What is wrong.
        problem: String,
        /// What the user can do.
        hint: String,
    },
    /// A file beside the store, such as a backup, cannot be used; `hint` says what to do.
    #[error("cannot use {path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the user can do.
        hint: String,
    },
    /// Another process writes to the store.
    #[error("cannot open the store {path}: another taskhook process is using it", path = .0.display())]
    Locked(PathBuf),
}

impl Error {
    /// Whether nothing is known any more about what the disk holds.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Disk(_))
    }

    /// What the user can do, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Open { hint, .. } | Self::File { hint, .. } | Self::Server { hint, .. } => Some(hint),
            Self::Locked(_) => Some("stop that process first, or set `store.url` to another file"),
            Self::Url { .. } => {
                Some("use a file, as in `sqlite://data/taskhook.db`, or a `postgres://user:password@host/database`")
            }
            Self::Full(_) => Some("make room on the disk, or lower `store.min_free_bytes`"),
            Self::Unreachable(_) => Some("is the server of `store.url` running, and does it let this machine in?"),
            _ => None,
        }
    }
}

/// What the user can do about `folder` that cannot be written to, and that `key` chose.
#[must_use]
pub fn unwritable(folder: &Path, error: &io::Error, key: &str) -> String {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let make = if folder.exists() { String::new() } else { format!("mkdir -p {} && ", folder.display()) };
    let ours = folder.metadata().is_ok_and(|about| about.uid() == uid);
    let folder = folder.display();
    match error.kind() {
        // To give what one has is no help.
        io::ErrorKind::PermissionDenied if ours => {
            format!("this process runs as uid {uid}, whose folder it is; let it write there: chmod -R u+rwX {folder}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("this process runs as uid {uid}; give it the folder: {make}chown -R {uid}:{gid} {folder}")
        }
        io::ErrorKind::ReadOnlyFilesystem => format!("mount {folder} for writing, or set `{key}` to another folder"),
        _ => format!("set `{key}` to a file in a folder that can be written"),
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, SystemIoFailure};
        match error.sqlite_error_code() {
            // The index of the log found no room. Nothing that is kept stands in it, and it is made anew at every start.
            Some(SystemIoFailure) if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE) => {
                Self::Full(error.to_string())
            }
            Some(DiskFull) => Self::Full(error.to_string()),
            Some(SystemIoFailure) => Self::Disk(error.to_string()),
            Some(DatabaseCorrupt | NotADatabase) => Self::Disk(format!("{error}; restore a backup")),
            _ => Self::Database(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_log_whose_index_finds_no_room_heals_and_a_disk_that_fails_does_not() {
        let error = |code| Error::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert!(matches!(error(SQLITE_IOERR_SHMSIZE), Error::Full(_)));
        assert!(matches!(error(ffi::SQLITE_FULL), Error::Full(_)));
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_CORRUPT] {
            assert!(error(code).is_fatal(), "{code}");
        }
    }
}
