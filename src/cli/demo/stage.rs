//! What the demo plays on: the simulator, taskhook and the application, all on loopback, and a folder that is gone at the end.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::Provider;
use super::application::Application;
use super::news::{News, Sender, channel};
use crate::app::{self, App, Start};
use crate::cli::{Error, Failure, Result};
use crate::clock::Clock;
use crate::config::{Config, Flag, Inputs};
use crate::destination::log;
use crate::http;
use crate::http::guard::Names;
use crate::provider::Source;
use crate::signature::encode_base64;
use crate::simulator::magic_hour::{self, MagicHour};
use crate::simulator::manus::{self, Manus};
use crate::simulator::webrun::{self, WebRun};
use crate::simulator::{Delivery, Drive, Happening};
use crate::store::Store;
use crate::telemetry;

/// The API key of the account that is ours.
pub(super) const OUR_KEY: &str = "sk-demo";
/// The API key of somebody else's.
pub(super) const STRANGERS_KEY: &str = "sk-somebody-else";
/// What signs Magic Hour's webhooks.
pub(super) const WEBHOOK_SECRET: &str = "whsec_demo";
/// What authorises WebRun's.
pub(super) const AUTHORIZATION: &str = "Bearer demo-token";
/// How long a stranger's event is kept back before it is quarantined.
const QUARANTINE_AFTER: &str = "1300ms";
/// How often another port is tried: the one that was free may be taken a moment later.
const TRIES: u32 = 5;
/// How long what has been told to stop may take.
const CLOSING: Duration = Duration::from_secs(2);

/// Everything but taskhook's own parts, which the caller runs.
pub(super) struct Stage {
    pub(super) clock: Clock,
    pub(super) cast: Cast,
    /// The name of the source.
    pub(super) source: &'static str,
    pub(super) application: Application,
    pub(super) store: Store,
    /// The address of the admin listener.
    pub(super) admin: SocketAddr,
    /// Where webhooks go.
    pub(super) webhook: String,
    /// What sends the requests that are not the simulator's.
    pub(super) client: reqwest::Client,
    pub(super) news: Sender,
    stop: CancellationToken,
    folder: TempDir,
}

impl Stage {
    /// Builds and starts everything.
    pub(super) async fn open(playing: &super::Options) -> Result<(Self, App, UnboundedReceiver<News>)> {
        let clock = Clock::system();
        let stop = CancellationToken::new();
        let (news, heard) = channel();
        let folder = tempfile::Builder::new()
            .prefix("taskhook-demo-")
            .tempdir()
            .map_err(|error| Error::failed(format!("cannot make a temporary folder: {error}")))?;
        let cast = Cast::start(playing.provider, &clock, &stop).await?;
        let source = cast.source();
        let secret = secret()?;
        let application = Application::start(listen().await?, &secret, playing.refuse, clock.clone(), news.clone(), stop.clone());
        let mut tries = 0;
        let (app, public_url) = loop {
            let config = configuration(&folder, &cast, &application, &secret, &playing.flags).await?;
            if !playing.flags.is_empty() {
                // The story tells what happens; a log beside it is for whoever asks.
                telemetry::init(&config.log, None, playing.terminal).map_err(Error::failed)?;
            }
            let start = Start {
                clock: clock.clone(),
                format: log::Format::Text,
                output: log::Output::Null,
                names: Names::System,
                by_itself: true,
            };
            // On the heap: a future that holds this one would be too large for a stack.
            match Box::pin(App::start(&config, start)).await {
                Ok(app) => break (app, config.server.public_url.first().cloned().unwrap_or_default()),
                Err(app::Error::Listen { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(crate::cli::serve::refused(&error).into()),
            }
        };
        let stage = Self {
            cast,
            source,
            application,
            store: app.store.clone(),
            admin: app.admin,
            webhook: format!("{public_url}/webhooks/{source}"),
            client: http::client(Duration::from_secs(10)),
            news,
            clock,
            stop,
            folder,
        };
        stage.ready(&app).await?;
        Ok((stage, app, heard))
    }

    /// Waits until the key that webhooks are verified with is loaded, where one is.
    async fn ready(&self, app: &App) -> Result {
        for _ in 0..1_000 {
            if app.keys.any_can_verify() {
                return Ok(());
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
        let asked = app.environment.sources.values().map(|source| Source::name(source)).collect::<Vec<_>>().join(", ");
        Err(Error::failed(format!("the simulator's verification key was not loaded for `{asked}`")).into())
    }

    /// Ends what is left, and removes the folder.
    pub(super) async fn close(self) {
        self.stop.cancel();
        let all = async {
            self.cast.stopped().await;
            self.application.stopped().await;
        };
        let _ = tokio::time::timeout(CLOSING, all).await;
        // What is left then lies where the system tidies up; there is nothing better to do about it.
        let _ = self.folder.close();
    }
}

/// Who sends, simulated.
pub(super) enum Cast {
    Manus(Manus),
    MagicHour(MagicHour),
    WebRun(WebRun),
}

/// The same verb of whichever it is.
macro_rules! each {
    ($cast:expr, $simulator:ident => $does:expr) => {
        match $cast {
            Cast::Manus($simulator) => $does,
            Cast::MagicHour($simulator) => $does,
            Cast::WebRun($simulator) => $does,
        }
    };
}

impl Cast {
    async fn start(provider: Provider, clock: &Clock, stop: &CancellationToken) -> Result<Self> {
        // Of tasks that the user makes.
        let pace = Duration::from_millis(400);
        let (listener, stop, clock) = (listen().await?, stop.clone(), clock.clone());
        Ok(match provider {
            Provider::Manus => {
                let accounts = vec![OUR_KEY.to_owned(), STRANGERS_KEY.to_owned()];
                let usual = manus::Options::new(clock);
                let options = manus::Options { drive: Drive::Clock, accounts, limits: None, pace, ..usual };
                Self::Manus(Manus::start(listener, options, stop))
            }
            Provider::MagicHour => {
                let usual = magic_hour::Options::new(clock);
                let options = magic_hour::Options { drive: Drive::Clock, accounts: vec![OUR_KEY.to_owned()], pace, ..usual };
                Self::MagicHour(MagicHour::start(listener, options, stop))
            }
            Provider::WebRun => {
                let accounts = vec![OUR_KEY.to_owned()];
                let usual = webrun::Options::new(clock);
                let options = webrun::Options { drive: Drive::Clock, accounts, per_minute: None, pace, ..usual };
                Self::WebRun(WebRun::start(listener, options, stop))
            }
        })
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Manus(_) => "Manus",
            Self::MagicHour(_) => "Magic Hour",
            Self::WebRun(_) => "WebRun",
        }
    }

    fn source(&self) -> &'static str {
        match self {
            Self::Manus(_) => "manus",
            Self::MagicHour(_) => "magic_hour",
            Self::WebRun(_) => "webrun",
        }
    }

    /// The section of its source, as a user would write it.
    fn section(&self) -> String {
        let (name, base_url) = (self.source(), self.base_url());
        let keys = match self {
            Self::Manus(_) => format!(
                "api_version = \"v2\"\napi_key = \"{OUR_KEY}\"\nrequests_per_minute = 6000\nquarantine_after = \"{QUARANTINE_AFTER}\""
            ),
            Self::MagicHour(_) => {
                format!("secret = \"{WEBHOOK_SECRET}\"\napi_key = \"{OUR_KEY}\"\nrequests_per_minute = 6000")
            }
            Self::WebRun(_) => format!(
                "authorization = \"{AUTHORIZATION}\"\npayload = \"full_response\"\noutput = \"json\"\nfetch = \"on\"\n\
                 requests_per_minute = 6000"
            ),
        };
        format!("[sources.{name}]\nprovider = \"{name}\"\nbase_url = \"{base_url}\"\n{keys}")
    }

    /// The condition under which an event is a result.
    fn ends(&self) -> &'static str {
        match self {
            Self::Manus(_) => r#"event.type == "task_stopped""#,
            Self::MagicHour(_) => "event.stop_reason is not none",
            Self::WebRun(_) => r#"event.type == "task_completed""#,
        }
    }

    pub(super) fn base_url(&self) -> String {
        each!(self, simulator => simulator.base_url())
    }

    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        each!(self, simulator => simulator.deliveries())
    }

    pub(super) fn happenings(&self) -> Receiver<Happening> {
        each!(self, simulator => simulator.happenings())
    }

    pub(super) async fn idle(&self) {
        each!(self, simulator => simulator.idle().await);
    }

    async fn stopped(&self) {
        each!(self, simulator => simulator.stopped().await);
    }
}

/// A listener on a free port of loopback.
async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    Ok(listener.map_err(|error| Error::failed(format!("cannot listen on 127.0.0.1: {error}")))?)
}

/// What the application verifies deliveries with.
fn secret() -> Result<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::failed("the system has no random numbers"))?;
    Ok(format!("whsec_{}", encode_base64(&bytes)))
}

/// The configuration, as a user would write it.
async fn configuration(folder: &TempDir, cast: &Cast, application: &Application, secret: &str, flags: &[Flag]) -> Result<Config> {
    // Signatures cover the public URL, so its port must be known before anything listens on it.
    let public = listen().await?.local_addr().map_err(|error| Error::failed(format!("a listener has no address: {error}")))?;
    let (store, results) = (folder.path().join("taskhook.db"), application.url());
    let (source, when) = (cast.section(), cast.ends());
    let text = format!(
        r#"
[server]
listen = "{public}"
public_url = "http://{public}"

[admin]
listen = "127.0.0.1:0"

[store]
url = "sqlite://{store}"
min_free_bytes = "16MiB"

[archive]
url = "file://{files}"
min_free_bytes = "16MiB"

[outbound]
allow_private_addresses = true

{source}

[destinations.app]
kind = "http"
url = "{results}"
secret = "{secret}"

[[routes]]
name = "results"
when = '{when}'
to = ["app"]
"#,
        store = store.display(),
        files = folder.path().join("files").display(),
    );
    let file = folder.path().join("taskhook.toml");
    std::fs::write(&file, text).map_err(|error| Error::failed(format!("cannot write to the temporary folder: {error}")))?;
    let inputs = Inputs { directory: folder.path().to_owned(), file: Some(file), flags: flags.to_vec(), ..Inputs::default() };
    Config::load(&inputs).map_err(Failure::from)
}
