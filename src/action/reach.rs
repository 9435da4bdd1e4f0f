//! Whether a public URL leads to this very taskhook: what everything else at set-up depends on.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::http::{self, Answer};
use crate::text::one_line;

/// How long a public URL may take to answer.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The most bytes of its answer that are read.
const MAX_ANSWER: usize = 1 << 20;

/// Why a public URL does not lead here, and what to do.
#[derive(Debug)]
pub struct Astray {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

async fn ask(public_url: &str) -> Result<Answer, http::Error> {
    let request = http::client(TIMEOUT).get(format!("{public_url}/healthz"));
    http::send_for_status(request, TIMEOUT, MAX_ANSWER).await
}

/// Whether any taskhook answers at a public URL.
pub async fn is_alive(public_url: &str) -> bool {
    let Ok(answer) = ask(public_url).await else { return false };
    let health: Option<Value> = serde_json::from_slice(&answer.body).ok();
    answer.status.is_success() && health.is_some_and(|health| health["instance"].is_string())
}

/// Asks `{public_url}/healthz` whether the taskhook with the id `instance` answers there.
///
/// # Errors
/// [`Astray`] says what answers instead, and what to do.
pub async fn reach(public_url: &str, instance: &str) -> Result<(), Astray> {
    let astray = |problem: String, hint: &str| Err(Astray { problem: format!("{public_url} {problem}"), hint: hint.to_owned() });
    let answer = match ask(public_url).await {
        Ok(answer) => answer,
        Err(http::Error::Connect(reason)) => {
            let reason = one_line(&reason, 200);
            let hint = if reason.contains("certificate") {
                "senders ask for a valid certificate for this name: let the proxy or the tunnel present one"
            } else {
                "is the tunnel or the proxy running, and is `server.public_url` its address?"
            };
            return astray(format!("cannot be connected to: {reason}"), hint);
        }
        Err(error) => {
            let hint = "is the tunnel or the proxy running? A firewall may drop this; or this machine does not reach its own public \
                        address, though others do";
            return astray(format!("does not answer: {error}"), hint);
        }
    };
    let health: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let member = |name: &str| health.as_ref().and_then(|health| health[name].as_str());
    let status = answer.status.as_u16();
    match (status, member("instance")) {
        (200, Some(id)) if id == instance => Ok(()),
        (200, Some(id)) => astray(
            format!("leads to another taskhook: its instance is {}, ours is {instance}", one_line(id, 40)),
            "point the tunnel or the proxy at this one, or set `store.url` to the store of the one that runs",
        ),
        (300..=399, _) => {
            let (place, hint) = redirect(&answer);
            astray(format!("answers {status}, a redirect{place}"), &hint)
        }
        (502..=504, _) => astray(
            format!("answers {status}: something is there, but it does not reach taskhook"),
            "start `taskhook serve`, and let the proxy or the tunnel forward to the address of `server.listen`",
        ),
        (404, _) if member("code") == Some("source_unknown") => astray(
            "leads to a taskhook, but not to its root".to_owned(),
            "let the proxy take the path of `server.public_url` off before it forwards, or take it off the URL",
        ),
        (401 | 403, _) => astray(
            format!("answers {status}: something in front of taskhook asks who we are"),
            "let `/healthz` and `/webhooks/` through without a login: taskhook verifies who sends",
        ),
        _ => {
            let kind = answer
                .header("content-type")
                .map_or_else(|| "without a type".to_owned(), |kind| format!("with {}", one_line(kind, 60)));
            astray(
                format!("does not lead to taskhook: it answers {status} {kind}"),
                "something else answers there: a page of the proxy or the tunnel, or another site; let it forward `/healthz` and \
                 `/webhooks/` to the address of `server.listen`",
            )
        }
    }
}

/// Where a redirect leads, and what to do about it.
fn redirect(answer: &Answer) -> (String, String) {
    let target = answer.header("location").and_then(|target| Url::parse(target).ok());
    let shown = target.map(|url| format!("{}{}", url.origin().ascii_serialization(), url.path()));
    let advice = "senders follow no redirect, and sign the URL they were given";
    match shown {
        Some(place) => {
            let place = one_line(&place, 200);
            let hint = match place.strip_suffix("/healthz") {
                Some(base) => format!("{advice}: set `server.public_url` to `{base}`"),
                None => format!("{advice}: something in front of taskhook sends them away"),
            };
            (format!(" to {place}"), hint)
        }
        None => (String::new(), format!("{advice}: set `server.public_url` to the URL that it leads to")),
    }
}
