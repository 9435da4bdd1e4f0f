//! The metrics: their names, what each counts, and the text that Prometheus reads.
//!
//! A name ends in its unit, a counter in `_total`. Labels take words of ours and names of the configuration only, so that no
//! sender can make new series.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Names of metrics, for the macros of the `metrics` crate.
pub mod name {
    /// Counter, by `source` and `outcome` (`accepted`, `duplicate`, `collision`, `not_kept`).
    pub const EVENTS: &str = "taskhook_events_total";
    /// Counter, by `source` and `code`.
    pub const REJECTIONS: &str = "taskhook_rejections_total";
    /// Counter, by `status`.
    pub const RESPONSES: &str = "taskhook_responses_total";
    /// Histogram: from the first byte of a request to its answer.
    pub const RECEIVE_SECONDS: &str = "taskhook_receive_seconds";
    /// Histogram: from handing an event to the store to its commit.
    pub const COMMIT_SECONDS: &str = "taskhook_commit_seconds";
    /// Gauge, by `kind`.
    pub const JOBS: &str = "taskhook_jobs";
    /// Gauge, by `kind`: 0 where none is due.
    pub const OLDEST_DUE_JOB: &str = "taskhook_oldest_due_job_seconds";
    /// Gauge, by `source`: a Unix time; not there while no webhook of it is known.
    pub const LAST_EVENT: &str = "taskhook_last_event_timestamp_seconds";
    /// Gauge, by `source`.
    pub const OPEN_TASKS: &str = "taskhook_open_tasks";
    /// Gauge, by `source`.
    pub const WAITING_TASKS: &str = "taskhook_waiting_tasks";
    /// Counter, by `source` and `outcome` (`sent`, `declined`, `refused`, `unknown`).
    pub const ANSWERS: &str = "taskhook_answers_total";
    /// Counter, by `destination` and `outcome` (`delivered`, `failed`, `unknown`).
    pub const DELIVERIES: &str = "taskhook_deliveries_total";
    /// Histogram, by `destination`: one attempt, until its answer.
    pub const DELIVERY_SECONDS: &str = "taskhook_delivery_seconds";
    /// Gauge.
    pub const DEAD_LETTERS: &str = "taskhook_dead_letters";
    /// Gauge.
    pub const QUARANTINED: &str = "taskhook_quarantined_events";
    /// Counter, by `call` and `outcome` (`ok`, or the kind of error).
    pub const PROVIDER_CALLS: &str = "taskhook_provider_calls_total";
    /// Counter, by `source` and `status` (`archived`, `failed`, `too_large`, `skipped`).
    pub const FILES: &str = "taskhook_files_total";
    /// Counter, by `source`.
    pub const FILE_BYTES: &str = "taskhook_file_bytes_total";
    /// Gauge, by `part`: 1 while it is degraded.
    pub const DEGRADED: &str = "taskhook_degraded";
    /// Gauge.
    pub const STORE_FREE_BYTES: &str = "taskhook_store_free_bytes";
    /// Counter, by `source`.
    pub const RECOVERED: &str = "taskhook_recovered_events_total";
    /// Counter, by `source`.
    pub const CREDITS: &str = "taskhook_credits_total";
    /// Counter, by `source` and `direction` (`input`, `output`).
    pub const TOKENS: &str = "taskhook_tokens_total";
    /// Counter of whole seconds, by `source`.
    pub const COMPUTE_SECONDS: &str = "taskhook_compute_seconds_total";
    /// Gauge, by `source`: it has cents, which a counter of ours has not.
    pub const COST_USD: &str = "taskhook_cost_usd";
    /// Gauge, by `type` of the watch events.
    pub const WATCHES: &str = "taskhook_watches";
    /// Counter, by `outcome` (`sent`, `queue_full`, `refused`, `stopped`): all but the first are dropped.
    pub const TRACE_SPANS: &str = "taskhook_trace_spans_total";
    /// Counter, by `what` (`events`, `tasks`, `quarantined`).
    pub const REMOVED: &str = "taskhook_removed_total";
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Every metric: its name, its kind, and what it tells.
pub const METRICS: &[(&str, Kind, &str)] = &[
    (name::EVENTS, Kind::Counter, "Events kept or recognised, by source and outcome."),
    (name::REJECTIONS, Kind::Counter, "Requests that did not verify, by source and code."),
    (name::RESPONSES, Kind::Counter, "Answers on the public listener, by status."),
    (name::RECEIVE_SECONDS, Kind::Histogram, "Time to answer a webhook request."),
    (name::COMMIT_SECONDS, Kind::Histogram, "Time that an event waits until it is committed and synced."),
    (name::JOBS, Kind::Gauge, "Jobs that are not done, by kind."),
    (name::OLDEST_DUE_JOB, Kind::Gauge, "How long the oldest job that could be done has been due, by kind; not what is paused."),
    (name::LAST_EVENT, Kind::Gauge, "When the newest webhook of a source came, by source."),
    (name::OPEN_TASKS, Kind::Gauge, "Tasks that have not ended, as far as is known, by source."),
    (name::WAITING_TASKS, Kind::Gauge, "Tasks that wait for an answer, by source."),
    (name::ANSWERS, Kind::Counter, "What people answered to tasks, by source and outcome."),
    (name::DELIVERIES, Kind::Counter, "Attempts at deliveries, by destination and outcome."),
    (name::DELIVERY_SECONDS, Kind::Histogram, "Time of one attempt until its answer, by destination."),
    (name::DEAD_LETTERS, Kind::Gauge, "Dead letters: work that was given up on."),
    (name::QUARANTINED, Kind::Gauge, "Events of tasks that our API key cannot see."),
    (name::PROVIDER_CALLS, Kind::Counter, "Calls of provider APIs, by call and outcome."),
    (name::FILES, Kind::Counter, "Files of tasks that were archived or given up on, by source and status."),
    (name::FILE_BYTES, Kind::Counter, "Bytes of the files that were archived, by source."),
    (name::DEGRADED, Kind::Gauge, "1 while a part is degraded."),
    (name::STORE_FREE_BYTES, Kind::Gauge, "Free space on the disk of the store."),
    (name::RECOVERED, Kind::Counter, "Events made of stops that no webhook told, by source."),
    (name::CREDITS, Kind::Counter, "What tasks cost, as far as it was seen, by source."),
    (name::TOKENS, Kind::Counter, "Tokens that tasks read and wrote, as far as it was seen, by source and direction."),
    (name::COMPUTE_SECONDS, Kind::Counter, "Seconds of computing that tasks took, as far as it was seen, by source."),
    (name::COST_USD, Kind::Gauge, "US dollars that tasks cost at all, as far as it was seen, by source."),
    (name::WATCHES, Kind::Gauge, "What is not as it should be, by the type of its events."),
    (
        name::TRACE_SPANS,
        Kind::Counter,
        "Spans of traces that were sent, or dropped for want of room or of a collector that takes them.",
    ),
    (name::REMOVED, Kind::Counter, "What retention removed, by what it was."),
];

/// Upper bounds of the histograms, in seconds: from a commit to a task that waits for its files.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0];

/// How often records are put into their buckets: a flood makes some megabytes of them in this time.
const KEEP_UP_EVERY: Duration = Duration::from_secs(5);

/// Renders what was counted; clones share it.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// The metrics of this process. The first call starts the counting; every call gives the same, since the macros of the
    /// `metrics` crate know one recorder a process.
    ///
    /// # Panics
    /// Never: the bounds of the histograms are constants.
    #[must_use]
    pub fn of_process() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .expect("there are bounds");
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // It fails only where somebody set another recorder, whose counts are then not ours to render.
            if metrics::set_global_recorder(recorder).is_ok() {
                describe();
            }
            handle
        });
        Self(handle.clone())
    }

    /// Puts what was recorded into its buckets, again and again until `stop`: each record is kept by itself until then, and nobody
    /// may ever ask for `/metrics`.
    pub async fn keep_up(self, clock: Clock, stop: CancellationToken) {
        while stop.run_until_cancelled(clock.sleep(KEEP_UP_EVERY)).await.is_some() {
            self.0.run_upkeep();
        }
    }

    /// The text of `/metrics`, in the Prometheus exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

fn describe() {
    for (name, kind, text) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *text),
            Kind::Gauge => metrics::describe_gauge!(*name, *text),
            Kind::Histogram => metrics::describe_histogram!(*name, *text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_with_its_description() {
        let metrics = Metrics::of_process();
        metrics::counter!(name::EVENTS, "source" => "manus", "outcome" => "accepted").increment(2);
        metrics::histogram!(name::COMMIT_SECONDS).record(0.002);
        let text = Metrics::of_process().render();
        assert_eq!(text, metrics.render());
        assert!(text.contains("# HELP taskhook_events_total Events kept"), "{text}");
        assert!(text.contains(r#"taskhook_events_total{source="manus",outcome="accepted"} "#), "{text}");
        assert!(text.contains(r#"taskhook_commit_seconds_bucket{le="0.0025"} "#), "{text}");
    }
}
