//! A pooler between the replicas and the database, which gives each transaction whatever connection is free.

use super::away::{AT_ONCE, NOTICED, turned_away};
use super::*;

/// Replicas behind a pooler that makes so many connections; migrations go around it.
async fn start(connections: u32) -> (Cluster, Pooler, Recorder, Fleet) {
    let (cluster, crm) = (Cluster::start(CONNECTIONS).await, Recorder::start().await);
    let pooler = Pooler::start(&cluster, connections).await;
    let direct = format!("[store]\nlisten_url = \"{}\"\n", cluster.url());
    let fleet = Fleet::start([pooler.url(), pooler.url(), pooler.url()], &crm, &direct).await;
    (cluster, pooler, crm, fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_that_is_killed_and_started_all_goes_on() {
    let (_cluster, mut pooler, crm, mut fleet) = start(20).await;
    let mut load = Load::start(&fleet.addresses());
    for _ in 0..3 {
        load.more(100).await;
        pooler.kill().await;
        let since = load.now();
        fleet.unready(&ALL, "the database cannot be reached: Connection refused").await;
        load.reach(since + AT_ONCE + NOTICED).await;
        turned_away(&load, since..load.now());
        pooler.start_again().await;
        fleet.ready(&ALL).await;
    }
    load.more(100).await;
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 400, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_with_two_connections_for_all_nothing_is_refused_or_sent_twice() {
    let (cluster, _pooler, crm, mut fleet) = start(2).await;
    let mut load = Load::start(&fleet.addresses());
    load.more(500).await;
    let theirs = "SELECT count(*) FILTER (WHERE application_name <> 'taskhook listens'), \
                  count(*) FILTER (WHERE application_name = 'taskhook listens') FROM pg_stat_activity WHERE usename = 'taskhook'";
    let connections = cluster.connect().await.query_one(theirs, &[]).await.unwrap();
    let (through, around): (i64, i64) = (connections.get(0), connections.get(1));
    assert!(through <= 2 && around == 3, "{through}, and {around} that listen");
    assert_eq!(load.tries(|one| one.status != 200).len(), 0);
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!((verdict.unknown, verdict.twice) == (0, 0), "{verdict:?}");
}
