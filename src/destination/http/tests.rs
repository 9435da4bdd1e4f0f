//! Against a server that says no, in every way it can.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::destination::{Config as AnyConfig, Destination, OnUnknown, Parts, log};
use crate::retry::Verdict;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: Uuid = Uuid::from_u128(0x019a_9936_de14_7c3a_9d52_0f6c_1e8b_4a77);

/// What the server does after it has read a request.
#[derive(Clone)]
enum Behaviour {
    Answer(String),
    /// Keeps the connection and says nothing.
    Silence,
    /// Closes the connection without a word.
    Cut,
    /// Says 200, promises a body and closes.
    HalfABody,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    /// Ends with the test.
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (mut tasks, kept) = (JoinSet::new(), requests.clone());
        tasks.spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read(&mut stream).await;
                kept.lock().unwrap().push(request);
                match &behaviour {
                    Behaviour::Answer(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    Behaviour::Silence => open.push(stream),
                    Behaviour::Cut => {}
                    Behaviour::HalfABody => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap(),
                }
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    async fn answering(status: &str, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        Self::start(Behaviour::Answer(head + body)).await
    }

    fn destination(&self, more: &Value) -> Destination {
        destination(&format!("http://{}/hooks?token=s3cret", self.address), more)
    }

    fn only_request(&self) -> String {
        let requests = self.requests.lock().unwrap();
        assert_eq!(requests.len(), 1);
        requests[0].clone()
    }
}

/// A request with its whole body; a HEAD request has none.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the request ended early");
    }
}

fn clock() -> Clock {
    Clock::manual("2025-11-18T23:05:00Z".parse().unwrap())
}

fn config(url: &str, more: &Value) -> Config {
    let mut value = json!({"url": url});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn destination(url: &str, more: &Value) -> Destination {
    let parts = Parts { clock: clock(), format: log::Format::Text, output: log::Output::Null, files: None };
    Destination::build("crm", &AnyConfig::Http(config(url, more)), &parts).unwrap()
}

async fn send(destination: &Destination) -> Result<Receipt, Failure> {
    destination.send(&Outgoing { id: ID, body: r#"{"a": "é"}"#, attempt: 1 }).await
}

async fn failure(status: &str, headers: &str, body: &str) -> Failure {
    let server = Server::answering(status, headers, body).await;
    let failure = send(&server.destination(&json!({}))).await.expect_err(status);
    assert!(!failure.unknown, "{status} is an answer");
    server.only_request();
    failure
}

const LATER: Verdict = Verdict::Retry { after: None };

#[tokio::test]
async fn the_body_is_sent_as_it_is_with_id_time_and_signatures() {
    let server = Server::answering("200 OK", "", "").await;
    let destination = server.destination(&json!({"secret": [SECRET, OTHER_SECRET], "headers": {"Authorization": "Bearer x"}}));
    assert_eq!(send(&destination).await.unwrap().detail, "200 OK");
    let request = server.only_request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, r#"{"a": "é"}"#);
    assert!(head.starts_with("POST /hooks?token=s3cret HTTP/1.1\r\n"));
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("authorization"), "Bearer x");
    assert_eq!(header("webhook-id"), ID.to_string());
    assert_eq!(header("webhook-timestamp"), "1763507100");
    assert_eq!(header("webhook-signature").split(' ').count(), 2);
    for secret in [SECRET, OTHER_SECRET] {
        let secret = [standard_webhooks::Secret::parse(secret).unwrap()];
        let signature = header("webhook-signature");
        assert!(standard_webhooks::verify(&secret, &ID.to_string(), 1_763_507_100, body.as_bytes(), signature));
    }
}

#[tokio::test]
async fn without_a_secret_requests_are_unsigned_but_have_id_and_time() {
    let server = Server::answering("204 No Content", "", "").await;
    assert_eq!(send(&server.destination(&json!({}))).await.unwrap().detail, "204 No Content");
    let request = server.only_request();
    assert!(!request.contains("webhook-signature"));
    assert!(request.contains("webhook-id: 019a9936-de14-7c3a-9d52-0f6c1e8b4a77\r\n"));
    assert!(request.contains("webhook-timestamp: 1763507100\r\n"));
}

#[tokio::test]
async fn an_answer_of_2xx_is_delivered_however_much_or_little_it_says() {
    let server = Server::answering("202 Accepted", "", &"x".repeat(3 << 20)).await;
    assert_eq!(send(&server.destination(&json!({}))).await.unwrap().detail, "202 Accepted");
    let server = Server::start(Behaviour::HalfABody).await;
    assert_eq!(send(&server.destination(&json!({}))).await.unwrap().detail, "200 OK");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_reason_says_where_it_points() {
    let failure = failure("301 Moved Permanently", "location: /new?token=abc\r\n", "moved").await;
    assert_eq!(failure.verdict, LATER);
    let reason = failure.reason.replace(|c: char| c.is_ascii_digit(), "0");
    insta::assert_snapshot!(reason, @"000 Moved Permanently: redirects are not followed; if it moved, set `url` to http://000.0.0.0:00000/new?[redacted]");
    for status in ["302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let failure = self::failure(status, "location: https://user:pass@new.example/x?token=abc\r\n", "").await;
        assert_eq!(failure.verdict, LATER);
        assert!(failure.reason.ends_with("set `url` to https://new.example/x?[redacted]"), "{failure}");
    }
    assert_eq!(self::failure("304 Not Modified", "", "").await.reason, "304 Not Modified: redirects are not followed");
}

#[tokio::test]
async fn what_says_that_the_request_is_wrong_is_given_up_on() {
    for status in ["400 Bad Request", "410 Gone", "413 Payload Too Large", "422 Unprocessable Entity"] {
        let failure = failure(status, "", "no").await;
        assert_eq!(failure, Failure::give_up(format!("{status}: no")));
    }
}

#[tokio::test]
async fn everything_else_is_retried() {
    for status in [
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "405 Method Not Allowed",
        "408 Request Timeout",
        "409 Conflict",
        "425 Too Early",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        assert_eq!(failure(status, "", "").await, Failure::retry(status));
    }
}

#[tokio::test]
async fn retry_after_is_honoured_in_both_forms() {
    for (status, header, seconds) in [
        ("429 Too Many Requests", "120", 120),
        ("503 Service Unavailable", "Tue, 18 Nov 2025 23:06:00 GMT", 60),
        ("503 Service Unavailable", "Tue, 18 Nov 2025 23:00:00 GMT", 0),
        ("500 Internal Server Error", "86400", 3600),
    ] {
        let failure = failure(status, &format!("retry-after: {header}\r\n"), "").await;
        assert_eq!(failure.verdict, Verdict::Retry { after: Some(Duration::from_secs(seconds)) }, "{header}");
    }
    assert_eq!(failure("429 Too Many Requests", "retry-after: soon\r\n", "").await.verdict, LATER);
}

#[tokio::test]
async fn the_reason_quotes_the_answer_on_one_short_line_without_our_secrets() {
    let body = format!("\x1b[31mno\r\n\u{202e}you sent Bearer x to /hooks?token=s3cret {}", "y".repeat(300));
    let server = Server::answering("500 Internal Server Error", "", &body).await;
    let failure = send(&server.destination(&json!({"headers": {"authorization": "Bearer x"}}))).await.unwrap_err();
    insta::assert_snapshot!(failure.reason, @"500 Internal Server Error: [31mno you sent [redacted] to /hooks?[redacted] yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…");
    assert!(failure.reason.chars().count() <= MAX_EXCERPT + "500 Internal Server Error: ".len());
}

#[tokio::test]
async fn no_answer_in_time_is_an_unknown_outcome() {
    let server = Server::start(Behaviour::Silence).await;
    let failure = send(&server.destination(&json!({"timeout": "100ms"}))).await.unwrap_err();
    assert_eq!(failure, Failure::retry("no answer within 0.1 s").with_unknown_outcome());
}

#[tokio::test]
async fn a_connection_cut_after_the_request_is_an_unknown_outcome() {
    let server = Server::start(Behaviour::Cut).await;
    let failure = send(&server.destination(&json!({}))).await.unwrap_err();
    assert!(failure.unknown && failure.verdict == LATER);
    assert!(failure.reason.starts_with("the connection broke: "), "{failure}");
    server.only_request();
}

#[tokio::test]
async fn a_refused_connection_is_known_to_have_delivered_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let destination = destination(&format!("http://{address}/?token=s3cret"), &json!({}));
    let failure = send(&destination).await.unwrap_err();
    assert!(!failure.unknown && failure.verdict == LATER);
    insta::assert_snapshot!(failure.reason, @"cannot connect: Connection refused (os error 111)");
    insta::assert_snapshot!(destination.check().await.unwrap_err(), @"cannot connect: Connection refused (os error 111)");
}

#[tokio::test]
async fn a_check_sends_no_event_and_any_answer_will_do() {
    let server = Server::start(Behaviour::Answer("HTTP/1.1 405 Method Not Allowed\r\n\r\n".to_owned())).await;
    let destination = server.destination(&json!({"secret": SECRET}));
    insta::assert_snapshot!(destination.check().await.unwrap(), @"reachable: 405 Method Not Allowed to a HEAD request");
    let request = server.only_request();
    assert!(request.starts_with("HEAD /hooks") && !request.contains("webhook-"));
}

#[test]
fn a_section_needs_only_a_url() {
    let destination = destination("https://crm.example.com/hooks", &json!({}));
    assert_eq!((destination.name(), destination.kind(), destination.concurrency()), ("crm", "http", 8));
    assert_eq!((destination.rate(), destination.timeout()), (None, Duration::from_secs(6)));
    assert_eq!((destination.ladder(), destination.on_unknown()), (&retry::LADDER[..], OnUnknown::Retry));
}

#[test]
fn a_section_may_say_more() {
    let more = json!({"rate": 30, "concurrency": 2, "timeout": "20s", "ladder": "1s, 2m", "on_unknown": "hold"});
    let destination = destination("https://crm.example.com/hooks", &more);
    assert_eq!((destination.rate(), destination.concurrency(), destination.timeout()), (Some(30), 2, Duration::from_secs(20)));
    assert_eq!(
        (destination.ladder(), destination.on_unknown()),
        (&[Duration::from_secs(1), Duration::from_mins(2)][..], OnUnknown::Hold)
    );
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let refusals: Vec<_> = [
        ("ftp://crm.example.com", json!({})),
        ("crm.example.com/hooks", json!({})),
        ("https://crm.example.com/#here", json!({})),
        ("https://user:pass@crm.example.com/", json!({})),
        ("https://crm.example.com/", json!({"secret": "hunter2"})),
        ("https://crm.example.com/", json!({"headers": {"Webhook-Id": "x"}})),
        ("https://crm.example.com/", json!({"headers": {"x\ny": "x"}})),
        ("https://crm.example.com/", json!({"headers": {"x-token": "s3cret\n"}})),
        ("https://crm.example.com/", json!({"headers": {"a": "x", "A": "y"}})),
        ("https://crm.example.com/", json!({"concurrency": 0})),
        ("https://crm.example.com/", json!({"rate": 0})),
        ("https://crm.example.com/", json!({"timeout": "0s"})),
    ]
    .into_iter()
    .map(|(url, more)| AnyConfig::Http(config(url, &more)).check().join("\n"))
    .collect();
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `url` must begin with https:// or http://, not ftp:
    `url` is no URL: relative URL without a base
    `url` has a fragment (`#…`), which is never sent; leave it out
    `url` holds a user name or password, which logs would show; write `headers = { authorization = "Basic …" }` instead
    `secret`: a Standard Webhooks secret begins with `whsec_`
    `headers`: Webhook-Id is set by taskhook itself
    `headers`: x\ny is no name of a header
    `headers`: x-token has a value that no header may have
    `headers`: a is there twice
    `concurrency` must be at least 1
    `rate` must be at least 1 a minute; leave it out for no limit
    `timeout` must be longer than 0 s
    "#);
}

#[test]
fn nothing_secret_is_ever_printed() {
    let more = json!({"secret": SECRET, "headers": {"authorization": "Bearer s3cret"}});
    let config = config("https://crm.example.com/hooks?token=s3cret", &more);
    let built = destination("https://crm.example.com/hooks?token=s3cret", &more);
    let printed = format!("{config:?} {} {built:?}", serde_json::to_string(&AnyConfig::Http(config.clone())).unwrap());
    assert!(!printed.contains("s3cret") && !printed.contains(SECRET), "{printed}");
    assert_eq!(format!("{:?} {:?}", Address::new("s3cret"), Address::new("x:s3cret")), "[redacted] [redacted]");
    insta::assert_snapshot!(serde_json::to_string(&AnyConfig::Http(config)).unwrap(), @r#"{"kind":"http","url":"https://crm.example.com/hooks?[redacted]","secret":"[redacted]","headers":{"authorization":"[redacted]"},"template":null,"timeout":"6s","concurrency":8,"rate":null,"ladder":null,"on_unknown":"retry"}"#);
}

#[tokio::test]
async fn a_template_is_the_json_that_is_sent() {
    let template = "{\"text\": {{ task.title }}, \"credits\": {{ task.credits }}, \"none\": {{ event.payload.none }}}";
    let server = Server::answering("200 OK", "", "").await;
    let destination = server.destination(&json!({"template": template, "secret": SECRET}));
    let mut envelope = Envelope::sample();
    envelope.task.as_mut().unwrap().title = Some("a \"b\" \u{0} </script>".to_owned());
    let content = destination.render(&envelope).unwrap();
    let mut value: Value = serde_json::from_str(&content).unwrap();
    assert_eq!(value["out_of_order"], false);
    // The store may still mark it; what is sent stays what was written.
    value["out_of_order"] = true.into();
    let marked =
        serde_json::to_string(&Written { out_of_order: true, body: value["body"].as_str().unwrap().to_owned() }).unwrap();
    destination.send(&Outgoing { id: ID, body: &marked, attempt: 1 }).await.unwrap();
    let request = server.only_request();
    let sent: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(sent, json!({"text": "a \"b\" \u{0} </script>", "credits": 22, "none": null}));
}

#[test]
fn a_template_that_is_no_json_is_refused_at_start() {
    let told =
        |template: &str| AnyConfig::Http(config("https://crm.example.com/", &json!({"template": template}))).check().join("\n");
    insta::assert_snapshot!([told("{\"text\": \"{{ task.title }}\"}"), told("{{ task.titel }}"), told("{% if %}")].join("\n"), @"
    `template`: what it comes to is no JSON: line 1, column 12
    `template`: line 1, column 9: `task.titel` is not known; did you mean `task.title`?
    `template`: line 1, column 7: unexpected end of block
    ");
}
