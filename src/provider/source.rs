//! A source and its verbs: the one way in which the rest of the program speaks to a provider.

mod find;
mod registered;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

pub use self::registered::Registration;

use super::schema::Schema;
use super::{
    Account, ApiError, Budget, Budgets, Common, Config, Created, Error, Kept, KeyAnswer, Listed, NewTask, Probe, Reading,
    Refusal, Request, Standing, Start, Webhook,
};
use crate::clock::Clock;
use crate::event::{Facts, Verification, is_id};
use crate::setting::Secret;
use crate::signature::rsa::PublicKey;
use crate::task;

/// One configured account of a provider.
#[derive(Debug)]
pub struct Source {
    name: String,
    provider: &'static str,
    common: Common,
    max_body_bytes: usize,
    schema: Option<Schema>,
    account: Box<dyn Account>,
    /// For an account that makes no calls.
    no_budget: Budget,
}

impl Source {
    /// Builds the source `name` and reads the files that its configuration names.
    ///
    /// # Errors
    /// If one of them cannot be read or used.
    pub fn new(name: &str, config: &Config, clock: &Clock, budgets: &Budgets) -> Result<Self, Error> {
        let common = config.common.clone();
        let account = config.own.settings().account(&Start { name, common: &common, clock, budgets })?;
        Ok(Self {
            name: name.to_owned(),
            provider: config.provider(),
            max_body_bytes: config.max_body_bytes(),
            schema: common.schema_file.as_deref().map(|path| Schema::read(name, path)).transpose()?,
            common,
            account,
            // Whoever takes a place here is told that there is no such call, and is not kept waiting for that.
            no_budget: Budget::new(clock.clone(), 1_000_000),
        })
    }

    /// Its name, which is in the URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its provider's name.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        self.provider
    }

    /// Whether requests are verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.common.verifies()
    }

    /// Whether requests are verified by keys of the provider's, which are loaded, and not by a secret of ours.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.verifies() && self.account.is_keyed()
    }

    /// Whether tasks that ended are fetched from the provider's API.
    #[must_use]
    pub fn fetches(&self) -> bool {
        self.account.fetches()
    }

    /// Whether a verified event may still be somebody else's, so that its task must be proven ours before anything is handed on.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        self.account.needs_proof()
    }

    /// Whether the same event id with other content is an event of its own.
    #[must_use]
    pub fn collides(&self) -> bool {
        self.account.collides()
    }

    /// Whether an event of this type ([`Facts::kind`]) ends a task, or a turn of it: the task is then fetched.
    #[must_use]
    pub fn ends(&self, kind: &str) -> bool {
        self.account.ending().contains(&kind)
    }

    /// Whether the verification key comes from a file: then it is never asked for.
    #[must_use]
    pub fn pins_key(&self) -> bool {
        !self.pinned_keys().is_empty()
    }

    /// The verification keys from a file; where there are any, the provider is never asked for its own.
    #[must_use]
    pub fn pinned_keys(&self) -> &[PublicKey] {
        self.account.pinned_keys()
    }

    /// The most bytes of a body that are accepted.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        self.max_body_bytes
    }

    /// What its tasks should cost in a day at most, in credits.
    #[must_use]
    pub fn credits_per_day(&self) -> Option<f64> {
        self.common.credits_per_day
    }

    /// The path tokens, the first of which is printed and registered.
    #[must_use]
    pub fn path_tokens(&self) -> &[Secret] {
        &self.common.path_token
    }

    /// The names, in lower case, of the headers beside the usual ones that hold a credential: their values are not kept.
    #[must_use]
    pub fn credential_headers(&self) -> &[String] {
        self.account.credential_headers()
    }

    /// Whether requests may come from this address; `None` is one that is not known. See [`Source::allows_all`].
    #[must_use]
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        self.allows_all() || address.is_some_and(|address| self.common.allow_ips.iter().any(|range| range.contains(address)))
    }

    /// Whether requests may come from any address.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.common.allow_ips.is_empty()
    }

    /// Whether `body` fits the source's JSON Schema; `None` where it has none.
    #[must_use]
    pub fn is_valid(&self, body: &[u8]) -> Option<bool> {
        self.schema.as_ref().map(|schema| schema.fits(body))
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
        self.account.quarantine_after()
    }

    /// How long the fetch of a proven task may wait before its event is handed on without it.
    #[must_use]
    pub fn fetch_patience(&self) -> Duration {
        self.account.fetch_patience()
    }

    /// How long the end of a task waits for what is before it.
    #[must_use]
    pub fn order_wait(&self) -> Duration {
        self.account.order_wait()
    }

    /// How long the end of a task waits for background jobs of it.
    #[must_use]
    pub fn background_wait(&self) -> Duration {
        self.account.background_wait()
    }

    /// The calls that this account has left.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        self.account.budget().unwrap_or(&self.no_budget)
    }

    /// Decides whether to believe `request`. Pure. `public_urls` are our configured base URLs without a slash at their end;
    /// `keys` those that the provider is known to sign with.
    ///
    /// # Errors
    /// [`Refusal`], of the first thing that is wrong. A stale time is only told of a good signature.
    pub fn verify(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Result<Verification, Refusal> {
        if self.verifies() { self.account.verify(request, public_urls, keys) } else { Ok(Verification::None) }
    }

    /// For a request that was refused, off the request path: what would have made it good, with the value to set. Shows neither
    /// a path token nor a query. `None` if there is nothing to say.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Option<String> {
        if self.verifies() { self.account.explain(request, public_urls, keys) } else { None }
    }

    /// Reads what identifies an event. Never fails: a shape that is not known has the kind `unknown`. A task id that cannot be
    /// one is none.
    #[must_use]
    pub fn read(&self, request: &Request<'_>) -> Reading {
        let mut reading = self.account.read(request);
        reading.task_id = reading.task_id.filter(|id| is_id(id));
        reading
    }

    /// Reads what an event says. What identifies it is as it was read at receipt; the rest is read from its bytes, so a better
    /// reader also reads old events better.
    #[must_use]
    pub fn tell(&self, event: &Kept<'_>) -> Facts {
        event.identify(self.account.tell(event))
    }

    /// The task as `event`, which ended it, tells it, where tasks are not fetched; `None` where an event says too little.
    #[must_use]
    pub fn told(&self, event: &Kept<'_>) -> Option<task::Fetched> {
        self.account.told(event)
    }

    /// Asks for the keys that the provider signs with, and learns its time. A pinned key needs no call.
    ///
    /// Takes nothing from the budget: a check that waits for a key must not wait behind fetches, Manus counts no such limit, and
    /// whoever calls this does so at most once a minute.
    pub async fn load_keys(&self) -> KeyAnswer {
        if self.pins_key() || !self.is_keyed() {
            return KeyAnswer { keys: self.pinned_keys().to_vec(), ..KeyAnswer::default() };
        }
        self.account.load_keys().await
    }

    /// The newest tasks of this account, one page of at most 100. The caller has taken its place from [`Source::budget`] for
    /// [`Use::Prove`](super::Use::Prove) before: it must not wait for one while it holds jobs that others could do.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn recent_tasks(&self) -> Result<Vec<Listed>, ApiError> {
        self.account.recent_tasks().await
    }

    /// Asks whether our key proves the task ours. The caller has taken its place from [`Source::budget`] for [`Use::Prove`](super::Use::Prove).
    ///
    /// # Errors
    /// [`ApiError`]; only [`ApiError::NotFound`] speaks against it.
    pub async fn probe(&self, task_id: &str) -> Result<Probe, ApiError> {
        self.account.probe(task_id).await
    }

    /// Fetches the task that `event` ended, and its whole conversation. The caller has taken the place of the first call from
    /// [`Source::budget`] for [`Use::Fetch`](super::Use::Fetch), since only it knows how long to wait for that; what follows
    /// waits as long as it must.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn fetch(&self, task_id: &str, event: &Kept<'_>) -> Result<task::Fetched, ApiError> {
        let fetched = self.account.fetch(task_id, event).await?;
        // The event came after a state in which the task still runs: where it tells the task, it knows more.
        let told = if fetched.task.state == task::State::Running { self.account.told(event) } else { None };
        Ok(told.unwrap_or(fetched))
    }

    /// The kinds of task that can be told to be expected.
    #[must_use]
    pub fn kinds(&self) -> &'static [&'static str] {
        self.account.kinds()
    }

    /// `shown`, a body or the beginning of one, without what people must not see; `None` where there is no such thing.
    #[must_use]
    pub fn mask(&self, shown: &str) -> Option<String> {
        self.account.mask(shown)
    }

    /// What the user pastes where the provider asks for the webhook at `url`, where that is more than the URL. It holds secrets.
    #[must_use]
    pub fn webhook_object(&self, url: &str) -> Option<Value> {
        self.account.webhook_object(url)
    }

    /// Whether a delivery is named by the `ref` in the URL that was handed out for it.
    #[must_use]
    pub fn takes_ref(&self) -> bool {
        self.account.takes_ref()
    }

    /// Where a task stands at this moment; one call.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn standing(&self, task_id: &str) -> Result<Standing, ApiError> {
        self.account.standing(task_id).await
    }

    /// Says `message` to a task that stands so. It costs money, so never call it again for the same wish: see
    /// [`ApiError::outcome_unknown`]. The caller has taken its place from [`Source::budget`] for [`Use::Answer`](super::Use::Answer):
    /// what is written down before an answer is given must not wait for one.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn reply(&self, task_id: &str, standing: &Standing, message: &str) -> Result<(), ApiError> {
        self.account.reply(task_id, standing, message).await
    }

    /// Confirms what a task waits for, by the provider's id of that ([`task::Question::event_id`]). Says whether the provider took it
    /// for a consent. It may cost money, and the caller has taken its place, see [`Source::reply`].
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn confirm(&self, task_id: &str, event_id: &str, input: &Value) -> Result<bool, ApiError> {
        self.account.confirm(task_id, event_id, input).await
    }

    /// Stops a task. The caller has taken its place, see [`Source::reply`].
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn stop(&self, task_id: &str) -> Result<(), ApiError> {
        self.account.stop(task_id).await
    }

    /// Creates a task. It costs money, see [`Source::reply`].
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create_task(&self, task: &NewTask) -> Result<Created, ApiError> {
        self.account.create_task(task).await
    }

    /// Whether webhooks can be registered through the API; else the user pastes the URL where the provider asks for it.
    #[must_use]
    pub fn registers(&self) -> bool {
        self.account.registers()
    }

    /// The webhooks that are registered.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Unsupported`] where the API cannot tell (Manus v1).
    pub async fn webhooks_list(&self) -> Result<Vec<Webhook>, ApiError> {
        self.account.webhooks_list().await
    }

    /// Registers `url`. The provider calls it before it answers.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Rejected`] with 409 if it is registered already.
    pub async fn webhooks_register(&self, url: &str) -> Result<Webhook, ApiError> {
        self.account.webhooks_register(url).await
    }

    /// Deletes a webhook by the provider's id.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn webhooks_delete(&self, id: &str) -> Result<(), ApiError> {
        self.account.webhooks_delete(id).await
    }
}
