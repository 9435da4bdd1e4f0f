//! What tasks cost, by day and source.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Admin, Refused};
use crate::task::plain;

/// The most days that are told at once.
const MOST: u16 = 366;

/// `?source=NAME&days=7`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Search {
    source: Option<String>,
    days: Option<u16>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    asked: Result<Query<Search>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let bad = |title: String| Refused::new(StatusCode::BAD_REQUEST, "query_invalid", title);
    let Query(search) = asked.map_err(|error| bad(error.body_text()))?;
    let days = search.days.unwrap_or(7);
    if days == 0 || days > MOST {
        return Err(bad(format!("`days` is a number from 1 to {MOST}")));
    }
    let zone = &admin.days.1;
    let spent = admin.store.spent(search.source.as_deref(), days, zone, admin.days.0.now()).await?;
    let budget = |source: &str| admin.actions.source(Some(source)).ok().and_then(|source| source.credits_per_day());
    let row = |spent: crate::store::Spent| {
        let budget = budget(&spent.source).map(plain);
        json!({"day": spent.day.to_string(), "source": spent.source, "credits": plain(spent.credits), "budget": budget})
    };
    Ok(Json(json!({"data": spent.into_iter().map(row).collect::<Vec<_>>(), "next_cursor": null, "time_zone": zone.to_string()})))
}
