//! Posts that are done once, whichever replica they come to.
//!
//! What must hold: what a replica began and did not end is taken to be in hand as long as that replica is seen, and no longer than
//! [`LONGEST`]. Only who was seen all that time itself may say that another is gone. What is counted, nobody else changes meanwhile.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::beat::{is_seen, may_judge};
use super::session::{Tx, args, clean, known as time, number, tidy, transact};
use crate::clock::before;
use crate::store::Error;
use crate::store::idempotency::{
    Begun, KEPT, LARGEST, LONGEST, MOST, MOST_BYTES, NewPost, Post, Reply, STEP, Stands, digest_of, stands,
};

impl Postgres {
    pub(in crate::store) async fn post(&self, key: &str, holder: Uuid, now: Timestamp) -> Result<Option<Post>, Error> {
        let known = transact!(self.sessions(), Read, |tx| known(&tx, key, holder, now))?;
        Ok(known.map(|(_, post)| post))
    }

    pub(in crate::store) async fn begin_post(&self, post: NewPost, now: Timestamp) -> Result<Begun, Error> {
        transact!(self.sessions(), Write, |tx| begin(&tx, &post, now))
    }

    pub(in crate::store) async fn end_post(
        &self,
        id: Uuid,
        reply: Reply,
        task: Option<(String, String)>,
        now: Timestamp,
    ) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| end(&tx, id, &reply, task.as_ref(), now))
    }

    pub(in crate::store) async fn undo_post(&self, id: Uuid) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| undo(&tx, id))
    }

    pub(in crate::store) async fn forget_posts(&self, now: Timestamp) -> Result<bool, Error> {
        transact!(self.sessions(), Write, |tx| forget(&tx, now))
    }
}

/// Since when a key is known.
fn since(now: Timestamp) -> Timestamp {
    time(before(now, KEPT))
}

/// What a row says of the task that it is about.
fn about(task: Option<&(String, String)>) -> (Option<String>, Option<String>) {
    task.map(|(source, task_id)| (clean(source).into_owned(), digest_of(&clean(task_id)))).unzip()
}

async fn known(tx: &Tx, key: &str, holder: Uuid, now: Timestamp) -> Result<Option<(Uuid, Post)>, Error> {
    let row = tx
        .maybe(
            concat!(
                "SELECT id, request, ended_at IS NOT NULL, status, content_type, body, holder = $2, began_at > $4 AND (EXISTS \
                 (SELECT 1 FROM replicas WHERE replicas.id = posts.holder AND ",
                is_seen!(),
                ") OR NOT ",
                may_judge!("$2"),
                ") FROM posts WHERE key = $1 AND began_at > $3"
            ),
            args![key, holder, since(now), time(before(now, LONGEST))],
        )
        .await?;
    Ok(row.map(|row| (row.get(0), post(&row))))
}

fn post(row: &Row) -> Post {
    let open = match (row.get(6), row.get(7)) {
        (true, _) => Stands::Here,
        (false, true) => Stands::Elsewhere,
        (false, false) => Stands::Unknown,
    };
    Post { request: row.get(1), stands: stands(row.get(2), row.get(3), row.get(4), row.get(5), open) }
}

/// Waits until nobody else counts what is kept.
async fn lock(tx: &Tx) -> Result<(), Error> {
    let sql = "SELECT pg_advisory_xact_lock(hashtext('taskhook posts'), hashtext(current_schema()))";
    tx.run(sql, &[]).await.map(drop)
}

async fn begin(tx: &Tx, new: &NewPost, now: Timestamp) -> Result<Begun, Error> {
    lock(tx).await?;
    if let Some((id, post)) = known(tx, &new.key, new.holder, now).await? {
        // A try before this one got through, and its answer did not.
        return Ok(if id == new.id { Begun::Yes } else { Begun::Known(post) });
    }
    tx.run("DELETE FROM posts WHERE key = $1 AND began_at <= $2", args![&new.key, since(now)]).await?;
    let over = tx.row("SELECT count(*) FROM posts", &[]).await?.get::<_, i64>(0) - MOST + 1;
    if over > 0 {
        let gone = tx
            .run(
                "DELETE FROM posts WHERE seq IN (SELECT seq FROM posts WHERE ended_at IS NOT NULL OR began_at <= $1 \
                 ORDER BY seq LIMIT $2)",
                args![since(now), over],
            )
            .await?;
        if number(gone) < over {
            return Ok(Begun::Full);
        }
    }
    let (source, task) = about(new.task.as_ref());
    tx.run(
        "INSERT INTO posts (id, key, request, holder, source, task, began_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        args![new.id, &new.key, &new.request, new.holder, source, task, now],
    )
    .await?;
    Ok(Begun::Yes)
}

async fn end(tx: &Tx, id: Uuid, reply: &Reply, task: Option<&(String, String)>, now: Timestamp) -> Result<(), Error> {
    lock(tx).await?;
    let (source, task) = about(task);
    tx.run(
        "UPDATE posts SET ended_at = $2, status = $3, content_type = $4, source = coalesce($5, source), \
         task = coalesce($6, task) WHERE id = $1",
        args![id, now, i64::from(reply.status), tidy(reply.content_type.as_deref()), source, task],
    )
    .await?;
    if reply.body.len() > LARGEST {
        return Ok(());
    }
    let bytes = number(reply.body.len());
    let held: i64 = tx.row("SELECT coalesce(sum(bytes), 0)::bigint FROM posts WHERE bytes > 0", &[]).await?.get(0);
    if held + bytes > MOST_BYTES {
        tx.run(
            "UPDATE posts SET body = NULL, bytes = 0 WHERE bytes > 0 AND seq <= (SELECT min(seq) FROM \
             (SELECT seq, sum(bytes) OVER (ORDER BY seq) AS freed FROM posts WHERE bytes > 0) AS oldest WHERE freed >= $1)",
            args![held + bytes - MOST_BYTES],
        )
        .await?;
    }
    tx.run(
        "UPDATE posts SET body = $2, bytes = $3 WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM erased_tasks \
         WHERE erased_tasks.source = posts.source AND erased_tasks.task_id = posts.task AND erased_at >= began_at)",
        args![id, reply.body.as_slice(), bytes],
    )
    .await
    .map(drop)
}

async fn undo(tx: &Tx, id: Uuid) -> Result<(), Error> {
    tx.run("DELETE FROM posts WHERE id = $1 AND ended_at IS NULL", args![id]).await.map(drop)
}

async fn forget(tx: &Tx, now: Timestamp) -> Result<bool, Error> {
    let sql = "DELETE FROM posts WHERE seq IN (SELECT seq FROM posts WHERE began_at <= $1 ORDER BY began_at LIMIT $2)";
    Ok(number(tx.run(sql, args![since(now), number(STEP)]).await?) == number(STEP))
}

/// Empties the answers that are about a task.
pub(super) async fn empty(tx: &Tx, source: &str, task_id: &str) -> Result<(), Error> {
    let sql = "UPDATE posts SET body = NULL, bytes = 0 WHERE source = $1 AND task = $2";
    tx.run(sql, args![source, digest_of(task_id)]).await.map(drop)
}
