//! The keys of a source: those that every source has, and those of its provider, read from one section.
//!
//! What must hold: each key exists once, as a field of one of two structs; and whoever reads a section knows the names in both,
//! so that a key that nothing reads is found, and the nearest that there is.

use std::path::PathBuf;

use serde::de::value::Error as Refused;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, forward_to_deserialize_any};
use url::Url;

use super::{Account, Error, Start};
use crate::setting::{List, Network, Secret, Size};

/// The keys that every source has, whatever its provider.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Common {
    /// The addresses that requests may come from; any, if there is none here.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub allow_ips: List<Network>,
    /// What its tasks should cost in a day at most, in credits.
    pub credits_per_day: Option<f64>,
    /// The most bytes of a body; the provider's own default where it is not set.
    pub max_body_bytes: Option<Size>,
    /// Secrets that stand in the webhook's path, any of which opens it.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub path_token: List<Secret>,
    /// A JSON Schema that bodies are held against: what does not fit it is kept all the same, and marked.
    pub schema_file: Option<PathBuf>,
    /// How requests are verified; in the provider's own way where it is not set.
    pub verify: Option<Verify>,
}

/// How requests are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// By a signature.
    Signature,
    /// By a value that was agreed, which stands in a header.
    Authorization,
    /// Not at all: whoever finds the URL may send events.
    None,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// The keys of [`Common`] that hold secrets.
pub(super) const SECRETS: &[&str] = &["path_token"];

/// A provider's own keys: what its `Config` says beside what serde derives. Beside it, its module has `SECRETS`: the names of the
/// keys that hold secrets, each of which may come from a file (`x_file`).
pub(super) trait Settings {
    /// The most bytes of a body, where the user sets no limit.
    fn max_body_bytes(&self) -> Size {
        Size(2 << 20)
    }

    /// How this provider's requests are verified, where the user does not say `none`.
    fn verify(&self) -> Verify {
        Verify::Signature
    }

    /// Whether signatures cover our public URL, so that it must be set.
    fn covers_url(&self) -> bool {
        false
    }

    /// Checks what the types do not: all that is wrong, each in a line that begins with its key in backticks. What is in `common`
    /// is checked already, but for what it means together with these keys.
    fn check(&self, common: &Common) -> Vec<String>;

    /// Builds the account. `self` was checked.
    ///
    /// # Errors
    /// When a file that is named cannot be used.
    fn account(&self, start: &Start<'_>) -> Result<Box<dyn Account>, Error>;
}

impl Common {
    pub(super) fn verifies(&self) -> bool {
        self.verify != Some(Verify::None)
    }

    /// All that is wrong, each in a line that begins with its key; `own` is how this provider verifies.
    pub(super) fn check(&self, own: Verify) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.path_token.iter().any(Secret::is_empty) {
            wrong.push("`path_token` is empty".to_owned());
        } else if !self.path_token.iter().all(|token| is_path_segment(token.expose())) {
            wrong.push("`path_token` may hold only letters, digits, `-`, `_`, `.` and `~`, at most 128 of them".to_owned());
        }
        if self.credits_per_day.is_some_and(|credits| !credits.is_finite() || credits <= 0.0) {
            wrong.push("`credits_per_day` must be more than 0".to_owned());
        }
        if self.max_body_bytes == Some(Size(0)) {
            wrong.push("`max_body_bytes` must be at least 1".to_owned());
        }
        if !matches!(self.verify, None | Some(Verify::None)) && self.verify != Some(own) {
            let own = if own == Verify::Authorization { "authorization" } else { "signature" };
            wrong.push(format!("`verify` must be \"{own}\" or \"none\" here"));
        }
        wrong
    }
}

/// Whether `text` can stand in a path as it is: the unreserved characters of RFC 3986 §2.3, and not a step up or in place.
fn is_path_segment(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
}

/// The origin that a `base_url` names, without a slash at its end; `usual` is the provider's own, for messages.
pub(super) fn origin(base_url: &str, usual: &str) -> Result<String, String> {
    let example = format!("such as `{usual}`");
    // The text itself is shown only once it is known to hold no password.
    let url = Url::parse(base_url.trim())
        .map_err(|reason| format!("`base_url` is not a URL ({reason}): write an origin, {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("`base_url` must be an http or https origin, {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`base_url` must not hold a user name or a password: the key goes into `api_key`".to_owned());
    }
    let origin = url.origin().ascii_serialization();
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`base_url` must be an origin without a path: write `base_url = \"{origin}\"`"));
    }
    Ok(origin)
}

/// An account as its builder left it, or all that is wrong with the keys of the source.
pub(super) fn built<A: Account + 'static>(start: &Start<'_>, built: Result<A, Vec<String>>) -> Result<Box<dyn Account>, Error> {
    match built {
        Ok(account) => Ok(Box::new(account)),
        Err(wrong) => Err(Error::Config { name: start.name.to_owned(), wrong }),
    }
}

/// What is wrong with an `api_key`, if anything: it goes into a header.
pub(super) fn wrong_api_key(key: &Secret) -> Option<String> {
    if key.is_empty() {
        return Some("`api_key` is empty".to_owned());
    }
    let plain = key.expose().trim().bytes().all(|byte| byte.is_ascii_graphic());
    (!plain).then(|| "`api_key` holds a space or a character that no key has: was it copied whole, and alone?".to_owned())
}

/// Reads one part of a section, of which others read the other keys: `keys` are the names in all parts.
pub(super) fn part<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    section: D,
    keys: &'static [&'static str],
) -> Result<T, D::Error> {
    T::deserialize(Part { section, keys })
}

/// A section that tells its reader of the keys of all parts, when a struct asks for those of one.
struct Part<D> {
    section: D,
    keys: &'static [&'static str],
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Part<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.section.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.section.deserialize_struct(name, self.keys, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The names of the keys that `T`, a struct, reads.
pub(super) fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &[&str] = &[];
    // It reads nothing: what matters is what it asks for.
    let _ = T::deserialize(Asked(&mut keys));
    keys
}

/// Takes down the fields that a struct asks for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused::custom("there is nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}
