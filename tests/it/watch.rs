//! What is not as it should be is told once, and once more when it is well again; never to who cannot be reached.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::Times;
use taskhook::simulator::manus::{End, Faults, Plan, Turn};

use crate::harness::{Harness, KEY, Recorder, Reply, status};
use crate::work::{run, say, setup, start, stopped};

/// As long as a round waits for the next one.
const ROUND: Duration = Duration::from_mins(1);

/// A program that watches: everything goes to `crm`, and what is not as it should be to `ops` as well.
async fn watching(crm: &Recorder, ops: &Recorder, config: &str) -> Harness {
    let routes = "[[routes]]\nto = [\"crm\"]\n[[routes]]\nwhen = \"event.type[:6] == 'watch.'\"\nto = [\"ops\"]\n";
    let setup = setup(crm, "").config(&ops.section("ops", "")).config(routes).config(config).watching();
    let mut harness = start(setup).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    harness
}

/// What `to` was told by watches, in the order in which it came: the type and the payload.
fn told(to: &Recorder) -> Vec<(String, Value)> {
    let own = to.bodies().into_iter().filter(|body| body["verification"] == "watch");
    own.map(|body| (body["type"].as_str().expect("a type").to_owned(), body["event"]["payload"].clone())).collect()
}

/// The same: the type without `watch.`, and the state.
fn states(to: &Recorder) -> Vec<String> {
    told(to)
        .into_iter()
        .map(|(kind, payload)| format!("{} {}", kind.trim_start_matches("watch."), payload["state"].as_str().expect("a state")))
        .collect()
}

/// Lets time pass, round by round.
async fn pass(harness: &mut Harness, minutes: u32) {
    for _ in 0..minutes {
        harness.advance(ROUND).await;
    }
}

/// The conditions that hold, as the admin API shows them.
async fn standing(harness: &Harness) -> Vec<Value> {
    harness.list("watches").await
}

fn ask() -> Plan {
    Plan::new([Turn::new(End::Ask { question: "A or B?".to_owned(), options: Vec::new() }), Turn::finish("Done.")])
}

#[tokio::test]
async fn a_task_that_waits_for_an_answer_is_told_once_and_once_more_when_it_goes_on() {
    for version in ["v1", "v2"] {
        let (crm, ops) = (Recorder::start().await, Recorder::start().await);
        let mut harness = watching(&crm, &ops, &format!("[sources.manus]\napi_version = \"{version}\"\n")).await;
        let task = harness.manus.create_task(KEY, ask());
        harness.manus.finish_all().await;
        pass(&mut harness, 28).await;
        assert_eq!(states(&ops), [""; 0], "{version}: not yet");
        pass(&mut harness, 4).await;
        assert_eq!(states(&ops), ["task_waiting raised"], "{version}");
        // It says what is known, and asks nobody.
        let body = ops.bodies().remove(0);
        assert_eq!((&body["task"]["id"], &body["task"]["state"]), (&json!(task), &json!("waiting")), "{version}");
        let flags = ["recovered", "replayed", "may_repeat", "out_of_order"].map(|flag| body[flag] == false);
        assert_eq!(flags, [true; 4], "{version}");
        let payload = &body["event"]["payload"];
        assert_eq!((&payload["task_id"], &payload["count"], &payload["destination"]), (&json!(task), &json!(1), &Value::Null));
        assert_eq!(body["event"]["message"], payload["text"]);
        // Not again: in later rounds, and after a restart.
        pass(&mut harness, 3).await;
        harness.restart().await;
        harness.drain().await;
        pass(&mut harness, 3).await;
        assert_eq!(states(&ops).len(), 1, "{version}");
        let held = standing(&harness).await;
        assert_eq!(
            (held.len(), &held[0]["type"], &held[0]["event"]),
            (1, &json!("watch.task_waiting"), &body["id"]),
            "{version}"
        );
        // It is shown with its task, and where it went.
        let event = harness.event(body["id"].as_str().expect("an id")).await;
        assert_eq!((&event["state"], &event["task_id"], &event["source"]), (&json!("done"), &json!(task), &json!("manus")));
        if version == "v2" {
            say(&harness, &task, "A.").await;
            pass(&mut harness, 3).await;
            assert_eq!(states(&ops), ["task_waiting raised", "task_waiting cleared"], "the list shows it at work");
        }
        harness.manus.finish_all().await;
        pass(&mut harness, 3).await;
        if version == "v2" {
            assert_eq!((states(&ops).len(), standing(&harness).await.len()), (2, 0));
        }
    }
}

#[tokio::test]
async fn a_task_of_which_nothing_is_heard_is_told() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    // One that the list does not show is silent; one that it shows at work is not.
    let hidden = harness.manus.create_task(KEY, Plan { hidden: true, ..Plan::finish("At last.") });
    let busy = harness.manus.create_task(KEY, Plan::hang());
    harness.manus.step(&hidden).await;
    harness.manus.step(&busy).await;
    // That is heard; and an event that is not done with yet is heard as well.
    harness.drain().await;
    pass(&mut harness, 58).await;
    assert_eq!(states(&ops), [""; 0]);
    pass(&mut harness, 4).await;
    let raised: BTreeSet<_> =
        told(&ops).into_iter().map(|(kind, payload)| (kind, payload["task_id"].clone().to_string())).collect();
    assert!(raised.contains(&("watch.task_silent".to_owned(), json!(hidden).to_string())), "{raised:?}");
    let before = states(&ops).len();
    run(&harness, &hidden).await;
    harness.drain().await;
    pass(&mut harness, 2).await;
    assert_eq!(states(&ops)[before..], ["task_silent cleared"]);
    assert_eq!(told(&ops).pop().expect("one").1["task_id"], json!(hidden));
}

#[tokio::test]
async fn what_does_not_arrive_is_told_and_never_to_where_it_does_not_arrive() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    crm.answer(Reply::Status(503));
    let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
    harness.manus.finish_all().await;
    pass(&mut harness, 13).await;
    assert_eq!(states(&ops), [""; 0]);
    pass(&mut harness, 4).await;
    assert_eq!(states(&ops), ["not_delivered raised"]);
    let (_, payload) = told(&ops).remove(0);
    assert_eq!((&payload["destination"], &payload["task_id"]), (&json!("crm"), &json!(task)));
    let delivery = payload["delivery"].as_str().expect("a delivery").to_owned();
    assert_eq!(harness.admin(&format!("/api/v1/deliveries/{delivery}")).await["destination"], "crm");
    // The route of everything leads it to `crm`, where it does not go.
    let own: Vec<_> = harness.list("deliveries").await.into_iter().filter(|row| row["type"] == "watch.not_delivered").collect();
    assert_eq!((own.len(), &own[0]["destination"]), (1, &json!("ops")));
    crm.answer(Reply::Status(200));
    pass(&mut harness, 40).await;
    assert_eq!(states(&ops), ["not_delivered raised", "not_delivered cleared"]);
    assert_eq!(states(&crm), [""; 0]);
    assert!(standing(&harness).await.is_empty());
}

#[tokio::test]
async fn a_dead_letter_is_told_once_and_makes_no_other() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    crm.answer_next([Reply::Status(422)]);
    let _ = harness.manus.create_task(KEY, Plan::hang());
    let task = harness.manus.create_task(KEY, Plan::finish("The answer."));
    harness.manus.step(&task).await;
    harness.drain().await;
    // The watch event about it is refused itself.
    ops.answer_next([Reply::Status(410)]);
    pass(&mut harness, 5).await;
    assert_eq!(states(&ops), ["dead_letter raised"]);
    let (_, payload) = told(&ops).remove(0);
    assert_eq!((&payload["destination"], &payload["state"]), (&json!("crm"), &json!("raised")));
    assert!(payload["reason"].as_str().expect("a reason").contains("422"), "{payload}");
    assert_eq!(states(&crm), [""; 0], "never to who refused it");
    let dead: Vec<_> = harness.list("deliveries?state=dead").await;
    assert_eq!(dead.len(), 2);
    assert_eq!(standing(&harness).await.len(), 1, "the dead letter of a watch event is none to watch");
    // It is well when it is tried again, and told anew if it fails again.
    let delivery = payload["delivery"].as_str().expect("a delivery");
    crm.answer_next([Reply::Status(422)]);
    assert_eq!(status(&harness.admin_post(&format!("/api/v1/deliveries/{delivery}/retry"), &json!({})).await), 200);
    harness.drain().await;
    pass(&mut harness, 2).await;
    assert_eq!(states(&ops).len(), 1, "between two rounds it was dead again");
    assert_eq!(status(&harness.admin_post(&format!("/api/v1/deliveries/{delivery}/discard"), &json!({})).await), 200);
    pass(&mut harness, 2).await;
    assert_eq!(states(&ops), ["dead_letter raised", "dead_letter cleared"]);
}

#[tokio::test]
async fn what_would_only_go_to_who_failed_goes_nowhere() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").watching()).await;
    harness.drain().await;
    crm.answer_next([Reply::Status(422)]);
    let task = harness.manus.create_task(KEY, Plan::hang());
    harness.manus.step(&task).await;
    harness.drain().await;
    pass(&mut harness, 3).await;
    let events = harness.list("events?type=watch.dead_letter").await;
    assert_eq!((events.len(), &events[0]["state"]), (1, &json!("done")));
    assert_eq!(harness.list("deliveries").await.len(), 1);
    // A replay goes nowhere else.
    let id = events[0]["id"].as_str().expect("an id");
    assert_eq!(status(&harness.admin_post(&format!("/api/v1/events/{id}/replay"), &json!({})).await), 200);
    harness.drain().await;
    assert_eq!((harness.list("deliveries").await.len(), states(&crm)), (1, vec![]));
}

#[tokio::test]
async fn a_storm_is_told_in_few_events() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    crm.answer(Reply::Status(422));
    for _ in 0..17 {
        let task = harness.manus.create_task(KEY, Plan::hang());
        harness.manus.step(&task).await;
    }
    harness.drain().await;
    pass(&mut harness, 3).await;
    let raised = told(&ops);
    let counts: Vec<_> = raised.iter().map(|(_, payload)| payload["count"].as_u64().expect("a count")).collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>(), counts.iter().max()), (6, 17, Some(&12)));
    let rest = raised.iter().find(|(_, payload)| payload["count"] == 12).expect("the rest");
    assert_eq!((&rest.1["task_id"], &rest.1["delivery"], &rest.1["destination"]), (&Value::Null, &Value::Null, &json!("crm")));
    assert!(rest.1["text"].as_str().expect("a text").contains("12 more"), "{}", rest.1);
    assert_eq!(standing(&harness).await.len(), 17);
    let metrics = crate::harness::send(harness.admin_request(reqwest::Method::GET, "/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("taskhook_watches{type=\"watch.dead_letter\"}"), "{metrics}");
    // All of them end at once.
    let discard = json!({"filter": {"destination": "crm"}, "dry_run": false});
    assert_eq!(status(&harness.admin_post("/api/v1/deliveries/discard", &discard).await), 200);
    pass(&mut harness, 2).await;
    assert_eq!((states(&ops).len(), standing(&harness).await.len()), (12, 0));
}

#[tokio::test]
async fn a_source_whose_webhooks_do_not_come_is_told_and_degraded() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    let _ = harness.manus.create_task(KEY, Plan::finish("Told."));
    harness.manus.finish_all().await;
    harness.drain().await;
    // From here on none comes, though tasks stop. A failure, which has no webhook, says nothing.
    harness.manus.set_faults(Faults { drop: Times::Always, ..Faults::default() });
    let failing = Plan::new([Turn::new(End::Fail { error: "no browser".to_owned() })]);
    let _ = harness.manus.create_task(KEY, failing);
    harness.manus.finish_all().await;
    pass(&mut harness, 70).await;
    assert_eq!(states(&ops), [""; 0]);
    let _ = harness.manus.create_task(KEY, Plan::finish("Lost."));
    harness.manus.finish_all().await;
    pass(&mut harness, 5).await;
    assert_eq!(states(&ops), ["source_silent raised"]);
    let (_, payload) = told(&ops).remove(0);
    assert_eq!((&payload["stops"], &payload["source"], &payload["task_id"]), (&json!(1), &json!("manus"), &Value::Null));
    assert_eq!(ops.bodies()[0]["task"], Value::Null);
    let ready = harness.admin("/readyz").await;
    let reasons = ready["reasons"].as_array().expect("reasons");
    assert!(reasons.iter().any(|reason| reason["part"] == "webhooks of manus"), "{ready}");
    harness.restart().await;
    pass(&mut harness, 2).await;
    assert_eq!(states(&ops).len(), 1);
    harness.manus.set_faults(Faults::default());
    let _ = harness.manus.create_task(KEY, Plan::finish("Told again."));
    harness.manus.finish_all().await;
    pass(&mut harness, 2).await;
    assert_eq!(states(&ops), ["source_silent raised", "source_silent cleared"]);
    let ready = harness.admin("/readyz").await;
    assert_eq!(ready["status"], "ready", "{ready}");
}

#[tokio::test]
async fn what_is_off_is_not_told() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let off = "[watch]\ntask_silent = \"off\"\ntask_waiting = \"off\"\nnot_delivered = \"off\"\ndead_letter = \"off\"\nsource_silent = \"off\"\n";
    let mut harness = watching(&crm, &ops, "").await;
    let _ = harness.manus.create_task(KEY, ask());
    harness.manus.finish_all().await;
    pass(&mut harness, 35).await;
    assert_eq!((states(&ops).len(), standing(&harness).await.len()), (1, 1));
    // What was told before is forgotten without a word.
    harness.stop().await;
    harness.reconfigure(off);
    harness.start().await;
    harness.manus.set_faults(Faults { drop: Times::Always, ..Faults::default() });
    let _ = harness.manus.create_task(KEY, Plan::finish("Lost."));
    harness.manus.finish_all().await;
    crm.answer_next([Reply::Status(422)]);
    let hidden = harness.manus.create_task(KEY, Plan { hidden: true, ..Plan::hang() });
    harness.manus.step(&hidden).await;
    pass(&mut harness, 130).await;
    assert_eq!((states(&ops).len(), standing(&harness).await.len()), (1, 0));
}

#[tokio::test]
async fn nothing_of_a_stranger_is_told() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    // A genuine webhook of a task that is not ours: it goes into quarantine, and nobody hears of it.
    harness.accept(&crate::work::created("e1", "strange")).await;
    harness.accept(&stopped("e2", "strange")).await;
    pass(&mut harness, 90).await;
    assert_eq!((crm.recorded().len(), ops.recorded().len()), (0, 0));
}

#[tokio::test]
async fn an_erased_task_is_not_watched_any_more() {
    let (crm, ops) = (Recorder::start().await, Recorder::start().await);
    let mut harness = watching(&crm, &ops, "").await;
    let task = harness.manus.create_task(KEY, ask());
    harness.manus.finish_all().await;
    pass(&mut harness, 35).await;
    assert_eq!(states(&ops), ["task_waiting raised"]);
    let erased = harness.admin_post(&format!("/api/v1/tasks/manus/{task}/erase"), &json!({"dry_run": false})).await;
    assert_eq!(crate::harness::json(&erased)["erased"], true);
    assert_eq!((standing(&harness).await.len(), harness.list("events?type=watch.task_waiting").await.len()), (0, 0));
    pass(&mut harness, 3).await;
    assert_eq!(states(&ops).len(), 1);
}

#[tokio::test]
async fn a_crash_anywhere_tells_nothing_twice_and_loses_nothing() {
    // Dies after so many turns of the runtime, from the round that notices it to the delivery.
    for turns in (0..320).step_by(20) {
        let (crm, ops) = (Recorder::start().await, Recorder::start().await);
        let mut harness = watching(&crm, &ops, "").await;
        crm.answer(Reply::Status(422));
        for _ in 0..8 {
            let task = harness.manus.create_task(KEY, Plan::hang());
            harness.manus.step(&task).await;
        }
        harness.drain().await;
        harness.clock.advance(jiff::SignedDuration::from_mins(1));
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
        pass(&mut harness, 3).await;
        let events: BTreeSet<_> = ops.bodies().iter().map(|body| body["id"].to_string()).collect();
        let made = harness.list("events?type=watch.dead_letter").await;
        assert_eq!((events.len(), made.len(), standing(&harness).await.len()), (6, 6, 8), "after {turns} turns");
        let told: u64 = made.len() as u64 - 1 + told(&ops).iter().filter_map(|(_, it)| it["count"].as_u64()).max().expect("one");
        assert_eq!(told, 8, "after {turns} turns");
    }
}
