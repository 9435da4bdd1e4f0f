use serde_json::Value;

use super::message::{self, MAX_BLOCKS, SECTION, TOTAL, length};
use super::*;
use crate::route::SAMPLES;

fn config(more: &Value) -> Config {
    serde_json::from_value(more.clone()).unwrap()
}

fn slack(template: Option<&str>) -> Slack {
    let config = config(&json!({"webhook_url": "https://hooks.slack.com/services/T0/B0/x", "template": template}));
    Slack::build(&config, &Clock::system()).unwrap()
}

/// The message of an envelope, held to everything that Slack documents and that we promise.
fn message(slack: &Slack, envelope: &Envelope) -> Value {
    let content: Value = serde_json::from_str(&slack.render(envelope).unwrap()).unwrap();
    let mut marked = content["message"].clone();
    message::out_of_order(&mut marked);
    for message in [&content["message"], &marked] {
        let blocks = message["blocks"].as_array().unwrap();
        assert!(!blocks.is_empty() && blocks.len() <= MAX_BLOCKS, "{} blocks", blocks.len());
        let all: usize = blocks.iter().map(length).sum();
        assert!(all <= TOTAL, "{all} characters");
        for block in blocks {
            let most = match block["type"].as_str().unwrap() {
                "header" => 150,
                "section" => SECTION,
                "context" => 2_000,
                "actions" => 75,
                other => panic!("{other}"),
            };
            assert!((1..=most).contains(&length(block)), "{block}");
        }
        let text = message["text"].as_str().unwrap();
        assert!(!text.is_empty() && text.chars().count() <= 1_500, "{text}");
        let all = message.to_string();
        assert!(!all.contains("<!") && !all.contains("<@") && !all.contains("javascript:alert(document"), "{all}");
        assert!(!all.contains(['\u{202e}', '\0']) && !all.contains("\\u0000"), "{all}");
    }
    content["message"].clone()
}

/// What a person reads, block by block.
fn read(message: &Value) -> String {
    let line = |block: &Value| match block["type"].as_str().unwrap() {
        "context" => format!("({})", block["elements"][0]["text"].as_str().unwrap()),
        "actions" => format!(
            "[{}]({})",
            block["elements"][0]["text"]["text"].as_str().unwrap(),
            block["elements"][0]["url"].as_str().unwrap()
        ),
        "header" => format!("# {}", block["text"]["text"].as_str().unwrap()),
        _ => block["text"]["text"].as_str().unwrap().to_owned(),
    };
    let blocks: Vec<_> = message["blocks"].as_array().unwrap().iter().map(line).collect();
    format!("{}\n\n{}", message["text"].as_str().unwrap(), blocks.join("\n--\n"))
}

#[test]
fn the_default_message_needs_no_template() {
    let slack = slack(None);
    let shown = |name: &str| read(&message(&slack, &Envelope::named(name).unwrap()));
    insta::assert_snapshot!(shown("finished"), @"
    ✅ Compare three note-taking apps for a small team – finished: Which app to take For a team of six, take Quill: it has the best search, and its price does not depend on the number of notes. See the full comparison. App Pri…

    # ✅ Compare three note-taking apps for a small team
    --
    (*finished* · manus · manus-1.5-agent · 57 credits · 6 min 48 s)
    --
    *Which app to take*
    For a team of *six*, take _Quill_: it has the best search, and its price does not depend on the number of notes. See the <https://example.com/comparison?team=6&amp;year=2026|full comparison>.
    ```
    App     Price a month  Search
    ------  -------------  -----------------
    Quill   $24            full text, images
    Sheaf   $36            titles only
    Margin  $18            full text
    ```

    *What I did*
    1. Read the documentation of all three.
    2. Wrote 200 notes into each, and measured:
        ◦ time to find a note
        ◦ time to open it
    3. Asked support a question.

    > Quill answered within 20 minutes.

    To move your notes:
    ```
    quill import --from ./notes --keep-dates
    ```
    • ☑ Prices checked
    • ☐ ~Mobile apps~ left out, as you asked
    --
    *What it made*
    • <https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/comparison.xlsx?Expires=1763593500&amp;Signature=x1y2z3|comparison.xlsx> (48.2 kB)
    • <https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/screenshots.zip?Expires=1763593500&amp;Signature=x1y2z3|screenshots.zip> (18.4 MB)
    • <https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/recording.mp4?Expires=1763593500&amp;Signature=x1y2z3|recording.mp4> (913 MB, too large to be saved)
    --
    [Open the task](https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg)
    ");
    insta::assert_snapshot!(shown("question"), @"
    ❓ Compare three note-taking apps for a small team – waits for an answer: I have compared two of the three apps.

    # ❓ Compare three note-taking apps for a small team
    --
    (*waits for an answer* · manus · manus-1.5-agent · 57 credits · 6 min 48 s)
    --
    I have compared two of the three apps.
    --
    *It asks*
    Sheaf asks for a credit card before it shows its prices. Shall I go on without it?
    • Go on without Sheaf
    • Wait, I will send you the prices
    --
    [Answer it](https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg)
    ");
    insta::assert_snapshot!(shown("failed"), @"
    ❌ Compare three note-taking apps for a small team – failed: I could not finish the comparison.

    # ❌ Compare three note-taking apps for a small team
    --
    (*failed* · manus · manus-1.5-agent · 57 credits · 6 min 48 s)
    --
    *Why it failed*
    The browser could not reach sheaf.example: the connection timed out three times.
    --
    I could not finish the comparison.
    --
    [Open the task](https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg)
    ");
    insta::assert_snapshot!(shown("progress"), @"
    ⏳ Compare three note-taking apps for a small team – in progress: Measuring how long a search takes: 120 of 200 notes

    # ⏳ Compare three note-taking apps for a small team
    --
    (*in progress* · manus)
    --
    Measuring how long a search takes: 120 of 200 notes
    --
    [Open the task](https://manus.im/app/9rP8DLRXVC9fkKBKEELXkg)
    ");
}

#[test]
fn every_sample_is_within_the_limits_also_the_hostile_one() {
    for name in SAMPLES {
        message(&slack(None), &Envelope::named(name).unwrap());
    }
    let mut envelope = Envelope::named("hostile").unwrap();
    let file = envelope.files[0].clone();
    envelope.files = vec![file; 500];
    let task = envelope.task.as_mut().unwrap();
    task.state = crate::task::State::Failed;
    task.error = Some("&<>\n".repeat(100_000));
    task.messages[1].text = "&".repeat(100_000);
    let shown = read(&message(&slack(None), &envelope));
    assert!(shown.contains("… (cut)") && shown.contains(" more"), "{shown}");
    // Without words, the answer is data.
    envelope.event.facts.message = None;
    let task = envelope.task.as_mut().unwrap();
    task.messages.clear();
    task.structured_output = Some(json!({"a": "```<!here>&".repeat(10_000)}));
    message(&slack(None), &envelope);
}

#[test]
fn a_template_is_escaped_cut_and_checked() {
    let text = "*{{ task.title | cut(60) }}* costs {{ task.credits }}: <{{ task.url | url }}|open>\n{{ task.messages[-1].text | mrkdwn }}";
    let shown = read(&message(&slack(Some(text)), &Envelope::named("finished").unwrap()));
    insta::assert_snapshot!(shown.lines().next().unwrap(), @"*Compare three note-taking apps for a small team* costs 57: open *Which app to take* For a team of *six*, take _Quill_: it has the best search, and its price does not depend on the number of notes. See the full comparison. ``` App Price a month Search ------ ------------- ----------------- Quill $2…");
    message(&slack(Some(text)), &Envelope::named("hostile").unwrap());
    message(&slack(Some("{{ task.title }}{{ task.messages[-1].text }}")), &Envelope::named("hostile").unwrap());
    assert!(slack(Some("{{ event.progress }}")).render(&Envelope::named("finished").unwrap()).unwrap_err().contains("empty"));
    let wrong = config(&json!({"webhook_url": "https://hooks.slack.com/services/T0/B0/x", "template": "{{ task.titel }}"}));
    insta::assert_snapshot!(wrong.check().unwrap_err(), @"`template`: line 1, column 9: `task.titel` is not known; did you mean `task.title`?");
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let refusals: Vec<String> = [
        json!({}),
        json!({"webhook_url": "hooks.slack.com/services/s3cret"}),
        json!({"webhook_url": "http://hooks.slack.com/services/s3cret"}),
        json!({"webhook_url": "https://hooks.slack.com/triggers/T0/s3cret"}),
        json!({"webhook_url": "https://hooks.slack.com/services/s3cret", "channel": "C1"}),
        json!({"webhook_url": "https://hooks.slack.com/services/s3cret", "token": "xoxb-s3cret"}),
        json!({"token": "xoxb-s3cret"}),
        json!({"channel": "C1"}),
        json!({"token": "xoxb s3cret", "channel": "C1"}),
        json!({"token": "xoxb-s3cret", "channel": "C1", "base_url": "http://slack.example"}),
    ]
    .iter()
    .map(|more| config(more).check().unwrap_err())
    .collect();
    assert!(!refusals.join("").contains("s3cret"));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `webhook_url` is missing; or set `token` and `channel`
    `webhook_url` is no URL: relative URL without a base
    `webhook_url` must begin with https://
    `webhook_url` starts a workflow, which takes no message; use `kind = "http"` with a `template` that sets the workflow's variables
    `channel` does not go with `webhook_url`: a webhook has its channel
    `token` and `webhook_url` are both set; keep one
    `token` needs a `channel`, such as "C0123456789"
    `channel` needs a `token`
    `token` is no token: it begins with `xoxb-`
    `base_url` must be an origin with https, such as "https://slack.com"
    "#);
}

#[test]
fn every_word_of_slack_has_its_verdict() {
    for (status, word, is) in [
        (429, "", Refusal::Later),
        (500, "rollup_error", Refusal::Later),
        (503, "", Refusal::Later),
        (200, "ratelimited", Refusal::Later),
        (200, "internal_error", Refusal::Later),
        (400, "invalid_blocks", Refusal::Content),
        (400, "invalid_payload", Refusal::Content),
        (400, "no_text", Refusal::Content),
        (200, "msg_blocks_too_long", Refusal::Content),
        (403, "action_prohibited", Refusal::Place),
        (404, "channel_not_found", Refusal::Place),
        (404, "no_service", Refusal::Place),
        (410, "channel_is_archived", Refusal::Place),
        (200, "invalid_auth", Refusal::Place),
        (200, "token_revoked", Refusal::Place),
        (200, "a_word_of_tomorrow", Refusal::Place),
        (302, "", Refusal::Later),
    ] {
        assert_eq!(verdict(StatusCode::from_u16(status).unwrap(), word), is, "{status} {word}");
        assert!(!advice(word).is_empty());
    }
}

#[test]
fn nothing_secret_is_ever_printed() {
    let config = config(&json!({"webhook_url": "https://hooks.slack.com/services/s3cret"}));
    let built = Slack::build(&config, &Clock::system()).unwrap();
    let printed = format!("{config:?} {built:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("s3cret"), "{printed}");
}
