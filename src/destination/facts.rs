//! What a message for people says of an event: the same in Slack and in a mail.
//!
//! Everything in it is third-party text, on one line where it says so; whoever writes it escapes it for where it goes.

use crate::event::{self, Verification};
use crate::markdown::link;
use crate::route::Envelope;
use crate::task::{FileStatus, Question, State};
use crate::text::{one_line, size};

/// The most characters of a title.
const MAX_TITLE: usize = 150;
/// The most characters of a file's name.
const MAX_NAME: usize = 120;
/// The most characters of other words: a source, a model.
const MAX_WORD: usize = 60;

/// What is said of an event.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// What the task is called.
    pub(super) title: String,
    /// A sign and a word for where it stands.
    pub(super) sign: &'static str,
    pub(super) state: String,
    /// What is known beside that: source, credits, time, in short.
    pub(super) details: Vec<String>,
    /// What is special about this delivery.
    pub(super) notes: Vec<&'static str>,
    /// What the agent said, as Markdown.
    pub(super) answer: Option<&'a str>,
    /// What it asks.
    pub(super) question: Option<&'a Question>,
    /// Why it failed.
    pub(super) error: Option<&'a str>,
    /// The answer as data, indented.
    pub(super) output: Option<String>,
    /// The task's page.
    pub(super) page: Option<String>,
    pub(super) files: Vec<File<'a>>,
}

/// A file that the task made.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) name: String,
    /// Size, and what became of it where that matters.
    pub(super) about: String,
    pub(super) link: Option<String>,
    /// The file itself, as the envelope has it.
    pub(super) whole: &'a crate::task::File,
}

impl<'a> Facts<'a> {
    pub(super) fn of(envelope: &'a Envelope) -> Self {
        let (told, task) = (&envelope.event.facts, envelope.task.as_ref());
        // What taskhook noticed by itself is not what the agent said or did.
        let own = envelope.verification == Verification::Watch;
        let text = |text: Option<&'a String>| text.map(String::as_str).filter(|text| !text.trim().is_empty());
        let title = text(task.and_then(|task| task.title.as_ref())).or(text(told.title.as_ref()));
        let id = task.map(|task| task.id.as_str()).filter(|id| !id.is_empty()).or(told.task_id.as_deref());
        let title = title.map(|title| one_line(title, MAX_TITLE)).filter(|title| !title.is_empty());
        let title = title
            .or_else(|| Some(format!("Task {}", one_line(id?, MAX_WORD))))
            .unwrap_or_else(|| (if own { "taskhook" } else { "An event" }).to_owned());
        let (sign, state) = match task.filter(|_| !own) {
            Some(task) => stands(task.state),
            None if own => noticed(envelope),
            None => happened(&envelope.kind, told.stop_reason.as_deref()),
        };
        // The last thing that the agent said is the answer; a webhook has but the beginning of it.
        let said = task.filter(|_| !own).and_then(|task| task.messages.iter().rev().find(|message| message.role == "assistant"));
        let answer = text(said.map(|message| &message.text)).or(text(told.message.as_ref()));
        let question = task.and_then(|task| task.question.as_ref()).or(told.question.as_ref());
        let asked = question.filter(|_| !own && task.is_none_or(|task| task.state == State::Waiting));
        // An agent that asks often says nothing but its question: once is enough.
        let repeats =
            |answer: &&str| asked.and_then(|asked| asked.text.as_deref()).is_some_and(|text| text.trim() == answer.trim());
        let answer = answer.filter(|answer| !repeats(answer));
        let output = task.filter(|_| !own).and_then(|task| task.structured_output.as_ref()).or(told.structured_output.as_ref());
        Self {
            title,
            sign,
            state,
            details: details(envelope),
            notes: notes(envelope),
            answer,
            question: asked,
            error: text(task.and_then(|task| task.error.as_ref()))
                .filter(|_| task.is_some_and(|task| task.state == State::Failed)),
            output: output.filter(|value| !value.is_null()).map(|value| format!("{value:#}")),
            page: task.and_then(|task| task.url.as_deref()).or(told.url.as_deref()).and_then(link),
            files: envelope.files.iter().filter(|_| !own).map(File::of).collect(),
        }
    }
}

impl<'a> File<'a> {
    fn of(file: &'a crate::task::File) -> Self {
        let name = one_line(&file.name, MAX_NAME);
        let state = match file.status {
            FileStatus::Archived | FileStatus::Skipped => None,
            FileStatus::Pending => Some("is still being saved"),
            FileStatus::Failed => Some("could not be saved"),
            FileStatus::TooLarge => Some("too large to be saved"),
        };
        let about: Vec<_> = file.size_bytes.map(size).into_iter().chain(state.map(str::to_owned)).collect();
        Self {
            name: if name.is_empty() { "a file without a name".to_owned() } else { name },
            about: about.join(", "),
            link: file.link.as_deref().and_then(link).or_else(|| file.provider_url.as_deref().and_then(link)),
            whole: file,
        }
    }
}

fn stands(state: State) -> (&'static str, String) {
    let (sign, word) = match state {
        State::Running => ("⏳", "running"),
        State::Waiting => ("❓", "waits for an answer"),
        State::Finished => ("✅", "finished"),
        State::Failed => ("❌", "failed"),
        State::Stopped => ("⏹️", "stopped"),
        State::Canceled => ("🚫", "canceled"),
        State::Unknown => ("🔔", "stopped, nobody said how"),
    };
    (sign, word.to_owned())
}

/// What an event of which no task was fetched says.
fn happened(kind: &str, stop_reason: Option<&str>) -> (&'static str, String) {
    match (kind, stop_reason) {
        (event::TASK_CREATED, _) => ("🆕", "created".to_owned()),
        (event::TASK_PROGRESS, _) => ("⏳", "in progress".to_owned()),
        (event::TASK_STOPPED, Some("finish")) => stands(State::Finished),
        (event::TASK_STOPPED, Some("ask")) => stands(State::Waiting),
        (event::TASK_STOPPED, _) => ("🔔", "stopped".to_owned()),
        (other, _) => ("🔔", one_line(other, MAX_WORD)),
    }
}

/// What a watch event says.
fn noticed(envelope: &Envelope) -> (&'static str, String) {
    let over = envelope.event.payload["state"] == "cleared";
    let what = one_line(envelope.kind.trim_start_matches("watch."), MAX_WORD).replace('_', " ");
    if over { ("✅", format!("{what}: over")) } else { ("⚠️", what) }
}

fn details(envelope: &Envelope) -> Vec<String> {
    let mut details = vec![envelope.source.clone()];
    let Some(task) = &envelope.task else { return details };
    details.extend(task.model.as_deref().map(|model| one_line(model, MAX_WORD)).filter(|model| !model.is_empty()));
    details.extend(
        task.credits.map(
            |credits| if (credits - 1.0).abs() < f64::EPSILON { "1 credit".to_owned() } else { format!("{credits} credits") },
        ),
    );
    details.extend(task.usage.cost_usd.map(|cost| format!("${cost:.2}")));
    if let (Some(begun), Some(ended)) = (task.created_at, task.updated_at) {
        details.extend(took(ended.as_second() - begun.as_second()));
    }
    details
}

/// How long it took, in its two largest units.
fn took(seconds: i64) -> Option<String> {
    match seconds {
        ..=0 => None,
        1..60 => Some(format!("{seconds} s")),
        60..3600 => Some(format!("{} min {} s", seconds / 60, seconds % 60)),
        _ => Some(format!("{} h {} min", seconds / 3600, seconds % 3600 / 60)),
    }
}

fn notes(envelope: &Envelope) -> Vec<&'static str> {
    let incomplete = envelope.task.as_ref().is_some_and(|task| !task.complete);
    [
        (envelope.recovered, "found by asking: no webhook told of it"),
        (envelope.replayed, "sent again by hand"),
        (envelope.may_repeat, "may have come before"),
        (incomplete, "the task could not be fetched: this is what its webhook said"),
    ]
    .into_iter()
    .filter_map(|(holds, note)| holds.then_some(note))
    .collect()
}

/// What is said where a delivery goes before an earlier one of its task.
pub(super) const OUT_OF_ORDER: &str = "came out of order";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_is_all_that_was_said_is_said_once() {
        let mut envelope = Envelope::named("question").unwrap();
        assert!(Facts::of(&envelope).answer.is_some());
        let task = envelope.task.as_mut().unwrap();
        let question = task.question.as_ref().unwrap().text.clone().unwrap();
        task.messages[1].text = format!("{question}\n");
        let facts = Facts::of(&envelope);
        assert_eq!((facts.answer, facts.question.is_some()), (None, true));
    }

    #[test]
    fn without_a_task_the_event_says_where_it_stands() {
        let mut envelope = Envelope::named("finished").unwrap();
        envelope.task = None;
        for (reason, state) in
            [(Some("finish"), "finished"), (Some("ask"), "waits for an answer"), (Some("odd"), "stopped"), (None, "stopped")]
        {
            envelope.event.facts.stop_reason = reason.map(str::to_owned);
            assert_eq!(Facts::of(&envelope).state, state);
        }
    }

    #[test]
    fn what_is_not_known_leaves_no_gap() {
        let envelope = Envelope { task: Some(crate::task::Task::default()), ..Envelope::named("unknown").unwrap() };
        let facts = Facts::of(&envelope);
        assert_eq!(
            (facts.title.as_str(), facts.details.len(), facts.answer, facts.error),
            ("Compare three note-taking apps for a small team", 1, None, None)
        );
        let mut envelope = envelope;
        (envelope.task, envelope.event.facts.title, envelope.event.facts.task_id) = (None, None, None);
        assert_eq!(Facts::of(&envelope).title, "An event");
    }

    #[test]
    fn times_are_told_in_two_units() {
        let told = [0, 59, 60, 3_599, 3_600, 90_061].map(took);
        assert_eq!(
            told,
            [None, Some("59 s"), Some("1 min 0 s"), Some("59 min 59 s"), Some("1 h 0 min"), Some("25 h 1 min")]
                .map(|text| text.map(str::to_owned))
        );
    }
}
