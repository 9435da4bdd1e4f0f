//! The promise that counts: what was answered 200 is kept and handed on, whoever kills the process and whenever.
//!
//! `taskhook bench kill` proves it on any machine; here it runs for a short time. Under load the process is killed with SIGKILL at
//! random moments, thirty times; and on a PostgreSQL, where two replicas share the store, either of them. At the end every
//! acknowledged event must be in the store and at the destination, with its file; and one that arrived there twice must have a
//! recorded attempt of unknown outcome.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::bench::Database;

/// The program with these words, in an empty folder, which it must leave empty.
fn bench(words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .arg("bench")
        .args(words)
        .current_dir(folder.path())
        .env("TASKHOOK__STORE__URL", "postgres://nowhere")
        .env("TASKHOOK_CONFIG", "/nowhere.toml")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    output
}

/// The result of a bench that must succeed.
fn result(words: &[&str]) -> Value {
    let output = bench(&[words, &["--json"]].concat());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    let mut report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["ok"], &report["failures"]), (&Value::from(true), &Value::Array(Vec::new())), "{out}");
    report["result"].take()
}

/// A count of a result.
#[track_caller]
fn count(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap_or_else(|| panic!("`{name}` is not in {result}"))
}

#[test]
fn thirty_kills_under_load_lose_no_acknowledged_event() {
    let result = result(&["kill", "--cycles", "30"]);
    let acknowledged = count(&result, "acknowledged");
    assert!(acknowledged > 30, "there was load: {result}");
    for all in ["found", "done"] {
        assert_eq!(count(&result, all), acknowledged, "{result}");
    }
    assert_eq!(count(&result, "delivered_once") + count(&result, "delivered_more"), acknowledged, "{result}");
    assert_eq!((count(&result, "lost"), count(&result, "without_unknown")), (0, 0), "{result}");
    assert!(count(&result, "unknown_attempts") <= 30 * 8, "{result}");
    assert!(count(&result, "repeats_known") > 0, "what was acknowledged before a kill is known after it: {result}");
    assert!(count(&result, "files_whole") > 0, "there were files: {result}");
}

#[test]
fn five_stops_in_order_under_load_leave_no_attempt_of_unknown_outcome() {
    let result = result(&["kill", "--cycles", "5", "--stop"]);
    let acknowledged = count(&result, "acknowledged");
    assert!(acknowledged > 5, "there was load: {result}");
    assert_eq!(count(&result, "delivered_once"), acknowledged, "{result}");
    assert_eq!((count(&result, "unknown_attempts"), count(&result, "delivered_more")), (0, 0), "{result}");
}

#[test]
fn replicas_that_are_killed_under_load_lose_nothing_that_either_acknowledged() {
    let database = Database::new();
    let result = result(&["kill", "--cycles", "8", "--senders", "4", "--store", &database.url]);
    assert_eq!(database.schemas(), 0, "something was left behind");
    let acknowledged = count(&result, "acknowledged");
    assert!(acknowledged > 8, "there was load: {result}");
    for all in ["found", "done"] {
        assert_eq!(count(&result, all), acknowledged, "{result}");
    }
    assert_eq!((count(&result, "lost"), count(&result, "without_unknown")), (0, 0), "{result}");
    assert!(count(&result, "repeats_known") > 0, "what one has acknowledged the other knows: {result}");
}

#[test]
fn replicas_that_are_stopped_in_order_leave_no_attempt_of_unknown_outcome() {
    let database = Database::new();
    let result = result(&["kill", "--cycles", "3", "--senders", "4", "--stop", "--store", &database.url]);
    assert_eq!(count(&result, "delivered_once"), count(&result, "acknowledged"), "{result}");
    assert_eq!((count(&result, "unknown_attempts"), count(&result, "delivered_more")), (0, 0), "{result}");
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_killed() {
    for (words, said) in [
        (&["kill", "--cycles", "0"][..], "invalid value '0' for '--cycles <N>'"),
        (
            &["kill", "--store", "data.db"],
            "error: `--store`: it is neither `sqlite` nor the URL of a PostgreSQL\nhint: write `sqlite`",
        ),
        (&["kill", "--store", "sqlite:///dev/null"], "error: `--store`: /dev/null is there already\nhint: name a file"),
        (&["kill", "--folder", "nowhere"], "nowhere: No such file or directory"),
    ] {
        let output = bench(words);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{words:?}: {err}");
        assert!(err.contains(said), "{words:?}: {err}");
    }
}
