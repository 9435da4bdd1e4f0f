//! The filters that are ours: for cutting, dates, sizes and links, and for what agents write as Markdown.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value};

use crate::markdown::{self, Limits};
use crate::text::visible;

/// The most characters that `markdown` and `mrkdwn` make of one value.
const MAX_MARKDOWN: usize = 20_000;

/// The name of the escaping of Slack's mrkdwn.
pub(super) const MRKDWN: &str = "mrkdwn";

pub(super) fn add_all(language: &mut Environment<'static>) {
    language.add_filter("cut", cut);
    language.add_filter("date", date);
    language.add_filter("markdown", |text: &Value| Value::from_safe_string(markdown::to_html(&plain(text), MAX_MARKDOWN)));
    language.add_filter("mrkdwn", mrkdwn);
    language.add_filter("size", size);
    language.add_filter("url", |address: &Value| markdown::link(&plain(address)).unwrap_or_default());
    language.set_formatter(format);
}

/// Writes a value as the text asks for: escaped, unless it is safe already. What is not known is nothing, but in JSON `null`.
fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let escape = state.auto_escape();
    let unknown = value.is_none() || value.is_undefined();
    match escape {
        AutoEscape::Json if unknown => Ok(out.write_str("null")?),
        AutoEscape::Json => minijinja::escape_formatter(out, state, value),
        _ if unknown => Ok(()),
        AutoEscape::Custom(name) if name == MRKDWN && !value.is_safe() => {
            Ok(out.write_str(&markdown::escape_mrkdwn(&visible(&value.to_string())))?)
        }
        AutoEscape::Custom(_) => Ok(out.write_str(&value.to_string())?),
        AutoEscape::Html if !value.is_safe() => Ok(out.write_str(&markdown::escape_html(&visible(&value.to_string())))?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn plain(value: &Value) -> String {
    if value.is_none() || value.is_undefined() { String::new() } else { value.to_string() }
}

fn mrkdwn(text: &Value) -> Value {
    let written = markdown::to_mrkdwn(&plain(text), Limits { section: MAX_MARKDOWN, total: MAX_MARKDOWN });
    Value::from_safe_string(written.sections.join("\n"))
}

/// At most `most` characters; a cut ends in `…`.
fn cut(text: &Value, most: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(most) {
        None => text,
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A time of the envelope by a pattern of strftime, in UTC or in a zone such as `Europe/Berlin`. What is no time stays as it is.
fn date(time: &Value, pattern: Option<String>, zone: Option<String>) -> Result<String, Error> {
    let text = plain(time);
    let Ok(at) = text.parse::<Timestamp>() else { return Ok(text) };
    let unfit = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    let zone = match zone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(&name).map_err(|_| unfit(format!("there is no time zone `{name}`")))?,
    };
    let pattern = pattern.unwrap_or_else(|| "%Y-%m-%d %H:%M".to_owned());
    jiff::fmt::strtime::format(&pattern, &at.to_zoned(zone)).map_err(|error| unfit(format!("`{pattern}` is no pattern: {error}")))
}

/// A number of bytes for people: `7 B`, `1.2 MB`.
fn size(bytes: &Value) -> String {
    i64::try_from(bytes.clone()).ok().and_then(|bytes| u64::try_from(bytes).ok()).map(crate::text::size).unwrap_or_default()
}
