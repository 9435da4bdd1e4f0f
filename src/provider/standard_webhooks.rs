//! Senders that sign by the Standard Webhooks specification, version 1.0.0 (<https://www.standardwebhooks.com>): `OpenAI`, Anthropic,
//! Gemini, Replicate, Supabase, all who send through Svix, and more.
//!
//! Both of its signatures: `v1`, HMAC-SHA256 with a secret, and `v1a`, Ed25519 with a public key. A request may bring several, and
//! we may know several keys, so that a key can be changed without a gap: one that fits is enough.

use std::time::Duration;

use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};

use super::content::Content;
use super::settings::{Common, Settings, built};
use super::signed::{Encoding, Grammar, Key, Signed, TimestampAt, Verifier, Window};
use super::word::{Document, Word};
use super::{Error, Reading, Refusal, RefusalKind, Request, Start};
use crate::event::{UNKNOWN, Verification, body_id};
use crate::setting::{List, Secret};
use crate::signature::rsa::PublicKey;
use crate::signature::standard_webhooks::key_of_sender;
use crate::signature::{decode_base64, ed25519, hmac};

/// The keys that hold secrets, or come from files as secrets do.
pub(super) const SECRETS: &[&str] = &["secret", "public_key"];

/// The keys of a `[sources.NAME]` section with `provider = "standard_webhooks"`, beside those that every source has.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// The secrets that the sender may sign with: `whsec_` and Base64.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub secret: List<Secret>,
    /// The public keys that it may sign with: `whpk_` and Base64.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub public_key: List<String>,
    /// How the names of the headers begin.
    pub header_prefix: HeaderPrefix,
    /// How far the time of a request may be from ours, either way.
    #[serde(with = "humantime_serde")]
    pub tolerance: Duration,
    /// Where the body has the event's type: a JSON pointer.
    pub type_pointer: String,
    /// Where the body has the id of a task, if it has one: a JSON pointer. Events of one task are handed on in their order.
    pub task_pointer: Option<String>,
}

/// How the names of the headers begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderPrefix {
    /// `webhook-id`, as the specification has it.
    Webhook,
    /// `svix-id`, as many have it who send through Svix.
    Svix,
}

impl HeaderPrefix {
    fn word(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Svix => "svix",
        }
    }

    fn header(self, name: &str) -> String {
        format!("{}-{name}", self.word())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            secret: List::default(),
            public_key: List::default(),
            header_prefix: HeaderPrefix::Webhook,
            tolerance: Duration::from_mins(5),
            type_pointer: "/type".to_owned(),
            task_pointer: None,
        }
    }
}

impl Config {
    /// Everything ready for use, or all that is wrong.
    fn build(&self, common: &Common) -> Result<Account, Vec<String>> {
        let mut wrong = Vec::new();
        let mut keys = Vec::new();
        for secret in self.secret.iter() {
            match key_of_sender(secret.expose()) {
                Ok(key) => keys.push(Key { name: Some("v1".to_owned()), verifier: Verifier::Hmac(Box::new(key)) }),
                Err(reason) => wrong.push(format!(
                    "`secret` cannot be used: {reason}; a sender with another form of secret is set up with `provider = \"custom\"`"
                )),
            }
        }
        for text in self.public_key.iter() {
            match public_key(text) {
                Ok(key) => keys.push(Key { name: Some("v1a".to_owned()), verifier: Verifier::Ed25519(key) }),
                Err(reason) => wrong.push(format!("`public_key` {reason}")),
            }
        }
        if keys.is_empty() && wrong.is_empty() && common.verifies() {
            wrong.push(
                "`secret` is missing: set it, `secret_file`, or `public_key`; only `verify = \"none\"` does without".to_owned(),
            );
        }
        let mut pointer = |key: &str, text: &str| {
            let pointer = Some(text).filter(|text| text.starts_with('/')).and_then(|text| Word::parse(text).ok());
            if pointer.is_none() {
                wrong.push(format!("`{key}` must be a JSON pointer such as `/type`"));
            }
            pointer
        };
        let kind = pointer("type_pointer", &self.type_pointer);
        let task = self.task_pointer.as_ref().and_then(|text| pointer("task_pointer", text));
        if self.tolerance.is_zero() {
            wrong.push("`tolerance` must be longer than 0s".to_owned());
        }
        let id = match self.header_prefix {
            HeaderPrefix::Webhook => HeaderName::from_static("webhook-id"),
            HeaderPrefix::Svix => HeaderName::from_static("svix-id"),
        };
        let content = Content::parse("{id}.{ts}.{body}", Some(&id)).map_err(|reason| vec![reason])?;
        let Some(kind) = kind.filter(|_| wrong.is_empty()) else { return Err(wrong) };
        let signed = Signed {
            header: self.header_prefix.header("signature"),
            grammar: Grammar::Versions,
            encoding: Encoding::Base64,
            content,
            window: Some(Window {
                at: TimestampAt::Header(self.header_prefix.header("timestamp")),
                per_second: 1,
                tolerance: i64::try_from(self.tolerance.as_secs()).unwrap_or(i64::MAX),
            }),
            keys,
        };
        Ok(Account { config: self.clone(), signed, id, kind, task })
    }
}

/// Reads `whpk_` and 32 bytes in Base64.
fn public_key(text: &str) -> Result<ed25519::PublicKey, String> {
    let encoded = text.trim().strip_prefix("whpk_").ok_or("must begin with `whpk_`")?;
    let bytes = decode_base64(encoded).ok_or("must be standard Base64 with padding behind `whpk_`")?;
    ed25519::PublicKey::from_bytes(&bytes).map_err(|reason| format!("cannot be used: {reason}"))
}

impl Settings for Config {
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
    signed: Signed,
    /// The header with the event's id.
    id: HeaderName,
    kind: Word,
    task: Option<Word>,
}

impl Account {
    /// The id of the event: a word without a dot, since a dot parts it from what else is signed.
    fn id<'a>(&self, request: &'a Request<'_>) -> Option<&'a str> {
        let mut values = request.headers.get_all(&self.id).iter();
        let id = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
        ((1..=512).contains(&id.len()) && !id.contains('.')).then_some(id)
    }
}

impl super::Account for Account {
    fn verify(&self, request: &Request<'_>, public_urls: &[String], _: &[PublicKey]) -> Result<Verification, Refusal> {
        self.signed.verify(request, public_urls)?;
        if self.id(request).is_none() {
            return Err(Refusal::of(RefusalKind::SignatureMalformed));
        }
        Ok(Verification::Signature)
    }

    fn read(&self, request: &Request<'_>) -> Reading {
        let document = Document::new(request);
        let kind = self.kind.find(&document);
        Reading {
            event_id: self.id(request).map_or_else(|| body_id(request.body), ToOwned::to_owned),
            kind: kind.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            provider_type: kind,
            task_id: self.task.as_ref().and_then(|task| task.find(&document)),
            ping: false,
            reply: None,
        }
    }

    fn explain(&self, request: &Request<'_>, public_urls: &[String], _: &[PublicKey]) -> Option<String> {
        if let Some(late) = self.signed.lateness(request, public_urls) {
            return Some(late);
        }
        let prefix = self.config.header_prefix;
        let there = |prefix: HeaderPrefix| request.headers.contains_key(prefix.header("signature"));
        let other = if prefix == HeaderPrefix::Webhook { HeaderPrefix::Svix } else { HeaderPrefix::Webhook };
        if !there(prefix) && there(other) {
            let word = other.word();
            return Some(format!("the headers begin with `{word}-`: set `header_prefix = \"{word}\"`"));
        }
        if self.id(request).is_none() {
            let id = &self.id;
            return Some(format!("the header `{id}` must be there once, with a text without a dot: the signature covers it"));
        }
        // The whole text as a key: what some senders do whose secrets look alike.
        let raw = |secret: &Secret| hmac::Key::new(hmac::Hash::Sha256, secret.expose().trim().as_bytes());
        let keys = self.config.secret.iter().filter_map(raw);
        let keys = keys.map(|key| Key { name: Some("v1".to_owned()), verifier: Verifier::Hmac(Box::new(key)) }).collect();
        let raw = Signed { keys, ..self.signed.clone() };
        if raw.verify(request, public_urls).is_ok() {
            return Some(
                "signed with the secret as text, not with the bytes that it stands for: set this sender up with `provider = \"custom\"` \
                 and `secret_form = \"text\"`"
                    .to_owned(),
            );
        }
        Some(
            "the signature is of another secret, or the body was changed on the way: is `secret` the one that the sender shows for \
             this URL?"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests;
