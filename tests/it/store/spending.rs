//! What tasks cost: what is new of it, once, on the day of their last change.

use taskhook::setting::Zone;
use taskhook::store::model::TaskNews;
use taskhook::store::{Amounts, Spent};
use taskhook::task::{Fetched, State, Task, Usage};

use super::*;

contract!(what_is_new_counts_once_on_the_day_of_its_change, what_is_used_counts_beside_what_it_costs);

impl Database {
    /// Fetches a task that has cost so much by then.
    async fn costs(&self, event_id: &str, task: &str, credits: Option<f64>, updated_at: Option<Timestamp>, now: Timestamp) {
        let task = Task { id: task.to_owned(), state: State::Finished, credits, updated_at, ..Task::default() };
        self.fetched(event_id, task, now).await;
    }

    async fn fetched(&self, event_id: &str, task: Task, now: Timestamp) {
        self.stopped(event_id, &task.id).await;
        let job = self.claim_one(JobKind::Prove, "manus", now).await;
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
        spent.into_iter().map(|Spent { day, amounts, .. }| (day.to_string(), amounts.credits)).collect()
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
    // What is told to be less was given back; once, and what is then told to be more counts from there.
    database.costs("e8", "t1", Some(11.0), Some(at(DAY)), at(DAY)).await;
    database.costs("e9", "t1", Some(11.0), Some(at(DAY)), at(DAY)).await;
    assert_eq!(database.days("UTC", 1, at(DAY)).await, [day("2026-01-16", 9.5)]);
    database.costs("e10", "t1", Some(12.0), Some(at(DAY)), at(DAY)).await;
    let store = database.store();
    assert_eq!(store.spent_ever().await.unwrap(), [("manus".to_owned(), Amounts { credits: 24.0, ..Amounts::default() })]);
    let zone = Zone::default();
    assert_eq!(store.spent(Some("second"), 7, &zone, at(DAY)).await.unwrap(), []);
    assert_eq!(store.spent(Some("manus"), 7, &zone, at(DAY)).await.unwrap().len(), 2);
}

async fn what_is_used_counts_beside_what_it_costs(database: Database) {
    let used = |task: &str, input, output, seconds, dollars| Task {
        id: task.to_owned(),
        state: State::Finished,
        usage: Usage { input_tokens: input, output_tokens: output, compute_seconds: seconds, cost_usd: dollars },
        updated_at: Some(at(0)),
        ..Task::default()
    };
    database.fetched("e1", used("t1", Some(8000), Some(2100), Some(12.25), Some(0.5)), at(1)).await;
    database.fetched("e2", used("t1", Some(8500), Some(2300), Some(12.5), Some(0.75)), at(2)).await;
    // What it does not tell this time stays as it was.
    database.fetched("e3", used("t1", None, Some(2300), None, None), at(3)).await;
    database.fetched("e4", used("t2", Some(1), None, None, Some(0.25)), at(4)).await;
    database.fetched("e5", used("t2", Some(u64::MAX), None, None, Some(0.25)), at(5)).await;
    let spent = database.store().spent(None, 1, &Zone::default(), at(6)).await.unwrap();
    let amounts =
        Amounts { credits: 0.0, input_tokens: 1_000_000_008_500, output_tokens: 2300, compute_seconds: 12.5, cost_usd: 1.0 };
    assert_eq!(spent.iter().map(|spent| spent.amounts).collect::<Vec<_>>(), [amounts]);
}
