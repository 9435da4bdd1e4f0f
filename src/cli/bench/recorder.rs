//! The destination that remembers: an HTTP server which answers 200 and keeps which event came in which delivery, and when.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
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
}

/// The only member of the envelope that matters here.
#[derive(Deserialize)]
struct Envelope {
    id: Uuid,
}

impl Recorder {
    /// Starts it. Times are those of `clock`.
    pub(super) async fn start(clock: &Clock) -> Result<Self> {
        let listener = listen().await?;
        let address = listener.local_addr();
        let address = address.map_err(|error| Error::failed(format!("a listener has no address: {error}")))?;
        let seen = Arc::new(Seen { clock: clock.clone(), arrivals: Mutex::default() });
        let router = Router::new().route("/", post(record)).with_state(Arc::clone(&seen));
        let mut served = JoinSet::new();
        served.spawn(server::serve(listener, router, CONNECTIONS, Duration::from_mins(1), CancellationToken::new()));
        Ok(Self { address, seen, _server: served })
    }

    /// The section of this destination, to which `keys` may add; it sends whole envelopes.
    pub(super) fn section(&self, keys: &str) -> String {
        format!("[destinations.{NAME}]\nkind = \"http\"\nurl = \"http://{}/\"\n{keys}\n", self.address)
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
    let (Some(delivery), Ok(Envelope { id: event })) = (delivery, serde_json::from_slice(&body)) else {
        return StatusCode::BAD_REQUEST;
    };
    seen.arrivals().push(Arrival { event, delivery, at });
    StatusCode::OK
}
