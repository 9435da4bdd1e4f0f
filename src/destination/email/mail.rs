//! The mail: written once, when the delivery is created; put together from that on every attempt, byte for byte the same.
//!
//! What must hold: what becomes a header is one line without control characters, and lettre encodes it. Texts are bounded. A file's
//! name is a name: no path, no sign that a mail program or a shell reads.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment as Part, Mailbox, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::facts::{Facts, File, OUT_OF_ORDER};
use crate::event::{Key, hex};
use crate::markdown::{CUT, escape_html as escape, to_html};
use crate::route::Envelope;
use crate::task::FileStatus;
use crate::text::{one_line, visible};

/// The most characters of a subject.
const MAX_SUBJECT: usize = 150;
/// The most characters of the answer, in each form.
const MAX_ANSWER: usize = 100_000;
/// The most characters of an error and of a question.
const MAX_PART: usize = 4_000;
/// The most files that are listed.
const MAX_FILES: usize = 100;
/// The most files that are attached.
const MAX_ATTACHED: usize = 20;

/// The content of a delivery.
#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    out_of_order: bool,
    subject: String,
    text: String,
    html: Option<String>,
    /// When it was written, in seconds since 1970.
    date: i64,
    /// What all mails of a task refer to.
    thread: Option<String>,
    attachments: Vec<Attachment>,
}

/// A file that goes with the mail.
#[derive(Serialize, Deserialize)]
pub(super) struct Attachment {
    pub(super) sha256: String,
    name: String,
    content_type: Option<String>,
}

impl Content {
    /// The default mail; files of up to `attach_max_bytes` in all are attached.
    pub(super) fn of(envelope: &Envelope, now: Timestamp, attach_max_bytes: u64) -> Self {
        let facts = Facts::of(envelope);
        let task_id = envelope.event.facts.task_id.as_deref().or(envelope.task.as_ref().map(|task| task.id.as_str()));
        let attachments = attachments(&facts.files, attach_max_bytes);
        let is_attached =
            |file: &File<'_>| attachments.iter().any(|attached| Some(&attached.sha256) == file.whole.sha256.as_ref());
        Self {
            out_of_order: envelope.out_of_order,
            subject: subject(&facts.title),
            text: text(&facts, &is_attached),
            html: Some(html(&facts, &is_attached)),
            date: now.as_second(),
            thread: task_id.map(|task_id| hex(&Key::of(&envelope.source, task_id).0)),
            attachments,
        }
    }

    /// Sets the subject; one that comes to nothing stays as it was.
    pub(super) fn set_subject(&mut self, text: &str) {
        let text = subject(text);
        if !text.is_empty() {
            self.subject = text;
        }
    }

    /// Sets what templates wrote. A text of one's own stands alone: the default HTML would say something else.
    pub(super) fn set_texts(&mut self, text: Option<String>, html: Option<String>) {
        match (text, html) {
            (None, None) => {}
            (Some(text), html) => (self.text, self.html) = (visible(&text), html.map(|html| visible(&html))),
            (None, Some(html)) => self.html = Some(visible(&html)),
        }
    }

    pub(super) fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The mail, with the `files` that are to be attached: none stands for one that is gone.
    pub(super) fn message(self, id: Uuid, from: &Mailbox, to: &[Mailbox], files: Vec<Option<Bytes>>) -> Result<Message, String> {
        let domain = from.email.domain();
        let mut builder = Message::builder()
            .from(from.clone())
            .subject(self.subject)
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(self.date).unwrap_or_default()))
            .message_id(Some(format!("<{id}@{domain}>")));
        for mailbox in to {
            builder = builder.to(mailbox.clone());
        }
        if let Some(thread) = self.thread {
            // No mail has this id; that all refer to it makes them one thread, whichever comes first.
            let root = format!("<{thread}.task@{domain}>");
            builder = builder.in_reply_to(root.clone()).references(root);
        }
        // Nobody's automatic reply should answer a program.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        builder = builder.raw_header(HeaderValue::new(name, "auto-generated".to_owned()));
        let (mut text, mut html) = (self.text, self.html);
        if self.out_of_order {
            text = format!("[{OUT_OF_ORDER}]\n\n{text}");
            html = html.map(|html| html.replacen("<!-- notes -->", &format!("<p class=\"note\">⚠️ {OUT_OF_ORDER}</p>"), 1));
        }
        // Boundaries of the delivery, not of chance: each attempt is the same.
        let part = |kind: &str| format!("{kind}-{}", id.simple());
        let plain = SinglePart::plain(text);
        let body = match html {
            Some(html) => MultiPart::alternative().boundary(part("text")).singlepart(plain).singlepart(SinglePart::html(html)),
            None => MultiPart::mixed().boundary(part("text")).singlepart(plain),
        };
        let mut whole = body;
        let files: Vec<_> = self.attachments.into_iter().zip(files).filter_map(|(about, bytes)| Some((about, bytes?))).collect();
        if !files.is_empty() {
            whole = MultiPart::mixed().boundary(part("files")).multipart(whole);
            for (about, bytes) in files {
                let kind = about.content_type.as_deref().and_then(|kind| ContentType::parse(kind).ok());
                let kind = kind.or_else(|| ContentType::parse("application/octet-stream").ok()).ok_or("no content type")?;
                whole = whole.singlepart(Part::new(about.name).body(Vec::from(bytes), kind));
            }
        }
        builder.multipart(whole).map_err(|error| error.to_string())
    }
}

fn subject(text: &str) -> String {
    one_line(text, MAX_SUBJECT)
}

/// The files that go with the mail, smallest first, as long as there is room.
fn attachments(files: &[File<'_>], attach_max_bytes: u64) -> Vec<Attachment> {
    let mut saved: Vec<_> = files
        .iter()
        .filter(|file| file.whole.status == FileStatus::Archived)
        .filter_map(|file| Some((file.whole.size_bytes?, file.whole.sha256.as_ref()?, file)))
        .collect();
    saved.sort_by_key(|(size, ..)| *size);
    let mut room = attach_max_bytes;
    let mut attached = Vec::new();
    for (size, sha256, file) in saved {
        if size > room || attached.len() == MAX_ATTACHED {
            break;
        }
        room -= size;
        let content_type = file.whole.content_type.as_deref().map(|kind| one_line(kind, 100));
        attached.push(Attachment { sha256: sha256.clone(), name: file_name(&file.name), content_type });
    }
    attached
}

/// A name that is a name everywhere.
fn file_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if "/\\:*?\"<>|;'`$".contains(c) { '_' } else { c }).collect();
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if name.is_empty() { "file".to_owned() } else { name.to_owned() }
}

fn cut(text: &str, most: usize) -> String {
    let text = visible(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} {CUT}", &text[..end]),
        None => text,
    }
}

fn line(facts: &Facts<'_>) -> String {
    std::iter::once(&facts.state).chain(&facts.details).map(String::as_str).collect::<Vec<_>>().join(" · ")
}

fn text(facts: &Facts<'_>, is_attached: &dyn Fn(&File<'_>) -> bool) -> String {
    let mut parts = vec![format!("{} {}\n{}", facts.sign, facts.title, line(facts))];
    parts.extend(facts.notes.iter().map(|note| format!("[{note}]")));
    parts.extend(facts.error.map(|error| format!("Why it failed:\n{}", cut(error, MAX_PART))));
    parts.extend(facts.answer.map(|answer| cut(answer, MAX_ANSWER)));
    if let (None, Some(output)) = (facts.answer, &facts.output) {
        parts.push(format!("Its answer:\n{}", cut(output, MAX_ANSWER)));
    }
    if let Some(question) = facts.question {
        let mut asked = vec!["It asks:".to_owned()];
        asked.extend(question.text.as_deref().map(|text| cut(text, MAX_PART)));
        asked.extend(question.options.iter().take(20).map(|option| format!("- {}", one_line(option, 200))));
        parts.push(asked.join("\n"));
    }
    if !facts.files.is_empty() {
        let mut list = vec!["What it made:".to_owned()];
        for file in facts.files.iter().take(MAX_FILES) {
            let about = about(file, is_attached);
            let about = if about.is_empty() { String::new() } else { format!(" ({about})") };
            let link = file.link.as_ref().map_or_else(String::new, |link| format!("\n  {link}"));
            list.push(format!("- {}{about}{link}", file.name));
        }
        list.extend(more(facts));
        parts.push(list.join("\n"));
    }
    parts.extend(facts.page.as_ref().map(|page| format!("{}: {page}", to_do(facts))));
    parts.join("\n\n") + "\n"
}

fn about(file: &File<'_>, is_attached: &dyn Fn(&File<'_>) -> bool) -> String {
    let attached = is_attached(file).then_some("attached").into_iter();
    let known = Some(file.about.as_str()).filter(|about| !about.is_empty());
    known.into_iter().chain(attached).collect::<Vec<_>>().join(", ")
}

fn more(facts: &Facts<'_>) -> Option<String> {
    facts.files.len().checked_sub(MAX_FILES).filter(|more| *more > 0).map(|more| format!("… and {more} more"))
}

fn to_do(facts: &Facts<'_>) -> &'static str {
    if facts.question.is_some() { "Answer it" } else { "Open the task" }
}

/// How the HTML looks, in light and in dark, on a wide and on a narrow screen.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;padding:24px 16px;background:#f4f5f7;color:#1d2129;font:16px/1.5 -apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}\
.card{max-width:640px;margin:0 auto;padding:24px;background:#fff;border:1px solid #e2e5ea;border-radius:10px}\
h1{margin:0 0 4px;font-size:20px;line-height:1.3;overflow-wrap:anywhere}\
h2{margin:24px 0 8px;font-size:14px;color:#5c6470}\
h3{margin:20px 0 8px;font-size:16px}\
p,ul,ol,blockquote,pre,table{margin:0 0 12px}\
li>ul,li>ol{margin:0}\
.facts{color:#5c6470;font-size:14px;margin:0 0 16px}\
.note{padding:8px 12px;background:#fff6df;border-radius:6px;font-size:14px}\
.error{padding:8px 12px;background:#fdecec;border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}\
.answer{overflow-wrap:anywhere}\
pre{padding:12px;background:#f4f5f7;border-radius:6px;overflow-x:auto;white-space:pre-wrap;font-size:13px}\
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:90%}\
blockquote{padding-left:12px;border-left:3px solid #d5d9e0;color:#5c6470}\
table{border-collapse:collapse;font-size:14px}th,td{padding:4px 10px 4px 0;border-bottom:1px solid #e2e5ea;text-align:left;vertical-align:top}\
hr{border:0;border-top:1px solid #e2e5ea;margin:16px 0}\
.files{padding-left:18px}.files span{color:#5c6470;font-size:14px}\
a{color:#1a5fd0}\
.button{display:inline-block;margin-top:12px;padding:10px 18px;background:#1a5fd0;color:#fff;text-decoration:none;border-radius:6px;font-weight:600}\
@media (prefers-color-scheme:dark){\
body{background:#16181c;color:#e6e8eb}.card{background:#1f2227;border-color:#33373e}\
h2,.facts,.files span,blockquote{color:#a3abb6}pre{background:#16181c}.note{background:#3a3117}.error{background:#401f1f}\
a{color:#7fb0ff}.button{background:#3273e0;color:#fff}th,td,hr{border-color:#33373e}blockquote{border-color:#4a505a}}\
@media (max-width:480px){body{padding:0}.card{border:0;border-radius:0;padding:20px 16px}}";

fn html(facts: &Facts<'_>, is_attached: &dyn Fn(&File<'_>) -> bool) -> String {
    let mut body = format!("<h1>{} {}</h1>\n<p class=\"facts\">{}</p>\n", facts.sign, escape(&facts.title), escape(&line(facts)));
    for note in &facts.notes {
        let _ = writeln!(body, "<p class=\"note\">⚠️ {}</p>", escape(note));
    }
    body.push_str("<!-- notes -->");
    if let Some(error) = facts.error {
        let _ = writeln!(body, "<p class=\"error\">{}</p>", escape(&cut(error, MAX_PART)));
    }
    if let Some(answer) = facts.answer {
        let _ = writeln!(body, "<div class=\"answer\">{}</div>", to_html(answer, MAX_ANSWER));
    }
    if let (None, Some(output)) = (facts.answer, &facts.output) {
        let _ = writeln!(body, "<h2>Its answer</h2>\n<pre>{}</pre>", escape(&cut(output, MAX_ANSWER)));
    }
    if let Some(question) = facts.question {
        body.push_str("<h2>It asks</h2>\n");
        body.push_str(&question.text.as_deref().map(|text| to_html(text, MAX_PART)).unwrap_or_default());
        let options: Vec<_> = question.options.iter().take(20).map(|option| escape(&one_line(option, 200))).collect();
        if !options.is_empty() {
            let _ = writeln!(body, "<ul><li>{}</li></ul>", options.join("</li><li>"));
        }
    }
    if !facts.files.is_empty() {
        body.push_str("<h2>What it made</h2>\n<ul class=\"files\">\n");
        for file in facts.files.iter().take(MAX_FILES) {
            let name = escape(&file.name);
            let name = match &file.link {
                Some(link) => format!("<a href=\"{}\" rel=\"noreferrer\">{name}</a>", escape(link)),
                None => name,
            };
            let _ = writeln!(body, "<li>{name} <span>{}</span></li>", escape(&about(file, is_attached)));
        }
        body.push_str("</ul>\n");
        body.extend(more(facts).map(|more| format!("<p>{more}</p>\n")));
    }
    if let Some(page) = &facts.page {
        let _ = writeln!(body, "<a class=\"button\" href=\"{}\" rel=\"noreferrer\">{}</a>", escape(page), to_do(facts));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><style>{STYLE}</style></head>\n<body><div class=\"card\">\n\
         {body}</div></body></html>\n",
        escape(&facts.title)
    )
}
