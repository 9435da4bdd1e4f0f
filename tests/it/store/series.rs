//! Samples of what was done: one a minute and one an hour, whoever takes them.

use taskhook::store::model::{Claim, NewRejection, TaskNews};
use taskhook::store::{Due, Sample, SourceCounts, Span};
use taskhook::task::{Fetched, State, Task};

use super::*;

contract!(
    a_minute_is_counted_once_and_the_next_goes_on_from_there,
    a_minute_that_nobody_was_there_for_has_no_row,
    what_was_accepted_late_counts_in_the_next_minute,
    a_clock_that_goes_back_makes_no_second_row,
    an_hour_is_what_its_minutes_were,
    samples_go_when_they_are_old,
    what_is_due_longest_is_told_by_kind,
    what_there_is_of_each_source_is_counted,
);

/// Minutes, in seconds.
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

impl Database {
    async fn sample(&self, seconds: i64) -> bool {
        self.store().sample(at(seconds)).await.unwrap()
    }

    async fn series(&self, span: Span) -> Vec<Sample> {
        self.store().series(span, Timestamp::MIN).await.unwrap()
    }

    /// Of each sample of this span its beginning in minutes after the start, and a number of it.
    async fn numbers(&self, span: Span, number: fn(&Sample) -> i64) -> Vec<(i64, i64)> {
        let minutes = |sample: &Sample| sample.at.duration_since(at(0)).as_secs() / MINUTE;
        self.series(span).await.iter().map(|sample| (minutes(sample), number(sample))).collect()
    }

    /// Keeps an event that was received then.
    async fn received(&self, event_id: &str, seconds: i64) -> Uuid {
        let event = event(event_id, Some(event_id), &json!({"event_id": event_id}));
        self.append(NewEvent { received_at: at(seconds), ..event }).await.id()
    }

    /// Has the one event that waits handed on to these destinations.
    async fn hand_on(&self, destinations: &[&str], news: TaskNews, claims: Vec<Claim>, seconds: i64) {
        let job = self.claim_one(JobKind::Prove, "manus", at(seconds)).await;
        let deliveries = destinations.iter().map(|destination| delivery(destination, None)).collect();
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(deliveries) }];
        let finish = Finish { moves, task: news, claims, ..Finish::default() };
        assert!(self.store().finish(job.lease, at(seconds), finish).await.unwrap());
    }

    /// Keeps an event and delivers it so many milliseconds later.
    async fn delivered(&self, event_id: &str, received: i64, took_ms: i64) {
        self.received(event_id, received).await;
        self.hand_on(&["crm"], TaskNews::default(), Vec::new(), received).await;
        let job = self.claim_one(JobKind::Deliver, "crm", at(received)).await;
        assert!(self.finish(job.lease, at(received) + SignedDuration::from_millis(took_ms)).await);
    }
}

fn rejection(seconds: i64) -> NewRejection {
    NewRejection {
        received_at: at(seconds),
        source: "manus".into(),
        code: "signature_invalid",
        explanation: None,
        target: "/webhooks/manus".into(),
        headers: Vec::new(),
        body_bytes: 2,
        body: Bytes::from_static(b"{}"),
    }
}

/// What a task was told to have cost.
fn cost(task: &str, credits: f64) -> TaskNews {
    let task = Task { id: task.to_owned(), state: State::Finished, credits: Some(credits), ..Task::default() };
    let fetched = Fetched { task, raw: "{}".to_owned(), ..Fetched::default() };
    TaskNews { proof: Some("listed"), fetched: Some(Box::new(fetched)), ..TaskNews::default() }
}

async fn a_minute_is_counted_once_and_the_next_goes_on_from_there(mut database: Database) {
    database.received("before", -30).await;
    database.hand_on(&[], cost("before", 5.0), Vec::new(), -30).await;
    assert!(database.sample(9).await);
    let recovered = database.received("e1", 10).await;
    let claim = |event, recovered| Claim { anchor: format!("{event}"), state: State::Finished, at: None, event, recovered };
    let claims = vec![claim(recovered, true), claim(Uuid::now_v7(), false)];
    database.hand_on(&["crm", "dead"], cost("e1", 2.5), claims, 11).await;
    let job = database.claim_one(JobKind::Deliver, "crm", at(12)).await;
    assert!(database.retry(job.lease, at(13), at(14), "503").await);
    let job = database.claim_one(JobKind::Deliver, "crm", at(14)).await;
    let unknown = Setback { unknown: true, ..setback("it was cut off") };
    assert!(database.store().retry(job.lease, at(15), at(16), unknown).await.unwrap());
    let job = database.claim_one(JobKind::Deliver, "crm", at(16)).await;
    assert!(database.finish(job.lease, at(18)).await);
    let job = database.claim_one(JobKind::Deliver, "dead", at(19)).await;
    assert!(database.bury(job.lease, at(20), "410").await);
    for (name, received) in [("e2", 20), ("e3", 30)] {
        database.delivered(name, received, 1250 * (received / 10 - 1)).await;
    }
    // One waits to be proven, one that nobody has looked at yet, and one that is tried again later.
    database.received("e4", 40).await;
    let job = database.claim_one(JobKind::Prove, "manus", at(41)).await;
    assert!(database.retry(job.lease, at(42), at(1000), "503").await);
    database.received("e5", 43).await;
    database.store().record_rejections(vec![rejection(-1), rejection(0), rejection(59), rejection(60)]).await.unwrap();
    // The next minute has begun when this one is sampled.
    database.received("next", 62).await;
    assert!(!database.sample(64).await, "what was being written when it ended may not be there");
    assert!(database.sample(65).await);
    assert!(!database.sample(66).await);
    let minute = Sample {
        at: at(0),
        span: Span::Minute,
        events: 5,
        rejections: 2,
        recovered: 1,
        delivered: 3,
        // Twice to `crm`, once to `dead`.
        failed: 3,
        dead: 1,
        backlog: 3,
        oldest_seconds: 17,
        median_ms: Some(2500),
        p95_ms: Some(8000),
        credits: 2.5,
    };
    let samples = database.series(Span::Minute).await;
    assert_eq!(samples.len(), 2);
    assert_eq!((samples[0].at, samples[0].events, samples[0].credits), (at(-60), 1, 0.0));
    assert_eq!(samples[1], minute);
    let shown = json!({
        "at": "2026-01-15T12:00:00.000Z", "span": 60, "events": 5, "rejections": 2, "recovered": 1, "delivered": 3, "failed": 3,
        "dead": 1, "backlog": 3, "oldest_seconds": 17, "median_ms": 2500, "p95_ms": 8000, "credits": 2.5
    });
    assert_eq!(serde_json::to_value(&samples[1]).unwrap(), shown);
    assert_eq!(database.store().series(Span::Minute, at(0)).await.unwrap(), [minute]);
    assert!(database.store().series(Span::Minute, at(1)).await.unwrap().is_empty());
    // After a restart as well.
    database.reopen().await;
    database.received("last", 100).await;
    assert!(database.sample(125).await);
    let last = database.series(Span::Minute).await.pop().unwrap();
    assert_eq!((last.events, last.rejections, last.recovered, last.delivered, last.failed), (2, 1, 0, 0, 0));
    assert_eq!((last.dead, last.median_ms, last.p95_ms, last.credits), (1, None, None, 0.0));
}

async fn a_minute_that_nobody_was_there_for_has_no_row(database: Database) {
    assert!(database.sample(MINUTE + 10).await);
    database.received("then", 100).await;
    // Nobody is there until the tenth minute.
    database.received("gap", 5 * MINUTE + 1).await;
    database.received("e1", 10 * MINUTE).await;
    database.received("e2", 10 * MINUTE + 59).await;
    database.received("next", 11 * MINUTE).await;
    assert!(database.sample(11 * MINUTE + 5).await);
    assert_eq!(database.numbers(Span::Minute, |sample| sample.events).await, [(0, 0), (10, 2)]);
    assert!(database.sample(12 * MINUTE + 5).await);
    assert_eq!(database.numbers(Span::Minute, |sample| sample.events).await, [(0, 0), (10, 2), (11, 1)]);
}

async fn what_was_accepted_late_counts_in_the_next_minute(database: Database) {
    database.received("e1", 10).await;
    assert!(database.sample(65).await);
    // It was received in the minute that was sampled, and kept afterwards.
    database.received("late", 59).await;
    database.received("e2", 70).await;
    assert!(database.sample(125).await);
    assert!(database.sample(185).await);
    assert_eq!(database.numbers(Span::Minute, |sample| sample.events).await, [(0, 1), (1, 2), (2, 0)]);
}

async fn a_clock_that_goes_back_makes_no_second_row(database: Database) {
    for minute in 0..5 {
        database.received(&format!("e{minute}"), minute * MINUTE).await;
        assert!(database.sample((minute + 1) * MINUTE + 5).await);
    }
    let before = database.series(Span::Minute).await;
    assert_eq!(before.len(), 5);
    // By three minutes.
    for minute in 2..5 {
        database.received(&format!("again{minute}"), minute * MINUTE).await;
        assert!(!database.sample((minute + 1) * MINUTE + 5).await);
        assert_eq!(database.series(Span::Minute).await, before);
    }
    database.received("e5", 5 * MINUTE).await;
    assert!(database.sample(6 * MINUTE + 5).await);
    assert_eq!(database.series(Span::Minute).await.len(), 6);
    // By a year: what was said of times to come goes, and so it goes on.
    let year = -365 * DAY;
    database.received("long ago", year).await;
    assert!(database.sample(year + 65).await);
    database.received("and then", year + 70).await;
    assert!(database.sample(year + 125).await);
    let counts: Vec<_> = database.series(Span::Minute).await.iter().map(|sample| (sample.at, sample.events)).collect();
    assert_eq!(counts, [(at(year), 1), (at(year + 60), 1)]);
    for extreme in [Timestamp::UNIX_EPOCH, at(100 * 365 * DAY)] {
        database.store().sample(extreme).await.unwrap();
    }
}

async fn an_hour_is_what_its_minutes_were(database: Database) {
    // Minutes 0 and 1 deliver in 1 s each, 30 in 9 s; then nobody is there until the next hour.
    for (number, minute) in [0, 1, 30].into_iter().enumerate() {
        let begin = minute * MINUTE;
        database.store().record_rejections(vec![rejection(begin)]).await.unwrap();
        database.delivered(&format!("e{minute}"), begin, if minute == 30 { 9000 } else { 1000 }).await;
        database.received(&format!("of {number}"), begin).await;
        database.hand_on(&["dead"], cost(&format!("of {number}"), 1.1), Vec::new(), begin).await;
        let job = database.claim_one(JobKind::Deliver, "dead", at(begin)).await;
        assert!(database.bury(job.lease, at(begin), "410").await);
        assert!(database.sample(begin + 65).await);
    }
    assert_eq!(database.series(Span::Hour).await, []);
    database.delivered("later", HOUR + MINUTE, 50).await;
    assert!(database.sample(HOUR + 2 * MINUTE + 5).await);
    let hour = Sample {
        at: at(0),
        span: Span::Hour,
        events: 6,
        rejections: 3,
        recovered: 0,
        delivered: 3,
        failed: 3,
        dead: 3,
        backlog: 0,
        oldest_seconds: 0,
        median_ms: Some(1000),
        p95_ms: Some(9000),
        credits: 2.2,
    };
    assert_eq!(database.series(Span::Hour).await, [hour]);
    // The last minute of an hour completes it.
    database.received("last", 2 * HOUR - 1).await;
    assert!(database.sample(2 * HOUR + 5).await);
    assert_eq!(database.numbers(Span::Hour, |sample| sample.events).await, [(0, 6), (60, 2)]);
    assert!(database.sample(2 * HOUR + 65).await);
    assert_eq!(database.series(Span::Hour).await.len(), 2);
}

async fn samples_go_when_they_are_old(database: Database) {
    let minutes = |samples: Vec<Sample>| samples.iter().map(|sample| sample.at).collect::<Vec<_>>();
    assert!(database.sample(HOUR + 5).await);
    let last = at(HOUR - MINUTE);
    assert_eq!(
        (minutes(database.series(Span::Minute).await), minutes(database.series(Span::Hour).await)),
        (vec![last], vec![at(0)])
    );
    // The minute began two days ago, and then longer.
    let two_days = HOUR - MINUTE + 2 * DAY;
    assert!(database.sample(two_days).await);
    assert_eq!(database.series(Span::Minute).await[0].at, last);
    assert!(database.sample(two_days + MINUTE).await);
    assert!(!minutes(database.series(Span::Minute).await).contains(&last));
    assert_eq!(database.series(Span::Hour).await[0].at, at(0));
    assert!(database.sample(62 * DAY + HOUR + 5).await);
    assert_eq!(minutes(database.series(Span::Hour).await), [at(2 * DAY), at(62 * DAY)]);
}

async fn what_is_due_longest_is_told_by_kind(database: Database) {
    let store = database.store();
    assert_eq!(store.due(at(0)).await.unwrap(), []);
    database.received("e1", 10).await;
    let prove = |seconds| Due { kind: "prove".into(), since: at(seconds) };
    assert_eq!(store.due(at(15)).await.unwrap(), [prove(10)], "it is not taken in yet");
    database.hand_on(&["crm", "log"], TaskNews::default(), Vec::new(), 20).await;
    let deliver = |seconds| Due { kind: "deliver".into(), since: at(seconds) };
    assert_eq!(store.due(at(25)).await.unwrap(), [deliver(20)]);
    let job = database.claim_one(JobKind::Deliver, "crm", at(26)).await;
    assert!(database.retry(job.lease, at(27), at(100), "503").await);
    // The other one waits for a person.
    store.pause("log", at(28)).await.unwrap();
    assert_eq!(store.due(at(99)).await.unwrap(), []);
    database.received("e2", 90).await;
    assert_eq!(store.due(at(130)).await.unwrap(), [deliver(100), prove(90)]);
    store.resume("log", at(129)).await.unwrap();
    assert_eq!(store.due(at(130)).await.unwrap(), [deliver(20), prove(90)]);
}

async fn what_there_is_of_each_source_is_counted(database: Database) {
    let store = database.store();
    assert_eq!((store.source_counts().await.unwrap(), store.accepted(at(0), at(0)).await.unwrap()), (vec![], vec![]));
    for (name, state) in [("e1", State::Waiting), ("e2", State::Running), ("e3", State::Finished)] {
        database.received(name, 10).await;
        let task = Task { id: name.to_owned(), state, credits: Some(1.5), updated_at: Some(at(20)), ..Task::default() };
        let fetched = Fetched { task, raw: "{}".to_owned(), ..Fetched::default() };
        let news = TaskNews { proof: Some("listed"), fetched: Some(Box::new(fetched)), ..TaskNews::default() };
        database.hand_on(&[], news, Vec::new(), 20).await;
    }
    // Nobody's so far; what the API told, and what is no event of a task, is no webhook.
    database.received("e4", 30).await;
    let other =
        |id: &str, seconds| NewEvent { source: "other".into(), received_at: at(seconds), ..event(id, None, &json!({"id": id})) };
    database.append(other("o1", 31)).await;
    database.append(NewEvent { verification: Verification::Api, ..other("o2", 32) }).await;
    database.append(NewEvent { ping: true, first: First::Keep, ..other("o3", 33) }).await;
    let of = |source: &str, seconds, open, waiting| SourceCounts {
        source: source.to_owned(),
        last_webhook_at: Some(at(seconds)),
        open,
        waiting,
    };
    assert_eq!(store.source_counts().await.unwrap(), [of("manus", 30, 2, 1), of("other", 31, 0, 0)]);
    let count = |source: &str, count| (source.to_owned(), count);
    assert_eq!(store.accepted(at(0), at(60)).await.unwrap(), [count("manus", 4), count("other", 3)]);
    assert_eq!(store.accepted(at(30), at(60)).await.unwrap(), [count("manus", 1), count("other", 3)]);
    assert_eq!(store.accepted(at(34), at(60)).await.unwrap(), []);
    let spent = |seconds| async move {
        let spent = store.spent_since(at(seconds)).await.unwrap();
        spent.into_iter().map(|(source, amounts)| (source, amounts.credits)).collect::<Vec<_>>()
    };
    // In quarters of an hour.
    assert_eq!(spent(899).await, [("manus".to_owned(), 4.5)]);
    assert_eq!(spent(900).await, []);
}

#[tokio::test]
async fn of_replicas_one_makes_the_row() {
    let database = Database::postgres().await;
    let other = database.try_open().await.unwrap();
    for minute in 1..20 {
        database.received(&format!("e{minute}"), minute * MINUTE - 1).await;
        let now = at(minute * MINUTE + 5);
        let (here, there) = tokio::join!(database.store().sample(now), other.sample(now));
        assert!(here.unwrap() != there.unwrap(), "{minute}");
    }
    let counts = database.numbers(Span::Minute, |sample| sample.events).await;
    assert_eq!(counts, (0..19).map(|minute| (minute, 1)).collect::<Vec<_>>());
}
