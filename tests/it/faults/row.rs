//! One write that the database refuses, among many in one commit.

use crate::harness::{Harness, json};

use super::*;

#[tokio::test]
async fn a_row_that_cannot_be_kept_takes_no_neighbour_with_it() {
    let open = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";
    let mut harness = Harness::with(open).await;
    let other = rusqlite::Connection::open(harness.database()).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.event_id = 'e13' BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        .unwrap();
    // All of them wait for the one that holds the file, and are then committed together.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let events: Vec<_> = (0..40).map(|number| stopped(&format!("e{number}"), 100)).collect();
    let senders = futures_util::future::join_all(
        events.iter().map(|event| crate::harness::send(harness.post("/webhooks/open").body(event.to_string()))),
    );
    let release = async {
        for _ in 0..5_000 {
            tokio::task::yield_now().await;
        }
        other.execute_batch("COMMIT").unwrap();
    };
    let (answers, ()) = tokio::join!(senders, release);
    for (event, answer) in events.iter().zip(&answers) {
        if event["event_id"] == "e13" {
            come_again(answer, "store_unavailable");
        } else {
            assert_eq!((status(answer), &json(answer)["status"]), (200, &json!("accepted")), "{}", event["event_id"]);
        }
    }
    let ids = async |harness: &Harness| -> BTreeSet<String> {
        let rows = harness.list("events?limit=100").await;
        rows.iter().map(|row| row["event_id"].as_str().expect("an id").to_owned()).collect()
    };
    let kept = ids(&harness).await;
    assert_eq!((kept.len(), kept.contains("e13")), (39, false), "{kept:?}");
    // Once it can be kept, it is.
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let again = crate::harness::send(harness.post("/webhooks/open").body(events[13].to_string())).await;
    assert_eq!((status(&again), &json(&again)["status"]), (200, &json!("accepted")));
    harness.drain().await;
    assert_eq!(harness.log.lines().len(), 40);
}
