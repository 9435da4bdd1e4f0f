//! A webhook request on its way: as it came, why it is not believed, what identifies its event, and what is kept of that.

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::event::Facts;

/// A webhook request, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its exact bytes.
    pub body: &'a [u8],
    /// Path and query exactly as received, beginning with `/webhooks/`, a path token included.
    pub url_suffix: &'a str,
    /// When it was received.
    pub now: Timestamp,
}

/// What identifies an event, read once, at its receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// See [`Facts::event_id`].
    pub event_id: String,
    /// See [`Facts::kind`].
    pub kind: String,
    /// See [`Facts::provider_type`].
    pub provider_type: Option<String>,
    /// See [`Facts::task_id`].
    pub task_id: Option<String>,
    /// Whether it is a test request of the provider: kept, never worked on.
    pub ping: bool,
    /// What the sender wants to hear once the event is kept, where that is not our usual answer.
    pub reply: Option<Reply>,
}

/// An answer to a sender whose event is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status: a 2xx.
    pub status: StatusCode,
    /// Its text; our usual body where there is none. A status without a body has none either way.
    pub text: Option<String>,
}

/// An event that was kept, as its provider reads it again.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// See [`Facts::event_id`].
    pub event_id: &'a str,
    /// See [`Facts::kind`].
    pub kind: &'a str,
    /// See [`Facts::provider_type`].
    pub provider_type: Option<&'a str>,
    /// See [`Facts::task_id`].
    pub task_id: Option<&'a str>,
    /// Its exact bytes.
    pub body: &'a [u8],
}

impl Kept<'_> {
    /// What identifies it, and nothing else.
    #[must_use]
    pub fn bare(&self) -> Facts {
        self.identify(Facts::default())
    }

    /// `facts`, with what identifies the event as it was read at receipt: its order and its work depend on that.
    #[must_use]
    pub fn identify(&self, facts: Facts) -> Facts {
        Facts {
            event_id: self.event_id.to_owned(),
            kind: self.kind.to_owned(),
            provider_type: self.provider_type.map(ToOwned::to_owned),
            task_id: self.task_id.map(ToOwned::to_owned),
            ..facts
        }
    }
}

/// Why a request was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// Whether the signature itself is good and only its time is not: then it may be our clock that is wrong.
    pub genuine: bool,
}

impl Refusal {
    /// Whether the fault may be ours: an old key, or a wrong clock. What is missing or malformed is so under every key.
    #[must_use]
    pub fn may_be_ours(&self) -> bool {
        matches!(self.kind, RefusalKind::SignatureInvalid | RefusalKind::TimestampStale)
    }

    /// A refusal of something that nothing speaks for.
    #[must_use]
    pub fn of(kind: RefusalKind) -> Self {
        Self { kind, genuine: false }
    }
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The signature header is not there.
    SignatureMissing,
    /// It is there more than once, is not written as it should be, or has the wrong length.
    SignatureMalformed,
    /// It is not the signature of this request by one of the keys.
    SignatureInvalid,
    /// The timestamp header is not there.
    TimestampMissing,
    /// It is there more than once, or is not a plain decimal number.
    TimestampMalformed,
    /// The signature is good, but its time is too far from ours.
    TimestampStale,
    /// The `Authorization` header is not the one that was agreed.
    AuthorizationInvalid,
}

impl RefusalKind {
    /// The `code` in the answer, the metrics and the list of rejections.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureInvalid => "signature_invalid",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampStale => "timestamp_stale",
            Self::AuthorizationInvalid => "authorization_invalid",
        }
    }
}
