//! Samples of what was done, for charts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::api::{Admin, Refused};
use super::extract::Query;
use crate::store::view::Listed;
use crate::store::{Sample, Span};

/// `?span=hour&since=2026-01-15T12:00:00Z`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// Samples of minutes, or of hours
    #[param(inline, required = false)]
    span: Of,
    since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Of {
    #[default]
    Minute,
    Hour,
}

/// See how it went: a sample a minute for two days, one an hour for 62
#[utoipa::path(get, path = "/api/v1/series", operation_id = "list_samples", params(Search), responses((status = OK, body = Listed<Sample>)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Listed<Sample>>, Refused> {
    let span = match search.span {
        Of::Minute => Span::Minute,
        Of::Hour => Span::Hour,
    };
    Ok(Json(Listed::whole(admin.store.series(span, search.since.unwrap_or(Timestamp::MIN)).await?)))
}
