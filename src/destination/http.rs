//! `kind = "http"`: the envelope, or the JSON of a `template`, as the body of a POST, signed by the [Standard Webhooks](https://www.standardwebhooks.com/)
//! specification.
//!
//! What must hold: the body is sent byte for byte as it was rendered; id and body are the same on every attempt, timestamp and
//! signature are of this attempt. Only a 2xx is success. A redirect is not followed, since it could carry the event and its
//! headers to where nobody sent them. Whether a failed attempt may have arrived is told apart: no connection means no; a lost
//! answer means that nobody knows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use url::Url;

use super::section::{compile, section};
use super::{MAX_EXCERPT, Outgoing, Receipt, unanswered};
use crate::clock::Clock;
use crate::http::{self, Answer};
use crate::retry::{self, Failure};
use crate::route::Envelope;
use crate::setting::{List, REDACTED, Secret};
use crate::signature::standard_webhooks;
use crate::telemetry::trace::here;
use crate::template::{Context, Escape, Template};
use crate::text::one_line;

/// The keys that hold secrets.
pub const SECRETS: &[&str] = &["secret"];

/// The most bytes that are read of an answer: enough for a reason.
const MAX_ANSWER: usize = 4 << 10;

/// The header of the W3C that says which span a request is made for. It is not signed, and is another on every attempt.
const TRACEPARENT: &str = "traceparent";

/// Headers that the transport or the specification owns.
const RESERVED: &[&str] = &["content-length", "content-type", "transfer-encoding", "connection", "host"];

section! {
    /// The `[destinations.NAME]` section of an `http`.
    pub struct Config {
        /// Where events are posted to.
        pub url: Address,
        /// The `whsec_…` secrets that sign, all of them (for a change of secret); without one requests are unsigned.
        #[serde(default)]
        pub secret: List<Secret>,
        /// Headers of the user's own, such as `authorization`.
        #[serde(default)]
        pub headers: BTreeMap<String, Secret>,
        /// The JSON that is sent instead of the envelope.
        #[serde(default)]
        pub template: Option<String>,
    }
    defaults: timeout = 6, concurrency = 8, rate = None
}

/// A URL as it is written, whose credentials and query are never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Wraps `text`, which need not be a URL.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.0) {
            Ok(url) if url.has_host() => f.write_str(&shown(&url)),
            _ => f.write_str(REDACTED),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A URL without what may be secret in it.
fn shown(url: &Url) -> String {
    let query = if url.query().is_some() { format!("?{REDACTED}") } else { String::new() };
    format!("{}{}{query}", url.origin().ascii_serialization(), url.path())
}

impl Config {
    /// Whether a destination can be built of it.
    ///
    /// # Errors
    /// The key that is wrong, and what to write.
    pub(super) fn check(&self) -> Result<(), String> {
        self.url()?;
        self.header_map()?;
        self.signing_secrets()?;
        self.template()?;
        Ok(())
    }

    fn template(&self) -> Result<Option<Template>, String> {
        let Some(template) = compile("template", self.template.as_deref(), Escape::Json)? else { return Ok(None) };
        let written = template.render(&Context::of(&Envelope::sample())).map_err(|error| format!("`template`: {error}"))?;
        is_json(&written).map_err(|problem| format!("`template`: {problem}"))?;
        Ok(Some(template))
    }

    fn url(&self) -> Result<Url, String> {
        let url = Url::parse(&self.url.0).map_err(|error| format!("`url` is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("`url` must begin with https:// or http://, not {}:", url.scheme()));
        }
        if url.fragment().is_some() {
            return Err("`url` has a fragment (`#…`), which is never sent; leave it out".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            let hint = "write `headers = { authorization = \"Basic …\" }` instead";
            return Err(format!("`url` holds a user name or password, which logs would show; {hint}"));
        }
        Ok(url)
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let refused = |why: &str| Err(format!("`headers`: {} {why}", name.escape_debug()));
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return refused("is no name of a header") };
            if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("webhook-") {
                return refused("is set by taskhook itself");
            }
            let Ok(mut value) = HeaderValue::from_str(value.expose()) else {
                return refused("has a value that no header may have");
            };
            value.set_sensitive(true);
            if headers.insert(name, value).is_some() {
                return refused("is there twice");
            }
        }
        Ok(headers)
    }

    fn signing_secrets(&self) -> Result<Vec<standard_webhooks::Secret>, String> {
        let parse = |secret: &Secret| standard_webhooks::Secret::parse(secret.expose());
        self.secret.iter().map(parse).collect::<Result<_, _>>().map_err(|error| format!("`secret`: {error}"))
    }
}

/// What stands for the envelope where there is a template. No envelope begins like this.
#[derive(Serialize, Deserialize)]
struct Written {
    out_of_order: bool,
    body: String,
}

const WRITTEN: &str = r#"{"out_of_order":"#;

fn is_json(text: &str) -> Result<(), String> {
    let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
    parsed.map(drop).map_err(|error| format!("what it comes to is no JSON: line {}, column {}", error.line(), error.column()))
}

/// An `http` destination.
pub(super) struct Http {
    url: Url,
    headers: HeaderMap,
    secrets: Vec<standard_webhooks::Secret>,
    template: Option<Template>,
    client: Client,
    timeout: Duration,
    clock: Clock,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &shown(&self.url)).finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn build(config: &Config, clock: &Clock) -> Result<Self, String> {
        config.check()?;
        Ok(Self {
            url: config.url()?,
            headers: config.header_map()?,
            secrets: config.signing_secrets()?,
            template: config.template()?,
            client: http::client(config.timeout),
            timeout: config.timeout,
            clock: clock.clone(),
        })
    }

    pub(super) fn render(&self, envelope: &Envelope) -> Result<String, String> {
        let json = |error: serde_json::Error| error.to_string();
        let Some(template) = &self.template else { return serde_json::to_string(envelope).map_err(json) };
        let body = template.render(&Context::of(envelope)).map_err(|error| format!("`template`: {error}"))?;
        is_json(&body).map_err(|problem| format!("`template`: {problem}"))?;
        serde_json::to_string(&Written { out_of_order: envelope.out_of_order, body }).map_err(json)
    }

    pub(super) async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        let (id, timestamp) = (delivery.id.to_string(), self.clock.now().as_second());
        let written = delivery.body.starts_with(WRITTEN).then(|| serde_json::from_str::<Written>(delivery.body).ok()).flatten();
        let body = written.map_or_else(|| delivery.body.to_owned(), |written| written.body);
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp);
        if !self.secrets.is_empty() {
            let signature = standard_webhooks::sign(&self.secrets, &id, timestamp, body.as_bytes());
            request = request.header("webhook-signature", signature);
        }
        let span = here();
        // Whoever sets one of their own goes on with that.
        if let Some(parent) = span.traceparent().filter(|_| !self.headers.contains_key(TRACEPARENT)) {
            request = request.header(TRACEPARENT, parent);
        }
        span.set("http.request.method", "POST");
        span.set_some("server.address", self.url.host_str());
        span.set_some("server.port", self.url.port_or_known_default());
        let answer =
            http::send_for_status(request.body(body), self.timeout, MAX_ANSWER).await.map_err(|error| unanswered(&error))?;
        span.set("http.response.status_code", answer.status.as_u16());
        self.judge(&answer)
    }

    pub(super) fn preview(&self, mut content: Value) -> Value {
        let written = content.as_object().is_some_and(|members| members.len() == 2 && members.contains_key("body"));
        let body = if written { content["body"].take() } else { content };
        let body = body.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(body);
        json!({"url": shown(&self.url), "signed": !self.secrets.is_empty(), "body": body})
    }

    /// A HEAD request: whatever the answer is, somebody is there, and no event was sent.
    pub(super) async fn check(&self) -> Result<String, String> {
        let request = self.client.head(self.url.clone());
        match http::send_for_status(request, self.timeout, 0).await {
            Ok(answer) => Ok(format!("reachable: {} to a HEAD request", answer.status)),
            Err(error) => Err(one_line(&error.to_string(), MAX_EXCERPT)),
        }
    }

    /// What an answer means.
    fn judge(&self, answer: &Answer) -> Result<Receipt, Failure> {
        let status = answer.status;
        if status.is_success() {
            return Ok(Receipt { detail: status.to_string() });
        }
        let reason = match self.excerpt(answer) {
            _ if status.is_redirection() => self.redirect(answer),
            excerpt if excerpt.is_empty() => status.to_string(),
            excerpt => format!("{status}: {excerpt}"),
        };
        Err(match status {
            // The request itself is wrong, or the endpoint says that it is gone: no later attempt is another request.
            StatusCode::BAD_REQUEST | StatusCode::GONE | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Failure::give_up(reason)
            }
            // Also 401, 403 and 404, which are usually somebody's deploy.
            _ => {
                let after = answer.header("retry-after").and_then(|text| retry::retry_after(text, self.clock.now()));
                Failure::retry(reason).not_before(after)
            }
        })
    }

    fn redirect(&self, answer: &Answer) -> String {
        let target = answer.header(LOCATION.as_str()).and_then(|location| self.url.join(location).ok()).filter(Url::has_host);
        let reason = format!("{}: redirects are not followed", answer.status);
        target.map_or_else(
            || reason.clone(),
            |url| format!("{reason}; if it moved, set `url` to {}", one_line(&shown(&url), MAX_EXCERPT)),
        )
    }

    /// The beginning of what the other side says, without our own secrets if it echoes them.
    fn excerpt(&self, answer: &Answer) -> String {
        let mut text = String::from_utf8_lossy(&answer.body).into_owned();
        let headers = self.headers.values().filter_map(|value| value.to_str().ok());
        for secret in headers.chain(self.url.query()).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, REDACTED);
        }
        one_line(&text, MAX_EXCERPT)
    }
}

#[cfg(test)]
mod tests;
