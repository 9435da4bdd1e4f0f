//! What is read from the store for people: rows and pages, as the admin API shows them.

mod page;
mod search;
mod task;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

pub(super) use self::page::Span;
pub use self::page::{Listed, Page};
pub use self::search::SEARCHED;
pub(super) use self::search::{FOUND, Needle, PORTION};
pub use self::task::{AnswerRow, ArchiveRow, TaskDetail, TaskFilter, TaskRow};
pub(super) use self::task::{LOST, answer_columns, answers_to, task_row_columns};

/// The columns of `standing` that an [`EventRow`] is made of, its place first.
macro_rules! event_row_columns {
    () => {
        "seq, id, source, provider, type, provider_type, event_id, task_id, received_at, verification, state, reason, ping, \
         collision_of, repeats"
    };
}
pub(super) use event_row_columns;

/// The columns of `watches` that a [`WatchRow`] is made of, its place first.
macro_rules! watch_row_columns {
    () => {
        "seq, type, source, task_id, destination, since, raised_at, detail, event"
    };
}
pub(super) use watch_row_columns;

/// The newest events that are looked through for webhooks of a source, and the most stops that are.
pub(super) const NEWEST: i64 = 20_000;

/// The most events that are shown with a task, and deliveries with an event.
pub(super) const TASK_EVENTS: usize = 200;

/// A body as it is shown: its value where it is JSON, else its text; and where it is neither, its bytes in base64.
pub(super) fn payload(body: &[u8]) -> (Value, Option<String>) {
    let text = std::str::from_utf8(body).ok();
    let payload = serde_json::from_slice(body).unwrap_or_else(|_| json!(text));
    (payload, text.is_none().then(|| BASE64_STANDARD.encode(body)))
}

/// What a list of events is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// The source.
    pub source: Option<String>,
    /// The type.
    pub kind: Option<String>,
    /// The task.
    pub task_id: Option<String>,
    /// The state.
    pub state: Option<String>,
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Received before then.
    pub until: Option<Timestamp>,
    /// What the title or an id of it, or of its task, holds, in large letters or small: looked for in the newest [`SEARCHED`] events and
    /// tasks.
    pub text: Option<String>,
}

/// What a list of rejections is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct RejectionFilter {
    /// The source.
    pub source: Option<String>,
    /// The code that they were answered with.
    pub code: Option<String>,
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Received before then.
    pub until: Option<Timestamp>,
}

/// Something that holds and that was noticed, in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WatchRow {
    /// The type of its events.
    #[serde(rename = "type")]
    pub kind: String,
    /// The source that it is about.
    pub source: String,
    /// The task that it is about.
    pub task_id: Option<String>,
    /// The destination that is in trouble.
    pub destination: Option<String>,
    /// Since when it has held.
    #[schema(format = DateTime)]
    pub since: String,
    /// When it was noticed.
    #[schema(format = DateTime)]
    pub raised_at: String,
    /// What more is known.
    pub detail: Value,
    /// The event that tells of it, alone or with others.
    pub event: String,
}

/// An event in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventRow {
    /// Our id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// Its provider.
    pub provider: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The provider's word.
    pub provider_type: Option<String>,
    /// The provider's id.
    pub event_id: String,
    /// The provider's task.
    pub task_id: Option<String>,
    /// When it was received.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// How it was verified.
    pub verification: String,
    /// Where it stands.
    pub state: String,
    /// Why it stands there.
    pub reason: Option<String>,
    /// Whether it is the provider's test request.
    pub ping: bool,
    /// The event that it collides with.
    pub collision_of: Option<String>,
    /// How often it came again.
    pub repeats: i64,
}

/// One event, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventDetail {
    /// As in a list.
    #[serde(flatten)]
    pub row: EventRow,
    /// When a person released it.
    #[schema(format = DateTime)]
    pub released_at: Option<String>,
    /// How often a person replayed it.
    pub replays: u32,
    /// When that was asked for last.
    #[schema(format = DateTime)]
    pub replayed_at: Option<String>,
    /// When it last came again.
    #[schema(format = DateTime)]
    pub last_repeat_at: Option<String>,
    /// The path and query that it was sent to.
    pub target: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Of a dead letter: why each attempt to prove or fetch its task failed, the last twenty, oldest first.
    pub reasons: Vec<String>,
    /// Its body as JSON, or as text where it is none.
    pub payload: Value,
    /// The exact bytes in base64, where they are not UTF-8.
    pub body_base64: Option<String>,
    /// What waits to be done for it: the job's attempt, due time and reasons.
    pub work: Option<Value>,
    /// Its deliveries.
    pub deliveries: Vec<DeliveryRow>,
}

/// A delivery in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeliveryRow {
    /// Its id.
    pub id: String,
    /// The event.
    pub event: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The event's source.
    pub source: String,
    /// The event's task.
    pub task_id: Option<String>,
    /// The destination.
    pub destination: String,
    /// The route that chose it.
    pub route: String,
    /// Which replay of the event made it; 0 is none.
    pub replay: u32,
    /// The delivery of the same event for the same destination that it repeats.
    pub replay_of: Option<String>,
    /// `pending`, `delivered`, `dead` or `discarded`.
    pub state: String,
    /// Why it is dead, or was.
    pub reason: Option<String>,
    /// Whether it went before something earlier.
    pub out_of_order: bool,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// When the next attempt is due.
    #[schema(format = DateTime)]
    pub due_at: Option<String>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// How many deliveries of a destination wait, and how many were given up on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationCounts {
    /// The destination.
    pub destination: String,
    /// Those that are to be sent.
    pub pending: i64,
    /// Those that were given up on.
    pub dead: i64,
}

/// One attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AttemptRow {
    /// Its number.
    pub attempt: u32,
    /// When it started.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// `started`, `delivered`, `failed` or `unknown`.
    pub outcome: String,
    /// What the destination said.
    pub detail: Option<String>,
}

/// A rejection in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RejectionRow {
    /// Its number.
    pub id: i64,
    /// When it came.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// The source that it came in on.
    pub source: String,
    /// The code that it was answered with.
    pub code: String,
    /// What would have matched.
    pub explanation: Option<String>,
    /// Path and query.
    pub target: String,
    /// The size of its body, in bytes.
    pub body_bytes: i64,
}

/// One rejection, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RejectionDetail {
    /// As in a list.
    #[serde(flatten)]
    pub row: RejectionRow,
    /// Its headers, credentials as keyed hashes.
    pub headers: Vec<(String, String)>,
    /// The first 16 KiB of its body, bytes that are not UTF-8 replaced.
    pub body: String,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Events, whatever became of them.
    pub events: u64,
    /// The size of its file once all that is written has gone into it.
    pub bytes: u64,
    /// How much of that is free for what comes next.
    pub free_bytes: u64,
}

/// What waits, for `/metrics` and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Backlog {
    /// Jobs by kind and queue: how many, and the oldest one's time.
    pub jobs: Vec<BacklogRow>,
    /// Events that are on their way: not yet proven, fetched or delivered to all.
    pub events: i64,
    /// Events in quarantine.
    pub quarantined: i64,
    /// Events and deliveries that were given up on.
    pub dead: i64,
}

/// Jobs of one kind and queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BacklogRow {
    /// The kind.
    pub kind: String,
    /// The source or destination.
    pub queue: String,
    /// How many.
    pub count: i64,
    /// When the oldest was made.
    #[schema(format = DateTime)]
    pub oldest: String,
}
