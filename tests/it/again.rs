//! What a person does about what went wrong: sends dead letters again or discards them, replays events, pauses destinations.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorder, Reply, Setup, code, json, status};
use crate::work::{OTHER, calls, run, setup, start, stopped, types};

/// Says no until an hour has passed.
fn in_an_hour() -> Reply {
    Reply::With(503, vec![("retry-after", "3600".to_owned())])
}

/// A program that believes anyone and asks nobody: events are `done` as soon as they are handed on.
async fn plain(crm: &Recorder, keys: &str) -> Harness {
    let open = "[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n";
    Setup::new().config(open).config(&crm.section("crm", keys)).config("[[routes]]\nto = [\"crm\"]\n").start().await
}

/// A stop of a task of its own, worked on; our id of it.
async fn handed_on(harness: &mut Harness, name: &str) -> String {
    let id = harness.accept(&stopped(name, &format!("task-{name}"))).await;
    harness.drain().await;
    id
}

/// A POST to the admin API that must be done.
async fn done(harness: &Harness, path: &str, body: Value) -> Value {
    let answer = harness.admin_post(&format!("/api/v1/{path}"), &body).await;
    assert_eq!(status(&answer), 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    json(&answer)
}

/// One that must be refused: with which status and code.
async fn refused(harness: &Harness, path: &str, body: Value) -> (u16, String) {
    let answer = harness.admin_post(&format!("/api/v1/{path}"), &body).await;
    let title = json(&answer)["title"].as_str().unwrap_or_default().to_owned();
    assert!(title.len() > 15, "a refusal says why: {title}");
    (status(&answer), code(&answer))
}

/// The id of the only delivery in `state`.
async fn only(harness: &Harness, state: &str) -> String {
    let rows = harness.list(&format!("deliveries?state={state}")).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]["id"].as_str().expect("an id").to_owned()
}

fn outcomes(delivery: &Value) -> Vec<(u64, String)> {
    let attempts = delivery["attempts"].as_array().expect("attempts");
    let told = |attempt: &Value| {
        (attempt["attempt"].as_u64().expect("a number"), attempt["outcome"].as_str().expect("an outcome").to_owned())
    };
    attempts.iter().map(told).collect()
}

#[tokio::test]
async fn what_was_down_for_longer_than_its_ladder_is_sent_again_by_one_call() {
    let crm = Recorder::start().await;
    let mut harness = plain(&crm, "ladder = [\"1s\"]\nconcurrency = 64").await;
    crm.answer(Reply::Status(503));
    // More than one step, and more than one call asks for.
    for number in 0..70 {
        harness.accept(&stopped(&format!("e{number}"), &format!("t{number}"))).await;
    }
    harness.drain().await;
    while !harness.list("deliveries?state=pending").await.is_empty() {
        harness.advance(Duration::from_mins(5)).await;
    }
    let dead = harness.list("deliveries?state=dead&limit=100").await;
    assert_eq!(dead.len(), 70);
    for row in &dead {
        assert_eq!(row["reason"], "given up after 2 attempts, the last: 503 Service Unavailable");
        assert_eq!(outcomes(row), [(1, "failed".into()), (2, "failed".into())]);
    }
    crm.answer(Reply::Status(200));
    harness.advance(Duration::from_mins(10)).await;
    let before = crm.take();
    let wish = |dry_run: bool, limit: usize, cursor: Value| json!({"filter": {"destination": "crm"}, "dry_run": dry_run, "limit": limit, "cursor": cursor});
    let counted = done(&harness, "deliveries/retry", wish(true, 1000, Value::Null)).await;
    assert_eq!(counted, json!({"dry_run": true, "matched": 70, "done": 0, "next_cursor": null}));
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 0, "counting sends nothing");
    let first = done(&harness, "deliveries/retry", wish(false, 60, Value::Null)).await;
    assert_eq!((&first["matched"], &first["done"]), (&json!(60), &json!(60)));
    let rest = done(&harness, "deliveries/retry", wish(false, 60, first["next_cursor"].clone())).await;
    assert_eq!((&rest["done"], &rest["next_cursor"]), (&json!(10), &Value::Null));
    harness.drain().await;
    // The breaker lets one through first; it closes with that.
    harness.advance(Duration::from_mins(5)).await;
    let ids = |sent: &[crate::harness::Recorded]| {
        sent.iter().map(|one| one.header("webhook-id").to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let after = crm.recorded();
    assert_eq!((after.len(), ids(&after)), (70, ids(&before)));
    assert_eq!(harness.admin("/api/v1/stats").await["dead"], 0);
    let row = harness.list("deliveries?limit=1").await.remove(0);
    assert_eq!(outcomes(&row)[2], (3, "delivered".into()));
}

#[tokio::test]
async fn a_retry_sends_the_same_and_begins_the_ladder_anew() {
    let crm = Recorder::start().await;
    let mut harness = plain(&crm, "ladder = [\"1s\", \"1s\"]").await;
    crm.answer_next([Reply::Status(400), Reply::Status(500), Reply::Status(500), Reply::Status(500)]);
    handed_on(&mut harness, "a").await;
    let id = only(&harness, "dead").await;
    assert_eq!(
        done(&harness, &format!("deliveries/{id}/retry"), Value::Null).await,
        json!({"id": id, "state": "pending", "waits_behind": null})
    );
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    harness.advance(Duration::from_secs(1)).await;
    let row = harness.admin(&format!("/api/v1/deliveries/{id}")).await;
    assert_eq!((row["state"].as_str(), outcomes(&row).len()), (Some("dead"), 4));
    // By the beginning of its id.
    done(&harness, &format!("deliveries/{}/retry", &id[..13]), Value::Null).await;
    harness.drain().await;
    let sent = crm.recorded();
    assert!(sent.iter().all(|one| one.header("webhook-id") == id && one.body == sent[0].body));
    assert_eq!((sent.len(), sent[0].json()["replayed"].as_bool()), (5, Some(false)));
    let row = harness.admin(&format!("/api/v1/deliveries/{id}")).await;
    assert_eq!((row["state"].as_str(), row["reason"].as_str(), outcomes(&row)[4].0), (Some("delivered"), None, 5));
}

#[tokio::test]
async fn what_backs_off_goes_at_once_when_a_person_says_so() {
    let crm = Recorder::start().await;
    let mut harness = plain(&crm, "").await;
    crm.answer_next([in_an_hour()]);
    handed_on(&mut harness, "a").await;
    let id = only(&harness, "pending").await;
    for _ in 0..3 {
        done(&harness, &format!("deliveries/{id}/retry"), Value::Null).await;
    }
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 2, "asked for thrice, sent once");
    harness.advance(Duration::from_hours(2)).await;
    assert_eq!(crm.recorded().len(), 2, "the automatic attempt is gone with it");
}

#[tokio::test]
async fn a_wish_that_cannot_be_is_refused_with_a_code() {
    let crm = Recorder::start().await;
    let mut harness = plain(&crm, "").await;
    handed_on(&mut harness, "a").await;
    let delivered = only(&harness, "delivered").await;
    crm.answer_next([Reply::Status(400)]);
    handed_on(&mut harness, "b").await;
    let dead = only(&harness, "dead").await;
    done(&harness, &format!("deliveries/{dead}/discard"), Value::Null).await;
    crm.answer(Reply::Never);
    harness.accept(&stopped("c", "task-c")).await;
    harness.work_until(crm.received(3)).await;
    let sent = only(&harness, "pending").await;
    let nobody = "019a9936-de14-7c3a-9d52-0f6c1e8b4a77";
    for (path, body, expected) in [
        (format!("deliveries/{sent}/retry"), Value::Null, (409, "in_flight")),
        (format!("deliveries/{sent}/discard"), Value::Null, (409, "in_flight")),
        (format!("deliveries/{delivered}/retry"), Value::Null, (409, "not_retryable")),
        (format!("deliveries/{dead}/retry"), Value::Null, (409, "not_retryable")),
        (format!("deliveries/{delivered}/discard"), Value::Null, (409, "not_discardable")),
        (format!("deliveries/{nobody}/retry"), Value::Null, (404, "not_found")),
        (format!("deliveries/{nobody}/discard"), Value::Null, (404, "not_found")),
        (format!("events/{nobody}/replay"), Value::Null, (404, "not_found")),
        ("deliveries/retry".into(), json!({"filter": {}}), (400, "filter_missing")),
        ("events/replay".into(), json!({"filter": {}, "dry_run": true}), (400, "filter_missing")),
        ("events/replay".into(), json!({"filter": {"destination": "crm"}}), (400, "body_invalid")),
        ("events/replay".into(), json!({"filter": {"state": "quarantined"}}), (400, "filter_invalid")),
        ("deliveries/discard".into(), json!({"filter": {"state": "delivered"}}), (400, "filter_invalid")),
        ("deliveries/retry".into(), json!({"filter": {"since": "yesterday"}}), (400, "body_invalid")),
        ("deliveries/retry".into(), json!({"filter": {"state": "dead"}, "limit": 0}), (400, "body_invalid")),
        ("deliveries/retry".into(), json!({"filter": {"state": "dead"}, "cursor": "x"}), (400, "body_invalid")),
        ("deliveries/retry".into(), json!({}), (400, "body_invalid")),
        ("destinations/nobody/pause".into(), Value::Null, (404, "destination_unknown")),
        ("destinations/nobody/resume".into(), Value::Null, (404, "destination_unknown")),
    ] {
        assert_eq!(refused(&harness, &path, body).await, (expected.0, expected.1.to_owned()), "{path}");
    }
    harness.expect_leftover();
}

#[tokio::test]
async fn a_person_sends_what_is_held() {
    let crm = Recorder::start().await;
    let mut harness = plain(&crm, "on_unknown = \"hold\"").await;
    crm.answer_next([Reply::Cut, Reply::Status(503), Reply::Cut]);
    handed_on(&mut harness, "a").await;
    let id = only(&harness, "dead").await;
    done(&harness, &format!("deliveries/{id}/retry"), Value::Null).await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 2);
    // A plain no is no reason to hold it: it goes on by itself, until an answer is lost again.
    harness.advance(Duration::from_secs(1)).await;
    let row = harness.admin(&format!("/api/v1/deliveries/{id}")).await;
    assert_eq!(outcomes(&row), [(1, "unknown".into()), (2, "failed".into()), (3, "unknown".into())]);
    assert!(row["reason"].as_str().expect("a reason").starts_with("held: "), "{row}");
    done(&harness, &format!("deliveries/{id}/retry"), Value::Null).await;
    harness.drain().await;
    assert_eq!((crm.recorded().len(), only(&harness, "delivered").await), (4, id));
}

#[tokio::test]
async fn a_dead_letter_goes_before_what_is_behind_it_and_not_beside_what_is_being_sent() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "timeout = \"2s\"")).await;
    crm.answer_next([Reply::Status(400), Reply::Never]);
    let task = harness.manus.create_task(KEY, Plan::ask("Which one?").with_progress(["One"]));
    run(&harness, &task).await;
    harness.work_until(crm.received(2)).await;
    let created = only(&harness, "dead").await;
    let answer = done(&harness, &format!("deliveries/{created}/retry"), Value::Null).await;
    let pending = harness.list("deliveries?state=pending").await;
    assert!(pending.iter().any(|row| row["id"] == answer["waits_behind"] && row["type"] == "task_progress"), "{answer}");
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(types(&crm), ["task_created", "task_progress", "task_created", "task_progress", "task_stopped"]);
    assert!(crm.bodies().iter().all(|body| body["out_of_order"] == false));
}

#[tokio::test]
async fn a_discarded_delivery_frees_its_lane_and_is_shown() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    crm.answer_next([in_an_hour()]);
    let task = harness.manus.create_task(KEY, Plan::finish("Done.").with_progress(["One"]));
    run(&harness, &task).await;
    harness.drain().await;
    let head = harness.list("deliveries?state=pending&type=task_created").await.remove(0);
    let id = head["id"].as_str().expect("an id");
    assert_eq!(done(&harness, &format!("deliveries/{id}/discard"), Value::Null).await, json!({"id": id, "state": "discarded"}));
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_progress", "task_stopped"]);
    assert!(crm.bodies().iter().all(|body| body["out_of_order"] == false));
    assert_eq!(only(&harness, "discarded").await, id);
}

#[tokio::test]
async fn a_replay_goes_by_the_routes_of_now_as_new_deliveries_and_asks_the_provider_nothing() {
    let (crm, other) = (Recorder::start().await, Recorder::start().await);
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
    run(&harness, &task).await;
    harness.drain().await;
    let asked = calls(&harness, "task.");
    let event = harness.list("events?type=task_stopped").await[0]["id"].as_str().expect("an id").to_owned();
    let first = harness.list("deliveries?type=task_stopped").await.remove(0);
    assert_eq!((&first["replay"], &first["replay_of"]), (&json!(0), &Value::Null));
    harness.reconfigure(&format!("{}[[routes]]\nname = \"later\"\nto = [\"other\", \"crm\"]\n", other.section("other", "")));
    harness.restart().await;
    crm.take();
    for _ in 0..2 {
        // Twice while it is on its way is once.
        assert_eq!(done(&harness, &format!("events/{event}/replay"), Value::Null).await, json!({"id": event, "replay": 1}));
    }
    harness.drain().await;
    for recorder in [&crm, &other] {
        let sent = recorder.recorded();
        assert_eq!(sent.len(), 1);
        let body = sent[0].json();
        assert_eq!((&body["replayed"], &body["id"], &body["event"]["task_id"]), (&json!(true), &json!(event), &json!(task)));
        assert_eq!((&body["task"]["complete"], &body["task"]["state"]), (&json!(true), &json!("finished")));
        assert_ne!(sent[0].header("webhook-id"), first["id"].as_str().expect("an id"));
    }
    assert_eq!(calls(&harness, "task."), asked, "what is known of the task is enough");
    let again = harness.list("deliveries?type=task_stopped&destination=crm&route=later").await.remove(0);
    assert_eq!((&again["replay"], &again["replay_of"]), (&json!(1), &first["id"]));
    let detail = harness.event(&event).await;
    assert_eq!((&detail["replays"], &detail["state"]), (&json!(1), &json!("done")));
}

#[tokio::test]
async fn nothing_is_replayed_around_the_proof() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").config("[sources.manus]\nquarantine_after = \"1m\"\n")).await;
    let ping = harness.manus.register_with_ping(KEY, &harness.url("/webhooks/manus")).await;
    assert_eq!(ping.status, Some(200));
    // A stranger's, and one of a type that nobody asked for.
    let theirs = harness.manus.create_task(OTHER, Plan::finish("Theirs."));
    run(&harness, &theirs).await;
    let unknown = json!({"event_id": "u", "event_type": "task_party", "task_detail": {"task_id": theirs}});
    let unknown = harness.accept(&unknown).await;
    harness.drain().await;
    let stranger = harness.list("events?type=task_stopped").await.remove(0);
    let stranger = stranger["id"].as_str().expect("an id").to_owned();
    assert_eq!(refused(&harness, &format!("events/{stranger}/replay"), Value::Null).await, (409, "in_work".into()));
    for _ in 0..5 {
        harness.advance(Duration::from_mins(1)).await;
    }
    assert_eq!(refused(&harness, &format!("events/{stranger}/replay"), Value::Null).await, (409, "quarantined".into()));
    let ping = harness.list("events").await.into_iter().find(|row| row["ping"] == true).expect("a ping");
    let ping = ping["id"].as_str().expect("an id");
    assert_eq!(refused(&harness, &format!("events/{ping}/replay"), Value::Null).await, (409, "ping".into()));
    assert_eq!(harness.event(&unknown).await["state"], "kept");
    harness.reconfigure("[[routes]]\nto = [\"crm\"]\nunknown = true\n");
    harness.restart().await;
    done(&harness, &format!("events/{unknown}/replay"), Value::Null).await;
    let all = done(&harness, "events/replay", json!({"filter": {"source": "manus"}})).await;
    assert_eq!(all["matched"], 0, "what is in work, quarantined or a ping is not meant");
    for _ in 0..5 {
        harness.advance(Duration::from_mins(1)).await;
    }
    assert_eq!(harness.event(&unknown).await["state"], "quarantined");
    assert_eq!(crm.recorded().len(), 0);
}

#[tokio::test]
async fn a_dead_event_is_replayed_once_its_route_is_mended() {
    let crm = Recorder::start().await;
    let wrong = "[[routes]]\nwhen = 'event.payload.task_detail.message + 1 > 0'\nto = [\"crm\"]\n";
    let mut harness = Setup::new()
        .config("[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n")
        .config(&crm.section("crm", ""))
        .config(wrong)
        .start()
        .await;
    let id = handed_on(&mut harness, "a").await;
    for _ in 0..2 {
        let event = harness.event(&id).await;
        assert_eq!(event["state"], "dead");
        assert!(event["reason"].as_str().expect("a reason").starts_with("route_error"), "{event}");
        done(&harness, &format!("events/{id}/replay"), Value::Null).await;
        harness.drain().await;
    }
    harness.reconfigure("[[routes]]\nto = [\"crm\"]\n");
    harness.restart().await;
    assert_eq!(done(&harness, "events/replay", json!({"filter": {"state": "dead"}})).await["done"], 1);
    harness.drain().await;
    assert_eq!((harness.event(&id).await["state"].clone(), crm.bodies()[0]["replayed"].clone()), (json!("done"), json!(true)));
}

#[tokio::test]
async fn a_time_says_which_events_were_received_and_which_deliveries_made_then() {
    let crm = Recorder::start().await;
    let mut harness = plain(&crm, "").await;
    for name in ["a", "b", "c"] {
        handed_on(&mut harness, name).await;
        harness.advance(Duration::from_mins(10)).await;
    }
    let filter = json!({"since": "2026-01-15T12:05:00Z", "until": "2026-01-15T13:20:00+01:00"});
    crm.take();
    let many = done(&harness, "events/replay", json!({"filter": filter})).await;
    assert_eq!(many, json!({"dry_run": false, "matched": 1, "done": 1, "next_cursor": null}));
    harness.drain().await;
    assert_eq!(crm.bodies().iter().map(|body| body["event"]["event_id"].clone()).collect::<Vec<_>>(), ["b"]);
    let found = async |query: &str| {
        let rows = harness.list(&format!("deliveries?{query}")).await;
        rows.iter().map(|row| (row["task_id"].clone(), row["replay"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(found("since=2026-01-15T12:25:00Z").await, [(json!("task-b"), json!(1))], "the replay is new");
    let since_b = found("since=2026-01-15T12:05:00Z&until=2026-01-15T12:25:00Z").await;
    assert_eq!(since_b, [(json!("task-c"), json!(0)), (json!("task-b"), json!(0))]);
    let wish = json!({"filter": {"state": "dead", "since": "2026-01-15T12:05:00Z"}, "dry_run": true});
    assert_eq!(done(&harness, "deliveries/retry", wish).await["matched"], 0);
}

#[tokio::test]
async fn a_paused_destination_gets_nothing_until_it_is_resumed_and_then_everything_in_order() {
    let (crm, other) = (Recorder::start().await, Recorder::start().await);
    let routes = "[[routes]]\nto = [\"crm\", \"other\"]\n";
    let mut harness = start(setup(&crm, "").config(&other.section("other", "")).config(routes)).await;
    let paused = done(&harness, "destinations/crm/pause", Value::Null).await;
    assert_eq!((&paused["state"], &paused["paused_at"]), (&json!("paused"), &json!("2026-01-15T12:00:00.000Z")));
    let task = harness.manus.create_task(KEY, Plan::finish("Done.").with_progress(["One"]));
    run(&harness, &task).await;
    harness.drain().await;
    harness.advance(Duration::from_hours(30)).await;
    harness.restart().await;
    harness.drain().await;
    assert_eq!((crm.recorded().len(), other.recorded().len()), (0, 3));
    let ready = harness.admin("/readyz").await;
    assert_eq!((&ready["status"], &ready["reasons"][0]["part"]), (&json!("degraded"), &json!("destination crm (paused)")));
    let listed = harness.list("destinations").await;
    let told: Vec<_> = listed.iter().map(|row| (row["name"].clone(), row["state"].clone(), row["pending"].clone())).collect();
    assert_eq!(
        told,
        [("crm", "paused", 3), ("log", "ok", 0), ("other", "ok", 0)].map(|(name, state, pending)| (
            json!(name),
            json!(state),
            json!(pending)
        ))
    );
    // A person's wish waits as well.
    let head = harness.list("deliveries?destination=crm&type=task_created").await.remove(0);
    done(&harness, &format!("deliveries/{}/retry", head["id"].as_str().expect("an id")), Value::Null).await;
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 0);
    let resumed = done(&harness, "destinations/crm/resume", Value::Null).await;
    assert_eq!(resumed, json!({"name": "crm", "state": "ok", "was_paused": true}));
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_progress", "task_stopped"]);
    assert!(crm.bodies().iter().all(|body| body["out_of_order"] == false), "nothing overtook while nothing could go");
    assert!(harness.list("deliveries").await.iter().all(|row| outcomes(row) == [(1, "delivered".into())]));
    assert_eq!(harness.admin("/readyz").await["status"], "ready");
}
