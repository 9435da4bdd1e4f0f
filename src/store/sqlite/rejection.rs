//! Requests that did not verify: a ring of bounded size.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::append::{Body, body};
use crate::store::Error;
use crate::store::model::{NewRejection, text};
use crate::store::view::{Listed, Page, RejectionDetail, RejectionRow, page};

/// The most that are kept of one source and code.
const EACH: usize = 200;
/// The most bytes of bodies that are kept in all.
const BYTES: usize = 16 << 20;

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

pub(super) fn list(connection: &Connection, at: &Page) -> Result<Listed<RejectionRow>, Error> {
    let rows = connection
        .prepare_cached(
            "SELECT id, received_at, source, code, explanation, target, body_bytes FROM rejections \
             WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )?
        .query_map(params![at.cursor.unwrap_or(i64::MAX), at.limit + 1], row)?
        .collect::<Result<_, _>>()?;
    Ok(page(rows, at.limit))
}

pub(super) fn one(connection: &Connection, id: i64) -> Result<Option<RejectionDetail>, Error> {
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
