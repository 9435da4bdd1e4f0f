//! Opening a store on a PostgreSQL server: who may, and which schemas are left alone.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::harness::postgres;

/// What a refusal says, and what it says to do.
async fn refusal(config: &Config) -> (String, String) {
    let error = Store::open(config, Clock::manual(at(0))).await.expect_err("it must be refused");
    let hint = error.hint().expect("there is something to do").to_owned();
    (error.to_string(), hint)
}

/// The server's URL with another user, port or database in it.
fn url(change: impl FnOnce(&mut url::Url)) -> String {
    let mut url: url::Url = postgres::server().parse().unwrap();
    url.set_query(Some("sslmode=disable"));
    change(&mut url);
    url.into()
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_without_a_password() {
    let url = url(|url| {
        url.set_port(Some(1)).unwrap();
        url.set_password(Some("s3cret")).unwrap();
    });
    let config = Config::new(url);
    let (problem, hint) = refusal(&config).await;
    assert!(problem.starts_with("cannot use the store postgres://") && problem.contains(":1/"), "{problem}");
    assert!(hint.contains("is PostgreSQL running"), "{hint}");
    let peeked = Store::peek_instance_id(&config).unwrap_err().to_string();
    assert!(![&problem, &hint, &peeked].into_iter().any(|text| text.contains("s3cret")), "{problem} {hint} {peeked}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_refused() {
    let (problem, hint) = refusal(&Config::new(url(|url| url.set_path("/taskhook_test_nowhere")))).await;
    assert!(problem.contains("taskhook_test_nowhere") && hint.contains("make the database"), "{problem} {hint}");
}

#[tokio::test]
async fn addresses_that_name_no_database_are_refused() {
    for address in [
        "postgres://",
        "postgres://u:s3cret@db",
        "postgres://u:s3cret@db/x?sslmode=maybe",
        "postgres://u:s3cret@db/x?sslrootcert=/missing.pem",
        "postgres://u:s3cret@db/x?color=blue",
        "postgres://u:s3cret@db:port/x",
    ] {
        let error = Store::open(&Config::new(address), Clock::manual(at(0))).await.expect_err(address);
        assert!(matches!(error, Error::Url { .. }), "{address}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_refused_and_left_as_it_was() {
    let mut database = Database::postgres().await;
    database.stopped("e1", "t1").await;
    let config = database.config();
    database.store = None;
    let before = database.dump().await;
    let beside = database.schema().connect().await;
    beside.batch_execute("UPDATE store SET value = '900' WHERE name IN ('schema', 'oldest_schema')").await.unwrap();
    let (problem, hint) = refusal(&config).await;
    assert!(problem.contains("made by a newer taskhook (schema 900 or later; this one knows"), "{problem}");
    assert!(hint.contains("run that newer version"), "{hint}");
    assert_eq!(database.dump().await, before);
    assert!(Store::peek_totals(&config).unwrap_err().to_string().contains("newer taskhook"));
}

#[tokio::test]
async fn a_newer_schema_that_still_serves_this_program_is_used() {
    let mut database = Database::postgres().await;
    database.stopped("e1", "t1").await;
    let beside = database.schema().connect().await;
    beside.batch_execute("UPDATE store SET value = '900' WHERE name = 'schema'").await.unwrap();
    // While this program runs, as when a newer one is rolled out beside it.
    beside.batch_execute("ALTER TABLE events ADD COLUMN later text; ALTER TABLE jobs ADD COLUMN later text").await.unwrap();
    database.stopped("e2", "t1").await;
    database.reopen().await;
    database.stopped("e3", "t1").await;
    assert_eq!(waiting(&database.claim_one(JobKind::Prove, "manus", at(0)).await).len(), 3);
    let schema = beside.query_one("SELECT value FROM store WHERE name = 'schema'", &[]).await.unwrap();
    assert_eq!(schema.get::<_, &str>(0), "900");
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_with_its_rows() {
    let schema = Schema::new();
    let beside = schema.connect().await;
    let first = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/postgres/schema/0001_first.sql"));
    let name = schema.name();
    beside.batch_execute(&format!("CREATE SCHEMA {name}; SET search_path = {name}; {first}")).await.unwrap();
    let rows = "INSERT INTO store VALUES ('schema', '1'), ('oldest_schema', '1'), ('created_at', '2026-01-15T12:00:00.000Z'), \
                ('instance_id', '00000000-0000-7000-8000-000000000001'); \
                INSERT INTO events (id, key, source, provider, type, event_id, task_id, received_at, verification, target, headers, body) \
                VALUES ('00000000-0000-7000-8000-000000000002', gen_random_uuid(), 'manus', 'manus', 'task_stopped', 'e1', 't1', \
                '2026-01-15T12:00:00Z', 'signature', '/', '[]', '{}'); INSERT INTO intake SELECT seq FROM events";
    beside.batch_execute(rows).await.unwrap();
    let database = Database::at(Place::Server(schema), Clock::manual(at(0))).await;
    assert_eq!(database.store().instance_id(), "00000000-0000-7000-8000-000000000001");
    database.stopped("e2", "t1").await;
    assert_eq!(waiting(&database.claim_one(JobKind::Prove, "manus", at(0)).await).len(), 2);
    // A program of that schema may still run beside.
    let facts =
        beside.query("SELECT value FROM store WHERE name IN ('schema', 'oldest_schema') ORDER BY name", &[]).await.unwrap();
    assert_eq!(facts.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["1", "11"]);
}

#[tokio::test]
async fn an_end_that_the_server_refuses_takes_no_other_with_it() {
    let database = Database::postgres().await;
    for task in ["t1", "t2", "t3"] {
        database.stopped(task, task).await;
    }
    let jobs = database.claim(JobKind::Prove, "manus", at(0)).await;
    let end = |number: usize| {
        // A text that PostgreSQL does not take.
        let body = if number == 1 { "\0".to_owned() } else { "{}".to_owned() };
        let moves =
            vec![Move { event: waiting(&jobs[number])[0], to: Stage::Done(vec![NewDelivery { body, ..delivery("crm", None) }]) }];
        database.store().finish(jobs[number].lease, at(0), Finish { moves, ..Finish::default() })
    };
    // They come together, so all are written again, each by itself.
    let ended = futures_util::future::join_all((0..3).map(end)).await;
    assert!(matches!(ended[..], [Ok(true), Err(Error::Refused(_)), Ok(true)]), "{ended:?}");
    assert_eq!(database.claim(JobKind::Deliver, "crm", at(0)).await.len(), 2);
    assert!(database.retry(jobs[1].lease, at(0), at(9), "again").await);
}

#[tokio::test]
async fn tables_that_are_not_ours_are_left_alone() {
    for (sql, words) in [
        ("CREATE TABLE store (name text, value text); INSERT INTO store VALUES ('color', 'blue')", "not taskhook's"),
        ("CREATE TABLE store (goods text)", "store"),
        ("CREATE TABLE deliveries (address text); INSERT INTO deliveries VALUES ('here')", "deliveries"),
    ] {
        let schema = Schema::new();
        let beside = schema.connect().await;
        beside.batch_execute(&format!("CREATE SCHEMA {}; {sql}", schema.name())).await.unwrap();
        let before = dump_schema(&schema).await;
        let (problem, _) = refusal(&schema.config()).await;
        assert!(problem.contains(words), "{problem}");
        assert_eq!(dump_schema(&schema).await, before, "{sql}");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
        assert_eq!(beside.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 1, "{sql}");
    }
}

#[tokio::test]
async fn who_only_looks_makes_nothing() {
    let schema = Schema::new();
    let problem = Store::peek_totals(&schema.config()).unwrap_err().to_string();
    assert!(problem.contains("there is no store") && problem.contains(schema.name()), "{problem}");
    let there = "SELECT to_regnamespace($1::text) IS NOT NULL";
    assert!(!schema.connect().await.query_one(there, &[&schema.name()]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn a_user_that_may_make_no_schema_is_told_and_may_use_one_that_is_its_own() {
    let schema = Schema::new();
    let name = schema.name();
    let beside = schema.connect().await;
    // It goes with the schema.
    beside.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'")).await.unwrap();
    let url = url(|url| {
        url.set_username(name).unwrap();
        url.set_password(Some(name)).unwrap();
    });
    let config = Config { schema: name.to_owned(), ..Config::new(url) };
    let (problem, hint) = refusal(&config).await;
    assert!(problem.contains("42501") && hint.contains("GRANT CREATE ON DATABASE"), "{problem} {hint}");
    beside.batch_execute(&format!("CREATE SCHEMA {name} AUTHORIZATION {name}")).await.unwrap();
    let store = Store::open(&config, Clock::manual(at(0))).await.unwrap();
    assert!(matches!(store.append(event("e1", Some("t1"), &json!({}))).await.unwrap(), Appended::New(_)));
    let claimed = Capacity { kind: JobKind::Prove, queue: "manus".into(), which: Which::Any, limit: 9 };
    assert_eq!(store.claim(vec![claimed], at(0)).await.unwrap().jobs.len(), 1);
}

/// On each new event `check` is done, when its transaction commits.
fn on_commit(check: &str) -> String {
    format!(
        "CREATE FUNCTION on_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {check}; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER on_commit AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION on_commit()"
    )
}

#[tokio::test]
async fn what_is_refused_at_its_commit_is_not_accepted() {
    let database = Database::postgres().await;
    let beside = database.schema().connect().await;
    beside.batch_execute(&on_commit("RAISE 'not now' USING ERRCODE = '23514'")).await.unwrap();
    let refused = database.store().append(event("e1", Some("t1"), &json!({}))).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert!(database.ids().await.is_empty());
    beside.batch_execute("DROP TRIGGER on_commit ON events").await.unwrap();
    assert!(matches!(database.append(event("e1", Some("t1"), &json!({}))).await, Appended::New(_)));
}

#[tokio::test]
async fn events_are_on_the_disk_whatever_the_server_thinks_of_that() {
    let schema = Schema::new();
    let (name, beside) = (schema.name(), schema.connect().await);
    let role = format!(
        "CREATE ROLE {name} LOGIN PASSWORD '{name}'; CREATE SCHEMA {name} AUTHORIZATION {name}; \
         ALTER ROLE {name} SET synchronous_commit = off; ALTER ROLE {name} SET default_transaction_isolation = 'serializable'"
    );
    beside.batch_execute(&role).await.unwrap();
    let url = url(|url| {
        url.set_username(name).unwrap();
        url.set_password(Some(name)).unwrap();
    });
    let config = Config { schema: name.to_owned(), ..Config::new(url) };
    let store = Store::open(&config, Clock::manual(at(0))).await.unwrap();
    let check = "IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'it would be lost' USING ERRCODE = '23514'; END IF";
    beside.batch_execute(&on_commit(check)).await.unwrap();
    assert!(matches!(store.append(event("e1", Some("t1"), &json!({}))).await.unwrap(), Appended::New(_)));
    assert!(matches!(store.append(event("e1", Some("t1"), &json!({}))).await.unwrap(), Appended::Duplicate(_)));
    assert!(matches!(store.append(event("e1", Some("t1"), &json!({"n": 2}))).await.unwrap(), Appended::Collision(_)));
}

#[tokio::test]
async fn two_stores_in_one_database_do_not_meet() {
    let (one, other) = (Database::postgres().await, Database::postgres().await);
    assert_ne!(one.store().instance_id(), other.store().instance_id());
    one.stopped("e1", "t1").await;
    other.stopped("e1", "t1").await;
    assert_eq!((one.ids().await.len(), other.ids().await.len()), (1, 1));
    // Nor do they wait for each other.
    let held = one.hold().await;
    other.stopped("e2", "t1").await;
    let job = other.claim_one(JobKind::Prove, "manus", at(0)).await;
    assert!(other.finish(job.lease, at(0)).await);
    held.let_go().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_make_one_store() {
    let schema = Arc::new(Schema::new());
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let config = Config { max_connections: 5, ..schema.config() };
        starts.spawn(async move { Store::open(&config, Clock::manual(at(0))).await.unwrap() });
    }
    let stores = within("eight starts", starts.join_all()).await;
    assert!(stores.iter().all(|store| store.instance_id() == stores[0].instance_id()));
    let replicas: std::collections::BTreeSet<_> = stores.iter().map(Store::replica).collect();
    assert_eq!(replicas.len(), 8);
    for (number, store) in stores.iter().enumerate() {
        let appended = store.append(event(&format!("e{number}"), None, &json!({}))).await.unwrap();
        assert!(matches!(appended, Appended::New(_)));
    }
}
