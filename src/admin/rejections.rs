//! Requests that did not verify: lists, and single ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Admin, Refused};
use super::extract::{Path, Query};
use super::list::{Time, Way, page};
use crate::store::view::{Listed, RejectionDetail, RejectionFilter, RejectionRow};

pub(super) fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}

/// `?limit=50&cursor=…`, and what rejections can be narrowed to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Search {
    limit: Option<usize>,
    cursor: Option<String>,
    after: Option<String>,
    source: Option<String>,
    code: Option<String>,
    #[param(inline)]
    since: Option<Time>,
    #[param(inline)]
    until: Option<Time>,
}

/// List requests that did not verify, newest first
#[utoipa::path(get, path = "/api/v1/rejections", operation_id = "list_rejections", params(Search), responses((status = OK, body = Listed<RejectionRow>)))]
async fn list(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Listed<RejectionRow>>, Refused> {
    let Search { limit, cursor, after, source, code, since, until } = search;
    let (page, way) = page(limit, cursor.as_deref(), after.as_deref())?;
    let [since, until] = [since, until].map(|time| time.map(|time| time.0));
    let filter = RejectionFilter { source, code, since, until };
    let listed = match way {
        Way::Back => admin.store.rejections(filter, page).await?,
        Way::Forth => admin.store.rejections_after(filter, page).await?,
    };
    Ok(Json(listed))
}

/// See one request that did not verify, and what would have matched
#[utoipa::path(
    get,
    path = "/api/v1/rejections/{id}",
    operation_id = "get_rejection",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = OK, body = RejectionDetail))
)]
async fn one(State(admin): State<Arc<Admin>>, Path(id): Path<i64>) -> Result<Json<RejectionDetail>, Refused> {
    let rejection = admin.rejection_shown(id).await?.ok_or_else(|| Refused::absent("rejection"))?;
    Ok(Json(rejection))
}

impl Admin {
    /// A rejection as it may be shown to people.
    pub(super) async fn rejection_shown(&self, id: i64) -> Result<Option<RejectionDetail>, Refused> {
        let Some(mut rejection) = self.store.rejection(id).await? else { return Ok(None) };
        if let Some(masked) = self.actions.mask(&rejection.row.source, &rejection.body) {
            rejection.body = masked;
        }
        Ok(Some(rejection))
    }
}
