//! The PostgreSQL of the tests (see `tests/run`), and a schema in it that a test has alone.

use std::ops::Deref;
use std::thread;
use std::time::Duration;

use taskhook::store::Config;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error, NoTls};
use uuid::Uuid;

/// Connections of one store: many tests run at once, and the server has a hundred.
const CONNECTIONS: usize = 6;
/// How long it may take to put a schema away.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server, with a database where schemas can be made.
pub(crate) fn server() -> String {
    #[expect(clippy::disallowed_methods, reason = "`tests/run` says where it started one")]
    std::env::var("TASKHOOK_TEST_POSTGRES").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned())
}

/// A connection that ends with the value.
pub(crate) struct Connection {
    client: Client,
    _driver: JoinSet<()>,
}

impl Connection {
    /// To the database that `url` names.
    pub(crate) async fn to(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(&format!("{url}?sslmode=disable"), NoTls)
            .await
            .unwrap_or_else(|error| panic!("no PostgreSQL at {url} ({error}): `tests/run` starts one"));
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Self { client, _driver: driver }
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The name of a schema. The store makes it; it goes with the value, and with all that is in it.
pub(crate) struct Schema {
    name: String,
}

impl Schema {
    /// A name that nobody has. It begins with the time: so what was left behind is known by it.
    pub(crate) fn new() -> Self {
        Self { name: format!("t_{}", Uuid::now_v7().simple()) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A store in it.
    pub(crate) fn config(&self) -> Config {
        let url = format!("{}?sslmode=disable", server());
        Config { schema: self.name.clone(), max_connections: CONNECTIONS, ..Config::new(url) }
    }

    /// A connection beside the store's, whose names are those of the schema.
    pub(crate) async fn connect(&self) -> Connection {
        let connection = Connection::to(&server()).await;
        connection.batch_execute(&format!("SET search_path = {}", self.name)).await.expect("a search path");
        connection
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A drop cannot wait for the runtime that it is called from.
        let gone = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { tokio::time::timeout(PATIENCE, put_away(&name)).await })
        });
        match gone.join() {
            Ok(Ok(Ok(()))) => {}
            // The next test that ends an hour later does it.
            other => eprintln!("the schema {} is left behind: {other:?}", self.name),
        }
    }
}

/// Drops the schema `name`, a role of that name, and what tests left behind that were killed.
async fn put_away(name: &str) -> Result<(), Error> {
    let connection = Connection::to(&server()).await;
    connection.batch_execute("SET lock_timeout = '5s'; SET client_min_messages = warning").await?;
    // Whoever is in the midst of a transaction there goes no further: its runtime waits for this.
    let holders = "SELECT pg_terminate_backend(pid) FROM (SELECT DISTINCT pid FROM pg_locks JOIN pg_class ON pg_class.oid = relation \
                   WHERE relnamespace = to_regnamespace($1::text) AND pid <> pg_backend_pid()) AS holders";
    connection.execute(holders, &[&name]).await?;
    connection.batch_execute(&format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await?;
    connection.batch_execute(&format!("DROP ROLE IF EXISTS {name}")).await?;
    let old = "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$' AND substr(nspname, 3, 12) < \
               lpad(to_hex((extract(epoch FROM now() - interval '1 hour') * 1000)::bigint), 12, '0') LIMIT 5";
    for row in connection.query(old, &[]).await? {
        let left: String = row.get(0);
        // Another test may be at it.
        drop(connection.batch_execute(&format!("DROP SCHEMA IF EXISTS {left} CASCADE; DROP ROLE IF EXISTS {left}")).await);
    }
    Ok(())
}
