//! What is planned at a simulator, and what is on its way.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::record::{Call, Delivery, Ring};

/// The most calls, and the most deliveries, that are remembered.
const MAX_RECORDS: usize = 10_000;

/// What is planned, and what happened.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) calls: Ring<Call>,
    pub(super) deliveries: Ring<Delivery>,
    /// Batches of webhook requests that are on their way.
    pub(super) in_flight: usize,
    pub(super) due: BTreeSet<(Timestamp, u64)>,
    due_of: HashMap<u64, Timestamp>,
    /// Of each task: ends when the events before have been sent, since one task's events leave in order.
    lanes: HashMap<u64, oneshot::Receiver<()>>,
}

/// One request to send.
#[derive(Debug)]
pub(super) struct Outgoing<E> {
    pub(super) url: String,
    pub(super) event: E,
}

/// Requests that are sent one after the other, once those before them in the lane have been.
#[derive(Debug)]
pub(super) struct Batch<E> {
    pub(super) before: Option<oneshot::Receiver<()>>,
    pub(super) sent: oneshot::Sender<()>,
    pub(super) requests: Vec<Outgoing<E>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            calls: Ring::new(MAX_RECORDS),
            deliveries: Ring::new(MAX_RECORDS),
            in_flight: 0,
            due: BTreeSet::new(),
            due_of: HashMap::new(),
            lanes: HashMap::new(),
        }
    }

    /// Says when a task's next step is due, on the clock without faults.
    pub(super) fn schedule(&mut self, number: u64, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.due_of.insert(number, at),
            None => self.due_of.remove(&number),
        };
        if let Some(before) = before {
            self.due.remove(&(before, number));
        }
        self.due.extend(at.map(|at| (at, number)));
    }

    /// Forgets a task that is gone.
    pub(super) fn forget(&mut self, number: u64) {
        self.schedule(number, None);
        self.lanes.remove(&number);
    }

    /// The task whose next step comes first, and when.
    pub(super) fn next_due(&self) -> Option<(Timestamp, u64)> {
        self.due.first().copied()
    }

    /// Puts requests into a task's lane.
    pub(super) fn batch<E>(&mut self, number: Option<u64>, requests: Vec<Outgoing<E>>) -> Option<Batch<E>> {
        if requests.is_empty() {
            return None;
        }
        let (sent, ended) = oneshot::channel();
        let before = number.and_then(|number| self.lanes.insert(number, ended));
        Some(Batch { before, sent, requests })
    }
}
