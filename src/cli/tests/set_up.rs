//! Commands that help to set taskhook up.

use serde_json::json;

use super::site::{KEY, Site};
use crate::simulator::manus::{ApiFault, Faults, Times, WrongAnswer};

const TOKEN: (&str, &str) = ("TASKHOOK__SOURCES__MANUS__PATH_TOKEN", "t0ken-of-ours,older");
const V1: (&str, &str) = ("TASKHOOK__SOURCES__MANUS__API_VERSION", "v1");

#[test]
fn a_webhook_is_registered_tried_listed_and_deleted() {
    let site = Site::start(&[]);
    let (exit, id, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, id.lines().count()), (0, 1), "{err}");
    insta::assert_snapshot!(err, @"
    The key to verify with is loaded.
    http://PUBLIC leads to this taskhook.
    Registering http://PUBLIC/webhooks/manus …
    It is registered.
    The test request arrived, and its signature is good. Events will come.
    ");
    let id = id.trim();
    let hide = |text: String| text.replace(id, "WEBHOOK-ID-WEBHOOK-ID-");
    site.manus.register(KEY, "https://other.example.com/hook/abc?secret=def");
    let (_, list, _) = site.shell(&["webhooks", "list"]);
    insta::assert_snapshot!(hide(list.replace(site.json(&["webhooks", "list", "--json"])["data"][1]["id"].as_str().unwrap(), "OTHER-ID-OTHER-ID-OTH-")), @"
    WEBHOOK                 STATUS  OURS  URL
    WEBHOOK-ID-WEBHOOK-ID-  active  yes   http://PUBLIC/webhooks/manus
    OTHER-ID-OTHER-ID-OTH-  active  no    https://other.example.com/hook/abc?…
    ");
    let (exit, again, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, again.trim()), (0, id));
    insta::assert_snapshot!(err, @"
    The key to verify with is loaded.
    http://PUBLIC leads to this taskhook.
    It is registered already: http://PUBLIC/webhooks/manus, active.
    ");
    let (exit, out, err) = site.shell(&["webhooks", "delete", id]);
    assert_eq!((exit, out.as_str(), hide(err).as_str()), (0, "", "The webhook `WEBHOOK-ID-WEBHOOK-ID-` is deleted.\n"));
    let (exit, _, err) = site.shell(&["webhooks", "delete", id]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!(hide(err), @"
    error: there is no webhook `WEBHOOK-ID-WEBHOOK-ID-`
    hint: `taskhook webhooks list` shows what there is
    ");
    // The second ping may be the same event as the first.
    assert_eq!(site.shell(&["webhooks", "register", "--json"]).0, 0);
}

#[test]
fn a_path_token_is_printed_by_url_alone() {
    let site = Site::start(&[TOKEN]);
    assert_eq!(site.shell(&["webhooks", "url"]).1, "http://PUBLIC/webhooks/manus/t0ken-of-ours\n");
    let (exit, _, err) = site.shell(&["webhooks", "register"]);
    assert_eq!(exit, 0, "{err}");
    assert!(err.contains("Registering http://PUBLIC/webhooks/manus/[redacted] …") && err.contains("signature is good"), "{err}");
    site.manus.register(KEY, &format!("{}/older", site.webhook_url()));
    site.manus.register(KEY, &format!("{}/gone", site.webhook_url()));
    let list = site.json(&["webhooks", "list", "--json"]);
    let ours: Vec<_> = list["data"].as_array().unwrap().iter().map(|webhook| webhook["ours"].as_bool().unwrap()).collect();
    assert_eq!(ours, [true, true, false]);
    let mut told = vec![site.shell(&["webhooks", "list"]), site.shell(&["webhooks", "register"]), site.shell(&["check"])];
    // A refusal in which the provider repeats the URL.
    let refuse = WrongAnswer::Refuse { status: 400, retry_after: None };
    for path in ["webhook.list", "webhook.create"] {
        site.manus.set_faults(Faults { api: vec![ApiFault::on(path, Times::Always, refuse.clone())], ..Faults::default() });
        told.push(site.shell(&["webhooks", "register"]));
    }
    for (_, out, err) in told {
        assert!(!format!("{out}{err}").contains("t0ken") && !format!("{out}{err}").contains("/older"), "{out}{err}");
    }
}

#[test]
fn a_sender_without_an_api_is_given_the_url_to_paste() {
    let site = Site::start(&[
        ("TASKHOOK__SOURCES__GITHUB__PROVIDER", "custom"),
        ("TASKHOOK__SOURCES__GITHUB__PRESET", "github"),
        ("TASKHOOK__SOURCES__GITHUB__SECRET", "It's a Secret to Everybody"),
    ]);
    assert_eq!(site.shell(&["webhooks", "url", "--source", "github"]).1, "http://PUBLIC/webhooks/github\n");
    let (exit, out, err) = site.shell(&["webhooks", "register", "--source", "github"]);
    assert_eq!((exit, out.as_str()), (2, ""));
    insta::assert_snapshot!(err, @"
    error: `custom` has no API for webhooks
    hint: paste the URL that `taskhook webhooks url` prints where the provider asks for it
    ");
    for command in ["list", "delete"] {
        let mut arguments = vec!["webhooks", command, "--source", "github"];
        arguments.extend((command == "delete").then_some("x"));
        let (exit, _, err) = site.shell(&arguments);
        assert!(exit == 1 && err.contains("`taskhook webhooks url` prints the URL to paste"), "{err}");
    }
    let (exit, out, err) = site.shell(&["check"]);
    assert_eq!((exit, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("ok       source github: custom verifies by what its configuration says"), "{out}");
    assert!(!out.contains("key of source github") && !out.contains("API of source github"), "{out}");
}

#[test]
fn v1_registers_and_says_that_it_cannot_list() {
    let site = Site::start(&[V1]);
    let (exit, id, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, id.lines().count()), (0, 1), "{err}");
    let (exit, out, err) = site.shell(&["webhooks", "list"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @r#"error: version 1 of Manus's API lists no webhooks; see them at manus.im in the settings, or use `api_version = "v2"`"#);
    let (exit, out, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, out.as_str()), (0, ""));
    insta::assert_snapshot!(err, @"
    The key to verify with is loaded.
    http://PUBLIC leads to this taskhook.
    Registering http://PUBLIC/webhooks/manus …
    It is registered already: http://PUBLIC/webhooks/manus.
    ");
    assert_eq!(site.shell(&["webhooks", "delete", id.trim()]).0, 0);
    assert_eq!(site.shell(&["webhooks", "delete", id.trim()]).0, 1);
}

#[test]
fn a_refused_key_is_explained() {
    let mut site = Site::start(&[]);
    site.set("MANUS_API_KEY", "sk-wr0ng");
    let (exit, out, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(!err.contains("wr0ng"));
    insta::assert_snapshot!(err, @r#"
    error: the key to verify with cannot be loaded: webhook.publicKey: 401, the API key is refused (invalid api key)
    hint: check `sources.manus.api_key` (or `MANUS_API_KEY`): is it whole, and of the right account?
    hint: if it is a key for the other version of the API, set `sources.manus.api_version` to "v1"
    "#);
    site.set(V1.0, V1.1);
    assert!(site.shell(&["webhooks", "register"]).2.contains("set `sources.manus.api_version` to \"v2\""));
}

#[test]
fn a_public_url_that_leads_elsewhere_is_explained_before_anything_is_registered() {
    let site = Site::start(&[]);
    let told = [
        ("200 OK", "content-type: text/html; charset=utf-8\r\n", "<html>Welcome</html>"),
        ("200 OK", "", r#"{"status":"ok","instance":"019a9936-de14-7c3a-9d52-0f6c1e8b4a77"}"#),
        ("302 Found", "location: https://www.example.com/base/healthz?a=1\r\n", ""),
        ("307 Temporary Redirect", "location: https://login.example.com/\r\n", ""),
        ("502 Bad Gateway", "content-type: text/html\r\n", "<html>"),
        ("404 Not Found", "content-type: application/problem+json\r\n", r#"{"code":"source_unknown"}"#),
        ("404 Not Found", "", ""),
        ("401 Unauthorized", "", ""),
    ]
    .map(|(status, headers, body)| {
        site.front.answer(status, headers, body);
        let (exit, out, err) = site.shell(&["webhooks", "register"]);
        assert_eq!((exit, out.as_str()), (1, ""), "{status}");
        err.lines().skip(1).take(2).collect::<Vec<_>>().join("\n")
    });
    let told = told.join("\n").replace(&instance(&site), "OUR-INSTANCE");
    insta::assert_snapshot!(told, @"
    error: http://PUBLIC does not lead to taskhook: it answers 200 with text/html; charset=utf-8
    hint: something else answers there: a page of the proxy or the tunnel, or another site; let it forward `/healthz` and `/webhooks/` to the address of `server.listen`
    error: http://PUBLIC leads to another taskhook: its instance is 019a9936-de14-7c3a-9d52-0f6c1e8b4a77, ours is OUR-INSTANCE
    hint: point the tunnel or the proxy at this one, or set `store.url` to the store of the one that runs
    error: http://PUBLIC answers 302, a redirect to https://www.example.com/base/healthz
    hint: senders follow no redirect, and sign the URL they were given: set `server.public_url` to `https://www.example.com/base`
    error: http://PUBLIC answers 307, a redirect to https://login.example.com/
    hint: senders follow no redirect, and sign the URL they were given: something in front of taskhook sends them away
    error: http://PUBLIC answers 502: something is there, but it does not reach taskhook
    hint: start `taskhook serve`, and let the proxy or the tunnel forward to the address of `server.listen`
    error: http://PUBLIC leads to a taskhook, but not to its root
    hint: let the proxy take the path of `server.public_url` off before it forwards, or take it off the URL
    error: http://PUBLIC does not lead to taskhook: it answers 404 without a type
    hint: something else answers there: a page of the proxy or the tunnel, or another site; let it forward `/healthz` and `/webhooks/` to the address of `server.listen`
    error: http://PUBLIC answers 401: something in front of taskhook asks who we are
    hint: let `/healthz` and `/webhooks/` through without a login: taskhook verifies who sends
    ");
    assert!(!site.manus.requests().iter().any(|call| call.path.ends_with("webhook.create")));
}

fn instance(site: &Site) -> String {
    let path = site.folder.path().join("data/taskhook.db");
    let config = crate::store::Config::new(format!("sqlite://{}", path.display()));
    crate::store::Store::peek_instance_id(&config).unwrap()
}

#[test]
fn a_tunnel_that_does_not_run_is_told() {
    let mut site = Site::start(&[]);
    site.set("TASKHOOK__SERVER__PUBLIC_URL", "http://127.0.0.1:1");
    let (exit, out, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    The key to verify with is loaded.
    error: http://127.0.0.1:1 cannot be connected to: Connection refused (os error 111)
    hint: is the tunnel or the proxy running, and is `server.public_url` its address?
    hint: start `taskhook serve` if it does not run; to register all the same, add `--skip-check`
    ");
    // The provider tries it as well.
    let (exit, _, err) = site.shell(&["webhooks", "register", "--skip-check"]);
    assert_eq!(exit, 1);
    assert!(err.contains("the provider did not register it"), "{err}");
}

#[test]
fn a_taskhook_that_never_ran_is_to_be_started_first() {
    let site = Site::stopped(&[]);
    let (exit, out, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    The key to verify with is loaded.
    error: it cannot be told whether http://PUBLIC leads here: cannot open the store DIR/data/taskhook.db: it does not exist
    hint: start `taskhook serve` first
    ");
}

#[test]
fn a_refused_test_request_is_explained() {
    let site = Site::start(&[]);
    site.manus.set_faults(Faults { sign_for_url: Some("https://old.example.com/webhooks/manus".into()), ..Faults::default() });
    let (exit, out, err) = site.shell(&["webhooks", "register"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    insta::assert_snapshot!(err, @"
    The key to verify with is loaded.
    http://PUBLIC leads to this taskhook.
    Registering http://PUBLIC/webhooks/manus …
    error: the provider did not register it: webhook.create: 400 invalid_argument (the webhook did not answer the test request with 200: status 401)
    hint: this taskhook refused the test request with `signature_invalid`: the signature fits no URL that we can guess: the webhook must be registered as exactly `http://PUBLIC/webhooks/manus` (`server.public_url` and the path), and nothing on the way may change the body, the path or the query (`taskhook rejections show 1`)
    ");
    assert_eq!(site.json(&["webhooks", "list", "--json"]), json!({"data": []}));
}

#[test]
fn a_source_must_be_meant() {
    let site = Site::stopped(&[("TASKHOOK__SOURCES__SECOND__PROVIDER", "manus")]);
    let (exit, _, err) = site.shell(&["webhooks", "url"]);
    assert_eq!((exit, err.as_str()), (2, "error: name the source: there are manus, second\nhint: pass it with `--source`\n"));
    assert_eq!(site.shell(&["webhooks", "url", "--source", "second"]).1, "http://PUBLIC/webhooks/second\n");
    let (exit, _, err) = site.shell(&["webhooks", "--source", "third", "url"]);
    assert_eq!((exit, err.as_str()), (2, "error: there is no source `third`\nhint: there are: manus, second\n"));
}

#[test]
fn a_check_finds_nothing_where_all_is_well() {
    let site = Site::start(&[]);
    site.manus.register("sk-test", &format!("http://{}/webhooks/manus", site.front.address));
    let (exit, out, err) = site.shell(&["check"]);
    assert_eq!((exit, err.as_str()), (0, ""), "{out}");
    insta::with_settings!({filters => vec![(r"[0-9a-f]{16}", "FINGERPRINT")]}, { insta::assert_snapshot!(out, @"
    ok       configuration: 1 source, 1 destination, no route: everything goes to `log`
    ok       store: DIR/data/taskhook.db is in use by a taskhook that runs
    ok       archive: DIR/data/files takes files and gives them back
    ok       key of source manus: loaded (FINGERPRINT)
    ok       API of source manus: answers; 0 task(s) are seen
    ok       webhook of source manus: is registered, and active
    ok       destination log: writes to standard output
    ok       public URL: http://PUBLIC leads to this taskhook
    "); });
    let report = site.json(&["check", "--json"]);
    assert_eq!((report["ok"].as_bool(), report["checks"].as_array().unwrap().len()), (Some(true), 8));
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["warning"] == false));
}

#[test]
fn a_check_warns_of_a_registration_that_does_not_lead_here_and_fails_for_none() {
    let site = Site::start(&[("TASKHOOK__SOURCES__MANUS__PATH_TOKEN", "t0ken")]);
    let told = |out: &str| {
        let lines = out.lines().skip_while(|line| !line.contains("webhook of source manus"));
        lines.take_while(|line| line.contains("webhook of source") || line.contains("hint")).collect::<Vec<_>>().join("\n")
    };
    let (exit, out, err) = site.shell(&["check"]);
    assert_eq!((exit, err.as_str()), (0, ""), "{out}");
    insta::assert_snapshot!(told(&out), @"
    warning  webhook of source manus: no webhook is registered for http://PUBLIC/webhooks/manus/[redacted]: no event comes
             hint: run `taskhook webhooks register --source manus`
    ");
    let id = site.manus.register("sk-test", "https://old.example.com/in/webhooks/manus/0ld");
    let (exit, out, _) = site.shell(&["check"]);
    assert_eq!(exit, 0, "{out}");
    insta::assert_snapshot!(told(&out).replace(&id, "ID"), @"
    warning  webhook of source manus: no webhook is registered for http://PUBLIC/webhooks/manus/[redacted], but one for https://old.example.com/in/webhooks/manus/[redacted]: its events do not come here
             hint: run `taskhook webhooks register --source manus`
             hint: run `taskhook webhooks delete --source manus ID`
    ");
    assert!(!out.contains("t0ken") && !out.contains("0ld"), "{out}");
    let report = site.json(&["check", "--json"]);
    let of = |report: &serde_json::Value| {
        let all = report["checks"].as_array().unwrap();
        all.iter().find(|check| check["part"] == "webhook of source manus").unwrap().clone()
    };
    assert_eq!((report["ok"].as_bool(), &of(&report)["warning"], &of(&report)["ok"]), (Some(true), &true.into(), &true.into()));
    // What the commands say is what puts it right.
    assert_eq!(site.shell(&["webhooks", "register", "--source", "manus"]).0, 0);
    assert_eq!(site.shell(&["webhooks", "delete", "--source", "manus", &id]).0, 0);
    assert_eq!(of(&site.json(&["check", "--json"]))["warning"], false);
}

#[test]
fn a_check_of_version_1_says_that_the_registration_cannot_be_told() {
    let site = Site::start(&[V1]);
    let (exit, out, _) = site.shell(&["check"]);
    assert_eq!(exit, 0, "{out}");
    assert!(out.contains("ok       webhook of source manus: whether it is registered cannot be told: version 1 of"), "{out}");
}

#[test]
fn a_check_says_of_whom_nothing_can_be_asked() {
    let site = Site::start(&[
        ("TASKHOOK__SOURCES__MH__PROVIDER", "magic_hour"),
        ("TASKHOOK__SOURCES__MH__SECRET", "whsec_abc123def456"),
    ]);
    let (exit, out, _) = site.shell(&["check"]);
    assert_eq!(exit, 0, "{out}");
    assert!(out.contains("warning  lost webhooks of source mh: without `api_key` nothing can be asked"), "{out}");
}

#[test]
fn a_check_names_each_problem_and_what_to_do() {
    let mut site = Site::stopped(&[
        ("TASKHOOK__DESTINATIONS__CRM__KIND", "http"),
        ("TASKHOOK__DESTINATIONS__CRM__URL", "http://127.0.0.1:1/hooks"),
    ]);
    site.set("MANUS_API_KEY", "sk-wr0ng");
    let (exit, out, err) = site.shell(&["check"]);
    assert_eq!((exit, err.as_str()), (1, "error: 4 of 8 checks found a problem\n"));
    assert!(!site.folder.path().join("data").exists(), "a check must not make a store");
    insta::assert_snapshot!(out, @r#"
    ok       configuration: 1 source, 2 destinations, no route: everything goes to `log`
    ok       store: DIR/data/taskhook.db will be made at the first start
    ok       archive: DIR/data/files will be made at the first start
    problem  key of source manus: webhook.publicKey: 401, the API key is refused (invalid api key)
             hint: check `sources.manus.api_key` (or `MANUS_API_KEY`): is it whole, and of the right account?
             hint: if it is a key for the other version of the API, set `sources.manus.api_version` to "v1"
    problem  API of source manus: task.list: 401, the API key is refused (invalid api key)
             hint: check `sources.manus.api_key` (or `MANUS_API_KEY`): is it whole, and of the right account?
             hint: if it is a key for the other version of the API, set `sources.manus.api_version` to "v1"
    problem  destination crm: cannot connect: Connection refused (os error 111)
    ok       destination log: writes to standard output
    problem  public URL: it cannot be told whether http://PUBLIC leads here: this taskhook has never run
             hint: start `taskhook serve`, then check again
    "#);
    let (exit, out, _) = site.shell(&["check", "--json"]);
    assert_eq!((exit, serde_json::from_str::<serde_json::Value>(&out).unwrap()["ok"].as_bool()), (1, Some(false)));
}

#[test]
fn a_check_tries_the_collector_of_traces() {
    let mut site = Site::stopped(&[]);
    let address = site.front.address;
    site.set("TASKHOOK__TRACE__ENDPOINT", &format!("http://{address}"));
    site.set("TASKHOOK__TRACE__HEADERS", "authorization=Bearer s3cret");
    let traces = |site: &Site| {
        let (_, out, _) = site.shell(&["check"]);
        assert!(!out.contains("s3cret"), "{out}");
        let lines = out.lines().skip_while(|line| !line.contains("traces:"));
        lines.take_while(|line| line.contains("traces:") || line.contains("hint")).collect::<Vec<_>>().join("\n")
    };
    let mut told = Vec::new();
    for status in ["200 OK", "401 Unauthorized", "404 Not Found", "503 Service Unavailable"] {
        site.front.answer(status, "", "s3cret");
        told.push(traces(&site));
    }
    site.set("TASKHOOK__TRACE__ENDPOINT", "http://127.0.0.1:1/otlp");
    told.push(traces(&site));
    insta::assert_snapshot!(told.join("\n"), @"
    ok       traces: http://PUBLIC/v1/traces takes spans
    problem  traces: http://PUBLIC/v1/traces takes no spans: 401 Unauthorized
             hint: set what the collector asks for in `trace.headers`
    problem  traces: http://PUBLIC/v1/traces takes no spans: 404 Not Found
             hint: `trace.endpoint` must be a collector's address for OTLP over HTTP, by custom port 4318
    problem  traces: http://PUBLIC/v1/traces takes no spans: 503 Service Unavailable
             hint: look at the collector's own log
    problem  traces: http://127.0.0.1:1/otlp/v1/traces takes no spans: cannot connect: Connection refused (os error 111)
             hint: does a collector listen there? OTLP over HTTP has port 4318 by custom, gRPC 4317
    ");
}

#[test]
fn a_check_tries_the_archive_and_the_address_of_files() {
    let mut site = Site::start(&[]);
    std::fs::write(site.folder.path().join("blocked"), "").unwrap();
    let folder = format!("file://{}", site.folder.path().join("blocked/files").display());
    site.set("TASKHOOK__ARCHIVE__URL", &folder);
    site.set("TASKHOOK__FILES__LISTEN", "127.0.0.1:0");
    site.set("TASKHOOK__FILES__PUBLIC_URL", "http://127.0.0.1:1/base");
    let (exit, out, _) = site.shell(&["check"]);
    let told: Vec<_> = out.lines().skip_while(|line| !line.contains("archive:")).take(2).collect();
    assert_eq!(exit, 1, "{out}");
    assert!(told[0].starts_with("problem  archive: ") && told[1].contains("hint: "), "{out}");
    let told: Vec<_> = out.lines().skip_while(|line| !line.contains("public URL of files")).collect();
    assert!(told[0].starts_with("problem  public URL of files: http://127.0.0.1:1/base cannot be connected to"), "{out}");
    assert!(told[1].contains("is `files.public_url` its address?"), "{out}");
    // The public listener answers for this taskhook, and so does that for files.
    site.set("TASKHOOK__FILES__PUBLIC_URL", &format!("http://{}", site.front.address));
    site.set("TASKHOOK__ARCHIVE__MIN_FREE_BYTES", "1000TiB");
    site.set("TASKHOOK__ARCHIVE__URL", &format!("file://{}", site.folder.path().join("data/files").display()));
    let (_, out, _) = site.shell(&["check"]);
    assert!(out.contains("leads to this taskhook"), "{out}");
    assert!(
        out.contains("problem  archive: the archive DIR/data/files: ") && out.contains("`archive.min_free_bytes` is 1000TiB"),
        "{out}"
    );
}

#[test]
fn a_check_sees_a_clock_that_is_off() {
    let site = Site::start(&[]);
    site.manus.set_faults(Faults { date_offset_seconds: 400, ..Faults::default() });
    let (exit, out, _) = site.shell(&["check"]);
    assert_eq!(exit, 1);
    assert!(out.contains("problem  key of source manus: this machine's clock is ") && out.contains("NTP"), "{out}");
    let (exit, _, err) = site.shell(&["webhooks", "register"]);
    assert!(exit == 1 && err.contains("s off the provider's"), "{err}");
}

#[test]
fn a_check_opens_a_store_that_nobody_has() {
    let mut site = Site::start(&[]);
    site.stop();
    let (exit, out, _) = site.shell(&["check"]);
    assert_eq!(exit, 1);
    assert!(out.contains("ok       store: DIR/data/taskhook.db takes writes"), "{out}");
    std::fs::write(site.folder.path().join("data/taskhook.db"), "not a database, but long enough to be looked at".repeat(100))
        .unwrap();
    let (exit, out, _) = site.shell(&["check"]);
    assert_eq!(exit, 1);
    assert!(out.contains("problem  store: cannot open the store DIR/data/taskhook.db: it is damaged"), "{out}");
}

#[test]
fn a_start_that_cannot_be_says_why_and_exits_with_its_code() {
    let mut site = Site::start(&[]);
    let (exit, out, err) = site.shell(&["serve"]);
    assert_eq!((exit, out.as_str()), (3, ""));
    insta::assert_snapshot!(err, @"
    error: cannot open the store DIR/data/taskhook.db: another taskhook process is using it
    hint: stop that process first, or set `store.url` to another file
    ");
    site.set("TASKHOOK__STORE__URL", &format!("sqlite://{}", site.folder.path().join("second.db").display()));
    site.set("TASKHOOK__SERVER__LISTEN", &site.front.address.to_string());
    let (exit, _, err) = site.shell(&["serve"]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!(err, @"
    error: cannot listen on PUBLIC (`server.listen`): Address already in use (os error 98)
    hint: stop what uses it, or set `server.listen` to another address
    ");
    std::fs::write(site.folder.path().join("file"), "").unwrap();
    site.set("TASKHOOK__STORE__URL", &format!("sqlite://{}", site.folder.path().join("file/taskhook.db").display()));
    let (exit, _, err) = site.shell(&["serve"]);
    assert_eq!(exit, 3);
    insta::assert_snapshot!(err, @"
    error: cannot open the store DIR/file/taskhook.db: cannot write to DIR/file: File exists (os error 17)
    hint: set `store.url` to a file in a folder that can be written
    ");
    site.set("TASKHOOK__STORE__URL", &format!("sqlite://{}", site.folder.path().join("third.db").display()));
    site.set("TASKHOOK__ADMIN__TOKEN_FILE", &site.folder.path().join("file/token").display().to_string());
    let (exit, _, err) = site.shell(&["serve"]);
    insta::assert_snapshot!(format!("{exit}: {err}"), @"2: error: `admin.token_file` is DIR/file/token: Not a directory (os error 20)");
}

#[test]
fn a_folder_without_rights_is_given_with_a_command() {
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let hint = |folder: &str| crate::store::unwritable(std::path::Path::new(folder), &denied, "store.url");
    let expected = if uid == 0 {
        "this process runs as uid 0, whose folder it is; let it write there: chmod -R u+rwX /".to_owned()
    } else {
        format!("this process runs as uid {uid}; give it the folder: chown -R {uid}:{gid} /")
    };
    assert_eq!(hint("/"), expected);
    assert!(hint("/not/there").ends_with(&format!("the folder: mkdir -p /not/there && chown -R {uid}:{gid} /not/there")));
}
