//! Files that are damaged, that are not what they seem, or that another process holds: refused, and left as they were to the byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::*;

/// Every file of a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Puts `files` into a new folder.
fn laid_out(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Stores of one making: one that was stopped in order, one that was killed, its log beside it.
struct Stores {
    stopped: BTreeMap<String, Vec<u8>>,
    killed: BTreeMap<String, Vec<u8>>,
}

impl Stores {
    async fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let setting = Setting::new(folder.path());
        let client = http::client(Duration::from_secs(20));
        let send = async |program: &Program, name: &str, count: usize| {
            let events: Vec<_> = (0..count).map(|number| stopped(&format!("{name}{number}"), 3_000)).collect();
            futures_util::future::join_all(events.iter().map(|event| accepted(&client, program, event))).await;
        };
        let mut program = setting.start().await;
        send(&program, "early", 100).await;
        program.stop().await;
        // Whoever closes a store last copies its log into it.
        Connection::open(folder.path().join("taskhook.db")).unwrap().execute_batch("SELECT count(*) FROM events").unwrap();
        let ended = files(folder.path());
        assert_eq!(ended.keys().map(String::as_str).collect::<Vec<_>>(), ["taskhook.db", "taskhook.db.lock", "taskhook.toml"]);
        let mut program = setting.start().await;
        send(&program, "late", 5).await;
        program.kill();
        let killed = files(folder.path());
        assert!(killed["taskhook.db-wal"].len() > 4096, "there is a log");
        Self { stopped: ended, killed }
    }
}

/// Starts the program on `files`, which must be refused with these words, and changes nothing.
async fn refused(what: &str, files_before: &BTreeMap<String, Vec<u8>>, problem: &str, hint: &str) {
    let folder = laid_out(files_before);
    let beside = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path()).lying_in(beside.path());
    let ended = tokio::time::timeout(Duration::from_secs(10), setting.refused()).await;
    let (code, said) = ended.unwrap_or_else(|_| panic!("{what}: it was not refused"));
    assert_eq!(code, Some(3), "{what}: {said}");
    assert!(said.contains(problem) && said.contains(hint) && said.contains("nothing was changed"), "{what}: {said}");
    let after = files(folder.path());
    assert_eq!(after.keys().collect::<Vec<_>>(), files_before.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &after {
        assert!(*bytes == files_before[name], "{what}: {name} was changed");
    }
}

/// `files` with its file `name` changed.
fn with(files: &BTreeMap<String, Vec<u8>>, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> BTreeMap<String, Vec<u8>> {
    let mut files = files.clone();
    change(files.get_mut(name).expect("it is there"));
    files
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_left_as_it_was() {
    let stores = Stores::make().await;
    let other = Stores::make().await;
    for (kind, store) in [("stopped", &stores.stopped), ("killed", &stores.killed)] {
        let bytes = &store["taskhook.db"];
        let (middle, word) = (bytes.len() / 4096 / 2 * 4096, b"\"event_id\":\"early50\"");
        // A page that holds an event, and is in the file alone.
        let page = bytes.windows(word.len()).position(|at| at == word).expect("it is in the file") / 4096 * 4096;
        let damaged = async |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let files = with(store, "taskhook.db", change);
            refused(&format!("{kind}, {what}"), &files, "it is damaged", "restore a backup").await;
        };
        damaged("the header overwritten", &|bytes| bytes[..100].fill(0xa5)).await;
        damaged("a page in the middle overwritten", &|bytes| bytes[page..][..4096].fill(0xa5)).await;
        damaged("cut off in the middle", &|bytes| bytes.truncate(middle)).await;
    }
    let (log, database) = ("taskhook.db-wal", "taskhook.db");
    let empty = with(&stores.killed, database, Vec::clear);
    refused("an empty file and a log", &empty, "no store that it is of", "put the store back that the log is of").await;
    let mut gone = stores.killed.clone();
    gone.remove(database);
    refused("no file and a log", &gone, "no store that it is of", "put the store back that the log is of").await;
    let garbage = with(&stores.killed, log, |bytes| bytes[..32].fill(0xa5));
    refused("a log that is none", &garbage, "is damaged, or no log", "restore a backup").await;
    let broken = with(&stores.killed, log, |bytes| bytes[12] ^= 1);
    refused("a log whose header is broken", &broken, "is damaged, or no log", "restore a backup").await;
    let foreign = with(&stores.killed, log, |bytes| *bytes = other.killed[log].clone());
    refused("the log of another store", &foreign, "is of another store, or one of the two is damaged", "move the log").await;

    // What is whole is not refused.
    let folder = laid_out(&stores.killed);
    let program = Setting::new(folder.path()).start().await;
    let client = http::client(Duration::from_secs(20));
    assert!(is_kept(&client, &program, &stopped("early99", 3_000)).await);
    assert!(is_kept(&client, &program, &stopped("late4", 3_000)).await);
}

#[tokio::test]
async fn a_store_of_a_newer_program_or_of_somebody_else_is_refused_with_its_log_as_it_was() {
    let stores = Stores::make().await;
    // What the other program wrote last is in its log alone.
    let changed = |sql: &str| {
        let folder = laid_out(&stores.stopped);
        let connection = Connection::open(folder.path().join("taskhook.db")).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        files(folder.path())
    };
    let newer = changed("UPDATE store SET value = '900' WHERE name IN ('schema', 'oldest_schema')");
    assert!(newer.contains_key("taskhook.db-wal"), "{:?}", newer.keys());
    refused("newer", &newer, "made by a newer taskhook (schema 900", "run that newer version").await;
    let marked = changed("PRAGMA application_id = 7");
    refused("somebody else's", &marked, "not a taskhook store", "a file of taskhook's own").await;
}

#[tokio::test]
async fn a_second_process_is_refused_at_once_and_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (setting, beside) = (Setting::new(folder.path()), tempfile::tempdir().unwrap());
    let mut first = setting.start().await;
    let client = http::client(Duration::from_secs(20));
    let events: Vec<_> = (0..100).map(|number| stopped(&format!("e{number}"), 100)).collect();
    let second = Setting::new(folder.path()).lying_in(beside.path());
    let load = async {
        for event in &events {
            let answer = sent(&client, &first, event).await.expect("it answers");
            assert_eq!(status(&answer), 200, "{}", event["event_id"]);
        }
    };
    let ((code, said), ()) = tokio::join!(second.refused(), load);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("another taskhook process is using it") && said.contains("stop that process first"), "{said}");
    first.kill();
    let second = second.start().await;
    for event in &events {
        assert!(is_kept(&client, &second, event).await, "{}", event["event_id"]);
    }
}
