//! What people read: lists in pages, and the ring of rejections.

use taskhook::store::model::{NewRejection, Proof};

use super::*;

contract!(
    lists_come_in_pages_newest_first,
    a_list_of_events_can_be_narrowed,
    a_task_that_was_told_of_is_listed_and_ours_and_what_was_known_before_stands,
    rejections_are_a_ring_for_each_source_and_code,
    the_bodies_of_rejections_are_bounded_in_all,
    ids_are_found_by_how_they_begin,
    a_delivery_is_read_by_its_id_and_counted_for_its_destination,
    tasks_come_in_pages_and_with_their_events,
    one_may_look_into_a_store_that_is_open,
    text_of_any_kind_is_kept,
);

async fn lists_come_in_pages_newest_first(database: Database) {
    let mut ids = Vec::new();
    for number in 0..7 {
        let task = format!("t{number}");
        ids.insert(0, database.dispatched(&task, &task, vec![delivery("crm", None)], at(0)).await.to_string());
    }
    let (mut events, mut deliveries, mut cursors) = (Vec::new(), Vec::new(), [None, None]);
    for rest in [true, true, false] {
        let [cursor, deliveries_cursor] = cursors;
        let listed = database.store().events(EventFilter::default(), Page { limit: 3, cursor }).await.unwrap();
        let made = database
            .store()
            .deliveries(taskhook::store::model::Like::default(), Page { limit: 3, cursor: deliveries_cursor })
            .await
            .unwrap();
        events.extend(listed.data.into_iter().map(|row| row.id));
        deliveries.extend(made.data.into_iter().map(|row| row.event));
        assert_eq!((listed.next_cursor.is_some(), made.next_cursor.is_some()), (rest, rest));
        cursors = [listed.next_cursor, made.next_cursor].map(|cursor| cursor.map(|cursor| cursor.parse().unwrap()));
    }
    assert_eq!((&events, &deliveries), (&ids, &ids));
    let exact = database.store().events(EventFilter::default(), Page { limit: 7, cursor: None }).await.unwrap();
    assert_eq!((exact.data.len(), exact.next_cursor), (7, None));
}

async fn a_task_that_was_told_of_is_listed_and_ours_and_what_was_known_before_stands(database: Database) {
    let store = database.store();
    let proof = Proof { task_id: "t1".into(), how: "listed", title: Some("A title".into()), url: None };
    store.record_proofs("manus", vec![proof], at(0)).await.unwrap();
    for (task, kind) in [("t1", "task"), ("t2", "video"), ("t2", "image")] {
        store.track("manus", tracked(task, kind), at(5)).await.unwrap();
    }
    store.track("second", tracked("t2", "audio"), at(6)).await.unwrap();
    let rows = store
        .tasks(TaskFilter { source: Some("manus".into()), ..TaskFilter::default() }, Page { limit: 9, cursor: None })
        .await
        .unwrap()
        .data;
    let told =
        |row: &taskhook::store::view::TaskRow| (row.task_id.clone(), row.kind.clone().unwrap(), row.proof.clone().unwrap());
    let expected =
        [("t2", "video", "tracked"), ("t1", "task", "listed")].map(|(id, kind, proof)| (id.into(), kind.into(), proof.into()));
    assert_eq!(rows.iter().map(told).collect::<Vec<(String, String, String)>>(), expected);
    assert_eq!((rows[1].title.as_deref(), rows[0].state.as_deref()), (Some("A title"), None));
    // Nothing has to be asked for its events.
    database.stopped("e1", "t2").await;
    let settled = Capacity { kind: JobKind::Prove, queue: "manus".into(), which: Which::Settled, limit: 9 };
    assert_eq!(store.claim(vec![settled], at(7)).await.unwrap().jobs.len(), 1);
}

async fn a_list_of_events_can_be_narrowed(database: Database) {
    database.stopped("e1", "t1").await;
    database.append(NewEvent { source: "second".into(), ..event("e2", Some("t1"), &json!({})) }).await;
    database.append(NewEvent { kind: "unknown".into(), first: First::Keep, ..event("e3", None, &json!({})) }).await;
    let found = async |filter: EventFilter| {
        let rows = database.store().events(filter, Page { limit: 9, cursor: None }).await.unwrap().data;
        rows.into_iter().map(|row| row.event_id).collect::<Vec<_>>()
    };
    let all = EventFilter::default;
    assert_eq!(found(all()).await, ["e3", "e2", "e1"]);
    assert_eq!(found(EventFilter { source: Some("second".into()), ..all() }).await, ["e2"]);
    assert_eq!(found(EventFilter { kind: Some("unknown".into()), ..all() }).await, ["e3"]);
    assert_eq!(found(EventFilter { task_id: Some("t1".into()), ..all() }).await, ["e2", "e1"]);
    assert_eq!(found(EventFilter { state: Some("kept".into()), ..all() }).await, ["e3"]);
    assert_eq!(found(EventFilter { state: Some("kept".into()), task_id: Some("t1".into()), ..all() }).await, [""; 0]);
    let state = |state: &str| EventFilter { state: Some(state.to_owned()), ..all() };
    assert_eq!(found(state("proving")).await, ["e2", "e1"]);
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert_eq!(found(state("proving")).await, ["e2", "e1"], "taken in or not");
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Fetch }];
    assert!(database.store().finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    let job = database.claim_one(JobKind::Prove, "second", at(0)).await;
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Quarantine("not ours".into()) }];
    assert!(database.store().finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    for (state, expected) in
        [("proving", None), ("fetching", Some("e1")), ("quarantined", Some("e2")), ("dead", None), ("done", None)]
    {
        let filter = EventFilter { state: Some(state.to_owned()), ..all() };
        assert_eq!(found(filter).await.first().map(String::as_str), expected, "{state}");
    }
}

fn rejection(code: &'static str, body: Bytes) -> NewRejection {
    NewRejection {
        received_at: at(0),
        source: "manus".into(),
        code,
        explanation: Some("a slash".into()),
        target: "/webhooks/manus".into(),
        headers: vec![("host".into(), "x".into())],
        body_bytes: body.len() + 1,
        body,
    }
}

async fn listed(database: &Database) -> Vec<taskhook::store::view::RejectionRow> {
    database.store().rejections(RejectionFilter::default(), Page { limit: 5000, cursor: None }).await.unwrap().data
}

async fn rejections_are_a_ring_for_each_source_and_code(database: Database) {
    let store = database.store();
    let many = |code, count: usize| (0..count).map(|number| rejection(code, Bytes::from(format!("{code} {number}")))).collect();
    store.record_rejections(many("timestamp_stale", 5)).await.unwrap();
    store.record_rejections(many("signature_invalid", 150)).await.unwrap();
    store.record_rejections(many("signature_invalid", 150)).await.unwrap();
    let other = NewRejection { source: "second".into(), ..rejection("signature_invalid", Bytes::new()) };
    store.record_rejections(vec![other]).await.unwrap();
    let rows = listed(&database).await;
    let count = |source: &str, code: &str| rows.iter().filter(|row| row.source == source && row.code == code).count();
    assert_eq!(count("manus", "signature_invalid"), 200);
    assert_eq!((count("manus", "timestamp_stale"), count("second", "signature_invalid")), (5, 1));
    assert!(rows.is_sorted_by(|newer, older| newer.id > older.id));
    let newest = rows.iter().find(|row| row.source == "manus").unwrap();
    let whole = store.rejection(newest.id).await.unwrap().unwrap();
    assert_eq!((whole.body.as_str(), whole.row.body_bytes), ("signature_invalid 149", 22));
    assert_eq!(whole.headers, [("host".to_owned(), "x".to_owned())]);
    assert_eq!(whole.row.explanation.as_deref(), Some("a slash"));
    let page = store.rejections(RejectionFilter::default(), Page { limit: 50, cursor: None }).await.unwrap();
    assert_eq!(page.next_cursor, Some(rows[49].id.to_string()));
}

async fn the_bodies_of_rejections_are_bounded_in_all(database: Database) {
    const CODES: [&str; 7] = [
        "signature_missing",
        "signature_malformed",
        "signature_invalid",
        "timestamp_missing",
        "timestamp_malformed",
        "timestamp_stale",
        "authorization_invalid",
    ];
    let body = Bytes::from(vec![0xff; 16 << 10]);
    for code in CODES {
        let many = (0..200).map(|_| rejection(code, body.clone())).collect();
        database.store().record_rejections(many).await.unwrap();
    }
    let rows = listed(&database).await;
    let kept = rows.len() * (16 << 10);
    assert!((15 << 20..=16 << 20).contains(&kept), "{kept}");
    assert_eq!(rows[0].code, "authorization_invalid");
    assert!(rows.iter().all(|row| row.code != "signature_missing"), "the oldest go first");
}

async fn ids_are_found_by_how_they_begin(database: Database) {
    let store = database.store();
    let mut ids = Vec::new();
    for number in 0..5 {
        let task = format!("t{number}");
        ids.push(database.dispatched(&task, &task, vec![delivery("crm", None)], at(0)).await.to_string());
    }
    ids.sort_unstable();
    let event = |start: &str, limit| {
        let start = start.to_owned();
        async move { store.event_ids(&start, limit).await.unwrap() }
    };
    assert_eq!(event(&ids[2], 9).await, [ids[2].clone()]);
    // Made within one second, they begin alike.
    assert_eq!(event(&ids[0][..6], 9).await, ids);
    assert_eq!(event(&ids[0][..6], 2).await, ids[..2]);
    for nothing in ["f", "0x", "%", "_", "'", "g19"] {
        assert_eq!(event(nothing, 9).await, [""; 0], "{nothing}");
        assert_eq!(store.delivery_ids(nothing, 9).await.unwrap(), [""; 0], "{nothing}");
        assert!(store.event(nothing).await.unwrap().is_none() && store.delivery(nothing).await.unwrap().is_none());
    }
    let whole = &database.event(ids[0].parse().unwrap()).await.deliveries[0].id;
    assert_eq!(store.delivery_ids(&whole[..30], 9).await.unwrap(), std::slice::from_ref(whole));
    assert_eq!(store.delivery_ids(&whole[..6], 3).await.unwrap().len(), 3);
}

async fn a_delivery_is_read_by_its_id_and_counted_for_its_destination(database: Database) {
    let store = database.store();
    let made = delivery("crm", None);
    let id = made.id.to_string();
    let event = database.dispatched("e1", "t1", vec![made, delivery("log", None), delivery("bi", None)], at(0)).await;
    for (queue, done) in [("bi", true), ("log", false)] {
        let lease = database.claim_one(JobKind::Deliver, queue, at(0)).await.lease;
        assert!(if done { database.finish(lease, at(1)).await } else { database.bury(lease, at(1), "410").await });
    }
    let row = store.delivery(&id).await.unwrap().unwrap();
    assert_eq!((row.id, row.event, row.due_at.as_deref()), (id, event.to_string(), Some("2026-01-15T12:00:00.000Z")));
    assert!(store.delivery(&Uuid::now_v7().to_string()).await.unwrap().is_none());
    let mut counts = store.destination_counts().await.unwrap();
    counts.sort_by(|one, other| one.destination.cmp(&other.destination));
    let counts: Vec<_> = counts.iter().map(|row| (row.destination.as_str(), row.pending, row.dead)).collect();
    assert_eq!(counts, [("crm", 1, 0), ("log", 0, 1)]);
}

async fn tasks_come_in_pages_and_with_their_events(database: Database) {
    let store = database.store();
    for number in 0..7 {
        let task = format!("t{number}");
        database.stopped(&format!("a{number}"), &task).await;
        database.stopped(&format!("b{number}"), &task).await;
    }
    database.append(NewEvent { source: "second".into(), ..event("e", Some("t1"), &json!({})) }).await;
    database.claim(JobKind::Fetch, "manus", at(0)).await;
    let (mut found, mut cursor, mut looks) = (Vec::new(), None, 0);
    loop {
        let page = store
            .tasks(TaskFilter { source: Some("manus".into()), ..TaskFilter::default() }, Page { limit: 3, cursor })
            .await
            .unwrap();
        found.extend(page.data.into_iter().map(|row| row.task_id));
        looks += 1;
        cursor = page.next_cursor.map(|cursor| cursor.parse().unwrap());
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((found, looks), ((0..7).rev().map(|number| format!("t{number}")).collect(), 3));
    assert_eq!(store.tasks(TaskFilter::default(), Page { limit: 99, cursor: None }).await.unwrap().data.len(), 8);
    let task = store.task("manus", "t1").await.unwrap().unwrap();
    assert_eq!(task.events.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), ["b1", "a1"]);
    assert_eq!((task.row.first_seen_at.as_str(), task.row.proof), ("2026-01-15T12:00:00.000Z", None));
}

async fn one_may_look_into_a_store_that_is_open(database: Database) {
    for number in 0..3 {
        database.stopped(&format!("e{number}"), "t1").await;
    }
    let config = database.config();
    assert_eq!(Store::peek_instance_id(&config).unwrap(), database.store().instance_id());
    let totals = Store::peek_totals(&config).unwrap();
    assert!(totals.events == 3 && totals.bytes > 0, "{totals:?}");
    database.stopped("e3", "t1").await;
    assert_eq!(database.ids().await.len(), 4, "it is not disturbed");
}

/// A sender, a provider and a destination may say anything: a zero byte, what a database takes for a wildcard, what is no word.
async fn text_of_any_kind_is_kept(database: Database) {
    let store = database.store();
    for (number, word) in
        ["nu\0ll", "'; DROP TABLE events; --", "%_\\", "\u{feff}é\u{301}\u{10ffff}", "\t\r\n", "{}", "NULL"].iter().enumerate()
    {
        let new = NewEvent {
            target: format!("/webhooks/manus?{word}"),
            headers: vec![((*word).to_owned(), (*word).to_owned())],
            provider_type: Some((*word).to_owned()),
            ..event(word, Some(word), &json!({"event_id": word}))
        };
        let id = database.append(new.clone()).await.id();
        let again = NewEvent { id: Uuid::now_v7(), ..new };
        assert_eq!(database.append(again).await, Appended::Duplicate(id), "{word}");
        let kept = database.event(id).await;
        assert_eq!((&kept.payload["event_id"], kept.headers[0].0.as_str()), (&json!(word), *word));
        let shown = if word.contains('\0') { kept.row.event_id.clone() } else { (*word).to_owned() };
        assert_eq!((kept.row.event_id.as_str(), kept.row.task_id.as_deref()), (shown.as_str(), Some(shown.as_str())));
        let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
        let news = taskhook::store::model::TaskNews { proof: Some("listed"), ..Default::default() };
        let file = taskhook::store::model::NewFile {
            key: format!("key {number}"),
            event: waiting(&job)[0],
            name: (*word).to_owned(),
            url: Some((*word).to_owned()),
            content_type: Some((*word).to_owned()),
            size_bytes: None,
            refused: Some((*word).to_owned()),
        };
        let made = NewDelivery { body: json!({"x": word, "out_of_order": false}).to_string(), ..delivery("crm", None) };
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(vec![made]) }];
        let finish = Finish { moves, task: news, files: vec![file], ..Finish::default() };
        assert!(store.finish(job.lease, at(0), finish).await.unwrap());
        let lease = database.claim_one(JobKind::Deliver, "crm", at(0)).await.lease;
        assert!(database.retry(lease, at(0), at(0), word).await);
        let lease = database.claim_one(JobKind::Deliver, "crm", at(0)).await.lease;
        assert!(store.finish(lease, at(0), Finish { detail: Some((*word).to_owned()), ..Finish::default() }).await.unwrap());
        assert!(store.task("manus", word).await.unwrap().is_some(), "{word:?}");
        let found = store
            .events(EventFilter { task_id: Some((*word).to_owned()), ..EventFilter::default() }, Page { limit: 9, cursor: None });
        assert_eq!(found.await.unwrap().data.len(), 1, "{word:?}");
    }
    let rejection = NewRejection {
        target: "/\0".into(),
        explanation: Some("\0".into()),
        ..rejection("signature_invalid", Bytes::from_static(b"\0"))
    };
    store.record_rejections(vec![rejection]).await.unwrap();
    assert_eq!(listed(&database).await.len(), 1);
}
