//! The store's contract, held against every database that we speak to, and what is particular to one of them.

mod again;
mod append;
mod care;
mod files;
mod jobs;
mod lanes;
mod opening;
mod pages;
mod restore;
mod sql;

use std::path::PathBuf;
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
    Appended, Capacity, Claimed, Finish, Job, JobKind, Lease, Move, NewDelivery, Setback, Stage, Which, Work,
};
use taskhook::store::view::{EventDetail, EventFilter, Page};
use taskhook::store::{Config, Error, Store};
use tempfile::TempDir;
use uuid::Uuid;

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
    };
}
use contract;

/// A database of a test, and what tests may know of it beside the contract.
struct Database {
    store: Option<Store>,
    clock: Clock,
    folder: TempDir,
}

impl Database {
    async fn sqlite() -> Self {
        let clock = Clock::manual(at(0));
        let mut database = Self { store: None, clock, folder: tempfile::tempdir().unwrap() };
        database.open().await;
        database
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    fn config(&self) -> Config {
        Config { url: format!("sqlite://{}", self.path().display()), min_free_bytes: Size(0) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
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

    /// Ends the process, as far as the store knows, and starts the next.
    async fn reopen(&mut self) {
        self.store = None;
        self.open().await;
    }

    /// A connection beside the store's.
    fn connection(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// Every row of every table, to see that nothing changed.
    fn dump(&self) -> Vec<Vec<SqlValue>> {
        let connection = self.connection();
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
            rows.extend(found.map(Result::unwrap));
        }
        rows
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
