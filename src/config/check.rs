//! The rules that a single value cannot know: values within reason, and sections that must fit each other.

use std::net::SocketAddr;
use std::time::Duration;

use super::Config;
use super::error::Error;
use super::place::{Path, Places};
use super::secret::{both, empty};
use crate::{postgres, provider, public_url, store, telemetry};

/// The fewest connections that a replica on a PostgreSQL does with.
const MIN_CONNECTIONS: usize = 5;

/// Checks `config`, and brings the public URLs into their one form: no slash at the end.
/// Where a tunnel brings the public URL, none has to be set.
pub(super) fn everything(config: &mut Config, tunnel: bool, places: &Places, errors: &mut Vec<Error>) {
    let mut rules = Rules { places, errors };
    rules.bounds(config);
    rules.listeners(config);
    rules.public_url(config, tunnel);
    rules.store(&config.store);
    rules.archive(config);
    rules.shared_archive(config);
    for (key, reason) in config.retention.check() {
        rules.refuse(&format!("retention.{key}"), &reason);
    }
    for (key, reason) in config.watch.check() {
        rules.refuse(&format!("watch.{key}"), &reason);
    }
    for (key, reason) in config.trace.check() {
        rules.refuse(&format!("trace.{key}"), &reason);
    }
    if let Some(filter) = &config.rust_log
        && let Err(reason) = telemetry::parse_filter(filter)
    {
        rules.errors.push(Error::new(format!("the variable `RUST_LOG` is not a log filter: {reason}")));
    }
}

/// Checks `[store]` alone, for who reads no more than that.
pub(super) fn only_store(config: &store::Config, places: &Places, errors: &mut Vec<Error>) {
    Rules { places, errors }.store(config);
}

struct Rules<'a> {
    places: &'a Places,
    errors: &'a mut Vec<Error>,
}

impl Rules<'_> {
    fn refuse(&mut self, key: &str, reason: &str) -> &mut Vec<String> {
        let at = self.errors.len();
        self.errors.push(Error::at(self.places.of(&Path::of(key)), format!("`{key}` {reason}")));
        &mut self.errors[at].hints
    }

    fn bounds(&mut self, config: &Config) {
        let server = &config.server;
        let zeros = [
            ("server.max_connections", server.max_connections == 0),
            ("server.max_inflight_bytes", server.max_inflight_bytes.0 == 0),
            ("server.max_body_bytes", server.max_body_bytes.0 == 0),
            ("server.header_timeout", server.header_timeout == Duration::ZERO),
            ("server.request_timeout", server.request_timeout == Duration::ZERO),
            ("server.commit_timeout", server.commit_timeout == Duration::ZERO),
            ("server.drain_timeout", server.drain_timeout == Duration::ZERO),
        ];
        for (key, _) in zeros.into_iter().filter(|(_, zero)| *zero) {
            self.refuse(key, "must be more than 0");
        }
        if server.max_inflight_bytes < server.max_body_bytes {
            let reason =
                format!("is less than `server.max_body_bytes` ({}): such a body could never come in", server.max_body_bytes);
            self.refuse("server.max_inflight_bytes", &reason);
        }
    }

    fn listeners(&mut self, config: &Config) {
        let (server, admin) = (config.server.listen, config.admin.listen);
        if overlap(server, admin) {
            let reason = format!("({admin}) overlaps with `server.listen` ({server})");
            self.refuse("admin.listen", &reason).push("give each a port of its own".to_owned());
        }
        let (token, file) = (Path::of("admin.token"), Path::of("admin.token_file"));
        match (&config.admin.token, &config.admin.token_file) {
            (Some(_), Some(_)) => self.errors.push(both(&token, &file, self.places)),
            (Some(secret), None) if secret.is_empty() => self.errors.push(empty(&token, self.places)),
            _ => {}
        }
        if let Some(read) = &config.admin.read_token {
            if config.admin.token.is_none() && config.admin.token_file.is_none() {
                let hints = self.refuse("admin.read_token", "keeps nobody out as long as `admin.token` is not set");
                hints.push("set `admin.token`, or `admin.token_file`, as well".to_owned());
            } else if config.admin.token.as_ref() == Some(read) {
                self.refuse("admin.read_token", "is the same as `admin.token`: who has it may do everything");
            }
        }
        if !admin.ip().is_loopback() && config.admin.token.is_none() && config.admin.token_file.is_none() {
            let hints = self.refuse("admin.listen", &format!("({admin}) is not loopback, so `admin.token` must be set"));
            hints.push("set `TASKHOOK__ADMIN__TOKEN`, or `token_file = \"…\"` under `[admin]`".to_owned());
            hints.push("or listen on loopback: `listen = \"127.0.0.1:8081\"` under `[admin]`".to_owned());
        }
    }

    fn public_url(&mut self, config: &mut Config, tunnel: bool) {
        const KEY: &str = "server.public_url";
        let verifies = config.sources.values().any(provider::Config::verifies);
        let covering = config.sources.iter().find(|(_, source)| source.covers_url()).map(|(name, _)| name);
        if let (Some(source), true) = (covering, config.server.public_url.is_empty() && !tunnel) {
            let hints = self.refuse(KEY, &format!("is not set, but the signatures that source `{source}` verifies cover it"));
            hints.push("set the variable `TASKHOOK__SERVER__PUBLIC_URL=https://hooks.example.com`".to_owned());
            hints.push("or run `taskhook dev`, which takes the URL of a tunnel that runs on this machine".to_owned());
            hints.push(
                "or add to the configuration file:\n\n    [server]\n    public_url = \"https://hooks.example.com\"\n".to_owned(),
            );
        }
        let many = config.server.public_url.len() > 1;
        for (index, url) in config.server.public_url.0.iter_mut().enumerate() {
            match public_url::check(url, verifies) {
                Ok(clean) => *url = clean,
                Err((reason, hint)) => {
                    let which = if many { format!("(number {}) ", index + 1) } else { String::new() };
                    let hints = self.refuse(KEY, &format!("{which}{reason}"));
                    hints.extend(hint);
                }
            }
        }
    }

    fn archive(&mut self, config: &mut Config) {
        for (key, reason) in config.archive.check() {
            self.refuse(&format!("archive.{key}"), &reason);
        }
        let Config { server, admin, files, archive, .. } = config;
        let (listen, url) = ("files.listen", "files.public_url");
        match (files.listen, &mut files.public_url) {
            (None, None) => {}
            (Some(_), None) => {
                self.refuse(url, "is not set, but `files.listen` is").push("set the URL under which readers reach it".to_owned());
            }
            (None, Some(_)) => {
                let hints = self.refuse(listen, "is not set, but `files.public_url` is");
                hints.push("set the address to listen on, such as `0.0.0.0:8082`".to_owned());
            }
            (Some(address), Some(text)) => {
                for (other, key) in [(server.listen, "server.listen"), (admin.listen, "admin.listen")] {
                    if overlap(other, address) {
                        let hints = self.refuse(listen, &format!("({address}) overlaps with `{key}` ({other})"));
                        hints.push("give each a port of its own".to_owned());
                    }
                }
                match public_url::check(text, true) {
                    Ok(clean) => *text = clean,
                    Err((reason, hint)) => self.refuse(url, &reason).extend(hint),
                }
                if archive.is_off() {
                    self.refuse(listen, "is set, but there is no archive (`archive.url` is \"off\")");
                }
            }
        }
        if config.files.link_expiry.is_zero() {
            self.refuse("files.link_expiry", "must be more than 0");
        }
    }

    fn store(&mut self, config: &store::Config) {
        // No URL is shown: that of a database server may hold a password.
        let url = config.url.expose();
        match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => {}
            Some(("sqlite", _)) => {
                self.refuse("store.url", "names no file").push("for example `sqlite://data/taskhook.db`".to_owned());
            }
            Some(("postgres" | "postgresql", _)) => self.postgres("store.url", url),
            _ => {
                let hints = self.refuse("store.url", "must begin with `sqlite://` or `postgres://`");
                hints.push("for example `sqlite://data/taskhook.db`".to_owned());
                hints.push("or `postgres://user:password@db.example.com/taskhook`".to_owned());
            }
        }
        if let Some(listen_url) = &config.listen_url {
            match listen_url.expose().split_once("://") {
                _ if !config.is_shared() => {
                    let hints = self.refuse("store.listen_url", "is set, but `store.url` is no PostgreSQL");
                    hints.push("remove it, or set `store.url` to a `postgres://…`".to_owned());
                }
                Some(("postgres" | "postgresql", _)) => self.postgres("store.listen_url", listen_url.expose()),
                _ => {
                    let hints = self.refuse("store.listen_url", "must begin with `postgres://`");
                    hints.push("it is as `store.url`, past the pooler".to_owned());
                }
            }
        }
        if !is_schema(&config.schema) {
            let reason = "must be 1 to 63 of a-z, 0-9 and _, and begin neither with a digit nor with `pg_`";
            self.refuse("store.schema", reason);
        }
        if config.max_connections < MIN_CONNECTIONS {
            let reason = format!("must be at least {MIN_CONNECTIONS}: some are for receiving and for other replicas");
            self.refuse("store.max_connections", &reason);
        }
    }

    /// Refuses what is no URL of a PostgreSQL.
    fn postgres(&mut self, key: &str, url: &str) {
        if let Err(reason) = postgres::parse(url) {
            self.refuse(key, &format!("cannot be used: {reason}"));
        }
    }

    /// Refuses a folder that other replicas may not see: what one saves, another is to serve and to delete.
    fn shared_archive(&mut self, config: &Config) {
        let Config { store, archive, .. } = config;
        if !store.is_shared() || archive.shared || !archive.url.starts_with("file://") {
            return;
        }
        let reason = format!(
            "is `{}`, a folder, and `store.url` a PostgreSQL, which replicas may share: all of them must see the same files",
            archive.url
        );
        let hints = self.refuse("archive.url", &reason);
        let lines = |what: &str, keys: &[&str]| {
            format!("{what}, write in the configuration file:\n\n    [archive]\n    {}\n", keys.join("\n    "))
        };
        hints.push(lines("to keep files in S3 or what speaks like it", &["url = \"s3://bucket/prefix\""]));
        let shared = [format!("url = \"{}\"", archive.url), "shared = true".to_owned()];
        let shared = [shared[0].as_str(), shared[1].as_str()];
        hints.push(lines("where that folder is on a file system that every replica has, or there is one replica only", &shared));
        hints.push(lines("to save no files", &["url = \"off\""]));
        hints.push(
            "or set one of the variables `TASKHOOK__ARCHIVE__URL=s3://bucket/prefix`, `TASKHOOK__ARCHIVE__SHARED=true` and \
             `TASKHOOK__ARCHIVE__URL=off`"
                .to_owned(),
        );
    }
}

/// `[a-z_][a-z0-9_]{0,62}`, and none of PostgreSQL's own: it stands in statements.
fn is_schema(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.starts_with("pg_")
        && name.chars().all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_')
}

/// Whether both cannot be listened on at one time. Port 0 is any free port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || any(one) || any(other))
}
