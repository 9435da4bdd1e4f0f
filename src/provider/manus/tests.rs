//! The API as it answers, and as it fails: through [`Source`], against a server.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wiremock::matchers::{any as anything, body_json, header, method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{ApiVersion, Config, Ownership};
use crate::clock::Clock;
use crate::event::TASK_STOPPED;
use crate::provider::{ApiError, Budgets, Common, Kept, NewTask, Own, Probe, Source, Switch, Use, Verify, Webhook};
use crate::setting::{List, Secret};
use crate::signature::rsa::PrivateKey;
use crate::task::{Fetched, QuestionKind, State};

const ID: &str = "9rP8DLRXVC9fkKBKEELXkg";
const KEY: &str = "sk-secret-key";

fn clock() -> Clock {
    Clock::manual("2025-11-18T23:05:00Z".parse().unwrap())
}

fn config(base_url: &str, api_version: ApiVersion) -> Config {
    let timeout = Duration::from_secs(20);
    Config {
        api_version,
        api_key: Some(Secret::new(KEY)),
        base_url: base_url.to_owned(),
        requests_per_minute: 6000,
        timeout,
        ..Config::default()
    }
}

fn settings(config: Config, common: Common) -> crate::provider::Config {
    crate::provider::Config { own: Own::Manus(Box::new(config)), common }
}

fn build_with(config: Config, common: Common) -> Source {
    let clock = clock();
    Source::new("manus", &settings(config, common), &clock, &Budgets::new(clock.clone())).unwrap()
}

fn build(config: Config) -> Source {
    build_with(config, Common::default())
}

/// Fetches the task that an event with nothing in it ended.
async fn fetch(source: &Source, task_id: &str) -> Result<Fetched, ApiError> {
    let event = Kept { event_id: "e1", kind: TASK_STOPPED, provider_type: None, task_id: Some(task_id), body: b"" };
    source.fetch(task_id, &event).await
}

fn v1(server: &MockServer) -> Source {
    build(config(&server.uri(), ApiVersion::V1))
}

fn v2(server: &MockServer) -> Source {
    build(config(&server.uri(), ApiVersion::V2))
}

async fn answers(server: &MockServer, at: &str, body: Value) {
    Mock::given(path(at)).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(server).await;
}

async fn server_with(response: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(anything()).respond_with(response).mount(&server).await;
    server
}

fn task(status: &str) -> Value {
    json!({"ok": true, "request_id": "req_1", "task": {"id": ID, "status": status, "created_at": "1763507071", "updated_at": 1_763_507_100,
        "title": "What is 2 + 2?", "credit_usage": "22", "task_url": format!("https://manus.im/app/{ID}"), "share_visibility": "private",
        "agent_profile": "manus-1.6", "surprise": {"a": [1]}}})
}

fn event(id: &str, at: i64, kind: &str, payload: Value) -> Value {
    let mut event = json!({"id": id, "type": kind, "timestamp": at});
    event[kind] = payload;
    event
}

/// `events` oldest first, served as one page, newest first.
async fn conversation(detail: Value, events: &[Value]) -> Fetched {
    let server = MockServer::start().await;
    answers(&server, "/v2/task.detail", detail).await;
    let newest_first: Vec<_> = events.iter().rev().collect();
    answers(
        &server,
        "/v2/task.listMessages",
        json!({"ok": true, "messages": newest_first, "has_more": false, "next_cursor": null}),
    )
    .await;
    fetch(&v2(&server), ID).await.unwrap()
}

#[tokio::test]
async fn a_v1_task_is_read_whole() {
    let server = MockServer::start().await;
    let sample: Value = serde_json::from_str(include_str!("../../../tests/data/manus/v1_task.json")).unwrap();
    Mock::given(method("GET"))
        .and(path(format!("/v1/tasks/{ID}")))
        .and(header("API_KEY", KEY))
        .respond_with(ResponseTemplate::new(200).set_body_json(&sample))
        .mount(&server)
        .await;
    let fetched = fetch(&v1(&server), ID).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&fetched.raw).unwrap()["task"], sample);
    insta::assert_json_snapshot!((&fetched.task, &fetched.files), @r#"
    [
      {
        "id": "9rP8DLRXVC9fkKBKEELXkg",
        "title": null,
        "url": "https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg",
        "state": "finished",
        "stop_reason": "finish",
        "model": "manus-1.5-agent",
        "created_at": "2025-11-18T23:04:31.000Z",
        "updated_at": "2025-11-18T23:05:00.000Z",
        "credits": 22,
        "usage": {
          "input_tokens": null,
          "output_tokens": null,
          "compute_seconds": null,
          "cost_usd": null
        },
        "complete": true,
        "background": false,
        "question": null,
        "structured_output": null,
        "error": null,
        "messages": [
          {
            "id": "wP6Re2TjYi18kx7Crdbnlc",
            "role": "user",
            "created_at": null,
            "text": "Tell me what's 2+2 and write your answer in an answer.md file",
            "files": []
          },
          {
            "id": "CNB92PkeS94q8Cc6LmmcYW",
            "role": "assistant",
            "created_at": null,
            "text": "Got it! I'll calculate 2+2 and save the answer to an answer.md file for you.",
            "files": []
          },
          {
            "id": "l3jxHYsaaIOUKP25D0sN7A",
            "role": "assistant",
            "created_at": null,
            "text": "Done! The answer is **4**, and I've saved it to the answer.md file.",
            "files": [
              0
            ]
          }
        ],
        "messages_omitted": 0
      },
      [
        {
          "name": "answer.md",
          "content_type": "text/markdown",
          "size_bytes": null,
          "sha256": null,
          "link": null,
          "provider_url": "https://private-us-east-1.manuscdn.com/sessionFile/.../answer.md?Policy=...&Key-Pair-Id=...&Signature=...",
          "status": "skipped",
          "message_id": "l3jxHYsaaIOUKP25D0sN7A"
        }
      ]
    ]
    "#);
    assert_eq!(v1(&server).probe(ID).await, Ok(Probe::Ours { how: "readable" }));
}

#[tokio::test]
async fn v1_states_are_ours() {
    let said = json!([{"role": "assistant", "content": [{"type": "output_text", "text": "Which one?"}]}]);
    for (status, output, state, stop_reason) in [
        (json!("completed"), json!([]), State::Finished, Some("finish")),
        (json!("failed"), json!(null), State::Failed, Some("error")),
        (json!("running"), said.clone(), State::Running, None),
        (json!("pending"), said, State::Waiting, Some("ask")),
        (json!("pending"), json!([]), State::Running, None),
        (json!("resting"), json!("?"), State::Unknown, None),
        (json!(3), json!([1, null, {"content": 7}, {"content": [null]}]), State::Unknown, None),
    ] {
        let body = json!({"id": ID, "status": status, "output": output, "error": {"message": "broken"}, "metadata": null});
        let server = server_with(ResponseTemplate::new(200).set_body_json(body)).await;
        let task = fetch(&v1(&server), ID).await.unwrap().task;
        assert_eq!((task.state, task.stop_reason.as_deref()), (state, stop_reason), "{status}");
        assert_eq!(task.error.as_deref(), (state == State::Failed).then_some("broken"));
        assert_eq!(
            task.question.and_then(|question| question.text).as_deref(),
            (state == State::Waiting).then_some("Which one?")
        );
    }
}

#[tokio::test]
async fn a_v2_task_is_read_whole() {
    let file = json!({"type": "file", "filename": "answer.md", "url": "https://cdn.example/answer.md?Signature=s", "content_type": "text/markdown"});
    let fetched = conversation(
        task("stopped"),
        &[
            event(
                "u1",
                1_763_507_071_000,
                "user_message",
                json!({"content": "What is 2 + 2?", "message_type": "text", "attachments": null}),
            ),
            event("s1", 1_763_507_072_000, "status_update", json!({"agent_status": "running"})),
            event(
                "a1",
                1_763_507_080_500,
                "assistant_message",
                json!({"content": [{"type": "text", "text": "Four."}], "attachments": [file]}),
            ),
            event("s2", 1_763_507_081_000, "status_update", json!({"agent_status": "stopped"})),
            event("o1", 1_763_507_082_000, "structured_output_result", json!({"success": true, "value": {"sum": 4}})),
            event("x1", 1_763_507_083_000, "invented_later", json!({"any": "thing"})),
        ],
    )
    .await;
    insta::assert_json_snapshot!((&fetched.task, &fetched.files), @r#"
    [
      {
        "id": "9rP8DLRXVC9fkKBKEELXkg",
        "title": "What is 2 + 2?",
        "url": "https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg",
        "state": "finished",
        "stop_reason": "finish",
        "model": "manus-1.6",
        "created_at": "2025-11-18T23:04:31.000Z",
        "updated_at": "2025-11-18T23:05:00.000Z",
        "credits": 22,
        "usage": {
          "input_tokens": null,
          "output_tokens": null,
          "compute_seconds": null,
          "cost_usd": null
        },
        "complete": true,
        "background": false,
        "question": null,
        "structured_output": {
          "error": null,
          "success": true,
          "value": {
            "sum": 4
          }
        },
        "error": null,
        "messages": [
          {
            "id": "u1",
            "role": "user",
            "created_at": "2025-11-18T23:04:31.000Z",
            "text": "What is 2 + 2?",
            "files": []
          },
          {
            "id": "a1",
            "role": "assistant",
            "created_at": "2025-11-18T23:04:40.500Z",
            "text": "Four.",
            "files": [
              0
            ]
          }
        ],
        "messages_omitted": 0
      },
      [
        {
          "name": "answer.md",
          "content_type": "text/markdown",
          "size_bytes": null,
          "sha256": null,
          "link": null,
          "provider_url": "https://cdn.example/answer.md?Signature=s",
          "status": "skipped",
          "message_id": "a1"
        }
      ]
    ]
    "#);
    let raw: Value = serde_json::from_str(&fetched.raw).unwrap();
    assert_eq!(raw["detail"]["task"]["surprise"]["a"][0], 1);
    assert_eq!(raw["messages"][0]["messages"].as_array().map(Vec::len), Some(6));
}

#[tokio::test]
async fn a_v2_question_is_told_from_a_confirmation() {
    let waiting = |kind: &str| {
        let detail = json!({"waiting_for_event_id": "ev9", "waiting_for_event_type": kind, "waiting_description": "Deploy it?",
            "confirm_input_schema": {"type": "object"}});
        event("s1", 3000, "status_update", json!({"agent_status": "waiting", "status_detail": detail}))
    };
    let asks =
        event("a1", 2000, "assistant_message", json!({"content": "A or B?", "question_expectation": {"options": ["A", "B"]}}));
    let question = conversation(task("waiting"), &[asks.clone(), waiting("messageAskUser")]).await.task.question.unwrap();
    assert_eq!((question.kind, question.text.as_deref()), (QuestionKind::Message, Some("A or B?")));
    assert_eq!(question.options, ["A", "B"]);

    let task_ = conversation(task("waiting"), &[asks.clone(), waiting("deployAction")]).await.task;
    assert_eq!((task_.state, task_.stop_reason.as_deref()), (State::Waiting, Some("ask")));
    let question = task_.question.unwrap();
    assert_eq!((question.kind, question.text.as_deref()), (QuestionKind::Action, Some("Deploy it?")));
    assert_eq!((question.action.as_deref(), question.event_id.as_deref()), (Some("deployAction"), Some("ev9")));
    assert_eq!(question.input_schema, Some(json!({"type": "object"})));

    // What was asked before the answer is not what is asked now.
    let answer = event("u2", 4000, "user_message", json!({"content": "B"}));
    let question = conversation(task("waiting"), &[asks, waiting("deployAction"), answer]).await.task.question.unwrap();
    assert_eq!((question.kind, question.text, question.options.len()), (QuestionKind::Message, None, 0));
    assert_eq!(conversation(task("running"), &[waiting("deployAction")]).await.task.question, None);
}

#[tokio::test]
async fn v2_states_are_ours() {
    let says = |at| event(&format!("a{at}"), at, "assistant_message", json!({"content": "x"}));
    let stop = |at| json!({"id": "stop", "type": "user_stop", "timestamp": at});
    let status =
        |at, status: &str| event(&format!("s{at}"), at, "status_update", json!({"agent_status": status, "brief": "no luck"}));
    let state = async |detail: Value, events: &[Value]| conversation(detail, events).await.task.state;
    assert_eq!(state(task("stopped"), &[says(1000), status(2000, "stopped")]).await, State::Finished);
    assert_eq!(state(task("stopped"), &[says(1000), stop(2000), status(3000, "stopped")]).await, State::Stopped);
    assert_eq!(state(task("stopped"), &[stop(2000), says(3000), status(4000, "stopped")]).await, State::Finished);
    assert_eq!(state(task("running"), &[stop(2000)]).await, State::Running);
    assert_eq!(state(task("new"), &[status(2000, "stopped"), stop(3000)]).await, State::Stopped);
    assert_eq!(state(json!({"task": {}}), &[]).await, State::Unknown);
    let failed = conversation(task("error"), &[status(2000, "error")]).await.task;
    assert_eq!(
        (failed.state, failed.error.as_deref(), failed.stop_reason.as_deref()),
        (State::Failed, Some("no luck"), Some("error"))
    );
    let message = event("e", 1000, "error_message", json!({"error_type": "quota", "content": "too much"}));
    let failed = conversation(task("error"), &[message, status(2000, "error")]).await.task;
    assert_eq!(failed.error.as_deref(), Some("too much"));
    let mut busy = task("stopped");
    busy["task"]["has_running_background_jobs"] = json!(true);
    assert!(conversation(busy, &[]).await.task.background);
}

#[tokio::test]
async fn every_page_of_a_conversation_is_read_once_and_in_order() {
    let server = MockServer::start().await;
    answers(&server, "/v2/task.detail", task("stopped")).await;
    let say = |n: i64| event(&format!("m{n}"), n * 1000, "assistant_message", json!({"content": n.to_string()}));
    let page = |messages: &[Value], next: Value| json!({"ok": true, "messages": messages, "has_more": !next.is_null(), "next_cursor": next});
    let pages = Mock::given(path("/v2/task.listMessages")).and(query_param("limit", "200")).and(header("x-manus-api-key", KEY));
    pages
        .and(query_param_is_missing("cursor"))
        .respond_with(ResponseTemplate::new(200).set_body_json(page(&[say(4), say(3)], json!("c1"))))
        .mount(&server)
        .await;
    Mock::given(query_param("cursor", "c1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(page(&[say(3), say(2), say(1)], json!(null))))
        .mount(&server)
        .await;
    let task = fetch(&v2(&server), ID).await.unwrap().task;
    assert_eq!(task.messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    assert!(task.complete);
}

#[tokio::test]
async fn a_conversation_without_an_end_is_cut_and_marked() {
    for next in [json!(null), json!("same")] {
        let server = MockServer::start().await;
        answers(&server, "/v2/task.detail", task("stopped")).await;
        answers(&server, "/v2/task.listMessages", json!({"ok": true, "messages": [], "has_more": "true", "next_cursor": next}))
            .await;
        assert!(!fetch(&v2(&server), ID).await.unwrap().task.complete);
        assert!(server.received_requests().await.unwrap().len() <= 3);
    }
}

#[tokio::test]
async fn only_a_private_task_proves_itself() {
    for (visibility, strict, visible) in [
        (json!("private"), Probe::Ours { how: "private" }, Probe::Ours { how: "private" }),
        (json!("team"), Probe::Visible, Probe::Ours { how: "visible" }),
        (json!("public"), Probe::Visible, Probe::Ours { how: "visible" }),
        (json!(null), Probe::Visible, Probe::Ours { how: "visible" }),
    ] {
        let server = MockServer::start().await;
        let mut detail = task("running");
        detail["task"]["share_visibility"] = visibility;
        answers(&server, "/v2/task.detail", detail).await;
        assert_eq!(v2(&server).probe(ID).await, Ok(strict));
        let config = Config { ownership: Ownership::Visible, ..config(&server.uri(), ApiVersion::V2) };
        assert_eq!(build(config).probe(ID).await, Ok(visible));
    }
}

#[tokio::test]
async fn an_answer_about_another_task_proves_nothing() {
    let body = json!({"ok": true, "id": "other", "status": "running", "task": {"id": "other", "share_visibility": "private"}});
    let server = server_with(ResponseTemplate::new(200).set_body_json(body)).await;
    for source in [v1(&server), v2(&server)] {
        assert!(matches!(source.probe("agent-default-main_task").await, Err(ApiError::Nonsense { .. })));
        assert!(matches!(fetch(&source, ID).await, Err(ApiError::Nonsense { .. })));
    }
    let calls = server.received_requests().await.unwrap().len();
    for source in [v1(&server), v2(&server)] {
        for id in ["", "..", "a b"] {
            assert!(matches!(source.probe(id).await, Err(ApiError::NotFound { .. })));
            assert!(matches!(fetch(&source, id).await, Err(ApiError::NotFound { .. })));
        }
    }
    assert_eq!(server.received_requests().await.unwrap().len(), calls);
}

#[tokio::test]
async fn recent_tasks_are_one_page() {
    let data = json!([task("stopped")["task"], {"no": "id"}, {"id": 7, "status": "waiting"}]);
    let body = json!({"ok": true, "object": "list", "data": data, "has_more": true, "next_cursor": "c"});
    let server = server_with(ResponseTemplate::new(200).set_body_json(body)).await;
    for source in [v1(&server), v2(&server)] {
        let tasks = source.recent_tasks().await.unwrap();
        assert_eq!(tasks.iter().map(|task| task.task_id.as_str()).collect::<Vec<_>>(), [ID, "7"]);
        assert_eq!(tasks[0].state, State::Finished);
        assert_eq!(tasks[0].created_at, Some("2025-11-18T23:04:31Z".parse::<Timestamp>().unwrap()));
    }
    let asked: Vec<_> = server
        .received_requests()
        .await
        .unwrap()
        .iter()
        .map(|request| request.url[url::Position::BeforePath..].to_owned())
        .collect();
    assert_eq!(asked, ["/v1/tasks?limit=100&order=desc&orderBy=created_at", "/v2/task.list?limit=100&order=desc"]);
}

#[tokio::test]
async fn failures_say_what_they_mean() {
    let error =
        |code: &str| json!({"ok": false, "request_id": "r", "error": {"code": code, "message": format!("key {KEY}\nis {code}")}});
    let retry_after = |value: &str| ResponseTemplate::new(429).insert_header("retry-after", value);
    let minute = Some(Duration::from_mins(1));
    for (response, expected) in [
        (
            ResponseTemplate::new(401).set_body_json(error("unauthenticated")),
            "task.detail: 401, the API key is refused (key [redacted] is unauthenticated)",
        ),
        (ResponseTemplate::new(402), "task.detail: 402, no credit is left"),
        (ResponseTemplate::new(403), "task.detail: 403, this API key may not do that"),
        (
            ResponseTemplate::new(404).set_body_json(error("not_found")),
            "task.detail: the provider knows no such thing, or does not show it to this key",
        ),
        (
            ResponseTemplate::new(404).set_body_raw("<html></html>", "text/html"),
            "task.detail: 404, the answer makes no sense: it is not JSON",
        ),
        (
            ResponseTemplate::new(200).set_body_raw("<html></html>", "text/html"),
            "task.detail: 200, the answer makes no sense: it is not JSON",
        ),
        (
            ResponseTemplate::new(200).set_body_raw(r#"{"ok":true,"task":{"id""#, "application/json"),
            "task.detail: 200, the answer makes no sense: it is not JSON",
        ),
        (
            ResponseTemplate::new(200).set_body_json(json!({"ok": true})),
            "task.detail: 200, the answer makes no sense: there is no `task` in it",
        ),
        (
            ResponseTemplate::new(200).set_body_bytes(vec![b' '; (10 << 20) + 1]),
            "task.detail: the answer makes no sense: the answer is larger than 10485760 bytes",
        ),
        (
            ResponseTemplate::new(302).insert_header("location", "/elsewhere"),
            "task.detail: 302, the answer makes no sense: a redirect; `base_url` must be the API itself",
        ),
        (
            ResponseTemplate::new(400).set_body_json(error("invalid_argument")),
            "task.detail: 400 invalid_argument (key [redacted] is invalid_argument)",
        ),
        (ResponseTemplate::new(503), "task.detail: 503 Service Unavailable"),
    ] {
        let server = server_with(response).await;
        let error = fetch(&v2(&server), ID).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        // Nothing was followed or asked again.
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
    }
    for (response, after) in
        [(retry_after("60"), minute), (retry_after("Tue, 18 Nov 2025 23:06:00 GMT"), minute), (retry_after("later"), None)]
    {
        let server = server_with(response).await;
        assert_eq!(fetch(&v2(&server), ID).await, Err(ApiError::RateLimited { call: "task.detail", after }));
    }
}

#[tokio::test]
async fn silence_ends_at_the_time_limit_with_an_unknown_outcome() {
    let server = server_with(ResponseTemplate::new(200).set_delay(Duration::from_mins(1))).await;
    let source = build(Config { timeout: Duration::from_millis(200), ..config(&server.uri(), ApiVersion::V2) });
    let error = source.create_task(&NewTask::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "task.create: no answer within 0.2 s");
    assert!(error.outcome_unknown() && error.degrades());
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_nothing_arrived() {
    let source = build(config("http://127.0.0.1:1", ApiVersion::V2));
    let error = source.create_task(&NewTask::default()).await.unwrap_err();
    assert!(matches!(error, ApiError::Unavailable { arrived: false, .. }), "{error}");
    assert!(!error.outcome_unknown());
}

#[tokio::test]
async fn half_an_answer_is_a_failure_with_an_unknown_outcome() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = build(config(&format!("http://{}", listener.local_addr().unwrap()), ApiVersion::V2));
    let half = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"ok\":true,").await.unwrap();
    };
    let wish = NewTask { prompt: "p".into(), ..NewTask::default() };
    let (error, ()) = tokio::join!(source.create_task(&wish), half);
    let error = error.unwrap_err();
    assert!(matches!(error, ApiError::Unavailable { arrived: true, .. }), "{error}");
    assert!(error.outcome_unknown());
}

#[tokio::test]
async fn keys_of_both_versions_are_found_and_the_clock_is_compared() {
    let (one, two) = (PrivateKey::generate().public_pem(), PrivateKey::generate().public_pem());
    let server = MockServer::start().await;
    let date =
        |body: Value| ResponseTemplate::new(200).set_body_json(body).insert_header("date", "Tue, 18 Nov 2025 23:04:00 GMT");
    let get = |at: &str, key: &'static str| Mock::given(method("GET")).and(path(at)).and(header(key, KEY));
    get("/v1/webhook/public_key", "API_KEY").respond_with(date(json!({"public_key": one}))).mount(&server).await;
    get("/v2/webhook.publicKey", "x-manus-api-key")
        .respond_with(date(json!({"ok": true, "public_key": two})))
        .mount(&server)
        .await;
    let answer = v2(&server).load_keys().await;
    assert_eq!(answer.keys.iter().map(|key| key.pem().to_owned()).collect::<Vec<_>>(), [two.clone(), one]);
    assert_eq!((answer.skew, answer.errors.len()), (Some(SignedDuration::from_mins(-1)), 0));

    let server = MockServer::start().await;
    answers(&server, "/v2/webhook.publicKey", json!({"ok": true, "public_key": two})).await;
    let answer = v1(&server).load_keys().await;
    assert_eq!((answer.keys.len(), answer.errors.len()), (1, 1));

    let server = server_with(ResponseTemplate::new(200).set_body_json(json!({"public_key": "no key"}))).await;
    let answer = v2(&server).load_keys().await;
    assert_eq!((answer.keys.len(), answer.errors.len()), (0, 2));
    assert!(answer.errors[0].to_string().contains("PEM block `PUBLIC KEY`"), "{:?}", answer.errors);
}

#[tokio::test]
async fn a_pinned_key_is_never_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    let server = server_with(ResponseTemplate::new(500)).await;
    let pinned = Config { public_key_file: Some(file.clone()), ..config(&server.uri(), ApiVersion::V2) };
    let new = || Source::new("manus", &settings(pinned.clone(), Common::default()), &clock(), &Budgets::new(clock()));
    assert!(new().unwrap_err().to_string().starts_with("sources.manus: cannot read `public_key_file`"));
    std::fs::write(&file, "no key").unwrap();
    assert!(new().unwrap_err().to_string().contains("there is no PEM block"));
    std::fs::write(&file, PrivateKey::generate().public_pem()).unwrap();
    let source = new().unwrap();
    assert!(source.pins_key());
    assert_eq!(source.load_keys().await.keys.len(), 1);
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn creating_is_one_call_in_the_form_of_its_version() {
    let server = MockServer::start().await;
    let made = ResponseTemplate::new(200)
        .set_body_json(json!({"ok": true, "task_id": ID, "task_title": "T", "task_url": "https://manus.im/app/x"}));
    let post = |at: &str, body: Value| Mock::given(method("POST")).and(path(at)).and(body_json(body)).respond_with(made.clone());
    post("/v1/tasks", json!({"prompt": "p", "agentProfile": "manus-1.6"})).mount(&server).await;
    post("/v2/task.create", json!({"message": {"content": "p"}, "agent_profile": "lite"})).mount(&server).await;
    let wish = |profile: Option<&str>| NewTask { prompt: "p".into(), profile: profile.map(str::to_owned), ..NewTask::default() };
    assert_eq!(v1(&server).create_task(&wish(None)).await.unwrap().task_id, ID);
    assert_eq!(v2(&server).create_task(&wish(Some("lite"))).await.unwrap().title.as_deref(), Some("T"));
}

#[tokio::test]
async fn webhooks_are_registered_listed_and_deleted() {
    const URL: &str = "https://hooks.example.com/webhooks/manus";
    let server = MockServer::start().await;
    let on = |verb: &str, at: &str| Mock::given(method(verb)).and(path(at));
    let ok = |body: Value| ResponseTemplate::new(200).set_body_json(body);
    let webhook = json!({"id": "w1", "url": URL, "status": "active", "created_at": 1_763_507_071});
    on("POST", "/v1/webhooks")
        .and(body_json(json!({"webhook": {"url": URL}})))
        .respond_with(ok(json!({"webhook_id": "w0"})))
        .mount(&server)
        .await;
    on("POST", "/v2/webhook.create")
        .and(body_json(json!({"url": URL})))
        .respond_with(ok(json!({"ok": true, "webhook": webhook})))
        .mount(&server)
        .await;
    on("GET", "/v2/webhook.list").respond_with(ok(json!({"ok": true, "data": [webhook, {}]}))).mount(&server).await;
    on("DELETE", "/v1/webhooks/w0").respond_with(ResponseTemplate::new(204)).mount(&server).await;
    on("POST", "/v2/webhook.delete")
        .and(body_json(json!({"webhook_id": "w1"})))
        .respond_with(ok(json!({"ok": true})))
        .mount(&server)
        .await;

    let (one, two) = (v1(&server), v2(&server));
    let bare = Webhook { id: "w0".into(), url: Some(URL.into()), status: None, created_at: None };
    assert_eq!(one.webhooks_register(URL).await, Ok(bare));
    let registered = two.webhooks_register(URL).await.unwrap();
    assert_eq!((registered.id.as_str(), registered.status.as_deref()), ("w1", Some("active")));
    assert_eq!(two.webhooks_list().await, Ok(vec![registered]));
    assert!(matches!(one.webhooks_list().await, Err(ApiError::Unsupported { .. })));
    assert_eq!((one.webhooks_delete("w0").await, two.webhooks_delete("w1").await), (Ok(()), Ok(())));

    let taken = server_with(ResponseTemplate::new(409).set_body_string("already exists")).await;
    for source in [v1(&taken), v2(&taken)] {
        assert_eq!(source.webhooks_register(URL).await.unwrap_err().status(), Some(409));
    }
}

#[tokio::test]
async fn every_call_takes_one_from_the_budget() {
    let server = server_with(ResponseTemplate::new(503)).await;
    let clock = clock();
    let config = Config { requests_per_minute: 6, ..config(&server.uri(), ApiVersion::V2) };
    let source = Source::new("manus", &settings(config, Common::default()), &clock, &Budgets::new(clock.clone())).unwrap();
    let wish = NewTask { prompt: "What is 2 + 2?".to_owned(), ..NewTask::default() };
    assert!(source.create_task(&wish).await.is_err());
    assert!(source.budget().try_take(Use::Fetch).is_err());
    let time = async {
        // The second call comes only after the clock has moved, and then it comes.
        tokio::task::yield_now().await;
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
        clock.advance(SignedDuration::from_secs(11));
    };
    let (answer, ()) = tokio::join!(source.create_task(&wish), time);
    assert!(answer.is_err());
    assert_eq!(server.received_requests().await.unwrap().len(), 2);
}

#[test]
fn no_debug_shows_a_secret() {
    let common = Common { path_token: List(vec![Secret::new("tok3n")]), ..Common::default() };
    let config = settings(config("https://api.manus.ai", ApiVersion::V2), common);
    let source = Source::new("manus", &config, &clock(), &Budgets::new(clock())).unwrap();
    let text = format!("{config:?} {source:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!text.contains(KEY) && !text.contains("tok3n"), "{text}");
}

#[test]
fn a_token_opens_the_path_that_has_one() {
    let open = |tokens: &[&str], token: Option<&str>| {
        let path_token = List(tokens.iter().map(|token| Secret::new(*token)).collect());
        let common = Common { path_token, ..Common::default() };
        build_with(config("https://api.manus.ai", ApiVersion::V2), common).opens(token)
    };
    assert!(open(&[], None) && open(&["a", "b"], Some("a")) && open(&["a", "b"], Some("b")));
    assert!(!open(&[], Some("a")) && !open(&["a"], None) && !open(&["a"], Some("")) && !open(&["a"], Some("b")));
}

#[test]
fn a_source_may_be_unverified_and_unfetched() {
    let config = Config { fetch: Switch::Off, api_key: None, ..config("https://api.manus.ai", ApiVersion::V2) };
    let source = build_with(config, Common { verify: Some(Verify::None), ..Common::default() });
    assert!(!source.verifies() && !source.fetches() && !source.needs_proof());
}

/// JSON with the API's names in it, so that every branch is met.
fn any_answer() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 30] = [
        "id",
        "type",
        "timestamp",
        "status",
        "created_at",
        "metadata",
        "output",
        "content",
        "role",
        "text",
        "fileUrl",
        "attachments",
        "filename",
        "url",
        "credit_usage",
        "error",
        "user_message",
        "assistant_message",
        "error_message",
        "status_update",
        "user_stop",
        "structured_output_result",
        "agent_status",
        "status_detail",
        "waiting_for_event_type",
        "question_expectation",
        "options",
        "has_running_background_jobs",
        "task_title",
        "description",
    ];
    const WORDS: [&str; 8] =
        ["waiting", "stopped", "pending", "assistant_message", "status_update", "user_stop", "1763507071", "error"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        proptest::sample::select(&WORDS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::hash_map(name, inner, 0..8).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_answer_can_be_read(task in any_answer(), events in proptest::collection::vec(any_answer(), 0..6)) {
        let read = [super::v1::convert(ID.to_owned(), &task), super::v2::convert(ID.to_owned(), &task, &events)];
        for Fetched { task, files, .. } in read {
            prop_assert_eq!(&task.id, ID);
            prop_assert!(task.messages.iter().flat_map(|message| &message.files).all(|file| *file < files.len()));
            prop_assert!(task.question.is_some() == (task.state == State::Waiting));
        }
    }
}
