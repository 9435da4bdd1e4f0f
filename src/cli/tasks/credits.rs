//! `taskhook tasks credits`: what tasks cost and used, by day and source.

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::output::{self, Column, Table, text};
use crate::cli::{Context, Result, runtime};

/// What is told of usage, and the titles of its columns.
const USED: [(&str, &str); 4] =
    [("input_tokens", "TOKENS IN"), ("output_tokens", "TOKENS OUT"), ("compute_seconds", "SECONDS"), ("cost_usd", "US DOLLARS")];

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
        return Ok(writeln!(context.err, "Nothing was spent in the last {} day(s), as far as is known.", args.days)?);
    }
    Ok(table(rows).fit(context.out, context.width)?)
}

fn table(rows: &[Value]) -> Table {
    let mut columns = vec![Column::Whole("DAY"), Column::Cut("SOURCE"), Column::Number("CREDITS"), Column::Number("BUDGET")];
    // Most providers tell nothing of it.
    let used: Vec<_> = USED.iter().filter(|(name, _)| rows.iter().any(|row| row["usage"][name].as_f64() != Some(0.0))).collect();
    columns.extend(used.iter().map(|(_, title)| Column::Number(title)));
    let mut table = Table::new(&columns);
    for row in rows {
        let cost = ["day", "source", "credits", "budget"].map(|name| text(row, name));
        table.cells(cost.into_iter().chain(used.iter().map(|(name, _)| text(&row["usage"], name))));
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(credits: u32, dollars: f64) -> Value {
        let usage = json!({"input_tokens": 0, "output_tokens": 0, "compute_seconds": 0, "cost_usd": dollars});
        json!({"day": "2026-01-15", "source": "wr", "credits": credits, "budget": null, "usage": usage})
    }

    fn shown(rows: &[Value]) -> String {
        let mut out = Vec::new();
        table(rows).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_no_provider_tells_has_no_column() {
        insta::assert_snapshot!(shown(&[told(5, 0.0)]), @"
        DAY         SOURCE  CREDITS  BUDGET
        2026-01-15  wr            5
        ");
        insta::assert_snapshot!(shown(&[told(5, 0.0), told(0, 0.0124)]), @"
        DAY         SOURCE  CREDITS  BUDGET  US DOLLARS
        2026-01-15  wr            5                   0
        2026-01-15  wr            0              0.0124
        ");
    }
}
