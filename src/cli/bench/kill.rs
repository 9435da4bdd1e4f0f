//! `taskhook bench kill`: a `serve` under load is killed, again and again, and then asked for everything that it acknowledged.
//!
//! What must hold: the verdict is of every id that was answered 200, none left out; it is asked of the destination, which is in
//! this process and was never killed, and of the admin API, so that it holds for any store. On a PostgreSQL two replicas run, of which
//! a random one is killed each time: so what one of them has kept, or had in hand, the other is asked for.

mod fleet;
mod sender;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::fleet::Fleet;
use self::sender::{Acknowledged, Sender, Work};
use self::verdict::{Files, Ledger, Verdict};
use super::super::output::{Column, Table};
use super::super::{Context, Error, Result};
use super::process::Home;
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
/// Replicas on a PostgreSQL.
const REPLICAS: usize = 2;
/// One in so many of their kills comes only when deliveries arrive again: what one had that was killed is taken over some seconds
/// later, and else most kills would find no work.
const AT_WORK: u32 = 4;
/// How long that may take.
const TAKEOVER: Duration = Duration::from_secs(30);
/// How long the work that is left may stand still before it is given up on.
const STANDSTILL: Duration = Duration::from_mins(1);
/// How long it may take until what a kill left in the archive is removed.
const SWEEPING: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Kill a `serve` under load, again and again, and look for everything that it acknowledged
///
/// Each cycle starts `taskhook serve`, sends it events of simulated tasks, and kills it with SIGKILL at a random moment; on a PostgreSQL a random one of two replicas. At the end the store and the destination are asked for every event that was answered 200.
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
    play("kill", &args.common, context, async |stage| Box::pin(measure(args, stage)).await)
}

async fn measure(args: &Args, stage: &mut Stage<'_>) -> Result {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    stage.report.setting("cycles", args.cycles);
    stage.report.setting("signal", if args.stop { "SIGTERM" } else { "SIGKILL" });
    stage.report.setting("seed", seed);
    stage.report.setting("senders", args.senders);
    stage.report.note(PROVIDER_NOTE);
    let begun = stage.clock.elapsed();
    let (trial, mut fleet) = Trial::prepare(stage, seed).await?;
    stage.report.setting("replicas", fleet.count());
    let (ended, asked) = (Counter::default(), Counter::default());
    let what = if args.stop { "stopping" } else { "killing" };
    let acknowledged = stage.progress.during(what, args.cycles.into(), &ended, trial.cycles(&mut fleet, args, &ended)).await?;
    let (what, count) = ("looking for every event", acknowledged.len());
    let verdict = stage.progress.during(what, count, &asked, trial.judge(&mut fleet, args, acknowledged, &asked)).await?;
    tell(&mut stage.report, args, &verdict, stage.clock.elapsed().saturating_sub(begun));
    Ok(())
}

/// All that takes part.
struct Trial {
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
    async fn prepare(stage: &Stage<'_>, seed: u64) -> Result<(Self, Fleet)> {
        let clock = stage.clock.clone();
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
        let (archive, shared) = (stage.folder.join("files"), stage.ground.is_server());
        let sections = format!(
            "[archive]\nurl = {}\nshared = {shared}\n[sources.{BENCH}]\nprovider = \"manus\"\napi_key = \"{API_KEY}\"\nbase_url = \"{}\"\n\
             requests_per_minute = 6000000\n{}[[routes]]\nto = \"{BENCH}\"\n",
            toml::Value::from(format!("file://{}", archive.display())),
            manus.base_url(),
            destination.section_of(BENCH, &format!("concurrency = {CONCURRENCY}")),
        );
        let fleet = Fleet::new(if shared { REPLICAS } else { 1 }, &stage.place(), &sections)?;
        let work =
            Work { to: fleet.addresses(), tasks, manus: manus.clone(), clock: clock.clone(), calm: AtomicBool::new(false) };
        let random = std::sync::Mutex::new(fastrand::Rng::with_seed(seed));
        Ok((Self { work: Arc::new(work), ledger, archive, random, clock, stop, _destination: destination }, fleet))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Starts and ends the program, again and again, under load; what was acknowledged.
    async fn cycles(&self, fleet: &mut Fleet, args: &Args, done: &Counter) -> Result<Acknowledged> {
        let mut senders: Vec<Sender> =
            (0..args.senders).map(|number| Sender::new(number, args.senders, Arc::clone(&self.work))).collect();
        for cycle in 0..args.cycles {
            let fresh = fleet.spawn()?;
            let early = !args.stop && cycle > 0 && self.draw(|random| random.u32(..EARLY.0) == 0);
            // Where another replica receives meanwhile, the load goes on while this one starts.
            let others = fleet.count() > 1 && cycle > 0;
            if !others && !early {
                fleet.ready(&self.clock).await?;
            }
            let (mut sending, down) = (JoinSet::new(), CancellationToken::new());
            for sender in senders.drain(..if others || !early { senders.len() } else { 0 }) {
                sending.spawn(sender.run(cycle, down.clone()));
            }
            let victim = if early {
                self.clock.sleep(Duration::from_millis(self.draw(|random| random.u64(..EARLY.1)))).await;
                fresh
            } else {
                if others {
                    self.work.calm.store(true, Ordering::Relaxed);
                    fleet.ready(&self.clock).await?;
                    self.taken_over(args).await?;
                }
                self.work.calm.store(false, Ordering::Relaxed);
                self.clock.sleep(Duration::from_millis(self.draw(|random| random.u64(LIFE)))).await;
                if fleet.count() > 1 { self.draw(|random| random.usize(..fleet.count())) } else { fresh }
            };
            // What stops in order may take its time.
            self.work.calm.store(args.stop, Ordering::Relaxed);
            let ended = fleet.end(victim, args.stop).await;
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

    /// Waits, one time in so many, until a delivery arrives.
    async fn taken_over(&self, args: &Args) -> Result {
        if args.stop || self.draw(|random| random.u32(..AT_WORK) > 0) {
            return Ok(());
        }
        let (before, begun) = (self.ledger.arrivals(), self.clock.elapsed());
        while self.ledger.arrivals() == before {
            if self.clock.elapsed().saturating_sub(begun) > TAKEOVER {
                return Err(Error::failed(format!("for {} s nothing was delivered", TAKEOVER.as_secs())).into());
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Lets the program finish its work, and looks for everything.
    async fn judge(&self, fleet: &mut Fleet, args: &Args, acknowledged: Acknowledged, asked: &Counter) -> Result<Verdict> {
        fleet.spawn()?;
        fleet.ready(&self.clock).await?;
        let left = self.drained(fleet.home()).await?;
        if fleet.count() == 1 {
            self.swept().await;
        }
        let mut verdict = verdict::of(fleet.home(), acknowledged, &self.ledger, asked).await?;
        verdict.left = left;
        let content = |task: &str| self.work.tasks.iter().position(|known| known == task).map(content);
        verdict.files = Files::look(&self.archive, &self.ledger, content);
        // Where replicas share the archive, what one left may be another's until it is a day old.
        if fleet.count() == 1 {
            verdict.files.note_left(&self.archive);
        }
        verdict.limit = if args.stop { 0 } else { u64::from(args.cycles) * u64::from(CONCURRENCY) };
        verdict.once = args.stop;
        fleet.stop().await?;
        Ok(verdict)
    }

    /// Waits until the program has removed what a kill left on its way into the archive, which it does beside its work.
    async fn swept(&self) {
        let begun = self.clock.elapsed();
        while verdict::on_their_way(&self.archive) > 0 && self.clock.elapsed().saturating_sub(begun) < SWEEPING {
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no work is left, or none goes on any more; what is left. More may be left than before although work goes on: an event
    /// that was only kept becomes work first.
    async fn drained(&self, home: &Home) -> Result<u64> {
        let (mut least, mut arrivals, mut since) = (u64::MAX, self.ledger.arrivals(), self.clock.elapsed());
        loop {
            let stats = home.json("/api/v1/stats").await?;
            let jobs: u64 = stats["jobs"].as_array().into_iter().flatten().filter_map(|row| row["count"].as_u64()).sum();
            let left = jobs + stats["events"].as_u64().unwrap_or_default();
            if left == 0 || self.clock.elapsed().saturating_sub(since) > STANDSTILL {
                return Ok(left);
            }
            let arrived = self.ledger.arrivals();
            if left < least || arrived > arrivals {
                (least, arrivals, since) = (least.min(left), arrived, self.clock.elapsed());
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
