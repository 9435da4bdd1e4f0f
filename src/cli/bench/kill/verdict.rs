//! What became of every event that was acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use uuid::Uuid;

use super::super::super::Result;
use super::super::BENCH;
use super::super::process::Home;
use super::super::progress::Counter;
use super::super::recorder::Envelope;
use super::sender::Acknowledged;

/// How many ids a message names.
const NAMED: usize = 20;

/// What came to the destination; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    arrivals: u64,
    /// How often each event came.
    arrived: HashMap<Uuid, u32>,
    /// The files that results were told with, by task and by what was said of each, and how many results.
    files: BTreeMap<(String, Option<String>), u64>,
}

impl Ledger {
    /// Writes down what came.
    pub(super) fn record(&self, envelope: &Envelope<'_>) {
        let mut entries = self.entries();
        entries.arrivals += 1;
        *entries.arrived.entry(envelope.id).or_default() += 1;
        let Some(task) = &envelope.task else { return };
        let saved = envelope.files.first().filter(|file| file.status == "archived").and_then(|file| file.sha256.clone());
        *entries.files.entry((task.id.clone().into_owned(), saved)).or_default() += 1;
    }

    /// How much came so far.
    pub(super) fn arrivals(&self) -> u64 {
        self.entries().arrivals
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of the files of the results.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Results whose file is there, with its content.
    pub(super) whole: u64,
    problems: Vec<String>,
}

impl Files {
    /// Looks into the archive for every file that a result says to be saved; `content` is what the one of a task must hold.
    pub(super) fn look(archive: &Path, ledger: &Ledger, content: impl Fn(&str) -> Option<String>) -> Self {
        let mut files = Self::default();
        for ((task, saved), results) in &ledger.entries().files {
            let kept =
                saved.as_ref().and_then(|sha256| std::fs::read(archive.join("sha256").join(sha256.get(..2)?).join(sha256)).ok());
            match (saved, kept) {
                (None, _) => files.problems.push(format!("{results} results of task {task} without their file")),
                (_, Some(kept)) if Some(kept.as_slice()) == content(task).as_deref().map(str::as_bytes) => files.whole += results,
                (Some(sha256), _) => files.problems.push(format!("the file {sha256} of task {task} is not whole")),
            }
        }
        files
    }

    /// Notes what a kill left on its way into the archive, where it should have been removed.
    pub(super) fn note_left(&mut self, archive: &Path) {
        let left = on_their_way(archive);
        if left > 0 {
            self.problems.push(format!("{left} files are left on their way into the archive"));
        }
    }
}

/// Files that are not whole yet, or will never be.
pub(super) fn on_their_way(archive: &Path) -> usize {
    std::fs::read_dir(archive.join("incoming")).map_or(0, Iterator::count)
}

/// What is to be known of one acknowledged event.
#[derive(Debug, Default)]
struct Fate {
    found: bool,
    done: bool,
    unknown: u32,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) acknowledged: u64,
    /// In the store.
    pub(super) found: u64,
    /// In the store, and nothing is left to be done.
    pub(super) done: u64,
    /// Not in the store, not done, or never delivered.
    pub(super) lost: u64,
    pub(super) delivered_once: u64,
    pub(super) delivered_more: u64,
    /// Of those that were delivered more than once: with as many attempts of unknown outcome as there were deliveries too many.
    pub(super) after_unknown: u64,
    pub(super) without_unknown: u64,
    /// Attempts of unknown outcome, of all events.
    pub(super) unknown_attempts: u64,
    /// The most that there may be.
    pub(super) limit: u64,
    /// Nothing may be delivered twice, for whatever reason.
    pub(super) once: bool,
    pub(super) repeats: u64,
    pub(super) resent: u64,
    pub(super) kept_unanswered: u64,
    pub(super) files: Files,
    /// Jobs and events that were not done with when it was judged.
    pub(super) left: u64,
    lost_ids: Vec<String>,
    doubled_ids: Vec<String>,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct EventRow {
    id: Uuid,
    state: String,
}

#[derive(Deserialize)]
struct DeliveryRow {
    event: Uuid,
    destination: String,
    attempts: Vec<AttemptRow>,
}

#[derive(Deserialize)]
struct AttemptRow {
    outcome: String,
}

/// Asks `home` and `ledger` for everything that was acknowledged; `asked` counts what the store told.
pub(super) async fn of(home: &Home, acknowledged: Acknowledged, ledger: &Ledger, asked: &Counter) -> Result<Verdict> {
    let mut verdict = Verdict {
        repeats: acknowledged.repeats,
        resent: acknowledged.resent,
        kept_unanswered: acknowledged.kept_unanswered,
        problems: acknowledged.problems,
        ..Verdict::default()
    };
    let mut fates: HashMap<Uuid, Fate> = acknowledged.ids.into_iter().map(|id| (id, Fate::default())).collect();
    verdict.acknowledged = fates.len() as u64;
    home.list("events", |row: EventRow| {
        asked.add(1);
        if let Some(fate) = fates.get_mut(&row.id) {
            fate.found = true;
            fate.done = row.state == "done";
        }
    })
    .await?;
    home.list("deliveries", |row: DeliveryRow| {
        let unknown = row.attempts.iter().filter(|attempt| attempt.outcome == "unknown").count();
        if let Some(fate) = fates.get_mut(&row.event).filter(|_| row.destination == BENCH) {
            fate.unknown += u32::try_from(unknown).unwrap_or(u32::MAX);
        }
        verdict.unknown_attempts += unknown as u64;
    })
    .await?;
    let entries = ledger.entries();
    for (id, fate) in &fates {
        verdict.count(*id, fate, entries.arrived.get(id).copied().unwrap_or_default());
    }
    Ok(verdict)
}

impl Verdict {
    fn count(&mut self, id: Uuid, fate: &Fate, arrived: u32) {
        self.found += u64::from(fate.found);
        self.done += u64::from(fate.done);
        let lost = match (fate.found, fate.done, arrived) {
            (false, ..) => Some("not in the store"),
            (_, _, 0) => Some("never delivered"),
            (_, false, _) => Some("not done"),
            _ => None,
        };
        if let Some(how) = lost {
            self.lost += 1;
            self.lost_ids.push(format!("{id} ({how})"));
        }
        match arrived {
            0 => {}
            1 => self.delivered_once += 1,
            _ => {
                self.delivered_more += 1;
                let explained = arrived <= 1 + fate.unknown;
                self.after_unknown += u64::from(explained);
                self.without_unknown += u64::from(!explained);
                if !explained || self.once {
                    self.doubled_ids.push(format!("{id} ({arrived} times, {} unknown)", fate.unknown));
                }
            }
        }
    }

    /// What did not hold.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.acknowledged == 0 {
            failures.push("no event was acknowledged".to_owned());
        }
        if self.lost > 0 {
            failures.push(format!("{} acknowledged events are lost: {}", self.lost, named(&self.lost_ids)));
        }
        if !self.doubled_ids.is_empty() {
            let what = if self.once { "" } else { " without a recorded attempt of unknown outcome" };
            failures.push(format!("{} events were delivered twice{what}: {}", self.doubled_ids.len(), named(&self.doubled_ids)));
        }
        if self.unknown_attempts > self.limit {
            failures.push(format!("{} attempts of unknown outcome, more than {}", self.unknown_attempts, self.limit));
        }
        if self.left > 0 {
            failures.push(format!("{} jobs and events are left, and no work goes on", self.left));
        }
        for problems in [&self.problems, &self.files.problems] {
            if !problems.is_empty() {
                failures.push(named(problems));
            }
        }
        failures
    }
}

/// The first of `items`, and how many more there are.
fn named(items: &[String]) -> String {
    let mut items: Vec<&str> = items.iter().map(String::as_str).collect();
    items.sort_unstable();
    let more = items.len().saturating_sub(NAMED);
    let shown = items[..items.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
