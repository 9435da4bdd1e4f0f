//! What a person may ask for about what was received and what is handed on: retry, discard, replay, pause.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Admin, Refused, What};
use super::deliveries::DeliveryId;
use super::events::EventId;
use super::extract::{Body, Path, bad_body};
use crate::action::{DestinationRow, Done, MANY, Many};
use crate::store::model::{Act, Like};
use crate::store::view::Listed;

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(replay))
        .routes(routes!(replay_many))
        .routes(routes!(retry))
        .routes(routes!(discard))
        .routes(routes!(retry_many))
        .routes(routes!(discard_many))
        .routes(routes!(destinations))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// What `POST …/replay`, `…/retry` and `…/discard` take for many.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wish<F> {
    /// What is meant: at least one word of it.
    filter: F,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// At most so many.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000, default = 1000)]
    limit: Option<usize>,
    /// Go on: `next_cursor` of the call before.
    #[serde(default)]
    #[schema(pattern = "^[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// What events are meant: those that all of these words fit.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = EventsMeant)]
struct Events {
    /// Of this source.
    source: Option<String>,
    /// Of events of this type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of this task, by the provider's id.
    task: Option<String>,
    /// That stand so: `done`, `dead` or `kept`.
    state: Option<String>,
    /// From this time on.
    since: Option<Timestamp>,
    /// Before this time.
    until: Option<Timestamp>,
}

/// What deliveries are meant: those that all of these words fit.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = DeliveriesMeant)]
struct Deliveries {
    /// To this destination.
    destination: Option<String>,
    /// Chosen by this route.
    route: Option<String>,
    /// Of this source.
    source: Option<String>,
    /// Of events of this type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of this task, by the provider's id.
    task: Option<String>,
    /// That stand so: `dead` or `pending`.
    state: Option<String>,
    /// From this time on.
    since: Option<Timestamp>,
    /// Before this time.
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

async fn many<F: Into<Like>>(admin: &Admin, act: Act, states: &[&str], wish: Wish<F>) -> Result<Json<Done>, Refused> {
    let like: Like = wish.filter.into();
    if like.state.as_deref().is_some_and(|state| !states.contains(&state)) {
        let title = format!("`state` is one of {}", states.join(", "));
        return Err(Refused::new(StatusCode::BAD_REQUEST, "filter_invalid", title));
    }
    let limit = wish.limit.unwrap_or(MANY);
    if limit == 0 || limit > MANY {
        return Err(bad_body(format!("`limit` is a number from 1 to {MANY}")));
    }
    let after = wish.cursor.as_deref().map_or(Ok(0), str::parse).map_err(|_| bad_body("`cursor` is not one of ours"))?;
    Ok(Json(admin.actions.many(&Many { act, like, dry_run: wish.dry_run, limit, after }).await?))
}

/// Hand the events that are meant on anew
#[utoipa::path(
    post,
    path = "/api/v1/events/replay",
    operation_id = "replay_events",
    request_body = Wish<Events>,
    responses((status = OK, body = Done))
)]
async fn replay_many(State(admin): State<Arc<Admin>>, Body(wish): Body<Wish<Events>>) -> Result<Json<Done>, Refused> {
    many(&admin, Act::Replay, &["done", "dead", "kept"], wish).await
}

/// Try the deliveries that are meant again
#[utoipa::path(
    post,
    path = "/api/v1/deliveries/retry",
    operation_id = "retry_deliveries",
    request_body = Wish<Deliveries>,
    responses((status = OK, body = Done))
)]
async fn retry_many(State(admin): State<Arc<Admin>>, Body(wish): Body<Wish<Deliveries>>) -> Result<Json<Done>, Refused> {
    many(&admin, Act::Retry, &["dead", "pending"], wish).await
}

/// Give the deliveries that are meant up for good
#[utoipa::path(
    post,
    path = "/api/v1/deliveries/discard",
    operation_id = "discard_deliveries",
    request_body = Wish<Deliveries>,
    responses((status = OK, body = Done))
)]
async fn discard_many(State(admin): State<Arc<Admin>>, Body(wish): Body<Wish<Deliveries>>) -> Result<Json<Done>, Refused> {
    many(&admin, Act::Discard, &["dead", "pending"], wish).await
}

/// An event that is handed on anew.
#[derive(Debug, Serialize, ToSchema)]
struct EventReplayed {
    /// Its whole id.
    id: String,
    /// How often it was replayed by now.
    replay: u32,
}

/// Hand an event on anew, by the routes of now
#[utoipa::path(
    post,
    path = "/api/v1/events/{id}/replay",
    operation_id = "replay_event",
    params(EventId),
    responses((status = OK, body = EventReplayed))
)]
async fn replay(State(admin): State<Arc<Admin>>, Path(EventId { id }): Path<EventId>) -> Result<Json<EventReplayed>, Refused> {
    let id = admin.whole_id(What::Event, id).await?;
    let replay = admin.actions.replay(&id).await?;
    Ok(Json(EventReplayed { id, replay }))
}

/// A delivery that is tried again.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryRetried {
    /// Its whole id.
    id: String,
    /// `pending`.
    state: &'static str,
    /// The delivery that it goes after, where it does not go now.
    waits_behind: Option<String>,
}

/// Try a delivery again: the same one, its next attempt
#[utoipa::path(
    post,
    path = "/api/v1/deliveries/{id}/retry",
    operation_id = "retry_delivery",
    params(DeliveryId),
    responses((status = OK, body = DeliveryRetried))
)]
async fn retry(
    State(admin): State<Arc<Admin>>,
    Path(DeliveryId { id }): Path<DeliveryId>,
) -> Result<Json<DeliveryRetried>, Refused> {
    let id = admin.whole_id(What::Delivery, id).await?;
    let waits_behind = admin.actions.retry(&id).await?;
    Ok(Json(DeliveryRetried { id, state: "pending", waits_behind }))
}

/// A delivery that was given up for good.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryDiscarded {
    /// Its whole id.
    id: String,
    /// `discarded`.
    state: &'static str,
}

/// Give a delivery up for good
#[utoipa::path(
    post,
    path = "/api/v1/deliveries/{id}/discard",
    operation_id = "discard_delivery",
    params(DeliveryId),
    responses((status = OK, body = DeliveryDiscarded))
)]
async fn discard(
    State(admin): State<Arc<Admin>>,
    Path(DeliveryId { id }): Path<DeliveryId>,
) -> Result<Json<DeliveryDiscarded>, Refused> {
    let id = admin.whole_id(What::Delivery, id).await?;
    admin.actions.discard(&id).await?;
    Ok(Json(DeliveryDiscarded { id, state: "discarded" }))
}

/// List destinations, and what waits for each
#[utoipa::path(
    get,
    path = "/api/v1/destinations",
    operation_id = "list_destinations",
    responses((status = OK, body = Listed<DestinationRow>))
)]
async fn destinations(State(admin): State<Arc<Admin>>) -> Result<Json<Listed<DestinationRow>>, Refused> {
    Ok(Json(Listed::whole(admin.actions.destinations().await?)))
}

/// What names a destination.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct DestinationName {
    /// Its name.
    name: String,
}

/// A destination that nothing is sent to.
#[derive(Debug, Serialize, ToSchema)]
struct DestinationPaused {
    /// Its name.
    name: String,
    /// `paused`.
    state: &'static str,
    /// Since when.
    #[schema(format = DateTime)]
    paused_at: String,
}

/// Send nothing to a destination until it is resumed
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{name}/pause",
    operation_id = "pause_destination",
    params(DestinationName),
    responses((status = OK, body = DestinationPaused))
)]
async fn pause(
    State(admin): State<Arc<Admin>>,
    Path(DestinationName { name }): Path<DestinationName>,
) -> Result<Json<DestinationPaused>, Refused> {
    let paused_at = admin.actions.pause(&name).await?;
    Ok(Json(DestinationPaused { name, state: "paused", paused_at }))
}

/// A destination that is sent to again.
#[derive(Debug, Serialize, ToSchema)]
struct DestinationResumed {
    /// Its name.
    name: String,
    /// `ok`.
    state: &'static str,
    /// Whether it was paused until now.
    was_paused: bool,
}

/// Send to a paused destination again
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{name}/resume",
    operation_id = "resume_destination",
    params(DestinationName),
    responses((status = OK, body = DestinationResumed))
)]
async fn resume(
    State(admin): State<Arc<Admin>>,
    Path(DestinationName { name }): Path<DestinationName>,
) -> Result<Json<DestinationResumed>, Refused> {
    let was_paused = admin.actions.resume(&name).await?;
    Ok(Json(DestinationResumed { name, state: "ok", was_paused }))
}
