//! Posts that are done once: what a program sent with a key of its own, and what it was answered.
//!
//! What must hold:
//! - Of all who send one key, in whatever process, one is told to begin, and only once that is written down.
//! - What may have been done is never taken for not done: a row goes when nothing was, or after [`KEPT`]. Where there is no room for more
//!   answers, the rows stay and the oldest answers go; only above [`MOST`] the oldest rows go that have ended.
//! - Of a key and of what was sent only digests are kept. An answer goes with the task that it is about.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Store, forward};
use crate::event::hex;

/// How long a key is known.
pub const KEPT: Duration = Duration::from_hours(24);
/// The most keys that are known at one time.
pub const MOST: i64 = 20_000;
/// The most bytes of all answers that are kept.
pub const MOST_BYTES: i64 = 32 << 20;
/// The largest answer that is kept.
pub const LARGEST: usize = 64 << 10;
/// The longest that a post is taken to be in hand in another process that lives. What takes longest is to create a task with the largest
/// files, which takes about a minute and a half, and as long again in front of the provider's rate limit.
pub const LONGEST: Duration = Duration::from_mins(10);
/// The most rows that are removed in one step.
pub(super) const STEP: usize = 32;

/// A post that is about to be done.
#[derive(Clone, Debug)]
pub struct NewPost {
    /// Our id of this try.
    pub id: Uuid,
    /// The digest of its key.
    pub key: String,
    /// The digest of all that was sent.
    pub request: String,
    /// The process that does it: [`Store::replica`], where there are such.
    pub holder: Uuid,
    /// The task that it names: the source, and the provider's id.
    pub task: Option<(String, String)>,
}

/// What a post was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A post that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The digest of all that was sent.
    pub request: String,
    /// How it stands.
    pub stands: Stands,
}

/// How a post stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// The process that asks began it, and has written no end. Whether it is at it, only that process knows.
    Here,
    /// Another process is at it.
    Elsewhere,
    /// It was begun, and whoever did is gone.
    Unknown,
    /// It was done; of the answer there is only the status.
    Done(u16),
    /// It was done, and answered so.
    Answered(Reply),
}

/// What became of the wish to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is to be done now.
    Yes,
    /// Its key was sent before.
    Known(Post),
    /// There are as many as may be, and none has ended.
    Full,
}

/// What stays of a task's id: the same as where it was erased.
pub(super) fn digest_of(task_id: &str) -> String {
    hex(digest(&SHA256, task_id.as_bytes()).as_ref())
}

/// How a row stands: whether it has ended, what with, and how it stands if not.
pub(super) fn stands(
    ended: bool,
    status: Option<i64>,
    content_type: Option<String>,
    body: Option<Vec<u8>>,
    open: Stands,
) -> Stands {
    let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
    match body {
        _ if !ended => open,
        Some(body) => Stands::Answered(Reply { status, content_type, body }),
        None => Stands::Done(status),
    }
}

impl Store {
    /// The post that came with `key`, as `holder` sees it.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn post(&self, key: &str, holder: Uuid, now: Timestamp) -> Result<Option<Post>, Error> {
        forward!(self.post(key, holder, now))
    }

    /// Writes down that a post is about to be done; or says how the one with its key stands, and changes nothing.
    ///
    /// # Errors
    /// When the commit failed: then it must not be done.
    pub async fn begin_post(&self, post: NewPost, now: Timestamp) -> Result<Begun, Error> {
        forward!(self.begin_post(post, now))
    }

    /// Writes down what a post was answered, and the task that this is about, where that is known only now. Of an answer that is too large, or
    /// whose task was erased meanwhile, the status is kept.
    ///
    /// # Errors
    /// When the commit failed: then nobody knows, once its process has ended.
    pub async fn end_post(&self, id: Uuid, reply: Reply, task: Option<(String, String)>, now: Timestamp) -> Result<(), Error> {
        forward!(self.end_post(id, reply, task, now))
    }

    /// Forgets a post that was begun, and that did nothing.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn undo_post(&self, id: Uuid) -> Result<(), Error> {
        forward!(self.undo_post(id))
    }

    /// Forgets some of the posts that are older than [`KEPT`]. Whether there may be more.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn forget_posts(&self, now: Timestamp) -> Result<bool, Error> {
        forward!(self.forget_posts(now))
    }
}
