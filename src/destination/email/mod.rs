//! `kind = "email"`: a mail, handed to one SMTP server.
//!
//! What must hold: a mail is the same on every attempt, `Message-ID`, date and boundaries included, so that a repeat can be known.
//! All mails of a task are one thread. Nothing from outside becomes a header, a recipient or a tag (`mail.rs`). A password never
//! goes over a connection that others can read. A server that took the text and whose answer was lost may have it: unknown.
//!
//! What an answer means: 4xx is tried again, 5xx to sender, recipient or text is given up on, since it is about this mail; 5xx to
//! the greeting or the login is about the set-up, and is tried again while somebody corrects it. One recipient that does not exist
//! does not keep the mail from the others.

mod mail;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::{Host, Url};

use self::mail::Content;
use super::section::{compile, section};
use super::{Files, MAX_EXCERPT, Outgoing, Parts, Receipt};
use crate::clock::Clock;
use crate::retry::Failure;
use crate::route::Envelope;
use crate::setting::{List, Secret, Size};
use crate::template::{Context, Escape, Template};
use crate::text::one_line;

/// The keys that hold secrets.
pub const SECRETS: &[&str] = &["smtp_url"];

section! {
    /// The `[destinations.NAME]` section of an `email`.
    pub struct Config {
        /// The server: `smtps://user:password@host` (TLS from the start, port 465) or `smtp://…` (STARTTLS, port 587).
        pub smtp_url: Secret,
        /// A PEM file with the authority of the server's certificate, beside those of the system.
        #[serde(default)]
        pub ca_file: Option<PathBuf>,
        /// Whom mails are from, such as `taskhook <hooks@example.com>`.
        pub from: String,
        /// Whom they go to.
        pub to: List<String>,
        /// The subject, instead of the task's title. Mail programs make a thread only of mails with one subject.
        #[serde(default)]
        pub subject: Option<String>,
        /// The text that is sent instead of the default one; there is then no HTML, unless `html_template` makes some.
        #[serde(default)]
        pub template: Option<String>,
        /// The HTML that is sent instead of the default one.
        #[serde(default)]
        pub html_template: Option<String>,
        /// The most bytes of files that are attached to one mail; what does not fit is linked.
        #[serde(default = "attach_max_bytes")]
        pub attach_max_bytes: Size,
    }
    defaults: timeout = 30, concurrency = 2, rate = None
}

fn attach_max_bytes() -> Size {
    Size(5 << 20)
}

impl Config {
    /// Whether a destination can be built of it.
    ///
    /// # Errors
    /// The key that is wrong, and what to write.
    pub(super) fn check(&self) -> Result<(), String> {
        self.server()?;
        self.mailboxes()?;
        self.texts()?;
        if self.attach_max_bytes.0 > 20 << 20 {
            return Err("`attach_max_bytes` is more than 20 MiB, which most servers refuse".to_owned());
        }
        Ok(())
    }

    fn mailboxes(&self) -> Result<(Mailbox, Vec<Mailbox>), String> {
        let parse = |key: &str, text: &str| {
            text.parse::<Mailbox>().map_err(|_| {
                format!("`{key}`: {:?} is no address; write `name@example.com` or `Name <name@example.com>`", one_line(text, 80))
            })
        };
        if self.to.is_empty() {
            return Err("`to` names nobody".to_owned());
        }
        let to = self.to.iter().map(|text| parse("to", text)).collect::<Result<_, _>>()?;
        Ok((parse("from", &self.from)?, to))
    }

    fn texts(&self) -> Result<Texts, String> {
        Ok(Texts {
            subject: compile("subject", self.subject.as_deref(), Escape::None)?,
            text: compile("template", self.template.as_deref(), Escape::None)?,
            html: compile("html_template", self.html_template.as_deref(), Escape::Html)?,
        })
    }

    /// No error shows the URL, which holds a password.
    fn server(&self) -> Result<Server, String> {
        let url = Url::parse(self.smtp_url.expose().trim()).map_err(|error| format!("`smtp_url` is no URL: {error}"))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()).map(|host| host.trim_matches(['[', ']']).to_owned())
        else {
            return Err("`smtp_url` names no host; write `smtps://user:password@mail.example.com`".to_owned());
        };
        let local = is_local(&url);
        let mut wish = None;
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("tls", "required" | "opportunistic" | "none") => wish = Some(value.into_owned()),
                ("tls", _) => return Err("`smtp_url`: `tls` is `required`, `opportunistic` or `none`".to_owned()),
                (name, _) => return Err(format!("`smtp_url`: there is no option {name:?}; there is `tls`")),
            }
        }
        let security = match (url.scheme(), wish.as_deref()) {
            ("smtps", None) => Security::Wrapped,
            ("smtps", Some(_)) => {
                return Err("`smtp_url`: `tls` does not go with `smtps`, which is TLS from the start".to_owned());
            }
            ("smtp", Some("required")) => Security::Required,
            ("smtp", Some("none")) => Security::None,
            ("smtp", Some(_)) => Security::Opportunistic,
            ("smtp", None) if local => Security::Opportunistic,
            ("smtp", None) => Security::Required,
            (scheme, _) => return Err(format!("`smtp_url` must begin with smtps:// or smtp://, not {scheme}:")),
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let credentials = match (decode(url.username()), url.password().map(decode).transpose()) {
            (Ok(user), Ok(None)) if user.is_empty() => None,
            (Ok(user), Ok(Some(password))) if !user.is_empty() => Some(Credentials::new(user, password)),
            (Ok(_), Ok(_)) => return Err("`smtp_url` has a user without a password, or the other way round".to_owned()),
            _ => return Err("`smtp_url`: user or password are no UTF-8 once decoded".to_owned()),
        };
        if credentials.is_some() && !local && matches!(security, Security::None | Security::Opportunistic) {
            return Err("`smtp_url`: with `tls` like that the password could be read on its way; leave `tls` out".to_owned());
        }
        let port = url.port().unwrap_or(match security {
            Security::Wrapped => 465,
            Security::Required | Security::Opportunistic => 587,
            Security::None => 25,
        });
        Ok(Server { host, port, security, credentials })
    }

    fn tls(&self, host: &str) -> Result<TlsParameters, String> {
        let mut tls = TlsParameters::builder(host.to_owned());
        if let Some(path) = &self.ca_file {
            let told = |what: String| format!("`ca_file`: {}: {what}", path.display());
            let pem = std::fs::read(path).map_err(|error| told(error.to_string()))?;
            tls = tls.add_root_certificate(Certificate::from_pem(&pem).map_err(|_| told("holds no certificate".to_owned()))?);
        }
        tls.build().map_err(|error| format!("cannot set TLS up: {error}"))
    }
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        // The schemes of mail are not special to the URL standard: their addresses come as names.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    /// TLS from the first byte.
    Wrapped,
    /// STARTTLS, or nothing is sent.
    Required,
    /// STARTTLS where the server offers it.
    Opportunistic,
    /// None.
    None,
}

struct Server {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<Credentials>,
}

struct Texts {
    subject: Option<Template>,
    text: Option<Template>,
    html: Option<Template>,
}

/// An `email` destination.
pub(super) struct Email {
    server: Server,
    tls: TlsParameters,
    from: Mailbox,
    to: Vec<Mailbox>,
    texts: Texts,
    attach_max_bytes: u64,
    files: Option<Arc<dyn Files>>,
    timeout: Duration,
    clock: Clock,
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email").field("host", &self.server.host).field("port", &self.server.port).finish_non_exhaustive()
    }
}

impl Email {
    pub(super) fn build(config: &Config, parts: &Parts) -> Result<Self, String> {
        let server = config.server()?;
        let (from, to) = config.mailboxes()?;
        Ok(Self {
            tls: config.tls(&server.host)?,
            server,
            from,
            to,
            texts: config.texts()?,
            attach_max_bytes: config.attach_max_bytes.0,
            files: parts.files.clone(),
            timeout: config.timeout,
            clock: parts.clock.clone(),
        })
    }

    pub(super) fn render(&self, envelope: &Envelope) -> Result<String, String> {
        let most = if self.files.is_some() { self.attach_max_bytes } else { 0 };
        let mut content = Content::of(envelope, self.clock.now(), most);
        let known = Context::of(envelope);
        let write = |key: &str, template: &Template| template.render(&known).map_err(|error| format!("`{key}`: {error}"));
        if let Some(subject) = &self.texts.subject {
            content.set_subject(&write("subject", subject)?);
        }
        let text = self.texts.text.as_ref().map(|text| write("template", text)).transpose()?;
        let html = self.texts.html.as_ref().map(|html| write("html_template", html)).transpose()?;
        content.set_texts(text, html);
        serde_json::to_string(&content).map_err(|error| error.to_string())
    }

    pub(super) async fn send(&self, delivery: &Outgoing<'_>) -> Result<Receipt, Failure> {
        let content: Content = serde_json::from_str(delivery.body)
            .map_err(|_| Failure::give_up("the content was made for another kind of destination"))?;
        let mut files = Vec::new();
        for attachment in content.attachments() {
            let Some(store) = &self.files else { break };
            let read = store.read(&attachment.sha256).await;
            files.push(
                read.map_err(|reason| {
                    Failure::retry(format!("cannot read a file to attach: {}", one_line(&reason, MAX_EXCERPT)))
                })?,
            );
        }
        let message = content
            .message(delivery.id, &self.from, &self.to, files)
            .map_err(|problem| Failure::give_up(format!("the mail cannot be written: {}", one_line(&problem, MAX_EXCERPT))))?;
        // Set once the text is on its way.
        let handed_over = AtomicBool::new(false);
        let bytes = message.formatted();
        let session = self.session(&bytes, &handed_over);
        let late = |_| {
            let failure = Failure::retry(format!("no answer within {} s", self.timeout.as_secs_f64()));
            Err(if handed_over.load(Ordering::Relaxed) { failure.with_unknown_outcome() } else { failure })
        };
        tokio::time::timeout(self.timeout, session).await.unwrap_or_else(late)
    }

    /// Connects, and logs in where the URL says who we are.
    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let Server { host, port, security, credentials } = &self.server;
        let told = |error: smtp::Error| one_line(&error.to_string(), MAX_EXCERPT);
        let name = ClientId::default();
        let wrapped = (*security == Security::Wrapped).then(|| self.tls.clone());
        let connecting = AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), Some(self.timeout), &name, wrapped, None);
        let mut connection = connecting.await.map_err(|error| format!("cannot connect: {}", told(error)))?;
        let offered = connection.can_starttls();
        if *security == Security::Required && !offered {
            connection.abort().await;
            return Err(
                "the server offers no STARTTLS, without which nothing is sent; use smtps://, or `?tls=none` in `smtp_url`"
                    .to_owned(),
            );
        }
        if offered && matches!(security, Security::Required | Security::Opportunistic) {
            connection.starttls(self.tls.clone(), &name).await.map_err(|error| format!("STARTTLS failed: {}", told(error)))?;
        }
        if let Some(credentials) = credentials
            && let Err(error) = connection.auth(DEFAULT_MECHANISMS, credentials).await
        {
            let refused = error.is_permanent();
            connection.abort().await;
            let hint = if refused { "; correct the user and password in `smtp_url`" } else { "" };
            return Err(format!("the login failed: {}{hint}", told(error)));
        }
        Ok(connection)
    }

    async fn session(&self, message: &[u8], handed_over: &AtomicBool) -> Result<Receipt, Failure> {
        let mut connection = self.connect().await.map_err(Failure::retry)?;
        let refusal = |what: &str, error: &smtp::Error| {
            let reason = format!("{what}: {}", one_line(&error.to_string(), MAX_EXCERPT));
            if error.is_permanent() { Failure::give_up(reason) } else { Failure::retry(reason) }
        };
        let mut options = Vec::new();
        if !message.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if let Err(error) = connection.command(Mail::new(Some(self.from.email.clone()), options)).await {
            connection.abort().await;
            return Err(refusal("the server refuses the sender", &error));
        }
        let mut refused = Vec::new();
        for to in &self.to {
            match connection.command(Rcpt::new(to.email.clone(), Vec::new())).await {
                Ok(_) => {}
                // Nobody gets it yet: else the others would get it again with each try.
                Err(error) if !error.is_permanent() => {
                    connection.abort().await;
                    return Err(refusal(&format!("the server does not take mail for {} now", to.email), &error));
                }
                Err(error) => refused.push((to.email.clone(), error)),
            }
        }
        if refused.len() == self.to.len()
            && let Some((address, error)) = refused.first()
        {
            connection.abort().await;
            return Err(refusal(&format!("the server refuses {address}"), error));
        }
        if let Err(error) = connection.command(Data).await {
            connection.abort().await;
            return Err(refusal("the server takes no text", &error));
        }
        handed_over.store(true, Ordering::Relaxed);
        let answer = match connection.message(message).await {
            Ok(answer) => answer,
            Err(error) if error.status().is_some() => {
                connection.abort().await;
                return Err(refusal("the server refuses the mail", &error));
            }
            Err(error) => {
                let reason =
                    format!("the connection broke after the mail was sent: {}", one_line(&error.to_string(), MAX_EXCERPT));
                return Err(Failure::retry(reason).with_unknown_outcome());
            }
        };
        // It has the mail, whatever it says to a farewell.
        let _ = connection.quit().await;
        let said = one_line(&format!("{} {}", answer.code(), answer.first_line().unwrap_or_default()), MAX_EXCERPT);
        let mut detail = said;
        for (address, error) in &refused {
            tracing::warn!(recipient = %address, "a mail went to the others only: {}", one_line(&error.to_string(), MAX_EXCERPT));
            let _ = write!(detail, "; not to {address}: {}", one_line(&error.to_string(), MAX_EXCERPT));
        }
        Ok(Receipt { detail })
    }

    pub(super) fn preview(&self, content: &Value) -> Value {
        let to: Vec<_> = self.to.iter().map(ToString::to_string).collect();
        let html = content["html"].as_str().map(|html| format!("{} bytes", html.len()));
        let attached = content["attachments"].as_array().map_or(0, Vec::len);
        json!({"from": self.from.to_string(), "to": to.join(", "), "subject": content["subject"], "text": content["text"],
            "html": html, "attached": attached})
    }

    /// Connects, says hello and logs in.
    pub(super) async fn try_out(&self) -> Result<String, String> {
        let connecting = tokio::time::timeout(self.timeout, self.connect());
        let mut connection = connecting.await.map_err(|_| format!("no answer within {} s", self.timeout.as_secs_f64()))??;
        let secure = if connection.is_encrypted() { "with TLS" } else { "without TLS" };
        let login = if self.server.credentials.is_some() { "takes our login" } else { "asks for no login" };
        let _ = connection.quit().await;
        Ok(format!("{}:{} answers {secure} and {login}", self.server.host, self.server.port))
    }
}
