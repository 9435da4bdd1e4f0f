//! What people read: lists in pages, and the ring of rejections.

use taskhook::store::model::{NewRejection, Proof};

use super::*;

contract!(
    lists_come_in_pages_newest_first,
    a_list_of_events_can_be_narrowed,
    a_task_that_was_told_of_is_listed_and_ours_and_what_was_known_before_stands,
    rejections_are_a_ring_for_each_source_and_code,
    the_bodies_of_rejections_are_bounded_in_all,
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
        store.track("manus", task, kind, at(5)).await.unwrap();
    }
    store.track("second", "t2", "audio", at(6)).await.unwrap();
    let rows = store.tasks(Some("manus".into()), Page { limit: 9, cursor: None }).await.unwrap().data;
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
    database.store().rejections(Page { limit: 5000, cursor: None }).await.unwrap().data
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
    let page = store.rejections(Page { limit: 50, cursor: None }).await.unwrap();
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
