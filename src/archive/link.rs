//! Links to archived files: signed, and good for a while.
//!
//! A link says which content, under which name, and until when; the signature covers all three. Whoever has a link has the file
//! until then, and nothing else.

use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use jiff::Timestamp;
use url::Url;

use super::name;
use crate::clock;
use crate::event::hex;

/// How many bytes the key has that links are signed with.
pub const KEY_BYTES: usize = 32;
/// How many digits of the signature stand in a link: 128 bits.
const DIGITS: usize = 32;

/// Makes links, and tells whether one is ours.
#[derive(Clone)]
pub struct Links {
    key: hmac::Key,
    base: String,
    expiry: Duration,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("base", &self.base).field("expiry", &self.expiry).finish_non_exhaustive()
    }
}

/// Why a link opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It was ours, and its time is over.
    Expired,
    /// It is not ours, or was changed.
    Forged,
}

impl Links {
    /// Links below `base` (a URL without a slash at its end), signed with `key`, good for `expiry`.
    #[must_use]
    pub fn new(key: &[u8], base: &str, expiry: Duration) -> Self {
        Self { key: hmac::Key::new(HMAC_SHA256, key), base: base.trim_end_matches('/').to_owned(), expiry }
    }

    pub(super) fn link(&self, sha256: &str, name: &str, now: Timestamp) -> String {
        let name = name::safe(name);
        let until = clock::after(now, self.expiry).as_second();
        let signature = self.sign(sha256, &name, until);
        let mut path = Url::parse("http://x").ok();
        if let Some(mut segments) = path.as_mut().and_then(|url| url.path_segments_mut().ok()) {
            segments.clear().extend(["files", sha256, &name]);
        }
        let path = path.map(|url| url.path().to_owned()).unwrap_or_default();
        format!("{}{path}?expires={until}&signature={signature}", self.base)
    }

    pub(super) fn check(&self, sha256: &str, name: &str, until: i64, signature: &str, now: Timestamp) -> Result<(), Bad> {
        let ours = self.sign(sha256, name, until);
        aws_lc_rs::constant_time::verify_slices_are_equal(ours.as_bytes(), signature.as_bytes()).map_err(|_| Bad::Forged)?;
        if now.as_second() > until { Err(Bad::Expired) } else { Ok(()) }
    }

    fn sign(&self, sha256: &str, name: &str, until: i64) -> String {
        // A digest and a number hold no line break, so that no two links have one text.
        let mut digits = hex(hmac::sign(&self.key, format!("file\n{sha256}\n{until}\n{name}").as_bytes()).as_ref());
        digits.truncate(DIGITS);
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "d6b681bfce7155d44721afb79c296ef4f0fa80a9dd6b43c5cf74dd0f64c85512";

    fn links() -> Links {
        Links::new(&[7; KEY_BYTES], "https://files.example.com/base/", Duration::from_hours(1))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_link_is_good_until_its_end_and_for_what_it_says_only() {
        let (links, now) = (links(), at("2026-01-15T12:00:00.7Z"));
        let link = links.link(SHA256, "../Ü 1.csv", now);
        let start = format!("https://files.example.com/base/files/{SHA256}/%C3%9C%201.csv?expires=1768482000&signature=");
        let signature = link.strip_prefix(&start).unwrap_or_else(|| panic!("{link}"));
        assert_eq!(signature.len(), DIGITS);
        let check = |sha256: &str, name: &str, until: i64, signature: &str, now: &str| {
            links.check(sha256, name, until, signature, at(now))
        };
        let (until, good, later) = (1_768_482_000, "2026-01-15T13:00:00Z", "2026-01-15T13:00:01Z");
        assert_eq!(check(SHA256, "Ü 1.csv", until, signature, good), Ok(()));
        assert_eq!(check(SHA256, "Ü 1.csv", until, signature, later), Err(Bad::Expired));
        assert_eq!(check(SHA256, "Ü 1.csv", until + 1, signature, good), Err(Bad::Forged));
        assert_eq!(check(SHA256, "Ü 2.csv", until, signature, good), Err(Bad::Forged));
        assert_eq!(check(&SHA256.replace('d', "e"), "Ü 1.csv", until, signature, good), Err(Bad::Forged));
        assert_eq!(check(SHA256, "Ü 1.csv", until, "", good), Err(Bad::Forged));
        let other = Links::new(&[8; KEY_BYTES], "https://files.example.com", Duration::from_hours(1));
        assert_eq!(other.check(SHA256, "Ü 1.csv", until, signature, now), Err(Bad::Forged));
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", links()), "Links { base: \"https://files.example.com/base\", expiry: 3600s, .. }");
    }
}
