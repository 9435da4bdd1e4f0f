//! A limit on how often something is done, on our clock: tests move it, and it never goes backwards.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;

/// At most so many in any minute.
pub struct Rate {
    clock: Clock,
    limiter: RateLimiter<NotKeyed, InMemoryState, Time, NoOpMiddleware<Duration>>,
}

impl Rate {
    /// At most `per_minute` in any minute (0 counts as 1), of which `burst` may come at once: what flows in is less by what the
    /// burst may add.
    #[must_use]
    pub fn new(clock: &Clock, per_minute: u32, burst: u32) -> Self {
        let per_minute = per_minute.max(1);
        let burst = NonZeroU32::new(burst.min(per_minute)).unwrap_or(NonZeroU32::MIN);
        let period = Duration::from_mins(1) / (per_minute - burst.get() + 1);
        let quota = Quota::with_period(period).unwrap_or(Quota::per_minute(burst)).allow_burst(burst);
        Self { clock: clock.clone(), limiter: RateLimiter::direct_with_clock(quota, Time(clock.clone())) }
    }

    /// Takes one, or says how long to wait before asking again.
    ///
    /// # Errors
    /// With the wait.
    pub fn try_take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refusal| refusal.wait_time_from(self.clock.elapsed()))
    }
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rate").finish_non_exhaustive()
    }
}

/// Our clock, as governor reads one.
#[derive(Clone, Debug)]
struct Time(Clock);

impl governor::clock::Clock for Time {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
