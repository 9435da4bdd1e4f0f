//! The one place that builds an outbound HTTP client, and reads an answer.
//!
//! What must hold: no client without a time limit, no body without a size limit, no redirect followed (a redirect would carry a
//! key to an address that nobody configured), and one User-Agent. Links from payloads go through the [`guard`].

pub mod guard;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::Resolve;
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};

/// How we name ourselves to others.
pub const USER_AGENT: &str = concat!("taskhook/", env!("CARGO_PKG_VERSION"));

/// How long connecting may take where the whole has no limit.
const CONNECT: Duration = Duration::from_secs(10);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was sent: the name did not resolve, nobody listened, TLS was refused.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Nothing came back in time; the other side may have acted all the same.
    #[error("no answer within {}", seconds(*.0))]
    Timeout(Duration),
    /// The connection broke after the request was sent; the other side may have acted all the same.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer is larger than we read.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl Error {
    /// Whether the other side may have received the request.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        !matches!(self, Self::Connect(_))
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, within the limit that was set.
    pub body: Bytes,
}

impl Answer {
    /// A header as text, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client whose every request ends within `timeout`, connecting included.
///
/// # Panics
/// If the TLS library cannot start, which no input can cause.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that builds a client")]
pub fn client(timeout: Duration) -> Client {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        // Less than the whole: a host that never takes the connection is then known to have got nothing, which a request that
        // ran out of time is not.
        .connect_timeout(timeout.mul_f64(0.75))
        .timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .no_proxy()
        .build()
        .expect("a client without custom certificates can be built")
}

/// A client for bodies of any size: no limit on the whole, but connecting ends within [`CONNECT`], and a transfer is broken once
/// nothing came for `stall`. Names are looked up by `resolver` where there is one.
///
/// # Panics
/// If the TLS library cannot start, which no input can cause.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that builds a client")]
pub fn transfer_client(stall: Duration, resolver: Option<Arc<dyn Resolve>>) -> Client {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(stall)
        .pool_idle_timeout(Duration::from_secs(30))
        .no_proxy();
    let builder = match resolver {
        Some(resolver) => builder.dns_resolver(resolver),
        None => builder,
    };
    builder.build().expect("a client without custom certificates can be built")
}

/// Sends `request` and reads the answer, at most `max_bytes` of it.
///
/// # Errors
/// [`Error`] when there is no whole answer. A status of 4xx or 5xx is an answer.
pub async fn send(request: RequestBuilder, timeout: Duration, max_bytes: usize) -> Result<Answer, Error> {
    let response = request.send().await.map_err(|error| classify(&error, timeout))?;
    read(response, timeout, max_bytes).await
}

/// Reads the rest of an answer, at most `max_bytes` of it.
///
/// # Errors
/// [`Error`] when there is no whole answer.
pub async fn read(mut response: Response, timeout: Duration, max_bytes: usize) -> Result<Answer, Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error, timeout))? {
        if body.len() + chunk.len() > max_bytes {
            return Err(Error::TooLarge(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body: body.freeze() })
}

/// Sends `request` for the sake of the status: it is an answer as soon as the headers are there, whatever becomes of the body,
/// of which at most `max_bytes` are read. A destination that said 200 has taken the event, however large its page is.
///
/// # Errors
/// [`Error`] when there is no status.
pub async fn send_for_status(request: RequestBuilder, timeout: Duration, max_bytes: usize) -> Result<Answer, Error> {
    let mut response: Response = request.send().await.map_err(|error| classify(&error, timeout))?;
    let mut body = BytesMut::new();
    while body.len() < max_bytes
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(max_bytes - body.len())]);
    }
    Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body: body.freeze() })
}

/// What became of a request, or of reading its answer, that failed.
pub(crate) fn classify(error: &reqwest::Error, timeout: Duration) -> Error {
    if error.is_connect() {
        Error::Connect(root_cause(error))
    } else if error.is_timeout() {
        Error::Timeout(timeout)
    } else {
        Error::Broken(root_cause(error))
    }
}

/// The innermost cause, which says most; reqwest's own text would repeat the URL, which may hold a token.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
