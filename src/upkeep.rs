//! Upkeep: what is done with goes from the store and the archive, by age and by size; and what nobody let out of quarantine.
//!
//! What must hold:
//! - Nothing that is not done with goes, and nothing younger than [`LEAST`]: as long as an event is kept, a repeat of it is known. Events in
//!   quarantine go by age and number, so that strangers cannot fill the store; a repeat of them stays known.
//! - It disturbs nobody: a step is one short transaction of a few rows, events go before it, and between two steps it rests.
//! - A pass can be cut off anywhere; the next one goes on.
//!
//! Beside, every minute is sampled for charts, by one of the replicas.

use std::time::Duration;

use jiff::Timestamp;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::action::erase::{clear, delete_unwanted};
use crate::archive::Archive;
use crate::clock::{self, Clock};
use crate::setting::Size;
use crate::store::upkeep::{Candidates, Removed, Space};
use crate::store::{self, Store};
use crate::telemetry::{Health, name};

/// The least time that an event is kept: so long a repeat is known, whatever the size of the store.
pub const LEAST: Duration = Duration::from_hours(4 * 24);
/// The least time that an event stays in quarantine.
const LEAST_QUARANTINE: Duration = Duration::from_hours(1);
/// How often there is a pass.
const EVERY: Duration = Duration::from_mins(1);
/// How long after a failure a minute is sampled again.
const AGAIN: Duration = Duration::from_secs(15);
/// How often a pass begins at the oldest event again: what was not done with then may be by now.
const ANEW: Duration = Duration::from_hours(1);
/// The least time that it is remembered which stops were told of: longer than their events, and than any `reconcile.horizon`.
const STOPS: Duration = Duration::from_hours(60 * 24);
/// How long it rests between two steps.
const REST: Duration = Duration::from_millis(10);
/// The most events of one step, and about the most bytes.
const STEP: (usize, u64) = (32, 256 << 10);
/// Free pages that are given back in one step.
const PAGES: u32 = 64;
/// Below this many free bytes, and below a fifth of the file, none are given back: they are used again. Once begun, a tenth stays.
const SPARE: u64 = 16 << 20;
/// The part whose health this is.
const PART: &str = "retention";

/// `[retention]`: how long what is done with is kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long events are kept.
    pub events: Keep,
    /// The most bytes of the store; events that are done with go before their time, the oldest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,
    /// How long events stay in quarantine.
    pub quarantine: Keep,
    /// The most events in quarantine; of more, the oldest go.
    pub quarantine_events: usize,
}

/// How long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So long.
    For(Duration),
    /// For ever.
    Forever,
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::For(duration) => humantime_serde::serialize(duration, to),
            Self::Forever => to.serialize_str("forever"),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let duration = humantime_serde::re::humantime::parse_duration(&text);
        duration.map(Self::For).map_err(|_| D::Error::custom("must be a duration such as \"30d\", or \"forever\""))
    }
}

impl Config {
    /// Checks what the types do not: all that is wrong, each the key in `[retention]` and the reason.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if matches!(self.events, Keep::For(duration) if duration < LEAST) {
            let reason = "must be at least 4 days (\"4d\"): a repeat of an event is known only as long as the event is kept, and senders \
                          repeat for days";
            wrong.push(("events", reason.to_owned()));
        }
        if self.max_bytes.is_some_and(|most| most.0 == 0) {
            wrong.push(("max_bytes", "must be more than 0; leave it out for no limit".to_owned()));
        }
        if matches!(self.quarantine, Keep::For(duration) if duration < LEAST_QUARANTINE) {
            let reason = "must be at least an hour (\"1h\"): somebody has to see what is in quarantine to let it go";
            wrong.push(("quarantine", reason.to_owned()));
        }
        if self.quarantine_events == 0 {
            wrong.push(("quarantine_events", "must be at least 1".to_owned()));
        }
        wrong
    }
}

/// Looks after a store and its archive.
#[derive(Debug)]
pub struct Upkeep {
    config: Config,
    store: Store,
    archive: Archive,
    clock: Clock,
    health: Health,
    /// How long to rest between two steps.
    rest: Duration,
    /// Behind which event the next pass goes on, and when it begins anew.
    at: i64,
    anew: Option<Timestamp>,
}

impl Upkeep {
    /// Upkeep as `config` says.
    #[must_use]
    pub fn new(config: Config, store: Store, archive: Archive, clock: Clock, health: Health) -> Self {
        Self { config, store, archive, clock, health, rest: Duration::ZERO, at: 0, anew: None }
    }

    /// A pass every minute, until `stop`. Beside, however long that takes, a sample of every minute.
    pub async fn run(mut self, stop: CancellationToken) {
        self.rest = REST;
        let sampling = sample(self.store.clone(), self.clock.clone());
        let work = async {
            loop {
                self.clock.sleep(EVERY).await;
                if let Err(error) = self.pass().await {
                    tracing::warn!(error = %error, "upkeep was cut short, will try again: {error}");
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = sampling => {}
            () = stop.cancelled() => {}
        }
    }

    /// Takes the sample of the minute that ended last; false where somebody has.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn sample(&self) -> Result<bool, store::Error> {
        self.store.sample(self.clock.now()).await
    }

    /// Removes all that may go now. Says what that was.
    ///
    /// # Errors
    /// When the store failed; the next pass goes on.
    pub async fn pass(&mut self) -> Result<Removed, store::Error> {
        let now = self.clock.now();
        let mut removed = Removed::default();
        if self.anew.is_none_or(|anew| now >= anew) {
            (self.at, self.anew) = (0, Some(clock::after(now, ANEW)));
            if let Keep::For(duration) = self.config.events {
                removed += self.tasks(clock::before(now, duration)).await?;
                self.store.forget_erased(clock::before(now, duration)).await?;
                self.store.forget_stops(clock::before(now, (2 * duration).max(STOPS))).await?;
            }
        }
        if let Keep::For(duration) = self.config.events {
            removed += self.events(clock::before(now, duration), None).await?;
        }
        if let Some(most) = self.config.max_bytes {
            removed += self.down_to(most, now).await?;
        }
        self.quarantine(now).await?;
        while self.store.forget_posts(now).await? {
            self.rest().await;
        }
        delete_unwanted(&self.store, &self.archive).await?;
        self.shrink().await?;
        if self.store.has_traces().await? {
            clear(&self.store).await?;
        }
        if removed.events + removed.tasks > 0 {
            let Removed { events, tasks, .. } = removed;
            metrics::counter!(name::REMOVED, "what" => "events").increment(events);
            metrics::counter!(name::REMOVED, "what" => "tasks").increment(tasks);
            tracing::info!(events, tasks, "removed what was done with: {events} event(s), {tasks} task(s)");
        }
        Ok(removed)
    }

    /// Removes events that were received before `before`, until the store holds no more than `most`, if that is said.
    async fn events(&mut self, before: Timestamp, most: Option<Size>) -> Result<Removed, store::Error> {
        let (mut removed, mut at) = (Removed::default(), if most.is_some() { 0 } else { self.at });
        loop {
            let now = self.clock.now();
            let page = self.store.done_events(at, before, now).await?;
            for step in steps(&page) {
                if let Some(most) = most
                    && self.store.space().await?.live() <= most.0
                {
                    return Ok(removed);
                }
                removed += self.store.remove_events(step, now).await?;
                self.rest().await;
            }
            match page.next {
                Some(next) => at = next,
                None => return Ok(removed),
            }
            if most.is_none() {
                self.at = at;
            }
        }
    }

    /// Removes from quarantine what is too old or too much.
    async fn quarantine(&self, now: Timestamp) -> Result<(), store::Error> {
        let before = match self.config.quarantine {
            Keep::For(duration) => clock::before(now, duration),
            Keep::Forever => Timestamp::MIN,
        };
        let mut events = 0;
        loop {
            let (page, removed_before) = (self.store.quarantined(before, self.config.quarantine_events).await?, events);
            for step in steps(&page) {
                events += self.store.remove_quarantined(step, now).await?.events;
                self.rest().await;
            }
            // What was let go meanwhile is not removed.
            if events == removed_before {
                break;
            }
        }
        if events > 0 {
            metrics::counter!(name::REMOVED, "what" => "quarantined").increment(events);
            tracing::warn!(
                events,
                "removed {events} event(s) from quarantine, of tasks that nothing proved yours: older than `retention.quarantine`, or more than \
                 `retention.quarantine_events`"
            );
        }
        Ok(())
    }

    async fn tasks(&self, before: Timestamp) -> Result<Removed, store::Error> {
        let (mut removed, mut at) = (Removed::default(), 0);
        loop {
            let now = self.clock.now();
            let page = self.store.bare_tasks(at, before, now).await?;
            for step in steps(&page) {
                removed += self.store.remove_tasks(step, now).await?;
                self.rest().await;
            }
            match page.next {
                Some(next) => at = next,
                None => return Ok(removed),
            }
        }
    }

    /// Brings the store down to `most` bytes, as far as what is done with and old enough goes.
    async fn down_to(&mut self, most: Size, now: Timestamp) -> Result<Removed, store::Error> {
        if self.store.space().await?.live() <= most.0 {
            self.health.recover(PART);
            return Ok(Removed::default());
        }
        let removed = self.events(clock::before(now, LEAST), Some(most)).await?;
        let live = self.store.space().await?.live();
        if live <= most.0 {
            self.health.recover(PART);
        } else {
            // In whole MiB, so that it is no news at every pass.
            let mib = live >> 20;
            let reason = format!(
                "the store holds {mib} MiB, more than `retention.max_bytes` ({most}); what is left is younger than 4 days, or not done \
                 with: `taskhook store stats` shows which"
            );
            self.health.degrade(PART, reason);
        }
        Ok(removed)
    }

    /// Gives pages back to the disk where too many are free.
    async fn shrink(&self) -> Result<(), store::Error> {
        let over = |space: Space| self.config.max_bytes.is_some_and(|most| space.file > most.0 && space.free > 0);
        let mut space = self.store.space().await?;
        if space.free <= SPARE.max(space.file / 5) && !over(space) {
            return Ok(());
        }
        while space.free > SPARE.max(space.file / 10) || over(space) {
            self.store.shrink(PAGES).await?;
            self.rest().await;
            let left = self.store.space().await?;
            // A file that was made before files could give pages back.
            if left.free >= space.free {
                break;
            }
            space = left;
        }
        Ok(())
    }

    async fn rest(&self) {
        if !self.rest.is_zero() {
            self.clock.sleep(self.rest).await;
        }
    }
}

/// Takes a sample of every minute, as soon as it has ended.
async fn sample(store: Store, clock: Clock) {
    loop {
        let next = Store::sampled_at(clock.now());
        clock.sleep_until(next).await;
        while let Err(error) = store.sample(clock.now()).await {
            tracing::warn!(error = %error, "a minute was not sampled, will try again: {error}");
            clock.sleep(AGAIN).await;
        }
    }
}

/// The candidates, in steps.
fn steps(page: &Candidates) -> Vec<Vec<i64>> {
    let (mut steps, mut bytes) = (Vec::<Vec<i64>>::new(), 0);
    for (row, size) in &page.rows {
        match steps.last_mut() {
            Some(step) if step.len() < STEP.0 && bytes + size <= STEP.1 => {
                step.push(*row);
                bytes += size;
            }
            _ => {
                steps.push(vec![*row]);
                bytes = *size;
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_bounded_in_rows_and_bytes() {
        let page = |sizes: &[u64]| Candidates { rows: (1..).zip(sizes.iter().copied()).collect(), next: None };
        let lengths = |sizes: &[u64]| steps(&page(sizes)).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[1; 70]), [32, 32, 6]);
        assert_eq!(lengths(&[16 << 20, 1, 256 << 10, 1]), [1, 1, 1, 1]);
        assert_eq!(lengths(&[100_000; 5]), [2, 2, 1]);
        assert_eq!(lengths(&[]), [0; 0]);
    }

    #[test]
    fn how_long_is_a_duration_or_for_ever() {
        let read = |text: &str| serde_json::from_value::<Keep>(text.into());
        assert_eq!(read("30d").unwrap(), Keep::For(Duration::from_hours(720)));
        assert_eq!(read("forever").unwrap(), Keep::Forever);
        assert!(read("always").unwrap_err().to_string().contains("\"forever\""));
        assert_eq!(serde_json::to_value(Keep::For(LEAST)).unwrap(), "4days");
        let wrong = |events, max_bytes| {
            let config = Config { events, max_bytes, quarantine: Keep::Forever, quarantine_events: 1 };
            config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(wrong(Keep::For(LEAST), None), [""; 0]);
        assert_eq!(wrong(Keep::For(LEAST.saturating_sub(Duration::from_secs(1))), Some(Size(0))), ["events", "max_bytes"]);
    }
}
