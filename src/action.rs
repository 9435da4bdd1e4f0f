//! What a person may ask for, whoever asks: the admin API does nothing else.
//!
//! What must hold: a call that spends money is made once. If its answer is lost, that is said, and nobody tries again but a person.

mod again;
mod answer;
pub mod erase;
pub mod reach;
mod registering;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

pub use self::again::{DestinationRow, Done, MANY, Many};
pub use self::answer::{Given, Say, Wish};
pub use self::registering::{Goes, Registered, Tried, TryOut};
use crate::archive::Archive;
use crate::clock::Clock;
use crate::event::is_id;
use crate::provider::{ApiError, Created, NewTask, Source};
use crate::store::model::{Proof, Released, Tracked};
use crate::store::view::AnswerRow;
use crate::store::{self, Store};
use crate::telemetry::{Health, Reason, logged};
use crate::text::one_line;

/// Does what is asked for.
#[derive(Clone, Debug)]
pub struct Actions {
    sources: BTreeMap<String, Arc<Source>>,
    /// The kinds of the configured destinations, by name.
    destinations: BTreeMap<String, &'static str>,
    store: Store,
    clock: Clock,
    health: Health,
    wake: Arc<Notify>,
    archive: Option<Archive>,
    routes: Option<Arc<dyn TryOut>>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such source.
    #[error("there is no source `{0}`")]
    NoSource(String),
    /// The source must be named.
    #[error("name the source: there are {0}")]
    WhichSource(String),
    /// This provider has no tasks of this kind.
    #[error("`{kind}` is no kind of task of {provider}: write {}", .kinds.join(", "))]
    NoKind {
        /// What was asked for.
        kind: String,
        /// The provider.
        provider: &'static str,
        /// What there is.
        kinds: &'static [&'static str],
    },
    /// No task has such an id.
    #[error("no task can have this id")]
    NoId,
    /// There is no such event.
    #[error("there is no event `{0}`")]
    NoEvent(String),
    /// There is no such task.
    #[error("there is no task `{0}`")]
    NoTask(String),
    /// Something of the task is being done.
    #[error(
        "something of the task is being done at this moment, such as a fetch, a download or a delivery: try again in a moment"
    )]
    Busy,
    /// It takes no answer now.
    #[error("the task waits for nothing now: {0}")]
    NotWaiting(&'static str),
    /// It waits for an answer of the other kind.
    #[error("the task waits for {waits}: use {instead}")]
    OtherAnswer {
        /// For what.
        waits: String,
        /// What gives that.
        instead: &'static str,
    },
    /// It waits for something else by now.
    #[error("the task does not wait for `{asked}` any more, but for `{now}`: look at it again")]
    OtherQuestion {
        /// What was to be answered.
        asked: String,
        /// What it waits for.
        now: String,
    },
    /// The question was answered, or may have been.
    #[error("{}", answered(.0))]
    Answered(Box<AnswerRow>),
    /// The input of a confirmation is not what is asked for.
    #[error("the input does not fit what is asked for: {}", .0.join("; "))]
    Input(Vec<String>),
    /// What goes with a new task is too large.
    #[error("the files are larger than {} MB in all: that is the most that the provider takes with a new task", MAX_ATTACHED / 1_000_000)]
    TooLarge,
    /// Only an event in quarantine can be released.
    #[error("the event is not in quarantine: its state is `{0}`")]
    NotQuarantined(String),
    /// There is no such delivery.
    #[error("there is no delivery `{0}`")]
    NoDelivery(String),
    /// What is being sent can be neither sent again nor discarded.
    #[error("the delivery is being sent right now: look again when that has ended")]
    InFlight,
    /// What arrived, or was discarded, is not sent again.
    #[error("the delivery cannot be tried again: its state is `{0}`")]
    NotRetryable(String),
    /// What arrived, or was discarded, is not discarded.
    #[error("the delivery cannot be discarded: its state is `{0}`")]
    NotDiscardable(String),
    /// Only an event that is done with can be replayed.
    #[error("the event cannot be replayed: {}", why_not(.0))]
    NotReplayable(String),
    /// Everything at once is asked for in so many words.
    #[error("say which are meant: the filter is empty")]
    NoFilter,
    /// There is no such destination.
    #[error("there is no destination `{name}`: there are {known}")]
    NoDestination {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The provider did not do it.
    #[error("{0}")]
    Provider(ApiError),
    /// The provider may have done it; nobody knows.
    #[error(
        "{0}; the provider may have done it all the same, and it was not tried again, since it costs money: look there first"
    )]
    Unknown(ApiError),
    /// This process ends.
    #[error("it was cut off, and may have been done: {0}")]
    CutOff(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The most bytes of files that go with a new task, in all. Manus takes 20 MB as `file_data` (its page of `task.create`).
pub const MAX_ATTACHED: usize = 20_000_000;

/// Why a question that has this answer takes no other.
fn answered(answer: &AnswerRow) -> String {
    let AnswerRow { kind, by, state, given_at, .. } = answer;
    let given = format!("{kind} by {}, {given_at}", one_line(by, 80));
    match state.as_str() {
        "sent" => format!("this was answered already ({given}): a question is answered once"),
        "sending" => format!("this is being answered at this moment ({given})"),
        _ => format!(
            "this may have been answered already ({given}), since the provider's answer was lost: look at the task there; if it still \
             waits, answer again in so many words (`--again`)"
        ),
    }
}

/// Why an event in this state is not replayed.
fn why_not(state: &str) -> String {
    match state {
        "ping" => "it is the provider's test request, which is never handed on".to_owned(),
        "quarantined" => "it is in quarantine, since nothing proves its task yours".to_owned(),
        _ => format!("it is still on its way, in the state `{state}`"),
    }
}

/// What a call that costs money came to that failed.
fn lost(error: ApiError) -> Error {
    if error.outcome_unknown() { Error::Unknown(error) } else { Error::Provider(error) }
}

/// Does all of `work`, even if whoever asked for it hangs up: what was begun is written down.
#[expect(clippy::disallowed_methods, reason = "whoever asked waits for it, and its panic goes on there")]
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::CutOff(error.to_string())),
        },
    }
}

impl Actions {
    /// Acts on `sources`, `destinations` (their kinds, by name) and `store`; rings `wake` when it made work.
    #[must_use]
    pub fn new(
        sources: BTreeMap<String, Arc<Source>>,
        destinations: BTreeMap<String, &'static str>,
        store: Store,
        clock: Clock,
        health: Health,
        wake: Arc<Notify>,
    ) -> Self {
        Self { sources, destinations, store, clock, health, wake, archive: None, routes: None }
    }

    /// The same, with the archive that files are deleted from.
    #[must_use]
    pub fn with_archive(mut self, archive: Archive) -> Self {
        self.archive = Some(archive);
        self
    }

    /// The same, with what knows where events go.
    #[must_use]
    pub fn with_routes(mut self, routes: Arc<dyn TryOut>) -> Self {
        self.routes = Some(routes);
        self
    }

    /// Where the files of tasks are, if anywhere.
    #[must_use]
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// What does not work now.
    #[must_use]
    pub fn degraded(&self) -> Vec<Reason> {
        self.health.reasons()
    }

    /// The source that is meant: the named one, or the only one.
    ///
    /// # Errors
    /// [`Error::NoSource`] and [`Error::WhichSource`].
    pub fn source(&self, name: Option<&str>) -> Result<&Arc<Source>, Error> {
        match name {
            Some(name) => self.sources.get(name).ok_or_else(|| Error::NoSource(name.to_owned())),
            None => match self.sources.values().collect::<Vec<_>>().as_slice() {
                [one] => Ok(one),
                _ => Err(Error::WhichSource(self.sources.keys().cloned().collect::<Vec<_>>().join(", "))),
            },
        }
    }

    /// All sources, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values().map(AsRef::as_ref)
    }

    /// Creates a task. That it is ours is written down, so nothing has to be proven when its events come.
    ///
    /// # Errors
    /// [`Error::Provider`]; [`Error::Unknown`] where the answer was lost.
    pub async fn create_task(&self, source: Option<&str>, task: &NewTask) -> Result<(String, Created), Error> {
        let source = Arc::clone(self.source(source)?);
        if task.attached() > MAX_ATTACHED {
            return Err(Error::TooLarge);
        }
        let (actions, task) = (self.clone(), task.clone());
        whole(async move {
            let created = source.create_task(&task).await.map_err(lost)?;
            let (title, url) = (created.title.clone(), created.url.clone());
            let proof = Proof { task_id: created.task_id.clone(), how: "created", title, url };
            // The task exists, whether or not this is kept: its list proves it as well, only later.
            if let Err(error) = actions.store.record_proofs(source.name(), vec![proof], actions.clock.now()).await {
                tracing::warn!(source = source.name(), error = %error, "that the task was created here was not kept: {error}");
            }
            actions.wake.notify_one();
            Ok((source.name().to_owned(), created))
        })
        .await
    }

    /// Writes down that a task is to be expected: it counts as ours, and is in the list of tasks before its first event. What it is `told`
    /// by is its id, with what else is needed to ask for it. Says its id.
    ///
    /// # Errors
    /// [`Error::NoSource`], [`Error::NoKind`] and [`Error::NoId`].
    pub async fn track<'a>(&self, source: &str, kind: &str, told: &'a str) -> Result<&'a str, Error> {
        let source = self.source(Some(source))?;
        if !source.kinds().contains(&kind) {
            let (kind, provider, kinds) = (one_line(kind, 40), source.provider(), source.kinds());
            return Err(Error::NoKind { kind, provider, kinds });
        }
        let (task_id, locator) = source.locate(told);
        let named = |id: &str| is_id(id) && !id.chars().any(char::is_whitespace);
        if !named(task_id) || locator.is_some_and(|locator| !named(locator)) {
            return Err(Error::NoId);
        }
        let task = Tracked { task_id: task_id.to_owned(), kind: kind.to_owned(), locator: locator.map(ToOwned::to_owned) };
        self.store.track(source.name(), task, self.clock.now()).await?;
        self.wake.notify_one();
        Ok(task_id)
    }

    /// `shown`, a body of `source` or the beginning of one, without what people must not see; `None` where there is no such thing.
    #[must_use]
    pub fn mask(&self, source: &str, shown: &str) -> Option<String> {
        self.sources.get(source)?.mask(shown)
    }

    /// Lets an event out of quarantine: whoever asks vouches for it.
    ///
    /// # Errors
    /// [`Error::NoEvent`] and [`Error::NotQuarantined`].
    pub async fn release(&self, event: &str) -> Result<(), Error> {
        match self.store.release(event, self.clock.now()).await? {
            Released::Yes => {
                tracing::info!(event = logged(event), "an event was released from quarantine");
                self.wake.notify_one();
                Ok(())
            }
            Released::Not(state) => Err(Error::NotQuarantined(state)),
            Released::Unknown => Err(Error::NoEvent(event.to_owned())),
        }
    }
}
