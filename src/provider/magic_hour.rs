//! Magic Hour (<https://magichour.ai>): jobs that make videos, images and sound.
//!
//! Its webhooks are signed with a secret of ours, so a good signature is the proof that an event is ours. Facts are those of its
//! documentation: the key is the whole secret as text, although it begins with `whsec_`; an event has no id of its own, and its job's id
//! with its type is the one that is recommended; its payload is the job as the details call answers it, so without an `api_key`
//! the event is the whole result, and with one the job is fetched for links that have just been made. A job that is called off is
//! announced by no event, and there is no list of jobs: with the key, those that are known are asked for. A job ends once, so its last
//! status is what its end is known by.

mod explain;

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::account::Answered;
use super::content::Content;
use super::json::{items, member, name_in_url, number, text, time};
use super::rest::{Access, Judged, Reply, Rest, path_segment};
use super::settings::{Common, Settings};
use super::signed::{Encoding, Grammar, Key, Signed, TimestampAt, Verifier, Window};
use super::{ApiError, Budget, Error, Expected, Kept, Lost, Polls, Reading, Recovered, Refusal, Request, Rounds, Start};
use crate::event::{Attachment, Facts, TASK_STOPPED, UNKNOWN, Verification, body_id};
use crate::http::Answer;
use crate::setting::{List, Secret};
use crate::signature::hmac;
use crate::signature::rsa::PublicKey;
use crate::task::{Fetched, File, State, Stop, Task};

/// The keys that hold secrets.
pub(super) const SECRETS: &[&str] = &["api_key", "secret"];

/// The header with the signature, in hexadecimal.
const SIGNATURE: &str = "magic-hour-event-signature";
/// The header with the time of sending, in Unix seconds.
const TIMESTAMP: &str = "magic-hour-event-timestamp";
/// How a secret begins.
const PREFIX: &str = "whsec_";
/// How old a job must be to be asked for: many take less.
const AFTER: Duration = Duration::from_mins(2);
/// Where the API is.
const BASE_URL: &str = "https://api.magichour.ai";
/// What jobs make, and what becomes of them: every pair is a type of event.
const RESOURCES: [&str; 3] = ["video", "image", "audio"];
const ACTIONS: [&str; 3] = ["started", COMPLETED, ERRORED];
const COMPLETED: &str = "completed";
const ERRORED: &str = "errored";
/// The types of event that end a job; the last is ours, for a job that was called off.
const ENDING: [&str; 7] =
    ["video.completed", "video.errored", "image.completed", "image.errored", "audio.completed", "audio.errored", TASK_STOPPED];
/// The member of an event of ours that says what its job makes.
const MAKES: &str = "makes";

/// The keys of a `[sources.NAME]` section with `provider = "magic_hour"`, beside those that every source has.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// The secrets of the webhook, any of which may sign: whole, with their `whsec_`.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub secret: List<Secret>,
    /// How far the time of a request may be from ours, either way.
    #[serde(with = "humantime_serde")]
    pub tolerance: Duration,
    /// The key of the account; with it, jobs that ended are fetched for fresh links.
    pub api_key: Option<Secret>,
    /// Where the API is: an origin, without a path.
    pub base_url: String,
    /// The most calls in any minute, over all sources with the same key. Magic Hour names no limit.
    pub requests_per_minute: u32,
    /// How long the fetch of a job may wait before its event is handed on without it.
    #[serde(with = "humantime_serde")]
    pub fetch_patience: Duration,
    /// How long the end of a job waits for earlier events of it.
    #[serde(with = "humantime_serde")]
    pub order_wait: Duration,
    /// How ends are found that no webhook told.
    pub reconcile: Polls,
    /// The time limit of one call of the API.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            secret: List::default(),
            tolerance: Duration::from_mins(5),
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

    /// How requests are signed, with these keys.
    fn signed(&self, content: Content) -> Signed {
        let window = Window {
            at: TimestampAt::Header(TIMESTAMP.to_owned()),
            per_second: 1,
            tolerance: i64::try_from(self.tolerance.as_secs()).unwrap_or(i64::MAX),
        };
        Signed {
            header: SIGNATURE.to_owned(),
            grammar: Grammar::Plain { prefix: String::new() },
            encoding: Encoding::Hex,
            content,
            window: Some(window),
            keys: self.secret.iter().filter_map(|secret| key(secret.expose().trim().as_bytes())).collect(),
        }
    }
}

impl Settings for Config {
    fn check(&self, common: &Common) -> Vec<String> {
        let mut wrong = self.access().check();
        if self.secret.iter().any(Secret::is_empty) {
            wrong.push("`secret` is empty".to_owned());
        } else if self.secret.is_empty() && common.verifies() {
            wrong.push(
                "`secret` is missing: set it or `secret_file` to what the Developer Hub showed when the webhook was made; only \
                 `verify = \"none\"` does without"
                    .to_owned(),
            );
        }
        if self.tolerance < Duration::from_secs(1) {
            wrong.push("`tolerance` must be at least 1s".to_owned());
        }
        wrong.extend(self.reconcile.check());
        wrong
    }

    fn account(&self, start: &Start<'_>) -> Result<Box<dyn super::Account>, Error> {
        let content = Content::parse("{ts}.{body}", None).expect("the template is written here and has a body");
        let rest = self.api_key.is_some().then(|| Rest::new(&self.access(), start));
        Ok(Box::new(Account { config: self.clone(), signed: self.signed(content), rest }))
    }
}

/// A key of these bytes; none if there are none.
fn key(bytes: &[u8]) -> Option<Key> {
    let key = hmac::Key::new(hmac::Hash::Sha256, bytes)?;
    Some(Key { name: None, verifier: Verifier::Hmac(Box::new(key)) })
}

/// One account.
#[derive(Debug)]
struct Account {
    config: Config,
    signed: Signed,
    /// Where there is a key.
    rest: Option<Rest>,
}

impl super::Account for Account {
    fn verify(&self, request: &Request<'_>, _: &[String], _: &[PublicKey]) -> Result<Verification, Refusal> {
        self.signed.verify(request, &[]).map(|()| Verification::Signature)
    }

    fn explain(&self, request: &Request<'_>, _: &[String], _: &[PublicKey]) -> Option<String> {
        explain::explain(&self.signed, &self.config.secret, request)
    }

    fn read(&self, request: &Request<'_>) -> Reading {
        let event = Event::of(request.body);
        let kind = match (&event.provider_type, &event.job_id) {
            (Some(kind), Some(_)) if is_known(kind) => kind.clone(),
            _ => UNKNOWN.to_owned(),
        };
        let event_id = match (&event.job_id, &event.provider_type) {
            (Some(job), Some(kind)) => format!("{job}:{kind}"),
            _ => body_id(request.body),
        };
        Reading { event_id, kind, provider_type: event.provider_type, task_id: event.job_id, ..Reading::default() }
    }

    fn tell(&self, event: &Kept<'_>) -> Facts {
        let Event { payload, .. } = Event::of(event.body);
        let action = event.kind.rsplit_once('.').map(|(_, action)| action);
        Facts {
            title: text(&payload, &["name"]),
            message: error(&payload),
            stop_reason: match action {
                Some(COMPLETED) => reason(State::Finished),
                Some(ERRORED) => reason(State::Failed),
                // Ours, of which there is one.
                None if event.kind == TASK_STOPPED => reason(State::Canceled),
                _ => None,
            },
            attachments: files(&payload)
                .into_iter()
                .map(|file| Attachment { name: file.name, url: file.provider_url, size_bytes: None })
                .collect(),
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
        let told = || serde_json::from_slice::<Value>(event.body).ok().and_then(|body| resource(&text(&body, &[MAKES])?));
        Box::pin(self.details(task_id, resource(event.kind).or_else(told)))
    }

    fn reconcile(&self) -> Option<Rounds> {
        self.rest.is_some().then(|| self.config.reconcile.rounds(AFTER))
    }

    fn unasked(&self) -> Option<&'static str> {
        const WHY: &str =
            "without `api_key` nothing can be asked: a job of which no webhook tells is not found, nor one that was called off";
        self.rest.is_none().then_some(WHY)
    }

    fn ask<'a>(&'a self, task: &'a Expected) -> Answered<'a, Fetched> {
        Box::pin(self.details(&task.task_id, task.kind.as_deref().and_then(resource)))
    }

    fn recovered(&self, lost: &Lost<'_>) -> Option<Recovered> {
        let makes = resource(lost.expected?.kind.as_deref()?)?;
        let kind = match lost.stop.state {
            State::Finished => format!("{makes}.{COMPLETED}"),
            State::Failed => format!("{makes}.{ERRORED}"),
            _ => TASK_STOPPED.to_owned(),
        };
        let kind = ENDING.into_iter().find(|known| *known == kind)?;
        let payload: Value = serde_json::from_str(lost.raw).ok()?;
        let body = json!({"type": kind, "payload": payload, MAKES: makes, "may_repeat": lost.may_repeat});
        Some(Recovered { kind, body: body.to_string() })
    }

    fn told(&self, event: &Kept<'_>) -> Option<Fetched> {
        let Event { payload, job_id, .. } = Event::of(event.body);
        Some(convert(job_id?, &payload, payload.to_string()))
    }

    fn kinds(&self) -> &'static [&'static str] {
        &RESOURCES
    }
}

impl Account {
    /// Asks for a job that `makes` this.
    async fn details(&self, job_id: &str, makes: Option<&str>) -> Result<Fetched, ApiError> {
        let call = match makes {
            Some("video") => "GET /v1/video-projects/{id}",
            Some("image") => "GET /v1/image-projects/{id}",
            _ => "GET /v1/audio-projects/{id}",
        };
        let unsupported = |reason| ApiError::Unsupported { call, reason };
        let makes = makes.ok_or_else(|| unsupported("it is not known what the job makes"))?;
        let Some(rest) = &self.rest else {
            return Err(unsupported("this source has no `api_key`"));
        };
        // What cannot be an id is not the id of a job.
        let id = path_segment(job_id).ok_or(ApiError::NotFound { call })?;
        let path = format!("/v1/{makes}-projects/{id}");
        let request = rest.request(Method::GET, &path, "authorization", "Bearer ");
        let (reply, _) = rest.call(call, request, |answer, now| judge(call, answer, now)).await;
        let Reply { value, raw } = reply?;
        let nonsense = |reason: &str| ApiError::Nonsense { call, status: Some(200), reason: reason.to_owned() };
        match text(&value, &["id"]) {
            Some(about) if about == job_id => {}
            Some(_) => return Err(nonsense("it is about another job")),
            None => return Err(nonsense("it is no job")),
        }
        Ok(convert(job_id.to_owned(), &value, raw.trim().to_owned()))
    }
}

/// What an answer means. Magic Hour's errors are `{"message": "…"}`; only its own words for it say that there is no such job.
fn judge(call: &'static str, answer: &Answer, now: jiff::Timestamp) -> Result<Value, ApiError> {
    let value = serde_json::from_slice::<Value>(&answer.body).ok();
    let message = value.as_ref().and_then(|value| text(value, &["message"])).unwrap_or_default();
    let judged = Judged { call, answer, now, message, code: None };
    judged.by_status()?;
    let succeeded = answer.status.is_success();
    match value {
        Some(value) if succeeded => Ok(value),
        Some(_) if answer.status.as_u16() == 404 && judged.message.eq_ignore_ascii_case("not found") => Err(judged.not_found()),
        Some(_) if answer.status.as_u16() != 404 && !judged.message.is_empty() => Err(judged.rejected()),
        Some(_) => Err(judged.nonsense("it is not an error of this API")),
        None => Err(judged.nonsense("it is not JSON")),
    }
}

/// An event, taken apart.
struct Event {
    provider_type: Option<String>,
    job_id: Option<String>,
    payload: Value,
}

impl Event {
    fn of(body: &[u8]) -> Self {
        let mut event = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let provider_type = event.get("type").and_then(Value::as_str).filter(|kind| !kind.is_empty()).map(ToOwned::to_owned);
        let payload = event.get_mut("payload").map(Value::take).filter(Value::is_object).unwrap_or_default();
        let job_id = payload.get("id").and_then(Value::as_str).filter(|id| !id.trim().is_empty()).map(ToOwned::to_owned);
        Self { provider_type, job_id, payload }
    }
}

fn is_known(kind: &str) -> bool {
    resource(kind).is_some() && kind.split_once('.').is_some_and(|(_, action)| ACTIONS.contains(&action))
}

/// What a job of this kind makes, or the job of an event of this type.
fn resource(kind: &str) -> Option<&'static str> {
    let word = kind.split('.').next()?;
    RESOURCES.into_iter().find(|resource| *resource == word)
}

/// Why a job ended that stands so.
fn reason(state: State) -> Option<String> {
    state.stop_reason().map(ToOwned::to_owned)
}

/// A job in our words: what an event has as `payload`, and what the details call answers.
fn convert(id: String, of: &Value, raw: String) -> Fetched {
    let status = text(of, &["status"]);
    let state = match status.as_deref() {
        Some("queued" | "rendering") => State::Running,
        Some("complete") => State::Finished,
        Some("error") => State::Failed,
        Some("canceled") => State::Canceled,
        _ => State::Unknown,
    };
    let task = Task {
        id,
        title: text(of, &["name"]),
        state,
        stop_reason: reason(state),
        model: text(of, &["type"]),
        created_at: time(of, "created_at"),
        credits: number(of, "credits_charged"),
        complete: true,
        error: error(of),
        ..Task::default()
    };
    let stands_at = status.filter(|_| task.stop_reason.is_some());
    let end = |anchor: &String| Stop { anchor: anchor.clone(), state, at: None, text: task.error.clone() };
    Fetched { stops: stands_at.iter().map(end).collect(), stands_at, files: files(of), task, raw }
}

/// `code: message`, or what there is of it.
fn error(of: &Value) -> Option<String> {
    let error = member(of, &["error"])?;
    match (text(error, &["code"]), text(error, &["message"])) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message).or_else(|| text(of, &["error"])),
    }
}

/// What it made. A download has a link and nothing else: its name is the last part of that.
fn files(of: &Value) -> Vec<File> {
    let file = |download: &Value| {
        let url = text(download, &["url"])?;
        Some(File {
            name: name_in_url(&url).unwrap_or_else(|| "download".to_owned()),
            provider_url: Some(url),
            ..File::default()
        })
    };
    items(of, "downloads").iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests;
