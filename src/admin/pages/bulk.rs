//! Many deliveries at once: how many they are is said before anything is done.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

use super::deliveries::{NARROWED, like};
use super::layout::{Page, link, post, told};
use super::{Asked, Fields, Sent, Shown, Wanted, Wrong, absent};
use crate::action::{MANY, Many};
use crate::admin::api::{Admin, Refused};
use crate::admin::auth::Caller;
use crate::store::model::{Act, Like};

/// Refuses deliveries to which nothing can be done any more.
fn open(like: Like) -> Result<Like, Wrong> {
    if matches!(like.state.as_deref(), Some("dead" | "pending")) {
        return Ok(like);
    }
    let title = "what arrived, or was discarded, is neither tried again nor discarded: choose those that are dead or pending";
    Err(Refused::new(StatusCode::BAD_REQUEST, "filter_invalid", title).into())
}

fn act(word: &str) -> Result<Act, Wrong> {
    match word {
        "retry" => Ok(Act::Retry),
        "discard" => Ok(Act::Discard),
        _ => Err(absent("page")),
    }
}

/// Asks, with the count.
pub(super) async fn ask(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(word): Path<String>,
    asked: Wanted,
) -> Shown {
    let asked = Asked::of(asked)?;
    let many = Many { act: act(&word)?, like: open(like(&asked))?, dry_run: true, limit: MANY, after: 0 };
    let count = admin.actions.many(&many).await?;
    let query = NARROWED.map(|name| (name, asked.get(name)));
    let back = link("/deliveries", query);
    let more = if count.next_cursor.is_some() { " at least" } else { "" };
    let main = html! {
        p { "These are" (more) " " strong { (count.matched) } " deliveries:" }
        ul { @for (name, value) in query { @if let Some(value) = value { li { (name) " " code { (value) } } } } }
        div .acts {
            (post(&format!("/deliveries/all/{word}"), &caller, &html! {
                @for (name, value) in query { @if let Some(value) = value { input type="hidden" name=(name) value=(value); } }
                button disabled[count.matched == 0] { @if word == "retry" { "Retry them all" } @else { "Discard them all" } }
            }))
            a href=(back) { "Back" }
        }
    };
    let title = if word == "retry" { "Retry many" } else { "Discard many" };
    Ok(Page { title, section: "/deliveries", live: "", notice: None, main }.show(&caller))
}

/// Does it, and says how many it was.
pub(super) async fn run(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(word): Path<String>,
    form: Sent,
) -> Shown {
    let fields = Fields::of(form, &caller)?;
    let asked = Asked(NARROWED.iter().filter_map(|name| Some(((*name).to_owned(), fields.get(name)?.to_owned()))).collect());
    let mut many = Many { act: act(&word)?, like: open(like(&asked))?, dry_run: false, limit: MANY, after: 0 };
    let mut count = 0;
    loop {
        let done = admin.actions.many(&many).await?;
        count += done.done;
        match done.next_cursor.as_deref().and_then(|cursor| cursor.parse().ok()) {
            Some(after) => many.after = after,
            None => return Ok(ended(&word, count)),
        }
    }
}

fn ended(word: &str, count: usize) -> Response {
    let did = if word == "retry" { "are tried again" } else { "are discarded" };
    told(StatusCode::OK, "Done", &format!("{count} deliveries {did}."), "/deliveries")
}
