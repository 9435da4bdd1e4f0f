//! A task: the provider's long-running job, in words of our own.
//!
//! Every provider's answer is turned into these types, and nothing behind the provider knows any other. They are the `task` and
//! `files` members of the envelope: what is not known is `null`, and no member is ever left out.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::clock;

/// The most messages that are handed on; of more, the first is kept (what was asked) and the newest.
pub const MAX_MESSAGES: usize = 200;
/// The most bytes of text in the messages that are handed on; older messages go first.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Where a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At work.
    Running,
    /// It asked something and waits.
    Waiting,
    /// It ended by itself.
    Finished,
    /// It ended by an error.
    Failed,
    /// A person stopped it.
    Stopped,
    /// It was called off before it began.
    Canceled,
    /// The provider said nothing that we know.
    #[default]
    Unknown,
}

impl State {
    /// Why a task stopped that stands so, in the word of events and envelopes; `None` where it has not.
    #[must_use]
    pub fn stop_reason(self) -> Option<&'static str> {
        match self {
            Self::Finished => Some("finish"),
            Self::Waiting => Some("ask"),
            Self::Failed => Some("error"),
            Self::Stopped => Some("user"),
            Self::Canceled => Some("canceled"),
            Self::Running | Self::Unknown => None,
        }
    }

    /// Where a task stands that stopped for this reason; `None` for a word that is not known.
    #[must_use]
    pub fn of_stop(reason: &str) -> Option<Self> {
        let stops = [Self::Finished, Self::Waiting, Self::Failed, Self::Stopped, Self::Canceled];
        stops.into_iter().find(|state| state.stop_reason() == Some(reason))
    }

    /// The word in the store, the API and the envelope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Canceled => "canceled",
            Self::Unknown => "unknown",
        }
    }
}

/// A task as last fetched: the `task` member of the envelope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The provider's id.
    pub id: String,
    /// Its title.
    pub title: Option<String>,
    /// Its page.
    pub url: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Why it stopped: `finish`, `ask`, `error`, `user` or `canceled`.
    pub stop_reason: Option<String>,
    /// The model or agent profile that worked on it.
    pub model: Option<String>,
    /// When the provider made it.
    #[serde(with = "clock::optional")]
    pub created_at: Option<Timestamp>,
    /// When the provider last changed it.
    #[serde(with = "clock::optional")]
    pub updated_at: Option<Timestamp>,
    /// What it cost so far, in the provider's credits.
    #[serde(serialize_with = "plain_number")]
    pub credits: Option<f64>,
    /// What it used.
    pub usage: Usage,
    /// False where it could not be fetched whole: then this is what the webhook told.
    pub complete: bool,
    /// Whether background jobs of its own still run.
    pub background: bool,
    /// What it waits for.
    pub question: Option<Question>,
    /// The answer in the form that was asked for.
    pub structured_output: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// How many messages were left out, see [`MAX_MESSAGES`].
    pub messages_omitted: u64,
}

/// What a task used, where the provider tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: Option<u64>,
    /// Tokens written.
    pub output_tokens: Option<u64>,
    /// Seconds of computing.
    #[serde(serialize_with = "plain_number")]
    pub compute_seconds: Option<f64>,
    /// Money, in US dollars.
    #[serde(serialize_with = "plain_number")]
    pub cost_usd: Option<f64>,
}

/// What a waiting task waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// `message`: answer in words; `action`: confirm something.
    pub kind: QuestionKind,
    /// What is asked, for a person.
    pub text: Option<String>,
    /// Answers to choose from.
    pub options: Vec<String>,
    /// The provider's name of what waits, such as `messageAskUser` or `deployAction` (Manus v2).
    pub action: Option<String>,
    /// What a confirmation must name (Manus v2: `waiting_for_event_id`).
    pub event_id: Option<String>,
    /// The JSON Schema of a confirmation's input.
    pub input_schema: Option<Value>,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// In words.
    #[default]
    Message,
    /// By confirming.
    Action,
}

/// One message of the conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The provider's id.
    pub id: Option<String>,
    /// `user` or `assistant`.
    pub role: String,
    /// When it was said.
    #[serde(with = "clock::optional")]
    pub created_at: Option<Timestamp>,
    /// What was said: third-party text.
    pub text: String,
    /// Its files, as positions in the envelope's `files`.
    pub files: Vec<usize>,
}

/// A file of a task: one of the envelope's `files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// Its name: third-party text.
    pub name: String,
    /// Its MIME type.
    pub content_type: Option<String>,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// Of the bytes that we saved, in hexadecimal.
    pub sha256: Option<String>,
    /// Where we serve it.
    pub link: Option<String>,
    /// Where the provider serves it, for a while.
    pub provider_url: Option<String>,
    /// What became of it.
    pub status: FileStatus,
    /// The message that it came with.
    pub message_id: Option<String>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// Saved, whole.
    Archived,
    /// Being saved.
    Pending,
    /// Could not be saved.
    Failed,
    /// Larger than `archive.max_file_bytes`.
    TooLarge,
    /// Not saved, since no archive is configured.
    #[default]
    Skipped,
}

impl FileStatus {
    /// The word in the store, the API and the envelope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Skipped => "skipped",
        }
    }
}

impl FromStr for FileStatus {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Archived, Self::Pending, Self::Failed, Self::TooLarge, Self::Skipped]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or(())
    }
}

/// A key for each of `files`, by which one is known again in a later answer, where its link is signed anew: of its message, its
/// name, and its link up to `?` or `#`. Files that are alike in all three are told apart by their order, which does not change: what
/// stands behind the `?` may well say which file it is.
#[must_use]
pub fn keys_of(files: &[File]) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let key = |file: &File| {
        let url = file.provider_url.as_deref().unwrap_or_default();
        let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
        let message = file.message_id.as_deref().unwrap_or_default();
        // Lengths keep the parts apart.
        let text = format!("{} {message} {} {} {url}", message.len(), file.name.len(), file.name);
        let alike = seen.entry(text.clone()).or_default();
        *alike += 1;
        let digest = digest(&SHA256, format!("{alike} {text}").as_bytes());
        let half = digest.as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
        format!("{half:032x}")
    };
    files.iter().map(key).collect()
}

/// The end of a turn of a task, as the provider's API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What it is known by: the same in every answer, and of this stop alone.
    pub anchor: String,
    /// Where the task stood then: finished, waiting, failed, stopped or canceled.
    pub state: State,
    /// When that was, by the provider's clock.
    pub at: Option<Timestamp>,
    /// What the agent had said last in that turn.
    pub text: Option<String>,
}

/// A task and its files, as a provider's API tells it, and the answers that it was read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fetched {
    /// The task.
    pub task: Task,
    /// Its files.
    pub files: Vec<File>,
    /// The ends of its turns, the oldest first, where the provider tells them apart.
    pub stops: Vec<Stop>,
    /// The anchor of the stop that it stands at; `None` while it is at work, or where turns are not told apart.
    pub stands_at: Option<String>,
    /// The raw answers, as one JSON text: kept beside the task, for what we do not understand yet.
    pub raw: String,
}

/// A number, without decimals where it is whole, as providers write it: `22`, not `22.0`.
#[must_use]
pub fn plain(number: f64) -> Value {
    /// Up to here every whole number has a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within what an i64 holds")]
    let whole = (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64);
    whole.map_or_else(|| Value::from(number), Value::from)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn plain_number<S: Serializer>(number: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    number.map(plain).serialize(to)
}

impl Task {
    /// Keeps the conversation within [`MAX_MESSAGES`] and [`MAX_TEXT_BYTES`], and counts what goes.
    pub fn bound_messages(&mut self) {
        let mut text: usize = self.messages.iter().map(|message| message.text.len()).sum();
        let mut gone = self.messages.len().saturating_sub(MAX_MESSAGES);
        let head = usize::from(self.messages.len() > 1);
        text -= self.messages.iter().skip(head).take(gone).map(|message| message.text.len()).sum::<usize>();
        while text > MAX_TEXT_BYTES && head + gone + 1 < self.messages.len() {
            text -= self.messages[head + gone].text.len();
            gone += 1;
        }
        self.messages.drain(head..head + gone);
        self.messages_omitted += gone as u64;
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Running, Self::Waiting, Self::Finished, Self::Failed, Self::Stopped, Self::Canceled, Self::Unknown]
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(texts: impl IntoIterator<Item = String>) -> Task {
        let messages = texts.into_iter().map(|text| Message { text, ..Message::default() }).collect();
        Task { messages, ..Task::default() }
    }

    #[test]
    fn a_long_conversation_keeps_its_first_message_and_its_newest() {
        let mut task = talk((0..250).map(|n| n.to_string()));
        task.bound_messages();
        assert_eq!(task.messages.len(), MAX_MESSAGES);
        assert_eq!(task.messages_omitted, 50);
        assert_eq!(task.messages[0].text, "0");
        assert_eq!(task.messages[1].text, "51");
        assert_eq!(task.messages.last().unwrap().text, "249");
    }

    #[test]
    fn much_text_is_cut_at_the_old_end() {
        let mut task = talk(["ask".to_owned(), "x".repeat(MAX_TEXT_BYTES), "answer".to_owned()]);
        task.bound_messages();
        assert_eq!(task.messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>(), ["ask", "answer"]);
        assert_eq!(task.messages_omitted, 1);
    }

    #[test]
    fn whole_numbers_are_written_without_decimals() {
        let usage = |seconds| serde_json::to_value(Usage { compute_seconds: seconds, ..Usage::default() }).unwrap();
        for (number, text) in [(Some(22.0), "22"), (Some(0.5), "0.5"), (Some(1e300), "1e300"), (None, "null")] {
            assert_eq!(usage(number)["compute_seconds"].to_string().replace('+', ""), text);
        }
    }

    #[test]
    fn a_file_is_known_again_when_its_link_is_signed_anew() {
        let file = |message: &str, name: &str, url: &str| File {
            name: name.to_owned(),
            provider_url: Some(url.to_owned()),
            message_id: Some(message.to_owned()),
            ..File::default()
        };
        let keys = |signature: &str| {
            keys_of(&[
                file("m1", "a.md", &format!("https://cdn.example/1/a.md?{signature}")),
                file("m1", "a.md", &format!("https://cdn.example/2/a.md#{signature}")),
                file("m2", "a.md", &format!("https://cdn.example/1/a.md?{signature}")),
                // Only what stands behind the `?` tells these apart, and their order.
                file("m1", "x", &format!("https://cdn.example/download?id=1&{signature}")),
                file("m1", "x", &format!("https://cdn.example/download?id=2&{signature}")),
                File::default(),
            ])
        };
        let first = keys("Signature=1");
        assert_eq!(first, keys("Signature=2"));
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), first.len());
        assert!(first.iter().all(|key| key.len() == 32));
    }

    #[test]
    fn a_short_conversation_is_left_alone() {
        let mut task = talk(["a".to_owned()]);
        task.bound_messages();
        assert_eq!((task.messages.len(), task.messages_omitted), (1, 0));
        talk([]).bound_messages();
    }
}
