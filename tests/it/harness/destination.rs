//! Destinations that keep what they are sent, and answer as a test wants.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{reserve, within};

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// With this status.
    Status(u16),
    /// With this status and these headers.
    With(u16, Vec<(&'static str, String)>),
    /// Not at all: the connection stays open.
    Never,
    /// Not at all: the connection closes once the request is read.
    Cut,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Recorded {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A header, which must be there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header `{name}`")).to_str().expect("text")
    }
}

/// A destination's server; clones are the same. It ends with the last of them.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    address: SocketAddr,
    _server: Arc<JoinSet<()>>,
}

struct Shared {
    state: Mutex<State>,
    count: watch::Sender<usize>,
}

struct State {
    recorded: Vec<Recorded>,
    /// How the next ones are answered, then `usual`.
    next: VecDeque<Reply>,
    usual: Reply,
}

impl Recorder {
    /// One that answers 200.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = State { recorded: Vec::new(), next: VecDeque::new(), usual: Reply::Status(200) };
        let shared = Arc::new(Shared { state: Mutex::new(state), count: watch::Sender::new(0) });
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&shared)));
        Self { shared, address, _server: Arc::new(server) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The section of an `http` destination `name` that is this, to which `keys` may add.
    pub(crate) fn section(&self, name: &str, keys: &str) -> String {
        format!("[destinations.{name}]\nkind = \"http\"\nurl = \"{}\"\n{keys}\n", self.url())
    }

    /// How every request is answered from now on.
    pub(crate) fn answer(&self, reply: Reply) {
        let mut state = self.shared.state.lock().expect("no panic");
        state.next.clear();
        state.usual = reply;
    }

    /// How the next requests are answered, one each.
    pub(crate) fn answer_next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.state.lock().expect("no panic").next.extend(replies);
    }

    /// What came so far.
    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        self.shared.state.lock().expect("no panic").recorded.clone()
    }

    /// The bodies that came so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.recorded().iter().map(Recorded::json).collect()
    }

    /// What came since the last call of this.
    pub(crate) fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.shared.state.lock().expect("no panic").recorded)
    }

    /// Waits until `count` requests have come in all.
    pub(crate) async fn received(&self, count: usize) {
        let mut counts = self.shared.count.subscribe();
        within("a request at a destination", counts.wait_for(|seen| *seen >= count)).await.expect("the recorder lives");
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // How it ends is the test's doing.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = {
        let mut state = shared.state.lock().expect("no panic");
        state.recorded.push(Recorded { path: parts.uri.to_string(), headers: parts.headers, body });
        state.next.pop_front().unwrap_or_else(|| state.usual.clone())
    };
    shared.count.send_modify(|count| *count += 1);
    let (status, headers) = match reply {
        Reply::Status(status) => (status, Vec::new()),
        Reply::With(status, headers) => (status, headers),
        Reply::Never => std::future::pending().await,
        Reply::Cut => return Err(io::Error::other("cut")),
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    Ok(response)
}

/// An address where nobody listens, for as long as the socket lives.
pub(crate) fn closed_address() -> (TcpSocket, SocketAddr) {
    let socket = reserve();
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address)
}
