//! Which part of a list is read.
//!
//! Rows have places: numbers in the order in which they were made. Their times are in almost the same order, so a time range is found
//! by looking for its ends among the places, and needs no index of its own. Almost: what came at once is kept in any order, replicas'
//! clocks differ, and a clock may be set back.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock;

/// So many places may what came at the same time be apart,
const NEAR: i64 = 5_000;
/// and so much the times of rows that stand side by side.
const SKEW: Duration = Duration::from_mins(10);

/// A list's limits.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most this many rows.
    pub limit: usize,
    /// Rows older than this one; where the oldest come first, newer ones.
    pub cursor: Option<i64>,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Listed<T> {
    /// The rows, newest first; oldest first where those after a cursor were asked for.
    pub data: Vec<T>,
    /// What to ask for next; `null` at the end. Where the oldest come first there is no end.
    pub next_cursor: Option<String>,
}

/// The places that a page is read from, and in which order.
#[derive(Clone, Debug)]
pub(in crate::store) struct Span {
    /// Only places behind this one.
    pub(in crate::store) above: i64,
    /// Only places before this one.
    pub(in crate::store) below: i64,
    /// How many rows a page has.
    pub(in crate::store) limit: usize,
    /// Where the oldest come first: up to which place nothing more can come.
    pub(in crate::store) settled: Option<i64>,
}

impl<T> Listed<T> {
    /// All rows that there are.
    #[must_use]
    pub fn whole(data: Vec<T>) -> Self {
        Self { data, next_cursor: None }
    }
}

impl Span {
    /// The newest first.
    pub(in crate::store) fn back(page: &Page) -> Self {
        Self { above: -1, below: page.cursor.unwrap_or(i64::MAX), limit: page.limit, settled: None }
    }

    /// The oldest first, up to the place `settled`: no row is made any more that stands before it.
    pub(in crate::store) fn forth(page: &Page, settled: i64) -> Self {
        let below = settled.saturating_add(1);
        Self { above: page.cursor.unwrap_or(-1), below, limit: page.limit, settled: Some(settled) }
    }

    /// Whether the oldest come first.
    pub(in crate::store) fn is_forth(&self) -> bool {
        self.settled.is_some()
    }

    /// How many rows are read: one more than a page has tells that there are more.
    pub(in crate::store) fn rows(&self) -> usize {
        self.limit + 1
    }

    /// Leaves out what is older than `since`. `first` says of a time which row is the first that is not older, by its place.
    pub(in crate::store) fn begin(&mut self, [early, exact]: [i64; 2]) {
        self.above = self.above.max(early.max(exact - NEAR) - 1);
    }

    /// Leaves out what is not older than `until`.
    pub(in crate::store) fn end(&mut self, [exact, late]: [i64; 2]) {
        self.below = self.below.min(late.min(exact.saturating_add(NEAR)));
    }

    /// The times whose places [`begin`](Self::begin) takes.
    pub(in crate::store) fn beginning(since: Timestamp) -> [Timestamp; 2] {
        [clock::before(since, SKEW), since]
    }

    /// The times whose places [`end`](Self::end) takes.
    pub(in crate::store) fn ending(until: Timestamp) -> [Timestamp; 2] {
        [until, clock::after(until, SKEW)]
    }

    /// Puts `places` into order, and leaves those out that are not in it.
    pub(in crate::store) fn sort(&self, places: &mut Vec<i64>) {
        places.retain(|place| (self.above + 1..self.below).contains(place));
        places.sort_unstable();
        places.dedup();
        if !self.is_forth() {
            places.reverse();
        }
    }

    /// The page of `rows`, of which one more than it has may be there.
    pub(in crate::store) fn page<T>(&self, rows: Vec<(i64, T)>) -> Listed<T> {
        self.page_up_to(rows, None)
    }

    /// The same of rows that were looked for up to the place `end`, and not beyond.
    pub(in crate::store) fn page_up_to<T>(&self, mut rows: Vec<(i64, T)>, end: Option<i64>) -> Listed<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let last = rows.last().map(|(place, _)| *place);
        let next = if more { last } else { end.or(self.settled) };
        Listed { data: rows.into_iter().map(|(_, row)| row).collect(), next_cursor: next.map(|place| place.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_range_is_widened_by_what_may_stand_out_of_order_and_no_more() {
        let whole = Span::back(&Page { limit: 9, cursor: None });
        let mut span = whole.clone();
        // Few rows came in ten minutes: by time. Many did: by their number.
        span.begin([900, 1000]);
        span.end([2000, 2100]);
        assert_eq!((span.above, span.below), (899, 2100));
        let mut span = whole;
        span.begin([1000, 90_000]);
        span.end([100_000, 190_000]);
        assert_eq!((span.above, span.below), (84_999, 105_000));
        let mut places = vec![84_999, 85_000, 104_999, 105_000, 85_000];
        span.sort(&mut places);
        assert_eq!(places, [104_999, 85_000]);
    }

    #[test]
    fn who_reads_on_is_always_told_where() {
        let page = Page { limit: 2, cursor: Some(5) };
        let rows = |places: &[i64]| places.iter().map(|place| (*place, ())).collect::<Vec<_>>();
        let next = |span: &Span, places: &[i64]| span.page(rows(places)).next_cursor;
        let back = Span::back(&page);
        assert_eq!((next(&back, &[4, 3, 2]).as_deref(), next(&back, &[4, 3])), (Some("3"), None));
        let forth = Span::forth(&page, 9);
        assert_eq!((next(&forth, &[6, 7, 8]).as_deref(), next(&forth, &[6]).as_deref()), (Some("7"), Some("9")));
        assert_eq!(forth.page_up_to(rows(&[6]), Some(7)).next_cursor.as_deref(), Some("7"));
    }
}
