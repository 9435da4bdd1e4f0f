//! A replica that is cut off from the database, and connections that break.

use std::net::SocketAddr;

use uuid::Uuid;

use super::away::{AT_ONCE, NOTICED};
use super::*;
use crate::harness::postgres::Connection;

/// By when others have what a replica had in hand that is not seen any more: it counts for five seconds, and is looked for every
/// second.
const TAKEN_OVER: Duration = Duration::from_secs(9);
/// How often all connections break.
const BREAKS: usize = 80;

/// Replicas with a way to the database for each.
async fn start() -> (Cluster, Recorder, Fleet, [Way; REPLICAS]) {
    let (cluster, crm) = (Cluster::start(CONNECTIONS).await, Recorder::start().await);
    let ways = [Way::to(cluster.port()).await, Way::to(cluster.port()).await, Way::to(cluster.port()).await];
    let fleet = Fleet::start(std::array::from_fn(|number| ways[number].url()), &crm, "").await;
    (cluster, crm, fleet, ways)
}

/// Waits until a replica is sending something that is not answered: its number, and its name in the database.
pub(super) async fn busy(database: &Connection) -> (usize, Uuid) {
    // For longer than an answer takes: it has none.
    let holder = "SELECT holder FROM jobs WHERE state = 'leased' AND kind = 'deliver' \
                  AND started_at < clock_timestamp() - interval '300 milliseconds' LIMIT 1";
    let holder: Uuid = within("a replica that is at work", async {
        loop {
            if let Some(row) = database.query_opt(holder, &[]).await.unwrap() {
                return row.get(0);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    // Names begin with the time of the start, and they were started one after the other.
    let before: i64 = database.query_one("SELECT count(*) FROM replicas WHERE id < $1", &[&holder]).await.unwrap().get(0);
    (usize::try_from(before).unwrap(), holder)
}

/// Waits until `name` holds no row of `table`.
pub(super) async fn has_nothing_of(database: &Connection, table: &str, name: Uuid) {
    let held = format!("SELECT count(*) FROM {table} WHERE holder = $1");
    within("others take over what it had", async {
        while database.query_one(&held, &[&name]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

/// Waits until others have what `name` had in hand, which nobody else stands in the way of.
pub(super) async fn taken_over(database: &Connection, name: Uuid, load: &Load) {
    let since = load.now();
    has_nothing_of(database, "jobs", name).await;
    let took = load.now().saturating_sub(since);
    assert!(took < TAKEN_OVER, "{took:?}");
}

/// Waits until `to` has kept an event that was sent after `since`.
pub(super) async fn takes_part(to: SocketAddr, since: Duration, load: &Load) {
    within("it takes part again", async {
        while load.tries(|one| one.to == to && one.at > since && one.status == 200).is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

async fn cut_off(manner: Manner) {
    let (cluster, crm, mut fleet, ways) = start().await;
    let database = cluster.connect().await;
    let mut load = Load::start(&fleet.addresses());
    load.more(60).await;
    // What is being sent when it happens is answered to nobody.
    crm.answer(Reply::Never);
    let (victim, name) = busy(&database).await;
    let others: Vec<_> = ALL.into_iter().filter(|number| *number != victim).collect();
    ways[victim].set(manner);
    crm.answer(Reply::Status(200));
    let since = load.now();
    taken_over(&database, name, &load).await;
    fleet.unready(&[victim], "the database cannot be reached: ").await;
    load.more(100).await;
    let to = fleet.addresses()[victim];
    let late = load.tries(|one| one.to == to && one.at > since + NOTICED && (one.status != 503 || one.took > AT_ONCE));
    assert!(late.is_empty(), "{late:?}");
    let refused = load.tries(|one| one.to != to && one.status != 200);
    assert!(refused.is_empty(), "nothing is wrong with the others: {refused:?}");
    assert!(others.iter().all(|number| load.tries(|one| one.at > since && one.to == fleet.addresses()[*number]).len() > 20));

    ways[victim].set(Manner::Open);
    fleet.ready(&[victim]).await;
    load.more(60).await;
    let free = load.now();
    takes_part(to, free, &load).await;
    fleet.all_live();
    // Now all depends on it.
    for other in others {
        fleet.stop(other).await;
    }
    load.more(60).await;
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.unknown > 0 && verdict.twice > 0, "what it had in hand went again: {verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_way_to_the_database_swallows_everything_is_replaced_until_it_is_back() {
    cut_off(Manner::Swallow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_way_to_the_database_is_cut_is_replaced_until_it_is_back() {
    cut_off(Manner::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_all_the_time_leave_no_work_behind() {
    let (_cluster, crm, mut fleet, ways) = start().await;
    let mut load = Load::start(&fleet.addresses());
    load.more(40).await;
    for _ in 0..BREAKS {
        load.more(1 + fastrand::usize(..12)).await;
        for way in &ways {
            way.break_all();
        }
    }
    fleet.ready(&ALL).await;
    load.more(20).await;
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > BREAKS, "{verdict:?}");
}
