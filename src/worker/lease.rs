//! A job while it runs, and how it ends.
//!
//! What must hold: a task whose leases are lost stops, since what it would still do is somebody else's to do; and what was done is
//! written down, however long the store takes no writes.

use std::time::Duration;

use super::Environment;
use crate::retry::{self, LADDER};
use crate::store;
use crate::store::model::{JobKind, Known, Lease, StoredEvent, Work};

/// How often a running job makes sure that it still holds its lease.
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// Returns when the first of `leases` is no longer held.
pub(super) async fn lost(environment: &Environment, leases: &[Lease]) {
    loop {
        environment.clock.sleep(RENEW_EVERY).await;
        for lease in leases {
            // A job of a batch that has already ended is no longer held either; only the last one's loss ends the task.
            if !matches!(environment.store.renew(*lease).await, Ok(false)) {
                break;
            }
            if Some(lease) == leases.last() {
                return;
            }
        }
    }
}

/// Writes down how a job ended, and rings for what follows from it. A store that does not take it now (a full disk) is asked
/// again: what was done must not be done again for want of a note. False where nothing was written.
pub(super) async fn end<F, W>(environment: &Environment, kind: JobKind, mut write: F) -> bool
where
    F: FnMut() -> W,
    W: Future<Output = Result<bool, store::Error>>,
{
    let mut attempt = 0;
    loop {
        match write().await {
            Ok(true) => {
                environment.wake.notify_one();
                return true;
            }
            Ok(false) => {
                tracing::warn!(job.kind = kind.as_str(), "a job ended that somebody else holds; its end is theirs to write");
                return false;
            }
            // The process ends as well; the next start finds the lease.
            Err(error @ (store::Error::Disk(_) | store::Error::Unavailable(_))) => {
                tracing::warn!(job.kind = kind.as_str(), error = %error, "the end of a job was not kept, it is done again after the next start: {error}");
                return false;
            }
            Err(error) => {
                attempt += 1;
                let wait = match error {
                    // It comes back at any moment, and until this is written nothing else has this job's place.
                    store::Error::Unreachable(_) => LADDER[0] + retry::jitter(LADDER[0]),
                    _ => retry::wait(&LADDER[..3], attempt, None).unwrap_or(LADDER[2]).max(LADDER[0]),
                };
                tracing::warn!(job.kind = kind.as_str(), attempt, error = %error, "the end of a job is not kept yet, will try again: {error}");
                environment.clock.sleep(wait).await;
            }
        }
    }
}

/// The task that a job is about, with what waits for it. Nothing else is ever claimed for these kinds.
pub(super) fn task_work(work: Work) -> Option<(Option<String>, Known, Vec<StoredEvent>)> {
    match work {
        Work::Task { task_id, known, waiting } => Some((task_id, known, waiting)),
        Work::Files { .. } | Work::Delivery(_) => None,
    }
}
