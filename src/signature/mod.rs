//! Signatures: signing and verifying, pure.
//!
//! What must hold: an empty secret never exists; comparisons take the same time whatever they compare; Base64 is the standard
//! alphabet with padding, and hexadecimal in lower case, and nothing else, so that one signature has one spelling. Everything stands on `aws-lc-rs`.

pub mod ed25519;
pub mod hmac;
mod pem;
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

/// Decodes hexadecimal in lower case. `None` for anything else: an odd length, capitals, white space.
#[must_use]
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
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

    #[test]
    fn hexadecimal_has_one_spelling() {
        assert_eq!(decode_hex("00ff1a"), Some(vec![0, 255, 26]));
        assert_eq!(decode_hex(""), Some(Vec::new()));
        for other in ["0", "00f", "0G", "FF", " 00", "00 ", "0x00", "é0"] {
            assert_eq!(decode_hex(other), None, "{other:?}");
        }
        assert_eq!(crate::event::hex(&[0, 255, 26]), "00ff1a");
    }
}
