//! The program while it is killed again and again: one process, or replicas that share a store.
//!
//! What must hold: each replica comes back on its own ports, and one that has ended by itself is told of and never passes for killed.

use std::net::SocketAddr;

use super::super::super::Result;
use super::super::ground::Place;
use super::super::process::{Home, Process};
use crate::clock::Clock;

/// A replica, and its process while it has one.
struct Replica {
    home: Home,
    process: Option<Process>,
}

pub(super) struct Fleet(Vec<Replica>);

impl Fleet {
    /// So many replicas on the store of `place`, none of which runs yet.
    pub(super) fn new(count: usize, place: &Place, sections: &str) -> Result<Self> {
        let homes = Home::replicas(count, place, sections)?;
        Ok(Self(homes.into_iter().map(|home| Replica { home, process: None }).collect()))
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Where they receive.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|replica| replica.home.public).collect()
    }

    /// One of them, which answers for the store.
    pub(super) fn home(&self) -> &Home {
        &self.0[0].home
    }

    /// Starts those that do not run; says which is the last of these.
    pub(super) fn spawn(&mut self) -> Result<usize> {
        let mut last = 0;
        for (number, replica) in self.0.iter_mut().enumerate() {
            if replica.process.is_none() {
                replica.process = Some(replica.home.spawn()?);
                last = number;
            }
        }
        Ok(last)
    }

    /// Waits until all of them accept events.
    pub(super) async fn ready(&mut self, clock: &Clock) -> Result {
        for Replica { home, process } in &mut self.0 {
            if let Some(process) = process {
                home.ready(process, clock).await?;
            }
        }
        Ok(())
    }

    /// Ends `victim`, in order or not; all must be alive.
    pub(super) async fn end(&mut self, victim: usize, in_order: bool) -> Result {
        for Replica { home, process } in &mut self.0 {
            if let Some(process) = process {
                home.lives(process)?;
            }
        }
        let Replica { home, process } = &mut self.0[victim];
        match process.take() {
            Some(process) if in_order => home.stop(process).await,
            Some(process) => home.kill(process).await,
            None => Ok(()),
        }
    }

    /// Stops all of them in order.
    pub(super) async fn stop(&mut self) -> Result {
        for victim in 0..self.count() {
            self.end(victim, true).await?;
        }
        Ok(())
    }
}
