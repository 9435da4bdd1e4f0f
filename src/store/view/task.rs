//! Tasks, as they are read for people.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::EventRow;
use crate::clock;
use crate::store::model::FileRow;
use crate::store::timeline::Moment;
use crate::task::{File, FileStatus};

/// The columns of `tasks` that a [`TaskRow`] is made of, its place first.
macro_rules! task_row_columns {
    () => {
        "seq, source, task_id, proof, proven_at, deleted_at, state, title, url, stop_reason, credits, first_seen_at, fetched_at, \
         kind"
    };
}
pub(in crate::store) use task_row_columns;

/// The columns of `answers` that an [`AnswerRow`] is made of.
macro_rules! answer_columns {
    () => {
        "id, kind, question, given_by, content, state, reason, given_at, ended_at"
    };
}
pub(in crate::store) use answer_columns;

/// Why nobody knows of an answer whether it arrived, of which the end was never written down.
pub(in crate::store) const LOST: &str = "taskhook ended while it was sent";

/// What an answer to a task answers that was last fetched so: what it waits for, else the stop that it stands at.
pub(in crate::store) fn answers_to(task: Option<&Value>, anchor: Option<String>) -> Option<String> {
    task.and_then(|task| task["question"]["event_id"].as_str()).map(ToOwned::to_owned).or(anchor)
}

/// What a list of tasks is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// The source.
    pub source: Option<String>,
    /// Where they stand: a word of [`crate::task::State`], or `open` for what may still be at work.
    pub state: Option<String>,
    /// First heard of then or later.
    pub since: Option<Timestamp>,
    /// First heard of before then.
    pub until: Option<Timestamp>,
    /// As in [`EventFilter`](super::EventFilter).
    pub text: Option<String>,
}

/// A task in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskRow {
    /// Its source.
    pub source: String,
    /// The provider's id.
    pub task_id: String,
    /// Its kind, in the provider's word, where it was told.
    pub kind: Option<String>,
    /// How it was proven ours.
    pub proof: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    pub proven_at: Option<String>,
    /// When the provider no longer knew it.
    #[schema(format = DateTime)]
    pub deleted_at: Option<String>,
    /// Where it stood when last fetched.
    pub state: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
    /// Why it stopped.
    pub stop_reason: Option<String>,
    /// What it cost.
    pub credits: Option<f64>,
    /// What it asked last, while it waits.
    pub question: Option<String>,
    /// When we first heard of it.
    #[schema(format = DateTime)]
    pub first_seen_at: String,
    /// When it was last fetched.
    #[schema(format = DateTime)]
    pub fetched_at: Option<String>,
}

/// One task, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskDetail {
    /// As in a list.
    #[serde(flatten)]
    pub row: TaskRow,
    /// As last fetched: `task` of the envelope that destinations get.
    #[schema(value_type = Option<Object>)]
    pub task: Option<Value>,
    /// Its files, as last fetched, and where each stands.
    pub files: Option<Vec<File>>,
    /// The provider's raw answers.
    pub raw: Option<Value>,
    /// What became of its files, those of earlier fetches among them.
    pub archive: Vec<ArchiveRow>,
    /// Its events, newest first, at most 200.
    pub events: Vec<EventRow>,
    /// What an answer to it answers: the provider's id of what waits, else the stop that it stands at.
    pub answers_to: Option<String>,
    /// What people answered to it, oldest first, at most the newest 200.
    pub answers: Vec<AnswerRow>,
    /// All that is known to have happened to it, oldest first.
    pub timeline: Vec<Moment>,
}

/// What a person answered to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AnswerRow {
    /// Our id.
    pub id: String,
    /// `reply`, `confirm` or `stop`.
    pub kind: String,
    /// What it answers: the provider's id of what waited, else the stop that the task stood at.
    pub question: Option<String>,
    /// Who gave it, by their own word.
    pub by: String,
    /// What was said, or the input of a confirmation as JSON.
    pub content: Option<String>,
    /// `sending`, `sent`, `declined`, `refused` or `unknown`.
    pub state: String,
    /// Why the provider did not take it, or why nobody knows.
    pub reason: Option<String>,
    /// When it was given.
    #[schema(format = DateTime)]
    pub given_at: String,
    /// When the provider had answered.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
}

/// A file, as the archive knows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ArchiveRow {
    /// Its name: third-party text.
    pub name: String,
    /// Where it stands.
    pub status: FileStatus,
    /// Why it is not archived, or not yet.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next.
    #[serde(with = "clock::optional")]
    pub due_at: Option<Timestamp>,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// Of its content.
    pub sha256: Option<String>,
}

impl From<FileRow> for ArchiveRow {
    fn from(row: FileRow) -> Self {
        let FileRow { name, status, reason, attempts, due_at, size_bytes, sha256, .. } = row;
        Self { name, status, reason, attempts, due_at, size_bytes, sha256 }
    }
}
