//! The listener for files: signed links that end, and answers that no browser runs.

use super::*;

use reqwest::Method;
use taskhook::http::{self, Answer};

use crate::harness::{code, send, status};

const CONTENT: &str = "<script>alert(1)</script>";

/// A program that serves the one file that it has saved, and the file's link.
async fn serving(name: &str) -> (Harness, String) {
    let crm = Recorder::start().await;
    let files = "[files]\nlisten = \"127.0.0.1:0\"\npublic_url = \"http://localhost/base\"\nlink_expiry = \"1h\"\n";
    let mut harness = start(setup(&crm).config(files)).await;
    done(&harness, Plan::finish("Done.").with_file(name, "text/html", CONTENT)).await;
    harness.drain().await;
    let link = result(&crm)["files"][0]["link"].as_str().expect("a link").to_owned();
    (harness, link)
}

/// Asks for `link`, as a proxy in front would, with these headers.
async fn ask(harness: &Harness, method: Method, link: &str, headers: &[(&str, &str)]) -> Answer {
    let path = link.strip_prefix("http://localhost/base").expect("its own base");
    let address = harness.app().files.expect("it listens");
    let request = http::client(Duration::from_secs(10)).request(method, format!("http://{address}{path}"));
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test]
async fn a_link_gives_the_file_as_an_attachment_that_no_browser_runs() {
    let (harness, link) = serving("Übersicht \"x\".html").await;
    let answer = ask(&harness, Method::GET, &link, &[]).await;
    assert_eq!((status(&answer), &answer.body[..]), (200, CONTENT.as_bytes()));
    let tag = format!("\"{}\"", sha256(CONTENT.as_bytes()));
    for (name, value) in [
        ("content-type", "text/html"),
        ("content-length", "25"),
        ("content-disposition", "attachment; filename=\"_bersicht _x_.html\"; filename*=UTF-8''%C3%9Cbersicht%20_x_.html"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cache-control", "private, max-age=3600, immutable"),
        ("referrer-policy", "no-referrer"),
        ("accept-ranges", "bytes"),
        ("etag", tag.as_str()),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let head = ask(&harness, Method::HEAD, &link, &[]).await;
    assert_eq!((status(&head), head.header("content-length"), head.body.len()), (200, Some("25"), 0));
    assert_eq!(head.header("content-disposition"), answer.header("content-disposition"));
}

#[tokio::test]
async fn parts_and_conditions_are_served() {
    let (harness, link) = serving("a.html").await;
    let tag = format!("\"{}\"", sha256(CONTENT.as_bytes()));
    for (headers, expected, range, body) in [
        (vec![("range", "bytes=0-7")], 206, Some("bytes 0-7/25"), "<script>"),
        (vec![("range", "bytes=-9")], 206, Some("bytes 16-24/25"), "</script>"),
        (vec![("range", "bytes=8-"), ("if-range", tag.as_str())], 206, Some("bytes 8-24/25"), "alert(1)</script>"),
        (vec![("range", "bytes=8-"), ("if-range", "\"other\"")], 200, None, CONTENT),
        (vec![("range", "bytes=99-")], 416, Some("bytes */25"), ""),
        (vec![("range", "bytes=0-1,3-4")], 200, None, CONTENT),
        (vec![("if-none-match", tag.as_str())], 304, None, ""),
        (vec![("if-none-match", "\"other\"")], 200, None, CONTENT),
    ] {
        let answer = ask(&harness, Method::GET, &link, &headers).await;
        assert_eq!((status(&answer), answer.header("content-range")), (expected, range), "{headers:?}");
        assert_eq!(answer.body, body, "{headers:?}");
    }
}

#[tokio::test]
async fn links_that_were_changed_or_are_over_open_nothing_and_nothing_is_listed() {
    let (harness, link) = serving("a.html").await;
    let other = sha256(b"other");
    let own = sha256(CONTENT.as_bytes());
    let (path, query) = link.split_once('?').expect("a query");
    let bare = |path: &str| format!("http://localhost/base{path}");
    for (asked, expected) in [
        (link.replace("a.html", "b.html"), (403, "link_invalid")),
        (link.replace(&own, &other), (403, "link_invalid")),
        (link.replace("expires=1", "expires=2"), (403, "link_invalid")),
        (path.to_owned(), (403, "link_invalid")),
        (format!("{path}?expires=x&signature=y"), (403, "link_invalid")),
        (bare(&format!("/files/{own}?{query}")), (404, "not_found")),
        (bare("/files/"), (404, "not_found")),
        (bare("/"), (404, "not_found")),
        (bare("/files/..%2f..%2fetc/passwd"), (403, "link_invalid")),
    ] {
        let answer = ask(&harness, Method::GET, &asked, &[]).await;
        assert_eq!((status(&answer), code(&answer).as_str()), expected, "{asked}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{asked}");
    }
    assert_eq!(status(&ask(&harness, Method::POST, &link, &[]).await), 405);
    harness.clock.advance(jiff::SignedDuration::from_secs(3600));
    assert_eq!(status(&ask(&harness, Method::GET, &link, &[]).await), 200);
    harness.clock.advance(jiff::SignedDuration::from_secs(1));
    let answer = ask(&harness, Method::GET, &link, &[]).await;
    assert_eq!((status(&answer), code(&answer).as_str()), (410, "link_expired"));
}

#[tokio::test]
async fn a_link_outlives_a_restart_and_a_file_that_is_gone_is_told() {
    let (mut harness, link) = serving("a.html").await;
    harness.restart().await;
    assert_eq!(status(&ask(&harness, Method::GET, &link, &[]).await), 200);
    let probe = ask(&harness, Method::GET, "http://localhost/base/healthz", &[]).await;
    assert_eq!(crate::harness::json(&probe)["instance"], harness.store().instance_id());
    fs::remove_dir_all(harness.folder().join("files/sha256")).unwrap();
    let answer = ask(&harness, Method::GET, &link, &[]).await;
    assert_eq!((status(&answer), code(&answer).as_str()), (404, "not_found"));
}
