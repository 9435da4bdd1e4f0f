//! The dashboard: what the admin API shows, for eyes. Everything on it works without a script; the one that there is only refreshes what
//! is looked at when something is news.
//!
//! What must hold: a page shows and never changes anything; what changes something is a form that brings the token of its session, goes to
//! [`action`](crate::action) as a call of the API does, and ends in a redirect, so that a reload does nothing twice.

mod acts;
mod assets;
mod bulk;
mod charts;
mod deliveries;
mod event;
mod events;
mod files;
mod layout;
mod overview;
mod picture;
mod question;
mod rejections;
mod sign_in;
mod sources;
mod task;
mod tasks;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use super::api::{Admin, Refused};
use super::auth::Caller;
use super::list;
use crate::store::view::Page as Limits;

/// How many rows a list shows at once.
const ROWS: usize = 50;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/tasks", get(tasks::page))
        .route("/tasks/{source}/{task_id}", get(task::page))
        .route("/tasks/{source}/{task_id}/answer", post(acts::answer))
        .route("/tasks/{source}/{task_id}/stop", post(acts::stop))
        .route("/events", get(events::page))
        .route("/events/{id}", get(event::page))
        .route("/events/{id}/replay", get(event::preview).post(acts::replay))
        .route("/events/{id}/release", post(acts::release))
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/all/{act}", get(bulk::ask).post(bulk::run))
        .route("/deliveries/{id}", get(deliveries::one))
        .route("/deliveries/{id}/retry", post(acts::retry))
        .route("/deliveries/{id}/discard", post(acts::discard))
        .route("/destinations/{name}/pause", post(acts::pause))
        .route("/destinations/{name}/resume", post(acts::resume))
        .route("/rejections", get(rejections::list))
        .route("/rejections/{id}", get(rejections::one))
        .route("/sources", get(sources::page))
        .route("/sources/{name}/check", post(sources::check))
        .route("/sources/{name}/register", post(sources::register))
        .route("/files/{source}/{task_id}/{sha256}", get(files::show))
        .route("/sign-in", get(sign_in::page).post(sign_in::enter))
        .route("/sign-out", post(sign_in::leave))
        .route("/assets/{version}/{name}", get(assets::serve))
}

/// Why there is no such page, or why nothing was done.
pub(super) struct Wrong(Refused);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        layout::refused(&self.0, "/")
    }
}

impl<E: Into<Refused>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

type Shown = Result<Response, Wrong>;

/// What a page was asked for, behind the `?`: what is empty in a form was not asked for.
pub(super) struct Asked(HashMap<String, String>);

impl Asked {
    fn of(asked: Result<Query<HashMap<String, String>>, QueryRejection>) -> Result<Self, Wrong> {
        let Query(asked) = asked.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "query_invalid", error.body_text()))?;
        Ok(Self(asked))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(ToOwned::to_owned)
    }

    /// A time, as forms send it or as programs write it; UTC where it does not say.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, Wrong> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let local = || text.parse::<civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
        let time = text.parse().ok().or_else(|| Some(local()?.timestamp()));
        let bad =
            || Refused::new(StatusCode::BAD_REQUEST, "query_invalid", format!("`{name}` is a time, such as 2026-01-15T12:00"));
        Ok(Some(time.ok_or_else(bad)?))
    }

    /// What is looked for.
    fn words(&self) -> Result<Option<String>, Wrong> {
        Ok(list::text(self.text("text"))?)
    }

    fn page(&self) -> Result<Limits, Wrong> {
        let cursor = self.get("cursor").map(str::parse).transpose();
        let cursor = cursor.map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "query_invalid", "`cursor` is not one of ours"))?;
        Ok(Limits { limit: ROWS, cursor })
    }

    /// Whether this is the beginning of the list, where news come.
    fn is_first(&self) -> bool {
        self.get("cursor").is_none()
    }
}

type Wanted = Result<Query<HashMap<String, String>>, QueryRejection>;

/// The fields of a form, each as often as it was sent.
pub(super) struct Fields(Vec<(String, String)>);

type Sent = Result<Form<Vec<(String, String)>>, FormRejection>;

impl Fields {
    /// Those of a form of ours, shown to `caller`.
    fn of(form: Sent, caller: &Caller) -> Result<Self, Wrong> {
        let Form(fields) = form.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "body_invalid", error.body_text()))?;
        let fields = Self(fields);
        if !caller.is_form_of(fields.get("form_token").unwrap_or_default()) {
            let title = "this form is of another session, or too old: go back, load the page again, and send it anew";
            return Err(Refused::new(StatusCode::FORBIDDEN, "form_token_invalid", title).into());
        }
        Ok(fields)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// Leads to `path`, which says what was done.
fn done(path: &str, notice: &str) -> Response {
    Redirect::to(&layout::link(path, [("notice", Some(notice))])).into_response()
}

/// An act that names nothing that is there.
fn absent(what: &str) -> Wrong {
    Refused::absent(what).into()
}
