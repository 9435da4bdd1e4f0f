//! Magic Hour, from its webhook to the destination.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use taskhook::simulator::magic_hour::{ApiFault, End, Faults, File, MagicHour, Options, Plan, Resource, Times, WrongAnswer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Recorder, Setup, code, json, send, status};
use crate::work::types;

const KEY: &str = "mhk_test";
const SECRET: &str = "whsec_abc123def456";
const PATH: &str = "/webhooks/mh";

/// A program whose only source is `mh`, its Magic Hour, and its only destination.
struct World {
    harness: Harness,
    simulator: MagicHour,
    crm: Recorder,
}

impl World {
    /// With `keys` in the section of the source.
    async fn with(keys: &str, change: impl FnOnce(&mut Options)) -> Self {
        let crm = Recorder::start().await;
        let mut harness = Setup::new().prepare().await;
        let mut options = Options { seed: Some(1), ..Options::new(harness.clock.clone()) };
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = MagicHour::start(listener, options, CancellationToken::new());
        harness.unconfigure("sources", "manus");
        let section = format!("[sources.mh]\nprovider = \"magic_hour\"\nbase_url = \"{}\"\n{keys}\n", simulator.base_url());
        harness.reconfigure(&section);
        harness.reconfigure(&crm.section("crm", ""));
        harness.reconfigure("[[routes]]\nto = [\"crm\"]\n");
        harness.start().await;
        simulator.add_webhook(KEY, &harness.url(PATH), SECRET, &[]);
        Self { harness, simulator, crm }
    }

    /// With an API key, so that jobs are fetched.
    async fn fetching() -> Self {
        Self::with(&format!("secret = \"{SECRET}\"\napi_key = \"{KEY}\""), |_| {}).await
    }

    /// Without one, so that events are all there is.
    async fn told() -> Self {
        Self::with(&format!("secret = \"{SECRET}\""), |_| {}).await
    }

    /// Lives a job to its end, each event being answered 200, and does what follows.
    async fn run(&mut self, plan: Plan) -> String {
        let id = self.simulator.create_task(KEY, plan);
        while let Some(sent) = self.simulator.step(&id).await {
            assert!(sent.iter().all(|delivery| delivery.status == Some(200)), "{sent:?}");
        }
        self.harness.drain().await;
        id
    }

    fn last(&self) -> Value {
        self.crm.bodies().pop().expect("a delivery")
    }
}

fn refuse(status: u16) -> Faults {
    let answer = WrongAnswer::Refuse { status, retry_after: None };
    Faults { api: vec![ApiFault::on("projects", Times::Always, answer)], ..Faults::default() }
}

#[tokio::test]
async fn a_job_that_completed_is_fetched_for_links_that_have_just_been_made() {
    let mut world = World::fetching().await;
    let plan = Plan::video("output.mp4", b"a film").named("A film").costing(30);
    let id = world.run(plan).await;
    assert_eq!(types(&world.crm), ["video.started", "video.completed"]);
    let bodies = world.crm.bodies();
    assert_eq!((&bodies[0]["task"], &bodies[0]["event"]["event_id"]), (&Value::Null, &json!(format!("{id}:video.started"))));
    let body = &bodies[1];
    assert_eq!((&body["provider"], &body["verification"]), (&json!("magic_hour"), &json!("signature")));
    let expected = json!({"id": id, "title": "A film", "state": "finished", "stop_reason": "finish", "model": "TEXT_TO_VIDEO",
        "created_at": "2026-01-15T12:00:00.000Z", "credits": 30, "complete": true, "error": null});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&body["task"][name], value, "{name}");
    }
    let (fetched, told) = (&body["files"][0]["provider_url"], &body["event"]["attachments"][0]["url"]);
    assert_eq!((body["files"].as_array().map(Vec::len), &body["files"][0]["name"]), (Some(1), &json!("output.mp4")));
    assert_eq!(told, &body["event"]["payload"]["payload"]["downloads"][0]["url"]);
    assert!(fetched.is_string() && fetched != told, "{fetched}");
    let calls: Vec<_> = world.simulator.requests().into_iter().map(|call| (call.path, call.account)).collect();
    assert_eq!(calls, [(format!("/v1/video-projects/{id}"), Some("account-1".to_owned()))]);
    let kept = world.harness.admin(&format!("/api/v1/tasks/mh/{id}")).await;
    assert_eq!((&kept["task"], &kept["raw"]["status"]), (&body["task"], &json!("complete")));
    // No key of the provider's is waited for.
    assert_eq!(status(&send(world.harness.request(Method::GET, "/readyz")).await), 200);
}

#[tokio::test]
async fn without_an_api_key_the_event_is_the_whole_job() {
    let mut world = World::told().await;
    let files = vec![File::new("one.png", "image/png", "1"), File::new("two.png", "image/png", "2")];
    let id = world.run(Plan::new(Resource::Image, End::Complete(files)).quick()).await;
    assert_eq!(types(&world.crm), ["image.completed"]);
    let body = world.last();
    assert_eq!((&body["task"]["state"], &body["task"]["complete"]), (&json!("finished"), &json!(true)));
    let names: Vec<_> = body["files"].as_array().unwrap().iter().map(|file| file["name"].clone()).collect();
    assert_eq!(names, ["one.png", "two.png"]);
    assert!(world.simulator.requests().is_empty());
    let list = world.harness.list("tasks").await;
    assert_eq!((&list[0]["task_id"], &list[0]["state"]), (&json!(id), &json!("finished")));

    world.run(Plan::fail("no_source_face", "No face was found")).await;
    let body = world.last();
    assert_eq!(
        (&body["type"], &body["task"]["state"], &body["task"]["credits"]),
        (&json!("video.errored"), &json!("failed"), &json!(0))
    );
    assert_eq!(body["task"]["error"], "no_source_face: No face was found");
    assert_eq!((&body["event"]["stop_reason"], &body["event"]["message"]), (&json!("error"), &body["task"]["error"]));
}

#[tokio::test]
async fn a_repeat_is_known_across_a_restart_and_events_may_come_in_any_order() {
    let mut world = World::told().await;
    world.simulator.set_faults(Faults { duplicate: Times::Always, reorder: Times::Next(1), ..Faults::default() });
    let id = world.simulator.create_task(KEY, Plan::image("a.png", b"x"));
    world.simulator.step(&id).await;
    let sent = world.simulator.step(&id).await.unwrap();
    let words = |answer: &str| serde_json::from_str::<Value>(answer).unwrap()["status"].as_str().unwrap().to_owned();
    assert_eq!(sent.iter().map(|sent| words(&sent.answer)).collect::<Vec<_>>(), ["accepted", "duplicate", "accepted"]);
    world.harness.drain().await;
    assert_eq!(types(&world.crm), ["image.completed", "image.started"]);
    world.harness.restart().await;
    let body = json!({"type": "image.completed", "payload": {"id": id, "status": "complete", "downloads": []}});
    let again = world.simulator.emit(KEY, body).await;
    assert_eq!(words(&again[0].answer), "duplicate");
    world.harness.drain().await;
    let repeats: Vec<_> = world.harness.list("events").await.iter().map(|event| event["repeats"].clone()).collect();
    assert_eq!((repeats, world.crm.bodies().len()), (vec![json!(0), json!(3)], 2));
}

#[tokio::test]
async fn what_cannot_be_fetched_goes_out_as_its_event_told_it() {
    for (faults, waits) in [(refuse(503), 120), (refuse(429), 120), (refuse(404), 0)] {
        let mut world = World::fetching().await;
        let id = world.simulator.create_task(KEY, Plan::video("output.mp4", b"x").costing(3));
        world.simulator.step(&id).await;
        world.simulator.step(&id).await;
        // The fault answers 404 in its own words: that is no answer of the API. A job that was deleted is.
        if waits == 0 {
            assert!(world.simulator.delete_task(&id));
        } else {
            world.simulator.set_faults(faults);
        }
        world.harness.drain().await;
        for _ in 0..waits {
            assert_eq!(types(&world.crm), ["video.started"]);
            world.harness.advance(Duration::from_secs(1)).await;
        }
        let body = world.last();
        assert_eq!((&body["type"], &body["task"]["complete"]), (&json!("video.completed"), &json!(false)));
        assert_eq!((&body["task"]["state"], &body["task"]["credits"]), (&json!("finished"), &json!(3)));
        assert_eq!(body["files"][0]["name"], "output.mp4");
    }
}

#[tokio::test]
async fn forged_and_stale_requests_are_refused_and_explained() {
    let mut world = World::told().await;
    for (faults, code, words) in [
        (Faults { wrong_secret: Times::Next(1), ..Faults::default() }, "signature_invalid", "is it the secret of this webhook"),
        (Faults { reserialised: Times::Next(1), ..Faults::default() }, "signature_invalid", "other white space"),
        (Faults { stale_seconds: 301, ..Faults::default() }, "timestamp_stale", "the signature is genuine"),
    ] {
        world.simulator.set_faults(faults);
        let id = world.simulator.create_task(KEY, Plan::image("a.png", b"x").quick());
        world.simulator.step(&id).await;
        let sent = world.simulator.step(&id).await.unwrap();
        let answer: Value = serde_json::from_str(&sent[0].answer).unwrap();
        assert_eq!((sent[0].status, &answer["code"]), (Some(401), &json!(code)));
        world.harness.drain().await;
        let row = &world.harness.list("rejections").await[0];
        assert_eq!(row["code"], code);
        assert!(row["explanation"].as_str().unwrap().contains(words), "{row}");
    }
    let unsigned = send(world.harness.post(PATH).body("{}")).await;
    assert_eq!((status(&unsigned), code(&unsigned)), (401, "signature_missing".to_owned()));
    assert!(world.harness.list("events").await.is_empty());
}

#[tokio::test]
async fn an_event_that_found_nobody_comes_again_until_it_is_kept() {
    let mut world = World::with(&format!("secret = \"{SECRET}\""), |options| options.retry_for = Duration::from_secs(7)).await;
    let id = world.simulator.create_task(KEY, Plan::image("a.png", b"x").quick());
    world.simulator.step(&id).await;
    world.harness.stop().await;
    let mut happenings = world.simulator.happenings();
    let harness = &mut world.harness;
    let passing = async {
        happenings.recv().await.unwrap();
        harness.clock.advance(SignedDuration::from_secs(1));
        happenings.recv().await.unwrap();
        harness.start().await;
        harness.clock.advance(SignedDuration::from_secs(2));
    };
    let (sent, ()) = tokio::join!(world.simulator.step(&id), passing);
    assert_eq!((sent.as_ref().unwrap()[0].attempt, sent.unwrap()[0].status), (3, Some(200)));
    world.harness.drain().await;
    assert_eq!(types(&world.crm), ["image.completed"]);
}

#[tokio::test]
async fn the_documented_test_request_is_answered_200_and_takes_effect() {
    let crm = Recorder::start().await;
    let mut harness = Setup::new().prepare().await;
    harness.unconfigure("sources", "manus");
    harness.reconfigure("[sources.mh]\nprovider = \"magic_hour\"\nverify = \"none\"\n");
    harness.reconfigure(&crm.section("crm", ""));
    harness.reconfigure("[[routes]]\nto = [\"crm\"]\n");
    harness.start().await;
    for name in ["video.completed", "image.completed", "video.errored"] {
        let path = format!("{}/tests/data/magic_hour/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let body = std::fs::read(path).unwrap();
        let answer = send(harness.post(PATH).header("content-type", "application/json").body(body)).await;
        assert_eq!((status(&answer), &json(&answer)["status"]), (200, &json!("accepted")), "{name}");
        harness.drain().await;
        assert_eq!(crm.bodies().last().unwrap()["type"], name);
    }
    let body = crm.bodies()[0].clone();
    assert_eq!((&body["event"]["event_id"], &body["verification"]), (&json!("test-job-123:video.completed"), &json!("none")));
    assert_eq!(body["files"][0]["provider_url"], "https://videos.magichour.ai/test/output.mp4");
    assert_eq!(status(&send(harness.request(Method::GET, PATH)).await), 405);
}

#[tokio::test]
async fn a_job_that_was_told_of_is_listed_before_its_first_event() {
    let mut world = World::told().await;
    let id = world.simulator.create_task(KEY, Plan::video("a.mp4", b"x"));
    let track = async |world: &World, kind: &str, id: &str| {
        world.harness.admin_post("/api/v1/tasks/track", &json!({"source": "mh", "kind": kind, "task_id": id})).await
    };
    let tracked = track(&world, "video", &id).await;
    assert_eq!((status(&tracked), &json(&tracked)["task_id"]), (201, &json!(id)));
    assert_eq!(status(&track(&world, "video", &id).await), 201);
    let list = world.harness.list("tasks").await;
    assert_eq!(list.len(), 1);
    let told = (&list[0]["task_id"], &list[0]["kind"], &list[0]["proof"], &list[0]["state"]);
    assert_eq!(told, (&json!(id), &json!("video"), &json!("tracked"), &Value::Null));
    for (kind, id, expected) in
        [("film", id.as_str(), "kind_unknown"), ("video", "a b", "id_invalid"), ("video", "", "id_invalid")]
    {
        let refused = track(&world, kind, id).await;
        assert_eq!((status(&refused), code(&refused)), (400, expected.to_owned()));
    }
    world.harness.restart().await;
    world.simulator.finish_all().await;
    world.harness.drain().await;
    let shown = world.harness.admin(&format!("/api/v1/tasks/mh/{id}")).await;
    assert_eq!((&shown["state"], &shown["kind"]), (&json!("finished"), &json!("video")));
}
