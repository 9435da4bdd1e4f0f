//! The published vectors, and what must not be believed.

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::provider::{Budgets, Own, Source};
use crate::signature::encode_base64;

/// `id`, `timestamp`, `body`, secret or public key, signature.
type Vector = (&'static str, i64, &'static str, &'static str, &'static str);

/// Of the specification's Rust library.
const A: Vector = (
    "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
    1_649_367_553,
    r#"{"email":"test@example.com","username":"test_user"}"#,
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
);
/// Of Svix's server.
const B: Vector = (
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    1_614_265_330,
    r#"{"test": 2432232314}"#,
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
);
/// The same, by Ed25519.
const C: Vector = (
    B.0,
    B.1,
    B.2,
    "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
);
/// Of `OpenAI`'s Python library.
const D: Vector = (
    "wh_685c059ae39c8190af8c71ed1022a24d",
    1_750_861_210,
    r#"{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}"#,
    "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=",
    "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
);

fn config(keys: &[&str]) -> Config {
    let (public, secret): (Vec<&str>, Vec<&str>) = keys.iter().partition(|key| key.starts_with("whpk_"));
    Config {
        secret: List(secret.into_iter().map(Secret::new).collect()),
        public_key: List(public.into_iter().map(str::to_owned).collect()),
        ..Config::default()
    }
}

fn source(config: Config) -> Source {
    let (clock, own) = (Clock::system(), Own::StandardWebhooks(Box::new(config)));
    let config = crate::provider::Config { own, common: Common::default() };
    assert_eq!(config.check(), [""; 0]);
    Source::new("sw", &config, &clock, &Budgets::new(clock.clone())).unwrap()
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// What `source` says of a request with these headers and this body at `now`: its verdict, and its explanation.
fn asked(source: &Source, headers: &HeaderMap, body: &[u8], now: i64) -> (Result<Verification, RefusalKind>, String) {
    let request = Request { headers, body, url_suffix: "/webhooks/sw", now: Timestamp::from_second(now).unwrap() };
    let verdict = source.verify(&request, &[], &[]).map_err(|refusal| refusal.kind);
    (verdict, source.explain(&request, &[], &[]).unwrap_or_default())
}

/// The same, of the vector's body, with these three headers where they are not empty.
fn sent(
    source: &Source,
    vector: Vector,
    id: &str,
    timestamp: &str,
    signature: &str,
) -> (Result<Verification, RefusalKind>, String) {
    let all = [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
    let list: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    asked(source, &headers(&list), vector.2.as_bytes(), vector.1)
}

fn verdict(source: &Source, vector: Vector, id: &str, timestamp: &str, signature: &str) -> Result<Verification, RefusalKind> {
    sent(source, vector, id, timestamp, signature).0
}

const GOOD: Result<Verification, RefusalKind> = Ok(Verification::Signature);

#[test]
fn every_published_vector_is_genuine_and_a_byte_less_is_not() {
    for vector in [A, B, C, D] {
        let (id, at, body, key, signature) = vector;
        let source = source(config(&[key]));
        assert_eq!(verdict(&source, vector, id, &at.to_string(), signature), GOOD, "{id}");
        let list = [("webhook-id", id), ("webhook-timestamp", &at.to_string()), ("webhook-signature", signature)];
        let cut = asked(&source, &headers(&list), &body.as_bytes()[1..], at).0;
        assert_eq!(cut, Err(RefusalKind::SignatureInvalid), "{id}");
        assert_eq!(verdict(&source, vector, "msg_other", &at.to_string(), signature), Err(RefusalKind::SignatureInvalid));
        assert_eq!(verdict(&source, vector, id, &(at + 1).to_string(), signature), Err(RefusalKind::SignatureInvalid));
    }
}

#[test]
fn one_of_several_signatures_and_one_of_several_keys_is_enough() {
    let other = format!("whsec_{}", encode_base64(&[7; 32]));
    let (id, at) = (B.0, B.1.to_string());
    let both = source(config(&[&other, B.3, C.3]));
    for signature in [
        B.4.to_owned(),
        C.4.to_owned(),
        format!("v1,{} {}", encode_base64(&[0; 32]), B.4),
        format!("v1a,{} {} {}", encode_base64(&[0; 64]), B.4, C.4),
        format!("v2,AAAA  {}", B.4),
        format!("v1,AAAA {}", B.4),
    ] {
        assert_eq!(verdict(&both, B, id, &at, &signature), GOOD, "{signature}");
    }
    // A key is for signatures of its own version.
    let swapped = format!("v1a,{}", &B.4[3..]);
    assert_eq!(verdict(&both, B, id, &at, &swapped), Err(RefusalKind::SignatureMalformed));
    assert_eq!(verdict(&source(config(&[&other])), B, id, &at, B.4), Err(RefusalKind::SignatureInvalid));
    // The ninth is not looked at: a request may not make us compute without end.
    let many = format!("{}{}", format!("v1,{} ", encode_base64(&[0; 32])).repeat(8), B.4);
    assert_eq!(verdict(&both, B, id, &at, &many), Err(RefusalKind::SignatureInvalid));
}

#[test]
fn headers_are_taken_to_the_letter() {
    let source = source(config(&[B.3]));
    let (id, at) = (B.0, B.1.to_string());
    for (timestamp, expected) in [
        (String::new(), RefusalKind::TimestampMissing),
        (format!("+{at}"), RefusalKind::TimestampMalformed),
        (format!("-{at}"), RefusalKind::TimestampMalformed),
        (format!("0{at}"), RefusalKind::TimestampMalformed),
        (format!("{at}.0"), RefusalKind::TimestampMalformed),
        (format!("{at} {at}"), RefusalKind::TimestampMalformed),
        ("now".to_owned(), RefusalKind::TimestampMalformed),
        ("9".repeat(20), RefusalKind::TimestampMalformed),
    ] {
        assert_eq!(verdict(&source, B, id, &timestamp, B.4), Err(expected), "{timestamp}");
    }
    for (signature, expected) in [
        ("", RefusalKind::SignatureMissing),
        ("v1", RefusalKind::SignatureMalformed),
        ("v1,", RefusalKind::SignatureMalformed),
        (&B.4[3..], RefusalKind::SignatureMalformed),
        (&B.4[..B.4.len() - 1], RefusalKind::SignatureMalformed),
        ("v1,g0hM9SsE-OTPJTGt_tmIKtSyZlE3uFJELVlNIOLJ1OE=", RefusalKind::SignatureMalformed),
        ("v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", RefusalKind::SignatureMalformed),
        ("V1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", RefusalKind::SignatureMalformed),
    ] {
        assert_eq!(verdict(&source, B, id, &at, signature), Err(expected), "{signature}");
    }
    assert_eq!(verdict(&source, B, "", &at, B.4), Err(RefusalKind::SignatureInvalid));
    let twice = headers(&[("webhook-id", id), ("webhook-id", id), ("webhook-timestamp", &at), ("webhook-signature", B.4)]);
    assert_eq!(asked(&source, &twice, B.2.as_bytes(), B.1).0, Err(RefusalKind::SignatureInvalid));
}

#[test]
fn an_id_with_a_dot_is_none_however_it_is_signed() {
    // What is signed is the same whether the dot ends the id or is part of it.
    let key = key_of_sender(B.3).unwrap();
    let signature = format!("v1,{}", encode_base64(&key.sign(&[b"a.1614265330.1614265330.", B.2.as_bytes()])));
    let source = source(config(&[B.3]));
    assert_eq!(verdict(&source, B, "a.1614265330", "1614265330", &signature), Err(RefusalKind::SignatureMalformed));
}

#[test]
fn time_is_kept_within_the_window_either_way() {
    let (id, at, body, key, signature) = B;
    let list = [("webhook-id", id), ("webhook-timestamp", "1614265330"), ("webhook-signature", signature)];
    let at_window = |tolerance: u64, now: i64| {
        let source = source(Config { tolerance: Duration::from_secs(tolerance), ..config(&[key]) });
        asked(&source, &headers(&list), body.as_bytes(), now)
    };
    for (tolerance, age, expected) in
        [(300, 300, true), (300, -300, true), (300, 301, false), (300, -301, false), (1800, 1800, true), (60, 61, false)]
    {
        let (verdict, explanation) = at_window(tolerance, at + age);
        assert_eq!(verdict, if expected { GOOD } else { Err(RefusalKind::TimestampStale) }, "{tolerance} {age}");
        assert_eq!(explanation.contains("genuine"), !expected, "{explanation}");
    }
}

#[test]
fn svix_has_other_names_for_the_same_headers() {
    let (id, at, body, key, signature) = B;
    let list = [("svix-id", id), ("svix-timestamp", "1614265330"), ("svix-signature", signature)];
    let (verdict, explanation) = asked(&source(config(&[key])), &headers(&list), body.as_bytes(), at);
    assert_eq!(verdict, Err(RefusalKind::SignatureMissing));
    assert_eq!(explanation, "the headers begin with `svix-`: set `header_prefix = \"svix\"`");
    let svix = Config { header_prefix: HeaderPrefix::Svix, ..config(&[key]) };
    assert_eq!(asked(&source(svix), &headers(&list), body.as_bytes(), at).0, GOOD);
}

#[test]
fn what_would_have_matched_is_said_without_a_secret() {
    let source = source(config(&[B.3]));
    let at = B.1.to_string();
    let key = hmac::Key::new(hmac::Hash::Sha256, B.3.as_bytes()).unwrap();
    let as_text = format!("v1,{}", encode_base64(&key.sign(&[B.0.as_bytes(), b".", at.as_bytes(), b".", B.2.as_bytes()])));
    for (id, signature, words) in [
        (B.0, as_text.as_str(), "`secret_form = \"text\"`"),
        (B.0, A.4, "of another secret"),
        ("a.b", B.4, "`webhook-id` must be there once"),
    ] {
        let said = sent(&source, B, id, &at, signature).1;
        assert!(said.contains(words) && !said.contains("MfKQ"), "{said}");
    }
}

#[test]
fn an_event_is_its_header_and_its_type() {
    let read = |config: Config, body: &[u8]| {
        let headers = headers(&[("webhook-id", D.0)]);
        let request = Request { headers: &headers, body, url_suffix: "", now: Timestamp::UNIX_EPOCH };
        source(config).read(&request)
    };
    let reading = read(Config { task_pointer: Some("/data/id".to_owned()), ..config(&[D.3]) }, D.2.as_bytes());
    assert_eq!((reading.event_id.as_str(), reading.kind.as_str()), (D.0, "response.completed"));
    assert_eq!((reading.provider_type.as_deref(), reading.task_id.as_deref()), (Some("response.completed"), Some("resp_123")));
    let anthropic =
        json!({"type": "event", "id": "event_1", "data": {"type": "session.status_idled", "id": "sesn_1"}}).to_string();
    let nested = read(Config { type_pointer: "/data/type".to_owned(), ..config(&[D.3]) }, anthropic.as_bytes());
    assert_eq!(nested.kind, "session.status_idled");
    for body in [&b"{}"[..], b"[]", b"not json", b"\xff", b"", br#"{"type": {"a": 1}}"#] {
        let reading = read(config(&[D.3]), body);
        assert_eq!((reading.kind.as_str(), reading.event_id.as_str(), reading.task_id), (UNKNOWN, D.0, None));
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_write() {
    let wrong = |config: Config| config.check(&Common::default()).join("\n");
    for (key, words) in [
        ("", "begins with `whsec_`"),
        ("whsec_", "at least 16 bytes and at most 512, this one 0"),
        ("whsec_c2VjcmV0", "this one 6"),
        ("whsec_not base64", "must be standard Base64"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "`provider = \"custom\"`"),
        ("whpk_AAAA", "`public_key` cannot be used: an Ed25519 public key has 32 bytes"),
        ("whpk_*", "must be standard Base64"),
    ] {
        let said = wrong(config(&[key]));
        assert!(said.contains(words) && !said.contains("c2VjcmV0"), "{key}: {said}");
    }
    assert!(wrong(config(&[])).contains("`secret` is missing"));
    assert_eq!(config(&[]).check(&Common { verify: Some(crate::provider::Verify::None), ..Common::default() }), [""; 0]);
    assert!(wrong(Config { tolerance: Duration::ZERO, ..config(&[B.3]) }).contains("`tolerance`"));
    assert!(wrong(Config { type_pointer: "type".to_owned(), ..config(&[B.3]) }).contains("`type_pointer`"));
    assert!(wrong(Config { task_pointer: Some("header:x".to_owned()), ..config(&[B.3]) }).contains("`task_pointer`"));
    assert!(!format!("{:?}", config(&[B.3])).contains("MfKQ"));
}
