//! What a task of the simulator is going to do: a [`Plan`].

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::shelf::File;

/// What a prompt makes the simulator do, for people.
pub const PROMPTS: &str = "\
The first of these words in `taskDetails` decides what the task does:
  fail   ends in an error; no webhook tells
  login  needs a person (a guardrail); no webhook tells
  file   completes with a file
  hang   runs until its session ends
Any other: it completes, with an answer in the `outputType` that was asked for.";

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Output {
    /// Markdown.
    #[default]
    #[serde(rename = "text")]
    Text,
    /// JSON of the caller's own schema.
    #[serde(rename = "structured_json")]
    Json,
    /// CSV with a header row.
    #[serde(rename = "structured_csv")]
    Csv,
}

/// A task's life, decided beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The wait before each step, on the simulator's clock.
    pub pace: Duration,
    /// The form of the answer.
    pub output: Output,
    /// How it ends.
    pub end: End,
}

/// How a task ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Done: the webhook is sent.
    Done {
        /// The answer, as text.
        message: String,
        /// Files that were downloaded on the way.
        files: Vec<File>,
    },
    /// It needs a person.
    Guardrail(String),
    /// It failed.
    Fail {
        /// The code, such as `NAVIGATION_TIMEOUT`.
        code: String,
        /// What is said about it.
        message: String,
    },
    /// Never: it runs until its session ends.
    Never,
}

impl Plan {
    /// Completes with this text.
    #[must_use]
    pub fn done(message: &str) -> Self {
        let end = End::Done { message: message.to_owned(), files: Vec::new() };
        Self { pace: Duration::ZERO, output: Output::Text, end }
    }

    /// Ends so.
    #[must_use]
    pub fn ending(end: End) -> Self {
        Self { end, ..Self::done("") }
    }

    /// The same, its answer in this form.
    #[must_use]
    pub fn giving(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// The same with `pace` before each step.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// The same with a file, if it completes.
    #[must_use]
    pub fn with_file(mut self, file: File) -> Self {
        if let End::Done { files, .. } = &mut self.end {
            files.push(file);
        }
        self
    }

    /// The plan that `details` ask for, see [`PROMPTS`].
    #[must_use]
    pub fn of_prompt(details: &str, output: Output, pace: Duration) -> Self {
        let lower = details.to_lowercase();
        let known = ["fail", "login", "file", "hang"];
        let chosen = lower.split(|c: char| !c.is_alphanumeric()).find(|word| known.contains(word));
        let answer = match output {
            Output::Text => format!("# Done\n\nYou asked: {details}"),
            Output::Json => json!({"title": details, "price": 29.99, "inStock": true}).to_string(),
            Output::Csv => "title,price\nA thing,29.99\n".to_owned(),
        };
        let plan = match chosen {
            Some("fail") => Self::ending(End::Fail {
                code: "NAVIGATION_TIMEOUT".to_owned(),
                message: "Navigation timeout after 30 seconds".to_owned(),
            }),
            Some("login") => Self::ending(End::Guardrail("I need login credentials to proceed".to_owned())),
            Some("file") => Self::done(&answer).with_file(File::new("report.csv", "text/csv", "title,price\nA thing,29.99\n")),
            Some("hang") => Self::ending(End::Never),
            _ => Self::done(&answer),
        };
        plan.giving(output).paced(pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_help_is_known() {
        let shape = |details: &str| match Plan::of_prompt(details, Output::Text, Duration::ZERO).end {
            End::Done { files, .. } => format!("done {}", files.len()),
            End::Guardrail(_) => "guardrail".to_owned(),
            End::Fail { .. } => "fail".to_owned(),
            End::Never => "never".to_owned(),
        };
        assert_eq!(shape("profiles that failed"), "done 0");
        for line in PROMPTS.lines().filter(|line| line.starts_with("  ")) {
            let word = line.split_whitespace().next().unwrap();
            assert_ne!(shape(word), "done 0", "{word}");
        }
    }
}
