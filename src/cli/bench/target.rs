//! The servers that are compared: the whole program, once and as replicas, and less and less of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::serve::refused;
use super::super::{Error, Result};
use super::ground::Place;
use super::keep::{self, Keep, Offer};
use super::load::{HMAC_SECRET, Load, MANUS_PATH, PUBLIC_URL, Run, closed_loop};
use super::process::Home;
use super::progress::Counter;
use super::viewers::Viewers;
use crate::app::{App, Start};
use crate::clock::Clock;
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
    /// With `--viewers`: the whole program, and so many look on
    Watched,
    /// PostgreSQL: keeps events in one table, one statement and commit a batch
    PgLimit,
    /// PostgreSQL: one statement and commit an event, on a pool of 16 connections
    PgEach,
    /// With `--replicas`: the whole program as a process
    One,
    /// With `--replicas`: so many such processes, which share the store
    Replicas,
}

impl Server {
    pub(super) const ALL: [Self; 10] = [
        Self::Bare,
        Self::Verify,
        Self::Limit,
        Self::PgLimit,
        Self::PgEach,
        Self::Taskhook,
        Self::Watched,
        Self::Hmac,
        Self::One,
        Self::Replicas,
    ];

    /// Its name, where the replicas are so many.
    pub(super) fn name(self, replicas: usize) -> Cow<'static, str> {
        match self {
            Self::Bare => "bare".into(),
            Self::Verify => "verify".into(),
            Self::Limit => "limit".into(),
            Self::Taskhook => "taskhook".into(),
            Self::Watched => "watched".into(),
            Self::Hmac => "hmac".into(),
            Self::PgLimit => "pg-limit".into(),
            Self::PgEach => "pg-each".into(),
            Self::One => "taskhook x1".into(),
            Self::Replicas => format!("taskhook x{replicas}").into(),
        }
    }

    /// Whether it is the whole program.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Taskhook | Self::Watched | Self::Hmac | Self::One | Self::Replicas)
    }

    /// What keeps it from being measured, if something does: on a PostgreSQL, with so many replicas and viewers.
    pub(super) fn obstacle(self, on_server: bool, replicas: usize, viewers: usize) -> Option<&'static str> {
        match self {
            Self::Watched if viewers == 0 => Some("is there with `--viewers` only"),
            Self::PgLimit | Self::PgEach if !on_server => Some("is there with `--store postgres://…` only"),
            Self::One | Self::Replicas if replicas < 2 => Some("is there with `--replicas` only"),
            _ => None,
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
    keep: Option<Keep>,
}

/// What came of a run.
pub(super) struct Measured {
    pub(super) run: Run,
    /// Of the whole program: events whose work was not all done by the last answer.
    pub(super) waiting: Option<i64>,
    /// The messages and pages that viewers got.
    pub(super) shown: (usize, usize),
}

/// What a server is sent, where it lies, and who is told how far it is.
pub(super) struct Trial<'a> {
    pub(super) load: &'a Arc<Load>,
    pub(super) provider: &'a Provider,
    pub(super) connections: usize,
    /// How many processes share the store, of the server that is several.
    pub(super) replicas: usize,
    /// How many look on, where some do.
    pub(super) viewers: usize,
    /// Fresh.
    pub(super) place: &'a Place,
    pub(super) done: &'a Counter,
}

impl Trial<'_> {
    async fn send(&self, to: &[SocketAddr], clock: &Clock) -> Result<Run> {
        closed_loop(self.load, to, self.connections, clock, self.done).await
    }
}

/// Runs `server`, sends it the load, and stops it.
pub(super) async fn run(server: Server, trial: &Trial<'_>) -> Result<Measured> {
    match server {
        Server::Taskhook | Server::Hmac => whole(trial, 0).await,
        Server::Watched => whole(trial, trial.viewers).await,
        Server::One => processes(1, trial).await,
        Server::Replicas => processes(trial.replicas, trial).await,
        _ => part(server, trial).await,
    }
}

/// The whole program, within this process as the parts of it are, and so many that look on.
async fn whole(trial: &Trial<'_>, viewers: usize) -> Result<Measured> {
    let (config, clock) = (config(trial.provider, trial.place)?, Clock::system());
    let start = Start { clock: clock.clone(), format: Format::Text, output: Output::Null, names: Names::System, by_itself: true };
    let app = App::start(&config, start).await.map_err(|error| refused(&error))?;
    app.keys.load("manus").await.map_err(|error| Error::failed(format!("no key from the simulator: {error}")))?;
    let viewers = Viewers::open(viewers, app.admin, &clock).await?;
    let run = trial.send(&[app.public], &clock).await?;
    let shown = viewers.close();
    let waiting = Some(app.store.backlog().await.map_err(Error::from)?.events);
    app.stop().await;
    Ok(Measured { run, waiting, shown })
}

/// So many processes of the whole program, which share the store and the load.
async fn processes(count: usize, trial: &Trial<'_>) -> Result<Measured> {
    let clock = Clock::system();
    let sections = format!("[archive]\nurl = \"off\"\n{}{}", trial.provider.section(), hmac_section());
    let homes = Home::replicas(count, trial.place, &sections)?;
    let mut running = Vec::with_capacity(count);
    for home in &homes {
        running.push(home.start(&clock).await?);
    }
    let to: Vec<_> = homes.iter().map(|home| home.public).collect();
    let run = trial.send(&to, &clock).await?;
    let waiting = homes[0].json("/api/v1/stats").await?["events"].as_i64();
    for (home, process) in homes.iter().zip(running) {
        home.stop(process).await?;
    }
    Ok(Measured { run, waiting, shown: (0, 0) })
}

/// A server that is not the whole program.
async fn part(server: Server, trial: &Trial<'_>) -> Result<Measured> {
    let Trial { provider, place, .. } = trial;
    let (config, clock, name) = (config(provider, place)?, Clock::system(), server.name(1));
    let failed = |what: String| Error::failed(format!("cannot start the server `{name}`: {what}"));
    let source = Source::new("manus", &config.sources["manus"], &clock, &Budgets::new(clock.clone()));
    let source = Arc::new(source.map_err(|error| failed(error.to_string()))?);
    let key = PublicKey::from_pem(&provider.manus.public_key_pem()).map_err(|error| failed(error.to_string()))?;
    let mut writers = JoinSet::new();
    let keep = match server {
        Server::Limit => Some(keep::append_only(&place.folder.join("events")).map_err(|error| failed(error.to_string()))?),
        Server::PgLimit => Some(keep::in_batches(place, &mut writers).await?),
        Server::PgEach => Some(keep::one_by_one(place).await?),
        _ => None,
    };
    let parts = Parts { source, keys: Arc::new(vec![key]), clock: clock.clone(), keep };
    let handler = if server == Server::Bare { post(bare) } else { post(verify).with_state(parts) };
    let listener = listen().await?;
    let to = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let (router, stop) = (Router::new().route(MANUS_PATH, handler), CancellationToken::new());
    let (run, ()) = tokio::join!(
        async {
            let run = trial.send(&[to], &clock).await;
            stop.cancel();
            run
        },
        server::serve(listener, router, 1024, Duration::from_secs(10), stop.clone()),
    );
    Ok(Measured { run: run?, waiting: None, shown: (0, 0) })
}

/// The configuration of the whole program, as it reads it.
fn config(provider: &Provider, place: &Place) -> Result<Config> {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"{PUBLIC_URL}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [archive]\nurl = \"off\"\n{}{}",
        provider.section(),
        hmac_section(),
    );
    let (folder, file) = (&place.folder, place.folder.join("taskhook.toml"));
    std::fs::write(&file, text).map_err(|error| Error::failed(format!("cannot write to {}: {error}", folder.display())))?;
    let (env, directory) = (place.environment(), folder.clone());
    Ok(Config::load(&Inputs { file: Some(file), env, directory, ..Inputs::default() })?)
}

async fn bare(_body: Bytes) -> Json<Value> {
    accepted(Uuid::now_v7())
}

fn accepted(id: Uuid) -> Json<Value> {
    Json(json!({"status": "accepted", "id": id}))
}

/// Verifies and reads; and where events are kept, waits until this one is.
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
    let reading = parts.source.read(&request);
    let id = Uuid::now_v7();
    if let Some(keep) = &parts.keep {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
        let offer = Offer { id, source: "manus", reading, received_at: now, target: suffix, headers, body: &body };
        if !keep.keep(offer).await {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    Ok(accepted(id))
}
