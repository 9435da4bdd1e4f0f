//! Requests that did not verify: a ring of bounded size, which all replicas fill.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::Postgres;
use super::session::{Tx, args, clean, number, transact};
use crate::store::Error;
use crate::store::model::{NewRejection, text};
use crate::store::view::{Listed, Page, RejectionDetail, RejectionRow, page};

/// The most that are kept of one source and code.
const EACH: usize = 200;
/// The most bytes of bodies that are kept in all.
const BYTES: usize = 16 << 20;

impl Postgres {
    pub(in crate::store) async fn record_rejections(&self, rejections: Vec<NewRejection>) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| record(&tx, &rejections))
    }

    pub(in crate::store) async fn rejections(&self, page: Page) -> Result<Listed<RejectionRow>, Error> {
        transact!(self.sessions(), Read, |tx| list(&tx, &page))
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

async fn list(tx: &Tx, at: &Page) -> Result<Listed<RejectionRow>, Error> {
    let sql = "SELECT id, received_at, source, code, explanation, target, body_bytes FROM rejections \
               WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let rows = tx.rows(sql, args![at.cursor.unwrap_or(i64::MAX), number(at.limit + 1)]).await?;
    Ok(page(rows.iter().map(row).collect(), at.limit))
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
