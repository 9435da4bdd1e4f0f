//! How often we may call a provider: one budget an account, whatever number of sources use it.
//!
//! What must hold: in any minute at most `requests_per_minute` calls; proving at most a fifth of them, so that a flood of
//! foreign events cannot keep the tasks that are ours waiting; and who matters more goes first: fetches of proven tasks, then
//! answers that a person gave, then proof, then reconciliation. Waiting is on our clock, so that tests do not wait. Where several
//! processes share a store, one of them counts the calls of an account, and whoever counts them next begins with none: so no minute has
//! more in all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use crate::clock::Clock;
use crate::rate::Rate;
use crate::setting::Secret;

/// What a call is for; the first matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Fetching a task that is proven to be ours.
    Fetch,
    /// What a person asked for: creating, answering, registering.
    Answer,
    /// Finding out whether a task is ours.
    Prove,
    /// Finding stops that no webhook told.
    Reconcile,
}

/// How long whoever wants a call waits that another process counts: its work is, as a rule, that process's too.
const CLOSED: Duration = Duration::from_secs(5);
/// Proving may use one part in this many of the whole.
const PROVE_PART: u32 = 5;

/// The budgets of all accounts: sources with the same key at the same address share one. Clones share the registry.
#[derive(Clone, Debug)]
pub struct Budgets {
    clock: Clock,
    accounts: Arc<Mutex<HashMap<[u8; 32], Arc<Budget>>>>,
}

impl Budgets {
    /// No account yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, accounts: Arc::default() }
    }

    /// The budget of the account that `key` opens at `base_url`, of which only a digest is kept. Where sources disagree about
    /// `per_minute`, the smallest holds.
    #[must_use]
    pub fn of(&self, base_url: &str, key: Option<&Secret>, per_minute: u32) -> Arc<Budget> {
        let text = format!("{base_url}\n{}", key.map_or("", Secret::expose));
        let mut account = [0; 32];
        account.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        let mut accounts = lock(&self.accounts);
        let budget = accounts.entry(account).or_insert_with(|| Arc::new(Budget::new(self.clock.clone(), per_minute)));
        budget.lower_to(per_minute);
        Arc::clone(budget)
    }
}

/// The budget of one account.
pub struct Budget {
    clock: Clock,
    limits: Mutex<Limits>,
    /// Whether another process counts the calls of this account now.
    closed: AtomicBool,
    /// How many wait, by [`Use`].
    waiting: [AtomicUsize; 4],
}

struct Limits {
    per_minute: u32,
    all: Rate,
    prove: Rate,
    /// Permissions to prove that were drawn while the whole budget was empty: they are used later, not lost.
    spare: u32,
}

impl Budget {
    /// A full budget of `per_minute` calls; 0 counts as 1.
    #[must_use]
    pub fn new(clock: Clock, per_minute: u32) -> Self {
        let limits = Mutex::new(Limits::new(&clock, per_minute));
        Self { clock, limits, closed: AtomicBool::new(false), waiting: Default::default() }
    }

    fn lower_to(&self, per_minute: u32) {
        let mut limits = lock(&self.limits);
        if per_minute < limits.per_minute {
            *limits = Limits::new(&self.clock, per_minute);
        }
    }

    /// Another process counts the calls of this account from now on: nothing is left here but what a person asks for.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// The calls are counted here from now on; with nothing left at first, unless whoever counted before is `rested`.
    pub fn open(&self, rested: bool) {
        if !rested {
            let mut limits = lock(&self.limits);
            limits.spare = 0;
            while limits.all.try_take().is_ok() {}
            while limits.prove.try_take().is_ok() {}
        }
        self.closed.store(false, Ordering::SeqCst);
    }

    /// The most calls in a minute.
    #[must_use]
    pub fn per_minute(&self) -> u32 {
        lock(&self.limits).per_minute
    }

    /// Takes one call, or says how long to wait before asking again.
    ///
    /// # Errors
    /// With the wait, when there is none left or somebody more important waits.
    pub fn try_take(&self, purpose: Use) -> Result<(), Duration> {
        let mut limits = lock(&self.limits);
        let closed = self.closed.load(Ordering::SeqCst);
        if closed && purpose != Use::Answer {
            return Err(CLOSED);
        }
        if !closed && self.waiting[..purpose as usize].iter().any(|count| count.load(Ordering::SeqCst) > 0) {
            return Err(Duration::from_mins(1) / limits.per_minute);
        }
        if purpose == Use::Prove && limits.spare == 0 {
            limits.prove.try_take()?;
            limits.spare = 1;
        }
        limits.all.try_take()?;
        if purpose == Use::Prove {
            limits.spare = 0;
        }
        Ok(())
    }

    /// Takes one call, and waits for it if it must.
    pub async fn take(&self, purpose: Use) {
        let Err(mut wait) = self.try_take(purpose) else { return };
        let _waiting = Waiting::enter(&self.waiting[purpose as usize]);
        loop {
            // The clock counts whole milliseconds: one more, so as not to ask just before the time.
            self.clock.sleep(wait + Duration::from_millis(1)).await;
            match self.try_take(purpose) {
                Ok(()) => return,
                Err(longer) => wait = longer,
            }
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("per_minute", &self.per_minute()).finish_non_exhaustive()
    }
}

impl Limits {
    fn new(clock: &Clock, per_minute: u32) -> Self {
        let per_minute = per_minute.max(1);
        let prove = (per_minute / PROVE_PART).max(1);
        Self {
            per_minute,
            all: Rate::new(clock, per_minute, per_minute / 6),
            // One proof is a page and up to three probes: half of the share at once lets it begin without a wait.
            prove: Rate::new(clock, prove, prove / 2),
            spare: 0,
        }
    }
}

/// Counts one who waits, for as long as it lives: a wait may be given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The data under these locks is whole whenever a panic could strike.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn clock() -> Clock {
        Clock::manual("2025-11-18T23:05:00Z".parse().unwrap())
    }

    /// How many calls `purpose` gets in each of `minutes`, asking every 100 ms.
    fn calls(budget: &Budget, clock: &Clock, purpose: Use, minutes: usize) -> Vec<usize> {
        (0..minutes)
            .map(|_| {
                (0..600)
                    .map(|_| {
                        let mut taken = 0;
                        while budget.try_take(purpose).is_ok() {
                            taken += 1;
                        }
                        clock.advance(SignedDuration::from_millis(100));
                        taken
                    })
                    .sum()
            })
            .collect()
    }

    #[test]
    fn no_minute_has_more_calls_than_allowed() {
        for (per_minute, first) in [(60, 60), (6, 6), (1, 1), (600, 600)] {
            let clock = clock();
            let counts = calls(&Budget::new(clock.clone(), per_minute), &clock, Use::Fetch, 3);
            assert_eq!(counts[0], first, "{per_minute}");
            assert!(counts.iter().all(|count| *count <= first && *count > 0), "{per_minute}: {counts:?}");
        }
    }

    #[test]
    fn proving_takes_at_most_a_fifth() {
        let clock = clock();
        let counts = calls(&Budget::new(clock.clone(), 60), &clock, Use::Prove, 3);
        assert_eq!(counts[0], 12);
        assert!(counts.iter().all(|count| *count <= 12), "{counts:?}");
    }

    #[test]
    fn a_permission_to_prove_is_not_lost_when_the_whole_is_empty() {
        let clock = clock();
        let budget = Budget::new(clock.clone(), 10);
        while budget.try_take(Use::Fetch).is_ok() {}
        let wait = budget.try_take(Use::Prove).unwrap_err();
        assert!(budget.try_take(Use::Prove).is_err());
        clock.advance(SignedDuration::try_from(wait).unwrap());
        assert_eq!(budget.try_take(Use::Prove), Ok(()));
    }

    #[tokio::test]
    async fn who_matters_more_goes_first() {
        let clock = clock();
        let budget = Budget::new(clock.clone(), 60);
        while budget.try_take(Use::Fetch).is_ok() {}
        let order = Mutex::new(Vec::new());
        let note = async |purpose: Use| {
            budget.take(purpose).await;
            lock(&order).push(purpose);
        };
        let time = async {
            while lock(&order).len() < 3 {
                clock.advance(SignedDuration::from_millis(200));
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(note(Use::Prove), note(Use::Answer), note(Use::Fetch), time);
        assert_eq!(*lock(&order), [Use::Fetch, Use::Answer, Use::Prove]);
        assert!(budget.waiting.iter().all(|count| count.load(Ordering::SeqCst) == 0));
    }

    #[test]
    fn no_minute_has_more_calls_than_allowed_when_another_process_goes_on() {
        let clock = clock();
        let (one, other) = (Budget::new(clock.clone(), 60), Budget::new(clock.clone(), 60));
        let mut at = Vec::new();
        for turn in 0..40 {
            let (open, shut) = if turn % 2 == 0 { (&one, &other) } else { (&other, &one) };
            shut.close();
            open.open(turn == 0);
            assert_eq!((shut.try_take(Use::Fetch), shut.try_take(Use::Prove)), (Err(CLOSED), Err(CLOSED)));
            for _ in 0..50 {
                while open.try_take(Use::Fetch).is_ok() {
                    at.push(clock.elapsed());
                }
                clock.advance(SignedDuration::from_millis(200));
            }
        }
        assert!(at.len() > 300, "{}", at.len());
        for (first, begin) in at.iter().enumerate() {
            let minute = at[first..].iter().take_while(|call| **call < *begin + Duration::from_mins(1)).count();
            assert!(minute <= 60, "{minute} calls from {begin:?} on");
        }
    }

    #[tokio::test]
    async fn what_a_person_asks_for_is_not_kept_back_by_what_waits_for_another_process() {
        let budget = Budget::new(clock(), 60);
        budget.close();
        let mut fetch = std::pin::pin!(budget.take(Use::Fetch));
        assert!(futures_util::poll!(&mut fetch).is_pending());
        assert_eq!(budget.try_take(Use::Answer), Ok(()));
    }

    #[test]
    fn sources_with_one_key_share_the_smallest_budget() {
        let budgets = Budgets::new(clock());
        let key = Secret::new("sk-1");
        let one = budgets.of("https://api.manus.ai", Some(&key), 60);
        let two = budgets.clone().of("https://api.manus.ai", Some(&key), 30);
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(one.per_minute(), 30);
        assert_eq!(budgets.of("https://api.manus.ai", Some(&key), 90).per_minute(), 30);
        assert!(!Arc::ptr_eq(&one, &budgets.of("https://api.manus.ai", Some(&Secret::new("sk-2")), 60)));
        assert!(!format!("{budgets:?}").contains("sk-"));
    }
}
