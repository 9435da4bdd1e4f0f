//! Magic Hour's webhook requests: the signature is hexadecimal HMAC-SHA256 over `{timestamp}.{body}`, with the whole secret, `whsec_`
//! included, as key.

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use serde_json::Value;

use super::super::board::Outgoing;
use super::super::core::Model as _;
use super::super::fault::{Passed, pass};
use super::Delivery;
use super::state::State;
use crate::event::hex;
use crate::signature::decode_base64;
use crate::signature::hmac::{Hash, Key};

/// An event of an account. Links in it are not signed yet: each sending signs them anew.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) account: usize,
    pub(super) body: Value,
    /// Unix seconds.
    pub(super) made_at: i64,
    /// Of the webhook that it goes to.
    pub(super) secret: String,
}

impl Event {
    /// The record of a try. Magic Hour's events have no id.
    pub(super) fn delivery(&self, url: &str, attempt: u32) -> Delivery {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Delivery::new(url, "", &word(&self.body["type"]), &word(&self.body["payload"]["id"]), attempt)
    }
}

/// The signature of `body` at `timestamp`, in lower-case hexadecimal.
pub(super) fn signature(key: &[u8], timestamp: i64, body: &[u8]) -> String {
    // A webhook without a secret signs nothing.
    let key = Key::new(Hash::Sha256, key);
    key.map(|key| hex(&key.sign(&[timestamp.to_string().as_bytes(), b".", body]))).unwrap_or_default()
}

/// The headers of a signed request.
pub(super) fn headers(timestamp: i64, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let signature = HeaderValue::try_from(signature).expect("hexadecimal is a header value");
    headers.insert("magic-hour-event-signature", signature);
    headers.insert("magic-hour-event-timestamp", HeaderValue::from(timestamp));
    headers
}

impl State {
    /// What is to be sent now that `event` happened, after the faults had their say.
    pub(super) fn dispatch(&mut self, event: Event) -> Vec<Outgoing<Event>> {
        let account = event.account;
        if self.accounts[account].webhooks.is_empty() {
            return Vec::new();
        }
        let faults = [&mut self.faults.drop, &mut self.faults.reorder, &mut self.faults.duplicate];
        match pass(faults, &mut self.accounts[account].held, event) {
            Passed::Dropped(event) => {
                for webhook in &self.accounts[account].webhooks {
                    self.board.deliveries.push(event.delivery(&webhook.url, 0));
                }
                Vec::new()
            }
            Passed::Held => Vec::new(),
            Passed::Sent(events) => self.to_webhooks(&events),
        }
    }

    /// What is still held back, to be sent now.
    pub(super) fn let_go(&mut self) -> Vec<Outgoing<Event>> {
        let events: Vec<Event> = self.accounts.iter_mut().flat_map(|account| account.held.drain(..)).collect();
        self.to_webhooks(&events)
    }

    /// An event of any content.
    pub(super) fn emit(&mut self, key: &str, body: Value) -> Vec<Outgoing<Event>> {
        let event = Event { account: self.account(key), body, made_at: self.now().as_second(), secret: String::new() };
        self.dispatch(event)
    }

    fn to_webhooks(&self, events: &[Event]) -> Vec<Outgoing<Event>> {
        let mut requests = Vec::new();
        for event in events {
            let kind = event.body["type"].as_str().unwrap_or_default();
            for webhook in &self.accounts[event.account].webhooks {
                if webhook.events.is_empty() || webhook.events.iter().any(|wanted| wanted == kind) {
                    let event = Event { secret: webhook.secret.clone(), ..event.clone() };
                    requests.push(Outgoing { url: webhook.url.clone(), event });
                }
            }
        }
        requests
    }

    /// Headers and body of a try.
    pub(super) fn render(&mut self, event: &Event) -> (HeaderMap, Bytes) {
        let mut body = event.body.clone();
        if let Some(payload) = body.get_mut("payload") {
            self.freshen(payload);
        }
        let signed = body.to_string();
        let sent = if self.faults.reserialised.strikes() { format!("{body:#}") } else { signed.clone() };
        let made_at = if self.renew_timestamp { self.now().as_second() } else { event.made_at };
        let timestamp = made_at - self.faults.stale_seconds;
        let decoded = || event.secret.strip_prefix("whsec_").and_then(decode_base64);
        let signature = if self.faults.wrong_secret.strikes() {
            signature(b"whsec_somebody_elses", timestamp, signed.as_bytes())
        } else if self.faults.decoded_secret.strikes()
            && let Some(decoded) = decoded()
        {
            signature(&decoded, timestamp, signed.as_bytes())
        } else {
            signature(event.secret.as_bytes(), timestamp, signed.as_bytes())
        };
        (headers(timestamp, &signature), Bytes::from(sent))
    }
}
