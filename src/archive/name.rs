//! File names from outside, made fit to be offered to a browser.

use std::fmt::Write as _;

use crate::text::is_invisible;

/// The most bytes of a name; file systems take 255.
const MAX: usize = 150;

/// `name` as a plain file name: no folder, no control or hidden character, nothing that a file system takes for something else. A
/// long one is cut before its ending.
#[must_use]
pub(super) fn safe(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim().is_empty()).unwrap_or_default();
    let kept = last.chars().filter(|c| !c.is_control() && !is_invisible(*c) && !matches!(c, '\u{2028}' | '\u{2029}'));
    let plain: String = kept.map(|c| if "<>:\"|?*%".contains(c) { '_' } else { c }).collect();
    // A leading dot hides a file, an ending one or a space is lost on some systems.
    let plain = plain.trim_start_matches(['.', ' ', '~', '-']).trim_end_matches(['.', ' ']);
    let plain = cut(plain);
    let stem = plain.split('.').next().unwrap_or_default().trim().to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")) && stem.as_bytes()[3].is_ascii_digit());
    match plain.as_str() {
        "" => "file".to_owned(),
        plain if device => format!("_{plain}"),
        plain => plain.to_owned(),
    }
}

fn cut(name: &str) -> String {
    if name.len() <= MAX {
        return name.to_owned();
    }
    let ending = name.rfind('.').map(|at| &name[at..]).filter(|ending| ending.len() <= 16).unwrap_or_default();
    let mut end = MAX - ending.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

/// `Content-Disposition` that makes a browser save a file under `name` (RFC 6266), the exact name in the form of RFC 8187.
#[must_use]
pub fn attachment(name: &str) -> String {
    let name = safe(name);
    let ascii: String = name.chars().map(|c| if c.is_ascii_graphic() && c != '\\' || c == ' ' { c } else { '_' }).collect();
    let mut header = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            header.push(char::from(byte));
        } else {
            let _ = write!(header, "%{byte:02X}");
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_plain() {
        for (name, plain) in [
            ("report.pdf", "report.pdf"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\windows\\system32\\evil.dll", "evil.dll"),
            ("/absolute/path/", "path"),
            ("..", "file"),
            ("", "file"),
            (".htaccess", "htaccess"),
            ("-rf", "rf"),
            ("a\0b\r\nSet-Cookie: x\n.txt", "abSet-Cookie_ x.txt"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("CON", "_CON"),
            ("nul.txt", "_nul.txt"),
            ("COM1.log", "_COM1.log"),
            ("Überblick 2025.csv", "Überblick 2025.csv"),
            ("a\"b'c<d>%41.html", "a_b'c_d__41.html"),
            ("trailing. .", "trailing"),
        ] {
            assert_eq!(safe(name), plain, "{name:?}");
        }
        let long = safe(&format!("{}.tar.gz", "ä".repeat(300)));
        assert!(long.len() <= MAX && long.ends_with("ä.gz"), "{long}");
    }

    #[test]
    fn a_name_is_told_in_both_forms() {
        assert_eq!(attachment("Ü 1.csv"), "attachment; filename=\"_ 1.csv\"; filename*=UTF-8''%C3%9C%201.csv");
        assert_eq!(attachment("a\"; x=\"b"), "attachment; filename=\"a_; x=_b\"; filename*=UTF-8''a_%3B%20x%3D_b");
    }

    proptest! {
        #[test]
        fn any_name_is_harmless(name in ".{0,60}|[./\\\\ ]{0,9}(CON|a)?\\.{0,3}") {
            let plain = safe(&name);
            prop_assert!(!plain.is_empty() && plain.len() <= MAX + 1 && !plain.contains(['/', '\\']) && !plain.starts_with('.'));
            prop_assert!(!plain.chars().any(char::is_control));
            let header = attachment(&name);
            prop_assert!(header.is_ascii() && !header.chars().any(char::is_control));
            prop_assert_eq!(header.matches('"').count(), 2);
            prop_assert_eq!(safe(&plain), plain);
        }
    }
}
