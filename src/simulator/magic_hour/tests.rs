//! The simulator through its own HTTP, held against Magic Hour's documentation.

use aws_lc_rs::hmac;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::http::{self, Answer};
use crate::simulator::tests::{Receiver, Seen};

const KEY: &str = "mhk_test";
const SECRET: &str = "whsec_abc123def456";

struct World {
    simulator: MagicHour,
    clock: Clock,
    receiver: Receiver,
    client: reqwest::Client,
}

impl World {
    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let clock = Clock::manual("2025-11-18T23:05:00Z".parse().unwrap());
        let mut options = Options { seed: Some(1), ..Options::new(clock.clone()) };
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = MagicHour::start(listener, options, CancellationToken::new());
        let receiver = Receiver::start("/webhooks/mh").await;
        simulator.add_webhook(KEY, &receiver.url, SECRET, &[]);
        Self { simulator, clock, receiver, client: http::client(Duration::from_secs(10)) }
    }

    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let Answer { status, body, .. } = http::send(request, Duration::from_secs(10), 1 << 20).await.unwrap();
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.client.get(format!("{}{path}", self.simulator.base_url())).bearer_auth(KEY)).await
    }

    async fn create(&self, tool: &str, prompt: &str) -> String {
        let url = format!("{}/v1/{tool}", self.simulator.base_url());
        let body = json!({"image_count": 1, "orientation": "square", "style": {"prompt": prompt}});
        let (status, answer) = self.send(self.client.post(url).bearer_auth(KEY).json(&body)).await;
        assert_eq!((status, &answer["credits_charged"]), (200, &json!(5)), "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }
}

/// Whether a request verifies as the documentation says, written here from the documentation alone.
fn genuine(seen: &Seen) -> bool {
    let mut text = format!("{}.", seen.header("magic-hour-event-timestamp")).into_bytes();
    text.extend_from_slice(&seen.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &text);
    crate::event::hex(tag.as_ref()) == seen.header("magic-hour-event-signature")
}

#[test]
fn the_signature_is_the_one_that_was_computed_elsewhere() {
    let body = br#"{"type":"video.completed","payload":{"id":"clx123","status":"complete","downloads":[{"url":"https://videos.magichour.ai/output.mp4"}]}}"#;
    let headers = MagicHour::sign(SECRET, body, 1_729_314_984);
    let signature = "f5adf8d69bdc8d479a3e8c8f8bdfdf9c9658dadbf0b95c85626f172640d67d1e";
    assert_eq!(
        (&headers["magic-hour-event-signature"], &headers["magic-hour-event-timestamp"]),
        (&signature.parse().unwrap(), &1_729_314_984.into())
    );
}

#[tokio::test]
async fn a_job_starts_and_completes_and_each_is_told_with_a_genuine_signature() {
    let world = World::new().await;
    let id = world.create("ai-image-generator", "a cat").await;
    assert_eq!(world.get(&format!("/v1/image-projects/{id}")).await.1["status"], "queued");
    world.simulator.finish_all().await;
    assert_eq!(world.receiver.members("type"), ["image.started", "image.completed"]);
    assert!(world.receiver.seen().iter().all(genuine));
    let (status, details) = world.get(&format!("/v1/image-projects/{id}")).await;
    assert_eq!((status, &details["status"], &details["credits_charged"]), (200, &json!("complete"), &json!(5)));
    let mut told = world.receiver.seen()[1].json()["payload"].take();
    let mut asked = details.clone();
    // Links differ on each answer; all else is the same.
    assert_ne!(told["downloads"].take(), asked["downloads"].take());
    assert_eq!(told, asked);
    // A job of another resource is not there, and neither is one of another account.
    assert_eq!(world.get(&format!("/v1/video-projects/{id}")).await, (404, json!({"message": "Not Found"})));
    let foreign = world.simulator.create_task("mhk_other", Plan::video("a.mp4", b"x"));
    assert_eq!(world.get(&format!("/v1/video-projects/{foreign}")).await.0, 404);
    let url = format!("{}/v1/image-projects/{id}", world.simulator.base_url());
    assert_eq!(world.send(world.client.get(&url)).await, (401, json!({"message": "Unauthorized"})));
    assert_eq!(world.send(world.client.delete(&url).bearer_auth(KEY)).await.0, 204);
    assert_eq!(world.get(&format!("/v1/image-projects/{id}")).await.0, 404);
}

#[tokio::test]
async fn downloads_live_for_a_day_and_asking_again_yields_fresh_ones() {
    let world = World::new().await;
    let id = world.simulator.create_task(KEY, Plan::video("output.mp4", b"a film"));
    world.simulator.finish_all().await;
    let link = world.receiver.seen()[1].json()["payload"]["downloads"][0].clone();
    assert_eq!(link["expires_at"], "2025-11-19T23:05:00.000Z");
    let fetch = async |link: &Value| {
        let answer = http::send(world.client.get(link["url"].as_str().unwrap()), Duration::from_secs(10), 1 << 20).await.unwrap();
        (answer.status.as_u16(), answer.body)
    };
    assert_eq!(fetch(&link).await, (200, bytes::Bytes::from_static(b"a film")));
    let rest = world.client.get(link["url"].as_str().unwrap()).header("range", "bytes=2-");
    let rest = http::send(rest, Duration::from_secs(10), 1 << 20).await.unwrap();
    assert_eq!((rest.status.as_u16(), &rest.body[..], rest.header("content-range")), (206, &b"film"[..], Some("bytes 2-5/6")));
    world.clock.advance(SignedDuration::from_hours(25));
    assert_eq!(fetch(&link).await.0, 403);
    let fresh = world.get(&format!("/v1/video-projects/{id}")).await.1["downloads"][0].take();
    assert_eq!(fetch(&fresh).await.0, 200);
}

#[tokio::test]
async fn jobs_fail_are_called_off_without_a_word_or_skip_their_start() {
    let world = World::new().await;
    let failed = world.create("text-to-video", "fail").await;
    let canceled = world.create("ai-voice-generator", "cancel").await;
    let _ = world.simulator.create_task(KEY, Plan::image("a.png", b"x").quick());
    world.simulator.finish_all().await;
    let mut types = world.receiver.members("type");
    types.sort_unstable();
    assert_eq!(types, ["audio.started", "image.completed", "video.errored", "video.started"]);
    let details = world.get(&format!("/v1/video-projects/{failed}")).await.1;
    assert_eq!((&details["status"], &details["error"]["code"]), (&json!("error"), &json!("no_source_face")));
    assert_eq!((&details["credits_charged"], &details["downloads"]), (&json!(0), &json!([])));
    assert_eq!(world.get(&format!("/v1/audio-projects/{canceled}")).await.1["status"], "canceled");
}

#[tokio::test]
async fn a_webhook_gets_the_events_that_it_was_made_for() {
    let world = World::new().await;
    let other = Receiver::start("/only").await;
    world.simulator.add_webhook(KEY, &other.url, "whsec_other", &["video.completed"]);
    let _ = world.simulator.create_task(KEY, Plan::video("a.mp4", b"x"));
    world.simulator.finish_all().await;
    assert_eq!((world.receiver.seen().len(), other.members("type")), (2, vec!["video.completed".to_owned()]));
    assert!(!genuine(&other.seen()[0]));
    assert_eq!(other.seen()[0].target, "/only");
}

#[tokio::test]
async fn what_is_not_answered_2xx_is_sent_again_after_twice_the_time() {
    for renew in [true, false] {
        let world = World::with(|options| {
            options.retry_for = Duration::from_secs(7);
            options.renew_timestamp = renew;
        })
        .await;
        world.receiver.answer(503);
        let id = world.simulator.create_task(KEY, Plan::image("a.png", b"x").quick());
        world.simulator.step(&id).await;
        let mut happenings = world.simulator.happenings();
        let passing = async {
            for wait in [1, 2, 4] {
                happenings.recv().await.unwrap();
                world.clock.advance(SignedDuration::from_secs(wait));
            }
        };
        let (sent, ()) = tokio::join!(world.simulator.step(&id), passing);
        assert_eq!(sent.unwrap()[0].attempt, 4);
        let seen = world.receiver.seen();
        let times: Vec<_> = seen.iter().map(|seen| seen.header("magic-hour-event-timestamp").parse::<i64>().unwrap()).collect();
        let expected = if renew { [0, 1, 3, 7] } else { [0; 4] };
        assert_eq!(times.iter().map(|time| time - times[0]).collect::<Vec<_>>(), expected);
        assert!(seen.iter().all(genuine));
    }
}

#[tokio::test]
async fn requests_go_wrong_in_each_way() {
    let world = World::new().await;
    world.receiver.answer_next(&[401, 401, 401]);
    world.simulator.set_faults(Faults {
        wrong_secret: Times::Next(1),
        decoded_secret: Times::Next(1),
        reserialised: Times::Next(3),
        duplicate: Times::Next(1),
        ..Faults::default()
    });
    let id = world.simulator.create_task(KEY, Plan::image("a.png", b"x"));
    world.simulator.step(&id).await;
    world.simulator.step(&id).await;
    assert_eq!(world.receiver.members("type"), ["image.started", "image.started", "image.completed"]);
    assert!(!world.receiver.seen().iter().any(genuine));
    world.simulator.set_faults(Faults { stale_seconds: 600, ..Faults::default() });
    let _ = world.simulator.create_task(KEY, Plan::image("a.png", b"x"));
    world.simulator.finish_all().await;
    let last = world.receiver.seen().pop().unwrap();
    assert!(genuine(&last));
    assert_eq!(last.header("magic-hour-event-timestamp"), (world.clock.now().as_second() - 600).to_string());
}

#[tokio::test]
async fn events_are_dropped_and_held_back_and_the_api_fails_as_told() {
    let world = World::new().await;
    world.simulator.set_faults(Faults { drop: Times::Next(1), reorder: Times::Next(1), ..Faults::default() });
    let one = world.simulator.create_task(KEY, Plan::image("a.png", b"x"));
    let two = world.simulator.create_task(KEY, Plan::video("a.mp4", b"x"));
    world.simulator.step(&one).await;
    world.simulator.step(&two).await;
    world.simulator.step(&one).await;
    world.simulator.step(&two).await;
    assert_eq!(world.receiver.members("type"), ["image.completed", "video.started", "video.completed"]);
    let refuse = WrongAnswer::Refuse { status: 429, retry_after: Some("2".to_owned()) };
    let api = vec![ApiFault::on("image-projects", Times::Next(1), refuse)];
    world.simulator.set_faults(Faults { api, refused_keys: vec![KEY.to_owned()], ..Faults::default() });
    let path = format!("/v1/image-projects/{one}");
    assert_eq!(world.get(&path).await, (429, json!({"message": "Too Many Requests"})));
    assert_eq!(world.get(&path).await.0, 401);
    assert_eq!(world.simulator.requests().len(), 2);
    world.simulator.idle().await;
}
