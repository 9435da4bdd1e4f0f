//! A PostgreSQL of a test's own, which the test may kill, freeze and fill, and a pooler in front of it.
//!
//! What must hold: each runs as a user that is not root, on a loopback port that the test holds over all its starts, and is gone with
//! the value, or, if the test is killed, with its thread.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_postgres::NoTls;

use super::way::Way;
use crate::faults::disk::Disk;
use crate::harness::postgres::Connection;
use crate::harness::{reserve, within};

/// How long between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks until a server that is told to end with the test is killed.
const LOOKS: u32 = 250;

/// A command that runs `program` as a user that servers accept, and that ends when this thread does. `before` goes before it.
fn unprivileged(before: &[OsString], program: &Path) -> Command {
    let mut words = before.iter().cloned().chain(["setpriv".into()]);
    let mut command = Command::new(words.next().expect("there is one"));
    command.args(words).args(["--pdeathsig", "KILL"]);
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

/// Where a cluster lies that is to have a small disk.
#[derive(Clone, Copy)]
pub(super) enum Small<'a> {
    /// Its tables.
    Tables(&'a Disk),
    /// Its log, in segments of a megabyte.
    Log(&'a Disk),
}

/// The PostgreSQL. In its database `taskhook` the role of that name may do what a user's would.
pub(super) struct Cluster {
    server: Server,
    data: PathBuf,
    /// What brings a command to its disk.
    before: Vec<OsString>,
    connections: u32,
}

impl Cluster {
    /// One that lets in so many connections, three of them for superusers only.
    pub(super) async fn start(connections: u32) -> Self {
        Self::make(connections, None).await
    }

    /// One with a part of it on a small disk.
    pub(super) async fn on(small: Small<'_>, connections: u32) -> Self {
        Self::make(connections, Some(small)).await
    }

    async fn make(connections: u32, small: Option<Small<'_>>) -> Self {
        let server = Server::new();
        let here = server.folder.path();
        let (data, log, disk) = match small {
            None => (here.join("data"), None, None),
            Some(Small::Tables(disk)) => (disk.path().join("data"), Some(here.join("log-of-writes")), Some(disk)),
            Some(Small::Log(disk)) => (here.join("data"), Some(disk.path().join("log-of-writes")), Some(disk)),
        };
        let before = disk.map(Disk::enter).unwrap_or_default();
        let mut made = unprivileged(&before, &Self::program("initdb"));
        made.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        made.args(log.iter().flat_map(|log| ["--waldir".as_ref(), log.as_os_str()]));
        made.args(matches!(small, Some(Small::Log(_))).then_some("--wal-segsize=1"));
        let made = made.arg("-D").arg(&data).stderr(Stdio::piped()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut cluster = Self { server, data, before, connections };
        cluster.spawn();
        cluster.server.answers("postgres").await;
        let first = Connection::to(&cluster.server.url("postgres").replace("/taskhook", "/postgres")).await;
        for made in ["CREATE ROLE taskhook LOGIN", "CREATE DATABASE taskhook OWNER taskhook"] {
            first.batch_execute(made).await.unwrap();
        }
        cluster
    }

    /// A standby of it, which hears of it on `way` and answers whoever only reads.
    pub(super) async fn standby(&self, way: &Way) -> Self {
        let server = Server::new();
        let data = server.folder.path().join("data");
        let mut copied = unprivileged(&[], &Self::program("pg_basebackup"));
        copied.args(["--host=127.0.0.1", &format!("--port={}", way.port()), "--username=postgres", "--wal-method=stream"]);
        copied.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--pgdata"]).arg(&data);
        let copied = tokio::task::block_in_place(|| copied.stderr(Stdio::piped()).output().unwrap());
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let mut standby = Self { server, data, before: Vec::new(), connections: self.connections };
        standby.start_again().await;
        standby
    }

    /// From now on a commit waits for the standby, which must be there.
    pub(super) async fn waits_for_its_standby(&self) {
        let database = self.connect().await;
        for said in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            database.batch_execute(said).await.unwrap();
        }
        within("a standby is waited for", async {
            while database.query("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'", &[]).await.unwrap().is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// Waits until a standby of it has all that it has.
    pub(super) async fn is_followed(&self) {
        let database = self.connect().await;
        let at: String = database.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
        let behind = "SELECT 1 FROM pg_stat_replication WHERE flush_lsn >= $1::text::pg_lsn";
        within("the standby follows", async {
            while database.query(behind, &[&at]).await.unwrap().is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// Makes a standby the primary.
    pub(super) async fn promote(&self) {
        let database = self.connect().await;
        assert!(database.query_one("SELECT pg_promote(true, 30)", &[]).await.unwrap().get::<_, bool>(0));
    }

    /// A program of the newest version that is installed.
    fn program(name: &str) -> PathBuf {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("`tests/run` installs a PostgreSQL");
        let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(version);
        newest.expect("a version").join("bin").join(name)
    }

    fn spawn(&mut self) {
        let settings = [
            format!("port={}", self.server.port()),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", self.server.folder.path().display()),
            format!("max_connections={}", self.connections),
            "superuser_reserved_connections=3".to_owned(),
            "shared_buffers=16MB".to_owned(),
            // What a kill leaves of it lies in the folder.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ];
        let mut command = unprivileged(&self.before, &Self::program("postgres"));
        command.arg("-D").arg(&self.data).args(settings.iter().flat_map(|setting| ["-c", setting]));
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

    /// SIGKILL to every process of it, or to what is left of it.
    pub(super) async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// What it said.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.server.log()).unwrap()
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
        let mut command = unprivileged(&[], Path::new("/usr/sbin/pgbouncer"));
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
