//! How much there is of what, by source: for metrics, and for whoever asks how things stand.
//!
//! What must hold: it is asked for again and again, so of what grows no more is looked at than the newest.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::spending::Amounts;
use super::{Error, Store, forward};

/// The most of the newest events that are counted.
pub const COUNTED: i64 = super::series::BACK;

/// How things stand with a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Its name.
    pub source: String,
    /// When its newest webhook came, as far as that is among the newest events of all.
    pub last_webhook_at: Option<Timestamp>,
    /// Its tasks that have not ended, as far as is known.
    pub open: i64,
    /// Those of them that wait for an answer.
    pub waiting: i64,
}

impl Store {
    /// How things stand with each source that there is anything of, by name.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn source_counts(&self) -> Result<Vec<SourceCounts>, Error> {
        forward!(self.source_counts())
    }

    /// How many events of each source were accepted since `since`, as far as they are among the newest [`COUNTED`], by name.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn accepted(&self, since: Timestamp, now: Timestamp) -> Result<Vec<(String, i64)>, Error> {
        forward!(self.accepted(since, now))
    }

    /// What the tasks of each source cost and used since the quarter of an hour began that `since` is in.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn spent_since(&self, since: Timestamp) -> Result<Vec<(String, Amounts)>, Error> {
        let mut sums: BTreeMap<String, Amounts> = BTreeMap::new();
        for (source, _, amounts) in self.spending(None, super::spending::quarter(since)).await? {
            *sums.entry(source).or_default() += amounts;
        }
        Ok(sums.into_iter().collect())
    }
}
