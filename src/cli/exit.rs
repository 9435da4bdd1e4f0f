//! The exit codes: what a script may rely on.

use std::process::ExitCode;

/// Why the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was told.
    Done,
    /// It could not.
    Failed,
    /// The command line or the configuration is wrong; nothing was started.
    Usage,
    /// The store cannot be used: it is locked, too new, damaged, or on a disk that cannot keep promises.
    StoreRefused,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::StoreRefused => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
