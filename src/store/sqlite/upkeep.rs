//! The verbs of upkeep, each on the connection that it belongs to.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use super::{Sqlite, erase, retention};
use crate::store::Error;
use crate::store::model::text;
use crate::store::upkeep::{Candidates, Erased, Holding, Removed, Space};

/// How long cutting the log waits for readers: meanwhile nobody else writes.
const PATIENCE: Duration = Duration::from_millis(100);

impl Sqlite {
    pub(in crate::store) async fn done_events(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        self.read(move |connection| retention::done_events(connection, after, &text(before), &text(now))).await
    }

    pub(in crate::store) async fn remove_events(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        self.shared.writer.write(move |connection, keys| retention::remove_events(connection, keys, &events, now)).await
    }

    pub(in crate::store) async fn quarantined(&self, before: Timestamp, most: usize) -> Result<Candidates, Error> {
        self.read(move |connection| retention::quarantined(connection, &text(before), most)).await
    }

    pub(in crate::store) async fn remove_quarantined(&self, events: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        let remove = move |connection: &_, keys: &mut _| retention::remove_quarantined(connection, keys, &events, now);
        self.shared.writer.write(remove).await
    }

    pub(in crate::store) async fn bare_tasks(&self, after: i64, before: Timestamp, now: Timestamp) -> Result<Candidates, Error> {
        self.read(move |connection| retention::bare_tasks(connection, after, &text(before), &text(now))).await
    }

    pub(in crate::store) async fn remove_tasks(&self, tasks: Vec<i64>, now: Timestamp) -> Result<Removed, Error> {
        self.write(move |connection| retention::remove_tasks(connection, &tasks, now)).await
    }

    pub(in crate::store) async fn unwanted_files(&self, after: &str) -> Result<Vec<String>, Error> {
        let after = after.to_owned();
        self.read(move |connection| retention::unwanted_files(connection, &after)).await
    }

    pub(in crate::store) async fn may_delete(&self, sha256: &str) -> Result<bool, Error> {
        let sha256 = sha256.to_owned();
        self.read(move |connection| retention::is_wanted(connection, &sha256).map(|wanted| !wanted)).await
    }

    /// One process saves and deletes here, and never both at once.
    #[expect(clippy::unused_async, reason = "the other store has to ask")]
    pub(in crate::store) async fn deletions(&self) -> Result<i64, Error> {
        Ok(0)
    }

    pub(in crate::store) async fn settle_file(&self, sha256: &str, deleted: bool) -> Result<bool, Error> {
        let sha256 = sha256.to_owned();
        self.write(move |connection| retention::settle_file(connection, &sha256, deleted)).await.map(|()| true)
    }

    pub(in crate::store) async fn forget_erased(&self, before: Timestamp) -> Result<(), Error> {
        self.write(move |connection| retention::forget_erased(connection, before)).await
    }

    pub(in crate::store) async fn space(&self) -> Result<Space, Error> {
        self.read(retention::space).await
    }

    pub(in crate::store) async fn shrink(&self, pages: u32) -> Result<(), Error> {
        self.write(move |connection| retention::shrink(connection, pages)).await
    }

    pub(in crate::store) async fn holding(&self, source: &str, task_id: &str) -> Result<Option<Holding>, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.read(move |connection| erase::holding(connection, &source, &task_id)).await
    }

    pub(in crate::store) async fn erase(&self, source: &str, task_id: &str, now: Timestamp) -> Result<Erased, Error> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        // What came of it a moment ago goes as well.
        self.write_caught_up(now, move |connection, keys| erase::erase(connection, keys, &source, &task_id, now)).await
    }

    pub(in crate::store) async fn has_traces(&self) -> Result<bool, Error> {
        self.read(erase::has_traces).await
    }

    pub(in crate::store) async fn clear_traces(&self) -> Result<bool, Error> {
        let path = self.path();
        let cut = tokio::task::spawn_blocking(move || -> Result<bool, Error> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(PATIENCE)?;
            connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA checkpoint_fullfsync = ON")?;
            Ok(!connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))?)
        });
        let cut = cut.await.map_err(|error| Error::Unavailable(error.to_string()))??;
        if cut {
            // What this writes to the log says nothing of what was erased.
            self.write(|connection| Ok(connection.execute("DELETE FROM store WHERE name = 'traces'", []).map(drop)?)).await?;
        }
        Ok(cut)
    }
}
