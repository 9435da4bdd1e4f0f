//! What finding stops that no webhook told asks of a provider.

use serde_json::Value;

use super::Source;
use crate::provider::{ApiError, Expected, ListPage, Lost, Recovered, Rounds};
use crate::task;

impl Source {
    /// How stops are found that no webhook told; `None` where they are not.
    #[must_use]
    pub fn reconcile(&self) -> Option<Rounds> {
        self.account.reconcile()
    }

    /// Why nothing is asked about tasks of which no webhook tells, and what that would need; `None` where it is, or cannot be.
    #[must_use]
    pub fn unasked(&self) -> Option<&'static str> {
        self.account.unasked()
    }

    /// Whether the account's tasks can be listed. Where not, those that are known are asked for by themselves ([`Source::ask`]), and each of
    /// them ends once.
    #[must_use]
    pub fn lists(&self) -> bool {
        self.account.lists()
    }

    /// The types of event that end a task, or a turn of it.
    #[must_use]
    pub fn ending(&self) -> &'static [&'static str] {
        self.account.ending()
    }

    /// A page of the account's tasks: those that were made or changed last, or those behind `cursor`. The caller has taken its place
    /// from [`Source::budget`] for [`Use::Reconcile`](crate::provider::Use::Reconcile), here as in all that follows.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn tasks(&self, cursor: Option<&str>) -> Result<ListPage, ApiError> {
        self.account.tasks(cursor).await
    }

    /// The ends of the newest turns of a task, the oldest first; one call.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn stops(&self, task_id: &str) -> Result<Vec<task::Stop>, ApiError> {
        self.account.stops(task_id).await
    }

    /// The id of a task in what a person told us to expect, and what else is needed to ask for it: a credential.
    #[must_use]
    pub fn locate<'a>(&self, told: &'a str) -> (&'a str, Option<&'a str>) {
        self.account.locate(told)
    }

    /// A task as it stands, asked for by itself; one call.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Unsupported`] where too little is known of the task to ask for it.
    pub async fn ask(&self, task: &Expected) -> Result<task::Fetched, ApiError> {
        self.account.ask(task).await
    }

    /// The task as it stood at the stop `anchor`, from answers that were kept ([`task::Fetched::raw`]); `None` where they do not show that.
    #[must_use]
    pub fn turn(&self, task_id: &str, raw: &str, anchor: &str) -> Option<task::Fetched> {
        self.account.turn(task_id, &serde_json::from_str(raw).ok()?, anchor)
    }

    /// What the task asked at the stop `anchor`, from answers that were kept; `None` where they do not show that.
    #[must_use]
    pub fn asked(&self, task_id: &str, raw: &Value, anchor: &str) -> Option<String> {
        self.account.turn(task_id, raw, anchor)?.task.question?.text
    }

    /// The event that a webhook should have been; `None` for what is no stop.
    #[must_use]
    pub fn recovered(&self, lost: &Lost<'_>) -> Option<Recovered> {
        self.account.recovered(lost)
    }
}
