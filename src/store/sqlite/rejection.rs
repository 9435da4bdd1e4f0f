//! Requests that did not verify: a ring of bounded size.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::append::{Body, body};
use super::place::{List, Way};
use crate::store::Error;
use crate::store::model::{NewRejection, text};
use crate::store::view::{Listed, Page, RejectionDetail, RejectionFilter, RejectionRow};

/// The most that are kept of one source and code.
const EACH: usize = 200;
/// The most bytes of bodies that are kept in all.
const BYTES: usize = 16 << 20;

impl Sqlite {
    pub(in crate::store) async fn rejections(&self, filter: RejectionFilter, page: Page) -> Result<Listed<RejectionRow>, Error> {
        self.read(move |connection| list(connection, &filter, &page, Way::Back)).await
    }

    pub(in crate::store) async fn rejections_after(
        &self,
        filter: RejectionFilter,
        page: Page,
    ) -> Result<Listed<RejectionRow>, Error> {
        self.read(move |connection| list(connection, &filter, &page, Way::Forth)).await
    }

    pub(in crate::store) async fn rejection(&self, id: i64) -> Result<Option<RejectionDetail>, Error> {
        self.read(move |connection| one(connection, id)).await
    }
}

/// Adds `rejections`, and drops the oldest over the bounds.
pub(super) fn record(connection: &Connection, rejections: &[NewRejection]) -> Result<(), Error> {
    for rejection in rejections {
        let headers = serde_json::to_string(&rejection.headers).map_err(|error| Error::Database(error.to_string()))?;
        connection
            .prepare_cached(
                "INSERT INTO rejections (received_at, source, code, explanation, target, headers, body_bytes, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                text(rejection.received_at),
                rejection.source,
                rejection.code,
                rejection.explanation,
                rejection.target,
                headers,
                rejection.body_bytes,
                Body(&rejection.body),
            ])?;
        connection
            .prepare_cached(
                "DELETE FROM rejections WHERE source = ?1 AND code = ?2 AND id <= (SELECT id FROM rejections \
                 WHERE source = ?1 AND code = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
            )?
            .execute(params![rejection.source, rejection.code, EACH])?;
    }
    connection
        .prepare_cached(
            "DELETE FROM rejections WHERE id <= (SELECT max(id) FROM (SELECT id, \
             sum(length(CAST(body AS BLOB)) + length(headers)) OVER (ORDER BY id DESC) AS bytes FROM rejections) WHERE bytes > ?1)",
        )?
        .execute([BYTES])?;
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<(i64, RejectionRow)> {
    let id = row.get(0)?;
    let rejection = RejectionRow {
        id,
        received_at: row.get(1)?,
        source: row.get(2)?,
        code: row.get(3)?,
        explanation: row.get(4)?,
        target: row.get(5)?,
        body_bytes: row.get(6)?,
    };
    Ok((id, rejection))
}

/// What a list of rejections is narrowed to, and its order.
macro_rules! narrowed {
    ($order:literal) => {
        concat!(
            "SELECT id, received_at, source, code, explanation, target, body_bytes FROM rejections WHERE id > ?1 AND id < ?2 \
             AND (?3 IS NULL OR source = ?3) AND (?4 IS NULL OR code = ?4) AND (?5 IS NULL OR received_at >= ?5) \
             AND (?6 IS NULL OR received_at < ?6) ORDER BY id ",
            $order,
            " LIMIT ?7"
        )
    };
}

fn list(connection: &Connection, filter: &RejectionFilter, page: &Page, way: Way) -> Result<Listed<RejectionRow>, Error> {
    let span = List::Rejections.span(connection, way, page, (None, None))?;
    let sql = if span.is_forth() { narrowed!("ASC") } else { narrowed!("DESC") };
    let RejectionFilter { source, code, since, until } = filter;
    let (since, until) = (since.map(text), until.map(text));
    let rows = connection
        .prepare_cached(sql)?
        .query_map(params![span.above, span.below, source, code, since, until, span.rows()], row)?
        .collect::<Result<_, _>>()?;
    Ok(span.page(rows))
}

fn one(connection: &Connection, id: i64) -> Result<Option<RejectionDetail>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT id, received_at, source, code, explanation, target, body_bytes, headers, body FROM rejections WHERE id = ?1",
        )?
        .query_row([id], |found| {
            let headers: String = found.get(7)?;
            let bytes = body(found.get(8)?);
            Ok(RejectionDetail {
                row: row(found)?.1,
                headers: serde_json::from_str(&headers).unwrap_or_default(),
                body: String::from_utf8_lossy(&bytes).into_owned(),
            })
        })
        .optional()?)
}
