//! Reading a store whole, to be written elsewhere.
//!
//! What must hold: nobody else has the store open, from before it is looked at until all of it was read; and nothing of it is written to.

use std::cell::Cell as Counter;
use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Statement};
use uuid::Uuid;

use super::inspect::inspect;
use super::open;
use crate::store::Error;
use crate::store::copy::cell::{Cell, Kind};
use crate::store::copy::table::Table;

/// A store that is read, and locked.
pub(in crate::store) struct Source {
    path: PathBuf,
    connection: Connection,
    changed_texts: Counter<u64>,
    _lock: File,
}

impl Source {
    /// Locks the store at `path` and begins to read it.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |problem: &str, hint: &str| {
            Err(Error::Open { path: path.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() })
        };
        if !path.is_file() {
            return refuse("there is no such file", "name the store that is to be copied; nothing was changed");
        }
        let lock = open::hold(path)?;
        inspect(path)?;
        let connection = open::open_read_only(path)?;
        let wrap = |error: rusqlite::Error| open::refused(path, &error);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(wrap)?;
        if open::schema(&connection, path)? != Some(open::MIGRATIONS.len()) {
            return refuse(
                "its schema is not the one of this version",
                "start `taskhook serve` of this version on it once, or copy it with the newer version that made it; nothing was changed",
            );
        }
        // The keys by their events; there is no index for that. They lie in a place of this connection's own.
        connection
            .execute_batch(
                "BEGIN; CREATE TABLE temp.keys (event INTEGER PRIMARY KEY, key BLOB NOT NULL) STRICT; \
                 INSERT INTO temp.keys SELECT event, key FROM (SELECT event, key FROM event_keys UNION SELECT event, key FROM new_keys) \
                 ORDER BY event",
            )
            .map_err(wrap)?;
        Ok(Self { path: path.to_owned(), connection, changed_texts: Counter::new(0), _lock: lock })
    }

    pub(in crate::store) fn instance_id(&self) -> Result<String, Error> {
        open::instance_id(&self.connection).map_err(|error| self.refused(&error))
    }

    /// How many texts were changed, since they held a zero byte.
    pub(in crate::store) fn changed_texts(&self) -> u64 {
        self.changed_texts.get()
    }

    /// How many rows there are in all.
    pub(in crate::store) fn total(&self) -> Result<u64, Error> {
        let count = |table: &Table| self.connection.query_row(&table.count_of_sqlite(), [], |row| row.get::<_, u64>(0));
        let counts: rusqlite::Result<Vec<_>> = crate::store::copy::table::TABLES.iter().map(count).collect();
        Ok(counts.map_err(|error| self.refused(&error))?.iter().sum())
    }

    /// The last number that was given in `table` and must not be given again, whether or not its row is there still.
    pub(in crate::store) fn last_number(&self, table: &Table) -> Result<i64, Error> {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        let last = self.connection.query_row(sql, [table.name], |row| row.get(0)).optional();
        Ok(last.map_err(|error| self.refused(&error))?.unwrap_or(0))
    }

    pub(in crate::store) fn prepare(&self, table: &Table) -> Result<Statement<'_>, Error> {
        self.connection.prepare(&table.select_of_sqlite()).map_err(|error| self.refused(&error))
    }

    pub(in crate::store) fn rows<'a>(&'a self, statement: &'a mut Statement<'_>, table: &'a Table) -> Result<Rows<'a>, Error> {
        let found = statement.query([]).map_err(|error| self.refused(&error))?;
        Ok(Rows { source: self, table, found })
    }

    fn refused(&self, error: &rusqlite::Error) -> Error {
        open::refused(&self.path, error)
    }

    /// A text as PostgreSQL takes it.
    fn clean(&self, text: &str) -> String {
        if text.contains('\0') {
            self.changed_texts.set(self.changed_texts.get() + 1);
        }
        crate::store::postgres::clean(text).into_owned()
    }
}

/// The rows of a table.
pub(in crate::store) struct Rows<'a> {
    source: &'a Source,
    table: &'a Table,
    found: rusqlite::Rows<'a>,
}

impl Rows<'_> {
    pub(in crate::store) fn next(&mut self) -> Result<Option<Vec<Cell>>, Error> {
        let Some(row) = self.found.next().map_err(|error| self.source.refused(&error))? else { return Ok(None) };
        let mut cells = Vec::with_capacity(self.table.columns.len());
        for (place, (name, kind)) in self.table.columns.iter().enumerate() {
            let value = row.get_ref(place).map_err(|error| self.source.refused(&error))?;
            let Some(cell) = cell(self.source, *kind, value) else {
                return Err(Error::Open {
                    path: self.source.path.clone(),
                    problem: format!("a row of `{}` has a `{name}` that cannot be read", self.table.name),
                    hint: "`taskhook store check` looks for more that is wrong with it; nothing was copied".to_owned(),
                });
            };
            cells.push(cell);
        }
        Ok(Some(cells))
    }
}

/// What `value` means in a column of this kind.
fn cell(source: &Source, kind: Kind, value: ValueRef<'_>) -> Option<Cell> {
    let text = || value.as_str().ok();
    Some(match (kind, value) {
        (_, ValueRef::Null) => Cell::Null,
        (Kind::Flag, ValueRef::Integer(number)) => Cell::Flag(number != 0),
        (Kind::Number, ValueRef::Integer(number)) => Cell::Number(number),
        (Kind::Real, ValueRef::Real(number)) => Cell::Real(number),
        (Kind::Text, _) => Cell::Text(source.clean(text()?)),
        (Kind::Texts, _) => {
            let texts: Vec<String> = serde_json::from_str(text()?).ok()?;
            Cell::Texts(texts.iter().map(|text| source.clean(text)).collect())
        }
        (Kind::Time, _) => Cell::Time(text()?.parse().ok()?),
        (Kind::Id, ValueRef::Blob(bytes)) => Cell::Id(Uuid::from_slice(bytes).ok()?),
        (Kind::Id, _) => Cell::Id(Uuid::parse_str(text()?).ok()?),
        (Kind::Bytes, ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Cell::Bytes(bytes.to_vec()),
        _ => return None,
    })
}
