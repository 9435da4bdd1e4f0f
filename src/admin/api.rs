//! `/api/v1` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{self, Door};
use super::extract::Query;
use super::idempotency::{self, Acts};
use super::list::page;
use super::live::{self, Live};
use super::{act, answer, credits, deliveries, events, openapi, pages, public_url, rejections, series, stats, task};
use crate::action::{self, Actions};
use crate::clock::Clock;
use crate::event::Watch;
use crate::provider::ApiError;
use crate::public_url::PublicUrls;
use crate::setting::Zone;
use crate::store::model::JobKind;
use crate::store::view::{Listed, WatchRow};
use crate::store::{self, Store};
use crate::task::plain;
use crate::telemetry::{Metrics, name};

/// The shortest beginning of an event's id that may stand for the whole: the first 8 digits are of the time, and tell 65 s apart.
const SHORTEST: usize = 8;

/// The admin API.
#[derive(Clone)]
pub struct Admin {
    pub(super) store: Store,
    pub(super) actions: Actions,
    pub(super) public_urls: PublicUrls,
    metrics: Metrics,
    pub(super) door: Arc<Door>,
    pub(super) live: Arc<Live>,
    pub(super) acts: Acts,
    /// Time, and where days begin.
    pub(super) days: (Clock, Zone),
}

/// Why a request was not served.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    title: String,
    code: &'static str,
}

/// Why a request was not served, as it is told: RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Why, for people.
    title: String,
    /// The status of the answer.
    status: u16,
    /// Why, for programs: a word that stays.
    code: &'static str,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, title: impl Into<String>) -> Self {
        Self { status, title: title.into(), code }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "there is no such method here: `Allow` names those that are",
        )
    }

    pub(super) fn absent(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem { title: self.title, status: self.status.as_u16(), code: self.code };
        let mut response = (self.status, Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(openapi::PROBLEM));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error.to_string())
    }
}

impl From<action::Error> for Refused {
    fn from(error: action::Error) -> Self {
        use action::Error::{
            Answered, Busy, CutOff, InFlight, Input, NoDelivery, NoDestination, NoEvent, NoFilter, NoId, NoKind, NoSource,
            NoTask, NotDiscardable, NotQuarantined, NotReplayable, NotRetryable, NotWaiting, OtherAnswer, OtherQuestion,
            Provider, Store, TooLarge, Unknown, WhichSource,
        };
        let (status, code) = match &error {
            NoSource(_) | NoEvent(_) | NoDelivery(_) | NoTask(_) | Provider(ApiError::NotFound { .. }) => {
                (StatusCode::NOT_FOUND, "not_found")
            }
            NoDestination { .. } => (StatusCode::NOT_FOUND, "destination_unknown"),
            NoFilter => (StatusCode::BAD_REQUEST, "filter_missing"),
            InFlight | Busy => (StatusCode::CONFLICT, "in_flight"),
            NotRetryable(_) => (StatusCode::CONFLICT, "not_retryable"),
            NotDiscardable(_) => (StatusCode::CONFLICT, "not_discardable"),
            NotReplayable(state) => match state.as_str() {
                "quarantined" => (StatusCode::CONFLICT, "quarantined"),
                "ping" => (StatusCode::CONFLICT, "ping"),
                _ => (StatusCode::CONFLICT, "in_work"),
            },
            WhichSource(_) => (StatusCode::BAD_REQUEST, "source_missing"),
            NoKind { .. } => (StatusCode::BAD_REQUEST, "kind_unknown"),
            NoId => (StatusCode::BAD_REQUEST, "id_invalid"),
            NotQuarantined(_) => (StatusCode::CONFLICT, "not_quarantined"),
            NotWaiting(_) => (StatusCode::CONFLICT, "not_waiting"),
            OtherAnswer { .. } => (StatusCode::CONFLICT, "other_answer"),
            OtherQuestion { .. } => (StatusCode::CONFLICT, "other_question"),
            Answered(_) => (StatusCode::CONFLICT, "answered"),
            Input(_) => (StatusCode::BAD_REQUEST, "input_invalid"),
            TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "files_too_large"),
            CutOff(_) => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown"),
            Provider(ApiError::Unsupported { .. }) => (StatusCode::CONFLICT, "not_supported"),
            Provider(_) => (StatusCode::BAD_GATEWAY, "provider_refused"),
            Unknown(_) => (StatusCode::BAD_GATEWAY, "outcome_unknown"),
            Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl Admin {
    /// An API and a dashboard on `store` that act through `actions`, lend `public_urls`, and let in whom `door` does, and tell what is `live`; `days` are what
    /// days are counted by.
    #[must_use]
    pub fn new(
        store: Store,
        actions: Actions,
        public_urls: PublicUrls,
        metrics: Metrics,
        door: Door,
        live: Live,
        days: (Clock, Zone),
    ) -> Self {
        Self { store, actions, public_urls, metrics, door: Arc::new(door), live: Arc::new(live), acts: Acts::new(), days }
    }

    /// What it has in hand that is done to its end, whoever waits.
    #[must_use]
    pub fn acts(&self) -> Acts {
        self.acts.clone()
    }

    /// Its routes.
    pub fn router(self) -> Router {
        let admin = Arc::new(self);
        let (api, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
            .routes(routes!(metrics))
            .merge(events::routes())
            .merge(task::routes())
            .merge(answer::routes())
            .merge(deliveries::routes())
            .merge(act::routes())
            .merge(rejections::routes())
            .routes(routes!(watches))
            .routes(routes!(credits::list))
            .routes(routes!(live::stream))
            .routes(routes!(stats::show))
            .routes(routes!(series::list))
            .merge(public_url::routes())
            .split_for_parts();
        let description = openapi::whole(description);
        api.route("/api/v1/openapi.json", get(|| std::future::ready(Json(description))))
            .merge(pages::routes())
            .route_layer(from_fn_with_state(Arc::clone(&admin), idempotency::once))
            .method_not_allowed_fallback(|| std::future::ready(Refused::method()))
            .fallback(|| std::future::ready(Refused::absent("page")))
            .layer(from_fn_with_state(Arc::clone(&admin), auth::let_in))
            .layer(map_response(auth::harden))
            .with_state(admin)
    }
}

/// What an id is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Event,
    Delivery,
}

impl Admin {
    /// The whole id of what `id` names: it may be cut short, as long as it is the only one that begins so.
    pub(super) async fn whole_id(&self, what: What, id: String) -> Result<String, Refused> {
        const LENGTH: usize = 36;
        let short = (SHORTEST..LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !short {
            return Ok(id);
        }
        let start = id.to_ascii_lowercase();
        let (name, ids) = match what {
            What::Event => ("event", self.store.event_ids(&start, 5).await?),
            What::Delivery => ("delivery", self.store.delivery_ids(&start, 5).await?),
        };
        match ids.as_slice() {
            [] => Ok(id),
            [one] => Ok(one.clone()),
            several => {
                let title = format!("more than one {name} begins with `{id}`: {}", several.join(", "));
                Err(Refused::new(StatusCode::CONFLICT, "id_ambiguous", title))
            }
        }
    }
}

/// What `GET …/watches` takes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Watches {
    limit: Option<usize>,
    cursor: Option<String>,
    source: Option<String>,
}

/// List what is not as it should be
#[utoipa::path(
    get,
    path = "/api/v1/watches",
    operation_id = "list_watches",
    params(Watches),
    responses((status = OK, body = Listed<WatchRow>))
)]
async fn watches(
    State(admin): State<Arc<Admin>>,
    Query(Watches { limit, cursor, source }): Query<Watches>,
) -> Result<Json<Listed<WatchRow>>, Refused> {
    let (page, _) = page(limit, cursor.as_deref(), None)?;
    Ok(Json(admin.store.watches(source, page).await?))
}

/// Read the metrics, in the text format of Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    responses((status = OK, body = String, content_type = "text/plain"))
)]
async fn metrics(State(admin): State<Arc<Admin>>) -> Result<String, Refused> {
    let backlog = admin.store.backlog().await?;
    for kind in JobKind::ALL {
        let count: i64 = backlog.jobs.iter().filter(|row| row.kind == kind.as_str()).map(|row| row.count).sum();
        metrics::gauge!(name::JOBS, "kind" => kind.as_str()).set(count as f64);
    }
    metrics::gauge!(name::QUARANTINED).set(backlog.quarantined as f64);
    metrics::gauge!(name::DEAD_LETTERS).set(backlog.dead as f64);
    let watching = admin.store.watching().await?;
    for watch in Watch::ALL {
        let count = watching.iter().find(|(kind, _)| kind == watch.as_str()).map_or(0, |(_, count)| *count);
        metrics::gauge!(name::WATCHES, "type" => watch.as_str()).set(count as f64);
    }
    for (source, spent) in admin.store.spent_ever().await? {
        // A counter counts whole ones.
        let whole = |sum: f64| plain(sum.floor()).as_u64().unwrap_or_default();
        let tokens = |sum: i64| u64::try_from(sum).unwrap_or_default();
        metrics::counter!(name::CREDITS, "source" => source.clone()).absolute(whole(spent.credits));
        metrics::counter!(name::TOKENS, "source" => source.clone(), "direction" => "input").absolute(tokens(spent.input_tokens));
        metrics::counter!(name::TOKENS, "source" => source.clone(), "direction" => "output")
            .absolute(tokens(spent.output_tokens));
        metrics::counter!(name::COMPUTE_SECONDS, "source" => source.clone()).absolute(whole(spent.compute_seconds));
        metrics::gauge!(name::COST_USD, "source" => source).set(spent.cost_usd);
    }
    stats::tell(&admin).await?;
    Ok(admin.metrics.render())
}
