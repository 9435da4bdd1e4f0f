//! How often a destination may be asked. A permission that was drawn and not used is kept for the next time.

use std::time::Duration;

use crate::clock::Clock;
use crate::rate::Rate;

/// The pace of one destination.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    drawn: usize,
    wait: Option<Duration>,
}

impl Pace {
    /// At most `per_minute` in any minute.
    pub(super) fn new(clock: &Clock, per_minute: u32) -> Self {
        Self { rate: Rate::new(clock, per_minute, per_minute / 6), drawn: 0, wait: None }
    }

    /// How many of `places` may be used now.
    pub(super) fn allows(&mut self, places: usize) -> usize {
        self.wait = None;
        while self.drawn < places {
            match self.rate.try_take() {
                Ok(()) => self.drawn += 1,
                Err(wait) => {
                    // The clock counts whole milliseconds: one more, so as not to ask just before the time.
                    self.wait = Some(wait + Duration::from_millis(1));
                    break;
                }
            }
        }
        self.drawn.min(places)
    }

    /// One of the places was used.
    pub(super) fn spend(&mut self) {
        self.drawn = self.drawn.saturating_sub(1);
    }

    /// How long until another place is free, if too few were when it was last asked.
    pub(super) fn again_in(&self) -> Option<Duration> {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn what_is_not_used_is_kept_and_what_is_used_comes_back_with_time() {
        let clock = Clock::manual("2025-11-18T23:05:01Z".parse().unwrap());
        let mut pace = Pace::new(&clock, 12);
        assert_eq!((pace.allows(8), pace.allows(8)), (2, 2));
        pace.spend();
        pace.spend();
        assert_eq!(pace.allows(8), 0);
        let wait = pace.again_in().unwrap();
        clock.advance(SignedDuration::try_from(wait).unwrap());
        assert_eq!(pace.allows(8), 1);
    }
}
