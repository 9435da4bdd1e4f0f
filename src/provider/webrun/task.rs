//! A task in our words, as an event tells it or the call that asks for it: both have the same members, some under two names.

use serde_json::Value;

use super::mask::mask;
use super::{Output, TASK_COMPLETED};
use crate::provider::json::{count, items, member, number, text, time};
use crate::task::{Fetched, File, Message, Question, QuestionKind, State, Stop, Task, Usage};

/// A task that says `message`.
pub(super) fn answered(output: Output, message: String, state: State) -> Task {
    let structured = |text: &str| serde_json::from_str(text).ok();
    let structured_output = if output == Output::Json { structured(&message) } else { None };
    let said = Message { role: "assistant".to_owned(), text: message, ..Message::default() };
    Task {
        state,
        stop_reason: (state == State::Finished).then(|| "finish".to_owned()),
        structured_output,
        messages: Some(said).filter(|said| !said.text.is_empty()).into_iter().collect(),
        ..Task::default()
    }
}

/// A task in our words: what an event says, or the call.
pub(super) fn convert(output: Output, id: String, of: &Value) -> Fetched {
    let nothing = Value::Null;
    let data = of.get("data").unwrap_or(&nothing);
    let word = text(of, &["type", "event"]);
    let status = text(of, &["status"]);
    let state = match (word.as_deref(), status.as_deref()) {
        (Some(TASK_COMPLETED), _) => State::Finished,
        (Some("guardrail_trigger"), _) => State::Waiting,
        (_, Some("failed")) => State::Failed,
        (_, Some("pending" | "running")) => State::Running,
        _ => State::Unknown,
    };
    let message = text(data, &["message"]).unwrap_or_default();
    let usage = of.get("usage").unwrap_or(data);
    let tokens = |names: [&str; 2]| names.iter().find_map(|name| count(usage, name).or_else(|| count(data, name)));
    let amount = |names: [&str; 2]| names.iter().find_map(|name| number(usage, name).or_else(|| number(data, name)));
    let failed = state == State::Failed;
    let mut task = Task {
        id,
        updated_at: time(of, "completedAt"),
        usage: Usage {
            input_tokens: tokens(["inputTokens", "prompt_tokens"]),
            output_tokens: tokens(["outputTokens", "completion_tokens"]),
            compute_seconds: amount(["computeTime", "completion_time"]),
            cost_usd: number(usage, "cost"),
        },
        // A ping says nothing of what came out.
        complete: member(of, &["data"]).is_some() || failed,
        question: (state == State::Waiting).then(|| Question {
            kind: QuestionKind::Message,
            text: text(data, &["value"]),
            action: text(data, &["type"]),
            ..Question::default()
        }),
        error: if failed { error(of) } else { None },
        ..answered(output, message, state)
    };
    if failed || state == State::Waiting {
        task.stop_reason = Some(if failed { "error" } else { "ask" }.to_owned());
    }
    let files: Vec<_> = items(data, "files").iter().filter_map(file).collect();
    if let Some(message) = task.messages.first_mut() {
        message.files = (0..files.len()).collect();
    }
    let stands_at = task.stop_reason.as_ref().map(|_| state.as_str().to_owned());
    let text = said(&task).or_else(|| task.error.clone()).or_else(|| task.question.as_ref()?.text.clone());
    let end = |anchor: &String| Stop { anchor: anchor.clone(), state, at: task.updated_at, text: text.clone() };
    Fetched { stops: stands_at.iter().map(end).collect(), stands_at, files, raw: mask(&of.to_string()), task }
}

/// What a task answered.
pub(super) fn said(task: &Task) -> Option<String> {
    task.messages.first().map(|message| message.text.clone())
}

/// `CODE: message`, or what there is of it.
fn error(of: &Value) -> Option<String> {
    match (text(of, &["code"]), text(of, &["error", "message"])) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message),
    }
}

/// A file that the agent downloaded.
fn file(of: &Value) -> Option<File> {
    let (name, url) = (text(of, &["filename"]), text(of, &["downloadUrl"]));
    if name.is_none() && url.is_none() {
        return None;
    }
    Some(File { name: name.unwrap_or_else(|| "file".to_owned()), provider_url: url, ..File::default() })
}
