//! Sending spans to the collector, in batches, behind everything else.
//!
//! What must hold:
//! - A batch is sent again for a while if the collector cannot take it now, and given up if it will not. What comes meanwhile waits in the
//!   queue, as long as that has room.
//! - It is told once when the collector begins to refuse, and once when it is well again.
//! - At the end what is left is sent, within a time; what does not go then is dropped. Every span is counted once.
//! - No answer of the collector is repeated: only its status is.
//!
//! The messages are those of OpenTelemetry's own crate. Its exporter is not used: it adds what it finds in the variables `OTEL_…`, and what
//! feeds it neither tells what it drops nor bounds the bytes that wait.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message as _;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use super::config::{Config, Target};
use super::queue::{Waiting, count};
use super::span::attribute;
use crate::clock::Clock;
use crate::http::{self, Answer};
use crate::retry;
use crate::telemetry::Health;

/// The most spans that are sent at once.
const BATCH: usize = 512;
/// How long the first of a batch waits for others. A kill costs what waits.
const EVERY: Duration = Duration::from_secs(1);
/// How long a collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes that are read of its answer.
const MAX_ANSWER: usize = 64 << 10;
/// The waits before a batch is sent again; then it is given up.
const WAITS: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(30), Duration::from_secs(30)];
/// The longest that a collector may ask us to wait.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long sending what is left may take at the end.
const FLUSH: Duration = Duration::from_secs(3);
/// This part in `/readyz`.
const PART: &str = "traces";

/// The part that sends what the tracer of the same making takes.
#[derive(Debug)]
pub struct Exporter {
    collector: Collector,
    resource: Resource,
    from: Receiver<Waiting>,
    /// What is to be sent together.
    batch: Vec<Waiting>,
    /// The batch that is on its way.
    sending: Option<Batch>,
    clock: Clock,
    health: Health,
    refuses: bool,
}

/// A batch, as it is sent.
#[derive(Debug)]
struct Batch {
    body: Bytes,
    spans: usize,
    attempts: u32,
    _places: Vec<OwnedSemaphorePermit>,
}

/// Why a batch was not taken.
struct Refusal {
    reason: String,
    /// Whether it may be another time; and how long to wait at least.
    again: Option<Duration>,
}

#[derive(Debug)]
struct Collector {
    target: Target,
    client: Client,
}

impl Exporter {
    pub(super) fn new(
        target: Target,
        service_name: &str,
        instance: &str,
        from: Receiver<Waiting>,
        clock: &Clock,
        health: &Health,
    ) -> Self {
        let attributes = vec![
            attribute("service.name", service_name),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", instance),
        ];
        Self {
            collector: Collector::new(target),
            resource: Resource { attributes, ..Resource::default() },
            from,
            batch: Vec::new(),
            sending: None,
            clock: clock.clone(),
            health: health.clone(),
            refuses: false,
        }
    }

    /// Sends until `stop`, then what is left, for at most `drain`.
    pub async fn run(mut self, stop: CancellationToken, drain: Duration) {
        let sending = async {
            while self.collect().await {
                self.send().await;
            }
        };
        stop.run_until_cancelled(sending).await;
        let last = async {
            // Once refused, the rest would be, too.
            while self.sending.is_some() || self.take_what_waits() {
                if self.attempt().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(drain.min(FLUSH), last).await;
        self.from.close();
        let waiting = std::iter::from_fn(|| self.from.try_recv().ok()).count();
        count("stopped", self.sending.map_or(0, |batch| batch.spans) + self.batch.len() + waiting);
    }

    /// Waits for the next batch; false if there is none any more.
    async fn collect(&mut self) -> bool {
        if self.batch.is_empty() && self.sending.is_none() {
            let Some(first) = self.from.recv().await else { return false };
            let waited = self.clock.elapsed().saturating_sub(first.since);
            self.batch.push(first);
            let mut late = pin!(self.clock.sleep(EVERY.saturating_sub(waited)));
            while self.batch.len() < BATCH {
                tokio::select! {
                    next = self.from.recv() => match next {
                        Some(next) => self.batch.push(next),
                        None => break,
                    },
                    () = &mut late => break,
                }
            }
        }
        self.pack();
        true
    }

    /// Takes what is there, up to a batch; false if that is nothing.
    fn take_what_waits(&mut self) -> bool {
        while self.batch.len() < BATCH
            && let Ok(next) = self.from.try_recv()
        {
            self.batch.push(next);
        }
        self.pack()
    }

    /// Makes what was collected ready to be sent; false if that is nothing.
    fn pack(&mut self) -> bool {
        if self.batch.is_empty() {
            return self.sending.is_some();
        }
        let (spans, places): (Vec<_>, Vec<_>) = self.batch.drain(..).map(|waiting| (waiting.span, waiting.place)).unzip();
        let (count, scope) =
            (spans.len(), InstrumentationScope { name: "taskhook".to_owned(), ..InstrumentationScope::default() });
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
        };
        self.sending = Some(Batch { body: request.encode_to_vec().into(), spans: count, attempts: 0, _places: places });
        true
    }

    /// Sends the batch, as often as it takes or its waits allow.
    async fn send(&mut self) {
        while let Err(Some(after)) = self.attempt().await {
            let attempts = self.sending.as_ref().map_or(0, |batch| batch.attempts);
            let Some(wait) = retry::wait(&WAITS, attempts, Some(after)) else { return self.give_up() };
            self.clock.sleep(wait).await;
        }
    }

    /// Sends the batch once. It is gone after that, unless it may be sent again: not before so much time has passed.
    async fn attempt(&mut self) -> Result<(), Option<Duration>> {
        let Some(batch) = &mut self.sending else { return Ok(()) };
        batch.attempts += 1;
        let answer = self.collector.post(batch.body.clone()).await;
        let spans = batch.spans;
        match answer.and_then(|answer| judge(&answer, &self.clock)) {
            Ok(refused) => {
                let refused = refused.min(spans);
                count("sent", spans - refused);
                count("refused", refused);
                self.sending = None;
                if refused == 0 {
                    self.is_well();
                } else {
                    self.is_ill(format!(
                        "the collector takes only a part of what is sent: {refused} of {spans} spans were refused"
                    ));
                }
                Ok(())
            }
            Err(refusal) => {
                self.is_ill(format!("the collector at `trace.endpoint` takes no spans: {}", refusal.reason));
                if refusal.again.is_none() {
                    self.give_up();
                }
                Err(refusal.again)
            }
        }
    }

    fn give_up(&mut self) {
        count("refused", self.sending.take().map_or(0, |batch| batch.spans));
    }

    /// Whatever else is wrong later is no news until it is well again.
    fn is_ill(&mut self, reason: String) {
        if !std::mem::replace(&mut self.refuses, true) {
            self.health.degrade(PART, reason);
        }
    }

    fn is_well(&mut self) {
        if std::mem::take(&mut self.refuses) {
            self.health.recover(PART);
        }
    }
}

impl Collector {
    fn new(target: Target) -> Self {
        Self { target, client: http::client(TIMEOUT) }
    }

    async fn post(&self, body: Bytes) -> Result<Answer, Refusal> {
        let request = self.client.post(self.target.url.clone()).headers(self.target.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let sent = http::send_for_status(request, TIMEOUT, MAX_ANSWER).await;
        sent.map_err(|error| Refusal { reason: error.to_string(), again: Some(Duration::ZERO) })
    }
}

/// How many spans of a batch were refused.
fn judge(answer: &Answer, clock: &Clock) -> Result<usize, Refusal> {
    let status = answer.status;
    if status.is_success() {
        // What is no answer of OTLP says nothing of refusals.
        let partial = ExportTraceServiceResponse::decode(answer.body.clone()).ok().and_then(|response| response.partial_success);
        return Ok(partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0)));
    }
    let later = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error();
    let after = answer.header("retry-after").and_then(|header| retry::retry_after(header, clock.now()));
    Err(Refusal { reason: status.to_string(), again: later.then(|| after.unwrap_or_default().min(WAIT_MAX)) })
}

/// Whether the collector of `config` takes spans; sends none. Says what was found, for people.
///
/// # Errors
/// Why it does not, and what to do.
pub async fn check(config: &Config, clock: &Clock) -> Result<String, (String, Vec<String>)> {
    let target = config.target().map_err(|problem| (problem, Vec::new()))?;
    let Some(target) = target else { return Ok("nothing is traced: `trace.endpoint` is not set".to_owned()) };
    let url = target.url.clone();
    let empty = ExportTraceServiceRequest::default().encode_to_vec();
    let answer = Collector::new(target).post(empty.into()).await;
    let told = |refusal: Refusal| format!("{url} takes no spans: {}", refusal.reason);
    match answer {
        Ok(answer) => match judge(&answer, clock) {
            Ok(_) => Ok(format!("{url} takes spans")),
            Err(refusal) => {
                let hint = match answer.status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "set what the collector asks for in `trace.headers`",
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                        "`trace.endpoint` must be a collector's address for OTLP over HTTP, by custom port 4318"
                    }
                    _ => "look at the collector's own log",
                };
                Err((told(refusal), vec![hint.to_owned()]))
            }
        },
        Err(refusal) => {
            Err((told(refusal), vec!["does a collector listen there? OTLP over HTTP has port 4318 by custom, gRPC 4317".into()]))
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: Vec<u8>) -> Answer {
        let headers: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }

    #[test]
    fn what_an_answer_means() {
        let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
        let again = |status, headers: &[(&'static str, &'static str)]| {
            judge(&answer(status, headers, b"no spans".to_vec()), &clock).err().map(|refusal| refusal.again)
        };
        for status in [400, 401, 403, 404, 413, 302] {
            assert_eq!(again(status, &[]), Some(None), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(again(status, &[]), Some(Some(Duration::ZERO)), "{status}");
        }
        assert_eq!(again(429, &[("retry-after", "7")]), Some(Some(Duration::from_secs(7))));
        assert_eq!(again(503, &[("retry-after", "86400")]), Some(Some(WAIT_MAX)));
    }

    #[test]
    fn what_was_refused_of_a_batch_is_known() {
        let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
        let refused = |body: Vec<u8>| judge(&answer(200, &[], body), &clock).ok();
        let partial = |rejected_spans| {
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message: "why".to_owned() });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!([partial(3), partial(0), Vec::new(), b"OK".to_vec(), partial(-1)].map(refused), [3, 0, 0, 0, 0].map(Some));
    }
}
