//! Programs, really started: what they get, what their end means, and how they are ended.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deliver::{busiest_minute, detail, offer, offer_one, only, outcomes, result, start};
use crate::harness::{Harness, within};

/// A shell script, and a folder that it may write to.
struct Script {
    folder: TempDir,
}

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = Self { folder };
        let text = text.replace("{folder}", script.folder.path().to_str().expect("text"));
        fs::write(script.path(), format!("#!/bin/sh\n{text}\n")).expect("it can be written");
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        script
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("on task.sh")
    }

    fn section(&self, keys: &str) -> String {
        format!("kind = \"command\"\nprogram = \"{}\"\n{keys}\n", self.path().display())
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join(name)).ok()
    }

    /// Waits until the script wrote a file.
    async fn wrote(&self, name: &str) -> String {
        let there = async {
            loop {
                if let Some(text) = self.file(name).filter(|text| text.ends_with('\n')) {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        within(name, there).await
    }
}

/// What becomes of one result that the script gets.
async fn handed(script: &Script, keys: &str) -> (Harness, Value) {
    let mut harness = start(&script.section(keys)).await;
    offer_one(&harness).await;
    harness.drain().await;
    let delivery = only(&harness).await;
    (harness, delivery)
}

#[tokio::test]
async fn a_program_gets_the_envelope_and_a_few_variables_and_nothing_else() {
    let script = Script::new(
        "cat > '{folder}/input'\nenv | sort > '{folder}/env'\nprintf '%s\\n' \"$@\" > '{folder}/args'\necho done; echo odd >&2",
    );
    let (_harness, delivery) = handed(&script, "args = [\"--to\", \"$HOME; rm -rf ~\", \"*\"]").await;
    assert_eq!((&delivery["state"], detail(&delivery)), (&json!("delivered"), "exit code 0; stderr: odd; stdout: done"));
    let envelope: Value = serde_json::from_str(&script.file("input").unwrap()).unwrap();
    assert_eq!((&envelope["event"]["message"], &envelope["out_of_order"]), (&json!("**4**"), &json!(false)));
    assert_eq!(script.file("args").unwrap(), "--to\n$HOME; rm -rf ~\n*\n");
    let env = script.file("env").unwrap();
    let value = |name: &str| {
        env.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or_else(|| panic!("{name}: {env}"))
    };
    assert_eq!(
        (value("TASKHOOK_EVENT_ID"), value("TASKHOOK_DELIVERY_ID")),
        (envelope["id"].as_str().unwrap(), delivery["id"].as_str().unwrap())
    );
    assert_eq!(
        (value("TASKHOOK_EVENT_TYPE"), value("TASKHOOK_SOURCE"), value("TASKHOOK_TASK_ID")),
        ("task_stopped", "open", "t1")
    );
    assert_eq!((value("TASKHOOK_ATTEMPT"), value("TASKHOOK_OUT_OF_ORDER")), ("1", "false"));
    // The shell makes these itself; of taskhook's own environment there is nothing that was not asked for.
    let strangers = env.lines().filter(|line| {
        !line.starts_with("TASKHOOK_") && !["PWD=", "SHLVL=", "_=", "OLDPWD=", "PATH="].iter().any(|own| line.starts_with(own))
    });
    assert_eq!(strangers.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn hostile_words_are_input_and_never_a_command() {
    let script = Script::new("cat > '{folder}/input'\nprintf '%s' \"$TASKHOOK_TASK_ID\" > '{folder}/task'");
    let mut harness = start(&script.section("")).await;
    let nasty = "$(touch hacked) `touch hacked`; touch hacked\u{0}\n../../etc/passwd \u{202e}";
    let mut event = result(1, nasty, &format!("{nasty}{}", "x".repeat(1 << 20)));
    // One with control characters counts as none.
    event["task_detail"]["task_id"] = json!(nasty.replace("\u{0}\n", " "));
    offer(&harness, &event).await;
    harness.drain().await;
    assert_eq!(only(&harness).await["state"], "delivered");
    assert_eq!(script.file("task").unwrap(), "$(touch hacked) `touch hacked`; touch hacked ../../etc/passwd");
    assert!(script.file("input").unwrap().len() > 1 << 20);
    assert_eq!(fs::read_dir(script.folder.path()).unwrap().count(), 3, "the script, and what it wrote");
}

#[tokio::test]
async fn a_template_is_what_it_reads() {
    let script = Script::new("cat > '{folder}/input'");
    handed(&script, "template = \"{{ event.title }}: {{ event.message }} <&>\"").await;
    assert_eq!(script.file("input").unwrap(), "What is 2 + 2?: **4** <&>");
}

#[tokio::test]
async fn every_end_has_its_verdict() {
    for (end, state, outcome, reason) in [
        ("exit 0", "delivered", "delivered", "exit code 0"),
        ("exit 75", "pending", "failed", "exit code 75"),
        ("exit 1", "dead", "failed", "exit code 1"),
        ("exit 255", "dead", "failed", "exit code 255"),
        ("kill -9 $$", "pending", "unknown", "killed by signal 9"),
    ] {
        let script = Script::new(&format!("cat > /dev/null\necho why >&2\n{end}"));
        let (mut harness, delivery) = handed(&script, "").await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!(state), vec![outcome]), "{end}");
        assert_eq!(detail(&delivery), format!("{reason}; stderr: why"), "{end}");
        harness.expect_leftover();
    }
}

#[tokio::test]
async fn later_comes_and_is_the_second_attempt() {
    let script = Script::new("cat > /dev/null\n[ \"$TASKHOOK_ATTEMPT\" = 2 ] || exit 75");
    let (mut harness, _) = handed(&script, "").await;
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(outcomes(&only(&harness).await), ["failed", "delivered"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_or_none_did_nothing() {
    let script = Script::new("exit 0");
    for program in ["/nowhere/on-task", "/etc/passwd"] {
        let mut harness = start(&format!("kind = \"command\"\nprogram = \"{program}\"")).await;
        offer_one(&harness).await;
        harness.drain().await;
        let delivery = only(&harness).await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["failed"]));
        assert!(detail(&delivery).starts_with(&format!("cannot start {program}: ")), "{delivery}");
        harness.expect_leftover();
    }
    drop(script);
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_with_all_that_it_started() {
    // It does not listen to SIGTERM, nor does its child, which holds the output open.
    let script = Script::new(
        "trap 'echo asked >> \"{folder}/asked\"' TERM\n(trap '' TERM; echo $$ > '{folder}/child'; while :; do sleep 1; done) &\necho begun\nwhile :; do sleep 0.1; done",
    );
    let (mut harness, delivery) = handed(&script, "timeout = \"1s\"").await;
    assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["unknown"]), "{delivery}");
    assert!(
        detail(&delivery).starts_with("ended at the end of its time; ") && detail(&delivery).ends_with("stdout: begun"),
        "{delivery}"
    );
    assert_eq!(script.file("asked").as_deref(), Some("asked\n"));
    let leader: i32 = script.file("child").unwrap().trim().parse().unwrap();
    assert!(gone(leader).await, "the group lives on");
    harness.expect_leftover();
}

/// Whether nothing of the process group is left, waiting for the system to tidy up.
async fn gone(group: i32) -> bool {
    let group = rustix::process::Pid::from_raw(group).unwrap();
    let gone = async {
        while rustix::process::test_kill_process_group(group).is_ok() && lives(group) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.is_ok()
}

/// Whether a process of the group is more than a name in the table: what nobody has waited for yet is dead.
fn lives(group: rustix::process::Pid) -> bool {
    let group = group.as_raw_nonzero().get().to_string();
    let processes =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    processes.into_iter().any(|stat| {
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields.get(2) == Some(&group.as_str()) && fields[0] != "Z"
    })
}

#[tokio::test]
async fn a_stop_that_cannot_wait_ends_the_program_and_says_that_nobody_knows() {
    let script = Script::new("echo $$ > '{folder}/child'\nwhile :; do sleep 1; done");
    let mut harness = start(&script.section("timeout = \"10m\"")).await;
    offer_one(&harness).await;
    harness.run_worker(Duration::ZERO, script.wrote("child")).await;
    let delivery = only(&harness).await;
    assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["unknown"]), "{delivery}");
    assert!(gone(script.file("child").unwrap().trim().parse().unwrap()).await, "it lives on");
    harness.expect_leftover();
}

#[tokio::test]
async fn a_kill_in_the_middle_is_an_unknown_attempt_and_another_one() {
    let script = Script::new(
        "cat > /dev/null\n[ \"$TASKHOOK_ATTEMPT\" = 2 ] && exit 0\necho $$ > '{folder}/child'\nwhile :; do sleep 1; done",
    );
    let mut harness = start(&script.section("timeout = \"10m\"")).await;
    offer_one(&harness).await;
    harness.work_until(script.wrote("child")).await;
    harness.crash();
    harness.start().await;
    harness.drain().await;
    assert_eq!(outcomes(&only(&harness).await), ["unknown", "delivered"]);
}

#[tokio::test]
async fn much_output_blocks_nobody_and_is_kept_in_part() {
    let script = Script::new("yes 'a line that is long enough' | head -c 5000000\necho the end");
    let (_harness, delivery) = handed(&script, "").await;
    let detail = detail(&delivery);
    assert!(detail.starts_with("exit code 0; stdout: …") && detail.ends_with("the end") && detail.len() < 1_000, "{detail}");
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_its_end_up() {
    let script = Script::new("cat > /dev/null\nsleep 600 &\necho $! > '{folder}/child'\necho done");
    let (_harness, delivery) = handed(&script, "timeout = \"20s\"").await;
    assert_eq!((&delivery["state"], detail(&delivery)), (&json!("delivered"), "exit code 0; stdout: done"));
    let left = script.file("child").unwrap().trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_thousand_results_keep_to_the_rate() {
    let script = Script::new("echo x >> '{folder}/count'");
    let mut harness = start(&script.section("rate = 600\nconcurrency = 4")).await;
    for number in 0..1_000 {
        offer(&harness, &result(number, "A title", "text")).await;
    }
    let mut counts = Vec::new();
    for _ in 0..130 {
        harness.advance(Duration::from_secs(1)).await;
        counts.push(script.file("count").map_or(0, |text| text.lines().count()));
    }
    assert_eq!(counts.last(), Some(&1_000));
    assert!(busiest_minute(&counts) <= 600, "{counts:?}");
}
