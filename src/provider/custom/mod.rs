//! Senders that taskhook knows nothing of, described by configuration alone.
//!
//! What must hold: what the keys cannot express, or what contradicts itself, is refused at the start with the reason; a preset is
//! nothing but such keys; and nothing is believed that the keys do not say how to verify, unless they say `verify = "none"`.

mod build;
mod explain;
mod preset;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::preset::Preset;
use super::agreed::Agreed;
use super::settings::{Common, Settings, Verify, built};
pub use super::signed::Encoding;
use super::signed::Signed;
use super::word::{Document, Word};
use super::{Error, Kept, Reading, Refusal, Reply, Request, Start};
use crate::event::{Facts, UNKNOWN, Verification, body_id};
use crate::setting::{List, Secret, Secrets};
use crate::signature::rsa::PublicKey;

/// The keys that hold secrets, or come from files as secrets do.
pub(super) const SECRETS: &[&str] = &["secret", "public_key"];

/// The keys of a `[sources.NAME]` section with `provider = "custom"`, beside those that every source has. Those that are not set
/// are the preset's, where there is one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(from = "Keys")]
pub struct Config(Keys);

macro_rules! keys {
    ($($(#[$meta:meta])* $key:ident: $type:ty,)*) => {
        /// See [`Config`].
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[serde(default)]
        struct Keys {
            $($(#[$meta])* $key: $type,)*
        }

        impl Keys {
            /// These keys laid over `under`.
            fn over(self, under: Self) -> Self {
                let none = Self::default();
                Self { $($key: if self.$key == none.$key { under.$key } else { self.$key },)* }
            }
        }
    };
}

keys! {
    /// A sender that is well known: the keys that it needs, which others here go over.
    preset: Option<Preset>,
    /// How a request proves where it comes from.
    scheme: Option<Scheme>,
    /// The secrets, any of which will do.
    #[serde(skip_serializing_if = "<[Secret]>::is_empty")]
    secret: Secrets,
    /// How a secret becomes a key.
    secret_form: Option<SecretForm>,
    /// What stands before a secret and is no part of it, such as `whsec_`.
    secret_prefix: Option<String>,
    /// The public keys, any of which will do: PEM, or for Ed25519 also hexadecimal or Base64.
    #[serde(skip_serializing_if = "List::is_empty")]
    public_key: List<String>,
    /// The header with the signature, or with the agreed value.
    signature_header: Option<String>,
    /// How that header is written.
    signature_format: Option<Format>,
    /// What stands before the signature, such as `sha256=`.
    signature_prefix: Option<String>,
    /// The name or version of the signatures that count, such as `v1`.
    signature_name: Option<String>,
    /// How a signature is written.
    signature_encoding: Option<Encoding>,
    /// What is signed: a template.
    signed: Option<String>,
    /// The header with the time of signing.
    timestamp_header: Option<String>,
    /// The name of the time in the header of the signature, such as `t`.
    timestamp_name: Option<String>,
    /// What that time counts.
    timestamp_unit: Option<Unit>,
    /// How far that time may be from ours, either way.
    #[serde(with = "humantime_serde")]
    tolerance: Option<Duration>,
    /// Where an event's id is; of several, all are joined by `:`.
    #[serde(skip_serializing_if = "List::is_empty")]
    event_id: List<String>,
    /// Where its type is; of several, those that are there are joined by `.`.
    #[serde(skip_serializing_if = "List::is_empty")]
    event_type: List<String>,
    /// Where the id of its task is; of several, all are joined by `:`.
    #[serde(skip_serializing_if = "List::is_empty")]
    task_id: List<String>,
    /// Where the body has a title, for people: a JSON pointer.
    title: Option<String>,
    /// Where it has the address of a page.
    url: Option<String>,
    /// Where it says what happened.
    message: Option<String>,
    /// The types of test requests: kept, never handed on.
    #[serde(skip_serializing_if = "List::is_empty")]
    ping_type: List<String>,
    /// Where the text is that a sender wants to hear back when it tries the URL: a JSON pointer.
    challenge: Option<String>,
    /// The type of such a request.
    challenge_type: Option<String>,
    /// The status of our answer to an event that is kept.
    answer_status: Option<u16>,
}

impl From<Keys> for Config {
    fn from(keys: Keys) -> Self {
        match keys.preset {
            Some(preset) => Self(keys.over(preset.keys().0)),
            None => Self(keys),
        }
    }
}

/// How a request proves where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// HMAC with SHA-1.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// Ed25519.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rsa,
    /// A value that was agreed, in a header.
    StaticHeader,
    /// A name and a password, as HTTP has them.
    Basic,
}

impl Scheme {
    fn is_agreed(self) -> bool {
        matches!(self, Self::StaticHeader | Self::Basic)
    }
}

/// How a secret becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretForm {
    /// It is the key, as it is written.
    Text,
    /// It is the key in Base64.
    Base64,
    /// It is the key in hexadecimal.
    Hex,
}

/// How a header with signatures is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One signature.
    Plain,
    /// `t=…,v1=…,v1=…`
    Pairs,
    /// `v1,… v1,…`
    Versions,
}

/// What a timestamp counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
}

impl Settings for Config {
    fn verify(&self) -> Verify {
        if self.0.scheme.is_some_and(Scheme::is_agreed) { Verify::Authorization } else { Verify::Signature }
    }

    fn covers_url(&self) -> bool {
        self.0.signed.as_ref().is_some_and(|signed| signed.contains("{url}"))
    }

    fn check(&self, common: &Common) -> Vec<String> {
        self.build(common).err().unwrap_or_default()
    }

    fn account(&self, start: &Start<'_>) -> Result<Box<dyn super::Account>, Error> {
        built(start, self.build(start.common))
    }
}

/// One sender.
#[derive(Debug)]
struct Account {
    config: Config,
    proof: Proof,
    /// The header of an agreed value, if there is one.
    credentials: Vec<String>,
    /// Empty: every request is an event of its own.
    id: Vec<Word>,
    kind: Vec<Word>,
    task: Vec<Word>,
    challenge: Option<Word>,
    status: StatusCode,
}

/// How a request proves where it comes from, ready for use.
#[derive(Debug)]
enum Proof {
    Signed(Box<Signed>),
    Agreed(Agreed),
    /// Nothing is asked: the source has `verify = "none"`.
    Nothing,
}

impl super::Account for Account {
    fn verify(&self, request: &Request<'_>, public_urls: &[String], _: &[PublicKey]) -> Result<Verification, Refusal> {
        match &self.proof {
            Proof::Signed(signed) => signed.verify(request, public_urls).map(|()| Verification::Signature),
            Proof::Agreed(agreed) => agreed.verify(request.headers).map(|()| Verification::Authorization),
            Proof::Nothing => Ok(Verification::None),
        }
    }

    fn explain(&self, request: &Request<'_>, public_urls: &[String], _: &[PublicKey]) -> Option<String> {
        match &self.proof {
            Proof::Signed(signed) => Some(explain::signed(&self.config, signed, request, public_urls)),
            Proof::Agreed(agreed) => Some(agreed.explain(request.headers)),
            Proof::Nothing => None,
        }
    }

    fn credential_headers(&self) -> &[String] {
        &self.credentials
    }

    fn read(&self, request: &Request<'_>) -> Reading {
        let document = Document::new(request);
        let kind = some_of(&self.kind, &document);
        let Keys { ping_type, challenge_type, .. } = &self.config.0;
        let challenged = challenge_type.is_none() || *challenge_type == kind;
        let echo = self.challenge.as_ref().filter(|_| challenged).and_then(|challenge| challenge.find(&document));
        let ping = echo.is_some() || kind.as_ref().is_some_and(|kind| ping_type.contains(kind));
        let reply = match echo {
            Some(text) => Some(Reply { status: StatusCode::OK, text: Some(text) }),
            None if self.status == StatusCode::OK => None,
            None => Some(Reply { status: self.status, text: None }),
        };
        let event_id = if self.id.is_empty() {
            format!("delivery:{}", uuid::Uuid::now_v7())
        } else {
            all_of(&self.id, &document).unwrap_or_else(|| body_id(request.body))
        };
        Reading {
            event_id,
            kind: kind.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            provider_type: kind,
            task_id: all_of(&self.task, &document),
            ping,
            reply,
        }
    }

    fn tell(&self, event: &Kept<'_>) -> Facts {
        let Keys { title, url, message, .. } = &self.config.0;
        if title.is_none() && url.is_none() && message.is_none() {
            return event.bare();
        }
        let body: Value = serde_json::from_slice(event.body).unwrap_or_default();
        Facts {
            title: text_at(&body, title.as_ref()),
            url: text_at(&body, url.as_ref()),
            message: text_at(&body, message.as_ref()),
            ..event.bare()
        }
    }
}

/// The text at `pointer`, of any length; what people read need not be a name.
fn text_at(body: &Value, pointer: Option<&String>) -> Option<String> {
    let text = body.pointer(pointer?)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// All of `words`, joined; `None` if one is not there, since half an id is the id of something else.
fn all_of(words: &[Word], document: &Document<'_>) -> Option<String> {
    let found = words.iter().map(|word| word.find(document)).collect::<Option<Vec<_>>>()?;
    if found.is_empty() { None } else { Some(found.join(":")) }
}

/// Those of `words` that are there, joined.
fn some_of(words: &[Word], document: &Document<'_>) -> Option<String> {
    let found: Vec<_> = words.iter().filter_map(|word| word.find(document)).collect();
    if found.is_empty() { None } else { Some(found.join(".")) }
}
