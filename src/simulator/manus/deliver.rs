//! Sending events to webhooks, with a genuine signature unless a fault says otherwise.
//!
//! The events of one task leave in order, each to all webhooks of its account; different tasks do not wait for each other.
//! What Manus does when a webhook fails is not documented; here nothing is sent again unless `retries` is set.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::state::{Delivery, MAX_HELD, State};
use super::{Happening, Shared};
use crate::event::{TASK_CREATED, hex};
use crate::http;
use crate::signature::encode_base64;
use crate::signature::rsa::PrivateKey;

/// How long a webhook may take to answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// The task id in the request that tries a webhook at registration, as an integrator observed it.
pub(super) const PING_TASK: &str = "test_task_id";
/// The most bytes of a webhook's answer that are read.
const MAX_ANSWER: usize = 64 << 10;
/// The most bytes of it that are remembered.
const KEPT_ANSWER: usize = 300;

/// An event of an account. Links in it are not signed yet: each sending signs them anew.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) account: usize,
    pub(super) task_id: String,
    pub(super) body: Value,
}

impl Event {
    fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_default().to_owned()
    }

    fn delivery(&self, url: &str, attempt: u32) -> Delivery {
        Delivery {
            url: url.to_owned(),
            event_id: self.text("event_id"),
            event_type: self.text("event_type"),
            task_id: self.task_id.clone(),
            attempt,
            status: None,
            answer: String::new(),
            took_ms: 0.0,
            error: None,
        }
    }
}

/// One request to send.
#[derive(Debug)]
pub(super) struct Outgoing {
    url: String,
    event: Event,
}

/// Requests that are sent one after the other, once those before them in the lane have been.
#[derive(Debug)]
pub(super) struct Batch {
    before: Option<oneshot::Receiver<()>>,
    sent: oneshot::Sender<()>,
    requests: Vec<Outgoing>,
}

/// The text that is signed.
pub(super) fn signed_text(timestamp: i64, url: &str, body: &[u8]) -> String {
    format!("{timestamp}.{url}.{}", hex(digest(&SHA256, body).as_ref()))
}

/// The two headers of a signed request.
pub(super) fn headers(timestamp: i64, signature: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let signature = HeaderValue::try_from(encode_base64(signature)).expect("base64 is a header value");
    headers.insert("x-webhook-signature", signature);
    headers.insert("x-webhook-timestamp", HeaderValue::from(timestamp));
    headers
}

impl State {
    /// What is to be sent now that `event` happened, after the faults had their say.
    pub(super) fn dispatch(&mut self, mut event: Event) -> Vec<Outgoing> {
        if self.accounts[event.account].webhooks.is_empty() {
            return Vec::new();
        }
        let before = self.accounts[event.account].last_event_id.replace(event.text("event_id"));
        if let Some(before) = before
            && self.faults.reuse_id.strikes()
        {
            event.body["event_id"] = before.clone().into();
            self.accounts[event.account].last_event_id = Some(before);
        }
        if self.faults.drop.strikes() {
            for webhook in self.accounts[event.account].webhooks.clone() {
                self.deliveries.push(event.delivery(&webhook.url, 0));
            }
            return Vec::new();
        }
        if self.accounts[event.account].held.len() < MAX_HELD && self.faults.reorder.strikes() {
            self.accounts[event.account].held.push_back(event);
            return Vec::new();
        }
        let account = event.account;
        let mut events = Vec::new();
        if self.faults.foreign.strikes() {
            // To our webhook, since anyone may register our URL as theirs.
            events.extend(self.foreign_event().map(|foreign| Event { account, ..foreign }));
        }
        if self.faults.duplicate.strikes() {
            events.push(event.clone());
        }
        events.push(event);
        events.extend(self.accounts[account].held.drain(..));
        self.to_webhooks(account, &events)
    }

    /// What is still held back, to be sent now.
    pub(super) fn release_held(&mut self) -> Vec<Outgoing> {
        let mut requests = Vec::new();
        for account in 0..self.accounts.len() {
            let events: Vec<Event> = self.accounts[account].held.drain(..).collect();
            requests.extend(self.to_webhooks(account, &events));
        }
        requests
    }

    fn to_webhooks(&self, account: usize, events: &[Event]) -> Vec<Outgoing> {
        let to_all = |event: &Event| {
            let to = |url: &str| Outgoing { url: url.to_owned(), event: event.clone() };
            self.accounts[account].webhooks.iter().map(|webhook| to(&webhook.url)).collect::<Vec<_>>()
        };
        events.iter().flat_map(to_all).collect()
    }

    /// Puts requests into a task's lane.
    pub(super) fn batch(&mut self, number: Option<u64>, requests: Vec<Outgoing>) -> Option<Batch> {
        if requests.is_empty() {
            return None;
        }
        let (sent, ended) = oneshot::channel();
        let before = number.and_then(|number| self.task(number)).and_then(|task| task.lane.replace(ended));
        Some(Batch { before, sent, requests })
    }

    /// The body of a request and its headers, and what else to sign with: the slow part is left to the caller.
    fn render(&mut self, out: &Outgoing, strings: bool) -> Unsigned {
        let mut body = out.event.body.clone();
        self.dress(&mut body, strings);
        let mut url = self.faults.sign_for_url.clone().unwrap_or_else(|| out.url.clone());
        if self.faults.http_for_https.strikes() {
            url = match url.split_once("://") {
                Some(("https", rest)) => format!("http://{rest}"),
                Some((_, rest)) => format!("https://{rest}"),
                None => url,
            };
        }
        Unsigned {
            key: Arc::clone(&self.key),
            body: Bytes::from(body.to_string()),
            url,
            timestamp: self.now().as_second() - self.faults.stale_seconds,
            double: self.faults.double_hash.strikes(),
            spoil: self.faults.bad_signature.strikes(),
        }
    }
}

struct Unsigned {
    key: Arc<PrivateKey>,
    body: Bytes,
    url: String,
    timestamp: i64,
    double: bool,
    spoil: bool,
}

impl Unsigned {
    fn headers(&self) -> HeaderMap {
        let text = signed_text(self.timestamp, &self.url, &self.body);
        let mut signature =
            if self.double { self.key.sign(digest(&SHA256, text.as_bytes()).as_ref()) } else { self.key.sign(text.as_bytes()) };
        if self.spoil {
            signature[0] ^= 1;
        }
        headers(self.timestamp, &signature)
    }
}

impl Shared {
    /// Sends a batch; what was answered, the last try of each request.
    pub(super) async fn send(&self, batch: Batch) -> Vec<Delivery> {
        let Batch { before, sent, requests } = batch;
        if let Some(before) = before {
            // Ended or given up: either way it is our turn.
            let _ = before.await;
        }
        let mut deliveries = Vec::with_capacity(requests.len());
        for request in &requests {
            deliveries.push(self.post(request, 1).await);
        }
        // What is sent again does not hold up what comes after it.
        drop(sent);
        for attempt in 2..=self.options.retries.saturating_add(1) {
            if deliveries.iter().all(Delivery::delivered) {
                break;
            }
            self.options.clock.sleep(self.options.retry_delay).await;
            for (request, delivery) in requests.iter().zip(&mut deliveries) {
                if !delivery.delivered() {
                    *delivery = self.post(request, attempt).await;
                }
            }
        }
        deliveries
    }

    async fn post(&self, out: &Outgoing, attempt: u32) -> Delivery {
        let unsigned = self.lock().render(out, self.options.numbers_as_strings);
        let request = self
            .client
            .post(&out.url)
            .headers(unsigned.headers())
            .header("content-type", "application/json")
            .header("user-agent", "manus-simulator")
            .body(unsigned.body);
        let mut delivery = out.event.delivery(&out.url, attempt);
        let sent_at = self.options.clock.elapsed();
        let answer = http::send(request, TIMEOUT, MAX_ANSWER).await;
        delivery.took_ms = self.options.clock.elapsed().saturating_sub(sent_at).as_secs_f64() * 1e3;
        match answer {
            Ok(answer) => {
                delivery.status = Some(answer.status.as_u16());
                delivery.answer = String::from_utf8_lossy(&answer.body[..answer.body.len().min(KEPT_ANSWER)]).into_owned();
            }
            Err(error) => delivery.error = Some(error.to_string()),
        }
        self.lock().deliveries.push(delivery.clone());
        self.tell(Happening::Sent(delivery.clone()));
        delivery
    }

    /// Tries a webhook as registration does: a signed event of a task that does not exist.
    pub(super) async fn ping(&self, account: usize, url: &str) -> Delivery {
        let second = self.lock().now().as_second();
        let body = json!({
            "event_id": format!("{TASK_CREATED}_{PING_TASK}_{second}"),
            "event_type": TASK_CREATED,
            "task_detail": {
                "task_id": PING_TASK,
                "task_title": "Test",
                "task_url": format!("https://manus.im/app/{PING_TASK}"),
            },
        });
        let event = Event { account, task_id: PING_TASK.to_owned(), body };
        self.post(&Outgoing { url: url.to_owned(), event }, 1).await
    }
}
