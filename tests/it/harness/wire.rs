//! Requests byte by byte, for senders that no client would be.

use std::net::SocketAddr;

use serde_json::Value;
use taskhook::http::Answer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// A connection.
pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("somebody listens"))
    }

    /// Sends `bytes`. That the other side may have closed meanwhile is for [`Wire::rest`] to tell.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads until `words` have come.
    pub(crate) async fn until(&mut self, words: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(words) {
            let read = within(words, self.0.read_buf(&mut seen)).await.expect("the connection is open");
            assert!(read > 0, "it closed before `{words}`: {}", String::from_utf8_lossy(&seen));
        }
    }

    /// What comes next, as much of it as is there.
    pub(crate) async fn some(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = within("some bytes", self.0.read_buf(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All that comes until the other side closes.
    pub(crate) async fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        // A reset ends it as well.
        let _ = within("the end of a connection", self.0.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(crate) fn status(answer: &Answer) -> u16 {
    answer.status.as_u16()
}

/// The body as JSON.
pub(crate) fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&answer.body)))
}

/// The `code` of a problem, once the rest of it has been held to RFC 9457.
pub(crate) fn code(answer: &Answer) -> String {
    let body = json(answer);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{body}");
    let mut members: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["code", "status", "title"]);
    assert_eq!(body["status"], status(answer));
    body["code"].as_str().expect("a code").to_owned()
}
