//! `taskhook bench kill`: a `serve` under load is killed, again and again, and then asked for everything that it acknowledged.
//!
//! What must hold: the verdict is of every id that was answered 200, none left out; it is asked of the destination, which is in
//! this process and was never killed, and of the admin API, so that it holds for any store.

mod sender;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::sender::{Acknowledged, Sender, Work};
use self::verdict::{Files, Ledger, Verdict};
use super::super::output::{Column, Table};
use super::super::{Context, Error, Exit, Result};
use super::process::{Home, Process};
use super::progress::Counter;
use super::recorder::Recorder;
use super::report::Report;
use super::target::{API_KEY, PROVIDER_NOTE, listen};
use super::{BENCH, Common, Stage, play};
use crate::clock::Clock;
use crate::simulator::manus::{Manus, Options, Plan};

/// Deliveries at once, and so the most attempts that one kill can leave without an outcome.
const CONCURRENCY: u32 = 8;
/// Tasks that the events are about; each has a file of its own.
const TASKS: usize = 200;
/// How long a process lives once it is ready, in milliseconds.
const LIFE: std::ops::Range<u64> = 20..200;
/// One kill in so many comes while the process starts, within so many milliseconds.
const EARLY: (u32, u64) = (10, 60);
/// How long the work that is left may stand still before it is given up on.
const STANDSTILL: Duration = Duration::from_mins(1);
/// How long it may take until what a kill left in the archive is removed.
const SWEEPING: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Kill a `serve` under load, again and again, and look for everything that it acknowledged
///
/// Each cycle starts `taskhook serve`, sends it events of simulated tasks, and kills it with SIGKILL at a random moment. At the end the store and the destination are asked for every event that was answered 200.
/// It exits with 1 if one is lost, if one was delivered twice without a recorded attempt of unknown outcome, or if there are more of these than can have been on their way.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How often it is killed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    cycles: u32,
    /// Stop it with SIGTERM instead: then nothing may be delivered twice, and no outcome be unknown
    #[arg(long)]
    stop: bool,
    /// Where the moments are drawn from; a run tells its own [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Events that are sent at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    senders: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let usage = |what: String, hint: &str| Error::failed(format!("`--store`: {what}")).with_exit(Exit::Usage).hint(hint);
    let store = match args.common.store.as_str() {
        "sqlite" => None,
        url => match url.strip_prefix("sqlite://").map(|path| context.inputs.directory.join(path)) {
            Some(path) if path.exists() => {
                let hint = "name a file that is not there: a bench fills it with events";
                return Err(usage(format!("{} is there already", path.display()), hint).into());
            }
            // The program runs in another folder.
            Some(path) => Some(format!("sqlite://{}", path.display())),
            None if url.contains("://") => Some(url.to_owned()),
            None => return Err(usage("it is no URL".to_owned(), "write `sqlite`, or what `store.url` would be").into()),
        },
    };
    play("kill", &args.common, context, async |stage| Box::pin(measure(args, store, stage)).await)
}

async fn measure(args: &Args, store: Option<String>, stage: &mut Stage<'_>) -> Result {
    let store = store.unwrap_or_else(|| format!("sqlite://{}", stage.folder.join("taskhook.db").display()));
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    stage.report.setting("cycles", args.cycles);
    stage.report.setting("signal", if args.stop { "SIGTERM" } else { "SIGKILL" });
    stage.report.setting("seed", seed);
    stage.report.setting("senders", args.senders);
    stage.report.note(PROVIDER_NOTE);
    let begun = stage.clock.elapsed();
    let trial = Trial::prepare(&store, stage, seed).await?;
    let (ended, asked) = (Counter::default(), Counter::default());
    let what = if args.stop { "stopping" } else { "killing" };
    let acknowledged = stage.progress.during(what, args.cycles.into(), &ended, trial.cycles(args, &ended)).await?;
    let (what, count) = ("looking for every event", acknowledged.len());
    let verdict = stage.progress.during(what, count, &asked, trial.judge(args, acknowledged, &asked)).await?;
    tell(&mut stage.report, args, &verdict, stage.clock.elapsed().saturating_sub(begun));
    Ok(())
}

/// All that takes part.
struct Trial {
    home: Home,
    work: Arc<Work>,
    ledger: Ledger,
    /// Where files of tasks are saved.
    archive: PathBuf,
    random: std::sync::Mutex<fastrand::Rng>,
    clock: Clock,
    stop: CancellationToken,
    _destination: Recorder,
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the file of a task holds: enough to be cut off in the midst of it.
fn content(task: usize) -> String {
    format!("the result of task {task}\n").repeat(4_000)
}

impl Trial {
    async fn prepare(store: &str, stage: &Stage<'_>, seed: u64) -> Result<Self> {
        let (folder, clock) = (stage.folder.clone(), stage.clock.clone());
        let stop = CancellationToken::new();
        let accounts = vec![API_KEY.to_owned()];
        let options = Options { accounts, limits: None, seed: Some(seed), ..Options::new(clock.clone()) };
        let manus = Manus::start(listen().await?, options, stop.clone());
        let plan = |task| Plan::finish("done").with_file("result.txt", "text/plain", content(task));
        let tasks: Vec<String> = (0..TASKS).map(|task| manus.create_task(API_KEY, plan(task))).collect();
        manus.finish_all().await;
        let ledger = Ledger::default();
        let recording = ledger.clone();
        let destination = Recorder::hearing(&clock, move |envelope, _| recording.record(envelope)).await?;
        let archive = folder.join("files");
        let sections = format!(
            "[sources.{BENCH}]\nprovider = \"manus\"\napi_key = \"{API_KEY}\"\nbase_url = \"{}\"\n\
             requests_per_minute = 6000000\n{}[[routes]]\nto = \"{BENCH}\"\n",
            manus.base_url(),
            destination.section_of(BENCH, &format!("concurrency = {CONCURRENCY}")),
        );
        let home = Home::with(&folder, store, &format!("file://{}", archive.display()), &sections)?;
        let work = Work { to: home.public, tasks, manus: manus.clone(), clock: clock.clone() };
        let random = std::sync::Mutex::new(fastrand::Rng::with_seed(seed));
        Ok(Self { home, work: Arc::new(work), ledger, archive, random, clock, stop, _destination: destination })
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Starts and ends the program, again and again, under load; what was acknowledged.
    async fn cycles(&self, args: &Args, done: &Counter) -> Result<Acknowledged> {
        let mut senders: Vec<Sender> =
            (0..args.senders).map(|number| Sender::new(number, args.senders, Arc::clone(&self.work))).collect();
        for cycle in 0..args.cycles {
            let mut process = self.home.spawn()?;
            if !args.stop && cycle > 0 && self.draw(|random| random.u32(..EARLY.0) == 0) {
                self.clock.sleep(Duration::from_millis(self.draw(|random| random.u64(..EARLY.1)))).await;
                self.home.kill(process).await?;
                done.add(1);
                continue;
            }
            self.home.ready(&mut process, &self.clock).await?;
            if cycle == 0 {
                self.is_new().await?;
            }
            let (mut sending, down) = (JoinSet::new(), CancellationToken::new());
            for sender in senders.drain(..) {
                sending.spawn(sender.run(down.clone()));
            }
            self.clock.sleep(Duration::from_millis(self.draw(|random| random.u64(LIFE)))).await;
            let ended = self.end(args, process).await;
            down.cancel();
            while let Some(sender) = sending.join_next().await {
                senders.push(sender.map_err(|error| Error::failed(format!("a sender failed: {error}")))??);
            }
            ended?;
            // The order in which they ended must not decide what is sent.
            senders.sort_by_key(Sender::number);
            done.add(1);
        }
        Ok(senders.into_iter().fold(Acknowledged::default(), |all, sender| all.and(sender.acknowledged)))
    }

    /// Ends a process as the bench is to; one that stops must end well.
    async fn end(&self, args: &Args, process: Process) -> Result {
        if args.stop { self.home.stop(process).await } else { self.home.kill(process).await }
    }

    /// A store with events in it is somebody's: a bench must not fill it.
    async fn is_new(&self) -> Result {
        let events = self.home.json("/api/v1/events?limit=1").await?;
        if events["data"].as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let error = Error::failed("`--store` names a store that holds events already").with_exit(Exit::Usage);
        Err(error.hint("name a new one: a bench fills it with events").into())
    }

    /// Lets the program finish its work, and looks for everything.
    async fn judge(&self, args: &Args, acknowledged: Acknowledged, asked: &Counter) -> Result<Verdict> {
        let process = self.home.start(&self.clock).await?;
        let left = self.drained().await?;
        self.swept().await;
        let mut verdict = verdict::of(&self.home, acknowledged, &self.ledger, asked).await?;
        verdict.left = left;
        let content = |task: &str| self.work.tasks.iter().position(|known| known == task).map(content);
        verdict.files = Files::look(&self.archive, &self.ledger, content);
        verdict.limit = if args.stop { 0 } else { u64::from(args.cycles) * u64::from(CONCURRENCY) };
        verdict.once = args.stop;
        self.home.stop(process).await?;
        Ok(verdict)
    }

    /// Waits until the program has removed what a kill left on its way into the archive, which it does beside its work.
    async fn swept(&self) {
        let begun = self.clock.elapsed();
        while verdict::on_their_way(&self.archive) > 0 && self.clock.elapsed().saturating_sub(begun) < SWEEPING {
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no work is left, or none goes on any more; what is left.
    async fn drained(&self) -> Result<u64> {
        let (mut least, mut since) = (u64::MAX, self.clock.elapsed());
        loop {
            let stats = self.home.json("/api/v1/stats").await?;
            let jobs: u64 = stats["jobs"].as_array().into_iter().flatten().filter_map(|row| row["count"].as_u64()).sum();
            let left = jobs + stats["events"].as_u64().unwrap_or_default();
            if left == 0 || self.clock.elapsed().saturating_sub(since) > STANDSTILL {
                return Ok(left);
            }
            if left < least {
                (least, since) = (left, self.clock.elapsed());
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }
}

/// Says what came of it, and what did not hold.
fn tell(report: &mut Report, args: &Args, verdict: &Verdict, took: Duration) {
    let counts = [
        ("acknowledged", verdict.acknowledged),
        ("found in the store", verdict.found),
        ("done", verdict.done),
        ("lost", verdict.lost),
        ("delivered once", verdict.delivered_once),
        ("delivered more than once", verdict.delivered_more),
        ("of these, each after a recorded unknown attempt", verdict.after_unknown),
        ("of these, without one", verdict.without_unknown),
        ("unknown attempts", verdict.unknown_attempts),
        ("unknown attempts at most", verdict.limit),
        ("sent again after their answer, and known", verdict.repeats),
        ("answered only when sent again", verdict.resent),
        ("of these, kept already", verdict.kept_unanswered),
        ("results with a file that is saved whole", verdict.files.whole),
    ];
    let mut table = Table::new(&[Column::Whole("EVENTS"), Column::Number("COUNT")]);
    for (name, count) in counts {
        table.row([name, &count.to_string()]);
    }
    report.table(table);
    report.facts(vec![("took", format!("{:.1} s", took.as_secs_f64()))]);
    report.result(json!({
        "cycles": args.cycles,
        "acknowledged": verdict.acknowledged,
        "found": verdict.found,
        "done": verdict.done,
        "lost": verdict.lost,
        "delivered_once": verdict.delivered_once,
        "delivered_more": verdict.delivered_more,
        "after_unknown": verdict.after_unknown,
        "without_unknown": verdict.without_unknown,
        "unknown_attempts": verdict.unknown_attempts,
        "unknown_limit": verdict.limit,
        "repeats_known": verdict.repeats,
        "resent": verdict.resent,
        "kept_unanswered": verdict.kept_unanswered,
        "files_whole": verdict.files.whole,
        "seconds": took.as_secs_f64(),
    }));
    verdict.failures().into_iter().for_each(|failure| report.fail(failure));
}
