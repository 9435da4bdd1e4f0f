//! What a person asks of the store as a whole: what it holds, in numbers, and whether its rows fit together.
//!
//! What must hold: nothing is written, and each look is one snapshot, so that what replicas do meanwhile is never taken for a fault. It
//! may take long: what is deleted meanwhile, the server's vacuum leaves until it has ended.

use std::collections::HashMap;
use std::sync::mpsc::{self, Sender};
use std::thread;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::session::{Kind, Sessions, Tx, args, number};
use super::{Way, block_on, open};
use crate::store::care::{Count, Finding, Progress, Stats, Table, Tell};
use crate::store::model::text;
use crate::store::view::Totals;
use crate::store::{Config, Error};

/// Some of the rows that `$rows` finds, and how many there are in all.
macro_rules! counted {
    ($rows:literal) => {
        concat!("SELECT row::text, count(*) OVER () FROM (", $rows, ") AS found (row) LIMIT 5")
    };
}

/// What must not be: each in words, and the rows that are so.
const FAULTS: &[(&str, &str)] = &[
    (
        "an event waits and nobody would come back for it: it has no job",
        counted!(
            "SELECT event FROM open_events WHERE state IN ('proving', 'fetching', 'archiving') AND NOT EXISTS (SELECT 1 FROM jobs \
             WHERE jobs.subject = open_events.subject AND jobs.kind = CASE open_events.state WHEN 'proving' THEN 'prove' \
             WHEN 'fetching' THEN 'fetch' ELSE 'archive' END) \
             AND NOT EXISTS (SELECT 1 FROM intake WHERE intake.event = open_events.event)"
        ),
    ),
    (
        "an event is in a state that this program does not know",
        counted!("SELECT event FROM open_events WHERE state NOT IN ('proving', 'fetching', 'archiving', 'quarantined', 'dead')"),
    ),
    (
        "what is open is no event that is kept",
        counted!("SELECT event FROM open_events WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = open_events.event)"),
    ),
    (
        "what is to be taken in is no event that is kept",
        counted!("SELECT event FROM intake WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = intake.event)"),
    ),
    (
        "an event waits for files, and it is not written down since when",
        counted!(
            "SELECT event FROM open_events WHERE state = 'archiving' \
             AND NOT EXISTS (SELECT 1 FROM archiving WHERE archiving.event = open_events.event)"
        ),
    ),
    (
        "an event is told to wait for files, and does not",
        counted!(
            "SELECT event FROM archiving WHERE NOT EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = archiving.subject \
             AND open_events.event = archiving.event AND open_events.state = 'archiving')"
        ),
    ),
    (
        "a delivery is the first of its lane and has no job",
        counted!(
            "SELECT id FROM deliveries WHERE state = 'pending' AND NOT EXISTS (SELECT 1 FROM deliveries AS earlier \
             WHERE earlier.destination = deliveries.destination AND earlier.lane = deliveries.lane AND earlier.state = 'pending' \
             AND earlier.seq < deliveries.seq) \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.kind = 'deliver' AND jobs.subject = deliveries.seq)"
        ),
    ),
    (
        "a delivery has no content",
        counted!("SELECT id FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM delivery_bodies WHERE delivery = deliveries.seq)"),
    ),
    (
        "a delivery is of no event that is kept",
        counted!("SELECT id FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.seq = deliveries.event)"),
    ),
    (
        "the content of a delivery is left, and the delivery is not",
        counted!(
            "SELECT delivery FROM delivery_bodies WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = delivery)"
        ),
    ),
    (
        "an attempt is left, and its delivery is not",
        counted!(
            "SELECT DISTINCT delivery FROM attempts WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = delivery)"
        ),
    ),
    (
        "a job is about a delivery that is not pending, or not there",
        counted!(
            "SELECT id FROM jobs WHERE kind = 'deliver' \
             AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = jobs.subject AND deliveries.state = 'pending')"
        ),
    ),
    (
        "a job is about a task, or an event without one, that is not there",
        counted!(
            "SELECT id FROM jobs WHERE kind <> 'deliver' AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = jobs.subject) \
             AND NOT EXISTS (SELECT 1 FROM events WHERE events.seq = -jobs.subject)"
        ),
    ),
    (
        "a job is leased, and to nobody: it would never be taken up again",
        counted!("SELECT id FROM jobs WHERE state = 'leased' AND holder IS NULL"),
    ),
    (
        "an event was taken in and is not among those of its task",
        counted!(
            "SELECT id FROM events WHERE task_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM intake WHERE intake.event = events.seq) \
             AND NOT EXISTS (SELECT 1 FROM tasks JOIN task_events ON task_events.task = tasks.seq \
             WHERE tasks.task_id = events.task_id AND tasks.source = events.source AND task_events.event = events.seq)"
        ),
    ),
    (
        "an event is among those of a task, and it or the task is not there",
        counted!(
            "SELECT event FROM task_events WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = task) \
             OR NOT EXISTS (SELECT 1 FROM events WHERE events.seq = event)"
        ),
    ),
    (
        "a file waits to be saved and nobody would come back for it: it has no job",
        counted!(
            "SELECT subject FROM files WHERE status = 'pending' \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.kind = 'archive' AND jobs.subject = files.subject)"
        ),
    ),
    (
        "a file is saved, and it is not written down under which digest",
        counted!("SELECT seq FROM files WHERE status = 'archived' AND sha256 IS NULL"),
    ),
    (
        "a file is of a task, or an event without one, that is not there",
        counted!(
            "SELECT seq FROM files WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = files.subject) \
             AND NOT EXISTS (SELECT 1 FROM events WHERE events.seq = -files.subject)"
        ),
    ),
    (
        "a fetched task is left, and its task is not",
        counted!("SELECT task_seq FROM fetched_tasks WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = task_seq)"),
    ),
];

/// Counts what the store holds.
pub(super) async fn totals(sessions: &Sessions) -> Result<Totals, Error> {
    let tx = look(sessions).await?;
    let sql = "SELECT (SELECT count(*) FROM events), coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class \
               WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'";
    let row = tx.row(sql, &[]).await;
    let row = tx.end(row).await?;
    Ok(Totals { events: unsigned(row.get(0)), bytes: unsigned(row.get(1)), free_bytes: 0 })
}

/// Why what is done to files cannot be done to the store.
pub(in crate::store) fn no_file(config: &Config) -> Error {
    let problem = "it is in no file that could be copied".to_owned();
    let hint =
        "back up and restore the database with its own tools, such as `pg_dump`; what is pending in a backup may be sent again"
            .to_owned();
    Way::main(config).map_or_else(|error| error, |way| Error::Server { place: way.place, problem, hint })
}

/// Looks for rows that do not fit together. Whether a table's pages and indexes are sound is for the server's own tools.
pub(in crate::store) fn check(config: &Config, tell: Tell<'_>) -> Result<Vec<Finding>, Error> {
    heard(tell, |say| find(config, say))
}

/// Measures the store.
pub(in crate::store) fn stats(config: &Config, tell: Tell<'_>) -> Result<Stats, Error> {
    heard(tell, |say| measure(config, say))
}

/// Digests and sizes of the contents that must be in the archive, those after `after`.
pub(in crate::store) fn archived(config: &Config, after: &str, limit: usize) -> Result<Vec<(String, Option<u64>)>, Error> {
    block_on(async {
        let (_, tx) = enter(config).await?;
        let sql = "SELECT sha256, max(size_bytes) FROM files WHERE sha256 IS NOT NULL AND sha256 > $1 AND status = 'archived' \
                   GROUP BY sha256 ORDER BY sha256 LIMIT $2";
        let rows = tx.rows(sql, args![after, number(limit)]).await;
        let rows = tx.end(rows).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, Option<i64>>(1).map(unsigned))).collect())
    })
}

/// Does `work`, and passes on to `tell` how far it says that it has come.
fn heard<T: Send, W: Future<Output = Result<T, Error>> + Send>(
    tell: Tell<'_>,
    work: impl FnOnce(Sender<Progress>) -> W,
) -> Result<T, Error> {
    let (say, said) = mpsc::channel();
    let work = work(say);
    thread::scope(|scope| {
        let done = scope.spawn(|| block_on(work));
        for progress in said {
            tell(progress);
        }
        done.join().unwrap_or_else(|_| Err(Error::Unavailable("a thread ended (a bug)".to_owned())))
    })
}

/// A snapshot of the store that may be looked at for as long as that takes, and the way there.
async fn enter(config: &Config) -> Result<(Way, Tx), Error> {
    let way = Way::main(config)?;
    let (sessions, _) = open::peek(&way).await?;
    let tx = look(&sessions).await?;
    Ok((way, tx))
}

async fn look(sessions: &Sessions) -> Result<Tx, Error> {
    let tx = sessions.begin(Kind::Read).await?;
    tx.batch("SET LOCAL statement_timeout = 0").await?;
    Ok(tx)
}

async fn find(config: &Config, say: Sender<Progress>) -> Result<Vec<Finding>, Error> {
    let (_, tx) = enter(config).await?;
    let found = find_in(&tx, say).await;
    tx.end(found).await
}

async fn find_in(tx: &Tx, say: Sender<Progress>) -> Result<Vec<Finding>, Error> {
    let (mut findings, total) = (Vec::new(), FAULTS.len() as u64);
    for (done, (problem, sql)) in (0..).zip(FAULTS) {
        tell(&say, Progress { what: "looking at the rows", done, total });
        let rows = tx.rows(sql, &[]).await?;
        if let Some(first) = rows.first() {
            let examples = rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect();
            findings.push(Finding { problem: (*problem).to_owned(), count: first.get(1), examples });
        }
    }
    Ok(findings)
}

async fn measure(config: &Config, say: Sender<Progress>) -> Result<Stats, Error> {
    let (way, tx) = enter(config).await?;
    tell(&say, Progress { what: "counting", done: 0, total: 0 });
    let stats = measure_in(&tx, way.place).await;
    tx.end(stats).await
}

/// Whoever listened may have gone.
fn tell(say: &Sender<Progress>, progress: Progress) {
    let _ = say.send(progress);
}

async fn measure_in(tx: &Tx, place: String) -> Result<Stats, Error> {
    let tables = tables(tx).await?;
    let rows = |name: &str| tables.iter().find(|table| table.name == name).map_or(0, |table| table.rows);
    let bytes = tables.iter().map(|table| table.bytes).sum();
    let told: HashMap<String, String> =
        tx.rows("SELECT name, value FROM store", &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let first = |row: Option<Row>| row.map(|row| text(row.get::<_, Timestamp>(0)));
    let removed = ["events", "tasks", "files"].map(|what| {
        let count = told.get(&format!("removed_{what}")).and_then(|count| count.parse().ok()).unwrap_or(0);
        Count { name: what.to_owned(), count }
    });
    Ok(Stats {
        place,
        file_bytes: bytes,
        log_bytes: None,
        free_bytes: None,
        shrinks: None,
        schema: told.get("schema").cloned().unwrap_or_default(),
        created_at: told.get("created_at").cloned(),
        restored_at: told.get("restored_at").cloned(),
        oldest_event: first(tx.maybe("SELECT received_at FROM events ORDER BY seq LIMIT 1", &[]).await?),
        newest_event: first(tx.maybe("SELECT received_at FROM events ORDER BY seq DESC LIMIT 1", &[]).await?),
        bytes_per_event: bytes.checked_div(unsigned(rows("events"))),
        events: events(tx, rows("events")).await?,
        deliveries: counts(&tx.rows("SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state", &[]).await?),
        removed: removed.into(),
        tables,
    })
}

/// Events by state, of which there are `all`.
async fn events(tx: &Tx, all: i64) -> Result<Vec<Count>, Error> {
    let sql = "SELECT state, count(*) FROM (SELECT state FROM open_events UNION ALL \
               SELECT 'proving' FROM intake JOIN events ON events.seq = intake.event WHERE NOT kept AND NOT EXISTS \
               (SELECT 1 FROM open_events WHERE open_events.subject = -events.seq AND open_events.event = events.seq)) AS open \
               GROUP BY state ORDER BY state";
    let mut counts = counts(&tx.rows(sql, &[]).await?);
    let open: i64 = counts.iter().map(|each| each.count).sum();
    counts.push(Count { name: "done or kept".to_owned(), count: all - open });
    Ok(counts)
}

fn counts(rows: &[Row]) -> Vec<Count> {
    rows.iter().map(|row| Count { name: row.get(0), count: row.get(1) }).collect()
}

/// The tables, each with its indexes, the largest first.
async fn tables(tx: &Tx) -> Result<Vec<Table>, Error> {
    let rows = tx
        .rows(
            "SELECT relname::text, coalesce(rows, 0), pg_total_relation_size(oid) FROM pg_class LEFT JOIN ( \
             SELECT 'archiving', count(*) FROM archiving UNION ALL \
             SELECT 'attempts', count(*) FROM attempts UNION ALL \
             SELECT 'deliveries', count(*) FROM deliveries UNION ALL \
             SELECT 'delivery_bodies', count(*) FROM delivery_bodies UNION ALL \
             SELECT 'erased_keys', count(*) FROM erased_keys UNION ALL \
             SELECT 'erased_tasks', count(*) FROM erased_tasks UNION ALL \
             SELECT 'events', count(*) FROM events UNION ALL \
             SELECT 'fetched_tasks', count(*) FROM fetched_tasks UNION ALL \
             SELECT 'files', count(*) FROM files UNION ALL \
             SELECT 'intake', count(*) FROM intake UNION ALL \
             SELECT 'jobs', count(*) FROM jobs UNION ALL \
             SELECT 'open_events', count(*) FROM open_events UNION ALL \
             SELECT 'own_keys', count(*) FROM own_keys UNION ALL \
             SELECT 'paused', count(*) FROM paused UNION ALL \
             SELECT 'posts', count(*) FROM posts UNION ALL \
             SELECT 'queues', count(*) FROM queues UNION ALL \
             SELECT 'rejections', count(*) FROM rejections UNION ALL \
             SELECT 'replays', count(*) FROM replays UNION ALL \
             SELECT 'replicas', count(*) FROM replicas UNION ALL \
             SELECT 'restored_events', count(*) FROM restored_events UNION ALL \
             SELECT 'store', count(*) FROM store UNION ALL \
             SELECT 'task_events', count(*) FROM task_events UNION ALL \
             SELECT 'tasks', count(*) FROM tasks UNION ALL \
             SELECT 'unwanted_files', count(*) FROM unwanted_files UNION ALL \
             SELECT 'verification_keys', count(*) FROM verification_keys) AS counted (name, rows) ON counted.name = relname \
             WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 3 DESC, 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| Table { name: row.get(0), rows: row.get(1), bytes: unsigned(row.get(2)) }).collect())
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
