//! What both API versions share: routes, keys, rate limits, refusals.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};

use super::super::front;
use super::state::State;
use super::{Limits, Shared, api_v1, api_v2};
use crate::clock;

/// The window of the rate limits.
const WINDOW: Duration = Duration::from_mins(1);
/// The longest text of a message: the documentation says about 5,000 tokens, which is some 20,000 letters.
pub(super) const MAX_TEXT: usize = 20_000;
/// The most bytes of a call: 20 MB of files in base64, as the documentation allows, and the rest of a message.
const MAX_BODY: usize = 28 << 20;

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
    let api = Router::new().route("/v2/{call}", any(api_v2::serve)).route("/v1/{*path}", any(api_v1::serve));
    let api = api.layer(DefaultBodyLimit::max(MAX_BODY));
    front::serve(api, shared)
}

/// A refusal in the form of the error envelope of v2.
pub(super) fn refuse(status: StatusCode) -> Response {
    let code = match status.as_u16() {
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        429 => "rate_limited",
        400..500 => "invalid_argument",
        _ => "internal",
    };
    let error = serde_json::json!({"code": code, "message": "a fault of the simulator"});
    (status, Json(serde_json::json!({"ok": false, "request_id": "req_fault", "error": error}))).into_response()
}

/// A header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A time as v1 writes the few that are no numbers.
pub(super) fn iso(at: jiff::Timestamp) -> String {
    clock::rfc3339(at)
}
