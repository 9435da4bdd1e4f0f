//! Text from outside, made fit for one line of a log, a terminal or a reason.

use std::fmt::Write as _;

/// `text` on one line of at most `max` characters: control characters and white space become single spaces, characters that
/// reorder or hide text are left out, and what was cut ends in `…`.
///
/// Two spaces in a row never come out: whoever puts them between the parts of a line can tell the parts from the text.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let mut out = String::new();
    let (mut length, mut gap) = (0, false);
    for c in text.chars().filter(|c| !is_invisible(*c)) {
        if c.is_whitespace() || c.is_control() {
            gap = length > 0;
            continue;
        }
        let needed = 1 + usize::from(gap);
        if length + needed > max {
            // The last character gives way to the mark, so that the limit holds.
            if length >= max {
                out.pop();
            }
            out.push('…');
            break;
        }
        if gap {
            out.push(' ');
        }
        out.push(c);
        (length, gap) = (length + needed, false);
    }
    out
}

/// `text` on as many lines as it has, without characters that control, reorder or hide: a line ends in `\n`, a tab stays.
#[must_use]
pub fn visible(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let line_end = |c: char| matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    text.chars()
        .map(|c| if line_end(c) { '\n' } else { c })
        .filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || is_invisible(*c)))
        .collect()
}

/// A number of bytes for people: `7 B`, `1.2 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if size < 999.5 {
            break;
        }
        (size, unit) = (size / 1000.0, next);
    }
    if unit == "B" || size >= 99.5 { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}

/// Characters that are not seen but change how others are: marks of direction (Unicode UAX #9), invisible operators, tags.
/// Joiners stay, since words and emoji need them.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{061C}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// JSON on one line, with every character escaped that could disturb a terminal: the same value, in other bytes. `serde_json` escapes only
/// what JSON demands, the control characters below U+0020.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_whitespace() {
            // Between values any white space will do.
            out.push(' ');
        } else if c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}') {
            // They can stand only inside a string, where an escape is the character itself.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_made_one_harmless_line() {
        for (text, line) in [
            ("a\r\n\r\nb\tc  d ", "a b c d"),
            ("\x1b[31mred\x1b[0m\u{9b}1m", "[31mred [0m 1m"),
            ("ab\u{202E}txt.exe\u{2066}\u{200F}", "abtxt.exe"),
            ("one\u{2028}two\u{FEFF}", "one two"),
            ("  ", ""),
            ("👩\u{200D}🚀", "👩\u{200D}🚀"),
        ] {
            assert_eq!(one_line(text, 100), line);
        }
    }

    #[test]
    fn lines_stay_lines_and_nothing_hides() {
        assert_eq!(visible("a\r\nb\rc\u{2028}d\te\0\u{1b}[1m\u{202e}f"), "a\nb\nc\nd\te[1mf");
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 7, 999, 1000, 99_499, 99_500, 999_499, 999_500, 1_234_567, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "7 B", "999 B", "1.0 kB", "99.5 kB", "100 kB", "999 kB", "1.0 MB", "1.2 MB", "18446744 TB"]);
    }

    #[test]
    fn a_cut_is_marked_and_within_the_limit() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdef", 5), "abcd…");
        assert_eq!(one_line("abcd efg", 5), "abcd…");
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let json = serde_json::json!({"a": "x\u{7f}\u{9b}\u{202e}\u{e0041}é\n"}).to_string();
        let escaped = escape_json(&json.replace(':', ":\n"));
        assert_eq!(escaped, r#"{"a": "x\u007f\u009b\u202e\udb40\udc41é\n"}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&escaped), value(&json));
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_short_line(text in "(\\PC|\\s|\\p{Cc}|\\p{Cf}){0,40}", max in 1_usize..20) {
            let line = one_line(&text, max);
            prop_assert!(line.chars().count() <= max, "{line:?}");
            prop_assert!(!line.contains("  ") && !line.chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }
}
