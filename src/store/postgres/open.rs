//! Opening the store: which schema it has, and bringing it to this program's.
//!
//! What must hold: replicas may start together, and one of a newer release beside older ones. So migrations run one after the other, in
//! one transaction under a lock, and a release's migrations only add; the schema says which is the oldest program that it serves.

use jiff::Timestamp;
use uuid::Uuid;

use super::Way;
use super::session::{Kind, Sessions, Tx, args, retry, transact, within};
use crate::store::Error;
use crate::store::model::text;

/// The migrations, in order. A release's migrations only add, so that the program before it still runs on the new schema.
pub(super) const MIGRATIONS: [&str; 11] = [
    include_str!("schema/0001_first.sql"),
    include_str!("schema/0002_keep.sql"),
    include_str!("schema/0003_deletions.sql"),
    include_str!("schema/0004_append.sql"),
    include_str!("schema/0005_stops.sql"),
    include_str!("schema/0006_answers.sql"),
    include_str!("schema/0007_watches.sql"),
    include_str!("schema/0008_expected.sql"),
    include_str!("schema/0009_usage.sql"),
    include_str!("schema/0010_samples.sql"),
    include_str!("schema/0011_posts.sql"),
];
/// The oldest schema whose program can work on what [`MIGRATIONS`] make.
const OLDEST_SCHEMA: usize = 1;

/// Makes the store if need be, brings it to this program's schema, and says its id.
pub(super) async fn open(way: &Way, now: Timestamp) -> Result<String, Error> {
    let sessions = way.sessions(1)?;
    let known = transact!(sessions, Read, |tx| known(&tx, way));
    if let Some((schema, instance_id)) = refusing(way, known)?
        && schema >= MIGRATIONS.len()
    {
        return Ok(instance_id);
    }
    refusing(way, bring_up(&sessions, way, now).await)
}

/// Migrates, however long that takes: one that is undone because it took long would never be done.
async fn bring_up(sessions: &Sessions, way: &Way, now: Timestamp) -> Result<String, Error> {
    retry!(sessions, async {
        let tx = within(sessions.begin(Kind::Write)).await?;
        let migrated = migrate(&tx, way, now).await;
        tx.end(migrated).await
    })
}

/// The store as it is, for who only looks, with its id.
pub(super) async fn peek(way: &Way) -> Result<(Sessions, String), Error> {
    let sessions = way.sessions(1)?;
    let known = transact!(sessions, Read, |tx| known(&tx, way));
    match refusing(way, known)? {
        Some((_, instance_id)) => Ok((sessions, instance_id)),
        None => Err(Error::Server {
            place: way.place.clone(),
            problem: format!("there is no store in its schema `{}`", way.schema),
            hint: "start `taskhook serve` once, which makes it, or set `store.url` and `store.schema`".to_owned(),
        }),
    }
}

/// Newest migration and id of the store; `None` if there is none.
pub(super) async fn known(tx: &Tx, way: &Way) -> Result<Option<(usize, String)>, Error> {
    let exists: bool = tx
        .row("SELECT coalesce(current_schema() = $1, false) AND to_regclass('store') IS NOT NULL", args![way.schema])
        .await?
        .get(0);
    if !exists {
        return Ok(None);
    }
    let rows = tx.rows("SELECT name, value FROM store WHERE name IN ('schema', 'oldest_schema', 'instance_id')", &[]).await?;
    let value = |name: &str| rows.iter().find(|row| row.get::<_, &str>(0) == name).map(|row| row.get::<_, String>(1));
    let number = |name: &str| value(name).and_then(|value| value.parse::<usize>().ok());
    let (Some(schema), Some(oldest), Some(instance_id)) = (number("schema"), number("oldest_schema"), value("instance_id"))
    else {
        return Err(Error::Server {
            place: way.place.clone(),
            problem: format!("its schema `{}` has a table `store` that is not taskhook's", way.schema),
            hint: "set `store.schema` to a name of taskhook's own; nothing was changed".to_owned(),
        });
    };
    if oldest > MIGRATIONS.len() {
        return Err(Error::Server {
            place: way.place.clone(),
            problem: format!("it was made by a newer taskhook (schema {oldest} or later; this one knows {})", MIGRATIONS.len()),
            hint: "run that newer version; nothing was changed".to_owned(),
        });
    }
    Ok(Some((schema, instance_id)))
}

pub(super) async fn migrate(tx: &Tx, way: &Way, now: Timestamp) -> Result<String, Error> {
    // Waits for a replica that migrates, as long as that takes.
    tx.batch("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    tx.run("SELECT pg_advisory_xact_lock(hashtext('taskhook migrations'), hashtext($1))", args![way.schema]).await?;
    // The lock is ours: a snapshot from here on shows what was done before.
    let exists = tx.row("SELECT to_regnamespace($1::text) IS NOT NULL", args![way.schema]).await?.get::<_, bool>(0);
    if !exists {
        tx.batch(&format!("CREATE SCHEMA \"{}\"", way.schema)).await?;
    }
    let known = known(tx, way).await?;
    let from = known.as_ref().map_or(0, |(schema, _)| *schema);
    if let Some((_, instance_id)) = &known
        && from >= MIGRATIONS.len()
    {
        return Ok(instance_id.clone());
    }
    // Whoever waits for a lock on a table has all others wait that come after, receivers too: rather it is tried again.
    tx.batch("SET LOCAL lock_timeout = '200ms'").await?;
    for migration in MIGRATIONS.iter().skip(from) {
        tx.batch(migration).await?;
    }
    let instance_id = known.as_ref().map_or_else(|| Uuid::now_v7().to_string(), |(_, id)| id.clone());
    let mut facts = vec![("schema", MIGRATIONS.len().to_string()), ("oldest_schema", OLDEST_SCHEMA.to_string())];
    if known.is_none() {
        facts.extend([("instance_id", instance_id.clone()), ("created_at", text(now))]);
    }
    for (name, value) in facts {
        let sql = "INSERT INTO store (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        tx.run(sql, args![name, value]).await?;
    }
    Ok(instance_id)
}

/// What keeps the store from being opened, with what the user can do.
pub(super) fn refusing<T>(way: &Way, opened: Result<T, Error>) -> Result<T, Error> {
    opened.map_err(|error| {
        let (problem, hint) = match error {
            Error::Unreachable(problem) => {
                let hint = "is PostgreSQL running there, does it let this machine and this user in, and does the database exist?";
                (problem, hint)
            }
            Error::Database(problem) if problem.starts_with("42501") => {
                let hint =
                    "let the user of `store.url` make the schema (GRANT CREATE ON DATABASE), or make it and give it to that user";
                (problem, hint)
            }
            Error::Database(problem) if problem.starts_with("3D000") => (problem, "make the database, or set `store.url`"),
            Error::Database(problem) | Error::Refused(problem) => (problem, "see the message of PostgreSQL above"),
            error => return error,
        };
        Error::Server { place: way.place.clone(), problem, hint: hint.to_owned() }
    })
}
