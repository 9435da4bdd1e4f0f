//! The archive: files of tasks, saved before their links die.
//!
//! What must hold:
//! - A file is streamed from its link into the archive, never whole in memory, and every part of the way is bounded: its bytes, the
//!   bytes and the number of all files of its task, its time, and what must stay free on the disk.
//! - What lies in the archive is whole, and lies under the SHA-256 of its content. No name from a payload is ever part of a path;
//!   equal contents are kept once. What is on its way lies apart, and nobody is shown it.
//! - Links are opened by the address guard ([`crate::http::guard`]) and carry nothing of ours.
//! - An archive that does not work never keeps an event from being accepted, and never ends the program: files wait.

mod incoming;
mod link;
mod name;
mod place;
mod save;
mod serve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, Semaphore};

pub use self::link::{KEY_BYTES, Links};
pub use self::name::attachment;
use self::place::Place;
pub use self::save::{Failure, Hold, Room, Saved};
pub use self::serve::router;
use crate::clock::Clock;
use crate::http::guard::Guard;
use crate::setting::{Secret, Size};

/// The keys of `[archive]` that hold secrets.
pub const SECRETS: &[&str] = &["secret_access_key", "session_token"];
/// The value of `archive.url` that saves nothing.
pub const OFF: &str = "off";
/// How many files are on their way at once, over all tasks: each holds up to two parts in memory.
const AT_ONCE: usize = 6;
/// The largest object that an S3 service copies in one go, which is how a file gets its name there.
const S3_FILE_MAX: u64 = 5 << 30;

/// `[archive]`: where files of tasks are saved, and the bounds of that.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `file://` and a folder, `s3://` with a bucket and perhaps a prefix, or `off`.
    pub url: String,
    /// Whether every replica that shares the store sees the folder of a `file://` archive.
    pub shared: bool,
    /// The largest file.
    pub max_file_bytes: Size,
    /// The most bytes of all files of a task.
    pub max_task_bytes: Size,
    /// The most files of a task.
    pub max_files: usize,
    /// The longest that one attempt at a file may take.
    #[serde(with = "humantime_serde")]
    pub file_timeout: Duration,
    /// The longest that an event waits for its files.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// Below this much free space on the disk of a `file://` archive, no file is saved.
    pub min_free_bytes: Size,
    /// Where an S3 service is that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The id of the access key; without it, the variables of AWS and then the machine's role are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// The token of temporary access keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
    /// The variables `AWS_…` of the environment, below the keys above.
    #[serde(skip)]
    pub aws: BTreeMap<String, Secret>,
}

/// `[files]`: a listener that serves what was saved. Off unless set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// The address of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The URL under which readers reach it, without a slash at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// How long a link is good.
    #[serde(with = "humantime_serde")]
    pub link_expiry: Duration,
}

impl Config {
    /// Whether nothing is saved.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.url == OFF
    }

    /// Checks what the types do not: all that is wrong, each the key in `[archive]` and the reason.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if let Err(problem) = place::target(&self.url) {
            wrong.push(("url", problem.to_owned()));
        }
        let zeros = [
            ("max_file_bytes", self.max_file_bytes.0 == 0),
            ("max_task_bytes", self.max_task_bytes.0 == 0),
            ("max_files", self.max_files == 0),
            ("file_timeout", self.file_timeout.is_zero()),
        ];
        wrong.extend(zeros.into_iter().filter(|(_, zero)| *zero).map(|(key, _)| (key, "must be more than 0".to_owned())));
        if self.url.starts_with("s3://") && self.max_file_bytes.0 > S3_FILE_MAX {
            wrong.push(("max_file_bytes", "must be at most 5GiB in an S3 archive".to_owned()));
        }
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(_), None) => wrong.push(("access_key_id", "is set, and `archive.secret_access_key` is not".to_owned())),
            (None, Some(_)) => wrong.push(("secret_access_key", "is set, and `archive.access_key_id` is not".to_owned())),
            _ => {}
        }
        let https = |url: &str| url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if self.endpoint.as_deref().is_some_and(|endpoint| !https(endpoint)) {
            wrong.push(("endpoint", "must be a URL that begins with `https://` or `http://`".to_owned()));
        }
        wrong
    }
}

/// Why the archive did not do what was asked: one line, with what the user can do. It holds no secret and no name of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not there, full, or refuses us.
    #[error("the archive {place}: {problem}; {hint}")]
    Unusable {
        /// Where it is.
        place: String,
        /// What is wrong.
        problem: String,
        /// What the user can do.
        hint: String,
    },
    /// There is no such content in it.
    #[error("the archive has no such file")]
    Missing,
    /// There is no archive.
    #[error("there is no archive (`archive.url` is \"off\")")]
    Off,
}

/// The archive; clones share it.
#[derive(Clone, Debug)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    place: Option<Place>,
    guard: Guard,
    links: Option<Links>,
    clock: Clock,
    slots: Semaphore,
    /// Held by whoever saved something that no row names yet, and alone by whoever deletes.
    gate: Arc<RwLock<()>>,
}

/// That nothing is between its place in the archive and the row that names it, as long as this is held: what no row names then may be
/// deleted.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "it is held, and nothing else")] OwnedRwLockWriteGuard<()>);

/// Content on its way to a reader.
pub struct Content {
    /// The size of the whole, in bytes.
    pub size: u64,
    /// The bytes that were asked for.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl Archive {
    /// The archive that `config` describes. `instance` keeps what is on its way apart from that of other programs; `links` makes
    /// links, where files are served. Nothing is tried here.
    #[must_use]
    pub fn new(config: &Config, instance: &str, guard: Guard, links: Option<Links>, clock: Clock) -> Self {
        let place = (!config.is_off()).then(|| Place::new(config, instance));
        Self(Arc::new(Inner {
            config: config.clone(),
            place,
            guard,
            links,
            clock,
            slots: Semaphore::new(AT_ONCE),
            gate: Arc::default(),
        }))
    }

    /// Whether files are saved.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.place.is_some()
    }

    /// The bounds.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Where it is, for people; no secret.
    #[must_use]
    pub fn place(&self) -> &str {
        self.0.place.as_ref().map_or(OFF, Place::shown)
    }

    /// Saves what `link` leads to, of which `room` limits the size.
    ///
    /// # Errors
    /// [`Failure`], which says what follows.
    pub async fn save(&self, link: &str, room: &Room) -> Result<Saved, Failure> {
        let Inner { config, place, guard, clock, slots, gate, .. } = &*self.0;
        let place = place.as_ref().ok_or(Failure::Archive(Error::Off))?;
        // It is never closed.
        let _slot = slots.acquire().await;
        save::save(place, guard, clock, config, link, room, gate).await
    }

    /// Keeps everything from the last step of its way, if nothing is on it now. Nobody waits for it: what saves goes first.
    #[must_use]
    pub fn alone(&self) -> Option<Alone> {
        Arc::clone(&self.0.gate).try_write_owned().ok().map(Alone)
    }

    /// Deletes the content `sha256`, if it is there.
    ///
    /// # Errors
    /// [`Error::Off`] and [`Error::Unusable`].
    pub async fn delete(&self, _: &Alone, sha256: &str) -> Result<(), Error> {
        self.0.place.as_ref().ok_or(Error::Off)?.delete(sha256).await
    }

    /// What makes links and tells ours from others, where files are served.
    #[must_use]
    pub fn links(&self) -> Option<&Links> {
        self.0.links.as_ref()
    }

    /// A link under which the content `sha256` is served as a file called `name`, for a while from `now`; `None` where files are not
    /// served.
    #[must_use]
    pub fn link(&self, sha256: &str, name: &str, now: Timestamp) -> Option<String> {
        self.0.links.as_ref().map(|links| links.link(sha256, name, now))
    }

    /// The content `sha256`, or the part of it in `range` (from, and up to but not including).
    ///
    /// # Errors
    /// [`Error::Missing`], and [`Error::Unusable`].
    pub async fn read(&self, sha256: &str, range: Option<std::ops::Range<u64>>) -> Result<Content, Error> {
        self.0.place.as_ref().ok_or(Error::Off)?.read(sha256, range).await
    }

    /// The size of the content `sha256`, in bytes.
    ///
    /// # Errors
    /// [`Error::Missing`], and [`Error::Unusable`].
    pub async fn size(&self, sha256: &str) -> Result<u64, Error> {
        self.0.place.as_ref().ok_or(Error::Off)?.size(sha256).await
    }

    /// Writes, reads and deletes one small object.
    ///
    /// # Errors
    /// What does not work.
    pub async fn check(&self) -> Result<(), Error> {
        match &self.0.place {
            Some(place) => place.check().await,
            None => Ok(()),
        }
    }

    /// Removes what a program that was killed left on its way.
    pub async fn sweep(&self) {
        if let Some(place) = &self.0.place {
            place.sweep(self.0.clock.now()).await;
        }
    }
}

/// The type of a file by its name, where that tells; for what a provider and a server did not say.
#[must_use]
pub fn type_of(name: &str) -> Option<String> {
    mime_guess::from_path(Path::new(name)).first_raw().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::guard::{self, Names};

    fn config(url: &str) -> Config {
        Config {
            url: url.to_owned(),
            max_file_bytes: Size(1),
            max_task_bytes: Size(1),
            max_files: 1,
            file_timeout: Duration::from_secs(1),
            wait: Duration::ZERO,
            min_free_bytes: Size(0),
            shared: false,
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            aws: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn what_another_replica_may_be_saving_is_swept_only_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("incoming/instance/another-run");
        let sweep = async |shared, now: &str| {
            std::fs::create_dir_all(&theirs).unwrap();
            let config = Config { shared, ..config(&format!("file://{}", folder.path().display())) };
            let guard = Guard::new(guard::Config { allow_private_addresses: false }, Names::System);
            let archive = Archive::new(&config, "instance", guard, None, Clock::manual(now.parse().unwrap()));
            archive.sweep().await;
            theirs.exists()
        };
        assert!(!sweep(false, "2000-01-01T00:00:00Z").await, "who is alone sweeps all");
        assert!(sweep(true, "2000-01-01T00:00:00Z").await);
        assert!(!sweep(true, "2200-01-01T00:00:00Z").await);
    }

    #[test]
    fn what_cannot_work_is_told_by_key() {
        for url in ["file://data/files", "file:///data/files", "s3://bucket", "s3://bucket/a/prefix", "off"] {
            assert_eq!(config(url).check(), [], "{url}");
        }
        for url in
            ["", "data/files", "file://", "s3://", "s3:///prefix", "https://bucket.example", "s3://bucket/../x", "s3://b?x=1"]
        {
            assert_eq!(config(url).check()[0].0, "url", "{url}");
        }
        let wrong = |change: fn(&mut Config)| {
            let mut config = config("s3://bucket");
            change(&mut config);
            config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(wrong(|config| config.max_file_bytes = Size(6 << 30)), ["max_file_bytes"]);
        assert_eq!(wrong(|config| config.access_key_id = Some("AK".into())), ["access_key_id"]);
        assert_eq!(wrong(|config| config.secret_access_key = Some(Secret::new("x"))), ["secret_access_key"]);
        assert_eq!(wrong(|config| config.endpoint = Some("minio:9000".into())), ["endpoint"]);
        let zero = |config: &mut Config| {
            (config.max_file_bytes, config.max_task_bytes, config.max_files) = (Size(0), Size(0), 0);
            config.file_timeout = Duration::ZERO;
        };
        assert_eq!(wrong(zero), ["max_file_bytes", "max_task_bytes", "max_files", "file_timeout"]);
    }
}
