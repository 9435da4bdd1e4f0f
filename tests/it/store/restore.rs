//! A backup in the place of the store: what is marked, what is put aside, and that it can be cut off anywhere.

use std::fs;
use std::path::Path;

use taskhook::store::care;

use super::care::{backup, ended, others, taskhook};
use super::*;

fn restore(database: &Database, from: &Path) -> care::Restored {
    let mut restore = care::restore(&database.config(), from, at(3600), &mut |_| {}).unwrap();
    while restore.step(&mut |_| {}).unwrap() {}
    restore.done().clone()
}

/// Ends the store, and waits until its lock is free.
pub(super) async fn end(database: &mut Database) {
    database.reopen().await;
    let path = database.path();
    database.store = None;
    within("the end of the store", async {
        let lock = fs::File::open(format!("{}.lock", path.display())).unwrap();
        while lock.try_lock().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The outcomes of the attempts at the deliveries of `id`.
async fn attempts(database: &Database, id: Uuid) -> Vec<(String, u32, String)> {
    let deliveries = database.event(id).await.deliveries.into_iter();
    let told = |delivery: taskhook::store::view::DeliveryRow| {
        let attempts = delivery.attempts.into_iter();
        attempts.map(move |attempt| (delivery.destination.clone(), attempt.attempt, attempt.outcome)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = deliveries.flat_map(told).collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_may_have_been_sent_since_is_marked_before_anything_is_sent() {
    let mut database = Database::sqlite().await;
    // One delivery that failed once and is due again, one that waits behind it, one on its way, one that was delivered.
    let deliveries = vec![delivery("crm", None), delivery("log", None), delivery("bi", None)];
    let first = database.dispatched("e1", "t1", deliveries, at(0)).await;
    let second = database.dispatched("e2", "t1", vec![delivery("crm", None)], at(0)).await;
    let job = database.claim_one(JobKind::Deliver, "crm", at(0)).await;
    assert!(database.retry(job.lease, at(0), at(9), "500").await);
    database.claim_one(JobKind::Deliver, "log", at(0)).await;
    let job = database.claim_one(JobKind::Deliver, "bi", at(0)).await;
    assert!(database.finish(job.lease, at(0)).await);
    let open = database.stopped("e3", "t3").await;
    let file = database.folder().join("b.db");
    backup(&database, &file);
    database.stopped("e4", "t4").await;
    end(&mut database).await;

    let done = restore(&database, &file);
    assert_eq!((done.events, done.pending_deliveries, done.open_events), (3, 3, 1));
    assert_eq!(done.backup_of, "2026-01-15T12:01:00.000Z");
    database.open().await;
    assert_eq!(database.ids().await.len(), 3, "what came after the backup is not in it");
    assert_eq!(database.store().expire(at(3600)).await.unwrap(), 0, "no lease is left");
    let outcome = |destination: &str, attempt: u32, outcome: &str| (destination.to_owned(), attempt, outcome.to_owned());
    assert_eq!(
        attempts(&database, first).await,
        [outcome("bi", 1, "delivered"), outcome("crm", 1, "failed"), outcome("crm", 2, "unknown"), outcome("log", 1, "unknown")]
    );
    assert_eq!(attempts(&database, second).await, [outcome("crm", 0, "unknown")]);
    let detail = database.event(second).await.deliveries[0].attempts[0].detail.clone();
    assert_eq!(detail.unwrap(), "restored from a backup of 2026-01-15T12:01:00.000Z: it may have been sent since");

    // All of them go on, and say that they may repeat; so does what an event makes that was open.
    for queue in ["crm", "log", "crm"] {
        let job = database.claim_one(JobKind::Deliver, queue, at(3600)).await;
        assert!(outgoing(&job).after_unknown);
        assert!(database.finish(job.lease, at(3600)).await);
    }
    let job = database.claim_one(JobKind::Prove, "manus", at(3600)).await;
    let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(vec![delivery("crm", None)]) }];
    assert!(database.store().finish(job.lease, at(3600), Finish { moves, ..Finish::default() }).await.unwrap());
    assert_eq!(attempts(&database, open).await, [outcome("crm", 0, "unknown")]);
    let fresh = database.dispatched("e5", "t5", vec![delivery("new", None)], at(3600)).await;
    assert_eq!(attempts(&database, fresh).await, [], "what comes after the restore is in no doubt");
}

#[tokio::test]
async fn a_restore_that_is_cut_off_leaves_one_whole_store() {
    const STEPS: usize = 6;
    let database = Database::sqlite().await;
    database.stopped("old1", "t1").await;
    let file = database.folder().join("b.db");
    backup(&database, &file);
    database.stopped("new1", "t1").await;
    database.stopped("new2", "t1").await;
    // With a log beside the file, as a kill leaves it.
    let killed = tempfile::tempdir().unwrap();
    copy_folder(database.folder(), killed.path());
    assert!(fs::metadata(killed.path().join("store.db-wal")).unwrap().len() > 0);
    let config = Config::new(format!("sqlite://{}/store.db", killed.path().display()));
    let mut restore = care::restore(&config, &killed.path().join("b.db"), at(3600), &mut |_| {}).unwrap();
    let mut seen = Vec::new();
    loop {
        // The disk as a crash leaves it here.
        let crashed = tempfile::tempdir().unwrap();
        copy_folder(killed.path(), crashed.path());
        let config = Config::new(format!("sqlite://{}/store.db", crashed.path().display()));
        let store = Store::open(&config, database.clock.clone()).await.unwrap();
        let events = store.events(EventFilter::default(), Page { limit: 9, cursor: None }).await.unwrap().data.len();
        assert_eq!(care::check(&config, false, &mut |_| {}).unwrap(), [], "after {} steps", seen.len());
        drop(store);
        seen.push(events);
        // From there it can be done again.
        let again = within("the end of the store", async {
            loop {
                match care::restore(&config, &crashed.path().join("b.db"), at(7200), &mut |_| {}) {
                    Err(Error::Locked(_)) => tokio::task::yield_now().await,
                    again => return again.unwrap(),
                }
            }
        });
        let mut again = again.await;
        while again.step(&mut |_| {}).unwrap() {}
        assert_eq!(again.done().events, 1);
        drop(again);
        assert!(!crashed.path().join("store.db.restoring").exists());
        if seen.len() > STEPS {
            break;
        }
        assert_eq!(restore.step(&mut |_| {}).unwrap(), seen.len() < STEPS);
    }
    assert_eq!(seen, [3, 3, 3, 3, 3, 3, 1], "the old one until the last step, then the new one");
    // What was put aside is the old store, whole.
    let aside = restore.done().put_aside.clone().unwrap();
    assert!(aside.to_string_lossy().contains("store.db.before-restore-20260115T130000000Z"), "{aside:?}");
    let aside = Connection::open(aside).unwrap();
    assert_eq!(aside.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap(), 3);
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_store_is_put_aside_and_its_log_meets_nobody() {
    let mut database = Database::sqlite().await;
    database.stopped("e1", "t1").await;
    let file = database.folder().join("b.db");
    backup(&database, &file);
    end(&mut database).await;
    fs::write(database.path(), "no database. ".repeat(1000)).unwrap();
    fs::write(database.folder().join("store.db-wal"), "no log").unwrap();
    let done = restore(&database, &file);
    let aside = done.put_aside.unwrap();
    assert!(fs::read(&aside).unwrap().starts_with(b"no database"));
    assert!(!database.folder().join("store.db-wal").exists());
    database.open().await;
    assert_eq!(database.ids().await.len(), 1);
}

#[tokio::test]
async fn only_a_backup_of_ours_is_restored_and_only_while_nothing_runs() {
    let mut database = Database::sqlite().await;
    database.stopped("e1", "t1").await;
    let file = database.folder().join("b.db");
    backup(&database, &file);
    let (code, _, talk) = ended(&mut taskhook(&database, &["restore", "b.db"]));
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("another taskhook process is using it"), "{talk}");
    end(&mut database).await;
    let before = fs::read(database.path()).unwrap();
    let path = |name: &str| database.folder().join(name);
    fs::write(path("text.db"), "text").unwrap();
    Connection::open(path("foreign.db")).unwrap().execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    fs::copy(&file, path("newer.db")).unwrap();
    Connection::open(path("newer.db")).unwrap().execute_batch("UPDATE store SET value = '900'").unwrap();
    for name in ["text.db", "foreign.db", "newer.db", "missing.db", "store.db", "."] {
        let (code, _, talk) = ended(&mut taskhook(&database, &["restore", name]));
        assert!(code == Some(1), "{name}: {talk}");
        assert!(talk.contains("hint:"), "{name}: {talk}");
        assert_eq!(fs::read(database.path()).unwrap(), before, "{name}");
    }
    let (code, _, talk) = ended(&mut taskhook(&database, &["restore", "b.db"]));
    assert_eq!(code, Some(0), "{talk}");
    assert!(
        talk.contains("Restored 1 event(s)") && talk.contains("before-restore") && talk.contains("1 event(s) not handed on"),
        "{talk}"
    );
    assert!(!others(&database).contains(&"store.db.restoring".to_owned()));
    database.open().await;
    assert_eq!(database.ids().await.len(), 1);
}

#[tokio::test]
async fn a_backup_makes_a_store_where_there_is_none() {
    let mut database = Database::sqlite().await;
    database.stopped("e1", "t1").await;
    let file = database.folder().join("b.db");
    backup(&database, &file);
    end(&mut database).await;
    let url = format!("sqlite://{}/new/taskhook.db", database.folder().display());
    let (code, out, talk) = ended(taskhook(&database, &["restore", "b.db", "--json"]).env("TASKHOOK__STORE__URL", &url));
    assert_eq!(code, Some(0), "{talk}");
    let done: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&done["events"], &done["put_aside"]), (&json!(1), &Value::Null));
    let config = Config::new(url);
    assert_eq!(Store::peek_instance_id(&config).unwrap(), Store::peek_instance_id(&database.config()).unwrap());
}
