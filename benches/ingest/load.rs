//! The load: requests made beforehand, sent over a fixed number of connections, each as soon as the last was answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use taskhook::event::hex;
use taskhook::signature::rsa::PrivateKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The URL that is signed; only its path is sent.
pub(crate) const PUBLIC_URL: &str = "https://hooks.example.com";
/// The path of the source that verifies by RSA.
pub(crate) const PATH: &str = "/webhooks/manus";
/// The path of the source that verifies by HMAC.
const HMAC_PATH: &str = "/webhooks/acme";
/// What the HMAC is made with.
pub(crate) const HMAC_SECRET: &str = "the secret of the benchmark";

/// Signed requests.
pub(crate) struct Load {
    requests: Vec<Vec<u8>>,
    body_bytes: usize,
}

/// What came of a run.
pub(crate) struct Run {
    pub(crate) accepted: usize,
    pub(crate) took: Duration,
    pub(crate) latencies: Vec<Duration>,
    /// Events whose deliveries were not all made when the last was answered.
    pub(crate) waiting: Option<i64>,
}

impl Load {
    /// Makes and signs `count` events, as Manus does.
    pub(crate) fn signed(key: &PrivateKey, tasks: &[String], count: usize) -> Self {
        Self::made(tasks, count, |timestamp, body| request(key, timestamp, body))
    }

    /// The same events, signed by HMAC-SHA256.
    pub(crate) fn signed_by_hmac(tasks: &[String], count: usize) -> Self {
        Self::made(tasks, count, hmac_request)
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the machine's clock")]
    fn made(tasks: &[String], count: usize, request: impl Fn(i64, &str) -> Vec<u8> + Sync) -> Self {
        // In the middle of the window on either side: the whole run has about seven minutes.
        let timestamp = jiff::Timestamp::now().as_second() + 140;
        let bodies: Vec<String> = (0..count).map(|number| body(number, &tasks[number % tasks.len()], timestamp)).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let request = &request;
        let requests = std::thread::scope(|scope| {
            let parts: Vec<_> = bodies
                .chunks(count.div_ceil(threads).max(1))
                .map(|part| scope.spawn(|| part.iter().map(|body| request(timestamp, body)).collect::<Vec<_>>()))
                .collect();
            parts.into_iter().flat_map(|part| part.join().expect("signing does not fail")).collect()
        });
        Self { requests, body_bytes: bodies.first().map_or(0, String::len) }
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Sends every request once.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the machine's clock")]
    pub(crate) async fn send(&'static self, to: SocketAddr, connections: usize) -> Run {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.store(0, Ordering::SeqCst);
        let begun = Instant::now();
        let mut senders = JoinSet::new();
        for _ in 0..connections {
            senders.spawn(async move {
                let mut stream = TcpStream::connect(to).await.expect("the server listens");
                stream.set_nodelay(true).expect("a socket option");
                let (mut accepted, mut latencies, mut answer) = (0, Vec::new(), Vec::with_capacity(4096));
                while let Some(request) = self.requests.get(NEXT.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    stream.write_all(request).await.expect("the server reads");
                    if read_answer(&mut stream, &mut answer).await {
                        accepted += 1;
                    }
                    latencies.push(sent.elapsed());
                }
                (accepted, latencies)
            });
        }
        let (mut accepted, mut latencies) = (0, Vec::with_capacity(self.requests.len()));
        while let Some(sender) = senders.join_next().await {
            let (some, times) = sender.expect("a sender does not panic");
            accepted += some;
            latencies.extend(times);
        }
        let took = begun.elapsed();
        latencies.sort();
        Run { accepted, took, latencies, waiting: None }
    }
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    pub(crate) fn percentile(&self, part: f64) -> Duration {
        self.latencies[((self.latencies.len() - 1) as f64 * part) as usize]
    }
}

/// Reads one answer; true if it is a 200 that accepts.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> bool {
    answer.clear();
    loop {
        assert!(stream.read_buf(answer).await.expect("the server answers") > 0, "the server closed the connection");
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse().ok())
            .expect("answers have a length");
        if answer.len() >= head + 4 + length {
            return text.starts_with("http/1.1 200") && answer[head..].windows(10).any(|part| part == b"\"accepted\"");
        }
    }
}

/// A step of a task's progress: about 600 bytes, with an id as Manus makes them.
fn body(number: usize, task: &str, timestamp: i64) -> String {
    // Ids are scattered, as the provider's are: in a store that costs more than ids in order.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let message = "Reading the sources and comparing what they say of each other, one after the other. ".repeat(4);
    serde_json::json!({
        "event_id": format!("task_progress_{scattered:016x}_{number}_{timestamp}"),
        "event_type": "task_progress",
        "progress_detail": {"task_id": task, "progress_type": "plan_update", "message": format!("{message}{number}")},
    })
    .to_string()
}

fn request(key: &PrivateKey, timestamp: i64, body: &str) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    let content = format!("{timestamp}.{PUBLIC_URL}{PATH}.{}", hex(digest(&SHA256, body.as_bytes()).as_ref()));
    let signature = base64::prelude::BASE64_STANDARD.encode(key.sign(content.as_bytes()));
    written(PATH, &signature, timestamp, body)
}

fn hmac_request(timestamp: i64, body: &str) -> Vec<u8> {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    let tag = sign(&Key::new(HMAC_SHA256, HMAC_SECRET.as_bytes()), format!("{timestamp}.{body}").as_bytes());
    written(HMAC_PATH, &hex(tag.as_ref()), timestamp, body)
}

/// A request with 12 headers.
fn written(path: &str, signature: &str, timestamp: i64, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\nuser-agent: Go-http-client/2.0\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\naccept-encoding: gzip\r\nx-webhook-signature: {signature}\r\nx-webhook-timestamp: {timestamp}\r\n\
         x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: hooks.example.com\r\nvia: 1.1 Caddy\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n{body}"
    )
    .into_bytes()
}
