//! A process that is killed between its word that it is about to act and the answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use uuid::Uuid;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;
use crate::faults::program::{Program, Setting};
use crate::harness::{Recorder, Reply};

/// How long the store may take to know that a process is gone.
const GONE: Duration = Duration::from_secs(20);

async fn ask(program: &Program, key: &str) -> Result<Answer, taskhook::http::Error> {
    ask_for(&taskhook::http::client(GONE), program.admin, key, &wish()).await
}

async fn ask_for(
    client: &reqwest::Client,
    admin: std::net::SocketAddr,
    key: &str,
    wish: &Value,
) -> Result<Answer, taskhook::http::Error> {
    let request = client.post(format!("http://{admin}{CREATE}")).header("idempotency-key", key).json(wish);
    taskhook::http::send(request, GONE, 1 << 20).await
}

/// The answer once it is not that somebody is at it.
async fn settled_answer(client: &reqwest::Client, admin: std::net::SocketAddr, key: &str, wish: &Value) -> Answer {
    loop {
        let answer = ask_for(client, admin, key, wish).await.unwrap();
        if status(&answer) != 409 || code(&answer) != "in_flight" {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The program on `store`, whose provider is at `base_url`.
fn setting(folder: &std::path::Path, base_url: &str, store: &str) -> Setting {
    let source = format!(
        "[sources.manus]\nprovider = \"manus\"\napi_key = \"sk-test\"\nverify = \"none\"\nfetch = \"off\"\nbase_url = \"{base_url}\"\n\
         requests_per_minute = 10000\n"
    );
    // It ends with this thread, should the test be killed.
    Setting::new(folder).by(["setpriv", "--pdeathsig", "KILL", "--"]).config(&source).config(store)
}

/// How often the provider was asked to create a task.
fn creations(provider: &Recorder) -> usize {
    provider.recorded().iter().filter(|call| call.path.contains("task.create")).count()
}

async fn killed_in_the_midst(store: &str) {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Recorder::start().await);
    provider.answer(Reply::Never);
    let setting = setting(folder.path(), provider.url().trim_end_matches("/hook"), store);
    let mut program = setting.start().await;
    let (first, ()) = tokio::join!(ask(&program, "k"), async {
        within("the call", async {
            while creations(&provider) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        refused(&ask(&program, "k").await.unwrap(), (409, "in_flight"));
        program.signal(rustix::process::Signal::KILL);
    });
    assert!(first.is_err(), "the connection broke");
    program.kill();

    let program = setting.start().await;
    let client = taskhook::http::client(GONE);
    let answer = within("whoever began is known to be gone", settled_answer(&client, program.admin, "k", &wish())).await;
    refused(&answer, (409, "outcome_unknown"));
    let title = body_of(&answer)["title"].as_str().unwrap().to_owned();
    assert!(title.contains("not known") && title.contains("new key") && title.contains("GET"), "{title}");
    refused(&ask(&program, "k").await.unwrap(), (409, "outcome_unknown"));
    assert_eq!(creations(&provider), 1, "nobody does it again by himself");
    provider.answer(Reply::Status(503));
    let done = ask(&program, &Uuid::now_v7().to_string()).await.unwrap();
    assert_eq!((status(&done), creations(&provider)), (502, 2), "under a new key it is done");
}

#[tokio::test]
async fn who_was_killed_in_the_midst_leaves_an_unknown_outcome() {
    killed_in_the_midst("").await;
}

#[tokio::test]
async fn a_replica_that_was_killed_in_the_midst_leaves_an_unknown_outcome() {
    let schema = Schema::new();
    killed_in_the_midst(&on(&schema)).await;
}

/// Keys that are asked for until they are answered, while the program is killed again and again.
async fn killed_again_and_again(store: &str) {
    let (folder, provider) = (tempfile::tempdir().unwrap(), MockServer::start().await);
    // How often each prompt came.
    let came = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let counts = Arc::clone(&came);
    let create = move |request: &Request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let prompt = body["message"]["content"].as_str().or(body["prompt"].as_str()).expect("a prompt").to_owned();
        let id = format!("task-of-{prompt}");
        *counts.lock().unwrap().entry(prompt).or_default() += 1;
        let task = json!({"ok": true, "task_id": id, "task_title": "x", "task_url": "https://manus.im/app/x"});
        ResponseTemplate::new(200).set_body_json(task).set_delay(Duration::from_millis(100))
    };
    Mock::given(path("/v2/task.create")).respond_with(create).mount(&provider).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(503)).mount(&provider).await;
    let setting = setting(folder.path(), &provider.uri(), store);
    let keys: Vec<String> = (0..40).map(|number| format!("key{number}")).collect();
    let wish = |key: &str| json!({"source": "manus", "prompt": key});
    let (mut settled, mut seen, client) = (BTreeMap::new(), 0, &taskhook::http::client(GONE));
    for cycle in 0..7_u64 {
        let mut program = setting.start().await;
        let (admin, came) = (program.admin, Arc::clone(&came));
        let calls = || came.lock().unwrap().values().sum::<usize>();
        let before = calls();
        // When the provider has some in hand; later from time to time, so that some are answered by then.
        let moment = async {
            while calls() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(cycle * 31)).await;
        };
        // The last one lives, and is asked until it knows.
        let last = cycle == 6;
        let round = async {
            for _ in 0..200 {
                let open: Vec<&String> = keys.iter().filter(|key| !settled.contains_key(*key)).take(6).collect();
                // Twice each, so that some are asked for while they are in hand.
                let asked =
                    open.iter().chain(&open).map(|key| async move { (*key, ask_for(client, admin, key, &wish(key)).await) });
                for (key, answer) in futures_util::future::join_all(asked).await {
                    let Ok(answer) = answer else { continue };
                    match status(&answer) {
                        201 => {
                            seen += 1;
                            let told = (Some(created(&answer).0), answer.body);
                            assert_eq!(*settled.entry(key.clone()).or_insert_with(|| told.clone()), told, "{key}");
                        }
                        409 if code(&answer) == "outcome_unknown" => {
                            let before = settled.insert(key.clone(), (None, answer.body));
                            assert!(before.is_none_or(|(task, _)| task.is_none()), "{key}: it was known before");
                        }
                        409 => assert_eq!(code(&answer), "in_flight", "{key}"),
                        other => panic!("{key}: {other} {}", body_of(&answer)),
                    }
                }
                if settled.len() == keys.len() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if last {
            round.await;
        } else {
            tokio::select! {
                () = round => {}
                () = within("a call of the provider", moment) => {}
            }
        }
        if last {
            // Whoever asks again is told the same: after a while, since a replica that has just come may not say yet who is gone.
            for (key, (task, body)) in &settled {
                let again = within("who was killed is known to be gone", settled_answer(client, admin, key, &wish(key))).await;
                assert_eq!((&again.body, status(&again)), (body, if task.is_some() { 201 } else { 409 }), "{key}");
            }
        }
        program.kill();
    }
    let came = came.lock().unwrap().clone();
    assert!(came.values().all(|times| *times == 1), "done twice: {came:?}");
    let done = settled.iter().filter(|(_, (task, _))| task.is_some());
    for (key, (task, _)) in done.clone() {
        assert_eq!((task.clone(), came.get(key)), (Some(format!("task-of-{key}")), Some(&1)), "{key}");
    }
    let (done, unknown) = (done.count(), settled.values().filter(|(task, _)| task.is_none()).count());
    assert_eq!(done + unknown, keys.len());
    assert!(done > 0 && seen >= done && unknown > 0, "{done} done, {unknown} unknown");
}

#[tokio::test]
async fn killed_again_and_again_nothing_is_done_twice() {
    killed_again_and_again("").await;
}

#[tokio::test]
async fn a_replica_that_is_killed_again_and_again_does_nothing_twice() {
    let schema = Schema::new();
    killed_again_and_again(&on(&schema)).await;
}
