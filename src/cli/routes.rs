//! `taskhook routes`: where an event would go, and what would be sent there.
//!
//! Everything is decided here, by the configuration at hand, so that a change can be tried before the taskhook that runs has it. Only
//! the event itself comes from that taskhook; a sample needs none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::client::{Client, Connection, Fault, TIMEOUT};
use super::output::{self, text};
use super::{Context, Error, Exit, Result, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::destination::log::{Format, Output};
use crate::destination::{Destination, Parts};
use crate::event::Verification;
use crate::provider::{Budgets, Source};
use crate::route::{Envelope, Routes, SAMPLES};
use crate::store::model::StoredEvent;
use crate::task::Fetched;
use crate::template::nearest;
use crate::text::one_line;
use crate::worker::{self, Known, Place};

/// The most characters of one text that are shown; `--json` shows all.
const MOST: usize = 4_000;

/// Try where an event would go
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show which routes match, and what each destination would be sent; sends nothing
    Test {
        /// The event, by its id, as the taskhook that runs has it
        #[arg(long, value_name = "ID", conflicts_with = "sample", required_unless_present = "sample")]
        event: Option<String>,
        /// A sample; needs no taskhook that runs
        #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(SAMPLES))]
        sample: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let Command::Test { event, sample, json } = &args.command;
    let config = Config::load(&context.inputs)?;
    let clock = Clock::system();
    let usage = |text: String| Error::failed(text).with_exit(Exit::Usage);
    let destinations = build(&config, &clock)?;
    let names: Vec<String> = destinations.keys().cloned().collect();
    let routes = Routes::compile(&config.routes, &names)
        .map_err(|errors| usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let envelope = match (sample, event) {
        (Some(name), _) => Envelope::named(name).ok_or_else(|| usage(format!("there is no sample `{name}`")))?,
        (None, Some(id)) => {
            let client = Client::new(context, &args.connection, TIMEOUT)?;
            runtime()?.block_on(fetch(&client, &config, &clock, id))?
        }
        (None, None) => return Err(usage("name an event or a sample".to_owned()).into()),
    };
    let shown = try_out(&envelope, &routes, &destinations);
    if *json { Ok(output::json(context.out, &shown)?) } else { write(context, &shown) }
}

/// The configured destinations.
pub(super) fn build(config: &Config, clock: &Clock) -> Result<BTreeMap<String, Destination>> {
    let parts = Parts { clock: clock.clone(), format: Format::default(), output: Output::Stdout, files: None };
    let built = config.destinations.iter().map(|(name, section)| {
        let built = Destination::build(name, section, &parts);
        Ok((name.clone(), built.map_err(|error| Error::failed(error.to_string()).with_exit(Exit::Usage))?))
    });
    built.collect()
}

/// There is no destination `name`.
pub(super) fn no_destination(name: &str, config: &Config) -> Error {
    let names = || config.destinations.keys().map(String::as_str);
    let error = Error::failed(format!("there is no destination `{}`", one_line(name, 60))).with_exit(Exit::Usage);
    error.hint(match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    })
}

/// The envelope of an event as the worker would make it now.
async fn fetch(client: &Client, config: &Config, clock: &Clock, id: &str) -> Result<Envelope> {
    let found = client.get(&["events", id], &[]).await.map_err(|fault| match fault {
        Fault::Refused { code, .. } if code == "not_found" => {
            Error::failed(format!("there is no event `{}`", one_line(id, 60))).hint("`taskhook events list` shows what there is")
        }
        fault => client.explain(&fault),
    })?;
    let unreadable = |what: &str| Error::failed(format!("the event cannot be read: {what}"));
    let name = text(&found, "source");
    let section = config.sources.get(&name).ok_or_else(|| {
        Error::failed(format!("the event is of the source `{}`, which is not in this configuration", one_line(&name, 40)))
    })?;
    let source = Source::new(&name, section, clock, &Budgets::new(clock.clone()))
        .map_err(|error| Error::failed(error.to_string()).with_exit(Exit::Usage))?;
    let body = match (found["body_base64"].as_str(), &found["payload"]) {
        (Some(bytes), _) => BASE64_STANDARD.decode(bytes).map_err(|_| unreadable("its body is no Base64"))?,
        (None, Value::String(text)) => text.clone().into_bytes(),
        (None, payload) => payload.to_string().into_bytes(),
    };
    let event = StoredEvent {
        seq: 0,
        id: text(&found, "id").parse().map_err(|_| unreadable("its id is none of ours"))?,
        source: name.clone(),
        provider: text(&found, "provider"),
        event_id: text(&found, "event_id"),
        kind: text(&found, "type"),
        provider_type: found["provider_type"].as_str().map(str::to_owned),
        task_id: found["task_id"].as_str().map(str::to_owned),
        received_at: text(&found, "received_at").parse().map_err(|_| unreadable("its time is none"))?,
        verification: Verification::of(&text(&found, "verification")),
        collision_of: found["collision_of"].as_str().and_then(|id| id.parse().ok()),
        released: found["released_at"].is_string(),
        replay: 0,
        body: Bytes::from(body),
    };
    let task = match worker::task_of(&source, &event) {
        Some(task_id) => fetched(client, &name, task_id).await,
        None => None,
    };
    Ok(worker::envelope(&source, &event, Known::of(&source, &event, task.as_ref()), Place::default()))
}

/// The task as it was last fetched, if it was.
async fn fetched(client: &Client, source: &str, task_id: &str) -> Option<Fetched> {
    let mut shown = client.get(&["tasks", source, task_id], &[]).await.ok()?;
    let task = serde_json::from_value(shown["task"].take()).ok()?;
    Some(Fetched { task, files: serde_json::from_value(shown["files"].take()).unwrap_or_default(), ..Fetched::default() })
}

fn try_out(envelope: &Envelope, routes: &Routes, destinations: &BTreeMap<String, Destination>) -> Value {
    let tried: Vec<_> = routes
        .explain(envelope)
        .into_iter()
        .map(|tried| {
            let error = tried.takes.as_ref().err().map(ToString::to_string);
            json!({"route": tried.route, "matches": tried.takes.ok(), "error": error, "to": tried.to})
        })
        .collect();
    let targets = routes.select(envelope).unwrap_or_default();
    let deliveries: Vec<_> = targets
        .iter()
        .filter_map(|target| {
            let destination = destinations.get(&target.destination)?;
            let rendered = destination.render(envelope);
            let error = rendered.as_ref().err().map(ToString::to_string);
            let preview = rendered.as_ref().ok().map(|content| destination.preview(content));
            let content: Option<Value> = rendered.ok().and_then(|content| serde_json::from_str(&content).ok());
            Some(json!({"destination": target.destination, "kind": destination.kind(), "route": target.route,
                "error": error, "content": content, "preview": preview}))
        })
        .collect();
    let facts = &envelope.event.facts;
    let title = envelope.task.as_ref().and_then(|task| task.title.as_ref()).or(facts.title.as_ref());
    json!({"event": {"id": envelope.id, "type": envelope.kind, "source": envelope.source, "task_id": facts.task_id, "title": title},
        "routes": tried, "deliveries": deliveries})
}

fn write(context: &mut Context<'_>, shown: &Value) -> Result {
    let event = &shown["event"];
    let words = ["type", "source", "title"].map(|name| one_line(&text(event, name), 80));
    writeln!(context.out, "{}", words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join("  "))?;
    let none = Vec::new();
    for route in shown["routes"].as_array().unwrap_or(&none) {
        let name = one_line(&text(route, "route"), 60);
        match (route["matches"].as_bool(), route["to"].as_array()) {
            (Some(true), Some(to)) => {
                let to = to.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
                writeln!(context.out, "matches       {name} -> {to}")?;
            }
            (Some(_), _) => writeln!(context.out, "no match      {name}")?,
            (None, _) => writeln!(context.out, "fails         {}", one_line(&text(route, "error"), output::MOST))?,
        }
    }
    let deliveries = shown["deliveries"].as_array().unwrap_or(&none);
    for delivery in deliveries {
        writeln!(context.out, "\n{} ({}) would be sent:", text(delivery, "destination"), text(delivery, "kind"))?;
        match delivery["error"].as_str() {
            Some(error) => writeln!(context.out, "  nothing: {}", one_line(error, output::MOST))?,
            None => context.out.write_all(outline(&delivery["preview"], 1).as_bytes())?,
        }
    }
    if deliveries.is_empty() {
        writeln!(context.err, "It would go nowhere.")?;
    }
    let failed = deliveries.iter().any(|delivery| delivery["error"].is_string())
        || shown["routes"].as_array().unwrap_or(&none).iter().any(|route| route["error"].is_string());
    if failed { Err(Error::failed("this event would become a dead letter (`route_error`)").into()) } else { Ok(()) }
}

/// A value as an indented outline: a text of several lines keeps its lines.
fn outline(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let member = |name: &str, value: &Value| match value {
        Value::Object(members) if !members.is_empty() => format!("{indent}{name}:\n{}", outline(value, depth + 1)),
        Value::Array(items) if !items.is_empty() => format!("{indent}{name}:\n{}", outline(value, depth + 1)),
        Value::String(text) if text.contains('\n') => format!("{indent}{name}:\n{}", lines(text, depth + 1)),
        Value::String(text) => format!("{indent}{name}: {}\n", one_line(text, MOST)),
        other => format!("{indent}{name}: {other}\n"),
    };
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| member(&one_line(name, 60), value)).collect(),
        Value::Array(items) => items.iter().map(|item| member("-", item)).collect(),
        other => member("-", other),
    }
}

fn lines(text: &str, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let (mut out, mut left) = (String::new(), MOST);
    for line in text.lines() {
        let line = one_line_kept(line, left);
        left = left.saturating_sub(line.chars().count() + 1);
        let _ = writeln!(out, "{indent}{line}");
        if left == 0 {
            let _ = writeln!(out, "{indent}…");
            break;
        }
    }
    out
}

/// A line with its leading and inner spaces, harmless to a terminal.
fn one_line_kept(line: &str, most: usize) -> String {
    crate::text::visible(line).chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).take(most).collect()
}
