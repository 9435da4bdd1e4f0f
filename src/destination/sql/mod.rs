//! `kind = "sql"`: a statement of the user's own, with values taken from the envelope.
//!
//! What must hold: a value is always bound, never part of the statement's text. The statement is prepared at the start, so that a
//! column that is not there is an error then; only a database that does not answer is no reason not to start. One delivery is one
//! statement, hence one transaction. If the connection breaks while it runs, nobody knows: unknown, and `:delivery_id` lets the
//! statement itself know a repeat (`ON CONFLICT (delivery_id) DO NOTHING`).
//!
//! A null character in a text, which PostgreSQL cannot keep, becomes U+FFFD; a paid result is not lost for it.

mod bind;
mod postgres;
mod sqlite;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::statement::Statement;
use super::section::section;
use super::{Outgoing, Receipt};
use crate::retry::Failure;
use crate::route::Envelope;
use crate::setting::Secret;
use crate::template::{Context, Expression, nearest};

/// The keys that hold secrets.
pub const SECRETS: &[&str] = &["url"];

/// The value that is always there: the delivery's id, the same on every attempt.
const DELIVERY_ID: &str = "delivery_id";
/// The value that is always there: the whole envelope, as JSON.
const ENVELOPE: &str = "envelope";

/// The longest that preparing may take: a start waits for it, and events wait for the start.
const PATIENCE: Duration = Duration::from_secs(3);

section! {
    /// The `[destinations.NAME]` section of a `sql`.
    pub struct Config {
        /// The database: `postgres://user:password@host/name` or `sqlite:///path/to/file.db`.
        pub url: Secret,
        /// The statement, with `:name` where a value goes.
        pub statement: String,
        /// The values by name: expressions over the envelope.
        #[serde(default)]
        pub values: BTreeMap<String, String>,
        /// A PEM file with the authority of the server's certificate, beside those of the system.
        #[serde(default)]
        pub ca_file: Option<PathBuf>,
    }
    defaults: timeout = 10, concurrency = 4, rate = None
}

impl Config {
    /// Whether a destination can be built of it.
    ///
    /// # Errors
    /// Everything that is wrong, each in a line that begins with its key.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.address()? {
            Address::Sqlite(_) => {}
            Address::Postgres(url) => drop(postgres::parse(url)?),
        }
        self.compiled().map(drop)
    }

    /// No error shows the URL, which may hold a password.
    fn address(&self) -> Result<Address<'_>, String> {
        let url = self.url.expose().trim();
        match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Address::Sqlite(path)),
            Some(("sqlite", _)) => Err("`url` names no file; write `sqlite:///var/lib/results.db`".to_owned()),
            Some(("postgres" | "postgresql", _)) => Ok(Address::Postgres(url)),
            _ => Err("`url` must begin with postgres:// or sqlite://".to_owned()),
        }
    }

    fn database(&self) -> Result<Database, String> {
        let places = usize::try_from(self.concurrency).unwrap_or(usize::MAX);
        match self.address()? {
            Address::Sqlite(path) => Ok(Database::Sqlite(sqlite::Sqlite::new(path, self.timeout))),
            Address::Postgres(url) => {
                let postgres = postgres::Postgres::new(url, self.ca_file.as_deref(), places, self.timeout)?;
                Ok(Database::Postgres(Box::new(postgres)))
            }
        }
    }

    fn compiled(&self) -> Result<(Statement, BTreeMap<String, Expression>), String> {
        let postgres = matches!(self.address()?, Address::Postgres(_));
        let statement = Statement::parse(&self.statement, postgres).map_err(|problem| format!("`statement`: {problem}"))?;
        let (mut problems, mut values) = (Vec::new(), BTreeMap::new());
        for (name, source) in &self.values {
            if name == DELIVERY_ID || name == ENVELOPE {
                problems.push(format!("`values`: `{name}` is always there; leave it out"));
            } else if !statement.names().contains(name) {
                problems.push(format!("`values`: `{name}` is not in the statement as `:{name}`"));
            }
            match Expression::compile(source, Envelope::schema()) {
                Ok(expression) => drop(values.insert(name.clone(), expression)),
                Err(found) => problems.extend(found.iter().map(|problem| format!("`values`: `{name}`: {problem}"))),
            }
        }
        for name in statement.names() {
            if name != DELIVERY_ID && name != ENVELOPE && !self.values.contains_key(name) {
                let known = self.values.keys().map(String::as_str).chain([DELIVERY_ID, ENVELOPE]);
                let near = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `:{near}`?"));
                problems
                    .push(format!("`statement`: `:{name}` has no value{near} A value is `values = {{ {name} = \"task.id\" }}`"));
            }
        }
        if problems.is_empty() { Ok((statement, values)) } else { Err(problems.join("\n")) }
    }
}

/// What the URL names.
enum Address<'a> {
    Postgres(&'a str),
    Sqlite(&'a str),
}

enum Database {
    Postgres(Box<postgres::Postgres>),
    Sqlite(sqlite::Sqlite),
}

/// Why the statement cannot be prepared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unready {
    /// The database is there and refuses it.
    Refused(String),
    /// The database does not answer.
    Down(String),
}

impl Unready {
    fn refused(problem: impl fmt::Display) -> Self {
        Self::Refused(format!("`statement`: the database does not take it: {problem}"))
    }
}

/// An `sql` destination.
pub(super) struct Sql {
    database: Database,
    statement: Statement,
    /// As the user wrote it.
    written: String,
    values: BTreeMap<String, Expression>,
    timeout: Duration,
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sql").field("statement", &self.statement).finish_non_exhaustive()
    }
}

/// The content of a delivery.
#[derive(Serialize, Deserialize)]
struct Content {
    out_of_order: bool,
    values: BTreeMap<String, Value>,
}

impl Sql {
    pub(super) fn build(config: &Config) -> Result<Self, String> {
        let (statement, values) = config.compiled()?;
        let written = config.statement.clone();
        Ok(Self { database: config.database()?, statement, written, values, timeout: config.timeout })
    }

    pub(super) fn render(&self, envelope: &Envelope) -> Result<String, String> {
        let context = Context::of(envelope);
        let mut values = BTreeMap::new();
        for (name, expression) in &self.values {
            let value = expression.value(&context).map_err(|error| format!("`values`: `{name}`: {error}"))?;
            values.insert(name.clone(), bind::keepable(value));
        }
        if self.statement.names().iter().any(|name| name == ENVELOPE) {
            let whole = serde_json::to_value(envelope).map_err(|error| error.to_string())?;
            values.insert(ENVELOPE.to_owned(), bind::keepable(whole));
        }
        serde_json::to_string(&Content { out_of_order: envelope.out_of_order, values }).map_err(|error| error.to_string())
    }

    pub(super) async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        let content: Content = serde_json::from_str(delivery.body)
            .map_err(|_| Failure::give_up("the content was made for another kind of destination"))?;
        let mut values = content.values;
        values.insert(DELIVERY_ID.to_owned(), Value::from(delivery.id.to_string()));
        // In the statement's order. What was made under another configuration may lack one.
        let ordered = self.statement.names().iter().map(|name| values.remove(name).ok_or(name));
        let ordered: Vec<Value> = ordered.collect::<Result<_, _>>().map_err(|name| {
            Failure::give_up(format!("the content has no value for `:{name}`: it was made under another configuration"))
        })?;
        let rows = match &self.database {
            Database::Postgres(postgres) => postgres.execute(self.statement.text(), ordered).await?,
            Database::Sqlite(sqlite) => sqlite.execute(self.statement.text(), ordered).await?,
        };
        Ok(Receipt { detail: if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") } })
    }

    pub(super) fn preview(&self, content: &Value) -> Value {
        json!({"statement": self.written, "values": content["values"]})
    }

    pub(super) async fn prepare(&self) -> Result<(), Unready> {
        let (text, count) = (self.statement.text(), self.statement.names().len());
        let preparing = async {
            match &self.database {
                Database::Postgres(postgres) => postgres.prepare(text).await,
                Database::Sqlite(sqlite) => sqlite.prepare(text, count).await,
            }
        };
        let patience = self.timeout.min(PATIENCE);
        let late = || Unready::Down(format!("no answer within {} s", patience.as_secs_f64()));
        tokio::time::timeout(patience, preparing).await.unwrap_or_else(|_| Err(late()))
    }

    pub(super) async fn try_out(&self) -> Result<String, String> {
        match self.prepare().await {
            Ok(()) => Ok("the database answers and takes the statement".to_owned()),
            Err(Unready::Refused(problem) | Unready::Down(problem)) => Err(problem),
        }
    }
}
