//! What to paste where a sender asks for the webhook, and tasks that were made elsewhere.

use serde_json::{Value, json};

use super::shell;
use super::site::Site;

const PUBLIC: (&str, &str) = ("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com");
const MAGIC_HOUR: [(&str, &str); 2] =
    [("TASKHOOK__SOURCES__MH__PROVIDER", "magic_hour"), ("TASKHOOK__SOURCES__MH__SECRET", "whsec_abc123def456")];

/// What `webhooks url` with these words says of a WebRun source with this payload.
fn webrun(payload: &str, words: &[&str]) -> (u8, String, String) {
    let env = [
        PUBLIC,
        ("TASKHOOK__SOURCES__WR__PROVIDER", "webrun"),
        ("TASKHOOK__SOURCES__WR__AUTHORIZATION", "Bearer new, commas and all"),
        ("TASKHOOK__SOURCES__WR__PAYLOAD", payload),
        ("TASKHOOK__SOURCES__WR__PATH_TOKEN", "t0ken"),
    ];
    shell(&[&["webhooks", "url"], words].concat(), &env)
}

#[test]
fn for_webrun_the_whole_object_is_printed() {
    let (exit, out, err) = webrun("full_response", &["wr"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    let object: Value = serde_json::from_str(&out).unwrap();
    let url = "https://hooks.example.com/webhooks/wr/t0ken";
    assert_eq!(
        object,
        json!({"name": "taskhook", "url": url, "auth": "Bearer new, commas and all", "submittedData": "full_response"})
    );
    let (exit, _, err) = webrun("full_response", &["--ref", "new"]);
    assert_eq!((exit, err.as_str()), (2, "error: deliveries of `wr` have ids of their own: leave `--ref` out\n"));
}

#[test]
fn each_answer_is_handed_a_url_of_its_own() {
    let reference = |words: &[&str]| {
        let (exit, out, err) = webrun("ai_response", words);
        assert_eq!((exit, err.as_str()), (0, ""));
        let url = serde_json::from_str::<Value>(&out).unwrap()["url"].as_str().unwrap().to_owned();
        url.strip_prefix("https://hooks.example.com/webhooks/wr/t0ken?ref=").unwrap().to_owned()
    };
    assert_eq!(reference(&["wr", "--ref", "order-7"]), "order-7");
    assert_ne!(reference(&["--ref", "new"]), reference(&["--ref", "new"]));
    let (exit, out, err) = webrun("ai_response", &[]);
    assert!(exit == 0 && out.contains("ai_response") && err.contains("an event of its own"), "{out}{err}");
    for wrong in ["", "a b", "a&b", &"x".repeat(129)] {
        assert_eq!(webrun("ai_response", &["--ref", wrong]).0, 2, "{wrong:?}");
    }
}

#[test]
fn for_others_it_is_the_url_and_none_is_registered_by_api() {
    let env = [&MAGIC_HOUR[..], &[PUBLIC]].concat();
    assert_eq!(shell(&["webhooks", "url", "mh"], &env).1, "https://hooks.example.com/webhooks/mh\n");
    let (exit, _, err) = shell(&["webhooks", "register"], &env);
    assert_eq!(exit, 2);
    insta::assert_snapshot!(err, @"
    error: `magic_hour` has no API for webhooks
    hint: paste the URL that `taskhook webhooks url` prints where the provider asks for it
    ");
    let (exit, _, err) = shell(&["webhooks", "url", "nobody"], &env);
    assert!(exit == 2 && err.contains("there is no source `nobody`"), "{err}");
}

#[test]
fn a_missing_shape_is_told_before_anything_starts() {
    let env = [PUBLIC, ("TASKHOOK__SOURCES__WR__PROVIDER", "webrun"), ("TASKHOOK__SOURCES__WR__FETCH", "on")];
    let (exit, out, err) = shell(&["config"], &env);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert!(err.contains("`authorization` is missing") && err.contains("`payload` is missing"), "{err}");
}

#[test]
fn a_task_that_was_made_elsewhere_is_expected() {
    let site = Site::start(&MAGIC_HOUR);
    let (exit, out, err) = site.shell(&["tasks", "track", "mh", "video", "clx7uu86w0a5qp55yxz315r6r"]);
    assert_eq!((exit, out.as_str()), (0, ""), "{err}");
    assert_eq!(err, "The task `clx7uu86w0a5qp55yxz315r6r` of `mh` is expected.\n");
    let (_, list, _) = site.shell(&["tasks", "list"]);
    let row = list.lines().nth(1).unwrap();
    assert!(row.starts_with("clx7uu86w0a5qp55yxz315r6r ") && row.contains(" mh ") && row.contains(" expected"), "{list}");
    let (_, shown, _) = site.shell(&["tasks", "show", "mh", "clx7uu86w0a5qp55yxz315r6r"]);
    assert!(shown.contains("video") && shown.contains("tracked, at "), "{shown}");
    let (exit, _, err) = site.shell(&["tasks", "track", "mh", "film", "x"]);
    assert!(exit == 1 && err.contains("`film` is no kind of task of magic_hour: write video, image, audio"), "{err}");
    let tracked = site.json(&["tasks", "track", "manus", "task", "t1", "--json"]);
    assert_eq!(tracked, json!({"source": "manus", "kind": "task", "task_id": "t1"}));
    assert_eq!(site.shell(&["tasks", "track", "nobody", "task", "t1"]).0, 1);
}
