//! `GET /api/v1/stream`: what is news, as server-sent events (the HTML standard, section 9.2).
//!
//! What must hold:
//! - A viewer is told at most four times a second, and of what has changed by then at once: never what it was, which lists tell.
//! - However many look on, the store is looked at once in that time, and not at all while nobody does.
//! - What was missed is told: a viewer that comes back with the id of what it heard last is told all topics that have changed since.
//! - Nobody holds the program up who looks on: streams end when it begins to stop.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use uuid::Uuid;

use super::api::{Admin, Refused};
use super::extract::Query;
use crate::clock::Clock;
use crate::store::{self, Changes, Reach, Store, Topic};
use crate::telemetry::Health;

/// How often a viewer is told at most.
const EVERY: Duration = Duration::from_millis(250);
/// How often a viewer hears at least that the connection stands.
const ALIVE: Duration = Duration::from_secs(15);
/// The most that look on at one time.
const VIEWERS: usize = 100;
/// The word for what is degraded, which no store keeps.
const HEALTH: &str = "health";

/// Looks at the store for all who look on.
#[derive(Debug)]
pub struct Live {
    store: Store,
    health: Health,
    clock: Clock,
    /// The one start that counts are of: those of another start say nothing.
    start: String,
    last: Mutex<Option<(Duration, Seen)>>,
    /// How far lists reached when they were last looked at, and what had changed by then, if all could tell.
    reach: Mutex<(Option<Changes>, Reach)>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// How often each topic has changed, and what is degraded, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    changes: Changes,
    health: u64,
}

impl Live {
    /// Looks at `store` and `health` until `stop`.
    #[must_use]
    pub fn new(store: Store, health: Health, clock: Clock, stop: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(VIEWERS));
        // A server's counts are its own, whoever looks at them.
        let start = if matches!(store, Store::Postgres(_)) { "server".to_owned() } else { Uuid::now_v7().simple().to_string() };
        Self { store, health, clock, start, last: Mutex::default(), reach: Mutex::default(), places, stop }
    }

    /// How things stand, as seen within the last quarter of a second.
    async fn look(&self) -> Result<Seen, store::Error> {
        // Whoever comes while another looks waits for what that one sees.
        let mut last = self.last.lock().await;
        let now = self.clock.elapsed();
        if let Some((at, state)) = *last
            && now.saturating_sub(at) < EVERY
        {
            return Ok(state);
        }
        let mut hasher = DefaultHasher::new();
        for reason in self.health.reasons() {
            (reason.part, reason.reason).hash(&mut hasher);
        }
        let state = Seen { changes: self.store.changes().await?, health: hasher.finish() };
        *last = Some((now, state));
        Ok(state)
    }

    /// How far each list reaches, as far as that is known; nothing while it is not known of one.
    async fn reach(&self, changes: &Changes) -> Result<Option<Vec<i64>>, store::Error> {
        let mut known = self.reach.lock().await;
        let (of, reach) = &mut *known;
        if of.as_ref() != Some(changes) {
            let now = self.store.reach().await?;
            // Of a list that cannot tell now what it told before is true still.
            for (known, now) in reach.iter_mut().zip(now) {
                *known = now.or(*known);
            }
            *of = now.iter().all(Option::is_some).then_some(*changes);
        }
        Ok(reach.iter().copied().collect())
    }

    /// What a viewer is to bring back to be told of what came after.
    fn id(&self, state: &Seen) -> String {
        let mut id = self.start.clone();
        for count in state.changes {
            let _ = write!(id, ".{count}");
        }
        let _ = write!(id, ".{}", state.health);
        id
    }

    /// What is known to who reads the store from now on, as an id; empty if that cannot be told.
    pub(super) async fn mark(&self) -> String {
        self.look().await.map_or_else(|_| String::new(), |seen| self.id(&seen))
    }

    /// What `id` says of how things stood; `None` if it is of another start.
    fn known(&self, id: &str) -> Option<Seen> {
        let mut parts = id.split('.');
        if parts.next()? != self.start {
            return None;
        }
        let mut numbers = parts.map(|part| part.parse::<u64>().ok());
        let mut changes = Changes::default();
        for count in &mut changes {
            *count = numbers.next()??;
        }
        Some(Seen { changes, health: numbers.next()?? })
    }
}

/// The topics that are news to who knew `known`; all of them to who knew nothing.
fn news(known: Option<&Seen>, state: &Seen) -> Vec<&'static str> {
    let is_news = |index: usize| known.is_none_or(|known| known.changes[index] != state.changes[index]);
    let topics = Topic::ALL.into_iter().enumerate().filter(|(index, _)| is_news(*index)).map(|(_, topic)| topic.as_str());
    topics.chain(known.is_none_or(|known| known.health != state.health).then_some(HEALTH)).collect()
}

/// `?last_event_id=…`, for who cannot send the header.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// The id of the message that was heard last, for who cannot send the header `Last-Event-ID`.
    last_event_id: Option<String>,
}

/// A viewer, and what it was told last.
struct Viewer {
    live: Arc<Live>,
    told: Option<Seen>,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    /// The next news, once there are some; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        let live = Arc::clone(&self.live);
        loop {
            if std::mem::replace(&mut self.begun, true) {
                live.stop.run_until_cancelled(live.clock.sleep(EVERY)).await?;
            }
            // A store that cannot be read now may be read again soon, and nothing is missed by then.
            let Ok(state) = live.stop.run_until_cancelled(live.look()).await? else { continue };
            // Who was told nothing yet is told at once.
            let changed = news(self.told.as_ref(), &state);
            if !changed.is_empty() {
                let Ok(Some(reach)) = live.stop.run_until_cancelled(live.reach(&state.changes)).await? else { continue };
                self.told = Some(state);
                let cursors = Topic::ALL.iter().zip(reach).map(|(topic, place)| (topic.as_str(), place.to_string()));
                let cursors: BTreeMap<_, _> = cursors.filter(|(topic, _)| changed.contains(topic)).collect();
                let data = json!({"changed": changed, "cursors": cursors});
                return Some(Event::default().id(live.id(&state)).event("change").data(data.to_string()));
            }
        }
    }
}

/// Follow what is news: server-sent events
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    operation_id = "follow",
    params(Search, ("Last-Event-ID" = Option<String>, Header, description = "The id of the message that was heard last")),
    responses((status = OK, body = String, content_type = "text/event-stream"))
)]
pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Query(search): Query<Search>,
) -> Result<Response, Refused> {
    let live = Arc::clone(&admin.live);
    let Ok(place) = Arc::clone(&live.places).try_acquire_owned() else {
        let title = format!("{VIEWERS} look on already: close a page, or ask again later");
        let mut refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", title).into_response();
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        return Ok(refused);
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned).or(search.last_event_id);
    let told = last.and_then(|id| live.known(&id));
    let viewer = Viewer { live, told, begun: false, _place: place };
    let news = stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    });
    Ok(Sse::new(news).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_news_and_nothing_else() {
        let state = |changes, health| Seen { changes, health };
        let known = state([1, 2, 3, 4, 5], 6);
        assert_eq!(news(Some(&known), &known), [""; 0]);
        assert_eq!(news(Some(&known), &state([2, 2, 0, 4, 5], 6)), ["events", "deliveries"]);
        assert_eq!(news(Some(&known), &state([1, 2, 3, 4, 5], 7)), ["health"]);
        assert_eq!(news(None, &known), ["events", "tasks", "deliveries", "rejections", "watches", "health"]);
    }
}
