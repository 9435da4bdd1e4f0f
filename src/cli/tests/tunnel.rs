//! `tunnel` where it has nothing to follow, or may not go on: it says why, and leaves nothing behind.

use std::time::Duration;

use serde_json::json;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::site::Site;
use crate::http;
use crate::simulator::manus::Faults;

/// An agent that answers at `at` with `body`, after a while.
fn agent(site: &Site, at: &str, body: &str, delay: Duration) -> MockServer {
    site.block_on(async {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_string(body).set_delay(delay);
        let mock = if at.is_empty() { Mock::given(any()) } else { Mock::given(path(at)) };
        mock.respond_with(answer).mount(&server).await;
        server
    })
}

/// An ngrok whose one tunnel is `site`'s public address.
fn ngrok(site: &Site) -> MockServer {
    let body = json!({"endpoints": [{"url": site.public_url(), "upstream": {"url": "http://localhost:8080"}}]});
    agent(site, "/api/endpoints", &body.to_string(), Duration::ZERO)
}

/// What it says with these agents, each address replaced; it must end with 1 and print nothing.
fn said(site: &Site, agents: &[&MockServer], words: &[&str]) -> String {
    let addresses: Vec<_> = agents.iter().map(|agent| agent.address().to_string()).collect();
    let mut arguments = vec!["tunnel", "--port", "8080"];
    arguments.extend(addresses.iter().flat_map(|address| ["--agent", address.as_str()]));
    arguments.extend(words);
    let (exit, out, err) = site.shell(&arguments);
    assert_eq!((exit, out.as_str()), (1, ""), "{err}");
    addresses.iter().enumerate().fold(err, |err, (number, address)| err.replace(address, &format!("AGENT{}", number + 1)))
}

fn left(site: &Site) -> (usize, usize) {
    let webhooks = site.json(&["webhooks", "list", "--json"])["data"].as_array().unwrap().len();
    let connection = site.env_of("TASKHOOK__ADMIN__LISTEN");
    let url = format!("http://{connection}/api/v1/public_urls");
    let timeout = Duration::from_secs(5);
    let answer = site.block_on(http::send(http::client(timeout).get(url), timeout, 1 << 20)).unwrap();
    let urls: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    (webhooks, urls["data"].as_array().unwrap().len())
}

#[test]
fn where_no_tunnel_runs_it_says_what_to_start() {
    let site = Site::start(&[]);
    insta::assert_snapshot!(said(&site, &[], &["--agent", "127.0.0.1:1"]), @"
    error: no tunnel runs that could be found
    hint: nobody answers at 127.0.0.1:1
    hint: start one: `ngrok http 8080` or `cloudflared tunnel --url http://localhost:8080`
    hint: if one runs, pass the address of its agent with `--agent`: ngrok prints it as `Web Interface`, cloudflared takes it with `--metrics`
    ");
    let (exit, _, err) = site.shell(&["tunnel", "--agent", "ftp://ngrok"]);
    assert_eq!(
        (exit, err.as_str()),
        (2, "error: `--agent` is not the address of an agent\nhint: write it like `--agent http://127.0.0.1:4040`\n")
    );
    let (exit, _, err) = site.shell(&["tunnel", "--source", "other"]);
    assert_eq!((exit, err.as_str()), (2, "error: there is no source `other`\nhint: there are: manus\n"));
}

#[test]
fn tunnels_that_lead_elsewhere_and_agents_that_are_none_are_told() {
    let site = Site::start(&[]);
    let (now, late) = (Duration::ZERO, Duration::from_secs(30));
    let endpoints = json!({"endpoints": [
        {"url": "https://efgh.ngrok-free.app", "upstream": {"url": "http://localhost:3000"}},
        {"url": "http://abcd.ngrok-free.app", "upstream": {"url": "http://localhost:8080"}},
        {"url": "tcp://1.tcp.ngrok.io:12345", "upstream": {"url": "localhost:22"}},
        {"url": 7, "upstream": null},
    ]});
    let agents = [
        agent(&site, "/api/endpoints", &endpoints.to_string(), now),
        agent(&site, "", "<html>Welcome</html>", now),
        agent(&site, "", "{}", late),
        agent(&site, "/quicktunnel", r#"{"hostname":""}"#, now),
    ];
    insta::assert_snapshot!(said(&site, &agents.each_ref(), &[]), @"
    error: no tunnel leads to port 8080, where senders are received
    hint: https://efgh.ngrok-free.app (ngrok at AGENT1) leads to http://localhost:3000
    hint: http://abcd.ngrok-free.app (ngrok at AGENT1) is not https, which senders ask for
    hint: AGENT2 answers, but not as ngrok or cloudflared does
    hint: AGENT3 is of no use: no answer within 2 s
    hint: cloudflared at AGENT4 runs no quick tunnel: it does not tell the address of a named one, which is for `server.public_url`
    hint: start one: `ngrok http 8080` or `cloudflared tunnel --url http://localhost:8080`
    hint: if one runs, pass the address of its agent with `--agent`: ngrok prints it as `Web Interface`, cloudflared takes it with `--metrics`
    ");
}

#[test]
fn without_a_receiver_there_is_nothing_to_take_it_to() {
    let site = Site::stopped(&[]);
    let said = said(&site, &[], &[]);
    assert!(said.contains("http://ADMIN") && !said.contains("ngrok"), "{said}");
}

#[test]
fn a_refused_key_ends_it_and_nothing_is_left() {
    let mut site = Site::start(&[]);
    let agent = ngrok(&site);
    site.set("MANUS_API_KEY", "sk-wr0ng");
    insta::assert_snapshot!(said(&site, &[&agent], &["--register"]), @r#"
    http://PUBLIC (ngrok at AGENT1) leads to this taskhook, which accepts webhooks for it from now on.
    Webhooks for http://PUBLIC are accepted no more.
    error: the key to verify with cannot be loaded: webhook.publicKey: 401, the API key is refused (invalid api key)
    hint: check `sources.manus.api_key` (or `MANUS_API_KEY`): is it whole, and of the right account?
    hint: if it is a key for the other version of the API, set `sources.manus.api_version` to "v1"
    "#);
    site.set("MANUS_API_KEY", super::site::KEY);
    assert_eq!(left(&site), (0, 1));
}

#[test]
fn a_test_request_that_fails_again_and_again_ends_it() {
    let site = Site::start(&[]);
    let agent = ngrok(&site);
    site.manus.set_faults(Faults { sign_for_url: Some("https://old.example.com/webhooks/manus".into()), ..Faults::default() });
    let said = said(&site, &[&agent], &["--register"]);
    assert_eq!(said.matches("the webhook did not answer the test request with 200: status 401").count(), 4, "{said}");
    assert!(
        said.contains("Trying again in 2 s.") && said.contains("this taskhook refused the test request with `signature_invalid`"),
        "{said}"
    );
    assert_eq!(left(&site), (0, 1));
}

#[test]
fn webhooks_of_tunnels_that_are_no_more_are_told_and_left_alone() {
    let site = Site::start(&[]);
    let (agent, source) = (ngrok(&site), "manus");
    let old = site.manus.register(super::site::KEY, "https://gone.invalid.ngrok-free.app/webhooks/manus/t0ken");
    site.manus.register(super::site::KEY, "https://hooks.example.com/webhooks/manus");
    // A second source that is refused ends the command once the first has been registered.
    let mut site = site;
    site.set("TASKHOOK__SOURCES__OTHER__PROVIDER", "manus");
    site.set("TASKHOOK__SOURCES__OTHER__API_KEY", "sk-wr0ng");
    site.set("TASKHOOK__SOURCES__OTHER__BASE_URL", &site.manus.base_url());
    let said = said(&site, &[&agent], &["--register"]);
    let told = format!(
        "https://gone.invalid.ngrok-free.app/webhooks/manus/[redacted] is registered too, and no taskhook answers there: \
         `taskhook webhooks delete {old} --source {source}` deletes it."
    );
    assert!(said.contains(&told) && !said.contains("hooks.example.com is"), "{said}");
    assert!(said.contains("The webhook of `manus` is deleted.") && !said.contains("t0ken"), "{said}");
    let list = site.json(&["webhooks", "list", "--json", "--source", "manus"]);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
}
