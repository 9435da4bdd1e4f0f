//! Sources that take requests from some addresses only.

use super::*;

/// The source `fenced`, which believes anyone who comes from a network of examples.
const FENCED: &str = "[sources.fenced]\nprovider = \"custom\"\nverify = \"none\"\nevent_id = \"none\"\nevent_type = \"text:note\"\n\
                      max_body_bytes = \"1KiB\"\nallow_ips = [\"192.0.2.0/24\", \"2001:db8::7\"]\n";
/// We stand where the proxy would.
const PROXY: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";

async fn from(harness: &Harness, forwarded: &[&str]) -> (u16, String) {
    let mut request = harness.post("/webhooks/fenced").body("{}");
    for line in forwarded {
        request = request.header("x-forwarded-for", *line);
    }
    told(request).await
}

#[tokio::test]
async fn who_comes_from_elsewhere_is_refused_whatever_the_request_says() {
    let mut harness = Harness::with(FENCED).await;
    let refused = || is(403, "ip_not_allowed");
    assert_eq!(from(&harness, &[]).await, refused());
    assert_eq!(from(&harness, &["192.0.2.1"]).await, refused());
    // Others are not concerned.
    assert_eq!(told(harness.post("/webhooks/manus").body("{}")).await, is(401, "signature_missing"));
    harness.drain().await;
    let rejections = harness.list("rejections").await;
    let told: Vec<_> =
        rejections.iter().filter(|row| row["source"] == "fenced").map(|row| row["explanation"].as_str().unwrap()).collect();
    assert_eq!(told[1], "it came from 127.0.0.1, which is not in `sources.fenced.allow_ips`");
    assert!(told[0].ends_with("if that address is your proxy's, add it to `server.trusted_proxies`"), "{}", told[0]);
    assert_eq!(rejections[1]["code"], "ip_not_allowed");
    assert_eq!(harness.list("events").await.len(), 0);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_last_address_that_is_none_counts() {
    let mut harness = Setup::new().config(FENCED).config(PROXY).start().await;
    for (forwarded, expected) in [
        (&["192.0.2.1"][..], is(200, "accepted")),
        (&["203.0.113.9, 192.0.2.1"], is(200, "accepted")),
        (&["203.0.113.9", "192.0.2.1, 10.1.2.3"], is(200, "accepted")),
        (&["2001:db8::7"], is(200, "accepted")),
        (&["192.0.2.1:4711"], is(200, "accepted")),
        (&["192.0.2.1, 203.0.113.9"], is(403, "ip_not_allowed")),
        (&["192.0.2.1", "203.0.113.9"], is(403, "ip_not_allowed")),
        (&["192.0.2.1, unknown"], is(403, "ip_not_allowed")),
        (&["2001:db8::8"], is(403, "ip_not_allowed")),
        (&[], is(403, "ip_not_allowed")),
    ] {
        assert_eq!(from(&harness, forwarded).await, expected, "{forwarded:?}");
    }
    harness.drain().await;
}

#[tokio::test]
async fn the_address_is_looked_at_after_the_path_and_before_all_else() {
    let harness = Harness::with(&format!("{FENCED}path_token = \"token-one\"\n[store]\nmin_free_bytes = \"1000TiB\"\n")).await;
    let get = send(harness.request(reqwest::Method::GET, "/webhooks/fenced/token-one")).await;
    assert_eq!(status(&get), 405);
    assert_eq!(told(harness.post("/webhooks/fenced").body("{}")).await, is(404, "source_unknown"));
    assert_eq!(told(harness.post("/webhooks/fenced/token-two").body("{}")).await, is(404, "source_unknown"));
    let large = "x".repeat(1025);
    assert_eq!(told(harness.post("/webhooks/fenced/token-one").body(large)).await, is(403, "ip_not_allowed"));
}
