//! HTML for mail: a few plain tags, every text escaped, no picture, no script, no style from outside.

use std::fmt::Write as _;

use pulldown_cmark::{Event, Tag, TagEnd};

use super::{CUT, link, parser, prepare};

/// `text` fit to stand between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `source`, which is Markdown, as HTML with at most `max` characters of text.
#[must_use]
pub fn to_html(source: &str, max: usize) -> String {
    let (source, mut cut) = prepare(source);
    let (mut html, mut open, mut left) = (String::new(), Vec::new(), max);
    let mut head = false;
    for event in parser(&source) {
        match event {
            Event::Start(tag) => {
                head |= matches!(tag, Tag::TableHead);
                let (begin, end) = tags(&tag, head);
                html.push_str(&begin);
                open.push(end);
            }
            Event::End(tag) => {
                head &= !matches!(tag, TagEnd::TableHead);
                html.push_str(open.pop().unwrap_or_default());
            }
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text) => {
                cut |= !write(&mut html, &text, &mut left);
            }
            Event::Code(code) => {
                html.push_str("<code>");
                cut |= !write(&mut html, &code, &mut left);
                html.push_str("</code>");
            }
            Event::FootnoteReference(name) => cut |= !write(&mut html, &format!("[{name}]"), &mut left),
            Event::SoftBreak => html.push('\n'),
            Event::HardBreak => html.push_str("<br>\n"),
            Event::Rule => html.push_str("<hr>\n"),
            Event::TaskListMarker(done) => html.push_str(if done { "☑ " } else { "☐ " }),
        }
        if cut && left == 0 {
            break;
        }
    }
    while let Some(end) = open.pop() {
        html.push_str(end);
    }
    if cut {
        let _ = writeln!(html, "<p>{CUT}</p>");
    }
    html
}

/// Writes as much of `text` as is left; whether that was all.
fn write(html: &mut String, text: &str, left: &mut usize) -> bool {
    let end = text.char_indices().nth(*left).map(|(at, _)| at);
    let part = &text[..end.unwrap_or(text.len())];
    *left -= part.chars().count();
    html.push_str(&escape(part));
    end.is_none()
}

/// What begins and what ends an element.
fn tags(tag: &Tag<'_>, head: bool) -> (String, &'static str) {
    let plain = |begin: &str, end| (begin.to_owned(), end);
    match tag {
        Tag::Paragraph | Tag::HtmlBlock => plain("<p>", "</p>\n"),
        // The mail has a heading of its own above these.
        Tag::Heading { .. } => plain("<h3>", "</h3>\n"),
        Tag::BlockQuote(_) => plain("<blockquote>\n", "</blockquote>\n"),
        Tag::CodeBlock(_) => plain("<pre>", "</pre>\n"),
        Tag::List(None) => plain("<ul>\n", "</ul>\n"),
        Tag::List(Some(first)) => (format!("<ol start=\"{first}\">\n"), "</ol>\n"),
        Tag::Item => plain("<li>", "</li>\n"),
        Tag::Emphasis => plain("<em>", "</em>"),
        Tag::Strong => plain("<strong>", "</strong>"),
        Tag::Strikethrough => plain("<del>", "</del>"),
        // A picture from elsewhere tells its owner who reads: it is a link.
        Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => match link(dest_url) {
            Some(address) => (format!("<a href=\"{}\" rel=\"noreferrer\">", escape(&address)), "</a>"),
            None => plain("", ""),
        },
        Tag::Table(_) => plain("<table>\n", "</table>\n"),
        Tag::TableHead | Tag::TableRow => plain("<tr>", "</tr>\n"),
        Tag::TableCell if head => plain("<th>", "</th>"),
        Tag::TableCell => plain("<td>", "</td>"),
        _ => plain("", ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markdown_becomes_plain_tags() {
        let source = "# Report\n\nThe **answer** is *4*: [page](https://example.com/?a=1&b=2)\n\n1. one\n2. `two`\n\n\
                      | a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx < y\n```\n> said";
        insta::assert_snapshot!(to_html(source, 1_000), @r#"
        <h3>Report</h3>
        <p>The <strong>answer</strong> is <em>4</em>: <a href="https://example.com/?a=1&amp;b=2" rel="noreferrer">page</a></p>
        <ol start="1">
        <li>one</li>
        <li><code>two</code></li>
        </ol>
        <table>
        <tr><th>a</th><th>b</th></tr>
        <tr><td>1</td><td>2</td></tr>
        </table>
        <pre>x &lt; y
        </pre>
        <blockquote>
        <p>said</p>
        </blockquote>
        "#);
    }

    #[test]
    fn tags_scripts_and_pictures_from_outside_are_text() {
        let source = "<script>alert(1)</script>\n\nHi <img src=x onerror=alert(1)> [x](javascript:alert(1)) ![p](https://t.example/1.gif) \
                      [q](https://a.example/\"onclick=\"x)";
        insta::assert_snapshot!(to_html(source, 1_000), @r#"
        <p>&lt;script&gt;alert(1)&lt;/script&gt;
        </p>
        <p>Hi &lt;img src=x onerror=alert(1)&gt; x <a href="https://t.example/1.gif" rel="noreferrer">p</a> <a href="https://a.example/%22onclick=%22x" rel="noreferrer">q</a></p>
        "#);
    }

    #[test]
    fn a_cut_closes_every_tag_and_shows() {
        insta::assert_snapshot!(to_html("> **long words**", 6), @"
        <blockquote>
        <p><strong>long w</strong></p>
        </blockquote>
        <p>… (cut)</p>
        ");
    }

    proptest! {
        #[test]
        fn only_our_own_tags_come_out(source in r"([a-z<>/&'=()\[\]!*_`#|\n. -]|<script>|https://a\.example|\*\*|\n\n|> |- |[^\x00]){0,80}", max in 0_usize..60) {
            let html = to_html(&source, max);
            for (at, _) in html.match_indices('<') {
                let name: String = html[at + 1..].trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
                let known = ["p", "h3", "blockquote", "pre", "ul", "ol", "li", "em", "strong", "del", "a", "table", "tr", "th", "td", "code", "br", "hr"];
                prop_assert!(known.contains(&name.as_str()), "{html}");
            }
            prop_assert!(!html.contains("href=\"javascript"));
        }
    }
}
