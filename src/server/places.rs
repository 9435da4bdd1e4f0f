//! Places for connections, and whose place is given away when all are taken.
//!
//! What must hold: whoever opens connections and leaves them idle, or sends slowly, keeps nobody else out. When a new connection comes and
//! no place is free, the one whose peer has been waited for the longest is closed, if that is [`PATIENCE`] or more. A connection
//! whose request has come whole is never closed for another's sake: it waits for us.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::task::Id;
use tokio::time::Instant;

/// How long every connection may keep us waiting, even when others want its place.
const PATIENCE: Duration = Duration::from_millis(500);
/// When to look again after a connection was told to go.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often it is told that all places are taken.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// In the place of a time: the connection waits for us.
const AT_WORK: u64 = u64::MAX;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    begun: Instant,
    taken: HashMap<Id, Arc<Place>>,
    told_at: Option<Instant>,
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Place {
    begun: Instant,
    /// Since when its peer is waited for, in milliseconds since `begun`; or [`AT_WORK`].
    waits_since: AtomicU64,
    /// Whether it has been answered and no next request has begun.
    between: AtomicBool,
    /// Whether it was told to go.
    told: AtomicBool,
    go: Notify,
}

/// What a connection that is told to go has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// Its request came whole in the meantime: it stays.
    Stays,
    /// It is between two requests: it ends in order.
    InOrder,
    /// It has not sent a whole request: it is closed.
    Now,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, begun: Instant::now(), taken: HashMap::new(), told_at: None }
    }

    /// A place for a connection that begins now; see [`Places::take`].
    pub(super) fn place(&self) -> Arc<Place> {
        let place = Place {
            begun: self.begun,
            waits_since: AtomicU64::new(AT_WORK),
            between: AtomicBool::new(false),
            told: AtomicBool::new(false),
            go: Notify::new(),
        };
        place.wait_for_peer();
        Arc::new(place)
    }

    /// The task `id` holds `place` now.
    pub(super) fn take(&mut self, id: Id, place: Arc<Place>) {
        self.taken.insert(id, place);
    }

    /// The task `id` has ended.
    pub(super) fn free(&mut self, id: Id) {
        self.taken.remove(&id);
    }

    /// Whether a place is free; if not, one is asked for, and it is said when to look again.
    pub(super) fn make_room(&mut self) -> Result<(), Duration> {
        if self.taken.len() < self.most {
            return Ok(());
        }
        let now = Instant::now();
        if self.told_at.is_none_or(|at| now - at >= TELL_EVERY) {
            self.told_at = Some(now);
            tracing::warn!(
                most = self.most,
                "all {} connections of a listener are in use (`server.max_connections`, for the public one); those that send nothing are closed for new ones",
                self.most
            );
        }
        let waiting = self.taken.values().filter(|place| !place.told.load(Ordering::Relaxed));
        let longest = waiting.filter_map(|place| Some((place.waiting_since()?, place))).min_by_key(|(since, _)| *since);
        let Some((since, place)) = longest else { return Err(PATIENCE) };
        let waited = (now - self.begun).saturating_sub(Duration::from_millis(since));
        if let Some(wait) = PATIENCE.checked_sub(waited).filter(|wait| !wait.is_zero()) {
            return Err(wait.max(Duration::from_millis(1)));
        }
        place.told.store(true, Ordering::Relaxed);
        place.go.notify_one();
        Err(LOOK_AGAIN)
    }
}

impl Place {
    /// Waits until another wants this place.
    pub(super) async fn wanted(&self) {
        self.go.notified().await;
    }

    /// What to do about that. It is asked by the task of the connection, so nothing of it moves meanwhile.
    pub(super) fn going(&self) -> Going {
        if self.waiting_since().is_none() {
            self.told.store(false, Ordering::Relaxed);
            Going::Stays
        } else if self.between.load(Ordering::Relaxed) {
            Going::InOrder
        } else {
            Going::Now
        }
    }

    /// The headers of a request have come; its body is waited for.
    pub(super) fn reading(self: &Arc<Self>, body: Incoming) -> Arriving {
        self.between.store(false, Ordering::Relaxed);
        self.wait_for_peer();
        let arriving = Arriving { body, place: Arc::clone(self) };
        if arriving.body.is_end_stream() {
            self.work();
        }
        arriving
    }

    /// The answer is there; once it is gone, the next request is waited for.
    pub(super) fn answering<B>(self: &Arc<Self>, body: B) -> Leaving<B> {
        Leaving { body, place: Arc::clone(self) }
    }

    fn waiting_since(&self) -> Option<u64> {
        Some(self.waits_since.load(Ordering::Relaxed)).filter(|since| *since != AT_WORK)
    }

    fn wait_for_peer(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(AT_WORK - 1);
        self.waits_since.store(since, Ordering::Relaxed);
    }

    fn work(&self) {
        self.waits_since.store(AT_WORK, Ordering::Relaxed);
    }
}

/// The body of a request: while it comes, the peer is waited for.
pub(super) struct Arriving {
    body: Incoming,
    place: Arc<Place>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.place.work();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    /// Read or not, what follows is ours to say.
    fn drop(&mut self) {
        self.place.work();
    }
}

/// The body of an answer: once it is gone, the next request is waited for.
pub(super) struct Leaving<B> {
    body: B,
    place: Arc<Place>,
}

impl<B: Body + Unpin> Body for Leaving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Leaving<B> {
    fn drop(&mut self) {
        self.place.wait_for_peer();
        self.place.between.store(true, Ordering::Relaxed);
    }
}
