//! Which stop of its task an event tells of.
//!
//! A webhook carries no number of its turn. What tells turns apart is what the provider's API shows of each stop: its anchor. So an event
//! claims one, and gets the task as it stood then.
//!
//! What must hold: a stop is one event's; two webhooks are never merged; and an event of ours that was recovered and the webhook that came
//! late after all are one only where kind and text are the same. In doubt both are handed on.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock;
use crate::event::{Facts, Verification};
use crate::provider::Source;
use crate::store::model::{Claim, StoredEvent};
use crate::task::{Fetched, State, Stop};

/// How much later than its webhook a stop may seem to be: clocks differ.
const AHEAD: Duration = Duration::from_secs(5);
/// What the id of an event begins with that we recovered.
const RECOVERED: &str = "recovered:";

/// The id of the event of a stop that no webhook told.
pub(super) fn event_id(task_id: &str, anchor: &str) -> String {
    format!("{RECOVERED}{task_id}:{anchor}")
}

/// What an event tells of.
#[derive(Debug)]
pub(super) enum Turn {
    /// This stop, at which the task still stands.
    Newest,
    /// This stop, after which the task went on: the task as it stood then.
    Earlier(Box<Fetched>),
    /// What another event told.
    Told,
    /// A stop that the provider does not show, or not yet; of one that is `doubtful`, another event may have told.
    NotShown { doubtful: bool },
}

/// The stops of a task as it was fetched, and whose they are.
#[derive(Debug)]
pub(super) struct Turns<'a> {
    source: &'a Source,
    task_id: &'a str,
    fetched: &'a Fetched,
    claims: Vec<Claim>,
    /// So many of them were made before.
    known: usize,
}

impl<'a> Turns<'a> {
    /// `claims` are those that were made before.
    pub(super) fn new(source: &'a Source, task_id: &'a str, fetched: &'a Fetched, claims: Vec<Claim>) -> Self {
        Self { source, task_id, fetched, known: claims.len(), claims }
    }

    /// The claims that were made here.
    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims[self.known..]
    }

    /// Whether every stop that is shown is an event's.
    pub(super) fn all_are_claimed(&self) -> bool {
        self.fetched.stops.iter().all(|stop| self.owner(&stop.anchor).is_some())
    }

    fn owner(&self, anchor: &str) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.anchor == anchor)
    }

    /// What `event`, which ends a turn, tells of.
    pub(super) fn of(&mut self, event: &StoredEvent, facts: &Facts) -> Turn {
        let mine = self.claims.iter().find(|claim| claim.event == event.id).map(|claim| claim.anchor.clone());
        if let Some(anchor) = mine {
            return self.at(&anchor);
        }
        if event.verification == Verification::Api {
            return self.of_recovered(event);
        }
        let state = state(facts);
        if let Some(stop) = self.candidate(event.received_at, state, facts) {
            let stop = stop.clone();
            return self.claim(event, &stop);
        }
        let recovered = |stop: &Stop| self.owner(&stop.anchor).is_some_and(|claim| claim.recovered);
        let mut of_kind = self.fetched.stops.iter().filter(|stop| Some(stop.state) == state);
        if of_kind.any(|stop| say_the_same(self.source, facts, stop) && recovered(stop)) {
            return Turn::Told;
        }
        // What ends once and is told to have ended otherwise may be the same end.
        let alike = |claim: &Claim| Some(claim.state) == state || !self.source.lists();
        let doubtful = self.claims.iter().any(|claim| claim.recovered && alike(claim));
        Turn::NotShown { doubtful }
    }

    /// A recovered event is about the stop that it was made for, unless a webhook came for that meanwhile.
    fn of_recovered(&mut self, event: &StoredEvent) -> Turn {
        let anchor = event.event_id.strip_prefix(RECOVERED).and_then(|rest| rest.strip_prefix(self.task_id)?.strip_prefix(':'));
        let stop = self.fetched.stops.iter().find(|stop| Some(stop.anchor.as_str()) == anchor).cloned();
        match (anchor.and_then(|anchor| self.owner(anchor)), stop) {
            (Some(_), _) => Turn::Told,
            (None, Some(stop)) => self.claim(event, &stop),
            (None, None) => Turn::NotShown { doubtful: true },
        }
    }

    /// The stop that nobody has claimed, of this kind and not later than the webhook, whose text is the webhook's; else the newest of
    /// them. Where all seem to be later, our clock may be behind: then the oldest with that text.
    fn candidate(&self, received_at: Timestamp, state: Option<State>, facts: &Facts) -> Option<&Stop> {
        let free = || {
            let of_kind = self.fetched.stops.iter().filter(move |stop| state.is_none_or(|state| stop.state == state));
            of_kind.filter(|stop| self.owner(&stop.anchor).is_none())
        };
        let in_time = || free().filter(move |stop| stop.at.is_none_or(|at| in_time(received_at, at)));
        let alike = |stop: &&Stop| say_the_same(self.source, facts, stop);
        in_time().find(alike).or_else(|| in_time().next_back()).or_else(|| free().find(alike))
    }

    fn claim(&mut self, event: &StoredEvent, stop: &Stop) -> Turn {
        let recovered = event.verification == Verification::Api;
        self.claims.push(Claim { anchor: stop.anchor.clone(), state: stop.state, at: stop.at, event: event.id, recovered });
        self.at(&stop.anchor)
    }

    fn at(&self, anchor: &str) -> Turn {
        if self.fetched.stands_at.as_deref() == Some(anchor) {
            return Turn::Newest;
        }
        match self.source.turn(self.task_id, &self.fetched.raw, anchor) {
            Some(turn) => Turn::Earlier(Box::new(turn)),
            // It was shown when it was claimed.
            None => Turn::NotShown { doubtful: false },
        }
    }
}

/// Where a webhook says that its task stands.
pub(super) fn state(facts: &Facts) -> Option<State> {
    State::of_stop(facts.stop_reason.as_deref()?)
}

/// Whether a webhook that was received then may tell of a stop at `at`.
fn in_time(received_at: Timestamp, at: Timestamp) -> bool {
    at <= clock::after(received_at, AHEAD)
}

/// Whether `event` may tell of a stop at `at`: it did not come before it.
pub(super) fn may_tell_of(event: &StoredEvent, at: Timestamp) -> bool {
    in_time(event.received_at, at)
}

/// Whether a webhook and a stop say the same, and something. Where a task ends once, a webhook of its end need say nothing.
pub(super) fn say_the_same(source: &Source, facts: &Facts, stop: &Stop) -> bool {
    match (said(facts.message.as_deref()), said(stop.text.as_deref())) {
        (None, _) => !source.lists(),
        (told, shown) => told == shown,
    }
}

/// What was said, but for the space around it; nothing if that is all.
fn said(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}
