//! What people answered to tasks.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::read::shown;
use super::session::{Tx, args, clean, number, tidy, transact};
use crate::store::Error;
use crate::store::model::{NewAnswer, Outcome, text};
use crate::store::view::{AnswerRow, LOST, TASK_EVENTS, answer_columns};

impl Postgres {
    pub(in crate::store) async fn begin_answer(&self, answer: NewAnswer, now: Timestamp) -> Result<Option<AnswerRow>, Error> {
        let standing = transact!(self.sessions(), Write, |tx| begin(&tx, &answer, now))?;
        // A try before this one got through, and its answer did not.
        Ok(standing.filter(|standing| standing.id != answer.id.to_string()))
    }

    pub(in crate::store) async fn end_answer(
        &self,
        id: Uuid,
        outcome: Outcome,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let reason = tidy(reason.as_deref());
        transact!(self.sessions(), Write, |tx| end(&tx, id, outcome, reason.as_deref(), now))
    }

    pub(in crate::store) async fn doubt_answers(&self, before: Timestamp, now: Timestamp) -> Result<(), Error> {
        transact!(self.sessions(), Write, |tx| doubt(&tx, before, now))
    }
}

async fn doubt(tx: &Tx, before: Timestamp, now: Timestamp) -> Result<(), Error> {
    let sql = "UPDATE answers SET state = 'unknown', reason = $3, ended_at = $2 WHERE state = 'sending' AND given_at < $1";
    tx.run(sql, args![before, now, LOST]).await.map(drop)
}

async fn begin(tx: &Tx, answer: &NewAnswer, now: Timestamp) -> Result<Option<AnswerRow>, Error> {
    let NewAnswer { id, source, kind, by, again, .. } = answer;
    let (task_id, by) = (clean(&answer.task_id), clean(by));
    let (question, content) = (tidy(answer.question.as_deref()), tidy(answer.content.as_deref()));
    if *again {
        let sql = "UPDATE answers SET stands = false WHERE source = $1 AND task_id = $2 AND question = $3 AND stands AND state = 'unknown'";
        tx.run(sql, args![source, &*task_id, question]).await?;
    }
    // Waits for whoever answers the same question at this moment.
    let new = tx
        .run(
            "INSERT INTO answers (id, source, task_id, kind, question, given_by, content, state, stands, given_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'sending', true, $8) ON CONFLICT DO NOTHING",
            args![*id, source, &*task_id, kind.as_str(), question, &*by, content, now],
        )
        .await?;
    if new > 0 {
        return Ok(None);
    }
    let sql =
        concat!("SELECT ", answer_columns!(), " FROM answers WHERE source = $1 AND task_id = $2 AND question = $3 AND stands");
    Ok(Some(row(&tx.row(sql, args![source, &*task_id, question]).await?)))
}

fn row(row: &Row) -> AnswerRow {
    AnswerRow {
        id: row.get::<_, Uuid>(0).to_string(),
        kind: row.get(1),
        question: row.get(2),
        by: row.get(3),
        content: row.get(4),
        state: row.get(5),
        reason: row.get(6),
        given_at: text(row.get::<_, Timestamp>(7)),
        ended_at: shown(row, 8),
    }
}

async fn end(tx: &Tx, id: Uuid, outcome: Outcome, reason: Option<&str>, now: Timestamp) -> Result<(), Error> {
    let ended = tx
        .maybe(
            "UPDATE answers SET state = $2, stands = $3::boolean AND stands, reason = $4, ended_at = $5 WHERE id = $1 \
             RETURNING source, task_id, kind, given_at",
            args![id, outcome.as_str(), outcome.stands(), reason, now],
        )
        .await?;
    let Some(row) = ended.filter(|row| outcome == Outcome::Sent && row.get::<_, &str>(2) != "stop") else { return Ok(()) };
    // It goes on; unless it was fetched since, and is known to stand somewhere else.
    tx.run(
        "UPDATE tasks SET state = 'running', stop_reason = NULL WHERE source = $1 AND task_id = $2 AND state IS NOT NULL \
         AND (fetched_at IS NULL OR fetched_at <= $3)",
        args![row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, Timestamp>(3)],
    )
    .await
    .map(drop)
}

/// The newest answers to a task, the oldest of them first.
pub(super) async fn answers(tx: &Tx, source: &str, task_id: &str) -> Result<Vec<AnswerRow>, Error> {
    let sql =
        concat!("SELECT ", answer_columns!(), " FROM answers WHERE source = $1 AND task_id = $2 ORDER BY given_at DESC LIMIT $3");
    let rows = tx.rows(sql, args![source, task_id, number(TASK_EVENTS)]).await?;
    Ok(rows.iter().rev().map(row).collect())
}
