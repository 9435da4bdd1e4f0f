//! Handing one delivery to its destination. The attempt was recorded as started when the job was claimed.

use uuid::Uuid;

use super::Environment;
use super::lease::end;
use super::trace;
use crate::clock;
use crate::destination::{Destination, OnUnknown, Outgoing};
use crate::retry::{self, Failure, Verdict};
use crate::store::model::{self, Finish, Job, JobKind, Lease, Setback, Work};
use crate::telemetry::trace::within;
use crate::telemetry::{logged, name as metric};

/// Why a delivery is held.
const HELD: &str = "held: an attempt may have arrived, and `on_unknown` is \"hold\"";

/// What the destination's breaker learns from a delivery.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Somebody is there.
    Answered,
    /// It failed, for this reason.
    Failed(String),
    /// It refuses everything until a person acts, for this reason.
    Broken(String),
    /// It was not asked.
    None,
}

/// The part that is degraded when the destination `name` is.
pub(super) fn part(name: &str) -> String {
    format!("destination {name}")
}

/// Does `job`.
pub(super) async fn run(environment: &Environment, job: Job) -> Outcome {
    let lease = job.lease;
    let (Work::Delivery(delivery), Some(destination)) = (job.work, environment.destinations.get(&job.queue)) else {
        return Outcome::None;
    };
    if delivery.after_unknown && destination.on_unknown() == OnUnknown::Hold {
        let setback = Setback { reason: HELD.to_owned(), unsent: true, ..Setback::default() };
        bury(environment, lease, destination, delivery.id, setback).await;
        return Outcome::None;
    }
    let outgoing = Outgoing { id: delivery.id, body: &delivery.body, attempt: lease.attempt };
    let labels = [("destination", job.queue.clone())];
    let begun = environment.clock.elapsed();
    let span = trace::of_delivery(environment, (&job.queue, destination.kind()), &delivery, lease.attempt);
    let sent = within(span.clone(), destination.send(&outgoing)).await;
    trace::ended(&span, &sent);
    drop(span);
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
        Err(failure) => fail(environment, (lease, &delivery), destination, failure).await,
    }
}

/// Writes down what follows from the failure of a delivery.
async fn fail(
    environment: &Environment,
    (lease, delivery): (Lease, &model::Outgoing),
    destination: &Destination,
    failure: Failure,
) -> Outcome {
    let name = destination.name();
    // What an attempt met in full is kept with it; where the reason is all, the store keeps that.
    let met = |failure: &Failure| failure.detail.clone().or_else(|| Some(failure.reason.clone()));
    let outcome = if failure.unknown { "unknown" } else { "failed" };
    metrics::counter!(metric::DELIVERIES, "destination" => name.to_owned(), "outcome" => outcome).increment(1);
    let wait = match failure.verdict {
        Verdict::Retry { .. } if failure.unknown && destination.on_unknown() == OnUnknown::Hold => {
            let reason = format!("{HELD}: {}", failure.reason);
            let detail = met(&failure);
            bury(environment, lease, destination, delivery.id, Setback { reason, detail, unknown: true, ..Setback::default() })
                .await;
            return Outcome::Failed(failure.reason);
        }
        Verdict::Retry { after } => retry::wait(destination.ladder(), delivery.tries, after),
        Verdict::GiveUp => {
            let reason = failure.reason.clone();
            let setback = Setback { reason, detail: failure.detail, unknown: failure.unknown, ..Setback::default() };
            bury(environment, lease, destination, delivery.id, setback).await;
            // It said no, so it is there.
            return if failure.broken { Outcome::Broken(failure.reason) } else { Outcome::Answered };
        }
    };
    let Some(wait) = wait else {
        let reason = format!("given up after {} attempts, the last: {}", lease.attempt, failure.reason);
        let detail = met(&failure);
        bury(
            environment,
            lease,
            destination,
            delivery.id,
            Setback { reason, detail, unknown: failure.unknown, ..Setback::default() },
        )
        .await;
        return Outcome::Failed(failure.reason);
    };
    let now = environment.clock.now();
    tracing::warn!(
        destination = name,
        delivery = %delivery.id,
        attempt = lease.attempt,
        wait_ms = clock::millis(wait),
        "delivering to `{name}` failed ({}), will try again",
        logged(&failure.reason)
    );
    let (reason, detail) = (failure.reason.clone(), failure.detail.clone());
    let setback = Setback { reason, detail, unknown: failure.unknown, ..Setback::default() };
    let due = clock::after(now, wait);
    end(environment, JobKind::Deliver, || environment.store.retry(lease, now, due, setback.clone())).await;
    Outcome::Failed(failure.reason)
}

async fn bury(environment: &Environment, lease: Lease, destination: &Destination, delivery: Uuid, setback: Setback) {
    let name = destination.name();
    tracing::error!(
        destination = name,
        delivery = %delivery,
        attempt = lease.attempt,
        "a dead letter for `{name}`: {}",
        logged(&setback.reason)
    );
    let now = environment.clock.now();
    end(environment, JobKind::Deliver, || environment.store.bury(lease, now, setback.clone())).await;
}
