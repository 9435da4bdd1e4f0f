//! What was done in each minute and hour, as the admin API tells it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use taskhook::simulator::manus::{End, Plan, Turn};

use crate::harness::{KEY, Recorder, Reply, send, status};
use crate::work::{setup, start};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn what_was_done_is_told_by_minute_and_hour() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let _ = harness.manus.create_task(KEY, Plan::finish("Done."));
    harness.manus.finish_all().await;
    harness.advance(Duration::from_secs(2)).await;
    crm.answer(Reply::Status(503));
    let _ = harness.manus.create_task(KEY, Plan::finish("It cannot be delivered."));
    harness.manus.finish_all().await;
    harness.advance(Duration::from_secs(2)).await;
    let refused = send(harness.post("/webhooks/manus").body("{}")).await;
    assert_eq!(status(&refused), 401);
    harness.drain().await;
    let first = harness.list("events").await.len();
    harness.clock.advance(jiff::SignedDuration::from_secs(61));
    assert!(harness.sample().await && !harness.sample().await);
    crm.answer(Reply::Status(204));
    let _ = harness.manus.create_task(KEY, Plan::finish("Done.").costing(7));
    harness.manus.finish_all().await;
    harness.advance(MINUTE).await;
    harness.restart().await;
    assert!(harness.sample().await);
    let all = harness.list("events").await.len();
    let told = harness.admin("/api/v1/series").await;
    assert_eq!(told["next_cursor"], Value::Null);
    let minutes = told["data"].as_array().unwrap();
    assert_eq!(minutes.len(), 2);
    let minute = &minutes[0];
    assert_eq!((&minute["at"], &minute["span"]), (&json!("2026-01-15T12:00:00.000Z"), &json!(60)));
    assert_eq!((&minute["events"], &minute["rejections"], &minute["credits"]), (&json!(first), &json!(1), &json!(0)));
    assert!(minute["failed"].as_i64() >= Some(1) && minute["backlog"].as_i64() >= Some(1), "{minute}");
    assert!(minute["delivered"].as_i64() >= Some(1) && minute["median_ms"].is_i64() && minute["p95_ms"].is_i64(), "{minute}");
    let minute = &minutes[1];
    assert_eq!((&minute["events"], &minute["backlog"], &minute["credits"]), (&json!(all - first), &json!(0), &json!(7)));
    assert_eq!(harness.list("series?span=minute&since=2026-01-15T12:00:00.001Z").await, minutes[1..]);
    assert!(harness.list("series?span=hour").await.is_empty());
    harness.advance(MINUTE * 60).await;
    assert!(harness.sample().await);
    let hours = harness.list("series?span=hour").await;
    assert_eq!(hours.len(), 1);
    let hour = &hours[0];
    assert_eq!((&hour["span"], &hour["events"], &hour["credits"]), (&json!(3600), &json!(all), &json!(7)));
    for query in ["span=day", "since=yesterday", "until=2026-01-15T12:00:00Z"] {
        let refused = send(harness.admin_request(Method::GET, &format!("/api/v1/series?{query}"))).await;
        assert_eq!(status(&refused), 400, "{query}");
    }
}

#[tokio::test]
async fn how_things_stand_is_told_in_one_answer() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "").config(&crm.section("away", "")).config("[[routes]]\nto = [\"away\"]\n")).await;
    harness.sample().await;
    let ask = End::Ask { question: "A or B?".to_owned(), options: vec!["A".to_owned(), "B".to_owned()] };
    let _ = harness.manus.create_task(KEY, Plan::new([Turn::new(ask)]).costing(3));
    harness.manus.finish_all().await;
    harness.drain().await;
    let paused = send(harness.admin_request(Method::POST, "/api/v1/destinations/away/pause")).await;
    assert_eq!(status(&paused), 200);
    let _ = harness.manus.create_task(KEY, Plan::finish("Done.").costing(4));
    harness.manus.finish_all().await;
    harness.advance(Duration::from_secs(1)).await;
    let accepted = harness.list("events").await.len();
    harness.clock.advance(jiff::SignedDuration::from_secs(70));
    assert!(harness.sample().await);
    let brief = harness.admin("/api/v1/stats").await;
    let mut members: Vec<_> = brief.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["dead", "events", "jobs", "quarantined"], "who polls is answered fast");
    let stats = harness.admin("/api/v1/stats?since=2026-01-15T11:59:00Z").await;
    for member in members {
        assert_eq!(stats[member], brief[member]);
    }
    assert_eq!((&stats["waiting"], &stats["sources_complete"], &stats["watches"]), (&json!(1), &json!(true), &json!([])));
    let source = &stats["sources"][0];
    assert_eq!((&source["source"], &source["events"], &source["credits"]), (&json!("manus"), &json!(accepted), &json!(7)));
    assert_eq!((&source["waiting"], &source["open"]), (&json!(1), &json!(1)));
    assert_eq!(source["last_webhook_at"], harness.list("events").await[0]["received_at"]);
    let named = |name: &str| stats["destinations"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!((&named("crm")["pending"], &named("away")["state"]), (&json!(0), &json!("paused")));
    assert!(named("away")["pending"].as_i64() >= Some(1), "{stats}");
    let rates = &stats["rates"];
    assert_eq!((&rates["minutes"], &rates["events"]), (&json!(1), &json!(accepted)));
    assert!(rates["delivered"].as_i64() >= Some(2) && rates["median_ms"].is_i64() && rates["p95_ms"].is_i64(), "{rates}");
    // What is for a paused destination is not due.
    assert_eq!(stats["due"], json!([]));
    let later = harness.admin("/api/v1/stats?since=2026-01-15T12:01:00Z").await;
    assert_eq!((&later["sources"][0]["events"], &later["rates"]["minutes"]), (&json!(0), &json!(0)));
    for query in ["since=soon", "until=2026-01-15T12:00:00Z"] {
        let refused = send(harness.admin_request(Method::GET, &format!("/api/v1/stats?{query}"))).await;
        assert_eq!(status(&refused), 400, "{query}");
    }
    assert_eq!(status(&send(harness.admin_request(Method::POST, "/api/v1/destinations/away/resume")).await), 200);
    harness.drain().await;
}
