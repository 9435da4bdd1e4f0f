//! The layers of a configuration, lowest first: built-in, `PORT`, file, `.env`, environment, flags.
//!
//! Each is a [`config::Source`], and the `config` crate puts one over the other. Beside its values, a layer knows the place of
//! each: every error names it. An environment value stays the string that it is; the key's type says how it is read.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Error;
use super::nearest::SECTIONS;
use super::place::{Path, Place, Places, Step};
use super::{DEFAULT, Inputs};

/// What begins the name of a variable that sets a key.
pub(super) const PREFIX: &str = "TASKHOOK__";

/// The values of one layer, and where each was set.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    root: Map<String, Value>,
    set: Vec<(Path, Place)>,
    touched: Vec<(Path, Place)>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.root.clone())
    }
}

/// One layer over the other: the effective values, and the place of each.
pub(super) fn merge(layers: Vec<Layer>) -> Result<(Map<String, Value>, Places), Error> {
    let mut places = Places::default();
    let mut builder = config::Config::builder();
    for layer in layers {
        for (path, place) in &layer.touched {
            places.touch(path.clone(), place);
        }
        for (path, place) in &layer.set {
            places.set(path.clone(), place.clone());
        }
        builder = builder.add_source(layer);
    }
    let merged = builder.build().map_err(|error| Error::new(format!("cannot put the configuration together: {error}")))?;
    Ok((merged.cache.into_table().unwrap_or_default(), places))
}

impl Layer {
    /// The embedded defaults.
    pub(super) fn built_in() -> Result<Self, Error> {
        let mut layer = Self::toml(DEFAULT, "config/default.toml")?;
        for (_, place) in &mut layer.set {
            *place = Place::BuiltIn;
        }
        Ok(layer)
    }

    /// A configuration file.
    pub(super) fn file(path: &FilePath, shown: &str) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::new(format!("cannot read the configuration file `{shown}`: {}", cause(&error))))?;
        Self::toml(&text, shown)
    }

    fn toml(text: &str, file: &str) -> Result<Self, Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let place = |at: usize| {
            let before = text.get(..at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            Place::File { file: file.to_owned(), line, column }
        };
        // Of the parser's error only the message is shown: its own display repeats the line, which may hold a secret.
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            Error::at(Some(&place(at)), format!("this is not TOML: {}", error.message()))
        })?;
        let mut layer = Self::default();
        let mut refused = None;
        layer.root = layer.table(table.get_ref(), &Path::default(), &place, &mut refused);
        refused.map_or(Ok(layer), Err)
    }

    fn table(
        &mut self,
        table: &DeTable<'_>,
        path: &Path,
        place: &impl Fn(usize) -> Place,
        refused: &mut Option<Error>,
    ) -> Map<String, Value> {
        let mut values = Map::new();
        for (key, value) in table {
            let path = path.key(key.get_ref());
            self.set.push((path.clone(), place(key.span().start)));
            values.insert(key.get_ref().to_string(), self.value(value, &path, place, refused));
        }
        values
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        path: &Path,
        place: &impl Fn(usize) -> Place,
        refused: &mut Option<Error>,
    ) -> Value {
        let at = value.span().start;
        let kind = match value.get_ref() {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Boolean(yes) => ValueKind::Boolean(*yes),
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                if number.is_err() {
                    *refused = Some(Error::at(Some(&place(at)), format!("`{path}` is a number that is too large")));
                }
                ValueKind::from(number.ok())
            }
            DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Array(items) => {
                let mut values = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    let path = path.step(Step::Index(index));
                    self.set.push((path.clone(), place(item.span().start)));
                    values.push(self.value(item, &path, place, refused));
                }
                ValueKind::Array(values)
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table, path, place, refused)),
        };
        Value::new(None, kind)
    }

    /// Sections are tables, and routes a list of them. Told of each layer, since the next one could hide it.
    pub(super) fn check_shape(&self, errors: &mut Vec<Error>) {
        for (path, place) in &self.set {
            let [Step::Key(section)] = path.0.as_slice() else { continue };
            let Some(value) = self.root.get(section) else { continue };
            let is_list = matches!(value.kind, ValueKind::Array(_));
            let is_table = matches!(value.kind, ValueKind::Table(_));
            if section == "routes" && !is_list {
                let error = Error::at(Some(place), "`routes` must be a list of tables");
                errors.push(error.hint("each route begins with a line `[[routes]]`"));
            } else if section != "routes" && SECTIONS.contains(&section.as_str()) && !is_table {
                errors.push(Error::at(Some(place), format!("`{section}` must be a table")));
            }
        }
    }

    /// The variables whose names begin with [`PREFIX`]; an empty value is as good as none.
    pub(super) fn variables<'a>(
        variables: impl Iterator<Item = (&'a String, &'a String, Place)>,
        errors: &mut Vec<Error>,
    ) -> Self {
        let mut layer = Self::default();
        for (name, value, place) in variables {
            let Some(keys) = name.strip_prefix(PREFIX) else { continue };
            if value.is_empty() {
                continue;
            }
            let path = Path::of(&keys.to_lowercase().replace("__", "."));
            if path.0.first() == Some(&Step::Key("routes".to_owned())) {
                errors.push(Error::at(Some(&place), "routes are set in the configuration file only"));
                continue;
            }
            layer.put(path, value, place);
        }
        layer
    }

    /// `PORT`, as platforms set it: where it is not overridden, we listen there on all addresses.
    pub(super) fn port(port: &str, place: Place) -> Self {
        let mut layer = Self::default();
        layer.put(Path::of("server.listen"), &format!("0.0.0.0:{port}"), place);
        layer
    }

    /// The flags of the command line.
    pub(super) fn flags(inputs: &Inputs) -> Self {
        let mut layer = Self::default();
        for flag in &inputs.flags {
            layer.put(Path::of(flag.key), &flag.value, Place::Flag(flag.name.to_owned()));
        }
        layer
    }

    fn put(&mut self, path: Path, text: &str, place: Place) {
        let mut ancestor = path.parent();
        while let Some(table) = ancestor {
            ancestor = table.parent();
            self.touched.push((table, place.clone()));
        }
        place_text(&mut self.root, &path.0, text);
        self.set.push((path, place));
    }
}

fn place_text(table: &mut Map<String, Value>, path: &[Step], text: &str) {
    let [Step::Key(key), rest @ ..] = path else { return };
    if rest.is_empty() {
        table.insert(key.clone(), Value::new(None, text));
        return;
    }
    let inner = table.entry(key.clone()).or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
    if !matches!(inner.kind, ValueKind::Table(_)) {
        inner.kind = ValueKind::Table(Map::new());
    }
    if let ValueKind::Table(table) = &mut inner.kind {
        place_text(table, rest, text);
    }
}

/// The variables of a `.env` file and the line of each; the last of two with one name counts.
#[derive(Clone, Debug, Default)]
pub(super) struct DotEnv(pub(super) BTreeMap<String, (String, usize)>);

impl DotEnv {
    /// Reads `.env` in the working directory, if there is one.
    pub(super) fn read(directory: &FilePath, errors: &mut Vec<Error>) -> Self {
        let text = match std::fs::read_to_string(directory.join(".env")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                errors.push(Error::new(format!("cannot read `.env`: {}", cause(&error))));
                return Self::default();
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut variables = BTreeMap::new();
        for item in dotenvy::Iter::new(text.as_bytes()) {
            match item {
                Ok((name, value)) => {
                    let line = line_of(text, &name);
                    variables.insert(name, (value, line));
                }
                // The error holds the line, and the line may hold a secret: only its number is shown.
                Err(dotenvy::Error::LineParse(line, _)) => {
                    // It may be the value alone, and begins the error's text in either case.
                    let start = line.lines().next().unwrap_or_default().trim();
                    let at = text.lines().position(|each| each.contains(start)).map_or(1, |at| at + 1);
                    errors.push(
                        Error::new(format!(".env:{at}: this is not a line like `NAME=value`"))
                            .hint("a value with spaces or `$` goes into single quotes"),
                    );
                }
                Err(error) => errors.push(Error::new(format!("cannot read `.env`: {error}"))),
            }
        }
        Self(variables)
    }

    /// The place of a variable.
    pub(super) fn place(&self, name: &str) -> Place {
        let line = self.0.get(name).map_or(1, |(_, line)| *line);
        Place::DotEnv { line, variable: name.to_owned() }
    }
}

/// The last line that sets `name`.
fn line_of(text: &str, name: &str) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().enumerate().filter(|(_, line)| sets(line)).last().map_or(1, |(at, _)| at + 1)
}

/// What an I/O error means, without the number of the operating system.
pub(super) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}
