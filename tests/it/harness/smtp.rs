//! A real mail server (aiosmtpd, in Python), whose mails a test reads.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mailparse::{MailHeaderMap as _, ParsedMail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

/// A login that it takes, as a URL has it.
pub(crate) const LOGIN: &str = "us%40er:pa%3Ass%20w%C3%B6rd";

/// A running server; it ends with this.
pub(crate) struct Smtp {
    pub(crate) port: u16,
    /// Its certificate, where it has one.
    pub(crate) authority: Option<PathBuf>,
    mails: Arc<Mutex<Vec<Mail>>>,
    seen: watch::Receiver<(usize, usize)>,
    input: tokio::sync::Mutex<(ChildStdin, usize)>,
    _folder: tempfile::TempDir,
    _process: Child,
    _reader: JoinSet<()>,
}

/// A mail, as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) about: Value,
    pub(crate) bytes: Vec<u8>,
}

impl Mail {
    pub(crate) fn parsed(&self) -> ParsedMail<'_> {
        mailparse::parse_mail(&self.bytes).expect("a mail")
    }

    /// A header, which must be there once.
    pub(crate) fn header(&self, name: &str) -> String {
        let values = self.parsed().headers.get_all_values(name);
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].clone()
    }

    /// The bodies of all parts of this type.
    pub(crate) fn parts(&self, kind: &str) -> Vec<String> {
        let mail = self.parsed();
        mail.parts().filter(|part| part.ctype.mimetype == kind).map(|part| part.get_body().expect("text")).collect()
    }
}

/// What a server is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// It offers STARTTLS.
    pub(crate) tls: bool,
    /// It speaks TLS from the first byte.
    pub(crate) wrapped: bool,
    /// It takes nothing without a login.
    pub(crate) login: bool,
}

impl Smtp {
    pub(crate) async fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = json!({"wrapped": manner.wrapped, "login": manner.login});
        let authority = (manner.tls || manner.wrapped).then(|| folder.path().join("certificate.pem"));
        if let Some(certificate) = &authority {
            let key = folder.path().join("key.pem");
            let made = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
                .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
                .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(certificate)
                .output();
            let made = made.await.expect("openssl runs");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            options["certificate"] = json!(certificate);
            options["key"] = json!(key);
        }
        // Debian's own Python has Debian's packages.
        let mut process = Command::new("/usr/bin/python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/harness/smtp_server.py"))
            .arg(options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python runs");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let first = within("the mail server", lines.next_line()).await.expect("text");
        let first = first.expect("it starts: `tests/run` installs python3-aiosmtpd");
        let port = serde_json::from_str::<Value>(&first).expect("JSON")["port"].as_u64().expect("a port");
        let mails: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let (tell, seen) = watch::channel((0, 0));
        let mut reader = JoinSet::new();
        let kept = Arc::clone(&mails);
        reader.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let about: Value = serde_json::from_str(&line).expect("JSON");
                if about["event"] == "mail" {
                    let bytes = BASE64_STANDARD.decode(about["content"].as_str().expect("text")).expect("Base64");
                    kept.lock().expect("no panic").push(Mail { about, bytes });
                    tell.send_modify(|(mails, _)| *mails += 1);
                } else {
                    tell.send_modify(|(_, told)| *told += 1);
                }
            }
        });
        let input = tokio::sync::Mutex::new((process.stdin.take().expect("piped"), 0));
        let port = u16::try_from(port).expect("a port");
        Self { port, authority, mails, seen, input, _folder: folder, _process: process, _reader: reader }
    }

    /// The keys of a destination that sends by it; `scheme` is `smtp` or `smtps`.
    pub(crate) fn section(&self, scheme: &str, login: &str) -> String {
        let at = if login.is_empty() { "" } else { "@" };
        let authority = self.authority.as_ref().map_or_else(String::new, |path| format!("ca_file = \"{}\"\n", path.display()));
        format!(
            "kind = \"email\"\nsmtp_url = \"{scheme}://{login}{at}127.0.0.1:{}\"\nfrom = \"taskhook <hooks@example.com>\"\n\
             to = [\"Ann <ann@example.com>\", \"bob@example.com\"]\n{authority}",
            self.port
        )
    }

    /// What it does with the next mails, one each: `mail …`, `rcpt NAME …` and `data …` answer so, `cut` and `silent` do not
    /// answer the text, anything else is good.
    pub(crate) async fn next(&self, moods: &[&str]) {
        let moods: VecDeque<_> = moods.iter().collect();
        let mut input = self.input.lock().await;
        input.0.write_all(format!("{}\n", json!(moods)).as_bytes()).await.expect("it listens");
        input.1 += 1;
        let told = input.1;
        within("the mail server", self.seen.clone().wait_for(|seen| seen.1 >= told)).await.expect("it lives");
    }

    /// The mails whose text it got, whatever it answered.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().expect("no panic").clone()
    }

    /// Waits until so many have come.
    pub(crate) async fn received(&self, count: usize) {
        within("a mail", self.seen.clone().wait_for(|seen| seen.0 >= count)).await.expect("it lives");
    }
}
