//! Who may ask, and for what.
//!
//! What must hold:
//! - Where a token is set, nothing is answered without it, but for the page to sign in at and what that is drawn with.
//! - Tokens come in the `Authorization` header or in the body of the form, never in a URL; they are compared in constant time.
//! - What changes something is done for who may act, and never for a page of another site: a browser says where a request comes from, and
//!   a form of ours brings a token that only our pages have.
//! - Where no token is set, the listener is on loopback. There, a name that somebody else made lead to this machine is not answered.

mod session;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use self::session::Keyring;
use super::api::{Admin, Refused};
use super::{Config, TokenError};
use crate::clock::Clock;
use crate::rate::Rate;
use crate::setting::Secret;
use crate::store::Store;

/// How often somebody may try to sign in: in a minute, and at once.
const ATTEMPTS: (u32, u32) = (20, 10);

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// See everything.
    Read,
    /// And ask for what changes something.
    Act,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Act => "act",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Read, Self::Act].into_iter().find(|scope| scope.as_str() == word)
    }
}

/// Who asks, as an extension of the request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// What it may do.
    pub(super) scope: Scope,
    /// What its forms must bring.
    pub(super) form_token: String,
    /// Whether it signed in, and so may sign out.
    pub(super) signed_in: bool,
    /// Of who asks for a page, what its stream goes on from: what comes while the page is made is not missed.
    pub(super) since: String,
}

impl Caller {
    /// Whether a form that brings this token was on a page of this caller.
    pub(super) fn is_form_of(&self, token: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.form_token.as_bytes(), token.as_bytes()).is_ok()
    }
}

/// Lets in who may come in.
#[derive(Debug)]
pub struct Door {
    act: Option<Secret>,
    read: Option<Secret>,
    keyring: Keyring,
    clock: Clock,
    attempts: Rate,
}

/// The token of a session, where there is one.
enum Asked {
    Bearer(Scope),
    Session(Scope, String),
    /// No token is set.
    Open,
    Nobody,
}

impl Door {
    /// The door that `config` asks for. Its key is the store's, so that all replicas know a session.
    ///
    /// # Errors
    /// [`TokenError`]: there is no token, or no key.
    pub async fn open(config: &Config, store: &Store, clock: &Clock) -> Result<Self, TokenError> {
        let act = config.resolve_token(true)?;
        let mut candidate = vec![0; 32];
        aws_lc_rs::rand::fill(&mut candidate).map_err(|_| TokenError::Random)?;
        let secret = store.own_key("admin_sessions", candidate, clock.now()).await.map_err(TokenError::Store)?;
        Ok(Self::new(act, config.read_token.clone(), &secret, clock.clone()))
    }

    /// Lets who sends `act` do all, and who sends `read` see all; whoever asks does all where there is no `act`. Sessions are signed with
    /// `secret`, which must be the same for all replicas and at every start.
    fn new(act: Option<Secret>, read: Option<Secret>, secret: &[u8], clock: Clock) -> Self {
        let attempts = Rate::new(&clock, ATTEMPTS.0, ATTEMPTS.1);
        Self { act, read, keyring: Keyring::new(secret), clock, attempts }
    }

    /// What `token` lets its holder do.
    fn scope_of(&self, token: &str) -> Option<Scope> {
        let sent = Secret::new(token);
        // `Secret` compares in constant time.
        let is = |known: &Option<Secret>| known.as_ref().is_some_and(|known| sent == *known);
        if is(&self.act) { Some(Scope::Act) } else { is(&self.read).then_some(Scope::Read) }
    }

    fn token_of(&self, scope: Scope) -> Option<String> {
        let token = if scope == Scope::Act { &self.act } else { &self.read };
        token.as_ref().map(|token| token.expose().to_owned())
    }

    fn asked(&self, headers: &HeaderMap) -> Asked {
        if self.act.is_none() {
            return Asked::Open;
        }
        if let Some(bearer) = headers.get(header::AUTHORIZATION) {
            let token = bearer.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
            return token.and_then(|token| self.scope_of(token)).map_or(Asked::Nobody, Asked::Bearer);
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let session = cookies.into_iter().find_map(session::of_header);
        let known = session.and_then(|session| {
            let scope = self.keyring.check(&session, |scope| self.token_of(scope), self.clock.now())?;
            Some(Asked::Session(scope, session))
        });
        known.unwrap_or(Asked::Nobody)
    }

    /// A new session for who brings `token`, as the value of `Set-Cookie`.
    ///
    /// # Errors
    /// [`SignIn`] says why there is none.
    pub(super) fn sign_in(&self, token: &str, host: Option<&str>) -> Result<String, SignIn> {
        self.attempts.try_take().map_err(|wait| SignIn::TooOften(wait.as_secs() + 1))?;
        let scope = self.scope_of(token.trim()).ok_or(SignIn::Wrong)?;
        let session = self.keyring.open(scope, token.trim(), self.clock.now());
        Ok(session::set_cookie(&session, !host.is_some_and(is_loopback)))
    }

    /// What ends a session, as the value of `Set-Cookie`.
    pub(super) fn sign_out(host: Option<&str>) -> String {
        session::set_cookie("", !host.is_some_and(is_loopback))
    }

    /// Whether `headers` bring a session that holds.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        !matches!(self.asked(headers), Asked::Nobody)
    }
}

/// Why nobody was signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignIn {
    /// It is no token of ours.
    Wrong,
    /// It was tried too often: how many seconds to wait.
    TooOften(u64),
}

/// The host in a request, without its port.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// Whether a `Host` names this machine and no other.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a browser says that a request comes from a page of another site. Who is no browser says nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_none() || authority != host(headers)
        }
        (None, None) => false,
    }
}

/// Of a page, not of the API: a browser is led to where it can sign in.
fn is_page(path: &str) -> bool {
    !path.starts_with("/api/") && path != "/metrics"
}

/// What needs no token: the page to sign in at, and what pages are drawn with.
fn is_open(path: &str) -> bool {
    path == SIGN_IN || path.starts_with("/assets/")
}

/// The page to sign in at.
pub(super) const SIGN_IN: &str = "/sign-in";

/// Lets a request through whose caller may ask for it.
pub(super) async fn let_in(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let caller = match admit(&admin.door, &request) {
        Ok(caller) => caller,
        Err(refused) => return *refused,
    };
    if let Some(mut caller) = caller {
        if *request.method() == Method::GET && is_page(request.uri().path()) {
            caller.since = admin.live.mark().await;
        }
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

/// Who asks; `None` where that does not matter.
fn admit(door: &Door, request: &Request) -> Result<Option<Caller>, Box<Response>> {
    let (headers, path) = (request.headers(), request.uri().path());
    let refuse = |status, code, title: &str| Err(Box::new(Refused::new(status, code, title).into_response()));
    let asked = door.asked(headers);
    if matches!(asked, Asked::Open) && host(headers).is_some_and(|host| !is_loopback(host)) {
        // A page of another site may have had its own name lead here (DNS rebinding).
        let title = "without `admin.token` only requests to this machine by its own name or address are answered: 127.0.0.1, [::1], localhost";
        return refuse(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", title);
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    // A browser sends a session along, and reaches an open listener, whoever made it do so.
    if changes && !matches!(asked, Asked::Bearer(_)) && is_foreign(headers) {
        return refuse(StatusCode::FORBIDDEN, "origin_not_allowed", "a page of another site asked for this");
    }
    if is_open(path) {
        return Ok(None);
    }
    let (scope, session) = match asked {
        Asked::Open => (Scope::Act, None),
        Asked::Bearer(scope) => (scope, None),
        Asked::Session(scope, session) => (scope, Some(session)),
        Asked::Nobody if is_page(path) && !changes => {
            let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let next = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", back).finish();
            return Err(Box::new(Redirect::to(&format!("{SIGN_IN}?{next}")).into_response()));
        }
        Asked::Nobody => {
            return refuse(StatusCode::UNAUTHORIZED, "token_invalid", "send the admin token as `Authorization: Bearer TOKEN`");
        }
    };
    if changes && scope < Scope::Act && path != SIGN_OUT {
        return refuse(
            StatusCode::FORBIDDEN,
            "scope_missing",
            "this token may see everything and change nothing: `admin.token` may",
        );
    }
    let form_token = door.keyring.form_token(session.as_deref().unwrap_or_default());
    Ok(Some(Caller { scope, form_token, signed_in: session.is_some(), since: String::new() }))
}

/// Where a session is ended.
pub(super) const SIGN_OUT: &str = "/sign-out";

/// What every answer of this listener carries: nothing runs in a page of ours but our own script, and no other site shows it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Adds them, but for what an answer says otherwise by itself.
pub(super) async fn harden(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_own_names() {
        for host in ["127.0.0.1:8081", "127.8.9.1", "localhost", "LOCALHOST:1", "[::1]:8081", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["example.com", "127.0.0.1.example.com:8081", "10.0.0.1", "localhost.example.com", "", "[::2]:1", "localhost:evil"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_known_by_what_the_browser_says() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            headers
        };
        for ours in [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://h:1")],
            &[("sec-fetch-site", "none")],
            &[("host", "h:1"), ("origin", "https://h:1")],
        ] {
            assert!(!is_foreign(&headers(ours)), "{ours:?}");
        }
        for theirs in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("host", "h:1"), ("origin", "https://evil")],
            &[("host", "h:1"), ("origin", "null")],
            &[("origin", "https://h:1")],
        ] {
            assert!(is_foreign(&headers(theirs)), "{theirs:?}");
        }
    }
}
