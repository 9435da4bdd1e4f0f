//! Commands that answer a task, and that make one with all that goes with it.

use serde_json::json;

use super::site::{KEY, Site};
use crate::simulator::Times;
use crate::simulator::manus::{ApiFault, End, Faults, Plan, Turn, WrongAnswer};

/// A site where a task of this plan waits, which was heard.
fn waiting(site: &Site, plan: Plan) -> String {
    let task = site.manus.create_task(KEY, plan);
    site.end_unheard();
    site.emit(json!({"event_id": format!("stop-{task}"), "event_type": "task_stopped", "task_detail":
        {"task_id": task, "task_title": "Pick", "task_url": "https://manus.im/app/x", "message": "A or B?", "attachments": [],
         "stop_reason": "ask"}}));
    site.json_once(&["events", "list", "--json"], |list| list["data"][0]["state"] == "done");
    task
}

fn asks() -> Plan {
    let ask = End::Ask { question: "A or B?".to_owned(), options: vec!["A".to_owned(), "B".to_owned()] };
    Plan::new([Turn::new(ask), Turn::finish("B it is.")]).titled("Pick")
}

#[test]
fn a_question_is_answered_from_the_command_line() {
    for version in ["v1", "v2"] {
        let site = Site::start(&[("TASKHOOK__SOURCES__MANUS__API_VERSION", version), ("USER", "kim")]);
        let task = waiting(&site, asks());
        let (_, list, _) = site.shell(&["tasks", "list", "--waiting"]);
        assert!(list.contains("ASKS") && list.contains("A or B?"), "{list}");
        let (_, shown, _) = site.shell(&["tasks", "show", &task]);
        assert!(shown.contains("it asks:    A or B?") && shown.contains("answer with `taskhook tasks reply`"), "{shown}");
        let (exit, out, err) = site.shell(&["tasks", "reply", "manus", &task, "B"]);
        assert_eq!((exit, out.as_str(), err), (0, "", format!("Sent. The task `{task}` goes on.\n")), "{version}");
        let (_, shown, _) = site.shell(&["tasks", "show", &task]);
        assert!(shown.contains("reply by kim, sent: B"), "{version} {shown}");
        let (exit, out, err) = site.shell(&["tasks", "list", "--waiting"]);
        assert_eq!((exit, out.as_str(), err.as_str()), (0, "", "No task waits for an answer.\n"), "{version}");
        site.end_unheard();
        let question = site.json(&["tasks", "show", &task, "--json"])["answers"][0]["question"].clone();
        let (exit, _, err) = site.shell(&["tasks", "reply", &task, "A", "--question", question.as_str().unwrap()]);
        assert!(exit == 1 && err.contains("does not wait for") && err.contains("look at it again"), "{version} {err}");
    }
}

#[test]
fn a_confirmation_is_given_in_the_form_that_is_asked_for() {
    let site = Site::start(&[]);
    let task = waiting(&site, Plan::confirm("deployAction", "Publish the site?"));
    let (_, shown, _) = site.shell(&["tasks", "show", &task]);
    assert!(shown.contains("confirms:   deployAction") && shown.contains("with input like:"), "{shown}");
    for (arguments, exit, expected) in [
        (&["--input", "{accept"][..], 2, "`--input` is not JSON"),
        (&["--input", "{\"accept\":1}"], 1, "the input does not fit what is asked for: /accept"),
        (&["--input", "{\"accept\":false}"], 0, "Declined."),
        (&["--question", "another"], 1, "does not wait for `another` any more"),
        (&[], 0, "Confirmed."),
        (&[], 1, "it is at work"),
    ] {
        let line = [&["tasks", "confirm", task.as_str()], arguments].concat();
        let (code, out, err) = site.shell(&line);
        assert_eq!((code, out.as_str()), (exit, ""), "{arguments:?} {err}");
        assert!(err.contains(expected) || (arguments.is_empty() && exit == 1), "{arguments:?} {err}");
    }
    let (exit, _, err) = site.shell(&["tasks", "reply", "nothing"]);
    assert_eq!(exit, 2);
    insta::assert_snapshot!(err, @r#"
    error: there is nothing to say: the message is missing; nothing was sent
    hint: write it like `taskhook tasks reply TASK_ID "The blue one"`
    "#);
    let (exit, _, err) = site.shell(&["tasks", "reply", "nothing", "B"]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!(err, @"
    error: there is no task `nothing`
    hint: `taskhook tasks list` shows what there is
    ");
}

#[test]
fn a_lost_answer_is_told_and_needs_a_word_to_be_given_again() {
    let site = Site::start(&[]);
    let task = waiting(&site, asks());
    let refusal = WrongAnswer::Refuse { status: 503, retry_after: None };
    site.manus.set_faults(Faults { api: vec![ApiFault::on("sendMessage", Times::Next(1), refusal)], ..Faults::default() });
    let (exit, _, err) = site.shell(&["tasks", "reply", &task, "B"]);
    assert!(exit == 1 && err.contains("may have done it all the same"), "{err}");
    let (exit, _, err) = site.shell(&["tasks", "reply", &task, "B"]);
    assert!(exit == 1 && err.contains("this may have been answered already") && err.contains("`--again`"), "{err}");
    assert_eq!(site.shell(&["tasks", "reply", &task, "B", "--again"]).0, 0);
}

#[test]
fn a_task_is_stopped_where_there_is_a_call_for_it() {
    let site = Site::start(&[]);
    let task = site.manus.create_task(KEY, Plan::hang());
    let (exit, out, err) = site.shell(&["tasks", "stop", &task]);
    assert_eq!((exit, out.as_str()), (0, ""), "{err}");
    assert!(err.starts_with("Stopped."), "{err}");
    let old = Site::start(&[("TASKHOOK__SOURCES__MANUS__API_VERSION", "v1")]);
    let (exit, _, err) = old.shell(&["tasks", "stop", "x"]);
    assert!(exit == 1 && err.contains("stop it on its page"), "{err}");
}

#[test]
fn a_task_is_made_with_all_that_goes_with_it() {
    let site = Site::start(&[]);
    let file = |name: &str, text: &[u8]| {
        let path = site.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let most = file("most.bin", &vec![7; 20_000_000]);
    let (schema, table) = (file("schema.json", br#"{"type": "object"}"#), file("table.csv", b"a,b\n1,2\n"));
    let (none, list, large) = (file("none.json", b"{"), file("list.json", b"[]"), file("large.bin", &vec![0; 20_000_001]));
    let make = |arguments: &[&str]| site.shell(&[&["tasks", "create", "Sum it up"], arguments].concat());
    let (exit, out, err) = make(&["--project", "p1", "--schema", &schema, "--attach", &table, "--interactive"]);
    assert_eq!(exit, 0, "{err}");
    assert!(out.lines().nth(1).is_some_and(|url| url.starts_with("https://manus.im/app/")), "{out}");
    let (exit, _, err) = make(&["--attach", &most]);
    assert_eq!(exit, 0, "{err}");
    for (arguments, expected) in [
        (["--schema", none.as_str()], "it is not JSON"),
        (["--schema", &list], "it must be an object"),
        (["--attach", &large], "larger than 20 MB"),
        (["--attach", "nowhere"], "cannot read it"),
    ] {
        let (exit, out, err) = make(&arguments);
        assert_eq!((exit, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains(expected) && err.contains("nothing was created"), "{err}");
    }
    let old = Site::start(&[("TASKHOOK__SOURCES__MANUS__API_VERSION", "v1")]);
    let (exit, _, err) = old.shell(&["tasks", "create", "Sum it up", "--schema", &schema]);
    assert!(exit == 1 && err.contains("version 1 of Manus's API takes no schema"), "{err}");
    let (exit, _, err) = old.shell(&["tasks", "create", "Sum it up", "--attach", &table]);
    assert_eq!(exit, 0, "{err}");
}
