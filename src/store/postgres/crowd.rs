//! Keeping other work back while senders crowd.
//!
//! What must hold: senders wait for us, and may never come again, while work only comes later. So when more events come than can be
//! kept at once, all work of all replicas together has a share of the database's time ([`WORK_SHARE`]), which is never nothing; and
//! when they have gone, none is kept back. How long it waits counts for no time-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::clock::{Clock, millis};

/// So many events in a commit are a crowd.
const CROWD: usize = 16;
/// A crowd has gone when none came for so long.
const LULL: Duration = Duration::from_millis(100);
/// While senders crowd, work has one part in so many of the time of one connection.
const WORK_SHARE: u32 = 16;
/// The longest that one transaction keeps the next one waiting.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether senders crowd, and whose turn it is to work beside them.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    clock: Clock,
    /// Milliseconds of running time until which there is one.
    until: Arc<AtomicU64>,
    /// When, on the clock's running time, the next transaction may begin.
    turn: Arc<Mutex<Duration>>,
    /// How many replicas share the time for work.
    sharers: Arc<AtomicU32>,
}

impl Crowd {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, until: Arc::default(), turn: Arc::default(), sharers: Arc::new(AtomicU32::new(1)) }
    }

    /// So many replicas work, this one included.
    pub(super) fn share_among(&self, replicas: usize) {
        self.sharers.store(replicas.try_into().unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
    }

    /// So many events were kept in one commit.
    pub(super) fn saw(&self, events: usize) {
        if events >= CROWD {
            self.until.store(millis(self.clock.elapsed() + LULL), Ordering::Relaxed);
        }
    }

    fn is_there(&self) -> bool {
        millis(self.clock.elapsed()) < self.until.load(Ordering::Relaxed)
    }

    /// Waits for the turn to work; at once while nobody crowds. It ends when the value is dropped.
    pub(super) async fn turn(&self) -> Option<Turn> {
        if !self.is_there() {
            return None;
        }
        let next = Arc::clone(&self.turn).lock_owned().await;
        while self.is_there()
            && let Some(wait) = next.checked_sub(self.clock.elapsed()).filter(|wait| !wait.is_zero())
        {
            self.clock.sleep(wait.min(LULL)).await;
        }
        let parts = WORK_SHARE.saturating_mul(self.sharers.load(Ordering::Relaxed));
        Some(Turn { begun: self.clock.elapsed(), clock: self.clock.clone(), next, parts })
    }
}

/// A turn that somebody has.
#[derive(Debug)]
pub(super) struct Turn {
    clock: Clock,
    begun: Duration,
    next: OwnedMutexGuard<Duration>,
    /// It has one part in so many of the time.
    parts: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.clock.elapsed();
        *self.next = now + now.saturating_sub(self.begun).saturating_mul(self.parts - 1).min(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use jiff::SignedDuration;

    use super::*;

    fn pass(clock: &Clock, time: u64) {
        clock.advance(SignedDuration::from_millis(i64::try_from(time).unwrap()));
    }

    #[tokio::test]
    async fn work_has_its_share_while_senders_crowd_and_all_of_it_when_they_have_gone() {
        let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
        let crowd = Crowd::new(clock.clone());
        assert!(crowd.turn().await.is_none(), "nobody is there");
        crowd.saw(CROWD - 1);
        assert!(crowd.turn().await.is_none(), "a few are no crowd");
        crowd.saw(CROWD);
        let turn = crowd.turn().now_or_never().flatten().expect("the first one's turn is at once");
        pass(&clock, 10);
        let mut next = std::pin::pin!(crowd.turn());
        assert!(next.as_mut().now_or_never().is_none(), "one at a time");
        drop(turn);
        for _ in 0..WORK_SHARE - 2 {
            crowd.saw(CROWD);
            pass(&clock, 10);
            assert!(next.as_mut().now_or_never().is_none(), "the other parts are the senders'");
        }
        crowd.saw(CROWD);
        pass(&clock, 10);
        let turn = next.await.expect("its turn");
        pass(&clock, 1_000);
        crowd.saw(CROWD);
        let mut next = std::pin::pin!(crowd.turn());
        drop(turn);
        assert!(next.as_mut().now_or_never().is_none());
        pass(&clock, 100);
        assert!(next.await.is_some(), "the crowd has gone");
        assert!(crowd.turn().await.is_none());
    }

    #[tokio::test]
    async fn replicas_share_the_share() {
        let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
        let crowd = Crowd::new(clock.clone());
        crowd.share_among(2);
        crowd.saw(CROWD);
        let turn = crowd.turn().await;
        pass(&clock, 10);
        drop(turn);
        let mut next = std::pin::pin!(crowd.turn());
        for _ in 0..2 * WORK_SHARE - 2 {
            crowd.saw(CROWD);
            pass(&clock, 10);
            assert!(next.as_mut().now_or_never().is_none(), "the other parts are the senders' and the other replica's");
        }
        crowd.saw(CROWD);
        pass(&clock, 10);
        assert!(next.now_or_never().is_some(), "its turn");
    }
}
