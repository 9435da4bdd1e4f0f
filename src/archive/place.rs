//! Where content lies: a folder, or a bucket.
//!
//! `sha256/ab/abcd…` is content, whole. `incoming/INSTANCE/RUN/…` is what is on its way, of one run of one program. A rename within the
//! place makes the one of the other, and is atomic in both kinds: nobody ever sees half a file. In a folder everything is synced to disk before
//! it counts as saved.

use std::fmt;
use std::fs::DirEntry;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig};
use uuid::Uuid;

use super::{Config, Content, Error};
use crate::http;

/// How long an S3 service may be silent: that covers the time in which it takes in a part.
const STALL: Duration = Duration::from_mins(2);
/// How often a request to it is repeated, and for how long.
const RETRIES: (usize, Duration) = (3, Duration::from_secs(30));
/// What nobody has touched for so long is on nobody's way: longer than a file may take.
const LEFT: SignedDuration = SignedDuration::from_hours(24);
/// What is written, read and deleted to see whether the archive works.
const SAMPLE: &[u8] = b"taskhook tries its archive\n";

/// What `archive.url` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing is saved.
    Off,
    /// A folder of this machine; relative to the working directory.
    Folder(PathBuf),
    /// A bucket, and what names in it begin with.
    Bucket { name: String, prefix: Path },
}

/// Reads `archive.url`.
pub(super) fn target(url: &str) -> Result<Target, &'static str> {
    if url == super::OFF {
        return Ok(Target::Off);
    }
    if let Some(folder) = url.strip_prefix("file://") {
        return match folder {
            "" => Err("names no folder; for example `file://data/files`"),
            folder if folder.contains(['?', '#', '%']) => Err("is a file:// with options or escapes, which are not understood"),
            folder => Ok(Target::Folder(PathBuf::from(folder))),
        };
    }
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err("must begin with `file://` or `s3://`, or be `off`");
    };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if name.is_empty() || !name.chars().all(|each| each.is_ascii_alphanumeric() || "-._".contains(each)) {
        return Err("names no bucket; for example `s3://bucket/prefix`");
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.contains(['?', '#', '%']) || prefix.split('/').any(|part| part == "." || part == "..") {
        return Err("has a prefix that is not plain");
    }
    Path::parse(prefix)
        .map(|prefix| Target::Bucket { name: name.to_owned(), prefix })
        .map_err(|_| "has a prefix that is not plain")
}

pub(super) struct Place {
    target: Target,
    shown: String,
    config: Config,
    /// Made at the first use that can: a folder may not be there yet, or not be ours to make.
    store: OnceLock<Arc<dyn ObjectStore>>,
    /// Where what is on its way lies, of all runs of this program.
    incoming: Path,
    /// This run.
    run: String,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("target", &self.target).field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl Place {
    pub(super) fn new(config: &Config, instance: &str) -> Self {
        // A `Config` that was not checked saves nothing, and says at each attempt what is wrong with it.
        let target = target(&config.url).unwrap_or(Target::Off);
        let shown = match &target {
            Target::Folder(folder) => folder.display().to_string(),
            Target::Off | Target::Bucket { .. } => config.url.clone(),
        };
        let incoming = Path::from("incoming").join(instance);
        let run = Uuid::now_v7().to_string();
        Self { target, shown, config: config.clone(), store: OnceLock::new(), incoming, run }
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The store behind it.
    pub(super) fn store(&self) -> Result<&dyn ObjectStore, Error> {
        if let Some(store) = self.store.get() {
            return Ok(&**store);
        }
        let store = match &self.target {
            Target::Off => return Err(Error::Off),
            Target::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| self.unwritable(&error))?;
                let local = LocalFileSystem::new_with_prefix(folder).map_err(|error| self.failed(&error))?;
                Arc::new(local.with_fsync(true).with_automatic_cleanup(true)) as Arc<dyn ObjectStore>
            }
            Target::Bucket { name, prefix } => Arc::new(PrefixStore::new(self.bucket(name)?, prefix.clone())),
        };
        Ok(&**self.store.get_or_init(|| store))
    }

    fn bucket(&self, name: &str) -> Result<impl ObjectStore + use<>, Error> {
        let mut builder = AmazonS3Builder::new().with_bucket_name(name).with_http_connector(Connector).with_retry(RetryConfig {
            max_retries: RETRIES.0,
            retry_timeout: RETRIES.1,
            ..RetryConfig::default()
        });
        // The AWS names are the library's, in lower case; what it does not know is not about S3.
        for (name, value) in &self.config.aws {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value.expose());
            }
        }
        let set = [
            (AmazonS3ConfigKey::Endpoint, self.config.endpoint.as_deref()),
            (AmazonS3ConfigKey::Region, self.config.region.as_deref()),
            (AmazonS3ConfigKey::AccessKeyId, self.config.access_key_id.as_deref()),
            (AmazonS3ConfigKey::SecretAccessKey, self.config.secret_access_key.as_ref().map(|secret| secret.expose().trim())),
            (AmazonS3ConfigKey::Token, self.config.session_token.as_ref().map(|secret| secret.expose().trim())),
        ];
        for (key, value) in set {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
        // Whether it is http or https is what the configured address says.
        builder.with_allow_http(true).build().map_err(|error| self.failed(&error))
    }

    /// What the library says went wrong, in a line for people.
    pub(super) fn failed(&self, error: &object_store::Error) -> Error {
        if let Some(io) = io_error(error) {
            return self.unwritable(io);
        }
        let hint = match &self.target {
            Target::Bucket { .. } => "check `archive.url`, `archive.endpoint`, `archive.region` and the access key",
            Target::Folder(_) | Target::Off => "check `archive.url`",
        };
        Error::Unusable { place: self.shown.clone(), problem: problem(error), hint: hint.to_owned() }
    }

    fn unwritable(&self, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let folder = &self.shown;
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let hint = match error.kind() {
            PermissionDenied => format!("this process runs as uid {uid}; give it the folder: chown -R {uid}:{gid} {folder}"),
            StorageFull | QuotaExceeded => "make room on its disk".to_owned(),
            ReadOnlyFilesystem => "mount it for writing, or set `archive.url` to another folder".to_owned(),
            _ => "set `archive.url` to a folder that can be written".to_owned(),
        };
        Error::Unusable { place: folder.clone(), problem: error.to_string(), hint }
    }

    /// Says no where a folder's disk has too little space left: the store may lie on the same, and goes first.
    pub(super) fn ensure_space(&self) -> Result<(), Error> {
        let Target::Folder(folder) = &self.target else { return Ok(()) };
        let folder = folder.ancestors().find(|folder| folder.exists()).unwrap_or(FilePath::new("."));
        // Where it cannot be known, the write itself will tell.
        let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if free >= self.config.min_free_bytes.0 {
            return Ok(());
        }
        Err(Error::Unusable {
            place: self.shown.clone(),
            problem: format!("{free} bytes are free, `archive.min_free_bytes` is {}", self.config.min_free_bytes),
            hint: "make room on its disk, or set `archive.url` to another one".to_owned(),
        })
    }

    /// A new name for something on its way.
    pub(super) fn on_its_way(&self) -> Path {
        self.incoming.clone().join(self.run.as_str()).join(Uuid::now_v7().to_string())
    }

    pub(super) async fn size(&self, sha256: &str) -> Result<u64, Error> {
        let meta = self.store()?.head(&content(sha256)?).await;
        meta.map(|meta| meta.size).map_err(|error| self.unread(&error))
    }

    pub(super) async fn read(&self, sha256: &str, range: Option<std::ops::Range<u64>>) -> Result<Content, Error> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store()?.get_opts(&content(sha256)?, options).await.map_err(|error| self.unread(&error))?;
        let place = self.shown.clone();
        let broken = move |error: object_store::Error| Error::Unusable {
            place: place.clone(),
            problem: problem(&error),
            hint: "try again".to_owned(),
        };
        Ok(Content { size: found.meta.size, bytes: found.into_stream().map_err(broken).boxed() })
    }

    pub(super) async fn delete(&self, sha256: &str) -> Result<(), Error> {
        match self.store()?.delete(&content(sha256)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn unread(&self, error: &object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => Error::Missing,
            error => self.failed(error),
        }
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        self.ensure_space()?;
        let (store, path) = (self.store()?, self.on_its_way());
        let failed = |error: object_store::Error| self.failed(&error);
        store.put(&path, Bytes::from_static(SAMPLE).into()).await.map_err(failed)?;
        let read = store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        store.delete(&path).await.map_err(failed)?;
        if read == SAMPLE {
            return Ok(());
        }
        Err(Error::Unusable {
            place: self.shown.clone(),
            problem: "it gives back other bytes than were written".to_owned(),
            hint: "do not use it before that is mended".to_owned(),
        })
    }

    /// Removes what other runs left on its way. Where other replicas may run, only what nobody has touched for [`LEFT`]: the rest may
    /// be theirs.
    pub(super) async fn sweep(&self, now: Timestamp) {
        let Ok(store) = self.store() else { return };
        let before =
            if self.config.shared { now.checked_sub(LEFT).unwrap_or(Timestamp::MIN) } else { Timestamp::MAX }.as_second();
        if let Target::Folder(folder) = &self.target {
            // With what the library itself does not list: parts of files that were not complete.
            let (folder, run) = (folder.join(self.incoming.as_ref()), self.run.clone());
            let swept = tokio::task::spawn_blocking(move || {
                let left = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let touched = |entry: &DirEntry| entry.metadata().and_then(|about| about.modified()).ok();
                let is_left = |entry: &DirEntry| {
                    entry.file_name() != *run
                        && touched(entry).and_then(|at| Timestamp::try_from(at).ok()).is_none_or(|at| at.as_second() < before)
                };
                left.filter(is_left).for_each(|entry| {
                    // What cannot be removed takes room, and does no other harm.
                    let _ = std::fs::remove_dir_all(entry.path());
                });
            });
            let _ = swept.await;
            return;
        }
        let own = self.incoming.clone().join(self.run.as_str());
        let listed = store.list(Some(&self.incoming)).filter_map(|found| std::future::ready(found.ok()));
        let is_left = |found: &ObjectMeta| !found.location.prefix_matches(&own) && found.last_modified.timestamp() < before;
        let left: Vec<_> = listed.filter(|found| std::future::ready(is_left(found))).collect().await;
        for left in left {
            if let Err(error) = store.delete(&left.location).await {
                tracing::debug!(error = %error, "what was on its way into the archive is left there");
            }
        }
    }
}

/// The path of content. What is no digest has none, so that no path can be made of anything else.
pub(super) fn content(sha256: &str) -> Result<Path, Error> {
    if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::Missing);
    }
    Ok(Path::from_iter(["sha256", &sha256[..2], sha256]))
}

/// The system's own error inside, if a folder gave one.
fn io_error(error: &object_store::Error) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// What an S3 service or its library says, on one short line: what stands in `<Message>` where it sent its usual answer, else the
/// innermost cause.
fn problem(error: &object_store::Error) -> String {
    match error {
        // An answer to HEAD has no message.
        object_store::Error::PermissionDenied { .. } => return "access is denied (403)".to_owned(),
        object_store::Error::Unauthenticated { .. } => return "the access key is not accepted (401)".to_owned(),
        object_store::Error::NotFound { .. } => return "there is no such place (404)".to_owned(),
        _ => {}
    }
    let text = error.to_string();
    let between = |start: &str, end: &str| {
        let (_, rest) = text.split_once(start)?;
        rest.split_once(end).map(|(inside, _)| inside.to_owned())
    };
    let told = between("<Code>", "</Code>").map(|code| match between("<Message>", "</Message>") {
        Some(message) => format!("{code}: {message}"),
        None => code,
    });
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    crate::text::one_line(&told.unwrap_or_else(|| cause.to_string()), 300)
}

/// Makes the library use a client of ours.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(http::transfer_client(STALL, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_folder_or_a_bucket() {
        assert_eq!(target("file://data/files"), Ok(Target::Folder("data/files".into())));
        assert_eq!(target("file:///data/files"), Ok(Target::Folder("/data/files".into())));
        let bucket = |name: &str, prefix: &str| Ok(Target::Bucket { name: name.into(), prefix: Path::from(prefix) });
        assert_eq!(target("s3://bucket"), bucket("bucket", ""));
        assert_eq!(target("s3://my.bucket-1/a/b/"), bucket("my.bucket-1", "a/b"));
        assert_eq!(target("off"), Ok(Target::Off));
    }

    #[test]
    fn only_a_digest_has_a_path() {
        let digest = "d6b681bfce7155d44721afb79c296ef4f0fa80a9dd6b43c5cf74dd0f64c85512";
        assert_eq!(content(digest).unwrap().as_ref(), format!("sha256/d6/{digest}"));
        for other in ["", "..", "../../etc/passwd", &digest[1..], &digest.to_uppercase(), &format!("{}/.", &digest[2..])] {
            assert_eq!(content(other), Err(Error::Missing), "{other}");
        }
    }
}
