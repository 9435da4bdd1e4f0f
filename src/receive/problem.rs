//! What a sender is answered when its request is not accepted: RFC 9457, and never an echo of what it sent.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::provider::RefusalKind;

/// How long a sender is asked to wait, in seconds, when the trouble is ours.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Only POST is.
    MethodNotAllowed,
    /// No such source, or its path token is wrong or missing.
    SourceUnknown,
    /// It came from an address that is not in the source's `allow_ips`.
    IpNotAllowed,
    /// Larger than the source's `max_body_bytes`.
    BodyTooLarge,
    /// The body did not come within `server.request_timeout`.
    RequestTimeout,
    /// It did not verify.
    Refused(RefusalKind),
    /// We hold no key, or an old one, and cannot get another: nobody can say whether it is genuine.
    KeyUnavailable,
    /// It is genuine, and our own clock is wrong.
    ClockOff,
    /// The store did not commit it, or not in time.
    StoreUnavailable,
    /// The disk is full.
    StoreFull,
    /// Too much waits already.
    QueueFull,
    /// Something in us broke.
    Internal,
}

impl Problem {
    /// Its status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::SourceUnknown => StatusCode::NOT_FOUND,
            Self::IpNotAllowed => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Refused(_) => StatusCode::UNAUTHORIZED,
            Self::KeyUnavailable
            | Self::ClockOff
            | Self::StoreUnavailable
            | Self::StoreFull
            | Self::QueueFull
            | Self::Internal => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The word for programs, in the answer and in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::MethodNotAllowed => "method_not_allowed",
            Self::SourceUnknown => "source_unknown",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::Refused(kind) => kind.code(),
            Self::KeyUnavailable => "key_unavailable",
            Self::ClockOff => "timestamp_stale",
            Self::StoreUnavailable | Self::Internal => "store_unavailable",
            Self::StoreFull => "store_full",
            Self::QueueFull => "queue_full",
        }
    }

    /// One line for whoever reads the sender's log.
    fn title(self) -> &'static str {
        match self {
            Self::MethodNotAllowed => "webhooks are sent by POST",
            Self::SourceUnknown => "there is no such source",
            Self::IpNotAllowed => "this source takes no requests from this address",
            Self::BodyTooLarge => "the body is too large",
            Self::RequestTimeout => "the body did not come in time",
            Self::Refused(kind) => match kind {
                RefusalKind::SignatureMissing => "the signature header is missing",
                RefusalKind::SignatureMalformed => "the signature header is malformed",
                RefusalKind::SignatureInvalid => "the signature is not valid for this request",
                RefusalKind::TimestampMissing => "the timestamp header is missing",
                RefusalKind::TimestampMalformed => "the timestamp header is malformed",
                RefusalKind::TimestampStale => "the timestamp is too far from now",
                RefusalKind::AuthorizationInvalid => "the credential is missing or not the agreed one",
            },
            Self::KeyUnavailable => "the signature cannot be checked now; send it again",
            Self::ClockOff => "the receiver's clock is wrong; send it again",
            Self::StoreUnavailable | Self::Internal => "the event cannot be kept now; send it again",
            Self::StoreFull => "the receiver's disk is full; send it again",
            Self::QueueFull => "the receiver is overloaded; send it again",
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = json!({"title": self.title(), "status": status.as_u16(), "code": self.code()});
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            // What is left unread of such a body is not worth reading for the sake of the connection.
            StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
