//! The verbs of the contract that work on jobs, each one transaction.

use jiff::Timestamp;
use uuid::Uuid;

use super::end::How;
use super::session::transact;
use super::{Postgres, claim, work};
use crate::store::Error;
use crate::store::model::{Capacity, Claimed, Finish, Lease, Proof, Queue, Released, Setback, Stage};

impl Postgres {
    /// What a person asked for, of which the replica is told whose work it may be.
    pub(super) fn and_ring<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        self.shared.bell.ring();
        done
    }

    pub(in crate::store) async fn claim(&self, capacities: Vec<Capacity>, now: Timestamp) -> Result<Claimed, Error> {
        let _turn = self.shared.in_hand.turn().await;
        // Seldom there is one to end, and looking is one statement by an index.
        if self.shared.expire_at.is_due() {
            let ended = self.expire(now).await?;
            if ended > 0 {
                tracing::warn!(leases = ended, "{ended} lease(s) of a replica that is gone have run out");
            }
            let unknown = self.hand_back_unknown(now).await?;
            if unknown > 0 {
                tracing::warn!(leases = unknown, "{unknown} lease(s) of a claim whose answer was lost are handed back");
            }
        }
        let claimed = transact!(self.work(), Work, |tx| claim::claim(&tx, self.shared.me, &capacities, now));
        self.shared.in_hand.claimed(&claimed);
        claimed
    }

    pub(in crate::store) async fn renew(&self, lease: Lease) -> Result<bool, Error> {
        transact!(self.work(), WorkRead, |tx| work::renew(&tx, lease))
    }

    pub(in crate::store) async fn finish(&self, lease: Lease, now: Timestamp, finish: Finish) -> Result<bool, Error> {
        let deliveries = finish.moves.iter().flat_map(|step| match &step.to {
            Stage::Done(deliveries) => deliveries.as_slice(),
            _ => &[],
        });
        let called: Vec<_> = deliveries.map(|delivery| Queue::Destination(delivery.destination.clone())).collect();
        let ended = self.end(lease, now, How::Finished(finish)).await?;
        self.shared.bell.ring_for(called.into_iter());
        Ok(ended)
    }

    pub(in crate::store) async fn retry(
        &self,
        lease: Lease,
        now: Timestamp,
        due: Timestamp,
        setback: Setback,
    ) -> Result<bool, Error> {
        self.end(lease, now, How::Failed { due: Some(due), setback }).await
    }

    pub(in crate::store) async fn bury(&self, lease: Lease, now: Timestamp, setback: Setback) -> Result<bool, Error> {
        self.end(lease, now, How::Failed { due: None, setback }).await
    }

    pub(in crate::store) async fn hand_back(&self, leases: Vec<Lease>, now: Timestamp) -> Result<(), Error> {
        transact!(self.work(), Write, |tx| work::hand_back(&tx, &leases, now))?;
        self.shared.in_hand.ended(&leases);
        Ok(())
    }

    pub(in crate::store) async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        let mut ended = 0;
        loop {
            let (more, all) = transact!(self.work(), Write, |tx| work::expire(&tx, self.shared.me, now))?;
            ended += more;
            if all {
                return Ok(ended);
            }
        }
    }

    pub(in crate::store) async fn record_proofs(&self, source: &str, proofs: Vec<Proof>, now: Timestamp) -> Result<(), Error> {
        transact!(self.work(), Work, |tx| work::prove(&tx, source, &proofs, now))
    }

    pub(in crate::store) async fn release(&self, event: &str, now: Timestamp) -> Result<Released, Error> {
        let Ok(event) = Uuid::parse_str(event) else { return Ok(Released::Unknown) };
        self.and_ring(transact!(self.sessions(), Write, |tx| work::release(&tx, event, now)))
    }
}
