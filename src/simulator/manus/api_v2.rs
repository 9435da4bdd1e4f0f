//! Version 2: `GET` and `POST` of `/v2/{group.method}`, every answer in an envelope with `ok` and `request_id`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State as Extract};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::core::Model as _;
use super::Shared;
use super::api::{Class, Code, MAX_TEXT, Problem, Query, text};
use super::lag::Seen;
use super::script::Plan;
use super::state::{NewTask, State, Status, Task, Webhook};

/// Entries of a conversation that only `verbose` shows.
const VERBOSE: [&str; 4] = ["tool_used", "plan_update", "new_plan_step", "explanation"];

/// The key of a call; `None` as well if it comes in both headers, which is not allowed.
pub(super) fn key(headers: &HeaderMap) -> Option<String> {
    let bearer = text(headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    match (text(headers, "x-manus-api-key"), bearer) {
        (Some(key), None) | (None, Some(key)) => Some(key.to_owned()),
        _ => None,
    }
}

pub(super) async fn serve(
    Extract(shared): Extract<Arc<Shared>>,
    Path(call): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let result = answer(&shared, &method, &call, &Query::of(query.as_deref()), &headers, &body).await;
    let mut state = shared.lock();
    let request_id = format!("req_{}", state.new_id());
    match result {
        Ok(mut value) => {
            value["ok"] = true.into();
            value["request_id"] = request_id.into();
            state.freshen(&mut value, shared.options.numbers_as_strings);
            Json(value).into_response()
        }
        Err(Problem { code, message }) => {
            let error = json!({"code": code.word(), "message": message});
            (code.status(), Json(json!({"ok": false, "request_id": request_id, "error": error}))).into_response()
        }
    }
}

async fn answer(
    shared: &Shared,
    method: &Method,
    call: &str,
    query: &Query,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, Problem> {
    let (verb, class) = match call {
        "webhook.publicKey" => (Method::GET, None),
        "webhook.list" | "task.detail" | "task.list" | "task.listMessages" => (Method::GET, Some(Class::Read)),
        "task.create" | "task.sendMessage" => (Method::POST, Some(Class::Create)),
        "webhook.create" | "webhook.delete" | "task.confirmAction" | "task.stop" | "task.delete" => {
            (Method::POST, Some(Class::Change))
        }
        _ => return Err(Code::NotFound.because(format!("no such method: {call}"))),
    };
    if *method != verb {
        return Err(Code::MethodNotAllowed.because(format!("{call} is called with {verb}")));
    }
    let account = {
        let mut state = shared.lock();
        let account = state.authenticate(key(headers).as_deref())?;
        if let Some(class) = class {
            state.count(account, class, shared.options.limits)?;
        }
        account
    };
    let body = if verb == Method::POST { object(body)? } else { Map::new() };
    if call == "webhook.create" {
        return create_webhook(shared, account, &body).await;
    }
    let mut state = shared.lock();
    match call {
        "webhook.publicKey" => Ok(json!({"public_key": state.key.public_pem(), "algorithm": "RSA-SHA256"})),
        "webhook.list" => Ok(json!({"data": state.accounts[account].webhooks.iter().map(webhook_view).collect::<Vec<_>>()})),
        "webhook.delete" => state.delete_webhook(account, required(&body, "webhook_id")?).map(|()| json!({})),
        "task.detail" => {
            let number = state.readable(account, query.required("task_id")?)?;
            let seen = task_view(state.seen(number));
            if let Some(task) = state.task(number)
                && task.status == Status::Stopped
            {
                task.background = task.background.map(|left| left.saturating_sub(1));
            }
            Ok(json!({"task": seen}))
        }
        "task.list" => list(&state, account, query),
        "task.listMessages" => messages(&state, account, query),
        "task.create" => {
            let made = create(shared, &mut state, account, &body);
            shared.wake.notify_one();
            made
        }
        "task.sendMessage" => {
            let number = state.owned(account, required(&body, "task_id")?)?;
            let said = message(&body)?;
            if !state.say(number, &said) {
                return Err(Code::InvalidArgument.because("the task takes no more messages"));
            }
            shared.wake.notify_one();
            Ok(json!({"task_id": state.tasks[&number].id}))
        }
        "task.confirmAction" => {
            let number = state.owned(account, required(&body, "task_id")?)?;
            let input = body.get("input").unwrap_or(&Value::Null);
            let confirmed = state.confirm(number, required(&body, "event_id")?, input);
            shared.wake.notify_one();
            let confirmed = confirmed.ok_or_else(|| Code::InvalidArgument.because("the task does not wait for this event"))?;
            Ok(json!({"task_id": state.tasks[&number].id, "confirmed": confirmed}))
        }
        "task.stop" => {
            let number = state.owned(account, required(&body, "task_id")?)?;
            state.stop(number);
            Ok(json!({}))
        }
        _ => {
            let id = required(&body, "task_id")?;
            let number = state.owned(account, id)?;
            if state.tasks[&number].status == Status::Running {
                return Err(Code::InvalidArgument.because("stop the task first"));
            }
            state.remove(number);
            Ok(json!({"id": id, "deleted": true}))
        }
    }
}

impl State {
    /// A task that this account may change; one of another account is as unknown as one that never was.
    pub(super) fn owned(&self, account: usize, id: &str) -> Result<u64, Problem> {
        let number = self.number(id).filter(|number| self.tasks[number].account == account);
        number.ok_or_else(|| Code::NotFound.because("task not found or does not belong to user"))
    }

    /// A task that this account may read in v2: its own, or a public one. (v1's refusal, as observed, speaks of belonging.)
    pub(super) fn readable(&self, account: usize, id: &str) -> Result<u64, Problem> {
        let public = self.number(id).filter(|number| self.tasks[number].visibility == "public");
        public.map_or_else(|| self.owned(account, id), Ok)
    }

    pub(super) fn delete_webhook(&mut self, account: usize, id: &str) -> Result<(), Problem> {
        let webhooks = &mut self.accounts[account].webhooks;
        let at = webhooks.iter().position(|webhook| webhook.id == id);
        webhooks.remove(at.ok_or_else(|| Code::NotFound.because("webhook not found"))?);
        Ok(())
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(body).map_err(|_| Code::InvalidArgument.because("the body must be a JSON object"))
}

fn required<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a str, Problem> {
    let value = body.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    value.ok_or_else(|| Code::InvalidArgument.because(format!("{name} is required")))
}

/// The text of `message`: `content` is a string, or parts of which the texts count.
fn message(body: &Map<String, Value>) -> Result<String, Problem> {
    let content = body.get("message").and_then(|message| message.get("content"));
    let said = match content {
        Some(Value::String(said)) => said.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => return Err(Code::InvalidArgument.because("message.content is required")),
    };
    if said.trim().is_empty() {
        return Err(Code::InvalidArgument.because("message.content is empty"));
    }
    if said.chars().count() > MAX_TEXT {
        return Err(Code::InvalidArgument.because("message.content is longer than 5000 tokens"));
    }
    Ok(said)
}

async fn create_webhook(shared: &Shared, account: usize, body: &Map<String, Value>) -> Result<Value, Problem> {
    let webhook = register(shared, account, required(body, "url")?).await?;
    Ok(json!({"webhook": webhook_view(&webhook)}))
}

/// Registers a webhook once it answered the test request with 200.
pub(super) async fn register(shared: &Shared, account: usize, url: &str) -> Result<Webhook, Problem> {
    if !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Err(Code::InvalidArgument.because("url must be an HTTP address"));
    }
    let known = |state: &State| state.accounts[account].webhooks.iter().any(|webhook| webhook.url == url);
    if known(&shared.lock()) {
        return Err(Code::AlreadyExists.because("webhook already exists"));
    }
    let tried = shared.ping(account, url).await;
    if tried.status != Some(200) {
        let outcome = tried.status.map_or_else(|| tried.error.unwrap_or_default(), |status| format!("status {status}"));
        return Err(Code::InvalidArgument.because(format!("the webhook did not answer the test request with 200: {outcome}")));
    }
    let mut state = shared.lock();
    if known(&state) {
        return Err(Code::AlreadyExists.because("webhook already exists"));
    }
    Ok(state.add_webhook(account, url))
}

fn webhook_view(webhook: &Webhook) -> Value {
    json!({"id": webhook.id, "url": webhook.url, "status": "active", "created_at": webhook.created_at})
}

fn create(shared: &Shared, state: &mut State, account: usize, body: &Map<String, Value>) -> Result<Value, Problem> {
    let prompt = message(body)?;
    let word = |name: &str| body.get(name).and_then(Value::as_str);
    let mut plan = Plan::of_prompt(&prompt, shared.options.pace);
    if let Some(visibility) = word("share_visibility") {
        if !["private", "team", "public"].contains(&visibility) {
            return Err(Code::InvalidArgument.because("share_visibility must be private, team or public"));
        }
        plan = plan.visible_to(visibility);
    }
    plan.hidden = body.get("hide_in_task_list") == Some(&Value::Bool(true));
    let profile = match word("agent_profile") {
        None | Some("standard" | "manus-1.6") => "manus-1.6",
        Some("lite" | "manus-1.6-lite") => "manus-1.6-lite",
        Some("max" | "manus-1.6-max") => "manus-1.6-max",
        Some(_) => return Err(Code::InvalidArgument.because("unknown agent_profile")),
    };
    let title = word("title").map(ToOwned::to_owned);
    let number = state.create(account, NewTask { prompt, title, profile: profile.to_owned(), plan });
    let task = &state.tasks[&number];
    let mut made = json!({
        "task_id": task.id, "task_title": task.title, "task_url": task.url(), "share_visibility": task.visibility,
    });
    if task.visibility != "private" {
        made["share_url"] = format!("https://manus.im/share/{}", task.id).into();
    }
    Ok(made)
}

fn task_view(seen: Seen<'_>) -> Value {
    let task = seen.task;
    let mut view = json!({
        "id": task.id,
        "status": seen.status.v2(),
        "created_at": task.created_at.as_second(),
        "updated_at": seen.updated_at.as_second(),
        "task_type": "standard",
        "share_visibility": task.visibility,
        "title": task.title,
        "task_url": task.url(),
        "created_by_api_key": {"id": format!("key-{}", task.account + 1), "name": "default"},
        "agent_profile": task.profile,
    });
    if task.credits > 0 {
        view["credit_usage"] = task.credits.into();
    }
    if let Some(left) = task.background {
        view["has_running_background_jobs"] = (left > 0 && seen.status == Status::Stopped).into();
    }
    view
}

fn list(state: &State, account: usize, query: &Query) -> Result<Value, Problem> {
    let (limit, newest_first) = (query.limit(20, 100)?, query.newest_first()?);
    match query.text("scope") {
        None | Some("all" | "standard") => {}
        Some("project") => query.required("project_id").map(drop)?,
        Some("agent_subtask") => query.required("agent_id").map(drop)?,
        Some(_) => return Err(Code::InvalidArgument.because("unknown scope")),
    }
    let standard = query.text("scope").is_none_or(|scope| ["all", "standard"].contains(&scope));
    let listed = |task: &Task| standard && task.account == account && !task.hidden;
    let numbers: Vec<u64> = state.tasks.iter().filter(|(_, task)| listed(task)).map(|(number, _)| *number).collect();
    let (page, next) = page(&numbers, limit, newest_first, cursor(query)?);
    let data: Vec<Value> = page.iter().map(|number| task_view(state.seen(*number))).collect();
    Ok(with_next(json!({"data": data}), next))
}

fn messages(state: &State, account: usize, query: &Query) -> Result<Value, Problem> {
    let number = state.readable(account, query.required("task_id")?)?;
    let (limit, newest_first) = (query.limit(50, 200)?, query.newest_first()?);
    let verbose = query.text("verbose") == Some("true");
    let Seen { task, entries, .. } = state.seen(number);
    let shown = |entry: &Value| verbose || !VERBOSE.iter().any(|kind| entry["type"] == *kind);
    let shown = entries.iter().enumerate().filter(|(_, entry)| shown(entry));
    let positions: Vec<u64> = shown.map(|(position, _)| position as u64).collect();
    let (page, next) = page(&positions, limit, newest_first, cursor(query)?);
    let entry = |position: &u64| usize::try_from(*position).ok().and_then(|position| entries.get(position)).cloned();
    let messages: Vec<Value> = page.iter().filter_map(entry).collect();
    Ok(with_next(json!({"task_id": task.id, "messages": messages}), next))
}

/// A page of `all` (rising numbers) after `cursor`, and the cursor of the next. What is added meanwhile moves nothing.
pub(super) fn page(all: &[u64], limit: usize, newest_first: bool, cursor: Option<u64>) -> (Vec<u64>, Option<u64>) {
    let mut rest: Vec<u64> = if newest_first {
        all.iter().rev().copied().filter(|number| cursor.is_none_or(|last| *number < last)).take(limit + 1).collect()
    } else {
        all.iter().copied().filter(|number| cursor.is_none_or(|last| *number > last)).take(limit + 1).collect()
    };
    let more = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().copied().filter(|_| more);
    (rest, next)
}

fn cursor(query: &Query) -> Result<Option<u64>, Problem> {
    let Some(text) = query.text("cursor").filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = BASE64_URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    number.map(Some).ok_or_else(|| Code::InvalidArgument.because("invalid cursor"))
}

fn with_next(mut answer: Value, next: Option<u64>) -> Value {
    answer["has_more"] = next.is_some().into();
    if let Some(next) = next {
        answer["next_cursor"] = BASE64_URL_SAFE_NO_PAD.encode(next.to_be_bytes()).into();
    }
    answer
}
