//! What waits for files, for how long, and in which order.

use super::*;

use taskhook::simulator::manus::{End, Turn};

/// A question, and after the answer a result.
fn two_turns() -> Plan {
    let ask = End::Ask { question: "Which one?".to_owned(), options: Vec::new() };
    Plan::new([Turn::new(ask), Turn::finish("Done.")])
}

#[tokio::test]
async fn a_result_waits_half_an_hour_for_a_file_and_then_says_that_it_is_pending() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Always, refuse(503)));
    let plan = Plan::finish("Done.").with_file("late.md", "text/markdown", "4").with_file("never.md", "text/markdown", "5");
    let task = done(&harness, plan).await;
    harness.drain().await;
    let state = harness.list("events").await[0]["state"].clone();
    assert_eq!(state, "archiving");
    for _ in 0..29 {
        harness.advance(Duration::from_mins(1)).await;
    }
    harness.advance(Duration::from_millis(59_999)).await;
    assert_eq!(types(&crm), ["task_created"]);
    harness.advance(Duration::from_millis(1)).await;
    assert_eq!(statuses(&crm), ["pending", "pending"]);
    let body = result(&crm);
    assert_eq!((&body["out_of_order"], &body["task"]["complete"]), (&json!(false), &json!(true)));
    // It is still tried, until its ladder ends; the result does not come again.
    harness.manus.set_faults(Faults { api: vec![ApiFault::on("never", Times::Always, refuse(503))], ..Faults::default() });
    for _ in 0..30 {
        harness.advance(Duration::from_hours(1)).await;
    }
    let rows = rows(&harness, &task).await;
    assert_eq!(
        (&rows[0]["status"], &rows[1]["status"], &rows[1]["attempts"]),
        (&json!("archived"), &json!("failed"), &json!(11))
    );
    assert_eq!(rows[1]["reason"], "given up after 11 attempts, the last: 503 Service Unavailable");
    assert_eq!(types(&crm).len(), 2);
}

#[tokio::test]
async fn a_file_that_never_comes_ends_at_its_time_out_and_the_result_goes_in_time() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm).config("[archive]\nwait = \"5m\"\nfile_timeout = \"20m\"\n")).await;
    let slow = ApiFault { only: Some("/files/".to_owned()), times: Times::Always, slow_ms: 36_000_000, answer: None };
    harness.manus.set_faults(Faults { api: vec![slow], ..Faults::default() });
    let task = done(&harness, Plan::finish("Done.").with_file("slow.md", "text/markdown", "4")).await;
    let seen = work::pass(&mut harness, 130, Duration::from_secs(10), |_| crm.recorded().len()).await;
    let went = seen.iter().position(|seen| *seen == 2).expect("the result goes");
    assert!((30..=60).contains(&went), "after {went} times 10 s");
    assert_eq!(statuses(&crm), ["pending"]);
    let rows = rows(&harness, &task).await;
    assert_eq!(
        (&rows[0]["attempts"], &rows[0]["reason"]),
        (&json!(1), &json!("it took longer than `archive.file_timeout`, 1200 s"))
    );
    harness.expect_leftover();
}

#[tokio::test]
async fn routes_that_do_not_wait_get_the_result_at_once_and_the_file_is_saved_all_the_same() {
    let crm = Recorder::start().await;
    let setup = setup(&crm).config("[[routes]]\nto = [\"crm\"]\nwait_for_files = false\n");
    let mut harness = start(setup).await;
    harness.manus.set_faults(on_files(Times::Next(1), refuse(503)));
    let task = done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    assert_eq!(statuses(&crm), ["pending"]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(rows(&harness, &task).await[0]["status"], "archived");
    assert_eq!(types(&crm).len(), 2);
}

#[tokio::test]
async fn a_route_may_ask_what_became_of_the_files() {
    let crm = Recorder::start().await;
    let when = "files | selectattr(\"status\", \"eq\", \"archived\") | list | length == 1";
    let mut harness = start(setup(&crm).config(&format!("[[routes]]\nto = [\"crm\"]\nwhen = '{when}'\n"))).await;
    done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_stopped"]);
}

#[tokio::test]
async fn what_comes_behind_a_result_that_waits_goes_after_five_minutes_marked() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Always, refuse(503)));
    let task = done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    harness.advance(Duration::from_mins(1)).await;
    // It is of the same task, and has no files of its own.
    let later = json!({"event_id": "late", "event_type": "task_progress",
        "progress_detail": {"task_id": task, "progress_type": "plan_update", "message": "A step."}});
    harness.accept(&later).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(299)).await;
    assert_eq!(types(&crm), ["task_created"]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(types(&crm), ["task_created", "task_progress"]);
    assert_eq!(crm.bodies()[1]["out_of_order"], true);
    harness.manus.set_faults(Faults::default());
    harness.advance(Duration::from_mins(15)).await;
    assert_eq!((statuses(&crm), &result(&crm)["out_of_order"]), (vec!["archived".to_owned()], &json!(false)));
}

#[tokio::test]
async fn what_comes_behind_a_result_that_waits_keeps_its_turn() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Next(1), refuse(503)));
    let plan = Plan::finish("Done.").with_file("answer.md", "text/markdown", "4").with_progress(["One"]);
    let task = done(&harness, plan).await;
    harness.drain().await;
    let later = json!({"event_id": "late", "event_type": "task_progress",
        "progress_detail": {"task_id": task, "progress_type": "plan_update", "message": "Two"}});
    harness.accept(&later).await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_progress"]);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(types(&crm), ["task_created", "task_progress", "task_stopped", "task_progress"]);
    assert!(crm.bodies().iter().all(|body| body["out_of_order"] == false));
}

#[tokio::test]
async fn a_question_without_files_is_not_held_up_by_files_of_other_tasks() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Always, refuse(503)));
    done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    done(&harness, two_turns()).await;
    harness.drain().await;
    assert_eq!(types(&crm), ["task_created", "task_created", "task_stopped"]);
    assert_eq!(crm.bodies()[2]["event"]["stop_reason"], "ask");
    harness.expect_leftover();
}

#[tokio::test]
async fn a_dead_link_is_asked_for_anew_and_only_a_fresh_one_that_is_dead_as_well_fails() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Next(1), refuse(403)));
    done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    assert_eq!((statuses(&crm), calls(&harness, "task.detail")), (vec!["archived".to_owned()], 2));

    harness.manus.set_faults(Faults { links_expired: true, ..Faults::default() });
    let plan = Plan::finish("Done.").with_file("dead.md", "text/markdown", "4");
    let task = done(&harness, plan).await;
    harness.drain().await;
    for _ in 0..36 {
        harness.advance(Duration::from_secs(1)).await;
    }
    assert_eq!(statuses(&crm), ["failed"], "within a minute, not after half an hour");
    let rows = rows(&harness, &task).await;
    assert_eq!((&rows[0]["attempts"], &rows[0]["reason"]), (&json!(4), &json!("its link is dead (403 Forbidden)")));
}

#[tokio::test]
async fn a_link_that_died_since_it_was_fetched_is_replaced() {
    let crm = Recorder::start().await;
    let setup = setup(&crm).simulator(|options| {
        options.limits = None;
        options.link_lifetime = Duration::from_mins(10);
    });
    let mut harness = start(setup).await;
    // It says when to come again, so that no chance makes the next attempt follow at once.
    let refusal = WrongAnswer::Refuse { status: 503, retry_after: Some("1".to_owned()) };
    harness.manus.set_faults(on_files(Times::Next(1), refusal));
    harness.reconfigure("[archive]\nmax_files = 2\n");
    harness.restart().await;
    done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    // The next attempt comes late, as after a night in which this machine slept.
    harness.advance(Duration::from_mins(11)).await;
    assert_eq!(statuses(&crm), ["archived"]);
    let answers: Vec<u16> =
        harness.manus.requests().iter().filter(|call| call.path.contains("/files/")).map(|call| call.status).collect();
    assert_eq!(answers, [503, 403, 200]);
}

#[tokio::test]
async fn the_files_of_a_task_that_is_gone_have_failed() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm)).await;
    harness.manus.set_faults(on_files(Times::Next(1), refuse(503)));
    let task = done(&harness, Plan::finish("Done.").with_file("answer.md", "text/markdown", "4")).await;
    harness.drain().await;
    harness.manus.delete_task(&task);
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!((statuses(&crm), &result(&crm)["task"]["complete"]), (vec!["failed".to_owned()], &json!(true)));
    assert_eq!(rows(&harness, &task).await[0]["reason"], "its link is dead (404 Not Found), and its task is gone");
}
