//! `taskhook tasks credits`: what tasks cost, by day and source.

use crate::cli::client::Client;
use crate::cli::output::{self, Column, Table, text};
use crate::cli::{Context, Result, runtime};

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only tasks of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// How many days, today included, in `server.time_zone`
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=366))]
    days: u16,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, client: &Client, context: &mut Context<'_>) -> Result {
    let mut query = vec![("days", args.days.to_string())];
    query.extend(args.source.clone().map(|source| ("source", source)));
    let answer = runtime()?.block_on(client.ask(&["credits"], &query))?;
    if args.json {
        return Ok(output::json(context.out, &answer)?);
    }
    let rows = answer["data"].as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return Ok(writeln!(context.err, "No credits were spent in the last {} day(s), as far as is known.", args.days)?);
    }
    let mut table =
        Table::new(&[Column::Whole("DAY"), Column::Cut("SOURCE"), Column::Number("CREDITS"), Column::Number("BUDGET")]);
    for row in rows {
        table.row([&text(row, "day"), &text(row, "source"), &text(row, "credits"), &text(row, "budget")]);
    }
    Ok(table.write(context.out)?)
}
