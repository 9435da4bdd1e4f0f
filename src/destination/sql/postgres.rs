//! PostgreSQL: a pool of connections, one statement prepared on each.
//!
//! What the URL says, and what is told of an error, as in [`crate::postgres`].

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Unready;
use super::bind::Bound;
use crate::destination::MAX_EXCERPT;
use crate::postgres::{self, told};
use crate::retry::Failure;
use crate::text::one_line;

pub(super) struct Postgres {
    pool: Pool,
    timeout: Duration,
}

impl Postgres {
    /// Connects to nobody yet.
    pub(super) fn new(url: &str, ca_file: Option<&Path>, places: usize, timeout: Duration) -> Result<Self, String> {
        let mut config = parse(url)?;
        config.application_name("taskhook");
        // Less than the whole, so that a host that is not there is known to have got nothing.
        config.connect_timeout(timeout.mul_f64(0.75));
        let tls = MakeRustlsConnect::new(postgres::tls(ca_file).map_err(|problem| match ca_file {
            Some(_) => format!("`ca_file`: {problem}"),
            None => problem,
        })?);
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager).max_size(places.max(1)).runtime(Runtime::Tokio1).build();
        Ok(Self { pool: pool.map_err(|error| format!("cannot make a pool of connections: {error}"))?, timeout })
    }

    pub(super) async fn prepare(&self, statement: &str) -> Result<(), Unready> {
        let client = self.borrow().await.map_err(|error| Unready::Down(connecting(&error)))?;
        let prepared = client.prepare_cached(statement).await;
        client.give_back();
        match prepared {
            Ok(_) => Ok(()),
            Err(error) => match error.as_db_error() {
                Some(refusal) if !passes(refusal.code()) => Err(Unready::refused(told(refusal))),
                _ => Err(Unready::Down(reason(&error))),
            },
        }
    }

    pub(super) async fn execute(&self, statement: &str, values: Vec<Value>) -> Result<u64, Failure> {
        let values: Vec<Bound> = values.into_iter().map(Bound).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        // Set once the statement itself is on its way.
        let sent = AtomicBool::new(false);
        let working = async {
            let client = self.borrow().await.map_err(|error| Failure::retry(connecting(&error)))?;
            let prepared = match client.prepare_cached(statement).await {
                Ok(prepared) => prepared,
                Err(error) => {
                    client.give_back();
                    return Err(refused(&error, false));
                }
            };
            sent.store(true, Ordering::Relaxed);
            let executed = client.execute(&prepared, &parameters).await;
            if executed.is_err() {
                // Prepared for a table that may have changed since: the next attempt prepares it anew.
                client.statement_cache.clear();
            }
            client.give_back();
            executed.map_err(|error| refused(&error, true))
        };
        tokio::time::timeout(self.timeout, working).await.unwrap_or_else(|_| {
            let late = Failure::retry(format!("no answer within {} s", self.timeout.as_secs_f64()));
            Err(if sent.load(Ordering::Relaxed) { late.with_unknown_outcome() } else { late })
        })
    }

    async fn borrow(&self) -> Result<Borrowed, PoolError> {
        Ok(Borrowed(Some(self.pool.get().await?)))
    }
}

/// A connection on loan. Not given back, because its user was interrupted, it is closed: whatever comes on it still is nobody's answer.
struct Borrowed(Option<Object>);

impl Borrowed {
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Deref for Borrowed {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.0.as_ref().expect("it is there until it is given back")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

/// What the URL says.
pub(super) fn parse(url: &str) -> Result<Config, String> {
    let address = postgres::parse(url).map_err(|problem| match problem.strip_prefix("it ") {
        Some(rest) => format!("`url` {rest}"),
        None => format!("`url`: {problem}"),
    })?;
    if address.root_certificates.is_some() {
        return Err("`url`: instead of `sslrootcert`, set `ca_file`".to_owned());
    }
    Ok(address.config)
}

fn reason(error: &Error) -> String {
    let reason = postgres::reason(error, "url");
    if error.as_db_error().is_some() { reason } else { format!("cannot connect: {reason}") }
}

/// Why there is no connection.
fn connecting(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => reason(error),
        other => one_line(&other.to_string(), MAX_EXCERPT),
    }
}

/// Whether a refusal passes by itself or by somebody's hand, without another envelope: a connection, a lock, a full disk, a server
/// that stops; also what a migration or a grant mends (class 42), as a 404 is for `http`.
fn passes(code: &SqlState) -> bool {
    matches!(&code.code()[..2], "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX")
}

fn refused(error: &Error, executing: bool) -> Failure {
    match error.as_db_error() {
        Some(refusal) => {
            let mends = matches!(&refusal.code().code()[..2], "28" | "3D" | "42");
            let reason = told(refusal);
            if passes(refusal.code()) || mends { Failure::retry(reason) } else { Failure::give_up(reason) }
        }
        // The statement was sent and no answer came: it may have been done.
        None if executing => Failure::retry(format!("the connection broke: {}", lost(error))).with_unknown_outcome(),
        None => Failure::retry(format!("the connection broke: {}", lost(error))),
    }
}

fn lost(error: &Error) -> String {
    one_line(&error.to_string(), MAX_EXCERPT)
}
