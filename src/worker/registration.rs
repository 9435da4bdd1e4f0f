//! Whether the provider sends its webhooks here: what is registered is compared with where events are to come.
//!
//! What must hold: it only warns; a failed call says nothing about what is registered; and it comes behind all that has the account's
//! calls for something else.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::Environment;
use super::prove::complain;
use super::reconcile::Next;
use crate::provider::{ApiError, Source, Use};

/// How long whoever starts may take to register: what is not there yet is nothing to tell of.
const SETTLE: Duration = Duration::from_mins(1);

/// What comes next for a source that was not looked at yet.
pub(super) fn begin(now: Duration) -> Next {
    Next { compare: now + SETTLE, compared: Arc::new(AtomicBool::new(true)), ..Next::default() }
}

/// Compares, and tells in `/readyz` what is wrong. False if something is, or could not be found out: then it is looked at again soon.
pub(super) async fn compare(environment: &Environment, source: &Source) -> bool {
    let part = format!("source {} webhooks", source.name());
    // What is lent for a while as well: a tunnel has its URL registered.
    let public_urls = environment.public_urls.current();
    if public_urls.is_empty() {
        return true;
    }
    // The call takes its own place as well, which it then need not wait for: once an hour that is no loss.
    source.budget().take(Use::Reconcile).await;
    match source.webhooks_list().await {
        Ok(webhooks) => {
            let is = source.registration(&public_urls, &webhooks);
            let wrong = source.unregistered(&public_urls, &is);
            let is_well = wrong.is_none();
            match wrong {
                Some((problem, run)) => environment.health.degrade(&part, format!("{problem}; run `{}`", run.join("`, then `"))),
                None => environment.health.recover(&part),
            }
            is_well
        }
        // This version of the API does not tell.
        Err(ApiError::Unsupported { .. }) => true,
        Err(error) => {
            complain(environment, source, 1, &error);
            false
        }
    }
}
