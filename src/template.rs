//! Expressions, as in `when`, texts with expressions in them ([`Template`]), and what both may name.
//!
//! What must hold: an expression that compiled names only what exists. Its data is described by a [`Schema`], taken from a filled
//! sample; a name that is not in it is a [`Problem`] at start, with its place and the nearest name that is. The language (minijinja)
//! would read such a name as undefined, hence as false, and a route with a typo would be a route that never matches.
//!
//! Minijinja parses, and says which names an expression has; `scan.rs` only finds where they stand, and sees a little more: names
//! behind an index (`files[0].nmae`), filters, tests, functions. What comes out of a filter or a parenthesis is not followed.
//!
//! Values. `null` and what is missing are false, so are `false`, `0`, empty text and an empty list; the rest is true. A member of
//! `null` is undefined, and so on below it: `task.usage.cost_usd` is no error while `task` is `null`. Both are less than any
//! number, and their `length` is 0. What still cannot be done with `null`, such as looking for a text in it, is found at start by
//! trying the expression on a sample that knows nothing.

mod filter;
mod scan;
mod schema;
mod text;

use std::fmt;
use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::Serialize;

pub use self::schema::Schema;
pub(crate) use self::schema::nearest;
pub use self::text::{Escape, Template};

use self::scan::{Found, Step, Use};

/// The most names and operators of an expression, and its deepest brackets. Minijinja compiles by recursion; with ten times as
/// much a thread's stack can overflow.
const MAX_PARTS: usize = 400;
const MAX_DEPTH: usize = 12;

/// The most instructions that one evaluation runs: more than the longest expression has.
const FUEL: u64 = 10_000;

/// The longest message of a failed evaluation, in characters: it may quote what it failed on.
const MAX_MESSAGE: usize = 200;

/// Filters and tests by name, to suggest one; whether a name is known, minijinja itself is asked.
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "cut",
    "date",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "markdown",
    "max",
    "min",
    "mrkdwn",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "size",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "url",
    "zip",
];
const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut language = Environment::new();
    language.set_undefined_behavior(UndefinedBehavior::Chainable);
    language.set_fuel(Some(FUEL));
    // They would show, or keep, more than an expression is given.
    language.remove_global("debug");
    language.remove_global("namespace");
    language.add_filter("length", length);
    language.add_filter("count", length);
    filter::add_all(&mut language);
    language
});

/// The length of a text, a list or a map; of `null` and of what is missing it is 0.
fn length(value: &minijinja::Value) -> Result<usize, minijinja::Error> {
    if value.is_none() || value.is_undefined() {
        return Ok(0);
    }
    let unfit = || minijinja::Error::new(ErrorKind::InvalidOperation, format!("a {} has no length", value.kind()));
    value.len().ok_or_else(unfit)
}

/// What is wrong at one place of an expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    fn at(source: &str, offset: usize, message: String) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Self { line, column: before[line_start..].chars().count() + 1, message }
    }
}

/// Why an expression that compiled has no value for this data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<minijinja::Error> for Error {
    fn from(error: minijinja::Error) -> Self {
        Self(describe(&error))
    }
}

fn describe(error: &minijinja::Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}

/// The data of one evaluation.
#[derive(Clone, Debug)]
pub struct Context(minijinja::Value);

impl Context {
    /// Everything that `data` has when it is serialised.
    #[must_use]
    pub fn of(data: &impl Serialize) -> Self {
        Self(minijinja::value::Serde(data).into())
    }
}

/// An expression, checked and ready to be evaluated any number of times.
pub struct Expression {
    source: String,
    compiled: minijinja::Expression<'static, 'static>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Expression {
    /// Compiles `source` for data of `schema`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text: syntax; names that the data does not have; filters, tests and
    /// functions that do not exist or are called wrongly; what fails where a value is `null`.
    pub fn compile(source: &str, schema: &Schema) -> Result<Self, Vec<Problem>> {
        let (parts, depth) = scan::extent(source);
        if parts > MAX_PARTS || depth > MAX_DEPTH {
            let limits = format!("at most {MAX_PARTS} names and operators, and brackets {MAX_DEPTH} deep");
            return Err(vec![Problem::at(source, 0, format!("the expression is too large: {limits}"))]);
        }
        let compiled = LANGUAGE.compile_expression_owned(source.to_owned()).map_err(|error| {
            let at = error.range().map_or(0, |range| range.start);
            let hint = match source.get(at..).and_then(|rest| rest.chars().next()) {
                Some('=') => "; to compare, write `==`",
                Some('&') => "; write `and`",
                Some('|') => "; write `or`",
                Some('!') => "; write `not`",
                _ => "",
            };
            vec![Problem::at(source, at, format!("{}{hint}", error.detail().unwrap_or("syntax error")))]
        })?;
        let found = scan::scan(source);
        let mut problems: Vec<_> = found.iter().filter_map(|found| check(source, found, schema)).collect();
        if problems.is_empty() {
            problems.extend(unseen(source, &compiled, schema));
        }
        if problems.is_empty() {
            problems.extend(try_out(source, |data| compiled.eval(data).map(drop), &schema.full.0, &found, schema));
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(Self { source: source.to_owned(), compiled }) } else { Err(problems) }
    }

    /// Compiles `source` as a condition: [`Expression::compile`], and an alternative that is a bare text, hence always true, is
    /// wrong as well: `stop_reason == "finish" or "ask"` does not ask what it seems to ask.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn condition(source: &str, schema: &Schema) -> Result<Self, Vec<Problem>> {
        let expression = Self::compile(source, schema)?;
        let bare: Vec<_> = scan::bare_texts(source)
            .into_iter()
            .map(|(offset, text)| {
                let message = format!("the text `{text}` by itself is always true; compare it with something");
                Problem::at(source, offset, message)
            })
            .collect();
        if bare.is_empty() { Ok(expression) } else { Err(bare) }
    }

    /// The text that it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value for this data, as JSON.
    ///
    /// # Errors
    /// [`Error`] if the data does not allow it, such as a number asked for a text's letters.
    pub fn value(&self, context: &Context) -> Result<serde_json::Value, Error> {
        let value = self.compiled.eval(context.0.clone())?;
        serde_json::to_value(&value).map_err(|error| Error(error.to_string()))
    }

    /// Whether its value is true for this data; see the head of this file for what is true.
    ///
    /// # Errors
    /// [`Error`] if the data does not allow it. That is never to be read as "no".
    pub fn holds(&self, context: &Context) -> Result<bool, Error> {
        Ok(self.compiled.eval(context.0.clone())?.is_true())
    }
}

/// What is wrong with one thing that an expression uses.
fn check(source: &str, found: &Found<'_>, schema: &Schema) -> Option<Problem> {
    let problem = |offset, message| Some(Problem::at(source, offset, message));
    match found.what {
        Use::Filter(name) if !exists(name, "filter") => {
            problem(found.offset, format!("there is no filter `{name}`{}", suggest(name, FILTERS)))
        }
        Use::Test(name) if !exists(name, "test") => {
            problem(found.offset, format!("there is no test `{name}`{}", suggest(name, TESTS)))
        }
        Use::Function(name) if !is_function(name) => {
            // In other languages most of the filters are functions.
            let hint = nearest(name, FILTERS.iter().copied())
                .map_or_else(String::new, |filter| format!("; did you mean the filter `… | {filter}`?"));
            problem(found.offset, format!("there is no function `{name}`{hint}"))
        }
        Use::Method(name) => {
            let hint = if exists(name, "filter") {
                format!("; write `… | {name}`")
            } else {
                match name {
                    "startswith" => "; write `… is startingwith \"…\"`".to_owned(),
                    "endswith" => "; write `… is endingwith \"…\"`".to_owned(),
                    "contains" => "; write `\"…\" in …`".to_owned(),
                    _ => String::new(),
                }
            };
            problem(found.offset, format!("`.{name}()`: values have no methods, only filters and tests{hint}"))
        }
        Use::Name(ref steps) => schema.resolve(steps).and_then(|(offset, message)| problem(offset, message)),
        Use::Filter(_) | Use::Test(_) | Use::Function(_) => None,
    }
}

/// The names that minijinja sees and [`scan`] did not: none, if both read the text alike.
fn unseen(source: &str, compiled: &minijinja::Expression<'_, '_>, schema: &Schema) -> Vec<Problem> {
    let mut names: Vec<_> = compiled.undeclared_variables(true).into_iter().collect();
    names.sort();
    names
        .iter()
        .filter(|name| !is_function(name))
        .filter_map(|name| {
            let steps: Vec<_> = name.split('.').map(|word| (Step::Member(word), 0)).collect();
            schema.resolve(&steps).map(|(_, message)| {
                let word = name.split('.').next().unwrap_or(name);
                Problem::at(source, source.find(word).unwrap_or(0), message)
            })
        })
        .collect()
}

/// Tries it on the samples, which tells what names cannot: on `full`, where everything is known, then on those where little is.
fn try_out(
    source: &str,
    run: impl Fn(minijinja::Value) -> Result<(), minijinja::Error>,
    full: &minijinja::Value,
    found: &[Found<'_>],
    schema: &Schema,
) -> Option<Problem> {
    let at = |error: &minijinja::Error| error.range().map_or(0, |range| range.start);
    if let Err(error) = run(full.clone()) {
        // Whether a value can be converted or compared depends on the data; how something is called does not.
        let certain = matches!(
            error.kind(),
            ErrorKind::UnknownFilter
                | ErrorKind::UnknownTest
                | ErrorKind::UnknownFunction
                | ErrorKind::UnknownMethod
                | ErrorKind::TooManyArguments
                | ErrorKind::MissingArgument
                | ErrorKind::OutOfFuel
        );
        if certain {
            return Some(Problem::at(source, at(&error), describe(&error)));
        }
    }
    // What is free may always be there for this user's source; only of the rest do we know that it can be `null`.
    if found.iter().any(|found| matches!(&found.what, Use::Name(steps) if schema.is_free(steps))) {
        return None;
    }
    schema.sparse.iter().find_map(|sample| {
        let error = run(sample.0.clone()).err()?;
        let hint = "fails where a value is null; give it another value, such as `(event.title or \"\")`";
        Some(Problem::at(source, at(&error), format!("{hint}: {}", describe(&error))))
    })
}

/// Whether minijinja has a filter or a test (`kind`) of this name.
fn exists(name: &str, kind: &str) -> bool {
    let question = LANGUAGE.compile_expression_owned(format!("name is {kind}"));
    question.and_then(|question| question.eval(minijinja::context! { name })).is_ok_and(|answer| answer.is_true())
}

fn is_function(name: &str) -> bool {
    LANGUAGE.globals().any(|(global, _)| global == name)
}

fn suggest(name: &str, among: &[&str]) -> String {
    nearest(name, among.iter().copied()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    fn schema() -> Schema {
        let full = json!({
            "type": "task_stopped",
            "event": {"type": "task_stopped", "title": "A task", "stop_reason": "finish", "payload": {"a": 1}, "attachments": [{"name": "a.md"}]},
            "task": {"credits": 22, "state": "finished", "usage": {"cost_usd": 1.5}, "messages": [{"text": "hi", "files": [0]}]},
            "files": [{"name": "a.md", "status": "archived"}],
        });
        let null = json!({
            "type": "task_stopped",
            "event": {"type": "task_stopped", "title": null, "stop_reason": null, "payload": null, "attachments": []},
            "task": null,
            "files": [],
        });
        Schema::new(&full, &[null], &["event.payload"])
    }

    fn problems(source: &str) -> String {
        let problems = Expression::condition(source, &schema()).expect_err(source);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn holds(source: &str, data: &serde_json::Value) -> bool {
        let expression = Expression::condition(source, &schema()).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
        expression.holds(&Context::of(data)).unwrap_or_else(|error| panic!("{source}: {error}"))
    }

    #[test]
    fn unknown_names_are_found_with_their_place_and_the_nearest_name() {
        assert_snapshot!(problems("event.tpye == 1"), @"line 1, column 7: `event.tpye` is not known; did you mean `event.type`?");
        assert_snapshot!(problems("stop_reason == 'finish' and\n  evnt.title"), @"
        line 1, column 1: `stop_reason` is not known; did you mean `event.stop_reason`?
        line 2, column 3: `evnt` is not known; did you mean `event`?
        ");
        assert_snapshot!(problems("'event.tpye' == event[\"titel\"]"), @"line 1, column 23: `event.titel` is not known; did you mean `event.title`?");
        assert_snapshot!(problems("files[0].nmae or task.messages[0].files.count"), @"
        line 1, column 10: `files[0].nmae` is not known; did you mean `files[0].name`?
        line 1, column 41: `task.messages[0].files` is a list and has no `count`; its elements are `task.messages[0].files[0]`, its length is `task.messages[0].files | length`
        ");
        assert_snapshot!(problems("event.title.text and zebra"), @"
        line 1, column 13: `event.title` is one value and has no `text`
        line 1, column 22: `zebra` is not known; known are `event`, `files`, `task`, `type`
        ");
        assert_snapshot!(problems("task[0] or files[event.titl].name"), @"
        line 1, column 6: `task` is not a list: name one of its members
        line 1, column 24: `event.titl` is not known; did you mean `event.title`?
        ");
    }

    #[test]
    fn unknown_filters_tests_functions_and_methods_are_found() {
        assert_snapshot!(problems("event.title | uper"), @"line 1, column 15: there is no filter `uper`; did you mean `upper`?");
        assert_snapshot!(problems("event.title is startswith 'a'"), @"line 1, column 16: there is no test `startswith`; did you mean `startingwith`?");
        assert_snapshot!(problems("len(files) > 1 or lenght(files)"), @"
        line 1, column 1: there is no function `len`; did you mean the filter `… | length`?
        line 1, column 19: there is no function `lenght`; did you mean the filter `… | length`?
        ");
        assert_snapshot!(problems("event.title.startswith('a') or (event.title or '').upper() == 'A'"), @r#"
        line 1, column 13: `.startswith()`: values have no methods, only filters and tests; write `… is startingwith "…"`
        line 1, column 52: `.upper()`: values have no methods, only filters and tests; write `… | upper`
        "#);
        assert_snapshot!(problems("event.title | default(1, 2, 3, 4)"), @"line 1, column 15: too many arguments");
        assert_snapshot!(problems("debug()"), @"line 1, column 1: there is no function `debug`");
    }

    #[test]
    fn syntax_errors_have_a_place() {
        assert_snapshot!(problems("event.title ="), @"line 1, column 13: unexpected input after expression; to compare, write `==`");
        assert_snapshot!(problems("event.title == 'a'\n  and and"), @"line 2, column 3: `and` is not known; known are `event`, `files`, `task`, `type`");
        assert_snapshot!(problems("(event.title"), @"line 1, column 8: unexpected end of input, expected `)`");
        assert_snapshot!(problems("event.title && task"), @"line 1, column 13: unexpected character; write `and`");
        assert_snapshot!(problems("!task || event"), @"line 1, column 1: unexpected character; write `not`");
        assert_snapshot!(problems("task || event"), @"line 1, column 7: unexpected `|`, expected identifier; write `or`");
        assert_snapshot!(problems(""), @"line 1, column 1: unexpected end of input, expected expression");
        assert_snapshot!(problems("event.title == 'a"), @"line 1, column 18: unexpected end of string");
    }

    #[test]
    fn a_bare_text_as_an_alternative_is_a_mistake() {
        assert_snapshot!(problems("event.stop_reason == 'finish' or 'ask'"), @"line 1, column 34: the text `ask` by itself is always true; compare it with something");
        assert!(holds("(event.title or 'none') == 'none'", &json!({"event": {"title": null}})));
    }

    #[test]
    fn what_fails_on_null_is_found_at_start() {
        assert_snapshot!(problems("'urgent' in event.title"), @r#"line 1, column 1: fails where a value is null; give it another value, such as `(event.title or "")`: invalid operation: cannot perform a containment check on this value"#);
        let careful = "'urgent' in (event.title or '')";
        assert!(!holds(careful, &json!({"event": {"title": null}})));
        assert!(holds(careful, &json!({"event": {"title": "urgent: milk"}})));
        // Whether a payload has it, only its user knows.
        Expression::condition("event.payload.count | int > 3", &schema()).unwrap();
    }

    #[test]
    fn everything_below_what_is_free_is_allowed_and_false_if_missing() {
        let data = json!({"event": {"payload": {"a": {"b": [1, 2]}}}});
        assert!(holds("event.payload.a.b[1] == 2", &data));
        assert!(holds("event.payload['a'].b | length == 2", &data));
        assert!(!holds("event.payload.x.y.z", &data));
    }

    #[test]
    fn a_null_task_behaves_as_null_members() {
        let data = json!({"type": "x", "task": null});
        assert!(!holds("task.usage.cost_usd > 1", &data));
        assert!(!holds("task.messages | length > 0", &data));
        assert!(holds("not task.state and task is none", &data));
        assert!(!holds("task.messages | selectattr('text') | list", &data));
    }

    #[test]
    fn truth_is_what_the_head_of_this_file_says() {
        for (value, truth) in [
            (json!(null), false),
            (json!(false), false),
            (json!(0), false),
            (json!(""), false),
            (json!([]), false),
            (json!(true), true),
            (json!("no"), true),
            (json!(0.5), true),
            (json!([0]), true),
            (json!({"a": null}), true),
        ] {
            assert_eq!(holds("event.payload", &json!({"event": {"payload": value}})), truth, "{value}");
        }
    }

    #[test]
    fn a_value_may_be_asked_for() {
        let expression = Expression::compile("files | map(attribute='name') | join(', ')", &schema()).unwrap();
        let value = expression.value(&Context::of(&json!({"files": [{"name": "a"}, {"name": "b"}]}))).unwrap();
        assert_eq!(value, json!("a, b"));
    }

    #[test]
    fn failures_at_run_time_are_errors_on_one_short_line() {
        let expression = Expression::condition("event.payload.a < 1 and 'x' in event.payload.a", &schema()).unwrap();
        let error = expression.holds(&Context::of(&json!({"event": {"payload": {"a": 0}}}))).unwrap_err();
        assert_snapshot!(error, @"invalid operation: cannot perform a containment check on this value");
    }

    #[test]
    fn keywords_strings_and_keyword_arguments_are_not_names() {
        for source in [
            "true and not false or none",
            "event.title in ['zebra', \"it's\", 'a\\'b'] or \"event.nothing\" == 'x'",
            "files | selectattr('status', 'eq', 'archived') | list",
            "(files | map(attribute='name') | first) == 'a'",
            "event.title is not none and event.title is startingwith 'A'",
            "files.0.name == 'a' if files else false",
            "range(3) | length == dict(a=1).a",
            "task.credits >= 1_000.5 and task.credits != 1e3",
            "event . title == {'zebra': 1}['zebra']",
            "files[0:1] | length > -1",
            "files[-1].name == event['title']",
        ] {
            if let Err(problems) = Expression::condition(source, &schema()) {
                panic!("{source}: {problems:?}");
            }
        }
    }

    #[test]
    fn the_largest_expressions_compile_and_larger_ones_are_refused() {
        for (begin, rest) in [
            ("1", "+1"),
            ("true", " and 1"),
            ("1", "|abs"),
            ("event.payload", ".a"),
            ("1", " if 1"),
            ("1", " is odd"),
            ("event.payload", "[1]"),
            ("range", "(1)"),
        ] {
            let source = begin.to_owned() + &rest.repeat(MAX_PARTS / 4);
            if let Ok(expression) = Expression::condition(&source, &schema()) {
                let _ = expression.holds(&Context::of(&json!({"event": {}})));
            }
            assert!(problems(&(begin.to_owned() + &rest.repeat(MAX_PARTS + 1))).contains("too large"), "{rest}");
        }
        for open in ["(", "[", "range(", "{1:", "-", "not ", "1 ** "] {
            let _ = Expression::condition(&(open.repeat(MAX_DEPTH) + "1"), &schema());
            let _ = Expression::condition(&(open.repeat(MAX_PARTS) + "1"), &schema());
        }
        let ids = "'an id of twenty-two', ".repeat(1000);
        assert!(!holds(&format!("event.title in [{ids}]"), &json!({"event": {}})));
        assert_snapshot!(problems(&"1+".repeat(MAX_PARTS + 1)), @"line 1, column 1: the expression is too large: at most 400 names and operators, and brackets 12 deep");
    }

    #[test]
    fn suggested_filters_and_tests_exist() {
        for name in FILTERS {
            assert!(exists(name, "filter"), "{name}");
        }
        for name in TESTS {
            assert!(exists(name, "test"), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_compiles_or_says_what_is_wrong(source in r#"(event|task|files|[a-z]{1,3}|[.\[\]()|"'=<>0-9 ]|is | and |é|\\){0,12}"#) {
            if let Err(problems) = Expression::condition(&source, &schema()) {
                assert!(!problems.is_empty());
            }
        }

        #[test]
        fn scanning_takes_any_text(source in ".*") {
            scan::scan(&source);
            scan::bare_texts(&source);
        }
    }
}
