//! Deliveries: what is on its way, what arrived, and what was given up on, by destination.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::{
    Page, age, ago, badge, button, cell, choice, fact, facts, filters, input, link, more, notice, path, table, to_task,
};
use super::{Asked, Shown, Wanted, absent};
use crate::action::DestinationRow;
use crate::admin::api::{Admin, What};
use crate::admin::auth::{Caller, Scope};
use crate::store::model::Like;
use crate::store::view::{AttemptRow, DeliveryRow};

/// What deliveries are narrowed to, by where they stand.
const STATES: [(&str, &str); 5] =
    [("", "any"), ("pending", "pending"), ("delivered", "delivered"), ("dead", "dead"), ("discarded", "discarded")];

/// What deliveries can be narrowed to.
pub(super) const NARROWED: [&str; 5] = ["destination", "state", "source", "type", "task"];

/// The deliveries that are meant.
pub(super) fn like(asked: &Asked) -> Like {
    Like {
        destination: asked.text("destination"),
        state: asked.text("state"),
        source: asked.text("source"),
        kind: asked.text("type"),
        task: asked.text("task"),
        ..Like::default()
    }
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let found = admin.store.deliveries(like(&asked), asked.page()?).await?;
    let destinations = admin.actions.destinations().await?;
    let now = admin.days.0.now();
    let query = NARROWED.map(|name| (name, asked.get(name)));
    let many = matches!(asked.get("state"), Some("dead" | "pending")) && caller.scope == Scope::Act && !found.data.is_empty();
    let main = html! {
        @if asked.is_first() { (by_destination(&destinations, &caller, now)) }
        h2 { "Deliveries" }
        (filters("/deliveries", &html! {
            (choice("State", "state", asked.get("state"), &STATES))
            (input("Destination", "destination", asked.get("destination")))
            (input("Source", "source", asked.get("source")))
            (input("Task", "task", asked.get("task")))
        }))
        @if many {
            div .acts {
                a .button href=(link("/deliveries/all/retry", query)) { "Retry all of these …" }
                a .button href=(link("/deliveries/all/discard", query)) { "Discard all of these …" }
            }
        }
        @if found.data.is_empty() { p .empty { "No delivery." } } @else { (rows(&found.data, now)) }
        (more("/deliveries", &query, found.next_cursor.as_deref()))
    };
    let live = if asked.is_first() { "deliveries" } else { "" };
    Ok(Page { title: "Deliveries", section: "/deliveries", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

fn by_destination(destinations: &[DestinationRow], caller: &Caller, now: Timestamp) -> Markup {
    let dead = |name: &str| link("/deliveries", [("destination", Some(name)), ("state", Some("dead"))]);
    let pending = |name: &str| link("/deliveries", [("destination", Some(name)), ("state", Some("pending"))]);
    table(
        "Destinations",
        &["Destination", "State", "Pending", "Dead letters", "Act"],
        destinations.iter().map(|row| {
            let act = if row.paused_at.is_some() { "resume" } else { "pause" };
            let does = if row.paused_at.is_some() { "Resume" } else { "Pause" };
            vec![
                html! { strong { (row.name) } " " span .hint { (row.kind.unwrap_or("not configured any more")) } },
                html! {
                    (badge(row.state))
                    @if let Some(reason) = &row.reason { " " span .hint { (cell(reason)) } }
                    @if row.paused_at.is_some() { " " (ago(row.paused_at.as_deref(), now)) }
                },
                html! { a href=(pending(&row.name)) { (row.pending) } },
                html! { a href=(dead(&row.name)) class=[(row.dead > 0).then_some("bad")] { (row.dead) } },
                button(&path(&["destinations", &row.name, act]), caller, does),
            ]
        }),
    )
}

/// Deliveries, a row each.
pub(super) fn rows(deliveries: &[DeliveryRow], now: Timestamp) -> Markup {
    table(
        "Deliveries",
        &["Delivery", "State", "Age", "Event", "Attempts", "Result"],
        deliveries.iter().map(|row| {
            let last = row.attempts.last().and_then(|attempt| attempt.detail.as_deref());
            let result = row.reason.as_deref().or(last).unwrap_or_default();
            vec![
                html! { a href=(path(&["deliveries", &row.id])) { "to " (cell(&row.destination)) } },
                html! { (badge(&row.state)) @if row.replay > 0 { " " span .badge.calm { "replay " (row.replay) } } },
                age(Some(&row.created_at), now),
                html! { a href=(path(&["events", &row.event])) { (cell(&row.kind)) } },
                html! { (row.attempts.len()) },
                html! { (cell(result)) },
            ]
        }),
    )
}

pub(super) async fn one(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    asked: Wanted,
) -> Shown {
    let asked = Asked::of(asked)?;
    let id = admin.whole_id(What::Delivery, id).await?;
    let row = admin.store.delivery(&id).await?.ok_or_else(|| absent("delivery"))?;
    let (now, here) = (admin.days.0.now(), path(&["deliveries", &row.id]));
    let open = matches!(row.state.as_str(), "dead" | "pending");
    let main = html! {
        @if let Some(reason) = &row.reason { p .wrong { (cell(reason)) } }
        (facts([
            ("State", Some(badge(&row.state))),
            ("Destination", Some(html! { a href=(link("/deliveries", [("destination", Some(row.destination.as_str()))])) { (row.destination) } })),
            ("Event", Some(html! { a href=(path(&["events", &row.event])) { (cell(&row.kind)) } })),
            ("Task", row.task_id.as_deref().map(|task| html! { a href=(to_task(&row.source, task)) { code { (cell(task)) } } })),
            ("Route", fact(Some(&row.route))),
            ("Made", Some(ago(Some(&row.created_at), now))),
            ("Ended", row.ended_at.as_deref().map(|at| ago(Some(at), now))),
            ("Next attempt", row.due_at.as_deref().filter(|_| row.state == "pending").map(|at| ago(Some(at), now))),
            ("Out of order", row.out_of_order.then(|| html! { "it went before something that came earlier" })),
            ("Repeats", row.replay_of.as_deref().map(|id| html! { a href=(path(&["deliveries", id])) { code { (id) } } })),
            ("Our id", Some(html! { code { (row.id) } })),
        ]))
        @if open {
            div .acts {
                (button(&format!("{here}/retry"), &caller, "Try it again now"))
                (button(&format!("{here}/discard"), &caller, "Discard it"))
            }
        }
        h2 { "Attempts" }
        @if row.attempts.is_empty() { p .empty { "None yet." } } @else { (attempts(&row.attempts, now)) }
    };
    let title = format!("Delivery to {}", cell(&row.destination));
    Ok(Page { title: &title, section: "/deliveries", live: "deliveries", notice: notice(asked.get("notice")), main }
        .show(&caller))
}

fn attempts(attempts: &[AttemptRow], now: Timestamp) -> Markup {
    table(
        "Attempts",
        &["Attempt", "Outcome", "Began", "Took", "What was answered"],
        attempts.iter().map(|attempt| {
            let time = |at: Option<&str>| at.and_then(|at| at.parse::<Timestamp>().ok());
            let took = time(attempt.ended_at.as_deref()).zip(time(Some(&attempt.started_at)));
            vec![
                html! { (attempt.attempt) },
                badge(&attempt.outcome),
                ago(Some(&attempt.started_at), now),
                html! { @if let Some((end, begin)) = took { (end.as_millisecond() - begin.as_millisecond()) " ms" } @else { "–" } },
                html! { (cell(attempt.detail.as_deref().unwrap_or("nothing"))) },
            ]
        }),
    )
}
