//! Looking at a database that may become or be a store's, for `taskhook check`.
//!
//! What must hold: nothing is written, and no replica is made.

use super::Way;
use super::open::{known, refusing};
use super::session::{Tx, args, transact};
use crate::store::care::Server;
use crate::store::{Config, Error};

/// The oldest server that does: before it, tables that only grow are not vacuumed.
const OLDEST: i64 = 13;

/// What is there; or why it cannot be a store's.
pub(in crate::store) async fn look(config: &Config) -> Result<Server, Error> {
    let way = Way::main(config)?;
    let sessions = way.sessions(1)?;
    let seen = transact!(sessions, Read, |tx| see(&tx, &way));
    let (version, exists) = refusing(&way, seen)?;
    // The way that migrations take.
    let direct = Way::direct(config)?;
    let sessions = direct.sessions(1)?;
    refusing(&direct, transact!(sessions, Read, |tx| see(&tx, &direct)))?;
    Ok(Server { place: way.place, version, schema: way.schema, exists })
}

async fn see(tx: &Tx, way: &Way) -> Result<(String, bool), Error> {
    let row = tx
        .row(
            "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_version_num')::bigint / 10000, \
             pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on', \
             coalesce(has_schema_privilege(to_regnamespace($1)::oid, 'CREATE'), has_database_privilege(current_database(), 'CREATE'))",
            args![way.schema],
        )
        .await?;
    let version: String = row.get(0);
    let refuse = |problem: String, hint: &str| Err(Error::Server { place: way.place.clone(), problem, hint: hint.to_owned() });
    if row.get::<_, i64>(1) < OLDEST {
        return refuse(format!("it is a PostgreSQL {version}"), "taskhook needs PostgreSQL 13 or a newer one");
    }
    if row.get(2) || row.get(3) {
        return refuse("it takes no writes: it is a standby, or set so".to_owned(), "set `store.url` to the primary");
    }
    let exists = known(tx, way).await?.is_some();
    if !exists && !row.get::<_, bool>(4) {
        let hint = "let the user of `store.url` make the schema (GRANT CREATE ON DATABASE), or make it and give it to that user";
        return refuse(format!("its schema `{}` may not be made, or nothing in it", way.schema), hint);
    }
    Ok((version, exists))
}
