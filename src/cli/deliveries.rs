//! `taskhook deliveries`: what was handed on, what waits, what was given up on, and what a person does about it; and a test message
//! to a destination.

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Connection, Fault, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, cut, text};
use super::routes::{build, no_destination};
use super::{Context, Error, Result, again, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::destination::Outgoing;
use crate::route::Envelope;
use crate::text::one_line;

/// See what was handed on, what waits, and what was given up on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List deliveries, the newest first
    List {
        /// Only deliveries in this state; what was given up on is `dead`
        #[arg(long, value_parser = ["pending", "delivered", "dead", "discarded"])]
        state: Option<String>,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one delivery: what it repeats, and every attempt
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// Try deliveries again: the same ones, with the same `webhook-id` and content, in their place among those of their task
    ///
    /// By their ids, or all that a filter means: those that are dead, the oldest first. The waits between attempts begin anew. What
    /// a filter means is counted first, and done when you agree.
    Retry {
        /// Their ids, or the beginnings of them
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// Only deliveries in this state [default: dead]
        #[arg(long, value_parser = ["dead", "pending"])]
        state: Option<String>,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        many: again::Many,
    },
    /// Give deliveries up for good: they are kept and shown, and count as dead letters no more
    ///
    /// By their ids, or all that a filter means: those that are dead, the oldest first. What a filter means is counted first, and
    /// done when you agree.
    Discard {
        /// Their ids, or the beginnings of them
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// Only deliveries in this state [default: dead]
        #[arg(long, value_parser = ["dead", "pending"])]
        state: Option<String>,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        many: again::Many,
    },
    /// Send one test message to a destination of the configuration, marked as such; nothing is kept of it
    Test {
        /// The destination
        destination: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which deliveries are meant.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// Only deliveries to this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Only deliveries that this route chose
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    #[command(flatten)]
    filter: again::Filter,
}

impl Which {
    fn members(&self, state: Option<&str>) -> Result<Vec<(&'static str, String)>> {
        self.filter.members(&[("state", state), ("destination", self.destination.as_deref()), ("route", self.route.as_deref())])
    }
}

const RETRY: again::Act = again::Act { list: "deliveries", verb: "retry", one: "delivery", done: "tried again" };
const DISCARD: again::Act = again::Act { list: "deliveries", verb: "discard", one: "delivery", done: "discarded" };

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let (act, ids, state, which, many) = match &args.command {
        Command::List { state, which, listing } => return list(args, &which.members(state.as_deref())?, listing, context),
        Command::Show { id, json } => return show(args, id, *json, context),
        Command::Test { destination, json } => return test(destination, *json, context),
        Command::Retry { ids, state, which, many } => (RETRY, ids, state, which, many),
        Command::Discard { ids, state, which, many } => (DISCARD, ids, state, which, many),
    };
    let client = Client::new(context, &args.connection, again::TIMEOUT)?;
    runtime()?.block_on(act.run(&client, ids, &which.members(state.as_deref())?, many, context))
}

fn list(args: &Args, filter: &[(&'static str, String)], listing: &Listing, context: &mut Context<'_>) -> Result {
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let list = runtime()?.block_on(listing.ask(&client, "deliveries", filter))?;
    let empty = match filter {
        [("state", state)] if state == "dead" => "Nothing was given up on.",
        [] => "There is no delivery yet. `taskhook events list` shows what was received.",
        _ => "No delivery is like that.",
    };
    listing.show(context, &list, empty, table)
}

fn show(args: &Args, id: &str, json: bool, context: &mut Context<'_>) -> Result {
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let shown = runtime()?.block_on(client.get(&["deliveries", id], &[])).map_err(|fault| match fault {
        Fault::Refused { code, .. } if code == "not_found" => {
            Error::failed(format!("there is no delivery `{}`", one_line(id, 80)))
                .hint("`taskhook deliveries list` shows what there is")
        }
        fault => client.explain(&fault),
    })?;
    if json {
        return Ok(output::json(context.out, &shown)?);
    }
    let out_of_order = if shown["out_of_order"] == true { "it went before something earlier" } else { "" };
    let replay = if shown["replay"] == 0 { String::new() } else { text(&shown, "replay") };
    let facts = [
        ("delivery", text(&shown, "id")),
        ("event", text(&shown, "event")),
        ("type", text(&shown, "type")),
        ("source", text(&shown, "source")),
        ("task", text(&shown, "task_id")),
        ("destination", text(&shown, "destination")),
        ("route", text(&shown, "route")),
        ("state", text(&shown, "state")),
        ("reason", text(&shown, "reason")),
        ("replay", replay),
        ("repeats", text(&shown, "replay_of")),
        ("order", out_of_order.to_owned()),
        ("made", text(&shown, "created_at")),
        ("ended", text(&shown, "ended_at")),
        ("next at", text(&shown, "due_at")),
    ];
    output::facts(context.out, &facts)?;
    let attempts = shown["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    if attempts.is_empty() {
        return Ok(());
    }
    let mut table =
        Table::new(&[Column::Number("TRY"), Column::Whole("STARTED"), Column::Whole("OUTCOME"), Column::Wrap("DETAIL")]);
    for attempt in attempts {
        table.row([&text(attempt, "attempt"), &text(attempt, "started_at"), &text(attempt, "outcome"), &text(attempt, "detail")]);
    }
    writeln!(context.out)?;
    Ok(table.fit(context.out, context.width)?)
}

/// Sends one message, as a first attempt is made.
fn test(name: &str, as_json: bool, context: &mut Context<'_>) -> Result {
    let config = Config::load(&context.inputs)?;
    let clock = Clock::system();
    let destinations = build(&config, &clock)?;
    let Some(destination) = destinations.get(name) else { return Err(no_destination(name, &config).into()) };
    let failed = |reason: String| Error::failed(format!("`{name}` did not take the test message: {reason}"));
    let body = destination.render(&Envelope::test(clock.now())).map_err(|error| failed(error.to_string()))?;
    let id = Uuid::now_v7();
    let sent = runtime()?.block_on(destination.send(&Outgoing { id, body: &body, attempt: 1 }));
    let receipt = sent.map_err(|failure| {
        let error = failed(failure.detail.unwrap_or(failure.reason));
        if failure.unknown { error.hint("it may have arrived all the same: look there") } else { error }
    })?;
    if as_json {
        let sent = json!({"destination": name, "kind": destination.kind(), "delivery": id, "detail": receipt.detail});
        return Ok(output::json(context.out, &sent)?);
    }
    Ok(writeln!(context.out, "sent to `{name}` ({}) as {id}: {}", destination.kind(), one_line(&receipt.detail, output::MOST))?)
}

fn table(rows: &[Value]) -> Table {
    let now = Clock::system().now();
    let mut table = Table::new(&[
        Column::Whole("DELIVERY"),
        Column::Number("AGE"),
        Column::Cut("DESTINATION"),
        Column::Cut("TYPE"),
        Column::Whole("STATE"),
        Column::Number("TRIES"),
        Column::Cut("RESULT"),
    ]);
    let ids: Vec<_> = rows.iter().map(|row| text(row, "id")).collect();
    let length = output::short_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    for (row, id) in rows.iter().zip(&ids) {
        table.row([
            cut(id, length),
            &age(row, "created_at", now),
            &text(row, "destination"),
            &text(row, "type"),
            &text(row, "state"),
            &tries(row),
            &result(row),
        ]);
    }
    table
}

/// The deliveries of one event.
pub(super) fn of_event(rows: &[Value]) -> Table {
    let mut table = Table::new(&[
        Column::Whole("DELIVERY"),
        Column::Cut("DESTINATION"),
        Column::Whole("STATE"),
        Column::Number("TRIES"),
        Column::Wrap("RESULT"),
    ]);
    for row in rows {
        table.row([&text(row, "id"), &text(row, "destination"), &text(row, "state"), &tries(row), &result(row)]);
    }
    table
}

fn tries(delivery: &Value) -> String {
    delivery["attempts"].as_array().map_or(0, Vec::len).to_string()
}

/// Why it is dead, or what the last attempt was told.
fn result(delivery: &Value) -> String {
    let last = delivery["attempts"].as_array().and_then(|attempts| attempts.last());
    match text(delivery, "reason") {
        reason if reason.is_empty() => last.map(|attempt| text(attempt, "detail")).unwrap_or_default(),
        reason => reason,
    }
}
