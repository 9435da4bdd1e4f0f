//! Deliveries: lists, and single ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Admin, Refused, What};
use super::extract::{Path, Query};
use super::list::{Time, Way, page};
use crate::store::model::Like;
use crate::store::view::{DeliveryRow, Listed};

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}

/// What names a delivery.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DeliveryId {
    /// Its id; so many of its first characters will do, at least 8, that no other begins so.
    pub(super) id: String,
}

/// `?limit=50&cursor=…`, and what deliveries can be narrowed to.
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
    destination: Option<String>,
    route: Option<String>,
}

/// List deliveries, newest first
#[utoipa::path(get, path = "/api/v1/deliveries", operation_id = "list_deliveries", params(Search), responses((status = OK, body = Listed<DeliveryRow>)))]
async fn list(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Listed<DeliveryRow>>, Refused> {
    let Search { limit, cursor, after, source, kind, task, state, since, until, destination, route } = search;
    let (page, way) = page(limit, cursor.as_deref(), after.as_deref())?;
    let [since, until] = [since, until].map(|time| time.map(|time| time.0));
    let like = Like { source, kind, task, state, since, until, destination, route };
    let listed = match way {
        Way::Back => admin.store.deliveries(like, page).await?,
        Way::Forth => admin.store.deliveries_after(like, page).await?,
    };
    Ok(Json(listed))
}

/// See one delivery and its attempts
#[utoipa::path(get, path = "/api/v1/deliveries/{id}", operation_id = "get_delivery", params(DeliveryId), responses((status = OK, body = DeliveryRow)))]
async fn one(State(admin): State<Arc<Admin>>, Path(DeliveryId { id }): Path<DeliveryId>) -> Result<Json<DeliveryRow>, Refused> {
    let id = admin.whole_id(What::Delivery, id).await?;
    let delivery = admin.store.delivery(&id).await?.ok_or_else(|| Refused::absent("delivery"))?;
    Ok(Json(delivery))
}
