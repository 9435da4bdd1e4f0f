//! Files of tasks: saved before their links die, told in the envelope, and never a reason to keep a result back for ever.

mod bounds;
mod guard;
mod mail;
mod place;
mod s3;
mod served;
mod waiting;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use taskhook::event::hex;
use taskhook::simulator::Times;
use taskhook::simulator::manus::{ApiFault, Faults, Plan, WrongAnswer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::{Harness, KEY, Recorder, Setup};
use crate::work::{self, calls, refuse, run, say, start, stopped, types};

/// Files are saved in the test's folder, from this machine.
const SAVES: &str = "[archive]\nurl = \"file://{folder}/files\"\n[outbound]\nallow_private_addresses = true\n";

/// A program whose only destination is `crm`, and that saves files.
fn setup(crm: &Recorder) -> Setup {
    work::setup(crm, "").config(SAVES)
}

/// Has a task live by `plan`, its events all received; its id.
async fn done(harness: &Harness, plan: Plan) -> String {
    let task = harness.manus.create_task(KEY, plan);
    run(harness, &task).await;
    task
}

/// The faults in which calls for files, so many of them, are answered so.
fn on_files(times: Times, answer: WrongAnswer) -> Faults {
    Faults { api: vec![ApiFault::on("/files/", times, answer)], ..Faults::default() }
}

/// The last body that `crm` got, which must be of a stop.
fn result(crm: &Recorder) -> Value {
    let body = crm.bodies().pop().expect("a delivery");
    assert_eq!(body["type"], "task_stopped", "{body}");
    body
}

/// The words for where the files of the result stand.
fn statuses(crm: &Recorder) -> Vec<String> {
    let body = result(crm);
    body["files"].as_array().expect("files").iter().map(|file| file["status"].as_str().expect("a status").to_owned()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Every file below the folder of the archive, relative to it, sorted.
fn kept(harness: &Harness) -> Vec<String> {
    let root = harness.folder().join("files");
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.expect("the folder can be read");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() { folders.push(path) } else { found.push(path.display().to_string()) }
        }
    }
    found.sort_unstable();
    found
}

/// Where content lies in the archive.
fn place_of(sha256: &str) -> String {
    format!("sha256/{}/{sha256}", &sha256[..2])
}

/// The `archive` rows of a task, as the admin API shows them.
async fn rows(harness: &Harness, task: &str) -> Vec<Value> {
    let mut task = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
    serde_json::from_value(task["archive"].take()).expect("a list")
}

/// A web server of a test's own; it ends with the test.
struct Site {
    port: u16,
    /// Path and headers of what was asked for.
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    _server: JoinSet<()>,
}

impl Site {
    /// One that answers with what `answer` makes of path and headers.
    async fn start(answer: impl Fn(&str, &HeaderMap) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let (path, headers) = (request.uri().to_string(), request.headers().clone());
            let response = answer(&path, &headers);
            record.lock().expect("no panic").push((path, headers));
            std::future::ready(response)
        });
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { port, asked, _server: server }
    }

    /// A link to `path`, under the name `host`.
    fn link(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<(String, HeaderMap)> {
        self.asked.lock().expect("no panic").clone()
    }
}

#[tokio::test]
async fn every_file_of_a_task_is_saved_under_its_content_and_told_in_the_envelope() {
    for version in ["v2", "v1"] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm).config(&format!("[sources.manus]\napi_version = \"{version}\""))).await;
        let plan = Plan::finish("Done.")
            .with_file("answer.md", "text/markdown", "# 4\n")
            .with_file("Überblick 1.csv", "text/csv", "name,value\n")
            .with_file("empty.txt", "text/plain", "")
            .with_file("copy of answer.md", "text/markdown", "# 4\n");
        let task = done(&harness, plan).await;
        harness.drain().await;
        assert_eq!(types(&crm), ["task_created", "task_stopped"], "{version}");
        let body = result(&crm);
        let contents: [&[u8]; 4] = [b"# 4\n", b"name,value\n", b"", b"# 4\n"];
        let names = ["answer.md", "Überblick 1.csv", "empty.txt", "copy of answer.md"];
        let files = body["files"].as_array().expect("files");
        assert_eq!(files.len(), 4, "{version}");
        for ((file, content), name) in files.iter().zip(contents).zip(names) {
            assert_eq!((&file["name"], &file["status"]), (&json!(name), &json!("archived")), "{version}");
            assert_eq!((&file["sha256"], &file["size_bytes"]), (&json!(sha256(content)), &json!(content.len())), "{version}");
            assert_eq!(file["link"], Value::Null, "files are not served");
            let lies = harness.folder().join("files").join(place_of(&sha256(content)));
            assert_eq!(fs::read(lies).unwrap(), content, "{version} {name}");
        }
        assert_eq!(files[1]["content_type"], "text/csv", "{version}");
        let mut expected: Vec<_> = contents[..3].iter().map(|content| place_of(&sha256(content))).collect();
        expected.sort_unstable();
        assert_eq!(kept(&harness), expected, "{version}: equal contents once, and nothing beside");
        let shown = harness.admin(&format!("/api/v1/tasks/manus/{task}")).await;
        assert_eq!(shown["files"], body["files"], "{version}");
        assert_eq!(shown["archive"].as_array().map(Vec::len), Some(4), "{version}");
    }
}

#[tokio::test]
async fn without_an_archive_files_are_skipped_and_nothing_is_asked_for() {
    let crm = Recorder::start().await;
    let mut harness = start(work::setup(&crm, "")).await;
    done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    assert_eq!((statuses(&crm), calls(&harness, "/files/")), (vec!["skipped".to_owned()], 0));
}

#[tokio::test]
async fn the_files_of_a_webhook_are_saved_where_its_task_cannot_be_fetched() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let task = harness.manus.create_task(KEY, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4"));
    harness.manus.step(&task).await;
    harness.drain().await;
    harness.manus.set_faults(Faults { api: vec![ApiFault::on("/v2/", Times::Always, refuse(503))], ..Faults::default() });
    run(&harness, &task).await;
    harness.drain().await;
    for _ in 0..12 {
        harness.advance(Duration::from_secs(10)).await;
    }
    let body = result(&crm);
    assert_eq!((&body["task"]["complete"], &body["files"][0]["status"]), (&json!(false), &json!("archived")));
    assert_eq!((&body["files"][0]["sha256"], &body["files"][0]["content_type"]), (&json!(sha256(b"4")), &json!("text/markdown")));
}

#[tokio::test]
async fn files_of_an_event_that_is_only_believed_are_saved_as_well() {
    let crm = Recorder::start().await;
    let site = Site::start(|_, _| Response::new(Body::from("bytes"))).await;
    let open = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";
    let mut harness = start(setup(&crm).config(open)).await;
    for (event_id, task) in [("e1", Some("t1")), ("e2", None)] {
        let mut event = stopped(event_id, "t1");
        event["task_detail"]["attachments"] =
            json!([{"file_name": "a.bin", "url": site.link("127.0.0.1", "/a"), "size_bytes": 5}]);
        if task.is_none() {
            event["task_detail"].as_object_mut().expect("an object").remove("task_id");
        }
        let answer = crate::harness::send(harness.post("/webhooks/open").body(event.to_string())).await;
        assert_eq!(crate::harness::status(&answer), 200);
        harness.drain().await;
        assert_eq!(statuses(&crm), ["archived"], "{event_id}");
    }
}

#[tokio::test]
async fn a_link_that_cannot_be_asked_for_anew_is_tried_a_few_times() {
    let crm = Recorder::start().await;
    let site = Site::start(|_, _| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = axum::http::StatusCode::NOT_FOUND;
        response
    })
    .await;
    let open = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";
    let mut harness = start(setup(&crm).config(open)).await;
    let mut event = stopped("e1", "t1");
    event["task_detail"]["attachments"] = json!([{"file_name": "a.bin", "url": site.link("127.0.0.1", "/a"), "size_bytes": 5}]);
    crate::harness::send(harness.post("/webhooks/open").body(event.to_string())).await;
    harness.drain().await;
    assert_eq!((site.asked().len(), crm.recorded().len()), (1, 0));
    for _ in 0..36 {
        harness.advance(Duration::from_secs(1)).await;
    }
    assert_eq!((statuses(&crm), site.asked().len()), (vec!["failed".to_owned()], 4));
}

#[tokio::test]
async fn a_file_that_was_saved_once_is_not_asked_for_again() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let task = done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    say(&harness, &task, "And now?").await;
    run(&harness, &task).await;
    harness.drain().await;
    // Its task still names it.
    assert_eq!((types(&crm).len(), statuses(&crm)), (3, vec!["archived".to_owned()]));
    assert_eq!(calls(&harness, "/files/"), 1);
}

/// Waits until the event `id` is in the state `archiving`.
async fn archiving(store: taskhook::store::Store, id: String) {
    loop {
        let event = store.event(&id).await.expect("the store can be read");
        if event.is_some_and(|event| event.row.state == "archiving") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_crash_while_files_are_on_their_way_loses_nothing_and_repeats_nothing() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let plan =
        Plan::finish("Done.").with_file("one.txt", "text/plain", "1").with_file("two.txt", "text/plain", "2".repeat(6 << 20));
    let task = done(&harness, plan).await;
    // Whatever is asked for a second time breaks in the midst of it, and then nothing comes any more.
    let never = ApiFault { only: Some("two.txt".to_owned()), times: Times::Always, slow_ms: 3_600_000, answer: None };
    harness
        .manus
        .set_faults(Faults { api: vec![ApiFault::on("two.txt", Times::Next(1), WrongAnswer::Half), never], ..Faults::default() });
    let id = harness.list("events").await[0]["id"].as_str().expect("an id").to_owned();
    let (store, manus) = (harness.store().clone(), harness.manus.clone());
    let half = async {
        archiving(store.clone(), id).await;
        // One is saved, and half of the other has come.
        while work::calls_of(&manus, "/files/") < 2 {
            tokio::task::yield_now().await;
        }
        loop {
            let kept = store.task("manus", &task).await.expect("the store can be read").expect("the task");
            if kept.archive.iter().any(|file| file.sha256.is_some()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    harness.work_until(half).await;
    drop(store);
    harness.crash();
    harness.manus.set_faults(Faults::default());
    harness.start().await;
    harness.drain().await;
    assert_eq!((types(&crm), statuses(&crm)), (vec!["task_created".into(), "task_stopped".into()], vec!["archived".into(); 2]));
    assert_eq!(calls(&harness, "one.txt"), 1, "what was saved is not asked for again");
    let content: Vec<String> = kept(&harness).into_iter().filter(|path| path.starts_with("sha256/")).collect();
    assert_eq!(content.len(), 2, "{content:?}");
    // What was on its way is swept away by a start.
    harness.app().environment.archive.sweep().await;
    assert_eq!(kept(&harness).len(), 2, "{:?}", kept(&harness));
}

#[tokio::test]
async fn a_crash_at_any_call_for_a_file_loses_nothing() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    for call in 1..=4 {
        let before = calls(&harness, "/files/");
        crm.take();
        let plan = (0..4).fold(Plan::finish("Done."), |plan, number| {
            plan.with_file(&format!("{number}.txt"), "text/plain", format!("{call} {number}"))
        });
        done(&harness, plan).await;
        let manus = harness.manus.clone();
        let mut happenings = manus.happenings();
        let called = async {
            while work::calls_of(&manus, "/files/") < before + call {
                happenings.recv().await.expect("the simulator runs");
            }
        };
        harness.work_until(called).await;
        harness.crash();
        harness.start().await;
        harness.drain().await;
        assert_eq!(work::came(&crm), ["task_created", "task_stopped"], "{call}");
        assert_eq!(statuses(&crm), vec!["archived"; 4], "{call}");
        let saved: Vec<_> = (0..4).map(|number| place_of(&sha256(format!("{call} {number}").as_bytes()))).collect();
        assert!(saved.iter().all(|path| harness.folder().join("files").join(path).exists()), "{call}");
    }
}

#[tokio::test]
async fn a_file_that_is_on_its_way_at_a_stop_is_handed_back_and_goes_on_after_it() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let slow = ApiFault { only: Some("/files/".to_owned()), times: Times::Always, slow_ms: 3_600_000, answer: None };
    harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
    done(&harness, Plan::finish("Done.").with_file("a.txt", "text/plain", "4")).await;
    let id = harness.list("events").await[0]["id"].as_str().expect("an id").to_owned();
    let store = harness.store().clone();
    harness.run_worker(Duration::ZERO, archiving(store, id)).await;
    harness.manus.set_faults(Faults::default());
    harness.restart().await;
    harness.drain().await;
    assert_eq!((types(&crm).len(), statuses(&crm)), (2, vec!["archived".to_owned()]));
}

#[tokio::test]
async fn an_archive_that_is_taken_away_lets_everything_go() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Always, refuse(503)));
    done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created"]);
    harness.reconfigure("[archive]\nurl = \"off\"\n");
    harness.restart().await;
    harness.advance(Duration::from_mins(1)).await;
    assert_eq!(statuses(&crm), ["skipped"]);
}
