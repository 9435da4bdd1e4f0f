//! One connection to a server: a request, its answer, and so on. Only what our own servers answer is understood.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer as it came.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// Whether it is a 200 with this word for a status.
    pub(super) fn says(&self, word: &str) -> bool {
        let quoted = |window: &[u8]| {
            window[0] == b'"' && window[window.len() - 1] == b'"' && &window[1..window.len() - 1] == word.as_bytes()
        };
        self.status == 200 && self.body.windows(word.len() + 2).any(quoted)
    }

    /// The id that it tells.
    pub(super) fn id(&self) -> Option<Uuid> {
        const NAME: &[u8] = b"\"id\":\"";
        let at = self.body.windows(NAME.len()).position(|part| part == NAME)? + NAME.len();
        Uuid::try_parse_ascii(self.body.get(at..at + 36)?).ok()
    }
}

/// A connection that is opened when it is needed, and anew after a failure.
pub(super) struct Connection {
    to: SocketAddr,
    stream: Option<TcpStream>,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, stream: None, answer: Vec::with_capacity(4096) }
    }

    /// Opens it beforehand.
    pub(super) async fn open(&mut self) -> io::Result<()> {
        opened(&mut self.stream, self.to).await.map(|_| ())
    }

    /// Sends a request and reads its answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let (stream, answer) = (&mut self.stream, &mut self.answer);
        let exchanged = tokio::time::timeout(PATIENCE, exchanged(stream, self.to, request, answer)).await;
        let exchanged = exchanged.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs()))));
        match exchanged {
            Ok((status, body)) => Ok(Answer { status, body: &self.answer[body] }),
            Err(error) => {
                self.stream = None;
                Err(error)
            }
        }
    }
}

async fn opened(stream: &mut Option<TcpStream>, to: SocketAddr) -> io::Result<&mut TcpStream> {
    if stream.is_none() {
        let fresh = TcpStream::connect(to).await?;
        fresh.set_nodelay(true)?;
        *stream = Some(fresh);
    }
    stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// The status of the answer, and where its body is in `answer`.
async fn exchanged(
    stream: &mut Option<TcpStream>,
    to: SocketAddr,
    request: &[u8],
    answer: &mut Vec<u8>,
) -> io::Result<(u16, Range<usize>)> {
    let stream = opened(stream, to).await?;
    stream.write_all(request).await?;
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::Error::other("the connection was closed before the answer"));
        }
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let (status, length) = head_of(&answer[..head]).ok_or_else(|| io::Error::other("the answer is not one of ours"))?;
        let body = head + 4..head + 4 + length;
        if answer.len() >= body.end {
            return Ok((status, body));
        }
    }
}

/// The status and the length that a head tells.
fn head_of(head: &[u8]) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(head).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length =
        text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    Some((status, length?.1.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(head_of(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7"), Some((503, 7)));
        assert_eq!(head_of(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"), None);
        let body = br#"{"status":"accepted","id":"019a9936-de14-7c3a-9d52-0f6c1e8b4a77"}"#;
        let answer = Answer { status: 200, body };
        assert!(answer.says("accepted") && !answer.says("accept") && !answer.says("duplicate"));
        assert_eq!(answer.id().unwrap().to_string(), "019a9936-de14-7c3a-9d52-0f6c1e8b4a77");
        assert!(!Answer { status: 503, body }.says("accepted"));
    }
}
