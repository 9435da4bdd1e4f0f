//! Tasks: lists, single ones, and what a person may ask for about them.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Admin, Asked, Refused, search};
use crate::action::{MAX_ATTACHED, Say, Wish};
use crate::provider::{Attached, NewTask};
use crate::store::view::TaskFilter;
use crate::task;

/// Stands for the name of a source where there is one only; it is no name that a source may have.
const ONLY_SOURCE: &str = "-";
/// Who answers that says no name.
const SOMEBODY: &str = "the admin API";
/// The most bytes of a request that creates a task: its files in base64, and as much again as any other request may have.
const MAX_CREATE: usize = MAX_ATTACHED.div_ceil(3) * 4 + (2 << 20);

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/v1/tasks", get(tasks).post(create).layer(DefaultBodyLimit::max(MAX_CREATE)))
        .route("/api/v1/tasks/track", post(track))
        .route("/api/v1/tasks/{source}/{task_id}", get(one))
        .route("/api/v1/tasks/{source}/{task_id}/erase", post(erase))
        .route("/api/v1/tasks/{source}/{task_id}/reply", post(reply))
        .route("/api/v1/tasks/{source}/{task_id}/confirm", post(confirm))
        .route("/api/v1/tasks/{source}/{task_id}/stop", post(stop))
}

type Body<T> = Result<Json<T>, JsonRejection>;

fn read<T>(body: Body<T>) -> Result<T, Refused> {
    match body {
        Ok(Json(body)) => Ok(body),
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(crate::action::Error::TooLarge.into()),
        Err(error) => Err(Refused::new(StatusCode::BAD_REQUEST, "body_invalid", error.body_text())),
    }
}

/// The named source, as actions take it.
fn named(source: &str) -> Option<&str> {
    Some(source).filter(|source| *source != ONLY_SOURCE)
}

async fn tasks(State(admin): State<Arc<Admin>>, asked: Asked) -> Result<Response, Refused> {
    let (search, page) = search(asked)?;
    if search.state.as_deref().is_some_and(|state| state != "open" && state.parse::<task::State>().is_err()) {
        let title = "`state` is `open`, `running`, `waiting`, `finished`, `failed`, `stopped`, `canceled` or `unknown`";
        return Err(Refused::new(StatusCode::BAD_REQUEST, "query_invalid", title));
    }
    let filter = TaskFilter { source: search.source, state: search.state };
    Ok(Json(admin.store.tasks(filter, page).await?).into_response())
}

async fn one(State(admin): State<Arc<Admin>>, Path((source, task_id)): Path<(String, String)>) -> Result<Response, Refused> {
    // One that is not configured any more may still be looked at.
    let source = match named(&source) {
        Some(source) => source,
        None => admin.actions.source(None)?.name(),
    };
    let task = admin.store.task(source, &task_id).await?.ok_or_else(|| Refused::absent("task"))?;
    Ok(Json(task).into_response())
}

/// What `POST /api/v1/tasks` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTask {
    #[serde(default)]
    source: Option<String>,
    prompt: String,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    project: Option<String>,
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    interactive: bool,
    #[serde(default)]
    files: Vec<NewFile>,
}

/// A file that goes with a new task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFile {
    name: String,
    #[serde(default)]
    content_type: Option<String>,
    content_base64: String,
}

impl NewFile {
    fn attached(self) -> Result<Attached, Refused> {
        let bad = |title: String| Refused::new(StatusCode::BAD_REQUEST, "body_invalid", title);
        let content = BASE64_STANDARD.decode(&self.content_base64);
        let content = content.map_err(|error| bad(format!("`content_base64` is not base64: {error}")))?;
        if self.name.trim().is_empty() {
            return Err(bad("`name` is empty".to_owned()));
        }
        let content_type = match self.content_type {
            Some(content_type)
                if content_type.parse::<axum::http::HeaderValue>().is_err() || content_type.contains([';', ',']) =>
            {
                return Err(bad("`content_type` is a MIME type without parameters, such as `text/csv`".to_owned()));
            }
            Some(content_type) => content_type,
            None => mime_guess::from_path(&self.name).first_or_octet_stream().essence_str().to_owned(),
        };
        Ok(Attached { name: self.name, content_type, content: content.into() })
    }
}

async fn create(State(admin): State<Arc<Admin>>, body: Body<CreateTask>) -> Result<(StatusCode, Json<Value>), Refused> {
    let CreateTask { source, prompt, profile, project, schema, interactive, files } = read(body)?;
    if schema.as_ref().is_some_and(|schema| !schema.is_object()) {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "body_invalid", "`schema` is a JSON Schema: an object"));
    }
    let files = files.into_iter().map(NewFile::attached).collect::<Result<_, _>>()?;
    let task = NewTask { prompt, profile, project, schema, interactive, files };
    let (source, created) = admin.actions.create_task(source.as_deref(), &task).await?;
    let body = json!({"source": source, "task_id": created.task_id, "title": created.title, "url": created.url});
    Ok((StatusCode::CREATED, Json(body)))
}

/// What `POST /api/v1/tasks/track` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrackTask {
    source: String,
    kind: String,
    task_id: String,
}

async fn track(State(admin): State<Arc<Admin>>, body: Body<TrackTask>) -> Result<(StatusCode, Json<Value>), Refused> {
    let wish = read(body)?;
    let task_id = admin.actions.track(&wish.source, &wish.kind, &wish.task_id).await?;
    let body = json!({"source": wish.source, "task_id": task_id, "kind": wish.kind});
    Ok((StatusCode::CREATED, Json(body)))
}

/// What `POST …/erase` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EraseTask {
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

async fn erase(
    State(admin): State<Arc<Admin>>,
    Path((source, task_id)): Path<(String, String)>,
    body: Body<EraseTask>,
) -> Result<Response, Refused> {
    let wish = read(body)?;
    let source = match named(&source) {
        Some(source) => source,
        None => admin.actions.source(None)?.name(),
    };
    Ok(Json(admin.actions.erase(source, &task_id, wish.dry_run).await?).into_response())
}

/// What `POST …/reply` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    message: String,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    again: bool,
}

async fn reply(
    State(admin): State<Arc<Admin>>,
    Path((source, task_id)): Path<(String, String)>,
    body: Body<Reply>,
) -> Result<Response, Refused> {
    let Reply { message, by, question, again } = read(body)?;
    if message.trim().is_empty() {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "body_invalid", "`message` is empty"));
    }
    let wish = Wish { say: Say::Reply(message), question, by: by.unwrap_or_else(|| SOMEBODY.to_owned()), again };
    Ok(Json(admin.actions.answer(named(&source), &task_id, wish).await?).into_response())
}

/// What `POST …/confirm` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    #[serde(default)]
    input: Option<Value>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    again: bool,
}

async fn confirm(
    State(admin): State<Arc<Admin>>,
    Path((source, task_id)): Path<(String, String)>,
    body: Body<Confirm>,
) -> Result<Response, Refused> {
    let Confirm { input, by, question, again } = read(body)?;
    let wish = Wish { say: Say::Confirm(input), question, by: by.unwrap_or_else(|| SOMEBODY.to_owned()), again };
    Ok(Json(admin.actions.answer(named(&source), &task_id, wish).await?).into_response())
}

/// What `POST …/stop` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    #[serde(default)]
    by: Option<String>,
}

async fn stop(
    State(admin): State<Arc<Admin>>,
    Path((source, task_id)): Path<(String, String)>,
    body: Body<Stop>,
) -> Result<Response, Refused> {
    let by = read(body)?.by;
    let given = admin.actions.stop_task(named(&source), &task_id, by.as_deref().unwrap_or(SOMEBODY)).await?;
    Ok(Json(given).into_response())
}
