//! `taskhook stats`.

use serde_json::json;

use super::again::{dead, with_destination};
use super::site::Site;

#[test]
fn where_all_is_well_nothing_needs_a_person() {
    let mut site = Site::stopped(&[]);
    site.manus.register(super::site::KEY, &site.webhook_url());
    site.run();
    let (exit, out, err) = site.shell(&["stats"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    insta::with_settings!({filters => vec![(r"\d+m ago", "60m ago"), (r"\d of \d+ minutes", "0 of 60 minutes")]}, {
        insta::assert_snapshot!(out, @"
        Nothing needs you.

        SOURCE  EVENTS  LAST  OPEN TASKS  WAITING  CREDITS
        manus        0                 0        0        0

        DESTINATION  STATE  PENDING  DEAD
        log          ok           0     0

        WORK THAT WAITS  JOBS  OLDEST  DUE FOR
        prove               0
        fetch               0
        archive             0
        deliver             0

        WHAT WAS DONE       COUNT  A MINUTE
        events accepted         0
        requests rejected       0
        stops recovered         0
        deliveries arrived      0
        attempts failed         0

        since:   60m ago
        counted: 0 of 60 minutes: the rest nobody saw
        ");
    });
}

#[test]
fn what_needs_a_person_comes_first() {
    let (site, crm) = with_destination();
    dead(&site, &crm, &["a", "b"]);
    assert_eq!(site.shell(&["destinations", "pause", "crm"]).0, 0);
    site.emit(json!({"event_id": "e", "event_type": "task_created", "task_detail": {"task_id": "c"}}));
    site.json_once(&["deliveries", "list", "--json"], |list| list["data"].as_array().unwrap().len() == 3);
    let (exit, out, err) = site.shell(&["stats", "--since", "2h"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    let needs = out.split("\n\n").next().unwrap();
    insta::with_settings!({filters => vec![(r"\d+s\b", "0s"), (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME-TIME-TIME-TIME-TIME")]}, {
        insta::assert_snapshot!(needs, @"
        NEEDS YOU  WHY
        2 dead     deliveries given up on: `taskhook deliveries list --state dead`
        degraded   destination crm (paused), for 0s: paused by hand since
                   TIME-TIME-TIME-TIME-TIME: its deliveries wait for `taskhook
                   destinations resume crm`
        ");
    });
    assert!(out.contains("\ncrm          paused        1     2\n") && out.contains("\nmanus        3  "), "{out}");
    let stats = site.json(&["stats", "--json"]);
    assert_eq!((&stats["dead"], &stats["readyz"]["status"]), (&json!(2), &json!("degraded")));
    assert_eq!(stats["destinations"][0]["dead"], 2);
    let (exit, out, err) = site.shell(&["stats", "--since", "soon"]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert!(err.contains("`--since` is no time: `soon`"), "{err}");
}
