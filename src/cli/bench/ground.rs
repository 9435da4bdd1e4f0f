//! Where a bench has its stores: files in its folder, or schemas of its own in a PostgreSQL.
//!
//! What must hold: a URL may hold a password, so processes have it from their environment, and it is told nowhere. A schema is new and
//! the bench's own, and it is gone at the end, also after an error or a signal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::super::{Error, Exit, Result};
use crate::postgres;
use crate::setting::Secret;
use crate::store::view::Totals;
use crate::store::{self, Store};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long schemas may take to go.
const CLEARING: Duration = Duration::from_mins(1);
/// How often a schema is tried to be dropped while somebody is in it.
const TRIES: usize = 8;
/// What a user can do about another word.
const HINT: &str = "write `sqlite`, or `postgres://user:password@host/database`";

/// Where the stores of a bench are; clones share it.
#[derive(Clone, Debug)]
pub(super) enum Ground {
    /// Each in the folder of its place.
    Folders,
    /// In this file: there is only one.
    File(PathBuf),
    /// Each in a schema of this PostgreSQL.
    Server(Arc<Server>),
}

/// A PostgreSQL.
#[derive(Debug)]
pub(super) struct Server {
    url: Secret,
    address: postgres::Address,
    /// Schemas that may be there and are to go.
    made: Mutex<BTreeSet<String>>,
}

/// One store, with the folder of whoever uses it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) store: store::Config,
    ground: Ground,
}

/// A connection that ends with the value.
pub(super) struct Session {
    client: Client,
    _driver: JoinSet<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Ground {
    /// What `--store` names. A file of SQLite may be named where there is one store for all, as a path from the working directory, `within`.
    pub(super) fn of(store: &str, within: Option<&Path>) -> Result<Self> {
        let wrong = |problem: String| Error::failed(format!("`--store`: {problem}")).with_exit(Exit::Usage);
        if store == "sqlite" {
            return Ok(Self::Folders);
        }
        if let Some(path) = store.strip_prefix("sqlite://") {
            let Some(within) = within else {
                let problem = "the file is made in a temporary folder: say where with `--folder`, and `sqlite` here";
                return Err(wrong(problem.to_owned()).into());
            };
            let file = within.join(path);
            if file.exists() {
                let hint = "name a file that is not there: a bench fills it with events";
                return Err(wrong(format!("{} is there already", file.display())).hint(hint).into());
            }
            return Ok(Self::File(file));
        }
        // Whatever else it is may hold a password.
        if !store::Config::new(store).is_shared() {
            return Err(wrong("it is neither `sqlite` nor the URL of a PostgreSQL".to_owned()).hint(HINT).into());
        }
        let address = postgres::parse(store).map_err(|problem| wrong(problem).hint(HINT))?;
        Ok(Self::Server(Arc::new(Server { url: Secret::new(store), address, made: Mutex::default() })))
    }

    /// The word for it in a result.
    pub(super) fn name(&self) -> &'static str {
        if self.is_server() { "postgres" } else { "sqlite" }
    }

    pub(super) fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// A place in `folder`, for a store that is not there yet.
    pub(super) fn place(&self, folder: &Path) -> Place {
        let store = match self {
            Self::Folders => store::Config::new(format!("sqlite://{}", folder.join("taskhook.db").display())),
            Self::File(file) => store::Config::new(format!("sqlite://{}", file.display())),
            Self::Server(server) => {
                let schema = format!("bench_{}", Uuid::now_v7().simple());
                server.made().insert(schema.clone());
                store::Config { schema, ..store::Config::new(server.url.expose()) }
            }
        };
        Place { folder: folder.to_owned(), store, ground: self.clone() }
    }

    /// Removes what is left of its stores outside of folders; what could not be removed.
    pub(super) fn clear(&self) -> Option<String> {
        let Self::Server(server) = self else { return None };
        let left: Vec<String> = server.made().iter().cloned().collect();
        if left.is_empty() {
            return None;
        }
        let cleared = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(server.drop_all(&left)),
            Err(error) => Err(error.to_string()),
        };
        let names = || server.made().iter().map(|name| format!("DROP SCHEMA {name} CASCADE")).collect::<Vec<_>>().join("; ");
        cleared.err().map(|why| format!("cannot remove what it made in the database ({why}); do it by hand: {}", names()))
    }
}

impl Server {
    fn made(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the driver is to be told of the server, with the way to speak TLS.
    pub(super) fn way(&self) -> Result<(tokio_postgres::Config, MakeRustlsConnect)> {
        let tls = postgres::tls(self.address.root_certificates.as_deref());
        let tls = tls.map_err(|problem| Error::failed(format!("`--store`: `sslrootcert`: {problem}")).with_exit(Exit::Usage))?;
        let mut config = self.address.config.clone();
        config.application_name("taskhook bench").connect_timeout(CONNECT);
        Ok((config, MakeRustlsConnect::new(tls)))
    }

    /// A connection of the bench's own.
    pub(super) async fn connect(&self) -> Result<Session> {
        let (config, tls) = self.way()?;
        let (client, connection) = config.connect(tls).await.map_err(|error| {
            let place = postgres::place(&self.address.config);
            Error::failed(format!("cannot use {place}: {}", postgres::reason(&error, "--store"))).with_exit(Exit::StoreRefused)
        })?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Whoever waits on the connection is told of its end.
            let _ = connection.await;
        });
        Ok(Session { client, _driver: driver })
    }

    /// What a result must say of it; and what makes figures worthless, if something does.
    pub(super) async fn about(&self) -> Result<(String, Option<&'static str>)> {
        let session = self.connect().await?;
        let sql = "SELECT current_setting('server_version'), current_setting('shared_buffers'), current_setting('fsync') = 'on'";
        let row = session.query_one(sql, &[]).await.map_err(failed)?;
        let (version, buffers, synced): (&str, &str, bool) = (row.get(0), row.get(1), row.get(2));
        let warning = (!synced).then_some("the database runs with `fsync = off`, so nothing in it is durable");
        Ok((format!("{version}, shared_buffers {buffers}"), warning))
    }

    async fn drop_all(&self, schemas: &[String]) -> std::result::Result<(), String> {
        let dropping = async {
            let session = self.connect().await.map_err(|failure| failure.to_string())?;
            for schema in schemas {
                self.drop(&session, schema).await?;
            }
            Ok(())
        };
        let late = || Err(format!("it took longer than {} s", CLEARING.as_secs()));
        tokio::time::timeout(CLEARING, dropping).await.unwrap_or_else(|_| late())
    }

    async fn drop(&self, session: &Session, schema: &str) -> std::result::Result<(), String> {
        // A process that was killed may have left a transaction behind that the server has not noticed the end of.
        let holders = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                       AND usename = current_user AND backend_type = 'client backend' AND pid <> pg_backend_pid() \
                       AND EXISTS (SELECT 1 FROM pg_locks JOIN pg_class ON pg_class.oid = relation \
                       WHERE pg_locks.pid = pg_stat_activity.pid AND relnamespace = to_regnamespace($1::text) \
                       AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
        let drop =
            format!("SET client_min_messages = warning; SET lock_timeout = '3s'; DROP SCHEMA IF EXISTS \"{schema}\" CASCADE");
        let mut tries = 0;
        loop {
            let dropped = match session.execute(holders, &[&schema]).await {
                Ok(_) => session.batch_execute(&drop).await,
                Err(error) => Err(error),
            };
            tries += 1;
            match dropped {
                Ok(()) => break,
                Err(error) => match error.code() {
                    Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED) if tries < TRIES => {}
                    _ => return Err(postgres::reason(&error, "--store")),
                },
            }
        }
        self.made().remove(schema);
        Ok(())
    }
}

impl Place {
    /// What processes are told by their environment.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let told = [("TASKHOOK__STORE__URL", self.store.url.expose()), ("TASKHOOK__STORE__SCHEMA", &self.store.schema)];
        told.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// The server, where the store is on one.
    pub(super) fn server(&self) -> Option<&Server> {
        match &self.ground {
            Ground::Server(server) => Some(server),
            Ground::Folders | Ground::File(_) => None,
        }
    }

    /// What the store holds, whoever has it open.
    pub(super) fn totals(&self) -> Result<Totals> {
        Ok(Store::peek_totals(&self.store).map_err(Error::from)?)
    }

    /// The bytes of a file of SQLite, and of the log that is not written to it yet; or of a schema's tables and indexes.
    pub(super) fn disk_bytes(&self) -> u64 {
        let url = self.store.url.expose();
        let Some(file) = url.strip_prefix("sqlite://") else {
            return self.totals().map_or(0, |totals| totals.bytes);
        };
        let files = [file.to_owned(), format!("{file}-wal")];
        files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
    }

    /// Removes what is of the store outside of the folder: what it leaves would be in the way of the next one.
    pub(super) async fn clear(self) -> Result {
        let Some(server) = self.server() else { return Ok(()) };
        let cleared = server.drop_all(std::slice::from_ref(&self.store.schema)).await;
        Ok(cleared.map_err(|why| Error::failed(format!("cannot drop the schema {}: {why}", self.store.schema)))?)
    }
}

/// What the server said to a statement of the bench's own.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    Error::failed(format!("the database: {}", postgres::reason(&error, "--store")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_in_its_folder_or_in_a_schema_that_nobody_has() {
        let place = Ground::of("sqlite", None).unwrap().place(Path::new("/one"));
        assert_eq!(place.environment()["TASKHOOK__STORE__URL"], "sqlite:///one/taskhook.db");
        let ground = Ground::of("postgres://me:hunter2@db/x", None).unwrap();
        let [one, two] = ["/one", "/two"].map(|folder| ground.place(Path::new(folder)));
        assert!(one.store.schema.starts_with("bench_") && one.store.schema != two.store.schema);
        assert_eq!(one.environment()["TASKHOOK__STORE__SCHEMA"], one.store.schema);
        assert_eq!(one.environment()["TASKHOOK__STORE__URL"], "postgres://me:hunter2@db/x");
    }

    #[test]
    fn what_is_wrong_with_a_url_does_not_quote_it() {
        for store in ["mysql://me:hunter2@db/x", "postgres://me:hunter2@db", "postgres://me:hunter2@db/x?sslmode=no", "hunter2"] {
            let told = Ground::of(store, None).unwrap_err().to_string();
            assert!(told.starts_with("error: `--store`: ") && !told.contains("hunter2"), "{told}");
        }
    }
}
