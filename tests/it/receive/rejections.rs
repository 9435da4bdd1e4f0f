//! Requests that did not verify: kept for diagnosis, a few of them, without their credentials.

use super::*;

#[tokio::test]
async fn a_rejection_is_kept_with_all_but_its_credentials() {
    let mut harness = Harness::new().await;
    let body = format!(r#"{{"event_id": "e1", "padding": "{}"}}"#, "é".repeat(10_000));
    let request = forged(&harness, &body)
        .header("authorization", "Bearer credential-0815")
        .header("x-api-key", "credential-0815")
        .header("cookie", "credential-4711")
        .header("user-agent", "Manus-Webhook/1.0");
    assert_eq!(status(&send(request).await), 401);
    harness.drain().await;
    let listed = harness.list("rejections").await.remove(0);
    assert_eq!((&listed["source"], &listed["code"]), (&json!("manus"), &json!("signature_invalid")));
    assert_eq!((&listed["target"], &listed["body_bytes"]), (&json!("/webhooks/manus"), &json!(body.len())));
    assert!(listed["explanation"].as_str().unwrap().contains(&harness.url("/webhooks/manus")), "{listed}");
    let whole = harness.admin(&format!("/api/v1/rejections/{}", listed["id"])).await;
    assert!(!whole.to_string().contains("0815") && !whole.to_string().contains("4711"));
    let headers: Vec<(String, String)> = serde_json::from_value(whole["headers"].clone()).unwrap();
    let value = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone()).unwrap();
    assert!(value("cookie").starts_with("hmac:"), "{}", value("cookie"));
    // The same secret with another word before it is another text; the same text has the same hash.
    assert_ne!(value("authorization"), value("x-api-key"));
    assert_eq!((value("user-agent"), value("x-webhook-signature")), ("Manus-Webhook/1.0".to_owned(), FORGED.clone()));
    let kept = whole["body"].as_str().unwrap();
    assert!(kept.starts_with(r#"{"event_id": "e1""#) && kept.len() <= (16 << 10) + 2, "{}", kept.len());
    assert_eq!(harness.list("events").await.len(), 0);
}

#[tokio::test]
async fn a_flood_costs_five_a_second_for_each_source() {
    let second = "[sources.second]\nprovider = \"manus\"\napi_key = \"sk-test\"\nbase_url = \"{manus}\"\n";
    let mut harness = Harness::with(second).await;
    for _ in 0..2 {
        for _ in 0..8 {
            assert_eq!(status(&send(forged(&harness, "{}")).await), 401);
            assert_eq!(status(&send(harness.post("/webhooks/second")).await), 401);
        }
        harness.drain().await;
        harness.clock.advance(jiff::SignedDuration::from_secs(1));
    }
    let rejections = harness.list("rejections").await;
    let count = |source: &str| rejections.iter().filter(|row| row["source"] == source).count();
    assert_eq!((count("manus"), count("second")), (10, 10));
    let metrics = send_metrics(&harness).await;
    assert!(metrics.contains(r#"taskhook_rejections_total{source="manus",code="signature_invalid"} 16"#), "{metrics}");
    assert!(metrics.contains(r#"taskhook_rejections_total{source="second",code="signature_missing"} 16"#), "{metrics}");
}

async fn send_metrics(harness: &Harness) -> String {
    let client = taskhook::http::client(std::time::Duration::from_secs(5));
    let answer = send(client.get(format!("http://{}/metrics", harness.app().admin))).await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn what_waits_to_be_looked_at_is_kept_at_the_next_look() {
    let mut harness = Harness::new().await;
    assert_eq!(status(&send(forged(&harness, "{}")).await), 401);
    assert_eq!(harness.list("rejections").await.len(), 0, "off the path of the event");
    harness.drain().await;
    assert_eq!(harness.list("rejections").await.len(), 1);
    harness.restart().await;
    assert_eq!(harness.list("rejections").await.len(), 1);
}

#[tokio::test]
async fn what_waits_to_be_looked_at_is_kept_at_a_stop() {
    let mut harness = Setup::new().by_itself().start().await;
    for _ in 0..3 {
        assert_eq!(status(&send(forged(&harness, "{}")).await), 401);
    }
    harness.restart().await;
    assert_eq!(harness.list("rejections").await.len(), 3);
}
