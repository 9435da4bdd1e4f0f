//! Just enough reading of Rust to tell code from comments, text and tests.

use std::ops::Range;

/// One source file, read once.
pub(super) struct Source<'a> {
    text: &'a str,
    /// As long as `text`, with comments, text in quotes and test items blanked out. A quoted path (`with = "crate::clock::optional"`)
    /// stays: it is an import.
    code: String,
    tests: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut code = text.as_bytes().to_vec();
        for quiet in quiet_ranges(text) {
            if !text[quiet.clone()].starts_with("\"crate::") {
                blank(&mut code, quiet);
            }
        }
        let bare = String::from_utf8(code.clone()).expect("whole characters are blanked");
        let tests = test_items(&bare);
        for item in &tests {
            blank(&mut code, item.clone());
        }
        Self { text, code: String::from_utf8(code).expect("whole characters are blanked"), tests }
    }

    /// The top-level modules of this crate that the code names, each with its line.
    pub(super) fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            // `$crate::` in a macro is this crate as well; `my_crate::` is not.
            if self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + "crate::".len()..];
            let names = if rest.starts_with('{') { first_names(group(rest)) } else { vec![name(rest)] };
            imports.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name.to_owned())));
        }
        imports
    }

    /// How many lines there are outside of test items.
    pub(super) fn lines_without_tests(&self) -> usize {
        let mut at = 0;
        let starts = self.text.split_inclusive('\n').map(|line| {
            at += line.len();
            at - line.len()
        });
        starts.filter(|start| !self.tests.iter().any(|item| item.contains(start))).count()
    }
}

fn blank(code: &mut [u8], range: Range<usize>) {
    for byte in &mut code[range] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// The name that `text` begins with.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// What stands between the brace that `text` begins with and its partner.
fn group(text: &str) -> &str {
    &text[1..closing(text, 0).map_or(text.len(), |end| end - 1)]
}

/// The first names of the members of a `use` group: `a::{b, c}, d` gives `a`, `d`.
fn first_names(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// Where the block that opens at or after `from` ends, one past its brace.
fn closing(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(from + at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The items under `#[cfg(test)]`: up to the end of their block, or to the semicolon of an item without one.
fn test_items(code: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mut items: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices(MARK) {
        let body = start + MARK.len();
        let end = match code[body..].find(['{', ';']).map(|at| body + at) {
            Some(at) if code[at..].starts_with(';') => at + 1,
            Some(at) => closing(code, at).unwrap_or(code.len()),
            None => code.len(),
        };
        items.push(start..end);
    }
    items
}

/// Comments, and literals with their quotes.
fn quiet_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let end = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            '\'' => character(rest),
            'r' if !text[..at].ends_with(|c: char| c.is_alphanumeric() && !matches!(c, 'b' | 'c') || c == '_') => {
                raw_string(rest)
            }
            _ => 0,
        };
        if end > 0 {
            ranges.push(at..at + end);
        }
        at += end.max(c.len_utf8());
    }
    ranges
}

/// The length of the comment that `rest` begins with; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let (step, change) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of the literal that `rest` begins with, up to the `quote` that no backslash precedes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the character that `rest` begins with; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut inner = rest.chars().skip(1);
    match (inner.next(), inner.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 0,
    }
}

/// The length of the raw string that `rest` begins with; 0 if it is a word that begins with r.
fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let (open, close) = (1 + hashes + 1, format!("\"{}", "#".repeat(hashes)));
    rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
}

fn names(text: &str) -> Vec<String> {
    Source::new(text).imports().into_iter().map(|(_, name)| name).collect()
}

#[test]
fn imports_are_read_in_every_form() {
    assert_eq!(names("use crate::task;\nuse crate::event::Facts as F;"), ["task", "event"]);
    assert_eq!(
        names("use crate::{\n    admin,\n    store::{self, Store, sqlite::{A, B}},\n    task as t,\n};"),
        ["admin", "store", "task"]
    );
    assert_eq!(names("fn f() -> crate::task::State { crate::clock::now() }"), ["task", "clock"]);
    assert_eq!(names("#[serde(with = \"crate::clock::optional\")]"), ["clock"]);
    assert_eq!(names("pub(in crate::provider) struct A;"), ["provider"]);
    assert_eq!(names("use my_crate::cli;"), [""; 0]);
}

#[test]
fn an_import_has_its_line() {
    assert_eq!(Source::new("/* one\ntwo */\nuse crate::task;").imports(), [(3, "task".to_owned())]);
}

#[test]
fn comments_and_text_import_nothing() {
    assert_eq!(names("// use crate::a;\n//! [`crate::b`]\n/* crate::c /* crate::d */ crate::e */"), [""; 0]);
    assert_eq!(
        names(r##"let a = "see crate::a \" crate::b"; let c = r#"" crate::c "#; let d = b"crate"; use crate::z;"##),
        ["z"]
    );
    assert_eq!(names("fn f<'a>(x: &'a str) -> char { let _ = '\"'; let _ = '\\''; let _ = '{'; crate::z::g(x) }"), ["z"]);
}

#[test]
fn test_items_import_nothing() {
    assert_eq!(names("#[cfg(test)]\nmod tests { use crate::a; fn f() { \"}\"; '}'; use crate::b; } }\nuse crate::z;"), ["z"]);
    assert_eq!(names("#[cfg(test)]\nuse crate::a;\nuse crate::z;\n#[cfg(test)]\nmod tests;\nuse crate::y;"), ["z", "y"]);
}

#[test]
fn only_lines_outside_of_tests_count() {
    assert_eq!(Source::new("one\n\n// three\n#[cfg(test)]\nmod tests {\n  // {\n}\neight").lines_without_tests(), 4);
}
