//! Why a command failed, as the user reads it on stderr.

use std::fmt;
use std::io;

use super::exit::Exit;
use crate::{config, store};

/// Why a command failed. Displayed as `error: …` and `hint: …` lines.
#[derive(Debug)]
pub struct Error {
    /// What the program exits with.
    pub exit: Exit,
    /// One line that stands alone: what failed, and why.
    pub message: String,
    /// What to do about it.
    pub hints: Vec<String>,
}

/// What a command returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// The ways in which a command fails.
#[derive(Debug)]
pub enum Failure {
    /// By itself.
    Command(Error),
    /// The configuration is wrong.
    Config(config::Errors),
    /// What it had to say could not be written.
    Output(io::Error),
}

impl Error {
    /// The command could not do what it was told ([`Exit::Failed`]).
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hints: Vec::new() }
    }

    /// The same, with another exit code.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same, with one more line of advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl Failure {
    /// What the program exits with. A reader that has seen enough (`taskhook … | head`) is not a failure.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Command(error) => error.exit,
            Self::Config(_) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => {
                write!(f, "error: {}", error.message)?;
                error.hints.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
            }
            Self::Config(errors) => errors.fmt(f),
            Self::Output(error) => write!(f, "error: cannot write the output: {error}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Command(error)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let failed = Self::failed(error.to_string());
        match error.hint() {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl From<config::Errors> for Failure {
    fn from(errors: config::Errors) -> Self {
        Self::Config(errors)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
