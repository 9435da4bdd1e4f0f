//! A tunnel's URL: lent to the receiver, registered, followed and taken back, by the program as a user runs it.

mod agent;
mod run;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use taskhook::clock::Clock;
use taskhook::simulator::manus::{ApiFault, Faults, Plan, Times, WrongAnswer};

use self::agent::{Agent, Front};
use self::run::Run;
use crate::harness::{Harness, KEY, Setup, code, json, reserve, send, status, within};

/// A program whose clock agrees with that of the commands beside it, though it stands still.
async fn beside() -> Harness {
    Setup::new().at(Clock::system().now()).simulator(|options| options.limits = None).start().await
}

const LEASE: &str = "/api/v1/public_urls/019a9936-de14-7c3a-9d52-0f6c1e8b4a77";
const TUNNEL: &str = "https://abcd.ngrok-free.app";

fn event(id: &str) -> Value {
    json!({"event_id": id, "event_type": "task_created", "task_detail": {"task_id": "t1", "task_title": "A task"}})
}

/// What is answered to an event that is signed for the source's webhook under `base`.
async fn answered(harness: &Harness, base: &str, id: &str) -> u16 {
    let path = "/webhooks/manus";
    status(&send(harness.signed_for(&format!("{base}{path}"), path, event(id).to_string())).await)
}

async fn lend(harness: &Harness, path: &str, url: &str) -> taskhook::http::Answer {
    send(harness.admin_request(Method::PUT, path).json(&json!({"url": url}))).await
}

/// A tunnel to the program, and the ngrok that tells of it.
async fn ngrok(harness: &Harness) -> (Front, Agent) {
    let (front, agent) = (Front::to(harness.public()).await, Agent::start().await);
    agent.ngrok(&[(&front.url(), &harness.public().to_string())]).await;
    (front, agent)
}

/// It is told to end by `signal`, and ends well.
async fn end(mut run: Run, signal: Signal) -> String {
    run.signal(signal);
    assert_eq!(run.ended().await, Some(0), "{}", run.said());
    run.said()
}

#[tokio::test]
async fn a_lent_url_is_accepted_until_it_is_taken_back_or_runs_out() {
    let mut harness = Harness::new().await;
    assert_eq!(answered(&harness, TUNNEL, "e1").await, 401);
    let lent = lend(&harness, LEASE, &format!("{TUNNEL}/")).await;
    let begin = "2026-01-15T12:00:45.000Z";
    assert_eq!((status(&lent), &json(&lent)["url"], &json(&lent)["expires_at"]), (200, &json!(TUNNEL), &json!(begin)));
    assert_eq!(answered(&harness, TUNNEL, "e1").await, 200);
    // What is configured goes on, and what is neither does not begin.
    assert_eq!(answered(&harness, &harness.url(""), "e2").await, 200);
    assert_eq!(answered(&harness, "https://other.ngrok-free.app", "e3").await, 401);
    let rows = harness.list("public_urls").await;
    assert_eq!(rows.iter().map(|row| row["url"].clone()).collect::<Vec<_>>(), [json!(harness.url("")), json!(TUNNEL)]);
    harness.clock.advance(jiff::SignedDuration::from_secs(44));
    assert_eq!(answered(&harness, TUNNEL, "e4").await, 200);
    assert_eq!(status(&lend(&harness, LEASE, TUNNEL).await), 200);
    harness.clock.advance(jiff::SignedDuration::from_secs(44));
    assert_eq!(answered(&harness, TUNNEL, "e5").await, 200);
    harness.clock.advance(jiff::SignedDuration::from_secs(1));
    assert_eq!(answered(&harness, TUNNEL, "e6").await, 401);
    assert_eq!(status(&lend(&harness, LEASE, TUNNEL).await), 200);
    assert_eq!(answered(&harness, TUNNEL, "e7").await, 200);
    for was_lent in [true, false] {
        assert_eq!(json(&send(harness.admin_request(Method::DELETE, LEASE)).await)["was_lent"], was_lent);
    }
    assert_eq!(answered(&harness, TUNNEL, "e8").await, 401);
    // A restart knows of none.
    assert_eq!(status(&lend(&harness, LEASE, TUNNEL).await), 200);
    harness.restart().await;
    assert_eq!(answered(&harness, TUNNEL, "e9").await, 401);
    harness.expect_leftover();
}

#[tokio::test]
async fn nothing_unfit_is_lent_and_nobody_lends_without_the_token() {
    let harness = Harness::with("[admin]\ntoken = \"s3cret\"\n").await;
    let put = |path: &str, body: &str| {
        let request = harness.admin_request(Method::PUT, path).header("content-type", "application/json").body(body.to_owned());
        send(request.bearer_auth("s3cret"))
    };
    let url = |url: &str| json!({"url": url}).to_string();
    for request in [
        harness.admin_request(Method::PUT, LEASE).json(&json!({"url": TUNNEL})),
        harness.admin_request(Method::PUT, LEASE).json(&json!({"url": TUNNEL})).bearer_auth("wrong"),
        harness.admin_request(Method::DELETE, LEASE),
        harness.admin_request(Method::GET, "/api/v1/public_urls"),
    ] {
        assert_eq!(status(&send(request).await), 401);
    }
    for (path, body, expected) in [
        (LEASE, url("http://abcd.ngrok-free.app"), (400, "url_invalid")),
        (LEASE, url("https://user:pass@abcd.ngrok-free.app"), (400, "url_invalid")),
        (LEASE, url("abcd.ngrok-free.app"), (400, "url_invalid")),
        (LEASE, "{}".to_owned(), (400, "body_invalid")),
        (LEASE, json!({"url": TUNNEL, "for": "ever"}).to_string(), (400, "body_invalid")),
        ("/api/v1/public_urls/mine", url(TUNNEL), (400, "id_invalid")),
    ] {
        let answer = put(path, &body).await;
        assert_eq!((status(&answer), code(&answer)), (expected.0, expected.1.to_owned()), "{body}");
    }
    for number in 0..9 {
        let path = format!("/api/v1/public_urls/019a9936-de14-7c3a-9d52-0f6c1e8b4a{number:02}");
        let answer = put(&path, &url(TUNNEL)).await;
        assert_eq!(status(&answer), if number < 8 { 200 } else { 409 }, "{number}");
    }
}

#[tokio::test]
async fn a_tunnel_is_found_by_its_port_registered_followed_and_taken_back() {
    let mut harness = beside().await;
    let (front, agent) = (Front::to(harness.public()).await, Agent::start().await);
    let port = harness.public().port();
    agent
        .ngrok(&[("https://other.ngrok-free.app", "http://localhost:3000"), (&front.url(), &format!("http://localhost:{port}"))])
        .await;
    let mut run = Run::tunnel(&harness, &["--register", "--agent", &agent.url()]);
    run.says("Ctrl-C takes it all back.").await;
    assert_eq!(harness.webhooks().await, [front.webhook()]);
    let sent = within("the event", harness.manus.emit(KEY, event("e1"))).await;
    assert_eq!(sent[0].status, Some(200));
    // The agent is silent and then gone for a moment: what works is left alone.
    agent.never().await;
    agent.asked(2).await;
    let next = Front::to(harness.public()).await;
    agent.ngrok(&[(&next.url(), &format!("localhost:{port}"))]).await;
    assert_eq!(harness.webhooks().await, [front.webhook()]);
    let old = front.webhook();
    drop(front);
    run.says(&format!("Ready: events of `manus` come to {}.", next.webhook())).await;
    assert_eq!(harness.webhooks().await, [next.webhook()]);
    assert_eq!(answered(&harness, old.trim_end_matches("/webhooks/manus"), "e2").await, 401);
    assert_eq!(answered(&harness, &next.url(), "e3").await, 200);
    let said = end(run, Signal::TERM).await;
    assert_eq!(harness.webhooks().await, [""; 0]);
    assert_eq!(harness.list("public_urls").await.len(), 1);
    assert_eq!(answered(&harness, &next.url(), "e4").await, 401);
    insta::with_settings!({filters => vec![(r"127\.0\.0\.1:\d+", "ADDRESS")]}, { insta::assert_snapshot!(said, @"
    http://ADDRESS (ngrok at ADDRESS) leads to this taskhook, which accepts webhooks for it from now on.
    The key to verify with is loaded.
    Registering http://ADDRESS/webhooks/manus …
    It is registered.
    The test request arrived, and its signature is good. Events will come.
    Ready: events of `manus` come to http://ADDRESS/webhooks/manus.
    Ctrl-C takes it all back.
    The tunnel http://ADDRESS is gone.
    The webhook of `manus` is deleted.
    Webhooks for http://ADDRESS are accepted no more.
    http://ADDRESS (ngrok at ADDRESS) leads to this taskhook, which accepts webhooks for it from now on.
    The key to verify with is loaded.
    Registering http://ADDRESS/webhooks/manus …
    It is registered.
    The test request arrived, and its signature is good. Events will come.
    Ready: events of `manus` come to http://ADDRESS/webhooks/manus.
    Ctrl-C takes it all back.
    The webhook of `manus` is deleted.
    Webhooks for http://ADDRESS are accepted no more.
    "); });
    harness.expect_leftover();
}

#[tokio::test]
async fn a_kill_leaves_a_webhook_that_nothing_is_accepted_for() {
    let mut harness = beside().await;
    let (front, agent) = (Front::to(harness.public()).await, Agent::start().await);
    // cloudflared does not tell where it leads; one that is silent beside it is no obstacle.
    agent.cloudflared(&front.url()).await;
    let mut run = Run::tunnel(&harness, &["--register", "--agent", &agent.url(), "--agent", "127.0.0.1:1"]);
    run.says("Ctrl-C takes it all back.").await;
    assert_eq!(answered(&harness, &front.url(), "e1").await, 200);
    run.kill();
    harness.clock.advance(jiff::SignedDuration::from_secs(46));
    assert_eq!(answered(&harness, &front.url(), "e2").await, 401);
    // The next one finds it, and leaves it, since it was there before.
    let mut run = Run::tunnel(&harness, &["--register", "--agent", &agent.url()]);
    run.says("It was there before, so it stays when this ends.").await;
    run.says("Ctrl-C takes it all back.").await;
    assert_eq!(answered(&harness, &front.url(), "e3").await, 200);
    end(run, Signal::INT).await;
    assert_eq!(harness.webhooks().await, [front.webhook()]);
    harness.expect_leftover();
}

#[tokio::test]
async fn a_receiver_that_restarts_accepts_the_url_again() {
    let socket = reserve();
    let admin = socket.local_addr().unwrap();
    let config = format!("[admin]\nlisten = \"{admin}\"\n");
    let mut harness = Setup::new().at(Clock::system().now()).config(&config).start().await;
    let (front, agent) = ngrok(&harness).await;
    let mut run = Run::tunnel(&harness, &["--register", "--agent", &agent.url()]);
    run.says("Ctrl-C takes it all back.").await;
    harness.stop().await;
    run.says("Waiting for it to come back.").await;
    assert_eq!(harness.webhooks().await, [front.webhook()]);
    harness.start().await;
    run.says("It is back, and accepts webhooks for").await;
    assert_eq!(answered(&harness, &front.url(), "e1").await, 200);
    end(run, Signal::TERM).await;
    assert_eq!(harness.webhooks().await, [""; 0]);
    drop(socket);
    harness.expect_leftover();
}

#[tokio::test]
async fn what_nobody_registers_is_printed_whole_and_told_without_its_token() {
    let harness = beside().await;
    let (front, agent) = ngrok(&harness).await;
    let github = "[sources.github]\nprovider = \"custom\"\npreset = \"github\"\nsecret = \"long-enough-for-a-test\"\npath_token = \"t0ken\"\n";
    let mut run = Run::tunnel_with(&harness, github, &["--register", "--agent", &agent.url()]);
    run.prints(&format!("{}/webhooks/github/t0ken\n", front.url())).await;
    run.says("For `github` (custom), paste this where the webhook is asked for:").await;
    run.says("Ready: events of `manus` come to").await;
    let said = end(run, Signal::INT).await;
    assert!(!said.contains("t0ken"), "{said}");
    // Without `--register` it is the same for all, and the provider is not asked.
    let before = harness.calls().len();
    let mut run = Run::tunnel(&harness, &["--agent", &agent.url()]);
    run.prints(&format!("{}\n", front.webhook())).await;
    run.says("For `manus` (manus), paste this where the webhook is asked for (or add `--register`):").await;
    assert_eq!(answered(&harness, &front.url(), "e1").await, 200);
    run.signal(Signal::INT);
    assert_eq!((run.ended().await, harness.calls().len()), (Some(0), before));
    let mut harness = harness;
    harness.expect_leftover();
}

#[tokio::test]
async fn version_1_which_lists_nothing_is_registered_once_and_deleted_by_who_did_it() {
    let mut harness = beside().await;
    let (front, agent) = ngrok(&harness).await;
    let (version, words) = ("api_version = \"v1\"\n", ["--register", "--agent", &agent.url()]);
    let mut first = Run::tunnel_with(&harness, version, &words);
    first.says("Ctrl-C takes it all back.").await;
    let mut second = Run::tunnel_with(&harness, version, &words);
    second.says("It was there before, so it stays when this ends.").await;
    second.says("Ctrl-C takes it all back.").await;
    end(second, Signal::TERM).await;
    assert_eq!(harness.webhooks().await, [front.webhook()]);
    // The lease of the first is its own.
    assert_eq!(answered(&harness, &front.url(), "e1").await, 200);
    end(first, Signal::HUP).await;
    assert_eq!(harness.webhooks().await, [""; 0]);
    harness.expect_leftover();
}

#[tokio::test]
async fn a_provider_that_is_busy_or_down_is_asked_again() {
    let mut harness = beside().await;
    let (front, agent) = (Front::to(harness.public()).await, Agent::start().await);
    agent.ngrok_tunnels(&front.url(), &harness.public().to_string()).await;
    let refuse = |status, times| {
        ApiFault::on(
            "webhook.create",
            times,
            WrongAnswer::Refuse { status, retry_after: (status == 429).then(|| "1".to_owned()) },
        )
    };
    // The last of them is done, and its answer is lost.
    let lost = ApiFault::on("webhook.create", Times::Next(1), WrongAnswer::Lost);
    let api = vec![refuse(429, Times::Next(1)), refuse(503, Times::Next(1)), lost];
    harness.manus.set_faults(Faults { api, ..Faults::default() });
    let mut run = Run::tunnel(&harness, &["--register", "--agent", &agent.url()]);
    run.says("Ctrl-C takes it all back.").await;
    let said = run.said();
    for part in ["429, too many calls a minute", "503", "Trying again in 2 s.", "it may be registered all the same"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(harness.webhooks().await, [front.webhook()]);
    let said = end(run, Signal::INT).await;
    assert_eq!(harness.webhooks().await, [""; 0], "{said}");
    harness.expect_leftover();
}

#[tokio::test]
async fn a_webhook_that_cannot_be_deleted_is_told() {
    let mut harness = beside().await;
    let (_front, agent) = ngrok(&harness).await;
    let mut run = Run::tunnel(&harness, &["--register", "--agent", &agent.url()]);
    run.says("Ctrl-C takes it all back.").await;
    let refuse = ApiFault::on("webhook.delete", Times::Always, WrongAnswer::Refuse { status: 503, retry_after: None });
    harness.manus.set_faults(Faults { api: vec![refuse], ..Faults::default() });
    run.signal(Signal::TERM);
    assert_eq!(run.ended().await, Some(1), "{}", run.said());
    let said = run.said();
    assert!(said.contains("the webhook of `manus` was not deleted") && said.contains("`taskhook webhooks delete "), "{said}");
    // The URL goes all the same.
    assert_eq!(harness.list("public_urls").await.len(), 1);
    harness.expect_leftover();
}

#[tokio::test]
async fn dev_waits_for_a_tunnel_and_needs_no_more_than_a_key() {
    // The simulator, and nothing of the harness's own program.
    let mut harness = beside().await;
    let agent = Agent::start().await;
    let mut run = Run::dev(&harness, &agent.url());
    run.says("Waiting for a tunnel: no tunnel runs that could be found.").await;
    let public = run.address("receives on ").await;
    run.says(&format!("`ngrok http {}`", public.port())).await;
    let front = Front::to(public).await;
    agent.ngrok(&[(&front.url(), &public.port().to_string())]).await;
    run.says(&format!("Ready: events of `manus` come to {}.", front.webhook())).await;
    let task = harness.manus.create_task(KEY, Plan::finish("5"));
    assert!(harness.manus.finish_all().await.iter().all(taskhook::simulator::manus::Delivery::delivered));
    run.prints(&task).await;
    let said = end(run, Signal::INT).await;
    assert_eq!(harness.webhooks().await, [""; 0]);
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text} in {said}"));
    assert!(at("The webhook of `manus` is deleted.") < at("stopping: what is in hand is finished"), "{said}");
    harness.expect_leftover();
}

#[tokio::test]
async fn dev_ends_where_the_key_is_refused() {
    let harness = beside().await;
    let agent = Agent::start().await;
    let mut run = Run::dev_with(&harness, &agent.url(), "sk-wrong", "");
    let public = run.address("receives on ").await;
    let front = Front::to(public).await;
    agent.ngrok(&[(&front.url(), &public.port().to_string())]).await;
    assert_eq!(run.ended().await, Some(1), "{}", run.said());
    let said = run.said();
    assert!(
        said.contains("the API key is refused") && said.contains("check `sources.manus.api_key` (or `MANUS_API_KEY`)"),
        "{said}"
    );
    assert!(said.contains("stopping: what is in hand is finished"), "{said}");
}

#[tokio::test]
async fn a_tunnel_that_ends_elsewhere_is_neither_lent_nor_registered() {
    let mut harness = beside().await;
    let agent = Agent::start().await;
    let none = "[[routes]]\nname = \"none\"\nwhen = \"event.type == 'task_failed'\"\nto = [\"log\"]\n";
    let mut run = Run::dev_with(&harness, &agent.url(), KEY, none);
    let (public, admin) = (run.address("receives on ").await, run.address("admin on http://").await);
    let port = public.port().to_string();
    // Its agent says that it leads here, and it leads to the program of the harness.
    let other = Front::to(harness.public()).await;
    agent.ngrok(&[(&other.url(), &port)]).await;
    run.says(&format!("Waiting for a tunnel: {} leads to another taskhook", other.url())).await;
    let client = harness.client().get(format!("http://{admin}/api/v1/public_urls"));
    assert_eq!((json(&send(client).await)["data"].clone(), harness.webhooks().await), (json!([]), Vec::new()));
    // Of two that say so, the one that does is taken. Events are printed though no destination gets them.
    let front = Front::to(public).await;
    agent.ngrok(&[(&other.url(), &port), (&front.url(), &port)]).await;
    run.says(&format!("Ready: events of `manus` come to {}.", front.webhook())).await;
    let task = harness.manus.create_task(KEY, Plan::finish("5"));
    assert!(harness.manus.finish_all().await.iter().all(taskhook::simulator::manus::Delivery::delivered));
    run.prints(&task).await;
    // The terminal is closed.
    end(run, Signal::HUP).await;
    assert_eq!(harness.webhooks().await, [""; 0]);
    harness.expect_leftover();
}
