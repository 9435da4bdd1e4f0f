//! Samples: what was done in each minute and in each hour, for charts.
//!
//! What must hold:
//! - A span has one row at most, whoever takes it and however often it is asked for; of replicas, the first makes it. One that nobody
//!   was there for has none: a gap is shown as a gap.
//! - All of it is read from the store, so it goes on behind a restart and is true over replicas. What is read are rows since the sample
//!   before, found by an index or from the newest on, in several short reads; only what waits is counted as a whole.
//! - Time that goes back makes no second row: what was sampled stays, until time has caught up with it.

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{Error, Store, forward};
use crate::clock::rfc3339;
use crate::task::plain;

/// How long after its end a minute is sampled: what was being written then is there.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);
/// A row that is so far ahead was made by a clock that was wrong.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);
/// The most deliveries of a span whose times are read; of more, as many that are spread over all.
const TIMES: i64 = 5_000;
/// A prime: what is left of a division by it says which deliveries are read. No number of destinations that take turns has it in common.
pub(super) const SPREAD: i64 = 10_007;
/// The most events that are gone through from the newest on to find where a minute begins or ends.
pub(super) const BACK: i64 = 100_000;

/// How much time a sample tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A minute; kept for two days.
    Minute,
    /// An hour; kept for 62 days.
    Hour,
}

impl Span {
    /// Its length, in seconds.
    #[must_use]
    pub fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    /// How long its samples are kept.
    #[must_use]
    pub fn kept(self) -> SignedDuration {
        match self {
            Self::Minute => SignedDuration::from_hours(2 * 24),
            Self::Hour => SignedDuration::from_hours(62 * 24),
        }
    }

    /// When the one began that `at` is in.
    #[must_use]
    pub fn begin(self, at: Timestamp) -> Timestamp {
        let second = at.as_second();
        Timestamp::from_second(second - second.rem_euclid(self.seconds())).unwrap_or(Timestamp::MIN)
    }

    /// When the one ends that begins at `begin`.
    fn end(self, begin: Timestamp) -> Timestamp {
        begin.checked_add(SignedDuration::from_secs(self.seconds())).unwrap_or(Timestamp::MAX)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(self.seconds())
    }
}

/// What was done in a minute or an hour.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Sample {
    /// When it began.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// How long it was, in seconds.
    #[schema(value_type = i64)]
    pub span: Span,
    /// Events that were accepted, whoever told them: webhooks, the provider's API, or taskhook itself.
    pub events: i64,
    /// Requests that did not verify, as far as they were kept. Only a source's first five in a second are, and of one source and code
    /// the newest 200: of a flood this tells that it was, and not how large. `taskhook_rejections_total` counts all of them, in each
    /// process.
    pub rejections: i64,
    /// Stops of tasks that no webhook told, and that were found.
    pub recovered: i64,
    /// Deliveries that arrived.
    pub delivered: i64,
    /// Attempts at deliveries that failed, or whose outcome is unknown.
    pub failed: i64,
    /// Dead letters at its end: events and deliveries that were given up on.
    pub dead: i64,
    /// Jobs of all kinds that were not done at its end; an event that no job is made of yet is one.
    pub backlog: i64,
    /// How long the oldest job that could have been done at its end had been due, in seconds; 0 if there was none. What is for a paused
    /// destination does not count.
    pub oldest_seconds: i64,
    /// From the acceptance of an event to its arrival, in milliseconds: half of those that arrived took no longer. Replays do not count.
    pub median_ms: Option<i64>,
    /// The same for 95 of 100.
    pub p95_ms: Option<i64>,
    /// Credits that tasks were seen to have cost; less than 0 where more was given back.
    #[serde(serialize_with = "as_plain")]
    pub credits: f64,
}

fn as_text<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*at))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn as_plain<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    plain(*number).serialize(to)
}

/// What a minute's row keeps for the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mark {
    /// When the minute began.
    pub(super) at: Timestamp,
    /// The newest event that it counts.
    pub(super) newest: i64,
    /// What tasks had cost at all.
    pub(super) credits: f64,
}

/// What was counted of a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// The newest event that was accepted before its end.
    pub(super) newest: i64,
    pub(super) events: i64,
    pub(super) rejections: i64,
    pub(super) recovered: i64,
    pub(super) delivered: i64,
    pub(super) failed: i64,
    /// What tasks have cost at all.
    pub(super) credits: f64,
}

/// The job of a kind that has been due longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The kind.
    pub kind: String,
    /// Since when.
    pub since: Timestamp,
}

/// What is not done now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Undone {
    pub(super) dead: i64,
    pub(super) backlog: i64,
}

impl Store {
    /// The samples of all spans of this length that began at `since` or later, the oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn series(&self, span: Span, since: Timestamp) -> Result<Vec<Sample>, Error> {
        self.samples(span, since, Timestamp::MAX).await
    }

    /// Those before `until`.
    async fn samples(&self, span: Span, since: Timestamp, until: Timestamp) -> Result<Vec<Sample>, Error> {
        forward!(self.samples(span, since, until))
    }

    /// Takes the sample of the minute that ended last, five seconds ago at least, and that of its hour where that has ended; forgets
    /// those that are too old. False where somebody has taken it.
    ///
    /// # Errors
    /// When the store could not be read, or the commit failed: then it may be tried again as long as the next minute has not ended.
    pub async fn sample(&self, now: Timestamp) -> Result<bool, Error> {
        let settled = now.checked_sub(SETTLED).unwrap_or(Timestamp::MIN);
        let end = Span::Minute.begin(settled);
        let begin = Span::Minute.begin(end.checked_sub(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MIN));
        let last = self.mark(begin).await?;
        if last.is_some_and(|last| last.at == begin) {
            return Ok(false);
        }
        let next_to = last.filter(|last| Span::Minute.end(last.at) == begin);
        let counted = self.count(begin, end, next_to.map(|last| last.newest), now).await?;
        let undone = self.undone().await?;
        let oldest = self.due(end).await?.iter().map(|due| due.since).min();
        let mut times = self.times(begin, end, share(counted.delivered)).await?;
        let sample = Sample {
            at: begin,
            span: Span::Minute,
            events: counted.events,
            rejections: counted.rejections,
            recovered: counted.recovered,
            delivered: counted.delivered,
            failed: counted.failed,
            dead: undone.dead,
            backlog: undone.backlog,
            oldest_seconds: oldest.map_or(0, |since| end.duration_since(since).as_secs().max(0)),
            median_ms: percentile(&mut times, 50),
            p95_ms: percentile(&mut times, 95),
            credits: last.map_or(0.0, |last| cents(counted.credits - last.credits)),
        };
        let hour = Span::Hour.begin(begin);
        // Its minutes may be too old by now, and go with the next that is kept.
        if let Some(before) = last.map(|last| Span::Hour.begin(last.at)).filter(|before| *before != hour) {
            self.sample_hour(before, now).await?;
        }
        let mark = Mark { at: begin, newest: counted.newest, credits: counted.credits };
        let kept = self.keep_sample(sample, Some(mark), now).await?;
        if kept && Span::Hour.end(hour) <= end {
            self.sample_hour(hour, now).await?;
        }
        Ok(kept)
    }

    /// When a minute can be sampled next after `now`.
    #[must_use]
    pub fn sampled_at(now: Timestamp) -> Timestamp {
        let settled = now.checked_sub(SETTLED).unwrap_or(Timestamp::MIN);
        let end = Span::Minute.end(Span::Minute.begin(settled));
        end.checked_add(SETTLED).unwrap_or(Timestamp::MAX)
    }

    /// Puts the minutes of an hour together, unless somebody has.
    async fn sample_hour(&self, hour: Timestamp, now: Timestamp) -> Result<(), Error> {
        let end = Span::Hour.end(hour);
        if !self.samples(Span::Hour, hour, end).await?.is_empty() {
            return Ok(());
        }
        let minutes = self.samples(Span::Minute, hour, end).await?;
        let Some(last) = minutes.last() else { return Ok(()) };
        let sum = |number: fn(&Sample) -> i64| minutes.iter().map(number).fold(0, i64::saturating_add);
        let delivered = sum(|minute| minute.delivered);
        let mut times = Vec::new();
        // Minute by minute, so that no read is long.
        for minute in minutes.iter().filter(|minute| minute.delivered > 0) {
            times.extend(self.times(minute.at, Span::Minute.end(minute.at), share(delivered)).await?);
        }
        let sample = Sample {
            at: hour,
            span: Span::Hour,
            events: sum(|minute| minute.events),
            rejections: sum(|minute| minute.rejections),
            recovered: sum(|minute| minute.recovered),
            delivered,
            failed: sum(|minute| minute.failed),
            median_ms: percentile(&mut times, 50),
            p95_ms: percentile(&mut times, 95),
            credits: cents(minutes.iter().map(|minute| minute.credits).sum()),
            ..last.clone()
        };
        self.keep_sample(sample, None, now).await.map(drop)
    }

    /// Of each kind of job the one that has been due longest at `now`. What is for a paused destination does not count.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn due(&self, now: Timestamp) -> Result<Vec<Due>, Error> {
        forward!(self.due(now))
    }

    /// The last minute that was sampled, up to the one that begins at `begin`.
    async fn mark(&self, begin: Timestamp) -> Result<Option<Mark>, Error> {
        forward!(self.mark(begin))
    }

    /// Counts what was done from `begin` until `end`; `since` is the newest event before that, where it is known.
    async fn count(&self, begin: Timestamp, end: Timestamp, since: Option<i64>, now: Timestamp) -> Result<Counts, Error> {
        forward!(self.count(begin, end, since, now))
    }

    async fn undone(&self) -> Result<Undone, Error> {
        forward!(self.undone())
    }

    /// How many milliseconds passed from the acceptance to the arrival of what arrived from `begin` until `end`: of so many in
    /// [`SPREAD`].
    async fn times(&self, begin: Timestamp, end: Timestamp, share: i64) -> Result<Vec<i64>, Error> {
        forward!(self.times(begin, end, share))
    }

    /// Keeps a sample, unless there is one of its span; and forgets those of its kind that are too old, or of times to come.
    async fn keep_sample(&self, sample: Sample, mark: Option<Mark>, now: Timestamp) -> Result<bool, Error> {
        let before = now.checked_sub(sample.span.kept()).unwrap_or(Timestamp::MIN);
        let after = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        forward!(self.keep_sample(sample, mark, before, after))
    }
}

/// The share of so many deliveries whose times are read, of [`SPREAD`].
fn share(delivered: i64) -> i64 {
    (SPREAD * TIMES / delivered.max(TIMES)).max(1)
}

/// The time that so many of a hundred took at most.
fn percentile(times: &mut [i64], percent: usize) -> Option<i64> {
    let rank = (times.len() * percent).div_ceil(100).checked_sub(1)?;
    Some(*times.select_nth_unstable(rank).1)
}

/// A sum of what is told in decimals, without what binary fractions add to it.
fn cents(sum: f64) -> f64 {
    (sum * 1e6).round() / 1e6
}

/// Milliseconds between two times; none if a clock went back.
pub(super) fn lasted(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.duration_since(from).as_millis()).unwrap_or(i64::MAX).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        assert_eq!(percentile(&mut [], 50), None);
        assert_eq!(percentile(&mut [7], 95), Some(7));
        let mut times: Vec<i64> = (1..=100).rev().collect();
        assert_eq!((percentile(&mut times, 50), percentile(&mut times, 95)), (Some(50), Some(95)));
        assert_eq!(percentile(&mut [3, 1], 50), Some(1));
    }

    #[test]
    fn of_many_deliveries_a_share_is_read_that_is_spread_over_all() {
        assert_eq!([0, 1, TIMES].map(share), [SPREAD; 3]);
        assert_eq!((share(2 * TIMES), share(i64::MAX / SPREAD)), (SPREAD / 2, 1));
        // As many of each of four destinations that take turns.
        let read = |seq: &i64| (seq * 7919) % SPREAD < share(40_000);
        let counts = [0, 1, 2, 3].map(|rest| (1..=40_000_i64).filter(read).filter(|seq| seq % 4 == rest).count());
        assert!(counts.iter().all(|count| (1200..1300).contains(count)), "{counts:?}");
    }

    #[test]
    fn spans_begin_on_the_clock() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(Span::Minute.begin(at("2026-01-15T12:34:56.789Z")), at("2026-01-15T12:34:00Z"));
        assert_eq!(Span::Hour.begin(at("2026-01-15T12:34:56.789Z")), at("2026-01-15T12:00:00Z"));
        assert_eq!(Span::Hour.begin(at("1969-12-31T23:59:59Z")), at("1969-12-31T23:00:00Z"));
        for extreme in [Timestamp::MIN, Timestamp::MAX] {
            assert!(Span::Hour.begin(extreme) <= extreme);
            Span::Hour.end(extreme);
        }
    }
}
