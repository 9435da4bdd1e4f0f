//! Jobs, and what follows from them.
//!
//! Every function here is part of one short transaction, under the locks of what its jobs are about. A job is a row only while there
//! is work; what became of it stands on its event or its delivery. What many may need at once is written for many: a statement costs more
//! than a row.

use std::collections::HashSet;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::beat::{is_seen, may_judge};
use super::claim::attempt;
use super::lane::Attempt;
use super::session::{Tx, args, clean, column, number, tidy};
use super::{archive, lane, lock, spending};
use crate::store::Error;
use crate::store::model::{FETCHES, JobKind, Lease, Move, Proof, Released, Stage, TaskNews, text};
use crate::store::spending::tokens;
use crate::task::Fetched;

/// The most leases that are ended in one transaction.
const STEP: usize = 100;

/// A job that is held.
pub(super) struct Held {
    pub(super) kind: String,
    pub(super) queue: String,
    pub(super) subject: i64,
}

/// The jobs that `leases` hold, in their order; one that is held no more is not among them.
pub(super) async fn held(tx: &Tx, leases: &[Lease]) -> Result<Vec<(Lease, Held)>, Error> {
    let (jobs, attempts): (Vec<i64>, Vec<i64>) = leases.iter().map(|lease| (lease.job, i64::from(lease.attempt))).unzip();
    let sql = "SELECT jobs.id, jobs.attempt, kind, queue, subject FROM unnest($1::bigint[], $2::bigint[]) AS lease (job, attempt) \
               JOIN jobs ON jobs.id = lease.job AND jobs.attempt = lease.attempt WHERE state = 'leased' ORDER BY jobs.id FOR UPDATE OF jobs";
    let rows = tx.rows(sql, args![jobs, attempts]).await?;
    let job = |row: &Row| Held { kind: row.get(2), queue: row.get(3), subject: row.get(4) };
    Ok(leases_of(&rows).into_iter().zip(rows.iter().map(job)).collect())
}

/// Whether `lease` still holds. It holds as long as its replica lives, so there is nothing to extend.
pub(super) async fn renew(tx: &Tx, lease: Lease) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM jobs WHERE id = $1 AND attempt = $2 AND state = 'leased'";
    Ok(tx.maybe(sql, args![lease.job, i64::from(lease.attempt)]).await?.is_some())
}

/// Makes a job due at `due_at` with its attempts to begin anew. It gets a new number: one that was used once must never open the
/// fence again.
pub(super) async fn begin_anew(tx: &Tx, lease: Lease, due_at: Timestamp) -> Result<(), Error> {
    tx.run(
        "UPDATE jobs SET id = DEFAULT, state = 'due', due_at = $2, created_at = $2, attempt = 0, first_attempt = 1, started_at = NULL, \
         holder = NULL, behind = NULL, reasons = '{}', settled = EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = jobs.subject \
         AND proof IS NOT NULL) OR EXISTS (SELECT 1 FROM open_events JOIN events ON events.seq = open_events.event \
         WHERE open_events.subject = jobs.subject AND open_events.state = 'proving' AND released_at IS NOT NULL) WHERE id = $1",
        args![lease.job, due_at],
    )
    .await
    .map(drop)
}

/// A step of an event of the job of `queue` and `subject`.
pub(super) type Step<'a> = (&'a str, i64, &'a Move);

/// Takes events where they go, each once.
pub(super) async fn take_steps(tx: &Tx, steps: &[Step<'_>], now: Timestamp) -> Result<(), Error> {
    let (mut moved, mut done, mut deliveries) = (Vec::new(), Vec::new(), Vec::new());
    let (mut fetched, mut archived) = (Vec::new(), Vec::new());
    for (queue, subject, step) in steps {
        let (subject, event) = (*subject, step.event);
        match &step.to {
            Stage::Fetch => {
                moved.push((subject, event, "fetching", None));
                fetched.push((*queue, subject));
            }
            Stage::Archive { told, out_of_order, may_repeat } => {
                moved.push((subject, event, "archiving", None));
                let (told, out_of_order, may_repeat) = (*told, *out_of_order, *may_repeat);
                archived.push((*queue, archive::Entry { event, subject, told, out_of_order, may_repeat }));
            }
            Stage::Quarantine(reason) => moved.push((subject, event, "quarantined", Some(&**reason))),
            Stage::Dead(reason) => moved.push((subject, event, "dead", Some(&**reason))),
            Stage::Done(made) => {
                done.push((subject, event));
                deliveries.extend(made.iter().map(|delivery| (event, subject, delivery)));
            }
        }
    }
    move_events(tx, &moved).await?;
    add_jobs(tx, JobKind::Fetch, &fetched, now).await?;
    archive::enter(tx, &archived, now).await?;
    if !done.is_empty() {
        let (subjects, events): (Vec<i64>, Vec<i64>) = done.into_iter().unzip();
        let sql = "DELETE FROM open_events USING unnest($1::bigint[], $2::bigint[]) AS done (subject, event) \
                   WHERE open_events.subject = done.subject AND open_events.event = done.event";
        tx.run(sql, args![subjects, events]).await?;
    }
    lane::add(tx, &deliveries, now).await
}

/// Makes jobs due now, for each of the subjects with their queues, unless there is one for the same subject. One that only waits to
/// look again is hurried; one that is running will find at its end that more came, and one that backs off after a failure keeps its
/// time.
pub(super) async fn add_jobs(tx: &Tx, kind: JobKind, wanted: &[(&str, i64)], now: Timestamp) -> Result<(), Error> {
    let mut known = HashSet::new();
    let (queues, subjects): (Vec<&str>, Vec<i64>) = wanted.iter().filter(|(_, subject)| known.insert(*subject)).copied().unzip();
    if subjects.is_empty() {
        return Ok(());
    }
    tx.run(
        "INSERT INTO jobs (kind, queue, subject, settled, state, due_at, created_at) SELECT $1, queue, subject, \
         EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = subject AND proof IS NOT NULL), 'due', $4, $4 \
         FROM unnest($2::text[], $3::bigint[]) AS wanted (queue, subject) \
         ON CONFLICT (kind, subject) DO UPDATE SET due_at = excluded.due_at \
         WHERE jobs.state = 'due' AND jobs.attempt = 0 AND jobs.due_at > excluded.due_at",
        args![kind.as_str(), queues, subjects, now],
    )
    .await
    .map(drop)
}

/// The state of the events that wait for a job of this kind.
pub(super) fn stage_of(kind: &str) -> &'static str {
    if kind == JobKind::Prove.as_str() { "proving" } else { "fetching" }
}

pub(super) async fn delete_job(tx: &Tx, lease: Lease) -> Result<(), Error> {
    tx.run("DELETE FROM jobs WHERE id = $1", args![lease.job]).await.map(drop)
}

/// Puts events, each with its subject, into states, for reasons.
async fn move_events(tx: &Tx, moved: &[(i64, i64, &str, Option<&str>)]) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    let (subjects, events): (Vec<i64>, Vec<i64>) = moved.iter().map(|(subject, event, ..)| (*subject, *event)).unzip();
    let (states, reasons): (Vec<&str>, Vec<Option<String>>) =
        moved.iter().map(|(.., state, reason)| (*state, tidy(*reason))).unzip();
    tx.run(
        "UPDATE open_events SET state = moved.state, reason = moved.reason \
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) AS moved (subject, event, state, reason) \
         WHERE open_events.subject = moved.subject AND open_events.event = moved.event",
        args![subjects, events, states, reasons],
    )
    .await
    .map(drop)
}

/// Writes down what was learnt of tasks, of each once. Of an event that names none nothing is ever learnt.
pub(super) async fn learn(tx: &Tx, news: &[(i64, &TaskNews)], at: Timestamp) -> Result<(), Error> {
    let (proven, how): (Vec<i64>, Vec<&str>) = news.iter().filter_map(|(task, news)| Some((*task, news.proof?))).unzip();
    if !proven.is_empty() {
        tx.run(
            "UPDATE tasks SET proof = told.how, proven_at = $3 FROM unnest($1::bigint[], $2::text[]) AS told (task, how) \
             WHERE tasks.seq = told.task AND proof IS NULL",
            args![proven, how, at],
        )
        .await?;
        hurry(tx, proven, at).await?;
    }
    let asked = || news.iter().filter(|(_, news)| news.refused || news.probed);
    let (tasks, refused): (Vec<i64>, Vec<bool>) = asked().map(|(task, news)| (*task, news.refused)).unzip();
    if !tasks.is_empty() {
        let probes: Vec<i64> = asked().map(|(_, news)| i64::from(news.probed)).collect();
        tx.run(
            "UPDATE tasks SET refused_at = coalesce(refused_at, CASE WHEN told.refused THEN $4::timestamptz END), \
             probes = tasks.probes + told.probes FROM unnest($1::bigint[], $2::boolean[], $3::bigint[]) AS told (task, refused, probes) \
             WHERE tasks.seq = told.task",
            args![tasks, refused, probes, at],
        )
        .await?;
    }
    let deleted: Vec<i64> = news.iter().filter(|(_, news)| news.deleted).map(|(task, _)| *task).collect();
    if !deleted.is_empty() {
        let sql = "UPDATE tasks SET deleted_at = coalesce(deleted_at, $2) WHERE seq = ANY($1) AND proof IS NOT NULL";
        tx.run(sql, args![deleted, at]).await?;
    }
    let fetched: Vec<_> =
        news.iter().filter_map(|(task, news)| Some((*task, news.fetched.as_deref()?, news.looked_at))).collect();
    keep_fetched(tx, &fetched, at).await
}

/// Keeps tasks as they were fetched, each once, and up to when all their stops are accounted for.
async fn keep_fetched(tx: &Tx, fetched: &[(i64, &Fetched, Option<Timestamp>)], at: Timestamp) -> Result<(), Error> {
    if fetched.is_empty() {
        return Ok(());
    }
    spending::add(tx, fetched, at).await?;
    let tasks = column(fetched, |(task, ..)| *task);
    tx.run(
        "UPDATE tasks SET state = told.state, title = coalesce(told.title, tasks.title), url = coalesce(told.url, tasks.url), \
         stop_reason = told.stop_reason, credits = coalesce(told.credits, tasks.credits), fetched_at = $7, \
         looked_at = greatest(tasks.looked_at, told.looked_at), input_tokens = coalesce(told.input_tokens, tasks.input_tokens), \
         output_tokens = coalesce(told.output_tokens, tasks.output_tokens), \
         compute_seconds = coalesce(told.compute_seconds, tasks.compute_seconds), cost_usd = coalesce(told.cost_usd, tasks.cost_usd) \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $8::timestamptz[], $9::bigint[], \
         $10::bigint[], $11::float8[], $12::float8[]) AS told (task, state, title, url, stop_reason, credits, looked_at, input_tokens, \
         output_tokens, compute_seconds, cost_usd) WHERE tasks.seq = told.task",
        args![
            tasks,
            column(fetched, |(_, told, _)| told.task.state.as_str()),
            column(fetched, |(_, told, _)| tidy(told.task.title.as_deref())),
            column(fetched, |(_, told, _)| tidy(told.task.url.as_deref())),
            column(fetched, |(_, told, _)| tidy(told.task.stop_reason.as_deref())),
            column(fetched, |(_, told, _)| told.task.credits),
            at,
            column(fetched, |(.., looked_at)| *looked_at),
            column(fetched, |(_, told, _)| tokens(told.task.usage.input_tokens)),
            column(fetched, |(_, told, _)| tokens(told.task.usage.output_tokens)),
            column(fetched, |(_, told, _)| told.task.usage.compute_seconds),
            column(fetched, |(_, told, _)| told.task.usage.cost_usd),
        ],
    )
    .await?;
    let (mut wholes, mut files, mut raws) = (Vec::new(), Vec::new(), Vec::new());
    for (_, told, _) in fetched {
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Database(error.to_string()));
        wholes.push(json(serde_json::to_string(&told.task))?);
        files.push(json(serde_json::to_string(&told.files))?);
        raws.push(told.raw.as_str());
    }
    tx.run(
        "INSERT INTO fetched_tasks (task_seq, task, files, raw, anchor, fetches) \
         SELECT seq, task, files, raw, anchor, ARRAY[noted] \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
         AS told (seq, task, files, raw, anchor, noted) ON CONFLICT (task_seq) \
         DO UPDATE SET task = excluded.task, files = excluded.files, raw = excluded.raw, anchor = excluded.anchor, \
         fetches = (fetched_tasks.fetches || excluded.fetches)[greatest(cardinality(fetched_tasks.fetches) + 2 - $7::int, 1):]",
        args![
            tasks,
            wholes,
            files,
            raws,
            column(fetched, |(_, told, _)| tidy(told.stands_at.as_deref())),
            column(fetched, |(_, told, _)| format!("{} {}", text(at), told.task.state)),
            FETCHES,
        ],
    )
    .await
    .map(drop)
}

/// Writes down proofs; the first one of a task stands.
pub(super) async fn prove(tx: &Tx, source: &str, proofs: &[Proof], at: Timestamp) -> Result<(), Error> {
    let mut proofs: Vec<_> = proofs.iter().collect();
    // In one order for all, since each locks the row of its task.
    proofs.sort_by(|one, other| one.task_id.cmp(&other.task_id));
    let ids: Vec<String> = proofs.iter().map(|proof| clean(&proof.task_id).into_owned()).collect();
    let how: Vec<&str> = proofs.iter().map(|proof| proof.how).collect();
    let titles: Vec<Option<String>> = proofs.iter().map(|proof| tidy(proof.title.as_deref())).collect();
    let urls: Vec<Option<String>> = proofs.iter().map(|proof| tidy(proof.url.as_deref())).collect();
    // One that is new here is proven as it is made: no work can be on it yet.
    let made = tx
        .run(
            "INSERT INTO tasks (source, task_id, proof, proven_at, title, url, first_seen_at) SELECT $1, task_id, how, $6, title, url, $6 \
             FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS proof (task_id, how, title, url) \
             ON CONFLICT (task_id, source) DO NOTHING",
            args![source, ids, how, titles, urls, at],
        )
        .await?;
    if made == proofs.len() as u64 {
        return Ok(());
    }
    let sql = "SELECT seq FROM tasks WHERE source = $1 AND task_id = ANY($2) AND proof IS NULL";
    let tasks: Vec<i64> = tx.rows(sql, args![source, ids]).await?.iter().map(|row| row.get(0)).collect();
    if tasks.is_empty() {
        return Ok(());
    }
    lock::subjects(tx, tasks).await?;
    tx.run(
        "WITH proven AS (UPDATE tasks SET proof = proof.how, proven_at = $6, title = coalesce(proof.title, tasks.title), \
         url = coalesce(proof.url, tasks.url) FROM (SELECT DISTINCT ON (task_id) * FROM unnest($2::text[], $3::text[], \
         $4::text[], $5::text[]) \
         AS proof (task_id, how, title, url)) AS proof \
         WHERE tasks.task_id = proof.task_id AND tasks.source = $1 AND tasks.proof IS NULL RETURNING seq) \
         UPDATE jobs SET settled = true, due_at = CASE WHEN state = 'due' THEN least(due_at, $6) ELSE due_at END \
         FROM proven WHERE kind = 'prove' AND subject = proven.seq",
        args![source, ids, how, titles, urls, at],
    )
    .await?;
    Ok(())
}

/// What waited for the proof of tasks, or for a person's word, need not wait for its next turn.
pub(super) async fn hurry(tx: &Tx, subjects: Vec<i64>, at: Timestamp) -> Result<(), Error> {
    tx.run(
        "UPDATE jobs SET settled = true, due_at = CASE WHEN state = 'due' THEN least(due_at, $2) ELSE due_at END \
         WHERE kind = 'prove' AND subject = ANY($1)",
        args![subjects, at],
    )
    .await
    .map(drop)
}

/// Gives jobs back that were claimed and not begun: as if they had never been claimed.
pub(super) async fn hand_back(tx: &Tx, leases: &[Lease], now: Timestamp) -> Result<(), Error> {
    lock::leased(tx, leases).await?;
    for (lease, Held { kind, subject, .. }) in held(tx, leases).await? {
        // A new number, for the same reason as in [`begin_anew`].
        let sql = "UPDATE jobs SET id = DEFAULT, state = 'due', due_at = $2, attempt = attempt - 1, started_at = NULL, holder = NULL \
                   WHERE id = $1";
        tx.run(sql, args![lease.job, now]).await?;
        if kind == JobKind::Deliver.as_str() {
            lane::step_back(tx, subject, now).await?;
        }
    }
    Ok(())
}

/// Ends some leases of replicas that are gone: what they were sending has an unknown outcome. Says how many, and whether that is all.
pub(super) async fn expire(tx: &Tx, me: Uuid, now: Timestamp) -> Result<(usize, bool), Error> {
    let rows = tx
        .rows(
            concat!(
                "SELECT id, attempt FROM jobs WHERE state = 'leased' AND holder IS DISTINCT FROM $1 \
                 AND NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = jobs.holder AND ",
                is_seen!(),
                ") AND ",
                may_judge!("$1"),
                " ORDER BY id LIMIT $2"
            ),
            args![me, number(STEP)],
        )
        .await?;
    let leases = leases_of(&rows);
    if leases.is_empty() {
        return Ok((0, true));
    }
    Ok((end_leases(tx, &leases, now).await?, leases.len() < STEP))
}

/// The leases that rows tell of by their job and its attempt.
pub(super) fn leases_of(rows: &[Row]) -> Vec<Lease> {
    rows.iter().map(|row| Lease { job: row.get(0), attempt: attempt(row.get(1)) }).collect()
}

/// Ends leases that nobody holds any more; says how many.
pub(super) async fn end_leases(tx: &Tx, leases: &[Lease], now: Timestamp) -> Result<usize, Error> {
    lock::leased(tx, leases).await?;
    let held = held(tx, leases).await?;
    let ended = held.len();
    for (lease, Held { kind, subject, .. }) in held {
        if kind == JobKind::Deliver.as_str() {
            let unknown = Attempt { job: lease.job, outcome: "unknown", detail: Some("taskhook ended before the answer came") };
            lane::end_attempts(tx, &[unknown], now).await?;
        }
        tx.run("UPDATE jobs SET state = 'due', due_at = $2, holder = NULL WHERE id = $1", args![lease.job, now]).await?;
        if kind == JobKind::Deliver.as_str() {
            lane::step_back(tx, subject, now).await?;
        }
    }
    Ok(ended)
}

/// Lets an event out of quarantine, on a person's word.
pub(super) async fn release(tx: &Tx, event: Uuid, now: Timestamp) -> Result<Released, Error> {
    let sql = "SELECT seq FROM events WHERE id = $1";
    let Some(row) = tx.maybe(sql, args![event]).await? else { return Ok(Released::Unknown) };
    let seq: i64 = row.get(0);
    lock::events(tx, vec![seq]).await?;
    let sql = "SELECT source, subject, state FROM standing WHERE seq = $1";
    let Some(row) = tx.maybe(sql, args![seq]).await? else { return Ok(Released::Unknown) };
    let (source, subject, state): (&str, i64, String) = (row.get(0), row.get(1), row.get(2));
    if state != "quarantined" {
        return Ok(Released::Not(state));
    }
    move_events(tx, &[(subject, seq, "proving", None)]).await?;
    tx.run("UPDATE events SET released_at = $2 WHERE seq = $1", args![seq, now]).await?;
    add_jobs(tx, JobKind::Prove, &[(source, subject)], now).await?;
    hurry(tx, vec![subject], now).await?;
    Ok(Released::Yes)
}
