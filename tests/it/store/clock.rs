//! Wall time that goes back.

use super::*;

contract!(
    what_is_due_later_comes_forward_by_as_much,
    a_jump_is_known_by_what_was_written_last,
    small_steps_of_the_clock_change_nothing,
    an_event_of_the_future_is_worked_on_at_once,
);

async fn went_back(database: &Database, by: Option<u64>, now: Timestamp) -> Option<(Duration, usize)> {
    database.store().clock_went_back(by.map(Duration::from_secs), now).await.unwrap()
}

async fn what_is_due_later_comes_forward_by_as_much(database: Database) {
    database.dispatched("e1", "t1", vec![delivery("crm", None), delivery("log", None)], at(1000)).await;
    let lease = database.claim_one(JobKind::Deliver, "crm", at(1000)).await.lease;
    assert!(database.retry(lease, at(1000), at(1030), "503").await);
    // It is 300 seconds earlier now.
    assert_eq!(went_back(&database, Some(300), at(700)).await, Some((Duration::from_mins(5), 2)));
    let claimed = database.claimed(JobKind::Deliver, "crm", 9, at(729)).await;
    assert_eq!((claimed.jobs.len(), claimed.next_due), (0, Some(at(730))));
    assert_eq!(database.claim(JobKind::Deliver, "crm", at(730)).await.len(), 1);
    let other = database.claim_one(JobKind::Deliver, "log", at(700)).await;
    assert_eq!(other.created_at, at(700), "its patience begins when it did");
}

async fn a_jump_is_known_by_what_was_written_last(mut database: Database) {
    assert_eq!(went_back(&database, None, at(0)).await, None, "it has never been written to");
    database.append(NewEvent { received_at: at(5000), ..event("e1", Some("t1"), &json!({})) }).await;
    let lease = database.claim_one(JobKind::Prove, "manus", at(5000)).await.lease;
    assert!(database.retry(lease, at(5000), at(5060), "503").await);
    database.reopen().await;
    assert_eq!(went_back(&database, None, at(5001)).await, None);
    assert_eq!(went_back(&database, None, at(1000)).await, Some((Duration::from_secs(4000), 1)));
    assert!(database.claim(JobKind::Prove, "manus", at(1059)).await.is_empty());
    assert_eq!(database.claim(JobKind::Prove, "manus", at(1060)).await.len(), 1);
}

async fn small_steps_of_the_clock_change_nothing(database: Database) {
    database.stopped("e1", "t1").await;
    let lease = database.claim_one(JobKind::Prove, "manus", at(0)).await.lease;
    assert!(database.retry(lease, at(0), at(60), "503").await);
    let before = database.dump().await;
    assert_eq!(database.store().clock_went_back(Some(Duration::from_millis(999)), at(0)).await.unwrap(), None);
    assert_eq!(database.dump().await, before);
}

async fn an_event_of_the_future_is_worked_on_at_once(database: Database) {
    database.append(NewEvent { received_at: at(9000), ..event("e1", Some("t1"), &json!({})) }).await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert_eq!((waiting(&job).len(), job.created_at), (1, at(0)));
}
