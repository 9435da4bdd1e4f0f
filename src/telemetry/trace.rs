//! Traces: what became of an event, as the spans of one trace, told to a collector by OTLP.
//!
//! The trace's id is the event's id, and the id of its root follows from that. So nothing is stored, and whoever works on an event, after
//! a restart, on another replica or at a replay days later, goes on with the same trace.
//!
//! What must hold:
//! - Without an endpoint a [`Tracer`] holds nothing, and so does each of its [`Span`]s: no clock is read, nothing is computed.
//! - Whoever makes a span never waits for it and never fails by it: what there is no room for is dropped, and counted.
//! - A span says words of ours, names of the configuration, ids and the sender's word for the type of an event; nothing else of a
//!   payload, no address of one, no secret.
//! - Whether a trace is taken depends on its id alone, so that all replicas decide alike.

mod config;
mod export;
mod queue;
mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

pub use self::config::{Config, SECRETS};
pub use self::export::{Exporter, check};
use self::queue::Queue;
pub use self::span::{Context, Kind, Span, Value, here, within};
use super::Health;
use crate::clock::Clock;

/// By how much wall time and running time may seem to drift apart before the clock was set: wall time is read in whole milliseconds.
const DRIFT: i64 = 2_000_000;

/// Where spans begin; clones share it. The default is that nothing is traced.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// Wall time less running time, in nanoseconds.
    base: AtomicI64,
    /// The share of traces that are taken.
    sample: f64,
    queue: Queue,
}

impl Tracer {
    /// What `config` says, and the part that sends; nothing and none without an endpoint. `instance` tells this process from others.
    ///
    /// # Errors
    /// If something in `config` cannot work, which [`Config::check`] has told before.
    pub fn new(config: &Config, clock: &Clock, health: &Health, instance: &str) -> Result<(Self, Option<Exporter>), String> {
        let Some(target) = config.target()? else { return Ok((Self::default(), None)) };
        let (queue, waiting) = Queue::new();
        let shared = Shared { clock: clock.clone(), base: AtomicI64::new(i64::MIN), sample: config.sample, queue };
        let exporter = Exporter::new(target, &config.service_name, instance, waiting, clock, health);
        Ok((Self(Some(Arc::new(shared))), Some(exporter)))
    }

    /// Whether anything is traced.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Now, for a span that may begin with it: nanoseconds since 1970. `None` where nothing is traced.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        self.0.as_ref().map(|shared| shared.now())
    }

    /// The first span of the trace of `event`: what brought it here.
    #[must_use]
    pub fn root(&self, event: Uuid, name: &'static str, kind: Kind) -> Span {
        let Some(shared) = &self.0 else { return Span::default() };
        let trace = Trace::of(event);
        Span::begin(shared, Context { trace: trace.id, span: trace.root }, None, name, kind, trace.is_taken(shared.sample))
    }

    /// A span below the first one of the trace of `event`.
    #[must_use]
    pub fn span(&self, event: Uuid, name: &'static str, kind: Kind) -> Span {
        let Some(shared) = &self.0 else { return Span::default() };
        let trace = Trace::of(event);
        let context = Context { trace: trace.id, span: new_id() };
        Span::begin(shared, context, Some(trace.root), name, kind, trace.is_taken(shared.sample))
    }

    /// A span of what is done for several `events` at once, each with how often it was replayed: one in the trace of each, that all say
    /// the same. What is called meanwhile stands below the first, to which the others link, as it does to them.
    #[must_use]
    pub fn shared(&self, events: impl IntoIterator<Item = (Uuid, u32)>, name: &'static str) -> Span {
        if !self.is_on() {
            return Span::default();
        }
        let spans = events.into_iter().map(|(event, replay)| {
            let span = self.span(event, name, Kind::Internal);
            span.replayed(replay);
            span
        });
        Span::of_many(spans.filter(Span::is_taken).collect())
    }

    /// Where the first span of the trace of `event` stands, for links.
    #[must_use]
    pub fn root_of(event: Uuid) -> Context {
        let trace = Trace::of(event);
        Context { trace: trace.id, span: trace.root }
    }
}

impl Shared {
    /// Running time, set to the clock: as fine as that, and as late as this.
    fn now(&self) -> u64 {
        let wall = i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX);
        let running = i64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let base = self.base.load(Ordering::Relaxed);
        let now = base.saturating_add(running);
        let now = if now.abs_diff(wall) <= DRIFT.unsigned_abs() {
            now
        } else {
            self.base.store(wall.saturating_sub(running), Ordering::Relaxed);
            wall
        };
        u64::try_from(now).unwrap_or(0)
    }
}

/// What follows from the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trace {
    id: [u8; 16],
    root: [u8; 8],
    /// Where it stands among all, evenly: ids themselves begin with a time.
    draw: u64,
}

impl Trace {
    fn of(event: Uuid) -> Self {
        let mut text = b"taskhook trace ".to_vec();
        text.extend_from_slice(event.as_bytes());
        let digest = digest(&SHA256, &text);
        let (mut root, mut draw) = ([0; 8], [0; 8]);
        root.copy_from_slice(&digest.as_ref()[..8]);
        draw.copy_from_slice(&digest.as_ref()[8..16]);
        // All zeros would be no id.
        root[7] |= u8::from(root == [0; 8]);
        Self { id: event.into_bytes(), root, draw: u64::from_be_bytes(draw) }
    }

    fn is_taken(&self, sample: f64) -> bool {
        /// So many bits a double holds.
        const BITS: u32 = 53;
        ((self.draw >> (64 - BITS)) as f64) < sample * (1_u64 << BITS) as f64
    }
}

/// An id that no other span has.
fn new_id() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn what_follows_from_an_id_stays_so() {
        let event = Uuid::parse_str("019a98b8-3f2b-7c3d-8a54-2b6f1c9d0e7a").unwrap();
        let trace = Trace::of(event);
        assert_eq!(trace, Trace::of(event));
        // Other versions of this program and other replicas must come to the same.
        insta::assert_snapshot!(format!("{} {}", crate::event::hex(&trace.root), trace.draw), @"6cfe608925bd255f 6469082404955311324");
        assert_ne!(trace.root, Trace::of(Uuid::nil()).root);
    }

    #[test]
    fn a_share_of_traces_is_taken_evenly_and_all_replicas_take_the_same() {
        // Made in one moment: all that differs is at the end of their ids.
        let events: Vec<_> = (0..4000).map(|_| Trace::of(Uuid::now_v7())).collect();
        let taken = |sample: f64| events.iter().filter(|trace| trace.is_taken(sample)).count();
        assert_eq!((taken(0.0), taken(1.0)), (0, 4000));
        let quarter = taken(0.25);
        assert!((800..1200).contains(&quarter), "{quarter}");
        assert!(events.iter().all(|trace| !trace.is_taken(0.25) || trace.is_taken(0.5)));
    }

    #[test]
    fn times_are_finer_than_the_clock_and_follow_it_when_it_is_set() {
        let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
        let (queue, _waiting) = Queue::new();
        let shared = Shared { clock: clock.clone(), base: AtomicI64::new(i64::MIN), sample: 1.0, queue };
        let begun = shared.now();
        clock.advance(SignedDuration::from_secs(5));
        assert_eq!(shared.now() - begun, 5_000_000_000);
        clock.advance(SignedDuration::from_hours(-1));
        assert_eq!(begun - shared.now(), 3_595_000_000_000);
    }
}
