//! What keeps events beside the store, to compare with: a file that is only appended to, and one table of a PostgreSQL.
//!
//! What must hold: an event is answered when what the store would keep of it in a commit is synced, and not before; and nothing
//! else is done.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::super::{Error, Result};
use super::ground::{Place, Server, Session, failed};
use crate::clock::rfc3339;
use crate::event::Key;
use crate::provider::Reading;

/// What may wait.
const QUEUE: usize = 4096;
/// The most events of one sync.
const BATCH: usize = 512;
/// Connections of the pool that inserts one event a request.
const POOL: usize = 16;

/// An event that was verified and read.
pub(super) struct Offer<'a> {
    pub(super) id: Uuid,
    pub(super) source: &'static str,
    pub(super) reading: Reading,
    pub(super) received_at: Timestamp,
    pub(super) target: &'a str,
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) body: &'a [u8],
}

/// What a commit holds of it: its row and its key. What follows from it is made a moment later, for many at once.
pub(super) struct Row {
    id: Uuid,
    key: Uuid,
    source: &'static str,
    kind: String,
    provider_type: Option<String>,
    event_id: String,
    task_id: Option<String>,
    received_at: Timestamp,
    target: String,
    headers: String,
    body: Vec<u8>,
}

impl Offer<'_> {
    fn row(self) -> Row {
        let Reading { kind, provider_type, event_id, task_id, .. } = self.reading;
        Row {
            id: self.id,
            key: Uuid::from_bytes(Key::of(self.source, &event_id).0),
            source: self.source,
            kind,
            provider_type,
            event_id,
            task_id,
            received_at: self.received_at,
            target: self.target.to_owned(),
            headers: json!(self.headers).to_string(),
            body: self.body.to_owned(),
        }
    }

    /// The same as bytes, of whose key only the place is there.
    fn bytes(&self) -> Vec<u8> {
        let Reading { kind, event_id, task_id, .. } = &self.reading;
        let (source, at) = (self.source, rfc3339(self.received_at));
        let row = json!([self.id, source, source, kind, event_id, task_id, at, "signature", self.target, self.headers]);
        let mut bytes = row.to_string().into_bytes();
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(self.body);
        bytes
    }
}

/// What waits, and who waits for it.
type Entry<T> = (T, oneshot::Sender<()>);

/// Where events are kept; clones share it.
#[derive(Clone)]
pub(super) enum Keep {
    /// By one writer, who syncs all that waits at once, in a file.
    File(mpsc::Sender<Entry<Vec<u8>>>),
    /// The same, in a table.
    Batches(mpsc::Sender<Entry<Row>>),
    /// Each in a statement of its own.
    Each(Pool, String),
}

impl Keep {
    /// Waits until `offer` is kept; false where that cannot be.
    pub(super) async fn keep(&self, offer: Offer<'_>) -> bool {
        match self {
            Self::File(queue) => queued(queue, offer.bytes()).await,
            Self::Batches(queue) => queued(queue, offer.row()).await,
            Self::Each(pool, insert) => insert_one(pool, insert, &offer.row()).await.is_some(),
        }
    }
}

async fn queued<T>(queue: &mpsc::Sender<Entry<T>>, entry: T) -> bool {
    let (waiter, kept) = oneshot::channel();
    queue.send((entry, waiter)).await.is_ok() && kept.await.is_ok()
}

/// The limit: a file that is only appended to, one sync for all that waits. A failure drops the waiters, who then answer 503.
pub(super) fn append_only(path: &Path) -> io::Result<Keep> {
    let mut file = File::create(path)?;
    let (sender, mut waiting) = mpsc::channel::<Entry<Vec<u8>>>(QUEUE);
    std::thread::Builder::new().name("limit".to_owned()).spawn(move || {
        let (mut batch, mut bytes) = (Vec::new(), Vec::new());
        while let Some((first, waiter)) = waiting.blocking_recv() {
            bytes.extend_from_slice(&first);
            batch.push(waiter);
            while batch.len() < BATCH {
                let Ok((next, waiter)) = waiting.try_recv() else { break };
                bytes.extend_from_slice(&next);
                batch.push(waiter);
            }
            if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
                return;
            }
            bytes.clear();
            for waiter in batch.drain(..) {
                // Whoever does not wait any more does not matter to the others.
                let _ = waiter.send(());
            }
        }
    })?;
    Ok(Keep::File(sender))
}

/// The table of `place`, as wide as the store's of events, with the same unique keys.
async fn table(place: &Place) -> Result<(&Server, Session, String)> {
    let server = place.server().ok_or_else(|| Error::failed("there is no PostgreSQL to compare with"))?;
    let (session, schema) = (server.connect().await?, &place.store.schema);
    let make = format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.events (seq bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, \
         id uuid NOT NULL UNIQUE, key uuid NOT NULL UNIQUE, source text NOT NULL, provider text NOT NULL, type text NOT NULL, \
         provider_type text, event_id text NOT NULL, task_id text, received_at timestamptz NOT NULL, verification text NOT NULL, \
         kept boolean NOT NULL DEFAULT false, ping boolean NOT NULL DEFAULT false, collision_of uuid, repeats bigint NOT NULL DEFAULT 0, \
         last_repeat_at timestamptz, released_at timestamptz, target text NOT NULL, headers text NOT NULL, body bytea NOT NULL)"
    );
    session.batch_execute(&make).await.map_err(failed)?;
    let table = format!(
        "{schema}.events (id, key, source, provider, type, provider_type, event_id, task_id, received_at, verification, target, \
         headers, body)"
    );
    Ok((server, session, table))
}

/// The limit of a database: one writer on one connection, one statement and so one commit for all that waits. It ends with `parts`.
pub(super) async fn in_batches(place: &Place, parts: &mut JoinSet<()>) -> Result<Keep> {
    let (_, session, table) = table(place).await?;
    session.batch_execute("SET synchronous_commit = on").await.map_err(failed)?;
    let insert = format!(
        "INSERT INTO {table} SELECT id, key, source, source, type, provider_type, event_id, task_id, received_at, 'signature', target, \
         headers, body FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
         $8::timestamptz[], $9::text[], $10::text[], $11::bytea[]) AS offered (id, key, source, type, provider_type, event_id, \
         task_id, received_at, target, headers, body) ON CONFLICT DO NOTHING"
    );
    let insert = session.prepare(&insert).await.map_err(failed)?;
    let (sender, waiting) = mpsc::channel(QUEUE);
    parts.spawn(write(session, insert, waiting));
    Ok(Keep::Batches(sender))
}

/// Writes what waits, until a statement fails: that drops the waiters, who then answer 503.
async fn write(session: Session, insert: Statement, mut waiting: mpsc::Receiver<Entry<Row>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = waiting.recv().await {
        batch.push(first);
        while batch.len() < BATCH {
            let Ok(next) = waiting.try_recv() else { break };
            batch.push(next);
        }
        if insert_all(&session, &insert, &batch).await.is_err() {
            return;
        }
        for (_, waiter) in batch.drain(..) {
            // As above.
            let _ = waiter.send(());
        }
    }
}

async fn insert_all(
    session: &Session,
    insert: &Statement,
    batch: &[Entry<Row>],
) -> std::result::Result<u64, tokio_postgres::Error> {
    fn column<'a, T>(batch: &'a [Entry<Row>], value: impl Fn(&'a Row) -> T) -> Vec<T> {
        batch.iter().map(|(row, _)| value(row)).collect()
    }
    session
        .execute(
            insert,
            &[
                &column(batch, |row| row.id),
                &column(batch, |row| row.key),
                &column(batch, |row| row.source),
                &column(batch, |row| row.kind.as_str()),
                &column(batch, |row| row.provider_type.as_deref()),
                &column(batch, |row| row.event_id.as_str()),
                &column(batch, |row| row.task_id.as_deref()),
                &column(batch, |row| row.received_at),
                &column(batch, |row| row.target.as_str()),
                &column(batch, |row| row.headers.as_str()),
                &column(batch, |row| row.body.as_slice()),
            ],
        )
        .await
}

/// What is done without thinking of it: a statement, and so a commit, for each request, on a pool of connections.
pub(super) async fn one_by_one(place: &Place) -> Result<Keep> {
    let (server, _, table) = table(place).await?;
    let (mut config, tls) = server.way()?;
    config.options("-c synchronous_commit=on");
    let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager).max_size(POOL).build();
    let pool = pool.map_err(|error| Error::failed(format!("cannot make a pool of connections: {error}")))?;
    let insert = format!(
        "INSERT INTO {table} VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, 'signature', $9, $10, $11) ON CONFLICT DO NOTHING"
    );
    Ok(Keep::Each(pool, insert))
}

async fn insert_one(pool: &Pool, insert: &str, row: &Row) -> Option<u64> {
    let client = pool.get().await.ok()?;
    let insert = client.prepare_cached(insert).await.ok()?;
    let Row { id, key, source, kind, provider_type, event_id, task_id, received_at, target, headers, body } = row;
    let values: [&(dyn ToSql + Sync); 11] =
        [id, key, source, kind, provider_type, event_id, task_id, received_at, target, headers, body];
    client.execute(&insert, &values).await.ok()
}
