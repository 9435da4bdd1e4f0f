//! What makes tasks go on: a step when it is due, its webhooks sent beside it.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::Shared;
use super::deliver::Batch;

/// The most batches of webhook requests that are on their way at one time.
const MAX_SENDING: usize = 64;

impl Shared {
    /// Does a task's next step; what is to be sent for it.
    pub(super) fn advance(self: &Arc<Self>, number: u64) -> Option<(Batch, InFlight)> {
        let mut state = self.lock();
        let event = state.advance(number)?;
        let requests = state.dispatch(event);
        let batch = state.batch(Some(number), requests)?;
        state.in_flight += 1;
        Some((batch, InFlight(Arc::clone(self))))
    }

    /// Events that a fault held back for an event that never came.
    pub(super) fn release_held(self: &Arc<Self>) -> Option<(Batch, InFlight)> {
        let mut state = self.lock();
        let requests = state.release_held();
        let batch = state.batch(None, requests)?;
        state.in_flight += 1;
        Some((batch, InFlight(Arc::clone(self))))
    }

    /// Does what is due, as much as may be on its way at once; when the next is due.
    fn do_due(self: &Arc<Self>, sending: &mut JoinSet<()>) -> Option<Timestamp> {
        while sending.len() < MAX_SENDING {
            let next = self.lock().next_due();
            let started = match next {
                Some((due, number)) if due <= self.options.clock.now() => self.advance(number),
                Some((due, _)) => return Some(due),
                None => match self.release_held() {
                    None => return None,
                    held => held,
                },
            };
            if let Some((batch, in_flight)) = started {
                let shared = Arc::clone(self);
                sending.spawn(async move {
                    shared.send(batch).await;
                    drop(in_flight);
                });
            }
            self.rest.send_replace(());
        }
        None
    }

    /// Lives all tasks by the clock, until the stop.
    pub(super) async fn drive(self: Arc<Self>) {
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
                () = self.options.clock.sleep_until(due.unwrap_or(Timestamp::MAX)), if due.is_some() => {}
            }
        }
    }
}

/// Counts a batch as on its way for as long as it lives.
pub(super) struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
        self.0.rest.send_replace(());
    }
}
