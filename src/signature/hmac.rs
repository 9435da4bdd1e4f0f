//! HMAC with SHA-1, SHA-256 and SHA-512: signing, for the stand-ins of providers, and verifying.
//!
//! What must hold: there is no empty key; a content is given in parts, so that a body of megabytes is never copied to stand
//! between its neighbours; and comparing takes the same time whatever is compared.

use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// The hash function inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-1: broken for other uses, sound in HMAC, and what some older senders have.
    Sha1,
    /// SHA-256: what nearly everybody has.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The length of a signature, in bytes.
    #[must_use]
    pub fn signature_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A key, ready for use: everything that depends on it alone is computed once.
#[derive(Clone)]
pub struct Key {
    hash: Hash,
    key: hmac::Key,
}

impl Key {
    /// A key of these bytes; `None` if there are none, since with an empty key anybody can sign.
    #[must_use]
    pub fn new(hash: Hash, bytes: &[u8]) -> Option<Self> {
        let algorithm = match hash {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        };
        (!bytes.is_empty()).then(|| Self { hash, key: hmac::Key::new(algorithm, bytes) })
    }

    /// The signature of `parts`, one behind the other.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.tag(parts).as_ref().to_vec()
    }

    /// Whether `signature` is that of `parts`, one behind the other; a part of a signature is none.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.verify_any(parts, [signature])
    }

    /// Whether one of `signatures` is that of `parts`, which are hashed once.
    #[must_use]
    pub fn verify_any<'a>(&self, parts: &[&[u8]], signatures: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let tag = self.tag(parts);
        // No early end: every one is compared.
        signatures.into_iter().fold(false, |good, signature| {
            aws_lc_rs::constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok() | good
        })
    }

    /// The length of this key's signatures, in bytes.
    #[must_use]
    pub fn signature_len(&self) -> usize {
        self.hash.signature_len()
    }

    fn tag(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, [redacted])", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::hex;

    fn signed(hash: Hash, key: &[u8], parts: &[&[u8]]) -> String {
        hex(&Key::new(hash, key).unwrap().sign(parts))
    }

    #[test]
    fn the_vectors_of_rfc_2202_and_rfc_4231_come_out() {
        let (key, data) = (b"Jefe".as_slice(), b"what do ya want for nothing?".as_slice());
        assert_eq!(signed(Hash::Sha1, key, &[data]), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(signed(Hash::Sha256, key, &[data]), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(
            signed(Hash::Sha512, key, &[data]),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }

    #[test]
    fn parts_are_signed_as_one() {
        let key = Key::new(Hash::Sha256, b"key").unwrap();
        let whole = key.sign(&[b"123.{}"]);
        assert_eq!(key.sign(&[b"123", b".", b"", b"{}"]), whole);
        assert!(key.verify(&[b"123", b".{}"], &whole));
    }

    #[test]
    fn only_the_whole_signature_of_the_same_content_and_key_is_good() {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
            let key = Key::new(hash, b"key").unwrap();
            let good = key.sign(&[b"content"]);
            assert_eq!((good.len(), key.signature_len()), (hash.signature_len(), hash.signature_len()));
            assert!(key.verify(&[b"content"], &good));
            assert!(!key.verify(&[b"Content"], &good));
            assert!(!key.verify(&[b"content"], &good[1..]));
            assert!(!key.verify(&[b"content"], &good[..good.len() - 1]));
            assert!(!key.verify(&[b"content"], &[]));
            assert!(key.verify_any(&[b"content"], [b"".as_slice(), &good, &good[1..]]) && !key.verify_any(&[b"content"], []));
            assert!(!key.verify(&[b"content"], &[good.as_slice(), &[0]].concat()));
            assert!(!Key::new(hash, b"kez").unwrap().verify(&[b"content"], &good));
        }
    }

    #[test]
    fn there_is_no_empty_key_and_none_is_printed() {
        assert!(Key::new(Hash::Sha256, b"").is_none());
        assert_eq!(format!("{:?}", Key::new(Hash::Sha1, b"secret").unwrap()), "Key(Sha1, [redacted])");
    }
}
