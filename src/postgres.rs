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
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::DbError;
use tokio_postgres::{Config, Error};
use url::Url;

use crate::text::one_line;

/// The longest excerpt of somebody else's message.
const MAX_EXCERPT: usize = 200;

/// What a URL says.
#[derive(Clone, Debug)]
pub struct Address {
    /// What the driver knows of it.
    pub config: Config,
    /// `sslrootcert`: a file of certificates that are trusted beside the system's.
    pub root_certificates: Option<PathBuf>,
}

/// Reads `postgres://user:password@host/database?…`.
///
/// # Errors
/// What is wrong with it, to follow the name of the key; no value of it is quoted.
pub fn parse(url: &str) -> Result<Address, String> {
    let (url, mode, root_certificates) = tls_settings(url)?;
    // The error names a key of the URL, never a value.
    let mut config: Config = url.parse().map_err(|error: Error| error.to_string())?;
    if config.get_hosts().is_empty() {
        return Err("it names no host; write `postgres://user:password@host/database`".to_owned());
    }
    if config.get_dbname().is_none() {
        return Err("it names no database; write `postgres://user:password@host/database`".to_owned());
    }
    let local = config.get_hosts().iter().all(is_local);
    config.ssl_mode(mode.unwrap_or(if local { SslMode::Disable } else { SslMode::Require }));
    Ok(Address { config, root_certificates })
}

/// The URL without what it says of TLS, and that: the driver does not know all of it.
fn tls_settings(text: &str) -> Result<(String, Option<SslMode>, Option<PathBuf>), String> {
    let mut url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    // What is the driver's stays as it is written: a plus is no space there.
    for pair in url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, &*percent_decode_str(value).decode_utf8_lossy()) {
            ("sslmode", "disable") => mode = Some(SslMode::Disable),
            ("sslmode", "prefer") => mode = Some(SslMode::Prefer),
            ("sslmode", "require" | "verify-ca" | "verify-full") => mode = Some(SslMode::Require),
            ("sslmode", _) => return Err("`sslmode` is `disable`, `prefer`, `require` or `verify-full`".to_owned()),
            ("sslrootcert", path) => roots = Some(PathBuf::from(path)),
            _ => rest.push(pair.to_owned()),
        }
    }
    url.set_query((!rest.is_empty()).then(|| rest.join("&")).as_deref());
    Ok((url.to_string(), mode, roots))
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
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("postgres://{host}:{port}/{}", config.get_dbname().unwrap_or_default())
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
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let hint = if cause.to_string().contains("server does not support TLS") {
        format!("; where the way to it is yours alone, add `?sslmode=disable` to `{key}`")
    } else {
        String::new()
    };
    format!("{}{hint}", one_line(&cause.to_string(), MAX_EXCERPT))
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
