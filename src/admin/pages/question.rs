//! The form that a waiting task's question is answered in, and what was filled in.
//!
//! A confirmation's form is made of the JSON Schema that the provider gave (Manus v2: `confirm_input_schema`): a field for each property that
//! a form can show, and JSON for what it cannot. What was filled in is read by the same schema, and checked against it where it is sent.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::Fields;
use super::layout::{cell, post};
use crate::admin::auth::{Caller, Scope};
use crate::text::visible;

/// What the names of fields begin with that are part of the input.
const PREFIX: &str = "input.";
/// The property that says yes or no to the whole: it has buttons of its own.
const ACCEPT: &str = "accept";
/// Texts that may be longer than this get more than one line.
const SHORT: u64 = 200;

/// How a property is asked for.
#[derive(Debug, PartialEq)]
enum Field<'a> {
    /// One of these.
    Choice(Vec<&'a str>),
    /// Several of these.
    Several(Vec<&'a str>),
    /// Yes or no.
    Switch,
    /// A number; whole or not.
    Number {
        whole: bool,
    },
    Text {
        long: bool,
    },
    /// What no field shows.
    Json,
}

impl<'a> Field<'a> {
    fn of(schema: &'a Value) -> Self {
        let words = |schema: &'a Value| {
            let words: Option<Vec<_>> = schema["enum"].as_array()?.iter().map(Value::as_str).collect();
            words.filter(|words| !words.is_empty())
        };
        if let Some(words) = words(schema) {
            return Self::Choice(words);
        }
        match schema["type"].as_str() {
            Some("string") => Self::Text { long: schema["maxLength"].as_u64().is_none_or(|most| most > SHORT) },
            Some("boolean") => Self::Switch,
            Some("integer") => Self::Number { whole: true },
            Some("number") => Self::Number { whole: false },
            Some("array") => words(&schema["items"]).map_or(Self::Json, Self::Several),
            _ => Self::Json,
        }
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object().filter(|properties| !properties.is_empty())
}

fn requires(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name))
}

/// The form for `question` of the task at `here`; `answers` is what it answers.
pub(super) fn form(here: &str, question: &Value, answers: Option<&str>, in_doubt: bool, caller: &Caller) -> Markup {
    let text = question["text"].as_str().unwrap_or("The task waits for you.");
    let confirms = question["kind"] == "action";
    html! {
        section .question aria-labelledby="question" {
            h2 #question { "It waits for your answer" }
            p .asked { (visible(text)) }
            @if let Some(action) = question["action"].as_str().filter(|_| confirms) { p .hint { "It asks to do: " code { (cell(action)) } } }
            @if caller.scope == Scope::Act {
                (post(&format!("{here}/answer"), caller, &html! {
                    input type="hidden" name="question" value=(answers.unwrap_or_default());
                    @if confirms { (confirmation(&question["input_schema"])) } @else { (reply(question)) }
                    @if in_doubt {
                        label .check {
                            input type="checkbox" name="again" value="true";
                            span { "An answer was sent before, and nobody knows whether it arrived. I looked: it did not." }
                        }
                    }
                    label { span { "Your name, to be noted with the answer" } input name="by" maxlength="80" autocomplete="name"; }
                    @if !confirms { div .acts { button { "Send the answer" } } }
                    @else if is_asked(&question["input_schema"]) {
                        div .acts {
                            button name={ (PREFIX) (ACCEPT) } value="true" { "Accept" }
                            button .plain name={ (PREFIX) (ACCEPT) } value="false" { "Decline" }
                        }
                    } @else { div .acts { button { "Confirm" } } }
                }))
            } @else { p .hint { "You may look only: sign in with the token that may act." } }
        }
    }
}

/// Whether a yes or no is part of the input; without a schema it is all of it.
fn is_asked(schema: &Value) -> bool {
    schema.is_null() || properties(schema).is_some_and(|properties| properties.contains_key(ACCEPT))
}

fn reply(question: &Value) -> Markup {
    let options: Vec<_> = question["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    html! {
        input type="hidden" name="say" value="reply";
        @if !options.is_empty() {
            fieldset {
                legend { "Choose" }
                @for option in &options { label .check { input type="radio" name="option" value=(option); span { (option) } } }
            }
        }
        label { span { @if options.is_empty() { "Your answer" } @else { "Or in your own words" } } textarea name="message" rows="3" {} }
    }
}

fn confirmation(schema: &Value) -> Markup {
    html! {
        input type="hidden" name="say" value="confirm";
        @match properties(schema) {
            Some(properties) => @for (name, of) in properties.iter().filter(|(name, _)| *name != ACCEPT) {
                (field(name, of, requires(schema, name)))
            },
            None => @if !schema.is_null() {
                label { span { "Input, as JSON" } textarea name="input" rows="4" spellcheck="false" { "{}" } }
            },
        }
    }
}

fn field(name: &str, of: &Value, required: bool) -> Markup {
    let label = of["title"].as_str().unwrap_or(name);
    let known = &of["default"];
    let known_text = match known {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let field = format!("{PREFIX}{name}");
    let hint = html! { @if let Some(hint) = of["description"].as_str() { small { (hint) } } };
    let caption = html! { span { (label) @if required { " (required)" } } (hint) };
    match Field::of(of) {
        Field::Choice(words) => html! {
            label { (caption) select name=(field) required[required] {
                @if !required { option value="" { "–" } }
                @for word in words { option value=(word) selected[known == word] { (word) } }
            } }
        },
        Field::Several(words) => html! {
            fieldset {
                legend { (label) }
                (hint)
                @for word in words { label .check { input type="checkbox" name=(field) value=(word); span { (word) } } }
            }
        },
        Field::Switch => html! {
            label { (caption) select name=(field) required[required] {
                @if !required { option value="" { "–" } }
                option value="true" selected[known == true] { "yes" }
                option value="false" selected[known == false] { "no" }
            } }
        },
        Field::Number { whole } => html! {
            label { (caption) input type="number" name=(field) step=(if whole { "1" } else { "any" }) value=(known_text) required[required]; }
        },
        Field::Text { long: true } => {
            html! { label { (caption) textarea name=(field) rows="3" required[required] { (known_text) } } }
        }
        Field::Text { long: false } => html! { label { (caption) input name=(field) value=(known_text) required[required]; } },
        Field::Json => html! {
            label { (caption) textarea name=(field) rows="3" spellcheck="false" required[required] { (known_text) } }
        },
    }
}

/// The input of a confirmation, as it was filled in; `None` where the provider asked for none.
///
/// # Errors
/// With what is wrong with a field.
pub(super) fn input(schema: Option<&Value>, fields: &Fields) -> Result<Option<Value>, String> {
    let accepted = || fields.get(&format!("{PREFIX}{ACCEPT}")).map(|word| word == "true");
    let Some(schema) = schema else { return Ok(accepted().map(|accept| json!({ACCEPT: accept}))) };
    let Some(properties) = properties(schema) else {
        let text = fields.get("input").unwrap_or("{}");
        return serde_json::from_str(text).map(Some).map_err(|error| format!("the input is no JSON: {error}"));
    };
    let mut input = Map::new();
    for (name, of) in properties {
        if let Some(value) = value(name, of, fields)? {
            input.insert(name.clone(), value);
        }
    }
    Ok(Some(Value::Object(input)))
}

fn value(name: &str, of: &Value, fields: &Fields) -> Result<Option<Value>, String> {
    let field = format!("{PREFIX}{name}");
    let kind = Field::of(of);
    if matches!(kind, Field::Several(_)) {
        let chosen: Vec<_> = fields.all(&field).map(Value::from).collect();
        return Ok((!chosen.is_empty()).then(|| Value::from(chosen)));
    }
    // What is left empty is left out: whether it may be, the schema says.
    let Some(text) = fields.get(&field).filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |what: &str| format!("`{}` is no {what}", cell(name));
    Ok(Some(match kind {
        Field::Choice(_) | Field::Text { .. } => Value::from(text),
        Field::Switch => Value::from(text == "true"),
        Field::Number { whole: true } => Value::from(text.trim().parse::<i64>().map_err(|_| wrong("whole number"))?),
        Field::Number { whole: false } => {
            serde_json::from_str::<serde_json::Number>(text.trim()).map(Value::Number).map_err(|_| wrong("number"))?
        }
        Field::Json => serde_json::from_str(text).map_err(|error| format!("{}: {error}", wrong("JSON")))?,
        Field::Several(_) => Value::Null,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_filled_in_is_of_the_type_that_is_asked_for() {
        let schema = json!({"type": "object", "required": ["accept"], "properties": {
            "accept": {"type": "boolean"},
            "amount": {"type": "integer"},
            "price": {"type": "number"},
            "note": {"type": "string"},
            "left": {"type": "string"},
            "mode": {"enum": ["a", "b"]},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
            "more": {"type": "object"},
        }});
        let filled = fields(&[
            ("input.accept", "true"),
            ("input.amount", " 3 "),
            ("input.price", "0.5"),
            ("input.note", "1"),
            ("input.left", ""),
            ("input.mode", "b"),
            ("input.tags", "x"),
            ("input.tags", "y"),
            ("input.more", r#"{"k":[1]}"#),
            ("input.foreign", "never"),
        ]);
        let expected =
            json!({"accept": true, "amount": 3, "price": 0.5, "note": "1", "mode": "b", "tags": ["x", "y"], "more": {"k": [1]}});
        assert_eq!(input(Some(&schema), &filled), Ok(Some(expected)));
        for (field, text) in [("input.amount", "3.5"), ("input.price", "x"), ("input.more", "{")] {
            assert!(input(Some(&schema), &fields(&[(field, text)])).is_err(), "{field}");
        }
    }

    #[test]
    fn without_properties_the_input_is_json_and_without_a_schema_a_yes_or_no() {
        assert_eq!(input(Some(&json!({"type": "object"})), &fields(&[("input", "[1]")])), Ok(Some(json!([1]))));
        assert!(input(Some(&json!(true)), &fields(&[("input", "no")])).is_err());
        assert_eq!(input(None, &fields(&[("input.accept", "false")])), Ok(Some(json!({"accept": false}))));
        assert_eq!(input(None, &fields(&[])), Ok(None));
    }
}
