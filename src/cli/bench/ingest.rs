//! `taskhook bench ingest`: how many signed webhooks a second are kept, beside what the same machine could do at best.
//!
//! Every round runs all servers in turn, each on a fresh folder or schema with the same events, so that what else the machine does hits
//! them alike. What counts is the median of the rounds' ratios.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::output::{Column, Table};
use super::super::{Context, Error, Exit, Result};
use super::ground::Ground;
use super::latency::millis;
use super::load::{Load, Maker, Signer};
use super::progress::Counter;
use super::target::{self, Measured, PROVIDER_NOTE, Provider, Server, Trial};
use super::{Common, Stage, play};

/// Tasks that the events are about.
const TASKS: usize = 100;

/// Ratios that are told, where both were measured.
const RATIOS: [(Server, Server); 8] = [
    (Server::Watched, Server::Taskhook),
    (Server::Taskhook, Server::PgLimit),
    (Server::Taskhook, Server::PgEach),
    (Server::Replicas, Server::One),
    (Server::Taskhook, Server::Limit),
    (Server::Taskhook, Server::Verify),
    (Server::Taskhook, Server::Bare),
    (Server::Hmac, Server::Taskhook),
];

/// How many events a second are kept, beside the limit of the machine
///
/// Several servers in turn get the same events over loopback HTTP, each connection sending as soon as the last was answered: one that only answers, one that verifies and reads, one that also appends what the store keeps to a file (the limit), and taskhook itself, its workers on. What counts is the median of the rounds' ratios.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rounds; of fewer than 5 the median says little
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Events that each server gets in a round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    events: u32,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=500))]
    connections: u16,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SERVER,…")]
    only: Vec<Server>,
    /// PostgreSQL: also measure so many processes of taskhook that share the store and the load, beside one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    replicas: u16,
    /// Also measure taskhook while so many dashboards are open, each with its stream and the page of events
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=100))]
    viewers: u16,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let servers = args.servers(Ground::of(&args.common.store, None)?.is_server())?;
    play("ingest", &args.common, context, async |stage| Box::pin(measure(args, servers, stage)).await)
}

impl Args {
    /// The servers to be measured, with a store on a PostgreSQL or not.
    fn servers(&self, on_server: bool) -> Result<Vec<Server>> {
        let usage = |what: String| Error::failed(what).with_exit(Exit::Usage);
        if self.replicas > 1 && !on_server {
            return Err(usage("`--replicas`: only a store with `--store postgres://…` can be shared".to_owned()).into());
        }
        let obstacle = |server: Server| server.obstacle(on_server, self.replicas.into(), self.viewers.into());
        for server in &self.only {
            if let Some(obstacle) = obstacle(*server) {
                return Err(usage(format!("`--only`: {} {obstacle}", server.name(self.replicas.into()))).into());
            }
        }
        let wanted = |server: &Server| obstacle(*server).is_none() && (self.only.is_empty() || self.only.contains(server));
        Ok(Server::ALL.into_iter().filter(wanted).collect())
    }
}

async fn measure(args: &Args, servers: Vec<Server>, stage: &mut Stage<'_>) -> Result {
    let (events, connections, replicas) = (args.events as usize, usize::from(args.connections), usize::from(args.replicas));
    let viewers = usize::from(args.viewers);
    let provider = Provider::start(TASKS).await?;
    let run = stage.clock.now().as_second();
    let maker = |signer| Maker { signer, tasks: Arc::clone(&provider.tasks), run, padding: 0 };
    let manus = maker(Signer::Manus(Arc::clone(&provider.key)));
    let mut loads = Vec::new();
    for (signed, wanted) in
        [(manus, servers.iter().any(|server| *server != Server::Hmac)), (maker(Signer::Hmac), servers.contains(&Server::Hmac))]
    {
        let (numbers, clock, done) = (0..if wanted { events } else { 0 }, stage.clock.clone(), Counter::default());
        let signing = Load::beforehand(signed, numbers, clock, &done);
        loads.push(if wanted {
            stage.progress.during("signing the events", args.events.into(), &done, signing).await?
        } else {
            signing.await?
        });
    }
    let mut loads: Vec<Arc<Load>> = loads.into_iter().map(Arc::new).collect();

    let report = &mut stage.report;
    report.setting("rounds", args.rounds);
    report.setting("events", args.events);
    report.setting("connections", args.connections);
    if args.replicas > 1 {
        report.setting("replicas", args.replicas);
    }
    if args.viewers > 0 {
        report.setting("viewers", args.viewers);
    }
    report.setting("body_bytes", loads[0].body_bytes());
    report.setting("headers", 12);
    let mut rounds: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 1..=args.rounds {
        for (at, server) in servers.iter().enumerate() {
            let load = &mut loads[usize::from(*server == Server::Hmac)];
            if let Some(load) = Arc::get_mut(load) {
                load.refresh(&Counter::default()).await?;
            }
            let (folder, done) = (stage.subfolder()?, Counter::default());
            let place = stage.ground.place(folder.path());
            let trial = Trial { load, provider: &provider, connections, replicas, viewers, place: &place, done: &done };
            let measuring = Box::pin(target::run(*server, &trial));
            let label = format!("round {round} of {}, {}", args.rounds, server.name(replicas));
            let measured = stage.progress.during(&label, args.events.into(), &done, measuring).await?;
            stage.progress.say(&line(&label, &measured))?;
            if let Some(complaint) = measured.run.complaint(events) {
                stage.report.fail(format!("{}: {complaint}", server.name(replicas)));
            }
            place.clear().await?;
            rounds[at].push(measured);
        }
    }
    tell(&servers, &rounds, args, stage);
    Ok(())
}

/// How a run went, as it goes.
fn line(label: &str, measured: &Measured) -> String {
    let (run, p99) = (&measured.run, measured.run.latencies.quantile(0.99));
    let shown = match measured.shown {
        (0, 0) => String::new(),
        (messages, pages) => format!("; viewers got {messages} messages and {pages} pages"),
    };
    format!("{label}: {:.0} events/s, p99 {:.1} ms{shown}", run.per_second(), millis(p99))
}

fn tell(servers: &[Server], rounds: &[Vec<Measured>], args: &Args, stage: &mut Stage<'_>) {
    let of = |at: usize, figure: &dyn Fn(&Measured) -> f64| median(rounds[at].iter().map(figure).collect());
    let rates = |at: usize| rounds[at].iter().map(|measured| measured.run.per_second());
    let (events, replicas) = (f64::from(args.events), usize::from(args.replicas));
    // A member of JSON.
    let member = |server: Server| server.name(replicas).replace([' ', '-'], "_");
    let mut table = Table::new(&[
        Column::Whole("SERVER"),
        Column::Number("EVENTS/S"),
        Column::Number("P50 MS"),
        Column::Number("P99 MS"),
        Column::Number("MAX MS"),
        Column::Number("WORK DONE"),
    ]);
    let (mut figures, mut ratios) = (Map::new(), Map::new());
    for (at, server) in servers.iter().enumerate() {
        let quantile = |part: f64| of(at, &|measured| millis(measured.run.latencies.quantile(part)));
        let max = of(at, &|measured| millis(measured.run.latencies.max()));
        let done = server.is_whole().then(|| of(at, &|measured| 1.0 - measured.waiting.unwrap_or_default() as f64 / events));
        table.row([
            &*server.name(replicas),
            &format!("{:.0}", of(at, &|measured| measured.run.per_second())),
            &format!("{:.2}", quantile(0.5)),
            &format!("{:.2}", quantile(0.99)),
            &format!("{max:.2}"),
            &done.map_or(String::new(), |done| format!("{:.0} %", 100.0 * done)),
        ]);
        let figure = json!({
            "events_per_second": of(at, &|measured| measured.run.per_second()),
            "p50_ms": quantile(0.5),
            "p99_ms": quantile(0.99),
            "max_ms": max,
            "work_done_by_last_answer": done,
            "rounds": rates(at).collect::<Vec<_>>(),
        });
        figures.insert(member(*server), figure);
    }
    stage.report.table(table);
    let at = |server: Server| servers.iter().position(|other| *other == server);
    let mut table =
        Table::new(&[Column::Whole("RATIO"), Column::Number("MEDIAN"), Column::Number("LEAST"), Column::Number("MOST")]);
    for (over, under) in RATIOS {
        let (Some(above), Some(below)) = (at(over), at(under)) else { continue };
        let mut all: Vec<f64> = rates(above).zip(rates(below)).map(|(above, below)| above / below).collect();
        all.sort_by(f64::total_cmp);
        let (name, middle) = (format!("{} / {}", over.name(replicas), under.name(replicas)), median(all.clone()));
        table.row([&name, &format!("{middle:.2}"), &format!("{:.2}", all[0]), &format!("{:.2}", all[all.len() - 1])]);
        let ratio = json!({"median": middle, "least": all[0], "most": all[all.len() - 1], "rounds": all.len()});
        ratios.insert(format!("{}_of_{}", member(over), member(under)), ratio);
    }
    if !ratios.is_empty() {
        stage.report.table(table);
    }
    let report = &mut stage.report;
    report.result(json!({"servers": Value::Object(figures), "ratios": Value::Object(ratios)}));
    report.note("Figures are medians of the rounds; a ratio is the median of the rounds' own ratios, and what to quote: sender and server share the cores.");
    report.note("bare reads the body and answers. verify also checks the RSA signature and reads the event. limit also appends what the store keeps in a commit (the row, its key, the body) to a file, through the same HTTP stack, channel and group commit, one fdatasync a batch.");
    report.note("taskhook is the whole program, its workers on, into a log that writes nowhere. WORK DONE is how much of its work was done by the last answer; the rest is done later.");
    if servers.contains(&Server::Watched) {
        report.note("watched is taskhook while dashboards are open: each follows the stream, and loads the page of events again when there are news, at most every 3 s. They are in this process too, so what they read costs as well.");
    }
    report.note("hmac is taskhook with a sender whose own secret verifies: nothing is to be proven.");
    if servers.contains(&Server::PgLimit) || servers.contains(&Server::PgEach) {
        report.note("pg-limit is verify with one writer that keeps a batch by one prepared INSERT into one table, as wide as the store's and with its unique keys (seq, id, key), and nothing else; pg-each is one such INSERT a request, on a pool of 16 connections. Both commit synchronously.");
    }
    if servers.contains(&Server::Replicas) {
        report.note(format!("taskhook x{replicas} is {replicas} processes that share the store, the connections spread over them; taskhook x1 is one process. Both run beside the sender; taskhook alone runs in its process, as the other servers do."));
    }
    report.note(PROVIDER_NOTE);
    if args.rounds < 5 {
        report.note("Fewer than 5 rounds: the medians say little.");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
