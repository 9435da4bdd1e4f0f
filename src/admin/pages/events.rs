//! The live list of events.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::{Page, age, badge, cell, choice, filters, input, more, notice, path, table, time, to_task};
use super::{Asked, Shown, Wanted};
use crate::admin::api::Admin;
use crate::admin::auth::Caller;
use crate::store::view::{EventFilter, EventRow};

/// What events are narrowed to, by where they stand.
const STATES: [(&str, &str); 9] = [
    ("", "any"),
    ("proving", "proving"),
    ("fetching", "fetching"),
    ("archiving", "archiving"),
    ("done", "done"),
    ("kept", "kept"),
    ("dead", "dead"),
    ("quarantined", "quarantined"),
    ("ping", "ping"),
];

pub(super) async fn page(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let filter = EventFilter {
        source: asked.text("source"),
        kind: asked.text("type"),
        task_id: asked.text("task"),
        state: asked.text("state"),
        since: asked.time("since")?,
        until: asked.time("until")?,
        text: asked.words()?,
    };
    let found = admin.store.events(filter, asked.page()?).await?;
    let names = ["text", "source", "type", "task", "state", "since", "until"];
    let query = names.map(|name| (name, asked.get(name)));
    let main = html! {
        (filters("/events", &html! {
            (input("Title or id", "text", asked.get("text")))
            (choice("State", "state", asked.get("state"), &STATES))
            (input("Source", "source", asked.get("source")))
            (input("Type", "type", asked.get("type")))
            (input("Task", "task", asked.get("task")))
            (time("From (UTC)", "since", asked.get("since")))
            (time("Until (UTC)", "until", asked.get("until")))
        }))
        @if found.data.is_empty() { p .empty { "No event." } } @else { (rows(&found.data, admin.days.0.now())) }
        (more("/events", &query, found.next_cursor.as_deref()))
    };
    let live = if asked.is_first() { "events" } else { "" };
    Ok(Page { title: "Events", section: "/events", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

/// Events, a row each.
pub(super) fn rows(events: &[EventRow], now: Timestamp) -> Markup {
    table(
        "Events",
        &["Event", "State", "Age", "Source", "Task"],
        events.iter().map(|event| {
            let kind = if event.ping { "ping" } else { event.provider_type.as_deref().unwrap_or(&event.kind) };
            vec![
                html! {
                    a href=(path(&["events", &event.id])) { (cell(kind)) }
                    @if event.verification == "api" { " " span .badge.calm { "recovered" } }
                    @if event.collision_of.is_some() { " " span .badge.warn { "collision" } }
                    @if event.repeats > 0 { " " span .badge.calm { "came " (event.repeats + 1) " times" } }
                },
                badge(&event.state),
                age(Some(&event.received_at), now),
                html! { (event.source) },
                html! {
                    @if let Some(task) = &event.task_id { a href=(to_task(&event.source, task)) { code { (cell(task)) } } }
                },
            ]
        }),
    )
}
