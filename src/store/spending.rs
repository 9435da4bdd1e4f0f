//! What tasks cost and used, by source and day.
//!
//! A provider tells what a task has cost so far. What is new of that, or was given back, is added up in the transaction that keeps the
//! fetched task. So the same answer twice counts once, and the sums are those of what each task was told to have cost last.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};

use super::{Error, Store, forward};
use crate::setting::Zone;
use crate::task::Task;

/// Seconds in a quarter of an hour.
const QUARTER: i64 = 900;

/// More tokens of one task than this are nonsense, and would make sums that no column holds.
const MOST_TOKENS: i64 = 1_000_000_000_000;

/// What tasks cost and used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amounts {
    /// The provider's credits.
    pub credits: f64,
    /// Tokens read.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
    /// Seconds of computing.
    pub compute_seconds: f64,
    /// US dollars.
    pub cost_usd: f64,
}

impl AddAssign for Amounts {
    fn add_assign(&mut self, more: Self) {
        self.credits += more.credits;
        self.input_tokens = self.input_tokens.saturating_add(more.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(more.output_tokens);
        self.compute_seconds += more.compute_seconds;
        self.cost_usd += more.cost_usd;
    }
}

/// What the tasks of a source cost and used on a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// The day, in the time zone that was asked for.
    pub day: Date,
    /// The source.
    pub source: String,
    /// How much.
    pub amounts: Amounts,
}

impl Store {
    /// What was spent on each of the last `days` days, today included, by `source` or by all: the newest day first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn spent(&self, source: Option<&str>, days: u16, zone: &Zone, now: Timestamp) -> Result<Vec<Spent>, Error> {
        let first = zone.day(now).saturating_sub((i64::from(days) - 1).max(0).days());
        let mut by_day: BTreeMap<(Date, String), Amounts> = BTreeMap::new();
        for (source, at, amounts) in self.spending(source, zone.begin(first)).await? {
            *by_day.entry((zone.day(at), source)).or_default() += amounts;
        }
        Ok(by_day.into_iter().rev().map(|((day, source), amounts)| Spent { day, source, amounts }).collect())
    }

    /// What was spent from `from` on, in quarters of an hour.
    pub(super) async fn spending(
        &self,
        source: Option<&str>,
        from: Timestamp,
    ) -> Result<Vec<(String, Timestamp, Amounts)>, Error> {
        forward!(self.spending(source, from))
    }

    /// What was spent at all, by source.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn spent_ever(&self) -> Result<Vec<(String, Amounts)>, Error> {
        forward!(self.spent_ever())
    }
}

/// Whether a task tells anything of what it cost.
pub(super) fn tells(task: &Task) -> bool {
    let usage = &task.usage;
    let tokens = usage.input_tokens.or(usage.output_tokens);
    tokens.is_some() || task.credits.or(usage.compute_seconds).or(usage.cost_usd).is_some()
}

/// A number of tokens, as columns take it: at most [`MOST_TOKENS`].
pub(super) fn tokens(told: Option<u64>) -> Option<i64> {
    told.map(|tokens| i64::try_from(tokens).unwrap_or(MOST_TOKENS).min(MOST_TOKENS))
}

/// The quarter of an hour that what is new of a task's cost counts in: that of its last change, and of `now` where it does not tell,
/// or tells a time to come.
pub(super) fn counts_at(task: &Task, now: Timestamp) -> Timestamp {
    quarter(task.updated_at.map_or(now, |at| at.min(now)))
}

/// When the quarter of an hour began that `at` is in.
pub(super) fn quarter(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(QUARTER)).unwrap_or(at)
}
