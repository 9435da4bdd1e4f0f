//! `taskhook tasks`: the provider's jobs, as last fetched, and new ones.

mod answer;
mod create;
mod credits;
mod show;

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::client::{Client, Connection, Fault, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, text};
use super::{Context, Error, Result, again, runtime};
use crate::clock::Clock;
use crate::text::one_line;

/// How long a task may take to be created or answered, when the call waits for its place in the budget of the account; or to be erased.
const LONG_TIMEOUT: Duration = Duration::from_mins(2);

/// See tasks, create them, answer them, stop them, erase them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List tasks, the newest first
    List {
        /// Only tasks of this source
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        #[command(flatten)]
        which: Which,
        /// Only tasks with this text, in large letters or small, in their title or id, or in an id of an event of theirs
        ///
        /// The newest 10,000 tasks and the newest 10,000 events are looked through.
        #[arg(long)]
        text: Option<String>,
        #[command(flatten)]
        times: again::Times,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one task: its state, what it answered, its files, and its timeline
    Show {
        /// Its source, if there are several, and its id
        #[arg(value_names = ["SOURCE", "TASK_ID"], num_args = 1..=2, required = true)]
        task: Vec<String>,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// What tasks cost, by day and source
    Credits(credits::Args),
    /// Tell of a task that was made elsewhere: it counts as yours, and is listed before its first event
    ///
    /// For a job whose id only the call that made it told, as with Magic Hour, whose API has no list: with the source's `api_key` it is asked
    /// for until it ends. A task of WebRun is asked for, with `fetch = "on"`, if its id is written as `SESSION_ID/TASK_ID`.
    Track {
        /// Its source
        source: String,
        /// Its kind: `video`, `image` or `audio` for Magic Hour, else `task`
        kind: String,
        /// The provider's id; of WebRun's tasks `SESSION_ID/TASK_ID`
        id: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// Erase all that is kept of a task: events, deliveries, files. Without `--yes` it only counts
    ///
    /// What stays: that its events were known, so that one sent again is not kept again, and the digest of its id. What was handed on is
    /// not called back, the task itself is not touched at its provider, and backups made before still hold it.
    Erase {
        /// Its source, if there are several, and its id
        #[arg(value_names = ["SOURCE", "TASK_ID"], num_args = 1..=2, required = true)]
        task: Vec<String>,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    Create(create::Args),
    Reply(answer::Reply),
    Confirm(answer::Confirm),
    Stop(answer::Stop),
}

/// Which tasks are listed.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Which {
    /// Only those that wait for an answer, with what they ask
    #[arg(long)]
    waiting: bool,
    /// Only those that may still be at work, or wait
    #[arg(long)]
    open: bool,
    /// Only those that failed
    #[arg(long)]
    failed: bool,
}

impl Which {
    /// The word of the admin API, and what is said of nothing.
    fn state(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self { waiting: true, .. } => Some(("waiting", "No task waits for an answer.")),
            Self { open: true, .. } => Some(("open", "No task is at work.")),
            Self { failed: true, .. } => Some(("failed", "No task failed.")),
            _ => None,
        }
    }
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let short = matches!(args.command, Command::List { .. } | Command::Show { .. } | Command::Track { .. });
    let client = Client::new(context, &args.connection, if short { TIMEOUT } else { LONG_TIMEOUT })?;
    let runtime = runtime()?;
    match &args.command {
        Command::List { source, which, text, times, listing } => {
            let state = which.state();
            let mut narrower = again::set(&[("text", text.as_deref())]);
            narrower.extend(times.members()?);
            let is_narrow = !narrower.is_empty();
            let mut filter = again::set(&[("source", source.as_deref()), ("state", state.map(|(state, _)| state))]);
            filter.extend(narrower);
            let list = runtime.block_on(listing.ask(&client, "tasks", &filter))?;
            let empty = match (state, source) {
                _ if is_narrow => "No task is like that.",
                (Some((_, nothing)), _) => nothing,
                (None, Some(_)) => "No task of this source is known.",
                (None, None) => "No task is known yet. `taskhook tasks create \"…\"` makes one.",
            };
            listing.show(context, &list, empty, if which.waiting { waiting } else { table })?;
            hint_at_quarantine(&runtime, &client, listing, context)
        }
        Command::Show { task, json } => {
            let (source, id) = named(task);
            let shown =
                runtime.block_on(client.get(&["tasks", source, id], &[])).map_err(|fault| no_task(&client, id, &fault))?;
            if *json {
                return Ok(output::json(context.out, &shown)?);
            }
            Ok(show::write(context.out, context.width, &shown)?)
        }
        Command::Credits(args) => credits::run(args, &client, context),
        Command::Track { source, kind, id, json } => {
            let body = json!({"source": source, "kind": kind, "task_id": id});
            let tracked =
                runtime.block_on(client.post(&["tasks", "track"], Some(&body))).map_err(|fault| client.explain(&fault))?;
            if *json {
                return Ok(output::json(context.out, &tracked)?);
            }
            let id = text(&tracked, "task_id");
            Ok(writeln!(context.err, "The task `{}` of `{}` is expected.", one_line(&id, 80), one_line(source, 40))?)
        }
        Command::Erase { task, yes, json } => {
            let (source, id) = named(task);
            let body = json!({ "dry_run": !yes });
            let report = runtime
                .block_on(client.post(&["tasks", source, id, "erase"], Some(&body)))
                .map_err(|fault| no_task(&client, id, &fault))?;
            if *json {
                return Ok(output::json(context.out, &report)?);
            }
            Ok(write_erased(context.err, &report)?)
        }
        Command::Create(args) => create::run(args, &client, context),
        Command::Reply(args) => args.run(&client, context),
        Command::Confirm(args) => args.run(&client, context),
        Command::Stop(args) => args.run(&client, context),
    }
}

/// Says that events wait whose tasks nothing proves yours: they are no tasks of yours until you say so, and easily overlooked.
fn hint_at_quarantine(runtime: &Runtime, client: &Client, listing: &Listing, context: &mut Context<'_>) -> Result {
    if listing.is_json() {
        return Ok(());
    }
    // What was asked for is shown already.
    let stats = runtime.block_on(client.get(&["stats"], &[])).unwrap_or_default();
    match stats["quarantined"].as_i64() {
        Some(count) if count > 0 => Ok(writeln!(
            context.err,
            "{count} event(s) are in quarantine, since nothing proves their tasks yours: `taskhook events list --state quarantined`."
        )?),
        _ => Ok(()),
    }
}

/// The source, or what stands for the only one, and the id.
fn named(task: &[String]) -> (&str, &str) {
    match task {
        [source, id] => (source, id),
        [id, ..] => ("-", id),
        [] => ("-", ""),
    }
}

fn no_task(client: &Client, id: &str, fault: &Fault) -> Error {
    match fault {
        Fault::Refused { code, .. } if code == "not_found" => {
            Error::failed(format!("there is no task `{}`", one_line(id, 80))).hint("`taskhook tasks list` shows what there is")
        }
        fault => client.explain(fault),
    }
}

fn write_erased(out: &mut dyn Write, report: &Value) -> io::Result<()> {
    let count = |name: &str| text(report, name);
    let held = format!(
        "{} event(s), {} delivery(s), {} file(s), {} rejected request(s)",
        count("events"),
        count("deliveries"),
        count("files"),
        count("rejections")
    );
    let (id, source) = (one_line(&text(report, "task_id"), 80), one_line(&text(report, "source"), 40));
    if report["erased"] != true {
        writeln!(out, "Of the task `{id}` of `{source}` there are {held}.")?;
        return writeln!(out, "Nothing was erased. It cannot be undone: add `--yes`.");
    }
    writeln!(out, "Erased the task `{id}` of `{source}`: {held}.")?;
    if report["cleared"] != true {
        writeln!(out, "Traces of it in free pages, the log or the archive go within minutes, once nobody reads them.")?;
    }
    writeln!(out, "What was handed on, and backups made before, still hold it.")
}

fn table(rows: &[Value]) -> Table {
    let now = Clock::system().now();
    let mut table = Table::new(&[
        Column::Whole("TASK"),
        Column::Number("AGE"),
        Column::Cut("SOURCE"),
        Column::Whole("STATE"),
        Column::Number("CREDITS"),
        Column::Cut("TITLE"),
    ]);
    for row in rows {
        let id = one_line(&text(row, "task_id"), 40);
        let state = match text(row, "state") {
            // Told of, and not heard of since.
            state if state.is_empty() && row["proof"] == "tracked" => "expected".to_owned(),
            state if state.is_empty() => "-".to_owned(),
            state => state,
        };
        let age = age(row, "first_seen_at", now);
        table.row([&id, &age, &text(row, "source"), &state, &text(row, "credits"), &text(row, "title")]);
    }
    table
}

/// Those that wait, with what they ask.
fn waiting(rows: &[Value]) -> Table {
    let now = Clock::system().now();
    let mut table = Table::new(&[
        Column::Whole("TASK"),
        Column::Number("AGE"),
        Column::Cut("SOURCE"),
        Column::Cut("TITLE"),
        Column::Wrap("ASKS"),
    ]);
    for row in rows {
        let id = one_line(&text(row, "task_id"), 40);
        table.row([&id, &age(row, "fetched_at", now), &text(row, "source"), &text(row, "title"), &text(row, "question")]);
    }
    table
}
