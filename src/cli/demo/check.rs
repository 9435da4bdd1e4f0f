//! What should have come of a round, and what the store and the application say.

use super::stage::Stage;
use crate::cli::{Error, Failure, Result};
use crate::simulator::Delivery;
use crate::store;
use crate::store::model::Like;
use crate::store::view::{DeliveryRow, EventFilter, EventRow, Page, RejectionFilter};

/// How many rows of a list are looked at; a round makes fewer.
const ROWS: usize = 200;

/// One expectation.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// What is counted.
    pub(super) what: &'static str,
    /// How many there should be.
    pub(super) expected: usize,
    /// How many there are.
    pub(super) seen: usize,
    /// What that means.
    pub(super) means: &'static str,
    /// What else is wrong, or why the number is.
    pub(super) wrong: Option<String>,
}

impl Check {
    /// An expectation of which nothing was seen yet.
    pub(super) fn new(what: &'static str, expected: usize, means: &'static str) -> Self {
        Self { what, expected, seen: 0, means, wrong: None }
    }

    /// The same with what was seen.
    pub(super) fn seen(self, seen: usize) -> Self {
        Self { seen, ..self }
    }

    /// The same with what is wrong, if anything is.
    pub(super) fn wrong(self, wrong: Option<String>) -> Self {
        Self { wrong, ..self }
    }

    /// Whether it is as it should be.
    pub(super) fn is_right(&self) -> bool {
        self.seen == self.expected && self.wrong.is_none()
    }

    fn reason(&self) -> Option<String> {
        let why = self.wrong.as_ref().map(|wrong| format!(" ({wrong})")).unwrap_or_default();
        (!self.is_right()).then(|| format!("{}: {} expected, {} seen{why}", self.what, self.expected, self.seen))
    }
}

/// All rounds so far, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    rounds: u32,
    checks: Vec<Check>,
}

impl Verdict {
    /// Adds a round.
    pub(super) fn add(&mut self, checks: &[Check]) {
        self.rounds += 1;
        if self.checks.is_empty() {
            self.checks = checks.to_vec();
            return;
        }
        for (sum, check) in self.checks.iter_mut().zip(checks) {
            sum.expected += check.expected;
            sum.seen += check.seen;
            sum.wrong = sum.wrong.take().or_else(|| check.wrong.clone());
        }
    }

    /// How many rounds were played to their end.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The sums.
    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// What was not as it should be.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.checks.iter().filter_map(Check::reason).collect()
    }
}

/// The store does not tell.
pub(super) fn unread(error: store::Error) -> Failure {
    Error::from(error).into()
}

/// What the store and the simulator say of the tasks of a round.
pub(super) struct Seen {
    /// The events of its tasks.
    pub(super) events: Vec<EventRow>,
    /// What was made of them.
    pub(super) deliveries: Vec<DeliveryRow>,
    /// How many requests the simulator sent.
    pub(super) sent: usize,
}

impl Seen {
    pub(super) async fn of(stage: &Stage, tasks: &[&str]) -> Result<Self> {
        let mut events: Vec<EventRow> = Vec::new();
        for task_id in tasks {
            let filter = EventFilter { task_id: Some((*task_id).to_owned()), ..EventFilter::default() };
            events.extend(stage.store.events(filter, page()).await.map_err(unread)?.data);
        }
        let mut deliveries = stage.store.deliveries(Like::default(), page()).await.map_err(unread)?.data;
        deliveries.retain(|delivery| events.iter().any(|event| event.id == delivery.event));
        let of_round = |sent: &&Delivery| sent.attempt > 0 && tasks.contains(&sent.task_id.as_str());
        let sent = stage.cast.deliveries().iter().filter(of_round).count();
        Ok(Self { events, deliveries, sent })
    }

    /// How often one of them came again.
    pub(super) fn repeats(&self) -> usize {
        self.events.iter().map(|event| usize::try_from(event.repeats).unwrap_or(0)).sum()
    }
}

fn page() -> Page {
    Page { limit: ROWS, cursor: None }
}

/// Whether an event was given up on.
pub(super) fn buried(events: &[EventRow]) -> Option<String> {
    let dead = events.iter().find(|event| event.state == "dead")?;
    Some(format!("a dead letter: {}", dead.reason.as_deref().unwrap_or("no reason is known")))
}

/// Whether the requests that are not genuine were refused with `code`, and one of them explained in `words`. `of_round` tells their
/// bodies from those of others.
pub(super) async fn refused(
    stage: &Stage,
    of_round: impl Fn(&str) -> bool,
    (code, words): (&str, &str),
    posted: usize,
) -> Result<Check> {
    let newest = Page { limit: 20, cursor: None };
    let (mut seen, mut told) = (0, false);
    for row in stage.store.rejections(RejectionFilter::default(), newest).await.map_err(unread)?.data {
        // Others may try as well, and the ring holds earlier rounds.
        let Some(rejection) = stage.store.rejection(row.id).await.map_err(unread)? else { continue };
        if of_round(&rejection.body) && row.code == code {
            seen += 1;
            told |= row.explanation.is_some_and(|text| text.contains(words));
        }
    }
    let wrong = (seen == posted && !told).then(|| "what would have matched was not told".to_owned());
    Ok(Check::new("refused", posted, "not genuine: 401, told what would have matched").seen(seen).wrong(wrong))
}

/// Whether every result of `tasks` arrived, once, whole and signed, and the task `of` with its file.
pub(super) fn delivered(stage: &Stage, seen: &Seen, tasks: &[&str], expected: usize, (of, file): (&str, &str)) -> Check {
    let done: Vec<_> = seen.deliveries.iter().filter(|delivery| delivery.state == "delivered").collect();
    let arrivals: Vec<_> = tasks.iter().flat_map(|task_id| stage.application.of_task(task_id)).collect();
    let dead = seen.deliveries.iter().find(|delivery| delivery.state == "dead");
    let wrong = if let Some(delivery) = dead {
        Some(format!("a dead letter: {}", delivery.reason.as_deref().unwrap_or("no reason is known")))
    } else if done.len() != expected {
        None
    } else if arrivals.len() != done.len() {
        Some(format!("the application got {}", arrivals.len()))
    } else if arrivals.iter().any(|arrival| !arrival.verified) {
        Some("a signature did not verify".to_owned())
    } else if arrivals.iter().any(|arrival| !arrival.complete) {
        Some("a task was not fetched whole".to_owned())
    } else if !arrivals.iter().any(|arrival| arrival.task_id == of && arrival.files == [file]) {
        Some("the file was not named".to_owned())
    } else if done.iter().any(|delivery| delivery.attempts.len() != 1) {
        Some("one took more than one attempt".to_owned())
    } else {
        None
    };
    Check::new("delivered", expected, "to the application, signed, once each").seen(done.len()).wrong(wrong)
}
