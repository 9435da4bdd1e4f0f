//! The statement: where its values stand.
//!
//! Only what is neither text, nor a quoted name, nor a comment is looked at. `::` is a cast.

use std::fmt::{self, Write as _};

const TWO: &str = "there is more than one statement; a delivery is one";

/// A statement whose `:name`s are found.
pub(super) struct Statement {
    text: String,
    names: Vec<String>,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Statement").field(&self.text).finish()
    }
}

impl Statement {
    /// Reads `source`; each name becomes `$1`, `$2` … for PostgreSQL and `?1`, `?2` … for SQLite.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(source: &str, postgres: bool) -> Result<Self, String> {
        let mut statement = Self { text: String::with_capacity(source.len()), names: Vec::new() };
        let (mut at, mut ended) = (0, false);
        while let Some(c) = source[at..].chars().next() {
            let rest = &source[at..];
            let length = quiet(rest, postgres);
            if length > 0 {
                if ended && !rest.starts_with("--") && !rest.starts_with("/*") {
                    return Err(TWO.to_owned());
                }
                statement.text.push_str(&rest[..length]);
                at += length;
                continue;
            }
            if ended && !c.is_whitespace() {
                return Err(TWO.to_owned());
            }
            let behind = &rest[c.len_utf8()..];
            let name = &behind[..word(behind)];
            match c {
                ':' if rest.starts_with("::") => {
                    statement.text.push_str("::");
                    at += 2;
                    continue;
                }
                ':' if name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') => {
                    let number = statement.number(name);
                    let _ = write!(statement.text, "{}{number}", if postgres { '$' } else { '?' });
                    at += 1 + name.len();
                    continue;
                }
                '$' if name.starts_with(|first: char| first.is_ascii_digit()) => {
                    return Err(format!("`${name}`: write a name, such as `:task_id`, and say in `values` what it is"));
                }
                '?' | '@' | '$' if !postgres => {
                    return Err(format!("`{c}`: write a name, such as `:task_id`, and say in `values` what it is"));
                }
                ';' => ended = true,
                _ => {}
            }
            statement.text.push(c);
            at += c.len_utf8();
        }
        if statement.text.trim().trim_end_matches(';').trim().is_empty() {
            return Err("it is empty; write `INSERT INTO … VALUES (:delivery_id, …)`".to_owned());
        }
        Ok(statement)
    }

    fn number(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        }) + 1
    }

    /// The names, in the order of their numbers.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The statement for the database.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// How many bytes of `rest` are part of a word.
fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of the text, quoted name or comment that `rest` begins with; 0 if it begins with none.
fn quiet(rest: &str, postgres: bool) -> usize {
    let through = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    match rest.as_bytes() {
        [b'-', b'-', ..] => through(2, "\n"),
        [b'/', b'*', ..] if postgres => nested(rest),
        [b'/', b'*', ..] => through(2, "*/"),
        // E'…' knows backslashes.
        [b'e' | b'E', b'\'', ..] if postgres => 1 + quoted(&rest[1..], '\'', true),
        [b'\'', ..] => quoted(rest, '\'', false),
        [b'"', ..] => quoted(rest, '"', false),
        [b'`', ..] if !postgres => quoted(rest, '`', false),
        [b'[', ..] if !postgres => through(1, "]"),
        [b'$', ..] if postgres => {
            let tag = 1 + word(&rest[1..]);
            let is_tag = rest[tag..].starts_with('$') && !rest[1..].starts_with(|first: char| first.is_ascii_digit());
            if is_tag { through(tag + 1, &rest[..=tag]) } else { 0 }
        }
        // A word is walked over whole: what it ends in begins nothing.
        [first, ..] if first.is_ascii_alphabetic() || *first == b'_' => word(rest),
        _ => 0,
    }
}

/// The length of a quoted text; a doubled quote is one within it.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    rest.len()
}

/// The length of a comment with comments in it.
fn nested(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let bytes = &rest.as_bytes()[at..];
        match bytes {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str, postgres: bool) -> String {
        match Statement::parse(source, postgres) {
            Ok(statement) => format!("{} | {}", statement.text, statement.names.join(" ")),
            Err(problem) => format!("error: {problem}"),
        }
    }

    #[test]
    fn names_become_numbers_and_nothing_else_does() {
        let postgres = "INSERT INTO \"a:x\" VALUES (:id, :id::text, ':no', E'\\':no', $$:no$$, $t$:no$t$, :b_2, a[1:2]) -- :no\n/* :no /* */ :no */;";
        assert_eq!(
            parse(postgres, true),
            "INSERT INTO \"a:x\" VALUES ($1, $1::text, ':no', E'\\':no', $$:no$$, $t$:no$t$, $2, a[1:2]) -- :no\n/* :no /* */ :no */; | id b_2"
        );
        let sqlite = "INSERT INTO [a:x] VALUES (:id, 'it''s :no', `b:y`, :é, json(:j))";
        assert_eq!(parse(sqlite, false), "INSERT INTO [a:x] VALUES (?1, 'it''s :no', `b:y`, :é, json(?2)) | id j");
    }

    #[test]
    fn other_ways_to_name_a_value_are_refused() {
        for (source, postgres) in
            [("select $1", true), ("select ?", false), ("select @a", false), ("select 1; select 2", true), (" ;", true)]
        {
            assert!(parse(source, postgres).starts_with("error: "), "{source}");
        }
        assert_eq!(parse("select a ? 'b' from c;  -- end", true), "select a ? 'b' from c;  -- end | ");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(source in r#"([a-z:$'"/*;é \n\\?\[\]-]|:a|--|/\*|\*/|\$\$){0,30}"#, postgres: bool) {
            let _ = parse(&source, postgres);
        }
    }
}
