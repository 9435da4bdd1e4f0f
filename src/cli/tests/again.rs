//! Commands that send again, discard, replay and pause.

use serde_json::{Value, json};

use super::site::{Front, Site};

/// A taskhook that asks nobody, and its only destination.
pub(super) fn with_destination() -> (Site, Front) {
    let mut site = Site::stopped(&[
        ("TASKHOOK__SOURCES__MANUS__VERIFY", "none"),
        ("TASKHOOK__SOURCES__MANUS__FETCH", "off"),
        ("TASKHOOK__DESTINATIONS__CRM__KIND", "http"),
        // What is noticed of dead letters comes when it comes.
        ("TASKHOOK__WATCH__DEAD_LETTER", "off"),
    ]);
    let crm = site.another_front();
    site.set("TASKHOOK__DESTINATIONS__CRM__URL", &format!("http://{}/hook", crm.address));
    std::fs::write(site.folder.path().join("taskhook.toml"), "[[routes]]\nto = \"crm\"\n").unwrap();
    site.set("TASKHOOK_CONFIG", &site.folder.path().join("taskhook.toml").display().to_string());
    site.run();
    (site, crm)
}

/// Sends events that the destination refuses for good; the ids of their deliveries, the first first.
pub(super) fn dead(site: &Site, crm: &Front, names: &[&str]) -> Vec<String> {
    crm.answer("410 Gone", "", "");
    for name in names {
        let detail = json!({"task_id": name, "task_title": "A title", "task_url": "https://manus.im/app/x", "message": "Done",
            "stop_reason": "finish"});
        site.emit(json!({"event_id": name, "event_type": "task_stopped", "task_detail": detail}));
    }
    let all = |list: &Value| list["data"].as_array().unwrap().len() == names.len();
    let listed = site.json_once(&["deliveries", "list", "--state", "dead", "--json"], all);
    let mut ids: Vec<_> =
        listed["data"].as_array().unwrap().iter().map(|row| (row["task_id"].to_string(), row["id"].as_str().unwrap())).collect();
    ids.sort_unstable();
    ids.into_iter().map(|(_, id)| id.to_owned()).collect()
}

#[test]
fn which_are_meant_must_be_said() {
    let site = Site::start(&[]);
    let told = [
        &["deliveries", "retry"][..],
        &["events", "replay"],
        &["deliveries", "discard", "019a9936", "--destination", "crm"],
        &["deliveries", "retry", "019a9936", "--dry-run"],
        &["events", "replay", "--since", "yesterday"],
    ]
    .map(|line| {
        let (exit, out, err) = site.shell(line);
        assert_eq!((exit, out.as_str()), (2, ""), "{line:?}");
        err
    });
    insta::assert_snapshot!(told.join(""), @"
    error: say which deliveries are meant
    hint: name them by their ids, or by a filter: see `taskhook deliveries retry --help`
    error: say which events are meant
    hint: name them by their ids, or by a filter: see `taskhook events replay --help`
    error: name deliveries by their ids or by a filter, not by both
    error: `--dry-run` counts what a filter means
    hint: leave it out: `taskhook deliveries retry` acts on each delivery that is named
    error: `--since` is no time: `yesterday`
    hint: write a moment, like `2026-01-15T12:00:00Z`, or how long ago it was, like `90m`, `2h` or `7d`
    ");
    let told = [
        &["deliveries", "retry", "019a9936-de14"][..],
        &["deliveries", "show", "019a9936-de14"],
        &["events", "replay", "019a9936-de14"],
        &["destinations", "pause", "nobody"],
    ]
    .map(|line| {
        let (exit, out, err) = site.shell(line);
        assert_eq!((exit, out.as_str()), (1, ""), "{line:?}");
        err
    });
    insta::assert_snapshot!(told.join(""), @"
    error: there is no delivery `019a9936-de14`
    hint: `taskhook deliveries list` shows what there is
    error: there is no delivery `019a9936-de14`
    hint: `taskhook deliveries list` shows what there is
    error: there is no event `019a9936-de14`
    hint: `taskhook events list` shows what there is
    error: there is no destination `nobody`: there are `log`
    ");
}

#[test]
fn many_are_counted_first_and_done_when_a_person_agrees() {
    let (site, crm) = with_destination();
    let ids = dead(&site, &crm, &["a", "b", "c"]);
    let (exit, out, err) = site.shell(&["deliveries", "retry", "--destination", "crm", "--dry-run"]);
    assert_eq!((exit, out.as_str(), err.as_str()), (0, "", "3 deliveries would be tried again.\n"));
    let (exit, _, err) = site.shell(&["deliveries", "retry", "--destination", "crm"]);
    assert_eq!((exit, err.as_str()), (2, "error: 3 deliveries would be tried again\nhint: add `--yes` to do it\n"));
    let at_terminal = |arguments: &[&str], typed: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = site.command(arguments).run_with(typed, &mut out, &mut err);
        (exit.code(), String::from_utf8(err).unwrap())
    };
    let one = ["deliveries", "discard", "--state", "dead", "--limit", "1"];
    assert_eq!(
        at_terminal(&one, "\n"),
        (0, "1 delivery would be discarded, the oldest of them; there are more. Do it? [y/N] Nothing was done.\n".to_owned())
    );
    let (exit, err) = at_terminal(&one, "y\n");
    assert!(exit == 0 && err.ends_with("[y/N] 1 delivery is discarded.\n"), "{err}");
    let discarded =
        site.json(&["deliveries", "list", "--state", "discarded", "--json"])["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(site.json(&["deliveries", "show", &discarded[..30], "--json"])["state"], "discarded");
    let (exit, _, err) = site.shell(&["deliveries", "retry", &discarded]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!(err, @"
    error: the delivery cannot be tried again: its state is `discarded`
    hint: `taskhook events replay EVENT` hands its event on again, as a new delivery
    ");
    crm.answer("200 OK", "", "");
    let (exit, _, err) = site.shell(&["deliveries", "retry", "--since", "1h", "--yes"]);
    assert_eq!((exit, err.as_str()), (0, "2 deliveries are tried again.\n"));
    let all = |list: &Value| list["data"].as_array().unwrap().len() == 2;
    site.json_once(&["deliveries", "list", "--state", "delivered", "--json"], all);
    let (exit, _, err) = site.shell(&["deliveries", "retry", "--since", "1h", "--yes"]);
    assert_eq!((exit, err.as_str()), (0, "No delivery is like that.\n"));
    let (exit, _, err) = site.shell(&["deliveries", "retry", &ids[0], &ids[1]]);
    assert_eq!(exit, 1);
    assert!(err.contains(&ids[1]) && err.ends_with("error: 2 of 2 deliveries were not tried again\n"), "{err}");
}

#[test]
fn an_event_is_replayed_and_shows_it() {
    let (site, crm) = with_destination();
    let ids = dead(&site, &crm, &["a"]);
    crm.answer("200 OK", "", "");
    let event = site.json(&["deliveries", "show", &ids[0], "--json"])["event"].as_str().unwrap().to_owned();
    let (exit, out, err) = site.shell(&["events", "replay", &event[..13]]);
    assert_eq!((exit, out.as_str(), err), (0, "", format!("The event {event} is replayed.\n")));
    let two = |list: &Value| list["data"][0]["replay_of"].is_string() && list["data"][0]["state"] == "delivered";
    let list = site.json_once(&["deliveries", "list", "--json"], two);
    let made = list["data"][0]["id"].as_str().unwrap().to_owned();
    let (_, out, _) = site.shell(&["deliveries", "show", &made]);
    insta::with_settings!({filters => vec![
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID"),
    ]}, {
        insta::assert_snapshot!(out, @"
        delivery:    ID
        event:       ID
        type:        task_stopped
        source:      manus
        task:        a
        destination: crm
        route:       #1
        state:       delivered
        replay:      1
        repeats:     ID
        made:        TIME
        ended:       TIME

        TRY  STARTED                   OUTCOME    DETAIL
          1  TIME  delivered  200 OK
        ");
    });
    let (_, out, _) = site.shell(&["events", "show", &event]);
    assert!(out.contains("\nreplayed:      1, the last at "), "{out}");
}

#[test]
fn a_destination_is_paused_and_resumed() {
    let site = Site::start(&[]);
    let (exit, out, err) = site.shell(&["destinations", "pause", "log"]);
    assert_eq!((exit, out.as_str()), (0, ""));
    assert!(
        err.starts_with("`log` is paused since 20") && err.ends_with("Events are accepted as before; its deliveries wait.\n"),
        "{err}"
    );
    insta::with_settings!({filters => vec![(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME")]}, {
        insta::assert_snapshot!(site.shell(&["destinations", "list"]).1, @"
        DESTINATION  KIND  STATE   PENDING  DEAD  WHY
        log          log   paused        0     0  since TIME
        ");
    });
    for told in ["`log` is sent to again.\n", "`log` was not paused.\n"] {
        assert_eq!(site.shell(&["destinations", "resume", "log"]).2, told);
    }
    assert_eq!(site.json(&["destinations", "list", "--json"])["data"][0]["state"], "ok");
}
