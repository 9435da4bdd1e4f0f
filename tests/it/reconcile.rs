//! What was never announced is found, once; and what stopped before is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, End, Faults, Plan, Turn, WrongAnswer};

use crate::harness::{Harness, KEY, Recorder};
use crate::work::{calls, every_call, refuse, say, setup, start, stopped};

/// As long as a round waits for the next one.
const INTERVAL: Duration = Duration::from_mins(2);

/// A program that looks for stops, and has read the list once; no webhook comes.
async fn deaf(crm: &Recorder, config: &str) -> Harness {
    let mut harness = start(setup(crm, "").config(config).reconciling()).await;
    harness.drain().await;
    harness.manus.set_faults(dropping());
    // What stops at the very moment of the start was there before.
    harness.advance(Duration::from_secs(1)).await;
    harness
}

fn dropping() -> Faults {
    Faults { drop: Times::Always, ..Faults::default() }
}

/// Of each delivery its task, its type, why it stopped, and its last message.
fn told(crm: &Recorder) -> Vec<(String, String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words =
        |body: &Value| text(&body["task"]["messages"].as_array().and_then(|all| all.last()).unwrap_or(&Value::Null)["text"]);
    crm.bodies()
        .iter()
        .filter(|body| body["event"]["stop_reason"].is_string())
        .map(|body| (text(&body["event"]["task_id"]), text(&body["type"]), text(&body["event"]["stop_reason"]), words(body)))
        .collect()
}

#[tokio::test]
async fn with_every_webhook_lost_each_stop_is_handed_on_once() {
    for version in ["v1", "v2"] {
        let crm = Recorder::start().await;
        let mut harness = deaf(&crm, &format!("[sources.manus]\napi_version = \"{version}\"\n")).await;
        let mut expected = BTreeSet::new();
        for number in 0..200 {
            let (end, kind, reason) = match number % 5 {
                0 => (End::Ask { question: "A or B?".to_owned(), options: Vec::new() }, "task_stopped", "ask"),
                1 => (End::Fail { error: "no browser".to_owned() }, "task_failed", "error"),
                2 if version == "v2" => (End::UserStop, "task_stopped", "user"),
                _ => (Turn::finish(format!("Answer {number}.")).end, "task_stopped", "finish"),
            };
            let task = harness.manus.create_task(KEY, Plan::new([Turn::new(end)]));
            expected.insert((task, kind.to_owned(), reason.to_owned()));
        }
        harness.manus.finish_all().await;
        // A webhook might still come.
        harness.drain().await;
        assert_eq!(crm.recorded().len(), 0, "{version}");
        harness.advance(INTERVAL).await;
        let found: Vec<_> = told(&crm).into_iter().map(|(task, kind, reason, _)| (task, kind, reason)).collect();
        assert_eq!((found.len(), found.into_iter().collect::<BTreeSet<_>>()), (200, expected), "{version}");
        let bodies = crm.bodies();
        assert!(bodies.iter().all(|body| body["recovered"] == true && body["verification"] == "api"), "{version}");
        assert!(bodies.iter().all(|body| body["task"]["complete"] == true && body["may_repeat"] == false), "{version}");
        let failed = bodies.iter().find(|body| body["type"] == "task_failed").expect("one that failed");
        assert_eq!((&failed["task"]["state"], &failed["task"]["stop_reason"]), (&json!("failed"), &json!("error")), "{version}");
        // And never again: not in the next rounds, and not when all of them are compared.
        let lists = calls(&harness, "listMessages");
        for _ in 0..3 {
            harness.advance(INTERVAL).await;
        }
        assert_eq!(calls(&harness, "listMessages"), lists, "{version}: what was looked at is not looked at again");
        harness.advance(Duration::from_hours(1)).await;
        harness.restart().await;
        harness.drain().await;
        assert_eq!(crm.recorded().len(), 200, "{version}");
    }
}

#[tokio::test]
async fn a_first_start_leaves_alone_what_stopped_before() {
    let crm = Recorder::start().await;
    let mut harness = setup(&crm, "").reconciling().prepare().await;
    harness.manus.set_faults(dropping());
    let tasks: Vec<_> = (0..3000).map(|_| harness.manus.create_task(KEY, Plan::finish("Long ago."))).collect();
    harness.manus.finish_all().await;
    harness.clock.advance(jiff::SignedDuration::from_hours(1));
    harness.start().await;
    for _ in 0..3 {
        harness.drain().await;
        harness.advance(INTERVAL).await;
    }
    harness.advance(Duration::from_hours(1)).await;
    assert_eq!((crm.recorded().len(), calls(&harness, "listMessages")), (0, 0));
    // They are shown as the list told them, the newest first; and each page was one call, at the start and an hour later.
    let (mut shown, mut at) = (Vec::new(), String::new());
    loop {
        let page = harness.admin(&format!("/api/v1/tasks?limit=500{at}")).await;
        shown.extend(page["data"].as_array().expect("rows").clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        at = format!("&cursor={next}");
    }
    let ids: Vec<_> = shown.iter().rev().map(|row| row["task_id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids, tasks);
    let alike =
        |row: &Value| (&row["state"], &row["proof"], &row["title"]) == (&json!("finished"), &json!("listed"), &json!("A task"));
    assert!(shown.iter().all(alike), "{}", shown[0]);
    assert!(calls(&harness, "task.list?") <= 2 * 30 + 4, "{}", calls(&harness, "task.list?"));
    assert_eq!(harness.list("events").await.len(), 0);
    // One of them goes on: what is new of it is found, and nothing else.
    say(&harness, &tasks[2990], "And now?").await;
    harness.manus.finish_all().await;
    harness.advance(INTERVAL).await;
    harness.advance(INTERVAL).await;
    let found = told(&crm);
    assert_eq!(found, [(tasks[2990].clone(), "task_stopped".into(), "finish".into(), "Done: And now?".into())]);
    // Of one that is not among the newest, the hourly comparison finds it.
    say(&harness, &tasks[5], "And now?").await;
    harness.manus.finish_all().await;
    harness.advance(Duration::from_hours(1)).await;
    harness.advance(INTERVAL).await;
    assert_eq!(told(&crm).iter().map(|(task, ..)| task).collect::<Vec<_>>(), [&tasks[2990], &tasks[5]]);
}

#[tokio::test]
async fn backfill_says_how_old_a_stop_may_be_at_the_first_start() {
    let crm = Recorder::start().await;
    let config = "[sources.manus.reconcile]\nbackfill = \"30m\"\n";
    let mut harness = setup(&crm, "").config(config).reconciling().prepare().await;
    harness.manus.set_faults(dropping());
    let _ = harness.manus.create_task(KEY, Plan::finish("An hour ago."));
    harness.manus.finish_all().await;
    harness.clock.advance(jiff::SignedDuration::from_mins(50));
    let _ = harness.manus.create_task(KEY, Plan::finish("Ten minutes ago."));
    harness.manus.finish_all().await;
    harness.clock.advance(jiff::SignedDuration::from_mins(10));
    harness.start().await;
    harness.drain().await;
    assert_eq!(told(&crm).into_iter().map(|(.., text)| text).collect::<Vec<_>>(), ["Ten minutes ago."]);
}

#[tokio::test]
async fn a_stop_is_left_to_its_webhook_for_a_while() {
    let crm = Recorder::start().await;
    let mut harness = deaf(&crm, "").await;
    harness.advance(Duration::from_secs(89)).await;
    let _ = harness.manus.create_task(KEY, Plan::finish("Just now."));
    harness.manus.finish_all().await;
    // A round comes half a minute later: that is within the grace.
    harness.advance(Duration::from_secs(30)).await;
    assert_eq!((crm.recorded().len(), calls(&harness, "listMessages")), (0, 0));
    harness.advance(INTERVAL).await;
    assert_eq!(crm.recorded().len(), 1);
}

#[tokio::test]
async fn a_webhook_that_comes_late_after_all_is_the_same_stop_only_if_it_says_the_same() {
    let crm = Recorder::start().await;
    let mut harness = deaf(&crm, "").await;
    let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
    harness.manus.finish_all().await;
    harness.advance(INTERVAL).await;
    assert_eq!(crm.recorded().len(), 1);
    harness.manus.set_faults(Faults::default());
    let mut late = stopped("late", &task);
    late["task_detail"]["message"] = json!("The answer.");
    let late = harness.accept(&late).await;
    harness.drain().await;
    harness.advance(INTERVAL).await;
    assert_eq!((crm.recorded().len(), &harness.event(&late).await["state"]), (1, &json!("done")));
    // What says something else may be another stop, or the same: it is handed on, and says so.
    harness.accept(&stopped("later", &task)).await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 1);
    harness.advance(INTERVAL).await;
    let body = crm.bodies().pop().expect("a delivery");
    assert_eq!(
        (&body["may_repeat"], &body["recovered"], &body["task"]["complete"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert_eq!(crm.recorded().len(), 2);
}

#[tokio::test]
async fn a_stop_that_is_not_shown_yet_is_waited_for() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
    harness.manus.step(&task).await;
    harness.drain().await;
    crm.take();
    // Its webhook is there before the API shows anything.
    let mut early = stopped("early", &task);
    early["task_detail"]["message"] = json!("The answer.");
    harness.accept(&early).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(20)).await;
    assert_eq!(crm.recorded().len(), 0);
    harness.manus.set_faults(dropping());
    harness.manus.finish_all().await;
    harness.advance(Duration::from_secs(20)).await;
    let body = crm.bodies().pop().expect("a delivery");
    assert_eq!((&body["task"]["state"], &body["task"]["complete"]), (&json!("finished"), &json!(true)));
    // What is never shown goes out as it came.
    let hanging = harness.manus.create_task(KEY, Plan::hang());
    harness.accept(&stopped("alone", &hanging)).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(100)).await;
    assert_eq!(crm.recorded().len(), 1);
    harness.advance(Duration::from_secs(20)).await;
    let body = crm.bodies().pop().expect("a delivery");
    assert_eq!(
        (&body["task"]["complete"], &body["task"]["messages"][0]["text"]),
        (&json!(false), &json!("As the webhook tells it."))
    );
}

#[tokio::test]
async fn a_lost_turn_is_found_and_shown_as_it_was() {
    let crm = Recorder::start().await;
    let mut harness = deaf(&crm, "").await;
    let plan = Plan::new([Turn::finish("Done."), Turn::finish("Done."), Turn::finish("Done.")]);
    let task = harness.manus.create_task(KEY, plan);
    harness.manus.finish_all().await;
    for _ in 0..2 {
        harness.clock.advance(jiff::SignedDuration::from_secs(1));
        say(&harness, &task, "Again.").await;
        harness.manus.set_faults(Faults::default());
        harness.manus.finish_all().await;
    }
    harness.drain().await;
    // Two webhooks came, of three turns that say the same: each has the turn of its time.
    let lengths = |crm: &Recorder| -> Vec<usize> {
        let stops = crm.bodies().into_iter().filter(|body| body["type"] == "task_stopped");
        stops.map(|body| body["task"]["messages"].as_array().expect("messages").len()).collect()
    };
    assert_eq!(lengths(&crm).len(), 2);
    harness.advance(INTERVAL).await;
    let mut all = lengths(&crm);
    all.sort_unstable();
    assert_eq!(all, [2, 4, 6], "each turn once");
}

#[tokio::test]
async fn a_provider_that_says_no_is_asked_again_in_the_next_round() {
    let silence = ApiFault { only: None, times: Times::Always, slow_ms: 3_600_000, answer: None };
    let wrong = [
        every_call(refuse(429)),
        every_call(refuse(401)),
        every_call(refuse(503)),
        every_call(WrongAnswer::Html),
        every_call(WrongAnswer::Half),
        every_call(WrongAnswer::Lost),
        Faults { api: vec![silence], ..Faults::default() },
    ];
    for faults in wrong {
        let crm = Recorder::start().await;
        let mut harness = deaf(&crm, "").await;
        let _ = harness.manus.create_task(KEY, Plan::finish("The answer."));
        harness.manus.finish_all().await;
        harness.manus.set_faults(Faults { drop: Times::Always, ..faults.clone() });
        crate::work::pass(&mut harness, 30, Duration::from_secs(10), |_| ()).await;
        assert_eq!(crm.recorded().len(), 0, "{faults:?}");
        harness.manus.set_faults(dropping());
        crate::work::pass(&mut harness, 30, Duration::from_secs(10), |_| ()).await;
        assert_eq!(crm.recorded().len(), 1, "{faults:?}");
    }
}

#[tokio::test]
async fn a_task_that_is_in_no_list_is_asked_for_by_itself() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").reconciling()).await;
    let plan = Plan { hidden: true, ..Plan::finish("Hidden.") };
    let task = harness.manus.create_task(KEY, plan);
    // That it was made is heard, and that it ended is not.
    harness.manus.step(&task).await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 1);
    harness.manus.set_faults(dropping());
    harness.advance(Duration::from_secs(1)).await;
    harness.manus.finish_all().await;
    harness.advance(INTERVAL).await;
    harness.advance(INTERVAL).await;
    assert_eq!(told(&crm), [(task, "task_stopped".into(), "finish".into(), "Hidden.".into())]);
    let calls_before = calls(&harness, "listMessages");
    harness.advance(Duration::from_hours(1)).await;
    assert_eq!(calls(&harness, "listMessages"), calls_before, "it has ended");
}

#[tokio::test]
async fn what_went_out_without_its_stop_is_not_recovered_if_it_said_the_same() {
    for (message, deliveries) in [("The answer.", 1), ("Something else.", 2)] {
        let crm = Recorder::start().await;
        let mut harness = deaf(&crm, "").await;
        let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
        harness.manus.finish_all().await;
        // The list proves it ours; then the provider falls ill, until nobody waits for it any more.
        harness.manus.set_faults(Faults { api: vec![ApiFault::on("task.detail", Times::Always, refuse(503))], ..dropping() });
        let mut webhook = stopped("e1", &task);
        webhook["task_detail"]["message"] = json!(message);
        harness.accept(&webhook).await;
        crate::work::pass(&mut harness, 20, Duration::from_secs(10), |_| ()).await;
        let bodies = crm.bodies();
        assert_eq!((bodies.len(), &bodies[0]["task"]["complete"]), (1, &json!(false)), "{message}");
        harness.manus.set_faults(dropping());
        for _ in 0..3 {
            harness.advance(INTERVAL).await;
        }
        assert_eq!(crm.recorded().len(), deliveries, "{message}");
        let last = crm.bodies().pop().expect("a delivery");
        assert_eq!((last["recovered"] == true, last["may_repeat"] == true), (deliveries == 2, deliveries == 2), "{message}");
    }
}

#[tokio::test]
async fn a_webhook_of_an_earlier_turn_tells_of_no_later_one() {
    let crm = Recorder::start().await;
    let mut harness = deaf(&crm, "").await;
    let task = harness.manus.create_task(KEY, Plan::new([Turn::finish("Done."), Turn::finish("Done.")]));
    harness.manus.set_faults(Faults::default());
    harness.manus.step(&task).await;
    harness.drain().await;
    crm.take();
    // The provider is ill, so the first turn goes out without its stop; and for so long that the stop is past the horizon afterwards.
    let ill = Faults { drop: Times::Always, ..every_call(refuse(503)) };
    harness.manus.set_faults(ill);
    harness.manus.finish_all().await;
    let mut webhook = stopped("e1", &task);
    webhook["task_detail"]["message"] = json!("Done.");
    harness.accept(&webhook).await;
    crate::work::pass(&mut harness, 20, Duration::from_secs(10), |_| ()).await;
    assert_eq!(crm.recorded().len(), 1);
    harness.advance(Duration::from_hours(24 * 7)).await;
    harness.manus.set_faults(dropping());
    say(&harness, &task, "Again.").await;
    harness.manus.finish_all().await;
    for _ in 0..3 {
        harness.advance(INTERVAL).await;
    }
    assert_eq!(told(&crm).len(), 2, "the second turn is found, though an unmatched webhook says the same");
    let last = crm.bodies().pop().expect("a delivery");
    assert_eq!((&last["recovered"], &last["may_repeat"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn an_erased_task_is_not_found_again() {
    let crm = Recorder::start().await;
    let mut harness = deaf(&crm, "").await;
    let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
    harness.manus.finish_all().await;
    harness.advance(INTERVAL).await;
    assert_eq!(crm.recorded().len(), 1);
    let erased = harness.admin_post(&format!("/api/v1/tasks/manus/{task}/erase"), &json!({"dry_run": false})).await;
    assert_eq!(crate::harness::json(&erased)["erased"], true);
    harness.advance(Duration::from_hours(1)).await;
    harness.advance(INTERVAL).await;
    assert_eq!(crm.recorded().len(), 1);
}

#[tokio::test]
async fn a_crash_anywhere_changes_nothing() {
    // Dies after so many turns of the runtime, from the round that finds the stop to the delivery.
    for turns in (0..400).step_by(8) {
        let crm = Recorder::start().await;
        let mut harness = deaf(&crm, "").await;
        let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
        harness.manus.finish_all().await;
        harness.clock.advance(jiff::SignedDuration::try_from(INTERVAL).expect("short"));
        harness
            .work_until(async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        harness.crash();
        harness.start().await;
        harness.drain().await;
        harness.advance(INTERVAL).await;
        harness.advance(INTERVAL).await;
        let ids: BTreeSet<_> = crm.recorded().iter().map(|sent| sent.header("webhook-id").to_owned()).collect();
        assert_eq!((ids.len(), told(&crm)[0].0.as_str()), (1, task.as_str()), "after {turns} turns");
    }
}

#[tokio::test]
async fn what_is_shown_is_no_older_than_the_horizon_and_not_what_was_erased() {
    let crm = Recorder::start().await;
    let mut harness = setup(&crm, "").reconciling().prepare().await;
    harness.manus.set_faults(dropping());
    let _ = harness.manus.create_task(KEY, Plan::finish("Too long ago."));
    harness.manus.finish_all().await;
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 6));
    let (kept, erased) = (harness.manus.create_task(KEY, Plan::finish("A.")), harness.manus.create_task(KEY, Plan::finish("B.")));
    harness.manus.finish_all().await;
    harness.clock.advance(jiff::SignedDuration::from_hours(25));
    harness.start().await;
    harness.drain().await;
    let ids = async |harness: &Harness| -> Vec<String> {
        harness.list("tasks").await.iter().map(|row| row["task_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&harness).await, [erased.clone(), kept.clone()]);
    let gone = harness.admin_post(&format!("/api/v1/tasks/manus/{erased}/erase"), &json!({"dry_run": false})).await;
    assert_eq!(crate::harness::json(&gone)["erased"], true);
    harness.advance(Duration::from_hours(2)).await;
    harness.advance(INTERVAL).await;
    assert_eq!((ids(&harness).await, crm.recorded().len()), (vec![kept], 0));
}

/// Why the webhooks of the source are no good, as `/readyz` tells it.
async fn registration(harness: &Harness) -> Option<String> {
    let answer = crate::harness::send(harness.admin_request(reqwest::Method::GET, "/readyz")).await;
    assert_eq!(crate::harness::status(&answer), 200, "it takes nothing out of a load balancer");
    let ready = crate::harness::json(&answer);
    let reasons = ready["reasons"].as_array().cloned().unwrap_or_default();
    let ours = reasons.into_iter().find(|reason| reason["part"] == "source manus webhooks")?;
    Some(ours["reason"].as_str().expect("a reason").to_owned())
}

#[tokio::test]
async fn a_registration_that_does_not_lead_here_is_told_with_what_to_run() {
    let crm = Recorder::start().await;
    let config = "[sources.manus]\npath_token = \"t0ken\"\n";
    let mut harness = setup(&crm, "").config(config).reconciling().start().await;
    harness.drain().await;
    assert_eq!(registration(&harness).await, None, "whoever starts may be about to register");
    harness.advance(INTERVAL).await;
    let missing = registration(&harness).await.expect("none is registered");
    assert!(missing.contains("run `taskhook webhooks register --source manus`") && !missing.contains("t0ken"), "{missing}");
    // As long as something is wrong, each round looks again.
    let id = harness.manus.register(KEY, "https://old.example.com/webhooks/manus/0ther");
    harness.advance(INTERVAL).await;
    let other = registration(&harness).await.expect("another one is");
    assert!(other.contains("https://old.example.com/webhooks/manus/[redacted]") && !other.contains("0ther"), "{other}");
    assert!(other.contains(&format!("taskhook webhooks delete --source manus {id}")), "{other}");
    harness.manus.register(KEY, &harness.url("/webhooks/manus/t0ken"));
    harness.advance(INTERVAL).await;
    assert_eq!(registration(&harness).await, None);
    // Else it is compared once an hour.
    let asked = calls(&harness, "webhook.list");
    let second = harness.manus.register(KEY, &harness.url("/webhooks/manus/t0ken"));
    harness.advance(Duration::from_mins(30)).await;
    assert_eq!((registration(&harness).await, calls(&harness, "webhook.list")), (None, asked));
    harness.advance(Duration::from_mins(31)).await;
    let twice = registration(&harness).await.expect("two are");
    assert!(twice.starts_with("2 webhooks are registered") && twice.contains(&second), "{twice}");
    // What a call that fails says of it is nothing; it is asked again in the next round.
    let ill = Faults { api: vec![ApiFault::on("webhook.list", Times::Always, refuse(503))], ..dropping() };
    harness.manus.set_faults(ill);
    harness.advance(Duration::from_mins(61)).await;
    assert_eq!(registration(&harness).await, Some(twice));
    let asked = calls(&harness, "webhook.list");
    harness.manus.set_faults(dropping());
    harness.advance(INTERVAL).await;
    assert_eq!(calls(&harness, "webhook.list"), asked + 1);
}

#[tokio::test]
async fn a_version_of_the_api_that_does_not_tell_what_is_registered_is_no_problem() {
    let crm = Recorder::start().await;
    let mut harness = setup(&crm, "").config("[sources.manus]\napi_version = \"v1\"\n").reconciling().start().await;
    harness.drain().await;
    assert_eq!(registration(&harness).await, None);
}

#[tokio::test]
async fn a_refused_key_is_told_once_with_what_to_run() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").reconciling()).await;
    harness.drain().await;
    harness.expect_leftover();
    harness.manus.set_faults(Faults { refused_keys: vec![KEY.to_owned()], ..Faults::default() });
    harness.advance(INTERVAL).await;
    let answer = crate::harness::send(harness.admin_request(reqwest::Method::GET, "/readyz")).await;
    let ready = crate::harness::json(&answer);
    let reason = &ready["reasons"][0];
    assert_eq!((&ready["status"], &reason["part"]), (&json!("degraded"), &json!("source manus")));
    let told = "the provider refuses the API key (401): correct `sources.manus.api_key`, then run `taskhook check`";
    assert_eq!(reason["reason"], told);
    // Whichever call meets it, the reason stays the same, so that nothing is news.
    harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    let again = crate::harness::json(&crate::harness::send(harness.admin_request(reqwest::Method::GET, "/readyz")).await);
    assert_eq!(again["reasons"], ready["reasons"]);
    harness.manus.set_faults(Faults::default());
    harness.advance(INTERVAL).await;
    assert_eq!(
        crate::harness::json(&crate::harness::send(harness.admin_request(reqwest::Method::GET, "/readyz")).await)["status"],
        "ready"
    );
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_with_what_to_do() {
    let crm = Recorder::start().await;
    let mut harness = setup(&crm, "").reconciling().start().await;
    harness.manus.set_faults(Faults { date_offset_seconds: 304, ..Faults::default() });
    harness.app().keys.load("manus").await.expect("a key");
    let answer = crate::harness::send(harness.admin_request(reqwest::Method::GET, "/readyz")).await;
    let reasons = crate::harness::json(&answer)["reasons"].clone();
    let reason = reasons.as_array().expect("reasons").iter().find(|reason| reason["part"] == "source manus keys").expect("told");
    assert!(reason["reason"].as_str().expect("text").contains("about 300 s off the provider's; set it"), "{reason}");
    harness.manus.set_faults(Faults::default());
    harness.app().keys.load("manus").await.expect("a key");
    harness.manus.register(KEY, &harness.url("/webhooks/manus"));
    harness.drain().await;
    let answer = crate::harness::send(harness.admin_request(reqwest::Method::GET, "/readyz")).await;
    assert_eq!(crate::harness::json(&answer)["status"], "ready");
}

/// One history: tasks of several turns that say the same, whose webhooks are lost, doubled, late and out of order at random, while the
/// provider's API lags behind, and its signing key changes.
async fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").reconciling()).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    let mut turns: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..6 {
        let count = random.usize(1..4);
        let plan = Plan::new((0..count).map(|_| Turn::finish("Done.")));
        turns.insert(harness.manus.create_task(KEY, plan), count);
    }
    for turn in 0..4 {
        for (task, count) in &turns {
            if turn >= *count {
                continue;
            }
            let mut some = |chance: u32| Times::Next(u32::from(random.u32(0..100) < chance));
            let (drop, duplicate, reorder) = (some(40), some(30), some(30));
            let lag_seconds = if random.u32(0..100) < 40 { random.u64(1..90) } else { 0 };
            harness.manus.set_faults(Faults { drop, duplicate, reorder, lag_seconds, ..Faults::default() });
            if random.u32(0..100) < 10 {
                harness.manus.rotate_key();
            }
            if turn > 0 {
                say(&harness, task, "Again.").await;
            }
            while harness.manus.step(task).await.is_some() {}
        }
        harness.manus.finish_all().await;
        if random.bool() {
            harness.drain().await;
        }
        harness.advance(Duration::from_secs(random.u64(1..300))).await;
    }
    harness.manus.set_faults(Faults::default());
    for _ in 0..4 {
        harness.advance(INTERVAL).await;
    }
    let told = |task: &str, marked: bool| {
        let of_it =
            |body: &&Value| body["type"] == "task_stopped" && body["event"]["task_id"] == task && body["may_repeat"] == marked;
        let bodies = crm.bodies();
        let mut turns: Vec<usize> =
            bodies.iter().filter(of_it).map(|body| body["task"]["messages"].as_array().expect("messages").len()).collect();
        turns.sort_unstable();
        turns
    };
    for (task, count) in &turns {
        let (came, marked) = (told(task, false), told(task, true));
        let mut once = came.clone();
        once.dedup();
        assert_eq!(came, once, "seed {seed}: no turn of {task} twice");
        let expected: BTreeSet<usize> = (1..=*count).map(|turn| 2 * turn).collect();
        let unmarked: BTreeSet<usize> = came.iter().copied().collect();
        assert!(unmarked.is_subset(&expected), "seed {seed}: the turns of {task} as they were: {came:?}");
        let missing: Vec<usize> = expected.difference(&unmarked).copied().collect();
        assert!(missing.iter().all(|turn| marked.contains(turn)), "seed {seed}: {task}: {came:?}, and marked: {marked:?}");
    }
}

#[tokio::test]
async fn whatever_becomes_of_webhooks_each_turn_is_handed_on_once() {
    for seed in 0..25 {
        history(seed).await;
    }
}
