//! What should have come of a round, and what the store and the application say.

use super::script::{OTHER_URL, Script};
use crate::cli::{Error, Failure, Result};
use crate::store;
use crate::store::view::{DeliveryRow, EventFilter, EventRow, Page};

/// The task of the request that Manus tries a webhook with.
const PING: &str = "test_task_id";
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

/// Looks at what came of a round so far.
pub(super) async fn look(script: &Script<'_>) -> Result<Vec<Check>> {
    let stage = script.stage;
    let mut events: Vec<EventRow> = Vec::new();
    let tasks = script.ours().into_iter().chain([script.strangers.as_str()]);
    for task_id in tasks.clone().chain(script.first.then_some(PING)) {
        let filter = EventFilter { task_id: Some(task_id.to_owned()), ..EventFilter::default() };
        events.extend(stage.store.events(filter, page()).await.map_err(unread)?.data);
    }
    let deliveries = stage.store.deliveries(None, page()).await.map_err(unread)?.data;
    let of_round = |delivery: &&DeliveryRow| events.iter().any(|event| event.id == delivery.event);
    let deliveries: Vec<&DeliveryRow> = deliveries.iter().filter(of_round).collect();
    let sent = stage.manus.deliveries().into_iter().filter(|sent| sent.attempt > 0);
    let sent = sent.filter(|sent| tasks.clone().any(|task_id| task_id == sent.task_id) || script.first && sent.task_id == PING);

    let (ping, ours, strangers, repeated, posted) = (usize::from(script.first), 3 + 3 + 2, 2, 1, 2);
    let check = |what, expected, seen, means, wrong| Check { what, expected, seen, means, wrong };
    Ok(vec![
        check("sent", ping + ours + strangers + repeated + posted, sent.count() + script.posted(), "requests to our URL", None),
        check("accepted", ping + ours + strangers, events.len(), "answered 200, on disk before", misplaced(&events, script)),
        check("duplicates", repeated, repeats(&events), "came again: answered 200, done once", None),
        refused(script, posted, check("refused", posted, 0, "not genuine: 401, told what would have matched", None)).await?,
        check(
            "quarantined",
            strangers,
            events.iter().filter(|event| event.state == "quarantined").count(),
            "genuine, of somebody else's account: kept, never sent",
            leaked(&events, &deliveries, script),
        ),
        delivered(script, &deliveries, check("delivered", 4, 0, "to the application, signed, once each", None)),
    ])
}

fn page() -> Page {
    Page { limit: ROWS, cursor: None }
}

fn repeats(events: &[EventRow]) -> usize {
    events.iter().map(|event| usize::try_from(event.repeats).unwrap_or(0)).sum()
}

/// Events that are not where they belong.
fn misplaced(events: &[EventRow], script: &Script<'_>) -> Option<String> {
    let ping = events.iter().find(|event| event.task_id.as_deref() == Some(PING));
    let dead = events.iter().find(|event| event.state == "dead");
    let collision = events.iter().find(|event| event.collision_of.is_some());
    if script.first && ping.is_some_and(|event| !event.ping) {
        Some("the registration ping is not marked as one".to_owned())
    } else if let Some(event) = dead {
        Some(format!("a dead letter: {}", event.reason.as_deref().unwrap_or("no reason is known")))
    } else {
        collision.map(|event| format!("`{}` counts as a collision", event.event_id))
    }
}

/// Whether something went out that is not ours.
fn leaked(events: &[EventRow], deliveries: &[&DeliveryRow], script: &Script<'_>) -> Option<String> {
    let strangers = |task_id: &Option<String>| task_id.as_deref() == Some(&script.strangers);
    let delivery = deliveries.iter().any(|delivery| strangers(&delivery.task_id));
    let arrived = !script.stage.application.of_task(&script.strangers).is_empty();
    let state = events.iter().any(|event| !strangers(&event.task_id) && event.state == "quarantined");
    if delivery || arrived {
        Some("the stranger's task was dispatched".to_owned())
    } else {
        state.then(|| "one of our own events is quarantined".to_owned())
    }
}

/// Whether requests that are not genuine were refused, and explained.
async fn refused(script: &Script<'_>, posted: usize, mut check: Check) -> Result<Check> {
    let newest = Page { limit: 20, cursor: None };
    let mut told = false;
    for row in script.stage.store.rejections(newest).await.map_err(unread)?.data {
        // Others may try as well, and the ring holds earlier rounds.
        let Some(rejection) = script.stage.store.rejection(row.id).await.map_err(unread)? else { continue };
        if script.ours().into_iter().any(|task_id| rejection.body.contains(task_id)) && row.code == "signature_invalid" {
            check.seen += 1;
            told |= row.explanation.is_some_and(|text| text.contains(OTHER_URL));
        }
    }
    check.wrong = (check.seen == posted && !told).then(|| "what would have matched was not told".to_owned());
    Ok(check)
}

/// Whether every result arrived, once, whole and signed.
fn delivered(script: &Script<'_>, deliveries: &[&DeliveryRow], mut check: Check) -> Check {
    let done: Vec<_> = deliveries.iter().filter(|delivery| delivery.state == "delivered").collect();
    let arrivals: Vec<_> = script.ours().into_iter().flat_map(|task_id| script.stage.application.of_task(task_id)).collect();
    check.seen = done.len();
    let dead = deliveries.iter().find(|delivery| delivery.state == "dead");
    check.wrong = if let Some(delivery) = dead {
        Some(format!("a dead letter: {}", delivery.reason.as_deref().unwrap_or("no reason is known")))
    } else if done.len() != check.expected {
        None
    } else if arrivals.len() != done.len() {
        Some(format!("the application got {}", arrivals.len()))
    } else if arrivals.iter().any(|arrival| !arrival.verified) {
        Some("a signature did not verify".to_owned())
    } else if arrivals.iter().any(|arrival| !arrival.complete) {
        Some("a task was not fetched whole".to_owned())
    } else if !arrivals.iter().any(|arrival| arrival.task_id == script.files && arrival.files == ["lisbon.md"]) {
        Some("the file was not named".to_owned())
    } else if done.iter().any(|delivery| delivery.attempts.len() != 1) {
        Some("one took more than one attempt".to_owned())
    } else {
        None
    };
    check
}
