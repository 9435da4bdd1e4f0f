//! `Idempotency-Key`: a post that a program sends again is answered again, and done once.
//!
//! What must hold:
//! - Nothing is done before a row says that it is about to be. What may have been done is not done again under the same key, whatever
//!   becomes of this process; only an answer of 4xx says that nothing was, and frees the key.
//! - What was begun is done to its end, and its answer kept, whether or not somebody still waits for it; whoever stops the program waits
//!   for it ([`Acts::ended`]).
//! - Who may not act learns nothing of a key: whoever comes here was let in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, digest};
use axum::RequestPartsExt as _;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::api::{Admin, Refused};
use super::extract::bad_body;
use super::extract::too_large;
use super::task::{MAX_CREATE, ONLY_SOURCE};
use crate::event::hex;
use crate::store::idempotency::{Begun, LARGEST, NewPost, Post, Reply, Stands};

/// Whose post it is: a draft of the IETF, `draft-ietf-httpapi-idempotency-key-header`.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says of an answer that it was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The longest key.
pub(super) const MAX_KEY: usize = 255;
/// The most bytes of a post, but for [`MAX_CREATE`]: what axum takes where nothing else is said.
const MAX_BODY: usize = 2 << 20;
/// What creates tasks.
const CREATE: &str = "/api/v1/tasks";

/// The posts with a key that this process is at.
#[derive(Clone, Debug)]
pub struct Acts {
    /// This process, where the store has no name for it.
    me: Uuid,
    tasks: TaskTracker,
    /// By the digest of their key, what was sent.
    at_work: Arc<Mutex<HashMap<String, String>>>,
}

impl Acts {
    pub(super) fn new() -> Self {
        Self { me: Uuid::now_v7(), tasks: TaskTracker::new(), at_work: Arc::default() }
    }

    /// Waits for what is in hand. To be called when no more can come.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn at_work(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a key up.
    ///
    /// # Errors
    /// What came with it, where it is in hand already.
    fn take_up(&self, key: &str, sent: &str) -> Result<InHand, String> {
        match self.at_work().entry(key.to_owned()) {
            Entry::Occupied(taken) => Err(taken.get().clone()),
            Entry::Vacant(free) => {
                free.insert(sent.to_owned());
                Ok(InHand { acts: self.clone(), key: key.to_owned() })
            }
        }
    }
}

/// A key that is in hand, as long as this lives.
struct InHand {
    acts: Acts,
    key: String,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.acts.at_work().remove(&self.key);
    }
}

/// Does a post with a key once; whatever has none, as ever.
pub(super) async fn once(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    if *request.method() != Method::POST || !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let done = match key_of(request.headers()) {
        Ok(None) => return next.run(request).await,
        Ok(Some(key)) => keyed(admin, key, request, next).await,
        Err(refused) => Err(refused),
    };
    done.unwrap_or_else(Refused::into_response)
}

/// The digest of the key that a request came with.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let title =
        "`Idempotency-Key` is one header of 1 to 255 visible ASCII characters, in quotes or not: a UUID of yours, for one";
    let bad = || Refused::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", title);
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(bad)?;
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or_else(bad)?,
        None => text.to_owned(),
    };
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    Ok(Some(hex(digest(&SHA256, key.as_bytes()).as_ref())))
}

/// What a string of structured fields (RFC 9651) stands for, behind its first quote.
fn unquote(quoted: &str) -> Option<String> {
    let (mut key, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => key.push(chars.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            plain => key.push(plain),
        }
    }
}

/// The digest of what was sent.
fn sent(uri: &Uri, body: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    let target = uri.path_and_query().map_or(uri.path(), |target| target.as_str());
    for part in [b"POST", target.as_bytes(), body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    hex(context.finish().as_ref())
}

async fn keyed(admin: Arc<Admin>, key: String, request: Request, next: Next) -> Result<Response, Refused> {
    let (mut parts, body) = request.into_parts();
    let body = whole(parts.uri.path(), body).await?;
    let (sent, me) = (sent(&parts.uri, &body), admin.store.replica().unwrap_or(admin.acts.me));
    if let Some(post) = admin.store.post(&key, me, admin.days.0.now()).await?
        && let Some(told) = told(post, &sent)
    {
        return told;
    }
    let in_hand = match admin.acts.take_up(&key, &sent) {
        Ok(in_hand) => in_hand,
        Err(theirs) if theirs == sent => return Ok(at_work()),
        Err(_) => return Err(reused()),
    };
    let task = task_of(&admin, &mut parts).await;
    let post = NewPost { id: Uuid::now_v7(), key, request: sent, holder: me, task };
    let act = {
        let admin = Arc::clone(&admin);
        async move {
            let done = act(&admin, post, Request::from_parts(parts, Body::from(body)), next).await;
            drop(in_hand);
            done
        }
    };
    // Whoever waits for it may go: it is done to its end all the same.
    match admin.acts.tasks.spawn(act).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(unknown()),
        },
    }
}

/// The body of a post, as large as its route takes it.
async fn whole(path: &str, body: Body) -> Result<Bytes, Refused> {
    let most = if path == CREATE { MAX_CREATE } else { MAX_BODY };
    to_bytes(body, most).await.map_err(|error| match error.into_inner().downcast::<LengthLimitError>() {
        Ok(_) => too_large(),
        Err(error) => bad_body(format!("the body did not come whole: {error}")),
    })
}

/// The task that the path of a post names: the source, and its id.
async fn task_of(admin: &Admin, parts: &mut Parts) -> Option<(String, String)> {
    let named = parts.extract::<RawPathParams>().await.ok()?;
    let word = |name: &str| named.iter().find(|(known, _)| *known == name).map(|(_, word)| word.to_owned());
    let (source, task_id) = word("source").zip(word("task_id"))?;
    let source = if source == ONLY_SOURCE { admin.actions.source(None).ok()?.name().to_owned() } else { source };
    Some((source, task_id))
}

/// Writes down that a post is about to be done, has it done, and writes down what came of it.
async fn act(admin: &Admin, post: NewPost, request: Request, next: Next) -> Result<Response, Refused> {
    let (id, sent, clock) = (post.id, post.request.clone(), &admin.days.0);
    match admin.store.begin_post(post, clock.now()).await {
        Ok(Begun::Yes) => {}
        // Nobody here is at it: its key is in our hand.
        Ok(Begun::Known(post)) => return told(post, &sent).unwrap_or_else(|| Err(unknown())),
        Ok(Begun::Full) => {
            let title = "as many posts with a key are in hand, or of unknown outcome, as may be: come again";
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", title));
        }
        Err(error) => {
            // It may have got through, and nothing was done.
            let _ = admin.store.undo_post(id).await;
            return Err(error.into());
        }
    }
    let (parts, body) = next.run(request).await.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return Err(unknown()) };
    let kept = if parts.status.is_client_error() {
        admin.store.undo_post(id).await
    } else {
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let reply = Reply { status: parts.status.as_u16(), content_type: content_type.map(str::to_owned), body: body.to_vec() };
        admin.store.end_post(id, reply, about(&body), clock.now()).await
    };
    // It is answered all the same. Who sends it again is told that nobody knows.
    if let Err(error) = kept {
        tracing::warn!(error = %error, "what a post with a key was answered was not kept: {error}");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The task that an answer is about.
fn about(body: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct About {
        source: String,
        task_id: String,
    }
    let about: About = serde_json::from_slice(body.get(..LARGEST).unwrap_or(body)).ok()?;
    Some((about.source, about.task_id))
}

/// What is told of a post that was sent before; `None` where only who has it in hand knows.
fn told(post: Post, sent: &str) -> Option<Result<Response, Refused>> {
    if post.request != sent {
        return Some(Err(reused()));
    }
    Some(match post.stands {
        Stands::Here => return None,
        Stands::Elsewhere => Ok(at_work()),
        Stands::Unknown => Err(unknown()),
        Stands::Done(status) => {
            let title = format!(
                "this was done, and answered {status}; the answer is not kept (it was too large, or older than others that needed its \
                 room, or its task was erased): GET what it was about"
            );
            Err(Refused::new(StatusCode::CONFLICT, "answer_not_kept", title))
        }
        Stands::Answered(reply) => Ok(again(reply)),
    })
}

/// The same answer once more.
fn again(Reply { status, content_type, body }: Reply) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let content_type = content_type.and_then(|content_type| HeaderValue::from_str(&content_type).ok());
    response.headers_mut().extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type)));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn at_work() -> Response {
    let title = "this is being done at this moment, since it was sent before with the same key: come again for its answer";
    let mut response = Refused::new(StatusCode::CONFLICT, "in_flight", title).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn unknown() -> Refused {
    let title = "this was begun when it was sent before with the same key, and whether it was done is not known: GET what it was about, \
                 and look at the provider; to have it done anyway, send it with a new key";
    Refused::new(StatusCode::CONFLICT, "outcome_unknown", title)
}

fn reused() -> Refused {
    let title = "something else was sent with this key: each thing to be done needs a key of its own";
    Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", title)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (KEY, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_key_is_the_same_in_quotes_and_without() {
        let key = |value| key_of(&headers(&[value])).unwrap().unwrap();
        assert_eq!(key("8e03978e"), key("\"8e03978e\""));
        assert_eq!(key(r#"a"b\c"#), key(r#""a\"b\\c""#));
        assert_ne!(key("a"), key("A"));
        assert!(key_of(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(MAX_KEY);
        let longest: HeaderMap = [(KEY, HeaderValue::from_str(&long).unwrap())].into_iter().collect();
        assert!(key_of(&longest).is_ok());
        let longer: HeaderMap = [(KEY, HeaderValue::from_str(&format!("{long}x")).unwrap())].into_iter().collect();
        assert_eq!(key_of(&longer).unwrap_err().status(), StatusCode::BAD_REQUEST);
        for wrong in [
            &[""][..],
            &["\"\""],
            &["a b"],
            &["a\tb"],
            &["\"a"],
            &["\"a\";x=1"],
            &["\"a\\b\""],
            &["\"a b\""],
            &["\"a\\"],
            &["a", "a"],
        ] {
            assert_eq!(key_of(&headers(wrong)).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong:?}");
        }
        let strange: HeaderMap = [(KEY, HeaderValue::from_bytes("\u{fc}".as_bytes()).unwrap())].into_iter().collect();
        assert!(key_of(&strange).is_err());
    }

    #[test]
    fn what_was_sent_is_told_apart_by_all_of_it() {
        let sent = |target: &'static str, body: &str| sent(&Uri::from_static(target), body.as_bytes());
        let one = sent("/a?b", "c");
        assert_eq!(one, sent("/a?b", "c"));
        for other in [sent("/a", "c"), sent("/a?b", "c "), sent("/a?", "bc"), sent("/a?bc", "")] {
            assert_ne!(one, other);
        }
    }
}
