//! The signs that Slack reads in a text, and how it counts.

/// `text` with the three signs escaped that Slack reads.
#[must_use]
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match entity(c) {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
        out
    })
}

/// What is written for `c`, if it is such a sign.
pub(super) fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// The length of `text` in UTF-16 units, the most that Slack may count.
#[must_use]
pub fn units(text: &str) -> usize {
    text.encode_utf16().count()
}
