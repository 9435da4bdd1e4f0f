//! `taskhook bench pages`: how long the pages of the dashboard, the lists and the metrics take, with a long past in the store.
//!
//! What must hold: each request is one of its own, at another place of the past each time, so that nothing is answered from what was just
//! read; the program is a process of its own, its workers on.

mod past;

use std::time::Duration;

use serde_json::{Value, json};

use self::past::{EACH, NAME, ROWS};
use super::super::output::{Column, Table};
use super::super::{Context, Error, Result};
use super::fill::fill;
use super::latency::{Latencies, millis};
use super::process::Home;
use super::progress::Counter;
use super::{Common, Stage, play};
use crate::clock::{before, rfc3339};
use crate::http;
use crate::store::Store;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// The most bytes of an answer.
const ANSWER_MAX: usize = 16 << 20;
/// Far from another, and in no step with what is made every so many rows.
const STRIDE: u32 = 48_611;

/// What is asked for. `{event}` is the number of an event, and `{event_id}` and `{delivery_id}` are of it; `{task}` is the number of its task,
/// `{recent}` that of one of the newest; `{time}` is some days ago, `{day}` one.
const ASKED: [(&str, &str); 24] = [
    ("overview, an hour", "/"),
    ("overview, a month", "/?over=month"),
    ("tasks", "/tasks"),
    ("tasks, further back", "/tasks?cursor={task}"),
    ("tasks that wait", "/tasks?state=waiting"),
    ("tasks of some days", "/tasks?since={time}"),
    ("tasks, a number", "/tasks?text=number+{recent}"),
    ("tasks, a word of all", "/tasks?text=laptops"),
    ("tasks, a word of none", "/tasks?text=nowhere"),
    ("a task", "/tasks/bench/task-{task}"),
    ("events", "/events"),
    ("events, further back", "/events?cursor={event}"),
    ("events of a task", "/events?task=task-{task}"),
    ("stops of some days", "/events?type=task_stopped&since={time}"),
    ("events, a word of none", "/events?text=nowhere"),
    ("dead events", "/events?state=dead"),
    ("an event", "/events/{event_id}"),
    ("deliveries", "/deliveries"),
    ("dead letters", "/deliveries?state=dead"),
    ("a delivery", "/deliveries/{delivery_id}"),
    ("sources", "/sources"),
    ("API: events, forth", "/api/v1/events?after={event}&limit=100"),
    ("API: stats of a day", "/api/v1/stats?since={day}"),
    ("metrics", "/metrics"),
];

/// How long pages take with a long past in the store
///
/// Events of tasks, each delivered, are put into a store by plain SQL, as if they had come over a month. Then taskhook runs on it as a process, and each page of the dashboard, the lists of the API and the metrics are asked for again and again, one request after the other, each time at another place of the past.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many events there are
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    events: u32,
    /// How often each is asked for
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    requests: u16,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    play("pages", &args.common, context, async |stage| Box::pin(measure(args, stage)).await)
}

async fn measure(args: &Args, stage: &mut Stage<'_>) -> Result {
    let (place, now, events) = (stage.place(), stage.clock.now(), args.events / EACH * EACH);
    // Its tables.
    drop(Store::open(&place.store, stage.clock.clone()).await.map_err(Error::from)?);
    let made = Counter::default();
    stage
        .progress
        .during(&format!("making {events} events"), events.into(), &made, fill(&place, &ROWS, (events, now, events), &made))
        .await?;
    let source =
        format!("[sources.{NAME}]\nprovider = \"custom\"\npreset = \"github\"\nsecret = \"of a sender that sends nothing\"\n");
    let home = Home::new(&place, &source)?;
    let process = home.start(&stage.clock).await?;
    let client = http::client(PATIENCE);
    let mut measured = Vec::with_capacity(ASKED.len());
    let ago = |days: u32| rfc3339(before(now, Duration::from_hours(24 * u64::from(days))));
    for (name, path) in ASKED {
        let (mut latencies, mut bytes) = (Latencies::new(), 0);
        for number in 0..=u32::from(args.requests) {
            let event = number.wrapping_mul(STRIDE) % events + 1;
            let path = path
                .replace("{event}", &event.to_string())
                .replace("{task}", &event.div_ceil(EACH).to_string())
                .replace("{recent}", &(events / EACH - number % (events / EACH)).to_string())
                .replace("{event_id}", &format!("{event:08x}-0000-7000-8000-{event:012x}"))
                .replace("{delivery_id}", &format!("{event:08x}-0000-7000-9000-{event:012x}"))
                .replace("{time}", &ago(number % 28 + 1))
                .replace("{day}", &ago(1));
            let asked = stage.clock.elapsed();
            let answer = http::send(client.get(format!("http://{}{path}", home.admin)), PATIENCE, ANSWER_MAX).await;
            let took = stage.clock.elapsed().saturating_sub(asked);
            let answer = answer.map_err(|error| Error::failed(format!("{path}: {error}")))?;
            if answer.status != 200 {
                return Err(Error::failed(format!("{path} was answered {}", answer.status)).into());
            }
            // The first one reads what all of them need.
            if number > 0 {
                latencies.record(took);
            }
            bytes = answer.body.len();
        }
        stage.progress.say(&format!("{name}: p95 {:.1} ms", millis(latencies.quantile(0.95))))?;
        measured.push((name, latencies, bytes));
    }
    home.stop(process).await?;
    stage.report.setting("events", events);
    stage.report.setting("tasks", events / EACH);
    stage.report.setting("requests", args.requests);
    tell(&measured, stage);
    Ok(())
}

fn tell(measured: &[(&str, Latencies, usize)], stage: &mut Stage<'_>) {
    let mut table = Table::new(&[
        Column::Whole("PAGE"),
        Column::Number("P50 MS"),
        Column::Number("P95 MS"),
        Column::Number("MAX MS"),
        Column::Number("KB"),
    ]);
    for (name, latencies, bytes) in measured {
        let [p50, p95, max] = [0.5, 0.95, 1.0].map(|part| format!("{:.1}", millis(latencies.quantile(part))));
        table.row([*name, &p50, &p95, &max, &format!("{}", bytes / 1000)]);
    }
    stage.report.table(table);
    let worst = measured.iter().map(|(name, latencies, _)| (latencies.quantile(0.95), *name)).max();
    if let Some((p95, name)) = worst {
        stage.report.facts(vec![("slowest", format!("{name}: p95 {:.1} ms", millis(p95)))]);
    }
    let row = |(name, latencies, bytes): &(&str, Latencies, usize)| json!({"page": name, "p50_ms": millis(latencies.quantile(0.5)), "p95_ms": millis(latencies.quantile(0.95)), "max_ms": millis(latencies.max()), "bytes": bytes});
    stage.report.result(json!({"pages": measured.iter().map(row).collect::<Vec<Value>>()}));
    stage.report.note("One request at a time, from this process, over loopback; what is told is the time from the request to the end of its answer. Each is about another event, task or time than the one before.");
    stage.report.note("Nothing comes in meanwhile. What those who look on cost the events is what `ingest --viewers` tells.");
    stage.report.note(
        "The rows are made by plain SQL, as the program makes them. Whatever the system keeps of the file in memory helps.",
    );
}
