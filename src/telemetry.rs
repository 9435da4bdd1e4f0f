//! What the program tells about itself: logs, metrics, and what is degraded now.
//!
//! What must hold: logs go to stderr, since stdout is for data; no log holds a secret, a body or a token; a part that stops
//! working is logged once, and once more when it works again, however often it is tried in between.

mod health;
mod metric;

use std::io;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use health::{Health, Reason};
pub use metric::{Kind, METRICS, Metrics, name};

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

fn subscriber<W>(format: Format, filter: EnvFilter, terminal: bool, to: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to);
    if format.is_json(terminal) {
        Box::new(builder.json().flatten_event(true).finish())
    } else {
        Box::new(builder.with_ansi(terminal).finish())
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

    fn logged(format: Format, filter: &str, terminal: bool) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = subscriber(format, parse_filter(filter).unwrap(), terminal, move || to.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "taskhook::worker", source = "manus", "fetched");
            tracing::info!(target: "hyper", "a connection");
        });
        let text = lines.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn auto_is_json_away_from_a_terminal_and_text_on_one() {
        let line: serde_json::Value = serde_json::from_str(&logged(Format::Auto, Level::Info.filter(), false)).unwrap();
        assert_eq!((&line["message"], &line["source"], &line["level"]), (&"fetched".into(), &"manus".into(), &"INFO".into()));
        assert!(serde_json::from_str::<serde_json::Value>(&logged(Format::Auto, Level::Info.filter(), true)).is_err());
        assert!(logged(Format::Text, Level::Info.filter(), false).contains("INFO taskhook::worker: fetched source=\"manus\""));
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let lines = logged(Format::Text, Level::Trace.filter(), false);
        assert!(lines.contains("fetched") && !lines.contains("a connection"), "{lines}");
        assert_eq!(logged(Format::Text, Level::Warn.filter(), false), "");
        assert!(logged(Format::Text, "info", false).contains("a connection"));
    }
}
