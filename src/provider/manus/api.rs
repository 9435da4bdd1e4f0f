//! One call of Manus's API, and what its answer means; both versions.
//!
//! What must hold: the key goes to the configured origin only, in the header of its version; every call takes one from the
//! budget, but those for keys, and those whose caller has; and only an error envelope of Manus itself, never a
//! proxy's page, may say `not found`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use super::convert::{error_text, member, text};
use super::{ApiVersion, BASE_URL, Config};
use crate::clock::Clock;
use crate::http::{self, Answer};
use crate::provider::settings::origin;
use crate::provider::{ApiError, Budget, Start, Use};
use crate::retry;
use crate::setting::{REDACTED, Secret};
use crate::telemetry::name as metric;

/// The most bytes of one answer.
const MAX_ANSWER: usize = 10 << 20;
/// The most characters of a provider's own words in an error.
const MAX_MESSAGE: usize = 200;

/// A call, named as its errors name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    version: ApiVersion,
}

impl Call {
    pub(super) const fn v1(name: &'static str) -> Self {
        Self { name, version: ApiVersion::V1 }
    }

    pub(super) const fn v2(name: &'static str) -> Self {
        Self { name, version: ApiVersion::V2 }
    }

    /// An answer that reads well and says nothing that we can use.
    pub(super) fn nonsense(self, reason: impl Into<String>) -> ApiError {
        ApiError::Nonsense { call: self.name, status: Some(200), reason: reason.into() }
    }
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) value: Value,
    /// The same, as it came.
    pub(super) raw: String,
}

/// The API as one account sees it.
pub(super) struct Api {
    client: Client,
    base: String,
    key: Option<Secret>,
    timeout: Duration,
    clock: Clock,
    pub(super) budget: Arc<Budget>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &self.base).field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Api {
    pub(super) fn new(config: &Config, start: &Start<'_>) -> Self {
        // Keys from files end with a line break.
        let key = config.api_key.as_ref().map(|key| Secret::new(key.expose().trim()));
        // A `Config` that was not checked keeps its address, and every call then says what is wrong with it.
        let base = origin(&config.base_url, BASE_URL).unwrap_or_else(|_| config.base_url.clone());
        Self {
            client: http::client(config.timeout),
            budget: start.budgets.of(&base, key.as_ref(), config.requests_per_minute),
            base,
            key,
            timeout: config.timeout,
            clock: start.clock.clone(),
        }
    }

    /// A request to `path` (beginning with a slash, escaped), with the key.
    pub(super) fn request(&self, call: Call, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let name = match call.version {
            ApiVersion::V1 => "api_key",
            ApiVersion::V2 => "x-manus-api-key",
        };
        match self.key.as_ref().and_then(|key| HeaderValue::from_str(key.expose()).ok()) {
            Some(mut key) => {
                key.set_sensitive(true);
                request.header(name, key)
            }
            None => request,
        }
    }

    /// Makes a call, once the budget has one for `purpose`; `None` where the caller has taken it.
    pub(super) async fn call(&self, call: Call, purpose: Option<Use>, request: RequestBuilder) -> Result<Reply, ApiError> {
        if let Some(purpose) = purpose {
            self.budget.take(purpose).await;
        }
        self.call_now(call, request).await.0
    }

    /// Calls without asking the budget, and tells how far the provider's clock is ahead of ours.
    pub(super) async fn call_now(
        &self,
        call: Call,
        request: RequestBuilder,
    ) -> (Result<Reply, ApiError>, Option<SignedDuration>) {
        let name = call.name;
        let (reply, skew) = self.exchange(call, request).await;
        let outcome = reply.as_ref().err().map_or("ok", ApiError::kind);
        metrics::counter!(metric::PROVIDER_CALLS, "call" => name, "outcome" => outcome).increment(1);
        (reply, skew)
    }

    async fn exchange(&self, call: Call, request: RequestBuilder) -> (Result<Reply, ApiError>, Option<SignedDuration>) {
        if self.key.is_none() {
            let reason = "this source has no `api_key`";
            return (Err(ApiError::Unsupported { call: call.name, reason }), None);
        }
        let answer = match http::send(request, self.timeout, MAX_ANSWER).await {
            Ok(answer) => answer,
            Err(error @ http::Error::TooLarge(_)) => {
                return (Err(ApiError::Nonsense { call: call.name, status: None, reason: error.to_string() }), None);
            }
            Err(error) => {
                let arrived = error.may_have_arrived();
                let reason = error.to_string();
                return (Err(ApiError::Unavailable { call: call.name, reason, after: None, arrived }), None);
            }
        };
        let now = self.clock.now();
        let date = answer.header("date").and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let skew = date.map(|date| date.timestamp().duration_since(now));
        let reply =
            judge(call, &answer, now).map(|value| Reply { value, raw: String::from_utf8_lossy(&answer.body).into_owned() });
        (reply.map_err(|error| self.cleaned(error)), skew)
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

/// Whether a task may have this id: Manus's are 22 letters and digits, its samples' shorter; ours to refuse is only nonsense.
pub(super) fn is_id(id: &str) -> bool {
    (1..=200).contains(&id.len()) && !matches!(id, "." | "..") && !id.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// What an error envelope says, in the words of both versions.
enum Meaning {
    NotFound,
    Refused,
    RateLimited,
    Unavailable,
    Rejected,
    /// A code that we do not know.
    Other,
}

/// Judges by the HTTP status and by the envelope; where the status alone is clear, it decides.
fn judge(call: Call, answer: &Answer, now: Timestamp) -> Result<Value, ApiError> {
    let status = answer.status.as_u16();
    let after = answer.header("retry-after").and_then(|header| retry::retry_after(header, now));
    let value = serde_json::from_slice::<Value>(&answer.body).ok();
    let envelope = value.as_ref().filter(|value| value.is_object());
    let message = || envelope.and_then(message).unwrap_or_default();
    let code = || envelope.and_then(|envelope| code(call.version, envelope));

    let nonsense = |reason: &str| ApiError::Nonsense { call: call.name, status: Some(status), reason: reason.to_owned() };
    let refused = || ApiError::Refused { call: call.name, status, message: message() };
    let rejected = || ApiError::Rejected { call: call.name, status, code: code(), message: message() };
    let unavailable = || ApiError::Unavailable { call: call.name, reason: answer.status.to_string(), after, arrived: true };
    let limited = || ApiError::RateLimited { call: call.name, after };

    match status {
        401..=403 => return Err(refused()),
        408 | 425 | 500..=599 => return Err(unavailable()),
        409 => return Err(rejected()),
        429 => return Err(limited()),
        200..=299 | 400..=499 => {}
        300..=399 => return Err(nonsense("a redirect; `base_url` must be the API itself")),
        _ => return Err(nonsense("no status of this API")),
    }
    let succeeded = answer.status.is_success();
    let meaning = envelope.and_then(|envelope| meaning(call.version, succeeded, envelope));
    match (meaning, value.as_ref()) {
        (Some(Meaning::NotFound), _) => Err(ApiError::NotFound { call: call.name }),
        (Some(Meaning::Refused), _) => Err(refused()),
        (Some(Meaning::RateLimited), _) => Err(limited()),
        (Some(Meaning::Unavailable), _) => Err(unavailable()),
        (Some(Meaning::Rejected), _) => Err(rejected()),
        (Some(Meaning::Other), _) if succeeded => Err(nonsense("an error that is not known")),
        // v1 documents no other form of "not found"; v2 has a word for it.
        (Some(Meaning::Other), _) if status == 404 && call.version == ApiVersion::V1 => {
            Err(ApiError::NotFound { call: call.name })
        }
        (Some(Meaning::Other), _) if status != 404 => Err(rejected()),
        (None, Some(_)) if succeeded => Ok(()),
        // Deleting answers with 204, or with 200 and nothing.
        (None, None) if succeeded && answer.body.trim_ascii().is_empty() => Ok(()),
        (_, None) => Err(nonsense("it is not JSON")),
        (_, Some(_)) => Err(nonsense("it is not an error of this API")),
    }?;
    Ok(value.unwrap_or_default())
}

/// What `envelope` says went wrong; `None` if it says nothing of the kind.
fn meaning(version: ApiVersion, succeeded: bool, envelope: &Value) -> Option<Meaning> {
    let code = code(version, envelope);
    match version {
        ApiVersion::V2 => {
            // A task has an `error` of its own, inside `task`; an envelope's is beside `ok`.
            let failed =
                envelope.get("ok") == Some(&Value::Bool(false)) || (!succeeded && member(envelope, &["error"]).is_some());
            failed.then_some(match code.as_deref() {
                Some("not_found") => Meaning::NotFound,
                Some("unauthenticated" | "permission_denied") => Meaning::Refused,
                Some("rate_limited" | "resource_exhausted") => Meaning::RateLimited,
                Some("internal" | "unavailable") => Meaning::Unavailable,
                Some("invalid_argument") => Meaning::Rejected,
                _ => Meaning::Other,
            })
        }
        // The numbers of gRPC. A success has no `code`.
        ApiVersion::V1 => match code.as_deref() {
            Some("5") => Some(Meaning::NotFound),
            Some("7" | "16") => Some(Meaning::Refused),
            Some("8") => Some(Meaning::RateLimited),
            Some("13" | "14") => Some(Meaning::Unavailable),
            Some("3") => Some(Meaning::Rejected),
            None | Some("0") if succeeded => None,
            _ => Some(Meaning::Other),
        },
    }
}

fn code(version: ApiVersion, envelope: &Value) -> Option<String> {
    match version {
        ApiVersion::V1 => text(envelope, &["code"]),
        ApiVersion::V2 => text(envelope.get("error")?, &["code"]),
    }
}

fn message(envelope: &Value) -> Option<String> {
    error_text(envelope, "error").or_else(|| text(envelope, &["message"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    fn judged(call: Call, status: u16, body: &str) -> Result<Value, ApiError> {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) };
        judge(call, &answer, Timestamp::UNIX_EPOCH)
    }

    fn kind(result: &Result<Value, ApiError>) -> &'static str {
        match result {
            Ok(_) => "ok",
            Err(ApiError::NotFound { .. }) => "not found",
            Err(ApiError::Refused { .. }) => "refused",
            Err(ApiError::RateLimited { .. }) => "limited",
            Err(ApiError::Unavailable { .. }) => "unavailable",
            Err(ApiError::Nonsense { .. }) => "nonsense",
            Err(ApiError::Rejected { .. }) => "rejected",
            Err(ApiError::Unsupported { .. }) => "unsupported",
        }
    }

    #[test]
    fn v2_answers_are_judged_by_status_and_envelope() {
        let error = |code: &str| format!(r#"{{"ok":false,"request_id":"req_1","error":{{"code":"{code}","message":"m"}}}}"#);
        let html = "<html>404 Not Found</html>".to_owned();
        for (status, body, expected) in [
            (200, r#"{"ok":true,"task":{}}"#.to_owned(), "ok"),
            (200, r#"{"task":{"error":"x"}}"#.to_owned(), "ok"),
            (200, error("not_found"), "not found"),
            (200, error("rate_limited"), "limited"),
            (200, error("something"), "nonsense"),
            (200, html.clone(), "nonsense"),
            (200, r#"{"ok":true,"ta"#.to_owned(), "nonsense"),
            (204, String::new(), "ok"),
            (302, String::new(), "nonsense"),
            (400, error("invalid_argument"), "rejected"),
            (400, error("not_found"), "not found"),
            (400, error("unauthenticated"), "refused"),
            (400, html.clone(), "nonsense"),
            (400, r#"{"detail":"a proxy's JSON"}"#.to_owned(), "nonsense"),
            (401, html.clone(), "refused"),
            (402, String::new(), "refused"),
            (403, error("not_found"), "refused"),
            (404, error("not_found"), "not found"),
            (404, error("permission_denied"), "refused"),
            (404, error("no_such_route"), "nonsense"),
            (404, r#"{"message":"no route"}"#.to_owned(), "nonsense"),
            (404, html.clone(), "nonsense"),
            (404, String::new(), "nonsense"),
            (405, r#"{"ok":false}"#.to_owned(), "rejected"),
            (409, "already exists".to_owned(), "rejected"),
            (429, html.clone(), "limited"),
            (500, error("not_found"), "unavailable"),
            (503, html, "unavailable"),
        ] {
            assert_eq!(kind(&judged(Call::v2("task.detail"), status, &body)), expected, "{status} {body}");
        }
    }

    #[test]
    fn v1_answers_are_judged_by_status_and_envelope() {
        for (status, body, expected) in [
            (200, r#"{"id":"1","status":"completed"}"#, "ok"),
            (200, r#"{"code":5,"message":"gone","details":[]}"#, "not found"),
            (200, r#"{"code":0,"id":"1"}"#, "ok"),
            (400, r#"{"code":5,"message":"gone","details":[]}"#, "not found"),
            (400, r#"{"code":3,"message":"bad"}"#, "rejected"),
            (400, r#"{"message":"bad"}"#, "rejected"),
            (400, "bad", "nonsense"),
            (404, r#"{"code":"5","message":"gone"}"#, "not found"),
            (404, r#"{"message":"task not found or does not belong to user"}"#, "not found"),
            (404, r#"{"code":16,"message":"who are you"}"#, "refused"),
            (404, "<html></html>", "nonsense"),
            (404, "[]", "nonsense"),
            (409, r#"{"code":6,"message":"already exists"}"#, "rejected"),
        ] {
            assert_eq!(kind(&judged(Call::v1("GET /v1/tasks"), status, body)), expected, "{status} {body}");
        }
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        assert_eq!(path_segment("9rP8DLRXVC9fkKBKEELXkg").as_deref(), Some("9rP8DLRXVC9fkKBKEELXkg"));
        assert_eq!(path_segment("a/../b?c#d").as_deref(), Some("a%2F..%2Fb%3Fc%23d"));
        assert_eq!(path_segment("%2e%2e").as_deref(), Some("%252e%252e"));
        for no in ["", ".", "..", "a b", "a\nb", &"x".repeat(201)] {
            assert_eq!(path_segment(no), None, "{no:?}");
        }
    }
}
