//! WebRun's requests, believed and read in each shape, held against its documentation.

use jiff::Timestamp;
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue};

use super::*;
use crate::clock::Clock;
use crate::provider::{Budgets, Config as SourceConfig, Own, RefusalKind, Source};

const AUTH: &str = "Bearer your-secret-token";

fn config(payload: Payload) -> Config {
    Config { authorization: Secrets(vec![Secret::new(AUTH)]), payload: Some(payload), ..Config::default() }
}

fn source(config: Config) -> Source {
    let config = SourceConfig { own: Own::WebRun(Box::new(config)), common: Common::default() };
    assert_eq!(config.check(), Vec::<String>::new());
    let clock = Clock::manual("2024-01-15T10:30:00Z".parse().unwrap());
    Source::new("wr", &config, &clock, &Budgets::new(clock.clone())).unwrap()
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/webrun/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn request<'a>(headers: &'a HeaderMap, body: &'a [u8], url_suffix: &'a str) -> Request<'a> {
    Request { headers, body, url_suffix, now: Timestamp::UNIX_EPOCH }
}

fn read(source: &Source, body: &[u8], url_suffix: &str) -> Reading {
    source.read(&request(&HeaderMap::new(), body, url_suffix))
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
fn the_agreed_value_is_believed_and_nothing_else() {
    let rotation =
        Config { authorization: Secrets(vec![Secret::new(AUTH), Secret::new(" Bearer new\n")]), ..config(Payload::JustPing) };
    let source = source(rotation);
    let verify = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("authorization", HeaderValue::from_str(value).unwrap());
        }
        let told = source.explain(&request(&headers, b"", "/"), &[], &[]).unwrap();
        assert!(!told.contains("your-secret"), "{told}");
        source.verify(&request(&headers, b"", "/webhooks/wr"), &[], &[])
    };
    assert_eq!(verify(&[AUTH]), Ok(Verification::Authorization));
    assert_eq!(verify(&["Bearer new"]), Ok(Verification::Authorization));
    for values in [&[][..], &[""], &["Bearer"], &["your-secret-token"], &["bearer your-secret-token"], &[AUTH, AUTH]] {
        assert_eq!(verify(values), Err(Refusal::of(RefusalKind::AuthorizationInvalid)), "{values:?}");
    }
}

#[test]
fn a_full_response_is_read_whole() {
    let source = source(Config { output: Output::Json, ..config(Payload::FullResponse) });
    let body = sample("full_response");
    let reading = read(&source, &body, "/webhooks/wr?ref=elsewhere");
    assert_eq!((reading.event_id.as_str(), reading.kind.as_str()), ("task_xyz789:task_completed", "task_completed"));
    assert_eq!((reading.task_id.as_deref(), source.ends(&reading.kind)), (Some("task_xyz789"), true));
    let Fetched { task, raw, .. } = source.told(&kept(&reading, &body)).unwrap();
    assert_eq!((task.id.as_str(), task.state, task.complete), ("task_xyz789", State::Finished, true));
    assert_eq!(task.structured_output, Some(json!({"title": "Product Name", "price": 29.99})));
    let usage = crate::task::Usage {
        input_tokens: Some(8500),
        output_tokens: Some(2300),
        compute_seconds: Some(12.5),
        cost_usd: Some(0.0124),
    };
    assert_eq!(task.usage, usage);
    assert_eq!(task.updated_at, Some("2024-01-15T10:30:00Z".parse().unwrap()));
    assert!(raw.contains("sess…") && !raw.contains("sess_abc123"), "{raw}");
    let facts = source.tell(&kept(&reading, &body));
    assert_eq!(facts.message.as_deref(), Some(r#"{"title":"Product Name","price":29.99}"#));
    assert_eq!((facts.stop_reason.as_deref(), facts.structured_output), (Some("finish"), task.structured_output));
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_text_all_the_same() {
    let text = |output, message: &str| {
        let source = source(Config { output, ..config(Payload::FullResponse) });
        let body = json!({"type": "task_completed", "taskId": "t", "sessionId": "s", "data": {"message": message}}).to_string();
        let reading = read(&source, body.as_bytes(), "/");
        let task = source.told(&kept(&reading, body.as_bytes())).unwrap().task;
        (task.structured_output, task.messages[0].text.clone())
    };
    assert_eq!(text(Output::Json, "no JSON"), (None, "no JSON".to_owned()));
    assert_eq!(text(Output::Json, "[1]"), (Some(json!([1])), "[1]".to_owned()));
    assert_eq!(text(Output::Text, "[1]"), (None, "[1]".to_owned()));
}

#[test]
fn a_ping_says_which_task_and_nothing_of_it() {
    let source = source(config(Payload::JustPing));
    let body = sample("just_ping");
    let reading = read(&source, &body, "/webhooks/wr");
    assert_eq!((reading.event_id.as_str(), reading.task_id.as_deref()), ("task_xyz789:task_completed", Some("task_xyz789")));
    let task = source.told(&kept(&reading, &body)).unwrap().task;
    assert_eq!((task.state, task.complete, task.messages.len()), (State::Finished, false, 0));
    // Of the other shape it is a type that nobody knows: shapes are not guessed.
    let other = source_of(Payload::FullResponse);
    assert_eq!(read(&other, &body, "/").kind, UNKNOWN);
}

fn source_of(payload: Payload) -> Source {
    source(config(payload))
}

#[test]
fn nothing_in_an_answer_is_an_id_or_a_type() {
    let source = source(Config { output: Output::Json, ..config(Payload::AiResponse) });
    let hostile =
        json!({"type": "task_created", "event": "x", "taskId": "someone-elses", "sessionId": "s", "event_id": "e"}).to_string();
    let reading = read(&source, hostile.as_bytes(), "/webhooks/wr?a=1&ref=order-7%2F8");
    let expected = Reading {
        event_id: "order-7/8".to_owned(),
        kind: TASK_COMPLETED.to_owned(),
        task_id: Some("order-7/8".to_owned()),
        ..Reading::default()
    };
    assert_eq!(reading, expected);
    let Fetched { task, .. } = source.told(&kept(&reading, hostile.as_bytes())).unwrap();
    assert_eq!((task.id.as_str(), task.complete), ("order-7/8", true));
    assert_eq!(task.structured_output.unwrap()["taskId"], "someone-elses");
}

#[test]
fn without_a_name_every_answer_is_an_event_of_its_own() {
    let source = source_of(Payload::AiResponse);
    let body = sample("ai_response");
    for suffix in ["/webhooks/wr", "/webhooks/wr?ref=", "/webhooks/wr?ref=%00", "/webhooks/wr?reference=1"] {
        let (one, two) = (read(&source, &body, suffix), read(&source, &body, suffix));
        assert_ne!(one.event_id, two.event_id, "{suffix}");
        assert_eq!((one.task_id, one.kind.as_str()), (None, TASK_COMPLETED));
    }
    assert_eq!(read(&source, &body, "/webhooks/wr?ref=1"), read(&source, b"another", "/webhooks/wr?ref=1"));
}

#[test]
fn an_answer_may_be_any_bytes() {
    let source = source(Config { output: Output::Json, ..config(Payload::AiResponse) });
    for (body, text, structured) in [
        (&b"# Markdown"[..], "# Markdown", None),
        (b"a,b\n1,2\n", "a,b\n1,2\n", None),
        (br#""a string""#, "a string", None),
        (b"[1]", "[1]", Some(json!([1]))),
        (b"null", "null", Some(Value::Null)),
        (b"\xff\xfe", "\u{fffd}\u{fffd}", None),
    ] {
        let reading = read(&source, body, "/?ref=1");
        let task = source.told(&kept(&reading, body)).unwrap().task;
        assert_eq!((task.messages[0].text.as_str(), task.structured_output), (text, structured), "{body:?}");
    }
    let empty = read(&source, b"", "/?ref=1");
    assert_eq!(source.told(&kept(&empty, b"")).unwrap().task.messages.len(), 0);
}

#[test]
fn what_is_not_known_is_kept_as_unknown() {
    let source = source_of(Payload::FullResponse);
    for (body, event_id) in [
        (json!({"type": "guardrail_trigger", "taskId": "t"}).to_string(), "t:guardrail_trigger".to_owned()),
        (json!({"type": "task_completed"}).to_string(), body_id(br#"{"type":"task_completed"}"#)),
        ("no JSON".to_owned(), body_id(b"no JSON")),
    ] {
        let reading = read(&source, body.as_bytes(), "/");
        assert_eq!((reading.kind.as_str(), reading.event_id), (UNKNOWN, event_id), "{body}");
        assert!(!source.ends(&reading.kind));
    }
}

#[test]
fn the_call_is_read_in_each_state() {
    let convert = |of: Value| convert(Output::Text, "t".to_owned(), &of);
    assert_eq!(convert(json!({"status": "pending", "pending": true})).task.state, State::Running);
    let running =
        convert(json!({"status": "running", "usage": {"prompt_tokens": 8000, "completion_time": 12.3, "cost": 0.0067}}));
    assert_eq!((running.task.state, running.task.usage.input_tokens), (State::Running, Some(8000)));
    let asks = convert(json!({"type": "guardrail_trigger", "data": {"type": "human_input_needed", "value": "Log in?"}})).task;
    assert_eq!((asks.state, asks.stop_reason.as_deref()), (State::Waiting, Some("ask")));
    assert_eq!(asks.question.unwrap().text.as_deref(), Some("Log in?"));
    let failed = convert(json!({"success": false, "status": "failed", "error": "Too slow", "code": "NAVIGATION_TIMEOUT"})).task;
    assert_eq!((failed.state, failed.error.as_deref()), (State::Failed, Some("NAVIGATION_TIMEOUT: Too slow")));
    let done = convert(json!({"type": "task_completed", "data": {"message": "Done", "files": [
        {"source": "https://x.example/r.zip", "downloadUrl": "https://blobs.webrun.ai/r.zip", "filename": "r.zip"}, {}]}}));
    assert_eq!((done.files.len(), done.files[0].name.as_str()), (1, "r.zip"));
    assert_eq!(done.task.messages[0].files, [0]);
}

#[test]
fn answers_are_judged_by_status_and_envelope() {
    let judged = |status: u16, body: &'static str| {
        let status = reqwest::StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: bytes::Bytes::from_static(body.as_bytes()) };
        judge(&answer, Timestamp::UNIX_EPOCH, "sess_abc123")
    };
    for (status, body, expected) in [
        (200, r#"{"success":true,"status":"running"}"#, "ok"),
        (200, r#"{"success":false,"status":"failed"}"#, "ok"),
        (200, r#"{"type":"task_completed"}"#, "ok"),
        (200, r#"{"ok":1}"#, "nonsense"),
        (200, "<html>", "nonsense"),
        (400, r#"{"success":false,"error":"x"}"#, "rejected"),
        (401, "", "refused"),
        (404, r#"{"success":false,"error":"Task not found"}"#, "not_found"),
        (404, r#"{"message":"no route"}"#, "nonsense"),
        (429, r#"{"success":false,"message":"slow down"}"#, "rate_limited"),
        (503, "", "unavailable"),
    ] {
        assert_eq!(judged(status, body).map_or_else(|error| error.kind(), |_| "ok"), expected, "{status} {body}");
    }
    let error = judged(400, r#"{"success":false,"error":"Session sess_abc123 is gone"}"#).unwrap_err().to_string();
    assert!(error.contains("Session sess… is gone"), "{error}");
}

#[test]
fn ids_of_sessions_are_masked_and_nothing_else_is() {
    for (shown, expected) in [
        (r#"{"sessionId":"sess_abc123","taskId":"t"}"#, r#"{"sessionId":"sess…","taskId":"t"}"#),
        (r#"{"sessionId" : "a1b2", "x": "sessionId"}"#, r#"{"sessionId":"a1…", "x": "sessionId"}"#),
        (r#"{"sessionId":"a\"b\\","taskId":"t"}"#, r#"{"sessionId":"a…","taskId":"t"}"#),
        (r#"{"sessionId":null}"#, r#"{"sessionId":null}"#),
        (r#"{"sessionId":"cut off in the mid"#, r#"{"sessionId":"cut…"#),
        ("no JSON", "no JSON"),
    ] {
        assert_eq!(mask(shown), expected);
    }
    assert_eq!(source_of(Payload::AiResponse).mask(r#"{"sessionId":"the user's own"}"#), None);
}

#[test]
fn what_to_paste_is_the_whole_object() {
    let url = "https://hooks.example.com/webhooks/wr?ref=1";
    let object = source_of(Payload::AiResponse).webhook_object(url).unwrap();
    assert_eq!(object, json!({"name": "taskhook", "url": url, "auth": AUTH, "submittedData": "ai_response"}));
    assert!(source_of(Payload::AiResponse).takes_ref() && !source_of(Payload::JustPing).takes_ref());
}

#[test]
fn what_cannot_work_is_refused_with_what_to_write() {
    let wrong = |config: Config| config.check(&Common::default()).join("\n");
    assert!(
        wrong(Config { authorization: Secrets::default(), ..config(Payload::JustPing) }).contains("`authorization` is missing")
    );
    assert!(
        wrong(Config { authorization: Secrets(vec![Secret::new("")]), ..config(Payload::JustPing) })
            .contains("`authorization` is empty")
    );
    let blank = Config { authorization: Secrets(vec![Secret::new("Bearer a\nb")]), ..config(Payload::JustPing) };
    assert!(wrong(blank).contains("no header can hold"));
    assert!(wrong(Config { payload: None, ..config(Payload::JustPing) }).contains("`payload` is missing"));
    assert!(wrong(Config { fetch: Switch::On, ..config(Payload::AiResponse) }).contains("`fetch = \"on\"` needs"));
    assert_eq!(wrong(Config { fetch: Switch::On, ..config(Payload::JustPing) }), "");
    let none = Common { verify: Some(Verify::None), ..Common::default() };
    let bare = Config { authorization: Secrets::default(), ..config(Payload::AiResponse) };
    assert_eq!(bare.check(&none), Vec::<String>::new());
    assert_eq!(Settings::max_body_bytes(&bare), Size(16 << 20));
}

proptest! {
    #[test]
    fn any_bytes_can_be_read_in_each_shape(body in proptest::collection::vec(any::<u8>(), 0..200), suffix in ".{0,40}") {
        for payload in [Payload::FullResponse, Payload::AiResponse, Payload::JustPing] {
            let source = source_of(payload);
            let reading = read(&source, &body, &suffix);
            prop_assert!(!reading.event_id.is_empty());
            let _ = source.tell(&kept(&reading, &body));
            let _ = source.told(&kept(&reading, &body));
        }
    }

    #[test]
    fn masking_takes_any_text_and_leaves_json_json(session in "[a-z\"\\\\é]{0,12}", other in ".{0,12}") {
        let text = json!({"sessionId": session, "other": other}).to_string();
        let masked: Value = serde_json::from_str(&mask(&text)).unwrap();
        prop_assert_eq!(&masked["other"], &json!(other));
        prop_assert!(masked["sessionId"].as_str().unwrap().ends_with('…'));
    }
}
