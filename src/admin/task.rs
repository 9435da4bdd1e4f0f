//! Tasks: lists, single ones, new ones, and what is erased of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Admin, Refused};
use super::extract::{Body, Path, Query, bad_body};
use super::list::{Time, Way, bad, page, text};
use super::openapi::ByProvider;
use crate::action::MAX_ATTACHED;
use crate::action::erase::Report;
use crate::provider::{Attached, Created, NewTask, Source};
use crate::store::QUESTION;
use crate::store::view::{Listed, TaskDetail, TaskFilter, TaskRow};
use crate::task;

/// Stands for the name of a source where there is one only; it is no name that a source may have.
pub(super) const ONLY_SOURCE: &str = "-";
/// The most bytes of a request that creates a task: its files in base64, and as much again as any other request may have.
pub(super) const MAX_CREATE: usize = MAX_ATTACHED.div_ceil(3) * 4 + (2 << 20);

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .layer(DefaultBodyLimit::max(MAX_CREATE))
        .routes(routes!(tasks))
        .routes(routes!(track))
        .routes(routes!(one))
        .routes(routes!(erase))
}

/// What names a task.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TaskId {
    /// Its source; `-` where there is one only.
    pub(super) source: String,
    /// The provider's id of it.
    pub(super) task_id: String,
}

/// The named source, as actions take it.
pub(super) fn named(source: &str) -> Option<&str> {
    Some(source).filter(|source| *source != ONLY_SOURCE)
}

/// `?limit=50&cursor=…`, and what tasks can be narrowed to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Search {
    limit: Option<usize>,
    cursor: Option<String>,
    after: Option<String>,
    source: Option<String>,
    state: Option<String>,
    #[param(inline)]
    since: Option<Time>,
    #[param(inline)]
    until: Option<Time>,
    text: Option<String>,
}

/// List tasks, the newest first
#[utoipa::path(
    get,
    path = "/api/v1/tasks",
    operation_id = "list_tasks",
    params(Search),
    responses((status = OK, body = Listed<TaskRow>))
)]
async fn tasks(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Listed<TaskRow>>, Refused> {
    let (page, way) = page(search.limit, search.cursor.as_deref(), search.after.as_deref())?;
    if search.state.as_deref().is_some_and(|state| state != "open" && state.parse::<task::State>().is_err()) {
        return Err(bad("`state` is `open`, `running`, `waiting`, `finished`, `failed`, `stopped`, `canceled` or `unknown`"));
    }
    let filter = TaskFilter {
        source: search.source,
        state: search.state,
        since: search.since.map(|time| time.0),
        until: search.until.map(|time| time.0),
        text: text(search.text)?,
    };
    let listed = match way {
        Way::Back => admin.store.tasks(filter, page).await?,
        Way::Forth => admin.store.tasks_after(filter, page).await?,
    };
    Ok(Json(listed))
}

/// See one task: its timeline, its files, its events, what it asks
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{source}/{task_id}",
    operation_id = "get_task",
    params(TaskId),
    responses((status = OK, body = TaskDetail))
)]
async fn one(State(admin): State<Arc<Admin>>, Path(task): Path<TaskId>) -> Result<Json<TaskDetail>, Refused> {
    let source = admin.known(&task.source)?;
    let task = admin.task_shown(source, &task.task_id).await?.ok_or_else(|| Refused::absent("task"))?;
    Ok(Json(task))
}

impl Admin {
    /// The named source, be it configured or not: what there was of one may still be looked at.
    fn known<'a>(&'a self, source: &'a str) -> Result<&'a str, Refused> {
        Ok(match named(source) {
            Some(source) => source,
            None => self.actions.source(None)?.name(),
        })
    }

    /// A task as it is shown to people; one that is not configured any more as well.
    pub(super) async fn task_shown(&self, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Refused> {
        let Some(mut task) = self.store.task(source, task_id).await? else { return Ok(None) };
        if let Ok(source) = self.actions.source(Some(source)) {
            recall(source, &mut task);
        }
        Ok(Some(task))
    }
}

/// Tells the words of the questions that were asked before the one that the task stands at: the answers that it was read from show them.
fn recall(source: &Source, task: &mut TaskDetail) {
    let Some(raw) = &task.raw else { return };
    for moment in task.timeline.iter_mut().filter(|moment| moment.kind == QUESTION) {
        let asked = moment.anchor.as_deref().and_then(|anchor| source.asked(&task.row.task_id, raw, anchor));
        moment.text = asked.unwrap_or_else(|| std::mem::take(&mut moment.text));
    }
}

/// What `POST /api/v1/tasks` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTask {
    /// The source; may be left out where there is one only.
    #[serde(default)]
    source: Option<String>,
    /// What the agent is to do.
    #[schema(pattern = r"\S")]
    prompt: String,
    /// The agent profile, in the provider's word.
    #[serde(default)]
    profile: Option<String>,
    /// The project, by the provider's id.
    #[serde(default)]
    project: Option<String>,
    /// A JSON Schema that the answer is to fit.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// Whether the agent may ask back.
    #[serde(default)]
    interactive: bool,
    /// Files that go with it.
    #[serde(default)]
    files: Vec<NewFile>,
}

/// A file that goes with a new task.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewFile {
    /// Its name.
    #[schema(pattern = r"\S")]
    name: String,
    /// Its MIME type, without parameters; by default that of its name.
    #[serde(default)]
    content_type: Option<String>,
    /// Its bytes.
    #[schema(content_encoding = "base64")]
    content_base64: String,
}

impl NewFile {
    fn attached(self) -> Result<Attached, Refused> {
        let content = BASE64_STANDARD.decode(&self.content_base64);
        let content = content.map_err(|error| bad_body(format!("`content_base64` is not base64: {error}")))?;
        if self.name.trim().is_empty() {
            return Err(bad_body("`name` is empty"));
        }
        let content_type = match self.content_type {
            Some(content_type)
                if content_type.parse::<axum::http::HeaderValue>().is_err() || content_type.contains([';', ',']) =>
            {
                return Err(bad_body("`content_type` is a MIME type without parameters, such as `text/csv`"));
            }
            Some(content_type) => content_type,
            None => mime_guess::from_path(&self.name).first_or_octet_stream().essence_str().to_owned(),
        };
        Ok(Attached { name: self.name, content_type, content: content.into() })
    }
}

/// A task that was made.
#[derive(Debug, Serialize, ToSchema)]
struct TaskCreated {
    /// Its source.
    source: String,
    /// The provider's id of it.
    task_id: String,
    /// Its title.
    title: Option<String>,
    /// Its page.
    url: Option<String>,
}

/// Have an agent begin a task
#[utoipa::path(
    post,
    path = "/api/v1/tasks",
    operation_id = "create_task",
    request_body = CreateTask,
    responses((status = CREATED, body = TaskCreated), ByProvider)
)]
async fn create(
    State(admin): State<Arc<Admin>>,
    body: Result<Body<CreateTask>, Refused>,
) -> Result<(StatusCode, Json<TaskCreated>), Refused> {
    let Body(CreateTask { source, prompt, profile, project, schema, interactive, files }) = body.map_err(|refused| {
        // What makes it so large are its files.
        if refused.status() == StatusCode::PAYLOAD_TOO_LARGE { crate::action::Error::TooLarge.into() } else { refused }
    })?;
    if prompt.trim().is_empty() {
        return Err(bad_body("`prompt` is empty"));
    }
    if schema.as_ref().is_some_and(|schema| !schema.is_object()) {
        return Err(bad_body("`schema` is a JSON Schema: an object"));
    }
    let files = files.into_iter().map(NewFile::attached).collect::<Result<_, _>>()?;
    let task = NewTask { prompt, profile, project, schema, interactive, files };
    let (source, created) = admin.actions.create_task(source.as_deref(), &task).await?;
    let Created { task_id, title, url } = created;
    Ok((StatusCode::CREATED, Json(TaskCreated { source, task_id, title, url })))
}

/// What `POST /api/v1/tasks/track` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TrackTask {
    /// Its source.
    source: String,
    /// Its kind, in the provider's word, such as `video` (Magic Hour).
    kind: String,
    /// The provider's id of it.
    task_id: String,
}

/// A task that is expected.
#[derive(Debug, Serialize, ToSchema)]
struct TaskTracked {
    /// Its source.
    source: String,
    /// The provider's id of it.
    task_id: String,
    /// Its kind.
    kind: String,
}

/// Tell of a task that was begun elsewhere, so that its webhook is known to be ours
#[utoipa::path(
    post,
    path = "/api/v1/tasks/track",
    operation_id = "track_task",
    request_body = TrackTask,
    responses((status = CREATED, body = TaskTracked))
)]
async fn track(
    State(admin): State<Arc<Admin>>,
    Body(TrackTask { source, kind, task_id }): Body<TrackTask>,
) -> Result<(StatusCode, Json<TaskTracked>), Refused> {
    let task_id = admin.actions.track(&source, &kind, &task_id).await?.to_owned();
    Ok((StatusCode::CREATED, Json(TaskTracked { source, task_id, kind })))
}

/// What `POST …/erase` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EraseTask {
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

/// Erase all that is kept of a task
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{source}/{task_id}/erase",
    operation_id = "erase_task",
    params(TaskId),
    request_body = EraseTask,
    responses((status = OK, body = Report))
)]
async fn erase(
    State(admin): State<Arc<Admin>>,
    Path(task): Path<TaskId>,
    Body(wish): Body<EraseTask>,
) -> Result<Json<Report>, Refused> {
    let source = admin.known(&task.source)?;
    Ok(Json(admin.actions.erase(source, &task.task_id, wish.dry_run).await?))
}
