//! `kind = "slack"`: a message in a channel, by an incoming webhook or by `chat.postMessage`.
//!
//! What must hold: a message is within Slack's limits and mentions nobody (`message.rs`). Only `ok` is success: the web API answers
//! 200 to a refusal, too. 429 is obeyed. What Slack refuses for good is not asked again, and the operator is told its word and what
//! to do about it. The URL of a webhook is a secret: no failure shows it.
//!
//! Facts: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>,
//! <https://docs.slack.dev/reference/methods/chat.postMessage>, <https://docs.slack.dev/apis/web-api/rate-limits>.

mod message;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::{Host, Url};

use super::facts::Facts;
use super::section::{compile, section};
use super::{MAX_EXCERPT, Outgoing, Receipt, unanswered};
use crate::clock::Clock;
use crate::http::{self, Answer};
use crate::retry::{self, Failure};
use crate::route::Envelope;
use crate::setting::Secret;
use crate::telemetry::trace::here;
use crate::template::{Context, Escape, Template};
use crate::text::one_line;

/// The keys that hold secrets.
pub const SECRETS: &[&str] = &["webhook_url", "token"];

/// The most bytes that are read of an answer; `chat.postMessage` sends the message back.
const MAX_ANSWER: usize = 256 << 10;
/// Where the web API is.
const BASE_URL: &str = "https://slack.com";

section! {
    /// The `[destinations.NAME]` section of a `slack`: `webhook_url`, or `token` and `channel`.
    pub struct Config {
        /// The address of an incoming webhook; whoever has it may write to its channel.
        #[serde(default)]
        pub webhook_url: Option<Secret>,
        /// The token of a bot with the scope `chat:write`.
        #[serde(default)]
        pub token: Option<Secret>,
        /// The channel that the bot writes to: its id, or its name with `#`.
        #[serde(default)]
        pub channel: Option<String>,
        /// Where the web API is: an origin.
        #[serde(default = "base_url")]
        pub base_url: String,
        /// The text that is sent instead of the default message: mrkdwn.
        #[serde(default)]
        pub template: Option<String>,
    }
    defaults: timeout = 10, concurrency = 4, rate = Some(60)
}

fn base_url() -> String {
    BASE_URL.to_owned()
}

impl Config {
    /// Whether a destination can be built of it.
    ///
    /// # Errors
    /// The key that is wrong, and what to write.
    pub(super) fn check(&self) -> Result<(), String> {
        self.target()?;
        compile("template", self.template.as_deref(), Escape::Mrkdwn)?;
        Ok(())
    }

    fn target(&self) -> Result<Target, String> {
        match (&self.webhook_url, &self.token, &self.channel) {
            (Some(url), None, None) => Ok(Target::Webhook(webhook(url.expose())?)),
            (None, Some(token), Some(channel)) => {
                let token = token.expose().trim();
                if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
                    return Err("`token` is no token: it begins with `xoxb-`".to_owned());
                }
                if channel.trim().is_empty() {
                    return Err("`channel` is empty; write the channel's id, such as \"C0123456789\"".to_owned());
                }
                let base =
                    Url::parse(&self.base_url).ok().filter(|url| secure(url) && url.path() == "/" && url.query().is_none());
                let Some(base) = base else {
                    return Err(format!("`base_url` must be an origin with https, such as \"{BASE_URL}\""));
                };
                Ok(Target::Api { base, token: Secret::new(token), channel: channel.trim().to_owned() })
            }
            (Some(_), _, Some(_)) => Err("`channel` does not go with `webhook_url`: a webhook has its channel".to_owned()),
            (Some(_), Some(_), None) => Err("`token` and `webhook_url` are both set; keep one".to_owned()),
            (None, Some(_), None) => Err("`token` needs a `channel`, such as \"C0123456789\"".to_owned()),
            (None, None, Some(_)) => Err("`channel` needs a `token`".to_owned()),
            (None, None, None) => Err("`webhook_url` is missing; or set `token` and `channel`".to_owned()),
        }
    }
}

/// The address of a webhook. No error shows it.
fn webhook(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("`webhook_url` is no URL: {error}"))?;
    if !secure(&url) {
        return Err("`webhook_url` must begin with https://".to_owned());
    }
    if url.host_str() == Some("hooks.slack.com") && url.path().starts_with("/triggers/") {
        let hint = "use `kind = \"http\"` with a `template` that sets the workflow's variables";
        return Err(format!("`webhook_url` starts a workflow, which takes no message; {hint}"));
    }
    Ok(url)
}

/// https, or this machine, for tests.
fn secure(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && local)
}

enum Target {
    Webhook(Url),
    Api { base: Url, token: Secret, channel: String },
}

/// A `slack` destination.
pub(super) struct Slack {
    target: Target,
    template: Option<Template>,
    client: Client,
    timeout: Duration,
    clock: Clock,
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slack").finish_non_exhaustive()
    }
}

/// The content of a delivery.
#[derive(Serialize, Deserialize)]
struct Content {
    out_of_order: bool,
    message: Value,
}

impl Slack {
    pub(super) fn build(config: &Config, clock: &Clock) -> Result<Self, String> {
        Ok(Self {
            target: config.target()?,
            template: compile("template", config.template.as_deref(), Escape::Mrkdwn)?,
            client: http::client(config.timeout),
            timeout: config.timeout,
            clock: clock.clone(),
        })
    }

    pub(super) fn render(&self, envelope: &Envelope) -> Result<String, String> {
        let message = match &self.template {
            None => message::message(&Facts::of(envelope)),
            Some(template) => {
                let text = template.render(&Context::of(envelope)).map_err(|error| format!("`template`: {error}"))?;
                if text.trim().is_empty() {
                    return Err("`template` comes to an empty text, which Slack does not take".to_owned());
                }
                message::written(&text)
            }
        };
        let content = Content { out_of_order: envelope.out_of_order, message };
        serde_json::to_string(&content).map_err(|error| error.to_string())
    }

    pub(super) async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        let content: Content = serde_json::from_str(delivery.body)
            .map_err(|_| Failure::give_up("the content was made for another kind of destination"))?;
        let mut message = content.message;
        if content.out_of_order {
            message::out_of_order(&mut message);
        }
        // Nothing of a text becomes a mention, and no page that it links to is shown.
        for (name, value) in [
            ("link_names", json!(false)),
            ("parse", json!("none")),
            ("unfurl_links", json!(false)),
            ("unfurl_media", json!(false)),
        ] {
            message[name] = value;
        }
        let request = match &self.target {
            Target::Webhook(url) => self.client.post(url.clone()),
            Target::Api { base, token, channel } => {
                message["channel"] = json!(channel);
                self.client.post(api(base, "chat.postMessage")).bearer_auth(token.expose())
            }
        };
        let request = request.header(CONTENT_TYPE, "application/json; charset=utf-8").body(message.to_string());
        let answer = http::send_for_status(request, self.timeout, MAX_ANSWER).await.map_err(|error| unanswered(&error))?;
        here().set("http.response.status_code", answer.status.as_u16());
        self.judge(&answer)
    }

    pub(super) fn preview(&self, content: &Value) -> Value {
        let to = match &self.target {
            Target::Webhook(_) => "the webhook's channel",
            Target::Api { channel, .. } => channel,
        };
        json!({"to": to, "notification": content["message"]["text"], "message": message::read(&content["message"])})
    }

    /// Of a webhook only its form can be told without writing to the channel.
    pub(super) async fn try_out(&self) -> Result<String, String> {
        let Target::Api { base, token, channel } = &self.target else {
            return Ok("the webhook's address is well formed; only a message can tell more".to_owned());
        };
        let request = self.client.post(api(base, "auth.test")).bearer_auth(token.expose());
        let answer = http::send_for_status(request, self.timeout, MAX_ANSWER)
            .await
            .map_err(|error| one_line(&error.to_string(), MAX_EXCERPT))?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let word = |name: &str| one_line(said[name].as_str().unwrap_or("?"), 60);
        if said["ok"] == true {
            return Ok(format!("the token is that of {} in {}; it will write to {channel}", word("user"), word("team")));
        }
        let refusal = word("error");
        Err(format!("Slack refuses the token ({}): {refusal}; {}", answer.status, advice(&refusal)))
    }

    /// What an answer means.
    fn judge(&self, answer: &Answer) -> Result<Receipt, Failure> {
        let status = answer.status;
        let text = String::from_utf8_lossy(&answer.body);
        let said: Option<Value> = serde_json::from_str(&text).ok();
        let member = |name: &str| said.as_ref().and_then(|said| said[name].as_str()).map(str::to_owned);
        let ok = said.as_ref().and_then(|said| said["ok"].as_bool());
        if status.is_success() {
            match (&self.target, ok) {
                (_, Some(true)) | (Target::Webhook(_), None) => {
                    let at = member("ts").map_or_else(String::new, |at| format!(", ts {}", one_line(&at, 40)));
                    return Ok(Receipt { detail: format!("{status}{at}") });
                }
                (_, Some(false)) => {}
                (Target::Api { .. }, None) => {
                    return Err(Failure::retry(format!("{status}, but not an answer of Slack")).with_unknown_outcome());
                }
            }
        }
        let word = member("error").unwrap_or_else(|| text.lines().next().unwrap_or_default().to_owned());
        let word = one_line(&word, 60);
        let reason = if word.is_empty() { status.to_string() } else { format!("{status}: {word}") };
        match verdict(status, &word) {
            Refusal::Later => {
                let after = answer.header("retry-after").and_then(|text| retry::retry_after(text, self.clock.now()));
                Err(Failure::retry(reason).not_before(after))
            }
            Refusal::Content => Err(Failure::give_up(format!("{reason}; {}", advice(&word)))),
            Refusal::Place => Err(Failure::give_up(format!("{reason}; {}", advice(&word))).until_a_person_acts()),
        }
    }
}

fn api(base: &Url, method: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("/api/{method}"));
    url
}

/// What a refusal is about.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// Slack itself: it is asked again.
    Later,
    /// This message: no other is affected.
    Content,
    /// The webhook, the token or the channel: a person must act.
    Place,
}

fn verdict(status: StatusCode, word: &str) -> Refusal {
    match word {
        "ratelimited"
        | "rate_limited"
        | "rollup_error"
        | "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org"
        | "accesslimited" => Refusal::Later,
        "invalid_payload"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "no_text"
        | "msg_too_long"
        | "msg_blocks_too_long"
        | "too_many_attachments"
        | "invalid_arguments"
        | "invalid_json"
        | "json_not_object"
        | "invalid_form_data" => Refusal::Content,
        _ => match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Refusal::Later,
            // A word that we do not know, with the status of a refusal or in a 200.
            status if status.is_success() => Refusal::Place,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::UNAUTHORIZED => Refusal::Place,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                if word.is_empty() {
                    Refusal::Content
                } else {
                    Refusal::Place
                }
            }
            _ => Refusal::Later,
        },
    }
}

/// What to do about a refusal.
fn advice(word: &str) -> &'static str {
    match word {
        "channel_not_found" => "the channel does not exist, or the app cannot see it: correct `channel`, or invite the app",
        "channel_is_archived" | "is_archived" => "the channel is archived: unarchive it, or write to another",
        "not_in_channel" => "invite the app to the channel (`/invite @APP`), or give it the scope `chat:write.public`",
        "no_service" | "no_active_hooks" => "the webhook was removed: make a new one and set `webhook_url`",
        "invalid_token" => "the webhook's address is wrong or was revoked: copy it again into `webhook_url`",
        "no_team" | "team_disabled" | "account_inactive" | "user_not_found" => {
            "the workspace or the user is gone: make a new app there"
        }
        "action_prohibited" | "restricted_action" | "posting_to_general_channel_denied" | "ekm_access_denied" => {
            "an administrator of the workspace forbids it: ask them, or write to another channel"
        }
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "org_login_required" => {
            "the token is not valid (any more): install the app again and set `token`"
        }
        "missing_scope" | "not_allowed_token_type" | "no_permission" => {
            "the token may not write: give the app the scope `chat:write`, install it again and set `token`"
        }
        "msg_too_long" | "msg_blocks_too_long" | "invalid_blocks" | "invalid_blocks_format" | "invalid_payload" | "no_text" => {
            "Slack does not take this message; with a `template`, look at what it comes to with `taskhook routes test`"
        }
        _ => "look the word up in Slack's documentation; nothing is sent there as long as it says so",
    }
}
