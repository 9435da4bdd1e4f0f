//! A PostgreSQL of a test's own, which the test may kill, freeze and fill, and a pooler in front of it.
//!
//! What must hold: each runs as a user that is not root, on a loopback port that the test holds over all its starts, and is gone with
//! the value, or, if the test is killed, with its thread.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_postgres::NoTls;

use crate::harness::postgres::Connection;
use crate::harness::{reserve, within};

/// How long between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks until a server that is told to end with the test is killed.
const LOOKS: u32 = 250;

/// A command that runs `program` as a user that servers accept, and that ends when this thread does.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if geteuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    }
    command.arg("--").arg(program).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A folder of that user.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if geteuid().is_root() {
        let given = Command::new("chown").arg("postgres:postgres").arg(folder.path()).status().unwrap();
        assert!(given.success(), "there is a user `postgres`");
    }
    folder
}

/// A process of ours that listens on a port which the test holds.
struct Server {
    folder: TempDir,
    port: TcpSocket,
    child: Option<Child>,
}

impl Server {
    fn new() -> Self {
        Self { folder: folder(), port: reserve(), child: None }
    }

    fn port(&self) -> u16 {
        self.port.local_addr().unwrap().port()
    }

    fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/taskhook", self.port())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn spawn(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    /// Waits until somebody is let in to `database`.
    async fn answers(&mut self, database: &str) {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable&connect_timeout=1", self.port());
        within("a server answers", async {
            while tokio_postgres::connect(&url, NoTls).await.is_err() {
                let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
                assert!(ended.is_none(), "it ended: {}", fs::read_to_string(self.log()).unwrap());
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// It, and its children.
    fn processes(&self) -> Vec<Pid> {
        let Some(child) = &self.child else { return Vec::new() };
        let own = child.id().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let children = processes.filter(|name| about(name).is_some_and(|(_, parent)| parent == own));
        [own.clone()].into_iter().chain(children).filter_map(|name| Pid::from_raw(name.parse().ok()?)).collect()
    }

    /// To all of it. The first begets no more while it stands.
    fn signal(&self, signal: Signal) {
        let first = if signal == Signal::KILL { Signal::STOP } else { signal };
        if let Some(pid) = self.processes().first() {
            tell(*pid, first);
        }
        for pid in self.processes() {
            tell(pid, signal);
        }
    }

    /// SIGKILL to all of it, and the end of it.
    async fn kill(&mut self) {
        let processes = self.processes();
        self.signal(Signal::KILL);
        self.ended(processes).await;
    }

    /// Waits until none of `processes` is left.
    async fn ended(&mut self, processes: Vec<Pid>) {
        let mut child = self.child.take().expect("it runs");
        within("the end of a server", async {
            while child.try_wait().unwrap().is_none() || processes.iter().any(|pid| lives(*pid)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// Ends it within seconds, in whatever state it is.
    fn put_away(&mut self, politely: Signal) {
        self.signal(Signal::CONT);
        let all = self.processes();
        let Some(mut child) = self.child.take() else { return };
        tell(all[0], politely);
        for _ in 0..LOOKS {
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        for pid in all {
            tell(pid, Signal::KILL);
        }
        drop(child.wait());
    }
}

/// Who has ended meanwhile hears nothing.
fn tell(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// The state of a process, and its parent.
fn about(pid: &str) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    Some((words.next()?, words.next()?))
}

/// Whether it has not ended: one that waits to be buried has.
fn lives(pid: Pid) -> bool {
    about(&pid.as_raw_nonzero().to_string()).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// The PostgreSQL. In its database `taskhook` the role of that name may do what a user's would.
pub(super) struct Cluster {
    server: Server,
    settings: Vec<String>,
}

impl Cluster {
    /// One that lets in so many connections, three of them for superusers only.
    pub(super) async fn start(connections: u32) -> Self {
        let server = Server::new();
        let mut made = unprivileged(&Self::program("initdb"));
        made.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        let made = made.arg(server.folder.path().join("data")).stderr(Stdio::piped()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings = [
            format!("port={}", server.port()),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", server.folder.path().display()),
            format!("max_connections={connections}"),
            "superuser_reserved_connections=3".to_owned(),
            "shared_buffers=16MB".to_owned(),
            // What a kill leaves of it lies in the folder.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ];
        let mut cluster = Self { server, settings: settings.into() };
        cluster.spawn();
        cluster.server.answers("postgres").await;
        let first = Connection::to(&cluster.server.url("postgres").replace("/taskhook", "/postgres")).await;
        for made in ["CREATE ROLE taskhook LOGIN", "CREATE DATABASE taskhook OWNER taskhook"] {
            first.batch_execute(made).await.unwrap();
        }
        cluster
    }

    /// A program of the newest version that is installed.
    fn program(name: &str) -> PathBuf {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("`tests/run` installs a PostgreSQL");
        let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(version);
        newest.expect("a version").join("bin").join(name)
    }

    fn spawn(&mut self) {
        let mut command = unprivileged(&Self::program("postgres"));
        command.arg("-D").arg(self.server.folder.path().join("data"));
        command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        self.server.spawn(command);
    }

    /// Where a user's program finds it.
    pub(super) fn url(&self) -> String {
        self.server.url("taskhook")
    }

    pub(super) fn port(&self) -> u16 {
        self.server.port()
    }

    /// A connection of a superuser, whose names are those of the store.
    pub(super) async fn connect(&self) -> Connection {
        let connection = Connection::to(&self.server.url("postgres")).await;
        connection.batch_execute("SET search_path = taskhook").await.unwrap();
        connection
    }

    /// SIGKILL to every process of it.
    pub(super) async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// What `pg_ctl stop -m immediate` does.
    pub(super) async fn stop_at_once(&mut self) {
        let all = self.server.processes();
        tell(all[0], Signal::QUIT);
        self.server.ended(all).await;
    }

    /// Starts it again, on what it left; it must answer.
    pub(super) async fn start_again(&mut self) {
        self.spawn();
        self.server.answers("taskhook").await;
    }

    /// SIGSTOP to every process of it.
    pub(super) fn freeze(&self) {
        self.server.signal(Signal::STOP);
    }

    /// The end of that.
    pub(super) fn thaw(&self) {
        self.server.signal(Signal::CONT);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.server.put_away(Signal::QUIT);
    }
}

/// A pgbouncer in front of a cluster, which lends a connection for a transaction.
pub(super) struct Pooler {
    server: Server,
}

impl Pooler {
    /// With so many connections to `cluster`.
    pub(super) async fn start(cluster: &Cluster, connections: u32) -> Self {
        let server = Server::new();
        let settings = format!(
            "[databases]\ntaskhook = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             max_client_conn = 200\nserver_login_retry = 1\n",
            cluster.port(),
            server.port(),
            folder = server.folder.path().display(),
        );
        fs::write(server.folder.path().join("pgbouncer.ini"), settings).unwrap();
        fs::write(server.folder.path().join("users"), "\"taskhook\" \"\"\n\"postgres\" \"\"\n").unwrap();
        let mut pooler = Self { server };
        pooler.start_again().await;
        pooler
    }

    /// Where a user's program finds it.
    pub(super) fn url(&self) -> String {
        self.server.url("taskhook")
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// Starts it again; it must answer.
    pub(super) async fn start_again(&mut self) {
        let mut command = unprivileged(Path::new("/usr/sbin/pgbouncer"));
        command.arg("--quiet").arg(self.server.folder.path().join("pgbouncer.ini"));
        self.server.spawn(command);
        self.server.answers("taskhook").await;
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.server.put_away(Signal::TERM);
    }
}
