//! Databases, really asked: SQLite in a file, and a PostgreSQL server (see `tests/run`), where each test has a database of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::app::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::deliver::{busiest_minute, detail, offer, offer_one, only, outcomes, reasons, result, setup, start};
use crate::harness::postgres::{Connection, server};
use crate::harness::{Harness, refusal};

const TABLE: &str = "CREATE TABLE results (delivery_id text PRIMARY KEY, task_id text NOT NULL, title text, credits numeric, \
                     finished boolean, seen timestamp, body json, tags text, n integer CHECK (n < 100))";
const KEYS: &str = r#"statement = "INSERT INTO results VALUES (:delivery_id, :task_id, :title, :credits, :finished, :seen, :body, :title, :n) ON CONFLICT (delivery_id) DO NOTHING"
values = { task_id = "event.task_id", title = "event.title", credits = "task.credits", finished = "event.stop_reason == 'finish'", seen = "received_at", body = "event.payload", n = "event.payload.n" }
"#;

/// A database that a test has alone.
struct Postgres {
    admin: Connection,
    name: String,
    url: String,
}

impl Postgres {
    async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let admin = Connection::to(&server()).await;
        let name = format!("taskhook_test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}; ")).await.expect("it can be dropped");
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("it can be made");
        let base = server();
        let url = format!("{}/{name}", base.rsplit_once('/').expect("a database").0);
        Self { admin, name, url }
    }

    async fn with(table: &str) -> (Self, Connection) {
        let postgres = Self::new().await;
        let client = Connection::to(&postgres.url).await;
        client.batch_execute(table).await.expect("a table");
        (postgres, client)
    }

    fn section(&self, keys: &str) -> String {
        format!("kind = \"sql\"\nurl = \"{}?sslmode=disable\"\n{keys}", self.url)
    }

    async fn end(self) {
        self.admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.expect("it can be dropped");
    }
}

/// The rows as JSON.
async fn rows(client: &Client) -> Vec<Value> {
    let rows = client.query("SELECT to_jsonb(results) FROM results ORDER BY task_id", &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

/// A result whose payload has a number.
fn numbered(number: usize, n: &Value) -> Value {
    let mut event = result(number, "What is 2 + 2?", "**4**");
    event["n"] = n.clone();
    event
}

async fn handed(harness: &mut Harness, event: &Value) -> Value {
    offer(harness, event).await;
    harness.drain().await;
    only(harness).await
}

#[tokio::test]
async fn a_result_is_a_row_with_each_value_in_its_own_type() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let mut harness = start(&postgres.section(KEYS)).await;
    let delivery = handed(&mut harness, &numbered(1, &json!(7))).await;
    assert_eq!((&delivery["state"], detail(&delivery)), (&json!("delivered"), "1 row"), "{delivery}");
    let row = rows(&client).await.remove(0);
    assert_eq!((&row["delivery_id"], &row["task_id"], &row["finished"]), (&delivery["id"], &json!("t1"), &json!(true)));
    assert_eq!((&row["seen"], &row["credits"], &row["n"]), (&json!("2026-01-15T12:00:00"), &json!(null), &json!(7)));
    assert_eq!(row["body"]["task_detail"]["message"], "**4**");
    drop(harness);
    postgres.end().await;
}

#[tokio::test]
async fn words_are_values_and_never_sql() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let mut harness = start(&postgres.section(KEYS)).await;
    let nasty = "'); DROP TABLE results; -- \" \\ $1 :task_id \u{202e}\u{0}";
    let delivery = handed(&mut harness, &result(1, &format!("{nasty}{}", "x".repeat(1 << 20)), nasty)).await;
    assert_eq!(delivery["state"], "delivered", "{delivery}");
    let row = rows(&client).await.remove(0);
    let title = row["title"].as_str().unwrap();
    assert!(title.starts_with(&nasty.replace('\0', "\u{fffd}")) && title.len() > 1 << 20);
    drop(harness);
    postgres.end().await;
}

#[tokio::test]
async fn a_statement_that_the_database_refuses_is_an_error_at_start_that_names_it() {
    let (postgres, _client) = Postgres::with(TABLE).await;
    for (statement, words) in [
        ("INSERT INTO results (delivery_id, taks_id) VALUES (:delivery_id, '')", "\"taks_id\""),
        ("INSERT INTO reslts VALUES (:delivery_id)", "\"reslts\""),
        ("INSERT INTO results VALUES (:delivery_id", "syntax error"),
    ] {
        let error = refusal(setup(&postgres.section(&format!("statement = '''{statement}'''")))).await;
        let text = error.to_string();
        assert!(
            matches!(error, Error::Destination(_)) && text.starts_with("destinations.it: `statement`: ") && text.contains(words),
            "{text}"
        );
    }
    postgres.end().await;
}

#[tokio::test]
async fn a_database_that_is_down_is_no_reason_not_to_start() {
    let (_socket, address) = crate::harness::closed_address();
    let keys = format!("kind = \"sql\"\nurl = \"postgres://me:s3cret@{address}/x\"\nstatement = \"SELECT :delivery_id\"");
    let mut harness = start(&keys).await;
    let reasons = reasons(&harness).await;
    assert!(
        reasons.len() == 1 && reasons[0].starts_with("destination it: cannot connect: ") && !reasons[0].contains("s3cret"),
        "{reasons:?}"
    );
    let delivery = handed(&mut harness, &result(1, "A title", "text")).await;
    assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["failed"]), "{delivery}");
    harness.expect_leftover();
}

#[tokio::test]
async fn a_wrong_password_or_database_is_tried_again() {
    let (postgres, _client) = Postgres::with(TABLE).await;
    let missing = postgres.section("statement = \"SELECT :delivery_id\"").replace(&postgres.name, "taskhook_test_nowhere");
    let mut harness = start(&missing).await;
    let delivery = handed(&mut harness, &result(1, "A title", "text")).await;
    assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["failed"]));
    assert!(detail(&delivery).contains("3D000"), "{delivery}");
    harness.expect_leftover();
    postgres.end().await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_believed() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let section = postgres.section(KEYS).replace("sslmode=disable", "sslmode=require");
    let mut harness = start(&section).await;
    let delivery = handed(&mut harness, &result(1, "A title", "text")).await;
    assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["failed"]), "{delivery}");
    assert!(detail(&delivery).starts_with("cannot connect: "), "{delivery}");
    assert_eq!(rows(&client).await.len(), 0);
    harness.expect_leftover();
    drop(harness);
    postgres.end().await;
}

#[tokio::test]
async fn what_no_later_attempt_can_mend_is_given_up_on_without_quoting_it() {
    let (postgres, client) = Postgres::with(TABLE).await;
    client.batch_execute("CREATE UNIQUE INDEX once ON results (task_id)").await.unwrap();
    client.batch_execute("INSERT INTO results (delivery_id, task_id) VALUES ('x', 't3')").await.unwrap();
    for (number, n, words) in [
        (1, json!("s3cret-word"), "22P02: a value does not fit"),
        (2, json!(100), "23514: new row for relation \"results\" violates check constraint"),
        (3, json!(1), "23505: duplicate key value violates unique constraint \"once\" (constraint once, table results)"),
        (4, json!("99999999999999999999"), "22003: a value does not fit"),
    ] {
        let mut harness = start(&postgres.section(KEYS)).await;
        let delivery = handed(&mut harness, &numbered(number, &n)).await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("dead"), vec!["failed"]), "{delivery}");
        assert!(detail(&delivery).contains(words) && !delivery.to_string().contains("s3cret"), "{delivery}");
    }
    postgres.end().await;
}

#[tokio::test]
async fn a_lock_and_a_server_that_stops_are_waited_out() {
    for (error, code) in
        [("40001", "serialization"), ("40P01", "deadlock"), ("55P03", "lock"), ("57P01", "shutdown"), ("53300", "connections")]
    {
        let (postgres, client) = Postgres::with(TABLE).await;
        let trigger = format!(
            "CREATE SEQUENCE tries; CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('tries') = 1 THEN RAISE EXCEPTION 'busy: {code}' USING ERRCODE = '{error}'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER busy BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION busy()"
        );
        client.batch_execute(&trigger).await.unwrap();
        let mut harness = start(&postgres.section(KEYS)).await;
        offer_one(&harness).await;
        harness.drain().await;
        harness.advance(Duration::from_secs(1)).await;
        let delivery = only(&harness).await;
        assert_eq!(outcomes(&delivery), ["failed", "delivered"], "{error}: {delivery}");
        assert_eq!(rows(&client).await.len(), 1);
        drop(harness);
        postgres.end().await;
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_of_unknown_outcome() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let mut harness = start(&postgres.section(&format!("timeout = \"500ms\"\n{KEYS}"))).await;
    client.batch_execute("BEGIN; LOCK TABLE results").await.unwrap();
    offer_one(&harness).await;
    harness.drain().await;
    client.batch_execute("COMMIT").await.unwrap();
    harness.advance(Duration::from_secs(1)).await;
    let delivery = only(&harness).await;
    assert_eq!(outcomes(&delivery), ["unknown", "delivered"], "{delivery}");
    assert_eq!(rows(&client).await.len(), 1, "the statement knows a repeat");
    drop(harness);
    postgres.end().await;
}

/// A way to the server that is cut once a statement was executed: its answer never arrives.
async fn cutting(tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = url::Url::parse(&server()).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    tasks.spawn(async move {
        let mut cut = false;
        while let Ok((client, _)) = listener.accept().await {
            let behind = TcpStream::connect(&server).await.unwrap();
            // The first connection prepares at the start and is cut; the next is not.
            let (mut from, mut to) = client.into_split();
            let (mut back, mut forth) = behind.into_split();
            let cuts = !std::mem::replace(&mut cut, true);
            let upward = async move {
                let mut bytes = vec![0; 65_536];
                loop {
                    let read = from.read(&mut bytes).await.unwrap_or(0);
                    if read == 0 || forth.write_all(&bytes[..read]).await.is_err() {
                        return;
                    }
                    // Bind, execute and sync in one piece: the statement itself.
                    if cuts && bytes[..read].first() == Some(&b'B') {
                        return std::future::pending().await;
                    }
                }
            };
            let downward = async move {
                let mut bytes = vec![0; 65_536];
                loop {
                    let read = back.read(&mut bytes).await.unwrap_or(0);
                    // CommandComplete: done, but nobody is told.
                    let complete = cuts && bytes[..read].windows(8).any(|part| part == b"INSERT 0");
                    if read == 0 || complete || to.write_all(&bytes[..read]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = upward => {}
                () = downward => {}
            }
        }
    });
    port
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_unknown_and_leaves_one_row() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let mut tasks = JoinSet::new();
    let port = cutting(&mut tasks).await;
    let mut url = url::Url::parse(&postgres.url).unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    let mut harness = start(&format!("kind = \"sql\"\nurl = \"{url}?sslmode=disable\"\nconcurrency = 1\n{KEYS}")).await;
    offer_one(&harness).await;
    harness.drain().await;
    assert_eq!(rows(&client).await.len(), 1, "it was committed");
    harness.advance(Duration::from_secs(1)).await;
    let delivery = only(&harness).await;
    assert_eq!(outcomes(&delivery), ["unknown", "delivered"], "{delivery}");
    assert_eq!((rows(&client).await.len(), detail(&delivery)), (1, "0 rows"));
    drop(harness);
    postgres.end().await;
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_one_row() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let mut harness = start(&postgres.section(&format!("timeout = \"20s\"\n{KEYS}"))).await;
    client.batch_execute("BEGIN; LOCK TABLE results").await.unwrap();
    offer_one(&harness).await;
    let waiting = async {
        loop {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
            let count: i64 = postgres.admin.query_one(sql, &[&postgres.name]).await.expect("a count").get(0);
            if count == 1 {
                return;
            }
        }
    };
    harness.work_until(waiting).await;
    harness.crash();
    client.batch_execute("COMMIT").await.unwrap();
    harness.start().await;
    harness.drain().await;
    assert_eq!(outcomes(&only(&harness).await), ["unknown", "delivered"]);
    assert_eq!(rows(&client).await.len(), 1);
    drop(harness);
    postgres.end().await;
}

#[tokio::test]
async fn a_thousand_results_keep_to_the_rate() {
    let (postgres, client) = Postgres::with(TABLE).await;
    let mut harness = start(&postgres.section(&format!("rate = 600\n{KEYS}"))).await;
    for number in 0..1_000 {
        offer(&harness, &result(number, "A title", "text")).await;
    }
    let mut counts = Vec::new();
    for _ in 0..130 {
        harness.advance(Duration::from_secs(1)).await;
        counts.push(rows(&client).await.len());
    }
    assert_eq!(counts.last(), Some(&1_000));
    assert!(busiest_minute(&counts) <= 600, "{counts:?}");
    drop(harness);
    postgres.end().await;
}

/// A SQLite file with the table, in the harness's folder once it is there.
fn sqlite(folder: &tempfile::TempDir, keys: &str) -> (String, rusqlite::Connection) {
    let file = folder.path().join("results.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch(TABLE).unwrap();
    (format!("kind = \"sql\"\nurl = \"sqlite://{}\"\n{keys}", file.display()), connection)
}

#[tokio::test]
async fn sqlite_takes_rows_and_knows_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let (section, connection) = sqlite(&folder, KEYS);
    let mut harness = start(&section).await;
    let nasty = "'); DROP TABLE results; --\u{0}";
    let mut event = result(1, nasty, nasty);
    event["n"] = json!(7);
    let delivery = handed(&mut harness, &event).await;
    assert_eq!((&delivery["state"], detail(&delivery)), (&json!("delivered"), "1 row"), "{delivery}");
    let row: (String, String, i64, String, i64) = connection
        .query_row("SELECT task_id, title, finished, json_extract(body, '$.event_id'), n FROM results", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .unwrap();
    assert_eq!(row, ("t1".to_owned(), nasty.replace('\0', "\u{fffd}"), 1, "e1".to_owned(), 7));
}

#[tokio::test]
async fn sqlite_says_no_at_start_and_waits_for_locks() {
    let folder = tempfile::tempdir().unwrap();
    let (section, connection) = sqlite(&folder, "statement = \"INSERT INTO results (taks_id) VALUES (:delivery_id)\"");
    let text = refusal(setup(&section)).await.to_string();
    assert!(text.contains("`statement`: ") && text.contains("taks_id"), "{text}");
    let section = section
        .replace("statement = \"INSERT INTO results (taks_id) VALUES (:delivery_id)\"", &format!("timeout = \"400ms\"\n{KEYS}"));
    let mut harness = start(&section).await;
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let delivery = handed(&mut harness, &result(1, "A title", "text")).await;
    assert_eq!((outcomes(&delivery), detail(&delivery)), (vec!["failed"], "database is locked"));
    connection.execute_batch("COMMIT").unwrap();
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(outcomes(&only(&harness).await), ["failed", "delivered"]);
}

#[tokio::test]
async fn sqlite_gives_up_on_a_constraint_and_is_degraded_without_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (section, _connection) = sqlite(&folder, KEYS);
    let mut harness = start(&section).await;
    let delivery = handed(&mut harness, &numbered(1, &json!(100))).await;
    assert_eq!((&delivery["state"], detail(&delivery)), (&json!("dead"), "CHECK constraint failed: n < 100"));
    let nowhere = section.replace("results.db", "nowhere.db");
    let mut harness = start(&nowhere).await;
    assert!(reasons(&harness).await[0].contains("unable to open database file"));
    let delivery = handed(&mut harness, &numbered(1, &json!(1))).await;
    assert_eq!(outcomes(&delivery), ["failed"]);
    harness.expect_leftover();
}
