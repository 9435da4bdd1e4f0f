//! Wall time that jumps back: a clock that was wrong was set, or went wrong.
//!
//! Jobs are due by wall time. After a jump back by an hour, what was due in five seconds would wait for an hour and five seconds, and
//! what was due at once for an hour: a paid result, kept back by a clock. So the worker compares wall time with running time, and has
//! what is due later brought forward by as much as the wall went back. A start asks the store how late it was when it last kept
//! something. A jump forward is left as it is: what is due then may be done.

use std::time::Duration;

use jiff::SignedDuration;

use super::Environment;
use crate::clock::{Clock, millis};
use crate::store;

/// A difference that is no jump: clocks are slewed, and two readings are not one moment.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// How wall time and running time stood to each other.
#[derive(Debug, Default)]
pub(super) struct Jump {
    /// Wall time at running time zero, when last looked at, in milliseconds.
    began_at: Option<i64>,
}

impl Jump {
    /// Looks at the clock, and has the store follow it if it jumped back.
    pub(super) async fn follow(&mut self, environment: &Environment) -> Result<(), store::Error> {
        let began_at = began_at(&environment.clock);
        let back = match self.began_at {
            Some(before) if before.saturating_sub(began_at) > SLACK.as_millis().try_into().unwrap_or(i64::MAX) => {
                Some(Duration::from_millis(u64::try_from(before.saturating_sub(began_at)).unwrap_or_default()))
            }
            Some(_) => {
                self.began_at = Some(began_at);
                return Ok(());
            }
            None => None,
        };
        let brought = environment.store.clock_went_back(back, environment.clock.now()).await?;
        if let Some((by, jobs)) = brought {
            tracing::warn!(
                by_ms = millis(by),
                jobs,
                "this machine's clock was set back by {} s: {jobs} job(s) that were due by the time before are brought forward",
                by.as_secs()
            );
        }
        self.began_at = Some(began_at);
        Ok(())
    }
}

fn began_at(clock: &Clock) -> i64 {
    let running = i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX);
    clock.now().as_millisecond().saturating_sub(running)
}
