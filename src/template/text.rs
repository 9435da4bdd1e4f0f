//! Texts with expressions in them: `{{ task.title }}`, `{% for file in files %}…{% endfor %}`, `{% if … %}`, `{% set … %}`.
//!
//! What must hold: as with a condition, a text that compiled names only what exists; and what it prints is escaped for where it
//! goes, unless the text itself says `| safe`. Names are checked where they stand, with the nearest one that is; what a loop or a
//! `set` names is checked by trying the text on a sample in which everything is known.

use std::collections::BTreeSet;
use std::fmt;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use super::scan::{self, Found, Step, Use};
use super::{Context, Error, LANGUAGE, Problem, Schema, check, describe, filter, suggest, try_out};

/// The most bytes of a text.
const MAX_BYTES: usize = 64 << 10;
/// The most instructions that writing one text runs.
const FUEL: u64 = 200_000;
/// The tags that there are; each but `else` and `elif` has an end.
const TAGS: &[&str] = &["for", "endfor", "if", "elif", "else", "endif", "set", "endset", "raw", "endraw"];
/// The name under which the environment of a text knows it.
const NAME: &str = "text";

/// Where a text goes, hence how what it prints is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Nothing reads signs in it.
    None,
    /// HTML.
    Html,
    /// JSON: every value is written as a JSON value, a text in its quotes.
    Json,
    /// Slack's mrkdwn.
    Mrkdwn,
}

/// A text, checked and ready to be written any number of times.
pub struct Template {
    environment: Environment<'static>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles `source` for data of `schema`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text.
    pub fn compile(source: &str, escape: Escape, schema: &Schema) -> Result<Self, Vec<Problem>> {
        if source.len() > MAX_BYTES {
            return Err(vec![Problem::at(source, 0, format!("the text is larger than {MAX_BYTES} bytes"))]);
        }
        let mut environment = LANGUAGE.clone();
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(move |_| match escape {
            Escape::None => AutoEscape::None,
            Escape::Html => AutoEscape::Html,
            Escape::Json => AutoEscape::Json,
            Escape::Mrkdwn => AutoEscape::Custom(filter::MRKDWN.into()),
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| {
            let at = error.range().map_or(0, |range| range.start);
            vec![Problem::at(source, at, error.detail().unwrap_or("syntax error").to_owned())]
        })?;
        let template = Self { environment };
        let parts = Parts::of(source);
        let mut problems = parts.problems;
        let found: Vec<Found<'_>> = scan::scan(&parts.code).into_iter().filter(|found| !is_local(found, &parts.locals)).collect();
        problems.extend(found.iter().filter_map(|found| check(source, found, schema)));
        if problems.is_empty() {
            problems.extend(template.unknown_at_work(source, schema));
        }
        if problems.is_empty() {
            problems.extend(try_out(source, |data| template.run(data).map(drop), &schema.whole.0, &found, schema));
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(template) } else { Err(problems) }
    }

    /// The text for this data.
    ///
    /// # Errors
    /// [`Error`] if the data does not allow it.
    pub fn render(&self, context: &Context) -> Result<String, Error> {
        Ok(self.run(context.0.clone())?)
    }

    fn run(&self, data: minijinja::Value) -> Result<String, minijinja::Error> {
        self.environment.get_template(NAME)?.render(data)
    }

    /// A name that turns out to be unknown when the text is written, such as a member of what a loop goes over.
    fn unknown_at_work(&self, source: &str, schema: &Schema) -> Option<Problem> {
        let mut strict = self.environment.clone();
        strict.set_undefined_behavior(UndefinedBehavior::Strict);
        let error = strict.get_template(NAME).and_then(|text| text.render(schema.whole.0.clone())).err()?;
        (error.kind() == ErrorKind::UndefinedError).then(|| {
            let range = error.range().unwrap_or_default();
            let words = source.get(range.clone()).unwrap_or_default().trim();
            let what = if words.is_empty() { describe(&error) } else { format!("`{words}` is not known") };
            Problem::at(source, range.start, what)
        })
    }
}

/// Whether the name is one that the text makes itself.
fn is_local(found: &Found<'_>, locals: &BTreeSet<&str>) -> bool {
    matches!(&found.what, Use::Name(steps) if matches!(steps.first(), Some((Step::Member(name), _)) if locals.contains(name)))
}

/// What of a text is code.
struct Parts<'s> {
    /// As long as the text, with everything blank that is no expression; a `;` stands between two.
    code: String,
    /// The names that loops and `set` make.
    locals: BTreeSet<&'s str>,
    problems: Vec<Problem>,
}

impl<'s> Parts<'s> {
    /// Reads `source`, which minijinja has parsed.
    fn of(source: &'s str) -> Self {
        let mut parts = Self { code: String::with_capacity(source.len()), locals: BTreeSet::new(), problems: Vec::new() };
        let (mut at, mut raw) = (0, false);
        while let Some(found) = source[at..].find(['{']) {
            let open = at + found;
            let (rest, kind) = (&source[open..], source[open..].chars().nth(1));
            let close = match kind {
                Some('{') if !raw => "}}",
                Some('%') => "%}",
                Some('#') if !raw => "#}",
                _ => {
                    parts.blank(&source[at..=open]);
                    at = open + 1;
                    continue;
                }
            };
            parts.blank(&source[at..open]);
            let end = open + length(rest, close);
            let inside = source[open + 2..end].strip_suffix(close).unwrap_or(&source[open + 2..end]);
            parts.code.push_str("; ");
            match close {
                "}}" => parts.code.push_str(inside),
                "%}" => raw = parts.tag(source, open + 2, inside, raw),
                _ => parts.blank(inside),
            }
            parts.blank(&source[open + 2 + inside.len()..end]);
            at = end;
        }
        parts.blank(&source[at..]);
        // What ends an expression is no sign of it.
        debug_assert_eq!(parts.code.len(), source.len());
        parts
    }

    fn blank(&mut self, text: &str) {
        self.code.extend(std::iter::repeat_n(' ', text.len()));
    }

    /// Reads the inside of a tag; whether what follows is raw.
    fn tag(&mut self, source: &str, offset: usize, inside: &'s str, raw: bool) -> bool {
        let words = inside.trim_start_matches(['-', '+']).trim_start();
        let name = &words[..words.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(words.len())];
        if raw {
            self.blank(inside);
            return name != "endraw";
        }
        if !TAGS.contains(&name) {
            let at = offset + (inside.len() - words.len());
            self.problems.push(Problem::at(source, at, format!("there is no tag `{name}`{}", suggest(name, TAGS))));
        }
        // A loop and a `set` name something before the sign; the expression is behind it.
        let sign = match name {
            "for" => inside.find(" in "),
            "set" => inside.find('='),
            _ => None,
        };
        let begin = inside.len() - words.len() + name.len();
        let expression = match (name, sign) {
            ("for" | "set", Some(sign)) => sign + if name == "for" { 4 } else { 1 },
            ("set", None) => inside.len(),
            _ => begin,
        };
        if matches!(name, "for" | "set") {
            let names = &inside[begin.min(expression)..sign.unwrap_or(inside.len())];
            self.locals.extend(names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()));
            self.locals.insert("loop");
        }
        self.blank(&inside[..expression]);
        // The marks that take white space away are no operators.
        let code = inside[expression..].trim_end_matches(['-', '+']);
        self.code.push_str(code);
        self.blank(&inside[expression + code.len()..]);
        name == "raw"
    }
}

/// The length of what `rest` begins with, up to `close` and with it; quotes may hold anything.
fn length(rest: &str, close: &str) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in rest.char_indices().skip(2) {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') if close != "#}" => quote = Some(c),
            (None, _) if rest[at..].starts_with(close) => return at + close.len(),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        json!({
            "type": "task_stopped",
            "event": {"title": "A <b> & \"c\" <!here>", "payload": {"a": 1}},
            "task": {"title": "T", "url": "https://a.example/?x=1&y=2", "created_at": "2025-11-18T23:04:31.000Z",
                "messages": [{"text": "**4** <x>", "role": "assistant"}]},
            "files": [{"name": "a.md", "size_bytes": 1_234_567}],
        })
    }

    fn schema() -> Schema {
        let null = json!({"type": "x", "event": {"title": null, "payload": null}, "task": null, "files": []});
        Schema::new(&sample(), &[null], &["event.payload"])
    }

    fn render(source: &str, escape: Escape) -> String {
        let template = Template::compile(source, escape, &schema()).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
        template.render(&Context::of(&sample())).unwrap()
    }

    fn problems(source: &str) -> String {
        let problems = Template::compile(source, Escape::None, &schema()).expect_err(source);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_printed_is_escaped_for_where_it_goes() {
        let source = "{{ event.title }}";
        assert_eq!(render(source, Escape::None), "A <b> & \"c\" <!here>");
        assert_eq!(render(source, Escape::Html), "A &lt;b&gt; &amp; &quot;c&quot; &lt;!here&gt;");
        assert_eq!(render(source, Escape::Mrkdwn), "A &lt;b&gt; &amp; \"c\" &lt;!here&gt;");
        assert_eq!(
            render("{\"t\": {{ event.title }}, \"n\": {{ event.payload.no }}}", Escape::Json),
            r#"{"t": "A <b> & \"c\" <!here>", "n": null}"#
        );
        assert_eq!(
            render("<{{ task.url }}|open> {{ event.payload.x }}{{ none }}.", Escape::Mrkdwn),
            "<https://a.example/?x=1&amp;y=2|open> ."
        );
    }

    #[test]
    fn the_filters_of_our_own() {
        let source = "{{ task.messages[0].text | mrkdwn }} {{ event.title | cut(3) }} {{ task.created_at | date }} \
                      {{ task.created_at | date('%H:%M', 'Asia/Tokyo') }} {{ files[0].size_bytes | size }} {{ 'javascript:1' | url }}.";
        assert_eq!(render(source, Escape::Mrkdwn), "*4* &lt;x&gt; A … 2025-11-18 23:04 08:04 1.2 MB .");
        assert_eq!(render("{{ task.messages[0].text | markdown }}", Escape::Html), "<p><strong>4</strong> &lt;x&gt;</p>\n");
    }

    #[test]
    fn loops_conditions_and_raw_text() {
        let source = "{% for file in files -%}\n {{ loop.index }}. {{ file.name }}{% else %}none{% endfor %}\
                      {% set t = task.title or \"}}\" %}{% if t %}[{{ t }}]{% endif %}{# {{ nothing }} #}{% raw %}{{ raw.x }}{% endraw %} { }";
        assert_eq!(render(source, Escape::None), "1. a.md[T]{{ raw.x }} { }");
    }

    #[test]
    fn unknown_names_are_found_wherever_they_stand() {
        assert_snapshot!(problems("Hello,\n{{ event.tilte }} {% if task.stat %}x{% endif %}{{ evnt.title | uper }}"), @"
        line 2, column 10: `event.tilte` is not known; did you mean `event.title`?
        line 2, column 30: `task.stat` is not known; known are `task.created_at`, `task.messages`, `task.title`, `task.url`
        line 2, column 52: `evnt` is not known; did you mean `event`?
        line 2, column 65: there is no filter `uper`; did you mean `upper`?
        ");
        assert_snapshot!(problems("{% for file in fils %}{{ file.name }}{% endfor %}"), @"line 1, column 16: `fils` is not known; did you mean `files`?");
        assert_snapshot!(problems("{% for file in files %}{{ file.nmae }}{% endfor %}"), @"line 1, column 27: `file.nmae` is not known");
        assert_snapshot!(problems("{% set t = task %}{{ t.titel }}"), @"line 1, column 22: `t.titel` is not known");
        assert_snapshot!(problems("{% macro x() %}{% endmacro %}"), @"
        line 1, column 4: there is no tag `macro`
        line 1, column 10: there is no function `x`
        line 1, column 19: there is no tag `endmacro`; did you mean `endraw`?
        ");
        assert_snapshot!(problems("{{ task.title "), @"line 1, column 9: unexpected end of input, expected end of variable block");
        assert_snapshot!(problems("{% if 'x' in event.title %}y{% endif %}"), @r#"line 1, column 4: fails where a value is null; give it another value, such as `(event.title or "")`: invalid operation: cannot perform a containment check on this value"#);
    }

    proptest::proptest! {
        #[test]
        fn any_text_compiles_or_says_what_is_wrong(source in r#"(\{\{ | \}\}|\{% if | %\}|\{% endif %\}|\{% for x in |\{#|#\}|event|task\.title|[a-z .'"é\n-]){0,12}"#) {
            if let Err(problems) = Template::compile(&source, Escape::Html, &schema()) {
                assert!(!problems.is_empty());
            }
        }
    }
}
