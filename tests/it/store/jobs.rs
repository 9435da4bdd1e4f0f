//! Jobs: claimed with a fence, ended only by whoever holds it.

use taskhook::store::model::{Known, Proof, Released, TaskNews};
use taskhook::task::{Fetched, Task};

use super::*;

contract!(
    only_what_is_due_and_fits_is_claimed,
    a_leased_job_is_nobody_elses,
    every_end_is_fenced_by_its_lease,
    a_job_that_failed_is_due_again_later,
    a_job_given_back_is_as_if_it_had_never_been_claimed,
    leases_are_void_at_the_next_start,
    events_that_come_meanwhile_are_the_same_jobs_next_turn,
    held_events_wait_until_their_time,
    a_stage_makes_the_jobs_of_the_next,
    a_dead_letter_keeps_every_reason,
    what_is_learnt_of_a_task_is_known_to_its_next_job,
    when_the_provider_forgot_a_task_is_known_from_the_first_time_on,
    proofs_that_come_together_are_each_of_their_task,
    an_event_is_released_from_quarantine_only,
    a_turn_takes_so_many_events_and_the_rest_come_next,
    jobs_that_end_together_end_as_if_each_were_alone,
);

async fn only_what_is_due_and_fits_is_claimed(database: Database) {
    for task in ["t1", "t2", "t3"] {
        database.stopped(task, task).await;
    }
    assert!(database.claim(JobKind::Fetch, "manus", at(0)).await.is_empty());
    assert!(database.claim(JobKind::Prove, "second", at(0)).await.is_empty());
    let none = database.claimed(JobKind::Prove, "manus", 0, at(0)).await;
    assert_eq!((none.jobs.len(), none.next_due), (0, None));
    let early = database.claimed(JobKind::Prove, "manus", 10, at(-1)).await;
    assert_eq!((early.jobs.len(), early.next_due), (0, Some(at(0))));
    let two = database.claimed(JobKind::Prove, "manus", 2, at(0)).await;
    assert_eq!((two.jobs.len(), two.next_due), (2, Some(at(0))));
    let rest = database.claimed(JobKind::Prove, "manus", 2, at(0)).await;
    assert_eq!((rest.jobs.len(), rest.next_due), (1, None));
}

async fn a_leased_job_is_nobody_elses(database: Database) {
    database.stopped("e1", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert!(database.claim(JobKind::Prove, "manus", at(100_000)).await.is_empty());
    assert!(database.store().renew(job.lease).await.unwrap());
    assert!(database.finish(job.lease, at(1)).await);
    assert!(!database.store().renew(job.lease).await.unwrap());
}

/// Tries every end with `lease`, none of which may be taken or leave a trace.
async fn refused(database: &Database, lease: Lease) {
    let before = database.dump().await;
    let id = Uuid::now_v7();
    let news = || TaskNews { proof: Some("listed"), refused: true, probed: true, ..TaskNews::default() };
    let moves = vec![Move { event: 1, to: Stage::Done(vec![NewDelivery { id, ..delivery("crm", None) }]) }];
    let finish = Finish { task: news(), moves, detail: Some("200 OK".into()), ..Finish::default() };
    let setback = || Setback { reason: "late".into(), detail: None, unknown: true, unsent: false, task: news() };
    let store = database.store();
    assert!(!store.finish(lease, at(9), finish).await.unwrap());
    assert!(!store.retry(lease, at(9), at(10), setback()).await.unwrap());
    assert!(!store.bury(lease, at(9), setback()).await.unwrap());
    assert!(!store.renew(lease).await.unwrap());
    store.hand_back(vec![lease], at(9)).await.unwrap();
    assert_eq!(database.dump().await, before, "{lease:?}");
}

async fn every_end_is_fenced_by_its_lease(mut database: Database) {
    database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    for (kind, queue) in [(JobKind::Prove, "manus"), (JobKind::Deliver, "crm")] {
        let first = database.claim_one(kind, queue, at(0)).await.lease;
        refused(&database, Lease { job: first.job + 1000, ..first }).await;
        refused(&database, Lease { attempt: first.attempt + 1, ..first }).await;
        assert!(database.retry(first, at(0), at(1), "no").await);
        refused(&database, first).await;
        let second = database.claim_one(kind, queue, at(1)).await.lease;
        assert_eq!((second.job, second.attempt), (first.job, 2));
        refused(&database, first).await;
        database.store().hand_back(vec![second], at(1)).await.unwrap();
        refused(&database, second).await;
        let third = database.claim_one(kind, queue, at(1)).await.lease;
        refused(&database, second).await;
        database.reopen().await;
        assert_eq!(database.store().expire(at(2)).await.unwrap(), 1);
        refused(&database, third).await;
        let last = database.claim_one(kind, queue, at(2)).await.lease;
        refused(&database, third).await;
        assert!(database.finish(last, at(3)).await);
        refused(&database, last).await;
    }
}

async fn a_job_that_failed_is_due_again_later(database: Database) {
    let id = database.stopped("e1", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert!(database.retry(job.lease, at(1), at(60), "the API is down").await);
    let early = database.claimed(JobKind::Prove, "manus", 1, at(59)).await;
    assert_eq!((early.jobs.len(), early.next_due), (0, Some(at(60))));
    let work = database.event(id).await.work.unwrap();
    assert_eq!(
        work,
        json!({"kind": "prove", "attempt": 1, "due_at": "2026-01-15T12:01:00.000Z", "reasons": ["the API is down"]})
    );
    for attempt in 2..=30 {
        let job = database.claim_one(JobKind::Prove, "manus", at(attempt * 60)).await;
        assert_eq!((i64::from(job.lease.attempt), job.created_at), (attempt, at(0)));
        assert!(database.retry(job.lease, at(attempt * 60), at((attempt + 1) * 60), &format!("reason {attempt}")).await);
    }
    let reasons = &database.event(id).await.work.unwrap()["reasons"];
    assert_eq!((reasons.as_array().unwrap().len(), &reasons[0], &reasons[19]), (20, &json!("reason 11"), &json!("reason 30")));
}

async fn a_job_given_back_is_as_if_it_had_never_been_claimed(database: Database) {
    let id = database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    let leases = [
        database.claim_one(JobKind::Deliver, "crm", at(0)).await.lease,
        database.claim_one(JobKind::Prove, "manus", at(0)).await.lease,
    ];
    assert_eq!(database.event(id).await.deliveries[0].attempts.len(), 1);
    database.store().hand_back(leases.to_vec(), at(5)).await.unwrap();
    assert_eq!(database.event(id).await.deliveries[0].attempts.len(), 0);
    for (kind, queue) in [(JobKind::Deliver, "crm"), (JobKind::Prove, "manus")] {
        let job = database.claim_one(kind, queue, at(5)).await;
        assert_eq!((job.lease.attempt, job.created_at), (1, at(0)));
    }
}

async fn leases_are_void_at_the_next_start(mut database: Database) {
    let id = database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    database.claim_one(JobKind::Deliver, "crm", at(1)).await;
    database.claim_one(JobKind::Prove, "manus", at(1)).await;
    database.reopen().await;
    assert_eq!(database.store().expire(at(90)).await.unwrap(), 2);
    assert_eq!(database.store().expire(at(90)).await.unwrap(), 0);
    let attempt = database.event(id).await.deliveries[0].attempts[0].clone();
    assert_eq!((attempt.attempt, attempt.outcome.as_str()), (1, "unknown"));
    assert_eq!(attempt.started_at, "2026-01-15T12:00:01.000Z");
    assert_eq!(attempt.ended_at.as_deref(), Some("2026-01-15T12:01:30.000Z"));
    let job = database.claim_one(JobKind::Deliver, "crm", at(90)).await;
    assert!(outgoing(&job).after_unknown);
    assert_eq!(job.lease.attempt, 2);
    assert_eq!(database.claim_one(JobKind::Prove, "manus", at(90)).await.lease.attempt, 2);
}

async fn events_that_come_meanwhile_are_the_same_jobs_next_turn(database: Database) {
    database.stopped("e1", "t1").await;
    database.stopped("e2", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert_eq!(waiting(&job), [1, 2]);
    let late = database.stopped("e3", "t1").await;
    // Whatever is claimed, what was kept until then is taken in.
    assert_eq!(database.claim(JobKind::Fetch, "manus", at(1)).await.len(), 0);
    let moves = waiting(&job).into_iter().map(|event| Move { event, to: Stage::Done(Vec::new()) }).collect();
    assert!(database.store().finish(job.lease, at(1), Finish { moves, ..Finish::default() }).await.unwrap());
    let next = database.claim_one(JobKind::Prove, "manus", at(1)).await;
    assert_eq!((waiting(&next), next.created_at), (vec![3], at(1)));
    refused(&database, job.lease).await;
    let moves = vec![Move { event: 3, to: Stage::Done(Vec::new()) }];
    assert!(database.store().finish(next.lease, at(2), Finish { moves, ..Finish::default() }).await.unwrap());
    assert_eq!((database.state(late).await.as_str(), database.backlog().await), ("done", vec![]));
}

async fn held_events_wait_until_their_time(database: Database) {
    database.stopped("e1", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let again = Finish { again_at: Some(at(30)), ..Finish::default() };
    assert!(database.store().finish(job.lease, at(1), again.clone()).await.unwrap());
    assert!(database.claim(JobKind::Prove, "manus", at(29)).await.is_empty());
    let held = database.claim_one(JobKind::Prove, "manus", at(30)).await;
    assert_eq!(held.lease.attempt, 1);
    refused(&database, job.lease).await;
    assert!(database.store().finish(held.lease, at(30), Finish { again_at: Some(at(60)), ..again }).await.unwrap());
    // One that comes meanwhile is not made to wait as well.
    let new = NewEvent { received_at: at(40), ..event("e2", Some("t1"), &json!({})) };
    database.append(new).await;
    assert_eq!(waiting(&database.claim_one(JobKind::Prove, "manus", at(40)).await), [1, 2]);
}

async fn a_stage_makes_the_jobs_of_the_next(database: Database) {
    let mut ids = Vec::new();
    for event_id in ["e1", "e2", "e3", "e4"] {
        ids.push(database.stopped(event_id, "t1").await);
    }
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let to = [
        Stage::Fetch,
        Stage::Done(vec![delivery("crm", None), delivery("log", None)]),
        Stage::Quarantine("not ours".into()),
        Stage::Dead("route_error: x".into()),
    ];
    let moves = waiting(&job).into_iter().zip(to).map(|(event, to)| Move { event, to }).collect();
    assert!(database.store().finish(job.lease, at(1), Finish { moves, ..Finish::default() }).await.unwrap());
    let mut states = Vec::new();
    for id in &ids {
        let row = database.event(*id).await.row;
        states.push((row.state, row.reason));
    }
    let expected = [("fetching", None), ("done", None), ("quarantined", Some("not ours")), ("dead", Some("route_error: x"))];
    assert_eq!(states, expected.map(|(state, reason)| (state.to_owned(), reason.map(str::to_owned))));
    let jobs = [("deliver", "crm"), ("deliver", "log"), ("fetch", "manus")];
    assert_eq!(database.backlog().await, jobs.map(|(kind, queue)| (kind.to_owned(), queue.to_owned(), 1)));
    let backlog = database.store().backlog().await.unwrap();
    assert_eq!((backlog.events, backlog.quarantined, backlog.dead), (2, 1, 1));
    let fetch = database.claim_one(JobKind::Fetch, "manus", at(1)).await;
    assert_eq!(waiting(&fetch), [1]);
}

async fn a_dead_letter_keeps_every_reason(database: Database) {
    let id = database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    for attempt in 1..=3 {
        let lease = database.claim_one(JobKind::Deliver, "crm", at(attempt)).await.lease;
        if attempt < 3 {
            assert!(database.retry(lease, at(attempt), at(attempt + 1), &format!("no {attempt}")).await);
        } else {
            let setback = Setback { unknown: true, ..setback("no more") };
            assert!(database.store().bury(lease, at(attempt), setback).await.unwrap());
        }
    }
    let dead = database.event(id).await.deliveries.remove(0);
    assert_eq!((dead.state.as_str(), dead.reason.as_deref(), dead.due_at), ("dead", Some("no more"), None));
    let attempts: Vec<_> = dead.attempts.iter().map(|attempt| (attempt.outcome.as_str(), attempt.detail.as_deref())).collect();
    assert_eq!(attempts, [("failed", Some("no 1")), ("failed", Some("no 2")), ("unknown", Some("no more"))]);

    let id = database.stopped("e2", "t2").await;
    let first = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert!(database.retry(first.lease, at(0), at(1), "502 Bad Gateway").await);
    let second = database.claim_one(JobKind::Prove, "manus", at(1)).await;
    assert!(database.bury(second.lease, at(1), "400 Bad Request").await);
    let dead = database.event(id).await;
    assert_eq!((dead.row.state.as_str(), dead.row.reason.as_deref()), ("dead", Some("400 Bad Request")));
    assert_eq!(dead.reasons, ["502 Bad Gateway", "400 Bad Request"]);
    let backlog = database.store().backlog().await.unwrap();
    assert_eq!((backlog.jobs.len(), backlog.events, backlog.dead), (0, 0, 2));
}

async fn what_is_learnt_of_a_task_is_known_to_its_next_job(database: Database) {
    let known = async |event_id: &str, now| {
        database.stopped(event_id, "t1").await;
        let job = database.claim_one(JobKind::Prove, "manus", now).await;
        let Work::Task { known, .. } = job.work else { panic!("no task") };
        (job.lease, known)
    };
    let (lease, nothing) = known("e1", at(0)).await;
    assert_eq!(nothing, Known::default());
    let refused = TaskNews { refused: true, probed: true, ..TaskNews::default() };
    let setback = Setback { task: refused.clone(), ..setback("not visible") };
    assert!(database.store().retry(lease, at(1), at(2), setback).await.unwrap());
    let (lease, once) = known("e2", at(2)).await;
    assert_eq!(once, Known { proof: None, refused_at: Some(at(1)), probes: 1, ..Known::default() });
    let moves = vec![Move { event: 1, to: Stage::Fetch }, Move { event: 2, to: Stage::Done(Vec::new()) }];
    let news = TaskNews { proof: Some("private"), ..refused };
    assert!(database.store().finish(lease, at(3), Finish { task: news, moves, ..Finish::default() }).await.unwrap());
    let proofs = vec![Proof { task_id: "t1".into(), how: "listed", title: Some("T".into()), url: None }];
    database.store().record_proofs("manus", proofs, at(4)).await.unwrap();
    let (_, all) = known("e3", at(4)).await;
    assert_eq!(
        all,
        Known { proof: Some("private".into()), refused_at: Some(at(1)), probes: 2, fetching: true, ..Known::default() }
    );

    let fetch = database.claim_one(JobKind::Fetch, "manus", at(5)).await;
    let task = Task { id: "t1".into(), title: Some("Title".into()), credits: Some(22.0), ..Task::default() };
    let fetched = Fetched { task, files: Vec::new(), raw: json!({"raw": true}).to_string(), ..Fetched::default() };
    let news = TaskNews { fetched: Some(Box::new(fetched)), ..TaskNews::default() };
    let moves = vec![Move { event: 1, to: Stage::Done(Vec::new()) }];
    assert!(database.store().finish(fetch.lease, at(6), Finish { task: news, moves, ..Finish::default() }).await.unwrap());
    let task = database.store().task("manus", "t1").await.unwrap().unwrap();
    assert_eq!(
        (task.row.proof.as_deref(), task.row.title.as_deref(), task.row.credits),
        (Some("private"), Some("Title"), Some(22.0))
    );
    assert_eq!((task.raw, task.events.len()), (Some(json!({"raw": true})), 3));
    assert_eq!(task.row.fetched_at.as_deref(), Some("2026-01-15T12:00:06.000Z"));
    assert!(database.store().task("second", "t1").await.unwrap().is_none());
}

async fn when_the_provider_forgot_a_task_is_known_from_the_first_time_on(database: Database) {
    let deleted_at = async || database.store().task("manus", "t1").await.unwrap().unwrap().row.deleted_at;
    // Of a task that was never proven it says nothing.
    for (now, proof, expected) in
        [(1, None, None), (2, Some("listed"), Some("2026-01-15T12:00:02.000Z")), (3, None, Some("2026-01-15T12:00:02.000Z"))]
    {
        database.stopped(&format!("e{now}"), "t1").await;
        let job = database.claim_one(JobKind::Prove, "manus", at(now)).await;
        let moves = waiting(&job).into_iter().map(|event| Move { event, to: Stage::Done(Vec::new()) }).collect();
        let task = TaskNews { deleted: true, proof, ..TaskNews::default() };
        assert!(database.store().finish(job.lease, at(now), Finish { task, moves, ..Finish::default() }).await.unwrap());
        assert_eq!(deleted_at().await.as_deref(), expected);
    }
}

async fn proofs_that_come_together_are_each_of_their_task(database: Database) {
    let store = database.store();
    let proof = |task: &str, how, title: &str| Proof { task_id: task.into(), how, title: Some(title.into()), url: None };
    database.stopped("e1", "waits").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert!(store.retry(job.lease, at(0), at(900), setback("not visible")).await.unwrap());
    assert!(database.claim(JobKind::Prove, "manus", at(2)).await.is_empty());
    store.record_proofs("manus", vec![proof("old", "listed", "Old")], at(1)).await.unwrap();
    let together = [
        proof("new", "listed", "New"),
        proof("old", "created", "Another"),
        proof("waits", "private", "Waits"),
        proof("new", "created", "Twice"),
    ];
    store.record_proofs("manus", together.into(), at(2)).await.unwrap();
    for (task, how, title) in [("new", "listed", "New"), ("old", "listed", "Old"), ("waits", "private", "Waits")] {
        let row = store.task("manus", task).await.unwrap().unwrap().row;
        assert_eq!((row.proof.as_deref(), row.title.as_deref()), (Some(how), Some(title)), "{task}");
        assert!(store.task("second", task).await.unwrap().is_none());
    }
    let Work::Task { known, .. } = database.claim_one(JobKind::Prove, "manus", at(2)).await.work else { panic!("no task") };
    assert_eq!(known.proof.as_deref(), Some("private"), "what waited for its proof need not wait for its time");
}

async fn an_event_is_released_from_quarantine_only(database: Database) {
    let homeless = NewEvent { first: First::Quarantine, ..event("e1", None, &json!({})) };
    let id = database.append(homeless).await.id();
    let release = async |id: &str| database.store().release(id, at(9)).await.unwrap();
    assert_eq!(release(&id.to_string()).await, Released::Yes);
    assert_eq!(release(&id.to_string()).await, Released::Not("proving".into()));
    assert_eq!(release("no such event").await, Released::Unknown);
    let job = database.claim_one(JobKind::Prove, "manus", at(9)).await;
    let Work::Task { task_id: None, waiting, .. } = &job.work else { panic!("{job:?}") };
    assert_eq!((waiting.len(), waiting[0].id, waiting[0].released), (1, id, true));
    let kept = database.event(id).await;
    assert_eq!((kept.row.reason, kept.released_at.as_deref()), (None, Some("2026-01-15T12:00:09.000Z")));
    let moves = vec![Move { event: waiting[0].seq, to: Stage::Done(vec![delivery("crm", None)]) }];
    assert!(database.store().finish(job.lease, at(10), Finish { moves, ..Finish::default() }).await.unwrap());
    assert_eq!(database.backlog().await, [("deliver".into(), "crm".into(), 1)]);
}

async fn a_turn_takes_so_many_events_and_the_rest_come_next(database: Database) {
    for number in 0..250 {
        database.stopped(&format!("e{number}"), "t1").await;
    }
    let mut turns = Vec::new();
    while let Some(job) = database.claim(JobKind::Prove, "manus", at(0)).await.pop() {
        let events = waiting(&job);
        assert!(events.is_sorted());
        turns.push(events.len());
        let moves = events.into_iter().map(|event| Move { event, to: Stage::Done(Vec::new()) }).collect();
        assert!(database.store().finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    }
    assert_eq!(turns.iter().sum::<usize>(), 250);
    let (last, full) = turns.split_last().unwrap();
    assert!(!full.is_empty() && full.iter().all(|turn| *turn == full[0]) && *last <= full[0], "{turns:?}");
}

async fn jobs_that_end_together_end_as_if_each_were_alone(database: Database) {
    // A task whose fetch runs while it is to be proven again, beside many others and deliveries in two lanes.
    database.stopped("first", "t0").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Fetch }];
    assert!(database.store().finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    for number in 0..3 {
        let deliveries = vec![delivery("crm", None)];
        database.dispatched(&format!("d{number}"), if number == 2 { "lane2" } else { "lane1" }, deliveries, at(0)).await;
    }
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(database.stopped(&format!("e{number}"), &format!("t{number}")).await);
    }
    let fetch = database.claim_one(JobKind::Fetch, "manus", at(0)).await;
    let proofs = database.claim(JobKind::Prove, "manus", at(0)).await;
    let sent = database.claim(JobKind::Deliver, "crm", at(0)).await;
    assert_eq!((proofs.len(), sent.len()), (30, 2));

    let store = database.store();
    let ends = |job: &Job, to: &dyn Fn() -> Stage, task: TaskNews| {
        let moves = waiting(job).into_iter().map(|event| Move { event, to: to() }).collect();
        Finish { moves, task, ..Finish::default() }
    };
    let done = || Stage::Done(vec![delivery("crm", None), delivery("log", None)]);
    let mut done_with = vec![store.finish(fetch.lease, at(1), ends(&fetch, &done, TaskNews::default()))];
    let mut failed = Vec::new();
    for (number, job) in proofs.iter().enumerate() {
        match number {
            10..20 => failed.push(store.retry(job.lease, at(1), at(60), setback("busy"))),
            20..30 => failed.push(store.retry(Lease { attempt: 7, ..job.lease }, at(1), at(60), setback("somebody else's"))),
            _ => {
                let news = TaskNews { proof: Some("listed"), ..TaskNews::default() };
                done_with.push(store.finish(job.lease, at(1), ends(job, &done, news)));
            }
        }
    }
    let delivered = sent.iter().map(|job| store.finish(job.lease, at(1), Finish::default()));
    let (done_with, failed, delivered) = tokio::join!(
        futures_util::future::join_all(done_with),
        futures_util::future::join_all(failed),
        futures_util::future::join_all(delivered),
    );
    assert!(done_with.into_iter().chain(delivered).all(Result::unwrap));
    let held: Vec<bool> = failed.into_iter().map(Result::unwrap).collect();
    assert_eq!(held, [[true; 10], [false; 10]].concat());

    let mut states = Vec::new();
    for id in &ids {
        states.push(database.state(*id).await);
    }
    let expected: Vec<&str> = (0..30).map(|number| if number < 10 { "done" } else { "proving" }).collect();
    assert_eq!(states, expected);
    assert_eq!(database.claim(JobKind::Prove, "manus", at(59)).await.len(), 0);
    assert_eq!(database.claim(JobKind::Prove, "manus", at(60)).await.len(), 10);
    // The second of the first lane has its turn now; the task that was proven while it was fetched has two deliveries, one behind the
    // other; and nine have one each.
    let due: Vec<Lease> = database.claim(JobKind::Deliver, "crm", at(60)).await.iter().map(|job| job.lease).collect();
    assert_eq!(due.len(), 1 + 1 + 9);
    for lease in due {
        assert!(database.finish(lease, at(61)).await);
    }
    assert_eq!(database.claim(JobKind::Deliver, "crm", at(61)).await.len(), 1);
    assert_eq!(database.claim(JobKind::Deliver, "log", at(61)).await.len(), 10);
}
