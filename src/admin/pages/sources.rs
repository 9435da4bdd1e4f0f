//! Sources: where their events come in, whether anything comes, and whether the world reaches us.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use maud::{Markup, html};

use super::layout::{Page, ago, badge, button, cell, facts, link, notice, path};
use super::{Asked, Fields, Sent, Shown, Wanted, Wrong, done};
use crate::action::Registered;
use crate::admin::api::{Admin, Refused};
use crate::admin::auth::Caller;
use crate::provider::Source;
use crate::store::view::{EventFilter, Page as Limits};

pub(super) async fn page(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let mut shown = Vec::new();
    for source in admin.actions.sources() {
        shown.push(one(&admin, source, &caller).await?);
    }
    let main = html! { @for source in shown { (source) } };
    let live = "events health";
    Ok(Page { title: "Sources", section: "/sources", live, notice: notice(asked.get("notice")), main }.show(&caller))
}

async fn one(admin: &Admin, source: &Source, caller: &Caller) -> Result<Markup, Wrong> {
    let (name, now) = (source.name(), admin.days.0.now());
    let filter = EventFilter { source: Some(name.to_owned()), ..EventFilter::default() };
    let last = admin.store.events(filter, Limits { limit: 1, cursor: None }).await?.data.into_iter().next();
    let keys = admin.store.verification_keys(name).await?;
    let loaded = keys.iter().map(|(_, at)| *at).max().map(crate::clock::rfc3339);
    let urls = admin.public_urls.current();
    let trouble: Vec<_> = admin.actions.degraded().into_iter().filter(|reason| is_about(&reason.part, name)).collect();
    let here = path(&["sources", name]);
    let key = match () {
        () if !source.verifies() => html! { span .badge.bad { "nothing is verified" } },
        () if source.pins_key() => html! { "pinned in a file" },
        () if source.is_keyed() => {
            html! { @if loaded.is_some() { "loaded " (ago(loaded.as_deref(), now)) } @else { "not loaded yet" } }
        }
        () => html! { "a secret of yours" },
    };
    Ok(html! {
        section {
            h2 { (name) " " @if trouble.is_empty() { (badge("ok")) } @else { (badge("degraded")) } }
            @for reason in &trouble { p .wrong { (reason.reason) } }
            (facts([
                ("Provider", Some(html! { (source.provider()) })),
                ("Its webhook", Some(urls.first().map_or_else(|| html! { "no public URL: set " code { "server.public_url" } }, |url| html! { code { (source.shown(&source.webhook_url(url))) } }))),
                ("Key", Some(key)),
                ("Last event", Some(last.as_ref().map_or_else(|| html! { "none yet" }, |event| html! { a href=(path(&["events", &event.id])) { (cell(&event.kind)) } ", " (ago(Some(&event.received_at), now)) }))),
                ("All of it", Some(html! {
                    a href=(link("/events", [("source", Some(name))])) { "events" } ", " a href=(link("/tasks", [("source", Some(name))])) { "tasks" }
                })),
            ]))
            @if !urls.is_empty() {
                div .acts {
                    (button(&format!("{here}/check"), caller, "Check that the world reaches us"))
                    @if source.registers() { (button(&format!("{here}/register"), caller, "Register the webhook")) }
                }
            }
        }
    })
}

/// Whether a part that is degraded is this source, or something of it.
fn is_about(part: &str, source: &str) -> bool {
    if part.starts_with("destination ") {
        return false;
    }
    let rest = part.split_once(' ').map(|(_, rest)| rest).unwrap_or_default();
    rest == source || rest.strip_prefix(source).is_some_and(|rest| rest.starts_with(' '))
}

type Of = State<Arc<Admin>>;

pub(super) async fn check(State(admin): Of, Extension(caller): Extension<Caller>, Path(name): Path<String>, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    admin.actions.source(Some(&name))?;
    reach(&admin).await?;
    Ok(done("/sources", "reached"))
}

pub(super) async fn register(
    State(admin): Of,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    form: Sent,
) -> Shown {
    Fields::of(form, &caller)?;
    let urls = admin.public_urls.current();
    reach(&admin).await?;
    match admin.actions.register(&name, &urls).await? {
        Registered::New => Ok(done("/sources", "registered")),
        Registered::Already => Ok(done("/sources", "known")),
    }
}

/// Whether the first public URL leads here.
async fn reach(admin: &Admin) -> Result<(), Wrong> {
    let urls = admin.public_urls.current();
    let none = || Refused::new(StatusCode::CONFLICT, "public_url_missing", "`server.public_url` is not set");
    let url = urls.first().ok_or_else(none)?;
    let astray = crate::action::reach::reach(url, admin.store.instance_id()).await;
    astray.map_err(|astray| {
        let title = format!("{}. What to do: {}", astray.problem, astray.hint);
        Refused::new(StatusCode::BAD_GATEWAY, "public_url_astray", title).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_degraded_belongs_to_its_source() {
        for (part, about) in [
            ("source manus", true),
            ("source manus webhooks", true),
            ("keys manus", true),
            ("source manus2", false),
            ("destination manus", false),
            ("store", false),
        ] {
            assert_eq!(is_about(part, "manus"), about, "{part}");
        }
    }
}
