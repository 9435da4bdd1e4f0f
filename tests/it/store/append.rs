//! An event is accepted once.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join, join_all};

use super::*;

contract!(
    an_event_is_kept_with_the_job_that_starts_its_work,
    the_same_event_again_is_a_duplicate,
    the_same_id_on_another_source_is_another_event,
    an_id_reused_with_other_content_is_a_collision,
    links_signed_anew_are_the_same_content,
    without_collisions_any_repeat_is_a_duplicate,
    what_is_only_kept_makes_no_job,
    bytes_that_are_no_text_come_back_as_they_were,
    of_many_at_once_one_is_new,
    everything_is_there_after_the_next_start,
    one_bad_row_does_not_take_its_neighbours,
    what_waits_to_be_written_is_bounded,
);

async fn an_event_is_kept_with_the_job_that_starts_its_work(database: Database) {
    let body = json!({"event_id": "e1", "n": 1});
    let mut new = event("e1", Some("t1"), &body);
    new.headers.push(("x-twice".into(), "1".into()));
    new.headers.push(("x-twice".into(), "2".into()));
    let (id, headers) = (new.id, new.headers.clone());
    assert_eq!(database.append(new).await, Appended::New(id));
    let kept = database.event(id).await;
    assert_eq!((kept.row.state.as_str(), kept.row.repeats), ("proving", 0));
    assert_eq!((kept.payload, kept.headers, kept.body_base64), (body.clone(), headers, None));
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let Work::Task { task_id, known, waiting } = &job.work else { panic!("{job:?}") };
    assert_eq!((task_id.as_deref(), known), (Some("t1"), &taskhook::store::model::Known::default()));
    assert_eq!((waiting.len(), waiting[0].id, waiting[0].received_at), (1, id, at(0)));
    assert_eq!(waiting[0].body, body.to_string());
    assert_eq!((job.lease.attempt, job.created_at), (1, at(0)));
}

async fn the_same_event_again_is_a_duplicate(database: Database) {
    let first = database.stopped("e1", "t1").await;
    let again = NewEvent { received_at: at(7), ..event("e1", Some("t1"), &json!({"event_id": "e1"})) };
    assert_eq!(database.append(again.clone()).await, Appended::Duplicate(first));
    // The same value in other bytes is the same content.
    let spaced = NewEvent { body: Bytes::from_static(b"{ \"event_id\" : \"e1\" }"), id: Uuid::now_v7(), ..again };
    assert_eq!(database.append(spaced).await, Appended::Duplicate(first));
    let kept = database.event(first).await;
    assert_eq!((kept.row.repeats, kept.last_repeat_at.as_deref()), (2, Some("2026-01-15T12:00:07.000Z")));
    assert_eq!(database.ids().await, [first.to_string()]);
    assert_eq!(database.backlog().await, [("prove".into(), "manus".into(), 1)]);
}

async fn the_same_id_on_another_source_is_another_event(database: Database) {
    let first = database.stopped("e1", "t1").await;
    let other = NewEvent { source: "second".into(), ..event("e1", Some("t1"), &json!({"event_id": "e1"})) };
    let id = other.id;
    assert_eq!(database.append(other).await, Appended::New(id));
    assert_ne!(first, id);
    assert_eq!(waiting(&database.claim_one(JobKind::Prove, "second", at(0)).await).len(), 1);
}

async fn an_id_reused_with_other_content_is_a_collision(database: Database) {
    let bodies: Vec<Value> = serde_json::from_str(include_str!("../../data/manus/event_id_reused.json")).unwrap();
    let send = |body: &Value| event("task_created_task_abc123", Some("task_abc123"), body);
    let first = database.append(send(&bodies[0])).await;
    let second = database.append(send(&bodies[1])).await;
    let (Appended::New(first), Appended::Collision(second)) = (first, second) else { panic!("{first:?} {second:?}") };
    assert_eq!(database.event(second).await.row.collision_of, Some(first.to_string()));
    // Both are known from now on, and a third content is one more.
    assert_eq!(database.append(send(&bodies[1])).await, Appended::Duplicate(second));
    assert_eq!(database.append(send(&bodies[0])).await, Appended::Duplicate(first));
    let third = database.append(send(&json!({"event_id": "task_created_task_abc123"}))).await;
    assert!(matches!(third, Appended::Collision(_)), "{third:?}");
    assert_eq!(database.event(third.id()).await.row.collision_of, Some(first.to_string()));
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert_eq!(waiting(&job).len(), 3, "a collision is worked on like any event");
}

async fn links_signed_anew_are_the_same_content(database: Database) {
    let signed = |signature: u32| {
        json!({"event_id": "e1", "task_detail": {
            "attachments": [{"url": format!("https://files.example.com/a.md?Signature={signature}&Expires={signature}")}],
            "message": format!("Done: [a](https://files.example.com/a.md?Signature={signature}), as asked."),
        }})
    };
    let first = database.append(event("e1", Some("t1"), &signed(1))).await;
    assert_eq!(database.append(event("e1", Some("t1"), &signed(2))).await, Appended::Duplicate(first.id()));
    let mut other = signed(3);
    other["task_detail"]["attachments"][0]["url"] = "https://files.example.com/b.md?Signature=1".into();
    assert!(matches!(database.append(event("e1", Some("t1"), &other)).await, Appended::Collision(_)));
}

async fn without_collisions_any_repeat_is_a_duplicate(database: Database) {
    let first = database.stopped("e1", "t1").await;
    let other = NewEvent { collides: false, ..event("e1", Some("t2"), &json!({"other": "content"})) };
    assert_eq!(database.append(other).await, Appended::Duplicate(first));
}

async fn what_is_only_kept_makes_no_job(database: Database) {
    let ping = NewEvent { first: First::Keep, ping: true, ..event("e1", Some("test_task_id"), &json!({})) };
    let homeless = NewEvent { first: First::Quarantine, ..event("e2", None, &json!({})) };
    let (ping, homeless) = (database.append(ping).await.id(), database.append(homeless).await.id());
    assert_eq!(database.state(ping).await, "kept");
    let quarantined = database.event(homeless).await.row;
    assert_eq!(quarantined.state, "quarantined");
    assert!(quarantined.reason.unwrap().contains("names no task"));
    assert_eq!(database.backlog().await, []);
}

async fn bytes_that_are_no_text_come_back_as_they_were(database: Database) {
    for (event_id, body) in [("e1", &b"\xff\xfe{"[..]), ("e2", b""), ("e3", b"no json"), ("e4", b"\0\n\xc3\xa9")] {
        let new = NewEvent { body: Bytes::copy_from_slice(body), ..event(event_id, Some(event_id), &json!(null)) };
        let id = database.append(new).await.id();
        let kept = database.event(id).await;
        match std::str::from_utf8(body) {
            Ok(text) => assert_eq!((kept.payload, kept.body_base64), (json!(text), None)),
            Err(_) => assert_eq!(kept.body_base64.as_deref(), Some("//57")),
        }
    }
    for job in database.claim(JobKind::Prove, "manus", at(0)).await {
        let Work::Task { task_id, waiting, .. } = job.work else { panic!("no task") };
        let expected = match task_id.as_deref() {
            Some("e1") => &b"\xff\xfe{"[..],
            Some("e2") => b"",
            Some("e3") => b"no json",
            _ => b"\0\n\xc3\xa9",
        };
        assert_eq!(waiting[0].body, expected);
    }
}

async fn of_many_at_once_one_is_new(database: Database) {
    let body = json!({"event_id": "e1"});
    let appended = join_all((0..64).map(|_| database.append(event("e1", Some("t1"), &body)))).await;
    let new: Vec<_> = appended.iter().filter(|appended| matches!(appended, Appended::New(_))).collect();
    assert_eq!(new.len(), 1);
    assert!(appended.iter().all(|appended| appended.id() == new[0].id()));
    assert_eq!(database.event(new[0].id()).await.row.repeats, 63);
}

async fn everything_is_there_after_the_next_start(mut database: Database) {
    let first = database.stopped("e1", "t1").await;
    let instance = database.store().instance_id().to_owned();
    database.store().save_verification_keys("manus", vec!["PEM 1".into(), "PEM 2".into()], at(3)).await.unwrap();
    let before = database.dump().await;
    database.reopen().await;
    assert_eq!(database.dump().await, before);
    assert_eq!(database.store().instance_id(), instance);
    assert_eq!(database.append(event("e1", Some("t1"), &json!({"event_id": "e1"}))).await, Appended::Duplicate(first));
    let keys = database.store().verification_keys("manus").await.unwrap();
    assert_eq!(keys, [("PEM 1".to_owned(), at(3)), ("PEM 2".to_owned(), at(3))]);
    assert_eq!(database.store().verification_keys("second").await.unwrap(), []);
}

async fn one_bad_row_does_not_take_its_neighbours(mut database: Database) {
    let first = database.stopped("e0", "t0").await;
    // While another connection writes, everything that comes piles up, and is committed together.
    let other = database.hold().await;
    let events = (1..=9).map(|number| {
        let event = event(&format!("e{number}"), Some("t1"), &json!({"n": number}));
        // An id that is taken cannot be inserted.
        if number == 5 { NewEvent { id: first, ..event } } else { event }
    });
    let appends = events.map(|event| database.store().append(event));
    let (appended, ()) = join(join_all(appends), other.let_go()).await;
    for (number, appended) in (1..).zip(&appended) {
        match appended {
            Err(error) if number == 5 => assert!(matches!(error, Error::Database(_) | Error::Refused(_)), "{error}"),
            other => assert!(matches!(other, Ok(Appended::New(_))), "{number}: {other:?}"),
        }
    }
    database.reopen().await;
    assert_eq!(database.ids().await.len(), 9);
    assert_eq!(waiting(&database.claim(JobKind::Prove, "manus", at(0)).await[1]).len(), 8);
}

async fn what_waits_to_be_written_is_bounded(database: Database) {
    let other = database.hold().await;
    let appends = (0..5_000).map(|number| database.store().append(event(&format!("e{number}"), None, &json!({}))));
    let (appended, ()) = join(join_all(appends), other.let_go()).await;
    let refused = appended.iter().filter(|appended| matches!(appended, Err(Error::QueueFull))).count();
    let kept = appended.iter().filter(|appended| matches!(appended, Ok(Appended::New(_)))).count();
    assert!(refused > 0, "nothing was refused");
    assert_eq!(refused + kept, 5_000);
}

/// Time is the machine's here: what is left to work beside the senders is a matter of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_senders_crowd_into_a_file() {
    crowd(Database::at(Place::Folder(tempfile::tempdir().unwrap()), Clock::system()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_senders_crowd_at_a_server() {
    crowd(Database::at(Place::Server(Schema::new()), Clock::system()).await).await;
}

async fn crowd(database: Database) {
    const ROUNDS: usize = 8;
    const SENDERS: usize = 64;
    const MOST: usize = 3000;
    let (database, worked) = (&database, AtomicBool::new(false));
    let send = async |sender: usize| {
        for number in 0..MOST {
            if worked.load(Ordering::Relaxed) {
                return true;
            }
            database.stopped(&format!("{sender}-{number}"), &format!("t{sender}")).await;
        }
        false
    };
    let work = async {
        for _ in 0..ROUNDS {
            let ends = database.claim(JobKind::Prove, "manus", database.clock.now()).await.into_iter().map(|job| {
                let moves = waiting(&job).into_iter().map(|event| Move { event, to: Stage::Done(Vec::new()) }).collect();
                database.store().finish(job.lease, database.clock.now(), Finish { moves, ..Finish::default() })
            });
            assert!(join_all(ends).await.into_iter().all(|ended| ended.unwrap()));
        }
        worked.store(true, Ordering::Relaxed);
    };
    let senders = join_all((0..SENDERS).map(send));
    let (senders, ()) = within("work beside a crowd", async { tokio::join!(senders, work) }).await;
    assert!(senders.into_iter().all(|stopped| stopped), "work waited until the senders had gone");
}
