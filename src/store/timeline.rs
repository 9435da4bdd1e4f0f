//! The timeline of a task: all that is known to have happened to it, joined from what each part wrote down for itself.
//!
//! What must hold: nothing is written for it alone, so nothing that it tells can disagree with the rest; whatever is missing, and in
//! whatever order things came, it says what there is.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::view::{AnswerRow, DeliveryRow, EventRow, TaskRow};

/// The kind of a moment at which a task asked something.
pub const QUESTION: &str = "question";

/// Something that happened to a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Moment {
    /// When, by our clock: when it was received, noticed, begun or ended here. `null` for what only the provider knows.
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// When, by the provider's clock, where it tells.
    #[schema(format = DateTime)]
    pub provider_at: Option<String>,
    /// `created`, `expected`, `event`, `question`, `stop`, `fetched`, `answer`, `file` or `delivery`.
    pub kind: &'static str,
    /// What, for people: third-party text in parts.
    pub text: String,
    /// The event that it is about, by our id.
    pub event: Option<String>,
    /// The delivery or the answer that it is about, by our id.
    pub id: Option<String>,
    /// Of a stop or a question: what it is known by in the provider's answers.
    pub anchor: Option<String>,
}

/// A stop that an event told of.
#[derive(Clone, Debug)]
pub(super) struct StopRow {
    pub(super) anchor: String,
    pub(super) state: String,
    pub(super) at: Option<String>,
    pub(super) event: String,
    pub(super) recovered: bool,
    pub(super) claimed_at: String,
}

/// A file, and when it was first told of and done with.
#[derive(Clone, Debug)]
pub(super) struct FileTimes {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) first_seen_at: String,
    pub(super) ended_at: Option<String>,
}

/// What a timeline is joined from.
pub(super) struct Parts<'a> {
    pub(super) row: &'a TaskRow,
    /// As last fetched, and the stop that it stood at.
    pub(super) task: Option<&'a Value>,
    pub(super) anchor: Option<&'a str>,
    /// `TIME STATE` each.
    pub(super) fetches: Vec<String>,
    pub(super) events: &'a [EventRow],
    pub(super) stops: Vec<StopRow>,
    pub(super) answers: &'a [AnswerRow],
    pub(super) files: Vec<FileTimes>,
    pub(super) deliveries: Vec<DeliveryRow>,
}

/// The timeline, the oldest first.
pub(super) fn timeline(parts: Parts<'_>) -> Vec<Moment> {
    let Parts { row, task, anchor, fetches, events, stops, answers, files, deliveries } = parts;
    let mut moments = Vec::new();
    if let Some(created_at) = task.and_then(|task| task["created_at"].as_str()).map(ToOwned::to_owned) {
        let text = row.title.clone().unwrap_or_default();
        moments.push(Moment { provider_at: Some(created_at), kind: "created", text, ..Moment::default() });
    }
    if row.proof.as_deref() == Some("tracked") {
        let text = format!("told to expect it: {}", row.kind.as_deref().unwrap_or("task"));
        moments.push(Moment { at: row.proven_at.clone(), kind: "expected", text, ..Moment::default() });
    }
    moments.extend(events.iter().map(|event| {
        let made = if event.verification == "api" { ", no webhook told it" } else { "" };
        let again = if event.repeats > 0 { format!(", came {} more time(s)", event.repeats) } else { String::new() };
        let text = format!("{}, {}{made}{again}", event.kind, event.state);
        Moment { at: Some(event.received_at.clone()), kind: "event", text, event: Some(event.id.clone()), ..Moment::default() }
    }));
    moments.extend(stops.into_iter().map(|stop| {
        let asks = stop.state == "waiting";
        let question = task.filter(|_| asks && anchor == Some(stop.anchor.as_str()));
        let question = question.and_then(|task| task["question"]["text"].as_str()).map(ToOwned::to_owned);
        let text = question.unwrap_or_else(|| if stop.recovered { format!("{}, recovered", stop.state) } else { stop.state });
        Moment {
            at: Some(stop.claimed_at),
            provider_at: stop.at,
            kind: if asks { QUESTION } else { "stop" },
            text,
            event: Some(stop.event),
            anchor: Some(stop.anchor),
            ..Moment::default()
        }
    }));
    moments.extend(fetches.iter().filter_map(|fetch| {
        let (at, state) = fetch.split_once(' ')?;
        Some(Moment { at: Some(at.to_owned()), kind: "fetched", text: state.to_owned(), ..Moment::default() })
    }));
    moments.extend(answers.iter().map(|answer| {
        let AnswerRow { id, kind, by, content, state, given_at, .. } = answer;
        let said = content.as_deref().map(|content| format!(": {content}")).unwrap_or_default();
        let text = format!("{kind} by {by}, {state}{said}");
        Moment { at: Some(given_at.clone()), kind: "answer", text, id: Some(id.clone()), ..Moment::default() }
    }));
    moments.extend(files.into_iter().map(|file| {
        let text = format!("{}, {}", file.name, file.status);
        Moment { at: Some(file.ended_at.unwrap_or(file.first_seen_at)), kind: "file", text, ..Moment::default() }
    }));
    moments.extend(deliveries.into_iter().map(|delivery| {
        let tries = delivery.attempts.len();
        let text = format!("{}, {}, {tries} attempt(s)", delivery.destination, delivery.state);
        Moment {
            at: Some(delivery.ended_at.unwrap_or(delivery.created_at)),
            kind: "delivery",
            text,
            event: Some(delivery.event),
            id: Some(delivery.id),
            ..Moment::default()
        }
    }));
    // RFC 3339 in UTC with milliseconds, all of one form. Stable: what came of something stands behind it.
    moments.sort_by(|one, other| when(one).cmp(when(other)));
    moments
}

fn when(moment: &Moment) -> &str {
    moment.at.as_deref().or(moment.provider_at.as_deref()).unwrap_or_default()
}
