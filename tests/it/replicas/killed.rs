//! Replicas that are killed, or stand still.

use super::cut::{busy, has_nothing_of, taken_over, takes_part};
use super::*;

/// How often.
const KILLS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_again_and_again_takes_nothing_with_it() {
    let (_cluster, crm, mut fleet) = start().await;
    let mut load = Load::start(&fleet.addresses());
    for _ in 0..KILLS {
        load.more(30 + fastrand::usize(..40)).await;
        let victim = fastrand::usize(..REPLICAS);
        fleet.kill(victim);
        // The others go on, so that nobody comes in vain for long.
        let killed = load.now();
        load.more(40).await;
        let refused = load.tries(|one| one.at > killed && one.status == 503);
        assert!(refused.is_empty(), "nothing is wrong with the others: {refused:?}");
        fleet.start_again(victim).await;
    }
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > KILLS * 70, "{verdict:?}");
    // Each kill leaves at most what one replica sends at once.
    assert!(verdict.unknown <= KILLS * 8, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_still_is_replaced_and_does_no_harm_when_it_goes_on() {
    let (cluster, crm, mut fleet) = start().await;
    let database = cluster.connect().await;
    let mut load = Load::start(&fleet.addresses());
    load.more(60).await;
    // What it sends when that happens is answered to nobody, and it still waits for the answer when it goes on.
    crm.answer(Reply::Never);
    let (victim, name) = busy(&database).await;
    fleet.freeze(victim);
    crm.answer(Reply::Status(200));
    taken_over(&database, name, &load).await;
    has_nothing_of(&database, "queues", name).await;
    let since = load.now();
    fleet.thaw(victim);
    takes_part(fleet.addresses()[victim], since, &load).await;
    fleet.ready(&ALL).await;
    load.more(60).await;
    fleet.all_live();
    for other in ALL.into_iter().filter(|number| *number != victim) {
        fleet.stop(other).await;
    }
    load.more(60).await;
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.unknown > 0 && verdict.twice > 0, "what it had in hand went again: {verdict:?}");
}
