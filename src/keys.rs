//! The keys that providers sign with: loaded, kept in the store, refreshed.
//!
//! What must hold:
//! - A key that was ever loaded never expires: the hour only schedules a refresh. So a provider whose API is down for a day does
//!   not stop us from accepting its events.
//! - A check that fails may mean a new key. Then one refresh, shared by all who wait, is awaited for at most [`PATIENCE`], at most
//!   one a minute, so that forged requests cannot make us call.
//! - Where nobody can say whether a request is genuine (no key was ever loaded, or ours is old and cannot be refreshed), that is
//!   our trouble, not the sender's: 503.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::provider::Source;
use crate::retry::{self, LADDER};
use crate::signature::rsa::PublicKey;
use crate::store::Store;
use crate::telemetry::Health;

/// How old a key may be until it is loaded again.
const REFRESH_AFTER: Duration = Duration::from_hours(1);
/// How old a key must be for a failed check to put it in doubt.
const DOUBT_AFTER: Duration = Duration::from_mins(1);
/// The least time between two refreshes that a request asked for.
const ASK_EVERY: Duration = Duration::from_mins(1);
/// How long a request waits for a refresh.
const PATIENCE: Duration = Duration::from_secs(3);
/// A difference of clocks larger than this is ours to mend.
pub const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The keys of every source that verifies; clones share them.
#[derive(Clone, Debug)]
pub struct Keys {
    of: Arc<BTreeMap<String, KeyRing>>,
}

#[derive(Debug)]
struct KeyRing {
    source: Arc<Source>,
    store: Store,
    clock: Clock,
    health: Health,
    loaded: ArcSwap<Loaded>,
    /// Held while loading: whoever waits for it finds the answer of the one before.
    refreshing: Mutex<Option<Timestamp>>,
}

/// What is trusted now.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The keys; empty if none was ever loaded.
    pub keys: Vec<PublicKey>,
    /// When they were loaded.
    pub loaded_at: Option<Timestamp>,
    /// How far the provider's clock was ahead of ours when it last answered.
    pub skew: SignedDuration,
}

impl Loaded {
    /// Whether our own clock is off, as far as the provider's tells.
    #[must_use]
    pub fn clock_is_off(&self) -> bool {
        self.skew.abs() > SKEW
    }

    fn age(&self, now: Timestamp) -> Option<Duration> {
        self.loaded_at.map(|at| clock::since(at, now))
    }
}

/// What is known after a refresh that a failed check asked for.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// What is trusted now.
    pub loaded: Arc<Loaded>,
    /// Whether a refusal on these keys can be relied on. False means: our trouble, answer 503.
    pub reliable: bool,
}

impl Keys {
    /// The keys of `sources` as the store last kept them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(
        sources: impl IntoIterator<Item = Arc<Source>>,
        store: &Store,
        clock: &Clock,
        health: &Health,
    ) -> Result<Self, crate::store::Error> {
        let mut of = BTreeMap::new();
        for source in sources.into_iter().filter(|source| source.verifies()) {
            let saved = store.verification_keys(source.name()).await?;
            let loaded_at = saved.iter().map(|(_, at)| *at).max();
            let keys = saved.iter().filter_map(|(pem, _)| PublicKey::from_pem(pem).ok()).collect();
            let loaded = ArcSwap::from_pointee(Loaded { keys, loaded_at, skew: SignedDuration::ZERO });
            let ring = KeyRing {
                store: store.clone(),
                clock: clock.clone(),
                health: health.clone(),
                loaded,
                refreshing: Mutex::default(),
                source,
            };
            of.insert(ring.source.name().to_owned(), ring);
        }
        Ok(Self { of: Arc::new(of) })
    }

    /// What is trusted now for `source`.
    #[must_use]
    pub fn of(&self, source: &str) -> Arc<Loaded> {
        self.of.get(source).map(|ring| ring.loaded.load_full()).unwrap_or_default()
    }

    /// Whether any source could verify a request now; true where none has to.
    #[must_use]
    pub fn any_can_verify(&self) -> bool {
        self.of.is_empty() || self.of.values().any(|ring| !ring.loaded.load().keys.is_empty())
    }

    /// Loads the keys of `source` anew, since a check failed on `tried`, if there is reason to doubt them.
    pub async fn doubt(&self, source: &str, tried: &Arc<Loaded>) -> Refreshed {
        let Some(ring) = self.of.get(source) else { return Refreshed { loaded: Arc::clone(tried), reliable: true } };
        ring.doubt(tried).await
    }

    /// Loads the keys of `source` now, whatever their age.
    ///
    /// # Errors
    /// Why none could be loaded, for people.
    pub async fn load(&self, source: &str) -> Result<(), String> {
        match self.of.get(source) {
            Some(ring) => ring.load(&mut *ring.refreshing.lock().await).await,
            None => Ok(()),
        }
    }

    /// Loads every key that is missing or old, and again every hour, until `stop`.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let rings = (0..self.of.len()).map(|index| {
            let (keys, stop) = (self.clone(), stop.clone());
            async move {
                if let Some(ring) = keys.of.values().nth(index) {
                    tokio::select! {
                        () = ring.keep_fresh() => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        });
        futures_util::future::join_all(rings).await;
        // Where nothing verifies there is nothing to load, and still no reason to end.
        stop.cancelled().await;
    }
}

impl KeyRing {
    async fn keep_fresh(&self) {
        let mut attempt = 0;
        loop {
            let age = self.loaded.load().age(self.clock.now());
            let wait = match age.map(|age| REFRESH_AFTER.saturating_sub(age)).filter(|wait| !wait.is_zero()) {
                Some(wait) => wait,
                None if self.load(&mut *self.refreshing.lock().await).await.is_ok() => {
                    attempt = 0;
                    REFRESH_AFTER
                }
                None => {
                    attempt += 1;
                    let rung = retry::wait(&LADDER, attempt, None).unwrap_or(REFRESH_AFTER);
                    rung.clamp(LADDER[0], REFRESH_AFTER)
                }
            };
            self.clock.sleep(wait).await;
        }
    }

    async fn doubt(&self, tried: &Arc<Loaded>) -> Refreshed {
        let now = self.clock.now();
        let known = |loaded: Arc<Loaded>| {
            let reliable = !loaded.keys.is_empty() && loaded.age(now).is_some_and(|age| age <= REFRESH_AFTER);
            Refreshed { loaded, reliable: reliable || self.source.pins_key() }
        };
        if !tried.keys.is_empty() && tried.age(now).is_some_and(|age| age < DOUBT_AFTER) && !tried.clock_is_off() {
            return known(Arc::clone(tried));
        }
        let refresh = async {
            let mut asked_at = self.refreshing.lock().await;
            // Somebody refreshed while we waited, or a little earlier: what they found is what there is.
            let fresh = self.loaded.load().loaded_at > tried.loaded_at;
            if !fresh && asked_at.is_none_or(|at| clock::since(at, now) >= ASK_EVERY) {
                let _ = self.load(&mut asked_at).await;
            }
        };
        // One that takes longer is dropped, and counts as asked: the provider is not to be asked by every request in turn.
        let _ = tokio::time::timeout(PATIENCE, refresh).await;
        known(self.loaded.load_full())
    }

    async fn load(&self, asked_at: &mut Option<Timestamp>) -> Result<(), String> {
        let (now, part) = (self.clock.now(), format!("source {} keys", self.source.name()));
        *asked_at = Some(now);
        let answer = self.source.load_keys().await;
        let problems = answer.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let skew = answer.skew.unwrap_or_else(|| self.loaded.load().skew);
        if answer.keys.is_empty() {
            let before = self.loaded.load_full();
            self.loaded.store(Arc::new(Loaded { skew, ..(*before).clone() }));
            let reason = format!("cannot load the key that `{}` verifies with: {problems}", self.source.name());
            self.health.degrade(&part, &reason);
            tracing::warn!(source = self.source.name(), "{reason}");
            return Err(reason);
        }
        let loaded = Loaded { keys: answer.keys, loaded_at: Some(now), skew };
        if loaded.clock_is_off() {
            let reason = format!("this machine's clock is {} s off the provider's; set it", skew.as_secs());
            self.health.degrade(&part, &reason);
            tracing::warn!(source = self.source.name(), "{reason}");
        } else {
            self.health.recover(&part);
        }
        let pems = loaded.keys.iter().map(|key| key.pem().to_owned()).collect();
        self.loaded.store(Arc::new(loaded));
        if let Err(error) = self.store.save_verification_keys(self.source.name(), pems, now).await {
            tracing::warn!(source = self.source.name(), error = %error, "the key was loaded, but not kept for the next start: {error}");
        }
        tracing::info!(source = self.source.name(), "loaded the key that `{}` verifies with", self.source.name());
        Ok(())
    }
}
