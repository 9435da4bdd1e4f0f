//! The store's contract, held against every database that we speak to, and what is particular to one of them.

mod again;
mod answers;
mod append;
mod care;
mod care_server;
mod clock;
mod copy;
mod files;
mod hold;
mod jobs;
mod lanes;
mod lists;
mod look;
mod opening;
mod pages;
mod plans;
mod posts;
mod replicas;
mod restore;
mod series;
mod server;
mod spending;
mod sql;
mod stops;
mod upkeep;
mod watches;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;
use serde_json::{Value, json};
use taskhook::clock::Clock;
use taskhook::event::{First, NewEvent, TASK_STOPPED, Verification};
use taskhook::setting::Size;
use taskhook::store::model::{
    Appended, Capacity, Claimed, Finish, Job, JobKind, Lease, Move, NewDelivery, Setback, Stage, Tracked, Which, Work,
};
use taskhook::store::view::{EventDetail, EventFilter, Page, RejectionFilter, TaskFilter};
use taskhook::store::{Config, Error, Store};
use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::postgres::{Connection as Beside, Schema};
use crate::harness::within;

/// Runs each test of the contract on each database.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::store::Database::sqlite().await).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::store::Database::postgres().await).await;
                }
            )*
        }
    };
}
use contract;

/// A database of a test, and what tests may know of it beside the contract.
struct Database {
    store: Option<Store>,
    clock: Clock,
    place: Place,
}

/// Where a database is.
enum Place {
    /// A file in this folder.
    Folder(TempDir),
    /// A schema on the server.
    Server(Schema),
}

impl Database {
    async fn sqlite() -> Self {
        Self::at(Place::Folder(tempfile::tempdir().unwrap()), Clock::manual(at(0))).await
    }

    async fn postgres() -> Self {
        Self::at(Place::Server(Schema::new()), Clock::manual(at(0))).await
    }

    async fn at(place: Place, clock: Clock) -> Self {
        let mut database = Self { store: None, clock, place };
        database.open().await;
        database
    }

    /// An empty one of the same kind.
    async fn another(&self) -> Self {
        match self.place {
            Place::Folder(_) => Self::sqlite().await,
            Place::Server(_) => Self::postgres().await,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    fn config(&self) -> Config {
        match &self.place {
            Place::Folder(_) => Config::new(format!("sqlite://{}", self.path().display())),
            Place::Server(schema) => schema.config(),
        }
    }

    fn folder(&self) -> &Path {
        match &self.place {
            Place::Folder(folder) => folder.path(),
            Place::Server(_) => panic!("it is on a server"),
        }
    }

    fn schema(&self) -> &Schema {
        match &self.place {
            Place::Folder(_) => panic!("it is in a file"),
            Place::Server(schema) => schema,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder().join("store.db")
    }

    async fn try_open(&self) -> Result<Store, Error> {
        Store::open(&self.config(), self.clock.clone()).await
    }

    async fn open(&mut self) {
        let opened = within("the store", async {
            loop {
                match self.try_open().await {
                    // The one before is still ending.
                    Err(Error::Locked(_)) => tokio::task::yield_now().await,
                    opened => return opened.unwrap(),
                }
            }
        });
        self.store = Some(opened.await);
    }

    /// Ends the process without order, and starts the next, which has run for so long then that what the one before held is known
    /// to be nobody's.
    async fn reopen(&mut self) {
        self.store = None;
        self.open().await;
        if let Place::Server(schema) = &self.place {
            outlive(schema, self.store()).await;
        }
    }

    /// A connection to the file, beside the store's.
    fn connection(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// Keeps everybody else from writing, until it is let go.
    async fn hold(&self) -> Hold {
        match &self.place {
            Place::Folder(_) => {
                let connection = self.connection();
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                Hold::File(connection)
            }
            Place::Server(schema) => {
                let connection = schema.connect().await;
                connection.batch_execute("BEGIN; LOCK TABLE events IN EXCLUSIVE MODE").await.unwrap();
                Hold::Server(connection)
            }
        }
    }

    /// Every row of every table, to see that nothing changed.
    async fn dump(&self) -> Vec<String> {
        match &self.place {
            Place::Folder(_) => dump_file(&self.connection()),
            Place::Server(schema) => dump_schema(schema).await,
        }
    }

    async fn append(&self, event: NewEvent) -> Appended {
        self.store().append(event).await.unwrap()
    }

    /// Keeps a stop of `task_id`; our id.
    async fn stopped(&self, event_id: &str, task_id: &str) -> Uuid {
        let appended = self.append(event(event_id, Some(task_id), &json!({"event_id": event_id}))).await;
        assert!(matches!(appended, Appended::New(_)), "{appended:?}");
        appended.id()
    }

    async fn claimed(&self, kind: JobKind, queue: &str, limit: usize, now: Timestamp) -> Claimed {
        self.store().claim(vec![Capacity { kind, queue: queue.to_owned(), which: Which::Any, limit }], now).await.unwrap()
    }

    async fn claim(&self, kind: JobKind, queue: &str, now: Timestamp) -> Vec<Job> {
        self.claimed(kind, queue, 100, now).await.jobs
    }

    /// The one job that is due.
    async fn claim_one(&self, kind: JobKind, queue: &str, now: Timestamp) -> Job {
        let mut jobs = self.claim(kind, queue, now).await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    async fn event(&self, id: Uuid) -> EventDetail {
        self.store().event(&id.to_string()).await.unwrap().expect("the event is kept")
    }

    async fn state(&self, id: Uuid) -> String {
        self.event(id).await.row.state
    }

    /// Keeps an event of `task_id` and takes it to where it has `deliveries`, all due or waiting.
    async fn dispatched(&self, event_id: &str, task_id: &str, deliveries: Vec<NewDelivery>, now: Timestamp) -> Uuid {
        let id = self.stopped(event_id, task_id).await;
        let job = self.claim_one(JobKind::Prove, "manus", now).await;
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(deliveries) }];
        assert!(self.store().finish(job.lease, now, Finish { moves, ..Finish::default() }).await.unwrap());
        id
    }

    async fn finish(&self, lease: Lease, now: Timestamp) -> bool {
        self.store().finish(lease, now, Finish::default()).await.unwrap()
    }

    async fn retry(&self, lease: Lease, now: Timestamp, due: Timestamp, reason: &str) -> bool {
        self.store().retry(lease, now, due, setback(reason)).await.unwrap()
    }

    async fn bury(&self, lease: Lease, now: Timestamp, reason: &str) -> bool {
        self.store().bury(lease, now, setback(reason)).await.unwrap()
    }

    /// The kinds and queues of the jobs that are not done.
    async fn backlog(&self) -> Vec<(String, String, i64)> {
        let jobs = self.store().backlog().await.unwrap().jobs;
        jobs.into_iter().map(|row| (row.kind, row.queue, row.count)).collect()
    }

    /// Our ids of all events, oldest first.
    async fn ids(&self) -> Vec<String> {
        let page = Page { limit: 500, cursor: None };
        let listed = self.store().events(EventFilter::default(), page).await.unwrap();
        listed.data.into_iter().rev().map(|row| row.id).collect()
    }
}

/// Who keeps the others from writing.
enum Hold {
    File(Connection),
    Server(Beside),
}

impl Hold {
    async fn let_go(self) {
        match self {
            Self::File(connection) => connection.execute_batch("COMMIT").unwrap(),
            Self::Server(connection) => connection.batch_execute("COMMIT").await.unwrap(),
        }
    }
}

/// Lets an hour pass for the replicas of `schema`, of which none but `store` lives. By the database's clock, which no test can set:
/// so it is the times in the table that go back.
async fn outlive(schema: &Schema, store: &Store) {
    let me = store.replica().expect("it is one of many");
    let connection = schema.connect().await;
    let sql = "UPDATE replicas SET since = since - interval '1 hour', \
               seen_at = CASE WHEN id = $1 THEN seen_at ELSE seen_at - interval '1 hour' END RETURNING id";
    within("the replica's first sign of life", async {
        while !connection.query(sql, &[&me]).await.unwrap().iter().any(|row| row.get::<_, Uuid>(0) == me) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn dump_file(connection: &Connection) -> Vec<String> {
    let tables = [
        "events",
        "open_events",
        "event_keys",
        "new_keys",
        "intake",
        "task_events",
        "tasks",
        "fetched_tasks",
        "jobs",
        "deliveries",
        "delivery_bodies",
        "attempts",
        "rejections",
        "verification_keys",
        "files",
        "archiving",
        "own_keys",
        "posts",
        "replays",
        "paused",
        "unwanted_files",
        "erased_keys",
        "erased_tasks",
        "restored_events",
    ];
    let mut rows = Vec::new();
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let found = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
        rows.extend(found.map(|row: rusqlite::Result<Vec<SqlValue>>| format!("{table} {:?}", row.unwrap())));
    }
    rows
}

/// All but what replicas say of themselves, who holds what, and the store of itself.
async fn dump_schema(schema: &Schema) -> Vec<String> {
    let connection = schema.connect().await;
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() \
                  AND tablename NOT IN ('store', 'replicas', 'queues') ORDER BY tablename";
    let mut rows = Vec::new();
    for table in connection.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let found = connection.query(&format!("SELECT t::text FROM {table} AS t ORDER BY t::text"), &[]).await.unwrap();
        rows.extend(found.iter().map(|row| format!("{table} {}", row.get::<_, &str>(0))));
    }
    rows
}

/// So many seconds after the start.
fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(seconds)
}

fn event(event_id: &str, task_id: Option<&str>, body: &Value) -> NewEvent {
    NewEvent {
        id: Uuid::now_v7(),
        source: "manus".into(),
        provider: "manus",
        received_at: at(0),
        verification: Verification::Signature,
        target: "/webhooks/manus".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from(body.to_string()),
        kind: TASK_STOPPED.into(),
        provider_type: Some(TASK_STOPPED.into()),
        event_id: event_id.into(),
        task_id: task_id.map(Into::into),
        ping: false,
        collides: true,
        first: First::Prove,
    }
}

fn delivery(destination: &str, order_wait: Option<Duration>) -> NewDelivery {
    NewDelivery {
        id: Uuid::now_v7(),
        destination: destination.into(),
        route: "all".into(),
        body: r#"{"id":"x","out_of_order":false}"#.into(),
        out_of_order: false,
        order_wait,
    }
}

/// A task that a person told of.
fn tracked(task_id: &str, kind: &str) -> Tracked {
    Tracked { task_id: task_id.to_owned(), kind: kind.to_owned(), locator: None }
}

fn setback(reason: &str) -> Setback {
    Setback { reason: reason.to_owned(), ..Setback::default() }
}

/// The places of the events that a job of a task works on.
fn waiting(job: &Job) -> Vec<i64> {
    match &job.work {
        Work::Task { waiting, .. } => waiting.iter().map(|event| event.seq).collect(),
        Work::Files { .. } | Work::Delivery(_) => panic!("no events are claimed with this job"),
    }
}

/// What a job of a delivery sends.
fn outgoing(job: &Job) -> &taskhook::store::model::Outgoing {
    match &job.work {
        Work::Delivery(outgoing) => outgoing,
        Work::Task { .. } | Work::Files { .. } => panic!("this is no delivery"),
    }
}
