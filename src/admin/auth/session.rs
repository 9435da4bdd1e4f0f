//! Sessions of browsers: cookies that say what their holder may do, signed by us.
//!
//! What must hold: nothing is kept of a session, so any replica knows it, and so does the next start. A session ends with its time, and
//! with the token that it was opened by: another token makes another key. Nobody can make a cookie, or a form's token, without the key.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use jiff::Timestamp;

use super::Scope;
use crate::clock;

/// The name of the cookie.
pub(super) const COOKIE: &str = "taskhook_session";
/// How long a session lasts: a working day.
pub(super) const LASTS: Duration = Duration::from_hours(12);

/// What sessions and forms are signed with.
#[derive(Debug)]
pub(super) struct Keyring(hmac::Key);

impl Keyring {
    /// A ring with this `secret`, which the store keeps.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, secret))
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            // Lengths keep the parts apart.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        BASE64_URL_SAFE_NO_PAD.encode(context.sign())
    }

    /// The value of the cookie of a new session that `token` opens.
    ///
    /// # Panics
    /// Never: a system without random numbers refuses to start.
    pub(super) fn open(&self, scope: Scope, token: &str, now: Timestamp) -> String {
        let mut nonce = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut nonce).expect("the system has random numbers");
        let until = clock::after(now, LASTS).as_second();
        let mut value = format!("{}.{until}.{}", scope.as_str(), BASE64_URL_SAFE_NO_PAD.encode(nonce));
        let signature = self.sign(&[b"session", value.as_bytes(), token.as_bytes()]);
        let _ = write!(value, ".{signature}");
        value
    }

    /// Of a cookie's value, what its holder may do; `None` for one that is not ours, is over, or was opened by another token.
    pub(super) fn check(&self, value: &str, token_of: impl Fn(Scope) -> Option<String>, now: Timestamp) -> Option<Scope> {
        let (signed, signature) = value.rsplit_once('.')?;
        let mut parts = signed.split('.');
        let scope = Scope::of(parts.next()?)?;
        let until: i64 = parts.next()?.parse().ok()?;
        let token = token_of(scope)?;
        let ours = self.sign(&[b"session", signed.as_bytes(), token.as_bytes()]);
        let is_ours = aws_lc_rs::constant_time::verify_slices_are_equal(ours.as_bytes(), signature.as_bytes()).is_ok();
        (is_ours && now.as_second() < until).then_some(scope)
    }

    /// What a form of this session must send along: pages of other sites cannot read it.
    pub(super) fn form_token(&self, session: &str) -> String {
        self.sign(&[b"form", session.as_bytes()])
    }
}

/// The cookie in a `Cookie` header.
pub(super) fn of_header(header: &str) -> Option<String> {
    Cookie::split_parse(header)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == COOKIE)
        .map(|cookie| cookie.value().to_owned())
}

/// The `Set-Cookie` of a session; an empty `value` ends it. With `secure` the browser sends it over HTTPS only.
pub(super) fn set_cookie(value: &str, secure: bool) -> String {
    let max_age = if value.is_empty() { 0 } else { i64::try_from(LASTS.as_secs()).unwrap_or(0) };
    let cookie = Cookie::build((COOKIE, value)).path("/").http_only(true).same_site(SameSite::Strict).secure(secure);
    // The crate's own duration would be the only use of another crate for time.
    format!("{}; Max-Age={max_age}", cookie.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_session_is_known_until_its_time_is_over_and_as_long_as_its_token_stands() {
        let ring = Keyring::new(b"k");
        let value = ring.open(Scope::Read, "t0k3n", at(0));
        let token = |scope| (scope == Scope::Read).then(|| "t0k3n".to_owned());
        assert_eq!(ring.check(&value, token, at(1)), Some(Scope::Read));
        assert_eq!(ring.check(&value, token, at(12 * 3600 - 1)), Some(Scope::Read));
        assert_eq!(ring.check(&value, token, at(12 * 3600)), None);
        assert_eq!(ring.check(&value, |_| Some("another".to_owned()), at(1)), None);
        assert_eq!(ring.check(&value, |_| None, at(1)), None);
        assert_eq!(Keyring::new(b"l").check(&value, token, at(1)), None);
        // Whoever may read cannot write into the cookie that it may act.
        let more = value.replacen("read", "act", 1);
        for forged in [more.as_str(), "", ".", "a.b", "read.x.y.z", "read.9999999999.n.", &value[..value.len() - 1]] {
            assert_eq!(ring.check(forged, |_| Some("t0k3n".to_owned()), at(1)), None, "{forged}");
        }
    }

    #[test]
    fn a_form_is_of_its_session() {
        let ring = Keyring::new(b"k");
        let (one, other) = (ring.open(Scope::Act, "t", at(0)), ring.open(Scope::Act, "t", at(0)));
        assert_ne!(one, other, "no two sessions are alike");
        assert_ne!(ring.form_token(&one), ring.form_token(&other));
        assert_eq!(ring.form_token(&one), ring.form_token(&one));
    }

    #[test]
    fn a_cookie_is_for_us_alone() {
        assert_eq!(set_cookie("v", true), "taskhook_session=v; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=43200");
        assert_eq!(set_cookie("", false), "taskhook_session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
        assert_eq!(of_header("a=b; taskhook_session=x.y; c"), Some("x.y".to_owned()));
        assert_eq!(of_header("a=b"), None);
    }
}
