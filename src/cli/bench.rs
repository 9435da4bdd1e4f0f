//! `taskhook bench`: what this machine can do, and that nothing is lost on it, measured by whoever wants to know.
//!
//! What must hold: a bench speaks to loopback only, and reads no configuration and no environment. What it keeps lies in a
//! temporary folder on the disk that is measured, and in schemas of its own where `--store` names a PostgreSQL; they are gone at the
//! end, also after an error or a signal. Every number is bounded.
//! The result says what was simulated and what was lifted; it is a failure (exit code 1) if something did not hold that must.

mod claim;
mod connection;
mod fill;
mod ground;
mod grow;
mod ingest;
mod keep;
mod kill;
mod latency;
mod load;
mod machine;
mod pace;
mod pages;
mod pipeline;
mod process;
mod progress;
mod rate;
mod recorder;
mod report;
mod scrape;
mod spike;
mod target;
mod viewers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use self::ground::{Ground, Place};
use self::machine::Machine;
use self::progress::Progress;
use self::report::Report;
use super::{Context, Error, Exit, Result, interrupted, runtime};
use crate::clock::Clock;

/// Measure this machine: how many events it keeps, how fast, and that none is lost
///
/// Each bench starts what it needs on loopback, measures, and leaves nothing behind. It reads no configuration and needs no account. The disk that is measured is the one that `--folder` is on.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Ingest(ingest::Args),
    Rate(rate::Args),
    Grow(grow::Args),
    Spike(spike::Args),
    Pipeline(pipeline::Args),
    Kill(kill::Args),
    Claim(claim::Args),
    Pages(pages::Args),
}

pub(super) fn run(args: Args, context: &mut Context<'_>) -> Result {
    match args.bench {
        Bench::Ingest(args) => ingest::run(&args, context),
        Bench::Rate(args) => rate::run(&args, context),
        Bench::Grow(args) => grow::run(&args, context),
        Bench::Spike(args) => spike::run(&args, context),
        Bench::Pipeline(args) => pipeline::run(&args, context),
        Bench::Kill(args) => kill::run(&args, context),
        Bench::Claim(args) => claim::run(&args, context),
        Bench::Pages(args) => pages::run(&args, context),
    }
}

/// The name of the source and the destination of a bench whose store may be a user's: no work there is under this name.
const BENCH: &str = "bench";

/// What every bench takes.
#[derive(Debug, clap::Args)]
struct Common {
    /// Where the temporary folder is made, on the disk to be measured; by default in the working directory
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The store: `sqlite` for a file in that folder, or a `postgres://` URL, in whose database a schema is made for the time
    #[arg(long, value_name = "URL", default_value = "sqlite")]
    store: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a bench works with.
struct Stage<'a> {
    clock: Clock,
    /// A folder that is gone at the end.
    folder: PathBuf,
    /// Where its stores are.
    ground: Ground,
    progress: Progress<'a>,
    report: Report,
}

impl Stage<'_> {
    /// A fresh folder in the bench's own.
    fn subfolder(&self) -> Result<TempDir> {
        temporary(&self.folder, "round-")
    }

    /// The place of the one store of a bench that has no rounds.
    fn place(&self) -> Place {
        self.ground.place(&self.folder)
    }
}

/// Plays the bench `name` on a stage, and tells what came of it.
fn play(
    name: &'static str,
    common: &Common,
    context: &mut Context<'_>,
    bench: impl AsyncFnOnce(&mut Stage<'_>) -> Result,
) -> Result {
    let ground = Ground::of(&common.store, (name == "kill").then_some(&context.inputs.directory))?;
    let clock = Clock::system();
    let within = context.inputs.directory.join(common.folder.as_deref().unwrap_or(Path::new("")));
    let folder = temporary(&within, "taskhook-bench-")?;
    let path = folder.path().to_owned();
    let progress = Progress::new(context.err, context.terminal);
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            // First, so that a signal is heard before anything lasts.
            biased;
            () = interrupted() => Err(Error::failed("it was stopped before its end").into()),
            ended = staged(name, path, ground.clone(), clock, progress, bench) => ended,
        }
    });
    // What still runs was told to stop, or is dropped now.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let (gone, left) = (remove(folder), ground.clear());
    if let (Err(_), Some(left)) = (&ended, &left) {
        writeln!(context.err, "warning: {left}")?;
    }
    ended?.write(context.out, common.json)?;
    gone?;
    left.map_or(Ok(()), |left| Err(Error::failed(left).into()))
}

/// Looks at the machine, and has `bench` make its report.
async fn staged(
    name: &'static str,
    folder: PathBuf,
    ground: Ground,
    clock: Clock,
    mut progress: Progress<'_>,
    bench: impl AsyncFnOnce(&mut Stage<'_>) -> Result,
) -> Result<Report> {
    let (disk, timing) = (folder.clone(), clock.clone());
    let looking = tokio::task::spawn_blocking(move || Machine::look(&disk, &timing));
    let machine = looking.await.map_err(|error| Error::failed(format!("cannot look at the machine: {error}")))??;
    for warning in machine.warnings() {
        progress.say(&format!("warning: {warning}"))?;
    }
    let mut report = Report::new(name, machine);
    report.setting("store", ground.name());
    if let Ground::Server(server) = &ground {
        let (about, warning) = server.about().await?;
        report.setting("postgres", about);
        report.note("The disk above is that of the folder; the database has its own.");
        if let Some(warning) = warning {
            progress.say(&format!("warning: {warning}"))?;
            report.note(format!("Warning: {warning}."));
        }
    }
    let mut stage = Stage { clock, folder, ground, progress, report };
    bench(&mut stage).await?;
    Ok(stage.report)
}

/// Removes the folder with all that is in it. A process that was ended a moment ago may still have made a file.
fn remove(folder: TempDir) -> Result {
    let path = folder.keep();
    for _ in 0..10 {
        if std::fs::remove_dir_all(&path).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let removed = std::fs::remove_dir_all(&path);
    Ok(removed.map_err(|error| Error::failed(format!("cannot remove {}: {error}", path.display())))?)
}

/// A new folder in `within`.
fn temporary(within: &Path, prefix: &str) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(within);
    Ok(made.map_err(|error| {
        let failed = Error::failed(format!("cannot make a folder in {}: {error}", within.display()));
        failed.with_exit(Exit::Usage).hint("choose one that can be written with `--folder`")
    })?)
}

/// The parser of a length of time, such as `30s`.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    match text.parse::<jiff::SignedDuration>().map(Duration::try_from) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err("write it like `500ms`, `30s` or `2m`".into()),
    }
}
