//! Hiding the ids of sessions: who knows one, and the id of a task in it, can read the task.

use std::fmt::Write as _;

/// The member that is shown to nobody.
pub(super) const SESSION: &str = "sessionId";
/// How much of a session's id is shown, so that two can be told apart.
const SHOWN: usize = 4;

/// The beginning of a session's id, so that two can be told apart and neither can be used.
pub(super) fn masked(session: &str) -> String {
    let most = SHOWN.min(session.chars().count() / 2);
    let shown: String = session.chars().take(most).take_while(|c| c.is_alphanumeric()).collect();
    format!("{shown}…")
}

/// `shown`, JSON or the beginning of it, with the ids of sessions masked; all else is as it was.
#[must_use]
pub fn mask(shown: &str) -> String {
    let name = format!("\"{SESSION}\"");
    let (mut out, mut rest) = (String::with_capacity(shown.len()), shown);
    while let Some(at) = rest.find(&name) {
        let (before, after) = rest.split_at(at + name.len());
        out.push_str(before);
        rest = after;
        let Some(value) = after.trim_start().strip_prefix(':').map(str::trim_start).and_then(|value| value.strip_prefix('"'))
        else {
            continue;
        };
        // An escaped quote does not end it.
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let id = &value[..end.unwrap_or(value.len())];
        let _ = write!(out, ":\"{}", masked(id));
        rest = &value[id.len()..];
    }
    out.push_str(rest);
    out
}
