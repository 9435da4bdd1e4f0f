//! A database that is away, or does not answer.

use std::ops::Range;

use super::*;

/// How long an answer may take while the database is away, from [`NOTICED`] on.
pub(super) const AT_ONCE: Duration = Duration::from_secs(2);
/// By when it must be known that the database is away: a replica asks it every second, and waits for a second.
pub(super) const NOTICED: Duration = Duration::from_secs(3);
/// By when nothing is in hand any more, once the database is back, that was in hand while it was away.
const ENDED: Duration = Duration::from_secs(8);
/// By when all must go on, once the database is back: receiving and work.
const BACK: Duration = Duration::from_secs(15);
/// Requests that are turned away before memory is looked at: what they need of it is there then.
const FIRST: usize = 600;
/// Requests that are turned away after that.
const THEN: usize = 3000;
/// How much more memory these may leave, in bytes. It is 3 KiB a request, less than each would take that is held.
const FLAT: u64 = 9 << 20;
/// How long the server stands still.
const FROZEN: Duration = Duration::from_secs(20);

/// What was sent in `away` is answered, and once its first moments are over, by 503 and at once.
#[track_caller]
pub(super) fn turned_away(load: &Load, away: Range<Duration>) {
    let tries = load.tries(|one| away.contains(&one.at));
    let wrong: Vec<_> = tries
        .iter()
        .filter(|one| {
            one.status == 0 || (one.at > away.start + NOTICED && (one.code != "store_unavailable" || one.took > AT_ONCE))
        })
        .collect();
    assert!(wrong.is_empty(), "away from {away:?}: {wrong:?}");
    assert!(tries.iter().any(|one| one.at > away.start + NOTICED), "somebody came");
}

/// Turns thousands away, after which each of the replicas has as much memory as it had after the first of them.
async fn memory_is_flat(load: &Load, fleet: &mut Fleet) {
    load.crowd(FIRST).await;
    let before = fleet.memory();
    load.crowd(THEN).await;
    let after = fleet.memory();
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + FLAT, "{before} bytes after the first requests, {after} after {THEN} more");
    }
}

/// Waits until all goes on: it must soon.
pub(super) async fn goes_on(load: &mut Load, cluster: &Cluster, fleet: &Fleet, crm: &Recorder) {
    let (database, back) = (cluster.connect().await, load.now());
    let row = database.query_one("SELECT clock_timestamp()", &[]).await.unwrap();
    let at: jiff::Timestamp = row.get(0);
    let older = "SELECT count(*) FROM jobs WHERE state = 'leased' AND started_at < $1";
    within("what was in hand ends", async {
        while database.query_one(older, &[&at]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let took = load.now().saturating_sub(back);
    assert!(took < ENDED, "what was in hand ended after {took:?}");
    fleet.ready(&ALL).await;
    load.more(60).await;
    crm.received(crm.recorded().len() + 100).await;
    let took = load.now().saturating_sub(back);
    assert!(took < BACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_is_missed_at_once_and_found_again() {
    let (mut cluster, crm, mut fleet) = start().await;
    let mut load = Load::start(&fleet.addresses());
    for by_a_kill in [true, false] {
        load.more(80).await;
        if by_a_kill {
            cluster.kill().await;
        } else {
            cluster.stop_at_once().await;
        }
        let since = load.now();
        fleet.unready(&ALL, "the database cannot be reached: Connection refused").await;
        if by_a_kill {
            memory_is_flat(&load, &mut fleet).await;
        }
        load.reach(since + NOTICED + AT_ONCE).await;
        turned_away(&load, since..load.now());
        cluster.start_again().await;
        goes_on(&mut load, &cluster, &fleet, &crm).await;
    }
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 280, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stands_still_for_twenty_seconds_is_missed_and_found_again() {
    let (cluster, crm, mut fleet) = start().await;
    let mut load = Load::start(&fleet.addresses());
    load.more(80).await;
    // Something is being sent when it happens, and its end is to be written while nobody takes it.
    crm.answer(Reply::Never);
    crm.received(crm.recorded().len() + 3).await;
    cluster.freeze();
    crm.answer(Reply::Status(200));
    let since = load.now();
    fleet.unready(&ALL, "the database cannot be reached: ").await;
    memory_is_flat(&load, &mut fleet).await;
    load.reach(since + FROZEN).await;
    turned_away(&load, since..load.now());
    cluster.thaw();
    goes_on(&mut load, &cluster, &fleet, &crm).await;
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 140 && verdict.unknown >= 3, "{verdict:?}");
}
