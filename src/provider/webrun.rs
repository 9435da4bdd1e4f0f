//! WebRun (<https://webrun.ai>): tasks that a browser agent does.
//!
//! Its webhooks bear the `Authorization` value that was asked for, and are sent once: whoever misses one must ask for the task. Which
//! of the three shapes a body has is configured and never guessed, because of one of them, `ai_response`, every byte is the
//! agent's, and a page that the agent visited may have chosen it: nothing in it is an id, a type, or a reason to do anything.
//! Such a delivery is named by the `ref` in the URL that was handed out for it; without one it is an event of its own.
//!
//! Who knows a session's and a task's id can read the task, without a key. So the id of a session is shown to nobody: see [`mask()`].
//! There is no list of tasks: one that a person told us to expect, with the id of its session, is asked for once it must have ended, which
//! takes five minutes at most. A task ends once, so where it stands is what its end is known by.

mod mask;
mod task;

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::account::Answered;
use super::agreed::Agreed;
use super::json::text;
use super::rest::{Access, Judged, Reply, Rest, is_id, path_segment};
use super::settings::{Common, Settings};
use super::{
    ApiError, Budget, Error, Expected, Kept, Lost, Polls, Reading, Recovered, Refusal, Request, Rounds, Start, Switch, Verify,
};
use crate::event::{Attachment, Facts, TASK_FAILED, TASK_STOPPED, UNKNOWN, Verification, body_id};
use crate::http::Answer;
use crate::setting::{Secret, Secrets, Size};
use crate::signature::rsa::PublicKey;
use crate::task::{Fetched, State, Task};
use mask::{SESSION, masked};
use task::{answered, convert, said};

pub use mask::mask;

/// The keys that hold secrets.
pub(super) const SECRETS: &[&str] = &["api_key", "authorization"];

/// The only type that is documented.
const TASK_COMPLETED: &str = "task_completed";
/// The types of event that end a task; but for the first they are ours, for what no webhook is documented of.
const ENDING: [&str; 3] = [TASK_COMPLETED, TASK_STOPPED, TASK_FAILED];
/// How old a task must be to be asked for: none takes longer than five minutes.
const AFTER: Duration = Duration::from_mins(6);
/// Where the API is.
const BASE_URL: &str = "https://connect.webrun.ai";
/// The call that tells of a task.
const TASK: &str = "GET /task/{sessionId}/{taskId}";

/// The keys of a `[sources.NAME]` section with `provider = "webrun"`, beside those that every source has.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// The whole values of the `Authorization` header, scheme included, any of which will do.
    #[serde(skip_serializing_if = "<[Secret]>::is_empty")]
    pub authorization: Secrets,
    /// The shape of the bodies: what the webhook's `submittedData` says. There is no default.
    pub payload: Option<Payload>,
    /// The form of the answers: what `outputType` says.
    pub output: Output,
    /// Whether tasks that ended are fetched.
    pub fetch: Switch,
    /// The key of the account; fetching needs none by the documentation, and sends it where there is one.
    pub api_key: Option<Secret>,
    /// Where the API is: an origin, without a path.
    pub base_url: String,
    /// The most calls in any minute, over all sources with the same key. WebRun names no limit for fetching.
    pub requests_per_minute: u32,
    /// How long the fetch of a task may wait before its event is handed on without it.
    #[serde(with = "humantime_serde")]
    pub fetch_patience: Duration,
    /// How long the end of a task waits for earlier events of it.
    #[serde(with = "humantime_serde")]
    pub order_wait: Duration,
    /// How ends are found that no webhook told.
    pub reconcile: Polls,
    /// The time limit of one call of the API.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// The shape of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The answer with ids and usage.
    FullResponse,
    /// The answer alone: any bytes.
    AiResponse,
    /// Ids alone.
    JustPing,
}

impl Payload {
    fn word(self) -> &'static str {
        match self {
            Self::FullResponse => "full_response",
            Self::AiResponse => "ai_response",
            Self::JustPing => "just_ping",
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// Markdown.
    Text,
    /// JSON: one that can be read becomes the structured output.
    Json,
    /// CSV.
    Csv,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            authorization: Secrets::default(),
            payload: None,
            output: Output::Text,
            fetch: Switch::Off,
            api_key: None,
            base_url: BASE_URL.to_owned(),
            requests_per_minute: 60,
            fetch_patience: Duration::from_mins(2),
            order_wait: Duration::from_mins(5),
            reconcile: Polls::after(AFTER),
            timeout: Duration::from_secs(10),
        }
    }
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

    /// The agreed values. White space around a header's value is not part of it.
    fn values(&self) -> impl Iterator<Item = Secret> {
        self.authorization.iter().map(|value| Secret::new(value.expose().trim()))
    }
}

impl Settings for Config {
    fn max_body_bytes(&self) -> Size {
        Size(16 << 20)
    }

    fn verify(&self) -> Verify {
        Verify::Authorization
    }

    fn check(&self, common: &Common) -> Vec<String> {
        let mut wrong = self.access().check();
        if self.authorization.iter().any(Secret::is_empty) {
            wrong.push("`authorization` is empty".to_owned());
        } else if self.values().any(|value| !value.expose().bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
            wrong.push("`authorization` holds a character that no header can hold".to_owned());
        } else if self.authorization.is_empty() && common.verifies() {
            wrong.push(
                "`authorization` is missing: choose a value such as `Bearer` and a long random word, set it or `authorization_file`, and \
                 give it to WebRun as the webhook's `auth`; only `verify = \"none\"` does without"
                    .to_owned(),
            );
        }
        match self.payload {
            None => wrong.push(
                "`payload` is missing: write what the webhook's `submittedData` says, \"full_response\", \"ai_response\" or \"just_ping\""
                    .to_owned(),
            ),
            Some(Payload::AiResponse) if self.fetch == Switch::On => wrong.push(
                "`fetch = \"on\"` needs a `payload` with ids: an `ai_response` does not say which task it is of".to_owned(),
            ),
            Some(_) => {}
        }
        wrong.extend(self.reconcile.check());
        wrong
    }

    fn account(&self, start: &Start<'_>) -> Result<Box<dyn super::Account>, Error> {
        Ok(Box::new(Account {
            agreed: Agreed::new("authorization", self.values()),
            payload: self.payload.unwrap_or(Payload::FullResponse),
            rest: (self.fetch == Switch::On).then(|| Rest::new(&self.access(), start)),
            config: self.clone(),
        }))
    }
}

/// One account.
#[derive(Debug)]
struct Account {
    config: Config,
    agreed: Agreed,
    payload: Payload,
    /// Where tasks are fetched.
    rest: Option<Rest>,
}

impl super::Account for Account {
    fn verify(&self, request: &Request<'_>, _: &[String], _: &[PublicKey]) -> Result<Verification, Refusal> {
        self.agreed.verify(request.headers).map(|()| Verification::Authorization)
    }

    fn explain(&self, request: &Request<'_>, _: &[String], _: &[PublicKey]) -> Option<String> {
        Some(format!("{}; it is the webhook's `auth`, which WebRun sends as it is", self.agreed.explain(request.headers)))
    }

    fn read(&self, request: &Request<'_>) -> Reading {
        let known = |event_id, task_id| Reading { event_id, kind: TASK_COMPLETED.to_owned(), task_id, ..Reading::default() };
        if self.payload == Payload::AiResponse {
            // That it came is all that it says.
            return match reference(request.url_suffix) {
                Some(reference) => known(reference.clone(), Some(reference)),
                // Nothing tells a repeat from a task that had the same answer: a lost one would be worse than one too many.
                None => known(Uuid::now_v7().to_string(), None),
            };
        }
        let body = serde_json::from_slice::<Value>(request.body).ok().filter(Value::is_object).unwrap_or_default();
        let kind = text(&body, &[if self.payload == Payload::JustPing { "event" } else { "type" }]);
        match (text(&body, &["taskId"]), kind) {
            (Some(task), Some(kind)) if kind == TASK_COMPLETED => {
                Reading { provider_type: Some(kind), ..known(format!("{task}:{TASK_COMPLETED}"), Some(task)) }
            }
            (task_id, provider_type) => Reading {
                event_id: match (&task_id, &provider_type) {
                    (Some(task), Some(kind)) => format!("{task}:{kind}"),
                    _ => body_id(request.body),
                },
                kind: UNKNOWN.to_owned(),
                provider_type,
                task_id,
                ..Reading::default()
            },
        }
    }

    fn tell(&self, event: &Kept<'_>) -> Facts {
        let ended = ENDING.contains(&event.kind);
        let Some(Fetched { task, files, stops, .. }) = self.told(event).filter(|_| ended) else { return Facts::default() };
        Facts {
            message: said(&task).or_else(|| stops.into_iter().find_map(|stop| stop.text)),
            question: task.question,
            stop_reason: task.stop_reason,
            attachments: files
                .into_iter()
                .map(|file| Attachment { name: file.name, url: file.provider_url, size_bytes: file.size_bytes })
                .collect(),
            structured_output: task.structured_output,
            ..Facts::default()
        }
    }

    fn ending(&self) -> &'static [&'static str] {
        &ENDING
    }

    fn order_wait(&self) -> Duration {
        self.config.order_wait
    }

    fn budget(&self) -> Option<&Budget> {
        self.rest.as_ref().map(|rest| &*rest.budget)
    }

    fn fetch_patience(&self) -> Duration {
        self.config.fetch_patience
    }

    fn fetch<'a>(&'a self, task_id: &'a str, event: &'a Kept<'a>) -> Answered<'a, Fetched> {
        let session = serde_json::from_slice::<Value>(event.body).ok().and_then(|body| text(&body, &[SESSION]));
        Box::pin(self.poll(task_id, session))
    }

    fn reconcile(&self) -> Option<Rounds> {
        self.rest.is_some().then(|| self.config.reconcile.rounds(AFTER))
    }

    fn locate<'a>(&self, told: &'a str) -> (&'a str, Option<&'a str>) {
        told.split_once('/').map_or((told, None), |(session, task)| (task, Some(session)))
    }

    fn unasked(&self) -> Option<&'static str> {
        const WHY: &str =
            "with `fetch = \"off\"` nothing is asked: a task of which no webhook tells is not found, and each is sent once";
        self.rest.is_none().then_some(WHY)
    }

    fn ask<'a>(&'a self, task: &'a Expected) -> Answered<'a, Fetched> {
        Box::pin(async {
            match &task.locator {
                Some(session) => self.poll(&task.task_id, Some(session.clone())).await,
                None => Err(ApiError::Unsupported { call: TASK, reason: "the id of its session is not known" }),
            }
        })
    }

    fn recovered(&self, lost: &Lost<'_>) -> Option<Recovered> {
        let expected = lost.expected?;
        let kind = match lost.stop.state {
            State::Finished => TASK_COMPLETED,
            State::Failed => TASK_FAILED,
            _ => TASK_STOPPED,
        };
        let mut body = serde_json::from_str::<Value>(lost.raw).ok().filter(Value::is_object)?;
        // As a webhook has them; in the answer they are hidden, or not there.
        body[SESSION] = expected.locator.clone()?.into();
        body["taskId"] = expected.task_id.clone().into();
        body["may_repeat"] = lost.may_repeat.into();
        Some(Recovered { kind, body: body.to_string() })
    }

    fn told(&self, event: &Kept<'_>) -> Option<Fetched> {
        let id = event.task_id.unwrap_or_default().to_owned();
        if self.payload == Payload::AiResponse {
            let raw = serde_json::from_slice::<Value>(event.body).unwrap_or_else(|_| String::from_utf8_lossy(event.body).into());
            // The framing of text and CSV is not documented: bare, or as a string of JSON.
            let message = raw.as_str().map_or_else(|| String::from_utf8_lossy(event.body).into_owned(), ToOwned::to_owned);
            let task = Task { id, complete: true, ..answered(self.config.output, message, State::Finished) };
            return Some(Fetched { task, files: Vec::new(), raw: raw.to_string(), ..Fetched::default() });
        }
        let body = serde_json::from_slice::<Value>(event.body).ok()?;
        Some(convert(self.config.output, id, &body))
    }

    fn mask(&self, shown: &str) -> Option<String> {
        (self.payload != Payload::AiResponse).then(|| mask(shown))
    }

    fn webhook_object(&self, url: &str) -> Option<Value> {
        let auth = self.values().next();
        let mut webhook = json!({"name": "taskhook", "url": url});
        if let Some(auth) = auth {
            webhook["auth"] = auth.expose().into();
        }
        webhook["submittedData"] = self.payload.word().into();
        Some(webhook)
    }

    fn takes_ref(&self) -> bool {
        self.payload == Payload::AiResponse
    }
}

impl Account {
    fn values(&self) -> impl Iterator<Item = Secret> {
        self.config.values()
    }

    /// Asks for a task, as its session's id and its own name it.
    async fn poll(&self, task_id: &str, session: Option<String>) -> Result<Fetched, ApiError> {
        let Some(rest) = &self.rest else {
            return Err(ApiError::Unsupported { call: TASK, reason: "this source has `fetch = \"off\"`" });
        };
        let session = session.filter(|session| is_id(session)).ok_or(ApiError::NotFound { call: TASK })?;
        let segment = |id: &str| path_segment(id).ok_or(ApiError::NotFound { call: TASK });
        let path = format!("/task/{}/{}", segment(&session)?, segment(task_id)?);
        let request = rest.request(Method::GET, &path, "authorization", "Bearer ");
        let (reply, _) = rest.call(TASK, request, |answer, now| judge(answer, now, &session)).await;
        let Reply { value, raw } = reply?;
        if text(&value, &["taskId"]).is_some_and(|about| about != task_id) {
            let reason = "it is about another task".to_owned();
            return Err(ApiError::Nonsense { call: TASK, status: Some(200), reason });
        }
        let fetched = convert(self.config.output, task_id.to_owned(), &value);
        Ok(Fetched { raw: mask(&raw).replace(&session, &masked(&session)), ..fetched })
    }
}

/// What an answer means; a task that failed is an answer and no error. Whatever is repeated of it names no session.
fn judge(answer: &Answer, now: jiff::Timestamp, session: &str) -> Result<Value, ApiError> {
    let value = serde_json::from_slice::<Value>(&answer.body).ok();
    let envelope = value.as_ref().filter(|value| value.is_object());
    let message = envelope.and_then(|envelope| text(envelope, &["error", "message"])).unwrap_or_default();
    let message = message.replace(session, &masked(session));
    let code = envelope.and_then(|envelope| text(envelope, &["code"]));
    let judged = Judged { call: TASK, answer, now, message, code };
    judged.by_status()?;
    let of_theirs = envelope.is_some_and(|envelope| envelope.get("success").is_some_and(Value::is_boolean));
    match (value, answer.status.as_u16()) {
        (None, _) => Err(judged.nonsense("it is not JSON")),
        (Some(value), 200..=299) if of_theirs || value.get("type").is_some() || value.get("status").is_some() => Ok(value),
        (Some(_), 404) if of_theirs => Err(judged.not_found()),
        (Some(_), 400..=499) if of_theirs => Err(judged.rejected()),
        (Some(_), _) => Err(judged.nonsense("it is no answer of this API")),
    }
}

/// The `ref` of the URL that was sent to.
fn reference(url_suffix: &str) -> Option<String> {
    let (_, query) = url_suffix.split_once('?')?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "ref").map(|(_, value)| value.into_owned()).filter(|reference| is_id(reference))
}

#[cfg(test)]
mod tests;
