//! A database whose disk is full: of its tables, or of its log of writes.

use std::ops::Range;

use super::away::goes_on;
use super::*;
use crate::faults::disk::Disk;

/// Requests that are turned away while there is no room.
const TURNED_AWAY: usize = 40;

/// Waits until so many were turned away since `since`, for want of room.
async fn turned_away(load: &mut Load, since: Duration) {
    within("senders are turned away", async {
        while load.tries(|one| one.at > since && one.code == "store_full").len() < TURNED_AWAY {
            load.reach(load.now() + LOOK_EVERY).await;
        }
    })
    .await;
}

/// Each request of that time was answered.
#[track_caller]
fn answered(load: &Load, during: Range<Duration>) {
    let silent = load.tries(|one| during.contains(&one.at) && one.status == 0);
    assert!(silent.is_empty(), "{silent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_room_for_a_row_says_so_and_goes_on_when_there_is_room() {
    let disk = Disk::new("80m");
    let (cluster, crm) = (Cluster::on(Small::Tables(&disk), CONNECTIONS).await, Recorder::start().await);
    let mut fleet = Fleet::start([cluster.url(), cluster.url(), cluster.url()], &crm, "").await;
    let mut load = Load::start(&fleet.addresses());
    for _ in 0..2 {
        load.more(80).await;
        disk.fill(0);
        let since = load.now();
        turned_away(&mut load, since).await;
        fleet.unready(&ALL, "the store's disk is full: 53100: ").await;
        answered(&load, since..load.now());
        disk.make_room();
        goes_on(&mut load, &cluster, &fleet, &crm).await;
    }
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 280, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_room_for_its_log_is_away_until_there_is_room() {
    let disk = Disk::new("24m");
    let (mut cluster, crm) = (Cluster::on(Small::Log(&disk), CONNECTIONS).await, Recorder::start().await);
    let mut fleet = Fleet::start([cluster.url(), cluster.url(), cluster.url()], &crm, "").await;
    let mut load = Load::start(&fleet.addresses());
    load.more(80).await;
    disk.fill(0);
    let since = load.now();
    within("the server falls over its log", async {
        while !cluster.said().contains("PANIC") {
            load.reach(load.now() + LOOK_EVERY).await;
        }
    })
    .await;
    fleet.unready(&ALL, "the database cannot be reached: ").await;
    answered(&load, since..load.now());
    fleet.all_live();
    // It ends when it finds no room at its own start either; who looks after it starts it again once there is some.
    cluster.kill().await;
    disk.make_room();
    cluster.start_again().await;
    goes_on(&mut load, &cluster, &fleet, &crm).await;
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 140, "{verdict:?}");
}
