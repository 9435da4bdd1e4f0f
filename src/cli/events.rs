//! `taskhook events`: what was received, and where it stands.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Connection, Fault, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, cut, facts, text};
use super::{Context, Error, Result, again, runtime};
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
                    ended = tail(&client, *json, true, context) => ended,
                    _ = tokio::signal::ctrl_c() => Ok(()),
                }
            }
        }
    })
}

async fn list(client: &Client, filter: &Filter, listing: &Listing, context: &mut Context<'_>) -> Result {
    let Filter { source, kind, task, state } = filter;
    let filter = [("source", source), ("type", kind), ("task", task), ("state", state)];
    let narrowed = filter.iter().any(|(_, value)| value.is_some());
    let events = listing.ask(client, "events", &filter.map(|(name, value)| (name, value.as_deref()))).await?;
    let empty = if narrowed {
        "No event is like that."
    } else {
        "No event was received yet. `taskhook webhooks register` tells the provider where to send them; requests that did not \
         verify are in `taskhook rejections list`."
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
fn kind(event: &Value) -> String {
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
    write_event(context.out, &event)?;
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

fn write_event(out: &mut dyn Write, event: &Value) -> io::Result<()> {
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
        super::deliveries::of_event(deliveries).write(out)?;
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

/// How often the list is asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How many events of the past are printed at the start.
const FIRST: usize = 10;
/// The most that are asked for at a time.
const PAGE: usize = 100;
/// The most pages that are asked for at a time: whoever has missed more reads the list.
const PAGES: usize = 20;
/// How many ids are remembered: more than one round can bring.
const SEEN: usize = PAGE * (PAGES + 1);

/// Prints events as they come; with `past`, the last few before them.
pub(super) async fn tail(client: &Client, json: bool, past: bool, context: &mut Context<'_>) -> Result {
    let clock = Clock::system();
    let mut tail = Tail::default();
    let mut away = false;
    let mut begun = false;
    loop {
        match tail.round(client).await {
            Ok(events) => {
                if std::mem::take(&mut away) {
                    writeln!(context.err, "It is back.")?;
                }
                let shown = past || begun;
                begun = true;
                for event in events.into_iter().filter(|_| shown) {
                    if json { output::json_line(context.out, &event)? } else { line(context.out, &event)? }
                }
                context.out.flush()?;
            }
            // What may pass is waited for, once it was seen to work.
            Err(fault) if begun && fault.passes() => {
                if !std::mem::replace(&mut away, true) {
                    writeln!(context.err, "{}. Waiting for it to come back; Ctrl-C ends.", client.explain(&fault).message)?;
                }
            }
            Err(fault) => return Err(client.explain(&fault).into()),
        }
        clock.sleep(EVERY).await;
    }
}

/// Time, source, type, task, state.
fn line(out: &mut dyn Write, event: &Value) -> io::Result<()> {
    let (time, source, task) = (text(event, "received_at"), text(event, "source"), text(event, "task_id"));
    let task = if task.is_empty() { "-" } else { &task };
    let cells = [(time.as_str(), 24), (&source, 8), (&kind(event), 13), (task, 22), (&text(event, "state"), 0)];
    let cells = cells.map(|(cell, width)| format!("{:width$}", one_line(cell, 60)));
    writeln!(out, "{}", cells.join("  ").trim_end())
}

/// What was printed already.
#[derive(Debug, Default)]
struct Tail {
    seen: HashSet<String>,
    order: VecDeque<String>,
}

impl Tail {
    /// The events that are new since the last round, oldest first; in the first round, the last few.
    async fn round(&mut self, client: &Client) -> std::result::Result<Vec<Value>, Fault> {
        let first = self.order.is_empty();
        let mut new = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES {
            let mut query = vec![("limit", if first { FIRST } else { PAGE }.to_string())];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page = client.get(&["events"], &query).await?;
            let rows = output::rows(&page);
            let fresh = rows.iter().take_while(|row| !self.seen.contains(&text(row, "id")));
            let before = new.len();
            new.extend(fresh.cloned());
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if first || new.len() - before < rows.len() || cursor.is_none() {
                break;
            }
        }
        // Only now: a round that failed half-way is done again whole.
        new.reverse();
        for event in &new {
            let id = text(event, "id");
            self.seen.insert(id.clone());
            self.order.push_back(id);
        }
        while self.order.len() > SEEN {
            if let Some(id) = self.order.pop_front() {
                self.seen.remove(&id);
            }
        }
        Ok(new)
    }
}
