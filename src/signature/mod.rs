//! Signatures: signing and verifying, pure.
//!
//! What must hold: an empty secret never exists; comparisons take the same time whatever they compare; Base64 is the standard
//! alphabet with padding and nothing else, so that one signature has one spelling. Everything stands on `aws-lc-rs`.

pub mod rsa;
pub mod standard_webhooks;

/// Decodes standard Base64 (RFC 4648 §4): padded, no white space, no URL-safe alphabet, no stray bits. `None` for anything else.
#[must_use]
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Encodes as standard Base64 with padding.
#[must_use]
pub fn encode_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(decode_base64("+/8="), Some(vec![0xfb, 0xff]));
        for other in ["-_8=", "+/8", "+/9=", "+/8=\n", " +/8=", "+ /8=", "*"] {
            assert_eq!(decode_base64(other), None, "{other:?}");
        }
        assert_eq!(encode_base64(&[0xfb, 0xff]), "+/8=");
    }
}
