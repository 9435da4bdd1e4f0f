//! A source and its verbs: the one way in which the rest of the program speaks to a provider.

use std::time::Duration;

use super::{
    ApiError, Budget, Budgets, Config, Created, Error, KeyAnswer, Listed, NewTask, Probe, Reading, Refusal, Request, Webhook,
    manus,
};
use crate::clock::Clock;
use crate::event::Verification;
use crate::setting::Secret;
use crate::signature::rsa::PublicKey;
use crate::task;

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
        !self.pinned_keys().is_empty()
    }

    /// The verification keys from a file; where there are any, the provider is never asked for its own.
    #[must_use]
    pub fn pinned_keys(&self) -> &[PublicKey] {
        &self.manus().pinned
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
    /// [`Use::Prove`](super::Use::Prove) before: it must not wait for one while it holds jobs that others could do.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn recent_tasks(&self) -> Result<Vec<Listed>, ApiError> {
        self.manus().recent_tasks().await
    }

    /// Asks whether our key proves the task ours. The caller has taken its place from [`Source::budget`] for [`Use::Prove`](super::Use::Prove).
    ///
    /// # Errors
    /// [`ApiError`]; only [`ApiError::NotFound`] speaks against it.
    pub async fn probe(&self, task_id: &str) -> Result<Probe, ApiError> {
        self.manus().probe(task_id).await
    }

    /// Fetches a task and its whole conversation. The caller has taken the place of the first call from [`Source::budget`] for
    /// [`Use::Fetch`](super::Use::Fetch), since only it knows how long to wait for that; what follows waits as long as it must.
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
