//! The table of answers, row by row, and which comes first where two would fit.

use reqwest::Method;

use taskhook::simulator::manus::Plan;

use super::*;

#[tokio::test]
async fn a_verified_event_is_accepted_and_then_a_duplicate() {
    let mut harness = Harness::new().await;
    let task = harness.manus.create_task(crate::harness::KEY, Plan::finish("4"));
    harness.manus.finish_all().await;
    let event = stopped("e1", &task);
    let answer = harness.deliver(&event).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let first = json(&answer);
    let id = first["id"].as_str().unwrap().to_owned();
    assert_eq!((status(&answer), &first), (200, &json!({"status": "accepted", "id": id})));
    let again = harness.deliver(&event).await;
    assert_eq!((status(&again), json(&again)), (200, json!({"status": "duplicate", "id": id})));
    let kept = harness.event(&id).await;
    assert_eq!((&kept["verification"], &kept["repeats"], &kept["payload"]), (&json!("signature"), &json!(1), &event));
    harness.drain().await;
    assert_eq!(harness.log.lines().len(), 1);
}

/// Sends it; its status and code, once it is sure that nothing of the body comes back.
async fn refused(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = send(request.body("{\"marker\": \"never echoed\"}")).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains("marker") && !text.contains("echoed"), "{text}");
    let retry = if status(&answer) == 503 { Some("5") } else { None };
    assert_eq!(answer.header("retry-after"), retry, "{text}");
    (status(&answer), code(&answer))
}

fn case(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_code() {
    let harness = Harness::new().await;
    let now = harness.clock.now().as_second();
    let post = || harness.post("/webhooks/manus");
    let (signature, timestamp) = ("x-webhook-signature", "x-webhook-timestamp");
    let forged = FORGED.as_str();
    for (request, expected) in [
        (post(), "signature_missing"),
        (post().header(timestamp, now), "signature_missing"),
        (post().header(signature, "").header(timestamp, now), "signature_malformed"),
        (post().header(signature, "not base64!").header(timestamp, now), "signature_malformed"),
        (post().header(signature, "c2hvcnQ=").header(timestamp, now), "signature_malformed"),
        (post().header(signature, forged).header(signature, forged).header(timestamp, now), "signature_malformed"),
        (post().header(signature, forged), "timestamp_missing"),
        (post().header(signature, forged).header(timestamp, "now"), "timestamp_malformed"),
        (post().header(signature, forged).header(timestamp, now).header(timestamp, now), "timestamp_malformed"),
        (post().header(signature, forged).header(timestamp, now), "signature_invalid"),
        // The time is only told of a good signature.
        (post().header(signature, forged).header(timestamp, now - 4000), "signature_invalid"),
    ] {
        assert_eq!(refused(request).await, case(401, expected));
    }
    let body = stopped("e1", "t1").to_string();
    let headers = harness.manus.sign(&harness.url("/webhooks/manus"), body.as_bytes(), now - 301);
    let stale = send(post().headers(headers).body(body)).await;
    assert_eq!((status(&stale), code(&stale)), case(401, "timestamp_stale"));
    assert_eq!(harness.list("events").await.len(), 0);
}

#[tokio::test]
async fn paths_that_are_no_sources_are_not_found() {
    let harness = Harness::new().await;
    for path in [
        "/",
        "/webhooks",
        "/webhooks/",
        "/webhooks/other",
        "/webhooks/manus/",
        "/webhooks/manus/token",
        "/webhooks/manus/token/",
        "/webhooks//manus",
        "//webhooks/manus",
        "/webhooks/man%75s",
        "/webhooks/MANUS",
        "/webhooks/%ff",
        "/webhooks/manus%2f",
        "/api/v1/events",
        "/metrics",
    ] {
        assert_eq!(refused(harness.signed(path, "")).await, case(404, "source_unknown"), "{path}");
    }
}

#[tokio::test]
async fn any_method_but_post_is_refused_with_the_one_that_is_allowed() {
    let harness = Harness::new().await;
    for path in ["/webhooks/manus", "/webhooks/manus/", "/webhooks/other", "/webhooks/", "/webhooks"] {
        for method in
            [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::from_bytes(b"BREW").unwrap()]
        {
            let answer = send(harness.request(method.clone(), path)).await;
            assert_eq!((status(&answer), code(&answer)), case(405, "method_not_allowed"), "{method} {path}");
            assert_eq!(answer.header("allow"), Some("POST"));
        }
        let head = send(harness.request(Method::HEAD, path)).await;
        assert_eq!((status(&head), head.header("allow")), (405, Some("POST")));
    }
}

#[tokio::test]
async fn the_public_listener_tells_its_health_and_no_more() {
    let harness = Harness::new().await;
    let get = async |path: &str| send(harness.request(Method::GET, path)).await;
    let health = get("/healthz").await;
    assert_eq!((status(&health), json(&health)), (200, json!({"status": "ok", "instance": harness.store().instance_id()})));
    let ready = get("/readyz").await;
    assert_eq!((status(&ready), json(&ready)), (200, json!({"status": "ready"})));
}

#[tokio::test]
async fn what_the_sender_did_wrong_comes_before_what_is_wrong_with_us() {
    let toml = "[server]\nmax_body_bytes = \"1KiB\"\n[store]\nmin_free_bytes = \"1000TiB\"\n";
    let harness = Setup::new().config(toml).without_keys().start().await;
    let large = "x".repeat(1025);
    let get = send(harness.request(Method::GET, "/webhooks/nobody/").body(large.clone())).await;
    assert_eq!((status(&get), code(&get)), case(405, "method_not_allowed"));
    let nobody = send(harness.post("/webhooks/nobody").body(large.clone())).await;
    assert_eq!((status(&nobody), code(&nobody)), case(404, "source_unknown"));
    let unsigned = send(harness.post("/webhooks/manus").body(large)).await;
    assert_eq!((status(&unsigned), code(&unsigned)), case(413, "body_too_large"));
    assert_eq!(refused(harness.post("/webhooks/manus")).await, case(401, "signature_missing"));
    let full = harness.deliver(&stopped("e1", "t1")).await;
    assert_eq!((status(&full), code(&full)), case(503, "store_full"));
    let ready = send(harness.request(Method::GET, "/readyz")).await;
    assert_eq!((status(&ready), json(&ready)), (503, json!({"status": "unavailable"})));
}

#[tokio::test]
async fn problems_look_like_this() {
    let harness = Harness::new().await;
    let answer = send(harness.post("/webhooks/manus").body("{}")).await;
    insta::assert_snapshot!(String::from_utf8_lossy(&answer.body), @r#"{"code":"signature_missing","status":401,"title":"the signature header is missing"}"#);
    let answer = send(harness.post("/webhooks/other").body("{}")).await;
    insta::assert_snapshot!(String::from_utf8_lossy(&answer.body), @r#"{"code":"source_unknown","status":404,"title":"there is no such source"}"#);
}
