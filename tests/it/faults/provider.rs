//! A provider whose API is down for an hour.

use taskhook::simulator::manus::{Faults as Wrong, Plan, WrongAnswer};

use super::*;
use crate::harness::KEY;
use crate::work::{every_call, refuse, run, setup, start};

#[tokio::test]
async fn an_outage_of_an_hour_loses_nothing_and_every_task_is_fetched_after_it() {
    for answer in [refuse(503), WrongAnswer::Lost] {
        let crm = Recorder::start().await;
        let mut harness = start(setup(&crm, "")).await;
        let manus = harness.manus.clone();
        let create = |title: &str| manus.create_task(KEY, Plan::finish("As the API tells it.").titled(title));
        let known: Vec<_> = (0..3).map(|_| create("known")).collect();
        for task in &known {
            harness.manus.step(task).await;
        }
        harness.drain().await;
        crm.take();
        let before = harness.manus.requests().len();
        harness.manus.set_faults(every_call(answer.clone()));
        let unknown: Vec<_> = (0..3).map(|_| create("unknown")).collect();
        // Accepted, each with 200, as if all were well.
        for task in known.iter().chain(&unknown) {
            run(&harness, task).await;
        }
        harness.drain().await;
        for minute in 0..60 {
            for _ in 0..6 {
                harness.advance(Duration::from_secs(10)).await;
            }
            let ready = harness.admin("/readyz").await;
            assert_eq!(
                (&ready["status"], &ready["reasons"][0]["part"]),
                (&json!("degraded"), &json!("source manus")),
                "{minute}"
            );
            if minute == 30 {
                let task = harness.manus.create_task(KEY, Plan::finish("As the API tells it.").titled("unknown"));
                run(&harness, &task).await;
                harness.drain().await;
            }
        }
        let calls = harness.manus.requests().len() - before;
        assert!(calls <= 20 * 7, "{calls} calls for 7 tasks");
        // Of what was known to be ours the stop went out as its webhook told it, after two minutes; of the rest nothing.
        let bodies = crm.bodies();
        assert!(bodies.iter().all(|body| body["type"] == "task_stopped" && body["task"]["complete"] == false), "{bodies:?}");
        assert_eq!(bodies.len(), 3);
        harness.manus.set_faults(Wrong::default());
        for _ in 0..10 {
            harness.advance(Duration::from_mins(1)).await;
        }
        let late = crm.bodies().split_off(3);
        let stops: Vec<_> = late.iter().filter(|body| body["type"] == "task_stopped").collect();
        assert_eq!((late.len(), stops.len()), (8, 4));
        for stop in stops {
            let texts: Vec<_> =
                stop["task"]["messages"].as_array().expect("messages").iter().map(|message| &message["text"]).collect();
            assert_eq!((&stop["task"]["complete"], texts.last()), (&json!(true), Some(&&json!("As the API tells it."))));
        }
        let stats = harness.admin("/api/v1/stats").await;
        assert_eq!((&stats["dead"], &stats["jobs"]), (&json!(0), &json!([])));
        assert_eq!(harness.admin("/readyz").await["status"], "ready");
    }
}
