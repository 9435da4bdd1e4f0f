//! Senders that are well known: nothing but configuration, as a user could have written it.

use serde::{Deserialize, Serialize};

use super::Config;

/// A sender that is well known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Cursor's cloud agents.
    Cursor,
    /// GitHub.
    Github,
    /// Skyvern.
    Skyvern,
    /// Slack's Events API.
    Slack,
    /// Stripe.
    Stripe,
}

impl Preset {
    /// Every preset.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] = [Self::Cursor, Self::Github, Self::Skyvern, Self::Slack, Self::Stripe];

    /// The keys that it stands for, as TOML.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Cursor => {
                r#"
scheme = "hmac-sha256"
signature_header = "x-webhook-signature"
signature_prefix = "sha256="
signature_encoding = "hex"
signed = "{body}"
event_id = ["/id", "/status"]
event_type = "header:x-webhook-event | /event"
task_id = "/id"
url = "/target/url"
message = "/summary"
"#
            }
            Self::Github => {
                r#"
scheme = "hmac-sha256"
signature_header = "x-hub-signature-256"
signature_prefix = "sha256="
signature_encoding = "hex"
signed = "{body}"
event_id = "header:x-github-delivery"
event_type = ["header:x-github-event", "/action"]
title = "/repository/full_name"
url = "/repository/html_url"
ping_type = "ping"
"#
            }
            Self::Skyvern => {
                r#"
scheme = "hmac-sha256"
signature_header = "x-skyvern-signature"
signature_encoding = "hex"
signed = "{body}"
event_id = ["/run_id", "/status"]
event_type = "/status"
task_id = "/run_id"
"#
            }
            Self::Slack => {
                r#"
scheme = "hmac-sha256"
signature_header = "x-slack-signature"
signature_prefix = "v0="
signature_encoding = "hex"
signed = "v0:{ts}:{body}"
timestamp_header = "x-slack-request-timestamp"
tolerance = "5m"
event_id = "/event_id | hash"
event_type = "/event/type | /type"
message = "/event/text"
challenge = "/challenge"
challenge_type = "url_verification"
"#
            }
            Self::Stripe => {
                r#"
scheme = "hmac-sha256"
signature_header = "stripe-signature"
signature_format = "pairs"
signature_name = "v1"
signature_encoding = "hex"
signed = "{ts}.{body}"
timestamp_name = "t"
tolerance = "5m"
event_id = "/id"
event_type = "/type"
"#
            }
        }
    }

    /// The keys that it stands for.
    pub(super) fn keys(self) -> Config {
        toml::from_str(self.text()).unwrap_or_default()
    }
}
