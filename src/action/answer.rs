//! Answering a task that waits, going on with one that stopped, and stopping one.
//!
//! What must hold:
//! - What is answered is what the task waits for at this moment, by the provider's own word, asked for right before.
//! - A question is answered once, whoever is faster, wherever they ask: that an answer is about to be sent is written down first, and the
//!   database refuses a second one.
//! - Nothing is sent a second time. An answer whose fate nobody knows stands, until a person says that it did not arrive.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Actions, Error, lost, whole};
use crate::clock;
use crate::event::is_id;
use crate::provider::{ApiError, Source, Standing, Use, misfits};
use crate::store::model::{AnswerKind, NewAnswer, Outcome};
use crate::task::{Question, QuestionKind, State};
use crate::telemetry::{logged, name};
use crate::text::one_line;

/// After this time an answer whose end was not written down is one that nobody knows of. A call has its own, shorter time limit.
const SENDING_MOST: Duration = Duration::from_mins(5);
/// The most characters of the name of who answers.
const MAX_BY: usize = 80;
/// The most characters of a reason that are kept.
const MAX_REASON: usize = 500;

/// What is answered.
#[derive(Clone, Debug)]
pub enum Say {
    /// These words.
    Reply(String),
    /// A confirmation with this input; without one, `{"accept": true}`.
    Confirm(Option<Value>),
}

/// An answer that a person wants to give.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What.
    pub say: Say,
    /// What the task must still wait for: the provider's id of that, or the stop that it stands at. `None` for whatever it waits for.
    pub question: Option<String>,
    /// Who gives it.
    pub by: String,
    /// Whether one of which nobody knows whether it arrived did not.
    pub again: bool,
}

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Given {
    /// Our id of it.
    pub id: String,
    /// The source.
    pub source: String,
    /// The provider's task.
    pub task_id: String,
    /// What it answers.
    pub question: Option<String>,
    /// `sent`, or `declined` where the provider took it for a refusal.
    pub state: &'static str,
}

/// What is to be sent.
enum Call {
    Reply(Box<Standing>, String),
    Confirm(String, Value),
    Stop,
}

impl Call {
    fn kind(&self) -> AnswerKind {
        match self {
            Self::Reply(..) => AnswerKind::Reply,
            Self::Confirm(..) => AnswerKind::Confirm,
            Self::Stop => AnswerKind::Stop,
        }
    }

    fn content(&self) -> Option<String> {
        match self {
            Self::Reply(_, message) => Some(message.clone()),
            Self::Confirm(_, input) => Some(input.to_string()),
            Self::Stop => None,
        }
    }

    async fn send(&self, source: &Source, task_id: &str) -> Result<Outcome, ApiError> {
        match self {
            Self::Reply(standing, message) => source.reply(task_id, standing, message).await.map(|()| Outcome::Sent),
            Self::Confirm(event_id, input) => {
                let accepted = source.confirm(task_id, event_id, input).await?;
                Ok(if accepted { Outcome::Sent } else { Outcome::Declined })
            }
            Self::Stop => source.stop(task_id).await.map(|()| Outcome::Sent),
        }
    }
}

impl Actions {
    /// Answers what a task waits for, or says something to one that stopped, so that it goes on.
    ///
    /// # Errors
    /// [`Error::NotWaiting`], [`Error::OtherAnswer`], [`Error::OtherQuestion`], [`Error::Input`] and [`Error::Answered`]: nothing was sent.
    /// [`Error::Provider`]: it did not take it. [`Error::Unknown`]: its answer was lost.
    pub async fn answer(&self, source: Option<&str>, task_id: &str, wish: Wish) -> Result<Given, Error> {
        let source = Arc::clone(self.source(source)?);
        let id = named(task_id)?;
        let standing = source.standing(id).await.map_err(|error| not_there(error, id))?;
        let (question, call) = match wish.say {
            Say::Reply(message) => (answerable(&standing, false)?.0, Call::Reply(Box::new(standing), message)),
            Say::Confirm(input) => {
                let (question, asked) = answerable(&standing, true)?;
                let input = input.unwrap_or_else(|| json!({"accept": true}));
                fit(asked, &input)?;
                (question.clone(), Call::Confirm(question, input))
            }
        };
        if let Some(asked) = wish.question.filter(|asked| *asked != question) {
            return Err(Error::OtherQuestion { asked: one_line(&asked, MAX_BY), now: one_line(&question, MAX_BY) });
        }
        self.give(source, id, call, Some(question), &wish.by, wish.again).await
    }

    /// Stops a task; its end is then found as any other that no webhook tells.
    ///
    /// # Errors
    /// [`Error::Provider`] and [`Error::Unknown`].
    pub async fn stop_task(&self, source: Option<&str>, task_id: &str, by: &str) -> Result<Given, Error> {
        let source = Arc::clone(self.source(source)?);
        self.give(source, named(task_id)?, Call::Stop, None, by, false).await
    }

    /// Writes down what is about to be sent, sends it, and writes down what became of it.
    async fn give(
        &self,
        source: Arc<Source>,
        task_id: &str,
        call: Call,
        question: Option<String>,
        by: &str,
        again: bool,
    ) -> Result<Given, Error> {
        let (actions, task_id) = (self.clone(), task_id.to_owned());
        let (by, id) = (one_line(by, MAX_BY), Uuid::now_v7());
        whole(async move {
            // Before it is written down: from then on it takes no longer than a call may.
            source.budget().take(Use::Answer).await;
            let (store, now) = (&actions.store, actions.clock.now());
            store.doubt_answers(clock::before(now, SENDING_MOST), now).await?;
            let answer = NewAnswer {
                id,
                source: source.name().to_owned(),
                task_id: task_id.clone(),
                kind: call.kind(),
                question: question.clone(),
                by: by.clone(),
                content: call.content(),
                again,
            };
            if let Some(standing) = store.begin_answer(answer, now).await? {
                return Err(Error::Answered(Box::new(standing)));
            }
            let sent = call.send(&source, &task_id).await;
            let (outcome, reason) = match &sent {
                Ok(outcome) => (*outcome, None),
                Err(error) if error.outcome_unknown() => (Outcome::Unknown, Some(error)),
                Err(error) => (Outcome::Refused, Some(error)),
            };
            let (kind, state) = (call.kind().as_str(), outcome.as_str());
            metrics::counter!(name::ANSWERS, "source" => source.name().to_owned(), "outcome" => state).increment(1);
            tracing::info!(
                source = source.name(),
                task = logged(&task_id),
                by,
                kind,
                outcome = state,
                "a task was answered ({kind}): {state}"
            );
            let reason = reason.map(|error| one_line(&error.to_string(), MAX_REASON));
            // It was sent all the same; that nobody knows is said of it when somebody looks.
            if let Err(error) = store.end_answer(id, outcome, reason, actions.clock.now()).await {
                tracing::warn!(source = source.name(), error = %error, "what became of an answer was not kept: {error}");
            }
            sent.map_err(lost)?;
            actions.wake.notify_one();
            Ok(Given { id: id.to_string(), source: source.name().to_owned(), task_id, question, state })
        })
        .await
    }
}

fn named(task_id: &str) -> Result<&str, Error> {
    if is_id(task_id) { Ok(task_id) } else { Err(Error::NoId) }
}

fn not_there(error: ApiError, task_id: &str) -> Error {
    match error {
        ApiError::NotFound { .. } => Error::NoTask(one_line(task_id, MAX_BY)),
        error => Error::Provider(error),
    }
}

/// What an answer answers to a task that stands so: what it is known by, and the question. `confirms` says which kind it is.
fn answerable(standing: &Standing, confirms: bool) -> Result<(String, Option<&Question>), Error> {
    let question = standing.question.as_ref();
    match (question, confirms) {
        (Some(question), false) if question.kind == QuestionKind::Action => {
            let action = question.action.as_deref().map(|action| format!(" (`{}`)", one_line(action, MAX_BY)));
            let waits = format!("a confirmation{}", action.unwrap_or_default());
            return Err(Error::OtherAnswer { waits, instead: "`taskhook tasks confirm` or …/confirm" });
        }
        (Some(question), true) if question.kind == QuestionKind::Message => {
            let waits = "an answer in words".to_owned();
            return Err(Error::OtherAnswer { waits, instead: "`taskhook tasks reply` or …/reply" });
        }
        (None, true) => return Err(Error::NotWaiting("there is nothing to confirm")),
        _ => {}
    }
    let known = question.and_then(|question| question.event_id.clone());
    // A confirmation names what it confirms; for words the stop will do.
    let known = if confirms { known } else { known.or_else(|| standing.anchor.clone()) };
    match known {
        Some(known) => Ok((known, question)),
        None if matches!(standing.state, State::Running | State::Unknown) => Err(Error::NotWaiting("it is at work")),
        None => Err(Error::NotWaiting("the provider does not say what it waits for")),
    }
}

/// Holds the input of a confirmation against its schema. One that is of no use is the provider's to judge by.
fn fit(question: Option<&Question>, input: &Value) -> Result<(), Error> {
    let Some(schema) = question.and_then(|question| question.input_schema.as_ref()) else { return Ok(()) };
    match misfits(schema, input) {
        Ok(wrong) if wrong.is_empty() => Ok(()),
        Ok(wrong) => Err(Error::Input(wrong.iter().map(|misfit| one_line(misfit, MAX_REASON)).collect())),
        Err(_) => Ok(()),
    }
}
