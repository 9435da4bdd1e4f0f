//! What is wrong with a configuration, said so that it can be put right: the key, the place, and what to write instead.
//!
//! No message holds a value that may be a secret. All errors that can be found in one go are shown in one go.

use std::fmt;

use super::place::Place;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// One line that stands alone; it begins with the place, if there is one.
    pub message: String,
    /// What to do about it, in lines of their own.
    pub hints: Vec<String>,
}

impl Error {
    /// An error that has no place.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new() }
    }

    pub(super) fn at(place: Option<&Place>, message: impl fmt::Display) -> Self {
        Self::new(match place {
            // Where nothing was set there is no place to go to.
            None | Some(Place::BuiltIn) => message.to_string(),
            Some(place) => format!("{place}: {message}"),
        })
    }

    /// The same, with one more line of advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Everything that is wrong with a configuration: never empty. Displayed as `error: …` and `hint: …` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl std::error::Error for Errors {}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}error: {error}")?;
            for hint in &error.hints {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}
