//! A stand-in for Manus: both versions of its API, its webhooks with their real signature, its files, and its faults.
//!
//! It is written from Manus's public documentation and from what integrators report. Where neither says anything, this is
//! assumed, and may be wrong: a failed or stopped task sends no webhook; nothing is sent again; both API versions ask for a key
//! at the public key; every webhook gets every event; a public task can be read with any key in v2, and in v1 with its own
//! account's only; errors of v1 have the shape of its one documented error.
//!
//! A task lives by its [`Plan`]. Under [`Drive::Clock`] steps happen when the clock says so. Under [`Drive::Hand`] nothing happens
//! by itself: [`Manus::step`] does the next step of a task and returns when its webhooks have answered.

mod api;
mod api_v1;
mod api_v2;
mod deliver;
mod drive;
mod faults;
mod files;
mod life;
mod script;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use super::Times;
pub use faults::{ApiFault, FAULTS, Faults, WrongAnswer};
pub use script::{End, File, PROMPTS, Plan, Turn};
pub use state::{Call, Delivery};

use crate::clock::Clock;
use crate::http;
use crate::signature::rsa::PrivateKey;
use deliver::Event;
use state::{NewTask, State};

/// How many happenings a slow listener may be behind before it misses some.
const MAX_BEHIND: usize = 1024;

/// Who makes tasks go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The clock: each step is done when it is due.
    Clock,
    /// The caller: each step is done by [`Manus::step`] or [`Manus::finish_all`].
    Hand,
}

/// How many calls an account may make in a minute. The documentation's numbers are the default.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `task.create` and `task.sendMessage`.
    pub creates: usize,
    /// Other changes.
    pub changes: usize,
    /// Reads.
    pub reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { creates: 10, changes: 40, reads: 100 }
    }
}

/// How a simulator is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its time.
    pub clock: Clock,
    /// Who makes tasks go on.
    pub drive: Drive,
    /// The API keys of its accounts, which are then labelled `account-1` and so on.
    pub accounts: Vec<String>,
    /// Rate limits; `None` for none.
    pub limits: Option<Limits>,
    /// How often a webhook request that was not answered 2xx is sent again.
    pub retries: u32,
    /// The wait before it is.
    pub retry_delay: Duration,
    /// Whether every number is sent as a string, as some were seen to be.
    pub numbers_as_strings: bool,
    /// The wait between the steps of a task that a prompt asked for, see [`PROMPTS`].
    pub pace: Duration,
    /// How long a link to a file is good.
    pub link_lifetime: Duration,
    /// The address in links to files, if not the listener's.
    pub base_url: Option<String>,
    /// Makes ids the same each time.
    pub seed: Option<u64>,
    /// Signs webhooks; `None`: a new key, which takes some 100 ms to make.
    pub signing_key: Option<Arc<PrivateKey>>,
}

impl Options {
    /// Driven by hand, one account with the key `sk-test`, Manus's rate limits, no retries.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            drive: Drive::Hand,
            accounts: vec!["sk-test".to_owned()],
            limits: Some(Limits::default()),
            retries: 0,
            retry_delay: Duration::ZERO,
            numbers_as_strings: false,
            pace: Duration::ZERO,
            link_lifetime: Duration::from_hours(1),
            base_url: None,
            seed: None,
            signing_key: None,
        }
    }
}

/// What happened, as it happens.
#[derive(Clone, Debug)]
pub enum Happening {
    /// An API call was answered.
    Called(Call),
    /// A webhook request was sent.
    Sent(Delivery),
}

struct Shared {
    options: Options,
    client: reqwest::Client,
    state: Mutex<State>,
    /// Something is to be done sooner than the driver knew.
    wake: Notify,
    /// Changes whenever the simulator may have come to rest.
    rest: watch::Sender<()>,
    happenings: broadcast::Sender<Happening>,
    stop: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panicking test left behind is whole: no change spans two locks.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happening: Happening) {
        // Nobody may be listening.
        let _ = self.happenings.send(happening);
    }
}

/// A running simulator; clones are the same one. It ends at its stop signal, or when the last clone is dropped.
#[derive(Clone)]
pub struct Manus {
    shared: Arc<Shared>,
    /// The server and the driver. Aborted when the last handle goes, since nothing in them holds this.
    parts: Arc<Mutex<JoinSet<()>>>,
}

impl Manus {
    /// Starts a simulator on `listener`; to be called inside a tokio runtime.
    ///
    /// # Panics
    /// If the listener has no address, or `base_url` is no URL.
    #[must_use]
    pub fn start(listener: TcpListener, options: Options, stop: CancellationToken) -> Self {
        let base_url = options.base_url.clone().unwrap_or_else(|| {
            let address = listener.local_addr().expect("a bound listener has an address");
            format!("http://{address}")
        });
        let base_url = base_url.trim_end_matches('/').to_owned();
        assert!(url::Url::parse(&base_url).is_ok_and(|url| !url.cannot_be_a_base()), "`base_url` must be a URL");
        let mut state = State::new(&options, base_url);
        for key in &options.accounts {
            state.account(key);
        }
        let shared = Arc::new(Shared {
            client: http::client(deliver::TIMEOUT),
            state: Mutex::new(state),
            wake: Notify::new(),
            rest: watch::Sender::new(()),
            happenings: broadcast::Sender::new(MAX_BEHIND),
            stop: stop.clone(),
            options,
        });
        let mut parts = JoinSet::new();
        let router = api::router(Arc::clone(&shared));
        parts.spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::error!(%error, "the simulator's server ended");
            }
        });
        if shared.options.drive == Drive::Clock {
            parts.spawn(Arc::clone(&shared).drive());
        }
        Self { shared, parts: Arc::new(Mutex::new(parts)) }
    }

    /// Waits until everything has ended after the stop signal.
    pub async fn stopped(&self) {
        let mut parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        while parts.join_next().await.is_some() {}
    }

    /// The origin to use in place of `https://api.manus.ai`.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.shared.lock().base_url.clone()
    }

    /// The key that webhooks are to be verified with.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.shared.lock().key.public_pem()
    }

    /// Signs with a new key from now on; the API answers with the new one at once.
    pub fn rotate_key(&self) {
        let key = Arc::new(PrivateKey::generate());
        self.shared.lock().key = key;
    }

    /// Makes an account with this API key, if there is none.
    pub fn add_account(&self, key: &str) {
        self.shared.lock().account(key);
    }

    /// Makes a task in the account of `key` as if it had been asked for over the API; its id.
    #[must_use]
    pub fn create_task(&self, key: &str, plan: Plan) -> String {
        let mut state = self.shared.lock();
        let account = state.account(key);
        let prompt = plan.title.clone().unwrap_or_else(|| "A task".to_owned());
        let number = state.create(account, NewTask { prompt, title: None, profile: "manus-1.6".to_owned(), plan });
        let id = state.tasks[&number].id.clone();
        drop(state);
        self.shared.wake.notify_one();
        id
    }

    /// Deletes a task, as somebody may do in the web app. False if there is none.
    #[expect(clippy::must_use_candidate, reason = "it deletes")]
    pub fn delete_task(&self, task_id: &str) -> bool {
        let mut state = self.shared.lock();
        let number = state.number(task_id);
        let found = number.inspect(|number| state.remove(*number)).is_some();
        drop(state);
        self.shared.rest.send_replace(());
        found
    }

    /// Registers a webhook without trying it; its id.
    #[expect(clippy::must_use_candidate, reason = "it registers")]
    pub fn register(&self, key: &str, url: &str) -> String {
        let mut state = self.shared.lock();
        let account = state.account(key);
        state.add_webhook(account, url).id
    }

    /// Registers a webhook as the API does: tried first, and registered if that is answered 200. How it was answered.
    pub async fn register_with_ping(&self, key: &str, url: &str) -> Delivery {
        let account = self.shared.lock().account(key);
        let delivery = self.shared.ping(account, url).await;
        if delivery.status == Some(200) {
            self.shared.lock().add_webhook(account, url);
        }
        delivery
    }

    /// Does the next step of a task, and waits until its webhooks have answered: the last try of each. Empty if nothing was sent;
    /// `None` if there was no step left.
    pub async fn step(&self, task_id: &str) -> Option<Vec<Delivery>> {
        let started = {
            let state = self.shared.lock();
            let number = state.number(task_id)?;
            if state.tasks[&number].steps.is_empty() {
                return None;
            }
            drop(state);
            self.shared.advance(number)
        };
        match started {
            Some((batch, _in_flight)) => Some(self.shared.send(batch).await),
            None => Some(Vec::new()),
        }
    }

    /// Does every step of every task until all rest or wait for an answer; then sends what was held back. What was sent.
    pub async fn finish_all(&self) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        loop {
            let next = self.shared.lock().next_due();
            let started = match next {
                Some((_, number)) => self.shared.advance(number),
                None => match self.shared.release_held() {
                    None => return deliveries,
                    held => held,
                },
            };
            if let Some((batch, _in_flight)) = started {
                deliveries.extend(self.shared.send(batch).await);
            }
        }
    }

    /// Waits until no step is planned and nothing is on its way (or until the stop).
    pub async fn idle(&self) {
        let mut rest = self.shared.rest.subscribe();
        while !self.shared.lock().rests() {
            tokio::select! {
                () = self.shared.stop.cancelled() => return,
                _ = rest.changed() => {}
            }
        }
    }

    /// Sends an event of any content to the webhooks of the account of `key`, subject to the faults; how it was answered.
    pub async fn emit(&self, key: &str, body: Value) -> Vec<Delivery> {
        let batch = {
            let mut state = self.shared.lock();
            let account = state.account(key);
            let task = ["task_detail", "progress_detail"].iter().find_map(|detail| body[*detail]["task_id"].as_str());
            let event = Event { account, task_id: task.unwrap_or_default().to_owned(), body };
            let requests = state.dispatch(event);
            state.batch(None, requests)
        };
        match batch {
            Some(batch) => self.shared.send(batch).await,
            None => Vec::new(),
        }
    }

    /// The headers of a genuine request: `body` sent to `url`, signed at `timestamp` (seconds).
    #[must_use]
    pub fn sign(&self, url: &str, body: &[u8], timestamp: i64) -> HeaderMap {
        let key = Arc::clone(&self.shared.lock().key);
        deliver::headers(timestamp, &key.sign(deliver::signed_text(timestamp, url, body).as_bytes()))
    }

    /// The API calls so far, oldest first; the newest 10,000 are kept.
    #[must_use]
    pub fn requests(&self) -> Vec<Call> {
        self.shared.lock().calls.to_vec()
    }

    /// The webhook requests so far, oldest first; the newest 10,000 are kept.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.lock().deliveries.to_vec()
    }

    /// What happens from now on. A listener that is more than 1,024 behind misses some.
    #[must_use]
    pub fn happenings(&self) -> broadcast::Receiver<Happening> {
        self.shared.happenings.subscribe()
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    /// What is left of the faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.lock().faults.clone()
    }
}
