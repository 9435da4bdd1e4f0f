//! The page to sign in at, and its ends.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::layout::frame;
use super::{Asked, Fields, Sent, Shown, Wanted};
use crate::admin::api::Admin;
use crate::admin::auth::{Caller, Door, SIGN_IN, SignIn, host};

/// Where somebody goes who signed in: a path of ours, and no other site.
fn next(wanted: Option<&str>) -> &str {
    let ours = |path: &&str| path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '\r', '\n']);
    wanted.filter(ours).unwrap_or("/")
}

fn form(status: StatusCode, wrong: Option<&str>, to: &str) -> Response {
    let body = html! {
        main #main .sign-in {
            h1 { "taskhook" }
            form method="post" action=(SIGN_IN) {
                input type="hidden" name="next" value=(to);
                label {
                    span { "Admin token" }
                    input type="password" name="token" required autofocus autocomplete="current-password"
                        aria-describedby=[wrong.map(|_| "wrong")] aria-invalid=[wrong.map(|_| "true")];
                }
                @if let Some(wrong) = wrong { p #wrong .wrong role="alert" { (wrong) } }
                button { "Sign in" }
            }
            p .hint { "It is what " code { "admin.token" } " or " code { "admin.token_file" } " holds; " code { "admin.read_token" } " lets you look and change nothing." }
        }
    };
    frame("Sign in", status, &body)
}

pub(super) async fn page(State(admin): State<Arc<Admin>>, headers: HeaderMap, asked: Wanted) -> Shown {
    let asked = Asked::of(asked)?;
    let to = next(asked.get("next"));
    if admin.door.knows(&headers) {
        return Ok(Redirect::to(to).into_response());
    }
    // Whoever has just signed in and comes back without the cookie would go in circles.
    let lost = "your browser did not keep the session: off this machine, this page must come over HTTPS";
    Ok(form(StatusCode::OK, asked.get("entered").map(|_| lost), to))
}

pub(super) async fn enter(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let fields = Fields(fields);
    let to = next(fields.get("next"));
    match admin.door.sign_in(fields.get("token").unwrap_or_default(), host(&headers)) {
        Ok(cookie) => {
            let back = super::layout::link(SIGN_IN, [("entered", Some("1")), ("next", Some(to))]);
            with_cookie(Redirect::to(&back).into_response(), &cookie)
        }
        Err(SignIn::Wrong) => form(StatusCode::UNAUTHORIZED, Some("this is not the token"), to),
        Err(SignIn::TooOften(wait)) => {
            let text = format!("it was tried too often: wait {wait} s");
            let mut response = form(StatusCode::TOO_MANY_REQUESTS, Some(&text), to);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
            response
        }
    }
}

pub(super) async fn leave(headers: HeaderMap, Extension(caller): Extension<Caller>, form: Sent) -> Shown {
    Fields::of(form, &caller)?;
    Ok(with_cookie(Redirect::to(SIGN_IN).into_response(), &Door::sign_out(host(&headers))))
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_another_site() {
        for path in ["/", "/tasks/manus/1?x=y"] {
            assert_eq!(next(Some(path)), path);
        }
        for elsewhere in ["https://evil", "//evil", "/\\evil", "tasks", "", "/a\r\nSet-Cookie: x"] {
            assert_eq!(next(Some(elsewhere)), "/", "{elsewhere}");
        }
    }
}
