//! Backing up, checking and measuring a store, beside the process that has it open.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use taskhook::store::care::{self, BackedUp};

use super::*;

/// The program, with the store of `database`.
pub(super) fn taskhook(database: &Database, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskhook"));
    command.arg("store").args(arguments).current_dir(database.folder()).env_clear().stdin(Stdio::null());
    command.env("TASKHOOK__STORE__URL", database.config().url.expose());
    command
}

pub(super) fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

pub(super) fn backup(database: &Database, to: &Path) -> BackedUp {
    care::backup(&database.config(), to, false, at(60), &mut |_| {}).unwrap()
}

/// The names in the folder of the store, less those of the store itself.
pub(super) fn others(database: &Database) -> Vec<String> {
    let entries = fs::read_dir(database.folder()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !["store.db", "store.db-wal", "store.db-shm", "store.db.lock"].contains(&name.as_str()));
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_of_a_store_that_goes_on() {
    let database = Database::sqlite().await;
    let filling = "x".repeat(20_000);
    let append = |number: usize| event(&format!("e{number}"), Some("t1"), &json!({"event_id": number, "filling": filling}));
    for number in 0..200 {
        database.append(append(number)).await;
    }
    let mut process = taskhook(&database, &["backup", "b.db"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut number = 200;
    while process.try_wait().unwrap().is_none() {
        database.append(append(number)).await;
        number += 1;
    }
    assert!(process.wait().unwrap().success());
    let copy = Connection::open(database.folder().join("b.db")).unwrap();
    let one = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let events = one("SELECT count(*) FROM events");
    assert!((200..=i64::try_from(number).unwrap()).contains(&events), "{events} of {number}");
    assert_eq!(one("SELECT max(seq) FROM events"), events, "no gap: all that was kept before, and nothing after");
    assert_eq!(one("SELECT (SELECT count(*) FROM event_keys) + (SELECT count(*) FROM new_keys)"), events);
    assert_eq!(one("SELECT count(*) FROM standing WHERE state = 'proving'"), events);
    assert_eq!(copy.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)).unwrap(), "delete", "one file");
    assert_eq!(others(&database), ["b.db"]);
    assert_eq!(database.ids().await.len(), number.min(500));
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten_unasked() {
    let database = Database::sqlite().await;
    database.stopped("e1", "t1").await;
    let file = database.folder().join("b.db");
    fs::write(&file, b"mine").unwrap();
    let (code, _, talk) = ended(&mut taskhook(&database, &["backup", "b.db"]));
    assert_eq!(code, Some(1), "{talk}");
    assert!(talk.contains("there already") && talk.contains("--overwrite"), "{talk}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let (code, out, talk) = ended(&mut taskhook(&database, &["backup", "b.db", "--overwrite", "--json"]));
    assert_eq!(code, Some(0), "{talk}");
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&made["events"], &made["bytes"]), (&json!(1), &json!(fs::metadata(&file).unwrap().len())));
    for name in ["store.db", ".", "missing/b.db"] {
        let (code, _, talk) = ended(&mut taskhook(&database, &["backup", name, "--overwrite"]));
        assert_eq!(code, Some(1), "{name}: {talk}");
    }
    assert_eq!(others(&database), ["b.db"]);
    assert_eq!(database.ids().await.len(), 1);
}

#[tokio::test]
async fn a_disk_that_is_full_is_left_as_it_was() {
    let database = Database::sqlite().await;
    for number in 0..40 {
        database.append(event(&format!("e{number}"), None, &json!({"filling": "x".repeat(20_000)}))).await;
    }
    let mut limited = Command::new("sh");
    // A file may not grow over 256 KiB, as on a disk that has no more.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$0\" store backup b.db";
    limited.args(["-c", script, env!("CARGO_BIN_EXE_taskhook")]).current_dir(database.folder()).env_clear();
    let (code, _, talk) = ended(limited.env("TASKHOOK__STORE__URL", database.config().url.expose()));
    assert_eq!(code, Some(1), "{talk}");
    assert!(talk.contains("make room"), "{talk}");
    assert_eq!(others(&database), [""; 0]);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_refused() {
    let mut database = Database::sqlite().await;
    database.store = None;
    for arguments in [&["backup", "b.db"][..], &["check"], &["stats"]] {
        let (code, _, talk) = ended(taskhook(&database, arguments).env("TASKHOOK__STORE__URL", "sqlite://nowhere/taskhook.db"));
        assert_eq!(code, Some(3), "{talk}");
        assert!(talk.contains("it does not exist"), "{talk}");
    }
}

#[tokio::test]
async fn the_log_is_bounded_again_once_a_long_reader_has_gone() {
    let database = Database::sqlite().await;
    let filling = "x".repeat(64 << 10);
    let fill = |round: usize| {
        let events = (0..128).map(|number| event(&format!("e{round}-{number}"), None, &json!({"filling": filling})));
        futures_util::future::join_all(events.map(|event| database.append(event)).collect::<Vec<_>>())
    };
    let log = database.folder().join("store.db-wal");
    fill(0).await;
    // As a backup does, of a store so large that it takes long.
    let reader = database.connection();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    for round in 1..14 {
        fill(round).await;
    }
    assert!(fs::metadata(&log).unwrap().len() > 96 << 20, "the reader holds it");
    reader.execute_batch("COMMIT").unwrap();
    for round in 14..17 {
        fill(round).await;
    }
    let bytes = fs::metadata(&log).unwrap().len();
    assert!(bytes < 80 << 20, "{bytes} bytes");
}

#[tokio::test]
async fn a_store_in_order_passes_and_each_fault_is_found() {
    let database = Database::sqlite().await;
    database.dispatched("e1", "t1", vec![delivery("crm", None), delivery("log", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    let (code, out, talk) = ended(&mut taskhook(&database, &["check"]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "not taken in yet: {talk}");
    assert_eq!(database.claim(JobKind::Fetch, "manus", at(0)).await.len(), 0, "but now");
    let (code, out, talk) = ended(&mut taskhook(&database, &["check"]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{talk}");
    let faults = [
        ("DELETE FROM jobs WHERE kind = 'prove'", "has no job"),
        ("DELETE FROM jobs WHERE kind = 'deliver' AND queue = 'crm'", "the first of its lane"),
        ("DELETE FROM delivery_bodies WHERE delivery = 1", "no content"),
        ("DELETE FROM deliveries WHERE seq = 2", "not pending, or not there"),
        ("DELETE FROM tasks WHERE task_id = 't2'", "about a task"),
        ("DELETE FROM events WHERE seq = 1", "a key belongs to no event"),
        ("DELETE FROM events WHERE seq = 2", "is no event that is kept"),
        ("DELETE FROM task_events WHERE event = 2", "not among those of its task"),
        ("INSERT INTO attempts VALUES (99, 1, 'x', 'x', 'failed', NULL)", "an attempt is left"),
        ("UPDATE open_events SET state = 'archiving'", "not written down since when"),
        ("INSERT INTO archiving (event, subject, told, since, out_of_order) VALUES (1, 1, 'x', 'x', 0)", "and does not"),
        ("UPDATE open_events SET state = 'lost'", "does not know"),
        ("INSERT INTO fetched_tasks (task_seq, task, files, raw) VALUES (99, '{}', '[]', '')", "a fetched task is left"),
        (
            "INSERT INTO files (subject, key, event, name, status, first_seen_at) VALUES (1, 'k', 1, 'n', 'pending', 'x')",
            "to be saved",
        ),
        (
            "INSERT INTO files (subject, key, event, name, status, first_seen_at) VALUES (1, 'k', 1, 'n', 'archived', 'x')",
            "digest",
        ),
        (
            "INSERT INTO files (subject, key, event, name, status, first_seen_at) VALUES (9, 'k', 1, 'n', 'failed', 'x')",
            "a file is of",
        ),
    ];
    for (number, (sql, words)) in faults.iter().enumerate() {
        let file = database.folder().join(format!("{number}.db"));
        backup(&database, &file);
        let broken = Connection::open(&file).unwrap();
        broken.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
        drop(broken);
        let config = Config::new(format!("sqlite://{}", file.display()));
        let findings = care::check(&config, false, &mut |_| {}).unwrap();
        assert!(findings.iter().any(|finding| finding.problem.contains(words)), "{sql}: {findings:?}");
    }
    let (code, out, talk) = ended(taskhook(&database, &["check"]).env("TASKHOOK__STORE__URL", "sqlite://0.db"));
    assert_eq!(code, Some(1), "{talk}");
    assert!(out.starts_with("1 times: an event waits") && talk.contains("1 finding(s)"), "{out}{talk}");
}

#[tokio::test]
async fn a_damaged_file_is_told_of() {
    let database = Database::sqlite().await;
    for number in 0..50 {
        database.append(event(&format!("e{number}"), None, &json!({"filling": "x".repeat(3_000)}))).await;
    }
    let file = database.folder().join("damaged.db");
    backup(&database, &file);
    let mut bytes = fs::read(&file).unwrap();
    for page in bytes.chunks_mut(4096).skip(30).step_by(2) {
        page[..64].fill(0xff);
    }
    fs::write(&file, bytes).unwrap();
    for arguments in [&["check"][..], &["check", "--quick"]] {
        let (code, out, talk) = ended(taskhook(&database, arguments).env("TASKHOOK__STORE__URL", "sqlite://damaged.db"));
        assert!(matches!(code, Some(1 | 3)), "{talk}");
        assert!(out.contains("damaged") || talk.contains("damaged"), "{out}{talk}");
    }
    let (code, _, talk) = ended(&mut taskhook(&database, &["restore", "damaged.db"]));
    assert_eq!(code, Some(3), "it runs, which is told first: {talk}");
}

#[tokio::test]
async fn a_store_is_measured() {
    let database = Database::sqlite().await;
    database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    let (code, out, talk) = ended(&mut taskhook(&database, &["stats", "--json"]));
    assert_eq!(code, Some(0), "{talk}");
    let stats: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["events"], json!([{"name": "proving", "count": 1}, {"name": "done or kept", "count": 1}]));
    assert_eq!(stats["deliveries"], json!([{"name": "pending", "count": 1}]));
    assert_eq!((&stats["shrinks"], &stats["oldest_event"]), (&json!(true), &json!("2026-01-15T12:00:00.000Z")));
    let tables = stats["tables"].as_array().unwrap();
    let events = tables.iter().find(|table| table["name"] == "events").unwrap();
    assert_eq!((&events["rows"], events["bytes"].as_u64().unwrap() >= 8192), (&json!(2), true), "the table and its index");
    assert!(stats["bytes_per_event"].as_u64().unwrap() > 0 && stats["log_bytes"].as_u64().unwrap() > 0);
    let (code, out, _) = ended(&mut taskhook(&database, &["stats"]));
    assert!(code == Some(0) && out.contains("1 proving, 1 done or kept") && out.contains("delivery_bodies"), "{out}");
}
