//! The keys that providers sign with: loaded, kept in the store, refreshed.
//!
//! What must hold:
//! - A key that was ever loaded never expires: the hour only schedules a refresh. So a provider whose API is down for a day does
//!   not stop us from accepting its events.
//! - A check that fails may mean a new key. Then one refresh, shared by all who wait, is awaited for at most [`PATIENCE`], at most
//!   one a minute, so that forged requests cannot make us call. It is nobody's own: whoever asked may hang up without ending it.
//!   The first load is such a refresh, too: what comes while it is on its way waits for it.
//! - A key from a file is the only one that is trusted, from the first moment, and nobody is asked for another.
//! - Where nobody can say whether a request is genuine (no key was ever loaded, or ours is old and cannot be refreshed), that is
//!   our trouble, not the sender's: 503.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::provider::{ApiError, KeyAnswer, Source};
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
/// The most keys of a source that are trusted at one time.
const MOST: usize = 8;
/// How long a request waits for a refresh.
const PATIENCE: Duration = Duration::from_secs(3);
/// A difference of clocks larger than this is ours to mend.
pub const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The keys of every source that verifies by keys of its provider; clones share them.
#[derive(Clone, Debug)]
pub struct Keys {
    of: Arc<BTreeMap<String, Arc<KeyRing>>>,
    /// Whether some source needs no key: it believes anyone, or has a secret of its own.
    open: bool,
}

#[derive(Debug)]
struct KeyRing {
    source: Arc<Source>,
    store: Store,
    clock: Clock,
    health: Health,
    loaded: ArcSwap<Loaded>,
    refresh: Mutex<Refresh>,
}

/// The refresh that requests ask for.
#[derive(Debug, Default)]
struct Refresh {
    /// When the keys were last asked for, in the clock's running time.
    asked_at: Option<Duration>,
    /// What asks for them now, if anything.
    running: JoinSet<()>,
    /// Tells how that ended.
    ended: Option<Ended>,
}

/// How a refresh ended, once it has: why no key could be loaded, for people.
type Ended = watch::Receiver<Option<Result<(), String>>>;

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
        // Loaded in what is now the future: a clock was set, and nobody knows how old it is.
        let age = |at| if at > clock::after(now, DOUBT_AFTER) { Duration::MAX } else { clock::since(at, now) };
        self.loaded_at.map(age)
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
        let (mut of, mut open) = (BTreeMap::new(), false);
        for source in sources {
            if !source.is_keyed() {
                open = true;
                continue;
            }
            let (keys, loaded_at) = if source.pins_key() {
                (source.pinned_keys().to_vec(), Some(clock.now()))
            } else {
                let saved = store.verification_keys(source.name()).await?;
                let keys = saved.iter().filter_map(|(pem, _)| PublicKey::from_pem(pem).ok()).collect();
                (keys, saved.iter().map(|(_, at)| *at).max())
            };
            let ring = KeyRing {
                store: store.clone(),
                clock: clock.clone(),
                health: health.clone(),
                loaded: ArcSwap::from_pointee(Loaded { keys, loaded_at, skew: SignedDuration::ZERO }),
                refresh: Mutex::default(),
                source,
            };
            of.insert(ring.source.name().to_owned(), Arc::new(ring));
        }
        Ok(Self { of: Arc::new(of), open })
    }

    /// What is trusted now for `source`.
    #[must_use]
    pub fn of(&self, source: &str) -> Arc<Loaded> {
        self.of.get(source).map(|ring| ring.loaded.load_full()).unwrap_or_default()
    }

    /// Whether any source could verify a request now; true where one has not to.
    #[must_use]
    pub fn any_can_verify(&self) -> bool {
        self.open || self.of.values().any(|ring| !ring.loaded.load().keys.is_empty())
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
            Some(ring) => ring.load().await,
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
    async fn keep_fresh(self: &Arc<Self>) {
        if self.source.pins_key() {
            return;
        }
        let mut attempt = 0;
        loop {
            let age = self.loaded.load().age(self.clock.now());
            let wait = match age.map(|age| REFRESH_AFTER.saturating_sub(age)).filter(|wait| !wait.is_zero()) {
                Some(wait) => wait,
                None if self.load().await.is_ok() => {
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

    async fn doubt(self: &Arc<Self>, tried: &Arc<Loaded>) -> Refreshed {
        let now = self.clock.now();
        let known = |loaded: Arc<Loaded>| {
            let reliable = !loaded.keys.is_empty() && loaded.age(now).is_some_and(|age| age <= REFRESH_AFTER);
            Refreshed { loaded, reliable: reliable || self.source.pins_key() }
        };
        let young = !tried.keys.is_empty() && tried.age(now).is_some_and(|age| age < DOUBT_AFTER);
        if self.source.pins_key() || (young && !tried.clock_is_off()) {
            return known(Arc::clone(tried));
        }
        // Nothing to wait for: somebody refreshed a little earlier, and what they found is what there is.
        if let Some(mut ended) = self.refresh(ASK_EVERY) {
            // Whatever it is told, what is trusted then is what there is.
            let _ = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
        }
        known(self.loaded.load_full())
    }

    /// The end of the refresh that runs, or of a new one; `None` if that would be sooner than `least` after the last.
    fn refresh(self: &Arc<Self>, least: Duration) -> Option<Ended> {
        let mut refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = refresh.running.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(source = self.source.name(), "refreshing the key failed: this is a bug ({error})");
            }
        }
        if !refresh.running.is_empty() {
            return refresh.ended.clone();
        }
        let now = self.clock.elapsed();
        if refresh.asked_at.is_some_and(|at| now.saturating_sub(at) < least) {
            return None;
        }
        refresh.asked_at = Some(now);
        let (end, ended) = watch::channel(None);
        // It must not keep the store open beyond the program's end, so it holds the ring only once there is an answer.
        let (source, ring) = (Arc::clone(&self.source), Arc::downgrade(self));
        refresh.running.spawn(async move {
            let answer = source.load_keys().await;
            if let Some(ring) = Weak::upgrade(&ring) {
                end.send_replace(Some(ring.take(answer).await));
            }
        });
        refresh.ended = Some(ended.clone());
        Some(ended)
    }

    async fn load(self: &Arc<Self>) -> Result<(), String> {
        if self.source.pins_key() {
            return Ok(());
        }
        let interrupted = || Err("loading the key was interrupted".to_owned());
        let Some(mut ended) = self.refresh(Duration::ZERO) else { return interrupted() };
        let told = ended.wait_for(Option::is_some).await;
        told.ok().and_then(|told| told.clone()).unwrap_or_else(interrupted)
    }

    /// Trusts what the provider answered, or says why it cannot.
    async fn take(&self, answer: KeyAnswer) -> Result<(), String> {
        let (now, part) = (self.clock.now(), format!("source {} keys", self.source.name()));
        let before = self.loaded.load_full();
        let skew = answer.skew.unwrap_or(before.skew);
        if answer.keys.is_empty() {
            let problems = answer.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            self.loaded.store(Arc::new(Loaded { skew, ..(*before).clone() }));
            let reason = format!("cannot load the key that `{}` verifies with: {problems}", self.source.name());
            self.health.degrade(&part, &reason);
            return Err(reason);
        }
        let mut keys = answer.keys;
        // Of several places that keys come from one did not answer: what it gave before stays trusted.
        if answer.errors.iter().any(ApiError::degrades) {
            let missing: Vec<_> = before.keys.iter().filter(|key| !keys.contains(key)).cloned().collect();
            keys.extend(missing);
            keys.truncate(MOST);
        }
        let loaded = Loaded { keys, loaded_at: Some(now), skew };
        if loaded.clock_is_off() {
            // In tens of seconds, so that it is no news each time.
            let about = skew.as_secs() / 10 * 10;
            let set = "set it, for example with NTP, then run `taskhook check`";
            self.health.degrade(&part, format!("this machine's clock is about {about} s off the provider's; {set}"));
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
