//! Replicas on one PostgreSQL, while any of it is killed, frozen, cut off, crowded out or replaced under load. Three processes of the
//! built program, a server of the test's own, and a destination that is never away.
//!
//! What must hold, whatever is done: each event that was answered 200 comes to the destination, as one delivery; none comes twice but
//! after an attempt of recorded unknown outcome. While the database is away senders are told at once to come again, probes say why,
//! and nothing is held in memory. All goes on by itself, and what `src/docs/sizing.md` says of each fault is so.
#![cfg(target_os = "linux")]

mod away;
mod cluster;
mod cut;
mod failover;
mod fleet;
mod full;
mod killed;
mod load;
mod pooler;
mod rolling;
mod slots;
mod way;

use std::time::Duration;

use cluster::{Cluster, Pooler, Small};
use fleet::{Fleet, LOOK_EVERY, REPLICAS};
use load::Load;
use way::{Manner, Way};

use crate::harness::{Recorder, Reply, within};

/// All of them.
const ALL: [usize; REPLICAS] = [0, 1, 2];
/// Connections that a cluster lets in, where their number does not matter.
const CONNECTIONS: u32 = 60;

/// A cluster, the destination, and replicas on the one for the other.
async fn start() -> (Cluster, Recorder, Fleet) {
    let (cluster, crm) = (Cluster::start(CONNECTIONS).await, Recorder::start().await);
    let fleet = Fleet::start([cluster.url(), cluster.url(), cluster.url()], &crm, "").await;
    (cluster, crm, fleet)
}
