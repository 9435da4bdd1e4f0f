//! Slack, against a stand-in that holds messages to Slack's limits and answers in Slack's words.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deliver::{detail, offer, offer_one, only, outcomes, reasons, result, start};
use crate::harness::{CHANNEL, Mood, Slack, TOKEN};

fn blocks(message: &Value, kind: &str) -> Vec<Value> {
    message["blocks"].as_array().expect("blocks").iter().filter(|block| block["type"] == kind).cloned().collect()
}

#[tokio::test]
async fn a_result_is_a_message_in_both_ways() {
    let slack = Slack::start().await;
    for section in [slack.webhook(), slack.bot(TOKEN, CHANNEL)] {
        let mut harness = start(&section).await;
        offer_one(&harness).await;
        harness.drain().await;
        let delivery = only(&harness).await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("delivered"), vec!["delivered"]), "{delivery}");
        let message = slack.taken().pop().expect("a message");
        assert_eq!(blocks(&message, "header")[0]["text"]["text"], "✅ What is 2 + 2?");
        assert_eq!(blocks(&message, "section")[0]["text"]["text"], "*4*");
        assert_eq!(blocks(&message, "actions")[0]["elements"][0]["url"], "https://manus.im/app/t1");
        assert_eq!(
            (&message["unfurl_links"], &message["link_names"], &message["parse"]),
            (&json!(false), &json!(false), &json!("none"))
        );
    }
    assert_eq!(slack.taken()[1]["channel"], CHANNEL);
    assert_eq!(slack.taken()[0].get("channel"), None);
}

#[tokio::test]
async fn too_many_requests_are_obeyed() {
    let slack = Slack::start().await;
    for section in [slack.webhook(), slack.bot(TOKEN, CHANNEL)] {
        let before = slack.taken().len();
        let mut harness = start(&section).await;
        slack.next([Mood::TooMany(90)]);
        offer_one(&harness).await;
        harness.drain().await;
        harness.advance(Duration::from_secs(89)).await;
        assert_eq!(slack.taken().len(), before);
        harness.advance(Duration::from_secs(1)).await;
        assert_eq!(slack.taken().len(), before + 1);
        assert_eq!(outcomes(&only(&harness).await), ["failed", "delivered"]);
    }
}

#[tokio::test]
async fn what_slack_refuses_for_good_is_a_dead_letter_and_the_operator_is_told_what_to_do() {
    let slack = Slack::start().await;
    for (section, mood, word, advice) in [
        (slack.webhook(), Some(Mood::Refuse(404, "no_service")), "no_service", "make a new one and set `webhook_url`"),
        (slack.webhook(), Some(Mood::Refuse(410, "channel_is_archived")), "channel_is_archived", "unarchive it"),
        (slack.webhook(), Some(Mood::Refuse(403, "action_prohibited")), "action_prohibited", "an administrator"),
        (slack.webhook().replace("s3cret", "wrong"), None, "no_service", "set `webhook_url`"),
        (slack.bot("xoxb-wrong", CHANNEL), None, "invalid_auth", "set `token`"),
        (slack.bot(TOKEN, "C0ARCHIVED1"), None, "is_archived", "unarchive it"),
        (slack.bot(TOKEN, "C0NOWHERE01"), None, "channel_not_found", "correct `channel`"),
    ] {
        let mut harness = start(&section).await;
        slack.next(mood);
        offer_one(&harness).await;
        harness.drain().await;
        let delivery = only(&harness).await;
        assert_eq!((&delivery["state"], outcomes(&delivery)), (&json!("dead"), vec!["failed"]), "{delivery}");
        let reason = delivery["reason"].as_str().expect("a reason");
        assert!(reason.contains(word) && reason.contains(advice) && !reason.contains("s3cret"), "{reason}");
        let degraded = reasons(&harness).await;
        assert!(degraded.iter().any(|reason| reason.starts_with("destination it: ") && reason.contains(word)), "{degraded:?}");
    }
    assert_eq!(slack.taken().len(), 0);
}

#[tokio::test]
async fn the_destination_is_well_again_once_a_message_is_taken() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    slack.next([Mood::Refuse(410, "channel_is_archived")]);
    offer_one(&harness).await;
    harness.drain().await;
    assert_eq!(reasons(&harness).await.len(), 1);
    offer(&harness, &result(2, "Another", "text")).await;
    harness.drain().await;
    assert_eq!((reasons(&harness).await.len(), slack.taken().len()), (0, 1));
}

#[tokio::test]
async fn a_message_that_slack_does_not_take_stops_nothing_else() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    slack.next([Mood::Refuse(400, "invalid_blocks")]);
    offer_one(&harness).await;
    harness.drain().await;
    assert_eq!(only(&harness).await["state"], "dead");
    assert_eq!(reasons(&harness).await, [""; 0]);
}

#[tokio::test]
async fn trouble_of_slack_is_tried_again() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    slack.next([Mood::Refuse(500, "rollup_error"), Mood::Refuse(503, "")]);
    offer_one(&harness).await;
    harness.drain().await;
    harness.advance(Duration::from_secs(1)).await;
    harness.advance(Duration::from_secs(5)).await;
    assert_eq!(outcomes(&only(&harness).await), ["failed", "failed", "delivered"]);
}

#[tokio::test]
async fn a_lost_answer_is_of_unknown_outcome_and_may_be_held() {
    let slack = Slack::start().await;
    for (keys, ended) in [("", vec!["unknown", "delivered"]), ("on_unknown = \"hold\"\n", vec!["unknown"])] {
        let mut harness = start(&format!("{}{keys}timeout = \"300ms\"", slack.webhook())).await;
        slack.next([Mood::Silent]);
        offer_one(&harness).await;
        harness.drain().await;
        harness.advance(Duration::from_secs(1)).await;
        let delivery = only(&harness).await;
        assert_eq!(outcomes(&delivery), ended);
        assert!(detail(&delivery).contains(if ended.len() == 1 { "no answer within" } else { "200 OK" }), "{delivery}");
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_is_an_unknown_attempt_and_the_same_message_again() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    slack.next([Mood::Silent]);
    offer_one(&harness).await;
    harness.work_until(slack.received(1)).await;
    harness.crash();
    harness.start().await;
    harness.drain().await;
    assert_eq!(outcomes(&only(&harness).await), ["unknown", "delivered"]);
    let taken = slack.taken();
    assert_eq!((taken.len(), &taken[0]), (2, &taken[1]));
}

#[tokio::test]
async fn a_message_that_goes_before_an_earlier_one_says_so() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    slack.next([Mood::TooMany(3_600)]);
    offer_one(&harness).await;
    let mut later = result(1, "What is 2 + 2?", "still 4");
    later["event_id"] = json!("e2");
    offer(&harness, &later).await;
    harness.drain().await;
    assert_eq!(slack.taken().len(), 0, "the second waits for the first");
    harness.advance(Duration::from_mins(5)).await;
    let taken = slack.taken();
    assert_eq!(taken.len(), 1);
    let notes: Vec<_> = blocks(&taken[0], "context").iter().map(|block| block["elements"][0]["text"].clone()).collect();
    assert!(notes.contains(&json!("⚠️ came out of order")), "{notes:?}");
    harness.advance(Duration::from_hours(1)).await;
    assert_eq!(slack.taken().len(), 2);
}

#[tokio::test]
async fn a_thousand_results_keep_to_a_second_each() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    slack.limit(&harness.clock);
    for number in 0..1_000 {
        offer(&harness, &result(number, "A title", "text")).await;
    }
    let mut taken = Vec::new();
    for _ in 0..240 {
        harness.advance(Duration::from_secs(5)).await;
        taken.push(slack.taken().len());
    }
    assert_eq!((taken.last(), slack.refused()), (Some(&1_000), 0));
    assert!(taken[120] >= 500, "{} after ten minutes", taken[120]);
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let slack = Slack::start().await;
    let mut harness = start(&slack.webhook()).await;
    let nasty = "<!channel> <@U1> <https://evil.example|bank> & *b* \u{202e}gpj.exe\u{0}\r\n> x [y](javascript:alert(1))";
    let long = format!("{nasty}{}", "long ".repeat(200_000));
    offer(&harness, &result(1, &long, &long)).await;
    harness.drain().await;
    let taken = slack.taken();
    let shown = taken[0].to_string();
    for never in ["<!", "<@", "<https://evil", "javascript:alert(1)>", "\u{202e}", "\\u0000", "\\u202e"] {
        assert!(!shown.contains(never), "{never}");
    }
    assert!(shown.contains("… (cut)") && shown.contains("&lt;!channel&gt;"));
}
