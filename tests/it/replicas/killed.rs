//! Replicas that are killed.

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
