//! The promise that counts: what was answered 200 is kept and handed on, whoever kills the process and whenever.
//!
//! The built program runs as a process of its own, under load, and is killed with SIGKILL at random moments, thirty times. At the end
//! every acknowledged event must be in the store and at the destination; and one that arrived there twice must have a recorded attempt
//! of unknown outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use taskhook::clock::Clock;
use taskhook::http;
use taskhook::simulator::manus::{Manus, Options, Plan};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{KEY, Recorder, reserve};

/// How often the process is killed.
const KILLS: u32 = 30;
/// Senders at once.
const SENDERS: u32 = 8;
/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);
/// Tasks that the events are about; each has a file of its own.
const TASKS: usize = 200;
/// What the URL that is signed begins with: not where the process listens, which is behind it.
const PUBLIC_URL: &str = "https://hooks.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_under_load_lose_no_acknowledged_event() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let manus = Manus::start(listener, Options { limits: None, ..Options::new(clock.clone()) }, stop.clone());
    let plan = |task| Plan::finish("done").with_file("result.txt", "text/plain", content(task));
    let tasks: Vec<String> = (0..TASKS).map(|task| manus.create_task(KEY, plan(task))).collect();
    manus.finish_all().await;
    let destination = Recorder::start().await;
    // Held for the whole test, so that each process in turn listens on the same ports.
    let ports = (reserve(), reserve());
    let (public, admin) = (ports.0.local_addr().unwrap(), ports.1.local_addr().unwrap());
    let config = configure(folder.path(), public, admin, &manus, &destination);
    let client = http::client(Duration::from_secs(10));
    let sent = AtomicU32::new(0);

    let mut acknowledged = BTreeSet::new();
    for _ in 0..KILLS {
        let mut process = Process::start(&config, folder.path());
        process.ready(&client, admin).await;
        let mut senders = JoinSet::new();
        let killed = CancellationToken::new();
        for _ in 0..SENDERS {
            let first = sent.fetch_add(10_000, Ordering::Relaxed);
            let sender =
                Sender { client: client.clone(), manus: manus.clone(), clock: clock.clone(), to: public, tasks: tasks.clone() };
            let killed = killed.clone();
            senders.spawn(async move { killed.run_until_cancelled_owned(sender.run(first)).await.unwrap_or_default() });
        }
        // The moment of the kill is what this test is about, so it is a moment of real time.
        let (tell, told) = tokio::sync::oneshot::channel();
        let wait = Duration::from_millis(20 + fastrand::u64(..180));
        std::thread::spawn(move || {
            std::thread::sleep(wait);
            let _ = tell.send(());
        });
        told.await.unwrap();
        process.kill();
        while let Some(ids) = tokio::time::timeout(PATIENCE, senders.join_next()).await.expect("senders end with the process") {
            acknowledged.extend(ids.unwrap());
        }
        killed.cancel();
    }
    assert!(acknowledged.len() > KILLS as usize, "there was load: {} events were acknowledged", acknowledged.len());

    let mut process = Process::start(&config, folder.path());
    process.ready(&client, admin).await;
    drained(&client, admin).await;
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for envelope in destination.bodies() {
        *arrived.entry(envelope["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let mut unknown = 0;
    for id in &acknowledged {
        let event = fetch(&client, admin, &format!("/api/v1/events/{id}")).await;
        assert_eq!(event["state"], "done", "an acknowledged event is kept and done: {event}");
        let times = arrived.get(id).copied().unwrap_or_default();
        assert!(times > 0, "an acknowledged event was lost on its way: {event}");
        let attempts = event["deliveries"][0]["attempts"].as_array().unwrap();
        let unknowns = attempts.iter().filter(|attempt| attempt["outcome"] == "unknown").count();
        assert!(times <= 1 + unknowns, "it arrived {times} times, after {unknowns} attempts of unknown outcome: {event}");
        unknown += unknowns;
    }
    // Every file that a result says to be saved is there, whole, and nothing lies beside.
    let (results, archive) = (destination.bodies(), folder.path().join("data/files"));
    let results: Vec<_> = results.iter().filter(|envelope| envelope["type"] == "task_stopped").collect();
    let mut saved = BTreeSet::new();
    for envelope in &results {
        let file = &envelope["files"][0];
        assert_eq!(file["status"], "archived", "{envelope}");
        let task = tasks.iter().position(|task| *task == envelope["task"]["id"]).expect("a task of ours");
        let sha256 = file["sha256"].as_str().unwrap();
        let kept = std::fs::read(archive.join("sha256").join(&sha256[..2]).join(sha256)).expect("it is kept");
        assert_eq!(kept, content(task).into_bytes(), "{envelope}");
        saved.insert(task);
    }
    assert!(saved.len() > TASKS / 10, "there were files: {} of {TASKS}", saved.len());
    let swept = async {
        while std::fs::read_dir(archive.join("incoming")).is_ok_and(|mut left| left.next().is_some()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, swept).await.expect("nothing is left on its way");
    assert!(unknown <= (KILLS * 8) as usize, "{unknown} attempts of unknown outcome: more than can be in hand at {KILLS} kills");
    process.kill();
    stop.cancel();
}

/// What the file of a task holds: enough to be cut off in the midst of it.
fn content(task: usize) -> String {
    format!("the result of task {task}\n").repeat(4_000)
}

/// Sends events one after the other.
struct Sender {
    client: reqwest::Client,
    manus: Manus,
    clock: Clock,
    to: SocketAddr,
    tasks: Vec<String>,
}

impl Sender {
    /// Sends until the first that is not answered; returns the ids of those that were acknowledged.
    async fn run(self, first: u32) -> Vec<String> {
        let mut acknowledged = Vec::new();
        for number in first..first + 10_000 {
            // Each sender begins with other tasks.
            let task = &self.tasks[(number / 10_000 * 7 + number) as usize % self.tasks.len()];
            let body = match number % 5 {
                0 => json!({"event_id": format!("task_stopped_{task}_{number}"), "event_type": "task_stopped",
                    "task_detail": {"task_id": task, "task_title": "T", "message": "done", "stop_reason": "finish"}}),
                _ => json!({"event_id": format!("task_progress_{task}_{number}"), "event_type": "task_progress",
                    "progress_detail": {"task_id": task, "progress_type": "plan_update", "message": "a step"}}),
            }
            .to_string();
            let headers = self.manus.sign(&format!("{PUBLIC_URL}/webhooks/manus"), body.as_bytes(), self.clock.now().as_second());
            let request = self.client.post(format!("http://{}/webhooks/manus", self.to)).headers(headers).body(body);
            let Ok(answer) = http::send(request, Duration::from_secs(10), 4096).await else { break };
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            let answer: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(answer["status"], "accepted");
            acknowledged.push(answer["id"].as_str().unwrap().to_owned());
        }
        acknowledged
    }
}

/// The program, as a process.
struct Process(Child);

impl Process {
    fn start(config: &Path, folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskhook"));
        command.arg("--config").arg(config).arg("serve").current_dir(folder).env_clear();
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits until it accepts events.
    async fn ready(&mut self, client: &reqwest::Client, admin: SocketAddr) {
        let ready = async {
            loop {
                let answer = http::send(client.get(format!("http://{admin}/readyz")), PATIENCE, 1 << 16).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
                assert_eq!(self.0.try_wait().unwrap(), None, "it ended by itself");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("it gets ready");
    }

    /// SIGKILL, and the end of it.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Waits until no work is left.
async fn drained(client: &reqwest::Client, admin: SocketAddr) {
    let drained = async {
        while fetch(client, admin, "/api/v1/stats").await["jobs"] != json!([]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.expect("the work is done");
}

async fn fetch(client: &reqwest::Client, admin: SocketAddr, path: &str) -> Value {
    let answer = http::send(client.get(format!("http://{admin}{path}")), PATIENCE, 1 << 20).await.unwrap();
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// The configuration of the process: the simulator is its provider, the recorder its destination.
fn configure(folder: &Path, public: SocketAddr, admin: SocketAddr, manus: &Manus, destination: &Recorder) -> PathBuf {
    let file = folder.join("taskhook.toml");
    let toml = format!(
        "[server]\nlisten = \"{public}\"\npublic_url = \"{PUBLIC_URL}\"\n[admin]\nlisten = \"{admin}\"\n[store]\nmin_free_bytes = 0\n\
         [archive]\nmin_free_bytes = 0\n[outbound]\nallow_private_addresses = true\n\
         [sources.manus]\nprovider = \"manus\"\napi_key = \"{KEY}\"\nbase_url = \"{}\"\nrequests_per_minute = 6000000\n\
         {}\n[[routes]]\nto = \"crm\"\n",
        manus.base_url(),
        destination.section("crm", ""),
    );
    std::fs::write(&file, toml).unwrap();
    file
}
