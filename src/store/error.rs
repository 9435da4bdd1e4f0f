//! Why the store did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

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
            Self::Open { hint, .. } | Self::File { hint, .. } => Some(hint),
            Self::Locked(_) => Some("stop that process first, or set `store.url` to another file"),
            Self::Url { .. } => Some("use a file, as in `sqlite://data/taskhook.db`"),
            Self::Full(_) => Some("make room on the disk, or lower `store.min_free_bytes`"),
            _ => None,
        }
    }
}

/// What the user can do about `folder` that cannot be written to, and that `key` chose.
#[must_use]
pub fn unwritable(folder: &Path, error: &io::Error, key: &str) -> String {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let make = if folder.exists() { String::new() } else { format!("mkdir -p {} && ", folder.display()) };
    let folder = folder.display();
    match error.kind() {
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
            Some(DiskFull) => Self::Full(error.to_string()),
            Some(SystemIoFailure) => Self::Disk(error.to_string()),
            Some(DatabaseCorrupt | NotADatabase) => Self::Disk(format!("{error}; restore a backup")),
            _ => Self::Database(error.to_string()),
        }
    }
}
