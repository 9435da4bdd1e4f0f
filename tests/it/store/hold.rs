//! Who claims the jobs of what, where replicas share a store: one at a time, and soon another one when that is gone.

use std::collections::BTreeSet;

use taskhook::store::model::{Bundle, Held, Queue};

use super::*;

fn source(name: &str) -> Queue {
    Queue::Source(name.to_owned())
}

fn destination(name: &str) -> Queue {
    Queue::Destination(name.to_owned())
}

/// Two sources of one account, another source, and three destinations, of which one is called like a source.
fn bundles(busy: bool) -> Vec<Bundle> {
    let sources = [vec![source("manus"), source("second")], vec![source("other")]];
    let destinations = ["crm", "log", "other"].map(|name| vec![destination(name)]);
    let all = sources.into_iter().map(|queues| Bundle { queues, busy });
    all.chain(destinations.map(|queues| Bundle { queues, busy: false })).collect()
}

/// All queues of [`bundles`].
fn all() -> BTreeSet<Queue> {
    bundles(false).into_iter().flat_map(|bundle| bundle.queues).collect()
}

fn queues(held: &[Held]) -> BTreeSet<Queue> {
    held.iter().map(|held| held.queue.clone()).collect()
}

async fn hold(store: &Store) -> Vec<Held> {
    store.hold(bundles(false)).await.unwrap()
}

/// Each asks in its turn until nothing moves any more; what each holds then.
async fn settled(stores: &[&Store]) -> Vec<BTreeSet<Queue>> {
    let (mut before, mut same) = (Vec::new(), 0);
    for _ in 0..50 {
        let mut now = Vec::new();
        for store in stores {
            now.push(queues(&hold(store).await));
        }
        let held: Vec<_> = now.iter().flatten().collect();
        assert_eq!(held.len(), held.iter().collect::<BTreeSet<_>>().len(), "two hold the same: {now:?}");
        same = if now == before { same + 1 } else { 0 };
        if same == 3 {
            return now;
        }
        before = now;
    }
    panic!("it never settles: {before:?}");
}

/// Lets so much time pass for replica `gone`: it was not seen for so long, and what it holds has not changed for so long.
async fn unseen(database: &Database, gone: Uuid, seconds: f64) {
    let connection = database.schema().connect().await;
    let sql = "UPDATE replicas SET seen_at = seen_at - make_interval(secs => $2) WHERE id = $1";
    connection.execute(sql, &[&gone, &seconds]).await.unwrap();
    let sql = "UPDATE queues SET changed_at = changed_at - make_interval(secs => $2) WHERE holder = $1";
    connection.execute(sql, &[&gone, &seconds]).await.unwrap();
    let sql = "UPDATE replicas SET since = since - interval '1 minute' WHERE id <> $1";
    connection.execute(sql, &[&gone]).await.unwrap();
}

async fn delivery_due(database: &Database) {
    database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
}

async fn claims(store: &Store) -> usize {
    let capacity = Capacity { kind: JobKind::Deliver, queue: "crm".to_owned(), which: Which::Any, limit: 9 };
    store.claim(vec![capacity], at(0)).await.unwrap().jobs.len()
}

#[tokio::test]
async fn in_a_file_one_holds_everything_for_ever() {
    let database = Database::sqlite().await;
    let held = hold(database.store()).await;
    assert_eq!(queues(&held), all());
    assert!(held.iter().all(|held| held.rested && held.elsewhere == 0), "{held:?}");
    database.store().let_go(Vec::new()).await.unwrap();
    assert_eq!(hold(database.store()).await, held);
}

#[tokio::test]
async fn one_that_is_alone_holds_everything_at_once_and_its_limits_are_whole_the_first_time() {
    let mut database = Database::postgres().await;
    let held = hold(database.store()).await;
    assert_eq!(queues(&held), all());
    assert!(held.iter().all(|held| held.rested && held.term == 1), "{held:?}");
    assert!(hold(database.store()).await.iter().all(|held| held.term == 1), "nothing changes");
    // It stops in order, and starts again at once: what it used within the last minute is not there twice.
    database.store().let_go(Vec::new()).await.unwrap();
    database.open().await;
    let held = hold(database.store()).await;
    assert_eq!(queues(&held), all());
    assert!(held.iter().all(|held| !held.rested && held.term == 3), "{held:?}");
}

#[tokio::test]
async fn each_of_several_gets_its_share_and_claims_nothing_else() {
    let database = Database::postgres().await;
    assert_eq!(queues(&hold(database.store()).await), all());
    delivery_due(&database).await;
    let (second, third) = (database.try_open().await.unwrap(), database.try_open().await.unwrap());
    let stores = [database.store(), &second, &third];
    let held = settled(&stores).await;
    assert_eq!(held.iter().flatten().cloned().collect::<BTreeSet<_>>(), all());
    for held in &held {
        let account = [source("manus"), source("second")];
        assert!(
            held.is_superset(&account.clone().into()) || held.is_disjoint(&account.into()),
            "an account is held as one: {held:?}"
        );
        let bundles = held.len() - usize::from(held.contains(&source("manus")));
        assert!((1..=2).contains(&bundles), "{held:?}");
    }
    let holder = held.iter().position(|held| held.contains(&destination("crm"))).unwrap();
    for (number, store) in stores.iter().enumerate().filter(|(number, _)| *number != holder) {
        assert_eq!(claims(store).await, 0, "{number} claims what {holder} holds");
    }
    assert_eq!(claims(stores[holder]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_begin_together_hold_everything_once() {
    let database = Database::postgres().await;
    let (second, third) = (database.try_open().await.unwrap(), database.try_open().await.unwrap());
    let stores = [database.store(), &second, &third];
    futures_util::future::join_all(stores.map(hold)).await;
    let held = settled(&stores).await;
    assert_eq!(held.iter().flatten().cloned().collect::<BTreeSet<_>>(), all());
}

#[tokio::test]
async fn what_calls_a_provider_now_is_handed_over_when_it_has_ended() {
    let database = Database::postgres().await;
    let one = database.store();
    hold(one).await;
    let other = database.try_open().await.unwrap();
    for _ in 0..3 {
        hold(&other).await;
        let held = queues(&one.hold(bundles(true)).await.unwrap());
        assert!(held.is_superset(&[source("manus"), source("other")].into()), "destinations go first: {held:?}");
    }
    // With what is handed over at once it would have no less than the other.
    let held = queues(&hold(&other).await);
    assert_eq!(held, [destination("log"), destination("other")].into());
    let third = database.try_open().await.unwrap();
    let sources: Vec<_> = bundles(true).into_iter().filter(|bundle| bundle.busy).collect();
    hold(&third).await;
    // One that is asked for, and busy, is not worked for any more, and not handed over either.
    let only = |bundles: &[Bundle]| bundles.to_vec();
    for _ in 0..3 {
        third.hold(only(&sources)).await.unwrap();
        one.hold(only(&sources)).await.unwrap();
    }
    let mine = queues(&one.hold(only(&sources)).await.unwrap());
    let theirs = queues(&third.hold(only(&sources)).await.unwrap());
    assert_eq!((mine, theirs), ([source("manus"), source("second")].into(), BTreeSet::new()));
    let idle: Vec<_> = sources.into_iter().map(|bundle| Bundle { busy: false, ..bundle }).collect();
    one.hold(only(&idle)).await.unwrap();
    assert_eq!(queues(&third.hold(idle).await.unwrap()), [source("other")].into());
}

#[tokio::test]
async fn what_one_held_that_is_gone_is_taken_with_nothing_left_of_its_limits() {
    let database = Database::postgres().await;
    hold(database.store()).await;
    delivery_due(&database).await;
    let other = database.try_open().await.unwrap();
    settled(&[database.store(), &other]).await;
    let gone = database.store().replica().unwrap();
    // Four seconds without a sign are not enough.
    unseen(&database, gone, 4.0).await;
    assert!(queues(&hold(&other).await).len() < all().len());
    unseen(&database, gone, 2.0).await;
    let held = hold(&other).await;
    assert_eq!(queues(&held), all());
    assert!(held.iter().all(|held| held.term == 2 && !held.rested), "{held:?}");
    // It only could not reach the database: it claims nothing of what is the other's now, and gets its share again.
    assert_eq!(claims(database.store()).await, 0);
    assert_eq!(claims(&other).await, 1);
    database.schema().connect().await.batch_execute("UPDATE replicas SET seen_at = clock_timestamp()").await.unwrap();
    let held = settled(&[database.store(), &other]).await;
    assert!(held.iter().all(|held| held.len() >= 2), "{held:?}");
}

#[tokio::test]
async fn limits_are_whole_again_a_minute_after_their_last_use() {
    let database = Database::postgres().await;
    hold(database.store()).await;
    let other = database.try_open().await.unwrap();
    hold(&other).await;
    unseen(&database, database.store().replica().unwrap(), 61.0).await;
    let held = hold(&other).await;
    assert_eq!(queues(&held), all());
    assert!(held.iter().all(|held| held.rested), "{held:?}");
}

#[tokio::test]
async fn after_an_outage_that_all_met_nothing_changes_hands() {
    let database = Database::postgres().await;
    hold(database.store()).await;
    let other = database.try_open().await.unwrap();
    let before = settled(&[database.store(), &other]).await;
    let connection = database.schema().connect().await;
    connection.batch_execute("UPDATE replicas SET seen_at = seen_at - interval '1 minute'").await.unwrap();
    // The other one is seen again first, and has not been for long.
    let me = other.replica().unwrap();
    let sql = "UPDATE replicas SET seen_at = clock_timestamp(), since = clock_timestamp() WHERE id = $1";
    connection.execute(sql, &[&me]).await.unwrap();
    assert_eq!(queues(&hold(&other).await), before[1]);
    assert_eq!(settled(&[database.store(), &other]).await, before);
}

#[tokio::test]
async fn who_stops_in_order_leaves_at_once_what_it_does_not_need_any_more() {
    let database = Database::postgres().await;
    hold(database.store()).await;
    let other = database.try_open().await.unwrap();
    assert!(hold(&other).await.is_empty());
    database.store().let_go(vec![source("other")]).await.unwrap();
    let mut held = hold(&other).await;
    held.extend(hold(&other).await);
    assert_eq!(queues(&held), all().into_iter().filter(|queue| *queue != source("other")).collect());
    database.store().let_go(Vec::new()).await.unwrap();
    assert_eq!(queues(&hold(&other).await), all());
}

#[tokio::test]
async fn what_nobody_else_knows_is_taken_by_whoever_knows_it() {
    let database = Database::postgres().await;
    let other = database.try_open().await.unwrap();
    // The other one's configuration knows one of them only.
    let known = vec![Bundle { queues: vec![destination("log")], busy: false }];
    assert_eq!(queues(&other.hold(known.clone()).await.unwrap()), [destination("log")].into());
    let connection = database.schema().connect().await;
    within("the rest", async {
        while hold(database.store()).await.len() + 1 < all().len() {
            other.hold(known.clone()).await.unwrap();
            connection.batch_execute("UPDATE queues SET changed_at = changed_at - interval '1 second'").await.unwrap();
        }
    })
    .await;
    assert_eq!(queues(&other.hold(known).await.unwrap()), [destination("log")].into());
}

#[tokio::test]
async fn deliveries_that_another_one_still_has_in_hand_are_told() {
    let database = Database::postgres().await;
    hold(database.store()).await;
    delivery_due(&database).await;
    assert_eq!(claims(database.store()).await, 1);
    let other = database.try_open().await.unwrap();
    hold(&other).await;
    database.store().let_go(Vec::new()).await.unwrap();
    let elsewhere =
        |held: &[Held]| held.iter().filter(|held| held.elsewhere > 0).map(|held| (held.queue.clone(), held.elsewhere)).collect();
    let told: Vec<_> = elsewhere(&hold(&other).await);
    assert_eq!(told, [(destination("crm"), 1)]);
}

#[tokio::test]
async fn a_replica_wakes_the_one_that_holds_what_it_made_work_for_and_no_other() {
    let database = Database::postgres().await;
    let config = Config { listen_url: Some(database.config().url), ..database.config() };
    let open = || Store::open(&config, database.clock.clone());
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    hold(&one).await;
    // Both are woken once as they begin to listen.
    within("both listen", futures_util::future::join(one.rung(), other.rung())).await;
    settled(&[&one, &other]).await;
    let held = queues(&hold(&one).await);
    let (holder, idle) = if held.contains(&source("manus")) { (&one, &other) } else { (&other, &one) };
    let event = |id: &str| event(id, Some("t1"), &json!({"event_id": id}));
    idle.append(event("e1")).await.unwrap();
    within("the bell", holder.rung()).await;
    // What is one's own, and what is known already, is nobody else's work.
    holder.append(event("e2")).await.unwrap();
    idle.append(event("e2")).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), idle.rung()).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(1), holder.rung()).await.is_err());
    holder.resume("crm", at(0)).await.unwrap();
    holder.pause("crm", at(0)).await.unwrap();
    holder.resume("crm", at(0)).await.unwrap();
    within("the bell", idle.rung()).await;
}
