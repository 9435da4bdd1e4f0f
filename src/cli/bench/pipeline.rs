//! `taskhook bench pipeline`: from an event to its delivery, with every task fetched in between.
//!
//! What must hold: each run has a program, a store and tasks of its own, so that none stands on what another left; tasks are made
//! through taskhook, as an application would, and their events are signed before the clock starts; and every point in time is read
//! from one clock, where it happens: at the sender, at the provider, at the destination. Only what happens inside of the program is
//! told by its store.

mod board;
mod load;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use self::board::{Board, STAGES, Stages};
use self::load::Flow;
use super::super::output::{Column, Table};
use super::super::{Context, Error, Exit, Result};
use super::latency::{Latencies, millis};
use super::process::{Home, processor_time};
use super::progress::Counter;
use super::recorder::Recorder;
use super::report::Report;
use super::target::{API_KEY, PROVIDER_NOTE, listen};
use super::{BENCH, Common, Stage, play};
use crate::signature::rsa::PrivateKey;
use crate::simulator::manus::{Manus, Options};

/// The most tasks of one run: the simulated provider keeps each with its conversation.
const MOST_TASKS: u32 = 50_000;
/// The destination that never answers.
const SILENT: &str = "silent";

/// From an event to its delivery: how many tasks a second, how long, and where the time goes
///
/// Every event is the end of a task, which is fetched from the simulated provider and delivered to a destination that keeps count. Rounds run each part in turn: as fast as it goes, with so many tasks in flight, and at a steady rate, where the time counts from the moment at which an event was to be sent.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rounds; of fewer than 5 the median says little
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Tasks of a round's fast part
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_TASKS)))]
    tasks: u32,
    /// Tasks in flight in the fast part, from the event that is sent to its delivery
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=400))]
    in_flight: u16,
    /// Tasks a second in the steady part
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_second: u32,
    /// How long a round's steady part is
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = super::duration)]
    time: Duration,
    /// Deliver to a second destination too, which takes every request and never answers, and tell both rates
    #[arg(long)]
    blocked: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    if args.steady_tasks() > u64::from(MOST_TASKS) {
        let error = Error::failed(format!("`--per-second` for as long as `--for` are more than {MOST_TASKS} tasks"));
        return Err(error.with_exit(Exit::Usage).hint("the simulated provider keeps no more: make one of them less").into());
    }
    play("pipeline", &args.common, context, async |stage| Box::pin(measure(args, stage)).await)
}

impl Args {
    /// Tasks of a round's steady part.
    fn steady_tasks(&self) -> u64 {
        let tasks = self.time.as_millis().saturating_mul(u128::from(self.per_second)) / 1000;
        u64::try_from(tasks).unwrap_or(u64::MAX).max(1)
    }
}

async fn measure(args: &Args, stage: &mut Stage<'_>) -> Result {
    stage.report.setting("rounds", args.rounds);
    stage.report.setting("tasks", args.tasks);
    stage.report.setting("in_flight", args.in_flight);
    stage.report.setting("per_second", args.per_second);
    stage.report.setting("for", format!("{} s", args.time.as_secs_f64()));
    stage.report.note(PROVIDER_NOTE);
    stage.report.note(
        "Every task is made through taskhook, so it is proven before its event comes, and every one is fetched: two calls.",
    );
    let bench = Bench { key: Arc::new(PrivateKey::generate()) };
    let fast = Flow::Closed { in_flight: args.in_flight.into() };
    let steady = Flow::Open { per_second: args.per_second };
    let steady_tasks = usize::try_from(args.steady_tasks()).unwrap_or(usize::MAX);
    let mut told = Told::default();
    for round in 1..=args.rounds {
        let of = |part: &str| format!("round {round} of {}, {part}", args.rounds);
        let tasks = args.tasks as usize;
        // Each goes first in every other round.
        let both = if round % 2 == 0 { [true, false] } else { [false, true] };
        for blocked in both.into_iter().filter(|blocked| args.blocked || !blocked) {
            let part = if blocked { "with a destination that never answers" } else { "as fast as it goes" };
            let run = bench.run(stage, &of(part), fast, tasks, blocked).await?;
            if blocked { told.blocked.push(run) } else { told.fast.push(run) }
        }
        told.steady.push(bench.run(stage, &of("steady"), steady, steady_tasks, false).await?);
    }
    told.tell(args, &mut stage.report);
    Ok(())
}

/// What all runs share.
struct Bench {
    /// What the provider signs by.
    key: Arc<PrivateKey>,
}

/// What came of one run.
struct Run {
    per_second: f64,
    latencies: Latencies,
    stages: Stages,
    /// Time on the processor for one task: of taskhook, and of the sender, the provider and the destination together.
    serve_cpu: Duration,
    other_cpu: Duration,
    problem: Option<String>,
}

impl Bench {
    /// One run on a program of its own.
    async fn run(&self, stage: &mut Stage<'_>, what: &str, flow: Flow, tasks: usize, blocked: bool) -> Result<Run> {
        let clock = stage.clock.clone();
        let stop = tokio_util::sync::CancellationToken::new();
        let _stopping = stop.clone().drop_guard();
        let options = Options {
            accounts: vec![API_KEY.to_owned()],
            limits: None,
            signing_key: Some(Arc::clone(&self.key)),
            max_tasks: MOST_TASKS as usize,
            ..Options::new(clock.clone())
        };
        let manus = Manus::start(listen().await?, options, stop);
        let board = Arc::new(Board::new(tasks, clock.clone()));
        let recording = Arc::clone(&board);
        let destination = Recorder::hearing(&clock, move |envelope, at| recording.arrived(envelope, at)).await?;
        let silent = Recorder::silent(&clock).await?;
        let (also, to) = if blocked {
            (silent.section_of(SILENT, ""), format!("[\"{BENCH}\", \"{SILENT}\"]"))
        } else {
            (String::new(), format!("[\"{BENCH}\"]"))
        };
        let folder = stage.subfolder()?;
        let sections = format!(
            "[sources.{BENCH}]\nprovider = \"manus\"\napi_key = \"{API_KEY}\"\nbase_url = \"{}\"\n\
             requests_per_minute = 6000000\n{}{also}[[routes]]\nto = {to}\n",
            manus.base_url(),
            destination.section_of(BENCH, ""),
        );
        let place = stage.ground.place(folder.path());
        let home = Home::new(&place, &sections)?;
        let process = home.start(&clock).await?;
        let made = Counter::default();
        let preparing = load::prepare(&home, &manus, &self.key, &board, &clock, &made);
        let requests = stage.progress.during(&format!("{what}: making tasks"), tasks as u64, &made, preparing).await?;
        let (before, own_before) = (process.processor_time(), processor_time(std::process::id()));
        let sending = load::send(&board, requests, &home, flow, &manus, &clock);
        let refused = stage.progress.during(what, tasks as u64, board.counter(), sending).await?;
        let each =
            |before: Duration, after: Duration| after.saturating_sub(before) / u32::try_from(tasks).unwrap_or(u32::MAX).max(1);
        let serve_cpu = each(before, process.processor_time());
        let other_cpu = each(own_before, processor_time(std::process::id()));
        board.ask(&home).await?;
        home.kill(process).await?;
        place.clear().await?;
        let run = Run {
            per_second: board.per_second(),
            latencies: board.latencies(),
            stages: board.stages(),
            serve_cpu,
            other_cpu,
            problem: refused.or_else(|| board.problem()),
        };
        stage.progress.say(&format!(
            "{what}: {:.0} tasks/s, p50 {:.1} ms",
            run.per_second,
            millis(run.latencies.quantile(0.5))
        ))?;
        Ok(run)
    }
}

/// What all runs came to.
#[derive(Default)]
struct Told {
    fast: Vec<Run>,
    blocked: Vec<Run>,
    steady: Vec<Run>,
}

impl Told {
    fn tell(&self, args: &Args, report: &mut Report) {
        let (fast, blocked) = (Rates::of(&self.fast), Rates::of(&self.blocked));
        let mut table = Table::new(&[
            Column::Whole("TASKS A SECOND"),
            Column::Number("MEDIAN"),
            Column::Number("LEAST"),
            Column::Number("MOST"),
        ]);
        let figure = |value: f64| format!("{value:.0}");
        let mut row = |name: &str, rates: &Rates| {
            table.row([name, &figure(rates.median()), &figure(rates.least()), &figure(rates.most())]);
        };
        row("as fast as it goes", &fast);
        let ratios = Rates(fast.0.iter().zip(&blocked.0).map(|(fast, blocked)| blocked / fast).collect());
        if args.blocked {
            row("beside a destination that never answers", &blocked);
            let ratio = |value: f64| format!("{value:.2}");
            table.row(["ratio", &ratio(ratios.median()), &ratio(ratios.least()), &ratio(ratios.most())]);
        }
        report.table(table);
        let latencies = whole(&self.steady, |run| &run.latencies);
        let headings = ["MILLISECONDS, STEADY", "P50", "P90", "P99", "MAX", "OF ALL"];
        let mut table = Table::new(&headings.map(|heading| match heading {
            "MILLISECONDS, STEADY" => Column::Whole(heading),
            heading => Column::Number(heading),
        }));
        let mut row = |name: &str, latencies: &Latencies, share: &str| {
            let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|part| format!("{:.2}", millis(latencies.quantile(part))));
            table.row([name, &p50, &p90, &p99, &format!("{:.2}", millis(latencies.max())), share]);
        };
        row("from the time to send to the delivery", &latencies, "");
        let mut stages = Map::new();
        for (place, (name, word, ..)) in STAGES.iter().enumerate() {
            let stage = whole(&self.steady, |run| &run.stages[place]);
            row(&format!("  {name}"), &stage, &format!("{:.0} %", 100.0 * stage.mean() / latencies.mean().max(1e-9)));
            stages.insert((*word).to_owned(), stage.json());
        }
        report.table(table);
        report.facts(vec![(
            "processor",
            format!(
                "{} of taskhook for a task, {} of all else, as fast as it goes",
                cpu(&self.fast, |run| run.serve_cpu),
                cpu(&self.fast, |run| run.other_cpu)
            ),
        )]);
        report.note("Figures of a fast part are of the rounds; a ratio is of two runs of one round, and what to quote. The steady part's times are of all rounds together, and begin when an event was to be sent, whether or not it could be.");
        report.note("The steps of the way are seen from outside: at the sender, the provider and the destination, on one clock; only when a delivery was made, and its attempt began, is told by the store, in whole milliseconds of its transactions' beginnings.");
        if args.rounds < 5 {
            report.note("Fewer than 5 rounds: the medians say little.");
        }
        let cpu = |of: fn(&Run) -> Duration| Rates(self.fast.iter().map(|run| of(run).as_secs_f64() * 1e6).collect()).median();
        report.result(json!({
            "fast": {
                "tasks_per_second": fast.json(),
                "latency": whole(&self.fast, |run| &run.latencies).json(),
                "processor_us_per_task": {"taskhook": cpu(|run| run.serve_cpu), "others": cpu(|run| run.other_cpu)},
            },
            "blocked": args.blocked.then(|| json!({"tasks_per_second": blocked.json(), "ratio": ratios.json()})),
            "steady": {"latency": latencies.json(), "stages": stages},
        }));
        for run in self.fast.iter().chain(&self.blocked).chain(&self.steady) {
            if let Some(problem) = &run.problem {
                report.fail(problem.clone());
            }
        }
    }
}

/// The latencies of all `runs` together.
fn whole(runs: &[Run], of: impl Fn(&Run) -> &Latencies) -> Latencies {
    let mut all = Latencies::new();
    for run in runs {
        all.add(of(run));
    }
    all
}

/// The median of a time on the processor.
fn cpu(runs: &[Run], of: impl Fn(&Run) -> Duration) -> String {
    let median = Rates(runs.iter().map(|run| of(run).as_secs_f64() * 1e6).collect()).median();
    format!("{median:.0} µs")
}

/// One figure a round.
struct Rates(Vec<f64>);

impl Rates {
    fn of(runs: &[Run]) -> Self {
        Self(runs.iter().map(|run| run.per_second).collect())
    }

    fn median(&self) -> f64 {
        let mut figures = self.0.clone();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    fn json(&self) -> Value {
        json!({"median": self.median(), "least": self.least(), "most": self.most(), "rounds": self.0})
    }
}
