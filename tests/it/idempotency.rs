//! Posts with an `Idempotency-Key`, from outside: done once, whoever hangs up, comes twice, or is killed.

mod bounds;
#[cfg(target_os = "linux")]
mod killed;

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use taskhook::clock::Clock;
use taskhook::http::Answer;
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, Faults, WrongAnswer};

use crate::harness::postgres::Schema;
use crate::harness::{Harness, Setup, Wire, code, json as body_of, send, status, within};
use crate::work::calls;

/// What creates tasks.
const CREATE: &str = "/api/v1/tasks";

/// A task to be created.
fn wish() -> Value {
    json!({"source": "manus", "prompt": "What is 2 + 2?"})
}

/// Programs of one store each, on both kinds of database.
async fn both(config: &str) -> Vec<(Harness, Option<Schema>)> {
    let schema = Schema::new();
    let server = new(config).config(&on(&schema)).start().await;
    vec![(new(config).start().await, None), (server, Some(schema))]
}

fn new(config: &str) -> Setup {
    Setup::new().simulator(|options| options.limits = None).config(config)
}

/// The configuration of a store in `schema`.
fn on(schema: &Schema) -> String {
    let config = schema.config();
    format!("[store]\nurl = \"{}\"\nschema = \"{}\"\nmax_connections = 6\n", config.url.expose(), config.schema)
}

/// Stops in order, before its schema goes.
async fn end(mut harness: Harness) {
    harness.stop().await;
}

async fn post(harness: &Harness, path: &str, key: &str, body: &Value) -> Answer {
    send(harness.admin_request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

/// The task that was created; whether it was said before.
#[track_caller]
fn created(answer: &Answer) -> (String, bool) {
    let body = body_of(answer);
    assert_eq!((status(answer), answer.header("content-type")), (201, Some("application/json")), "{body}");
    let replayed = answer.header("idempotent-replayed");
    assert!(matches!(replayed, None | Some("true")), "{replayed:?}");
    (body["task_id"].as_str().expect("an id").to_owned(), replayed.is_some())
}

#[track_caller]
fn refused(answer: &Answer, expected: (u16, &str)) {
    assert_eq!((status(answer), code(answer).as_str(), answer.header("idempotent-replayed")), (expected.0, expected.1, None));
    assert_eq!(answer.header("retry-after"), (expected.1 == "in_flight").then_some("1"));
}

/// How often the provider was asked to create a task.
fn creations(harness: &Harness) -> usize {
    calls(harness, "task.create")
}

/// The rows of the table, in a file.
fn rows(harness: &Harness) -> i64 {
    let connection = rusqlite::Connection::open(harness.database()).unwrap();
    connection.query_row("SELECT count(*) FROM posts", [], |row| row.get(0)).unwrap()
}

/// From now on the provider takes a second of the clock to create a task.
fn slow(harness: &Harness) {
    let slow = ApiFault { only: Some("task.create".to_owned()), times: Times::Always, slow_ms: 1000, answer: None };
    harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
}

/// Lets time pass while `work` is done.
async fn passing<T>(clock: Clock, work: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            clock.advance(SignedDuration::from_millis(20));
        }
    };
    tokio::select! {
        done = within("what takes its time", work) => done,
        () = time => unreachable!("time does not end"),
    }
}

/// Asks until what was sent with `key` is not in hand any more.
async fn settled(harness: &Harness, key: &str) -> Answer {
    within("an answer", async {
        loop {
            let answer = post(harness, CREATE, key, &wish()).await;
            if status(&answer) != 409 || code(&answer) != "in_flight" {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Sends a post and waits until it is in hand; then hangs up.
async fn hang_up(harness: &Harness, key: &str) {
    let body = wish().to_string();
    let post_wish = format!(
        "POST {CREATE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n\
         {body}",
        body.len()
    );
    let mut wires = Vec::new();
    within("the post is in hand", async {
        loop {
            // It is refused if it comes while the other one below is looked at; another time it is just the same.
            let mut wire = Wire::open(harness.app().admin).await;
            wire.send(&post_wish).await;
            wires.push(wire);
            // Something else under the same key: it is refused by its source, which frees the key, if it comes first.
            let other = json!({"source": "nobody", "prompt": "x"});
            if code(&post(harness, CREATE, key, &other).await) == "idempotency_key_reused" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(wires);
    // It is noticed.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn what_is_sent_again_is_answered_again_and_not_done_again() {
    for (mut harness, _schema) in both("").await {
        let first = post(&harness, CREATE, "k-1", &wish()).await;
        let (task, replayed) = created(&first);
        assert!(!replayed);
        for key in ["k-1", "\"k-1\"", "k-1"] {
            let again = post(&harness, CREATE, key, &wish()).await;
            assert_eq!((created(&again), &again.body), ((task.clone(), true), &first.body), "{key}");
        }
        assert_eq!(creations(&harness), 1);
        harness.restart().await;
        let again = post(&harness, CREATE, "k-1", &wish()).await;
        assert_eq!((created(&again), &again.body, creations(&harness)), ((task.clone(), true), &first.body, 1));
        let (other, replayed) = created(&post(&harness, CREATE, "K-1", &wish()).await);
        assert!(other != task && !replayed, "a key is told apart by its case");
        assert_eq!(creations(&harness), 2);
        end(harness).await;
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_other_than_it_was() {
    let harness = new("").start().await;
    let tasks =
        [harness.admin_post(CREATE, &wish()).await, harness.admin_post(CREATE, &wish()).await].map(|answer| created(&answer));
    assert!(tasks[0].0 != tasks[1].0 && !tasks[0].1 && !tasks[1].1);
    // Neither what reads, nor what can be done twice by nature, takes note of one.
    for (method, path) in
        [(Method::GET, "/api/v1/tasks"), (Method::DELETE, "/api/v1/public_urls/019bc185-0000-7000-8000-000000000001")]
    {
        let answer = send(harness.admin_request(method, path).header("idempotency-key", "not a key")).await;
        assert!(status(&answer) < 300 || status(&answer) == 404, "{path}: {}", status(&answer));
    }
    assert_eq!((creations(&harness), rows(&harness)), (2, 0));
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    for (harness, _schema) in both("").await {
        let (task, _) = created(&post(&harness, CREATE, "k", &wish()).await);
        let with = |name: &str, value: Value| {
            let mut body = wish();
            body[name] = value;
            body
        };
        for (path, body) in [
            (CREATE, with("prompt", json!("What is 2 + 3?"))),
            (CREATE, with("interactive", json!(false))),
            ("/api/v1/tasks?x=1", wish()),
            ("/api/v1/tasks/track", wish()),
            (&format!("/api/v1/tasks/manus/{task}/stop"), json!({})),
        ] {
            refused(&post(&harness, path, "k", &body).await, (422, "idempotency_key_reused"));
        }
        assert_eq!((creations(&harness), calls(&harness, "stop")), (1, 0));
        assert_eq!(created(&post(&harness, CREATE, "k", &wish()).await), (task, true), "and it still stands for it");
        end(harness).await;
    }
}

#[tokio::test]
async fn what_was_refused_frees_its_key() {
    for (harness, schema) in both("").await {
        for (path, body, expected) in [
            (CREATE, json!({"prompt": 7}), 400),
            (CREATE, json!({"source": "nobody", "prompt": "x"}), 404),
            ("/api/v1/tasks/track", json!({}), 400),
            ("/api/v1/deliveries/019bc185-0000-7000-8000-000000000001/retry", json!({}), 404),
            ("/api/v1/events/replay", json!({"filter": {}}), 400),
            ("/api/v1/nothing", json!({}), 404),
            ("/api/v1/stats", json!({}), 405),
        ] {
            let answer = post(&harness, path, "k", &body).await;
            assert_eq!((status(&answer), answer.header("idempotent-replayed")), (expected, None), "{path}");
            if schema.is_none() {
                assert_eq!(rows(&harness), 0, "{path}");
            }
        }
        assert_eq!(creations(&harness), 0);
        assert!(!created(&post(&harness, CREATE, "k", &wish()).await).1);
        end(harness).await;
    }
}

#[tokio::test]
async fn what_failed_may_have_been_done_and_is_told_again() {
    for wrong in [WrongAnswer::Lost, WrongAnswer::Refuse { status: 503, retry_after: None }] {
        let harness = new("").start().await;
        harness.manus.set_faults(Faults { api: vec![ApiFault::on("task.create", Times::Next(1), wrong)], ..Faults::default() });
        let first = post(&harness, CREATE, "k", &wish()).await;
        assert_eq!((status(&first), creations(&harness)), (502, 1));
        let again = post(&harness, CREATE, "k", &wish()).await;
        assert_eq!((status(&again), again.header("content-type")), (502, Some("application/problem+json")));
        assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
        assert_eq!(creations(&harness), 1);
        assert!(!created(&post(&harness, CREATE, "k2", &wish()).await).1, "a new key does it");
    }
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_nothing_is_done() {
    let harness = new("").start().await;
    let long = "x".repeat(256);
    for key in ["", "\"\"", "two words", "\"k", "\"k\";a=1", "k\tk", &long] {
        refused(&post(&harness, CREATE, key, &wish()).await, (400, "idempotency_key_invalid"));
    }
    let twice = harness.admin_request(Method::POST, CREATE).header("idempotency-key", "a").header("idempotency-key", "a");
    refused(&send(twice.json(&wish())).await, (400, "idempotency_key_invalid"));
    assert_eq!((creations(&harness), rows(&harness)), (0, 0));
    assert!(!created(&post(&harness, CREATE, &long[1..], &wish()).await).1);
}

#[tokio::test]
async fn of_many_at_once_one_is_done() {
    for (harness, _schema) in both("").await {
        slow(&harness);
        let keys = ["a", "b", "c"];
        let wish = wish();
        let (at, wish) = (&harness, &wish);
        let sent = keys.iter().flat_map(|key| (0..8).map(move |_| post(at, CREATE, key, wish)));
        let answers = passing(harness.clock.clone(), futures_util::future::join_all(sent)).await;
        for (key, answers) in keys.iter().zip(answers.chunks(8)) {
            let done: Vec<_> = answers.iter().filter(|answer| status(answer) == 201).map(created).collect();
            assert_eq!(done.iter().filter(|(_, replayed)| !replayed).count(), 1, "{key}: {done:?}");
            for answer in answers.iter().filter(|answer| status(answer) != 201) {
                refused(answer, (409, "in_flight"));
            }
            assert_eq!(created(&post(&harness, CREATE, key, wish).await), (done[0].0.clone(), true));
        }
        assert_eq!(creations(&harness), keys.len());
        end(harness).await;
    }
}

#[tokio::test]
async fn who_hangs_up_has_it_done_all_the_same_and_is_told_later() {
    for (harness, _schema) in both("").await {
        slow(&harness);
        hang_up(&harness, "k").await;
        refused(&post(&harness, CREATE, "k", &wish()).await, (409, "in_flight"));
        let (task, replayed) = created(&passing(harness.clock.clone(), settled(&harness, "k")).await);
        assert!(replayed);
        assert_eq!((creations(&harness), created(&post(&harness, CREATE, "k", &wish()).await)), (1, (task, true)));
        end(harness).await;
    }
}

#[tokio::test]
async fn whenever_they_hang_up_each_is_done_once() {
    for (harness, _schema) in both("").await {
        let slow = ApiFault { only: Some("task.create".to_owned()), times: Times::Always, slow_ms: 60, answer: None };
        harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
        let keys: Vec<String> = (0..24).map(|number| format!("key-{number}")).collect();
        let (admin, body) = (harness.app().admin, wish().to_string());
        let cut = async |key: &str, number: u64| {
            let mut wire = Wire::open(admin).await;
            let head = format!(
                "POST {CREATE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            // Some in the midst of what they say, the others at any moment after it.
            let said = if number.is_multiple_of(5) { &body[..10] } else { &body };
            wire.send(format!("{head}{said}")).await;
            tokio::time::sleep(Duration::from_micros(number * 400)).await;
        };
        let (keys_of, cut) = (&keys, &cut);
        let all = (0..3).flat_map(|time| (0_u64..).zip(keys_of).map(move |(number, key)| cut(key, number + time * 7)));
        passing(harness.clock.clone(), futures_util::future::join_all(all)).await;
        for key in &keys {
            created(&passing(harness.clock.clone(), settled(&harness, key)).await);
        }
        assert_eq!(creations(&harness), keys.len());
        end(harness).await;
    }
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_begun_and_what_was_begun_is_unknown() {
    let schema = Schema::new();
    let harness = new("").config(&on(&schema)).start().await;
    let beside = schema.connect().await;
    beside.batch_execute("ALTER TABLE posts RENAME TO away").await.unwrap();
    refused(&post(&harness, CREATE, "k", &wish()).await, (503, "store_unavailable"));
    assert_eq!(creations(&harness), 0);
    beside.batch_execute("ALTER TABLE away RENAME TO posts").await.unwrap();
    slow(&harness);
    let wish = wish();
    let (first, ()) = passing(harness.clock.clone(), async {
        tokio::join!(post(&harness, CREATE, "k", &wish), async {
            let begun = "SELECT count(*) FROM posts";
            while beside.query_one(begun, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            beside.batch_execute("ALTER TABLE posts RENAME TO away").await.unwrap();
        })
    })
    .await;
    assert!(!created(&first).1, "who waits for it is told all the same");
    beside.batch_execute("ALTER TABLE away RENAME TO posts").await.unwrap();
    for _ in 0..2 {
        refused(&post(&harness, CREATE, "k", &wish).await, (409, "outcome_unknown"));
    }
    assert_eq!(creations(&harness), 1);
    end(harness).await;
}

#[tokio::test]
async fn a_stop_in_order_waits_for_what_nobody_waits_for() {
    for (mut harness, _schema) in both("").await {
        slow(&harness);
        hang_up(&harness, "k").await;
        assert_eq!(creations(&harness), 0);
        passing(harness.clock.clone(), harness.stop()).await;
        assert_eq!(creations(&harness), 1);
        harness.start().await;
        assert!(created(&post(&harness, CREATE, "k", &wish()).await).1);
        assert_eq!(creations(&harness), 1);
        end(harness).await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_whole_is_not_done() {
    let harness = new("").start().await;
    let mut wire = Wire::open(harness.app().admin).await;
    wire.send(format!(
        "POST {CREATE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nidempotency-key: k\r\ncontent-length: 1000\r\n\r\n{{"
    ))
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(wire);
    assert!(!created(&post(&harness, CREATE, "k", &wish()).await).1);
    assert_eq!(creations(&harness), 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    for (mut harness, _schema) in both("").await {
        let (task, _) = created(&post(&harness, CREATE, "k", &wish()).await);
        harness.clock.advance(SignedDuration::from_secs(86_399));
        harness.keep_up().await;
        assert_eq!(created(&post(&harness, CREATE, "k", &wish()).await), (task.clone(), true));
        harness.clock.advance(SignedDuration::from_secs(1));
        let (other, replayed) = created(&post(&harness, CREATE, "k", &json!({"prompt": "Something else."})).await);
        assert!(other != task && !replayed && creations(&harness) == 2);
        harness.clock.advance(SignedDuration::from_secs(86_400));
        harness.keep_up().await;
        assert!(harness.store().begin_post(open("k"), harness.clock.now()).await.is_ok());
        end(harness).await;
    }
}

/// A post that another process began.
fn open(key: &str) -> taskhook::store::idempotency::NewPost {
    let (id, holder) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    taskhook::store::idempotency::NewPost { id, key: key.to_owned(), request: String::new(), holder, task: None }
}

#[tokio::test]
async fn upkeep_removes_what_is_older_than_a_day() {
    let mut harness = new("").start().await;
    for number in 0..40 {
        harness.store().begin_post(open(&number.to_string()), harness.clock.now()).await.unwrap();
    }
    harness.clock.advance(SignedDuration::from_secs(1));
    created(&post(&harness, CREATE, "k", &wish()).await);
    harness.clock.advance(SignedDuration::from_secs(86_399));
    harness.keep_up().await;
    assert_eq!(rows(&harness), 1);
    assert!(created(&post(&harness, CREATE, "k", &wish()).await).1);
}

#[tokio::test]
async fn an_erased_task_takes_its_answers_along() {
    for (harness, schema) in both("").await {
        let (task, _) = created(&post(&harness, CREATE, "made", &wish()).await);
        let (other, _) = created(&post(&harness, CREATE, "other", &wish()).await);
        let stop = format!("/api/v1/tasks/-/{task}/stop");
        let stopped = post(&harness, &stop, "stopped", &json!({})).await;
        assert_eq!(status(&stopped), 200);
        let erase = format!("/api/v1/tasks/manus/{task}/erase");
        assert_eq!(status(&post(&harness, &erase, "counted", &json!({"dry_run": true})).await), 200);
        assert_eq!(
            post(&harness, &erase, "counted", &json!({"dry_run": true})).await.header("idempotent-replayed"),
            Some("true")
        );
        let erased = post(&harness, &erase, "erased", &json!({})).await;
        assert_eq!((status(&erased), &body_of(&erased)["erased"]), (200, &json!(true)));
        for (path, key, body) in [
            (CREATE, "made", wish()),
            (&stop, "stopped", json!({})),
            (&erase, "counted", json!({"dry_run": true})),
            (&erase, "erased", json!({})),
        ] {
            refused(&post(&harness, path, key, &body).await, (409, "answer_not_kept"));
        }
        assert_eq!(created(&post(&harness, CREATE, "other", &wish()).await), (other, true));
        assert_eq!((creations(&harness), calls(&harness, "task.stop")), (2, 1));
        // Nor is it anywhere else.
        match schema {
            Some(schema) => {
                let found = "SELECT count(*) FROM posts WHERE posts::text LIKE '%' || $1 || '%' OR \
                             position(convert_to($1, 'UTF8') IN coalesce(body, '')) > 0";
                assert_eq!(schema.connect().await.query_one(found, &[&task]).await.unwrap().get::<_, i64>(0), 0);
            }
            None => {
                for file in std::fs::read_dir(harness.folder()).unwrap() {
                    let path = file.unwrap().path();
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    assert!(!bytes.windows(task.len()).any(|part| part == task.as_bytes()), "{}", path.display());
                }
            }
        }
        end(harness).await;
    }
}

#[tokio::test]
async fn who_may_not_act_learns_nothing_of_a_key() {
    const KEY_OF_OURS: &str = "a-key-that-nothing-else-holds";
    let harness = new("[admin]\ntoken = \"t0k3n-act\"\nread_token = \"t0k3n-read\"\n").start().await;
    let ask = async |token: Option<&str>, key: &str| {
        let request = harness.admin_request(Method::POST, CREATE).header("idempotency-key", key).json(&wish());
        send(token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth)).await
    };
    for key in [KEY_OF_OURS, "no key"] {
        refused(&ask(None, key).await, (401, "token_invalid"));
        refused(&ask(Some("wrong"), key).await, (401, "token_invalid"));
        refused(&ask(Some("t0k3n-read"), key).await, (403, "scope_missing"));
    }
    assert_eq!((creations(&harness), rows(&harness)), (0, 0));
    assert!(!created(&ask(Some("t0k3n-act"), KEY_OF_OURS).await).1);
    refused(&ask(None, KEY_OF_OURS).await, (401, "token_invalid"));
    refused(&ask(Some("t0k3n-read"), KEY_OF_OURS).await, (403, "scope_missing"));
    assert!(created(&ask(Some("t0k3n-act"), KEY_OF_OURS).await).1);
    // Not even who reads the file does.
    let bytes = std::fs::read(harness.database()).unwrap();
    let log = std::fs::read(harness.folder().join("taskhook.db-wal")).unwrap_or_default();
    for secret in [KEY_OF_OURS, "t0k3n-act"] {
        assert!(![&bytes, &log].iter().any(|held| held.windows(secret.len()).any(|part| part == secret.as_bytes())), "{secret}");
    }
}

#[tokio::test]
async fn the_description_says_what_may_come_with_a_key() {
    let harness = new("").start().await;
    let description = harness.admin("/api/v1/openapi.json").await;
    let mut posts = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let key = parameters.iter().find(|parameter| parameter["name"] == "Idempotency-Key");
            assert_eq!(key.is_some(), method == "post", "{method} {path}");
            let Some(key) = key else { continue };
            assert_eq!((&key["in"], &key["required"]), (&json!("header"), &json!(false)), "{path}");
            for code in ["400", "409", "422", "503"] {
                assert!(operation["responses"][code].is_object(), "{path} {code}");
            }
            posts += 1;
        }
    }
    assert!(posts > 10, "{posts}");
}

#[tokio::test]
async fn replicas_know_of_each_other_what_is_in_hand() {
    let schema = Schema::new();
    let one = new("").config(&on(&schema)).start().await;
    let provider = format!("[sources.manus]\nbase_url = \"{}\"\n", one.manus.base_url());
    let two = new(&provider).config(&on(&schema)).start().await;
    slow(&one);
    hang_up(&one, "k").await;
    refused(&post(&two, CREATE, "k", &wish()).await, (409, "in_flight"));
    refused(&post(&two, CREATE, "k", &json!({"prompt": "x"})).await, (422, "idempotency_key_reused"));
    let (task, replayed) = created(&passing(one.clock.clone(), settled(&two, "k")).await);
    assert!(replayed);
    assert_eq!((created(&post(&one, CREATE, "k", &wish()).await), creations(&one)), ((task, true), 1));
    // All at once, at both.
    let keys: Vec<String> = (0..6).map(|number| format!("many-{number}")).collect();
    let wish = wish();
    let sent = keys.iter().flat_map(|key| [&one, &two, &two, &one].map(|replica| post(replica, CREATE, key, &wish)));
    let answers = passing(one.clock.clone(), futures_util::future::join_all(sent)).await;
    for (key, answers) in keys.iter().zip(answers.chunks(4)) {
        let done = answers.iter().filter(|answer| status(answer) == 201 && !created(answer).1).count();
        assert_eq!(done, 1, "{key}: {:?}", answers.iter().map(status).collect::<Vec<_>>());
        assert_eq!(post(&one, CREATE, key, &wish).await.body, post(&two, CREATE, key, &wish).await.body);
    }
    assert_eq!(creations(&one), 1 + keys.len());
    end(two).await;
    end(one).await;
}
