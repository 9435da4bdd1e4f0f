//! The load: events as agents' providers send them, over connections that stay open, each sending as soon as the last was answered.
//!
//! What must hold: an event is the same whenever it is made ([`Maker`]: its id and its body follow from its number), ids are distinct
//! and scattered, as the providers' are, and a request has 12 headers. What cannot be sent or is not answered is counted, and the
//! rest goes on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::{Error, Result};
use super::connection::{Answer, Connection};
use super::latency::Latencies;
use super::progress::Counter;
use crate::clock::Clock;
use crate::event::hex;
use crate::signature::encode_base64;
use crate::signature::rsa::PrivateKey;

/// The URL that is signed begins with it; only the path is sent.
pub(super) const PUBLIC_URL: &str = "https://hooks.example.com";
/// The path of the source that verifies by RSA.
pub(super) const MANUS_PATH: &str = "/webhooks/manus";
/// The path of the source that verifies by HMAC.
pub(super) const HMAC_PATH: &str = "/webhooks/acme";
/// What the HMAC is made with.
pub(super) const HMAC_SECRET: &str = "the secret of the benchmark";
/// How long a signature made now may wait: it is good for five minutes on either side of its time, which is set ahead.
const AHEAD: i64 = 140;
/// After so long, signatures are made anew.
const FRESH: Duration = Duration::from_secs(200);

/// Who sends.
#[derive(Clone)]
pub(super) enum Signer {
    /// Manus, with its RSA key.
    Manus(Arc<PrivateKey>),
    /// A sender whose own secret verifies its events by HMAC.
    Hmac,
}

/// Makes events from their numbers.
#[derive(Clone)]
pub(super) struct Maker {
    pub(super) signer: Signer,
    /// What the events are about.
    pub(super) tasks: Arc<Vec<String>>,
    /// Part of every id, so that two runs share none.
    pub(super) run: i64,
    /// Bytes of one more header.
    pub(super) padding: usize,
}

impl Maker {
    /// The event `number`, signed as of `timestamp`.
    pub(super) fn request(&self, number: usize, timestamp: i64) -> Vec<u8> {
        let body = self.body(number);
        let (path, signature) = match &self.signer {
            Signer::Manus(key) => {
                use aws_lc_rs::digest::{SHA256, digest};
                let digest = hex(digest(&SHA256, body.as_bytes()).as_ref());
                let content = format!("{timestamp}.{PUBLIC_URL}{MANUS_PATH}.{digest}");
                (MANUS_PATH, encode_base64(&key.sign(content.as_bytes())))
            }
            Signer::Hmac => {
                use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
                let tag = sign(&Key::new(HMAC_SHA256, HMAC_SECRET.as_bytes()), format!("{timestamp}.{body}").as_bytes());
                (HMAC_PATH, hex(tag.as_ref()))
            }
        };
        self.written(path, &signature, timestamp, &body)
    }

    /// A step of a task's progress: about 500 bytes, with an id like those of Manus.
    pub(super) fn body(&self, number: usize) -> String {
        // Ids are scattered, as the providers' are: in a store that costs more than ids in order.
        let (run, task) = (self.run, &self.tasks[number % self.tasks.len()]);
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let message = "Reading the sources and comparing what they say of each other, one after the other. ".repeat(4);
        serde_json::json!({
            "event_id": format!("task_progress_{scattered:016x}_{number}_{run}"),
            "event_type": "task_progress",
            "progress_detail": {"task_id": task, "progress_type": "plan_update", "message": format!("{message}{number}")},
        })
        .to_string()
    }

    /// A request with 12 headers, the last of them padded.
    fn written(&self, path: &str, signature: &str, timestamp: i64, body: &str) -> Vec<u8> {
        let (length, padding) = (body.len(), "0".repeat(self.padding));
        format!(
            "POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\nuser-agent: Go-http-client/2.0\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\naccept-encoding: gzip\r\nx-webhook-signature: {signature}\r\nx-webhook-timestamp: {timestamp}\r\n\
             x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: hooks.example.com\r\nvia: 1.1 Caddy\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01{padding}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Events to send.
pub(super) struct Load {
    maker: Maker,
    clock: Clock,
    /// The events' numbers.
    numbers: Range<usize>,
    requests: Requests,
}

/// When they are signed.
enum Requests {
    /// Each when its turn comes.
    AsItGoes,
    /// All of them before.
    Beforehand {
        requests: Vec<Vec<u8>>,
        /// When that was, by the clock's running time.
        at: Duration,
    },
    /// Some ahead of their turn, by threads beside.
    Ahead(Mutex<mpsc::Receiver<Vec<u8>>>),
}

impl Load {
    /// Events that are signed as they are sent: for signatures that cost next to nothing.
    pub(super) fn as_it_goes(maker: Maker, numbers: Range<usize>, clock: Clock) -> Self {
        Self { maker, clock, numbers, requests: Requests::AsItGoes }
    }

    /// Events that are signed now, on all cores.
    pub(super) async fn beforehand(maker: Maker, numbers: Range<usize>, clock: Clock, done: &Counter) -> Result<Self> {
        let mut load = Self::as_it_goes(maker, numbers, clock);
        load.sign(done).await?;
        Ok(load)
    }

    /// Events of which `depth` are signed now and the others while these are sent.
    pub(super) async fn ahead(maker: Maker, numbers: Range<usize>, clock: Clock, depth: usize, done: &Counter) -> Result<Self> {
        let (sender, requests) = mpsc::sync_channel(depth);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for first in 0..cores {
            let (mine, sender) = (numbers.clone().skip(first).step_by(cores), sender.clone());
            let (maker, clock, done) = (maker.clone(), clock.clone(), done.clone());
            let signer = std::thread::Builder::new().name("signer".to_owned()).spawn(move || {
                for number in mine {
                    done.add(1);
                    if sender.send(maker.request(number, clock.now().as_second())).is_err() {
                        return;
                    }
                }
            });
            signer.map_err(|error| Error::failed(format!("cannot start a thread: {error}")))?;
        }
        let enough = depth.min(numbers.len()) as u64;
        while done.count() < enough {
            clock.sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { requests: Requests::Ahead(Mutex::new(requests)), ..Self::as_it_goes(maker, numbers, clock) })
    }

    /// Signs anew what was signed too long ago for another run.
    pub(super) async fn refresh(&mut self, done: &Counter) -> Result {
        match &self.requests {
            Requests::Beforehand { at, .. } if self.clock.elapsed().saturating_sub(*at) > FRESH => self.sign(done).await,
            _ => Ok(()),
        }
    }

    async fn sign(&mut self, done: &Counter) -> Result {
        let at = self.clock.elapsed();
        let timestamp = self.clock.now().as_second() + AHEAD;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let each = self.numbers.len().div_ceil(cores).max(1);
        let parts = self.numbers.clone().step_by(each).map(|first| {
            let (maker, done, last) = (self.maker.clone(), done.clone(), (first + each).min(self.numbers.end));
            tokio::task::spawn_blocking(move || {
                let sign = |number| {
                    done.add(1);
                    maker.request(number, timestamp)
                };
                (first..last).map(sign).collect::<Vec<_>>()
            })
        });
        let parts: Vec<_> = parts.collect();
        let mut requests = Vec::with_capacity(self.numbers.len());
        for part in parts {
            requests.extend(part.await.map_err(|error| Error::failed(format!("cannot sign the events: {error}")))?);
        }
        self.requests = Requests::Beforehand { requests, at };
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// How long the body of its first event is.
    pub(super) fn body_bytes(&self) -> usize {
        self.maker.body(self.numbers.start).len()
    }

    /// The request at `index`, if there is one. Of those that are signed ahead it is the next one, whatever the index.
    pub(super) fn request(&self, index: usize) -> Option<Cow<'_, [u8]>> {
        match &self.requests {
            Requests::Beforehand { requests, .. } => requests.get(index).map(Cow::from),
            _ if index >= self.numbers.len() => None,
            Requests::AsItGoes => Some(self.maker.request(self.numbers.start + index, self.clock.now().as_second()).into()),
            Requests::Ahead(requests) => requests.lock().unwrap_or_else(PoisonError::into_inner).recv().ok().map(Cow::Owned),
        }
    }
}

/// What came of sending.
pub(super) struct Run {
    /// Answers that said `accepted`.
    pub(super) accepted: usize,
    /// Answers that said `duplicate`.
    pub(super) duplicates: usize,
    /// Answers by their status.
    pub(super) statuses: BTreeMap<u16, usize>,
    /// Requests that were not answered.
    pub(super) unanswered: usize,
    /// Why the first of them was not.
    pub(super) why: Option<String>,
    pub(super) took: Duration,
    pub(super) latencies: Latencies,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            accepted: 0,
            duplicates: 0,
            statuses: BTreeMap::new(),
            unanswered: 0,
            why: None,
            took: Duration::ZERO,
            latencies: Latencies::new(),
        }
    }

    /// Answers of any kind.
    pub(super) fn answered(&self) -> usize {
        self.statuses.values().sum()
    }

    pub(super) fn per_second(&self) -> f64 {
        self.answered() as f64 / self.took.as_secs_f64().max(1e-6)
    }

    /// Adds what another sender saw.
    pub(super) fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.unanswered += other.unanswered;
        self.why = self.why.take().or(other.why);
        self.latencies.add(&other.latencies);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    /// Counts an answer, or that there was none.
    pub(super) fn count(&mut self, answer: &std::result::Result<Answer<'_>, io::Error>, latency: Duration) {
        match answer {
            Ok(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                self.accepted += usize::from(answer.says("accepted"));
                self.duplicates += usize::from(answer.says("duplicate"));
                self.latencies.record(latency);
            }
            Err(error) => {
                self.unanswered += 1;
                self.why.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// The answers, for people.
    pub(super) fn told(&self) -> String {
        let mut parts = Vec::new();
        for (count, what) in [(self.accepted, "accepted"), (self.duplicates, "duplicate")] {
            parts.extend((count > 0).then(|| format!("{count} × {what}")));
        }
        parts.extend(
            self.statuses.iter().filter(|(status, _)| **status != 200).map(|(status, count)| format!("{count} × {status}")),
        );
        let why = self.why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        parts.extend((self.unanswered > 0).then(|| format!("{} without an answer{why}", self.unanswered)));
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    }

    /// What else came than `count` events that were accepted; nothing if that is all.
    pub(super) fn complaint(&self, count: usize) -> Option<String> {
        if self.accepted == count && self.unanswered == 0 {
            return None;
        }
        Some(format!("of {count} events not all were accepted: {}", self.told()))
    }
}

/// Sends every request of `load` once, over `connections`, which lead to each of `to` in turn.
pub(super) async fn closed_loop(
    load: &Arc<Load>,
    to: &[SocketAddr],
    connections: usize,
    clock: &Clock,
    done: &Counter,
) -> Result<Run> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = clock.elapsed();
    let mut senders = JoinSet::new();
    for to in to.iter().copied().cycle().take(connections.min(load.len())) {
        let (load, next, clock, done) = (Arc::clone(load), Arc::clone(&next), clock.clone(), done.clone());
        senders.spawn(async move {
            let (mut connection, mut run) = (Connection::new(to), Run::new());
            while let Some(request) = load.request(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = clock.elapsed();
                let answer = connection.exchange(&request).await;
                run.count(&answer, clock.elapsed().saturating_sub(sent));
                done.add(1);
            }
            run
        });
    }
    let mut run = Run::new();
    while let Some(sender) = senders.join_next().await {
        run.add(sender.map_err(|error| Error::failed(format!("a sender ended: {error}")))?);
    }
    run.took = clock.elapsed().saturating_sub(begun);
    Ok(run)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn maker() -> Maker {
        let tasks = Arc::new(vec!["a".to_owned(), "b".to_owned()]);
        Maker { signer: Signer::Hmac, tasks, run: 1_763_507_101, padding: 0 }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn however_they_are_made_the_events_are_the_same_and_distinct() {
        let (clock, done) = (Clock::system(), Counter::default());
        let body = |request: Cow<'_, [u8]>| String::from_utf8_lossy(&request).split_once("\r\n\r\n").unwrap().1.to_owned();
        let bodies = |load: &Load| (0..).map_while(|index| load.request(index).map(body)).collect::<BTreeSet<_>>();
        let expected: BTreeSet<_> = (10..110).map(|number| maker().body(number)).collect();
        assert_eq!(expected.len(), 100);
        assert_eq!(bodies(&Load::as_it_goes(maker(), 10..110, clock.clone())), expected);
        assert_eq!(bodies(&Load::beforehand(maker(), 10..110, clock.clone(), &done).await.unwrap()), expected);
        assert_eq!(done.count(), 100);
        assert_eq!(bodies(&Load::ahead(maker(), 10..110, clock, 16, &Counter::default()).await.unwrap()), expected);
    }

    #[test]
    fn a_request_has_twelve_headers() {
        let request = String::from_utf8(maker().request(0, 1_763_507_101)).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.lines().skip(1).count(), 12, "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    }

    #[test]
    fn what_is_not_accepted_is_a_complaint() {
        let mut run = Run::new();
        let answer = |status, body| Ok(Answer { status, body });
        run.count(&answer(200, br#"{"status":"accepted"}"#), Duration::from_millis(1));
        assert_eq!(run.complaint(1), None);
        run.count(&answer(200, br#"{"status":"duplicate"}"#), Duration::from_millis(1));
        run.count(&answer(503, b"{}"), Duration::from_millis(1));
        run.count(&Err(io::Error::other("cut")), Duration::from_millis(1));
        let complaint = run.complaint(4).unwrap();
        assert_eq!(
            complaint,
            "of 4 events not all were accepted: 1 × accepted, 1 × duplicate, 1 × 503, 1 without an answer (cut)"
        );
    }
}
