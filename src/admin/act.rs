//! What a person may ask for about what was received and what is handed on: retry, discard, replay, pause.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Admin, Refused, What};
use crate::action::{MANY, Many};
use crate::store::model::{Act, Like};

/// What `POST …/replay`, `…/retry` and `…/discard` take for many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish<F> {
    filter: F,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<String>,
}

/// What events are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Events {
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    task: Option<String>,
    state: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// What deliveries are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Deliveries {
    destination: Option<String>,
    route: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    task: Option<String>,
    state: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl From<Events> for Like {
    fn from(events: Events) -> Self {
        let Events { source, kind, task, state, since, until } = events;
        Self { source, kind, task, state, since, until, destination: None, route: None }
    }
}

impl From<Deliveries> for Like {
    fn from(deliveries: Deliveries) -> Self {
        let Deliveries { destination, route, source, kind, task, state, since, until } = deliveries;
        Self { source, kind, task, state, since, until, destination, route }
    }
}

type Body<F> = Result<Json<Wish<F>>, JsonRejection>;

async fn many<F: Into<Like>>(admin: &Admin, act: Act, states: &[&str], body: Body<F>) -> Result<Response, Refused> {
    let bad = |code, title: String| Refused::new(StatusCode::BAD_REQUEST, code, title);
    let Json(wish) = body.map_err(|error| bad("body_invalid", error.body_text()))?;
    let like: Like = wish.filter.into();
    if like.state.as_deref().is_some_and(|state| !states.contains(&state)) {
        return Err(bad("filter_invalid", format!("`state` is one of {}", states.join(", "))));
    }
    let limit = wish.limit.unwrap_or(MANY);
    if limit == 0 || limit > MANY {
        return Err(bad("body_invalid", format!("`limit` is a number from 1 to {MANY}")));
    }
    let after = wish.cursor.as_deref().map_or(Ok(0), str::parse);
    let after = after.map_err(|_| bad("body_invalid", "`cursor` is not one of ours".to_owned()))?;
    let done = admin.actions.many(&Many { act, like, dry_run: wish.dry_run, limit, after }).await?;
    Ok(Json(done).into_response())
}

pub(super) async fn replay_many(State(admin): State<Arc<Admin>>, body: Body<Events>) -> Result<Response, Refused> {
    many(&admin, Act::Replay, &["done", "dead", "kept"], body).await
}

pub(super) async fn retry_many(State(admin): State<Arc<Admin>>, body: Body<Deliveries>) -> Result<Response, Refused> {
    many(&admin, Act::Retry, &["dead", "pending"], body).await
}

pub(super) async fn discard_many(State(admin): State<Arc<Admin>>, body: Body<Deliveries>) -> Result<Response, Refused> {
    many(&admin, Act::Discard, &["dead", "pending"], body).await
}

pub(super) async fn replay(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    let id = admin.whole_id(What::Event, id).await?;
    let replay = admin.actions.replay(&id).await?;
    Ok(Json(json!({"id": id, "replay": replay})))
}

pub(super) async fn delivery(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = admin.whole_id(What::Delivery, id).await?;
    let delivery = admin.store.delivery(&id).await?.ok_or_else(|| Refused::absent("delivery"))?;
    Ok(Json(delivery).into_response())
}

pub(super) async fn retry(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    let id = admin.whole_id(What::Delivery, id).await?;
    let behind = admin.actions.retry(&id).await?;
    Ok(Json(json!({"id": id, "state": "pending", "waits_behind": behind})))
}

pub(super) async fn discard(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    let id = admin.whole_id(What::Delivery, id).await?;
    admin.actions.discard(&id).await?;
    Ok(Json(json!({"id": id, "state": "discarded"})))
}

pub(super) async fn destinations(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, Refused> {
    Ok(Json(json!({"data": admin.actions.destinations().await?, "next_cursor": null})))
}

pub(super) async fn pause(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    let since = admin.actions.pause(&name).await?;
    Ok(Json(json!({"name": name, "state": "paused", "paused_at": since})))
}

pub(super) async fn resume(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    let was_paused = admin.actions.resume(&name).await?;
    Ok(Json(json!({"name": name, "state": "ok", "was_paused": was_paused})))
}
