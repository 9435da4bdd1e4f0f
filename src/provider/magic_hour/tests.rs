//! Magic Hour's requests, verified and read, held against its documentation and a signature that was computed elsewhere.

use jiff::Timestamp;
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::provider::{Budgets, Config as SourceConfig, Own, RefusalKind, Source};
use crate::simulator::magic_hour::{EVENTS, MagicHour};

const SECRET: &str = "whsec_abc123def456";
const BODY: &[u8] = br#"{"type":"video.completed","payload":{"id":"clx123","status":"complete","downloads":[{"url":"https://videos.magichour.ai/output.mp4"}]}}"#;
const AT: i64 = 1_729_314_984;

fn source(secrets: &[&str], api_key: Option<&str>) -> Source {
    let config = Config {
        secret: List(secrets.iter().map(|secret| Secret::new(*secret)).collect()),
        api_key: api_key.map(Secret::new),
        ..Config::default()
    };
    let config = SourceConfig { own: Own::MagicHour(Box::new(config)), common: Common::default() };
    assert_eq!(config.check(), Vec::<String>::new());
    let clock = Clock::manual(Timestamp::from_second(AT).unwrap());
    Source::new("mh", &config, &clock, &Budgets::new(clock.clone())).unwrap()
}

/// What becomes of `body` with `headers` so many seconds after it was signed.
fn judge_at(source: &Source, headers: &HeaderMap, body: &[u8], late: i64) -> Result<Verification, Refusal> {
    source.verify(&request(headers, body, late), &[], &[])
}

fn request<'a>(headers: &'a HeaderMap, body: &'a [u8], late: i64) -> Request<'a> {
    Request { headers, body, url_suffix: "/webhooks/mh", now: Timestamp::from_second(AT + late).unwrap() }
}

#[test]
fn the_vector_is_genuine_and_what_a_library_would_make_of_the_secret_is_not() {
    let source = source(&[SECRET], None);
    let mut headers = HeaderMap::new();
    headers.insert(TIMESTAMP, AT.into());
    let signed = |text: &'static str| HeaderValue::from_static(text);
    headers.insert(SIGNATURE, signed("f5adf8d69bdc8d479a3e8c8f8bdfdf9c9658dadbf0b95c85626f172640d67d1e"));
    assert_eq!(judge_at(&source, &headers, BODY, 0), Ok(Verification::Signature));
    headers.insert(SIGNATURE, signed("956c6d6d28d79e5707e40268941e13d8d852926d0b8472b4e296205a6fda0a5c"));
    assert_eq!(judge_at(&source, &headers, BODY, 0), Err(Refusal::of(RefusalKind::SignatureInvalid)));
    assert!(source.explain(&request(&headers, BODY, 0), &[], &[]).unwrap().contains("signs with the whole text"));
}

#[test]
fn the_window_is_the_configured_one_and_a_late_genuine_request_is_told_from_a_forged_one() {
    let source = source(&[SECRET], None);
    let headers = MagicHour::sign(SECRET, BODY, AT);
    for late in [-300, 0, 300] {
        assert!(judge_at(&source, &headers, BODY, late).is_ok(), "{late}");
    }
    for late in [-301, 301, 86_400] {
        let refusal = judge_at(&source, &headers, BODY, late).unwrap_err();
        assert_eq!(refusal, Refusal { kind: RefusalKind::TimestampStale, genuine: true }, "{late}");
        let told = source.explain(&request(&headers, BODY, late), &[], &[]).unwrap();
        assert!(told.contains("genuine") && told.contains("at most 300 s"), "{told}");
        assert_eq!(judge_at(&source, &headers, b"{}", late).unwrap_err(), Refusal::of(RefusalKind::SignatureInvalid));
    }
}

#[test]
fn any_of_several_secrets_will_do() {
    let source = source(&["whsec_old", "whsec_new"], None);
    for secret in ["whsec_old", "whsec_new"] {
        assert!(judge_at(&source, &MagicHour::sign(secret, BODY, AT), BODY, 0).is_ok());
    }
    assert!(judge_at(&source, &MagicHour::sign("whsec_other", BODY, AT), BODY, 0).is_err());
}

#[test]
fn what_is_missing_doubled_or_malformed_is_named() {
    let source = source(&[SECRET], None);
    let genuine = MagicHour::sign(SECRET, BODY, AT);
    let check = |change: &dyn Fn(&mut HeaderMap), expected: RefusalKind| {
        let mut headers = genuine.clone();
        change(&mut headers);
        assert_eq!(judge_at(&source, &headers, BODY, 0), Err(Refusal::of(expected)), "{headers:?}");
    };
    check(&|headers| drop(headers.remove(SIGNATURE)), RefusalKind::SignatureMissing);
    check(&|headers| drop(headers.remove(TIMESTAMP)), RefusalKind::TimestampMissing);
    check(&|headers| assert!(headers.append(SIGNATURE, genuine[SIGNATURE].clone())), RefusalKind::SignatureMalformed);
    check(&|headers| assert!(headers.append(TIMESTAMP, AT.into())), RefusalKind::TimestampMalformed);
    let text = genuine[SIGNATURE].to_str().unwrap().to_owned();
    for wrong in ["", "00", &text[1..], &text.to_uppercase(), &format!("{text}00"), &format!("sha256={text}"), &"g".repeat(64)] {
        check(&|headers| drop(headers.insert(SIGNATURE, wrong.parse().unwrap())), RefusalKind::SignatureMalformed);
    }
    for wrong in ["", "-1", "+1729314984", "01729314984", "1729314984.0", " 1", "soon", "99999999999999999999"] {
        check(&|headers| drop(headers.insert(TIMESTAMP, wrong.parse().unwrap())), RefusalKind::TimestampMalformed);
    }
}

#[test]
fn it_is_told_what_would_have_matched() {
    let one = source(&[SECRET], None);
    let told = |source: &Source, headers: &HeaderMap, body: &[u8]| source.explain(&request(headers, body, 0), &[], &[]).unwrap();
    for (secret, words) in [
        ("abc123def456", "without its `whsec_`"),
        ("whsec_abc123def456\n", "a line break behind it"),
        ("whsec_other", "is it the secret of this webhook"),
    ] {
        let text = told(&one, &MagicHour::sign(secret, BODY, AT), BODY);
        assert!(text.contains(words) && !text.contains("abc123"), "{secret}: {text}");
    }
    let bare = source(&["abc123def456"], None);
    assert!(told(&bare, &MagicHour::sign(SECRET, BODY, AT), BODY).contains("set `secret` to the whole text"));
    // Signed as compact JSON, sent with spaces, and the other way round.
    let spaced = br#"{"type": "video.completed", "payload": {"id": "a, b: \" c", "n": [1, 2]}}"#;
    let compact = br#"{"type":"video.completed","payload":{"id":"a, b: \" c","n":[1,2]}}"#;
    for (signed, sent) in [
        (&compact[..], &spaced[..]),
        (spaced, compact),
        (compact, b"{\"type\":\"video.completed\",\"payload\":{\"id\":\"a, b: \\\" c\",\"n\":[1,2]}}\n"),
    ] {
        assert!(told(&one, &MagicHour::sign(SECRET, signed, AT), sent).contains("other white space"));
    }
    assert!(told(&one, &HeaderMap::new(), BODY).contains("magic-hour-event-signature"));
}

fn read(body: &[u8]) -> Reading {
    source(&[SECRET], None).read(&request(&HeaderMap::new(), body, 0))
}

fn kept<'a>(reading: &'a Reading, body: &'a [u8]) -> Kept<'a> {
    Kept {
        event_id: &reading.event_id,
        kind: &reading.kind,
        provider_type: reading.provider_type.as_deref(),
        task_id: reading.task_id.as_deref(),
        body,
    }
}

#[test]
fn all_nine_events_are_known_and_named_by_job_and_type() {
    let source = source(&[SECRET], None);
    for kind in EVENTS {
        let reading = read(json!({"type": kind, "payload": {"id": "clx1"}}).to_string().as_bytes());
        assert_eq!(
            (reading.event_id, reading.kind.as_str(), reading.task_id.as_deref()),
            (format!("clx1:{kind}"), kind, Some("clx1"))
        );
        assert_eq!(source.ends(kind), !kind.ends_with("started"), "{kind}");
    }
    for kind in ["video.canceled", "text.completed", "video", "completed", "video.completed.x"] {
        let reading = read(json!({"type": kind, "payload": {"id": "clx1"}}).to_string().as_bytes());
        assert_eq!((reading.event_id, reading.kind.as_str()), (format!("clx1:{kind}"), UNKNOWN));
        assert_eq!(reading.provider_type.as_deref(), Some(kind));
    }
    for body in [
        &b"not json"[..],
        b"",
        b"[]",
        br#"{"type":"video.completed"}"#,
        br#"{"type":"video.completed","payload":{"id":7}}"#,
        b"\xff",
    ] {
        let reading = read(body);
        assert_eq!((reading.kind.as_str(), reading.event_id), (UNKNOWN, body_id(body)));
    }
}

#[test]
fn an_event_tells_the_whole_job() {
    let source = source(&[SECRET], None);
    let body = json!({"type": "image.completed", "payload": {"id": "clx1", "name": "A cat", "status": "complete", "type": "AI_IMAGE",
        "created_at": "2024-10-19T05:16:19.027Z", "enabled": true, "credits_charged": 5, "image_count": 2, "error": null,
        "downloads": [{"url": "https://images.magichour.ai/id/output-0.png?sig=s", "expires_at": "2024-10-20T05:16:19.027Z"},
            {"url": "https://images.magichour.ai/id/output-1.png"}]}});
    let body = body.to_string();
    let reading = read(body.as_bytes());
    let Fetched { task, files, raw, .. } = source.told(&kept(&reading, body.as_bytes())).unwrap();
    assert_eq!((task.id.as_str(), task.title.as_deref(), task.state), ("clx1", Some("A cat"), State::Finished));
    assert_eq!((task.credits, task.model.as_deref(), task.complete, task.error), (Some(5.0), Some("AI_IMAGE"), true, None));
    assert_eq!(task.created_at, Some("2024-10-19T05:16:19.027Z".parse().unwrap()));
    assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["output-0.png", "output-1.png"]);
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap()["image_count"], 2);
    let facts = source.tell(&kept(&reading, body.as_bytes()));
    assert_eq!((facts.event_id.as_str(), facts.stop_reason.as_deref()), ("clx1:image.completed", Some("finish")));
    assert_eq!(facts.attachments[1].url.as_deref(), Some("https://images.magichour.ai/id/output-1.png"));
}

#[test]
fn the_documented_samples_are_read() {
    let sample = |name: &str| std::fs::read(format!("{}/tests/data/magic_hour/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let source = source(&[SECRET], None);
    for (name, state, files, error) in [
        ("image.completed.json", State::Finished, 1, None),
        ("video.completed.json", State::Finished, 1, None),
        ("video.errored.json", State::Failed, 0, Some("no_source_face: Please use an image with a detectable face")),
    ] {
        let body = sample(name);
        let reading = read(&body);
        assert_eq!(reading.kind, name.trim_end_matches(".json"));
        let fetched = source.told(&kept(&reading, &body)).unwrap();
        assert_eq!((fetched.task.state, fetched.files.len(), fetched.task.error.as_deref()), (state, files, error), "{name}");
    }
}

#[test]
fn every_status_has_a_state() {
    for (status, state) in [
        ("queued", State::Running),
        ("rendering", State::Running),
        ("complete", State::Finished),
        ("error", State::Failed),
        ("canceled", State::Canceled),
        ("draft", State::Unknown),
        ("new", State::Unknown),
    ] {
        assert_eq!(convert("x".to_owned(), &json!({"status": status}), String::new()).task.state, state, "{status}");
    }
    for (error_, text) in [(json!({"code": "c"}), "c"), (json!({"message": "m"}), "m"), (json!("words"), "words")] {
        assert_eq!(error(&json!({"error": error_})).as_deref(), Some(text));
    }
}

#[test]
fn answers_are_judged_by_status_and_words() {
    let kind = |status: u16, body: &'static str| {
        let status = reqwest::StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: bytes::Bytes::from_static(body.as_bytes()) };
        judge("call", &answer, Timestamp::UNIX_EPOCH).map_or_else(|error| error.kind(), |_| "ok")
    };
    for (status, body, expected) in [
        (200, r#"{"id":"x"}"#, "ok"),
        (200, "<html>", "nonsense"),
        (302, "", "nonsense"),
        (400, r#"{"message":"bad"}"#, "rejected"),
        (400, "<html>", "nonsense"),
        (401, r#"{"message":"Unauthorized"}"#, "refused"),
        (402, "", "refused"),
        (404, r#"{"message":"Not Found"}"#, "not_found"),
        (404, r#"{"message":"no Route matched"}"#, "nonsense"),
        (404, "<html>", "nonsense"),
        (422, r#"{"message":"no"}"#, "rejected"),
        (429, "", "rate_limited"),
        (500, "", "unavailable"),
    ] {
        assert_eq!(kind(status, body), expected, "{status} {body}");
    }
}

#[test]
fn a_source_without_a_secret_must_say_so() {
    let wrong = |config: Config, common: &Common| config.check(common).join("\n");
    assert!(wrong(Config::default(), &Common::default()).contains("`secret` is missing"));
    let none = Common { verify: Some(crate::provider::Verify::None), ..Common::default() };
    assert_eq!(wrong(Config::default(), &none), "");
    let empty = Config { secret: List(vec![Secret::new("whsec_a"), Secret::new(" ")]), ..Config::default() };
    assert!(wrong(empty, &Common::default()).contains("`secret` is empty"));
    let config = Config { secret: List(vec![Secret::new(SECRET)]), ..Config::default() };
    let short = Config { tolerance: Duration::from_millis(10), base_url: "https://api.magichour.ai/v1".to_owned(), ..config };
    let said = wrong(short, &Common::default());
    assert!(said.contains("`tolerance`") && said.contains("write `base_url = \"https://api.magichour.ai\"`"), "{said}");
}

#[test]
fn nothing_shows_a_secret() {
    let source = source(&["whsec_s3cret"], Some("mhk_s3cret"));
    assert!(!format!("{source:?}").contains("s3cret"));
    assert!(source.fetches() && !source.needs_proof() && !source.is_keyed());
}

proptest! {
    #[test]
    fn any_bytes_can_be_read_and_explained(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let source = source(&[SECRET], None);
        let reading = source.read(&request(&HeaderMap::new(), &body, 0));
        prop_assert!(!reading.event_id.is_empty());
        let _ = source.tell(&kept(&reading, &body));
        let _ = source.told(&kept(&reading, &body));
        let headers = MagicHour::sign("whsec_other", &body, AT);
        prop_assert!(source.explain(&request(&headers, &body, 0), &[], &[]).is_some());
    }
}
