//! `[store]`: where the store is.

use serde::{Deserialize, Serialize};

use crate::postgres;
use crate::setting::{Secret, Size};

/// Keys of `[store]` that may be given as files.
pub const SECRETS: &[&str] = &["url", "listen_url"];

/// `[store]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sqlite://` and a path, or `postgres://user:password@host/database`.
    #[serde(serialize_with = "without_password")]
    pub url: Secret,
    /// PostgreSQL: the way past a transaction pooler, for migrations and for hearing other replicas; `None` is as `url`, without hearing
    /// them.
    #[serde(default, serialize_with = "without_password_if_any", skip_serializing_if = "Option::is_none")]
    pub listen_url: Option<Secret>,
    /// PostgreSQL: the schema that the tables stand in, made if it is not there.
    pub schema: String,
    /// PostgreSQL: the most connections that a replica has at once.
    pub max_connections: usize,
    /// SQLite: below this much free space on the disk, no event is accepted.
    pub min_free_bytes: Size,
}

impl Config {
    /// What every test and tool needs: the store at `url`, with no bound on the disk's space and the defaults of `config/default.toml`
    /// for the rest.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url),
            listen_url: None,
            schema: "taskhook".to_owned(),
            max_connections: 16,
            min_free_bytes: Size(0),
        }
    }

    /// Whether the store is in a PostgreSQL, which several replicas may share.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        postgres::is_one(self.url.expose())
    }
}

/// A URL as it may be shown; that of a file has no password.
fn without_password<S: serde::Serializer>(url: &Secret, to: S) -> Result<S::Ok, S::Error> {
    let url = url.expose();
    if postgres::is_one(url) { to.serialize_str(&postgres::without_password(url)) } else { to.serialize_str(url) }
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn without_password_if_any<S: serde::Serializer>(url: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => without_password(url, to),
        None => to.serialize_none(),
    }
}
