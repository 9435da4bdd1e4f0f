//! Claiming jobs that are due, with what they work on.
//!
//! What must hold: a job is claimed by one replica, which nobody else takes its queue from meanwhile, and its attempt is counted in the
//! same commit. Rows that another transaction holds are passed over, never waited for.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::session::{Tx, args, number};
use super::{hold, intake, lane};
use crate::event::Verification;
use crate::store::Error;
use crate::store::model::{Capacity, Claimed, Job, JobKind, Known, Lease, StoredEvent, Which, Work};
use uuid::Uuid;

/// The most events that one job works on at once; the rest come in its next turn.
const WAITING: usize = 20;

/// A job that was leased, before what it works on is known.
struct Leased {
    lease: Lease,
    kind: JobKind,
    queue: String,
    subject: i64,
    overdue_in_lane: bool,
    created_at: Timestamp,
}

/// Takes in events that were kept; then leases due jobs, as many as there is capacity for, and loads what they work on.
pub(super) async fn claim(tx: &Tx, me: Uuid, capacities: &[Capacity], now: Timestamp) -> Result<Claimed, Error> {
    let more = intake::take_in(tx, now).await?;
    let paused = tx.rows("SELECT destination FROM paused", &[]).await?;
    let paused: Vec<String> = paused.iter().map(|row| row.get(0)).collect();
    let may =
        |capacity: &Capacity| capacity.limit > 0 && !(capacity.kind == JobKind::Deliver && paused.contains(&capacity.queue));
    let capacities: Vec<_> = hold::ours(tx, me, capacities).await?.into_iter().filter(may).collect();
    if capacities.is_empty() {
        return Ok(Claimed { more, ..Claimed::default() });
    }
    let leased = lease(tx, me, &capacities, now).await?;
    let next_due = next_due(tx, &capacities).await?;
    Ok(Claimed { jobs: load(tx, leased).await?, next_due, more })
}

/// Capacities for some jobs of their queues, as columns: kinds, queues and limits.
fn columns(capacities: &[Capacity], which: Which) -> (Vec<&str>, Vec<&str>, Vec<i64>) {
    let some = || capacities.iter().filter(move |capacity| capacity.which == which);
    let (kinds, queues) = some().map(|capacity| (capacity.kind.as_str(), capacity.queue.as_str())).unzip();
    (kinds, queues, some().map(|capacity| number(capacity.limit)).collect())
}

/// Of each queue that is `wanted` the jobs that are due longest, as many as are wanted `most`; the state tells whether one waited for its
/// turn. Those that are settled and those that are not have an index each.
macro_rules! due {
    ($like:literal) => {
        concat!(
            " CROSS JOIN LATERAL (SELECT id, state, due_at FROM jobs WHERE ",
            $like,
            " AND jobs.queue = wanted.queue AND due_at <= $1 ORDER BY due_at, id LIMIT most FOR UPDATE SKIP LOCKED) AS due"
        )
    };
}

async fn lease(tx: &Tx, me: Uuid, capacities: &[Capacity], now: Timestamp) -> Result<Vec<Leased>, Error> {
    let (kinds, queues, limits) = columns(capacities, Which::Any);
    let (_, settled, of_settled) = columns(capacities, Which::Settled);
    let (_, unsettled, of_unsettled) = columns(capacities, Which::Unsettled);
    // How many are found is not known when it is planned, so they are asked for by their numbers: else all jobs may be gone through.
    let sql = concat!(
        "WITH found AS MATERIALIZED (SELECT due.* FROM unnest($3::text[], $4::text[], $5::bigint[]) AS wanted (kind, queue, most)",
        due!("jobs.kind = wanted.kind"),
        " UNION ALL SELECT due.* FROM unnest($6::text[], $7::bigint[]) AS wanted (queue, most)",
        due!("kind = 'prove' AND settled"),
        " UNION ALL SELECT due.* FROM unnest($8::text[], $9::bigint[]) AS wanted (queue, most)",
        due!("kind = 'prove' AND NOT settled"),
        "), leased AS (UPDATE jobs SET state = 'leased', due_at = NULL, attempt = attempt + 1, started_at = $1, holder = $2 \
         WHERE id = ANY (ARRAY (SELECT id FROM found)) RETURNING id, attempt, kind, queue, subject, created_at) \
         SELECT leased.*, found.state = 'waiting' FROM leased JOIN found ON found.id = leased.id ORDER BY found.due_at, found.id"
    );
    let rows = tx.rows(sql, args![now, me, kinds, queues, limits, settled, of_settled, unsettled, of_unsettled]).await?;
    let leased = |row: &Row| {
        let kind = JobKind::ALL.into_iter().find(|kind| kind.as_str() == row.get::<_, &str>(2))?;
        Some(Leased {
            lease: Lease { job: row.get(0), attempt: attempt(row.get(1)) },
            kind,
            queue: row.get(3),
            subject: row.get(4),
            overdue_in_lane: row.get(6),
            created_at: row.get(5),
        })
    };
    Ok(rows.iter().filter_map(leased).collect())
}

/// A number of attempts as the rest of the program counts them.
pub(super) fn attempt(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// When the next of these jobs is due. Settled ones never wait, so there is no time to tell.
async fn next_due(tx: &Tx, capacities: &[Capacity]) -> Result<Option<Timestamp>, Error> {
    let (kinds, queues, _) = columns(capacities, Which::Any);
    let (_, unsettled, _) = columns(capacities, Which::Unsettled);
    let next = tx
        .row(
            "SELECT min(due_at) FROM (SELECT next.due_at FROM unnest($1::text[], $2::text[]) AS wanted (kind, queue) \
             CROSS JOIN LATERAL (SELECT due_at FROM jobs WHERE jobs.kind = wanted.kind AND jobs.queue = wanted.queue \
             AND due_at IS NOT NULL ORDER BY due_at, id LIMIT 1) AS next UNION ALL \
             SELECT next.due_at FROM unnest($3::text[]) AS wanted (queue) \
             CROSS JOIN LATERAL (SELECT due_at FROM jobs WHERE kind = 'prove' AND jobs.queue = wanted.queue \
             AND due_at IS NOT NULL AND NOT settled ORDER BY due_at, id LIMIT 1) AS next) AS all_of_them",
            args![kinds, queues, unsettled],
        )
        .await?;
    Ok(next.get(0))
}

/// Loads what jobs work on, all of them at once.
async fn load(tx: &Tx, leased: Vec<Leased>) -> Result<Vec<Job>, Error> {
    let about =
        |wanted: &dyn Fn(&Leased) -> bool| leased.iter().filter(|job| wanted(job)).map(|job| job.subject).collect::<Vec<_>>();
    let deliveries = about(&|job| job.kind == JobKind::Deliver);
    let overdue = about(&|job| job.kind == JobKind::Deliver && job.overdue_in_lane);
    let tasks = about(&|job| job.kind != JobKind::Deliver);
    let mut outgoing = lane::outgoing(tx, deliveries, overdue).await?;
    let known = known(tx, tasks).await?;
    let mut waiting: HashMap<(i64, JobKind), Vec<StoredEvent>> = HashMap::new();
    for (kind, state) in [(JobKind::Prove, "proving"), (JobKind::Fetch, "fetching")] {
        for (subject, event) in open(tx, about(&|job| job.kind == kind), state).await? {
            waiting.entry((subject, kind)).or_default().push(event);
        }
    }
    let mut jobs = Vec::with_capacity(leased.len());
    for Leased { lease, kind, queue, subject, created_at, .. } in leased {
        let (task_id, known) = known.get(&subject).cloned().map_or((None, Known::default()), |(id, known)| (Some(id), known));
        let work = match kind {
            JobKind::Deliver => match outgoing.remove(&subject) {
                Some(outgoing) => Work::Delivery(outgoing),
                None => return Err(Error::Database(format!("delivery {subject} has no content"))),
            },
            JobKind::Archive => Work::Files { task_id, subject },
            JobKind::Prove | JobKind::Fetch => {
                Work::Task { task_id, known, waiting: waiting.remove(&(subject, kind)).unwrap_or_default() }
            }
        };
        jobs.push(Job { lease, kind, queue, created_at, work });
    }
    Ok(jobs)
}

/// What is known of tasks, with their ids.
async fn known(tx: &Tx, subjects: Vec<i64>) -> Result<HashMap<i64, (String, Known)>, Error> {
    if subjects.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = tx
        .rows(
            // What may seem few while nobody has counted them is looked up one by one: else all of them may be gone through.
            "SELECT seq, task_id, proof, refused_at, probes, \
             EXISTS (SELECT 1 FROM open_events WHERE subject = tasks.seq AND open_events.state = 'fetching' OFFSET 0), \
             EXISTS (SELECT 1 FROM open_events WHERE subject = tasks.seq AND open_events.state = 'archiving' OFFSET 0), \
             fetched_at IS NOT NULL FROM tasks WHERE seq = ANY($1)",
            args![subjects],
        )
        .await?;
    let known = |row: &Row| {
        let known = Known {
            proof: row.get(2),
            refused_at: row.get(3),
            probes: attempt(row.get(4)),
            fetching: row.get(5),
            archiving: row.get(6),
            fetched: row.get(7),
        };
        (row.get(0), (row.get(1), known))
    };
    Ok(rows.iter().map(known).collect())
}

/// The first events of each subject that are in `state`, with their subjects.
async fn open(tx: &Tx, subjects: Vec<i64>, state: &str) -> Result<Vec<(i64, StoredEvent)>, Error> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    let rows = tx
        .rows(
            concat!(
                "SELECT ",
                event_columns!(),
                ", first.subject FROM unnest($1::bigint[]) AS wanted (subject) CROSS JOIN LATERAL (SELECT subject, event FROM open_events \
                 WHERE open_events.subject = wanted.subject AND state = $2 ORDER BY event LIMIT $3) AS first \
                 JOIN events ON events.seq = first.event ORDER BY events.seq"
            ),
            args![subjects, state, number(WAITING)],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(14), stored_event(row))).collect())
}

/// The events `seqs`, in the order of acceptance.
pub(super) async fn stored(tx: &Tx, seqs: Vec<i64>) -> Result<Vec<StoredEvent>, Error> {
    let sql = concat!("SELECT ", event_columns!(), " FROM events WHERE seq = ANY($1) ORDER BY seq");
    Ok(tx.rows(sql, args![seqs]).await?.iter().map(stored_event).collect())
}

/// The columns of `events` that [`stored_event`] reads.
macro_rules! event_columns {
    () => {
        "seq, id, source, provider, type, task_id, received_at, verification, collision_of, released_at IS NOT NULL, body, \
         event_id, provider_type, coalesce((SELECT replay FROM replays WHERE replays.event = events.seq), 0)"
    };
}
use event_columns;

fn stored_event(row: &Row) -> StoredEvent {
    StoredEvent {
        seq: row.get(0),
        id: row.get(1),
        source: row.get(2),
        provider: row.get(3),
        kind: row.get(4),
        task_id: row.get(5),
        received_at: row.get(6),
        verification: Verification::of(row.get(7)),
        collision_of: row.get(8),
        released: row.get(9),
        body: Bytes::copy_from_slice(row.get(10)),
        event_id: row.get(11),
        provider_type: row.get(12),
        replay: attempt(row.get(13)),
    }
}
