//! How often a destination may be asked. Asking how many places are free takes none: only what is claimed counts.

use std::time::Duration;

use crate::clock::Clock;

/// The pace of one destination: at most so many in any minute, a sixth of them at once, the rest one by one.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    /// The time between two, once the burst is used up: what flows in over a minute and the burst are `per_minute` together.
    period: Duration,
    burst: u32,
    /// When, on the clock's running time, everything that was spent will have flowed back.
    whole_at: Duration,
}

impl Pace {
    /// At most `per_minute` in any minute; 0 counts as 1.
    pub(super) fn new(clock: &Clock, per_minute: u32) -> Self {
        let per_minute = per_minute.max(1);
        let burst = (per_minute / 6).max(1);
        Self { clock: clock.clone(), period: Duration::from_mins(1) / (per_minute - burst + 1), burst, whole_at: Duration::ZERO }
    }

    /// Nothing is left of the burst: another process has used it.
    pub(super) fn empty(&mut self) {
        self.whole_at = self.clock.elapsed() + self.period * self.burst;
    }

    /// How many of `places` may be used now.
    pub(super) fn allows(&self, places: usize) -> usize {
        let missing = self.whole_at.saturating_sub(self.clock.elapsed()).as_nanos().div_ceil(self.period.as_nanos().max(1));
        let free = u128::from(self.burst).saturating_sub(missing);
        places.min(usize::try_from(free).unwrap_or(usize::MAX))
    }

    /// One of the places was used.
    pub(super) fn spend(&mut self) {
        self.whole_at = self.whole_at.max(self.clock.elapsed()) + self.period;
    }

    /// How long until a place is free, if none is.
    pub(super) fn again_in(&self) -> Option<Duration> {
        let free_at = self.whole_at.saturating_sub(self.period * (self.burst - 1));
        // The clock counts whole milliseconds: one more, so as not to ask just before the time.
        free_at.checked_sub(self.clock.elapsed()).filter(|wait| !wait.is_zero()).map(|wait| wait + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn clock() -> Clock {
        Clock::manual("2025-11-18T23:05:01Z".parse().unwrap())
    }

    #[test]
    fn asking_takes_nothing_and_what_is_used_comes_back_with_time() {
        let clock = clock();
        let mut pace = Pace::new(&clock, 12);
        assert_eq!((pace.allows(8), pace.allows(8), pace.allows(1), pace.again_in()), (2, 2, 1, None));
        pace.spend();
        pace.spend();
        assert_eq!(pace.allows(8), 0);
        let wait = pace.again_in().unwrap();
        clock.advance(SignedDuration::try_from(wait).unwrap());
        assert_eq!((pace.allows(8), pace.again_in()), (1, None));
    }

    #[test]
    fn no_minute_has_more_than_allowed_not_even_after_a_rest() {
        for per_minute in [1, 2, 6, 60, 600] {
            let clock = clock();
            let mut pace = Pace::new(&clock, per_minute);
            // Asked now and then while there is nothing to send: what was not used must not be added to what flows in.
            for _ in 0..10 {
                pace.allows(8);
                clock.advance(SignedDuration::from_secs(7));
            }
            let mut sent = Vec::new();
            for _ in 0..1_800 {
                for _ in 0..pace.allows(8) {
                    pace.spend();
                    sent.push(clock.elapsed());
                }
                clock.advance(SignedDuration::from_millis(100));
            }
            for (first, at) in sent.iter().enumerate() {
                let within = sent[first..].iter().take_while(|later| **later < *at + Duration::from_mins(1)).count();
                assert!(within <= per_minute as usize, "{per_minute}: {within}");
            }
            assert!(sent.len() >= 2 * per_minute as usize, "{per_minute}: {}", sent.len());
        }
    }
}
