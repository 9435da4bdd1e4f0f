//! What changes in the store, for who looks on: by topic, and never what it was.

use super::{Error, Store, forward};

/// What can be news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// An event came, or stands elsewhere now.
    Events,
    /// A task was heard of, fetched or answered; a file of it was saved.
    Tasks,
    /// A delivery was made, tried or ended.
    Deliveries,
    /// A request did not verify.
    Rejections,
    /// Something was noticed, or is over.
    Watches,
}

/// How many topics there are.
pub(super) const TOPICS: usize = Topic::ALL.len();

impl Topic {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Events, Self::Tasks, Self::Deliveries, Self::Rejections, Self::Watches];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Tasks => "tasks",
            Self::Deliveries => "deliveries",
            Self::Rejections => "rejections",
            Self::Watches => "watches",
        }
    }

    /// The tables whose rows tell of it. A job stands for what it works on.
    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Events => &["events", "jobs", "replays"],
            Self::Tasks => &["tasks", "fetched_tasks", "files", "answers"],
            Self::Deliveries => &["deliveries", "jobs"],
            Self::Rejections => &["rejections"],
            Self::Watches => &["watches"],
        }
    }
}

/// The topics that a row of `table` tells of, a bit each in their order.
pub(super) fn topics_of(table: &str) -> u8 {
    let tells = |(_, topic): &(usize, Topic)| topic.tables().contains(&table);
    Topic::ALL.into_iter().enumerate().filter(tells).fold(0, |bits, (index, _)| bits | 1 << index)
}

/// How often what each topic is about has changed, in the order of [`Topic::ALL`]. Another number says that something is news; a lower one
/// does as well, since a count may begin anew.
pub type Changes = [u64; TOPICS];

/// The lists that are read forth: those of the first topics.
pub(super) const LISTS: usize = 4;

/// How far each list reaches, in the order of [`Topic::ALL`]: the cursor of its newest row, if nothing can come any more that stands before it.
pub type Reach = [Option<i64>; LISTS];

impl Store {
    /// How far the lists of events, tasks, deliveries and rejections reach. Of a list that somebody is about to add to, on a PostgreSQL, that
    /// cannot be told.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn reach(&self) -> Result<Reach, Error> {
        forward!(self.reach())
    }

    /// What has changed so far: on a SQLite of ours at once, on a PostgreSQL, where others write as well, what is new at once, and what
    /// changes of it within a second or, where little is done, ten.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn changes(&self) -> Result<Changes, Error> {
        match self {
            Self::Sqlite(store) => Ok(store.changes()),
            Self::Postgres(store) => Box::pin(store.changes()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_of_its_topics() {
        assert_eq!(topics_of("events"), 0b00001);
        assert_eq!(topics_of("jobs"), 0b00101);
        assert_eq!(topics_of("watches"), 0b10000);
        assert_eq!(topics_of("event_keys"), 0);
    }
}
