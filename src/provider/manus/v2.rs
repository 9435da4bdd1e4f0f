//! Version 2 of Manus's API: a task and its conversation are asked for apart, the conversation page by page.

use std::collections::HashSet;

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Call, Reply, is_id};
use super::convert::{is_true, items, member, number, stop_reason, text, time};
use super::talk::{Talk, state};
use super::v1::{about, created, key_in, webhook};
use crate::provider::{ApiError, Attached, Created, ListPage, Listed, NewTask, Probe, Standing, Use, Webhook};
use crate::signature::rsa::PublicKey;
use crate::task::{Fetched, State, Stop, Task};

const DETAIL: Call = Call::v2("task.detail");
const LIST: Call = Call::v2("task.list");
const MESSAGES: Call = Call::v2("task.listMessages");
const CREATE: Call = Call::v2("task.create");
const SAY: Call = Call::v2("task.sendMessage");
const CONFIRM: Call = Call::v2("task.confirmAction");
const STOP: Call = Call::v2("task.stop");
const PUBLIC_KEY: Call = Call::v2("webhook.publicKey");
const WEBHOOKS: Call = Call::v2("webhook.list");
const REGISTER: Call = Call::v2("webhook.create");
const DELETE: Call = Call::v2("webhook.delete");

/// The most pages of a conversation that are read, of 200 events each: the newest.
const MAX_PAGES: usize = 50;
/// The most bytes of a conversation that are read.
const MAX_CONVERSATION: usize = 32 << 20;

pub(super) async fn public_key(api: &Api) -> (Result<PublicKey, ApiError>, Option<SignedDuration>) {
    let (reply, skew) = api.call_now(PUBLIC_KEY, get(api, PUBLIC_KEY, &[])).await;
    (reply.and_then(|reply| key_in(PUBLIC_KEY, &reply.value)), skew)
}

/// The newest tasks, or those behind `cursor`. The caller has taken its place in the budget.
pub(super) async fn tasks(api: &Api, cursor: Option<&str>) -> Result<ListPage, ApiError> {
    let mut query = vec![("limit", "100"), ("order", "desc")];
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    let reply = api.call(LIST, None, get(api, LIST, &query)).await?;
    let tasks: Vec<_> = list(LIST, &reply.value, "data")?.iter().filter_map(listed).collect();
    let next = text(&reply.value, &["next_cursor"]).filter(|next| has_more(&reply.value) && cursor != Some(next));
    Ok(ListPage { reaches: tasks.iter().filter_map(|task| task.created_at).min(), tasks, next })
}

/// Whether a page says that more follow.
fn has_more(page: &Value) -> bool {
    if member(page, &["has_more"]).is_some() { is_true(page, "has_more") } else { text(page, &["next_cursor"]).is_some() }
}

fn listed(of: &Value) -> Option<Listed> {
    Some(Listed {
        task_id: text(of, &["id", "task_id"])?,
        state: state(text(of, &["status"]).as_deref()),
        background: is_true(of, "has_running_background_jobs"),
        title: text(of, &["title", "task_title"]),
        url: text(of, &["task_url", "url"]),
        created_at: time(of, "created_at"),
        updated_at: time(of, "updated_at"),
    })
}

pub(super) async fn probe(api: &Api, task_id: &str) -> Result<Probe, ApiError> {
    let reply = detail(api, task_id).await?;
    let task = &reply.value["task"];
    if text(task, &["id"]).as_deref() != Some(task_id) {
        return Err(DETAIL.nonsense("it does not say which task it is about"));
    }
    // Only the word proves it: a task without one may be shared.
    let private = text(task, &["share_visibility"]).as_deref() == Some("private");
    Ok(if private { Probe::Ours { how: "private" } } else { Probe::Visible })
}

pub(super) async fn fetch(api: &Api, task_id: &str) -> Result<Fetched, ApiError> {
    let detail = detail(api, task_id).await?;
    // Newest first: if the conversation is longer than we read, it is its end that matters.
    let (mut events, mut pages, mut size, mut cursor) = (Vec::new(), Vec::new(), 0, None::<String>);
    let complete = loop {
        let mut query = vec![("task_id", task_id), ("limit", "200"), ("order", "desc")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let mut page = api.call(MESSAGES, Some(Use::Fetch), get(api, MESSAGES, &query)).await?;
        match page.value.get_mut("messages").map(Value::take) {
            Some(Value::Array(messages)) => events.extend(messages),
            _ => return Err(MESSAGES.nonsense("there is no list `messages` in it")),
        }
        let next = text(&page.value, &["next_cursor"]);
        let more = has_more(&page.value);
        size += page.raw.len();
        pages.push(page.raw);
        if !more {
            break true;
        }
        // A cursor that is missing or stands still would never end.
        if pages.len() == MAX_PAGES || size > MAX_CONVERSATION || next.is_none() || next == cursor {
            break false;
        }
        cursor = next;
    };
    let mut fetched = convert(task_id.to_owned(), &detail.value["task"], &in_order(events));
    fetched.task.complete = complete;
    let pages: Vec<_> = pages.iter().map(|page| page.trim()).collect();
    Ok(Fetched { raw: format!(r#"{{"detail":{},"messages":[{}]}}"#, detail.raw.trim(), pages.join(",")), ..fetched })
}

/// The ends of the newest turns: those that the newest events show. The caller has taken its place in the budget.
pub(super) async fn stops(api: &Api, task_id: &str) -> Result<Vec<Stop>, ApiError> {
    Ok(Talk::of(&newest(api, task_id).await?).stops)
}

/// Where a task stands at this moment, by its newest events.
pub(super) async fn standing(api: &Api, task_id: &str) -> Result<Standing, ApiError> {
    api.0.budget.take(Use::Answer).await;
    let events = newest(api, task_id).await?;
    Ok(convert(task_id.to_owned(), &Value::Null, &events).into())
}

/// The newest 200 events of a task, the oldest first.
async fn newest(api: &Api, task_id: &str) -> Result<Vec<Value>, ApiError> {
    if !is_id(task_id) {
        return Err(ApiError::NotFound { call: MESSAGES.name });
    }
    let query = [("task_id", task_id), ("limit", "200"), ("order", "desc")];
    let mut reply = api.call(MESSAGES, None, get(api, MESSAGES, &query)).await?;
    match reply.value.get_mut("messages").map(Value::take) {
        Some(Value::Array(events)) => Ok(in_order(events)),
        _ => Err(MESSAGES.nonsense("there is no list `messages` in it")),
    }
}

/// The task as it stood at the stop `anchor`, from the answers in `raw`; `None` where they do not show that.
pub(super) fn turn(task_id: &str, raw: &Value, anchor: &str) -> Option<Fetched> {
    let pages = raw.get("messages")?.as_array()?;
    let events = in_order(pages.iter().flat_map(|page| items(page, "messages")).cloned().collect());
    let last = events.iter().position(|event| text(event, &["id"]).as_deref() == Some(anchor))?;
    // What the stop made is told behind it.
    let made =
        events[last + 1..].iter().take_while(|event| text(event, &["type"]).as_deref() == Some("structured_output_result"));
    let end = last + 1 + made.count();
    let mut detail = raw.get("detail")?.get("task")?.clone();
    detail["status"] = events[last].get("status_update")?.get("agent_status")?.clone();
    // Of this turn nothing is known to run any more.
    detail.as_object_mut()?.remove("has_running_background_jobs");
    Some(convert(task_id.to_owned(), &detail, &events[..end]))
}

/// `task.detail`, checked to be about this task. The caller has taken its place in the budget.
async fn detail(api: &Api, task_id: &str) -> Result<Reply, ApiError> {
    // What cannot be an id is not the id of a task.
    if !is_id(task_id) {
        return Err(ApiError::NotFound { call: DETAIL.name });
    }
    let reply = api.call(DETAIL, None, get(api, DETAIL, &[("task_id", task_id)])).await?;
    match reply.value.get("task").filter(|task| task.is_object()) {
        None => Err(DETAIL.nonsense("there is no `task` in it")),
        // Names such as `agent-default-main_task` stand for other tasks.
        Some(task) if text(task, &["id"]).is_some_and(|about| about != task_id) => {
            Err(DETAIL.nonsense("it is about another task"))
        }
        Some(_) => Ok(reply),
    }
}

fn get(api: &Api, call: Call, query: &[(&str, &str)]) -> reqwest::RequestBuilder {
    api.request(call, Method::GET, &format!("/v2/{}", call.name)).query(query)
}

fn post(api: &Api, call: Call, body: &Value) -> reqwest::RequestBuilder {
    api.request(call, Method::POST, &format!("/v2/{}", call.name)).json(body)
}

fn list<'a>(call: Call, value: &'a Value, name: &str) -> Result<&'a [Value], ApiError> {
    match value.get(name).and_then(Value::as_array) {
        Some(items) => Ok(items),
        None => Err(call.nonsense(format!("there is no list `{name}` in it"))),
    }
}

/// Events that came newest first, oldest first and each once: pages overlap while a task still talks.
fn in_order(events: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::new();
    let mut events: Vec<_> =
        events.into_iter().filter(|event| text(event, &["id"]).is_none_or(|id| seen.insert(id))).rev().collect();
    // In case `order` was not obeyed. Stable; an event without a time stays behind the one before it.
    let mut last = None;
    let mut keyed: Vec<_> = events
        .drain(..)
        .map(|event| {
            last = time(&event, "timestamp").or(last);
            (last, event)
        })
        .collect();
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, event)| event).collect()
}

/// A task of version 2 and its events (oldest first), in our words.
pub(super) fn convert(id: String, of: &Value, events: &[Value]) -> Fetched {
    let heard = Talk::of(events);
    let state = match (state(text(of, &["status"]).as_deref()), state(heard.status.as_deref())) {
        (State::Finished, _) | (State::Unknown, State::Finished) if heard.user_stop => State::Stopped,
        (State::Unknown, told) => told,
        (known, _) => known,
    };
    let mut task = Task {
        id,
        title: text(of, &["title", "task_title"]),
        url: text(of, &["task_url", "url"]),
        state,
        stop_reason: stop_reason(state),
        model: text(of, &["agent_profile", "model"]),
        created_at: time(of, "created_at"),
        updated_at: time(of, "updated_at"),
        credits: number(of, "credit_usage"),
        complete: true,
        background: is_true(of, "has_running_background_jobs"),
        question: (state == State::Waiting).then(|| heard.question()),
        structured_output: heard.structured,
        error: if state == State::Failed { heard.error } else { None },
        messages: heard.messages,
        ..Task::default()
    };
    task.bound_messages();
    let ended = !matches!(state, State::Running | State::Unknown);
    let stands_at = heard.stops.last().filter(|stop| ended && !heard.open && stop.state == state);
    Fetched {
        stands_at: stands_at.map(|stop| stop.anchor.clone()),
        task,
        files: heard.files,
        stops: heard.stops,
        ..Fetched::default()
    }
}

pub(super) async fn create_task(api: &Api, task: &NewTask) -> Result<Created, ApiError> {
    let content = if task.files.is_empty() {
        json!(task.prompt)
    } else {
        let part = |file: &Attached| json!({"type": "file", "file_data": file.data_url(), "filename": file.name, "mime_type": file.content_type});
        let parts = std::iter::once(json!({"type": "text", "text": task.prompt})).chain(task.files.iter().map(part));
        Value::Array(parts.collect())
    };
    let mut body = json!({"message": {"content": content}});
    if let Some(profile) = &task.profile {
        body["agent_profile"] = json!(profile);
    }
    if let Some(project) = &task.project {
        body["project_id"] = json!(project);
    }
    if let Some(schema) = &task.schema {
        body["structured_output_schema"] = schema.clone();
    }
    if task.interactive {
        body["interactive_mode"] = json!(true);
    }
    let request = api.uploading(post(api, CREATE, &body), task.attached());
    let reply = api.call(CREATE, Some(Use::Answer), request).await?;
    created(CREATE, &reply.value)
}

/// The caller has taken its place in the budget.
pub(super) async fn reply(api: &Api, task_id: &str, message: &str) -> Result<(), ApiError> {
    let body = json!({"task_id": task_id, "message": {"content": message}});
    let reply = api.call(SAY, None, post(api, SAY, &body)).await?;
    about(SAY, task_id, text(&reply.value, &["task_id"]))
}

/// The caller has taken its place in the budget.
pub(super) async fn confirm(api: &Api, task_id: &str, event_id: &str, input: &Value) -> Result<bool, ApiError> {
    let body = json!({"task_id": task_id, "event_id": event_id, "input": input});
    let reply = api.call(CONFIRM, None, post(api, CONFIRM, &body)).await?;
    about(CONFIRM, task_id, text(&reply.value, &["task_id"]))?;
    // An answer without the word is a success all the same.
    Ok(member(&reply.value, &["confirmed"]).is_none() || is_true(&reply.value, "confirmed"))
}

/// The caller has taken its place in the budget.
pub(super) async fn stop(api: &Api, task_id: &str) -> Result<(), ApiError> {
    api.call(STOP, None, post(api, STOP, &json!({"task_id": task_id}))).await.map(drop)
}

pub(super) async fn webhooks_list(api: &Api) -> Result<Vec<Webhook>, ApiError> {
    let reply = api.call(WEBHOOKS, Some(Use::Answer), get(api, WEBHOOKS, &[])).await?;
    Ok(list(WEBHOOKS, &reply.value, "data")?.iter().filter_map(|of| webhook(of, None)).collect())
}

pub(super) async fn webhooks_register(api: &Api, url: &str) -> Result<Webhook, ApiError> {
    let reply = api.call(REGISTER, Some(Use::Answer), post(api, REGISTER, &json!({"url": url}))).await?;
    webhook(&reply.value, Some(url)).ok_or_else(|| REGISTER.nonsense("there is no `webhook` in it"))
}

pub(super) async fn webhooks_delete(api: &Api, id: &str) -> Result<(), ApiError> {
    api.call(DELETE, Some(Use::Answer), post(api, DELETE, &json!({"webhook_id": id}))).await.map(|_| ())
}
