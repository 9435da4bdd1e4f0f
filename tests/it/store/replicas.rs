//! Several replicas on one database: whatever they do at once comes out as if one had done it after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures_util::future::{join, join_all};
use taskhook::store::model::{Act, Known, Proof, Replayed, Retried, TaskNews};
use taskhook::store::upkeep::Erased;

use super::*;

/// A database with two replicas: that of the test, and another.
struct Pair {
    database: Database,
    other: Store,
}

impl Pair {
    async fn new() -> Self {
        let database = Database::postgres().await;
        let other = database.try_open().await.unwrap();
        Self { database, other }
    }

    fn one(&self) -> &Store {
        self.database.store()
    }

    fn both(&self) -> [&Store; 2] {
        [self.one(), &self.other]
    }
}

fn capacity(kind: JobKind, queue: &str, limit: usize) -> Vec<Capacity> {
    vec![Capacity { kind, queue: queue.to_owned(), which: Which::Any, limit }]
}

async fn claim(store: &Store, kind: JobKind, queue: &str, limit: usize) -> Vec<Job> {
    store.claim(capacity(kind, queue, limit), at(0)).await.unwrap().jobs
}

/// Ends a job whose events then have these deliveries.
async fn done(store: &Store, job: &Job, deliveries: impl Fn(i64) -> Vec<NewDelivery>) {
    let moves = waiting(job).into_iter().map(|event| Move { event, to: Stage::Done(deliveries(event)) }).collect();
    assert!(store.finish(job.lease, at(0), Finish { moves, ..Finish::default() }).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_all_get_at_once_is_new_once() {
    let pair = Pair::new().await;
    for round in 0..40 {
        let name = format!("e{round}");
        let body = json!({"event_id": name});
        let appends = (0..8).map(|number| pair.both()[number % 2].append(event(&name, Some("t1"), &body)));
        let appended: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
        let new: Vec<_> = appended.iter().filter(|appended| matches!(appended, Appended::New(_))).collect();
        assert_eq!(new.len(), 1, "{appended:?}");
        assert!(appended.iter().all(|appended| appended.id() == new[0].id()), "{appended:?}");
        assert_eq!(pair.database.event(new[0].id()).await.row.repeats, 7);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_overlap_wait_for_each_other_in_no_circle() {
    const EVENTS: usize = 600;
    let pair = Pair::new().await;
    let mut random = fastrand::Rng::with_seed(1);
    let events: Vec<_> = (0..EVENTS).map(|number| event(&format!("e{number}"), Some("t1"), &json!({"n": number}))).collect();
    let mut orders = [events.clone(), events];
    for order in &mut orders {
        random.shuffle(order);
    }
    let offers = pair.both().into_iter().zip(&orders).map(|(store, order)| {
        join_all(order.iter().map(|new| {
            let new = NewEvent { id: Uuid::now_v7(), ..new.clone() };
            async move { (new.event_id.clone(), store.append(new).await.unwrap()) }
        }))
    });
    let mut answers: BTreeMap<String, Vec<Appended>> = BTreeMap::new();
    for (event_id, appended) in within("all of them", join_all(offers)).await.into_iter().flatten() {
        answers.entry(event_id).or_default().push(appended);
    }
    for (event_id, answers) in &answers {
        let new = answers.iter().filter(|answer| matches!(answer, Appended::New(_))).count();
        assert!(new == 1 && answers[0].id() == answers[1].id(), "{event_id}: {answers:?}");
    }
    assert_eq!(answers.len(), EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_contents_under_one_id_each_is_kept_once() {
    let pair = Pair::new().await;
    for round in 0..30 {
        let name = format!("e{round}");
        let appends = (0..8).map(|number| {
            let event = event(&name, Some("t1"), &json!({"content": number / 4}));
            pair.both()[number % 2].append(event)
        });
        let appended: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
        let count = |wanted: fn(&Appended) -> bool| appended.iter().filter(|appended| wanted(appended)).count();
        let new = count(|appended| matches!(appended, Appended::New(_)));
        let collisions = count(|appended| matches!(appended, Appended::Collision(_)));
        assert_eq!((new, collisions), (1, 1), "{appended:?}");
        for same in appended.chunks(4) {
            assert!(same.iter().all(|appended| appended.id() == same[0].id()), "{appended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_claimed_twice() {
    const JOBS: usize = 300;
    let pair = Pair::new().await;
    for number in 0..JOBS {
        pair.database.stopped(&format!("e{number}"), &format!("t{number}")).await;
    }
    // All of it is there before the race begins.
    while pair.one().claim(capacity(JobKind::Prove, "second", 1), at(0)).await.unwrap().more {}
    let claimer = async |store: &Store| {
        let mut claimed = Vec::new();
        loop {
            let some = claim(store, JobKind::Prove, "manus", 7).await;
            if some.is_empty() {
                return claimed;
            }
            claimed.extend(some);
        }
    };
    let (one, other) = within("all jobs", join(claimer(pair.one()), claimer(&pair.other))).await;
    let both = [one.len(), other.len()];
    let jobs: Vec<_> = one.iter().chain(&other).collect();
    assert!(jobs.iter().all(|job| job.lease.attempt == 1 && waiting(job).len() == 1));
    let distinct: BTreeSet<_> = jobs.iter().map(|job| job.lease.job).collect();
    let events: BTreeSet<_> = jobs.iter().flat_map(|job| waiting(job)).collect();
    assert_eq!((jobs.len(), distinct.len(), events.len()), (JOBS, JOBS, JOBS));
    assert!(both.iter().all(|count| *count > 0), "{both:?}");
}

#[tokio::test]
async fn what_one_keeps_another_works_on() {
    let pair = Pair::new().await;
    let id = pair.database.stopped("e1", "t1").await;
    // One takes it in, and has no work of that queue.
    assert!(claim(pair.one(), JobKind::Prove, "second", 9).await.is_empty());
    let job = claim(&pair.other, JobKind::Prove, "manus", 9).await.remove(0);
    assert!(claim(pair.one(), JobKind::Prove, "manus", 9).await.is_empty());
    done(&pair.other, &job, |_| vec![delivery("crm", None)]).await;
    assert_eq!(pair.database.state(id).await, "done");
    let sent = claim(pair.one(), JobKind::Deliver, "crm", 9).await.remove(0);
    assert!(pair.one().renew(sent.lease).await.unwrap());
    assert!(pair.database.finish(sent.lease, at(1)).await);
    assert!(!pair.other.finish(job.lease, at(1), Finish::default()).await.unwrap());
}

/// Has `store` see the others gone, and what they hold expire; says how much that was.
async fn expired(pair: &Pair, store: &Store) -> usize {
    within("the end of the leases", async {
        loop {
            // The other one is alive, in truth, and says so at any moment.
            outlive(pair.database.schema(), store).await;
            let expired = store.expire(at(9)).await.unwrap();
            if expired > 0 {
                return expired;
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_is_thought_dead_ends_nothing_any_more() {
    let pair = Pair::new().await;
    let id = pair.database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    pair.database.stopped("e2", "t2").await;
    let sent = claim(pair.one(), JobKind::Deliver, "crm", 9).await.remove(0);
    let proven = claim(pair.one(), JobKind::Prove, "manus", 9).await.remove(0);
    assert_eq!(expired(&pair, &pair.other).await, 2);
    let again = claim(&pair.other, JobKind::Deliver, "crm", 9).await;
    assert!(again.is_empty(), "it is due from when it expired on");
    let again = pair.other.claim(capacity(JobKind::Deliver, "crm", 9), at(9)).await.unwrap().jobs.remove(0);
    assert_eq!((again.lease.job, again.lease.attempt, outgoing(&again).after_unknown), (sent.lease.job, 2, true));
    let before = pair.database.dump().await;
    for lease in [sent.lease, proven.lease] {
        assert!(!pair.one().renew(lease).await.unwrap());
        assert!(!pair.one().finish(lease, at(9), Finish::default()).await.unwrap());
        assert!(!pair.one().retry(lease, at(9), at(9), setback("503")).await.unwrap());
        assert!(!pair.one().bury(lease, at(9), setback("410")).await.unwrap());
        pair.one().hand_back(vec![lease], at(9)).await.unwrap();
    }
    assert_eq!(pair.database.dump().await, before);
    assert!(pair.other.finish(again.lease, at(9), Finish::default()).await.unwrap());
    let outcomes: Vec<_> =
        pair.database.event(id).await.deliveries.remove(0).attempts.into_iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, ["unknown", "delivered"]);
}

#[tokio::test]
async fn leases_of_who_lives_do_not_run_out() {
    let pair = Pair::new().await;
    pair.database.stopped("e1", "t1").await;
    let job = claim(pair.one(), JobKind::Prove, "manus", 9).await.remove(0);
    let beside = pair.database.schema().connect().await;
    beside.batch_execute("UPDATE replicas SET since = since - interval '1 hour'").await.unwrap();
    assert_eq!(pair.other.expire(at(100_000)).await.unwrap(), 0);
    assert_eq!(pair.one().expire(at(100_000)).await.unwrap(), 0, "nor one's own");
    // Who has not lived long himself cannot say so of another.
    let me = pair.other.replica().unwrap();
    let sql = "UPDATE replicas SET since = CASE WHEN id = $1 THEN clock_timestamp() ELSE since END, \
               seen_at = CASE WHEN id = $1 THEN seen_at ELSE seen_at - interval '1 hour' END";
    beside.execute(sql, &[&me]).await.unwrap();
    assert_eq!(pair.other.expire(at(100_000)).await.unwrap(), 0);
    assert!(pair.database.finish(job.lease, at(1)).await);
}

#[tokio::test]
async fn the_leases_of_a_process_that_ended_run_out_within_seconds() {
    let pair = Pair::new().await;
    pair.database.stopped("e1", "t1").await;
    claim(&pair.other, JobKind::Prove, "manus", 9).await.remove(0);
    let Pair { database, other } = pair;
    drop(other);
    // In real time, by the database's clock.
    within("the end of the lease", async {
        while database.store().expire(at(1)).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert_eq!(database.claim_one(JobKind::Prove, "manus", at(1)).await.lease.attempt, 2);
}

#[tokio::test]
async fn what_a_person_tells_one_holds_for_all() {
    let pair = Pair::new().await;
    let [one, other] = pair.both();
    let id = pair.database.dispatched("e1", "t1", vec![delivery("crm", None), delivery("log", None)], at(0)).await;
    let since = one.pause("crm", at(1)).await.unwrap();
    assert_eq!(other.pause("crm", at(2)).await.unwrap(), since);
    assert!(claim(other, JobKind::Deliver, "crm", 9).await.is_empty());
    assert!(other.resume("crm", at(3)).await.unwrap());
    let sent = one.claim(capacity(JobKind::Deliver, "crm", 9), at(3)).await.unwrap().jobs.remove(0);
    let delivery = outgoing(&sent).id.to_string();
    assert_eq!(other.retry_delivery(&delivery, at(3)).await.unwrap(), Retried::InFlight);
    assert!(pair.database.bury(sent.lease, at(3), "410").await);
    assert_eq!(other.retry_delivery(&delivery, at(3)).await.unwrap(), Retried::Due);
    assert_eq!(other.erase("manus", "t1", at(3)).await.unwrap(), Erased::Yes);
    assert!(one.event(&id.to_string()).await.unwrap().is_none());
    assert_eq!(
        one.own_key("files", vec![1; 32], at(1)).await.unwrap(),
        other.own_key("files", vec![2; 32], at(1)).await.unwrap()
    );
    one.record_proofs("manus", vec![Proof { task_id: "t2".into(), how: "listed", title: None, url: None }], at(3)).await.unwrap();
    pair.database.stopped("e2", "t2").await;
    let job = claim(other, JobKind::Prove, "manus", 9).await.remove(0);
    assert!(matches!(&job.work, Work::Task { known: Known { proof: Some(proof), .. }, .. } if proof == "listed"), "{job:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_told_to_both_at_once_is_granted_once() {
    let pair = Pair::new().await;
    for round in 0..25 {
        let name = format!("e{round}");
        let id = pair.database.dispatched(&name, &name, vec![delivery("crm", None)], at(0)).await;
        let job = claim(pair.one(), JobKind::Deliver, "crm", 1).await.remove(0);
        assert!(pair.database.bury(job.lease, at(0), "410").await);
        let (event, letter) = (id.to_string(), outgoing(&job).id.to_string());
        let retried = join_all(pair.both().map(|store| store.retry_delivery(&letter, at(1)))).await;
        assert!(retried.into_iter().all(|retried| retried.unwrap() == Retried::Due), "asked for twice is asked for once");
        let jobs = join_all(pair.both().map(|store| store.claim(capacity(JobKind::Deliver, "crm", 9), at(1)))).await;
        let jobs: Vec<_> = jobs.into_iter().flat_map(|claimed| claimed.unwrap().jobs).collect();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        assert!(pair.database.finish(jobs[0].lease, at(1)).await);
        let replayed = join_all(pair.both().map(|store| store.replay_event(&event, at(2)))).await;
        let replayed: Vec<_> = replayed.into_iter().map(Result::unwrap).collect();
        assert!(replayed.contains(&Replayed::Yes(1)) && replayed.contains(&Replayed::Already(1)), "{replayed:?}");
        let job = pair.other.claim(capacity(JobKind::Prove, "manus", 9), at(2)).await.unwrap().jobs.remove(0);
        done(&pair.other, &job, |_| Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_while_it_comes_again_is_known_or_new() {
    let pair = Pair::new().await;
    for round in 0..30 {
        let new = |number: usize| NewEvent { first: First::Keep, ..event("e", None, &json!({"round": round, "n": number / 9})) };
        let first = pair.one().append(new(0)).await.unwrap().id();
        claim(pair.one(), JobKind::Prove, "manus", 1).await;
        let page = pair.one().done_events(0, at(9), at(9)).await.unwrap();
        let gone: Vec<_> = page.rows.into_iter().map(|(seq, _)| seq).collect();
        let (removed, again) = join(pair.other.remove_events(gone, at(9)), pair.one().append(new(1))).await;
        let (removed, again) = (removed.unwrap(), again.unwrap());
        assert_eq!(removed.events, 1);
        assert!(matches!(again, Appended::New(id) if id != first) || again == Appended::Duplicate(first), "{again:?}");
        let kept = pair.database.ids().await;
        let expected = if matches!(again, Appended::New(_)) { vec![again.id().to_string()] } else { vec![] };
        assert_eq!(kept, expected);
        claim(pair.one(), JobKind::Prove, "manus", 1).await;
        let left = pair.one().done_events(0, at(9), at(9)).await.unwrap().rows.into_iter().map(|(seq, _)| seq).collect();
        pair.one().remove_events(left, at(9)).await.unwrap();
    }
}

/// What two replicas send, as they send it.
#[derive(Default)]
struct Sent {
    /// By lane, what is on its way.
    under_way: BTreeMap<String, Uuid>,
    /// By lane, what was delivered.
    delivered: BTreeMap<String, Vec<usize>>,
}

/// The lane and the place of what is sent.
fn place(job: &Job) -> (String, usize) {
    let body: Value = serde_json::from_str(&outgoing(job).body).unwrap();
    (body["lane"].as_str().unwrap().to_owned(), usize::try_from(body["place"].as_u64().unwrap()).unwrap())
}

const LANES: usize = 5;
const EACH: usize = 60;

/// Sends what is due until all is delivered: most at once, some later, some not at all this time.
async fn send(store: &Store, sent: &Mutex<Sent>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let all = |sent: &Mutex<Sent>| {
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.delivered.values().map(Vec::len).sum::<usize>() == LANES * EACH
    };
    while !all(sent) {
        let jobs = claim(store, JobKind::Deliver, "crm", random.usize(1..4)).await;
        if jobs.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for job in &jobs {
            let lane = place(job).0;
            let before = sent.lock().unwrap().under_way.insert(lane.clone(), outgoing(job).id);
            assert_eq!(before, None, "two of lane {lane} are being sent");
        }
        for job in jobs {
            if random.bool() {
                tokio::task::yield_now().await;
            }
            let (lane, place) = place(&job);
            let end = random.u8(0..10);
            {
                // Before it is told: the next of the lane may go from that moment on.
                let mut sent = sent.lock().unwrap();
                sent.under_way.remove(&lane);
                if end < 6 {
                    sent.delivered.entry(lane).or_default().push(place);
                }
            }
            match end {
                0..=5 => assert!(store.finish(job.lease, at(0), Finish::default()).await.unwrap()),
                6..=7 => assert!(store.retry(job.lease, at(0), at(0), setback("503")).await.unwrap()),
                _ => store.hand_back(vec![job.lease], at(0)).await.unwrap(),
            }
        }
    }
}

/// Takes events to their deliveries until all are made.
async fn prove(store: &Store, made: &Mutex<BTreeMap<i64, (String, usize)>>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let jobs = claim(store, JobKind::Prove, "manus", random.usize(1..3)).await;
        for job in &jobs {
            if random.u8(0..4) == 0 {
                store.hand_back(vec![job.lease], at(0)).await.unwrap();
                continue;
            }
            let Work::Task { task_id, waiting: events, .. } = &job.work else { panic!("{job:?}") };
            let lane = task_id.clone().unwrap();
            let mut moves = Vec::new();
            for new in events {
                let place: usize = new.event_id.rsplit_once('-').unwrap().1.parse().unwrap();
                let body = json!({"lane": lane, "place": place, "out_of_order": false}).to_string();
                moves.push(Move { event: new.seq, to: Stage::Done(vec![NewDelivery { body, ..delivery("crm", None) }]) });
                assert_eq!(made.lock().unwrap().insert(new.seq, (lane.clone(), place)), None, "{} is proven twice", new.seq);
            }
            let news = TaskNews { proof: Some("listed"), ..TaskNews::default() };
            assert!(store.finish(job.lease, at(0), Finish { moves, task: news, ..Finish::default() }).await.unwrap());
        }
        if made.lock().unwrap().len() == LANES * EACH {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_keep_their_order_whoever_works_on_them() {
    let pair = Pair::new().await;
    let (sent, made) = (Mutex::new(Sent::default()), Mutex::new(BTreeMap::new()));
    let feed = join_all((0..LANES).map(|lane| {
        let pair = &pair;
        async move {
            for place in 0..EACH {
                // Whichever replica the sender reaches.
                let new = event(&format!("{lane}-{place}"), Some(&format!("t{lane}")), &json!({"lane": lane, "place": place}));
                pair.both()[(lane + place / 7) % 2].append(new).await.unwrap();
            }
        }
    }));
    let work = join_all((0..2).flat_map(|number| {
        let store = pair.both()[number];
        let (seed, sent, made) = (number as u64, &sent, &made);
        let work: [std::pin::Pin<Box<dyn Future<Output = ()>>>; 3] =
            [Box::pin(prove(store, made, seed)), Box::pin(send(store, sent, seed + 10)), Box::pin(send(store, sent, seed + 20))];
        work
    }));
    within("all deliveries", join(feed, work)).await;
    let sent = sent.into_inner().unwrap();
    for (lane, places) in &sent.delivered {
        assert_eq!(places, &(0..EACH).collect::<Vec<_>>(), "{lane}");
    }
    assert_eq!(sent.delivered.len(), LANES);
    assert_eq!(pair.database.backlog().await, []);
    assert_eq!(taskhook::store::care::check(&pair.database.config(), false, &mut |_| {}).unwrap(), []);
}

/// People and workers at once, on both: nothing is left behind, nothing goes twice, and nobody waits in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_do_meanwhile_does_no_harm() {
    const EVENTS: i64 = 120;
    let pair = Pair::new().await;
    for number in 0..EVENTS {
        pair.database.stopped(&format!("e{number}"), &format!("t{}", number % 4)).await;
    }
    let worker = async |store: &Store, seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            for job in claim(store, JobKind::Prove, "manus", 2).await {
                done(store, &job, |_| vec![delivery("crm", None)]).await;
            }
            for job in claim(store, JobKind::Deliver, "crm", 3).await {
                match random.u8(0..3) {
                    0 => assert!(store.bury(job.lease, at(0), setback("410")).await.unwrap()),
                    1 => assert!(store.retry(job.lease, at(0), at(0), setback("503")).await.unwrap()),
                    _ => assert!(store.finish(job.lease, at(0), Finish::default()).await.unwrap()),
                }
            }
        }
    };
    let person = async |store: &Store, seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..60 {
            let some: Vec<_> = (0..5).map(|_| random.i64(1..=EVENTS)).collect();
            let act = [Act::Retry, Act::Discard, Act::Replay][random.usize(0..3)];
            store.act(act, some, at(0)).await.unwrap();
            store.remove_events((0..5).map(|_| random.i64(1..=EVENTS)).collect(), at(9)).await.unwrap();
            if random.u8(0..20) == 0 {
                let task = format!("t{}", random.u8(0..4));
                assert_ne!(store.erase("manus", &task, at(0)).await.unwrap(), Erased::Part);
            }
        }
    };
    let [one, other] = pair.both();
    let all = async { tokio::join!(worker(one, 1), worker(other, 2), worker(other, 3), person(one, 4), person(other, 5)) };
    within("everybody", Box::pin(all)).await;
    // What is left can be ended, and then nothing is.
    for _ in 0..400 {
        for job in claim(one, JobKind::Prove, "manus", 9).await {
            done(one, &job, |_| vec![delivery("crm", None)]).await;
        }
        for job in claim(one, JobKind::Deliver, "crm", 9).await {
            assert!(one.finish(job.lease, at(0), Finish::default()).await.unwrap());
        }
        if pair.database.backlog().await.is_empty() {
            break;
        }
    }
    assert_eq!(pair.database.backlog().await, []);
    let config = pair.database.config();
    assert_eq!(taskhook::store::care::check(&config, false, &mut |_| {}).unwrap(), []);
    let twice = "SELECT count(*) - count(DISTINCT delivery) FROM attempts WHERE outcome = 'delivered'";
    assert_eq!(pair.database.schema().connect().await.query_one(twice, &[]).await.unwrap().get::<_, i64>(0), 0);
}
