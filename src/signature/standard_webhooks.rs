//! Standard Webhooks, symmetric form (`v1`): HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! Held against the specification's own vector. Unlike some published libraries it refuses an empty secret, and a short one:
//! the specification asks for 24 to 64 random bytes.

use std::fmt;

use super::hmac::{Hash, Key};

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1";

/// Why a text is no secret; the text itself is never repeated.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    #[error("a Standard Webhooks secret begins with `whsec_`")]
    Prefix,
    /// What follows is not Base64.
    #[error("what follows `whsec_` must be standard Base64 with padding")]
    Base64,
    /// It holds fewer than 24 bytes or more than 64.
    #[error("a Standard Webhooks secret holds 24 to 64 bytes, this one {0}")]
    Length(usize),
    /// It was given by somebody else, and is too short to be one, or too long.
    #[error("a secret holds at least 16 bytes and at most 512, this one {0}")]
    TheirLength(usize),
}

/// A signing secret, written `whsec_` and 24 to 64 bytes in Base64.
#[derive(Clone)]
pub struct Secret(Key);

impl Secret {
    /// Reads `text`; white space around it is ignored.
    ///
    /// # Errors
    /// [`SecretError`] when it is not of the form above.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = decode(text)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        Key::new(Hash::Sha256, &bytes).map(Self).ok_or(SecretError::Length(0))
    }
}

/// Reads a secret that a sender gave us. Some have lengths that the specification does not: whoever got one cannot change it.
///
/// # Errors
/// [`SecretError`] when it is not of that form, or so short that it can be guessed.
pub fn key_of_sender(text: &str) -> Result<Key, SecretError> {
    let bytes = decode(text)?;
    if !(16..=512).contains(&bytes.len()) {
        return Err(SecretError::TheirLength(bytes.len()));
    }
    Key::new(Hash::Sha256, &bytes).ok_or(SecretError::TheirLength(0))
}

fn decode(text: &str) -> Result<Vec<u8>, SecretError> {
    let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
    super::decode_base64(encoded).ok_or(SecretError::Base64)
}

impl std::str::FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        Self::parse(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The `webhook-signature` header: one `v1` signature a secret, so that a receiver may still know only the old one.
/// `timestamp` is in Unix seconds.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let head = head(id, timestamp);
    let sign = |secret: &Secret| format!("{VERSION},{}", super::encode_base64(&secret.0.sign(&[head.as_bytes(), body])));
    let signatures: Vec<_> = secrets.iter().map(sign).collect();
    signatures.join(" ")
}

/// Whether one of the signatures in `header` is that of one of `secrets`. Signatures of other versions are passed over.
#[must_use]
pub fn verify(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
    let head = head(id, timestamp);
    header
        .split(' ')
        .filter_map(|signature| signature.split_once(','))
        .filter(|(version, _)| *version == VERSION)
        .filter_map(|(_, encoded)| super::decode_base64(encoded))
        .any(|signature| secrets.iter().any(|secret| secret.0.verify(&[head.as_bytes(), body], &signature)))
}

/// What is signed before the body.
fn head(id: &str, timestamp: i64) -> String {
    format!("{id}.{timestamp}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vector of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    fn other() -> Secret {
        secret(&format!("whsec_{}", super::super::encode_base64(&[7; 32])))
    }

    #[test]
    fn the_published_vector_comes_out() {
        assert_eq!(sign(&[secret(SECRET)], ID, AT, BODY), SIGNATURE);
        assert!(verify(&[secret(SECRET)], ID, AT, BODY, SIGNATURE));
    }

    #[test]
    fn any_of_several_signatures_and_secrets_will_do() {
        let both = sign(&[other(), secret(SECRET)], ID, AT, BODY);
        assert!(both.ends_with(&format!(" {SIGNATURE}")));
        assert!(verify(&[secret(SECRET)], ID, AT, BODY, &both));
        assert!(verify(&[other()], ID, AT, BODY, &both));
        assert!(verify(&[other(), secret(SECRET)], ID, AT, BODY, &format!("v1a,AAAA v2 {SIGNATURE}")));
    }

    #[test]
    fn everything_that_was_signed_counts() {
        let secrets = [secret(SECRET)];
        assert!(!verify(&secrets, "msg_other", AT, BODY, SIGNATURE));
        assert!(!verify(&secrets, ID, AT + 1, BODY, SIGNATURE));
        assert!(!verify(&secrets, ID, AT, b"{}", SIGNATURE));
        assert!(!verify(&[other()], ID, AT, BODY, SIGNATURE));
        assert!(!verify(&[], ID, AT, BODY, SIGNATURE));
        for header in ["", "v1", "v1,", "v1, ", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", &SIGNATURE[3..], "v1,g0hM"] {
            assert!(!verify(&secrets, ID, AT, BODY, header), "{header:?}");
        }
    }

    #[test]
    fn a_weak_secret_is_refused_without_being_repeated() {
        let read = |text: &str| Secret::parse(text).unwrap_err();
        assert_eq!(read(""), SecretError::Prefix);
        assert_eq!(read("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), SecretError::Prefix);
        assert_eq!(read("whsec_"), SecretError::Length(0));
        assert_eq!(read("whsec_AAAA"), SecretError::Length(3));
        assert_eq!(read("whsec_not base64"), SecretError::Base64);
        assert_eq!(read(&format!("whsec_{}", super::super::encode_base64(&[1; 65]))), SecretError::Length(65));
        assert_eq!(format!("{:?}", secret(SECRET)), "Secret([redacted])");
        assert_eq!(SECRET.parse::<Secret>().map(|_| ()), Ok(()));
        assert_eq!(key_of_sender("whsec_").unwrap_err(), SecretError::TheirLength(0));
        assert_eq!(key_of_sender("whsec_AAAA").unwrap_err(), SecretError::TheirLength(3));
        assert!(key_of_sender(&format!("whsec_{}", super::super::encode_base64(&[1; 75]))).is_ok());
    }
}
