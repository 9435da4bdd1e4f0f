//! Files behind links that are signed for a while, and differ on each answer, as links of a CDN do. What was cut off can be fetched
//! on its own, as there.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::Shared;
use super::state::State;
use crate::clock;
use crate::event::hex;

/// Members whose numbers are the user's own, and are never turned into strings.
const VERBATIM: [&str; 2] = ["value", "confirm_input_schema"];

impl State {
    /// Makes `value` fit to be sent: links are signed, and numbers become strings if asked for.
    pub(super) fn dress(&mut self, value: &mut Value, strings: bool) {
        match value {
            Value::String(text) if self.is_plain_link(text) => *text = self.sign_link(text),
            Value::Number(number) if strings => *value = number.to_string().into(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.dress(item, strings)),
            Value::Object(members) => {
                for (name, member) in members {
                    self.dress(member, strings && !VERBATIM.contains(&name.as_str()));
                }
            }
            _ => {}
        }
    }

    fn is_plain_link(&self, text: &str) -> bool {
        text.strip_prefix(&self.base_url).is_some_and(|path| path.starts_with("/files/") && !path.contains('?'))
    }

    fn sign_link(&mut self, link: &str) -> String {
        let policy = self.new_id();
        let expires = clock::after(self.now(), self.link_lifetime).as_second();
        let path = &link[self.base_url.len()..];
        let signature = self.link_signature(path, &policy, expires);
        format!("{link}?Policy={policy}&Key-Pair-Id=KSIMULATOR&Signature={signature}&Expires={expires}")
    }

    fn link_signature(&self, path: &str, policy: &str, expires: i64) -> String {
        let mut text = self.link_secret.to_vec();
        text.extend_from_slice(format!("{policy} {expires} {path}").as_bytes());
        hex(&digest(&SHA256, &text).as_ref()[..16])
    }

    fn link_is_good(&self, path: &str, query: &str) -> bool {
        let part = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let (Some(policy), Some(signature)) = (part("Policy"), part("Signature")) else { return false };
        let Some(expires) = part("Expires").and_then(|text| text.parse().ok()) else { return false };
        !self.faults.links_expired && self.now().as_second() <= expires && signature == self.link_signature(path, policy, expires)
    }
}

/// `GET /files/{id}/{name}?Policy=…`: the file, or 403 as a CDN says it.
pub(super) async fn serve(
    Extract(shared): Extract<Arc<Shared>>,
    Path((id, _)): Path<(String, String)>,
    uri: Uri,
    asked: HeaderMap,
) -> Response {
    let state = shared.lock();
    if !state.link_is_good(uri.path(), uri.query().unwrap_or_default()) {
        let denied = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessDenied</Code></Error>";
        return (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "text/xml")], denied).into_response();
    }
    match state.files.get(&id) {
        Some(file) => {
            let (whole, tag) = (file.bytes.clone(), format!("\"{id}\""));
            let headers = [(header::CONTENT_TYPE, file.content_type.clone()), (header::ETAG, tag.clone())];
            let from = rest_asked_for(&asked, &tag).filter(|from| *from < whole.len());
            let Some(from) = from else { return (headers, whole).into_response() };
            let range = [(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", whole.len() - 1, whole.len()))];
            (StatusCode::PARTIAL_CONTENT, headers, range, whole.slice(from..)).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Where the rest begins that a request asks for, if that is all that it asks for, and of this file.
fn rest_asked_for(asked: &HeaderMap, tag: &str) -> Option<usize> {
    let text = |name| asked.get(name)?.to_str().ok();
    let same = text(header::IF_RANGE).is_none_or(|asked| asked == tag);
    text(header::RANGE).filter(|_| same)?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}
