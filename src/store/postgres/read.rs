//! Reading, for people: lists and single rows. No function here writes, but for the verification keys.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use super::again::{id_range, whole_id};
use super::claim::{attempt, stored};
use super::place::List;
use super::session::{Tx, args, known, number, tidy, transact};
use super::{Postgres, delivery, search};
use crate::store::Error;
use crate::store::model::{StoredEvent, text};
use crate::store::view::{
    Backlog, BacklogRow, EventDetail, EventFilter, EventRow, Listed, Page, Span, event_row_columns, payload,
};

impl Postgres {
    pub(in crate::store) async fn events(&self, filter: EventFilter, page: Page) -> Result<Listed<EventRow>, Error> {
        let filter = tidied(filter);
        transact!(self.sessions(), Read, |tx| listed(&tx, &filter, &page, None))
    }

    pub(in crate::store) async fn events_after(&self, filter: EventFilter, page: Page) -> Result<Listed<EventRow>, Error> {
        let filter = tidied(filter);
        let settled = Some(List::Events.settled(self.sessions(), page.cursor).await?);
        transact!(self.sessions(), Read, |tx| listed(&tx, &filter, &page, settled))
    }

    pub(in crate::store) async fn event(&self, id: &str) -> Result<Option<EventDetail>, Error> {
        let Some(id) = whole_id(id) else { return Ok(None) };
        transact!(self.sessions(), Read, |tx| event(&tx, id))
    }

    pub(in crate::store) async fn event_ids(&self, start: &str, limit: usize) -> Result<Vec<String>, Error> {
        let Some((first, last)) = id_range(start) else { return Ok(Vec::new()) };
        transact!(self.sessions(), Read, |tx| event_ids(&tx, first, last, limit))
    }

    pub(in crate::store) async fn stored_event(&self, seq: i64) -> Result<Option<StoredEvent>, Error> {
        Ok(transact!(self.sessions(), Read, |tx| stored(&tx, vec![seq]))?.pop())
    }

    pub(in crate::store) async fn verification_keys(&self, source: &str) -> Result<Vec<(String, Timestamp)>, Error> {
        transact!(self.sessions(), Read, |tx| verification_keys(&tx, source))
    }

    pub(in crate::store) async fn save_verification_keys(
        &self,
        source: &str,
        keys: Vec<String>,
        now: Timestamp,
    ) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| save_verification_keys(&tx, source, &keys, now))
    }

    pub(in crate::store) async fn backlog(&self) -> Result<Backlog, Error> {
        transact!(self.sessions(), Read, |tx| backlog(&tx))
    }
}

/// A time in a column, as it is shown.
pub(super) fn shown(row: &Row, column: usize) -> Option<String> {
    row.get::<_, Option<Timestamp>>(column).map(text)
}

/// Of events that are joined with `standing`, those that a list is narrowed to.
macro_rules! events_alike {
    () => {
        " ($2::text IS NULL OR source = $2) AND ($3::text IS NULL OR type = $3) AND ($4::text IS NULL OR task_id = $4) \
         AND ($5::text IS NULL OR state = $5) AND ($6::timestamptz IS NULL OR received_at >= $6) AND ($7::timestamptz IS NULL OR received_at < $7)"
    };
}
pub(super) use events_alike;

/// Of the events that are `listed`, what a list is narrowed to, and its order. Each is looked at by itself (which is what the OFFSET is
/// for), from the first on, so that no more are than it takes to fill a page.
macro_rules! narrowed {
    ($order:literal) => {
        concat!(
            " SELECT ",
            event_row_columns!(),
            " FROM listed CROSS JOIN LATERAL (SELECT * FROM standing WHERE standing.seq = listed.event OFFSET 0) AS standing \
             WHERE listed.event > $8 AND listed.event < $1 AND",
            events_alike!(),
            " ORDER BY listed.event ",
            $order,
            " LIMIT $9"
        )
    };
}

macro_rules! of_task {
    ($order:literal) => {
        concat!(
            "WITH listed (event) AS (SELECT event FROM tasks JOIN task_events ON task_events.task = tasks.seq \
             WHERE tasks.task_id = $4 AND ($2::text IS NULL OR tasks.source = $2) UNION ALL \
             SELECT event FROM intake WHERE (SELECT events.task_id FROM events WHERE events.seq = intake.event) = $4)",
            narrowed!($order)
        )
    };
}

macro_rules! stuck {
    ($order:literal) => {
        concat!(
            "WITH listed (event) AS (SELECT event FROM open_events WHERE state IN ('quarantined', 'dead') AND state = $5)",
            narrowed!($order)
        )
    };
}

macro_rules! open {
    ($order:literal) => {
        concat!(
            "WITH listed (event) AS (SELECT event FROM open_events WHERE state = $5 UNION ALL SELECT event FROM intake \
             WHERE $5 = 'proving' AND NOT EXISTS (SELECT 1 FROM open_events WHERE open_events.subject = -intake.event \
             AND open_events.event = intake.event))",
            narrowed!($order)
        )
    };
}

macro_rules! any {
    ($order:literal) => {
        concat!(
            "WITH listed (event) AS (SELECT seq FROM events WHERE ($2::text IS NULL OR source = $2) AND ($3::text IS NULL OR type = $3) \
             AND ($5::text IS NULL OR $5 <> 'kept' OR kept) AND ($6::timestamptz IS NULL OR received_at >= $6) \
             AND ($7::timestamptz IS NULL OR received_at < $7))",
            narrowed!($order)
        )
    };
}

pub(super) fn event_row(row: &Row) -> (i64, EventRow) {
    let event = EventRow {
        id: row.get::<_, Uuid>(1).to_string(),
        source: row.get(2),
        provider: row.get(3),
        kind: row.get(4),
        provider_type: row.get(5),
        event_id: row.get(6),
        task_id: row.get(7),
        received_at: text(row.get::<_, Timestamp>(8)),
        verification: row.get(9),
        state: row.get(10),
        reason: row.get(11),
        ping: row.get(12),
        collision_of: row.get::<_, Option<Uuid>>(13).map(|id| id.to_string()),
        repeats: row.get(14),
    };
    (row.get(0), event)
}

/// A filter as the database takes it.
fn tidied(filter: EventFilter) -> EventFilter {
    let EventFilter { source, kind, task_id, state, since, until, text } = filter;
    let [source, kind, task_id, state, text] = [source, kind, task_id, state, text].map(|text| tidy(text.as_deref()));
    EventFilter { source, kind, task_id, state, since: since.map(known), until: until.map(known), text }
}

async fn listed(tx: &Tx, filter: &EventFilter, page: &Page, settled: Option<i64>) -> Result<Listed<EventRow>, Error> {
    let span = List::Events.span(tx, page, settled, (filter.since, filter.until)).await?;
    match &filter.text {
        Some(text) => search::events(tx, filter, &span, text).await,
        None => events(tx, filter, &span).await,
    }
}

pub(super) async fn events(tx: &Tx, filter: &EventFilter, span: &Span) -> Result<Listed<EventRow>, Error> {
    let EventFilter { source, kind, task_id, state, since, until, .. } = filter;
    // The events of a task are found by it, and what is open by its state: neither may mean to look at every event.
    let sql = match (task_id, state.as_deref(), span.is_forth()) {
        (Some(_), _, false) => of_task!("DESC"),
        (Some(_), _, true) => of_task!("ASC"),
        (None, Some("quarantined" | "dead"), false) => stuck!("DESC"),
        (None, Some("quarantined" | "dead"), true) => stuck!("ASC"),
        (None, Some("proving" | "fetching" | "archiving"), false) => open!("DESC"),
        (None, Some("proving" | "fetching" | "archiving"), true) => open!("ASC"),
        (None, _, false) => any!("DESC"),
        (None, _, true) => any!("ASC"),
    };
    let rows = tx
        .rows(sql, args![span.below, *source, *kind, *task_id, *state, *since, *until, span.above, number(span.rows())])
        .await?;
    Ok(span.page(rows.iter().map(event_row).collect()))
}

async fn event(tx: &Tx, id: Uuid) -> Result<Option<EventDetail>, Error> {
    let sql = concat!(
        "SELECT ",
        event_row_columns!(),
        ", released_at, last_repeat_at, target, headers, body, coalesce(reasons, '{}'), subject, coalesce(replay, 0), asked_at \
         FROM standing LEFT JOIN replays ON replays.event = seq WHERE id = $1"
    );
    let Some(row) = tx.maybe(sql, args![id]).await? else { return Ok(None) };
    let (seq, event) = event_row(&row);
    let (payload, body_base64) = payload(row.get(19));
    let work = work(tx, &event.state, row.get(21)).await?;
    let deliveries = delivery::of_event(tx, seq).await?;
    Ok(Some(EventDetail {
        row: event,
        released_at: shown(&row, 15),
        replays: attempt(row.get(22)),
        replayed_at: shown(&row, 23),
        last_repeat_at: shown(&row, 16),
        target: row.get(17),
        headers: serde_json::from_str(row.get(18)).unwrap_or_default(),
        reasons: row.get(20),
        payload,
        body_base64,
        work,
        deliveries,
    }))
}

/// The ids from `first` to `last`, at most `limit`.
async fn event_ids(tx: &Tx, first: Uuid, last: Uuid, limit: usize) -> Result<Vec<String>, Error> {
    let sql = "SELECT id FROM events WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3";
    let rows = tx.rows(sql, args![first, last, number(limit)]).await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>(0).to_string()).collect())
}

/// What is still to be done for an event before it is dispatched.
async fn work(tx: &Tx, state: &str, subject: i64) -> Result<Option<Value>, Error> {
    let kind = match state {
        "proving" => "prove",
        "fetching" => "fetch",
        "archiving" => "archive",
        _ => return Ok(None),
    };
    let sql = "SELECT attempt, due_at, reasons FROM jobs WHERE kind = $1 AND subject = $2";
    let row = tx.maybe(sql, args![kind, subject]).await?;
    Ok(row.map(|row| {
        let reasons: Vec<String> = row.get(2);
        json!({"kind": kind, "attempt": row.get::<_, i64>(0), "due_at": shown(&row, 1), "reasons": reasons})
    }))
}

async fn verification_keys(tx: &Tx, source: &str) -> Result<Vec<(String, Timestamp)>, Error> {
    let sql = "SELECT pem, loaded_at FROM verification_keys WHERE source = $1 ORDER BY pem";
    Ok(tx.rows(sql, args![source]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn save_verification_keys(tx: &Tx, source: &str, keys: &[String], now: Timestamp) -> Result<(), Error> {
    // Each replica loads them for itself, and may do so at once.
    tx.run("SELECT pg_advisory_xact_lock(hashtext('taskhook verification keys'), hashtext(current_schema()))", &[]).await?;
    tx.run("DELETE FROM verification_keys WHERE source = $1", args![source]).await?;
    let sql = "INSERT INTO verification_keys (source, pem, loaded_at) \
               SELECT DISTINCT $1::text, pem, $3::timestamptz FROM unnest($2::text[]) AS pem";
    tx.run(sql, args![source, keys.to_vec(), now]).await?;
    Ok(())
}

async fn backlog(tx: &Tx) -> Result<Backlog, Error> {
    // What is not taken in yet will be proven.
    let jobs = tx
        .rows(
            "SELECT kind, queue, count(*), min(created_at) FROM (SELECT kind, queue, created_at FROM jobs UNION ALL \
             SELECT 'prove', source, min(received_at) FROM intake JOIN events ON events.seq = intake.event WHERE NOT kept \
             AND (task_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM open_events WHERE subject = -seq AND open_events.event = seq)) \
             GROUP BY source, coalesce(task_id, seq::text)) AS work GROUP BY kind, queue ORDER BY kind, queue",
            &[],
        )
        .await?;
    let row = tx
        .row(
            "SELECT (SELECT count(*) FROM open_events WHERE state NOT IN ('quarantined', 'dead')) \
             + (SELECT count(*) FROM intake JOIN events ON events.seq = intake.event WHERE NOT kept) \
             + (SELECT count(DISTINCT event) FROM deliveries WHERE state = 'pending'), \
             (SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'quarantined'), \
             (SELECT count(*) FROM open_events WHERE state IN ('quarantined', 'dead') AND state = 'dead') \
             + (SELECT count(*) FROM deliveries WHERE state = 'dead')",
            &[],
        )
        .await?;
    let jobs = jobs
        .iter()
        .map(|row| BacklogRow {
            kind: row.get(0),
            queue: row.get(1),
            count: row.get(2),
            oldest: text(row.get::<_, Timestamp>(3)),
        })
        .collect();
    Ok(Backlog { jobs, events: row.get(0), quarantined: row.get(1), dead: row.get(2) })
}
