//! What the API shows of a task while it lags behind what happened.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::super::core::Model as _;
use super::state::{State, Status, Task};
use crate::clock;

/// A task as the API shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) task: &'a Task,
    pub(super) status: Status,
    pub(super) updated_at: Timestamp,
    /// The conversation, as far as it is shown.
    pub(super) entries: &'a [Value],
}

impl State {
    /// The task `number` as the API shows it now: without what happened in the last `lag_seconds`.
    pub(super) fn seen(&self, number: u64) -> Seen<'_> {
        let task = &self.tasks[&number];
        let now = Seen { task, status: task.status, updated_at: task.updated_at, entries: &task.entries };
        if self.faults.lag_seconds == 0 {
            return now;
        }
        let until = clock::before(self.now(), Duration::from_secs(self.faults.lag_seconds)).as_millisecond();
        let at = |entry: &Value| entry["timestamp"].as_i64().unwrap_or_default();
        let entries = &task.entries[..task.entries.partition_point(|entry| at(entry) <= until)];
        if entries.len() == task.entries.len() {
            return now;
        }
        let status = entries.iter().rev().find_map(|entry| entry["status_update"]["agent_status"].as_str());
        let last = entries.last().and_then(|entry| Timestamp::from_millisecond(at(entry)).ok());
        Seen {
            task,
            status: status.and_then(Status::of_v2).unwrap_or(Status::Running),
            updated_at: last.unwrap_or(task.created_at),
            entries,
        }
    }
}
