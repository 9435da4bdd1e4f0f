//! Requests that did not verify: a ring of bounded size, which all replicas fill.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::Postgres;
use super::place::List;
use super::session::{Tx, args, clean, known, number, tidy, transact};
use crate::store::Error;
use crate::store::model::{NewRejection, text};
use crate::store::view::{Listed, Page, RejectionDetail, RejectionFilter, RejectionRow};

/// The most that are kept of one source and code.
const EACH: usize = 200;
/// The most bytes of bodies that are kept in all.
const BYTES: usize = 16 << 20;

impl Postgres {
    pub(in crate::store) async fn record_rejections(&self, rejections: Vec<NewRejection>) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| record(&tx, &rejections))
    }

    pub(in crate::store) async fn rejections(&self, filter: RejectionFilter, page: Page) -> Result<Listed<RejectionRow>, Error> {
        transact!(self.sessions(), Read, |tx| list(&tx, &filter, &page, None))
    }

    pub(in crate::store) async fn rejections_after(
        &self,
        filter: RejectionFilter,
        page: Page,
    ) -> Result<Listed<RejectionRow>, Error> {
        let settled = Some(List::Rejections.settled(self.sessions(), page.cursor).await?);
        transact!(self.sessions(), Read, |tx| list(&tx, &filter, &page, settled))
    }

    pub(in crate::store) async fn rejection(&self, id: i64) -> Result<Option<RejectionDetail>, Error> {
        transact!(self.sessions(), Read, |tx| one(&tx, id))
    }
}

/// Adds `rejections`, and drops the oldest over the bounds.
async fn record(tx: &Tx, rejections: &[NewRejection]) -> Result<(), Error> {
    // One replica at a time, or each would drop what it sees and both the same.
    tx.run("SELECT pg_advisory_xact_lock(hashtext('taskhook rejections'), hashtext(current_schema()))", &[]).await?;
    for rejection in rejections {
        let headers = serde_json::to_string(&rejection.headers).map_err(|error| Error::Database(error.to_string()))?;
        tx.run(
            "INSERT INTO rejections (received_at, source, code, explanation, target, headers, body_bytes, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            args![
                rejection.received_at,
                rejection.source,
                rejection.code,
                rejection.explanation.as_deref().map(|text| clean(text).into_owned()),
                clean(&rejection.target).as_ref(),
                headers,
                number(rejection.body_bytes),
                &rejection.body[..],
            ],
        )
        .await?;
        tx.run(
            "DELETE FROM rejections WHERE source = $1 AND code = $2 AND id <= (SELECT id FROM rejections \
             WHERE source = $1 AND code = $2 ORDER BY id DESC LIMIT 1 OFFSET $3)",
            args![rejection.source, rejection.code, number(EACH)],
        )
        .await?;
    }
    tx.run(
        "DELETE FROM rejections WHERE id <= (SELECT max(id) FROM (SELECT id, \
         sum(octet_length(body) + octet_length(headers)) OVER (ORDER BY id DESC) AS bytes FROM rejections) AS sums WHERE bytes > $1)",
        args![number(BYTES)],
    )
    .await?;
    Ok(())
}

fn row(row: &Row) -> (i64, RejectionRow) {
    let id = row.get(0);
    let rejection = RejectionRow {
        id,
        received_at: text(row.get::<_, Timestamp>(1)),
        source: row.get(2),
        code: row.get(3),
        explanation: row.get(4),
        target: row.get(5),
        body_bytes: row.get(6),
    };
    (id, rejection)
}

/// What a list of rejections is narrowed to, and its order.
macro_rules! narrowed {
    ($order:literal) => {
        concat!(
            "SELECT id, received_at, source, code, explanation, target, body_bytes FROM rejections WHERE id > $1 AND id < $2 \
             AND ($3::text IS NULL OR source = $3) AND ($4::text IS NULL OR code = $4) AND ($5::timestamptz IS NULL OR received_at >= $5) \
             AND ($6::timestamptz IS NULL OR received_at < $6) ORDER BY id ",
            $order,
            " LIMIT $7"
        )
    };
}

async fn list(tx: &Tx, filter: &RejectionFilter, page: &Page, settled: Option<i64>) -> Result<Listed<RejectionRow>, Error> {
    let RejectionFilter { source, code, since, until } = filter;
    let [source, code] = [source, code].map(|text| tidy(text.as_deref()));
    let (since, until) = (since.map(known), until.map(known));
    let span = List::Rejections.span(tx, page, settled, (None, None)).await?;
    let sql = if span.is_forth() { narrowed!("ASC") } else { narrowed!("DESC") };
    let rows = tx.rows(sql, args![span.above, span.below, source, code, since, until, number(span.rows())]).await?;
    Ok(span.page(rows.iter().map(row).collect()))
}

async fn one(tx: &Tx, id: i64) -> Result<Option<RejectionDetail>, Error> {
    let sql =
        "SELECT id, received_at, source, code, explanation, target, body_bytes, headers, body FROM rejections WHERE id = $1";
    Ok(tx.maybe(sql, args![id]).await?.map(|found| RejectionDetail {
        row: row(&found).1,
        headers: serde_json::from_str(found.get(7)).unwrap_or_default(),
        body: String::from_utf8_lossy(found.get(8)).into_owned(),
    }))
}
