//! The application that gets the results: it verifies what comes as any receiver of Standard Webhooks would, and remembers it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::news::{Actor, Line, Sender, Tone};
use crate::clock::Clock;
use crate::signature::standard_webhooks::{self, Secret};

/// How many deliveries are remembered.
const MOST: usize = 500;
/// Where it takes them.
const PATH: &str = "/results";

/// A delivery that came.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    /// The task of its event.
    pub(super) task_id: String,
    /// Why the task stopped.
    pub(super) stop_reason: String,
    /// Whether its signature is good.
    pub(super) verified: bool,
    /// Whether the task was fetched whole.
    pub(super) complete: bool,
    /// The names of its files.
    pub(super) files: Vec<String>,
}

struct Shared {
    secret: Option<Secret>,
    refuse: bool,
    clock: Clock,
    news: Sender,
    arrivals: Mutex<VecDeque<Arrival>>,
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running application.
pub(super) struct Application {
    shared: Arc<Shared>,
    address: SocketAddr,
    parts: Mutex<JoinSet<()>>,
}

impl Application {
    /// Starts it on `listener`, until `stop`. With `refuse` it takes nothing.
    pub(super) fn start(
        listener: TcpListener,
        secret: &str,
        refuse: bool,
        clock: Clock,
        news: Sender,
        stop: CancellationToken,
    ) -> Self {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let secret = Secret::parse(secret).ok();
        let shared = Arc::new(Shared { secret, refuse, clock, news, arrivals: Mutex::default() });
        let router = Router::new().route(PATH, post(receive)).with_state(Arc::clone(&shared));
        let mut parts = JoinSet::new();
        parts.spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::error!(%error, "the demo's application ended");
            }
        });
        Self { shared, address, parts: Mutex::new(parts) }
    }

    /// Where it takes deliveries.
    pub(super) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// What came for a task.
    pub(super) fn of_task(&self, task_id: &str) -> Vec<Arrival> {
        self.shared.arrivals().iter().filter(|arrival| arrival.task_id == task_id).cloned().collect()
    }

    /// Waits until it has ended after the stop.
    pub(super) async fn stopped(&self) {
        let mut parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        while parts.join_next().await.is_some() {}
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let at = shared.clock.now();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let verified = match (&shared.secret, text("webhook-timestamp").parse()) {
        (Some(secret), Ok(timestamp)) => {
            let signature = text("webhook-signature");
            standard_webhooks::verify(std::slice::from_ref(secret), text("webhook-id"), timestamp, &body, signature)
        }
        _ => false,
    };
    let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let arrival = Arrival {
        task_id: word(&envelope["event"]["task_id"]),
        stop_reason: word(&envelope["event"]["stop_reason"]),
        verified,
        complete: envelope["task"]["complete"] == true,
        files: envelope["files"].as_array().into_iter().flatten().map(|file| word(&file["name"])).collect(),
    };
    let (kind, title) = (word(&envelope["type"]), word(&envelope["event"]["title"]));
    let line = |tone, outcome| match title.as_str() {
        "" => Line::of_task(at, Actor::App, &kind, &arrival.task_id, tone, outcome),
        title => Line::new(at, Actor::App, &kind, title, tone, outcome),
    };
    if shared.refuse {
        shared.news.line(line(Tone::Bad, "410 Gone: the demo was told to refuse".to_owned()));
    } else {
        let (tone, signed) = if verified { (Tone::Good, "signature good") } else { (Tone::Bad, "signature wrong") };
        shared.news.line(line(tone, format!("{signed}; {}", told(&arrival, &envelope))));
    }
    let mut arrivals = shared.arrivals();
    if arrivals.len() == MOST {
        arrivals.pop_front();
    }
    arrivals.push_back(arrival);
    drop(arrivals);
    match (shared.refuse, verified) {
        (true, _) => (StatusCode::GONE, "the demo was told to refuse").into_response(),
        (false, true) => StatusCode::NO_CONTENT.into_response(),
        (false, false) => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// What an application would look at first.
fn told(arrival: &Arrival, envelope: &Value) -> String {
    if arrival.stop_reason == "ask" {
        return format!("it asks “{}”", envelope["event"]["message"].as_str().unwrap_or_default());
    }
    let state = envelope["task"]["state"].as_str().unwrap_or("unknown");
    let credits = envelope["task"]["credits"].as_f64().map(|credits| format!(", {credits} credits")).unwrap_or_default();
    let cost = envelope["task"]["usage"]["cost_usd"].as_f64().map(|cost| format!(", ${cost}")).unwrap_or_default();
    let error = envelope["task"]["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
    let state = format!("{state}{error}{credits}{cost}");
    let output = Some(&envelope["task"]["structured_output"]).filter(|output| !output.is_null()).map(ToString::to_string);
    std::iter::once(state).chain(output).chain(arrival.files.iter().cloned()).collect::<Vec<_>>().join(", ")
}
