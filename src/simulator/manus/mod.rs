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
mod faults;
mod lag;
mod life;
mod script;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::core::{self, Core, Model as _, Parts};
use super::handle::handle;
pub use super::{ApiFault, Call, Delivery, Drive, File, Happening, Times, WrongAnswer};
pub use faults::{FAULTS, Faults};
pub use script::{End, PROMPTS, Plan, Turn};

use crate::clock::Clock;
use crate::signature::rsa::PrivateKey;
use deliver::Event;
use state::{NewTask, State};

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
    /// The most tasks that are kept; of more, the oldest goes.
    pub max_tasks: usize,
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
            max_tasks: 5_000,
            base_url: None,
            seed: None,
            signing_key: None,
        }
    }
}

/// The model, as its own parts see it.
type Shared = Core<State>;

/// A running simulator; clones are the same one. It ends at its stop signal, or when the last clone is dropped.
#[derive(Clone)]
pub struct Manus {
    core: Arc<Shared>,
    parts: Parts,
}

handle!(Manus, Faults);

impl Manus {
    /// Starts a simulator on `listener`; to be called inside a tokio runtime.
    ///
    /// # Panics
    /// If the listener has no address, or `base_url` is no URL.
    #[must_use]
    pub fn start(listener: TcpListener, options: Options, stop: CancellationToken) -> Self {
        let mut state = State::new(&options, core::origin(&listener, options.base_url.as_ref()));
        for key in &options.accounts {
            state.account(key);
        }
        let (clock, drive) = (options.clock.clone(), options.drive);
        let (core, parts) = Core::start(listener, (state, options), clock, drive, stop, api::router);
        Self { core, parts }
    }

    /// The key that webhooks are to be verified with.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.core.lock().key.public_pem()
    }

    /// Signs with a new key from now on; the API answers with the new one at once.
    pub fn rotate_key(&self) {
        let key = Arc::new(PrivateKey::generate());
        self.core.lock().key = key;
    }

    /// Makes an account with this API key, if there is none.
    pub fn add_account(&self, key: &str) {
        self.core.lock().account(key);
    }

    /// Makes a task in the account of `key` as if it had been asked for over the API; its id.
    #[must_use]
    pub fn create_task(&self, key: &str, plan: Plan) -> String {
        let mut state = self.core.lock();
        let account = state.account(key);
        let prompt = plan.title.clone().unwrap_or_else(|| "A task".to_owned());
        let number = state.create(account, NewTask { prompt, title: None, profile: "manus-1.6".to_owned(), plan });
        let id = state.tasks[&number].id.clone();
        drop(state);
        self.core.wake.notify_one();
        id
    }

    /// Says something to a task that rests, and has it live its next turn to the end at once, of which no webhook tells. False if it takes no
    /// more messages, or there is none.
    #[expect(clippy::must_use_candidate, reason = "it makes a turn")]
    pub fn take_turn(&self, task_id: &str, said: &str) -> bool {
        let mut state = self.core.lock();
        let Some(number) = state.number(task_id) else { return false };
        if !state.say(number, said) {
            return false;
        }
        while state.has_step(number) {
            drop(state.live(number));
        }
        true
    }

    /// Deletes a task, as somebody may do in the web app. False if there is none.
    #[expect(clippy::must_use_candidate, reason = "it deletes")]
    pub fn delete_task(&self, task_id: &str) -> bool {
        let mut state = self.core.lock();
        let number = state.number(task_id);
        let found = number.inspect(|number| state.remove(*number)).is_some();
        drop(state);
        self.core.rest.send_replace(());
        found
    }

    /// Registers a webhook without trying it; its id.
    #[expect(clippy::must_use_candidate, reason = "it registers")]
    pub fn register(&self, key: &str, url: &str) -> String {
        let mut state = self.core.lock();
        let account = state.account(key);
        state.add_webhook(account, url).id
    }

    /// Registers a webhook as the API does: tried first, and registered if that is answered 200. How it was answered.
    pub async fn register_with_ping(&self, key: &str, url: &str) -> Delivery {
        let account = self.core.lock().account(key);
        let delivery = self.core.ping(account, url).await;
        if delivery.status == Some(200) {
            self.core.lock().add_webhook(account, url);
        }
        delivery
    }

    /// Sends an event of any content to the webhooks of the account of `key`, subject to the faults; how it was answered.
    pub async fn emit(&self, key: &str, body: Value) -> Vec<Delivery> {
        let requests = {
            let mut state = self.core.lock();
            let account = state.account(key);
            let task = ["task_detail", "progress_detail"].iter().find_map(|detail| body[*detail]["task_id"].as_str());
            let event = Event { account, task_id: task.unwrap_or_default().to_owned(), body };
            state.dispatch(event)
        };
        self.core.emit(requests).await
    }

    /// The headers of a genuine request: `body` sent to `url`, signed at `timestamp` (seconds).
    #[must_use]
    pub fn sign(&self, url: &str, body: &[u8], timestamp: i64) -> HeaderMap {
        let key = Arc::clone(&self.core.lock().key);
        deliver::headers(timestamp, &key.sign(deliver::signed_text(timestamp, url, body).as_bytes()))
    }
}
