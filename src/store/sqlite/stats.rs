//! What a store holds, in numbers: read, and nothing written.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::open;
use crate::store::Error;
use crate::store::care::{Count, Progress, Stats, Table, Tell};

pub(in crate::store) fn stats(store: &Path, tell: Tell<'_>) -> Result<Stats, Error> {
    let connection = open::open_read_only(store)?;
    let number = |pragma: &str| -> Result<u64, Error> { Ok(connection.query_row(pragma, [], |row| row.get(0))?) };
    let page = number("PRAGMA page_size")?;
    let (pages, free) = (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?);
    let told = |name: &str| -> Result<Option<String>, Error> {
        Ok(connection.query_row("SELECT value FROM store WHERE name = ?1", [name], |row| row.get(0)).optional()?)
    };
    let bytes = |suffix: &str| {
        let mut name = store.as_os_str().to_owned();
        name.push(suffix);
        fs::metadata(name).map_or(0, |meta| meta.len())
    };
    tell(Progress { what: "counting", done: 0, total: 0 });
    let tables = tables(&connection, page)?;
    let rows = |name: &str| tables.iter().find(|table| table.name == name).map_or(0, |table| table.rows);
    let events = events(&connection, rows("events"))?;
    let first = |sql: &str| -> Result<Option<String>, Error> { Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?) };
    let mut removed = Vec::new();
    for what in ["events", "tasks", "files"] {
        let count = told(&format!("removed_{what}"))?.and_then(|count| count.parse().ok()).unwrap_or(0);
        removed.push(Count { name: what.to_owned(), count });
    }
    Ok(Stats {
        place: store.display().to_string(),
        file_bytes: bytes(""),
        log_bytes: Some(bytes("-wal")),
        free_bytes: Some(free * page),
        shrinks: Some(number("PRAGMA auto_vacuum")? != 0),
        schema: told("schema")?.unwrap_or_default(),
        created_at: told("created_at")?,
        restored_at: told("restored_at")?,
        oldest_event: first("SELECT received_at FROM events ORDER BY seq LIMIT 1")?,
        newest_event: first("SELECT received_at FROM events ORDER BY seq DESC LIMIT 1")?,
        bytes_per_event: ((pages - free) * page).checked_div(u64::try_from(rows("events")).unwrap_or(0)),
        events,
        deliveries: counts(&connection, "SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state")?,
        removed,
        tables,
    })
}

/// Events by state, of which there are `all`.
fn events(connection: &Connection, all: i64) -> Result<Vec<Count>, Error> {
    let mut counts = counts(
        connection,
        "SELECT state, count(*) FROM (SELECT state FROM open_events UNION ALL \
         SELECT 'proving' FROM standing WHERE seq > (SELECT taken FROM intake) AND state = 'proving') GROUP BY state ORDER BY state",
    )?;
    let open: i64 = counts.iter().map(|each| each.count).sum();
    counts.push(Count { name: "done or kept".to_owned(), count: all - open });
    Ok(counts)
}

fn counts(connection: &Connection, sql: &str) -> Result<Vec<Count>, Error> {
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map([], |row| Ok(Count { name: row.get(0)?, count: row.get(1)? }))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The tables, each with its indexes, the largest first.
fn tables(connection: &Connection, page: u64) -> Result<Vec<Table>, Error> {
    let mut statement = connection.prepare(
        "SELECT tbl_name, sum(pages) FROM sqlite_schema JOIN (SELECT name AS of, pageno AS pages FROM dbstat WHERE aggregate = TRUE) \
         ON of = sqlite_schema.name WHERE type IN ('table', 'index') GROUP BY tbl_name ORDER BY 2 DESC, 1",
    )?;
    let sizes: Vec<(String, u64)> = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut tables = Vec::with_capacity(sizes.len());
    for (name, pages) in sizes.into_iter().filter(|(name, _)| !name.starts_with("sqlite_")) {
        // The name is one of the schema's own.
        let rows = connection.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0))?;
        tables.push(Table { name, rows, bytes: pages * page });
    }
    Ok(tables)
}
