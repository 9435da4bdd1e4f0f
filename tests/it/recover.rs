//! Ends that no webhook told, of providers that have no list of tasks: Magic Hour and WebRun.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::Times;
use taskhook::simulator::magic_hour::{self, MagicHour, Resource};
use taskhook::simulator::webrun::{self, WebRun};
use taskhook::simulator::{ApiFault, WrongAnswer};
use taskhook::store::care;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Recorder, Setup, code, json as body_of, send, status};
use crate::work::{pass, refuse, types};

const MINUTE: Duration = Duration::from_mins(1);
const SECRET: &str = "whsec_abc123def456";
const AUTH: &str = "Bearer your-secret-token";

/// A program with the one source of this section, whose `{base}` is the provider's address, and one destination.
async fn program(base: &str, section: &str) -> (Harness, Recorder) {
    let crm = Recorder::start().await;
    let mut harness = Setup::new().reconciling().prepare().await;
    harness.unconfigure("sources", "manus");
    harness.reconfigure(&section.replace("{base}", base));
    harness.reconfigure(&crm.section("crm", ""));
    harness.reconfigure("[[routes]]\nto = [\"crm\"]\n");
    (harness, crm)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Magic Hour, of which no webhook comes, and a program that asks it.
struct Films {
    harness: Harness,
    crm: Recorder,
    simulator: MagicHour,
}

impl Films {
    async fn new(keys: &str) -> Self {
        let section =
            format!("[sources.mh]\nprovider = \"magic_hour\"\nbase_url = \"{{base}}\"\nsecret = \"{SECRET}\"\n{keys}\n");
        // The clock is the harness's, so it comes first; the address of the simulator is known only then.
        let (mut harness, crm) = program("http://127.0.0.1:9", &section).await;
        let options = magic_hour::Options { seed: Some(1), ..magic_hour::Options::new(harness.clock.clone()) };
        let simulator = MagicHour::start(listener().await, options, CancellationToken::new());
        harness.reconfigure(&format!("[sources.mh]\nbase_url = \"{}\"\n", simulator.base_url()));
        harness.start().await;
        simulator.add_webhook("mhk_test", &harness.url("/webhooks/mh"), SECRET, &[]);
        harness.drain().await;
        harness.clock.advance(jiff::SignedDuration::from_secs(1));
        let films = Self { harness, crm, simulator };
        films.deaf();
        films
    }

    fn deaf(&self) {
        self.simulator.set_faults(magic_hour::Faults { drop: Times::Always, ..magic_hour::Faults::default() });
    }

    async fn tracked(&self, plan: magic_hour::Plan) -> String {
        let kind = plan.resource.word();
        let id = self.simulator.create_task("mhk_test", plan);
        self.track(kind, &id).await;
        id
    }

    async fn track(&self, kind: &str, id: &str) {
        let wish = json!({"source": "mh", "kind": kind, "task_id": id});
        assert_eq!(status(&self.harness.admin_post("/api/v1/tasks/track", &wish).await), 201);
    }

    async fn minutes(&mut self, count: usize) {
        for _ in 0..count {
            self.harness.advance(MINUTE).await;
        }
    }

    fn calls(&self) -> usize {
        self.simulator.requests().len()
    }
}

fn video() -> magic_hour::Plan {
    magic_hour::Plan::video("output.mp4", b"a film").named("A film")
}

const WITH_KEY: &str = "api_key = \"mhk_test\"";

#[tokio::test]
async fn each_end_of_a_job_that_was_told_of_is_found_once_with_its_own_type() {
    let mut films = Films::new(WITH_KEY).await;
    let done = films.tracked(video()).await;
    let failed = films.tracked(magic_hour::Plan::fail("no_source_face", "No face was found")).await;
    let canceled = films.tracked(magic_hour::Plan::new(Resource::Audio, magic_hour::End::Cancel)).await;
    films.simulator.finish_all().await;
    films.minutes(1).await;
    assert_eq!(films.calls(), 0, "not before their time");
    films.minutes(1).await;
    // Their ends are seen, and left to their webhooks.
    films.harness.drain().await;
    assert_eq!((films.calls(), films.crm.recorded().len()), (3, 0));
    films.minutes(6).await;
    let bodies = films.crm.bodies();
    assert_eq!(bodies.len(), 3);
    for (id, kind, reason, state, anchor) in [
        (&done, "video.completed", "finish", "finished", "complete"),
        (&failed, "video.errored", "error", "failed", "error"),
        (&canceled, "task_stopped", "canceled", "canceled", "canceled"),
    ] {
        let body = bodies.iter().find(|body| body["event"]["task_id"] == **id).expect("it was found");
        assert_eq!((&body["type"], &body["event"]["stop_reason"]), (&json!(kind), &json!(reason)));
        assert_eq!((&body["task"]["state"], &body["task"]["stop_reason"]), (&json!(state), &json!(reason)));
        assert_eq!(
            (&body["recovered"], &body["may_repeat"], &body["verification"]),
            (&json!(true), &json!(false), &json!("api"))
        );
        assert_eq!(
            (&body["task"]["complete"], &body["event"]["event_id"]),
            (&json!(true), &json!(format!("recovered:{id}:{anchor}")))
        );
    }
    let film = bodies.iter().find(|body| body["type"] == "video.completed").expect("the film");
    assert_eq!((&film["files"][0]["name"], &film["task"]["title"]), (&json!("output.mp4"), &json!("A film")));
    assert_eq!(film["event"]["payload"]["payload"]["status"], "complete");
    // And never again.
    let calls = films.calls();
    films.harness.advance(Duration::from_hours(1)).await;
    films.harness.restart().await;
    films.harness.drain().await;
    films.minutes(5).await;
    assert_eq!((films.crm.recorded().len(), films.calls()), (3, calls), "what ended is not asked for");
}

#[tokio::test]
async fn a_job_that_began_and_of_which_nothing_more_was_heard_is_found() {
    let mut films = Films::new(WITH_KEY).await;
    films.simulator.set_faults(magic_hour::Faults::default());
    let id = films.simulator.create_task("mhk_test", video());
    films.simulator.step(&id).await;
    films.harness.drain().await;
    films.deaf();
    // It takes its time: the older it is, the rarer it is asked for.
    films.harness.advance(Duration::from_mins(2)).await;
    for _ in 0..60 {
        films.harness.advance(Duration::from_mins(2)).await;
    }
    let calls = films.calls();
    assert!((10..30).contains(&calls), "{calls}");
    films.simulator.finish_all().await;
    films.minutes(30).await;
    assert_eq!(types(&films.crm), ["video.started", "video.completed"]);
    assert_eq!(films.crm.bodies()[1]["recovered"], true);
}

#[tokio::test]
async fn a_late_webhook_of_an_end_that_was_found_is_handed_on_only_if_it_says_something_else() {
    for (late, again) in [
        (json!({"type": "video.completed", "status": "complete"}), None),
        (json!({"type": "video.errored", "status": "error", "error": {"code": "x", "message": "Other"}}), Some("video.errored")),
    ] {
        let mut films = Films::new(WITH_KEY).await;
        let id = films.tracked(video()).await;
        films.simulator.finish_all().await;
        films.minutes(6).await;
        assert_eq!(types(&films.crm), ["video.completed"]);
        films.simulator.set_faults(magic_hour::Faults::default());
        let payload = json!({"id": id, "status": late["status"], "error": late["error"], "downloads": []});
        let sent = films.simulator.emit("mhk_test", json!({"type": late["type"], "payload": payload})).await;
        assert_eq!(sent[0].status, Some(200));
        films.harness.drain().await;
        films.minutes(5).await;
        let told = types(&films.crm);
        assert_eq!(told.get(1).map(String::as_str), again, "{late}");
        if again.is_some() {
            let last = films.crm.bodies().pop().expect("a delivery");
            assert_eq!((&last["may_repeat"], &last["recovered"]), (&json!(true), &json!(false)));
        }
    }
}

#[tokio::test]
async fn a_webhook_in_time_is_all_there_is() {
    let mut films = Films::new(WITH_KEY).await;
    films.simulator.set_faults(magic_hour::Faults::default());
    for (plan, expected) in [(video(), "video.completed"), (magic_hour::Plan::fail("c", "m"), "video.errored")] {
        films.crm.take();
        let id = films.tracked(plan.quick()).await;
        films.simulator.finish_all().await;
        films.harness.drain().await;
        films.minutes(5).await;
        assert_eq!(types(&films.crm), [expected], "{id}");
        assert_eq!(films.crm.bodies()[0]["recovered"], false);
    }
}

#[tokio::test]
async fn what_went_out_without_its_job_is_not_found_again() {
    let mut films = Films::new(WITH_KEY).await;
    let ill = || ApiFault::on("projects", Times::Always, refuse(503));
    films.simulator.set_faults(magic_hour::Faults { api: vec![ill()], ..magic_hour::Faults::default() });
    let id = films.tracked(video().quick()).await;
    films.simulator.finish_all().await;
    pass(&mut films.harness, 20, Duration::from_secs(10), |_| ()).await;
    assert_eq!(
        (types(&films.crm), &films.crm.bodies()[0]["task"]["complete"]),
        (vec!["video.completed".to_owned()], &json!(false))
    );
    films.deaf();
    films.minutes(10).await;
    assert_eq!(films.crm.recorded().len(), 1, "{id}");
    let calls = films.calls();
    films.minutes(10).await;
    assert_eq!(films.calls(), calls, "its end is accounted for");
}

#[tokio::test]
async fn a_provider_that_says_no_is_asked_again_and_keeps_no_other_job_waiting() {
    for answer in [refuse(401), refuse(429), refuse(503), WrongAnswer::Html, WrongAnswer::Half, WrongAnswer::Lost] {
        let mut films = Films::new(WITH_KEY).await;
        films.tracked(video()).await;
        films.simulator.finish_all().await;
        let faults = magic_hour::Faults {
            drop: Times::Always,
            api: vec![ApiFault::on("projects", Times::Always, answer.clone())],
            ..magic_hour::Faults::default()
        };
        films.simulator.set_faults(faults);
        pass(&mut films.harness, 40, Duration::from_secs(10), |_| ()).await;
        assert_eq!(films.crm.recorded().len(), 0, "{answer:?}");
        let ready = body_of(&send(films.harness.request(reqwest::Method::GET, "/readyz")).await);
        assert!(ready["reasons"].is_null(), "the public listener tells no reasons");
        films.deaf();
        pass(&mut films.harness, 60, Duration::from_secs(10), |_| ()).await;
        assert_eq!(films.crm.recorded().len(), 1, "{answer:?}");
    }
    // An answer that makes no sense about one job.
    let mut films = Films::new(WITH_KEY).await;
    let odd = films.tracked(video()).await;
    let fine = films.tracked(video()).await;
    films.simulator.finish_all().await;
    let about_odd = ApiFault::on(&odd, Times::Always, WrongAnswer::Html);
    films.simulator.set_faults(magic_hour::Faults { drop: Times::Always, api: vec![about_odd], ..magic_hour::Faults::default() });
    films.minutes(8).await;
    let told: Vec<_> = films.crm.bodies().into_iter().map(|body| body["event"]["task_id"].clone()).collect();
    assert_eq!(told, [json!(fine)]);
}

#[tokio::test]
async fn what_is_not_there_is_asked_for_ever_more_rarely_and_not_for_ever() {
    let mut films = Films::new(&format!("{WITH_KEY}\n[sources.mh.reconcile]\nhorizon = \"3h\"\n")).await;
    films.track("video", "never-was").await;
    for _ in 0..100 {
        films.harness.advance(Duration::from_mins(2)).await;
    }
    let calls = films.calls();
    assert!((10..40).contains(&calls), "{calls}");
    films.harness.advance(Duration::from_hours(1)).await;
    films.minutes(10).await;
    assert_eq!((films.calls(), films.crm.recorded().len()), (calls, 0));
}

#[tokio::test]
async fn without_a_key_nothing_is_asked() {
    let mut films = Films::new("").await;
    films.tracked(video()).await;
    films.simulator.finish_all().await;
    films.minutes(10).await;
    assert_eq!((films.calls(), films.crm.recorded().len()), (0, 0));
}

#[tokio::test]
async fn an_end_of_a_job_is_found_once_wherever_the_program_dies() {
    for turns in (0..400).step_by(16) {
        let mut films = Films::new(WITH_KEY).await;
        let id = films.tracked(video()).await;
        films.simulator.finish_all().await;
        films.minutes(3).await;
        films.harness.clock.advance(jiff::SignedDuration::from_mins(1));
        let dies = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        films.harness.work_until(dies).await;
        films.harness.crash();
        films.harness.start().await;
        films.harness.drain().await;
        films.minutes(6).await;
        let ids: std::collections::BTreeSet<_> =
            films.crm.recorded().iter().map(|sent| sent.header("webhook-id").to_owned()).collect();
        assert_eq!((ids.len(), &films.crm.bodies()[0]["event"]["task_id"]), (1, &json!(id)), "after {turns} turns");
    }
}

/// WebRun, of which no webhook comes, and a program that asks it.
struct Browser {
    harness: Harness,
    crm: Recorder,
    simulator: WebRun,
}

impl Browser {
    async fn new(payload: &str, keys: &str) -> Self {
        let section = format!(
            "[sources.wr]\nprovider = \"webrun\"\nbase_url = \"{{base}}\"\nauthorization = \"{AUTH}\"\npayload = \"{payload}\"\n{keys}\n"
        );
        let (mut harness, crm) = program("http://127.0.0.1:9", &section).await;
        let options = webrun::Options { seed: Some(1), ..webrun::Options::new(harness.clock.clone()) };
        let simulator = WebRun::start(listener().await, options, CancellationToken::new());
        harness.reconfigure(&format!("[sources.wr]\nbase_url = \"{}\"\n", simulator.base_url()));
        harness.start().await;
        harness.drain().await;
        harness.clock.advance(jiff::SignedDuration::from_secs(1));
        simulator.set_faults(webrun::Faults { drop: Times::Always, ..webrun::Faults::default() });
        Self { harness, crm, simulator }
    }

    /// A task that was told of, and the id of its session.
    async fn tracked(&self, plan: webrun::Plan) -> (String, String) {
        let (session, task) = self.simulator.create_task("enig_test", None, plan);
        let wish = json!({"source": "wr", "kind": "task", "task_id": format!("{session}/{task}")});
        let answer = self.harness.admin_post("/api/v1/tasks/track", &wish).await;
        assert_eq!((status(&answer), &body_of(&answer)["task_id"]), (201, &json!(task)));
        (session, task)
    }

    async fn minutes(&mut self, count: usize) {
        for _ in 0..count {
            self.harness.advance(MINUTE).await;
        }
    }
}

#[tokio::test]
async fn a_job_that_a_restore_has_at_work_again_goes_out_and_says_that_it_may_repeat() {
    let mut films = Films::new(WITH_KEY).await;
    let old = films.tracked(video()).await;
    let (config, file) = (films.harness.store_config(), films.harness.folder().join("backup.db"));
    care::backup(&config, &file, false, films.harness.clock.now(), &mut |_| {}).expect("a backup");
    films.simulator.finish_all().await;
    films.minutes(8).await;
    assert_eq!(films.crm.take().len(), 1, "it was found and handed on, which the backup does not know");
    films.harness.stop().await;
    // The last of its threads lets go of the lock.
    let lock = fs::File::open(format!("{}.lock", films.harness.database().display())).expect("a lock");
    while lock.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    drop(lock);
    let mut restore = care::restore(&config, &file, films.harness.clock.now(), &mut |_| {}).expect("a backup of ours");
    while restore.step(&mut |_| {}).expect("a step") {}
    drop(restore);
    films.harness.clock.advance(jiff::SignedDuration::from_secs(1));
    films.harness.start().await;
    // Nobody tells when it ended; of one that was told of since, it is known that nobody has it.
    let new = films.tracked(video()).await;
    films.simulator.finish_all().await;
    films.minutes(12).await;
    let mut told: Vec<_> =
        films.crm.bodies().iter().map(|body| (body["event"]["task_id"].clone(), body["may_repeat"].clone())).collect();
    told.sort_by_key(|(id, _)| *id == json!(new));
    assert_eq!(told, [(json!(old), json!(true)), (json!(new), json!(false))]);
}

#[tokio::test]
async fn a_task_of_webrun_is_asked_for_once_after_its_time_and_its_session_is_shown_to_nobody() {
    for payload in ["full_response", "just_ping"] {
        let mut browser = Browser::new(payload, "fetch = \"on\"").await;
        let (session, task) = browser.tracked(webrun::Plan::done("The answer.")).await;
        let failing = webrun::End::Fail { code: "NAVIGATION_TIMEOUT".to_owned(), message: "Too slow".to_owned() };
        let (_, failed) = browser.tracked(webrun::Plan::ending(failing)).await;
        let (_, waiting) = browser.tracked(webrun::Plan::ending(webrun::End::Guardrail("Log in?".to_owned()))).await;
        browser.simulator.finish_all().await;
        browser.minutes(5).await;
        assert_eq!((browser.simulator.requests().len(), browser.crm.recorded().len()), (0, 0), "{payload}");
        browser.minutes(4).await;
        let bodies = browser.crm.bodies();
        assert_eq!(bodies.len(), 3, "{payload}: {:?}", types(&browser.crm));
        for (id, kind, reason, state) in [
            (&task, "task_completed", "finish", "finished"),
            (&failed, "task_failed", "error", "failed"),
            (&waiting, "task_stopped", "ask", "waiting"),
        ] {
            let body = bodies.iter().find(|body| body["event"]["task_id"] == **id).expect("it was found");
            assert_eq!((&body["type"], &body["event"]["stop_reason"]), (&json!(kind), &json!(reason)), "{payload}");
            assert_eq!((&body["task"]["state"], &body["recovered"]), (&json!(state), &json!(true)), "{payload}");
        }
        let done = bodies.iter().find(|body| body["type"] == "task_completed").expect("it was found");
        assert_eq!((&done["task"]["messages"][0]["text"], &done["task"]["complete"]), (&json!("The answer."), &json!(true)));
        let event = done["id"].as_str().expect("an id");
        let shown = [
            browser.harness.admin(&format!("/api/v1/tasks/wr/{task}")).await.to_string(),
            browser.harness.admin("/api/v1/tasks").await.to_string(),
            browser.harness.event(event).await.to_string(),
        ];
        assert!(shown.iter().all(|shown| !shown.contains(&session)), "{shown:?}");
        // Once is enough, but for what may go on: it waits for a person.
        let about =
            |browser: &Browser, id: &str| browser.simulator.requests().iter().filter(|call| call.path.contains(id)).count();
        let asked = about(&browser, &task);
        browser.minutes(30).await;
        assert_eq!((about(&browser, &task), browser.crm.recorded().len()), (asked, 3), "{payload}");
    }
}

#[tokio::test]
async fn a_task_whose_session_is_not_known_cannot_be_asked_for() {
    let mut browser = Browser::new("full_response", "fetch = \"on\"").await;
    let track = async |browser: &Browser, id: &str| {
        let wish = json!({"source": "wr", "kind": "task", "task_id": id});
        browser.harness.admin_post("/api/v1/tasks/track", &wish).await
    };
    let (_, task) = browser.simulator.create_task("enig_test", None, webrun::Plan::done("The answer."));
    assert_eq!(status(&track(&browser, &task).await), 201);
    for wrong in ["s/", "/t", "a b/t"] {
        let refused = track(&browser, wrong).await;
        assert_eq!((status(&refused), code(&refused)), (400, "id_invalid".to_owned()), "{wrong}");
    }
    browser.simulator.finish_all().await;
    browser.minutes(20).await;
    assert_eq!((browser.simulator.requests().len(), browser.crm.recorded().len()), (0, 0));
    let row: Value = browser.harness.list("tasks").await.remove(0);
    assert_eq!((&row["task_id"], &row["state"]), (&json!(task), &Value::Null));
}
