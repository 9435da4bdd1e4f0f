//! A stand-in for Magic Hour: its job API, its webhooks with their real signature and their retries, downloads behind links that
//! expire, and its faults.
//!
//! It is written from Magic Hour's public documentation. Where that says nothing, this is assumed, and may be wrong: one event a
//! job and step, however many files there are; the timestamp is that of each try (see [`Options::renew_timestamp`]); links are
//! signed anew on every try and every answer; another account's job is answered like one that never was.
//!
//! A job lives by its [`Plan`]. Webhooks are made in the Developer Hub, for which there is no API: here it is
//! [`MagicHour::add_webhook`].

mod api;
mod deliver;
mod faults;
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
pub use script::{End, PROMPTS, Plan, Resource, TOOLS};

use crate::clock::Clock;
use state::State;

/// Every event that a webhook can be made for.
pub const EVENTS: [&str; 9] = [
    "video.started",
    "video.completed",
    "video.errored",
    "image.started",
    "image.completed",
    "image.errored",
    "audio.started",
    "audio.completed",
    "audio.errored",
];

/// How a simulator is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its time.
    pub clock: Clock,
    /// Who makes jobs go on.
    pub drive: Drive,
    /// The API keys of its accounts, which are then labelled `account-1` and so on.
    pub accounts: Vec<String>,
    /// How long a webhook request that was not answered 2xx is sent again: after 1 s, 2 s, 4 s and so on. Magic Hour does for a day.
    pub retry_for: Duration,
    /// Whether a try is signed with its own time, or with that of the event. Magic Hour does not say.
    pub renew_timestamp: bool,
    /// The wait between the steps of a job that a prompt asked for, see [`PROMPTS`].
    pub pace: Duration,
    /// How long a link to a file is good.
    pub link_lifetime: Duration,
    /// The address in links to files, if not the listener's.
    pub base_url: Option<String>,
    /// Makes ids the same each time.
    pub seed: Option<u64>,
}

impl Options {
    /// Driven by hand, one account with the key `mhk_test`, no retries, links that are good for a day.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            drive: Drive::Hand,
            accounts: vec!["mhk_test".to_owned()],
            retry_for: Duration::ZERO,
            renew_timestamp: true,
            pace: Duration::ZERO,
            link_lifetime: Duration::from_hours(24),
            base_url: None,
            seed: None,
        }
    }
}

/// The model, as its own parts see it.
type Shared = Core<State>;

/// A running simulator; clones are the same one. It ends at its stop signal, or when the last clone is dropped.
#[derive(Clone)]
pub struct MagicHour {
    core: Arc<Shared>,
    parts: Parts,
}

handle!(MagicHour, Faults);

impl MagicHour {
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

    /// Makes a webhook for `events` (none: every event) in the account of `key`, signed with `secret`.
    pub fn add_webhook(&self, key: &str, url: &str, secret: &str, events: &[&str]) {
        self.core.lock().add_webhook(key, url, secret, events);
    }

    /// Makes a job in the account of `key` as if it had been asked for over the API; its id.
    #[must_use]
    pub fn create_task(&self, key: &str, plan: Plan) -> String {
        let id = {
            let mut state = self.core.lock();
            let account = state.account(key);
            state.create(account, plan)
        };
        self.core.wake.notify_one();
        id
    }

    /// Deletes a job, as somebody may do over the API or in the web app. False if there is none.
    #[expect(clippy::must_use_candidate, reason = "it deletes")]
    pub fn delete_task(&self, id: &str) -> bool {
        let found = {
            let mut state = self.core.lock();
            let number = state.number(id);
            number.inspect(|number| state.remove(*number)).is_some()
        };
        self.core.rest.send_replace(());
        found
    }

    /// Sends an event of any content to the webhooks of the account of `key`, subject to the faults; how it was answered.
    pub async fn emit(&self, key: &str, body: Value) -> Vec<Delivery> {
        let requests = self.core.lock().emit(key, body);
        self.core.emit(requests).await
    }

    /// The headers of a genuine request with `body`, signed with `secret` at `timestamp` (seconds).
    #[must_use]
    pub fn sign(secret: &str, body: &[u8], timestamp: i64) -> HeaderMap {
        deliver::headers(timestamp, &deliver::signature(secret.as_bytes(), timestamp, body))
    }
}
