//! `taskhook demo --once`, as a user runs it first.

use std::process::{Command, Stdio};

/// Whether a line holds all of `parts`, in this order.
#[track_caller]
fn has_line(out: &str, parts: &[&str]) {
    let in_order = |line: &str| {
        let mut rest = line;
        parts.iter().all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    };
    assert!(out.lines().any(in_order), "no line with {parts:?} in:\n{out}");
}

#[test]
fn one_round_tells_its_story_and_ends_well() {
    // A `.env` and an environment that would stop any command that read them.
    let directory = tempfile::tempdir().unwrap();
    let (temporary, here) = (directory.path().join("tmp"), directory.path().join("here"));
    std::fs::create_dir(&temporary).unwrap();
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join(".env"), "TASKHOOK__SERVER__LISTEN=nowhere\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .args(["demo", "--once"])
        .current_dir(&here)
        .env("TMPDIR", &temporary)
        .env("TASKHOOK__STORE__URL", "postgres://nowhere")
        .env("TASKHOOK_CONFIG", "/nowhere.toml")
        .env("MANUS_API_KEY", "sk-not-to-be-used")
        .env("RUST_LOG", "not a filter[")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "something was left behind");
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 1, "something was made in the working directory");
    assert!(!out.contains('\x1b'), "colour away from a terminal:\n{out}");
    for parts in [
        &["Manus", "ping", "200: kept as a test"][..],
        &["Manus", "task_created", "Plan a week in Lisbon", "200: kept"],
        &["taskhook", "prove", "ours: "],
        &["Manus", "task_stopped", "Plan a week in Lisbon", "200: kept"],
        &["taskhook", "fetch", "Plan a week in Lisbon", "200: the task"],
        &["your app", "task_stopped", "Plan a week in Lisbon", "✓ signature good; finished, 12 credits, lisbon.md"],
        &["your app", "task_stopped", "Book a table for two", "✓ signature good; it asks “Inside or on the terrace?”"],
        &["you", "answer", "Book a table for two", "“On the terrace, at eight”"],
        &["Manus", "task_stopped", "Compare three laptops", "200: known already, done once"],
        &["a forger", "task_stopped", "✗ 401 signature_invalid"],
        &["add `https://hooks.example.com` to"],
        &["taskhook", "quarantine", "Somebody else's task", "✗ 2 genuine events, not ours"],
        &["✓ sent", "14", "14"],
        &["✓ accepted", "11", "11"],
        &["✓ duplicates", "1", "1"],
        &["✓ refused", "2", "2"],
        &["✓ quarantined", "2", "2"],
        &["✓ delivered", "4", "4"],
        &["All ended as it should"],
    ] {
        has_line(&out, parts);
    }
}

/// What `demo --once` with these words tells; it must end well and leave nothing.
fn told(words: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .args(["demo", "--once"])
        .args(words)
        .current_dir(directory.path())
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
    out
}

#[test]
fn magic_hour_tells_its_story() {
    let out = told(&["--provider", "magic-hour"]);
    for parts in [
        &["Magic Hour", "image.completed", "A cat with glasses", "200: kept"][..],
        &["Magic Hour", "video.started", "A walk on the beach", "200: kept"],
        &["taskhook", "fetch", "A walk on the beach", "200: the job, with fresh links"],
        &["your app", "video.completed", "A walk on the beach", "✓ signature good; finished, 30 credits, beach.mp4"],
        &["your app", "video.errored", "A face swap", "✓ signature good; failed: no_source_face"],
        &["Magic Hour", "video.completed", "A walk on the beach", "200: known already, done once"],
        &["a forger", "video.completed", "✗ 401 signature_invalid"],
        &["a script", "video.completed", "✗ 401 signature_invalid"],
        &["white space"],
        &["✓ sent", "9", "9"],
        &["✓ accepted", "6", "6"],
        &["✓ duplicates", "1", "1"],
        &["✓ refused", "2", "2"],
        &["✓ fetched", "3", "3"],
        &["✓ delivered", "3", "3"],
        &["All ended as it should"],
    ] {
        has_line(&out, parts);
    }
    assert!(!out.contains("whsec_demo"), "{out}");
}

#[test]
fn webrun_tells_its_story() {
    let out = told(&["--provider", "webrun"]);
    for parts in [
        &["WebRun", "task_completed", "Compare three laptops", "200: kept"][..],
        &["WebRun", "task_completed", "Compare three laptops", "200: known already, done once"],
        &["taskhook", "fetch", "Download the report", "200: the task, its files"],
        &[
            "your app",
            "task_completed",
            "Compare three laptops",
            "✓ signature good; finished, $0.0124, {\"laptop\":\"B\",\"price\":899}",
        ],
        &["your app", "task_completed", "Download the report", "✓ signature good; finished, $0.0124, report.csv"],
        &["a forger", "task_completed", "✗ 401 authorization_invalid"],
        &["a script", "task_completed", "✗ 401 authorization_invalid"],
        &["✓ sent", "5", "5"],
        &["✓ accepted", "2", "2"],
        &["✓ duplicates", "1", "1"],
        &["✓ refused", "2", "2"],
        &["✓ fetched", "2", "2"],
        &["✓ delivered", "2", "2"],
        &["All ended as it should"],
    ] {
        has_line(&out, parts);
    }
    assert!(!out.contains("Pay the bill") && !out.contains("demo-token"), "{out}");
}
