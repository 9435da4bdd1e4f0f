//! What a person may say to a task: an answer, a confirmation, stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Admin, Refused};
use super::extract::{Body, Path, bad_body};
use super::openapi::ByProvider;
use super::task::{TaskId, named};
use crate::action::{Given, Say, Wish};

/// Who answers that says no name.
const SOMEBODY: &str = "the admin API";

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(reply)).routes(routes!(confirm)).routes(routes!(stop))
}

/// What `POST …/reply` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reply {
    /// What is said to the agent.
    #[schema(pattern = r"\S")]
    message: String,
    /// Who says it, as the timeline tells it.
    #[serde(default)]
    by: Option<String>,
    /// What it must still wait for: `answers_to` of the task. By default whatever it waits for.
    #[serde(default)]
    question: Option<String>,
    /// Whether an answer of which nobody knows whether it arrived did not.
    #[serde(default)]
    again: bool,
}

/// Answer a task that waits in words, or go on with one that stopped
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{source}/{task_id}/reply",
    operation_id = "reply_to_task",
    params(TaskId),
    request_body = Reply,
    responses((status = OK, body = Given), ByProvider)
)]
async fn reply(
    State(admin): State<Arc<Admin>>,
    Path(task): Path<TaskId>,
    Body(Reply { message, by, question, again }): Body<Reply>,
) -> Result<Json<Given>, Refused> {
    if message.trim().is_empty() {
        return Err(bad_body("`message` is empty"));
    }
    let wish = Wish { say: Say::Reply(message), question, by: by.unwrap_or_else(|| SOMEBODY.to_owned()), again };
    Ok(Json(admin.actions.answer(named(&task.source), &task.task_id, wish).await?))
}

/// What `POST …/confirm` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Confirm {
    /// What fits the `input_schema` of the question; by default `{"accept": true}`.
    #[serde(default)]
    input: Option<Value>,
    /// Who confirms it, as the timeline tells it.
    #[serde(default)]
    by: Option<String>,
    /// What it must still wait for: `answers_to` of the task. By default whatever it waits for.
    #[serde(default)]
    question: Option<String>,
    /// Whether an answer of which nobody knows whether it arrived did not.
    #[serde(default)]
    again: bool,
}

/// Confirm, or decline, what a task waits to do
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{source}/{task_id}/confirm",
    operation_id = "confirm_task",
    params(TaskId),
    request_body = Confirm,
    responses((status = OK, body = Given), ByProvider)
)]
async fn confirm(
    State(admin): State<Arc<Admin>>,
    Path(task): Path<TaskId>,
    Body(Confirm { input, by, question, again }): Body<Confirm>,
) -> Result<Json<Given>, Refused> {
    let wish = Wish { say: Say::Confirm(input), question, by: by.unwrap_or_else(|| SOMEBODY.to_owned()), again };
    Ok(Json(admin.actions.answer(named(&task.source), &task.task_id, wish).await?))
}

/// What `POST …/stop` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StopTask)]
struct Stop {
    /// Who stops it, as the timeline tells it.
    #[serde(default)]
    by: Option<String>,
}

/// Stop a task that is at work
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{source}/{task_id}/stop",
    operation_id = "stop_task",
    params(TaskId),
    request_body = Stop,
    responses((status = OK, body = Given), ByProvider)
)]
async fn stop(
    State(admin): State<Arc<Admin>>,
    Path(task): Path<TaskId>,
    Body(Stop { by }): Body<Stop>,
) -> Result<Json<Given>, Refused> {
    let given = admin.actions.stop_task(named(&task.source), &task.task_id, by.as_deref().unwrap_or(SOMEBODY)).await?;
    Ok(Json(given))
}
