//! A taskhook that runs, a Manus beside it, and a shell to run commands in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::app::{App, Start};
use crate::clock::Clock;
use crate::config::Config;
use crate::destination::log::{Format, Output};
use crate::http::guard::Names;
use crate::simulator::manus::{Manus, Options};

pub(in crate::cli) const KEY: &str = "sk-test";

/// What stands in front of a listener, as a proxy or a tunnel does: its address stays while what is behind it changes.
pub(in crate::cli) struct Front {
    pub(in crate::cli) address: SocketAddr,
    behind: Arc<Mutex<Behind>>,
}

#[derive(Clone)]
enum Behind {
    Nothing,
    Listener(SocketAddr),
    /// The same answer to everything.
    Answer(String),
}

impl Front {
    fn start(runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(Behind::Nothing));
        let shared = Arc::clone(&behind);
        runtime.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let behind = shared.lock().unwrap().clone();
                connections.spawn(pass(stream, behind));
            }
        });
        Self { address, behind }
    }

    /// Answers everything with `status` (such as `200 OK`), `headers` (each with its line break) and `body`.
    pub(in crate::cli) fn answer(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        *self.behind.lock().unwrap() = Behind::Answer(text);
    }

    fn lead_to(&self, listener: Option<SocketAddr>) {
        *self.behind.lock().unwrap() = listener.map_or(Behind::Nothing, Behind::Listener);
    }
}

async fn pass(mut stream: TcpStream, behind: Behind) {
    match behind {
        Behind::Nothing => {}
        Behind::Listener(address) => {
            if let Ok(mut other) = TcpStream::connect(address).await {
                let _ = copy_bidirectional(&mut stream, &mut other).await;
            }
        }
        Behind::Answer(text) => {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(text.as_bytes()).await;
        }
    }
}

/// A command line with all that it needs.
pub(in crate::cli) struct Line {
    arguments: Vec<OsString>,
    env: BTreeMap<String, String>,
    directory: PathBuf,
}

impl Line {
    pub(in crate::cli) fn run(self, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
        let Self { arguments, env, directory } = self;
        run(World { arguments, env, directory, out, err, terminal: false, out_terminal: false, width: None, input: None })
    }

    /// The same, at a terminal where a person types `typed`.
    pub(in crate::cli) fn run_with(self, typed: &str, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
        let Self { arguments, env, directory } = self;
        let input: Option<&mut dyn BufRead> = Some(&mut typed.as_bytes());
        run(World { arguments, env, directory, out, err, terminal: false, out_terminal: false, width: None, input })
    }
}

pub(in crate::cli) struct Site {
    pub(in crate::cli) manus: Manus,
    /// What senders reach.
    pub(in crate::cli) front: Front,
    admin: Front,
    env: Vec<(String, String)>,
    app: Option<App>,
    pub(in crate::cli) folder: TempDir,
    runtime: Runtime,
}

impl Site {
    /// With what `env` sets on top.
    pub(in crate::cli) fn start(env: &[(&str, &str)]) -> Self {
        let mut site = Self::stopped(env);
        site.run();
        site
    }

    /// The same, before taskhook ever ran.
    pub(in crate::cli) fn stopped(env: &[(&str, &str)]) -> Self {
        let runtime = runtime().unwrap();
        let front = Front::start(&runtime);
        let admin = Front::start(&runtime);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let options = Options { limits: None, ..Options::new(Clock::system()) };
        let manus = runtime.block_on(async { Manus::start(listener, options, CancellationToken::new()) });
        let folder = tempfile::tempdir().unwrap();
        let mut site = Self { manus, front, admin, env: Vec::new(), app: None, folder, runtime };
        site.set("MANUS_API_KEY", KEY);
        site.set("TASKHOOK__SOURCES__MANUS__PROVIDER", "manus");
        site.set("TASKHOOK__SOURCES__MANUS__BASE_URL", &site.manus.base_url());
        site.set("TASKHOOK__SERVER__PUBLIC_URL", &format!("http://{}", site.front.address));
        site.set("TASKHOOK__SERVER__LISTEN", "127.0.0.1:0");
        site.set("TASKHOOK__ADMIN__LISTEN", &site.admin.address.to_string());
        site.set("TASKHOOK__STORE__URL", &format!("sqlite://{}", site.folder.path().join("data/taskhook.db").display()));
        site.set("TASKHOOK__ARCHIVE__URL", &format!("file://{}", site.folder.path().join("data/files").display()));
        for (name, value) in env {
            site.set(name, value);
        }
        site
    }

    /// Sets a variable, for the commands that follow and for the next [`Site::run`].
    pub(in crate::cli) fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// One more address, behind which nothing is yet.
    pub(in crate::cli) fn another_front(&self) -> Front {
        Front::start(&self.runtime)
    }

    /// Starts taskhook.
    pub(in crate::cli) fn run(&mut self) {
        let mut inputs = Inputs { directory: self.folder.path().to_owned(), ..Inputs::default() };
        inputs.env = self.env.iter().cloned().collect();
        // Behind its front.
        inputs.env.insert("TASKHOOK__ADMIN__LISTEN".to_owned(), "127.0.0.1:0".to_owned());
        let config = Config::load(&inputs).unwrap();
        let start =
            Start { clock: Clock::system(), format: Format::Json, output: Output::Null, names: Names::System, by_itself: true };
        let app = self.runtime.block_on(App::start(&config, start)).unwrap();
        // An event that came before the key would be asked to come again.
        self.runtime.block_on(app.keys.load("manus")).unwrap();
        self.front.lead_to(Some(app.public));
        self.admin.lead_to(Some(app.admin));
        self.app = Some(app);
    }

    /// Stops taskhook.
    pub(in crate::cli) fn stop(&mut self) {
        self.front.lead_to(None);
        self.admin.lead_to(None);
        if let Some(app) = self.app.take() {
            self.runtime.block_on(app.stop());
        }
    }

    pub(in crate::cli) fn public_url(&self) -> String {
        format!("http://{}", self.front.address)
    }

    pub(in crate::cli) fn webhook_url(&self) -> String {
        format!("{}/webhooks/manus", self.public_url())
    }

    /// Sends an event to the plain URL, and waits for the answer.
    pub(in crate::cli) fn emit(&self, event: serde_json::Value) {
        if self.manus.deliveries().is_empty() {
            self.manus.register(KEY, &self.webhook_url());
        }
        let sent = self.runtime.block_on(self.manus.emit(KEY, event));
        assert_eq!(sent.iter().map(|delivery| delivery.status).collect::<Vec<_>>(), [Some(200)]);
    }

    /// Runs a command line: its exit code, stdout and stderr, addresses and times in them replaced.
    pub(in crate::cli) fn shell(&self, arguments: &[&str]) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = self.command(arguments).run(&mut out, &mut err);
        let clean = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            let text = text.replace(&self.front.address.to_string(), "PUBLIC").replace(&self.admin.address.to_string(), "ADMIN");
            text.replace(&self.manus.base_url(), "MANUS").replace(&self.folder.path().display().to_string(), "DIR")
        };
        (exit.code(), clean(out), clean(err))
    }

    /// A command line that is to be run elsewhere.
    pub(in crate::cli) fn command(&self, arguments: &[&str]) -> Line {
        Line {
            arguments: std::iter::once("taskhook").chain(arguments.iter().copied()).map(OsString::from).collect(),
            env: self.env.iter().cloned().collect(),
            directory: self.folder.path().to_owned(),
        }
    }

    pub(in crate::cli) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(in crate::cli) fn env_of(&self, name: &str) -> String {
        self.env.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// Lets the simulator's tasks end, and no webhook tell of it.
    pub(in crate::cli) fn end_unheard(&self) {
        use crate::simulator::manus::{Faults, Times};
        self.manus.set_faults(Faults { drop: Times::Always, ..Faults::default() });
        self.block_on(self.manus.finish_all());
        self.manus.set_faults(Faults::default());
    }

    /// A command line that must succeed, its JSON.
    pub(in crate::cli) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let (exit, out, err) = self.shell(arguments);
        assert_eq!((exit, err.as_str()), (0, ""), "{arguments:?}");
        serde_json::from_str(&out).unwrap()
    }

    /// The JSON of a command line once it is as `wanted`: what happens beside the request takes its time.
    pub(in crate::cli) fn json_once(&self, arguments: &[&str], wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let tries = (0..500).map(|_| self.json(arguments));
        tries.into_iter().find(wanted).unwrap_or_else(|| panic!("{arguments:?} never came to what was wanted"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}
