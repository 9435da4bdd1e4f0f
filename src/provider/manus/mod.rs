//! Manus (<https://manus.im>): both versions of its API, and its webhooks, which are the same in both.
//!
//! Manus signs for all its customers with one key, so a good signature proves who sent an event and for which URL, not whose it
//! is: that is asked of the API, with our own key.

mod api;
mod convert;
pub mod event;
pub mod signature;
mod talk;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::future::ready;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::account::Answered;
use super::rest::Access;
use super::settings::{Common, Settings};
use super::{
    ApiError, Budget, Created, Error, Kept, KeyAnswer, ListPage, Listed, Lost, NewTask, Probe, Reading, Reconcile, Recovered,
    Refusal, Request, Rounds, Standing, Start, Switch, Webhook,
};
use crate::event::{Facts, TASK_FAILED, TASK_STOPPED, Verification};
use crate::setting::Secret;
use crate::signature::rsa::PublicKey;
use crate::task::{Fetched, Stop};
use api::Api;

/// The keys that hold secrets.
pub(super) const SECRETS: &[&str] = &["api_key"];
/// Where Manus's API is.
const BASE_URL: &str = "https://api.manus.ai";

/// The keys of a `[sources.NAME]` section with `provider = "manus"`, beside those that every source has.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// The version of the API that tasks are fetched by and webhooks registered with.
    pub api_version: ApiVersion,
    /// The key of the account. Needed unless `verify = "none"` and `fetch = "off"`.
    pub api_key: Option<Secret>,
    /// Where the API is: an origin, without a path.
    pub base_url: String,
    /// A PEM file with the key that webhooks are signed with; then it is never asked for.
    pub public_key_file: Option<PathBuf>,
    /// The most calls in any minute, over all sources with the same key. Manus allows 100 reads.
    pub requests_per_minute: u32,
    /// What proves a task ours.
    pub ownership: Ownership,
    /// How long a task may stay unknown to Manus before its events are quarantined.
    #[serde(with = "humantime_serde")]
    pub quarantine_after: Duration,
    /// How long the fetch of a proven task may wait before its event is handed on without it.
    #[serde(with = "humantime_serde")]
    pub fetch_patience: Duration,
    /// How long a stop waits for what is before it.
    #[serde(with = "humantime_serde")]
    pub order_wait: Duration,
    /// How long a stop waits for background jobs of its task.
    #[serde(with = "humantime_serde")]
    pub background_wait: Duration,
    /// Whether tasks are fetched.
    pub fetch: Switch,
    /// How stops are found that no webhook told.
    pub reconcile: Reconcile,
    /// The time limit of one call of the API.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_version: ApiVersion::V2,
            api_key: None,
            base_url: BASE_URL.to_owned(),
            public_key_file: None,
            requests_per_minute: 60,
            ownership: Ownership::Strict,
            quarantine_after: Duration::from_mins(15),
            fetch_patience: Duration::from_mins(2),
            order_wait: Duration::from_mins(5),
            background_wait: Duration::from_hours(1),
            fetch: Switch::On,
            reconcile: Reconcile::default(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// A version of Manus's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiVersion {
    /// The first: deprecated, still served.
    V1,
    /// The second.
    V2,
}

/// What proves a task ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// It is in our task list, or readable and private.
    Strict,
    /// It is readable: what a team or the public shares counts as ours.
    Visible,
}

impl Config {
    fn access(&self) -> Access<'_> {
        Access {
            base_url: &self.base_url,
            usual: BASE_URL,
            api_key: self.api_key.as_ref(),
            requests_per_minute: self.requests_per_minute,
            timeout: self.timeout,
        }
    }
}

impl Settings for Config {
    fn covers_url(&self) -> bool {
        true
    }

    fn check(&self, common: &Common) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.fetch == Switch::Off && common.verifies() {
            wrong.push(
                "`fetch = \"off\"` needs `verify = \"none\"`: without the API nothing proves that a signed event is yours"
                    .to_owned(),
            );
        }
        if self.api_key.is_none() && self.fetch == Switch::On {
            wrong.push(
                "`api_key` is missing: set it, `api_key_file` or MANUS_API_KEY (for tests without an account: `verify = \"none\"` and \
                 `fetch = \"off\"`)"
                    .to_owned(),
            );
        }
        wrong.extend(self.reconcile.check());
        wrong.extend(self.access().check());
        wrong
    }

    fn account(&self, start: &Start<'_>) -> Result<Box<dyn super::Account>, Error> {
        let mut pinned = Vec::new();
        if let Some(path) = &self.public_key_file {
            let at = || (start.name.to_owned(), path.clone());
            let pem = std::fs::read_to_string(path).map_err(|cause| {
                let (name, path) = at();
                Error::File { name, key: "public_key_file", path, cause }
            })?;
            pinned = PublicKey::all_from_pem(&pem).map_err(|cause| {
                let (name, path) = at();
                Error::Key { name, path, cause }
            })?;
        }
        Ok(Box::new(Account { config: self.clone(), api: Api::new(self, start), pinned }))
    }
}

/// One account: its settings and its API.
#[derive(Debug)]
struct Account {
    config: Config,
    api: Api,
    pinned: Vec<PublicKey>,
}

impl super::Account for Account {
    fn verify(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Result<Verification, Refusal> {
        signature::verify(request, public_urls, keys).map(|()| Verification::Signature)
    }

    fn explain(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Option<String> {
        signature::explain(request, public_urls, keys)
    }

    fn read(&self, request: &Request<'_>) -> Reading {
        let event::Heard { facts, ping } = event::read(request.body);
        let Facts { event_id, kind, provider_type, task_id, .. } = facts;
        Reading { event_id, kind, provider_type, task_id, ping, reply: None }
    }

    fn tell(&self, event: &Kept<'_>) -> Facts {
        event::read(event.body).facts
    }

    fn collides(&self) -> bool {
        true
    }

    fn ending(&self) -> &'static [&'static str] {
        &[TASK_STOPPED, TASK_FAILED]
    }

    fn order_wait(&self) -> Duration {
        self.config.order_wait
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn pinned_keys(&self) -> &[PublicKey] {
        &self.pinned
    }

    fn load_keys(&self) -> BoxFuture<'_, KeyAnswer> {
        Box::pin(async {
            let mut answer = KeyAnswer::default();
            // Nobody documents that both versions serve one key, or which signs what: both are trusted.
            let (one, two) = tokio::join!(v1::public_key(&self.api), v2::public_key(&self.api));
            for (key, skew) in [two, one] {
                answer.skew = answer.skew.or(skew);
                match key {
                    Ok(key) if answer.keys.contains(&key) => {}
                    Ok(key) => answer.keys.push(key),
                    Err(error) => answer.errors.push(error),
                }
            }
            answer
        })
    }

    fn needs_proof(&self) -> bool {
        // Manus signs for all its customers with one key; without its API nothing could be proven.
        self.fetches()
    }

    fn quarantine_after(&self) -> Duration {
        self.config.quarantine_after
    }

    fn fetches(&self) -> bool {
        self.config.fetch == Switch::On
    }

    fn fetch_patience(&self) -> Duration {
        self.config.fetch_patience
    }

    fn background_wait(&self) -> Duration {
        self.config.background_wait
    }

    fn budget(&self) -> Option<&Budget> {
        Some(&self.api.0.budget)
    }

    fn recent_tasks(&self) -> Answered<'_, Vec<Listed>> {
        Box::pin(async {
            let page = match self.config.api_version {
                ApiVersion::V1 => v1::tasks(&self.api, "created_at", None).await,
                ApiVersion::V2 => v2::tasks(&self.api, None).await,
            };
            Ok(page?.tasks)
        })
    }

    fn reconcile(&self) -> Option<Rounds> {
        self.fetches().then(|| self.config.reconcile.rounds())
    }

    fn lists(&self) -> bool {
        true
    }

    fn tasks<'a>(&'a self, cursor: Option<&'a str>) -> Answered<'a, ListPage> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::tasks(&self.api, "updated_at", cursor)),
            ApiVersion::V2 => Box::pin(v2::tasks(&self.api, cursor)),
        }
    }

    fn stops<'a>(&'a self, task_id: &'a str) -> Answered<'a, Vec<Stop>> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::stops(&self.api, task_id)),
            ApiVersion::V2 => Box::pin(v2::stops(&self.api, task_id)),
        }
    }

    fn turn(&self, task_id: &str, raw: &Value, anchor: &str) -> Option<Fetched> {
        // Answers of the other version may be there, from before the configuration was changed.
        if raw.get("detail").is_some() { v2::turn(task_id, raw, anchor) } else { v1::turn(task_id, raw, anchor) }
    }

    fn recovered(&self, lost: &Lost<'_>) -> Option<Recovered> {
        event::recovered(lost)
    }

    fn probe<'a>(&'a self, task_id: &'a str) -> Answered<'a, Probe> {
        Box::pin(async move {
            let probe = match self.config.api_version {
                ApiVersion::V1 => v1::probe(&self.api, task_id).await?,
                ApiVersion::V2 => v2::probe(&self.api, task_id).await?,
            };
            match (probe, self.config.ownership) {
                (Probe::Visible, Ownership::Visible) => Ok(Probe::Ours { how: "visible" }),
                _ => Ok(probe),
            }
        })
    }

    fn fetch<'a>(&'a self, task_id: &'a str, _: &'a Kept<'a>) -> Answered<'a, Fetched> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::fetch(&self.api, task_id)),
            ApiVersion::V2 => Box::pin(v2::fetch(&self.api, task_id)),
        }
    }

    fn standing<'a>(&'a self, task_id: &'a str) -> Answered<'a, Standing> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::standing(&self.api, task_id)),
            ApiVersion::V2 => Box::pin(v2::standing(&self.api, task_id)),
        }
    }

    fn reply<'a>(&'a self, task_id: &'a str, standing: &'a Standing, message: &'a str) -> Answered<'a, ()> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::reply(&self.api, task_id, standing.model.as_deref(), message)),
            ApiVersion::V2 => Box::pin(v2::reply(&self.api, task_id, message)),
        }
    }

    fn confirm<'a>(&'a self, task_id: &'a str, event_id: &'a str, input: &'a Value) -> Answered<'a, bool> {
        match self.config.api_version {
            ApiVersion::V1 => {
                let reason =
                    "version 1 of Manus's API has no confirmations: confirm it on the task's page, or use `api_version = \"v2\"`";
                Box::pin(ready(Err(ApiError::Unsupported { call: "confirm", reason })))
            }
            ApiVersion::V2 => Box::pin(v2::confirm(&self.api, task_id, event_id, input)),
        }
    }

    fn stop<'a>(&'a self, task_id: &'a str) -> Answered<'a, ()> {
        match self.config.api_version {
            ApiVersion::V1 => {
                let reason = "version 1 of Manus's API stops no task: stop it on its page, or use `api_version = \"v2\"`";
                Box::pin(ready(Err(ApiError::Unsupported { call: "stop", reason })))
            }
            ApiVersion::V2 => Box::pin(v2::stop(&self.api, task_id)),
        }
    }

    fn create_task<'a>(&'a self, task: &'a NewTask) -> Answered<'a, Created> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::create_task(&self.api, task)),
            ApiVersion::V2 => Box::pin(v2::create_task(&self.api, task)),
        }
    }

    fn registers(&self) -> bool {
        true
    }

    fn webhooks_list(&self) -> Answered<'_, Vec<Webhook>> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(ready(v1::webhooks_list())),
            ApiVersion::V2 => Box::pin(v2::webhooks_list(&self.api)),
        }
    }

    fn webhooks_register<'a>(&'a self, url: &'a str) -> Answered<'a, Webhook> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::webhooks_register(&self.api, url)),
            ApiVersion::V2 => Box::pin(v2::webhooks_register(&self.api, url)),
        }
    }

    fn webhooks_delete<'a>(&'a self, id: &'a str) -> Answered<'a, ()> {
        match self.config.api_version {
            ApiVersion::V1 => Box::pin(v1::webhooks_delete(&self.api, id)),
            ApiVersion::V2 => Box::pin(v2::webhooks_delete(&self.api, id)),
        }
    }
}
