//! What a failure means, and when to try again.
//!
//! Whoever knows what went wrong says what follows ([`Verdict`]); the worker only obeys. There is one ladder for everything
//! that is retried, written out in [`LADDER`]; a source or a destination may bring its own.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The waits between attempts, before jitter. After the last one, the work is given up on: 11 attempts within about a day.
pub const LADDER: [Duration; 10] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
    Duration::from_hours(12),
];

/// The longest `Retry-After` that is honoured; a server that asks for more is asked again after this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What is to become of work that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again; not before `after`, if the server asked for that.
    Retry {
        /// What the server asked for, already within [`RETRY_AFTER_MAX`].
        after: Option<Duration>,
    },
    /// Trying again cannot help.
    GiveUp,
}

/// A failed attempt: why, for people (no secret, no payload), and what follows from it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct Failure {
    /// One line that stands alone, such as `503 Service Unavailable` or `no answer within 6 s`.
    pub reason: String,
    /// What follows.
    pub verdict: Verdict,
    /// Whether the other side may have done what was asked: the answer was lost after the request was sent.
    pub unknown: bool,
    /// Whether nothing can succeed there until a person acts, such as with a revoked token.
    pub broken: bool,
    /// What the attempt met in full, kept with it and never logged, where that is more than the reason.
    pub detail: Option<String>,
}

impl Failure {
    /// A failure that is retried on the ladder.
    #[must_use]
    pub fn retry(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), verdict: Verdict::Retry { after: None }, unknown: false, broken: false, detail: None }
    }

    /// A failure that is final.
    #[must_use]
    pub fn give_up(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::GiveUp, ..Self::retry(reason) }
    }

    /// The same, not to be tried again before `after` has passed (bounded by [`RETRY_AFTER_MAX`]).
    #[must_use]
    pub fn not_before(mut self, after: Option<Duration>) -> Self {
        self.verdict = Verdict::Retry { after: after.map(|wait| wait.min(RETRY_AFTER_MAX)) };
        self
    }

    /// The same, with an outcome that nobody knows.
    #[must_use]
    pub fn with_unknown_outcome(mut self) -> Self {
        self.unknown = true;
        self
    }

    /// The same, of a place where nothing can succeed until a person acts.
    #[must_use]
    pub fn until_a_person_acts(mut self) -> Self {
        self.broken = true;
        self
    }

    /// The same, with more to keep than the reason.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// The wait after attempt number `attempt` (the first is 1): full jitter over its rung of `ladder`, never less than `after`.
/// `None` when the ladder is at its end.
#[must_use]
pub fn wait(ladder: &[Duration], attempt: u32, after: Option<Duration>) -> Option<Duration> {
    let rung = ladder.get(usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX))?;
    Some(jitter(*rung).max(after.unwrap_or_default()))
}

/// A random part of `most`: many that failed together do not come back together.
#[must_use]
pub fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

/// Reads a `Retry-After` header in either form of RFC 9110 §10.2.3: seconds, or a date. Nonsense is `None`.
#[must_use]
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let at = rfc2822::parse(header).ok()?.timestamp();
    Some(crate::clock::since(now, at).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_ends() {
        assert!(wait(&LADDER, 10, None).is_some());
        assert_eq!(wait(&LADDER, 11, None), None);
    }

    #[test]
    fn jitter_stays_under_its_rung_and_retry_after_is_a_floor() {
        for attempt in 1..=10 {
            assert!(wait(&LADDER, attempt, None).unwrap() <= LADDER[attempt as usize - 1]);
        }
        let floor = Duration::from_secs(90);
        assert!(wait(&LADDER, 1, Some(floor)).unwrap() >= floor);
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now: Timestamp = "2025-11-18T23:05:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("Tue, 18 Nov 2025 23:06:00 GMT", now), Some(Duration::from_mins(1)));
        assert_eq!(retry_after("Tue, 18 Nov 2025 23:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("999999", now), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("soon", now), None);
    }
}
