//! Posts that are done once. One process has the file open: what another one began, and did not end, that one does no more.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::Sqlite;
use crate::clock::before;
use crate::store::Error;
use crate::store::idempotency::{Begun, KEPT, LARGEST, MOST, MOST_BYTES, NewPost, Post, Reply, STEP, Stands, digest_of, stands};
use crate::store::model::text;

impl Sqlite {
    pub(in crate::store) async fn post(&self, key: &str, holder: Uuid, now: Timestamp) -> Result<Option<Post>, Error> {
        let key = key.to_owned();
        self.read(move |connection| known(connection, &key, holder, now)).await
    }

    pub(in crate::store) async fn begin_post(&self, post: NewPost, now: Timestamp) -> Result<Begun, Error> {
        self.write(move |connection| begin(connection, &post, now)).await
    }

    pub(in crate::store) async fn end_post(
        &self,
        id: Uuid,
        reply: Reply,
        task: Option<(String, String)>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |connection| end(connection, id, &reply, task.as_ref(), now)).await
    }

    pub(in crate::store) async fn undo_post(&self, id: Uuid) -> Result<(), Error> {
        self.write(move |connection| {
            connection.prepare_cached("DELETE FROM posts WHERE id = ?1 AND ended_at IS NULL")?.execute([id.to_string()])?;
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn forget_posts(&self, now: Timestamp) -> Result<bool, Error> {
        self.write(move |connection| {
            let gone = connection
                .prepare_cached(
                    "DELETE FROM posts WHERE seq IN (SELECT seq FROM posts WHERE began_at <= ?1 ORDER BY began_at LIMIT ?2)",
                )?
                .execute(params![text(before(now, KEPT)), STEP])?;
            Ok(gone == STEP)
        })
        .await
    }
}

fn known(connection: &Connection, key: &str, holder: Uuid, now: Timestamp) -> Result<Option<Post>, Error> {
    let holder = holder.to_string();
    Ok(connection
        .prepare_cached(
            "SELECT request, holder, ended_at IS NOT NULL, status, content_type, body FROM posts WHERE key = ?1 AND began_at > ?2",
        )?
        .query_row([key, &text(before(now, KEPT))], |row| {
            let open = if row.get_ref(1)?.as_str()? == holder { Stands::Here } else { Stands::Unknown };
            Ok(Post { request: row.get(0)?, stands: stands(row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, open) })
        })
        .optional()?)
}

fn begin(connection: &Connection, post: &NewPost, now: Timestamp) -> Result<Begun, Error> {
    let NewPost { id, key, request, holder, task } = post;
    if let Some(post) = known(connection, key, *holder, now)? {
        return Ok(Begun::Known(post));
    }
    let old = text(before(now, KEPT));
    connection.prepare_cached("DELETE FROM posts WHERE key = ?1 AND began_at <= ?2")?.execute([key, &old])?;
    let rows: i64 = connection.prepare_cached("SELECT count(*) FROM posts")?.query_row([], |row| row.get(0))?;
    let over = rows - MOST + 1;
    if over > 0 {
        let gone = connection
            .prepare_cached(
                "DELETE FROM posts WHERE seq IN (SELECT seq FROM posts WHERE ended_at IS NOT NULL OR began_at <= ?1 \
                 ORDER BY seq LIMIT ?2)",
            )?
            .execute(params![old, over])?;
        if i64::try_from(gone).unwrap_or(i64::MAX) < over {
            return Ok(Begun::Full);
        }
    }
    let (source, task) = task.as_ref().map(|(source, task_id)| (source, digest_of(task_id))).unzip();
    connection
        .prepare_cached(
            "INSERT INTO posts (id, key, request, holder, source, task, began_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![id.to_string(), key, request, holder.to_string(), source, task, text(now)])?;
    Ok(Begun::Yes)
}

fn end(connection: &Connection, id: Uuid, reply: &Reply, task: Option<&(String, String)>, now: Timestamp) -> Result<(), Error> {
    let Reply { status, content_type, body } = reply;
    let (source, task) = task.map(|(source, task_id)| (source, digest_of(task_id))).unzip();
    let id = id.to_string();
    connection
        .prepare_cached(
            "UPDATE posts SET ended_at = ?2, status = ?3, content_type = ?4, source = coalesce(?5, source), \
             task = coalesce(?6, task) WHERE id = ?1",
        )?
        .execute(params![id, text(now), status, content_type, source, task])?;
    if body.len() > LARGEST {
        return Ok(());
    }
    let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
    let held: i64 = connection
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM posts WHERE bytes > 0")?
        .query_row([], |row| row.get(0))?;
    if held + bytes > MOST_BYTES {
        connection
            .prepare_cached(
                "UPDATE posts SET body = NULL, bytes = 0 WHERE bytes > 0 AND seq <= (SELECT min(seq) FROM \
                 (SELECT seq, sum(bytes) OVER (ORDER BY seq) AS freed FROM posts WHERE bytes > 0) WHERE freed >= ?1)",
            )?
            .execute([held + bytes - MOST_BYTES])?;
    }
    connection
        .prepare_cached(
            "UPDATE posts SET body = ?2, bytes = ?3 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM erased_tasks \
             WHERE erased_tasks.source = posts.source AND erased_tasks.task_id = posts.task AND erased_at >= began_at)",
        )?
        .execute(params![id, body, bytes])?;
    Ok(())
}

/// Empties the answers that are about a task.
pub(super) fn empty(connection: &Connection, source: &str, task_id: &str) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE posts SET body = NULL, bytes = 0 WHERE source = ?1 AND task = ?2")?
        .execute([source, &digest_of(task_id)])?;
    Ok(())
}
