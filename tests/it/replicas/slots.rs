//! A database that lets nobody else in.

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::away::{AT_ONCE, NOTICED, turned_away};
use super::*;
use crate::harness::postgres::Connection;

/// As many connections as the replicas may make, and a few more.
const SLOTS: u32 = 26;

/// Others, who hold all connections that there are.
#[derive(Default)]
struct Others {
    clients: Vec<Client>,
    drivers: JoinSet<()>,
}

impl Others {
    /// Takes the places of the replicas, as often as they come back.
    async fn take_all(&mut self, url: &str, database: &Connection) {
        let theirs = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'taskhook'";
        within("others hold all connections", async {
            while database.query_one(theirs, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                while let Ok((client, driver)) = tokio_postgres::connect(url, NoTls).await {
                    self.clients.push(client);
                    self.drivers.spawn(async move { drop(driver.await) });
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_a_free_connection_is_named_and_used_again_when_there_is_one() {
    let (cluster, crm) = (Cluster::start(SLOTS).await, Recorder::start().await);
    let mut fleet = Fleet::start([cluster.url(), cluster.url(), cluster.url()], &crm, "").await;
    let database = cluster.connect().await;
    database.batch_execute("CREATE ROLE others LOGIN").await.unwrap();
    let mut load = Load::start(&fleet.addresses());
    for _ in 0..2 {
        load.more(80).await;
        let mut others = Others::default();
        others.take_all(&cluster.url().replace("taskhook@", "others@"), &database).await;
        let since = load.now();
        // Too many connections, in PostgreSQL's words.
        fleet.unready(&ALL, "the database cannot be reached: 53300: ").await;
        load.reach(since + AT_ONCE + NOTICED).await;
        turned_away(&load, since..load.now());
        drop(others);
        fleet.ready(&ALL).await;
        load.more(80).await;
    }
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 320, "{verdict:?}");
}
