//! Links from payloads lead to public addresses only, however they are written and wherever they are redirected.

use super::*;

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::{StatusCode, header};
use taskhook::http::guard::Names;

/// Names of the test's own: the first stand for public servers and are on this machine, the others lead where nobody may go.
fn names() -> Names {
    let here: IpAddr = "127.0.0.1".parse().unwrap();
    let table = [
        ("files.example", "93.184.216.34"),
        ("other.example", "2606:2800:220:1::1"),
        ("inside.example", "10.0.0.7"),
        ("metadata.example", "169.254.169.254"),
        ("mapped.example", "::ffff:127.0.0.1"),
        ("local.example", "fd12:3456::1"),
        ("self.example", "127.0.0.1"),
    ];
    Names::Table(Arc::new(
        table.map(|(name, told)| (name.to_owned(), (told.parse().unwrap(), here))).into_iter().collect::<BTreeMap<_, _>>(),
    ))
}

fn guarded(crm: &Recorder) -> Setup {
    setup(crm).config("[outbound]\nallow_private_addresses = false\n").names(names())
}

/// A server whose paths `/to/…` redirect to what stands behind `?`, and which has bytes elsewhere.
async fn redirecting() -> Site {
    Site::start(|path, _| match path.split_once('?') {
        Some((_, to)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(header::LOCATION, to.parse().expect("a header"));
            response
        }
        None => Response::new(Body::from("secret")),
    })
    .await
}

#[tokio::test]
async fn nothing_is_fetched_from_addresses_that_are_not_public() {
    let crm = Recorder::start().await;
    let mut harness = start(guarded(&crm)).await;
    let site = redirecting().await;
    let port = site.port;
    let mut links: Vec<String> = ["inside.example", "metadata.example", "mapped.example", "local.example", "self.example"]
        .map(|host| site.link(host, "/x"))
        .into();
    links.extend(
        ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "2130706433", "0", "169.254.169.254"].map(|host| site.link(host, "/x")),
    );
    links.extend(["file:///etc/passwd", "ftp://files.example/x", "gopher://127.0.0.1:70/x"].map(str::to_owned));
    links.push(format!("http://me:secret@files.example:{port}/x"));
    // The first step is public, the next is not.
    let direct = links.clone();
    links.extend(direct.iter().map(|to| site.link("files.example", &format!("/to?{to}"))));
    links.push(site.link("files.example", &format!("/to?{}", site.link("other.example", "/to?http://10.0.0.1/x"))));
    let count = links.len();
    let plan = links
        .iter()
        .enumerate()
        .fold(Plan::finish("Done."), |plan, (number, link)| plan.with_link(&format!("{number}.txt"), "text/plain", link));
    let task = done(&harness, plan).await;
    harness.drain().await;
    assert_eq!(statuses(&crm), vec!["failed"; count]);
    for (row, link) in rows(&harness, &task).await.iter().zip(&links) {
        let reason = row["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("the link is refused: "), "{link}: {reason}");
        assert!(!reason.contains("secret") && !reason.contains("example"), "{link}: {reason}");
        assert_eq!(row["attempts"], 1, "{link}: again would not help");
    }
    assert!(site.asked().iter().all(|(path, _)| path.starts_with("/to?")), "{:?}", site.asked());
    assert_eq!(kept(&harness), [""; 0]);
}

#[tokio::test]
async fn a_redirect_among_public_addresses_is_followed_a_few_times_and_nothing_of_ours_goes_along() {
    let crm = Recorder::start().await;
    let mut harness = start(guarded(&crm)).await;
    let site = redirecting().await;
    let hop = |times: usize| {
        let end = site.link("other.example", "/file");
        (0..times).fold(end, |to, _| site.link("files.example", &format!("/to?{to}")))
    };
    let plan = Plan::finish("Done.").with_link("a.txt", "text/plain", &hop(1)).with_link("b.txt", "text/plain", &hop(5));
    let plan = plan.with_link("c.txt", "text/plain", &hop(6)).with_link(
        "d.txt",
        "text/plain",
        &site.link("files.example", "/to?/relative"),
    );
    let task = done(&harness, plan).await;
    harness.drain().await;
    assert_eq!(statuses(&crm), ["archived", "archived", "failed", "archived"]);
    assert_eq!(rows(&harness, &task).await[2]["reason"], "the link is refused: it is redirected too often");
    for (path, headers) in site.asked() {
        let mut names: Vec<_> = headers.keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"], "{path}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_asked_for_again_later() {
    let crm = Recorder::start().await;
    let mut harness = start(guarded(&crm)).await;
    let task = done(&harness, Plan::finish("Done.").with_link("a.txt", "text/plain", "https://unknown.example/a")).await;
    harness.drain().await;
    let rows = rows(&harness, &task).await;
    assert_eq!((&rows[0]["status"], &rows[0]["attempts"]), (&json!("pending"), &json!(1)));
    harness.expect_leftover();
}

#[tokio::test]
async fn no_name_from_a_payload_is_part_of_a_path() {
    let crm = Recorder::start().await;
    let mut harness = start(guarded(&crm)).await;
    let site = redirecting().await;
    let names = [
        "../../../etc/cron.d/x",
        "..",
        "/absolute",
        "a/b\\c",
        "nul\0byte",
        "x\r\nSet-Cookie: y",
        "\u{202e}gpj.exe",
        &"long".repeat(200),
    ];
    let plan = names
        .iter()
        .fold(Plan::finish("Done."), |plan, name| plan.with_link(name, "text/plain", &site.link("files.example", "/f")));
    done(&harness, plan).await;
    harness.drain().await;
    let body = result(&crm);
    let told: Vec<_> =
        body["files"].as_array().expect("files").iter().map(|file| file["name"].as_str().expect("a name")).collect();
    assert_eq!(told, names, "text stays text");
    assert_eq!(kept(&harness), [place_of(&sha256(b"secret"))]);
    assert_eq!(
        fs::read_dir(harness.folder())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name().to_string_lossy().into_owned();
                !name.starts_with("taskhook") && name != "files"
            })
            .count(),
        0
    );
}
