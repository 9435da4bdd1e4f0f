//! Events: lists, and single ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Admin, Refused, What};
use super::extract::{Path, Query};
use super::list::{Time, Way, page, text};
use crate::store::view::{EventDetail, EventFilter, EventRow, Listed};

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(release))
}

/// What names an event.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct EventId {
    /// Its id; so many of its first characters will do, at least 8, that no other begins so.
    pub(super) id: String,
}

/// `?limit=50&cursor=…`, and what events can be narrowed to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Search {
    limit: Option<usize>,
    cursor: Option<String>,
    after: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    task: Option<String>,
    state: Option<String>,
    #[param(inline)]
    since: Option<Time>,
    #[param(inline)]
    until: Option<Time>,
    text: Option<String>,
}

/// List events, newest first
#[utoipa::path(get, path = "/api/v1/events", operation_id = "list_events", params(Search), responses((status = OK, body = Listed<EventRow>)))]
async fn list(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Listed<EventRow>>, Refused> {
    let (page, way) = page(search.limit, search.cursor.as_deref(), search.after.as_deref())?;
    let filter = EventFilter {
        source: search.source,
        kind: search.kind,
        task_id: search.task,
        state: search.state,
        since: search.since.map(|time| time.0),
        until: search.until.map(|time| time.0),
        text: text(search.text)?,
    };
    let listed = match way {
        Way::Back => admin.store.events(filter, page).await?,
        Way::Forth => admin.store.events_after(filter, page).await?,
    };
    Ok(Json(listed))
}

/// See one event: its headers, its exact body, what became of it
#[utoipa::path(get, path = "/api/v1/events/{id}", operation_id = "get_event", params(EventId), responses((status = OK, body = EventDetail)))]
async fn one(State(admin): State<Arc<Admin>>, Path(EventId { id }): Path<EventId>) -> Result<Json<EventDetail>, Refused> {
    let id = admin.whole_id(What::Event, id).await?;
    let event = admin.event_shown(&id).await?.ok_or_else(|| Refused::absent("event"))?;
    Ok(Json(event))
}

impl Admin {
    /// An event as it may be shown to people.
    pub(super) async fn event_shown(&self, id: &str) -> Result<Option<EventDetail>, Refused> {
        let Some(mut event) = self.store.event(id).await? else { return Ok(None) };
        let mask = |shown: &str| self.actions.mask(&event.row.source, shown);
        let masked = match &event.payload {
            Value::String(text) => mask(text).map(Value::from),
            json => mask(&json.to_string()).and_then(|text| serde_json::from_str(&text).ok()),
        };
        event.payload = masked.unwrap_or(event.payload);
        Ok(Some(event))
    }
}

/// An event that is proven anew.
#[derive(Debug, Serialize, ToSchema)]
struct Released {
    /// Its whole id.
    id: String,
    /// `proving`.
    state: &'static str,
}

/// Release an event from quarantine: its task is proven once more
#[utoipa::path(post, path = "/api/v1/events/{id}/release", operation_id = "release_event", params(EventId), responses((status = OK, body = Released)))]
async fn release(State(admin): State<Arc<Admin>>, Path(EventId { id }): Path<EventId>) -> Result<Json<Released>, Refused> {
    let id = admin.whole_id(What::Event, id).await?;
    admin.actions.release(&id).await?;
    Ok(Json(Released { id, state: "proving" }))
}
