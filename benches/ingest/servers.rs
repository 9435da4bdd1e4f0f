//! The servers that are compared.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use taskhook::app::{App, Start};
use taskhook::clock::{Clock, rfc3339};
use taskhook::config::{Config, Inputs};
use taskhook::destination::log::{Format, Output};
use taskhook::http::guard::Names;
use taskhook::provider::{Budgets, Request, Source};
use taskhook::server;
use taskhook::signature::rsa::{PrivateKey, PublicKey};
use taskhook::simulator::manus::{Manus, Options, Plan};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::load::{HMAC_SECRET, Load, PATH, PUBLIC_URL, Run};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Bare,
    Verify,
    Limit,
    Taskhook,
    Hmac,
}

impl Server {
    pub(crate) const ALL: [Self; 5] = [Self::Bare, Self::Verify, Self::Limit, Self::Taskhook, Self::Hmac];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Verify => "verify",
            Self::Limit => "limit",
            Self::Taskhook => "taskhook",
            Self::Hmac => "hmac",
        }
    }
}

/// The stand-in for Manus that proves the tasks, for the whole run.
pub(crate) struct Provider {
    manus: Manus,
    /// Its tasks, which the events are about.
    pub(crate) tasks: Vec<String>,
}

/// The account's key.
const API_KEY: &str = "sk-bench";

impl Provider {
    /// Starts it, with a key to sign by and no rate limit.
    pub(crate) async fn start(key: Arc<PrivateKey>, tasks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let options =
            Options { accounts: vec![API_KEY.to_owned()], limits: None, signing_key: Some(key), ..Options::new(Clock::system()) };
        let manus = Manus::start(listener, options, CancellationToken::new());
        let tasks = (0..tasks).map(|_| manus.create_task(API_KEY, Plan::hang())).collect();
        Self { manus, tasks }
    }
}

/// What the servers that are not the whole program work with.
#[derive(Clone)]
struct Parts {
    source: Arc<Source>,
    keys: Arc<Vec<PublicKey>>,
    clock: Clock,
    file: Option<mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>>,
}

/// Runs `server` on a fresh folder, sends it the load, and stops it.
pub(crate) async fn run(server: Server, load: &'static Load, provider: &Provider, connections: usize, folder: &Path) -> Run {
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let config = config(provider, folder.path());
    let clock = Clock::system();
    if matches!(server, Server::Taskhook | Server::Hmac) {
        let start = Start { clock, format: Format::Text, output: Output::Null, names: Names::System, by_itself: true };
        let app = App::start(&config, start).await.expect("the program starts");
        app.keys.load("manus").await.expect("the simulator has a key");
        let (to, store) = (app.public, app.store.clone());
        let mut run = load.send(to, connections).await;
        run.waiting = Some(store.backlog().await.expect("the store can be read").events);
        app.stop().await;
        return run;
    }
    let source = Source::new("manus", &config.sources["manus"], &clock, &Budgets::new(clock.clone())).expect("a source");
    let keys = vec![PublicKey::from_pem(&provider.manus.public_key_pem()).expect("a key")];
    let file = (server == Server::Limit).then(|| append_only(&folder.path().join("events")));
    let parts = Parts { source: Arc::new(source), keys: Arc::new(keys), clock, file };
    let handler = if server == Server::Bare { post(bare) } else { post(verify).with_state(parts) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (to, stop) = (listener.local_addr().expect("an address"), CancellationToken::new());
    let router = Router::new().route(PATH, handler);
    let (run, ()) = tokio::join!(
        async {
            let run = load.send(to, connections).await;
            stop.cancel();
            run
        },
        server::serve(listener, router, 1024, Duration::from_secs(10), stop.clone()),
    );
    run
}

fn config(provider: &Provider, folder: &Path) -> Config {
    let file = folder.join("taskhook.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"{PUBLIC_URL}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite://{}\"\n[archive]\nurl = \"off\"\n\
         [sources.manus]\nprovider = \"manus\"\napi_key = \"{API_KEY}\"\nbase_url = \"{}\"\nrequests_per_minute = 6000000\n\
         [sources.acme]\nprovider = \"custom\"\nscheme = \"hmac-sha256\"\nsecret = \"{HMAC_SECRET}\"\n\
         signature_header = \"x-webhook-signature\"\nsignature_encoding = \"hex\"\nsigned = \"{{ts}}.{{body}}\"\n\
         timestamp_header = \"x-webhook-timestamp\"\nevent_id = \"/event_id\"\nevent_type = \"/event_type\"\n\
         task_id = \"/progress_detail/task_id\"\n",
        folder.join("taskhook.db").display(),
        provider.manus.base_url(),
    );
    std::fs::write(&file, text).expect("the folder can be written");
    let inputs = Inputs { file: Some(file), directory: folder.to_owned(), ..Inputs::default() };
    Config::load(&inputs).unwrap_or_else(|errors| panic!("{errors}"))
}

async fn bare(_body: Bytes) -> Json<Value> {
    accepted(Uuid::now_v7())
}

fn accepted(id: Uuid) -> Json<Value> {
    Json(json!({"status": "accepted", "id": id}))
}

/// Verifies and reads; and where there is a file, waits until it holds what the store would.
async fn verify(State(parts): State<Parts>, uri: Uri, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, StatusCode> {
    let suffix = uri.path_and_query().map_or("", |path| path.as_str());
    let now = parts.clock.now();
    let request = Request { headers: &headers, body: &body, url_suffix: suffix, now };
    parts.source.verify(&request, &[PUBLIC_URL.to_owned()], &parts.keys).map_err(|_| StatusCode::UNAUTHORIZED)?;
    let facts = parts.source.read(&request);
    let id = Uuid::now_v7();
    if let Some(file) = &parts.file {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
        // The event's row, its key, and its job's row.
        let row =
            json!([id, "manus", "manus", facts.kind, facts.event_id, facts.task_id, rfc3339(now), "signature", suffix, headers]);
        let job = json!(["prove", "manus", facts.task_id, "due", rfc3339(now)]);
        let mut bytes = format!("{row}{job}").into_bytes();
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&body);
        let (waiter, kept) = oneshot::channel();
        file.send((bytes, waiter)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        kept.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    }
    Ok(accepted(id))
}

/// The limit: a file that is only appended to, one sync for all that waits.
fn append_only(path: &Path) -> mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)> {
    let mut file = std::fs::File::create(path).expect("a file");
    let (sender, mut waiting) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(4096);
    std::thread::spawn(move || {
        let (mut batch, mut bytes) = (Vec::new(), Vec::new());
        while let Some((first, waiter)) = waiting.blocking_recv() {
            bytes.extend_from_slice(&first);
            batch.push(waiter);
            while batch.len() < 512 {
                let Ok((next, waiter)) = waiting.try_recv() else { break };
                bytes.extend_from_slice(&next);
                batch.push(waiter);
            }
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("the disk takes it");
            bytes.clear();
            for waiter in batch.drain(..) {
                let _ = waiter.send(());
            }
        }
    });
    sender
}
