//! Spans that have ended and wait to be sent: bounded in number and in bytes, and never waited for.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::metric::name;

/// The most spans that wait.
const SPANS: usize = 16_384;
/// The most bytes of them, as they are sent.
const BYTES: usize = 8 << 20;

/// The end where spans come in; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    to: Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// A span that waits, and its place.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) span: Span,
    pub(super) place: OwnedSemaphorePermit,
    /// Since when, by the clock's running time.
    pub(super) since: Duration,
}

impl Queue {
    pub(super) fn new() -> (Self, Receiver<Waiting>) {
        let (to, from) = channel(SPANS);
        (Self { to, room: Arc::new(Semaphore::new(BYTES)) }, from)
    }

    /// Takes `span`, `now` by the clock's running time; or counts it as dropped.
    pub(super) fn push(&self, span: Span, now: Duration) {
        let bytes = u32::try_from(span.encoded_len()).unwrap_or(u32::MAX);
        let Ok(place) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return count("queue_full", 1) };
        match self.to.try_send(Waiting { span, place, since: now }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => count("queue_full", 1),
            Err(TrySendError::Closed(_)) => count("stopped", 1),
        }
    }
}

/// Counts what became of spans.
pub(super) fn count(outcome: &'static str, spans: usize) {
    if spans > 0 {
        metrics::counter!(name::TRACE_SPANS, "outcome" => outcome).increment(spans as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_left_out_and_room_comes_back() {
        let (queue, mut from) = Queue::new();
        let large = || Span { name: "x".repeat(BYTES / 2), ..Span::default() };
        queue.push(large(), Duration::ZERO);
        queue.push(large(), Duration::ZERO);
        queue.push(Span::default(), Duration::ZERO);
        let first = from.try_recv().unwrap();
        assert_eq!(first.span.name.len(), BYTES / 2);
        assert_eq!(from.try_recv().unwrap().span, Span::default());
        assert!(from.try_recv().is_err(), "the second has no room");
        drop(first);
        queue.push(large(), Duration::ZERO);
        assert!(from.try_recv().is_ok());
        (0..SPANS + 10).for_each(|_| queue.push(Span::default(), Duration::ZERO));
        assert_eq!(std::iter::from_fn(|| from.try_recv().ok()).count(), SPANS);
    }
}
