//! How a program of a test is configured and started.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use taskhook::app::{App, Error, Start};
use taskhook::clock::Clock;
use taskhook::config::{Config, Inputs};
use taskhook::destination::log::{Format, Output};
use taskhook::http;
use taskhook::http::guard::Names;
use taskhook::signature::rsa::PrivateKey;
use taskhook::simulator::manus::{Manus, Options};
use taskhook::store;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::{Harness, PATIENCE};

/// When tests begin, if they do not say otherwise.
const BEGIN: &str = "2026-01-15T12:00:00Z";

/// The harness's own configuration. In it and in a test's own, `{manus}` is the simulator's address, `{public}` that of the public
/// listener, and `{folder}` the test's folder.
const TOML: &str = r#"
[server]
listen = "{public}"
public_url = "http://{public}"
[admin]
listen = "127.0.0.1:0"
[store]
url = "sqlite://{folder}/taskhook.db"
min_free_bytes = "0B"
[archive]
url = "off"
min_free_bytes = "0B"
[sources.manus]
provider = "manus"
api_key = "sk-test"
base_url = "{manus}"
"#;

/// Who has the work of a program done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The test, when it says so.
    ByHand,
    /// The test as well; what no webhook told is looked for.
    Reconciling,
    /// The same; what is not as it should be is looked for as well.
    Watching,
    /// The program.
    ByItself,
}

/// A program that has not been started.
pub(crate) struct Setup {
    toml: String,
    begin: Timestamp,
    keys: bool,
    work: Work,
    names: Names,
    simulator: Box<dyn FnOnce(&mut Options)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let begin = BEGIN.parse().expect("a time");
        Self { toml: TOML.to_owned(), begin, keys: true, work: Work::ByHand, names: Names::System, simulator: Box::new(|_| {}) }
    }

    /// Lays `toml` over the configuration, table by table.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.toml = merge(&self.toml, toml);
        self
    }

    /// The time at the start.
    pub(crate) fn at(mut self, begin: Timestamp) -> Self {
        self.begin = begin;
        self
    }

    /// Does not load the verification keys at the start.
    pub(crate) fn without_keys(mut self) -> Self {
        self.keys = false;
        self
    }

    /// Lets the program work by itself, instead of [`Harness::drain`].
    pub(crate) fn by_itself(mut self) -> Self {
        self.work = Work::ByItself;
        self
    }

    /// Looks for stops that no webhook told, as the program does when it works by itself.
    pub(crate) fn reconciling(mut self) -> Self {
        self.work = Work::Reconciling;
        self
    }

    /// The same, and looks for what is not as it should be.
    pub(crate) fn watching(mut self) -> Self {
        self.work = Work::Watching;
        self
    }

    /// Looks names in links of payloads up here.
    pub(crate) fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Changes the simulator.
    pub(crate) fn simulator(mut self, change: impl FnOnce(&mut Options) + 'static) -> Self {
        self.simulator = Box::new(change);
        self
    }

    /// Starts the simulator and the program.
    pub(crate) async fn start(self) -> Harness {
        let mut harness = self.prepare().await;
        harness.start().await;
        harness
    }

    /// Starts the simulator only; the program by [`Harness::start`].
    pub(crate) async fn prepare(self) -> Harness {
        let clock = Clock::manual(self.begin);
        let mut options = Options { seed: Some(1), signing_key: Some(signing_key()), ..Options::new(clock.clone()) };
        (self.simulator)(&mut options);
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let manus = Manus::start(listener, options, stop.clone());
        Harness {
            clock,
            manus,
            log: Output::memory(),
            app: None,
            worker: None,
            keeper: None,
            upkeep: None,
            client: http::client(PATIENCE),
            toml: self.toml,
            keys: self.keys,
            work: self.work,
            names: self.names,
            leftover: false,
            folder: tempfile::tempdir().expect("a folder"),
            port: reserve(),
            simulator: stop,
        }
    }
}

/// `over` laid over `under`, table by table.
pub(crate) fn merge(under: &str, over: &str) -> String {
    let mut merged: toml::Table = under.parse().expect("TOML");
    lay(&mut merged, over.parse().expect("TOML"));
    merged.to_string()
}

/// `toml` without the section `table.name` and without routes.
pub(super) fn without(toml: &str, table: &str, name: &str) -> String {
    let mut toml: toml::Table = toml.parse().expect("TOML");
    toml.remove("routes");
    without_key(&toml.to_string(), table, name)
}

/// `toml` without `table.key`.
pub(super) fn without_key(toml: &str, table: &str, key: &str) -> String {
    let mut toml: toml::Table = toml.parse().expect("TOML");
    let removed = toml.get_mut(table).and_then(toml::Value::as_table_mut).and_then(|table| table.remove(key));
    assert!(removed.is_some(), "there is no `{table}.{key}`");
    toml.to_string()
}

fn lay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => lay(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// A port that nobody else is given, for a listener to come. Linux lets a socket that listens share the address of one that does not;
/// elsewhere it is only likely that nobody else takes it in between.
pub(crate) fn reserve() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(cfg!(target_os = "linux")).expect("an option of sockets");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    socket
}

/// The configuration of `harness`, read as the program reads it.
fn load(harness: &Harness) -> Config {
    let folder = harness.folder.path();
    let toml = harness
        .toml
        .replace("{manus}", &harness.manus.base_url())
        .replace("{public}", &harness.public().to_string())
        .replace("{folder}", folder.to_str().expect("a path that is text"));
    let file = folder.join("taskhook.toml");
    fs::write(&file, toml).expect("the folder can be written");
    let inputs = Inputs { directory: folder.to_owned(), file: Some(file), ..Inputs::default() };
    Config::load(&inputs).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Starts the program, once the one before has let go of its store and its port.
pub(super) async fn launch(harness: &Harness) -> App {
    let config = load(harness);
    loop {
        let start = Start {
            clock: harness.clock.clone(),
            format: Format::Text,
            output: harness.log.clone(),
            names: harness.names.clone(),
            by_itself: harness.work == Work::ByItself,
        };
        // On the heap: a future that holds this one would be too large for a stack.
        match Box::pin(App::start(&config, start)).await {
            Ok(app) => return app,
            Err(error) if is_held(&error) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether the program before has not quite ended: the tasks of a crashed one are dropped by the runtime when it comes to them.
fn is_held(error: &Error) -> bool {
    matches!(error, Error::Listen { .. } | Error::Store(store::Error::Locked(_)))
}

/// Starts the program of `setup`, which must be refused.
pub(crate) async fn refusal(setup: Setup) -> Error {
    let harness = setup.prepare().await;
    let start = Start {
        clock: harness.clock.clone(),
        format: Format::Text,
        output: Output::memory(),
        names: Names::System,
        by_itself: false,
    };
    App::start(&load(&harness), start).await.expect_err("it must not start")
}

/// One key for all simulators, in the build's folder: making one takes longer than most tests do.
fn signing_key() -> Arc<PrivateKey> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("signing_key.pem");
    if let Some(key) = fs::read_to_string(&path).ok().and_then(|pem| PrivateKey::from_pem(&pem).ok()) {
        return Arc::new(key);
    }
    let key = PrivateKey::generate();
    // Others may be doing the same: whole or not at all, and whose it is makes no difference.
    let written = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's folder can be written");
    fs::write(written.path(), key.pem()).expect("the build's folder can be written");
    written.persist(path).expect("the build's folder can be written");
    Arc::new(key)
}
