//! A client of the admin API, as the commands that look at a running taskhook use it.
//!
//! What must hold: nothing is asked twice on its own, since some calls cost money; no error shows the token; and whoever answers
//! is checked to be taskhook's admin listener before its words are believed.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sse_stream::{Sse, SseStream};
use url::Url;

use super::{Context, Error, Exit, Result, output};
use crate::config::{Config, Inputs};
use crate::http;
use crate::setting::Secret;
use crate::store::{self, Store};
use crate::text::one_line;

/// How long a call may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stream may be silent: it says every 15 s that it is there.
const SILENCE: Duration = Duration::from_secs(45);
/// The most bytes of an answer: a list of 500 rows may hold long titles.
const MAX_ANSWER: usize = 128 << 20;
/// The most characters of a message that are shown.
const MAX_MESSAGE: usize = 2000;

/// Which taskhook is asked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Connection {
    /// The admin address of the taskhook to ask [default: `admin.listen` of the configuration]
    #[arg(long, global = true, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Its admin token [default: `admin.token` of the configuration]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
}

/// What part of a list is shown, and how.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Listing {
    /// How many, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Where to go on: what a list before this one said
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

impl Listing {
    /// Whether JSON is asked for.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Asks for the list at `path`, narrowed by `filter`.
    pub(super) async fn ask(&self, client: &Client, path: &str, filter: &[(&'static str, String)]) -> Result<Value> {
        let cursor = self.cursor.iter().map(|cursor| ("cursor", cursor.clone()));
        let query: Vec<_> = [("limit", self.limit.to_string())].into_iter().chain(cursor).chain(filter.iter().cloned()).collect();
        client.ask(&[path], &query).await
    }

    /// Shows `list` as JSON or as the table that `table` makes of its rows; of nothing, it says `empty` on stderr.
    pub(super) fn show(
        &self,
        context: &mut Context<'_>,
        list: &Value,
        empty: &str,
        table: impl FnOnce(&[Value]) -> output::Table,
    ) -> Result {
        if self.json {
            return Ok(output::json(context.out, list)?);
        }
        let rows = output::rows(list);
        if rows.is_empty() {
            return Ok(writeln!(context.err, "{empty}")?);
        }
        table(rows).fit(context.out, context.width)?;
        if let Some(cursor) = list["next_cursor"].as_str() {
            context.out.flush()?;
            writeln!(context.err, "There are more: add `--cursor {}`.", one_line(cursor, 40))?;
        }
        Ok(())
    }
}

/// A client of one taskhook.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    token: Option<Secret>,
    timeout: Duration,
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody took the request.
    Unreachable(String),
    /// It was sent, and no whole answer came.
    Lost(String),
    /// The answer is not one of taskhook's admin API.
    Foreign(String),
    /// 401.
    Token,
    /// Any other error, in the words of the API.
    Refused { status: StatusCode, code: String, title: String },
}

impl Fault {
    /// Whether asking again may help: a restart, a store that is busy.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Foreign(_) | Self::Token => false,
        }
    }
}

impl From<http::Error> for Fault {
    fn from(error: http::Error) -> Self {
        match error {
            http::Error::Connect(reason) => Self::Unreachable(reason),
            error @ http::Error::TooLarge(_) => Self::Lost(format!("{error}; ask for less with `--limit`")),
            error => Self::Lost(error.to_string()),
        }
    }
}

/// What is told as it happens.
pub(super) struct News(Pin<Box<dyn Stream<Item = std::result::Result<Sse, sse_stream::Error>> + Send>>);

/// One message of it.
#[derive(Debug)]
pub(super) struct Message {
    /// What to come back with, to be told of all that came after it.
    pub(super) id: Option<String>,
    /// What it says.
    pub(super) data: Value,
}

impl News {
    /// The next message; `None` at the end, and where nothing was heard for too long.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let Sse { id, data, .. } = self.0.next().await?.ok()?;
        Some(Message { id, data: serde_json::from_str(&data?).ok()? })
    }
}

impl Client {
    /// The client that `connection` asks for; what it leaves open is read from the configuration.
    pub(super) fn new(context: &Context<'_>, connection: &Connection, timeout: Duration) -> Result<Self> {
        let base = match &connection.url {
            Some(url) => base(url)?,
            None => local(Config::load_admin(&context.inputs)?.listen),
        };
        let token = match &connection.token {
            Some(token) => Some(Secret::new(token.trim())),
            None => configured_token(&context.inputs)?,
        };
        Ok(Self { http: http::client(timeout), base, token, timeout })
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> std::result::Result<Value, Fault> {
        self.send(Method::GET, path, query, None).await
    }

    pub(super) async fn post(&self, path: &[&str], body: Option<&Value>) -> std::result::Result<Value, Fault> {
        self.send(Method::POST, path, &[], body).await
    }

    pub(super) async fn put(&self, path: &[&str], body: &Value) -> std::result::Result<Value, Fault> {
        self.send(Method::PUT, path, &[], Some(body)).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> std::result::Result<Value, Fault> {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// The answer to a GET, or why there is none.
    pub(super) async fn ask(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value> {
        Ok(self.get(path, query).await.map_err(|fault| self.explain(&fault))?)
    }

    /// What `/readyz` says, whatever that is: nothing where nobody answers.
    pub(super) async fn ready(&self) -> Value {
        let request = self.http.get(format!("{}/readyz", self.base));
        let answer = http::send(request, self.timeout, MAX_ANSWER).await;
        answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
    }

    /// The instance id that `/healthz` tells.
    pub(super) async fn instance(&self) -> Option<String> {
        let request = self.http.get(format!("{}/healthz", self.base));
        let answer = http::send(request, self.timeout, MAX_ANSWER).await.ok()?;
        let health: Value = serde_json::from_slice(&answer.body).ok()?;
        health["instance"].as_str().map(str::to_owned)
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> std::result::Result<Value, Fault> {
        let mut url = Url::parse(&self.base).map_err(|error| Fault::Unreachable(error.to_string()))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            // Escaped: what a user names cannot lead to another call.
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let mut request = self.http.request(method, url).query(query);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        judged(&http::send(request, self.timeout, MAX_ANSWER).await?)
    }

    /// Follows what is news, from behind the message `last` on.
    pub(super) async fn follow(&self, last: Option<&str>) -> std::result::Result<News, Fault> {
        let mut request = http::transfer_client(SILENCE, None).get(format!("{}/api/v1/stream", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.map_err(|error| http::classify(&error, SILENCE))?;
        let streams =
            response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if response.status().is_success() && streams {
            return Ok(News(Box::pin(SseStream::from_bytes_stream(response.bytes_stream()))));
        }
        judged(&http::read(response, self.timeout, MAX_ANSWER).await?)?;
        Err(Fault::Foreign("it has no stream of what is news".to_owned()))
    }

    /// `fault` as it is told.
    pub(super) fn explain(&self, fault: &Fault) -> Error {
        let base = &self.base;
        match fault {
            Fault::Unreachable(reason) => Error::failed(format!("no taskhook answers at {base}: {}", one_line(reason, 200)))
                .hint("start `taskhook serve`, or pass `--url`"),
            Fault::Lost(reason) => Error::failed(format!("no whole answer from {base}: {reason}")),
            Fault::Foreign(what) => Error::failed(format!("{base} is not the admin address of a taskhook: {what}"))
                .hint("pass the address of `admin.listen` as `--url`; by default it is http://127.0.0.1:8081"),
            Fault::Token if self.token.is_none() => Error::failed(format!("the taskhook at {base} asks for a token"))
                .hint("pass `--token`, or set `admin.token` or `admin.token_file` as it is set there"),
            Fault::Token => Error::failed(format!("the taskhook at {base} does not take this token"))
                .hint("pass another with `--token`, or set `admin.token` or `admin.token_file` as it is set there"),
            Fault::Refused { status, code, title } => {
                let title = one_line(title, MAX_MESSAGE);
                let error = Error::failed(if title.is_empty() { format!("{status} ({code})") } else { title });
                match code.as_str() {
                    "source_missing" => error.hint("pass it with `--source`, or in front of the task"),
                    "outcome_unknown" => error.hint("its page shows a task at once, `taskhook tasks list` with its first event"),
                    "id_ambiguous" => error.hint("write more of the id"),
                    "in_flight" => error.hint("`taskhook deliveries list` shows how it ended"),
                    "not_retryable" => error.hint("`taskhook events replay EVENT` hands its event on again, as a new delivery"),
                    "quarantined" => error.hint("if the task is yours, `taskhook events release ID` lets it go"),
                    "store_unavailable" => error.hint("`taskhook serve` logs why"),
                    _ => error,
                }
            }
        }
    }
}

/// What `answer` says; or why that is not to be gone on with.
fn judged(answer: &http::Answer) -> std::result::Result<Value, Fault> {
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let problem = |name: &str| value.as_ref().and_then(|value| value.get(name)?.as_str()).map(str::to_owned);
    match (answer.status, problem("code")) {
        // The public listener's word for what it does not have.
        (_, Some(code)) if code == "source_unknown" => Err(Fault::Foreign("it is taskhook's public address".to_owned())),
        (StatusCode::UNAUTHORIZED, Some(_)) => Err(Fault::Token),
        (status, Some(code)) if !status.is_success() => {
            Err(Fault::Refused { status, code, title: problem("title").unwrap_or_default() })
        }
        (status, _) if status.is_success() && value.as_ref().is_some_and(Value::is_object) => Ok(value.unwrap_or_default()),
        (status, _) => {
            let kind = answer.header("content-type").unwrap_or("no content type");
            Err(Fault::Foreign(format!("it answers {} with {}", status.as_u16(), one_line(kind, 60))))
        }
    }
}

/// The token of the configuration, if it asks for one.
fn configured_token(inputs: &Inputs) -> Result<Option<Secret>> {
    let admin = Config::load_admin(inputs)?;
    admin
        .resolve_token(false)
        .map_err(|error| Error::failed(error.to_string()).with_exit(Exit::Usage).hint("or pass the token with `--token`").into())
}

/// The address of a listener on this machine, as one who is on it reaches it.
pub(super) fn local(mut listen: std::net::SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{listen}")
}

/// `--url` without a slash at its end. The text itself is shown only once it is known to hold no password.
fn base(text: &str) -> Result<String> {
    let usage = |reason: &str| Error::failed(format!("`--url` {reason}")).with_exit(Exit::Usage);
    let example = "write it like `--url http://127.0.0.1:8081`";
    let url = Url::parse(text).map_err(|error| usage(&format!("is not a URL: {error}")).hint(example))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(usage("must begin with `http://` or `https://`").hint(example).into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(usage("must not hold a user or a password").hint("pass the token with `--token`").into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(usage("must not have a query or a fragment").hint(example).into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The instance id of the store that is configured here; if this process cannot read it, of the taskhook that `client` asks.
pub(super) async fn our_instance(config: &Config, client: Option<&Client>) -> std::result::Result<String, store::Error> {
    let error = match Store::peek_instance_id(&config.store) {
        Ok(id) => return Ok(id),
        Err(error) => error,
    };
    match client {
        Some(client) => client.instance().await.ok_or(error),
        None => Err(error),
    }
}
