//! The servers that are compared: the whole program, and less and less of it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::serve::refused;
use super::super::{Error, Result};
use super::load::{HMAC_SECRET, Load, MANUS_PATH, PUBLIC_URL, Run, closed_loop};
use super::progress::Counter;
use crate::app::{App, Start};
use crate::clock::{Clock, rfc3339};
use crate::config::{Config, Inputs};
use crate::destination::log::{Format, Output};
use crate::http::guard::Names;
use crate::provider::{Budgets, Request, Source};
use crate::server;
use crate::signature::rsa::{PrivateKey, PublicKey};
use crate::simulator::manus::{Manus, Options, Plan};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Server {
    /// Reads the body, answers 200
    Bare,
    /// Checks the RSA signature and reads the event
    Verify,
    /// Appends what the store would keep to a file, one fdatasync a batch
    Limit,
    /// The whole program, its workers on
    Taskhook,
    /// The same, to which the events come signed by HMAC
    Hmac,
}

impl Server {
    pub(super) const ALL: [Self; 5] = [Self::Bare, Self::Verify, Self::Limit, Self::Taskhook, Self::Hmac];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Verify => "verify",
            Self::Limit => "limit",
            Self::Taskhook => "taskhook",
            Self::Hmac => "hmac",
        }
    }
}

/// The stand-in for Manus that proves the tasks.
pub(super) struct Provider {
    pub(super) manus: Manus,
    pub(super) key: Arc<PrivateKey>,
    /// Its tasks, which the events are about.
    pub(super) tasks: Arc<Vec<String>>,
    /// Ends it with this.
    _stop: tokio_util::sync::DropGuard,
}

/// The account's key.
pub(super) const API_KEY: &str = "sk-bench";

/// What a result must say where [`Provider`] is in it.
pub(super) const PROVIDER_NOTE: &str =
    "Manus is simulated, on the same cores. Its limit of requests a minute, and taskhook's own budget for them, are lifted.";

impl Provider {
    /// Starts it with so many tasks, a key to sign by and no rate limit.
    pub(super) async fn start(tasks: usize) -> Result<Self> {
        let key = Arc::new(PrivateKey::generate());
        let accounts = vec![API_KEY.to_owned()];
        let signing_key = Some(Arc::clone(&key));
        let options = Options { accounts, limits: None, signing_key, ..Options::new(Clock::system()) };
        let stop = CancellationToken::new();
        let manus = Manus::start(listen().await?, options, stop.clone());
        let tasks = (0..tasks).map(|_| manus.create_task(API_KEY, Plan::hang())).collect();
        Ok(Self { manus, key, tasks: Arc::new(tasks), _stop: stop.drop_guard() })
    }

    /// The section of its source.
    pub(super) fn section(&self) -> String {
        let url = self.manus.base_url();
        format!(
            "[sources.manus]\nprovider = \"manus\"\napi_key = \"{API_KEY}\"\nbase_url = \"{url}\"\nrequests_per_minute = 6000000\n"
        )
    }
}

/// The section of the source whose own secret verifies by HMAC.
pub(super) fn hmac_section() -> String {
    format!(
        "[sources.acme]\nprovider = \"custom\"\nscheme = \"hmac-sha256\"\nsecret = \"{HMAC_SECRET}\"\n\
         signature_header = \"x-webhook-signature\"\nsignature_encoding = \"hex\"\nsigned = \"{{ts}}.{{body}}\"\n\
         timestamp_header = \"x-webhook-timestamp\"\nevent_id = \"/event_id\"\nevent_type = \"/event_type\"\n\
         task_id = \"/progress_detail/task_id\"\n"
    )
}

/// A listener on a free port of loopback.
pub(super) async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    Ok(listener.map_err(|error| Error::failed(format!("cannot listen on 127.0.0.1: {error}")))?)
}

/// What the servers that are not the whole program work with.
#[derive(Clone)]
struct Parts {
    source: Arc<Source>,
    keys: Arc<Vec<PublicKey>>,
    clock: Clock,
    file: Option<mpsc::Sender<Entry>>,
}

/// What is appended, and who waits for it.
type Entry = (Vec<u8>, oneshot::Sender<()>);

/// What came of a run.
pub(super) struct Measured {
    pub(super) run: Run,
    /// Of the whole program: events whose work was not all done by the last answer.
    pub(super) waiting: Option<i64>,
}

/// Runs `server` on a fresh folder, sends it the load, and stops it.
pub(super) async fn run(
    server: Server,
    load: &Arc<Load>,
    provider: &Provider,
    connections: usize,
    folder: &Path,
    done: &Counter,
) -> Result<Measured> {
    let config = config(provider, folder)?;
    let clock = Clock::system();
    if matches!(server, Server::Taskhook | Server::Hmac) {
        let start =
            Start { clock: clock.clone(), format: Format::Text, output: Output::Null, names: Names::System, by_itself: true };
        let app = App::start(&config, start).await.map_err(|error| refused(&error))?;
        app.keys.load("manus").await.map_err(|error| Error::failed(format!("no key from the simulator: {error}")))?;
        let run = closed_loop(load, app.public, connections, &clock, done).await?;
        let waiting = Some(app.store.backlog().await.map_err(Error::from)?.events);
        app.stop().await;
        return Ok(Measured { run, waiting });
    }
    let failed = |what: String| Error::failed(format!("cannot start the server `{}`: {what}", server.name()));
    let source = Source::new("manus", &config.sources["manus"], &clock, &Budgets::new(clock.clone()));
    let source = Arc::new(source.map_err(|error| failed(error.to_string()))?);
    let key = PublicKey::from_pem(&provider.manus.public_key_pem()).map_err(|error| failed(error.to_string()))?;
    let file = match server {
        Server::Limit => Some(append_only(&folder.join("events")).map_err(|error| failed(error.to_string()))?),
        _ => None,
    };
    let parts = Parts { source, keys: Arc::new(vec![key]), clock: clock.clone(), file };
    let handler = if server == Server::Bare { post(bare) } else { post(verify).with_state(parts) };
    let listener = listen().await?;
    let to = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let (router, stop) = (Router::new().route(MANUS_PATH, handler), CancellationToken::new());
    let (run, ()) = tokio::join!(
        async {
            let run = closed_loop(load, to, connections, &clock, done).await;
            stop.cancel();
            run
        },
        server::serve(listener, router, 1024, Duration::from_secs(10), stop.clone()),
    );
    Ok(Measured { run: run?, waiting: None })
}

fn config(provider: &Provider, folder: &Path) -> Result<Config> {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"{PUBLIC_URL}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\nurl = \"sqlite://{}\"\n[archive]\nurl = \"off\"\n{}{}",
        folder.join("taskhook.db").display(),
        provider.section(),
        hmac_section(),
    );
    configured(folder, &text)
}

/// The configuration that `text` is, as the program reads it.
fn configured(folder: &Path, text: &str) -> Result<Config> {
    let file = folder.join("taskhook.toml");
    std::fs::write(&file, text).map_err(|error| Error::failed(format!("cannot write to {}: {error}", folder.display())))?;
    Ok(Config::load(&Inputs { file: Some(file), directory: folder.to_owned(), ..Inputs::default() })?)
}

async fn bare(_body: Bytes) -> Json<Value> {
    accepted(Uuid::now_v7())
}

fn accepted(id: Uuid) -> Json<Value> {
    Json(json!({"status": "accepted", "id": id}))
}

/// Verifies and reads; and where there is a file, waits until it holds what the store would.
async fn verify(
    State(parts): State<Parts>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> std::result::Result<Json<Value>, StatusCode> {
    let suffix = uri.path_and_query().map_or("", |path| path.as_str());
    let now = parts.clock.now();
    let request = Request { headers: &headers, body: &body, url_suffix: suffix, now };
    parts.source.verify(&request, &[PUBLIC_URL.to_owned()], &parts.keys).map_err(|_| StatusCode::UNAUTHORIZED)?;
    let facts = parts.source.read(&request);
    let id = Uuid::now_v7();
    if let Some(file) = &parts.file {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
        // What a commit holds of an event: its row and its key. What follows from it is made a moment later, for many at once.
        let row =
            json!([id, "manus", "manus", facts.kind, facts.event_id, facts.task_id, rfc3339(now), "signature", suffix, headers]);
        let mut bytes = row.to_string().into_bytes();
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&body);
        let (waiter, kept) = oneshot::channel();
        file.send((bytes, waiter)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        kept.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    }
    Ok(accepted(id))
}

/// The limit: a file that is only appended to, one sync for all that waits. A failure drops the waiters, who then answer 503.
fn append_only(path: &Path) -> io::Result<mpsc::Sender<Entry>> {
    let mut file = File::create(path)?;
    let (sender, mut waiting) = mpsc::channel::<Entry>(4096);
    std::thread::Builder::new().name("limit".to_owned()).spawn(move || {
        let (mut batch, mut bytes) = (Vec::new(), Vec::new());
        while let Some((first, waiter)) = waiting.blocking_recv() {
            bytes.extend_from_slice(&first);
            batch.push(waiter);
            while batch.len() < 512 {
                let Ok((next, waiter)) = waiting.try_recv() else { break };
                bytes.extend_from_slice(&next);
                batch.push(waiter);
            }
            if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
                return;
            }
            bytes.clear();
            for waiter in batch.drain(..) {
                // Whoever does not wait any more does not matter to the others.
                let _ = waiter.send(());
            }
        }
    })?;
    Ok(sender)
}
