//! Checking and measuring a store on a PostgreSQL server, beside the replicas that work on it.

use std::process::{Command, Stdio};

use taskhook::store::care;
use taskhook::store::model::Like;

use super::care::ended;
use super::*;

/// The program, with the store of `database`.
fn taskhook(database: &Database, arguments: &[&str]) -> Command {
    let config = database.config();
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskhook"));
    command.arg("store").args(arguments).env_clear().stdin(Stdio::null());
    command.env("TASKHOOK__STORE__URL", config.url.expose()).env("TASKHOOK__STORE__SCHEMA", config.schema);
    command
}

/// The tables of a store.
async fn tables(beside: &Beside) -> Vec<String> {
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1";
    beside.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn rows_that_do_not_fit_together_are_told_of() {
    let database = Database::postgres().await;
    database.dispatched("e1", "t1", vec![delivery("crm", None), delivery("log", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    database.append(NewEvent { first: First::Quarantine, ..event("homeless", None, &json!({})) }).await;
    let (code, out, talk) = ended(&mut taskhook(&database, &["check"]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "not taken in yet: {talk}");
    assert_eq!(database.claim(JobKind::Fetch, "manus", at(0)).await.len(), 0, "but now");
    let (code, out, talk) = ended(&mut taskhook(&database, &["check", "--quick"]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{talk}");

    let beside = database.schema().connect().await;
    let tables = tables(&beside).await;
    let all = |what: &dyn Fn(&str) -> String| tables.iter().map(|table| what(table)).collect::<Vec<_>>().join(";");
    beside.batch_execute(&all(&|table| format!("CREATE TEMPORARY TABLE saved_{table} AS TABLE {table}"))).await.unwrap();
    let again = all(&|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved_{table}"));
    let file = "INSERT INTO files (subject, key, event, name, first_seen_at, status)";
    let faults = [
        ("DELETE FROM jobs WHERE kind = 'prove'", "has no job"),
        ("DELETE FROM jobs WHERE kind = 'deliver' AND queue = 'crm'", "the first of its lane"),
        ("DELETE FROM delivery_bodies WHERE delivery = (SELECT min(seq) FROM deliveries)", "no content"),
        ("DELETE FROM deliveries WHERE destination = 'log'", "not pending, or not there"),
        ("DELETE FROM deliveries WHERE destination = 'log'", "the delivery is not"),
        ("DELETE FROM tasks WHERE task_id = 't2'", "about a task"),
        ("DELETE FROM events WHERE event_id = 'e1'", "of no event that is kept"),
        ("DELETE FROM events WHERE event_id = 'e2'", "is no event that is kept"),
        ("INSERT INTO intake VALUES (99)", "to be taken in is no event"),
        ("DELETE FROM task_events USING events WHERE seq = event AND event_id = 'e2'", "not among those of its task"),
        ("INSERT INTO task_events VALUES (99, 99)", "it or the task is not there"),
        ("UPDATE jobs SET state = 'leased' WHERE kind = 'prove'", "to nobody"),
        ("INSERT INTO attempts VALUES (99, 1, now(), now(), 'failed', NULL)", "an attempt is left"),
        ("UPDATE open_events SET state = 'archiving'", "not written down since when"),
        ("INSERT INTO archiving VALUES (1, 1, 'x', now(), false)", "and does not"),
        ("UPDATE open_events SET state = 'lost'", "does not know"),
        ("INSERT INTO fetched_tasks VALUES (99, '{}', '[]', '')", "a fetched task is left"),
        (&format!("{file} SELECT seq, 'k', 1, 'n', now(), 'pending' FROM tasks LIMIT 1"), "to be saved"),
        (&format!("{file} SELECT seq, 'k', 1, 'n', now(), 'archived' FROM tasks LIMIT 1"), "digest"),
        (&format!("{file} VALUES (99, 'k', 1, 'n', now(), 'failed')"), "a file is of"),
    ];
    for (sql, words) in faults {
        assert!(beside.execute(sql, &[]).await.unwrap() > 0, "{sql}");
        let mut told = 0;
        let findings = care::check(&database.config(), false, &mut |_| told += 1).unwrap();
        assert!(findings.iter().any(|finding| finding.problem.contains(words)), "{sql}: {findings:?}");
        assert!(told > 10, "{told}");
        if words == "does not know" {
            let (code, out, talk) = ended(&mut taskhook(&database, &["check"]));
            assert_eq!(code, Some(1), "{talk}");
            assert!(out.contains("2 times: an event is in a state") && talk.contains("finding(s)"), "{out}{talk}");
        }
        beside.batch_execute(&again).await.unwrap();
    }
    assert_eq!(care::check(&database.config(), false, &mut |_| {}).unwrap(), []);
}

#[tokio::test]
async fn a_store_on_a_server_is_measured() {
    let database = Database::postgres().await;
    database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    database.stopped("e2", "t2").await;
    database.append(NewEvent { first: First::Quarantine, received_at: at(9), ..event("homeless", None, &json!({})) }).await;
    let (code, out, talk) = ended(&mut taskhook(&database, &["stats", "--json"]));
    assert_eq!(code, Some(0), "{talk}");
    let stats: Value = serde_json::from_str(&out).unwrap();
    let counted =
        [("proving", 1), ("quarantined", 1), ("done or kept", 1)].map(|(name, count)| json!({"name": name, "count": count}));
    assert_eq!(stats["events"], json!(counted));
    assert_eq!(stats["deliveries"], json!([{"name": "pending", "count": 1}]));
    assert_eq!(
        (&stats["oldest_event"], &stats["newest_event"]),
        (&json!("2026-01-15T12:00:00.000Z"), &json!("2026-01-15T12:00:09.000Z"))
    );
    assert_eq!(
        (&stats["created_at"], &stats["schema"], &stats["shrinks"]),
        (&json!("2026-01-15T12:00:00.000Z"), &json!("11"), &Value::Null)
    );
    assert!(
        stats["file"].as_str().unwrap().starts_with("postgres://") && stats["bytes_per_event"].as_u64().unwrap() > 0,
        "{stats}"
    );
    // Of every table there is, all rows.
    let beside = database.schema().connect().await;
    let told: Vec<_> = stats["tables"].as_array().unwrap().iter().map(|table| (table["name"].as_str().unwrap(), table)).collect();
    for table in tables(&beside).await {
        let rows: i64 = beside.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0);
        let (_, told) = told.iter().find(|(name, _)| *name == table).unwrap_or_else(|| panic!("{table} is not told of"));
        assert_eq!((told["rows"].as_i64(), told["bytes"].as_u64().unwrap() > 0), (Some(rows), true), "{table}");
    }
    let totals = Store::peek_totals(&database.config()).unwrap();
    assert!(totals.events == 3 && totals.bytes > 8192, "{totals:?}");
    let (code, out, _) = ended(&mut taskhook(&database, &["stats"]));
    assert!(code == Some(0) && out.contains("1 quarantined, 1 done or kept") && out.contains("delivery_bodies"), "{out}");
    assert!(out.contains("tables") && !out.contains("log ") && !out.contains("free in it"), "{out}");
}

#[tokio::test]
async fn the_contents_that_must_be_in_the_archive_come_in_pages() {
    let database = Database::postgres().await;
    let beside = database.schema().connect().await;
    let file = "INSERT INTO files (subject, key, event, name, first_seen_at, status, sha256, size_bytes)";
    let rows = "SELECT n, 'k', n, 'n', now(), CASE WHEN n < 5 THEN 'archived' ELSE 'failed' END, lpad((n / 2)::text, 64, '0'), \
                CASE WHEN n > 1 THEN n END FROM generate_series(1, 6) AS n";
    beside.execute(&format!("{file} {rows}"), &[]).await.unwrap();
    let sha = |number: usize| format!("{number:064}");
    let page = |after: &str| care::archived(&database.config(), after, 2).unwrap();
    assert_eq!(page(""), [(sha(0), None), (sha(1), Some(3))]);
    assert_eq!(page(&sha(1)), [(sha(2), Some(4))]);
    assert_eq!(page(&sha(2)), []);
}

#[tokio::test]
async fn a_server_is_not_backed_up_into_a_file_here() {
    let database = Database::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    for arguments in [["backup", "b.db"], ["restore", "b.db"]] {
        let (code, _, talk) = ended(taskhook(&database, &arguments).current_dir(folder.path()));
        assert_eq!(code, Some(3), "{talk}");
        assert!(talk.contains("`pg_dump`") && talk.contains("postgres://") && !talk.contains("sqlite://"), "{talk}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = Schema::new();
    for arguments in [&["check"][..], &["stats"]] {
        let (code, _, talk) = ended(taskhook(&database, arguments).env("TASKHOOK__STORE__SCHEMA", nowhere.name()));
        assert_eq!(code, Some(3), "{talk}");
        assert!(talk.contains("there is no store"), "{talk}");
    }
}

/// What no database of ours can hold finds nothing.
#[tokio::test]
async fn what_nobody_can_have_written_is_not_found() {
    let database = Database::postgres().await;
    let store = database.store();
    let id = database.dispatched("e1", "t1", vec![delivery("crm", None)], at(0)).await;
    let page = || Page { limit: 9, cursor: None };
    for text in ["\0", "t1\0", "a b", ""] {
        let task = |text: &str| EventFilter { task_id: Some(text.to_owned()), ..EventFilter::default() };
        assert_eq!(store.events(task(text), page()).await.unwrap().data.len(), 0);
        let state = EventFilter { state: Some(text.to_owned()), ..EventFilter::default() };
        assert_eq!(store.events(state, page()).await.unwrap().data.len(), 0);
        let like = Like { task: Some(text.to_owned()), destination: Some(text.to_owned()), ..Like::default() };
        assert_eq!(store.deliveries(like, page()).await.unwrap().data.len(), 0);
        assert_eq!(
            store
                .tasks(
                    TaskFilter { source: Some(text.to_owned()), state: Some(text.to_owned()), ..TaskFilter::default() },
                    page()
                )
                .await
                .unwrap()
                .data
                .len(),
            0
        );
        assert!(store.task("manus", text).await.unwrap().is_none() && store.holding(text, text).await.unwrap().is_none());
        assert!(store.event(text).await.unwrap().is_none() && store.delivery(text).await.unwrap().is_none());
        assert_eq!(store.erase("manus", text, at(0)).await.unwrap(), taskhook::store::upkeep::Erased::Unknown);
    }
    let upper = id.to_string().to_uppercase();
    assert!(upper == id.to_string() || store.event(&upper).await.unwrap().is_none(), "ids are found as they are written");
    for (since, until, found) in
        [(Timestamp::MIN, Timestamp::MAX, 1), (Timestamp::MAX, Timestamp::MAX, 0), (Timestamp::MIN, Timestamp::MIN, 0)]
    {
        let like = Like { since: Some(since), until: Some(until), ..Like::default() };
        assert_eq!(store.deliveries(like, page()).await.unwrap().data.len(), found);
    }
    assert_eq!(store.done_events(0, Timestamp::MIN, at(0)).await.unwrap().rows, []);
    assert_eq!(store.bare_tasks(0, Timestamp::MIN, at(0)).await.unwrap().rows, []);
    store.forget_erased(Timestamp::MIN).await.unwrap();
}
