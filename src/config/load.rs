//! Puts the layers together and reads the sections out of them.

use std::collections::{BTreeMap, BTreeSet};

use config::{Map, Value, ValueKind};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;

use super::error::{Error, Errors};
use super::layer::{DotEnv, Layer, merge};
use super::place::{Path, Place, Places, Step};
use super::read::{Fault, Node, read};
use super::secret::{TWIN, resolve};
use super::{Config, Inputs, check};
use crate::http::guard;
use crate::setting::{Secret, Size};
use crate::telemetry::trace;
use crate::worker::WatchConfig;
use crate::{admin, archive, destination, provider, route, server, store, telemetry, upkeep};

const MANUS_API_KEY: &str = "MANUS_API_KEY";

/// The merged tree on its way into structs, and what was wrong so far.
pub(super) struct Loader<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) dot_env: DotEnv,
    pub(super) tree: Map<String, Value>,
    pub(super) defaults: Map<String, Value>,
    pub(super) places: Places,
    pub(super) errors: Vec<Error>,
    /// Keys that were told of already: that nothing is there is then no news.
    failed: BTreeSet<Path>,
}

pub(super) fn everything(inputs: &Inputs, tunnel: bool) -> Result<Config, Errors> {
    let mut loader = Loader::new(inputs)?;
    loader.unknown_sections();
    loader.manus_api_key();
    let log = loader.section::<telemetry::Config>("log", &[]);
    let server = loader.section::<server::Config>("server", &[]);
    let admin = loader.section::<admin::Config>("admin", admin::SECRETS);
    let store = loader.section::<store::Config>("store", store::SECRETS);
    let retention = loader.section::<upkeep::Config>("retention", &[]);
    let archive = loader.section::<archive::Config>("archive", archive::SECRETS);
    let files = loader.section::<archive::FilesConfig>("files", &[]);
    let outbound = loader.section::<guard::Config>("outbound", &[]);
    let watch = loader.section::<WatchConfig>("watch", &[]);
    let trace = loader.section::<trace::Config>("trace", trace::SECRETS);
    let limit = server.as_ref().map(|server| server.max_body_bytes);
    let limit = limit.filter(|limit| limit.0 > 0 && loader.places.is_set(&Path::of("server.max_body_bytes")));
    let sources = loader.sources(limit);
    let destinations = loader.destinations();
    let routes = loader.routes();
    let rust_log = loader.variable("RUST_LOG").map(|(value, _)| value);
    let (Some(log), Some(server), Some(admin), Some(store)) = (log, server, admin, store) else {
        return Err(Errors(loader.errors));
    };
    let (Some(retention), Some(mut archive), Some(files), Some(outbound)) = (retention, archive, files, outbound) else {
        return Err(Errors(loader.errors));
    };
    let (Some(watch), Some(trace)) = (watch, trace) else { return Err(Errors(loader.errors)) };
    archive.aws = loader.aws();
    let mut config = Config {
        log,
        server,
        admin,
        store,
        retention,
        archive,
        files,
        outbound,
        watch,
        trace,
        sources,
        destinations,
        routes,
        rust_log,
    };
    check::everything(&mut config, tunnel, &loader.places, &mut loader.errors);
    if loader.errors.is_empty() { Ok(config) } else { Err(Errors(loader.errors)) }
}

pub(super) fn admin(inputs: &Inputs) -> Result<admin::Config, Errors> {
    let mut loader = Loader::new(inputs)?;
    match loader.section::<admin::Config>("admin", admin::SECRETS) {
        Some(admin) if loader.errors.is_empty() => Ok(admin),
        _ => Err(Errors(loader.errors)),
    }
}

pub(super) fn server(inputs: &Inputs) -> Result<server::Config, Errors> {
    let mut loader = Loader::new(inputs)?;
    match loader.section::<server::Config>("server", &[]) {
        Some(server) if loader.errors.is_empty() => Ok(server),
        _ => Err(Errors(loader.errors)),
    }
}

pub(super) fn store(inputs: &Inputs) -> Result<store::Config, Errors> {
    let mut loader = Loader::new(inputs)?;
    let store = loader.section::<store::Config>("store", store::SECRETS);
    if let Some(store) = &store {
        check::only_store(store, &loader.places, &mut loader.errors);
    }
    match store {
        Some(store) if loader.errors.is_empty() => Ok(store),
        _ => Err(Errors(loader.errors)),
    }
}

pub(super) fn archive(inputs: &Inputs) -> Result<archive::Config, Errors> {
    let mut loader = Loader::new(inputs)?;
    match loader.section::<archive::Config>("archive", archive::SECRETS) {
        Some(mut archive) if loader.errors.is_empty() => {
            archive.aws = loader.aws();
            Ok(archive)
        }
        _ => Err(Errors(loader.errors)),
    }
}

impl<'a> Loader<'a> {
    /// Puts the layers together. What is wrong with one of them ends it here: the rest would be told from half of the truth.
    pub(super) fn new(inputs: &'a Inputs) -> Result<Self, Errors> {
        let mut errors = Vec::new();
        let dot_env = DotEnv::read(&inputs.directory, &mut errors);
        let mut loader = Self {
            inputs,
            dot_env,
            tree: Map::new(),
            defaults: Map::new(),
            places: Places::default(),
            errors: Vec::new(),
            failed: BTreeSet::new(),
        };
        let mut layers = Vec::new();
        let built_in = Layer::built_in()?;
        (loader.defaults, _) = merge(vec![built_in.clone()])?;
        layers.push(built_in);
        if let Some((port, place)) = loader.variable("PORT") {
            layers.push(Layer::port(&port, place));
        }
        let file = match &inputs.file {
            Some(file) => Some(file.clone()),
            None => loader.variable("TASKHOOK_CONFIG").map(|(file, _)| file.into()),
        };
        if let Some(file) = file {
            match Layer::file(&inputs.directory.join(&file), &file.display().to_string()) {
                Ok(layer) => layers.push(layer),
                Err(error) => errors.push(error),
            }
        }
        let lines = loader.dot_env.0.iter().map(|(name, (value, _))| (name, value, loader.dot_env.place(name)));
        layers.push(Layer::variables(lines, &mut errors));
        let variables = inputs.env.iter().map(|(name, value)| (name, value, Place::Variable(name.clone())));
        layers.push(Layer::variables(variables, &mut errors));
        layers.push(Layer::flags(inputs));
        for layer in &layers {
            layer.check_shape(&mut errors);
        }
        loader.single_underscores(&mut errors);
        if !errors.is_empty() {
            return Err(Errors(errors));
        }
        (loader.tree, loader.places) = merge(layers)?;
        Ok(loader)
    }

    /// A variable of the environment, or else of `.env`, that is not empty.
    fn variable(&self, name: &str) -> Option<(String, Place)> {
        let set = |value: &&String| !value.is_empty();
        if let Some(value) = self.inputs.env.get(name).filter(set) {
            return Some((value.clone(), Place::Variable(name.to_owned())));
        }
        let value = self.dot_env.0.get(name).map(|(value, _)| value).filter(set)?;
        Some((value.clone(), self.dot_env.place(name)))
    }

    /// The variables `AWS_…`, as every tool for S3 reads them: those of `.env`, and over them those of the environment.
    fn aws(&self) -> BTreeMap<String, Secret> {
        let dot_env = self.dot_env.0.iter().map(|(name, (value, _))| (name, value));
        let all = dot_env.chain(&self.inputs.env).filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty());
        all.map(|(name, value)| (name.clone(), Secret::new(value))).collect()
    }

    /// `MANUS_API_KEY` makes a source where there is none, and fills the Manus sources that have no key.
    fn manus_api_key(&mut self) {
        let Some((key, place)) = self.variable(MANUS_API_KEY) else { return };
        let sources = self.tree.entry("sources".to_owned()).or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
        let ValueKind::Table(sources) = &mut sources.kind else { return };
        if sources.is_empty() {
            let manus = [("provider", "manus"), ("api_version", "v2")];
            let manus: Map<String, Value> = manus.map(|(key, value)| (key.to_owned(), Value::new(None, value))).into();
            sources.insert("manus".to_owned(), Value::new(None, manus));
            self.places.set(Path::of("sources.manus"), place.clone());
        }
        for (name, source) in sources {
            let ValueKind::Table(source) = &mut source.kind else { continue };
            let is_manus = source.get("provider").is_some_and(|provider| provider.kind == ValueKind::from("manus"));
            if is_manus && !source.contains_key("api_key") && !source.contains_key("api_key_file") {
                source.insert("api_key".to_owned(), Value::new(None, key.clone()));
                self.places.set(Path::of("sources").key(name).key("api_key"), place.clone());
            }
        }
    }

    /// A section that is always there.
    fn section<T: DeserializeOwned>(&mut self, name: &'static str, secrets: &[&'static str]) -> Option<T> {
        let mut value = self.tree.get(name)?.clone();
        if let ValueKind::Table(table) = &mut value.kind {
            // A default is no second value beside a file.
            for secret in secrets.iter().filter(|secret| !self.places.is_set(&Path::of(name).key(secret))) {
                if table.contains_key(&format!("{secret}{TWIN}")) {
                    table.remove(*secret);
                }
            }
        }
        let spare = self.defaults.get(name).cloned();
        self.read(value, &Path::of(name), spare.as_ref(), secrets, |node| T::deserialize(node))
    }

    /// `limit` is the largest body that the user allows everywhere, if that was set.
    fn sources(&mut self, limit: Option<Size>) -> BTreeMap<String, provider::Config> {
        let found = self.named("sources", "provider", provider::PROVIDERS);
        let none = self.tree.get("sources").is_none_or(|sources| sources.kind == ValueKind::Table(Map::new()));
        if none {
            self.errors.push(
                Error::new("no source is configured, so nothing could be received")
                    .hint("for Manus, set the variable `MANUS_API_KEY`; a key is made at https://manus.im, in the settings of the API integration")
                    .hint("or add to the configuration file:\n\n    [sources.manus]\n    provider = \"manus\"\n    api_key_file = \"/run/secrets/manus_api_key\"\n"),
            );
        }
        let mut sources = BTreeMap::new();
        for (name, provider, mut value) in found {
            if let (ValueKind::Table(source), Some(limit)) = (&mut value.kind, limit) {
                source.entry("max_body_bytes".to_owned()).or_insert_with(|| Value::new(None, limit.to_string()));
            }
            let at = Path::of("sources").key(&name);
            let parse = |node: Node<'_>| provider::Config::parse(&provider, node);
            if let Some(source) = self.read(value, &at, None, provider::Config::secrets(&provider), parse) {
                self.problems(&at, source.check());
                sources.insert(name, source);
            }
        }
        sources
    }

    fn destinations(&mut self) -> BTreeMap<String, destination::Config> {
        let mut destinations = BTreeMap::new();
        for (name, kind, value) in self.named("destinations", "kind", destination::KINDS) {
            let at = Path::of("destinations").key(&name);
            let parse = |node: Node<'_>| destination::Config::parse(&kind, node);
            if let Some(mut destination) = self.read(value, &at, None, destination::Config::secrets(&kind), parse) {
                destination.take_variables(&self.inputs.env);
                self.problems(&at, destination.check());
                destinations.insert(name, destination);
            }
        }
        destinations
    }

    fn routes(&mut self) -> Vec<route::Config> {
        let at = Path::of("routes");
        let Some(ValueKind::Array(routes)) = self.tree.get("routes").map(|routes| routes.kind.clone()) else { return Vec::new() };
        let count = routes.len();
        let read =
            |(index, route)| self.read(route, &at.step(Step::Index(index)), None, &[], |node| route::Config::deserialize(node));
        let routes: Vec<_> = routes.into_iter().enumerate().filter_map(read).collect();
        // Of half of the routes, the numbers would be wrong.
        if routes.len() == count
            && let Err(problems) = route::Routes::compile(&routes, &self.names("destinations"))
        {
            let problems = problems.iter().map(|problem| {
                let text = problem.to_string();
                let named = text.split('`').nth(1).unwrap_or_default();
                let number = named.strip_prefix('#').and_then(|number| number.parse::<usize>().ok()).map(|number| number - 1);
                let index = number.or_else(|| routes.iter().position(|route| route.name.as_deref() == Some(named)));
                let at = index.map_or(at.clone(), |index| at.step(Step::Index(index)));
                self.error(&at, text)
            });
            let problems: Vec<_> = problems.collect();
            self.errors.extend(problems);
        }
        routes
    }

    /// The names of the tables under `section`, whether or not they can be read.
    fn names(&self, section: &str) -> Vec<String> {
        let Some(ValueKind::Table(tables)) = self.tree.get(section).map(|value| &value.kind) else { return Vec::new() };
        let mut names: Vec<_> = tables.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The tables under `section`, each with its name and the word under `selector` (taken out), which must be one of `words`.
    fn named(&mut self, section: &str, selector: &str, words: &[&str]) -> Vec<(String, String, Value)> {
        let at = Path::of(section);
        let Some(ValueKind::Table(tables)) = self.tree.get(section).map(|value| value.kind.clone()) else { return Vec::new() };
        let tables: BTreeMap<_, _> = tables.into_iter().collect();
        let choice = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let mut found = Vec::new();
        for (name, mut value) in tables {
            let at = at.key(&name);
            let ValueKind::Table(table) = &mut value.kind else {
                self.errors.push(self.error(&at, format!("`{at}` must be a table")));
                continue;
            };
            if !is_name(&name) {
                let error = self.error(&at, format!("`{name}` cannot be a name"));
                self.errors.push(error.hint("a name is 1 to 32 of a-z, 0-9 and _, and begins with a letter"));
                continue;
            }
            match table.remove(selector).map(|word| word.kind) {
                Some(ValueKind::String(word)) if words.contains(&word.as_str()) => found.push((name, word, value)),
                Some(ValueKind::String(word)) => {
                    let key = at.key(selector);
                    self.errors.push(self.error(&key, format!("`{key}` must be {choice}, not {word:?}")));
                }
                Some(_) => {
                    let key = at.key(selector);
                    self.errors.push(self.error(&key, format!("`{key}` must be {choice}")));
                }
                None => {
                    let error = self.error(&at, format!("`{at}` needs `{selector}`"));
                    self.errors.push(error.hint(format!("`{selector}` is {choice}")));
                }
            }
        }
        found
    }

    /// Reads one section by `parse`, its secrets out of their files; notes what is wrong with it.
    fn read<T>(
        &mut self,
        mut value: Value,
        at: &Path,
        spare: Option<&Value>,
        secrets: &[&'static str],
        parse: impl Fn(Node<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        if let ValueKind::Table(table) = &mut value.kind {
            self.failed.extend(resolve(table, at, secrets, &self.inputs.directory, &mut self.places, &mut self.errors));
        }
        let faults = match read(&value, at, spare, parse) {
            Ok(read) => return Some(read),
            Err(faults) => faults,
        };
        for unknown in faults.unknown.values() {
            self.unknown(unknown, secrets);
        }
        for fault in faults.faults {
            if fault.missing.is_some_and(|field| self.failed.contains(&at.key(field))) {
                continue;
            }
            let key = fault.path.as_ref().unwrap_or(at);
            let default = lookup(&self.defaults, &key.0).and_then(shown);
            let mut error = self.error(key, format!("`{key}` {}", fault.text));
            error.hints.extend(default.map(|default| format!("the default is `{default}`")));
            self.errors.push(error);
        }
        None
    }

    fn error(&self, at: &Path, message: impl std::fmt::Display) -> Error {
        Error::at(self.places.of(at), message)
    }

    /// Notes what a component found wrong with its section at `at`; a problem begins with its key, in backticks.
    fn problems(&mut self, at: &Path, problems: Vec<String>) {
        for problem in problems {
            let key = problem.split('`').nth(1).and_then(|text| text.split([' ', '=']).next()).unwrap_or_default();
            let key = at.key(key);
            if !self.failed.contains(&key) {
                self.errors.push(self.error(&key, format!("`{at}`: {problem}")));
            }
        }
    }
}

/// `[a-z][a-z0-9_]{0,31}`: a name stands in URLs, variables and metrics.
fn is_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_')
}

fn lookup<'a>(table: &'a Map<String, Value>, steps: &[Step]) -> Option<&'a Value> {
    let [Step::Key(key), rest @ ..] = steps else { return None };
    let value = table.get(key)?;
    match &value.kind {
        _ if rest.is_empty() => Some(value),
        ValueKind::Table(table) => lookup(table, rest),
        _ => None,
    }
}

/// A single value as a user would write it; a default is never a secret.
fn shown(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => None,
        other => Some(other.to_string()),
    }
}
