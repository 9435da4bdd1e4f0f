//! The simulator through its own HTTP. A receiver with a record stands where webhooks go.

mod api;
mod faults;
mod life;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::http::{self, Answer};
use crate::simulator::tests::{Receiver, Seen};

const KEY: &str = "sk-test";

struct World {
    manus: Manus,
    clock: Clock,
    receiver: Receiver,
    client: reqwest::Client,
    stop: CancellationToken,
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
        let receiver = Receiver::start("/webhooks/manus?x=1").await;
        let client = http::client(Duration::from_secs(10));
        Self { manus, clock, receiver, client, stop }
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
