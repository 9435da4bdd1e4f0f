//! Where webhooks go in the simulators' tests: a receiver that keeps what came and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A request as a receiver saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

#[derive(Debug)]
struct Inner {
    seen: Vec<Seen>,
    status: u16,
    next: VecDeque<u16>,
}

/// A running receiver; it ends with its last clone.
#[derive(Clone)]
pub(super) struct Receiver {
    inner: Arc<Mutex<Inner>>,
    pub(super) url: String,
    _parts: Arc<JoinSet<()>>,
}

impl Receiver {
    /// Listens for webhooks at `target`.
    pub(super) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{target}", listener.local_addr().unwrap());
        let inner = Arc::new(Mutex::new(Inner { seen: Vec::new(), status: 200, next: VecDeque::new() }));
        let record = Arc::clone(&inner);
        let take = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let mut inner = record.lock().unwrap();
            inner.seen.push(Seen { target: uri.path_and_query().unwrap().to_string(), headers, body });
            let status = inner.next.pop_front().unwrap_or(inner.status);
            StatusCode::from_u16(status).unwrap()
        };
        let mut parts = JoinSet::new();
        parts.spawn(async move { axum::serve(listener, Router::new().fallback(take)).await.unwrap() });
        Self { inner, url, _parts: Arc::new(parts) }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// The text member `name` of each body that came.
    pub(super) fn members(&self, name: &str) -> Vec<String> {
        self.seen().iter().map(|seen| seen.json()[name].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn forget(&self) {
        self.inner.lock().unwrap().seen.clear();
    }

    /// Answers with this status from now on.
    pub(super) fn answer(&self, status: u16) {
        self.inner.lock().unwrap().status = status;
    }

    /// Answers the next requests with these first.
    pub(super) fn answer_next(&self, statuses: &[u16]) {
        self.inner.lock().unwrap().next.extend(statuses);
    }
}
