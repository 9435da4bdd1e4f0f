//! `taskhook deliveries`: what was handed on, what waits, what was given up on.

use serde_json::Value;

use super::client::{Client, Connection, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, cut, text};
use super::{Context, Result, runtime};
use crate::clock::Clock;

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
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let Command::List { state, listing } = &args.command;
    let list = runtime()?.block_on(listing.ask(&client, "deliveries", &[("state", state.as_deref())]))?;
    let empty = match state.as_deref() {
        Some("dead") => "Nothing was given up on.",
        Some(_) => "No delivery is like that.",
        None => "There is no delivery yet. `taskhook events list` shows what was received.",
    };
    listing.show(context, &list, empty, table)
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
