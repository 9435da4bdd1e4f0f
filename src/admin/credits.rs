//! What tasks cost and used, by day and source.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::api::{Admin, Refused};
use super::extract::Query;
use super::list::bad;
use crate::store::{Amounts, Spent};
use crate::task::plain;

/// The most days that are told at once.
const MOST: u16 = 366;

/// `?source=NAME&days=7`
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    source: Option<String>,
    /// How many days back, today among them
    #[param(minimum = 1, maximum = 366, default = 7)]
    days: Option<u16>,
}

/// What tasks cost and used, by day and source.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Costs {
    /// The newest day first.
    data: Vec<Cost>,
    /// Always `null`: there is one page.
    next_cursor: Option<String>,
    /// What days are counted by, such as `UTC` or `Europe/Lisbon`.
    time_zone: String,
}

/// What the tasks of a source cost and used on one day.
#[derive(Debug, Serialize, ToSchema)]
struct Cost {
    /// The day, such as `2026-01-15`.
    #[schema(format = Date)]
    day: String,
    /// The source.
    source: String,
    /// What they cost, in the provider's credits; less than 0 where more was given back.
    #[schema(value_type = f64)]
    credits: Value,
    /// The most that they should cost, where that is configured.
    #[schema(value_type = Option<f64>)]
    budget: Option<Value>,
    /// What they used.
    usage: Used,
}

/// What tasks used.
#[derive(Debug, Serialize, ToSchema)]
struct Used {
    /// Tokens read.
    input_tokens: i64,
    /// Tokens written.
    output_tokens: i64,
    /// Seconds of computing.
    #[schema(value_type = f64)]
    compute_seconds: Value,
    /// Money, in US dollars.
    #[schema(value_type = f64)]
    cost_usd: Value,
}

/// See what tasks cost and used, by day and source
#[utoipa::path(get, path = "/api/v1/credits", operation_id = "list_credits", params(Search), responses((status = OK, body = Costs)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Costs>, Refused> {
    let days = search.days.unwrap_or(7);
    if days == 0 || days > MOST {
        return Err(bad(format!("`days` is a number from 1 to {MOST}")));
    }
    let zone = &admin.days.1;
    let spent = admin.store.spent(search.source.as_deref(), days, zone, admin.days.0.now()).await?;
    let budget = |source: &str| admin.actions.source(Some(source)).ok().and_then(|source| source.credits_per_day());
    let row = |spent: Spent| {
        let budget = budget(&spent.source).map(plain);
        let Amounts { credits, input_tokens, output_tokens, compute_seconds, cost_usd } = spent.amounts;
        // Sums of what is told in decimals, such as 0.1 and 0.2 dollars.
        let [credits, compute_seconds, cost_usd] =
            [credits, compute_seconds, cost_usd].map(|sum| plain((sum * 1e6).round() / 1e6));
        let usage = Used { input_tokens, output_tokens, compute_seconds, cost_usd };
        Cost { day: spent.day.to_string(), source: spent.source, credits, budget, usage }
    };
    Ok(Json(Costs { data: spent.into_iter().map(row).collect(), next_cursor: None, time_zone: zone.to_string() }))
}
