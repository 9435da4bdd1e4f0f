//! `taskhook store`: the store as a whole. It speaks to no running taskhook; it opens the store itself, as `store.url` names it.

mod copy;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Context, Error, Exit, Result, again, output, runtime};
use crate::archive::Archive;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::guard::{self, Guard, Names};
use crate::store::care::{self, Finding, Progress};
use crate::store::{self, Store};

/// Digests that are read at once to be looked for in the archive.
const PAGE: usize = 500;

/// Back the store up, restore it, copy it into a PostgreSQL, check and measure it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Copy the store into a file, as it is at one moment, while taskhook runs
    ///
    /// The files of tasks are not in it: back the archive up by itself, after the store. A PostgreSQL is backed up with its own tools.
    Backup {
        /// The file to make
        file: PathBuf,
        /// Take the place of a file that is there
        #[arg(long)]
        overwrite: bool,
        /// Print what was done as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a backup in the place of the store, while no taskhook runs
    ///
    /// The present store is put aside under another name. Whatever the backup does not show as done may have been handed on since: it gets an
    /// attempt of unknown outcome, and `on_unknown` of its destination says whether it is sent again. Stops of tasks that no webhook told are
    /// looked for from now on: those since the backup may have been handed on.
    Restore {
        /// The backup
        file: PathBuf,
        /// Also look for stops since this time: an RFC 3339 time, or how long ago (`2h`)
        #[arg(long, value_name = "TIME")]
        redeliver_since: Option<String>,
        /// Print what was done as JSON
        #[arg(long)]
        json: bool,
    },
    Copy(copy::Args),
    /// Look for what is wrong with the store, while taskhook runs or not; exit code 1 if something is
    Check {
        /// Do not compare every index with its table; of a PostgreSQL, only rows are looked at
        #[arg(long)]
        quick: bool,
        /// Also look whether every saved file is in the archive
        #[arg(long)]
        files: bool,
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure the store: its size, what is in it, what retention has removed
    Stats {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let config = Config::load_store(&context.inputs)?;
    let bar = bar(context.terminal);
    let mut tell = |progress: Progress| show(&bar, progress);
    let now = Clock::system().now();
    match &args.command {
        Command::Backup { file, overwrite, json } => {
            let made = care::backup(&config, file, *overwrite, now, &mut tell);
            bar.finish_and_clear();
            let made = made.map_err(refused)?;
            if *json {
                return Ok(output::json(context.out, &show::value(&made))?);
            }
            let (events, bytes) = (made.events, show::bytes(made.bytes));
            writeln!(context.err, "Backed up {events} event(s), {bytes}, as of {}, into {}.", made.at, made.file.display())?;
            Ok(writeln!(context.err, "The files of tasks are not in it: the archive (`archive.url`) has them.")?)
        }
        Command::Restore { file, redeliver_since, json } => {
            let since = match redeliver_since {
                Some(written) => again::time("redeliver-since", written, now)?,
                None => now,
            };
            let mut work = || {
                let mut restore = care::restore(&config, file, now, &mut tell)?.redelivering_since(since);
                while restore.step(&mut tell)? {}
                Ok(restore.done().clone())
            };
            let done = work();
            bar.finish_and_clear();
            let done = done.map_err(refused)?;
            if *json { Ok(output::json(context.out, &show::value(&done))?) } else { Ok(show::restored(context.err, &done)?) }
        }
        Command::Copy(args) => {
            let copied = copy::copy(args, &config, now, &mut tell);
            bar.finish_and_clear();
            copy::told(args, context, &copied?)
        }
        Command::Check { quick, files, json } => {
            let mut look = || -> Result<Vec<Finding>> {
                let mut findings = care::check(&config, *quick, &mut tell).map_err(refused)?;
                if *files {
                    findings.extend(missing_files(context, &config, &mut tell)?);
                }
                Ok(findings)
            };
            let findings = look();
            bar.finish_and_clear();
            let findings = findings?;
            if *json {
                output::json(context.out, &serde_json::json!({ "findings": findings }))?;
            } else {
                show::findings(context.out, &findings)?;
            }
            if !findings.is_empty() {
                let error = Error::failed(format!("the store is not as it must be: {} finding(s)", findings.len()));
                return Err(error.hint("if the file is damaged, restore a backup; else report this").into());
            }
            Ok(writeln!(context.err, "Nothing is wrong with the store.")?)
        }
        Command::Stats { json } => {
            let stats = care::stats(&config, &mut tell);
            bar.finish_and_clear();
            let stats = stats.map_err(refused)?;
            if *json { Ok(output::json(context.out, &show::value(&stats))?) } else { Ok(show::stats(context.out, &stats)?) }
        }
    }
}

/// The contents that rows name and the archive does not have, or has in another size.
fn missing_files(context: &Context<'_>, config: &store::Config, tell: care::Tell<'_>) -> Result<Vec<Finding>> {
    let archive = Config::load_archive(&context.inputs)?;
    if archive.is_off() {
        return Err(Error::failed("there is no archive (`archive.url` is \"off\")").with_exit(Exit::Usage).into());
    }
    let instance = Store::peek_instance_id(config).map_err(refused)?;
    let guard = Guard::new(guard::Config { allow_private_addresses: false }, Names::System);
    let archive = Archive::new(&archive, &instance, guard, None, Clock::system());
    let (mut missing, mut after, mut looked) = (Vec::new(), String::new(), 0);
    let runtime = runtime()?;
    loop {
        let page = care::archived(config, &after, PAGE).map_err(refused)?;
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        for (sha256, size) in &page {
            tell(Progress { what: "looking for files", done: looked, total: 0 });
            looked += 1;
            match runtime.block_on(archive.size(sha256)) {
                Ok(found) if size.is_none_or(|size| size == found) => {}
                Ok(found) => missing.push(format!("{sha256} ({found} bytes)")),
                Err(crate::archive::Error::Missing) => missing.push(sha256.clone()),
                Err(error) => return Err(Error::failed(error.to_string()).into()),
            }
        }
    }
    let count = i64::try_from(missing.len()).unwrap_or(i64::MAX);
    missing.truncate(5);
    let problem = format!("a saved file is not in the archive {}, or not whole", archive.place());
    Ok(if count == 0 { Vec::new() } else { vec![Finding { problem, count, examples: missing }] })
}

/// An error of the store as a command's.
fn refused(error: store::Error) -> Error {
    use store::Error::{Locked, Open, Server, Url};
    let exit =
        if matches!(error, Open { .. } | Server { .. } | Url { .. } | Locked(_)) { Exit::StoreRefused } else { Exit::Failed };
    Error::from(error).with_exit(exit)
}

/// What shows how far the work has come, on a terminal.
fn bar(terminal: bool) -> ProgressBar {
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if terminal {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    let template = match progress.what {
        "copying" => "{spinner} {msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left",
        _ if progress.total > 0 => "{spinner} {msg} [{bar:30}] {pos} of {len}",
        _ => "{spinner} {msg}, {elapsed}",
    };
    if bar.message() != progress.what {
        // The templates are constants.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(progress.what);
        bar.reset_elapsed();
    }
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}
