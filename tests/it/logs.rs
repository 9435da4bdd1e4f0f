//! The log: one line an outcome, fields of one name, and nothing in it that is not for whoever reads it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, End, Faults, Plan, Turn, WrongAnswer};
use taskhook::telemetry::{self, Format};

use crate::harness::{Harness, KEY, Recorder, Reply, send, status};
use crate::work::{setup, start, stopped};

const DOCS: &str = include_str!("../../src/docs/logs.md");
/// Words that nothing else holds: what tasks say, and what is secret.
const SAID: &str = "the-launch-code-is-8086";
const SECRETS: [&str; 4] =
    [KEY, "a-header-that-is-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
/// What no terminal and no log must be sent.
const HOSTILE: &str = "a\u{1b}[2J\u{202e}b\u{9b}31m\r\n2026-01-15T12:00:00Z ERROR forged\u{2028}";

/// Where lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Logs all of this process, which is that of one test, at `debug`.
    fn begin(format: Format) -> Self {
        let lines = Self::default();
        let to = lines.clone();
        let filter = telemetry::parse_filter("warn,taskhook=debug").unwrap();
        tracing::subscriber::set_global_default(telemetry::subscriber(format, filter, false, move || to.clone()))
            .expect("each test has a process of its own: run them with nextest");
        lines
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A program to which everything happens that has a line.
async fn world(crm: &Recorder) -> Harness {
    let keys = format!(
        "secret = \"{}\"\nladder = [\"1s\", \"2s\"]\n[destinations.crm.headers]\nauthorization = \"Bearer {}\"\n",
        SECRETS[2], SECRETS[1]
    );
    let saves = "[archive]\nurl = \"file://{folder}/files\"\n[outbound]\nallow_private_addresses = true\n";
    let setup = setup(crm, &keys).config(saves).reconciling();
    let mut harness = start(setup).await;
    harness.drain().await;
    let title = format!("{HOSTILE}{SAID}");
    let file = |plan: Plan| plan.with_file(&format!("{HOSTILE}.txt"), "text/plain", SAID.to_owned()).titled(&title);
    // Accepted, archived, delivered.
    let task = harness.manus.create_task(KEY, file(Plan::finish(SAID)));
    harness.manus.finish_all().await;
    harness.drain().await;
    // Known already; told apart; of a type that nobody knows.
    let again = stopped("again", &task);
    for event in [
        again.clone(),
        again,
        json!({"event_id": HOSTILE, "event_type": HOSTILE, "task_detail": {"task_id": HOSTILE, "x": SAID}}),
    ] {
        assert_eq!(status(&harness.deliver(&event).await), 200);
    }
    harness.drain().await;
    // Rejected.
    let refused =
        send(harness.post("/webhooks/manus").header("x-webhook-signature", SECRETS[1]).body(format!("{HOSTILE}{SAID}"))).await;
    assert_eq!(status(&refused), 401);
    harness.drain().await;
    // Failed once; given up on at once, and after all attempts.
    for replies in [vec![500], vec![410], vec![500, 503, 500]] {
        crm.answer_next(replies.into_iter().map(Reply::Status));
        let _ = harness.manus.create_task(KEY, Plan::finish(SAID).titled(&title));
        harness.manus.finish_all().await;
        harness.drain().await;
        for _ in 0..3 {
            harness.advance(Duration::from_secs(3)).await;
        }
    }
    // Recovered.
    harness.manus.set_faults(Faults { drop: Times::Always, ..Faults::default() });
    let _ = harness.manus.create_task(KEY, Plan::finish(SAID).titled(&title));
    harness.manus.finish_all().await;
    harness.advance(Duration::from_mins(5)).await;
    harness.advance(Duration::from_mins(5)).await;
    harness.manus.set_faults(Faults::default());
    // Answered; and the provider is away for a moment.
    let ask = End::Ask { question: SAID.to_owned(), options: Vec::new() };
    let task = harness.manus.create_task(KEY, Plan::new([Turn::new(ask), Turn::finish(SAID)]));
    harness.manus.finish_all().await;
    harness.drain().await;
    let reply = json!({"message": SAID, "by": HOSTILE});
    assert_eq!(status(&harness.admin_post(&format!("/api/v1/tasks/manus/{task}/reply"), &reply).await), 200);
    let away = ApiFault {
        only: None,
        times: Times::Next(2),
        slow_ms: 0,
        answer: Some(WrongAnswer::Refuse { status: 503, retry_after: None }),
    };
    harness.manus.set_faults(Faults { api: vec![away], ..Faults::default() });
    harness.manus.finish_all().await;
    for _ in 0..6 {
        harness.advance(Duration::from_mins(20)).await;
    }
    harness
}

/// Of the lines that begin so, how many there are by what `key` reads of them.
fn count(lines: &[Value], begins: &str, key: impl Fn(&Value) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with(begins))) {
        *counts.entry(key(line)).or_insert(0) += 1;
    }
    counts
}

fn word(line: &Value, field: &str) -> String {
    line[field].as_str().map_or_else(|| line[field].to_string(), str::to_owned)
}

/// Each once.
fn once(keys: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    keys.into_iter().map(|key| (key, 1)).collect()
}

#[tokio::test]
async fn each_outcome_has_one_line_with_its_fields_and_nothing_that_is_secret() {
    let lines = Lines::begin(Format::Json);
    let crm = Recorder::start().await;
    let harness = Box::pin(world(&crm)).await;
    let text = lines.text();
    let told: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();

    let events = harness.list("events?limit=500").await;
    let ids = |wanted: &dyn Fn(&Value) -> bool| once(events.iter().filter(|event| wanted(event)).map(|event| word(event, "id")));
    let received = |outcomes: &[&str]| {
        let of: Vec<_> = told.iter().filter(|line| outcomes.contains(&word(line, "outcome").as_str())).cloned().collect();
        count(&of, "received an event on", |line| word(line, "event"))
    };
    assert_eq!(received(&["accepted", "collision"]), ids(&|event| event["verification"] == "signature"));
    let repeats: BTreeMap<_, _> = events
        .iter()
        .filter_map(|event| Some((word(event, "id"), usize::try_from(event["repeats"].as_u64()?).unwrap())))
        .filter(|(_, repeats)| *repeats > 0)
        .collect();
    assert!(!repeats.is_empty());
    assert_eq!(received(&["duplicate"]), repeats);
    let recovered = ids(&|event| event["verification"] == "api");
    assert_eq!(recovered.len(), 1);
    assert_eq!(count(&told, "a stop that no webhook told", |line| word(line, "event")), recovered);

    let deliveries = harness.list("deliveries?limit=500").await;
    let of = |state: &str| once(deliveries.iter().filter(|row| row["state"] == state).map(|row| word(row, "id")));
    assert_eq!(of("dead").len(), 2);
    assert_eq!(count(&told, "delivered to", |line| word(line, "delivery")), of("delivered"));
    assert_eq!(count(&told, "a dead letter", |line| word(line, "delivery")), of("dead"));
    // The last attempt at what was given up on is told with that.
    let attempts = deliveries.iter().flat_map(|row| {
        let attempts = row["attempts"].as_array().unwrap();
        let failed = attempts.iter().filter(|attempt| attempt["outcome"] != "delivered");
        let told = failed.filter(|attempt| row["state"] != "dead" || *attempt != attempts.last().unwrap());
        told.map(|attempt| format!("{} {}", word(row, "id"), attempt["attempt"])).collect::<Vec<_>>()
    });
    let attempts = once(attempts);
    assert!(attempts.len() >= 3, "{attempts:?}");
    let failed = count(&told, "delivering to", |line| format!("{} {}", word(line, "delivery"), line["attempt"]));
    assert_eq!(failed, attempts);

    for (begins, expected) in [("refused a request for", 1), ("a task was answered", 1), ("a file was archived", 1)] {
        assert_eq!(count(&told, begins, |_| String::new()).into_values().sum::<usize>(), expected, "{begins}");
    }
    // Fields have the names that are told of, and the lines of outcomes all that they should have.
    for line in &told {
        let message = word(line, "message");
        assert!(line.get("task_id").is_none() && line.get("event_id").is_none(), "{line}");
        let row = DOCS.lines().filter(|row| row.starts_with("| ") && row.matches('|').count() == 5);
        let mut rows = row.filter(|row| {
            let begins = row.split('|').nth(3).unwrap();
            begins.split('`').skip(1).step_by(2).any(|begins| !begins.is_empty() && message.starts_with(begins))
        });
        if let Some(row) = rows.next() {
            let fields = row.split('|').nth(4).unwrap().split(" (").next().unwrap().split(';').next().unwrap();
            let level = word(line, "level").to_lowercase();
            assert!(row.split('|').nth(2).unwrap().contains(&level), "{row}: {line}");
            let any = fields.split('`').skip(1).step_by(2).any(|field| line.get(field).is_some());
            assert!(any || fields.trim().is_empty(), "{row}: {line}");
        }
    }
    harmless(&text);
}

#[tokio::test]
async fn lines_for_people_are_as_harmless() {
    let lines = Lines::begin(Format::Text);
    let crm = Recorder::start().await;
    let harness = Box::pin(world(&crm)).await;
    let text = lines.text();
    // Each begins with the time at which it was written, by the machine's clock.
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        let level = rest.trim_start().split(' ').next().unwrap();
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
    }
    harmless(&text);
    drop(harness);
}

/// No line holds what tasks say, what is secret, or what disturbs whoever reads it.
fn harmless(text: &str) {
    assert!(text.lines().count() > 20, "{text}");
    for line in text.lines() {
        for secret in SECRETS.iter().chain([&SAID]) {
            assert!(!line.contains(secret), "{line}");
        }
        let disturbing = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{2028}' | '\u{9b}' | '\u{e0041}');
        assert!(!line.chars().any(disturbing), "{line:?}");
    }
}

/// What the page says of outcomes is what the program writes.
#[test]
fn the_page_tells_of_lines_that_there_are() {
    let mut source = String::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "rs") {
                source.push_str(&std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    let outcomes = DOCS.split("## Outcomes").nth(1).unwrap();
    let mut looked_at = 0;
    for row in outcomes.lines().filter(|row| row.starts_with("| ")).skip(1) {
        let begins = row.split('|').nth(3).unwrap();
        for words in
            begins.split("`, `").map(|words| words.trim().trim_matches('`').trim()).filter(|words| !words.starts_with("watch."))
        {
            assert!(source.contains(&format!("\"{words}")), "{words}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}
