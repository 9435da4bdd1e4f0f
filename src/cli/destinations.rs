//! `taskhook destinations`: where results go, whether that works, and pausing it.

use serde_json::Value;

use super::client::{Client, Connection, TIMEOUT};
use super::output::{self, Column, Table, rows, text};
use super::{Context, Result, runtime};
use crate::text::one_line;

/// See where results go, and pause or resume it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List destinations: which work, which are paused, what waits for them
    List {
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// Send nothing more to a destination until it is resumed; its deliveries wait and spend no attempts
    Pause {
        /// Its name
        destination: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// Send to a paused destination again: what waits goes at once, at the destination's own pace
    Resume {
        /// Its name
        destination: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let client = Client::new(context, &args.connection, TIMEOUT)?;
    let (answer, json) = runtime()?.block_on(async {
        Ok::<_, super::Failure>(match &args.command {
            Command::List { json } => (client.ask(&["destinations"], &[]).await?, *json),
            Command::Pause { destination, json } => (act(&client, destination, "pause").await?, *json),
            Command::Resume { destination, json } => (act(&client, destination, "resume").await?, *json),
        })
    })?;
    if json {
        return Ok(output::json(context.out, &answer)?);
    }
    let name = one_line(&text(&answer, "name"), 40);
    match &args.command {
        Command::List { .. } => table(rows(&answer)).fit(context.out, context.width)?,
        Command::Pause { .. } => {
            let since = one_line(&text(&answer, "paused_at"), 40);
            writeln!(context.err, "`{name}` is paused since {since}. Events are accepted as before; its deliveries wait.")?;
        }
        Command::Resume { .. } if answer["was_paused"] == false => writeln!(context.err, "`{name}` was not paused.")?,
        Command::Resume { .. } => writeln!(context.err, "`{name}` is sent to again.")?,
    }
    Ok(())
}

async fn act(client: &Client, destination: &str, verb: &str) -> Result<Value> {
    let answer = client.post(&["destinations", destination, verb], None).await;
    Ok(answer.map_err(|fault| client.explain(&fault))?)
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(&[
        Column::Cut("DESTINATION"),
        Column::Whole("KIND"),
        Column::Whole("STATE"),
        Column::Number("PENDING"),
        Column::Number("DEAD"),
        Column::Wrap("WHY"),
    ]);
    for row in rows {
        let (kind, paused_at) = (text(row, "kind"), text(row, "paused_at"));
        let why = match (kind.is_empty(), paused_at.is_empty()) {
            (true, _) => "not in the configuration any more".to_owned(),
            (_, false) => format!("since {paused_at}"),
            _ => text(row, "reason"),
        };
        table.row([&text(row, "name"), &kind, &text(row, "state"), &text(row, "pending"), &text(row, "dead"), &why]);
    }
    table
}
