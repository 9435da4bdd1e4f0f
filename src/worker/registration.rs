//! Whether the provider sends its webhooks here: what is registered is compared with where events are to come.
//!
//! What must hold: it only warns; a failed call says nothing about what is registered; and it comes behind all that has the account's
//! calls for something else.

use super::Environment;
use super::prove::complain;
use crate::provider::{ApiError, Source, Use};

/// Compares, and tells in `/readyz` what is wrong. False if it could not be found out.
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
            match source.unregistered(&public_urls, &is) {
                Some((problem, run)) => environment.health.degrade(&part, format!("{problem}; run `{}`", run.join("`, then `"))),
                None => environment.health.recover(&part),
            }
            true
        }
        // This version of the API does not tell.
        Err(ApiError::Unsupported { .. }) => true,
        Err(error) => {
            complain(environment, source, 1, &error);
            false
        }
    }
}
