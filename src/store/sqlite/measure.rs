//! What a store holds, read from its file.

use super::super::view::Totals;
use super::super::{Config, Error};
use super::open;

/// Counts what a store holds that another process may have open.
pub(in super::super) fn peek_totals(config: &Config) -> Result<Totals, Error> {
    let connection = open::open_read_only(&open::path(config.url.expose())?)?;
    let events = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let page = pragma("page_size")?;
    Ok(Totals { events, bytes: pragma("page_count")? * page, free_bytes: pragma("freelist_count")? * page })
}
