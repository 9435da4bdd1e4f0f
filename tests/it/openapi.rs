//! The description of the admin API says what there is, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use taskhook::action::MANY;
use taskhook::http::Answer;
use taskhook::simulator::manus::{End, Plan, Turn};

use crate::harness::{Harness, KEY, Recorder, Reply, json as body_of, send, status};
use crate::work::{pass, setup, start, stopped};

/// The operations of a description, by method and path.
fn operations(description: &Value) -> BTreeMap<(String, String), Value> {
    let paths = description["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().expect("operations").clone();
        item.into_iter().map(|(method, operation)| ((method, path.clone()), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// What stands at `path` of a description, be it there or referred to.
fn resolved<'a>(description: &'a Value, mut part: &'a Value) -> &'a Value {
    while let Some(reference) = part["$ref"].as_str() {
        part = description.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"));
    }
    part
}

/// Calls `see` with each part of `value` that is an object, and where it stands.
fn walk(value: &Value, at: &str, see: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            see(at, value);
            members.iter().for_each(|(name, member)| walk(member, &format!("{at}/{name}"), see));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| walk(item, &format!("{at}/{index}"), see)),
        _ => {}
    }
}

/// Which operations were tried, and which of their answers were as described.
struct Checked<'a> {
    harness: &'a Harness,
    description: Value,
    seen: BTreeSet<(String, String, u16)>,
}

impl<'a> Checked<'a> {
    async fn of(harness: &'a Harness) -> Self {
        let description = harness.admin("/api/v1/openapi.json").await;
        Self { harness, description, seen: BTreeSet::new() }
    }

    /// Asks, and finds the answer described; `path` is as the description writes it, with `{…}` filled from `names`.
    async fn ask(&mut self, method: Method, path: &str, names: &[(&str, &str)], query: &str, body: Option<Value>) -> Answer {
        let target = names.iter().fold(path.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        let mut request = self.harness.admin_request(method.clone(), &format!("{target}{query}"));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = send(request).await;
        let word = method.as_str().to_ascii_lowercase();
        let operation = &self.description["paths"][path][&word];
        assert!(operation.is_object(), "{word} {path} is not described");
        let code = status(&answer);
        let described = &operation["responses"][code.to_string()];
        let shown = String::from_utf8_lossy(&answer.body);
        assert!(described.is_object(), "{word} {target}{query} answered {code}, which is not described: {shown}");
        let content_type = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let content = &described["content"][&content_type];
        assert!(content.is_object(), "{word} {target}: {content_type} is not described for {code}");
        if content_type.ends_with("json") {
            self.fits(&content["schema"], &body_of(&answer), &format!("{word} {target}{query}"));
        }
        if let (Some(body), true) = (&body, code < 300) {
            self.fits(
                &operation["requestBody"]["content"]["application/json"]["schema"],
                body,
                &format!("the body of {word} {target}"),
            );
        }
        self.seen.insert((word, path.to_owned(), code));
        answer
    }

    fn fits(&self, schema: &Value, value: &Value, what: &str) {
        let mut schema = schema.clone();
        schema["components"] = self.description["components"].clone();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
        let misfits: Vec<_> = validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(misfits.is_empty(), "{what}: {misfits:?}\n{value:#}");
    }
}

#[tokio::test]
async fn everything_is_described_in_words_and_nothing_leads_nowhere() {
    let harness = Harness::new().await;
    let description = harness.admin("/api/v1/openapi.json").await;
    assert_eq!(description["openapi"], "3.1.0");
    walk(&description, "", &mut |at, part| {
        if part["$ref"].is_string() {
            resolved(&description, part);
        }
        for (name, property) in part["properties"].as_object().into_iter().flatten() {
            assert!(
                resolved(&description, property)["description"].is_string() || property["description"].is_string(),
                "{at} does not say what `{name}` is"
            );
        }
        let text = part["description"].as_str().unwrap_or_default();
        assert!(
            !text.contains("[`") && !text.contains("crate::") && !text.contains("`None`"),
            "{at} speaks to who builds: {text}"
        );
    });
    let most = |of: &str| description["components"]["schemas"][of]["properties"]["limit"]["maximum"].clone();
    assert_eq!((most("Wish_EventsMeant"), most("Wish_DeliveriesMeant")), (json!(MANY), json!(MANY)));
    let operations = operations(&description);
    let mut ids = BTreeSet::new();
    for ((method, path), operation) in &operations {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} is there twice");
        assert!(operation["summary"].is_string(), "{method} {path}");
        let described = operation["parameters"].as_array().into_iter().flatten();
        let described: BTreeSet<_> = described
            .map(|parameter| {
                assert!(parameter["description"].is_string(), "{method} {path}: {parameter}");
                parameter["name"].as_str().expect("a name")
            })
            .collect();
        for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            assert!(described.contains(name), "{method} {path}: {name}");
        }
    }
    assert!(operations.len() > 30, "{}", operations.len());
}

#[tokio::test]
async fn what_is_answered_is_what_is_described() {
    let crm = Recorder::start().await;
    let slow = "concurrency = 1\nladder = [\"1s\"]";
    let github = "[sources.github]\nprovider = \"custom\"\npreset = \"github\"\nsecret = \"of nobody\"\n";
    let mut harness = start(setup(&crm, slow).config(github).watching()).await;
    let theirs = harness.accept(&stopped("theirs", "task-of-somebody-else")).await;
    let ask = End::Ask { question: "A or B?".to_owned(), options: vec!["A".to_owned()] };
    let task = harness.manus.create_task(KEY, Plan::new([Turn::new(ask), Turn::finish("B it is.")]));
    let other = harness.manus.create_task(KEY, Plan::confirm("deployAction", "Publish the site?"));
    harness.manus.finish_all().await;
    harness.drain().await;
    harness.post("/webhooks/manus").body("{}").send().await.unwrap();
    // A dead letter, and one that waits.
    crm.answer(Reply::Status(503));
    let dead = harness.manus.create_task(KEY, Plan::finish("done"));
    harness.manus.finish_all().await;
    harness.drain().await;
    while harness.list("deliveries?state=dead").await.is_empty() {
        harness.advance(std::time::Duration::from_mins(5)).await;
    }
    pass(&mut harness, 20, std::time::Duration::from_mins(1), |_| ()).await;
    let of = async |list: &str| harness.list(list).await[0]["id"].to_string().trim_matches('"').to_owned();
    let event = of(&format!("events?task={dead}")).await;
    let delivery = of("deliveries?state=dead").await;
    let rejection = of("rejections").await;

    let mut api = Checked::of(&harness).await;
    let get = Method::GET;
    for (path, query) in [
        ("/metrics", ""),
        ("/api/v1/events", "?limit=2&type=task_stopped"),
        ("/api/v1/events", "?after=0&since=2026-01-01T00:00:00Z"),
        ("/api/v1/events", "?limit=0"),
        ("/api/v1/tasks", ""),
        ("/api/v1/tasks", "?state=nowhere"),
        ("/api/v1/deliveries", ""),
        ("/api/v1/rejections", ""),
        ("/api/v1/watches", ""),
        ("/api/v1/destinations", ""),
        ("/api/v1/credits", "?days=30"),
        ("/api/v1/stats", ""),
        ("/api/v1/stats", "?since=2026-01-01T00:00:00Z"),
        ("/api/v1/series", "?span=hour"),
        ("/api/v1/public_urls", ""),
    ] {
        api.ask(get.clone(), path, &[], query, None).await;
    }
    assert!(!harness.list("watches").await.is_empty(), "a dead letter is noticed");
    for (path, id) in [("events", event.as_str()), ("deliveries", delivery.as_str()), ("rejections", rejection.as_str())] {
        let path = format!("/api/v1/{path}/{{id}}");
        assert_eq!(status(&api.ask(get.clone(), &path, &[("id", id)], "", None).await), 200);
        assert_eq!(status(&api.ask(get.clone(), &path, &[("id", "0")], "", None).await), 404, "{path}");
    }
    assert_eq!(status(&api.ask(get.clone(), "/api/v1/rejections/{id}", &[("id", "first")], "", None).await), 400);
    assert_eq!(status(&api.ask(get.clone(), "/api/v1/events/{id}", &[("id", "%FF")], "", None).await), 400);
    for (name, code) in [(task.as_str(), 200), (other.as_str(), 200), ("none", 404)] {
        let names = [("source", "manus"), ("task_id", name)];
        assert_eq!(status(&api.ask(get.clone(), "/api/v1/tasks/{source}/{task_id}", &names, "", None).await), code);
    }
    let (put, delete) = (Method::PUT, Method::DELETE);
    let lease = [("id", "019a9936-de14-7c3a-9d52-0f6c1e8b4a77")];
    let url = "/api/v1/public_urls/{id}";
    api.ask(put.clone(), url, &lease, "", Some(json!({"url": "https://a.ngrok.app"}))).await;
    api.ask(put, url, &lease, "", Some(json!({"url": "ftp://a"}))).await;
    api.ask(delete, url, &lease, "", None).await;
    post_all(&mut api, &[&event, &delivery, &task, &other, &theirs]).await;
    let missing: Vec<_> = operations(&api.description)
        .into_keys()
        .filter(|(method, path)| {
            path != "/api/v1/stream" && !api.seen.iter().any(|(m, p, code)| m == method && p == path && *code < 300)
        })
        .collect();
    assert!(missing.is_empty(), "not tried: {missing:?}");
    // What was asked for is worked on later, or never.
    harness.expect_leftover();
}

async fn post_all(api: &mut Checked<'_>, [event, delivery, task, other, theirs]: &[&str; 5]) {
    let post = Method::POST;
    let sent = async |api: &mut Checked<'_>, path: &str, names: &[(&str, &str)], body: Option<Value>, code: u16| {
        let answer = api.ask(post.clone(), &format!("/api/v1/{path}"), names, "", body).await;
        assert_eq!(status(&answer), code, "{path}: {}", String::from_utf8_lossy(&answer.body));
    };
    for act in ["retry", "discard"] {
        let filter = json!({"filter": {"state": "dead", "destination": "crm"}, "dry_run": true});
        sent(api, &format!("deliveries/{act}"), &[], Some(filter), 200).await;
        sent(api, &format!("deliveries/{act}"), &[], Some(json!({})), 400).await;
    }
    sent(api, "deliveries/{id}/retry", &[("id", delivery)], None, 200).await;
    sent(api, "deliveries/{id}/discard", &[("id", delivery)], None, 200).await;
    sent(api, "deliveries/{id}/discard", &[("id", delivery)], None, 409).await;
    sent(api, "events/{id}/replay", &[("id", event)], None, 200).await;
    sent(api, "events/{id}/replay", &[("id", "0")], None, 404).await;
    sent(api, "events/{id}/release", &[("id", event)], None, 409).await;
    sent(api, "events/{id}/release", &[("id", theirs)], None, 200).await;
    sent(api, "events/replay", &[], Some(json!({"filter": {"source": "manus", "until": "2026-01-01T00:00:00Z"}})), 200).await;
    sent(api, "destinations/{name}/pause", &[("name", "crm")], None, 200).await;
    sent(api, "destinations/{name}/resume", &[("name", "crm")], None, 200).await;
    sent(api, "destinations/{name}/pause", &[("name", "none")], None, 404).await;
    let names = |task| [("source", "manus"), ("task_id", task)];
    sent(api, "tasks/{source}/{task_id}/reply", &names(task), Some(json!({"message": "A", "by": "kim"})), 200).await;
    sent(api, "tasks/{source}/{task_id}/reply", &names(task), Some(json!({"message": " "})), 400).await;
    sent(api, "tasks/{source}/{task_id}/confirm", &names(other), Some(json!({"input": {"accept": true}})), 200).await;
    sent(api, "tasks/{source}/{task_id}/stop", &names(task), Some(json!({})), 200).await;
    let file = json!({"name": "a.txt", "content_base64": "aGVsbG8="});
    sent(
        api,
        "tasks",
        &[],
        Some(json!({"prompt": "Plan", "source": "manus", "schema": {"type": "object"}, "files": [file]})),
        201,
    )
    .await;
    sent(api, "tasks", &[], Some(json!({"prompt": "Plan", "source": "none"})), 404).await;
    sent(api, "tasks/track", &[], Some(json!({"source": "github", "kind": "task", "task_id": "x"})), 201).await;
    sent(api, "tasks/track", &[], Some(json!({"source": "manus", "kind": "video", "task_id": "x"})), 400).await;
    sent(api, "tasks/{source}/{task_id}/erase", &names(task), Some(json!({"dry_run": true})), 200).await;
}

#[tokio::test]
async fn what_is_no_operation_is_refused_as_all_else() {
    let harness = Harness::new().await;
    for (method, path, code, word) in [
        (Method::DELETE, "/api/v1/events", 405, "method_not_allowed"),
        (Method::GET, "/api/v1/events/0/replay", 405, "method_not_allowed"),
        (Method::GET, "/api/v1/event", 404, "not_found"),
    ] {
        let answer = send(harness.admin_request(method, path)).await;
        assert_eq!((status(&answer), body_of(&answer)["code"].as_str()), (code, Some(word)), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    }
}
