//! One call of Manus's API, and what its answer means; both versions.
//!
//! What must hold: the key goes to the configured origin only, in the header of its version; every call takes one from the
//! budget, but those for keys, and those whose caller has; and only an error envelope of Manus itself, never a
//! proxy's page, may say `not found`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::convert::{error_text, member, text};
use super::{ApiVersion, Config};
use crate::http::Answer;
use crate::provider::rest::{Judged, Rest};
pub(super) use crate::provider::rest::{Reply, is_id, path_segment};
use crate::provider::{ApiError, Start, Use};

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

/// The API as one account sees it.
#[derive(Debug)]
pub(super) struct Api(pub(super) Rest);

impl Api {
    pub(super) fn new(config: &Config, start: &Start<'_>) -> Self {
        Self(Rest::new(&config.access(), start))
    }

    /// A request to `path` (beginning with a slash, escaped), with the key.
    pub(super) fn request(&self, call: Call, method: Method, path: &str) -> RequestBuilder {
        let name = match call.version {
            ApiVersion::V1 => "api_key",
            ApiVersion::V2 => "x-manus-api-key",
        };
        self.0.request(method, path, name, "")
    }

    /// `request`, whose body has files of so many bytes in it: it may take longer by what a slow line needs for them.
    pub(super) fn uploading(&self, request: RequestBuilder, bytes: usize) -> RequestBuilder {
        /// Bytes a second.
        const SLOW: usize = 256 << 10;
        if bytes == 0 {
            return request;
        }
        request.timeout(self.0.timeout + Duration::from_secs((bytes / SLOW) as u64))
    }

    /// Makes a call, once the budget has one for `purpose`; `None` where the caller has taken it.
    pub(super) async fn call(&self, call: Call, purpose: Option<Use>, request: RequestBuilder) -> Result<Reply, ApiError> {
        if let Some(purpose) = purpose {
            self.0.budget.take(purpose).await;
        }
        self.call_now(call, request).await.0
    }

    /// Calls without asking the budget, and tells how far the provider's clock is ahead of ours.
    pub(super) async fn call_now(
        &self,
        call: Call,
        request: RequestBuilder,
    ) -> (Result<Reply, ApiError>, Option<SignedDuration>) {
        if !self.0.has_key() {
            return (Err(ApiError::Unsupported { call: call.name, reason: "this source has no `api_key`" }), None);
        }
        self.0.call(call.name, request, |answer, now| judge(call, answer, now)).await
    }
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
    let value = serde_json::from_slice::<Value>(&answer.body).ok();
    let envelope = value.as_ref().filter(|value| value.is_object());
    let message = envelope.and_then(message).unwrap_or_default();
    let code = envelope.and_then(|envelope| code(call.version, envelope));
    let judged = Judged { call: call.name, answer, now, message, code };
    judged.by_status()?;
    let succeeded = answer.status.is_success();
    let meaning = envelope.and_then(|envelope| meaning(call.version, succeeded, envelope));
    match (meaning, value.as_ref()) {
        (Some(Meaning::NotFound), _) => Err(judged.not_found()),
        (Some(Meaning::Refused), _) => Err(judged.refused()),
        (Some(Meaning::RateLimited), _) => Err(judged.limited()),
        (Some(Meaning::Unavailable), _) => Err(judged.unavailable()),
        (Some(Meaning::Rejected), _) => Err(judged.rejected()),
        (Some(Meaning::Other), _) if succeeded => Err(judged.nonsense("an error that is not known")),
        // v1 documents no other form of "not found"; v2 has a word for it.
        (Some(Meaning::Other), _) if status == 404 && call.version == ApiVersion::V1 => Err(judged.not_found()),
        (Some(Meaning::Other), _) if status != 404 => Err(judged.rejected()),
        (None, Some(_)) if succeeded => Ok(()),
        // Deleting answers with 204, or with 200 and nothing.
        (None, None) if succeeded && answer.body.trim_ascii().is_empty() => Ok(()),
        (_, None) => Err(judged.nonsense("it is not JSON")),
        (_, Some(_)) => Err(judged.nonsense("it is not an error of this API")),
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
            (413, "<html>413 Payload Too Large</html>".to_owned(), "rejected"),
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
