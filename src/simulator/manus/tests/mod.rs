//! The simulator through its own HTTP. A receiver with a record stands where webhooks go.

mod api;
mod faults;
mod life;

use std::sync::atomic::{AtomicU16, Ordering};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::http::Answer;

const KEY: &str = "sk-test";

/// A request as a receiver saw it.
#[derive(Clone, Debug)]
struct Seen {
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// Where webhooks go: answers with one status, and keeps what came.
#[derive(Clone)]
struct Receiver {
    seen: Arc<Mutex<Vec<Seen>>>,
    status: Arc<AtomicU16>,
    url: String,
}

impl Receiver {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.json()["event_id"].as_str().unwrap().to_owned()).collect()
    }

    fn types(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.json()["event_type"].as_str().unwrap().to_owned()).collect()
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

struct World {
    manus: Manus,
    clock: Clock,
    receiver: Receiver,
    client: reqwest::Client,
    stop: CancellationToken,
    _parts: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let clock = Clock::manual("2025-11-18T23:05:00Z".parse().unwrap());
        let stop = CancellationToken::new();
        let mut options = Options { seed: Some(1), ..Options::new(clock.clone()) };
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let manus = Manus::start(listener, options, stop.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks/manus?x=1", listener.local_addr().unwrap());
        let receiver = Receiver { seen: Arc::default(), status: Arc::new(AtomicU16::new(200)), url };
        let mut parts = JoinSet::new();
        let (record, ended) = (receiver.clone(), stop.clone());
        let take = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            assert_eq!(uri.path_and_query().unwrap(), "/webhooks/manus?x=1");
            record.seen.lock().unwrap().push(Seen { headers, body });
            StatusCode::from_u16(record.status.load(Ordering::SeqCst)).unwrap()
        };
        parts.spawn(async move {
            axum::serve(listener, Router::new().fallback(take)).with_graceful_shutdown(ended.cancelled_owned()).await.unwrap();
        });
        let client = http::client(Duration::from_secs(10));
        Self { manus, clock, receiver, client, stop, _parts: parts }
    }

    /// A world whose account has the receiver as its webhook.
    async fn registered() -> Self {
        let world = Self::new().await;
        world.manus.register(KEY, &world.receiver.url);
        world
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        http::send(request, Duration::from_secs(10), 1 << 20).await.unwrap()
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        let url = format!("{}{target}", self.manus.base_url());
        let answer = self.send(self.client.get(url).header("x-manus-api-key", KEY).header("API_KEY", KEY)).await;
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    async fn post(&self, target: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{target}", self.manus.base_url());
        let request = self.client.post(url).header("x-manus-api-key", KEY).header("API_KEY", KEY).json(&body);
        let answer = self.send(request).await;
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    fn genuine(&self, seen: &Seen, url: &str) -> bool {
        genuine(&self.manus.public_key_pem(), seen, url)
    }
}

/// Whether a request verifies as the documentation says, written here from the documentation alone.
fn genuine(pem: &str, seen: &Seen, url: &str) -> bool {
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, BASE64_STANDARD.decode(der).unwrap());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &seen.body);
    let text = format!("{}.{url}.{}", seen.header("x-webhook-timestamp"), crate::event::hex(hash.as_ref()));
    let signature = BASE64_STANDARD.decode(seen.header("x-webhook-signature")).unwrap();
    key.verify(text.as_bytes(), &signature).is_ok()
}
