//! Every scheme, as a sender would sign and as a user would configure it.
//!
//! To add one: a row in [`schemes`]. The tests of `bad.rs` then hold it to what all are held to.

use std::sync::LazyLock;

use taskhook::event::{body_id, hex};
use taskhook::signature::hmac::{Hash, Key};
use taskhook::signature::{ed25519, encode_base64, rsa};

/// Names and values, the signature first.
pub(super) type Headers = Vec<(&'static str, String)>;

/// A sender. Its keys have numbers: 0 and 1 are ours, 2 is somebody else's.
pub(super) struct Scheme {
    /// The name of its source.
    pub(super) name: &'static str,
    /// Its section, but for the keys that verify.
    keys: &'static str,
    /// Under which key of the configuration, and in which words, the user writes a key that verifies.
    secret: (&'static str, fn(usize) -> String),
    /// The headers of a request, the one with the signature first.
    pub(super) sign: fn(key: usize, at: i64, body: &[u8]) -> Headers,
    /// How the signature is written.
    pub(super) written: Written,
    /// Whether an old request is refused.
    pub(super) timed: bool,
    /// Whether a request that comes again is known.
    pub(super) once: bool,
    /// How a header holds two signatures, where it can.
    pub(super) two: Option<fn(&str, &str) -> String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Hex,
    Base64,
    /// There is no signature: an agreed value.
    Agreed,
}

impl Scheme {
    /// Its section, with keys of these numbers.
    pub(super) fn section(&self, keys: &[usize]) -> String {
        let values: Vec<_> = keys.iter().map(|key| (self.secret.1)(*key)).collect();
        self.section_of(&values)
    }

    /// Its section, with keys written so.
    pub(super) fn section_of(&self, values: &[String]) -> String {
        let list = toml::Value::from(values.to_vec());
        let verifies = if values.is_empty() { String::new() } else { format!("{} = {list}\n", self.secret.0) };
        format!("[sources.{}]\n{}\n{verifies}", self.name, self.keys)
    }

    /// What a user would have written for the key.
    pub(super) fn secret(&self, key: usize) -> String {
        (self.secret.1)(key)
    }

    /// The header with the time of signing, where that stands in one of its own.
    pub(super) fn timestamp_header(&self) -> Option<&'static str> {
        let headers = (self.sign)(0, 0, b"");
        headers.into_iter().find(|(_, value)| self.timed && value == "0").map(|(name, _)| name)
    }

    /// The word in the envelope.
    pub(super) fn verification(&self) -> &'static str {
        if self.written == Written::Agreed { "authorization" } else { "signature" }
    }
}

fn text(key: usize) -> String {
    format!("secret-number-{key}-of-the-tests")
}

fn whsec(key: usize) -> String {
    format!("whsec_{}", encode_base64(&[40 + u8::try_from(key).expect("few keys"); 32]))
}

fn hmac(hash: Hash, key: usize, parts: &[&[u8]]) -> Vec<u8> {
    Key::new(hash, text(key).as_bytes()).expect("a key").sign(parts)
}

fn hex_of(key: usize, parts: &[&[u8]]) -> String {
    hex(&hmac(Hash::Sha256, key, parts))
}

fn private(key: usize) -> ed25519::PrivateKey {
    ed25519::PrivateKey::from_seed(&[60 + u8::try_from(key).expect("few keys"); 32]).expect("a seed")
}

static RSA: LazyLock<[rsa::PrivateKey; 3]> = LazyLock::new(|| std::array::from_fn(|_| rsa::PrivateKey::generate()));

/// An id of the request, which the sender keeps when it sends it again.
fn id_of(body: &[u8]) -> String {
    body_id(body).replace("sha256:", "msg_")
}

fn standard(prefix: &'static [&'static str; 3], at: i64, body: &[u8], sign: impl Fn(&[&[u8]]) -> String) -> Headers {
    let (id, at) = (id_of(body), at.to_string());
    let signature = sign(&[id.as_bytes(), b".", at.as_bytes(), b".", body]);
    vec![(prefix[0], signature), (prefix[1], at), (prefix[2], id)]
}

fn v1(key: usize, parts: &[&[u8]]) -> String {
    let key = taskhook::signature::standard_webhooks::key_of_sender(&whsec(key)).expect("a secret");
    format!("v1,{}", encode_base64(&key.sign(parts)))
}

const WEBHOOK: [&str; 3] = ["webhook-signature", "webhook-timestamp", "webhook-id"];
const SVIX: [&str; 3] = ["svix-signature", "svix-timestamp", "svix-id"];

/// Every scheme.
pub(super) fn schemes() -> Vec<Scheme> {
    let plain = |name, keys, sign| Scheme {
        name,
        keys,
        secret: ("secret", text),
        sign,
        written: Written::Hex,
        timed: false,
        once: true,
        two: None,
    };
    vec![
        Scheme {
            secret: ("secret", whsec),
            written: Written::Base64,
            timed: true,
            two: Some(|one, two| format!("{one} {two}")),
            ..plain("standard", "provider = \"standard_webhooks\"", |key, at, body| {
                standard(&WEBHOOK, at, body, |parts| v1(key, parts))
            })
        },
        Scheme {
            secret: ("secret", whsec),
            written: Written::Base64,
            timed: true,
            two: Some(|one, two| format!("{one} {two}")),
            ..plain("svix", "provider = \"standard_webhooks\"\nheader_prefix = \"svix\"", |key, at, body| {
                standard(&SVIX, at, body, |parts| v1(key, parts))
            })
        },
        Scheme {
            secret: ("public_key", |key| format!("whpk_{}", encode_base64(&private(key).public_bytes()))),
            written: Written::Base64,
            timed: true,
            two: Some(|one, two| format!("{one} {two}")),
            ..plain("standard_ed25519", "provider = \"standard_webhooks\"", |key, at, body| {
                standard(&WEBHOOK, at, body, |parts| format!("v1a,{}", encode_base64(&private(key).sign(&parts.concat()))))
            })
        },
        plain("github", "provider = \"custom\"\npreset = \"github\"", |key, _, body| {
            let event = ("x-github-event", "push".to_owned());
            vec![("x-hub-signature-256", format!("sha256={}", hex_of(key, &[body]))), ("x-github-delivery", id_of(body)), event]
        }),
        Scheme {
            timed: true,
            two: Some(|one, two| format!("{one},{}", two.split_once(',').expect("a time before it").1)),
            ..plain("stripe", "provider = \"custom\"\npreset = \"stripe\"", |key, at, body| {
                let signature = hex_of(key, &[at.to_string().as_bytes(), b".", body]);
                vec![("stripe-signature", format!("t={at},v1={signature}"))]
            })
        },
        Scheme {
            timed: true,
            ..plain("slack", "provider = \"custom\"\npreset = \"slack\"", |key, at, body| {
                let signature = hex_of(key, &[b"v0:", at.to_string().as_bytes(), b":", body]);
                vec![("x-slack-signature", format!("v0={signature}")), ("x-slack-request-timestamp", at.to_string())]
            })
        },
        plain("skyvern", "provider = \"custom\"\npreset = \"skyvern\"", |key, _, body| {
            vec![("x-skyvern-signature", hex_of(key, &[body])), ("x-skyvern-timestamp", "1".to_owned())]
        }),
        plain("cursor", "provider = \"custom\"\npreset = \"cursor\"", |key, _, body| {
            let event = ("x-webhook-event", "statusChange".to_owned());
            vec![("x-webhook-signature", format!("sha256={}", hex_of(key, &[body]))), event]
        }),
        Scheme {
            written: Written::Base64,
            ..plain(
                "sha512",
                "provider = \"custom\"\nscheme = \"hmac-sha512\"\nsignature_header = \"x-signature\"\nsignature_encoding = \"base64\"\n\
                 signed = \"{body_sha256_hex}\"\nevent_id = \"hash\"\nevent_type = \"/type\"",
                |key, _, body| {
                    let digest = body_id(body).replace("sha256:", "");
                    vec![("x-signature", encode_base64(&hmac(Hash::Sha512, key, &[digest.as_bytes()])))]
                },
            )
        },
        plain(
            "sha1",
            "provider = \"custom\"\nscheme = \"hmac-sha1\"\nsignature_header = \"x-signature\"\nsignature_encoding = \"hex\"\n\
             signature_prefix = \"sha1=\"\nsigned = \"{body}\"\nevent_id = \"/id\"\nevent_type = \"/type\"",
            |key, _, body| vec![("x-signature", format!("sha1={}", hex(&hmac(Hash::Sha1, key, &[body]))))],
        ),
        Scheme {
            secret: ("public_key", |key| hex(&private(key).public_bytes())),
            timed: true,
            ..plain(
                "fal",
                "provider = \"custom\"\nscheme = \"ed25519\"\nsignature_header = \"x-fal-webhook-signature\"\nsignature_encoding = \"hex\"\n\
                 signed = \"{header:x-fal-webhook-request-id}\\n{header:x-fal-webhook-user-id}\\n{ts}\\n{body_sha256_hex}\"\n\
                 timestamp_header = \"x-fal-webhook-timestamp\"\nevent_id = \"header:x-fal-webhook-request-id\"\nevent_type = \"/status\"",
                |key, at, body| {
                    let (id, digest) = (id_of(body), body_id(body).replace("sha256:", ""));
                    let signature = hex(&private(key).sign(format!("{id}\nuser\n{at}\n{digest}").as_bytes()));
                    vec![
                        ("x-fal-webhook-signature", signature),
                        ("x-fal-webhook-timestamp", at.to_string()),
                        ("x-fal-webhook-request-id", id),
                        ("x-fal-webhook-user-id", "user".to_owned()),
                    ]
                },
            )
        },
        Scheme {
            secret: ("public_key", |key| RSA[key].public_pem()),
            written: Written::Base64,
            ..plain(
                "rsa",
                "provider = \"custom\"\nscheme = \"rsa\"\nsignature_header = \"x-signature\"\nsignature_encoding = \"base64\"\n\
                 signed = \"{body}\"\nevent_id = \"/id\"\nevent_type = \"/type\"",
                |key, _, body| vec![("x-signature", encode_base64(&RSA[key].sign(body)))],
            )
        },
        Scheme {
            written: Written::Agreed,
            once: false,
            ..plain(
                "gitlab",
                "provider = \"custom\"\nscheme = \"static-header\"\nsignature_header = \"X-Gitlab-Token\"\nevent_id = \"none\"\n\
                 event_type = \"/type\"",
                |key, _, _| vec![("x-gitlab-token", text(key))],
            )
        },
        Scheme {
            timed: true,
            ..plain("magic_hour", "provider = \"magic_hour\"", |key, at, body| {
                let signature = hex_of(key, &[at.to_string().as_bytes(), b".", body]);
                vec![("magic-hour-event-signature", signature), ("magic-hour-event-timestamp", at.to_string())]
            })
        },
        Scheme {
            secret: ("authorization", |key| format!("Bearer {}", text(key))),
            written: Written::Agreed,
            once: false,
            ..plain("webrun", "provider = \"webrun\"\npayload = \"ai_response\"\nmax_body_bytes = \"2MiB\"", |key, _, _| {
                vec![("authorization", format!("Bearer {}", text(key)))]
            })
        },
        Scheme {
            secret: ("secret", |key| format!("user:{}", text(key))),
            written: Written::Agreed,
            ..plain(
                "basic",
                "provider = \"custom\"\nscheme = \"basic\"\nevent_id = \"/id\"\nevent_type = \"/type\"",
                |key, _, _| vec![("authorization", format!("Basic {}", encode_base64(format!("user:{}", text(key)).as_bytes())))],
            )
        },
    ]
}
