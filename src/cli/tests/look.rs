//! Commands that look at a running taskhook.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use super::super::*;
use super::site::Site;
use crate::simulator::manus::{Plan, Turn};

fn stopped(task: &str, title: &str) -> serde_json::Value {
    json!({"event_id": format!("task_stopped_{task}_1"), "event_type": "task_stopped", "task_detail":
        {"task_id": task, "task_title": title, "task_url": "https://manus.im/app/x", "message": "Done", "attachments": [],
         "stop_reason": "finish"}})
}

/// What no terminal must be sent: it clears the screen, turns the reading direction, hides, and starts lines.
const HOSTILE: &str = "a\u{1b}[2J\u{202e}b\u{9b}31m\r\nerror: forged\u{2028}\u{e0041}";

fn is_harmless(text: &str) -> bool {
    text.lines().all(|line| !line.chars().any(|c| c.is_control() || crate::text::is_invisible(c) || c == '\u{2028}'))
}

#[test]
fn what_to_do_is_told_while_nothing_runs() {
    let site = Site::stopped(&[]);
    let (exit, out, err) = site.shell(&["events", "list", "--url", "http://127.0.0.1:1/"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    error: no taskhook answers at http://127.0.0.1:1: Connection refused (os error 111)
    hint: start `taskhook serve`, or pass `--url`
    ");
}

#[test]
fn an_address_that_is_none_is_a_usage_error() {
    let site = Site::stopped(&[]);
    for url in ["127.0.0.1:8081", "ftp://127.0.0.1", "http://admin:s3cret@127.0.0.1", "http://127.0.0.1/?a=1"] {
        let (exit, out, err) = site.shell(&["events", "--url", url, "list"]);
        assert_eq!((exit, out.as_str()), (2, ""), "{url}");
        assert!(err.starts_with("error: `--url` ") && err.contains("hint: ") && !err.contains("s3cret"), "{err}");
    }
}

#[test]
fn a_wrong_token_is_told_from_a_missing_one() {
    let site = Site::start(&[("TASKHOOK__ADMIN__TOKEN", "right")]);
    assert_eq!(site.shell(&["tasks", "list"]).0, 0);
    let (exit, out, err) = site.shell(&["tasks", "list", "--token", "wr0ng"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    error: the taskhook at http://ADMIN does not take this token
    hint: pass another with `--token`, or set `admin.token` or `admin.token_file` as it is set there
    ");
    let mut elsewhere = Site::stopped(&[]);
    elsewhere.set("TASKHOOK__ADMIN__LISTEN", &site.env_of("TASKHOOK__ADMIN__LISTEN"));
    insta::assert_snapshot!(elsewhere.shell(&["tasks", "list"]).2.replace(&site.env_of("TASKHOOK__ADMIN__LISTEN"), "ADMIN"), @"
    error: the taskhook at http://ADMIN asks for a token
    hint: pass `--token`, or set `admin.token` or `admin.token_file` as it is set there
    ");
}

#[test]
fn whoever_is_not_the_admin_listener_is_not_believed() {
    let site = Site::start(&[]);
    let public = site.public_url();
    let (exit, _, err) = site.shell(&["events", "list", "--url", &public]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!(err, @"
    error: http://PUBLIC is not the admin address of a taskhook: it is taskhook's public address
    hint: pass the address of `admin.listen` as `--url`; by default it is http://127.0.0.1:8081
    ");
    site.front.answer("200 OK", "content-type: text/html\r\n", "<html>a router</html>");
    insta::assert_snapshot!(site.shell(&["events", "list", "--url", &public]).2, @"
    error: http://PUBLIC is not the admin address of a taskhook: it answers 200 with text/html
    hint: pass the address of `admin.listen` as `--url`; by default it is http://127.0.0.1:8081
    ");
}

#[test]
fn empty_lists_say_what_to_do_next() {
    let site = Site::start(&[]);
    let lists = [
        &["events", "list"][..],
        &["events", "list", "--state", "dead"],
        &["tasks", "list"],
        &["deliveries", "list"],
        &["deliveries", "list", "--state", "dead"],
        &["rejections", "list"],
    ];
    let told = lists.map(|list| {
        let (exit, out, err) = site.shell(list);
        assert_eq!((exit, out.as_str()), (0, ""), "{list:?}");
        err
    });
    insta::assert_snapshot!(told.join(""), @r#"
    No event was received yet. `taskhook webhooks register` tells the provider where to send them; requests that did not verify are in `taskhook rejections list`.
    No event is like that.
    No task is known yet. `taskhook tasks create "…"` makes one.
    There is no delivery yet. `taskhook events list` shows what was received.
    Nothing was given up on.
    No request was rejected. What came and verified is in `taskhook events list`.
    "#);
    assert_eq!(site.json(&["events", "list", "--json"]), json!({"data": [], "next_cursor": null}));
}

#[test]
fn an_event_is_listed_and_shown_by_the_beginning_of_its_id() {
    let site = Site::start(&[]);
    let task = site.manus.create_task(super::site::KEY, Plan::new([Turn::finish("4")]).titled("What is 2 + 2?"));
    site.end_unheard();
    site.emit(stopped(&task, "What is 2 + 2?"));
    let done = |list: &serde_json::Value| list["data"][0]["state"] == "done";
    let list = site.json_once(&["events", "list", "--json"], done);
    let id = list["data"][0]["id"].as_str().unwrap().to_owned();
    let hide =
        |text: &str| text.replace(&id, "EVENT-ID").replace(&id[..13], "EVENT-ID-SHRT").replace(&task, "TASK-ID-TASK-ID-TASK-I");
    insta::with_settings!({filters => vec![
        (r"\b\d+s\b", "0s"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "A-DAY, AND ITS TIME"),
        (r"  \d\d:\d\d:\d\d  ", "  ITS-TIME  "),
        (r"\d{4}-\d\d-\d\d  ", "DAY-DAY-DA  "),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "DELIVERY-ID-DELIVERY-ID-DELIVERY-ID-"),
        // The two may have been made in the same millisecond.
        (r"(EVENT-ID-SHRT|[0-9a-f]{8}-[0-9a-f]{4})(\s+0s  log)", "DELIVERY-SHRT$2"),
    ]}, {
        insta::assert_snapshot!(hide(&site.shell(&["events", "list"]).1), @"
        EVENT          AGE  SOURCE  TYPE          TASK                    STATE
        EVENT-ID-SHRT   0s  manus   task_stopped  TASK-ID-TASK-ID-TASK-I  done
        ");
        insta::assert_snapshot!(hide(&site.shell(&["events", "show", &id[..13]]).1), @r#"
        event:         EVENT-ID
        type:          task_stopped
        source:        manus (manus)
        task:          TASK-ID-TASK-ID-TASK-I
        received:      TIME
        state:         done
        verified by:   signature
        provider's id: task_stopped_TASK-ID-TASK-ID-TASK-I_1
        sent to:       /webhooks/manus

        DELIVERY                              DESTINATION  STATE      TRIES  RESULT
        DELIVERY-ID-DELIVERY-ID-DELIVERY-ID-  log          delivered      1  written

        payload:
        {
          "event_id": "task_stopped_TASK-ID-TASK-ID-TASK-I_1",
          "event_type": "task_stopped",
          "task_detail": {
            "attachments": [],
            "message": "Done",
            "stop_reason": "finish",
            "task_id": "TASK-ID-TASK-ID-TASK-I",
            "task_title": "What is 2 + 2?",
            "task_url": "https://manus.im/app/x"
          }
        }
        "#);
        insta::assert_snapshot!(hide(&site.shell(&["tasks", "list"]).1), @"
        TASK                    AGE  SOURCE  STATE     CREDITS  TITLE
        TASK-ID-TASK-ID-TASK-I   0s  manus   finished        5  What is 2 + 2?
        ");
        insta::assert_snapshot!(hide(&site.shell(&["tasks", "credits"]).1), @"
        DAY         SOURCE  CREDITS  BUDGET
        DAY-DAY-DA  manus         5
        ");
        insta::assert_snapshot!(hide(&site.shell(&["tasks", "show", &task]).1), @"
        task:        TASK-ID-TASK-ID-TASK-I
        source:      manus
        title:       What is 2 + 2?
        url:         https://manus.im/app/TASK-ID-TASK-ID-TASK-I
        state:       finished
        stop reason: finish
        credits:     5
        model:       manus-1.6
        proven by:   listed, at TIME
        first seen:  TIME
        fetched:     TIME

        last answer:
        4

        EVENT          AGE  SOURCE  TYPE          TASK                    STATE
        EVENT-ID-SHRT   0s  manus   task_stopped  TASK-ID-TASK-ID-TASK-I  done

        WHEN                 PROVIDER  WHAT      DETAIL
        A-DAY, AND ITS TIME            created   What is 2 + 2?
        A-DAY, AND ITS TIME            event     task_stopped, done
        A-DAY, AND ITS TIME  ITS-TIME  stop      finished
        A-DAY, AND ITS TIME            fetched   finished
        A-DAY, AND ITS TIME            delivery  log, delivered, 1 attempt(s)
        ");
        insta::assert_snapshot!(hide(&site.shell(&["deliveries", "list", "--state", "delivered"]).1), @"
        DELIVERY       AGE  DESTINATION  TYPE          STATE      TRIES  RESULT
        DELIVERY-SHRT   0s  log          task_stopped  delivered      1  written
        ");
    });
    assert_eq!(site.json(&["events", "show", "--json", &id])["event_id"], format!("task_stopped_{task}_1"));
    assert_eq!(site.json(&["tasks", "show", "manus", &task, "--json"])["title"], "What is 2 + 2?");
    assert_eq!(site.json(&["deliveries", "list", "--json"])["data"][0]["state"], "delivered");
    let (exit, _, err) = site.shell(&["events", "release", &id]);
    assert_eq!((exit, err.as_str()), (1, "error: the event is not in quarantine: its state is `done`\n"));
}

#[test]
fn what_is_not_there_is_named() {
    let site = Site::start(&[]);
    let asked = [
        &["events", "show", "019a9936-de14"][..],
        &["events", "show", "../tasks\u{1b}[2J"],
        &["events", "release", "019a9936-de14-7c3a-9d52-0f6c1e8b4a77"],
        &["tasks", "show", "nothing"],
        &["tasks", "show", "elsewhere", "nothing"],
        &["rejections", "show", "7"],
    ];
    let told = asked.map(|line| {
        let (exit, out, err) = site.shell(line);
        assert_eq!((exit, out.as_str()), (1, ""), "{line:?}");
        err
    });
    insta::assert_snapshot!(told.join(""), @"
    error: there is no event `019a9936-de14`
    hint: `taskhook events list` shows what there is
    error: there is no event `../tasks [2J`
    hint: `taskhook events list` shows what there is
    error: there is no event `019a9936-de14-7c3a-9d52-0f6c1e8b4a77`
    hint: `taskhook events list` shows what there is
    error: there is no task `nothing`
    hint: `taskhook tasks list` shows what there is
    error: there is no task `nothing`
    hint: `taskhook tasks list` shows what there is
    error: there is no rejection 7
    hint: `taskhook rejections list` shows what there is; the oldest are dropped
    ");
}

#[test]
fn an_id_that_is_not_the_only_one_must_be_longer() {
    let site = Site::start(&[]);
    (0..3).for_each(|n| site.emit(json!({"event_id": format!("e{n}"), "event_type": "task_party"})));
    let list = site.json(&["events", "list", "--json"]);
    let id = list["data"][0]["id"].as_str().unwrap();
    let (exit, _, err) = site.shell(&["events", "show", &id[..8]]);
    assert_eq!(exit, 1);
    assert!(err.contains("more than one event begins with") && err.contains("hint: write more of the id"), "{err}");
    let (_, out, err) = site.shell(&["events", "list", "--limit", "2"]);
    assert_eq!((out.lines().count(), err.contains("--cursor")), (3, true), "{err}");
    let cursor = site.json(&["events", "list", "--limit", "2", "--json"])["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(site.json(&["events", "list", "--cursor", &cursor, "--json"])["data"].as_array().unwrap().len(), 1);
    assert!(out.contains("unknown: task_party") || out.contains("unknown: t"), "{out}");
}

#[test]
fn hostile_text_does_nothing_to_a_terminal() {
    let site = Site::start(&[]);
    let title = format!("{HOSTILE}{}", "x".repeat(1 << 20));
    let plan = Plan::new([Turn::finish(HOSTILE)]).titled(&title);
    let task = site.manus.create_task(super::site::KEY, plan);
    site.end_unheard();
    site.emit(stopped(&task, &title));
    site.emit(json!({"event_id": HOSTILE, "event_type": HOSTILE, "task_detail": {"task_id": HOSTILE}}));
    site.json_once(&["events", "list", "--json"], |list| list["data"][1]["state"] == "done");
    let id = site.json(&["events", "list", "--json"])["data"][0]["id"].as_str().unwrap().to_owned();
    for line in [
        &["events", "list"][..],
        &["events", "show", &id],
        &["events", "show", &id, "--json"],
        &["tasks", "list"],
        &["tasks", "show", &task],
        &["tasks", "list", "--json"],
        &["deliveries", "list"],
    ] {
        let (exit, out, err) = site.shell(line);
        assert_eq!((exit, err.as_str()), (0, ""), "{line:?}");
        assert!(is_harmless(&out), "{line:?}: {:?}", out.chars().take(2000).collect::<String>());
        if !line.contains(&"--json") && line[1] == "list" {
            assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
        }
    }
}

#[test]
fn a_task_is_created_once_and_its_id_and_address_are_printed() {
    let site = Site::start(&[]);
    let (exit, out, err) = site.shell(&["tasks", "create", "hang: say hello"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((lines.len(), lines[1]), (2, format!("https://manus.im/app/{}", lines[0]).as_str()));
    let created = site.json(&["tasks", "create", "--profile", "manus-1.6-lite", "hang again", "--json"]);
    assert_eq!(created["source"], "manus");
    assert_eq!(site.shell(&["tasks", "create", ""]).0, 2);
    let (exit, _, err) = site.shell(&["tasks", "create", "--source", "other", "hello"]);
    assert_eq!((exit, err.as_str()), (1, "error: there is no source `other`\n"));
}

#[test]
fn a_creation_with_a_lost_answer_is_told_and_not_repeated() {
    use crate::simulator::manus::{ApiFault, Faults, Times, WrongAnswer};
    let site = Site::start(&[]);
    let lost = ApiFault::on("task.create", Times::Always, WrongAnswer::Lost);
    site.manus.set_faults(Faults { api: vec![lost], ..Faults::default() });
    let (exit, out, err) = site.shell(&["tasks", "create", "hang: spend money"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    error: task.create: the connection broke: connection closed before message completed; the provider may have done it all the same, and it was not tried again, since it costs money: look there first
    hint: its page shows a task at once, `taskhook tasks list` with its first event
    ");
    assert_eq!(site.manus.requests().iter().filter(|call| call.path.ends_with("task.create")).count(), 1);
}

#[test]
fn a_rejection_says_what_would_have_matched() {
    use crate::simulator::manus::Faults;
    let site = Site::start(&[]);
    site.emit(json!({"event_id": "first", "event_type": "task_created"}));
    let other = "https://old.example.com/webhooks/manus".to_owned();
    site.manus.set_faults(Faults { sign_for_url: Some(other), ..Faults::default() });
    let sent = site.block_on(site.manus.emit(super::site::KEY, json!({"event_id": "second", "event_type": HOSTILE})));
    assert_eq!(sent[0].status, Some(401));
    let list = site.json_once(&["rejections", "list", "--json"], |list| list["data"][0].is_object());
    assert_eq!(list["data"][0]["code"], "signature_invalid");
    let (_, out, _) = site.shell(&["rejections", "show", "1"]);
    assert!(is_harmless(&out), "{out}");
    insta::with_settings!({filters => vec![
        (r"\b\d+s\b", "0s"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"(?m)^(x-webhook-[a-z]+|body:[ ]+|user-agent|content-length): .*$", "$1: …"),
        (r"\d+ bytes", "N bytes"),
    ]}, {
        insta::assert_snapshot!(site.shell(&["rejections", "list"]).1, @"
        ID  AGE  SOURCE  CODE               WHAT WOULD HAVE MATCHED
        1    0s  manus   signature_invalid  the signature fits no URL that we can guess:
                                            the webhook must be registered as exactly
                                            `http://PUBLIC/webhooks/manus`
                                            (`server.public_url` and the path), and
                                            nothing on the way may change the body, the
                                            path or the query
        ");
        insta::assert_snapshot!(out, @r#"
        rejection: 1
        received:  TIME
        source:    manus
        answered:  signature_invalid
        sent to:   /webhooks/manus
        body:      N bytes

        what would have matched:
        the signature fits no URL that we can guess: the webhook must be registered as exactly `http://PUBLIC/webhooks/manus` (`server.public_url` and the path), and nothing on the way may change the body, the path or the query

        headers (credentials as a hash):
        x-webhook-signature: …
        x-webhook-timestamp: …
        content-type: application/json
        user-agent: …
        accept: */*
        host: PUBLIC
        content-length: …

        body:
        {"event_id":"second","event_type":"a\u001b[2Jb 31m\r\nerror: forged "}
        "#);
    });
}

/// Hands lines over, until nobody takes them.
struct Lines(mpsc::Sender<String>, Vec<u8>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(bytes);
        while let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(self.1.drain(..=end).collect()).unwrap();
            self.0.send(line).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn tail_goes_on_over_a_restart_and_ends_with_its_reader() {
    let mut site = Site::start(&[]);
    let (lines, told) = (mpsc::channel(), mpsc::channel());
    let next = |from: &mpsc::Receiver<String>| from.recv_timeout(Duration::from_secs(30)).unwrap();
    let command = site.command(&["events", "tail"]);
    std::thread::scope(|scope| {
        let ended = scope.spawn(move || command.run(&mut Lines(lines.0, Vec::new()), &mut Lines(told.0, Vec::new())));
        site.emit(json!({"event_id": "one", "event_type": "task_one"}));
        assert!(next(&lines.1).contains("unknown: task_one"));
        site.stop();
        assert!(next(&told.1).contains("Waiting for it to come back"));
        site.run();
        assert_eq!(next(&told.1), "It is back.\n");
        site.emit(json!({"event_id": "two", "event_type": HOSTILE}));
        let line = next(&lines.1);
        assert!(line.contains("unknown: a") && is_harmless(line.trim_end()), "{line:?}");
        drop(lines.1);
        site.emit(json!({"event_id": "three", "event_type": "task_three"}));
        assert_eq!(ended.join().unwrap(), Exit::Done);
    });
}

#[test]
fn the_health_check_tells_by_its_exit_code() {
    let mut site = Site::stopped(&[]);
    let (exit, out, err) = site.shell(&["healthcheck"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(err.starts_with("error: no taskhook answers at http://ADMIN"), "{err}");
    site.run();
    let (exit, out, err) = site.shell(&["healthcheck"]);
    assert_eq!((exit, err.as_str()), (0, ""), "{out}");
    assert!(out == "ready\n" || out == "degraded\n", "{out}");
    site.set("TASKHOOK__ADMIN__LISTEN", "127.0.0.1:1");
    site.set("TASKHOOK__SERVER__LISTEN", &site.front.address.to_string());
    assert_eq!(site.shell(&["healthcheck"]), (0, "ok\n".to_owned(), String::new()));
    site.front.answer("503 Service Unavailable", "", r#"{"reasons":[{"reason":"the disk is full"}]}"#);
    assert_eq!(site.shell(&["healthcheck"]).2, "error: no event can be accepted: the disk is full\n");
    site.set("TASKHOOK__ADMIN__LISTEN", "nowhere");
    assert_eq!(site.shell(&["healthcheck"]).0, 1);
}
