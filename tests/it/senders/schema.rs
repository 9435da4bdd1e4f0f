//! Events held against a JSON Schema.

use serde_json::Value;

use super::*;

const OPEN: &str = "provider = \"custom\"\nverify = \"none\"\nevent_id = \"hash\"\nevent_type = \"text:note\"\n";

#[tokio::test]
async fn what_does_not_fit_is_kept_answered_and_marked() {
    let (fits, other) = (Recorder::start().await, Recorder::start().await);
    let toml = format!(
        "[sources.plain]\n{OPEN}[sources.strict]\n{OPEN}schema_file = \"{{folder}}/schema.json\"\n{}{}\
         [[routes]]\nwhen = 'event.valid == true'\nto = [\"fits\"]\n[[routes]]\nwhen = 'event.valid != true'\nto = [\"other\"]\n",
        fits.section("fits", ""),
        other.section("other", ""),
    );
    let mut harness = Setup::new().config(&toml).prepare().await;
    let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}}});
    std::fs::write(harness.folder().join("schema.json"), schema.to_string()).unwrap();
    harness.start().await;
    for (source, body) in [
        ("strict", r#"{"name": "a"}"#),
        ("strict", r#"{"name": 7}"#),
        ("strict", "[]"),
        ("strict", "not json"),
        ("plain", r#"{"name": "b"}"#),
    ] {
        let sent = harness.post(&format!("/webhooks/{source}")).body(body);
        assert_eq!(told(sent).await, is(200, "accepted"), "{body}");
    }
    harness.drain().await;
    let seen = |crm: &Recorder| {
        let told = |body: &Value| format!("{} {}", body["source"].as_str().unwrap(), body["event"]["valid"]);
        let mut seen: Vec<_> = crm.bodies().iter().map(told).collect();
        seen.sort_unstable();
        seen
    };
    assert_eq!(seen(&fits), ["strict true"]);
    assert_eq!(seen(&other), ["plain null", "strict false", "strict false", "strict false"]);
    assert_eq!(harness.list("events").await.len(), 5);
}

#[tokio::test]
async fn a_schema_that_is_none_or_looks_elsewhere_does_not_start() {
    for (schema, words) in [
        (None, "cannot read `schema_file`"),
        (Some("{"), "it is not JSON"),
        (Some(r#"{"type": "strin"}"#), "is of no use"),
        (Some(r#"{"$ref": "http://127.0.0.1:1/schema.json"}"#), "is of no use"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("schema.json");
        if let Some(schema) = schema {
            std::fs::write(&file, schema).unwrap();
        }
        let toml = format!("[sources.strict]\n{OPEN}schema_file = \"{}\"\n", file.display());
        let error = crate::harness::refusal(Setup::new().config(&toml)).await.to_string();
        assert!(error.contains("sources.strict") && error.contains(words), "{error}");
    }
}
