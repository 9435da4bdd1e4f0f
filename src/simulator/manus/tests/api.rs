//! Keys, lists, limits and refusals of the API.

use super::*;

#[tokio::test]
async fn a_webhook_is_tried_before_it_is_registered() {
    let world = World::new().await;
    let create = json!({"url": world.receiver.url});
    world.receiver.answer(401);
    let (status, refused) = world.post("/v2/webhook.create", create.clone()).await;
    assert_eq!((status, &refused["ok"], &refused["error"]["code"]), (400, &json!(false), &json!("invalid_argument")));
    assert_eq!(world.get("/v2/webhook.list").await.1["data"], json!([]));
    world.receiver.answer(200);
    let (status, made) = world.post("/v2/webhook.create", create.clone()).await;
    assert_eq!((status, &made["webhook"]["status"]), (200, &json!("active")));
    let ping = &world.receiver.seen()[1];
    assert_eq!(ping.json()["task_detail"]["task_id"], "test_task_id");
    assert!(world.genuine(ping, &world.receiver.url));

    assert_eq!(world.post("/v2/webhook.create", create).await.0, 409);
    let (status, again) = world.post("/v1/webhooks", json!({"webhook": {"url": world.receiver.url}})).await;
    assert_eq!((status, again["message"].as_str()), (409, Some("webhook already exists")));
    assert_eq!(world.get("/v1/webhooks").await.0, 405);
    let (_, listed) = world.get("/v2/webhook.list").await;
    assert_eq!(listed["data"], json!([made["webhook"]]));

    let id = made["webhook"]["id"].as_str().unwrap();
    assert_eq!(world.post("/v2/webhook.delete", json!({"webhook_id": id})).await.0, 200);
    let (status, gone) = world.post("/v2/webhook.delete", json!({"webhook_id": id})).await;
    assert_eq!((status, &gone["error"]["code"]), (404, &json!("not_found")));
    let (_, made) = world.post("/v1/webhooks", json!({"webhook": {"url": world.receiver.url}})).await;
    let url = format!("{}/v1/webhooks/{}", world.manus.base_url(), made["webhook_id"].as_str().unwrap());
    assert_eq!(world.send(world.client.delete(url).header("API_KEY", KEY)).await.status, 204);
    assert_eq!(world.post("/v2/webhook.create", json!({"url": "ftp://x"})).await.0, 400);
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_the_form_of_each_version() {
    let world = World::new().await;
    let url = |path: &str| format!("{}{path}", world.manus.base_url());
    let read = async |request: reqwest::RequestBuilder| {
        let answer = world.send(request).await;
        (answer.status.as_u16(), serde_json::from_slice::<Value>(&answer.body).unwrap())
    };
    let (status, body) = read(world.client.get(url("/v2/task.list")).header("x-manus-api-key", "sk-wrong")).await;
    assert_eq!((status, &body["ok"], &body["error"]["code"]), (401, &json!(false), &json!("unauthenticated")));
    assert!(body["request_id"].as_str().unwrap().starts_with("req_"));
    let (status, body) = read(world.client.get(url("/v1/tasks"))).await;
    assert_eq!((status, &body["code"], &body["details"]), (401, &json!(16), &json!([])));
    let bearer = world.client.get(url("/v2/task.list")).header("authorization", format!("Bearer {KEY}"));
    assert_eq!(read(bearer).await.0, 200);
    let calls = world.manus.requests();
    let summary: Vec<_> = calls.iter().map(|call| (call.path.as_str(), call.status, call.account.as_deref())).collect();
    assert_eq!(summary, [("/v2/task.list", 401, None), ("/v1/tasks", 401, None), ("/v2/task.list", 200, Some("account-1"))]);
}

#[tokio::test]
async fn a_task_of_another_account_is_not_found_unless_it_is_public() {
    let world = World::new().await;
    world.manus.add_account("sk-other");
    let theirs = world.manus.create_task("sk-other", Plan::finish("x"));
    let public = world.manus.create_task("sk-other", Plan::finish("x").visible_to("public"));
    for (target, shown) in [("/v2/task.detail?task_id=", 200), ("/v2/task.listMessages?task_id=", 200), ("/v1/tasks/", 404)] {
        assert_eq!(world.get(&format!("{target}{theirs}")).await.0, 404, "{target}");
        assert_eq!(world.get(&format!("{target}{public}")).await.0, shown, "{target}");
    }
    let (status, body) = world.post("/v2/task.sendMessage", json!({"task_id": public, "message": {"content": "x"}})).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")));
    assert_eq!(world.get("/v2/task.list").await.1["data"], json!([]));
    assert_eq!(world.get(&format!("/v1/tasks/{theirs}")).await.1["code"], 5);
    assert!(world.manus.delete_task(&public));
    assert_eq!(world.get(&format!("/v2/task.detail?task_id={public}")).await.0, 404);
}

#[tokio::test]
async fn lists_come_in_pages_either_way() {
    let world = World::with(|options| options.limits = None).await;
    let tasks: Vec<String> = (0..5).map(|_| world.manus.create_task(KEY, Plan::finish("x"))).collect();
    let ids = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = world.get("/v2/task.list?limit=2").await;
    assert_eq!((ids(&first), &first["has_more"]), (vec![tasks[4].clone(), tasks[3].clone()], &json!(true)));
    // What is made meanwhile does not move the pages.
    let _ = world.manus.create_task(KEY, Plan::finish("new"));
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = world.get(&format!("/v2/task.list?limit=2&cursor={cursor}")).await;
    assert_eq!(ids(&second), [tasks[2].clone(), tasks[1].clone()]);
    let cursor = second["next_cursor"].as_str().unwrap();
    let (_, last) = world.get(&format!("/v2/task.list?limit=2&cursor={cursor}")).await;
    assert_eq!((ids(&last), &last["has_more"]), (vec![tasks[0].clone()], &json!(false)));
    let (_, oldest) = world.get("/v2/task.list?limit=2&order=asc").await;
    assert_eq!(ids(&oldest), tasks[..2]);
    for refused in ["limit=101", "limit=0", "limit=x", "cursor=!", "order=up", "scope=project"] {
        assert_eq!(world.get(&format!("/v2/task.list?{refused}")).await.0, 400, "{refused}");
    }
    let (_, v1) = world.get(&format!("/v1/tasks?limit=2&after={}", tasks[2])).await;
    assert_eq!(
        (ids(&v1), &v1["last_id"], &v1["has_more"]),
        (vec![tasks[1].clone(), tasks[0].clone()], &json!(tasks[0]), &json!(false))
    );
}

#[tokio::test]
async fn a_long_conversation_comes_in_pages_and_details_only_on_request() {
    let world = World::with(|options| options.limits = None).await;
    let steps = (0..450).map(|step| format!("step {step}"));
    let task = world.manus.create_task(KEY, Plan::finish("x").with_progress(steps));
    world.manus.finish_all().await;
    let (mut texts, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, page) =
            world.get(&format!("/v2/task.listMessages?task_id={task}&order=asc&limit=200&cursor={cursor}")).await;
        assert_eq!(status, 200);
        pages += 1;
        let messages = page["messages"].as_array().unwrap();
        assert!(messages.iter().all(|entry| entry["timestamp"] == 1_763_507_100_000_u64 && entry["type"] != "plan_update"));
        texts.extend(messages.iter().filter_map(|entry| entry["assistant_message"]["content"].as_str().map(ToOwned::to_owned)));
        let Some(next) = page["next_cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    assert_eq!((texts.len(), pages), (451, 3));
    assert_eq!((texts[0].as_str(), texts[450].as_str()), ("step 0", "x"));
    let (_, verbose) = world.get(&format!("/v2/task.listMessages?task_id={task}&order=asc&verbose=true")).await;
    assert_eq!(verbose["messages"][2]["type"], "plan_update");
    assert_eq!(world.get(&format!("/v2/task.listMessages?task_id={task}&limit=201")).await.0, 400);
}

#[tokio::test]
async fn an_account_has_so_many_calls_a_minute() {
    let world = World::with(|options| options.limits = Some(Limits { creates: 1, changes: 1, reads: 2 })).await;
    let create = json!({"message": {"content": "x"}});
    assert_eq!(world.post("/v2/task.create", create.clone()).await.0, 200);
    let (status, body) = world.post("/v2/task.create", create.clone()).await;
    assert_eq!((status, &body["error"]["code"]), (429, &json!("rate_limited")));
    assert_eq!(world.get("/v2/task.list").await.0, 200);
    assert_eq!(world.get("/v1/tasks").await.0, 200);
    assert_eq!(
        world.get("/v1/tasks").await,
        (429, json!({"code": 8, "message": "too many requests, try again later", "details": []}))
    );
    world.clock.advance(jiff::SignedDuration::from_secs(60));
    assert_eq!(world.post("/v2/task.create", create).await.0, 200);
    assert_eq!(world.get("/v2/task.list").await.0, 200);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let world = World::with(|options| options.limits = None).await;
    for (target, body) in [
        ("/v2/task.create", json!({})),
        ("/v2/task.create", json!({"message": "text"})),
        ("/v2/task.create", json!({"message": {"content": "x".repeat(20_001)}})),
        ("/v2/task.create", json!({"message": {"content": "x"}, "agent_profile": "gpt"})),
        ("/v2/task.create", json!([])),
        ("/v1/tasks", json!({"prompt": "x"})),
        ("/v1/tasks", json!({"prompt": "x", "agentProfile": "manus-1.6", "agent_profile": "x"})),
    ] {
        assert_eq!(world.post(target, body.clone()).await.0, 400, "{target} {body}");
    }
    assert_eq!(world.get("/v2/task.create").await.0, 405);
    assert_eq!(world.get("/v2/task.invent").await.0, 404);
    let parts = json!({"message": {"content": [{"type": "text", "text": "a"}, {"type": "file", "file_id": "f"}]}, "title": "T"});
    let (status, made) = world.post("/v2/task.create", parts).await;
    assert_eq!((status, &made["task_title"]), (200, &json!("T")));
    let task = made["task_id"].as_str().unwrap();
    assert_eq!(world.post("/v2/task.delete", json!({"task_id": task})).await.0, 400);
    world.manus.finish_all().await;
    assert_eq!(world.post("/v2/task.delete", json!({"task_id": task})).await.1["deleted"], true);
}

#[tokio::test]
async fn numbers_come_as_strings_if_asked_for_but_not_the_users_own() {
    let world = World::with(|options| options.numbers_as_strings = true).await;
    world.manus.register(KEY, &world.receiver.url);
    let plan = Plan::finish("x").with_structured_output(&json!({"n": 1})).with_file("f", "text/plain", "x");
    let task = world.manus.create_task(KEY, plan);
    world.manus.finish_all().await;
    let (_, detail) = world.get(&format!("/v2/task.detail?task_id={task}")).await;
    assert_eq!((&detail["task"]["created_at"], &detail["task"]["credit_usage"]), (&json!("1763507100"), &json!("5")));
    let told = world.receiver.seen()[1].json();
    assert_eq!(told["task_detail"]["attachments"][0]["size_bytes"], "1");
    assert_eq!(told["task_detail"]["structured_output"]["value"], json!({"n": 1}));
}
