//! Replicas of the built program, each a process, that share a store.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;
use taskhook::http::{self, Answer};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::faults::program::{Program, Setting};
use crate::harness::{Recorder, json, reserve, status, within};

/// How many replicas there are.
pub(super) const REPLICAS: usize = 3;
/// How long a probe or the admin API may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_MAX: usize = 16 << 20;
/// How long between two looks at something that is waited for.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A place for a replica, and the replica.
struct Replica {
    setting: Setting,
    program: Option<Program>,
    public: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
    /// What keeps its ports.
    _ports: [TcpSocket; 2],
}

/// The replicas. They end with the value.
pub(super) struct Fleet {
    replicas: Vec<Replica>,
    client: reqwest::Client,
}

impl Fleet {
    /// Starts one after the other, each with the store at its URL and with `toml` laid over its configuration. All that they
    /// receive goes to `crm`.
    pub(super) async fn start(urls: [String; REPLICAS], crm: &Recorder, toml: &str) -> Self {
        let mut fleet = Self { replicas: Vec::new(), client: http::client(ANSWER) };
        for url in urls {
            let (folder, ports) = (tempfile::tempdir().unwrap(), [reserve(), reserve()]);
            let [public, admin] = [&ports[0], &ports[1]].map(|port| port.local_addr().unwrap());
            let place = format!(
                "[server]\nlisten = \"{public}\"\n[admin]\nlisten = \"{admin}\"\n[store]\nurl = \"{url}\"\nmax_connections = 6\n"
            );
            let routed = format!("{}[[routes]]\nto = [\"crm\"]\n", crm.section("crm", ""));
            // It ends with this thread, should the test be killed.
            let setting = Setting::new(folder.path()).by(["setpriv", "--pdeathsig", "KILL", "--"]);
            let setting = setting.config(&place).config(&routed).config(toml);
            let program = Some(setting.start().await);
            fleet.replicas.push(Replica { setting, program, public, admin, _folder: folder, _ports: ports });
        }
        fleet
    }

    /// Where they receive.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.public).collect()
    }

    fn program(&mut self, number: usize) -> &mut Program {
        self.replicas[number].program.as_mut().expect("it runs")
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, number: usize) {
        let mut program = self.replicas[number].program.take().expect("it runs");
        assert!(program.runs(), "it ended by itself: {}", program.said());
        program.kill();
    }

    /// SIGTERM; it must end in order.
    pub(super) async fn stop(&mut self, number: usize) {
        self.replicas[number].program.take().expect("it runs").stop().await;
    }

    /// SIGSTOP.
    pub(super) fn freeze(&mut self, number: usize) {
        self.program(number).signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&mut self, number: usize) {
        self.program(number).signal(Signal::CONT);
    }

    /// Starts one that was ended, where it was before; it must get ready.
    pub(super) async fn start_again(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        assert!(replica.program.is_none(), "it runs");
        replica.program = Some(replica.setting.start().await);
        self.ready(&[number]).await;
    }

    /// Tries to start one that was ended; it must refuse. Its exit code, and what it said.
    pub(super) async fn refused(&self, number: usize) -> (Option<i32>, String) {
        self.replicas[number].setting.refused().await
    }

    /// None has ended by itself.
    pub(super) fn all_live(&mut self) {
        for program in self.replicas.iter_mut().filter_map(|replica| replica.program.as_mut()) {
            assert!(program.runs(), "it ended by itself: {}", program.said());
        }
    }

    /// The memory of each, in bytes.
    pub(super) fn memory(&mut self) -> [u64; REPLICAS] {
        std::array::from_fn(|number| self.program(number).memory())
    }

    /// What a listener of one answers to a GET.
    async fn get(&self, at: SocketAddr, path: &str) -> Answer {
        let request = self.client.get(format!("http://{at}{path}"));
        http::send(request, ANSWER, ANSWER_MAX).await.unwrap_or_else(|error| panic!("{at}{path}: {error:?}"))
    }

    /// What `/readyz` says on the admin listener of one: its status, and why the store takes nothing, if that is so. The
    /// public listener must say the same status, and `/healthz` that it lives.
    pub(super) async fn readiness(&self, number: usize) -> (u16, Option<String>) {
        let Replica { public, admin, .. } = self.replicas[number];
        let told = self.get(admin, "/readyz").await;
        for at in [public, admin] {
            assert_eq!(status(&self.get(at, "/healthz").await), 200, "it lives, whatever the database does");
        }
        let reasons = &json(&told)["reasons"];
        let store = reasons.as_array().unwrap().iter().find(|reason| reason["part"] == "store");
        (status(&told), store.map(|reason| reason["reason"].as_str().unwrap().to_owned()))
    }

    /// Waits until all of `numbers` accept events.
    pub(super) async fn ready(&self, numbers: &[usize]) {
        within("replicas get ready", async {
            for number in numbers {
                while self.readiness(*number).await.0 != 200 {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        })
        .await;
    }

    /// Waits until each of `numbers` says that it takes nothing, for a reason that has `words`.
    pub(super) async fn unready(&self, numbers: &[usize], words: &str) {
        for number in numbers {
            let mut last: (u16, Option<String>) = (0, None);
            let told = async {
                while last.0 != 503 || last.1.as_ref().is_none_or(|reason| !reason.contains(words)) {
                    last = self.readiness(*number).await;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            let told = tokio::time::timeout(Duration::from_secs(10), told).await;
            assert!(told.is_ok(), "replica {number} does not say {words:?} within 10 s, but {last:?}");
            let public = self.get(self.replicas[*number].public, "/readyz").await;
            assert_eq!((status(&public), json(&public)["reasons"].clone()), (503, Value::Null), "reasons are not for everybody");
        }
    }

    /// All rows of a list, as the first replica that runs tells it.
    pub(super) async fn list<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.admin(&format!("/api/v1/{name}?limit=500{cursor}")).await;
            rows.extend(serde_json::from_value::<Vec<T>>(page["data"].take()).unwrap());
            let Some(next) = page["next_cursor"].as_str() else { return rows };
            cursor = format!("&cursor={next}");
        }
    }

    /// What the admin API of the first replica that runs answers, which must be 200.
    pub(super) async fn admin(&self, path: &str) -> Value {
        let runs = self.replicas.iter().find(|replica| replica.program.is_some()).expect("one runs");
        let answer = self.get(runs.admin, path).await;
        assert_eq!(status(&answer), 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        json(&answer)
    }
}
