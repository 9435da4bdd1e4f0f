//! Files behind links that are signed for a while, and differ on each answer, as links of a CDN do. What was cut off can be fetched
//! on its own, as there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use jiff::Timestamp;

use super::core::{Core, Model};
use crate::clock;
use crate::event::hex;

/// A file that a task hands out.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name, as the agent chose it.
    pub name: String,
    /// Its MIME type.
    pub content_type: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The link that is given to it, if not the simulator's own.
    pub link: Option<String>,
}

impl File {
    /// A file of these bytes.
    #[must_use]
    pub fn new(name: &str, content_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self { name: name.to_owned(), content_type: content_type.to_owned(), bytes: bytes.into(), link: None }
    }

    /// A file that lies behind `link`, wherever that leads.
    #[must_use]
    pub fn elsewhere(name: &str, content_type: &str, link: &str) -> Self {
        Self { link: Some(link.to_owned()), ..Self::new(name, content_type, Bytes::new()) }
    }
}

/// The files of a simulator, and the links to them.
pub(super) struct Shelf {
    files: HashMap<String, File>,
    /// The address in links, without a slash at its end.
    pub(super) base_url: String,
    secret: [u8; 16],
    lifetime: Duration,
}

impl Shelf {
    /// A shelf whose links begin with `base_url`, are signed with `secret`, and are good for `lifetime`.
    pub(super) fn new(base_url: String, secret: [u8; 16], lifetime: Duration) -> Self {
        Self { files: HashMap::new(), base_url, secret, lifetime }
    }

    /// Keeps a file under `id`; its link, not yet signed.
    pub(super) fn keep(&mut self, id: &str, file: &File) -> String {
        if let Some(link) = &file.link {
            return link.clone();
        }
        self.files.insert(id.to_owned(), file.clone());
        let mut url = url::Url::parse(&self.base_url).expect("the base URL was checked at the start");
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(["files", id, &file.name]);
        }
        url.to_string()
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.files.remove(id);
    }

    /// Whether `text` is a link of ours that is not signed yet.
    pub(super) fn is_plain_link(&self, text: &str) -> bool {
        text.strip_prefix(&self.base_url).is_some_and(|path| path.starts_with("/files/") && !path.contains('?'))
    }

    /// When a link that is signed `now` ends to be good.
    pub(super) fn expiry(&self, now: Timestamp) -> Timestamp {
        clock::after(now, self.lifetime)
    }

    /// `link`, signed, if it is one of ours. `policy` makes each signing differ.
    pub(super) fn sign(&self, link: &str, policy: &str, now: Timestamp) -> String {
        if !self.is_plain_link(link) {
            return link.to_owned();
        }
        let expires = self.expiry(now).as_second();
        let path = &link[self.base_url.len()..];
        let signature = self.signature(path, policy, expires);
        format!("{link}?Policy={policy}&Key-Pair-Id=KSIMULATOR&Signature={signature}&Expires={expires}")
    }

    fn signature(&self, path: &str, policy: &str, expires: i64) -> String {
        let mut text = self.secret.to_vec();
        text.extend_from_slice(format!("{policy} {expires} {path}").as_bytes());
        hex(&digest(&SHA256, &text).as_ref()[..16])
    }

    fn is_good(&self, path: &str, query: &str, now: Timestamp) -> bool {
        let part = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let (Some(policy), Some(signature)) = (part("Policy"), part("Signature")) else { return false };
        let Some(expires) = part("Expires").and_then(|text| text.parse().ok()) else { return false };
        now.as_second() <= expires && signature == self.signature(path, policy, expires)
    }
}

/// `GET /files/{id}/{name}?Policy=…`: the file, or 403 as a CDN says it.
pub(super) async fn serve<M: Model>(
    Extract(core): Extract<Arc<Core<M>>>,
    Path((id, _)): Path<(String, String)>,
    uri: Uri,
    asked: HeaderMap,
) -> Response {
    let state = core.lock();
    let shelf = state.shelf();
    if state.links_expired() || !shelf.is_good(uri.path(), uri.query().unwrap_or_default(), state.now()) {
        let denied = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessDenied</Code></Error>";
        return (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "text/xml")], denied).into_response();
    }
    match shelf.files.get(&id) {
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
