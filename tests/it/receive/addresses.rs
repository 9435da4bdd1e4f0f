//! Which addresses reach a source, and which URL a signature must cover.

use super::*;

/// What a signed event at `path` is answered, signed for `url`.
async fn answered(harness: &Harness, url: &str, path: &str, event_id: &str) -> (u16, Option<String>) {
    let answer = send(harness.signed_for(url, path, stopped(event_id, "t1").to_string())).await;
    (status(&answer), (status(&answer) != 200).then(|| code(&answer)))
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[tokio::test]
async fn a_path_token_opens_its_source_and_is_never_kept() {
    let mut harness = Harness::with("[sources.manus]\npath_token = [\"token-one\", \"token-two\"]\n").await;
    let at = |path: &str| harness.url(path);
    let unknown = || refused(404, "source_unknown");
    for path in [
        "/webhooks/manus",
        "/webhooks/manus/",
        "/webhooks/manus/token-three",
        "/webhooks/manus/token-on",
        "/webhooks/manus/token-one/",
    ] {
        assert_eq!(answered(&harness, &at(path), path, "e0").await, unknown(), "{path}");
    }
    for (path, event_id) in [("/webhooks/manus/token-one", "e1"), ("/webhooks/manus/token-two?k=v%2F", "e2")] {
        assert_eq!(answered(&harness, &at(path), path, event_id).await, (200, None), "{path}");
    }
    // Right token, wrong signature: a rejection.
    assert_eq!(
        answered(&harness, &at("/webhooks/manus"), "/webhooks/manus/token-one?k=token", "e3").await,
        refused(401, "signature_invalid")
    );
    harness.drain().await;
    let events = harness.list("events").await;
    let mut targets = Vec::new();
    for event in events.iter().rev() {
        targets.push(harness.event(event["id"].as_str().unwrap()).await["target"].clone());
    }
    assert_eq!(targets, ["/webhooks/manus/[redacted]", "/webhooks/manus/[redacted]?k=v%2F"]);
    let rejections = harness.list("rejections").await;
    assert_eq!(rejections.len(), 1, "a wrong token is no rejection: {rejections:?}");
    assert_eq!(rejections[0]["target"], "/webhooks/manus/[redacted]?k=token");
    harness.stop().await;
    for file in std::fs::read_dir(harness.folder()).unwrap().map(|entry| entry.unwrap().path()) {
        // The log goes when the last connection does.
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let found =
            ["token-one", "token-two"].iter().any(|token| bytes.windows(token.len()).any(|part| part == token.as_bytes()));
        assert!(!found || file.ends_with("taskhook.toml"), "{}", file.display());
    }
}

#[tokio::test]
async fn what_a_request_says_of_itself_is_not_believed() {
    let mut harness = Harness::new().await;
    let event = stopped("e1", "t1").to_string();
    // Signed for another customer's URL, and made to look as if it had come there.
    let lured = harness
        .signed_for("https://evil.example.com/webhooks/manus", "/webhooks/manus", event.clone())
        .header("host", "evil.example.com")
        .header("x-forwarded-host", "evil.example.com")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "host=evil.example.com;proto=https")
        .header("x-original-url", "https://evil.example.com/webhooks/manus");
    let answer = send(lured).await;
    assert_eq!((status(&answer), code(&answer)), (401, "signature_invalid".to_owned()));
    let ours = harness.signed("/webhooks/manus", event).header("host", "evil.example.com").header("x-forwarded-proto", "https");
    assert_eq!(status(&send(ours).await), 200);
    harness.drain().await;
    let explanation = harness.list("rejections").await[0]["explanation"].as_str().unwrap().to_owned();
    assert!(explanation.contains("if it is not, somebody replays another customer's event"), "{explanation}");
    harness.expect_leftover();
}

#[tokio::test]
async fn every_public_url_is_accepted_with_its_path() {
    let toml = "[server]\npublic_url = [\"https://a.example.com\", \"https://b.example.com/base/\"]\n";
    let mut harness = Harness::with(toml).await;
    let path = "/webhooks/manus";
    for (url, event_id, expected) in [
        ("https://a.example.com/webhooks/manus", "e1", (200, None)),
        ("https://b.example.com/base/webhooks/manus", "e2", (200, None)),
        ("https://b.example.com/webhooks/manus", "e3", refused(401, "signature_invalid")),
        ("https://a.example.com/base/webhooks/manus", "e4", refused(401, "signature_invalid")),
        ("http://a.example.com/webhooks/manus", "e5", refused(401, "signature_invalid")),
        ("https://a.example.com/webhooks/manus?k=v", "e6", refused(401, "signature_invalid")),
    ] {
        assert_eq!(answered(&harness, url, path, event_id).await, expected, "{url}");
    }
    harness.expect_leftover();
}

#[tokio::test]
async fn the_query_is_covered_as_it_was_received() {
    let mut harness = Harness::new().await;
    let path = "/webhooks/manus?b=%2F%2f&a=ä+ &&c";
    let sent = "/webhooks/manus?b=%2F%2f&a=%C3%A4+%20&&c";
    // The client escapes what no request line may hold; Manus signs what it sends.
    assert_eq!(answered(&harness, &harness.url(sent), path, "e1").await, (200, None));
    let event = harness.list("events").await.remove(0);
    assert_eq!(harness.event(event["id"].as_str().unwrap()).await["target"], sent);
    harness.expect_leftover();
}
