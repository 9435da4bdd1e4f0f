//! The store's verbs for who only looks: lists, and single rows.
//!
//! A list comes in pages, newest first, and says where to go on until its end. Asked for what is newer than a cursor, it comes oldest first, and
//! always says where to go on: whoever does so sees each row that is made, once.

use super::model::Like;
use super::view::{
    Backlog, DeliveryRow, EventDetail, EventFilter, EventRow, Listed, Page, RejectionDetail, RejectionFilter, RejectionRow,
    TaskDetail, TaskFilter, TaskRow,
};
use super::{Error, Store, forward};

impl Store {
    /// Events, newest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn events(&self, filter: EventFilter, page: Page) -> Result<Listed<EventRow>, Error> {
        forward!(self.events(filter, page))
    }

    /// Events that are newer than the cursor of `page`, oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn events_after(&self, filter: EventFilter, page: Page) -> Result<Listed<EventRow>, Error> {
        forward!(self.events_after(filter, page))
    }

    /// One event, by our id.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn event(&self, id: &str) -> Result<Option<EventDetail>, Error> {
        forward!(self.event(id))
    }

    /// The ids of events that begin with `start`, in order, at most `limit`: people write ids short.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn event_ids(&self, start: &str, limit: usize) -> Result<Vec<String>, Error> {
        forward!(self.event_ids(start, limit))
    }

    /// Tasks, the newest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        forward!(self.tasks(filter, page))
    }

    /// Tasks that are newer than the cursor of `page`, oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn tasks_after(&self, filter: TaskFilter, page: Page) -> Result<Listed<TaskRow>, Error> {
        forward!(self.tasks_after(filter, page))
    }

    /// One task.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn task(&self, source: &str, task_id: &str) -> Result<Option<TaskDetail>, Error> {
        forward!(self.task(source, task_id))
    }

    /// Deliveries like these, newest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn deliveries(&self, like: Like, page: Page) -> Result<Listed<DeliveryRow>, Error> {
        forward!(self.deliveries(like, page))
    }

    /// Deliveries like these that are newer than the cursor of `page`, oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn deliveries_after(&self, like: Like, page: Page) -> Result<Listed<DeliveryRow>, Error> {
        forward!(self.deliveries_after(like, page))
    }

    /// Rejections, newest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn rejections(&self, filter: RejectionFilter, page: Page) -> Result<Listed<RejectionRow>, Error> {
        forward!(self.rejections(filter, page))
    }

    /// Rejections that are newer than the cursor of `page`, oldest first.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn rejections_after(&self, filter: RejectionFilter, page: Page) -> Result<Listed<RejectionRow>, Error> {
        forward!(self.rejections_after(filter, page))
    }

    /// One rejection.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn rejection(&self, id: i64) -> Result<Option<RejectionDetail>, Error> {
        forward!(self.rejection(id))
    }

    /// What waits.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        forward!(self.backlog())
    }
}
