//! `taskhook events`: what was received, and where it stands.

use std::io::{self, Write};

use serde_json::Value;

use super::client::{Client, Connection, Fault, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, cut, facts, text};
use super::{Context, Error, Result, again, runtime, tail};
use crate::clock::Clock;
use crate::text::one_line;

/// See what was received, and where it stands
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List events, the newest first
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one event: its facts, its deliveries, its payload
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// Print events as they come, until Ctrl-C; goes on when taskhook restarts
    Tail {
        /// Print a line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Hand events on again, by the routes of now: to new deliveries, marked `replayed`
    ///
    /// By their ids, or all that a filter means: those that are done with and those that are dead, the oldest first. A task that was
    /// fetched before is told as it is known. What a filter means is counted first, and done when you agree.
    Replay {
        /// Their ids, or the beginnings of them
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        filter: again::Filter,
        /// Only events in this state [default: those that are done, and those that are dead]
        #[arg(long, value_parser = ["done", "dead", "kept"])]
        state: Option<String>,
        #[command(flatten)]
        many: again::Many,
    },
    /// Let an event out of quarantine: you vouch that its task is yours
    Release {
        /// Its id, or the beginning of it
        id: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only events of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only events of this type, such as `task_stopped`
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only events of this task
    #[arg(long, value_name = "TASK_ID")]
    task: Option<String>,
    /// Only events in this state
    #[arg(long, value_parser = ["proving", "fetching", "archiving", "done", "kept", "quarantined", "dead"])]
    state: Option<String>,
    /// Only events with this text, in large letters or small, in an id of theirs, or in the id or title of their task
    ///
    /// The newest 10,000 events and the newest 10,000 tasks are looked through.
    #[arg(long)]
    text: Option<String>,
    #[command(flatten)]
    times: again::Times,
}

const REPLAY: again::Act = again::Act { list: "events", verb: "replay", one: "event", done: "replayed" };

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let timeout = if matches!(args.command, Command::Replay { .. }) { again::TIMEOUT } else { TIMEOUT };
    let client = Client::new(context, &args.connection, timeout)?;
    runtime()?.block_on(async {
        match &args.command {
            Command::List { filter, listing } => list(&client, filter, listing, context).await,
            Command::Show { id, json } => show(&client, id, *json, context).await,
            Command::Replay { ids, filter, state, many } => {
                REPLAY.run(&client, ids, &filter.members(&[("state", state.as_deref())])?, many, context).await
            }
            Command::Release { id, json } => release(&client, id, *json, context).await,
            Command::Tail { json } => {
                tokio::select! {
                    ended = tail::tail(&client, *json, true, context) => ended,
                    _ = tokio::signal::ctrl_c() => Ok(()),
                }
            }
        }
    })
}

async fn list(client: &Client, filter: &Filter, listing: &Listing, context: &mut Context<'_>) -> Result {
    let Filter { source, kind, task, state, text, times } = filter;
    let texts = [("source", source), ("type", kind), ("task", task), ("state", state), ("text", text)];
    let mut filter = again::set(&texts.map(|(name, value)| (name, value.as_deref())));
    filter.extend(times.members()?);
    let events = listing.ask(client, "events", &filter).await?;
    let empty = if filter.is_empty() {
        "No event was received yet. `taskhook webhooks register` tells the provider where to send them; requests that did not \
         verify are in `taskhook rejections list`."
    } else {
        "No event is like that."
    };
    listing.show(context, &events, empty, table)
}

pub(super) fn table(rows: &[Value]) -> Table {
    let now = Clock::system().now();
    let mut table = Table::new(&[
        Column::Whole("EVENT"),
        Column::Number("AGE"),
        Column::Cut("SOURCE"),
        Column::Cut("TYPE"),
        Column::Cut("TASK"),
        Column::Whole("STATE"),
    ]);
    let ids: Vec<_> = rows.iter().map(|row| text(row, "id")).collect();
    let length = output::short_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    for (row, id) in rows.iter().zip(&ids) {
        let age = age(row, "received_at", now);
        table.row([cut(id, length), &age, &text(row, "source"), &kind(row), &text(row, "task_id"), &text(row, "state")]);
    }
    table
}

/// The type; of the registration ping, that it is one; of an unknown one, the provider's word.
pub(super) fn kind(event: &Value) -> String {
    match (event["ping"].as_bool(), text(event, "type")) {
        (Some(true), _) => "ping".to_owned(),
        (_, kind) if kind == "unknown" && event["provider_type"].is_string() => {
            format!("unknown: {}", text(event, "provider_type"))
        }
        (_, kind) => kind,
    }
}

async fn show(client: &Client, id: &str, json: bool, context: &mut Context<'_>) -> Result {
    let event = one(client, &["events", id], id, client.get(&["events", id], &[]).await)?;
    if json {
        return Ok(output::json(context.out, &event)?);
    }
    write_event(context.out, context.width, &event)?;
    Ok(())
}

/// What was answered about the event `id`, told well if there is none.
fn one(client: &Client, path: &[&str], id: &str, answer: std::result::Result<Value, Fault>) -> Result<Value> {
    answer.map_err(|fault| match fault {
        Fault::Refused { code, .. } if code == "not_found" && path.len() > 1 => {
            Error::failed(format!("there is no event `{}`", one_line(id, 80)))
                .hint("`taskhook events list` shows what there is")
                .into()
        }
        fault => client.explain(&fault).into(),
    })
}

/// The most characters of a payload that are shown.
const PAYLOAD: usize = 8000;

fn write_event(out: &mut dyn Write, width: u16, event: &Value) -> io::Result<()> {
    let source = format!("{} ({})", text(event, "source"), text(event, "provider"));
    let repeats = match event["repeats"].as_i64() {
        None | Some(0) => String::new(),
        Some(count) => format!("{count}, the last at {}", text(event, "last_repeat_at")),
    };
    let replays = match event["replays"].as_i64() {
        None | Some(0) => String::new(),
        Some(count) => format!("{count}, the last at {}", text(event, "replayed_at")),
    };
    let work = match &event["work"] {
        Value::Null => String::new(),
        work => format!("{} (tried {} times), next at {}", text(work, "kind"), text(work, "attempt"), text(work, "due_at")),
    };
    let reasons = event["work"]["reasons"].as_array().and_then(|reasons| reasons.last()).map(plain).unwrap_or_default();
    facts(
        out,
        &[
            ("event", text(event, "id")),
            ("type", kind(event)),
            ("source", source),
            ("task", text(event, "task_id")),
            ("received", text(event, "received_at")),
            ("state", text(event, "state")),
            ("reason", text(event, "reason")),
            ("waits for", work),
            ("last failure", reasons),
            ("verified by", text(event, "verification")),
            ("provider's id", text(event, "event_id")),
            ("collision of", text(event, "collision_of")),
            ("came again", repeats),
            ("released", text(event, "released_at")),
            ("replayed", replays),
            ("sent to", text(event, "target")),
        ],
    )?;
    let deliveries = event["deliveries"].as_array().map_or(&[][..], Vec::as_slice);
    if !deliveries.is_empty() {
        writeln!(out)?;
        super::deliveries::of_event(deliveries).fit(out, width)?;
    }
    let payload = match &event["payload"] {
        Value::String(text) => format!("{}\n", one_line(text, PAYLOAD)),
        payload => output::pretty(payload),
    };
    let shown = payload.char_indices().nth(PAYLOAD).map_or(payload.as_str(), |(end, _)| &payload[..end]);
    writeln!(out, "\npayload:\n{}", shown.trim_end())?;
    if shown.len() < payload.len() {
        writeln!(out, "… cut here; `--json` shows all of it")?;
    }
    Ok(())
}

/// A reason as it is kept: text, or an object that holds one.
fn plain(reason: &Value) -> String {
    match reason {
        Value::String(text) => text.clone(),
        Value::Object(_) if reason["reason"].is_string() => text(reason, "reason"),
        other => other.to_string(),
    }
}

async fn release(client: &Client, id: &str, json: bool, context: &mut Context<'_>) -> Result {
    let answer = one(client, &["events", id], id, client.post(&["events", id, "release"], None).await)?;
    if json {
        return Ok(output::json(context.out, &answer)?);
    }
    writeln!(context.err, "Event {} is released, and goes its way now.", text(&answer, "id"))?;
    Ok(())
}
