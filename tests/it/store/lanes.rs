//! Deliveries of one task to one destination go in order, and none waits for ever.

use taskhook::store::model::Like;
use taskhook::store::view::DeliveryRow;

use super::*;

contract!(
    only_the_head_of_a_lane_is_due,
    whichever_way_the_head_ends_the_next_is_released,
    a_head_that_is_tried_again_keeps_its_lane,
    lanes_do_not_wait_for_each_other,
    who_waited_long_enough_goes_out_of_order_and_says_so,
    a_lane_goes_on_behind_one_that_went_out_of_order,
    events_of_no_task_have_a_lane_each,
    one_event_has_one_delivery_for_a_destination,
    an_attempt_is_recorded_before_anything_is_sent,
);

const WAIT: Duration = Duration::from_mins(5);

async fn bodies(database: &Database, now: Timestamp) -> Vec<(Lease, String)> {
    let jobs = database.claim(JobKind::Deliver, "crm", now).await;
    jobs.iter().map(|job| (job.lease, outgoing(job).body.clone())).collect()
}

/// A delivery to `crm` that can be told from others.
fn marked(mark: &str, order_wait: Option<Duration>) -> NewDelivery {
    NewDelivery { body: format!(r#"{{"mark":"{mark}","out_of_order":false}}"#), ..delivery("crm", order_wait) }
}

fn body(mark: &str, out_of_order: bool) -> String {
    format!(r#"{{"mark":"{mark}","out_of_order":{out_of_order}}}"#)
}

async fn rows(database: &Database) -> Vec<DeliveryRow> {
    let mut rows = database.store().deliveries(Like::default(), Page { limit: 500, cursor: None }).await.unwrap().data;
    rows.reverse();
    rows
}

async fn only_the_head_of_a_lane_is_due(database: Database) {
    for mark in ["a", "b", "c"] {
        database.dispatched(mark, "t1", vec![marked(mark, None)], at(0)).await;
    }
    for mark in ["a", "b", "c"] {
        let due = bodies(&database, at(1)).await;
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].1, body(mark, false));
        // However long it takes.
        assert!(bodies(&database, at(100_000)).await.is_empty());
        assert!(database.finish(due[0].0, at(1)).await);
    }
    let rows = rows(&database).await;
    assert!(rows.iter().all(|row| row.state == "delivered" && !row.out_of_order && row.due_at.is_none()));
}

async fn whichever_way_the_head_ends_the_next_is_released(database: Database) {
    for mark in ["a", "b", "c"] {
        database.dispatched(mark, "t1", vec![marked(mark, None)], at(0)).await;
    }
    let (first, _) = bodies(&database, at(0)).await.remove(0);
    assert!(database.bury(first, at(1), "410 Gone").await);
    let (second, sent) = bodies(&database, at(1)).await.remove(0);
    assert_eq!(sent, body("b", false));
    assert!(database.store().finish(second, at(2), Finish { detail: Some("200 OK".into()), ..Finish::default() }).await.unwrap());
    assert_eq!(bodies(&database, at(2)).await[0].1, body("c", false));
    let rows = rows(&database).await;
    assert_eq!(rows[1].attempts[0].detail.as_deref(), Some("200 OK"));
    assert_eq!(rows.iter().map(|row| row.state.as_str()).collect::<Vec<_>>(), ["dead", "delivered", "pending"]);
}

async fn a_head_that_is_tried_again_keeps_its_lane(mut database: Database) {
    for mark in ["a", "b"] {
        database.dispatched(mark, "t1", vec![marked(mark, None)], at(0)).await;
    }
    let (lease, _) = bodies(&database, at(0)).await.remove(0);
    assert!(database.retry(lease, at(0), at(60), "503").await);
    assert!(bodies(&database, at(59)).await.is_empty());
    let (lease, sent) = bodies(&database, at(60)).await.remove(0);
    assert_eq!(sent, body("a", false));
    database.store().hand_back(vec![lease], at(61)).await.unwrap();
    assert_eq!(bodies(&database, at(61)).await.remove(0).1, body("a", false));
    database.reopen().await;
    database.store().expire(at(62)).await.unwrap();
    let due = bodies(&database, at(62)).await;
    assert_eq!((due.len(), &due[0].1), (1, &body("a", false)));
}

async fn lanes_do_not_wait_for_each_other(database: Database) {
    database.dispatched("a", "t1", vec![marked("a", None), delivery("log", None)], at(0)).await;
    database.dispatched("b", "t1", vec![marked("b", None), delivery("log", None)], at(0)).await;
    database.dispatched("c", "t2", vec![marked("c", None)], at(0)).await;
    let due: Vec<_> = bodies(&database, at(0)).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(due, [body("a", false), body("c", false)]);
    assert_eq!(database.claim(JobKind::Deliver, "log", at(0)).await.len(), 1);
}

async fn who_waited_long_enough_goes_out_of_order_and_says_so(database: Database) {
    let content = |out_of_order: bool| {
        format!(
            r#"{{"id":"é\u00e9\n","n":12345678901234567890,"f":1.50,"event":{{"out_of_order":false}},"out_of_order":{out_of_order},"z":[]}}"#
        )
    };
    database.dispatched("a", "t1", vec![marked("a", None)], at(0)).await;
    let late = NewDelivery { body: content(false), ..delivery("crm", Some(WAIT)) };
    database.dispatched("b", "t1", vec![late], at(10)).await;
    let (head, _) = bodies(&database, at(10)).await.remove(0);
    let waiting = database.claimed(JobKind::Deliver, "crm", 9, at(309)).await;
    assert_eq!((waiting.jobs.len(), waiting.next_due), (0, Some(at(310))));
    let (lease, sent) = bodies(&database, at(310)).await.remove(0);
    assert_eq!(sent, content(true), "nothing but the mark may change");
    assert!(rows(&database).await[1].out_of_order);
    assert!(database.retry(lease, at(310), at(311), "503").await);
    assert!(database.finish(head, at(311)).await);
    let (_, again) = bodies(&database, at(311)).await.remove(0);
    assert_eq!(again, content(true), "every attempt sends the same");
    assert!(!rows(&database).await[0].out_of_order);
}

async fn a_lane_goes_on_behind_one_that_went_out_of_order(database: Database) {
    database.dispatched("a", "t1", vec![marked("a", None)], at(0)).await;
    database.dispatched("b", "t1", vec![marked("b", Some(WAIT))], at(0)).await;
    database.dispatched("c", "t1", vec![marked("c", None)], at(0)).await;
    let (head, _) = bodies(&database, at(0)).await.remove(0);
    let (overtaking, _) = bodies(&database, at(300)).await.remove(0);
    assert!(database.finish(overtaking, at(301)).await);
    assert!(bodies(&database, at(301)).await.is_empty(), "the head still holds the lane");
    assert!(database.finish(head, at(302)).await);
    assert_eq!(bodies(&database, at(302)).await.remove(0).1, body("c", false));
}

async fn events_of_no_task_have_a_lane_each(database: Database) {
    for event_id in ["a", "b"] {
        database.append(event(event_id, None, &json!({"id": event_id}))).await;
        let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
        let Work::Task { waiting, .. } = &job.work else { panic!("{job:?}") };
        let moves = vec![Move { event: waiting[0].seq, to: Stage::Done(vec![marked(event_id, None)]) }];
        assert!(database.store().finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    }
    assert_eq!(bodies(&database, at(0)).await.len(), 2);
}

async fn one_event_has_one_delivery_for_a_destination(database: Database) {
    let id = database.dispatched("a", "t1", vec![marked("a", None), marked("again", None)], at(0)).await;
    let deliveries = database.event(id).await.deliveries;
    assert_eq!(deliveries.len(), 1);
    assert_eq!(database.backlog().await, [("deliver".into(), "crm".into(), 1)]);
    assert_eq!(bodies(&database, at(0)).await.remove(0).1, body("a", false));
}

async fn an_attempt_is_recorded_before_anything_is_sent(database: Database) {
    let made = marked("a", None);
    let expected = made.id;
    let id = database.dispatched("a", "t1", vec![made], at(0)).await;
    let job = database.claim_one(JobKind::Deliver, "crm", at(5)).await;
    assert_eq!((outgoing(&job).id, outgoing(&job).after_unknown), (expected, false));
    let row = database.event(id).await.deliveries.remove(0);
    assert_eq!((row.id, row.route.as_str(), row.state.as_str()), (expected.to_string(), "all", "pending"));
    let attempt = &row.attempts[0];
    assert_eq!((attempt.outcome.as_str(), attempt.started_at.as_str()), ("started", "2026-01-15T12:00:05.000Z"));
    assert_eq!(attempt.ended_at, None);
    let setback = Setback { unknown: true, ..setback("no answer within 6 s") };
    assert!(database.store().retry(job.lease, at(11), at(12), setback).await.unwrap());
    let again = database.claim_one(JobKind::Deliver, "crm", at(12)).await;
    assert!(outgoing(&again).after_unknown);
    assert_eq!(outgoing(&again).id, expected);
}
