//! Reading providers' JSON leniently.
//!
//! Numbers and times arrive as numbers or as strings, times in seconds or milliseconds, one thing under several names, and
//! anything may be missing or null. Whatever cannot be read is simply not known; nothing here fails.

use jiff::Timestamp;
use serde_json::Value;

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

/// The last part of a link's path. Never a part of its query, which holds the signature.
pub(super) fn name_in_url(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    url.path_segments()?.next_back().filter(|name| !name.is_empty()).map(ToOwned::to_owned)
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
}
