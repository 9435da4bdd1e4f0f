//! A Slack that holds messages to its documented limits, answers in its words, and keeps what it took.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use taskhook::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

/// The token of the bot that may write.
pub(crate) const TOKEN: &str = "xoxb-1-good";
/// The channel that the bot is in.
pub(crate) const CHANNEL: &str = "C0123456789";

/// What it does with the next messages, instead of looking at them.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// Refuses with this status and word.
    Refuse(u16, &'static str),
    /// Wants to be left alone for so many seconds.
    TooMany(u32),
    /// Takes it and says nothing.
    Silent,
}

/// A running Slack; clones are the same. It ends with the last of them.
#[derive(Clone)]
pub(crate) struct Slack {
    inner: Arc<Inner>,
    address: SocketAddr,
    _server: Arc<JoinSet<()>>,
}

struct Inner {
    state: Mutex<Inside>,
    seen: watch::Sender<usize>,
}

struct Inside {
    clock: Option<Clock>,
    moods: VecDeque<Mood>,
    taken: Vec<Value>,
    /// When messages came, for the rate.
    times: Vec<Timestamp>,
    refused: usize,
}

impl Slack {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Inside { clock: None, moods: VecDeque::new(), taken: Vec::new(), times: Vec::new(), refused: 0 };
        let inner = Arc::new(Inner { state: Mutex::new(state), seen: watch::Sender::new(0) });
        let router = Router::new()
            .route("/services/T0/B0/s3cret", post(webhook))
            .route("/api/chat.postMessage", post(post_message))
            .route("/api/auth.test", post(auth_test))
            .fallback(|| async { (StatusCode::NOT_FOUND, "no_service") })
            .with_state(Arc::clone(&inner));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { inner, address, _server: Arc::new(server) }
    }

    /// The keys of a destination that writes by an incoming webhook.
    pub(crate) fn webhook(&self) -> String {
        format!("kind = \"slack\"\nwebhook_url = \"http://{}/services/T0/B0/s3cret\"\n", self.address)
    }

    /// The keys of a destination that writes as a bot.
    pub(crate) fn bot(&self, token: &str, channel: &str) -> String {
        format!("kind = \"slack\"\ntoken = \"{token}\"\nchannel = \"{channel}\"\nbase_url = \"http://{}\"\n", self.address)
    }

    /// Counts by this clock, and refuses what comes faster than Slack documents.
    pub(crate) fn limit(&self, clock: &Clock) {
        self.inside().clock = Some(clock.clone());
    }

    pub(crate) fn next(&self, moods: impl IntoIterator<Item = Mood>) {
        self.inside().moods.extend(moods);
    }

    /// The messages that it took.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.inside().taken.clone()
    }

    /// How many it refused for their pace.
    pub(crate) fn refused(&self) -> usize {
        self.inside().refused
    }

    /// Waits until so many messages have come, whatever became of them.
    pub(crate) async fn received(&self, count: usize) {
        let mut seen = self.inner.seen.subscribe();
        within("a message in Slack", seen.wait_for(|seen| *seen >= count)).await.expect("it lives");
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inner.state.lock().expect("no panic")
    }
}

/// What becomes of a message: its time stamp, or a status and a word.
async fn judge(inner: &Inner, headers: &HeaderMap, body: &Bytes) -> Result<String, Response> {
    let word = |status: u16, word: &str| (StatusCode::from_u16(status).expect("a status"), word.to_owned()).into_response();
    inner.seen.send_modify(|seen| *seen += 1);
    let mood = inner.state.lock().expect("no panic").moods.pop_front();
    let message: Option<Value> = serde_json::from_slice(body).ok();
    match mood {
        Some(Mood::Refuse(status, text)) => return Err(word(status, text)),
        Some(Mood::TooMany(seconds)) => {
            let headers = [(header::RETRY_AFTER, seconds.to_string())];
            return Err((StatusCode::TOO_MANY_REQUESTS, headers, "rate_limited").into_response());
        }
        Some(Mood::Silent) => {
            inner.state.lock().expect("no panic").taken.extend(message);
            return std::future::pending().await;
        }
        None => {}
    }
    let Some(message) = message else { return Err(word(400, "invalid_payload")) };
    if !headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return Err(word(400, "invalid_payload"));
    }
    if let Err(text) = limits(&message) {
        return Err(word(400, text));
    }
    let mut state = inner.state.lock().expect("no panic");
    if let Some(now) = state.clock.as_ref().map(Clock::now) {
        let within =
            |span: i64| state.times.iter().filter(|at| now.duration_since(**at) < SignedDuration::from_secs(span)).count();
        if within(60) >= 60 || within(1) >= 15 {
            state.refused += 1;
            return Err((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "30")], "rate_limited").into_response());
        }
        state.times.push(now);
    }
    state.taken.push(message);
    Ok(format!("1763507100.{:06}", state.taken.len()))
}

/// What Slack documents of a message.
fn limits(message: &Value) -> Result<(), &'static str> {
    let text = message["text"].as_str().filter(|text| !text.is_empty()).ok_or("no_text")?;
    if text.chars().count() > 40_000 {
        return Err("msg_too_long");
    }
    let none = Vec::new();
    let blocks = message["blocks"].as_array().unwrap_or(&none);
    if blocks.len() > 50 {
        return Err("invalid_blocks");
    }
    let mut all = 0;
    for block in blocks {
        all += block_length(block).ok_or("invalid_blocks")?;
    }
    // Seen, not documented: a little over 11,000 is refused.
    if all > 11_000 { Err("msg_blocks_too_long") } else { Ok(()) }
}

/// The characters of a block; none if it is not one of Slack's.
fn block_length(block: &Value) -> Option<usize> {
    let items = |name: &str, most: usize| block[name].as_array().filter(|items| (1..=most).contains(&items.len()));
    match block["type"].as_str()? {
        "header" => text_length(&block["text"], "plain_text", 150),
        "section" => text_length(&block["text"], "mrkdwn", 3_000),
        "context" => items("elements", 10)?.iter().map(|text| text_length(text, "mrkdwn", 3_000)).sum(),
        "actions" => items("elements", 25)?.iter().map(button_length).sum(),
        _ => None,
    }
}

fn text_length(text: &Value, kind: &str, most: usize) -> Option<usize> {
    let members = text.as_object()?;
    let allowed = if kind == "plain_text" { ["type", "text", "emoji"] } else { ["type", "text", "verbatim"] };
    let known = members.keys().all(|name| allowed.contains(&name.as_str()));
    let length = text["text"].as_str()?.chars().count();
    (known && text["type"] == kind && (1..=most).contains(&length)).then_some(length)
}

fn button_length(button: &Value) -> Option<usize> {
    let link = button["url"].as_str()?;
    (button["type"] == "button" && link.len() <= 3_000 && link.starts_with("http")).then_some(())?;
    text_length(&button["text"], "plain_text", 75)
}

async fn webhook(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    match judge(&inner, &headers, &body).await {
        Ok(_) => "ok".into_response(),
        Err(refusal) => refusal,
    }
}

fn refusal(word: &str) -> Response {
    Json(json!({"ok": false, "error": word})).into_response()
}

fn authorized(headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == format!("Bearer {TOKEN}").as_bytes())
}

async fn post_message(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    if !authorized(&headers) {
        return refusal("invalid_auth");
    }
    let channel = serde_json::from_slice::<Value>(&body).ok().and_then(|message| message["channel"].as_str().map(str::to_owned));
    match channel.as_deref() {
        Some(CHANNEL) => {}
        Some("C0ARCHIVED1") => return refusal("is_archived"),
        _ => return refusal("channel_not_found"),
    }
    match judge(&inner, &headers, &body).await {
        Ok(ts) => Json(json!({"ok": true, "channel": CHANNEL, "ts": ts})).into_response(),
        Err(response) if response.status() == StatusCode::TOO_MANY_REQUESTS || response.status().is_server_error() => response,
        // The web API says no with 200.
        Err(response) => {
            let word = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap_or_default();
            refusal(&String::from_utf8_lossy(&word))
        }
    }
}

async fn auth_test(headers: HeaderMap) -> Response {
    if authorized(&headers) {
        Json(json!({"ok": true, "user": "taskhook", "team": "Example"})).into_response()
    } else {
        refusal("invalid_auth")
    }
}
