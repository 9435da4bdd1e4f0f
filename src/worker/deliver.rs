//! Handing one delivery to its destination. The attempt was recorded as started when the job was claimed.

use super::{Environment, end};
use crate::clock;
use crate::destination::{OnUnknown, Outgoing};
use crate::retry::{self, Failure, Verdict};
use crate::store::model::{Finish, Job, JobKind, Lease, Setback, Work};
use crate::telemetry::name as metric;

/// What the destination's breaker learns from a delivery.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Somebody is there.
    Answered,
    /// It failed, for this reason.
    Failed(String),
    /// It was not asked.
    None,
}

/// Does `job`.
pub(super) async fn run(environment: &Environment, job: Job) -> Outcome {
    let lease = job.lease;
    let (Work::Delivery(delivery), Some(destination)) = (job.work, environment.destinations.get(&job.queue)) else {
        return Outcome::None;
    };
    if delivery.after_unknown && destination.on_unknown() == OnUnknown::Hold {
        let reason = "held: an earlier attempt may have arrived, and `on_unknown` is \"hold\"";
        bury(environment, lease, &job.queue, reason, false).await;
        return Outcome::None;
    }
    let outgoing = Outgoing { id: delivery.id, body: &delivery.body, attempt: lease.attempt };
    let labels = [("destination", job.queue.clone())];
    let begun = environment.clock.elapsed();
    let sent = destination.send(&outgoing).await;
    metrics::histogram!(metric::DELIVERY_SECONDS, &labels).record(environment.clock.elapsed().saturating_sub(begun));
    match sent {
        Ok(receipt) => {
            metrics::counter!(metric::DELIVERIES, "destination" => job.queue.clone(), "outcome" => "delivered").increment(1);
            tracing::debug!(destination = %job.queue, delivery = %delivery.id, attempt = lease.attempt, "delivered to `{}`", job.queue);
            let finish = Finish { detail: Some(receipt.detail), ..Finish::default() };
            let now = environment.clock.now();
            end(environment, JobKind::Deliver, || environment.store.finish(lease, now, finish.clone())).await;
            Outcome::Answered
        }
        Err(failure) => fail(environment, lease, &job.queue, destination.ladder(), failure).await,
    }
}

async fn fail(environment: &Environment, lease: Lease, name: &str, ladder: &[std::time::Duration], failure: Failure) -> Outcome {
    let outcome = if failure.unknown { "unknown" } else { "failed" };
    metrics::counter!(metric::DELIVERIES, "destination" => name.to_owned(), "outcome" => outcome).increment(1);
    let wait = match failure.verdict {
        Verdict::Retry { after } => retry::wait(ladder, lease.attempt, after),
        Verdict::GiveUp => {
            bury(environment, lease, name, &failure.reason, failure.unknown).await;
            // It said no, so it is there.
            return Outcome::Answered;
        }
    };
    let Some(wait) = wait else {
        let reason = format!("given up after {} attempts, the last: {}", lease.attempt, failure.reason);
        bury(environment, lease, name, &reason, failure.unknown).await;
        return Outcome::Failed(failure.reason);
    };
    let now = environment.clock.now();
    tracing::warn!(
        destination = name,
        attempt = lease.attempt,
        wait_ms = clock::millis(wait),
        "delivering to `{name}` failed ({}), will try again",
        failure.reason
    );
    let setback = Setback { reason: failure.reason.clone(), unknown: failure.unknown, ..Setback::default() };
    let due = clock::after(now, wait);
    end(environment, JobKind::Deliver, || environment.store.retry(lease, now, due, setback.clone())).await;
    Outcome::Failed(failure.reason)
}

async fn bury(environment: &Environment, lease: Lease, name: &str, reason: &str, unknown: bool) {
    tracing::error!(destination = name, attempt = lease.attempt, "a dead letter for `{name}`: {reason}");
    let setback = Setback { reason: reason.to_owned(), unknown, ..Setback::default() };
    let now = environment.clock.now();
    end(environment, JobKind::Deliver, || environment.store.bury(lease, now, setback.clone())).await;
}
