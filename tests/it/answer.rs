//! A task that asks is answered, once, and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::action::{Actions, Error, Say, Wish};
use taskhook::clock::Clock;
use taskhook::simulator::manus::{ApiFault, End, Faults, Plan, Turn, WrongAnswer};
use taskhook::simulator::{Call, Times};

use taskhook::http::Answer;
use taskhook::provider::{self, Budgets, Common, Own, Source};
use taskhook::setting::Secret;
use taskhook::store::{self, Store};
use taskhook::telemetry::Health;

use crate::harness::{Harness, KEY, Recorder, Setup, json as body_of};
use crate::work::{calls, refuse, setup, start};

/// Asks, and goes on when it is answered.
fn asks() -> Plan {
    let ask = End::Ask { question: "A or B?".to_owned(), options: vec!["A".to_owned(), "B".to_owned()] };
    Plan::new([Turn::new(ask), Turn::finish("B it is.")])
}

/// A program that has heard that a task of this plan waits.
async fn waiting(crm: &Recorder, config: &str, plan: Plan) -> (Harness, String) {
    let mut harness = start(setup(crm, "").config(config)).await;
    let task = harness.manus.create_task(KEY, plan);
    harness.manus.finish_all().await;
    harness.drain().await;
    assert_eq!(crm.bodies().last().expect("it asked")["event"]["stop_reason"], "ask");
    crm.take();
    (harness, task)
}

async fn act(harness: &Harness, task: &str, act: &str, body: &Value) -> Answer {
    harness.admin_post(&format!("/api/v1/tasks/manus/{task}/{act}"), body).await
}

/// The status and the code, of an error; the state, of what was given.
fn told(answer: &Answer) -> (u16, String) {
    let body = body_of(answer);
    let word = body["code"].as_str().or(body["state"].as_str()).expect("a code or a state");
    (answer.status.as_u16(), word.to_owned())
}

/// Calls that say something to a task.
fn said(harness: &Harness) -> Vec<Call> {
    let says = |call: &Call| call.method == "POST" && (call.path.contains("sendMessage") || call.path == "/v1/tasks");
    harness.manus.requests().into_iter().filter(says).collect()
}

fn on(call: &str, answer: WrongAnswer) -> Faults {
    Faults { api: vec![ApiFault::on(call, Times::Next(1), answer)], ..Faults::default() }
}

#[tokio::test]
async fn a_task_that_asks_is_answered_and_goes_on() {
    for version in ["v1", "v2"] {
        let crm = Recorder::start().await;
        let (mut harness, task) = waiting(&crm, &format!("[sources.manus]\napi_version = \"{version}\"\n"), asks()).await;
        let waits = harness.list("tasks?state=waiting").await;
        assert_eq!((waits.len(), &waits[0]["question"]), (1, &json!("A or B?")), "{version}");
        let answer = act(&harness, &task, "reply", &json!({"message": "B", "by": "kim"})).await;
        assert_eq!(told(&answer), (200, "sent".to_owned()), "{version}");
        assert_eq!(said(&harness).len(), 1, "{version}");
        assert_eq!(harness.list("tasks?state=waiting").await.len(), 0, "{version}");
        assert_eq!(harness.list("tasks?state=open").await.len(), 1, "{version}");
        harness.manus.finish_all().await;
        harness.drain().await;
        let bodies = crm.bodies();
        assert_eq!((bodies.len(), &bodies[0]["event"]["message"]), (1, &json!("B it is.")), "{version}");
        // Whoever is later is told so; what it stands at now is another question.
        let shown = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
        // It stands elsewhere now, and what it had asked is still told.
        let moments = shown["timeline"].as_array().expect("moments");
        let question = moments.iter().find(|moment| moment["kind"] == "question").expect("a question");
        assert_eq!((&question["text"], &shown["state"]), (&json!("A or B?"), &json!("finished")), "{version}");
        let kinds: Vec<_> = shown["timeline"].as_array().expect("moments").iter().map(|moment| moment["kind"].clone()).collect();
        for kind in ["created", "event", "question", "fetched", "answer", "stop", "delivery"] {
            assert!(kinds.contains(&json!(kind)), "{version} {kind}: {kinds:?}");
        }
        let given = &shown["answers"][0];
        assert_eq!((&given["by"], &given["content"], &given["state"]), (&json!("kim"), &json!("B"), &json!("sent")), "{version}");
        assert_ne!(given["question"], shown["answers_to"], "{version}");
        let late = json!({"message": "A", "question": given["question"]});
        assert_eq!(told(&act(&harness, &task, "reply", &late).await), (409, "other_question".to_owned()), "{version}");
        // A task that finished goes on as well.
        assert_eq!(told(&act(&harness, &task, "reply", &json!({"message": "And C?"})).await).0, 200, "{version}");
        harness.manus.finish_all().await;
        harness.drain().await;
        assert_eq!(crm.bodies().last().expect("a turn")["event"]["message"], "Done: And C?", "{version}");
    }
}

#[tokio::test]
async fn a_confirmation_fits_what_is_asked_for_and_may_be_declined_first() {
    let crm = Recorder::start().await;
    let (mut harness, task) = waiting(&crm, "", Plan::confirm("deployAction", "Publish the site?")).await;
    let confirms = |harness: &Harness| calls(harness, "confirmAction");
    assert_eq!(told(&act(&harness, &task, "reply", &json!({"message": "Yes"})).await), (409, "other_answer".to_owned()));
    let wrong = act(&harness, &task, "confirm", &json!({"input": {"accept": "yes"}})).await;
    assert_eq!(told(&wrong), (400, "input_invalid".to_owned()));
    assert!(body_of(&wrong)["title"].as_str().is_some_and(|title| title.contains("/accept")), "{}", body_of(&wrong));
    assert_eq!((confirms(&harness), said(&harness).len()), (0, 0), "nothing was sent");
    assert_eq!(told(&act(&harness, &task, "confirm", &json!({"input": {"accept": false}})).await), (200, "declined".to_owned()));
    assert_eq!(told(&act(&harness, &task, "confirm", &json!({})).await), (200, "sent".to_owned()));
    assert_eq!(confirms(&harness), 2);
    harness.manus.finish_all().await;
    harness.drain().await;
    assert_eq!(crm.bodies().last().expect("it went on")["event"]["stop_reason"], "finish");
    assert_eq!(told(&act(&harness, &task, "confirm", &json!({})).await), (409, "not_waiting".to_owned()));
    // A question in words is not confirmed.
    let asks = harness.manus.create_task(KEY, asks());
    harness.manus.finish_all().await;
    harness.drain().await;
    assert_eq!(told(&act(&harness, &asks, "confirm", &json!({})).await), (409, "other_answer".to_owned()));
    assert_eq!(confirms(&harness), 2);
}

#[tokio::test]
async fn each_kind_of_waiting_is_answered_by_its_own_call() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    for (kind, act_of, call) in [
        ("messageAskUser", "reply", "sendMessage"),
        ("cascadeAskUser", "reply", "sendMessage"),
        ("gmailSendAction", "confirm", "confirmAction"),
        ("webdevRequestSecrets", "confirm", "confirmAction"),
        ("apiHighCreditNotice", "confirm", "confirmAction"),
        ("inventedYesterday", "confirm", "confirmAction"),
    ] {
        let task = harness.manus.create_task(KEY, Plan::confirm(kind, "May I?"));
        harness.manus.finish_all().await;
        harness.drain().await;
        let before = calls(&harness, call);
        let body = if act_of == "reply" { json!({"message": "Yes"}) } else { json!({}) };
        assert_eq!(told(&act(&harness, &task, act_of, &body).await), (200, "sent".to_owned()), "{kind}");
        assert_eq!(calls(&harness, call) - before, 1, "{kind}");
        harness.manus.finish_all().await;
        harness.drain().await;
        assert_eq!(crm.bodies().last().expect("it went on")["event"]["stop_reason"], "finish", "{kind}");
    }
}

#[tokio::test]
async fn two_answers_at_once_reach_the_provider_once() {
    for version in ["v1", "v2"] {
        let crm = Recorder::start().await;
        let (harness, task) = waiting(&crm, &format!("[sources.manus]\napi_version = \"{version}\"\n"), asks()).await;
        // Slow enough that all of them have looked before one has answered.
        let slow = ApiFault { only: Some("task".to_owned()), times: Times::Always, slow_ms: 5, answer: None };
        harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
        let words: Vec<_> = (0..10).map(|number| json!({"message": format!("B{number}")})).collect();
        let answers = futures_util::future::join_all(words.iter().map(|body| act(&harness, &task, "reply", body)));
        let clock = harness.clock.clone();
        let time = async {
            loop {
                tokio::task::yield_now().await;
                clock.advance(jiff::SignedDuration::from_millis(1));
            }
        };
        let answers = tokio::select! {
            answers = answers => answers,
            () = time => unreachable!("time does not end"),
        };
        let given = answers.iter().filter(|answer| told(answer) == (200, "sent".to_owned())).count();
        assert_eq!((given, said(&harness).len()), (1, 1), "{version}: {:?}", answers.iter().map(told).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_unknown_and_not_sent_again_by_itself() {
    for lost in [WrongAnswer::Lost, WrongAnswer::Half, WrongAnswer::Html, refuse(503)] {
        let crm = Recorder::start().await;
        let (mut harness, task) = waiting(&crm, "", asks()).await;
        harness.manus.set_faults(on("sendMessage", lost.clone()));
        let reply = json!({"message": "B"});
        let first = act(&harness, &task, "reply", &reply).await;
        assert_eq!(told(&first), (502, "outcome_unknown".to_owned()), "{lost:?}");
        harness.advance(Duration::from_mins(10)).await;
        assert_eq!(said(&harness).len(), 1, "{lost:?}: nobody tries again");
        let shown = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
        assert_eq!(shown["answers"][0]["state"], "unknown", "{lost:?}");
        if matches!(lost, WrongAnswer::Refuse { .. }) {
            // It did not arrive: the task still waits for the same, and only a person who has looked may say so.
            assert_eq!(told(&act(&harness, &task, "reply", &reply).await), (409, "answered".to_owned()), "{lost:?}");
            assert_eq!(said(&harness).len(), 1, "{lost:?}");
            let again = json!({"message": "B", "again": true});
            assert_eq!(told(&act(&harness, &task, "reply", &again).await), (200, "sent".to_owned()), "{lost:?}");
            assert_eq!(said(&harness).len(), 2, "{lost:?}");
        }
        harness.manus.finish_all().await;
        harness.drain().await;
        assert_eq!(crm.bodies().last().expect("it went on")["event"]["message"], "B it is.", "{lost:?}");
    }
}

#[tokio::test]
async fn what_the_provider_did_not_take_may_be_answered_again() {
    let crm = Recorder::start().await;
    let (harness, task) = waiting(&crm, "", asks()).await;
    let reply = json!({"message": "B"});
    for status in [400, 401, 402, 403, 429] {
        harness.manus.set_faults(on("sendMessage", refuse(status)));
        assert_eq!(told(&act(&harness, &task, "reply", &reply).await), (502, "provider_refused".to_owned()), "{status}");
    }
    // It cannot even be looked at.
    for status in [401, 429, 503] {
        harness.manus.set_faults(on("listMessages", refuse(status)));
        assert_eq!(told(&act(&harness, &task, "reply", &reply).await), (502, "provider_refused".to_owned()), "{status}");
    }
    assert_eq!(said(&harness).len(), 5);
    harness.manus.set_faults(Faults::default());
    assert_eq!(told(&act(&harness, &task, "reply", &reply).await), (200, "sent".to_owned()));
    let shown = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
    let states: Vec<_> = shown["answers"].as_array().expect("answers").iter().map(|answer| answer["state"].clone()).collect();
    assert_eq!(states, ["refused", "refused", "refused", "refused", "refused", "sent"]);
}

#[tokio::test]
async fn what_takes_no_answer_is_told_so() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::hang());
    harness.drain().await;
    let reply = json!({"message": "Go on"});
    assert_eq!(told(&act(&harness, &task, "reply", &reply).await), (409, "not_waiting".to_owned()));
    assert_eq!(told(&act(&harness, "nothing", "reply", &reply).await), (404, "not_found".to_owned()));
    assert_eq!(told(&act(&harness, "a%20b", "reply", &reply).await).0, 404);
    assert_eq!(told(&act(&harness, &task, "reply", &json!({"message": " "})).await), (400, "body_invalid".to_owned()));
    assert_eq!(told(&act(&harness, &task, "reply", &json!({"massage": "B"})).await), (400, "body_invalid".to_owned()));
    let elsewhere = harness.admin_post("/api/v1/tasks/elsewhere/t/reply", &reply).await;
    assert_eq!(told(&elsewhere), (404, "not_found".to_owned()));
    assert_eq!(said(&harness).len(), 0);
    // Version 1 has no call for these.
    harness.reconfigure("[sources.manus]\napi_version = \"v1\"\n");
    harness.restart().await;
    assert_eq!(told(&act(&harness, &task, "stop", &json!({})).await), (409, "not_supported".to_owned()));
}

#[tokio::test]
async fn a_task_is_stopped_and_its_stop_is_found() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").reconciling()).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    let task = harness.manus.create_task(KEY, Plan::hang());
    assert_eq!(told(&act(&harness, &task, "stop", &json!({"by": "kim"})).await), (200, "sent".to_owned()));
    harness.manus.set_faults(on("task.stop", refuse(429)));
    assert_eq!(told(&act(&harness, &task, "stop", &json!({})).await), (502, "provider_refused".to_owned()));
    harness.advance(Duration::from_mins(2)).await;
    let last = crm.bodies().pop().expect("it is found");
    assert_eq!(
        (&last["type"], &last["event"]["stop_reason"], &last["task"]["state"]),
        (&json!("task_stopped"), &json!("user"), &json!("stopped"))
    );
    // It goes on when somebody says so.
    assert_eq!(told(&act(&harness, &task, "reply", &json!({"message": "Go on"})).await), (200, "sent".to_owned()));
}

#[tokio::test]
async fn who_hangs_up_leaves_nothing_half_done() {
    let crm = Recorder::start().await;
    let (harness, task) = waiting(&crm, "", asks()).await;
    let slow = ApiFault { only: Some("sendMessage".to_owned()), times: Times::Next(1), slow_ms: 1000, answer: None };
    harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
    let reply = json!({"message": "B"});
    let state = async || harness.admin(&format!("/api/v1/tasks/manus/{task}")).await["answers"][0]["state"].clone();
    {
        let hung_up = act(&harness, &task, "reply", &reply);
        let called = async {
            while state().await != "sending" {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = hung_up => panic!("the provider is slow"),
            () = called => {}
        }
    }
    assert_eq!(told(&act(&harness, &task, "reply", &reply).await), (409, "answered".to_owned()));
    harness.clock.advance(jiff::SignedDuration::from_secs(2));
    crate::harness::within("the end of the answer", async {
        while state().await != "sent" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(said(&harness).len(), 1);
}

/// What answers, on a store, without anything else of the program.
async fn actions(store: &store::Config, manus: &str, clock: &Clock) -> Actions {
    let own = provider::manus::Config { api_key: Some(Secret::new(KEY)), base_url: manus.to_owned(), ..Default::default() };
    let config = provider::Config { own: Own::Manus(Box::new(own)), common: Common::default() };
    let source = Source::new("manus", &config, clock, &Budgets::new(clock.clone())).expect("a source");
    let store = loop {
        match Store::open(store, clock.clone()).await {
            Ok(store) => break store,
            // The one that died has not quite let go.
            Err(store::Error::Locked(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let sources = [("manus".to_owned(), Arc::new(source))].into();
    Actions::new(sources, BTreeMap::new(), store, clock.clone(), Health::new(clock.clone()), Arc::default())
}

fn wish() -> Wish {
    Wish { say: Say::Reply("B".to_owned()), question: None, by: "kim".to_owned(), again: false }
}

/// Whether a program that dies after so many turns of its runtime got to the end of an answer.
async fn ends_within(turns: usize, store: store::Config, manus: String, clock: Clock, task: String) -> bool {
    let died = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let actions = actions(&store, &manus, &clock).await;
            tokio::select! {
                biased;
                given = actions.answer(None, &task, wish()) => given.is_ok(),
                () = async { for _ in 0..turns { tokio::task::yield_now().await; } } => false,
            }
        })
    });
    died.await.expect("it dies in order")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_anywhere_sends_nothing_twice() {
    let harness = Setup::new().simulator(|options| options.limits = None).prepare().await;
    harness.manus.add_account(KEY);
    let (store, manus, clock) = (harness.store_config(), harness.manus.base_url(), harness.clock.clone());
    let (mut turns, mut ended, mut doubtful) = (0, false, 0);
    while !ended {
        let task = harness.manus.create_task(KEY, asks());
        harness.manus.finish_all().await;
        let before = said(&harness).len();
        ended = ends_within(turns, store.clone(), manus.clone(), clock.clone(), task.clone()).await;
        let actions = actions(&store, &manus, &clock).await;
        match actions.answer(None, &task, wish()).await {
            // It died before anything was written down.
            Ok(_) => assert_eq!((said(&harness).len() - before, ended), (1, false), "after {turns} turns"),
            Err(Error::Answered(answer)) => {
                assert!(said(&harness).len() - before <= 1, "after {turns} turns");
                assert_eq!(answer.state == "sent", ended, "after {turns} turns");
                doubtful += usize::from(!ended);
            }
            // It was sent: the task has gone on, and stands at its next stop or is at work.
            Err(Error::NotWaiting(_)) => assert_eq!(said(&harness).len() - before, 1, "after {turns} turns"),
            Err(error) => panic!("{error} after {turns} turns"),
        }
        turns += 1 + turns / 3;
    }
    assert!(turns > 10 && doubtful > 0, "it died at many points: {turns} turns, {doubtful} in doubt");
}
