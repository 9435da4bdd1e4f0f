//! What both API versions share: routes, keys, rate limits, refusals, faults, and the record of calls.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use bytes::Bytes;
use hyper::body::Frame;
use jiff::SignedDuration;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::state::{Call, State};
use super::{Faults, Happening, Limits, Shared, WrongAnswer, api_v1, api_v2, files};
use crate::clock;

/// The most bytes of our own answer that are read back, to spoil it.
const MAX_ANSWER: usize = 64 << 20;
/// The window of the rate limits.
const WINDOW: Duration = Duration::from_mins(1);
/// The longest text of a message: the documentation says about 5,000 tokens, which is some 20,000 letters.
pub(super) const MAX_TEXT: usize = 20_000;

/// Why a call is refused.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument,
    NotFound,
    AlreadyExists,
    Unauthenticated,
    RateLimited,
    MethodNotAllowed,
}

impl Code {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The word in a v2 envelope.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InvalidArgument | Self::MethodNotAllowed => "invalid_argument",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Unauthenticated => "unauthenticated",
            Self::RateLimited => "rate_limited",
        }
    }

    /// The gRPC status number in a v1 answer.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::InvalidArgument => 3,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::RateLimited => 8,
            Self::MethodNotAllowed => 12,
            Self::Unauthenticated => 16,
        }
    }

    pub(super) fn because(self, message: impl Into<String>) -> Problem {
        Problem { code: self, message: message.into() }
    }
}

/// What a call counts as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    Create,
    Change,
    Read,
}

/// A decoded query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(raw: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Problem> {
        self.text(name).ok_or_else(|| Code::InvalidArgument.because(format!("{name} is required")))
    }

    /// A page's size; out of range is refused, so that a caller who relies on being cut down finds out.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.text("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| Code::InvalidArgument.because(format!("limit must be between 1 and {most}")))
    }

    /// Whether the newest comes first, which is the default.
    pub(super) fn newest_first(&self) -> Result<bool, Problem> {
        match self.text("order") {
            None | Some("desc") => Ok(true),
            Some("asc") => Ok(false),
            Some(_) => Err(Code::InvalidArgument.because("order must be asc or desc")),
        }
    }
}

impl State {
    /// The account of a key that is not refused.
    pub(super) fn authenticate(&self, key: Option<&str>) -> Result<usize, Problem> {
        let key = key.filter(|key| !self.faults.refused_keys.iter().any(|refused| refused == key));
        key.and_then(|key| self.account_of_key(key)).ok_or_else(|| Code::Unauthenticated.because("invalid api key"))
    }

    /// Counts a call against its account's limit of the last minute.
    pub(super) fn count(&mut self, account: usize, class: Class, limits: Option<Limits>) -> Result<(), Problem> {
        let Some(limits) = limits else { return Ok(()) };
        let most = match class {
            Class::Create => limits.creates,
            Class::Change => limits.changes,
            Class::Read => limits.reads,
        };
        let now = self.clock.elapsed();
        let recent = &mut self.accounts[account].recent[class as usize];
        while recent.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
            recent.pop_front();
        }
        if recent.len() >= most {
            return Err(Code::RateLimited.because("too many requests, try again later"));
        }
        recent.push_back(now);
        Ok(())
    }
}

/// Everything that is served.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v2/{call}", any(api_v2::serve))
        .route("/v1/{*path}", any(api_v1::serve))
        .route("/files/{id}/{name}", get(files::serve))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(Arc::clone(&shared), front))
        .route("/_simulator/faults", get(show_faults).post(set_faults))
        .route("/_simulator/requests", get(async |Extract(shared): Extract<Arc<Shared>>| Json(shared.lock().calls.to_vec())))
        .route(
            "/_simulator/deliveries",
            get(async |Extract(shared): Extract<Arc<Shared>>| Json(shared.lock().deliveries.to_vec())),
        )
        .with_state(shared)
}

async fn show_faults(Extract(shared): Extract<Arc<Shared>>) -> Json<Faults> {
    Json(shared.lock().faults.clone())
}

async fn set_faults(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Faults>(&body) {
        Ok(faults) => {
            shared.lock().faults = faults.clone();
            Json(faults).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n\n{}\n", super::FAULTS)).into_response(),
    }
}

/// What every call goes through: faults before and after, the date, the record.
async fn front(Extract(shared): Extract<Arc<Shared>>, request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (fault, account, offset) = {
        let mut state = shared.lock();
        let account = api_v1::key(request.headers()).or_else(|| api_v2::key(request.headers()));
        let account = account.and_then(|key| state.account_of_key(&key)).map(|known| state.accounts[known].label.clone());
        (state.faults.for_call(&target), account, state.faults.date_offset_seconds)
    };
    let mut call =
        Call { method: request.method().to_string(), path: path.to_owned(), query: query.to_owned(), status: 0, account };
    if let Some(slow) = fault.as_ref().map(|fault| fault.slow_ms).filter(|slow| *slow > 0) {
        let wait = shared.options.clock.sleep(Duration::from_millis(slow));
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = wait => {}
        }
    }
    let mut response = match fault.and_then(|fault| fault.answer) {
        Some(WrongAnswer::Refuse { status, retry_after }) => refuse(status, retry_after.as_deref()),
        Some(WrongAnswer::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(wrong) => spoil(next.run(request).await, &wrong).await,
        None => next.run(request).await,
    };
    let now = shared.lock().now();
    let date = now.checked_add(SignedDuration::from_secs(offset)).unwrap_or(now);
    if let Some(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&date).ok().and_then(|date| date.try_into().ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    call.status = response.status().as_u16();
    shared.lock().calls.push(call.clone());
    shared.tell(Happening::Called(call));
    // The call may have taken away what was still to be done.
    shared.rest.send_replace(());
    response
}

/// A refusal in the form of the error envelope of v2.
fn refuse(status: u16, retry_after: Option<&str>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = match status.as_u16() {
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        429 => "rate_limited",
        400..500 => "invalid_argument",
        _ => "internal",
    };
    let error = serde_json::json!({"code": code, "message": "a fault of the simulator"});
    let mut response =
        (status, Json(serde_json::json!({"ok": false, "request_id": "req_fault", "error": error}))).into_response();
    if let Some(wait) = retry_after.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}

async fn spoil(response: Response, wrong: &WrongAnswer) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, MAX_ANSWER).await.unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = match wrong {
        WrongAnswer::Refuse { .. } | WrongAnswer::Redirect(_) => Body::from(whole),
        WrongAnswer::Html => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            Body::from("<!doctype html>\n<title>Just a moment…</title>\n<p>Checking your browser.</p>\n")
        }
        WrongAnswer::Empty => Body::empty(),
        WrongAnswer::Huge => Body::from(format!("{{\"ok\":true,\"padding\":\"{}\"}}", "x".repeat(10 << 20))),
        WrongAnswer::Half | WrongAnswer::Lost => {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len().max(2)));
            let part = matches!(wrong, WrongAnswer::Half).then(|| whole.slice(..whole.len() / 2));
            Body::new(Broken { part, flushed: false })
        }
    };
    Response::from_parts(parts, body)
}

/// A body that breaks: after its part was sent, or before anything was.
struct Broken {
    part: Option<Bytes>,
    flushed: bool,
}

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(part) = self.part.take() {
            self.flushed = true;
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        if std::mem::take(&mut self.flushed) {
            // The connection writes out what it has while we are not ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionAborted.into())))
    }
}

/// A header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A time as v1 writes the few that are no numbers.
pub(super) fn iso(at: jiff::Timestamp) -> String {
    clock::rfc3339(at)
}
