//! How long answers took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// The longest time that is told apart: an hour.
const MOST: u64 = 3_600_000_000;

/// What is told of latencies: the name, and the part of all that took no longer.
pub(super) const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Latencies in microseconds, with three digits each.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MOST, 3).expect("the bounds are in order"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// What this part of all did not exceed.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(part))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// Their mean, in milliseconds.
    pub(super) fn mean(&self) -> f64 {
        self.0.mean() / 1e3
    }

    /// All of [`PERCENTILES`] and the longest, in milliseconds, and how many there are.
    pub(super) fn json(&self) -> Value {
        let mut members: Map<String, Value> = PERCENTILES
            .iter()
            .map(|(name, part)| (format!("{}_ms", name.replace('.', "_")), json!(millis(self.quantile(*part)))))
            .collect();
        members.insert("max_ms".to_owned(), json!(millis(self.max())));
        members.insert("count".to_owned(), self.0.len().into());
        Value::Object(members)
    }
}

/// In milliseconds, to the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
