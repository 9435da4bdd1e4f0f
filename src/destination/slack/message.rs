//! The message: Block Kit, made once, when the delivery is created.
//!
//! What must hold, whatever the envelope says: at most [`MAX_BLOCKS`] blocks, [`SECTION`] characters a section and [`TOTAL`] in all
//! (Slack documents 50 blocks and 3,000 characters, and refuses messages whose blocks come to about 11,000); every piece of text
//! from outside is escaped; a `text` stands beside the blocks, for notifications.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::facts::{Facts, File};
use crate::markdown::{Limits, escape_mrkdwn as escape, to_line, to_mrkdwn, units};
use crate::text::{one_line, visible};

/// The most blocks.
pub(super) const MAX_BLOCKS: usize = 45;
/// The most characters of a section.
pub(super) const SECTION: usize = 2_900;
/// The most characters of all blocks.
pub(super) const TOTAL: usize = 9_000;
/// The most characters of the `text` beside the blocks.
const FALLBACK: usize = 300;
/// The most characters of a question, of an error and of an answer as data.
const PART: usize = 1_200;
/// The most characters of the list of files, and the most files in it.
const FILES: usize = 2_400;
const MOST_FILES: usize = 10;
/// What the blocks need beside the answer at most, when everything else was counted.
const RESERVE: usize = 200;

/// A message of the facts.
pub(super) fn message(facts: &Facts<'_>) -> Value {
    let mut blocks = vec![json!({"type": "header", "text": {"type": "plain_text", "text": heading(facts), "emoji": false}})];
    let mut line = format!("*{}*", escape(&facts.state));
    for detail in &facts.details {
        line.push_str(" · ");
        line.push_str(&escape(detail));
    }
    blocks.push(context(&line));
    if !facts.notes.is_empty() {
        blocks.push(context(&format!("⚠️ {}", facts.notes.join(" · "))));
    }
    if let Some(error) = facts.error {
        blocks.push(section(&format!("*Why it failed*\n{}", escape(&visible_line(error, PART)))));
    }
    let mut after = Vec::new();
    if let Some(question) = facts.question {
        after.extend(asked(question.text.as_deref(), &question.options));
    }
    if let (None, Some(output)) = (facts.answer, &facts.output) {
        after.push(section(&format!("*Its answer*\n```\n{}\n```", preformatted(output))));
    }
    if !facts.files.is_empty() {
        after.push(section(&files(&facts.files)));
    }
    if let Some(page) = &facts.page {
        let label = if facts.question.is_some() { "Answer it" } else { "Open the task" };
        let button = json!({"type": "button", "text": {"type": "plain_text", "text": label, "emoji": false}, "url": page});
        after.push(json!({"type": "actions", "elements": [button]}));
    }
    if let Some(answer) = facts.answer {
        let used: usize = blocks.iter().chain(&after).map(length).sum();
        let room = Limits { section: SECTION, total: TOTAL.saturating_sub(used + RESERVE) };
        blocks.extend(to_mrkdwn(answer, room).sections.iter().map(|text| section(text)));
    }
    blocks.extend(after);
    blocks.truncate(MAX_BLOCKS);
    json!({"text": fallback(facts), "blocks": blocks})
}

/// A message of mrkdwn that a template wrote.
pub(super) fn written(text: &str) -> Value {
    let blocks: Vec<_> = split(&visible(text)).iter().map(|text| section(text)).collect();
    json!({"text": escape(&one_line(&unmarked(text), FALLBACK)), "blocks": blocks})
}

/// The words of mrkdwn: of a link, its label.
fn unmarked(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split('<');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_once('>') {
            Some((link, rest)) => {
                out.push_str(link.rsplit('|').next().unwrap_or_default());
                out.push_str(rest);
            }
            None => out.push_str(part),
        }
    }
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// `message` with a mark that it goes before something earlier.
pub(super) fn out_of_order(message: &mut Value) {
    if let Some(blocks) = message["blocks"].as_array_mut() {
        let at = blocks.len().min(2);
        blocks.insert(at, context(&format!("⚠️ {}", super::super::facts::OUT_OF_ORDER)));
    }
}

fn heading(facts: &Facts<'_>) -> String {
    // The limit of a header is 150. It is plain text, where an escape might be shown as it is written: other signs stand for the two
    // that could begin a mention.
    one_line(&format!("{} {}", facts.sign, facts.title), 145).replace('<', "‹").replace('>', "›")
}

fn fallback(facts: &Facts<'_>) -> String {
    let said = facts.answer.map(|answer| to_line(answer, 160)).filter(|said| !said.is_empty());
    let said = said.map_or_else(String::new, |said| format!(": {said}"));
    escape(&one_line(&format!("{} {} – {}{said}", facts.sign, facts.title, facts.state), FALLBACK))
}

fn asked(text: Option<&str>, options: &[String]) -> Option<Value> {
    let options: Vec<_> = options.iter().take(10).map(|option| format!("• {}", escape(&one_line(option, 100)))).collect();
    let text = text.map(|text| to_mrkdwn(text, Limits { section: PART, total: PART }).sections.concat()).unwrap_or_default();
    if text.is_empty() && options.is_empty() {
        return None;
    }
    let lines: Vec<_> = ["*It asks*".to_owned(), text].into_iter().chain(options).filter(|line| !line.is_empty()).collect();
    Some(section(&lines.join("\n")))
}

fn files(files: &[File<'_>]) -> String {
    let mut list = "*What it made*".to_owned();
    let mut shown = 0;
    for file in files.iter().take(MOST_FILES) {
        let name = escape(&file.name);
        let about = if file.about.is_empty() { String::new() } else { format!(" ({})", escape(&file.about)) };
        let linked = file.link.as_ref().map(|link| format!("\n• <{}|{name}>{about}", escape(link)));
        let plain = format!("\n• {name}{about}");
        let room = |line: &str| units(&list) + units(line) <= FILES;
        // A link that has no room is left out, its name is not.
        let Some(line) = linked.filter(|line| room(line)).or_else(|| Some(plain).filter(|line| room(line))) else { break };
        list.push_str(&line);
        shown += 1;
    }
    if shown < files.len() {
        let _ = write!(list, "\n… and {} more", files.len() - shown);
    }
    list
}

/// JSON for a fence: nothing in it ends the fence.
fn preformatted(text: &str) -> String {
    let text = visible(text).replace("```", "'''");
    let short: String = text.chars().take(PART / 5 * 4).collect();
    let mark = if short.len() < text.len() { format!("\n{}", crate::markdown::CUT) } else { String::new() };
    let mut escaped = escape(&short);
    while units(&escaped) > SECTION - 100 {
        escaped.pop();
    }
    escaped + &mark
}

/// Text of several lines, at most `most` characters.
fn visible_line(text: &str, most: usize) -> String {
    let text = visible(text);
    match text.char_indices().nth(most / 5) {
        Some((end, _)) if text.len() > most => format!("{}{}", &text[..end], crate::markdown::CUT),
        _ => text,
    }
}

/// Cuts mrkdwn into sections, at line ends where it can; what is beyond the limit is cut off with a mark.
fn split(text: &str) -> Vec<String> {
    let (mut sections, mut now, mut total) = (Vec::new(), String::new(), 0);
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let room = (SECTION - units(&now)).min((TOTAL - RESERVE).saturating_sub(total));
            let fits = fitting(rest, room);
            if fits == rest.len() || now.is_empty() && fits > 0 {
                now.push_str(&rest[..fits]);
                total += units(&rest[..fits]);
                rest = &rest[fits..];
            } else if now.is_empty() || total + units(rest) > TOTAL - RESERVE {
                now.push_str(crate::markdown::CUT);
                sections.push(now);
                return sections;
            }
            if !rest.is_empty() {
                sections.push(std::mem::take(&mut now));
            }
        }
    }
    sections.push(now);
    sections.retain(|section| !section.trim().is_empty());
    sections
}

/// How many bytes of `text` are at most `most` units, not within an escape.
fn fitting(text: &str, most: usize) -> usize {
    let (mut length, mut end) = (0, 0);
    for (at, c) in text.char_indices() {
        length += c.len_utf16();
        if length > most {
            let within = text[..at].rfind('&').filter(|amp| !text[*amp..at].contains(';') && at - amp < 6);
            return within.unwrap_or(end);
        }
        end = at + c.len_utf8();
    }
    end
}

fn section(text: &str) -> Value {
    // What looks like a name or a channel stays what it is: only our own links are links.
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}})
}

fn context(text: &str) -> Value {
    json!({"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": true}]})
}

/// What the blocks say, one after the other.
pub(super) fn read(message: &Value) -> String {
    let text = |of: &Value| of["text"]["text"].as_str().unwrap_or_default().to_owned();
    let block = |block: &Value| match &block["elements"][0] {
        Value::Null => text(block),
        button if button["type"] == "button" => format!("[{}] {}", text(button), button["url"].as_str().unwrap_or_default()),
        note => note["text"].as_str().unwrap_or_default().to_owned(),
    };
    message["blocks"].as_array().map(|blocks| blocks.iter().map(block).collect::<Vec<_>>().join("\n\n")).unwrap_or_default()
}

/// The characters of every text in a block.
pub(super) fn length(block: &Value) -> usize {
    match block {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) if name == "text" => units(text),
                other => length(other),
            })
            .sum(),
        Value::Array(items) => items.iter().map(length).sum(),
        _ => 0,
    }
}
