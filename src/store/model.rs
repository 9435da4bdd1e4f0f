//! What goes into the store and comes out of it, the same for every database.

mod again;
mod answer;
mod file;
mod held;
mod stop;
mod watch;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

pub use self::again::{Act, Discarded, Like, Matching, Replayed, Retried, STEP, Select};
pub use self::answer::{AnswerKind, NewAnswer, Outcome};
pub use self::file::{FileRow, NewFile, Progress, TURN_EVENTS, Told, Waiting};
pub use self::held::{Bundle, Held, Queue};
pub use self::stop::{Acquainted, Claim, Looked, Open, OpenTask, Reconciled, Shown, UNCLAIMED};
pub use self::watch::{Condition, Look, Watched};
use crate::clock;
use crate::event::Verification;
use crate::task::Fetched;

/// The most fetches of a task that are remembered, the newest.
pub(super) const FETCHES: i64 = 50;

/// What became of an event that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was not known, and is kept now.
    New(Uuid),
    /// It was known; this is the first one's id.
    Duplicate(Uuid),
    /// Its id was known with other content; it is kept as an event of its own.
    Collision(Uuid),
}

impl Appended {
    /// The id that the sender is answered with.
    #[must_use]
    pub fn id(self) -> Uuid {
        match self {
            Self::New(id) | Self::Duplicate(id) | Self::Collision(id) => id,
        }
    }
}

/// A kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Prove that a task is ours.
    Prove,
    /// Fetch a task.
    Fetch,
    /// Save the files of a task.
    Archive,
    /// Hand a delivery to its destination.
    Deliver,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Prove, Self::Fetch, Self::Archive, Self::Deliver];

    /// The word in the store and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prove => "prove",
            Self::Fetch => "fetch",
            Self::Archive => "archive",
            Self::Deliver => "deliver",
        }
    }
}

/// How many jobs of a kind can be started now for one source or destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The kind of job.
    pub kind: JobKind,
    /// The source or destination.
    pub queue: String,
    /// Which of its jobs.
    pub which: Which,
    /// How many.
    pub limit: usize,
}

/// Which jobs of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    Any,
    /// Those of tasks that are proven, or of which a person released an event: nothing has to be asked for them.
    Settled,
    /// The others.
    Unsettled,
}

/// What [`super::Store::claim`] found.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The jobs, leased to the caller.
    pub jobs: Vec<Job>,
    /// When the next job of the queues that were asked for is due.
    pub next_due: Option<Timestamp>,
    /// Whether events are left that wait to be taken in: they may make jobs that are due.
    pub more: bool,
}

/// The fence of a job: whoever holds it may end it, and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job: i64,
    /// The attempt; the first is 1.
    pub attempt: u32,
}

/// A leased job.
#[derive(Clone, Debug)]
pub struct Job {
    /// The fence.
    pub lease: Lease,
    /// Its kind.
    pub kind: JobKind,
    /// The source or destination that it calls.
    pub queue: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it works on.
    pub work: Work,
}

/// What a job works on.
#[derive(Clone, Debug)]
pub enum Work {
    /// A task, for [`JobKind::Prove`] and [`JobKind::Fetch`].
    Task {
        /// The provider's id; `None` for an event that names no task.
        task_id: Option<String>,
        /// What is known of it.
        known: Known,
        /// The events that wait for this, in the order of acceptance.
        waiting: Vec<StoredEvent>,
    },
    /// Files, for [`JobKind::Archive`]. What they are and who waits for them is read as the work goes on, since more may come.
    Files {
        /// The provider's id; `None` for an event that names no task.
        task_id: Option<String>,
        /// What the store calls it by: the task, or the event that names none.
        subject: i64,
    },
    /// A delivery.
    Delivery(Outgoing),
}

/// What the store knows of a task's ownership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// How it was proven ours; `None` while it is not.
    pub proof: Option<String>,
    /// When our key was first told that it cannot see it.
    pub refused_at: Option<Timestamp>,
    /// How often it was asked for by id.
    pub probes: u32,
    /// Whether an earlier event of it waits to be fetched.
    pub fetching: bool,
    /// Whether an earlier event of it waits for files.
    pub archiving: bool,
    /// Whether it was fetched before.
    pub fetched: bool,
}

/// A delivery to be handed over.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its id: the `webhook-id`.
    pub id: Uuid,
    /// Our id of its event; its own where that is gone.
    pub event: Uuid,
    /// How often its event had been replayed when it was made.
    pub replay: u32,
    /// What is sent.
    pub body: String,
    /// Which attempt this is, counted from the first or from the last retry by hand: where it stands on its ladder.
    pub tries: u32,
    /// Whether an earlier one of these attempts ended as unknown: what was before a retry by hand, a person has seen.
    pub after_unknown: bool,
}

/// An event, read back.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its place in the order of acceptance.
    pub seq: i64,
    /// Our id.
    pub id: Uuid,
    /// Its source.
    pub source: String,
    /// Its provider.
    pub provider: String,
    /// See [`crate::event::Facts::event_id`].
    pub event_id: String,
    /// See [`crate::event::Facts::kind`].
    pub kind: String,
    /// See [`crate::event::Facts::provider_type`].
    pub provider_type: Option<String>,
    /// The provider's task.
    pub task_id: Option<String>,
    /// When it was received.
    pub received_at: Timestamp,
    /// How it was verified.
    pub verification: Verification,
    /// The event that it collides with.
    pub collision_of: Option<Uuid>,
    /// Whether a person released it from quarantine.
    pub released: bool,
    /// How often it was replayed, this time included.
    pub replay: u32,
    /// The exact bytes.
    pub body: Bytes,
}

/// The end of a job that succeeded, or that has done what it can for now.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// What is newly known of its task.
    pub task: TaskNews,
    /// What becomes of the events that waited.
    pub moves: Vec<Move>,
    /// Stops of it that events told of.
    pub claims: Vec<Claim>,
    /// Files of it that are to be archived.
    pub files: Vec<NewFile>,
    /// Of an archive job: the newest event that it saw waiting, by [`StoredEvent::seq`]. A newer one is looked at at once.
    pub seen: Option<i64>,
    /// Where some still wait: when to come back for them.
    pub again_at: Option<Timestamp>,
    /// What a delivery's destination answered.
    pub detail: Option<String>,
}

/// What is newly known of a task.
#[derive(Clone, Debug, Default)]
pub struct TaskNews {
    /// It is proven ours, in this way.
    pub proof: Option<&'static str>,
    /// It was fetched.
    pub fetched: Option<Box<Fetched>>,
    /// Up to which time of the provider every stop of it is an event's.
    pub looked_at: Option<Timestamp>,
    /// The provider no longer knows it.
    pub deleted: bool,
    /// The provider said that our key cannot see it.
    pub refused: bool,
    /// It was asked for by id.
    pub probed: bool,
}

/// A step of one event.
#[derive(Clone, Debug)]
pub struct Move {
    /// The event, by [`StoredEvent::seq`].
    pub event: i64,
    /// Where it goes.
    pub to: Stage,
}

/// Where an event goes.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Its task is to be fetched.
    Fetch,
    /// Its files are to be archived, or those of an event before it.
    Archive {
        /// How its task is known.
        told: Told,
        /// It goes before something that came earlier.
        out_of_order: bool,
        /// It may tell of what another one told.
        may_repeat: bool,
    },
    /// It is done with; these are its deliveries, which may be none.
    Done(Vec<NewDelivery>),
    /// Nothing proves it ours.
    Quarantine(String),
    /// It was given up on: a dead letter, for this reason.
    Dead(String),
}

/// A delivery to be made.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Its id: constant over its attempts.
    pub id: Uuid,
    /// The destination.
    pub destination: String,
    /// The route that chose it.
    pub route: String,
    /// What is sent.
    pub body: String,
    /// It goes before something that came earlier.
    pub out_of_order: bool,
    /// The longest that it waits for what is before it in its lane; `None` is as long as that takes.
    pub order_wait: Option<std::time::Duration>,
}

/// What a failed attempt leaves behind.
#[derive(Clone, Debug, Default)]
pub struct Setback {
    /// Why, for people.
    pub reason: String,
    /// What the attempt itself met, where `reason` says more than that.
    pub detail: Option<String>,
    /// Whether the other side may have acted.
    pub unknown: bool,
    /// Whether nothing was sent: then it was no attempt, and none is listed.
    pub unsent: bool,
    /// What was learnt of the task all the same.
    pub task: TaskNews,
}

/// What came of a wish to release an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// It goes on.
    Yes,
    /// It is not in quarantine, but in this state.
    Not(String),
    /// There is no such event.
    Unknown,
}

/// A task that a person told us to expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The provider's id.
    pub task_id: String,
    /// Its kind, in the provider's word.
    pub kind: String,
    /// What else must be known to ask for it. A credential.
    pub locator: Option<String>,
}

/// A task that was proven ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The provider's id.
    pub task_id: String,
    /// How: `created`, `tracked`, `listed`, `private`, `readable` or `visible`.
    pub how: &'static str,
    /// Its title, where that was told.
    pub title: Option<String>,
    /// Its page, where that was told.
    pub url: Option<String>,
}

/// A rejected request, as kept.
#[derive(Clone, Debug)]
pub struct NewRejection {
    /// When it came.
    pub received_at: Timestamp,
    /// The source that it came in on.
    pub source: String,
    /// The code that it was answered with.
    pub code: &'static str,
    /// What would have matched.
    pub explanation: Option<String>,
    /// Path and query.
    pub target: String,
    /// Its headers, credentials as keyed hashes.
    pub headers: Vec<(String, String)>,
    /// The size of its body.
    pub body_bytes: usize,
    /// The first 16 KiB of it.
    pub body: Bytes,
}

/// A time as the store writes it.
#[must_use]
pub fn text(at: Timestamp) -> String {
    clock::rfc3339(at)
}

/// What is sent of a delivery that goes before its turn: `body`, marked. Nothing else of it may change, however it writes its numbers.
/// One that is no JSON object stays as it is.
#[must_use]
pub fn mark_out_of_order(body: &str) -> String {
    let members: Result<indexmap::IndexMap<String, &serde_json::value::RawValue>, _> = serde_json::from_str(body);
    let Ok(mut members) = members else { return body.to_owned() };
    let Ok(yes) = serde_json::value::to_raw_value(&true) else { return body.to_owned() };
    members.insert("out_of_order".to_owned(), &yes);
    serde_json::to_string(&members).unwrap_or_else(|_| body.to_owned())
}
