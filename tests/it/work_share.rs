//! Limits where replicas share a store: they hold over all of them, whoever works.

use std::time::Duration;

use taskhook::simulator::manus::Plan;

use crate::harness::postgres::Schema;
use crate::harness::{Harness, KEY, Recorder};
use crate::work::{setup, start};

/// The configuration of a store in `schema`.
fn on(schema: &Schema) -> String {
    let config = schema.config();
    format!(
        "[store]\nurl = \"{}\"\nschema = \"{}\"\nmax_connections = {}\n",
        config.url.expose(),
        config.schema,
        config.max_connections
    )
}

#[tokio::test]
async fn a_rate_is_kept_in_every_minute_whichever_replica_delivers() {
    let (schema, crm) = (Schema::new(), Recorder::start().await);
    let new = || setup(&crm, "rate = 30").config(&on(&schema));
    let mut replicas = vec![start(new()).await];
    for _ in 0..80 {
        let task = replicas[0].manus.create_task(KEY, Plan::hang());
        replicas[0].manus.step(&task).await;
    }
    // The tasks are known to the first one's provider only, so it makes the deliveries.
    replicas[0].drain().await;
    let mut sent = Vec::new();
    for at in 0..240 {
        match at % 40 {
            // One comes, to which the other hands something over; and one goes, which leaves it.
            15 => {
                let now = replicas[0].clock.now();
                replicas.push(new().at(now).start().await);
            }
            30 => go(replicas.remove(usize::from(at % 80 == 70))).await,
            _ => {}
        }
        for replica in &mut replicas {
            replica.advance(Duration::from_secs(1)).await;
        }
        sent.push(crm.recorded().len());
    }
    let most = (0..sent.len()).map(|at| sent[at] - at.checked_sub(60).map_or(0, |start| sent[start])).max();
    assert!(most <= Some(30), "{most:?} in a minute, of {sent:?}");
    assert_eq!(sent.last(), Some(&80), "{sent:?}");
    for replica in replicas {
        go(replica).await;
    }
}

/// Stops `replica` in order.
async fn go(mut replica: Harness) {
    replica.run_worker(Duration::ZERO, std::future::ready(())).await;
    replica.stop().await;
    replica.expect_leftover();
}
