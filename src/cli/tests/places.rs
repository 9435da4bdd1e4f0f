//! Commands about the places that results go to.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::site::Site;
use crate::simulator::manus::{Plan, Turn};

/// A site whose destinations are all kinds, and whose program is `script`.
fn site(script: &str) -> Site {
    let mut site = Site::stopped(&[]);
    let folder = site.folder.path().to_owned();
    let program = folder.join("on-task");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let database = folder.join("results.db");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute_batch("CREATE TABLE results (id TEXT PRIMARY KEY, title TEXT)")
        .unwrap();
    let toml = format!(
        r#"
[destinations.crm]
kind = "http"
url = "https://crm.example.com/hooks?token=s3cret"
template = '{{"text": {{{{ task.title }}}}}}'
[destinations.team]
kind = "slack"
webhook_url = "https://hooks.slack.com/services/T0/B0/s3cret"
[destinations.boss]
kind = "email"
smtp_url = "smtps://me:s3cret@mail.example.com"
from = "taskhook <hooks@example.com>"
to = ["ann@example.com", "bob@example.com"]
[destinations.script]
kind = "command"
program = "{program}"
template = "{{{{ task.title }}}}"
[destinations.db]
kind = "sql"
url = "sqlite://{database}"
statement = "INSERT INTO results VALUES (:delivery_id, :title)"
values = {{ title = "task.title" }}
[[routes]]
name = "results"
when = 'task.state == "finished"'
to = ["crm", "team", "boss", "script", "db"]
[[routes]]
name = "questions"
when = 'task.state == "waiting"'
to = ["team"]
[[routes]]
name = "odd"
when = 'event.type == "task_progress" and "x" in event.payload.task_detail'
to = ["log"]
[[routes]]
name = "strange"
when = 'event.type == "unknown" and "x" in (event.payload.event_type | length)'
to = ["log"]
unknown = true
"#,
        program = program.display(),
        database = database.display(),
    );
    std::fs::write(folder.join("taskhook.toml"), toml).unwrap();
    site.set("TASKHOOK_CONFIG", "taskhook.toml");
    site
}

#[test]
fn a_sample_shows_what_matches_and_what_would_be_sent() {
    let site = site("cat > /dev/null");
    let (exit, out, err) = site.shell(&["routes", "test", "--sample", "test"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(!out.contains("s3cret"), "{out}");
    insta::with_settings!({filters => vec![(r"html: \d+ bytes", "html: MANY bytes")]}, {
        insta::assert_snapshot!(out, @"
        task_stopped  test  Test message from taskhook
        matches       results -> crm, team, boss, script, db
        no match      questions
        no match      odd
        no match      strange

        crm (http) would be sent:
          body:
            text: Test message from taskhook
          signed: false
          url: https://crm.example.com/hooks?[redacted]

        team (slack) would be sent:
          message:
            ✅ Test message from taskhook
            
            *finished* · test
            
            This is a test, sent with `taskhook deliveries test`. *No task was run*, and nothing has to be done about it.
          notification: ✅ Test message from taskhook – finished: This is a test, sent with taskhook deliveries test. No task was run, and nothing has to be done about it.
          to: the webhook's channel

        boss (email) would be sent:
          attached: 0
          from: taskhook <hooks@example.com>
          html: MANY bytes
          subject: Test message from taskhook
          text:
            ✅ Test message from taskhook
            finished · test
            
            This is a test, sent with `taskhook deliveries test`. **No task was run**, and nothing has to be done about it.
          to: ann@example.com, bob@example.com

        script (command) would be sent:
          args: []
          program: DIR/on-task
          stdin: Test message from taskhook

        db (sql) would be sent:
          statement: INSERT INTO results VALUES (:delivery_id, :title)
          values:
            title: Test message from taskhook
        ");
    });
    let whole = site.json(&["routes", "test", "--sample", "question", "--json"]);
    assert_eq!(
        whole["routes"][0],
        json!({"route": "results", "matches": false, "error": null, "to": ["crm", "team", "boss", "script", "db"]})
    );
    assert_eq!(whole["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(whole["deliveries"][0]["content"]["message"]["blocks"][0]["type"], "header");
}

#[test]
fn every_sample_can_be_tried() {
    let site = site("cat > /dev/null");
    for sample in crate::route::SAMPLES {
        let (exit, out, err) = site.shell(&["routes", "test", "--sample", sample]);
        assert_eq!((exit, err.as_str()), (u8::from(*sample == "unknown"), told(sample)), "{sample}: {out}");
        assert!(!out.contains(['\u{202e}', '\u{1b}', '\0']));
    }
}

/// What is said of a sample beside what would be sent.
fn told(sample: &str) -> &'static str {
    match sample {
        "unknown" => "It would go nowhere.\nerror: this event would become a dead letter (`route_error`)\n",
        "created" | "failed" | "progress" => "It would go nowhere.\n",
        _ => "",
    }
}

#[test]
fn an_event_is_tried_as_the_worker_would_send_it() {
    let mut site = site("cat > /dev/null");
    std::fs::write(site.folder.path().join("running.toml"), "").unwrap();
    site.set("TASKHOOK_CONFIG", "running.toml");
    site.run();
    site.manus.register(super::site::KEY, &site.webhook_url());
    let plan = Plan::new([Turn::finish("The answer is **4**.")]).titled("What is 2 + 2?");
    let _ = site.manus.create_task(super::site::KEY, plan);
    site.block_on(site.manus.finish_all());
    let stopped = ["events", "list", "--type", "task_stopped", "--json"];
    let list = site.json_once(&stopped, |list| list["data"][0]["state"] == "done");
    let id = list["data"][0]["id"].as_str().unwrap();
    // The configuration that is tried is not that of the taskhook that runs.
    site.set("TASKHOOK_CONFIG", "taskhook.toml");
    let tried = site.json(&["routes", "test", "--event", id, "--json"]);
    assert_eq!((&tried["event"]["id"], &tried["routes"][0]["matches"]), (&json!(id), &json!(true)), "{tried}");
    assert!(tried["deliveries"][1]["preview"]["message"].as_str().unwrap().contains("The answer is *4*."), "{tried}");
    assert_eq!(tried["deliveries"][4]["content"]["values"], json!({"title": "What is 2 + 2?"}));
    let (exit, out, err) = site.shell(&["routes", "test", "--event", "01999999-0000-7000-8000-000000000000"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    error: there is no event `01999999-0000-7000-8000-000000000000`
    hint: `taskhook events list` shows what there is
    ");
}

#[test]
fn a_test_message_says_that_it_is_one() {
    let site = site("cat > \"$(dirname \"$0\")/input\"; echo \"attempt $TASKHOOK_ATTEMPT\"");
    let (exit, out, err) = site.shell(&["deliveries", "test", "script"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    insta::with_settings!({filters => vec![(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID")]}, {
        insta::assert_snapshot!(out, @"sent to `script` (command) as ID: exit code 0; stdout: attempt 1");
    });
    assert_eq!(std::fs::read_to_string(site.folder.path().join("input")).unwrap(), "Test message from taskhook");
    let sent = site.json(&["deliveries", "test", "db", "--json"]);
    assert_eq!((&sent["destination"], &sent["kind"], &sent["detail"]), (&json!("db"), &json!("sql"), &json!("1 row")));
    let database = rusqlite::Connection::open(site.folder.path().join("results.db")).unwrap();
    let row: (String, String) = database.query_row("SELECT * FROM results", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!((row.0.as_str(), row.1.as_str()), (sent["delivery"].as_str().unwrap(), "Test message from taskhook"));
}

#[test]
fn a_test_message_that_is_not_taken_says_why() {
    let site = site("echo 'no such list' >&2; exit 3");
    let (exit, out, err) = site.shell(&["deliveries", "test", "script"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"error: `script` did not take the test message: exit code 3; stderr: no such list");
    let (exit, out, err) = site.shell(&["deliveries", "test", "scirpt"]);
    assert_eq!((exit, out.as_str()), (2, ""));
    insta::assert_snapshot!(err, @"
    error: there is no destination `scirpt`
    hint: did you mean `script`?
    ");
}

#[test]
fn check_tries_what_can_be_tried_without_sending_anything() {
    let site = site("exit 1");
    std::fs::remove_file(site.folder.path().join("results.db")).unwrap();
    let (_, out, _) = site.shell(&["check"]);
    let line = |name: &str| {
        out.lines()
            .find(|line| line.contains(&format!("destination {name}:")))
            .unwrap_or_else(|| panic!("{name}: {out}"))
            .to_owned()
    };
    insta::assert_snapshot!([line("script"), line("team"), line("db")].join("\n"), @"
    ok       destination script: DIR/on-task can be run
    ok       destination team: the webhook's address is well formed; only a message can tell more
    problem  destination db: unable to open database file: DIR/results.db
    ");
    assert!(!out.contains("s3cret"), "{out}");
}
