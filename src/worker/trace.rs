//! The spans of work.
//!
//! A job that works for several events has a span in the trace of each, so that every trace is whole; the calls that it makes stand in
//! the trace of the first. All spans of an event stand below the one that brought it here, whose id follows from the event's: nothing of
//! them has to be kept.

use uuid::Uuid;

use super::Environment;
use crate::destination::Receipt;
use crate::provider::Source;
use crate::retry::{Failure, Verdict};
use crate::store::model::{FileRow, Job, Outgoing, StoredEvent, Work};
use crate::task::FileStatus;
use crate::telemetry::trace::{Kind, Span};

/// The span of a job for a task's events.
pub(super) fn of_job(environment: &Environment, job: &Job) -> Span {
    let Work::Task { task_id, waiting, .. } = &job.work else { return Span::default() };
    let events = waiting.iter().map(|event| (event.id, event.replay));
    let span = environment.tracer.shared(events, job.kind.as_str());
    about(&span, &job.queue, task_id.as_deref());
    span.set("taskhook.attempt", job.lease.attempt);
    span
}

/// The span of what is done for `event` alone.
pub(super) fn of_event(environment: &Environment, event: &StoredEvent, name: &'static str) -> Span {
    let span = environment.tracer.span(event.id, name, Kind::Internal);
    about(&span, &event.source, event.task_id.as_deref());
    span.replayed(event.replay);
    span
}

/// Where the files of an event's task stand as its span ends.
pub(super) fn archived(span: &Span, outcome: &'static str, rows: &[FileRow]) {
    if !span.is_taken() {
        return;
    }
    let count = |status| rows.iter().filter(|row| row.status == status).count();
    let archived = rows.iter().filter(|row| row.status == FileStatus::Archived);
    span.outcome(outcome);
    span.set("taskhook.files", rows.len());
    span.set("taskhook.files.archived", count(FileStatus::Archived));
    span.set("taskhook.files.pending", count(FileStatus::Pending));
    span.set("taskhook.files.bytes", archived.filter_map(|row| row.size_bytes).fold(0, u64::saturating_add));
}

/// The span of an attempt at a delivery.
pub(super) fn of_delivery(
    environment: &Environment,
    destination: (&str, &'static str),
    delivery: &Outgoing,
    attempt: u32,
) -> Span {
    let (name, kind) = destination;
    // Who writes a line or starts a program asks nobody.
    let asks = if matches!(kind, "log" | "command") { Kind::Producer } else { Kind::Client };
    let span = environment.tracer.span(delivery.event, "deliver", asks);
    span.set("taskhook.destination", name);
    span.set("taskhook.destination.kind", kind);
    span.set("taskhook.delivery.id", delivery.id);
    span.set("taskhook.attempt", attempt);
    span.replayed(delivery.replay);
    span
}

/// How an attempt ended.
pub(super) fn ended(span: &Span, sent: &Result<Receipt, Failure>) {
    match sent {
        Ok(_) => span.outcome("delivered"),
        Err(failure) => {
            span.outcome(if failure.unknown { "unknown" } else { "failed" });
            span.fail(match failure.verdict {
                _ if failure.unknown => "unknown",
                Verdict::GiveUp => "refused",
                Verdict::Retry { .. } => "failed",
            });
        }
    }
}

/// Begins the trace of an event that no request brought.
pub(super) fn begin(
    environment: &Environment,
    name: &'static str,
    event: Uuid,
    kind: &str,
    source: &Source,
    task_id: Option<&str>,
) -> Span {
    let span = environment.tracer.root(event, name, Kind::Internal);
    about(&span, source.name(), task_id);
    span.set("taskhook.event.type", kind);
    span.set("taskhook.event.id", event);
    span
}

/// Says what it is about.
fn about(span: &Span, source: &str, task_id: Option<&str>) {
    span.set("taskhook.source", source);
    span.set_some("taskhook.task.id", task_id);
}
