//! Signed requests: one way to check all that put a signature into a header, however it is written and whatever it covers.
//!
//! What must hold: nothing is believed without a key; the signature is checked before the time, so that a stale time is only ever
//! told of a good signature; what is signed is the text of the headers as it came; and the work for one request is bounded, however
//! many signatures it brings: a body is hashed once for each of our keys, or at most [`MOST`] times for each.

use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use super::content::{Content, Parts, body_digest};
use super::header::{self, lateness, single, timely};
use super::{Refusal, RefusalKind, Request};
use crate::signature::{decode_base64, decode_hex, ed25519, hmac, rsa};

/// The most signatures of one request that are looked at.
const MOST: usize = 8;

/// How the header with the signature is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// The signature alone, behind these words.
    Plain { prefix: String },
    /// `name=value` between commas; a name may come several times.
    Pairs,
    /// `version,signature` between blanks.
    Versions,
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal, in lower case.
    Hex,
    /// Base64: the standard alphabet, padded.
    Base64,
}

/// Where the time of signing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TimestampAt {
    /// In a header of its own.
    Header(String),
    /// In the header of the signature, under this name.
    Pair(String),
}

/// The time of signing, and how far it may be from ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) at: TimestampAt,
    /// How many of its units are one second.
    pub(super) per_second: i64,
    /// In seconds; this far is still good.
    pub(super) tolerance: i64,
}

/// One of our keys.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The name or version of the signatures that it is for; `None` where they have none.
    pub(super) name: Option<String>,
    pub(super) verifier: Verifier,
}

/// The algorithm and the key.
#[derive(Clone, Debug)]
pub(super) enum Verifier {
    Hmac(Box<hmac::Key>),
    Ed25519(ed25519::PublicKey),
    Rsa(rsa::PublicKey),
}

/// A scheme, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) header: String,
    pub(super) grammar: Grammar,
    pub(super) encoding: Encoding,
    pub(super) content: Content,
    pub(super) window: Option<Window>,
    pub(super) keys: Vec<Key>,
}

/// What the headers claim.
struct Claim<'a> {
    /// The signatures, each with the name that it is under.
    signatures: Vec<(Option<&'a str>, Vec<u8>)>,
    /// As received: it is part of what is signed.
    timestamp: &'a str,
    seconds: Option<i64>,
}

impl Verifier {
    fn signature_len(&self) -> usize {
        match self {
            Self::Hmac(key) => key.signature_len(),
            Self::Ed25519(_) => ed25519::SIGNATURE_LEN,
            Self::Rsa(key) => key.signature_len(),
        }
    }

    /// Whether one of `signatures` is that of `parts`.
    fn fits<'a>(&self, parts: &[&[u8]], mut signatures: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Hmac(key) => key.verify_any(parts, signatures),
            Self::Ed25519(key) => {
                let message = parts.concat();
                signatures.any(|signature| key.verify(&message, signature))
            }
            Self::Rsa(key) => {
                let message = parts.concat();
                signatures.any(|signature| key.verify(&message, signature))
            }
        }
    }
}

impl Signed {
    /// Checks `request`; see [`super::Account::verify`].
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn verify(&self, request: &Request<'_>, public_urls: &[String]) -> Result<(), Refusal> {
        let claim = self.claim(request.headers).map_err(Refusal::of)?;
        if !self.is_genuine(request, public_urls, &claim) {
            return Err(Refusal::of(RefusalKind::SignatureInvalid));
        }
        match (&self.window, claim.seconds) {
            (Some(window), Some(seconds)) => timely(request.now, seconds, window.tolerance),
            _ => Ok(()),
        }
    }

    /// What a genuine signature with a stale time means; `None` if it is neither.
    pub(super) fn lateness(&self, request: &Request<'_>, public_urls: &[String]) -> Option<String> {
        let claim = self.claim(request.headers).ok()?;
        let (window, seconds) = (self.window.as_ref()?, claim.seconds?);
        if self.is_genuine(request, public_urls, &claim) { lateness(request.now, seconds, window.tolerance) } else { None }
    }

    fn is_genuine(&self, request: &Request<'_>, public_urls: &[String], claim: &Claim<'_>) -> bool {
        let body_digest = if self.content.needs_digest() { body_digest(request.body) } else { String::new() };
        let fits = |url: &str| {
            let Request { headers, body, .. } = *request;
            let parts = Parts { headers, body, body_digest: &body_digest, url, timestamp: claim.timestamp };
            self.content.fill(&parts).is_some_and(|parts| self.keys.iter().any(|key| key.fits(&parts, claim)))
        };
        if self.content.covers_url() {
            public_urls.iter().any(|base| fits(&format!("{base}{}", request.url_suffix)))
        } else {
            fits("")
        }
    }

    fn claim<'a>(&self, headers: &'a HeaderMap) -> Result<Claim<'a>, RefusalKind> {
        let text = single(headers, &self.header, header::SIGNATURE)?;
        let entries = self.grammar.entries(text).ok_or(RefusalKind::SignatureMalformed)?;
        let decode = |(name, text): &(Option<&'a str>, &'a str)| {
            let bytes = match self.encoding {
                Encoding::Hex => decode_hex(text),
                Encoding::Base64 => decode_base64(text),
            }?;
            let ours = |key: &Key| key.name.as_deref() == *name && key.verifier.signature_len() == bytes.len();
            self.keys.iter().any(ours).then_some((*name, bytes))
        };
        let signatures: Vec<_> = entries.iter().filter_map(decode).take(MOST).collect();
        if signatures.is_empty() {
            return Err(RefusalKind::SignatureMalformed);
        }
        let Some(window) = &self.window else { return Ok(Claim { signatures, timestamp: "", seconds: None }) };
        let timestamp = match &window.at {
            TimestampAt::Header(name) => single(headers, name, header::TIMESTAMP)?,
            TimestampAt::Pair(pair) => {
                let mut values = entries.iter().filter(|(name, _)| *name == Some(pair.as_str())).map(|(_, value)| *value);
                let value = values.next().ok_or(RefusalKind::TimestampMissing)?;
                if values.next().is_some() {
                    return Err(RefusalKind::TimestampMalformed);
                }
                value
            }
        };
        let seconds = header::seconds(timestamp).ok_or(RefusalKind::TimestampMalformed)? / window.per_second;
        Ok(Claim { signatures, timestamp, seconds: Some(seconds) })
    }
}

impl Key {
    fn fits(&self, parts: &[&[u8]], claim: &Claim<'_>) -> bool {
        let ours = claim.signatures.iter().filter(|(name, _)| *name == self.name.as_deref());
        let mut ours = ours.map(|(_, bytes)| bytes.as_slice()).peekable();
        // A body is not hashed for a key that nothing was signed with.
        ours.peek().is_some() && self.verifier.fits(parts, ours)
    }
}

impl Grammar {
    /// The entries of a header, each with its name. `None` if it is not written so.
    fn entries<'a>(&self, text: &'a str) -> Option<Vec<(Option<&'a str>, &'a str)>> {
        match self {
            Self::Plain { prefix } => Some(vec![(None, text.strip_prefix(prefix.as_str())?)]),
            Self::Pairs => text.split(',').map(|pair| pair.trim_matches(' ').split_once('=')).map(named).collect(),
            Self::Versions => {
                text.split(' ').filter(|entry| !entry.is_empty()).map(|entry| entry.split_once(',')).map(named).collect()
            }
        }
    }
}

fn named<'a>(entry: Option<(&'a str, &'a str)>) -> Option<(Option<&'a str>, &'a str)> {
    entry.map(|(name, value)| (Some(name), value))
}
