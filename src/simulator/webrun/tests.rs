//! The simulator through its own HTTP, held against WebRun's documentation.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::http;
use crate::simulator::tests::Receiver;

const KEY: &str = "enig_test";
const AUTH: &str = "Bearer your-secret-token";

struct World {
    simulator: WebRun,
    clock: Clock,
    receiver: Receiver,
    client: reqwest::Client,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::manual("2024-01-15T10:30:00Z".parse().unwrap());
        let options = Options { seed: Some(1), ..Options::new(clock.clone()) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = WebRun::start(listener, options, CancellationToken::new());
        let receiver = Receiver::start("/webhooks/wr?ref=1").await;
        Self { simulator, clock, receiver, client: http::client(Duration::from_secs(10)) }
    }

    fn webhook(&self, shape: Shape) -> Webhook {
        let url = self.receiver.url.clone();
        Webhook { name: "w".to_owned(), url, auth: Some(AUTH.to_owned()), submitted_data: shape }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = http::send(request, Duration::from_secs(10), 1 << 20).await.unwrap();
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(self.client.post(format!("{}{path}", self.simulator.base_url())).bearer_auth(KEY).json(body)).await
    }

    /// Without a key: none is asked for.
    async fn poll(&self, session: &str, task: &str) -> (u16, Value) {
        self.send(self.client.get(format!("{}/task/{session}/{task}", self.simulator.base_url()))).await
    }
}

#[tokio::test]
async fn a_session_runs_its_first_task_and_tells_its_id_by_webhook_alone() {
    let world = World::new().await;
    let webhook = json!({"name": "HN", "url": world.receiver.url, "auth": AUTH, "submittedData": "full_response"});
    let task =
        json!({"taskDetails": "Extract the headline", "startingPoint": "https://news.ycombinator.com", "webhook": webhook});
    let (status, started) = world.post("/start/start-session", &json!({"mode": "default", "initialTask": task})).await;
    assert_eq!((status, &started["success"], &started["taskId"]), (200, &json!(true), &Value::Null), "{started}");
    world.simulator.finish_all().await;
    let seen = world.receiver.seen();
    assert_eq!((seen.len(), seen[0].header("authorization"), seen[0].target.as_str()), (1, AUTH, "/webhooks/wr?ref=1"));
    let body = seen[0].json();
    assert_eq!((&body["type"], &body["sessionId"]), (&json!("task_completed"), &started["sessionId"]));
    assert_eq!((&body["usage"]["inputTokens"], &body["data"]["prompt_tokens"]), (&json!(8500), &json!(8500)));
    assert_eq!(body["completedAt"], "2024-01-15T10:30:00.000Z");
    // A next task has an id at once.
    let session = started["sessionId"].as_str().unwrap();
    let message = json!({"actionType": "newTask", "newState": "start", "taskDetails": "file, please"});
    let (_, next) = world.post("/start/send-message", &json!({"sessionId": session, "message": message})).await;
    let task = next["taskId"].as_str().unwrap();
    assert_eq!(next["pollUrl"], format!("{}/task/{session}/{task}", world.simulator.base_url()));
    assert_eq!(world.poll(session, task).await.1["status"], "pending");
    world.simulator.step(task).await;
    assert_eq!(world.poll(session, task).await.1["status"], "running");
    world.simulator.step(task).await;
    let (status, done) = world.poll(session, task).await;
    assert_eq!(
        (status, &done["type"], &done["data"]["files"][0]["filename"]),
        (200, &json!("task_completed"), &json!("report.csv"))
    );
    let link = done["data"]["files"][0]["downloadUrl"].as_str().unwrap();
    assert_eq!(world.send(world.client.get(link)).await.0, 200);
    world.clock.advance(SignedDuration::from_hours(2));
    assert_eq!(world.send(world.client.get(link)).await.0, 403);
    assert_eq!(world.poll("another", task).await.0, 404);
    let end = json!({"sessionId": session, "message": {"actionType": "state", "newState": "terminate"}});
    assert_eq!(world.post("/start/send-message", &end).await.0, 200);
    assert_eq!(world.poll(session, task).await.0, 404);
    assert_eq!(world.receiver.seen().len(), 1);
}

#[tokio::test]
async fn each_shape_is_sent_as_documented() {
    let world = World::new().await;
    let answer = r#"{"title":"Product Name","price":29.99}"#;
    let (session, task) =
        world.simulator.create_task(KEY, world.webhook(Shape::AiResponse), Plan::done(answer).giving(Output::Json));
    let _ = world.simulator.next_task(&session, world.webhook(Shape::AiResponse), Plan::done("# Done").giving(Output::Text));
    let ping = world.simulator.next_task(&session, world.webhook(Shape::JustPing), Plan::done("unused"));
    world.simulator.finish_all().await;
    let seen = world.receiver.seen();
    assert_eq!((&seen[0].body[..], seen[0].header("content-type")), (answer.as_bytes(), "application/json"));
    assert_eq!((&seen[1].body[..], seen[1].header("content-type")), (&b"# Done"[..], "text/plain; charset=utf-8"));
    let expected =
        json!({"event": "task_completed", "sessionId": session, "taskId": ping, "completedAt": "2024-01-15T10:30:00.000Z"});
    assert_eq!(seen[2].json(), expected);
    assert_eq!(world.simulator.deliveries()[0].task_id, task);
}

#[tokio::test]
async fn only_what_completes_is_told_and_nothing_is_sent_again() {
    let world = World::new().await;
    world.receiver.answer(503);
    let (session, done) = world.simulator.create_task(KEY, world.webhook(Shape::FullResponse), Plan::done("x"));
    let of = |details: &str| Plan::of_prompt(details, Output::Text, Duration::ZERO);
    let failed = world.simulator.next_task(&session, world.webhook(Shape::FullResponse), of("fail"));
    let stuck = world.simulator.next_task(&session, world.webhook(Shape::FullResponse), of("login"));
    let hung = world.simulator.next_task(&session, world.webhook(Shape::FullResponse), of("hang"));
    assert_eq!(world.simulator.finish_all().await.len(), 1);
    assert_eq!(world.receiver.members("taskId"), [done]);
    let (_, failed) = world.poll(&session, &failed).await;
    assert_eq!((&failed["success"], &failed["code"]), (&json!(false), &json!("NAVIGATION_TIMEOUT")));
    assert_eq!(world.poll(&session, &stuck).await.1["type"], "guardrail_trigger");
    assert_eq!(world.poll(&session, &hung).await.1["status"], "running");
    assert!(world.simulator.step(&hung).await.is_none());
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let world = World::new().await;
    let task = json!({"taskDetails": "x"});
    let url = format!("{}/start/run-task", world.simulator.base_url());
    let (status, refused) = world.send(world.client.post(&url).json(&task)).await;
    assert_eq!((status, &refused["code"]), (401, &json!("INVALID_API_KEY")));
    let webhook =
        |shape: &str, url: &str| json!({"taskDetails": "x", "webhook": {"name": "n", "url": url, "submittedData": shape}});
    for wrong in [
        json!({}),
        json!([]),
        json!({"taskDetails": " "}),
        webhook("everything", &world.receiver.url),
        webhook("just_ping", "nowhere"),
    ] {
        assert_eq!(world.post("/start/run-task", &wrong).await.0, 400, "{wrong}");
    }
    let message = json!({"sessionId": "nobody", "message": {"actionType": "newTask", "taskDetails": "x"}});
    assert_eq!(world.post("/start/send-message", &message).await.1["code"], "SESSION_NOT_FOUND");
    for left in (0..4).rev() {
        assert_eq!(world.post("/start/run-task", &task).await.0, 200, "{left}");
    }
    assert_eq!(world.post("/start/run-task", &task).await.0, 429);
    world.clock.advance(SignedDuration::from_mins(1));
    assert_eq!(world.post("/start/run-task", &task).await.0, 200);
}

#[tokio::test]
async fn webhooks_go_wrong_in_each_way() {
    let world = World::new().await;
    let (session, _) = world.simulator.create_task(KEY, None, Plan::done("no webhook"));
    world.simulator.finish_all().await;
    world.simulator.set_faults(Faults {
        drop: Times::Next(1),
        reorder: Times::Next(1),
        duplicate: Times::Next(1),
        wrong_auth: Times::Next(1),
        no_auth: Times::Next(1),
        ..Faults::default()
    });
    let tasks: Vec<_> =
        (0..3).map(|n| world.simulator.next_task(&session, world.webhook(Shape::JustPing), Plan::done(&n.to_string()))).collect();
    world.simulator.finish_all().await;
    assert_eq!(world.receiver.members("taskId"), [&tasks[2], &tasks[2], &tasks[1]].map(Clone::clone));
    let seen = world.receiver.seen();
    assert!(!seen[0].headers.contains_key("authorization"));
    assert_eq!((seen[1].header("authorization"), seen[2].header("authorization")), ("Bearer somebody-elses", AUTH));
    assert_eq!(world.simulator.deliveries().iter().filter(|delivery| delivery.attempt == 0).count(), 1);
    world.simulator.idle().await;
}
