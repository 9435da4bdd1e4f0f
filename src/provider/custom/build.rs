//! From keys to something that verifies and reads, or to all that is wrong with them.
//!
//! What is checked at the start is what is built at the start: there is no second opinion of what a key means.

use reqwest::StatusCode;
use reqwest::header::HeaderName;

use super::{Account, Config, Format, Keys, Proof, Scheme, SecretForm, Unit};
use crate::provider::agreed::Agreed;
use crate::provider::content::Content;
use crate::provider::settings::Common;
use crate::provider::signed::{Encoding, Grammar, Key, Signed, TimestampAt, Verifier, Window};
use crate::provider::word::Word;
use crate::setting::Secret;
use crate::signature::{decode_base64, decode_hex, ed25519, encode_base64, hmac, rsa};

/// The least bytes of a key: a shorter one is guessed in no time.
const SHORTEST_KEY: usize = 8;
/// How far a timestamp may be from now where nothing else is said, in seconds.
const TOLERANCE: i64 = 300;
/// The `event_id` of a sender of which every request is an event of its own.
const NO_ID: &str = "none";

impl Config {
    /// Everything ready for use, or all that is wrong, each in a line that begins with its key.
    pub(super) fn build(&self, common: &Common) -> Result<Account, Vec<String>> {
        let keys = &self.0;
        let mut wrong = Vec::new();
        let id = words("event_id", &keys.event_id, &mut wrong);
        let kind = words("event_type", &keys.event_type, &mut wrong);
        let task = words("task_id", &keys.task_id, &mut wrong);
        for (key, of, example) in [
            (
                "event_id",
                &keys.event_id,
                "such as \"header:x-event-id\" or \"/id\", \"hash\" for the body's, or \"none\" if there is none",
            ),
            ("event_type", &keys.event_type, "such as \"/type\"; of a sender with events of one kind, \"text:WORD\""),
        ] {
            if of.is_empty() {
                wrong.push(format!("`{key}` is missing: where a request has it, {example}"));
            }
        }
        for (key, pointer) in
            [("title", &keys.title), ("url", &keys.url), ("message", &keys.message), ("challenge", &keys.challenge)]
        {
            if pointer.as_ref().is_some_and(|pointer| !pointer.starts_with('/') || pointer.contains('|')) {
                wrong.push(format!("`{key}` must be a JSON pointer such as `/{key}`"));
            }
        }
        let challenge = keys.challenge.as_ref().and_then(|pointer| Word::parse(pointer).ok());
        if keys.challenge_type.is_some() && keys.challenge.is_none() {
            wrong.push("`challenge_type` is of no use without `challenge`".to_owned());
        }
        let status = keys.answer_status.unwrap_or(200);
        let status = StatusCode::from_u16(status).ok().filter(StatusCode::is_success);
        if status.is_none() {
            wrong.push("`answer_status` must be from 200 to 299: any other asks for the event again".to_owned());
        }
        let id_header = if let [word] = id.as_slice() { word.header().cloned() } else { None };
        let proof = if keys.scheme.is_none() && !common.verifies() {
            Proof::Nothing
        } else {
            keys.proof(common.verifies(), id_header.as_ref(), &mut wrong).unwrap_or(Proof::Nothing)
        };
        let credentials = if matches!(proof, Proof::Agreed(_)) { vec![keys.header()] } else { Vec::new() };
        match status {
            Some(status) if wrong.is_empty() => {
                Ok(Account { config: self.clone(), proof, credentials, id, kind, task, challenge, status })
            }
            _ => Err(wrong),
        }
    }
}

impl Keys {
    /// The header with the signature or the agreed value, in lower case.
    fn header(&self) -> String {
        match (&self.signature_header, self.scheme) {
            (Some(header), _) => header.to_ascii_lowercase(),
            (None, Some(Scheme::StaticHeader | Scheme::Basic)) => "authorization".to_owned(),
            (None, _) => String::new(),
        }
    }

    /// What verifies; `verified` is false where nothing is asked of a request, so that no secret need be there.
    fn proof(&self, verified: bool, id: Option<&HeaderName>, wrong: &mut Vec<String>) -> Option<Proof> {
        let Some(scheme) = self.scheme else {
            wrong.push(
                "`scheme` is missing: how a request proves where it comes from, or a `preset`; only `verify = \"none\"` does without"
                    .to_owned(),
            );
            return None;
        };
        self.useless(scheme, wrong);
        let header = self.header();
        if header.parse::<HeaderName>().is_err() {
            let what = if header.is_empty() { "is missing: the header with the signature" } else { "is no name of a header" };
            wrong.push(format!("`signature_header` {what}"));
        }
        if scheme.is_agreed() {
            return Some(Proof::Agreed(Agreed::new(&header, self.agreed(scheme, verified, wrong))));
        }
        let signed = self.signed.as_deref().unwrap_or_else(|| {
            wrong.push("`signed` is missing: what the signature covers, such as \"{body}\" or \"{ts}.{body}\"".to_owned());
            "{body}"
        });
        let content = Content::parse(signed, id).map_err(|reason| wrong.push(format!("`signed` {reason}"))).ok();
        let encoding = self.signature_encoding.unwrap_or_else(|| {
            wrong.push("`signature_encoding` is missing: \"hex\" or \"base64\"".to_owned());
            Encoding::Hex
        });
        let grammar = self.grammar(wrong);
        let window = self.window(content.as_ref(), wrong);
        let keys = self.verifiers(scheme, verified, wrong);
        let name = self.signature_name.clone().filter(|_| !matches!(grammar, Grammar::Plain { .. }));
        let keys = keys.into_iter().map(|verifier| Key { name: name.clone(), verifier }).collect();
        Some(Proof::Signed(Box::new(Signed { header, grammar, encoding, content: content?, window, keys })))
    }

    /// Keys that mean nothing under this scheme: whoever wrote them wanted something else.
    fn useless(&self, scheme: Scheme, wrong: &mut Vec<String>) {
        let agreed = scheme.is_agreed();
        let asymmetric = matches!(scheme, Scheme::Ed25519 | Scheme::Rsa);
        for (key, set, useless) in [
            ("secret", !self.secret.is_empty(), asymmetric),
            ("secret_form", self.secret_form.is_some(), asymmetric || agreed),
            ("secret_prefix", self.secret_prefix.is_some(), asymmetric || agreed),
            ("public_key", !self.public_key.is_empty(), !asymmetric),
            ("signature_header", self.signature_header.is_some(), scheme == Scheme::Basic),
            ("signature_format", self.signature_format.is_some(), agreed),
            ("signature_prefix", self.signature_prefix.is_some(), agreed),
            ("signature_name", self.signature_name.is_some(), agreed),
            ("signature_encoding", self.signature_encoding.is_some(), agreed),
            ("signed", self.signed.is_some(), agreed),
            ("timestamp_header", self.timestamp_header.is_some(), agreed),
            ("timestamp_name", self.timestamp_name.is_some(), agreed),
            ("timestamp_unit", self.timestamp_unit.is_some(), agreed),
            ("tolerance", self.tolerance.is_some(), agreed),
        ] {
            if set && useless {
                wrong.push(format!("`{key}` means nothing with this `scheme`: leave it out"));
            }
        }
    }

    fn agreed(&self, scheme: Scheme, verified: bool, wrong: &mut Vec<String>) -> Vec<Secret> {
        if self.secret.is_empty() && verified {
            let form =
                if scheme == Scheme::Basic { "NAME:PASSWORD" } else { "the whole value of the header, such as Bearer TOKEN" };
            wrong.push(format!("`secret` is missing: {form}; set it or `secret_file`"));
        }
        let mut values = Vec::new();
        for secret in self.secret.iter() {
            let text = secret.expose();
            let printable = text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if scheme == Scheme::Basic && !text.contains(':') {
                wrong.push("`secret` must be NAME:PASSWORD".to_owned());
            } else if scheme == Scheme::StaticHeader && !printable {
                wrong.push("`secret` must be what a header can hold: printable ASCII, without blanks around it".to_owned());
            } else if text.len() < SHORTEST_KEY {
                wrong.push(too_short());
            } else if scheme == Scheme::Basic {
                values.push(Secret::new(format!("Basic {}", encode_base64(text.as_bytes()))));
            } else {
                values.push(secret.clone());
            }
        }
        values
    }

    fn grammar(&self, wrong: &mut Vec<String>) -> Grammar {
        let prefix = self.signature_prefix.clone().unwrap_or_default();
        match self.signature_format.unwrap_or(Format::Plain) {
            Format::Plain => {
                if self.signature_name.is_some() {
                    wrong.push(
                        "`signature_name` needs `signature_format` \"pairs\" or \"versions\": a plain signature has none"
                            .to_owned(),
                    );
                }
                return Grammar::Plain { prefix };
            }
            Format::Pairs | Format::Versions if !prefix.is_empty() => {
                wrong.push("`signature_prefix` needs `signature_format = \"plain\"`: others have `signature_name`".to_owned());
            }
            Format::Pairs | Format::Versions => {}
        }
        if self.signature_name.as_ref().is_none_or(String::is_empty) {
            wrong
                .push("`signature_name` is missing: the name or version of the signatures that count, such as \"v1\"".to_owned());
        }
        if self.signature_format == Some(Format::Pairs) { Grammar::Pairs } else { Grammar::Versions }
    }

    fn window(&self, content: Option<&Content>, wrong: &mut Vec<String>) -> Option<Window> {
        let covered = content.is_none_or(Content::covers_timestamp);
        let at = match (&self.timestamp_header, &self.timestamp_name) {
            (Some(_), Some(_)) => {
                wrong.push("`timestamp_header` and `timestamp_name` are both set: the time stands in one place".to_owned());
                return None;
            }
            (Some(header), None) if header.parse::<HeaderName>().is_err() => {
                wrong.push("`timestamp_header` is no name of a header".to_owned());
                return None;
            }
            (Some(header), None) => TimestampAt::Header(header.to_ascii_lowercase()),
            (None, Some(_)) if self.signature_format != Some(Format::Pairs) => {
                wrong.push("`timestamp_name` needs `signature_format = \"pairs\"`".to_owned());
                return None;
            }
            (None, Some(name)) => TimestampAt::Pair(name.clone()),
            (None, None) => {
                for (key, set) in [("timestamp_unit", self.timestamp_unit.is_some()), ("tolerance", self.tolerance.is_some())] {
                    if set {
                        wrong.push(format!("`{key}` is of no use without `timestamp_header` or `timestamp_name`"));
                    }
                }
                if content.is_some_and(Content::covers_timestamp) {
                    wrong
                        .push("`signed` holds `{ts}`, so `timestamp_header` or `timestamp_name` must say where it is".to_owned());
                }
                return None;
            }
        };
        if !covered {
            wrong.push(
                "`signed` does not hold `{ts}`, so anybody could change the time and it would prove nothing: leave `timestamp_header` \
                 and `timestamp_name` out"
                    .to_owned(),
            );
        }
        let tolerance = self.tolerance.map_or(TOLERANCE, |tolerance| i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX));
        if tolerance == 0 {
            wrong.push("`tolerance` must be at least 1s".to_owned());
        }
        let per_second = if self.timestamp_unit == Some(Unit::Milliseconds) { 1000 } else { 1 };
        Some(Window { at, per_second, tolerance })
    }

    fn verifiers(&self, scheme: Scheme, verified: bool, wrong: &mut Vec<String>) -> Vec<Verifier> {
        let hash = match scheme {
            Scheme::HmacSha1 => hmac::Hash::Sha1,
            Scheme::HmacSha512 => hmac::Hash::Sha512,
            Scheme::Ed25519 | Scheme::Rsa => return self.public_keys(scheme, verified, wrong),
            Scheme::HmacSha256 | Scheme::StaticHeader | Scheme::Basic => hmac::Hash::Sha256,
        };
        if self.secret.is_empty() && verified {
            wrong.push("`secret` is missing: set it or `secret_file`; only `verify = \"none\"` does without".to_owned());
        }
        let mut keys = Vec::new();
        for secret in self.secret.iter() {
            match self.key_bytes(secret.expose()) {
                Ok(bytes) if bytes.len() < SHORTEST_KEY => wrong.push(too_short()),
                Ok(bytes) => keys.extend(hmac::Key::new(hash, &bytes).map(Box::new).map(Verifier::Hmac)),
                Err(reason) => wrong.push(format!("`secret` {reason}")),
            }
        }
        keys
    }

    fn key_bytes(&self, secret: &str) -> Result<Vec<u8>, String> {
        let prefix = self.secret_prefix.as_deref().unwrap_or_default();
        let form = self.secret_form.unwrap_or(SecretForm::Text);
        // What is text is taken as it is: a blank may be part of it. What is encoded is not.
        let secret = if form == SecretForm::Text { secret } else { secret.trim() };
        let secret = secret.strip_prefix(prefix).ok_or_else(|| format!("does not begin with `{prefix}`, its `secret_prefix`"))?;
        match form {
            SecretForm::Text => Ok(secret.as_bytes().to_vec()),
            SecretForm::Base64 => {
                decode_base64(secret).ok_or_else(|| "is not Base64: padded, and of the standard alphabet".to_owned())
            }
            SecretForm::Hex => decode_hex(secret).ok_or_else(|| "is not hexadecimal, in lower case".to_owned()),
        }
    }

    fn public_keys(&self, scheme: Scheme, verified: bool, wrong: &mut Vec<String>) -> Vec<Verifier> {
        if self.public_key.is_empty() && verified {
            wrong.push("`public_key` is missing: set it or `public_key_file`".to_owned());
        }
        let mut keys = Vec::new();
        for text in self.public_key.iter() {
            let text = text.trim();
            let read = match scheme {
                Scheme::Rsa => rsa::PublicKey::from_pem(text).map(Verifier::Rsa).map_err(|reason| reason.to_string()),
                _ if text.starts_with("-----") => {
                    ed25519::PublicKey::from_pem(text).map(Verifier::Ed25519).map_err(|reason| reason.to_string())
                }
                _ => match decode_hex(text).or_else(|| decode_base64(text)) {
                    Some(bytes) => {
                        ed25519::PublicKey::from_bytes(&bytes).map(Verifier::Ed25519).map_err(|reason| reason.to_string())
                    }
                    None => Err("it is neither PEM nor hexadecimal nor Base64".to_owned()),
                },
            };
            match read {
                Ok(key) => keys.push(key),
                Err(reason) => wrong.push(format!("`public_key` cannot be used: {reason}")),
            }
        }
        keys
    }
}

/// The places that `key` names.
fn words(key: &str, texts: &[String], wrong: &mut Vec<String>) -> Vec<Word> {
    if key == "event_id" && texts == [NO_ID] {
        return Vec::new();
    }
    let mut words = Vec::new();
    for text in texts {
        match Word::parse(text) {
            Ok(word) => words.push(word),
            Err(reason) => wrong.push(format!("`{key}` {reason}")),
        }
    }
    words
}

fn too_short() -> String {
    format!("`secret` is shorter than {SHORTEST_KEY} bytes: it would be guessed")
}
