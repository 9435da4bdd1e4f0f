//! What every round has, whoever sends: its end in time, requests past the simulator, and looking until all is as it should be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde_json::Value;

use super::check::{self, Check};
use super::news::{Actor, Line, Tone};
use super::stage::{Cast, Stage};
use super::{magic_hour, manus, webrun};
use crate::cli::Result;
use crate::clock;
use crate::http;
use crate::store::view::{EventFilter, EventRow, Page};

/// The most time that a round may take; it needs two seconds on a machine that does little else.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether something has come to pass.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The most bytes of an answer that are read.
pub(super) const MAX_ANSWER: usize = 64 << 10;

/// Plays round `number`, until all is as it should be, or will not be any more. What was seen.
pub(super) async fn play(stage: &Stage, number: u32) -> Result<Vec<Check>> {
    match &stage.cast {
        Cast::Manus(simulator) => manus::Script::begin(stage, simulator, number).await.play().await,
        Cast::MagicHour(simulator) => magic_hour::Script::begin(stage, simulator, number).play().await,
        Cast::WebRun(simulator) => webrun::Script::begin(stage, simulator).play().await,
    }
}

/// A round that is played.
pub(super) struct Round<'a> {
    pub(super) stage: &'a Stage,
    /// When it is given up on.
    deadline: Timestamp,
    /// How many requests were sent past the simulator.
    posted: AtomicUsize,
}

impl<'a> Round<'a> {
    pub(super) fn new(stage: &'a Stage) -> Self {
        Self { stage, deadline: clock::after(stage.clock.now(), PATIENCE), posted: AtomicUsize::new(0) }
    }

    /// How many requests were sent past the simulator.
    pub(super) fn posted(&self) -> usize {
        self.posted.load(Ordering::Relaxed)
    }

    pub(super) fn is_late(&self) -> bool {
        self.stage.clock.now() >= self.deadline
    }

    /// Sends a request of `actor` that must be refused.
    pub(super) async fn post(&self, actor: Actor, what: &str, task_id: &str, headers: HeaderMap, body: String) {
        let at = self.stage.clock.now();
        let request = self.stage.client.post(&self.stage.webhook).headers(headers).body(body);
        let (tone, outcome) = match http::send(request, PATIENCE, MAX_ANSWER).await {
            Ok(answer) => {
                let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let tone = if answer.status == 401 { Tone::Refused } else { Tone::Bad };
                (tone, format!("{} {}", answer.status.as_u16(), problem["code"].as_str().unwrap_or_default()))
            }
            Err(error) => (Tone::Bad, error.to_string()),
        };
        self.posted.fetch_add(1, Ordering::Relaxed);
        self.stage.news.line(Line::of_task(at, actor, what, task_id, tone, outcome));
    }

    /// Waits for an event of a task; `None` once the round is late.
    pub(super) async fn find(&self, task_id: &str, kind: &str) -> Result<Option<EventRow>> {
        let filter = || EventFilter { task_id: Some(task_id.to_owned()), kind: Some(kind.to_owned()), ..EventFilter::default() };
        while !self.is_late() {
            let found = self.stage.store.events(filter(), Page { limit: 1, cursor: None }).await.map_err(check::unread)?;
            if let Some(event) = found.data.into_iter().next() {
                return Ok(Some(event));
            }
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    /// Looks until everything is there, or nothing is left to be done, or time is up.
    pub(super) async fn settle(&self, look: impl AsyncFn() -> Result<Vec<Check>>) -> Result<Vec<Check>> {
        let mut quiet = 0;
        loop {
            let checks = look().await?;
            let idle = self.stage.cast.idle().now_or_never().is_some()
                && self.stage.store.backlog().await.map_err(check::unread)?.jobs.is_empty();
            quiet = if idle { quiet + 1 } else { 0 };
            // What is kept beside the path of an event may be a moment behind it.
            if checks.iter().all(Check::is_right) || quiet > 20 || self.is_late() {
                return Ok(checks);
            }
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
    }
}
