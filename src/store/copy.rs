//! A store in a SQLite file, copied into a PostgreSQL.
//!
//! What must hold:
//! - Nobody writes to the source meanwhile: its lock is ours, and all of it is read in one transaction. It is left as it was.
//! - The target gets all or nothing: one transaction, which ends with the commit, whatever cuts it off before. It must hold nothing
//!   yet that would be mixed with what comes.
//! - Before the commit every row is read back. Both sides are summed up in the same way, from the values that both databases mean,
//!   not from how each writes them.
//! - What the source does not say in rows is said in rows afterwards: which events are not taken in, and, since no process lives that
//!   could hold one, that no lease holds. What was being sent has an unknown outcome, as after a crash.

pub(super) mod cell;
pub(super) mod table;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use self::cell::Sum;
use self::table::{TABLES, Table};
use super::care::{Progress, Tell};
use super::postgres::copy::Target;
use super::sqlite::copy::Source;
use super::{Config, Error, sqlite};

/// Rows between two words about how far it is.
const TELL_EVERY: u64 = 256;

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The file.
    pub from: PathBuf,
    /// The server and the database.
    pub to: String,
    /// The schema in it.
    pub schema: String,
    /// The id of the store, in both places.
    pub instance_id: String,
    /// What was copied and compared.
    pub tables: Vec<CopiedTable>,
    /// Jobs that were in hand when the last process ended: they are due.
    pub leases: usize,
    /// Texts with a zero byte, which PostgreSQL does not know: it is another sign there.
    pub changed_texts: u64,
}

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopiedTable {
    /// Its name.
    pub name: &'static str,
    /// Its rows.
    pub rows: u64,
    /// What they sum up to on both sides.
    pub checksum: String,
}

impl Copied {
    /// Events that were copied.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.tables.iter().find(|table| table.name == "events").map_or(0, |table| table.rows)
    }
}

pub(super) async fn copy(from: &Config, to: &Config, now: Timestamp, tell: Tell<'_>) -> Result<Copied, Error> {
    let path = sqlite::file(from)?;
    let source = Source::open(&path)?;
    let mut target = Target::begin(to, now).await?;
    let done = fill(&source, &mut target, now, tell).await;
    let (tables, leases) = target.end(done).await?;
    Ok(Copied {
        from: path,
        to: target.place().to_owned(),
        schema: to.schema.clone(),
        instance_id: source.instance_id()?,
        tables,
        leases,
        changed_texts: source.changed_texts(),
    })
}

/// Does all that is done before the commit. Says what was copied, and how many leases were ended.
async fn fill(source: &Source, target: &mut Target, now: Timestamp, tell: Tell<'_>) -> Result<(Vec<CopiedTable>, usize), Error> {
    tell(Progress { what: "counting rows", done: 0, total: 0 });
    let total = source.total()?;
    let mut count = Count { what: "copying rows", done: 0, total, tell };
    let mut sums = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let (sum, next) = write(source, target, table, &mut count).await?;
        if table.numbered {
            target.go_on_from(table, next).await?;
        }
        sums.push(sum);
    }
    (count.what, count.done) = ("comparing rows", 0);
    for (table, sum) in TABLES.iter().zip(&sums) {
        let read = read_back(target, table, &mut count).await?;
        if read != *sum {
            return Err(target.differs(table, sum, &read));
        }
    }
    (count.tell)(Progress { what: "making it ready", done: 0, total: 0 });
    let leases = target.end_leases(now).await?;
    target.analyze().await?;
    let tables = TABLES.iter().zip(sums);
    let tables = tables.map(|(table, sum)| CopiedTable { name: table.name, rows: sum.rows(), checksum: sum.to_string() });
    Ok((tables.collect(), leases))
}

/// Copies the rows of a table. Says what they sum up to, and the first number that none of them ever had.
async fn write(source: &Source, target: &Target, table: &Table, count: &mut Count<'_>) -> Result<(Sum, i64), Error> {
    let (mut sum, mut next) = (Sum::default(), source.last_number(table)?);
    let mut statement = source.prepare(table)?;
    let mut rows = source.rows(&mut statement, table)?;
    let mut filling = target.filling(table).await?;
    count.say();
    while let Some(cells) = rows.next()? {
        sum.add(&cells);
        if let Some(cell::Cell::Number(number)) = cells.first() {
            next = next.max(*number);
        }
        filling.write(&cells).await?;
        count.one();
    }
    filling.finish().await?;
    Ok((sum, next + 1))
}

/// What the rows of a table sum up to that were written.
async fn read_back(target: &Target, table: &Table, count: &mut Count<'_>) -> Result<Sum, Error> {
    let mut sum = Sum::default();
    let mut rows = target.rows(table).await?;
    count.say();
    while let Some(cells) = rows.next().await? {
        sum.add(&cells);
        count.one();
    }
    Ok(sum)
}

/// How far it is.
struct Count<'a> {
    what: &'static str,
    done: u64,
    total: u64,
    tell: Tell<'a>,
}

impl Count<'_> {
    fn one(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(TELL_EVERY) {
            self.say();
        }
    }

    fn say(&mut self) {
        (self.tell)(Progress { what: self.what, done: self.done, total: self.total });
    }
}
