//! A disk that fails in the midst of writing: the program ends, says so, and has kept what it said it kept.

#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use taskhook::http;

use super::*;

/// The program, ended with the test if need be.
struct Program {
    child: Child,
    stderr: BufReader<ChildStderr>,
    url: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, its files limited to a few megabytes: what is written beyond that fails, as on a disk that breaks.
fn spawn(folder: &Path, limited: bool) -> Program {
    let limit = if limited { "ulimit -f 8192; trap '' XFSZ;" } else { "" };
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{limit} exec {} serve", env!("CARGO_BIN_EXE_taskhook")))
        .current_dir(folder)
        .env_clear()
        .env("TASKHOOK__STORE__URL", "sqlite://taskhook.db")
        .env("TASKHOOK__STORE__MIN_FREE_BYTES", "0B")
        .env("TASKHOOK__SERVER__LISTEN", "127.0.0.1:0")
        .env("TASKHOOK__ADMIN__LISTEN", "127.0.0.1:0")
        .env("TASKHOOK__SOURCES__OPEN__PROVIDER", "manus")
        .env("TASKHOOK__SOURCES__OPEN__VERIFY", "none")
        .env("TASKHOOK__SOURCES__OPEN__FETCH", "off")
        .env("TASKHOOK__LOG__FORMAT", "text")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut program = Program { child, stderr, url: String::new() };
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(program.stderr.read_line(&mut line).unwrap() > 0, "it ended: {said}");
        said.push_str(&line);
        if let Some((_, rest)) = line.split_once("receives on ") {
            let address = rest.split(';').next().unwrap();
            program.url = format!("http://{address}/webhooks/open");
            return program;
        }
    }
}

#[tokio::test]
async fn a_store_that_cannot_write_ends_the_program_and_loses_nothing_that_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = spawn(folder.path(), true);
    let client = http::client(Duration::from_secs(20));
    let mut accepted = Vec::new();
    for number in 0..400 {
        let mut event = stopped(&format!("e{number}"), &format!("t{number}"));
        event["padding"] = "x".repeat(20_000).into();
        match http::send(client.post(&program.url).body(event.to_string()), Duration::from_secs(20), 1 << 20).await {
            Ok(answer) if status(&answer) == 200 => accepted.push(event),
            Ok(answer) => {
                assert_eq!((status(&answer), code(&answer)), (503, "store_unavailable".to_owned()));
                break;
            }
            Err(_) => break,
        }
    }
    let mut said = String::new();
    program.stderr.read_to_string(&mut said).unwrap();
    let ended = program.child.wait().unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("the store's disk failed"), "{said}");
    assert!(accepted.len() > 10, "{}", accepted.len());

    let program = spawn(folder.path(), false);
    for event in &accepted {
        let answer = send(client.post(&program.url).body(event.to_string())).await;
        assert_eq!(json(&answer)["status"], "duplicate", "{}", event["event_id"]);
    }
}
