//! What lists are narrowed to beside their pages: times and text; and lists that are read forth.

use taskhook::store::model::{Like, NewRejection, Proof};
use taskhook::store::view::{Listed, SEARCHED};

use super::*;

contract!(
    lists_can_be_narrowed_to_a_time,
    what_is_out_of_order_in_time_is_found_all_the_same,
    what_is_newer_comes_oldest_first_and_always_says_where_to_go_on,
    what_was_read_up_to_the_newest_is_read_on_when_that_is_erased,
    text_is_found_in_titles_and_ids,
    the_newest_are_looked_through_for_text,
    what_is_found_comes_in_pages,
);

fn page(limit: usize, cursor: Option<i64>) -> Page {
    Page { limit, cursor }
}

/// What a list says comes next.
fn next<T>(listed: &Listed<T>) -> i64 {
    listed.next_cursor.as_ref().expect("it says where to go on").parse().unwrap()
}

fn rejection(seconds: i64, source: &str, code: &'static str) -> NewRejection {
    NewRejection {
        received_at: at(seconds),
        source: source.into(),
        code,
        explanation: None,
        target: format!("/webhooks/{source}?at={seconds}"),
        headers: Vec::new(),
        body_bytes: 0,
        body: Bytes::new(),
    }
}

/// An event that was received so many seconds after the start.
async fn received(database: &Database, seconds: i64, task: &str) {
    let event_id = format!("e{seconds}");
    database.append(NewEvent { received_at: at(seconds), ..event(&event_id, Some(task), &json!({"event_id": event_id})) }).await;
}

/// The ids of events that a filter means.
async fn found(database: &Database, filter: EventFilter) -> Vec<String> {
    let rows = database.store().events(filter, page(500, None)).await.unwrap().data;
    rows.into_iter().map(|row| row.event_id).collect()
}

async fn lists_can_be_narrowed_to_a_time(database: Database) {
    let store = database.store();
    // Ten minutes may be out of order: these are further apart.
    let hours = [0, 1, 2, 3].map(|hour| hour * 3600);
    for seconds in hours {
        database.clock.advance(SignedDuration::from_secs(if seconds > 0 { 3600 } else { 0 }));
        let task = format!("t{seconds}");
        received(&database, seconds, &task).await;
        let job = database.claim_one(JobKind::Prove, "manus", at(seconds)).await;
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(vec![delivery("crm", None)]) }];
        // A delivery is made a while after its event came.
        assert!(store.finish(job.lease, at(seconds + 5), Finish { moves, ..Finish::default() }).await.unwrap());
        let (source, code) = if seconds < 7200 { ("manus", "signature_missing") } else { ("second", "timestamp_stale") };
        store.record_rejections(vec![rejection(seconds, source, code)]).await.unwrap();
    }
    let times = [None, Some(0), Some(1), Some(3600), Some(3601), Some(3605), Some(10_800), Some(10_801), Some(99_999)];
    for (since, until) in times.iter().flat_map(|since| times.map(|until| (*since, until))) {
        let meant = |offset: i64| -> Vec<i64> {
            let within = |seconds: &i64| {
                since.is_none_or(|since| seconds + offset >= since) && until.is_none_or(|until| seconds + offset < until)
            };
            hours.into_iter().rev().filter(within).collect()
        };
        let what = format!("{since:?} {until:?}");
        let (since, until) = (since.map(at), until.map(at));
        let events = found(&database, EventFilter { since, until, ..EventFilter::default() }).await;
        assert_eq!(events, meant(0).iter().map(|seconds| format!("e{seconds}")).collect::<Vec<_>>(), "{what}");
        let tasks = store.tasks(TaskFilter { since, until, ..TaskFilter::default() }, page(9, None)).await.unwrap().data;
        let tasks: Vec<_> = tasks.into_iter().map(|row| row.task_id).collect();
        assert_eq!(tasks, meant(0).iter().map(|seconds| format!("t{seconds}")).collect::<Vec<_>>(), "{what}");
        let made = store.deliveries(Like { since, until, ..Like::default() }, page(9, None)).await.unwrap().data;
        let made: Vec<_> = made.into_iter().map(|row| row.task_id.unwrap()).collect();
        assert_eq!(made, meant(5).iter().map(|seconds| format!("t{seconds}")).collect::<Vec<_>>(), "{what}");
        let filter = RejectionFilter { since, until, ..RejectionFilter::default() };
        let rejected = store.rejections(filter, page(9, None)).await.unwrap().data;
        let rejected: Vec<_> = rejected.into_iter().map(|row| row.target).collect();
        let targets =
            meant(0).into_iter().map(|seconds| rejection(seconds, if seconds < 7200 { "manus" } else { "second" }, "").target);
        assert_eq!(rejected, targets.collect::<Vec<_>>(), "{what}");
    }
    let rejected = async |source: Option<&str>, code: Option<&str>| {
        let filter =
            RejectionFilter { source: source.map(str::to_owned), code: code.map(str::to_owned), ..RejectionFilter::default() };
        store.rejections(filter, page(9, None)).await.unwrap().data.len()
    };
    assert_eq!(rejected(Some("second"), None).await, 2);
    assert_eq!(rejected(None, Some("signature_missing")).await, 2);
    assert_eq!(rejected(Some("second"), Some("signature_missing")).await, 0);
}

/// Ten minutes of other clocks, and of what came at once, do not hide anything.
async fn what_is_out_of_order_in_time_is_found_all_the_same(database: Database) {
    for seconds in [0, 500, 30, 400, 1000, 700, 7200, 6900] {
        received(&database, seconds, "t").await;
    }
    for (since, until) in [(0, 31), (350, 600), (600, 1001), (6900, 7201), (7000, 9999), (400, 401)] {
        let filter = EventFilter { since: Some(at(since)), until: Some(at(until)), ..EventFilter::default() };
        let meant = [6900, 7200, 700, 1000, 400, 30, 500, 0].into_iter().filter(|seconds| (since..until).contains(seconds));
        assert_eq!(found(&database, filter).await, meant.map(|seconds| format!("e{seconds}")).collect::<Vec<_>>());
    }
}

async fn what_is_newer_comes_oldest_first_and_always_says_where_to_go_on(database: Database) {
    let store = database.store();
    let events = async |filter: EventFilter, limit, cursor| {
        let listed = store.events_after(filter, page(limit, Some(cursor))).await.unwrap();
        let next = next(&listed);
        (listed.data.into_iter().map(|row| row.event_id).collect::<Vec<_>>(), next)
    };
    let all = EventFilter::default;
    assert_eq!(events(all(), 9, 0).await, (vec![], 0));
    for number in 0..5 {
        database.dispatched(&format!("e{number}"), &format!("t{number}"), vec![delivery("crm", None)], at(0)).await;
        store.record_rejections(vec![rejection(number, "manus", "signature_missing")]).await.unwrap();
    }
    let (first, at_two) = events(all(), 2, 0).await;
    assert_eq!(first, ["e0", "e1"]);
    let (second, at_four) = events(all(), 2, at_two).await;
    assert_eq!(second, ["e2", "e3"]);
    let (rest, end) = events(all(), 2, at_four).await;
    assert_eq!(rest, ["e4"]);
    assert_eq!(events(all(), 2, end).await, (vec![], end));
    // What does not match is passed over, and need not be looked at again.
    for filter in [
        EventFilter { kind: Some("nothing".into()), ..all() },
        EventFilter { state: Some("quarantined".into()), ..all() },
        EventFilter { task_id: Some("nothing".into()), ..all() },
        EventFilter { text: Some("nothing".into()), ..all() },
        EventFilter { until: Some(at(-9999)), ..all() },
    ] {
        assert_eq!(events(filter, 2, 0).await, (vec![], end));
    }
    assert_eq!(events(EventFilter { task_id: Some("t3".into()), ..all() }, 2, 0).await, (vec!["e3".into()], end));
    assert_eq!(events(EventFilter { text: Some("T3".into()), ..all() }, 2, 0).await, (vec!["e3".into()], end));
    assert_eq!(events(EventFilter { state: Some("done".into()), ..all() }, 9, at_four).await, (vec!["e4".into()], end));
    database.stopped("e5", "t5").await;
    assert_eq!(events(all(), 2, end).await.0, ["e5"]);
    assert_eq!(events(EventFilter { state: Some("proving".into()), ..all() }, 2, 0).await.0, ["e5"]);

    let (mut made, mut known, mut rejected, mut cursors) = (Vec::new(), Vec::new(), Vec::new(), [0; 3]);
    for _ in 0..4 {
        let deliveries = store.deliveries_after(Like::default(), page(2, Some(cursors[0]))).await.unwrap();
        let tasks = store.tasks_after(TaskFilter::default(), page(2, Some(cursors[1]))).await.unwrap();
        let rejections = store.rejections_after(RejectionFilter::default(), page(2, Some(cursors[2]))).await.unwrap();
        cursors = [next(&deliveries), next(&tasks), next(&rejections)];
        made.extend(deliveries.data.into_iter().map(|row| row.task_id.unwrap()));
        known.extend(tasks.data.into_iter().map(|row| row.task_id));
        rejected.extend(rejections.data.into_iter().map(|row| row.received_at));
    }
    let tasks: Vec<_> = (0..5).map(|number| format!("t{number}")).collect();
    assert_eq!((&made, &known), (&tasks, &tasks), "what is not taken in has no task yet");
    assert_eq!((rejected.len(), rejected.is_sorted()), (5, true));
    for (state, number) in [("waiting", 0), ("open", 0), ("finished", 0)] {
        let filter = TaskFilter { state: Some(state.into()), ..TaskFilter::default() };
        assert_eq!(store.tasks_after(filter, page(9, Some(0))).await.unwrap().data.len(), number, "{state}");
    }
    let of_task = Like { task: Some("t3".into()), ..Like::default() };
    assert_eq!(store.deliveries_after(of_task.clone(), page(9, Some(0))).await.unwrap().data.len(), 1);
    assert_eq!(store.deliveries(of_task, page(9, None)).await.unwrap().data.len(), 1);
}

async fn what_was_read_up_to_the_newest_is_read_on_when_that_is_erased(database: Database) {
    let store = database.store();
    for number in 0..3 {
        let event_id = format!("e{number}");
        database.dispatched(&event_id, &format!("t{number}"), vec![], at(0)).await;
    }
    let read = async |cursor| store.events_after(EventFilter::default(), page(9, Some(cursor))).await.unwrap();
    let end = next(&read(0).await);
    while store.erase("manus", "t2", at(1)).await.unwrap() != taskhook::store::upkeep::Erased::Yes {}
    let end = next(&read(end).await);
    database.stopped("e3", "t3").await;
    assert_eq!(read(end).await.data.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), ["e3"]);
}

async fn text_is_found_in_titles_and_ids(database: Database) {
    let store = database.store();
    let named =
        |task_id: &str, title: &str| Proof { task_id: task_id.into(), how: "listed", title: Some(title.into()), url: None };
    let titles = [("t-abc", "Über 100% of what"), ("t_abc", "a b"), ("txabc", "Größe")];
    store.record_proofs("manus", titles.map(|(id, title)| named(id, title)).into(), at(0)).await.unwrap();
    let mut ids = Vec::new();
    for (task, event_id) in [("t-abc", "Stop-1"), ("t_abc", "stop_2"), ("txabc", "other")] {
        ids.push(database.dispatched(event_id, task, vec![], at(0)).await.to_string());
    }
    database.append(event("Homeless%", None, &json!({}))).await;
    let tasks = async |text: &str| {
        let filter = TaskFilter { text: Some(text.into()), ..TaskFilter::default() };
        let rows = store.tasks(filter, page(9, None)).await.unwrap().data;
        let mut ids: Vec<_> = rows.into_iter().map(|row| row.task_id).collect();
        ids.sort_unstable();
        ids
    };
    let with = |text: &str| EventFilter { text: Some(text.into()), ..EventFilter::default() };
    for (text, of_tasks, of_events) in [
        ("ÜBER", &["t-abc"][..], &["Stop-1"][..]),
        ("grösse", &[], &[]),
        ("gröSSE", &[], &[]),
        ("GRÖßE", &["txabc"], &["other"]),
        ("100%", &["t-abc"], &["Stop-1"]),
        ("%", &["t-abc"], &["Homeless%", "Stop-1"]),
        ("t_a", &["t_abc"], &["stop_2"]),
        ("_", &["t_abc"], &["stop_2"]),
        ("STOP", &["t-abc", "t_abc"], &["stop_2", "Stop-1"]),
        ("ABC", &["t-abc", "t_abc", "txabc"], &["other", "stop_2", "Stop-1"]),
        ("nothing", &[], &[]),
    ] {
        assert_eq!(tasks(text).await, of_tasks, "{text}");
        assert_eq!(found(&database, with(text)).await, of_events, "{text}");
    }
    // By our id, or a part of it.
    assert_eq!(found(&database, with(&ids[1].to_uppercase())).await, ["stop_2"]);
    assert_eq!(tasks(&ids[1][9..]).await, ["t_abc"]);
    // Together with what else a list can be narrowed to.
    assert_eq!(found(&database, EventFilter { task_id: Some("t_abc".into()), ..with("abc") }).await, ["stop_2"]);
    assert_eq!(found(&database, EventFilter { state: Some("proving".into()), ..with("%") }).await, ["Homeless%"]);
    assert_eq!(found(&database, EventFilter { source: Some("second".into()), ..with("abc") }).await, [""; 0]);
    assert_eq!(found(&database, EventFilter { since: Some(at(1)), ..with("abc") }).await, [""; 0]);
    let open = TaskFilter { text: Some("abc".into()), state: Some("open".into()), ..TaskFilter::default() };
    assert_eq!(store.tasks(open, page(9, None)).await.unwrap().data.len(), 3);
    let waiting = TaskFilter { text: Some("abc".into()), state: Some("waiting".into()), ..TaskFilter::default() };
    assert_eq!(store.tasks(waiting, page(9, None)).await.unwrap().data.len(), 0);
}

async fn the_newest_are_looked_through_for_text(database: Database) {
    let store = database.store();
    let many = |from: usize, to: usize| -> Vec<Proof> {
        let proof = |number| Proof { task_id: format!("number {number:05}"), how: "listed", title: None, url: None };
        (from..to).map(proof).collect()
    };
    database.dispatched("e", "number 00000", vec![], at(0)).await;
    for from in (1..SEARCHED).step_by(500) {
        store.record_proofs("manus", many(from, SEARCHED.min(from + 500)), at(1)).await.unwrap();
    }
    let tasks = async |text: &str| {
        let filter = TaskFilter { text: Some(text.into()), ..TaskFilter::default() };
        store.tasks(filter, page(9, None)).await.unwrap().data.len()
    };
    let events =
        async || found(&database, EventFilter { text: Some("number 00000".into()), ..EventFilter::default() }).await.len();
    assert_eq!((tasks("NUMBER 00000").await, events().await), (1, 1));
    store.record_proofs("manus", many(SEARCHED, SEARCHED + 1), at(1)).await.unwrap();
    assert_eq!((tasks("NUMBER 00000").await, tasks("NUMBER 00001").await, tasks("NUMBER 10000").await), (0, 1, 1));
    assert_eq!(events().await, 1, "the event itself is new");
}

async fn what_is_found_comes_in_pages(database: Database) {
    let store = database.store();
    for number in 0..7 {
        database.dispatched(&format!("e{number}"), &format!("yes-{}", number % 2), vec![], at(number)).await;
    }
    let filter = || EventFilter { text: Some("yes-1".into()), ..EventFilter::default() };
    let newest = store.events(filter(), page(2, None)).await.unwrap();
    let rest = store.events(filter(), page(2, Some(next(&newest)))).await.unwrap();
    let ids =
        |listed: Listed<taskhook::store::view::EventRow>| listed.data.into_iter().map(|row| row.event_id).collect::<Vec<_>>();
    assert_eq!((ids(newest), rest.next_cursor.clone(), ids(rest)), (vec!["e5".into(), "e3".into()], None, vec!["e1".into()]));
    let oldest = store.events_after(filter(), page(2, Some(0))).await.unwrap();
    let next_page = store.events_after(filter(), page(2, Some(next(&oldest)))).await.unwrap();
    assert_eq!((ids(oldest), ids(next_page)), (vec!["e1".into(), "e3".into()], vec!["e5".into()]));
}

/// What a transaction inserts that takes its time, in a list that is read meanwhile.
#[tokio::test]
async fn what_is_committed_late_is_not_passed_over() {
    let database = Database::postgres().await;
    let read = async |cursor: i64| {
        let listed = database.store().events_after(EventFilter::default(), page(9, Some(cursor))).await.unwrap();
        let next = next(&listed);
        (listed.data.into_iter().map(|row| row.event_id).collect::<Vec<_>>(), next)
    };
    database.stopped("first", "t").await;
    let (_, begin) = read(0).await;
    let beside = database.schema().connect().await;
    let insert = "BEGIN; INSERT INTO events (id, key, source, provider, type, event_id, received_at, verification, target, headers, body) \
                  VALUES (gen_random_uuid(), gen_random_uuid(), 'manus', 'manus', 'task_stopped', 'late', now(), 'signature', '/', '[]', '')";
    beside.batch_execute(insert).await.unwrap();
    // Nothing newer is seen: nobody has to wait.
    assert_eq!(read(begin).await, (vec![], begin));
    database.stopped("early", "t").await;
    let reading = read(begin);
    tokio::pin!(reading);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut reading).await;
    assert!(early.is_err(), "it waits: {early:?}");
    beside.batch_execute("COMMIT").await.unwrap();
    let (rows, end) = reading.await;
    assert_eq!(rows, ["late", "early"]);
    // One that does not end holds nobody up for long; and nothing is passed over for it.
    beside.batch_execute(&insert.replace("'late'", "'later'")).await.unwrap();
    database.stopped("next", "t").await;
    assert_eq!(read(end).await, (vec![], end));
    beside.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(read(end).await.0, ["next"]);
}
