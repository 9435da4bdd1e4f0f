//! `/api/v1` and `/metrics`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{act, credits, public_url, task};
use crate::action::{self, Actions};
use crate::clock::Clock;
use crate::event::Watch;
use crate::public_url::PublicUrls;
use crate::setting::{Secret, Zone};
use crate::store::model::{JobKind, Like};
use crate::store::view::{EventFilter, Page};
use crate::store::{self, Store};
use crate::task::plain;
use crate::telemetry::{Metrics, name};

/// The most rows of one page.
const MOST: usize = 500;

/// The shortest beginning of an event's id that may stand for the whole: the first 8 digits are of the time, and tell 65 s apart.
const SHORTEST: usize = 8;
/// The admin API.
#[derive(Clone)]
pub struct Admin {
    pub(super) store: Store,
    pub(super) actions: Actions,
    pub(super) public_urls: PublicUrls,
    metrics: Metrics,
    token: Option<Secret>,
    /// Time, and where days begin.
    pub(super) days: (Clock, Zone),
}

/// Why a request was not served: RFC 9457.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    title: String,
    code: &'static str,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, title: impl Into<String>) -> Self {
        Self { status, title: title.into(), code }
    }

    pub(super) fn absent(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"title": self.title, "status": self.status.as_u16(), "code": self.code});
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
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
            NoSource(_) | NoEvent(_) | NoDelivery(_) | NoTask(_) => (StatusCode::NOT_FOUND, "not_found"),
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
            Provider(_) => (StatusCode::BAD_GATEWAY, "provider_refused"),
            Unknown(_) => (StatusCode::BAD_GATEWAY, "outcome_unknown"),
            Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl Admin {
    /// An API on `store` that acts through `actions`, lends `public_urls`, and asks for `token` if there is one; `days` are what days are
    /// counted by.
    #[must_use]
    pub fn new(
        store: Store,
        actions: Actions,
        public_urls: PublicUrls,
        metrics: Metrics,
        token: Option<Secret>,
        days: (Clock, Zone),
    ) -> Self {
        Self { store, actions, public_urls, metrics, token, days }
    }

    /// Its routes.
    pub fn router(self) -> Router {
        let admin = Arc::new(self);
        Router::new()
            .route("/metrics", get(metrics))
            .route("/api/v1/events", get(events))
            .route("/api/v1/events/{id}", get(event))
            .route("/api/v1/events/{id}/release", post(release))
            .route("/api/v1/events/{id}/replay", post(act::replay))
            .route("/api/v1/events/replay", post(act::replay_many))
            .merge(task::routes())
            .route("/api/v1/deliveries", get(deliveries))
            .route("/api/v1/deliveries/{id}", get(act::delivery))
            .route("/api/v1/deliveries/{id}/retry", post(act::retry))
            .route("/api/v1/deliveries/{id}/discard", post(act::discard))
            .route("/api/v1/deliveries/retry", post(act::retry_many))
            .route("/api/v1/deliveries/discard", post(act::discard_many))
            .route("/api/v1/destinations", get(act::destinations))
            .route("/api/v1/destinations/{name}/pause", post(act::pause))
            .route("/api/v1/destinations/{name}/resume", post(act::resume))
            .route("/api/v1/rejections", get(rejections))
            .route("/api/v1/rejections/{id}", get(rejection))
            .route("/api/v1/watches", get(watches))
            .route("/api/v1/credits", get(credits::list))
            .route("/api/v1/stats", get(stats))
            .merge(public_url::routes())
            .fallback(|| std::future::ready(Refused::absent("page")))
            .layer(from_fn_with_state(Arc::clone(&admin), authorize))
            .with_state(admin)
    }
}

/// Lets a request through that carries the token, or any if none is set.
async fn authorize(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let Some(token) = &admin.token else { return next.run(request).await };
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // `Secret` compares in constant time.
    if sent.is_some_and(|sent| Secret::new(sent) == *token) {
        return next.run(request).await;
    }
    Refused::new(StatusCode::UNAUTHORIZED, "token_invalid", "send the admin token as `Authorization: Bearer TOKEN`")
        .into_response()
}

/// `?limit=50&cursor=…` and what a list can be narrowed to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Search {
    limit: Option<usize>,
    cursor: Option<String>,
    pub(super) source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    task: Option<String>,
    pub(super) state: Option<String>,
}

impl Search {
    fn page(&self) -> Result<Page, Refused> {
        let bad = |title: &str| Refused::new(StatusCode::BAD_REQUEST, "query_invalid", title);
        let limit = self.limit.unwrap_or(50);
        if limit == 0 || limit > MOST {
            return Err(bad("`limit` is a number from 1 to 500"));
        }
        let cursor = self.cursor.as_deref().map(str::parse).transpose().map_err(|_| bad("`cursor` is not one of ours"))?;
        Ok(Page { limit, cursor })
    }
}

pub(super) type Asked = Result<Query<Search>, QueryRejection>;

pub(super) fn search(asked: Asked) -> Result<(Search, Page), Refused> {
    let Query(search) = asked.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "query_invalid", error.body_text()))?;
    let page = search.page()?;
    Ok((search, page))
}

async fn events(State(admin): State<Arc<Admin>>, asked: Asked) -> Result<Response, Refused> {
    let (search, page) = search(asked)?;
    let filter = EventFilter { source: search.source, kind: search.kind, task_id: search.task, state: search.state };
    Ok(Json(admin.store.events(filter, page).await?).into_response())
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

async fn event(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = admin.whole_id(What::Event, id).await?;
    let mut event = admin.store.event(&id).await?.ok_or_else(|| Refused::absent("event"))?;
    let mask = |shown: &str| admin.actions.mask(&event.row.source, shown);
    let masked = match &event.payload {
        Value::String(text) => mask(text).map(Value::from),
        json => mask(&json.to_string()).and_then(|text| serde_json::from_str(&text).ok()),
    };
    event.payload = masked.unwrap_or(event.payload);
    Ok(Json(event).into_response())
}

async fn release(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    let id = admin.whole_id(What::Event, id).await?;
    admin.actions.release(&id).await?;
    Ok(Json(json!({"id": id, "state": "proving"})))
}

/// `?limit=50&cursor=…`, and what deliveries can be narrowed to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeliverySearch {
    limit: Option<usize>,
    cursor: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    task: Option<String>,
    state: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    destination: Option<String>,
    route: Option<String>,
}

async fn deliveries(
    State(admin): State<Arc<Admin>>,
    asked: Result<Query<DeliverySearch>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(search) = asked.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "query_invalid", error.body_text()))?;
    let DeliverySearch { limit, cursor, source, kind, task, state, since, until, destination, route } = search;
    let page = Search { limit, cursor, ..Search::default() }.page()?;
    let like = Like { source, kind, task, state, since, until, destination, route };
    Ok(Json(admin.store.deliveries(like, page).await?).into_response())
}

async fn rejections(State(admin): State<Arc<Admin>>, asked: Asked) -> Result<Response, Refused> {
    let (_, page) = search(asked)?;
    Ok(Json(admin.store.rejections(page).await?).into_response())
}

async fn rejection(State(admin): State<Arc<Admin>>, Path(id): Path<i64>) -> Result<Response, Refused> {
    let mut rejection = admin.store.rejection(id).await?.ok_or_else(|| Refused::absent("rejection"))?;
    if let Some(masked) = admin.actions.mask(&rejection.row.source, &rejection.body) {
        rejection.body = masked;
    }
    Ok(Json(rejection).into_response())
}

async fn watches(State(admin): State<Arc<Admin>>, asked: Asked) -> Result<Response, Refused> {
    let (search, page) = search(asked)?;
    Ok(Json(admin.store.watches(search.source, page).await?).into_response())
}

async fn stats(State(admin): State<Arc<Admin>>) -> Result<Response, Refused> {
    Ok(Json(admin.store.backlog().await?).into_response())
}

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
    for (source, credits) in admin.store.spent_ever().await? {
        // A counter counts whole ones.
        let whole = plain(credits.floor()).as_u64().unwrap_or_default();
        metrics::counter!(name::CREDITS, "source" => source).absolute(whole);
    }
    Ok(admin.metrics.render())
}
