//! Opening a SQLite file: who may, and which files are left alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::task::Poll;

use super::*;

/// What a refusal says, and what it says to do.
async fn refusal(path: &Path) -> (String, String) {
    let config = Config::new(format!("sqlite://{}", path.display()));
    let error = Store::open(&config, Clock::manual(at(0))).await.expect_err("it must be refused");
    let hint = error.hint().expect("there is something to do").to_owned();
    (error.to_string(), hint)
}

#[tokio::test]
async fn another_process_is_refused_while_one_runs() {
    let database = Database::sqlite().await;
    let (problem, hint) = refusal(&database.path()).await;
    assert!(problem.contains("another taskhook process is using it"), "{problem}");
    assert!(hint.contains("stop that process first"), "{hint}");
}

#[tokio::test]
async fn a_second_serve_on_one_file_ends_with_its_own_exit_code() {
    let database = Database::sqlite().await;
    let output = Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .arg("serve")
        .current_dir(database.folder())
        .env_clear()
        .env("TASKHOOK__STORE__URL", database.config().url.expose())
        .env("TASKHOOK__SERVER__LISTEN", "127.0.0.1:0")
        .env("TASKHOOK__ADMIN__LISTEN", "127.0.0.1:0")
        .env("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com")
        .env("MANUS_API_KEY", "sk-test")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{talk}");
    assert!(talk.contains("another taskhook process is using it"), "{talk}");
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused_and_left_as_it_was() {
    let mut database = Database::sqlite().await;
    database.stopped("e1", "t1").await;
    database.store = None;
    let connection = database.connection();
    connection.execute_batch("UPDATE store SET value = '900' WHERE name IN ('schema', 'oldest_schema')").unwrap();
    within("the end of the one before", async {
        while connection.execute_batch("PRAGMA journal_mode = DELETE").is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(connection);
    let before = fs::read(database.path()).unwrap();
    let (problem, hint) = refusal(&database.path()).await;
    assert!(problem.contains("made by a newer taskhook (schema 900 or later; this one knows 11)"), "{problem}");
    assert!(hint.contains("run that newer version"), "{hint}");
    assert_eq!(fs::read(database.path()).unwrap(), before);
}

#[tokio::test]
async fn a_newer_schema_that_still_serves_this_program_is_used() {
    let mut database = Database::sqlite().await;
    database.stopped("e1", "t1").await;
    database.connection().execute_batch("UPDATE store SET value = '900' WHERE name = 'schema'").unwrap();
    database.connection().execute_batch("ALTER TABLE events ADD COLUMN later TEXT").unwrap();
    database.reopen().await;
    database.stopped("e2", "t1").await;
    assert_eq!(database.ids().await.len(), 2);
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_and_left_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let make = |name: &str, sql: &str| Connection::open(path(name)).unwrap().execute_batch(sql).unwrap();
    make("tables.db", "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')");
    make("alike.db", "CREATE TABLE store (name TEXT PRIMARY KEY, value TEXT)");
    make("marked.db", "PRAGMA application_id = 7; PRAGMA user_version = 3");
    fs::write(
        path("garbage.db"),
        b"this is no database, but longer than the header of one is, which is a hundred bytes. ".repeat(9),
    )
    .unwrap();
    for (name, words) in [
        ("tables.db", "not a taskhook store"),
        ("alike.db", "not a taskhook store"),
        ("marked.db", "not a taskhook store"),
        ("garbage.db", "damaged, or no SQLite database"),
    ] {
        let before = fs::read(path(name)).unwrap();
        let (problem, _) = refusal(&path(name)).await;
        assert!(problem.contains(words) && problem.contains(name), "{problem}");
        assert_eq!(fs::read(path(name)).unwrap(), before, "{name}");
    }
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    fs::write(&path, b"").unwrap();
    let config = Config::new(format!("sqlite://{}", path.display()));
    let store = Store::open(&config, Clock::manual(at(0))).await.unwrap();
    assert_eq!(Store::peek_instance_id(&config).unwrap(), store.instance_id());
    assert_eq!(store.place(), path.display().to_string());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    // No mode of a folder stops root; what is below a file stops everybody.
    let (problem, hint) = refusal(&folder.path().join("file/data/taskhook.db")).await;
    assert!(problem.contains("cannot write to") && problem.contains("file/data"), "{problem}");
    assert!(hint.contains("a folder that can be written"), "{hint}");
    fs::create_dir(folder.path().join("taskhook.db")).unwrap();
    let (problem, hint) = refusal(&folder.path().join("taskhook.db")).await;
    assert!(problem.contains("it is a folder"), "{problem}");
    assert!(hint.contains("a file"), "{hint}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_system_that_takes_no_files_is_named() {
    let (problem, _) = refusal(Path::new("/proc/taskhook.db")).await;
    assert!(problem.contains("cannot write to /proc"), "{problem}");
}

#[tokio::test]
async fn addresses_that_name_no_file_are_refused() {
    for url in ["mysql://u:p@db/x", "sqlite://", "sqlite:///var/lib/", "sqlite://a.db?mode=ro", "sqlite://a%20b.db"] {
        let config = Config::new(url.to_owned());
        let error = Store::open(&config, Clock::manual(at(0))).await.expect_err(url);
        assert!(matches!(error, Error::Url { .. }), "{error}");
        assert!(!error.to_string().contains("u:p@"), "{error}");
    }
}

#[tokio::test]
async fn a_store_with_too_little_space_takes_no_event() {
    let mut database = Database::sqlite().await;
    database.store = None;
    let config = Config { min_free_bytes: Size(u64::MAX), ..database.config() };
    let store = within("the store", async {
        loop {
            if let Ok(store) = Store::open(&config, database.clock.clone()).await {
                return store;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = store.append(event("e1", Some("t1"), &json!({}))).await.unwrap_err();
    assert!(matches!(error, Error::Full(_)), "{error}");
    assert!(matches!(store.check().await.unwrap_err(), Error::Full(_)));
    // What is kept already can still be worked off.
    store.expire(at(0)).await.unwrap();
}

#[tokio::test]
async fn the_lock_outlives_every_write() {
    let mut database = Database::sqlite().await;
    let other = database.connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = database.store.take().unwrap();
    // The write waits for the other connection; whoever wanted it is gone before it is done, and the store with it.
    let mut append = Box::pin(async move { store.append(event("e1", Some("t1"), &json!({"event_id": "e1"}))).await });
    let pending = std::future::poll_fn(|context| Poll::Ready(append.as_mut().poll(context).is_pending()));
    assert!(pending.await);
    drop(append);
    assert!(database.try_open().await.is_err(), "a write may still come");
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    database.open().await;
    assert_eq!(database.ids().await.len(), 1, "it was handed over, so it is kept");
}

#[tokio::test]
async fn the_log_stays_bounded_while_events_come() {
    let mut database = Database::sqlite().await;
    let filling = "x".repeat(64 << 10);
    // Twice what the log may grow to.
    for round in 0..16 {
        let events = (0..128).map(|number| {
            let id = format!("e{round}-{number}");
            database.append(event(&id, None, &json!({"event_id": id, "filling": filling})))
        });
        futures_util::future::join_all(events).await;
    }
    let mut log = database.path().into_os_string();
    log.push("-wal");
    let bytes = fs::metadata(&log).unwrap().len();
    assert!(bytes < 80 << 20, "{bytes} bytes");
    database.reopen().await;
    assert_eq!(database.store().backlog().await.unwrap().events, 16 * 128, "and all of it is there");
}
