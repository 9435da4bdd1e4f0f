//! `kind = "log"`: a line on standard output for every event.
//!
//! What must hold: lines never mix, whoever writes at the same time; text from outside cannot start a new line, move the cursor
//! or turn the reading direction; and a reader that is gone or stuck is a failure to retry, never a panic or a stop.
//!
//! A `summary` is written as the program's log is: for people as one line of facts, for machines as JSON. An `envelope` is always
//! JSON.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::section::Terms;
use super::{OnUnknown, Outgoing, Parts, Receipt};
use crate::clock::{self, Clock};
use crate::retry::Failure;
use crate::route::Envelope;
use crate::text::{escape_json, one_line};

/// How long one line may take.
const TIMEOUT: Duration = Duration::from_secs(6);
/// Lines are written one after the other, but their attempts are begun and ended together: that is what takes time.
pub(super) const TERMS: Terms =
    Terms { timeout: TIMEOUT, concurrency: 64, rate: None, ladder: None, on_unknown: OnUnknown::Retry };

/// The most characters of a message in a summary; its readers want to recognise it, not to read it.
const MAX_MESSAGE: usize = 1000;
/// The most characters of a title, a name, a URL and a message's first line in a line for people.
const MAX_PART: usize = 120;

/// One line at a time. Held by whoever writes, over its end if need be: of a stuck reader at most one thread is the victim.
static LINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The `[destinations.NAME]` section of a `log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is written.
    #[serde(default)]
    pub include: Include,
}

/// What is written of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// The facts that a person wants.
    #[default]
    Summary,
    /// Everything, as JSON.
    Envelope,
}

/// How a summary is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As a line for people.
    #[default]
    Text,
    /// As JSON on one line.
    Json,
}

/// Where lines go.
#[derive(Clone, Debug, Default)]
pub enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// Nowhere: for measuring.
    Null,
    /// Into memory: for tests, and for whoever shows the lines otherwise.
    Memory(Arc<Mutex<Vec<String>>>),
}

impl Output {
    /// An empty [`Output::Memory`].
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// The lines that went into memory, without their ends.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Memory(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::Stdout | Self::Null => Vec::new(),
        }
    }
}

/// A `log` destination.
#[derive(Debug)]
pub(super) struct Log {
    include: Include,
    format: Format,
    output: Output,
    clock: Clock,
}

/// The facts that a person wants: the content of a delivery with `include = "summary"`.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "a document: each is a member that readers test by itself")]
struct Summary {
    id: Uuid,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    provider: String,
    received_at: String,
    recovered: bool,
    replayed: bool,
    may_repeat: bool,
    out_of_order: bool,
    task_id: Option<String>,
    title: Option<String>,
    /// The task's state, if it was fetched.
    state: Option<String>,
    stop_reason: Option<String>,
    credits: Option<serde_json::Number>,
    files: usize,
    url: Option<String>,
    message: Option<String>,
}

impl Log {
    pub(super) fn build(config: &Config, parts: &Parts) -> Self {
        Self { include: config.include, format: parts.format, output: parts.output.clone(), clock: parts.clock.clone() }
    }

    pub(super) fn render(&self, envelope: &Envelope) -> serde_json::Result<String> {
        match self.include {
            Include::Summary => serde_json::to_string(&Summary::of(envelope)),
            Include::Envelope => serde_json::to_string(envelope),
        }
    }

    pub(super) async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        let mut line = match (self.include, self.format) {
            (Include::Summary, Format::Text) => match serde_json::from_str::<Summary>(delivery.body) {
                Ok(summary) => summary.line(),
                // Written by another version of this program, or when `include` was another: shown as it is.
                Err(_) => escape_json(delivery.body),
            },
            (Include::Summary, Format::Json) | (Include::Envelope, _) => escape_json(delivery.body),
        };
        match &self.output {
            Output::Null => {}
            Output::Memory(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).push(line),
            Output::Stdout => {
                line.push('\n');
                self.print(line).await?;
            }
        }
        Ok(Receipt { detail: "written".to_owned() })
    }

    pub(super) fn check(&self) -> String {
        match self.output {
            Output::Stdout => "writes to standard output",
            Output::Null => "writes nowhere",
            Output::Memory(_) => "writes into memory",
        }
        .to_owned()
    }

    /// Writes a line to standard output, on a thread of its own: a pipe that is full blocks.
    async fn print(&self, line: String) -> Result<(), Failure> {
        let stuck = || format!("standard output took nothing for {} s: its reader is stuck", TIMEOUT.as_secs());
        let turn = tokio::select! {
            turn = LINE.lock() => turn,
            () = self.clock.sleep(TIMEOUT) => return Err(Failure::retry(stuck())),
        };
        let (done, written) = tokio::sync::oneshot::channel();
        // Not a thread of tokio's: the runtime would wait for it at the end, for as long as the reader is stuck.
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let result = write(&mut io::stdout().lock(), &line);
            drop(turn);
            // Nobody listens any more when the time was up.
            let _ = done.send(result);
        });
        writer.map_err(|error| Failure::retry(format!("cannot start a thread: {error}")))?;
        tokio::select! {
            written = written => written.unwrap_or_else(|_| Err(Failure::retry("interrupted").with_unknown_outcome())),
            () = self.clock.sleep(TIMEOUT) => Err(Failure::retry(stuck()).with_unknown_outcome()),
        }
    }
}

/// Writes a whole line at once.
fn write(out: &mut impl Write, line: &str) -> Result<(), Failure> {
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::retry(format!("cannot write to standard output: {error}")))
}

impl Summary {
    fn of(envelope: &Envelope) -> Self {
        let (facts, task) = (&envelope.event.facts, envelope.task.as_ref());
        let said = || task?.messages.iter().rev().find(|message| message.role == "assistant").map(|message| &message.text);
        let message = facts.message.as_ref().filter(|text| !text.trim().is_empty()).or_else(said);
        Self {
            id: envelope.id,
            kind: envelope.kind.clone(),
            source: envelope.source.clone(),
            provider: envelope.provider.clone(),
            received_at: clock::rfc3339(envelope.received_at),
            recovered: envelope.recovered,
            replayed: envelope.replayed,
            may_repeat: envelope.may_repeat,
            out_of_order: envelope.out_of_order,
            task_id: facts.task_id.clone().or_else(|| task.map(|task| task.id.clone())),
            title: task.and_then(|task| task.title.clone()).or_else(|| facts.title.clone()),
            state: task.map(|task| task.state.as_str().to_owned()),
            stop_reason: task.and_then(|task| task.stop_reason.clone()).or_else(|| facts.stop_reason.clone()),
            credits: task.and_then(|task| number(task.credits?)),
            files: envelope.files.len().max(facts.attachments.len()),
            url: task.and_then(|task| task.url.clone()).or_else(|| facts.url.clone()),
            message: message.map(|text| text.chars().take(MAX_MESSAGE).collect()),
        }
    }

    /// The facts in one line, two spaces between them, those that are not known left out.
    fn line(&self) -> String {
        let part = |text: &str| Some(one_line(text, MAX_PART)).filter(|text| !text.is_empty());
        let optional = |text: &Option<String>| text.as_deref().and_then(part);
        let stop = match (optional(&self.state), optional(&self.stop_reason)) {
            (Some(state), Some(reason)) => Some(format!("{state} ({reason})")),
            (state, reason) => state.or(reason),
        };
        let files = match self.files {
            0 => None,
            1 => Some("1 file".to_owned()),
            many => Some(format!("{many} files")),
        };
        let first_line = self.message.as_deref().and_then(|text| text.lines().find_map(part));
        let marks = [
            (self.recovered, "[recovered]"),
            (self.replayed, "[replayed]"),
            (self.out_of_order, "[out of order]"),
            (self.may_repeat, "[may repeat]"),
        ];
        let facts = [
            part(&time_of(&self.received_at)),
            part(&self.source),
            part(&self.kind),
            optional(&self.title).or_else(|| optional(&self.task_id)),
            stop,
            self.credits.as_ref().map(|credits| format!("{credits} credits")),
            files,
            optional(&self.url),
            first_line,
        ];
        let marks = marks.into_iter().filter(|(set, _)| *set).map(|(_, mark)| mark.to_owned());
        facts.into_iter().flatten().chain(marks).collect::<Vec<_>>().join("  ")
    }
}

/// To the second: the rest is for machines.
fn time_of(received_at: &str) -> String {
    received_at.parse::<Timestamp>().map_or_else(|_| received_at.to_owned(), |at| format!("{at:.0}"))
}

/// A number as it is written: whole if it is.
fn number(credits: f64) -> Option<serde_json::Number> {
    let text = credits.to_string();
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::{Config as AnyConfig, Destination};
    use crate::retry::Verdict;
    use crate::task::{Message, Task};

    fn destination(include: Include, format: Format) -> (Destination, Output) {
        let output = Output::memory();
        let clock = Clock::manual("2025-11-18T23:05:02Z".parse().unwrap());
        let parts = Parts { clock, format, output: output.clone(), files: None };
        (Destination::build("log", &AnyConfig::Log(Config { include }), &parts).unwrap(), output)
    }

    async fn line(include: Include, format: Format, envelope: &Envelope) -> String {
        let (destination, output) = destination(include, format);
        let body = destination.render(envelope).unwrap();
        let receipt = destination.send(&Outgoing { id: Uuid::nil(), body: &body, attempt: 1 }).await.unwrap();
        assert_eq!(receipt.detail, "written");
        output.lines().join("\n")
    }

    async fn text(envelope: &Envelope) -> String {
        line(Include::Summary, Format::Text, envelope).await
    }

    #[tokio::test]
    async fn people_get_the_facts_on_one_line() {
        let mut envelope = Envelope::sample();
        insta::assert_snapshot!(text(&envelope).await, @"2025-11-18T23:05:01Z  manus  task_stopped  What is 2 + 2?  finished (finish)  22 credits  1 file  https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg  Done!");
        envelope.recovered = true;
        envelope.out_of_order = true;
        envelope.files.extend(envelope.files.clone());
        envelope.event.facts.message = None;
        insta::assert_snapshot!(text(&envelope).await, @"2025-11-18T23:05:01Z  manus  task_stopped  What is 2 + 2?  finished (finish)  22 credits  2 files  https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg  Done! The answer is **4**  [recovered]  [out of order]");
        envelope.task = None;
        envelope.event.facts.title = None;
        envelope.event.facts.url = None;
        insta::assert_snapshot!(text(&envelope).await, @"2025-11-18T23:05:01Z  manus  task_stopped  9rP8DLRXVC9fkKBKEELXkg  finish  2 files  [recovered]  [out of order]");
    }

    #[tokio::test]
    async fn machines_get_json_on_one_line() {
        let mut envelope = Envelope::sample();
        envelope.event.facts.message = Some("one\ntwo\u{9b}\u{202e}".to_owned());
        insta::assert_snapshot!(line(Include::Summary, Format::Json, &envelope).await, @r#"{"id":"019a9936-de14-7c3a-9d52-0f6c1e8b4a77","type":"task_stopped","source":"manus","provider":"manus","received_at":"2025-11-18T23:05:01.204Z","recovered":false,"replayed":false,"may_repeat":false,"out_of_order":false,"task_id":"9rP8DLRXVC9fkKBKEELXkg","title":"What is 2 + 2?","state":"finished","stop_reason":"finish","credits":22,"files":1,"url":"https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg","message":"one\ntwo\u009b\u202e"}"#);
        for format in [Format::Text, Format::Json] {
            let written = line(Include::Envelope, format, &envelope).await;
            assert!(!written.contains(|c: char| c.is_control()) && written.contains(r"two\u009b\u202e"));
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            assert_eq!(value, serde_json::to_value(&envelope).unwrap());
        }
    }

    #[tokio::test]
    async fn text_from_outside_stays_one_harmless_line() {
        let mut envelope = Envelope::sample();
        let nasty = "\u{202e}\x1b[2Jtitle\r\n2025-11-18T23:05:01Z  manus  task_stopped".to_owned();
        envelope.task = Some(Task {
            title: Some(nasty.clone()),
            url: Some(format!("https://manus.im/{}", "x".repeat(500))),
            stop_reason: Some("a\nb".to_owned()),
            messages: vec![Message { role: "assistant".to_owned(), text: format!("\n \n{nasty}"), ..Message::default() }],
            ..Task::default()
        });
        envelope.event.facts.message = None;
        insta::assert_snapshot!(text(&envelope).await, @"2025-11-18T23:05:01Z  manus  task_stopped  [2Jtitle 2025-11-18T23:05:01Z manus task_stopped  unknown (a b)  1 file  https://manus.im/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…  [2Jtitle");
    }

    #[tokio::test]
    async fn the_store_may_mark_the_content_out_of_order() {
        let (destination, output) = destination(Include::Summary, Format::Text);
        let body = destination.render(&Envelope::sample()).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["out_of_order"], false);
        value["out_of_order"] = true.into();
        destination.send(&Outgoing { id: Uuid::nil(), body: &value.to_string(), attempt: 1 }).await.unwrap();
        assert!(output.lines()[0].ends_with("[out of order]"));
        // What was written under another configuration is shown as it is.
        destination.send(&Outgoing { id: Uuid::nil(), body: "{}", attempt: 1 }).await.unwrap();
        assert_eq!(output.lines()[1], "{}");
    }

    #[test]
    fn a_reader_that_is_gone_is_a_failure_to_retry() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let failure = write(&mut Gone, "line\n").unwrap_err();
        assert_eq!(failure.verdict, Verdict::Retry { after: None });
        insta::assert_snapshot!(failure, @"cannot write to standard output: broken pipe");
    }

    #[tokio::test]
    async fn standard_output_takes_a_line() {
        let (clock, format) = (Clock::manual(Timestamp::UNIX_EPOCH), Format::Text);
        let log = Log::build(&Config::default(), &Parts { clock, format, output: Output::Stdout, files: None });
        log.print(String::new()).await.unwrap();
    }
}
