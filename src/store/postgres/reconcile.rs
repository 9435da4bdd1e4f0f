//! Which event told of which stop of a task, and how far sources are reconciled.
//!
//! What must hold: a stop is one event's. Who claims it first keeps it; claims of a task are made by its one fetch job, under its lock.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::Postgres;
use super::claim::stored;
use super::session::{Tx, args, clean, column, number, tidy, transact};
use crate::event::hex;
use crate::store::Error;
use crate::store::model::{Acquainted, Claim, Looked, Open, OpenTask, Reconciled, Shown, StoredEvent, UNCLAIMED};
use crate::task::State;

impl Postgres {
    pub(in crate::store) async fn claims(&self, source: &str, task_id: &str) -> Result<Vec<Claim>, Error> {
        transact!(self.work(), WorkRead, |tx| claims(&tx, source, task_id))
    }

    pub(in crate::store) async fn claim_stop(
        &self,
        source: &str,
        task_id: &str,
        told: Claim,
        now: Timestamp,
    ) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| claim_one(&tx, source, task_id, &told, now))
    }

    pub(in crate::store) async fn unclaimed(
        &self,
        source: &str,
        task_id: &str,
        kinds: &[&str],
    ) -> Result<Vec<StoredEvent>, Error> {
        transact!(self.work(), WorkRead, |tx| unclaimed(&tx, source, task_id, kinds))
    }

    pub(in crate::store) async fn raw(&self, source: &str, task_id: &str) -> Result<Option<String>, Error> {
        transact!(self.work(), WorkRead, |tx| raw(&tx, source, task_id))
    }

    pub(in crate::store) async fn reconciled(&self, source: &str, since: Timestamp) -> Result<Reconciled, Error> {
        transact!(self.work(), Write, |tx| reconciled(&tx, source, since))
    }

    pub(in crate::store) async fn note_read(&self, source: &str, at: Timestamp, whole: bool) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| note_read(&tx, source, at, whole))
    }

    pub(in crate::store) async fn acquainted(&self, source: &str, task_ids: Vec<String>) -> Result<Vec<Acquainted>, Error> {
        transact!(self.work(), Read, |tx| acquainted(&tx, source, &task_ids))
    }

    pub(in crate::store) async fn show(&self, source: &str, tasks: Vec<Shown>, now: Timestamp) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| show(&tx, source, &tasks, now))
    }

    pub(in crate::store) async fn looked(&self, source: &str, task_id: &str, seen: Looked) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| looked(&tx, source, task_id, &seen))
    }

    pub(in crate::store) async fn open_tasks(&self, source: &str, which: Open) -> Result<Vec<OpenTask>, Error> {
        transact!(self.work(), Read, |tx| open_tasks(&tx, source, which))
    }

    pub(in crate::store) async fn forget_stops(&self, before: Timestamp) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| forget_stops(&tx, before))
    }
}

/// Writes down which events told of which stops, each of its task. A stop that is claimed stays whose it is.
pub(super) async fn claim(tx: &Tx, claims: &[(i64, &Claim)], at: Timestamp) -> Result<(), Error> {
    if claims.is_empty() {
        return Ok(());
    }
    tx.run(
        "INSERT INTO stops (source, task_id, anchor, state, at, event, recovered, claimed_at) \
         SELECT tasks.source, tasks.task_id, told.anchor, told.state, told.at, told.event, told.recovered, $7 \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::uuid[], $6::boolean[]) \
         AS told (task, anchor, state, at, event, recovered) JOIN tasks ON tasks.seq = told.task \
         ON CONFLICT (source, task_id, anchor) DO NOTHING",
        args![
            column(claims, |(task, _)| *task),
            column(claims, |(_, claim)| clean(&claim.anchor).into_owned()),
            column(claims, |(_, claim)| claim.state.as_str()),
            column(claims, |(_, claim)| claim.at),
            column(claims, |(_, claim)| claim.event),
            column(claims, |(_, claim)| claim.recovered),
            at,
        ],
    )
    .await
    .map(drop)
}

async fn claim_one(tx: &Tx, source: &str, task_id: &str, told: &Claim, at: Timestamp) -> Result<(), Error> {
    let sql = "SELECT seq FROM tasks WHERE source = $1 AND task_id = $2";
    let Some(task) = tx.maybe(sql, args![source, &*clean(task_id)]).await? else { return Ok(()) };
    claim(tx, &[(task.get(0), told)], at).await
}

async fn unclaimed(tx: &Tx, source: &str, task_id: &str, kinds: &[&str]) -> Result<Vec<StoredEvent>, Error> {
    let rows = tx
        .rows(
            "SELECT events.seq FROM tasks JOIN task_events ON task_events.task = tasks.seq JOIN events ON events.seq = task_events.event \
             WHERE tasks.source = $1 AND tasks.task_id = $2 AND events.type = ANY($3) AND verification <> 'api' \
             AND NOT EXISTS (SELECT 1 FROM stops WHERE stops.event = events.id) \
             AND EXISTS (SELECT 1 FROM deliveries WHERE deliveries.event = events.seq) ORDER BY events.seq DESC LIMIT $4",
            args![source, &*clean(task_id), kinds.to_vec(), number(UNCLAIMED)],
        )
        .await?;
    stored(tx, column(&rows, |row| row.get(0))).await
}

async fn claims(tx: &Tx, source: &str, task_id: &str) -> Result<Vec<Claim>, Error> {
    let sql =
        "SELECT anchor, state, at, event, recovered FROM stops WHERE source = $1 AND task_id = $2 ORDER BY claimed_at, anchor";
    let rows = tx.rows(sql, args![source, &*clean(task_id)]).await?;
    let claim = |row: &tokio_postgres::Row| Claim {
        anchor: row.get(0),
        state: row.get::<_, &str>(1).parse().unwrap_or(State::Unknown),
        at: row.get(2),
        event: row.get(3),
        recovered: row.get(4),
    };
    Ok(rows.iter().map(claim).collect())
}

async fn raw(tx: &Tx, source: &str, task_id: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT raw FROM tasks JOIN fetched_tasks ON task_seq = seq WHERE source = $1 AND task_id = $2";
    Ok(tx.maybe(sql, args![source, &*clean(task_id)]).await?.map(|row| row.get(0)))
}

async fn reconciled(tx: &Tx, source: &str, since: Timestamp) -> Result<Reconciled, Error> {
    tx.run("INSERT INTO reconciled (source, since) VALUES ($1, $2) ON CONFLICT (source) DO NOTHING", args![source, since])
        .await?;
    let row = tx.row("SELECT since, read_at, compared_at FROM reconciled WHERE source = $1", args![source]).await?;
    Ok(Reconciled { since: row.get(0), read_at: row.get(1), compared_at: row.get(2) })
}

async fn note_read(tx: &Tx, source: &str, at: Timestamp, whole: bool) -> Result<(), Error> {
    let sql = "UPDATE reconciled SET read_at = $2, compared_at = CASE WHEN $3 THEN $2 ELSE compared_at END WHERE source = $1";
    tx.run(sql, args![source, at, whole]).await.map(drop)
}

async fn acquainted(tx: &Tx, source: &str, task_ids: &[String]) -> Result<Vec<Acquainted>, Error> {
    let ids = column(task_ids, |id| clean(id).into_owned());
    let digests = column(task_ids, |id| erased(id));
    let rows = tx
        .rows(
            "SELECT listed.place, looked_at, EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = tasks.seq \
             AND open_events.state IN ('proving', 'fetching', 'archiving')) \
             OR EXISTS (SELECT 1 FROM intake JOIN events ON events.seq = intake.event WHERE events.task_id = listed.id \
             AND events.source = $1), EXISTS (SELECT 1 FROM erased_tasks WHERE erased_tasks.source = $1 \
             AND erased_tasks.task_id = listed.digest) \
             FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS listed (id, digest, place) \
             LEFT JOIN tasks ON tasks.task_id = listed.id AND tasks.source = $1",
            args![source, ids, digests],
        )
        .await?;
    let mut known: HashMap<i64, Acquainted> = HashMap::new();
    for row in &rows {
        known.insert(row.get(0), Acquainted { looked_at: row.get(1), busy: row.get(2), erased: row.get(3) });
    }
    Ok((1..=number(task_ids.len())).map(|place| known.remove(&place).unwrap_or_default()).collect())
}

/// What is kept of the id of a task that was erased.
fn erased(task_id: &str) -> String {
    hex(digest(&SHA256, task_id.as_bytes()).as_ref())
}

/// The oldest first, so that the newest is above it in the list. A row that stays as it is is not locked.
async fn show(tx: &Tx, source: &str, tasks: &[Shown], now: Timestamp) -> Result<(), Error> {
    tx.run(
        "INSERT INTO tasks (source, task_id, proof, proven_at, state, title, url, first_seen_at) \
         SELECT $1, listed.id, 'listed', $2, listed.state, listed.title, listed.url, $2 \
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY \
         AS listed (id, erased, state, title, url, place) LEFT JOIN tasks ON tasks.task_id = listed.id AND tasks.source = $1 \
         WHERE NOT EXISTS (SELECT 1 FROM erased_tasks WHERE erased_tasks.source = $1 AND erased_tasks.task_id = listed.erased) \
         AND (tasks.seq IS NULL OR (tasks.proof = 'listed' AND tasks.fetched_at IS NULL AND tasks.state IS DISTINCT FROM listed.state \
         AND NOT EXISTS (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq))) ORDER BY listed.place DESC \
         ON CONFLICT (task_id, source) DO UPDATE SET state = excluded.state, title = coalesce(excluded.title, tasks.title), \
         url = coalesce(excluded.url, tasks.url) WHERE tasks.proof = 'listed' AND tasks.fetched_at IS NULL",
        args![
            source,
            now,
            column(tasks, |task| clean(&task.task_id).into_owned()),
            column(tasks, |task| erased(&task.task_id)),
            column(tasks, |task| task.state.as_str()),
            column(tasks, |task| tidy(task.title.as_deref())),
            column(tasks, |task| tidy(task.url.as_deref())),
        ],
    )
    .await
    .map(drop)
}

async fn looked(tx: &Tx, source: &str, task_id: &str, seen: &Looked) -> Result<(), Error> {
    let Looked { updated_at, polled, ended_at, state } = seen;
    tx.run(
        "UPDATE tasks SET looked_at = greatest(looked_at, $3::timestamptz), polled_at = coalesce($4::timestamptz, polled_at), \
         ended_at = coalesce(ended_at, $5::timestamptz), state = coalesce($6::text, state) WHERE source = $1 AND task_id = $2",
        args![source, &*clean(task_id), *updated_at, *polled, *ended_at, state.map(State::as_str)],
    )
    .await
    .map(drop)
}

async fn open_tasks(tx: &Tx, source: &str, which: Open) -> Result<Vec<OpenTask>, Error> {
    let rows = tx
        .rows(
            "SELECT task_id, title, url, first_seen_at, polled_at, coalesce(kind, (SELECT type FROM task_events \
             JOIN events ON events.seq = task_events.event WHERE task_events.task = tasks.seq AND type <> 'unknown' \
             ORDER BY event DESC LIMIT 1)), locator, ended_at FROM tasks WHERE source = $1 AND deleted_at IS NULL \
             AND (state IS NULL OR state IN ('running', 'waiting')) AND first_seen_at > $3 AND (proof IN ('created', 'tracked') \
             OR ((proof IS NOT NULL OR NOT $4) AND EXISTS (SELECT 1 FROM task_events WHERE task_events.task = tasks.seq))) \
             ORDER BY polled_at NULLS FIRST LIMIT $2",
            args![source, number(which.limit), which.since, which.proven],
        )
        .await?;
    let open = |row: &tokio_postgres::Row| OpenTask {
        task_id: row.get(0),
        title: row.get(1),
        url: row.get(2),
        first_seen_at: row.get(3),
        polled_at: row.get(4),
        kind: row.get(5),
        locator: row.get(6),
        ended_at: row.get(7),
    };
    Ok(rows.iter().map(open).collect())
}

async fn forget_stops(tx: &Tx, before: Timestamp) -> Result<(), Error> {
    tx.run("DELETE FROM stops WHERE claimed_at < $1", args![before]).await?;
    tx.run("DELETE FROM answers WHERE given_at < $1", args![before]).await.map(drop)
}
