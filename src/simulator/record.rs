//! What happened at a simulator: the calls it answered, and the webhook requests it sent.

use std::collections::VecDeque;

use serde::Serialize;

/// The newest of what happened, up to a limit.
#[derive(Debug)]
pub(super) struct Ring<T> {
    items: VecDeque<T>,
    most: usize,
}

impl<T: Clone> Ring<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { items: VecDeque::new(), most }
    }

    pub(super) fn push(&mut self, item: T) {
        if self.items.len() == self.most {
            self.items.pop_front();
        }
        self.items.push_back(item);
    }

    pub(super) fn to_vec(&self) -> Vec<T> {
        self.items.iter().cloned().collect()
    }
}

/// An API call that was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, empty if there is none.
    pub query: String,
    /// The status that it was answered with.
    pub status: u16,
    /// The label of the account whose key it bore, such as `account-1`; `None` without a key that is known.
    pub account: Option<String>,
}

/// A webhook request that was sent, or kept back by a fault.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// The webhook's URL.
    pub url: String,
    /// The event's id; empty where the provider gives none.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The task.
    pub task_id: String,
    /// Which try it is, from 1; 0 if a fault dropped the event.
    pub attempt: u32,
    /// The status that it was answered with.
    pub status: Option<u16>,
    /// The beginning of what it was answered with.
    pub answer: String,
    /// How long the answer took, in milliseconds.
    pub took_ms: f64,
    /// Why there was no answer.
    pub error: Option<String>,
}

impl Delivery {
    /// One that has not been sent yet.
    pub(super) fn new(url: &str, event_id: &str, event_type: &str, task_id: &str, attempt: u32) -> Self {
        Self {
            url: url.to_owned(),
            event_id: event_id.to_owned(),
            event_type: event_type.to_owned(),
            task_id: task_id.to_owned(),
            attempt,
            status: None,
            answer: String::new(),
            took_ms: 0.0,
            error: None,
        }
    }

    /// Whether it was answered 2xx.
    #[must_use]
    pub fn delivered(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// What happened, as it happens.
#[derive(Clone, Debug)]
pub enum Happening {
    /// An API call was answered.
    Called(Call),
    /// A webhook request was sent.
    Sent(Delivery),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_forgets_the_oldest() {
        let mut ring = Ring::new(2);
        (0..5).for_each(|n| ring.push(n));
        assert_eq!(ring.to_vec(), [3, 4]);
    }
}
