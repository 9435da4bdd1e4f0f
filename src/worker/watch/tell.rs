//! The events of watches: what they say, and where they go.
//!
//! What must hold: one is about our own doing, so nothing of it is asked of a provider, and it waits for no proof, no fetch and no file;
//! and it never goes to the destination that it tells of.

use std::time::Duration;

use bytes::Bytes;
use humantime_serde::re::humantime::format_duration;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Environment;
use super::super::dispatch::{self, Known, Place};
use crate::clock;
use crate::event::{Facts, First, NewEvent, Verification, Watch};
use crate::provider::Source;
use crate::store::model::{Condition, Stage, StoredEvent, Watched};
use crate::store::view::TaskDetail;
use crate::task::Fetched;
use crate::text::one_line;

/// The most characters of why something was given up on.
const MAX_REASON: usize = 300;

/// The event that tells of `first`, and of all that are `count`ed with it.
pub(super) fn event(watch: Watch, source: &Source, first: &Watched, count: usize, now: Timestamp) -> NewEvent {
    let Watched { condition, raised_at, cleared_at, event: id, .. } = first;
    let alone = count == 1;
    let task_id = condition.task_id.clone().filter(|_| alone);
    let detail = |name: &str| condition.detail.get(name).filter(|_| alone).cloned().unwrap_or_default();
    let text = match (alone, cleared_at) {
        (true, None) => raised(watch, condition, *raised_at),
        (true, Some(_)) => cleared(watch, condition),
        (false, None) => format!("{count} more of `{}` at once.", watch.as_str()),
        (false, Some(_)) => format!("{count} more of `{}` are over.", watch.as_str()),
    };
    let body = json!({
        "watch": watch.as_str().trim_start_matches("watch."),
        "state": if cleared_at.is_some() { "cleared" } else { "raised" },
        "text": text,
        "count": count,
        "since": clock::rfc3339(condition.since),
        "raised_at": clock::rfc3339(*raised_at),
        "cleared_at": cleared_at.map(clock::rfc3339),
        "source": condition.source,
        "destination": condition.destination,
        "task_id": task_id,
        "event": detail("event"),
        "delivery": detail("delivery"),
        "reason": detail("reason"),
        "stops": detail("stops"),
        "day": detail("day"),
        "percent": detail("percent"),
        "credits": detail("credits"),
        "budget": detail("budget"),
    });
    NewEvent {
        id: *id,
        source: source.name().to_owned(),
        provider: source.provider(),
        received_at: now,
        verification: Verification::Watch,
        target: String::new(),
        headers: Vec::new(),
        body: Bytes::from(body.to_string()),
        kind: watch.as_str().to_owned(),
        provider_type: None,
        event_id: format!("{}:{id}", watch.as_str()),
        task_id,
        ping: false,
        collides: false,
        first: First::Prove,
    }
}

fn raised(watch: Watch, condition: &Condition, at: Timestamp) -> String {
    let lasted = lasted(condition.since, at);
    match (watch, condition.destination.as_deref()) {
        (Watch::TaskSilent, _) => format!("Nothing was heard of the task for {lasted}."),
        (Watch::TaskWaiting, _) => format!("The task has waited for an answer for {lasted}."),
        (Watch::NotDelivered, destination) => {
            format!("What is for `{}` has waited for {lasted}.", destination.unwrap_or_default())
        }
        (Watch::DeadLetter, destination) => {
            let reason = condition.detail["reason"].as_str().map(|reason| one_line(reason, MAX_REASON)).unwrap_or_default();
            match destination {
                Some(destination) => format!("A delivery to `{destination}` was given up on: {reason}"),
                None => format!("An event was given up on: {reason}"),
            }
        }
        (Watch::SourceSilent, _) => format!("No webhook: {}.", silence(condition)),
        (Watch::Budget, _) => {
            let [day, percent, credits, budget] = ["day", "percent", "credits", "budget"].map(|name| &condition.detail[name]);
            let day = day.as_str().unwrap_or_default();
            format!("`{}` has spent {credits} of {budget} credits on {day}: {percent} % are reached.", condition.source)
        }
    }
}

fn cleared(watch: Watch, condition: &Condition) -> String {
    match (watch, condition.destination.as_deref()) {
        (Watch::TaskSilent, _) => "The task was heard of, or has ended.".to_owned(),
        (Watch::TaskWaiting, _) => "The task waits no longer for an answer.".to_owned(),
        (Watch::NotDelivered, destination) => {
            format!("What was for `{}` has arrived, or was given up on.", destination.unwrap_or_default())
        }
        (Watch::DeadLetter, Some(destination)) => format!("The delivery to `{destination}` is no dead letter any more."),
        (Watch::DeadLetter, None) => "The event is no dead letter any more.".to_owned(),
        (Watch::SourceSilent, _) => format!("Webhooks of `{}` come again.", condition.source),
        (Watch::Budget, _) => format!("The budget of `{}` is no longer reached, as of a new day.", condition.source),
    }
}

/// What is wrong with the webhooks of a source, and what to do.
pub(super) fn silence(condition: &Condition) -> String {
    format!(
        "none came since {}, though {} stop(s) should have been told; see `taskhook webhooks list`, and register the webhook again",
        clock::rfc3339(condition.since),
        condition.detail["stops"].as_u64().unwrap_or_default()
    )
}

/// A time for people, in whole minutes.
fn lasted(since: Timestamp, at: Timestamp) -> String {
    let seconds = clock::since(since, at).as_secs();
    format_duration(Duration::from_secs(seconds - seconds % 60)).to_string()
}

/// What a watch event says.
pub(in super::super) fn facts(event: &StoredEvent, payload: &Value) -> Facts {
    Facts {
        event_id: event.event_id.clone(),
        kind: event.kind.clone(),
        task_id: event.task_id.clone(),
        message: payload["text"].as_str().map(str::to_owned),
        ..Facts::default()
    }
}

/// Where a watch event goes: on, with its task as it was last fetched.
pub(in super::super) async fn stage(environment: &Environment, source: &Source, event: &StoredEvent) -> Stage {
    let task = match &event.task_id {
        Some(task_id) => environment.store.task(source.name(), task_id).await,
        None => Ok(None),
    };
    let task = task.unwrap_or_else(|error| {
        tracing::warn!(source = source.name(), event = %event.id, error = %error, "a watch event goes out without its task: {error}");
        None
    });
    let fetched = task.and_then(as_fetched);
    let known = fetched.as_ref().map_or(Known::NotAsked, Known::Fetched);
    let envelope = dispatch::with_files(environment, source, event, known, Place::default(), &[]);
    dispatch::deliveries(environment, source, event, &envelope)
}

/// The task and its files, where it was fetched.
fn as_fetched(known: TaskDetail) -> Option<Fetched> {
    let task = serde_json::from_value(known.task?).ok()?;
    Some(Fetched { task, files: known.files.unwrap_or_default(), ..Fetched::default() })
}
