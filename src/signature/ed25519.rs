//! Ed25519: public keys in the forms in which senders give them, verifying, and signing for the stand-ins of providers.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};

use super::pem;

/// The length of a signature, in bytes.
pub const SIGNATURE_LEN: usize = 64;
/// The length of a public key, and of the seed of a private one, in bytes.
pub const KEY_LEN: usize = 32;

/// Why something is no public key; the text itself is never repeated.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// It has another length.
    #[error("an Ed25519 public key has 32 bytes, this one {0}")]
    Length(usize),
    /// The text holds no PEM block of a public key, or one that is broken.
    #[error("there is no PEM block `PUBLIC KEY` in it that can be read")]
    NoBlock,
    /// The bytes are no point of the curve, or the block is of another kind of key.
    #[error("it is not an Ed25519 public key")]
    NotEd25519,
}

/// A public key, parsed.
#[derive(Clone)]
pub struct PublicKey(ParsedPublicKey);

impl PublicKey {
    /// Reads the 32 bytes of a key.
    ///
    /// # Errors
    /// [`KeyError`] when they are not.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != KEY_LEN {
            return Err(KeyError::Length(bytes.len()));
        }
        ParsedPublicKey::new(&ED25519, bytes).map(Self).map_err(|_| KeyError::NotEd25519)
    }

    /// Reads the first `PUBLIC KEY` block (`SubjectPublicKeyInfo`) of `text`.
    ///
    /// # Errors
    /// [`KeyError`] when there is none, or it is another kind of key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem::blocks(text, pem::PUBLIC).next().flatten().ok_or(KeyError::NoBlock)?;
        // The library takes 32 bytes for a bare key, which no block of this kind is.
        if der.len() == KEY_LEN {
            return Err(KeyError::NotEd25519);
        }
        ParsedPublicKey::new(&ED25519, der).map(Self).map_err(|_| KeyError::NotEd25519)
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(Ed25519)")
    }
}

/// A private key, for the stand-ins of providers.
pub struct PrivateKey(Ed25519KeyPair);

impl PrivateKey {
    /// The key of this seed of 32 bytes; `None` for another length.
    #[must_use]
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    /// The 32 bytes of its public half.
    #[must_use]
    pub fn public_bytes(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::decode_hex;

    // RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn the_vector_of_rfc_8032_comes_out() {
        let private = PrivateKey::from_seed(&decode_hex(SEED).unwrap()).unwrap();
        assert_eq!(private.public_bytes(), decode_hex(PUBLIC).unwrap());
        let signature = private.sign(b"\x72");
        assert_eq!(signature, decode_hex(SIGNATURE).unwrap());
        let public = PublicKey::from_bytes(&private.public_bytes()).unwrap();
        assert!(public.verify(b"\x72", &signature));
        assert!(!public.verify(b"\x73", &signature));
        assert!(!public.verify(b"\x72", &signature[1..]));
        assert!(!public.verify(b"\x72", &[]));
        assert!(!format!("{private:?} {public:?}").contains("4ccd"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(PublicKey::from_bytes(&[]).unwrap_err(), KeyError::Length(0));
        assert_eq!(PublicKey::from_bytes(&[0; 33]).unwrap_err(), KeyError::Length(33));
        assert_eq!(PublicKey::from_pem("").unwrap_err(), KeyError::NoBlock);
        assert_eq!(
            PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----").unwrap_err(),
            KeyError::NoBlock
        );
        let bare = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", crate::signature::encode_base64(&[1; 32]));
        assert_eq!(PublicKey::from_pem(&bare).unwrap_err(), KeyError::NotEd25519);
        let pem =
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
        assert!(PublicKey::from_pem(pem).is_ok());
        assert!(PrivateKey::from_seed(&[0; 31]).is_none());
    }
}
