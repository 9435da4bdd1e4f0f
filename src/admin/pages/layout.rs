//! What all pages share: the frame around them, and the small parts that they are made of.
//!
//! What must hold: whatever stands on a page is escaped, since `maud` does so with every value. What is not, is a [`PreEscaped`] in two
//! places only: the cells of a table, which are markup already, and the conversation, which `markdown` made safe.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::assets;
use crate::admin::api::Refused;
use crate::admin::auth::{Caller, Scope};
use crate::text::one_line;

/// The sections of the dashboard: their paths, and their names.
const SECTIONS: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/tasks", "Tasks"),
    ("/events", "Events"),
    ("/deliveries", "Deliveries"),
    ("/rejections", "Rejections"),
    ("/sources", "Sources"),
];

/// The most characters of a cell of a table.
const CELL: usize = 160;

/// A page.
pub(super) struct Page<'a> {
    /// Its title.
    pub(super) title: &'a str,
    /// The section that it is in.
    pub(super) section: &'a str,
    /// What of it changes when something is news: see `live.rs`. Empty if nothing does.
    pub(super) live: &'a str,
    /// What was just done, see [`notice`].
    pub(super) notice: Option<&'static str>,
    /// What stands on it.
    pub(super) main: Markup,
}

impl Page<'_> {
    /// The whole page, for `caller`.
    pub(super) fn show(self, caller: &Caller) -> Response {
        let Self { title, section, live, notice, main } = self;
        let body = html! {
            a .skip href="#main" { "Skip to the content" }
            header {
                a .brand href="/" { "taskhook" }
                nav aria-label="Sections" {
                    @for (path, name) in SECTIONS {
                        a href=(path) aria-current=[(path == section).then_some("page")] { (name) }
                    }
                }
                span #live .live hidden[live.is_empty()] role="status" { "not live" }
                @if caller.signed_in {
                    (post("/sign-out", caller, &html! { button .plain { "Sign out" } }))
                }
            }
            main #main data-live=(live) data-since=(caller.since) {
                @if let Some(said) = notice { p .notice role="status" { (said) } }
                h1 { (title) }
                (main)
            }
        };
        frame(title, StatusCode::OK, &body)
    }
}

/// A page that only says something: why there is nothing to see, or why something was not done.
pub(super) fn told(status: StatusCode, title: &str, text: &str, back: &str) -> Response {
    let body = html! {
        header { a .brand href="/" { "taskhook" } }
        main #main { h1 { (title) } p { (text) } p { a href=(back) { "Go back" } } }
    };
    frame(title, status, &body)
}

/// The same, of what the API would have answered.
pub(super) fn refused(refused: &Refused, back: &str) -> Response {
    let title = if refused.status() == StatusCode::NOT_FOUND { "Not found" } else { "That was not done" };
    told(refused.status(), title, refused.title(), back)
}

/// A whole document.
pub(super) fn frame(title: &str, status: StatusCode, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (one_line(title, 80)) " · taskhook" }
                link rel="icon" href=(assets::ICON.path()) type="image/svg+xml";
                link rel="stylesheet" href=(assets::STYLE.path());
                script src=(assets::SCRIPT.path()) defer {}
            }
            body { (body) }
        }
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Html(page.into_string())).into_response()
}

/// A form that changes something; it brings what only a page of ours knows.
pub(super) fn post(action: &str, caller: &Caller, inside: &Markup) -> Markup {
    html! {
        form method="post" action=(action) {
            input type="hidden" name="form_token" value=(caller.form_token);
            (inside)
        }
    }
}

/// A button that changes something, for who may; nothing for who may not.
pub(super) fn button(action: &str, caller: &Caller, name: &str) -> Markup {
    html! { @if caller.scope == Scope::Act { (post(action, caller, &html! { button { (name) } })) } }
}

/// A word for where something stands, in the colour of how that is.
pub(super) fn badge(state: &str) -> Markup {
    let kind = match state {
        "done" | "delivered" | "finished" | "ok" | "archived" | "sent" | "signature" => "good",
        "dead" | "failed" | "quarantined" | "refused" | "degraded" => "bad",
        "waiting" | "unknown" | "paused" | "too_large" | "asks" => "warn",
        _ => "calm",
    };
    html! { span class={ "badge " (kind) } { (state.replace('_', " ")) } }
}

/// An age: how old, and since when exactly on a closer look.
pub(super) fn age(at: Option<&str>, now: Timestamp) -> Markup {
    moment(at, now, "")
}

/// A time: how long ago, and when exactly on a closer look.
pub(super) fn ago(at: Option<&str>, now: Timestamp) -> Markup {
    moment(at, now, " ago")
}

fn moment(at: Option<&str>, now: Timestamp, behind: &str) -> Markup {
    let Some(at) = at else { return html! { "–" } };
    let Ok(then) = at.parse::<Timestamp>() else { return html! { (at) } };
    let shown = at.get(..19).unwrap_or(at).replace('T', " ");
    let seconds = now.as_second() - then.as_second();
    // What is to come is not ago.
    let behind = if seconds < 0 { "" } else { behind };
    html! { time datetime=(at) title={ (shown) " UTC" } { (span(seconds)) (behind) } }
}

/// A number of seconds for people, in its largest unit.
pub(super) fn span(seconds: i64) -> String {
    let (amount, before) = (seconds.unsigned_abs(), if seconds < 0 { "in " } else { "" });
    let (amount, unit) = match amount {
        0..120 => (amount, "s"),
        120..7_200 => (amount / 60, "min"),
        7_200..172_800 => (amount / 3_600, "h"),
        _ => (amount / 86_400, "d"),
    };
    format!("{before}{amount} {unit}")
}

/// Text from outside, on one line of a cell.
pub(super) fn cell(text: &str) -> String {
    one_line(text, CELL)
}

/// A table: its name for who does not see it, its columns, its rows. On a narrow screen each row is a block, so each cell says what it is.
pub(super) fn table(name: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<Markup>>) -> Markup {
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.into_iter().map(Markup::into_string).collect()).collect();
    // A column that says nothing is left out.
    let says = |index: usize| rows.iter().any(|row| row.get(index).is_some_and(|cell| !cell.is_empty()));
    let columns: Vec<(usize, &str)> = columns.iter().copied().enumerate().filter(|(index, _)| says(*index)).collect();
    html! {
        table {
            caption .unseen { (name) }
            thead { tr { @for (_, column) in &columns { th scope="col" { (column) } } } }
            tbody {
                @for row in &rows {
                    tr {
                        @for (index, column) in &columns {
                            // It was markup, and is written as it was.
                            td data-label=(column) { div { (PreEscaped(row.get(*index).map_or("", String::as_str))) } }
                        }
                    }
                }
            }
        }
    }
}

/// What is known of something, name by name; what is not known is left out.
pub(super) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, Option<Markup>)>) -> Markup {
    html! {
        dl .facts {
            @for (name, value) in facts {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// A text as a fact.
pub(super) fn fact(text: Option<&str>) -> Option<Markup> {
    text.filter(|text| !text.is_empty()).map(|text| html! { (cell(text)) })
}

/// A choice of a filter.
pub(super) fn choice(label: &str, name: &str, chosen: Option<&str>, among: &[(&str, &str)]) -> Markup {
    html! {
        label {
            span { (label) }
            select name=(name) {
                @for (value, shown) in among {
                    option value=(value) selected[chosen.unwrap_or_default() == *value] { (shown) }
                }
            }
        }
    }
}

/// A text of a filter.
pub(super) fn input(label: &str, name: &str, value: Option<&str>) -> Markup {
    html! { label { span { (label) } input name=(name) value=(value.unwrap_or_default()) autocomplete="off" spellcheck="false"; } }
}

/// A time of a filter; who has no field for that types it.
pub(super) fn time(label: &str, name: &str, value: Option<&str>) -> Markup {
    html! { label { span { (label) } input type="datetime-local" name=(name) value=(value.unwrap_or_default()); } }
}

/// The filters of a list.
pub(super) fn filters(path: &str, inside: &Markup) -> Markup {
    html! { form .filters action=(path) role="search" { (inside) button { "Show" } } }
}

/// Where the list goes on: `query` is what it was narrowed to.
pub(super) fn more(path: &str, query: &[(&str, Option<&str>)], next: Option<&str>) -> Markup {
    let Some(next) = next else { return html! {} };
    html! { p .more { a href=(link(path, query.iter().copied().chain([("cursor", Some(next))]))) { "Older" } } }
}

/// A path with a query.
pub(super) fn link<'a>(path: &str, query: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut to = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in query {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            to.append_pair(name, value);
        }
    }
    let query = to.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A path whose segments are texts from outside.
pub(super) fn path(segments: &[&str]) -> String {
    let mut to = String::new();
    for segment in segments {
        to.push('/');
        to.extend(percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC));
    }
    to
}

/// Of a task, its page.
pub(super) fn to_task(source: &str, task_id: &str) -> String {
    path(&["tasks", source, task_id])
}

/// What is said on a page that was led to when something was done.
pub(super) fn notice(code: Option<&str>) -> Option<&'static str> {
    Some(match code? {
        "answered" => "Your answer was sent: the task goes on.",
        "declined" => "You declined.",
        "stopped" => "The task was told to stop.",
        "retried" => "It is tried again.",
        "behind" => "It is tried again as soon as what is before it has gone.",
        "discarded" => "It is discarded.",
        "replayed" => "It is handed on again, to new deliveries.",
        "released" => "It is out of quarantine, and on its way.",
        "paused" => "Nothing is sent to it until you resume.",
        "resumed" => "What waited for it is sent.",
        "registered" => "Its webhook is registered.",
        "known" => "Its webhook was registered already.",
        "reached" => "The public URL leads here.",
        "many" => "Done.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let told = [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 d"), (-5, "in 5 s")];
        for (seconds, text) in told {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn what_stands_in_a_link_stays_in_its_place() {
        assert_eq!(path(&["tasks", "a/b", "../x?y"]), "/tasks/a%2Fb/%2E%2E%2Fx%3Fy");
        assert_eq!(link("/tasks", [("text", Some("a&b=c")), ("state", None), ("source", Some(""))]), "/tasks?text=a%26b%3Dc");
        assert_eq!(link("/tasks", []), "/tasks");
    }
}
