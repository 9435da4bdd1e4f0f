//! `taskhook bench`, as a user runs it: a little of each, for what it says and leaves. How fast anything is, no test asks.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::postgres::{Connection, server};

/// A database of a bench's own: so what it leaves in it is seen.
pub(crate) struct Database {
    name: String,
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn new() -> Self {
        let name = format!("bench_test_{}", Uuid::now_v7().simple());
        let url = format!("{}/{name}", server().rsplit_once('/').expect("a database").0);
        wait(async { Connection::to(&server()).await.batch_execute(&format!("CREATE DATABASE {name}")).await }).unwrap();
        Self { name, url }
    }

    /// How many schemas there are that a bench made.
    pub(crate) fn schemas(&self) -> i64 {
        let count = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bench%'";
        wait(async { Connection::to(&self.url).await.query_one(count, &[]).await }).unwrap().get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let gone = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        drop(wait(async { Connection::to(&server()).await.batch_execute(&gone).await }));
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What a bench came to.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskhook"));
    command.arg("bench").args(words).current_dir(folder).stdin(Stdio::null());
    // What would stop any command that reads its environment.
    command.env("TASKHOOK__STORE__URL", "postgres://nowhere").env("RUST_LOG", "not a filter[");
    command
}

/// Runs `bench` with these words; it leaves nothing behind, whatever becomes of it.
#[track_caller]
fn bench(words: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), words).output().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The result of a bench that must end well, as it tells programs; its store is a file or on the server.
#[track_caller]
fn told(on: Option<&Database>, name: &str, words: &[&str]) -> Value {
    let store = on.map_or("sqlite", |database| &database.url);
    let ran = bench(&[&[name, "--store", store], words, &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&told["bench"], &told["ok"], &told["failures"]), (&json!(name), &json!(true), &json!([])), "{told:#}");
    for member in ["cpu", "cores", "memory_bytes", "kernel", "fdatasync_p50_ms", "version", "build"] {
        assert!(!told["machine"][member].is_null(), "{member}: {told:#}");
    }
    assert_eq!(told["machine"]["build"], "debug");
    assert_eq!(told["settings"]["store"], if on.is_some() { "postgres" } else { "sqlite" });
    assert_eq!(told["settings"]["postgres"].is_string(), on.is_some(), "{told:#}");
    assert!(ran.err.contains("warning: this is a debug build"), "{}", ran.err);
    assert!(told["notes"].as_array().is_some_and(|notes| notes.len() > 2), "{told:#}");
    if let Some(database) = on {
        assert_eq!(database.schemas(), 0, "something was left behind");
        assert!(!ran.out.contains(&database.url) && !ran.err.contains(&database.url), "{}\n{}", ran.out, ran.err);
    }
    told
}

/// Whether these members are numbers above zero.
#[track_caller]
fn positive(of: &Value, members: &[&str]) {
    for member in members {
        assert!(of[member].as_f64().is_some_and(|number| number > 0.0), "{member}: {of:#}");
    }
}

const LATENCY: [&str; 5] = ["p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"];

#[test]
fn ingest_compares_with_the_limit_in_the_same_round() {
    let told = told(None, "ingest", &["--rounds", "2", "--events", "40", "--connections", "8"]);
    for server in ["bare", "verify", "limit", "taskhook", "hmac"] {
        let figures = &told["result"]["servers"][server];
        positive(figures, &["events_per_second", "p50_ms", "p99_ms", "max_ms"]);
        assert_eq!(figures["rounds"].as_array().map(Vec::len), Some(2), "{told:#}");
        assert_eq!(figures["work_done_by_last_answer"].is_null(), !matches!(server, "taskhook" | "hmac"), "{told:#}");
    }
    for ratio in ["taskhook_of_limit", "taskhook_of_verify", "taskhook_of_bare", "hmac_of_taskhook"] {
        positive(&told["result"]["ratios"][ratio], &["median", "least", "most"]);
    }
    assert!(told["notes"].to_string().contains("limit of requests a minute, and taskhook's own budget for them, are lifted"));
}

#[test]
fn ingest_on_a_server_compares_with_its_limit_and_with_replicas() {
    let database = Database::new();
    let words = ["--rounds", "1", "--events", "40", "--connections", "8", "--replicas", "2"];
    let told = told(Some(&database), "ingest", &words);
    for server in ["bare", "verify", "limit", "pg_limit", "pg_each", "taskhook", "hmac", "taskhook_x1", "taskhook_x2"] {
        positive(&told["result"]["servers"][server], &["events_per_second", "p50_ms", "p99_ms", "max_ms"]);
    }
    for ratio in ["taskhook_of_limit", "taskhook_of_pg_limit", "taskhook_of_pg_each", "taskhook_x2_of_taskhook_x1"] {
        positive(&told["result"]["ratios"][ratio], &["median", "least", "most"]);
    }
}

#[test]
fn ingest_of_some_servers_is_a_table_of_these() {
    let ran = bench(&["ingest", "--only", "bare,taskhook", "--rounds", "1", "--events", "20", "--connections", "4"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let begins = |word: &str| ran.out.lines().any(|line| line.starts_with(word));
    for word in ["machine:", "disk:", "build:", "bench:  ingest:", "SERVER", "bare ", "taskhook ", "RATIO", "taskhook / bare"] {
        assert!(begins(word), "{word}: {}", ran.out);
    }
    assert!(!begins("limit") && !begins("hmac") && !begins("pg-limit"), "{}", ran.out);
    assert!(ran.err.contains("round 1 of 1, taskhook: "), "{}", ran.err);
}

#[test]
fn rate_tells_latencies_from_the_intended_moment() {
    let database = Database::new();
    for (on, sender) in [(None, "manus"), (None, "hmac"), (Some(&database), "manus")] {
        let told = told(on, "rate", &["--per-second", "50", "--for", "1s", "--connections", "8", "--sender", sender]);
        let result = &told["result"];
        assert_eq!((&result["sent"], &result["accepted"]), (&json!(50), &json!(50)), "{told:#}");
        assert_eq!((&result["statuses"], &result["unanswered"]), (&json!({"200": 50}), &json!(0)), "{told:#}");
        positive(&result["latency"], &LATENCY);
        positive(&result["late"], &["max_ms"]);
        positive(result, &["per_second", "p99_goal_ms"]);
        assert!(result["p99_goal_met"].is_boolean(), "{told:#}");
    }
}

#[test]
fn grow_tells_of_every_tenth() {
    grow(None);
}

#[test]
fn grow_tells_of_every_tenth_on_a_server_too() {
    grow(Some(&Database::new()));
}

fn grow(on: Option<&Database>) {
    let told = told(on, "grow", &["--events", "205", "--connections", "8"]);
    let result = &told["result"];
    assert_eq!((&result["accepted"], &result["kept"], &result["drained"]), (&json!(205), &json!(205), &json!(true)), "{told:#}");
    assert_eq!(told["settings"]["head_bytes"], 1024);
    let tenths = result["tenths"].as_array().unwrap();
    assert_eq!(tenths.len(), 10);
    for tenth in tenths {
        positive(tenth, &["events_per_second", "disk_bytes"]);
        positive(&tenth["latency"], &LATENCY);
        assert!(tenth["waiting"].is_u64(), "{tenth:#}");
    }
    positive(result, &["per_second", "last_of_first", "bytes_per_event", "file_bytes"]);
    if cfg!(target_os = "linux") {
        positive(result, &["memory_own_max_bytes", "memory_own_end_bytes", "memory_resident_max_bytes"]);
    }
}

#[test]
fn spike_tells_of_the_backlog_the_duplicates_and_the_metrics() {
    spike(None);
}

#[test]
fn spike_tells_of_the_backlog_the_duplicates_and_the_metrics_on_a_server_too() {
    spike(Some(&Database::new()));
}

fn spike(on: Option<&Database>) {
    let words = ["--base", "20", "--calm", "1s", "--peak", "300", "--for", "1s", "--duplicates", "5", "--connections", "8"];
    let told = told(on, "spike", &words);
    let result = &told["result"];
    // Of 340 requests those whose number ends in 0 to 4 of a hundred are repeats, but for the first hundred.
    assert_eq!((&result["requests"], &result["repeats"]), (&json!(340), &json!(15)), "{told:#}");
    assert_eq!((&result["accepted"], &result["duplicates"]), (&json!(325), &json!(15)), "{told:#}");
    assert_eq!((&result["lost"], &result["arrivals"]), (&json!(0), &json!(325)), "{told:#}");
    assert_eq!(result["delivered_more_than_once"], 0);
    positive(&result["latency"], &LATENCY);
    assert!(result["delivered_after_peak_seconds"].is_number() && result["delivered_goal_met"].is_boolean(), "{told:#}");
    let metrics = &result["metrics"];
    assert_eq!(metrics["taskhook_responses_total"], json!({"200": 340}));
    assert_eq!(metrics["taskhook_events_total"], json!({"accepted": 325, "duplicate": 15}));
    assert_eq!(metrics["taskhook_deliveries_total"], json!({"delivered": 325}));
    assert_eq!((&metrics["taskhook_jobs"]["end"], &metrics["taskhook_dead_letters"]), (&json!(0), &json!(0)));
}

#[test]
fn pipeline_follows_every_task_to_its_delivery() {
    pipeline(None);
}

#[test]
fn pipeline_follows_every_task_to_its_delivery_on_a_server_too() {
    pipeline(Some(&Database::new()));
}

fn pipeline(on: Option<&Database>) {
    let words = ["--rounds", "1", "--tasks", "60", "--in-flight", "16", "--per-second", "50", "--for", "500ms", "--blocked"];
    let told = told(on, "pipeline", &words);
    let result = &told["result"];
    for part in ["fast", "blocked"] {
        positive(&result[part]["tasks_per_second"], &["median", "least", "most"]);
    }
    positive(&result["blocked"]["ratio"], &["median"]);
    positive(&result["steady"]["latency"], &LATENCY);
    let stages = result["steady"]["stages"].as_object().unwrap();
    // However long each took, no point in time was missed.
    assert!(stages.len() == 6 && stages.values().all(|stage| stage["count"] == 25), "{told:#}");
}

#[test]
fn claim_tells_what_one_costs_with_few_and_many_jobs() {
    let database = Database::new();
    for on in [None, Some(&database)] {
        let told = told(on, "claim", &["--jobs", "10,2000"]);
        let claims = told["result"]["claims"].as_array().unwrap();
        assert_eq!((claims.len(), &claims[0]["jobs"], &claims[1]["jobs"]), (2, &json!(10), &json!(2000)), "{told:#}");
        for claims in claims {
            positive(claims, &["claims", "p50_us", "p99_us"]);
        }
        positive(&told["result"]["ratio"], &["p50", "p99"]);
    }
}

#[test]
fn pages_tells_what_each_takes_with_a_past() {
    let database = Database::new();
    for on in [None, Some(&database)] {
        let told = told(on, "pages", &["--events", "1002", "--requests", "3"]);
        assert_eq!((&told["settings"]["events"], &told["settings"]["tasks"]), (&json!(1000), &json!(250)), "{told:#}");
        let pages = told["result"]["pages"].as_array().unwrap();
        assert!(pages.len() > 20, "{told:#}");
        for page in pages {
            positive(page, &["p50_ms", "p95_ms", "max_ms", "bytes"]);
        }
    }
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    signalled("sqlite");
    let database = Database::new();
    signalled(&database.url);
    assert_eq!(database.schemas(), 0, "something was left behind");
}

fn signalled(store: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), &["grow", "--events", "20000", "--store", store])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("tenth 1 of 10 ")), "it begins");
    // The process that receives is named by its folder.
    let [made] = &std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..] else {
        panic!("one folder is made")
    };
    let made = &*made.to_string_lossy();
    assert!(cfg!(not(target_os = "linux")) || named(made) == 1, "it receives");
    assert!(cfg!(not(target_os = "linux")) || store == "sqlite" || named(store) == 1, "only the bench itself is told the URL so");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let told: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(told.last().map(String::as_str), Some("error: it was stopped before its end"), "{told:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    assert_eq!(named(made), 0, "a process was left behind");
}

/// How many processes run whose command line has `word` in it.
fn named(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
    processes.filter_map(|file| std::fs::read(file).ok()).filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[test]
fn a_server_that_is_not_there_is_told_without_the_password() {
    let ran = bench(&["rate", "--store", "postgres://user:hunter2@127.0.0.1:1/x"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{}", ran.err);
    assert!(ran.err.contains("error: cannot use postgres://127.0.0.1:1/x: ") && !ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_made() {
    for (words, problem) in [
        (&["ingest", "--rounds", "0"][..], "invalid value '0' for '--rounds <N>'"),
        (&["ingest", "--only", "limits"], "invalid value 'limits' for '--only <SERVER,…>'"),
        (&["rate", "--per-second", "0"], "invalid value '0' for '--per-second <N>'"),
        (&["rate", "--for", "5"], "write it like `500ms`, `30s` or `2m`"),
        (&["rate", "--per-second", "100000", "--for", "1h"], "come to 360000000 events; it must be from 1 to 100000000"),
        (&["rate", "--per-second", "1", "--for", "1ms"], "come to 0 events; it must be from 1 to 100000000"),
        (&["grow", "--events", "9"], "invalid value '9' for '--events <N>'"),
        (&["spike", "--duplicates", "51"], "invalid value '51' for '--duplicates <PERCENT>'"),
        (&["spike", "--peak", "100000", "--for", "1m"], "it comes to 6000320 events; it must be at most 5000000"),
        (&["rate", "--folder", "nowhere"], "nowhere: No such file or directory"),
        (
            &["rate", "--store", "mysql://user:hunter2@db/x"],
            "error: `--store`: it is neither `sqlite` nor the URL of a PostgreSQL",
        ),
        (&["rate", "--store", "postgres://user:hunter2@db"], "error: `--store`: it names no database"),
        (&["claim", "--jobs", "0"], "invalid value '0' for '--jobs <N,…>'"),
        (&["ingest", "--replicas", "2"], "error: `--replicas`: only a store with `--store postgres://…` can be shared"),
        (&["ingest", "--only", "pg-limit"], "error: `--only`: pg-limit is there with `--store postgres://…` only"),
        (&["ingest", "--only", "replicas", "--store", "postgres://db/x"], "is there with `--replicas` only"),
        (&["pipeline", "--in-flight", "0"], "invalid value '0' for '--in-flight <N>'"),
        (&["pipeline", "--per-second", "10000", "--for", "1m"], "are more than 50000 tasks"),
        (&["pipeline", "--store", "sqlite://data.db"], "error: `--store`: the file is made in a temporary folder"),
        (&["swim"], "unrecognized subcommand 'swim'"),
    ] {
        let ran = bench(words);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{words:?}: {}", ran.err);
        assert!(ran.err.contains(problem) && !ran.err.contains("hunter2"), "{words:?}: {}", ran.err);
    }
}
