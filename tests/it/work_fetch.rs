//! What is fetched is what the provider holds; what cannot be fetched goes out all the same, and says so.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, End, Faults, Plan, Turn, WrongAnswer};

use crate::harness::{Harness, KEY, Recorder};
use crate::work::{calls, every_call, pass, refuse, run, say, setup, start, types};

/// The last body that `crm` got.
fn last(crm: &Recorder) -> Value {
    crm.bodies().pop().expect("a delivery")
}

/// A task of ours that is known to be, and its id.
async fn proven(harness: &mut Harness, plan: Plan) -> String {
    let task = harness.manus.create_task(KEY, plan);
    harness.manus.step(&task).await;
    harness.drain().await;
    task
}

#[tokio::test]
async fn the_envelope_holds_what_the_provider_holds() {
    for (version, strings) in [("v2", false), ("v2", true), ("v1", false), ("v1", true)] {
        let crm = Recorder::start().await;
        let setup = setup(&crm, "").config(&format!("[sources.manus]\napi_version = \"{version}\"")).simulator(move |options| {
            options.limits = None;
            options.numbers_as_strings = strings;
        });
        let mut harness = start(setup).await;
        let plan = Plan::finish("The answer is **4**.").titled("What is 2 + 2?").costing(22).with_progress(["Adding"]);
        let plan = plan.with_file("answer.md", "text/markdown", "4\n").with_structured_output(&json!({"answer": 4}));
        let task = harness.manus.create_task(KEY, plan);
        run(&harness, &task).await;
        harness.drain().await;
        assert_eq!(types(&crm), ["task_created", "task_progress", "task_stopped"], "{version}");
        let body = last(&crm);
        let fetched = &body["task"];
        let expected = json!({"id": task, "title": "What is 2 + 2?", "state": "finished", "stop_reason": "finish", "credits": 22,
            "complete": true, "background": false, "question": null, "error": null, "messages_omitted": 0,
            "created_at": "2026-01-15T12:00:00.000Z"});
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&fetched[name], value, "{version} {strings} {name}");
        }
        let messages = fetched["messages"].as_array().expect("messages");
        let texts: Vec<_> = messages.iter().map(|message| (message["role"].as_str(), message["text"].as_str())).collect();
        assert_eq!(texts.first(), Some(&(Some("user"), Some("What is 2 + 2?"))), "{version}");
        assert_eq!(texts.last(), Some(&(Some("assistant"), Some("The answer is **4**."))), "{version}");
        assert_eq!(messages.last().expect("a message")["files"], json!([0]), "{version}");
        let file = &body["files"][0];
        assert_eq!((&file["name"], &file["content_type"]), (&json!("answer.md"), &json!("text/markdown")), "{version}");
        assert_eq!(body["event"]["attachments"][0]["size_bytes"], 4 - 2, "{version}: a number, however it was sent");
        assert_eq!(body["event"]["structured_output"]["value"], json!({"answer": 4}), "{version}");
        if version == "v2" {
            let output = &fetched["structured_output"];
            assert_eq!(
                (&output["success"], &output["value"], &output["error"]),
                (&json!(true), &json!({"answer": 4}), &Value::Null)
            );
        }
        // The raw answers are kept beside.
        let kept = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
        assert_eq!(&kept["task"], fetched, "{version}");
        let raw = if version == "v2" { &kept["raw"]["detail"]["task"]["id"] } else { &kept["raw"]["task"]["id"] };
        assert_eq!(raw, &json!(task), "{version}: {}", kept["raw"]);
        assert_eq!(kept["events"].as_array().map(Vec::len), Some(3));
    }
}

#[tokio::test]
async fn a_question_comes_with_its_options_and_a_confirmation_with_its_schema() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let end = End::Ask { question: "A or B?".to_owned(), options: vec!["A".to_owned(), "B".to_owned()] };
    let ask = harness.manus.create_task(KEY, Plan::new([Turn::new(end)]));
    run(&harness, &ask).await;
    harness.drain().await;
    let body = last(&crm);
    assert_eq!((&body["task"]["state"], &body["task"]["stop_reason"]), (&json!("waiting"), &json!("ask")));
    let question = &body["task"]["question"];
    assert_eq!(
        (&question["kind"], &question["text"], &question["options"]),
        (&json!("message"), &json!("A or B?"), &json!(["A", "B"]))
    );

    let confirm = harness.manus.create_task(KEY, Plan::confirm("deployAction", "Publish the site?"));
    run(&harness, &confirm).await;
    harness.drain().await;
    let question = last(&crm)["task"]["question"].take();
    assert_eq!((&question["kind"], &question["action"]), (&json!("action"), &json!("deployAction")));
    assert_eq!((&question["text"], &question["input_schema"]["type"]), (&json!("Publish the site?"), &json!("object")));
    assert!(question["event_id"].is_string());
}

#[tokio::test]
async fn one_fetch_serves_all_events_of_a_task_that_wait() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::new([Turn::finish("One."), Turn::finish("Two."), Turn::finish("Three.")]));
    run(&harness, &task).await;
    for _ in 0..2 {
        say(&harness, &task, "And then?").await;
        run(&harness, &task).await;
    }
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_stopped", "task_stopped", "task_stopped"]);
    assert_eq!((calls(&harness, "task.detail"), calls(&harness, "task.listMessages")), (1, 1));
    // Each has its own turn, though all of them were over when it was fetched.
    let turns: Vec<_> = crm.bodies().iter().skip(1).map(last_words).collect();
    assert_eq!(turns, ["One.", "Two.", "Three."]);
}

/// The last message of the task in `body`.
fn last_words(body: &Value) -> String {
    let messages = body["task"]["messages"].as_array().expect("messages");
    messages.last().expect("a message")["text"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_long_conversation_is_read_page_by_page() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let quiet = harness.manus.create_task("sk-quiet", Plan::finish("unused"));
    drop(quiet);
    let route = "[[routes]]\nto = [\"crm\"]\nwhen = 'event.type == \"task_stopped\"'\n";
    harness.reconfigure(route);
    harness.restart().await;
    let plan = Plan::finish("At last.").with_progress((1..=450).map(|step| format!("Step {step}")));
    let task = harness.manus.create_task(KEY, plan);
    run(&harness, &task).await;
    harness.drain().await;
    assert_eq!(calls(&harness, "task.listMessages"), 3);
    let body = last(&crm);
    let messages = body["task"]["messages"].as_array().expect("messages");
    assert_eq!((messages.len(), &body["task"]["complete"]), (200, &json!(true)));
    assert_eq!(body["task"]["messages_omitted"], 452 - 200);
    assert_eq!((&messages[1]["text"], &messages[199]["text"]), (&json!("Step 253"), &json!("At last.")));
}

#[tokio::test]
async fn a_task_that_was_deleted_goes_out_as_its_webhook_told_it() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = proven(&mut harness, Plan::finish("Done and gone.")).await;
    run(&harness, &task).await;
    harness.manus.delete_task(&task);
    harness.drain().await;
    let body = last(&crm);
    assert_eq!((&body["task"]["complete"], &body["task"]["state"]), (&json!(false), &json!("finished")));
    assert_eq!(body["task"]["messages"][0]["text"], "Done and gone.");
    let kept = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
    assert_eq!(kept["deleted_at"], "2026-01-15T12:00:00.000Z");
}

#[tokio::test]
async fn background_jobs_hold_a_result_until_they_end() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::finish("Done.").with_background(3));
    run(&harness, &task).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(30)).await;
    harness.advance(Duration::from_secs(30)).await;
    assert_eq!(types(&crm), ["task_created"]);
    harness.advance(Duration::from_secs(30)).await;
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
    let body = last(&crm);
    assert_eq!((&body["task"]["background"], &body["out_of_order"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn background_jobs_that_do_not_end_hold_a_result_for_an_hour_and_a_question_not_at_all() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let ask = harness.manus.create_task(KEY, Plan::ask("Which one?").with_background(1_000_000));
    run(&harness, &ask).await;
    harness.drain().await;
    assert_eq!(crm.take().len(), 2);
    let task = harness.manus.create_task(KEY, Plan::finish("Done.").with_background(1_000_000));
    run(&harness, &task).await;
    harness.drain().await;
    for _ in 0..118 {
        harness.advance(Duration::from_secs(30)).await;
    }
    harness.advance(Duration::from_secs(59)).await;
    assert_eq!(types(&crm), ["task_created"]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(types(&crm), ["task_created", "task_stopped"]);
    assert_eq!((&last(&crm)["task"]["background"], &last(&crm)["task"]["complete"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn a_result_that_cannot_be_fetched_goes_out_incomplete_after_two_minutes() {
    for answer in [refuse(503), refuse(401), WrongAnswer::Html, WrongAnswer::Lost] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        let task = proven(&mut harness, Plan::finish("Told by the webhook.").with_file("a.txt", "text/plain", "x")).await;
        harness.manus.set_faults(every_call(answer));
        run(&harness, &task).await;
        harness.drain().await;
        for _ in 0..11 {
            harness.advance(Duration::from_secs(10)).await;
        }
        harness.advance(Duration::from_millis(9_999)).await;
        assert_eq!(types(&crm), ["task_created"]);
        harness.advance(Duration::from_millis(1)).await;
        let body = last(&crm);
        assert_eq!((&body["type"], &body["task"]["complete"]), (&json!("task_stopped"), &json!(false)));
        assert_eq!(body["task"]["messages"][0]["text"], "Told by the webhook.");
        assert_eq!(body["files"][0]["name"], "a.txt");
    }
}

#[tokio::test]
async fn the_budget_is_kept_in_every_minute_and_what_it_has_no_call_for_goes_out_incomplete() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").config("[sources.manus]\nrequests_per_minute = 10\n")).await;
    let tasks: Vec<_> = (0..40).map(|_| harness.manus.create_task(KEY, Plan::finish("Done."))).collect();
    let before = harness.manus.requests().len();
    for task in &tasks {
        run(&harness, task).await;
    }
    let manus = harness.manus.clone();
    let seen = pass(&mut harness, 200, Duration::from_secs(1), |_| (manus.requests().len() - before, crm.recorded().len())).await;
    let made: Vec<_> = seen.iter().map(|(made, _)| *made).collect();
    let most = (0..made.len()).map(|at| made[at] - at.checked_sub(60).map_or(0, |start| made[start])).max();
    assert!(most <= Some(10), "{most:?} calls in a minute");
    let all = seen.iter().position(|(_, delivered)| *delivered == 80);
    assert!(all <= Some(121 + 30), "all went out after {all:?} s");
    assert!(all.is_some(), "{:?} went out", seen.last());
    let stops: Vec<_> = crm.bodies().into_iter().filter(|body| body["type"] == "task_stopped").collect();
    let complete = stops.iter().filter(|body| body["task"]["complete"] == true).count();
    assert!((5..=15).contains(&complete), "{complete} of {}", stops.len());
}

#[tokio::test]
async fn a_task_that_the_api_rejects_is_a_dead_letter() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = proven(&mut harness, Plan::finish("Done.")).await;
    harness.manus.set_faults(Faults { api: vec![ApiFault::on("task.detail", Times::Always, refuse(400))], ..Faults::default() });
    run(&harness, &task).await;
    harness.drain().await;
    let dead = harness.list("events?state=dead").await;
    assert_eq!((dead.len(), &dead[0]["type"]), (1, &json!("task_stopped")));
    assert!(dead[0]["reason"].as_str().expect("a reason").contains("task.detail: 400 invalid_argument"), "{}", dead[0]["reason"]);
    assert_eq!(harness.admin("/api/v1/stats").await["dead"], 1);
}
