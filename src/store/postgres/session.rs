//! Transactions on pooled connections.
//!
//! What must hold:
//! - Each transaction says for itself what it needs of its session (where the tables are, that a commit is on the disk, how long it may
//!   take): a pooler in between may give every transaction another one. For the same reason statements are prepared by name only where
//!   there is none: see [`Connection`]. One that is a single statement says it in that: see `schema/0004_append.sql`.
//! - A connection whose user was interrupted is closed: whatever comes on it still is nobody's answer.
//! - What a deadlock or a conflict undid is done again by [`transact`], so work in it may run twice, and only its last run counts.
//! - Nothing waits for ever: a database that does not answer is one that is away.

use std::time::Duration;

use bytes::Bytes;
use deadpool::Runtime;
use deadpool::managed::{Object, Pool, Timeouts};
use deadpool_postgres::{ManagerConfig, PoolError, RecyclingMethod};
use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, CopyInSink, Row, RowStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

pub(super) use super::connection::Args;
#[cfg(doc)]
use super::connection::Connection;
use super::connection::{Manager, is_of_a_name};
use super::crowd::{Crowd, Turn};
use crate::postgres;
use crate::store::Error;

/// The longest that a transaction may take, its connection included.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a transaction is tried again that lost against another one.
pub(super) const TRIES: u32 = 20;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It writes.
    Write,
    /// It writes, as work does all the time: its statements are prepared where they can be.
    Work,
    /// It reads one state of the store.
    Read,
    /// The same, as work does it.
    WorkRead,
}

/// Connections, and how a transaction on them begins.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    pool: Pool<Manager>,
    schema: String,
    write: String,
    read: String,
    /// Behind whom its transactions stand.
    crowd: Option<Crowd>,
}

impl Sessions {
    /// Connects to nobody yet.
    pub(super) fn new(config: &Config, tls: &MakeRustlsConnect, schema: &str, most: usize) -> Result<Self, Error> {
        let mut config = config.clone();
        // Of several servers the first may be silent, and the others are to be asked in the same time.
        let servers = u32::try_from(config.get_hosts().len()).unwrap_or(1).max(1);
        config.application_name("taskhook").connect_timeout(CONNECT / servers);
        let fast = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::new(deadpool_postgres::Manager::from_config(config, tls.clone(), fast));
        let timeouts = Timeouts { wait: Some(PATIENCE), create: Some(CONNECT), recycle: Some(CONNECT) };
        let pool = Pool::builder(manager).max_size(most).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|error| Error::Unreachable(error.to_string()))?;
        let settings = settings(schema);
        Ok(Self {
            pool,
            schema: schema.to_owned(),
            write: format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {settings}"),
            read: format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {settings}"),
            crowd: None,
        })
    }

    /// The same connections, for what waits its turn while senders crowd.
    pub(super) fn behind(&self, crowd: Crowd) -> Self {
        Self { crowd: Some(crowd), ..self.clone() }
    }

    /// So many replicas work.
    pub(super) fn share_among(&self, replicas: usize) {
        if let Some(crowd) = &self.crowd {
            crowd.share_among(replicas);
        }
    }

    /// Waits for the turn to begin a transaction.
    pub(super) async fn turn(&self) -> Option<Turn> {
        match &self.crowd {
            Some(crowd) => crowd.turn().await,
            None => None,
        }
    }

    /// The schema of the tables.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// A transaction that is one call of a function of the schema, which gives one row: the function says for itself what it needs of
    /// its session. It has succeeded when the database answers for its commit, which is after the row.
    pub(super) async fn call(&self, function: &str, args: Args<'_>) -> Result<Row, Error> {
        let mut tx = Tx { prepared: false, client: Some(self.pool.get().await.map_err(|error| unreachable(&error))?) };
        let sql = calling(&format!("\"{}\".{function}", self.schema), args.len());
        let row = tx.client().query_typed_one(&sql, args).await;
        // Whoever got an answer, be it an error, was not interrupted.
        if row.as_ref().err().is_none_or(|error| error.as_db_error().is_some()) {
            tx.client = None;
        }
        Ok(row?)
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, kind: Kind) -> Result<Tx, Error> {
        let client = self.pool.get().await.map_err(|error| unreachable(&error))?;
        let mut tx = Tx { client: Some(client), prepared: false };
        match kind {
            Kind::Write => tx.batch(&self.write).await?,
            Kind::Work => tx.prepared = Box::pin(tx.client().begin(&self.write)).await?,
            Kind::Read => tx.batch(&self.read).await?,
            Kind::WorkRead => tx.prepared = Box::pin(tx.client().begin(&self.read)).await?,
        }
        Ok(tx)
    }
}

/// What each transaction says of its session. One whose replica is cut off, or stands still, holds its locks, and keeps others from
/// taking over, until the server gives it up. Two of them may wait one for the other: both are to be over when the replica is taken for
/// gone. The name of a schema is checked before it comes here.
pub(super) fn settings(schema: &str) -> String {
    format!(
        "SET LOCAL search_path = \"{schema}\"; SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = '10s'; \
         SET LOCAL idle_in_transaction_session_timeout = '2s'; SET LOCAL jit = off"
    )
}

/// The statement that calls a function with so many arguments.
fn calling(function: &str, args: usize) -> String {
    let args: Vec<_> = (1..=args).map(|number| format!("${number}")).collect();
    format!("SELECT {function}({})", args.join(", "))
}

/// Does `$work`, a future, again where another transaction was in the way.
macro_rules! retry {
    ($sessions:expr, $work:expr) => {{
        let mut tries = 0;
        loop {
            let _turn = $sessions.turn().await;
            match $work.await {
                Err($crate::store::Error::Again(_)) if tries < $crate::store::postgres::session::TRIES => tries += 1,
                Err($crate::store::Error::Again(problem)) => break Err($crate::store::Error::Database(problem)),
                outcome => break outcome,
            }
        }
    }};
}
pub(super) use retry;

/// Does `$work`, a future on the transaction `$tx`, and commits; again where another transaction was in the way.
macro_rules! transact {
    ($sessions:expr, $kind:ident, |$tx:ident| $work:expr) => {
        $crate::store::postgres::session::retry!(
            $sessions,
            $crate::store::postgres::session::within(async {
                let $tx = $sessions.begin($crate::store::postgres::session::Kind::$kind).await?;
                let done = $work.await;
                $tx.end(done).await
            })
        )
    };
}
pub(super) use transact;

/// Waits for `work` as long as a transaction may take.
pub(super) async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(Error::Unreachable(format!("it did not answer within {} s", PATIENCE.as_secs()))))
}

/// A transaction. Unless it is ended, its connection is closed.
pub(super) struct Tx {
    client: Option<Object<Manager>>,
    /// Whether its statements are prepared.
    prepared: bool,
}

impl Tx {
    fn client(&self) -> &Object<Manager> {
        self.client.as_ref().expect("it is there until the transaction ends")
    }

    /// Statements that give nothing back.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Error> {
        Ok(self.client().batch_execute(sql).await?)
    }

    /// All rows that a statement gives.
    pub(super) async fn rows(&self, sql: &'static str, args: Args<'_>) -> Result<Vec<Row>, Error> {
        if self.prepared {
            // In a box, since few of the futures around it are in one.
            return Ok(Box::pin(self.client().rows(sql, args)).await?);
        }
        Ok(self.client().query_typed(sql, args).await?)
    }

    /// The one row that a statement gives.
    pub(super) async fn row(&self, sql: &'static str, args: Args<'_>) -> Result<Row, Error> {
        self.maybe(sql, args).await?.ok_or_else(|| Error::Database("a row is missing that is always there".to_owned()))
    }

    /// The one row that a call of a function gives.
    pub(super) async fn call(&self, function: &str, args: Args<'_>) -> Result<Row, Error> {
        Ok(self.client().query_typed_one(&calling(function, args.len()), args).await?)
    }

    /// The row that a statement gives, if it gives one.
    pub(super) async fn maybe(&self, sql: &'static str, args: Args<'_>) -> Result<Option<Row>, Error> {
        let mut rows = self.rows(sql, args).await?.into_iter();
        match (rows.next(), rows.next()) {
            (row, None) => Ok(row),
            _ => Err(Error::Database("there are more rows than one".to_owned())),
        }
    }

    /// How many rows a statement changed.
    pub(super) async fn run(&self, sql: &'static str, args: Args<'_>) -> Result<u64, Error> {
        if self.prepared {
            return Ok(Box::pin(self.client().run(sql, args)).await?);
        }
        Ok(self.client().execute_typed(sql, args).await?)
    }

    /// All rows that a statement gives, as they come.
    pub(super) async fn stream(&self, sql: &str) -> Result<RowStream, Error> {
        Ok(self.client().query_typed_raw(sql, std::iter::empty::<(i64, Type)>()).await?)
    }

    /// Begins to take rows in.
    pub(super) async fn copy_in(&self, sql: &str) -> Result<CopyInSink<Bytes>, Error> {
        Ok(self.client().copy_in(sql).await?)
    }

    /// Commits what succeeded and undoes what did not.
    pub(super) async fn end<T>(mut self, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Ok(done) => {
                self.batch("COMMIT").await?;
                self.client = None;
                Ok(done)
            }
            Err(error) => self.undo(Err(error)).await,
        }
    }

    /// Undoes all of it.
    pub(super) async fn undo<T>(mut self, done: Result<T, Error>) -> Result<T, Error> {
        if self.batch("ROLLBACK").await.is_ok() {
            self.client = None;
        }
        done
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

/// Lists values for a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::store::postgres::session::arg(&$value)),*] };
}
pub(super) use args;

/// One column of what is written in one statement.
pub(super) fn column<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

pub(super) fn arg<T: Arg>(value: &T) -> (&(dyn ToSql + Sync), Type) {
    (value, value.kind())
}

/// A value that a statement takes.
pub(super) trait Arg: ToSql + Sync {
    fn kind(&self) -> Type;
}

macro_rules! arg_types {
    ($($rust:ty => $single:ident, $array:ident;)*) => {
        $(
            impl Arg for $rust {
                fn kind(&self) -> Type {
                    Type::$single
                }
            }
            impl Arg for Vec<$rust> {
                fn kind(&self) -> Type {
                    Type::$array
                }
            }
            impl Arg for Vec<Option<$rust>> {
                fn kind(&self) -> Type {
                    Type::$array
                }
            }
            impl Arg for Option<$rust> {
                fn kind(&self) -> Type {
                    Type::$single
                }
            }
        )*
    };
}

arg_types! {
    bool => BOOL, BOOL_ARRAY;
    i64 => INT8, INT8_ARRAY;
    f64 => FLOAT8, FLOAT8_ARRAY;
    &str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    Uuid => UUID, UUID_ARRAY;
    Timestamp => TIMESTAMPTZ, TIMESTAMPTZ_ARRAY;
    &[u8] => BYTEA, BYTEA_ARRAY;
}

impl Arg for &String {
    fn kind(&self) -> Type {
        Type::TEXT
    }
}

/// A number as the database takes it.
pub(super) fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A text as the database takes it: it knows no zero byte. What would tell two apart by one is compared elsewhere.
pub(in crate::store) fn clean(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A text that may be missing, as the database takes it.
pub(super) fn tidy(text: Option<&str>) -> Option<String> {
    text.map(|text| clean(text).into_owned())
}

/// A time as the database takes it: it knows none of long ago, when nothing was here.
pub(super) fn known(at: Timestamp) -> Timestamp {
    at.max(Timestamp::UNIX_EPOCH)
}

fn unreachable(error: &PoolError) -> Error {
    match error {
        PoolError::Backend(error) => Error::from(error),
        PoolError::Timeout(_) => Error::Unreachable("no connection could be had in time".to_owned()),
        other => Error::Unreachable(other.to_string()),
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&tokio_postgres::Error> for Error {
    fn from(error: &tokio_postgres::Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            return Self::Unreachable(postgres::reason(error, "store.url"));
        };
        let told = postgres::told(refusal);
        match refusal.code().code() {
            "40001" | "40P01" | "55P03" => Self::Again(told),
            code if is_of_a_name(code) => Self::Again(told),
            "53100" => Self::Full(told),
            // A standby: what begins to write there is told that it is not supported.
            "25006" | "0A000" => Self::Unreachable(format!("it takes no writes: {told}")),
            // Connections, their number, a server that stops or starts, a statement that took too long.
            code if matches!(&code[..2], "08" | "53" | "57" | "28") || code == "25P03" => Self::Unreachable(told),
            code if matches!(&code[..2], "22" | "23") => Self::Refused(told),
            _ => Self::Database(told),
        }
    }
}
