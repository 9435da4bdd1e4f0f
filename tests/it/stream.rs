//! The stream of what is news: coalesced, resumable, bounded, and over when the program stops.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use taskhook::simulator::manus::Plan;

use crate::harness::postgres::Schema;
use crate::harness::{Harness, KEY, Recorder, Setup, code, send, status, within};
use crate::work::{run, setup, start};

/// Who looks on.
struct Viewer {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    read: String,
}

/// A message: its id, what has changed, and how far lists reach.
type Message = (String, Vec<String>, Value);

impl Viewer {
    async fn open(harness: &Harness, last: Option<&str>) -> Self {
        let mut request = harness.admin_request(Method::GET, "/api/v1/stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { bytes: Box::pin(answer.bytes_stream()), read: String::new() }
    }

    /// The next message, while time goes on; `None` at the end.
    async fn next(&mut self, harness: &Harness) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.read.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.read = rest;
                if let Some(message) = parse(&message) {
                    return Some(message);
                }
                continue;
            }
            tokio::select! {
                more = self.bytes.next() => match more {
                    Some(Ok(more)) => self.read.push_str(std::str::from_utf8(&more).expect("text")),
                    _ => return None,
                },
                () = tick(harness) => {}
            }
        }
    }

    async fn told(&mut self, harness: &Harness) -> Message {
        within("news", self.next(harness)).await.expect("a message")
    }

    /// Waits until a message tells of `topic`.
    async fn hears_of(&mut self, harness: &Harness, topic: &str) -> String {
        loop {
            let (id, changed, _) = self.told(harness).await;
            if changed.iter().any(|one| one == topic) {
                return id;
            }
        }
    }
}

/// Lets a little time pass.
async fn tick(harness: &Harness) {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    harness.clock.advance(SignedDuration::from_millis(50));
}

fn parse(message: &str) -> Option<Message> {
    let line = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    assert_eq!(line("event"), line("data").map(|_| "change"), "{message}");
    let data: Value = serde_json::from_str(line("data")?).expect("JSON");
    let changed = serde_json::from_value(data["changed"].clone()).expect("words");
    Some((line("id").expect("an id").to_owned(), changed, data["cursors"].clone()))
}

#[tokio::test]
async fn what_changes_is_told_by_topic_and_what_was_missed_as_well() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    harness.drain().await;
    let mut viewer = Viewer::open(&harness, None).await;
    let (first, all, _) = viewer.told(&harness).await;
    assert_eq!(
        all,
        ["events", "tasks", "deliveries", "rejections", "watches", "health"],
        "who knows nothing is told all at once"
    );
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    run(&harness, &task).await;
    let heard = viewer.hears_of(&harness, "events").await;
    harness.drain().await;
    let heard = if heard == first { heard } else { viewer.hears_of(&harness, "deliveries").await };
    drop(viewer);
    // Who comes back is told at once of what came meanwhile, and of nothing else.
    harness.post("/webhooks/manus").body("{}").send().await.expect("an answer");
    harness.advance(Duration::from_secs(10)).await;
    let mut back = Viewer::open(&harness, Some(&heard)).await;
    let (id, changed, cursors) = back.told(&harness).await;
    assert!(changed.contains(&"rejections".to_owned()) && !changed.contains(&"health".to_owned()), "{changed:?}");
    for list in ["events", "tasks", "deliveries", "rejections"] {
        assert_eq!(cursors[list].is_string(), changed.contains(&list.to_owned()), "{list}: {cursors}");
    }
    // After a restart nobody knows what was missed.
    harness.restart().await;
    let mut anew = Viewer::open(&harness, Some(&id)).await;
    assert_eq!(anew.told(&harness).await.1.len(), 6);
    for nonsense in ["", "x", "server.1", "1.2.3.4.5.6", "💥"] {
        let answer = harness.admin_request(Method::GET, "/api/v1/stream").query(&[("last_event_id", nonsense)]).send();
        assert_eq!(answer.await.expect("an answer").status(), 200, "{nonsense}");
    }
}

#[tokio::test]
async fn who_follows_reads_on_from_where_it_began_and_sees_each_row_once() {
    let schema = Schema::new();
    let config = schema.config();
    let server = format!("[store]\nurl = \"{}\"\nschema = \"{}\"\n", config.url.expose(), config.schema);
    for store in ["", server.as_str()] {
        let mut harness =
            Setup::new().config(store).config("[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n").start().await;
        harness.accept(&crate::work::created("past", "t0")).await;
        let mut viewer = Viewer::open(&harness, None).await;
        let mut after = viewer.told(&harness).await.2["events"].as_str().expect("a cursor").to_owned();
        let mut seen = Vec::new();
        for number in 0..3 {
            let name = format!("e{number}");
            harness.accept(&crate::work::created(&name, &format!("t{number}"))).await;
            while !seen.contains(&json!(name)) {
                viewer.hears_of(&harness, "events").await;
                let page = harness.admin(&format!("/api/v1/events?after={after}")).await;
                seen.extend(page["data"].as_array().expect("rows").iter().map(|row| row["event_id"].clone()));
                page["next_cursor"].as_str().expect("a cursor").clone_into(&mut after);
            }
        }
        assert_eq!(seen, ["e0", "e1", "e2"], "{store}");
        harness.stop().await;
    }
}

#[tokio::test]
async fn a_flood_is_told_four_times_a_second() {
    let mut harness = Harness::new().await;
    let mut viewer = Viewer::open(&harness, None).await;
    viewer.told(&harness).await;
    let begun = harness.clock.elapsed();
    let mut messages = 0;
    for number in 0..200 {
        harness.accept(&crate::work::created(&format!("e{number}"), "t")).await;
        harness.clock.advance(SignedDuration::from_millis(10));
    }
    while within("news", viewer.next(&harness)).await.is_some()
        && harness.clock.elapsed().saturating_sub(begun) < Duration::from_secs(4)
    {
        messages += 1;
        harness.accept(&crate::work::created(&format!("more{messages}"), "t")).await;
    }
    harness.expect_leftover();
    assert!((2..=18).contains(&messages), "{messages} in four seconds or so");
}

#[tokio::test]
async fn those_who_look_on_are_bounded_and_hold_no_end_up() {
    let mut harness = Harness::new().await;
    let mut viewers = Vec::new();
    for _ in 0..100 {
        viewers.push(Viewer::open(&harness, None).await);
    }
    let refused = send(harness.admin_request(Method::GET, "/api/v1/stream")).await;
    assert_eq!((status(&refused), code(&refused)), (503, "too_many".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("10"));
    viewers.pop();
    let again = async {
        while status(&send(harness.admin_request(Method::GET, "/readyz")).await) != 200 {}
        while harness.admin_request(Method::GET, "/api/v1/stream").send().await.expect("an answer").status() != 200 {}
    };
    within("a place", again).await;
    let mut last = viewers.pop().expect("one");
    last.told(&harness).await;
    harness.stop().await;
    within("the end", async { while let Some(Ok(_)) = last.bytes.next().await {} }).await;
}

#[tokio::test]
async fn on_a_server_what_another_replica_does_is_told_as_well() {
    let (schema, crm) = (Schema::new(), Recorder::start().await);
    let config = schema.config();
    let on = format!("[store]\nurl = \"{}\"\nschema = \"{}\"\nmax_connections = 6\n", config.url.expose(), config.schema);
    let mut one = start(setup(&crm, "").config(&on)).await;
    let two = Setup::new().config(&on).start().await;
    let mut viewer = Viewer::open(&two, None).await;
    viewer.told(&two).await;
    let task = one.manus.create_task(KEY, Plan::finish("Done."));
    run(&one, &task).await;
    viewer.hears_of(&two, "events").await;
    one.drain().await;
    viewer.hears_of(&two, "deliveries").await;
    assert_eq!(two.admin("/api/v1/events").await["data"][0]["task_id"], json!(task));
    let mut two = two;
    for replica in [&mut one, &mut two] {
        replica.run_worker(Duration::ZERO, std::future::ready(())).await;
        replica.stop().await;
        replica.expect_leftover();
    }
}
