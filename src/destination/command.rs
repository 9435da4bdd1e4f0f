//! `kind = "command"`: a program of the user's own, with the envelope on its standard input.
//!
//! What must hold: program and arguments are those of the configuration and nothing from outside is among them; there is no shell.
//! The environment is empty but for the variables that `env` names and a few of ours. The program runs in a process group of its
//! own; when its time is up, or taskhook stops and cannot wait, the whole group gets SIGTERM and then SIGKILL. What it prints is
//! read as long as it runs, so that it never blocks, and a bounded part of it is kept with the attempt, never logged.
//!
//! What its end means: exit code 0 is delivered, 75 (`EX_TEMPFAIL` of sysexits) is tried again, any other is given up on. A
//! program that was killed may have done half of its work: unknown. One that could not be started did nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use uuid::Uuid;

use super::section::{compile, section};
use super::{Outgoing, Receipt};
use crate::retry::Failure;
use crate::route::Envelope;
use crate::setting::List;
use crate::template::{Context, Escape, Template};
use crate::text::one_line;

/// The exit code that asks for another try: `EX_TEMPFAIL`.
const LATER: i32 = 75;
/// The most bytes that are kept of each stream: the last ones, where a program says why it failed.
const MAX_OUTPUT: usize = 4 << 10;
/// The most characters of each stream in the attempt's detail.
const MAX_DETAIL: usize = 600;
/// How long a group has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);
/// How long the end of the output is waited for once the program is gone: a process that it left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// The most characters of a variable's value.
const MAX_VARIABLE: usize = 500;

section! {
    /// The `[destinations.NAME]` section of a `command`.
    pub struct Config {
        /// The program: a path.
        pub program: PathBuf,
        /// Its arguments, as they are.
        #[serde(default)]
        pub args: Vec<String>,
        /// The names of the variables that it gets of taskhook's environment.
        #[serde(default = "path")]
        pub env: List<String>,
        /// The text on its standard input, instead of the envelope.
        #[serde(default)]
        pub template: Option<String>,
        /// The values of `env`, which nobody prints.
        #[serde(skip)]
        pub variables: Variables,
    }
    defaults: timeout = 30, concurrency = 2, rate = None
}

fn path() -> List<String> {
    List(vec!["PATH".to_owned()])
}

/// Variables and their values, which may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Config {
    /// Whether a destination can be built of it.
    ///
    /// # Errors
    /// The key that is wrong, and what to write.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.program.components().count() < 2 || self.program.as_os_str().as_encoded_bytes().contains(&0) {
            return Err("`program` must be a path, such as \"/usr/local/bin/on-task\" or \"./on-task\"".to_owned());
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err("`args`: no argument can hold a null character".to_owned());
        }
        if let Some(name) =
            self.env.iter().find(|name| name.is_empty() || name.contains(['=', '\0']) || name.starts_with("TASKHOOK_"))
        {
            return Err(format!("`env`: {:?} is no name of a variable that can be handed on", one_line(name, 60)));
        }
        compile("template", self.template.as_deref(), Escape::None)?;
        Ok(())
    }

    /// Takes the values of `env`.
    pub(super) fn take_variables(&mut self, variables: &BTreeMap<String, String>) {
        let set = |name: &String| Some((name.clone(), variables.get(name)?.clone()));
        self.variables = Variables(self.env.iter().filter_map(set).collect());
    }
}

/// A `command` destination.
pub(super) struct Command {
    program: PathBuf,
    args: Vec<String>,
    variables: Variables,
    template: Option<Template>,
    timeout: Duration,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What is read of the content: of an envelope, or of what stands for it where there is a template.
#[derive(Serialize, Deserialize)]
struct Content {
    out_of_order: bool,
    id: Uuid,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    event: About,
    #[serde(default)]
    stdin: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct About {
    task_id: Option<String>,
}

impl Command {
    pub(super) fn build(config: &Config) -> Result<Self, String> {
        Ok(Self {
            program: config.program.clone(),
            args: config.args.clone(),
            variables: config.variables.clone(),
            template: compile("template", config.template.as_deref(), Escape::None)?,
            timeout: config.timeout,
        })
    }

    pub(super) fn render(&self, envelope: &Envelope) -> Result<String, String> {
        let content = match &self.template {
            None => serde_json::to_string(envelope),
            Some(template) => serde_json::to_string(&Content {
                out_of_order: envelope.out_of_order,
                id: envelope.id,
                kind: envelope.kind.clone(),
                source: envelope.source.clone(),
                event: About { task_id: envelope.event.facts.task_id.clone() },
                stdin: Some(template.render(&Context::of(envelope)).map_err(|error| format!("`template`: {error}"))?),
            }),
        };
        content.map_err(|error| error.to_string())
    }

    pub(super) async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        let content: Content = serde_json::from_str(delivery.body)
            .map_err(|_| Failure::give_up("the content was made for another kind of destination"))?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.variables.0).process_group(0);
        // Values from outside are kept short and on one line: no variable can hold a null character.
        let word = |text: &str| one_line(text, MAX_VARIABLE);
        command
            .env("TASKHOOK_EVENT_ID", content.id.to_string())
            .env("TASKHOOK_EVENT_TYPE", word(&content.kind))
            .env("TASKHOOK_SOURCE", word(&content.source))
            .env("TASKHOOK_TASK_ID", word(content.event.task_id.as_deref().unwrap_or_default()))
            .env("TASKHOOK_DELIVERY_ID", delivery.id.to_string())
            .env("TASKHOOK_ATTEMPT", delivery.attempt.to_string())
            .env("TASKHOOK_OUT_OF_ORDER", content.out_of_order.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child =
            command.spawn().map_err(|error| Failure::retry(format!("cannot start {}: {error}", self.program.display())))?;
        let input = content.stdin.as_deref().unwrap_or(delivery.body);
        Group(Some(child)).run(input.as_bytes(), self.timeout).await
    }

    pub(super) fn preview(&self, mut content: Value) -> Value {
        let stdin = if content["stdin"].is_string() { content["stdin"].take() } else { content };
        json!({"program": self.program, "args": self.args, "stdin": stdin})
    }

    /// Whether the program is there and may be run.
    pub(super) fn try_out(&self) -> Result<String, String> {
        let shown = self.program.display();
        let about = std::fs::metadata(&self.program).map_err(|error| format!("cannot find {shown}: {error}"))?;
        if !about.is_file() {
            return Err(format!("{shown} is no file"));
        }
        rustix::fs::access(&self.program, rustix::fs::Access::EXEC_OK)
            .map_err(|error| format!("may not run {shown}: {error}; `chmod +x` makes it a program"))?;
        Ok(format!("{shown} can be run"))
    }
}

/// A running program with all that it starts. Dropped before it ended, it is ended.
struct Group(Option<Child>);

impl Group {
    async fn run(mut self, input: &[u8], timeout: Duration) -> Result<Receipt, Failure> {
        let Some(child) = &mut self.0 else { return Err(Failure::retry("not started")) };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program need not read it all.
                let _ = stdin.write_all(input).await;
                drop(stdin);
            }
            std::future::pending::<()>().await;
        };
        let ended = {
            let talk = async {
                tokio::join!(out.read(stdout), err.read(stderr));
                std::future::pending::<()>().await;
            };
            tokio::pin!(talk, feed);
            let ended = tokio::select! {
                ended = child.wait() => Some(ended),
                () = tokio::time::sleep(timeout) => None,
                () = &mut talk => None,
                () = &mut feed => None,
            };
            if ended.is_none() {
                // Still read: who prints at SIGTERM must not die of a closed pipe.
                tokio::select! {
                    () = self.end() => {}
                    () = &mut talk => {}
                }
            }
            let _ = tokio::time::timeout(LAST_WORDS, &mut talk).await;
            ended
        };
        match ended {
            Some(Ok(status)) => {
                // It was waited for: there is nothing left to end.
                self.0 = None;
                judge(status, &out, &err)
            }
            Some(Err(error)) => Err(Failure::retry(format!("cannot wait for its end: {error}")).with_unknown_outcome()),
            None => {
                let reason = format!("not done within {} s, so it was ended", timeout.as_secs_f64());
                Err(Failure::retry(reason).with_unknown_outcome().with_detail(detail("ended at the end of its time", &out, &err)))
            }
        }
    }

    /// Asks the group to end, and ends it.
    async fn end(&mut self) {
        let Some(child) = &mut self.0 else { return };
        // Not waited for so far, its number is still its own.
        let group = group(child);
        signal(group, Signal::TERM);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
        // Whatever of the group is still there: its leader's number stays taken as long as one of them lives.
        signal(group, Signal::KILL);
        let _ = child.wait().await;
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(child) = self.0.take() else { return };
        let group = group(&child);
        signal(group, Signal::TERM);
        // A drop cannot wait, and the runtime may be about to end: a thread of its own ends what does not end by itself. The child is
        // kept until then, so that its number is still its own. Should the thread be refused, the group has had its SIGTERM.
        let _ = std::thread::Builder::new().name("command".to_owned()).spawn(move || {
            std::thread::sleep(GRACE);
            signal(group, Signal::KILL);
            drop(child);
        });
    }
}

fn group(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // That nobody is left is what was wanted.
        let _ = kill_process_group(group, signal);
    }
}

fn judge(status: ExitStatus, out: &Tail, err: &Tail) -> Result<Receipt, Failure> {
    match status.code() {
        Some(0) => Ok(Receipt { detail: detail("exit code 0", out, err) }),
        Some(code) => {
            let reason = format!("exit code {code}");
            let detail = detail(&reason, out, err);
            let failure = if code == LATER { Failure::retry(reason) } else { Failure::give_up(reason) };
            Err(failure.with_detail(detail))
        }
        None => {
            use std::os::unix::process::ExitStatusExt as _;
            let reason = format!("killed by signal {}", status.signal().unwrap_or_default());
            let detail = detail(&reason, out, err);
            Err(Failure::retry(reason).with_unknown_outcome().with_detail(detail))
        }
    }
}

fn detail(what: &str, out: &Tail, err: &Tail) -> String {
    let mut detail = what.to_owned();
    for (name, tail) in [("stderr", err), ("stdout", out)] {
        let text = tail.text();
        if !text.is_empty() {
            let _ = write!(detail, "; {name}: {text}");
        }
    }
    detail
}

/// The end of what a program printed.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            self.bytes.extend_from_slice(&chunk[..read]);
            if let Some(over) = self.bytes.len().checked_sub(MAX_OUTPUT).filter(|over| *over > 0) {
                self.bytes.drain(..over);
                self.cut = true;
            }
        }
    }

    /// On one line, the end of it.
    fn text(&self) -> String {
        let text = one_line(&String::from_utf8_lossy(&self.bytes), MAX_OUTPUT);
        let over = text.chars().count().saturating_sub(MAX_DETAIL);
        let mark = if over > 0 || self.cut { "…" } else { "" };
        format!("{mark}{}", text.chars().skip(over).collect::<String>())
    }
}

#[cfg(test)]
mod tests;
