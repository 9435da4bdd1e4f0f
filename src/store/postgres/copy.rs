//! Taking in a whole store that was elsewhere, in one transaction.
//!
//! What must hold: no replica runs on the schema, and it holds nothing that would be mixed with what comes; until the commit nobody
//! sees anything of it, and a transaction that is cut off leaves the schema as it was, or not there.

use std::pin::{Pin, pin};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, RowStream};

use super::beat::is_seen;
use super::session::{Kind as Session, Tx, args};
use super::{Way, open, work};
use crate::store::copy::cell::{Cell, Kind, Sum};
use crate::store::copy::table::{TABLES, Table};
use crate::store::{Config, Error};

/// Tables that a store has from its first start on: what is in them is taken away.
const OF_EVERY_STORE: [&str; 4] = ["store", "rejections", "verification_keys", "own_keys"];

/// A store that is being filled.
pub(in crate::store) struct Target {
    place: String,
    schema: String,
    tx: Option<Tx>,
}

impl Target {
    /// Begins, where `config` says; makes the tables if they are not there.
    pub(in crate::store) async fn begin(config: &Config, now: Timestamp) -> Result<Self, Error> {
        // One session, for as long as it takes.
        let way = Way::direct(config)?;
        let begun = async {
            let tx = way.sessions(1)?.begin(Session::Write).await?;
            tx.batch("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
            open::migrate(&tx, &way, now).await?;
            tx.batch("SET LOCAL lock_timeout = '5s'").await?;
            Ok(tx)
        };
        let tx = open::refusing(&way, begun.await)?;
        let target = Self { place: way.place, schema: way.schema, tx: Some(tx) };
        let emptied = target.empty().await;
        match emptied {
            Ok(()) => Ok(target),
            Err(error) => Err(target.give_up(error).await),
        }
    }

    pub(in crate::store) fn place(&self) -> &str {
        &self.place
    }

    fn tx(&self) -> &Tx {
        self.tx.as_ref().expect("it is there until the end")
    }

    /// Takes the tables for itself, and refuses those that hold anything.
    async fn empty(&self) -> Result<(), Error> {
        let tx = self.tx();
        let names = TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        self.wrap(tx.batch(&format!("LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")).await)?;
        let sql = concat!("SELECT EXISTS (SELECT 1 FROM replicas WHERE ", is_seen!(), ")");
        if self.wrap(tx.row(sql, &[]).await)?.get(0) {
            let hint = "stop every taskhook whose `store.url` leads there, and copy again; nothing was changed";
            return Err(self.refuse("a taskhook runs on it".to_owned(), hint));
        }
        for table in TABLES.iter().filter(|table| !OF_EVERY_STORE.contains(&table.name)) {
            let rows = self.wrap(tx.stream(&format!("SELECT 1 FROM {} LIMIT 1", table.name)).await)?;
            if let Some(row) = pin!(rows).next().await {
                self.wrap(row.map_err(Error::from))?;
                let problem = format!("its schema `{}` has a store already, with rows in `{}`", self.schema, table.name);
                let hint = "name another schema (`store.schema`) or another database; nothing was changed";
                return Err(self.refuse(problem, hint));
            }
        }
        let clear =
            "TRUNCATE rejections, verification_keys, own_keys; DELETE FROM store WHERE name NOT IN ('schema', 'oldest_schema')";
        self.wrap(tx.batch(clear).await)
    }

    /// Begins to take the rows of a table in.
    pub(in crate::store) async fn filling<'a>(&'a self, table: &'a Table) -> Result<Filling<'a>, Error> {
        let types: Vec<Type> = table.columns.iter().map(|(_, kind)| kind.of_postgres()).collect();
        let sink = self.within(table, self.tx().copy_in(&table.copy_in()).await)?;
        Ok(Filling { target: self, table, writer: Box::pin(BinaryCopyInWriter::new(sink, &types)) })
    }

    /// Lets the numbers of `table` go on from `next`.
    pub(in crate::store) async fn go_on_from(&self, table: &Table, next: i64) -> Result<(), Error> {
        let (column, _) = table.columns[0];
        let sql = "SELECT setval(pg_get_serial_sequence($1, $2)::regclass, $3, false)";
        self.within(table, self.tx().run(sql, args![table.name, column, next]).await).map(drop)
    }

    /// Reads the rows of a table that were taken in.
    pub(in crate::store) async fn rows<'a>(&'a self, table: &'a Table) -> Result<Rows<'a>, Error> {
        let stream = self.within(table, self.tx().stream(&table.select_of_postgres()).await)?;
        Ok(Rows { target: self, table, stream: Box::pin(stream) })
    }

    /// A table that is not what was written.
    pub(in crate::store) fn differs(&self, table: &Table, written: &Sum, read: &Sum) -> Error {
        let problem = format!(
            "the table `{}` reads back otherwise than it was written ({} rows that sum up to {written}, and {} that sum up to {read})",
            table.name,
            written.rows(),
            read.rows()
        );
        self.refuse(problem, "nothing was copied; report this, and what PostgreSQL it is")
    }

    /// Ends the leases that came along. Says how many they were.
    pub(in crate::store) async fn end_leases(&self, now: Timestamp) -> Result<usize, Error> {
        let tx = self.tx();
        let all = async {
            let rows = tx.rows("SELECT id, attempt FROM jobs WHERE state = 'leased' ORDER BY id", &[]).await?;
            work::end_leases(tx, &work::leases_of(&rows), now).await
        };
        self.wrap(all.await)
    }

    /// Lets the database plan with what it has now.
    pub(in crate::store) async fn analyze(&self) -> Result<(), Error> {
        let names = TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        self.wrap(self.tx().batch(&format!("ANALYZE {names}")).await)
    }

    /// Commits what succeeded, and undoes what did not.
    pub(in crate::store) async fn end<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        let Some(tx) = self.tx.take() else { return done };
        match done {
            Ok(done) => tx.end(Ok(done)).await.map_err(|error| {
                let hint = "copy once more: if it was all there, that says so, and changes nothing";
                self.refuse(format!("whether the copy was committed is not known: {}", plain(error)), hint)
            }),
            Err(error) => tx.end(Err(error)).await,
        }
    }

    async fn give_up(mut self, error: Error) -> Error {
        match self.end(Err::<(), _>(error)).await {
            Err(error) => error,
            Ok(()) => Error::Unavailable("what failed did not (a bug)".to_owned()),
        }
    }

    fn refuse(&self, problem: String, hint: &str) -> Error {
        Error::Server { place: self.place.clone(), problem, hint: hint.to_owned() }
    }

    /// What broke the copy off.
    fn wrap<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        done.map_err(|error| match error {
            Error::Server { .. } => error,
            error => self.refuse(format!("the copy was broken off: {}", plain(error)), "nothing was copied; copy again"),
        })
    }

    fn within<T>(&self, table: &Table, done: Result<T, Error>) -> Result<T, Error> {
        done.map_err(|error| {
            let problem = format!("the copy was broken off in the table `{}`: {}", table.name, plain(error));
            self.refuse(problem, "nothing was copied; copy again")
        })
    }
}

/// What an error says, without what it is of.
fn plain(error: Error) -> String {
    match error {
        Error::Unreachable(problem)
        | Error::Database(problem)
        | Error::Refused(problem)
        | Error::Again(problem)
        | Error::Full(problem) => problem,
        error => error.to_string(),
    }
}

/// Rows on their way into a table.
pub(in crate::store) struct Filling<'a> {
    target: &'a Target,
    table: &'a Table,
    writer: Pin<Box<BinaryCopyInWriter>>,
}

impl Filling<'_> {
    pub(in crate::store) async fn write(&mut self, cells: &[Cell]) -> Result<(), Error> {
        let written = self.writer.as_mut().write_raw(cells.iter()).await;
        self.target.within(self.table, written.map_err(Error::from))
    }

    pub(in crate::store) async fn finish(mut self) -> Result<(), Error> {
        let finished = self.writer.as_mut().finish().await;
        self.target.within(self.table, finished.map(drop).map_err(Error::from))
    }
}

/// The rows of a table, as they are there.
pub(in crate::store) struct Rows<'a> {
    target: &'a Target,
    table: &'a Table,
    stream: Pin<Box<RowStream>>,
}

impl Rows<'_> {
    pub(in crate::store) async fn next(&mut self) -> Result<Option<Vec<Cell>>, Error> {
        let row = match self.stream.next().await {
            None => return Ok(None),
            Some(row) => self.target.within(self.table, row.map_err(Error::from))?,
        };
        Ok(Some(self.table.columns.iter().enumerate().map(|(place, (_, kind))| cell(&row, place, *kind)).collect()))
    }
}

fn cell(row: &Row, place: usize, kind: Kind) -> Cell {
    let cell = match kind {
        Kind::Flag => row.get::<_, Option<_>>(place).map(Cell::Flag),
        Kind::Number => row.get::<_, Option<_>>(place).map(Cell::Number),
        Kind::Real => row.get::<_, Option<_>>(place).map(Cell::Real),
        Kind::Text => row.get::<_, Option<_>>(place).map(Cell::Text),
        Kind::Texts => row.get::<_, Option<_>>(place).map(Cell::Texts),
        Kind::Time => row.get::<_, Option<_>>(place).map(Cell::Time),
        Kind::Id => row.get::<_, Option<_>>(place).map(Cell::Id),
        Kind::Bytes => row.get::<_, Option<_>>(place).map(Cell::Bytes),
    };
    cell.unwrap_or(Cell::Null)
}
