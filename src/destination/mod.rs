//! Destinations: where results go.
//!
//! A closed set of kinds behind the same verbs. What must hold: [`Destination::render`] makes the content once, when the delivery
//! is created, and [`Destination::send`] sends exactly that on every attempt, with only the transport's own fields made anew. A
//! failure says whether to try again and whether the other side may have got it; no failure, `Debug` or printed configuration
//! shows a secret.

pub mod http;
pub mod log;

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::clock::Clock;
use crate::retry::Failure;
use crate::route::Envelope;

/// The names of the kinds, for messages.
pub const KINDS: &[&str] = &["http", "log"];

/// One `[destinations.NAME]` section; its `kind` key says which.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Config {
    /// A request to a URL.
    Http(http::Config),
    /// A line on standard output.
    Log(log::Config),
}

impl Config {
    /// Reads the section of a destination of `kind`, without its `kind` key. What it says is then to be checked.
    ///
    /// # Errors
    /// For an unknown kind or key, and a value of the wrong type.
    pub fn parse<'de, D: Deserializer<'de>>(kind: &str, section: D) -> Result<Self, D::Error> {
        match kind {
            "http" => http::Config::deserialize(section).map(Self::Http),
            "log" => log::Config::deserialize(section).map(Self::Log),
            other => Err(D::Error::unknown_variant(other, KINDS)),
        }
    }

    /// Checks what the types do not: all that is wrong, each in a line that begins with its key.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        match self {
            Self::Http(config) => config.check().err().into_iter().collect(),
            Self::Log(_) => Vec::new(),
        }
    }

    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Log(_) => "log",
        }
    }

    /// The keys of a section of `kind` that hold secrets, each of which may come from a file (`x_file`).
    #[must_use]
    pub fn secrets(kind: &str) -> &'static [&'static str] {
        match kind {
            "http" => http::SECRETS,
            _ => &[],
        }
    }
}

/// What becomes of a delivery whose outcome nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// It is sent again; the receiver knows a repeat by its `webhook-id`.
    #[default]
    Retry,
    /// It is held until a person decides.
    Hold,
}

/// Why a destination cannot be built, or cannot write the content of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("destinations.{name}: {problem}")]
pub struct Error {
    name: String,
    problem: String,
}

impl Error {
    fn refused(name: &str, problem: impl Into<String>) -> Self {
        Self { name: name.to_owned(), problem: problem.into() }
    }
}

/// What all destinations are built with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// For timestamps and dates.
    pub clock: Clock,
    /// How a `log` destination writes.
    pub format: log::Format,
    /// Where a `log` destination writes.
    pub output: log::Output,
}

/// A delivery, on one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The delivery's id, the same on every attempt: the receiver's means to know a repeat.
    pub id: Uuid,
    /// The content, as [`Destination::render`] made it.
    pub body: &'a str,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// What a destination said to a delivery that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// For people, such as `200 OK`.
    pub detail: String,
}

/// One configured destination.
#[derive(Debug)]
pub struct Destination {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Http(Box<http::Http>),
    Log(log::Log),
}

impl Destination {
    /// Builds the destination `name`.
    ///
    /// # Errors
    /// If something in `config` cannot work, which [`Config::check`] has told before.
    pub fn build(name: &str, config: &Config, parts: &Parts) -> Result<Self, Error> {
        let kind = match config {
            Config::Http(config) => {
                let http = http::Http::build(config, &parts.clock).map_err(|problem| Error::refused(name, problem))?;
                Kind::Http(Box::new(http))
            }
            Config::Log(config) => Kind::Log(log::Log::build(config, parts)),
        };
        Ok(Self { name: name.to_owned(), kind })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Http(_) => "http",
            Kind::Log(_) => "log",
        }
    }

    /// How many deliveries may be on their way to it at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        match &self.kind {
            Kind::Http(http) => http.concurrency(),
            // Lines are written one after the other, but their attempts are begun and ended together: that is what takes time.
            Kind::Log(_) => 64,
        }
    }

    /// The most deliveries a minute, if that is limited.
    #[must_use]
    pub fn rate(&self) -> Option<u32> {
        match &self.kind {
            Kind::Http(http) => http.rate(),
            Kind::Log(_) => None,
        }
    }

    /// The waits between attempts.
    #[must_use]
    pub fn ladder(&self) -> &[Duration] {
        match &self.kind {
            Kind::Http(http) => http.ladder(),
            Kind::Log(_) => &crate::retry::LADDER,
        }
    }

    /// What becomes of a delivery whose outcome nobody knows.
    #[must_use]
    pub fn on_unknown(&self) -> OnUnknown {
        match &self.kind {
            Kind::Http(http) => http.on_unknown(),
            Kind::Log(_) => OnUnknown::Retry,
        }
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match &self.kind {
            Kind::Http(http) => http.timeout(),
            Kind::Log(_) => log::TIMEOUT,
        }
    }

    /// The content of a delivery: a JSON object with a member `out_of_order`.
    ///
    /// # Errors
    /// If the envelope is no JSON, which no envelope is known to cause.
    pub fn render(&self, envelope: &Envelope) -> Result<String, Error> {
        let body = match &self.kind {
            Kind::Http(_) => serde_json::to_string(envelope),
            Kind::Log(log) => log.render(envelope),
        };
        body.map_err(|cause| Error::refused(&self.name, format!("cannot write the content: {cause}")))
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// If it was not taken, or if nobody knows.
    pub async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        match &self.kind {
            Kind::Http(http) => http.send(delivery).await,
            Kind::Log(log) => log.send(delivery).await,
        }
    }

    /// Whether it can be reached; sends no event. Says what was found, for people.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn check(&self) -> Result<String, String> {
        match &self.kind {
            Kind::Http(http) => http.check().await,
            Kind::Log(log) => Ok(log.check()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::LADDER;

    fn parse(toml: &str) -> Result<Config, String> {
        let file = config::File::from_str(toml, config::FileFormat::Toml);
        let file = config::Config::builder().add_source(file).build().unwrap();
        let mut section = file.get_table("destinations.crm").unwrap();
        let kind = section.remove("kind").unwrap().to_string();
        let section = config::Value::new(None, section);
        let config = Config::parse(&kind, section).map_err(|error| error.to_string())?;
        let problems = config.check();
        if problems.is_empty() { Ok(config) } else { Err(problems.join("\n")) }
    }

    #[test]
    fn a_section_is_read_as_it_is_written_and_as_the_environment_gives_it() {
        let written = parse(
            r#"[destinations.crm]
            kind = "http"
            url = "https://crm.example.com/hooks"
            secret = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
            headers = { authorization = "Bearer x" }
            rate = 60
            concurrency = 4
            timeout = "10s"
            ladder = ["1s", "5m"]
            on_unknown = "hold""#,
        );
        let environment = parse(
            r#"[destinations.crm]
            kind = "http"
            url = "https://crm.example.com/hooks"
            secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
            headers = { authorization = "Bearer x" }
            rate = "60"
            concurrency = "4"
            timeout = "10s"
            ladder = "1s,5m"
            on_unknown = "hold""#,
        );
        assert_eq!(written.unwrap(), environment.unwrap());
    }

    #[test]
    fn mistakes_in_a_section_are_told() {
        let mistakes = [
            "kind = 'htp'\nurl = 'https://crm.example.com'",
            "kind = 'http'\nurl = 'https://user:pass@crm.example.com'",
            "kind = 'http'\nurl = 'https://crm.example.com'\nsecert = 'x'",
            "kind = 'http'",
            "kind = 'log'\ninclude = 'all'",
        ]
        .map(|section| parse(&format!("[destinations.crm]\n{section}")).unwrap_err());
        insta::assert_snapshot!(mistakes.join("\n"), @r#"
        unknown variant `htp`, expected `http` or `log`
        `url` holds a user name or password, which logs would show; write `headers = { authorization = "Basic …" }` instead
        unknown field `secert`, expected one of `url`, `secret`, `headers`, `timeout`, `concurrency`, `rate`, `ladder`, `on_unknown`
        missing configuration field "url"
        enum Include does not have variant constructor all for key `include`
        "#);
    }

    #[test]
    fn a_log_needs_no_key() {
        let config = parse("[destinations.crm]\nkind = 'log'").unwrap();
        assert_eq!(config, Config::Log(log::Config::default()));
        assert_eq!(Config::secrets(config.kind()), [""; 0]);
        let parts = Parts { clock: Clock::system(), format: log::Format::default(), output: log::Output::Null };
        let log = Destination::build("log", &config, &parts).unwrap();
        assert_eq!((log.concurrency(), log.rate(), log.ladder(), log.on_unknown()), (64, None, &LADDER[..], OnUnknown::Retry));
    }

    #[test]
    fn the_content_of_every_kind_is_an_object_that_tells_its_order() {
        let parts = Parts { clock: Clock::system(), format: log::Format::Json, output: log::Output::Null };
        for section in ["kind = 'log'", "kind = 'log'\ninclude = 'envelope'", "kind = 'http'\nurl = 'https://crm.example.com'"] {
            let config = parse(&format!("[destinations.crm]\n{section}")).unwrap();
            let body = Destination::build("crm", &config, &parts).unwrap().render(&Envelope::sample()).unwrap();
            assert!(body.starts_with('{') && body.contains(r#","out_of_order":false,"#), "{body}");
        }
    }
}
