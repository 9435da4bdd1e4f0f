//! What all simulators have in common: tasks that go on step by step, requests to webhooks that leave in order, and a record.
//!
//! A simulator is a [`Model`]: its state, and how it speaks. A [`Core`] holds the model behind one lock, which is held for
//! moments only, and does everything that waits: it sends, it sends again, and under [`Drive::Clock`] it lives by the clock.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::{Batch, Board, Outgoing};
use super::fault::ApiFault;
use super::record::{Delivery, Happening};
use super::shelf::Shelf;
use crate::clock::{Clock, after};
use crate::http;

/// How long a webhook may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a webhook's answer that are read.
const MAX_ANSWER: usize = 64 << 10;
/// The most bytes of it that are remembered.
const KEPT_ANSWER: usize = 300;
/// How many happenings a slow listener may be behind before it misses some.
const MAX_BEHIND: usize = 1024;
/// The most batches of webhook requests that are on their way at one time.
const MAX_SENDING: usize = 64;

/// Who makes tasks go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The clock: each step is done when it is due.
    Clock,
    /// The caller: each step is done when it says so.
    Hand,
}

/// What is sent: headers and body. Made outside of the lock, since signing may take long.
pub(super) type Dressed = Box<dyn FnOnce() -> (HeaderMap, Bytes) + Send>;

/// One provider's state, and how it speaks.
pub(super) trait Model: Send + Sized + 'static {
    /// What a webhook request tells, before it is made ready to be sent.
    type Event: Clone + fmt::Debug + Send + Sync + 'static;
    /// What may go wrong.
    type Faults: Clone + Serialize + DeserializeOwned + Send;
    /// What does not change while it runs.
    type Options: Send + Sync;

    /// How its webhook requests name themselves.
    const NAME: &'static str;
    /// How faults are set, for people.
    const FAULTS: &'static str;

    fn board(&self) -> &Board;
    fn board_mut(&mut self) -> &mut Board;
    fn shelf(&self) -> &Shelf;
    fn faults(&mut self) -> &mut Self::Faults;
    /// Whether a fault makes every link to a file a dead one.
    fn links_expired(&self) -> bool;
    /// Wall time as the simulator tells it.
    fn now(&self) -> Timestamp;
    /// What its `Date` header says.
    fn date(&self) -> Timestamp {
        self.now()
    }

    /// The number of the task with this id.
    fn number(&self, id: &str) -> Option<u64>;
    /// Whether a task has a step left.
    fn has_step(&self, number: u64) -> bool;
    /// Does a task's next step; what is to be sent for it, after the faults had their say.
    fn advance(&mut self, number: u64) -> Vec<Outgoing<Self::Event>>;
    /// What faults still hold back, to be sent now.
    fn release_held(&mut self) -> Vec<Outgoing<Self::Event>>;
    /// Whether faults hold something back.
    fn holds(&self) -> bool;

    /// The record of a try.
    fn delivery(event: &Self::Event, url: &str, attempt: u32) -> Delivery;
    /// Makes a request ready. Each try is made ready anew.
    fn dress(&mut self, out: &Outgoing<Self::Event>) -> Dressed;
    /// The wait from try `attempt`, which was not answered 2xx, to the next; `None` if there is none.
    fn again(options: &Self::Options, attempt: u32) -> Option<Duration>;

    /// The label of the account that calls.
    fn caller(&self, headers: &HeaderMap) -> Option<String>;
    /// The faults of the API.
    fn api_faults(&mut self) -> &mut [ApiFault];
    /// A refusal that a fault asked for, as this provider words it.
    fn refuse(status: StatusCode) -> Response;
}

/// A simulator's model, and what makes it go on.
pub(super) struct Core<M: Model> {
    pub(super) options: M::Options,
    pub(super) clock: Clock,
    /// Something is to be done sooner than the driver knew.
    pub(super) wake: Notify,
    /// Changes whenever the simulator may have come to rest.
    pub(super) rest: watch::Sender<()>,
    pub(super) stop: CancellationToken,
    client: reqwest::Client,
    model: Mutex<M>,
    happenings: broadcast::Sender<Happening>,
}

/// The server and the driver of a simulator.
pub(super) type Parts = Arc<Mutex<JoinSet<()>>>;

/// The origin that others reach `listener` at, or the one that was asked for.
///
/// # Panics
/// If the listener has no address, or `base_url` is no URL.
pub(super) fn origin(listener: &TcpListener, base_url: Option<&String>) -> String {
    let base_url = base_url.cloned().unwrap_or_else(|| {
        let address = listener.local_addr().expect("a bound listener has an address");
        format!("http://{address}")
    });
    assert!(url::Url::parse(&base_url).is_ok_and(|url| !url.cannot_be_a_base()), "`base_url` must be a URL");
    base_url.trim_end_matches('/').to_owned()
}

impl<M: Model> Core<M> {
    /// Starts a simulator on `listener` that serves what `router` makes; to be called inside a tokio runtime. It lives by the clock if
    /// `drive` says so. Its parts are aborted when the last handle to them goes, since nothing in them holds one.
    pub(super) fn start(
        listener: TcpListener,
        (model, options): (M, M::Options),
        clock: Clock,
        drive: Drive,
        stop: CancellationToken,
        router: impl FnOnce(Arc<Self>) -> Router,
    ) -> (Arc<Self>, Parts) {
        let core = Arc::new(Self {
            options,
            clock,
            wake: Notify::new(),
            rest: watch::Sender::new(()),
            stop: stop.clone(),
            client: http::client(TIMEOUT),
            model: Mutex::new(model),
            happenings: broadcast::Sender::new(MAX_BEHIND),
        });
        let mut parts = JoinSet::new();
        let router = router(Arc::clone(&core));
        parts.spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::error!(%error, "the simulator's server ended");
            }
        });
        if drive == Drive::Clock {
            parts.spawn(Arc::clone(&core).drive());
        }
        (core, Arc::new(Mutex::new(parts)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, M> {
        // What a panicking test left behind is whole: no change spans two locks.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, happening: Happening) {
        // Nobody may be listening.
        let _ = self.happenings.send(happening);
    }

    pub(super) fn happenings(&self) -> broadcast::Receiver<Happening> {
        self.happenings.subscribe()
    }

    /// Does a task's next step; what is to be sent for it.
    fn advance(self: &Arc<Self>, number: u64) -> Option<(Batch<M::Event>, InFlight<M>)> {
        let mut state = self.lock();
        let requests = state.advance(number);
        self.launch(&mut state, Some(number), requests)
    }

    /// Events that a fault held back for an event that never came.
    fn release_held(self: &Arc<Self>) -> Option<(Batch<M::Event>, InFlight<M>)> {
        let mut state = self.lock();
        let requests = state.release_held();
        self.launch(&mut state, None, requests)
    }

    fn launch(
        self: &Arc<Self>,
        state: &mut M,
        number: Option<u64>,
        requests: Vec<Outgoing<M::Event>>,
    ) -> Option<(Batch<M::Event>, InFlight<M>)> {
        let batch = state.board_mut().batch(number, requests)?;
        state.board_mut().in_flight += 1;
        Some((batch, InFlight(Arc::clone(self))))
    }

    /// Does the next step of a task, and waits until its webhooks have answered: the last try of each. Empty if nothing was sent;
    /// `None` if there was no step left.
    pub(super) async fn step(self: &Arc<Self>, id: &str) -> Option<Vec<Delivery>> {
        let number = {
            let state = self.lock();
            state.number(id).filter(|number| state.has_step(*number))?
        };
        match self.advance(number) {
            Some((batch, _in_flight)) => Some(self.send(batch).await),
            None => Some(Vec::new()),
        }
    }

    /// Does every step of every task until all rest; then sends what was held back. What was sent.
    pub(super) async fn finish_all(self: &Arc<Self>) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        loop {
            let next = self.lock().board().next_due();
            let started = match next {
                Some((_, number)) => self.advance(number),
                None => match self.release_held() {
                    None => return deliveries,
                    held => held,
                },
            };
            if let Some((batch, _in_flight)) = started {
                deliveries.extend(self.send(batch).await);
            }
        }
    }

    /// Waits until no step is planned and nothing is on its way (or until the stop).
    pub(super) async fn idle(&self) {
        let mut rest = self.rest.subscribe();
        let rests = |state: &M| state.board().due.is_empty() && state.board().in_flight == 0 && !state.holds();
        while !rests(&self.lock()) {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = rest.changed() => {}
            }
        }
    }

    /// Sends requests that no task's step asked for; the last try of each.
    pub(super) async fn emit(&self, requests: Vec<Outgoing<M::Event>>) -> Vec<Delivery> {
        let batch = self.lock().board_mut().batch(None, requests);
        match batch {
            Some(batch) => self.send(batch).await,
            None => Vec::new(),
        }
    }

    /// Sends a batch; what was answered, the last try of each request.
    async fn send(&self, batch: Batch<M::Event>) -> Vec<Delivery> {
        let Batch { before, sent, requests } = batch;
        if let Some(before) = before {
            // Ended or given up: either way it is our turn.
            let _ = before.await;
        }
        let mut deliveries = Vec::with_capacity(requests.len());
        // The wait is counted from before the answer, so that whoever saw that may move the clock.
        let mut sent_at = self.clock.now();
        for request in &requests {
            deliveries.push(self.post(request, 1).await);
        }
        // What is sent again does not hold up what comes after it.
        drop(sent);
        for attempt in 1.. {
            let again = M::again(&self.options, attempt).filter(|_| !deliveries.iter().all(Delivery::delivered));
            let Some(wait) = again else { break };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.clock.sleep_until(after(sent_at, wait)) => {}
            }
            sent_at = self.clock.now();
            for (request, delivery) in requests.iter().zip(&mut deliveries) {
                if !delivery.delivered() {
                    *delivery = self.post(request, attempt + 1).await;
                }
            }
        }
        deliveries
    }

    /// One try.
    pub(super) async fn post(&self, out: &Outgoing<M::Event>, attempt: u32) -> Delivery {
        let dressed = self.lock().dress(out);
        let (headers, body) = dressed();
        let request = self.client.post(&out.url).headers(headers).header("user-agent", M::NAME).body(body);
        let mut delivery = M::delivery(&out.event, &out.url, attempt);
        let sent_at = self.clock.elapsed();
        let answer = http::send(request, TIMEOUT, MAX_ANSWER).await;
        delivery.took_ms = self.clock.elapsed().saturating_sub(sent_at).as_secs_f64() * 1e3;
        match answer {
            Ok(answer) => {
                delivery.status = Some(answer.status.as_u16());
                delivery.answer = String::from_utf8_lossy(&answer.body[..answer.body.len().min(KEPT_ANSWER)]).into_owned();
            }
            Err(error) => delivery.error = Some(error.to_string()),
        }
        self.lock().board_mut().deliveries.push(delivery.clone());
        self.tell(Happening::Sent(delivery.clone()));
        delivery
    }

    /// Does what is due, as much as may be on its way at once; when the next is due.
    fn do_due(self: &Arc<Self>, sending: &mut JoinSet<()>) -> Option<Timestamp> {
        while sending.len() < MAX_SENDING {
            let next = self.lock().board().next_due();
            let started = match next {
                Some((due, number)) if due <= self.clock.now() => self.advance(number),
                Some((due, _)) => return Some(due),
                None => match self.release_held() {
                    None => return None,
                    held => held,
                },
            };
            if let Some((batch, in_flight)) = started {
                let core = Arc::clone(self);
                sending.spawn(async move {
                    core.send(batch).await;
                    drop(in_flight);
                });
            }
            self.rest.send_replace(());
        }
        None
    }

    /// Lives all tasks by the clock, until the stop.
    async fn drive(self: Arc<Self>) {
        let mut sending = JoinSet::new();
        loop {
            let due = self.do_due(&mut sending);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                Some(ended) = sending.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the simulator failed to send a webhook");
                    }
                }
                () = self.clock.sleep_until(due.unwrap_or(Timestamp::MAX)), if due.is_some() => {}
            }
        }
    }
}

/// Counts a batch as on its way for as long as it lives.
struct InFlight<M: Model>(Arc<Core<M>>);

impl<M: Model> Drop for InFlight<M> {
    fn drop(&mut self) {
        self.0.lock().board_mut().in_flight -= 1;
        self.0.rest.send_replace(());
    }
}

/// Waits until everything has ended after the stop signal.
pub(super) async fn stopped(parts: &Parts) {
    let mut parts = std::mem::take(&mut *parts.lock().unwrap_or_else(PoisonError::into_inner));
    while parts.join_next().await.is_some() {}
}
