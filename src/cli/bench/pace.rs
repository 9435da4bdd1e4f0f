//! Events at moments that are fixed beforehand, whatever becomes of those before: an open loop.
//!
//! What must hold: a latency counts from the moment that the event was to be sent, not from the one at which it could be. If answers
//! are slow, the events behind them wait, and that shows (no coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::{Error, Result};
use super::connection::{Answer, Connection};
use super::latency::Latencies;
use super::load::{Load, Run};
use super::progress::Counter;
use crate::clock::Clock;

/// When a request of the load is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// From the beginning on.
    pub(super) at: Duration,
    /// Which.
    pub(super) index: usize,
}

/// An event that was acknowledged as new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    /// Its id, as the answer told.
    pub(super) id: Uuid,
    /// When it was to be sent.
    pub(super) at: Duration,
}

/// What came of it.
pub(super) struct Paced {
    pub(super) run: Run,
    /// How late requests left: the sender's own delay, and the wait for a connection that was free.
    pub(super) late: Latencies,
    pub(super) acknowledged: Vec<Acknowledged>,
    /// When it began, by the clock's running time.
    pub(super) begun: Duration,
}

/// So many moments a second, for so long; the first is at `from`.
pub(super) fn steady(per_second: u32, from: Duration, length: Duration) -> impl Iterator<Item = Duration> + Send + 'static {
    let step = Duration::from_secs(1) / per_second.max(1);
    let count = count(per_second, length);
    (0..count).map(move |number| from + step.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX)))
}

/// How many moments [`steady`] has.
pub(super) fn count(per_second: u32, length: Duration) -> usize {
    usize::try_from(u128::from(per_second) * length.as_millis() / 1000).unwrap_or(usize::MAX)
}

/// Sends the requests of `load` at their moments, over `connections`.
pub(super) async fn open_loop(
    load: &Arc<Load>,
    moments: impl Iterator<Item = Moment> + Send + 'static,
    to: SocketAddr,
    connections: usize,
    clock: &Clock,
    done: &Counter,
) -> Result<Paced> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = Connection::new(to);
        connection.open().await.map_err(|error| Error::failed(format!("cannot connect to {to}: {error}")))?;
        open.push(connection);
    }
    let (sender, due) = mpsc::unbounded_channel::<Moment>();
    let due = Arc::new(Mutex::new(due));
    let (begun, timing) = (clock.elapsed(), clock.clone());
    // A thread of its own: the timers of the runtime know whole milliseconds only.
    let timer = std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
        for moment in moments {
            let wait = (begun + moment.at).saturating_sub(timing.elapsed());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            if sender.send(moment).is_err() {
                return;
            }
        }
    });
    timer.map_err(|error| Error::failed(format!("cannot start a thread: {error}")))?;
    let mut senders = JoinSet::new();
    for mut connection in open {
        let (load, due, clock, done) = (Arc::clone(load), Arc::clone(&due), clock.clone(), done.clone());
        senders.spawn(async move {
            let mut paced = Paced { run: Run::new(), late: Latencies::new(), acknowledged: Vec::new(), begun };
            while let Some(moment) = next(&due).await {
                let Some(request) = load.request(moment.index) else { continue };
                let intended = begun + moment.at;
                paced.late.record(clock.elapsed().saturating_sub(intended));
                let answer = connection.exchange(&request).await;
                paced.run.count(&answer, clock.elapsed().saturating_sub(intended));
                paced.acknowledged.extend(answer.ok().as_ref().and_then(accepted).map(|id| Acknowledged { id, at: moment.at }));
                done.add(1);
            }
            paced
        });
    }
    let mut all = Paced { run: Run::new(), late: Latencies::new(), acknowledged: Vec::new(), begun };
    while let Some(sender) = senders.join_next().await {
        let paced = sender.map_err(|error| Error::failed(format!("a sender ended: {error}")))?;
        all.run.add(paced.run);
        all.late.add(&paced.late);
        all.acknowledged.extend(paced.acknowledged);
    }
    all.run.took = clock.elapsed().saturating_sub(begun);
    Ok(all)
}

/// The next moment that has come; the senders take turns.
async fn next(due: &Mutex<mpsc::UnboundedReceiver<Moment>>) -> Option<Moment> {
    due.lock().await.recv().await
}

/// The id of an event that was accepted as new.
fn accepted(answer: &Answer<'_>) -> Option<Uuid> {
    answer.says("accepted").then(|| answer.id()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::load::{Maker, Signer};
    use super::super::target::listen;
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn moments_are_as_many_as_the_rate_says() {
        let moments: Vec<_> = steady(4, Duration::from_secs(1), Duration::from_millis(1500)).collect();
        let millis: Vec<_> = moments.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [1000, 1250, 1500, 1750, 2000, 2250]);
        assert_eq!(count(3500, Duration::from_secs(40)), 140_000);
    }

    /// A server that answers the first request late delays those behind it: they tell of it, although each was answered at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_stall_shows_in_all_that_it_holds_up() {
        const STALL: Duration = Duration::from_millis(300);
        let (listener, clock) = (listen().await.unwrap(), Clock::system());
        let to = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        let timing = clock.clone();
        server.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let mut first = true;
            while stream.read(&mut bytes).await.unwrap() > 0 {
                if std::mem::take(&mut first) {
                    timing.sleep(STALL).await;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        });
        let maker = Maker { signer: Signer::Hmac, tasks: Arc::new(vec!["t".to_owned()]), run: 1, padding: 0 };
        let load = Arc::new(Load::as_it_goes(maker, 0..10, clock.clone()));
        let moments = (0..10).map(|index| Moment { at: Duration::from_millis(1), index });
        let paced = open_loop(&load, moments, to, 1, &clock, &Counter::default()).await.unwrap();
        assert_eq!(paced.run.answered(), 10);
        let almost = Duration::from_millis(295);
        let least = paced.run.latencies.quantile(0.0);
        assert!(least >= almost, "{least:?}: also the last had to wait for the first");
        assert!(paced.late.max() >= almost);
    }
}
