//! Every stored signature, through the front door, at the time that it was made for.

use jiff::Timestamp;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    public_key: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    accept: bool,
    now: i64,
    timestamp: String,
    url: String,
    body: String,
    signature: String,
    #[serde(default)]
    why: Option<String>,
}

impl Vector {
    fn request(&self, harness: &Harness) -> reqwest::RequestBuilder {
        harness
            .post(self.url.strip_prefix("https://hooks.example.com").expect("all are for one host"))
            .header("x-webhook-signature", &self.signature)
            .header("x-webhook-timestamp", &self.timestamp)
            .body(self.body.clone())
    }
}

/// A program that has the vectors' key in a file, and asks nobody for it.
async fn pinned(vectors: &Vectors) -> Harness {
    let toml = "[server]\npublic_url = \"https://hooks.example.com\"\n[sources.manus]\npublic_key_file = \"{folder}/key.pem\"\n";
    let begin = Timestamp::from_second(vectors.vectors.iter().map(|vector| vector.now).min().unwrap()).unwrap();
    let mut harness = Setup::new().config(toml).at(begin).without_keys().prepare().await;
    std::fs::write(harness.folder().join("key.pem"), &vectors.public_key).unwrap();
    harness.start().await;
    harness
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../data/manus/signature_vectors.json")).unwrap()
}

fn set_clock(harness: &Harness, seconds: i64) {
    harness.clock.advance(Timestamp::from_second(seconds).unwrap().duration_since(harness.clock.now()));
}

#[tokio::test]
async fn every_vector_is_answered_as_marked() {
    let mut vectors = vectors();
    // Time goes forward.
    vectors.vectors.sort_by_key(|vector| vector.now);
    let mut harness = pinned(&vectors).await;
    for vector in &vectors.vectors {
        set_clock(&harness, vector.now);
        let answer = send(vector.request(&harness)).await;
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(status(&answer), if vector.accept { 200 } else { 401 }, "{}: {body}", vector.name);
    }
    let events = harness.list("events").await;
    // One body comes to two URLs, and several times; the other is empty.
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0]["type"], &events[0]["state"]), (&json!("unknown"), &json!("kept")));
    let calls = harness.calls();
    assert!(calls.is_empty(), "the key is in a file: {calls:?}");
    harness.expect_leftover();
}

#[tokio::test]
async fn a_rejection_says_what_would_have_matched() {
    let vectors = vectors();
    let mut harness = pinned(&vectors).await;
    let (mut told, mut explained) = (0, 0);
    for vector in vectors.vectors.iter().filter(|vector| !vector.accept) {
        // A second for each, since only a few of one second are kept.
        set_clock(&harness, vector.now + told);
        send(vector.request(&harness)).await;
        harness.drain().await;
        let newest = harness.list("rejections").await.remove(0);
        let explanation = newest["explanation"].as_str().unwrap_or_default().to_owned();
        told += 1;
        let words = match vector.why.as_deref() {
            Some("stale") => "s behind ours, and at most 300 s are accepted",
            Some("scheme") => "with another scheme",
            Some("slash") => "with a slash at its end",
            Some("double hash") => "the hash taken twice",
            Some("url") if vector.url.contains('?') => "in another order",
            _ => continue,
        };
        assert!(explanation.contains(words), "{}: {explanation}", vector.name);
        explained += 1;
    }
    assert_eq!(explained, 5);
}

#[tokio::test]
async fn a_pinned_key_is_trusted_from_the_first_moment_and_alone() {
    let vectors = vectors();
    // The provider's own key was loaded before, and is kept.
    let mut harness = Harness::new().await;
    assert_eq!(status(&harness.deliver(&stopped("e1", "t1")).await), 200);
    harness.leave_keys();
    harness.stop().await;
    std::fs::write(harness.folder().join("key.pem"), &vectors.public_key).unwrap();
    harness.reconfigure("[sources.manus]\npublic_key_file = \"{folder}/key.pem\"\n");
    harness.start().await;
    let ready = send(harness.request(reqwest::Method::GET, "/readyz")).await;
    assert_eq!(status(&ready), 200);
    let answer = harness.deliver(&stopped("e2", "t1")).await;
    assert_eq!((status(&answer), code(&answer)), (401, "signature_invalid".to_owned()));
    harness.expect_leftover();
}
