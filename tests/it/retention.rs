//! What goes, and when: by age, by size, and because a person wants it gone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use taskhook::simulator::manus::Plan;

use crate::harness::{Harness, KEY, Recorder, Reply, json as body_of, send, status};
use crate::work::{self, run};

const DAY: Duration = Duration::from_hours(24);
const SAVES: &str = "[archive]\nurl = \"file://{folder}/files\"\n[outbound]\nallow_private_addresses = true\n";
/// Words that nothing else holds.
const SECRET: &str = "the-launch-code-is-8086";

/// A program whose only destination is `crm`, and that saves files and believes the source `open`.
async fn start(crm: &Recorder, toml: &str) -> Harness {
    let open = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";
    work::start(work::setup(crm, "").config(SAVES).config(open).config(toml)).await
}

/// A whole task, handed on, with one file of this content; its id.
async fn task(harness: &mut Harness, name: &str, content: &str) -> String {
    let task = harness.manus.create_task(KEY, Plan::finish(SECRET).with_file(name, "text/plain", content.to_owned()));
    run(harness, &task).await;
    harness.drain().await;
    task
}

/// Sends an event of its own to the source `open`.
async fn stop_of(harness: &Harness, event: &str, task: &str) -> Value {
    let event = json!({"event_id": event, "event_type": "task_stopped",
        "task_detail": {"task_id": task, "task_title": SECRET, "message": SECRET, "stop_reason": "finish"}});
    let answer = send(harness.post("/webhooks/open").body(event.to_string())).await;
    assert_eq!(status(&answer), 200);
    body_of(&answer)
}

/// How many rows each table has that holds what came and what was made of it.
fn rows(harness: &Harness) -> i64 {
    let connection = rusqlite::Connection::open(harness.database()).unwrap();
    let tables = "events task_events open_events event_keys new_keys tasks fetched_tasks jobs deliveries delivery_bodies attempts files archiving \
                  unwanted_files";
    let count = |table| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap();
    tables.split(' ').map(count).sum()
}

/// The contents in the archive.
fn kept(harness: &Harness) -> usize {
    let folders = fs::read_dir(harness.folder().join("files/sha256")).into_iter().flatten();
    folders.map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
}

#[tokio::test]
async fn what_is_done_with_goes_after_its_time_and_leaves_nothing() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    let first = task(&mut harness, "a.txt", "one").await;
    task(&mut harness, "b.txt", "two").await;
    assert_eq!(kept(&harness), 2);
    harness.advance(DAY * 29).await;
    assert_eq!(harness.keep_up().await.events, 0);
    // Another task has the very content of the first.
    task(&mut harness, "c.txt", "one").await;
    harness.clock.advance(jiff::SignedDuration::from_hours(25));
    let removed = harness.keep_up().await;
    assert!(removed.events >= 4 && removed.tasks == 2, "{removed:?}");
    assert_eq!(kept(&harness), 1, "what a task that is kept has as well stays");
    let gone = send(harness.admin_request(Method::GET, &format!("/api/v1/tasks/manus/{first}"))).await;
    assert_eq!(status(&gone), 404);
    let stats = taskhook::store::care::stats(&harness.store_config(), &mut |_| {}).unwrap();
    assert_eq!(stats.removed.iter().map(|each| each.count).collect::<Vec<_>>()[1..], [2, 1]);

    harness.advance(DAY * 31).await;
    assert_eq!(harness.keep_up().await.tasks, 1);
    assert_eq!((rows(&harness), kept(&harness)), (0, 0));
    assert_eq!(taskhook::store::care::check(&harness.store_config(), false, &mut |_| {}).unwrap(), []);
    let metrics = send(harness.admin_request(Method::GET, "/metrics")).await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("taskhook_removed_total{what=\"events\"}"));
}

#[tokio::test]
async fn what_is_not_done_with_stays_however_old_it_is() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    crm.answer(Reply::Status(400));
    let dead = stop_of(&harness, "dead", "t1").await;
    harness.drain().await;
    crm.answer(Reply::Status(204));
    let done = stop_of(&harness, "done", "t1").await;
    harness.drain().await;
    let foreign = harness
        .accept(&json!({"event_id": "f1", "event_type": "task_stopped",
        "task_detail": {"task_id": "nobodys", "task_title": "T", "message": "m", "stop_reason": "finish"}}))
        .await;
    harness.drain().await;
    harness.advance(Duration::from_hours(1)).await;
    assert_eq!(harness.event(&foreign).await["state"], "quarantined");
    crm.answer(Reply::Status(503));
    let waits = stop_of(&harness, "waits", "t2").await;
    harness.drain().await;
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 400));
    harness.keep_up().await;
    let left: Vec<_> = harness.list("events").await.into_iter().map(|event| event["id"].clone()).collect();
    assert_eq!(left, [waits["id"].clone(), dead["id"].clone()]);
    assert!(!left.contains(&done["id"]));
    // The events of a task are still found, with one gone from among them.
    assert_eq!(harness.list("events?source=open&task=t1").await.len(), 1);
    assert_eq!(taskhook::store::care::check(&harness.store_config(), false, &mut |_| {}).unwrap(), []);
    // Once it is delivered, it goes.
    crm.answer(Reply::Status(204));
    harness.advance(DAY).await;
    harness.keep_up().await;
    assert_eq!(harness.list("events").await.len(), 1);
}

#[tokio::test]
async fn quarantine_is_bounded_in_time_and_in_number_and_what_goes_is_told() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "[retention]\nquarantine_events = 3\n").await;
    let of = |number: usize| {
        json!({"event_id": format!("f{number}"), "event_type": "task_stopped",
            "task_detail": {"task_id": format!("nobodys{number}"), "task_title": "T", "message": "m", "stop_reason": "finish"}})
    };
    for number in 0..5 {
        harness.accept(&of(number)).await;
    }
    harness.drain().await;
    for _ in 0..4 {
        harness.advance(Duration::from_mins(20)).await;
    }
    let quarantined = async |harness: &Harness| {
        let all = harness.list("events?state=quarantined").await;
        all.into_iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(quarantined(&harness).await.len(), 5);
    harness.keep_up().await;
    assert_eq!(quarantined(&harness).await, ["f4", "f3", "f2"], "the oldest went");
    let again = harness.deliver(&of(0)).await;
    assert_eq!(body_of(&again)["status"], "duplicate");
    harness.advance(DAY * 6).await;
    harness.keep_up().await;
    assert_eq!(quarantined(&harness).await.len(), 3);
    harness.advance(DAY).await;
    harness.keep_up().await;
    assert_eq!((quarantined(&harness).await.len(), harness.list("tasks").await.len()), (0, 0));
    let metrics = send(harness.admin_request(Method::GET, "/metrics")).await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("taskhook_removed_total{what=\"quarantined\"}"));
    assert_eq!(taskhook::store::care::check(&harness.store_config(), false, &mut |_| {}).unwrap(), []);
    assert_eq!(crm.recorded().len(), 0);
}

#[tokio::test]
async fn a_repeat_is_known_as_long_as_its_event_is_kept() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "[retention]\nevents = \"4d\"\n").await;
    let first = stop_of(&harness, "e1", "t1").await;
    harness.drain().await;
    harness.clock.advance(jiff::SignedDuration::from_hours(95));
    harness.keep_up().await;
    assert_eq!(stop_of(&harness, "e1", "t1").await, json!({"status": "duplicate", "id": first["id"]}));
    harness.clock.advance(jiff::SignedDuration::from_hours(2));
    harness.keep_up().await;
    assert_eq!(stop_of(&harness, "e1", "t1").await["status"], "accepted");
    harness.drain().await;
    let mut harness = start(&crm, "[retention]\nevents = \"forever\"\n").await;
    stop_of(&harness, "e1", "t1").await;
    harness.drain().await;
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 4000));
    assert_eq!(harness.keep_up().await.events, 0);
}

#[tokio::test]
async fn a_collision_outlives_nothing_that_it_is_told_apart_from() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    stop_of(&harness, "e1", "t1").await;
    harness.drain().await;
    crm.answer(Reply::Status(400));
    let other = stop_of(&harness, "e1", "t2").await;
    harness.drain().await;
    assert_eq!(harness.event(other["id"].as_str().unwrap()).await["collision_of"].as_str().map(str::len), Some(36));
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 40));
    assert_eq!(harness.keep_up().await.events, 0, "the collision is a dead letter, and its repeats must be known");
    assert_eq!(stop_of(&harness, "e1", "t2").await, json!({"status": "duplicate", "id": other["id"]}));
}

#[tokio::test]
async fn a_clock_that_was_wrong_holds_nothing_up() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 365 * 10));
    stop_of(&harness, "future", "t1").await;
    harness.clock.advance(jiff::SignedDuration::from_hours(-24 * 365 * 10));
    stop_of(&harness, "now", "t2").await;
    harness.advance(DAY * 365 * 11).await;
    harness.clock.advance(jiff::SignedDuration::from_hours(-24 * 365 * 11 + 24 * 31));
    assert_eq!(harness.keep_up().await.events, 1);
    assert_eq!(harness.list("events").await[0]["event_id"], "future");
}

#[tokio::test]
async fn over_its_size_the_oldest_go_first_but_none_too_young() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "[retention]\nevents = \"forever\"\nmax_bytes = \"2MiB\"\n").await;
    let filling = "x".repeat(100_000);
    let fill = async |harness: &mut Harness, from: usize| {
        for number in from..from + 20 {
            let event = json!({"event_id": format!("e{number}"), "event_type": "task_stopped", "filling": filling,
                "task_detail": {"task_id": format!("t{number}"), "task_title": "T", "message": "m", "stop_reason": "finish"}});
            assert_eq!(status(&send(harness.post("/webhooks/open").body(event.to_string())).await), 200);
        }
        harness.drain().await;
    };
    fill(&mut harness, 0).await;
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 5));
    fill(&mut harness, 20).await;
    let before = harness.store().space().await.unwrap();
    assert!(before.live() > 4 << 20, "{before:?}");
    assert_eq!(harness.keep_up().await.events, 20);
    let after = harness.store().space().await.unwrap();
    assert!(after.live() > 2 << 20 && after.free == 0 && after.file < before.file, "{after:?}");
    let ready = harness.admin("/readyz").await;
    assert_eq!(ready["status"], "degraded");
    assert!(ready["reasons"][0]["reason"].as_str().unwrap().contains("retention.max_bytes"), "{ready}");
    harness.clock.advance(jiff::SignedDuration::from_hours(24 * 5));
    let removed = harness.keep_up().await.events;
    assert!((5..20).contains(&removed), "no more than it takes: {removed}");
    let left = harness.list("events").await;
    assert_eq!(left.last().unwrap()["event_id"], format!("e{}", 20 + removed), "the oldest went");
    assert_eq!(harness.admin("/readyz").await["status"], "ready");
    assert!(harness.store().space().await.unwrap().file <= 2 << 20);
}

#[tokio::test]
async fn a_file_whose_deletion_was_cut_off_is_deleted_later_unless_it_came_back() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    task(&mut harness, "a.txt", "one").await;
    task(&mut harness, "b.txt", "two").await;
    // As a crash leaves it: noted, and not deleted yet.
    let note = |sql: &str| rusqlite::Connection::open(harness.database()).unwrap().execute_batch(sql).unwrap();
    note(
        "INSERT INTO unwanted_files SELECT sha256, 'x' FROM files; UPDATE files SET sha256 = NULL, status = 'failed' WHERE name = 'a.txt'",
    );
    note(&format!("INSERT INTO unwanted_files VALUES ('{}', 'x')", "0".repeat(64)));
    harness.keep_up().await;
    assert_eq!(kept(&harness), 1);
    assert_eq!(harness.store().unwanted_files("").await.unwrap(), [""; 0]);
}

/// The files below `folder` in which `words` can be read.
fn found(folder: &Path, words: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(self::found(&path, words));
        } else if fs::read(&path).unwrap().windows(words.len()).any(|window| window == words.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn of_an_erased_task_nothing_can_be_read_any_more() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    let other = task(&mut harness, "other.txt", "another").await;
    let id = task(&mut harness, "secret.txt", &format!("{SECRET} ").repeat(5_000)).await;
    // A dead letter of it with a long answer, one that waits, and a request that did not verify.
    crm.answer(Reply::Status(400));
    let event = |number: u32| {
        json!({"event_id": format!("more{number}"), "event_type": "task_progress",
        "progress_detail": {"task_id": id, "progress_type": "plan_update", "message": SECRET.repeat(300)}})
    };
    harness.accept(&event(1)).await;
    harness.drain().await;
    crm.answer(Reply::Status(503));
    let last = harness.accept(&event(2)).await;
    harness.drain().await;
    assert_eq!(status(&send(harness.post("/webhooks/manus").body(event(3).to_string())).await), 401);
    harness.drain().await;
    assert!(!found(harness.folder(), &id).is_empty() && !found(harness.folder(), SECRET).is_empty());

    let erase = format!("/api/v1/tasks/manus/{id}/erase");
    let counted = body_of(&harness.admin_post(&erase, &json!({"dry_run": true})).await);
    assert_eq!((&counted["erased"], &counted["files"], &counted["rejections"]), (&json!(false), &json!(1), &json!(1)));
    assert!(counted["events"].as_i64().unwrap() >= 4, "{counted}");
    let erased = body_of(&harness.admin_post(&erase, &json!({})).await);
    assert_eq!((&erased["erased"], &erased["cleared"], &erased["events"]), (&json!(true), &json!(true), &counted["events"]));
    assert_eq!(found(harness.folder(), &id), [""; 0]);
    let left = found(harness.folder(), SECRET);
    assert_eq!(harness.list("tasks").await.len(), 1);
    assert_eq!(harness.list("deliveries?state=dead").await.len(), 0);
    assert_eq!(kept(&harness), 1);
    assert_eq!(taskhook::store::care::check(&harness.store_config(), false, &mut |_| {}).unwrap(), []);

    // A late repeat is known, and not kept again.
    let answer = harness.deliver(&event(2)).await;
    assert_eq!(body_of(&answer), json!({"status": "duplicate", "id": last}));
    assert_eq!(found(harness.folder(), &id), [""; 0]);
    let answer = harness.admin_post(&erase, &json!({})).await;
    assert_eq!(status(&answer), 404);

    // The other one went through all of it unharmed, and then goes as well.
    assert_eq!(harness.admin(&format!("/api/v1/tasks/manus/{other}")).await["archive"][0]["status"], "archived");
    let erase = format!("/api/v1/tasks/-/{other}/erase");
    let answer = harness.admin_post(&erase, &json!({})).await;
    assert_eq!(status(&answer), 400, "there are two sources");
    harness.admin_post(&format!("/api/v1/tasks/manus/{other}/erase"), &json!({})).await;
    assert!(!left.is_empty());
    assert_eq!(found(harness.folder(), SECRET), [""; 0]);
}

#[tokio::test]
async fn a_task_in_hand_is_not_erased() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    crm.answer(Reply::Never);
    stop_of(&harness, "e1", "t1").await;
    harness.work_until(crm.received(1)).await;
    let answer = harness.admin_post("/api/v1/tasks/open/t1/erase", &json!({})).await;
    assert_eq!((status(&answer), &body_of(&answer)["code"]), (409, &json!("in_flight")));
    assert_eq!(harness.list("events").await.len(), 1);
    harness.crash();
    crm.answer(Reply::Status(204));
    harness.start().await;
    harness.drain().await;
    assert_eq!(status(&harness.admin_post("/api/v1/tasks/open/t1/erase", &json!({})).await), 200);
    assert_eq!(rows(&harness), 0);
}

#[tokio::test]
async fn a_reader_that_holds_the_log_only_delays_the_end_of_it() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    let id = task(&mut harness, "secret.txt", "content").await;
    let reader = rusqlite::Connection::open(harness.database()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let erased = body_of(&harness.admin_post(&format!("/api/v1/tasks/manus/{id}/erase"), &json!({})).await);
    assert_eq!((&erased["erased"], &erased["cleared"]), (&json!(true), &json!(false)));
    reader.execute_batch("COMMIT").unwrap();
    harness.keep_up().await;
    assert_eq!(found(harness.folder(), &id), [""; 0]);
    assert!(!harness.store().has_traces().await.unwrap());
}

#[tokio::test]
async fn too_short_a_time_is_refused_with_the_reason() {
    let crm = Recorder::start().await;
    drop(crm);
    let refuse = |toml: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("t.toml"), format!("[retention]\n{toml}\n")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taskhook"));
        command.args(["--config", "t.toml", "config"]).current_dir(folder.path()).env_clear();
        let output =
            command.env("MANUS_API_KEY", "sk").env("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (toml, words) in [
        ("events = \"3d\"", "`retention.events` must be at least 4 days"),
        ("events = \"never\"", "\"forever\""),
        ("max_bytes = 0", "`retention.max_bytes` must be more than 0"),
        ("event = \"5d\"", "`retention.event`"),
    ] {
        let (code, talk) = refuse(toml);
        assert!(code == Some(2) && talk.contains(words), "{toml}: {talk}");
    }
}

/// The program in the folder of `harness`, which goes on meanwhile.
async fn taskhook(harness: &Harness, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_taskhook"));
    command.args(arguments).current_dir(harness.folder()).env_clear();
    command.env("TASKHOOK__STORE__URL", harness.store_config().url.expose());
    command.env("TASKHOOK__ARCHIVE__URL", format!("file://{}/files", harness.folder().display()));
    let output = command.output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn the_command_counts_first_and_erases_when_told() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    stop_of(&harness, "e1", "t1").await;
    harness.drain().await;
    let admin = format!("http://{}", harness.app().admin);
    let erase = ["tasks", "erase", "open", "t1", "--url", &admin, "--token", "none"];
    let (code, _, talk) = taskhook(&harness, &erase).await;
    assert_eq!(code, Some(0), "{talk}");
    assert!(talk.contains("there are 1 event(s), 1 delivery(s), 0 file(s)") && talk.contains("add `--yes`"), "{talk}");
    assert_eq!(harness.list("events").await.len(), 1);
    let (code, out, talk) = taskhook(&harness, &[&erase[..], &["--yes", "--json"]].concat()).await;
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["erased"], true);
    assert_eq!(harness.list("events").await.len(), 0);
    let (code, _, talk) = taskhook(&harness, &erase).await;
    assert!(code == Some(1) && talk.contains("there is no task `t1`"), "{talk}");
}

#[tokio::test]
async fn a_file_that_is_missing_or_not_whole_is_found() {
    let crm = Recorder::start().await;
    let mut harness = start(&crm, "").await;
    task(&mut harness, "a.txt", "one").await;
    let check = ["store", "check", "--files", "--json"];
    let (code, out, talk) = taskhook(&harness, &check).await;
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (Some(0), json!({"findings": []})), "{talk}");
    let file = found(&harness.folder().join("files"), "one").pop().unwrap();
    for whole in [true, false] {
        if whole {
            fs::write(&file, "on").unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        let (code, out, talk) = taskhook(&harness, &check).await;
        assert_eq!(code, Some(1), "{talk}");
        let findings: Value = serde_json::from_str(&out).unwrap();
        assert!(findings["findings"][0]["problem"].as_str().unwrap().contains("not in the archive"), "{findings}");
    }
}
