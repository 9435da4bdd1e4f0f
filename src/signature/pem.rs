//! PEM, as RFC 7468 lays it out: just enough for keys.

/// The label of a public key.
pub(super) const PUBLIC: &str = "PUBLIC KEY";
/// The label of a private key.
pub(super) const PRIVATE: &str = "PRIVATE KEY";

/// The DER of every block with `label`, `None` for one that is not Base64; text around the blocks is ignored.
pub(super) fn blocks<'a>(pem: &'a str, label: &str) -> impl Iterator<Item = Option<Vec<u8>>> + 'a {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut rest = pem;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&begin)?;
        let Some((body, after)) = after.split_once(&end) else {
            rest = "";
            return Some(None);
        };
        rest = after;
        let text: String = body.split_ascii_whitespace().collect();
        Some(super::decode_base64(&text))
    })
}

/// One block.
pub(super) fn write(label: &str, der: &[u8]) -> String {
    let text = super::encode_base64(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + "-----END " + label + "-----\n"
}
