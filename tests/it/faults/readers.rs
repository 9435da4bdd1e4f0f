//! Readers that keep the log from being copied: one from outside for as long as it likes, our own for a second.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::SignedDuration;
use rusqlite::Connection;
use taskhook::clock::Clock;
use taskhook::store::{Config, Store};

use super::*;

const MEGABYTE: u64 = 1 << 20;

/// Sends so many megabytes, all of which must be accepted; returns how long the log is then.
async fn load(client: &reqwest::Client, program: &Program, folder: &Path, name: &str, megabytes: usize) -> u64 {
    let events: Vec<_> = (0..megabytes).map(|number| stopped(&format!("{name}{number}"), 1 << 20)).collect();
    for some in events.chunks(8) {
        let answers = futures_util::future::join_all(some.iter().map(|event| sent(client, program, event))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_some_and(|answer| status(answer) == 200)), "{name}");
    }
    std::fs::metadata(folder.join("taskhook.db-wal")).unwrap().len()
}

#[tokio::test]
async fn a_reader_from_outside_lets_the_log_grow_only_while_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path())
        .config("[sources.open]\nmax_body_bytes = \"4MiB\"\n[[routes]]\nto = [\"log\"]\nwhen = \"false\"\n");
    let mut program = setting.start().await;
    let client = http::client(Duration::from_secs(20));
    accepted(&client, &program, &stopped("first", 100)).await;
    let reader = Connection::open(folder.path().join("taskhook.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let seen: i64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 1);
    let pinned = load(&client, &program, folder.path(), "pinned", 72).await;
    assert!(pinned > 70 * MEGABYTE, "the reader keeps the log: {pinned} bytes");
    assert!(pinned < 100 * MEGABYTE, "it holds what was sent, and little beside: {pinned} bytes");
    let seen: i64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 1, "it reads what it saw first");
    reader.execute_batch("COMMIT").unwrap();
    // What comes now finds the log copied, and begins it anew: it grows no further, and is cut to its usual length.
    let after = load(&client, &program, folder.path(), "after", 48).await;
    assert!(after <= pinned + 16 * MEGABYTE, "{after} bytes after {pinned}");
    drop(reader);
    program.kill();
    let program = setting.start().await;
    for name in ["pinned0", "pinned71", "after47"] {
        assert!(is_kept(&client, &program, &stopped(name, 1 << 20)).await, "{name}");
    }
}

#[tokio::test]
async fn a_reader_of_our_own_is_cut_off_after_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let config = Config::new(format!("sqlite://{}", path.display()));
    let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
    let store = Store::open(&config, clock.clone()).await.unwrap();
    let other = Connection::open(&path).unwrap();
    let jobs = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) \
                INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) \
                SELECT 'prove', 'manus', n, 'due', '2026-01-15T12:00:00.000Z', '2026-01-15T12:00:00.000Z' FROM n";
    other.execute_batch(jobs).unwrap();
    assert_eq!(store.backlog().await.unwrap().jobs[0].count, 20_000);
    // Time flies while it reads.
    let done = Arc::new(AtomicBool::new(false));
    let flying = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                clock.advance(SignedDuration::from_secs(2));
            }
        })
    };
    let read = store.backlog().await;
    done.store(true, Ordering::Relaxed);
    flying.join().unwrap();
    let error = read.expect_err("it takes longer than a second").to_string();
    assert!(error.contains("interrupted"), "{error}");
    assert_eq!(store.backlog().await.unwrap().jobs[0].count, 20_000, "the next one has its own second");
}
