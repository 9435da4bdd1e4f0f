//! From an event and its task to deliveries: the envelope, the routes that match, and what is sent to each.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{Environment, trace, watch};
use crate::event::{Facts, Verification};
use crate::provider::{Kept, Source};
use crate::route::{Envelope, Event};
use crate::store::model::{FileRow, NewDelivery, Stage, StoredEvent, Told};
use crate::task::{Fetched, File, FileStatus, Message, State, Task};
use crate::telemetry::logged;
use crate::telemetry::trace::Span;

/// Where an event stands among others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// It goes before something that came earlier.
    pub out_of_order: bool,
    /// It may tell of what another one told.
    pub may_repeat: bool,
}

/// What is known of an event's task.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// No task is fetched for this type of event.
    NotAsked,
    /// It should have been fetched and could not be: the envelope tells what the webhook told.
    FromWebhook,
    /// It was fetched.
    Fetched(&'a Fetched),
}

/// `event`, as its provider reads it again.
pub(super) fn kept(event: &StoredEvent) -> Kept<'_> {
    Kept {
        event_id: &event.event_id,
        kind: &event.kind,
        provider_type: event.provider_type.as_deref(),
        task_id: event.task_id.as_deref(),
        body: &event.body,
    }
}

/// The task that is told of with `event`, by its id, where one is.
#[must_use]
pub fn task_of<'a>(source: &Source, event: &'a StoredEvent) -> Option<&'a str> {
    let own = event.verification == Verification::Watch;
    event.task_id.as_deref().filter(|_| own || (source.ends(&event.kind) && source.fetches()))
}

impl<'a> Known<'a> {
    /// What is known of the task of `event` that was last fetched so, if it was.
    #[must_use]
    pub fn of(source: &Source, event: &StoredEvent, fetched: Option<&'a Fetched>) -> Self {
        match fetched {
            Some(fetched) => Self::Fetched(fetched),
            None if event.verification != Verification::Watch && task_of(source, event).is_some() => Self::FromWebhook,
            None => Self::NotAsked,
        }
    }
}

impl Known<'_> {
    /// The same, as the store keeps it.
    pub(super) fn told(self) -> Told {
        match self {
            Self::NotAsked => Told::Nothing,
            Self::FromWebhook => Told::Webhook,
            Self::Fetched(_) => Told::Fetched,
        }
    }
}

/// What destinations are to know of `event`; `rows` tell where its files stand.
pub(super) fn with_files(
    environment: &Environment,
    source: &Source,
    event: &StoredEvent,
    task: Known<'_>,
    place: Place,
    rows: &[FileRow],
) -> Envelope {
    let mut envelope = envelope(source, event, task, place);
    FileRow::tell(&mut envelope.files, rows);
    let now = environment.clock.now();
    for file in envelope.files.iter_mut().filter(|file| file.status == FileStatus::Archived) {
        file.link = file.sha256.as_deref().and_then(|sha256| environment.archive.link(sha256, &file.name, now));
    }
    envelope
}

/// The deliveries of `event` with this envelope.
pub(super) fn deliveries(environment: &Environment, source: &Source, event: &StoredEvent, envelope: &Envelope) -> Stage {
    let own = event.verification == Verification::Watch;
    let span = trace::of_event(environment, event, "route");
    let (stopped, out_of_order) = (!own && source.ends(&envelope.kind), envelope.out_of_order);
    let targets = match environment.routes.select(envelope) {
        Ok(targets) => targets,
        Err(error) => return dead(event, &span, &error),
    };
    if let Some(failed) = envelope.in_trouble().filter(|_| targets.is_empty()) {
        tracing::warn!(
            event = %event.id, destination = failed,
            "`{}` is about the destination `{failed}`, and no route leads it to another one: it goes nowhere", envelope.kind
        );
    }
    if span.is_taken() {
        span.outcome(if targets.is_empty() { "nowhere" } else { "routed" });
        span.set("taskhook.destinations", targets.iter().map(|target| target.destination.as_str()).collect::<Vec<_>>());
        span.set("taskhook.out_of_order", out_of_order);
    }
    // What is not as it should be is told at once, whatever is before it.
    let order_wait = if own { Some(Duration::ZERO) } else { stopped.then(|| source.order_wait()) };
    let mut deliveries = Vec::with_capacity(targets.len());
    for target in targets {
        let Some(destination) = environment.destinations.get(&target.destination) else { continue };
        match destination.render(envelope) {
            Ok(body) => deliveries.push(NewDelivery {
                id: Uuid::now_v7(),
                destination: target.destination,
                route: target.route,
                body,
                out_of_order,
                order_wait,
            }),
            Err(error) => return dead(event, &span, &error),
        }
    }
    Stage::Done(deliveries)
}

/// The envelope of `event`, as far as it and its task tell it.
#[must_use]
pub fn envelope(source: &Source, event: &StoredEvent, task: Known<'_>, place: Place) -> Envelope {
    let payload = payload(&event.body);
    let own = event.verification == Verification::Watch;
    let mut facts = if own { watch::facts(event, &payload) } else { source.tell(&kept(event)) };
    let stopped = !own && source.ends(&facts.kind);
    // An event may tell the whole task by itself.
    let told = || if stopped { source.told(&kept(event)) } else { None };
    let (task, files) = match task {
        Known::Fetched(fetched) => (Some(fetched.task.clone()), fetched.files.clone()),
        Known::FromWebhook => match told() {
            // What was to be fetched may be more than this.
            Some(told) => (Some(Task { complete: false, ..told.task }), told.files),
            None => (Some(as_told(&facts)), attached(&facts)),
        },
        Known::NotAsked => match told().filter(|_| !source.fetches()) {
            Some(told) => (Some(told.task), told.files),
            None => (None, attached(&facts)),
        },
    };
    if let Some(task) = task.as_ref().filter(|_| own) {
        facts.title.clone_from(&task.title);
        facts.url.clone_from(&task.url);
    }
    let recovered = event.verification == Verification::Api;
    let valid = if own { None } else { source.is_valid(&event.body) };
    Envelope {
        id: event.id,
        kind: facts.kind.clone(),
        source: event.source.clone(),
        provider: event.provider.clone(),
        received_at: event.received_at,
        verification: event.verification,
        recovered,
        replayed: event.replay > 0,
        may_repeat: place.may_repeat || (recovered && payload["may_repeat"] == true),
        out_of_order: place.out_of_order,
        collision_of: event.collision_of,
        event: Event { facts, valid, payload },
        task,
        files,
    }
}

/// A condition or a rendering that fails says nothing about where the event belongs: somebody has to look at it.
fn dead(event: &StoredEvent, span: &Span, error: &dyn std::fmt::Display) -> Stage {
    span.outcome("dead");
    span.fail("route_error");
    let reason = format!("route_error: {error}");
    let task = event.task_id.as_ref().map(logged);
    tracing::error!(source = event.source, event = %event.id, task, "a dead letter: {}", logged(&reason));
    Stage::Dead(reason)
}

/// The body as JSON, or as a string where it is none.
fn payload(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body)))
}

/// The task as its webhook told it, for a result that could not be fetched.
fn as_told(facts: &Facts) -> Task {
    let text = facts.message.clone().into_iter();
    Task {
        id: facts.task_id.clone().unwrap_or_default(),
        title: facts.title.clone(),
        url: facts.url.clone(),
        state: facts.stop_reason.as_deref().and_then(State::of_stop).unwrap_or_default(),
        stop_reason: facts.stop_reason.clone(),
        question: facts.question.clone(),
        structured_output: facts.structured_output.clone(),
        messages: text
            .map(|text| Message {
                role: "assistant".to_owned(),
                text,
                files: (0..facts.attachments.len()).collect(),
                ..Message::default()
            })
            .collect(),
        ..Task::default()
    }
}

/// The files that a webhook names.
fn attached(facts: &Facts) -> Vec<File> {
    facts
        .attachments
        .iter()
        .map(|attachment| File {
            name: attachment.name.clone(),
            size_bytes: attachment.size_bytes,
            provider_url: attachment.url.clone(),
            ..File::default()
        })
        .collect()
}
