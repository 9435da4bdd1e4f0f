//! Reading Manus's JSON leniently.
//!
//! Numbers and times arrive as numbers or as strings, times in seconds (tasks) or milliseconds (message events), one thing under
//! several names, and anything may be missing or null. Whatever cannot be read is simply not known; nothing here fails.

use jiff::Timestamp;
use serde_json::Value;

use crate::task::{File, FileStatus, State};

/// The first of `names` in `of` that holds text (or a number, as text) that is not empty.
pub(super) fn text(of: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match of.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// The first of `names` in `of` that is not null.
pub(super) fn member<'a>(of: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().filter_map(|name| of.get(name)).find(|value| !value.is_null())
}

/// A number, or a string that holds one; finite.
pub(super) fn number(of: &Value, name: &str) -> Option<f64> {
    let number = match of.get(name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// A whole number that is not negative.
pub(super) fn count(of: &Value, name: &str) -> Option<u64> {
    match of.get(name)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
            number.to_string().parse().ok()
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Whether a member says yes; absent is no.
pub(super) fn is_true(of: &Value, name: &str) -> bool {
    match of.get(name) {
        Some(Value::Bool(yes)) => *yes,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// The items of a list; whatever else is no items.
pub(super) fn items<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A time: Unix seconds or milliseconds, as a number or as text, or RFC 3339.
pub(super) fn time(of: &Value, name: &str) -> Option<Timestamp> {
    // 10^11 seconds are the year 5138, 10^11 milliseconds the year 1973: no time of a task is between.
    const MILLISECONDS: f64 = 1e11;
    let Some(number) = number(of, name) else {
        return of.get(name)?.as_str()?.trim().parse().ok();
    };
    let milliseconds = if number.abs() < MILLISECONDS { number * 1000.0 } else { number };
    if !(1.0..1e15).contains(&milliseconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range that was just checked, less its fraction")]
    Timestamp::from_millisecond(milliseconds.round() as i64).ok()
}

/// A file under any of its names: webhook attachments, v2 message attachments, v1 task output. A bare link counts as well.
pub(super) fn file(of: &Value, message_id: Option<&str>) -> Option<File> {
    let bare = of.as_str().filter(|text| text.starts_with("https://") || text.starts_with("http://"));
    let url = bare.map(ToOwned::to_owned).or_else(|| text(of, &["url", "fileUrl", "file_url"]));
    let name = text(of, &["file_name", "filename", "fileName", "name"]).or_else(|| url.as_deref().and_then(name_in_url));
    if url.is_none() && name.is_none() {
        return None;
    }
    Some(File {
        name: name.unwrap_or_else(|| "file".to_owned()),
        content_type: text(of, &["content_type", "mimeType", "mime_type"]),
        size_bytes: count(of, "size_bytes").or_else(|| count(of, "size")),
        provider_url: url,
        status: FileStatus::Skipped,
        message_id: message_id.map(ToOwned::to_owned),
        ..File::default()
    })
}

/// The last part of a link's path. Never a part of its query, which holds the signature.
fn name_in_url(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    url.path_segments()?.next_back().filter(|name| !name.is_empty()).map(ToOwned::to_owned)
}

/// What is said in a message: a string, or the text parts of a list.
pub(super) fn content(of: &Value) -> String {
    match of.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(part).collect::<Vec<_>>().join("\n\n"),
        _ => String::new(),
    }
}

fn part(of: &Value) -> Option<String> {
    of.as_str().map(ToOwned::to_owned).or_else(|| text(of, &["text"]))
}

/// The word for why a task in this state stopped.
pub(super) fn stop_reason(state: State) -> Option<String> {
    let word = match state {
        State::Finished => "finish",
        State::Waiting => "ask",
        State::Failed => "error",
        State::Stopped => "user",
        State::Running | State::Canceled | State::Unknown => return None,
    };
    Some(word.to_owned())
}

/// An error's text: a string, or the `message` of an object.
pub(super) fn error_text(of: &Value, name: &str) -> Option<String> {
    let error = of.get(name)?;
    text(of, &[name]).or_else(|| text(error, &["message", "content", "reason", "code"]))
}

/// The strings of a list, such as the answers to choose from; objects give their label.
pub(super) fn strings(of: &Value, name: &str) -> Vec<String> {
    items(of, name).iter().filter_map(|item| part(item).or_else(|| text(item, &["label", "title", "value"]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_in_every_form() {
        let expected: Timestamp = "2025-11-18T23:04:31Z".parse().unwrap();
        for time_ in [
            json!(1_763_507_071),
            json!("1763507071"),
            json!(1_763_507_071_000_i64),
            json!("1763507071000"),
            json!(1_763_507_071.0),
            json!("2025-11-18T23:04:31Z"),
        ] {
            assert_eq!(time(&json!({"at": time_}), "at"), Some(expected), "{time_}");
        }
        for nothing in [json!(null), json!(0), json!("0"), json!(-5), json!(""), json!("soon"), json!([]), json!(1e300)] {
            assert_eq!(time(&json!({"at": nothing}), "at"), None, "{nothing}");
        }
    }

    #[test]
    fn numbers_may_be_text() {
        assert_eq!(number(&json!({"n": "22"}), "n"), Some(22.0));
        assert_eq!(number(&json!({"n": 22.5}), "n"), Some(22.5));
        assert_eq!(number(&json!({"n": "inf"}), "n"), None);
        assert_eq!(count(&json!({"n": "12"}), "n"), Some(12));
        assert_eq!(count(&json!({"n": 12.0}), "n"), Some(12));
        assert_eq!(count(&json!({"n": 1.5}), "n"), None);
        assert_eq!(count(&json!({"n": -1}), "n"), None);
        assert!(is_true(&json!({"b": "true"}), "b"));
        assert!(!is_true(&json!({"b": 1}), "b"));
    }

    #[test]
    fn a_file_has_three_names() {
        for named in [
            json!({"file_name": "r.pdf", "url": "https://x.example/r", "size_bytes": "12", "content_type": "application/pdf"}),
            json!({"filename": "r.pdf", "url": "https://x.example/r", "size_bytes": 12, "content_type": "application/pdf"}),
            json!({"fileName": "r.pdf", "fileUrl": "https://x.example/r", "size_bytes": 12.0, "mimeType": "application/pdf"}),
        ] {
            let file = file(&named, Some("m1")).unwrap();
            assert_eq!((file.name.as_str(), file.size_bytes), ("r.pdf", Some(12)));
            assert_eq!(file.provider_url.as_deref(), Some("https://x.example/r"));
            assert_eq!(file.content_type.as_deref(), Some("application/pdf"));
        }
        assert_eq!(file(&json!("https://x.example/a/b.md?Signature=s"), None).unwrap().name, "b.md");
        assert_eq!(file(&json!({"url": "https://x.example/"}), None).unwrap().name, "file");
        assert_eq!(file(&json!({"type": "image"}), None), None);
        assert_eq!(file(&json!(7), None), None);
        assert_eq!(file(&json!("no link"), None), None);
    }
}
