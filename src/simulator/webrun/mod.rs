//! A stand-in for WebRun: sessions and their tasks, webhooks in their three shapes, files, and faults.
//!
//! It is written from WebRun's public documentation. Where that says nothing, this is assumed, and may be wrong: text and CSV of an
//! `ai_response` are sent bare, as `text/plain` and `text/csv`; a task that fails or needs a person sends no webhook; the
//! `full_response` webhook names no files, the task call does; another account's session is answered like one that never was.
//!
//! A webhook is part of the call that asks for a task. It is sent once, with the `Authorization` value that was asked for, and
//! never again. A task lives by its [`Plan`].

mod api;
mod deliver;
mod faults;
mod script;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::core::{self, Core, Model as _, Parts};
use super::handle::handle;
pub use super::{ApiFault, Call, Delivery, Drive, File, Happening, Times, WrongAnswer};
pub use deliver::{Shape, Webhook};
pub use faults::{FAULTS, Faults};
pub use script::{End, Output, PROMPTS, Plan};

use crate::clock::Clock;
use state::State;

/// How a simulator is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its time.
    pub clock: Clock,
    /// Who makes tasks go on.
    pub drive: Drive,
    /// The API keys of its accounts, which are then labelled `account-1` and so on.
    pub accounts: Vec<String>,
    /// How many calls that start something an account may make in a minute; `None` for any number. WebRun allows 10.
    pub per_minute: Option<usize>,
    /// The wait between the steps of a task that a prompt asked for, see [`PROMPTS`].
    pub pace: Duration,
    /// How long a link to a file is good.
    pub link_lifetime: Duration,
    /// The address in links, if not the listener's.
    pub base_url: Option<String>,
    /// Makes ids the same each time.
    pub seed: Option<u64>,
}

impl Options {
    /// Driven by hand, one account with the key `enig_test`, WebRun's rate limit.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            drive: Drive::Hand,
            accounts: vec!["enig_test".to_owned()],
            per_minute: Some(10),
            pace: Duration::ZERO,
            link_lifetime: Duration::from_hours(1),
            base_url: None,
            seed: None,
        }
    }
}

/// The model, as its own parts see it.
type Shared = Core<State>;

/// A running simulator; clones are the same one. It ends at its stop signal, or when the last clone is dropped.
#[derive(Clone)]
pub struct WebRun {
    core: Arc<Shared>,
    parts: Parts,
}

handle!(WebRun, Faults);

impl WebRun {
    /// Starts a simulator on `listener`; to be called inside a tokio runtime.
    ///
    /// # Panics
    /// If the listener has no address, or `base_url` is no URL.
    #[must_use]
    pub fn start(listener: TcpListener, options: Options, stop: CancellationToken) -> Self {
        let state = State::new(&options, core::origin(&listener, options.base_url.as_ref()));
        let (clock, drive) = (options.clock.clone(), options.drive);
        let (core, parts) = Core::start(listener, (state, options), clock, drive, stop, api::router);
        Self { core, parts }
    }

    /// Makes a task in a new session of the account of `key`, as if it had been asked for over the API; the ids of its session and
    /// of itself.
    #[must_use]
    pub fn create_task(&self, key: &str, webhook: impl Into<Option<Webhook>>, plan: Plan) -> (String, String) {
        let ids = {
            let mut state = self.core.lock();
            let account = state.account_of_key(key).unwrap_or_default();
            let session = state.open_session(account);
            let task = state.create(&session, webhook.into(), plan);
            (session, task)
        };
        self.core.wake.notify_one();
        ids
    }

    /// Makes a further task in a session.
    #[must_use]
    pub fn next_task(&self, session: &str, webhook: impl Into<Option<Webhook>>, plan: Plan) -> String {
        let task = self.core.lock().create(session, webhook.into(), plan);
        self.core.wake.notify_one();
        task
    }

    /// Ends a session: what is known of its tasks goes with it. False if there is none.
    #[expect(clippy::must_use_candidate, reason = "it deletes")]
    pub fn end_session(&self, session: &str) -> bool {
        let ended = self.core.lock().close_session(session);
        self.core.rest.send_replace(());
        ended
    }
}
