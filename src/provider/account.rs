//! What a provider must be able to do: the one trait that a new one implements.
//!
//! Three verbs are every provider's own: whether to believe a request, what identifies its event, and what else the event says.
//! All others have an answer for a provider that has no API and signs with a secret of ours; one that has more says so.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{
    ApiError, Budget, Created, Expected, Kept, KeyAnswer, ListPage, Listed, Lost, NewTask, Probe, Reading, Recovered, Refusal,
    Request, Rounds, Standing, Webhook,
};
use crate::event::{Facts, Verification};
use crate::signature::rsa::PublicKey;
use crate::task::{Fetched, Stop};

/// What a verb comes to that asks the provider's API.
pub type Answered<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// One account of a provider, as [`Source`](super::Source) speaks to it. It knows nothing of `verify = "none"`: that is the
/// source's affair, and [`Account::verify`] is not asked then.
pub trait Account: fmt::Debug + Send + Sync {
    /// Decides whether to believe `request`. Pure: bytes, headers, time and keys in, a word out. `public_urls` are our configured
    /// base URLs without a slash at their end; `keys` those that the provider is known to sign with, see [`Account::is_keyed`].
    ///
    /// # Errors
    /// [`Refusal`], of the first thing that is wrong. A stale time is only told of a good signature.
    fn verify(&self, request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Result<Verification, Refusal>;

    /// Reads what identifies the event, from the whole request. Never fails: what is not known has the kind `unknown`.
    fn read(&self, request: &Request<'_>) -> Reading;

    /// Reads what else an event says, from what is kept of it; what identifies it stays as it was read at receipt.
    fn tell(&self, event: &Kept<'_>) -> Facts {
        event.bare()
    }

    /// For a request that was refused, off the request path: what would have made it good, with the value to set. Shows neither
    /// a path token nor a query. `None` if there is nothing to say.
    fn explain(&self, _: &Request<'_>, _public_urls: &[String], _keys: &[PublicKey]) -> Option<String> {
        None
    }

    /// The names, in lower case, of the headers beside the usual ones that hold a credential: their values are not kept.
    fn credential_headers(&self) -> &[String] {
        &[]
    }

    /// Whether the same event id with other content is an event of its own.
    fn collides(&self) -> bool {
        false
    }

    /// The types of event (ours, [`Facts::kind`]) that end a task, or a turn of it.
    fn ending(&self) -> &'static [&'static str] {
        &[]
    }

    /// How long the end of a task waits for earlier events of it.
    fn order_wait(&self) -> Duration {
        Duration::from_mins(5)
    }

    /// Whether requests are verified by keys of the provider's, which are asked of it, and not by a secret of ours.
    fn is_keyed(&self) -> bool {
        false
    }

    /// Such keys, from a file; where there are any, the provider is never asked for its own.
    fn pinned_keys(&self) -> &[PublicKey] {
        &[]
    }

    /// Asks for the keys that the provider signs with, and learns its time.
    fn load_keys(&self) -> BoxFuture<'_, KeyAnswer> {
        Box::pin(async { KeyAnswer::default() })
    }

    /// Whether a verified event may still be somebody else's, so that its task must be proven ours before anything is handed on.
    fn needs_proof(&self) -> bool {
        false
    }

    /// How long a task may stay unknown to the provider before its events are quarantined.
    fn quarantine_after(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether tasks that ended are fetched from the provider's API.
    fn fetches(&self) -> bool {
        self.budget().is_some()
    }

    /// How long the fetch of a task may wait before its event is handed on without it.
    fn fetch_patience(&self) -> Duration {
        Duration::from_mins(2)
    }

    /// How long the end of a task waits for background jobs of it.
    fn background_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// The calls that are left; `None` where there are none to make.
    fn budget(&self) -> Option<&Budget> {
        None
    }

    /// The newest tasks of the account, one page of at most 100.
    fn recent_tasks(&self) -> Answered<'_, Vec<Listed>> {
        unsupported("list", "this provider has no list of tasks")
    }

    /// How stops are found that no webhook told; `None` where they are not: a provider does not tell them, or may not be asked.
    fn reconcile(&self) -> Option<Rounds> {
        None
    }

    /// Why nothing is asked about tasks of which no webhook tells, and what that would need; `None` where it is, or cannot be.
    fn unasked(&self) -> Option<&'static str> {
        None
    }

    /// Whether the account's tasks can be listed. Where not, those that are known are asked for by themselves, and each of them ends once.
    fn lists(&self) -> bool {
        false
    }

    /// The id of a task in what a person told us to expect, and what else is needed to ask for it.
    fn locate<'a>(&self, told: &'a str) -> (&'a str, Option<&'a str>) {
        (told, None)
    }

    /// Asks for a task by itself, where tasks cannot be listed: its stops are those that it has come to.
    fn ask<'a>(&'a self, _task: &'a Expected) -> Answered<'a, Fetched> {
        unsupported("ask", "this provider's tasks are listed, or cannot be asked for")
    }

    /// A page of the account's tasks: those that were made or changed last, or those behind `cursor`.
    fn tasks<'a>(&'a self, _cursor: Option<&'a str>) -> Answered<'a, ListPage> {
        unsupported("list", "this provider has no list of tasks")
    }

    /// The ends of the newest turns of a task, the oldest first.
    fn stops<'a>(&'a self, _task_id: &'a str) -> Answered<'a, Vec<Stop>> {
        unsupported("stops", "this provider does not tell turns apart")
    }

    /// The task as it stood at the stop `anchor`, from the answers in `raw` ([`Fetched::raw`]); `None` where they do not show that.
    fn turn(&self, _task_id: &str, _raw: &Value, _anchor: &str) -> Option<Fetched> {
        None
    }

    /// The event that a webhook should have been; `None` for what is no stop.
    fn recovered(&self, _lost: &Lost<'_>) -> Option<Recovered> {
        None
    }

    /// Asks whether our key proves the task ours.
    fn probe<'a>(&'a self, _task_id: &'a str) -> Answered<'a, Probe> {
        unsupported("probe", "with this provider a good signature is the proof")
    }

    /// Fetches the task that `event` ended.
    fn fetch<'a>(&'a self, _task_id: &'a str, _event: &'a Kept<'a>) -> Answered<'a, Fetched> {
        unsupported("fetch", "tasks of this source are not fetched")
    }

    /// The task as `event`, which ended it, tells it, for a source that does not fetch; `None` where an event says too little.
    fn told(&self, _event: &Kept<'_>) -> Option<Fetched> {
        None
    }

    /// The kinds of task that can be told to be expected, see `taskhook tasks track`.
    fn kinds(&self) -> &'static [&'static str] {
        &["task"]
    }

    /// `shown`, a body or the beginning of one, without what people must not see; `None` where there is no such thing.
    fn mask(&self, _shown: &str) -> Option<String> {
        None
    }

    /// What the user pastes where the provider asks for the webhook at `url`, where that is more than the URL. It holds secrets.
    fn webhook_object(&self, _url: &str) -> Option<Value> {
        None
    }

    /// Whether a delivery is named by the `ref` in the URL that was handed out for it.
    fn takes_ref(&self) -> bool {
        false
    }

    /// Where a task stands at this moment; one call.
    fn standing<'a>(&'a self, _task_id: &'a str) -> Answered<'a, Standing> {
        unsupported("standing", "tasks of this provider take no answers")
    }

    /// Says `message` to a task that stands so.
    fn reply<'a>(&'a self, _task_id: &'a str, _standing: &'a Standing, _message: &'a str) -> Answered<'a, ()> {
        unsupported("reply", "tasks of this provider take no answers")
    }

    /// Confirms what a task waits for, by the provider's id of that. Says whether the provider took it for a consent.
    fn confirm<'a>(&'a self, _task_id: &'a str, _event_id: &'a str, _input: &'a Value) -> Answered<'a, bool> {
        unsupported("confirm", "tasks of this provider ask for no confirmation")
    }

    /// Stops a task.
    fn stop<'a>(&'a self, _task_id: &'a str) -> Answered<'a, ()> {
        unsupported("stop", "this provider has no call that stops a task")
    }

    /// Creates a task.
    fn create_task<'a>(&'a self, _task: &'a NewTask) -> Answered<'a, Created> {
        unsupported("create", "taskhook creates no tasks with this provider")
    }

    /// Whether webhooks can be registered through the API; else the user pastes the URL where the provider asks for it.
    fn registers(&self) -> bool {
        false
    }

    /// The webhooks that are registered.
    fn webhooks_list(&self) -> Answered<'_, Vec<Webhook>> {
        unsupported("webhooks", PASTE)
    }

    /// Registers `url`.
    fn webhooks_register<'a>(&'a self, _url: &'a str) -> Answered<'a, Webhook> {
        unsupported("webhooks", PASTE)
    }

    /// Deletes a webhook by the provider's id.
    fn webhooks_delete<'a>(&'a self, _id: &'a str) -> Answered<'a, ()> {
        unsupported("webhooks", PASTE)
    }
}

/// What to do where a provider has no call for it.
const PASTE: &str =
    "this provider has no API for webhooks: `taskhook webhooks url` prints the URL to paste where it asks for one";

fn unsupported<'a, T: Send + 'a>(call: &'static str, reason: &'static str) -> Answered<'a, T> {
    Box::pin(std::future::ready(Err(ApiError::Unsupported { call, reason })))
}
