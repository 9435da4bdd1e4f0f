//! Slack's mrkdwn: `*bold*`, `_italic_`, `~struck~`, code, quotes, `<address|label>`. It has no headings, lists or tables, so
//! these become bold lines, bullets and preformatted text.
//!
//! What must hold: `&`, `<` and `>` from outside are escaped, so that `<!channel>` and `<@U1>` are words. A cut never falls into an
//! escape or a link, and what is open there is closed. Lengths are counted in UTF-16 units after escaping, the most that Slack may
//! count.

use pulldown_cmark::{Event, Tag, TagEnd};

use super::signs::{entity, escape, units};
use super::table::Table;
use super::{CUT, link, parser, prepare};
use crate::text::one_line;

/// How much may be written.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one section.
    pub section: usize,
    /// Of all sections together, the mark of a cut included.
    pub total: usize,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pieces, none longer than a section may be; none if there is nothing to say.
    pub sections: Vec<String>,
    /// Whether it is not all.
    pub cut: bool,
}

/// What the marks that may be open and that of a cut need at most.
const RESERVE: usize = 24;

/// `source`, which is Markdown, as mrkdwn.
#[must_use]
pub fn to_mrkdwn(source: &str, limits: Limits) -> Written {
    let (source, cut) = prepare(source);
    let mut writer = Writer::new(limits);
    for event in parser(&source) {
        if writer.cut {
            break;
        }
        writer.event(event);
    }
    writer.finish(cut)
}

/// A link whose label is being read.
struct Anchor {
    address: Option<String>,
    label: String,
}

struct Writer {
    limits: Limits,
    done: Vec<String>,
    now: String,
    /// Of `now`, and of everything.
    length: usize,
    total: usize,
    cut: bool,
    /// The marks that are open, outermost first.
    open: Vec<&'static str>,
    /// Line ends that are due before the next word.
    gap: usize,
    /// The next block stands close to the one before: it follows a heading, or is preformatted, which has space of its own.
    close: bool,
    quotes: usize,
    /// The next number of each open list; none for bullets.
    lists: Vec<Option<u64>>,
    anchor: Option<Anchor>,
    table: Option<Table>,
}

impl Writer {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            done: Vec::new(),
            now: String::new(),
            length: 0,
            total: 0,
            cut: false,
            open: Vec::new(),
            gap: 0,
            close: false,
            quotes: 0,
            lists: Vec::new(),
            anchor: None,
            table: None,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            // Tags are shown as they were written: whoever wrote `<T>` meant it.
            Event::InlineHtml(html) | Event::Html(html) if is_break(&html) => self.line_end(),
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text) => {
                self.text(&text);
            }
            Event::Code(code) => {
                if self.anchor.is_some() || self.table.is_some() {
                    self.text(&code);
                } else {
                    self.toggle("`", true);
                    self.text(&code.replace('`', "'"));
                    self.toggle("`", false);
                }
            }
            Event::FootnoteReference(name) => self.text(&format!("[{name}]")),
            Event::SoftBreak | Event::HardBreak => self.line_end(),
            Event::Rule => {
                self.block();
                self.text("———");
            }
            Event::TaskListMarker(done) => self.text(if done { "☑ " } else { "☐ " }),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.block(),
            Tag::Heading { .. } => {
                self.close = false;
                self.block();
                self.toggle("*", true);
            }
            Tag::BlockQuote(_) => {
                self.block();
                self.quotes += 1;
            }
            // The language of a fence is left out: Slack would show it as code.
            Tag::CodeBlock(_) => {
                self.close = true;
                self.block();
                self.toggle("```", true);
                self.put("\n");
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.block();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.gap = self.gap.max(usize::from(self.length > 0));
                let indent = "    ".repeat(self.lists.len().saturating_sub(1).min(4));
                let sign = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let sign = format!("{indent}{number}. ");
                        *number += 1;
                        sign
                    }
                    // Another sign, should the spaces not be shown.
                    _ => format!("{indent}{} ", if self.lists.len() > 1 { '◦' } else { '•' }),
                };
                self.text(&sign);
            }
            Tag::Strong => self.toggle("*", true),
            Tag::Emphasis => self.toggle("_", true),
            Tag::Strikethrough => self.toggle("~", true),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } if self.anchor.is_none() => {
                self.anchor = Some(Anchor { address: link(&dest_url), label: String::new() });
            }
            Tag::Table(_) => {
                self.close = true;
                self.block();
                self.table = Some(Table::default());
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.row(matches!(tag, Tag::TableHead));
                }
            }
            Tag::TableCell => {
                if let Some(table) = &mut self.table {
                    table.cell();
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::BlockQuote(_) => {
                self.quotes = self.quotes.saturating_sub(1);
                self.gap = 2;
            }
            TagEnd::CodeBlock => {
                self.toggle("```", false);
                self.close = true;
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.gap = 2;
                }
            }
            TagEnd::Heading(_) => {
                self.toggle("*", false);
                self.close = true;
            }
            TagEnd::Strong => self.toggle("*", false),
            TagEnd::Emphasis => self.toggle("_", false),
            TagEnd::Strikethrough => self.toggle("~", false),
            TagEnd::Link | TagEnd::Image => {
                if let Some(anchor) = self.anchor.take() {
                    self.anchor(&anchor);
                }
            }
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.table(&table);
                    self.close = true;
                }
            }
            _ => {}
        }
    }

    /// The next word begins a paragraph; within a list item, at most a line.
    fn block(&mut self) {
        if self.table.is_some() || self.length == 0 {
            return;
        }
        // Behind the sign of an item there is no line end.
        if !["• ", "◦ ", ". "].iter().any(|sign| self.now.ends_with(sign)) {
            let far = self.lists.is_empty() && !std::mem::take(&mut self.close);
            self.gap = self.gap.max(if far { 2 } else { 1 });
        }
    }

    fn line_end(&mut self) {
        if self.anchor.is_some() || self.table.is_some() {
            self.text(" ");
        } else {
            self.gap = self.gap.max(1);
        }
    }

    /// Opens or closes a mark. Bold within bold is bold; within code there are no marks.
    fn toggle(&mut self, mark: &'static str, opens: bool) {
        if self.anchor.is_some() || self.table.is_some() {
            return;
        }
        if opens {
            // Opened again, it is closed again without being written.
            let again = self.open.contains(&mark);
            self.put(if again { "" } else { mark });
            if !self.cut {
                self.open.push(if again { "" } else { mark });
            }
        } else if let Some(last) = self.open.pop() {
            if mark == "```" && !self.now.ends_with('\n') {
                self.raw("\n");
            }
            self.raw(last);
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(anchor) = &mut self.anchor {
            anchor.label.push_str(text);
            return;
        }
        if let Some(table) = &mut self.table {
            return table.text(text);
        }
        let code = self.open.contains(&"```");
        let text = if code { text.replace("```", "'''") } else { text.to_owned() };
        let mut buffer = [0; 4];
        for c in text.chars() {
            match entity(c) {
                Some(entity) => self.put(entity),
                None if c == '\n' && !code => self.gap = self.gap.max(1),
                None => self.put(c.encode_utf8(&mut buffer)),
            }
            if self.cut {
                return;
            }
        }
    }

    fn anchor(&mut self, anchor: &Anchor) {
        let label = one_line(&anchor.label, 200);
        let Some(address) = &anchor.address else {
            return self.text(if label.is_empty() { "(a link that is not shown)" } else { &label });
        };
        if self.table.is_some() {
            return self.text(if label.is_empty() { address } else { &label });
        }
        let whole = if label.is_empty() || label == *address {
            format!("<{}>", escape(address))
        } else {
            format!("<{}|{}>", escape(address), escape(&label))
        };
        // A link is whole or it is its label.
        if self.total + units(&whole) + RESERVE > self.limits.total || units(&whole) + RESERVE > self.limits.section {
            self.text(&label);
        } else {
            self.put(&whole);
        }
    }

    fn table(&mut self, table: &Table) {
        self.toggle("```", true);
        for line in table.lines() {
            self.text(&format!("\n{line}"));
        }
        self.toggle("```", false);
    }

    /// Writes a piece that must not be cut, after the line ends that are due.
    fn put(&mut self, piece: &str) {
        if self.cut {
            return;
        }
        let gap = std::mem::take(&mut self.gap);
        let closing: usize = self.open.iter().map(|mark| mark.len() + 1).sum();
        let length = units(piece);
        if self.total + gap + length + RESERVE > self.limits.total {
            self.cut = true;
            return;
        }
        if self.length > 0 && self.length + gap + length + closing + RESERVE > self.limits.section {
            self.next_section();
        } else if self.length > 0 {
            for _ in 0..gap {
                self.raw("\n");
            }
        }
        if self.quotes > 0 && (self.length == 0 || self.now.ends_with('\n') && gap > 0) {
            self.raw("> ");
        }
        self.raw(piece);
    }

    fn raw(&mut self, piece: &str) {
        self.now.push_str(piece);
        self.length += units(piece);
        self.total += units(piece);
    }

    /// Closes what is open, and opens it again in a new section.
    fn next_section(&mut self) {
        let open = self.open.clone();
        self.close();
        self.done.push(std::mem::take(&mut self.now));
        self.length = 0;
        if self.quotes > 0 {
            self.raw("> ");
        }
        for mark in open {
            self.raw(mark);
            self.open.push(mark);
            if mark == "```" {
                self.raw("\n");
            }
        }
    }

    fn close(&mut self) {
        while let Some(mark) = self.open.pop() {
            if mark == "```" && !self.now.ends_with('\n') {
                self.raw("\n");
            }
            self.raw(mark);
        }
    }

    fn finish(mut self, source_cut: bool) -> Written {
        if let Some(anchor) = self.anchor.take() {
            self.anchor(&anchor);
        }
        self.close();
        let cut = self.cut || source_cut;
        if cut {
            if self.now.ends_with(|c: char| c.is_alphanumeric()) {
                self.raw(" ");
            }
            self.raw(CUT);
        }
        self.done.push(self.now);
        self.done.retain(|section| !section.trim().is_empty());
        Written { sections: self.done, cut }
    }
}

fn is_break(html: &str) -> bool {
    matches!(html.trim().to_ascii_lowercase().as_str(), "<br>" | "<br/>" | "<br />")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Limits = Limits { section: 2_900, total: 9_000 };

    fn written(source: &str) -> String {
        to_mrkdwn(source, WIDE).sections.join("\n---\n")
    }

    #[test]
    fn what_agents_write_is_readable() {
        let source = "# Report\n\nDone! The **answer** is *4*, not ~~5~~: see [the page](https://example.com/a?b=1&c=2).\n\n\
                      1. one `code`\n2. two\n   - inner\n   - [x] done\n\n> quoted\n> twice\n\n```rust\nlet a = 1 < 2;\n```\n\n\
                      | name | size |\n|---|---|\n| a.md | 7 |\n| long name.md | 1,000 |\n\n---\n\nEnd.";
        insta::assert_snapshot!(written(source), @"
        *Report*
        Done! The *answer* is _4_, not ~5~: see <https://example.com/a?b=1&amp;c=2|the page>.

        1. one `code`
        2. two
            ◦ inner
            ◦ ☑ done

        > quoted
        > twice

        ```
        let a = 1 &lt; 2;
        ```
        ```
        name          size
        ------------  -----
        a.md          7
        long name.md  1,000
        ```
        ———

        End.
        ");
    }

    #[test]
    fn mentions_tags_and_bad_links_are_words() {
        let source = "Hi <!channel> <@U123> <https://evil.example|bank> & <b>x</b> [x](javascript:alert(1)) ![p](https://t.example/1.gif) \
                      [<!here>](https://a.example) a\u{202e}b\0c [y](https://a.example/|b>c)";
        insta::assert_snapshot!(written(source), @"Hi &lt;!channel&gt; &lt;@U123&gt; https://evil.example|bank &amp; &lt;b&gt;x&lt;/b&gt; x <https://t.example/1.gif|p> <https://a.example/|&lt;!here&gt;> abc <https://a.example/%7Cb%3Ec|y>");
    }

    #[test]
    fn a_cut_is_marked_and_closes_what_is_open() {
        let limits = Limits { section: 100, total: 60 };
        let written = to_mrkdwn(&format!("**{}end**", "bold & words ".repeat(20)), limits);
        assert!(written.cut && written.sections.len() == 1);
        insta::assert_snapshot!(written.sections[0], @"*bold &amp; words bold &amp; words b*… (cut)");
    }

    #[test]
    fn long_code_goes_on_in_the_next_section() {
        let source = format!("```\n{}```", "a line of code\n".repeat(20));
        let written = to_mrkdwn(&source, Limits { section: 150, total: 9_000 });
        assert!(!written.cut && written.sections.len() > 2);
        for section in &written.sections {
            assert!(section.starts_with("```\n") && section.ends_with("\n```") && units(section) <= 150, "{section}");
        }
    }

    proptest! {
        #[test]
        fn any_text_stays_within_the_limits_and_mentions_nobody(
            source in r"([a-z&<>!@#|*_~`\[\]()\n. -]|\*\*|```\n|\n\n|> |- |https://a\.example|<!channel>|[^\x00]){0,120}",
            section in 60_usize..300,
            total in 60_usize..900,
        ) {
            let written = to_mrkdwn(&source, Limits { section, total });
            let all: usize = written.sections.iter().map(|section| units(section)).sum();
            prop_assert!(all <= total, "{all} > {total}");
            for text in &written.sections {
                prop_assert!(units(text) <= section, "{} > {section}: {text:?}", units(text));
                for (at, _) in text.match_indices('<') {
                    prop_assert!(text[at + 1..].starts_with("http") || text[at + 1..].starts_with("mailto:"), "{text:?}");
                }
            }
        }
    }
}
