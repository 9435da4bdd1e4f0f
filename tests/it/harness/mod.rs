//! The real program with a test's hands on it: its listeners on ports of their own, its store in a folder of its own, a clock that
//! moves when told, and a [`Manus`] that stands in for the provider.
//!
//! A test speaks to it from outside, by HTTP. Nothing happens by itself: [`Harness::drain`] does the work that is due, and
//! [`Harness::advance`] lets time pass. Limits of outbound HTTP calls run on real time all the same. A test that leaves jobs behind
//! fails, unless it says [`Harness::expect_leftover`].

mod destination;
mod own;
pub(crate) mod postgres;
mod setup;
mod slack;
mod smtp;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;
use taskhook::app::App;
use taskhook::clock::{self, Clock};
use taskhook::destination::log::Output;
use taskhook::http::guard::Names;
use taskhook::http::{self, Answer};
use taskhook::receive::rejections::Keeper;
use taskhook::simulator::manus::Manus;
use taskhook::store::Store;
use taskhook::store::model::JobKind;
use taskhook::store::upkeep::Removed;
use taskhook::upkeep::Upkeep;
use taskhook::worker::Worker;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

pub(crate) use destination::{Recorded, Recorder, Reply, closed_address};
pub(crate) use setup::{Setup, Work, merge, refusal, reserve};
pub(crate) use slack::{CHANNEL, Mood, Slack, TOKEN};
pub(crate) use smtp::{LOGIN, Manner, Smtp};
pub(crate) use wire::{Wire, code, json, status};

/// The API key of the account that is ours.
pub(crate) const KEY: &str = "sk-test";
/// How long anything may take, in real time, before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running program.
pub(crate) struct Harness {
    /// Its time.
    pub(crate) clock: Clock,
    /// Its provider, where [`KEY`] is our account.
    pub(crate) manus: Manus,
    /// What its `log` destinations wrote.
    pub(crate) log: Output,
    app: Option<App>,
    worker: Option<Worker>,
    keeper: Option<Keeper>,
    upkeep: Option<Upkeep>,
    client: reqwest::Client,
    /// The configuration, laid over the harness's own.
    toml: String,
    keys: bool,
    work: Work,
    names: Names,
    leftover: bool,
    folder: TempDir,
    /// Holds the port of the public listener over restarts.
    port: TcpSocket,
    simulator: CancellationToken,
}

impl Harness {
    /// The program as the harness configures it: one source, `manus`, whose key is loaded, and no route.
    pub(crate) async fn new() -> Self {
        Setup::new().start().await
    }

    /// The same with this configuration laid over it.
    pub(crate) async fn with(toml: &str) -> Self {
        Setup::new().config(toml).start().await
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("the program runs")
    }

    /// What requests to servers beside it are made by.
    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) fn store(&self) -> &Store {
        &self.app().store
    }

    /// The folder of the store.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder().join("taskhook.db")
    }

    /// The address of the public listener, the same after a restart.
    pub(crate) fn public(&self) -> SocketAddr {
        self.port.local_addr().expect("a bound socket has an address")
    }

    /// Where senders reach `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public())
    }

    /// Does all work that is due now, and what follows from it.
    pub(crate) async fn drain(&mut self) {
        let worker = self.worker.as_mut().expect("the program runs");
        within("the work that is due", worker.run_due()).await.expect("the store takes writes");
        self.keeper.as_mut().expect("the program runs").keep_waiting().await;
    }

    /// Lets time pass, then does what is due.
    pub(crate) async fn advance(&mut self, time: Duration) {
        self.clock.advance(SignedDuration::try_from(time).expect("a test's time is short"));
        self.drain().await;
    }

    /// Removes what may go now.
    pub(crate) async fn keep_up(&mut self) -> Removed {
        let upkeep = self.upkeep.as_mut().expect("the program runs");
        within("upkeep", upkeep.pass()).await.expect("the store takes writes")
    }

    /// Takes the sample of the minute that ended last.
    pub(crate) async fn sample(&mut self) -> bool {
        let upkeep = self.upkeep.as_mut().expect("the program runs");
        within("a sample", upkeep.sample()).await.expect("the store takes writes")
    }

    /// Works until `done`, then stops in the midst of it.
    pub(crate) async fn work_until<T>(&mut self, done: impl Future<Output = T>) -> T {
        let worker = self.worker.as_mut().expect("the program runs");
        within("the moment to stop work", async {
            tokio::pin!(done);
            tokio::select! {
                done = &mut done => return done,
                drained = worker.run_due() => drained.expect("the store takes writes"),
            }
            done.await
        })
        .await
    }

    /// Lets the worker run by itself until `done`, then stops it in order: what is in hand may take `drain` more of the clock's time.
    pub(crate) async fn run_worker<T>(&mut self, drain: Duration, done: impl Future<Output = T>) -> T {
        let worker = self.worker.take().expect("the program runs");
        let stop = CancellationToken::new();
        let stopping = async {
            let result = done.await;
            stop.cancel();
            result
        };
        let (result, ()) =
            within("the end of the worker", async { tokio::join!(stopping, Box::pin(worker.run(stop.clone(), drain))) }).await;
        self.employ(Worker::new(Arc::clone(&self.app().environment)));
        result
    }

    /// Has `worker` do the work, as far as the setup says.
    fn employ(&mut self, worker: Worker) {
        self.worker = Some(match self.work {
            Work::Reconciling => worker.reconciling(),
            Work::Watching => worker.reconciling().watching(),
            Work::ByHand | Work::ByItself => worker,
        });
    }

    /// Stops in order.
    pub(crate) async fn stop(&mut self) {
        (self.worker, self.keeper, self.upkeep) = (None, None, None);
        if let Some(app) = self.app.take() {
            Box::pin(app.stop()).await;
        }
    }

    /// Ends without order, as a kill does.
    pub(crate) fn crash(&mut self) {
        (self.worker, self.keeper, self.upkeep, self.app) = (None, None, None, None);
    }

    /// Starts on the same store, after [`Harness::stop`] or [`Harness::crash`].
    pub(crate) async fn start(&mut self) {
        assert!(self.app.is_none(), "it runs");
        // On the heap, as what it does: who holds this one would be too large for a stack.
        let mut app = within("the start", Box::pin(setup::launch(self))).await;
        (self.keeper, self.upkeep) = (app.keeper.take(), app.upkeep.take());
        if let Some(worker) = app.worker.take() {
            self.employ(worker);
        }
        if self.keys {
            let names: Vec<_> = app.environment.sources.keys().cloned().collect();
            for name in names {
                app.keys.load(&name).await.expect("the simulator gives its key");
            }
        }
        self.app = Some(app);
    }

    /// Stops in order and starts again on the same store.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Lays `toml` over the configuration from the next start on.
    pub(crate) fn reconfigure(&mut self, toml: &str) {
        self.toml = merge(&self.toml, toml);
    }

    /// Takes the section `table.name` out of the configuration, and all routes, from the next start on.
    pub(crate) fn unconfigure(&mut self, table: &str, name: &str) {
        self.toml = setup::without(&self.toml, table, name);
    }

    /// Takes the key `table.key` out of the configuration from the next start on.
    pub(crate) fn unset(&mut self, table: &str, key: &str) {
        self.toml = setup::without_key(&self.toml, table, key);
    }

    /// No longer loads keys at a start.
    pub(crate) fn leave_keys(&mut self) {
        self.keys = false;
    }

    /// Jobs may be left at the end of this test.
    pub(crate) fn expect_leftover(&mut self) {
        self.leftover = true;
    }

    /// A POST to the public listener.
    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path))
    }

    /// A request to the public listener.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A POST of `body` to `path`, as Manus sends it now to the webhook under the harness's public URL.
    pub(crate) fn signed(&self, path: &str, body: impl Into<Vec<u8>>) -> reqwest::RequestBuilder {
        self.signed_for(&self.url(path), path, body)
    }

    /// The same, signed for `url`, wherever it arrives.
    pub(crate) fn signed_for(&self, url: &str, path: &str, body: impl Into<Vec<u8>>) -> reqwest::RequestBuilder {
        let body = body.into();
        let headers = self.manus.sign(url, &body, self.clock.now().as_second());
        self.post(path).headers(headers).body(body)
    }

    /// Sends `event` to the source `manus` as Manus does.
    pub(crate) async fn deliver(&self, event: &Value) -> Answer {
        send(self.signed("/webhooks/manus", event.to_string())).await
    }

    /// The same, which must be accepted: our id of it.
    pub(crate) async fn accept(&self, event: &Value) -> String {
        let answer = self.deliver(event).await;
        let body = json(&answer);
        assert_eq!((status(&answer), &body["status"]), (200, &Value::from("accepted")), "{body}");
        body["id"].as_str().expect("an id").to_owned()
    }

    /// What the admin API answers to a GET of `path`, which must be 200.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let answer = send(self.client.get(format!("http://{}{path}", self.app().admin))).await;
        assert_eq!(status(&answer), 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        json(&answer)
    }

    /// What the admin API answers to a POST of `body`.
    pub(crate) async fn admin_post(&self, path: &str, body: &Value) -> Answer {
        send(self.client.post(format!("http://{}{path}", self.app().admin)).json(body)).await
    }

    /// A request to the admin listener.
    pub(crate) fn admin_request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.app().admin))
    }

    /// Where the store is, for what opens its file itself.
    pub(crate) fn store_config(&self) -> taskhook::store::Config {
        let url = format!("sqlite://{}", self.database().display());
        taskhook::store::Config::new(url)
    }

    /// One event, whole, as the admin API shows it.
    pub(crate) async fn event(&self, id: &str) -> Value {
        self.admin(&format!("/api/v1/events/{id}")).await
    }

    /// The rows of a list of the admin API, newest first.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let mut page = self.admin(&format!("/api/v1/{path}")).await;
        serde_json::from_value(page["data"].take()).expect("a list")
    }

    /// How many jobs of `kind` are not done.
    pub(crate) async fn jobs(&self, kind: JobKind) -> i64 {
        let backlog = self.store().backlog().await.expect("the store can be read");
        backlog.jobs.iter().filter(|row| row.kind == kind.as_str()).map(|row| row.count).sum()
    }

    /// Paths of the API calls that the provider answered so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.manus.requests().into_iter().map(|call| call.path).collect()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.simulator.cancel();
        let Some(app) = self.app.as_ref().filter(|_| !self.leftover && !std::thread::panicking()) else { return };
        let store = app.store.clone();
        // A drop cannot wait for the runtime that it is called from.
        let jobs = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(store.backlog()).expect("the store can be read").jobs
        });
        let jobs = jobs.join().expect("the store can be read");
        assert!(jobs.is_empty(), "the test leaves work behind: {jobs:?}");
    }
}

/// Sends `request`; whatever the answer is.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    http::send(request, PATIENCE, 32 << 20).await.expect("an answer")
}

/// Waits for `what`, and fails if it never comes.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {} ms", clock::millis(PATIENCE)))
}
