//! What is to be told and nobody sends: it is seen in the store.

use std::collections::HashSet;
use std::convert::Infallible;

use super::check::unread;
use super::news::{Actor, Line, Tone};
use super::round::LOOK_EVERY;
use super::stage::Stage;
use crate::cli::Result;
use crate::store::view::{EventFilter, Page, RejectionFilter, TaskFilter};

/// How many of the newest rows are looked at; a round makes fewer.
const ROWS: usize = 50;
/// How many rows are remembered, beside the newest.
const MOST: usize = 10_000;

/// Sees what appears in the store.
pub(super) struct Watcher<'a> {
    stage: &'a Stage,
    /// What was there before.
    known: HashSet<String>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(stage: &'a Stage) -> Self {
        Self { stage, known: HashSet::new() }
    }

    /// Does `doing`, and tells what appears meanwhile.
    pub(super) async fn beside<T>(&mut self, doing: impl Future<Output = T>) -> Result<T> {
        let done = tokio::select! {
            done = doing => done,
            ended = self.watch() => match ended? {},
        };
        self.look().await?;
        Ok(done)
    }

    async fn watch(&mut self) -> Result<Infallible> {
        loop {
            self.look().await?;
            self.stage.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result {
        let (stage, mut seen) = (self.stage, HashSet::new());
        let page = || Page { limit: ROWS, cursor: None };
        let tasks = stage
            .store
            .tasks(TaskFilter { source: Some(stage.source.to_owned()), ..TaskFilter::default() }, page())
            .await
            .map_err(unread)?
            .data;
        let quarantined = EventFilter { state: Some("quarantined".to_owned()), ..EventFilter::default() };
        let events = stage.store.events(quarantined, page()).await.map_err(unread)?.data;
        let rejections = stage.store.rejections(RejectionFilter::default(), page()).await.map_err(unread)?.data;
        let now = stage.clock.now();
        let mut is_new = |key: String| {
            let new = !self.known.contains(&key);
            seen.insert(key);
            new
        };

        for task in &tasks {
            if let Some(title) = task.title.as_ref().filter(|_| is_new(format!("title {}", task.task_id))) {
                stage.news.title(&task.task_id, title);
            }
        }
        let listed = tasks.iter().filter(|task| task.proof.as_deref() == Some("listed"));
        let listed: Vec<_> = listed.filter(|task| is_new(format!("task {}", task.task_id))).collect();
        if let Some(at) = listed.iter().filter_map(|task| task.proven_at.as_deref()?.parse().ok()).max() {
            let (about, are) = match listed.len() {
                1 => ("1 task".to_owned(), "it is"),
                count => (format!("{count} tasks"), "they are"),
            };
            let outcome = format!("ours: {are} in our key's task list");
            stage.news.line(Line::new(at, Actor::Taskhook, "prove", &about, Tone::Plain, outcome));
        }
        let held: Vec<_> = events.iter().filter(|event| is_new(format!("event {}", event.id))).collect();
        if let Some(task_id) = held.first().and_then(|event| event.task_id.as_deref()) {
            let outcome = format!("{} genuine events, not ours: nothing goes out", held.len());
            stage.news.line(Line::of_task(now, Actor::Taskhook, "quarantine", task_id, Tone::Refused, outcome));
        }
        for rejection in rejections.into_iter().rev() {
            if is_new(format!("rejection {}", rejection.id)) {
                let line = Line::new(now, Actor::Taskhook, "diagnose", &rejection.code, Tone::Plain, String::new());
                stage.news.line(line.more(rejection.explanation.unwrap_or_default()));
            }
        }
        if self.known.len() > MOST {
            self.known.clear();
        }
        self.known.extend(seen);
        Ok(())
    }
}
