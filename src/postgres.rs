//! Speaking to PostgreSQL: what a URL says, TLS, and what an error tells.
//!
//! TLS as the URL's `sslmode` says: `disable`, `prefer` (where the server offers it), `require`. A certificate is always verified,
//! so `verify-full` is the same as `require`. Without `sslmode` it is `require`, on this machine `disable`.
//!
//! What must hold: no message quotes the server where it would quote a value. Of a value that does not fit, and of a row that
//! exists, only the code, the column and the constraint are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::DbError;
use tokio_postgres::{Config, Error};

use crate::text::one_line;

/// The longest excerpt of somebody else's message.
const MAX_EXCERPT: usize = 200;
/// What stands where a password was.
const HIDDEN: &str = "redacted";

/// What a URL says.
#[derive(Clone, Debug)]
pub struct Address {
    /// What the driver knows of it.
    pub config: Config,
    /// `sslrootcert`: a file of certificates that are trusted beside the system's.
    pub root_certificates: Option<PathBuf>,
}

/// Reads `postgres://user:password@host/database?…`. Of several hosts (`host:5432,other:5432`) it is the one that takes writes, as libpq's
/// `target_session_attrs=read-write` has it.
///
/// # Errors
/// What is wrong with it, to follow the name of the key; no value of it is quoted.
pub fn parse(url: &str) -> Result<Address, String> {
    let (url, mode, root_certificates) = tls_settings(url)?;
    let mut config: Config = url.parse().map_err(|error: Error| format!("{error}: {}", wrong(cause(&error))))?;
    if config.get_hosts().is_empty() {
        return Err("it names no host; write `postgres://user:password@host/database`".to_owned());
    }
    if config.get_dbname().is_none() {
        return Err("it names no database; write `postgres://user:password@host/database`".to_owned());
    }
    let local = config.get_hosts().iter().all(is_local);
    if config.get_hosts().len() > 1 {
        // Of a primary and its standbys the one that takes writes; the driver would stay with whichever answers first.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config.ssl_mode(mode.unwrap_or(if local { SslMode::Disable } else { SslMode::Require }));
    Ok(Address { config, root_certificates })
}

/// What the driver finds wrong, which names a part of the URL, or a key of its own. A key that it does not know may be the end of a password
/// that is not written as it must be.
fn wrong(cause: String) -> String {
    if cause.starts_with("unknown option") {
        return "it sets something behind its `?` that is not known; in a password, `@`, `/` and `?` are `%40`, `%2F` and `%3F`"
            .to_owned();
    }
    cause
}

/// The URL without what it says of TLS, and that: the driver does not know all of it.
fn tls_settings(url: &str) -> Result<(String, Option<SslMode>, Option<PathBuf>), String> {
    let parts = Parts::of(url);
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    // What is the driver's stays as it is written: a plus is no space there.
    for (name, value) in parts.settings() {
        match (name, &*percent_decode_str(value.unwrap_or_default()).decode_utf8_lossy()) {
            ("sslmode", "disable") => mode = Some(SslMode::Disable),
            ("sslmode", "prefer") => mode = Some(SslMode::Prefer),
            ("sslmode", "require" | "verify-ca" | "verify-full") => mode = Some(SslMode::Require),
            ("sslmode", _) => return Err("`sslmode` is `disable`, `prefer`, `require` or `verify-full`".to_owned()),
            ("sslrootcert", path) => roots = Some(PathBuf::from(path)),
            _ => rest.push((name, value)),
        }
    }
    Ok((parts.with(parts.user, rest), mode, roots))
}

/// A URL in its parts, as the driver takes it apart: where it names several servers, it is none to who knows URLs only.
struct Parts<'a> {
    scheme: &'a str,
    /// What stands before the servers: a name, and a password behind a colon.
    user: Option<&'a str>,
    /// The servers, and the database.
    servers: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Self {
        let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
        let user = rest.find('@').map(|first| {
            // Whoever writes it plainly into a password must not see the rest of that printed.
            let behind = &rest[first + 1..];
            let more = behind[..behind.find(['/', '?']).unwrap_or(behind.len())].rfind('@').map_or(0, |at| at + 1);
            &rest[..first + more]
        });
        let rest = user.map_or(rest, |user| &rest[user.len() + 1..]);
        let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
        Self { scheme, user, servers, query }
    }

    /// What follows the question mark: names, and their values as they are written.
    fn settings(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value))))
    }

    /// The URL with `user` and `settings` instead.
    fn with(&self, user: Option<&str>, settings: Vec<(&str, Option<&str>)>) -> String {
        let pair = |(name, value): (&str, Option<&str>)| value.map_or(name.to_owned(), |value| format!("{name}={value}"));
        let query: Vec<_> = settings.into_iter().map(pair).collect();
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        format!("{}{user}{}{query}", self.scheme, self.servers)
    }
}

/// Whether it is a URL of a PostgreSQL.
#[must_use]
pub fn is_one(url: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
}

/// A URL as it may be shown: all of it but the password.
#[must_use]
pub fn without_password(url: &str) -> String {
    let parts = Parts::of(url);
    let user = parts.user.map(|user| user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:{HIDDEN}")));
    let is_password = |name: &str| percent_decode_str(name).eq(*b"password");
    let hidden = |(name, value)| (name, if is_password(name) { Some(HIDDEN) } else { value });
    parts.with(user.as_deref(), parts.settings().map(hidden).collect())
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// Where a URL leads, without a password or a user: for messages.
#[must_use]
pub fn place(config: &Config) -> String {
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    let server = |(number, host): (usize, &Host)| {
        let name = match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        };
        format!("{name}:{}", ports.get(number).or_else(|| ports.first()).unwrap_or(&5432))
    };
    let servers: Vec<_> = hosts.iter().enumerate().map(server).collect();
    format!("postgres://{}/{}", servers.join(","), config.get_dbname().unwrap_or_default())
}

/// TLS that trusts the system's certificates, and those in `roots`.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn tls(roots: Option<&Path>) -> Result<ClientConfig, String> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = roots {
        let told = |what: String| format!("{}: {what}", path.display());
        let pem = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        let own: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
        if trusted.add_parsable_certificates(own).0 == 0 {
            return Err(told("holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("cannot set TLS up: {error}"))?;
    Ok(builder.with_root_certificates(trusted).with_no_client_auth())
}

/// What the server says, or what came instead of an answer; `key` is the setting that holds the URL.
#[must_use]
pub fn reason(error: &Error, key: &str) -> String {
    if let Some(refusal) = error.as_db_error() {
        return told(refusal);
    }
    let cause = cause(error);
    let hint = if cause.contains("server does not support TLS") {
        format!("; where the way to it is yours alone, add `?sslmode=disable` to `{key}`")
    } else {
        String::new()
    };
    format!("{}{hint}", one_line(&cause, MAX_EXCERPT))
}

/// What an error comes from.
fn cause(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A refusal, without a value that it may quote.
#[must_use]
pub fn told(refusal: &DbError) -> String {
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
