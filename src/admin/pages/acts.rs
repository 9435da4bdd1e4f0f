//! What the forms of the dashboard ask for: each a call of [`Actions`](crate::action::Actions), and then a way back.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::layout::{path, to_task};
use super::{Fields, Sent, Shown, absent, done, question};
use crate::action::{Say, Wish};
use crate::admin::api::{Admin, Refused, What};
use crate::admin::auth::Caller;

/// Who answers that says no name.
const SOMEBODY: &str = "the dashboard";

type Named = Path<String>;
type Task = Path<(String, String)>;
type Of = State<Arc<Admin>>;
type By = Extension<Caller>;

pub(super) async fn answer(State(admin): Of, Extension(caller): By, Path((source, id)): Task, form: Sent) -> Shown {
    let fields = Fields::of(form, &caller)?;
    let task = admin.store.task(&source, &id).await?.ok_or_else(|| absent("task"))?;
    let asked = task.task.as_ref().map(|task| &task["question"]);
    let say = if fields.get("say") == Some("confirm") {
        let schema = asked.map(|asked| &asked["input_schema"]).filter(|schema| !schema.is_null());
        let input = question::input(schema, &fields);
        Say::Confirm(input.map_err(|reason| Refused::new(StatusCode::BAD_REQUEST, "input_invalid", reason))?)
    } else {
        let chosen = fields.get("option").filter(|option| !option.is_empty());
        let typed = fields.get("message").map(str::trim).filter(|message| !message.is_empty());
        let missing = || Refused::new(StatusCode::BAD_REQUEST, "body_invalid", "choose an answer, or write one");
        Say::Reply(typed.or(chosen).ok_or_else(missing)?.to_owned())
    };
    let question = fields.get("question").filter(|question| !question.is_empty()).map(ToOwned::to_owned);
    let by = fields.get("by").map(str::trim).filter(|by| !by.is_empty()).unwrap_or(SOMEBODY).to_owned();
    let again = fields.get("again") == Some("true");
    let given = admin.actions.answer(Some(&source), &id, Wish { say, question, by, again }).await?;
    Ok(done(&to_task(&source, &id), if given.state == "declined" { "declined" } else { "answered" }))
}

pub(super) async fn stop(State(admin): Of, Extension(caller): By, Path((source, id)): Task, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    admin.actions.stop_task(Some(&source), &id, SOMEBODY).await?;
    Ok(done(&to_task(&source, &id), "stopped"))
}

pub(super) async fn replay(State(admin): Of, Extension(caller): By, Path(id): Named, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    let id = admin.whole_id(What::Event, id).await?;
    admin.actions.replay(&id).await?;
    Ok(done(&path(&["events", &id]), "replayed"))
}

pub(super) async fn release(State(admin): Of, Extension(caller): By, Path(id): Named, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    let id = admin.whole_id(What::Event, id).await?;
    admin.actions.release(&id).await?;
    Ok(done(&path(&["events", &id]), "released"))
}

pub(super) async fn retry(State(admin): Of, Extension(caller): By, Path(id): Named, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    let id = admin.whole_id(What::Delivery, id).await?;
    let behind = admin.actions.retry(&id).await?;
    Ok(done(&path(&["deliveries", &id]), if behind.is_some() { "behind" } else { "retried" }))
}

pub(super) async fn discard(State(admin): Of, Extension(caller): By, Path(id): Named, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    let id = admin.whole_id(What::Delivery, id).await?;
    admin.actions.discard(&id).await?;
    Ok(done(&path(&["deliveries", &id]), "discarded"))
}

pub(super) async fn pause(State(admin): Of, Extension(caller): By, Path(name): Named, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    admin.actions.pause(&name).await?;
    Ok(done("/deliveries", "paused"))
}

pub(super) async fn resume(State(admin): Of, Extension(caller): By, Path(name): Named, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    admin.actions.resume(&name).await?;
    Ok(done("/deliveries", "resumed"))
}
