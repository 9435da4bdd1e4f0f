//! Registering a source's webhook with its provider, and trying out where an event would go.

use std::fmt;

use futures_util::future::BoxFuture;

use super::{Actions, Error, lost};
use crate::provider::ApiError;
use crate::store;

/// What came of registering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is registered now.
    New,
    /// It was.
    Already,
}

/// Where an event would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goes {
    /// The destination.
    pub destination: String,
    /// The route that chooses it.
    pub route: String,
}

/// Where an event would go, or why it would become a dead letter.
pub type Tried = Result<Vec<Goes>, String>;

/// What knows the routes of now: the worker, which stands above.
pub trait TryOut: fmt::Debug + Send + Sync {
    /// Where the event with this id would go, or why it would become a dead letter; `None` if there is no such event.
    fn try_out<'a>(&'a self, event: &'a str) -> BoxFuture<'a, Result<Option<Tried>, store::Error>>;
}

impl Actions {
    /// Where an event would go if it were handed on now; or why it would become a dead letter.
    ///
    /// # Errors
    /// [`Error::NoEvent`].
    pub async fn preview(&self, event: &str) -> Result<Tried, Error> {
        let none = || Error::NoEvent(event.to_owned());
        let routes = self.routes.as_ref().ok_or_else(none)?;
        routes.try_out(event).await?.ok_or_else(none)
    }

    /// Registers the webhook of a source under the first of `public_urls`, unless one is registered that leads here.
    ///
    /// # Errors
    /// [`Error::NoSource`]; [`Error::Provider`]; [`Error::Unknown`] where the answer was lost.
    pub async fn register(&self, source: &str, public_urls: &[String]) -> Result<Registered, Error> {
        let source = self.source(Some(source))?;
        let Some(first) = public_urls.first() else { return Ok(Registered::Already) };
        let ours = |url: Option<&str>| url.is_some_and(|url| source.is_reached_by(public_urls, url));
        match source.webhooks_list().await {
            Ok(webhooks) if webhooks.iter().any(|webhook| ours(webhook.url.as_deref())) => return Ok(Registered::Already),
            // This version of the API does not tell.
            Ok(_) | Err(ApiError::Unsupported { .. }) => {}
            Err(error) => return Err(Error::Provider(error)),
        }
        match source.webhooks_register(&source.webhook_url(first)).await {
            Ok(_) => Ok(Registered::New),
            Err(ApiError::Rejected { status: 409, .. }) => Ok(Registered::Already),
            Err(error) => Err(lost(error)),
        }
    }
}
