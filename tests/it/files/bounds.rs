//! Large files, broken transfers, and the limits.

use super::*;

use axum::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

#[tokio::test]
async fn files_over_a_limit_are_told_as_such_and_hold_nothing_up() {
    for (limit, expected, reason) in [
        ("max_file_bytes = \"10B\"", ["archived", "too_large", "archived"], "it is larger than `archive.max_file_bytes`, 10B"),
        (
            "max_task_bytes = \"12B\"",
            ["archived", "too_large", "archived"],
            "with it the files of its task are larger than `archive.max_task_bytes`, 12B",
        ),
        ("max_files = 1", ["archived", "failed", "failed"], "its task has more files than `archive.max_files`, 1"),
    ] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm).config(&format!("[archive]\n{limit}\n"))).await;
        let plan = Plan::finish("Done.")
            .with_file("small.txt", "text/plain", "12345")
            .with_file("large.txt", "text/plain", "x".repeat(20))
            .with_file("other.txt", "text/plain", "67890");
        let task = done(&harness, plan).await;
        harness.drain().await;
        assert_eq!(statuses(&crm), expected, "{limit}");
        assert_eq!(rows(&harness, &task).await[1]["reason"], reason, "{limit}");
        assert!(kept(&harness).iter().all(|path| path.starts_with("sha256/")), "{limit}: {:?}", kept(&harness));
    }
}

#[tokio::test]
async fn a_file_that_grows_beyond_the_limit_on_its_way_is_cut_off() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm).config("[archive]\nmax_file_bytes = \"8MiB\"\n")).await;
    // Its length is not told, and it has no end.
    let site = Site::start(|_, _| {
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789abcdef")));
        Response::new(Body::from_stream(endless))
    })
    .await;
    done(&harness, Plan::finish("Done.").with_link("endless.bin", "application/octet-stream", &site.link("127.0.0.1", "/")))
        .await;
    harness.drain().await;
    assert_eq!(statuses(&crm), ["too_large"]);
    assert_eq!(kept(&harness), [""; 0]);
}

#[tokio::test]
async fn a_transfer_that_breaks_goes_on_where_it_broke() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let content: Vec<u8> = (0..13_000_000_u32).map(|n| u8::try_from(n % 251).expect("small")).collect();
    harness.manus.set_faults(on_files(Times::Next(3), WrongAnswer::Half));
    done(&harness, Plan::finish("Done.").with_file("large.bin", "application/octet-stream", content.clone())).await;
    harness.drain().await;
    let file = &result(&crm)["files"][0];
    assert_eq!((&file["status"], &file["sha256"]), (&json!("archived"), &json!(sha256(&content))));
    let answers: Vec<u16> =
        harness.manus.requests().iter().filter(|call| call.path.contains("/files/")).map(|call| call.status).collect();
    assert_eq!(answers, [200, 206, 206, 206]);
    assert_eq!(kept(&harness), [place_of(&sha256(&content))]);
}

/// A body of `bytes` that then breaks, once these are on their way.
fn breaking(bytes: &'static [u8]) -> Body {
    let parts = [Ok(Bytes::from_static(bytes)), Err(std::io::Error::other("broken"))];
    let pausing = stream::iter(parts).then(|part| async {
        // The connection writes out what it has while we are not ready.
        tokio::task::yield_now().await;
        part
    });
    Body::from_stream(pausing)
}

#[tokio::test]
async fn a_server_that_gives_no_parts_is_asked_for_the_whole_again() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    for (marks, tries) in [(true, 2), (false, 2)] {
        let count = Arc::new(Mutex::new(0));
        let site = Site::start(move |_, _| {
            let mut count = count.lock().expect("no panic");
            *count += 1;
            // The first time it breaks, and what comes then is another file.
            let broken = *count == 1;
            let mut response = Response::new(if broken { breaking(b"old ") } else { Body::from("new file") });
            if marks {
                response
                    .headers_mut()
                    .insert(header::ETAG, if broken { "\"old\"" } else { "\"new\"" }.parse().expect("a header"));
            }
            response
        })
        .await;
        done(&harness, Plan::finish("Done.").with_link("a.txt", "text/plain", &site.link("127.0.0.1", "/a"))).await;
        harness.drain().await;
        assert_eq!(result(&crm)["files"][0]["sha256"], sha256(b"new file"), "{marks}");
        let asked = site.asked();
        assert_eq!(asked.len(), tries, "{marks}");
        assert_eq!(asked[1].1.get(header::RANGE).is_some(), marks);
        assert_eq!(asked[1].1.get(header::IF_RANGE).is_some_and(|mark| mark == "\"old\""), marks);
    }
}

#[tokio::test]
async fn a_server_that_breaks_each_time_is_left_alone_for_a_while() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let site = Site::start(|_, _| Response::new(breaking(b"begun"))).await;
    let task = done(&harness, Plan::finish("Done.").with_link("a.txt", "text/plain", &site.link("127.0.0.1", "/a"))).await;
    harness.drain().await;
    assert_eq!(site.asked().len(), 6);
    let rows = rows(&harness, &task).await;
    assert_eq!((&rows[0]["status"], &rows[0]["attempts"]), (&json!("pending"), &json!(1)));
    harness.expect_leftover();
}

#[tokio::test]
async fn a_server_that_asks_to_wait_is_obeyed() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let refusal = WrongAnswer::Refuse { status: 429, retry_after: Some("90".to_owned()) };
    harness.manus.set_faults(on_files(Times::Next(1), refusal));
    done(&harness, Plan::finish("Done.").with_file("a.txt", "text/plain", "4")).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(89)).await;
    assert_eq!((calls(&harness, "/files/"), types(&crm).len()), (1, 1));
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(statuses(&crm), ["archived"]);
}

#[tokio::test]
async fn the_type_is_the_providers_or_the_servers_or_the_names() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let site = Site::start(|path, _| {
        let kind = match path {
            "/told" => "Image/PNG; charset=x",
            "/bytes" => "application/octet-stream",
            _ => "not a type at all",
        };
        let mut response = Response::new(Body::from(path.to_owned()));
        response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a header"));
        *response.status_mut() = StatusCode::OK;
        response
    })
    .await;
    let open = "[sources.open]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"\n";
    harness.reconfigure(open);
    harness.restart().await;
    let mut event = stopped("e1", "t1");
    let file = |name: &str, path: &str| json!({"file_name": name, "url": site.link("127.0.0.1", path), "size_bytes": 5});
    event["task_detail"]["attachments"] = json!([file("a", "/told"), file("b.md", "/bytes"), file("c", "/odd")]);
    crate::harness::send(harness.post("/webhooks/open").body(event.to_string())).await;
    harness.drain().await;
    let body = result(&crm);
    let types: Vec<_> = body["files"].as_array().expect("files").iter().map(|file| file["content_type"].clone()).collect();
    assert_eq!(types, [json!("image/png"), json!("text/markdown"), Value::Null]);
}

/// The most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is there");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

/// nextest gives each test a process of its own, so that its memory is this test's.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_of_200_mb_is_saved_in_little_memory() {
    const CHUNK: usize = 1 << 16;
    const CHUNKS: usize = 200 * 16;
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    let chunk = |number: usize| Bytes::from(vec![u8::try_from(number % 256).expect("small"); CHUNK]);
    let site = Site::start(move |_, _| {
        let chunks = stream::iter((0..CHUNKS).map(move |number| Ok::<_, std::io::Error>(chunk(number))));
        Response::new(Body::from_stream(chunks))
    })
    .await;
    let mut whole = aws_lc_rs::digest::Context::new(&SHA256);
    (0..CHUNKS).for_each(|number| whole.update(&chunk(number)));
    done(&harness, Plan::finish("Done.").with_link("film.bin", "video/mp4", &site.link("127.0.0.1", "/film"))).await;
    let before = peak();
    harness.drain().await;
    let grown = peak() - before;
    let file = &result(&crm)["files"][0];
    let expected = (json!("archived"), json!(CHUNK * CHUNKS), json!(hex(whole.finish().as_ref())));
    assert_eq!((&file["status"], &file["size_bytes"], &file["sha256"]), (&expected.0, &expected.1, &expected.2));
    assert!(grown < 48 << 20, "{} MiB more", grown >> 20);
    let lies = harness.folder().join("files").join(&kept(&harness)[0]);
    assert_eq!(fs::metadata(lies).unwrap().len(), (CHUNK * CHUNKS) as u64);
}
