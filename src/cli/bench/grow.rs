//! `taskhook bench grow`: what a store that grows does to speed, size and memory.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::output::{Column, Table};
use super::super::{Context, Error, Exit, Result};
use super::latency::millis;
use super::load::{Load, Maker, Run, Signer, closed_loop};
use super::process::{Home, Memory, Process};
use super::progress::Counter;
use super::target::hmac_section;
use super::{Common, Stage, duration, play};
use crate::clock::{self, Clock};

/// Tasks that the events are about.
const TASKS: usize = 1000;
/// Bytes of a request before its body.
const HEAD: usize = 1024;
/// The parts that are told apart.
const PARTS: usize = 10;
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Free space that an event may need, with the log of the database.
const SPACE: u64 = 4096;
/// What the last part should reach of the first.
const RATIO: f64 = 0.85;

/// What a store that grows does to speed, size and memory
///
/// Each connection sends as soon as the last event was answered, until the store holds so many. taskhook runs as a process of its own, its workers on, into a log that writes nowhere; memory and file are therefore its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Events in all
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10..=100_000_000))]
    events: u32,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=500))]
    connections: u16,
    /// How long to wait at the end until the work on the events is done
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    patience: Duration,
    #[command(flatten)]
    common: Common,
}

/// What a tenth came to.
struct Part {
    run: Run,
    /// The most memory of its own that the process had meanwhile.
    own_bytes: u64,
    /// The files of the store at its end.
    disk_bytes: u64,
    /// Events whose work was not done at its end; none where they were too many to be counted in time.
    waiting: Option<u64>,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    play("grow", &args.common, context, async |stage| measure(args, stage).await)
}

async fn measure(args: &Args, stage: &mut Stage<'_>) -> Result {
    if !stage.ground.is_server() {
        room(u64::from(args.events) * SPACE, stage)?;
    }
    let home = Home::new(&stage.place(), &hmac_section())?;
    let (events, clock) = (args.events as usize, stage.clock.clone());
    let maker = maker(&clock);
    let process = home.start(&clock).await?;
    let mut parts = Vec::with_capacity(PARTS);
    for part in 0..PARTS {
        let numbers = events * part / PARTS..events * (part + 1) / PARTS;
        let (load, done) = (Arc::new(Load::as_it_goes(maker.clone(), numbers, clock.clone())), Counter::default());
        let (mut most, to) = (Memory::default(), [home.public]);
        let sending = closed_loop(&load, &to, usize::from(args.connections), &clock, &done);
        let sending = watched(sending, &process, &clock, &mut most);
        let label = format!("tenth {} of {PARTS}", part + 1);
        let run = stage.progress.during(&label, load.len() as u64, &done, sending).await?;
        let waiting = home.json("/api/v1/stats").await.ok().and_then(|stats| stats["events"].as_u64());
        let part = Part { own_bytes: most.own_bytes, disk_bytes: home.place.disk_bytes(), waiting, run };
        stage.progress.say(&format!(
            "{label}: {:.0} events/s, p99 {:.1} ms, {:.0} MB of memory",
            part.run.per_second(),
            millis(part.run.latencies.quantile(0.99)),
            megabytes(part.own_bytes)
        ))?;
        parts.push(part);
    }
    let (ended, mut most) = (clock.elapsed(), Memory::default());
    let draining = watched(home.drained(args.patience, &clock), &process, &clock, &mut most);
    let drained = stage.progress.during("the work that waits", 1, &Counter::default(), draining).await?;
    let drain = clock.elapsed().saturating_sub(ended);
    let memory = process.memory().unwrap_or_default();
    process.stop().await?;
    let totals = home.place.totals()?;

    let report = &mut stage.report;
    report.setting("events", args.events);
    report.setting("connections", args.connections);
    report.setting("headers", 12);
    report.setting("head_bytes", HEAD);
    report.setting("body_bytes", maker.body(0).len());
    let accepted: usize = parts.iter().map(|part| part.run.accepted).sum();
    for (number, part) in (1..).zip(&parts) {
        let count = events * number / PARTS - events * (number - 1) / PARTS;
        if let Some(complaint) = part.run.complaint(count) {
            report.fail(format!("tenth {number}: {complaint}"));
        }
    }
    if totals.events < accepted as u64 {
        report.fail(format!("{accepted} events were acknowledged, and the store holds {}", totals.events));
    }
    if !drained {
        report.fail(format!("after {} s not all work was done", args.patience.as_secs()));
    }
    let each = (totals.bytes - totals.free_bytes) as f64 / totals.events.max(1) as f64;
    let ratio = parts[PARTS - 1].run.per_second() / parts[0].run.per_second();
    let own_most = parts.iter().map(|part| part.own_bytes).chain([most.own_bytes]).max().unwrap_or_default();
    table(&parts, stage);
    let took: Duration = parts.iter().map(|part| part.run.took).sum();
    let overall = accepted as f64 / took.as_secs_f64().max(1e-6);
    let [file, disk] = if stage.ground.is_server() {
        ["tables and indexes", "the tables and indexes"]
    } else {
        ["file", "the database and its log"]
    };
    let report = &mut stage.report;
    report.facts(vec![
        ("in all", format!("{accepted} events in {:.1} s: {overall:.0} a second", took.as_secs_f64())),
        ("last / first", format!("{ratio:.2} (goal: at least {RATIO}: {})", if ratio >= RATIO { "met" } else { "missed" })),
        ("an event", format!("{each:.0} bytes of the {file}, once all is written and its work is done")),
        (
            "store",
            format!("{:.1} MB of {file}, of which {:.1} MB are free", megabytes(totals.bytes), megabytes(totals.free_bytes)),
        ),
        ("memory", format!("{:.1} MB of its own at most, {:.1} MB at the end", megabytes(own_most), megabytes(memory.own_bytes))),
        ("resident", format!("{:.1} MB at most, with what is mapped of files", megabytes(memory.peak_bytes))),
        ("afterwards", format!("the work was {} in {:.1} s", if drained { "done" } else { "not done" }, drain.as_secs_f64())),
    ]);
    report.result(json!({
        "accepted": accepted,
        "kept": totals.events,
        "per_second": overall,
        "tenths": parts.iter().map(json_of).collect::<Vec<_>>(),
        "last_of_first": ratio,
        "bytes_per_event": each,
        "file_bytes": totals.bytes,
        "file_free_bytes": totals.free_bytes,
        "memory_own_max_bytes": own_most,
        "memory_own_end_bytes": memory.own_bytes,
        "memory_resident_max_bytes": memory.peak_bytes,
        "drained": drained,
        "drain_seconds": drain.as_secs_f64(),
    }));
    report.note("The sender is one whose own secret verifies (HMAC-SHA256): a million RSA signatures would have to be made beforehand, and would be too old by then. Each event is signed as it is sent, on the same cores.");
    report.note(format!("WAITING are events whose work was not done at the end of the tenth: while senders come faster than that, keeping goes first. A ? stands for more than could be counted in a second. DISK is {disk} as they are then."));
    report.note("Memory is that of the process alone (RssAnon and VmHWM of /proc), looked at five times a second.");
    Ok(())
}

/// Makes events whose head is as long as it is to be.
fn maker(clock: &Clock) -> Maker {
    let tasks = (0..TASKS).map(|number| format!("task{number:018}")).collect();
    let bare = Maker { signer: Signer::Hmac, tasks: Arc::new(tasks), run: clock.now().as_second(), padding: 0 };
    let head = bare.request(0, clock.now().as_second()).len() - bare.body(0).len();
    Maker { padding: HEAD.saturating_sub(head), ..bare }
}

/// Refuses where the disk would be full before the end.
fn room(needed: u64, stage: &Stage<'_>) -> Result {
    let Ok(space) = rustix::fs::statvfs(&stage.folder) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let (needed, free) = (megabytes(needed), megabytes(free));
    let failed =
        Error::failed(format!("so many events may need {needed:.0} MB, and the disk of the folder has {free:.0} MB free"));
    Err(failed.with_exit(Exit::Usage).hint("take fewer with `--events`, or another disk with `--folder`").into())
}

/// Does `doing`, and looks meanwhile at the memory of `process`.
async fn watched<T>(doing: impl Future<Output = T>, process: &Process, clock: &Clock, most: &mut Memory) -> T {
    let looking = async {
        loop {
            let memory = process.memory().unwrap_or_default();
            most.own_bytes = most.own_bytes.max(memory.own_bytes);
            most.peak_bytes = most.peak_bytes.max(memory.peak_bytes);
            clock.sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        done = doing => done,
        () = looking => unreachable!("looking does not end"),
    }
}

fn table(parts: &[Part], stage: &mut Stage<'_>) {
    let mut table = Table::new(&[
        Column::Number("TENTH"),
        Column::Number("EVENTS/S"),
        Column::Number("P50 MS"),
        Column::Number("P99 MS"),
        Column::Number("MAX MS"),
        Column::Number("MEMORY MB"),
        Column::Number("DISK MB"),
        Column::Number("WAITING"),
    ]);
    for (number, Part { run, own_bytes, disk_bytes, waiting }) in (1..).zip(parts) {
        table.row([
            &format!("{number}"),
            &format!("{:.0}", run.per_second()),
            &format!("{:.2}", millis(run.latencies.quantile(0.5))),
            &format!("{:.2}", millis(run.latencies.quantile(0.99))),
            &format!("{:.2}", millis(run.latencies.max())),
            &format!("{:.1}", megabytes(*own_bytes)),
            &format!("{:.1}", megabytes(*disk_bytes)),
            &waiting.map_or("?".to_owned(), |waiting| waiting.to_string()),
        ]);
    }
    stage.report.table(table);
}

fn json_of(part: &Part) -> Value {
    json!({
        "events_per_second": part.run.per_second(),
        "took_ms": clock::millis(part.run.took),
        "latency": part.run.latencies.json(),
        "memory_own_max_bytes": part.own_bytes,
        "disk_bytes": part.disk_bytes,
        "waiting": part.waiting,
    })
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
