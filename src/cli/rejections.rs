//! `taskhook rejections`: requests that did not verify, and what would have made them good.

use std::io::{self, Write};

use serde_json::Value;

use super::client::{Client, Connection, Fault, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, facts, text};
use super::{Context, Error, Result, again, runtime};
use crate::clock::Clock;
use crate::text::one_line;

/// See requests that did not verify, and what would have made them good
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List rejections, the newest first
    List {
        /// Only requests to this source
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Only requests that were answered with this code, such as `signature_invalid`
        #[arg(long, value_name = "CODE")]
        code: Option<String>,
        #[command(flatten)]
        times: again::Times,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one rejection: its headers and its body
    Show {
        /// Its number
        id: i64,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let runtime = runtime()?;
    match &args.command {
        Command::List { source, code, times, listing } => {
            let mut filter = again::set(&[("source", source.as_deref()), ("code", code.as_deref())]);
            filter.extend(times.members()?);
            let list = runtime.block_on(listing.ask(&client, "rejections", &filter))?;
            let empty = if filter.is_empty() {
                "No request was rejected. What came and verified is in `taskhook events list`."
            } else {
                "No rejected request is like that."
            };
            listing.show(context, &list, empty, table)
        }
        Command::Show { id, json } => {
            let rejection = runtime.block_on(client.get(&["rejections", &id.to_string()], &[])).map_err(|fault| match fault {
                Fault::Refused { code, .. } if code == "not_found" => Error::failed(format!("there is no rejection {id}"))
                    .hint("`taskhook rejections list` shows what there is; the oldest are dropped"),
                fault => client.explain(&fault),
            })?;
            if *json {
                return Ok(output::json(context.out, &rejection)?);
            }
            Ok(write_rejection(context.out, &rejection)?)
        }
    }
}

fn table(rows: &[Value]) -> Table {
    let now = Clock::system().now();
    let mut table = Table::new(&[
        Column::Whole("ID"),
        Column::Number("AGE"),
        Column::Cut("SOURCE"),
        Column::Whole("CODE"),
        Column::Wrap("WHAT WOULD HAVE MATCHED"),
    ]);
    for row in rows {
        table.row([
            &text(row, "id"),
            &age(row, "received_at", now),
            &text(row, "source"),
            &text(row, "code"),
            &text(row, "explanation"),
        ]);
    }
    table
}

fn write_rejection(out: &mut dyn Write, rejection: &Value) -> io::Result<()> {
    facts(
        out,
        &[
            ("rejection", text(rejection, "id")),
            ("received", text(rejection, "received_at")),
            ("source", text(rejection, "source")),
            ("answered", text(rejection, "code")),
            ("sent to", text(rejection, "target")),
            ("body", format!("{} bytes", text(rejection, "body_bytes"))),
        ],
    )?;
    match text(rejection, "explanation") {
        why if why.is_empty() => writeln!(out, "\nNothing that is known would have made it good: it may be forged.")?,
        why => writeln!(out, "\nwhat would have matched:\n{}", one_line(&why, 2000))?,
    }
    writeln!(out, "\nheaders (credentials as a hash):")?;
    for header in rejection["headers"].as_array().into_iter().flatten() {
        let part = |index: usize| one_line(header[index].as_str().unwrap_or_default(), output::MOST);
        writeln!(out, "{}: {}", part(0), part(1))?;
    }
    writeln!(out, "\nbody:\n{}", one_line(&text(rejection, "body"), 4000))
}
