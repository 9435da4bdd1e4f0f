//! The listeners: limits, time-outs and the order of stopping.

mod places;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;

use self::places::{Going, Place, Places};
use crate::clock::Clock;
use crate::keys::Keys;
use crate::receive::Receiver;
use crate::receive::peer::Peer;
use crate::receive::problem::Problem;
use crate::setting::{List, Network, Size, Zone};
use crate::store::Store;
use crate::telemetry::Health;
use crate::telemetry::name;

/// `[server]`: the public listener and its bounds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address of the public listener.
    pub listen: SocketAddr,
    /// The URLs under which senders reach it, without a trailing slash: signatures cover them. The first is printed and
    /// registered, all are accepted. Empty only where nothing verifies.
    pub public_url: List<String>,
    /// The proxies whose `X-Forwarded-For` tells where a request came from.
    pub trusted_proxies: List<Network>,
    /// The most connections at one time.
    pub max_connections: usize,
    /// The most bytes of bodies in memory at one time, over all connections.
    pub max_inflight_bytes: Size,
    /// The largest body that a source takes, unless it sets its own limit.
    pub max_body_bytes: Size,
    /// How long a sender may take for the headers, and how long a connection may stay idle.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a sender may take for the body.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a verified event may wait for its commit before the sender is told to come again.
    #[serde(with = "humantime_serde")]
    pub commit_timeout: Duration,
    /// How long work in hand may take once the program is told to stop.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How long events are still accepted after `/readyz` says that the program stops.
    #[serde(with = "humantime_serde")]
    pub shutdown_delay: Duration,
    /// Where days begin that credits are counted by.
    pub time_zone: Zone,
}

/// Answers of `/healthz` and `/readyz`, on both listeners.
#[derive(Clone, Debug)]
pub struct Probes {
    store: Store,
    keys: Keys,
    health: Health,
    clock: Clock,
    draining: CancellationToken,
    /// The last answer of the store, and when it was given: whoever polls must not make it write all the time.
    checked: Arc<Mutex<Option<Checked>>>,
}

/// When the store was asked, by the clock's running time, and what it said.
type Checked = (Duration, Result<(), String>);

/// How long an answer of the store serves `/readyz`.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long the store may take to answer `/readyz`.
const CHECK_TIME: Duration = Duration::from_secs(2);

impl Probes {
    /// Probes that say no once `draining` is cancelled.
    #[must_use]
    pub fn new(store: Store, keys: Keys, health: Health, clock: Clock, draining: CancellationToken) -> Self {
        Self { store, keys, health, clock, draining, checked: Arc::default() }
    }

    /// The routes. With `reasons`, `/readyz` says what is wrong: for the admin listener only.
    pub fn router(self, reasons: bool) -> Router {
        let instance = json!({"status": "ok", "instance": self.store.instance_id()});
        Router::new()
            .route("/healthz", get(move || std::future::ready(Json(instance.clone()))))
            .route("/readyz", get(move || async move { self.ready(reasons).await }))
    }

    async fn ready(&self, reasons: bool) -> Response {
        let mut why: Vec<Value> = Vec::new();
        let mut blocked = |part: &str, reason: String| why.push(json!({"part": part, "reason": reason}));
        if self.draining.is_cancelled() {
            blocked("server", "it is shutting down".into());
        }
        if !self.keys.any_can_verify() {
            blocked("keys", "no source can verify: no key was ever loaded".into());
        }
        if let Err(reason) = self.check_store().await {
            blocked("store", reason);
        }
        let (status, word) = if !why.is_empty() {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        } else if !self.health.reasons().is_empty() {
            (StatusCode::OK, "degraded")
        } else {
            (StatusCode::OK, "ready")
        };
        why.extend(self.health.reasons().iter().map(|reason| json!(reason)));
        let body = if reasons { json!({"status": word, "reasons": why}) } else { json!({"status": word}) };
        (status, Json(body)).into_response()
    }

    async fn check_store(&self) -> Result<(), String> {
        let now = self.clock.elapsed();
        let known = self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, answer)) = known
            && now.saturating_sub(at) < CHECK_EVERY
        {
            return answer;
        }
        let answer = match tokio::time::timeout(CHECK_TIME, self.store.check()).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it takes no write within {} s", CHECK_TIME.as_secs())),
        };
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, answer.clone()));
        answer
    }
}

/// The public listener's routes: webhooks and probes, and nothing else.
pub fn public(receiver: Arc<Receiver>, probes: Probes) -> Router {
    receiver
        .router()
        .merge(probes.router(false))
        .fallback(|| std::future::ready(Problem::SourceUnknown))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION]))
        .layer(axum::middleware::map_response(count))
}

/// `router` in which a panic is an answer.
pub fn guarded(router: Router) -> Router {
    router.layer(CatchPanicLayer::custom(panicked))
}

async fn count(response: Response) -> Response {
    metrics::counter!(name::RESPONSES, "status" => response.status().as_str().to_owned()).increment(1);
    response
}

/// A bug of ours is our trouble: 503, so that the sender comes again.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request handler panicked: this is a bug");
    Problem::Internal.into_response()
}

/// Serves `router` on `listener` until `stop`; then takes no more connections, lets requests in hand end, and returns.
///
/// At most `max_connections` are open. One more is accepted and waits for a place, which the connection that was waited for the
/// longest makes ([`places`]); the others wait in the kernel. Headers must come within `header_timeout`, and a connection may be
/// idle for no longer.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    header_timeout: Duration,
    stop: CancellationToken,
) {
    let mut places = Places::new(max_connections);
    let mut connections = JoinSet::new();
    'accepting: loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next_with_id() => {
                places.free(task(&ended));
                continue;
            }
            accepted = accept(&listener) => accepted,
        };
        let Some((stream, peer)) = accepted else { continue };
        while let Err(wait) = places.make_room() {
            tokio::select! {
                () = stop.cancelled() => break 'accepting,
                Some(ended) = connections.join_next_with_id() => places.free(task(&ended)),
                () = tokio::time::sleep(wait) => {}
            }
        }
        let place = places.place();
        let connection = connection(stream, peer, router.clone(), header_timeout, Arc::clone(&place), stop.clone());
        places.take(connections.spawn(connection).id(), place);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn task(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    }
}

/// Serves one connection until its end, until `stop`, or until another needs its `place`.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    header_timeout: Duration,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(64 << 10);
    let router = TowerToHyperService::new(router);
    let theirs = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| theirs.reading(body));
        request.extensions_mut().insert(peer);
        let (answer, place) = (router.call(request), Arc::clone(&theirs));
        async move { answer.await.map(|answer| answer.map(|body| place.answering(body))) }
    });
    // How a connection ends is its peer's affair: what was accepted is kept, what was not is sent again.
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            _ = serving.as_mut() => return,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
                return;
            }
            () = place.wanted() => match place.going() {
                Going::Stays => {}
                Going::Now => return,
                Going::InOrder => {
                    serving.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(LEAVE_TIME, serving).await;
                    return;
                }
            }
        }
    }
}

/// How long an idle connection may take to end once another needs its place: its last answer may still be on its way.
const LEAVE_TIME: Duration = Duration::from_secs(1);

async fn accept(listener: &TcpListener) -> Option<(TcpStream, Peer)> {
    match listener.accept().await {
        Ok((stream, address)) => {
            // Answers are small: each must leave at once.
            let _ = stream.set_nodelay(true);
            Some((stream, Peer(address.ip())))
        }
        Err(error) => {
            // Out of file descriptors, most likely; connections that end will free some.
            tracing::warn!(error = %error, "cannot accept a connection: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
