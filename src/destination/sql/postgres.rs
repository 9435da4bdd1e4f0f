//! PostgreSQL: a pool of connections, one statement prepared on each.
//!
//! TLS as the URL's `sslmode` says: `disable`, `prefer` (where the server offers it), `require`. A certificate is always verified,
//! so `verify-full` is the same as `require`. Without `sslmode` it is `require`, on this machine `disable`.
//!
//! No failure quotes the server where it would quote a value: of a value that does not fit, and of a row that exists, only the code,
//! the column and the constraint are told.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio_postgres::Error;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::Unready;
use super::bind::Bound;
use crate::destination::MAX_EXCERPT;
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
        let tls = MakeRustlsConnect::new(tls(ca_file)?);
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
pub(super) fn parse(url: &str) -> Result<tokio_postgres::Config, String> {
    let (url, mode) = ssl_mode(url)?;
    // The error names a key of the URL, never a value.
    let mut config: tokio_postgres::Config = url.parse().map_err(|error: Error| format!("`url`: {error}"))?;
    if config.get_hosts().is_empty() {
        return Err("`url` names no host; write `postgres://user:password@host/database`".to_owned());
    }
    if config.get_dbname().is_none() {
        return Err("`url` names no database; write `postgres://user:password@host/database`".to_owned());
    }
    let local = config.get_hosts().iter().all(is_local);
    config.ssl_mode(mode.unwrap_or(if local { SslMode::Disable } else { SslMode::Require }));
    Ok(config)
}

/// The URL without its `sslmode`, and what that says: two of its values are unknown to the driver.
fn ssl_mode(text: &str) -> Result<(String, Option<SslMode>), String> {
    let mut url = Url::parse(text).map_err(|error| format!("`url` is no URL: {error}"))?;
    let (mut mode, mut rest) = (None, Vec::new());
    for (name, value) in url.query_pairs() {
        match (name.as_ref(), value.as_ref()) {
            ("sslmode", "disable") => mode = Some(SslMode::Disable),
            ("sslmode", "prefer") => mode = Some(SslMode::Prefer),
            ("sslmode", "require" | "verify-ca" | "verify-full") => mode = Some(SslMode::Require),
            ("sslmode", _) => return Err("`url`: `sslmode` is `disable`, `prefer`, `require` or `verify-full`".to_owned()),
            ("sslrootcert", _) => return Err("`url`: instead of `sslrootcert`, set `ca_file`".to_owned()),
            (name, value) => rest.push((name.to_owned(), value.to_owned())),
        }
    }
    url.set_query(None);
    if !rest.is_empty() {
        url.query_pairs_mut().extend_pairs(rest);
    }
    Ok((url.to_string(), mode))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let told = |what: String| format!("`ca_file`: {}: {what}", path.display());
        let pem = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        let own: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
        if roots.add_parsable_certificates(own).0 == 0 {
            return Err(told("holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("cannot set TLS up: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Why there is no connection.
fn connecting(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => reason(error),
        other => one_line(&other.to_string(), MAX_EXCERPT),
    }
}

/// What the server says, or what came instead of an answer.
fn reason(error: &Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        return told(refusal);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let hint = if cause.to_string().contains("server does not support TLS") {
        "; where the way to it is yours alone, add `?sslmode=disable` to `url`"
    } else {
        ""
    };
    format!("cannot connect: {}{hint}", one_line(&cause.to_string(), MAX_EXCERPT))
}

/// A refusal, without a value that it may quote.
fn told(refusal: &DbError) -> String {
    let code = refusal.code().code();
    let place: Vec<_> = [("constraint", refusal.constraint()), ("table", refusal.table()), ("column", refusal.column())]
        .into_iter()
        .filter_map(|(what, name)| name.map(|name| format!("{what} {}", one_line(name, 80))))
        .collect();
    let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(", ")) };
    let what = match &code[..2] {
        "22" => "a value does not fit the type that it is for".to_owned(),
        _ => one_line(refusal.message(), MAX_EXCERPT),
    };
    format!("{code}: {what}{place}")
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
