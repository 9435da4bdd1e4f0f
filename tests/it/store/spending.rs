//! What tasks cost: what is new of it, once, on the day of their last change.

use taskhook::setting::Zone;
use taskhook::store::Spent;
use taskhook::store::model::TaskNews;
use taskhook::task::{Fetched, State, Task};

use super::*;

contract!(what_is_new_counts_once_on_the_day_of_its_change);

impl Database {
    /// Fetches a task that has cost so much by then; `ends` says whether its job ends with that.
    async fn costs(&self, event_id: &str, task: &str, credits: Option<f64>, updated_at: Option<Timestamp>, now: Timestamp) {
        self.stopped(event_id, task).await;
        let job = self.claim_one(JobKind::Prove, "manus", now).await;
        let task = Task { id: task.to_owned(), state: State::Finished, credits, updated_at, ..Task::default() };
        let fetched = Fetched { task, raw: "{}".to_owned(), ..Fetched::default() };
        let news = TaskNews { proof: Some("listed"), fetched: Some(Box::new(fetched)), ..TaskNews::default() };
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(Vec::new()) }];
        let finish = Finish { task: news, moves, ..Finish::default() };
        assert!(self.store().finish(job.lease, now, finish.clone()).await.unwrap());
        // Whoever lost the lease counts nothing.
        assert!(!self.store().finish(job.lease, now, finish).await.unwrap());
    }

    async fn days(&self, zone: &str, days: u16, now: Timestamp) -> Vec<(String, f64)> {
        let zone: Zone = serde_json::from_value(json!(zone)).unwrap();
        let spent = self.store().spent(None, days, &zone, now).await.unwrap();
        spent.into_iter().map(|Spent { day, credits, .. }| (day.to_string(), credits)).collect()
    }
}

async fn what_is_new_counts_once_on_the_day_of_its_change(database: Database) {
    const DAY: i64 = 24 * 3600;
    let day = |day: &str, credits: f64| (day.to_owned(), credits);
    database.costs("e1", "t1", Some(10.5), Some(at(0)), at(5)).await;
    database.costs("e2", "t1", Some(10.5), Some(at(0)), at(6)).await;
    database.costs("e3", "t1", None, Some(at(7)), at(8)).await;
    assert_eq!(database.days("UTC", 1, at(9)).await, [day("2026-01-15", 10.5)]);
    // More of it, a day later; and of another, which says that it changed the day before, or in days to come.
    database.costs("e4", "t1", Some(12.0), Some(at(DAY)), at(DAY)).await;
    database.costs("e5", "t2", Some(3.0), Some(at(60)), at(DAY)).await;
    database.costs("e6", "t3", Some(4.0), Some(at(9 * DAY)), at(DAY)).await;
    database.costs("e7", "t4", Some(5.0), None, at(DAY)).await;
    assert_eq!(database.days("UTC", 7, at(DAY)).await, [day("2026-01-16", 10.5), day("2026-01-15", 13.5)]);
    assert_eq!(database.days("UTC", 1, at(DAY)).await, [day("2026-01-16", 10.5)]);
    assert_eq!(database.days("Pacific/Kiritimati", 7, at(DAY)).await, [day("2026-01-17", 10.5), day("2026-01-16", 13.5)]);
    assert_eq!(database.days("Asia/Kathmandu", 7, at(DAY)).await, [day("2026-01-16", 10.5), day("2026-01-15", 13.5)]);
    // What is told to be less counts as nothing.
    database.costs("e8", "t1", Some(11.0), Some(at(DAY)), at(DAY)).await;
    let store = database.store();
    assert_eq!(store.spent_ever().await.unwrap(), [("manus".to_owned(), 24.0)]);
    let zone = Zone::default();
    assert_eq!(store.spent(Some("second"), 7, &zone, at(DAY)).await.unwrap(), []);
    assert_eq!(store.spent(Some("manus"), 7, &zone, at(DAY)).await.unwrap().len(), 2);
}
