//! JSON Schemas: the one that a source holds its events against, and those that confirmations are held against.
//!
//! What must hold: it fetches nothing, whatever it refers to; and a body takes no longer than its length and the schema's allow: patterns
//! are of a kind that takes linear time.

use std::fmt;
use std::path::Path;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::Error;

/// A schema, ready for use.
pub(super) struct Schema(Validator);

impl Schema {
    /// Reads the schema of the source `name` from `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no JSON Schema, or refers to what is not in it.
    pub(super) fn read(name: &str, path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|cause| Error::File {
            name: name.to_owned(),
            key: "schema_file",
            path: path.to_owned(),
            cause,
        })?;
        let refuse = |reason: String| Error::Schema { name: name.to_owned(), path: path.to_owned(), reason };
        let schema: Value = serde_json::from_slice(&text).map_err(|reason| refuse(format!("it is not JSON: {reason}")))?;
        build(&schema).map(Self).map_err(refuse)
    }

    /// Whether `body` is JSON that fits.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        serde_json::from_slice(body).is_ok_and(|body: Value| self.0.is_valid(&body))
    }
}

fn build(schema: &Value) -> Result<Validator, String> {
    let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|reason| reason.to_string())
}

/// The most misfits that are told.
const MISFITS: usize = 5;

/// How `value` does not fit `schema`, each misfit with its place; none if it fits.
///
/// # Errors
/// With the reason, where the schema is of no use.
pub fn misfits(schema: &Value, value: &Value) -> Result<Vec<String>, String> {
    let place = |at: String| if at.is_empty() { String::new() } else { format!("{at}: ") };
    let schema = build(schema)?;
    let misfits = schema.iter_errors(value).take(MISFITS);
    Ok(misfits.map(|error| format!("{}{error}", place(error.instance_path().to_string()))).collect())
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Schema, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("schema.json");
        std::fs::write(&file, text).unwrap();
        Schema::read("x", &file).map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), "."))
    }

    #[test]
    fn bodies_fit_or_do_not() {
        let schema = read(
            r##"{"type": "object", "required": ["id"], "properties": {"id": {"$ref": "#/$defs/id"}},
                "$defs": {"id": {"type": "string", "pattern": "^[a-z]+$"}}}"##,
        )
        .unwrap();
        for (body, expected) in [
            (r#"{"id": "abc", "more": 1}"#, true),
            (r#"{"id": "ABC"}"#, false),
            (r#"{"id": 7}"#, false),
            ("{}", false),
            ("[]", false),
            ("not json", false),
            ("", false),
        ] {
            assert_eq!(schema.fits(body.as_bytes()), expected, "{body}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!schema.fits(deep.as_bytes()));
        assert!(read("true").unwrap().fits(b"1"));
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let schema: Value = serde_json::from_str(
            r#"{"type": "object", "required": ["accept"], "properties": {"accept": {"type": "boolean"}}, "additionalProperties": false}"#,
        )
        .unwrap();
        let told = |value: Value| misfits(&schema, &value).unwrap().join("; ");
        assert_eq!(told(serde_json::json!({"accept": true})), "");
        assert_eq!(told(serde_json::json!({})), "\"accept\" is a required property");
        assert_eq!(told(serde_json::json!({"accept": "yes"})), "/accept: \"yes\" is not of type \"boolean\"");
        assert!(misfits(&serde_json::json!({"type": "strin"}), &Value::Null).is_err());
    }

    #[test]
    fn a_pattern_takes_no_longer_for_a_hostile_body() {
        let schema = read(r#"{"pattern": "^(a+)+$"}"#).unwrap();
        assert!(!schema.fits(format!("\"{}!\"", "a".repeat(1 << 20)).as_bytes()));
    }

    #[test]
    fn what_is_no_schema_is_refused_and_nothing_is_fetched() {
        for (text, words) in [
            ("{", "it is not JSON"),
            (r#"{"type": "strin"}"#, "is of no use"),
            (r#"{"$ref": "https://example.com/schema.json"}"#, "is of no use"),
            (r#"{"$ref": "file:///etc/hostname"}"#, "is of no use"),
            (r#"{"pattern": "(?=a)"}"#, "is of no use"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("sources.x: `schema_file` ./schema.json") && error.contains(words), "{error}");
        }
        let missing = Schema::read("x", Path::new("/nowhere/schema.json")).unwrap_err().to_string();
        assert!(missing.contains("cannot read `schema_file`"), "{missing}");
    }
}
