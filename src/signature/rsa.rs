//! RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2): what Manus signs its webhooks with.
//!
//! Public keys are parsed once and kept parsed: a check with a 2048-bit key takes some 15 µs. Private keys are for stand-ins and
//! tests; taskhook itself signs nothing with RSA.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize, PublicEncryptingKey};
use aws_lc_rs::signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};

use super::pem::{self, PRIVATE, PUBLIC};
use crate::event::hex;

/// Why a text is no key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The text holds no block with this label.
    #[error("there is no PEM block `{0}` in it")]
    NoBlock(&'static str),
    /// The block is not Base64.
    #[error("its PEM block `{0}` is not Base64")]
    NotBase64(&'static str),
    /// The block is no RSA key of 2048 to 8192 bits.
    #[error("its PEM block `{0}` is not an RSA key of 2048 to 8192 bits")]
    NotRsa(&'static str),
}

/// A public key, parsed.
#[derive(Clone)]
pub struct PublicKey {
    parsed: ParsedPublicKey,
    pem: String,
    fingerprint: String,
    signature_len: usize,
}

impl PublicKey {
    /// Reads the first `PUBLIC KEY` block (`SubjectPublicKeyInfo`) of `pem`.
    ///
    /// # Errors
    /// [`KeyError`] when there is none, or it is no RSA key of 2048 to 8192 bits.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_der(&first_block(pem, PUBLIC)?)
    }

    /// Reads every `PUBLIC KEY` block of `pem`: a file may pin the next key beside the present one.
    ///
    /// # Errors
    /// As [`PublicKey::from_pem`], for the first block that is wrong.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, KeyError> {
        let keys = blocks(pem, PUBLIC).map(|block| Self::from_der(&block?)).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(KeyError::NoBlock(PUBLIC)) } else { Ok(keys) }
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map_err(|_| KeyError::NotRsa(PUBLIC))?;
        // Parsed a second time only to learn its size, which the verifying type does not tell.
        let signature_len = PublicEncryptingKey::from_der(der).map_err(|_| KeyError::NotRsa(PUBLIC))?.key_size_bytes();
        let fingerprint = hex(&digest(&SHA256, der).as_ref()[..8]);
        Ok(Self { parsed, pem: pem::write(PUBLIC, der), fingerprint, signature_len })
    }

    /// The key as PEM, in one spelling whatever it was read from.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The first 16 hexadecimal digits of SHA-256 over the DER form: a short name for people.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The length of this key's signatures, in bytes: 256 for 2048 bits.
    #[must_use]
    pub fn signature_len(&self) -> usize {
        self.signature_len
    }

    /// Whether `signature` is this key's over `message`. The message is hashed here, once.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// A private key, for the stand-ins of providers.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new key of 2048 bits; takes some 100 ms.
    ///
    /// # Panics
    /// If the machine has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).expect("a machine without randomness cannot run this program at all"))
    }

    /// Reads the first `PRIVATE KEY` block (PKCS #8) of `pem`.
    ///
    /// # Errors
    /// [`KeyError`] when there is none, or it is no RSA key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        KeyPair::from_pkcs8(&first_block(pem, PRIVATE)?).map(Self).map_err(|_| KeyError::NotRsa(PRIVATE))
    }

    /// The key as PEM (PKCS #8): a secret.
    ///
    /// # Panics
    /// Never: a key that was made or read can be written.
    #[must_use]
    pub fn pem(&self) -> String {
        let der: Pkcs8V1Der<'_> = self.0.as_der().expect("a key in memory can be encoded");
        pem::write(PRIVATE, der.as_ref())
    }

    /// Its public half as PEM (`SubjectPublicKeyInfo`).
    ///
    /// # Panics
    /// Never: a key that was made or read can be written.
    #[must_use]
    pub fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().expect("a key in memory can be encoded");
        pem::write(PUBLIC, der.as_ref())
    }

    /// Signs `message`, which is hashed here, once.
    ///
    /// # Panics
    /// If the machine has no randomness.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .expect("a valid key signs any message into a buffer of its own length");
        signature
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

fn first_block(text: &str, label: &'static str) -> Result<Vec<u8>, KeyError> {
    blocks(text, label).next().unwrap_or(Err(KeyError::NoBlock(label)))
}

/// The DER of every block with `label`.
fn blocks<'a>(text: &'a str, label: &'static str) -> impl Iterator<Item = Result<Vec<u8>, KeyError>> + 'a {
    pem::blocks(text, label).map(move |block| block.ok_or(KeyError::NotBase64(label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does() {
        let private = PrivateKey::generate();
        let public = PublicKey::from_pem(&private.public_pem()).unwrap();
        let signature = private.sign(b"message");
        assert_eq!(signature.len(), public.signature_len());
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"Message", &signature));
        assert!(!public.verify(b"message", &signature[1..]));
        assert!(!public.verify(b"message", &[]));
        let other = PublicKey::from_pem(&PrivateKey::generate().public_pem()).unwrap();
        assert!(!other.verify(b"message", &signature));
        assert_ne!(other, public);
    }

    #[test]
    fn keys_survive_their_pem() {
        let private = PrivateKey::generate();
        let again = PrivateKey::from_pem(&private.pem()).unwrap();
        assert_eq!(again.public_pem(), private.public_pem());
        let public = PublicKey::from_pem(&private.public_pem()).unwrap();
        assert_eq!(public.pem(), private.public_pem());
        let crlf = format!("a comment\r\n{}", public.pem().replace('\n', "\r\n"));
        assert_eq!(PublicKey::from_pem(&crlf).unwrap(), public);
        assert_eq!(PublicKey::all_from_pem(&format!("{}\n{}", public.pem(), public.pem())).unwrap().len(), 2);
        assert_eq!(public.fingerprint().len(), 16);
        assert!(!format!("{private:?}").contains("MII"));
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_reason() {
        let read = |pem: &str| PublicKey::from_pem(pem).unwrap_err();
        assert_eq!(read(""), KeyError::NoBlock(PUBLIC));
        assert_eq!(read("-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----"), KeyError::NotBase64(PUBLIC));
        assert_eq!(read("-----BEGIN PUBLIC KEY-----\nAAAA"), KeyError::NotBase64(PUBLIC));
        assert_eq!(read("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"), KeyError::NotRsa(PUBLIC));
        assert_eq!(PublicKey::all_from_pem("x").unwrap_err(), KeyError::NoBlock(PUBLIC));
        // An Ed25519 key is a public key, but not one that Manus signs with.
        let ed25519 =
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
        assert_eq!(read(ed25519), KeyError::NotRsa(PUBLIC));
    }
}
