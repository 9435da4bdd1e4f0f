//! What is to be told and nobody sends: it is seen in the store.

use std::collections::HashSet;
use std::convert::Infallible;

use jiff::Timestamp;

use super::check::unread;
use super::news::{Actor, Line, Tone};
use super::script::LOOK_EVERY;
use super::stage::{SOURCE, Stage};
use crate::cli::Result;
use crate::store::view::{EventFilter, Page};

/// How many rows are looked at; a round makes fewer.
const ROWS: usize = 50;

/// Tells what appears in the store from `since` on; never returns but with an error.
pub(super) async fn store(stage: &Stage, since: Timestamp) -> Result<Infallible> {
    let page = || Page { limit: ROWS, cursor: None };
    let is_new = |at: &str| at.parse::<Timestamp>().is_ok_and(|at| at >= since);
    let mut known = HashSet::new();
    loop {
        let tasks = stage.store.tasks(Some(SOURCE.to_owned()), page()).await.map_err(unread)?;
        let proven = tasks.data.into_iter().filter(|task| is_new(&task.first_seen_at) && task.proof.as_deref() == Some("listed"));
        let proven: Vec<_> = proven.filter(|task| known.insert(task.task_id.clone())).collect();
        if let Some(at) = proven.iter().filter_map(|task| task.proven_at.as_deref()?.parse().ok()).max() {
            let (count, are) = (proven.len(), if proven.len() == 1 { "it is" } else { "they are" });
            let about = format!("{count} task{}", if count == 1 { "" } else { "s" });
            let outcome = format!("ours: {are} in our key's task list");
            stage.news.line(Line::new(at, Actor::Taskhook, "prove", &about, Tone::Plain, outcome));
        }
        let filter = EventFilter { state: Some("quarantined".to_owned()), ..EventFilter::default() };
        let events = stage.store.events(filter, page()).await.map_err(unread)?;
        let held: Vec<_> =
            events.data.into_iter().filter(|event| is_new(&event.received_at) && known.insert(event.id.clone())).collect();
        if let Some(event) = held.first() {
            let task_id = event.task_id.clone().unwrap_or_default();
            let outcome = format!("{} genuine events, not ours: nothing goes out", held.len());
            stage.news.line(Line::of_task(stage.clock.now(), Actor::Taskhook, "quarantine", &task_id, Tone::Refused, outcome));
        }
        let rejections = stage.store.rejections(page()).await.map_err(unread)?;
        for rejection in rejections.data.into_iter().rev().filter(|row| is_new(&row.received_at)) {
            if known.insert(rejection.id.to_string()) {
                let why = rejection.explanation.unwrap_or_default();
                stage
                    .news
                    .line(Line::new(stage.clock.now(), Actor::Taskhook, "diagnose", "", Tone::Plain, String::new()).more(why));
            }
        }
        stage.clock.sleep(LOOK_EVERY).await;
    }
}
