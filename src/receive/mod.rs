//! Receiving: prove who sent it, keep it, and only then answer.
//!
//! What must hold:
//! - A 2xx leaves only after the event, and what its work begins with, are committed ([`Store::append`]).
//! - Trouble of ours is 503 with `Retry-After`, never a 4xx: the sender has done nothing wrong and is to come again.
//! - The URL that a signature covers is built from configuration (or what the admin API lent, [`PublicUrls`]) and the path and query as
//!   received, never from `Host` or `X-Forwarded-*`: who may choose the URL may replay an event that was signed for somebody else.
//! - What is kept names no credential: their headers and path tokens are `[redacted]`.
//! - Checks are made in one order, 405, 404, 403, 413, 401, 503, so that an answer tells no more than it must.

pub mod peer;
pub mod problem;
pub mod rejections;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use self::peer::Peer;
use self::problem::Problem;
use self::rejections::{Rejected, Rejections};
use self::trace::Arrival;
use crate::clock::Clock;
use crate::event::{First, NewEvent, UNKNOWN, Verification};
use crate::keys::Keys;
use crate::provider::{self, Reading, Reply, Source};
use crate::public_url::PublicUrls;
use crate::setting::{Network, REDACTED};
use crate::store::model::Appended;
use crate::store::{self, Store};
use crate::telemetry::trace::Tracer;
use crate::telemetry::{logged, name};

/// Headers that hold a credential.
const CREDENTIALS: [header::HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];
/// The same, of names that no standard knows.
const KEY_HEADERS: [&str; 3] = ["api_key", "x-api-key", "x-manus-api-key"];

/// What the receiver is told by `[server]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The base URLs.
    pub public_urls: PublicUrls,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// The most bytes of bodies that are being read or kept at once.
    pub max_inflight_bytes: usize,
    /// How long a request's body may take.
    pub request_timeout: Duration,
    /// How long the commit may take.
    pub commit_timeout: Duration,
}

/// What a sender is answered.
#[derive(Serialize)]
struct Accepted {
    status: &'static str,
    id: Uuid,
}

/// The receiver.
#[derive(Debug)]
pub struct Receiver {
    sources: BTreeMap<String, Arc<Source>>,
    keys: Keys,
    store: Store,
    clock: Clock,
    limits: Limits,
    takes_unknown: bool,
    inflight: Arc<Semaphore>,
    rejections: Rejections,
    wake: Arc<Notify>,
    tracer: Tracer,
}

impl Receiver {
    /// A receiver for `sources`. `takes_unknown` says whether any route wants events of unknown type; `wake` is rung for each job.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own, and this is called in one place")]
    pub fn new(
        sources: BTreeMap<String, Arc<Source>>,
        keys: Keys,
        store: Store,
        clock: Clock,
        limits: Limits,
        takes_unknown: bool,
        rejections: Rejections,
        wake: Arc<Notify>,
        tracer: Tracer,
    ) -> Self {
        let inflight = Arc::new(Semaphore::new(limits.max_inflight_bytes.min(Semaphore::MAX_PERMITS)));
        Self { sources, keys, store, clock, limits, takes_unknown, inflight, rejections, wake, tracer }
    }

    /// The routes of the public listener under `/webhooks`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/webhooks", any(receive))
            .route("/webhooks/", any(receive))
            .route("/webhooks/{*rest}", any(receive))
            .with_state(self)
    }

    async fn receive(&self, request: Request) -> Result<Response, Problem> {
        if request.method() != Method::POST {
            return Err(Problem::MethodNotAllowed);
        }
        let (now, begun) = (self.clock.now(), self.tracer.now());
        let (parts, body) = request.into_parts();
        let suffix = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let (source, token) = self.addressed(parts.uri.path()).ok_or(Problem::SourceUnknown)?;
        let target = redact(suffix, token);
        if let Err(explanation) = self.admit(source, &parts) {
            let problem = Problem::IpNotAllowed;
            self.reject(source, &parts.headers, suffix, target, &Bytes::new(), now, problem, Some(explanation));
            return Err(problem);
        }
        let (body, _permit) = self.read(source, &parts.headers, body).await?;
        let request = provider::Request { headers: &parts.headers, body: &body, url_suffix: suffix, now };
        let verification = match self.verify(source, &request).await {
            Ok(verification) => verification,
            Err(problem) => {
                if problem.status() == StatusCode::UNAUTHORIZED {
                    self.reject(source, &parts.headers, suffix, target, &body, now, problem, None);
                }
                return Err(problem);
            }
        };
        let reading = source.read(&request);
        let reply = reading.reply.clone();
        let event = self.event(source, &parts.headers, target, body.clone(), now, verification, reading);
        let arrival = begun.map(|begun| Arrival::of(&event, &parts.headers, begun));
        let task = event.task_id.clone().filter(|_| tracing::enabled!(tracing::Level::DEBUG));
        let handed = self.clock.elapsed();
        let appended = tokio::time::timeout(self.limits.commit_timeout, self.store.append(event)).await;
        metrics::histogram!(name::COMMIT_SECONDS).record(self.clock.elapsed().saturating_sub(handed));
        let kept = |kept: Result<_, _>| kept.map_err(|error| Self::not_kept(source, &error));
        let appended = appended.map_err(|_| Problem::StoreUnavailable).and_then(kept);
        if let Some(arrival) = arrival {
            arrival.tell(&self.tracer, &appended);
        }
        let appended = appended?;
        let (status, outcome) = match appended {
            Appended::New(_) => ("accepted", "accepted"),
            Appended::Collision(_) => ("accepted", "collision"),
            Appended::Duplicate(_) => ("duplicate", "duplicate"),
        };
        if status == "accepted" {
            self.wake.notify_one();
        }
        metrics::counter!(name::EVENTS, "source" => source.name().to_owned(), "outcome" => outcome).increment(1);
        let (id, task) = (appended.id(), task.map(logged));
        tracing::debug!(source = source.name(), event = %id, task, outcome, "received an event on `{}`: {outcome}", source.name());
        Ok(answer(Json(Accepted { status, id: appended.id() }), reply))
    }

    /// The source and path token that a path names; `None` unless it is exactly one of ours.
    fn addressed<'a>(&self, path: &'a str) -> Option<(&Source, Option<&'a str>)> {
        let mut segments = path.strip_prefix("/webhooks/")?.split('/');
        let source = self.sources.get(segments.next()?)?;
        let token = segments.next();
        (segments.next().is_none() && source.opens(token)).then_some((source, token))
    }

    /// Whether the address that sent it may send to `source`; if not, why.
    fn admit(&self, source: &Source, parts: &Parts) -> Result<(), String> {
        if source.allows_all() {
            return Ok(());
        }
        let peer = parts.extensions.get::<Peer>().copied();
        let sender = peer::sender(peer, &parts.headers, &self.limits.trusted_proxies);
        if source.allows(sender) { Ok(()) } else { Err(peer::explain(source.name(), sender, peer, &parts.headers)) }
    }

    /// Reads the body within its limits, and holds its place among the bytes in flight.
    async fn read(&self, source: &Source, headers: &HeaderMap, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
        let most = source.max_body_bytes();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let expected = length.unwrap_or(most);
        if expected > most {
            return Err(Problem::BodyTooLarge);
        }
        let places = u32::try_from(expected).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.inflight).try_acquire_many_owned(places) else {
            if !headers.contains_key(header::EXPECT) {
                // A sender that is still sending would meet a closed connection before it reads the answer.
                let _ = tokio::time::timeout(self.limits.request_timeout, discard(body, most)).await;
            }
            return Err(Problem::QueueFull);
        };
        match tokio::time::timeout(self.limits.request_timeout, Limited::new(body, most).collect()).await {
            Ok(Ok(read)) => Ok((read.to_bytes(), permit)),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::BodyTooLarge),
            // The connection broke while it was read: nobody is there to be answered.
            Ok(Err(_)) | Err(_) => Err(Problem::RequestTimeout),
        }
    }

    async fn verify(&self, source: &Source, request: &provider::Request<'_>) -> Result<Verification, Problem> {
        let loaded = self.keys.of(source.name());
        let public_urls = self.limits.public_urls.current();
        let check = |keys: &[crate::signature::rsa::PublicKey]| source.verify(request, &public_urls, keys);
        let refusal = match check(&loaded.keys) {
            Ok(verification) => return Ok(verification),
            Err(refusal) => refusal,
        };
        // What is missing or malformed is so under every key and every clock; and a secret of ours is what it is.
        if !refusal.may_be_ours() || !source.is_keyed() {
            return Err(Problem::Refused(refusal.kind));
        }
        let refreshed = self.keys.doubt(source.name(), &loaded).await;
        match check(&refreshed.loaded.keys) {
            Ok(verification) => Ok(verification),
            Err(refusal) if refusal.genuine && refreshed.loaded.clock_is_off() => Err(Problem::ClockOff),
            Err(refusal) if refusal.genuine || refreshed.reliable => Err(Problem::Refused(refusal.kind)),
            Err(_) => Err(Problem::KeyUnavailable),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of a request, taken apart")]
    fn event(
        &self,
        source: &Source,
        headers: &HeaderMap,
        target: String,
        body: Bytes,
        received_at: Timestamp,
        verification: Verification,
        reading: Reading,
    ) -> NewEvent {
        let first = if reading.ping || (reading.kind == UNKNOWN && !self.takes_unknown) {
            First::Keep
        } else if reading.task_id.is_none() && source.needs_proof() {
            First::Quarantine
        } else {
            First::Prove
        };
        if reading.ping {
            tracing::info!(source = source.name(), "the registration ping of `{}` arrived and is verified", source.name());
        }
        NewEvent {
            id: Uuid::now_v7(),
            source: source.name().to_owned(),
            provider: source.provider(),
            received_at,
            verification,
            target,
            headers: kept(headers, source, |_| REDACTED.to_owned()),
            body,
            kind: reading.kind,
            provider_type: reading.provider_type,
            event_id: reading.event_id,
            task_id: reading.task_id,
            ping: reading.ping,
            collides: source.collides(),
            first,
        }
    }

    fn not_kept(source: &Source, error: &store::Error) -> Problem {
        metrics::counter!(name::EVENTS, "source" => source.name().to_owned(), "outcome" => "not_kept").increment(1);
        tracing::error!(source = source.name(), error = %error, "an event could not be kept, its sender was asked to come again: {error}");
        match error {
            store::Error::QueueFull => Problem::QueueFull,
            store::Error::Full(_) => Problem::StoreFull,
            _ => Problem::StoreUnavailable,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of a request, taken apart")]
    fn reject(
        &self,
        source: &Source,
        headers: &HeaderMap,
        suffix: &str,
        target: String,
        body: &Bytes,
        received_at: Timestamp,
        problem: Problem,
        explanation: Option<String>,
    ) {
        let Some(source) = self.sources.get(source.name()) else { return };
        self.rejections.add(Rejected {
            source: Arc::clone(source),
            keys: self.keys.of(source.name()),
            code: problem.code(),
            explanation,
            headers: headers.clone(),
            suffix: suffix.to_owned(),
            target,
            body: body.clone(),
            received_at,
        });
    }
}

/// Reads a body of at most `most` bytes, and keeps nothing of it.
async fn discard(body: Body, most: usize) {
    let mut body = Limited::new(body, most);
    while let Some(Ok(_)) = body.frame().await {}
}

/// Our usual answer to an event that is kept, or the one that its sender wants.
fn answer(usual: Json<Accepted>, reply: Option<Reply>) -> Response {
    match reply {
        None => usual.into_response(),
        Some(Reply { status, .. }) if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) => {
            status.into_response()
        }
        Some(Reply { status, text: Some(text) }) => (status, text).into_response(),
        Some(Reply { status, text: None }) => (status, usual).into_response(),
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let begun = receiver.clock.elapsed();
    let response = receiver.receive(request).await.unwrap_or_else(axum::response::IntoResponse::into_response);
    metrics::histogram!(name::RECEIVE_SECONDS).record(receiver.clock.elapsed().saturating_sub(begun));
    response
}

/// Headers in the order they came, as text; a credential goes through `hide`.
fn kept(headers: &HeaderMap, source: &Source, hide: impl Fn(&[u8]) -> String) -> Vec<(String, String)> {
    let own = source.credential_headers();
    headers
        .iter()
        .map(|(name, value)| {
            let secret =
                CREDENTIALS.contains(name) || KEY_HEADERS.contains(&name.as_str()) || own.iter().any(|own| own == name.as_str());
            let value = if secret { hide(value.as_bytes()) } else { String::from_utf8_lossy(value.as_bytes()).into_owned() };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// Path and query without the path token.
fn redact(suffix: &str, token: Option<&str>) -> String {
    let Some(token) = token else { return suffix.to_owned() };
    // The token is the path's last segment, so its first place behind a slash and before the query is its only one.
    let (path, query) = suffix.split_once('?').map_or((suffix, None), |(path, query)| (path, Some(query)));
    let path = path.strip_suffix(token).map_or_else(|| REDACTED.to_owned(), |path| format!("{path}{REDACTED}"));
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}
