//! Manus's webhook signature: RSASSA-PKCS1-v1_5 with SHA-256, once, over `{timestamp}.{url}.{hex sha256(body)}`.
//!
//! What must hold: the URL comes from our configuration and never from the request's `Host`, because Manus signs for all its
//! customers with one key, and whoever may choose the URL may replay another customer's event. The signature is checked before
//! the time, so that a stale time is only ever told of a good signature.

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::header::HeaderMap;

use crate::event::hex;
use crate::provider::header::{self, lateness, single};
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
        let signature = single(headers, SIGNATURE, header::SIGNATURE)?;
        let signature = decode_base64(signature).ok_or(RefusalKind::SignatureMalformed)?;
        if signature.is_empty() || (!keys.is_empty() && keys.iter().all(|key| key.signature_len() != signature.len())) {
            return Err(RefusalKind::SignatureMalformed);
        }
        let timestamp = single(headers, TIMESTAMP, header::TIMESTAMP)?;
        let seconds = header::seconds(timestamp).ok_or(RefusalKind::TimestampMalformed)?;
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
    header::timely(request.now, claim.seconds, TOLERANCE)
}

fn body_digest(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}

/// Says what would have made a refused request good; see [`crate::provider::Source::explain`].
#[must_use]
pub fn explain(request: &Request<'_>, public_urls: &[String], keys: &[PublicKey]) -> Option<String> {
    let claim = Claim::of(request.headers, keys).ok()?;
    let body_digest = body_digest(request.body);
    let late = lateness(request.now, claim.seconds, TOLERANCE);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::encode_base64;
    use crate::signature::rsa::PrivateKey;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::sync::LazyLock;

    const PUBLIC_URL: &str = "https://hooks.example.com";
    const SUFFIX: &str = "/webhooks/manus";
    const AT: i64 = 1_763_506_697;
    static KEY: LazyLock<PrivateKey> = LazyLock::new(PrivateKey::generate);

    #[derive(Deserialize)]
    struct Vectors {
        public_key: String,
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        accept: bool,
        now: i64,
        timestamp: String,
        url: String,
        body: String,
        signature: String,
        #[serde(default)]
        why: Option<String>,
    }

    /// A request that can be borrowed from.
    struct Made {
        headers: HeaderMap,
        body: Vec<u8>,
        suffix: String,
        now: Timestamp,
    }

    impl Made {
        fn new(suffix: &str, timestamp: &str, signature: &str, body: &[u8], now: i64) -> Self {
            let mut headers = HeaderMap::new();
            headers.insert(SIGNATURE, signature.parse().unwrap());
            headers.insert(TIMESTAMP, timestamp.parse().unwrap());
            let now = Timestamp::from_second(now).unwrap();
            Self { headers, body: body.to_vec(), suffix: suffix.to_owned(), now }
        }

        /// Signed with [`KEY`] for `url`, arriving at `suffix`.
        fn signed(url: &str, suffix: &str) -> Self {
            let body = br#"{"event_id":"e"}"#;
            let content = format!("{AT}.{url}.{}", body_digest(body));
            Self::new(suffix, &AT.to_string(), &encode_base64(&KEY.sign(content.as_bytes())), body, AT)
        }

        fn request(&self) -> Request<'_> {
            Request { headers: &self.headers, body: &self.body, url_suffix: &self.suffix, now: self.now }
        }

        fn verify(&self, urls: &[&str]) -> Result<(), Refusal> {
            verify(&self.request(), &owned(urls), &keys())
        }

        fn kind(&self) -> RefusalKind {
            self.verify(&[PUBLIC_URL]).unwrap_err().kind
        }

        fn explain(&self, urls: &[&str]) -> String {
            explain(&self.request(), &owned(urls), &keys()).unwrap_or_default()
        }
    }

    fn owned(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    fn keys() -> Vec<PublicKey> {
        vec![PublicKey::from_pem(&KEY.public_pem()).unwrap()]
    }

    #[test]
    fn every_vector_comes_out_as_marked_and_explained() {
        let text = include_str!("../../../tests/data/manus/signature_vectors.json");
        let Vectors { public_key, vectors } = serde_json::from_str(text).unwrap();
        let (keys, urls) = ([PublicKey::from_pem(&public_key).unwrap()], owned(&[PUBLIC_URL]));
        assert!(vectors.len() >= 20);
        for vector in vectors {
            let suffix = vector.url.strip_prefix(PUBLIC_URL).unwrap();
            let made = Made::new(suffix, &vector.timestamp, &vector.signature, vector.body.as_bytes(), vector.now);
            let verified = verify(&made.request(), &urls, &keys);
            assert_eq!(verified.is_ok(), vector.accept, "{}: {verified:?}", vector.name);
            let told = explain(&made.request(), &urls, &keys).unwrap_or_default();
            if vector.accept {
                assert_eq!(told, "", "{}", vector.name);
                continue;
            }
            for part in match vector.why.as_deref() {
                Some("stale") => vec!["301 s behind ours"],
                Some("url") => vec!["https://hooks.example.com/webhooks/manus"],
                Some("scheme") => {
                    vec!["http://hooks.example.com/webhooks/manus", "register it as `https://hooks.example.com/webhooks/manus`"]
                }
                Some("slash") => vec!["slash at its end", "register it as `https://hooks.example.com/webhooks/manus`"],
                Some("double hash") => vec!["taken twice"],
                _ => vec![],
            } {
                // A query is never shown, so the one with a query is told by its advice.
                let told_of_query = vector.url.contains('?') && told.contains("in another order");
                assert!(told.contains(part) || told_of_query, "{}: {told}", vector.name);
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        use RefusalKind as Kind;
        let good = || Made::signed(&format!("{PUBLIC_URL}{SUFFIX}"), SUFFIX);
        assert_eq!(good().verify(&[PUBLIC_URL]), Ok(()));
        let broken = |change: &dyn Fn(&mut HeaderMap)| {
            let mut made = good();
            change(&mut made.headers);
            made.kind()
        };
        let set = |name: &'static str, value: &'static str| broken(&|headers| drop(headers.insert(name, value.parse().unwrap())));
        assert_eq!(broken(&|headers| headers.clear()), Kind::SignatureMissing);
        assert_eq!(broken(&|headers| drop(headers.remove(TIMESTAMP))), Kind::TimestampMissing);
        for text in ["", " ", "***", "AAAA", "AAA"] {
            assert_eq!(set(SIGNATURE, text), Kind::SignatureMalformed, "{text:?}");
        }
        for text in ["", "now", "+1763506697", "-1", "01763506697", "1763506697.0", "1 763506697", "9999999999999999"] {
            assert_eq!(set(TIMESTAMP, text), Kind::TimestampMalformed, "{text:?}");
        }
        assert_eq!(broken(&|headers| assert!(headers.append(SIGNATURE, "AAAA".parse().unwrap()))), Kind::SignatureMalformed);
        assert_eq!(broken(&|headers| assert!(headers.append(TIMESTAMP, "1".parse().unwrap()))), Kind::TimestampMalformed);
        assert_eq!(set(TIMESTAMP, "1763506698"), Kind::SignatureInvalid);
        assert_eq!(verify(&good().request(), &owned(&[PUBLIC_URL]), &[]).unwrap_err().kind, Kind::SignatureInvalid);
        assert_eq!(good().verify(&[]).unwrap_err().kind, Kind::SignatureInvalid);
    }

    #[test]
    fn a_stale_time_is_only_told_of_a_good_signature() {
        let mut made = Made::signed(&format!("{PUBLIC_URL}{SUFFIX}"), SUFFIX);
        for (now, refusal) in [(AT + 300, None), (AT - 300, None), (AT + 301, Some(true)), (AT - 301, Some(true))] {
            made.now = Timestamp::from_second(now).unwrap();
            assert_eq!(made.verify(&[PUBLIC_URL]).err().map(|refusal| refusal.genuine), refusal);
        }
        assert_eq!(made.kind(), RefusalKind::TimestampStale);
        assert!(made.explain(&[PUBLIC_URL]).contains("301 s ahead of ours"));
        made.body.push(b' ');
        assert_eq!(made.verify(&[PUBLIC_URL]), Err(Refusal::of(RefusalKind::SignatureInvalid)));
    }

    #[test]
    fn each_configured_url_counts_and_the_host_never_does() {
        let mut made = Made::signed("https://old.example.com/base/webhooks/manus", SUFFIX);
        assert_eq!(made.verify(&[PUBLIC_URL, "https://old.example.com/base"]), Ok(()));
        made.headers.insert("host", "old.example.com".parse().unwrap());
        made.headers.insert("x-forwarded-host", "old.example.com".parse().unwrap());
        assert_eq!(made.kind(), RefusalKind::SignatureInvalid);
    }

    #[test]
    fn explanations_name_the_value_to_set() {
        let told = |signed_for: &str, urls: &[&str]| Made::signed(signed_for, SUFFIX).explain(urls);
        let base = "https://hooks.example.com/base";
        assert!(told("https://hooks.example.com/webhooks/manus", &[base]).contains("without the path of `server.public_url`"));
        assert!(told("https://hooks.example.com:443/webhooks/manus", &[PUBLIC_URL]).contains("names the port 443"));
        assert!(told("https://hooks.example.com//webhooks/manus", &[PUBLIC_URL]).contains("two slashes"));
        let mut made = Made::signed("https://abc.tunnel.example/webhooks/manus", SUFFIX);
        assert!(made.explain(&[PUBLIC_URL]).contains("exactly `https://hooks.example.com/webhooks/manus`"));
        made.headers.insert("host", "abc.tunnel.example".parse().unwrap());
        assert!(made.explain(&[PUBLIC_URL]).contains("add `https://abc.tunnel.example` to `server.public_url`"));
        made.headers.clear();
        assert_eq!(made.explain(&[PUBLIC_URL]), "");
    }

    #[test]
    fn explanations_show_no_token_and_no_query() {
        let suffix = "/webhooks/manus/s3cret?k=hidden&x=1";
        for signed_for in [
            "http://hooks.example.com/webhooks/manus/s3cret?k=hidden&x=1",
            "https://hooks.example.com/webhooks/manus/s3cret/?k=hidden&x=1",
            "https://hooks.example.com/webhooks/manus/s3cret?x=1&k=hidden",
            "https://hooks.example.com/webhooks/manus/s3cret",
            "https://elsewhere.example.com/",
        ] {
            let told = Made::signed(signed_for, suffix).explain(&[PUBLIC_URL]);
            assert!(!told.is_empty() && !told.contains("s3cret") && !told.contains("hidden"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn any_headers_can_be_checked(
            signature in proptest::collection::vec(any::<u8>(), 0..40),
            timestamp in proptest::collection::vec(any::<u8>(), 0..20),
            suffix in ".{0,30}",
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(SIGNATURE, &signature), (TIMESTAMP, &timestamp), ("host", &signature)] {
                if let Ok(value) = reqwest::header::HeaderValue::from_bytes(value) {
                    headers.insert(name, value);
                }
            }
            let request = Request { headers: &headers, body: &signature, url_suffix: &suffix, now: Timestamp::UNIX_EPOCH };
            prop_assert!(verify(&request, &owned(&[PUBLIC_URL]), &[]).is_err());
            let _ = explain(&request, &owned(&[PUBLIC_URL]), &[]);
        }
    }
}
