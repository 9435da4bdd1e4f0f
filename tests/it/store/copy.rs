//! A store in a file, copied into a PostgreSQL: what goes on there as if nothing had been, and that a copy is all or nothing.

use std::fs;
use std::thread;

use taskhook::store::care::{self, Copied, Progress};
use taskhook::store::model::NewRejection;

use super::care::{ended, others, taskhook};
use super::restore::end;
use super::*;

async fn copy_telling(from: &Database, to: &Config, tell: care::Tell<'_>) -> Result<Copied, Error> {
    care::copy(&from.config(), to, at(3600), tell).await
}

async fn copy(from: &Database, to: &Config) -> Result<Copied, Error> {
    copy_telling(from, to, &mut |_| {}).await
}

/// What a refusal says, and what it says to do.
async fn refusal(from: &Database, to: &Config) -> (String, String) {
    let error = copy(from, to).await.expect_err("it must be refused");
    let hint = error.hint().expect("there is something to do").to_owned();
    (error.to_string(), hint)
}

/// The store in `schema`, opened by a process that knows that it is alone.
async fn opened(schema: Schema) -> Database {
    let mut database = Database { store: None, clock: Clock::manual(at(3600)), place: Place::Server(schema) };
    database.open().await;
    database
}

/// Whether there is anything of the name of `schema`.
async fn exists(schema: &Schema) -> bool {
    let beside = schema.connect().await;
    beside.query_one("SELECT to_regnamespace($1::text) IS NOT NULL", &[&schema.name()]).await.unwrap().get(0)
}

/// The file and its log, to the byte.
fn bytes(database: &Database) -> Vec<Vec<u8>> {
    let read = |ending: &str| fs::read(format!("{}{ending}", database.path().display())).unwrap_or_default();
    ["", "-wal"].map(read).into()
}

fn run(database: &Database, sql: &str) {
    database.connection().execute_batch(sql).unwrap();
}

/// A store that has ended, with rows of every kind.
struct Full {
    database: Database,
    /// The event of a delivery that was being sent, and the id of that.
    sent: Uuid,
    sending: Uuid,
    /// The event of the delivery that waits for it.
    behind: Uuid,
    /// One that was delivered, and one that is told apart from it by its content.
    done: Uuid,
    collision: Uuid,
    /// The last one, which was never taken in.
    last: Uuid,
}

async fn full() -> Full {
    let mut database = Database::sqlite().await;
    let done = database.dispatched("e1", "t1", vec![delivery("log", None)], at(0)).await;
    let job = database.claim_one(JobKind::Deliver, "log", at(0)).await;
    assert!(database.finish(job.lease, at(0)).await);
    let deliveries = vec![delivery("crm", None), delivery("bi", None), delivery("team", None)];
    let sent = database.dispatched("e2", "t2", deliveries, at(1)).await;
    let behind = database.dispatched("e3", "t2", vec![delivery("crm", None)], at(2)).await;
    let sending = outgoing(&database.claim_one(JobKind::Deliver, "crm", at(3)).await).id;
    let job = database.claim_one(JobKind::Deliver, "bi", at(3)).await;
    assert!(database.retry(job.lease, at(3), at(9), "500 \u{1f4a5}").await);
    let job = database.claim_one(JobKind::Deliver, "team", at(3)).await;
    assert!(database.bury(job.lease, at(3), "410").await);
    let store = database.store();
    store.append(NewEvent { first: First::Quarantine, ..event("e4", None, &json!({})) }).await.unwrap();
    let binary = NewEvent { body: Bytes::from_static(b"\xff\0"), ..event("e5\0", Some("t5"), &json!({})) };
    store.append(NewEvent { first: First::Keep, ping: true, ..binary }).await.unwrap();
    store.own_key("files", vec![7; 32], at(3)).await.unwrap();
    store.save_verification_keys("manus", vec!["PEM".into()], at(3)).await.unwrap();
    store.pause("paused", at(3)).await.unwrap();
    let rejection = NewRejection {
        received_at: at(4),
        source: "manus".into(),
        code: "signature_invalid",
        explanation: Some("http for https".into()),
        target: "/webhooks/manus".into(),
        headers: vec![("a".into(), "b".into())],
        body_bytes: 2,
        body: Bytes::from_static(b"{}"),
    };
    store.record_rejections(vec![rejection.clone(), rejection]).await.unwrap();
    // All of these are taken in, and a job is in hand that no delivery is of.
    database.stopped("e6", "t6").await;
    database.claim_one(JobKind::Prove, "manus", at(5)).await;
    let collision = database.append(event("e1", Some("t1"), &json!({"event_id": "e1", "other": true}))).await;
    assert!(matches!(collision, Appended::Collision(_)), "{collision:?}");
    let last = database.stopped("e7", "t7").await;
    end(&mut database).await;
    run(
        &database,
        "INSERT INTO fetched_tasks (task_seq, task, files, raw, fetches) VALUES (1, '{\"id\":\"t1\"}', '[]', '{}', \
         '[\"2026-01-15T12:00:00.000Z finished\"]'); \
         UPDATE tasks SET credits = 0.1, kind = 'x', fetched_at = '2026-01-15T12:00:00.123Z', locator = 's1', \
         ended_at = '2026-01-15T12:00:00.456Z' WHERE seq = 1; \
         INSERT INTO files (subject, key, event, name, url, size_bytes, sha256, status, first_seen_at, ended_at) VALUES \
         (1, 'k', 1, 'Bericht \u{fc}ber.md', 'https://x', 7, 'd6b6', 'archived', '2026-01-15T12:00:00.000Z', '2026-01-15T12:00:01.000Z'); \
         INSERT INTO archiving (event, subject, told, since, out_of_order) VALUES (1, 1, 'fetched', '2026-01-15T12:00:00.000Z', 1); \
         INSERT INTO stops (source, task_id, anchor, state, at, event, recovered, claimed_at) VALUES ('manus', 't1', 'a1', 'finished', \
         '2026-01-15T11:59:59.000Z', '019bc185-0000-7000-8000-000000000001', 1, '2026-01-15T12:00:00.000Z'); \
         INSERT INTO answers (id, source, task_id, kind, question, given_by, content, state, stands, reason, given_at, ended_at) VALUES \
         ('019bc185-0000-7000-8000-000000000002', 'manus', 't1', 'reply', 'a1', 'me', 'Go \u{fc}ber on', 'unknown', 1, 'lost', \
         '2026-01-15T12:00:00.000Z', '2026-01-15T12:00:01.000Z'); \
         INSERT INTO reconciled (source, since, read_at) VALUES ('manus', '2026-01-15T12:00:00.000Z', '2026-01-15T12:02:00.000Z'); \
         INSERT INTO watches (type, source, key, task_id, destination, since, detail, raised_at, event, told) VALUES ('watch.dead_letter', \
         'manus', 'k', 't1', 'crm', '2026-01-15T12:00:00.000Z', '{}', '2026-01-15T12:00:01.000Z', \
         '019bc185-0000-7000-8000-000000000001', 1); \
         INSERT INTO spending (source, at, credits) VALUES ('manus', '2026-01-15T12:00:00.000Z', 0.1); \
         INSERT INTO samples VALUES (60, '2026-01-15T12:00:00.000Z', 7, 1, 2, 3, 4, 5, 6, 7, 80, 95, 0.1, 7, 0.3), \
         (3600, '2026-01-15T12:00:00.000Z', 7, 1, 2, 3, 4, 5, 6, 7, NULL, NULL, 0.1, NULL, NULL); \
         UPDATE tasks SET active_at = '2026-01-15T12:00:00.000Z' WHERE seq = 1; \
         INSERT INTO posts (id, key, request, holder, source, task, began_at, ended_at, status, content_type, bytes, body) VALUES \
         ('019bc185-0000-7000-8000-000000000003', 'k', 'r', '019bc185-0000-7000-8000-000000000004', 'manus', 'ab', \
         '2026-01-15T12:00:00.000Z', '2026-01-15T12:00:01.000Z', 201, 'application/json', 2, X'7b7d'), \
         ('019bc185-0000-7000-8000-000000000005', 'open', 'r', '019bc185-0000-7000-8000-000000000004', NULL, NULL, \
         '2026-01-15T12:00:00.000Z', NULL, NULL, NULL, 0, NULL); \
         INSERT INTO unwanted_files (sha256, since) VALUES ('aa', '2026-01-15T12:00:00.000Z'); \
         INSERT INTO erased_keys (key, event, erased_at) VALUES (X'000102030405060708090a0b0c0d0e0f', \
         '019bc185-0000-7000-8000-000000000001', '2026-01-15T12:00:00.000Z'); \
         INSERT INTO erased_tasks (source, task_id, erased_at, events) VALUES ('manus', 'ab', '2026-01-15T12:00:00.000Z', 1); \
         INSERT INTO replays (event, replay, asked_at) VALUES (1, 2, '2026-01-15T12:00:00.000Z'); \
         INSERT INTO restored_events (event, detail) VALUES (3, 'restored'); \
         INSERT INTO store (name, value) VALUES ('removed_events', '5'); \
         UPDATE open_events SET reasons = '[\"first\",\"a\\u0000b\"]' WHERE state = 'quarantined'; \
         UPDATE sqlite_sequence SET seq = 1000 WHERE name = 'jobs'",
    );
    // Some of the keys are merged into their index.
    run(
        &database,
        "INSERT INTO event_keys (key, event) SELECT key, event FROM new_keys WHERE event <= 3; DELETE FROM new_keys WHERE event <= 2",
    );
    Full { database, sent, sending, behind, done, collision: collision.id(), last }
}

#[tokio::test]
async fn a_copy_goes_on_as_the_store_would_have() {
    let full = full().await;
    let before = bytes(&full.database);
    let (schema, instance_id) = (Schema::new(), Store::peek_instance_id(&full.database.config()).unwrap());
    let mut stages = Vec::new();
    let copied = copy_telling(&full.database, &schema.config(), &mut |progress: Progress| {
        if stages.last() != Some(&progress.what) {
            stages.push(progress.what);
        }
    })
    .await
    .unwrap();
    assert_eq!(stages, ["counting rows", "copying rows", "comparing rows", "making it ready"]);
    assert_eq!(bytes(&full.database), before, "the file is left as it was");
    let empty: Vec<_> = copied.tables.iter().filter(|table| table.rows == 0).map(|table| table.name).collect();
    assert_eq!(empty, [""; 0], "this test has rows of every kind");
    assert_eq!((copied.events(), copied.leases, copied.changed_texts), (8, 2, 2));
    assert_eq!((copied.instance_id.as_str(), copied.schema.as_str()), (instance_id.as_str(), schema.name()));

    let database = opened(schema).await;
    let store = database.store();
    assert_eq!(store.instance_id(), instance_id);
    assert_eq!(store.own_key("files", vec![8; 32], at(3600)).await.unwrap(), [7; 32], "links stay good");
    assert_eq!(store.verification_keys("manus").await.unwrap(), [("PEM".to_owned(), at(3))]);
    let beside = database.schema().connect().await;
    let one = async |sql: &str| beside.query_one(sql, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(one("SELECT value FROM store WHERE name = 'removed_events'").await, "5");
    assert_eq!(one("SELECT string_agg(event::text, ' ' ORDER BY event) FROM intake").await, "7 8");
    assert_eq!(one("SELECT encode(body, 'hex') FROM events WHERE event_id = 'e5\u{fffd}'").await, "ff00");
    assert_eq!(one("SELECT reasons::text FROM open_events WHERE state = 'quarantined'").await, "{first,a\u{fffd}b}");

    // An old event is known, and so is the one that was told apart from it.
    let repeat = |body: Value| database.append(event("e1", Some("t1"), &body));
    assert_eq!(repeat(json!({"event_id": "e1"})).await, Appended::Duplicate(full.done));
    assert_eq!(repeat(json!({"event_id": "e1", "other": true})).await, Appended::Duplicate(full.collision));
    let fresh = database.stopped("e9", "t9").await;
    assert_eq!(database.ids().await.iter().rev().take(2).collect::<Vec<_>>(), [&fresh.to_string(), &full.last.to_string()]);

    // What was being sent is due, and its attempt in doubt; what failed keeps its time and its count.
    let job = database.claim_one(JobKind::Deliver, "crm", at(3600)).await;
    let attempts = database.event(full.sent).await.deliveries.into_iter().find(|one| one.destination == "crm").unwrap().attempts;
    assert_eq!(
        attempts.iter().map(|one| (one.attempt, one.outcome.as_str())).collect::<Vec<_>>(),
        [(1, "unknown"), (2, "started")]
    );
    assert_eq!((outgoing(&job).id, job.lease.attempt, outgoing(&job).after_unknown), (full.sending, 2, true));
    assert!(database.finish(job.lease, at(3600)).await);
    assert_eq!(database.claim(JobKind::Deliver, "bi", at(8)).await.len(), 0);
    let job = database.claim_one(JobKind::Deliver, "bi", at(9)).await;
    assert_eq!((job.lease.attempt, outgoing(&job).after_unknown), (2, false));
    let job = database.claim_one(JobKind::Deliver, "crm", at(3600)).await;
    assert_eq!(database.event(full.behind).await.deliveries[0].id, outgoing(&job).id.to_string(), "in its turn");
    assert!(job.lease.job > 1000, "a number of a job is used once");
    // All that was to be proven is, what was in hand among it.
    let jobs = database.claim(JobKind::Prove, "manus", at(3600)).await;
    let mut events: Vec<_> = jobs.iter().flat_map(waiting).collect();
    events.sort_unstable();
    assert_eq!((events[..3].to_vec(), events.len()), (vec![6, 7, 8], 4), "the newest comes behind them: {events:?}");
}

#[tokio::test]
async fn lists_are_the_same_in_both() {
    async fn lists(database: &Database) -> Vec<Value> {
        let (store, page) = (database.store(), || Page { limit: 100, cursor: None });
        let events = store.events(EventFilter::default(), page()).await.unwrap().data;
        let mut all = vec![
            json!(events),
            json!(store.tasks(TaskFilter::default(), page()).await.unwrap().data),
            json!(store.rejections(RejectionFilter::default(), page()).await.unwrap().data),
            json!(store.deliveries(taskhook::store::model::Like::default(), page()).await.unwrap().data),
        ];
        for row in &events {
            all.push(json!(store.event(&row.id).await.unwrap().unwrap()));
        }
        all
    }
    let mut full = full().await.database;
    let schema = Schema::new();
    copy(&full, &schema.config()).await.unwrap();
    let copied = opened(schema).await;
    // The file's leases are void as well once it is opened again.
    full.open().await;
    full.store().expire(at(3600)).await.unwrap();
    let no_zeros = "UPDATE events SET event_id = 'e5\u{fffd}' WHERE seq = 5; \
                    UPDATE open_events SET reasons = '[\"first\",\"a\u{fffd}b\"]' WHERE state = 'quarantined'";
    run(&full, no_zeros);
    for (file, server) in lists(&full).await.into_iter().zip(lists(&copied).await) {
        assert_eq!(file, server);
    }
}

#[tokio::test]
async fn a_store_is_not_copied_over_another_one() {
    let mut full = full().await.database;
    let schema = Schema::new();
    // One that was started and never used is no hindrance, once nobody runs on it any more.
    let started = opened(schema).await;
    let config = started.config();
    let (problem, hint) = refusal(&full, &config).await;
    assert!(problem.contains("a taskhook runs on it") && hint.contains("stop every taskhook"), "{problem} {hint}");
    let Database { store, place: Place::Server(schema), .. } = started else { panic!("it is on a server") };
    drop(store);
    schema.connect().await.batch_execute("UPDATE replicas SET seen_at = seen_at - interval '1 hour'").await.unwrap();
    copy(&full, &config).await.unwrap();
    assert_eq!(Store::peek_instance_id(&config).unwrap(), Store::peek_instance_id(&full.config()).unwrap());

    let before = dump_schema(&schema).await;
    let (problem, hint) = refusal(&full, &config).await;
    assert!(problem.contains("has a store already, with rows in `events`") && hint.contains("nothing was changed"), "{problem}");
    assert_eq!(dump_schema(&schema).await, before);
    // A file that somebody has open is not copied.
    full.open().await;
    let other = Schema::new();
    let (problem, _) = refusal(&full, &other.config()).await;
    assert!(problem.contains("another taskhook process is using it"), "{problem}");
    assert!(!exists(&other).await);
}

#[tokio::test]
async fn what_cannot_be_copied_whole_is_not_copied() {
    let database = full().await.database;
    let schema = Schema::new();
    let refused = async |sql: &str, words: &str| {
        run(&database, sql);
        let (problem, hint) = refusal(&database, &schema.config()).await;
        assert!(problem.contains(words) && hint.contains("nothing was c"), "{problem} {hint}");
        assert!(!exists(&schema).await, "{words}");
    };
    refused("UPDATE tasks SET first_seen_at = 'x' WHERE seq = 2", "a row of `tasks` has a `first_seen_at` that cannot be read")
        .await;
    refused(
        "UPDATE tasks SET first_seen_at = '2026-01-15T12:00:00.000Z'; UPDATE jobs SET reasons = 'x'",
        "of `jobs` has a `reasons`",
    )
    .await;
    refused("UPDATE jobs SET reasons = '[]'; DELETE FROM new_keys WHERE event = 8", "in the table `events`: 23502").await;
    refused("UPDATE store SET value = '3' WHERE name = 'schema'", "its schema is not the one of this version").await;
    let nowhere = Config::new(format!("sqlite://{}", database.folder().join("nowhere.db").display()));
    let error = care::copy(&nowhere, &schema.config(), at(0), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("there is no such file"), "{error}");
    assert_eq!(others(&database), [""; 0]);
}

#[tokio::test]
async fn a_row_that_reads_back_otherwise_undoes_the_copy() {
    let database = full().await.database;
    let started = opened(Schema::new()).await;
    let Database { store, place: Place::Server(schema), .. } = started else { panic!("it is on a server") };
    drop(store);
    let beside = schema.connect().await;
    beside
        .batch_execute(
            "UPDATE replicas SET seen_at = seen_at - interval '1 hour'; \
             CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.since = NEW.since + interval ''1 ms''; RETURN NEW; END'; \
             CREATE TRIGGER other BEFORE INSERT ON paused FOR EACH ROW EXECUTE FUNCTION other()",
        )
        .await
        .unwrap();
    let before = dump_schema(&schema).await;
    let (problem, hint) = refusal(&database, &schema.config()).await;
    assert!(problem.contains("the table `paused` reads back otherwise than it was written (1 rows"), "{problem}");
    assert!(hint.contains("nothing was copied"), "{hint}");
    assert_eq!(dump_schema(&schema).await, before);
}

/// Ends the connection that copies into `schema`, which nobody else sees yet.
fn cut(schema: &str) {
    let schema = schema.to_owned();
    let cut = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let beside = crate::harness::postgres::Connection::to(&crate::harness::postgres::server()).await;
            let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' \
                       AND objid::bigint = hashtext($1)::bigint & 4294967295 AND pid <> pg_backend_pid()";
            assert_eq!(beside.query(sql, &[&schema]).await.unwrap().len(), 1);
        });
    });
    cut.join().unwrap();
}

#[tokio::test]
async fn a_copy_that_is_cut_off_leaves_nothing() {
    let database = full().await.database;
    let before = bytes(&database);
    let schema = Schema::new();
    let config = schema.config();
    for (what, from) in
        [("counting rows", 0), ("copying rows", 0), ("copying rows", 20), ("comparing rows", 20), ("making it ready", 0)]
    {
        let mut whole = true;
        let mut tell = |progress: Progress| {
            if whole && progress.what == what && progress.done >= from {
                cut(schema.name());
                whole = false;
            }
        };
        let error = copy_telling(&database, &config, &mut tell).await.expect_err(what);
        assert!(!whole, "{what}");
        assert!(
            matches!(error, Error::Server { .. }) && error.to_string().contains("the copy was broken off"),
            "{what}: {error}"
        );
        assert!(error.hint().unwrap().contains("nothing was copied"), "{what}: {error}");
        assert!(!exists(&schema).await, "{what}");
    }
    assert_eq!(bytes(&database), before);
    copy(&database, &schema.config()).await.unwrap();
    assert!(exists(&schema).await);
}

#[tokio::test]
async fn the_command_copies_and_says_what_comes_next() {
    let database = full().await.database;
    let schema = Schema::new();
    let url = schema.config().url;
    let command = |arguments: &[&str]| {
        let arguments: Vec<_> = ["copy"].into_iter().chain(arguments.iter().copied()).collect();
        let mut command = taskhook(&database, &arguments);
        command.env("TASKHOOK__STORE__SCHEMA", schema.name()).env_remove("TASKHOOK__STORE__URL");
        command
    };
    for (arguments, words) in [
        (&["--to", "sqlite://b.db"][..], "`--to` names no PostgreSQL"),
        (&["--from", "sqlite://store.db"], "`--to` is missing, and `store.url` names no PostgreSQL"),
        (&["--from", "postgres://u:s3cret@db/x", "--to", "sqlite://b.db"], "the other way there is none"),
        (&["--from", "sqlite://store.db", "--to", "postgres://u:s3cret@db"], "`--to` cannot be used: it names no database"),
    ] {
        let (code, out, talk) = ended(&mut command(arguments));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{talk}");
        assert!(talk.contains(words) && !talk.contains("s3cret"), "{talk}");
    }
    let (code, out, talk) = ended(&mut command(&["--from", "sqlite://nowhere.db", "--to", url.expose()]));
    assert_eq!((code, out.as_str()), (Some(3), ""), "{talk}");
    // Its password is in nobody's list of processes where it is `store.url`.
    let (code, out, talk) = ended(command(&["--from", "sqlite://store.db"]).env("TASKHOOK__STORE__URL", url.expose()));
    assert_eq!(code, Some(0), "{talk}");
    assert!(out.starts_with("TABLE") && out.lines().any(|line| line.starts_with("events ") && line.contains(" 8 ")), "{out}");
    for words in [
        "Copied 8 event(s)",
        "2 job(s) were in hand",
        "2 text(s) had a zero byte",
        "archive.shared = true",
        "store.db is as it was",
    ] {
        assert!(talk.contains(words), "{words}: {talk}");
    }
    let (code, _, talk) = ended(&mut command(&["--from", "sqlite://store.db", "--to", url.expose(), "--json"]));
    assert_eq!(code, Some(3), "{talk}");
    let other = Schema::new();
    let mut again = command(&["--from", "sqlite://store.db", "--to", url.expose(), "--json"]);
    let (code, out, talk) = ended(again.env("TASKHOOK__STORE__SCHEMA", other.name()));
    assert_eq!(code, Some(0), "{talk}");
    let copied: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&copied["schema"], &copied["tables"][1]["rows"]), (&json!(other.name()), &json!(8)));
}
