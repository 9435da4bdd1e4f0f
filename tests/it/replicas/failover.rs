//! A primary that is lost, and its standby in its place: `store.url` names both.

use std::collections::BTreeSet;

use super::away::goes_on;
use super::load::{DeliveryRow, times};
use super::*;
use crate::harness::{send, status};
use crate::work::{setup, start as start_alone};

/// A primary and its standby, the way on which the one hears of the other, and the URL of both.
async fn pair() -> (Cluster, Cluster, Way, String) {
    let primary = Cluster::start(CONNECTIONS).await;
    let way = Way::to(primary.port()).await;
    let standby = primary.standby(&way).await;
    // The one that takes no writes stands first, so that it is not enough that somebody answers.
    let url = format!("postgres://taskhook@127.0.0.1:{},127.0.0.1:{}/taskhook", standby.port(), primary.port());
    (primary, standby, way, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_was_waited_for_takes_over_and_nothing_is_lost() {
    let ((mut primary, standby, _way, url), crm) = (pair().await, Recorder::start().await);
    primary.waits_for_its_standby().await;
    let mut fleet = Fleet::start([url.clone(), url.clone(), url], &crm, "").await;
    let mut load = Load::start(&fleet.addresses());
    load.more(120).await;
    primary.kill().await;
    fleet.unready(&ALL, "the database cannot be reached: ").await;
    standby.promote().await;
    goes_on(&mut load, &standby, &fleet, &crm).await;
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 180, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_was_not_waited_for_lacks_what_it_had_not_heard_and_no_more() {
    let ((mut primary, standby, way, url), crm) = (pair().await, Recorder::start().await);
    let mut fleet = Fleet::start([url.clone(), url.clone(), url], &crm, "").await;
    let mut load = Load::start(&fleet.addresses());
    load.more(80).await;
    let before = load.acknowledged_ids();
    primary.is_followed().await;
    way.set(Manner::Cut);
    load.more(60).await;
    primary.kill().await;
    fleet.unready(&ALL, "the database cannot be reached: ").await;
    let acknowledged = load.acknowledged_ids();
    standby.promote().await;
    let kept: BTreeSet<String> = {
        let rows = standby.connect().await.query("SELECT id::text FROM events", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let lost = &acknowledged - &kept;
    assert!(!lost.is_empty() && lost.is_disjoint(&before), "{} of {} lost", lost.len(), acknowledged.len());
    goes_on(&mut load, &standby, &fleet, &crm).await;
    fleet.all_live();
    let acknowledged = load.done(&fleet, &crm, &lost).await;

    let came = times(&crm);
    let rows = fleet.list::<DeliveryRow>("deliveries").await;
    let mut events = BTreeSet::new();
    for row in &rows {
        let times = came.get(&row.id).copied().unwrap_or_default();
        assert_eq!(row.state, "delivered", "{}", row.id);
        assert!(events.insert(row.event.clone()), "{} has two deliveries", row.event);
        // The record of what was sent while nobody heard of it is lost: only that may have come twice, and once more.
        let unrecorded = usize::from(kept.contains(&row.event));
        assert!(times >= 1 && times <= 1 + row.unknown() + unrecorded, "{} came {times} times", row.id);
    }
    assert!(events.is_superset(&acknowledged), "what was kept is delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_standby_lacks_is_found_with_the_provider() {
    let ((mut primary, standby, way, url), crm) = (pair().await, Recorder::start().await);
    let config = format!("[store]\nurl = \"{url}\"\n");
    let mut harness = start_alone(setup(&crm, "").config(&config).reconciling()).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    primary.is_followed().await;
    way.set(Manner::Cut);
    let task = harness.manus.create_task(crate::harness::KEY, taskhook::simulator::manus::Plan::finish("Paid for."));
    harness.manus.finish_all().await;
    harness.drain().await;
    let told = crm.bodies();
    assert!(told.iter().any(|body| body["type"] == "task_stopped"), "the webhook was answered 200, and handed on");
    primary.kill().await;
    standby.promote().await;
    within("the database is found again", async {
        while status(&send(harness.request(reqwest::Method::GET, "/readyz")).await) != 200 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert_eq!(harness.list("events").await.len(), 0, "the standby never heard of it");
    harness.advance(Duration::from_mins(2)).await;
    let found = crm.bodies().split_off(told.len());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["type"], &found[0]["recovered"]), (&"task_stopped".into(), &true.into()));
    assert_eq!((&found[0]["event"]["task_id"], &found[0]["task"]["complete"]), (&task.into(), &true.into()));
}
