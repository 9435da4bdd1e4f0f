//! Mail, handed to a real server (aiosmtpd) and parsed by somebody else (mailparse).

use std::time::Duration;

use serde_json::{Value, json};

use crate::deliver::{busiest_minute, detail, offer, offer_one, only, outcomes, reasons, result, start};
use crate::harness::{Harness, LOGIN, Manner, Smtp, closed_address};

const PLAIN: Manner = Manner { tls: false, wrapped: false, login: false };

/// What becomes of one result.
async fn handed(section: &str) -> (Harness, Value) {
    let mut harness = start(section).await;
    offer_one(&harness).await;
    harness.drain().await;
    let delivery = only(&harness).await;
    (harness, delivery)
}

#[tokio::test]
async fn a_result_is_a_mail_with_text_and_html() {
    let smtp = Smtp::start(PLAIN).await;
    let (_harness, delivery) = handed(&smtp.section("smtp", "")).await;
    assert_eq!((&delivery["state"], detail(&delivery)), (&json!("delivered"), "250 2.0.0 kept"), "{delivery}");
    let mail = smtp.mails().remove(0);
    assert_eq!(mail.about["sender"], "hooks@example.com");
    assert_eq!(mail.about["recipients"], json!(["ann@example.com", "bob@example.com"]));
    assert_eq!(
        (mail.header("From"), mail.header("To")),
        ("taskhook <hooks@example.com>".into(), "Ann <ann@example.com>, bob@example.com".into())
    );
    assert_eq!((mail.header("Subject"), mail.header("Auto-Submitted")), ("What is 2 + 2?".into(), "auto-generated".into()));
    assert_eq!(mail.header("Message-ID"), format!("<{}@example.com>", delivery["id"].as_str().unwrap()));
    assert_eq!(mail.header("Date"), "Thu, 15 Jan 2026 12:00:00 +0000");
    let text = mail.parts("text/plain").remove(0).replace("\r\n", "\n");
    insta::assert_snapshot!(text, @"
    ✅ What is 2 + 2?
    finished · open

    **4**

    Open the task: https://manus.im/app/t1
    ");
    let html = mail.parts("text/html").remove(0);
    assert!(html.contains("<p><strong>4</strong></p>") && html.contains("href=\"https://manus.im/app/t1\""), "{html}");
}

#[tokio::test]
async fn the_mails_of_a_task_are_one_thread() {
    let smtp = Smtp::start(PLAIN).await;
    let mut harness = start(&smtp.section("smtp", "")).await;
    let mut again = result(1, "What is 2 + 2?", "still 4");
    again["event_id"] = json!("e1b");
    for event in [result(1, "What is 2 + 2?", "4"), again, result(2, "What is 2 + 2?", "4")] {
        offer(&harness, &event).await;
    }
    harness.drain().await;
    let mut threads: Vec<_> = smtp.mails().iter().map(|mail| (mail.header("References"), mail.header("In-Reply-To"))).collect();
    threads.sort();
    assert_eq!(threads.len(), 3);
    assert!(threads.iter().all(|(references, reply)| references == reply));
    threads.dedup();
    assert_eq!(threads.len(), 2, "one for each task");
}

#[tokio::test]
async fn every_attempt_is_the_same_mail() {
    let smtp = Smtp::start(PLAIN).await;
    smtp.next(&["data 451 4.3.0 try later", "cut"]).await;
    let (mut harness, _) = handed(&smtp.section("smtp", "")).await;
    harness.advance(Duration::from_secs(1)).await;
    harness.advance(Duration::from_secs(5)).await;
    assert_eq!(outcomes(&only(&harness).await), ["failed", "unknown", "delivered"]);
    let mails = smtp.mails();
    assert_eq!((mails.len(), &mails[0].bytes, &mails[1].bytes), (3, &mails[1].bytes, &mails[2].bytes));
}

#[tokio::test]
async fn what_the_server_says_has_its_verdict() {
    let smtp = Smtp::start(PLAIN).await;
    for (mood, state, words) in [
        ("mail 550 5.7.1 not from you", "dead", "the server refuses the sender: permanent error (550): 5.7.1 not from you"),
        ("mail 421 4.3.2 closing", "pending", "transient error (421)"),
        ("rcpt * 550 5.1.1 nobody here", "dead", "the server refuses ann@example.com: permanent error (550): 5.1.1 nobody here"),
        (
            "rcpt bob 450 4.2.0 greylisted",
            "pending",
            "the server does not take mail for bob@example.com now: transient error (450)",
        ),
        ("rcpt bob 550 5.1.1 nobody here", "delivered", "250 2.0.0 kept; not to bob@example.com: permanent error (550)"),
        ("data 552 5.3.4 too large", "dead", "the server refuses the mail: permanent error (552)"),
        ("data 452 4.3.1 disk full", "pending", "transient error (452)"),
    ] {
        smtp.next(&[mood]).await;
        let (mut harness, delivery) = handed(&smtp.section("smtp", "")).await;
        assert_eq!(delivery["state"], state, "{mood}: {delivery}");
        assert!(detail(&delivery).contains(words), "{mood}: {delivery}");
        harness.expect_leftover();
    }
    let partial = smtp.mails().into_iter().find(|mail| mail.about["mood"] == "rcpt bob 550 5.1.1 nobody here").unwrap();
    assert_eq!(partial.about["recipients"], json!(["ann@example.com"]));
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_text_is_of_unknown_outcome() {
    let smtp = Smtp::start(PLAIN).await;
    for (mood, keys, ended) in [
        ("cut", "", vec!["unknown", "delivered"]),
        ("silent", "timeout = \"1s\"\n", vec!["unknown", "delivered"]),
        ("cut", "on_unknown = \"hold\"\n", vec!["unknown"]),
    ] {
        smtp.next(&[mood]).await;
        let (mut harness, _) = handed(&format!("{keys}{}", smtp.section("smtp", ""))).await;
        harness.advance(Duration::from_secs(1)).await;
        assert_eq!(outcomes(&only(&harness).await), ended, "{mood} {keys}");
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_is_an_unknown_attempt_and_the_same_mail_again() {
    let smtp = Smtp::start(PLAIN).await;
    smtp.next(&["silent"]).await;
    let mut harness = start(&smtp.section("smtp", "")).await;
    offer_one(&harness).await;
    harness.work_until(smtp.received(1)).await;
    harness.crash();
    harness.start().await;
    harness.drain().await;
    assert_eq!(outcomes(&only(&harness).await), ["unknown", "delivered"]);
    let mails = smtp.mails();
    assert_eq!((mails.len(), &mails[0].bytes), (2, &mails[1].bytes));
}

#[tokio::test]
async fn tls_and_logins_in_every_way() {
    for (manner, scheme) in
        [(Manner { wrapped: true, login: true, ..PLAIN }, "smtps"), (Manner { tls: true, login: true, ..PLAIN }, "smtp")]
    {
        let smtp = Smtp::start(manner).await;
        let (harness, delivery) = handed(&smtp.section(scheme, LOGIN)).await;
        assert_eq!(delivery["state"], "delivered", "{scheme}: {delivery}");
        assert_eq!((&smtp.mails()[0].about["tls"], &smtp.mails()[0].about["login"]), (&json!(true), &json!(true)));
        let checked = harness.app().environment.destinations["it"].check().await;
        assert_eq!(checked, Ok(format!("127.0.0.1:{} answers with TLS and takes our login", smtp.port)));
        drop(harness);
        // Nobody vouches for the certificate.
        let (mut harness, delivery) = handed(&smtp.section(scheme, LOGIN).replace("ca_file", "#ca_file")).await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("pending"), vec!["failed"]), "{delivery}");
        harness.expect_leftover();
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_again_and_not_shown() {
    let smtp = Smtp::start(Manner { tls: true, login: true, ..PLAIN }).await;
    let mut harness = start(&smtp.section("smtp", "us%40er:s3cret")).await;
    for number in 0..5 {
        offer(&harness, &result(number, "A title", "text")).await;
    }
    harness.drain().await;
    let deliveries = harness.list("deliveries").await;
    assert!(
        deliveries.iter().all(
            |delivery| delivery["state"] == "pending" && detail(delivery).contains("the login failed: permanent error (535)")
        ),
        "{deliveries:?}"
    );
    let told = format!("{deliveries:?}{:?}", reasons(&harness).await);
    assert!(told.contains("destination it: the login failed") && !told.contains("s3cret"), "{told}");
    harness.expect_leftover();
}

#[tokio::test]
async fn starttls_is_not_done_without_where_it_is_required() {
    let smtp = Smtp::start(PLAIN).await;
    let section = smtp.section("smtp", "").replace(&smtp.port.to_string(), &format!("{}?tls=required", smtp.port));
    let (mut harness, delivery) = handed(&section).await;
    assert!(detail(&delivery).contains("the server offers no STARTTLS"), "{delivery}");
    assert_eq!(smtp.mails().len(), 0);
    harness.expect_leftover();
}

#[tokio::test]
async fn a_server_that_is_not_there_got_nothing() {
    let smtp = Smtp::start(PLAIN).await;
    let (_socket, address) = closed_address();
    let (mut harness, delivery) =
        handed(&smtp.section("smtp", "").replace(&format!("127.0.0.1:{}", smtp.port), &address.to_string())).await;
    assert_eq!(outcomes(&delivery), ["failed"]);
    assert!(detail(&delivery).starts_with("cannot connect: "), "{delivery}");
    harness.expect_leftover();
}

#[tokio::test]
async fn hostile_words_are_words() {
    let smtp = Smtp::start(PLAIN).await;
    let mut harness = start(&smtp.section("smtp", "")).await;
    let nasty = "Hi\r\nBcc: victim@example.com\r\nX-Evil: 1\r\n\r\n<script>alert(1)</script> <img src=x onerror=alert(1)>\u{202e}\u{0}\r\n.\r\nMAIL FROM:<x@y>";
    let long = format!("{nasty}{}", "long ".repeat(200_000));
    let mut event = result(1, &long, &format!("{long}\n\n[click](javascript:alert(1)) ![p](https://tracker.example/1.gif)"));
    event["task_detail"]["task_id"] = json!("t1\r\nX-Evil: 2");
    event["task_detail"]["attachments"] =
        json!([{"file_name": "../../etc/passwd\"\r\nX-Evil: 3", "url": "javascript:alert(1)", "size_bytes": 7}]);
    offer(&harness, &event).await;
    harness.drain().await;
    let delivery = only(&harness).await;
    assert_eq!(delivery["state"], "delivered", "{delivery}");
    let mails = smtp.mails();
    assert_eq!((mails.len(), &mails[0].about["recipients"]), (1, &json!(["ann@example.com", "bob@example.com"])));
    let mail = &mails[0];
    let names: Vec<_> = mail.parsed().headers.iter().map(mailparse::MailHeader::get_key).collect();
    assert!(!names.iter().any(|name| name.eq_ignore_ascii_case("bcc") || name.to_lowercase().contains("evil")), "{names:?}");
    let subject = mail.header("Subject");
    assert!(subject.starts_with("Hi Bcc: victim@example.com X-Evil: 1 <script>") && subject.chars().count() == 150, "{subject}");
    let (text, html) = (mail.parts("text/plain").remove(0), mail.parts("text/html").remove(0));
    for never in ["<script", "<img", "onerror=alert(1)>", "href=\"javascript"] {
        assert!(!html.contains(never), "{never}");
    }
    for body in [&text, &html] {
        assert!(!body.contains(['\u{202e}', '\0']) && body.contains("… (cut)"));
    }
    assert!(mail.bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= 1_000), "no line is longer than SMTP allows");
}

#[tokio::test]
async fn templates_write_the_subject_the_text_and_the_html() {
    let smtp = Smtp::start(PLAIN).await;
    let keys = "subject = \"[agent]\\r\\n {{ event.title }}\"\ntemplate = \"{{ event.title }} <&>\"\n";
    let html = "html_template = \"<b>{{ event.title }}</b>{{ event.message | markdown }}\"\n";
    for (more, has_html) in [("", false), (html, true)] {
        let mut harness = start(&format!("{}{keys}{more}", smtp.section("smtp", ""))).await;
        offer(&harness, &result(1, "<1>", "**4** <x>")).await;
        harness.drain().await;
        assert_eq!(only(&harness).await["state"], "delivered");
        let mail = smtp.mails().pop().unwrap();
        assert_eq!((mail.header("Subject"), mail.parts("text/plain").remove(0).trim()), ("[agent] <1>".to_owned(), "<1> <&>"));
        let html = mail.parts("text/html");
        assert_eq!(
            html.first().map(|html| html.trim()),
            has_html.then_some("<b>&lt;1&gt;</b><p><strong>4</strong> &lt;x&gt;</p>")
        );
    }
}

#[tokio::test]
async fn a_thousand_results_keep_to_the_rate() {
    let smtp = Smtp::start(PLAIN).await;
    let mut harness = start(&format!("{}rate = 600\nconcurrency = 4\n", smtp.section("smtp", ""))).await;
    for number in 0..1_000 {
        offer(&harness, &result(number, "A title", "text")).await;
    }
    let mut counts = Vec::new();
    for _ in 0..130 {
        harness.advance(Duration::from_secs(1)).await;
        counts.push(smtp.mails().len());
    }
    assert_eq!(counts.last(), Some(&1_000));
    assert!(busiest_minute(&counts) <= 600, "{counts:?}");
}
