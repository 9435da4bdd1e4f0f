//! One event: what came, what became of it, and where it would go if it were handed on again.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use maud::{Markup, html};
use serde_json::Value;

use super::layout::{Page, ago, badge, button, cell, fact, facts, notice, path, post, table, to_task};
use super::{Asked, Shown, Wanted, absent, deliveries};
use crate::admin::api::{Admin, What};
use crate::admin::auth::{Caller, Scope};
use crate::store::view::EventDetail;
use crate::text::{escape_json, visible};

/// Headers that describe a connection, and would be wrong on another one.
const OF_CONNECTION: [&str; 5] = ["host", "content-length", "connection", "transfer-encoding", "accept-encoding"];

impl Admin {
    /// An event as it may be shown.
    async fn shown(&self, id: String) -> Result<EventDetail, super::Wrong> {
        let id = self.whole_id(What::Event, id).await?;
        self.event_shown(&id).await?.ok_or_else(|| absent("event"))
    }
}

pub(super) async fn page(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    asked: Wanted,
) -> Shown {
    let asked = Asked::of(asked)?;
    let event = admin.shown(id).await?;
    let (row, now) = (&event.row, admin.days.0.now());
    let here = path(&["events", &row.id]);
    let pretty = if event.payload.is_string() { None } else { serde_json::to_string_pretty(&event.payload).ok() };
    let pretty = pretty.map(|pretty| visible(&pretty));
    let raw = raw(&event.payload);
    let urls = admin.public_urls.current();
    // Where no public URL is set, it listens on this machine, by default here.
    let to = urls.first().map_or("http://127.0.0.1:8080", String::as_str);
    let main = html! {
        @if let Some(reason) = &row.reason { p .wrong { (reason) } }
        (facts([
            ("State", Some(badge(&row.state))),
            ("Type", Some(html! { code { (cell(row.provider_type.as_deref().unwrap_or(&row.kind))) } })),
            ("Source", fact(Some(&row.source))),
            ("Task", row.task_id.as_deref().map(|task| html! { a href=(to_task(&row.source, task)) { code { (cell(task)) } } })),
            ("Received", Some(ago(Some(&row.received_at), now))),
            ("Verified by", Some(html! { (row.verification) })),
            ("Came again", (row.repeats > 0).then(|| html! { (row.repeats) " time(s), last " (ago(event.last_repeat_at.as_deref(), now)) })),
            ("Collides with", row.collision_of.as_deref().map(|id| html! { a href=(path(&["events", id])) { code { (id) } } })),
            ("Replayed", (event.replays > 0).then(|| html! { (event.replays) " time(s), last " (ago(event.replayed_at.as_deref(), now)) })),
            ("Released", event.released_at.as_deref().map(|at| ago(Some(at), now))),
            ("Provider's id", fact(Some(&row.event_id))),
            ("Our id", Some(html! { code { (row.id) } })),
        ]))
        div .acts {
            @if caller.scope == Scope::Act && !row.ping { a .button href={ (here) "/replay" } { "Replay …" } }
            @if row.state == "quarantined" { (button(&format!("{here}/release"), &caller, "Release: the task is mine")) }
        }
        (work(&event))
        h2 { "Deliveries" }
        @if event.deliveries.is_empty() { p .empty { "None: no route took it, or it is not that far." } }
        @else { (deliveries::rows(&event.deliveries, now)) }
        h2 { "Body" }
        @if let Some(pretty) = &pretty { pre tabindex="0" { (pretty) } details { summary { "As it came" } pre tabindex="0" { (raw) } } }
        @else { pre tabindex="0" { (raw) } }
        h2 { "Headers" }
        (headers(&event.headers))
        details {
            summary { "Send it again with curl" }
            p .hint { "Credentials were not kept, so a receiver that verifies refuses it." }
            pre #curl tabindex="0" { (curl(&event, to)) }
            button data-copy="curl" hidden { "Copy" }
        }
    };
    let title = format!("{} event", cell(row.provider_type.as_deref().unwrap_or(&row.kind)));
    Ok(Page { title: &title, section: "/events", live: "events deliveries", notice: notice(asked.get("notice")), main }
        .show(&caller))
}

/// A body, as it came: what cannot be seen, or changes how the rest is seen, is escaped or left out.
fn raw(payload: &Value) -> String {
    payload.as_str().map_or_else(|| escape_json(&payload.to_string()), visible)
}

/// What waits to be done for it, or why that was given up.
fn work(event: &EventDetail) -> Markup {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let waits = event.work.as_ref();
    let reasons = waits.and_then(|work| work["reasons"].as_array()).map(|reasons| reasons.iter().map(text).collect::<Vec<_>>());
    let reasons = reasons.filter(|reasons| !reasons.is_empty()).unwrap_or_else(|| event.reasons.clone());
    html! {
        @if let Some(due) = waits.and_then(|work| work["due_at"].as_str()) {
            p { "It is worked on; the next attempt is at " time datetime=(due) { (due) } "." }
        }
        @if !reasons.is_empty() {
            details open { summary { "What went wrong so far" } ol .reasons { @for reason in &reasons { li { (cell(reason)) } } } }
        }
    }
}

/// Headers, a row each.
pub(super) fn headers(headers: &[(String, String)]) -> Markup {
    let rows = headers.iter().map(|(name, value)| vec![html! { code { (cell(name)) } }, html! { code { (visible(value)) } }]);
    table("Headers", &["Name", "Value"], rows)
}

/// A command that sends it again, to the public URL `to`.
fn curl(event: &EventDetail, to: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut command = format!("curl -X POST {}", quoted(&format!("{to}{}", event.target)));
    for (name, value) in event.headers.iter().filter(|(name, _)| !OF_CONNECTION.contains(&name.to_ascii_lowercase().as_str())) {
        let _ = write!(command, " \\\n  -H {}", quoted(&visible(&format!("{name}: {value}"))));
    }
    format!("{command} \\\n  --data-binary {}", quoted(&raw(&event.payload)))
}

/// Asks before a replay, and says where the event would go now.
pub(super) async fn preview(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Shown {
    let event = admin.shown(id).await?;
    let goes = admin.actions.preview(&event.row.id).await?;
    let here = path(&["events", &event.row.id]);
    let main = html! {
        @match &goes {
            Ok(targets) if targets.is_empty() => p { "By the routes of now it would go nowhere." },
            Ok(targets) => {
                p { "By the routes of now it goes to:" }
                (table("Where it goes", &["Destination", "Route"], targets.iter().map(|target| {
                    vec![html! { strong { (target.destination) } }, html! { (cell(&target.route)) }]
                })))
                p .hint { "As new deliveries, with ids of their own, marked " code { "replayed" } "." }
            }
            Err(reason) => p .wrong { "It would become a dead letter: " (reason) },
        }
        div .acts {
            (post(&format!("{here}/replay"), &caller, &html! { button { "Replay it" } }))
            a href=(here) { "Back to the event" }
        }
    };
    Ok(Page { title: "Replay an event", section: "/events", live: "", notice: None, main }.show(&caller))
}
