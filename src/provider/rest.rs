//! Calling a provider's API over HTTP: what is the same whatever the provider says in its answers.
//!
//! What must hold: the key goes to the configured origin only, in one header; every answer is bounded in size and time; and no
//! error repeats the key, or more than a line of a provider's own words.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use super::settings::{origin, wrong_api_key};
use super::{ApiError, Budget, Start};
use crate::clock::Clock;
use crate::http::{self, Answer};
use crate::retry;
use crate::setting::{REDACTED, Secret};
use crate::telemetry::name as metric;
use crate::telemetry::trace::{Kind, Span, here};

/// The most bytes of one answer.
const MAX_ANSWER: usize = 10 << 20;
/// The most characters of a provider's own words in an error.
const MAX_MESSAGE: usize = 200;

/// The keys of a source that say how its API is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access<'a> {
    /// Where the API is.
    pub(super) base_url: &'a str,
    /// Where it usually is.
    pub(super) usual: &'a str,
    pub(super) api_key: Option<&'a Secret>,
    pub(super) requests_per_minute: u32,
    pub(super) timeout: Duration,
}

impl Access<'_> {
    /// All that is wrong, each in a line that begins with its key.
    pub(super) fn check(&self) -> Vec<String> {
        let mut wrong: Vec<_> = self.api_key.and_then(wrong_api_key).into_iter().collect();
        wrong.extend(origin(self.base_url, self.usual).err());
        if self.requests_per_minute == 0 {
            wrong.push("`requests_per_minute` must be at least 1".to_owned());
        }
        if self.timeout.is_zero() {
            wrong.push("`timeout` must be longer than 0s".to_owned());
        }
        wrong
    }
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) value: Value,
    /// The same, as it came.
    pub(super) raw: String,
}

/// An API as one account sees it.
pub(super) struct Rest {
    client: Client,
    base: String,
    key: Option<Secret>,
    pub(super) timeout: Duration,
    clock: Clock,
    pub(super) budget: Arc<Budget>,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("base", &self.base).field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Rest {
    pub(super) fn new(access: &Access<'_>, start: &Start<'_>) -> Self {
        // Keys from files end with a line break.
        let key = access.api_key.map(|key| Secret::new(key.expose().trim()));
        // A section that was not checked keeps its address, and every call then says what is wrong with it.
        let base = origin(access.base_url, access.usual).unwrap_or_else(|_| access.base_url.to_owned());
        Self {
            client: http::client(access.timeout),
            budget: start.budgets.of(&base, key.as_ref(), access.requests_per_minute),
            base,
            key,
            timeout: access.timeout,
            clock: start.clock.clone(),
        }
    }

    /// Whether there is a key.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// A request to `path` (beginning with a slash, escaped), with the key, if there is one, behind `scheme` in the header `name`.
    pub(super) fn request(&self, method: Method, path: &str, name: &'static str, scheme: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let value = self.key.as_ref().and_then(|key| HeaderValue::try_from(format!("{scheme}{}", key.expose())).ok());
        match value {
            Some(mut value) => {
                value.set_sensitive(true);
                request.header(name, value)
            }
            None => request,
        }
    }

    /// Makes a call without asking the budget, has its answer judged, and tells how far the provider's clock is ahead of ours.
    pub(super) async fn call(
        &self,
        call: &'static str,
        request: RequestBuilder,
        judge: impl FnOnce(&Answer, Timestamp) -> Result<Value, ApiError>,
    ) -> (Result<Reply, ApiError>, Option<SignedDuration>) {
        let span = span(call, &request);
        let (reply, skew) = self.exchange(call, request, &span, judge).await;
        if let Err(error) = &reply {
            span.fail(error.kind());
        }
        drop(span);
        let outcome = reply.as_ref().err().map_or("ok", ApiError::kind);
        metrics::counter!(metric::PROVIDER_CALLS, "call" => call, "outcome" => outcome).increment(1);
        (reply.map_err(|error| self.cleaned(error)), skew)
    }

    async fn exchange(
        &self,
        call: &'static str,
        request: RequestBuilder,
        span: &Span,
        judge: impl FnOnce(&Answer, Timestamp) -> Result<Value, ApiError>,
    ) -> (Result<Reply, ApiError>, Option<SignedDuration>) {
        let answer = match http::send(request, self.timeout, MAX_ANSWER).await {
            Ok(answer) => answer,
            Err(error @ http::Error::TooLarge(_)) => {
                return (Err(ApiError::Nonsense { call, status: None, reason: error.to_string() }), None);
            }
            Err(error) => {
                let arrived = error.may_have_arrived();
                return (Err(ApiError::Unavailable { call, reason: error.to_string(), after: None, arrived }), None);
            }
        };
        span.set("http.response.status_code", answer.status.as_u16());
        let now = self.clock.now();
        let date = answer.header("date").and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let skew = date.map(|date| date.timestamp().duration_since(now));
        let reply = judge(&answer, now).map(|value| Reply { value, raw: String::from_utf8_lossy(&answer.body).into_owned() });
        (reply, skew)
    }

    /// `error` with the provider's own words shortened to one line that repeats no key.
    fn cleaned(&self, mut error: ApiError) -> ApiError {
        if let ApiError::Refused { message, .. } | ApiError::Rejected { message, .. } = &mut error {
            if let Some(key) = &self.key {
                *message = message.replace(key.expose(), REDACTED);
            }
            let line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
            line.take(MAX_MESSAGE).collect::<String>().trim().clone_into(message);
        }
        if let ApiError::Rejected { code: Some(code), .. } = &mut error {
            *code = code.chars().filter(char::is_ascii_graphic).take(64).collect();
        }
        error
    }
}

/// The span of a call, below that of what it is made for. The path is not told: `call` is the word for it.
fn span(call: &'static str, request: &RequestBuilder) -> Span {
    let span = here().child(call, Kind::Client);
    if span.is_taken()
        && let Some(request) = request.try_clone().and_then(|request| request.build().ok())
    {
        span.set("http.request.method", request.method().as_str());
        span.set_some("server.address", request.url().host_str());
        span.set_some("server.port", request.url().port_or_known_default());
    }
    span
}

/// An answer, and how each kind of error is made of it.
pub(super) struct Judged<'a> {
    pub(super) call: &'static str,
    pub(super) answer: &'a Answer,
    pub(super) now: Timestamp,
    /// What the provider says.
    pub(super) message: String,
    /// The provider's code.
    pub(super) code: Option<String>,
}

impl Judged<'_> {
    fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    fn after(&self) -> Option<Duration> {
        self.answer.header("retry-after").and_then(|header| retry::retry_after(header, self.now))
    }

    pub(super) fn nonsense(&self, reason: &str) -> ApiError {
        ApiError::Nonsense { call: self.call, status: Some(self.status()), reason: reason.to_owned() }
    }

    pub(super) fn refused(&self) -> ApiError {
        ApiError::Refused { call: self.call, status: self.status(), message: self.message.clone() }
    }

    pub(super) fn rejected(&self) -> ApiError {
        ApiError::Rejected { call: self.call, status: self.status(), code: self.code.clone(), message: self.message.clone() }
    }

    pub(super) fn unavailable(&self) -> ApiError {
        ApiError::Unavailable { call: self.call, reason: self.answer.status.to_string(), after: self.after(), arrived: true }
    }

    pub(super) fn limited(&self) -> ApiError {
        ApiError::RateLimited { call: self.call, after: self.after() }
    }

    pub(super) fn not_found(&self) -> ApiError {
        ApiError::NotFound { call: self.call }
    }

    /// What the status alone decides; the rest is for the answer's own words.
    pub(super) fn by_status(&self) -> Result<(), ApiError> {
        match self.status() {
            401..=403 => Err(self.refused()),
            408 | 425 | 500..=599 => Err(self.unavailable()),
            // Too large is too large, in whose words it is said.
            409 | 413 => Err(self.rejected()),
            429 => Err(self.limited()),
            200..=299 | 400..=499 => Ok(()),
            300..=399 => Err(self.nonsense("a redirect; `base_url` must be the API itself")),
            _ => Err(self.nonsense("no status of this API")),
        }
    }
}

/// `segment` as it stands in a path. `None` for what no id can be: it is then not sent at all, since a step up in a path would
/// reach another call.
pub(super) fn path_segment(segment: &str) -> Option<String> {
    if !is_id(segment) {
        return None;
    }
    let mut url = url::Url::parse("http://localhost").ok()?;
    url.path_segments_mut().ok()?.push(segment);
    url.path().strip_prefix('/').map(ToOwned::to_owned)
}

/// Whether a task may have this id: providers' are some 20 letters and digits, their samples' shorter; ours to refuse is only
/// nonsense.
pub(super) fn is_id(id: &str) -> bool {
    (1..=200).contains(&id.len()) && !matches!(id, "." | "..") && !id.chars().any(|c| c.is_control() || c.is_whitespace())
}
