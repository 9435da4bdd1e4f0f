//! What the tests of the work share: a program that hands everything on to a recorder, and a provider that sends by itself.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, Faults, Manus, WrongAnswer};

use crate::harness::{Harness, KEY, Recorder, Setup};

/// So many calls that no test waits for one.
pub(crate) const PLENTY: &str = "[sources.manus]\nrequests_per_minute = 60000\n";

/// Another customer of the provider.
pub(crate) const OTHER: &str = "sk-other";

/// A program whose only destination is `crm`, which gets everything.
pub(crate) fn setup(crm: &Recorder, keys: &str) -> Setup {
    Setup::new()
        .simulator(|options| options.limits = None)
        .config(PLENTY)
        .config(&crm.section("crm", keys))
        .config("[[routes]]\nto = [\"crm\"]\n")
}

/// The same, started, with its URL registered in our account and in another customer's.
pub(crate) async fn start(setup: Setup) -> Harness {
    let harness = setup.start().await;
    for key in [KEY, OTHER] {
        harness.manus.register(key, &harness.url("/webhooks/manus"));
    }
    harness
}

/// How often the provider was called with `part` in the path and query.
pub(crate) fn calls(harness: &Harness, part: &str) -> usize {
    calls_of(&harness.manus, part)
}

/// The same, of a provider alone.
pub(crate) fn calls_of(manus: &Manus, part: &str) -> usize {
    manus.requests().iter().filter(|call| format!("{}?{}", call.path, call.query).contains(part)).count()
}

/// The faults in which every call of the API is answered so.
pub(crate) fn every_call(answer: WrongAnswer) -> Faults {
    Faults { api: vec![ApiFault { only: None, times: Times::Always, slow_ms: 0, answer: Some(answer) }], ..Faults::default() }
}

/// A refusal.
pub(crate) fn refuse(status: u16) -> WrongAnswer {
    WrongAnswer::Refuse { status, retry_after: None }
}

/// A `task_stopped` of `task_id` that no task of the simulator ever sent.
pub(crate) fn stopped(event_id: &str, task_id: &str) -> Value {
    json!({"event_id": event_id, "event_type": "task_stopped", "task_detail": {"task_id": task_id, "task_title": "A title",
        "task_url": "https://manus.im/app/x", "message": "As the webhook tells it.", "stop_reason": "finish"}})
}

/// A `task_created` of `task_id` that no task of the simulator ever sent.
pub(crate) fn created(event_id: &str, task_id: &str) -> Value {
    json!({"event_id": event_id, "event_type": "task_created",
        "task_detail": {"task_id": task_id, "task_title": "A title", "task_url": "https://manus.im/app/x"}})
}

/// Does every step of a task, each event being answered before the next is sent.
pub(crate) async fn run(harness: &Harness, task_id: &str) {
    while let Some(sent) = harness.manus.step(task_id).await {
        assert!(sent.iter().all(|delivery| delivery.status == Some(200)), "{sent:?}");
    }
}

/// What a person says to a task at its provider.
pub(crate) async fn say(harness: &Harness, task: &str, text: &str) {
    let body = json!({"task_id": task, "message": {"content": text}});
    let url = format!("{}/v2/task.sendMessage", harness.manus.base_url());
    let said = harness.client().post(url).header("x-manus-api-key", KEY).json(&body).send().await.expect("an answer");
    assert_eq!(said.status(), 200);
}

/// The types of the events that `crm` got, in the order in which they came.
pub(crate) fn types(crm: &Recorder) -> Vec<String> {
    crm.bodies().iter().map(|body| body["type"].as_str().expect("a type").to_owned()).collect()
}

/// The types of the deliveries that `crm` got, in the order in which they came; one that came again at once counts once.
pub(crate) fn came(crm: &Recorder) -> Vec<String> {
    let mut came: Vec<_> = crm.recorded().iter().map(|sent| sent.header("webhook-id").to_owned()).zip(types(crm)).collect();
    came.dedup();
    came.into_iter().map(|(_, kind)| kind).collect()
}

/// Lets time pass in steps, the worker running by itself all the while; what `see` says after each step.
///
/// The work waits for calls that the budget allows only later, so that time cannot stand still until it is done.
pub(crate) async fn pass<T>(harness: &mut Harness, steps: usize, step: Duration, mut see: impl FnMut(usize) -> T) -> Vec<T> {
    let (clock, store) = (harness.clock.clone(), harness.store().clone());
    let by = SignedDuration::try_from(step).expect("a short step");
    let time = async move {
        let mut seen = Vec::with_capacity(steps);
        for number in 0..steps {
            // Commits and turns enough for what is due to be done, and for local servers to answer.
            for _ in 0..4 {
                store.check().await.expect("the store takes writes");
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
            seen.push(see(number));
            clock.advance(by);
        }
        seen
    };
    harness.run_worker(Duration::ZERO, time).await
}
