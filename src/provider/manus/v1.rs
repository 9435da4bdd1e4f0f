//! Version 1 of Manus's API: deprecated, still served. A task comes whole in one answer.

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Call, Reply, path_segment};
use super::convert::{content, error_text, file, is_true, items, member, number, stop_reason, text, time};
use crate::provider::{ApiError, Attached, Created, ListPage, Listed, NewTask, Probe, Standing, Use, Webhook};
use crate::signature::rsa::PublicKey;
use crate::task::{Fetched, File, Message, Question, QuestionKind, State, Stop, Task};

const TASK: Call = Call::v1("GET /v1/tasks/{id}");
const TASKS: Call = Call::v1("GET /v1/tasks");
const CREATE: Call = Call::v1("POST /v1/tasks");
const PUBLIC_KEY: Call = Call::v1("GET /v1/webhook/public_key");
const REGISTER: Call = Call::v1("POST /v1/webhooks");
const DELETE: Call = Call::v1("DELETE /v1/webhooks/{id}");
const LIST: Call = Call::v1("GET /v1/webhooks");

/// `agentProfile` must be given; this is the documented default of version 2.
const PROFILE: &str = "manus-1.6";
/// The documented profiles; of two of which one begins with the other, the longer first.
const PROFILES: [&str; 7] = ["manus-1.6-lite", "manus-1.6-max", PROFILE, "manus-1.5-lite", "manus-1.5", "speed", "quality"];

pub(super) async fn public_key(api: &Api) -> (Result<PublicKey, ApiError>, Option<SignedDuration>) {
    let request = api.request(PUBLIC_KEY, Method::GET, "/v1/webhook/public_key");
    let (reply, skew) = api.call_now(PUBLIC_KEY, request).await;
    (reply.and_then(|reply| key_in(PUBLIC_KEY, &reply.value)), skew)
}

/// The key in an answer of either version.
pub(super) fn key_in(call: Call, value: &Value) -> Result<PublicKey, ApiError> {
    let pem = text(value, &["public_key"]).or_else(|| text(value.get("data")?, &["public_key"]));
    let pem = pem.ok_or_else(|| call.nonsense("there is no `public_key` in it"))?;
    PublicKey::from_pem(&pem).map_err(|reason| call.nonsense(format!("its `public_key` is of no use: {reason}")))
}

/// The tasks that were made or changed last, as `by` says, or those behind `cursor`. The caller has taken its place in the budget.
pub(super) async fn tasks(api: &Api, by: &str, cursor: Option<&str>) -> Result<ListPage, ApiError> {
    let mut query = vec![("limit", "100"), ("order", "desc"), ("orderBy", by)];
    query.extend(cursor.map(|cursor| ("after", cursor)));
    let request = api.request(TASKS, Method::GET, "/v1/tasks").query(&query);
    let reply = api.call(TASKS, None, request).await?;
    if !reply.value.get("data").is_some_and(Value::is_array) {
        return Err(TASKS.nonsense("there is no list `data` in it"));
    }
    let next = text(&reply.value, &["last_id"]).filter(|next| is_true(&reply.value, "has_more") && cursor != Some(next));
    let tasks: Vec<_> = items(&reply.value, "data").iter().filter_map(listed).collect();
    Ok(ListPage { reaches: tasks.iter().filter_map(|task| task.updated_at).min(), tasks, next })
}

fn listed(of: &Value) -> Option<Listed> {
    let Fetched { task, .. } = convert(text(of, &["id", "task_id"])?, of);
    Some(Listed {
        task_id: task.id,
        state: task.state,
        background: false,
        title: task.title,
        url: task.url,
        created_at: task.created_at,
        updated_at: task.updated_at,
    })
}

pub(super) async fn probe(api: &Api, task_id: &str) -> Result<Probe, ApiError> {
    let reply = task(api, task_id).await?;
    if text(&reply.value, &["id"]).as_deref() != Some(task_id) {
        return Err(TASK.nonsense("it does not say which task it is about"));
    }
    Ok(Probe::Ours { how: "readable" })
}

pub(super) async fn fetch(api: &Api, task_id: &str) -> Result<Fetched, ApiError> {
    let reply = task(api, task_id).await?;
    let fetched = convert(task_id.to_owned(), &reply.value);
    Ok(Fetched { raw: format!(r#"{{"task":{}}}"#, reply.raw.trim()), ..fetched })
}

/// The end of its newest turn, if it is at one: version 1 shows no others. The caller has taken its place in the budget.
pub(super) async fn stops(api: &Api, task_id: &str) -> Result<Vec<Stop>, ApiError> {
    let reply = task(api, task_id).await?;
    Ok(convert(task_id.to_owned(), &reply.value).stops)
}

/// The task as it stood at the stop `anchor`, from the answer in `raw`; `None` where that does not show it.
pub(super) fn turn(task_id: &str, raw: &Value, anchor: &str) -> Option<Fetched> {
    let (word, last) = anchor.split_once(':')?;
    let mut of = raw.get("task")?.clone();
    let output = of.get_mut("output")?.as_array_mut()?;
    let end = output.iter().position(|item| text(item, &["id"]).as_deref() == Some(last))?;
    output.truncate(end + 1);
    of["status"] = word.into();
    Some(convert(task_id.to_owned(), &of))
}

/// What the stop of a task is known by that ended so: its status, and the last of its output.
fn anchor(of: &Value) -> String {
    let last = items(of, "output").last().and_then(|item| text(item, &["id"]));
    format!("{}:{}", text(of, &["status"]).unwrap_or_default(), last.unwrap_or_default())
}

/// A task, checked to be this one. The caller has taken its place in the budget.
async fn task(api: &Api, task_id: &str) -> Result<Reply, ApiError> {
    // What cannot be an id is not the id of a task.
    let id = path_segment(task_id).ok_or(ApiError::NotFound { call: TASK.name })?;
    let reply = api.call(TASK, None, api.request(TASK, Method::GET, &format!("/v1/tasks/{id}"))).await?;
    let about = text(&reply.value, &["id"]);
    if about.is_none() && text(&reply.value, &["status"]).is_none() {
        return Err(TASK.nonsense("it is no task"));
    }
    if about.is_some_and(|about| about != task_id) {
        return Err(TASK.nonsense("it is about another task"));
    }
    Ok(reply)
}

/// A task of version 1, in our words.
pub(super) fn convert(id: String, of: &Value) -> Fetched {
    let nothing = Value::Null;
    let metadata = of.get("metadata").unwrap_or(&nothing);
    let mut files = Vec::new();
    let messages: Vec<_> = items(of, "output").iter().filter_map(|item| message(item, &mut files)).collect();
    let asked = messages.iter().rev().find(|message| message.role == "assistant" && !message.text.is_empty());
    let state = match text(of, &["status"]).as_deref() {
        Some("completed" | "stopped") => State::Finished,
        Some("failed" | "error") => State::Failed,
        // The pages disagree on `pending`: "waits for the user", or simply "not done". One that has said nothing cannot have asked.
        Some("pending" | "waiting") if asked.is_some() => State::Waiting,
        Some("pending" | "waiting" | "running") => State::Running,
        _ => State::Unknown,
    };
    let at = time(of, "updated_at");
    let said = asked.map(|message| message.text.clone());
    let ended = !matches!(state, State::Running | State::Unknown);
    let stop = ended.then(|| Stop { anchor: anchor(of), state, at, text: said.clone() });
    let question = (state == State::Waiting).then(|| Question { kind: QuestionKind::Message, text: said, ..Question::default() });
    let error = || error_text(of, "error").or_else(|| error_text(of, "incomplete_details"));
    let mut task = Task {
        id,
        title: text(metadata, &["task_title", "title"]).or_else(|| text(of, &["task_title", "title"])),
        url: text(metadata, &["task_url"]).or_else(|| text(of, &["task_url"])),
        state,
        stop_reason: stop_reason(state),
        model: text(of, &["model"]),
        created_at: time(of, "created_at"),
        updated_at: at,
        credits: number(of, "credit_usage"),
        complete: true,
        question,
        error: if state == State::Failed { error() } else { None },
        messages,
        ..Task::default()
    };
    task.bound_messages();
    let stands_at = stop.as_ref().map(|stop| stop.anchor.clone());
    Fetched { task, files, stands_at, stops: stop.into_iter().collect(), ..Fetched::default() }
}

fn message(of: &Value, files: &mut Vec<File>) -> Option<Message> {
    let id = text(of, &["id"]);
    let parts = match of.get("content")? {
        Value::Array(parts) => parts.as_slice(),
        _ => &[],
    };
    let mut positions = Vec::new();
    let names = ["fileUrl", "file_url", "fileName", "file_name"];
    for part in parts.iter().filter(|part| member(part, &names).is_some()) {
        if let Some(file) = file(part, id.as_deref()) {
            positions.push(files.len());
            files.push(file);
        }
    }
    let role = text(of, &["role"]).unwrap_or_else(|| "assistant".to_owned());
    Some(Message { created_at: time(of, "created_at"), text: content(of), role, id, files: positions })
}

/// Where a task stands at this moment.
pub(super) async fn standing(api: &Api, task_id: &str) -> Result<Standing, ApiError> {
    api.0.budget.take(Use::Answer).await;
    let reply = task(api, task_id).await?;
    Ok(convert(task_id.to_owned(), &reply.value).into())
}

pub(super) async fn create_task(api: &Api, task: &NewTask) -> Result<Created, ApiError> {
    if task.schema.is_some() {
        let reason = "version 1 of Manus's API takes no schema: use `api_version = \"v2\"`";
        return Err(ApiError::Unsupported { call: CREATE.name, reason });
    }
    let mut body = json!({"prompt": task.prompt, "agentProfile": task.profile.as_deref().unwrap_or(PROFILE)});
    if let Some(project) = &task.project {
        body["projectId"] = json!(project);
    }
    if task.interactive {
        body["interactiveMode"] = json!(true);
    }
    if !task.files.is_empty() {
        let file = |file: &Attached| json!({"filename": file.name, "fileData": file.data_url()});
        body["attachments"] = task.files.iter().map(file).collect();
    }
    let request = api.uploading(api.request(CREATE, Method::POST, "/v1/tasks").json(&body), task.attached());
    let reply = api.call(CREATE, Some(Use::Answer), request).await?;
    created(CREATE, &reply.value)
}

/// Says `message` to a task that `model` worked on. The caller has taken its place in the budget.
pub(super) async fn reply(api: &Api, task_id: &str, model: Option<&str>, message: &str) -> Result<(), ApiError> {
    let body = json!({"prompt": message, "agentProfile": profile(model), "taskId": task_id});
    let reply = api.call(CREATE, None, api.request(CREATE, Method::POST, "/v1/tasks").json(&body)).await?;
    about(CREATE, task_id, text(&reply.value, &["task_id", "id"]))
}

/// The profile to go on with: the one that the model's name begins with, so that an answer does not make a task dearer.
fn profile(model: Option<&str>) -> &'static str {
    let begins = |profile: &&&str| model.is_some_and(|model| model.starts_with(**profile));
    PROFILES.iter().find(begins).copied().unwrap_or(PROFILE)
}

/// A created task, in an answer of either version.
pub(super) fn created(call: Call, value: &Value) -> Result<Created, ApiError> {
    let task_id = text(value, &["task_id", "id"]).ok_or_else(|| call.nonsense("there is no `task_id` in it"))?;
    Ok(Created { task_id, title: text(value, &["task_title"]), url: text(value, &["task_url"]) })
}

/// Refuses an answer that says it is `about` another task.
pub(super) fn about(call: Call, task_id: &str, about: Option<String>) -> Result<(), ApiError> {
    if about.is_some_and(|about| about != task_id) {
        return Err(call.nonsense("it is about another task"));
    }
    Ok(())
}

pub(super) fn webhooks_list() -> Result<Vec<Webhook>, ApiError> {
    let reason =
        "version 1 of Manus's API lists no webhooks; see them at manus.im in the settings, or use `api_version = \"v2\"`";
    Err(ApiError::Unsupported { call: LIST.name, reason })
}

pub(super) async fn webhooks_register(api: &Api, url: &str) -> Result<Webhook, ApiError> {
    let request = api.request(REGISTER, Method::POST, "/v1/webhooks").json(&json!({"webhook": {"url": url}}));
    let reply = api.call(REGISTER, Some(Use::Answer), request).await?;
    webhook(&reply.value, Some(url)).ok_or_else(|| REGISTER.nonsense("there is no `webhook_id` in it"))
}

/// A webhook, in an answer of either version.
pub(super) fn webhook(of: &Value, url: Option<&str>) -> Option<Webhook> {
    let of = member(of, &["webhook"]).unwrap_or(of);
    Some(Webhook {
        id: text(of, &["webhook_id", "id"])?,
        url: text(of, &["url"]).or_else(|| url.map(ToOwned::to_owned)),
        status: text(of, &["status"]),
        created_at: time(of, "created_at"),
    })
}

pub(super) async fn webhooks_delete(api: &Api, id: &str) -> Result<(), ApiError> {
    let id = path_segment(id).ok_or(ApiError::NotFound { call: DELETE.name })?;
    let request = api.request(DELETE, Method::DELETE, &format!("/v1/webhooks/{id}"));
    api.call(DELETE, Some(Use::Answer), request).await.map(|_| ())
}
