//! Finds what an expression uses, and where: names with the members taken of them, filters, tests, functions, methods.
//!
//! It reads only text that minijinja has parsed, so it needs no grammar: it walks over the tokens, and knows where a name can
//! stand. Strings are skipped, keywords and the names of keyword arguments are not names.

/// Something that an expression uses.
#[derive(Debug, PartialEq)]
pub(super) struct Found<'s> {
    /// Where it begins, in bytes.
    pub(super) offset: usize,
    pub(super) what: Use<'s>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Use<'s> {
    /// A name and the steps down from it, each with its place.
    Name(Vec<(Step<'s>, usize)>),
    Filter(&'s str),
    Test(&'s str),
    Function(&'s str),
    Method(&'s str),
}

/// One step of a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step<'s> {
    /// `.name`, `["name"]`, or the first word.
    Member(&'s str),
    /// `[0]` or `.0`.
    Element,
    /// `[something]`.
    Computed,
    /// `[from:to]`.
    Part,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'s> {
    Word(&'s str),
    /// What is between the quotes, as written.
    Text(&'s str),
    Number,
    Sign(char),
}

const KEYWORDS: &[&str] = &["and", "or", "not", "in", "if", "else", "true", "True", "false", "False", "none", "None"];

/// What `source` uses, in the order of the text.
pub(super) fn scan(source: &str) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    walk(&tokens(source), &mut found);
    found.sort_by_key(|found| found.offset);
    found
}

/// How many names and operators `source` has (values and commas do not count), and how deep its brackets go.
pub(super) fn extent(source: &str) -> (usize, usize) {
    let (mut parts, mut depth, mut deepest) = (0_usize, 0_usize, 0_usize);
    for (token, _) in tokens(source) {
        match token {
            Token::Text(_) | Token::Number | Token::Sign(',') => continue,
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Token::Word(_) | Token::Sign(_) => {}
        }
        parts += 1;
        deepest = deepest.max(depth);
    }
    (parts, deepest)
}

/// The texts that stand alone as an alternative of the whole expression, with their places.
pub(super) fn bare_texts(source: &str) -> Vec<(usize, &str)> {
    let tokens = tokens(source);
    let (mut depth, mut bare) = (0_usize, Vec::new());
    for (at, (token, offset)) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Token::Text(text) if depth == 0 => {
                let joins = |token: Option<&(Token<'_>, usize)>| matches!(token, Some((Token::Word("and" | "or"), _)));
                let before = at.checked_sub(1).and_then(|at| tokens.get(at));
                let after = tokens.get(at + 1);
                if (joins(before) || before.is_none()) && (joins(after) || after.is_none()) {
                    bare.push((*offset, *text));
                }
            }
            _ => {}
        }
    }
    bare
}

fn tokens(source: &str) -> Vec<(Token<'_>, usize)> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (token, length) = match first {
            '"' | '\'' => {
                let inside = text_length(&rest[1..], first);
                (Some(Token::Text(&rest[1..=inside])), (inside + 2).min(rest.len()))
            }
            _ if first.is_ascii_digit() => (Some(Token::Number), number_length(rest, tokens.last())),
            _ if first == '_' || first.is_alphabetic() => {
                let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                (Some(Token::Word(&rest[..length])), length)
            }
            _ if first.is_whitespace() => (None, first.len_utf8()),
            _ => (Some(Token::Sign(first)), first.len_utf8()),
        };
        tokens.extend(token.map(|token| (token, at)));
        at += length;
    }
    tokens
}

/// The length of a text up to its closing quote.
fn text_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    let closes = |c: char| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    };
    rest.find(closes).unwrap_or(rest.len())
}

/// The length of a number; behind a dot (`files.0.name`) a dot does not belong to it.
fn number_length(rest: &str, before: Option<&(Token<'_>, usize)>) -> usize {
    let index = matches!(before, Some((Token::Sign('.'), _)));
    let bytes = rest.as_bytes();
    let mut length = 0;
    while let Some(byte) = bytes.get(length) {
        let fraction = *byte == b'.' && !index && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
        if !(byte.is_ascii_alphanumeric() || *byte == b'_' || fraction) {
            break;
        }
        length += 1;
    }
    length
}

fn walk<'s>(tokens: &[(Token<'s>, usize)], found: &mut Vec<Found<'s>>) {
    let token = |at: usize| tokens.get(at).map(|(token, _)| *token);
    let mut at = 0;
    while let Some(&(current, offset)) = tokens.get(at) {
        at += 1;
        match current {
            Token::Sign('|') => {
                if let Some(&(Token::Word(name), offset)) = tokens.get(at) {
                    found.push(Found { offset, what: Use::Filter(name) });
                    at += 1;
                }
            }
            Token::Word("is") => {
                at += usize::from(token(at) == Some(Token::Word("not")));
                if let Some(&(Token::Word(name), offset)) = tokens.get(at) {
                    found.push(Found { offset, what: Use::Test(name) });
                    at += 1;
                }
            }
            // A member of what a parenthesis or a filter gives: not followed, but it can be no call.
            Token::Sign('.') => {
                if let (Some(&(Token::Word(name), offset)), Some(Token::Sign('('))) = (tokens.get(at), token(at + 1)) {
                    found.push(Found { offset, what: Use::Method(name) });
                }
                at += 1;
            }
            Token::Word(name) if KEYWORDS.contains(&name) => {}
            Token::Word(_) if token(at) == Some(Token::Sign('=')) && !doubled(tokens, at) => {}
            Token::Word(name) if token(at) == Some(Token::Sign('(')) => {
                found.push(Found { offset, what: Use::Function(name) });
            }
            Token::Word(name) => {
                let mut steps = vec![(Step::Member(name), offset)];
                at = follow(tokens, at, &mut steps, found);
                found.push(Found { offset, what: Use::Name(steps) });
            }
            Token::Text(_) | Token::Number | Token::Sign(_) => {}
        }
    }
}

/// Whether the sign at `at` and the next are one operator, as in `==`.
fn doubled(tokens: &[(Token<'_>, usize)], at: usize) -> bool {
    match (tokens.get(at), tokens.get(at + 1)) {
        (Some((one, first)), Some((two, second))) => one == two && first + 1 == *second,
        _ => false,
    }
}

/// Collects the steps from `at` on; returns where they end.
fn follow<'s>(
    tokens: &[(Token<'s>, usize)],
    mut at: usize,
    steps: &mut Vec<(Step<'s>, usize)>,
    found: &mut Vec<Found<'s>>,
) -> usize {
    loop {
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some((Token::Sign('.'), _)), Some(&(Token::Word(name), offset))) => {
                at += 2;
                if let Some((Token::Sign('('), _)) = tokens.get(at) {
                    found.push(Found { offset, what: Use::Method(name) });
                    return at;
                }
                steps.push((Step::Member(name), offset));
            }
            (Some((Token::Sign('.'), _)), Some(&(Token::Number, offset))) => {
                at += 2;
                steps.push((Step::Element, offset));
            }
            (Some((Token::Sign('['), _)), Some(&(_, offset))) => {
                let close = closing(tokens, at);
                let inside = &tokens[at + 1..close];
                let step = match inside {
                    [(Token::Text(name), _)] if !name.contains('\\') => Step::Member(name),
                    [(Token::Number, _)] => Step::Element,
                    _ if has_colon(inside) => Step::Part,
                    _ => Step::Computed,
                };
                steps.push((step, offset));
                walk(inside, found);
                at = close + 1;
            }
            _ => return at,
        }
    }
}

/// Where the bracket that opens at `open` closes.
fn closing(tokens: &[(Token<'_>, usize)], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, (token, _)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Whether a colon stands among `tokens` outside of brackets: a part of a list, not an element.
fn has_colon(tokens: &[(Token<'_>, usize)]) -> bool {
    let mut depth = 0_usize;
    tokens.iter().any(|(token, _)| {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == Token::Sign(':')
    })
}
