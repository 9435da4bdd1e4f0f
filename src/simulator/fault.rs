//! What goes wrong on request, the same for every provider: how often, and what an API answers then.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The most bytes of our own answer that are read back, to spoil it.
const MAX_ANSWER: usize = 64 << 20;
/// The most events that are held back at one time.
const MAX_HELD: usize = 100;

/// How often a fault still strikes. In JSON: a number, or `true` for always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Written", into = "Written")]
pub enum Times {
    /// The next so many times; 0 is never.
    Next(u32),
    /// Until it is taken away.
    Always,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Count(u32),
    Switch(bool),
}

impl Times {
    /// Never.
    pub const NEVER: Self = Self::Next(0);

    /// Whether it strikes now; counts down if so.
    pub(super) fn strikes(&mut self) -> bool {
        match self {
            Self::Always => true,
            Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::NEVER
    }
}

impl From<Written> for Times {
    fn from(written: Written) -> Self {
        match written {
            Written::Count(count) => Self::Next(count),
            Written::Switch(true) => Self::Always,
            Written::Switch(false) => Self::NEVER,
        }
    }
}

impl From<Times> for Written {
    fn from(times: Times) -> Self {
        match times {
            Times::Next(count) => Self::Count(count),
            Times::Always => Self::Switch(true),
        }
    }
}

/// What goes wrong with an API call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiFault {
    /// A part of the path and query; `None`: every call.
    #[serde(default)]
    pub only: Option<String>,
    /// How often.
    #[serde(default = "always")]
    pub times: Times,
    /// The wait before anything is done, in milliseconds on the simulator's clock.
    #[serde(default)]
    pub slow_ms: u64,
    /// What is answered.
    #[serde(default)]
    pub answer: Option<WrongAnswer>,
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongAnswer {
    /// The call is refused, and nothing is done.
    Refuse {
        /// The status, such as 503.
        status: u16,
        /// The `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The call is sent elsewhere, and nothing is done.
    Redirect(String),
    /// A page in HTML, as a proxy in between would answer; the call is done.
    Html,
    /// The first half of the answer, then the connection breaks; the call is done.
    Half,
    /// An answer of more than 10 MiB; the call is done.
    Huge,
    /// A body of no bytes; the call is done.
    Empty,
    /// The connection closes without an answer; the call is done.
    Lost,
}

fn always() -> Times {
    Times::Always
}

impl ApiFault {
    /// A fault that strikes every call whose path and query contain `only`.
    #[must_use]
    pub fn on(only: impl Into<String>, times: Times, answer: WrongAnswer) -> Self {
        Self { only: Some(only.into()), times, slow_ms: 0, answer: Some(answer) }
    }

    /// The first of `faults` that strikes a call of `target` (path and query); counts it down.
    pub(super) fn strike(faults: &mut [Self], target: &str) -> Option<Self> {
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times != Times::NEVER && fault.only.as_deref().is_none_or(|part| target.contains(part)))?;
        fault.times.strikes().then(|| fault.clone())
    }
}

/// What became of an event on its way out.
pub(super) enum Passed<E> {
    /// It is never sent.
    Dropped(E),
    /// It waits for the next one.
    Held,
    /// These are sent, in this order.
    Sent(Vec<E>),
}

/// Lets `event` pass the faults that every provider has: it is dropped, or held back in `held` until the next one, or sent twice.
pub(super) fn pass<E: Clone>([drop, reorder, duplicate]: [&mut Times; 3], held: &mut VecDeque<E>, event: E) -> Passed<E> {
    if drop.strikes() {
        return Passed::Dropped(event);
    }
    if held.len() < MAX_HELD && reorder.strikes() {
        held.push_back(event);
        return Passed::Held;
    }
    let mut events = Vec::new();
    if duplicate.strikes() {
        events.push(event.clone());
    }
    events.push(event);
    events.extend(held.drain(..));
    Passed::Sent(events)
}

/// `at`, so many seconds later, as a clock that is off tells it.
pub(super) fn offset(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Makes of a good answer a wrong one.
pub(super) async fn spoil(response: Response, wrong: &WrongAnswer) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, MAX_ANSWER).await.unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = match wrong {
        WrongAnswer::Refuse { .. } | WrongAnswer::Redirect(_) => Body::from(whole),
        WrongAnswer::Html => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            Body::from("<!doctype html>\n<title>Just a moment…</title>\n<p>Checking your browser.</p>\n")
        }
        WrongAnswer::Empty => Body::empty(),
        WrongAnswer::Huge => Body::from(format!("{{\"ok\":true,\"padding\":\"{}\"}}", "x".repeat(10 << 20))),
        WrongAnswer::Half | WrongAnswer::Lost => {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len().max(2)));
            let part = matches!(wrong, WrongAnswer::Half).then(|| whole.slice(..whole.len() / 2));
            Body::new(Broken { part, flushed: false })
        }
    };
    Response::from_parts(parts, body)
}

/// A body that breaks: after its part was sent, or before anything was.
struct Broken {
    part: Option<Bytes>,
    flushed: bool,
}

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(part) = self.part.take() {
            self.flushed = true;
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        if std::mem::take(&mut self.flushed) {
            // The connection writes out what it has while we are not ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionAborted.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let mut twice: Times = serde_json::from_str("2").unwrap();
        assert_eq!([twice.strikes(), twice.strikes(), twice.strikes()], [true, true, false]);
        let mut always: Times = serde_json::from_str("true").unwrap();
        assert!((0..10).all(|_| always.strikes()));
        assert_eq!(serde_json::to_string(&[Times::Always, Times::NEVER]).unwrap(), "[true,0]");
    }

    #[test]
    fn the_first_fault_that_matches_and_is_left_strikes() {
        let mut faults: Vec<ApiFault> = serde_json::from_str(
            r#"[{"only": "task.detail", "times": 1, "answer": {"refuse": {"status": 503}}}, {"answer": "html"}]"#,
        )
        .unwrap();
        let mut answer = |target| ApiFault::strike(&mut faults, target).and_then(|fault| fault.answer);
        assert_eq!(answer("/v2/task.list"), Some(WrongAnswer::Html));
        assert!(matches!(answer("/v2/task.detail?task_id=x"), Some(WrongAnswer::Refuse { status: 503, .. })));
        assert_eq!(answer("/v2/task.detail?task_id=x"), Some(WrongAnswer::Html));
    }

    #[test]
    fn an_event_passes_the_faults_in_order() {
        let mut held = VecDeque::new();
        let mut pass_with = |faults: [u32; 3], event: u32| {
            let mut times = faults.map(Times::Next);
            let [drop, reorder, duplicate] = &mut times;
            match pass([drop, reorder, duplicate], &mut held, event) {
                Passed::Dropped(event) => vec![event, 0],
                Passed::Held => Vec::new(),
                Passed::Sent(events) => events,
            }
        };
        assert_eq!(pass_with([1, 1, 1], 1), [1, 0]);
        assert!(pass_with([0, 1, 1], 2).is_empty());
        assert_eq!(pass_with([0, 0, 1], 3), [3, 3, 2]);
        assert_eq!(pass_with([0, 0, 0], 4), [4]);
    }
}
