//! What the program tells about itself: logs, metrics, traces, and what is degraded now.
//!
//! What must hold: logs go to stderr, since stdout is for data; no log holds a secret, a body or a token; what others wrote is
//! harmless in it: it starts no line, and moves no cursor; a part that stops working is logged once, and once more when it works again,
//! however often it is tried in between. What there is of lines, and the fields that they have: `docs/logs.md`.

mod health;
mod metric;
pub mod trace;

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use health::{Health, Reason};
pub use metric::{Kind, METRICS, Metrics, name};

use crate::text::{escape_json, one_line};

/// The most characters of what others wrote that a line of the log shows at one place.
const MOST_LOGGED: usize = 400;
/// The most characters of a message, or of a field.
const MOST: usize = 4000;

/// What others wrote, as a line of the log shows it: an id of theirs, or what they say is wrong.
#[must_use]
pub fn logged(text: impl fmt::Display) -> String {
    one_line(&text.to_string(), MOST_LOGGED)
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much is told. `RUST_LOG` wins.
    pub level: Level,
    /// In which form.
    pub format: Format,
}

/// How much of our own doing is logged; the libraries under us log at `warn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    Off,
    /// What failed and needs somebody.
    Error,
    /// What failed and goes on.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    fn filter(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "warn,taskhook=info",
            Self::Debug => "warn,taskhook=debug",
            Self::Trace => "warn,taskhook=trace",
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `text` on a terminal, else `json`.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl Format {
    /// Whether lines are JSON; `terminal` is whether they go to one.
    #[must_use]
    pub fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Starts logging to stderr. Once a process: a second call changes nothing.
///
/// # Errors
/// If `rust_log` is not a filter.
pub fn init(config: &Config, rust_log: Option<&str>, terminal: bool) -> Result<(), String> {
    let filter = match rust_log {
        Some(filter) => parse_filter(filter)?,
        None => EnvFilter::new(config.level.filter()),
    };
    // An error means that somebody was first, in practice another test.
    let _ = subscriber(config.format, filter, terminal, io::stderr).try_init();
    Ok(())
}

/// Reads a filter in the form of `RUST_LOG`, such as `info,taskhook::worker=debug`.
///
/// # Errors
/// Why it is none.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| error.to_string())
}

/// What writes the lines of the log to `to`; `terminal` is whether that is one.
pub fn subscriber<W>(format: Format, filter: EnvFilter, terminal: bool, to: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to);
    if format.is_json(terminal) {
        Box::new(builder.map_writer(Escaping).json().flatten_event(true).finish())
    } else {
        Box::new(builder.with_ansi(terminal).fmt_fields(debug_fn(field).delimited(" ")).finish())
    }
}

/// Writes the message or a field of a line that people read.
fn field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = one_line(&format!("{value:?}"), MOST);
    match field.name() {
        "message" => to.write_str(&value),
        name if to.has_ansi_escapes() => write!(to, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
        name => write!(to, "{name}={value}"),
    }
}

/// Writes lines of JSON in which every character is escaped that could disturb a terminal.
struct Escaping<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = Escaped<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaped(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        Escaped(self.0.make_writer_for(meta))
    }
}

struct Escaped<W>(W);

impl<W: io::Write> io::Write for Escaped<W> {
    /// Each call is a line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        self.0.write_all((escape_json(line.trim_end()) + "\n").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What no terminal must be sent: it clears the screen, turns the reading direction, and starts a line.
    const HOSTILE: &str = "a\u{1b}[2J\u{202e}b\u{9b}31m\r\n2026 ERROR forged\u{2028}";

    fn lines_of(format: Format, filter: &str, terminal: bool) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = subscriber(format, parse_filter(filter).unwrap(), terminal, move || to.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "taskhook::worker", source = "manus", "fetched");
            tracing::info!(target: "hyper", "a connection");
            tracing::warn!(target: "taskhook::worker", part = HOSTILE, "it says: {HOSTILE}");
        });
        let text = lines.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn auto_is_json_away_from_a_terminal_and_text_on_one() {
        let lines = lines_of(Format::Auto, Level::Info.filter(), false);
        let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!((&line["message"], &line["source"], &line["level"]), (&"fetched".into(), &"manus".into(), &"INFO".into()));
        assert!(serde_json::from_str::<serde_json::Value>(&lines_of(Format::Auto, Level::Info.filter(), true)).is_err());
        assert!(lines_of(Format::Text, Level::Info.filter(), false).contains("INFO taskhook::worker: fetched source=\"manus\""));
    }

    #[test]
    fn what_others_wrote_starts_no_line_and_moves_no_cursor() {
        let harmless = |line: &str| !line.chars().any(|c| c.is_control() || crate::text::is_invisible(c) || c == '\u{2028}');
        for (format, terminal) in [(Format::Text, false), (Format::Json, false), (Format::Json, true)] {
            let lines = lines_of(format, Level::Info.filter(), terminal);
            assert_eq!(lines.lines().count(), 2, "{lines:?}");
            assert!(lines.lines().all(harmless), "{lines:?}");
        }
        // The colours of a terminal are ours.
        let lines = lines_of(Format::Text, Level::Info.filter(), true);
        assert_eq!(lines.lines().count(), 2, "{lines:?}");
        assert!(!lines.contains("[2J\u{202e}") && !lines.contains("\u{1b}[2J") && !lines.contains('\u{9b}'), "{lines:?}");
        let json = lines_of(Format::Json, Level::Info.filter(), false);
        let line: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
        assert_eq!(line["part"], HOSTILE, "it is the same value");
        assert_eq!(logged(HOSTILE), "a [2Jb 31m 2026 ERROR forged");
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let lines = lines_of(Format::Text, Level::Trace.filter(), false);
        assert!(lines.contains("fetched") && !lines.contains("a connection"), "{lines}");
        assert_eq!(lines_of(Format::Text, Level::Error.filter(), false), "");
        assert!(lines_of(Format::Text, "info", false).contains("a connection"));
    }
}
