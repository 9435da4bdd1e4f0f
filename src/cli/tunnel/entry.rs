//! One source behind a tunnel: registered, tried again, and deleted if it was registered here.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::client::Client;
use super::super::webhooks::Registrar;
use super::super::webhooks::registered::Unregistered;
use super::super::{Context, Failure, Result};
use super::old;
use crate::provider::ApiError;

/// How often a registration is tried that the provider rejects: it may not know the name of a new tunnel yet.
const TRIES: u32 = 4;
/// The waits before a registration is tried again.
const WAITS: [u64; 5] = [2, 4, 8, 30, 60];
/// The longest wait that a provider may ask for.
const LONGEST: Duration = Duration::from_mins(5);

/// A source whose webhooks come through it.
pub(super) struct Entry {
    pub(super) registrar: Registrar,
    pub(super) state: State,
    /// Whether the key to verify with can be loaded.
    keyed: bool,
    tries: u32,
    /// When it is tried next, by running time.
    pub(super) next: Duration,
    /// Whether a try had no answer, so that it may be registered.
    unknown: bool,
}

pub(super) enum State {
    /// To be registered.
    Due,
    /// Registered by us, with this id.
    Ours(String),
    /// Registered before us.
    Known,
    /// For the user to register.
    Pasted,
}

impl Entry {
    /// To be registered, where the provider has a call for it and it is wanted.
    pub(super) fn new(registrar: Registrar, register: bool) -> Self {
        let state = if register && registrar.source.registers() { State::Due } else { State::Pasted };
        Self { registrar, state, keyed: false, tries: 0, next: Duration::ZERO, unknown: false }
    }

    /// One try. Only waiting is cut by `stop`.
    pub(super) async fn register(
        &mut self,
        client: &Client,
        stop: &CancellationToken,
        context: &mut Context<'_>,
    ) -> std::result::Result<(), Unregistered> {
        self.tries += 1;
        if !self.keyed {
            self.registrar.load_key(context).await?;
            self.keyed = true;
        }
        let registered = self.registrar.enter(Some(client), context).await?;
        self.state = match &registered.webhook {
            // One that was not there before our try is its work.
            Some(webhook) if registered.new || self.unknown => State::Ours(webhook.id.clone()),
            _ => State::Known,
        };
        if registered.new {
            writeln!(context.err, "It is registered.")?;
        } else if matches!(self.state, State::Known) {
            writeln!(context.err, "It was there before, so it stays when this ends.")?;
            if self.unknown {
                writeln!(context.err, "An earlier try may have made it: then delete it yourself at the provider's.")?;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            tried = registered.tried(Some(client), context) => tried?,
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            told = old::tell(&self.registrar, context) => told?,
        }
        Ok(())
    }

    /// The wait before another try; fails if none makes sense.
    pub(super) fn again(&mut self, unregistered: Unregistered, context: &mut Context<'_>) -> Result<Duration> {
        let Unregistered { failure, cause } = unregistered;
        // It is registered, and only the rest of it failed.
        if !matches!(self.state, State::Due) {
            return Err(failure);
        }
        let Some(cause) = cause else { return Err(failure) };
        self.unknown |= cause.outcome_unknown();
        let after = match &cause {
            ApiError::Refused { .. } | ApiError::Unsupported { .. } => return Err(failure),
            ApiError::Rejected { .. } | ApiError::NotFound { .. } if self.tries >= TRIES => return Err(failure),
            ApiError::RateLimited { after, .. } | ApiError::Unavailable { after, .. } => *after,
            _ => None,
        };
        let rung = WAITS.get(self.tries.saturating_sub(1) as usize).copied().unwrap_or(WAITS[WAITS.len() - 1]);
        let wait = after.unwrap_or_default().min(LONGEST).max(Duration::from_secs(rung));
        writeln!(context.err, "{failure}\nTrying again in {} s.", wait.as_secs())?;
        Ok(wait)
    }

    /// Deletes the webhook, if it is ours.
    pub(super) async fn delete(self, context: &mut Context<'_>) -> Result {
        let Self { registrar, state, unknown, .. } = self;
        let name = registrar.source.name().to_owned();
        let id = match state {
            State::Ours(id) => id,
            State::Due if unknown => match registrar.known().await {
                Ok(Some(webhook)) => webhook.id,
                Ok(None) => return Ok(()),
                Err(unregistered) => return Err(unregistered.failure),
            },
            _ => return Ok(()),
        };
        match registrar.source.webhooks_delete(&id).await {
            Ok(()) | Err(ApiError::NotFound { .. }) => {
                let _ = writeln!(context.err, "The webhook of `{name}` is deleted.");
                Ok(())
            }
            Err(error) => {
                let failed = registrar.failed(&format!("the webhook of `{name}` was not deleted"), &error);
                Err(Failure::from(failed.hint(old::command(&name, &id))))
            }
        }
    }
}
