//! A command that goes on until it is told to end.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Harness, KEY, json, send, within};

type Heard = Arc<Mutex<String>>;

/// A command that runs; it ends with the test.
pub(super) struct Run {
    child: Child,
    out: Heard,
    err: Heard,
    _folder: tempfile::TempDir,
}

fn listen(stream: impl Read + Send + 'static) -> Heard {
    let heard = Heard::default();
    let shared = Arc::clone(&heard);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            let mut heard = shared.lock().unwrap();
            heard.push_str(&line);
            heard.push('\n');
        }
    });
    heard
}

impl Run {
    fn start(toml: &str, key: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taskhook.toml");
        std::fs::write(&file, toml).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_taskhook"))
            .arg("--config")
            .arg(&file)
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("MANUS_API_KEY", key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (listen(child.stdout.take().unwrap()), listen(child.stderr.take().unwrap()));
        Self { child, out, err, _folder: folder }
    }

    /// `taskhook tunnel` beside the program of `harness`.
    pub(super) fn tunnel(harness: &Harness, arguments: &[&str]) -> Self {
        Self::tunnel_with(harness, "", arguments)
    }

    /// The same with this configuration behind its own.
    pub(super) fn tunnel_with(harness: &Harness, toml: &str, arguments: &[&str]) -> Self {
        let (public, admin, manus) = (harness.public(), harness.app().admin, harness.manus.base_url());
        let toml = format!(
            "[server]\nlisten = \"{public}\"\n[admin]\nlisten = \"{admin}\"\n[sources.manus]\nprovider = \"manus\"\nbase_url = \"{manus}\"\n{toml}"
        );
        Self::start(&toml, KEY, &[&["tunnel"], arguments].concat())
    }

    /// `taskhook dev` with the provider of `harness`.
    pub(super) fn dev(harness: &Harness, agent: &str) -> Self {
        Self::dev_with(harness, agent, KEY, "")
    }

    /// The same with this key, and this configuration behind its own.
    pub(super) fn dev_with(harness: &Harness, agent: &str, key: &str, toml: &str) -> Self {
        let toml = format!(
            "[log]\nformat = \"text\"\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\nmin_free_bytes = \"0B\"\n\
             [archive]\nurl = \"off\"\n[sources.manus]\nprovider = \"manus\"\nbase_url = \"{}\"\n{toml}",
            harness.manus.base_url()
        );
        Self::start(&toml, key, &["dev", "--agent", agent])
    }

    /// What it said so far on stderr.
    pub(super) fn said(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    async fn heard<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let waited = async {
            loop {
                if let Some(found) = look(self) {
                    return Some(found);
                }
                if self.child.try_wait().unwrap().is_some() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(40), waited).await;
        found.ok().flatten().unwrap_or_else(|| panic!("{what} was not said: {}", self.said()))
    }

    /// Waits until it says `text`.
    pub(super) async fn says(&mut self, text: &str) {
        self.heard(text, |run| run.said().contains(text).then_some(())).await;
    }

    /// Waits until it prints `text` on stdout.
    pub(super) async fn prints(&mut self, text: &str) {
        self.heard(text, |run| run.out.lock().unwrap().contains(text).then_some(())).await;
    }

    /// The address that it says behind `words`.
    pub(super) async fn address(&mut self, words: &str) -> SocketAddr {
        self.heard(words, |run| {
            let said = run.said();
            let rest = said.split_once(words)?.1;
            rest.split([' ', ';', '\n']).next()?.parse().ok()
        })
        .await
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit code, once it has ended by itself.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let code = within("the end of the command", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        code.await
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Harness {
    /// The URLs that are registered with the provider.
    pub(super) async fn webhooks(&self) -> Vec<String> {
        let request = self.client().get(format!("{}/v2/webhook.list", self.manus.base_url())).header("x-manus-api-key", KEY);
        let list = json(&send(request).await);
        let rows = list["data"].as_array().unwrap().iter();
        rows.map(|row| row["url"].as_str().expect("a webhook has a URL").to_owned()).collect()
    }
}
