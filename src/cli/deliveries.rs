//! `taskhook deliveries`: what was handed on, what waits, what was given up on; and a test message to a destination.

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Connection, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, cut, text};
use super::routes::{build, no_destination};
use super::{Context, Error, Result, runtime};
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
        #[arg(long, value_parser = ["pending", "delivered", "dead"])]
        state: Option<String>,
        #[command(flatten)]
        listing: Listing,
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

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let (state, listing) = match &args.command {
        Command::List { state, listing } => (state, listing),
        Command::Test { destination, json } => return test(destination, *json, context),
    };
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let list = runtime()?.block_on(listing.ask(&client, "deliveries", &[("state", state.as_deref())]))?;
    let empty = match state.as_deref() {
        Some("dead") => "Nothing was given up on.",
        Some(_) => "No delivery is like that.",
        None => "There is no delivery yet. `taskhook events list` shows what was received.",
    };
    listing.show(context, &list, empty, table)
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
        Column::Whole("EVENT"),
        Column::Number("AGE"),
        Column::Cut("DESTINATION"),
        Column::Cut("TYPE"),
        Column::Whole("STATE"),
        Column::Number("TRIES"),
        Column::Cut("RESULT"),
    ]);
    let ids: Vec<_> = rows.iter().map(|row| text(row, "event")).collect();
    // One event may have several deliveries here.
    let mut distinct: Vec<_> = ids.iter().map(String::as_str).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let length = output::short_ids(&distinct);
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
