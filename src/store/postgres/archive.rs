//! Files on their way into the archive, and the events that wait for them.
//!
//! What must hold: an event in the state `archiving` has a row in `archiving` and its subject a job, and so has a file that is
//! `pending`: one that nobody would come back for would be lost in silence. A row of `files` is never deleted here. Both tables
//! belong to a subject: they are written under its lock only.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::claim::{attempt, stored};
use super::session::{Tx, args, clean, column, number, tidy, transact};
use super::work::{Held, add_jobs, begin_anew, delete_job, held, learn, take_steps};
use super::{Postgres, deletion, lock};
use crate::store::Error;
use crate::store::model::{FileRow, Finish, JobKind, Lease, NewFile, Progress, TURN_EVENTS, Told, Waiting};
use crate::task::{Fetched, File, FileStatus, Task};

impl Postgres {
    pub(in crate::store) async fn progress(&self, lease: Lease, now: Timestamp, news: Progress) -> Result<bool, Error> {
        transact!(self.work(), Work, |tx| progress(&tx, lease, now, &news))
    }

    pub(in crate::store) async fn files(&self, subject: i64) -> Result<Vec<FileRow>, Error> {
        transact!(self.work(), WorkRead, |tx| files(&tx, subject))
    }

    pub(in crate::store) async fn waiting_for_files(&self, subject: i64) -> Result<Vec<Waiting>, Error> {
        transact!(self.work(), WorkRead, |tx| waiting(&tx, subject))
    }

    pub(in crate::store) async fn fetched(&self, source: &str, task_id: &str) -> Result<Option<Fetched>, Error> {
        transact!(self.work(), WorkRead, |tx| fetched(&tx, source, task_id))
    }

    pub(in crate::store) async fn own_key(
        &self,
        name: &'static str,
        candidate: Vec<u8>,
        now: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        transact!(self.sessions(), Write, |tx| own_key(&tx, name, &candidate, now))
    }
}

/// An event that waits for files: how its task is known, and whether it goes before something that came earlier.
pub(super) struct Entry {
    pub(super) event: i64,
    pub(super) subject: i64,
    pub(super) told: Told,
    pub(super) out_of_order: bool,
    pub(super) may_repeat: bool,
}

/// Lets events wait for files, each of its source.
pub(super) async fn enter(tx: &Tx, entries: &[(&str, Entry)], at: Timestamp) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    tx.run(
        "INSERT INTO archiving (event, subject, told, out_of_order, may_repeat, since) \
         SELECT event, subject, told, out_of_order, may_repeat, $5 \
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::boolean[], $6::boolean[]) \
         AS entry (event, subject, told, out_of_order, may_repeat) \
         ON CONFLICT (event) DO UPDATE SET subject = excluded.subject, told = excluded.told, since = excluded.since, \
         out_of_order = excluded.out_of_order, may_repeat = excluded.may_repeat",
        args![
            column(entries, |(_, entry)| entry.event),
            column(entries, |(_, entry)| entry.subject),
            column(entries, |(_, entry)| entry.told.as_str()),
            column(entries, |(_, entry)| entry.out_of_order),
            at,
            column(entries, |(_, entry)| entry.may_repeat),
        ],
    )
    .await?;
    add_jobs(tx, JobKind::Archive, &column(entries, |(source, entry)| (*source, entry.subject)), at).await
}

/// Writes down the files of a subject, each told once, with their newest links. To `revive` is to try again at once what failed
/// before, or backs off: its new link may be good. What ended otherwise stays as it is.
pub(super) async fn register(
    tx: &Tx,
    source: &str,
    subject: i64,
    files: &[NewFile],
    revive: bool,
    at: Timestamp,
) -> Result<(), Error> {
    if files.is_empty() {
        return Ok(());
    }
    // In their order: it is the one in which they are told again.
    tx.run(
        "INSERT INTO files (subject, key, event, name, url, content_type, size_bytes, status, reason, due_at, first_seen_at) \
         SELECT $1, key, event, name, url, content_type, size_bytes, CASE WHEN refused IS NULL THEN 'pending' ELSE 'failed' END, \
         refused, CASE WHEN refused IS NULL THEN $2::timestamptz END, $2 FROM unnest($4::text[], $5::bigint[], $6::text[], $7::text[], \
         $8::text[], $9::bigint[], $10::text[]) WITH ORDINALITY \
         AS told (key, event, name, url, content_type, size_bytes, refused, place) ORDER BY place \
         ON CONFLICT (subject, key) DO UPDATE SET url = excluded.url, event = excluded.event, status = excluded.status, \
         reason = excluded.reason, due_at = CASE WHEN $3 THEN excluded.due_at ELSE files.due_at END, ended_at = NULL, \
         attempts = CASE WHEN files.status = 'pending' THEN files.attempts ELSE 0 END, \
         dead_links = CASE WHEN files.status = 'pending' THEN files.dead_links ELSE 0 END \
         WHERE files.status = 'pending' OR ($3 AND files.status IN ('failed', 'skipped'))",
        args![
            subject,
            at,
            revive,
            column(files, |file| clean(&file.key).into_owned()),
            column(files, |file| file.event),
            column(files, |file| clean(&file.name).into_owned()),
            column(files, |file| tidy(file.url.as_deref())),
            column(files, |file| tidy(file.content_type.as_deref())),
            column(files, |file| file.size_bytes.map(number)),
            column(files, |file| tidy(file.refused.as_deref())),
        ],
    )
    .await?;
    if files.iter().any(|file| file.refused.is_none()) {
        add_jobs(tx, JobKind::Archive, &[(source, subject)], at).await?;
    }
    Ok(())
}

/// Keeps what a job has done so far; it goes on.
async fn progress(tx: &Tx, lease: Lease, now: Timestamp, progress: &Progress) -> Result<bool, Error> {
    lock::leased(tx, &[lease]).await?;
    let Some((_, Held { queue: source, subject, .. })) = held(tx, &[lease]).await?.pop() else { return Ok(false) };
    register(tx, &source, subject, &progress.renewed, false, now).await?;
    let files = deletion::safe(tx, progress.files.clone(), progress.deletions, now).await?;
    stand(tx, subject, &files, now).await?;
    learn(tx, &[(subject, &progress.task)], now).await?;
    if !progress.moves.is_empty() {
        let moved = column(&progress.moves, |step| step.event);
        tx.run("DELETE FROM archiving WHERE event = ANY($1)", args![moved]).await?;
    }
    take_steps(tx, &column(&progress.moves, |step| (source.as_str(), subject, step)), now).await?;
    Ok(true)
}

/// Writes down where files of a subject stand now.
async fn stand(tx: &Tx, subject: i64, files: &[FileRow], now: Timestamp) -> Result<(), Error> {
    if files.is_empty() {
        return Ok(());
    }
    tx.run(
        "UPDATE files SET status = news.status, reason = news.reason, sha256 = news.sha256, \
         size_bytes = coalesce(news.size_bytes, files.size_bytes), content_type = coalesce(files.content_type, news.content_type), \
         attempts = news.attempts, due_at = news.due_at, ended_at = CASE WHEN news.status <> 'pending' THEN $2::timestamptz END, \
         dead_links = news.dead_links FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], \
         $8::text[], $9::bigint[], $10::timestamptz[], $11::bigint[]) \
         AS news (key, status, reason, sha256, size_bytes, content_type, attempts, due_at, dead_links) \
         WHERE files.subject = $1 AND files.key = news.key",
        args![
            subject,
            now,
            column(files, |file| file.key.as_str()),
            column(files, |file| file.status.as_str()),
            column(files, |file| tidy(file.reason.as_deref())),
            column(files, |file| file.sha256.as_deref()),
            column(files, |file| file.size_bytes.map(number)),
            column(files, |file| tidy(file.content_type.as_deref())),
            column(files, |file| i64::from(file.attempts)),
            column(files, |file| file.due_at),
            column(files, |file| i64::from(file.dead_links)),
        ],
    )
    .await
    .map(drop)
}

/// Ends a turn: the job is gone if nothing is left to do, else due when its worker said, or at once if something came meanwhile.
/// The lock of its subject is held, and its row.
pub(super) async fn finish(tx: &Tx, lease: Lease, subject: i64, now: Timestamp, finish: &Finish) -> Result<(), Error> {
    let left = tx
        .row(
            "SELECT (SELECT max(event) FROM archiving WHERE subject = $1), \
             (SELECT min(coalesce(due_at, $2)) FROM files WHERE subject = $1 AND status = 'pending')",
            args![subject, now],
        )
        .await?;
    let (newest, due_at): (Option<i64>, Option<Timestamp>) = (left.get(0), left.get(1));
    if newest.is_none() && due_at.is_none() {
        return delete_job(tx, lease).await;
    }
    let came_meanwhile = (newest > finish.seen).then_some(now);
    let due_at = [came_meanwhile, finish.again_at, due_at].into_iter().flatten().min();
    begin_anew(tx, lease, due_at.unwrap_or(now).max(now)).await
}

/// Gives up on a subject, whose lock is held: its events are dead letters, its files have failed.
pub(super) async fn bury(tx: &Tx, lease: Lease, subject: i64, reason: &str, at: Timestamp) -> Result<(), Error> {
    tx.run(
        "UPDATE open_events SET state = 'dead', reason = $2, \
         reasons = (SELECT array_append(jobs.reasons, $2) FROM jobs WHERE jobs.id = $3) \
         WHERE subject = $1 AND state = 'archiving'",
        args![subject, reason, lease.job],
    )
    .await?;
    tx.run("DELETE FROM archiving WHERE subject = $1", args![subject]).await?;
    tx.run(
        "UPDATE files SET status = 'failed', reason = $2, ended_at = $3 WHERE subject = $1 AND status = 'pending'",
        args![subject, reason, at],
    )
    .await
    .map(drop)
}

/// The files of a subject, in the order in which they were first told.
pub(super) async fn files(tx: &Tx, subject: i64) -> Result<Vec<FileRow>, Error> {
    let rows = tx
        .rows(
            "SELECT key, name, url, content_type, size_bytes, sha256, status, reason, attempts, due_at, dead_links, event FROM files \
             WHERE subject = $1 ORDER BY seq",
            args![subject],
        )
        .await?;
    Ok(rows.iter().map(file_row).collect())
}

fn file_row(row: &Row) -> FileRow {
    FileRow {
        key: row.get(0),
        name: row.get(1),
        url: row.get(2),
        content_type: row.get(3),
        size_bytes: row.get::<_, Option<i64>>(4).and_then(|size| size.try_into().ok()),
        sha256: row.get(5),
        // A word of a later program: nobody here knows what to do with it.
        status: row.get::<_, &str>(6).parse().unwrap_or(FileStatus::Skipped),
        reason: row.get(7),
        attempts: attempt(row.get(8)),
        due_at: row.get(9),
        dead_links: attempt(row.get(10)),
        event: row.get(11),
    }
}

/// The events of a subject that wait, the first [`TURN_EVENTS`] in the order of acceptance.
async fn waiting(tx: &Tx, subject: i64) -> Result<Vec<Waiting>, Error> {
    let rows = tx
        .rows(
            "SELECT event, told, since, out_of_order, may_repeat, (SELECT anchor FROM events JOIN stops ON stops.event = events.id \
             WHERE events.seq = archiving.event LIMIT 1) FROM archiving WHERE subject = $1 ORDER BY event LIMIT $2",
            args![subject, number(TURN_EVENTS)],
        )
        .await?;
    let events = stored(tx, column(&rows, |row| row.get(0))).await?;
    let mut known: HashMap<i64, &Row> = rows.iter().map(|row| (row.get(0), row)).collect();
    let waits = events.into_iter().filter_map(|event| {
        let row = known.remove(&event.seq)?;
        let told = row.get::<_, &str>(1).parse().unwrap_or(Told::Webhook);
        let (out_of_order, may_repeat) = (row.get(3), row.get(4));
        Some(Waiting { event, told, since: row.get(2), out_of_order, may_repeat, anchor: row.get(5) })
    });
    Ok(waits.collect())
}

/// A task and its files as last fetched.
async fn fetched(tx: &Tx, source: &str, task_id: &str) -> Result<Option<Fetched>, Error> {
    let found = tx
        .maybe(
            "SELECT task, files, anchor FROM tasks JOIN fetched_tasks ON task_seq = seq WHERE source = $1 AND task_id = $2",
            args![source, &*clean(task_id)],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let (Ok(task), Ok(files)) = (serde_json::from_str::<Task>(row.get(0)), serde_json::from_str::<Vec<File>>(row.get(1))) else {
        return Ok(None);
    };
    Ok(Some(Fetched { task, files, stands_at: row.get(2), ..Fetched::default() }))
}

/// The key `name` of our own; `candidate` if there is none yet. Of replicas that start together, one is first.
async fn own_key(tx: &Tx, name: &str, candidate: &[u8], now: Timestamp) -> Result<Vec<u8>, Error> {
    tx.run(
        "INSERT INTO own_keys (name, key, made_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        args![name, candidate, now],
    )
    .await?;
    Ok(tx.row("SELECT key FROM own_keys WHERE name = $1", args![name]).await?.get(0))
}
