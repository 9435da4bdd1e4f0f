//! How much is kept at most, and what is done where that is not enough.

use taskhook::store::idempotency::{LARGEST, MOST};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

/// Puts rows into the store of a program, while it is stopped.
async fn beside(harness: &mut Harness, sql: &str) {
    harness.stop().await;
    within("the store is let go", async {
        while rusqlite::Connection::open(harness.database()).unwrap().execute_batch(sql).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    harness.start().await;
}

#[tokio::test]
async fn where_no_key_can_go_nothing_is_done() {
    let mut harness = new("").start().await;
    let fill = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MOST}) \
         INSERT INTO posts (id, key, request, holder, began_at) \
         SELECT 'i' || n, 'k' || n, 'r', 'h', '2026-01-15T12:00:00.000Z' FROM numbers"
    );
    beside(&mut harness, &fill).await;
    refused(&post(&harness, CREATE, "k", &wish()).await, (503, "too_many"));
    assert_eq!((creations(&harness), rows(&harness)), (0, MOST));
    assert!(!created(&harness.admin_post(CREATE, &wish()).await).1, "without a key it is done");
    // What has ended makes room.
    beside(&mut harness, "UPDATE posts SET ended_at = began_at, status = 200 WHERE key = 'k7'").await;
    assert!(!created(&post(&harness, CREATE, "k", &wish()).await).1);
    assert!(created(&post(&harness, CREATE, "k", &wish()).await).1);
    assert_eq!((creations(&harness), rows(&harness)), (2, MOST));
}

#[tokio::test]
async fn an_answer_that_is_not_kept_is_known_to_have_been_given() {
    let mut harness = new("").start().await;
    created(&post(&harness, CREATE, "k", &wish()).await);
    beside(&mut harness, "UPDATE posts SET body = NULL, bytes = 0").await;
    refused(&post(&harness, CREATE, "k", &wish()).await, (409, "answer_not_kept"));
    assert_eq!(creations(&harness), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_given_once() {
    let provider = MockServer::start().await;
    let task = json!({"ok": true, "task_id": "t1", "task_title": "x".repeat(LARGEST), "task_url": "https://manus.im/app/t1"});
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(task)).mount(&provider).await;
    let source = format!("[sources.manus]\nbase_url = \"{}\"\nverify = \"none\"\n", provider.uri());
    let harness = new(&source).without_keys().start().await;
    let first = post(&harness, CREATE, "k", &wish()).await;
    assert_eq!((created(&first), first.body.len() > LARGEST), (("t1".to_owned(), false), true));
    refused(&post(&harness, CREATE, "k", &wish()).await, (409, "answer_not_kept"));
    let calls = provider.received_requests().await.unwrap();
    assert_eq!(calls.iter().filter(|call| call.url.path().contains("task.create")).count(), 1);
}

#[tokio::test]
async fn a_post_may_be_as_large_with_a_key_as_without() {
    let harness = new("").start().await;
    let prompt = |bytes: usize| json!({"source": "nobody", "prompt": "x".repeat(bytes)});
    for (path, bytes) in
        [(CREATE, 3 << 20), (CREATE, 29 << 20), ("/api/v1/tasks/track", 3 << 20), ("/api/v1/tasks/track", 1 << 20)]
    {
        let (with, without) = (post(&harness, path, "k", &prompt(bytes)).await, harness.admin_post(path, &prompt(bytes)).await);
        assert_eq!(status(&with), status(&without), "{path} {bytes}");
    }
    assert_eq!((creations(&harness), rows(&harness)), (0, 0));
}
