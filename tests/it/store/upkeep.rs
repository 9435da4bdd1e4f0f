//! What may be removed: what is done with, by age, and what a person wants erased.

use taskhook::store::model::{FileRow, NewFile, NewRejection, Progress, Replayed, Told};
use taskhook::store::upkeep::{Candidates, Erased, Holding};
use taskhook::task::FileStatus;

use super::*;

contract!(
    what_is_done_with_may_go_and_nothing_else,
    what_nobody_let_out_of_quarantine_goes_by_age_and_by_number,
    what_is_taken_up_again_meanwhile_stays,
    removal_goes_through_all_rows_in_pages_and_stops_at_what_is_young,
    of_what_is_removed_nothing_is_left,
    a_task_that_nobody_expects_and_that_has_no_event_may_go,
    a_content_is_unwanted_once_no_file_names_it,
    an_erased_task_is_gone_and_its_events_are_still_known,
    a_task_that_is_worked_on_is_not_erased,
    a_task_of_many_events_is_erased_in_parts,
    the_store_says_how_large_it_is,
);

/// Long after everything.
const LATER: i64 = 86_400;

/// All that may go of what was received before `before`.
async fn may_go(database: &Database, before: Timestamp) -> Vec<i64> {
    let (mut found, mut after) = (Vec::new(), Some(0));
    while let Some(behind) = after {
        let Candidates { rows, next } = database.store().done_events(behind, before, at(LATER)).await.unwrap();
        found.extend(rows.into_iter().map(|(seq, _)| seq));
        after = next;
    }
    found
}

/// The place of an event.
async fn seq(database: &Database, id: Uuid) -> i64 {
    for seq in 1..1000 {
        if database.store().stored_event(seq).await.unwrap().is_some_and(|event| event.id == id) {
            return seq;
        }
    }
    panic!("{id} is not kept")
}

/// Has everything taken in.
async fn take_in(database: &Database) {
    while database.claimed(JobKind::Fetch, "manus", 1, at(0)).await.more {}
}

/// Keeps an event of `task` and delivers it to `crm`; our id.
async fn delivered(database: &Database, event_id: &str, task: &str) -> Uuid {
    let id = database.dispatched(event_id, task, vec![delivery("crm", None)], at(0)).await;
    let lease = database.claim_one(JobKind::Deliver, "crm", at(0)).await.lease;
    assert!(database.finish(lease, at(0)).await);
    id
}

async fn what_is_done_with_may_go_and_nothing_else(database: Database) {
    let store = database.store();
    let done = delivered(&database, "done", "t1").await;
    let nowhere = database.dispatched("nowhere", "t2", vec![], at(0)).await;
    let kept = database.append(NewEvent { first: First::Keep, ..event("kept", None, &json!({})) }).await.id();
    // Discarded is as good as delivered.
    let discarded = database.dispatched("discarded", "t3", vec![delivery("crm", None)], at(0)).await;
    let row = database.event(discarded).await.deliveries.remove(0);
    store.discard_delivery(&row.id, at(0)).await.unwrap();
    database.dispatched("half", "t4", vec![delivery("log", None), delivery("bi", None)], at(0)).await;
    let lease = database.claim_one(JobKind::Deliver, "log", at(0)).await.lease;
    assert!(database.finish(lease, at(0)).await);
    database.dispatched("dead letter", "t5", vec![delivery("dead", None)], at(0)).await;
    let lease = database.claim_one(JobKind::Deliver, "dead", at(0)).await.lease;
    assert!(database.bury(lease, at(0), "410").await);
    for (name, to) in [("quarantined", Stage::Quarantine("not ours".into())), ("dead", Stage::Dead("why".into()))] {
        database.stopped(name, name).await;
        let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
        let moves = vec![Move { event: waiting(&job)[0], to }];
        assert!(store.finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    }
    // What another event is told apart from stays as long as that.
    let first = delivered(&database, "reused", "t6").await;
    let collision = database.append(event("reused", Some("t7"), &json!({"other": true}))).await;
    assert!(matches!(collision, Appended::Collision(_)), "{collision:?}");
    let proving = database.stopped("proving", "t8").await;
    assert_eq!(database.state(proving).await, "proving");
    let mut expected = Vec::new();
    for id in [done, nowhere, kept, discarded] {
        expected.push(seq(&database, id).await);
    }
    // One that was kept and never taken in is nobody's yet.
    let found = may_go(&database, at(LATER)).await;
    assert!(found.iter().all(|seq| expected.contains(seq)), "{found:?} of {expected:?}");
    let job = database.claim(JobKind::Prove, "manus", at(0)).await.into_iter().next().expect("the collision");
    assert_eq!(may_go(&database, at(LATER)).await, expected);
    assert_eq!(may_go(&database, at(0)).await, [0; 0], "nothing is older");
    let before = database.ids().await.len();
    let removed = store.remove_events((1..=100).collect(), at(LATER)).await.unwrap();
    assert_eq!((removed.events, removed.tasks, removed.files), (4, 3, 0));
    assert_eq!(database.ids().await.len(), before - 4);
    // Once the collision has gone, so may the first.
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(vec![]) }];
    assert!(store.finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    assert_eq!(may_go(&database, at(LATER)).await, [seq(&database, collision.id()).await]);
    assert_eq!(store.remove_events(may_go(&database, at(LATER)).await, at(LATER)).await.unwrap().events, 1);
    assert_eq!(may_go(&database, at(LATER)).await, [seq(&database, first).await]);
}

async fn what_nobody_let_out_of_quarantine_goes_by_age_and_by_number(database: Database) {
    let store = database.store();
    let mut events = Vec::new();
    for number in 0..6 {
        let of = NewEvent {
            received_at: at(number),
            ..event(&format!("e{number}"), Some(&format!("t{}", number / 2)), &json!({"number": number}))
        };
        events.push(database.append(of).await.id());
    }
    for job in database.claim(JobKind::Prove, "manus", at(9)).await {
        let quarantine = |event: i64| Move { event, to: Stage::Quarantine("not ours".into()) };
        let moves = waiting(&job).into_iter().map(quarantine).collect();
        assert!(store.finish(job.lease, at(9), Finish { moves, ..Finish::default() }).await.unwrap());
    }
    assert_eq!(store.backlog().await.unwrap().quarantined, 6);
    let found = async |before, most| {
        let page = store.quarantined(before, most).await.unwrap();
        page.rows.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>()
    };
    let mut places = Vec::new();
    for id in &events {
        places.push(seq(&database, *id).await);
    }
    assert_eq!(found(Timestamp::MIN, 6).await, [0; 0]);
    assert_eq!(found(at(2), 6).await, places[..2], "by age");
    assert_eq!(found(Timestamp::MIN, 3).await, places[..3], "by number, the oldest");
    // One that was let go, and one that is not in quarantine, stay.
    store.release(&events[0].to_string(), at(10)).await.unwrap();
    assert_eq!(found(at(2), 6).await, places[1..2]);
    let removed = store.remove_quarantined(places[..4].to_vec(), at(10)).await.unwrap();
    assert_eq!((removed.events, removed.tasks), (3, 1), "a task of which an event is left stays");
    assert_eq!((store.backlog().await.unwrap().quarantined, database.ids().await.len()), (2, 3));
    // A repeat is known all the same, and not kept again.
    let again = database.append(event("e2", Some("t1"), &json!({"number": 2}))).await;
    assert_eq!(again, Appended::Duplicate(events[2]));
    assert_eq!(database.ids().await.len(), 3);
}

async fn what_is_taken_up_again_meanwhile_stays(database: Database) {
    let id = delivered(&database, "e1", "t1").await;
    let rows = may_go(&database, at(LATER)).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(database.store().replay_event(&id.to_string(), at(1)).await.unwrap(), Replayed::Yes(1));
    assert_eq!(database.store().remove_events(rows, at(LATER)).await.unwrap().events, 0);
    assert_eq!(database.state(id).await, "proving");
}

async fn removal_goes_through_all_rows_in_pages_and_stops_at_what_is_young(database: Database) {
    let store = database.store();
    // More than any page holds, kept at two times.
    for number in 0..500 {
        let received_at = if number < 250 { at(0) } else { at(1000) };
        let new = NewEvent { first: First::Keep, received_at, ..event(&format!("e{number}"), None, &json!({})) };
        database.append(new).await;
    }
    take_in(&database).await;
    assert_eq!(may_go(&database, at(500)).await.len(), 250);
    assert_eq!(may_go(&database, at(LATER)).await.len(), 500);
    let (mut looks, mut after) = (0, Some(0));
    while let Some(behind) = after {
        let page = store.done_events(behind, at(0), at(LATER)).await.unwrap();
        assert!(page.rows.iter().all(|(_, bytes)| *bytes > 0));
        (after, looks) = (page.next, looks + 1);
    }
    assert_eq!(looks, 1, "the first are too young: so are those behind them");
}

/// How many rows there are of what came and what was made of it.
async fn rows(database: &Database) -> usize {
    database.dump().await.iter().filter(|row| !row.starts_with("intake") && !row.starts_with("erased_")).count()
}

async fn of_what_is_removed_nothing_is_left(database: Database) {
    let store = database.store();
    for task in ["t1", "t1", "t2"] {
        delivered(&database, &format!("{task} {}", Uuid::now_v7()), task).await;
    }
    let homeless = NewEvent { first: First::Keep, ..event("homeless", None, &json!({})) };
    database.append(homeless.clone()).await;
    take_in(&database).await;
    let rows_to_go = may_go(&database, at(LATER)).await;
    let removed = store.remove_events(rows_to_go.clone(), at(LATER)).await.unwrap();
    assert_eq!((removed.events, removed.tasks), (4, 2));
    assert_eq!(rows(&database).await, 0, "{:?}", database.dump().await);
    assert_eq!(store.remove_events(rows_to_go, at(LATER)).await.unwrap().events, 0);
    // Nor is it known.
    let again = NewEvent { id: Uuid::now_v7(), ..homeless };
    assert!(matches!(database.append(again).await, Appended::New(_)));
}

async fn a_task_that_nobody_expects_and_that_has_no_event_may_go(database: Database) {
    let store = database.store();
    let proof = |task: &str, how| taskhook::store::model::Proof { task_id: task.into(), how, title: None, url: None };
    store
        .record_proofs("manus", vec![proof("t1", "listed"), proof("t2", "created"), proof("t3", "private")], at(0))
        .await
        .unwrap();
    store.track("manus", tracked("t4", "video"), at(0)).await.unwrap();
    database.stopped("e1", "t3").await;
    take_in(&database).await;
    let page = store.bare_tasks(0, at(LATER), at(LATER)).await.unwrap();
    assert_eq!((page.rows.len(), page.next), (1, None));
    assert_eq!(store.bare_tasks(0, at(0), at(LATER)).await.unwrap().rows, []);
    // What was found is looked at again: an event came.
    let tasks: Vec<_> = page.rows.into_iter().map(|(seq, _)| seq).collect();
    database.stopped("e2", "t1").await;
    take_in(&database).await;
    assert_eq!(store.remove_tasks(tasks, at(LATER)).await.unwrap().tasks, 0);
    store.record_proofs("manus", vec![proof("t5", "listed")], at(1)).await.unwrap();
    let tasks: Vec<_> = store.bare_tasks(0, at(LATER), at(LATER)).await.unwrap().rows.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(store.remove_tasks(tasks, at(LATER)).await.unwrap().tasks, 1);
    assert!(store.task("manus", "t5").await.unwrap().is_none());
    assert!(store.task("manus", "t1").await.unwrap().is_some());
}

/// Takes an event of `task` to where a file of it is to be saved: the job, its subject, and the file.
async fn to_be_saved(database: &Database, event_id: &str, task: &str) -> (Lease, i64, FileRow) {
    database.stopped(event_id, task).await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let event = waiting(&job)[0];
    let file = NewFile {
        key: "a".into(),
        event,
        name: "a.md".into(),
        url: Some("https://x/1".into()),
        content_type: None,
        size_bytes: Some(7),
        refused: None,
    };
    let moves = vec![Move { event, to: Stage::Archive { told: Told::Fetched, out_of_order: false, may_repeat: false } }];
    assert!(database.store().finish(job.lease, at(0), Finish { moves, files: vec![file], ..Finish::default() }).await.unwrap());
    let job = database.claim_one(JobKind::Archive, "manus", at(0)).await;
    let Work::Files { subject, .. } = job.work else { panic!("{job:?}") };
    (job.lease, subject, database.store().files(subject).await.unwrap().remove(0))
}

/// The file as it was saved.
fn saved(row: FileRow, sha256: &str) -> FileRow {
    FileRow { status: FileStatus::Archived, sha256: Some(sha256.into()), due_at: None, ..row }
}

/// Takes an event of `task` through the archive with a file of the content `sha256`.
async fn archived(database: &Database, event_id: &str, task: &str, sha256: &str) -> Uuid {
    let (lease, _, row) = to_be_saved(database, event_id, task).await;
    let (event, files) = (row.event, vec![saved(row, sha256)]);
    let moves = vec![Move { event, to: Stage::Done(vec![]) }];
    let progress = Progress { files, moves, ..Progress::default() };
    assert!(database.store().progress(lease, at(0), progress).await.unwrap());
    assert!(database.finish(lease, at(0)).await);
    database.store().stored_event(event).await.unwrap().expect("it is kept").id
}

#[tokio::test]
async fn no_file_names_a_content_that_another_replica_deletes_or_has_deleted_since() {
    let database = Database::postgres().await;
    let (store, other) = (database.store(), database.try_open().await.unwrap());
    archived(&database, "e1", "t1", "aa").await;
    let events = may_go(&database, at(LATER)).await;
    store.remove_events(events, at(LATER)).await.unwrap();
    let (lease, subject, row) = to_be_saved(&database, "e2", "t2").await;
    let name = async |deletions: i64| {
        let progress = Progress { files: vec![saved(row.clone(), "aa")], deletions, ..Progress::default() };
        assert!(store.progress(lease, at(0), progress).await.unwrap());
        let named = store.files(subject).await.unwrap().remove(0);
        (named.status, named.sha256, named.due_at)
    };
    let anew = (FileStatus::Pending, None, Some(at(60)));
    let before = store.deletions().await.unwrap();
    assert!(other.may_delete("aa").await.unwrap());
    assert!(!store.may_delete("aa").await.unwrap(), "the other one is at it");
    assert!(!store.settle_file("aa", false).await.unwrap(), "it is not for who does not delete it to say");
    assert_eq!(store.unwanted_files("").await.unwrap(), ["aa"]);
    assert!(other.may_delete("aa").await.unwrap(), "the archive failed, and it tries again");
    let meanwhile = store.deletions().await.unwrap();
    assert!(meanwhile > before);
    assert_eq!(name(meanwhile).await, anew, "it is being deleted");
    assert!(other.settle_file("aa", true).await.unwrap());
    assert_eq!(store.unwanted_files("").await.unwrap(), [""; 0]);
    for deletions in [before, meanwhile] {
        assert_eq!(name(deletions).await, anew, "it was deleted since");
    }
    let after = store.deletions().await.unwrap();
    assert_eq!(name(after).await, (FileStatus::Archived, Some("aa".to_owned()), None));
    assert!(!other.may_delete("aa").await.unwrap(), "a file names it");
}

async fn a_content_is_unwanted_once_no_file_names_it(database: Database) {
    let store = database.store();
    for (event_id, task, sha256) in [("e1", "t1", "aa"), ("e2", "t2", "bb"), ("e3", "t3", "aa")] {
        archived(&database, event_id, task, sha256).await;
    }
    let events = may_go(&database, at(LATER)).await;
    assert_eq!(events.len(), 3);
    assert_eq!(store.remove_events(events[..2].to_vec(), at(LATER)).await.unwrap().tasks, 2);
    assert_eq!(store.unwanted_files("").await.unwrap(), ["aa", "bb"]);
    assert_eq!(store.unwanted_files("aa").await.unwrap(), ["bb"]);
    assert!(!store.may_delete("aa").await.unwrap(), "another task has it too");
    assert!(store.may_delete("bb").await.unwrap());
    assert!(store.settle_file("aa", false).await.unwrap());
    assert!(store.settle_file("bb", true).await.unwrap());
    assert_eq!(store.unwanted_files("").await.unwrap(), [""; 0]);
}

fn rejection(target: &str) -> NewRejection {
    NewRejection {
        received_at: at(0),
        source: "manus".into(),
        code: "signature_invalid",
        explanation: None,
        target: target.into(),
        headers: vec![],
        body_bytes: 2,
        body: Bytes::from_static(b"{}"),
    }
}

async fn an_erased_task_is_gone_and_its_events_are_still_known(database: Database) {
    let store = database.store();
    assert_eq!(store.holding("manus", "t1").await.unwrap(), None);
    assert_eq!(store.erase("manus", "t1", at(1)).await.unwrap(), Erased::Unknown);
    let first = delivered(&database, "e1", "t1").await;
    let second = archived(&database, "e2", "t1", "aa").await;
    let other = delivered(&database, "e3", "t2").await;
    let (mine, others) = ("/webhooks/manus?task=t1", "/webhooks/manus?task=t2");
    store.record_rejections(vec![rejection(mine), rejection(others)]).await.unwrap();
    let held = Holding { events: 2, deliveries: 1, files: 1, rejections: 1 };
    assert_eq!(store.holding("manus", "t1").await.unwrap(), Some(held));
    assert_eq!(store.holding("second", "t1").await.unwrap(), None);
    assert_eq!(store.erase("manus", "t1", at(1)).await.unwrap(), Erased::Yes);
    assert_eq!(store.holding("manus", "t1").await.unwrap(), None);
    assert_eq!(database.ids().await, [other.to_string()]);
    assert_eq!(store.unwanted_files("").await.unwrap(), ["aa"]);
    let left = store.rejections(RejectionFilter::default(), Page { limit: 9, cursor: None }).await.unwrap().data;
    assert_eq!(left.iter().map(|row| row.target.as_str()).collect::<Vec<_>>(), [others]);
    let told = database.dump().await;
    assert!(!told.iter().any(|row| row.contains("t1") && !row.contains("t2")), "{told:?}");
    // Whatever they say now.
    for (event_id, id) in [("e1", first), ("e2", second)] {
        let again = NewEvent { id: Uuid::now_v7(), ..event(event_id, Some("t1"), &json!({"other": event_id})) };
        assert_eq!(database.append(again).await, Appended::Duplicate(id));
    }
    assert_eq!(database.ids().await.len(), 1);
    store.forget_erased(at(1)).await.unwrap();
    assert_eq!(database.append(event("e1", Some("t1"), &json!({}))).await, Appended::Duplicate(first), "it is not that long ago");
    store.forget_erased(at(2)).await.unwrap();
    assert!(matches!(database.append(event("e1", Some("t1"), &json!({}))).await, Appended::New(_)));
}

async fn a_task_that_is_worked_on_is_not_erased(database: Database) {
    let store = database.store();
    database.stopped("e1", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert_eq!(store.erase("manus", "t1", at(1)).await.unwrap(), Erased::Busy);
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(vec![delivery("crm", None)]) }];
    assert!(store.finish(job.lease, at(1), Finish { moves, ..Finish::default() }).await.unwrap());
    let sent = database.claim_one(JobKind::Deliver, "crm", at(1)).await;
    assert_eq!(store.erase("manus", "t1", at(1)).await.unwrap(), Erased::Busy);
    assert!(database.retry(sent.lease, at(1), at(9), "503").await);
    database.stopped("e2", "t1").await;
    assert_eq!(store.erase("manus", "t1", at(2)).await.unwrap(), Erased::Yes, "what waits goes with it");
    assert_eq!(database.backlog().await, []);
    assert_eq!((rows(&database).await, database.ids().await.len()), (0, 0), "{:?}", database.dump().await);
    // What comes then is a task like any other.
    database.stopped("e3", "t1").await;
    assert_eq!(waiting(&database.claim_one(JobKind::Prove, "manus", at(3)).await).len(), 1);
}

async fn a_task_of_many_events_is_erased_in_parts(database: Database) {
    let append = |number: usize| database.append(event(&format!("e{number}"), Some("t1"), &json!({"n": number})));
    futures_util::future::join_all((0..1200).map(append)).await;
    let mut parts = 0;
    loop {
        match database.store().erase("manus", "t1", at(1)).await.unwrap() {
            Erased::Part => parts += 1,
            Erased::Yes => break,
            other => panic!("{other:?}"),
        }
        // Between two parts nobody begins anything of it.
        assert!(database.claim(JobKind::Prove, "manus", at(9)).await.is_empty());
    }
    assert!(parts > 0, "one transaction would take too long");
    assert_eq!(database.ids().await.len(), 0);
}

async fn the_store_says_how_large_it_is(database: Database) {
    let before = database.store().space().await.unwrap();
    assert!(before.file > 0 && before.free <= before.file, "{before:?}");
    for number in 0..40 {
        let filling: String = std::iter::repeat_with(fastrand::alphanumeric).take(20_000).collect();
        let kept = event(&format!("e{number}"), None, &json!({"filling": filling}));
        database.append(NewEvent { first: First::Keep, ..kept }).await;
    }
    let after = database.store().space().await.unwrap();
    assert!(after.live() > before.live() + 400_000, "{before:?} {after:?}");
    take_in(&database).await;
    let half: Vec<i64> = may_go(&database, at(LATER)).await.into_iter().take(20).collect();
    assert_eq!(database.store().remove_events(half, at(LATER)).await.unwrap().events, 20);
    let less = database.store().space().await.unwrap();
    let gone = after.live() - less.live();
    assert!((200_000..600_000).contains(&gone), "what has gone is no longer counted: {after:?} {less:?}");
    database.store().shrink(10).await.unwrap();
}
