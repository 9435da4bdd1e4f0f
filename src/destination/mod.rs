//! Destinations: where results go.
//!
//! A closed set of kinds behind the same verbs. What must hold: [`Destination::render`] makes the content once, when the delivery
//! is created, and [`Destination::send`] sends exactly that on every attempt, with only the transport's own fields made anew. A
//! failure says whether to try again and whether the other side may have got it; no failure, `Debug` or printed configuration
//! shows a secret. What comes from outside is escaped for where it goes.
//!
//! To add a kind: a file beside this one, a variant in [`Config`] and in `Kind`, a name in [`KINDS`].

pub mod command;
pub mod email;
mod facts;
pub mod http;
pub mod log;
pub mod saved;
mod section;
pub mod slack;
pub mod sql;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use self::section::Terms;
use crate::clock::Clock;
use crate::retry::{Failure, LADDER};
use crate::route::Envelope;
use crate::text::one_line;

/// The names of the kinds, for messages.
pub const KINDS: &[&str] = &["command", "email", "http", "log", "slack", "sql"];

/// The most characters that a reason quotes of what another side said.
const MAX_EXCERPT: usize = 200;

/// One `[destinations.NAME]` section; its `kind` key says which.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Config {
    /// A program.
    Command(command::Config),
    /// A mail.
    Email(email::Config),
    /// A request to a URL.
    Http(http::Config),
    /// A line on standard output.
    Log(log::Config),
    /// A message in Slack.
    Slack(slack::Config),
    /// A statement to a database.
    Sql(sql::Config),
}

impl Config {
    /// Reads the section of a destination of `kind`, without its `kind` key. What it says is then to be checked.
    ///
    /// # Errors
    /// For an unknown kind or key, and a value of the wrong type.
    pub fn parse<'de, D: Deserializer<'de>>(kind: &str, section: D) -> Result<Self, D::Error> {
        match kind {
            "command" => command::Config::deserialize(section).map(Self::Command),
            "email" => email::Config::deserialize(section).map(Self::Email),
            "http" => http::Config::deserialize(section).map(Self::Http),
            "log" => log::Config::deserialize(section).map(Self::Log),
            "slack" => slack::Config::deserialize(section).map(Self::Slack),
            "sql" => sql::Config::deserialize(section).map(Self::Sql),
            other => Err(D::Error::unknown_variant(other, KINDS)),
        }
    }

    /// Checks what the types do not: all that is wrong, each in a line that begins with its key.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let own = match self {
            Self::Command(config) => config.check(),
            Self::Email(config) => config.check(),
            Self::Http(config) => config.check(),
            Self::Log(_) => Ok(()),
            Self::Slack(config) => config.check(),
            Self::Sql(config) => config.check(),
        };
        let own = own.err().into_iter().flat_map(|problems| problems.lines().map(str::to_owned).collect::<Vec<_>>());
        own.chain(self.terms().check()).collect()
    }

    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Email(_) => "email",
            Self::Http(_) => "http",
            Self::Log(_) => "log",
            Self::Slack(_) => "slack",
            Self::Sql(_) => "sql",
        }
    }

    /// The keys of a section of `kind` that hold secrets, each of which may come from a file (`x_file`).
    #[must_use]
    pub fn secrets(kind: &str) -> &'static [&'static str] {
        match kind {
            "email" => email::SECRETS,
            "http" => http::SECRETS,
            "slack" => slack::SECRETS,
            "sql" => sql::SECRETS,
            _ => &[],
        }
    }

    /// Takes what the section names of the environment, which is read where the rest of the configuration is.
    pub fn take_variables(&mut self, variables: &BTreeMap<String, String>) {
        if let Self::Command(config) = self {
            config.take_variables(variables);
        }
    }

    fn terms(&self) -> Terms {
        match self {
            Self::Command(config) => config.terms(),
            Self::Email(config) => config.terms(),
            Self::Http(config) => config.terms(),
            Self::Log(_) => log::TERMS,
            Self::Slack(config) => config.terms(),
            Self::Sql(config) => config.terms(),
        }
    }
}

/// What becomes of a delivery whose outcome nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// It is sent again; the receiver knows a repeat by the delivery's id.
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

/// Why a destination is not ready at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// It can never do what its section says.
    Refused(Error),
    /// It cannot be asked now, for this reason.
    Down(String),
}

/// Files that were saved, for destinations that send them along.
pub trait Files: fmt::Debug + Send + Sync {
    /// The bytes of the file with this SHA-256 (lower-case hexadecimal); `None` if it is not kept any more.
    ///
    /// # Errors
    /// Why it cannot be read now, for people.
    fn read<'a>(&'a self, sha256: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, String>>;
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
    /// What an `email` attaches; without it, files are only named and linked.
    pub files: Option<Arc<dyn Files>>,
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
    terms: Terms,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Command(Box<command::Command>),
    Email(Box<email::Email>),
    Http(Box<http::Http>),
    Log(log::Log),
    Slack(Box<slack::Slack>),
    Sql(Box<sql::Sql>),
}

impl Destination {
    /// Builds the destination `name`.
    ///
    /// # Errors
    /// If something in `config` cannot work, which [`Config::check`] has told before.
    pub fn build(name: &str, config: &Config, parts: &Parts) -> Result<Self, Error> {
        if let Some(problem) = config.check().into_iter().next() {
            return Err(Error::refused(name, problem));
        }
        let kind = match config {
            Config::Command(config) => command::Command::build(config).map(Box::new).map(Kind::Command),
            Config::Email(config) => email::Email::build(config, parts).map(Box::new).map(Kind::Email),
            Config::Http(config) => http::Http::build(config, &parts.clock).map(Box::new).map(Kind::Http),
            Config::Log(config) => Ok(Kind::Log(log::Log::build(config, parts))),
            Config::Slack(config) => slack::Slack::build(config, &parts.clock).map(Box::new).map(Kind::Slack),
            Config::Sql(config) => sql::Sql::build(config).map(Box::new).map(Kind::Sql),
        };
        let kind = kind.map_err(|problem| Error::refused(name, problem))?;
        Ok(Self { name: name.to_owned(), terms: config.terms(), kind })
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
            Kind::Command(_) => "command",
            Kind::Email(_) => "email",
            Kind::Http(_) => "http",
            Kind::Log(_) => "log",
            Kind::Slack(_) => "slack",
            Kind::Sql(_) => "sql",
        }
    }

    /// How many deliveries may be on their way to it at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.terms.concurrency
    }

    /// The most deliveries a minute, if that is limited.
    #[must_use]
    pub fn rate(&self) -> Option<u32> {
        self.terms.rate
    }

    /// The waits between attempts.
    #[must_use]
    pub fn ladder(&self) -> &[Duration] {
        self.terms.ladder.as_deref().unwrap_or(&LADDER)
    }

    /// What becomes of a delivery whose outcome nobody knows.
    #[must_use]
    pub fn on_unknown(&self) -> OnUnknown {
        self.terms.on_unknown
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.terms.timeout
    }

    /// Whether it is ready, as far as that can be told before anything is sent: a statement that the database refuses is an error at
    /// start, not of the first result.
    ///
    /// # Errors
    /// [`Unready`].
    pub async fn prepare(&self) -> Result<(), Unready> {
        match &self.kind {
            Kind::Sql(sql) => sql.prepare().await.map_err(|unready| match unready {
                sql::Unready::Refused(problem) => Unready::Refused(Error::refused(&self.name, problem)),
                sql::Unready::Down(reason) => Unready::Down(reason),
            }),
            _ => Ok(()),
        }
    }

    /// The content of a delivery: a JSON object with a member `out_of_order`, which the store may still set.
    ///
    /// # Errors
    /// If a template or a value has no result for this envelope.
    pub fn render(&self, envelope: &Envelope) -> Result<String, Error> {
        let content = match &self.kind {
            Kind::Command(command) => command.render(envelope),
            Kind::Email(email) => email.render(envelope),
            Kind::Http(http) => http.render(envelope),
            Kind::Log(log) => log.render(envelope).map_err(|error| error.to_string()),
            Kind::Slack(slack) => slack.render(envelope),
            Kind::Sql(sql) => sql.render(envelope),
        };
        content.map_err(|cause| Error::refused(&self.name, format!("cannot write the content: {cause}")))
    }

    /// What `content` comes to, for people: where it goes and what it says, without secrets.
    #[must_use]
    pub fn preview(&self, content: &str) -> Value {
        let value: Value = serde_json::from_str(content).unwrap_or_default();
        match &self.kind {
            Kind::Command(command) => command.preview(value),
            Kind::Email(email) => email.preview(&value),
            Kind::Http(http) => http.preview(value),
            Kind::Log(_) => value,
            Kind::Slack(slack) => slack.preview(&value),
            Kind::Sql(sql) => sql.preview(&value),
        }
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// If it was not taken, or if nobody knows.
    pub async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        match &self.kind {
            Kind::Command(command) => command.send(delivery).await,
            Kind::Email(email) => email.send(delivery).await,
            Kind::Http(http) => http.send(delivery).await,
            Kind::Log(log) => log.send(delivery).await,
            Kind::Slack(slack) => slack.send(delivery).await,
            Kind::Sql(sql) => sql.send(delivery).await,
        }
    }

    /// Whether it can be reached; sends no event. Says what was found, for people.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn check(&self) -> Result<String, String> {
        match &self.kind {
            Kind::Command(command) => command.try_out(),
            Kind::Email(email) => email.try_out().await,
            Kind::Http(http) => http.check().await,
            Kind::Log(log) => Ok(log.check()),
            Kind::Slack(slack) => slack.try_out().await,
            Kind::Sql(sql) => sql.try_out().await,
        }
    }
}

/// A request that has no answer.
fn unanswered(error: &crate::http::Error) -> Failure {
    let failure = Failure::retry(one_line(&error.to_string(), MAX_EXCERPT));
    if error.may_have_arrived() { failure.with_unknown_outcome() } else { failure }
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
        unknown variant `htp`, expected one of `command`, `email`, `http`, `log`, `slack`, `sql`
        `url` holds a user name or password, which logs would show; write `headers = { authorization = "Basic …" }` instead
        unknown field `secert`, expected one of `url`, `secret`, `headers`, `template`, `timeout`, `concurrency`, `rate`, `ladder`, `on_unknown`
        missing configuration field "url"
        enum Include does not have variant constructor all for key `include`
        "#);
    }

    #[test]
    fn a_log_needs_no_key() {
        let config = parse("[destinations.crm]\nkind = 'log'").unwrap();
        assert_eq!(config, Config::Log(log::Config::default()));
        assert_eq!(Config::secrets(config.kind()), [""; 0]);
        let parts = Parts { clock: Clock::system(), format: log::Format::default(), output: log::Output::Null, files: None };
        let log = Destination::build("log", &config, &parts).unwrap();
        assert_eq!((log.concurrency(), log.rate(), log.ladder(), log.on_unknown()), (64, None, &LADDER[..], OnUnknown::Retry));
    }

    #[test]
    fn the_content_of_every_kind_is_an_object_that_tells_its_order() {
        let parts = Parts { clock: Clock::system(), format: log::Format::Json, output: log::Output::Null, files: None };
        for section in ["kind = 'log'", "kind = 'log'\ninclude = 'envelope'", "kind = 'http'\nurl = 'https://crm.example.com'"] {
            let config = parse(&format!("[destinations.crm]\n{section}")).unwrap();
            let body = Destination::build("crm", &config, &parts).unwrap().render(&Envelope::sample()).unwrap();
            assert!(body.starts_with('{') && body.contains(r#","out_of_order":false,"#), "{body}");
        }
    }
}
