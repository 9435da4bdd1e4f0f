//! Manus (<https://manus.im>): both versions of its API, and its webhooks, which are the same in both.
//!
//! Manus signs for all its customers with one key, so a good signature proves who sent an event and for which URL, not whose it
//! is: that is asked of the API, with our own key.

mod api;
mod convert;
pub mod event;
pub mod signature;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::budget::{Budget, Budgets};
use super::{ApiError, Created, Error, KeyAnswer, Listed, NewTask, Probe, Webhook};
use crate::clock::Clock;
use crate::setting::{List, Secret, Size};
use crate::signature::rsa::PublicKey;
use crate::task::Fetched;
use api::Api;

/// The keys that hold secrets.
pub const SECRETS: &[&str] = &["api_key", "path_token"];

/// A `[sources.NAME]` section with `provider = "manus"`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The version of the API that tasks are fetched by and webhooks registered with.
    pub api_version: ApiVersion,
    /// The key of the account. Needed unless `verify = "none"` and `fetch = "off"`.
    pub api_key: Option<Secret>,
    /// Where the API is: an origin, without a path.
    pub base_url: String,
    /// A PEM file with the key that webhooks are signed with; then it is never asked for.
    pub public_key_file: Option<PathBuf>,
    /// Secrets that stand in the webhook's path, any of which opens it.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub path_token: List<Secret>,
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
    /// How requests are verified.
    pub verify: Verify,
    /// Whether tasks are fetched.
    pub fetch: Switch,
    /// The most bytes of a body.
    pub max_body_bytes: Size,
    /// The time limit of one call of the API.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_version: ApiVersion::V2,
            api_key: None,
            base_url: "https://api.manus.ai".to_owned(),
            public_key_file: None,
            path_token: List::default(),
            requests_per_minute: 60,
            ownership: Ownership::Strict,
            quarantine_after: Duration::from_mins(15),
            fetch_patience: Duration::from_mins(2),
            order_wait: Duration::from_mins(5),
            background_wait: Duration::from_hours(1),
            verify: Verify::Signature,
            fetch: Switch::On,
            max_body_bytes: Size(2 << 20),
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

/// How requests are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// By Manus's signature.
    Signature,
    /// Not at all: whoever finds the URL may send events.
    None,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Config {
    /// Checks what the types do not: all that is wrong, each in a line that begins with its key.
    pub(super) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.fetch == Switch::Off && self.verify == Verify::Signature {
            wrong.push(
                "`fetch = \"off\"` needs `verify = \"none\"`: without the API nothing proves that a signed event is yours"
                    .to_owned(),
            );
        }
        match &self.api_key {
            Some(key) if key.is_empty() => wrong.push("`api_key` is empty".to_owned()),
            Some(key) if !key.expose().trim().bytes().all(|byte| byte.is_ascii_graphic()) => {
                wrong.push("`api_key` holds a space or a character that no key has: was it copied whole, and alone?".to_owned());
            }
            None if self.fetch == Switch::On => wrong.push(
                "`api_key` is missing: set it, `api_key_file` or MANUS_API_KEY (for tests without an account: `verify = \"none\"` and \
                 `fetch = \"off\"`)"
                    .to_owned(),
            ),
            Some(_) | None => {}
        }
        if let Err(reason) = origin(&self.base_url) {
            wrong.push(reason);
        }
        if self.path_token.iter().any(Secret::is_empty) {
            wrong.push("`path_token` is empty".to_owned());
        } else if !self.path_token.iter().all(|token| is_path_segment(token.expose())) {
            wrong.push("`path_token` may hold only letters, digits, `-`, `_`, `.` and `~`, at most 128 of them".to_owned());
        }
        if self.requests_per_minute == 0 {
            wrong.push("`requests_per_minute` must be at least 1".to_owned());
        }
        if self.max_body_bytes.0 == 0 {
            wrong.push("`max_body_bytes` must be at least 1".to_owned());
        }
        if self.timeout.is_zero() {
            wrong.push("`timeout` must be longer than 0s".to_owned());
        }
        wrong
    }
}

/// The origin that `base_url` names, without a slash at its end.
fn origin(base_url: &str) -> Result<String, String> {
    let example = "such as `https://api.manus.ai`";
    // The text itself is shown only once it is known to hold no password.
    let url = Url::parse(base_url.trim())
        .map_err(|reason| format!("`base_url` is not a URL ({reason}): write an origin, {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("`base_url` must be an http or https origin, {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`base_url` must not hold a user name or a password: the key goes into `api_key`".to_owned());
    }
    let origin = url.origin().ascii_serialization();
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`base_url` must be an origin without a path: write `base_url = \"{origin}\"`"));
    }
    Ok(origin)
}

/// Whether `text` can stand in a path as it is: the unreserved characters of RFC 3986 §2.3, and not a step up or in place.
fn is_path_segment(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
}

/// One account: its settings and its API.
#[derive(Debug)]
pub struct Account {
    pub(super) config: Config,
    api: Api,
    pub(super) pinned: Vec<PublicKey>,
}

impl Account {
    pub(super) fn new(name: &str, config: &Config, clock: &Clock, budgets: &Budgets) -> Result<Self, Error> {
        let mut pinned = Vec::new();
        if let Some(path) = &config.public_key_file {
            let at = || (name.to_owned(), path.clone());
            let pem = std::fs::read_to_string(path).map_err(|cause| {
                let (name, path) = at();
                Error::KeyFile { name, path, cause }
            })?;
            pinned = PublicKey::all_from_pem(&pem).map_err(|cause| {
                let (name, path) = at();
                Error::Key { name, path, cause }
            })?;
        }
        Ok(Self { config: config.clone(), api: Api::new(config, clock, budgets), pinned })
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.api.budget
    }

    pub(super) async fn load_keys(&self) -> KeyAnswer {
        if !self.pinned.is_empty() || self.config.verify == Verify::None {
            return KeyAnswer { keys: self.pinned.clone(), ..KeyAnswer::default() };
        }
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
    }

    pub(super) async fn recent_tasks(&self) -> Result<Vec<Listed>, ApiError> {
        match self.config.api_version {
            ApiVersion::V1 => v1::recent_tasks(&self.api).await,
            ApiVersion::V2 => v2::recent_tasks(&self.api).await,
        }
    }

    pub(super) async fn probe(&self, task_id: &str) -> Result<Probe, ApiError> {
        let probe = match self.config.api_version {
            ApiVersion::V1 => v1::probe(&self.api, task_id).await?,
            ApiVersion::V2 => v2::probe(&self.api, task_id).await?,
        };
        match (probe, self.config.ownership) {
            (Probe::Visible, Ownership::Visible) => Ok(Probe::Ours { how: "visible" }),
            _ => Ok(probe),
        }
    }

    pub(super) async fn fetch(&self, task_id: &str) -> Result<Fetched, ApiError> {
        match self.config.api_version {
            ApiVersion::V1 => v1::fetch(&self.api, task_id).await,
            ApiVersion::V2 => v2::fetch(&self.api, task_id).await,
        }
    }

    pub(super) async fn create_task(&self, task: &NewTask) -> Result<Created, ApiError> {
        match self.config.api_version {
            ApiVersion::V1 => v1::create_task(&self.api, task).await,
            ApiVersion::V2 => v2::create_task(&self.api, task).await,
        }
    }

    pub(super) async fn webhooks_list(&self) -> Result<Vec<Webhook>, ApiError> {
        match self.config.api_version {
            ApiVersion::V1 => v1::webhooks_list(),
            ApiVersion::V2 => v2::webhooks_list(&self.api).await,
        }
    }

    pub(super) async fn webhooks_register(&self, url: &str) -> Result<Webhook, ApiError> {
        match self.config.api_version {
            ApiVersion::V1 => v1::webhooks_register(&self.api, url).await,
            ApiVersion::V2 => v2::webhooks_register(&self.api, url).await,
        }
    }

    pub(super) async fn webhooks_delete(&self, id: &str) -> Result<(), ApiError> {
        match self.config.api_version {
            ApiVersion::V1 => v1::webhooks_delete(&self.api, id).await,
            ApiVersion::V2 => v2::webhooks_delete(&self.api, id).await,
        }
    }
}
