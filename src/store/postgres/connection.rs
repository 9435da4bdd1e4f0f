//! Connections, and the statements that each has prepared.
//!
//! Most of what a short statement costs is to read and to plan it, so what work does all the time is prepared by name, and planned once for
//! many transactions of a connection. A name means something on one session of the server only, and a pooler in between may give every transaction another
//! one. So a connection leaves a mark on the session that it first has work on, and a transaction that finds another mark, or none, uses no names.
//!
//! What must hold:
//! - No statement is run by a name on a session where it was not given. Whoever marks a session later takes it over.
//! - A plan is made once for all values, and not for each: left to itself, the server plans again whenever a list that it knows seems
//!   shorter than one that it does not, which is each time, and takes longer than the statement itself.
//! - A plan that was made while the tables were small is not used for ever: it may go through all of them.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use deadpool::managed::{self, Metrics, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, SimpleQueryMessage, Statement};
use uuid::Uuid;

/// Values of a statement, with their types.
pub(super) type Args<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// Asks a session for its mark. It is a setting, since those end with the session, or when a pooler clears it, as names do.
const ASK: &str = "SELECT current_setting('taskhook.connection', true)";

/// Has a plan serve for all values; said in the transaction, since of a session others may be the next.
const PLAN_ONCE: &str = "SET LOCAL plan_cache_mode = force_generic_plan";

/// After so many transactions a connection's statements are prepared anew.
const USES: u32 = 50;

/// What makes connections.
#[derive(Debug)]
pub(super) struct Manager {
    inner: deadpool_postgres::Manager,
    /// Whether something in between has been noticed: then nothing is prepared any more.
    pooler: Arc<AtomicBool>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    client: ClientWrapper,
    /// The mark on its session.
    mark: String,
    pooler: Arc<AtomicBool>,
    /// Transactions of work since it was made.
    uses: AtomicU32,
}

impl Manager {
    pub(super) fn new(inner: deadpool_postgres::Manager) -> Self {
        Self { inner, pooler: Arc::default() }
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        let (client, mark) = (self.inner.create().await?, Uuid::now_v7().to_string());
        Ok(Connection { client, mark, pooler: Arc::clone(&self.pooler), uses: AtomicU32::new(0) })
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<Error> {
        self.inner.recycle(&mut connection.client, metrics).await
    }

    fn detach(&self, connection: &mut Connection) {
        self.inner.detach(&mut connection.client);
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl Connection {
    /// Begins a transaction with the statements `begin`; says whether statements may be prepared in it.
    pub(super) async fn begin(&self, begin: &str) -> Result<bool, Error> {
        if self.pooler.load(Ordering::Relaxed) {
            return self.batch_execute(begin).await.map(|()| false);
        }
        match self.uses.fetch_add(1, Ordering::Relaxed) {
            0 => self.batch_execute(&format!("SET taskhook.connection = '{}'", self.mark)).await?,
            uses if uses % USES == 0 => self.statement_cache.clear(),
            _ => {}
        }
        let told = self.simple_query(&format!("{begin}; {PLAN_ONCE}; {ASK}")).await?;
        let ours = told.iter().any(|told| matches!(told, SimpleQueryMessage::Row(row) if row.get(0) == Some(&self.mark)));
        if !ours {
            self.has_pooler();
        }
        Ok(ours)
    }

    fn has_pooler(&self) {
        if !self.pooler.swap(true, Ordering::Relaxed) {
            tracing::debug!("the way to the database leads through a pooler: statements are planned each time");
        }
    }

    /// All rows that a prepared statement gives.
    pub(super) async fn rows(&self, sql: &str, args: Args<'_>) -> Result<Vec<Row>, Error> {
        let statement = self.statement(sql, args).await?;
        self.query(&statement, &values(args)).await.inspect_err(|error| self.failed(error))
    }

    /// How many rows a prepared statement changed.
    pub(super) async fn run(&self, sql: &str, args: Args<'_>) -> Result<u64, Error> {
        let statement = self.statement(sql, args).await?;
        self.execute(&statement, &values(args)).await.inspect_err(|error| self.failed(error))
    }

    async fn statement(&self, sql: &str, args: Args<'_>) -> Result<Statement, Error> {
        let types: Vec<Type> = args.iter().map(|(_, kind)| kind.clone()).collect();
        self.prepare_typed_cached(sql, &types).await.inspect_err(|error| self.failed(error))
    }

    /// Prepares nothing more where a name was not known, or known already: the transaction is done again without.
    fn failed(&self, error: &Error) {
        match error.code().map_or("", |code| code.code()) {
            // Its tables are not as they were: a newer program may have migrated them.
            "0A000" => self.statement_cache.clear(),
            code if is_of_a_name(code) => self.has_pooler(),
            _ => {}
        }
    }
}

/// Whether an error tells that a name means something else than we took it to mean.
pub(super) fn is_of_a_name(code: &str) -> bool {
    matches!(code, "26000" | "42P05")
}

fn values(args: Args<'_>) -> Vec<&(dyn ToSql + Sync)> {
    args.iter().map(|(value, _)| *value).collect()
}
