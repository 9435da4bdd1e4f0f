//! The destination that remembers: an HTTP server which answers 200 and keeps which event came in which delivery, and when; or tells
//! somebody who keeps what matters to him.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{MethodRouter, post};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::{Error, Result};
use super::target::listen;
use crate::clock::Clock;
use crate::server;

/// The name of the destination in the configuration.
pub(super) const NAME: &str = "recorder";
/// Connections at once.
const CONNECTIONS: usize = 1024;

/// What came in a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The event's id, as the envelope tells it.
    pub(super) event: Uuid,
    /// The `webhook-id`: that of the delivery.
    pub(super) delivery: Uuid,
    /// When it came, by the clock's running time.
    pub(super) at: Duration,
}

/// The destination; it ends when this is dropped.
pub(super) struct Recorder {
    address: SocketAddr,
    seen: Arc<Seen>,
    _server: JoinSet<()>,
}

struct Seen {
    clock: Clock,
    arrivals: Mutex<Vec<Arrival>>,
    /// Who is told instead.
    hear: Option<Hear>,
}

type Hear = Box<dyn Fn(&Envelope<'_>, Duration) + Send + Sync>;

/// What matters here of an envelope.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    /// Our id of the event.
    pub(super) id: Uuid,
    /// Its task, if it ends one.
    #[serde(borrow)]
    pub(super) task: Option<Task<'a>>,
    /// The task's files.
    pub(super) files: Vec<File>,
}

/// What matters here of a task.
#[derive(Debug, Deserialize)]
pub(super) struct Task<'a> {
    /// The provider's id.
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    /// Whether all of it was fetched.
    pub(super) complete: bool,
}

/// What matters here of a file.
#[derive(Debug, Deserialize)]
pub(super) struct File {
    /// Where it stands.
    pub(super) status: String,
    /// Of its content, once it is saved.
    pub(super) sha256: Option<String>,
}

impl Recorder {
    /// Starts it. Times are those of `clock`.
    pub(super) async fn start(clock: &Clock) -> Result<Self> {
        Self::serve(Seen { clock: clock.clone(), arrivals: Mutex::default(), hear: None }, post(record)).await
    }

    /// Starts one that keeps nothing, and tells `hear` of each envelope and when it came.
    pub(super) async fn hearing(clock: &Clock, hear: impl Fn(&Envelope<'_>, Duration) + Send + Sync + 'static) -> Result<Self> {
        let seen = Seen { clock: clock.clone(), arrivals: Mutex::default(), hear: Some(Box::new(hear)) };
        Self::serve(seen, post(record)).await
    }

    /// Starts one that takes every request and never answers.
    pub(super) async fn silent(clock: &Clock) -> Result<Self> {
        let seen = Seen { clock: clock.clone(), arrivals: Mutex::default(), hear: None };
        Self::serve(seen, post(|_: Bytes| std::future::pending::<StatusCode>())).await
    }

    async fn serve(seen: Seen, handler: MethodRouter<Arc<Seen>>) -> Result<Self> {
        let listener = listen().await?;
        let address = listener.local_addr();
        let address = address.map_err(|error| Error::failed(format!("a listener has no address: {error}")))?;
        let seen = Arc::new(seen);
        let router = Router::new().route("/", handler).with_state(Arc::clone(&seen));
        let mut served = JoinSet::new();
        served.spawn(server::serve(listener, router, CONNECTIONS, Duration::from_mins(1), CancellationToken::new()));
        Ok(Self { address, seen, _server: served })
    }

    /// The section of this destination, to which `keys` may add; it sends whole envelopes.
    pub(super) fn section(&self, keys: &str) -> String {
        self.section_of(NAME, keys)
    }

    /// The same, under another name.
    pub(super) fn section_of(&self, name: &str, keys: &str) -> String {
        format!("[destinations.{name}]\nkind = \"http\"\nurl = \"http://{}/\"\n{keys}\n", self.address)
    }

    /// How many requests came.
    pub(super) fn count(&self) -> usize {
        self.seen.arrivals().len()
    }

    /// All that came, in its order.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.seen.arrivals().clone()
    }
}

impl Seen {
    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is no delivery of ours is refused for good, so that it is seen.
async fn record(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let at = seen.clock.elapsed();
    let delivery = headers.get("webhook-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (Some(delivery), Ok(envelope)) = (delivery, serde_json::from_slice::<Envelope<'_>>(&body)) else {
        return StatusCode::BAD_REQUEST;
    };
    match &seen.hear {
        Some(hear) => hear(&envelope, at),
        None => seen.arrivals().push(Arrival { event: envelope.id, delivery, at }),
    }
    StatusCode::OK
}
