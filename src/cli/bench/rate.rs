//! `taskhook bench rate`: how fast events are answered that come at a steady rate.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::output::{Column, Table};
use super::super::{Context, Error, Exit, Result};
use super::latency::{Latencies, PERCENTILES, millis};
use super::load::{Load, Maker, Run, Signer};
use super::pace::{Moment, count, open_loop, steady};
use super::process::Home;
use super::progress::Counter;
use super::target::{PROVIDER_NOTE, Provider, hmac_section};
use super::{Common, Stage, duration, play};
use crate::clock;

/// Tasks that the events are about.
const TASKS: usize = 100;
/// The most events of one run.
const MOST: usize = 100_000_000;
/// The most events that are signed before the first is sent.
const BEFOREHAND: usize = 120_000;
/// For how long such signatures are good, with the time it takes to make them.
const GOOD_FOR: Duration = Duration::from_mins(4);
/// What the 99th percentile should not exceed, if the disk is fast enough.
const P99: Duration = Duration::from_millis(5);

/// How fast events are answered at a steady rate
///
/// Events are sent at fixed moments, whatever becomes of those before, and a latency counts from the moment at which its event was to be sent: a stall shows in every event that it holds up. taskhook runs as a process of its own, its workers on.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    length: Duration,
    /// Connections that the events may take
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=500))]
    connections: u16,
    /// Who sends
    #[arg(long, value_enum, value_name = "SENDER", default_value_t = Sender::Manus)]
    sender: Sender,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sender {
    /// Manus, simulated: RSA signatures, tasks to be proven
    Manus,
    /// A sender whose own secret verifies by HMAC
    Hmac,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let events = count(args.per_second, args.length);
    if events == 0 || events > MOST {
        let message = format!("`--per-second` and `--for` come to {events} events; it must be from 1 to {MOST}");
        return Err(Error::failed(message).with_exit(Exit::Usage).into());
    }
    play("rate", &args.common, context, async |stage| measure(args, events, stage).await)
}

async fn measure(args: &Args, events: usize, stage: &mut Stage<'_>) -> Result {
    let provider = Provider::start(TASKS).await?;
    let home = Home::new(&stage.place(), &format!("{}{}", provider.section(), hmac_section()))?;
    let by = match args.sender {
        Sender::Manus => Signer::Manus(Arc::clone(&provider.key)),
        Sender::Hmac => Signer::Hmac,
    };
    let maker = Maker { signer: by, tasks: Arc::clone(&provider.tasks), run: stage.clock.now().as_second(), padding: 0 };
    let (clock, signed) = (stage.clock.clone(), Counter::default());
    let beforehand = events <= BEFOREHAND && args.length <= GOOD_FOR;
    let load = if beforehand {
        let signing = Load::beforehand(maker, 0..events, clock.clone(), &signed);
        stage.progress.during("signing the events", events as u64, &signed, signing).await?
    } else {
        // Half a minute of them: a signature is good for five.
        let depth = count(args.per_second, Duration::from_secs(30)).clamp(16, 8192);
        let signing = Load::ahead(maker, 0..events, clock.clone(), depth, &signed);
        stage.progress.during("signing the first events", depth as u64, &signed, signing).await?
    };
    let (load, done) = (Arc::new(load), Counter::default());
    let process = home.start(&clock).await?;
    let moments = steady(args.per_second, Duration::ZERO, args.length).zip(0..).map(|(at, index)| Moment { at, index });
    let sending = open_loop(&load, moments, home.public, usize::from(args.connections), &clock, &done);
    let label = format!("{} events a second", args.per_second);
    let paced = stage.progress.during(&label, events as u64, &done, sending).await?;
    process.stop().await?;
    let kept = home.place.totals()?.events;

    let report = &mut stage.report;
    report.setting("per_second", args.per_second);
    report.setting("for_ms", clock::millis(args.length));
    report.setting("connections", args.connections);
    report.setting("sender", if args.sender == Sender::Manus { "manus" } else { "hmac" });
    report.setting("headers", 12);
    report.setting("body_bytes", load.body_bytes());
    tell(&paced.run, &paced.late, stage);
    let report = &mut stage.report;
    if let Some(complaint) = paced.run.complaint(events) {
        report.fail(complaint);
    }
    if kept < paced.run.accepted as u64 {
        report.fail(format!("{} events were acknowledged, and the store holds {kept}", paced.run.accepted));
    }
    report.note("A latency counts from the moment at which the event was to be sent, also if it had to wait for those before it. LATE is how late requests left: the delay of the sender itself, and the wait for a free connection.");
    report.note("Sender and receiver share the cores.");
    if !beforehand {
        report.note("The events were signed while they were sent, by threads on the same cores: there are too many to sign them all before.");
    }
    if args.sender == Sender::Manus {
        report.note(PROVIDER_NOTE);
    }
    Ok(())
}

fn tell(run: &Run, late: &Latencies, stage: &mut Stage<'_>) {
    let goal = P99.max(stage.report.machine.fdatasync_p50() * 10);
    let met = run.latencies.quantile(0.99) <= goal;
    let mut table =
        Table::new(&[Column::Whole("FROM THE INTENDED MOMENT"), Column::Number("ANSWERED MS"), Column::Number("LATE MS")]);
    let rows = PERCENTILES.iter().map(|(name, part)| (*name, run.latencies.quantile(*part), late.quantile(*part)));
    for (name, answered, left) in rows.chain([("max", run.latencies.max(), late.max())]) {
        table.row([name, &format!("{:.3}", millis(answered)), &format!("{:.3}", millis(left))]);
    }
    let report = &mut stage.report;
    report.facts(vec![
        (
            "sent",
            format!(
                "{} events in {:.1} s: {:.0} a second",
                run.answered() + run.unanswered,
                run.took.as_secs_f64(),
                run.per_second()
            ),
        ),
        ("answers", run.told()),
        (
            "goal",
            format!(
                "p99 at most {:.1} ms, the larger of 5 ms and 10 × fdatasync: {}",
                millis(goal),
                if met { "met" } else { "missed" }
            ),
        ),
    ]);
    report.table(table);
    report.result(json!({
        "sent": run.answered() + run.unanswered,
        "accepted": run.accepted,
        "statuses": run.statuses,
        "unanswered": run.unanswered,
        "per_second": run.per_second(),
        "latency": run.latencies.json(),
        "late": late.json(),
        "p99_goal_ms": millis(goal),
        "p99_goal_met": met,
    }));
}
