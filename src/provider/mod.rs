//! Providers: the vendors whose webhooks and API we speak.
//!
//! A closed set of providers, each behind the same verbs of [`Source`]: verify a request, explain why one did not verify, read
//! an event, and ask the provider's API. Nothing behind this module knows any provider's words: what comes out are
//! [`event::Facts`] and [`task::Fetched`].
//!
//! What must hold: verifying and reading are pure and never panic, whatever bytes come; a source's key goes to its own
//! `base_url` and nowhere else; and no `Debug`, error or explanation shows a key or a path token.

pub mod budget;
pub mod error;
pub mod manus;
mod source;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize};

pub use budget::{Budget, Budgets, Use};
pub use error::ApiError;
pub use source::Source;

use crate::event;
use crate::setting::Secret;
use crate::signature::rsa::{KeyError, PublicKey};
use crate::task;

/// The names of the providers, for messages.
pub const PROVIDERS: &[&str] = &["manus"];

/// One `[sources.NAME]` section; its `provider` key says which.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum Config {
    /// <https://manus.im>
    Manus(manus::Config),
}

impl Config {
    /// Reads the section of a source of `provider`, without its `provider` key. What it says is then to be checked.
    ///
    /// # Errors
    /// For an unknown provider or key, and a value of the wrong type.
    pub fn parse<'de, D: Deserializer<'de>>(provider: &str, section: D) -> Result<Self, D::Error> {
        match provider {
            "manus" => manus::Config::deserialize(section).map(Self::Manus),
            other => Err(D::Error::unknown_variant(other, PROVIDERS)),
        }
    }

    /// Checks what the types do not: all that is wrong, each in a line that begins with its key.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        match self {
            Self::Manus(config) => config.check(),
        }
    }

    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        match self {
            Self::Manus(_) => "manus",
        }
    }

    /// The keys of `provider`'s section that hold secrets, each of which may come from a file (`x_file`).
    #[must_use]
    pub fn secrets(provider: &str) -> &'static [&'static str] {
        match provider {
            "manus" => manus::SECRETS,
            _ => &[],
        }
    }

    /// The most bytes of a body that are accepted.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        match self {
            Self::Manus(config) => config.max_body_bytes.bytes(),
        }
    }

    /// The path tokens, any of which opens the source; none means that the plain path does.
    #[must_use]
    pub fn path_tokens(&self) -> &[Secret] {
        match self {
            Self::Manus(config) => &config.path_token,
        }
    }

    /// Whether requests are verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        match self {
            Self::Manus(config) => config.verify == manus::Verify::Signature,
        }
    }
}

/// Why a source cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pinned key cannot be read.
    #[error("sources.{name}: cannot read `public_key_file` {}: {cause}", .path.display())]
    KeyFile {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The pinned key is none.
    #[error("sources.{name}: `public_key_file` {} is of no use: {cause}", .path.display())]
    Key {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: KeyError,
    },
}

/// A webhook request, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its exact bytes.
    pub body: &'a [u8],
    /// Path and query exactly as received, beginning with `/webhooks/`, a path token included.
    pub url_suffix: &'a str,
    /// When it was received.
    pub now: Timestamp,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The `event` member of the envelope.
    pub facts: event::Facts,
    /// Whether it is the provider's test request at registration.
    pub ping: bool,
}

/// Why a request was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// Whether the signature itself is good and only its time is not: then it may be our clock that is wrong.
    pub genuine: bool,
}

impl Refusal {
    /// Whether the fault may be ours: an old key, or a wrong clock. What is missing or malformed is so under every key.
    #[must_use]
    pub fn may_be_ours(&self) -> bool {
        matches!(self.kind, RefusalKind::SignatureInvalid | RefusalKind::TimestampStale)
    }

    /// A refusal of something that nothing speaks for.
    #[must_use]
    pub fn of(kind: RefusalKind) -> Self {
        Self { kind, genuine: false }
    }
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The signature header is not there.
    SignatureMissing,
    /// It is there more than once, is not Base64, or has the wrong length.
    SignatureMalformed,
    /// It is not the signature of this body for this URL by one of the keys.
    SignatureInvalid,
    /// The timestamp header is not there.
    TimestampMissing,
    /// It is there more than once, or is not a plain decimal number.
    TimestampMalformed,
    /// The signature is good, but its time is too far from ours.
    TimestampStale,
    /// The `Authorization` header is not the one that was agreed.
    AuthorizationInvalid,
}

impl RefusalKind {
    /// The `code` in the answer, the metrics and the list of rejections.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureInvalid => "signature_invalid",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampStale => "timestamp_stale",
            Self::AuthorizationInvalid => "authorization_invalid",
        }
    }
}

/// What came of asking for verification keys.
#[derive(Clone, Debug, Default)]
pub struct KeyAnswer {
    /// The keys that were found, each once; one is enough.
    pub keys: Vec<PublicKey>,
    /// How far the provider's clock is ahead of ours, by its `Date` header, to the second; negative if it is behind.
    pub skew: Option<SignedDuration>,
    /// Every call that failed.
    pub errors: Vec<ApiError>,
}

/// A task as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The provider's id.
    pub task_id: String,
    /// Where it stands. A list does not tell one that a person stopped from one that finished.
    pub state: task::State,
    /// Whether background jobs of its own still run.
    pub background: bool,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
    /// When the provider made it.
    pub created_at: Option<Timestamp>,
    /// When the provider last changed it.
    pub updated_at: Option<Timestamp>,
}

/// What our key says about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It is ours.
    Ours {
        /// What proves it, for people: `private`, `readable` or `visible`.
        how: &'static str,
    },
    /// Our key can read it, but so may others; that is no proof.
    Visible,
}

/// A task to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// What to do.
    pub prompt: String,
    /// The agent profile, such as `manus-1.6-lite`; the provider's default if there is none.
    pub profile: Option<String>,
}

/// A task that was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The provider's id.
    pub task_id: String,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
}

/// A webhook that is registered with the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// The provider's id, for deleting it.
    pub id: String,
    /// The registered URL; it may hold a path token.
    pub url: Option<String>,
    /// `active` or `inactive`, where the provider tells.
    pub status: Option<String>,
    /// When it was registered.
    #[serde(with = "crate::clock::optional")]
    pub created_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{File, FileFormat, Value};

    fn section(toml: &str) -> Value {
        let text = format!("[source]\n{toml}");
        config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build().unwrap().get("source").unwrap()
    }

    /// The section, or all that is wrong with it.
    fn parse(toml: &str) -> Result<manus::Config, String> {
        let Config::Manus(config) = Config::parse("manus", section(toml)).map_err(|error| error.to_string())?;
        let wrong = Config::Manus(config.clone()).check();
        if wrong.is_empty() { Ok(config) } else { Err(wrong.join("\n")) }
    }

    #[test]
    fn a_key_is_all_that_a_source_needs() {
        let config = parse("api_key = 'sk-1'").unwrap();
        assert_eq!(config, manus::Config { api_key: Some(Secret::new("sk-1")), ..manus::Config::default() });
        assert_eq!(config.base_url, "https://api.manus.ai");
    }

    #[test]
    fn values_may_be_text_as_in_the_environment() {
        let config = parse(
            "api_key = 'sk-1'\napi_version = 'v1'\nrequests_per_minute = '90'\nquarantine_after = '1h'\nmax_body_bytes = '1MiB'\n\
             path_token = 'a,b'\nverify = 'none'\nfetch = 'off'\nownership = 'visible'\ntimeout = '3s'",
        )
        .unwrap();
        assert_eq!((config.requests_per_minute, config.max_body_bytes.bytes(), config.path_token.len()), (90, 1 << 20, 2));
        assert_eq!((config.api_version, config.fetch), (manus::ApiVersion::V1, manus::Switch::Off));
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_write() {
        for (toml, expected) in [
            ("", "`api_key` is missing"),
            ("verify = 'none'", "`api_key` is missing"),
            ("api_key = ''", "`api_key` is empty"),
            ("api_key = 'qq zz'", "`api_key` holds a space"),
            ("api_key = 'k'\npath_token = ['a', '']", "`path_token` is empty"),
            ("api_key = 'k'\npath_token = 'a/b'", "`path_token` may hold only"),
            ("api_key = 'k'\npath_token = '..'", "`path_token` may hold only"),
            ("api_key = 'k'\nfetch = 'off'", "`fetch = \"off\"` needs `verify = \"none\"`"),
            ("api_key = 'k'\nbase_url = 'https://api.manus.ai/v2'", "write `base_url = \"https://api.manus.ai\"`"),
            ("api_key = 'k'\nbase_url = 'https://api.manus.ai/?a'", "write `base_url = \"https://api.manus.ai\"`"),
            ("api_key = 'k'\nbase_url = 'api.manus.ai'", "`base_url` is not a URL"),
            ("api_key = 'k'\nbase_url = 'ftp://api.manus.ai'", "must be an http or https origin"),
            ("api_key = 'k'\nbase_url = 'https://me:s3cret@api.manus.ai'", "must not hold a user name"),
            ("api_key = 'k'\nrequests_per_minute = 0", "`requests_per_minute` must be at least 1"),
            ("api_key = 'k'\nmax_body_bytes = 0", "`max_body_bytes` must be at least 1"),
            ("api_key = 'k'\ntimeout = '0s'", "`timeout` must be longer"),
            ("api_key = 'k'\napi_version = 'v3'", "v3"),
            ("api_key = 'k'\nverifi = 'none'", "unknown field `verifi`"),
        ] {
            let error = parse(toml).unwrap_err();
            assert!(error.contains(expected), "{toml}: {error}");
            assert!(!error.contains("s3cret") && !error.contains("qq zz"), "{error}");
        }
        assert_eq!(parse("api_key = 'k'\nbase_url = 'http://localhost:9000/'").map(|config| config.requests_per_minute), Ok(60));
        assert!(Config::parse("openai", section("")).unwrap_err().to_string().contains("manus"));
    }

    #[test]
    fn a_source_prints_with_its_provider_and_without_its_secrets() {
        let config = Config::Manus(parse("api_key = 'sk-1'\npath_token = ['a', 'b']").unwrap());
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.starts_with(r#"{"provider":"manus","api_version":"v2","api_key":"[redacted]""#), "{text}");
        assert!(text.contains(r#""path_token":["[redacted]","[redacted]"]"#), "{text}");
        assert!(Config::secrets("manus").contains(&"api_key"));
    }
}
