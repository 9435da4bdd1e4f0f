//! Providers: the vendors whose webhooks and API we speak.
//!
//! A closed set of providers, each behind the same verbs of [`Source`]: verify a request, explain why one did not verify, read
//! an event, and ask the provider's API. Nothing behind this module knows any provider's words: what comes out are
//! [`event::Facts`] and [`task::Fetched`].
//!
//! What must hold: verifying and reading are pure and never panic, whatever bytes come; a source's key goes to its own
//! `base_url` and nowhere else; and no `Debug`, error or explanation shows a key or a path token.

pub mod budget;
pub mod error;
pub mod manus;

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize};

pub use budget::{Budget, Budgets, Use};
pub use error::ApiError;

use crate::clock::Clock;
use crate::event::{self, Verification};
use crate::setting::Secret;
use crate::signature::rsa::{KeyError, PublicKey};
use crate::task;

/// The names of the providers, for messages.
pub const PROVIDERS: &[&str] = &["manus"];

/// One `[sources.NAME]` section; its `provider` key says which.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum Config {
    /// <https://manus.im>
    Manus(manus::Config),
}

impl Config {
    /// Reads the section of a source of `provider`, without its `provider` key. What it says is then to be checked.
    ///
    /// # Errors
    /// For an unknown provider or key, and a value of the wrong type.
    pub fn parse<'de, D: Deserializer<'de>>(provider: &str, section: D) -> Result<Self, D::Error> {
        match provider {
            "manus" => manus::Config::deserialize(section).map(Self::Manus),
            other => Err(D::Error::unknown_variant(other, PROVIDERS)),
        }
    }

    /// Checks what the types do not: all that is wrong, each in a line that begins with its key.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        match self {
            Self::Manus(config) => config.check(),
        }
    }

    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        match self {
            Self::Manus(_) => "manus",
        }
    }

    /// The keys of `provider`'s section that hold secrets, each of which may come from a file (`x_file`).
    #[must_use]
    pub fn secrets(provider: &str) -> &'static [&'static str] {
        match provider {
            "manus" => manus::SECRETS,
            _ => &[],
        }
    }

    /// The most bytes of a body that are accepted.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        match self {
            Self::Manus(config) => config.max_body_bytes.bytes(),
        }
    }

    /// The path tokens, any of which opens the source; none means that the plain path does.
    #[must_use]
    pub fn path_tokens(&self) -> &[Secret] {
        match self {
            Self::Manus(config) => &config.path_token,
        }
    }

    /// Whether requests are verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        match self {
            Self::Manus(config) => config.verify == manus::Verify::Signature,
        }
    }
}

/// Why a source cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pinned key cannot be read.
    #[error("sources.{name}: cannot read `public_key_file` {}: {cause}", .path.display())]
    KeyFile {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The pinned key is none.
    #[error("sources.{name}: `public_key_file` {} is of no use: {cause}", .path.display())]
    Key {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: KeyError,
    },
}

/// A webhook request, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its exact bytes.
    pub body: &'a [u8],
    /// Path and query exactly as received, beginning with `/webhooks/`, a path token included.
    pub url_suffix: &'a str,
    /// When it was received.
    pub now: Timestamp,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The `event` member of the envelope.
    pub facts: event::Facts,
    /// Whether it is the provider's test request at registration.
    pub ping: bool,
}

/// Why a request was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// Whether the signature itself is good and only its time is not: then it may be our clock that is wrong.
    pub genuine: bool,
}

impl Refusal {
    /// Whether the fault may be ours: an old key, or a wrong clock. What is missing or malformed is so under every key.
    #[must_use]
    pub fn may_be_ours(&self) -> bool {
        matches!(self.kind, RefusalKind::SignatureInvalid | RefusalKind::TimestampStale)
    }

    /// A refusal of something that nothing speaks for.
    #[must_use]
    pub fn of(kind: RefusalKind) -> Self {
        Self { kind, genuine: false }
    }
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The signature header is not there.
    SignatureMissing,
    /// It is there more than once, is not Base64, or has the wrong length.
    SignatureMalformed,
    /// It is not the signature of this body for this URL by one of the keys.
    SignatureInvalid,
    /// The timestamp header is not there.
    TimestampMissing,
    /// It is there more than once, or is not a plain decimal number.
    TimestampMalformed,
    /// The signature is good, but its time is too far from ours.
    TimestampStale,
    /// The `Authorization` header is not the one that was agreed.
    AuthorizationInvalid,
}

impl RefusalKind {
    /// The `code` in the answer, the metrics and the list of rejections.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureInvalid => "signature_invalid",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampStale => "timestamp_stale",
            Self::AuthorizationInvalid => "authorization_invalid",
        }
    }
}

/// What came of asking for verification keys.
#[derive(Clone, Debug, Default)]
pub struct KeyAnswer {
    /// The keys that were found, each once; one is enough.
    pub keys: Vec<PublicKey>,
    /// How far the provider's clock is ahead of ours, by its `Date` header, to the second; negative if it is behind.
    pub skew: Option<SignedDuration>,
    /// Every call that failed.
    pub errors: Vec<ApiError>,
}

/// A task as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The provider's id.
    pub task_id: String,
    /// Where it stands. A list does not tell one that a person stopped from one that finished.
    pub state: task::State,
    /// Whether background jobs of its own still run.
    pub background: bool,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
    /// When the provider made it.
    pub created_at: Option<Timestamp>,
    /// When the provider last changed it.
    pub updated_at: Option<Timestamp>,
}

/// What our key says about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It is ours.
    Ours {
        /// What proves it, for people: `private`, `readable` or `visible`.
        how: &'static str,
    },
    /// Our key can read it, but so may others; that is no proof.
    Visible,
}

/// A task to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// What to do.
    pub prompt: String,
    /// The agent profile, such as `manus-1.6-lite`; the provider's default if there is none.
    pub profile: Option<String>,
}

/// A task that was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The provider's id.
    pub task_id: String,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
}

/// A webhook that is registered with the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// The provider's id, for deleting it.
    pub id: String,
    /// The registered URL; it may hold a path token.
    pub url: Option<String>,
    /// `active` or `inactive`, where the provider tells.
    pub status: Option<String>,
    /// When it was registered.
    #[serde(with = "crate::clock::optional")]
    pub created_at: Option<Timestamp>,
}

/// One configured account of a provider.
#[derive(Debug)]
pub struct Source {
    name: String,
    account: Account,
}

#[derive(Debug)]
enum Account {
    Manus(Box<manus::Account>),
}

impl Source {
    /// Builds the source `name` and reads its pinned key, if it has one.
    ///
    /// # Errors
    /// If `public_key_file` cannot be read or holds no key.
    pub fn new(name: &str, config: &Config, clock: &Clock, budgets: &Budgets) -> Result<Self, Error> {
        let account = match config {
            Config::Manus(config) => Account::Manus(Box::new(manus::Account::new(name, config, clock, budgets)?)),
        };
        Ok(Self { name: name.to_owned(), account })
    }

    /// Its name, which is in the URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its provider's name.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        match self.account {
            Account::Manus(_) => "manus",
        }
    }

    /// Whether requests are verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.manus().config.verify == manus::Verify::Signature
    }

    /// Whether tasks are fetched from the provider's API.
    #[must_use]
    pub fn fetches(&self) -> bool {
        self.manus().config.fetch == manus::Switch::On
    }

    /// Whether a verified event may still be somebody else's, so that its task must be proven ours before anything is handed on.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        // Manus signs for all its customers with one key; without its API nothing could be proven.
        self.fetches()
    }

    /// Whether the same event id with other content is an event of its own.
    #[must_use]
    pub fn collides(&self) -> bool {
        match self.account {
            Account::Manus(_) => true,
        }
    }

    /// Whether the verification key comes from a file: then it is never asked for.
    #[must_use]
    pub fn pins_key(&self) -> bool {
        !self.manus().pinned.is_empty()
    }

    /// The most bytes of a body that are accepted.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        self.manus().config.max_body_bytes.bytes()
    }

    /// The path tokens, the first of which is printed and registered.
    #[must_use]
    pub fn path_tokens(&self) -> &[Secret] {
        &self.manus().config.path_token
    }

    /// Whether a request whose path has `token` behind the source's name (or none) may come in. Takes the same time for every
    /// token of one length.
    #[must_use]
    pub fn opens(&self, token: Option<&str>) -> bool {
        match token.map(Secret::new) {
            None => self.path_tokens().is_empty(),
            // No early end: every token is compared.
            Some(token) => self.path_tokens().iter().fold(false, |open, ours| (*ours == token) | open),
        }
    }

    /// How long a task may stay unknown to the provider before its events are quarantined.
    #[must_use]
    pub fn quarantine_after(&self) -> Duration {
        self.manus().config.quarantine_after
    }

    /// How long the fetch of a proven task may wait before its event is handed on without it.
    #[must_use]
    pub fn fetch_patience(&self) -> Duration {
        self.manus().config.fetch_patience
    }

    /// How long a stop waits for what is before it.
    #[must_use]
    pub fn order_wait(&self) -> Duration {
        self.manus().config.order_wait
    }

    /// How long a stop waits for background jobs of its task.
    #[must_use]
    pub fn background_wait(&self) -> Duration {
        self.manus().config.background_wait
    }

    /// The calls that this account has left.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        self.manus().budget()
    }

    /// Decides whether to believe `request`. Pure. `public_urls` are our configured base URLs without a slash at their end;
    /// `keys` those that the provider is known to sign with.
    ///
    /// # Errors
    /// [`Refusal`], of the first thing that is wrong. A stale time is only told of a good signature.
    pub fn verify(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Result<Verification, Refusal> {
        match &self.account {
            Account::Manus(_) if !self.verifies() => Ok(Verification::None),
            Account::Manus(_) => manus::signature::verify(request, public_urls, keys).map(|()| Verification::Signature),
        }
    }

    /// For a request that was refused, off the request path: what would have made it good, with the value to set. Shows neither
    /// a path token nor a query. `None` if there is nothing to say.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Option<String> {
        match &self.account {
            Account::Manus(_) if !self.verifies() => None,
            Account::Manus(_) => manus::signature::explain(request, public_urls, keys),
        }
    }

    /// Reads an event. Never fails: a shape that is not known has the kind `unknown`.
    #[must_use]
    pub fn read(&self, body: &[u8]) -> Reading {
        match &self.account {
            Account::Manus(_) => manus::event::read(body),
        }
    }

    /// Asks for the keys that the provider signs with, and learns its time. A pinned key needs no call.
    ///
    /// Takes nothing from the budget: a check that waits for a key must not wait behind fetches, Manus counts no such limit, and
    /// whoever calls this does so at most once a minute.
    pub async fn load_keys(&self) -> KeyAnswer {
        self.manus().load_keys().await
    }

    /// The newest tasks of this account, one page of at most 100. The caller has taken its place from [`Source::budget`] for
    /// [`Use::Prove`] before: it must not wait for one while it holds jobs that others could do.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn recent_tasks(&self) -> Result<Vec<Listed>, ApiError> {
        self.manus().recent_tasks().await
    }

    /// Asks whether our key proves the task ours. The caller has taken its place from [`Source::budget`] for [`Use::Prove`].
    ///
    /// # Errors
    /// [`ApiError`]; only [`ApiError::NotFound`] speaks against it.
    pub async fn probe(&self, task_id: &str) -> Result<Probe, ApiError> {
        self.manus().probe(task_id).await
    }

    /// Fetches a task and its whole conversation.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn fetch(&self, task_id: &str) -> Result<task::Fetched, ApiError> {
        self.manus().fetch(task_id).await
    }

    /// Creates a task. It costs money, so never call it again for the same wish: see [`ApiError::outcome_unknown`].
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create_task(&self, task: &NewTask) -> Result<Created, ApiError> {
        self.manus().create_task(task).await
    }

    /// The webhooks that are registered.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Unsupported`] where the API cannot tell (Manus v1).
    pub async fn webhooks_list(&self) -> Result<Vec<Webhook>, ApiError> {
        self.manus().webhooks_list().await
    }

    /// Registers `url`. The provider calls it before it answers.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Rejected`] with 409 if it is registered already.
    pub async fn webhooks_register(&self, url: &str) -> Result<Webhook, ApiError> {
        self.manus().webhooks_register(url).await
    }

    /// Deletes a webhook by the provider's id.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn webhooks_delete(&self, id: &str) -> Result<(), ApiError> {
        self.manus().webhooks_delete(id).await
    }

    fn manus(&self) -> &manus::Account {
        match &self.account {
            Account::Manus(account) => account,
        }
    }
}
