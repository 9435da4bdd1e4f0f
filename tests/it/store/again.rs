//! What a person asks for: deliveries tried again or discarded, events replayed, destinations paused. And lanes, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use taskhook::store::model::{Act, Discarded, Like, Replayed, Retried, STEP, Select, TaskNews};
use taskhook::store::view::DeliveryRow;

use super::*;

contract!(
    a_dead_letter_that_is_retried_is_the_same_delivery_with_the_next_attempt,
    a_retry_by_hand_begins_the_ladder_anew_and_forgets_unknown_attempts,
    what_is_being_sent_or_has_ended_is_not_retried,
    a_dead_letter_joins_its_lane_at_its_old_place,
    a_dead_letter_does_not_go_while_another_of_its_lane_is_being_sent,
    who_gives_its_turn_up_waits_for_its_order_wait_at_most,
    a_discarded_delivery_frees_its_lane_and_is_kept,
    a_replay_makes_new_deliveries_after_the_proof,
    an_event_is_replayed_only_when_it_is_done_with,
    a_dead_event_is_replayed_from_the_stage_that_failed,
    rows_are_found_by_what_they_are_like_a_few_at_a_time,
    nothing_is_claimed_for_a_paused_destination_and_nothing_overtakes_after_it,
    lanes_keep_their_order_whatever_happens,
);

const WAIT: Duration = Duration::from_mins(5);

fn marked(mark: &str, order_wait: Option<Duration>) -> NewDelivery {
    NewDelivery { body: format!(r#"{{"mark":"{mark}","out_of_order":false}}"#), ..delivery("crm", order_wait) }
}

/// Every delivery, the first first.
async fn rows(database: &Database) -> Vec<DeliveryRow> {
    let mut rows = database.store().deliveries(Like::default(), Page { limit: 500, cursor: None }).await.unwrap().data;
    rows.reverse();
    rows
}

/// Deliveries `a`, `b`, … to `crm` in one lane; their ids.
async fn lane(database: &Database, marks: &[&str], order_wait: Option<Duration>) -> Vec<String> {
    for mark in marks {
        database.dispatched(mark, "t1", vec![marked(mark, order_wait)], at(0)).await;
    }
    rows(database).await.into_iter().map(|row| row.id).collect()
}

/// What is due for `crm`: its lease and its mark.
async fn due(database: &Database, now: Timestamp) -> Vec<(Lease, String)> {
    let mark = |job: &Job| serde_json::from_str::<Value>(&outgoing(job).body).unwrap()["mark"].as_str().unwrap().to_owned();
    database.claim(JobKind::Deliver, "crm", now).await.iter().map(|job| (job.lease, mark(job))).collect()
}

/// The one that is due must be `mark`.
async fn only(database: &Database, mark: &str, now: Timestamp) -> Lease {
    let due = due(database, now).await;
    assert_eq!(due.iter().map(|(_, mark)| mark.as_str()).collect::<Vec<_>>(), [mark]);
    due[0].0
}

async fn retry(database: &Database, id: &str, now: Timestamp) -> Retried {
    database.store().retry_delivery(id, now).await.unwrap()
}

async fn a_dead_letter_that_is_retried_is_the_same_delivery_with_the_next_attempt(database: Database) {
    let ids = lane(&database, &["a"], None).await;
    let first = only(&database, "a", at(0)).await;
    assert!(database.retry(first, at(0), at(1), "503").await);
    let second = only(&database, "a", at(1)).await;
    assert!(database.bury(second, at(1), "410 Gone").await);
    assert_eq!(database.store().backlog().await.unwrap().dead, 1);
    assert_eq!(retry(&database, &ids[0], at(2)).await, Retried::Due);
    assert_eq!(database.store().backlog().await.unwrap().dead, 0);
    let job = database.claim_one(JobKind::Deliver, "crm", at(2)).await;
    assert_eq!((outgoing(&job).id.to_string(), job.lease.attempt, outgoing(&job).tries), (ids[0].clone(), 3, 1));
    assert_ne!(job.lease.job, second.job, "no fence opens twice");
    assert!(!database.finish(second, at(3)).await);
    assert!(database.finish(job.lease, at(3)).await);
    let row = rows(&database).await.remove(0);
    assert_eq!((row.state.as_str(), row.reason), ("delivered", None));
    assert_eq!(row.attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>(), [1, 2, 3]);
}

async fn a_retry_by_hand_begins_the_ladder_anew_and_forgets_unknown_attempts(database: Database) {
    let ids = lane(&database, &["a"], None).await;
    let lease = only(&database, "a", at(0)).await;
    let unknown = Setback { unknown: true, ..setback("no answer") };
    assert!(database.store().retry(lease, at(0), at(3600), unknown.clone()).await.unwrap());
    // It backs off for an hour; the job that there is is no hindrance.
    assert_eq!(retry(&database, &ids[0], at(1)).await, Retried::Due);
    assert_eq!(retry(&database, &ids[0], at(1)).await, Retried::Due, "asked for twice is asked for once");
    let job = database.claim_one(JobKind::Deliver, "crm", at(1)).await;
    assert_eq!((job.lease.attempt, outgoing(&job).tries, outgoing(&job).after_unknown), (2, 1, false));
    assert!(database.retry(job.lease, at(2), at(3), "503").await);
    let job = database.claim_one(JobKind::Deliver, "crm", at(3)).await;
    assert_eq!((job.lease.attempt, outgoing(&job).tries, outgoing(&job).after_unknown), (3, 2, false));
    database.store().hand_back(vec![job.lease], at(3)).await.unwrap();
    let job = database.claim_one(JobKind::Deliver, "crm", at(3)).await;
    assert_eq!((job.lease.attempt, outgoing(&job).tries), (3, 2));
    assert!(database.store().retry(job.lease, at(4), at(5), unknown).await.unwrap());
    let job = database.claim_one(JobKind::Deliver, "crm", at(5)).await;
    assert!(outgoing(&job).after_unknown, "what came after the person's word counts");
}

async fn what_is_being_sent_or_has_ended_is_not_retried(database: Database) {
    let ids = lane(&database, &["a", "b"], None).await;
    assert_eq!(retry(&database, "019a9936-de14-7c3a-9d52-0f6c1e8b4a77", at(0)).await, Retried::Unknown);
    assert_eq!(retry(&database, &ids[1], at(0)).await, Retried::Behind(ids[0].clone()));
    let lease = only(&database, "a", at(0)).await;
    let store = database.store();
    let before = database.dump().await;
    assert_eq!(retry(&database, &ids[0], at(1)).await, Retried::InFlight);
    assert_eq!(store.discard_delivery(&ids[0], at(1)).await.unwrap(), Discarded::InFlight);
    assert_eq!(database.dump().await, before);
    assert!(database.finish(lease, at(1)).await);
    assert_eq!(store.discard_delivery(&ids[1], at(2)).await.unwrap(), Discarded::Yes);
    let before = database.dump().await;
    for (id, state) in [(&ids[0], "delivered"), (&ids[1], "discarded")] {
        assert_eq!(retry(&database, id, at(2)).await, Retried::Not(state.into()));
        assert_eq!(store.discard_delivery(id, at(2)).await.unwrap(), Discarded::Not(state.into()));
    }
    assert_eq!(database.dump().await, before);
}

async fn a_dead_letter_joins_its_lane_at_its_old_place(database: Database) {
    let ids = lane(&database, &["a", "b", "c", "d"], None).await;
    for mark in ["a", "b"] {
        let lease = only(&database, mark, at(0)).await;
        assert!(database.bury(lease, at(0), "410").await);
    }
    let backing_off = only(&database, "c", at(0)).await;
    assert!(database.retry(backing_off, at(0), at(3600), "503").await);
    // Whichever is asked for first.
    assert_eq!(retry(&database, &ids[1], at(1)).await, Retried::Due);
    assert_eq!(retry(&database, &ids[0], at(1)).await, Retried::Due);
    assert_eq!(retry(&database, &ids[1], at(1)).await, Retried::Behind(ids[0].clone()));
    for (mark, attempt) in [("a", 2), ("b", 2), ("c", 2), ("d", 1)] {
        let lease = only(&database, mark, at(2)).await;
        assert_eq!(lease.attempt, attempt, "{mark}");
        assert!(due(&database, at(100_000)).await.is_empty());
        assert!(database.finish(lease, at(2)).await);
    }
}

async fn a_dead_letter_does_not_go_while_another_of_its_lane_is_being_sent(mut database: Database) {
    for end in ["delivered", "failed", "given back", "crash"] {
        let database_of = |mark: &str| format!("{end} {mark}");
        let (first, second) = (database_of("a"), database_of("b"));
        let task = end.to_owned();
        for mark in [&first, &second] {
            database.dispatched(mark, &task, vec![marked(mark, None)], at(0)).await;
        }
        let ids: Vec<_> = rows(&database).await.into_iter().filter(|row| row.task_id.as_deref() == Some(end)).collect();
        let lease = only(&database, &first, at(0)).await;
        assert!(database.bury(lease, at(0), "410").await);
        let sent = only(&database, &second, at(0)).await;
        assert_eq!(retry(&database, &ids[0].id, at(1)).await, Retried::Behind(ids[1].id.clone()));
        assert!(due(&database, at(100_000)).await.is_empty(), "{end}");
        match end {
            "delivered" => assert!(database.finish(sent, at(2)).await),
            "failed" => assert!(database.retry(sent, at(2), at(3), "503").await),
            "given back" => database.store().hand_back(vec![sent], at(2)).await.unwrap(),
            _ => {
                database.reopen().await;
                database.store().expire(at(2)).await.unwrap();
            }
        }
        let lease = only(&database, &first, at(3)).await;
        assert!(due(&database, at(100_000)).await.is_empty(), "{end}");
        assert!(database.finish(lease, at(3)).await);
        if end != "delivered" {
            let lease = only(&database, &second, at(3)).await;
            assert!(database.finish(lease, at(4)).await);
        }
    }
}

async fn who_gives_its_turn_up_waits_for_its_order_wait_at_most(database: Database) {
    let ids = lane(&database, &["a", "b"], Some(WAIT)).await;
    let lease = only(&database, "a", at(0)).await;
    assert!(database.bury(lease, at(0), "410").await);
    // Nothing of `b` was sent yet.
    assert_eq!(retry(&database, &ids[0], at(10)).await, Retried::Due);
    let head = only(&database, "a", at(10)).await;
    assert!(database.retry(head, at(10), at(100_000), "503").await);
    assert!(due(&database, at(309)).await.is_empty());
    let late = only(&database, "b", at(310)).await;
    assert_eq!(rows(&database).await.iter().map(|row| row.out_of_order).collect::<Vec<_>>(), [false, true]);
    assert!(database.finish(late, at(310)).await);
    assert!(due(&database, at(99_999)).await.is_empty());
    let head = only(&database, "a", at(100_000)).await;
    assert_eq!(head.attempt, 3);
}

async fn a_discarded_delivery_frees_its_lane_and_is_kept(database: Database) {
    let ids = lane(&database, &["a", "b", "c"], None).await;
    let store = database.store();
    let lease = only(&database, "a", at(0)).await;
    assert!(database.retry(lease, at(0), at(3600), "503").await);
    assert_eq!(store.discard_delivery(&ids[0], at(1)).await.unwrap(), Discarded::Yes);
    let lease = only(&database, "b", at(1)).await;
    // One that waits for its turn goes too, and nobody else for it.
    assert_eq!(store.discard_delivery(&ids[2], at(1)).await.unwrap(), Discarded::Yes);
    assert!(due(&database, at(1)).await.is_empty());
    assert!(database.bury(lease, at(1), "410 Gone").await);
    assert_eq!(store.backlog().await.unwrap().dead, 1);
    assert_eq!(store.discard_delivery(&ids[1], at(2)).await.unwrap(), Discarded::Yes);
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.dead, backlog.jobs.len(), backlog.events), (0, 0, 0));
    let rows = rows(&database).await;
    assert!(rows.iter().all(|row| row.state == "discarded" && row.ended_at.is_some()), "{rows:?}");
    assert_eq!((rows[1].reason.as_deref(), rows[0].attempts.len()), (Some("410 Gone"), 1));
}

async fn a_replay_makes_new_deliveries_after_the_proof(database: Database) {
    let id = database.dispatched("a", "t1", vec![marked("a", None)], at(0)).await;
    let lease = only(&database, "a", at(0)).await;
    assert!(database.finish(lease, at(1)).await);
    let first = rows(&database).await.remove(0).id;
    let replay = async || database.store().replay_event(&id.to_string(), at(2)).await.unwrap();
    for number in [1, 2] {
        assert_eq!(replay().await, Replayed::Yes(number));
        assert_eq!(replay().await, Replayed::Already(number), "it is still on its way");
        assert_eq!(database.state(id).await, "proving");
        let job = database.claim_one(JobKind::Prove, "manus", at(2)).await;
        let Work::Task { waiting, .. } = &job.work else { panic!("{job:?}") };
        assert_eq!((waiting[0].id, waiting[0].replay), (id, number));
        let moves = vec![Move { event: waiting[0].seq, to: Stage::Done(vec![marked("again", None), marked("twice", None)]) }];
        assert!(database.store().finish(job.lease, at(2), Finish { moves, ..Finish::default() }).await.unwrap());
        let job = database.claim_one(JobKind::Deliver, "crm", at(2)).await;
        assert!(outgoing(&job).body.contains("again"));
        assert_eq!((outgoing(&job).event, outgoing(&job).replay), (id, number));
        assert!(database.finish(job.lease, at(3)).await);
    }
    let rows = rows(&database).await;
    let told: Vec<_> = rows.iter().map(|row| (row.replay, row.replay_of.clone())).collect();
    assert_eq!(told, [(0, None), (1, Some(first)), (2, Some(rows[1].id.clone()))]);
    let detail = database.event(id).await;
    assert_eq!((detail.replays, detail.replayed_at.as_deref()), (2, Some("2026-01-15T12:00:02.000Z")));
}

async fn an_event_is_replayed_only_when_it_is_done_with(database: Database) {
    let replay = async |id: Uuid| database.store().replay_event(&id.to_string(), at(1)).await.unwrap();
    assert_eq!(replay(Uuid::now_v7()).await, Replayed::Unknown);
    let ping = NewEvent { ping: true, first: First::Keep, ..event("p", Some("t0"), &json!({})) };
    let ping = database.append(ping).await.id();
    assert_eq!(replay(ping).await, Replayed::Not("ping".into()));
    let id = database.stopped("a", "t1").await;
    assert_eq!(replay(id).await, Replayed::Not("proving".into()));
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Quarantine("not ours".into()) }];
    assert!(database.store().finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
    assert_eq!(replay(id).await, Replayed::Not("quarantined".into()));
    // What was only kept goes the whole way, the proof included.
    let kept = NewEvent { first: First::Keep, ..event("k", Some("t2"), &json!({})) };
    let kept = database.append(kept).await.id();
    assert_eq!((database.state(kept).await.as_str(), replay(kept).await), ("kept", Replayed::Yes(1)));
    let job = database.claim_one(JobKind::Prove, "manus", at(1)).await;
    let Work::Task { known, task_id, .. } = &job.work else { panic!("{job:?}") };
    assert_eq!((known.proof.as_deref(), task_id.as_deref()), (None, Some("t2")));
}

async fn a_dead_event_is_replayed_from_the_stage_that_failed(database: Database) {
    let id = database.stopped("a", "t1").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Fetch }];
    let task = TaskNews { proof: Some("listed"), ..TaskNews::default() };
    assert!(database.store().finish(job.lease, at(0), Finish { moves, task, ..Finish::default() }).await.unwrap());
    let job = database.claim_one(JobKind::Fetch, "manus", at(0)).await;
    assert!(database.bury(job.lease, at(0), "400 Bad Request").await);
    assert_eq!(database.store().replay_event(&id.to_string(), at(1)).await.unwrap(), Replayed::Yes(1));
    let detail = database.event(id).await;
    assert_eq!((detail.row.state.as_str(), detail.row.reason, detail.reasons.len()), ("proving", None, 0));
    let settled = Capacity { kind: JobKind::Prove, queue: "manus".into(), which: Which::Settled, limit: 9 };
    let jobs = database.store().claim(vec![settled], at(1)).await.unwrap().jobs;
    let Work::Task { known, .. } = &jobs[0].work else { panic!("{jobs:?}") };
    assert_eq!((known.proof.as_deref(), known.fetched), (Some("listed"), false), "so it is fetched, and nothing is asked before");
}

async fn rows_are_found_by_what_they_are_like_a_few_at_a_time(database: Database) {
    let count = STEP + 7;
    for number in 0..count {
        let (id, task) = (format!("e{number}"), format!("t{}", number % 10));
        let other = NewDelivery { route: "other".into(), ..delivery("log", None) };
        database.dispatched(&id, &task, vec![marked("a", None), other], at(0)).await;
        for queue in ["crm", "log"] {
            let lease = database.claim_one(JobKind::Deliver, queue, at(0)).await.lease;
            assert!(database.bury(lease, at(0), "410").await);
        }
    }
    let all = async |select: Select| {
        let (mut found, mut after, mut looks) = (Vec::new(), Some(0), 0);
        while let Some(behind) = after {
            let some = database.store().matching(select.clone(), behind).await.unwrap();
            assert!(some.rows.len() <= STEP);
            found.extend(some.rows);
            (after, looks) = (some.next, looks + 1);
        }
        assert!(found.is_sorted() && looks <= 5, "{looks}");
        found
    };
    let like = |name: &str, value: &str| {
        let value = Some(value.to_owned());
        match name {
            "destination" => Like { destination: value, ..Like::default() },
            "route" => Like { route: value, ..Like::default() },
            "task" => Like { task: value, ..Like::default() },
            "type" => Like { kind: value, ..Like::default() },
            "source" => Like { source: value, ..Like::default() },
            _ => Like { state: value, ..Like::default() },
        }
    };
    for (name, value, expected) in [
        ("destination", "crm", count),
        ("route", "other", count),
        ("task", "t3", 12),
        ("task", "t3' OR 1", 0),
        ("type", "task_stopped", 2 * count),
        ("source", "second", 0),
        ("state", "dead", 2 * count),
        ("state", "pending", 0),
    ] {
        assert_eq!(all(Select::Deliveries(like(name, value))).await.len(), expected, "{name} {value}");
    }
    for (name, value, expected) in [("task", "t3", 6), ("state", "done", count), ("state", "dead", 0), ("type", "unknown", 0)] {
        assert_eq!(all(Select::Events(like(name, value))).await.len(), expected, "{name} {value}");
    }
    let times = |since: i64, until: i64| Like { since: Some(at(since)), until: Some(at(until)), ..Like::default() };
    for (since, until, expected) in [(0, 1, count), (1, 9, 0), (-9, 0, 0)] {
        assert_eq!(all(Select::Events(times(since, until))).await.len(), expected, "{since} {until}");
        assert_eq!(all(Select::Deliveries(times(since, until))).await.len(), 2 * expected, "{since} {until}");
    }
    let rows = all(Select::Deliveries(like("destination", "crm"))).await;
    let store = database.store();
    assert_eq!(store.act(Act::Retry, rows[..STEP].to_vec(), at(1)).await.unwrap(), STEP);
    assert_eq!(store.act(Act::Discard, rows[STEP..].to_vec(), at(1)).await.unwrap(), 7);
    assert_eq!(store.act(Act::Discard, rows[STEP..].to_vec(), at(1)).await.unwrap(), 0, "what changed is left alone");
    let events = all(Select::Events(like("state", "done"))).await;
    assert_eq!(store.act(Act::Replay, events[..STEP].to_vec(), at(1)).await.unwrap(), STEP);
    assert_eq!(store.act(Act::Replay, events[..STEP].to_vec(), at(1)).await.unwrap(), 0);
    assert_eq!(all(Select::Events(like("state", "done"))).await.len(), 7);
}

async fn nothing_is_claimed_for_a_paused_destination_and_nothing_overtakes_after_it(mut database: Database) {
    lane(&database, &["a", "b"], Some(WAIT)).await;
    let before = database.dump().await;
    assert!(!database.store().resume("crm", at(100)).await.unwrap());
    assert_eq!(database.dump().await, before, "what is not paused is not touched");
    database.dispatched("c", "t1", vec![delivery("log", None)], at(0)).await;
    assert_eq!(database.store().pause("crm", at(1)).await.unwrap(), "2026-01-15T12:00:01.000Z");
    assert_eq!(database.store().pause("crm", at(2)).await.unwrap(), "2026-01-15T12:00:01.000Z");
    database.reopen().await;
    database.store().expire(at(3)).await.unwrap();
    let claimed = database.claimed(JobKind::Deliver, "crm", 9, at(3600)).await;
    assert_eq!((claimed.jobs.len(), claimed.next_due), (0, None));
    assert_eq!(database.claim(JobKind::Deliver, "log", at(3600)).await.len(), 1);
    assert_eq!(database.store().paused().await.unwrap(), [("crm".to_owned(), "2026-01-15T12:00:01.000Z".to_owned())]);
    assert!(database.store().resume("crm", at(3600)).await.unwrap());
    assert!(!database.store().resume("crm", at(3600)).await.unwrap());
    // `b` waited far longer than its order wait, but not for `a`.
    let lease = only(&database, "a", at(3600)).await;
    assert!(database.finish(lease, at(3601)).await);
    only(&database, "b", at(3601)).await;
    assert!(rows(&database).await.iter().all(|row| !row.out_of_order));
}

/// A lane's deliveries under everything that can happen to them, in an order that a seed chooses.
async fn lanes_keep_their_order_whatever_happens(database: Database) {
    for seed in 0..4 {
        let mut chaos = Chaos {
            database: database.another().await,
            random: fastrand::Rng::with_seed(seed),
            now: 0,
            leases: BTreeMap::new(),
            exempt: BTreeSet::new(),
            successes: Vec::new(),
            paused: false,
            made: 0,
        };
        for _ in 0..100 {
            chaos.step().await;
        }
        chaos.end(seed).await;
    }
}

struct Chaos {
    database: Database,
    random: fastrand::Rng,
    now: i64,
    /// What is being sent, by delivery.
    leases: BTreeMap<String, Lease>,
    /// Deliveries that do not keep the order: dead once, marked, or past their order wait anew.
    exempt: BTreeSet<String>,
    successes: Vec<String>,
    paused: bool,
    made: usize,
}

impl Chaos {
    async fn step(&mut self) {
        self.now += self.random.i64(0..60);
        match self.random.u8(0..20) {
            0..=3 => self.make().await,
            4..=8 => self.claim().await,
            9..=13 => self.end_one().await,
            14..=15 => self.by_hand(true).await,
            16 => self.by_hand(false).await,
            17 => self.now += 400,
            18 => {
                let store = self.database.store();
                if self.paused {
                    assert!(store.resume("crm", at(self.now)).await.unwrap());
                } else {
                    assert!(!store.pause("crm", at(self.now)).await.unwrap().is_empty());
                }
                self.paused = !self.paused;
            }
            _ => {
                self.leases.clear();
                self.database.reopen().await;
                self.database.store().expire(at(self.now)).await.unwrap();
            }
        }
    }

    async fn make(&mut self) {
        self.made += 1;
        let (mark, task) = (format!("e{}", self.made), format!("t{}", self.random.u8(0..2)));
        let wait = self.random.bool().then_some(WAIT);
        self.database.dispatched(&mark, &task, vec![marked(&mark, wait)], at(self.now)).await;
    }

    async fn claim(&mut self) {
        let before = rows(&self.database).await;
        let limit = self.random.usize(1..4);
        let jobs = self.database.claimed(JobKind::Deliver, "crm", limit, at(self.now)).await.jobs;
        assert!(jobs.is_empty() || !self.paused, "it is paused");
        let after: BTreeMap<_, _> = rows(&self.database).await.into_iter().map(|row| (row.id.clone(), row)).collect();
        for job in &jobs {
            let id = outgoing(job).id.to_string();
            assert!(self.leases.insert(id.clone(), job.lease).is_none(), "{id} is sent twice at once");
            let place = before.iter().position(|row| row.id == id).unwrap();
            let (own, marked) = (&before[place], after[&id].out_of_order);
            let overtakes = before[..place].iter().any(|row| row.task_id == own.task_id && row.state == "pending");
            if overtakes {
                assert!(marked || !own.attempts.is_empty(), "{id} overtakes, and does not say so");
            }
            if overtakes || marked {
                self.exempt.insert(id);
            }
        }
        let sent: Vec<_> =
            self.leases.keys().filter(|id| !self.exempt.contains(*id)).map(|id| after[id].task_id.clone()).collect();
        let lanes: BTreeSet<_> = sent.iter().cloned().collect();
        assert_eq!(sent.len(), lanes.len(), "two of a lane are being sent");
    }

    async fn end_one(&mut self) {
        let ids: Vec<_> = self.leases.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.random.usize(0..ids.len())].clone();
        let lease = self.leases.remove(&id).unwrap();
        let (now, store) = (at(self.now), self.database.store());
        match self.random.u8(0..10) {
            0..=3 => {
                assert!(self.database.finish(lease, now).await);
                self.successes.push(id);
            }
            4..=6 => {
                let unknown = self.random.bool();
                let later = at(self.now + self.random.i64(1..600));
                assert!(store.retry(lease, now, later, Setback { unknown, ..setback("503") }).await.unwrap());
            }
            7..=8 => {
                assert!(self.database.bury(lease, now, "410").await);
                self.exempt.insert(id);
            }
            _ => store.hand_back(vec![lease], now).await.unwrap(),
        }
    }

    async fn by_hand(&mut self, again: bool) {
        let rows = rows(&self.database).await;
        if rows.is_empty() {
            return;
        }
        let id = rows[self.random.usize(0..rows.len())].id.clone();
        if again {
            retry(&self.database, &id, at(self.now)).await;
        } else {
            self.database.store().discard_delivery(&id, at(self.now)).await.unwrap();
        }
    }

    /// Everything is healthy again: all that is pending must go, and in order.
    async fn end(&mut self, seed: u64) {
        self.database.store().resume("crm", at(self.now)).await.unwrap();
        self.paused = false;
        for (_, lease) in std::mem::take(&mut self.leases) {
            self.database.store().hand_back(vec![lease], at(self.now)).await.unwrap();
        }
        for _ in 0..400 {
            self.now += 10;
            self.claim().await;
            for (id, lease) in std::mem::take(&mut self.leases) {
                assert!(self.database.finish(lease, at(self.now)).await);
                self.successes.push(id);
            }
            if self.database.backlog().await.is_empty() {
                break;
            }
        }
        let rows = rows(&self.database).await;
        assert!(rows.iter().all(|row| row.state != "pending"), "seed {seed}: left behind: {rows:?}");
        assert_eq!(self.database.backlog().await, [], "seed {seed}");
        let distinct: BTreeSet<_> = self.successes.iter().collect();
        assert_eq!(distinct.len(), self.successes.len(), "seed {seed}: one was delivered twice");
        for task in ["t0", "t1"] {
            let keeps = |id: &&String| !self.exempt.contains(*id);
            let of_task = |id: &&String| rows.iter().any(|row| row.id == **id && row.task_id.as_deref() == Some(task));
            let went: Vec<_> = self.successes.iter().filter(keeps).filter(of_task).collect();
            let accepted: Vec<_> = rows.iter().map(|row| &row.id).filter(|id| went.contains(id)).collect();
            assert_eq!(went, accepted, "seed {seed}, {task}");
        }
    }
}
