//! How things stand: what waits, what needs a person, by source and destination, and how fast it goes.
//!
//! What must hold: who asks for no more than what waits is answered fast, since programs ask for that all the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::api::{Admin, Refused};
use super::extract::Query;
use crate::action::DestinationRow;
use crate::clock::{self, rfc3339};
use crate::store::model::JobKind;
use crate::store::view::Backlog;
use crate::store::{COUNTED, Sample, Span};
use crate::task::plain;
use crate::telemetry::name;

/// `?since=2026-01-15T12:00:00Z`: with it, all is told, and what was done since then.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// Tell all, and what was done since then; without it, only what waits.
    since: Option<Timestamp>,
}

/// How things stand.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    #[serde(flatten)]
    backlog: Backlog,
    #[serde(flatten)]
    #[schema(value_type = StatsSince)]
    more: Option<StatsSince>,
}

/// What is told to who asks with `since`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatsSince {
    /// Since when.
    #[schema(format = DateTime)]
    since: String,
    /// Tasks that wait for an answer.
    waiting: i64,
    /// What is not as it should be.
    watches: Vec<Noticed>,
    /// Of each kind of jobs that are due, since when the first is.
    due: Vec<Overdue>,
    /// How things stand with each source.
    sources: Vec<SourceRow>,
    /// Whether all events since then were counted: of very many, only the newest are.
    sources_complete: bool,
    /// How things stand with each destination.
    destinations: Vec<DestinationRow>,
    /// What was done since then.
    rates: Rates,
}

/// How much of a kind is not as it should be.
#[derive(Debug, Serialize, ToSchema)]
struct Noticed {
    /// The type of its events.
    #[serde(rename = "type")]
    kind: String,
    /// How many.
    count: i64,
}

/// Jobs of a kind that are due.
#[derive(Debug, Serialize, ToSchema)]
struct Overdue {
    /// The kind.
    kind: String,
    /// Since when the first is.
    #[schema(format = DateTime)]
    since: String,
}

/// How things stand with a source.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct SourceRow {
    /// Its name.
    source: String,
    /// Events since then.
    events: i64,
    /// When its newest webhook came.
    #[schema(format = DateTime)]
    last_webhook_at: Option<String>,
    /// Its tasks that have not ended.
    open: i64,
    /// Those of them that wait for an answer.
    waiting: i64,
    /// What its tasks cost since then.
    #[schema(value_type = f64)]
    credits: Value,
}

/// What was done, as far as it was sampled.
#[derive(Debug, Serialize, ToSchema)]
struct Rates {
    /// How many minutes the samples are of.
    minutes: i64,
    /// Events that were accepted.
    events: i64,
    /// Requests that did not verify.
    rejections: i64,
    /// Stops that no webhook told, and that were found.
    recovered: i64,
    /// Deliveries that arrived.
    delivered: i64,
    /// Attempts that failed, or whose outcome is unknown.
    failed: i64,
    /// Of the medians of all spans, from the acceptance of an event to its arrival, the median by what was delivered: in milliseconds.
    median_ms: Option<i64>,
    /// Of the times that 95 of 100 took no longer than, the worst span's: in milliseconds.
    p95_ms: Option<i64>,
}

/// See how things stand: what waits, what needs a person, what was done
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    operation_id = "get_stats",
    params(Search),
    responses((status = OK, body = Stats))
)]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Query(search): Query<Search>) -> Result<Json<Stats>, Refused> {
    let backlog = admin.store.backlog().await?;
    let more = match search.since {
        Some(since) => Some(told_since(&admin, since).await?),
        None => None,
    };
    Ok(Json(Stats { backlog, more }))
}

async fn told_since(admin: &Admin, since: Timestamp) -> Result<StatsSince, Refused> {
    let now = admin.days.0.now();
    let watches = admin.store.watching().await?.into_iter().map(|(kind, count)| Noticed { kind, count }).collect();
    let due = admin.store.due(now).await?.into_iter();
    let due = due.map(|due| Overdue { kind: due.kind, since: rfc3339(due.since) }).collect();
    let (sources, sources_complete) = sources(admin, since, now).await?;
    let waiting = sources.iter().map(|source| source.waiting).sum();
    // Minutes are kept for some days only.
    let span = if since < now - Span::Minute.kept() { Span::Hour } else { Span::Minute };
    let rates = rates(&admin.store.series(span, since).await?);
    let destinations = admin.actions.destinations().await?;
    Ok(StatsSince { since: rfc3339(since), waiting, watches, due, sources, sources_complete, destinations, rates })
}

/// Sets the gauges of what is told here as well.
pub(super) async fn tell(admin: &Admin) -> Result<(), Refused> {
    let now = admin.days.0.now();
    let due = admin.store.due(now).await?;
    for kind in JobKind::ALL {
        let since = due.iter().find(|due| due.kind == kind.as_str()).map(|due| due.since);
        let seconds = since.map_or(0.0, |since| clock::since(since, now).as_secs_f64());
        metrics::gauge!(name::OLDEST_DUE_JOB, "kind" => kind.as_str()).set(seconds);
    }
    // One that has no task any more has none.
    let mut tasks: BTreeMap<String, (i64, i64)> =
        admin.actions.sources().map(|source| (source.name().to_owned(), (0, 0))).collect();
    for counts in admin.store.source_counts().await? {
        if let Some(at) = counts.last_webhook_at {
            metrics::gauge!(name::LAST_EVENT, "source" => counts.source.clone()).set(at.as_millisecond() as f64 / 1000.0);
        }
        tasks.insert(counts.source, (counts.open, counts.waiting));
    }
    for (source, (open, waiting)) in tasks {
        metrics::gauge!(name::OPEN_TASKS, "source" => source.clone()).set(open as f64);
        metrics::gauge!(name::WAITING_TASKS, "source" => source).set(waiting as f64);
    }
    Ok(())
}

/// What there is of each source, and whether all events since `since` were counted.
async fn sources(admin: &Admin, since: Timestamp, now: Timestamp) -> Result<(Vec<SourceRow>, bool), Refused> {
    let none = |source: &str| SourceRow {
        source: source.to_owned(),
        events: 0,
        last_webhook_at: None,
        open: 0,
        waiting: 0,
        credits: 0.into(),
    };
    let mut rows: BTreeMap<String, SourceRow> =
        admin.actions.sources().map(|source| (source.name().to_owned(), none(source.name()))).collect();
    for counts in admin.store.source_counts().await? {
        let row = rows.entry(counts.source.clone()).or_insert_with(|| none(&counts.source));
        row.last_webhook_at = counts.last_webhook_at.map(rfc3339);
        (row.open, row.waiting) = (counts.open, counts.waiting);
    }
    let accepted = admin.store.accepted(since, now).await?;
    let complete = accepted.iter().map(|(_, count)| count).sum::<i64>() < COUNTED;
    for (source, count) in accepted {
        rows.entry(source.clone()).or_insert_with(|| none(&source)).events = count;
    }
    for (source, spent) in admin.store.spent_since(since).await? {
        rows.entry(source.clone()).or_insert_with(|| none(&source)).credits = plain((spent.credits * 1e6).round() / 1e6);
    }
    Ok((rows.into_values().collect(), complete))
}

/// What was done in all spans of `samples`. Of times there are the median of the medians, by what was delivered, and the worst that 95
/// of 100 took: what is true for each span is not for all of them.
fn rates(samples: &[Sample]) -> Rates {
    let sum = |number: fn(&Sample) -> i64| samples.iter().map(number).sum::<i64>();
    let delivered = sum(|sample| sample.delivered);
    let mut medians: Vec<_> = samples.iter().filter_map(|sample| Some((sample.median_ms?, sample.delivered))).collect();
    medians.sort_unstable();
    let mut passed = 0;
    let median = medians.iter().find(|(_, arrived)| {
        passed += arrived;
        passed * 2 >= delivered
    });
    Rates {
        minutes: samples.iter().map(|sample| sample.span.seconds() / 60).sum(),
        events: sum(|sample| sample.events),
        rejections: sum(|sample| sample.rejections),
        recovered: sum(|sample| sample.recovered),
        delivered,
        failed: sum(|sample| sample.failed),
        median_ms: median.map(|(time, _)| *time),
        p95_ms: samples.iter().filter_map(|sample| sample.p95_ms).max(),
    }
}
