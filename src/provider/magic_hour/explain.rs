//! What would have made a request good that Magic Hour may have sent, or somebody who tries it out.

use serde_json::value::RawValue;

use super::{PREFIX, SIGNATURE, TIMESTAMP, key};
use crate::provider::signed::{Key, Signed};
use crate::provider::{RefusalKind, Request};
use crate::setting::Secret;
use crate::signature::decode_base64;

/// See [`crate::provider::Source::explain`].
pub(super) fn explain(signed: &Signed, secrets: &[Secret], request: &Request<'_>) -> Option<String> {
    let kind = signed.verify(request, &[]).err()?.kind;
    match kind {
        RefusalKind::TimestampStale => return signed.lateness(request, &[]),
        RefusalKind::SignatureInvalid => {}
        RefusalKind::SignatureMissing | RefusalKind::TimestampMissing => {
            return Some(format!(
                "Magic Hour sends the headers `{SIGNATURE}` and `{TIMESTAMP}`; without them it was not Magic Hour, or something on \
                 the way removed them"
            ));
        }
        _ => return None,
    }
    let wrong_keys = [
        (
            keys(secrets, |secret| decode_base64(secret.strip_prefix(PREFIX)?)),
            "signed with the Base64 part of `secret`, decoded, as Standard Webhooks has it: Magic Hour signs with the whole text, \
             `whsec_` included, so correct the sender",
        ),
        (
            keys(secrets, |secret| secret.strip_prefix(PREFIX).map(|rest| rest.as_bytes().to_vec())),
            "signed with `secret` without its `whsec_`: Magic Hour signs with the whole text, so correct the sender",
        ),
        (
            keys(secrets, |secret| Some(format!("{PREFIX}{secret}").into_bytes())),
            "signed with `secret` behind `whsec_`: set `secret` to the whole text that the Developer Hub showed, `whsec_` included",
        ),
        (
            keys(secrets, |secret| Some(format!("{secret}\n").into_bytes())),
            "signed with `secret` and a line break behind it: correct the sender",
        ),
    ];
    for (keys, advice) in wrong_keys {
        if would_fit(signed, request, keys, request.body) {
            return Some(advice.to_owned());
        }
    }
    let ours = || signed.keys.clone();
    if rewritten(request.body).iter().any(|body| would_fit(signed, request, ours(), body)) {
        return Some(
            "signed over the same JSON with other white space: the body was read and printed again after it was signed, by the \
             sender or by something on the way, which must pass it on byte by byte"
                .to_owned(),
        );
    }
    Some(
        "the signature is none by `secret`: is it the secret of this webhook, whole and with its `whsec_`? If it was changed in the \
         Developer Hub, set both for a while, `secret = [\"whsec_…\", \"whsec_…\"]`; and nothing on the way may change the body"
            .to_owned(),
    )
}

/// Whether a signature of `body` by `keys` would be the one that came, whatever its time.
fn would_fit(signed: &Signed, request: &Request<'_>, keys: Vec<Key>, body: &[u8]) -> bool {
    let guess = Signed { keys, ..signed.clone() }.verify(&Request { body, ..*request }, &[]);
    guess.err().is_none_or(|refusal| refusal.genuine)
}

/// The keys that `change` makes of our secrets.
fn keys(secrets: &[Secret], change: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<Key> {
    secrets.iter().filter_map(|secret| key(&change(secret.expose().trim())?)).collect()
}

/// `body` as usual printers of JSON write it, in the order of its members; none if it is no JSON.
fn rewritten(body: &[u8]) -> Vec<Vec<u8>> {
    let Ok(value) = serde_json::from_slice::<Box<RawValue>>(body) else { return Vec::new() };
    let text = value.get();
    vec![spaced(text, "", ""), spaced(text, ", ", ": "), text.as_bytes().to_vec(), format!("{text}\n").into_bytes()]
}

/// `json` without white space between its values, but for what stands behind its commas and colons: nothing, or these.
fn spaced(json: &str, comma: &str, colon: &str) -> Vec<u8> {
    let (mut out, mut in_string, mut escaped) = (Vec::with_capacity(json.len()), false, false);
    for byte in json.bytes() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b',' if !comma.is_empty() => out.extend_from_slice(comma.as_bytes()),
            b':' if !colon.is_empty() => out.extend_from_slice(colon.as_bytes()),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => out.push(byte),
        }
        in_string = byte == b'"';
    }
    out
}
