//! Requests that did not verify, and what would have matched.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use maud::html;

use super::layout::{Page, age, ago, cell, facts, filters, input, more, notice, path, table};
use super::{Asked, Shown, Wanted, absent};
use crate::admin::api::Admin;
use crate::admin::auth::Caller;
use crate::store::view::RejectionFilter;
use crate::text::visible;

pub(super) async fn list(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let filter = RejectionFilter { source: asked.text("source"), code: asked.text("code"), ..RejectionFilter::default() };
    let found = admin.store.rejections(filter, asked.page()?).await?;
    let now = admin.days.0.now();
    let rows = found.data.iter().map(|row| {
        let id = row.id.to_string();
        vec![
            html! { a href=(path(&["rejections", &id])) { (row.code.replace('_', " ")) } },
            html! { (cell(row.explanation.as_deref().unwrap_or("nothing that we tried would have matched"))) },
            age(Some(&row.received_at), now),
            html! { (cell(&row.source)) },
        ]
    });
    let main = html! {
        p { "What came and did not verify; the newest of each kind are kept, for setting up. Nothing of it was accepted." }
        (filters("/rejections", &html! {
            (input("Source", "source", asked.get("source")))
            (input("Code", "code", asked.get("code")))
        }))
        @if found.data.is_empty() { p .empty { "No rejection." } }
        @else { (table("Rejections", &["Why", "What would have matched", "Age", "Source"], rows)) }
        (more("/rejections", &["source", "code"].map(|name| (name, asked.get(name))), found.next_cursor.as_deref()))
    };
    let live = if asked.is_first() { "rejections" } else { "" };
    Ok(Page { title: "Rejections", section: "/rejections", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

pub(super) async fn one(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, Path(id): Path<i64>) -> Shown {
    let shown = admin.rejection_shown(id).await?.ok_or_else(|| absent("rejection"))?;
    let row = &shown.row;
    let main = html! {
        @if let Some(explanation) = &row.explanation { p .notice { (explanation) } }
        (facts([
            ("Answered", Some(html! { (row.code) })),
            ("Source", Some(html! { (cell(&row.source)) })),
            ("Came", Some(ago(Some(&row.received_at), admin.days.0.now()))),
            ("Sent to", Some(html! { code { (cell(&row.target)) } })),
            ("Size", Some(html! { (row.body_bytes) " bytes" })),
        ]))
        h2 { "Headers" }
        p .hint { "Credentials are kept as a keyed hash." }
        (super::event::headers(&shown.headers))
        h2 { "Body" }
        pre tabindex="0" { (visible(&shown.body)) }
    };
    let title = format!("Rejection {}", row.id);
    Ok(Page { title: &title, section: "/rejections", live: "", notice: None, main }.show(&caller))
}
