//! What goes wrong when we call a provider, and what follows from it.
//!
//! The kinds are told apart by what they say about *us*: only [`ApiError::NotFound`] says anything about whose a task is, and only
//! the provider's own error envelope makes one; a page of a proxy never does.

use std::time::Duration;

use crate::retry::Failure;

/// A call that failed. `call` names it, such as `task.detail`; texts from the provider are shortened and hold no secret.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApiError {
    /// The provider says that there is no such thing, or not for this key.
    #[error("{call}: the provider knows no such thing, or does not show it to this key")]
    NotFound {
        /// The call.
        call: &'static str,
    },
    /// 401, 402, 403, or the same in the provider's words: the key, the credit or the permission is at fault.
    #[error("{call}: {status}, {}{}", hint(*.status), quote(.message))]
    Refused {
        /// The call.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// What the provider says.
        message: String,
    },
    /// 429: too many calls.
    #[error("{call}: 429, too many calls a minute")]
    RateLimited {
        /// The call.
        call: &'static str,
        /// What `Retry-After` asks for.
        after: Option<Duration>,
    },
    /// A 5xx, or no answer at all.
    #[error("{call}: {reason}")]
    Unavailable {
        /// The call.
        call: &'static str,
        /// The status, or what became of the connection.
        reason: String,
        /// What `Retry-After` asks for.
        after: Option<Duration>,
        /// Whether the provider may have acted on the request all the same.
        arrived: bool,
    },
    /// An answer that the provider cannot have meant: HTML, half a body, too large, a redirect, another task.
    #[error("{call}: {}the answer makes no sense: {reason}", .status.map(|status| format!("{status}, ")).unwrap_or_default())]
    Nonsense {
        /// The call.
        call: &'static str,
        /// The HTTP status, where the answer got that far.
        status: Option<u16>,
        /// What is wrong with it.
        reason: String,
    },
    /// Any other 4xx: the request itself is at fault, and asking again cannot help.
    #[error("{call}: {status}{}{}", .code.as_deref().map(|code| format!(" {code}")).unwrap_or_default(), quote(.message))]
    Rejected {
        /// The call.
        call: &'static str,
        /// The HTTP status; 409 at a registration means that the URL is registered already.
        status: u16,
        /// The provider's code, such as `invalid_argument`.
        code: Option<String>,
        /// What the provider says.
        message: String,
    },
    /// Nothing was sent: this provider or this configuration has no such call.
    #[error("{call}: {reason}")]
    Unsupported {
        /// The call.
        call: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
}

impl ApiError {
    /// Its kind in one word, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Refused { .. } => "refused",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Nonsense { .. } => "nonsense",
            Self::Rejected { .. } => "rejected",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// Whether the source does not work now: the work waits, and says nothing about whose the task is.
    #[must_use]
    pub fn degrades(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Nonsense { .. })
    }

    /// What follows for the work that made the call. For a task that was not found the caller decides first: it may be foreign,
    /// deleted, or too young to be seen.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let reason = self.to_string();
        match self {
            Self::NotFound { .. } | Self::Refused { .. } | Self::Nonsense { .. } => Failure::retry(reason),
            Self::RateLimited { after, .. } | Self::Unavailable { after, .. } => Failure::retry(reason).not_before(*after),
            Self::Rejected { .. } | Self::Unsupported { .. } => Failure::give_up(reason),
        }
    }

    /// Whether a call that changes something may have changed it: the answer was lost, or cannot be read.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Unavailable { arrived, .. } => *arrived,
            // A redirect or an error page was no act; a success that cannot be read may have been one.
            Self::Nonsense { status, .. } => status.is_none_or(|status| (200..300).contains(&status)),
            _ => false,
        }
    }

    /// The HTTP status, where there was one that matters.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Rejected { status, .. } => Some(*status),
            Self::Nonsense { status, .. } => *status,
            Self::RateLimited { .. } => Some(429),
            Self::NotFound { .. } | Self::Unavailable { .. } | Self::Unsupported { .. } => None,
        }
    }
}

/// What a refusal by status usually means, and what to do.
fn hint(status: u16) -> &'static str {
    match status {
        402 => "no credit is left",
        403 => "this API key may not do that",
        _ => "the API key is refused",
    }
}

fn quote(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Verdict;

    const CALL: &str = "task.detail";

    fn every_kind() -> [(ApiError, bool, bool, bool); 8] {
        let after = Some(Duration::from_secs(30));
        // The error; whether it degrades, is final, leaves the outcome unknown.
        [
            (ApiError::NotFound { call: CALL }, false, false, false),
            (ApiError::Refused { call: CALL, status: 401, message: String::new() }, true, false, false),
            (ApiError::RateLimited { call: CALL, after }, true, false, false),
            (ApiError::Unavailable { call: CALL, reason: "503".into(), after, arrived: true }, true, false, true),
            (ApiError::Nonsense { call: CALL, status: Some(200), reason: "HTML".into() }, true, false, true),
            (ApiError::Nonsense { call: CALL, status: Some(302), reason: "a redirect".into() }, true, false, false),
            (ApiError::Rejected { call: CALL, status: 409, code: None, message: String::new() }, false, true, false),
            (ApiError::Unsupported { call: CALL, reason: "no" }, false, true, false),
        ]
    }

    #[test]
    fn each_kind_has_its_consequence() {
        for (error, degrades, is_final, unknown) in every_kind() {
            assert_eq!(error.degrades(), degrades, "{error}");
            assert_eq!(error.failure().verdict == Verdict::GiveUp, is_final, "{error}");
            assert_eq!(error.outcome_unknown(), unknown, "{error}");
        }
        let limited = ApiError::RateLimited { call: CALL, after: Some(Duration::from_secs(30)) };
        assert_eq!(limited.failure().verdict, Verdict::Retry { after: Some(Duration::from_secs(30)) });
    }

    #[test]
    fn the_texts_say_what_to_do() {
        let texts: Vec<_> = every_kind().iter().map(|(error, ..)| error.to_string()).collect();
        insta::assert_snapshot!(texts.join("\n"), @"
        task.detail: the provider knows no such thing, or does not show it to this key
        task.detail: 401, the API key is refused
        task.detail: 429, too many calls a minute
        task.detail: 503
        task.detail: 200, the answer makes no sense: HTML
        task.detail: 302, the answer makes no sense: a redirect
        task.detail: 409
        task.detail: no
        ");
    }
}
