//! The list of tasks.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::{Page, age, badge, cell, choice, filters, input, more, notice, table, time, to_task};
use super::{Asked, Shown, Wanted};
use crate::admin::api::Admin;
use crate::admin::auth::Caller;
use crate::store::view::{TaskFilter, TaskRow};
use crate::task::plain;

/// What tasks are narrowed to, by where they stand.
const STATES: [(&str, &str); 8] = [
    ("", "any"),
    ("open", "open"),
    ("running", "running"),
    ("waiting", "waiting for an answer"),
    ("finished", "finished"),
    ("failed", "failed"),
    ("stopped", "stopped"),
    ("canceled", "canceled"),
];

pub(super) async fn page(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let filter = TaskFilter {
        source: asked.text("source"),
        state: asked.text("state"),
        since: asked.time("since")?,
        until: asked.time("until")?,
        text: asked.words()?,
    };
    let found = admin.store.tasks(filter, asked.page()?).await?;
    let query = ["text", "source", "state", "since", "until"].map(|name| (name, asked.get(name)));
    let main = html! {
        (filters("/tasks", &html! {
            (input("Title or id", "text", asked.get("text")))
            (choice("State", "state", asked.get("state"), &STATES))
            (input("Source", "source", asked.get("source")))
            (time("From (UTC)", "since", asked.get("since")))
            (time("Until (UTC)", "until", asked.get("until")))
        }))
        @if found.data.is_empty() { p .empty { "No task." } } @else { (rows(&found.data, admin.days.0.now())) }
        (more("/tasks", &query, found.next_cursor.as_deref()))
    };
    let live = if asked.is_first() { "tasks" } else { "" };
    Ok(Page { title: "Tasks", section: "/tasks", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

/// Tasks, a row each.
pub(super) fn rows(tasks: &[TaskRow], now: Timestamp) -> Markup {
    table(
        "Tasks",
        &["Task", "State", "Age", "Source", "Credits"],
        tasks.iter().map(|task| {
            let title = task.title.as_deref().filter(|title| !title.is_empty()).unwrap_or(&task.task_id);
            vec![
                html! {
                    a href=(to_task(&task.source, &task.task_id)) { (cell(title)) }
                    @if let Some(question) = &task.question { span .asks { (cell(question)) } }
                },
                badge(task.state.as_deref().unwrap_or("new")),
                age(Some(&task.first_seen_at), now),
                html! { (task.source) },
                html! { @if let Some(credits) = task.credits { (plain(credits)) } },
            ]
        }),
    )
}
