//! `taskhook bench spike`: a calm stream of events, and in its midst more than can be handed on at once.
//!
//! What must hold: every answer is a 200; every event that was acknowledged comes to the destination; one that comes twice does so after
//! an attempt of unknown outcome, which is recorded; and the metrics have counted what was answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::output::{Column, Table};
use super::super::{Context, Error, Exit, Result};
use super::latency::{PERCENTILES, millis};
use super::load::{Load, Maker, Signer};
use super::pace::{Moment, Paced, count, open_loop, steady};
use super::process::Home;
use super::progress::Counter;
use super::recorder::{Arrival, NAME, Recorder};
use super::scrape::Scrape;
use super::target::hmac_section;
use super::{Common, Stage, duration, play};
use crate::clock;
use crate::telemetry::name;

/// Tasks that the events are about.
const TASKS: usize = 1000;
/// The most events of one run.
const MOST: usize = 5_000_000;
/// How far behind its first a duplicate is sent.
const BEHIND: usize = 50;
/// How often the metrics are read.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Within what the backlog should be gone.
const GOAL: Duration = Duration::from_mins(2);
/// Of events that came more than once, how many are looked into.
const LOOKED_INTO: usize = 200;

/// A calm stream of events, and in its midst a peak
///
/// The events go to an HTTP destination that remembers them. The sender is one whose own secret verifies, so that nothing is to be fetched and no provider's limit is in the way. taskhook runs as a process of its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Events a second before and after the peak
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    base: u32,
    /// How long it is calm, before the peak and after it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    calm: Duration,
    /// Events a second in the peak
    #[arg(long, value_name = "N", default_value_t = 3500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    peak: u32,
    /// How long the peak is
    #[arg(long = "for", value_name = "TIME", default_value = "40s", value_parser = duration)]
    length: Duration,
    /// How many of a hundred requests are an event that was sent before
    #[arg(long, value_name = "PERCENT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=50))]
    duplicates: u8,
    /// Connections that the events may take
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=500))]
    connections: u16,
    /// Deliveries on their way at once: the key of the destination
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How long to wait for the last delivery
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    patience: Duration,
    #[command(flatten)]
    common: Common,
}

impl Args {
    fn requests(&self) -> usize {
        2 * count(self.base, self.calm) + count(self.peak, self.length)
    }

    /// When the peak ends.
    fn peak_end(&self) -> Duration {
        self.calm + self.length
    }

    /// When which event is sent; some are sent again a little later.
    fn moments(&self) -> impl Iterator<Item = Moment> + Send + 'static {
        let before = steady(self.base, Duration::ZERO, self.calm);
        let (peak, after) = (steady(self.peak, self.calm, self.length), steady(self.base, self.peak_end(), self.calm));
        let percent = usize::from(self.duplicates);
        before.chain(peak).chain(after).zip(0..).map(move |(at, number)| {
            let again = number >= 2 * BEHIND && number % 100 < percent;
            Moment { at, index: if again { number - BEHIND } else { number } }
        })
    }
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let requests = args.requests();
    if requests > MOST {
        let message = format!("it comes to {requests} events; it must be at most {MOST}");
        return Err(Error::failed(message)
            .with_exit(Exit::Usage)
            .hint("take less of `--peak`, `--for`, `--base` or `--calm`")
            .into());
    }
    play("spike", &args.common, context, async |stage| measure(args, stage).await)
}

/// The most that was seen waiting.
#[derive(Clone, Copy, Default)]
struct Peak {
    jobs: f64,
    undelivered: usize,
    /// How often the metrics were not told.
    unread: usize,
}

async fn measure(args: &Args, stage: &mut Stage<'_>) -> Result {
    let clock = stage.clock.clone();
    let recorder = Recorder::start(&clock).await?;
    let sections = format!(
        "{}{}[[routes]]\nto = \"{NAME}\"\n",
        hmac_section(),
        recorder.section(&format!("concurrency = {}", args.concurrency))
    );
    let home = Home::new(&stage.place(), &sections)?;
    let tasks = (0..TASKS).map(|number| format!("task{number:018}")).collect();
    let maker = Maker { signer: Signer::Hmac, tasks: Arc::new(tasks), run: clock.now().as_second(), padding: 0 };
    let (requests, done) = (args.requests(), Counter::default());
    let repeats = (0..requests).zip(args.moments()).filter(|(number, moment)| moment.index != *number).count();
    let load = Arc::new(Load::as_it_goes(maker, 0..requests, clock.clone()));
    let process = home.start(&clock).await?;

    let mut peak = Peak::default();
    let sending = open_loop(&load, args.moments(), home.public, usize::from(args.connections), &clock, &done);
    let sending = scraped(sending, &home, stage.clock.clone(), &mut peak);
    let paced = stage.progress.during("sending", requests as u64, &done, sending).await?;
    peak.undelivered = paced.acknowledged.len().saturating_sub(recorder.count());
    let label = format!("{} of {} events are delivered; the others", recorder.count(), paced.acknowledged.len());
    let draining = scraped(home.drained(args.patience, &clock), &home, stage.clock.clone(), &mut peak);
    let drained = stage.progress.during(&label, 1, &Counter::default(), draining).await?;
    let scrape = Scrape::new(home.text("/metrics").await?);
    let arrivals = recorder.arrivals();
    let twice = Twice::of(&arrivals, &home).await?;
    process.stop().await?;

    let report = &mut stage.report;
    for (name, value) in [("base", args.base), ("peak", args.peak), ("duplicates_percent", args.duplicates.into())] {
        report.setting(name, value);
    }
    report.setting("calm_ms", clock::millis(args.calm));
    report.setting("for_ms", clock::millis(args.length));
    report.setting("connections", args.connections);
    report.setting("concurrency", args.concurrency);
    if !drained {
        report.fail(format!("after {} s not all was delivered", args.patience.as_secs()));
    }
    let seen = Seen { args, paced: &paced, arrivals: &arrivals, twice, scrape: &scrape, peak, repeats, requests };
    seen.judge(stage);
    seen.tell(stage);
    Ok(())
}

/// Does `doing`, and reads the metrics meanwhile.
async fn scraped<T>(doing: impl Future<Output = T>, home: &Home, clock: clock::Clock, peak: &mut Peak) -> T {
    let scraping = async {
        loop {
            clock.sleep(SCRAPE_EVERY).await;
            match home.text("/metrics").await {
                Ok(text) => peak.jobs = peak.jobs.max(Scrape::new(text).sum(name::JOBS)),
                Err(_) => peak.unread += 1,
            }
        }
    };
    tokio::select! {
        done = doing => done,
        () = scraping => unreachable!("scraping does not end"),
    }
}

/// Events that came more than once.
struct Twice {
    events: usize,
    /// Of those that were looked into: without as many attempts of unknown outcome as they came too often, or as two deliveries.
    unexplained: usize,
}

impl Twice {
    async fn of(arrivals: &[Arrival], home: &Home) -> Result<Self> {
        let mut times: HashMap<Uuid, Vec<Uuid>> = HashMap::with_capacity(arrivals.len());
        for arrival in arrivals {
            times.entry(arrival.event).or_default().push(arrival.delivery);
        }
        times.retain(|_, deliveries| deliveries.len() > 1);
        let mut unexplained = 0;
        for (event, came) in times.iter().take(LOOKED_INTO) {
            let event = home.json(&format!("/api/v1/events/{event}")).await?;
            let deliveries = event["deliveries"].as_array().into_iter().flatten();
            let attempts = deliveries.filter_map(|delivery| delivery["attempts"].as_array()).flatten();
            let unknown = attempts.filter(|attempt| attempt["outcome"] == "unknown").count();
            unexplained += usize::from(came.len() > 1 + unknown || came.iter().any(|delivery| *delivery != came[0]));
        }
        Ok(Self { events: times.len(), unexplained })
    }
}

/// All that was seen.
struct Seen<'a> {
    args: &'a Args,
    paced: &'a Paced,
    arrivals: &'a [Arrival],
    twice: Twice,
    scrape: &'a Scrape,
    peak: Peak,
    repeats: usize,
    requests: usize,
}

impl Seen<'_> {
    /// When each event came first.
    fn first(&self) -> HashMap<Uuid, Duration> {
        let mut first = HashMap::with_capacity(self.arrivals.len());
        for arrival in self.arrivals {
            first.entry(arrival.event).or_insert(arrival.at);
        }
        first
    }

    fn lost(&self) -> usize {
        let first = self.first();
        self.paced.acknowledged.iter().filter(|event| !first.contains_key(&event.id)).count()
    }

    /// How long after the peak the last event came that was sent before its end.
    fn gone_after(&self) -> Duration {
        let (first, end) = (self.first(), self.args.peak_end());
        let of_peak = self.paced.acknowledged.iter().filter(|event| event.at < end);
        let last = of_peak.filter_map(|event| first.get(&event.id)).max().copied().unwrap_or_default();
        last.saturating_sub(self.paced.begun + end)
    }

    fn judge(&self, stage: &mut Stage<'_>) {
        let (run, report) = (&self.paced.run, &mut stage.report);
        let events = self.requests - self.repeats;
        if run.accepted != events || run.duplicates != self.repeats {
            report.fail(format!(
                "of {} requests, {events} should be accepted and {} be a duplicate; it was: {}",
                self.requests,
                self.repeats,
                run.told()
            ));
        }
        let lost = self.lost();
        if lost > 0 {
            report
                .fail(format!("{lost} of {} acknowledged events did not come to the destination", self.paced.acknowledged.len()));
        }
        if self.twice.unexplained > 0 {
            report.fail(format!("{} events came twice without an attempt of unknown outcome", self.twice.unexplained));
        }
        let counted = self.scrape.by(name::EVENTS, "outcome");
        let counted = |outcome: &str| counted.get(outcome).copied().unwrap_or_default();
        if (counted("accepted"), counted("duplicate")) != (run.accepted as f64, run.duplicates as f64) {
            report.fail("the metrics have counted other events than were answered");
        }
    }

    fn tell(&self, stage: &mut Stage<'_>) {
        let (run, report) = (&self.paced.run, &mut stage.report);
        let gone = self.gone_after();
        let goal = if gone <= GOAL { "met" } else { "missed" };
        report.facts(vec![
            (
                "sent",
                format!("{} requests in {:.1} s, {} of them an event again", self.requests, run.took.as_secs_f64(), self.repeats),
            ),
            ("answers", run.told()),
            ("backlog", format!("{} events waited when the last was answered", self.peak.undelivered)),
            ("delivered", format!("{:.1} s after the peak (goal: within {} s: {goal})", gone.as_secs_f64(), GOAL.as_secs())),
            ("lost", self.lost().to_string()),
            ("twice", self.twice.events.to_string()),
            (
                "unread",
                if self.peak.unread == 0 {
                    String::new()
                } else {
                    format!("{} times the metrics did not answer", self.peak.unread)
                },
            ),
        ]);
        let mut table =
            Table::new(&[Column::Whole("FROM THE INTENDED MOMENT"), Column::Number("ANSWERED MS"), Column::Number("LATE MS")]);
        let late = &self.paced.late;
        let rows = PERCENTILES.iter().map(|(name, part)| (*name, run.latencies.quantile(*part), late.quantile(*part)));
        for (name, answered, left) in rows.chain([("max", run.latencies.max(), late.max())]) {
            table.row([name, &format!("{:.3}", millis(answered)), &format!("{:.3}", millis(left))]);
        }
        report.table(table);
        let mut table = Table::new(&[Column::Whole("METRIC"), Column::Wrap("WHAT IT SAID")]);
        let metrics = self.metrics();
        for (name, value) in &metrics {
            table.row([name, &said(value)]);
        }
        report.table(table);
        report.result(json!({
            "requests": self.requests,
            "repeats": self.repeats,
            "accepted": run.accepted,
            "duplicates": run.duplicates,
            "statuses": run.statuses,
            "unanswered": run.unanswered,
            "latency": run.latencies.json(),
            "late": late.json(),
            "undelivered_at_last_answer": self.peak.undelivered,
            "delivered_after_peak_seconds": gone.as_secs_f64(),
            "delivered_goal_met": gone <= GOAL,
            "arrivals": self.arrivals.len(),
            "lost": self.lost(),
            "delivered_more_than_once": self.twice.events,
            "metrics": metrics,
            "metrics_unread": self.peak.unread,
        }));
        report.note("The sender verifies by its own secret (HMAC-SHA256), signed as it sends, and nothing is fetched: what a provider's limit of requests would do is not in these figures.");
        report.note("Sender, receiver and destination share the cores. The destination answers 200 at once.");
        report.note("A latency counts from the moment at which the event was to be sent. The metrics are those of `/metrics` on the admin listener, read every second; of a histogram they tell the bucket.");
    }

    /// What the metrics said at the end, and the most of what waited.
    fn metrics(&self) -> BTreeMap<String, Value> {
        let scrape = self.scrape;
        let by = |name: &str, label: &str| {
            scrape.by(name, label).into_iter().map(|(value, sum)| (value, whole(sum))).collect::<Map<_, _>>().into()
        };
        let mut metrics: BTreeMap<String, Value> = BTreeMap::new();
        metrics.insert(name::RESPONSES.to_owned(), by(name::RESPONSES, "status"));
        metrics.insert(name::EVENTS.to_owned(), by(name::EVENTS, "outcome"));
        metrics.insert(name::DELIVERIES.to_owned(), by(name::DELIVERIES, "outcome"));
        metrics.insert(name::JOBS.to_owned(), json!({"most": whole(self.peak.jobs), "end": whole(scrape.sum(name::JOBS))}));
        metrics.insert(name::REJECTIONS.to_owned(), whole(scrape.sum(name::REJECTIONS)));
        metrics.insert(name::DEAD_LETTERS.to_owned(), whole(scrape.sum(name::DEAD_LETTERS)));
        metrics.insert(name::DEGRADED.to_owned(), whole(scrape.sum(name::DEGRADED)));
        for name in [name::RECEIVE_SECONDS, name::COMMIT_SECONDS, name::DELIVERY_SECONDS] {
            metrics.insert(
                name.to_owned(),
                json!({"p50_at_most": scrape.at_most(name, 0.5), "p99_at_most": scrape.at_most(name, 0.99)}),
            );
        }
        metrics
    }
}

/// A count, which Prometheus tells as any number.
#[expect(clippy::cast_possible_truncation, reason = "it is whole already")]
fn whole(count: f64) -> Value {
    json!(count.round() as i64)
}

/// A value as words.
fn said(value: &Value) -> String {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
