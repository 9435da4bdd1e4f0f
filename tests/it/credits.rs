//! What tasks cost is counted once, by source and day, and told when it is much.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::manus::{Plan, Turn};

use crate::harness::{Harness, KEY, Recorder};
use crate::work::{say, setup, start, stopped};

/// The days of Kiribati begin ten hours before those of UTC do: tests begin at 12:00 UTC, which is 02:00 of the next day there.
const KIRIBATI: &str = "[server]\ntime_zone = \"Pacific/Kiritimati\"\n";

/// A program that watches and has a budget of 100 credits a day.
async fn counting(crm: &Recorder, config: &str) -> Harness {
    let setup = setup(crm, "").config("[sources.manus]\ncredits_per_day = 100\n").config(config).watching();
    let mut harness = start(setup).await;
    harness.drain().await;
    harness
}

async fn spend(harness: &mut Harness, credits: u32) -> String {
    let task = harness.manus.create_task(KEY, Plan::finish("Done.").costing(credits));
    harness.manus.finish_all().await;
    harness.drain().await;
    harness.advance(Duration::from_mins(1)).await;
    task
}

/// Of each day its credits.
async fn days(harness: &Harness, query: &str) -> Vec<(String, Value)> {
    let rows = harness.list(&format!("credits{query}")).await;
    rows.into_iter().map(|row| (row["day"].as_str().expect("a day").to_owned(), row["credits"].clone())).collect()
}

/// The shares of the budget that `crm` was told of, each with its state.
fn shares(crm: &Recorder) -> Vec<(u64, String)> {
    let told = crm.bodies().into_iter().filter(|body| body["type"] == "watch.budget");
    told.map(|body| {
        let payload = &body["event"]["payload"];
        (payload["percent"].as_u64().expect("a share"), payload["state"].as_str().expect("a state").to_owned())
    })
    .collect()
}

#[tokio::test]
async fn what_a_task_costs_counts_once_however_often_it_is_fetched() {
    for version in ["v1", "v2"] {
        let crm = Recorder::start().await;
        let mut harness = counting(&crm, &format!("[sources.manus]\napi_version = \"{version}\"\n")).await;
        let plan = Plan::new([Turn::finish("Done."), Turn::finish("Done again.")]).costing(10);
        let task = harness.manus.create_task(KEY, plan);
        harness.manus.finish_all().await;
        harness.drain().await;
        assert_eq!(days(&harness, "").await, [("2026-01-15".to_owned(), json!(10))], "{version}");
        // The same answer again, and after a restart.
        harness.accept(&stopped("again", &task)).await;
        harness.drain().await;
        harness.restart().await;
        harness.accept(&stopped("and-again", &task)).await;
        harness.advance(Duration::from_mins(3)).await;
        assert_eq!(days(&harness, "?source=manus").await, [("2026-01-15".to_owned(), json!(10))], "{version}");
        assert!(days(&harness, "?source=other").await.is_empty());
        // Its next turn is of the next day, and only what is new counts there.
        if version == "v2" {
            harness.advance(Duration::from_hours(24)).await;
            say(&harness, &task, "Again.").await;
            harness.manus.finish_all().await;
            harness.drain().await;
            let both = [("2026-01-16".to_owned(), json!(10)), ("2026-01-15".to_owned(), json!(10))];
            assert_eq!(days(&harness, "").await, both);
            assert_eq!(days(&harness, "?days=1").await, both[..1]);
        }
        let metrics = crate::harness::send(harness.admin_request(reqwest::Method::GET, "/metrics")).await;
        assert!(String::from_utf8_lossy(&metrics.body).contains("taskhook_credits_total{source=\"manus\"}"));
        // The watches may have something to say of it.
        harness.advance(Duration::from_mins(3)).await;
    }
}

#[tokio::test]
async fn days_begin_where_the_configuration_says() {
    let crm = Recorder::start().await;
    let mut harness = counting(&crm, KIRIBATI).await;
    spend(&mut harness, 7).await;
    assert_eq!(days(&harness, "").await, [("2026-01-16".to_owned(), json!(7))]);
    let answer = harness.admin("/api/v1/credits").await;
    assert_eq!((&answer["time_zone"], &answer["data"][0]["budget"]), (&json!("Pacific/Kiritimati"), &json!(100)));
    for query in ["days=0", "days=367", "days=x", "day=1"] {
        let refused =
            crate::harness::send(harness.admin_request(reqwest::Method::GET, &format!("/api/v1/credits?{query}"))).await;
        assert_eq!(crate::harness::status(&refused), 400, "{query}");
    }
}

#[tokio::test]
async fn a_budget_is_told_at_80_and_100_percent_once_a_day() {
    let crm = Recorder::start().await;
    let mut harness = counting(&crm, "").await;
    spend(&mut harness, 79).await;
    harness.advance(Duration::from_mins(1)).await;
    assert_eq!(shares(&crm), []);
    spend(&mut harness, 1).await;
    harness.advance(Duration::from_mins(1)).await;
    assert_eq!(shares(&crm), [(80, "raised".to_owned())]);
    let told = crm.bodies().into_iter().find(|body| body["type"] == "watch.budget").expect("one");
    let payload = &told["event"]["payload"];
    assert_eq!(
        (&payload["credits"], &payload["budget"], &payload["day"], &told["task"]),
        (&json!(80), &json!(100), &json!("2026-01-15"), &Value::Null)
    );
    harness.restart().await;
    spend(&mut harness, 40).await;
    harness.advance(Duration::from_mins(1)).await;
    assert_eq!(shares(&crm), [(80, "raised".to_owned()), (100, "raised".to_owned())]);
    // A new day begins with nothing spent.
    harness.advance(Duration::from_hours(12)).await;
    harness.advance(Duration::from_mins(1)).await;
    let mut over = shares(&crm).split_off(2);
    over.sort();
    assert_eq!(over, [(80, "cleared".to_owned()), (100, "cleared".to_owned())]);
    spend(&mut harness, 100).await;
    harness.advance(Duration::from_mins(1)).await;
    let mut anew = shares(&crm).split_off(4);
    anew.sort();
    assert_eq!(anew, [(80, "raised".to_owned()), (100, "raised".to_owned())]);
}

#[tokio::test]
async fn a_budget_that_is_not_watched_is_not_told() {
    for config in ["[watch]\nbudget = \"off\"\n", "[sources.manus]\ncredits_per_day = 1000000\n"] {
        let crm = Recorder::start().await;
        let mut harness = counting(&crm, config).await;
        spend(&mut harness, 500).await;
        harness.advance(Duration::from_mins(2)).await;
        assert_eq!(shares(&crm), [], "{config}");
    }
}
