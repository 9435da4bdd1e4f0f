//! Where each key was set: the file, line and column, or the variable, or the flag.

use std::collections::BTreeMap;
use std::fmt;

/// The place that set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The embedded `config/default.toml`.
    BuiltIn,
    /// A position in the configuration file; line and column count from 1.
    File { file: String, line: usize, column: usize },
    /// A line of `.env`.
    DotEnv { line: usize, variable: String },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("the built-in configuration"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::DotEnv { line, variable } => write!(f, ".env:{line}: `{variable}`"),
            Self::Variable(name) => write!(f, "environment variable `{name}`"),
            Self::Flag(name) => write!(f, "flag `{name}`"),
        }
    }
}

/// One step into the tree of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Into a table.
    Key(String),
    /// Into a list; counts from 0.
    Index(usize),
}

/// The way to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    /// Of keys alone, such as `server.listen`.
    pub(super) fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    pub(super) fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    pub(super) fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_last()?;
        Some(Self(parent.to_vec()))
    }

    /// The variable that sets this key.
    pub(super) fn variable(&self) -> String {
        let keys = self.0.iter().map(|step| match step {
            Step::Key(key) => key.to_uppercase(),
            Step::Index(at) => at.to_string(),
        });
        format!("TASKHOOK__{}", keys.collect::<Vec<_>>().join("__"))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The places of all keys; of a key that is set twice, the place that won.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<Path, Place>);

impl Places {
    /// `place` set the value at `path`.
    pub(super) fn set(&mut self, path: Path, place: Place) {
        self.0.insert(path, place);
    }

    /// `place` set something under `path`, which may have a better place already.
    pub(super) fn touch(&mut self, path: Path, place: &Place) {
        let known = self.0.entry(path).or_insert_with(|| place.clone());
        if *known == Place::BuiltIn {
            *known = place.clone();
        }
    }

    /// The place of the value at `path`, or of the nearest table or list around it.
    pub(super) fn of(&self, path: &Path) -> Option<&Place> {
        match self.0.get(path) {
            Some(place) => Some(place),
            None => self.of(&path.parent()?),
        }
    }

    /// Whether something else than the built-in configuration set the value at `path`.
    pub(super) fn is_set(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|place| *place != Place::BuiltIn)
    }
}
