//! Magic Hour's API: making a job, asking for its details, deleting it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::core::Model as _;
use super::super::front;
use super::Shared;
use super::script::{Plan, TOOLS};
use super::state::{State, view};

/// The key that a call bears.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// An error in Magic Hour's form.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

const NOT_FOUND: Refusal = Refusal(StatusCode::NOT_FOUND, "Not Found");

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new().route("/v1/{projects}/{id}", any(details)).route("/v1/{tool}", post(create));
    front::serve(api, shared)
}

/// The account of a key that is not refused.
fn authenticate(state: &State, headers: &HeaderMap) -> Result<usize, Refusal> {
    let key = key(headers).filter(|key| !state.faults.refused_keys.iter().any(|refused| refused == key));
    let account = key.and_then(|key| state.account_of_key(key));
    account.ok_or(Refusal(StatusCode::UNAUTHORIZED, "Unauthorized"))
}

async fn details(
    Extract(shared): Extract<Arc<Shared>>,
    Path((projects, id)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut state = shared.lock();
    let account = authenticate(&state, &headers)?;
    // A job is found under its own resource only.
    let is_meant = |number: &u64| {
        let job = &state.jobs[number];
        job.account == account && projects.strip_suffix("-projects") == Some(job.resource.word())
    };
    let number = state.number(&id).filter(is_meant).ok_or(NOT_FOUND)?;
    match method {
        Method::GET => {
            let mut view = view(&state.jobs[&number]);
            state.freshen(&mut view);
            Ok(Json(view).into_response())
        }
        Method::DELETE => {
            state.remove(number);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")),
    }
}

async fn create(
    Extract(shared): Extract<Arc<Shared>>,
    Path(tool): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let mut state = shared.lock();
    let account = authenticate(&state, &headers)?;
    let Some((_, project, resource)) = TOOLS.iter().find(|(name, ..)| *name == tool) else {
        return Err(NOT_FOUND);
    };
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&body) else {
        return Err(Refusal(StatusCode::BAD_REQUEST, "The body must be a JSON object"));
    };
    let Some(style) = body.get("style").filter(|style| style.is_object()) else {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, "style is required"));
    };
    let prompt = style["prompt"].as_str().unwrap_or_default();
    let mut plan = Plan::of_prompt(*resource, project, prompt, shared.options.pace);
    plan.name = body.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
    let credits = plan.credits;
    let id = state.create(account, plan);
    shared.wake.notify_one();
    Ok(Json(json!({"id": id, "credits_charged": credits})).into_response())
}
