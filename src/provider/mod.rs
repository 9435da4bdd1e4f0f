//! Providers: the vendors whose webhooks and API we speak.
//!
//! A closed set of providers, each behind the same verbs of [`Source`]: verify a request, explain why one did not verify, read
//! an event, and ask the provider's API. Nothing behind this module knows any provider's words: what comes out are
//! [`crate::event::Facts`] and [`task::Fetched`].
//!
//! What must hold: verifying and reading are pure (but that an event which nothing names gets an id of chance) and never panic,
//! whatever bytes come; a source's key goes to its own `base_url` and nowhere else; and no `Debug`, error or explanation shows a
//! key or a path token.

mod account;
mod agreed;
pub mod budget;
mod content;
pub mod custom;
pub mod error;
mod header;
mod json;
pub mod magic_hour;
pub mod manus;
mod reconcile;
mod request;
mod rest;
mod schema;
mod settings;
mod signed;
mod source;
pub mod standard_webhooks;
pub mod webrun;
mod word;

use std::path::PathBuf;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::de::Error as _;
use serde::{Deserializer, Serialize};
use serde_json::Value;

pub use account::{Account, Answered};
pub use budget::{Budget, Budgets, Use};
pub use error::ApiError;
pub use reconcile::{Expected, ListPage, Lost, Polls, Reconcile, Recovered, Rounds};
pub use request::{Kept, Reading, Refusal, RefusalKind, Reply, Request};
pub use schema::misfits;
pub use settings::{Common, Switch, Verify};
pub use source::{Registration, Source};

use self::settings::{Settings, keys_of, part};
use crate::clock::Clock;
use crate::setting::Secret;
use crate::signature::rsa::{KeyError, PublicKey};
use crate::task;

/// The closed set: each provider by its name in a configuration, and the module that has its `Config`.
macro_rules! providers {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($module:ident),)*) => {
        /// The names of the providers, for messages.
        pub const PROVIDERS: &[&str] = &[$($name),*];

        /// The keys of a source that are its provider's own; the `provider` key says whose.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "provider")]
        pub enum Own {
            $($(#[$doc])* #[serde(rename = $name)] $variant(Box<$module::Config>),)*
        }

        impl Own {
            fn settings(&self) -> &dyn Settings {
                match self {
                    $(Self::$variant(config) => config.as_ref(),)*
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// The names of all keys of a section, and those of them that hold secrets.
            fn keys(provider: &str) -> (&'static [&'static str], &'static [&'static str]) {
                match provider {
                    $($name => {
                        static KEYS: LazyLock<Vec<&str>> =
                            LazyLock::new(|| [keys_of::<$module::Config>(), keys_of::<Common>()].concat());
                        static SECRETS: LazyLock<Vec<&str>> =
                            LazyLock::new(|| [$module::SECRETS, settings::SECRETS].concat());
                        (&KEYS, &SECRETS)
                    })*
                    _ => (&[], &[]),
                }
            }

            fn parse<'de, D: Deserializer<'de>>(provider: &str, section: D) -> Result<Self, D::Error> {
                match provider {
                    $($name => part(section, Self::keys(provider).0).map(Box::new).map(Self::$variant),)*
                    other => Err(D::Error::unknown_variant(other, PROVIDERS)),
                }
            }
        }
    };
}

providers! {
    /// A sender that is described by configuration.
    "custom" => Custom(custom),
    /// <https://magichour.ai>
    "magic_hour" => MagicHour(magic_hour),
    /// <https://manus.im>
    "manus" => Manus(manus),
    /// Who signs by <https://www.standardwebhooks.com>
    "standard_webhooks" => StandardWebhooks(standard_webhooks),
    /// <https://webrun.ai>
    "webrun" => WebRun(webrun),
}

/// One `[sources.NAME]` section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// What its provider has.
    #[serde(flatten)]
    pub own: Own,
    /// What every source has.
    #[serde(flatten)]
    pub common: Common,
}

impl Config {
    /// Reads the section of a source of `provider`, without its `provider` key. What it says is then to be checked.
    ///
    /// Keys that nothing knows are for `section` to find: it is told of all that are known.
    ///
    /// # Errors
    /// For an unknown provider, and a value of the wrong type.
    pub fn parse<'de, D: Deserializer<'de> + Clone>(provider: &str, section: D) -> Result<Self, D::Error> {
        let own = Own::parse(provider, section.clone())?;
        let mut common: Common = part(section, Own::keys(provider).0)?;
        common.max_body_bytes.get_or_insert(own.settings().max_body_bytes());
        common.verify.get_or_insert(own.settings().verify());
        Ok(Self { own, common })
    }

    /// Checks what the types do not: all that is wrong, each in a line that begins with its key.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut wrong = self.own.settings().check(&self.common);
        wrong.extend(self.common.check(self.own.settings().verify()));
        wrong
    }

    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        self.own.name()
    }

    /// The names of all keys of `provider`'s section, but for `provider`.
    #[must_use]
    pub fn keys(provider: &str) -> &'static [&'static str] {
        Own::keys(provider).0
    }

    /// The keys of `provider`'s section that hold secrets, each of which may come from a file (`x_file`).
    #[must_use]
    pub fn secrets(provider: &str) -> &'static [&'static str] {
        Own::keys(provider).1
    }

    /// The most bytes of a body that are accepted.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        self.common.max_body_bytes.unwrap_or_else(|| self.own.settings().max_body_bytes()).bytes()
    }

    /// The path tokens, any of which opens the source; none means that the plain path does.
    #[must_use]
    pub fn path_tokens(&self) -> &[Secret] {
        &self.common.path_token
    }

    /// Whether requests are verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.common.verifies()
    }

    /// Whether the signatures that it verifies cover our public URL.
    #[must_use]
    pub fn covers_url(&self) -> bool {
        self.verifies() && self.own.settings().covers_url()
    }
}

/// What an account is built with, beside its own keys.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The source's name, for messages.
    pub name: &'a str,
    /// The keys that every source has.
    pub common: &'a Common,
    /// Time.
    pub clock: &'a Clock,
    /// The budgets of all accounts.
    pub budgets: &'a Budgets,
}

/// Why a source cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its keys do not fit together; [`Config::check`] says so before.
    #[error("sources.{name}: {}", .wrong.join("; "))]
    Config {
        /// The source.
        name: String,
        /// All that is wrong.
        wrong: Vec<String>,
    },
    /// A file that a key names cannot be read.
    #[error("sources.{name}: cannot read `{key}` {}: {cause}", .path.display())]
    File {
        /// The source.
        name: String,
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The JSON Schema is none, or cannot be used.
    #[error("sources.{name}: `schema_file` {} is of no use: {reason}", .path.display())]
    Schema {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
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
    /// The provider's id of the project that it belongs to.
    pub project: Option<String>,
    /// The JSON Schema of the answer that is asked for, beside the agent's words.
    pub schema: Option<Value>,
    /// Whether the agent may stop to ask.
    pub interactive: bool,
    /// Files that go with it.
    pub files: Vec<Attached>,
}

impl NewTask {
    /// The bytes of its files.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.files.iter().map(|file| file.content.len()).sum()
    }
}

/// A file that goes with a new task.
#[derive(Clone)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its MIME type.
    pub content_type: String,
    /// Its content.
    pub content: Bytes,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("name", &self.name).field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

impl Attached {
    /// The content as a `data:` URL (RFC 2397).
    #[must_use]
    pub fn data_url(&self) -> String {
        format!("data:{};base64,{}", self.content_type, BASE64_STANDARD.encode(&self.content))
    }
}

/// Where a task stands at this moment, as far as an answer to it depends on that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Where it stands.
    pub state: task::State,
    /// What it waits for.
    pub question: Option<task::Question>,
    /// The stop that it stands at, see [`task::Stop::anchor`]; `None` while it is at work.
    pub anchor: Option<String>,
    /// The model or agent profile that worked on it last, where the provider tells.
    pub model: Option<String>,
}

impl From<task::Fetched> for Standing {
    fn from(fetched: task::Fetched) -> Self {
        let task::Fetched { task, stands_at, .. } = fetched;
        Self { state: task.state, question: task.question, anchor: stands_at, model: task.model }
    }
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
    use crate::setting::Size;
    use config::{File, FileFormat, Value};

    fn section(toml: &str) -> Value {
        let text = format!("[source]\n{toml}");
        config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build().unwrap().get("source").unwrap()
    }

    /// The section, or all that is wrong with it.
    fn parse(toml: &str) -> Result<Config, String> {
        let config = Config::parse("manus", section(toml)).map_err(|error| error.to_string())?;
        let wrong = config.check();
        if wrong.is_empty() { Ok(config) } else { Err(wrong.join("\n")) }
    }

    fn manus(config: &Config) -> &manus::Config {
        let Own::Manus(manus) = &config.own else { panic!("not Manus") };
        manus
    }

    #[test]
    fn a_key_is_all_that_a_source_needs() {
        let config = parse("api_key = 'sk-1'").unwrap();
        assert_eq!(*manus(&config), manus::Config { api_key: Some(Secret::new("sk-1")), ..manus::Config::default() });
        assert_eq!(manus(&config).base_url, "https://api.manus.ai");
        let common = Common { max_body_bytes: Some(Size(2 << 20)), verify: Some(Verify::Signature), ..Common::default() };
        assert_eq!(config.common, common);
    }

    #[test]
    fn values_may_be_text_as_in_the_environment() {
        let config = parse(
            "api_key = 'sk-1'\napi_version = 'v1'\nrequests_per_minute = '90'\nquarantine_after = '1h'\nmax_body_bytes = '1MiB'\n\
             path_token = 'a,b'\nverify = 'none'\nfetch = 'off'\nownership = 'visible'\ntimeout = '3s'",
        )
        .unwrap();
        let manus = manus(&config);
        assert_eq!((manus.requests_per_minute, config.max_body_bytes(), config.path_tokens().len()), (90, 1 << 20, 2));
        assert_eq!((manus.api_version, manus.fetch, config.verifies()), (manus::ApiVersion::V1, Switch::Off, false));
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
            ("api_key = 'k'\nverify = 'authorization'", "`verify` must be \"signature\" or \"none\""),
        ] {
            let error = parse(toml).unwrap_err();
            assert!(error.contains(expected), "{toml}: {error}");
            assert!(!error.contains("s3cret") && !error.contains("qq zz"), "{error}");
        }
        assert_eq!(
            parse("api_key = 'k'\nbase_url = 'http://localhost:9000/'").map(|config| manus(&config).requests_per_minute),
            Ok(60)
        );
        assert!(Config::parse("openai", section("")).unwrap_err().to_string().contains("manus"));
    }

    #[test]
    fn a_source_prints_with_its_provider_and_without_its_secrets() {
        let config = parse("api_key = 'sk-1'\npath_token = ['a', 'b']").unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.starts_with(r#"{"provider":"manus","api_version":"v2","api_key":"[redacted]""#), "{text}");
        assert!(text.contains(r#""path_token":["[redacted]","[redacted]"]"#), "{text}");
        assert!(Config::secrets("manus").contains(&"api_key"));
    }
}
