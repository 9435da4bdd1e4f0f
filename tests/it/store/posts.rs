//! Posts that are done once: whose turn it is, how one stands that was begun, and what is kept of it.

use taskhook::store::idempotency::{Begun, LARGEST, LONGEST, MOST, MOST_BYTES, NewPost, Post, Reply, Stands};
use taskhook::store::model::Proof;
use taskhook::store::upkeep::Erased;

use super::*;

contract!(
    a_key_is_begun_once_and_then_known,
    what_did_nothing_is_forgotten,
    of_many_at_once_one_begins,
    a_key_is_known_for_a_day,
    old_ones_are_removed_in_steps,
    a_large_answer_is_not_kept,
    the_oldest_answers_make_room_for_more,
    the_oldest_keys_make_room_for_more,
    an_answer_goes_with_its_task,
    what_is_answered_after_its_task_was_erased_is_not_kept,
    what_another_process_left_open_is_unknown,
);

/// The longest that a key is known.
const DAY: i64 = 86_400;

fn me(database: &Database) -> Uuid {
    database.store().replica().unwrap_or(Uuid::from_u128(1))
}

fn new(database: &Database, key: &str) -> NewPost {
    NewPost { id: Uuid::now_v7(), key: key.into(), request: "r".into(), holder: me(database), task: None }
}

fn reply(body: &str) -> Reply {
    Reply { status: 201, content_type: Some("application/json".into()), body: body.into() }
}

async fn stands(database: &Database, key: &str, seconds: i64) -> Option<Stands> {
    let post = database.store().post(key, me(database), at(seconds)).await.unwrap();
    post.map(|Post { stands, .. }| stands)
}

/// Begins a post, which must be new; our id.
async fn begin(database: &Database, post: NewPost, seconds: i64) -> Uuid {
    let id = post.id;
    assert_eq!(database.store().begin_post(post, at(seconds)).await.unwrap(), Begun::Yes);
    id
}

/// A post that was begun and answered.
async fn answered(database: &Database, key: &str, body: &str, seconds: i64) {
    let id = begin(database, new(database, key), seconds).await;
    database.store().end_post(id, reply(body), None, at(seconds)).await.unwrap();
}

/// Does what both databases understand.
async fn run(database: &Database, sql: &str) {
    match &database.place {
        Place::Folder(_) => database.connection().execute_batch(sql).unwrap(),
        Place::Server(schema) => schema.connect().await.batch_execute(sql).await.unwrap(),
    }
}

/// How many there are.
async fn count(database: &Database) -> i64 {
    let sql = "SELECT count(*) FROM posts";
    match &database.place {
        Place::Folder(_) => database.connection().query_row(sql, [], |row| row.get(0)).unwrap(),
        Place::Server(schema) => schema.connect().await.query_one(sql, &[]).await.unwrap().get(0),
    }
}

/// So many rows, `k1` the first, each with `columns` of these `values`.
async fn fill(database: &Database, rows: i64, columns: &str, values: &str) {
    let (id, id_of_holder) = match database.place {
        Place::Folder(_) => ("'i' || n", "'h'"),
        Place::Server(_) => ("gen_random_uuid()", "gen_random_uuid()"),
    };
    run(
        database,
        &format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) \
             INSERT INTO posts (id, key, request, holder, began_at, {columns}) \
             SELECT {id}, 'k' || n, 'r', {id_of_holder}, '2026-01-15T12:00:00.000Z', {values} FROM numbers ORDER BY n"
        ),
    )
    .await;
}

async fn a_key_is_begun_once_and_then_known(mut database: Database) {
    assert_eq!(stands(&database, "k", 0).await, None);
    let id = begin(&database, new(&database, "k"), 0).await;
    assert_eq!(stands(&database, "k", 1).await, Some(Stands::Here));
    let known = |stands| Begun::Known(Post { request: "r".into(), stands });
    let other = NewPost { request: "other".into(), ..new(&database, "k") };
    assert_eq!(database.store().begin_post(other, at(1)).await.unwrap(), known(Stands::Here), "as it was sent first");
    database.store().end_post(id, reply("{}"), None, at(2)).await.unwrap();
    let again = database.store().begin_post(new(&database, "k"), at(3)).await.unwrap();
    assert_eq!(again, known(Stands::Answered(reply("{}"))));
    begin(&database, new(&database, "other"), 3).await;
    // An end that comes twice, or of what never began, changes nothing that others see.
    database.store().end_post(Uuid::now_v7(), reply("nobody's"), None, at(4)).await.unwrap();
    database.store().undo_post(id).await.unwrap();
    database.reopen().await;
    assert_eq!(stands(&database, "k", 5).await, Some(Stands::Answered(reply("{}"))));
    let empty = Reply { status: 502, content_type: None, body: Vec::new() };
    let id = begin(&database, new(&database, "third"), 5).await;
    database.store().end_post(id, empty.clone(), None, at(5)).await.unwrap();
    assert_eq!(stands(&database, "third", 5).await, Some(Stands::Answered(empty)));
}

async fn what_did_nothing_is_forgotten(database: Database) {
    let id = begin(&database, new(&database, "k"), 0).await;
    database.store().undo_post(id).await.unwrap();
    assert_eq!((stands(&database, "k", 0).await, count(&database).await), (None, 0));
    begin(&database, new(&database, "k"), 0).await;
    database.store().undo_post(id).await.unwrap();
    assert_eq!(stands(&database, "k", 0).await, Some(Stands::Here), "what began since is another one");
}

async fn of_many_at_once_one_begins(database: Database) {
    for key in ["a", "b", "c"] {
        let begun =
            futures_util::future::join_all((0..12).map(|_| database.store().begin_post(new(&database, key), at(0)))).await;
        let yes = begun.iter().filter(|begun| matches!(begun, Ok(Begun::Yes))).count();
        let known = begun.iter().filter(|begun| matches!(begun, Ok(Begun::Known(Post { stands: Stands::Here, .. })))).count();
        assert_eq!((yes, known), (1, 11), "{begun:?}");
    }
}

async fn a_key_is_known_for_a_day(database: Database) {
    answered(&database, "k", "{}", 0).await;
    let open = begin(&database, new(&database, "open"), 0).await;
    assert!(matches!(stands(&database, "k", DAY - 1).await, Some(Stands::Answered(_))));
    assert_eq!((stands(&database, "k", DAY).await, stands(&database, "open", DAY).await), (None, None));
    begin(&database, new(&database, "k"), DAY).await;
    begin(&database, new(&database, "open"), DAY).await;
    // Whoever was so late writes into nobody else's row.
    database.store().end_post(open, reply("late"), None, at(DAY)).await.unwrap();
    assert_eq!(stands(&database, "open", DAY).await, Some(Stands::Here));
    assert_eq!(count(&database).await, 2);
}

async fn old_ones_are_removed_in_steps(database: Database) {
    fill(&database, 40, "status", "200").await;
    answered(&database, "young", "{}", 1).await;
    assert!(!database.store().forget_posts(at(DAY - 1)).await.unwrap());
    assert_eq!(count(&database).await, 41);
    assert!(database.store().forget_posts(at(DAY)).await.unwrap());
    assert!(!database.store().forget_posts(at(DAY)).await.unwrap());
    assert_eq!(count(&database).await, 1);
    assert!(stands(&database, "young", DAY).await.is_some());
}

async fn a_large_answer_is_not_kept(database: Database) {
    answered(&database, "most", &"x".repeat(LARGEST), 0).await;
    answered(&database, "more", &"x".repeat(LARGEST + 1), 0).await;
    assert!(matches!(stands(&database, "most", 0).await, Some(Stands::Answered(reply)) if reply.body.len() == LARGEST));
    assert_eq!(stands(&database, "more", 0).await, Some(Stands::Done(201)));
}

async fn the_oldest_answers_make_room_for_more(database: Database) {
    let body = match database.place {
        Place::Folder(_) => "CAST(zeroblob(65536) AS BLOB)",
        Place::Server(_) => "convert_to(repeat('x', 65536), 'UTF8')",
    };
    let full = MOST_BYTES / 65_536;
    let columns = "ended_at, status, bytes, body";
    fill(&database, full, columns, &format!("'2026-01-15T12:00:00.000Z', 200, 65536, {body}")).await;
    // Nothing has to go for what takes nothing.
    answered(&database, "empty", "", 1).await;
    assert!(matches!(stands(&database, "k1", 1).await, Some(Stands::Answered(_))));
    answered(&database, "small", "{}", 1).await;
    assert_eq!(stands(&database, "k1", 1).await, Some(Stands::Done(200)), "it is known that it was done");
    assert!(matches!(stands(&database, "k2", 1).await, Some(Stands::Answered(_))));
    answered(&database, "large", &"x".repeat(LARGEST), 1).await;
    answered(&database, "larger", &"x".repeat(LARGEST), 1).await;
    for (key, kept) in [("k2", false), ("k3", false), ("k4", true), ("empty", true), ("small", true), ("larger", true)] {
        assert_eq!(matches!(stands(&database, key, 1).await, Some(Stands::Answered(_))), kept, "{key}");
    }
    assert_eq!(count(&database).await, full + 4);
}

async fn the_oldest_keys_make_room_for_more(database: Database) {
    // The first is at work, the second has ended, and so on.
    let ended = "CASE WHEN n % 2 = 0 AND n < 9 THEN '2026-01-15T12:00:00.000Z' END";
    let ended = match database.place {
        Place::Folder(_) => ended.to_owned(),
        Place::Server(_) => format!("({ended})::timestamptz"),
    };
    fill(&database, MOST, "ended_at", &ended).await;
    for (number, gone) in [(2, "k2"), (3, "k4"), (4, "k6"), (5, "k8")] {
        assert!(stands(&database, gone, 1).await.is_some());
        begin(&database, new(&database, &format!("new{number}")), 1).await;
        assert_eq!((stands(&database, gone, 1).await, count(&database).await), (None, MOST), "{gone}");
        assert!(stands(&database, "k1", 1).await.is_some());
    }
    assert_eq!(database.store().begin_post(new(&database, "one too many"), at(1)).await.unwrap(), Begun::Full);
    let known = database.store().begin_post(new(&database, "new5"), at(1)).await.unwrap();
    assert!(matches!(known, Begun::Known(_)), "what is known needs no room");
    assert_eq!(count(&database).await, MOST);
    // What is old makes room, however it stands.
    begin(&database, new(&database, "a day later"), DAY).await;
}

/// A store that knows the task `t1`.
async fn knowing(database: &Database) {
    let proof = Proof { task_id: "t1".into(), how: "created", title: None, url: None };
    database.store().record_proofs("manus", vec![proof], at(0)).await.unwrap();
}

fn task(id: &str) -> (String, String) {
    ("manus".to_owned(), id.to_owned())
}

async fn an_answer_goes_with_its_task(database: Database) {
    knowing(&database).await;
    let by_path = begin(&database, NewPost { task: Some(task("t1")), ..new(&database, "path") }, 1).await;
    database.store().end_post(by_path, reply("of t1"), None, at(1)).await.unwrap();
    for (key, id) in [("answer", "t1"), ("other", "t2")] {
        let begun = begin(&database, new(&database, key), 1).await;
        database.store().end_post(begun, reply(id), Some(task(id)), at(1)).await.unwrap();
    }
    assert_eq!(database.store().erase("manus", "t1", at(2)).await.unwrap(), Erased::Yes);
    for key in ["path", "answer"] {
        assert_eq!(stands(&database, key, 2).await, Some(Stands::Done(201)), "{key}");
    }
    assert_eq!(stands(&database, "other", 2).await, Some(Stands::Answered(reply("t2"))));
}

async fn what_is_answered_after_its_task_was_erased_is_not_kept(database: Database) {
    knowing(&database).await;
    let slow = begin(&database, NewPost { task: Some(task("t1")), ..new(&database, "slow") }, 1).await;
    let late = begin(&database, new(&database, "late"), 1).await;
    assert_eq!(database.store().erase("manus", "t1", at(1)).await.unwrap(), Erased::Yes);
    database.store().end_post(slow, reply("of t1"), None, at(2)).await.unwrap();
    database.store().end_post(late, reply("of t1"), Some(task("t1")), at(2)).await.unwrap();
    for key in ["slow", "late"] {
        assert_eq!(stands(&database, key, 2).await, Some(Stands::Done(201)), "{key}");
    }
    // What comes of it later is another task's.
    let begun = begin(&database, NewPost { task: Some(task("t1")), ..new(&database, "new") }, 3).await;
    database.store().end_post(begun, reply("of a new t1"), None, at(3)).await.unwrap();
    assert_eq!(stands(&database, "new", 3).await, Some(Stands::Answered(reply("of a new t1"))));
}

async fn what_another_process_left_open_is_unknown(mut database: Database) {
    let open = NewPost { holder: database.store().replica().unwrap_or(Uuid::from_u128(2)), ..new(&database, "open") };
    begin(&database, open, 0).await;
    database.reopen().await;
    assert_eq!(stands(&database, "open", 1).await, Some(Stands::Unknown));
    let again = database.store().begin_post(new(&database, "open"), at(1)).await.unwrap();
    assert_eq!(again, Begun::Known(Post { request: "r".into(), stands: Stands::Unknown }));
}

#[tokio::test]
async fn what_another_replica_is_at_is_in_hand_as_long_as_that_lives_and_no_longer_than_it_takes() {
    let database = Database::postgres().await;
    let other = database.try_open().await.unwrap();
    let theirs = NewPost { holder: other.replica().unwrap(), ..new(&database, "theirs") };
    begin(&database, theirs, 0).await;
    let gone = NewPost { holder: Uuid::now_v7(), ..new(&database, "gone") };
    begin(&database, gone, 0).await;
    assert_eq!(stands(&database, "theirs", 1).await, Some(Stands::Elsewhere));
    assert_eq!(
        stands(&database, "gone", 1).await,
        Some(Stands::Elsewhere),
        "who was not seen itself cannot say that another is gone"
    );
    outlive(database.schema(), database.store()).await;
    assert_eq!(stands(&database, "gone", 1).await, Some(Stands::Unknown));
    // The other one's sign of life was taken back as well, until it gives the next.
    within("a sign of life", async {
        while stands(&database, "theirs", 1).await != Some(Stands::Elsewhere) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let longest = i64::try_from(LONGEST.as_secs()).unwrap();
    assert_eq!(stands(&database, "theirs", longest - 1).await, Some(Stands::Elsewhere));
    assert_eq!(stands(&database, "theirs", longest).await, Some(Stands::Unknown));
    let their_own = other.post("theirs", other.replica().unwrap(), at(longest)).await.unwrap().unwrap();
    assert_eq!(their_own.stands, Stands::Here, "itself it knows");
}
