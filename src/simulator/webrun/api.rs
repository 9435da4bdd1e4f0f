//! WebRun's API: sessions, tasks, and what became of a task.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::core::Model as _;
use super::super::front;
use super::Shared;
use super::deliver::Webhook;
use super::script::{Output, Plan};
use super::state::pending;
use crate::clock;

/// The key that a call bears.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// An error.
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    error: String,
}

impl IntoResponse for Refusal {
    /// In the form of WebRun's error reference; a call too many has a form of its own.
    fn into_response(self) -> Response {
        let Self { status, code, error } = self;
        if status == StatusCode::TOO_MANY_REQUESTS {
            let message = json!({"success": false, "message": error});
            return (status, [(header::RETRY_AFTER, "60")], Json(message)).into_response();
        }
        (status, Json(json!({"success": false, "error": error, "code": code, "details": {}}))).into_response()
    }
}

pub(super) fn refuse(status: StatusCode, code: &'static str, error: &str) -> Refusal {
    Refusal { status, code, error: error.to_owned() }
}

/// What every call that asks for a task says of it. Members that make no difference here are not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wish {
    task_details: String,
    #[serde(default)]
    output_type: Output,
    #[serde(default)]
    webhook: Option<Webhook>,
}

impl Wish {
    fn read(value: Value) -> Result<Self, Refusal> {
        let bad = |reason: &str| refuse(StatusCode::BAD_REQUEST, "INVALID_REQUEST", reason);
        let wish: Self = serde_json::from_value(value).map_err(|error| bad(&error.to_string()))?;
        if wish.task_details.trim().is_empty() {
            return Err(bad("taskDetails is required"));
        }
        let reachable =
            |url: &str| url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if wish.webhook.as_ref().is_some_and(|webhook| webhook.name.trim().is_empty() || !reachable(&webhook.url)) {
            return Err(bad("webhook needs a name and the address of a receiver"));
        }
        Ok(wish)
    }
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/start/start-session", post(start_session))
        .route("/start/send-message", post(send_message))
        .route("/start/run-task", post(run_task))
        .route("/start/health", get(health))
        .route("/task/{session}/{task}", get(poll));
    front::serve(api, shared)
}

/// The account of a key that is not refused, once the call is counted.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<usize, Refusal> {
    let mut state = shared.lock();
    let key = key(headers).filter(|key| !state.faults.refused_keys.iter().any(|refused| refused == key));
    let account = key.and_then(|key| state.account_of_key(key));
    let account = account.ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "Invalid API key"))?;
    let Some(per_minute) = shared.options.per_minute else { return Ok(account) };
    let limited = || refuse(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", "Too many requests, please try again later.");
    state.count(account, per_minute).map(|()| account).ok_or_else(limited)
}

fn object(body: &[u8]) -> Result<Value, Refusal> {
    let value = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    value.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "The body must be a JSON object"))
}

async fn start_session(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let account = admit(&shared, &headers)?;
    let mut body = object(&body)?;
    let wish = match body["initialTask"].take() {
        Value::Null => None,
        task => Some(Wish::read(task)?),
    };
    let mut state = shared.lock();
    let session = state.open_session(account);
    let prompt = wish.as_ref().map(|wish| wish.task_details.clone());
    if let Some(wish) = wish {
        let plan = Plan::of_prompt(&wish.task_details, wish.output_type, shared.options.pace);
        // Its id is not told: it is known from the webhook alone.
        state.create(&session, wish.webhook, plan);
    }
    shared.wake.notify_one();
    let base_url = &state.shelf.base_url;
    let streaming = json!({"webRTCURL": format!("{base_url}/{session}/whep"), "webViewURL": format!("{base_url}/{session}"),
        "dimensions": {"width": 1024, "height": 600}});
    let answer = json!({"success": true, "sessionId": session, "socketURL": base_url, "streaming": streaming,
        "initialPrompt": prompt, "expiresIn": 300_000, "balance": 12.5, "message": "Connect to instance using sessionId in auth"});
    Ok(Json(answer).into_response())
}

async fn send_message(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let account = admit(&shared, &headers)?;
    let mut body = object(&body)?;
    let session = body["sessionId"].as_str().unwrap_or_default().to_owned();
    if !shared.lock().owns(account, &session) {
        return Err(refuse(StatusCode::UNAUTHORIZED, "SESSION_NOT_FOUND", "Session not found or unauthorized"));
    }
    let message = body["message"].take();
    match (message["actionType"].as_str(), message["newState"].as_str()) {
        (Some("newTask"), _) => {
            let wish = Wish::read(message)?;
            let plan = Plan::of_prompt(&wish.task_details, wish.output_type, shared.options.pace);
            let mut state = shared.lock();
            let task = state.create(&session, wish.webhook, plan);
            shared.wake.notify_one();
            Ok(Json(pending(&state.shelf.base_url, &session, &task)).into_response())
        }
        (Some("state"), Some("terminate")) => {
            shared.lock().close_session(&session);
            Ok(sent())
        }
        (Some("state" | "interaction" | "guardrail"), _) => Ok(sent()),
        _ => Err(refuse(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "message.actionType is required")),
    }
}

fn sent() -> Response {
    Json(json!({"success": true, "message": "Message sent successfully"})).into_response()
}

/// The real one waits up to 50 s; this one answers at once that the task runs.
async fn run_task(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let account = admit(&shared, &headers)?;
    let wish = Wish::read(object(&body)?)?;
    let plan = Plan::of_prompt(&wish.task_details, wish.output_type, shared.options.pace);
    let mut state = shared.lock();
    let session = state.open_session(account);
    let task = state.create(&session, wish.webhook, plan);
    shared.wake.notify_one();
    Ok(Json(pending(&state.shelf.base_url, &session, &task)).into_response())
}

async fn poll(Extract(shared): Extract<Arc<Shared>>, Path((session, task)): Path<(String, String)>) -> Response {
    match shared.lock().poll(&session, &task) {
        Some(answer) => Json(answer).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "TASK_NOT_FOUND", "Task not found").into_response(),
    }
}

async fn health(Extract(shared): Extract<Arc<Shared>>) -> Json<Value> {
    let now = shared.lock().now();
    Json(json!({"success": true, "status": "healthy", "instancesAvailable": true, "instanceCount": 5,
        "timestamp": clock::rfc3339(now)}))
}
