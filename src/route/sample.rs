//! Envelopes to try routes and destinations with, without an event: one for each thing that happens to a task.

use jiff::Timestamp;
use serde_json::json;

use super::Envelope;
use crate::event::{TASK_CREATED, TASK_PROGRESS, UNKNOWN, Verification, Watch};
use crate::task::{File, FileStatus, Message, Question, QuestionKind, State, Task, Usage};

/// What `taskhook routes test --sample` takes.
pub const SAMPLES: &[&str] = &["created", "failed", "finished", "hostile", "progress", "question", "test", "unknown", "watch"];

const TITLE: &str = "Compare three note-taking apps for a small team";
const ANSWER: &str = "# Which app to take\n\nFor a team of **six**, take *Quill*: it has the best search, and its price does not \
depend on the number of notes. See the [full comparison](https://example.com/comparison?team=6&year=2026).\n\n\
| App | Price a month | Search |\n|---|---|---|\n| Quill | $24 | full text, images |\n| Sheaf | $36 | titles only |\n| Margin | $18 | full text |\n\n\
## What I did\n\n1. Read the documentation of all three.\n2. Wrote 200 notes into each, and measured:\n   - time to find a note\n   - time to open it\n\
3. Asked support a question.\n\n> Quill answered within 20 minutes.\n\nTo move your notes:\n\n```sh\nquill import --from ./notes --keep-dates\n```\n\n\
- [x] Prices checked\n- [ ] ~~Mobile apps~~ left out, as you asked";

impl Envelope {
    /// The sample called `name`, one of [`SAMPLES`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let sample = match name {
            "created" => told(TASK_CREATED, None),
            "failed" => ended(State::Failed, "error", "I could not finish the comparison.", |task| {
                task.error = Some("The browser could not reach sheaf.example: the connection timed out three times.".to_owned());
            }),
            "finished" => {
                let mut envelope = ended(State::Finished, "finish", ANSWER, |_| {});
                envelope.files = files();
                envelope
            }
            "hostile" => hostile(),
            "progress" => told(TASK_PROGRESS, Some("Measuring how long a search takes: 120 of 200 notes")),
            "question" => ended(State::Waiting, "ask", "I have compared two of the three apps.", |task| {
                task.question = Some(Question {
                    kind: QuestionKind::Message,
                    text: Some("Sheaf asks for a credit card before it shows its prices. Shall I go on without it?".to_owned()),
                    options: vec!["Go on without Sheaf".to_owned(), "Wait, I will send you the prices".to_owned()],
                    ..Question::default()
                });
            }),
            "test" => test(),
            "unknown" => {
                let mut envelope = told(UNKNOWN, None);
                envelope.event.facts.provider_type = Some("task_teleported".to_owned());
                envelope
            }
            "watch" => watch(),
            _ => return None,
        };
        Some(sample)
    }

    /// A message that says of itself that it is a test.
    #[must_use]
    pub fn test(now: Timestamp) -> Self {
        let mut envelope = test();
        envelope.id = uuid::Uuid::now_v7();
        envelope.received_at = now;
        envelope
    }
}

/// An event of which no task is fetched.
fn told(kind: &str, message: Option<&str>) -> Envelope {
    let mut envelope = Envelope::sample();
    kind.clone_into(&mut envelope.kind);
    envelope.collision_of = None;
    envelope.task = None;
    envelope.files.clear();
    let facts = &mut envelope.event.facts;
    kind.clone_into(&mut facts.kind);
    facts.provider_type = Some(kind.to_owned());
    facts.event_id = format!("{kind}_9rP8DLRXVC9fkKBKEELXkg_1763507100");
    facts.title = Some(TITLE.to_owned());
    facts.message = message.map(str::to_owned);
    facts.progress = message.map(|_| "plan_update".to_owned());
    (facts.stop_reason, facts.question, facts.structured_output) = (None, None, None);
    facts.attachments.clear();
    envelope.event.payload = json!({"event_id": facts.event_id, "event_type": facts.provider_type,
        "task_detail": {"task_id": facts.task_id, "task_title": facts.title, "task_url": facts.url}});
    envelope
}

/// The end of a turn, its task fetched.
fn ended(state: State, reason: &str, answer: &str, change: impl FnOnce(&mut Task)) -> Envelope {
    let mut envelope = told(crate::event::TASK_STOPPED, Some(answer));
    let facts = &mut envelope.event.facts;
    facts.progress = None;
    facts.stop_reason = Some(reason.to_owned());
    let at = |text: &str| text.parse().ok();
    let mut task = Task {
        id: facts.task_id.clone().unwrap_or_default(),
        title: facts.title.clone(),
        url: facts.url.clone(),
        state,
        stop_reason: facts.stop_reason.clone(),
        model: Some("manus-1.5-agent".to_owned()),
        created_at: at("2025-11-18T22:58:12Z"),
        updated_at: at("2025-11-18T23:05:00Z"),
        credits: Some(57.0),
        usage: Usage::default(),
        complete: true,
        messages: [("user", "Compare Quill, Sheaf and Margin for a team of six."), ("assistant", answer)]
            .map(|(role, text)| Message { role: role.to_owned(), text: text.to_owned(), ..Message::default() })
            .into(),
        ..Task::default()
    };
    change(&mut task);
    facts.question.clone_from(&task.question);
    envelope.task = Some(task);
    envelope
}

/// What taskhook noticed by itself: a dead letter.
fn watch() -> Envelope {
    let mut envelope = ended(State::Finished, "finish", ANSWER, |_| {});
    let said = "A delivery to `crm` was given up on: 422 Unprocessable Entity";
    Watch::DeadLetter.as_str().clone_into(&mut envelope.kind);
    envelope.verification = Verification::Watch;
    let facts = &mut envelope.event.facts;
    facts.kind.clone_from(&envelope.kind);
    (facts.provider_type, facts.stop_reason) = (None, None);
    facts.event_id = format!("{}:{}", envelope.kind, envelope.id);
    facts.message = Some(said.to_owned());
    envelope.event.payload = json!({"watch": "dead_letter", "state": "raised", "text": said, "count": 1, "since": "2025-11-18T23:05:02.000Z",
        "raised_at": "2025-11-18T23:05:30.000Z", "cleared_at": null, "source": envelope.source, "destination": "crm", "task_id": facts.task_id,
        "event": "019a9936-de14-7c3a-9d52-0f6c1e8b4a77", "delivery": "019a9936-e1fc-7f10-8a1b-3b9f6c2d7e55",
        "reason": "422 Unprocessable Entity", "stops": null});
    envelope
}

fn files() -> Vec<File> {
    [
        ("comparison.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", 48_213, FileStatus::Skipped),
        ("screenshots.zip", "application/zip", 18_400_512, FileStatus::Skipped),
        ("recording.mp4", "video/mp4", 912_680_550, FileStatus::TooLarge),
    ]
    .map(|(name, kind, size, status)| File {
        name: name.to_owned(),
        content_type: Some(kind.to_owned()),
        size_bytes: Some(size),
        provider_url: Some(format!(
            "https://files.example.com/9rP8DLRXVC9fkKBKEELXkg/{name}?Expires=1763593500&Signature=x1y2z3"
        )),
        status,
        ..File::default()
    })
    .into()
}

/// Text that tries to become more than text.
fn hostile() -> Envelope {
    let nasty = "<!channel> <@U0123> *bold* <script>alert(1)</script>\u{202e}txt.exe\u{0}\r\nBcc: victim@example.com\r\n\r\n";
    let answer = format!(
        "{nasty}[click](javascript:alert(1)) ![x](https://tracker.example/1.gif) <img src=x onerror=alert(1)> \
         '; DROP TABLE results; -- $(reboot) `reboot` ../../etc/passwd\n\n{}",
        "All work and no play. ".repeat(1_000)
    );
    let mut envelope = ended(State::Finished, "finish", &answer, |task| {
        task.title = Some(format!("{nasty}{}", "long ".repeat(200_000)));
        task.url = Some("javascript:alert(document.cookie)".to_owned());
        task.model = Some(nasty.to_owned());
    });
    envelope.event.facts.title = envelope.task.as_ref().and_then(|task| task.title.clone());
    envelope.files = files();
    for (number, file) in envelope.files.iter_mut().enumerate() {
        file.name = format!("../../{number}\"; rm -rf ~\r\nX-Evil: 1\u{202e}fdp.exe");
    }
    envelope.files[0].provider_url = Some("https://example.com/|<!here>\"onclick=\"x".to_owned());
    envelope
}

fn test() -> Envelope {
    let said = "This is a test, sent with `taskhook deliveries test`. **No task was run**, and nothing has to be done about it.";
    let mut envelope = ended(State::Finished, "finish", said, |task| {
        "taskhook-test".clone_into(&mut task.id);
        task.title = Some("Test message from taskhook".to_owned());
        (task.url, task.model, task.credits) = (None, None, None);
        (task.created_at, task.updated_at) = (None, None);
        task.messages.remove(0);
    });
    (envelope.source, envelope.provider) = ("test".to_owned(), "test".to_owned());
    let facts = &mut envelope.event.facts;
    "taskhook-test".clone_into(&mut facts.event_id);
    facts.task_id = Some("taskhook-test".to_owned());
    facts.title = Some("Test message from taskhook".to_owned());
    facts.url = None;
    envelope.event.payload = json!({"test": true});
    envelope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_there_and_has_the_shape_of_an_envelope() {
        let members = |envelope: &Envelope| serde_json::to_value(envelope).unwrap().as_object().unwrap().len();
        for name in SAMPLES {
            let envelope = Envelope::named(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(members(&envelope), members(&Envelope::sample()), "{name}");
        }
        assert!(Envelope::named("nothing").is_none());
    }
}
