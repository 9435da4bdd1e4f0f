//! What somebody should know of: what holds, what is over, and which event tells of it.

use taskhook::event::Watch;
use taskhook::store::model::{AnswerKind, Claim, Condition, Look, NewAnswer, Proof, Queue, TaskNews, Watched};
use taskhook::task::{Fetched, State, Task};

use super::*;

contract!(
    what_is_noticed_is_told_once_and_forgotten_when_its_end_is_told,
    what_is_noticed_first_stands,
    silent_tasks_are_those_at_work_of_which_nothing_was_heard,
    tasks_that_wait_are_told_until_they_are_seen_at_work,
    deliveries_that_wait_are_told_by_their_lanes,
    dead_letters_are_told_but_not_those_of_watches,
    webhooks_are_told_from_what_was_found,
    nothing_is_kept_of_an_erased_task,
);

fn source() -> Queue {
    Queue::Source("manus".to_owned())
}

fn condition(key: &str, task_id: Option<&str>) -> Condition {
    let task_id = task_id.map(str::to_owned);
    Condition {
        key: key.to_owned(),
        source: "manus".to_owned(),
        task_id,
        destination: None,
        since: at(1),
        detail: json!({"reason": "a\u{1f4a5}"}),
    }
}

fn keys(rows: &[Watched]) -> Vec<&str> {
    rows.iter().map(|row| row.condition.key.as_str()).collect()
}

/// An event of ours, of a watch.
fn own(event_id: &str, task: Option<&str>) -> NewEvent {
    NewEvent { verification: Verification::Watch, kind: "watch.dead_letter".into(), ..event(event_id, task, &json!({})) }
}

impl Database {
    /// What is looked for and was not noticed.
    async fn holds(&self, look: Look, name: &str, before: Timestamp) -> Vec<Condition> {
        self.store().unnoticed(look, name, before, 9).await.unwrap()
    }

    /// Notices what holds, and tells it.
    async fn notices(&self, look: Look, name: &str, before: Timestamp) {
        let held = self.holds(look, name, before).await;
        let events: Vec<_> = held.iter().map(|_| Uuid::now_v7()).collect();
        self.store().notice(look.watch(), held.into_iter().zip(events.clone()).collect(), at(50)).await.unwrap();
        self.store().told(events).await.unwrap();
    }

    async fn proves(&self, task: &str, how: &'static str, now: Timestamp) {
        let proof = Proof { task_id: task.to_owned(), how, title: None, url: None };
        self.store().record_proofs("manus", vec![proof], now).await.unwrap();
    }
}

async fn what_is_noticed_is_told_once_and_forgotten_when_its_end_is_told(database: Database) {
    let store = database.store();
    let [alone, together] = [Uuid::now_v7(), Uuid::now_v7()];
    let held = vec![(condition("a", Some("t1")), alone), (condition("b", None), together), (condition("c", None), together)];
    store.notice(Watch::TaskSilent, held, at(2)).await.unwrap();
    let untold = store.untold(Watch::TaskSilent, &source()).await.unwrap();
    assert_eq!((keys(&untold), untold[0].event, untold[2].event), (vec!["a", "b", "c"], alone, together));
    assert_eq!((&untold[0].condition, untold[0].raised_at, untold[0].cleared_at), (&condition("a", Some("t1")), at(2), None));
    assert_eq!(store.untold(Watch::TaskWaiting, &source()).await.unwrap(), []);
    assert_eq!(store.untold(Watch::TaskSilent, &Queue::Source("other".into())).await.unwrap(), []);
    // What is not told yet is not over.
    let over = Uuid::now_v7();
    store.clear(vec![(untold[0].seq, over)], at(3)).await.unwrap();
    store.told(vec![alone, together]).await.unwrap();
    assert_eq!(store.untold(Watch::TaskSilent, &source()).await.unwrap(), []);
    assert_eq!(keys(&store.noticed(Watch::TaskSilent, &source()).await.unwrap()), ["a", "b", "c"]);
    store.clear(vec![(untold[0].seq, over), (untold[1].seq, over)], at(4)).await.unwrap();
    let untold = store.untold(Watch::TaskSilent, &source()).await.unwrap();
    assert_eq!((keys(&untold), untold[0].cleared_at, untold[1].event), (vec!["a", "b"], Some(at(4)), over));
    assert_eq!(keys(&store.noticed(Watch::TaskSilent, &source()).await.unwrap()), ["c"]);
    store.told(vec![over]).await.unwrap();
    assert_eq!(store.untold(Watch::TaskSilent, &source()).await.unwrap(), []);
    let listed = store.watches(None, Page { limit: 1, cursor: None }).await.unwrap();
    let row = &listed.data[0];
    assert_eq!(
        (row.kind.as_str(), row.event.as_str(), &listed.next_cursor),
        ("watch.task_silent", &*together.to_string(), &None)
    );
    assert_eq!(row.detail, json!({"reason": "a\u{1f4a5}"}));
    assert!(store.watches(Some("other".into()), Page { limit: 1, cursor: None }).await.unwrap().data.is_empty());
    assert_eq!(store.watching().await.unwrap(), [("watch.task_silent".to_owned(), 1)]);
    // What is over may hold anew; and what nobody watches for is forgotten.
    store.notice(Watch::TaskSilent, vec![(condition("a", None), over)], at(5)).await.unwrap();
    assert_eq!(store.watching().await.unwrap(), [("watch.task_silent".to_owned(), 2)]);
    store.unwatch(Watch::TaskSilent, &source()).await.unwrap();
    assert_eq!(store.watching().await.unwrap(), []);
}

async fn what_is_noticed_first_stands(database: Database) {
    let store = database.store();
    let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
    store.notice(Watch::TaskSilent, vec![(condition("a", None), first)], at(2)).await.unwrap();
    store.notice(Watch::TaskSilent, vec![(condition("a", None), second), (condition("b", None), second)], at(3)).await.unwrap();
    let untold = store.untold(Watch::TaskSilent, &source()).await.unwrap();
    assert_eq!(untold.iter().map(|row| (row.event, row.raised_at)).collect::<Vec<_>>(), [(first, at(2)), (second, at(3))]);
}

async fn silent_tasks_are_those_at_work_of_which_nothing_was_heard(database: Database) {
    let store = database.store();
    database.proves("made", "created", at(1)).await;
    database.proves("old", "listed", at(1)).await;
    // Of one that was created a progress was heard; one is known by its end alone, and one is not proven.
    for (event_id, kind, task) in [
        ("e1", "task_created", "heard"),
        ("e2", "task_progress", "heard"),
        ("e3", TASK_STOPPED, "ended"),
        ("e4", "task_created", "odd"),
    ] {
        let mut event = event(event_id, Some(task), &json!({"event_id": event_id}));
        kind.clone_into(&mut event.kind);
        event.received_at = at(if event_id == "e2" { 5 } else { 2 });
        store.append(event).await.unwrap();
    }
    database.proves("heard", "listed", at(2)).await;
    database.proves("ended", "listed", at(2)).await;
    for job in database.claim(JobKind::Prove, "manus", at(9)).await {
        let task = TaskNews::default();
        let moves = waiting(&job).into_iter().map(|event| Move { event, to: Stage::Done(Vec::new()) }).collect();
        store.finish(job.lease, at(9), Finish { moves, task, ..Finish::default() }).await.unwrap();
    }
    let silent = |before| database.holds(Look::TaskSilent, "manus", before);
    let of = |held: Vec<Condition>| held.into_iter().map(|held| (held.key, held.since)).collect::<Vec<_>>();
    assert_eq!(of(silent(at(4)).await), [("made".to_owned(), at(1))]);
    assert_eq!(of(silent(at(5)).await), [("made".to_owned(), at(1)), ("heard".to_owned(), at(5))]);
    assert_eq!(database.holds(Look::TaskSilent, "second", at(9)).await, []);
    database.notices(Look::TaskSilent, "manus", at(5)).await;
    assert_eq!((of(silent(at(9)).await), store.over(Look::TaskSilent, "manus", at(5), 9).await.unwrap().len()), (vec![], 0));
    // What we say ourselves is not heard of the task; what its provider shows is.
    store.append(NewEvent { received_at: at(8), ..own("w1", Some("heard")) }).await.unwrap();
    store.note_active("manus", vec![("heard".into(), at(7)), ("nobody".into(), at(7))]).await.unwrap();
    store.note_active("manus", vec![("heard".into(), at(6))]).await.unwrap();
    let over = store.over(Look::TaskSilent, "manus", at(6), 9).await.unwrap();
    assert_eq!(keys(&over), ["heard"]);
    // So is what somebody said to it.
    let answer = NewAnswer {
        id: Uuid::now_v7(),
        source: "manus".to_owned(),
        task_id: "made".to_owned(),
        kind: AnswerKind::Reply,
        question: Some("q1".to_owned()),
        by: "me".to_owned(),
        content: None,
        again: false,
    };
    assert_eq!(store.begin_answer(answer, at(8)).await.unwrap(), None);
    let over = store.over(Look::TaskSilent, "manus", at(7), 9).await.unwrap();
    assert!(keys(&over).contains(&"made"), "{over:?}");
}

async fn tasks_that_wait_are_told_until_they_are_seen_at_work(database: Database) {
    let store = database.store();
    let event = database.stopped("e1", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(2)).await;
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Fetch }];
    let task = TaskNews { proof: Some("listed"), ..TaskNews::default() };
    assert!(store.finish(job.lease, at(2), Finish { moves, task, ..Finish::default() }).await.unwrap());
    let job = database.claim_one(JobKind::Fetch, "manus", at(2)).await;
    let task = Task { id: "t1".to_owned(), state: State::Waiting, ..Task::default() };
    let fetched = Fetched { task, raw: "{}".to_owned(), ..Fetched::default() };
    let task = TaskNews { fetched: Some(Box::new(fetched)), ..TaskNews::default() };
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(Vec::new()) }];
    let claims = vec![Claim { anchor: "a1".into(), state: State::Waiting, at: Some(at(1)), event, recovered: false }];
    assert!(store.finish(job.lease, at(3), Finish { moves, task, claims, ..Finish::default() }).await.unwrap());
    assert_eq!(database.holds(Look::TaskWaiting, "manus", at(0)).await, []);
    let held = database.holds(Look::TaskWaiting, "manus", at(1)).await;
    assert_eq!((held.len(), held[0].key.as_str(), held[0].task_id.as_deref(), held[0].since), (1, "t1", Some("t1"), at(1)));
    assert_eq!(database.holds(Look::TaskSilent, "manus", at(99)).await, [], "it is not silent, it waits");
    database.notices(Look::TaskWaiting, "manus", at(1)).await;
    store.note_active("manus", vec![("t1".into(), at(1))]).await.unwrap();
    assert_eq!(store.over(Look::TaskWaiting, "manus", at(9), 9).await.unwrap(), []);
    store.note_active("manus", vec![("t1".into(), at(4))]).await.unwrap();
    assert_eq!(keys(&store.over(Look::TaskWaiting, "manus", at(9), 9).await.unwrap()), ["t1"]);
}

async fn deliveries_that_wait_are_told_by_their_lanes(database: Database) {
    let store = database.store();
    let first = database.dispatched("e1", "t1", vec![delivery("crm", None), delivery("bi", None)], at(1)).await;
    database.dispatched("e2", "t1", vec![delivery("crm", None)], at(2)).await;
    database.dispatched("e3", "t2", vec![delivery("crm", None)], at(3)).await;
    let held = database.holds(Look::NotDelivered, "crm", at(2)).await;
    assert_eq!((held.len(), held[0].destination.as_deref(), held[0].since), (1, Some("crm"), at(1)));
    assert_eq!((&held[0].detail["event"], held[0].task_id.as_deref()), (&json!(first.to_string()), Some("t1")));
    assert_eq!(database.holds(Look::NotDelivered, "crm", at(3)).await.len(), 2);
    database.notices(Look::NotDelivered, "crm", at(3)).await;
    assert_eq!(database.holds(Look::NotDelivered, "crm", at(3)).await, []);
    let of = Queue::Destination("crm".into());
    assert_eq!(store.noticed(Watch::NotDelivered, &of).await.unwrap().len(), 2);
    assert_eq!(store.noticed(Watch::NotDelivered, &source()).await.unwrap(), []);
    // One lane goes on, and is still late; the other is done with.
    for job in database.claim(JobKind::Deliver, "crm", at(9)).await {
        assert!(database.finish(job.lease, at(9)).await);
    }
    let over = store.over(Look::NotDelivered, "crm", at(3), 9).await.unwrap();
    assert_eq!(over.iter().map(|row| row.condition.task_id.as_deref()).collect::<Vec<_>>(), [Some("t2")]);
}

async fn dead_letters_are_told_but_not_those_of_watches(database: Database) {
    let store = database.store();
    database.dispatched("e1", "t1", vec![delivery("crm", None)], at(1)).await;
    let job = database.claim_one(JobKind::Deliver, "crm", at(2)).await;
    let id = outgoing(&job).id;
    assert!(database.bury(job.lease, at(2), "422").await);
    let held = database.holds(Look::DeadDelivery, "crm", at(99)).await;
    assert_eq!(
        (held.len(), held[0].key.clone(), held[0].since, &held[0].detail["reason"]),
        (1, id.to_string(), at(2), &json!("422"))
    );
    assert_eq!(database.holds(Look::DeadDelivery, "bi", at(99)).await, []);
    // An event that was given up on, and one of ours.
    database.stopped("e2", "t2").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(3)).await;
    assert!(database.bury(job.lease, at(3), "400").await);
    store.append(own("w1", None)).await.unwrap();
    let job = database.claim_one(JobKind::Prove, "manus", at(4)).await;
    assert!(database.bury(job.lease, at(4), "route_error").await);
    let held = database.holds(Look::DeadEvent, "manus", at(99)).await;
    assert_eq!((held.len(), held[0].task_id.as_deref(), &held[0].detail["reason"]), (1, Some("t2"), &json!("400")));
    database.notices(Look::DeadEvent, "manus", at(99)).await;
    database.notices(Look::DeadDelivery, "crm", at(99)).await;
    assert_eq!(store.watching().await.unwrap(), [("watch.dead_letter".to_owned(), 2)]);
    assert_eq!(store.over(Look::DeadEvent, "manus", at(99), 9).await.unwrap(), []);
    store.retry_delivery(&id.to_string(), at(9)).await.unwrap();
    let over = store.over(Look::DeadDelivery, "crm", at(99), 9).await.unwrap();
    assert_eq!(keys(&over), [id.to_string()]);
    // Each is looked after by whom it concerns.
    assert_eq!(store.noticed(Watch::DeadLetter, &source()).await.unwrap().len(), 1);
}

async fn webhooks_are_told_from_what_was_found(database: Database) {
    let store = database.store();
    let event_id = database.stopped("e1", "t1").await;
    let found = NewEvent { verification: Verification::Api, ..event("e2", Some("t1"), &json!({})) };
    store.append(found).await.unwrap();
    store.append(own("w1", None)).await.unwrap();
    store.append(NewEvent { ping: true, first: First::Keep, ..event("e3", None, &json!({})) }).await.unwrap();
    assert_eq!(store.webhooks("manus", at(-1)).await.unwrap().len(), 1);
    assert!(
        store.webhooks("manus", at(3600)).await.unwrap().is_empty() && store.webhooks("second", at(-1)).await.unwrap().is_empty()
    );
    database.claim(JobKind::Prove, "manus", at(1)).await;
    for (anchor, state, recovered) in
        [("a", State::Finished, true), ("b", State::Waiting, true), ("c", State::Failed, true), ("d", State::Finished, false)]
    {
        let claim = Claim { anchor: anchor.into(), state, at: None, event: event_id, recovered };
        store.claim_stop("manus", "t1", claim, at(5)).await.unwrap();
    }
    assert_eq!(store.lost("manus", at(1)).await.unwrap(), [at(5), at(5)], "a failure has no webhook");
    assert!(store.lost("manus", at(5)).await.unwrap().is_empty() && store.lost("second", at(1)).await.unwrap().is_empty());
}

async fn nothing_is_kept_of_an_erased_task(database: Database) {
    let store = database.store();
    database.dispatched("e1", "t1", Vec::new(), at(1)).await;
    let held = ["t1", "t2"].map(|task| (condition(task, Some(task)), Uuid::now_v7()));
    store.notice(Watch::TaskWaiting, held.into(), at(2)).await.unwrap();
    assert_eq!(store.erase("manus", "t1", at(3)).await.unwrap(), taskhook::store::upkeep::Erased::Yes);
    assert_eq!(keys(&store.untold(Watch::TaskWaiting, &source()).await.unwrap()), ["t2"]);
}
