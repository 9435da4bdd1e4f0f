//! Every bound of the front door, at its edge.

use super::*;

fn head(harness: &Harness, path: &str, rest: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{rest}\r\n", harness.public())
}

#[tokio::test]
async fn a_slow_body_is_given_up_on() {
    let harness = Harness::with("[server]\nrequest_timeout = \"50ms\"\n").await;
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = Wire::open(harness.public()).await;
        wire.send(head(&harness, "/webhooks/manus", framing)).await;
        wire.send("5\r\n{\"eve\r\n").await;
        let answer = wire.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let lower = answer.to_lowercase();
        assert!(lower.contains("content-type: application/problem+json") && lower.contains("connection: close"), "{answer}");
        assert!(answer.contains(r#""code":"request_timeout""#) && !answer.contains("eve"), "{answer}");
    }
}

#[tokio::test]
async fn slow_headers_are_hung_up_on() {
    let harness = Harness::with("[server]\nheader_timeout = \"200ms\"\n").await;
    let mut wire = Wire::open(harness.public()).await;
    wire.send("POST /webhooks/manus HTTP/1.1\r\nHost: x\r\nX-Slo").await;
    let answer = wire.rest().await;
    assert!(!answer.contains("200 OK"), "{answer}");
    // So is who says nothing at all, at once or after a request.
    assert_eq!(Wire::open(harness.public()).await.rest().await, "");
    let mut wire = Wire::open(harness.public()).await;
    wire.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(wire.rest().await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_however_it_comes() {
    let mut harness = Harness::with("[server]\nmax_body_bytes = \"1KiB\"\n[sources.second]\nprovider = \"manus\"\napi_key = \"sk-test\"\nbase_url = \"{manus}\"\nmax_body_bytes = \"2KiB\"\n").await;
    let padded = |length: usize| {
        let mut event = stopped(&format!("e{length}"), "t1");
        event["padding"] = "".into();
        event["padding"] = "x".repeat(length - event.to_string().len()).into();
        event.to_string()
    };
    for (path, length, expected) in [
        ("/webhooks/manus", 1024, 200),
        ("/webhooks/manus", 1025, 413),
        ("/webhooks/second", 2048, 200),
        ("/webhooks/second", 2049, 413),
    ] {
        let answer = send(harness.signed(path, padded(length))).await;
        assert_eq!(status(&answer), expected, "{path} {length}");
        if expected == 413 {
            assert_eq!((code(&answer), answer.header("connection")), ("body_too_large".to_owned(), Some("close")));
        }
    }
    // Said in advance: refused before a byte of it came.
    let mut wire = Wire::open(harness.public()).await;
    wire.send(head(&harness, "/webhooks/manus", "Content-Length: 1025\r\n")).await;
    assert!(wire.rest().await.starts_with("HTTP/1.1 413 "));
    // Not said: refused once it is.
    let mut wire = Wire::open(harness.public()).await;
    wire.send(head(&harness, "/webhooks/manus", "Transfer-Encoding: chunked\r\n")).await;
    wire.send(format!("400\r\n{}\r\n1\r\nx\r\n", "x".repeat(1024))).await;
    assert!(wire.rest().await.starts_with("HTTP/1.1 413 "));
    assert_eq!(harness.list("events").await.len(), 2);
    harness.expect_leftover();
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_in_all() {
    let mut harness = Harness::with("[server]\nmax_body_bytes = \"1KiB\"\nmax_inflight_bytes = \"2KiB\"\n").await;
    let mut first = Wire::open(harness.public()).await;
    // A body of unknown length may become as large as any; that we are told to go on says that it has its place.
    first.send(head(&harness, "/webhooks/manus", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n")).await;
    first.until("100 Continue").await;
    let mut second = Wire::open(harness.public()).await;
    second.send(head(&harness, "/webhooks/manus", "Content-Length: 1000\r\nExpect: 100-continue\r\n")).await;
    second.until("100 Continue").await;
    let full = harness.deliver(&stopped("e1", "t1")).await;
    assert_eq!((status(&full), code(&full), full.header("retry-after")), (503, "queue_full".to_owned(), Some("5")));
    first.send("0\r\n\r\n").await;
    first.until("signature_missing").await;
    assert_eq!(status(&harness.deliver(&stopped("e1", "t1")).await), 200);
    // A sender that hangs up gives its place back too.
    drop(second);
    let _held = within("the place of who hung up", async {
        loop {
            let mut both = [Wire::open(harness.public()).await, Wire::open(harness.public()).await];
            let mut places = 0;
            for wire in &mut both {
                wire.send(head(&harness, "/webhooks/manus", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n")).await;
                places += usize::from(wire.some().await.contains("100 Continue"));
            }
            if places == 2 {
                break both;
            }
        }
    })
    .await;
    harness.expect_leftover();
}

#[tokio::test]
async fn a_store_that_does_not_commit_in_time_is_our_trouble() {
    let mut harness = Harness::with("[server]\ncommit_timeout = \"50ms\"\n").await;
    let event = stopped("e1", "t1");
    let other = rusqlite::Connection::open(harness.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = harness.deliver(&event).await;
    assert_eq!((status(&answer), code(&answer), answer.header("retry-after")), (503, "store_unavailable".to_owned(), Some("5")));
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    // A 503 may hide a kept event; the resend is then a duplicate.
    harness.reconfigure("[server]\ncommit_timeout = \"10s\"\n");
    harness.restart().await;
    assert_eq!(json(&harness.deliver(&event).await)["status"], "duplicate");
    assert_eq!(harness.list("events").await.len(), 1);
    harness.expect_leftover();
}

#[tokio::test]
async fn a_disk_with_too_little_space_takes_no_event() {
    let mut harness = Harness::with("[store]\nmin_free_bytes = \"1000TiB\"\n").await;
    let answer = harness.deliver(&stopped("e1", "t1")).await;
    assert_eq!((status(&answer), code(&answer), answer.header("retry-after")), (503, "store_full".to_owned(), Some("5")));
    let ready = send(harness.request(reqwest::Method::GET, "/readyz")).await;
    assert_eq!(status(&ready), 503);
    harness.reconfigure("[store]\nmin_free_bytes = \"1B\"\n");
    harness.restart().await;
    assert_eq!(json(&harness.deliver(&stopped("e1", "t1")).await)["status"], "accepted");
    harness.expect_leftover();
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let harness = Harness::with("[server]\nmax_connections = 1\nheader_timeout = \"200ms\"\n").await;
    let mut first = Wire::open(harness.public()).await;
    first.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    first.until("200 OK").await;
    // Idle connections are hung up on, so nobody waits for ever.
    let mut second = Wire::open(harness.public()).await;
    second.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    second.until("200 OK").await;
}

#[tokio::test]
async fn malformed_requests_do_no_harm() {
    let harness = Harness::new().await;
    for garbage in [
        "\r\n\r\n",
        "\0\0\0\0",
        "POST /webhooks/manus\r\n\r\n",
        "POST /webhooks/manus HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut wire = Wire::open(harness.public()).await;
        wire.send(garbage).await;
        wire.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(!wire.rest().await.contains("200 OK"), "{garbage}");
    }
    let mut wire = Wire::open(harness.public()).await;
    let many = "x-header: some value of some length\r\n".repeat(4000);
    wire.send(head(&harness, "/webhooks/manus", &many)).await;
    assert!(wire.rest().await.starts_with("HTTP/1.1 431 "));
    assert_eq!(status(&send(harness.request(reqwest::Method::GET, "/healthz")).await), 200);
}
