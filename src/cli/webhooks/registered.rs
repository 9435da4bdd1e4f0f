//! What came of registering a webhook.

use std::io;

use super::super::client::Client;
use super::super::{Context, Error, Failure, Result};
use super::ping::Seen;
use crate::provider::{ApiError, Webhook};

/// A webhook that is registered.
pub(in crate::cli) struct Registered {
    /// What the provider tells of it; version 1 of Manus's API tells nothing of one that was there before.
    pub(in crate::cli) webhook: Option<Webhook>,
    /// Whether it was registered just now.
    pub(in crate::cli) new: bool,
    /// What there was before.
    pub(super) before: Option<Seen>,
}

impl Registered {
    /// Waits until the test request of a new one has come, and says what became of it.
    pub(in crate::cli) async fn tried(&self, client: Option<&Client>, context: &mut Context<'_>) -> Result {
        match (client, &self.before) {
            _ if !self.new => Ok(()),
            (Some(client), Some(before)) => before.wait(client, context).await,
            _ => {
                let unasked = "Whether the test request arrived is not known: the admin API could not be asked.";
                Ok(writeln!(context.err, "{unasked}")?)
            }
        }
    }
}

/// Why it is not registered.
#[derive(Debug)]
pub(in crate::cli) struct Unregistered {
    pub(in crate::cli) failure: Failure,
    /// What the provider answered, where it was that.
    pub(in crate::cli) cause: Option<ApiError>,
}

impl From<Failure> for Unregistered {
    fn from(failure: Failure) -> Self {
        Self { failure, cause: None }
    }
}

impl From<Error> for Unregistered {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<io::Error> for Unregistered {
    fn from(error: io::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<Unregistered> for Failure {
    fn from(unregistered: Unregistered) -> Self {
        unregistered.failure
    }
}
