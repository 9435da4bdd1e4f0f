//! Sending events to webhooks, with a genuine signature unless a fault says otherwise.
//!
//! The events of one task leave in order, each to all webhooks of its account; different tasks do not wait for each other.
//! What Manus does when a webhook fails is not documented; here nothing is sent again unless `retries` is set.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::board::Outgoing;
use super::super::core::Model as _;
use super::super::fault::{Passed, pass};
use super::state::State;
use super::{Delivery, Shared};
use crate::event::{TASK_CREATED, hex};
use crate::signature::encode_base64;
use crate::signature::rsa::PrivateKey;

/// The task id in the request that tries a webhook at registration, as an integrator observed it.
pub(super) const PING_TASK: &str = "test_task_id";
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

    /// The record of a try.
    pub(super) fn delivery(&self, url: &str, attempt: u32) -> Delivery {
        Delivery::new(url, &self.text("event_id"), &self.text("event_type"), &self.task_id, attempt)
    }
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
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

impl State {
    /// What is to be sent now that `event` happened, after the faults had their say.
    pub(super) fn dispatch(&mut self, mut event: Event) -> Vec<Outgoing<Event>> {
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
        let account = event.account;
        let faults = [&mut self.faults.drop, &mut self.faults.reorder, &mut self.faults.duplicate];
        let mut events = match pass(faults, &mut self.accounts[account].held, event) {
            Passed::Dropped(event) => {
                for webhook in self.accounts[account].webhooks.clone() {
                    self.board.deliveries.push(event.delivery(&webhook.url, 0));
                }
                return Vec::new();
            }
            Passed::Held => return Vec::new(),
            Passed::Sent(events) => events,
        };
        if self.faults.foreign.strikes() {
            // To our webhook, since anyone may register our URL as theirs.
            let foreign = self.foreign_event().map(|foreign| Event { account, ..foreign });
            events.splice(0..0, foreign);
        }
        self.to_webhooks(account, &events)
    }

    /// What is still held back, to be sent now.
    pub(super) fn let_go(&mut self) -> Vec<Outgoing<Event>> {
        let mut requests = Vec::new();
        for account in 0..self.accounts.len() {
            let events: Vec<Event> = self.accounts[account].held.drain(..).collect();
            requests.extend(self.to_webhooks(account, &events));
        }
        requests
    }

    fn to_webhooks(&self, account: usize, events: &[Event]) -> Vec<Outgoing<Event>> {
        let to_all = |event: &Event| {
            let to = |url: &str| Outgoing { url: url.to_owned(), event: event.clone() };
            self.accounts[account].webhooks.iter().map(|webhook| to(&webhook.url)).collect::<Vec<_>>()
        };
        events.iter().flat_map(to_all).collect()
    }

    /// The body of a request and its headers, and what else to sign with: the slow part is left to the caller.
    pub(super) fn render(&mut self, out: &Outgoing<Event>) -> Unsigned {
        let mut body = out.event.body.clone();
        self.freshen(&mut body, self.numbers_as_strings);
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

/// A request that is not signed yet.
pub(super) struct Unsigned {
    key: Arc<PrivateKey>,
    body: Bytes,
    url: String,
    timestamp: i64,
    double: bool,
    spoil: bool,
}

impl Unsigned {
    /// Signs it; slow.
    pub(super) fn sign(self) -> (HeaderMap, Bytes) {
        let text = signed_text(self.timestamp, &self.url, &self.body);
        let mut signature =
            if self.double { self.key.sign(digest(&SHA256, text.as_bytes()).as_ref()) } else { self.key.sign(text.as_bytes()) };
        if self.spoil {
            signature[0] ^= 1;
        }
        (headers(self.timestamp, &signature), self.body)
    }
}

impl Shared {
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
