//! A circuit breaker for each destination, so that one that is down is asked now and then instead of all the time.
//!
//! It trips after [`TRIP`] failures in a row that were worth a retry. While it is open, nothing is claimed for the destination, so
//! its jobs spend no attempts. When its time is over one delivery goes as a probe: if that fails it opens for longer, and
//! the first that arrives closes it.

use std::time::Duration;

use crate::retry::jitter;

/// Failures in a row until it opens.
const TRIP: u32 = 5;
/// How long it is open the first time; doubles with each failed probe.
const OPEN: Duration = Duration::from_secs(5);
/// The longest it is open.
const OPEN_MAX: Duration = Duration::from_mins(5);

/// The state of one destination. Times are the clock's running time.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    open_until: Option<Duration>,
}

impl Breaker {
    /// How many of `free` places may be used at `now`.
    pub(super) fn allows(&self, free: usize, in_flight: usize, now: Duration) -> usize {
        match self.open_until {
            None => free,
            Some(until) if now < until => 0,
            // Half open: one probe, alone.
            Some(_) => free.min(usize::from(in_flight == 0)),
        }
    }

    /// When it may be asked again, if it is open.
    pub(super) fn opens_at(&self, now: Duration) -> Option<Duration> {
        self.open_until.filter(|until| *until > now)
    }

    /// A delivery arrived, or was refused for good: somebody is there. True if it was open.
    pub(super) fn answered(&mut self) -> bool {
        self.failures = 0;
        self.open_until.take().is_some()
    }

    /// A delivery failed. Returns how long it is open now, if it opened.
    pub(super) fn failed(&mut self, now: Duration) -> Option<Duration> {
        if self.open_until.is_some_and(|until| now < until) {
            // It was on its way when the breaker opened, and says nothing new.
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let over = self.failures.checked_sub(TRIP)?;
        let most = OPEN.saturating_mul(1 << over.min(16)).min(OPEN_MAX);
        let open = most / 2 + jitter(most / 2);
        self.open_until = Some(now + open);
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let (mut breaker, now) = (Breaker::default(), Duration::from_secs(100));
        for _ in 0..4 {
            assert_eq!(breaker.failed(now), None);
        }
        assert_eq!(breaker.allows(8, 0, now), 8);
        let open = breaker.failed(now).unwrap();
        assert!(open <= OPEN && open >= OPEN / 2);
        assert_eq!(breaker.allows(8, 0, now), 0);
        let later = now + open;
        assert_eq!((breaker.allows(8, 0, later), breaker.allows(8, 1, later)), (1, 0));
        assert!(breaker.failed(later).unwrap() > open / 2);
        assert!(breaker.answered());
        assert_eq!(breaker.allows(8, 0, now), 8);
    }

    #[test]
    fn what_was_on_its_way_when_it_opened_does_not_keep_it_open_for_longer() {
        let (mut breaker, now) = (Breaker::default(), Duration::from_secs(100));
        let opened: Vec<_> = (0..8).filter_map(|_| breaker.failed(now)).collect();
        assert_eq!((opened.len(), breaker.opens_at(now)), (1, Some(now + opened[0])));
    }

    #[test]
    fn one_answer_forgets_the_failures() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(Duration::ZERO);
            assert!(!breaker.answered());
        }
    }

    #[test]
    fn it_never_stays_open_for_longer_than_its_bound() {
        let mut breaker = Breaker::default();
        let longest = (0..100).filter_map(|probe| breaker.failed(OPEN_MAX * probe)).max().unwrap();
        assert!(longest <= OPEN_MAX);
    }
}
