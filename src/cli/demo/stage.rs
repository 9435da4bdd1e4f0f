//! What the demo plays on: the simulator, taskhook and the application, all on loopback, and a folder that is gone at the end.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

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
use crate::simulator::manus::{Drive, Manus, Options};
use crate::store::Store;
use crate::telemetry;

/// The API key of the account that is ours.
pub(super) const OUR_KEY: &str = "sk-demo";
/// The API key of somebody else's.
pub(super) const STRANGERS_KEY: &str = "sk-somebody-else";
/// The name of the source.
pub(super) const SOURCE: &str = "manus";
/// How long a stranger's event is kept back before it is quarantined.
const QUARANTINE_AFTER: &str = "1300ms";
/// How often another port is tried: the one that was free may be taken a moment later.
const TRIES: u32 = 5;
/// How long what has been told to stop may take.
const CLOSING: Duration = Duration::from_secs(2);

/// Everything but taskhook's own parts, which the caller runs.
pub(super) struct Stage {
    pub(super) clock: Clock,
    pub(super) manus: Manus,
    pub(super) application: Application,
    pub(super) store: Store,
    /// The address of the admin listener.
    pub(super) admin: SocketAddr,
    /// Where webhooks go.
    pub(super) webhook: String,
    /// What sends the requests that are not Manus's.
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
        let options = Options {
            drive: Drive::Clock,
            accounts: vec![OUR_KEY.to_owned(), STRANGERS_KEY.to_owned()],
            limits: None,
            // Of tasks that the user makes.
            pace: Duration::from_millis(400),
            ..Options::new(clock.clone())
        };
        let manus = Manus::start(listen().await?, options, stop.clone());
        let secret = secret()?;
        let application = Application::start(listen().await?, &secret, playing.refuse, clock.clone(), news.clone(), stop.clone());
        let mut tries = 0;
        let (app, public_url) = loop {
            let config = configuration(&folder, &manus, &application, &secret, &playing.flags).await?;
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
            match App::start(&config, start).await {
                Ok(app) => break (app, config.server.public_url.first().cloned().unwrap_or_default()),
                Err(app::Error::Listen { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(crate::cli::serve::refused(&error).into()),
            }
        };
        let stage = Self {
            manus,
            application,
            store: app.store.clone(),
            admin: app.admin,
            webhook: format!("{public_url}/webhooks/{SOURCE}"),
            client: http::client(Duration::from_secs(10)),
            news,
            clock,
            stop,
            folder,
        };
        stage.ready(&app).await?;
        Ok((stage, app, heard))
    }

    /// Waits until the key that webhooks are verified with is loaded.
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
            self.manus.stopped().await;
            self.application.stopped().await;
        };
        let _ = tokio::time::timeout(CLOSING, all).await;
        // What is left then lies where the system tidies up; there is nothing better to do about it.
        let _ = self.folder.close();
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
async fn configuration(
    folder: &TempDir,
    manus: &Manus,
    application: &Application,
    secret: &str,
    flags: &[Flag],
) -> Result<Config> {
    // Signatures cover the public URL, so its port must be known before anything listens on it.
    let public = listen().await?.local_addr().map_err(|error| Error::failed(format!("a listener has no address: {error}")))?;
    let (store, base_url, results) = (folder.path().join("taskhook.db"), manus.base_url(), application.url());
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

[sources.{SOURCE}]
provider = "manus"
api_version = "v2"
base_url = "{base_url}"
api_key = "{OUR_KEY}"
requests_per_minute = 6000
quarantine_after = "{QUARANTINE_AFTER}"

[destinations.app]
kind = "http"
url = "{results}"
secret = "{secret}"

[[routes]]
name = "results"
when = 'event.type == "task_stopped"'
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
