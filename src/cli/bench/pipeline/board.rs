//! When each task of a run was where.
//!
//! All points in time are of one clock. Those that the store tells are in whole milliseconds of wall time, taken to be in the
//! middle of theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore};

use super::super::super::Result;
use super::super::BENCH;
use super::super::latency::Latencies;
use super::super::process::Home;
use super::super::progress::Counter;
use super::super::recorder::Envelope;
use crate::clock::Clock;

/// A point on the way of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Its event was to be sent.
    Sent,
    /// Its event was answered 200.
    Kept,
    /// The provider was asked for it: it was proven, and its fetch had a place.
    Asked,
    /// The provider had told all of it.
    Fetched,
    /// Its delivery was made, in the commit that ends the fetch.
    Made,
    /// The attempt at its delivery was recorded as started.
    Started,
    /// It was delivered.
    Arrived,
}

/// What is told of the way: the name, and the points that it lies between.
pub(super) const STAGES: [(&str, &str, Point, Point); 6] = [
    ("received and committed", "received_committed", Point::Sent, Point::Kept),
    ("proven, until the provider is asked", "committed_proven", Point::Kept, Point::Asked),
    ("fetched, until the provider has told all", "proven_fetched", Point::Asked, Point::Fetched),
    ("delivery made", "fetched_made", Point::Fetched, Point::Made),
    ("until its attempt begins", "made_started", Point::Made, Point::Started),
    ("delivered, until it has arrived", "started_delivered", Point::Started, Point::Arrived),
];

const POINTS: usize = Point::Arrived as usize + 1;

/// Nanoseconds of the clock at each point; zero where it was not reached.
#[derive(Debug, Default)]
struct Times([AtomicU64; POINTS]);

impl Times {
    /// Sets a point, unless it is set already.
    fn set(&self, point: Point, at: Duration) -> bool {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.0[point as usize].compare_exchange(0, nanos, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn at(&self, point: Point) -> Option<Duration> {
        match self.0[point as usize].load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// How long each of [`STAGES`] took.
pub(super) type Stages = [Latencies; STAGES.len()];

/// The tasks of one run.
pub(super) struct Board {
    clock: Clock,
    /// The tasks' ids, once they are made, and their places.
    places: std::sync::OnceLock<HashMap<String, usize>>,
    times: Vec<Times>,
    /// A permit for each task that may be on its way.
    pub(super) room: Semaphore,
    /// Rung when a task has arrived.
    pub(super) bell: Notify,
    arrived: Counter,
    incomplete: Counter,
    twice: Counter,
}

impl Board {
    pub(super) fn new(tasks: usize, clock: Clock) -> Self {
        Self {
            clock,
            places: std::sync::OnceLock::new(),
            times: std::iter::repeat_with(Times::default).take(tasks).collect(),
            room: Semaphore::new(0),
            bell: Notify::new(),
            arrived: Counter::default(),
            incomplete: Counter::default(),
            twice: Counter::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Says which tasks these are, in the order in which their events are sent.
    pub(super) fn name(&self, tasks: &[String]) {
        let _ = self.places.set(tasks.iter().cloned().zip(0..).collect());
    }

    /// Counts what has arrived.
    pub(super) fn counter(&self) -> &Counter {
        &self.arrived
    }

    fn times(&self, task: &str) -> Option<&Times> {
        self.places.get()?.get(task).and_then(|place| self.times.get(*place))
    }

    pub(super) fn mark(&self, place: usize, point: Point, at: Duration) {
        if let Some(times) = self.times.get(place) {
            times.set(point, at);
        }
    }

    /// The provider answered a call.
    pub(super) fn called(&self, path: &str, query: &str) {
        let point = match path.rsplit('/').next() {
            Some("task.detail") => Point::Asked,
            Some("task.listMessages") => Point::Fetched,
            _ => return,
        };
        let task = query.split('&').find_map(|part| part.strip_prefix("task_id="));
        if let Some(times) = task.and_then(|task| self.times(task)) {
            times.set(point, self.clock.elapsed());
        }
    }

    /// A delivery came to the destination.
    pub(super) fn arrived(&self, envelope: &Envelope<'_>, at: Duration) {
        let Some(task) = &envelope.task else { return };
        let Some(times) = self.times(&task.id) else { return };
        if !task.complete {
            self.incomplete.add(1);
        }
        if times.set(Point::Arrived, at) {
            self.arrived.add(1);
            self.room.add_permits(1);
            self.bell.notify_one();
        } else {
            self.twice.add(1);
        }
    }

    /// Asks the store of `home` for the times that it keeps.
    pub(super) async fn ask(&self, home: &Home) -> Result {
        let (wall, running) = self.wall();
        let on_the_clock = |text: &str| {
            let at: Timestamp = text.parse().ok()?;
            let before = u64::try_from(wall - at.as_millisecond()).ok()?;
            (running + Duration::from_micros(500)).checked_sub(Duration::from_millis(before))
        };
        home.list("deliveries", |row: DeliveryRow| {
            if row.destination != BENCH {
                return;
            }
            let Some(times) = row.task_id.and_then(|task| self.times(&task)) else { return };
            let started = row.attempts.first().map(|attempt| attempt.started_at.as_str());
            for (point, text) in [(Point::Made, Some(row.created_at.as_str())), (Point::Started, started)] {
                if let Some(at) = text.and_then(on_the_clock) {
                    times.set(point, at);
                }
            }
        })
        .await
    }

    /// A wall time in milliseconds, and the clock's running time at its beginning.
    fn wall(&self) -> (i64, Duration) {
        // Wall time is told in whole milliseconds: of many readings the one whose millisecond had just begun.
        let read = || (self.clock.now().as_millisecond(), self.clock.elapsed());
        let mut before = read();
        loop {
            let now = read();
            if now.0 != before.0 {
                return now;
            }
            before = now;
        }
    }

    /// From when each event was to be sent to when its delivery arrived.
    pub(super) fn latencies(&self) -> Latencies {
        self.between(Point::Sent, Point::Arrived)
    }

    pub(super) fn stages(&self) -> Stages {
        STAGES.map(|(_, _, from, to)| self.between(from, to))
    }

    fn between(&self, from: Point, to: Point) -> Latencies {
        let mut latencies = Latencies::new();
        for times in &self.times {
            if let (Some(from), Some(to)) = (times.at(from), times.at(to)) {
                latencies.record(to.saturating_sub(from));
            }
        }
        latencies
    }

    /// Tasks a second, from the first event that was to be sent to the last delivery.
    pub(super) fn per_second(&self) -> f64 {
        let first = self.times.iter().filter_map(|times| times.at(Point::Sent)).min();
        let last = self.times.iter().filter_map(|times| times.at(Point::Arrived)).max();
        let took = last.unwrap_or_default().saturating_sub(first.unwrap_or_default());
        self.arrived.count() as f64 / took.as_secs_f64().max(1e-6)
    }

    /// What is not as it should be.
    pub(super) fn problem(&self) -> Option<String> {
        let (arrived, incomplete, twice) = (self.arrived.count(), self.incomplete.count(), self.twice.count());
        if arrived == self.len() as u64 && incomplete == 0 && twice == 0 {
            return None;
        }
        Some(format!("of {} tasks {arrived} arrived, {incomplete} without what was to be fetched, {twice} twice", self.len()))
    }
}

#[derive(Deserialize)]
struct DeliveryRow {
    task_id: Option<String>,
    destination: String,
    created_at: String,
    attempts: Vec<AttemptRow>,
}

#[derive(Deserialize)]
struct AttemptRow {
    started_at: String,
}
