//! `taskhook bench claim`: what a claim costs while many jobs wait.
//!
//! What must hold: a claim is the store's own, with its commit; the jobs are rows as the program makes them, and all that is not due
//! only stands there. Each number of them has a store of its own.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::output::{Column, Table};
use super::super::{Context, Error, Result};
use super::fill::{Rows, fill};
use super::latency::Latencies;
use super::progress::Counter;
use super::{BENCH, Common, Stage, play};
use crate::store::Store;
use crate::store::model::{Capacity, JobKind, Which};

/// Queues that the jobs are spread over.
const QUEUES: usize = 8;
/// Jobs that are due, beside those that wait; a claim takes one, and some are left at the end.
const DUE: u32 = 320;
/// Claims that are not counted, so that all that is needed has been read once; and those that are.
const CLAIMS: (usize, usize) = (40, 240);
/// How long it may take until the store gives jobs out at all: another replica could have them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one claim costs with few and with many waiting jobs
///
/// Deliveries that are due later are put into a store by plain SQL, with a few hundred that are due now, spread over eight destinations. Then one job after the other is claimed through the store, in this process; a claim ends with its commit.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many jobs wait
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10000,1000000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: Vec<u32>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    play("claim", &args.common, context, async |stage| measure(args, stage).await)
}

async fn measure(args: &Args, stage: &mut Stage<'_>) -> Result {
    let mut measured = Vec::with_capacity(args.jobs.len());
    for jobs in &args.jobs {
        let folder = stage.subfolder()?;
        let (place, made, now) = (stage.ground.place(folder.path()), Counter::default(), stage.clock.now());
        let store = Store::open(&place.store, stage.clock.clone()).await.map_err(Error::from)?;
        let all = jobs + DUE;
        stage
            .progress
            .during(&format!("making {jobs} jobs"), all.into(), &made, fill(&place, &ROWS, (all, now, DUE), &made))
            .await?;
        let claimed = Counter::default();
        let claiming = claims(&store, stage, &claimed).await?;
        drop(store);
        place.clear().await?;
        stage.progress.say(&format!("{jobs} jobs: p50 {} µs", micros(&claiming, 0.5)))?;
        measured.push((*jobs, claiming));
    }
    stage.report.setting("queues", QUEUES);
    stage.report.setting("due", DUE);
    tell(&measured, stage);
    Ok(())
}

const ROWS: Rows = Rows { sqlite: &SQLITE, postgres: &POSTGRES, tables: &["jobs", "deliveries", "delivery_bodies"] };

/// What makes the deliveries from one number to another, what they send, and their jobs. Those up to the number ?4 are due, the others from
/// a day later than ?3 on. Their events are nobody's here.
const SQLITE: [&str; 3] = [
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO deliveries (seq, id, event, destination, route, lane, state, created_at) \
     SELECT i, printf('%08x-0000-4000-8000-%012x', i * 2654435761 % 4294967296, i), i, 'bench_' || (i % 8), 'bench', -i, 'pending', ?3 \
     FROM each WHERE ?4 > 0",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO delivery_bodies (delivery, body) SELECT i, '{}' FROM each WHERE ?3 IS NOT NULL AND ?4 > 0",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) SELECT 'deliver', 'bench_' || (i % 8), i, 'due', \
     strftime('%Y-%m-%dT%H:%M:%fZ', ?3, iif(i <= ?4, '-' || i, '+' || (86400 + i)) || ' seconds'), ?3 FROM each",
];

/// The same.
const POSTGRES: [&str; 3] = [
    "INSERT INTO deliveries (seq, id, event, destination, route, lane, state, created_at) \
     SELECT i, md5(i::text)::uuid, i, 'bench_' || i % 8, 'bench', -i, 'pending', $3::timestamptz \
     FROM generate_series($1::bigint, $2::bigint) AS i WHERE $4::bigint > 0",
    "INSERT INTO delivery_bodies (delivery, body) SELECT i, '{}' FROM generate_series($1::bigint, $2::bigint) AS i \
     WHERE $3::timestamptz IS NOT NULL AND $4::bigint > 0",
    "INSERT INTO jobs (kind, queue, subject, state, due_at, created_at) SELECT 'deliver', 'bench_' || i % 8, i, 'due', \
     $3::timestamptz + (CASE WHEN i <= $4::bigint THEN -i ELSE 86400 + i END) * interval '1 second', $3 \
     FROM generate_series($1::bigint, $2::bigint) AS i",
];

/// Claims one job after the other; how long each took.
async fn claims(store: &Store, stage: &Stage<'_>, claimed: &Counter) -> Result<Latencies> {
    let (clock, begun, mut latencies) = (&stage.clock, stage.clock.elapsed(), Latencies::new());
    let (unmeasured, measured) = CLAIMS;
    for number in 0..unmeasured + measured {
        let queue = format!("{BENCH}_{}", number % QUEUES);
        loop {
            let capacity = Capacity { kind: JobKind::Deliver, queue: queue.clone(), which: Which::Any, limit: 1 };
            let (asked, now) = (clock.elapsed(), clock.now());
            let found = store.claim(vec![capacity], now).await.map_err(Error::from)?.jobs.len();
            let took = clock.elapsed().saturating_sub(asked);
            if found == 1 {
                if number >= unmeasured {
                    latencies.record(took);
                }
                claimed.add(1);
                break;
            }
            if number >= unmeasured || clock.elapsed().saturating_sub(begun) > PATIENCE {
                return Err(Error::failed(format!("claim {number} found {found} jobs, not one")).into());
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(latencies)
}

fn micros(latencies: &Latencies, part: f64) -> u64 {
    u64::try_from(latencies.quantile(part).as_micros()).unwrap_or(u64::MAX)
}

fn tell(measured: &[(u32, Latencies)], stage: &mut Stage<'_>) {
    let mut table = Table::new(&[
        Column::Number("WAITING JOBS"),
        Column::Number("CLAIMS"),
        Column::Number("P50 µS"),
        Column::Number("P99 µS"),
        Column::Number("MAX µS"),
    ]);
    for (jobs, latencies) in measured {
        let figures = [0.5, 0.99, 1.0].map(|part| micros(latencies, part).to_string());
        table.row([&jobs.to_string(), &CLAIMS.1.to_string(), &figures[0], &figures[1], &figures[2]]);
    }
    let report = &mut stage.report;
    report.table(table);
    let fewest = measured.iter().min_by_key(|(jobs, _)| jobs);
    let most = measured.iter().max_by_key(|(jobs, _)| jobs);
    let mut ratio = Value::Null;
    if let (Some((few, fewest)), Some((many, most))) = (fewest, most)
        && few < many
    {
        let of = |part| micros(most, part) as f64 / micros(fewest, part).max(1) as f64;
        let (p50, p99) = (of(0.5), of(0.99));
        report.facts(vec![("ratio", format!("{many} jobs / {few} jobs: p50 {p50:.2}, p99 {p99:.2}"))]);
        ratio = json!({"jobs": many, "of_jobs": few, "p50": p50, "p99": p99});
    }
    let row = |(jobs, latencies): &(u32, Latencies)| json!({"jobs": jobs, "claims": CLAIMS.1, "p50_us": micros(latencies, 0.5), "p99_us": micros(latencies, 0.99)});
    report.result(json!({"claims": measured.iter().map(row).collect::<Vec<_>>(), "ratio": ratio}));
    report.note("A claim takes one job of one destination, counts its attempt, reads what is to be sent, and commits: the sync of the disk is in it. Nothing else works on the store.");
    report.note(
        "The jobs that wait are due from a day later on. They are made by plain SQL, with their deliveries, but without events.",
    );
}
