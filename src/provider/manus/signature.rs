//! Manus's webhook signature: RSASSA-PKCS1-v1_5 with SHA-256, once, over `{timestamp}.{url}.{hex sha256(body)}`.
//!
//! What must hold: the URL comes from our configuration and never from the request's `Host`, because Manus signs for all its
//! customers with one key, and whoever may choose the URL may replay another customer's event. The signature is checked before
//! the time, so that a stale time is only ever told of a good signature.

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::header::HeaderMap;

use crate::event::hex;
use crate::provider::{Refusal, RefusalKind, Request};
use crate::signature::decode_base64;
use crate::signature::rsa::PublicKey;

/// The header with the signature, in Base64.
pub const SIGNATURE: &str = "x-webhook-signature";
/// The header with the time of signing, in Unix seconds.
pub const TIMESTAMP: &str = "x-webhook-timestamp";
/// How far that time may be from ours, either way, in seconds; this far is still good.
pub const TOLERANCE: i64 = 300;

/// What the headers claim.
struct Claim<'a> {
    signature: Vec<u8>,
    /// As received: it is part of what is signed.
    timestamp: &'a str,
    seconds: i64,
}

impl<'a> Claim<'a> {
    fn of(headers: &'a HeaderMap, keys: &[PublicKey]) -> Result<Self, RefusalKind> {
        let signature = single(headers, SIGNATURE, RefusalKind::SignatureMissing, RefusalKind::SignatureMalformed)?;
        let signature = decode_base64(signature).ok_or(RefusalKind::SignatureMalformed)?;
        if signature.is_empty() || (!keys.is_empty() && keys.iter().all(|key| key.signature_len() != signature.len())) {
            return Err(RefusalKind::SignatureMalformed);
        }
        let timestamp = single(headers, TIMESTAMP, RefusalKind::TimestampMissing, RefusalKind::TimestampMalformed)?;
        let seconds = seconds(timestamp).ok_or(RefusalKind::TimestampMalformed)?;
        Ok(Self { signature, timestamp, seconds })
    }

    /// What is signed if the webhook is registered as `url`.
    fn content(&self, url: &str, body_digest: &str) -> String {
        format!("{}.{url}.{body_digest}", self.timestamp)
    }

    fn fits(&self, message: &[u8], keys: &[PublicKey]) -> bool {
        keys.iter().any(|key| key.verify(message, &self.signature))
    }
}

/// The one value of a header: two may mean two different things to two readers.
fn single<'a>(headers: &'a HeaderMap, name: &str, missing: RefusalKind, malformed: RefusalKind) -> Result<&'a str, RefusalKind> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(missing)?;
    if values.next().is_some() {
        return Err(malformed);
    }
    value.to_str().map_err(|_| malformed)
}

/// Decimal digits and nothing else: no sign, no leading zero, so that a time has one spelling.
fn seconds(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain && text.len() <= 15 { text.parse().ok() } else { None }
}

/// Checks `request`; see [`crate::provider::Source::verify`]. Without keys nothing is good.
///
/// # Errors
/// [`Refusal`].
pub fn verify(request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Result<(), Refusal> {
    let claim = Claim::of(request.headers, keys).map_err(Refusal::of)?;
    let body_digest = body_digest(request.body);
    let good = public_urls.iter().any(|base| {
        let url = format!("{base}{}", request.url_suffix);
        claim.fits(claim.content(&url, &body_digest).as_bytes(), keys)
    });
    if !good {
        return Err(Refusal::of(RefusalKind::SignatureInvalid));
    }
    if age(request, &claim).abs() > TOLERANCE {
        return Err(Refusal { kind: RefusalKind::TimestampStale, genuine: true });
    }
    Ok(())
}

fn age(request: &Request<'_>, claim: &Claim<'_>) -> i64 {
    request.now.as_second() - claim.seconds
}

fn body_digest(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}

/// Says what would have made a refused request good; see [`crate::provider::Source::explain`].
#[must_use]
pub fn explain(request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Option<String> {
    let claim = Claim::of(request.headers, keys).ok()?;
    let body_digest = body_digest(request.body);
    let late = lateness(age(request, &claim));
    for guess in guesses(request, public_urls) {
        let content = claim.content(&guess.url, &body_digest);
        let twice = || claim.fits(digest(&SHA256, content.as_bytes()).as_ref(), keys);
        let (once, advice) = (claim.fits(content.as_bytes(), keys), guess.advice);
        if !once && !twice() {
            continue;
        }
        let mut parts = Vec::new();
        if !once {
            parts.push(
                "signed with the hash taken twice, as the samples in Manus's documents did until 2026: Manus itself hashes once, \
                 so correct the sender"
                    .to_owned(),
            );
        }
        parts.extend(advice);
        parts.extend(late.clone());
        return (!parts.is_empty()).then(|| parts.join("; "));
    }
    let expected: Vec<_> = public_urls.iter().map(|base| format!("`{base}{}`", shown(request.url_suffix))).collect();
    Some(format!(
        "the signature fits no URL that we can guess: the webhook must be registered as exactly {} (`server.public_url` and the \
         path), and nothing on the way may change the body, the path or the query",
        expected.join(" or ")
    ))
}

/// What a genuine signature with a stale time means.
fn lateness(age: i64) -> Option<String> {
    let side = if age < 0 { "ahead of" } else { "behind" };
    (age.abs() > TOLERANCE).then(|| {
        format!(
            "the signature is genuine, but its time is {} s {side} ours, and at most {TOLERANCE} s are accepted: set this machine's \
             clock; if it is right, the request was held back, or sent again by somebody else",
            age.unsigned_abs()
        )
    })
}

/// A URL that the webhook may be registered as, and what to do if it is.
struct Guess {
    url: String,
    advice: Option<String>,
}

/// Every URL worth a try, the configured ones first.
fn guesses(request: &Request<'_>, public_urls: &[String]) -> Vec<Guess> {
    let suffix = request.url_suffix;
    let (path, query) = suffix.split_once('?').map_or((suffix, None), |(path, query)| (path, Some(query)));
    let shown = shown(suffix);
    let mut out = Vec::new();
    let mut guess = |url: String, advice: Option<String>| out.push(Guess { url, advice });

    for base in public_urls {
        guess(format!("{base}{suffix}"), None);
    }
    for base in public_urls {
        let right = format!("register it as `{base}{shown}`");
        let with_query = query.map(|query| format!("?{query}")).unwrap_or_default();
        if let Some(swapped) = other_scheme(base) {
            guess(format!("{swapped}{suffix}"), Some(format!("signed for `{swapped}{shown}`, with another scheme: {right}")));
        }
        guess(format!("{base}{path}/{with_query}"), Some(format!("signed for a URL with a slash at its end: {right}")));
        guess(
            format!("{base}/{}{with_query}", path.trim_start_matches('/').trim_end_matches('/')),
            Some(format!("signed for a URL without the slash at its end: {right}, and send it there")),
        );
        guess(format!("{base}/{suffix}"), Some(format!("signed for a URL with two slashes in a row: {right}")));
        if let Some(query) = query {
            let advice = "signed for a URL without the query that arrived: something on the way adds it".to_owned();
            guess(format!("{base}{path}"), Some(advice));
            for other in orders(query) {
                let advice = "signed for a URL whose query is in another order: something on the way sorts it".to_owned();
                guess(format!("{base}{path}?{other}"), Some(advice));
            }
        }
        if let Ok(url) = url::Url::parse(base) {
            let origin = url.origin().ascii_serialization();
            if origin != *base {
                let advice = format!("signed for `{origin}{shown}`, without the path of `server.public_url`: {right}");
                guess(format!("{origin}{suffix}"), Some(advice));
            }
            let port = url.port_or_known_default().filter(|_| url.port().is_none());
            if let (Some(port), Some(host)) = (port, url.host_str()) {
                let advice = format!("signed for a URL that names the port {port}: {right}");
                guess(format!("{}://{host}:{port}{}{suffix}", url.scheme(), url.path().trim_end_matches('/')), Some(advice));
            }
        }
    }
    // A hint and no more: what a request says about itself proves nothing, so the owner must recognise the address.
    for host in ["host", "x-forwarded-host"].into_iter().filter_map(|name| plain_host(request.headers, name)) {
        for base in [format!("https://{host}"), format!("http://{host}")] {
            let advice = format!(
                "signed for `{base}{shown}`: if that address is yours, add `{base}` to `server.public_url`; if it is not, somebody \
                 replays another customer's event"
            );
            guess(format!("{base}{suffix}"), Some(advice));
        }
    }
    out
}

fn other_scheme(base: &str) -> Option<String> {
    match base.split_once("://")? {
        ("https", rest) => Some(format!("http://{rest}")),
        ("http", rest) => Some(format!("https://{rest}")),
        _ => None,
    }
}

/// The host that a header names, if it is one that can be shown.
fn plain_host<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let host = headers.get(name)?.to_str().ok()?;
    let plain =
        (1..=255).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    plain.then_some(host)
}

/// The other orders of a query of up to four parts.
fn orders(query: &str) -> Vec<String> {
    let parts: Vec<_> = query.split('&').collect();
    if parts.len() > 4 {
        return Vec::new();
    }
    permutations(&parts).into_iter().map(|parts| parts.join("&")).filter(|other| other != query).collect()
}

fn permutations<'a>(parts: &[&'a str]) -> Vec<Vec<&'a str>> {
    let Some((last, rest)) = parts.split_last() else { return vec![Vec::new()] };
    let insert = |order: &Vec<&'a str>, at| {
        let mut order = order.clone();
        order.insert(at, *last);
        order
    };
    permutations(rest).iter().flat_map(|order| (0..=order.len()).map(move |at| insert(order, at))).collect()
}

/// Path and query as people may see them: what follows the source's name is a token, and a query often holds one.
fn shown(suffix: &str) -> String {
    let (path, query) = suffix.split_once('?').map_or((suffix, ""), |(path, _)| (path, "?[redacted]"));
    let mut parts = path.splitn(4, '/');
    let (root, webhooks, source) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let token = if parts.next().is_some_and(|token| !token.is_empty()) { "/[redacted]" } else { "" };
    format!("{root}/{webhooks}/{source}{token}{query}")
}
