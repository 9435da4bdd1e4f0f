//! Who looks on while something is measured: dashboards, each with a stream and the page of events, which it loads again when there are
//! news, as the script of the pages does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use sse_stream::SseStream;
use tokio::task::JoinSet;

use super::super::{Error, Result};
use crate::clock::Clock;
use crate::http;

/// A page is not loaded again sooner than so long after it was, nor than so many times as long as it took.
const APART: (Duration, u32) = (Duration::from_secs(3), 20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of a page.
const PAGE_MAX: usize = 4 << 20;

/// Dashboards; they are closed with the value.
pub(super) struct Viewers {
    running: JoinSet<()>,
    seen: Arc<Seen>,
}

/// What all of them were told and shown.
#[derive(Debug, Default)]
struct Seen {
    streams: AtomicUsize,
    messages: AtomicUsize,
    pages: AtomicUsize,
}

impl Viewers {
    /// Opens so many of the admin listener at `admin`, and waits until each was told something.
    pub(super) async fn open(count: usize, admin: SocketAddr, clock: &Clock) -> Result<Self> {
        let (seen, mut running) = (Arc::new(Seen::default()), JoinSet::new());
        for _ in 0..count {
            running.spawn(look_on(admin, clock.clone(), Arc::clone(&seen)));
        }
        let begun = clock.elapsed();
        while seen.streams.load(Ordering::Relaxed) < count {
            if clock.elapsed().saturating_sub(begun) > PATIENCE {
                return Err(Error::failed("the admin listener gave not every viewer a stream".to_owned()).into());
            }
            clock.sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { running, seen })
    }

    /// Closes them; how many messages and pages they got.
    pub(super) fn close(self) -> (usize, usize) {
        drop(self.running);
        (self.seen.messages.load(Ordering::Relaxed), self.seen.pages.load(Ordering::Relaxed))
    }
}

async fn look_on(admin: SocketAddr, clock: Clock, seen: Arc<Seen>) {
    let client = http::transfer_client(PATIENCE, None);
    let Ok(answer) = client.get(format!("http://{admin}/api/v1/stream")).send().await else { return };
    let mut news = SseStream::from_bytes_stream(answer.bytes_stream());
    let (mut not_before, mut told) = (Duration::ZERO, false);
    while let Some(Ok(message)) = news.next().await {
        seen.messages.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut told, true) {
            seen.streams.fetch_add(1, Ordering::Relaxed);
        }
        let begun = clock.elapsed();
        if begun < not_before || !message.data.is_some_and(|data| data.contains("\"events\"")) {
            continue;
        }
        let page = http::send(client.get(format!("http://{admin}/events")), PATIENCE, PAGE_MAX).await;
        seen.pages.fetch_add(usize::from(page.is_ok_and(|page| page.status == 200)), Ordering::Relaxed);
        let ended = clock.elapsed();
        not_before = ended + APART.0.max(ended.saturating_sub(begun) * APART.1);
    }
}
