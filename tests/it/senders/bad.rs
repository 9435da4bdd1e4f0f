//! What every scheme is held to: genuine requests come in once, and nothing else does.

use taskhook::config::{Config, Inputs};

use super::schemes::Written;
use super::*;

#[tokio::test]
async fn genuine_requests_come_in_by_either_key_and_once() {
    let mut harness = all().await;
    for scheme in schemes() {
        for key in [0, 1] {
            let id = format!("genuine-{key}");
            let headers = (scheme.sign)(key, now(&harness), &body(&id));
            let sent = || request(&harness, &scheme, &headers, body(&id));
            assert_eq!(told(sent()).await, is(200, "accepted"), "{} {key}", scheme.name);
            let again = if scheme.once { "duplicate" } else { "accepted" };
            assert_eq!(told(sent()).await, is(200, again), "{} {key}", scheme.name);
        }
    }
    harness.drain().await;
    for scheme in schemes() {
        let events = harness.list(&format!("events?source={}", scheme.name)).await;
        assert_eq!(events.len(), if scheme.once { 2 } else { 4 }, "{}", scheme.name);
        for event in events {
            // Our secret is the proof: nothing is asked, and nothing waits.
            assert_eq!((&event["state"], &event["verification"]), (&json!("done"), &json!(scheme.verification())), "{event}");
            assert!(event["type"] != "unknown", "{event}");
        }
    }
    assert!(harness.calls().iter().all(|path| path.contains("ublic")), "nobody but Manus is asked for a key");
}

#[tokio::test]
async fn another_body_another_key_and_another_sources_signature_are_refused() {
    let mut harness = all().await;
    let at = now(&harness);
    for scheme in schemes() {
        let agreed = scheme.written == Written::Agreed;
        let refused = if agreed { is(401, "authorization_invalid") } else { is(401, "signature_invalid") };
        let good = (scheme.sign)(0, at, &body("changed"));
        let mut changed = body("changed");
        changed.push(b' ');
        if !agreed {
            assert_eq!(told(request(&harness, &scheme, &good, changed)).await, refused, "{}", scheme.name);
        }
        let theirs = (scheme.sign)(2, at, &body("theirs"));
        assert_eq!(told(request(&harness, &scheme, &theirs, body("theirs"))).await, refused, "{}", scheme.name);
        // The same scheme on a source with other secrets.
        harness.reconfigure(&scheme.section(&[2]));
    }
    harness.restart().await;
    for scheme in schemes() {
        let headers = (scheme.sign)(0, at, &body("swapped"));
        let (status, _) = told(request(&harness, &scheme, &headers, body("swapped"))).await;
        assert_eq!(status, 401, "{}", scheme.name);
    }
    assert_eq!(harness.list("events").await.len(), 0);
}

#[tokio::test]
async fn a_signature_is_there_once_and_written_as_it_should_be() {
    let harness = all().await;
    let at = now(&harness);
    for scheme in schemes() {
        let good = (scheme.sign)(0, at, &body("header"));
        let value = good[0].1.clone();
        let (mut cut, mut strange) = (value.clone(), value.clone());
        cut.pop();
        strange.replace_range(value.len() - 4..value.len() - 3, "*");
        let cases = [
            (None, "signature_missing"),
            (Some(vec![value.clone(), value.clone()]), "signature_malformed"),
            (Some(vec![String::new()]), "signature_malformed"),
            (Some(vec![cut]), "signature_malformed"),
            (Some(vec![strange]), "signature_malformed"),
            (Some(vec![format!("{value}{}", "a".repeat(16 << 10))]), "signature_malformed"),
        ];
        for (index, (values, expected)) in cases.into_iter().enumerate() {
            let expected = if scheme.written == Written::Agreed { "authorization_invalid" } else { expected };
            // Blanks at the end of a header are no part of it.
            let values = values.unwrap_or_default().into_iter().map(|value| (good[0].0, value));
            let headers: Vec<_> = values.chain(good[1..].iter().cloned()).collect();
            let answer = told(request(&harness, &scheme, &headers, body("header"))).await;
            assert_eq!(answer, is(401, expected), "{} case {index}", scheme.name);
        }
    }
    assert_eq!(harness.list("events").await.len(), 0);
}

#[tokio::test]
async fn one_good_signature_of_several_is_enough() {
    let mut harness = all().await;
    let at = now(&harness);
    let mut tried = 0;
    for scheme in schemes() {
        let Some(two) = scheme.two else { continue };
        let content = body("several");
        let (good, theirs) = ((scheme.sign)(1, at, &content), (scheme.sign)(2, at, &content));
        let with = |value: String| {
            let mut headers = good.clone();
            headers[0].1 = value;
            request(&harness, &scheme, &headers, content.clone())
        };
        assert_eq!(told(with(two(&theirs[0].1, &theirs[0].1))).await, is(401, "signature_invalid"), "{}", scheme.name);
        assert_eq!(told(with(two(&theirs[0].1, &good[0].1))).await, is(200, "accepted"), "{}", scheme.name);
        assert_eq!(told(with(two(&good[0].1, &theirs[0].1))).await, is(200, "duplicate"), "{}", scheme.name);
        tried += 1;
    }
    assert!(tried >= 4);
    harness.drain().await;
}

#[tokio::test]
async fn old_and_future_requests_are_refused_and_genuine_ones_told_apart() {
    let mut harness = all().await;
    let at = now(&harness);
    for scheme in schemes().into_iter().filter(|scheme| scheme.timed) {
        for (age, expected) in [
            (300, is(200, "accepted")),
            (-300, is(200, "accepted")),
            (301, is(401, "timestamp_stale")),
            (-301, is(401, "timestamp_stale")),
        ] {
            let content = body(&format!("aged {age}"));
            let headers = (scheme.sign)(0, at - age, &content);
            assert_eq!(told(request(&harness, &scheme, &headers, content)).await, expected, "{} {age}", scheme.name);
        }
        // The time of a forgery is nobody's business.
        let content = body("old and forged");
        let headers = (scheme.sign)(2, at - 1000, &content);
        assert_eq!(told(request(&harness, &scheme, &headers, content)).await, is(401, "signature_invalid"), "{}", scheme.name);
    }
    // What came in may come again later, and is then too old.
    for scheme in schemes().into_iter().filter(|scheme| scheme.timed) {
        let content = body("aged 300");
        let headers = (scheme.sign)(0, at - 300, &content);
        assert_eq!(told(request(&harness, &scheme, &headers, content)).await, is(200, "duplicate"), "{}", scheme.name);
    }
    harness.clock.advance(jiff::SignedDuration::from_secs(1));
    for scheme in schemes().into_iter().filter(|scheme| scheme.timed) {
        let content = body("aged 300");
        let headers = (scheme.sign)(0, at - 300, &content);
        assert_eq!(told(request(&harness, &scheme, &headers, content)).await, is(401, "timestamp_stale"), "{}", scheme.name);
    }
    harness.drain().await;
    let explanation = harness.list("rejections").await.into_iter().find(|row| row["code"] == "timestamp_stale");
    let explanation = explanation.expect("one was kept")["explanation"].as_str().unwrap_or_default().to_owned();
    assert!(explanation.starts_with("the signature is genuine"), "{explanation}");
}

#[tokio::test]
async fn a_timestamp_has_one_spelling() {
    let harness = all().await;
    let at = now(&harness);
    let mut tried = 0;
    for scheme in schemes() {
        let Some(header) = scheme.timestamp_header() else { continue };
        let good = (scheme.sign)(0, at, &body("time"));
        let others = || good.iter().filter(|(name, _)| *name != header).cloned();
        let malformed = "timestamp_malformed";
        for (values, expected) in [
            (vec![], "timestamp_missing"),
            (vec![at.to_string(), at.to_string()], malformed),
            (vec![String::new()], malformed),
            (vec![format!("+{at}")], malformed),
            (vec![format!("0{at}")], malformed),
            (vec![format!("{at}.0")], malformed),
            (vec![format!("{at},{at}")], malformed),
            (vec![format!("{at}000000000")], malformed),
            (vec!["soon".to_owned()], malformed),
        ] {
            let headers: Vec<_> = others().chain(values.iter().map(|value| (header, value.clone()))).collect();
            let answer = told(request(&harness, &scheme, &headers, body("time"))).await;
            assert_eq!(answer, is(401, expected), "{} {values:?}", scheme.name);
        }
        tried += 1;
    }
    assert!(tried >= 4);
    assert_eq!(harness.list("events").await.len(), 0);
}

#[tokio::test]
async fn any_body_that_is_signed_is_kept() {
    let mut harness = all().await;
    let at = now(&harness);
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)).into_bytes();
    let large = [b"{\"id\":\"", "x".repeat((2 << 20) - 9).as_bytes(), b"\"}"].concat();
    assert_eq!(large.len(), 2 << 20);
    for scheme in schemes() {
        let doubled = br#"{"id":"a","id":"doubled","type":"first","type":"last","event_id":"doubled","status":"done"}"#.to_vec();
        for (index, content) in
            [vec![0xff, 0xfe, 0x00], deep.clone(), doubled, Vec::new(), b"null".to_vec(), large.clone()].into_iter().enumerate()
        {
            let headers = (scheme.sign)(0, at, &content);
            let answer = told(request(&harness, &scheme, &headers, content)).await;
            assert_eq!(answer, is(200, "accepted"), "{} body {index}", scheme.name);
        }
        let content = [large.as_slice(), b" "].concat();
        let headers = (scheme.sign)(0, at, &content);
        assert_eq!(told(request(&harness, &scheme, &headers, content)).await, is(413, "body_too_large"), "{}", scheme.name);
    }
    harness.drain().await;
    let sha1 = harness.list("events?source=sha1").await;
    let last = sha1.iter().find(|event| event["event_id"] == "doubled").expect("the last of two members counts");
    assert_eq!(last["type"], "last");
    assert_eq!(sha1.iter().filter(|event| event["type"] == "unknown" && event["state"] == "kept").count(), 5, "{sha1:?}");
}

/// What is said of a configuration that does not load.
fn wrong(toml: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("taskhook.toml");
    std::fs::write(&file, toml).unwrap();
    let inputs = Inputs { directory: folder.path().to_owned(), file: Some(file), ..Inputs::default() };
    Config::load(&inputs).err().map(|errors| errors.to_string())
}

#[test]
fn without_a_secret_nothing_starts_unless_it_says_so() {
    for scheme in schemes() {
        let said = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
            wrong(&scheme.section_of(&values))
        };
        assert_eq!(wrong(&scheme.section(&[0, 1])), None, "{}", scheme.name);
        let missing = said(&[]).unwrap_or_else(|| panic!("{} starts without a secret", scheme.name));
        assert!(missing.contains("is missing"), "{missing}");
        for empty in [&[""][..], &[" "], &[&scheme.secret(0), ""]] {
            let empty = said(empty).unwrap_or_else(|| panic!("{} starts with {empty:?}", scheme.name));
            assert!(empty.contains("is empty"), "{empty}");
            assert!(!empty.contains(&scheme.secret(0)), "{empty}");
        }
        assert_eq!(wrong(&format!("{}verify = \"none\"\n", scheme.section_of(&[]))), None, "{}", scheme.name);
    }
}

#[tokio::test]
async fn rejections_are_explained_and_hold_no_credential() {
    let mut harness = all().await;
    let at = now(&harness);
    for scheme in schemes() {
        let headers = (scheme.sign)(2, at, &body("rejected"));
        assert_eq!(told(request(&harness, &scheme, &headers, body("rejected"))).await.0, 401);
    }
    harness.drain().await;
    let rejections = harness.list("rejections?limit=500").await;
    assert_eq!(rejections.len(), schemes().len());
    for scheme in schemes() {
        let row = rejections.iter().find(|row| row["source"] == scheme.name).expect("it is kept");
        assert!(row["explanation"].as_str().is_some_and(|text| !text.is_empty()), "{row}");
        let whole = harness.admin(&format!("/api/v1/rejections/{}", row["id"])).await.to_string();
        for key in 0..3 {
            let written = scheme.secret(key);
            assert!(!whole.contains(&written), "{}: {whole}", scheme.name);
        }
        // What was sent in the place of an agreed value is a secret of somebody's, too.
        if scheme.written == Written::Agreed {
            assert!(whole.contains("hmac:") && !whole.contains(&(scheme.sign)(2, at, b"")[0].1), "{whole}");
        }
    }
    // Of an event that is kept the credential is not.
    let scheme = schemes().into_iter().find(|scheme| scheme.name == "gitlab").expect("it is one");
    let answer = send(request(&harness, &scheme, &(scheme.sign)(0, at, b""), body("kept"))).await;
    let kept = harness.event(json(&answer)["id"].as_str().expect("an id")).await.to_string();
    assert!(kept.contains("[redacted]") && !kept.contains(&scheme.secret(0)), "{kept}");
    harness.drain().await;
}

#[tokio::test]
async fn a_challenge_is_echoed_and_an_answer_has_the_status_that_is_wanted() {
    let mut harness = with("[sources.cursor]\nanswer_status = 204\n").await;
    let at = now(&harness);
    let sender = |name: &str| schemes().into_iter().find(|scheme| scheme.name == name).expect("it is one");
    let slack = sender("slack");
    let content =
        json!({"type": "url_verification", "token": "t", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"});
    let content = content.to_string().into_bytes();
    let forged = told(request(&harness, &slack, &(slack.sign)(2, at, &content), content.clone())).await;
    assert_eq!(forged, is(401, "signature_invalid"), "what is not verified is not echoed");
    for _ in 0..2 {
        let answer = send(request(&harness, &slack, &(slack.sign)(0, at, &content), content.clone())).await;
        assert_eq!((status(&answer), answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
        assert_eq!(answer.body, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P".as_bytes());
    }
    let cursor = sender("cursor");
    for _ in 0..2 {
        let answer = send(request(&harness, &cursor, &(cursor.sign)(0, at, &body("c")), body("c"))).await;
        assert_eq!((status(&answer), answer.body.len()), (204, 0));
    }
    harness.drain().await;
    let challenge = harness.list("events?source=slack").await.remove(0);
    assert_eq!((&challenge["ping"], &challenge["state"], &challenge["repeats"]), (&json!(true), &json!("kept"), &json!(1)));
    assert_eq!(harness.list("events?source=cursor").await[0]["state"], "done");
}

#[tokio::test]
async fn work_goes_on_after_a_crash_and_in_the_order_of_the_task() {
    let crm = Recorder::start().await;
    let routes = format!("{}[[routes]]\nto = [\"crm\"]\n", crm.section("crm", ""));
    let mut harness = with(&routes).await;
    let cursor = schemes().into_iter().find(|scheme| scheme.name == "cursor").expect("it is one");
    for state in ["CREATING", "RUNNING", "FINISHED"] {
        let content = json!({"id": "bc_1", "status": state, "summary": "Done\nwith it", "target": {"url": "https://cursor.com/agents/bc_1"}}).to_string().into_bytes();
        let headers = (cursor.sign)(0, now(&harness), &content);
        assert_eq!(told(request(&harness, &cursor, &headers, content)).await, is(200, "accepted"));
    }
    harness.crash();
    harness.start().await;
    harness.drain().await;
    let sent = crm.bodies();
    let ids: Vec<_> = sent.iter().map(|body| body["event"]["event_id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, ["bc_1:CREATING", "bc_1:RUNNING", "bc_1:FINISHED"]);
    let last = &sent[2];
    assert_eq!((&last["type"], &last["provider"], &last["source"]), (&json!("statusChange"), &json!("custom"), &json!("cursor")));
    assert_eq!((&last["event"]["task_id"], &last["event"]["provider_type"]), (&json!("bc_1"), &json!("statusChange")));
    assert_eq!(
        (&last["task"], &last["files"], &last["event"]["payload"]["status"]),
        (&json!(null), &json!([]), &json!("FINISHED"))
    );
    assert_eq!(
        (&last["event"]["message"], &last["event"]["url"]),
        (&json!("Done\nwith it"), &json!("https://cursor.com/agents/bc_1"))
    );
    assert_eq!((&last["verification"], &last["event"]["valid"]), (&json!("signature"), &json!(null)));
}

#[tokio::test]
async fn a_program_of_secrets_alone_is_ready_and_needs_no_public_url() {
    let sections: Vec<_> = schemes().iter().map(|scheme| scheme.section(&[0])).collect();
    let mut harness = Setup::new().config(&sections.join("")).without_keys().prepare().await;
    harness.unconfigure("sources", "manus");
    harness.unset("server", "public_url");
    harness.start().await;
    let ready = send(harness.request(reqwest::Method::GET, "/readyz")).await;
    assert_eq!((status(&ready), json(&ready)), (200, json!({"status": "ready"})));
    let scheme = schemes().remove(0);
    let headers = (scheme.sign)(0, now(&harness), &body("one"));
    assert_eq!(told(request(&harness, &scheme, &headers, body("one"))).await, is(200, "accepted"));
    harness.drain().await;
    assert!(harness.calls().is_empty());
}
