//! taskhook as a process of its own, `serve` of this very program: its memory, its disk and its end are then its own.
//!
//! What must hold: it is gone with the bench, unless that is killed outright. Its ports are held by the bench, so that it comes back on the same
//! ones after it was killed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

use super::super::{Error, Result};
use super::ground::Place;
use super::load::PUBLIC_URL;
use super::machine::field;
use crate::clock::Clock;
use crate::http;
use crate::text::one_line;

/// How long a start, an answer of the admin listener or an end may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often it is looked whether work is left: that counts all of it.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(250);
/// The most that is read of an answer.
const ANSWER_MAX: usize = 4 << 20;
/// The rows of one page of a list.
const PAGE: usize = 500;

/// Where a process lives, over all its lives.
pub(super) struct Home {
    folder: PathBuf,
    config: PathBuf,
    /// Where its store is.
    pub(super) place: Place,
    /// Where it receives.
    pub(super) public: SocketAddr,
    /// Its admin listener.
    pub(super) admin: SocketAddr,
    client: reqwest::Client,
    /// What keeps the ports.
    _reserved: [TcpSocket; 2],
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

/// A process that runs.
pub(super) struct Process {
    child: Child,
    pid: u32,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// What is its own: not what is mapped of files.
    pub(super) own_bytes: u64,
    /// The most that was resident at a time, with what is mapped of files.
    pub(super) peak_bytes: u64,
}

impl Home {
    /// A home in the folder of `place`, with its store there and no archive: its configuration is `sections`, beside listeners and
    /// the URL that is signed.
    pub(super) fn new(place: &Place, sections: &str) -> Result<Self> {
        Self::with(&place.folder, place, &format!("[archive]\nurl = \"off\"\n{sections}"))
    }

    /// Homes of so many replicas that share the store of `place`, each in a folder of its own, with the same `sections`, which say where
    /// the archive is.
    pub(super) fn replicas(count: usize, place: &Place, sections: &str) -> Result<Vec<Self>> {
        let home = |number| {
            let folder = place.folder.join(format!("replica-{number}"));
            fs::create_dir_all(&folder).map_err(|error| unwritten(&folder, &error))?;
            Self::with(&folder, place, sections)
        };
        (1..=count).map(home).collect()
    }

    fn with(folder: &Path, place: &Place, sections: &str) -> Result<Self> {
        let reserved = [reserve()?, reserve()?];
        let [public, admin] = [&reserved[0], &reserved[1]].map(TcpSocket::local_addr);
        let (public, admin) = (public.map_err(|error| no_port(&error))?, admin.map_err(|error| no_port(&error))?);
        let config = folder.join("taskhook.toml");
        let text = format!(
            "[log]\nlevel = \"warn\"\n[server]\nlisten = \"{public}\"\npublic_url = \"{PUBLIC_URL}\"\n[admin]\nlisten = \"{admin}\"\n\
             [outbound]\nallow_private_addresses = true\n{sections}"
        );
        fs::write(&config, text).map_err(|error| unwritten(folder, &error))?;
        let client = http::client(PATIENCE);
        let (folder, place) = (folder.to_owned(), place.clone());
        Ok(Self { folder, config, place, public, admin, client, _reserved: reserved })
    }

    /// Starts the process, and waits until it accepts events.
    pub(super) async fn start(&self, clock: &Clock) -> Result<Process> {
        let mut process = self.spawn()?;
        self.ready(&mut process, clock).await?;
        Ok(process)
    }

    /// Starts the process, which is not ready yet.
    pub(super) fn spawn(&self) -> Result<Process> {
        let failed = |what: String| Error::failed(format!("cannot start `taskhook serve`: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let log = fs::File::options().create(true).append(true).open(self.log());
        let mut command = Command::new(program);
        command.arg("--config").arg(&self.config).arg("serve").current_dir(&self.folder).kill_on_drop(true);
        command.env_clear().envs(self.place.environment());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_err(|error| failed(error.to_string()))?);
        // A Ctrl-C is for the bench, which then ends it.
        command.process_group(0);
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let pid = child.id().unwrap_or_default();
        Ok(Process { child, pid })
    }

    /// Waits until the process accepts events.
    pub(super) async fn ready(&self, process: &mut Process, clock: &Clock) -> Result {
        let failed = |what: String| Error::failed(format!("cannot start `taskhook serve`: {what}"));
        let begun = clock.elapsed();
        loop {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(failed(format!("it ended, {}{}", ended(status), self.last_words())).into());
            }
            let asked = self.client.get(format!("http://{}/readyz", self.admin));
            if http::send(asked, PATIENCE, ANSWER_MAX).await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if clock.elapsed().saturating_sub(begun) > PATIENCE {
                return Err(failed(format!("it was not ready within {} s{}", PATIENCE.as_secs(), self.last_words())).into());
            }
            clock.sleep(LOOK_EVERY).await;
        }
    }

    /// What its admin listener answers at `path`, which must be a 200.
    pub(super) async fn text(&self, path: &str) -> Result<String> {
        let failed = |what: String| Error::failed(format!("the process did not answer {path}: {what}{}", self.last_words()));
        let asked = self.client.get(format!("http://{}{path}", self.admin));
        let answer = http::send(asked, PATIENCE, ANSWER_MAX).await.map_err(|error| failed(error.to_string()))?;
        if answer.status != 200 {
            return Err(failed(answer.status.to_string()).into());
        }
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The same, as JSON.
    pub(super) async fn json(&self, path: &str) -> Result<Value> {
        let text = self.text(path).await?;
        let read = serde_json::from_str(&text);
        Ok(read.map_err(|error| Error::failed(format!("the process answered {path} with something else than JSON: {error}")))?)
    }

    /// What its admin listener answers to a POST of `body` to `path`, which must be a success.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let failed = |what: String| Error::failed(format!("the process did not answer {path}: {what}{}", self.last_words()));
        let asked = self.client.post(format!("http://{}{path}", self.admin)).json(body);
        let answer = http::send(asked, PATIENCE, ANSWER_MAX).await.map_err(|error| failed(error.to_string()))?;
        if !answer.status.is_success() {
            return Err(failed(format!("{} {}", answer.status, one_line(&String::from_utf8_lossy(&answer.body), 200))).into());
        }
        Ok(serde_json::from_slice(&answer.body).map_err(|error| failed(error.to_string()))?)
    }

    /// Reads a list of the admin API from its newest row to its oldest, page by page.
    pub(super) async fn list<T: DeserializeOwned>(&self, name: &str, mut row: impl FnMut(T)) -> Result {
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/{name}?limit={PAGE}{cursor}");
            let page: Page<T> = serde_json::from_str(&self.text(&path).await?).map_err(|error| {
                Error::failed(format!("the process answered {path} with something else than a list: {error}"))
            })?;
            page.data.into_iter().for_each(&mut row);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(()),
            }
        }
    }

    /// Fails if the process has ended, with its last words: a kill would hide it.
    pub(super) fn lives(&self, process: &mut Process) -> Result {
        match process.child.try_wait() {
            Ok(Some(status)) => {
                Err(Error::failed(format!("`taskhook serve` ended by itself, {}{}", ended(status), self.last_words())).into())
            }
            _ => Ok(()),
        }
    }

    /// Kills a process that must be alive.
    pub(super) async fn kill(&self, mut process: Process) -> Result {
        self.lives(&mut process)?;
        process.kill().await
    }

    /// Stops a process that must be alive.
    pub(super) async fn stop(&self, mut process: Process) -> Result {
        self.lives(&mut process)?;
        process.stop().await
    }

    /// Waits until it has no work left, for at most `patience`; whether that came.
    pub(super) async fn drained(&self, patience: Duration, clock: &Clock) -> Result<bool> {
        let begun = clock.elapsed();
        loop {
            let asked = clock.elapsed();
            let stats = match self.json("/api/v1/stats").await {
                Ok(stats) => stats,
                // So much may wait that it is not counted in the time that a reader has; but the process must be there.
                Err(error) => self.text("/healthz").await.map_or(Err(error), |_| Ok(Value::Null))?,
            };
            if stats["events"] == 0 && stats["jobs"].as_array().is_some_and(Vec::is_empty) {
                return Ok(true);
            }
            if clock.elapsed().saturating_sub(begun) > patience {
                return Ok(false);
            }
            // The more there is to count, the less often: that takes time from the work.
            clock.sleep(DRAIN_LOOK_EVERY.max(clock.elapsed().saturating_sub(asked) * 10)).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("taskhook.log")
    }

    /// The end of its log, for messages.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.trim_end().lines().next_back().map_or(String::new(), |line| format!("; its last words: {line}"))
    }
}

impl Process {
    /// SIGKILL, and the end of it.
    pub(super) async fn kill(mut self) -> Result {
        Ok(self.child.kill().await.map_err(|error| Error::failed(format!("cannot kill the process: {error}")))?)
    }

    /// SIGTERM, and the end of it, which must be in order.
    pub(super) async fn stop(mut self) -> Result {
        let failed = |what: String| Error::failed(format!("the process did not stop in order: {what}"));
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed()).ok_or_else(|| failed("it has no id".to_owned()))?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(ended(status)).into()),
            Ok(Err(error)) => Err(failed(error.to_string()).into()),
            Err(_) => Err(failed(format!("it still runs after {} s", PATIENCE.as_secs())).into()),
        }
    }

    /// The time on the processor that it has used.
    pub(super) fn processor_time(&self) -> Duration {
        processor_time(self.pid)
    }

    /// Its memory now; nothing where the system does not tell.
    pub(super) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let bytes = |name| Some(field(&status, name)?.split(' ').next()?.parse::<u64>().ok()? << 10);
        Some(Memory { own_bytes: bytes("RssAnon")?, peak_bytes: bytes("VmHWM")? })
    }
}

/// The time on the processor that a process has used; zero where the system does not tell.
pub(super) fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, user and system time are the 12th and 13th, in hundredths of a second.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// How a process ended.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "unknown how".to_owned(),
    }
}

/// A port that nobody else is given, for a listener to come. Linux lets a socket that listens share the address of one that does not;
/// elsewhere it is only likely that nobody else takes it in between.
fn reserve() -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4().map_err(|error| no_port(&error))?;
    socket.set_reuseaddr(cfg!(target_os = "linux")).map_err(|error| no_port(&error))?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(|error| no_port(&error))?;
    Ok(socket)
}

fn unwritten(folder: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("cannot write to {}: {error}", folder.display()))
}

fn no_port(error: &std::io::Error) -> Error {
    Error::failed(format!("no free port on 127.0.0.1: {error}"))
}
