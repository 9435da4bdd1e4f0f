//! Time, as an argument.
//!
//! Everything that asks what time it is, or waits, asks a [`Clock`]. The program runs on [`Clock::system`]; tests run on
//! [`Clock::manual`], which moves only when told, so that no test sleeps. `clippy.toml` bans the other ways to read a clock.
//!
//! Two readings, for two uses: [`Clock::now`] is wall time, for what people and providers see and for when a job is due;
//! [`Clock::elapsed`] never goes backwards, for rates, budgets and durations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// A source of time; clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System { start: Instant },
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    now: watch::Sender<Timestamp>,
    /// Milliseconds that it was moved forward in all.
    elapsed: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn system() -> Self {
        Self(Kind::System { start: Instant::now() })
    }

    /// A clock that stands at `at` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self(Kind::Manual(Arc::new(Manual { now: watch::Sender::new(at), elapsed: AtomicU64::new(0) })))
    }

    /// Wall time, in whole milliseconds: what the store keeps is then equal to what was in memory.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Kind::System { .. } => Timestamp::now(),
            Kind::Manual(manual) => *manual.now.borrow(),
        };
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// Time since this clock was made; never goes backwards.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Kind::System { start } => start.elapsed(),
            Kind::Manual(manual) => Duration::from_millis(manual.elapsed.load(Ordering::SeqCst)),
        }
    }

    /// Waits until wall time is `until`; returns at once if it is past.
    pub async fn sleep_until(&self, until: Timestamp) {
        match &self.0 {
            Kind::System { .. } => {
                let wait = until.duration_since(self.now());
                tokio::time::sleep(Duration::try_from(wait).unwrap_or(Duration::ZERO)).await;
            }
            Kind::Manual(manual) => {
                let mut now = manual.now.subscribe();
                // The sender lives in `manual`, which this future holds: it cannot be closed.
                let _ = now.wait_for(|now| *now >= until).await;
            }
        }
    }

    /// Waits for `duration` of running time, counted from this call (not from the first poll).
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        let (clock, until) = (self.clone(), self.elapsed().saturating_add(duration));
        async move {
            match &clock.0 {
                Kind::System { .. } => tokio::time::sleep(until.saturating_sub(clock.elapsed())).await,
                Kind::Manual(manual) => {
                    let mut moved = manual.now.subscribe();
                    // As in `sleep_until`.
                    let _ = moved.wait_for(|_| clock.elapsed() >= until).await;
                }
            }
        }
    }

    /// Moves a manual clock by `by`, in whole milliseconds. Negative is wall time that jumps back: running time then stands.
    ///
    /// # Panics
    /// On the system clock, which nobody may move.
    pub fn advance(&self, by: SignedDuration) {
        match &self.0 {
            Kind::System { .. } => panic!("the system clock cannot be moved"),
            Kind::Manual(manual) => {
                let forward = u64::try_from(by.as_millis()).unwrap_or(0);
                manual.elapsed.fetch_add(forward, Ordering::SeqCst);
                manual.now.send_modify(|now| *now += by);
            }
        }
    }
}

/// `at` plus `duration`, at the end of time if it would be later than that.
#[must_use]
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// `at` less `duration`, at the beginning of time if it would be earlier than that.
#[must_use]
pub fn before(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|by| at.checked_sub(by).ok()).unwrap_or(Timestamp::MIN)
}

/// How long ago `then` was at `now`; zero if it is still to come.
#[must_use]
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// A duration in whole milliseconds, for logs.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with exactly three decimals, the one form in the store, the API and the envelope: it sorts as text.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// serde for an optional time in [`rfc3339`] form.
pub mod optional {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        at.map(super::rfc3339).serialize(to)
    }

    /// # Errors
    /// If the text is no RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<Timestamp>::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        let early: Timestamp = "2025-11-18T23:05:01Z".parse().unwrap();
        let late: Timestamp = "2025-11-18T23:05:01.2Z".parse().unwrap();
        assert_eq!(rfc3339(early), "2025-11-18T23:05:01.000Z");
        assert!(rfc3339(early) < rfc3339(late));
    }

    #[test]
    fn running_time_never_goes_back() {
        let clock = Clock::manual("2025-11-18T23:05:01Z".parse().unwrap());
        clock.advance(SignedDuration::from_secs(10));
        clock.advance(SignedDuration::from_secs(-60));
        assert_eq!((clock.now().to_string().as_str(), clock.elapsed()), ("2025-11-18T23:04:11Z", Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_only_when_moved() {
        let clock = Clock::manual("2025-11-18T23:05:01Z".parse().unwrap());
        let sleeper = clock.sleep(Duration::from_mins(1));
        tokio::pin!(sleeper);
        clock.advance(SignedDuration::from_secs(59));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(sleeper.as_mut().poll(cx).is_pending())).await);
        clock.advance(SignedDuration::from_secs(1));
        sleeper.await;
        assert_eq!(clock.elapsed(), Duration::from_mins(1));
    }

    #[tokio::test]
    async fn wall_time_that_jumps_back_lets_nobody_sleep_longer() {
        let clock = Clock::manual("2025-11-18T23:05:01Z".parse().unwrap());
        let sleeper = clock.sleep(Duration::from_mins(1));
        clock.advance(SignedDuration::from_hours(-1));
        clock.advance(SignedDuration::from_mins(1));
        sleeper.await;
    }
}
