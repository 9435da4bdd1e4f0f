//! What tasks cost, by source and day.
//!
//! A provider tells what a task has cost so far. What is new of that is added up in the transaction that keeps the fetched task, so the
//! same answer twice counts once.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};

use super::{Error, Store, forward};
use crate::setting::Zone;
use crate::task::Task;

/// Seconds in a quarter of an hour.
const QUARTER: i64 = 900;

/// What the tasks of a source cost on a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// The day, in the time zone that was asked for.
    pub day: Date,
    /// The source.
    pub source: String,
    /// The credits.
    pub credits: f64,
}

impl Store {
    /// What was spent on each of the last `days` days, today included, by `source` or by all: the newest day first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn spent(&self, source: Option<&str>, days: u16, zone: &Zone, now: Timestamp) -> Result<Vec<Spent>, Error> {
        let first = zone.day(now).saturating_sub((i64::from(days) - 1).max(0).days());
        let mut by_day: BTreeMap<(Date, String), f64> = BTreeMap::new();
        for (source, at, credits) in self.spending(source, zone.begin(first)).await? {
            *by_day.entry((zone.day(at), source)).or_default() += credits;
        }
        Ok(by_day.into_iter().rev().map(|((day, source), credits)| Spent { day, source, credits }).collect())
    }

    /// What was spent from `from` on, in quarters of an hour.
    async fn spending(&self, source: Option<&str>, from: Timestamp) -> Result<Vec<(String, Timestamp, f64)>, Error> {
        forward!(self.spending(source, from))
    }

    /// What was spent at all, by source.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn spent_ever(&self) -> Result<Vec<(String, f64)>, Error> {
        forward!(self.spent_ever())
    }
}

/// The quarter of an hour that what is new of a task's credits counts in: that of its last change, and of `now` where it does not tell,
/// or tells a time to come.
pub(super) fn counts_at(task: &Task, now: Timestamp) -> Timestamp {
    let at = task.updated_at.map_or(now, |at| at.min(now)).as_second();
    Timestamp::from_second(at - at.rem_euclid(QUARTER)).unwrap_or(now)
}
