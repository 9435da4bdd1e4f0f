//! From a link to the archive.
//!
//! A transfer that breaks goes on where it broke, if the server gave a mark by which it can tell that the file is still the same;
//! else it begins again. What follows from a failure is said by whoever knows ([`Failure`]): the worker only obeys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use reqwest::{Response, StatusCode};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::incoming::Incoming;
use super::place::Place;
use super::{Config, Error};
use crate::clock::Clock;
use crate::http::guard::{self, Guard};
use crate::http::{self, classify};
use crate::retry;

/// How often one attempt goes on after a transfer broke.
const RESUMES: u32 = 5;
/// For the words of an error alone: how long a transfer may be silent is the guard's affair.
const STALL: Duration = Duration::from_secs(30);

/// A file that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Of its content, in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The type that the server gave, where it says more than "some bytes".
    pub content_type: Option<String>,
    /// To be held until a row names it.
    pub hold: Hold,
}

/// Keeps what was saved from being deleted as something that no row names; clones share it.
#[derive(Clone, Debug)]
pub struct Hold(#[expect(dead_code, reason = "it is held, and nothing else")] Arc<OwnedRwLockReadGuard<()>>);

impl PartialEq for Hold {
    /// It says nothing about what was saved.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hold {}

/// Why a file was not saved, and what follows. The reasons are for people, and hold no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is larger than it may be.
    TooLarge(String),
    /// The link is dead: a fresh one may not be.
    LinkDied(String),
    /// The link is one that we do not open.
    Refused(String),
    /// It did not work this time.
    Later {
        /// Why.
        reason: String,
        /// What the server asked to wait.
        after: Option<Duration>,
    },
    /// The archive does not work.
    Archive(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Archive(error)
    }
}

/// The bytes that the files of a task may still take.
#[derive(Debug)]
pub struct Room(AtomicU64);

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }

    fn left(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Saves what `link` leads to, within `config.file_timeout`.
pub(super) async fn save(
    place: &Place,
    guard: &Guard,
    clock: &Clock,
    config: &Config,
    link: &str,
    room: &Room,
    gate: &Arc<RwLock<()>>,
) -> Result<Saved, Failure> {
    place.ensure_space()?;
    let mut transfer = Transfer { guard, clock, config, room, link, incoming: Incoming::new(place), taken: 0, mark: None };
    let received = tokio::select! {
        received = transfer.receive() => received,
        () = clock.sleep(config.file_timeout) => {
            let reason = format!("it took longer than `archive.file_timeout`, {} s", config.file_timeout.as_secs());
            Err(Failure::Later { reason, after: None })
        }
    };
    let failure = match received {
        Ok(content_type) => {
            let hold = Hold(Arc::new(Arc::clone(gate).read_owned().await));
            match transfer.incoming.finish().await {
                Ok((sha256, size_bytes)) => return Ok(Saved { sha256, size_bytes, content_type, hold }),
                Err(error) => error.into(),
            }
        }
        Err(failure) => {
            transfer.incoming.discard().await;
            failure
        }
    };
    room.give_back(transfer.taken);
    Err(failure)
}

struct Transfer<'a> {
    guard: &'a Guard,
    clock: &'a Clock,
    config: &'a Config,
    room: &'a Room,
    link: &'a str,
    incoming: Incoming<'a>,
    /// What was taken from `room`.
    taken: u64,
    /// By which the server can tell that the file is still the one that began to come.
    mark: Option<HeaderValue>,
}

/// What became of one request.
enum Part {
    /// The file is whole; its type.
    Whole(Option<String>),
    /// The transfer broke.
    Broken(String),
}

impl Transfer<'_> {
    /// Receives the whole file; its type.
    async fn receive(&mut self) -> Result<Option<String>, Failure> {
        let mut resumed = 0;
        loop {
            match self.part().await? {
                Part::Whole(content_type) => return Ok(content_type),
                Part::Broken(reason) if resumed == RESUMES => return Err(Failure::Later { reason, after: None }),
                Part::Broken(_) => resumed += 1,
            }
            if self.mark.is_none() {
                self.begin_again().await;
            }
        }
    }

    async fn begin_again(&mut self) {
        self.incoming.restart().await;
        self.room.give_back(std::mem::take(&mut self.taken));
    }

    async fn part(&mut self) -> Result<Part, Failure> {
        let mut headers = HeaderMap::new();
        // Whatever is packed on the way would not be the file.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let from = self.incoming.size();
        if let (Some(mark), true) = (&self.mark, from > 0) {
            headers.insert(IF_RANGE, mark.clone());
            headers.extend(HeaderValue::try_from(format!("bytes={from}-")).map(|range| (RANGE, range)));
        }
        let response = match self.guard.open(self.link, &headers).await {
            Ok(response) => response,
            Err(error @ guard::Error::Refused(_)) => return Err(Failure::Refused(error.to_string())),
            Err(guard::Error::Http(error @ http::Error::Connect(_))) if from == 0 => {
                return Err(Failure::Later { reason: error.to_string(), after: None });
            }
            Err(guard::Error::Http(error)) => return Ok(Part::Broken(error.to_string())),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if from > 0 && starts_at(&response, from) => {}
            // It does not give parts, or the file is another one by now.
            StatusCode::OK => {
                if from > 0 {
                    self.begin_again().await;
                }
                self.mark = mark(&response);
            }
            _ => return Err(self.refused(&response)),
        }
        self.body(response).await
    }

    async fn body(&mut self, mut response: Response) -> Result<Part, Failure> {
        let rest = response.content_length().unwrap_or(0);
        self.ensure_fits(rest)?;
        let content_type = content_type(&response);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let bytes = chunk.len() as u64;
                    self.ensure_fits(bytes)?;
                    if !self.room.take(bytes) {
                        return Err(self.no_room());
                    }
                    self.taken += bytes;
                    self.incoming.write(&chunk).await?;
                }
                Ok(None) => return Ok(Part::Whole(content_type)),
                Err(error) => return Ok(Part::Broken(classify(&error, STALL).to_string())),
            }
        }
    }

    fn ensure_fits(&self, more: u64) -> Result<(), Failure> {
        if self.incoming.size().saturating_add(more) > self.config.max_file_bytes.0 {
            return Err(Failure::TooLarge(format!("it is larger than `archive.max_file_bytes`, {}", self.config.max_file_bytes)));
        }
        if more > self.room.left() { Err(self.no_room()) } else { Ok(()) }
    }

    fn no_room(&self) -> Failure {
        let most = self.config.max_task_bytes;
        Failure::TooLarge(format!("with it the files of its task are larger than `archive.max_task_bytes`, {most}"))
    }

    /// What an answer means that is not the file.
    fn refused(&self, response: &Response) -> Failure {
        let status = response.status();
        let after =
            response.headers().get(RETRY_AFTER).and_then(|header| retry::retry_after(header.to_str().ok()?, self.clock.now()));
        match status.as_u16() {
            // Storage says "forbidden" of a link whose time is over; some say "bad request".
            400 | 401 | 403 | 404 | 410 => Failure::LinkDied(status.to_string()),
            _ => Failure::Later { reason: status.to_string(), after },
        }
    }
}

/// Whether a part is the one that was asked for.
fn starts_at(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()) == Some(from)
}

/// By which a server can tell whether a file is still the same: a strong tag, or else its time.
fn mark(response: &Response) -> Option<HeaderValue> {
    let tag = response.headers().get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    tag.or(response.headers().get(LAST_MODIFIED)).cloned()
}

/// The type that a server gives, if it is one and says anything.
fn content_type(response: &Response) -> Option<String> {
    let given = response.headers().get(CONTENT_TYPE)?.to_str().ok()?.trim().to_ascii_lowercase();
    let known =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte));
    let essence = given.split(';').next()?.trim();
    let (kind, rest) = essence.split_once('/')?;
    let says_nothing = matches!(essence, "application/octet-stream" | "binary/octet-stream" | "application/x-download");
    (essence.len() <= 100 && known(kind) && known(rest) && !says_nothing).then(|| essence.to_owned())
}
