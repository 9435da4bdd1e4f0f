//! Traces: one for each event, from its webhook to each delivery, over restarts, replicas and replays; and nothing of it in the way of events.

mod collector;

use std::time::Duration;

use jiff::SignedDuration;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::json;
use taskhook::simulator::Times;
use taskhook::simulator::manus::{Faults, Plan, Turn};

use self::collector::{Told, section, spans, trace_id};
use crate::harness::{Harness, KEY, Recorder, Reply, Setup, json, send, status, within};
use crate::work::{run, say, setup, start, stopped};

/// A program whose only destination is `crm`, whose only source asks nobody, and that tells `collector` what it does.
fn plain(crm: &Recorder, collector: &Recorder) -> Setup {
    let open = "[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n";
    Setup::new()
        .config(open)
        .config(&crm.section("crm", ""))
        .config("[[routes]]\nto = [\"crm\"]\n")
        .config(&section(collector, ""))
}

/// Our id of the newest event of this type that `crm` got.
fn id_of(crm: &Recorder, kind: &str) -> String {
    let bodies = crm.bodies();
    let body = bodies.iter().rfind(|body| body["type"] == kind).expect("a delivery");
    body["id"].as_str().expect("an id").to_owned()
}

/// Lets as much time pass as spans wait for others, and waits until the collector was sent so many batches in all.
async fn sent(harness: &Harness, collector: &Recorder, batches: usize) {
    harness.clock.advance(SignedDuration::from_secs(1));
    collector.received(batches).await;
}

#[tokio::test]
async fn a_task_is_one_trace_from_its_webhook_to_its_delivery() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let keys = "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";
    let setup = setup(&crm, keys).config(&section(&collector, "headers = [\"authorization=Bearer c0llector\"]"));
    let mut harness = start(setup).await;
    let plan = Plan::finish("The answer is FOUR.").titled("A title that is SECRET").with_file("NAMED.md", "text/markdown", "4");
    let task = harness.manus.create_task(KEY, plan);
    run(&harness, &task).await;
    harness.clock.advance(SignedDuration::from_secs(2));
    harness.drain().await;
    harness.stop().await;

    let all = spans(&collector);
    let event = id_of(&crm, "task_stopped");
    let trace: Vec<_> = all.iter().filter(|span| span.trace_id() == trace_id(&event)).collect();
    let only = |name: &str| -> &Told {
        let mut named = trace.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("no span `{name}`: {trace:?}"));
        assert!(named.next().is_none(), "two of `{name}`: {trace:?}");
        span
    };
    let root = only("receive");
    assert_eq!((root.parent_span_id.len(), root.kind), (0, SpanKind::Server as i32));
    assert_eq!(root.text("taskhook.outcome"), "accepted");
    assert_eq!((root.text("taskhook.source"), root.text("taskhook.verification")), ("manus", "signature"));
    assert_eq!((root.text("taskhook.event.type"), root.text("taskhook.event.id")), ("task_stopped", event.as_str()));
    for name in ["prove", "fetch", "route", "deliver"] {
        let span = only(name);
        assert_eq!(span.parent_span_id, root.span_id, "{name}");
        assert!(span.start_time_unix_nano >= root.end_time_unix_nano + 2_000_000_000, "{name}: {span:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{name}");
        assert!(span.status.is_none(), "{name}");
    }
    for name in ["receive", "prove", "fetch", "route"] {
        assert_eq!(only(name).text("taskhook.task.id"), task, "{name}");
    }
    assert_eq!(
        ["prove", "fetch", "route", "deliver"].map(|name| only(name).text("taskhook.outcome")),
        ["ours", "fetched", "routed", "delivered"]
    );
    let call = only("task.detail");
    assert_eq!((&call.parent_span_id, call.kind), (&only("fetch").span_id, SpanKind::Client as i32));
    assert_eq!((call.text("http.request.method"), call.text("server.address")), ("GET", "127.0.0.1"));
    assert_eq!(call.number("http.response.status_code"), 200);
    let deliver = only("deliver");
    assert_eq!((deliver.text("taskhook.destination"), deliver.number("taskhook.attempt")), ("crm", 1));
    assert_eq!((deliver.kind, deliver.number("http.response.status_code")), (SpanKind::Client as i32, 200));
    // Whoever takes the delivery can go on with it.
    let request = crm.recorded().into_iter().find(|sent| sent.json()["id"] == json!(event)).expect("a delivery");
    assert_eq!(request.header("traceparent"), format!("00-{}-{}-01", deliver.trace_id(), deliver.id()));
    assert_eq!(request.header("webhook-id"), deliver.text("taskhook.delivery.id"));

    // The first event of the task has a trace of its own.
    let created = trace_id(&id_of(&crm, "task_created"));
    let names: Vec<_> = all.iter().filter(|span| span.trace_id() == created).map(|span| span.name.as_str()).collect();
    assert!(["receive", "prove", "route", "deliver"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains(&"fetch"), "{names:?}");

    for request in collector.recorded() {
        assert_eq!((request.path.as_str(), request.header("content-type")), ("/v1/traces", "application/x-protobuf"));
        assert_eq!(request.header("authorization"), "Bearer c0llector");
        let told = String::from_utf8_lossy(&request.body).into_owned();
        for hidden in ["SECRET", "FOUR", "NAMED", KEY, "whsec_", "MfKQ9", "c0llector", "/hook"] {
            assert!(!told.contains(hidden), "{hidden}: {told}");
        }
    }
    let resource = collector::resource(&collector);
    assert_eq!(
        (resource["service.name"].as_str(), resource["service.version"].as_str()),
        ("taskhook", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn a_restart_in_between_goes_on_with_the_same_trace() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let mut harness = plain(&crm, &collector).start().await;
    let id = harness.accept(&stopped("e1", "t1")).await;
    sent(&harness, &collector, 1).await;
    harness.crash();
    harness.start().await;
    harness.drain().await;
    harness.stop().await;
    let spans = spans(&collector);
    assert!(spans.iter().all(|span| span.trace_id() == trace_id(&id)), "{spans:?}");
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span `{name}`"));
    assert_eq!(of("deliver").parent_span_id, of("receive").span_id);
    assert_eq!(collector::batches(&collector)[0].iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["receive"]);
}

#[tokio::test]
async fn each_attempt_at_each_destination_is_a_span_of_its_own() {
    let (crm, other, collector) = (Recorder::start().await, Recorder::start().await, Recorder::start().await);
    let setup = plain(&crm, &collector).config(&other.section("other", "")).config("[[routes]]\nto = [\"crm\", \"other\"]\n");
    let mut harness = setup.start().await;
    crm.answer_next([Reply::Status(503), Reply::Cut]);
    harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    for _ in 0..2 {
        harness.advance(Duration::from_mins(5)).await;
    }
    harness.stop().await;
    let spans = spans(&collector);
    let attempts = |destination: &str| -> Vec<_> {
        let attempts = spans.iter().filter(|span| span.name == "deliver" && span.text("taskhook.destination") == destination);
        let failed = |span: &Told| span.status.as_ref().map(|status| (status.code, span.text("error.type").to_owned()));
        attempts.map(|span| (span.number("taskhook.attempt"), span.text("taskhook.outcome").to_owned(), failed(span))).collect()
    };
    let told = |number: i64, outcome: &str, failed: bool| (number, outcome.to_owned(), failed.then(|| (2, outcome.to_owned())));
    assert_eq!(attempts("crm"), [told(1, "failed", true), told(2, "unknown", true), told(3, "delivered", false)]);
    assert_eq!(attempts("other"), [told(1, "delivered", false)]);
    let statuses: Vec<_> = spans.iter().filter_map(|span| span.find("http.response.status_code")).collect();
    assert_eq!(statuses.len(), 3, "an attempt without an answer has none");

    // What is sent is the same on every attempt: which attempt it is stands in the header alone.
    let requests = crm.recorded();
    let sent: Vec<_> = requests.iter().map(|request| (request.header("webhook-id"), &request.body)).collect();
    assert!(sent.windows(2).all(|pair| pair[0] == pair[1]));
    let attempts = spans.iter().filter(|span| span.name == "deliver" && span.text("taskhook.destination") == "crm");
    let parents: Vec<_> = attempts.map(|span| format!("00-{}-{}-01", span.trace_id(), span.id())).collect();
    assert_eq!(requests.iter().map(|request| request.header("traceparent")).collect::<Vec<_>>(), parents);
}

#[tokio::test]
async fn a_replay_goes_on_with_the_trace_and_says_so() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let mut harness = plain(&crm, &collector).start().await;
    let id = harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    harness.advance(Duration::from_hours(48)).await;
    let replayed = harness.admin_post(&format!("/api/v1/events/{id}/replay"), &json!(null)).await;
    assert_eq!(status(&replayed), 200);
    harness.drain().await;
    harness.stop().await;
    let spans = spans(&collector);
    assert!(spans.iter().all(|span| span.trace_id() == trace_id(&id)));
    for name in ["prove", "route", "deliver"] {
        let replays: Vec<_> = spans.iter().filter(|span| span.name == name).map(|span| span.find("taskhook.replay")).collect();
        assert_eq!(replays.len(), 2, "{name}");
        assert!(replays[0].is_none() && replays[1].is_some(), "{name}: {replays:?}");
    }
}

#[tokio::test]
async fn a_repeat_stands_in_the_trace_of_the_first_and_a_senders_own_trace_is_linked() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let mut harness = plain(&crm, &collector).start().await;
    let theirs = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let parent = format!("00-{}-{}-01", theirs.0, theirs.1);
    let offer = async |body: &serde_json::Value, parents: &[&str]| {
        let mut request = harness.post("/webhooks/manus").body(body.to_string());
        for parent in parents {
            request = request.header("traceparent", *parent);
        }
        let answer = send(request).await;
        assert_eq!(status(&answer), 200);
        json(&answer)["id"].as_str().expect("an id").to_owned()
    };
    let event = stopped("e1", "t1");
    let id = offer(&event, &[&parent]).await;
    assert_eq!(offer(&event, &[]).await, id);
    // What is no such header, or two of them, says nothing.
    let others = [offer(&stopped("e2", "t2"), &["00-x-y-01"]).await, offer(&stopped("e3", "t3"), &[&parent, &parent]).await];
    harness.drain().await;
    harness.stop().await;
    let spans = spans(&collector);
    let received: Vec<_> = spans.iter().filter(|span| span.name == "receive" && span.trace_id() == trace_id(&id)).collect();
    let [first, repeat] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!((first.text("taskhook.outcome"), first.parent_span_id.len()), ("accepted", 0));
    assert_eq!((repeat.text("taskhook.outcome"), &repeat.parent_span_id), ("duplicate", &first.span_id));
    assert_eq!(first.links(), [(theirs.0.to_owned(), theirs.1.to_owned())]);
    assert!(repeat.links().is_empty());
    let others: Vec<_> = spans.iter().filter(|span| others.iter().any(|id| span.trace_id() == trace_id(id))).collect();
    assert!(others.len() >= 8 && others.iter().all(|span| span.links().is_empty()));
}

#[tokio::test]
async fn what_is_done_for_several_events_is_in_each_trace_and_called_once() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let mut harness = start(setup(&crm, "").config(&section(&collector, ""))).await;
    let task = harness.manus.create_task(KEY, Plan::new([Turn::finish("One."), Turn::finish("Two."), Turn::finish("Three.")]));
    run(&harness, &task).await;
    for _ in 0..2 {
        say(&harness, &task, "And then?").await;
        run(&harness, &task).await;
    }
    harness.drain().await;
    harness.stop().await;
    let spans = spans(&collector);
    let fetches: Vec<_> = spans.iter().filter(|span| span.name == "fetch").collect();
    assert_eq!(fetches.len(), 3);
    let stops = crm.bodies().into_iter().filter(|body| body["type"] == "task_stopped");
    let traces: Vec<_> = stops.map(|body| trace_id(body["id"].as_str().expect("an id"))).collect();
    let [first, others @ ..] = traces.as_slice() else { panic!("no stop") };
    let of = |trace: &String| fetches.iter().find(|span| span.trace_id() == *trace).expect("a fetch of each");
    let called: Vec<_> = spans.iter().filter(|span| span.name == "task.detail").map(|span| &span.parent_span_id).collect();
    assert_eq!(called, [&of(first).span_id]);
    let place = |span: &Told| (span.trace_id(), span.id());
    assert_eq!(of(first).links(), others.iter().map(|other| place(of(other))).collect::<Vec<_>>());
    for other in others {
        assert_eq!(of(other).links(), [place(of(first))]);
        assert_eq!(of(other).text("taskhook.outcome"), "fetched");
    }
}

#[tokio::test]
async fn files_are_told_of_by_number_and_size() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let saves = "[archive]\nurl = \"file://{folder}/files\"\n[outbound]\nallow_private_addresses = true\n";
    let mut harness = start(setup(&crm, "").config(saves).config(&section(&collector, ""))).await;
    let plan = Plan::finish("Done.").with_file("a.txt", "text/plain", "12345").with_file("b.txt", "text/plain", "123");
    let task = harness.manus.create_task(KEY, plan);
    run(&harness, &task).await;
    harness.drain().await;
    harness.stop().await;
    let trace = trace_id(&id_of(&crm, "task_stopped"));
    let spans = spans(&collector);
    let root = spans.iter().find(|span| span.name == "receive" && span.trace_id() == trace).expect("a root");
    let archive: Vec<_> = spans.iter().filter(|span| span.name == "archive" && span.trace_id() == trace).collect();
    let [archive] = archive.as_slice() else { panic!("{archive:?}") };
    assert_eq!((archive.text("taskhook.outcome"), &archive.parent_span_id), ("handed_on", &root.span_id));
    assert_eq!((archive.number("taskhook.files.archived"), archive.number("taskhook.files.bytes")), (2, 8));
}

#[tokio::test]
async fn what_no_webhook_brought_has_a_trace_that_begins_with_us() {
    let (crm, ops, collector) = (Recorder::start().await, Recorder::start().await, Recorder::start().await);
    let routes = "[[routes]]\nto = [\"crm\"]\n[[routes]]\nwhen = \"event.type[:6] == 'watch.'\"\nto = [\"ops\"]\n";
    let setup = setup(&crm, "").config(&ops.section("ops", "")).config(routes).config(&section(&collector, ""));
    let mut harness = start(setup.watching()).await;
    harness.drain().await;
    harness.manus.set_faults(Faults { drop: Times::Always, ..Faults::default() });
    harness.advance(Duration::from_secs(1)).await;
    let task = harness.manus.create_task(KEY, Plan::finish("Done."));
    harness.manus.finish_all().await;
    crm.answer_next([Reply::Status(410)]);
    for _ in 0..4 {
        harness.advance(Duration::from_mins(1)).await;
    }
    harness.stop().await;
    let spans = spans(&collector);
    let root = |name: &str| {
        let root = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span `{name}`: {spans:?}"));
        assert!(root.parent_span_id.is_empty(), "{name}");
        root
    };
    let (recovered, watch) = (root("recover"), root("watch"));
    assert_eq!((recovered.text("taskhook.task.id"), recovered.text("taskhook.event.type")), (task.as_str(), "task_stopped"));
    let below: Vec<_> =
        spans.iter().filter(|span| span.parent_span_id == recovered.span_id).map(|span| span.name.as_str()).collect();
    assert!(["prove", "fetch", "route", "deliver"].iter().all(|name| below.contains(name)), "{below:?}");
    assert_eq!((watch.text("taskhook.event.type"), watch.text("taskhook.watch.state")), ("watch.dead_letter", "raised"));
    assert_eq!(watch.links(), [(recovered.trace_id(), recovered.id())], "it tells of the other's event");
    assert!(spans.iter().any(|span| span.name == "deliver" && span.parent_span_id == watch.span_id));
}

#[tokio::test]
async fn a_collector_that_does_not_take_spans_is_in_nobodys_way_and_gets_them_once_it_does() {
    for reply in [Reply::Status(503), Reply::Cut] {
        let (crm, collector) = (Recorder::start().await, Recorder::start().await);
        collector.answer(reply.clone());
        let mut harness = plain(&crm, &collector).start().await;
        harness.accept(&stopped("e1", "t1")).await;
        harness.drain().await;
        sent(&harness, &collector, 1).await;
        // It is known to refuse, and what comes is taken and handed on as before.
        let part = |ready: &serde_json::Value| ready["reasons"][0]["part"].as_str().map(str::to_owned);
        within("a collector that is known to refuse", async {
            while part(&harness.admin("/readyz").await).as_deref() != Some("traces") {}
        })
        .await;
        harness.accept(&stopped("e2", "t2")).await;
        harness.drain().await;
        assert_eq!(crm.recorded().len(), 2, "{reply:?}");
        collector.answer(Reply::Status(200));
        within("a collector that is well again", async {
            while part(&harness.admin("/readyz").await).is_some() {
                harness.clock.advance(SignedDuration::from_secs(1));
            }
        })
        .await;
        harness.stop().await;
        let delivered = spans(&collector).iter().filter(|span| span.name == "deliver").count();
        assert_eq!(delivered, 2, "{reply:?}");
        // The last one was taken: what was refused before is in it, or was taken before it.
        let attempts = collector::batches(&collector);
        let again = attempts[1..].iter().flatten().any(|span| span.span_id == attempts[0][0].span_id);
        assert!(again, "{reply:?}: what was refused is sent again");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_delays_no_answer_and_no_delivery_and_no_stop_for_ever() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    collector.answer(Reply::Never);
    let setup = plain(&crm, &collector).config("[server]\ndrain_timeout = \"300ms\"\n");
    let mut harness = setup.start().await;
    harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    sent(&harness, &collector, 1).await;
    for number in 2..6 {
        harness.accept(&stopped(&format!("e{number}"), &format!("t{number}"))).await;
    }
    harness.drain().await;
    assert_eq!(crm.recorded().len(), 5);
    within("the stop", harness.stop()).await;
    harness.start().await;
    let metrics = send(harness.admin_request(Method::GET, "/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let dropped = metrics.lines().find(|line| line.starts_with("taskhook_trace_spans_total{outcome=\"stopped\"}"));
    assert!(dropped.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
}

#[tokio::test]
async fn what_a_collector_refuses_for_good_is_dropped_and_counted() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    collector.answer(Reply::Status(400));
    let mut harness = plain(&crm, &collector).start().await;
    for number in 1..3 {
        harness.accept(&stopped(&format!("e{number}"), &format!("t{number}"))).await;
        harness.drain().await;
        sent(&harness, &collector, number).await;
    }
    harness.stop().await;
    let batches = collector::batches(&collector);
    let names = |spans: &[Told]| spans.iter().map(|span| (span.trace_id(), span.id())).collect::<Vec<_>>();
    assert_ne!(names(&batches[0]), names(&batches[1]), "it is not sent again");
}

#[tokio::test]
async fn nothing_is_traced_unless_a_collector_is_named() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let open = "[sources.manus]\nverify = \"none\"\nfetch = \"off\"\n[trace]\nservice_name = \"mine\"\n";
    let setup = Setup::new().config(open).config(&crm.section("crm", "")).config("[[routes]]\nto = [\"crm\"]\n");
    let mut harness = setup.start().await;
    harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(5)).await;
    harness.stop().await;
    assert_eq!((crm.recorded().len(), collector.recorded().len()), (1, 0));
    assert!(crm.recorded()[0].headers.get("traceparent").is_none());
}

#[tokio::test]
async fn a_trace_that_is_not_taken_says_so_to_whoever_might_go_on_with_it() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let mut harness = plain(&crm, &collector).config("[trace]\nsample = 0.0\n").start().await;
    let id = harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    harness.stop().await;
    assert_eq!(collector.recorded().len(), 0);
    let parent = crm.recorded()[0].header("traceparent").to_owned();
    assert!(parent.starts_with(&format!("00-{}-", trace_id(&id))) && parent.ends_with("-00"), "{parent}");
}

#[tokio::test]
async fn a_header_of_the_users_own_is_left_as_it_is() {
    let (crm, collector) = (Recorder::start().await, Recorder::start().await);
    let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let section = crm.section("crm", &format!("headers = {{ traceparent = \"{own}\" }}"));
    let mut harness = plain(&crm, &collector).config(&section).start().await;
    harness.accept(&stopped("e1", "t1")).await;
    harness.drain().await;
    let request = crm.recorded().remove(0);
    assert_eq!(request.headers.get_all("traceparent").iter().collect::<Vec<_>>(), [own]);
}
