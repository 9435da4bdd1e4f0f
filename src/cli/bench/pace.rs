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
use super::latency::Latencies;
use super::load::{Answer, Connection, Load, Run};
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
    all.run.took = clock.elapsed() - begun;
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
