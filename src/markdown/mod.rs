//! Markdown, as agents write it, made into what people read: Slack's mrkdwn, HTML, one line of plain text.
//!
//! What must hold: the text is third-party. Nothing of it becomes a mention, a tag or an attribute; a link leads to `http`, `https`
//! or `mailto` and nowhere else, and shows no picture from elsewhere; what reorders or hides text is left out. Whatever is written
//! is within the limit that the caller gives, and a cut shows.
//!
//! Parsing is `pulldown-cmark`'s (`CommonMark`, tables, strikethrough, task lists); the two writers here only walk its events.

mod html;
mod mrkdwn;
mod signs;
mod table;

use pulldown_cmark::{Event, Options, Parser, TagEnd};
use url::Url;

pub use self::html::{escape as escape_html, to_html};
pub use self::mrkdwn::{Limits, Written, to_mrkdwn};
pub use self::signs::{escape as escape_mrkdwn, units};
use crate::text::{one_line, visible};

/// What stands where a text was cut.
pub const CUT: &str = "… (cut)";

/// The longest address that becomes a link, in characters: signed links of files are about 1,000.
const MAX_LINK: usize = 2_000;
/// The most bytes that are parsed: no destination shows more.
const MAX_SOURCE: usize = 256 << 10;

/// The beginning of `source` that is worth parsing, without what cannot be seen. The second says whether that is not all.
fn prepare(source: &str) -> (String, bool) {
    let mut end = source.len().min(MAX_SOURCE);
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    (visible(&source[..end]), end < source.len())
}

fn parser(source: &str) -> Parser<'_> {
    Parser::new_ext(source, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS)
}

/// `address` in the one form that is safe to print as a link: `http`, `https` or `mailto`, everything else percent-encoded.
/// None for any other scheme, for one with a user or password (it shows another host than it leads to), and for one too long.
#[must_use]
pub fn link(address: &str) -> Option<String> {
    let url = Url::parse(address.trim()).ok()?;
    let known = matches!(url.scheme(), "http" | "https") && url.has_host() || url.scheme() == "mailto";
    if !known || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    // What the parser leaves as it is and the writers use as signs of their own.
    let text = url.as_str().replace('|', "%7C").replace('<', "%3C").replace('>', "%3E").replace('"', "%22").replace('\'', "%27");
    (text.len() <= MAX_LINK).then_some(text)
}

/// The words of `source` on one line of at most `max` characters.
#[must_use]
pub fn to_line(source: &str, max: usize) -> String {
    let (source, _) = prepare(source);
    let mut line = String::new();
    for event in parser(&source) {
        match event {
            Event::Text(text) | Event::Code(text) | Event::Html(text) | Event::InlineHtml(text) => line.push_str(&text),
            Event::End(TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough | TagEnd::Link | TagEnd::Image) => {}
            Event::SoftBreak | Event::HardBreak | Event::Rule | Event::End(_) => line.push(' '),
            _ => {}
        }
        if line.len() > max.saturating_mul(8) {
            break;
        }
    }
    one_line(&line, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_and_mail_addresses_are_links() {
        for (address, safe) in [
            ("https://example.com/a b?x=1&y=<2>|3", Some("https://example.com/a%20b?x=1&y=%3C2%3E%7C3")),
            ("mailto:a@example.com", Some("mailto:a@example.com")),
            ("javascript:alert(1)", None),
            ("JAVASCRIPT:alert(1)", None),
            ("data:text/html,x", None),
            ("file:///etc/passwd", None),
            ("https://bank.example@evil.example/", None),
            ("//example.com", None),
            ("https://ex\u{202e}ample.com/", None),
            ("", None),
        ] {
            assert_eq!(link(address).as_deref(), safe, "{address}");
        }
        assert_eq!(link(&format!("https://example.com/{}", "x".repeat(MAX_LINK))), None);
    }

    #[test]
    fn a_line_has_the_words_and_no_signs() {
        assert_eq!(
            to_line("# Title\n\nDone! **4** is [the answer](https://x.example).\n\n- a\n- b", 100),
            "Title Done! 4 is the answer. a b"
        );
        assert_eq!(to_line("one two three", 7), "one tw…");
    }
}
