//! What a task of the simulator is going to do: a [`Plan`] of turns. A turn begins when the task is created or answered, shows
//! some progress, and ends in one of the ways of [`End`].

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::shelf::File;

/// What a prompt makes the simulator do, for people.
pub const PROMPTS: &str = "\
The first of these words in a prompt decides what the task does:
  ask         asks a question, then finishes once it is answered
  confirm     wants an action to be confirmed, then finishes
  fail        ends in an error; no webhook tells (as with Manus)
  file        finishes with two files
  structured  finishes with structured output
  background  stops while a background job still runs (three looks at it)
  slow        shows ten steps of progress, then finishes
  hang        runs until it is stopped
Any other prompt: two steps of progress, then it finishes.";

/// A task's life, decided beforehand. Once its turns are used up, every further message is answered with a turn that finishes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The task's title; the start of the prompt if not set.
    pub title: Option<String>,
    /// The turns, in order; a new task starts the first, an answer the next.
    pub turns: VecDeque<Turn>,
    /// Who may read it: `private`, `team` or `public`. A public task is readable in v2 with the key of any account (assumed of Manus).
    pub visibility: String,
    /// For how many calls of `task.detail` after a stop `has_running_background_jobs` is still true; `None` leaves the field out.
    pub background: Option<u32>,
    /// Kept out of the task list (`hide_in_task_list`).
    pub hidden: bool,
}

/// One turn of a task.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The wait before each step, on the simulator's clock.
    pub pace: Duration,
    /// Steps that are announced (`task_progress`) before the end.
    pub progress: Vec<String>,
    /// How it ends.
    pub end: End,
    /// What it costs.
    pub credits: u32,
}

/// How a turn ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Done: `task_stopped` with `finish`.
    Finish {
        /// The last message.
        message: String,
        /// Its files.
        files: Vec<File>,
        /// `value` of the structured output, if there is one.
        structured_output: Option<Value>,
    },
    /// A question, to be answered with `task.sendMessage` (v1: `POST /v1/tasks` with `taskId`): `task_stopped` with `ask`.
    Ask {
        /// What is asked.
        question: String,
        /// Answers to choose from.
        options: Vec<String>,
    },
    /// An action to be confirmed with `task.confirmAction`: `task_stopped` with `ask` as well.
    Confirm {
        /// Such as `deployAction`.
        action: String,
        /// What is to be confirmed.
        description: String,
        /// JSON Schema of the `input`.
        input_schema: Value,
    },
    /// An error: status `error` (v1: `failed`), and no webhook.
    Fail {
        /// Why.
        error: String,
    },
    /// Somebody stops it in the web app: status `stopped`, and no webhook.
    UserStop,
    /// None: it runs until it is stopped.
    Never,
}

impl Turn {
    /// A turn of no progress and no delay that ends with `end`.
    #[must_use]
    pub fn new(end: End) -> Self {
        Self { pace: Duration::ZERO, progress: Vec::new(), end, credits: 5 }
    }

    /// A turn that finishes with `message`.
    #[must_use]
    pub fn finish(message: impl Into<String>) -> Self {
        Self::new(End::Finish { message: message.into(), files: Vec::new(), structured_output: None })
    }
}

impl Plan {
    /// A private task with these turns.
    #[must_use]
    pub fn new(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self {
            title: None,
            turns: turns.into_iter().collect(),
            visibility: "private".to_owned(),
            background: Some(0),
            hidden: false,
        }
    }

    /// Finishes with `message`.
    #[must_use]
    pub fn finish(message: impl Into<String>) -> Self {
        Self::new([Turn::finish(message)])
    }

    /// Asks `question`, and finishes when it is answered.
    #[must_use]
    pub fn ask(question: impl Into<String>) -> Self {
        Self::new([Turn::new(End::Ask { question: question.into(), options: Vec::new() }), Turn::finish("Thank you: done.")])
    }

    /// Wants `action` to be confirmed with `{"accept": true}`, and finishes then.
    #[must_use]
    pub fn confirm(action: impl Into<String>, description: impl Into<String>) -> Self {
        let input_schema = json!({"type": "object", "properties": {"accept": {"type": "boolean"}}, "required": ["accept"]});
        let end = End::Confirm { action: action.into(), description: description.into(), input_schema };
        Self::new([Turn::new(end), Turn::finish("Confirmed: done.")])
    }

    /// Ends in an error, which no webhook tells.
    #[must_use]
    pub fn fail(error: impl Into<String>) -> Self {
        Self::new([Turn::new(End::Fail { error: error.into() })])
    }

    /// Runs until it is stopped.
    #[must_use]
    pub fn hang() -> Self {
        Self::new([Turn::new(End::Never)])
    }

    /// The same with this title.
    #[must_use]
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// The same with steps of progress in the first turn.
    #[must_use]
    pub fn with_progress(mut self, steps: impl IntoIterator<Item = impl Into<String>>) -> Self {
        if let Some(turn) = self.turns.front_mut() {
            turn.progress.extend(steps.into_iter().map(Into::into));
        }
        self
    }

    /// The same with a file at the end of every turn that finishes.
    #[must_use]
    pub fn with_file(mut self, name: &str, content_type: &str, bytes: impl Into<Bytes>) -> Self {
        self.add_file(&File::new(name, content_type, bytes));
        self
    }

    /// The same with a file that lies behind `link`, wherever that leads, at the end of every turn that finishes.
    #[must_use]
    pub fn with_link(mut self, name: &str, content_type: &str, link: &str) -> Self {
        self.add_file(&File::elsewhere(name, content_type, link));
        self
    }

    fn add_file(&mut self, file: &File) {
        for turn in &mut self.turns {
            if let End::Finish { files, .. } = &mut turn.end {
                files.push(file.clone());
            }
        }
    }

    /// The same with a structured output, `value`, at the end of every turn that finishes.
    #[must_use]
    pub fn with_structured_output(mut self, value: &Value) -> Self {
        for turn in &mut self.turns {
            if let End::Finish { structured_output, .. } = &mut turn.end {
                *structured_output = Some(value.clone());
            }
        }
        self
    }

    /// The same with `pace` between the steps of every turn.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        for turn in &mut self.turns {
            turn.pace = pace;
        }
        self
    }

    /// The same with every turn costing `credits`.
    #[must_use]
    pub fn costing(mut self, credits: u32) -> Self {
        for turn in &mut self.turns {
            turn.credits = credits;
        }
        self
    }

    /// The same with background jobs that are seen to run by `checks` calls of `task.detail` after a stop.
    #[must_use]
    pub fn with_background(mut self, checks: u32) -> Self {
        self.background = Some(checks);
        self
    }

    /// The same, readable by `visibility`: `private`, `team` or `public`.
    #[must_use]
    pub fn visible_to(mut self, visibility: &str) -> Self {
        visibility.clone_into(&mut self.visibility);
        self
    }

    /// The plan that `prompt` asks for, see [`PROMPTS`].
    #[must_use]
    pub fn of_prompt(prompt: &str, pace: Duration) -> Self {
        let lower = prompt.to_lowercase();
        let known = ["ask", "confirm", "fail", "file", "structured", "background", "slow", "hang"];
        let chosen = lower.split(|c: char| !c.is_alphanumeric()).find(|word| known.contains(word));
        let steps = |count: u32| (1..=count).map(move |step| format!("Step {step} of {count}"));
        let done = || Self::finish(format!("Done! You asked: {prompt}"));
        let plan = match chosen {
            Some("ask") => {
                let end = End::Ask {
                    question: "Which one shall it be, A or B?".to_owned(),
                    options: vec!["A".to_owned(), "B".to_owned()],
                };
                Self::new([Turn::new(end), Turn::finish("Thank you: done.")])
            }
            Some("confirm") => Self::confirm("deployAction", "Publish the site?"),
            Some("fail") => Self::fail("The browser could not be started."),
            Some("file") => done().with_file("answer.md", "text/markdown", "# Answer\n\n42\n").with_file(
                "table.csv",
                "text/csv",
                "name,value\nanswer,42\n",
            ),
            Some("structured") => done().with_structured_output(&json!({"answer": 42, "unit": null})),
            Some("background") => done().with_background(3),
            Some("hang") => Self::hang(),
            _ => done(),
        };
        plan.with_progress(steps(if chosen == Some("slow") { 10 } else { 2 })).paced(pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_word_decides() {
        let end = |prompt| Plan::of_prompt(prompt, Duration::ZERO).turns[0].end.clone();
        assert!(matches!(end("Please ASK me, or fail."), End::Ask { .. }));
        assert!(matches!(end("fail"), End::Fail { .. }));
        assert!(matches!(end("write a file"), End::Finish { files, .. } if files.len() == 2));
        assert!(matches!(end("a task, failure, profile"), End::Finish { files, .. } if files.is_empty()));
    }

    #[test]
    fn every_word_of_the_help_is_known() {
        let usual = Plan::of_prompt("x", Duration::ZERO);
        for line in PROMPTS.lines().filter(|line| line.starts_with("  ")) {
            let word = line.split_whitespace().next().unwrap();
            let plan = Plan::of_prompt(word, Duration::ZERO);
            let same_end = std::mem::discriminant(&plan.turns[0].end) == std::mem::discriminant(&usual.turns[0].end);
            let bare = matches!(&plan.turns[0].end, End::Finish { files, structured_output: None, .. } if files.is_empty());
            let as_plain = same_end && bare && plan.background == Some(0) && plan.turns[0].progress.len() == 2;
            assert!(!as_plain, "{word}");
        }
    }
}
