//! A new version that is rolled out, with tables that it has brought up to date. There is no newer program to run, so the test does
//! what one does at its start; a release's migrations only add.

use taskhook::clock::Clock;
use tokio_postgres::error::SqlState;

use super::*;
use crate::harness::postgres::Connection;

/// Longer than any other transaction may take.
const LONG: Duration = Duration::from_secs(7);

/// What the store says of itself.
async fn number(database: &Connection, name: &str) -> usize {
    let value: String = database.query_one("SELECT value FROM store WHERE name = $1", &[&name]).await.unwrap().get(0);
    value.parse().unwrap()
}

/// Adds what a newer version might, in one transaction, and says in the store that `schema` is newest and serves programs from
/// `oldest` on.
/// It waits for no work for long, since all that comes would wait behind it, and tries again.
async fn migrate(database: &Connection, schema: usize, oldest: usize) {
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '100ms'; SELECT pg_advisory_xact_lock(hashtext('taskhook migrations'), hashtext('taskhook')); \
         CREATE TABLE later_{schema} (event bigint PRIMARY KEY REFERENCES events ON DELETE CASCADE, word text NOT NULL DEFAULT 'x'); \
         ALTER TABLE events ADD COLUMN later_{schema} text NOT NULL DEFAULT 'x'; \
         ALTER TABLE jobs ADD COLUMN later_{schema} text; \
         ALTER TABLE deliveries ADD COLUMN later_{schema} bigint NOT NULL DEFAULT 7; \
         UPDATE store SET value = '{schema}' WHERE name = 'schema'; \
         UPDATE store SET value = '{oldest}' WHERE name = 'oldest_schema'; COMMIT"
    );
    within("the tables are brought up to date", async {
        while let Err(error) = database.batch_execute(&sql).await {
            assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{error:?}");
            database.batch_execute("ROLLBACK").await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_replaced_one_after_the_other_on_tables_of_a_newer_version_and_nobody_notices() {
    let (cluster, crm, mut fleet) = start().await;
    let database = cluster.connect().await;
    let mut load = Load::start(&fleet.addresses());
    load.more(80).await;
    let (schema, oldest) = (number(&database, "schema").await + 1, number(&database, "oldest_schema").await);
    let migrated = load.now();
    migrate(&database, schema, oldest).await;
    let migrated = migrated..load.now();
    load.more(80).await;
    for replica in ALL {
        fleet.stop(replica).await;
        load.more(20).await;
        fleet.start_again(replica).await;
        load.more(40).await;
    }
    fleet.all_live();
    assert!(load.most_tries() <= 2, "the next replica takes what one that stops does not: {} tries", load.most_tries());
    let refused = load.tries(|one| one.status == 503);
    assert!(refused.is_empty(), "one that stops takes nothing, and says no to nobody; migrated at {migrated:?}: {refused:?}");
    assert_eq!((number(&database, "schema").await, number(&database, "oldest_schema").await), (schema, oldest));
    let verdict = load.end(&fleet, &crm).await;
    assert!(verdict.acknowledged > 340, "{verdict:?}");
    assert_eq!((verdict.unknown, verdict.twice), (0, 0), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_too_old_for_the_tables_is_refused_and_those_that_run_go_on() {
    let (cluster, crm, mut fleet) = start().await;
    let database = cluster.connect().await;
    let mut load = Load::start(&fleet.addresses());
    load.more(40).await;
    let known = number(&database, "schema").await;
    migrate(&database, known + 1, known + 1).await;
    fleet.stop(0).await;
    let (code, said) = fleet.refused(0).await;
    assert_eq!(code, Some(3), "{said}");
    let problem = format!("it was made by a newer taskhook (schema {} or later; this one knows {known})", known + 1);
    assert!(said.contains(&problem) && said.contains("run that newer version; nothing was changed"), "{said}");
    load.more(80).await;
    fleet.all_live();
    let verdict = load.end(&fleet, &crm).await;
    assert_eq!((verdict.unknown, verdict.twice), (0, 0), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_starts_waits_for_another_one_that_migrates_however_long_that_takes() {
    let (cluster, crm) = (Cluster::start(CONNECTIONS).await, Recorder::start().await);
    let database = cluster.connect().await;
    let lock = "hashtext('taskhook migrations'), hashtext('taskhook')";
    database.batch_execute(&format!("SELECT pg_advisory_lock({lock})")).await.unwrap();
    let migrating = async {
        let clock = Clock::system();
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        within("somebody waits", async {
            while database.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
        clock.sleep(LONG).await;
        assert_eq!(database.query_one(waits, &[]).await.unwrap().get::<_, i64>(0), 1, "it waits still");
        database.batch_execute(&format!("SELECT pg_advisory_unlock({lock})")).await.unwrap();
    };
    let starting = Fleet::start([cluster.url(), cluster.url(), cluster.url()], &crm, "");
    let (fleet, ()) = tokio::join!(starting, migrating);
    let mut load = Load::start(&fleet.addresses());
    load.more(20).await;
    load.end(&fleet, &crm).await;
}
