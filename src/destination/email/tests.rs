use futures_util::future::BoxFuture;
use lettre::Message;
use mailparse::{MailHeaderMap as _, ParsedMail};
use uuid::Uuid;

use super::*;
use crate::destination::log;
use crate::route::SAMPLES;
use crate::task::FileStatus;

const ID: Uuid = Uuid::from_u128(0x019a_9936_de14_7c3a_9d52_0f6c_1e8b_4a77);

fn config(more: &Value) -> Config {
    let mut value = json!({"smtp_url": "smtps://me:s3cret@mail.example.com", "from": "taskhook <hooks@example.com>", "to": "ann@example.com"});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

/// Files whose bytes are their digest; one is gone, one cannot be read.
#[derive(Debug)]
struct Saved;

impl Files for Saved {
    fn read<'a>(&'a self, sha256: &'a str) -> BoxFuture<'a, Result<Option<bytes::Bytes>, String>> {
        Box::pin(async move {
            match sha256 {
                "gone" => Ok(None),
                "stuck" => Err("the archive does not answer".to_owned()),
                digest => Ok(Some(digest.to_owned().into())),
            }
        })
    }
}

fn parts(files: Option<Arc<dyn Files>>) -> Parts {
    let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
    Parts { clock, format: log::Format::Text, output: log::Output::Null, files }
}

fn content(envelope: &Envelope, files: Option<Arc<dyn Files>>) -> Content {
    let email = Email::build(&config(&json!({})), &parts(files)).unwrap();
    serde_json::from_str(&email.render(envelope).unwrap()).unwrap()
}

fn message(content: Content, files: Vec<Option<bytes::Bytes>>) -> Message {
    content.message(ID, &"hooks@example.com".parse().unwrap(), &["ann@example.com".parse().unwrap()], files).unwrap()
}

fn bodies(mail: &ParsedMail<'_>, kind: &str) -> Vec<String> {
    mail.parts().filter(|part| part.ctype.mimetype == kind).map(|part| part.get_body().unwrap()).collect()
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let refusals: Vec<String> = [
        json!({"smtp_url": "mail.example.com"}),
        json!({"smtp_url": "http://me:s3cret@mail.example.com"}),
        json!({"smtp_url": "smtp://me:s3cret@mail.example.com?tls=none"}),
        json!({"smtp_url": "smtp://me:s3cret@mail.example.com?tls=maybe"}),
        json!({"smtp_url": "smtps://me:s3cret@mail.example.com?tls=none"}),
        json!({"smtp_url": "smtps://me@mail.example.com"}),
        json!({"smtp_url": "smtps://mail.example.com?starttls=1"}),
        json!({"to": []}),
        json!({"to": ["ann@example.com", "bob"]}),
        json!({"from": "hooks"}),
        json!({"from": "hooks@example.com\r\nBcc: victim@example.com"}),
        json!({"subject": "{{ task.titel }}"}),
        json!({"html_template": "{{ nothing }}"}),
        json!({"attach_max_bytes": "50MiB"}),
    ]
    .iter()
    .map(|more| config(more).check().unwrap_err())
    .collect();
    assert!(!refusals.join("").contains("s3cret"));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `smtp_url` is no URL: relative URL without a base
    `smtp_url` must begin with smtps:// or smtp://, not http:
    `smtp_url`: with `tls` like that the password could be read on its way; leave `tls` out
    `smtp_url`: `tls` is `required`, `opportunistic` or `none`
    `smtp_url`: `tls` does not go with `smtps`, which is TLS from the start
    `smtp_url` has a user without a password, or the other way round
    `smtp_url`: there is no option "starttls"; there is `tls`
    `to` names nobody
    `to`: "bob" is no address; write `name@example.com` or `Name <name@example.com>`
    `from`: "hooks" is no address; write `name@example.com` or `Name <name@example.com>`
    `from`: "hooks@example.com Bcc: victim@example.com" is no address; write `name@example.com` or `Name <name@example.com>`
    `subject`: line 1, column 9: `task.titel` is not known; did you mean `task.title`?
    `html_template`: line 1, column 4: `nothing` is not known; known are `collision_of`, `event`, `files`, `id`, `may_repeat`, `out_of_order`, `provider`, `received_at`, `recovered`, `replayed`, `source`, `task`, `type`, `verification`
    `attach_max_bytes` is more than 20 MiB, which most servers refuse
    "#);
}

#[test]
fn a_password_goes_only_where_nobody_else_reads() {
    for (url, security, port) in [
        ("smtps://me:x@mail.example.com", Security::Wrapped, 465),
        ("smtp://me:x@mail.example.com", Security::Required, 587),
        ("smtp://mail.example.com?tls=opportunistic", Security::Opportunistic, 587),
        ("smtp://mail.example.com:2525?tls=none", Security::None, 2525),
        ("smtp://me:x@localhost:1025", Security::Opportunistic, 1025),
        ("smtp://me:x@127.0.0.1:1025?tls=none", Security::None, 1025),
        ("smtp://[::1]:1025", Security::Opportunistic, 1025),
    ] {
        let server = config(&json!({"smtp_url": url})).server().unwrap();
        assert_eq!((server.security, server.port, server.credentials.is_some()), (security, port, url.contains("me:")), "{url}");
    }
}

#[test]
fn nothing_secret_is_ever_printed() {
    let config = config(&json!({}));
    let built = Email::build(&config, &parts(None)).unwrap();
    let printed = format!("{config:?} {built:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[test]
fn the_default_mail_needs_no_template() {
    let text = |name: &str| {
        let message = message(content(&Envelope::named(name).unwrap(), None), Vec::new()).formatted();
        bodies(&mailparse::parse_mail(&message).unwrap(), "text/plain").remove(0).replace("\r\n", "\n")
    };
    insta::assert_snapshot!(text("question"), @"
    ❓ Compare three note-taking apps for a small team
    waits for an answer · manus · manus-1.5-agent · 57 credits · 6 min 48 s

    I have compared two of the three apps.

    It asks:
    Sheaf asks for a credit card before it shows its prices. Shall I go on without it?
    - Go on without Sheaf
    - Wait, I will send you the prices

    Answer it: https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg
    ");
    let finished = text("finished");
    insta::assert_snapshot!(finished[finished.find("What it made").unwrap()..], @"
    What it made:
    - comparison.xlsx (48.2 kB)
      https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/comparison.xlsx?Expires=1763593500&Signature=x1y2z3
    - screenshots.zip (18.4 MB)
      https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/screenshots.zip?Expires=1763593500&Signature=x1y2z3
    - recording.mp4 (913 MB, too large to be saved)
      https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/recording.mp4?Expires=1763593500&Signature=x1y2z3

    Open the task: https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg
    ");
}

#[test]
fn every_sample_is_a_mail_also_the_hostile_one() {
    for name in SAMPLES {
        let mail = message(content(&Envelope::named(name).unwrap(), None), Vec::new()).formatted();
        let mail = mailparse::parse_mail(&mail).unwrap();
        assert!(!mail.headers.get_first_value("Subject").unwrap().contains(['\r', '\n']), "{name}");
        let html = bodies(&mail, "text/html").remove(0);
        for never in ["<script", "<img", "javascript:alert(document", "\u{202e}", "\0"] {
            assert!(!html.contains(never), "{name}: {never}");
        }
        assert!(mail.headers.get_first_value("Bcc").is_none());
    }
}

#[test]
fn small_files_that_were_saved_are_attached_and_the_rest_is_linked() {
    let mut envelope = Envelope::named("finished").unwrap();
    let mut file = |number: usize, digest: &str, size, name: &str| {
        let file = &mut envelope.files[number];
        (file.status, file.sha256, file.size_bytes, file.name) =
            (FileStatus::Archived, Some(digest.to_owned()), Some(size), name.to_owned());
    };
    file(0, "one", 100, "../../etc/pass\"wd\r\nX-Evil: 1\u{202e}");
    file(1, "gone", 200, "gone.txt");
    file(2, "huge", 5 << 20, "huge.bin");
    let saved = content(&envelope, Some(Arc::new(Saved)));
    assert_eq!(saved.attachments().len(), 2);
    let bytes = message(saved, vec![Some("one".into()), None]).formatted();
    let mail = mailparse::parse_mail(&bytes).unwrap();
    let attached: Vec<_> = mail
        .parts()
        .filter(|part| part.get_content_disposition().disposition == mailparse::DispositionType::Attachment)
        .collect();
    assert_eq!((attached.len(), attached[0].get_body_raw().unwrap()), (1, b"one".to_vec()));
    let disposition = attached[0].get_content_disposition();
    assert_eq!(disposition.params["filename"], "_.._etc_pass_wd X-Evil_ 1");
    let html = bodies(&mail, "text/html").remove(0);
    assert!(html.contains("attached") && html.contains("huge.bin</a> <span>5.2 MB</span>"), "{html}");
    // Without the archive, nothing is attached and everything is named.
    assert_eq!(content(&envelope, None).attachments().len(), 0);
}

#[tokio::test]
async fn an_archive_that_does_not_answer_is_asked_again() {
    let mut envelope = Envelope::named("finished").unwrap();
    let file = &mut envelope.files[0];
    (file.status, file.sha256) = (FileStatus::Archived, Some("stuck".to_owned()));
    let email = Email::build(&config(&json!({})), &parts(Some(Arc::new(Saved)))).unwrap();
    let body = email.render(&envelope).unwrap();
    let failure = email.send(&Outgoing { id: ID, body: &body, attempt: 1 }).await.unwrap_err();
    assert!(!failure.unknown && failure.reason.contains("the archive does not answer"), "{failure}");
}

#[test]
fn a_mail_that_goes_too_early_says_so() {
    let mut value: Value = serde_json::to_value(content(&Envelope::named("finished").unwrap(), None)).unwrap();
    value["out_of_order"] = json!(true);
    let bytes = message(serde_json::from_value(value).unwrap(), Vec::new()).formatted();
    let mail = mailparse::parse_mail(&bytes).unwrap();
    assert!(bodies(&mail, "text/plain")[0].starts_with("[came out of order]"));
    assert!(bodies(&mail, "text/html")[0].contains("⚠️ came out of order"));
}
