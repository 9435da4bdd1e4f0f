//! The built program as a process, on a disk and with a library of the test's choice.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::Disk;
use crate::harness::{merge, within};

/// The configuration that a test lays its own over: nothing is proven or fetched, and everything is logged.
const TOML: &str = r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
min_free_bytes = "0B"
[archive]
url = "off"
[log]
format = "text"
[sources.open]
provider = "manus"
verify = "none"
fetch = "off"
"#;

/// What a program is to be started with.
pub(crate) struct Setting {
    toml: String,
    /// Where its configuration lies.
    folder: PathBuf,
    /// Goes before the program on its command line.
    before: Vec<OsString>,
    program: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Setting {
    /// With its store in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let store = format!("[store]\nurl = \"sqlite://{}/taskhook.db\"\n", folder.display());
        let program = env!("CARGO_BIN_EXE_taskhook").into();
        Self { toml: merge(TOML, &store), folder: folder.to_owned(), before: Vec::new(), program, environment: Vec::new() }
    }

    /// With its store on `disk`.
    pub(super) fn on(disk: &Disk) -> Self {
        let mut setting = Self::new(disk.path()).lying_in(disk.folder());
        setting.before = disk.enter();
        setting
    }

    /// With its configuration in `folder`, not beside its store.
    pub(super) fn lying_in(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Runs a copy of the program in `folder`: the folder of the build may be closed to others.
    pub(super) fn copied_to(mut self, folder: &Path) -> Self {
        let copy = folder.join("taskhook");
        std::fs::hard_link(&self.program, &copy).or_else(|_| std::fs::copy(&self.program, &copy).map(drop)).unwrap();
        self.program = copy;
        self
    }

    /// Lays `toml` over the configuration.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.toml = merge(&self.toml, toml);
        self
    }

    /// Preloads the library that makes the disk fail.
    pub(super) fn faults(mut self, faults: &Faults) -> Self {
        self.environment.push(("LD_PRELOAD", faults.library().into()));
        self.environment.push(("FAULTS", faults.0.path().into()));
        self
    }

    /// Sets a variable of the environment.
    pub(super) fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs the program by `words`.
    pub(crate) fn by<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.before.extend(words.map(OsString::from));
        self
    }

    fn command(&self) -> Command {
        let file = self.folder.join("taskhook.toml");
        std::fs::write(&file, &self.toml).unwrap();
        let mut words = self.before.iter().cloned().chain([self.program.clone().into()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("--config").arg(file).arg("serve").current_dir(&self.folder);
        // Its `PATH` is for the commands before it.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it; it must get ready.
    pub(crate) async fn start(&self) -> Program {
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let (tell, told) = tokio::sync::oneshot::channel();
        let heard = Arc::clone(&said);
        // A thread, so that it is read whatever the test does: a full pipe would stop the program.
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in stderr.lines() {
                let Ok(line) = line else { return };
                if let Some(addresses) = addresses(&line)
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(addresses);
                }
                let mut said = heard.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        let mut program = Program { child, said, public: ([0, 0, 0, 0], 0).into(), admin: ([0, 0, 0, 0], 0).into() };
        let Ok((public, admin)) = within("the program gets ready", told).await else { panic!("it ended: {}", program.said()) };
        (program.public, program.admin) = (public, admin);
        program
    }

    /// Starts it; it must end by itself. Its exit code, and what it said.
    pub(crate) async fn refused(&self) -> (Option<i32>, String) {
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let nobody = ([0, 0, 0, 0], 0).into();
        let mut program = Program { child, said: Arc::default(), public: nobody, admin: nobody };
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).map(|_| said)
        });
        let code = program.ended().await.code();
        (code, said.join().unwrap().unwrap())
    }
}

/// The addresses that it says it listens on.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (public, admin) = line.split_once("receives on ")?.1.split_once("; admin on http://")?;
    Some((public.parse().ok()?, admin.split_whitespace().next()?.parse().ok()?))
}

/// A running program; it ends with the test.
pub(crate) struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Program {
    /// Where senders reach `path`.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How it ended by itself.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        within("the end of the program", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it `signal`.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM; it must end in order.
    pub(crate) async fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.ended().await.code(), Some(0), "{}", self.said());
    }

    /// The memory that it has now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A disk that fails when told: the library of `shim.c`, and the folder where it is told.
pub(super) struct Faults(tempfile::TempDir);

impl Faults {
    pub(super) fn new() -> Self {
        let faults = Self(tempfile::tempdir().unwrap());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults/shim.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(faults.library()).arg(source).arg("-ldl");
        let built = compiler.output().expect("a C compiler, `cc`, is there");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        faults
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("shim.so")
    }

    /// From now on `call`, such as `sync-wal`, fails once with the error of this number.
    pub(super) fn fail(&self, call: &str, error: &str) {
        // Whole or not at all.
        let written = tempfile::NamedTempFile::new_in(self.0.path()).unwrap();
        std::fs::write(written.path(), error).unwrap();
        written.persist(self.0.path().join(call)).unwrap();
    }
}
