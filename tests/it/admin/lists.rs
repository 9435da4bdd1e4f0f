//! What lists take, and what they refuse.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Harness, code, send, status};

/// Four events of tasks of their own, an hour apart, from noon on.
async fn four() -> Harness {
    let mut harness =
        Harness::with("[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n[[routes]]\nname = \"all\"\nto = [\"log\"]\n").await;
    for number in 0..4 {
        if number > 0 {
            harness.advance(std::time::Duration::from_hours(1)).await;
        }
        let event = json!({"event_id": format!("evt-{number}"), "event_type": "task_stopped", "task_detail":
            {"task_id": format!("t{number}"), "task_title": "x", "task_url": "https://manus.im/app/x", "message": "", "stop_reason": "finish"}});
        harness.accept(&event).await;
        harness.drain().await;
    }
    harness
}

/// The tasks of the rows of a list, and where it says to go on.
async fn tasks(harness: &Harness, list: &str) -> (String, Value) {
    let mut page = harness.admin(&format!("/api/v1/{list}")).await;
    let rows: Vec<Value> = serde_json::from_value(page["data"].take()).unwrap();
    let tasks: Vec<_> = rows.iter().map(|row| row["task_id"].as_str().unwrap()).collect();
    (tasks.join(" "), page["next_cursor"].take())
}

#[tokio::test]
async fn every_list_takes_times_and_goes_both_ways() {
    let harness = four().await;
    for list in ["events", "tasks", "deliveries"] {
        let told = async |query: &str| tasks(&harness, &format!("{list}?{query}")).await;
        assert_eq!(told("since=2026-01-15T13:00:00Z&until=2026-01-15T15:00:00Z").await, ("t2 t1".into(), Value::Null), "{list}");
        assert_eq!(told("since=2026-01-15T15:00:00%2B01:00&until=2026-01-15T14:00:00.001Z").await.0, "t2", "{list}");
        let (first, next) = told("after=0&limit=3").await;
        assert_eq!(first, "t0 t1 t2", "{list}");
        let (rest, end) = told(&format!("after={}", next.as_str().unwrap())).await;
        assert_eq!(rest, "t3", "{list}");
        let (none, again) = told(&format!("after={}", end.as_str().unwrap())).await;
        assert_eq!((none.as_str(), &again), ("", &end), "{list}: a program goes on asking");
        assert_eq!(told("after=0&since=2026-01-15T14:30:00Z").await.0, "t3", "{list}");
    }
    for list in ["events", "tasks"] {
        assert_eq!(tasks(&harness, &format!("{list}?text=T1")).await.0, "t1");
        assert_eq!(tasks(&harness, &format!("{list}?text=EVT-3")).await.0, "t3");
        assert_eq!(tasks(&harness, &format!("{list}?text=%25")).await.0, "");
    }
    assert_eq!(tasks(&harness, "events?text=t&type=task_stopped&after=0&limit=2").await.0, "t0 t1");
}

#[tokio::test]
async fn rejections_are_told_apart_by_source_and_code() {
    let mut harness = Harness::new().await;
    harness.post("/webhooks/manus").body("{}").send().await.unwrap();
    harness.drain().await;
    let count = async |query: &str| harness.list(&format!("rejections?{query}")).await.len();
    for (query, expected) in [
        ("", 1),
        ("source=manus", 1),
        ("source=other", 0),
        ("code=signature_missing&source=manus", 1),
        ("code=signature_invalid", 0),
        ("since=2026-01-15T12:00:00Z", 1),
        ("until=2026-01-15T12:00:00Z", 0),
        ("after=0", 1),
        ("after=1", 0),
    ] {
        assert_eq!(count(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn what_a_list_cannot_mean_is_refused_and_said() {
    let harness = Harness::new().await;
    let long = "x".repeat(201);
    for (query, said) in [
        ("events?since=yesterday", "since: write a time like"),
        ("tasks?until=2026-01-15", "until: write a time like"),
        ("deliveries?since=", "since: write a time like"),
        ("rejections?until=0", "until: write a time like"),
        ("events?cursor=1&after=1", "use one of them"),
        ("tasks?after=x", "`after` is not one of our cursors"),
        ("rejections?cursor=-1", "`cursor` is not one of our cursors"),
        ("deliveries?limit=0", "`limit` is a number from 1 to 500"),
        ("events?limit=many", "limit"),
        ("events?text=", "`text` is what is looked for"),
        ("tasks?text=%20%09", "`text` is what is looked for"),
        (&format!("tasks?text={long}"), "1 to 200 characters"),
        ("tasks?type=task_stopped", "unknown field `type`"),
        ("rejections?text=x", "unknown field `text`"),
        ("watches?after=0", "unknown field `after`"),
    ] {
        let answer = send(harness.admin_request(Method::GET, &format!("/api/v1/{query}"))).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (400, "query_invalid"), "{query}");
        let title = crate::harness::json(&answer)["title"].as_str().unwrap().to_owned();
        assert!(title.contains(said), "{query}: {title}");
    }
}
