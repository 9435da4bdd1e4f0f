//! Reading deliveries, for people: with their attempts, and of which event. No function here writes.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::again::whole_id;
use super::claim::attempt;
use super::place::List;
use super::read::shown;
use super::session::{Args, Tx, args, known, number, tidy, transact};
use crate::store::Error;
use crate::store::model::{Like, text};
use crate::store::view::{AttemptRow, DeliveryRow, Listed, Page, TASK_EVENTS};

impl Postgres {
    pub(in crate::store) async fn deliveries(&self, like: Like, page: Page) -> Result<Listed<DeliveryRow>, Error> {
        transact!(self.sessions(), Read, |tx| deliveries(&tx, &like, &page, None))
    }

    pub(in crate::store) async fn deliveries_after(&self, like: Like, page: Page) -> Result<Listed<DeliveryRow>, Error> {
        let settled = Some(List::Deliveries.settled(self.sessions(), page.cursor).await?);
        transact!(self.sessions(), Read, |tx| deliveries(&tx, &like, &page, settled))
    }

    pub(in crate::store) async fn delivery(&self, id: &str) -> Result<Option<DeliveryRow>, Error> {
        let Some(id) = whole_id(id) else { return Ok(None) };
        transact!(self.sessions(), Read, |tx| delivery(&tx, id))
    }
}

/// What is told of a delivery, and of what.
macro_rules! delivery_columns {
    () => {
        "deliveries.seq, deliveries.id, events.id, events.type, events.source, events.task_id, destination, route, \
         deliveries.state, deliveries.reason, out_of_order, deliveries.created_at, ended_at, jobs.due_at, replay, \
         (SELECT earlier.id FROM deliveries AS earlier WHERE earlier.event = deliveries.event \
         AND earlier.destination = deliveries.destination AND earlier.replay < deliveries.replay \
         ORDER BY earlier.replay DESC LIMIT 1) \
         FROM deliveries JOIN events ON events.seq = deliveries.event \
         LEFT JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.seq"
    };
}

/// What a list of deliveries is narrowed to, and its order.
macro_rules! alike {
    ($order:literal) => {
        concat!(
            " ($1::text IS NULL OR deliveries.state = $1) AND ($2::text IS NULL OR destination = $2) AND ($3::text IS NULL OR route = $3) \
             AND ($4::text IS NULL OR source = $4) AND ($5::text IS NULL OR type = $5) AND ($6::text IS NULL OR task_id = $6) \
             AND ($7::timestamptz IS NULL OR deliveries.created_at >= $7) AND ($8::timestamptz IS NULL OR deliveries.created_at < $8) \
             AND deliveries.seq > $9 AND deliveries.seq < $10 ORDER BY deliveries.seq ",
            $order,
            " LIMIT $11"
        )
    };
}

/// Those of a task are found by it.
macro_rules! of_its_task {
    () => {
        " WHERE deliveries.event IN (SELECT task_events.event FROM tasks JOIN task_events ON task_events.task = tasks.seq \
         WHERE tasks.task_id = $6) AND"
    };
}

const OF_EVENT: &str =
    concat!("SELECT ", delivery_columns!(), " WHERE deliveries.event = $1 ORDER BY deliveries.seq DESC LIMIT $2");
const OF_TASK: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " WHERE deliveries.event IN (SELECT event FROM task_events WHERE task = $1) ORDER BY deliveries.seq DESC LIMIT $2"
);
const OF_ID: &str = concat!("SELECT ", delivery_columns!(), " WHERE deliveries.id = $1");

/// The newest deliveries of an event.
pub(super) async fn of_event(tx: &Tx, event: i64) -> Result<Vec<DeliveryRow>, Error> {
    let rows = found(tx, OF_EVENT, args![event, number(TASK_EVENTS)]).await?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The newest deliveries of events of a task.
pub(super) async fn of_task(tx: &Tx, task: i64) -> Result<Vec<DeliveryRow>, Error> {
    let rows = found(tx, OF_TASK, args![task, number(TASK_EVENTS)]).await?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

async fn deliveries(tx: &Tx, like: &Like, page: &Page, settled: Option<i64>) -> Result<Listed<DeliveryRow>, Error> {
    let Like { source, kind, task, state, since, until, destination, route } = like;
    let texts = [state, destination, route, source, kind, task].map(|text| tidy(text.as_deref()));
    let [state, destination, route, source, kind, task] = texts;
    let (since, until) = (since.map(known), until.map(known));
    let span = List::Deliveries.span(tx, page, settled, (since, until)).await?;
    let sql = match (&task, span.is_forth()) {
        (None, false) => concat!("SELECT ", delivery_columns!(), " WHERE", alike!("DESC")),
        (None, true) => concat!("SELECT ", delivery_columns!(), " WHERE", alike!("ASC")),
        (Some(_), false) => concat!("SELECT ", delivery_columns!(), of_its_task!(), alike!("DESC")),
        (Some(_), true) => concat!("SELECT ", delivery_columns!(), of_its_task!(), alike!("ASC")),
    };
    let limit = number(span.rows());
    let rows =
        found(tx, sql, args![state, destination, route, source, kind, task, since, until, span.above, span.below, limit]).await?;
    Ok(span.page(rows))
}

async fn delivery(tx: &Tx, id: Uuid) -> Result<Option<DeliveryRow>, Error> {
    Ok(found(tx, OF_ID, args![id]).await?.pop().map(|(_, row)| row))
}

async fn found(tx: &Tx, sql: &'static str, values: Args<'_>) -> Result<Vec<(i64, DeliveryRow)>, Error> {
    let delivery = |row: &Row| {
        let delivery = DeliveryRow {
            id: row.get::<_, Uuid>(1).to_string(),
            event: row.get::<_, Uuid>(2).to_string(),
            kind: row.get(3),
            source: row.get(4),
            task_id: row.get(5),
            destination: row.get(6),
            route: row.get(7),
            state: row.get(8),
            reason: row.get(9),
            out_of_order: row.get(10),
            created_at: text(row.get::<_, Timestamp>(11)),
            ended_at: shown(row, 12),
            due_at: shown(row, 13),
            replay: attempt(row.get(14)),
            replay_of: row.get::<_, Option<Uuid>>(15).map(|id| id.to_string()),
            attempts: Vec::new(),
        };
        (row.get::<_, i64>(0), delivery)
    };
    let mut deliveries: Vec<_> = tx.rows(sql, values).await?.iter().map(delivery).collect();
    let seqs: Vec<i64> = deliveries.iter().map(|(seq, _)| *seq).collect();
    let attempts = tx
        .rows(
            "SELECT delivery, attempt, started_at, ended_at, outcome, detail FROM attempts WHERE delivery = ANY($1) UNION ALL \
             SELECT subject, attempt, started_at, NULL, 'started', NULL FROM jobs WHERE kind = 'deliver' AND subject = ANY($1) \
             AND state = 'leased' ORDER BY 1, 2",
            args![seqs],
        )
        .await?;
    for row in &attempts {
        let of: i64 = row.get(0);
        let attempt = AttemptRow {
            attempt: attempt(row.get(1)),
            started_at: text(row.get::<_, Timestamp>(2)),
            ended_at: shown(row, 3),
            outcome: row.get(4),
            detail: row.get(5),
        };
        if let Some((_, delivery)) = deliveries.iter_mut().find(|(seq, _)| *seq == of) {
            delivery.attempts.push(attempt);
        }
    }
    Ok(deliveries)
}
