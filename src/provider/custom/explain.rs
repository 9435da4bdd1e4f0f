//! What would have made a refused request good: the same keys with one of them changed, tried one after the other.

use super::{Config, Encoding, Keys, Proof, Scheme, SecretForm, Signed};
use crate::provider::Request;
use crate::provider::settings::Common;
use crate::setting::{Secret, Secrets};

/// What senders commonly sign.
const TEMPLATES: [&str; 5] = ["{body}", "{ts}.{body}", "v0:{ts}:{body}", "{id}.{ts}.{body}", "{body_sha256_hex}"];

/// Says what would have made `request` good, without a secret.
pub(super) fn signed(config: &Config, signed: &Signed, request: &Request<'_>, public_urls: &[String]) -> String {
    if let Some(late) = signed.lateness(request, public_urls) {
        return late;
    }
    if !request.headers.contains_key(&signed.header) {
        return format!(
            "there is no header `{}`: is the secret set at the sender, and is `signature_header` right?",
            signed.header
        );
    }
    let good = |keys: Keys| match Config(keys).build(&Common::default()).ok()?.proof {
        Proof::Signed(signed) => {
            (signed.verify(request, public_urls).is_ok() || signed.lateness(request, public_urls).is_some()).then_some(())
        }
        Proof::Agreed(_) | Proof::Nothing => None,
    };
    for (keys, advice) in guesses(&config.0) {
        if good(keys).is_some() {
            return advice;
        }
    }
    "the signature is of another secret, or of other bytes: compare the secret with the sender's, `signed` with its documents, and see \
     that nothing on the way changes the body"
        .to_owned()
}

/// Every change worth a try, and what to do if it was the right one.
fn guesses(keys: &Keys) -> Vec<(Keys, String)> {
    let mut out = Vec::new();
    let mut guess = |change: &dyn Fn(&mut Keys), advice: String| {
        let mut changed = keys.clone();
        change(&mut changed);
        if changed != *keys {
            out.push((changed, advice));
        }
    };
    let cut = |keys: &mut Keys| {
        let pieces = keys.secret.iter().flat_map(|secret| secret.expose().split(',')).map(|piece| Secret::new(piece.trim()));
        keys.secret = Secrets(pieces.collect());
    };
    guess(&cut, "signed with one part of `secret`, which is one text, commas and all: write several as a list".to_owned());
    for (form, prefix, word) in [
        (SecretForm::Text, None, "secret_form = \"text\""),
        (SecretForm::Base64, None, "secret_form = \"base64\""),
        (SecretForm::Hex, None, "secret_form = \"hex\""),
        (SecretForm::Base64, Some("whsec_"), "secret_form = \"base64\"` and `secret_prefix = \"whsec_\""),
    ] {
        let change = |keys: &mut Keys| {
            (keys.secret_form, keys.secret_prefix) = (Some(form), prefix.map(ToOwned::to_owned));
        };
        guess(&change, format!("signed with the secret in another form: set `{word}`"));
    }
    let trimmed = |keys: &mut Keys| {
        keys.secret = Secrets(keys.secret.iter().map(|secret| Secret::new(secret.expose().trim())).collect());
    };
    guess(&trimmed, "signed with the secret without the blanks around it: take them away".to_owned());
    for (encoding, word) in [(Encoding::Hex, "hex"), (Encoding::Base64, "base64")] {
        let advice = format!("the signature is good, but written otherwise: set `signature_encoding = \"{word}\"`");
        guess(&|keys| keys.signature_encoding = Some(encoding), advice);
    }
    for template in TEMPLATES {
        let advice = format!("signed over other bytes: set `signed = \"{template}\"`");
        guess(&|keys| keys.signed = Some(template.to_owned()), advice.clone());
        // One that covers no time may not name one.
        let untimed = |keys: &mut Keys| {
            keys.signed = Some(template.to_owned());
            (keys.timestamp_header, keys.timestamp_name, keys.timestamp_unit, keys.tolerance) = (None, None, None, None);
        };
        guess(&untimed, format!("{advice}, and leave the timestamp out"));
    }
    for (scheme, word) in
        [(Scheme::HmacSha1, "hmac-sha1"), (Scheme::HmacSha256, "hmac-sha256"), (Scheme::HmacSha512, "hmac-sha512")]
    {
        guess(&|keys| keys.scheme = Some(scheme), format!("signed with another hash function: set `scheme = \"{word}\"`"));
    }
    out
}
