//! WebRun, from its webhook to the destination.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use taskhook::simulator::webrun::{ApiFault, Faults, File, Options, Output, Plan, Shape, Times, WebRun, Webhook, WrongAnswer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Recorder, Setup, code, json, send, status};
use crate::work::types;

const KEY: &str = "enig_test";
const AUTH: &str = "Bearer your-secret-token";
const PATH: &str = "/webhooks/wr";

/// A program whose only source is `wr`, its WebRun, and its only destination.
struct World {
    harness: Harness,
    simulator: WebRun,
    crm: Recorder,
    shape: Shape,
}

impl World {
    /// With a webhook of this shape, and `keys` in the section of the source.
    async fn new(shape: Shape, keys: &str) -> Self {
        let crm = Recorder::start().await;
        let mut harness = Setup::new().prepare().await;
        let options = Options { seed: Some(1), ..Options::new(harness.clock.clone()) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = WebRun::start(listener, options, CancellationToken::new());
        let payload = match shape {
            Shape::AiResponse => "ai_response",
            Shape::FullResponse => "full_response",
            Shape::JustPing => "just_ping",
        };
        harness.unconfigure("sources", "manus");
        harness.reconfigure(&format!(
            "[sources.wr]\nprovider = \"webrun\"\nauthorization = \"{AUTH}\"\npayload = \"{payload}\"\nbase_url = \"{}\"\n{keys}\n",
            simulator.base_url()
        ));
        harness.reconfigure(&crm.section("crm", ""));
        harness.reconfigure("[[routes]]\nto = [\"crm\"]\n");
        harness.start().await;
        Self { harness, simulator, crm, shape }
    }

    fn webhook(&self, query: &str) -> Webhook {
        let url = self.harness.url(&format!("{PATH}{query}"));
        Webhook { name: "taskhook".to_owned(), url, auth: Some(AUTH.to_owned()), submitted_data: self.shape }
    }

    /// Lives a task to its end and does what follows; the ids of its session and of itself.
    async fn run(&mut self, query: &str, plan: Plan) -> (String, String) {
        let ids = self.simulator.create_task(KEY, self.webhook(query), plan);
        self.simulator.finish_all().await;
        self.harness.drain().await;
        ids
    }

    fn last(&self) -> Value {
        self.crm.bodies().pop().expect("a delivery")
    }

    /// What was answered to each webhook.
    fn answers(&self) -> Vec<String> {
        let word = |answer: &str| serde_json::from_str::<Value>(answer).ok()?["status"].as_str().map(ToOwned::to_owned);
        self.simulator.deliveries().iter().filter_map(|sent| word(&sent.answer)).collect()
    }
}

#[tokio::test]
async fn a_full_response_is_the_whole_task_and_shows_no_session() {
    let mut world = World::new(Shape::FullResponse, "output = \"json\"").await;
    let answer = r#"{"title":"Product Name","price":29.99}"#;
    let (session, task) = world.run("", Plan::done(answer).giving(Output::Json)).await;
    let body = world.last();
    assert_eq!(
        (&body["type"], &body["provider"], &body["verification"]),
        (&json!("task_completed"), &json!("webrun"), &json!("authorization"))
    );
    assert_eq!(body["event"]["event_id"], format!("{task}:task_completed"));
    let expected = json!({"id": task, "state": "finished", "stop_reason": "finish", "complete": true,
        "updated_at": "2026-01-15T12:00:00.000Z", "structured_output": {"title": "Product Name", "price": 29.99},
        "usage": {"input_tokens": 8500, "output_tokens": 2300, "compute_seconds": 12.5, "cost_usd": 0.0124}});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&body["task"][name], value, "{name}");
    }
    assert_eq!(body["task"]["messages"][0]["text"], answer);
    // What is handed on is the body as it came; what people look at names no session.
    assert_eq!(body["event"]["payload"]["sessionId"], session);
    let id = world.harness.list("events").await[0]["id"].as_str().unwrap().to_owned();
    for page in
        [format!("events/{id}"), "events".to_owned(), "tasks".to_owned(), format!("tasks/wr/{task}"), "deliveries".to_owned()]
    {
        let shown = world.harness.admin(&format!("/api/v1/{page}")).await.to_string();
        assert!(!shown.contains(&session), "{page}: {shown}");
    }
    let event = world.harness.event(&id).await;
    assert_eq!(event["payload"]["sessionId"], format!("{}…", &session[..4]));
    let authorization = event["headers"].as_array().unwrap().iter().find(|header| header[0] == "authorization").unwrap();
    assert_eq!(authorization[1], "[redacted]");
    assert!(world.simulator.requests().is_empty());
    assert_eq!(status(&send(world.harness.request(Method::GET, "/readyz")).await), 200);
}

#[tokio::test]
async fn a_ping_is_a_reason_to_fetch_the_task_with_its_files() {
    let mut world = World::new(Shape::JustPing, "fetch = \"on\"").await;
    let plan = Plan::done("# Done").with_file(File::new("report.csv", "text/csv", "a,b\n"));
    let (session, task) = world.run("", plan).await;
    let body = world.last();
    assert_eq!((&body["task"]["complete"], &body["task"]["messages"][0]["text"]), (&json!(true), &json!("# Done")));
    assert_eq!((&body["files"][0]["name"], &body["task"]["messages"][0]["files"]), (&json!("report.csv"), &json!([0])));
    assert_eq!(body["task"]["usage"]["cost_usd"], 0.0124);
    let paths: Vec<_> = world.simulator.requests().into_iter().map(|call| (call.path, call.account)).collect();
    assert_eq!(paths, [(format!("/task/{session}/{task}"), None)]);
    let kept = world.harness.admin(&format!("/api/v1/tasks/wr/{task}")).await;
    assert_eq!(kept["raw"]["taskId"], task);
    assert!(!kept.to_string().contains(&session), "{kept}");
    // What it used counts on its day, once.
    world.harness.restart().await;
    let ping = world.simulator.deliveries().pop().expect("a ping");
    assert!(ping.answer.contains("accepted"), "{ping:?}");
    let day = json!({"day": "2026-01-15", "source": "wr", "credits": 0, "budget": null,
        "usage": {"input_tokens": 8500, "output_tokens": 2300, "compute_seconds": 12.5, "cost_usd": 0.0124}});
    assert_eq!(world.harness.list("credits").await, [day]);
    let metrics = send(world.harness.admin_request(Method::GET, "/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in ["taskhook_tokens_total{source=\"wr\",direction=\"input\"} 8500", "taskhook_cost_usd{source=\"wr\"} 0.0124"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn what_was_kept_before_a_crash_is_fetched_and_handed_on_once() {
    let mut world = World::new(Shape::JustPing, "fetch = \"on\"").await;
    let (_, task) = world.simulator.create_task(KEY, world.webhook(""), Plan::done("Once."));
    world.simulator.finish_all().await;
    world.harness.crash();
    world.harness.start().await;
    world.harness.drain().await;
    world.harness.restart().await;
    world.harness.drain().await;
    assert_eq!((types(&world.crm).len(), world.simulator.requests().len()), (1, 1));
    assert_eq!((&world.last()["task"]["id"], &world.last()["event"]["message"]), (&json!(task), &Value::Null));
    assert_eq!(world.last()["task"]["messages"][0]["text"], "Once.");
}

#[tokio::test]
async fn what_cannot_be_fetched_goes_out_as_its_webhook_told_it_and_no_error_names_the_session() {
    let mut world = World::new(Shape::FullResponse, "fetch = \"on\"").await;
    let answer = WrongAnswer::Refuse { status: 503, retry_after: None };
    world.simulator.set_faults(Faults { api: vec![ApiFault::on("/task/", Times::Always, answer)], ..Faults::default() });
    let (session, task) = world.run("", Plan::done("As the webhook tells it.")).await;
    let event = world.harness.list("events").await[0]["id"].as_str().unwrap().to_owned();
    let shown = world.harness.event(&event).await;
    let reasons = shown["work"]["reasons"].to_string();
    assert!(reasons.contains("503") && !shown.to_string().contains(&session), "{shown}");
    for _ in 0..12 {
        assert!(world.crm.bodies().is_empty());
        world.harness.advance(Duration::from_secs(10)).await;
    }
    let body = world.last();
    assert_eq!((&body["task"]["id"], &body["task"]["complete"]), (&json!(task), &json!(false)));
    assert_eq!(body["task"]["messages"][0]["text"], "As the webhook tells it.");
    // A session that is over: nobody knows the task any more.
    world.simulator.set_faults(Faults::default());
    let (session, _) = world.simulator.create_task(KEY, world.webhook(""), Plan::done("Gone."));
    world.simulator.finish_all().await;
    assert!(world.simulator.end_session(&session));
    world.harness.drain().await;
    assert_eq!((&world.last()["task"]["complete"], &world.last()["event"]["message"]), (&json!(false), &json!("Gone.")));
}

#[tokio::test]
async fn an_answer_is_named_by_the_url_that_was_handed_out_for_it() {
    let mut world = World::new(Shape::AiResponse, "output = \"json\"").await;
    world.simulator.set_faults(Faults { duplicate: Times::Next(1), ..Faults::default() });
    let hostile = json!({"type": "task_created", "taskId": "t", "event": "e", "sessionId": "the user's own"}).to_string();
    world.run("?ref=order-7", Plan::done(&hostile).giving(Output::Json)).await;
    assert_eq!(world.answers(), ["accepted", "duplicate"]);
    let body = world.last();
    assert_eq!(
        (&body["type"], &body["event"]["event_id"], &body["event"]["task_id"]),
        (&json!("task_completed"), &json!("order-7"), &json!("order-7"))
    );
    assert_eq!(body["task"]["structured_output"]["taskId"], "t");
    assert_eq!(body["event"]["payload"]["sessionId"], "the user's own");
    world.harness.restart().await;
    world.run("?ref=order-7", Plan::done("another").giving(Output::Text)).await;
    world.run("?ref=order-8", Plan::done("another").giving(Output::Text)).await;
    assert_eq!(world.answers(), ["accepted", "duplicate", "duplicate", "accepted"]);
    assert_eq!(world.crm.bodies().len(), 2);
}

#[tokio::test]
async fn an_answer_without_a_name_is_an_event_of_its_own_whatever_its_bytes() {
    let mut world = World::new(Shape::AiResponse, "").await;
    for body in [&b"{\"a\":1}"[..], b"{\"a\":1}", b"# Markdown", b"a,b\n1,2\n", b"\xff\xfe\x00", b"[1]", b"null"] {
        let answer = send(world.harness.post(PATH).header("authorization", AUTH).body(body)).await;
        assert_eq!((status(&answer), &json(&answer)["status"]), (200, &json!("accepted")), "{body:?}");
    }
    world.harness.drain().await;
    assert_eq!(types(&world.crm), ["task_completed"; 7]);
    let tasks: Vec<_> = world.crm.bodies().iter().map(|body| body["task"]["messages"][0]["text"].clone()).collect();
    assert_eq!(tasks[2..5], [json!("# Markdown"), json!("a,b\n1,2\n"), json!("\u{fffd}\u{fffd}\u{0}")]);
    assert!(world.harness.list("tasks").await.is_empty(), "an answer without a name is no task that could be listed");
    // A page may be large; the limit is 16 MiB.
    let large = "x".repeat(3 << 20);
    assert_eq!(status(&send(world.harness.post(PATH).header("authorization", AUTH).body(large)).await), 200);
    let length = (16_usize << 20) + 1;
    let too_large = send(world.harness.post(PATH).header("authorization", AUTH).body("x".repeat(length))).await;
    assert_eq!((status(&too_large), code(&too_large)), (413, "body_too_large".to_owned()));
    world.harness.drain().await;
}

#[tokio::test]
async fn a_wrong_value_is_refused_and_the_body_of_the_refused_shows_no_session() {
    let mut world = World::new(Shape::FullResponse, "").await;
    for faults in
        [Faults { wrong_auth: Times::Next(1), ..Faults::default() }, Faults { no_auth: Times::Next(1), ..Faults::default() }]
    {
        world.simulator.set_faults(faults);
        let (session, _) = world.run("", Plan::done("x")).await;
        let sent = world.simulator.deliveries().pop().unwrap();
        let answer: Value = serde_json::from_str(&sent.answer).unwrap();
        assert_eq!((sent.status, &answer["code"]), (Some(401), &json!("authorization_invalid")));
        let row = &world.harness.list("rejections").await[0];
        let shown = world.harness.admin(&format!("/api/v1/rejections/{}", row["id"])).await.to_string();
        assert!(!shown.contains(&session) && !shown.contains("secret-token") && shown.contains("auth"), "{shown}");
    }
    for value in ["your-secret-token", "bearer your-secret-token", "Bearer your-secret-toke"] {
        let answer = send(world.harness.post(PATH).header("authorization", value).body("{}")).await;
        assert_eq!(code(&answer), "authorization_invalid", "{value}");
    }
    world.harness.drain().await;
    assert!(world.harness.list("events").await.is_empty() && world.crm.bodies().is_empty());
}

#[tokio::test]
async fn the_documented_requests_are_answered_200_and_take_effect() {
    for (payload, sample) in [("full_response", "full_response"), ("ai_response", "ai_response"), ("just_ping", "just_ping")] {
        let crm = Recorder::start().await;
        let mut harness = Setup::new().prepare().await;
        harness.unconfigure("sources", "manus");
        let keys = "verify = \"none\"\noutput = \"json\"";
        harness.reconfigure(&format!("[sources.wr]\nprovider = \"webrun\"\npayload = \"{payload}\"\n{keys}\n"));
        harness.reconfigure(&crm.section("crm", ""));
        harness.reconfigure("[[routes]]\nto = [\"crm\"]\n");
        harness.start().await;
        let body = std::fs::read(format!("{}/tests/data/webrun/{sample}.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let answer = send(harness.post(PATH).header("content-type", "application/json").body(body)).await;
        assert_eq!((status(&answer), &json(&answer)["status"]), (200, &json!("accepted")), "{sample}");
        harness.drain().await;
        let body = crm.bodies().pop().unwrap();
        assert_eq!((&body["type"], &body["task"]["state"]), (&json!("task_completed"), &json!("finished")), "{sample}");
        let output = &body["task"]["structured_output"];
        assert_eq!(output["title"], if payload == "just_ping" { Value::Null } else { json!("Product Name") }, "{sample}");
    }
}
