//! Stand-ins for providers, which speak their real HTTP: for tests, for `taskhook demo`, and for `taskhook simulate`.
//!
//! What must hold: a simulator is what the rest of the program is held against, so it shares no code with [`crate::provider`]: it
//! is written from the provider's documentation alone, and is stricter than the real service where that finds mistakes of ours. It
//! listens where its caller says, stops when its caller says, runs on its caller's [`Clock`](crate::clock::Clock), and leaves no
//! task behind. Everything it keeps is bounded: the oldest goes first. It trusts its caller and checks nothing about where it
//! sends: it is no service to put on the open internet.

pub mod manus;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The newest of what happened, up to a limit.
#[derive(Debug)]
struct Ring<T> {
    items: VecDeque<T>,
    most: usize,
}

impl<T: Clone> Ring<T> {
    fn new(most: usize) -> Self {
        Self { items: VecDeque::new(), most }
    }

    fn push(&mut self, item: T) {
        if self.items.len() == self.most {
            self.items.pop_front();
        }
        self.items.push_back(item);
    }

    fn to_vec(&self) -> Vec<T> {
        self.items.iter().cloned().collect()
    }
}

/// How often a fault still strikes. In JSON: a number, or `true` for always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Written", into = "Written")]
pub enum Times {
    /// The next so many times; 0 is never.
    Next(u32),
    /// Until it is taken away.
    Always,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Count(u32),
    Switch(bool),
}

impl Times {
    /// Never.
    pub const NEVER: Self = Self::Next(0);

    /// Whether it strikes now; counts down if so.
    fn strikes(&mut self) -> bool {
        match self {
            Self::Always => true,
            Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::NEVER
    }
}

impl From<Written> for Times {
    fn from(written: Written) -> Self {
        match written {
            Written::Count(count) => Self::Next(count),
            Written::Switch(true) => Self::Always,
            Written::Switch(false) => Self::NEVER,
        }
    }
}

impl From<Times> for Written {
    fn from(times: Times) -> Self {
        match times {
            Times::Next(count) => Self::Count(count),
            Times::Always => Self::Switch(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let mut twice: Times = serde_json::from_str("2").unwrap();
        assert_eq!([twice.strikes(), twice.strikes(), twice.strikes()], [true, true, false]);
        let mut always: Times = serde_json::from_str("true").unwrap();
        assert!((0..10).all(|_| always.strikes()));
        assert_eq!(serde_json::to_string(&[Times::Always, Times::NEVER]).unwrap(), "[true,0]");
    }

    #[test]
    fn a_ring_forgets_the_oldest() {
        let mut ring = Ring::new(2);
        (0..5).for_each(|n| ring.push(n));
        assert_eq!(ring.to_vec(), [3, 4]);
    }
}
