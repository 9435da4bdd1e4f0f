//! One task: what it waits for, what it made and said, and all that is known to have happened to it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use serde_json::Value;

use super::layout::{Page, ago, badge, button, cell, fact, facts, notice, path, post, table, to_task};
use super::{Asked, Shown, Wanted, absent, deliveries, events, files, picture, question};
use crate::admin::api::Admin;
use crate::admin::auth::{Caller, Scope};
use crate::markdown::to_html;
use crate::store::model::Like;
use crate::store::view::{AnswerRow, ArchiveRow, Page as Limits, TaskDetail};
use crate::task::plain;
use crate::text::{size, visible};

/// The most characters of one message that are shown.
const MESSAGE: usize = 20_000;
/// The most of the newest messages that are shown.
const MESSAGES: usize = 40;
/// The most deliveries that are shown.
const DELIVERIES: usize = 50;

pub(super) async fn page(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path((source, id)): Path<(String, String)>,
    asked: Wanted,
) -> Shown {
    let asked = Asked::of(asked)?;
    let shown = admin.task_shown(&source, &id).await?.ok_or_else(|| absent("task"))?;
    let of_task = Like { source: Some(source.clone()), task: Some(id.clone()), ..Like::default() };
    let deliveries = admin.store.deliveries(of_task, Limits { limit: DELIVERIES, cursor: None }).await?.data;
    let (row, now, here) = (&shown.row, admin.days.0.now(), to_task(&source, &id));
    let none = Value::Null;
    let task = shown.task.as_ref().unwrap_or(&none);
    let waits = row.state.as_deref() == Some("waiting") && task["question"].is_object();
    let main = html! {
        @if let Some(error) = task["error"].as_str() { p .wrong { (cell(error)) } }
        @if waits { (question::form(&here, &task["question"], shown.answers_to.as_deref(), in_doubt(&shown.answers), &caller)) }
        (facts([
            ("State", Some(badge(row.state.as_deref().unwrap_or("new")))),
            ("Source", fact(Some(&row.source))),
            ("Cost", row.credits.map(|credits| html! { (plain(credits)) " credits" })),
            ("Used", used(&task["usage"])),
            ("Model", fact(task["model"].as_str())),
            ("Kind", fact(row.kind.as_deref())),
            ("First seen", Some(ago(Some(&row.first_seen_at), now))),
            ("Fetched", row.fetched_at.as_deref().map(|at| ago(Some(at), now))),
            ("Ours by", Some(html! { @match &row.proof { Some(proof) => (proof), None => "nothing yet: its events wait" } })),
            ("Deleted", row.deleted_at.as_deref().map(|at| ago(Some(at), now))),
            ("At the provider", row.url.as_deref().and_then(crate::markdown::link).map(|url| html! { a href=(url) rel="noreferrer" { "open it there" } })),
            ("Id", Some(html! { code { (cell(&row.task_id)) } })),
        ]))
        @if row.state.as_deref() == Some("running") { div .acts { (button(&format!("{here}/stop"), &caller, "Stop the task")) } }
        h2 { "What happened" }
        (timeline(&shown, now))
        (conversation(task, now))
        @if !shown.archive.is_empty() { h2 { "Files" } (archive(&shown)) }
        @if !shown.answers.is_empty() { h2 { "Answers" } (answers(&shown.answers, now)) }
        @if !waits && caller.scope == Scope::Act && row.state.as_deref() == Some("finished") { (follow_up(&here, &caller)) }
        h2 { "Deliveries" }
        @if deliveries.is_empty() { p .empty { "None." } } @else { (deliveries::rows(&deliveries, now)) }
        h2 { "Events" }
        @if shown.events.is_empty() { p .empty { "None." } } @else { (events::rows(&shown.events, now)) }
        @if let Some(output) = Some(&task["structured_output"]).filter(|output| !output.is_null()) {
            h2 { "Structured output" }
            pre tabindex="0" { (visible(&serde_json::to_string_pretty(output).unwrap_or_default())) }
        }
    };
    let title = cell(row.title.as_deref().filter(|title| !title.is_empty()).unwrap_or(&row.task_id));
    let live = "tasks events deliveries";
    Ok(Page { title: &title, section: "/tasks", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

/// Whether an answer was sent of which nobody knows whether it arrived.
fn in_doubt(answers: &[AnswerRow]) -> bool {
    answers.last().is_some_and(|answer| answer.state == "unknown")
}

fn used(usage: &Value) -> Option<Markup> {
    let parts = [
        ("input_tokens", " tokens in"),
        ("output_tokens", " tokens out"),
        ("compute_seconds", " s of computing"),
        ("cost_usd", " US dollars"),
    ];
    let told: Vec<_> = parts.iter().filter(|(name, _)| usage[name].is_number()).collect();
    (!told.is_empty()).then(|| {
        html! { @for (index, (name, unit)) in told.iter().enumerate() { @if index > 0 { ", " } (usage[name].to_string()) (unit) } }
    })
}

fn timeline(shown: &TaskDetail, now: Timestamp) -> Markup {
    let moments = shown.timeline.iter().filter_map(|moment| {
        let at = moment.at.as_deref().or(moment.provider_at.as_deref())?;
        Some((moment.kind, at.parse::<Timestamp>().ok()?))
    });
    let rows = shown.timeline.iter().map(|moment| {
        let what = html! { (cell(&moment.text)) };
        vec![
            ago(moment.at.as_deref().or(moment.provider_at.as_deref()), now),
            html! { (moment.kind) },
            match (&moment.event, &moment.id) {
                (_, Some(id)) if moment.kind == "delivery" => html! { a href=(path(&["deliveries", id])) { (what) } },
                (Some(event), _) => html! { a href=(path(&["events", event])) { (what) } },
                _ => what,
            },
        ]
    });
    html! {
        (picture::timeline(&moments.collect::<Vec<_>>()))
        details open[shown.timeline.len() <= 12] { summary { (shown.timeline.len()) " moments" } (table("Timeline", &["When", "What", "Detail"], rows)) }
    }
}

fn conversation(task: &Value, now: Timestamp) -> Markup {
    let messages: Vec<_> = task["messages"].as_array().into_iter().flatten().collect();
    if messages.is_empty() {
        return html! {};
    }
    let hidden = messages.len().saturating_sub(MESSAGES) as u64 + task["messages_omitted"].as_u64().unwrap_or_default();
    html! {
        h2 { "Conversation" }
        @if hidden > 0 { p .hint { (hidden) " earlier messages are not shown." } }
        ol .talk {
            @for message in messages.iter().skip(messages.len().saturating_sub(MESSAGES)) {
                @let role = if message["role"] == "user" { "user" } else { "agent" };
                li class=(role) {
                    p .who { (role) @if let Some(at) = message["created_at"].as_str() { ", " (ago(Some(at), now)) } }
                    // `markdown` lets nothing through that is a tag, a picture or an address of a script.
                    div .said { (PreEscaped(to_html(message["text"].as_str().unwrap_or_default(), MESSAGE))) }
                }
            }
        }
    }
}

fn archive(shown: &TaskDetail) -> Markup {
    let here = |row: &ArchiveRow| {
        row.sha256.as_deref().map(|sha256| files::link(&shown.row.source, &shown.row.task_id, sha256, &row.name))
    };
    let rows = shown.archive.iter().map(|row| {
        vec![
            here(row).map_or_else(|| html! { (cell(&row.name)) }, |link| html! { a href=(link) { (cell(&row.name)) } }),
            badge(row.status.as_str()),
            html! { @if let Some(bytes) = row.size_bytes { (size(bytes)) } },
            html! { (cell(row.reason.as_deref().unwrap_or_default())) },
        ]
    });
    html! {
        (table("Files", &["Name", "Status", "Size", "Why"], rows))
        @for row in &shown.archive { @if let Some(link) = here(row) { (files::preview(&row.name, &link)) } }
    }
}

fn answers(answers: &[AnswerRow], now: Timestamp) -> Markup {
    table(
        "Answers",
        &["Answer", "State", "By", "When", "Why"],
        answers.iter().map(|row| {
            vec![
                html! { (cell(row.content.as_deref().unwrap_or(&row.kind))) },
                badge(&row.state),
                html! { (cell(&row.by)) },
                ago(Some(&row.given_at), now),
                html! { (cell(row.reason.as_deref().unwrap_or_default())) },
            ]
        }),
    )
}

/// A task that ended goes on when something is said to it.
fn follow_up(here: &str, caller: &Caller) -> Markup {
    html! {
        details {
            summary { "Say something to it, so that it goes on" }
            (post(&format!("{here}/answer"), caller, &html! {
                input type="hidden" name="say" value="reply";
                label { span { "Your message" } textarea name="message" rows="3" required {} }
                div .acts { button { "Send it" } }
            }))
        }
    }
}
