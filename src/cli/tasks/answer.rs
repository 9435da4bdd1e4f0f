//! `taskhook tasks reply`, `confirm` and `stop`.

use serde_json::{Value, json};

use super::super::client::{Client, Fault};
use super::super::output::{self, text};
use super::super::{Context, Error, Exit, Result, runtime};
use super::{named, no_task};
use crate::text::one_line;

/// What an answer may be given with.
#[derive(Debug, clap::Args)]
struct How {
    /// Only if the task still waits for this: `answers to` of `taskhook tasks show`, or `task.question.event_id` of an event
    #[arg(long, value_name = "ID")]
    question: Option<String>,
    /// Answer again what may have been answered already, since the provider's answer was lost: you looked, and it was not
    #[arg(long)]
    again: bool,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

/// Answer a task that asks, or go on with one that stopped. It costs what the provider charges, and is sent once
#[derive(Debug, clap::Args)]
#[command(override_usage = "taskhook tasks reply [OPTIONS] [SOURCE] TASK_ID MESSAGE")]
pub(super) struct Reply {
    /// Its source, if there are several, its id, and what you say
    #[arg(value_name = "TASK_ID MESSAGE", num_args = 1..=3, required = true)]
    task: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Confirm what a task waits for, such as a deployment or an e-mail. It is sent once
///
/// `taskhook tasks show` says what is asked for, and in which form.
#[derive(Debug, clap::Args)]
pub(super) struct Confirm {
    /// Its source, if there are several, and its id
    #[arg(value_names = ["SOURCE", "TASK_ID"], num_args = 1..=2, required = true)]
    task: Vec<String>,
    /// What the task asks for, as JSON
    #[arg(long, value_name = "JSON", default_value = "{\"accept\":true}")]
    input: String,
    #[command(flatten)]
    how: How,
}

/// Stop a task, where the provider has a call for it; `tasks reply` lets it go on
#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    /// Its source, if there are several, and its id
    #[arg(value_names = ["SOURCE", "TASK_ID"], num_args = 1..=2, required = true)]
    task: Vec<String>,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

/// Who answers, as far as the shell knows.
fn who(context: &Context<'_>) -> Option<String> {
    let env = &context.inputs.env;
    env.get("USER").or_else(|| env.get("LOGNAME")).filter(|name| !name.is_empty()).cloned()
}

impl Reply {
    pub(super) fn run(&self, client: &Client, context: &mut Context<'_>) -> Result {
        let (message, task) = match self.task.split_last() {
            Some((message, task)) if !task.is_empty() && !message.trim().is_empty() => (message, task),
            _ => {
                let error =
                    Error::failed("there is nothing to say: the message is missing; nothing was sent").with_exit(Exit::Usage);
                return Err(error.hint("write it like `taskhook tasks reply TASK_ID \"The blue one\"`").into());
            }
        };
        let body = json!({"message": message, "by": who(context), "question": self.how.question, "again": self.how.again});
        let given = give(client, task, "reply", &body)?;
        if self.how.json {
            return Ok(output::json(context.out, &given)?);
        }
        Ok(writeln!(context.err, "Sent. The task `{}` goes on.", one_line(&text(&given, "task_id"), 80))?)
    }
}

impl Confirm {
    pub(super) fn run(&self, client: &Client, context: &mut Context<'_>) -> Result {
        let input: Value = serde_json::from_str(&self.input).map_err(|error| {
            Error::failed(format!("`--input` is not JSON: {error}; nothing was sent"))
                .with_exit(Exit::Usage)
                .hint("write it like `--input '{\"accept\":true}'`")
        })?;
        let body = json!({"input": input, "by": who(context), "question": self.how.question, "again": self.how.again});
        let given = give(client, &self.task, "confirm", &body)?;
        if self.how.json {
            return Ok(output::json(context.out, &given)?);
        }
        let id = one_line(&text(&given, "task_id"), 80);
        match text(&given, "state").as_str() {
            "declined" => {
                Ok(writeln!(context.err, "Declined. The provider took it for a refusal: the task `{id}` may wait on.")?)
            }
            _ => Ok(writeln!(context.err, "Confirmed. The task `{id}` goes on.")?),
        }
    }
}

impl Stop {
    pub(super) fn run(&self, client: &Client, context: &mut Context<'_>) -> Result {
        let given = give(client, &self.task, "stop", &json!({"by": who(context)}))?;
        if self.json {
            return Ok(output::json(context.out, &given)?);
        }
        let id = one_line(&text(&given, "task_id"), 80);
        Ok(writeln!(
            context.err,
            "Stopped. That it did is found as any stop that no webhook tells: the task `{id}` is then `stopped`."
        )?)
    }
}

fn give(client: &Client, task: &[String], act: &str, body: &Value) -> Result<Value> {
    let (source, id) = named(task);
    Ok(runtime()?
        .block_on(client.post(&["tasks", source, id, act], Some(body)))
        .map_err(|fault| not_given(client, id, &fault))?)
}

/// Why it was not given, or nobody knows.
fn not_given(client: &Client, id: &str, fault: &Fault) -> Error {
    let told = no_task(client, id, fault);
    match fault {
        Fault::Lost(_) => Error::failed(format!("{}; it may have been sent all the same, and was not tried again", told.message))
            .hint("`taskhook tasks show` says what became of it"),
        _ => told,
    }
}
