//! Version 1: resources under `/v1`, errors in the shape of its one documented error, numbered like gRPC's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::core::Model as _;
use super::Shared;
use super::api::{Class, Code, MAX_TEXT, Problem, Query, iso, text};
use super::api_v2::{page, register};
use super::lag::Seen;
use super::script::Plan;
use super::state::{NewTask, State, Status, Task};

/// The members that `POST /v1/tasks` takes; no other is allowed.
const MEMBERS: [&str; 11] = [
    "prompt",
    "agentProfile",
    "attachments",
    "taskMode",
    "connectors",
    "hideInTaskList",
    "createShareableLink",
    "taskId",
    "locale",
    "projectId",
    "interactiveMode",
];

/// The key of a call.
pub(super) fn key(headers: &HeaderMap) -> Option<String> {
    text(headers, "api_key").map(ToOwned::to_owned)
}

pub(super) async fn serve(
    Extract(shared): Extract<Arc<Shared>>,
    Path(path): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match answer(&shared, &method, &path, &Query::of(query.as_deref()), &headers, &body).await {
        Ok(Value::Null) => StatusCode::NO_CONTENT.into_response(),
        Ok(mut value) => {
            shared.lock().freshen(&mut value, shared.options.numbers_as_strings);
            Json(value).into_response()
        }
        Err(Problem { code, message }) => {
            (code.status(), Json(json!({"code": code.number(), "message": message, "details": []}))).into_response()
        }
    }
}

/// The answer; `null` is 204.
async fn answer(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, Problem> {
    let authenticate = |class: Option<Class>| {
        let mut state = shared.lock();
        let account = state.authenticate(key(headers).as_deref())?;
        class.map_or(Ok(()), |class| state.count(account, class, shared.options.limits)).map(|()| account)
    };
    let segments: Vec<&str> = path.split('/').collect();
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["webhook", "public_key"]) => {
            authenticate(None)?;
            let state = shared.lock();
            Ok(json!({"public_key": state.key.public_pem(), "algorithm": "RSA-SHA256", "created_at": iso(state.now())}))
        }
        ("POST", ["webhooks"]) => {
            let account = authenticate(Some(Class::Change))?;
            let body = json(body)?;
            let url = body["webhook"]["url"].as_str().ok_or_else(|| Code::InvalidArgument.because("webhook.url is required"))?;
            Ok(json!({"webhook_id": register(shared, account, url).await?.id}))
        }
        ("DELETE", ["webhooks", id]) => {
            let account = authenticate(Some(Class::Change))?;
            shared.lock().delete_webhook(account, id).map(|()| Value::Null)
        }
        ("POST", ["tasks"]) => {
            let account = authenticate(Some(Class::Create))?;
            let made = create(shared, account, &json(body)?);
            shared.wake.notify_one();
            made
        }
        ("GET", ["tasks"]) => {
            let account = authenticate(Some(Class::Read))?;
            list(&shared.lock(), account, query)
        }
        ("GET", ["tasks", id]) => {
            let account = authenticate(Some(Class::Read))?;
            let state = shared.lock();
            Ok(view(state.seen(state.owned(account, id)?)))
        }
        ("DELETE", ["tasks", id]) => {
            let account = authenticate(Some(Class::Change))?;
            let mut state = shared.lock();
            let number = state.owned(account, id)?;
            state.remove(number);
            Ok(json!({"id": id, "object": "task.deleted", "deleted": true}))
        }
        (_, ["webhooks" | "tasks"] | ["webhooks" | "tasks", _] | ["webhook", "public_key"]) => {
            Err(Code::MethodNotAllowed.because("method not allowed"))
        }
        _ => Err(Code::NotFound.because("not found")),
    }
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|_| Code::InvalidArgument.because("the body must be JSON"))
}

/// Makes a task, or goes on with the one that `taskId` names.
fn create(shared: &Shared, account: usize, body: &Value) -> Result<Value, Problem> {
    let members = body.as_object().ok_or_else(|| Code::InvalidArgument.because("the body must be a JSON object"))?;
    if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(Code::InvalidArgument.because(format!("unknown member: {unknown}")));
    }
    let required = |name: &str| {
        let value = body[name].as_str().filter(|value| !value.trim().is_empty());
        value.ok_or_else(|| Code::InvalidArgument.because(format!("{name} is required")))
    };
    let (prompt, profile) = (required("prompt")?, required("agentProfile")?);
    if prompt.chars().count() > MAX_TEXT {
        return Err(Code::InvalidArgument.because("prompt is too long"));
    }
    let mut state = shared.lock();
    let number = if let Some(id) = body["taskId"].as_str() {
        let number = state.owned(account, id)?;
        if !state.say(number, prompt) {
            return Err(Code::InvalidArgument.because("the task takes no more messages"));
        }
        number
    } else {
        let mut plan = Plan::of_prompt(prompt, shared.options.pace);
        plan.hidden = body["hideInTaskList"] == Value::Bool(true);
        if body["createShareableLink"] == Value::Bool(true) {
            plan = plan.visible_to("public");
        }
        let new = NewTask { prompt: prompt.to_owned(), title: None, profile: profile.to_owned(), plan };
        state.create(account, new)
    };
    let task = &state.tasks[&number];
    let mut made = json!({"task_id": task.id, "task_title": task.title, "task_url": task.url()});
    if task.visibility != "private" {
        made["share_url"] = format!("https://manus.im/share/{}", task.id).into();
    }
    Ok(made)
}

fn view(seen: Seen<'_>) -> Value {
    let task = seen.task;
    let mut view = json!({
        "id": task.id,
        "object": "task",
        "created_at": task.created_at.as_second(),
        "updated_at": seen.updated_at.as_second(),
        "status": seen.status.v1(),
        "model": format!("{}-agent", task.profile),
        "metadata": {"task_title": task.title, "task_url": task.url()},
        "output": seen.entries.iter().filter_map(message).collect::<Vec<_>>(),
    });
    if let (Status::Error, Some(error)) = (seen.status, &task.error) {
        view["error"] = error.clone().into();
    }
    if task.credits > 0 {
        view["credit_usage"] = task.credits.into();
    }
    view
}

/// A message of the conversation, as v1 shows it.
fn message(entry: &Value) -> Option<Value> {
    let (role, said) = match entry["type"].as_str()? {
        "user_message" => ("user", &entry["user_message"]),
        "assistant_message" => ("assistant", &entry["assistant_message"]),
        _ => return None,
    };
    let mut content = vec![json!({"type": "output_text", "text": said["content"]})];
    for file in said["attachments"].as_array()? {
        let (url, name, kind) = (&file["url"], &file["filename"], &file["content_type"]);
        content.push(json!({"type": "output_file", "fileUrl": url, "fileName": name, "mimeType": kind}));
    }
    Some(json!({"id": entry["id"], "status": "completed", "role": role, "type": "message", "content": content}))
}

fn list(state: &State, account: usize, query: &Query) -> Result<Value, Problem> {
    let (limit, newest_first) = (query.limit(100, 1000)?, query.newest_first()?);
    let after = match query.text("after").filter(|id| !id.is_empty()) {
        Some(id) => Some(state.owned(account, id)?),
        None => None,
    };
    let listed = |task: &Task| {
        let matches = query.text("query").is_none_or(|text| task.title.contains(text));
        matches && task.account == account && !task.hidden
    };
    let numbers: Vec<u64> = state.tasks.iter().filter(|(_, task)| listed(task)).map(|(number, _)| *number).collect();
    let (page, next) = page(&numbers, limit, newest_first, after);
    let data: Vec<Value> = page.iter().map(|number| view(state.seen(*number))).collect();
    let id = |number: Option<&u64>| number.map(|number| state.tasks[number].id.clone());
    Ok(json!({
        "object": "list", "data": data,
        "first_id": id(page.first()), "last_id": id(page.last()), "has_more": next.is_some(),
    }))
}
