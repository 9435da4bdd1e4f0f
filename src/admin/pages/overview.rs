//! The first page: what needs somebody, first; then how it goes.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use super::layout::{Page, age, cell, link, notice, path, table, to_task};
use super::{Asked, Shown, Wanted, charts, deliveries, events, tasks};
use crate::admin::api::Admin;
use crate::admin::auth::Caller;
use crate::store::model::Like;
use crate::store::view::{EventFilter, Page as Limits, TaskFilter, WatchRow};
use crate::telemetry::Reason;

/// How many rows of each kind are shown.
const FEW: usize = 5;

const FIRST: Limits = Limits { limit: FEW, cursor: None };

pub(super) async fn page(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let now = admin.days.0.now();
    let store = &admin.store;
    let waiting = store.tasks(TaskFilter { state: Some("waiting".to_owned()), ..TaskFilter::default() }, FIRST).await?;
    let dead = store.deliveries(Like { state: Some("dead".to_owned()), ..Like::default() }, FIRST).await?;
    let stuck = store.events(EventFilter { state: Some("dead".to_owned()), ..EventFilter::default() }, FIRST).await?;
    let quarantined =
        store.events(EventFilter { state: Some("quarantined".to_owned()), ..EventFilter::default() }, FIRST).await?;
    let watches = store.watches(None, Limits { limit: ROWS, cursor: None }).await?;
    let newest = store.tasks(TaskFilter::default(), FIRST).await?;
    let heard = store.events(EventFilter::default(), FIRST).await?;
    let degraded = admin.actions.degraded();
    let calm = waiting.data.is_empty()
        && dead.data.is_empty()
        && stuck.data.is_empty()
        && quarantined.data.is_empty()
        && watches.data.is_empty()
        && degraded.is_empty();
    let empty = heard.data.is_empty() && newest.data.is_empty();
    let charts = charts::charts(&admin, asked.get("over"), now).await?;
    let main = html! {
        @if calm && !empty { p .calm-note { "Nothing needs you." } }
        @if !degraded.is_empty() { (part("What does not work", "/sources", "Sources", &reasons(&degraded, now))) }
        @if !waiting.data.is_empty() {
            (part("Tasks that wait for your answer", "/tasks?state=waiting", "All that wait", &tasks::rows(&waiting.data, now)))
        }
        @if !dead.data.is_empty() {
            (part("Results that did not arrive", "/deliveries?state=dead", "All dead letters", &deliveries::rows(&dead.data, now)))
        }
        @if !stuck.data.is_empty() {
            (part("Events that were given up on", "/events?state=dead", "All of them", &events::rows(&stuck.data, now)))
        }
        @if !quarantined.data.is_empty() {
            (part("Events of tasks that your key cannot see", "/events?state=quarantined", "All in quarantine", &events::rows(&quarantined.data, now)))
        }
        @if !watches.data.is_empty() { (part("What was noticed", "/events", "Events", &noticed(&watches.data, now))) }
        @if empty { (begin(&admin)) } @else {
            (charts)
            (part("Newest tasks", "/tasks", "All tasks", &tasks::rows(&newest.data, now)))
            (part("Newest events", "/events", "All events", &events::rows(&heard.data, now)))
        }
    };
    let live = "events tasks deliveries watches health";
    Ok(Page { title: "Overview", section: "/", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

/// How many watches are shown.
const ROWS: usize = 20;

fn part(title: &str, more: &str, all: &str, inside: &Markup) -> Markup {
    html! { section { h2 { (title) } (inside) p .more { a href=(more) { (all) } } } }
}

fn reasons(reasons: &[Reason], now: jiff::Timestamp) -> Markup {
    let rows = reasons.iter().map(|reason| {
        let since = crate::clock::rfc3339(reason.since);
        vec![html! { strong { (cell(&reason.part)) } }, html! { (reason.reason) }, age(Some(&since), now)]
    });
    table("What does not work", &["Part", "Why", "Since"], rows)
}

fn noticed(watches: &[WatchRow], now: jiff::Timestamp) -> Markup {
    let rows = watches.iter().map(|row| {
        let about = row.detail["text"].as_str();
        vec![
            html! { a href=(path(&["events", &row.event])) { (row.kind.trim_start_matches("watch.").replace('_', " ")) } },
            html! {
                @if let Some(text) = about { (cell(text)) " " }
                @if let Some(task) = &row.task_id { a href=(to_task(&row.source, task)) { code { (cell(task)) } } }
                @if let Some(name) = &row.destination { " " a href=(link("/deliveries", [("destination", Some(name.as_str()))])) { (name) } }
            },
            html! { (row.source) },
            age(Some(&row.since), now),
        ]
    });
    table("What was noticed", &["What", "About", "Source", "Since"], rows)
}

/// What to do where nothing has come yet.
fn begin(admin: &Admin) -> Markup {
    let url = admin.public_urls.current().first().cloned();
    html! {
        section .begin {
            h2 { "Nothing has come yet" }
            ol {
                li { "See whether the configuration holds, and whether the world reaches you:" (command("taskhook check")) }
                li {
                    @match &url {
                        Some(url) => { "Tell the provider where to send. Events are to come to " code { (url) } "." },
                        None => "Set `server.public_url` to the address that the world reaches you by, then tell the provider.",
                    }
                    (command("taskhook webhooks register"))
                    "On a laptop, a tunnel does both:" (command("taskhook tunnel --register"))
                }
                li { "Have something done:" (command("taskhook tasks create \"What is 2 + 2?\"")) }
            }
            p { "The event is here as soon as it comes; this page need not be loaded again." }
        }
    }
}

/// A command, with a button that copies it.
fn command(text: &str) -> Markup {
    let id = format!("c{}", text.bytes().map(u32::from).sum::<u32>());
    html! { div .command { code id=(id) { (text) } button .plain data-copy=(id) hidden { "Copy" } } }
}
