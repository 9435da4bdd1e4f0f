//! The presets' vectors, what each key means, and what is refused.

use jiff::Timestamp;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::event::hex;
use crate::provider::{Budgets, Own, RefusalKind, Source};
use crate::signature::{ed25519, encode_base64, hmac, rsa};

const GOOD: Result<Verification, RefusalKind> = Ok(Verification::Signature);
const INVALID: Result<Verification, RefusalKind> = Err(RefusalKind::SignatureInvalid);
const MALFORMED: Result<Verification, RefusalKind> = Err(RefusalKind::SignatureMalformed);
const NOW: i64 = 1_700_000_000;

fn settings(toml: &str) -> crate::provider::Config {
    let common: Common = toml::from_str(toml).unwrap();
    crate::provider::Config { own: Own::Custom(Box::new(toml::from_str(toml).unwrap())), common }
}

/// All that is wrong with `toml`.
fn wrong(toml: &str) -> String {
    settings(toml).check().join("\n")
}

fn source(toml: &str) -> Source {
    let clock = Clock::system();
    assert_eq!(wrong(toml), "", "{toml}");
    Source::new("other", &settings(toml), &clock, &Budgets::new(clock.clone())).unwrap()
}

/// A request: headers, body, and what follows the base of the URL.
struct Sent {
    headers: HeaderMap,
    body: Vec<u8>,
    suffix: &'static str,
    now: i64,
}

impl Sent {
    fn new(body: impl AsRef<[u8]>, headers: &[(&'static str, &str)]) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Self { headers: map, body: body.as_ref().to_vec(), suffix: "/webhooks/other?ref=r1", now: NOW }
    }

    fn at(self, now: i64) -> Self {
        Self { now, ..self }
    }

    fn request(&self) -> Request<'_> {
        let now = Timestamp::from_second(self.now).unwrap();
        Request { headers: &self.headers, body: &self.body, url_suffix: self.suffix, now }
    }

    fn to(&self, toml: &str) -> Result<Verification, RefusalKind> {
        let urls = ["https://a.example.com".to_owned(), "https://b.example.com/base".to_owned()];
        source(toml).verify(&self.request(), &urls, &[]).map_err(|refusal| refusal.kind)
    }

    fn explained(&self, toml: &str) -> String {
        source(toml).explain(&self.request(), &["https://a.example.com".to_owned()], &[]).unwrap_or_default()
    }

    fn read(&self, toml: &str) -> Reading {
        source(toml).read(&self.request())
    }
}

fn signed_hex(key: &str, parts: &[&[u8]]) -> String {
    hex(&hmac::Key::new(hmac::Hash::Sha256, key.as_bytes()).unwrap().sign(parts))
}

#[test]
fn github_is_as_documented() {
    let toml = "preset = 'github'\nsecret = \"It's a Secret to Everybody\"";
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(Sent::new("Hello, World!", &[("x-hub-signature-256", signature)]).to(toml), GOOD);
    assert_eq!(Sent::new("Hello, world!", &[("x-hub-signature-256", signature)]).to(toml), INVALID);
    for bad in [
        "",
        "sha256=",
        &signature[7..],
        "sha1=757107ea0eb2509fc211221cce984b8a37570b6d",
        &signature[..70],
        &signature.to_uppercase(),
    ] {
        assert_eq!(Sent::new("Hello, World!", &[("x-hub-signature-256", bad)]).to(toml), MALFORMED, "{bad}");
    }
    let event = [("x-github-delivery", "72d3162e"), ("x-github-event", "pull_request")];
    let reading = Sent::new(r#"{"action":"opened"}"#, &event).read(toml);
    assert_eq!((reading.event_id.as_str(), reading.kind.as_str(), reading.ping), ("72d3162e", "pull_request.opened", false));
    assert_eq!(Sent::new("{}", &event).read(toml).kind, "pull_request");
    assert!(Sent::new("{}", &[("x-github-event", "ping")]).read(toml).ping);
}

#[test]
fn slack_is_as_documented() {
    let toml = "preset = 'slack'\nsecret = '8f742231b10e8888abcd99yyyzzz85a5'";
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&\
                user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2F\
                commands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c4\
                47fce8b6703c";
    let signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let sent = |timestamp: &str, now| {
        Sent::new(body, &[("x-slack-signature", signature), ("x-slack-request-timestamp", timestamp)]).at(now).to(toml)
    };
    assert_eq!(sent("1531420618", 1_531_420_618), GOOD);
    assert_eq!(sent("1531420618", 1_531_420_918), GOOD);
    assert_eq!(sent("1531420618", 1_531_420_919), Err(RefusalKind::TimestampStale));
    assert_eq!(sent("1531420619", 1_531_420_619), INVALID);
    assert_eq!(sent("+1531420618", 1_531_420_618), Err(RefusalKind::TimestampMalformed));
    assert_eq!(Sent::new(body, &[("x-slack-signature", signature)]).to(toml), Err(RefusalKind::TimestampMissing));
    let event = Sent::new(r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}"#, &[]).read(toml);
    assert_eq!((event.event_id.as_str(), event.kind.as_str(), event.reply), ("Ev1", "app_mention", None));
    let challenge = Sent::new(r#"{"type":"url_verification","token":"t","challenge":"3eZbrw1a"}"#, &[]).read(toml);
    assert_eq!((challenge.ping, challenge.kind.as_str()), (true, "url_verification"));
    assert_eq!(challenge.reply, Some(Reply { status: StatusCode::OK, text: Some("3eZbrw1a".to_owned()) }));
    assert!(challenge.event_id.starts_with("sha256:"));
    // Only such a request is echoed.
    let other = Sent::new(r#"{"type":"event_callback","event_id":"Ev2","challenge":"x"}"#, &[]).read(toml);
    assert_eq!((other.ping, other.reply), (false, None));
}

#[test]
fn stripe_is_as_documented() {
    let toml = "preset = 'stripe'\nsecret = 'whsec_test_secret'";
    let good = "v1=e135cdbed3dda004bf8a2fb350f2541d299393c770e0b9e6e319dc595e9072aa";
    let zeros = "v1=0000000000000000000000000000000000000000000000000000000000000000";
    let sent = |header: &str| Sent::new(r#"{"id":"evt_1"}"#, &[("stripe-signature", header)]).at(1_614_265_330).to(toml);
    assert_eq!(sent(&format!("t=1614265330,{good}")), GOOD);
    assert_eq!(sent(&format!("t=1614265330, {zeros},v0=ab,{good}")), GOOD);
    assert_eq!(sent(&format!("{good},t=1614265330")), GOOD);
    for (header, expected) in [
        (format!("t=1614265330,{zeros}"), RefusalKind::SignatureInvalid),
        (format!("t=1614265331,{good}"), RefusalKind::SignatureInvalid),
        (good.to_owned(), RefusalKind::TimestampMissing),
        (format!("t=1614265330,t=1614265330,{good}"), RefusalKind::TimestampMalformed),
        (format!("t=,{good}"), RefusalKind::TimestampMalformed),
        (format!("t=1614265330,v0={}", &good[3..]), RefusalKind::SignatureMalformed),
        (format!("t=1614265330 {good}"), RefusalKind::SignatureMalformed),
        ("t".to_owned(), RefusalKind::SignatureMalformed),
    ] {
        assert_eq!(sent(&header), Err(expected), "{header}");
    }
    let reading = Sent::new(r#"{"id":"evt_1","type":"charge.succeeded"}"#, &[]).read(toml);
    assert_eq!((reading.event_id.as_str(), reading.kind.as_str()), ("evt_1", "charge.succeeded"));
}

#[test]
fn cursor_and_skyvern_are_as_documented() {
    let cursor = "preset = 'cursor'\nsecret = 'cursor-secret-at-least-32-characters'";
    let signature = "sha256=a52ed06ec0478d6b9bb02f177baa9194159b1600c230472d83aa211d763b06a8";
    assert_eq!(Sent::new(r#"{"event":"statusChange"}"#, &[("x-webhook-signature", signature)]).to(cursor), GOOD);
    let reading = Sent::new(r#"{"event":"statusChange","id":"bc_1","status":"FINISHED"}"#, &[]).read(cursor);
    assert_eq!((reading.event_id.as_str(), reading.kind.as_str()), ("bc_1:FINISHED", "statusChange"));
    assert_eq!(reading.task_id.as_deref(), Some("bc_1"));
    let skyvern = "preset = 'skyvern'\nsecret = 'sky-api-key'";
    let body = r#"{"run_id":"tsk_1","status":"completed"}"#;
    let signature = signed_hex("sky-api-key", &[body.as_bytes()]);
    // Its timestamp is not signed, so it is not asked for.
    let sent = Sent::new(body, &[("x-skyvern-signature", &signature), ("x-skyvern-timestamp", "1")]);
    assert_eq!(sent.to(skyvern), GOOD);
    let reading = sent.read(skyvern);
    assert_eq!((reading.event_id.as_str(), reading.kind.as_str()), ("tsk_1:completed", "completed"));
    // Half an id would be that of another event.
    assert!(Sent::new(r#"{"run_id":"tsk_1"}"#, &[]).read(skyvern).event_id.starts_with("sha256:"));
}

#[test]
fn a_preset_is_nothing_but_keys_and_own_keys_go_over_it() {
    let documented = include_str!("../../docs/custom.md");
    for preset in Preset::ALL {
        assert!(documented.contains(preset.text()), "{preset:?} is not what the documentation says");
        // Every key of it is one, and all of them come through.
        let text: toml::Table = preset.text().parse().unwrap();
        let read: Value = serde_json::to_value(preset.keys()).unwrap();
        for (key, value) in &text {
            assert_eq!(read[key], json!(value), "{preset:?} {key}");
        }
        // The same keys without the preset mean the same.
        let name = toml::Value::try_from(preset).unwrap();
        let (short, long) =
            (format!("preset = {name}\nsecret = 'secret-of-8'"), format!("{}\nsecret = 'secret-of-8'", preset.text()));
        let Own::Custom(mut own) = settings(&short).own else { panic!("not custom") };
        own.0.preset = None;
        assert_eq!(Own::Custom(own), settings(&long).own, "{preset:?}");
        source(&short);
    }
    let toml = "preset = 'stripe'\nsecret = 'secret-of-8'\ntolerance = '30m'\nevent_type = ['/type', '/object']";
    let printed = serde_json::to_value(settings(toml)).unwrap();
    assert_eq!((&printed["tolerance"], &printed["event_type"]), (&json!("30m"), &json!(["/type", "/object"])));
    assert_eq!((&printed["signature_header"], &printed["preset"]), (&json!("stripe-signature"), &json!("stripe")));
    assert_eq!(printed["secret"], json!("[redacted]"));
}

#[test]
fn every_axis_can_be_described() {
    let common = "event_id = '/id'\nevent_type = '/type'\n";
    let hmac_of = |hash, key: &[u8], parts: &[&[u8]]| hmac::Key::new(hash, key).unwrap().sign(parts);
    let body = b"{}".as_slice();
    let digest = body_id(body).replace("sha256:", "");
    let key = b"0123456789abcdef".as_slice();
    let sha1 = hex(&hmac_of(hmac::Hash::Sha1, key, &[body]));
    let sha512 = encode_base64(&hmac_of(hmac::Hash::Sha512, key, &[body]));
    let url = hex(&hmac_of(hmac::Hash::Sha256, key, &[b"https://b.example.com/base/webhooks/other?ref=r1", body]));
    let millis = hex(&hmac_of(hmac::Hash::Sha256, key, &[b"1700000000123\n", b"n1\n", digest.as_bytes()]));
    let with_id = hex(&hmac_of(hmac::Hash::Sha256, key, &[b"e1.", body]));
    let private = ed25519::PrivateKey::from_seed(&[7; 32]).unwrap();
    let discord = hex(&private.sign(b"1700000000{}"));
    let rsa_key = rsa::PrivateKey::generate();
    let rsa_signature = encode_base64(&rsa_key.sign(body));
    let public_hex = hex(&private.public_bytes());
    let public_base64 = encode_base64(&private.public_bytes());
    for (toml, headers) in [
        (
            "scheme = 'hmac-sha1'\nsecret = '0123456789abcdef'\nsignature_header = 'X-Sig'\nsigned = '{body}'\nsignature_encoding = 'hex'".to_owned(),
            vec![("x-sig", sha1.as_str())],
        ),
        (
            format!(
                "scheme = 'hmac-sha512'\nsecret = 'key_{}'\nsecret_form = 'base64'\nsecret_prefix = 'key_'\nsignature_header = 'x-sig'\n\
                 signed = '{{body}}'\nsignature_encoding = 'base64'\nsignature_format = 'versions'\nsignature_name = 'v9'",
                encode_base64(key)
            ),
            vec![("x-sig", Box::leak(format!("v1,AAAA v9,{sha512}").into_boxed_str()))],
        ),
        (
            format!(
                "scheme = 'hmac-sha256'\nsecret = '{}'\nsecret_form = 'hex'\nsignature_header = 'x-sig'\nsigned = '{{url}}{{body}}'\n\
                 signature_encoding = 'hex'",
                hex(key)
            ),
            vec![("x-sig", url.as_str())],
        ),
        (
            "scheme = 'hmac-sha256'\nsecret = '0123456789abcdef'\nsignature_header = 'x-sig'\nsigned = \"{ts}\\n{header:x-nonce}\\n{body_sha256_hex}\"\n\
             timestamp_header = 'X-Time'\ntimestamp_unit = 'milliseconds'\nsignature_encoding = 'hex'"
                .to_owned(),
            vec![("x-sig", millis.as_str()), ("x-time", "1700000000123"), ("x-nonce", "n1")],
        ),
        (
            format!(
                "scheme = 'ed25519'\npublic_key = '{public_hex}'\nsignature_header = 'x-signature-ed25519'\nsigned = '{{ts}}{{body}}'\n\
                 timestamp_header = 'x-signature-timestamp'\nsignature_encoding = 'hex'"
            ),
            vec![("x-signature-ed25519", discord.as_str()), ("x-signature-timestamp", "1700000000")],
        ),
        (
            format!(
                "scheme = 'ed25519'\npublic_key = ['{}', '{public_base64}']\nsignature_header = 'x-signature-ed25519'\nsigned = '{{ts}}{{body}}'\n\
                 timestamp_header = 'x-signature-timestamp'\nsignature_encoding = 'hex'",
                hex(&ed25519::PrivateKey::from_seed(&[8; 32]).unwrap().public_bytes())
            ),
            vec![("x-signature-ed25519", discord.as_str()), ("x-signature-timestamp", "1700000000")],
        ),
        (
            format!(
                "scheme = 'rsa'\npublic_key = '''{}'''\nsignature_header = 'x-sig'\nsigned = '{{body}}'\nsignature_encoding = 'base64'",
                rsa_key.public_pem()
            ),
            vec![("x-sig", rsa_signature.as_str())],
        ),
    ] {
        let toml = format!("{common}{toml}");
        assert_eq!(Sent::new(body, &headers).to(&toml), GOOD, "{toml}");
        assert_eq!(Sent::new(b"{ }", &headers).to(&toml), INVALID, "{toml}");
    }
    let toml = "event_id = 'header:x-id'\nevent_type = '/type'\nscheme = 'hmac-sha256'\nsecret = '0123456789abcdef'\n\
                signature_header = 'x-sig'\nsigned = '{id}.{body}'\nsignature_encoding = 'hex'";
    assert_eq!(Sent::new(body, &[("x-sig", &with_id), ("x-id", "e1")]).to(toml), GOOD);
    assert_eq!(Sent::new(body, &[("x-sig", &with_id), ("x-id", "e2")]).to(toml), INVALID);
    assert_eq!(Sent::new(body, &[("x-sig", &with_id)]).to(toml), INVALID);
}

#[test]
fn an_agreed_value_is_compared_whole() {
    let ids = "event_id = 'none'\nevent_type = 'text:note'\n";
    let gitlab =
        format!("{ids}scheme = 'static-header'\nsignature_header = 'X-Gitlab-Token'\nsecret = ['token-one', 'token-two']");
    let agreed = Ok(Verification::Authorization);
    let refused = Err(RefusalKind::AuthorizationInvalid);
    assert_eq!(Sent::new("", &[("x-gitlab-token", "token-two")]).to(&gitlab), agreed);
    assert_eq!(Sent::new("", &[("x-gitlab-token", "token-three")]).to(&gitlab), refused);
    assert_eq!(Sent::new("", &[("authorization", "token-one")]).to(&gitlab), refused);
    assert_eq!(source(&gitlab).credential_headers(), ["x-gitlab-token"]);
    let basic = format!("{ids}scheme = 'basic'\nsecret = 'user:password'");
    assert_eq!(Sent::new("", &[("authorization", "Basic dXNlcjpwYXNzd29yZA==")]).to(&basic), agreed);
    assert_eq!(Sent::new("", &[("authorization", "Basic dXNlcjpwYXNzd29yZQ==")]).to(&basic), refused);
    let bearer = format!("{ids}scheme = 'static-header'\nsecret = 'Bearer t0ken-1'");
    assert_eq!(Sent::new("", &[("authorization", "Bearer t0ken-1")]).to(&bearer), agreed);
    assert!(Sent::new("", &[("authorization", "t0ken-1")]).explained(&bearer).contains("`authorization`"));
    // Each is an event of its own.
    let sent = Sent::new("{}", &[]);
    let (one, two) = (sent.read(&bearer), sent.read(&bearer));
    assert_ne!(one.event_id, two.event_id);
    assert_eq!((one.kind.as_str(), one.task_id), ("note", None));
}

#[test]
fn what_it_cannot_express_is_refused_with_the_reason() {
    let ids = "event_id = '/id'\nevent_type = '/type'\n";
    let hmac = "scheme = 'hmac-sha256'\nsecret = '0123456789abcdef'\nsignature_header = 'x-sig'\nsignature_encoding = 'hex'\n";
    let body = "signed = '{body}'\n";
    let whole = format!("{ids}{hmac}{body}");
    assert_eq!(wrong(&whole), "");
    for (toml, words) in [
        (String::new(), "`scheme` is missing"),
        (String::new(), "`event_id` is missing"),
        (String::new(), "`event_type` is missing"),
        (format!("{ids}{}{body}", hmac.replace("secret = '0123456789abcdef'\n", "")), "`secret` is missing"),
        (format!("{ids}{}{body}", hmac.replace("0123456789abcdef", "")), "`secret` is shorter than 8 bytes"),
        (format!("{ids}{}{body}", hmac.replace("'0123456789abcdef'", "['']")), "`secret` is shorter than 8 bytes"),
        (format!("{ids}{}{body}", hmac.replace("0123456789abcdef", "short")), "`secret` is shorter than 8 bytes"),
        (format!("{whole}secret_form = 'base64'\nsecret_prefix = 'x'"), "does not begin with `x`"),
        (format!("{whole}secret_form = 'hex'").replace("89abcdef", "89abcdeg"), "is not hexadecimal"),
        (format!("{whole}secret_form = 'base64'").replace("89abcdef", "89abcde*"), "is not Base64"),
        (format!("{ids}{hmac}"), "`signed` is missing"),
        (format!("{ids}{hmac}signed = '{{ts}}'\ntimestamp_header = 'x-ts'"), "good for any body"),
        (format!("{ids}{hmac}signed = '{{bdoy}}'"), "it may hold"),
        (format!("{ids}{hmac}signed = '{{id}}{{body}}'"), "`event_id` is not one header"),
        (format!("{ids}{hmac}signed = '{{ts}}{{body}}'"), "must say where it is"),
        (format!("{whole}timestamp_header = 'x-ts'"), "it would prove nothing"),
        (format!("{whole}tolerance = '5m'"), "`tolerance` is of no use without"),
        (format!("{whole}timestamp_unit = 'seconds'"), "`timestamp_unit` is of no use without"),
        (
            format!("{ids}{hmac}signed = '{{ts}}{{body}}'\ntimestamp_name = 't'"),
            "`timestamp_name` needs `signature_format = \"pairs\"`",
        ),
        (format!("{ids}{hmac}signed = '{{ts}}{{body}}'\ntimestamp_header = 'x-ts'\ntimestamp_name = 't'"), "are both set"),
        (format!("{ids}{hmac}signed = '{{ts}}{{body}}'\ntimestamp_header = 'x ts'"), "is no name of a header"),
        (format!("{ids}{hmac}signed = '{{ts}}{{body}}'\ntimestamp_header = 'x-ts'\ntolerance = '0s'"), "`tolerance` must be"),
        (format!("{whole}signature_name = 'v1'"), "a plain signature has none"),
        (format!("{whole}signature_format = 'pairs'"), "`signature_name` is missing"),
        (
            format!("{whole}signature_format = 'versions'\nsignature_name = 'v1'\nsignature_prefix = 'x'"),
            "`signature_prefix` needs",
        ),
        (whole.replace("signature_header = 'x-sig'\n", ""), "`signature_header` is missing"),
        (whole.replace("x-sig", "x sig"), "`signature_header` is no name"),
        (whole.replace("signature_encoding = 'hex'\n", ""), "`signature_encoding` is missing"),
        (format!("{whole}public_key = 'x'"), "`public_key` means nothing with this `scheme`"),
        (whole.replace("hmac-sha256", "ed25519"), "`secret` means nothing with this `scheme`"),
        (whole.replace("hmac-sha256", "rsa"), "`public_key` is missing"),
        (whole.replace("hmac-sha256", "static-header"), "`signed` means nothing with this `scheme`"),
        (
            whole.replace("hmac-sha256", "ed25519").replace("secret", "public_key"),
            "an Ed25519 public key has 32 bytes, this one 8",
        ),
        (whole.replace("hmac-sha256", "rsa").replace("secret", "public_key"), "there is no PEM block"),
        (format!("{ids}scheme = 'basic'\nsecret = 'password'"), "`secret` must be NAME:PASSWORD"),
        (format!("{ids}scheme = 'basic'"), "`secret` is missing: NAME:PASSWORD"),
        (format!("{ids}scheme = 'static-header'"), "`secret` is missing: the whole value of the header"),
        (format!("{ids}scheme = 'static-header'\nsecret = \"Bearer\\nx\""), "what a header can hold"),
        (format!("{ids}scheme = 'static-header'\nsecret = 'x'"), "shorter than 8"),
        (format!("{whole}challenge = 'challenge'"), "`challenge` must be a JSON pointer"),
        (format!("{whole}title = 'name'"), "`title` must be a JSON pointer"),
        (format!("{whole}url = '/a|/b'"), "`url` must be a JSON pointer"),
        (format!("{whole}challenge_type = 'x'"), "`challenge_type` is of no use"),
        (format!("{whole}answer_status = 302"), "`answer_status` must be from 200 to 299"),
        (format!("{whole}task_id = 'id'"), "`task_id` holds `id`; a place is"),
        (format!("{whole}verify = 'authorization'"), "`verify` must be \"signature\" or \"none\""),
        (format!("{ids}scheme = 'basic'\nsecret = 'user:password'\nverify = 'signature'"), "`verify` must be \"authorization\""),
    ] {
        let said = wrong(&toml);
        assert!(said.lines().any(|line| line.contains(words) && line.starts_with('`')), "{toml}\n{words}: {said}");
        assert!(!said.contains("0123456789"), "{said}");
    }
    assert_eq!(wrong("event_id = 'none'\nevent_type = 'text:x'\nverify = 'none'"), "");
    assert_eq!(wrong(&format!("{}verify = 'none'", whole.replace("secret = '0123456789abcdef'\n", ""))), "");
    assert!(toml::from_str::<Config>("scheme = 'jwt'").unwrap_err().to_string().contains("static-header"));
    assert!(toml::from_str::<Config>("preset = 'gitlab'").unwrap_err().to_string().contains("skyvern"));
}

#[test]
fn what_would_have_matched_is_said_without_a_secret() {
    let toml = "event_id = '/id'\nevent_type = '/type'\nscheme = 'hmac-sha256'\nsecret = 'whsec_MDEyMzQ1Njc4OWFiY2RlZg=='\n\
                signature_header = 'x-sig'\nsignature_encoding = 'hex'\nsigned = '{ts}.{body}'\ntimestamp_header = 'x-ts'\n";
    let (body, at) = (b"{}".as_slice(), "1700000000");
    let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZg==";
    let timed: &[&[u8]] = &[at.as_bytes(), b".", body];
    let sha512 = hmac::Key::new(hmac::Hash::Sha512, secret.as_bytes()).unwrap().sign(timed);
    let raw = hmac::Key::new(hmac::Hash::Sha256, secret.as_bytes()).unwrap().sign(timed);
    for (signature, words) in [
        (signed_hex("0123456789abcdef", timed), "`secret_form = \"base64\"` and `secret_prefix = \"whsec_\"`"),
        (signed_hex(secret, &[body]), "set `signed = \"{body}\"`, and leave the timestamp out"),
        (signed_hex(secret, &[b"v0:", at.as_bytes(), b":", body]), "set `signed = \"v0:{ts}:{body}\"`"),
        (encode_base64(&raw), "`signature_encoding = \"base64\"`"),
        (hex(&sha512), "`scheme = \"hmac-sha512\"`"),
        (signed_hex("another secret", timed), "of another secret"),
    ] {
        let said = Sent::new(body, &[("x-sig", &signature), ("x-ts", at)]).explained(toml);
        assert!(said.contains(words) && !said.contains("MDEy"), "{words}: {said}");
    }
    let late = Sent::new(body, &[("x-sig", &signed_hex(secret, timed)), ("x-ts", at)]).at(NOW + 1000).explained(toml);
    assert!(late.contains("1000 s behind ours"), "{late}");
    assert!(Sent::new(body, &[]).explained(toml).contains("there is no header `x-sig`"));
    // A list in one text is one secret.
    let list = toml
        .replace("whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "secret-number-one, secret-number-two")
        .replace("{ts}.", "")
        .replace("timestamp_header = 'x-ts'\n", "");
    let said = Sent::new(body, &[("x-sig", &signed_hex("secret-number-two", &[body]))]).explained(&list);
    assert!(said.contains("write several as a list"), "{said}");
}

#[test]
fn an_answer_is_what_the_sender_wants() {
    let toml = "event_id = '/id'\nevent_type = '/type'\nverify = 'none'\n";
    assert_eq!(Sent::new("{}", &[]).read(toml).reply, None);
    let reply = Sent::new("{}", &[]).read(&format!("{toml}answer_status = 204")).reply;
    assert_eq!(reply, Some(Reply { status: StatusCode::NO_CONTENT, text: None }));
    let any = format!("{toml}challenge = '/challenge'");
    assert_eq!(Sent::new(r#"{"challenge":"c"}"#, &[]).read(&any).reply.unwrap().text.as_deref(), Some("c"));
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        body in proptest::collection::vec(any::<u8>(), 0..60),
        signature in "[ -~]{0,80}",
        timestamp in "[ -~]{0,20}",
    ) {
        for preset in ["stripe", "slack", "github"] {
            let toml = format!("preset = '{preset}'\nsecret = 'secret-of-8'");
            let headers = [("stripe-signature", signature.as_str()), ("x-slack-signature", &signature), ("x-hub-signature-256", &signature),
                ("x-slack-request-timestamp", &timestamp)];
            let sent = Sent::new(&body, &headers);
            prop_assert!(sent.to(&toml).is_err());
            prop_assert!(!sent.explained(&toml).contains("secret-of-8"));
            prop_assert!(!sent.read(&toml).event_id.is_empty());
        }
    }
}
