//! How PostgreSQL does what is done all the time, in a store with many rows: as it tells of the store's own statements while they run.
//!
//! What must hold: what is hot finds its rows by an index, and looks at no more of them than a page or a turn holds. What counts
//! everything, for metrics and at a start, is not looked at here.

use std::sync::{Arc, Mutex};

use taskhook::store::Span;
use taskhook::store::model::{Act, FileRow, Like, NewFile, Progress, Proof, Select, TaskNews, Told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::harness::postgres;

/// Tables that grow.
const GROWING: [&str; 12] = [
    "events",
    "task_events",
    "open_events",
    "tasks",
    "fetched_tasks",
    "jobs",
    "deliveries",
    "delivery_bodies",
    "attempts",
    "files",
    "archiving",
    "stops",
];
/// The most rows that one step of a plan may look at: some pages, and some turns.
const MOST: f64 = 3000.0;

/// What has the server tell the plan of each statement that a session runs.
const TELLING: [&str; 7] = [
    "session_preload_libraries=auto_explain",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_level=notice",
    "auto_explain.log_format=json",
    "auto_explain.log_analyze=on",
    "auto_explain.log_nested_statements=on",
    "auto_explain.log_timing=off",
];

/// A way to the server, on which what it tells beside its answers is heard.
struct Wire {
    url: String,
    heard: Arc<Mutex<Vec<Value>>>,
    _listening: JoinSet<()>,
}

impl Wire {
    async fn new() -> Self {
        let mut url: url::Url = postgres::server().parse().unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.set_query(Some(&format!("sslmode=disable&options={}", TELLING.map(|setting| format!("-c%20{setting}")).join("%20"))));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (mut listening, told) = (JoinSet::new(), Arc::clone(&heard));
        listening.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let told = Arc::clone(&told);
                ways.spawn(pass(from_client, to_server, |_| {}));
                let mut messages = Messages::default();
                ways.spawn(pass(from_server, to_client, move |bytes| {
                    told.lock().unwrap().extend(messages.take(bytes).iter().filter_map(|message| plan(message)));
                }));
            }
        });
        Self { url: url.into(), heard, _listening: listening }
    }
}

/// Passes on what comes, and shows it to `see` before.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut see: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        see(&bytes[..count]);
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// The messages of a server, put together from what comes.
#[derive(Default)]
struct Messages {
    rest: Vec<u8>,
}

impl Messages {
    /// The text of each notice in what came.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut notices = Vec::new();
        // A type of one byte, then the length of what follows, itself included.
        while let Some(length) = self.rest.get(1..5).map(|length| u32::from_be_bytes(length.try_into().unwrap()) as usize) {
            if self.rest.len() < length + 1 {
                break;
            }
            let message: Vec<u8> = self.rest.drain(..=length).collect();
            if message[0] == b'N' {
                // Fields that end with a zero, each with its name in one byte: `M` is the text.
                let text = message[5..].split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M"));
                notices.extend(text.map(|text| String::from_utf8_lossy(text).into_owned()));
            }
        }
        notices
    }
}

/// The plan that a notice tells.
fn plan(notice: &str) -> Option<Value> {
    let (_, json) = notice.split_once("plan:\n")?;
    Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}")))
}

/// The statement that was planned.
fn statement(plan: &Value) -> &str {
    plan["Query Text"].as_str().unwrap_or_default()
}

/// What is wrong with a step of a plan, or with one below it: it may not look at more than `most` rows.
fn complaints(step: &Value, most: f64, found: &mut Vec<String>) {
    let number = |name: &str| step[name].as_f64().unwrap_or(0.0);
    let table = step["Relation Name"].as_str().unwrap_or_default();
    let kind = step["Node Type"].as_str().unwrap_or_default();
    if GROWING.contains(&table) && kind.contains("Seq Scan") {
        found.push(format!("it goes through all of `{table}`"));
    }
    let rows = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let looked_at = rows * number("Actual Loops");
    if looked_at > most {
        let index = step["Index Name"].as_str().unwrap_or_default();
        found.push(format!("a step looks at {looked_at} rows ({kind} {table} {index})"));
    }
    for below in step["Plans"].as_array().into_iter().flatten() {
        complaints(below, most, found);
    }
}

/// Rows as a store has them that has run for a while: events that were delivered, that are to be proven, that are stuck, dead letters,
/// deliveries that wait, files.
const ROWS: &str = "
    INSERT INTO tasks (source, task_id, proof, first_seen_at)
        SELECT 'manus', 't' || n, CASE WHEN n % 2 = 0 THEN 'listed' END, '2026-01-15Z' FROM generate_series(0, 9999) AS n;
    INSERT INTO events (id, key, source, provider, type, event_id, task_id, received_at, verification, target, headers, body)
        SELECT gen_random_uuid(), gen_random_uuid(), 'manus', 'manus', 'task_stopped', 'e' || n, 't' || n % 10000,
        '2026-01-15Z'::timestamptz + n * interval '1 second', 'signature', '/webhooks/manus', '[]', '{}' FROM generate_series(1, 40000) AS n;
    INSERT INTO task_events SELECT tasks.seq, events.seq FROM events JOIN tasks USING (source, task_id) ON CONFLICT DO NOTHING;
    INSERT INTO open_events (subject, event, state) SELECT tasks.seq, events.seq,
        CASE WHEN events.seq > 39800 THEN 'quarantined' WHEN events.seq > 39600 THEN 'dead' WHEN events.seq > 35000 THEN 'archiving'
        WHEN events.seq > 32000 THEN 'fetching' ELSE 'proving' END
        FROM events JOIN tasks USING (source, task_id) WHERE events.seq > 24000;
    INSERT INTO jobs (kind, queue, subject, settled, state, due_at, created_at) SELECT DISTINCT
        CASE state WHEN 'proving' THEN 'prove' WHEN 'fetching' THEN 'fetch' ELSE 'archive' END, 'manus', subject,
        state = 'proving' AND subject % 2 = 1, 'due', '2026-01-15Z'::timestamptz, '2026-01-15Z'::timestamptz
        FROM open_events WHERE state IN ('proving', 'fetching', 'archiving');
    INSERT INTO archiving (event, subject, told, since, out_of_order)
        SELECT event, subject, 'fetched', '2026-01-15Z', false FROM open_events WHERE state = 'archiving';
    INSERT INTO files (subject, key, event, name, url, status, sha256, due_at, first_seen_at) SELECT subject, 'k' || n, event, 'n', 'u',
        CASE WHEN n = 0 THEN 'pending' ELSE 'archived' END, CASE WHEN n > 0 THEN md5(event || '-' || n) END, '2026-01-15Z', '2026-01-15Z'
        FROM archiving, generate_series(0, 3) AS n ON CONFLICT DO NOTHING;
    INSERT INTO files (subject, key, event, name, status, sha256, first_seen_at)
        SELECT seq, 'old', seq, 'n', 'archived', md5('old' || seq), '2026-01-15Z' FROM tasks;
    INSERT INTO fetched_tasks SELECT seq, '{}', '[]', '{}' FROM tasks WHERE seq % 2 = 0;
    INSERT INTO deliveries (id, event, destination, route, lane, state, created_at)
        SELECT gen_random_uuid(), event, destination, 'all', task, CASE WHEN event <= 12000 THEN 'delivered'
        WHEN event <= 12100 THEN 'dead' ELSE 'pending' END, '2026-01-15Z' FROM task_events, unnest(ARRAY['crm', 'log']) AS destination
        WHERE event <= 24000 ORDER BY event ON CONFLICT DO NOTHING;
    INSERT INTO delivery_bodies SELECT seq, '{\"out_of_order\":false}' FROM deliveries ON CONFLICT DO NOTHING;
    INSERT INTO attempts SELECT seq, 1, '2026-01-15Z', '2026-01-15Z', CASE WHEN state = 'delivered' THEN 'delivered' ELSE 'failed' END
        FROM deliveries WHERE state <> 'pending' ON CONFLICT DO NOTHING;
    INSERT INTO jobs (kind, queue, subject, state, due_at, created_at)
        SELECT 'deliver', destination, min(seq), 'due', '2026-01-15Z', '2026-01-15Z' FROM deliveries
        WHERE state = 'pending' GROUP BY destination, lane ON CONFLICT DO NOTHING;
    INSERT INTO jobs (kind, queue, subject, state, due_at, created_at)
        SELECT 'deliver', destination, max(seq), 'waiting', '2026-01-14Z', '2026-01-14Z' FROM deliveries
        WHERE state = 'pending' AND destination = 'log' GROUP BY destination, lane ON CONFLICT DO NOTHING;
    INSERT INTO stops (source, task_id, anchor, state, event, recovered, claimed_at)
        SELECT source, task_id, event_id, 'stopped', id, false, '2026-01-15Z' FROM events WHERE seq % 4 > 0 ON CONFLICT DO NOTHING;
";

/// A store with many rows, whose plans are heard.
struct Large {
    store: Store,
    wire: Wire,
    complaints: Vec<String>,
    statements: usize,
    database: Database,
}

impl Large {
    async fn new() -> Self {
        let mut database = Database::postgres().await;
        database.store = None;
        let beside = database.schema().connect().await;
        beside.batch_execute(ROWS).await.unwrap();
        Self::analyze(&beside).await;
        Self::on(database).await
    }

    /// One that was opened while it was empty, did some of everything, and has grown since, of which the server's statistics know nothing.
    async fn grown() -> Self {
        let mut database = Database::postgres().await;
        database.store = None;
        let beside = database.schema().connect().await;
        // What the server finds out by itself it would find out at some time.
        let still = "DO $$ DECLARE name text; BEGIN FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() \
                     LOOP EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = off)', name); END LOOP; END $$";
        beside.batch_execute(still).await.unwrap();
        Self::analyze(&beside).await;
        let large = Self::on(database).await;
        let store = &large.store;
        for number in 0..40 {
            store.append(event(&format!("early{number}"), Some(&format!("early{}", number % 20)), &json!({}))).await.unwrap();
        }
        for round in 0..8 {
            for kind in [JobKind::Prove, JobKind::Fetch, JobKind::Deliver] {
                let queue = if kind == JobKind::Deliver { "crm" } else { "manus" };
                let capacity = Capacity { kind, queue: queue.to_owned(), which: Which::Any, limit: 4 };
                for job in store.claim(vec![capacity], at(0)).await.unwrap().jobs {
                    let moves = match (&job.work, kind) {
                        (Work::Task { .. }, JobKind::Prove) => {
                            waiting(&job).into_iter().map(|event| Move { event, to: Stage::Fetch }).collect()
                        }
                        (Work::Task { .. }, _) => {
                            let made = || Stage::Done(vec![delivery("crm", None), delivery("log", None)]);
                            waiting(&job).into_iter().map(|event| Move { event, to: made() }).collect()
                        }
                        _ => Vec::new(),
                    };
                    let news = TaskNews { proof: Some("listed"), probed: true, ..TaskNews::default() };
                    let task = if kind == JobKind::Deliver { TaskNews::default() } else { news };
                    if round % 2 == 1 && kind == JobKind::Deliver {
                        assert!(store.retry(job.lease, at(0), at(9), setback("503")).await.unwrap());
                    } else {
                        assert!(store.finish(job.lease, at(0), Finish { moves, task, ..Finish::default() }).await.unwrap());
                    }
                }
            }
        }
        beside.batch_execute(ROWS).await.unwrap();
        // A connection plans anew after some transactions, and each has its turn.
        for _ in 0..1000 {
            assert!(!large.store.renew(Lease { job: 0, attempt: 1 }).await.unwrap());
        }
        large.wire.heard.lock().unwrap().clear();
        large
    }

    async fn analyze(beside: &postgres::Connection) {
        let tables: Vec<String> = beside
            .query("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()", &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        beside.batch_execute(&format!("VACUUM ANALYZE {}", tables.join(", "))).await.unwrap();
    }

    async fn on(database: Database) -> Self {
        let wire = Wire::new().await;
        let config = Config { url: Config::new(wire.url.clone()).url, ..database.config() };
        let store = Store::open(&config, database.clock.clone()).await.unwrap();
        wire.heard.lock().unwrap().clear();
        Self { store, wire, complaints: Vec::new(), statements: 0, database }
    }

    /// Leaves what the statement with these words did out of what is looked at: it counts everything.
    fn leave_out(&self, words: &str) {
        let mut heard = self.wire.heard.lock().unwrap();
        let all = heard.len();
        heard.retain(|plan| !statement(plan).contains(words));
        assert!(heard.len() < all, "no statement says {words}");
    }

    /// Asserts that each plan of the statement with these words was made for any value: it names what it was not told, as `parameter`.
    fn serve_any_value(&self, words: &str, parameter: &str) {
        let heard = self.wire.heard.lock().unwrap();
        let plans: Vec<_> = heard.iter().filter(|plan| statement(plan).contains(words)).collect();
        assert!(!plans.is_empty(), "no statement says {words}");
        for plan in plans {
            assert!(plan["Plan"].to_string().contains(parameter), "it was planned for its values: {plan}");
        }
    }

    /// Looks at how what was just done, `what`, was done.
    fn look(&mut self, what: &str) {
        self.look_for(what, MOST);
    }

    /// The same where rows are looked through for what a person seeks.
    fn look_at_search(&mut self, what: &str) {
        self.look_for(what, f64::INFINITY);
    }

    fn look_for(&mut self, what: &str, most: f64) {
        let plans = std::mem::take(&mut *self.wire.heard.lock().unwrap());
        assert!(!plans.is_empty(), "{what}: nothing was heard");
        self.statements += plans.len();
        for plan in plans {
            let mut found = Vec::new();
            complaints(&plan["Plan"], most, &mut found);
            self.complaints.extend(found.into_iter().map(|complaint| format!("{what}: {complaint}\n    {}", statement(&plan))));
        }
    }

    async fn claim(&self, kind: JobKind, queue: &str, which: Which) -> Job {
        let capacity = Capacity { kind, queue: queue.to_owned(), which, limit: 4 };
        let mut jobs = self.store.claim(vec![capacity], at(0)).await.unwrap().jobs;
        assert_eq!(jobs.len(), 4);
        jobs.remove(0)
    }
}

#[tokio::test]
async fn what_is_hot_looks_at_few_rows() {
    let mut large = Large::new().await;
    keeping(&mut large).await;
    working(&mut large).await;
    archiving(&mut large).await;
    by_hand(&mut large).await;
    reading(&mut large).await;
    sampling(&mut large).await;
    removing(&mut large).await;
    assert!(large.statements > 100, "{} plans were heard", large.statements);
    let Large { complaints, database, .. } = large;
    drop(database);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test]
async fn what_was_planned_while_the_store_was_empty_looks_at_few_rows_when_it_has_grown() {
    let mut large = Large::grown().await;
    keeping(&mut large).await;
    working(&mut large).await;
    archiving(&mut large).await;
    let Large { complaints, database, .. } = large;
    drop(database);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

async fn keeping(large: &mut Large) {
    let new = |name: &str, n: usize| event(name, Some("t17"), &json!({"n": n}));
    // Few: of many, it may be quicker to go through a table of this size, but not of any.
    let events =
        (0..10).map(|number| large.store.append(event(&format!("new{number}"), Some(&format!("t{number}")), &json!({}))));
    assert!(futures_util::future::join_all(events).await.into_iter().all(|appended| appended.is_ok()));
    large.look("append");
    for (name, n) in [("new", 1), ("new", 1), ("new", 2), ("new", 2)] {
        large.store.append(new(name, n)).await.unwrap();
    }
    large.look("append of what is known");
    large.store.append(NewEvent { first: First::Quarantine, ..event("homeless", None, &json!({})) }).await.unwrap();
    let intake = Capacity { kind: JobKind::Prove, queue: "second".into(), which: Which::Any, limit: 1 };
    large.store.claim(vec![intake.clone()], at(0)).await.unwrap();
    large.look("intake");
    large.store.claim(vec![intake], at(0)).await.unwrap();
    large.look("claim of nothing");
}

async fn working(large: &mut Large) {
    let mut leases = Vec::new();
    for which in [Which::Any, Which::Settled, Which::Unsettled] {
        let job = large.claim(JobKind::Prove, "manus", which).await;
        large.serve_any_value("probes, EXISTS", "ANY ($1)");
        large.look("claim of a task to be proven");
        leases.push(job.lease);
        let news = TaskNews { proof: Some("listed"), probed: true, ..TaskNews::default() };
        let event = waiting(&job)[0];
        let moves = vec![Move { event, to: Stage::Done(vec![delivery("crm", None), delivery("log", None)]) }];
        assert!(large.store.finish(job.lease, at(0), Finish { moves, task: news, ..Finish::default() }).await.unwrap());
        large.look("finish of a proof");
    }
    let job = large.claim(JobKind::Fetch, "manus", Which::Any).await;
    large.look("claim of a fetch");
    assert!(large.store.retry(job.lease, at(0), at(9), setback("503")).await.unwrap());
    large.look("retry of a fetch");
    for end in ["finish", "retry", "bury", "hand back"] {
        let job = large.claim(JobKind::Deliver, "crm", Which::Any).await;
        large.look("claim of a delivery");
        assert!(large.store.renew(job.lease).await.unwrap());
        large.look("renew");
        match end {
            "finish" => assert!(large.store.finish(job.lease, at(0), Finish::default()).await.unwrap()),
            "retry" => assert!(large.store.retry(job.lease, at(0), at(9), setback("503")).await.unwrap()),
            "bury" => assert!(large.store.bury(job.lease, at(0), setback("410")).await.unwrap()),
            _ => large.store.hand_back(vec![job.lease], at(0)).await.unwrap(),
        }
        large.look(end);
    }
    large.claim(JobKind::Deliver, "log", Which::Any).await;
    large.serve_any_value("SET out_of_order = true", "ANY ($1)");
    large.look("claim of a delivery that waited long enough");
    large.store.claims("manus", "t17").await.unwrap();
    large.look("claims");
    large.store.unclaimed("manus", "t20", &["task_stopped"]).await.unwrap();
    large.look("unclaimed");
    large.store.expire(at(0)).await.unwrap();
    large.look("expire");
    let proofs = (0..10).map(|number| Proof { task_id: format!("t{number}"), how: "listed", title: None, url: None }).collect();
    large.store.record_proofs("manus", proofs, at(0)).await.unwrap();
    large.look("record proofs");
    large.store.track("manus", tracked("t7", "video"), at(0)).await.unwrap();
    large.look("track");
    large.store.check().await.unwrap();
    large.look("check");
}

async fn archiving(large: &mut Large) {
    let job = large.claim(JobKind::Archive, "manus", Which::Any).await;
    large.look("claim of files");
    let Work::Files { subject, .. } = job.work else { panic!("{job:?}") };
    let rows = large.store.files(subject).await.unwrap();
    large.look("files");
    let events = large.store.waiting_for_files(subject).await.unwrap();
    large.look("waiting for files");
    let (row, event) = (rows[0].clone(), events[0].event.seq);
    let renewed = NewFile {
        key: "new".into(),
        event,
        name: "n".into(),
        url: Some("u".into()),
        content_type: None,
        size_bytes: None,
        refused: None,
    };
    let row = FileRow { status: taskhook::task::FileStatus::Archived, sha256: Some("aa".into()), ..row };
    let moves = vec![Move { event, to: Stage::Done(vec![delivery("crm", None)]) }];
    let progress = Progress { files: vec![row], renewed: vec![renewed.clone()], moves, ..Progress::default() };
    assert!(large.store.progress(job.lease, at(0), progress).await.unwrap());
    large.look("progress");
    assert!(large.store.finish(job.lease, at(0), Finish::default()).await.unwrap());
    large.look("finish of files");
    let job = large.claim(JobKind::Prove, "manus", Which::Any).await;
    let event = waiting(&job)[0];
    let moves = vec![Move { event, to: Stage::Archive { told: Told::Fetched, out_of_order: false, may_repeat: false } }];
    let files = vec![NewFile { event, ..renewed }];
    assert!(large.store.finish(job.lease, at(0), Finish { moves, files, ..Finish::default() }).await.unwrap());
    large.look("finish of a proof whose files are archived");
    large.store.deletions().await.unwrap();
    large.look("deletions");
}

async fn by_hand(large: &mut Large) {
    let listed = |state: &str| {
        let like = Like { state: Some(state.into()), ..Like::default() };
        large.store.deliveries(like, Page { limit: 50, cursor: None })
    };
    let (dead, pending) = (listed("dead").await.unwrap().data, listed("pending").await.unwrap().data);
    large.look("deliveries by state");
    large.store.retry_delivery(&dead[0].id, at(0)).await.unwrap();
    large.look("retry a delivery");
    large.store.discard_delivery(&pending[0].id, at(0)).await.unwrap();
    large.look("discard a delivery");
    large.store.replay_event(&dead[1].event, at(0)).await.unwrap();
    large.look("replay");
    let (mut some, mut after) = (Vec::new(), Some(0));
    while let Some(behind) = after.filter(|_| some.is_empty()) {
        let page = large.store.matching(Select::Deliveries(Like::default()), behind).await.unwrap();
        large.look_at_search("matching deliveries");
        (some, after) = (page.rows, page.next);
    }
    assert!(!some.is_empty());
    large.store.act(Act::Discard, some, at(0)).await.unwrap();
    large.look("act");
    large.store.matching(Select::Events(Like { task: Some("t33".into()), ..Like::default() }), 0).await.unwrap();
    large.look_at_search("matching events of a task");
    large.store.pause("log", at(0)).await.unwrap();
    large.look("pause");
    large.store.release("00000000-0000-7000-8000-000000000000", at(0)).await.unwrap();
    large.look("release");
}

async fn reading(large: &mut Large) {
    let all = EventFilter::default;
    let some = |state: &str| EventFilter { state: Some(state.to_owned()), ..all() };
    for (what, filter) in [
        ("all events", all()),
        ("events of a source", EventFilter { source: Some("manus".into()), ..all() }),
        ("events of a task", EventFilter { task_id: Some("t44".into()), ..all() }),
        ("events of a task and a source", EventFilter { task_id: Some("t44".into()), source: Some("manus".into()), ..all() }),
        ("events in quarantine", some("quarantined")),
        ("dead events", some("dead")),
    ] {
        for cursor in [None, Some(20_000)] {
            large.store.events(filter.clone(), Page { limit: 50, cursor }).await.unwrap();
            large.look(what);
        }
    }
    let hours = |from: i64, to: i64| (Some(at(from * 3600)), Some(at(to * 3600)));
    for (from, to) in [(-6, -5), (-12, -9), (-20, 9), (9, 99)] {
        let (since, until) = hours(from, to);
        let filter = EventFilter { since, until, ..all() };
        large.store.events(filter.clone(), Page { limit: 50, cursor: None }).await.unwrap();
        large.store.events_after(filter, Page { limit: 50, cursor: Some(0) }).await.unwrap();
        large.store.deliveries(Like { since, until, ..Like::default() }, Page { limit: 50, cursor: None }).await.unwrap();
        large.store.tasks(TaskFilter { since, until, ..TaskFilter::default() }, Page { limit: 50, cursor: None }).await.unwrap();
        large.look("what came within a time");
    }
    for cursor in [0, 20_000, 40_000] {
        for filter in [all(), some("quarantined"), EventFilter { task_id: Some("t44".into()), ..all() }] {
            large.store.events_after(filter, Page { limit: 50, cursor: Some(cursor) }).await.unwrap();
        }
        large.store.deliveries_after(Like::default(), Page { limit: 50, cursor: Some(cursor) }).await.unwrap();
        large.store.tasks_after(TaskFilter::default(), Page { limit: 50, cursor: Some(cursor) }).await.unwrap();
        large.look("what is newer");
    }
    let text = Some("t44".to_owned());
    large.store.events(EventFilter { text: text.clone(), ..all() }, Page { limit: 50, cursor: None }).await.unwrap();
    large.store.tasks(TaskFilter { text, ..TaskFilter::default() }, Page { limit: 50, cursor: None }).await.unwrap();
    // The newest of them are looked through.
    large.look_for("text", 10_001.0);
    large.store.events(some("done"), Page { limit: 50, cursor: None }).await.unwrap();
    large.look_at_search("events that are done with");
    let listed = large.store.events(all(), Page { limit: 1, cursor: Some(7000) }).await.unwrap().data.remove(0);
    large.look("one event of a list");
    let event = large.store.event(&listed.id).await.unwrap().unwrap();
    large.look("an event");
    large.store.event_ids(&listed.id[..13], 9).await.unwrap();
    large.look("ids of events");
    large.store.stored_event(7000).await.unwrap();
    large.look("a stored event");
    large.store.delivery(&event.deliveries[0].id).await.unwrap().unwrap();
    large.look("a delivery");
    large.store.delivery_ids(&event.deliveries[0].id[..13], 9).await.unwrap();
    large.look("ids of deliveries");
    large.store.deliveries(Like::default(), Page { limit: 50, cursor: None }).await.unwrap();
    large.look("all deliveries");
    for state in [None, Some("open"), Some("waiting")] {
        let filter = TaskFilter { source: Some("manus".into()), state: state.map(str::to_owned), ..TaskFilter::default() };
        large.store.tasks(filter, Page { limit: 50, cursor: Some(5000) }).await.unwrap();
    }
    large.look("tasks");
    large.store.task("manus", "t44").await.unwrap().unwrap();
    large.look("a task");
    large.store.fetched("manus", "t45").await.unwrap();
    large.look("a fetched task");
}

async fn sampling(large: &mut Large) {
    // Some minutes after the last event; the first sample has none to go on from.
    for minute in [11, 12] {
        assert!(large.store.sample(at(minute * 60 - 60 * 60)).await.unwrap());
        for counting in ["(SELECT count(*) FROM jobs)", "SELECT kind, min(due_at)"] {
            large.leave_out(counting);
        }
        large.look("a sample");
    }
    assert!(large.store.sample(at(5)).await.unwrap());
    for counting in ["(SELECT count(*) FROM jobs)", "SELECT kind, min(due_at)"] {
        large.leave_out(counting);
    }
    large.look("a sample that ends an hour");
    large.store.series(Span::Minute, at(-3600)).await.unwrap();
    large.look("a series");
}

async fn removing(large: &mut Large) {
    let page = large.store.done_events(0, at(86_400), at(86_400)).await.unwrap();
    large.look("a page of what may go");
    let rows: Vec<_> = page.rows.into_iter().map(|(seq, _)| seq).take(10).collect();
    assert!(!rows.is_empty());
    large.store.remove_events(rows, at(86_400)).await.unwrap();
    large.look("removal");
    large.store.bare_tasks(0, at(86_400), at(86_400)).await.unwrap();
    large.look("a page of bare tasks");
    large.store.unwanted_files("").await.unwrap();
    large.look("unwanted files");
    large.store.holding("manus", "t50").await.unwrap();
    large.look("what is held of a task");
    large.store.erase("manus", "t50", at(0)).await.unwrap();
    large.look("erasure");
}

#[test]
fn a_bad_plan_is_caught() {
    let step = |kind: &str, table: &str, rows: f64, loops: f64| json!({"Node Type": "Limit", "Plans": [{"Node Type": kind, "Relation Name": table, "Actual Rows": rows, "Actual Loops": loops}]});
    let told = |step: &Value| {
        let mut found = Vec::new();
        complaints(step, MOST, &mut found);
        found.len()
    };
    assert_eq!(told(&step("Index Scan", "events", 20.0, 10.0)), 0);
    assert_eq!(told(&step("Seq Scan", "paused", 1.0, 1.0)), 0);
    assert_eq!(told(&step("Seq Scan", "jobs", 1.0, 1.0)), 1);
    assert_eq!(told(&step("Index Scan", "events", 20.0, 1000.0)), 1);
}

#[test]
fn notices_are_put_together_from_pieces() {
    let text = b"N\0\0\0\x11SLOG\0Mplan\0\0\0Z\0\0\0\x05IN\0\0\0\x08Mx\0\0";
    for at in 0..text.len() {
        let mut messages = Messages::default();
        let mut found = messages.take(&text[..at]);
        found.extend(messages.take(&text[at..]));
        assert_eq!(found, ["plan", "x"], "{at}");
    }
}
