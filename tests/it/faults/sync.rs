//! A disk that cannot write, or says that it could not sync: nothing is known then about what it holds, so the program ends. It
//! fails once, and would then say that all is well.

use super::*;

/// Starts a program that keeps a few events, lets `call` of its disk fail, and sends until the program has ended; it must have answered
/// none of those 200 that were sent after `call` failed. Returns all that it accepted.
async fn ended_by(call: &str, events: Vec<Value>, all_at_once: bool) {
    let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::new());
    let mut program = Setting::new(folder.path()).faults(&faults).start().await;
    let client = http::client(Duration::from_secs(20));
    let mut kept: Vec<_> = (0..5).map(|number| stopped(&format!("early{number}"), 100)).collect();
    for event in &kept {
        accepted(&client, &program, event).await;
    }
    faults.fail(call, "5");
    let mut answers = Vec::new();
    // As many as have their place in memory.
    for some in events.chunks(32) {
        answers.extend(futures_util::future::join_all(some.iter().map(|event| sent(&client, &program, event))).await);
    }
    for (event, answer) in events.into_iter().zip(answers) {
        match answer {
            Some(answer) if status(&answer) == 200 => {
                assert!(!all_at_once, "{call} failed, and {} was accepted", event["event_id"]);
                kept.push(event);
            }
            Some(answer) => come_again(&answer, "store_unavailable"),
            None => {}
        }
    }
    assert_eq!(program.ended().await.code(), Some(1), "{call}: {}", program.said());
    assert!(program.said().contains("the store's disk failed"), "{call}: {}", program.said());

    let program = Setting::new(folder.path()).start().await;
    for event in &kept {
        assert!(is_kept(&client, &program, event).await, "{call}: {}", event["event_id"]);
    }
    let store = rusqlite::Connection::open(folder.path().join("taskhook.db")).unwrap();
    let whole: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok", "{call}");
}

fn events(count: usize, filling: usize) -> Vec<Value> {
    (0..count).map(|number| stopped(&format!("late{number}"), filling)).collect()
}

#[tokio::test]
async fn a_sync_that_fails_ends_the_program_before_anybody_is_answered() {
    ended_by("sync-wal", events(20, 100), true).await;
}

#[tokio::test]
async fn a_write_that_fails_ends_the_program_before_anybody_is_answered() {
    ended_by("write-wal", events(20, 100), true).await;
}

#[tokio::test]
async fn a_checkpoint_whose_sync_fails_ends_the_program_and_loses_nothing() {
    // More than the log holds before it is copied into the file.
    ended_by("sync-db", events(80, 1_000_000), false).await;
}

#[tokio::test]
async fn a_checkpoint_whose_write_fails_ends_the_program_and_loses_nothing() {
    ended_by("write-db", events(80, 1_000_000), false).await;
}
