//! The listener for archived files: what a signed link names, and nothing else.
//!
//! What must hold: nothing is listed and nothing is shown in the browser, whatever it is: third parties made these files. Every
//! answer is an attachment, of a type that nobody guesses at, in a sandbox.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;

use super::link::{Bad, Links};
use super::{Archive, Error, name, type_of};
use crate::clock::Clock;

/// The longest that a reader may keep a file without asking again, in seconds.
const KEEP: i64 = 3600;

struct Files {
    archive: Archive,
    links: Links,
    clock: Clock,
}

/// The routes that serve `archive` to whoever has one of its links.
pub fn router(archive: Archive, links: Links, clock: Clock) -> Router {
    Router::new()
        .route("/files/{sha256}/{name}", get(file))
        .fallback(|| std::future::ready(Refused::NoSuchFile))
        .with_state(Arc::new(Files { archive, links, clock }))
}

/// The query of a link.
#[derive(Deserialize)]
struct Signed {
    expires: i64,
    signature: String,
}

/// Why nothing is served: RFC 9457.
#[derive(Clone, Copy, Debug)]
enum Refused {
    LinkInvalid,
    LinkExpired,
    NoSuchFile,
    Unavailable,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, title) = match self {
            Self::LinkInvalid => (StatusCode::FORBIDDEN, "link_invalid", "this link is not ours, or was changed"),
            Self::LinkExpired => (StatusCode::GONE, "link_expired", "the time of this link is over"),
            Self::NoSuchFile => (StatusCode::NOT_FOUND, "not_found", "there is no such file"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "archive_unavailable", "the archive does not work now"),
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let body = json!({"title": title, "status": status.as_u16(), "code": code}).to_string();
        (status, headers, body).into_response()
    }
}

async fn file(
    State(files): State<Arc<Files>>,
    Path((sha256, file_name)): Path<(String, String)>,
    signed: Result<Query<Signed>, axum::extract::rejection::QueryRejection>,
    asked: HeaderMap,
) -> Result<Response, Refused> {
    let Query(Signed { expires, signature }) = signed.map_err(|_| Refused::LinkInvalid)?;
    let now = files.clock.now();
    files.links.check(&sha256, &file_name, expires, &signature, now).map_err(|bad| match bad {
        Bad::Forged => Refused::LinkInvalid,
        Bad::Expired => Refused::LinkExpired,
    })?;
    let size = files.archive.size(&sha256).await.map_err(|error| refused(&error))?;
    let tag = format!("\"{sha256}\"");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &tag);
    set(header::ACCEPT_RANGES, "bytes");
    set(header::CACHE_CONTROL, &format!("private, max-age={}, immutable", (expires - now.as_second()).clamp(0, KEEP)));
    set(header::CONTENT_DISPOSITION, &name::attachment(&file_name));
    set(header::CONTENT_TYPE, &type_of(&file_name).unwrap_or_else(|| "application/octet-stream".to_owned()));
    set(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // The link is a key: where somebody goes next is not told it.
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("x-robots-tag"), "noindex");
    if matches(&asked, &header::IF_NONE_MATCH, &tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    // A part of what the reader does not have (any more) would be of no use to it.
    let fresh = !asked.contains_key(header::IF_RANGE) || matches(&asked, &header::IF_RANGE, &tag);
    let range = asked.get(header::RANGE).filter(|_| fresh).and_then(|range| range_of(range.to_str().ok()?, size));
    let range = match range {
        None => None,
        Some(Ok(range)) => {
            set(header::CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            Some(range)
        }
        Some(Err(())) => {
            set(header::CONTENT_RANGE, &format!("bytes */{size}"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        }
    };
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if length > 0 {
        let content = files.archive.read(&sha256, range).await.map_err(|error| refused(&error))?;
        *response.body_mut() = Body::from_stream(content.bytes);
    }
    Ok(response)
}

fn refused(error: &Error) -> Refused {
    match error {
        Error::Missing | Error::Off => Refused::NoSuchFile,
        Error::Unusable { .. } => {
            tracing::warn!(error = %error, "a file was not served: {error}");
            Refused::Unavailable
        }
    }
}

/// Whether a condition names this tag.
fn matches(asked: &HeaderMap, name: &HeaderName, tag: &str) -> bool {
    let Some(value) = asked.get(name).and_then(|value| value.to_str().ok()) else { return false };
    value.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// The part that a `Range` header asks for: `None` for the whole, as for any form but one plain range; an error where there is no such
/// part.
fn range_of(header: &str, size: u64) -> Option<Result<std::ops::Range<u64>, ()>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let range = if first.is_empty() {
        let count: u64 = last.parse().ok()?;
        size.saturating_sub(count)..size
    } else {
        let first: u64 = first.parse().ok()?;
        let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.saturating_add(1) };
        if end <= first && !last.is_empty() {
            return None;
        }
        first..end.min(size)
    };
    Some(if range.start < range.end { Ok(range) } else { Err(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, range) in [
            ("bytes=0-3", Some(Ok(0..4))),
            ("bytes=4-", Some(Ok(4..10))),
            ("bytes=-3", Some(Ok(7..10))),
            ("bytes=-30", Some(Ok(0..10))),
            ("bytes=8-99", Some(Ok(8..10))),
            ("bytes=9-9", Some(Ok(9..10))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=0-18446744073709551615", Some(Ok(0..10))),
            ("bytes=5-4", None),
            ("bytes=0-1,4-5", None),
            ("items=0-1", None),
            ("bytes=a-b", None),
            ("bytes=", None),
        ] {
            assert_eq!(range_of(header, 10), range, "{header}");
        }
        assert_eq!(range_of("bytes=0-", 0), Some(Err(())));
    }
}
