//! `taskhook tasks`: the provider's jobs, as last fetched, and new ones.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, Connection, Fault, Listing, TIMEOUT};
use super::output::{self, Column, Table, age, facts, text};
use super::{Context, Error, Result, runtime};
use crate::clock::Clock;
use crate::text::one_line;

/// How long a task may take to be created, when the call waits for its place in the budget of the account; or to be erased.
const CREATE_TIMEOUT: Duration = Duration::from_mins(2);

/// See tasks, create them, erase them
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
        listing: Listing,
    },
    /// Show one task: its state, what it answered, its files
    Show {
        /// Its source, if there are several, and its id
        #[arg(value_names = ["SOURCE", "TASK_ID"], num_args = 1..=2, required = true)]
        task: Vec<String>,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
    /// Tell of a task that was made elsewhere: it counts as yours, and is listed before its first event
    ///
    /// For a job whose id only the call that made it told, as with Magic Hour, whose API has no list.
    Track {
        /// Its source
        source: String,
        /// Its kind: `video`, `image` or `audio` for Magic Hour, else `task`
        kind: String,
        /// The provider's id
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
    /// Create a task; prints its id and its address. It costs what the provider charges, and is tried once
    Create {
        /// The source whose account pays, if there are several
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// The provider's agent profile, such as `manus-1.6-lite`
        #[arg(long)]
        profile: Option<String>,
        /// What is to be done
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        prompt: String,
        /// Print the JSON of the admin API
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let long = matches!(args.command, Command::Create { .. } | Command::Erase { .. });
    let client = Client::new(context, &args.connection, if long { CREATE_TIMEOUT } else { TIMEOUT })?;
    let runtime = runtime()?;
    match &args.command {
        Command::List { source, listing } => {
            let list = runtime.block_on(listing.ask(&client, "tasks", &[("source", source.as_deref())]))?;
            let empty = match source {
                Some(_) => "No task of this source is known.",
                None => "No task is known yet. `taskhook tasks create \"…\"` makes one.",
            };
            listing.show(context, &list, empty, table)
        }
        Command::Show { task, json } => {
            let (source, id) = named(task);
            let shown =
                runtime.block_on(client.get(&["tasks", source, id], &[])).map_err(|fault| no_task(&client, id, &fault))?;
            if *json {
                return Ok(output::json(context.out, &shown)?);
            }
            Ok(write_task(context.out, &shown)?)
        }
        Command::Track { source, kind, id, json } => {
            let body = json!({"source": source, "kind": kind, "task_id": id});
            let tracked =
                runtime.block_on(client.post(&["tasks", "track"], Some(&body))).map_err(|fault| client.explain(&fault))?;
            if *json {
                return Ok(output::json(context.out, &tracked)?);
            }
            Ok(writeln!(context.err, "The task `{}` of `{}` is expected.", one_line(id, 80), one_line(source, 40))?)
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
        Command::Create { source, profile, prompt, json } => {
            let body = json!({"source": source, "profile": profile, "prompt": prompt});
            let created = runtime.block_on(client.post(&["tasks"], Some(&body))).map_err(|fault| not_created(&client, &fault))?;
            if *json {
                return Ok(output::json(context.out, &created)?);
            }
            writeln!(context.out, "{}", one_line(&text(&created, "task_id"), output::MOST))?;
            match text(&created, "url") {
                url if url.is_empty() => Ok(()),
                url => Ok(writeln!(context.out, "{}", one_line(&url, output::MOST))?),
            }
        }
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

/// Why there is no task, or nobody knows.
fn not_created(client: &Client, fault: &Fault) -> Error {
    let told = client.explain(fault);
    match fault {
        Fault::Lost(_) => {
            Error::failed(format!("{}; the task may have been created all the same, and this was not tried again", told.message))
                .hint("look at `taskhook tasks list` and at the provider before you ask again: a second task costs again")
        }
        _ => told,
    }
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

/// The most characters of what a task answered that are shown.
const ANSWER: usize = 4000;

fn write_task(out: &mut dyn Write, shown: &Value) -> io::Result<()> {
    let task = &shown["task"];
    let proof = match text(shown, "proof") {
        proof if proof.is_empty() => "nothing yet: its events wait".to_owned(),
        proof => format!("{proof}, at {}", text(shown, "proven_at")),
    };
    facts(
        out,
        &[
            ("task", text(shown, "task_id")),
            ("source", text(shown, "source")),
            ("kind", text(shown, "kind")),
            ("title", text(shown, "title")),
            ("url", text(shown, "url")),
            ("state", text(shown, "state")),
            ("stop reason", text(shown, "stop_reason")),
            ("credits", text(shown, "credits")),
            ("model", text(task, "model")),
            ("proven by", proof),
            ("first seen", text(shown, "first_seen_at")),
            ("fetched", text(shown, "fetched_at")),
            ("deleted", text(shown, "deleted_at")),
            ("error", text(task, "error")),
            ("question", text(&task["question"], "text")),
        ],
    )?;
    let mut messages = task["messages"].as_array().into_iter().flatten();
    if let Some(answer) = messages.rfind(|message| message["role"] == "assistant") {
        writeln!(out, "\nlast answer:\n{}", one_line(&text(answer, "text"), ANSWER))?;
    }
    // The archive knows more of them, where there is one.
    let listed = |name: &str| shown[name].as_array().map_or(&[][..], Vec::as_slice);
    let files = if listed("archive").is_empty() { listed("files") } else { listed("archive") };
    if !files.is_empty() {
        let mut table =
            Table::new(&[Column::Cut("FILE"), Column::Number("BYTES"), Column::Whole("STATUS"), Column::Cut("REASON")]);
        for file in files {
            table.row([&text(file, "name"), &text(file, "size_bytes"), &text(file, "status"), &text(file, "reason")]);
        }
        writeln!(out)?;
        table.write(out)?;
    }
    let events = shown["events"].as_array().map_or(&[][..], Vec::as_slice);
    if !events.is_empty() {
        writeln!(out)?;
        super::events::table(events).write(out)?;
    }
    Ok(())
}
