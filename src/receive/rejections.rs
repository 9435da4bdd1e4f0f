//! Requests that did not verify, kept off the event path for whoever sets taskhook up.
//!
//! What must hold: a flood of forgeries costs little. A source's first [`PER_SECOND`] in a second are looked at, the rest only
//! counted; what waits to be looked at is bounded; and the store keeps a ring.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::kept;
use crate::clock::Clock;
use crate::event::hex;
use crate::keys::Loaded;
use crate::provider::{self, Source};
use crate::public_url::PublicUrls;
use crate::store::Store;
use crate::store::model::NewRejection;
use crate::telemetry::{logged, name};

/// How many rejections of a source are looked at in a second.
const PER_SECOND: u32 = 5;
/// How many may wait to be looked at.
const WAITING: usize = 32;
/// How much of a body is kept.
const BODY_BYTES: usize = 16 << 10;

/// A request that did not verify, or came from an address that may not send.
#[derive(Debug)]
pub struct Rejected {
    /// The source that it came in on.
    pub source: Arc<Source>,
    /// The keys that it was checked with.
    pub keys: Arc<Loaded>,
    /// The code that it was answered with.
    pub code: &'static str,
    /// Why, where that is known already.
    pub explanation: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Path and query as received.
    pub suffix: String,
    /// Path and query as kept.
    pub target: String,
    /// Its bytes.
    pub body: Bytes,
    /// When it came.
    pub received_at: Timestamp,
}

/// Where rejections are put; clones share it.
#[derive(Clone, Debug)]
pub struct Rejections {
    clock: Clock,
    queue: mpsc::Sender<Rejected>,
    /// The second that is counted, and how many of each source came in it.
    seen: Arc<Mutex<(u64, HashMap<String, u32>)>>,
}

/// Looks at what [`Rejections`] are given, and keeps them.
#[derive(Debug)]
pub struct Keeper {
    queue: mpsc::Receiver<Rejected>,
    store: Store,
    public_urls: PublicUrls,
    /// Credentials are kept as a keyed hash, so that two can be told apart and none can be guessed.
    hasher: hmac::Key,
}

/// Both ends.
///
/// # Panics
/// If the system has no random numbers.
#[must_use]
pub fn rejections(store: Store, clock: Clock, public_urls: PublicUrls) -> (Rejections, Keeper) {
    let (sender, queue) = mpsc::channel(WAITING);
    let random = aws_lc_rs::rand::SystemRandom::new();
    let hasher = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("the system has random numbers");
    (Rejections { clock, queue: sender, seen: Arc::default() }, Keeper { queue, store, public_urls, hasher })
}

impl Rejections {
    /// Adds one, unless there are too many.
    pub fn add(&self, rejected: Rejected) {
        metrics::counter!(name::REJECTIONS, "source" => rejected.source.name().to_owned(), "code" => rejected.code).increment(1);
        let second = self.clock.elapsed().as_secs();
        let many = {
            let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if seen.0 != second {
                *seen = (second, HashMap::new());
            }
            let count = seen.1.entry(rejected.source.name().to_owned()).or_default();
            *count += 1;
            *count > PER_SECOND
        };
        if !many {
            // A full queue drops it: it is counted, and there are more like it.
            let _ = self.queue.try_send(rejected);
        }
    }
}

impl Keeper {
    /// Keeps what comes, until `stop`; then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut batch = Vec::with_capacity(WAITING);
            tokio::select! {
                received = self.queue.recv_many(&mut batch, WAITING) => if received == 0 { return },
                () = stop.cancelled() => return self.keep_waiting().await,
            }
            self.keep(batch).await;
        }
    }

    /// Keeps what waits now. For whoever moves time by hand.
    pub async fn keep_waiting(&mut self) {
        let mut batch = Vec::new();
        while let Ok(rejected) = self.queue.try_recv() {
            batch.push(rejected);
        }
        self.keep(batch).await;
    }

    async fn keep(&self, batch: Vec<Rejected>) {
        if batch.is_empty() {
            return;
        }
        let rejections = batch.into_iter().map(|rejected| self.look(rejected)).collect();
        let result = tokio::time::timeout(Duration::from_secs(10), self.store.record_rejections(rejections)).await;
        if !matches!(result, Ok(Ok(()))) {
            tracing::warn!("rejections could not be kept; they are only counted");
        }
    }

    /// Says what would have matched.
    fn look(&self, rejected: Rejected) -> NewRejection {
        let Rejected { source, keys, code, explanation, headers, suffix, target, body, received_at } = rejected;
        let request = provider::Request { headers: &headers, body: &body, url_suffix: &suffix, now: received_at };
        let explanation = explanation.or_else(|| source.explain(&request, &self.public_urls.current(), &keys.keys));
        let hint = explanation.as_deref().unwrap_or("nothing that we know would have made it valid; it may be forged");
        tracing::warn!(source = source.name(), code, "refused a request for `{}` ({code}): {}", source.name(), logged(hint));
        let hide = |secret: &[u8]| format!("hmac:{}", &hex(hmac::sign(&self.hasher, secret).as_ref())[..16]);
        NewRejection {
            received_at,
            source: source.name().to_owned(),
            code,
            explanation,
            target,
            headers: kept(&headers, &source, hide),
            body_bytes: body.len(),
            body: body.slice(..body.len().min(BODY_BYTES)),
        }
    }
}
