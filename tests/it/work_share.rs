//! Limits where replicas share a store: they hold over all of them, whoever works.

use std::time::Duration;

use serde_json::{Value, json};
use taskhook::simulator::manus::{End, Plan, Turn};

use crate::harness::postgres::Schema;
use crate::harness::{Harness, KEY, Recorder, Reply, status};
use crate::work::{say, setup, start};

/// The configuration of a store in `schema`.
fn on(schema: &Schema) -> String {
    let config = schema.config();
    format!(
        "[store]\nurl = \"{}\"\nschema = \"{}\"\nmax_connections = {}\n",
        config.url.expose(),
        config.schema,
        config.max_connections
    )
}

#[tokio::test]
async fn a_rate_is_kept_in_every_minute_whichever_replica_delivers() {
    let (schema, crm) = (Schema::new(), Recorder::start().await);
    let new = || setup(&crm, "rate = 30").config(&on(&schema));
    let mut replicas = vec![start(new()).await];
    for _ in 0..80 {
        let task = replicas[0].manus.create_task(KEY, Plan::hang());
        replicas[0].manus.step(&task).await;
    }
    // The tasks are known to the first one's provider only, so it makes the deliveries.
    replicas[0].drain().await;
    let mut sent = Vec::new();
    for at in 0..240 {
        match at % 40 {
            // One comes, to which the other hands something over; and one goes, which leaves it.
            15 => {
                let now = replicas[0].clock.now();
                replicas.push(new().at(now).start().await);
            }
            30 => go(replicas.remove(usize::from(at % 80 == 70))).await,
            _ => {}
        }
        for replica in &mut replicas {
            replica.advance(Duration::from_secs(1)).await;
        }
        sent.push(crm.recorded().len());
    }
    let most = (0..sent.len()).map(|at| sent[at] - at.checked_sub(60).map_or(0, |start| sent[start])).max();
    assert!(most <= Some(30), "{most:?} in a minute, of {sent:?}");
    assert_eq!(sent.last(), Some(&80), "{sent:?}");
    for replica in replicas {
        go(replica).await;
    }
}

/// What `ops` was told by watches: the type without `watch.`, and the state.
fn told(ops: &Recorder) -> Vec<String> {
    let own = ops.bodies().into_iter().filter(|body| body["verification"] == "watch");
    own.map(|body| {
        let word = |of: &Value| of.as_str().expect("a word").to_owned();
        format!("{} {}", word(&body["type"]).trim_start_matches("watch."), word(&body["event"]["payload"]["state"]))
    })
    .collect()
}

/// Lets a minute pass for all of them, `count` times.
async fn minutes(replicas: &mut [Harness], count: usize) {
    for _ in 0..count {
        for replica in &mut *replicas {
            replica.advance(Duration::from_mins(1)).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_as_it_should_be_is_told_once_whichever_replica_watches() {
    let (schema, crm, ops) = (Schema::new(), Recorder::start().await, Recorder::start().await);
    let routes = "[[routes]]\nto = [\"crm\"]\n[[routes]]\nwhen = \"event.type[:6] == 'watch.'\"\nto = [\"ops\"]\n";
    let new = || setup(&crm, "").config(&on(&schema)).config(&ops.section("ops", "")).config(routes).watching();
    let mut replicas = vec![start(new()).await];
    // The first one's provider is the only one that knows tasks, and it knows one receiver.
    let provider = format!("[sources.manus]\nbase_url = \"{}\"\n", replicas[0].manus.base_url());
    replicas.push(new().config(&provider).start().await);
    minutes(&mut replicas, 1).await;
    let ask = End::Ask { question: "A or B?".to_owned(), options: Vec::new() };
    let waits = replicas[0].manus.create_task(KEY, Plan::new([Turn::new(ask), Turn::finish("Done.")]));
    crm.answer_next([Reply::Status(422)]);
    replicas[0].manus.finish_all().await;
    minutes(&mut replicas, 35).await;
    let mut raised = told(&ops);
    raised.sort();
    assert_eq!(raised, ["dead_letter raised", "task_waiting raised"]);
    // Whoever held the source goes; the others go on from what is written down.
    go(replicas.remove(1)).await;
    replicas.push(new().config(&provider).at(replicas[0].clock.now()).start().await);
    minutes(&mut replicas, 5).await;
    assert_eq!(told(&ops).len(), 2);
    say(&replicas[0], &waits, "A.").await;
    let dead = replicas[0].list("deliveries?state=dead").await.remove(0);
    let discard = format!("/api/v1/deliveries/{}/discard", dead["id"].as_str().expect("an id"));
    assert_eq!(status(&replicas[1].admin_post(&discard, &json!({})).await), 200);
    minutes(&mut replicas, 5).await;
    let mut cleared = told(&ops).split_off(2);
    cleared.sort();
    assert_eq!(cleared, ["dead_letter cleared", "task_waiting cleared"]);
    assert_eq!(replicas[0].list("watches").await, Vec::<Value>::new());
    for replica in replicas {
        go(replica).await;
    }
}

/// Stops `replica` in order.
async fn go(mut replica: Harness) {
    replica.run_worker(Duration::ZERO, std::future::ready(())).await;
    replica.stop().await;
    replica.expect_leftover();
}
